//! A scope whose future is dropped before its end.

use std::{future::Future as StdFuture, pin::Pin, time::Duration};

use asyncio::{EventLoop, Result, TaskGroup, create_task, get_running_loop, sleep, timeout};
use futures::future::Either;

use crate::{
    assert_nothing_is_left, clean_up_for, fail_after, for_ever, ms, run, show, shown,
    support::{self, DropGuard, Dropped, Gate, Record, drop_guard, handler, tick, virtual_loop},
    this_task, value,
};

/// A group with children that tell how they end, and what tells of their drops.
struct Children {
    seen: Record<String>,
    guards: Vec<DropGuard>,
    drops: Vec<Dropped>,
}

impl Children {
    fn new() -> Self {
        let (guards, drops) = (0..4).map(|_| drop_guard()).unzip();
        Children { seen: Record::default(), guards, drops }
    }

    /// A group whose tasks end as they are told, swallow it, take their time, and see only a foreign future.
    fn group(&mut self, in_body: bool) -> impl StdFuture<Output = Result<()>> + 'static + use<> {
        let (seen, mut guards) = (self.seen.clone(), std::mem::take(&mut self.guards));
        TaskGroup::scope(async move |group| {
            let (guard, record) = (guards.pop(), seen.clone());
            group.create_task(async move {
                let _guard = guard;
                let outcome = for_ever().await;
                record.push(shown(&outcome));
                outcome
            });
            let (guard, record) = (guards.pop(), seen.clone());
            group.create_task(async move {
                let _guard = guard;
                loop {
                    let outcome = for_ever().await;
                    record.push(shown(&outcome));
                }
                #[expect(unreachable_code, reason = "says the type")]
                Ok(())
            });
            let (guard, record) = (guards.pop(), seen.clone());
            group.create_task(async move {
                let _guard = guard;
                let outcome = for_ever().await;
                record.push(shown(&outcome));
                sleep(ms(1)).await?;
                record.push("never".into());
                Ok(())
            });
            let guard = guards.pop();
            group.create_task(async move {
                let _guard = guard;
                std::future::pending::<()>().await;
                Ok(())
            });
            if in_body { for_ever().await } else { Ok(()) }
        })
    }

    fn all_dropped(&self) -> bool {
        self.drops.iter().all(Dropped::get)
    }

    #[track_caller]
    fn check(&self) {
        assert!(self.all_dropped());
        assert_eq!(self.seen.items(), ["cancelled"; 3]);
    }
}

/// Runs the loop until its tasks are gone, which must take at most `limit` iterations.
#[track_caller]
fn ticks_until_alone(event_loop: &EventLoop, limit: usize) {
    let mut ticks = 0;
    while !event_loop.all_tasks().is_empty() {
        tick(event_loop);
        ticks += 1;
        assert!(ticks <= limit, "tasks outlive their group: {:?}", event_loop.all_tasks());
    }
    tick(event_loop);
    assert_nothing_is_left(event_loop);
}

#[test]
fn a_select_that_drops_a_group_ends_its_tasks() {
    let _deadline = support::deadline();
    for in_body in [true, false] {
        let (event_loop, _) = virtual_loop();
        let reports = handler(&event_loop);
        let mut children = Children::new();
        let group = children.group(in_body);
        event_loop
            .run_until_complete(async {
                let group = std::pin::pin!(group);
                match futures::future::select(group, sleep(ms(5))).await {
                    Either::Left(_) => panic!("the group ended"),
                    Either::Right((outcome, _)) => outcome,
                }
            })
            .unwrap();
        ticks_until_alone(&event_loop, 2);
        children.check();
        assert_eq!(reports.len(), 0);
        event_loop.close().unwrap();
    }
}

