//! One iteration, as asyncio's `_run_once`: wait, queue what the wait brought, run what is queued.
//!
//! Scheduled callbacks and steps run here and nowhere else.

use std::{
    panic::{AssertUnwindSafe, Location, catch_unwind},
    rc::Rc,
    task::Waker,
    time::{Duration, Instant},
};

use async_task::Runnable;

use crate::{
    constants::{FAR_FUTURE, MAXIMUM_SELECT_TIMEOUT},
    error::{Error, Result},
    event_loop::{
        EventLoop,
        child_scope::ScopeKey,
        exceptions::ExceptionContext,
        handle::{Handle, RunHandle, TimerHandle},
        meta::{TaskKey, TaskMeta},
        observers::Member,
        owned::{IoEvent, IoHandler},
        running,
        threadsafe::{Call, Job, check_process, closed},
        threadsafe_future::ThreadsafeFuture,
        timers::TimerKey,
        waiters::wake,
    },
    report,
};

/// What runs in the next iteration, in order.
pub(crate) enum Ready {
    Step(Runnable<TaskMeta>),
    Handle(Rc<dyn RunHandle>),
    /// Something is to be done for a descriptor that a transport or server owns.
    Io(Rc<dyn IoHandler>, IoEvent),
    Call(Call),
    /// Something that is observed has ended in the iteration before.
    Child(Member),
    /// A scope's deadline has passed.
    Expire(ScopeKey),
    /// A task's time to clean up is over.
    Kill(TaskKey),
    /// The main future has ended.
    Stop,
    /// Something that the callbacks before it need.
    Keep(Box<dyn std::any::Any>),
}

/// What a timer does when it is due.
pub(crate) enum TimerEntry {
    Handle(Rc<dyn RunHandle>),
    Waker(Waker),
    Expire(ScopeKey),
    Kill(TaskKey),
    /// Of an observer: its own deadline.
    Child(Member),
    Io(Rc<dyn IoHandler>, IoEvent),
}

impl EventLoop {
    /// Runs callbacks and tasks until [`stop`](Self::stop) is called.
    ///
    /// If it was called before, runs one iteration: what is ready or due now, and nothing that this schedules.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] if the loop is closed or running, another loop runs on this thread, or this is a forked child
    /// of the process that made the loop; [`Error::Io`] if the system's selector fails.
    ///
    /// # Examples
    ///
    /// ```
    /// let event_loop = asyncio::new_event_loop()?;
    /// let stopper = event_loop.clone();
    /// event_loop.call_soon(move || stopper.stop());
    /// event_loop.run_forever()?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `loop.run_forever`.
    pub fn run_forever(&self) -> Result<()> {
        let _running = self.begin_running()?;
        let result = loop {
            if let Err(error) = self.turn(None) {
                break Err(error);
            }
            if self.inner.stopping.get() {
                break Ok(());
            }
        };
        self.inner.stopping.set(false);
        result
    }

    /// Runs one iteration, for a host that drives this loop from its own.
    ///
    /// Waits at most `timeout` for something to do (zero: not at all; `None`: without limit), then runs what is ready.
    /// Gives how many callbacks and steps ran. A [`stop`](Self::stop) ends the wait and stays for `run_forever`. A
    /// virtual clock goes at most `timeout` ahead.
    ///
    /// A host waits until [`as_fd`](Self::as_fd) is readable or [`next_deadline`](Self::next_deadline) has come, and
    /// then calls this with zero.
    ///
    /// # Errors
    ///
    /// Those of [`run_forever`](Self::run_forever).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let event_loop = asyncio::new_event_loop()?;
    /// let task = event_loop.create_task(async { asyncio::sleep(Duration::from_millis(2)).await });
    /// while !task.done() {
    ///     event_loop.run_once(Duration::from_millis(16))?; // a frame
    /// }
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `loop._run_once`. Differs: public.
    pub fn run_once(&self, timeout: impl Into<Option<Duration>>) -> Result<usize> {
        let _running = self.begin_running()?;
        self.turn(timeout.into())
    }

