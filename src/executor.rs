//! Blocking work in threads, from the loop's side.

use std::{
    cell::{Cell, RefCell},
    future::Future as StdFuture,
    panic::{AssertUnwindSafe, Location, catch_unwind},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    event_loop::{
        EventLoop, running, slots,
        threadsafe::{Shared, closed},
        threadsafe_future::ThreadsafeFuture,
        timers::TimerKey,
        turn::TimerEntry,
    },
    future::Future,
    report,
    sys::thread_pool::{Executor, ThreadPool, default_size},
};

/// The executor that jobs go to where none is named. Dropped by close: told to stop, not waited for.
#[derive(Default)]
struct DefaultExecutor {
    /// Made by the first job that needs it.
    executor: RefCell<Option<Rc<dyn Executor>>>,
    /// Set by shutdown_default_executor(); never cleared.
    shut_down: Cell<bool>,
}

impl DefaultExecutor {
    fn get(&self) -> Result<Rc<dyn Executor>> {
        if self.shut_down.get() {
            return Err(Error::Runtime("Executor shutdown has been called".into()));
        }
        let make = || Rc::new(ThreadPool::new(default_size())) as Rc<dyn Executor>;
        Ok(self.executor.borrow_mut().get_or_insert_with(make).clone())
    }
}

impl Drop for DefaultExecutor {
    fn drop(&mut self) {
        if let (Some(executor), false) = (self.executor.take(), self.shut_down.get()) {
            executor.shutdown(Box::new(|| ()));
        }
    }
}

impl EventLoop {
    /// Runs `job` in another thread: of `executor`, or of the loop's default one where that is `None`.
    ///
    /// The default executor is a pool of at most min(32, cores + 4) threads, made by the first job; any
    /// [`Executor`] will do, [`ThreadPool`] is ours. Cancelling the future keeps a job from running that has not begun.
    /// A job that panics gives [`Error::Panicked`]. When the job cannot be taken, because the loop is closed, the
    /// executor has been shut down or it refuses, the future is born failed.
    ///
    /// # Examples
    ///
    /// ```
    /// asyncio::run(async {
    ///     let event_loop = asyncio::get_running_loop()?;
    ///     assert_eq!(event_loop.run_in_executor(None, || 40 + 2).await?, 42);
    ///
    ///     let pool = asyncio::ThreadPool::new(2);
    ///     assert_eq!(event_loop.run_in_executor(Some(&pool), || 7).await?, 7);
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `loop.run_in_executor`.
    #[track_caller]
    pub fn run_in_executor<T: Send + 'static>(
        &self,
        executor: Option<&dyn Executor>,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Future<T> {
        let created = Location::caller();
        match executor {
            Some(executor) => self.submit(executor, job, created),
            None => match self.default_executor().and_then(|default| default.get()) {
                Ok(executor) => self.submit(&*executor, job, created),
                Err(error) => self.failed_future(error, created),
            },
        }
    }

    /// Replaces the executor that jobs go to where none is named. The one before is not shut down.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] if the loop is closed, or its default executor has been shut down.
    ///
    /// asyncio: `loop.set_default_executor`.
    pub fn set_default_executor(&self, executor: impl Executor + 'static) -> Result<()> {
        let default = self.default_executor()?;
        if default.shut_down.get() {
            return Err(Error::Runtime("Executor shutdown has been called".into()));
        }
        let before = default.executor.replace(Some(Rc::new(executor)));
        drop(before);
        Ok(())
    }

    /// Lets the default executor take no more jobs, and waits until those that it has are done, at most `timeout`
    /// (`None`: without limit). When the time is over, a warning is written and the threads are left to themselves.
    ///
    /// [`run`](crate::run) and [`Runner`](crate::Runner) do this by themselves.
    ///
    /// # Cancel safety
    ///
    /// The executor stays shut down; only the wait ends.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] if the loop is closed.
    ///
    /// asyncio: `loop.shutdown_default_executor`.
    pub fn shutdown_default_executor<D: Into<Option<Duration>>>(
        &self,
        timeout: D,
    ) -> impl StdFuture<Output = Result<()>> + use<D> {
        let (id, timeout): (_, Option<Duration>) = (self.inner.shared.id, timeout.into());
        async move {
            let event_loop = running::by_id(id).ok_or_else(closed)?;
            let default = event_loop.default_executor()?;
            default.shut_down.set(true);
            // It stays, so that a second call waits as well for what the first one left behind.
            let Some(executor) = default.executor.borrow().clone() else { return Ok(()) };
            let (ended, setter) = ThreadsafeFuture::pair();
            executor.shutdown(Box::new(move || setter.set(Ok(()))));
            let _outside = Outside::begin(&event_loop);
            drop(event_loop);
            if !ends_in_time(ended, timeout).await? {
                let seconds = timeout.unwrap_or_default().as_secs_f64();
                report::warning(&format!(
                    "The executor did not finishing joining its threads within {seconds} seconds."
                ));
            }
            Ok(())
        }
    }

