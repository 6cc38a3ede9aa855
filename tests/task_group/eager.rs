//! Tasks that begin at once, and factories.

use std::{rc::Rc, time::Duration};

use asyncio::{Error, Result, TaskGroup, get_running_loop, sleep};

use crate::{
    fail_after, for_ever, ms, run, shown,
    support::{Record, drop_guard},
    this_task, value,
};

/// EAGER-011
#[test]
fn an_eager_task_that_fails_at_once_cancels_the_body_at_its_next_suspension() {
    for by_factory in [true, false] {
        run(async {
            if by_factory {
                get_running_loop()?.set_task_factory(Some(asyncio::eager_task_factory()));
            }
            let record = Record::default();
            let result = TaskGroup::scope(async |group| {
                let fails = async { Err::<(), _>(value("E")) };
                let task =
                    if by_factory { group.create_task(fails) } else { group.task(fails).eager_start(true).start() };
                assert!(task.done());
                record.push("1".to_string());
                let outcome = sleep(Duration::ZERO).await;
                record.push(shown(&outcome));
                outcome
            })
            .await;
            assert_eq!(shown(&result), "[E]");
            assert_eq!(record.take(), ["1", "cancelled"]);
            assert_eq!(this_task().cancelling(), 0);
            sleep(Duration::ZERO).await
        });
    }
}

/// EAGER-011: a body that does not wait; more tasks made in the same step.
#[test]
fn an_eager_failure_is_known_from_the_next_iteration_on() {
    run(async {
        let record = Record::default();
        let result = TaskGroup::scope(async |group| {
            drop(group.task(async { Err::<(), _>(value("E")) }).eager_start(true).start());
            let seen = record.clone();
            let begun = async move {
                seen.push("begun".to_string());
                let outcome = for_ever().await;
                seen.push(shown(&outcome));
                outcome
            };
            drop(group.task(begun).eager_start(true).start());
            let seen = record.clone();
            drop(group.create_task(async move {
                seen.push("never".into());
                Ok(())
            }));
            drop(group.task(async { Err::<(), _>(value("F")) }).eager_start(true).start());
            Ok(5)
        })
        .await;
        assert_eq!(shown(&result), "[E, F]");
        assert_eq!(record.take(), ["begun", "cancelled"]);
        Ok(())
    });
}

#[test]
fn eager_tasks_that_end_at_once_are_over() {
    run(async {
        get_running_loop()?.set_task_factory(Some(asyncio::eager_task_factory()));
        let tasks = TaskGroup::scope(async |group| {
            let tasks: Vec<_> = (0..10).map(|number| group.create_task(async move { Ok(number) })).collect();
            assert!(tasks.iter().all(|task| task.done()));
            Ok(tasks)
        })
        .await?;
        for (number, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await?, number);
        }
        Ok(())
    });
}

/// One that waits is a child as any other.
#[test]
fn eager_tasks_that_wait_are_waited_for() {
    run(async {
        get_running_loop()?.set_task_factory(Some(asyncio::eager_task_factory()));
        let event_loop = get_running_loop()?;
        let begin = event_loop.time();
        let task = TaskGroup::scope(async |group| {
            let handle = group.clone();
            Ok(group.create_task(async move {
                sleep(ms(10)).await?;
                let nested = handle.create_task(async {
                    sleep(ms(10)).await?;
                    Ok(2)
                });
                Ok(nested)
            }))
        })
        .await?;
        assert_eq!(event_loop.time() - begin, ms(20));
        assert_eq!(task.await?.await?, 2);
        let result = TaskGroup::scope(async |group| {
            group.create_task(fail_after(1, "E"));
            for_ever().await
        })
        .await;
        assert_eq!(shown(&result), "[E]");
        Ok(())
    });
}

