//! One of several that are awaited together: what can be observed without another task around it.

use std::{
    any::Any,
    fmt,
    future::{Future as StdFuture, IntoFuture},
    panic::Location,
    pin::Pin,
    task::{Context as Cx, Poll, Waker},
};

use pin_project_lite::pin_project;

use crate::{
    error::{Cancelled, Error, Result},
    event_loop::{
        EventLoop,
        any_task::AnyTask,
        exceptions::check_loop,
        meta::{TaskKey, flag},
        observers::{Member, Observed},
    },
    future::{Future, shared::SharedFuture},
    task::{Task, request::TaskRequest, shared::SharedTask},
};

/// A task or a future whose end can be waited for from outside.
///
/// asyncio: `asyncio.Future` and what is one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be waited for from outside",
    label = "neither a task nor a future of this crate: make it one with `create_task`"
)]
pub trait Waitable: Sealed {
    /// Whether it has ended.
    #[doc(hidden)]
    fn is_done(&self) -> bool;

    /// Lets an observer learn of the end, in the iteration after it.
    #[doc(hidden)]
    fn observe(&self, by: Watch) -> Watched;

    #[doc(hidden)]
    fn unobserve(&self, by: Watch, watched: Watched);

    /// Whether it took the cancellation.
    #[doc(hidden)]
    fn cancel_as(&self, reason: &Cancelled) -> bool;

    /// The error that it ended with, if it has and it did; that is a look at it.
    #[doc(hidden)]
    fn error(&self) -> Option<Error>;

    /// As [`error`](Self::error), and no look at it.
    #[doc(hidden)]
    fn peek_error(&self) -> Option<Error>;

    /// Whether it belongs to this loop.
    #[doc(hidden)]
    fn check_loop(&self, event_loop: &EventLoop) -> Result<()>;

    /// The same for all handles of one task or future, and for no others that exist.
    #[doc(hidden)]
    fn identity(&self) -> usize;

    /// Which task it is, if it is one.
    #[doc(hidden)]
    fn task_name(&self) -> Option<TaskName>;
}

/// Keeps [`Waitable`] to the types of this crate.
pub trait Sealed {}

/// Names an observer and one of its members.
#[derive(Clone, Copy, Debug)]
pub struct Watch(pub(crate) Member);

/// Names a task of the loop.
#[derive(Clone, Copy, Debug)]
pub struct TaskName(pub(crate) TaskKey);

/// How an observation can be taken back.
#[derive(Clone, Copy, Debug)]
pub struct Watched(pub(crate) Observed);

impl Watched {
    pub(crate) const NOT: Watched = Watched(Observed::Not);

    /// Whether it was done already.
    pub(crate) fn is_over(self) -> bool {
        matches!(self.0, Observed::Not)
    }
}

impl<T: 'static> Sealed for Task<T> {}

impl<T: 'static> Waitable for Task<T> {
    fn is_done(&self) -> bool {
        self.done()
    }

    fn observe(&self, by: Watch) -> Watched {
        Watched(self.task_ref().observe(by.0))
    }

    fn unobserve(&self, by: Watch, watched: Watched) {
        self.task_ref().unobserve(by.0, watched.0);
    }

    fn cancel_as(&self, reason: &Cancelled) -> bool {
        self.task_ref().cancel(reason.clone())
    }

    fn error(&self) -> Option<Error> {
        if !self.task_ref().has(flag::FAILED | flag::CANCELLED) {
            return None;
        }
        match self.task_ref().look_at_exception() {
            Ok(error) => error,
            Err(error) => Some(error),
        }
    }

    fn peek_error(&self) -> Option<Error> {
        if self.task_ref().has(flag::FAILED | flag::CANCELLED) { self.task_ref().error() } else { None }
    }

    fn check_loop(&self, event_loop: &EventLoop) -> Result<()> {
        check_loop(self.task_ref().shared.id, Some(event_loop))
    }

    fn identity(&self) -> usize {
        self.task_ref().address()
    }

    fn task_name(&self) -> Option<TaskName> {
        Some(TaskName(self.task_ref().key()))
    }
}