    /// When [`run_once`](Self::run_once) must be called at the latest: now if something is ready, else at the first
    /// deadline, else only when [`as_fd`](Self::as_fd) is readable.
    pub fn next_deadline(&self) -> Option<Instant> {
        if !self.inner.ready.borrow().is_empty() || self.inner.shared.is_filled() {
            return Some(self.time());
        }
        self.inner.timers.borrow_mut().next_deadline()
    }

    /// Ends [`run_forever`](Self::run_forever) after the present iteration; while the loop does not run, after the first
    /// one of the next run.
    ///
    /// asyncio: `loop.stop`.
    pub fn stop(&self) {
        self.inner.stopping.set(true);
    }

    /// Runs `callback` in the next iteration, after everything that was scheduled before it.
    ///
    /// Gives a [`Handle`], which can cancel the callback and be awaited. An async closure is not a callback: its future is
    /// the handle's value and runs only if it is awaited; use `create_task`. On a closed loop the callback is dropped and
    /// the handle gives [`Error::Runtime`].
    ///
    /// # Examples
    ///
    /// ```
    /// let event_loop = asyncio::new_event_loop()?;
    /// let handle = event_loop.call_soon(|| 40 + 2);
    /// assert_eq!(event_loop.run_until_complete(handle)?, 42);
    /// # asyncio::ok(())
    /// ```
    ///
    /// Where Python has `functools.partial`, a closure has the arguments:
    ///
    /// ```
    /// use std::io::Write;
    ///
    /// fn print(text: &str, flush: bool) -> std::io::Result<()> {
    ///     let mut stdout = std::io::stdout();
    ///     writeln!(stdout, "{text}")?;
    ///     if flush { stdout.flush() } else { Ok(()) }
    /// }
    ///
    /// let event_loop = asyncio::new_event_loop()?;
    /// // will schedule `print("Hello", true)`
    /// let printed = event_loop.call_soon(|| print("Hello", true));
    /// event_loop.run_until_complete(printed)??;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `loop.call_soon`. Differs: no arguments are passed on; the closure captures them.
    #[track_caller]
    pub fn call_soon<R: 'static, F: FnOnce() -> R + 'static>(&self, callback: F) -> Handle<R> {
        let created = Location::caller();
        if self.is_closed() {
            drop(callback);
            return Handle::failed(self, closed(), created);
        }
        let (handle, run) = Handle::new(self, callback, created, false);
        self.push(Ready::Handle(run));
        handle
    }

