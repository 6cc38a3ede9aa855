//! Tasks that live and end together.

use std::{
    cell::{Cell, RefCell},
    fmt,
    future::{Future as StdFuture, IntoFuture, poll_fn},
    panic::Location,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context as Cx, Poll, Waker},
    time::{Duration, Instant},
};

use crate::{
    combine::timeout::{Limit, poll_body},
    context::Context,
    error::{Cancelled, Canceller, Error, ExceptionGroup, Result, Text},
    event_loop::{
        EventLoop,
        child_scope::{OwnedScope, Polled, ScopeKey},
        exceptions::ExceptionContext,
        meta::TaskKey,
        observers::{Member, Observer, ObserverKey},
        running,
        scope::Leaf,
        timers::TimerKey,
        turn::{Ready, TimerEntry},
        waiters::wake,
    },
    task::{
        Task,
        request::{TaskRequest, homeless},
    },
};

/// Tasks that end before the block does that made them. Clones are handles of one group.
///
/// ```text
/// Open --a task or the body fails, cancel, the deadline--> Shutting down --the last task ends--> Finished
///   `----------the body has ended, and then the last task---------------------------------------^
/// ```
///
/// [`scope`](Self::scope) runs a block and then waits for every task that was made in the group, by the block or by other
/// tasks. When one fails, the others and the block are cancelled; when all have ended, all errors come out together, as
/// [`Error::Group`]. A task that is cancelled by itself is no failure. Dropping the scope's future cancels its tasks: what
/// they wait for is told, each has one more step, and what has not ended then is dropped.
///
/// `Threads:` bound to the loop's.
///
/// # Examples
///
/// ```
/// use asyncio::{Result, TaskGroup};
///
/// async fn length(text: &str) -> Result<usize> {
///     Ok(text.len())
/// }
///
/// asyncio::run(async {
///     let names = ["a".to_string(), "bc".to_string()];
///     let total = TaskGroup::scope(async |group| {
///         let mut tasks = Vec::new();
///         for name in names.clone() {
///             tasks.push(group.create_task(async move { length(&name).await }));
///         }
///         let mut total = 0;
///         for task in tasks {
///             total += task.await?;
///         }
///         Ok(total)
///     })
///     .await?;
///     assert_eq!(total, 3);
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// A group is entered where it is made, and once:
///
/// ```compile_fail
/// let group = asyncio::TaskGroup::new();
/// group.create_task(async { Ok(()) });
/// ```
///
/// ```compile_fail
/// async fn twice() -> asyncio::Result<()> {
///     asyncio::TaskGroup::scope(async |group| group.scope(async |_| Ok(())).await).await
/// }
/// ```
///
/// asyncio: `asyncio.TaskGroup`. Differs: `async with` is [`scope`](Self::scope).
#[derive(Clone)]
pub struct TaskGroup {
    group: Rc<Group>,
}

struct Group {
    loop_id: u64,
    /// Set when the group has been registered with the loop; cleared at its end.
    key: Cell<Option<ObserverKey>>,
    /// The body's.
    scope: ScopeKey,
    children: RefCell<slab::Slab<Child>>,
    errors: RefCell<Vec<Error>>,
    /// Set by who waits for the last child.
    waker: Cell<Option<Waker>>,
    /// How long what is cancelled may take to clean up.
    grace: Option<Duration>,
    deadline_timer: Cell<Option<TimerKey>>,
    /// The shortest so far.
    grace_timer: Cell<Option<(Instant, TimerKey)>>,
    /// Set when the body has ended; never cleared.
    exiting: Cell<bool>,
    /// Set when the children were cancelled; never cleared.
    aborting: Cell<bool>,
    /// Set when the deadline has passed; never cleared.
    expired: Cell<bool>,
    /// Set when the time to clean up is over; never cleared.
    killed: Cell<bool>,
    /// Set when nobody waits for children any more; never cleared.
    finished: Cell<bool>,
}

enum Child {
    /// Its task is being made.
    New,
    Running(TaskKey),
    /// It ended in this iteration, or in the one before.
    Ended(Option<Error>),
}

/// In the place of a child's index: the deadline has passed.
const DEADLINE: u32 = u32::MAX;
/// In the place of a child's index: the time to clean up is over.
const GRACE: u32 = u32::MAX - 1;

