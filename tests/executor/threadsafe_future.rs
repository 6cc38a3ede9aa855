//! `ThreadsafeFuture` and its setter by themselves.

use std::{
    pin::pin,
    sync::{Arc, mpsc::channel},
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

use asyncio::{Error, ErrorKind, ThreadsafeFuture, ThreadsafeSetter, sleep};
use tracing::Level;

use crate::support::{self, failure, handler, logs, new_loop, tick};

fn pair<T: Send + 'static>() -> (ThreadsafeFuture<T>, ThreadsafeSetter<T>) {
    ThreadsafeFuture::pair()
}

#[test]
fn a_pair_carries_one_outcome() {
    let (future, setter) = pair();
    assert!(!future.done() && !future.cancelled() && !setter.cancelled());
    setter.set_result(5).unwrap();
    assert!(future.done() && !future.cancelled());
    assert_eq!(failure(setter.set_result(6)).0, ErrorKind::InvalidState);
    assert_eq!(failure(setter.set_exception(Error::other("no"))).0, ErrorKind::InvalidState);
    assert!(!future.cancel());
    assert_eq!(future.result(None).unwrap(), 5);
    assert!(future.done());
    assert_eq!(failure(future.result(None)), (ErrorKind::InvalidState, "Result was already taken".into()));

    let (future, setter) = pair::<i32>();
    setter.set_exception(Error::other("oh")).unwrap();
    for _ in 0..2 {
        assert_eq!(failure(future.result(None)), (ErrorKind::Other, "oh".into()), "an error stays");
    }
}

#[test]
fn result_blocks_until_the_outcome_is_there() {
    let _deadline = support::deadline();
    let (future, setter) = pair();
    let thread = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        setter.set_result(5).unwrap();
    });
    assert_eq!(future.result(Duration::from_secs(50)).unwrap(), 5);
    thread.join().unwrap();
}

/// When the time is over the work goes on, and the question may be asked again.
#[test]
fn result_waits_for_a_limited_time() {
    let _deadline = support::deadline();
    let (future, setter) = pair();
    assert_eq!(failure(future.result(Duration::ZERO)).0, ErrorKind::Timeout);
    let begin = Instant::now();
    assert_eq!(failure(future.result(Duration::from_millis(10))).0, ErrorKind::Timeout);
    assert!(begin.elapsed() >= Duration::from_millis(10));
    assert!(!future.done());
    setter.set_result(5).unwrap();
    assert_eq!(future.result(Duration::ZERO).unwrap(), 5);
    // A time too long for the clock is no limit.
    let (future, setter) = pair();
    let thread = thread::spawn(move || setter.set_result(6).unwrap());
    assert_eq!(future.result(Duration::MAX).unwrap(), 6);
    thread.join().unwrap();
}

/// Several threads may block; one of them takes the value.
#[test]
fn all_threads_that_block_are_released() {
    let _deadline = support::deadline();
    let (future, setter) = pair();
    let future = Arc::new(future);
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let future = future.clone();
            thread::spawn(move || future.result(None))
        })
        .collect();
    setter.set_result(5).unwrap();
    let results: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    let others = results.into_iter().filter_map(Result::err);
    assert!(others.map(|error| error.kind()).eq([ErrorKind::InvalidState; 2]));
}

#[test]
fn cancel_settles_what_is_pending() {
    let (future, setter) = pair::<i32>();
    assert!(future.cancel_with("enough"));
    assert!(future.done() && future.cancelled() && setter.cancelled());
    assert!(!future.cancel());
    assert_eq!(failure(setter.set_result(5)).0, ErrorKind::InvalidState);
    for _ in 0..2 {
        assert_eq!(failure(future.result(None)), (ErrorKind::Cancelled, "enough".into()));
        assert!(future.cancelled() && setter.cancelled());
    }
}

/// A thread that blocks is released by a cancel from another one.
#[test]
fn cancel_releases_who_blocks() {
    let _deadline = support::deadline();
    let (future, setter) = pair::<()>();
    let future = Arc::new(future);
    let waiting = future.clone();
    let thread = thread::spawn(move || waiting.result(None));
    thread::sleep(Duration::from_millis(5));
    assert!(future.cancel());
    assert_eq!(failure(thread.join().unwrap()).0, ErrorKind::Cancelled);
    drop(setter);
}

#[test]
fn a_setter_that_is_dropped_cancels() {
    let (future, setter) = pair::<i32>();
    drop(setter);
    assert!(future.cancelled());
    assert_eq!(failure(future.result(None)).0, ErrorKind::Cancelled);
    let (future, setter) = pair();
    setter.set_result(5).unwrap();
    drop(setter);
    assert_eq!(future.result(None).unwrap(), 5);
}

