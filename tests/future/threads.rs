//! Futures that cross threads.

use std::thread;

use asyncio::{Error, ErrorKind};

use crate::support::{self, Record, failure, handler, new_loop, tick};

#[test]
fn setting_a_future_on_another_thread_is_an_error() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<u8>();
    let theirs = future.clone();
    thread::spawn(move || {
        assert_eq!(failure(theirs.set_result(1)).0, ErrorKind::Runtime);
        assert_eq!(failure(theirs.set_exception(Error::cancelled())).0, ErrorKind::Runtime);
        assert!(!theirs.cancel());
        assert!(!theirs.cancel_with("m"));
        assert_eq!(theirs.get_loop().map(drop).unwrap_err().kind(), ErrorKind::Runtime);
    })
    .join()
    .unwrap();
    assert!(!future.done());
    future.set_result(2).unwrap();
    assert_eq!(future.result().unwrap(), 2);
}

#[test]
fn awaiting_a_future_on_another_thread_is_an_error_and_leaves_it_pending() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<u8>();
    let theirs = future.clone();
    thread::spawn(move || {
        assert_eq!(failure(smol::block_on(theirs.clone())).0, ErrorKind::Runtime);
        assert_eq!(failure(smol::block_on(async { (&theirs).await })).0, ErrorKind::Runtime);
    })
    .join()
    .unwrap();
    assert!(!future.done());
    future.set_result(2).unwrap();
    assert_eq!(event_loop.run_until_complete(future).unwrap(), 2);
}

#[test]
fn awaiting_a_future_in_another_threads_loop_is_an_error_and_leaves_it_pending() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<u8>();
    let theirs = future.clone();
    thread::spawn(move || assert_eq!(failure(asyncio::block_on(theirs)).0, ErrorKind::Value)).join().unwrap();
    assert!(!future.done());
}

#[test]
fn reading_works_on_every_thread() {
    let event_loop = new_loop();
    let (value, error, cancelled) =
        (event_loop.create_future(), event_loop.create_future::<u8>(), event_loop.create_future::<u8>());
    value.set_result(1).unwrap();
    error.set_exception(Error::Value("v".into())).unwrap();
    cancelled.cancel();
    let reports = handler(&event_loop);
    thread::spawn(move || {
        assert!(value.done() && error.done() && cancelled.cancelled());
        assert_eq!(value.result().unwrap(), 1);
        assert!(value.exception().unwrap().is_none());
        assert_eq!(failure(error.result()).0, ErrorKind::Value);
        assert_eq!(failure(cancelled.exception()).0, ErrorKind::Cancelled);
        assert!(format!("{value:?}").contains("result=1"));
        assert_eq!(smol::block_on(value).unwrap(), 1, "a done one may be awaited anywhere");
    })
    .join()
    .unwrap();
    tick(&event_loop);
    assert_eq!(reports.take().len(), 0);
}

#[test]
fn a_callback_added_on_another_thread_is_dropped_and_reported() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let record = Record::default();
    let future = event_loop.create_future::<u8>();
    let seen = record.clone();
    future.add_done_callback(move |_| seen.push("mine"));
    let theirs = future.clone();
    let (guard, dropped) = support::drop_guard();
    let token = thread::spawn(move || theirs.add_done_callback(move |_| drop(guard))).join().unwrap();
    assert!(dropped.get());
    assert!(!future.remove_done_callback(&token));
    future.set_result(1).unwrap();
    tick(&event_loop);
    assert_eq!(record.take(), ["mine"]);
    assert_eq!(reports.take().len(), 1);
}

#[test]
fn a_callback_cannot_be_removed_on_another_thread() {
    let event_loop = new_loop();
    let record = Record::default();
    let future = event_loop.create_future::<u8>();
    let seen = record.clone();
    let token = future.add_done_callback(move |_| seen.push("ran"));
    let theirs = future.clone();
    assert!(!thread::spawn(move || theirs.remove_done_callback(&token)).join().unwrap());
    future.set_result(1).unwrap();
    tick(&event_loop);
    assert_eq!(record.take(), ["ran"]);
}

#[test]
fn the_last_handle_may_be_dropped_on_another_thread() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let pending = event_loop.create_future::<u8>();
    let (guard, dropped) = support::drop_guard();
    let local = std::rc::Rc::new(guard);
    pending.add_done_callback(move |_| drop(local));
    let failed = event_loop.create_future::<u8>();
    failed.set_exception(Error::Value("v".into())).unwrap();
    thread::spawn(move || drop((pending, failed))).join().unwrap();
    assert!(!dropped.get(), "a callback that is not Send is dropped on the loop's thread");
    assert_eq!(reports.len(), 0);
    tick(&event_loop);
    assert!(dropped.get());
    let reports = reports.take();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].message, "Future exception was never retrieved");
}

#[test]
fn a_handle_that_outlives_its_loop_is_harmless() {
    let event_loop = new_loop();
    let (pending, failed) = (event_loop.create_future::<u8>(), event_loop.create_future::<u8>());
    pending.add_done_callback(|_| ());
    failed.set_exception(Error::Value("v".into())).unwrap();
    drop(event_loop);
    assert_eq!(pending.get_loop().map(drop).unwrap_err().kind(), ErrorKind::Runtime);
    let ((), logs) = support::logs(|| {
        thread::spawn(move || drop(pending)).join().unwrap();
        drop(failed);
    });
    assert_eq!(logs.len(), 1, "the default handler has it");
}

#[test]
fn a_wait_that_is_dropped_on_another_thread_is_over() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<u8>();
    let mut wait = Box::pin((&future).into_future());
    event_loop
        .run_until_complete(async {
            std::future::poll_fn(|cx| {
                use std::future::Future as _;
                assert!(wait.as_mut().poll(cx).is_pending());
                std::task::Poll::Ready(())
            })
            .await;
            Ok(())
        })
        .unwrap();
    thread::spawn(move || drop(wait)).join().unwrap();
    tick(&event_loop);
    future.set_result(1).unwrap();
    assert_eq!(event_loop.run_until_complete(future).unwrap(), 1);
}
