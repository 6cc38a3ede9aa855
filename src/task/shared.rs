//! Tasks awaited by many: each await gives a clone of the outcome.

use std::{
    fmt,
    future::{Future as StdFuture, IntoFuture},
    ops::Deref,
    pin::Pin,
    sync::Arc,
    task::{Context as Cx, Poll},
};

use crate::{
    error::Result,
    event_loop::{
        running,
        scope::{Leaf, Waiting},
        waiters::Place,
    },
    task::Task,
};

impl<'a, T: Clone + 'static> IntoFuture for &'a Task<T> {
    type Output = Result<T>;
    type IntoFuture = TaskOutcome<'a, T>;

    fn into_future(self) -> TaskOutcome<'a, T> {
        TaskOutcome { task: self, place: None, leaf: Leaf::new() }
    }
}

/// What `(&task).await` waits with: gives a clone of the outcome.
///
/// # Cancel safety
///
/// As [`Task`].
#[must_use = "nothing is waited for until it is awaited"]
pub struct TaskOutcome<'a, T> {
    task: &'a Task<T>,
    place: Option<Place>,
    leaf: Leaf,
}

/// Polls a task for one of several who wait.
fn poll_shared<T: Clone + 'static>(
    task: &Task<T>,
    place: &mut Option<Place>,
    leaf: &mut Leaf,
    cx: &mut Cx<'_>,
) -> Poll<Result<T>> {
    let running = running::current();
    if let Err(error) = task.task.check_wait(leaf, running.as_ref()) {
        leaf.resume();
        return Poll::Ready(Err(error));
    }
    if !task.task.is_done() && task.task.wait_in_list(place, cx) {
        let key = task.task.key();
        leaf.suspend_on(running.as_ref(), cx, || Waiting::Task(key));
        return Poll::Pending;
    }
    match task.look() {
        Some(outcome) => {
            *place = None;
            leaf.resume();
            Poll::Ready(outcome)
        }
        None => {
            // Done this instant, on another thread: the outcome comes within moments.
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    }
}

impl<T: Clone + 'static> StdFuture for TaskOutcome<'_, T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<T>> {
        let this = self.get_mut();
        poll_shared(this.task, &mut this.place, &mut this.leaf, cx)
    }
}

impl<T> Drop for TaskOutcome<'_, T> {
    fn drop(&mut self) {
        self.task.task.leave_list(&mut self.place);
    }
}

impl<T: fmt::Debug> fmt::Debug for TaskOutcome<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.task.fmt(f)
    }
}

/// A [`Task`] for many: each await gives a clone of the outcome. Clones are handles of one task.
///
/// Derefs to the task.
///
/// `Threads:` as [`Task`].
///
/// # Cancel safety
///
/// As [`Task`]: cancelling a task that waits cancels this one, for all who wait.
///
/// asyncio: any `asyncio.Task`.
pub struct SharedTask<T> {
    task: Arc<Task<T>>,
    place: Option<Place>,
    leaf: Leaf,
}

impl<T> SharedTask<T> {
    pub(super) fn new(task: Task<T>) -> Self {
        SharedTask { task: Arc::new(task), place: None, leaf: Leaf::new() }
    }
}

impl<T: Clone + 'static> StdFuture for SharedTask<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<T>> {
        let this = self.get_mut();
        poll_shared(&this.task, &mut this.place, &mut this.leaf, cx)
    }
}

impl<T> Clone for SharedTask<T> {
    fn clone(&self) -> Self {
        SharedTask { task: self.task.clone(), place: None, leaf: Leaf::new() }
    }
}

impl<T> Drop for SharedTask<T> {
    fn drop(&mut self) {
        self.task.task.leave_list(&mut self.place);
    }
}

impl<T: 'static> PartialEq for SharedTask<T> {
    /// Whether both are handles of one task.
    fn eq(&self, other: &Self) -> bool {
        *self.task == *other.task
    }
}

impl<T: 'static> Eq for SharedTask<T> {}

impl<T> Deref for SharedTask<T> {
    type Target = Task<T>;

    fn deref(&self) -> &Task<T> {
        &self.task
    }
}

impl<T: fmt::Debug> fmt::Debug for SharedTask<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.task.fmt(f)
    }
}
