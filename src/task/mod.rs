//! A coroutine that the loop runs, and the handle that awaits it.

pub(crate) mod request;
pub(crate) mod run;
pub(crate) mod shared;
pub(crate) mod threadsafe;

use std::{
    fmt,
    future::Future as StdFuture,
    mem,
    panic::Location,
    pin::Pin,
    sync::{Mutex, MutexGuard},
    task::{Context as Cx, Poll},
    time::Duration,
};

use crate::{
    context::Context,
    error::{Error, Result, Text},
    event_loop::{
        EventLoop,
        any_task::AnyTask,
        exceptions::{check_loop, other_thread},
        meta::{TaskMeta, flag},
        running,
        scope::{Leaf, Waiting},
        step::TaskRef,
        waiters::{Place, Waiter},
    },
    future::{
        already_taken,
        callbacks::{CallbackToken, add_callback},
    },
    task::shared::SharedTask,
};

/// A coroutine that the loop runs by itself; awaiting the task gives what the coroutine returns.
///
/// ```text
/// Pending --its coroutine returns, fails, panics, is cancelled--> Done --await of the task itself--> Taken
/// ```
///
/// The first step runs in the next iteration. Dropping the task detaches it: it goes on, and its failure is reported.
/// Awaiting the task moves the value out, once; awaiting a reference, `(&task).await`, clones it (`T: Clone`).
///
/// [`cancel`](Self::cancel) makes the await that the coroutine is suspended in return [`Error::Cancelled`], if it is one
/// of this crate's: the coroutine can clean up, swallow it, or let it out with `?`. If only foreign futures are pending,
/// nobody can take it, and the coroutine is dropped.
///
/// `Threads:` may cross them (`T: Send`), and may be read, cancelled and awaited on any, under any executor but another
/// running loop of this crate: hand that a `ThreadsafeFuture` from
/// [`run_coroutine_threadsafe`](crate::ThreadsafeLoop::run_coroutine_threadsafe).
///
/// # Cancel safety
///
/// Cancelling a task that awaits this one cancels this one and waits for its outcome. Dropping the wait does not.
///
/// # Errors
///
/// An await gives the coroutine's own error, [`Error::Cancelled`] or [`Error::Panicked`]; [`Error::Value`] while another
/// loop runs on this thread than the task's; [`Error::Runtime`] where a task awaits itself.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// asyncio::run(async {
///     let task = asyncio::create_task(async {
///         match asyncio::sleep(Duration::from_secs(3600)).await {
///             Err(asyncio::Error::Cancelled(_)) => Ok("cleaned up"),
///             other => other.map(|()| "slept"),
///         }
///     });
///     asyncio::sleep(Duration::ZERO).await?;
///     task.cancel();
///     assert_eq!(task.await?, "cleaned up");
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// A task's result is its coroutine's: nobody else can set it.
///
/// ```compile_fail
/// let event_loop = asyncio::new_event_loop().unwrap();
/// event_loop.create_task(async { Ok("ko") }).set_result("x");
/// ```
///
/// ```compile_fail
/// let event_loop = asyncio::new_event_loop().unwrap();
/// event_loop.create_task(async { Ok("ko") }).set_exception(asyncio::Error::cancelled());
/// ```
///
/// asyncio: `asyncio.Task`.
pub struct Task<T> {
    task: TaskRef,
    stage: Mutex<Stage<T>>,
    /// Where an await by value waits in the task's list, if it does not wait with async-task itself.
    place: Option<Place>,
    /// Whether it waits with async-task itself: it came before the list began.
    first: bool,
    leaf: Leaf,
}

/// Where the value is.
enum Stage<T> {
    Running(async_task::Task<Result<T>, TaskMeta>),
    Done(Result<T>),
    /// The value was moved out.
    Taken,
}

