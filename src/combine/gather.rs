//! Several things awaited together, and all their results.

use std::{
    cell::{Cell, RefCell},
    fmt,
    future::{Future as StdFuture, IntoFuture},
    marker::PhantomData,
    panic::Location,
    pin::Pin,
    rc::Rc,
    task::{Context as Cx, Poll, Waker},
};

use crate::{
    combine::{
        child::{Waitable, Watch, Watched},
        gather_args::{Children, GatherArgs},
    },
    error::{Cancelled, Error, Result, Text},
    event_loop::{
        EventLoop,
        exceptions::{ExceptionContext, check_loop},
        meta::TaskKey,
        observers::{Member, Observer, ObserverKey},
        running,
        scope::{Leaf, Waiting},
        waiters::wake,
    },
    report,
};

/// Awaits several things together and gives their results in the order of the arguments: those of a tuple, of different
/// types, or of a vector or an array.
///
/// In `join!` and `select!` of the futures crate, which want futures, use [`start`](Gather::start). The same future twice
/// is given as [`shared`](crate::Future::shared) handles.
///
/// Tasks, futures and their shared forms are awaited as they are; anything else becomes a task, and so may not borrow
/// (what borrows goes to `try_join!` of the futures crate). Nothing starts before it is awaited or
/// [`start`](Gather::start)ed. The first error is given at once, and what has not ended goes on; with
/// [`return_exceptions`](Gather::return_exceptions) errors are results, and everything is waited for.
///
/// # Cancel safety
///
/// Cancelling the task that awaits cancels everything that has not ended, and waits for it. Dropping the wait cancels the
/// tasks that it made itself, and lets those that it was given go on. An error that it had and nobody took is reported.
///
/// # Errors
///
/// The first one of those that are awaited; [`Error::Value`] if one belongs to another loop; [`Error::Runtime`] without a
/// loop, be it a running one or the one that was set.
///
/// # Examples
///
/// ```
/// use asyncio::{gather, sleep};
/// use std::time::Duration;
///
/// async fn length(text: &'static str) -> asyncio::Result<usize> {
///     sleep(Duration::from_millis(1)).await?;
///     Ok(text.len())
/// }
///
/// asyncio::run(async {
///     let (number, text) = gather((length("abc"), async { Ok("d".to_string()) })).await?;
///     assert_eq!((number, text.as_str()), (3, "d"));
///
///     let lengths = gather(["", "a", "ab"].map(length)).await?; // or of a `Vec`, which gives a `Vec`
///     assert_eq!(lengths, [0, 1, 2]);
///
///     let failed = gather((length("a"), async { "x".parse::<u8>().map_err(asyncio::Error::other) }));
///     let (good, bad) = failed.return_exceptions().await?;
///     assert!(good.is_ok() && bad.is_err());
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.gather`. Differs: lazy until it is awaited or started.
#[track_caller]
pub fn gather<A: GatherArgs>(awaitables: A) -> Gather<A> {
    Gather { awaitables, created: Location::caller() }
}

/// What [`gather`] gives: await it, [`start`](Self::start) it, or ask for errors as results first.
///
/// asyncio: what `asyncio.gather` returns. Differs: lazy.
#[must_use = "nothing starts before it is awaited"]
pub struct Gather<A> {
    awaitables: A,
    created: &'static Location<'static>,
}

impl<A: GatherArgs> Gather<A> {
    /// Gives each outcome as a `Result`, and so waits for all.
    ///
    /// asyncio: `asyncio.gather(return_exceptions=True)`.
    pub fn return_exceptions(self) -> GatherResults<A> {
        GatherResults { gather: self }
    }

    /// Starts what is no task or future yet, and gives a handle to await or cancel all.
    ///
    /// asyncio: `asyncio.gather`.
    pub fn start(self) -> Gathering<A::Values> {
        begin::<A, Values>(self)
    }
}

impl<A: GatherArgs> IntoFuture for Gather<A> {
    type Output = Result<A::Values>;
    type IntoFuture = Gathering<A::Values>;

    fn into_future(self) -> Gathering<A::Values> {
        self.start()
    }
}

impl<A> fmt::Debug for Gather<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<gather created at {}>", self.created)
    }
}

/// What [`Gather::return_exceptions`] gives: await it, or [`start`](Self::start) it.
///
/// asyncio: what `asyncio.gather(return_exceptions=True)` returns. Differs: lazy.
#[must_use = "nothing starts before it is awaited"]
pub struct GatherResults<A> {
    gather: Gather<A>,
}

impl<A: GatherArgs> GatherResults<A> {
    /// As [`Gather::start`].
    ///
    /// asyncio: `asyncio.gather(return_exceptions=True)`.
    pub fn start(self) -> Gathering<A::Results> {
        begin::<A, Results>(self.gather)
    }
}

impl<A: GatherArgs> IntoFuture for GatherResults<A> {
    type Output = Result<A::Results>;
    type IntoFuture = Gathering<A::Results>;

    fn into_future(self) -> Gathering<A::Results> {
        self.start()
    }
}

impl<A> fmt::Debug for GatherResults<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.gather.fmt(f)
    }
}

/// Several things that are under way together; awaiting it gives all their results. See [`gather`].
///
/// `Threads:` bound to the loop's.
///
/// # Cancel safety
///
/// As [`gather`].
///
/// # Examples
///
/// ```
/// use asyncio::{gather, sleep};
/// use std::time::Duration;
///
/// asyncio::run(async {
///     let both = gather((sleep(Duration::MAX), sleep(Duration::MAX))).start();
///     sleep(Duration::ZERO).await?;
///     assert!(both.cancel());
///     assert!(both.await.unwrap_err().is_cancelled());
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: what `asyncio.gather` returns.
#[must_use = "dropping it cancels what it started"]
pub struct Gathering<V> {
    core: Rc<dyn Core<V>>,
    leaf: Leaf,
}

