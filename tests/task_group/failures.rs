//! Tasks and bodies that fail: who is cancelled, and what comes out.

use std::{rc::Rc, time::Duration};

use asyncio::{Canceller, Error, ErrorKind, Result, TaskGroup, get_running_loop, sleep};

use crate::{
    clean_up_for, counted, fail_after, fail_in_clean_up, for_ever, ms, outcome, run, show, shown,
    support::{self, Record, drop_guard, handler, virtual_loop},
    this_task, value,
};

/// TG-002
#[test]
fn a_failure_cancels_the_siblings_and_the_body() {
    run(async {
        let cancelled = Record::default();
        let seen = cancelled.clone();
        let event_loop = get_running_loop()?;
        let begin = event_loop.time();
        let result = TaskGroup::scope(async |group| {
            group.create_task(fail_after(10, "E"));
            let record = seen.clone();
            group.create_task(async move {
                let outcome = sleep(Duration::from_secs(10)).await;
                record.push(("child", shown(&outcome)));
                outcome
            });
            let outcome = sleep(Duration::from_secs(10)).await;
            seen.push(("body", shown(&outcome)));
            outcome
        })
        .await;
        assert_eq!(cancelled.take(), [("child", "cancelled".into()), ("body", "cancelled".into())]);
        let Err(Error::Group(group)) = result else { panic!("{result:?}") };
        assert_eq!(group.message(), "unhandled errors in a TaskGroup");
        assert_eq!(group.exceptions().iter().map(show).collect::<Vec<_>>(), ["E"]);
        assert_eq!(group.exceptions()[0].kind(), ErrorKind::Value);
        assert_eq!(this_task().cancelling(), 0);
        assert_eq!(event_loop.time() - begin, ms(10));
        sleep(Duration::ZERO).await
    });
}

/// TG-002: while the body waits in the exit.
#[test]
fn a_failure_during_the_wait_cancels_the_siblings() {
    run(async {
        let mut sibling = None;
        let result = TaskGroup::scope(async |group| {
            group.create_task(fail_after(10, "E"));
            sibling = Some(group.create_task(sleep(Duration::from_secs(10))));
            Ok(())
        })
        .await;
        assert_eq!(shown(&result), "[E]");
        assert!(sibling.unwrap().cancelled());
        assert_eq!(this_task().cancelling(), 0);
        sleep(Duration::ZERO).await
    });
}

/// Several that fail at one time are all in the group, in the order in which they ended.
#[test]
fn all_errors_come_out_in_the_order_of_the_ends() {
    let result = outcome(TaskGroup::scope(async |group| {
        group.create_task(fail_in_clean_up("clean-up"));
        group.create_task(fail_after(10, "first"));
        group.create_task(fail_after(10, "second"));
        group.create_task(for_ever());
        group.create_task(async {
            let _ = for_ever().await;
            sleep(ms(5)).await?;
            Err::<(), _>(value("late"))
        });
        group.create_task(fail_after(20, "was cancelled"));
        let _ = for_ever().await;
        Err::<(), _>(value("body"))
    }));
    assert_eq!(shown(&result), "[first, second, clean-up, late, body]");
}

/// TG-004
#[test]
fn a_failing_body_cancels_the_tasks() {
    for waits in [false, true] {
        run(async {
            let mut tasks = Vec::new();
            let result: Result<()> = TaskGroup::scope(async |group| {
                tasks.push(group.create_task(sleep(Duration::from_secs(1))));
                tasks.push(group.create_task(sleep(Duration::from_secs(2))));
                if waits {
                    sleep(ms(100)).await?;
                }
                Err(value("E"))
            })
            .await;
            assert_eq!(shown(&result), "[E]");
            assert!(tasks.iter().all(|task| task.cancelled()));
            assert_eq!(this_task().cancelling(), 0);
            Ok(())
        });
    }
}