impl<T: 'static> Task<T> {
    pub(crate) fn new(task: TaskRef, outcome: async_task::Task<Result<T>, TaskMeta>) -> Self {
        Task { task, stage: Mutex::new(Stage::Running(outcome)), place: None, first: false, leaf: Leaf::new() }
    }

    /// Asks the task to end; true unless it is done.
    ///
    /// What the coroutine awaits is cancelled or returns [`Error::Cancelled`]; a task that has not begun never runs.
    /// One of the awaits that are pending takes it: under `join!` or in a `FuturesUnordered` the others go on, so use
    /// `try_join!`, or `?` on each item, which drops the rest; in `select!` bind the result and use `?`, for a pattern
    /// `Ok(value) =` swallows the cancellation. From another thread the request is queued to the loop. On a task that is done this counts as a look at its
    /// outcome.
    ///
    /// asyncio: `Task.cancel`.
    pub fn cancel(&self) -> bool {
        self.task.cancel(running::reason(&self.task.shared, None))
    }

    /// As [`cancel`](Self::cancel), with a message for whoever sees the cancellation.
    ///
    /// asyncio: `Task.cancel(msg)`.
    pub fn cancel_with(&self, message: impl Into<Text>) -> bool {
        self.task.cancel(running::reason(&self.task.shared, Some(message.into())))
    }

    /// Cancels the task, and drops its coroutine, wherever it waits, if it has not ended after `grace`; false if it was done.
    ///
    /// The coroutine sees the cancellation and has that long to clean up with awaits. With a grace of zero it has one step.
    /// A [`shielded`](crate::shielded) section is broken off, too. A coroutine that never waits cannot be dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// use asyncio::{create_task, sleep};
    /// use std::time::Duration;
    ///
    /// asyncio::run(async {
    ///     let task = create_task(async {
    ///         while sleep(Duration::from_secs(1)).await.is_err() {
    ///             println!("I do not listen");
    ///         }
    ///         sleep(Duration::MAX).await
    ///     });
    ///     sleep(Duration::ZERO).await?;
    ///     task.cancel_with_grace(Duration::from_millis(2));
    ///     assert!(task.await.unwrap_err().is_cancelled());
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: has no counterpart.
    pub fn cancel_with_grace(&self, grace: Duration) -> bool {
        self.task.cancel_with_grace(running::reason(&self.task.shared, None), grace)
    }

    /// Takes one request to cancel back and gives how many are left; at zero, on the loop's thread, a cancellation that
    /// the coroutine has not seen yet is withdrawn.
    ///
    /// asyncio: `Task.uncancel`.
    pub fn uncancel(&self) -> u32 {
        self.task.uncancel()
    }

    /// How many requests to cancel have not been taken back.
    ///
    /// asyncio: `Task.cancelling`.
    pub fn cancelling(&self) -> u32 {
        self.task.cancelling()
    }

    /// Whether the coroutine has ended.
    ///
    /// asyncio: `Task.done`.
    pub fn done(&self) -> bool {
        self.task.is_done()
    }

    /// Whether the coroutine has ended with [`Error::Cancelled`].
    ///
    /// asyncio: `Task.cancelled`.
    pub fn cancelled(&self) -> bool {
        self.task.has(flag::CANCELLED)
    }

    /// A copy of what the coroutine returned.
    ///
    /// # Errors
    ///
    /// The coroutine's own; [`Error::Panicked`] if it panicked; [`Error::InvalidState`] "Result is not set." while it
    /// runs, "Result was already taken" after the value was moved out.
    ///
    /// asyncio: `Task.result`.
    pub fn result(&self) -> Result<T>
    where
        T: Clone,
    {
        self.look().unwrap_or_else(|| Err(Error::InvalidState("Result is not set.".into())))
    }

    /// The error that the coroutine ended with, `None` if it returned a value.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`] if it was cancelled; [`Error::InvalidState`] "Exception is not set." while it runs.
    ///
    /// asyncio: `Task.exception`.
    pub fn exception(&self) -> Result<Option<Error>> {
        self.task.look_at_exception()
    }

    /// The task's name, "Task-N" unless one was given.
    ///
    /// asyncio: `Task.get_name`.
    pub fn get_name(&self) -> String {
        self.task.name()
    }

    /// Gives the task another name, at any time.
    ///
    /// asyncio: `Task.set_name`.
    pub fn set_name(&self, name: impl Into<String>) {
        self.task.set_name(name.into());
    }

    /// The context that the coroutine runs in. An empty one once it has ended; and unless the context was given or asked
    /// for before, also on another thread and while the coroutine is inside of another context's `run`.
    ///
    /// asyncio: `Task.get_context`.
    pub fn get_context(&self) -> Context {
        self.task.context(running::local(&self.task.shared).as_ref())
    }

    /// The loop that the task belongs to.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] on another thread, and if every handle of the loop is gone.
    ///
    /// asyncio: `Task.get_loop`.
    pub fn get_loop(&self) -> Result<EventLoop> {
        running::local(&self.task.shared).ok_or_else(|| other_thread("getting the loop of a task"))
    }

    /// The task with its type forgotten, to compare with and to keep.
    pub fn any(&self) -> AnyTask {
        AnyTask::new(self.task.clone())
    }

    /// Runs `callback` in the iteration after the task is done; if it is done, in the next one.
    ///
    /// As [`Future::add_done_callback`](crate::Future::add_done_callback).
    ///
    /// asyncio: `Task.add_done_callback`. Differs: gives a token to remove it by.
    #[track_caller]
    pub fn add_done_callback(&self, callback: impl FnOnce(&AnyTask) + 'static) -> CallbackToken {
        self.task.add_done_callback(callback, Location::caller())
    }

    /// Removes a done callback; false if it was scheduled or removed before.
    ///
    /// asyncio: `Task.remove_done_callback`. Differs: by token, so one at a time.
    pub fn remove_done_callback(&self, token: &CallbackToken) -> bool {
        self.task.remove_done_callback(token)
    }

    /// A form that is awaited as often as wanted, by many: each await gives a clone.
    pub fn shared(self) -> SharedTask<T>
    where
        T: Clone,
    {
        SharedTask::new(self)
    }

    pub(crate) fn task_ref(&self) -> &TaskRef {
        &self.task
    }

    fn lock(&self) -> MutexGuard<'_, Stage<T>> {
        self.stage.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A copy of the outcome, if there is one.
    fn look(&self) -> Option<Result<T>>
    where
        T: Clone,
    {
        let mut stage = self.lock();
        stage.settle();
        let outcome = match &*stage {
            Stage::Running(_) => return None,
            Stage::Done(outcome) => outcome.clone(),
            Stage::Taken => Err(already_taken()),
        };
        self.task.see();
        Some(outcome)
    }

    /// Moves the outcome out, or waits with async-task itself if `first`.
    fn take(&mut self, cx: &mut Cx<'_>) -> Poll<Result<T>> {
        let stage = self.stage.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        let outcome = match stage {
            Stage::Running(outcome) => std::task::ready!(Pin::new(outcome).poll(cx)),
            _ => match mem::replace(stage, Stage::Taken) {
                Stage::Done(outcome) => outcome,
                _ => return Poll::Ready(Err(already_taken())),
            },
        };
        // A failure stays for whoever asks again.
        *stage = match &outcome {
            Ok(_) => Stage::Taken,
            Err(error) => Stage::Done(Err(error.clone())),
        };
        Poll::Ready(outcome)
    }
}

