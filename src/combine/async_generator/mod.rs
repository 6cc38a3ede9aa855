//! Streams that are written as coroutines.

mod body;
mod closing;

use std::{
    cell::Cell,
    fmt,
    future::Future as StdFuture,
    mem,
    panic::Location,
    pin::Pin,
    rc::{Rc, Weak},
    task::{Context as Cx, Poll},
};

use futures::{Stream, stream::FusedStream};

use crate::{
    combine::async_generator::{
        body::{Body, generator_exit, is_generator_exit},
        closing::Closing,
    },
    error::{Error, Result},
    event_loop::{EventLoop, running, scope::Leaf},
};

/// A stream of what `body` sends: a coroutine that gives items on its way.
///
/// Nothing of `body` runs before the first item is asked for; then it runs as far as its next
/// [`send`](Yielder::send), whenever the stream is polled, inside the task that polls. If it ends with an error, that is
/// the last item.
///
/// # Examples
///
/// ```
/// use asyncio::{async_generator, sleep};
/// use futures::TryStreamExt;
/// use std::time::Duration;
///
/// asyncio::run(async {
///     let ticker = async_generator(async |ticker| {
///         for tick in 0..3 {
///             ticker.send(tick).await?;
///             sleep(Duration::from_millis(1)).await?;
///         }
///         Ok(())
///     });
///     assert_eq!(ticker.try_collect::<Vec<_>>().await?, [0, 1, 2]);
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// Clean-up, also with awaits, stands behind the `send` that may fail:
///
/// ```
/// use asyncio::{async_generator, sleep};
/// use futures::StreamExt;
/// use std::time::Duration;
///
/// asyncio::run(async {
///     let mut lines = async_generator(async |lines| {
///         let sent = lines.send("first").await; // fails when the generator is closed here
///         sleep(Duration::from_millis(1)).await?; // for example, telling a server
///         sent
///     });
///     assert_eq!(lines.next().await.transpose()?, Some("first"));
///     lines.aclose().await?;
///     assert!(lines.next().await.is_none());
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `async def` with `yield`.
#[track_caller]
pub fn async_generator<T: 'static>(body: impl AsyncFnOnce(Yielder<T>) -> Result<()> + 'static) -> AsyncGenerator<T> {
    let items = Rc::new(Cell::new(None));
    let state = Body::new(Location::caller());
    let yielder = Yielder { body: Rc::downgrade(&state), items: items.clone() };
    // In a block, so that not even a closure's own code runs before the first poll.
    state.put(Box::pin(async move { body(yielder).await }));
    AsyncGenerator { body: state, items, refused: false, leaf: Leaf::new() }
}

/// What [`async_generator`] gives: a stream that can be closed.
///
/// ```text
/// New --the first poll--> Open --the body ends, aclose, shutdown_asyncgens, the loop is closed--> Ended
///  `------aclose, drop------------------------------------------------------------------------------^
/// ```
///
/// Drop it anywhere. If the body has begun and the loop is running, the loop closes it in a task of its own, so that its
/// clean-up runs, and reports an error of that. If the loop does not run at that time, the next
/// [`shutdown_asyncgens`](EventLoop::shutdown_asyncgens) closes it. A loop that is closed drops what is left.
///
/// `Threads:` bound to the loop's.
///
/// # Cancel safety
///
/// What the body awaits while the stream is polled takes the cancellation of the task that polls. If a poll is given up,
/// because `next()` is dropped before its end, the body stays where it is, and the next poll goes on. A `timeout` around
/// an item cancels the body, which as a rule ends it: for a limit on idle times use `select!` with a `sleep`.
///
/// # Errors
///
/// Items are `Err` where the body fails; where somebody else closes the generator while an item is awaited, which is then
/// what the body ended with, [`Error::Cancelled`] as a rule; where it is polled outside of its loop, once: [`Error::Runtime`] if none runs,
/// [`Error::Value`] if another one does; and where the body polls its own stream, [`Error::Runtime`].
///
/// asyncio: an asynchronous generator. Differs: no `asend` and `athrow`.
pub struct AsyncGenerator<T> {
    body: Rc<Body>,
    /// An item on its way from `send` to the poll that brought it about.
    items: Rc<Cell<Option<T>>>,
    /// Set when a poll elsewhere than in its loop was answered with an error.
    refused: bool,
    /// Suspended while the stream is awaited: for a cancellation that the body can no longer take.
    leaf: Leaf,
}

