//! Letting something go on while who waits for it is cancelled.

use std::{
    cell::Cell,
    fmt,
    future::{Future as StdFuture, IntoFuture},
    panic::Location,
    pin::Pin,
    rc::Rc,
    task::{Context as Cx, Poll, Waker},
};

use crate::{
    combine::child::{Child, Waitable, Watch, Watched},
    error::{Error, Result},
    event_loop::{
        EventLoop,
        exceptions::check_loop,
        observers::{Member, Observer, ObserverKey},
        running,
        scope::Leaf,
        waiters::wake,
    },
    task::{Task, request::homeless},
};

/// Awaits `future` so that cancelling who awaits does not cancel it.
///
/// A task, a future or its shared form is awaited as it is; anything else becomes a task, at this call. When the task that
/// awaits is cancelled, the await gives [`Error::Cancelled`] at once, and what is shielded goes on by itself; its failure
/// is then reported like that of any task that nobody looks at. To keep a task in hand, use
/// [`Task::shield`](crate::Task::shield); for clean-up that has to be waited for, [`shielded`](crate::shielded).
///
/// # Cancel safety
///
/// Dropping the wait lets what is shielded go on.
///
/// # Errors
///
/// Those of `future`; [`Error::Cancelled`] if who awaits or what is shielded was cancelled; [`Error::Runtime`] without a
/// loop, be it a running one or the one that was set.
///
/// # Examples
///
/// ```
/// use asyncio::{create_task, shield, sleep};
/// use std::time::Duration;
///
/// asyncio::run(async {
///     let save = create_task(async {
///         sleep(Duration::from_millis(2)).await?;
///         Ok("saved")
///     })
///     .shared();
///     let waits = create_task(shield(save.clone()));
///     sleep(Duration::ZERO).await?;
///     waits.cancel();
///     assert!(waits.await.unwrap_err().is_cancelled());
///     assert_eq!(save.await?, "saved");
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.shield`.
#[track_caller]
pub fn shield<T, F>(future: F) -> Shield<T>
where
    T: 'static,
    F: IntoFuture<Output = Result<T>>,
    F::IntoFuture: 'static,
{
    let created = Location::caller();
    let child = match running::get_event_loop() {
        Ok(event_loop) => Child::new(&event_loop, future, created).0,
        Err(error) => {
            drop(future);
            Child::of(homeless(error, created))
        }
    };
    Shield { child, watch: WatchOne::default() }
}

/// What [`shield`] gives.
///
/// `Threads:` bound to the loop's.
///
/// # Cancel safety
///
/// Dropping it lets what is shielded go on.
///
/// asyncio: what `asyncio.shield` returns.
#[must_use = "nobody waits until it is awaited"]
pub struct Shield<T: 'static> {
    child: Child<T>,
    watch: WatchOne,
}

impl<T: 'static> StdFuture for Shield<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<T>> {
        let this = self.get_mut();
        std::task::ready!(this.watch.poll(this.child.waitable(), cx))?;
        Poll::Ready(this.child.take())
    }
}

impl<T: 'static> Unpin for Shield<T> {}

impl<T: 'static> Drop for Shield<T> {
    fn drop(&mut self) {
        self.watch.end(self.child.waitable());
    }
}

impl<T: 'static> fmt::Debug for Shield<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<Shield>")
    }
}

impl<T: 'static> Task<T> {
    /// Awaits the task so that cancelling who awaits does not cancel it, and the task stays in hand.
    ///
    /// # Cancel safety
    ///
    /// Dropping the wait loses nothing.
    ///
    /// # Errors
    ///
    /// Those of an await of the task; [`Error::Cancelled`] also if who awaits was cancelled.
    ///
    /// # Examples
    ///
    /// ```
    /// use asyncio::{ErrorKind, create_task, sleep, timeout};
    /// use std::time::Duration;
    ///
    /// asyncio::run(async {
    ///     let mut task = create_task(async {
    ///         sleep(Duration::from_millis(5)).await?;
    ///         Ok("done")
    ///     });
    ///     let early = timeout(Duration::from_millis(1), task.shield()).await;
    ///     assert_eq!(early.unwrap_err().kind(), ErrorKind::Timeout);
    ///     assert_eq!(task.await?, "done");
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `asyncio.shield`.
    pub fn shield(&mut self) -> TaskShield<'_, T> {
        TaskShield { task: self, watch: WatchOne::default() }
    }
}

/// What [`Task::shield`] gives.
///
/// # Cancel safety
///
/// Dropping it loses nothing.
///
/// asyncio: what `asyncio.shield` returns.
#[must_use = "nobody waits until it is awaited"]
pub struct TaskShield<'a, T: 'static> {
    task: &'a mut Task<T>,
    watch: WatchOne,
}

impl<T: 'static> StdFuture for TaskShield<'_, T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<T>> {
        let this = self.get_mut();
        std::task::ready!(this.watch.poll(&*this.task, cx))?;
        Pin::new(&mut *this.task).poll(cx)
    }
}

impl<T: 'static> Drop for TaskShield<'_, T> {
    fn drop(&mut self) {
        self.watch.end(&*self.task);
    }
}

impl<T: fmt::Debug + 'static> fmt::Debug for TaskShield<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.task.fmt(f)
    }
}

/// Waits for the end of one, by its observer, and forwards nothing to it.
#[derive(Default)]
struct WatchOne {
    watching: Option<(Rc<Ended>, u64, ObserverKey, Watched)>,
    leaf: Leaf,
}

#[derive(Default)]
struct Ended {
    over: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Observer for Ended {
    fn child_done(&self, _: &EventLoop, _: u32) {
        self.over.set(true);
        self.waker.take().into_iter().for_each(wake);
    }
}

impl WatchOne {
    fn poll(&mut self, child: &dyn Waitable, cx: &Cx<'_>) -> Poll<Result<()>> {
        if let Some(cancelled) = self.leaf.take_cancel() {
            self.end(child);
            return Poll::Ready(Err(Error::Cancelled(cancelled)));
        }
        if self.watching.is_none() {
            if child.is_done() {
                return Poll::Ready(Ok(()));
            }
            let event_loop = running::require()?;
            child.check_loop(&event_loop)?;
            let ended = Rc::new(Ended::default());
            let observer = event_loop.add_observer(ended.clone());
            let watched = child.observe(Watch(Member { observer, index: 0 }));
            self.watching = Some((ended, event_loop.inner.shared.id, observer, watched));
        }
        let Some((ended, id, _, _)) = &self.watching else { return Poll::Ready(Ok(())) };
        if ended.over.get() {
            self.end(child);
            return Poll::Ready(Ok(()));
        }
        let running = running::current();
        check_loop(*id, running.as_ref())?;
        let before = ended.waker.replace(Some(cx.waker().clone()));
        drop(before);
        self.leaf.suspend(running.as_ref(), cx);
        Poll::Pending
    }

    /// Lets the loop and the child forget the wait.
    fn end(&mut self, child: &dyn Waitable) {
        self.leaf.resume();
        let Some((ended, id, observer, watched)) = self.watching.take() else { return };
        if !ended.over.get() {
            child.unobserve(Watch(Member { observer, index: 0 }), watched);
        }
        if let Some(event_loop) = running::by_id(id) {
            event_loop.remove_observer(observer);
        }
    }
}