impl TaskGroup {
    /// Runs `body` and waits for every task of the group. `body` may borrow from where it stands.
    ///
    /// Gives what `body` gives, when all has ended well.
    ///
    /// # Cancel safety
    ///
    /// Cancelling the task that waits here cancels `body` and the tasks of the group, and waits for their ends; where errors
    /// come out instead, the next await is told of the cancellation. Dropping the future drops `body`; each task has one more
    /// step, and is dropped then.
    ///
    /// # Errors
    ///
    /// [`Error::Group`] "unhandled errors in a TaskGroup" with every error of a task, in the order in which they ended,
    /// and that of `body`; [`Error::Cancelled`] if the task was cancelled and nothing failed, or if `body` let a
    /// [`cancel`](Self::cancel) of the group out; [`Error::Runtime`] outside of a task.
    ///
    /// asyncio: `async with asyncio.TaskGroup()`.
    pub async fn scope<T>(body: impl AsyncFnOnce(&TaskGroup) -> Result<T>) -> Result<T> {
        TaskGroup::builder().scope(body).await
    }

    /// A group with a deadline.
    ///
    /// # Examples
    ///
    /// ```
    /// use asyncio::{ErrorKind, TaskGroup, sleep};
    /// use std::time::Duration;
    ///
    /// asyncio::run(async {
    ///     let outcome = TaskGroup::builder()
    ///         .timeout(Duration::from_millis(1))
    ///         .scope(async |group| {
    ///             group.create_task(async { sleep(Duration::from_secs(3600)).await });
    ///             Ok(())
    ///         })
    ///         .await;
    ///     assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Timeout);
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    pub fn builder() -> TaskGroupBuilder {
        TaskGroupBuilder { limit: Limit::Never, grace: None }
    }

    /// Lets the loop run `coroutine` as a task of the group; see [`create_task`](crate::create_task).
    ///
    /// Also from other tasks, and after the body has ended, as long as one task of the group has not. The task may be
    /// awaited or dropped: its error goes to the group. Where the group takes no tasks any more, the coroutine is dropped
    /// and the task is born failed with [`Error::Runtime`]: "is finished" after the end, "is shutting down" after
    /// something failed.
    ///
    /// asyncio: `TaskGroup.create_task`.
    #[track_caller]
    pub fn create_task<T, F>(&self, coroutine: F) -> Task<T>
    where
        T: 'static,
        F: IntoFuture<Output = Result<T>>,
        F::IntoFuture: 'static,
    {
        self.group.make_task(coroutine.into_future(), TaskRequest::default(), Location::caller())
    }

    /// A task of the group with a name, a context or an eager start: `group.task(coroutine).name("x").start()`.
    ///
    /// asyncio: `TaskGroup.create_task(coro, name=.., context=..)`.
    pub fn task<F>(&self, coroutine: F) -> GroupTaskBuilder<F> {
        GroupTaskBuilder { group: self.group.clone(), coroutine, request: TaskRequest::default() }
    }

    /// Cancels the tasks of the group and its body. The scope ends without an error, if nothing fails and the body does
    /// not let the cancellation out: where it does, the scope gives [`Error::Cancelled`], for there is no value.
    ///
    /// asyncio: `TaskGroup.cancel` (3.15).
    pub fn cancel(&self) {
        self.group.cancel(&Cancelled::by(Canceller::TaskGroup, None));
    }

    /// As [`cancel`](Self::cancel), with a message for whoever sees the cancellation.
    ///
    /// asyncio: `TaskGroup.cancel` (3.15). Differs: has a message.
    pub fn cancel_with(&self, message: impl Into<Text>) {
        self.group.cancel(&Cancelled::by(Canceller::TaskGroup, Some(message.into())));
    }

    /// Cancels as [`cancel`](Self::cancel) does; what has not cleaned up within `grace` is dropped where it waits.
    ///
    /// # Examples
    ///
    /// ```
    /// use asyncio::{TaskGroup, sleep};
    /// use std::time::Duration;
    ///
    /// asyncio::run(async {
    ///     TaskGroup::scope(async |group| {
    ///         group.create_task::<(), _>(async {
    ///             loop {
    ///                 let _ = sleep(Duration::from_secs(3600)).await; // does not listen
    ///             }
    ///         });
    ///         sleep(Duration::ZERO).await?;
    ///         group.cancel_with_grace(Duration::from_millis(1));
    ///         Ok(())
    ///     })
    ///     .await
    /// })?;
    /// # asyncio::ok(())
    /// ```
    pub fn cancel_with_grace(&self, grace: Duration) {
        self.group.cancel(&Cancelled::by(Canceller::TaskGroup, None));
        self.group.begin_grace(grace);
    }
}