/// Exactly: the cancellation is seen one iteration after the drop, and nothing lives after the next.
#[test]
fn the_tasks_of_a_dropped_group_have_one_step() {
    let _deadline = support::deadline();
    for in_body in [true, false] {
        let (event_loop, _) = virtual_loop();
        let mut children = Children::new();
        let group = children.group(in_body);
        let gate = Gate::default();
        let opened = gate.clone();
        let task = event_loop.create_task(async move {
            let group = std::pin::pin!(group);
            let _ = futures::future::select(group, gate).await;
            Ok(())
        });
        for _ in 0..3 {
            tick(&event_loop);
        }
        opened.open();
        tick(&event_loop);
        assert!(task.done());
        assert_eq!(children.seen.len(), 0);
        tick(&event_loop);
        assert_eq!(children.seen.items(), ["cancelled"; 3]);
        tick(&event_loop);
        children.check();
        assert_eq!(event_loop.all_tasks(), []);
        event_loop.close().unwrap();
    }
}

/// A timeout over a body in which nobody takes the cancellation drops it, and with it the group.
#[test]
fn a_timeout_that_drops_a_group_ends_its_tasks() {
    run(async {
        let (guard, dropped) = drop_guard();
        let result: Result<()> = timeout(ms(5), async {
            let group = TaskGroup::scope(async |group| {
                group.create_task(async move {
                    let _guard = guard;
                    let _ = for_ever().await;
                    for_ever().await
                });
                std::future::pending::<()>().await;
                Ok(())
            });
            // Polled under nothing of ours that could take it: as a foreign combinator does.
            futures::future::join(group, std::future::pending::<()>()).await.0
        })
        .await;
        assert_eq!(shown(&result), "timed out");
        for _ in 0..2 {
            sleep(Duration::ZERO).await?;
        }
        assert!(dropped.get());
        assert_eq!(asyncio::all_tasks()?.len(), 1);
        assert_eq!(this_task().cancelling(), 0);
        Ok(())
    });
}

/// A task that is killed by its grace.
#[test]
fn a_coroutine_that_is_dropped_ends_the_tasks_of_its_group() {
    let _deadline = support::deadline();
    for in_body in [true, false] {
        let (event_loop, _) = virtual_loop();
        let reports = handler(&event_loop);
        let mut children = Children::new();
        let group = children.group(in_body);
        let result = event_loop.run_until_complete(async move {
            let task = create_task(async move {
                let _ = group.await;
                Ok(())
            });
            sleep(ms(5)).await?;
            task.cancel_with_grace(Duration::ZERO);
            task.await
        });
        assert_eq!(shown(&result), "cancelled");
        ticks_until_alone(&event_loop, 2);
        assert!(children.all_dropped());
        assert_eq!(children.seen.take(), ["cancelled"; 3]);
        assert_eq!(reports.len(), 0);
        event_loop.close().unwrap();
    }
}

#[test]
fn closing_the_loop_drops_groups_and_their_tasks() {
    let _deadline = support::deadline();
    for in_body in [true, false] {
        let (event_loop, _) = virtual_loop();
        let reports = handler(&event_loop);
        let mut children = Children::new();
        let task = event_loop.create_task(children.group(in_body));
        for _ in 0..3 {
            tick(&event_loop);
        }
        event_loop.close().unwrap();
        assert!(task.cancelled());
        assert!(children.all_dropped());
        assert_eq!(children.seen.take(), [""; 0], "they are dropped where they wait");
        let messages: Vec<_> = reports.take().into_iter().map(|report| report.message).collect();
        assert_eq!(messages, ["Task was destroyed but it is pending!"; 5]);
    }
}

/// In the main future, which the loop polls in place: when it is dropped with the run.
#[test]
fn a_group_in_an_interrupted_main_future_ends() {
    let _deadline = support::deadline();
    let (event_loop, _) = virtual_loop();
    let mut children = Children::new();
    let group = children.group(true);
    let stopper = event_loop.clone();
    event_loop.call_later(ms(5), move || stopper.stop());
    assert!(event_loop.run_until_complete(group).is_err(), "the loop was stopped");
    ticks_until_alone(&event_loop, 3);
    assert!(children.all_dropped());
    event_loop.close().unwrap();
}

