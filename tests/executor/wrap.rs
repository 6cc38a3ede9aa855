//! `wrap_future`: a thread's future under a loop.

use std::{thread, time::Duration};

use asyncio::{Error, ErrorKind, EventLoop, ThreadsafeFuture, sleep, wrap_future};

use crate::support::{self, failure, handler, logs, new_loop, tick};

/// Wraps as a coroutine of the loop would.
fn wrap<T: Send + 'static>(event_loop: &EventLoop, outside: ThreadsafeFuture<T>) -> asyncio::Future<T> {
    event_loop.run_until_complete(async { Ok(wrap_future(outside)) }).unwrap()
}

/// EXEC-014
#[test]
fn cancelling_the_wrapper_cancels_what_is_still_pending() {
    let event_loop = new_loop();
    let (g, setter) = ThreadsafeFuture::<i32>::pair();
    let f = wrap(&event_loop, g);
    assert!(f.cancel());
    tick(&event_loop);
    tick(&event_loop);
    assert!(setter.cancelled());
    assert_eq!(failure(setter.set_result(1)).0, ErrorKind::InvalidState);
    assert!(f.cancelled());

    let (g, setter) = ThreadsafeFuture::pair();
    let f = wrap(&event_loop, g);
    setter.set_result(42).unwrap();
    assert!(!f.done(), "the loop has not run");
    assert!(f.cancel());
    tick(&event_loop);
    tick(&event_loop);
    assert!(!setter.cancelled(), "it keeps 42");
    assert_eq!(failure(setter.set_result(1)).0, ErrorKind::InvalidState);
    assert!(f.cancelled());
}

#[test]
fn the_wrapper_gets_the_outcome() {
    support::run(async {
        let (outside, setter) = ThreadsafeFuture::pair();
        let future = wrap_future(outside);
        let thread = thread::spawn(move || setter.set_result(5).unwrap());
        assert_eq!(future.await?, 5);
        thread.join().unwrap();

        let (outside, setter) = ThreadsafeFuture::<()>::pair();
        let future = wrap_future(outside);
        let thread = thread::spawn(move || setter.set_exception(Error::other("oh")).unwrap());
        assert_eq!(failure(future.await).1, "oh");
        thread.join().unwrap();

        let (outside, setter) = ThreadsafeFuture::<()>::pair();
        let future = wrap_future(outside);
        thread::spawn(move || drop(setter)).join().unwrap();
        assert_eq!(failure(future.await).0, ErrorKind::Cancelled);

        // Done before it is wrapped: in a later iteration all the same.
        let (outside, setter) = ThreadsafeFuture::pair();
        setter.set_result(6)?;
        let future = wrap_future(outside);
        assert!(!future.done());
        assert_eq!(future.await?, 6);
        Ok(())
    });
}

/// Cancelling the task that awaits the wrapper cancels the work.
#[test]
fn cancelling_who_awaits_the_wrapper_cancels_the_work() {
    let event_loop = new_loop();
    let (outside, setter) = ThreadsafeFuture::<()>::pair();
    let task = event_loop.create_task(async { wrap_future(outside).await });
    tick(&event_loop);
    task.cancel();
    assert_eq!(failure(event_loop.run_until_complete(task)).0, ErrorKind::Cancelled);
    tick(&event_loop);
    assert!(setter.cancelled());
}

/// From loop to loop: the work of one awaited under another, both ways, and its cancellation.
#[test]
fn one_loop_awaits_the_work_of_another() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let here = event_loop.threadsafe();
    let thread = thread::spawn(move || {
        asyncio::run(async {
            let there = asyncio::get_running_loop()?.threadsafe();
            let work = here.run_coroutine_threadsafe(async move || {
                // And back again.
                let back = wrap_future(there.run_coroutine_threadsafe(async { Ok(20) })).await?;
                sleep(Duration::from_millis(1)).await?;
                Ok(back + 2)
            });
            let value = wrap_future(work).await?;
            let (guard, dropped) = support::drop_guard();
            let endless = wrap_future(here.run_coroutine_threadsafe(async move || {
                let _guard = guard;
                sleep(Duration::from_secs(1000)).await
            }));
            let cancelled = endless.clone();
            asyncio::get_running_loop()?.call_later(Duration::from_millis(5), move || cancelled.cancel());
            assert_eq!(failure(endless.await).0, ErrorKind::Cancelled);
            while !dropped.get() {
                wrap_future(here.call_soon_threadsafe(|| ())).await?;
            }
            here.stop();
            Ok(value)
        })
    });
    event_loop.run_forever().unwrap();
    assert_eq!(thread.join().unwrap().unwrap(), 22);
    assert_eq!(event_loop.all_tasks(), []);
}

/// An error that nobody reads is reported once, by whichever side has it last.
#[test]
fn unread_errors_are_reported_once() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let count = |work: &dyn Fn()| {
        let ((), logged) = logs(|| {
            work();
            (0..3).for_each(|_| tick(&event_loop));
        });
        reports.take().len() + logged.len()
    };
    assert_eq!(
        count(&|| {
            let (outside, setter) = ThreadsafeFuture::<()>::pair();
            drop(wrap(&event_loop, outside));
            setter.set_exception(Error::other("unread")).unwrap();
        }),
        1,
        "dropped before"
    );
    assert_eq!(
        count(&|| {
            let (outside, setter) = ThreadsafeFuture::<()>::pair();
            let future = wrap(&event_loop, outside);
            setter.set_exception(Error::other("unread")).unwrap();
            tick(&event_loop);
            drop(future);
        }),
        1,
        "dropped after"
    );
    assert_eq!(
        count(&|| {
            let (outside, setter) = ThreadsafeFuture::<()>::pair();
            let future = wrap(&event_loop, outside);
            setter.set_exception(Error::other("unread")).unwrap();
            future.cancel();
        }),
        1,
        "cancelled in between"
    );
    assert_eq!(
        count(&|| {
            let (outside, setter) = ThreadsafeFuture::<()>::pair();
            let future = wrap(&event_loop, outside);
            setter.set_exception(Error::other("read")).unwrap();
            tick(&event_loop);
            assert!(future.exception().unwrap().is_some());
        }),
        0,
        "read"
    );
}

/// A loop that closes takes nothing along: the setter sets, and nobody is harmed.
#[test]
fn a_wrapper_outlives_its_loop() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let (outside, setter) = ThreadsafeFuture::pair();
    let future = wrap(&event_loop, outside);
    event_loop.close().unwrap();
    let (guard, dropped) = support::drop_guard();
    thread::spawn(move || setter.set_result(guard).map_err(|_| ()).ok()).join().unwrap();
    assert!(dropped.get(), "nobody will take it");
    assert!(!future.done());
}

/// Without a loop the wrapper is born failed.
#[test]
fn a_wrapper_needs_a_loop() {
    let (outside, setter) = ThreadsafeFuture::<()>::pair();
    let future = wrap_future(outside);
    assert_eq!(failure(future.result()).0, ErrorKind::Runtime);
    assert!(setter.cancelled() || setter.set_result(()).is_ok());

    let event_loop = new_loop();
    asyncio::set_event_loop(&event_loop);
    let (outside, setter) = ThreadsafeFuture::pair();
    let future = wrap_future(outside);
    setter.set_result(5).unwrap();
    assert_eq!(event_loop.run_until_complete(future).unwrap(), 5);
    event_loop.close().unwrap();
    let (outside, _setter) = ThreadsafeFuture::<()>::pair();
    assert_eq!(failure(wrap_future(outside).result()), (ErrorKind::Runtime, "Event loop is closed".into()));
    asyncio::set_event_loop(None);
}
