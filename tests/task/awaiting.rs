//! Tasks that await tasks.

use std::time::Duration;

use asyncio::{Error, ErrorKind, create_task, sleep};

use crate::support::{self, Record, failure, new_loop, tick};

/// TASK-007
#[test]
fn a_task_cannot_await_itself() {
    support::run(async {
        let (give, take) = futures::channel::oneshot::channel::<asyncio::Task<()>>();
        let task = create_task(async move {
            let own = take.await.unwrap();
            let (kind, text) = failure(own.await);
            assert_eq!(kind, ErrorKind::Runtime);
            assert!(text.starts_with("Task cannot await on itself"), "{text}");
            sleep(Duration::ZERO).await
        });
        let any = task.any();
        give.send(task).unwrap();
        any.await
    });
}

/// TASK-007: through every form of the handle.
#[test]
fn a_task_cannot_await_itself_by_any_handle() {
    support::run(async {
        let task = create_task(async {
            let own = asyncio::current_task()?.unwrap();
            assert_eq!(failure(own.clone().await).0, ErrorKind::Runtime);
            assert_eq!(failure(own.await).0, ErrorKind::Runtime);
            Ok(1)
        });
        assert_eq!(task.await?, 1);
        let event_loop = asyncio::get_running_loop()?;
        let future = event_loop.create_future::<asyncio::SharedTask<u8>>();
        let given = future.clone();
        let task = create_task(async move {
            let own = given.await?;
            assert_eq!(failure(own.clone().await).0, ErrorKind::Runtime);
            assert_eq!(failure((&*own).await).0, ErrorKind::Runtime);
            Ok(2)
        })
        .shared();
        future.set_result(task.clone())?;
        assert_eq!(task.await?, 2);
        Ok(())
    });
}

#[test]
fn wakers_and_callbacks_are_one_line_in_order_of_registration() {
    let event_loop = new_loop();
    let record = Record::default();
    let future = event_loop.create_future::<u8>();
    let task = event_loop.create_task(future.clone()).shared();
    let callback = |name: &'static str| {
        let seen = record.clone();
        task.add_done_callback(move |_| seen.push(name));
    };
    let waiter = |name: &'static str| {
        let (seen, task) = (record.clone(), task.clone());
        event_loop.create_task(async move {
            task.await?;
            seen.push(name);
            Ok(())
        });
        tick(&event_loop);
    };
    waiter("await 1");
    callback("callback 2");
    waiter("await 3");
    callback("callback 4");
    future.set_result(0).unwrap();
    tick(&event_loop);
    assert_eq!(record.len(), 0);
    tick(&event_loop);
    assert_eq!(record.take(), ["await 1", "callback 2", "await 3", "callback 4"]);
}

/// The await by value has a shortcut; it keeps its place in the line all the same.
#[test]
fn an_await_by_value_stands_in_the_same_line() {
    for value_first in [true, false] {
        let event_loop = new_loop();
        let record = Record::default();
        let future = event_loop.create_future::<u8>();
        let task = event_loop.create_task(future.clone());
        let any = task.any();
        let seen = record.clone();
        let by_value = async move {
            task.await?;
            seen.push("value");
            asyncio::ok(())
        };
        let callback = || {
            let seen = record.clone();
            any.add_done_callback(move |_| seen.push("callback"));
        };
        let erased = || {
            let (seen, any) = (record.clone(), any.clone());
            event_loop.create_task(async move {
                any.await?;
                seen.push("erased");
                Ok(())
            });
            tick(&event_loop);
        };
        if value_first {
            event_loop.create_task(by_value);
            tick(&event_loop);
            callback();
            erased();
        } else {
            callback();
            erased();
            event_loop.create_task(by_value);
            tick(&event_loop);
        }
        future.set_result(0).unwrap();
        tick(&event_loop);
        tick(&event_loop);
        let expected = if value_first { ["value", "callback", "erased"] } else { ["callback", "erased", "value"] };
        assert_eq!(record.take(), expected);
    }
}