/// TG-004: the body's error comes last.
#[test]
fn errors_of_clean_ups_come_before_the_bodys() {
    let result = outcome(TaskGroup::scope(async |group| {
        group.create_task(fail_in_clean_up("one"));
        group.create_task(fail_in_clean_up("two"));
        sleep(ms(1)).await?;
        Err::<(), _>(value("body"))
    }));
    assert_eq!(shown(&result), "[one, two, body]");
}

/// A body that fails alone.
#[test]
fn a_failing_body_of_an_empty_group_gives_a_group() {
    let (result, turns) = counted(TaskGroup::scope(async |_| Err::<(), _>(value("E"))));
    assert_eq!(shown(&result), "[E]");
    assert_eq!(turns, 1);
}

/// TG-014
#[test]
fn a_body_that_swallows_its_cancellation_changes_nothing() {
    run(async {
        let result = TaskGroup::scope(async |group| {
            group.create_task(fail_after(1, "E"));
            assert!(for_ever().await.unwrap_err().is_cancelled());
            assert_eq!(this_task().cancelling(), 1, "until the group ends");
            Ok(())
        })
        .await;
        assert_eq!(shown(&result), "[E]");
        assert_eq!(this_task().cancelling(), 0);
        sleep(Duration::ZERO).await
    });
}

/// TG-014: it is cancelled once, whatever else fails meanwhile.
#[test]
fn a_body_that_swallowed_its_cancellation_goes_on_undisturbed() {
    run(async {
        let event_loop = get_running_loop()?;
        let begin = event_loop.time();
        let result = TaskGroup::scope(async |group| {
            group.create_task(fail_after(1, "E"));
            group.create_task(fail_in_clean_up("F"));
            let _ = for_ever().await;
            sleep(ms(50)).await?;
            sleep(ms(50)).await
        })
        .await;
        assert_eq!(shown(&result), "[E, F]");
        assert_eq!(event_loop.time() - begin, ms(101));
        sleep(Duration::ZERO).await
    });
}

/// TG-015: there are no errors here that break out of the loop, so that this one is as any other.
#[test]
fn a_keyboard_interrupt_of_a_clean_up_is_an_error_as_any_other() {
    let result = outcome(TaskGroup::scope(async |group| {
        group.create_task(fail_after(1, "E"));
        let _ = for_ever().await;
        Err::<(), _>(Error::KeyboardInterrupt)
    }));
    assert_eq!(shown(&result), "[E, KeyboardInterrupt: keyboard interrupt]");
}

/// CPython's `test_taskgroup_context_manager_exit_raises`.
#[test]
fn a_body_that_fails_in_its_clean_up_adds_its_error() {
    run(async {
        let result = TaskGroup::scope(async |group| {
            group.create_task(async { Err::<(), _>(value("E")) });
            fail_in_clean_up("F").await
        })
        .await;
        assert_eq!(shown(&result), "[E, F]");
        assert_eq!(this_task().cancelling(), 0);
        sleep(Duration::ZERO).await
    });
}

/// As in asyncio, the body is cancelled before the await sees the error.
#[test]
fn the_error_of_an_awaited_task_is_in_the_group_once() {
    for fails_at_once in [false, true] {
        run(async {
            let result = TaskGroup::scope(async |group| {
                let task = group.create_task(fail_after(u64::from(!fails_at_once), "E"));
                let other = group.create_task(for_ever());
                let outcome = task.await;
                assert_eq!(shown(&outcome), "cancelled");
                drop(other);
                outcome
            })
            .await;
            assert_eq!(shown(&result), "[E]");
            Ok(())
        });
    }
}

/// A task that failed before it is awaited: the body gets the cancellation at its next suspension, or the error if it
/// does not have to wait for it.
#[test]
fn the_error_of_a_task_that_has_ended_can_be_read() {
    let result = outcome(TaskGroup::scope(async |group| {
        let task = group.create_task(fail_after(0, "E"));
        let _ = for_ever().await;
        assert!(task.done());
        task.await
    }));
    assert_eq!(shown(&result), "[E, E]", "the body let it out as well");
}