/// An eager child that makes a child, cancels its group, or panics in its first step.
#[test]
fn eager_first_steps_may_do_anything() {
    run(async {
        let record = Record::default();
        let result = TaskGroup::scope(async |group| {
            let (handle, seen) = (group.clone(), record.clone());
            let outer = group.task(async move {
                let inner = handle.task(async move {
                    seen.push("inner");
                    Ok(1)
                });
                inner.eager_start(true).start().await
            });
            assert_eq!(outer.eager_start(true).start().await?, 1);
            let handle = group.clone();
            let cancels = group.task(async move {
                handle.cancel();
                for_ever().await
            });
            let cancels = cancels.eager_start(true).start();
            assert!(!cancels.done());
            let _ = for_ever().await;
            Ok(())
        })
        .await;
        assert_eq!(shown(&result), "ok");
        assert_eq!(record.take(), ["inner"]);
        let result = TaskGroup::scope(async |group| {
            let panics = async {
                if true {
                    panic!("P");
                }
                Ok(())
            };
            drop(group.task(panics).eager_start(true).start());
            Ok(())
        })
        .await;
        assert_eq!(shown(&result), "[Panicked: P]");
        Ok(())
    });
}

/// A factory that refuses: the task is born failed, and the group fails with it.
#[test]
fn a_refusal_of_the_factory_is_a_failure_of_the_group() {
    run(async {
        let event_loop = get_running_loop()?;
        let (guard, dropped) = drop_guard();
        let mut sibling = None;
        let result = TaskGroup::scope(async |group| {
            sibling = Some(group.create_task(for_ever()));
            sleep(ms(1)).await?;
            event_loop.set_task_factory(Some(Rc::new(|_, _| Err(value("refused")))));
            let task = group.create_task(async move {
                let _guard = guard;
                Ok(())
            });
            event_loop.set_task_factory(None);
            assert!(dropped.get() && task.done());
            let outcome = sleep(ms(1)).await;
            assert_eq!(shown(&outcome), "cancelled");
            outcome
        })
        .await;
        assert_eq!(shown(&result), "[refused]");
        assert!(sibling.unwrap().cancelled());
        assert_eq!(this_task().cancelling(), 0);
        Ok(())
    });
}

/// A factory that wraps, names, or forgets to await what it was given.
#[test]
fn a_factory_has_its_say_in_a_group() {
    run(async {
        let event_loop = get_running_loop()?;
        let record = Record::default();
        let seen = record.clone();
        event_loop.set_task_factory(Some(Rc::new(move |_, request| {
            let seen = seen.clone();
            request.name(format!("made {}", request.get_name().unwrap_or("nameless")));
            request.wrap(|coroutine| {
                Box::pin(async move {
                    coroutine.await;
                    seen.push("after");
                })
            });
            Ok(())
        })));
        let result = TaskGroup::scope(async |group| {
            assert_eq!(group.create_task(async { Ok(1) }).await?, 1);
            let named = group.task(async { Ok(this_task().get_name()) }).name("x").start();
            assert_eq!(named.await?, "made x");
            group.create_task(fail_after(1, "E"));
            for_ever().await
        })
        .await;
        assert_eq!(shown(&result), "[E]");
        assert_eq!(record.take(), ["after"; 3]);
        event_loop.set_task_factory(Some(Rc::new(|_, request| {
            request.wrap(|_| Box::pin(async {}));
            Ok(())
        })));
        let result = TaskGroup::scope(async |group| {
            group.create_task(async { Ok(1) });
            Ok(())
        })
        .await;
        assert!(matches!(result, Err(Error::Group(_))));
        Ok(())
    });
}

/// A factory that makes a task of the same group in turn.
#[test]
fn a_factory_may_make_tasks_itself() {
    run(async {
        let event_loop = get_running_loop()?;
        let count = Rc::new(std::cell::Cell::new(0));
        let result: Result<()> = TaskGroup::scope(async |group| {
            let (handle, made) = (group.clone(), count.clone());
            event_loop.set_task_factory(Some(Rc::new(move |_, _| {
                made.set(made.get() + 1);
                if made.get() < 5 {
                    drop(handle.create_task(async { sleep(ms(1)).await }));
                }
                Ok(())
            })));
            group.create_task(async { sleep(ms(2)).await });
            Ok(())
        })
        .await;
        event_loop.set_task_factory(None);
        assert_eq!(shown(&result), "ok");
        assert_eq!(count.get(), 5);
        Ok(())
    });
}