/// What a group is made with, before it is entered.
///
/// asyncio: has no counterpart.
#[derive(Clone, Debug)]
#[must_use = "nothing runs before `scope`"]
pub struct TaskGroupBuilder {
    limit: Limit,
    grace: Option<Duration>,
}

impl TaskGroupBuilder {
    /// How long the body and the tasks may take, all in all: then they are cancelled, and the scope gives
    /// [`Error::Timeout`] unless something fails. `None` is without limit.
    ///
    /// asyncio: `async with asyncio.timeout(..), asyncio.TaskGroup()`.
    pub fn timeout(mut self, delay: impl Into<Option<Duration>>) -> Self {
        self.limit = delay.into().map_or(Limit::Never, Limit::In);
        self
    }

    /// As [`timeout`](Self::timeout), as a time of the loop's clock.
    ///
    /// asyncio: `async with asyncio.timeout_at(..), asyncio.TaskGroup()`.
    pub fn deadline(mut self, deadline: impl Into<Option<Instant>>) -> Self {
        self.limit = deadline.into().map_or(Limit::Never, Limit::At);
        self
    }

    /// How long what is cancelled, for whatever reason, may take to clean up; then it is dropped. `None`, as it is
    /// without this, is without limit.
    ///
    /// asyncio: has no counterpart.
    pub fn grace(mut self, grace: impl Into<Option<Duration>>) -> Self {
        self.grace = grace.into();
        self
    }

    /// Runs `body` in the group; see [`TaskGroup::scope`].
    ///
    /// # Cancel safety
    ///
    /// That of [`TaskGroup::scope`].
    ///
    /// # Errors
    ///
    /// Those of [`TaskGroup::scope`], and [`Error::Timeout`].
    ///
    /// asyncio: `async with asyncio.TaskGroup()`.
    pub async fn scope<T>(self, body: impl AsyncFnOnce(&TaskGroup) -> Result<T>) -> Result<T> {
        let event_loop = running::require()?;
        let outside = || Error::Runtime("TaskGroup cannot determine the parent task".into());
        let scope = OwnedScope::open(&event_loop).ok_or_else(outside)?;
        let mut entered = Entered::new(&event_loop, scope, &self);
        drop(event_loop);
        let group = TaskGroup { group: entered.group.clone() };
        let mut body = pin!(Some(body(&group)));
        let outcome = poll_fn(|cx| entered.poll_body(cx, body.as_mut())).await;
        body.set(None);
        entered.end_body(&outcome);
        poll_fn(|cx| entered.poll_children(cx)).await?;
        entered.settle(outcome)
    }
}

/// A group whose body runs, or whose tasks are waited for. Dropped before its end, it ends the tasks.
struct Entered {
    group: Rc<Group>,
    /// Open until the end.
    scope: Option<OwnedScope>,
    leaf: Leaf,
    /// The first cancellation from outside that left the body or came while the tasks were waited for.
    told: Option<Cancelled>,
}

impl Entered {
    fn new(event_loop: &EventLoop, scope: OwnedScope, builder: &TaskGroupBuilder) -> Self {
        let group = Rc::new(Group {
            loop_id: scope.loop_id(),
            key: Cell::new(None),
            scope: scope.key(),
            children: RefCell::default(),
            errors: RefCell::default(),
            waker: Cell::new(None),
            grace: builder.grace,
            deadline_timer: Cell::new(None),
            grace_timer: Cell::new(None),
            exiting: Cell::new(false),
            aborting: Cell::new(false),
            expired: Cell::new(false),
            killed: Cell::new(false),
            finished: Cell::new(false),
        });
        group.key.set(Some(event_loop.add_observer(group.clone())));
        if let Some(deadline) = builder.limit.deadline(event_loop) {
            group.deadline_timer.set(group.set_timer(event_loop, deadline, DEADLINE));
        }
        Entered { group, scope: Some(scope), leaf: Leaf::new(), told: None }
    }