impl<T> Stage<T> {
    /// Takes the outcome over from async-task, if it is there; not yet where the task is done this instant on another
    /// thread. Registers nobody: who waits there keeps its place.
    fn settle(&mut self) {
        let Stage::Running(outcome) = self else { return };
        if !outcome.is_finished() {
            return;
        }
        if let Poll::Ready(outcome) = Pin::new(outcome).poll(&mut Cx::from_waker(std::task::Waker::noop())) {
            *self = Stage::Done(outcome);
        }
    }
}

impl TaskRef {
    pub(crate) fn add_done_callback(
        &self,
        callback: impl FnOnce(&AnyTask) + 'static,
        created: &'static Location<'static>,
    ) -> CallbackToken {
        // A handle, so that the callback may look before an error counts as unread.
        let task = AnyTask::new(self.clone());
        let callback = move || callback(&task);
        add_callback(&self.shared, callback, created, |key| {
            self.with_waiters(|waiters| waiters.push(Waiter::Callback(key)))
        })
    }

    pub(crate) fn remove_done_callback(&self, token: &CallbackToken) -> bool {
        let Some(event_loop) = running::local(&self.shared) else { return false };
        let Some((place, key)) = token.entry_in(&self.shared) else { return false };
        if self.with_waiters(|waiters| waiters.remove_callback(place, key)) != Some(true) {
            return false;
        }
        let callback = event_loop.inner.callbacks.borrow_mut().remove(key);
        drop(callback);
        true
    }

    /// What every await of a task begins with: who may not wait, and who is cancelled meanwhile.
    fn check_wait(&self, leaf: &mut Leaf, running: Option<&EventLoop>) -> Result<()> {
        if let Some(cancelled) = leaf.take_cancel() {
            // Not forwarded by `cancel()` because the task waits for several things: it is now. Not to who waits for the
            // one that polls: tasks that wait for each other would hand it round for ever.
            let in_ring = running.and_then(EventLoop::current_task_ref).is_some_and(|current| self.awaits(&current));
            if in_ring || !self.cancel(cancelled.clone()) {
                return Err(Error::Cancelled(cancelled));
            }
            leaf.pass_on();
        }
        if self.is_done() {
            return Ok(());
        }
        check_loop(self.shared.id, running)?;
        if running.is_some_and(|event_loop| event_loop.is_current(self)) {
            return Err(Error::Runtime(
                format!("Task cannot await on itself: {:?}", AnyTask::new(self.clone())).into(),
            ));
        }
        Ok(())
    }

