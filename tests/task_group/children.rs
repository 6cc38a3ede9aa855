//! Tasks of a group that end well, and those that are made late.

use std::{cell::Cell, rc::Rc, time::Duration};

use asyncio::{Context, ContextVar, Error, TaskGroup, get_running_loop, sleep};

use crate::{
    counted, for_ever, ms, outcome, run, shown,
    support::{self, Record},
    this_task, value,
};

async fn sleep_then(delay: u64, result: u32) -> asyncio::Result<u32> {
    sleep(ms(delay)).await?;
    Ok(result)
}

/// TG-001
#[test]
fn a_group_ends_when_its_last_task_does() {
    run(async {
        let event_loop = get_running_loop()?;
        let begin = event_loop.time();
        let (first, second) = TaskGroup::scope(async |group| {
            let first = group.create_task(sleep_then(100, 42));
            sleep(ms(150)).await?;
            let second = group.create_task(sleep_then(200, 11));
            Ok((first, second))
        })
        .await?;
        assert_eq!(event_loop.time() - begin, ms(350));
        assert_eq!((first.result()?, second.result()?), (42, 11));
        assert_eq!((first.await?, second.await?), (42, 11));
        Ok(())
    });
}

/// TG-001: on the system's clock.
#[test]
fn a_group_ends_when_its_last_task_does_in_real_time() {
    support::run(async {
        let event_loop = get_running_loop()?;
        let begin = event_loop.time();
        TaskGroup::scope(async |group| {
            group.create_task(sleep_then(10, 42));
            sleep(ms(15)).await?;
            group.create_task(sleep_then(20, 11));
            Ok(())
        })
        .await?;
        let taken = event_loop.time() - begin;
        assert!(taken >= ms(35) && taken < Duration::from_secs(20), "{taken:?}");
        Ok(())
    });
}

/// TG-003
#[test]
fn a_task_that_is_cancelled_by_itself_is_no_failure() {
    run(async {
        let (first, second) = TaskGroup::scope(async |group| {
            let first = group.create_task(sleep_then(1000, 42));
            sleep(ms(150)).await?;
            assert!(first.cancel());
            let second = group.create_task(sleep_then(200, 11));
            Ok((first, second))
        })
        .await?;
        assert!(first.cancelled());
        assert_eq!(second.result()?, 11);
        assert_eq!(this_task().cancelling(), 0);
        Ok(())
    });
}

/// TG-003: by another task, by a callback, by itself, before its first step.
#[test]
fn whoever_cancels_a_task_of_the_group_leaves_the_others_be() {
    run(async {
        TaskGroup::scope(async |group| {
            let kept = group.create_task(sleep_then(100, 1));
            let by_callback = group.create_task(sleep_then(1000, 2)).shared();
            let victim = by_callback.clone();
            get_running_loop()?.call_later(ms(10), move || victim.cancel());
            let by_task = group.create_task(sleep_then(1000, 3)).shared();
            let victim = by_task.clone();
            group.create_task(async move {
                victim.cancel();
                Ok(())
            });
            let by_itself = group.create_task(async { Err::<(), _>(Error::cancelled()) });
            let at_once = group.create_task(async { Ok(()) });
            at_once.cancel();
            sleep(ms(50)).await?;
            assert!(by_callback.cancelled() && by_task.cancelled() && by_itself.cancelled() && at_once.cancelled());
            assert!(!kept.done());
            assert_eq!(kept.await?, 1);
            Ok(())
        })
        .await
    });
}

/// TG-011
#[test]
fn tasks_made_during_the_wait_are_waited_for() {
    run(async {
        let event_loop = get_running_loop()?;
        let begin = event_loop.time();
        let ended = Record::default();
        let record = ended.clone();
        TaskGroup::scope(async |group| {
            let handle = group.clone();
            group.create_task(async move {
                sleep(ms(100)).await?;
                for delay in [100, 200] {
                    let (record, handle2) = (record.clone(), handle.clone());
                    handle.create_task(async move {
                        sleep(ms(delay)).await?;
                        record.push(delay);
                        handle2.create_task(async move {
                            sleep(ms(1)).await?;
                            record.push(delay + 1);
                            Ok(())
                        });
                        Ok(())
                    });
                }
                Ok(())
            });
            Ok(())
        })
        .await?;
        assert_eq!(ended.take(), [100, 101, 200, 201]);
        assert_eq!(event_loop.time() - begin, ms(301));
        Ok(())
    });
}

/// TG-011: what a callback makes while the body waits.
#[test]
fn a_callback_can_make_tasks_during_the_wait() {
    run(async {
        let ended = Rc::new(Cell::new(0));
        let count = ended.clone();
        TaskGroup::scope(async |group| {
            group.create_task(sleep(ms(10)));
            let handle = group.clone();
            get_running_loop()?.call_later(ms(5), move || {
                handle.create_task(async move {
                    assert!(get_running_loop().is_ok());
                    sleep(ms(20)).await?;
                    count.set(count.get() + 1);
                    Ok(())
                });
            });
            Ok(())
        })
        .await?;
        assert_eq!(ended.get(), 1);
        Ok(())
    });
}

/// A task that makes another in its last step keeps the group open.
#[test]
fn a_chain_of_last_steps_is_waited_for() {
    async fn next(group: TaskGroup, left: u32, count: Rc<Cell<u32>>) -> asyncio::Result<()> {
        count.set(count.get() + 1);
        if left > 0 {
            let handle = group.clone();
            group.create_task(async move { Box::pin(next(handle, left - 1, count)).await });
        }
        Ok(())
    }
    run(async {
        let count = Rc::new(Cell::new(0));
        TaskGroup::scope(async |group| {
            group.create_task(next(group.clone(), 50, count.clone()));
            Ok(())
        })
        .await?;
        assert_eq!(count.get(), 51);
        Ok(())
    });
}

