//! Futures of other threads under a loop.

use std::{panic::Location, sync::Arc};

use crate::{
    event_loop::{EventLoop, running, threadsafe::closed, threadsafe_future::ThreadsafeFuture},
    future::Future,
};

/// Brings a future of another thread under the running loop, or the one that was set.
///
/// The loop's future gets the outcome in the iteration after the other one has it. Cancelling the loop's future cancels
/// the other one, if that is still possible.
///
/// Where there is no loop, the future is born failed with [`Error::Runtime`](crate::Error::Runtime).
///
/// # Examples
///
/// ```
/// asyncio::run(async {
///     let (outside, setter) = asyncio::ThreadsafeFuture::pair();
///     let future = asyncio::wrap_future(outside);
///     std::thread::spawn(move || setter.set_result(5));
///     assert_eq!(future.await?, 5);
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.wrap_future`.
#[track_caller]
pub fn wrap_future<T: Send + 'static>(future: ThreadsafeFuture<T>) -> Future<T> {
    let created = Location::caller();
    match running::get_event_loop() {
        Ok(event_loop) => wrap_in(&event_loop, future, created),
        Err(error) => Future::homeless(error, created),
    }
}

fn wrap_in<T: Send + 'static>(
    event_loop: &EventLoop,
    outside: ThreadsafeFuture<T>,
    created: &'static Location<'static>,
) -> Future<T> {
    let future = Future::of_loop(event_loop.inner.shared.clone(), created);
    if event_loop.is_closed() {
        // Cannot fail: the future is new and this is its thread.
        let _ = future.set_exception(closed());
        return future;
    }
    let outside = Arc::new(outside);
    let (source, target, shared) = (outside.clone(), future.clone(), event_loop.inner.shared.clone());
    outside.when_done(move || {
        shared.push_call(move |_| {
            if target.done() {
                return;
            }
            if let Some(outcome) = source.take() {
                // Cannot fail: it is pending and this is its thread.
                let _ = target.complete(outcome);
            }
        });
    });
    let _ = future.add_done_callback(move |future| {
        if future.cancelled() {
            outside.cancel();
        }
    });
    future
}