    fn default_executor(&self) -> Result<Rc<DefaultExecutor>> {
        self.check_open()?;
        Ok(self.slots().get_or_init(slots::EXECUTOR, DefaultExecutor::default))
    }

    pub(crate) fn failed_future<T: 'static>(&self, error: Error, created: &'static Location<'static>) -> Future<T> {
        let future = Future::of_loop(self.inner.shared.clone(), created);
        // Cannot fail: it is new and this is its thread.
        let _ = future.set_exception(error);
        future
    }

    /// Gives a job to an executor, and the outcome to a future of this loop.
    pub(crate) fn submit<T: Send + 'static>(
        &self,
        executor: &dyn Executor,
        job: impl FnOnce() -> T + Send + 'static,
        created: &'static Location<'static>,
    ) -> Future<T> {
        if let Err(error) = self.check_open() {
            return self.failed_future(error, created);
        }
        let future = Future::of_loop(self.inner.shared.clone(), created);
        self.begin_outside();
        let result = Outcome { future: Some(future.clone()), shared: self.inner.shared.clone() };
        let submitted = executor.submit(Box::new(move || {
            if result.is_wanted() {
                let outcome = catch_unwind(AssertUnwindSafe(job)).map_err(Error::from_panic);
                result.deliver(outcome);
            }
        }));
        if let Err(error) = submitted {
            // The job was dropped and its outcome is under way through the inbox; this one comes first.
            let _ = future.set_exception(error);
        }
        future
    }
}

/// Brings the outcome of a job to its loop; a job that is dropped unrun fails its future.
struct Outcome<T: Send + 'static> {
    future: Option<Future<T>>,
    shared: Arc<Shared>,
}

impl<T: Send + 'static> Outcome<T> {
    fn is_wanted(&self) -> bool {
        self.future.as_ref().is_some_and(|future| !future.done())
    }

    fn deliver(mut self, outcome: Result<T>) {
        self.send(outcome);
    }

    fn send(&mut self, outcome: Result<T>) {
        let Some(future) = self.future.take() else { return };
        self.shared.push_call(move |event_loop| {
            event_loop.end_outside();
            // A future that was cancelled meanwhile stays so; the value is dropped.
            match outcome {
                Ok(value) => drop(future.set_result(value)),
                Err(error) => drop(future.set_exception(error)),
            }
        });
    }
}

impl<T: Send + 'static> Drop for Outcome<T> {
    fn drop(&mut self) {
        self.send(Err(Error::Runtime("the executor dropped the job without running it".into())));
    }
}

/// Holds a virtual clock.
struct Outside {
    id: u64,
}

impl Outside {
    fn begin(event_loop: &EventLoop) -> Self {
        event_loop.begin_outside();
        Outside { id: event_loop.inner.shared.id }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        if let Some(event_loop) = running::by_id(self.id) {
            event_loop.end_outside();
        }
    }
}

/// Waits for the end of an executor, in real time: its threads know no other.
async fn ends_in_time(ended: ThreadsafeFuture<()>, timeout: Option<Duration>) -> Result<bool> {
    let mut ended = pin!(ended);
    let Some(timeout) = timeout else { return ended.await.map(|()| true) };
    let deadline = running::require()?.deadline_in(timeout);
    let mut alarm = None;
    let outcome = std::future::poll_fn(|cx| {
        if let Poll::Ready(outcome) = ended.as_mut().poll(cx) {
            return Poll::Ready(outcome.map(|()| true));
        }
        let event_loop = running::require()?;
        if event_loop.time() >= deadline {
            return Poll::Ready(Ok(false));
        }
        // Anew at each poll, of which there are few: the waker may be another one.
        alarm = Some(Alarm::set(&event_loop, deadline, cx.waker()));
        Poll::Pending
    });
    outcome.await
}

/// A timer that goes with its owner.
struct Alarm {
    id: u64,
    key: TimerKey,
}

impl Alarm {
    fn set(event_loop: &EventLoop, deadline: Instant, waker: &Waker) -> Self {
        let key = event_loop.insert_timer(deadline, TimerEntry::Waker(waker.clone()));
        Alarm { id: event_loop.inner.shared.id, key }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let Some(event_loop) = running::by_id(self.id) else { return };
        let entry = event_loop.inner.timers.borrow_mut().remove(self.key);
        drop(entry);
    }
}
