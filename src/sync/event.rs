//! A flag that tasks wait for.

use std::{
    fmt,
    future::Future as StdFuture,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context as Cx, Poll},
};

use crate::{
    error::{Error, Result},
    event_loop::scope::Leaf,
    sync::{
        locked, suspend,
        waiters::{Line, Place},
        wake_all,
    },
};

/// A flag that tasks wait for. Clones are handles of one event.
///
/// ```text
/// Unset --set--> Set --clear--> Unset
/// ```
///
/// [`set`](Self::set) wakes everybody who waits, in the order in which they came; they go on one iteration later, also
/// if the event was cleared meanwhile.
///
/// `Threads:` may cross them and be shared by them; the tasks that wait may belong to several loops.
///
/// # Examples
///
/// ```
/// asyncio::run(async {
///     let event = asyncio::Event::new();
///     let waits = event.clone();
///     let waiter = asyncio::create_task(async move { waits.wait().await });
///     event.set();
///     waiter.await?;
///     assert!(event.is_set());
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.Event`. Differs: bound to no loop.
#[derive(Clone, Default)]
pub struct Event {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Set by set(), cleared by clear().
    is_set: bool,
    line: Line,
}

impl Event {
    /// An event that is not set.
    ///
    /// asyncio: `asyncio.Event()`.
    pub fn new() -> Event {
        Event::default()
    }

    /// Sets the flag and wakes everybody who waits.
    ///
    /// asyncio: `Event.set`.
    pub fn set(&self) {
        let mut state = locked(&self.state);
        if state.is_set {
            return;
        }
        state.is_set = true;
        let woken = state.line.wake_all();
        drop(state);
        wake_all(woken);
    }

    /// Unsets the flag: who comes now waits for the next [`set`](Self::set).
    ///
    /// asyncio: `Event.clear`.
    pub fn clear(&self) {
        locked(&self.state).is_set = false;
    }

    /// Whether the flag is set.
    ///
    /// asyncio: `Event.is_set`.
    pub fn is_set(&self) -> bool {
        locked(&self.state).is_set
    }

    /// Waits until the flag is set, or has been set since the first poll; ready at once if it is.
    ///
    /// # Cancel safety
    ///
    /// Dropping the wait loses nothing. After a cancellation it can be polled again, to wait anew.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`] if the task is cancelled while it waits.
    ///
    /// asyncio: `Event.wait`. Differs: gives no `True`, which it always is.
    pub fn wait(&self) -> EventWait<'_> {
        EventWait { event: self, place: None, leaf: Leaf::new() }
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = locked(&self.state);
        let (is_set, waiting) = (state.is_set, state.line.waiting());
        drop(state);
        f.write_str(if is_set { "<Event set" } else { "<Event unset" })?;
        if waiting > 0 {
            write!(f, " waiters={waiting}")?;
        }
        f.write_str(">")
    }
}

/// What [`Event::wait`] gives.
///
/// `Threads:` may cross them and be shared by them.
///
/// # Cancel safety
///
/// Dropping it loses nothing.
///
/// asyncio: the coroutine `Event.wait`.
#[derive(Debug)]
#[must_use = "nothing is waited for until it is awaited"]
pub struct EventWait<'a> {
    event: &'a Event,
    place: Option<Place>,
    leaf: Leaf,
}

impl EventWait<'_> {
    fn leave(&mut self) {
        self.leaf.resume();
        let waker = self.place.take().and_then(|place| locked(&self.event.state).line.leave(place));
        drop(waker);
    }
}

impl StdFuture for EventWait<'_> {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        if let Some(cancelled) = this.leaf.take_cancel() {
            this.leave();
            return Poll::Ready(Err(Error::Cancelled(cancelled)));
        }
        let mut state = locked(&this.event.state);
        let old = match this.place {
            None if state.is_set => return Poll::Ready(Ok(())),
            None => {
                this.place = Some(state.line.push(cx.waker()));
                None
            }
            Some(place) if state.line.is_woken(place) => {
                this.place = None;
                let gone = state.line.leave(place);
                drop(state);
                drop(gone);
                this.leaf.resume();
                return Poll::Ready(Ok(()));
            }
            Some(place) => state.line.refresh(place, cx.waker()),
        };
        drop(state);
        drop(old);
        suspend(&mut this.leaf, cx);
        Poll::Pending
    }
}

impl Drop for EventWait<'_> {
    fn drop(&mut self) {
        if self.place.is_some() {
            self.leave();
        }
    }
}
