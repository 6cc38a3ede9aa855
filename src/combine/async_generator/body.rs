//! The body of an async generator, without the type of its items; and the bodies that a loop has to close.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fmt,
    future::Future as StdFuture,
    mem,
    panic::Location,
    pin::Pin,
    ptr,
    rc::Rc,
    task::{Context as Cx, Poll, RawWakerVTable, Waker},
};

use crate::{
    error::{Cancelled, Canceller, Error, Result},
    event_loop::{
        EventLoop, exceptions::check_loop, meta::TaskKey, running, scope, slots, step::TaskRef, waiters::wake,
    },
    report,
};

pub(super) type BodyFuture = Pin<Box<dyn StdFuture<Output = Result<()>>>>;

/// What a body is told when its generator is closed.
pub(super) fn exit_reason() -> Cancelled {
    Cancelled::by(Canceller::AsyncGenerator, None)
}

pub(super) fn generator_exit() -> Error {
    Error::Cancelled(exit_reason())
}

pub(super) fn is_generator_exit(error: &Error) -> bool {
    matches!(error, Error::Cancelled(Cancelled { by: Some(Canceller::AsyncGenerator), .. }))
}

/// Polled by who iterates, or by one who closes it, in turn.
pub(super) struct Body {
    created: &'static Location<'static>,
    stage: Cell<Stage>,
    /// Empty while it is polled, and from its end on.
    future: RefCell<Option<BodyFuture>>,
    /// Set while the future is polled: the waker that it is polled with.
    polled_with: Cell<Option<(*const (), &'static RawWakerVTable)>>,
    /// Whether the body's last step has sent an item, and nobody has asked for the next one yet.
    at_send: Cell<bool>,
    /// Counts the items that were asked for after the first: a `send` is over when its turn is.
    turn: Cell<u64>,
    /// The wakers of sends that are polled with another one than the body.
    senders: RefCell<Vec<Waker>>,
    /// Set when the body was told that it has to end.
    told: Cell<bool>,
    /// Set by a `send` after that; never cleared.
    ignored: Cell<bool>,
    /// Whether somebody is closing the generator, who alone polls the body then.
    closer: Cell<bool>,
    /// Who awaits the next item: set by a poll that is pending, cleared by the next one.
    consumer: Cell<Option<TaskKey>>,
    /// Whether the body has received a cancellation of that one's, and has sent nothing since.
    received: Cell<bool>,
    /// For that one: the error that the body ended with under somebody else.
    left: RefCell<Option<Error>>,
    /// Who waits to close it.
    onlookers: RefCell<Vec<Waker>>,
}

#[derive(Clone, Copy)]
enum Stage {
    New,
    /// Begun in this loop, where it has this number.
    Open(u64, u64),
    Ended,
}

impl Body {
    pub(super) fn new(created: &'static Location<'static>) -> Rc<Self> {
        Rc::new(Body {
            created,
            stage: Cell::new(Stage::New),
            future: RefCell::default(),
            polled_with: Cell::new(None),
            at_send: Cell::new(false),
            turn: Cell::new(0),
            senders: RefCell::default(),
            told: Cell::new(false),
            ignored: Cell::new(false),
            closer: Cell::new(false),
            consumer: Cell::new(None),
            received: Cell::new(false),
            left: RefCell::default(),
            onlookers: RefCell::default(),
        })
    }

    /// Gives the body its code.
    pub(super) fn put(&self, future: BodyFuture) {
        self.future.replace(Some(future));
    }

    pub(super) fn created(&self) -> &'static Location<'static> {
        self.created
    }

    pub(super) fn is_new(&self) -> bool {
        matches!(self.stage.get(), Stage::New)
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.stage.get(), Stage::Ended)
    }

    /// Whether this is called by the body.
    pub(super) fn is_polled(&self) -> bool {
        self.polled_with.get().is_some()
    }

    pub(super) fn was_told(&self) -> bool {
        self.told.get()
    }

    pub(super) fn set_told(&self, told: bool) {
        self.told.set(told);
    }

    pub(super) fn is_at_send(&self) -> bool {
        self.at_send.get()
    }

    pub(super) fn turn(&self) -> u64 {
        self.turn.get()
    }

    pub(super) fn has_closer(&self) -> bool {
        self.closer.get()
    }