    /// Runs `callback` on the loop's thread; see [`ThreadsafeLoop::call_soon_threadsafe`].
    ///
    /// asyncio: `loop.call_soon_threadsafe`.
    ///
    /// [`ThreadsafeLoop::call_soon_threadsafe`]: crate::ThreadsafeLoop::call_soon_threadsafe
    #[track_caller]
    pub fn call_soon_threadsafe<R: Send + 'static>(
        &self,
        callback: impl FnOnce() -> R + Send + 'static,
    ) -> ThreadsafeFuture<R> {
        self.threadsafe().call_in(self.capture(), Location::caller(), callback)
    }

    /// Runs `callback` once `delay` has passed.
    ///
    /// Never early; late by whatever else the iteration runs. Callbacks due at one instant run in the order of
    /// scheduling. A delay too long for the clock is as long as the clock can tell.
    ///
    /// # Examples
    ///
    /// ```
    /// let event_loop = asyncio::new_event_loop()?;
    /// let stopper = event_loop.clone();
    /// event_loop.call_later(std::time::Duration::from_millis(1), move || stopper.stop());
    /// event_loop.run_forever()?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `loop.call_later`. Differs: no arguments are passed on; the closure captures them.
    #[track_caller]
    pub fn call_later<R: 'static, F: FnOnce() -> R + 'static>(&self, delay: Duration, callback: F) -> TimerHandle<R> {
        self.call_at(self.deadline_in(delay), callback)
    }

    /// Runs `callback` at `deadline`, a time of [`time`](Self::time)'s clock; in the next iteration if that is past.
    ///
    /// As [`call_later`](Self::call_later) otherwise.
    ///
    /// asyncio: `loop.call_at`.
    #[track_caller]
    pub fn call_at<R: 'static, F: FnOnce() -> R + 'static>(&self, deadline: Instant, callback: F) -> TimerHandle<R> {
        let created = Location::caller();
        if self.is_closed() {
            drop(callback);
            return TimerHandle::new(Handle::failed(self, closed(), created), deadline, None);
        }
        let (handle, run) = Handle::new(self, callback, created, true);
        let key = self.insert_timer(deadline, TimerEntry::Handle(run));
        TimerHandle::new(handle, deadline, Some((Rc::downgrade(&self.inner), key)))
    }

    /// The loop's time, from its clock: that of the call, not of the iteration.
    ///
    /// asyncio: `loop.time`. Differs: an `Instant`.
    pub fn time(&self) -> Instant {
        self.inner.clock.now()
    }

    /// `delay` from now, or as far as the clock can tell.
    pub(crate) fn deadline_in(&self, delay: Duration) -> Instant {
        let now = self.time();
        now.checked_add(delay).or_else(|| now.checked_add(FAR_FUTURE)).unwrap_or(now)
    }

    pub(crate) fn insert_timer(&self, deadline: Instant, entry: TimerEntry) -> TimerKey {
        self.inner.timers.borrow_mut().insert(deadline, entry)
    }

    /// Puts something at the end of the queue. Threads and loop share one: what came from outside before goes first.
    #[inline]
    pub(crate) fn push(&self, item: Ready) {
        if self.inner.shared.is_filled() {
            self.take_inbox();
        }
        self.inner.ready.borrow_mut().push_back(item);
    }

    pub(crate) fn begin_running(&self) -> Result<Running<'_>> {
        self.check_open()?;
        check_process(&self.inner.shared)?;
        if self.is_running() {
            return Err(Error::Runtime("This event loop is already running".into()));
        }
        if running::require().is_ok() {
            return Err(Error::Runtime("Cannot run the event loop while another loop is running".into()));
        }
        self.inner.shared.wake_up();
        self.inner.running.set(true);
        Ok(Running { event_loop: self, _guard: running::enter(self) })
    }

    /// One iteration. Waits at most `limit`.
    fn turn(&self, limit: Option<Duration>) -> Result<usize> {
        // A callback may have forked: the child leaves the descriptors to its parent.
        check_process(&self.inner.shared)?;
        self.take_inbox();
        self.take_signals();
        self.wait(limit)?;
        self.queue_due_timers();
        Ok(self.run_ready())
    }

    /// Waits for something to do and queues what came: from other threads first, then from descriptors.
    fn wait(&self, limit: Option<Duration>) -> Result<()> {
        let inner = &*self.inner;
        let busy = inner.stopping.get() || !inner.ready.borrow().is_empty();
        // What has come already is not jumped over by a virtual clock, nor is it what holds the clock.
        let busy = busy || (inner.clock.is_virtual() && !inner.watchers.borrow().is_empty() && self.look()?);
        let timeout = if busy { Some(Duration::ZERO) } else { self.timeout(limit) };
        let mut timeout = timeout;
        if timeout == Some(Duration::ZERO) {
            // A host that waits on the descriptor needs its wakes taken.
            if inner.watchers.borrow().is_empty() && inner.fd.get().is_none() {
                return Ok(());
            }
        } else if !inner.shared.fall_asleep() {
            timeout = Some(Duration::ZERO);
        }
        let mut events = inner.events.take();
        let selected = inner.selector.borrow_mut().select(&mut events, timeout);
        inner.shared.wake_up();
        self.take_inbox();
        self.take_signals();
        for event in events.drain(..) {
            self.dispatch(event);
        }
        inner.events.set(events);
        Ok(selected?)
    }

    /// Queues what has come to descriptors, without a wait. True if it was something.
    #[cold]
    fn look(&self) -> Result<bool> {
        let inner = &*self.inner;
        let mut events = inner.events.take();
        let selected = inner.selector.borrow_mut().select(&mut events, Some(Duration::ZERO));
        let found = !events.is_empty();
        for event in events.drain(..) {
            self.dispatch(event);
        }
        inner.events.set(events);
        selected?;
        Ok(found)
    }

    /// How long there is nothing to do.
    fn timeout(&self, limit: Option<Duration>) -> Option<Duration> {
        let inner = &*self.inner;
        let deadline = inner.timers.borrow_mut().next_deadline();
        if deadline.is_none() && (limit.is_none() || !inner.clock.is_virtual()) {
            return limit;
        }
        let now = inner.clock.now();
        let deadline = deadline.unwrap_or(now + FAR_FUTURE);
        let left = deadline.saturating_duration_since(now);
        let held = inner.outside.get() > 0 || inner.watchers.borrow().holds_clock();
        let end = limit.and_then(|limit| now.checked_add(limit)).map_or(deadline, |end| end.min(deadline));
        if left.is_zero() || (!held && inner.clock.advance_to(end)) {
            return Some(Duration::ZERO);
        }
        if inner.clock.is_virtual() {
            return limit;
        }
        let left = left.min(MAXIMUM_SELECT_TIMEOUT);
        Some(limit.map_or(left, |limit| limit.min(left)))
    }

    fn queue_due_timers(&self) {
        let inner = &*self.inner;
        if inner.timers.borrow().is_empty() {
            return;
        }
        let now = inner.clock.now();
        let mut due = inner.due.take();
        inner.timers.borrow_mut().take_due(now, |entry| due.push(entry));
        for entry in due.drain(..) {
            match entry {
                TimerEntry::Handle(handle) => self.push(Ready::Handle(handle)),
                TimerEntry::Waker(waker) => wake(waker),
                TimerEntry::Io(handler, event) => self.push(Ready::Io(handler, event)),
                TimerEntry::Expire(key) => self.push(Ready::Expire(key)),
                TimerEntry::Kill(key) => self.push(Ready::Kill(key)),
                TimerEntry::Child(member) => self.push(Ready::Child(member)),
            }
        }
        inner.due.set(due);
    }

    /// Takes over what other threads put in.
    pub(crate) fn take_inbox(&self) {
        let inner = &*self.inner;
        if !inner.shared.is_filled() {
            return;
        }
        let mut jobs = inner.jobs.take();
        if inner.shared.take_jobs(&mut jobs) {
            inner.ready.borrow_mut().extend(jobs.drain(..).map(|job| match job {
                Job::Step(runnable) => Ready::Step(runnable),
                Job::Call(call) => Ready::Call(call),
            }));
        }
        inner.jobs.set(jobs);
    }

    /// Acts on the signals that have arrived.
    pub(crate) fn take_signals(&self) {
        if !self.inner.shared.take_signalled() {
            return;
        }
        let hook = self.inner.signal_hook.borrow().clone();
        if let Some(hook) = hook {
            hook(self);
        }
    }

    /// Runs what is ready now; what that schedules is for the next iteration.
    fn run_ready(&self) -> usize {
        let inner = &*self.inner;
        let count = inner.ready.borrow().len();
        let mut left = count;
        // The loop's edge: nothing that panics inside gets past this, and what comes after it still runs.
        while let Err(payload) = catch_unwind(AssertUnwindSafe(|| self.run_items(&mut left))) {
            let context = ExceptionContext::new("Exception in event loop").exception(Error::from_panic(payload));
            self.call_exception_handler(&context);
        }
        count
    }

    fn run_items(&self, left: &mut usize) {
        let inner = &*self.inner;
        while *left > 0 {
            *left -= 1;
            // Not in the head of a `while let`: the borrow would last as long as the body.
            let item = inner.ready.borrow_mut().pop_front();
            let Some(item) = item else { return };
            if inner.debug.get() {
                self.run_timed(item);
            } else {
                self.run_item(item);
            }
            if inner.shared.is_signalled() {
                self.take_signals();
            }
        }
    }

    #[inline]
    fn run_item(&self, item: Ready) {
        match item {
            Ready::Step(runnable) => self.run_step(runnable),
            Ready::Handle(handle) => handle.run(self),
            Ready::Io(handler, event) => handler.run(self, event),
            Ready::Call(call) => call.run(self),
            Ready::Child(member) => self.tell_observer(member),
            Ready::Expire(key) => self.expire_scope(key),
            Ready::Kill(key) => self.kill_task(key),
            Ready::Stop => self.stop(),
            Ready::Keep(value) => drop(value),
        }
    }

    #[cold]
    fn run_timed(&self, item: Ready) {
        let described: Box<dyn FnOnce() -> String> = match &item {
            Ready::Step(runnable) => {
                let meta = runnable.metadata();
                let (name, created) = (meta.name(), meta.created);
                Box::new(move || format!("<Task name={name:?} created at {created}>"))
            }
            Ready::Handle(handle) => {
                let handle = handle.clone();
                Box::new(move || handle.summary().to_string())
            }
            Ready::Call(call) => match call.created() {
                Some(created) => Box::new(move || format!("<Handle created at {created}>")),
                None => Box::new(|| "<Handle from another thread>".into()),
            },
            Ready::Io(handler, _) => {
                let handler = handler.clone();
                Box::new(move || handler.describe())
            }
            Ready::Child(_) | Ready::Expire(_) | Ready::Kill(_) | Ready::Stop | Ready::Keep(_) => {
                Box::new(|| "<Handle of the event loop>".into())
            }
        };
        let begin = Instant::now();
        self.run_item(item);
        let taken = begin.elapsed();
        if taken >= self.inner.slow_callback_duration.get() {
            report::warning(&format!("Executing {} took {:.3} seconds", described(), taken.as_secs_f64()));
        }
    }

    /// Drops everything that would run, and finishes every task on this thread. Called by close, with this loop as the
    /// running one and marked as closed.
    pub(crate) fn drain(&self) {
        loop {
            self.take_inbox();
            let batch = self.inner.ready.take();
            for item in batch {
                match item {
                    // Also where nobody holds the task any more: the runnable is what its coroutine is dropped by.
                    Ready::Step(runnable) => self.drop_guarded(move || self.run_step(runnable)),
                    Ready::Handle(handle) => self.drop_guarded(move || handle.discard()),
                    other => self.drop_guarded(move || drop(other)),
                }
            }
            if self.inner.tasks.borrow().len() == 0 && self.inner.ready.borrow().is_empty() {
                return;
            }
            // A thread that has just woken a task may hold its runnable and not have handed it over yet.
            if self.inner.ready.borrow().is_empty() && !self.inner.shared.is_filled() {
                std::thread::yield_now();
            }
        }
    }

    /// Runs drops of the user's, and reports a panic of theirs.
    pub(crate) fn drop_guarded(&self, drop_it: impl FnOnce()) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(drop_it)) {
            let context =
                ExceptionContext::new("Panic while the event loop was closed").exception(Error::from_panic(payload));
            self.call_exception_handler(&context);
        }
    }
}

/// Says that the loop runs, until it is dropped.
pub(crate) struct Running<'a> {
    event_loop: &'a EventLoop,
    _guard: running::RunningGuard,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.event_loop.inner.running.set(false);
        self.event_loop.inner.shared.rest();
    }
}