#[test]
fn a_waiter_that_is_polled_again_keeps_its_place() {
    let event_loop = new_loop();
    let record = Record::default();
    let future = event_loop.create_future::<u8>();
    let task = event_loop.create_task(future.clone()).shared();
    let gate = support::Gate::default();
    let (seen, awaited, open) = (record.clone(), task.clone(), gate.clone());
    event_loop.create_task(async move {
        futures::future::join(awaited, open).await.0?;
        seen.push("first");
        Ok(())
    });
    tick(&event_loop);
    let seen = record.clone();
    task.add_done_callback(move |_| seen.push("second"));
    gate.open();
    tick(&event_loop);
    future.set_result(0).unwrap();
    tick(&event_loop);
    tick(&event_loop);
    assert_eq!(record.take(), ["first", "second"]);
}

#[test]
fn a_done_callback_gets_the_task() {
    let event_loop = new_loop();
    let record = Record::default();
    let task = event_loop.create_task(async { Ok(1) });
    let (seen, removed) = (record.clone(), record.clone());
    task.add_done_callback(move |task| seen.push((task.clone(), task.done())));
    let token = task.add_done_callback(move |task| removed.push((task.clone(), false)));
    assert!(task.remove_done_callback(&token));
    assert!(!task.remove_done_callback(&token));
    tick(&event_loop);
    assert_eq!(record.len(), 0);
    tick(&event_loop);
    assert_eq!(record.take(), [(task.any(), true)]);
    let seen = record.clone();
    let late = task.add_done_callback(move |task| seen.push((task.clone(), true)));
    assert!(!task.remove_done_callback(&late), "it is scheduled");
    assert_eq!(record.len(), 0);
    tick(&event_loop);
    assert_eq!(record.len(), 1);
}

#[test]
fn a_callback_runs_although_every_handle_is_dropped() {
    let event_loop = new_loop();
    let record = Record::default();
    let task = event_loop.create_task(async { Err::<u8, _>(Error::Value("v".into())) });
    let seen = record.clone();
    task.add_done_callback(move |task| seen.push(task.exception().unwrap().unwrap().to_string()));
    drop(task);
    let reports = support::handler(&event_loop);
    tick(&event_loop);
    tick(&event_loop);
    assert_eq!(record.take(), ["v"]);
    tick(&event_loop);
    assert_eq!(reports.take().len(), 0, "the callback looked");
}

#[test]
fn a_lost_wait_leaves_the_task_alone() {
    support::run(async {
        let event_loop = asyncio::get_running_loop()?;
        let future = event_loop.create_future::<u8>();
        let mut task = create_task(future.clone());
        for _ in 0..3 {
            let lost = futures::future::select(&mut task, sleep(Duration::ZERO)).await;
            assert!(matches!(lost, futures::future::Either::Right(_)));
        }
        assert!(!task.done() && !future.done() && task.cancelling() == 0);
        future.set_result(1)?;
        assert_eq!(task.await?, 1);
        Ok(())
    });
}

#[test]
fn a_long_chain_of_tasks_ends_in_order() {
    let _deadline = support::deadline();
    support::run(async {
        let event_loop = asyncio::get_running_loop()?;
        let future = event_loop.create_future::<u32>();
        let mut last = create_task(future.clone());
        for _ in 0..100_000 {
            last = create_task(async move { Ok(last.await? + 1) });
        }
        sleep(Duration::ZERO).await?;
        sleep(Duration::ZERO).await?;
        future.set_result(0)?;
        assert_eq!(last.await?, 100_000);
        Ok(())
    });
}

#[test]
fn a_task_may_be_lent_to_run_until_complete() {
    let event_loop = new_loop();
    let stopper = event_loop.clone();
    let mut task = event_loop.create_task(async move {
        stopper.stop();
        sleep(Duration::from_millis(1)).await?;
        Ok(5)
    });
    assert_eq!(failure(event_loop.run_until_complete(&mut task)).0, ErrorKind::Runtime);
    assert!(!task.done());
    assert_eq!(event_loop.run_until_complete(&mut task).unwrap(), 5);
    assert_eq!(failure(event_loop.run_until_complete(task)).1, "Result was already taken");
}