/// Dropped outside of every run of its loop; and never polled at all.
#[test]
fn a_group_can_be_dropped_while_the_loop_rests() {
    let _deadline = support::deadline();
    let (event_loop, _) = virtual_loop();
    let mut children = Children::new();
    let mut group: Pin<Box<dyn StdFuture<Output = Result<()>>>> = Box::pin(children.group(true));
    event_loop
        .run_until_complete(async {
            assert!(futures::poll!(group.as_mut()).is_pending());
            sleep(ms(1)).await
        })
        .unwrap();
    assert_eq!(event_loop.all_tasks().len(), 4);
    drop(group);
    ticks_until_alone(&event_loop, 2);
    children.check();
    let never_polled = Children::new().group(true);
    drop(never_polled);
    event_loop.close().unwrap();
    // After the close nothing is left to be done.
    let (event_loop, _) = virtual_loop();
    let mut children = Children::new();
    let mut group = Box::pin(children.group(true));
    event_loop
        .run_until_complete(async {
            assert!(futures::poll!(group.as_mut()).is_pending());
            sleep(ms(1)).await
        })
        .unwrap();
    event_loop.close().unwrap();
    assert!(children.all_dropped());
    drop(group);
}

/// Errors that were collected when nobody is left to take them go to the exception handler, each once.
#[test]
fn collected_errors_of_a_dropped_group_are_reported() {
    let _deadline = support::deadline();
    let (event_loop, _) = virtual_loop();
    let reports = handler(&event_loop);
    event_loop
        .run_until_complete(async {
            let group = TaskGroup::scope(async |group| {
                group.create_task(fail_after(1, "A"));
                group.create_task(fail_after(1, "B"));
                group.create_task(clean_up_for(100));
                Ok(())
            });
            // Boxed, so that it goes with the statement.
            assert!(matches!(futures::future::select(Box::pin(group), sleep(ms(50))).await, Either::Right(_)));
            sleep(ms(1)).await
        })
        .unwrap();
    assert_nothing_is_left(&event_loop);
    event_loop.close().unwrap();
    let reports = reports.take();
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert_eq!(show(reports[0].exception.as_ref().unwrap()), "[A, B]");
}

/// One that has failed in the very iteration in which the group is dropped, seen by nobody yet.
#[test]
fn an_error_of_the_last_iteration_is_reported() {
    let _deadline = support::deadline();
    let (event_loop, _) = virtual_loop();
    let reports = handler(&event_loop);
    let gate = Gate::default();
    let opened = gate.clone();
    let task = event_loop.create_task(async move {
        let group = TaskGroup::scope(async |group| {
            let opens = opened.clone();
            group.create_task(async move {
                sleep(ms(1)).await?;
                opens.open();
                Err::<(), _>(value("E"))
            });
            group.create_task(for_ever());
            for_ever().await
        });
        let group = std::pin::pin!(group);
        // The gate is looked at first.
        assert!(matches!(futures::future::select(gate, group).await, Either::Left(_)));
        Ok(())
    });
    event_loop.run_until_complete(task).unwrap();
    ticks_until_alone(&event_loop, 2);
    event_loop.close().unwrap();
    let reports = reports.take();
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert_eq!(show(reports[0].exception.as_ref().unwrap()), "[E]");
}

/// One that fails in the step that it has left: nobody waits, so it is a task as any other that nobody looks at.
#[test]
fn an_error_after_the_drop_is_reported_unless_somebody_looks() {
    let _deadline = support::deadline();
    for looks in [false, true] {
        let (event_loop, _) = virtual_loop();
        let reports = handler(&event_loop);
        event_loop
            .run_until_complete(async {
                let mut kept = None;
                {
                    let group = TaskGroup::scope(async |group| {
                        let task = group.create_task(async {
                            let _ = for_ever().await;
                            Err::<(), _>(value("late"))
                        });
                        kept = Some(task);
                        for_ever().await
                    });
                    let group = std::pin::pin!(group);
                    let _ = futures::future::select(group, sleep(ms(5))).await;
                }
                sleep(ms(1)).await?;
                let task = kept.unwrap();
                assert!(task.done());
                if looks {
                    assert_eq!(show(&task.exception()?.unwrap()), "late");
                }
                drop(task);
                sleep(ms(1)).await
            })
            .unwrap();
        event_loop.close().unwrap();
        assert_eq!(reports.take().len(), usize::from(!looks));
    }
}

