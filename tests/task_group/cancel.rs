//! A group that is told to end: `cancel` and its kin.

use std::{cell::RefCell, rc::Rc, time::Duration};

use asyncio::{Canceller, Error, Result, TaskGroup, get_running_loop, sleep};

use crate::{
    clean_up_for, fail_after, fail_in_clean_up, for_ever, ms, outcome, run, shown, support::Record, this_task,
};

/// From the body, which ends well.
#[test]
fn a_body_can_cancel_its_group() {
    run(async {
        let mut child = None;
        let value = TaskGroup::scope(async |group| {
            child = Some(group.create_task(for_ever()));
            sleep(ms(1)).await?;
            group.cancel();
            Ok(5)
        })
        .await?;
        assert_eq!(value, 5);
        assert!(child.unwrap().cancelled());
        assert_eq!(this_task().cancelling(), 0);
        sleep(Duration::ZERO).await
    });
}

/// The body is told at its next suspension, once.
#[test]
fn a_body_that_cancels_its_group_is_cancelled_itself() {
    run(async {
        let result = TaskGroup::scope(async |group| {
            group.cancel_with("enough");
            assert_eq!(this_task().cancelling(), 1);
            let first = sleep(ms(1)).await;
            assert_eq!(shown(&first), "cancelled enough");
            assert_eq!(shown(&sleep(ms(1)).await), "ok");
            group.cancel();
            assert_eq!(shown(&sleep(ms(1)).await), "ok", "once");
            Ok(3)
        })
        .await;
        assert_eq!(result?, 3);
        assert_eq!(this_task().cancelling(), 0);
        let result: Result<()> = TaskGroup::scope(async |group| {
            group.cancel_with("enough");
            sleep(ms(1)).await
        })
        .await;
        assert_eq!(shown(&result), "cancelled enough", "the body let it out, so there is no value");
        assert_eq!(this_task().cancelling(), 0);
        sleep(Duration::ZERO).await
    });
}

/// From a child: it is cancelled itself, too.
#[test]
fn a_child_can_cancel_its_group() {
    for in_wait in [false, true] {
        run(async {
            let seen = Record::default();
            let record = seen.clone();
            TaskGroup::scope(async |group| {
                let handle = group.clone();
                let child = record.clone();
                group.create_task(async move {
                    sleep(ms(5)).await?;
                    handle.cancel_with("by a child");
                    child.push(("itself", shown(&sleep(ms(1)).await)));
                    Ok(())
                });
                let child = record.clone();
                group.create_task(async move {
                    child.push(("sibling", shown(&for_ever().await)));
                    Ok(())
                });
                if !in_wait {
                    record.push(("body", shown(&for_ever().await)));
                }
                Ok(())
            })
            .await?;
            let mut seen = seen.take();
            seen.sort();
            let names: Vec<_> = seen.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, if in_wait { vec!["itself", "sibling"] } else { vec!["body", "itself", "sibling"] });
            assert!(seen.iter().all(|(_, how)| how == "cancelled by a child"), "{seen:?}");
            assert_eq!(this_task().cancelling(), 0);
            sleep(Duration::ZERO).await
        });
    }
}

/// From a callback, from another task, and after the end, where it does nothing.
#[test]
fn anybody_can_cancel_a_group() {
    run(async {
        for by_task in [false, true] {
            let mut kept = None;
            TaskGroup::scope(async |group| {
                kept = Some(group.clone());
                let handle = group.clone();
                let cancels = move || handle.cancel();
                if by_task {
                    drop(asyncio::create_task(async move {
                        sleep(ms(5)).await?;
                        cancels();
                        Ok(())
                    }));
                } else {
                    get_running_loop()?.call_later(ms(5), cancels);
                }
                group.create_task(clean_up_for(5));
                Ok(())
            })
            .await?;
            let group = kept.unwrap();
            group.cancel();
            group.cancel_with("again");
            group.cancel_with_grace(ms(1));
            assert_eq!(this_task().cancelling(), 0);
            sleep(ms(10)).await?;
        }
        Ok(())
    });
}

