//! Waiting for some of several tasks and futures.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    fmt,
    future::{Future as StdFuture, IntoFuture},
    pin::Pin,
    rc::Rc,
    task::{Context as Cx, Poll, Waker},
    time::Duration,
};

use crate::{
    combine::child::{Waitable, Watch, Watched},
    error::{Error, Result},
    event_loop::{
        EventLoop,
        exceptions::check_loop,
        observers::{Member, Observer, ObserverKey},
        running,
        scope::Leaf,
        timers::TimerKey,
        turn::{Ready, TimerEntry},
        waiters::wake,
    },
};

/// When [`wait`] returns.
///
/// asyncio: the values of `return_when`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReturnWhen {
    /// When any of them has ended.
    FirstCompleted,
    /// When any of them has failed, or all have ended. A cancellation is no failure.
    FirstException,
    /// When all have ended.
    #[default]
    AllCompleted,
}

/// For [`Wait::return_when`].
///
/// asyncio: `asyncio.FIRST_COMPLETED`.
pub const FIRST_COMPLETED: ReturnWhen = ReturnWhen::FirstCompleted;
/// For [`Wait::return_when`].
///
/// asyncio: `asyncio.FIRST_EXCEPTION`.
pub const FIRST_EXCEPTION: ReturnWhen = ReturnWhen::FirstException;
/// For [`Wait::return_when`].
///
/// asyncio: `asyncio.ALL_COMPLETED`.
pub const ALL_COMPLETED: ReturnWhen = ReturnWhen::AllCompleted;

