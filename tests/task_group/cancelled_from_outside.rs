//! A task that is cancelled while it is in a group.

use std::time::Duration;

use asyncio::{AnyTask, Error, Event, Result, Task, TaskGroup, create_task, sleep};

use crate::{
    clean_up_for, counted, fail_after, fail_in_clean_up, for_ever, ms, run, shown,
    support::{Record, drop_guard},
    this_task, value,
};

/// Makes the task, lets it run for 10 ms, cancels it with each message and 10 ms in between.
async fn cancelled<T: 'static>(
    main: impl Future<Output = Result<T>> + 'static,
    messages: &[&'static str],
) -> Result<T> {
    let task = create_task(main);
    for message in messages {
        sleep(ms(10)).await?;
        assert!(task.cancel_with(*message));
    }
    task.await
}

/// TG-006
#[test]
fn a_task_in_a_group_passes_its_cancellation_on() {
    for waits_in_body in [false, true] {
        run(async {
            let seen = Record::default();
            let record = seen.clone();
            let group = TaskGroup::scope(async move |group| {
                for _ in 0..5 {
                    let record = record.clone();
                    group.create_task(async move {
                        let outcome = sleep(Duration::from_secs(5)).await;
                        record.push(shown(&outcome));
                        outcome
                    });
                }
                if waits_in_body { sleep(Duration::from_secs(10)).await } else { Ok(()) }
            });
            let task = create_task(group);
            sleep(ms(100)).await?;
            assert!(!task.done());
            task.cancel_with("ext");
            let any = task.any();
            let result = task.await;
            assert_eq!(shown(&result), "cancelled ext");
            assert!(any.cancelled());
            assert_eq!(seen.take(), vec!["cancelled ext"; 5], "the reason travels");
            Ok(())
        });
    }
}

/// Before its first step a task does not enter the group at all.
#[test]
fn a_task_that_never_begins_enters_no_group() {
    run(async {
        let task = create_task(TaskGroup::scope(async |_| -> Result<()> { panic!("the body ran") }));
        task.cancel_with("early");
        assert_eq!(shown(&task.await), "cancelled early");
        Ok(())
    });
}

/// In the step in which the group was entered, before the body's first await; or between the children's first steps.
#[test]
fn a_cancellation_before_the_children_begin_lets_none_begin() {
    run(async {
        let begun = Record::default();
        for children_first in [false, true] {
            let record = begun.clone();
            let task = create_task(TaskGroup::scope(async move |group| {
                for _ in 0..3 {
                    let record = record.clone();
                    group.create_task(async move {
                        record.push("begun");
                        for_ever().await
                    });
                }
                for_ever().await
            }));
            sleep(Duration::ZERO).await?;
            if children_first {
                sleep(Duration::ZERO).await?;
            }
            task.cancel();
            assert_eq!(shown(&task.await), "cancelled");
            // The body lets the cancellation out one iteration after it was asked: the children have begun by then.
            assert_eq!(begun.take().len(), 3);
        }
        Ok(())
    });
}

/// By itself, in the body.
#[test]
fn a_body_can_cancel_its_own_task() {
    run(async {
        let seen = Record::default();
        let record = seen.clone();
        let task = create_task(async move {
            let result = TaskGroup::scope(async |group| {
                let record = record.clone();
                group.create_task(async move {
                    let cancelled = for_ever().await;
                    record.push(shown(&cancelled));
                    cancelled
                });
                this_task().cancel_with("myself");
                for_ever().await
            })
            .await;
            assert_eq!(shown(&result), "cancelled myself");
            assert_eq!(this_task().cancelling(), 1);
            result
        });
        assert_eq!(shown(&task.await), "cancelled myself");
        assert_eq!(seen.take(), ["cancelled myself"]);
        Ok(())
    });
}

/// A child that cancels the task which waits for it.
#[test]
fn a_child_can_cancel_its_parent() {
    for body_waits in [false, true] {
        run(async {
            let task = create_task(async move {
                let parent = this_task();
                TaskGroup::scope(async |group| {
                    let other = group.create_task(for_ever());
                    group.create_task(async move {
                        sleep(ms(1)).await?;
                        parent.cancel_with("child");
                        Ok(())
                    });
                    if body_waits { other.await } else { Ok(()) }
                })
                .await
            });
            assert_eq!(shown(&task.await), "cancelled child");
            Ok(())
        });
    }
}

