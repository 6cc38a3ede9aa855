//! What hyper asks of a runtime: time, tasks, and connections.

use std::{
    fmt,
    future::Future as StdFuture,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context as Cx, Poll},
    time::{Duration, Instant},
};

use futures::AsyncWrite;
use hyper::rt::{self, ReadBufCursor};

use crate::{
    combine::sleep::{self, sleep_until},
    event_loop::{EventLoop, running},
    streams::stream::Stream,
    task::request::create_task,
};

/// hyper's clock and timers, by the running loop: for `timer` of hyper's builders.
///
/// Times are those of the loop's clock, so that a [`VirtualClock`](crate::VirtualClock) moves them, too. A timer that is
/// polled where no loop runs never ends.
///
/// `Threads:` may cross them; a timer belongs to the loop that polls it first.
///
/// # Cancel safety
///
/// hyper's timers have no room for a cancellation, so they take none: the task that awaits the connection is dropped by
/// one, or sees it at [`cancellable`](crate::cancellable) around the connection.
///
/// # Examples
///
/// ```
/// use asyncio::hyper_rt;
/// use hyper::rt::Timer;
/// use std::time::Duration;
///
/// asyncio::run(async {
///     let begin = hyper_rt::Timer.now();
///     hyper_rt::Timer.sleep(Duration::from_millis(5)).await;
///     assert!(hyper_rt::Timer.now() - begin >= Duration::from_millis(5));
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: has no counterpart.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timer;

impl rt::Timer for Timer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        self.sleep_until(deadline_in(duration))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(Sleep(sleep_until(deadline)))
    }

    fn now(&self) -> Instant {
        running::with(|running| running.map_or_else(Instant::now, EventLoop::time))
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn rt::Sleep>>, new_deadline: Instant) {
        match sleep.as_mut().downcast_mut_pin::<Sleep>() {
            Some(mut ours) => ours.0 = sleep_until(new_deadline),
            None => *sleep = self.sleep_until(new_deadline),
        }
    }
}

/// Counted from the call, as hyper means it.
fn deadline_in(delay: Duration) -> Instant {
    match running::require() {
        Ok(event_loop) => event_loop.deadline_in(delay),
        Err(_) => Instant::now().checked_add(delay).unwrap_or_else(Instant::now),
    }
}

/// A sleep that takes no cancellation.
struct Sleep(sleep::Sleep);

impl StdFuture for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll_without_cancel(cx)
    }
}

impl rt::Sleep for Sleep {}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Lets the running loop run what hyper has to run beside a connection: for the builders of HTTP/2.
///
/// Each future becomes a task of the loop, so it need not be `Send`, and a service may hold `Rc`. Nothing fails in
/// silence: a panic goes to the loop's exception handler with its task; so does a future that is given where no loop
/// runs, which is dropped.
///
/// `Threads:` may cross them; the tasks belong to the loop that runs where they are made.
///
/// # Examples
///
/// ```
/// use asyncio::hyper_rt;
/// use hyper::rt::Executor;
/// use std::{cell::Cell, rc::Rc, time::Duration};
///
/// asyncio::run(async {
///     let seen = Rc::new(Cell::new(false));
///     let theirs = seen.clone();
///     hyper_rt::Executor.execute(async move { theirs.set(true) });
///     asyncio::sleep(Duration::ZERO).await?;
///     assert!(seen.get());
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: has no counterpart; `loop.create_task`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Executor;

impl<F> rt::Executor<F> for Executor
where
    F: StdFuture<Output = ()> + 'static,
{
    #[track_caller]
    fn execute(&self, future: F) {
        // The task goes on without its handle, and its panic is reported as one that nobody awaits.
        drop(create_task(async move {
            future.await;
            Ok(())
        }));
    }
}

impl rt::Read for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Cx<'_>, mut buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        self.poll_lend(buffer.remaining(), cx, |bytes| buffer.put_slice(bytes))
    }
}

impl rt::Write for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Cx<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(self, cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Cx<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write_vectored(self, cx, pieces)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(self, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<io::Result<()>> {
        self.poll_close(cx)
    }
}
