//! Futures awaited by many: each await gives a clone of the value.

use std::{
    fmt,
    future::{Future as StdFuture, IntoFuture},
    ops::Deref,
    pin::Pin,
    task::{Context as Cx, Poll},
};

use crate::{
    error::Result,
    future::{Future, clone_outcome},
};

impl<T: Clone + 'static> IntoFuture for &Future<T> {
    type Output = Result<T>;
    type IntoFuture = SharedFuture<T>;

    fn into_future(self) -> SharedFuture<T> {
        self.clone().shared()
    }
}

/// A [`Future`] for many: each await gives a clone of the value.
///
/// Derefs to the future.
///
/// `Threads:` as [`Future`].
///
/// # Cancel safety
///
/// As [`Future`]: cancelling a task that waits cancels the future, for all who wait.
///
/// asyncio: any `asyncio.Future`.
pub struct SharedFuture<T: 'static> {
    future: Future<T>,
}

impl<T: 'static> SharedFuture<T> {
    pub(super) fn new(future: Future<T>) -> Self {
        SharedFuture { future }
    }
}

impl<T: Clone + 'static> StdFuture for SharedFuture<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<T>> {
        self.get_mut().future.poll_with(cx, |outcome| clone_outcome(outcome))
    }
}

impl<T: 'static> Clone for SharedFuture<T> {
    fn clone(&self) -> Self {
        SharedFuture { future: self.future.clone() }
    }
}

impl<T: 'static> Deref for SharedFuture<T> {
    type Target = Future<T>;

    fn deref(&self) -> &Future<T> {
        &self.future
    }
}

impl<T: fmt::Debug + 'static> fmt::Debug for SharedFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.future.fmt(f)
    }
}
