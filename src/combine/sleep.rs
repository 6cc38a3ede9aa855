//! Waiting for a time to pass.

use std::{
    fmt,
    future::Future as StdFuture,
    pin::Pin,
    sync::Arc,
    task::{Context as Cx, Poll},
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    event_loop::{
        EventLoop, exceptions::check_loop, running, scope::Leaf, threadsafe::Shared, timers::TimerKey, turn::TimerEntry,
    },
};

/// Waits until `delay` has passed, counted from the first poll.
///
/// A delay of zero lets every other task and callback that is ready run once, and costs no timer. Never early; late by
/// whatever else the iteration runs. Needs a running loop; elsewhere it gives [`Error::Runtime`].
///
/// # Cancel safety
///
/// Dropping the wait loses nothing; its timer is removed at once. After a cancellation it can be polled again, to wait
/// for the rest.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, Instant};
///
/// asyncio::run(async {
///     let begin = Instant::now();
///     asyncio::sleep(Duration::from_millis(5)).await?;
///     assert!(begin.elapsed() >= Duration::from_millis(5));
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// The date, time and again:
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// async fn display_date(every: Duration) -> asyncio::Result<()> {
///     let event_loop = asyncio::get_running_loop()?;
///     let end_time = event_loop.time() + 5 * every;
///     loop {
///         println!("{:?}", SystemTime::now());
///         if event_loop.time() + every >= end_time {
///             return Ok(());
///         }
///         asyncio::sleep(every).await?;
///     }
/// }
///
/// asyncio::run(display_date(Duration::from_millis(2)))?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.sleep`. Differs: gives no value.
pub fn sleep(delay: Duration) -> Sleep {
    Sleep { end: End::In(delay), timer: None, leaf: Leaf::new() }
}

/// Waits until `deadline`, a time of the running loop's clock; if that is past, one iteration.
///
/// As [`sleep`] otherwise.
///
/// asyncio: has no counterpart; `loop.call_at` with a future.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { end: End::At(deadline), timer: None, leaf: Leaf::new() }
}

/// What [`sleep`] gives.
///
/// `Threads:` may cross them and be shared by them; it is polled under one loop.
///
/// # Cancel safety
///
/// Dropping it loses nothing.
#[must_use = "nothing is waited for until it is awaited"]
pub struct Sleep {
    end: End,
    /// Invariant: set while a timer of ours stands, or has fired and was not looked at.
    timer: Option<(Arc<Shared>, TimerKey)>,
    leaf: Leaf,
}

#[derive(Clone, Copy)]
enum End {
    In(Duration),
    At(Instant),
    /// A sleep of zero that has let the others run.
    Yielded,
}

impl Sleep {
    /// Polls without taking a cancellation of the task: for wrappers whose output has no room for one, such as hyper's
    /// timers.
    ///
    /// Without a running loop this never becomes ready.
    #[doc(hidden)]
    pub fn poll_without_cancel(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Ok(event_loop) = running::require() else { return Poll::Pending };
        match this.end {
            // A timer that is due at once needs no look at the clock: it fires in the next iteration.
            End::At(deadline) => {
                this.set_timer(&event_loop, deadline, cx);
                Poll::Pending
            }
            _ => this.poll_in(&event_loop, cx).map(drop),
        }
    }

    fn poll_in(&mut self, event_loop: &EventLoop, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        let Some((shared, key)) = &self.timer else { return self.begin(event_loop, cx) };
        if let Err(error) = check_loop(shared.id, Some(event_loop)) {
            return Poll::Ready(Err(error));
        }
        let mut timers = event_loop.inner.timers.borrow_mut();
        let Some(entry) = timers.get_mut(*key) else {
            drop(timers);
            self.timer = None;
            return Poll::Ready(Ok(()));
        };
        let old = match entry {
            TimerEntry::Waker(known) if !known.will_wake(cx.waker()) => {
                Some(std::mem::replace(known, cx.waker().clone()))
            }
            _ => None,
        };
        drop(timers);
        drop(old);
        Poll::Pending
    }

    /// The first half of a sleep of zero.
    fn begin_yield(&mut self, cx: &Cx<'_>) -> Poll<Result<()>> {
        let begun = running::with(|running| {
            let Some(event_loop) = running.filter(|event_loop| event_loop.inner.shared.in_its_process()) else {
                return false;
            };
            self.leaf.suspend(Some(event_loop), cx);
            true
        });
        if !begun {
            running::require()?;
        }
        self.end = End::Yielded;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn begin(&mut self, event_loop: &EventLoop, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        let deadline = match self.end {
            End::Yielded => return Poll::Ready(Ok(())),
            End::In(Duration::ZERO) => None,
            End::In(delay) => Some(event_loop.deadline_in(delay)),
            End::At(deadline) => Some(deadline).filter(|deadline| *deadline > event_loop.time()),
        };
        match deadline {
            Some(deadline) => self.set_timer(event_loop, deadline, cx),
            None => {
                self.end = End::Yielded;
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    fn set_timer(&mut self, event_loop: &EventLoop, deadline: Instant, cx: &mut Cx<'_>) {
        let key = event_loop.insert_timer(deadline, TimerEntry::Waker(cx.waker().clone()));
        self.timer = Some((event_loop.inner.shared.clone(), key));
        self.end = End::Yielded;
    }
}

impl StdFuture for Sleep {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        if let Some(cancelled) = this.leaf.take_cancel() {
            return Poll::Ready(Err(Error::Cancelled(cancelled)));
        }
        if let (End::Yielded, None) = (this.end, &this.timer) {
            this.leaf.resume();
            return Poll::Ready(Ok(()));
        }
        if let End::In(Duration::ZERO) = this.end {
            return this.begin_yield(cx);
        }
        let event_loop = running::require()?;
        let polled = this.poll_in(&event_loop, cx);
        if polled.is_ready() {
            this.leaf.resume();
        } else {
            this.leaf.suspend(Some(&event_loop), cx);
        }
        polled
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let Some((shared, key)) = self.timer.take() else { return };
        let remove = move |event_loop: &EventLoop| {
            let entry = event_loop.inner.timers.borrow_mut().remove(key);
            drop(entry);
        };
        match running::local(&shared) {
            Some(event_loop) => remove(&event_loop),
            None => drop(shared.push_call(remove)),
        }
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.timer, self.end) {
            (Some(_), _) => f.write_str("<Sleep waiting>"),
            (None, End::In(delay)) => write!(f, "<Sleep {delay:?}>"),
            (None, End::At(deadline)) => write!(f, "<Sleep until {deadline:?}>"),
            (None, End::Yielded) => f.write_str("<Sleep over>"),
        }
    }
}