    fn poll_body<T, F: StdFuture<Output = Result<T>>>(
        &mut self,
        cx: &mut Cx<'_>,
        body: Pin<&mut Option<F>>,
    ) -> Poll<Result<T>> {
        let event_loop = running::require()?;
        let Some(scope) = &mut self.scope else { return Poll::Ready(Err(Error::cancelled())) };
        Poll::Ready(match scope.poll(&event_loop, cx, |cx| poll_body(body, cx))? {
            Polled::Pending => return Poll::Pending,
            Polled::Ready(outcome) => outcome,
            Polled::GivenUp(reason) => Err(Error::Cancelled(reason)),
        })
    }

    /// From now on the children are waited for.
    fn end_body<T>(&mut self, outcome: &Result<T>) {
        self.group.exiting.set(true);
        let mut outside = false;
        if let (Some(scope), Some(event_loop)) = (&self.scope, running::by_id(self.group.loop_id)) {
            // What was meant for the body is not for the wait.
            scope.take_mark(&event_loop);
            outside = scope.is_asked_from_outside(&event_loop);
        }
        match outcome {
            Ok(_) => {}
            Err(Error::Cancelled(cancelled)) => {
                // Who asked for it and why goes on to the tasks.
                self.group.abort(cancelled);
                self.told = outside.then(|| cancelled.clone());
            }
            Err(_) => self.group.abort(&Cancelled::by(Canceller::TaskGroup, None)),
        }
    }

    /// Waits for the last child.
    fn poll_children(&mut self, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        let event_loop = running::require()?;
        let Entered { group, scope: Some(scope), leaf, told } = self else { return Poll::Ready(Ok(())) };
        let polled = scope.poll(&event_loop, cx, |cx| {
            if let Some(cancelled) = leaf.take_cancel() {
                group.abort(&cancelled);
                told.get_or_insert(cancelled);
            }
            if group.children.borrow().is_empty() {
                leaf.resume();
                return Poll::Ready(());
            }
            let before = group.waker.replace(Some(cx.waker().clone()));
            drop(before);
            leaf.suspend(Some(&event_loop), cx);
            Poll::Pending
        })?;
        match polled {
            Polled::Ready(()) => Poll::Ready(Ok(())),
            // The wait takes every mark, so it is not given up.
            Polled::Pending | Polled::GivenUp(_) => Poll::Pending,
        }
    }

    /// Puts together what the scope gives.
    fn settle<T>(mut self, outcome: Result<T>) -> Result<T> {
        let event_loop = running::require()?;
        let Some(scope) = self.scope.take() else { return outcome };
        scope.close(&event_loop);
        self.group.finish(&event_loop);
        let mut errors = self.group.errors.take();
        let outcome = match outcome {
            Ok(value) => Ok(value),
            Err(Error::Cancelled(cancelled)) => Err(cancelled),
            Err(error) => {
                errors.push(error);
                Err(Cancelled::default())
            }
        };
        let told = self.told.take();
        if !errors.is_empty() {
            // Not forgotten because of the errors.
            event_loop.cancel_again(told.unwrap_or_default());
            return Err(Error::Group(ExceptionGroup::new("unhandled errors in a TaskGroup", errors)?));
        }
        match told {
            Some(cancelled) => Err(Error::Cancelled(cancelled)),
            None if self.group.expired.get() => Err(Error::Timeout("timed out".into())),
            None => outcome.map_err(Error::Cancelled),
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if self.group.finished.get() {
            return;
        }
        if let Some(event_loop) = running::by_id(self.group.loop_id) {
            self.group.abandon(&event_loop);
        }
        if let Some(cancelled) = self.told.take() {
            running::tell_again(cancelled);
        }
    }
}

impl Group {
    /// A timer of the group's own; at once if the time has come.
    fn set_timer(&self, event_loop: &EventLoop, deadline: Instant, index: u32) -> Option<TimerKey> {
        let member = Member { observer: self.key.get()?, index };
        if deadline <= event_loop.time() {
            event_loop.push(Ready::Child(member));
            return None;
        }
        Some(event_loop.insert_timer(deadline, TimerEntry::Child(member)))
    }

