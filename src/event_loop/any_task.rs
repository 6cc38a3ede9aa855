//! A task of any type, as loops and reports know it.

use std::{
    fmt,
    hash::{Hash, Hasher},
    marker::PhantomData,
    panic::Location,
    time::Duration,
};

use crate::{
    error::{Error, Result, Text},
    event_loop::{
        EventLoop, exceptions::never_retrieved_from_anywhere, meta::flag, running, scope::Leaf, step::TaskRef,
        waiters::Place,
    },
};

/// A task, its result's type forgotten: what `current_task`, `all_tasks`, done callbacks and reports give.
///
/// Awaiting it waits for the task's end and gives `Ok(())` or its error; that counts as a look at the error. Clones are
/// handles of one task, and equal.
///
/// `Threads:` bound to the loop's; a [`Task`](crate::Task) may cross them.
///
/// # Examples
///
/// ```
/// asyncio::run(async {
///     let task = asyncio::current_task()?.expect("a coroutine runs in a task");
///     assert!(asyncio::all_tasks()?.contains(&task));
///     assert!(!task.done());
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.Task`.
pub struct AnyTask {
    pub(crate) task: TaskRef,
    pub(crate) place: Option<Place>,
    pub(crate) leaf: Leaf,
    /// Not `Send`: what it gives of the task is bound to the loop.
    marker: PhantomData<*const ()>,
}

impl AnyTask {
    pub(crate) fn new(task: TaskRef) -> Self {
        task.add_handle();
        AnyTask { task, place: None, leaf: Leaf::new(), marker: PhantomData }
    }

    /// Cancels the task; see [`Task::cancel`](crate::Task::cancel).
    ///
    /// asyncio: `Task.cancel`.
    pub fn cancel(&self) -> bool {
        self.task.cancel(running::reason(&self.task.shared, None))
    }

    /// Cancels the task with a message; see [`Task::cancel_with`](crate::Task::cancel_with).
    ///
    /// asyncio: `Task.cancel(msg)`.
    pub fn cancel_with(&self, message: impl Into<Text>) -> bool {
        self.task.cancel(running::reason(&self.task.shared, Some(message.into())))
    }

    /// Cancels the task, and drops its coroutine if it has not ended after `grace`; see
    /// [`Task::cancel_with_grace`](crate::Task::cancel_with_grace).
    ///
    /// asyncio: has no counterpart.
    pub fn cancel_with_grace(&self, grace: Duration) -> bool {
        self.task.cancel_with_grace(running::reason(&self.task.shared, None), grace)
    }

    /// Takes one request to cancel back; see [`Task::uncancel`](crate::Task::uncancel).
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

    /// Whether the task has ended.
    ///
    /// asyncio: `Task.done`.
    pub fn done(&self) -> bool {
        self.task.is_done()
    }

    /// Whether the task has ended cancelled.
    ///
    /// asyncio: `Task.cancelled`.
    pub fn cancelled(&self) -> bool {
        self.task.has(flag::CANCELLED)
    }

    /// The error that the task ended with; see [`Task::exception`](crate::Task::exception).
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

    /// Gives the task another name.
    ///
    /// asyncio: `Task.set_name`.
    pub fn set_name(&self, name: impl Into<String>) {
        self.task.set_name(name.into());
    }

    /// The context that the task runs in, an empty one once it has ended.
    ///
    /// asyncio: `Task.get_context`.
    pub fn get_context(&self) -> crate::Context {
        self.task.context(running::local(&self.task.shared).as_ref())
    }

    /// The loop that the task belongs to.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] if every handle of the loop is gone.
    ///
    /// asyncio: `Task.get_loop`.
    pub fn get_loop(&self) -> Result<EventLoop> {
        running::local(&self.task.shared).ok_or_else(|| Error::Runtime("the event loop is gone".into()))
    }

    /// Where the task was created.
    pub fn source_location(&self) -> &'static Location<'static> {
        self.task.created
    }

    /// What tells this task from all others that exist.
    pub fn id(&self) -> usize {
        self.task.address()
    }
}

impl TaskRef {
    /// asyncio: `Task.exception`.
    pub(crate) fn look_at_exception(&self) -> Result<Option<Error>> {
        if !self.is_done() {
            return Err(Error::InvalidState("Exception is not set.".into()));
        }
        self.add(flag::SEEN);
        match self.error() {
            Some(Error::Cancelled(cancelled)) => Err(Error::Cancelled(cancelled)),
            other => Ok(other),
        }
    }

    /// A word for the task's state, for `Debug`.
    fn state(&self) -> &'static str {
        if self.has(flag::CANCELLED) {
            "cancelled"
        } else if self.is_done() {
            "finished"
        } else if self.cancelling() > 0 {
            "cancelling"
        } else {
            "pending"
        }
    }

    /// The part of `Debug` that all forms of a task share.
    pub(crate) fn describe(&self, f: &mut fmt::Formatter<'_>, result: Option<&dyn fmt::Debug>) -> fmt::Result {
        write!(f, "<Task {} name={:?}", self.state(), self.name())?;
        if let Some(result) = result {
            write!(f, " result={result:?}")?;
        }
        if let (true, Some(error)) = (self.has(flag::FAILED), self.error()) {
            write!(f, " exception={error:?}")?;
        }
        write!(f, " created at {}>", self.created)
    }

    /// Ends a handle: the last one reports an error that nobody looked at.
    pub(crate) fn end_handle(&self) {
        if self.drop_handle() {
            never_retrieved_from_anywhere(self.clone());
        }
    }
}

impl Clone for AnyTask {
    fn clone(&self) -> Self {
        AnyTask::new(self.task.clone())
    }
}

impl Drop for AnyTask {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            let waiter = self.task.with_waiters(|waiters| waiters.remove(place)).flatten();
            drop(waiter);
        }
        self.task.end_handle();
    }
}

impl PartialEq for AnyTask {
    fn eq(&self, other: &Self) -> bool {
        self.task.is(&other.task)
    }
}

impl Eq for AnyTask {}

impl Hash for AnyTask {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

impl fmt::Debug for AnyTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.task.describe(f, None)
    }
}