/// A gathering whose children's types are forgotten.
trait Core<V> {
    fn verdict(&self) -> Option<Verdict>;
    /// Notes a look at the error.
    fn see(&self);
    fn check_loop(&self, running: Option<&EventLoop>) -> Result<()>;
    fn set_waker(&self, waker: &Waker);
    fn collect(&self) -> Result<V>;
    fn cancel(&self, reason: &Cancelled) -> bool;
    /// Whether what is gathered waits for the task that polls, be it through others.
    fn is_awaited_by_members(&self) -> bool;
    fn loop_id(&self) -> u64;
    fn key(&self) -> Option<ObserverKey>;
    fn abandon(&self);
}

impl<V> Gathering<V> {
    /// Cancels everything that has not ended; true if anything took it. The gathering then ends as cancelled, once all
    /// have ended or the first has ended so.
    ///
    /// asyncio: `Future.cancel` of what `asyncio.gather` returns.
    pub fn cancel(&self) -> bool {
        self.cancel_as(None)
    }

    /// As [`cancel`](Self::cancel), with a message for those who are cancelled.
    ///
    /// asyncio: `Future.cancel(msg)`.
    pub fn cancel_with(&self, message: impl Into<Text>) -> bool {
        self.cancel_as(Some(message.into()))
    }

    fn cancel_as(&self, message: Option<Text>) -> bool {
        if self.done() {
            self.core.see();
        }
        self.core.cancel(&running::reason_in(self.core.loop_id(), message))
    }

    /// Whether everything has ended, or the first error is there.
    ///
    /// asyncio: `Future.done`.
    pub fn done(&self) -> bool {
        self.core.verdict().is_some()
    }

    /// Whether it was cancelled, or one of its members was, where that is an error.
    ///
    /// asyncio: `Future.cancelled`.
    pub fn cancelled(&self) -> bool {
        matches!(self.core.verdict(), Some(Verdict::Failed(Error::Cancelled(_))))
    }
}