/// The value is dropped where nobody takes it.
#[test]
fn values_that_nobody_takes_are_dropped() {
    let (guard, dropped) = support::drop_guard();
    let (future, setter) = pair();
    setter.set_result(guard).unwrap();
    drop(future);
    drop(setter);
    assert!(dropped.get());
    let (guard, dropped) = support::drop_guard();
    let (future, setter) = pair();
    future.cancel();
    assert!(setter.set_result(guard).is_err());
    assert!(dropped.get());
    let (guard, dropped) = support::drop_guard();
    let (future, setter) = pair();
    drop(future);
    setter.set_result(guard).unwrap();
    drop(setter);
    assert!(dropped.get());
}

/// No loop does the work, so the record is written by default: once, by whichever end goes last.
#[test]
fn an_unread_error_of_a_pair_is_logged_once() {
    let count = |work: &dyn Fn()| {
        let ((), logged) = logs(work);
        for (level, text) in &logged {
            assert_eq!(*level, Level::ERROR);
            assert!(text.starts_with("Future exception was never retrieved") && text.contains("unread"), "{text}");
        }
        logged.len()
    };
    assert_eq!(
        count(&|| {
            let (future, setter) = pair::<()>();
            setter.set_exception(Error::other("unread")).unwrap();
            drop(future);
        }),
        1
    );
    assert_eq!(
        count(&|| {
            let (future, setter) = pair::<()>();
            drop(future);
            setter.set_exception(Error::other("unread")).unwrap();
        }),
        1
    );
    assert_eq!(
        count(&|| {
            let (future, setter) = pair::<()>();
            setter.set_exception(Error::other("unread")).unwrap();
            let _ = future.result(None);
        }),
        0
    );
    assert_eq!(
        count(&|| {
            let (future, setter) = pair::<()>();
            drop(setter);
            drop(future);
            let (future, _setter) = pair::<()>();
            future.cancel();
        }),
        0,
        "cancellations are not errors"
    );
}

/// Under any executor, on any thread.
#[test]
fn it_is_awaited_under_foreign_executors() {
    let _deadline = support::deadline();
    let delayed = |value: i32| {
        let (future, setter) = pair();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(5));
            setter.set_result(value).unwrap();
        });
        future
    };
    assert_eq!(futures::executor::block_on(delayed(1)).unwrap(), 1);
    assert_eq!(smol::block_on(delayed(2)).unwrap(), 2);
    let tokio = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(tokio.block_on(delayed(3)).unwrap(), 3);
    assert_eq!(asyncio::run(delayed(4)).unwrap(), 4);
    let both = futures::executor::block_on(futures::future::join(delayed(5), delayed(6)));
    assert_eq!((both.0.unwrap(), both.1.unwrap()), (5, 6));
}

/// Work of a loop that runs in another thread, awaited under foreign executors.
#[test]
fn a_loops_work_is_awaited_under_foreign_executors() {
    let _deadline = support::deadline();
    let (sender, receiver) = channel();
    let thread = thread::spawn(move || {
        let event_loop = new_loop();
        sender.send(event_loop.threadsafe()).unwrap();
        event_loop.run_forever().unwrap();
    });
    let remote = receiver.recv().unwrap();
    let work = |value: i32| {
        remote.run_coroutine_threadsafe(async move || {
            sleep(Duration::from_millis(2)).await?;
            Ok(value)
        })
    };
    assert_eq!(futures::executor::block_on(work(1)).unwrap(), 1);
    assert_eq!(smol::block_on(work(2)).unwrap(), 2);
    let tokio = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(tokio.block_on(work(3)).unwrap(), 3);
    // Under another loop; cancelling there cancels here.
    let dropped = asyncio::run(async {
        assert_eq!(work(4).await?, 4);
        let (guard, dropped) = support::drop_guard();
        let endless = remote.run_coroutine_threadsafe(async move || {
            let _guard = guard;
            sleep(Duration::from_secs(1000)).await
        });
        let task = asyncio::create_task(endless);
        sleep(Duration::from_millis(5)).await?;
        task.cancel();
        assert_eq!(failure(task.await).0, ErrorKind::Cancelled);
        Ok(dropped)
    })
    .unwrap();
    let still_there = remote.clone();
    while !dropped.get() {
        still_there.run_coroutine_threadsafe(async { sleep(Duration::ZERO).await }).result(None).unwrap();
    }
    remote.stop();
    thread.join().unwrap();
}