/// CPython's `test_taskgroup_08`, `18`, `15`.
#[test]
fn errors_win_over_the_cancellation() {
    run(async {
        let clean_ups = TaskGroup::scope(async |group| {
            for text in ["A", "B", "C"] {
                group.create_task(fail_in_clean_up(text));
            }
            for_ever().await
        });
        assert_eq!(shown(&cancelled(clean_ups, &["ext"]).await), "[A, B, C]");
        let body = TaskGroup::scope(async |_| fail_in_clean_up("body").await);
        assert_eq!(shown(&cancelled(body, &["ext"]).await), "[body]");
        let late = TaskGroup::scope(async |group| {
            group.create_task(fail_after(30, "late"));
            let outcome = for_ever().await;
            sleep(ms(50)).await?;
            outcome
        });
        assert_eq!(shown(&cancelled(late, &["ext"]).await), "[late]");
        let in_wait = TaskGroup::scope(async |group| {
            group.create_task(fail_in_clean_up("A"));
            group.create_task(clean_up_for(5));
            Ok(())
        });
        assert_eq!(shown(&cancelled(in_wait, &["ext"]).await), "[A]");
        Ok(())
    });
}

/// CPython's `test_taskgroup_16`: through a task that awaits the task with the group.
#[test]
fn errors_win_over_a_cancellation_that_was_passed_on() {
    run(async {
        let nested = async {
            let inner = create_task(TaskGroup::scope(async |group| {
                group.create_task(fail_after(30, "late"));
                let outcome = for_ever().await;
                sleep(ms(50)).await?;
                outcome
            }));
            inner.await
        };
        assert_eq!(shown(&cancelled(nested, &["ext"]).await), "[late]");
        Ok(())
    });
}

/// CPython's `test_error_and_cancel`: both in one iteration; the cancellation is told again after the group.
#[test]
fn a_cancellation_is_not_forgotten_because_of_errors() {
    run(async {
        let event = std::rc::Rc::new(Event::new());
        let seen = Record::default();
        let (set, record) = (event.clone(), seen.clone());
        let task = create_task(async move {
            let result: Result<()> = TaskGroup::scope(async |group| {
                group.create_task(async move {
                    set.set();
                    sleep(Duration::ZERO).await?;
                    Err::<(), _>(value("E"))
                });
                sleep(Duration::from_secs(1)).await?;
                panic!("it should have been cancelled")
            })
            .await;
            record.push((shown(&result), this_task().cancelling()));
            sleep(Duration::from_secs(1)).await?;
            panic!("it should have been cancelled")
        });
        event.wait().await?;
        assert_eq!(task.cancelling(), 0);
        task.cancel_with("x");
        assert_eq!(task.cancelling(), 1);
        let any = task.any();
        let result: Result<()> = task.await;
        assert_eq!(shown(&result), "cancelled x");
        assert!(any.cancelled());
        assert_eq!(seen.take(), [("[E]".to_string(), 1)]);
        Ok(())
    });
}

/// What comes after a group that failed in a task that was asked to cancel.
async fn then_sleeps(group: impl Future<Output = Result<()>>, expected: &'static str) -> Result<()> {
    assert_eq!(shown(&group.await), expected);
    assert_eq!(this_task().cancelling(), 1);
    sleep(ms(1)).await?;
    panic!("the sleep was not cancelled")
}

/// The cancellation came during the wait, with an error before or after it.
#[test]
fn a_cancellation_in_the_wait_is_told_again() {
    run(async {
        for first in [5, 15] {
            let group = TaskGroup::scope(async move |group| {
                group.create_task(fail_after(first, "E"));
                group.create_task(async {
                    let _ = for_ever().await;
                    sleep(ms(20)).await?;
                    Err::<(), _>(value("F"))
                });
                Ok(())
            });
            let expected = if first == 5 { "[E, F]" } else { "[F]" };
            assert_eq!(shown(&cancelled(then_sleeps(group, expected), &["ext"]).await), "cancelled ext");
        }
        Ok(())
    });
}

/// The body failed because of it.
#[test]
fn a_cancellation_that_the_body_turned_into_an_error_is_told_again() {
    run(async {
        let group = TaskGroup::scope(async |_| fail_in_clean_up("E").await);
        let result = cancelled(then_sleeps(group, "[E]"), &["ext"]).await;
        assert!(result.unwrap_err().is_cancelled());
        Ok(())
    });
}