/// As CPython's hydra: two more for each that ends, until one fails.
#[test]
fn a_group_that_grows_for_ever_ends_with_a_failure() {
    async fn hydra(group: TaskGroup, heads: Rc<Cell<u32>>) -> asyncio::Result<()> {
        heads.set(heads.get() + 1);
        sleep(ms(10)).await?;
        for _ in 0..2 {
            let (handle, heads) = (group.clone(), heads.clone());
            group.create_task(async move { Box::pin(hydra(handle, heads)).await });
        }
        Ok(())
    }
    let heads = Rc::new(Cell::new(0));
    let result = outcome(TaskGroup::scope(async |group| {
        group.create_task(hydra(group.clone(), heads.clone()));
        let count = heads.clone();
        group.create_task(async move {
            while count.get() < 10 {
                sleep(ms(15)).await?;
            }
            Err::<(), _>(value("hercules"))
        });
        Ok(())
    }));
    assert_eq!(shown(&result), "[hercules]");
    assert!(heads.get() >= 10);
}

#[test]
fn an_empty_group_gives_what_its_body_gives() {
    let (result, turns) = counted(TaskGroup::scope(async |_| Ok(7)));
    assert_eq!(result.unwrap(), 7);
    assert_eq!(turns, 1, "it does not suspend");
}

#[test]
fn a_group_whose_tasks_have_ended_does_not_suspend() {
    let (result, turns) = counted(TaskGroup::scope(async |group| {
        let task = group.create_task(async { Ok(1) });
        sleep(ms(1)).await?;
        task.await
    }));
    assert_eq!(result.unwrap(), 1);
    assert_eq!(turns, 4, "the body, the task, its end, the end of the sleep");
}

#[test]
fn a_body_may_borrow() {
    run(async {
        let names = ["a".to_string(), "bc".to_string()];
        let mut total = 0;
        TaskGroup::scope(async |group| {
            let tasks: Vec<_> = names
                .iter()
                .map(|name| {
                    let name = name.clone();
                    group.create_task(async move { Ok(name.len()) })
                })
                .collect();
            for task in tasks {
                total += task.await?;
            }
            Ok(())
        })
        .await?;
        assert_eq!((total, names.len()), (3, 2));
        Ok(())
    });
}

#[test]
fn a_task_has_the_name_and_the_context_that_were_given() {
    static VAR: ContextVar<u32> = ContextVar::new("var");
    run(async {
        VAR.set(1);
        let context = Context::new();
        TaskGroup::scope(async |group| {
            let task = group
                .task(async {
                    sleep(Duration::ZERO).await?;
                    let before = VAR.get().ok();
                    VAR.set(5);
                    Ok(before)
                })
                .name("yolo")
                .context(&context)
                .start();
            assert_eq!(task.get_name(), "yolo");
            assert_eq!(task.await?, None, "not the body's");
            let again = group.task(async { VAR.get() }).context(&context).start();
            assert_eq!(again.await?, 5, "the context itself, no copy");
            assert_eq!(group.create_task(async { VAR.get() }).await?, 1, "a copy of the body's");
            let plain = group.create_task(async { Ok(VAR.set(9)) });
            plain.await?;
            assert_eq!(VAR.get()?, 1);
            Ok(())
        })
        .await
    });
}

#[test]
fn tasks_of_a_group_are_tasks_of_the_loop() {
    run(async {
        TaskGroup::scope(async |group| {
            let task = group.create_task(for_ever());
            assert!(asyncio::all_tasks()?.contains(&task.any()));
            let own = group.create_task(async { Ok(asyncio::current_task()?.unwrap()) });
            assert!(own.any() == own.await?);
            task.cancel();
            Ok(())
        })
        .await
    });
}

/// The row of `TaskGroup.__repr__`.
#[test]
fn a_group_says_how_it_is() {
    run(async {
        let mut kept = None;
        let result = TaskGroup::scope(async |group| {
            kept = Some(group.clone());
            assert_eq!(format!("{group:?}"), "<TaskGroup tasks=0 errors=0 entered>");
            group.create_task(for_ever());
            group.create_task(async { Err::<(), _>(value("E")) });
            assert_eq!(format!("{group:?}"), "<TaskGroup tasks=2 errors=0 entered>");
            let cancelled = for_ever().await;
            assert_eq!(format!("{group:?}"), "<TaskGroup tasks=1 errors=1 cancelling>");
            cancelled
        })
        .await;
        assert_eq!(shown(&result), "[E]");
        assert_eq!(format!("{:?}", kept.unwrap()), "<TaskGroup tasks=0 errors=0 finished>");
        Ok(())
    });
}

/// The handle of a task can be dropped, awaited in the body, awaited elsewhere, or kept.
#[test]
fn what_becomes_of_the_handle_does_not_matter() {
    run(async {
        let (kept, elsewhere) = TaskGroup::scope(async |group| {
            drop(group.create_task(sleep_then(5, 1)));
            assert_eq!(group.create_task(sleep_then(5, 2)).await?, 2);
            let task = group.create_task(sleep_then(50, 3));
            let elsewhere = asyncio::create_task(task);
            Ok((group.create_task(sleep_then(5, 4)), elsewhere))
        })
        .await?;
        assert_eq!((kept.await?, elsewhere.await?), (4, 3));
        Ok(())
    });
}
