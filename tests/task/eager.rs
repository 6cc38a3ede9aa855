//! Tasks whose first step runs at once.

use std::time::Duration;

use asyncio::{ContextVar, Error, ErrorKind, create_task, current_task, sleep};

use crate::support::{self, Record, failure, handler, new_loop, tick};

/// Runs the coroutine in a loop whose factory starts tasks at once.
fn eagerly<T>(main: impl Future<Output = asyncio::Result<T>>) -> T {
    support::run(async {
        asyncio::get_running_loop()?.set_task_factory(Some(asyncio::eager_task_factory()));
        main.await
    })
}

/// EAGER-001
#[test]
fn a_coroutine_that_does_not_wait_is_done_at_once() {
    eagerly(async {
        let watcher = Record::default();
        let seen = watcher.clone();
        asyncio::get_running_loop()?.call_soon(move || seen.push("an iteration"));
        let task = create_task(async { Ok("hello") });
        assert!(task.done());
        assert_eq!(task.result()?, "hello");
        assert_eq!(task.await?, "hello");
        assert_eq!(watcher.len(), 0, "the await did not suspend");
        sleep(Duration::ZERO).await
    });
}

/// EAGER-002
#[test]
fn a_coroutine_that_waits_has_begun() {
    eagerly(async {
        let record = Record::default();
        let seen = record.clone();
        let task = create_task(async move {
            seen.push(1);
            sleep(Duration::from_millis(50)).await?;
            seen.push(2);
            Ok(3)
        });
        assert_eq!(record.items(), [1]);
        assert!(!task.done());
        assert_eq!(task.await?, 3);
        assert_eq!(record.take(), [1, 2]);
        Ok(())
    });
}

/// EAGER-003
#[test]
fn a_cancel_after_the_eager_end_is_too_late() {
    eagerly(async {
        let task = create_task(async { Ok("kept") });
        assert!(!task.cancel());
        assert_eq!((&task).await?, "kept");
        assert!(!task.cancelled());
        assert_eq!(task.cancelling(), 0);
        Ok(())
    });
}

/// EAGER-004
#[test]
fn a_cancel_after_the_eager_step_is_delivered() {
    eagerly(async {
        let task = create_task(sleep(Duration::from_millis(100)));
        assert!(task.cancel_with("cancellation message"));
        assert!(task.cancelling() > 0);
        assert_eq!(failure(task.await), (ErrorKind::Cancelled, "cancellation message".into()));
        Ok(())
    });
}

/// EAGER-004: it has begun, so it can catch it.
#[test]
fn a_cancel_after_the_eager_step_can_be_caught() {
    eagerly(async {
        let task = create_task(async { Ok(sleep(Duration::from_secs(60)).await.is_err()) });
        task.cancel();
        assert!(task.await?);
        Ok(())
    });
}

/// EAGER-006
#[test]
fn a_task_is_listed_during_its_eager_step() {
    eagerly(async {
        let contains_itself = async {
            let own = current_task()?.unwrap();
            Ok((asyncio::all_tasks()?.contains(&own), own))
        };
        let task = create_task(contains_itself);
        let (listed, own) = task.result()?;
        assert!(listed);
        assert!(task == own);
        assert!(!asyncio::all_tasks()?.contains(&own));
        let blocking = create_task(sleep(Duration::from_millis(1)));
        let known = blocking.any();
        assert!(asyncio::all_tasks()?.contains(&known));
        blocking.await?;
        assert!(!asyncio::all_tasks()?.contains(&known));
        Ok(())
    });
}

/// EAGER-006: afterwards the creator is the current task again.
#[test]
fn the_creator_is_current_again_after_the_eager_step() {
    eagerly(async {
        let main = current_task()?;
        let inner = create_task(async {
            let own = current_task()?;
            let nested = create_task(async { current_task() });
            assert!(nested.result()? != own);
            assert!(current_task()? == own);
            Ok(own)
        });
        assert!(inner.result()? != main);
        assert!(current_task()? == main);
        Ok(())
    });
}

