//! How async generators are closed: by who has them, by the loop that finds them dropped, and all of them at the end.

use std::{
    future::Future as StdFuture,
    pin::Pin,
    rc::Rc,
    task::{Context as Cx, Poll, ready},
};

use crate::{
    combine::{
        async_generator::body::{Body, OpenGenerators, exit_reason, is_generator_exit},
        gather::gather,
        shielded::shielded,
    },
    error::{Error, Result},
    event_loop::{
        EventLoop,
        child_scope::{OwnedScope, Polled},
        exceptions::{ExceptionContext, check_loop},
        running,
        scope::Leaf,
        step::TaskRef,
        threadsafe::closed,
    },
    future::callbacks::CallbackToken,
};

/// Tells a body to end, and polls it until it has.
///
/// ```text
/// Waiting --nobody else closes it, nor is it about to end by itself--> Active --the body ends--> Over
/// ```
pub(super) struct Closing {
    body: Rc<Body>,
    /// Set by tell(): the body is polled by us alone.
    active: bool,
    /// Where the body is polled if what it awaits has to be cancelled.
    scope: Option<OwnedScope>,
    /// For whom all generators are closed: then one is left alone as long as the task that iterates it is being
    /// cancelled, for that ends the generator too.
    asker: Option<TaskRef>,
    /// That task, with a callback that lets us know of its end.
    watched: Option<(TaskRef, CallbackToken)>,
    leaf: Leaf,
}

impl Closing {
    pub(super) fn new(body: Rc<Body>) -> Self {
        Closing { body, active: false, scope: None, asker: None, watched: None, leaf: Leaf::new() }
    }

    fn patient(body: Rc<Body>, asker: Option<TaskRef>) -> Self {
        let mut closing = Closing::new(body);
        closing.asker = asker;
        closing
    }

    /// Waits until the body is ours, and tells it. Ready if there is nothing to do any more, or nothing to be done.
    fn begin(&mut self, event_loop: &EventLoop, cx: &Cx<'_>) -> Poll<Result<()>> {
        if self.body.is_polled() {
            return Poll::Ready(Err(already_running()));
        }
        if let Some(cancelled) = self.leaf.take_cancel() {
            return Poll::Ready(Err(Error::Cancelled(cancelled)));
        }
        if self.body.has_closer() || self.ends_by_itself(event_loop) {
            self.body.watch(cx.waker());
            self.leaf.suspend(Some(event_loop), cx);
            return Poll::Pending;
        }
        self.leaf.resume();
        self.unwatch();
        Poll::Ready(self.tell(event_loop))
    }

    /// Whether the body is about to take, or has taken, a cancellation of the task that iterates.
    fn ends_by_itself(&mut self, event_loop: &EventLoop) -> bool {
        let (Some(asker), Some(consumer)) = (&self.asker, self.body.consumer(event_loop)) else { return false };
        if consumer.is(asker) || consumer.awaits(asker) {
            // It waits for us, so that it has given the item up.
            self.body.forget_consumer();
            return false;
        }
        if !self.body.has_received() && !event_loop.is_told_soon(&consumer) {
            return false;
        }
        if self.watched.as_ref().is_none_or(|(watched, _)| !watched.is(&consumer)) {
            self.unwatch();
            let body = self.body.clone();
            let token = consumer.add_done_callback(move |_| body.tell_onlookers(), self.body.created());
            self.watched = Some((consumer, token));
        }
        true
    }

    fn unwatch(&mut self) {
        if let Some((task, token)) = self.watched.take() {
            task.remove_done_callback(&token);
        }
    }

    /// Takes the body over.
    fn tell(&mut self, event_loop: &EventLoop) -> Result<()> {
        // One who was given up has told it: then it is in the midst of its clean-up.
        if !self.body.was_told() && !self.body.is_at_send() {
            let outside = || Error::Runtime("an async generator should be closed inside a task".into());
            let scope = self.scope.insert(OwnedScope::open(event_loop).ok_or_else(outside)?);
            event_loop.cancel_scope(scope.key(), exit_reason());
        }
        self.body.set_told(true);
        self.body.take_over();
        self.active = true;
        Ok(())
    }

    fn poll_body(&mut self, event_loop: &EventLoop, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        let Some(scope) = &mut self.scope else { return self.body.poll(cx) };
        match scope.poll(event_loop, cx, |cx| self.body.poll(cx))? {
            Polled::Pending => Poll::Pending,
            Polled::Ready(outcome) => Poll::Ready(outcome),
            Polled::GivenUp(reason) => {
                let error = Error::Cancelled(reason);
                self.body.discard(Some(&error));
                Poll::Ready(Err(error))
            }
        }
    }
}