/// The body swallowed it, and then something failed: in the body, in a task while the body runs, in the wait.
#[test]
fn a_cancellation_that_the_body_swallowed_is_told_again_after_errors() {
    async fn group(phase: u32) -> Result<()> {
        TaskGroup::scope(async |group| {
            group.create_task(fail_after(20, "E"));
            let _ = for_ever().await;
            match phase {
                0 => for_ever().await,
                1 => Ok(()),
                _ => Err(value("body")),
            }
        })
        .await
    }
    run(async {
        for (phase, expected) in [(0, "[E]"), (1, "[E]"), (2, "[body]")] {
            let result = cancelled(then_sleeps(group(phase), expected), &["ext"]).await;
            assert!(result.unwrap_err().is_cancelled());
        }
        Ok(())
    });
}

/// One that the task swallowed before the group, and did not take back.
#[test]
fn a_request_that_was_not_taken_back_is_told_again_after_errors() {
    async fn group() -> Result<()> {
        TaskGroup::scope(async |group| {
            group.create_task(fail_after(1, "E"));
            Ok(())
        })
        .await
    }
    run(async {
        let keeps = async {
            let _ = for_ever().await;
            then_sleeps(group(), "[E]").await
        };
        assert!(cancelled(keeps, &["ext"]).await.unwrap_err().is_cancelled());
        let takes_back = async {
            let _ = for_ever().await;
            this_task().uncancel();
            assert_eq!(shown(&group().await), "[E]");
            sleep(ms(1)).await
        };
        cancelled(takes_back, &["ext"]).await
    });
}

/// Swallowed in the body and nothing fails: it is over, the count stays.
#[test]
fn a_cancellation_that_the_body_swallowed_is_over() {
    run(async {
        let task = async {
            let result = TaskGroup::scope(async |group| {
                group.create_task(sleep(ms(20)));
                let _ = for_ever().await;
                Ok(5)
            })
            .await;
            assert_eq!(this_task().cancelling(), 1);
            sleep(Duration::ZERO).await?;
            result
        };
        assert_eq!(cancelled(task, &["ext"]).await?, 5);
        Ok(())
    });
}

/// As in asyncio: the first one that the group has seen is the one it gives.
#[test]
fn of_two_cancellations_the_first_comes_out() {
    run(async {
        let in_wait = TaskGroup::scope(async |group| {
            group.create_task(clean_up_for(50));
            Ok(())
        });
        assert_eq!(shown(&cancelled(in_wait, &["a", "b"]).await), "cancelled a");
        let in_both = TaskGroup::scope(async |group| {
            group.create_task(clean_up_for(50));
            for_ever().await
        });
        assert_eq!(shown(&cancelled(in_both, &["a", "b"]).await), "cancelled a");
        let swallowed = TaskGroup::scope(async |group| {
            group.create_task(clean_up_for(50));
            let _ = for_ever().await;
            Ok(())
        });
        assert_eq!(shown(&cancelled(swallowed, &["a", "b"]).await), "cancelled b");
        let in_body = TaskGroup::scope(async |_| clean_up_for(50).await);
        assert_eq!(shown(&cancelled(in_body, &["a", "b"]).await), "cancelled b");
        Ok(())
    });
}

/// The tasks are cancelled once, how often the one that waits may be.
#[test]
fn a_second_cancellation_in_the_wait_does_not_reach_the_tasks_again() {
    run(async {
        let seen = Record::default();
        let record = seen.clone();
        let group = TaskGroup::scope(async move |group| {
            group.create_task(async move {
                let cancelled = for_ever().await;
                record.push(shown(&sleep(ms(50)).await));
                cancelled
            });
            Ok(())
        });
        assert_eq!(shown(&cancelled(group, &["a", "b", "c"]).await), "cancelled a");
        assert_eq!(seen.take(), ["ok"]);
        Ok(())
    });
}

/// A child that does not end: the one that waits sleeps, and does not spin, how often it may be cancelled.
#[test]
fn cancelling_a_wait_again_and_again_does_not_spin() {
    let (result, turns) = counted(async {
        let task = create_task(TaskGroup::scope(async |group| {
            group.create_task(clean_up_for(10_000));
            Ok(())
        }));
        for _ in 0..10 {
            sleep(ms(10)).await?;
            task.cancel();
        }
        task.await
    });
    assert!(result.unwrap_err().is_cancelled());
    assert!(turns < 50, "{turns}");
}

