//! Errors that belong together.

use std::{error::Error as StdError, sync::Arc};

use asyncio::{Error, ErrorKind, ExceptionGroup};

use crate::{show, support::failure, value};

fn group(message: &str, errors: impl IntoIterator<Item = Error>) -> Error {
    Error::Group(ExceptionGroup::new(message, errors).unwrap())
}

/// [A, [B, timeout, [C, timeout]], timeout]
fn tree() -> Arc<ExceptionGroup> {
    let late = |text: &str| Error::Timeout(text.into());
    let deepest = group("deepest", [value("C"), late("t2")]);
    let inner = group("inner", [value("B"), late("t1"), deepest]);
    ExceptionGroup::new("outer", [value("A"), inner, late("t3")]).unwrap()
}

fn shown(group: Option<Arc<ExceptionGroup>>) -> String {
    group.map_or("nothing".into(), |group| show(&Error::Group(group)))
}

fn is_timeout(error: &Error) -> bool {
    error.kind() == ErrorKind::Timeout
}

#[test]
fn a_group_has_a_message_and_errors() {
    let group = ExceptionGroup::new("two", vec![value("A"), Error::QueueEmpty]).unwrap();
    assert_eq!(group.message(), "two");
    assert_eq!(
        group.exceptions().iter().map(Error::kind).collect::<Vec<_>>(),
        [ErrorKind::Value, ErrorKind::QueueEmpty]
    );
    let error = Error::Group(group);
    assert_eq!(error.kind(), ErrorKind::Group);
    assert_eq!(error.group().unwrap().exceptions().len(), 2);
    assert!(value("A").group().is_none());
    assert!(!error.is_cancelled());
}

#[test]
fn a_group_is_never_empty() {
    assert_eq!(failure(ExceptionGroup::new("none", [])).0, ErrorKind::Value);
}

#[test]
fn leaves_are_in_order() {
    let tree = tree();
    assert_eq!(tree.leaves().map(show).collect::<Vec<_>>(), ["A", "B", "t1", "C", "t2", "t3"]);
    let one = ExceptionGroup::new("", [group("", [group("", [value("A")])])]).unwrap();
    assert_eq!(one.leaves().count(), 1);
}

/// As CPython's, with the nesting and the messages kept.
#[test]
fn a_split_keeps_the_nesting() {
    let (late, rest) = tree().split(is_timeout);
    assert_eq!(shown(late), "outer[inner[t1, deepest[t2]], t3]");
    assert_eq!(shown(rest), "outer[A, inner[B, deepest[C]]]");
}

#[test]
fn a_split_into_all_and_nothing() {
    let (all, none) = tree().split(|_| true);
    assert_eq!((shown(all), shown(none)), ("outer[A, inner[B, t1, deepest[C, t2]], t3]".into(), "nothing".into()));
    let (none, all) = tree().split(|_| false);
    assert_eq!((shown(none), shown(all)), ("nothing".into(), "outer[A, inner[B, t1, deepest[C, t2]], t3]".into()));
}

/// A group for which the condition holds is taken whole.
#[test]
fn a_condition_is_asked_for_groups_first() {
    let mut asked = Vec::new();
    let (inner, rest) = tree().split(|error| {
        asked.push(show(error));
        matches!(error, Error::Group(group) if group.message() == "inner")
    });
    assert_eq!(shown(inner), "outer[inner[B, t1, deepest[C, t2]]]");
    assert_eq!(shown(rest), "outer[A, t3]");
    assert_eq!(asked, ["A", "inner[B, t1, deepest[C, t2]]", "t3"]);
}

#[test]
fn a_subgroup_is_the_matching_part() {
    assert_eq!(shown(tree().subgroup(is_timeout)), "outer[inner[t1, deepest[t2]], t3]");
    assert_eq!(shown(tree().subgroup(|error| error.kind() == ErrorKind::Io)), "nothing");
    assert_eq!(shown(tree().subgroup(|error| show(error) == "C")), "outer[inner[deepest[C]]]");
}

#[test]
fn a_group_says_its_message_and_count() {
    let error = Error::Group(tree());
    assert_eq!(error.to_string(), "outer (3 sub-exceptions)");
    assert_eq!(
        format!("{error:#}"),
        "outer (3 sub-exceptions): A; inner (3 sub-exceptions): B; t1; deepest (2 sub-exceptions): C; t2; t3"
    );
    let one = group("unhandled errors in a TaskGroup", [value("A")]);
    assert_eq!(one.to_string(), "unhandled errors in a TaskGroup (1 sub-exception)");
    assert_eq!(format!("{one:#}"), "unhandled errors in a TaskGroup (1 sub-exception): A");
    assert!(format!("{one:?}").contains("unhandled errors"));
}

#[test]
fn the_source_of_a_group_is_its_first_error() {
    let error = Error::Group(tree());
    assert_eq!(error.source().unwrap().to_string(), "A");
    let nested = group("outer", [group("inner", [value("A")]), value("B")]);
    let source = nested.source().unwrap();
    assert_eq!(source.to_string(), "inner (1 sub-exception)");
    assert_eq!(source.source().unwrap().to_string(), "A");
}

/// It is carried through boxes and system errors as any error.
#[test]
fn a_group_survives_its_travels() {
    let error = Error::Group(tree());
    assert_eq!(Error::other(error.clone()).kind(), ErrorKind::Group);
    let back = Error::from(std::io::Error::from(error.clone()));
    assert_eq!(show(&back), show(&error));
    let from_another_thread = std::thread::spawn(move || show(&error)).join().unwrap();
    assert_eq!(from_another_thread, show(&back));
}

#[test]
fn a_deep_group_can_be_read_and_dropped() {
    let mut error = value("A");
    for _ in 0..1000 {
        error = group("level", [error]);
    }
    assert_eq!(error.group().unwrap().leaves().count(), 1);
    let (all, none) = error.group().unwrap().split(|error| error.kind() == ErrorKind::Value);
    assert_eq!(all.unwrap().leaves().count(), 1);
    assert!(none.is_none());
}