    /// The loop that it has begun in, if there still is one.
    pub(super) fn event_loop(&self) -> Option<EventLoop> {
        match self.stage.get() {
            Stage::Open(loop_id, _) => running::by_id(loop_id).filter(|event_loop| !event_loop.is_closed()),
            Stage::New | Stage::Ended => None,
        }
    }

    /// Whether the body may be polled in this loop; one that is new begins there.
    pub(super) fn begin_in(self: &Rc<Self>, event_loop: &EventLoop) -> Result<()> {
        match self.stage.get() {
            Stage::Open(loop_id, _) => check_loop(loop_id, Some(event_loop)),
            Stage::Ended => Ok(()),
            Stage::New => {
                event_loop.check_open()?;
                let open = OpenGenerators::of(event_loop);
                if open.shut_down.get() {
                    report::warning(&format!(
                        "asynchronous generator {self:?} was scheduled after loop.shutdown_asyncgens() call"
                    ));
                }
                self.stage.set(Stage::Open(event_loop.inner.shared.id, open.insert(self)));
                Ok(())
            }
        }
    }

    /// Polls the body for who iterates.
    pub(super) fn poll_for_item(&self, event_loop: &EventLoop, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        self.consumer.set(None);
        if self.at_send.replace(false) {
            self.turn.set(self.turn.get() + 1);
            self.wake_senders();
        }
        let before = scope::taken();
        let polled = self.poll(cx);
        if scope::taken() != before {
            self.received.set(true);
        }
        if polled.is_pending() {
            self.await_end(event_loop);
        }
        polled
    }

    /// The item that the body has sent was taken.
    pub(super) fn hand_over(&self) {
        self.consumer.set(None);
        self.received.set(false);
        self.at_send.set(true);
        self.tell_onlookers();
    }

    /// The task that polls waits for the body.
    pub(super) fn await_end(&self, event_loop: &EventLoop) {
        self.consumer.set(event_loop.with_current(|task| task.key()));
    }

    /// The task that waits for the body, if it is not done.
    pub(super) fn consumer(&self, event_loop: &EventLoop) -> Option<TaskRef> {
        let key = self.consumer.get()?;
        event_loop.inner.tasks.borrow_mut().find(key)
    }

    /// Whether the body has received a cancellation of its consumer's, and so is in its clean-up.
    pub(super) fn has_received(&self) -> bool {
        self.received.get()
    }

    /// Nobody awaits an item.
    pub(super) fn forget_consumer(&self) {
        self.consumer.set(None);
        let left = self.left.take();
        drop(left);
    }

    pub(super) fn poll(&self, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        let Some(mut future) = self.future.take() else {
            return Poll::Ready(Err(Error::Runtime("asynchronous generator is already running".into())));
        };
        let polling = Polling::begin(self, cx.waker());
        let polled = future.as_mut().poll(cx);
        polling.end();
        if polled.is_pending() && !self.ignored.get() && !self.has_ended() {
            self.future.replace(Some(future));
            return Poll::Pending;
        }
        let outcome = match polled {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => Err(Error::Runtime("async generator ignored GeneratorExit".into())),
        };
        self.end(outcome.as_ref().err());
        drop(future);
        Poll::Ready(outcome)
    }

    /// Drops the body where it is; who awaits an item gets this error.
    pub(super) fn discard(&self, error: Option<&Error>) {
        let future = self.future.take();
        self.end(error);
        drop(future);
    }

    /// The error, once, that it ended with while somebody else than its consumer polled it.
    pub(super) fn take_left(&self) -> Option<Error> {
        self.left.take()
    }

    /// Whether there is nothing more to come.
    pub(super) fn is_exhausted(&self) -> bool {
        self.has_ended() && self.left.borrow().is_none()
    }

    fn end(&self, error: Option<&Error>) {
        let Stage::Open(loop_id, number) = self.stage.replace(Stage::Ended) else { return };
        drop(self.senders.take());
        if let Some(event_loop) = running::by_id(loop_id) {
            OpenGenerators::remove(&event_loop, number);
            if let Some(consumer) = self.consumer(&event_loop) {
                // Or it would take what there was for all.
                self.left.replace(error.cloned());
                consumer.wake_all();
            }
        }
        self.tell_onlookers();
    }