/// Who is told what: the reason that the group was given.
#[test]
fn a_message_reaches_tasks_and_body() {
    run(async {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let note = {
            let seen = seen.clone();
            move |outcome: Result<()>| {
                let Err(Error::Cancelled(cancelled)) = outcome else { panic!("{outcome:?}") };
                seen.borrow_mut().push((cancelled.by, cancelled.message.as_deref().map(str::to_owned)));
                Ok(())
            }
        };
        let event_loop = get_running_loop()?;
        for message in [None, Some("the user left")] {
            let note = note.clone();
            TaskGroup::scope(async |group| {
                let child = note.clone();
                group.create_task(async move { child(for_ever().await) });
                let handle = group.clone();
                event_loop.call_later(ms(1), move || match message {
                    None => handle.cancel(),
                    Some(message) => handle.cancel_with(message),
                });
                note(for_ever().await)
            })
            .await?;
            let expected = (Some(Canceller::TaskGroup), message.map(str::to_owned));
            assert_eq!(seen.take(), [expected.clone(), expected]);
        }
        Ok(())
    });
}

/// Errors of clean-ups come out as ever.
#[test]
fn errors_of_clean_ups_come_out_of_a_cancelled_group() {
    let result = outcome(TaskGroup::scope(async |group| {
        group.create_task(fail_in_clean_up("A"));
        group.create_task(clean_up_for(10));
        sleep(ms(1)).await?;
        group.cancel();
        let _ = for_ever().await;
        Err::<(), _>(crate::value("body"))
    }));
    assert_eq!(shown(&result), "[A, body]");
}

/// Tasks that were not begun never run.
#[test]
fn a_group_that_is_cancelled_at_once_runs_no_task() {
    run(async {
        let seen = Record::<&str>::default();
        let record = seen.clone();
        TaskGroup::scope(async |group| {
            group.create_task(async move {
                record.push("begun");
                Ok(())
            });
            group.cancel();
            let refused = group.create_task(async { Ok(()) });
            assert!(refused.exception()?.unwrap().to_string().contains("is shutting down"));
            Ok(())
        })
        .await?;
        assert_eq!(seen.len(), 0);
        Ok(())
    });
}

/// In the wait, from outside, after the group's own: the task is cancelled, not only the group.
#[test]
fn a_cancellation_from_outside_after_the_groups_own_comes_out() {
    run(async {
        for swallows in [true, false] {
            let task = asyncio::create_task(TaskGroup::scope(async move |group| {
                group.create_task(clean_up_for(20));
                sleep(ms(1)).await?;
                group.cancel_with("own");
                let cancelled = for_ever().await;
                if swallows { Ok(()) } else { cancelled }
            }));
            sleep(ms(10)).await?;
            task.cancel_with("ext");
            assert_eq!(shown(&task.await), "cancelled ext", "{swallows}");
        }
        Ok(())
    });
}

/// An outer group that is cancelled passes it on to the inner one; an inner one leaves the outer one be.
#[test]
fn cancelling_one_of_two_nested_groups() {
    run(async {
        let seen = Record::default();
        let record = seen.clone();
        TaskGroup::scope(async |outer| {
            outer.create_task(async { sleep(ms(50)).await });
            let result = TaskGroup::scope(async |inner| {
                inner.create_task(for_ever());
                let handle = inner.clone();
                get_running_loop()?.call_later(ms(1), move || handle.cancel_with("inner"));
                for_ever().await
            })
            .await;
            record.push(shown(&result));
            assert_eq!(this_task().cancelling(), 0);
            sleep(ms(1)).await?;
            let handle = outer.clone();
            let result = TaskGroup::scope(async |inner| {
                inner.create_task(for_ever());
                get_running_loop()?.call_later(ms(1), move || handle.cancel_with("outer"));
                Ok(())
            })
            .await;
            record.push(shown(&result));
            assert_eq!(this_task().cancelling(), 1);
            Ok(())
        })
        .await?;
        assert_eq!(seen.take(), ["cancelled inner", "cancelled outer"]);
        assert_eq!(this_task().cancelling(), 0);
        sleep(Duration::ZERO).await
    });
}

/// A failure after the cancel, a cancel after the failure: the tasks are told once.
#[test]
fn a_group_is_cancelled_once() {
    run(async {
        let seen = Record::default();
        let record = seen.clone();
        let result = TaskGroup::scope(async |group| {
            group.create_task(fail_after(5, "E"));
            let child = record.clone();
            group.create_task(async move {
                child.push(shown(&for_ever().await));
                child.push(shown(&sleep(ms(20)).await));
                Ok(())
            });
            let handle = group.clone();
            get_running_loop()?.call_later(ms(10), move || handle.cancel_with("late"));
            record.push(shown(&for_ever().await));
            record.push(shown(&sleep(ms(20)).await));
            Ok(())
        })
        .await;
        assert_eq!(shown(&result), "[E]");
        assert_eq!(seen.take(), ["cancelled", "cancelled", "ok", "ok"]);
        Ok(())
    });
}
