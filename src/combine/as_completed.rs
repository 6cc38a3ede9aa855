//! Results in the order in which they come.

use std::{
    cell::{Cell, RefCell},
    collections::{HashSet, VecDeque},
    fmt,
    future::{Future as StdFuture, IntoFuture},
    panic::Location,
    pin::Pin,
    rc::Rc,
    task::{Context as Cx, Poll},
    time::Duration,
};

use futures::{Stream, stream::FusedStream};

use crate::{
    combine::child::{Child, Waitable, Watch, Watched},
    error::{Error, Result},
    event_loop::{
        EventLoop,
        any_task::AnyTask,
        exceptions::check_loop,
        observers::{Member, Observer, ObserverKey},
        running,
        scope::Leaf,
        timers::TimerKey,
        turn::{Ready, TimerEntry},
        waiters::{Place, Waiter, Waiters, wake},
    },
    task::Task,
};

/// Awaits several things together and gives each when it has ended.
///
/// Tasks, futures and their shared forms are awaited as they are; anything else becomes a task. Everything starts at this
/// call. The same task or future twice counts once. There are two ways to iterate:
///
/// - as a `Stream`, whose items are those that have ended, in that order: awaiting one gives its result at once. The
///   timeout is an item of its own.
/// - in a `for` loop, whose items are futures: each gives the result of the next one that ends, or the timeout.
///
/// # Cancel safety
///
/// Cancelling the task that waits, and dropping a wait, touch nothing: iterate again to get the rest. In a `for` loop an
/// item that was given up counts as asked for; its result goes to the next one. Dropping the `AsCompleted` lets
/// everything go on.
///
/// # Errors
///
/// [`Error::Timeout`] for the first item after the timeout; [`Error::Value`] if one belongs to another loop;
/// [`Error::Runtime`] without a loop, be it a running one or the one that was set: each as the first item.
///
/// # Examples
///
/// ```
/// use asyncio::{as_completed, sleep};
/// use futures::StreamExt;
/// use std::time::Duration;
///
/// async fn after(millis: u64) -> asyncio::Result<u64> {
///     sleep(Duration::from_millis(millis)).await?;
///     Ok(millis)
/// }
///
/// asyncio::run(async {
///     let mut seen = Vec::new();
///     let mut completed = as_completed([2, 0].map(after));
///     while let Some(next) = completed.next().await {
///         seen.push(next?.await?);
///     }
///     for next in as_completed([4, 1].map(after)) {
///         seen.push(next.await?);
///     }
///     assert_eq!(seen, [0, 2, 1, 4]);
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.as_completed`. Differs: the timeout is a setter, to be called before the first item is asked for.
#[track_caller]
pub fn as_completed<T, F>(awaitables: impl IntoIterator<Item = F>) -> AsCompleted<T>
where
    T: 'static,
    F: IntoFuture<Output = Result<T>>,
    F::IntoFuture: 'static,
{
    let created = Location::caller();
    let state = Rc::new(State {
        loop_id: Cell::new(0),
        key: Cell::new(None),
        members: RefCell::default(),
        ended: RefCell::default(),
        waiters: RefCell::default(),
        left: Cell::new(0),
        todo: Cell::new(0),
        timer: Cell::new(None),
        timed_out: Cell::new(0),
        failed: RefCell::default(),
        faces: Cell::new(1),
    });
    match running::get_event_loop() {
        Ok(event_loop) => {
            state.loop_id.set(event_loop.inner.shared.id);
            let mut known = HashSet::new();
            let mut members = Vec::new();
            for awaitable in awaitables {
                let (child, _) = Child::new(&event_loop, awaitable, created);
                if known.insert(child.waitable().identity()) {
                    members.push(child);
                }
            }
            state.watch(&event_loop, members);
        }
        Err(error) => state.fail(error),
    }
    AsCompleted { state, leaf: Leaf::new(), place: None }
}

/// What [`as_completed`] gives: a `Stream`, and something to loop over.
///
/// `Threads:` bound to the loop's.
///
/// # Cancel safety
///
/// As [`as_completed`].
///
/// asyncio: what `asyncio.as_completed` returns.
#[must_use = "its items are the results"]
pub struct AsCompleted<T: 'static> {
    state: Rc<State<T>>,
    leaf: Leaf,
    place: Option<Place>,
}

struct State<T> {
    loop_id: Cell<u64>,
    key: Cell<Option<ObserverKey>>,
    /// Each is taken when it is given out.
    members: RefCell<Vec<Option<(Child<T>, Watched)>>>,
    /// The indices of those that have ended and were not given out.
    ended: RefCell<VecDeque<u32>>,
    /// Who waits for the next one, in order.
    waiters: RefCell<Waiters>,
    /// How many items have not been asked for.
    left: Cell<usize>,
    /// How many members have not ended.
    todo: Cell<usize>,
    timer: Cell<Option<TimerKey>>,
    /// How many waits end with a timeout: those for members that had not ended then.
    timed_out: Cell<usize>,
    /// What there is instead of items.
    failed: RefCell<Option<Error>>,
    /// How many iterate or wait for an item.
    faces: Cell<usize>,
}

/// In the place of a member's index: the time is over.
const TIMEOUT: u32 = u32::MAX;

impl<T: 'static> State<T> {
    fn fail(&self, error: Error) {
        self.left.set(1);
        self.failed.replace(Some(error));
    }

    fn watch(self: &Rc<Self>, event_loop: &EventLoop, members: Vec<Child<T>>) {
        let refused = members.iter().find_map(|member| member.waitable().check_loop(event_loop).err());
        if let Some(error) = refused {
            return self.fail(error);
        }
        self.left.set(members.len());
        self.todo.set(members.len());
        if members.is_empty() {
            return;
        }
        let observer = event_loop.add_observer(self.clone());
        self.key.set(Some(observer));
        let watched = members.into_iter().zip(0..).map(|(child, index)| {
            let member = Member { observer, index };
            let watched = child.waitable().observe(Watch(member));
            if watched.is_over() {
                event_loop.push(Ready::Child(member));
            }
            Some((child, watched))
        });
        self.members.replace(watched.collect());
    }

    fn set_timeout(&self, timeout: Option<Duration>) {
        let (Some(observer), Some(event_loop)) = (self.key.get(), running::by_id(self.loop_id.get())) else { return };
        let timer = timeout.map(|timeout| {
            let entry = TimerEntry::Child(Member { observer, index: TIMEOUT });
            event_loop.insert_timer(event_loop.deadline_in(timeout), entry)
        });
        if let Some(before) = self.timer.replace(timer) {
            let entry = event_loop.inner.timers.borrow_mut().remove(before);
            drop(entry);
        }
    }

    /// One less iterates or waits.
    fn drop_face(&self) {
        self.faces.set(self.faces.get() - 1);
        if self.faces.get() == 0 {
            self.unwatch();
        }
    }

    fn wake_one(&self) {
        let waiter = self.waiters.borrow_mut().pop();
        if let Some(Waiter::Waker(waker)) = waiter {
            wake(waker);
        }
    }

    /// The next one that has ended, as often as items were asked for.
    fn take_next(&self) -> Option<Result<Child<T>>> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        let index = self.ended.borrow_mut().pop_front();
        if let Some(index) = index {
            let member = self.members.borrow_mut().get_mut(index as usize).and_then(Option::take);
            return member.map(|(child, _)| Ok(child));
        }
        let timed_out = self.timed_out.get();
        if timed_out > 0 {
            self.timed_out.set(timed_out - 1);
            return Some(Err(Error::Timeout("timed out".into())));
        }
        None
    }

    /// Lets the loop and the members forget this.
    fn unwatch(&self) {
        let Some(observer) = self.key.take() else { return };
        for (member, index) in self.members.borrow().iter().zip(0..) {
            if let Some((child, watched)) = member {
                if !watched.is_over() {
                    child.waitable().unobserve(Watch(Member { observer, index }), *watched);
                }
            }
        }
        let Some(event_loop) = running::by_id(self.loop_id.get()) else { return };
        if let Some(timer) = self.timer.take() {
            let entry = event_loop.inner.timers.borrow_mut().remove(timer);
            drop(entry);
        }
        event_loop.remove_observer(observer);
    }

    /// Waits for the next one under a place in the line.
    fn poll_next(&self, leaf: &mut Leaf, place: &mut Option<Place>, cx: &Cx<'_>) -> Poll<Result<Child<T>>> {
        if let Some(cancelled) = leaf.take_cancel() {
            self.leave(place);
            leaf.resume();
            return Poll::Ready(Err(Error::Cancelled(cancelled)));
        }
        // Who stands in line waits for its turn; who comes takes what is there, as from asyncio's queue.
        if place.is_none_or(|place| !self.waiters.borrow().holds(place)) {
            if let Some(next) = self.take_next() {
                *place = None;
                leaf.resume();
                return Poll::Ready(next);
            }
        }
        let running = running::require()?;
        check_loop(self.loop_id.get(), Some(&running))?;
        let old = self.waiters.borrow_mut().register(place, cx.waker());
        drop(old);
        leaf.suspend(Some(&running), cx);
        Poll::Pending
    }

    /// Gives the place in the line up; who was woken passes that on.
    fn leave(&self, place: &mut Option<Place>) {
        let Some(place) = place.take() else { return };
        let waiter = self.waiters.borrow_mut().remove(place);
        if waiter.is_none() && (!self.ended.borrow().is_empty() || self.timed_out.get() > 0) {
            self.wake_one();
        }
    }
}

impl<T: 'static> Observer for State<T> {
    fn child_done(&self, _: &EventLoop, index: u32) {
        if index == TIMEOUT {
            self.timed_out.set(self.todo.take());
            self.unwatch();
            for _ in 0..self.timed_out.get() {
                self.wake_one();
            }
            return;
        }
        if self.todo.get() == 0 {
            return; // the timeout was here first
        }
        self.todo.set(self.todo.get() - 1);
        if let Some(Some((_, watched))) = self.members.borrow_mut().get_mut(index as usize) {
            *watched = Watched::NOT;
        }
        self.ended.borrow_mut().push_back(index);
        if self.todo.get() == 0 {
            self.unwatch();
        }
        self.wake_one();
    }
}

impl<T: 'static> AsCompleted<T> {
    /// How long to wait for all of them together, counted from this call: what has not ended then is given up, with
    /// [`Error::Timeout`], and goes on. `None`, as it is without this, is without limit.
    ///
    /// asyncio: `asyncio.as_completed(timeout=..)`.
    pub fn timeout(self, timeout: impl Into<Option<Duration>>) -> Self {
        self.state.set_timeout(timeout.into());
        self
    }

    /// Asks for one item more; false if there is none.
    fn ask(&self) -> bool {
        let left = self.state.left.get();
        self.state.left.set(left.saturating_sub(1));
        left > 0
    }
}

impl<T: 'static> Stream for AsCompleted<T> {
    type Item = Result<Completed<T>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.state.left.get() == 0 {
            return Poll::Ready(None);
        }
        let next = std::task::ready!(this.state.poll_next(&mut this.leaf, &mut this.place, cx));
        match &next {
            // A cancellation takes nothing away, so that iteration can go on.
            Err(Error::Cancelled(_)) => {}
            // What is left has timed out together.
            Err(_) => this.state.left.set(0),
            Ok(_) => _ = this.ask(),
        }
        Poll::Ready(Some(next.map(|child| Completed { child })))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.state.left.get()))
    }
}

impl<T: 'static> FusedStream for AsCompleted<T> {
    fn is_terminated(&self) -> bool {
        self.state.left.get() == 0
    }
}

impl<T: 'static> Unpin for AsCompleted<T> {}

impl<T: 'static> Drop for AsCompleted<T> {
    fn drop(&mut self) {
        self.state.leave(&mut self.place);
        self.state.drop_face();
    }
}

impl<T: 'static> fmt::Debug for AsCompleted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<AsCompleted left={}>", self.state.left.get())
    }
}

impl<T: 'static> IntoIterator for AsCompleted<T> {
    type Item = NextCompleted<T>;
    type IntoIter = CompletedIter<T>;

    fn into_iter(self) -> CompletedIter<T> {
        CompletedIter { completed: self }
    }
}

impl<'a, T: 'static> IntoIterator for &'a mut AsCompleted<T> {
    type Item = NextCompleted<T>;
    type IntoIter = CompletedIterMut<'a, T>;

    fn into_iter(self) -> CompletedIterMut<'a, T> {
        CompletedIterMut { completed: self }
    }
}

/// The plain iteration over an [`AsCompleted`]: as many items as there are members.
///
/// asyncio: the plain iteration over `asyncio.as_completed`.
#[derive(Debug)]
pub struct CompletedIter<T: 'static> {
    completed: AsCompleted<T>,
}

impl<T: 'static> Iterator for CompletedIter<T> {
    type Item = NextCompleted<T>;

    fn next(&mut self) -> Option<NextCompleted<T>> {
        NextCompleted::of(&self.completed)
    }
}

/// The plain iteration over an [`AsCompleted`] that is kept, to go on later.
///
/// asyncio: the plain iteration over `asyncio.as_completed`.
#[derive(Debug)]
pub struct CompletedIterMut<'a, T: 'static> {
    completed: &'a mut AsCompleted<T>,
}

impl<T: 'static> Iterator for CompletedIterMut<'_, T> {
    type Item = NextCompleted<T>;

    fn next(&mut self) -> Option<NextCompleted<T>> {
        NextCompleted::of(self.completed)
    }
}

/// Gives the result of the next one that ends.
///
/// # Cancel safety
///
/// Dropped before it is ready, it leaves that result to the others that wait.
///
/// asyncio: an item of the plain iteration over `asyncio.as_completed`.
#[must_use = "nothing is waited for until it is awaited"]
pub struct NextCompleted<T: 'static> {
    state: Rc<State<T>>,
    leaf: Leaf,
    place: Option<Place>,
}

impl<T: 'static> NextCompleted<T> {
    fn of(completed: &AsCompleted<T>) -> Option<Self> {
        completed.ask().then(|| {
            let state = completed.state.clone();
            state.faces.set(state.faces.get() + 1);
            NextCompleted { state, leaf: Leaf::new(), place: None }
        })
    }
}

impl<T: 'static> StdFuture for NextCompleted<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<T>> {
        let this = self.get_mut();
        let next = std::task::ready!(this.state.poll_next(&mut this.leaf, &mut this.place, cx));
        Poll::Ready(next.and_then(|mut child| child.take()))
    }
}

impl<T: 'static> Unpin for NextCompleted<T> {}

impl<T: 'static> Drop for NextCompleted<T> {
    fn drop(&mut self) {
        self.state.leave(&mut self.place);
        self.state.drop_face();
    }
}

impl<T: 'static> fmt::Debug for NextCompleted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<NextCompleted>")
    }
}

/// One that has ended: what was given to [`as_completed`], or the task that was made of it. Awaiting it gives its result
/// at once.
///
/// # Cancel safety
///
/// It never waits.
///
/// asyncio: an item of the asynchronous iteration over `asyncio.as_completed`.
#[must_use = "awaiting it gives its result"]
pub struct Completed<T: 'static> {
    child: Child<T>,
}

impl<T: 'static> Completed<T> {
    /// The task, if it is one and was not given in its shared form.
    ///
    /// asyncio: has no counterpart.
    pub fn task(&self) -> Option<&Task<T>> {
        self.child.task()
    }

    /// The task, if it is one and was not given in its shared form.
    ///
    /// asyncio: has no counterpart.
    pub fn into_task(self) -> Option<Task<T>> {
        self.child.into_task()
    }

    /// Whether this is a handle of that task or future.
    ///
    /// asyncio: `is`.
    pub fn is<W: Waitable>(&self, other: &W) -> bool {
        self.child.waitable().identity() == other.identity()
    }

    /// Whether it has ended: always.
    ///
    /// asyncio: `Future.done`.
    pub fn done(&self) -> bool {
        self.child.waitable().is_done()
    }
}

impl<T: 'static> PartialEq<AnyTask> for Completed<T> {
    fn eq(&self, other: &AnyTask) -> bool {
        self.is(other)
    }
}

impl<T: 'static> StdFuture for Completed<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, _: &mut Cx<'_>) -> Poll<Result<T>> {
        Poll::Ready(self.get_mut().child.take())
    }
}

impl<T: 'static> Unpin for Completed<T> {}

impl<T: 'static> fmt::Debug for Completed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<Completed>")
    }
}