    fn make_task<T, F>(&self, coroutine: F, request: TaskRequest, created: &'static Location<'static>) -> Task<T>
    where
        T: 'static,
        F: StdFuture<Output = Result<T>> + 'static,
    {
        let Some(event_loop) = running::by_id(self.loop_id) else {
            drop(coroutine);
            return homeless(Error::Runtime("the task group's loop is gone".into()), created);
        };
        let refused = if self.finished.get() || (self.exiting.get() && self.children.borrow().is_empty()) {
            Some("finished")
        } else if self.aborting.get() {
            Some("shutting down")
        } else {
            None
        };
        let (None, Some(observer)) = (refused, self.key.get()) else {
            drop(coroutine);
            let error = Error::Runtime(format!("{self:?} is {}", refused.unwrap_or("finished")).into());
            return event_loop.born_failed(error, created, None);
        };
        let index = self.children.borrow_mut().insert(Child::New);
        let member = u32::try_from(index).ok().map(|index| Member { observer, index });
        let unmade = Unmade { group: self, index };
        let task = event_loop.make_member(coroutine, request, created, member);
        std::mem::forget(unmade);
        let key = task.task_ref().key();
        // Unless it has ended in the call.
        if let Some(child @ Child::New) = self.children.borrow_mut().get_mut(index) {
            *child = Child::Running(key);
        }
        // An eager first step may have ended the group: then nobody has told this one.
        if self.aborting.get() && !task.done() {
            task.task_ref().cancel(Cancelled::by(Canceller::TaskGroup, None));
            if self.finished.get() || self.killed.get() {
                event_loop.push(Ready::Kill(key));
            }
        }
        task
    }

    /// Tells who waits for the last child.
    fn wake_if_empty(&self) {
        if self.exiting.get() && self.children.borrow().is_empty() {
            self.waker.take().into_iter().for_each(wake);
        }
    }

    fn running_children(&self) -> Vec<TaskKey> {
        let children = self.children.borrow();
        let keys = children.iter().filter_map(|(_, child)| match child {
            Child::Running(key) => Some(*key),
            Child::New | Child::Ended(_) => None,
        });
        keys.collect()
    }

    /// Cancels the tasks. Once: a second call does nothing.
    fn abort(&self, reason: &Cancelled) {
        if self.aborting.replace(true) {
            return;
        }
        let Some(event_loop) = running::by_id(self.loop_id) else { return };
        for key in self.running_children() {
            let task = event_loop.inner.tasks.borrow_mut().find(key);
            task.into_iter().for_each(|task| _ = task.cancel(reason.clone()));
        }
        if let Some(grace) = self.grace {
            self.begin_grace(grace);
        }
    }

    /// Cancels the tasks and the body.
    fn cancel(&self, reason: &Cancelled) {
        if self.finished.get() {
            return;
        }
        self.abort(reason);
        self.cancel_body(reason);
    }

    fn cancel_body(&self, reason: &Cancelled) {
        if self.exiting.get() {
            return;
        }
        if let Some(event_loop) = running::by_id(self.loop_id) {
            event_loop.cancel_scope(self.scope, reason.clone());
        }
    }

    /// Lets what is left of the group be dropped after `grace`. The shortest of several counts.
    fn begin_grace(&self, grace: Duration) {
        let Some(event_loop) = running::by_id(self.loop_id).filter(|_| !self.finished.get()) else { return };
        let deadline = event_loop.deadline_in(grace);
        let before = self.grace_timer.get();
        if before.is_some_and(|before| before.0 <= deadline) {
            return;
        }
        let timer = self.set_timer(&event_loop, deadline, GRACE);
        self.grace_timer.set(timer.map(|timer| (deadline, timer)));
        if let Some((_, before)) = before {
            let entry = event_loop.inner.timers.borrow_mut().remove(before);
            drop(entry);
        }
    }

    /// Drops what is left of the group.
    fn kill(&self, event_loop: &EventLoop) {
        self.killed.set(true);
        for key in self.running_children() {
            event_loop.kill_task(key);
        }
        if !self.exiting.get() {
            event_loop.kill_scope(self.scope);
        }
    }