impl<T> AsyncGenerator<T> {
    /// Ends the generator and waits for its clean-up.
    ///
    /// If the body has not begun, it is dropped. If it waits in [`send`](Yielder::send), that gives
    /// [`Error::Cancelled`]; if it waits elsewhere, because a poll was given up, what it awaits there is cancelled. Then
    /// the body runs to its end, its awaits included. On an ended generator this does nothing.
    ///
    /// # Cancel safety
    ///
    /// The clean-up takes the cancellation of the task that waits here. If the wait is dropped, the body stays where it
    /// is; another `aclose`, a drop of the generator or [`shutdown_asyncgens`](EventLoop::shutdown_asyncgens) goes on
    /// with it.
    ///
    /// # Errors
    ///
    /// That of the body, unless it is the cancellation; [`Error::Runtime`] "async generator ignored GeneratorExit" if the
    /// body sends another item, and if the generator is closed inside of its body or, where it does not wait in `send`,
    /// outside of a task; [`Error::Value`] under another loop than the one that it began with.
    ///
    /// asyncio: `agen.aclose`.
    pub async fn aclose(&mut self) -> Result<()> {
        self.body.forget_consumer();
        Closing::new(self.body.clone()).await
    }

    /// The loop that runs, if it is the one to poll in.
    fn enter(&self) -> Result<EventLoop> {
        let event_loop = running::require()?;
        self.body.begin_in(&event_loop)?;
        Ok(event_loop)
    }

    /// An error, but not for ever: who collects a stream would wait for its end.
    fn refuse(&mut self, error: Error) -> Option<Result<T>> {
        let again = mem::replace(&mut self.refused, true);
        (!again).then_some(Err(error))
    }

    /// The cancellation of the task, where the body does not take it because it has ended, or somebody else is ending it.
    fn take_cancel(&mut self) -> Option<Result<T>> {
        let cancelled = self.leaf.take_cancel()?;
        self.leaf.resume();
        self.body.forget_consumer();
        Some(Err(Error::Cancelled(cancelled)))
    }
}

impl<T> Stream for AsyncGenerator<T> {
    type Item = Result<T>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Option<Result<T>>> {
        let this = self.get_mut();
        if this.body.has_ended() {
            let cancelled = this.take_cancel();
            this.leaf.resume();
            return Poll::Ready(cancelled.or_else(|| this.body.take_left().map(Err)));
        }
        let event_loop = match this.enter() {
            Ok(event_loop) => event_loop,
            Err(error) => return Poll::Ready(this.refuse(error)),
        };
        this.refused = false;
        if this.body.is_polled() {
            let error = Error::Runtime("anext(): asynchronous generator is already running".into());
            return Poll::Ready(Some(Err(error)));
        }
        if this.body.has_closer() {
            if let Some(cancelled) = this.take_cancel() {
                return Poll::Ready(Some(cancelled));
            }
            this.leaf.suspend(Some(&event_loop), cx);
            this.body.await_end(&event_loop);
            return Poll::Pending;
        }
        // Before the body says what it waits for, which is what counts.
        this.leaf.suspend(Some(&event_loop), cx);
        let polled = this.body.poll_for_item(&event_loop, cx);
        let item = this.items.take();
        let given = match (polled, item) {
            (Poll::Pending, None) => return Poll::Pending,
            (Poll::Pending, Some(item)) => {
                this.body.hand_over();
                Some(Ok(item))
            }
            (Poll::Ready(Ok(())), _) => None,
            (Poll::Ready(Err(error)), _) if this.body.was_told() && is_generator_exit(&error) => None,
            (Poll::Ready(Err(error)), _) => Some(Err(error)),
        };
        this.leaf.resume();
        Poll::Ready(given)
    }
}