/// EAGER-007
#[test]
fn an_eager_task_has_its_own_context() {
    static CV: ContextVar<u8> = ContextVar::new("cv");
    eagerly(async {
        CV.set(1);
        let task = create_task(async {
            let first = CV.get()?;
            CV.set(2);
            sleep(Duration::ZERO).await?;
            let second = CV.get()?;
            CV.set(3);
            Ok((first, second))
        });
        assert_eq!(CV.get()?, 1);
        assert_eq!(task.await?, (1, 2));
        assert_eq!(CV.get()?, 1);
        Ok(())
    });
}

/// EAGER-009
#[test]
fn an_eager_failure_does_not_disturb_the_creator() {
    eagerly(async {
        let task = create_task(async { Err::<u8, _>(Error::Value("b".into())) });
        assert!(task.done() && !task.cancelled());
        let error = task.exception()?.unwrap();
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::Value, "b".into()));
        Ok(())
    });
}

/// EAGER-009: nor does a panic, or a failure that nobody reads.
#[test]
fn an_eager_panic_does_not_disturb_the_creator() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    event_loop.set_task_factory(Some(asyncio::eager_task_factory()));
    event_loop
        .run_until_complete(async {
            let main = current_task()?;
            let task = create_task(async { if true { panic!("boom") } else { asyncio::ok(()) } });
            assert_eq!(failure(task.result()), (ErrorKind::Panicked, "boom".into()));
            drop(create_task(async { Err::<u8, _>(Error::Value("unread".into())) }));
            assert!(current_task()? == main);
            Ok(())
        })
        .unwrap();
    let texts: Vec<_> = reports.take().into_iter().map(|report| report.exception.unwrap().to_string()).collect();
    assert_eq!(texts, ["boom", "unread"]);
}

#[test]
fn without_a_running_loop_nothing_begins_at_once() {
    let event_loop = new_loop();
    event_loop.set_task_factory(Some(asyncio::eager_task_factory()));
    let task = event_loop.create_task(async { Ok(1) });
    assert!(!task.done());
    tick(&event_loop);
    assert_eq!(task.result().unwrap(), 1);
}

#[test]
fn one_task_may_be_started_eagerly_without_a_factory() {
    support::run(async {
        let event_loop = asyncio::get_running_loop()?;
        let task = event_loop.task(async { Ok(1) }).name("eager").eager_start(true).start();
        assert!(task.done());
        assert_eq!(task.get_name(), "eager");
        let lazy = event_loop.task(async { Ok(2) }).eager_start(false).start();
        assert!(!lazy.done());
        assert_eq!(lazy.await? + task.await?, 3);
        Ok(())
    });
}

#[test]
fn a_callback_may_start_a_task_eagerly() {
    let event_loop = new_loop();
    event_loop.set_task_factory(Some(asyncio::eager_task_factory()));
    let maker = event_loop.clone();
    let made = event_loop.call_soon(move || maker.create_task(async { Ok(current_task()?.is_some()) }).result());
    assert!(event_loop.run_until_complete(made).unwrap().unwrap());
}

#[test]
fn eager_tasks_may_nest_deeply() {
    fn nested(depth: u32) -> std::pin::Pin<Box<dyn Future<Output = asyncio::Result<u32>>>> {
        Box::pin(async move { if depth == 0 { Ok(0) } else { Ok(create_task(nested(depth - 1)).await? + 1) } })
    }
    eagerly(async {
        assert_eq!(create_task(nested(50)).result()?, 50);
        Ok(())
    });
}

#[test]
fn an_eager_tasks_waiters_and_callbacks_come_after() {
    eagerly(async {
        let record = Record::default();
        let task = create_task(async { Ok(1) });
        let seen = record.clone();
        task.add_done_callback(move |_| seen.push("callback"));
        assert_eq!(record.len(), 0);
        sleep(Duration::ZERO).await?;
        assert_eq!(record.take(), ["callback"]);
        Ok(())
    });
}

/// A task that is made inside the context that its creator has entered itself cannot enter it a second time.
#[test]
fn an_eager_task_in_the_context_that_is_entered_fails() {
    support::run(async {
        let event_loop = asyncio::get_running_loop()?;
        let own = current_task()?.unwrap().get_context();
        let task = event_loop.task(async { Ok(()) }).context(&own).eager_start(true).start();
        assert_eq!(failure(task.await).0, ErrorKind::Runtime);
        Ok(())
    });
}