/// Taken back before it was delivered: the group goes on.
#[test]
fn a_cancellation_that_was_taken_back_does_nothing() {
    run(async {
        for in_body in [true, false] {
            let task = create_task(TaskGroup::scope(async move |group| {
                let child = group.create_task(async {
                    sleep(ms(50)).await?;
                    Ok(5)
                });
                if in_body {
                    sleep(ms(40)).await?;
                }
                Ok(child)
            }));
            sleep(ms(10)).await?;
            task.cancel();
            assert_eq!(task.uncancel(), 0);
            assert_eq!(task.await?.await?, 5);
        }
        Ok(())
    });
}

/// From another task in the very iteration in which the last child ends.
#[test]
fn a_cancellation_in_the_iteration_of_the_last_end_is_delivered() {
    run(async {
        let task = create_task(async {
            let child = TaskGroup::scope(async |group| Ok(group.create_task(sleep(ms(10))))).await;
            assert_eq!(this_task().cancelling(), 1);
            child.map(|_| ())
        });
        sleep(ms(10)).await?; // queued behind the child's end
        task.cancel_with("late");
        assert_eq!(shown(&task.await), "cancelled late");
        Ok(())
    });
}

/// A wait for a task outside of the group: the cancellation is forwarded there, and its outcome counts.
#[test]
fn a_body_that_awaits_a_foreign_task_cancels_it() {
    run(async {
        let other = create_task(for_ever()).shared();
        let awaited = other.clone();
        let group = TaskGroup::scope(async move |group| {
            group.create_task(for_ever());
            awaited.await
        });
        assert_eq!(shown(&cancelled(group, &["ext"]).await), "cancelled ext");
        assert!(other.cancelled());
        // One that swallows it.
        let stubborn = create_task(async {
            let _ = for_ever().await;
            Ok(3)
        });
        let group = TaskGroup::scope(async move |_| stubborn.await);
        assert_eq!(cancelled(group, &["ext"]).await?, 3);
        Ok(())
    });
}

/// A body that awaits a task of the group, which somebody cancels: as in asyncio the cancellation leaves the body.
#[test]
fn a_body_that_awaits_a_cancelled_task_is_as_cancelled() {
    run(async {
        let mut others: Option<(AnyTask, Task<()>)> = None;
        let result = TaskGroup::scope(async |group| {
            let task = group.create_task(for_ever());
            let any = task.any();
            others = Some((any.clone(), group.create_task(sleep(ms(50)))));
            asyncio::get_running_loop()?.call_later(ms(10), move || any.cancel_with("m"));
            task.await
        })
        .await;
        assert_eq!(shown(&result), "cancelled m");
        let (task, other) = others.unwrap();
        assert!(task.cancelled() && other.cancelled());
        assert_eq!(this_task().cancelling(), 0);
        sleep(Duration::ZERO).await
    });
}

/// A body that returns a cancellation which nobody asked for.
#[test]
fn a_body_may_call_itself_cancelled() {
    run(async {
        let (guard, dropped) = drop_guard();
        let result: Result<()> = TaskGroup::scope(async |group| {
            group.create_task(async move {
                let _guard = guard;
                for_ever().await
            });
            Err(Error::cancelled())
        })
        .await;
        assert_eq!(shown(&result), "cancelled");
        assert!(dropped.get());
        assert_eq!(this_task().cancelling(), 0);
        sleep(Duration::ZERO).await
    });
}

/// CPython's `test_cancelling_level_preserved`, and with a request from before.
#[test]
fn the_count_of_requests_stays_what_it_was() {
    run(async {
        let result = TaskGroup::scope(async |group| {
            group.create_task(fail_after(0, "E"));
            Ok(())
        })
        .await;
        assert_eq!(shown(&result), "[E]");
        assert_eq!(this_task().cancelling(), 0);
        let task = async {
            let _ = for_ever().await;
            let result = TaskGroup::scope(async |group| {
                group.create_task(sleep(ms(1)));
                Ok(())
            })
            .await;
            assert_eq!(this_task().cancelling(), 2);
            result
        };
        let task = create_task(task);
        sleep(ms(1)).await?;
        task.cancel();
        task.cancel();
        task.await
    });
}