/// A task that awaits its failing sibling: the sibling's error is cancelled away, or comes twice, never lost.
#[test]
fn a_sibling_that_awaits_the_failing_task_is_cancelled() {
    let result = outcome(TaskGroup::scope(async |group| {
        let task = group.create_task(fail_after(5, "E")).shared();
        for _ in 0..3 {
            let task = task.clone();
            group.create_task(task);
        }
        Ok(())
    }));
    assert_eq!(shown(&result), "[E]");
}

#[test]
fn a_panic_of_a_task_is_an_error_of_the_group() {
    run(async {
        let mut sibling = None;
        let result = TaskGroup::scope(async |group| {
            let panics = group.create_task(async {
                sleep(ms(1)).await?;
                if true {
                    panic!("oh {}", "no");
                }
                Ok(())
            });
            sibling = Some(group.create_task(for_ever()));
            drop(panics);
            for_ever().await
        })
        .await;
        assert_eq!(shown(&result), "[Panicked: oh no]");
        assert!(sibling.unwrap().cancelled());
        assert_eq!(this_task().cancelling(), 0);
        Ok(())
    });
}

/// Handles kept, dropped, awaited by the body, awaited by a sibling: nothing is reported.
#[test]
fn panics_and_errors_of_tasks_are_never_reported() {
    async fn panics() -> Result<()> {
        sleep(ms(1)).await?;
        panic!("P")
    }
    for kept in [false, true] {
        let result = outcome(TaskGroup::scope(async |group| {
            let one = group.create_task(panics());
            let two = group.create_task(fail_after(1, "E"));
            let three = group.create_task(panics()).shared();
            let awaited = three.clone();
            group.create_task(awaited);
            if kept {
                std::mem::forget((one, two));
            }
            for_ever().await
        }));
        assert_eq!(shown(&result), "[Panicked: P, E, Panicked: P]");
    }
}

/// A panic of the body is no error that it returns: it ends the task, and with it the group.
#[test]
fn a_panic_of_the_body_ends_the_tasks() {
    let _deadline = support::deadline();
    let (event_loop, _) = virtual_loop();
    let reports = handler(&event_loop);
    let seen = Record::default();
    let record = seen.clone();
    let task = event_loop.create_task(TaskGroup::scope(async move |group| {
        group.create_task(async move {
            let cancelled = for_ever().await;
            record.push(shown(&cancelled));
            cancelled
        });
        sleep(ms(1)).await?;
        if true {
            panic!("body");
        }
        Ok(())
    }));
    let watch = task.any();
    let result = event_loop.run_until_complete(async move {
        let result = task.await;
        sleep(ms(1)).await?;
        assert_eq!(asyncio::all_tasks()?.len(), 1, "this one");
        result
    });
    assert_eq!(shown(&result), "Panicked: body");
    assert!(watch.done());
    assert_eq!(seen.take(), ["cancelled"]);
    crate::assert_nothing_is_left(&event_loop);
    event_loop.close().unwrap();
    assert_eq!(reports.take().len(), 0);
}

/// A destructor that panics while the task is dropped is reported; the group ends.
#[test]
fn a_panicking_drop_does_not_hold_the_group_up() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("in a drop");
        }
    }
    let _deadline = support::deadline();
    let (event_loop, _) = virtual_loop();
    let reports = handler(&event_loop);
    let result = event_loop.run_until_complete(TaskGroup::scope(async |group| {
        let panics = Panics;
        let task = group.create_task(async move {
            let _panics = panics;
            Ok(())
        });
        task.cancel(); // never polled
        group.create_task(async { sleep(ms(1)).await });
        Ok(())
    }));
    assert_eq!(shown(&result), "ok");
    assert_eq!(reports.take().len(), 1);
    event_loop.close().unwrap();
}