impl<T> FusedStream for AsyncGenerator<T> {
    fn is_terminated(&self) -> bool {
        self.body.is_exhausted()
    }
}

impl<T> Drop for AsyncGenerator<T> {
    fn drop(&mut self) {
        closing::abandon(&self.body);
    }
}

impl<T> fmt::Debug for AsyncGenerator<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.body.fmt(f)
    }
}

/// What the body of an [`async_generator`] gives its items to.
///
/// `Threads:` bound to the loop's.
///
/// asyncio: `yield`.
pub struct Yielder<T> {
    body: Weak<Body>,
    items: Rc<Cell<Option<T>>>,
}

impl<T> Yielder<T> {
    /// Gives `item` to who polls the generator, and waits until the next one is asked for.
    ///
    /// Several that are pending at once, as under `join!`, give their items one after the other.
    ///
    /// # Cancel safety
    ///
    /// An item that was not taken yet is withdrawn when the wait is dropped. A cancellation of the task is none of its
    /// business: the task awaits something else meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`], by [`Canceller::AsyncGenerator`](crate::Canceller::AsyncGenerator), if the generator is
    /// closed meanwhile: clean up and end; [`Error::Runtime`] outside of the generator's body.
    ///
    /// asyncio: `yield item`.
    pub fn send(&self, item: T) -> Sending<'_, T> {
        Sending { yielder: self, state: State::New(item) }
    }
}

impl<T> fmt::Debug for Yielder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<Yielder>")
    }
}

/// What [`Yielder::send`] gives.
///
/// ```text
/// New --poll--> Handed --the next item is asked for, the generator is closed--> Over
///  `----> Queued --^
/// ```
///
/// # Cancel safety
///
/// See [`Yielder::send`].
#[must_use = "nothing is sent until it is awaited"]
pub struct Sending<'a, T> {
    yielder: &'a Yielder<T>,
    state: State<T>,
}

enum State<T> {
    New(T),
    /// Behind another one.
    Queued(T),
    /// In the turn with this number.
    Handed(u64),
    Over,
}

impl<T> StdFuture for Sending<'_, T> {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        let Some(body) = this.yielder.body.upgrade().filter(|body| body.is_polled()) else {
            return Poll::Ready(Err(Error::Runtime("a Yielder is for the body of its generator".into())));
        };
        match mem::replace(&mut this.state, State::Over) {
            State::Over => return Poll::Ready(Err(Error::InvalidState("it was polled after its end".into()))),
            State::Handed(turn) if turn != body.turn() => return Poll::Ready(Ok(())),
            State::Handed(_) | State::Queued(_) if body.was_told() => return Poll::Ready(Err(generator_exit())),
            State::New(_) if body.was_told() => return body.refuse_item(),
            State::New(item) | State::Queued(item) => match this.yielder.items.take() {
                None => {
                    this.yielder.items.set(Some(item));
                    this.state = State::Handed(body.turn());
                }
                before => {
                    this.yielder.items.set(before);
                    this.state = State::Queued(item);
                }
            },
            handed @ State::Handed(_) => this.state = handed,
        }
        body.await_turn(cx.waker());
        Poll::Pending
    }
}

impl<T> Unpin for Sending<'_, T> {}

impl<T> Drop for Sending<'_, T> {
    fn drop(&mut self) {
        let State::Handed(turn) = self.state else { return };
        if self.yielder.body.upgrade().is_some_and(|body| body.turn() == turn) {
            // Empty if it was taken.
            drop(self.yielder.items.take());
        }
    }
}

impl<T> fmt::Debug for Sending<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::New(_) => "<Sending new>",
            State::Queued(_) | State::Handed(_) => "<Sending pending>",
            State::Over => "<Sending over>",
        })
    }
}