impl<V> StdFuture for Gathering<V> {
    type Output = Result<V>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<V>> {
        let this = self.get_mut();
        if let Some(cancelled) = this.leaf.take_cancel() {
            // Not forwarded by `cancel()` because the task waits for several things: it is now.
            if this.core.is_awaited_by_members() || !this.core.cancel(&cancelled) {
                this.leaf.resume();
                return Poll::Ready(Err(Error::Cancelled(cancelled)));
            }
            this.leaf.pass_on();
        }
        match this.core.verdict() {
            None => {
                let running = running::current();
                this.core.check_loop(running.as_ref())?;
                this.core.set_waker(cx.waker());
                match this.core.key() {
                    Some(key) => this.leaf.suspend_on(running.as_ref(), cx, || Waiting::Observer(key)),
                    None => this.leaf.suspend(running.as_ref(), cx),
                }
                Poll::Pending
            }
            Some(Verdict::Failed(error)) => {
                this.leaf.resume();
                this.core.see();
                Poll::Ready(Err(error))
            }
            Some(Verdict::AllDone) => {
                this.leaf.resume();
                Poll::Ready(this.core.collect())
            }
        }
    }
}

impl<V> Drop for Gathering<V> {
    fn drop(&mut self) {
        self.core.abandon();
    }
}

impl<V> fmt::Debug for Gathering<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.core.verdict() {
            None => "pending",
            Some(Verdict::AllDone) => "finished",
            Some(Verdict::Failed(Error::Cancelled(_))) => "cancelled",
            Some(Verdict::Failed(_)) => "failed",
        };
        write!(f, "<Gathering {state}>")
    }
}

/// How a gathering has ended.
#[derive(Clone)]
enum Verdict {
    AllDone,
    Failed(Error),
}

/// What is collected, and whether errors are results.
trait Mode<C: Children>: 'static {
    type Output;
    const RETURN_EXCEPTIONS: bool;
    fn collect(children: C) -> Result<Self::Output>;
}

struct Values;

impl<C: Children> Mode<C> for Values {
    type Output = C::Values;
    const RETURN_EXCEPTIONS: bool = false;

    fn collect(children: C) -> Result<C::Values> {
        children.values()
    }
}

struct Results;

impl<C: Children> Mode<C> for Results {
    type Output = C::Results;
    const RETURN_EXCEPTIONS: bool = true;

    fn collect(children: C) -> Result<C::Results> {
        Ok(children.results())
    }
}

struct State<C, M> {
    loop_id: u64,
    created: &'static Location<'static>,
    key: Cell<Option<ObserverKey>>,
    /// Taken when the results are collected, or nobody wants them any more.
    children: RefCell<Option<C>>,
    /// How each child is watched, and whether its task was made here.
    entries: RefCell<Vec<(Watched, bool)>>,
    remaining: Cell<usize>,
    /// Set when a cancellation was taken by a child.
    cancelled: RefCell<Option<Cancelled>>,
    /// Set once.
    verdict: RefCell<Option<Verdict>>,
    /// The index of the child whose error the verdict is: who looks at one has looked at the other.
    failed: Cell<Option<usize>>,
    /// Set by a look at an error that is no child's.
    seen: Cell<bool>,
    /// Set while a cancellation is passed on.
    passing_on: Cell<bool>,
    /// In which round of cancellations the last one was passed on.
    last_round: Cell<Option<u64>>,
    waker: Cell<Option<Waker>>,
    mode: PhantomData<M>,
}

