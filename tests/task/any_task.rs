//! Tasks with their type forgotten.

use std::{collections::HashSet, time::Duration};

use asyncio::{Error, ErrorKind, create_task, sleep};

use crate::support::{self, Record, failure, handler, new_loop, tick};

#[test]
fn awaiting_gives_ok_or_the_error() {
    support::run(async {
        let good = create_task(async { Ok(5) });
        good.any().await?;
        good.any().await?;
        assert_eq!(good.await?, 5, "the value is still there");
        let bad = create_task(async { Err::<u8, _>(Error::Value("v".into())) });
        assert_eq!(failure(bad.any().await), (ErrorKind::Value, "v".into()));
        let cancelled = create_task(sleep(Duration::from_secs(60)));
        cancelled.cancel_with("m");
        assert_eq!(failure(cancelled.any().await), (ErrorKind::Cancelled, "m".into()));
        Ok(())
    });
}

#[test]
fn an_await_of_it_counts_as_a_look() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let task = event_loop.create_task(async { Err::<u8, _>(Error::Value("v".into())) });
    assert!(event_loop.run_until_complete(task.any()).is_err());
    drop(task);
    tick(&event_loop);
    assert_eq!(reports.take().len(), 0);
}

#[test]
fn handles_of_one_task_are_equal_and_hash_alike() {
    let event_loop = new_loop();
    let (one, two) = (event_loop.create_task(async { Ok(1) }), event_loop.create_task(async { Ok(2) }));
    assert_eq!(one.any(), one.any());
    assert_eq!(one.any(), one.any().clone());
    assert!(one == one.any());
    assert_ne!(one.any(), two.any());
    assert_eq!(one.any().id(), one.any().id());
    let mut set: HashSet<_> = [one.any(), one.any(), two.any()].into();
    assert_eq!(set.len(), 2);
    tick(&event_loop);
    assert!(set.remove(&one.any()), "its end does not change who it is");
    assert_eq!(set.into_iter().next().unwrap(), two.any());
}

#[test]
fn it_knows_what_the_task_knows() {
    let event_loop = new_loop();
    let task = event_loop.task(sleep(Duration::from_secs(60))).name("name").start();
    let any = task.any();
    assert_eq!(any.get_name(), "name");
    any.set_name("other");
    assert_eq!(task.get_name(), "other");
    assert!(any.get_loop().unwrap() == event_loop);
    assert_eq!(any.source_location().file(), file!());
    assert!(!any.done() && !any.cancelled());
    assert_eq!(failure(any.exception()).1, "Exception is not set.");
    tick(&event_loop);
    assert!(any.cancel_with("m"));
    assert_eq!((any.cancelling(), task.cancelling()), (1, 1));
    assert!(any.cancel());
    assert_eq!(any.uncancel(), 1);
    tick(&event_loop);
    assert!(any.done() && any.cancelled() && task.cancelled());
    assert!(!any.cancel());
    assert_eq!(failure(any.exception()).0, ErrorKind::Cancelled);
    assert!(format!("{any:?}").contains("other"));
}

#[test]
fn its_done_callbacks_are_the_tasks() {
    let event_loop = new_loop();
    let record = Record::default();
    let task = event_loop.create_task(async { Ok(()) });
    let any = task.any();
    let (first, second, third) = (record.clone(), record.clone(), record.clone());
    any.add_done_callback(move |_| first.push(1));
    let token = any.add_done_callback(move |_| second.push(2));
    task.add_done_callback(move |_| third.push(3));
    assert!(task.remove_done_callback(&token));
    drop((any, task));
    tick(&event_loop);
    tick(&event_loop);
    assert_eq!(record.take(), [1, 3]);
}

#[test]
fn clones_may_wait_at_once_and_be_dropped_while_they_wait() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<u8>();
    let task = event_loop.create_task(future.clone());
    let waiters: Vec<_> = (0..3).map(|_| event_loop.create_task(task.any())).collect();
    let mut lost = task.any();
    event_loop
        .run_until_complete(async {
            assert!(futures::FutureExt::now_or_never(&mut lost).is_none());
            sleep(Duration::ZERO).await
        })
        .unwrap();
    drop(lost);
    future.set_result(1).unwrap();
    tick(&event_loop);
    tick(&event_loop);
    assert!(waiters.iter().all(|waiter| waiter.result().is_ok()));
}

#[test]
fn cancelling_who_waits_cancels_the_task() {
    support::run(async {
        let task = create_task(sleep(Duration::from_secs(60)));
        let waiter = create_task(task.any());
        sleep(Duration::ZERO).await?;
        assert!(waiter.cancel());
        assert_eq!(task.cancelling(), 1);
        assert_eq!(failure(waiter.await).0, ErrorKind::Cancelled);
        assert!(task.cancelled());
        Ok(())
    });
}
