//! The current loop of the main thread, which is made by the first question for it.
use asyncio::{ErrorKind, get_event_loop, get_running_loop, set_event_loop};

use crate::{
    main_thread::tests,
    support::{logs, new_loop},
};

tests![
    the_main_thread_makes_its_loop_when_it_is_first_asked_for,
    other_threads_make_none,
    who_sets_none_gets_none,
    a_loop_that_was_set_is_given_in_silence,
    a_running_loop_is_given_in_silence,
];

/// CUR-004
fn the_main_thread_makes_its_loop_when_it_is_first_asked_for() {
    let (first, records) = logs(|| get_event_loop().unwrap());
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0].0, tracing::Level::WARN);
    assert!(records[0].1.contains("Deprecat"), "{records:?}");
    assert!(records[0].1.contains("There is no current event loop"), "{records:?}");
    let (second, records) = logs(|| get_event_loop().unwrap());
    assert!(first == second);
    assert!(records.is_empty(), "{records:?}");
    assert!(get_running_loop().is_err());
    assert!(first.run_until_complete(async { Ok(get_event_loop()? == second) }).unwrap());
}

fn other_threads_make_none() {
    let other = std::thread::spawn(|| get_event_loop().unwrap_err().kind());
    assert_eq!(other.join().unwrap(), ErrorKind::Runtime);
    assert!(get_event_loop().is_ok(), "the main thread still makes one");
}

fn who_sets_none_gets_none() {
    set_event_loop(None);
    let error = get_event_loop().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Runtime);
    assert_eq!(error.to_string(), "There is no current event loop in thread 'main'.");
}

fn a_loop_that_was_set_is_given_in_silence() {
    let event_loop = new_loop();
    let (same, records) = logs(|| {
        set_event_loop(&event_loop);
        get_event_loop().unwrap() == event_loop
    });
    assert!(same && records.is_empty(), "{records:?}");
}

fn a_running_loop_is_given_in_silence() {
    let event_loop = new_loop();
    let (same, records) = logs(|| event_loop.run_until_complete(async { Ok(get_event_loop()? == event_loop) }));
    assert!(same.unwrap() && records.is_empty(), "{records:?}");
}