/// Starts what has to be started, and watches all.
fn begin<A: GatherArgs, M: Mode<A::Children>>(gather: Gather<A>) -> Gathering<M::Output> {
    let state = State {
        loop_id: 0,
        created: gather.created,
        key: Cell::new(None),
        children: RefCell::default(),
        entries: RefCell::default(),
        remaining: Cell::new(0),
        cancelled: RefCell::default(),
        verdict: RefCell::default(),
        failed: Cell::new(None),
        seen: Cell::new(false),
        passing_on: Cell::new(false),
        last_round: Cell::new(None),
        waker: Cell::new(None),
        mode: PhantomData::<M>,
    };
    let event_loop = match running::get_event_loop() {
        Ok(event_loop) => event_loop,
        Err(error) => {
            drop(gather);
            state.verdict.replace(Some(Verdict::Failed(error)));
            return Gathering { core: Rc::new(state), leaf: Leaf::new() };
        }
    };
    let mut made = Vec::new();
    let children = gather.awaitables.begin(&event_loop, gather.created, &mut made);
    let state = Rc::new(State { loop_id: event_loop.inner.shared.id, ..state });
    state.watch(&event_loop, children, made);
    Gathering { core: state, leaf: Leaf::new() }
}

impl<C: Children, M: Mode<C>> State<C, M> {
    fn watch(self: &Rc<Self>, event_loop: &EventLoop, children: C, made: Vec<bool>) {
        let mut refused = None;
        children.each(&mut |_, child| refused = refused.take().or(child.check_loop(event_loop).err()));
        let key = event_loop.add_observer(self.clone());
        self.key.set(Some(key));
        let mut done = Vec::new();
        let mut entries = Vec::with_capacity(made.len());
        children.each(&mut |index, child| {
            let watched = if refused.is_some() { Watched::NOT } else { child.observe(watch(key, index)) };
            if watched.is_over() {
                done.push(index);
            }
            entries.push((watched, made[index]));
        });
        self.remaining.set(entries.len());
        self.entries.replace(entries);
        self.children.replace(Some(children));
        if let Some(error) = refused {
            self.cancel_made();
            self.end(Verdict::Failed(error));
            return;
        }
        for index in done {
            self.note_done(index);
        }
        self.end_if_all_done();
    }

    fn note_done(&self, index: usize) {
        self.remaining.set(self.remaining.get().saturating_sub(1));
        if let Some(entry) = self.entries.borrow_mut().get_mut(index) {
            entry.0 = Watched::NOT;
        }
        if M::RETURN_EXCEPTIONS || self.verdict.borrow().is_some() {
            return;
        }
        let error = self.children.borrow().as_ref().and_then(|children| children.get(index)?.peek_error());
        if let Some(error) = error {
            self.failed.set(Some(index));
            self.end(Verdict::Failed(error));
        }
    }

    fn end_if_all_done(&self) {
        if self.remaining.get() > 0 || self.verdict.borrow().is_some() {
            return;
        }
        let cancelled = self.cancelled.take();
        self.end(cancelled.map_or(Verdict::AllDone, |cancelled| Verdict::Failed(Error::Cancelled(cancelled))));
    }

    fn end(&self, verdict: Verdict) {
        self.verdict.replace(Some(verdict));
        self.unwatch();
        if let Some(waker) = self.waker.take() {
            wake(waker);
        }
    }

    /// Lets the loop and the children forget the gathering.
    fn unwatch(&self) {
        let Some(key) = self.key.take() else { return };
        if let Some(children) = &*self.children.borrow() {
            for (index, entry) in self.entries.take().into_iter().enumerate() {
                if let (false, Some(child)) = (entry.0.is_over(), children.get(index)) {
                    child.unobserve(watch(key, index), entry.0);
                }
            }
        }
        if let Some(event_loop) = running::by_id(self.loop_id) {
            event_loop.remove_observer(key);
        }
    }

    /// Cancels what nobody else knows of.
    fn cancel_made(&self) {
        let reason = running::reason_in(self.loop_id, None);
        if let Some(children) = &*self.children.borrow() {
            for (index, entry) in self.entries.borrow().iter().enumerate() {
                if let (true, Some(child)) = (entry.1, children.get(index)) {
                    child.cancel_as(&reason);
                }
            }
        }
    }
}