impl StdFuture for Closing {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        if this.body.is_new() {
            this.body.discard(None);
        }
        if this.body.has_ended() {
            this.leaf.resume();
            return Poll::Ready(Ok(()));
        }
        let event_loop = running::require()?;
        this.body.begin_in(&event_loop)?;
        if !this.active {
            ready!(this.begin(&event_loop, cx))?;
        }
        let outcome = ready!(this.poll_body(&event_loop, cx));
        this.scope = None;
        Poll::Ready(outcome.or_else(|error| if is_generator_exit(&error) { Ok(()) } else { Err(error) }))
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.unwatch();
        if !self.active {
            return;
        }
        if let (Some(scope), Some(event_loop)) = (&self.scope, self.body.event_loop()) {
            if scope.is_marked(&event_loop) {
                // It has not heard of it yet.
                self.body.set_told(false);
            }
        }
        self.scope = None;
        self.body.leave();
    }
}

/// The generator of this body was dropped.
pub(super) fn abandon(body: &Rc<Body>) {
    if body.has_ended() {
        return;
    }
    let Some(event_loop) = body.event_loop() else { return body.discard(None) };
    body.forget_consumer();
    if event_loop.is_running() {
        // Shielded: who cancels whatever tasks there are does not mean it. If somebody closes it already, this waits.
        let closing = shielded(Closing::new(body.clone()));
        let task = event_loop.make_plain_task(closing, body.created(), None);
        drop(task);
    }
    body.tell_onlookers();
}

impl EventLoop {
    /// Closes all async generators that have begun in this loop and not ended, side by side, and waits for their
    /// clean-ups.
    ///
    /// Errors of the clean-ups go to the exception handler. A generator that begins afterwards works, with a warning.
    /// One whose task is being cancelled ends by that, and is waited for.
    ///
    /// [`run`](crate::run) and [`Runner`](crate::Runner) do this by themselves.
    ///
    /// # Cancel safety
    ///
    /// A cancellation is passed on to the clean-ups that are under way. After a drop, another call goes on with them.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] if the loop is closed, [`Error::Value`] under another loop.
    ///
    /// # Examples
    ///
    /// ```
    /// use asyncio::async_generator;
    /// use futures::StreamExt;
    ///
    /// let event_loop = asyncio::new_event_loop()?;
    /// let mut numbers = async_generator(async |numbers| {
    ///     let sent = numbers.send(1).await;
    ///     println!("cleaning up");
    ///     sent
    /// });
    /// event_loop.run_until_complete(async { numbers.next().await.transpose() })?;
    /// event_loop.run_until_complete(event_loop.shutdown_asyncgens())?;
    /// event_loop.run_until_complete(async {
    ///     assert!(numbers.next().await.is_none());
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// At the end of a program that has no [`run`](crate::run), which does all this by itself:
    ///
    /// ```
    /// let event_loop = asyncio::new_event_loop()?;
    /// # event_loop.stop();
    /// let outcome = event_loop.run_forever();
    /// event_loop.run_until_complete(event_loop.shutdown_asyncgens())?;
    /// event_loop.close()?;
    /// outcome?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `loop.shutdown_asyncgens`.
    pub fn shutdown_asyncgens(&self) -> impl StdFuture<Output = Result<()>> + use<> {
        let id = self.inner.shared.id;
        async move {
            let event_loop = running::by_id(id).ok_or_else(closed)?;
            event_loop.check_open()?;
            check_loop(id, Some(&running::require()?))?;
            let bodies = OpenGenerators::of(&event_loop).shut_down();
            if bodies.is_empty() {
                return Ok(());
            }
            // One that calls this would wait for itself.
            let (running, bodies): (Vec<_>, Vec<_>) = bodies.into_iter().partition(|body| body.is_polled());
            for body in running {
                event_loop.call_exception_handler(&closing_failed(&body, already_running()));
            }
            let asker = event_loop.current_task_ref();
            drop(event_loop);
            let closings = bodies.iter().map(|body| Closing::patient(body.clone(), asker.clone()));
            let outcomes = gather(closings.collect::<Vec<_>>()).return_exceptions().await?;
            let event_loop = running::by_id(id).ok_or_else(closed)?;
            for (body, outcome) in bodies.iter().zip(outcomes) {
                match outcome {
                    Ok(()) | Err(Error::Cancelled(_)) => {}
                    Err(error) => event_loop.call_exception_handler(&closing_failed(body, error)),
                }
            }
            Ok(())
        }
    }
}

fn already_running() -> Error {
    Error::Runtime("aclose(): asynchronous generator is already running".into())
}

fn closing_failed(body: &Body, error: Error) -> ExceptionContext {
    let message = format!("an error occurred during closing of asynchronous generator {body:?}");
    let context = ExceptionContext::new(message).exception(error).extra("asyncgen", format!("{body:?}"));
    context.source_location(body.created())
}