/// Waits for tasks and futures of one type, and gives those that are done and those that are not, each in the order of
/// the arguments.
///
/// Takes [`Task`](crate::Task), [`AnyTask`](crate::AnyTask), [`Future`](crate::Future), their shared forms, and references
/// to them. Neither the end of the wait nor its cancellation touches them. Their errors stay for whoever looks;
/// [`FIRST_EXCEPTION`] looks itself. The same one twice counts once. Tasks of different types are waited for as
/// [`AnyTask`](crate::AnyTask): `wait([a.any(), b.any()])`.
///
/// # Cancel safety
///
/// Dropping the wait drops what was given by value; pass references to keep it.
///
/// # Errors
///
/// [`Error::Value`] "Set of Tasks/Futures is empty.", and if one belongs to another loop; [`Error::Runtime`] without a
/// running loop. A timeout is no error.
///
/// # Examples
///
/// ```
/// use asyncio::{FIRST_COMPLETED, create_task, sleep, wait};
/// use std::time::Duration;
///
/// asyncio::run(async {
///     let tasks = [3600, 0].map(|seconds| create_task(async move { sleep(Duration::from_secs(seconds)).await }));
///     let (done, pending) = wait(&tasks).return_when(FIRST_COMPLETED).timeout(Duration::from_secs(60)).await?;
///     assert_eq!((done.len(), pending.len()), (1, 1));
///     assert!(done[0] == &tasks[1]);
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.wait`. Differs: gives vectors, in the order of the arguments.
pub fn wait<W: Waitable>(awaitables: impl IntoIterator<Item = W>) -> Wait<W> {
    Wait { awaitables: awaitables.into_iter().collect(), timeout: None, return_when: ReturnWhen::default() }
}

/// What [`wait`] gives: await it, after saying how long and for which.
///
/// asyncio: what `asyncio.wait` returns.
#[must_use = "nothing is waited for until it is awaited"]
pub struct Wait<W> {
    awaitables: Vec<W>,
    timeout: Option<Duration>,
    return_when: ReturnWhen,
}

impl<W: Waitable> Wait<W> {
    /// How long to wait at most, counted from the first poll; `None`, as it is without this, is without limit.
    ///
    /// asyncio: `asyncio.wait(timeout=..)`.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// For which to wait: [`ALL_COMPLETED`] without this.
    ///
    /// asyncio: `asyncio.wait(return_when=..)`.
    pub fn return_when(mut self, return_when: ReturnWhen) -> Self {
        self.return_when = return_when;
        self
    }
}

impl<W: Waitable> IntoFuture for Wait<W> {
    type Output = Result<(Vec<W>, Vec<W>)>;
    type IntoFuture = Waiting<W>;

    fn into_future(self) -> Waiting<W> {
        Waiting { wait: Some(self), watching: None, leaf: Leaf::new() }
    }
}

impl<W> fmt::Debug for Wait<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<wait for {} {:?} timeout={:?}>", self.awaitables.len(), self.return_when, self.timeout)
    }
}

/// What awaiting a [`Wait`] waits with.
///
/// # Cancel safety
///
/// As [`wait`].
///
/// asyncio: what `asyncio.wait` returns.
pub struct Waiting<W: Waitable> {
    /// Taken at the end.
    wait: Option<Wait<W>>,
    /// From the first poll to the end.
    watching: Option<Watching>,
    leaf: Leaf,
}

struct Watching {
    state: Rc<State>,
    loop_id: u64,
    key: ObserverKey,
    timer: Option<TimerKey>,
    watched: Vec<Watched>,
}

/// What the observer keeps: it does not know the members' type.
struct State {
    remaining: Cell<usize>,
    return_when: ReturnWhen,
    /// Set when the wait is over whatever the members' errors are; never cleared.
    over: Cell<bool>,
    /// Those that have ended and are to be looked at for an error.
    ended: RefCell<Vec<u32>>,
    waker: Cell<Option<Waker>>,
}

/// In the place of a member's index: the time is over.
const TIMEOUT: u32 = u32::MAX;

impl Observer for State {
    fn child_done(&self, _: &EventLoop, index: u32) {
        let mut wakes = true;
        if index == TIMEOUT {
            self.over.set(true);
        } else {
            self.remaining.set(self.remaining.get().saturating_sub(1));
            match self.return_when {
                _ if self.remaining.get() == 0 => self.over.set(true),
                ReturnWhen::FirstCompleted => self.over.set(true),
                ReturnWhen::FirstException => self.ended.borrow_mut().push(index),
                ReturnWhen::AllCompleted => wakes = false,
            }
        }
        if wakes {
            self.waker.take().into_iter().for_each(wake);
        }
    }
}

impl<W: Waitable> Waiting<W> {
    fn begin(wait: &mut Wait<W>, event_loop: &EventLoop) -> Result<Watching> {
        if wait.awaitables.is_empty() {
            return Err(Error::Value("Set of Tasks/Futures is empty.".into()));
        }
        wait.awaitables.iter().try_for_each(|awaitable| awaitable.check_loop(event_loop))?;
        let mut known = HashSet::with_capacity(wait.awaitables.len());
        wait.awaitables.retain(|awaitable| known.insert(awaitable.identity()));
        let state = Rc::new(State {
            remaining: Cell::new(wait.awaitables.len()),
            return_when: wait.return_when,
            over: Cell::new(false),
            ended: RefCell::default(),
            waker: Cell::new(None),
        });
        let key = event_loop.add_observer(state.clone());
        let timer = wait.timeout.map(|timeout| {
            let member = Member { observer: key, index: TIMEOUT };
            event_loop.insert_timer(event_loop.deadline_in(timeout), TimerEntry::Child(member))
        });
        let mut watching = Watching { state, loop_id: event_loop.inner.shared.id, key, timer, watched: Vec::new() };
        for (index, awaitable) in wait.awaitables.iter().enumerate() {
            let member = watching.member(index);
            let watched = awaitable.observe(Watch(member));
            if watched.is_over() {
                event_loop.push(Ready::Child(member));
            }
            watching.watched.push(watched);
        }
        Ok(watching)
    }

    /// Whether the wait is over.
    fn is_over(wait: &Wait<W>, watching: &Watching) -> bool {
        if watching.state.over.get() {
            return true;
        }
        let ended = watching.state.ended.take();
        let failed = |index: &u32| {
            let error = wait.awaitables.get(*index as usize).and_then(Waitable::error);
            error.is_some_and(|error| !error.is_cancelled())
        };
        ended.iter().any(failed)
    }

    /// Lets the loop and the members forget the wait.
    fn end(&mut self) {
        let Some(watching) = self.watching.take() else { return };
        if let Some(wait) = &self.wait {
            for (index, (awaitable, watched)) in wait.awaitables.iter().zip(&watching.watched).enumerate() {
                if !watched.is_over() {
                    awaitable.unobserve(Watch(watching.member(index)), *watched);
                }
            }
        }
        if let Some(event_loop) = running::by_id(watching.loop_id) {
            let entry = watching.timer.and_then(|timer| event_loop.inner.timers.borrow_mut().remove(timer));
            drop(entry);
            event_loop.remove_observer(watching.key);
        }
    }
}

impl Watching {
    fn member(&self, index: usize) -> Member {
        Member { observer: self.key, index: u32::try_from(index).expect("fewer members than memory") }
    }
}

impl<W: Waitable> StdFuture for Waiting<W> {
    type Output = Result<(Vec<W>, Vec<W>)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(cancelled) = this.leaf.take_cancel() {
            this.end();
            return Poll::Ready(Err(Error::Cancelled(cancelled)));
        }
        let event_loop = running::require()?;
        let Some(wait) = &mut this.wait else {
            return Poll::Ready(Err(Error::InvalidState("the wait is over".into())));
        };
        let watching = match &mut this.watching {
            Some(watching) => {
                check_loop(watching.loop_id, Some(&event_loop))?;
                watching
            }
            None => this.watching.insert(Self::begin(wait, &event_loop)?),
        };
        if !Self::is_over(wait, watching) {
            let before = watching.state.waker.replace(Some(cx.waker().clone()));
            drop(before);
            this.leaf.suspend(Some(&event_loop), cx);
            return Poll::Pending;
        }
        this.leaf.resume();
        this.end();
        let awaitables = this.wait.take().map(|wait| wait.awaitables);
        let (done, pending) = awaitables.into_iter().flatten().partition(Waitable::is_done);
        Poll::Ready(Ok((done, pending)))
    }
}

impl<W: Waitable> Unpin for Waiting<W> {}

impl<W: Waitable> Drop for Waiting<W> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<W: Waitable> fmt::Debug for Waiting<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.wait {
            Some(wait) => wait.fmt(f),
            None => f.write_str("<wait that is over>"),
        }
    }
}