/// The last waker is the one that is woken, once.
#[test]
fn a_poll_under_another_waker_replaces_the_first() {
    let (future, setter) = pair();
    let mut future = pin!(future);
    let (first_waker, first_count) = counting_waker();
    let (second_waker, second_count) = counting_waker();
    assert!(future.as_mut().poll(&mut Context::from_waker(&first_waker)).is_pending());
    assert!(future.as_mut().poll(&mut Context::from_waker(&second_waker)).is_pending());
    assert!(future.as_mut().poll(&mut Context::from_waker(&second_waker)).is_pending());
    setter.set_result(5).unwrap();
    assert_eq!((first_count(), second_count()), (0, 1));
    match future.as_mut().poll(&mut Context::from_waker(&first_waker)) {
        Poll::Ready(value) => assert_eq!(value.unwrap(), 5),
        Poll::Pending => panic!("it is done"),
    }
}

/// A waker that counts.
fn counting_waker() -> (std::task::Waker, impl Fn() -> usize) {
    use std::sync::atomic::{AtomicUsize, Ordering};
    struct Counter(AtomicUsize);
    impl std::task::Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let counter = Arc::new(Counter(AtomicUsize::new(0)));
    (counter.clone().into(), move || counter.0.load(Ordering::SeqCst))
}

/// To block the loop that has to do the work is an error and no deadlock: in a callback, in a coroutine, and between
/// runs, when nobody else could run it.
#[test]
fn result_on_the_loops_own_thread_is_an_error() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let blocked = |result: asyncio::Result<i32>| {
        let (kind, text) = failure(result);
        assert_eq!(kind, ErrorKind::Runtime);
        assert!(text.contains("would block"), "{text}");
    };
    let future = event_loop.call_soon_threadsafe(|| 1);
    blocked(future.result(None));
    assert_eq!(failure(future.result(Duration::from_millis(1))).0, ErrorKind::Timeout, "a limit is no deadlock");
    tick(&event_loop);
    assert_eq!(future.result(None).unwrap(), 1, "what is there can be taken");
    event_loop
        .run_until_complete(async {
            let event_loop = asyncio::get_running_loop()?;
            let future = event_loop.call_soon_threadsafe(|| 2);
            blocked(future.result(None));
            blocked(future.result(Duration::from_secs(1000)));
            assert_eq!(future.await?, 2);
            let future = event_loop.threadsafe().run_coroutine_threadsafe(async { Ok(3) });
            blocked(future.result(None));
            assert_eq!(future.await?, 3);
            let remote = event_loop.threadsafe();
            event_loop.call_soon(move || blocked(remote.call_soon_threadsafe(|| 4).result(None))).await?;
            // Another thread's work may be waited for, if one must.
            let (future, setter) = pair();
            let thread = thread::spawn(move || setter.set_result(5).unwrap());
            assert_eq!(future.result(None)?, 5);
            thread.join().unwrap();
            Ok(())
        })
        .unwrap();
    // Another loop of this thread cannot run either.
    let other = new_loop();
    let future = other.call_soon_threadsafe(|| 6);
    event_loop
        .run_until_complete(async {
            blocked(future.result(None));
            Ok(())
        })
        .unwrap();
    assert_eq!(other.run_until_complete(future).unwrap(), 6);
}

/// A cancelled wait under a loop cancels the work, and a finished one is not lost by a drop.
#[test]
fn a_cancelled_wait_cancels_the_work() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let (future, setter) = pair::<()>();
    let task = event_loop.create_task(future);
    tick(&event_loop);
    task.cancel_with("no more");
    assert_eq!(failure(event_loop.run_until_complete(task)), (ErrorKind::Cancelled, "no more".into()));
    assert!(setter.cancelled());

    let (mut future, setter) = pair();
    event_loop
        .run_until_complete(async {
            assert!(futures::poll!(&mut future).is_pending());
            futures::future::select(&mut future, pin!(sleep(Duration::ZERO))).await;
            Ok(())
        })
        .unwrap();
    setter.set_result(5).unwrap();
    assert_eq!(event_loop.run_until_complete(future).unwrap(), 5);
    event_loop.close().unwrap();
    assert_eq!(reports.len(), 0);
}

#[test]
fn debug_texts_tell_the_state() {
    let (future, setter) = pair::<i32>();
    assert!(format!("{future:?}").starts_with("<ThreadsafeFuture pending created at "), "{future:?}");
    assert!(format!("{future:?}").contains("threadsafe_future.rs:"), "{future:?}");
    assert!(format!("{setter:?}").starts_with("<ThreadsafeSetter created at "), "{setter:?}");
    setter.set_result(5).unwrap();
    assert!(format!("{future:?}").contains("finished"), "{future:?}");
    let (future, setter) = pair::<i32>();
    drop(setter);
    assert!(format!("{future:?}").contains("cancelled"), "{future:?}");
}