/// What is told the tasks and the body: who cancelled them.
#[test]
fn a_cancellation_by_the_group_says_so() {
    run(async {
        let seen = Record::default();
        let record = seen.clone();
        let result = TaskGroup::scope(async |group| {
            group.create_task(fail_after(1, "E"));
            let child = record.clone();
            group.create_task(async move {
                let Err(Error::Cancelled(cancelled)) = for_ever().await else { unreachable!() };
                child.push((cancelled.by, cancelled.message));
                Ok(())
            });
            let Err(Error::Cancelled(cancelled)) = for_ever().await else { unreachable!() };
            record.push((cancelled.by, cancelled.message));
            Ok(())
        })
        .await;
        assert_eq!(shown(&result), "[E]");
        assert_eq!(seen.take(), [(Some(Canceller::TaskGroup), None), (Some(Canceller::TaskGroup), None)]);
        Ok(())
    });
}

/// A task that fails after its group was told to end is not lost, how late it may be.
#[test]
fn a_late_failure_is_in_the_group() {
    let result = outcome(TaskGroup::scope(async |group| {
        group.create_task(fail_after(1, "E"));
        group.create_task(async {
            clean_up_for(3_600_000).await.unwrap_err();
            Err::<(), _>(value("an hour later"))
        });
        Ok(())
    }));
    assert_eq!(shown(&result), "[E, an hour later]");
}

/// Nobody who waits for a task that ignores its cancellation spins.
#[test]
fn waiting_for_a_task_that_does_not_listen_costs_nothing() {
    let (result, turns) = counted(TaskGroup::scope(async |group| {
        group.create_task(fail_after(1, "E"));
        for _ in 0..10 {
            group.create_task(async {
                for _ in 0..10 {
                    let _ = sleep(Duration::from_secs(60)).await;
                }
                Ok(())
            });
        }
        for _ in 0..10 {
            let _ = sleep(Duration::from_secs(60)).await;
        }
        Ok(())
    }));
    assert_eq!(shown(&result), "[E]");
    assert!(turns < 40, "{turns}");
}

/// Only foreign futures are pending: nobody can take the cancellation, and what waits is dropped.
#[test]
fn what_waits_for_foreign_futures_is_dropped() {
    run(async {
        let (child, child_dropped) = drop_guard();
        let (body, body_dropped) = drop_guard();
        let result: Result<()> = TaskGroup::scope(async |group| {
            group.create_task(fail_after(1, "E"));
            group.create_task(async move {
                let _guard = child;
                std::future::pending::<()>().await;
                Ok(())
            });
            let _guard = body;
            std::future::pending::<()>().await;
            Ok(())
        })
        .await;
        assert_eq!(shown(&result), "[E]");
        assert!(child_dropped.get() && body_dropped.get());
        assert_eq!(this_task().cancelling(), 0);
        sleep(Duration::ZERO).await
    });
}

/// A body that does not wait any more is not cancelled; the group still fails.
#[test]
fn a_body_that_has_all_it_needs_ends_well() {
    run(async {
        let ended = Rc::new(std::cell::Cell::new(false));
        let result = TaskGroup::scope(async |group| {
            group.create_task(async { Err::<(), _>(value("E")) });
            ended.set(true);
            Ok(5)
        })
        .await;
        assert!(ended.get());
        assert_eq!(shown(&result), "[E]");
        Ok(())
    });
}

/// The order in which tasks are cancelled is that in which they were made.
#[test]
fn tasks_are_cancelled_in_the_order_in_which_they_were_made() {
    run(async {
        let order = Record::default();
        let result = TaskGroup::scope(async |group| {
            for number in 0..10 {
                let order = order.clone();
                group.create_task(async move {
                    let cancelled = for_ever().await;
                    order.push(number);
                    cancelled
                });
            }
            sleep(ms(1)).await?;
            Err::<(), _>(value("E"))
        })
        .await;
        assert_eq!(shown(&result), "[E]");
        assert_eq!(order.take(), (0..10).collect::<Vec<_>>());
        Ok(())
    });
}