impl<C, M> State<C, M> {
    /// Reports an error that is no child's and that nobody looked at; the others report themselves.
    fn report_unread(&self) {
        if self.seen.get() || self.failed.get().is_some() {
            return;
        }
        let Some(Verdict::Failed(error)) = self.verdict.take() else { return };
        if error.is_cancelled() {
            return;
        }
        let context = ExceptionContext::new("Gathering exception was never retrieved").exception(error);
        let context = context.source_location(self.created);
        match running::by_id(self.loop_id) {
            Some(event_loop) => event_loop.call_exception_handler(&context),
            None => report::error(&context.record()),
        }
    }
}

fn watch(observer: ObserverKey, index: usize) -> Watch {
    Watch(Member { observer, index: u32::try_from(index).expect("fewer members than memory") })
}

impl<C: Children, M: Mode<C>> Observer for State<C, M> {
    fn child_done(&self, _: &EventLoop, index: u32) {
        self.note_done(index as usize);
        self.end_if_all_done();
    }

    fn tasks(&self) -> Vec<TaskKey> {
        let mut tasks = Vec::new();
        if let Some(children) = &*self.children.borrow() {
            children.each(&mut |_, child| tasks.extend(child.task_name().map(|name| name.0)));
        }
        tasks
    }

    fn cancel(&self, reason: &Cancelled) -> bool {
        if self.verdict.borrow().is_some() {
            return false;
        }
        let round = running::by_id(self.loop_id).and_then(|event_loop| event_loop.cancellation_round());
        if self.passing_on.replace(true) || (round.is_some() && self.last_round.replace(round) == round) {
            return false; // what is gathered waits for this, be it through others
        }
        let mut taken = false;
        if let Some(children) = &*self.children.borrow() {
            children.each(&mut |_, child| taken |= child.cancel_as(reason));
        }
        self.passing_on.set(false);
        if taken {
            self.cancelled.replace(Some(reason.clone()));
        }
        taken
    }
}

impl<C: Children, M: Mode<C>> Core<M::Output> for State<C, M> {
    fn verdict(&self) -> Option<Verdict> {
        self.verdict.borrow().clone()
    }

    fn see(&self) {
        self.seen.set(true);
        if let (Some(index), Some(children)) = (self.failed.get(), &*self.children.borrow()) {
            let seen = children.get(index).and_then(Waitable::error);
            drop(seen);
        }
    }

    fn check_loop(&self, running: Option<&EventLoop>) -> Result<()> {
        check_loop(self.loop_id, running)
    }

    fn set_waker(&self, waker: &Waker) {
        let before = self.waker.replace(Some(waker.clone()));
        drop(before);
    }

    fn collect(&self) -> Result<M::Output> {
        let children = self.children.take();
        let taken = || Error::InvalidState("Result was already taken".into());
        M::collect(children.ok_or_else(taken)?)
    }

    fn cancel(&self, reason: &Cancelled) -> bool {
        Observer::cancel(self, reason)
    }

    fn is_awaited_by_members(&self) -> bool {
        let Some(event_loop) = running::by_id(self.loop_id) else { return false };
        let Some(current) = event_loop.current_task_ref() else { return false };
        let members = Observer::tasks(self).into_iter();
        let mut members = members.filter_map(|key| event_loop.inner.tasks.borrow_mut().find(key));
        members.any(|member| member.is(&current) || member.awaits(&current))
    }

    fn loop_id(&self) -> u64 {
        self.loop_id
    }

    fn key(&self) -> Option<ObserverKey> {
        self.key.get()
    }

    fn abandon(&self) {
        if self.verdict.borrow().is_none() {
            self.cancel_made();
        }
        self.unwatch();
        drop(self.waker.take());
        // A waker that it calls as it passes a cancellation on may drop it: then they go with the last reference.
        let children = self.children.try_borrow_mut().ok().and_then(|mut children| children.take());
        drop(children);
        self.report_unread();
    }
}