    /// What the next step of a `send` waits for.
    pub(super) fn await_turn(&self, waker: &Waker) {
        let with = self.polled_with.get();
        if with.is_some_and(|(data, vtable)| data == waker.data() && ptr::eq(vtable, waker.vtable())) {
            return; // polled again with the body
        }
        add(&self.senders, waker);
    }

    fn wake_senders(&self) {
        self.senders.take().into_iter().for_each(wake);
    }

    /// The outcome of an item that is sent when the body has been told to end.
    pub(super) fn refuse_item(&self) -> Poll<Result<()>> {
        // Where it has not heard of it yet, it does so here.
        if let Some(reason) = running::current().and_then(|event_loop| event_loop.take_current_mark()) {
            return Poll::Ready(Err(Error::Cancelled(reason)));
        }
        self.ignored.set(true);
        Poll::Pending
    }

    /// Lets the caller be the only one who polls, until [`leave`](Self::leave).
    pub(super) fn take_over(&self) {
        self.closer.set(true);
        if self.at_send.replace(false) {
            self.wake_senders();
        }
    }

    /// Lets others go on, if it has not ended.
    pub(super) fn leave(&self) {
        self.closer.set(false);
        if self.has_ended() {
            return;
        }
        if let Some(consumer) = self.event_loop().and_then(|event_loop| self.consumer(&event_loop)) {
            consumer.wake_all();
        }
        self.tell_onlookers();
    }

    /// Lets `waker` hear of it when the body has ended, or may have come free.
    pub(super) fn watch(&self, waker: &Waker) {
        add(&self.onlookers, waker);
    }

    pub(super) fn tell_onlookers(&self) {
        self.onlookers.take().into_iter().for_each(wake);
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.stage.get() {
            Stage::New => "new",
            Stage::Open(..) if self.closer.get() => "closing",
            Stage::Open(..) if self.is_polled() => "running",
            Stage::Open(..) => "suspended",
            Stage::Ended => "ended",
        };
        write!(f, "<AsyncGenerator {state} created at {}>", self.created)
    }
}

/// Once each.
fn add(wakers: &RefCell<Vec<Waker>>, waker: &Waker) {
    if !wakers.borrow().iter().any(|known| known.will_wake(waker)) {
        let waker = waker.clone();
        wakers.borrow_mut().push(waker);
    }
}

/// Says that the body is being polled; if that panics, it has ended.
struct Polling<'a> {
    body: &'a Body,
}

impl<'a> Polling<'a> {
    fn begin(body: &'a Body, waker: &Waker) -> Self {
        body.polled_with.set(Some((waker.data(), waker.vtable())));
        Polling { body }
    }

    fn end(self) {
        self.body.polled_with.set(None);
        mem::forget(self);
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.body.polled_with.set(None);
        self.body.end(None);
    }
}

/// The bodies of a loop that have begun and not ended, in the order in which they began. Kept in the loop's slots.
#[derive(Default)]
pub(super) struct OpenGenerators {
    bodies: RefCell<BTreeMap<u64, Rc<Body>>>,
    last: Cell<u64>,
    /// Set by shutdown_asyncgens(); never cleared.
    shut_down: Cell<bool>,
}

impl OpenGenerators {
    pub(super) fn of(event_loop: &EventLoop) -> Rc<Self> {
        event_loop.slots().get_or_init(slots::ASYNC_GENERATORS, Self::default)
    }

    fn insert(&self, body: &Rc<Body>) -> u64 {
        let number = self.last.get() + 1;
        self.last.set(number);
        self.bodies.borrow_mut().insert(number, body.clone());
        number
    }

    fn remove(event_loop: &EventLoop, number: u64) {
        let Some(open) = event_loop.slots().get::<Self>(slots::ASYNC_GENERATORS) else { return };
        let body = open.bodies.borrow_mut().remove(&number);
        drop(body);
    }

    /// All that are open; from now on those that begin are too late.
    pub(super) fn shut_down(&self) -> Vec<Rc<Body>> {
        self.shut_down.set(true);
        self.bodies.borrow().values().cloned().collect()
    }
}

impl Drop for OpenGenerators {
    /// The loop is being closed: nobody can run a clean-up any more.
    fn drop(&mut self) {
        for body in self.bodies.take().into_values() {
            match running::current() {
                Some(event_loop) => event_loop.drop_guarded(|| body.discard(None)),
                None => body.discard(None),
            }
        }
    }
}