    /// Waits in the task's list; true unless the task is done.
    fn wait_in_list(&self, place: &mut Option<Place>, cx: &Cx<'_>) -> bool {
        let old = self.with_waiters(|waiters| waiters.register(place, cx.waker()));
        old.is_some()
    }

    fn leave_list(&self, place: &mut Option<Place>) {
        if let Some(place) = place.take() {
            let waiter = self.with_waiters(|waiters| waiters.remove(place)).flatten();
            drop(waiter);
        }
    }
}

impl<T: 'static> StdFuture for Task<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<T>> {
        let this = self.get_mut();
        if this.task.is_done() && this.leaf.is_fresh() {
            let polled = this.take(cx);
            if polled.is_ready() {
                this.task.see();
                return polled;
            }
        }
        let running = running::current();
        if let Err(error) = this.task.check_wait(&mut this.leaf, running.as_ref()) {
            this.leaf.resume();
            return Poll::Ready(Err(error));
        }
        if !this.task.is_done() {
            // Who comes after the first one, or after a callback, waits in the list, which keeps the order.
            let listed = this.place.is_some() || (!this.first && this.task.has(flag::LISTED));
            if listed && this.task.wait_in_list(&mut this.place, cx) {
                let key = this.task.key();
                this.leaf.suspend_on(running.as_ref(), cx, || Waiting::Task(key));
                return Poll::Pending;
            }
        }
        let polled = this.take(cx);
        if polled.is_ready() {
            this.task.see();
            this.place = None;
            this.leaf.resume();
            return polled;
        }
        this.first = true;
        if !this.task.has(flag::AWAITED) {
            this.task.add(flag::AWAITED);
        }
        let key = this.task.key();
        this.leaf.suspend_on(running.as_ref(), cx, || Waiting::Task(key));
        Poll::Pending
    }
}

impl<T> Unpin for Task<T> {}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        let stage = self.stage.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Stage::Running(outcome) = mem::replace(stage, Stage::Taken) {
            self.task.add(flag::DETACHED);
            outcome.detach();
        }
        self.task.leave_list(&mut self.place);
        self.task.end_handle();
    }
}

impl<T: fmt::Debug> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A value that holds its own task, printed inside itself, must not wait for the lock that printing holds.
        let Ok(mut stage) = self.stage.try_lock() else { return self.task.describe(f, None) };
        stage.settle();
        let result = match &*stage {
            Stage::Done(Ok(value)) => Some(value as &dyn fmt::Debug),
            _ => None,
        };
        self.task.describe(f, result)
    }
}

impl<T: 'static> PartialEq for Task<T> {
    /// Whether both are the same task: a task has one owner, so that this is for references.
    fn eq(&self, other: &Self) -> bool {
        self.task.is(&other.task)
    }
}

impl<T: 'static> Eq for Task<T> {}

impl<T: 'static> PartialEq<AnyTask> for Task<T> {
    fn eq(&self, other: &AnyTask) -> bool {
        self.task.is(&other.task)
    }
}

impl StdFuture for AnyTask {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        let running = running::current();
        if let Err(error) = this.task.check_wait(&mut this.leaf, running.as_ref()) {
            this.leaf.resume();
            return Poll::Ready(Err(error));
        }
        if !this.task.is_done() && this.task.wait_in_list(&mut this.place, cx) {
            let key = this.task.key();
            this.leaf.suspend_on(running.as_ref(), cx, || Waiting::Task(key));
            return Poll::Pending;
        }
        this.place = None;
        this.leaf.resume();
        Poll::Ready(match this.task.look_at_exception() {
            Ok(None) => Ok(()),
            Ok(Some(error)) | Err(error) => Err(error),
        })
    }
}

impl AnyTask {
    /// Runs `callback` in the iteration after the task is done; see [`Task::add_done_callback`].
    #[track_caller]
    pub fn add_done_callback(&self, callback: impl FnOnce(&AnyTask) + 'static) -> CallbackToken {
        self.task.add_done_callback(callback, Location::caller())
    }

    /// Removes a done callback; false if it was scheduled or removed before.
    pub fn remove_done_callback(&self, token: &CallbackToken) -> bool {
        self.task.remove_done_callback(token)
    }
}