impl Sealed for AnyTask {}

impl Waitable for AnyTask {
    fn is_done(&self) -> bool {
        self.done()
    }

    fn observe(&self, by: Watch) -> Watched {
        Watched(self.task.observe(by.0))
    }

    fn unobserve(&self, by: Watch, watched: Watched) {
        self.task.unobserve(by.0, watched.0);
    }

    fn cancel_as(&self, reason: &Cancelled) -> bool {
        self.task.cancel(reason.clone())
    }

    fn error(&self) -> Option<Error> {
        match self.exception() {
            Ok(error) => error,
            Err(error @ Error::Cancelled(_)) => Some(error),
            Err(_) => None,
        }
    }

    fn peek_error(&self) -> Option<Error> {
        if self.done() { self.task.error() } else { None }
    }

    fn check_loop(&self, event_loop: &EventLoop) -> Result<()> {
        check_loop(self.task.shared.id, Some(event_loop))
    }

    fn identity(&self) -> usize {
        self.id()
    }

    fn task_name(&self) -> Option<TaskName> {
        Some(TaskName(self.task.key()))
    }
}

impl<T: 'static> Sealed for Future<T> {}

impl<T: 'static> Waitable for Future<T> {
    fn is_done(&self) -> bool {
        self.done()
    }

    fn observe(&self, by: Watch) -> Watched {
        Watched(self.observe_with(by.0))
    }

    fn unobserve(&self, _: Watch, watched: Watched) {
        self.unobserve_with(watched.0);
    }

    fn cancel_as(&self, reason: &Cancelled) -> bool {
        self.cancel_with_reason(reason.clone())
    }

    fn error(&self) -> Option<Error> {
        match self.exception() {
            Ok(error) => error,
            Err(error @ Error::Cancelled(_)) => Some(error),
            Err(_) => None,
        }
    }

    fn peek_error(&self) -> Option<Error> {
        self.unseen_error()
    }

    fn check_loop(&self, event_loop: &EventLoop) -> Result<()> {
        check_loop(self.loop_id(), Some(event_loop))
    }

    fn identity(&self) -> usize {
        self.address()
    }

    fn task_name(&self) -> Option<TaskName> {
        None
    }
}

/// The same through a handle that derefs to it.
macro_rules! by_deref {
    ($($handle:ty { $($generics:tt)* })*) => { $(
        impl<$($generics)*> Sealed for $handle {}

        impl<$($generics)*> Waitable for $handle {
            fn is_done(&self) -> bool {
                (**self).is_done()
            }

            fn observe(&self, by: Watch) -> Watched {
                (**self).observe(by)
            }

            fn unobserve(&self, by: Watch, watched: Watched) {
                (**self).unobserve(by, watched);
            }

            fn cancel_as(&self, reason: &Cancelled) -> bool {
                (**self).cancel_as(reason)
            }

            fn error(&self) -> Option<Error> {
                (**self).error()
            }

            fn peek_error(&self) -> Option<Error> {
                Waitable::peek_error(&**self)
            }

            fn check_loop(&self, event_loop: &EventLoop) -> Result<()> {
                (**self).check_loop(event_loop)
            }

            fn identity(&self) -> usize {
                (**self).identity()
            }

            fn task_name(&self) -> Option<TaskName> {
                (**self).task_name()
            }
        }
    )* };
}