/// The errors of a group that is dropped with its loop.
#[test]
fn collected_errors_are_reported_when_the_loop_is_closed() {
    let _deadline = support::deadline();
    let (event_loop, _) = virtual_loop();
    let reports = handler(&event_loop);
    let task = event_loop.create_task(TaskGroup::scope(async |group| {
        group.create_task(fail_after(0, "E"));
        group.create_task(clean_up_for(100));
        Ok(())
    }));
    for _ in 0..5 {
        tick(&event_loop);
    }
    assert!(!task.done());
    event_loop.close().unwrap();
    let groups: Vec<_> = reports.take().into_iter().filter_map(|report| report.exception).collect();
    assert_eq!(groups.iter().map(show).collect::<Vec<_>>(), ["[E]"]);
}

/// A dropped group takes no tasks, and those that live have handles that work.
#[test]
fn a_dropped_group_is_finished() {
    run(async {
        let mut kept = None;
        {
            let group = TaskGroup::scope(async |group| {
                kept = Some((group.clone(), group.create_task(for_ever())));
                for_ever().await
            });
            let group = std::pin::pin!(group);
            let _ = futures::future::select(group, sleep(ms(5))).await;
        }
        let (group, task) = kept.unwrap();
        let refused = group.create_task(async { Ok(()) });
        assert!(refused.exception()?.unwrap().to_string().contains("is finished"));
        assert_eq!(format!("{group:?}"), "<TaskGroup tasks=0 errors=0 finished>");
        assert_eq!(task.cancelling(), 1);
        assert_eq!(shown(&task.await), "cancelled");
        group.cancel();
        Ok(())
    });
}

/// Groups in groups: dropping the outermost ends all.
#[test]
fn dropping_a_group_ends_the_groups_inside() {
    let _deadline = support::deadline();
    let (event_loop, _) = virtual_loop();
    let reports = handler(&event_loop);
    let mut nested = Children::new();
    let mut in_body = Children::new();
    let (one, two) = (nested.group(false), in_body.group(true));
    event_loop
        .run_until_complete(async {
            let group = TaskGroup::scope(async |group| {
                group.create_task(async move {
                    let _ = one.await;
                    for_ever().await
                });
                two.await
            });
            let group = std::pin::pin!(group);
            let _ = futures::future::select(group, sleep(ms(5))).await;
            Ok(())
        })
        .unwrap();
    // Two iterations for each level of tasks.
    ticks_until_alone(&event_loop, 4);
    assert!(nested.all_dropped() && in_body.all_dropped());
    assert_eq!(in_body.seen.take(), ["cancelled"; 3]);
    assert_eq!(nested.seen.take(), ["cancelled"; 3]);
    assert_eq!(reports.take().len(), 0);
    event_loop.close().unwrap();
}

/// What a body holds goes before its tasks are told.
#[test]
fn the_body_is_dropped_first() {
    run(async {
        let record = Record::default();
        struct Pushes(Record<&'static str>, &'static str);
        impl Drop for Pushes {
            fn drop(&mut self) {
                self.0.push(self.1);
            }
        }
        {
            let group = TaskGroup::scope(async |group| {
                let pushes = Pushes(record.clone(), "body");
                let child = Pushes(record.clone(), "child");
                group.create_task(async move {
                    let child = child;
                    let outcome = for_ever().await;
                    child.0.push("told");
                    outcome
                });
                let outcome = for_ever().await;
                drop(pushes);
                outcome
            });
            let group = std::pin::pin!(group);
            let _ = futures::future::select(group, sleep(ms(5))).await;
        }
        sleep(Duration::ZERO).await?;
        assert_eq!(record.take(), ["body", "told", "child"]);
        get_running_loop().map(|_| ())
    });
}