    /// Nobody waits any more: the tasks have one step to see that they are cancelled, and are dropped then.
    fn abandon(&self, event_loop: &EventLoop) {
        let children = self.running_children();
        self.abort(&Cancelled::by(Canceller::TaskGroup, None));
        self.finish(event_loop);
        for key in children {
            event_loop.push(Ready::Kill(key));
        }
        let mut errors = self.errors.take();
        let ended = self.children.take().into_iter().filter_map(|(_, child)| match child {
            Child::Ended(error) => error,
            Child::New | Child::Running(_) => None,
        });
        errors.extend(ended);
        if let Ok(group) = ExceptionGroup::new("unhandled errors in a TaskGroup", errors) {
            let context = ExceptionContext::new("A task group was dropped with errors").exception(Error::Group(group));
            event_loop.call_exception_handler(&context);
        }
    }

    /// Lets the loop forget the group.
    fn finish(&self, event_loop: &EventLoop) {
        self.finished.set(true);
        let grace_timer = self.grace_timer.take().map(|(_, timer)| timer);
        for timer in [self.deadline_timer.take(), grace_timer].into_iter().flatten() {
            let entry = event_loop.inner.timers.borrow_mut().remove(timer);
            drop(entry);
        }
        drop(self.waker.take());
        if let Some(key) = self.key.take() {
            event_loop.remove_observer(key);
        }
    }
}

/// A child's place, given back if its task is not made: a task factory may panic.
struct Unmade<'a> {
    group: &'a Group,
    index: usize,
}

impl Drop for Unmade<'_> {
    fn drop(&mut self) {
        let child = self.group.children.borrow_mut().try_remove(self.index);
        drop(child);
        self.group.wake_if_empty();
    }
}

impl Observer for Group {
    fn ended(&self, index: u32, error: Option<&Error>) -> bool {
        if let Some(child) = self.children.borrow_mut().get_mut(index as usize) {
            *child = Child::Ended(error.filter(|error| !error.is_cancelled()).cloned());
        }
        true
    }

    fn child_done(&self, event_loop: &EventLoop, index: u32) {
        match index {
            DEADLINE => {
                self.expired.set(true);
                self.cancel(&Cancelled::by(Canceller::Timeout, None));
                return;
            }
            GRACE => return self.kill(event_loop),
            _ => {}
        }
        let child = self.children.borrow_mut().try_remove(index as usize);
        if let Some(Child::Ended(Some(error))) = child {
            self.errors.borrow_mut().push(error);
            if !self.aborting.get() {
                let reason = Cancelled::by(Canceller::TaskGroup, None);
                self.abort(&reason);
                self.cancel_body(&reason);
            }
        }
        self.wake_if_empty();
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<TaskGroup tasks={} errors={}", self.children.borrow().len(), self.errors.borrow().len())?;
        let state = match (self.finished.get(), self.aborting.get()) {
            (true, _) => " finished",
            (false, true) => " cancelling",
            (false, false) => " entered",
        };
        write!(f, "{state}>")
    }
}

impl fmt::Debug for TaskGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.group.fmt(f)
    }
}

/// Makes a task of a group with more than [`TaskGroup::create_task`] takes; nothing is made before
/// [`start`](Self::start).
///
/// asyncio: the arguments of `TaskGroup.create_task`.
#[must_use = "no task is made before `start`"]
pub struct GroupTaskBuilder<F> {
    group: Rc<Group>,
    coroutine: F,
    request: TaskRequest,
}

impl<F> GroupTaskBuilder<F> {
    /// Gives the task a name.
    ///
    /// asyncio: `TaskGroup.create_task(name=..)`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.request.name(name);
        self
    }

    /// Lets the task run in `context` itself, not in a copy of the present one.
    ///
    /// asyncio: `TaskGroup.create_task(context=..)`.
    pub fn context(mut self, context: &Context) -> Self {
        self.request.context(context);
        self
    }

    /// Whether the first step runs at once, inside `start`.
    ///
    /// asyncio: `TaskGroup.create_task(eager_start=..)`.
    pub fn eager_start(mut self, eager: bool) -> Self {
        self.request.eager(eager);
        self
    }

    /// Makes the task.
    ///
    /// asyncio: `TaskGroup.create_task`.
    #[track_caller]
    pub fn start<T: 'static>(self) -> Task<T>
    where
        F: IntoFuture<Output = Result<T>>,
        F::IntoFuture: 'static,
    {
        self.group.make_task(self.coroutine.into_future(), self.request, Location::caller())
    }
}

impl<F> fmt::Debug for GroupTaskBuilder<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupTaskBuilder").field("group", &self.group).field("request", &self.request).finish()
    }
}