// Four times the same, which no blanket implementation can say beside the types themselves.
by_deref! {
    SharedTask<T> { T: 'static }
    SharedFuture<T> { T: 'static }
    &W { W: Waitable + ?Sized }
    &mut W { W: Waitable + ?Sized }
}

/// What is awaited together with others: a task of ours or of the user's, or a future as it was given.
pub struct Child<T> {
    kind: Kind<T>,
}

enum Kind<T> {
    Task(Task<T>),
    Other(Pin<Box<dyn Given<T>>>),
}

/// A future of the user's that can be observed as it is.
trait Given<T>: StdFuture<Output = Result<T>> {
    fn waitable(&self) -> &dyn Waitable;
}

pin_project! {
    /// The future, and how to see it as what it is.
    struct GivenAs<F> {
        #[pin]
        future: F,
        waitable: fn(&F) -> &dyn Waitable,
    }
}

impl<F: StdFuture> StdFuture for GivenAs<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<F::Output> {
        self.project().future.poll(cx)
    }
}

impl<T, F: StdFuture<Output = Result<T>>> Given<T> for GivenAs<F> {
    fn waitable(&self) -> &dyn Waitable {
        (self.waitable)(&self.future)
    }
}

/// Sees a value of a type parameter as what it is, if it is a `W`.
fn seen_as<F: 'static, W: Waitable + 'static>(future: &F) -> Option<&dyn Waitable> {
    let any: &dyn Any = future;
    any.downcast_ref::<W>().map(|waitable| waitable as &dyn Waitable)
}

/// The same for a type that is known to be one of ours.
fn expect_one<F: 'static, T: 'static>(future: &F) -> &dyn Waitable {
    as_waitable::<F, T>(future).expect("it was one when it was given")
}

fn as_waitable<F: 'static, T: 'static>(future: &F) -> Option<&dyn Waitable> {
    seen_as::<F, Future<T>>(future)
        .or_else(|| seen_as::<F, SharedFuture<T>>(future))
        .or_else(|| seen_as::<F, SharedTask<T>>(future))
        .or_else(|| seen_as::<F, AnyTask>(future))
}

impl<T> fmt::Debug for Child<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<Child>")
    }
}

impl<T: 'static> Child<T> {
    pub(crate) fn of(task: Task<T>) -> Self {
        Child { kind: Kind::Task(task) }
    }

    pub(crate) fn task(&self) -> Option<&Task<T>> {
        match &self.kind {
            Kind::Task(task) => Some(task),
            Kind::Other(_) => None,
        }
    }

    pub(crate) fn into_task(self) -> Option<Task<T>> {
        match self.kind {
            Kind::Task(task) => Some(task),
            Kind::Other(_) => None,
        }
    }

    /// A task or future as it is; anything else becomes a task of the loop. The second value is whether it did.
    pub(crate) fn new<F>(event_loop: &EventLoop, future: F, created: &'static Location<'static>) -> (Self, bool)
    where
        F: IntoFuture<Output = Result<T>>,
        F::IntoFuture: 'static,
    {
        let mut future = Some(future.into_future());
        let any: &mut dyn Any = &mut future;
        if let Some(task) = any.downcast_mut::<Option<Task<T>>>().and_then(Option::take) {
            return (Child::of(task), false);
        }
        let Some(future) = future else { unreachable!("it was not taken") };
        if as_waitable::<F::IntoFuture, T>(&future).is_some() {
            let boxed = Box::pin(GivenAs { future, waitable: expect_one::<F::IntoFuture, T> });
            return (Child { kind: Kind::Other(boxed) }, false);
        }
        (Child::of(event_loop.make_task(future, TaskRequest::default(), created)), true)
    }

    pub(crate) fn waitable(&self) -> &dyn Waitable {
        match &self.kind {
            Kind::Task(task) => task,
            Kind::Other(other) => other.waitable(),
        }
    }

    /// The outcome of what is done.
    pub(crate) fn take(&mut self) -> Result<T> {
        let cx = &mut Cx::from_waker(Waker::noop());
        let polled = match &mut self.kind {
            Kind::Task(task) => Pin::new(task).poll(cx),
            Kind::Other(other) => other.as_mut().poll(cx),
        };
        match polled {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => Err(Error::InvalidState("Result is not set.".into())),
        }
    }
}
