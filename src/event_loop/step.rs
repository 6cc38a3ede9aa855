//! Tasks on async-task: the allocation, its metadata, and what one step of a coroutine does.
//!
//! ```text
//! Pending --first step--> Started --the coroutine returns, panics or is dropped--> Done
//!    `----------cancelled before the first step---------------------------------------^
//! ```
//!
//! A coroutine is polled and dropped on its loop's thread only, although it need not be `Send`: whoever wakes it hands
//! the runnable to the loop, and a loop closes only when no coroutine is left.
#![expect(unsafe_code, reason = "coroutines that are not `Send` are spawned and borrowed here, and nowhere else")]

use std::{
    any::Any,
    cell::Cell,
    future::Future as StdFuture,
    mem::ManuallyDrop,
    ops::Deref,
    panic::{AssertUnwindSafe, Location, catch_unwind},
    pin::Pin,
    ptr::NonNull,
    rc::Rc,
    sync::Arc,
    task::{Context as Cx, Poll, RawWakerVTable, Waker},
};

use async_task::Runnable;

use crate::{
    context::{self, ContextRef, Entered, Vars},
    error::{Error, Result},
    event_loop::{
        EventLoop,
        any_task::AnyTask,
        child_scope::ScopeKey,
        exceptions::ExceptionContext,
        meta::{TaskKey, TaskMeta, flag, local},
        observers::Member,
        pages::Pages,
        running,
        scope::Waiting,
        threadsafe::Job,
        turn::Ready,
        waiters::{Waiters, wake},
    },
};

/// A counted reference to a task of any type. Derefs to its [`TaskMeta`].
///
/// Invariant: `meta` points into the allocation that `waker` is a reference to.
pub(crate) struct TaskRef {
    waker: Waker,
    meta: NonNull<TaskMeta>,
}

// SAFETY: a `TaskRef` is a `Waker` (Send and Sync) and a shared reference to a `TaskMeta`, which is `Sync` (asserted
// below); the allocation lives as long as the waker.
unsafe impl Send for TaskRef {}
// SAFETY: as above.
unsafe impl Sync for TaskRef {}

const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<TaskMeta>();
};

impl Clone for TaskRef {
    fn clone(&self) -> Self {
        TaskRef { waker: self.waker.clone(), meta: self.meta }
    }
}

impl Deref for TaskRef {
    type Target = TaskMeta;

    fn deref(&self) -> &TaskMeta {
        // SAFETY: by the invariant the allocation is alive, and async-task drops the metadata with the allocation.
        unsafe { self.meta.as_ref() }
    }
}

/// What the loop's table keeps of a task that is not done.
///
/// Its reference is counted: async-task frees a pending task, coroutine and all, that nothing refers to any more.
pub(crate) struct TaskSlot {
    task: TaskRef,
    vars: Vars,
    /// asyncio: `_fut_waiter`.
    waiting: Waiting,
    /// Who is told of the end first.
    member: Option<Member>,
}

impl TaskSlot {
    /// Whether its drop may run foreign code.
    fn holds_something(&self) -> bool {
        self.vars.is_some() || !matches!(self.waiting, Waiting::Nothing)
    }
}

/// A [`TaskRef`] that is not counted: its maker says why the task is alive.
#[derive(Clone, Copy)]
pub(crate) struct BorrowedTask {
    meta: NonNull<TaskMeta>,
    data: *const (),
    vtable: &'static RawWakerVTable,
}

impl BorrowedTask {
    fn new(meta: &TaskMeta, waker: &Waker) -> Self {
        BorrowedTask { meta: NonNull::from(meta), data: waker.data(), vtable: waker.vtable() }
    }

    /// # Safety
    ///
    /// The task's coroutine has not been dropped yet.
    unsafe fn to_ref(self) -> TaskRef {
        // SAFETY: data and vtable come from a waker of this task, which is alive by the caller's word; the copy is
        // never dropped, so it needs no count of its own.
        let waker = ManuallyDrop::new(unsafe { Waker::new(self.data, self.vtable) });
        TaskRef { waker: Waker::clone(&waker), meta: self.meta }
    }

    pub(crate) fn is_woken_by(self, waker: &Waker) -> bool {
        self.data == waker.data() && std::ptr::eq(self.vtable, waker.vtable())
    }
}

/// The tasks of a loop that are not done.
#[derive(Default)]
pub(crate) struct Tasks {
    slots: Pages<TaskSlot>,
    last: u32,
}

impl Tasks {
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// References to all of them.
    pub(crate) fn all(&self) -> Vec<TaskRef> {
        self.slots.iter().map(|slot| slot.task.clone()).collect()
    }

    #[inline]
    fn get_mut(&mut self, key: TaskKey) -> Option<&mut TaskSlot> {
        let slot = self.slots.get_mut(key.slot)?;
        (slot.task.key() == key).then_some(slot)
    }

    /// The variables of a task that is not in a step.
    pub(super) fn take_vars(&mut self, key: TaskKey) -> Vars {
        self.get_mut(key).and_then(|slot| slot.vars.take())
    }

    /// What a step begins with: the variables; and what the task waited for, to be dropped: it says anew what it waits
    /// for, or waits for it no more.
    fn take_for_step(&mut self, key: TaskKey) -> (Vars, Waiting) {
        let taken = self.get_mut(key).map(|slot| (slot.vars.take(), std::mem::take(&mut slot.waiting)));
        taken.unwrap_or_default()
    }

    /// Gives the slot for the caller to drop: what the task waited for may be the last of its kind.
    #[inline]
    fn remove(&mut self, key: TaskKey) -> Option<TaskSlot> {
        self.get_mut(key)?;
        self.slots.remove(key.slot)
    }

    pub(crate) fn find(&mut self, key: TaskKey) -> Option<TaskRef> {
        self.get_mut(key).map(|slot| slot.task.clone())
    }

    /// Says what the task waits for; the last word of a step counts. Gives what was said before, for the caller to drop.
    pub(crate) fn set_waiting(&mut self, key: TaskKey, waiting: Waiting) -> Waiting {
        let Some(slot) = self.get_mut(key) else { return waiting };
        slot.task.set_local(local::TABLE);
        std::mem::replace(&mut slot.waiting, waiting)
    }

    /// Gives what the task waits for, if that is `target`, for the caller to drop.
    pub(crate) fn take_waiting(&mut self, key: TaskKey, target: usize) -> Waiting {
        match self.get_mut(key) {
            Some(slot) if slot.waiting.target() == target => std::mem::take(&mut slot.waiting),
            _ => Waiting::Nothing,
        }
    }

    /// Lets `member`'s observer be told of the end, unless another is.
    pub(super) fn set_member(&mut self, key: TaskKey, member: Member) -> bool {
        match self.get_mut(key) {
            Some(slot) if slot.member.is_none() => {
                slot.member = Some(member);
                true
            }
            _ => false,
        }
    }

    pub(super) fn take_member(&mut self, key: TaskKey, member: Member) {
        if let Some(slot) = self.get_mut(key).filter(|slot| slot.member == Some(member)) {
            slot.member = None;
        }
    }

    pub(crate) fn waiting(&mut self, key: TaskKey) -> Waiting {
        self.get_mut(key).map_or(Waiting::Nothing, |slot| slot.waiting.clone())
    }
}

impl TaskRef {
    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    pub(crate) fn is(&self, other: &TaskRef) -> bool {
        self.meta == other.meta
    }

    pub(crate) fn address(&self) -> usize {
        self.meta.as_ptr() as usize
    }

    /// Wakes the task, and the awaitables inside that wait under another waker.
    pub(crate) fn wake_all(&self) {
        let foreign = self.read_rare(|rare| {
            let wakers = rare.foreign.iter().map(|(_, (_, waker))| waker.clone());
            Some(wakers.collect::<Vec<_>>())
        });
        self.waker.wake_by_ref();
        foreign.into_iter().flatten().for_each(wake);
    }

    /// Whether an awaitable waits under a waker that is not the task's own, in a scope that `is_inside`.
    pub(super) fn has_foreign(&self, is_inside: impl Fn(Option<ScopeKey>) -> bool) -> bool {
        self.read_rare(|rare| Some(rare.foreign.iter().any(|(_, (scope, _))| is_inside(*scope)))).unwrap_or(false)
    }

    /// The wakers that are not the task's own, of awaitables that wait in one of the scopes that are `within`.
    pub(super) fn foreign_within(&self, within: impl Fn(ScopeKey) -> bool) -> Vec<Waker> {
        let foreign = self.read_rare(|rare| {
            let inside = rare.foreign.iter().filter(|(_, (scope, _))| scope.is_some_and(&within));
            Some(inside.map(|(_, (_, waker))| waker.clone()).collect())
        });
        foreign.unwrap_or_default()
    }
}

/// A task that has been made, with the runnable that begins it.
pub(crate) struct Spawned<T> {
    pub(crate) task: TaskRef,
    pub(crate) outcome: async_task::Task<Result<T>, TaskMeta>,
    pub(crate) runnable: Runnable<TaskMeta>,
}

/// Makes a task whose context has `vars`; whoever calls schedules or runs the runnable. One handle is counted.
pub(crate) fn spawn<T, F>(
    event_loop: &EventLoop,
    coroutine: F,
    vars: Vars,
    created: &'static Location<'static>,
    member: Option<Member>,
) -> Spawned<T>
where
    T: 'static,
    F: StdFuture<Output = Result<T>> + 'static,
{
    let mut tasks = event_loop.inner.tasks.borrow_mut();
    tasks.last = tasks.last.wrapping_add(1);
    let number = tasks.last;
    let slot = tasks.slots.vacant();
    let meta = TaskMeta::new(event_loop.inner.shared.clone(), created, TaskKey { slot, number });
    let driver = move |meta| Driver { meta, coroutine: Some(coroutine) };
    // SAFETY: the coroutine is `'static`. It need not be `Send`: it is polled and dropped by runnables only, `schedule`
    // gives those to the loop's thread, and the loop's close waits until no coroutine is left (the table is empty). The
    // schedule function is a fn item: `Send`, `Sync` and `'static`.
    let (runnable, outcome) = unsafe { async_task::Builder::new().metadata(meta).spawn_unchecked(driver, schedule) };
    let task = TaskRef { waker: runnable.waker(), meta: NonNull::from(runnable.metadata()) };
    if vars.is_some() {
        task.set_local(local::TABLE);
    }
    tasks.slots.insert(TaskSlot { task: task.clone(), vars, waiting: Waiting::Nothing, member });
    drop(tasks);
    Spawned { task, outcome, runnable }
}

/// Queues a woken task: at once on its loop's thread while that runs, through the inbox everywhere else.
fn schedule(runnable: Runnable<TaskMeta>) {
    let elsewhere = running::with(|running| match running {
        Some(event_loop) if Arc::ptr_eq(&event_loop.inner.shared, &runnable.metadata().shared) => {
            event_loop.push(Ready::Step(runnable));
            None
        }
        _ => Some(runnable),
    });
    if let Some(runnable) = elsewhere {
        schedule_elsewhere(runnable);
    }
}

#[cold]
fn schedule_elsewhere(runnable: Runnable<TaskMeta>) {
    let shared = runnable.metadata().shared.clone();
    if let Err(job) = shared.push(Job::Step(runnable)) {
        // A closed inbox means that no coroutine is left, so this cannot be; but to drop a runnable is to drop its
        // coroutine, and that must not happen here.
        std::mem::forget(job);
    }
}

/// The future that async-task polls: a coroutine, and what asyncio does around each of its steps.
///
/// Invariant: `coroutine` is pinned with the driver; it is `None` once it has ended.
struct Driver<'a, F> {
    meta: &'a TaskMeta,
    coroutine: Option<F>,
}

impl<T, F: StdFuture<Output = Result<T>>> StdFuture for Driver<'_, F> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<T>> {
        // SAFETY: `meta` is not pinned, and `coroutine` is never moved: it is used behind a new pin only.
        let this = unsafe { self.get_unchecked_mut() };
        // SAFETY: as above.
        let mut coroutine = unsafe { Pin::new_unchecked(&mut this.coroutine) };
        let meta = this.meta;
        let event_loop = running::current().expect("runnables run on their loop");
        let entered = match event_loop.begin_step(meta) {
            Ok(entered) => entered,
            Err(error) => {
                event_loop.drop_user_value(meta, cx.waker(), || coroutine.set(None));
                event_loop.finish_task(meta, cx.waker(), Some(&error), false);
                return Poll::Ready(Err(error));
            }
        };
        let forwarded = meta.has(flag::FORWARDED);
        let task = BorrowedTask::new(meta, cx.waker());
        let polling = Polling::begin(&event_loop, meta, &task);
        let polled = match coroutine.as_mut().as_pin_mut() {
            Some(coroutine) => catch_unwind(AssertUnwindSafe(|| coroutine.poll(cx))),
            None => Ok(Poll::Pending),
        };
        let mut panicked = false;
        let outcome = match polled {
            Ok(Poll::Ready(Ok(value))) if !meta.is_marked() || meta.local(local::KEPT) => Ok(value),
            Ok(Poll::Ready(Ok(value))) => {
                event_loop.drop_user_value(meta, cx.waker(), move || drop(value));
                Err(Error::Cancelled(meta.take_mark().unwrap_or_default()))
            }
            Ok(Poll::Ready(Err(error))) => Err(error),
            Ok(Poll::Pending) => match meta.verdict(|| event_loop.spares(None, meta.key())) {
                Some(cancelled) => Err(Error::Cancelled(cancelled)),
                None => {
                    if forwarded {
                        meta.take_back_forwarded(cx.waker());
                    }
                    if meta.is_to_offer() {
                        cx.waker().wake_by_ref();
                    }
                    event_loop.end_step(polling, entered);
                    return Poll::Pending;
                }
            },
            Err(payload) => {
                panicked = true;
                Err(Error::from_panic(payload))
            }
        };
        event_loop.drop_user_value(meta, cx.waker(), || coroutine.set(None));
        event_loop.end_step(polling, entered);
        event_loop.finish_task(meta, cx.waker(), outcome.as_ref().err(), panicked);
        if meta.has(flag::DETACHED) {
            // async-task would drop it in a place where a panic aborts the process.
            event_loop.drop_user_value(meta, cx.waker(), move || drop(outcome));
            return Poll::Ready(Err(Error::cancelled()));
        }
        Poll::Ready(outcome)
    }
}

/// Makes a task the current one until this is dropped, however its step ends: what is current is alive.
struct Polling<'a> {
    event_loop: &'a EventLoop,
    meta: &'a TaskMeta,
    /// The task that this one's step begins inside of, and the scope there.
    outer: Option<(NonNull<BorrowedTask>, Option<ScopeKey>)>,
}

impl<'a> Polling<'a> {
    /// `task` is `meta`'s.
    #[inline]
    fn begin(event_loop: &'a EventLoop, meta: &'a TaskMeta, task: &'a BorrowedTask) -> Self {
        let inner = &event_loop.inner;
        let outer = inner.current.replace(Some(NonNull::from(task)));
        // Without a task around there is no scope.
        let outer = outer.map(|outer| (outer, inner.scope.take()));
        Polling { event_loop, meta, outer }
    }
}

impl Drop for Polling<'_> {
    #[inline]
    fn drop(&mut self) {
        let inner = &self.event_loop.inner;
        inner.current.set(self.outer.map(|outer| outer.0));
        if let Some((_, scope)) = self.outer {
            inner.scope.set(scope);
        }
        self.meta.clear_local(local::STEPPING);
    }
}

impl<F> Drop for Driver<'_, F> {
    /// Keeps the table right where a runnable is dropped instead of run, which the loop itself never does.
    fn drop(&mut self) {
        if self.coroutine.is_none() {
            return;
        }
        if let Some(event_loop) = running::local(&self.meta.shared) {
            event_loop.end_grace(self.meta);
            let slot = event_loop.inner.tasks.borrow_mut().remove(self.meta.key());
            if let Some(member) = slot.as_ref().and_then(|slot| slot.member) {
                event_loop.member_ended(member, None);
            }
            drop(slot);
        }
        self.meta.take_mark();
        let waiters = self.meta.end_unfinished();
        if let Some(event_loop) = running::local(&self.meta.shared) {
            event_loop.notify(waiters);
        }
    }
}

/// What is left to do when async-task has put the outcome into its place: done by the turn, outside all borrows.
pub(crate) struct Finished {
    waiters: Waiters,
    report: Option<ExceptionContext>,
    /// The context that the report is made in.
    place: Option<ContextRef>,
}

impl EventLoop {
    /// Enters the task's context for a step, or says why there is none.
    #[inline]
    fn begin_step(&self, meta: &TaskMeta) -> Result<Entered> {
        if meta.local(local::MARKED | local::KILLED | local::TABLE | local::CONTEXT) {
            return self.begin_special_step(meta);
        }
        meta.set_local(local::STARTED | local::STEPPING);
        context::enter(ContextRef::Bare(None), meta.identity())
    }

    fn begin_special_step(&self, meta: &TaskMeta) -> Result<Entered> {
        if meta.local(local::KILLED) || (meta.is_marked() && !meta.has_started()) {
            return Err(Error::Cancelled(meta.take_mark().unwrap_or_default()));
        }
        if meta.is_marked() {
            meta.set_local(local::OFFERED);
        }
        let (vars, waited) = if meta.local(local::TABLE) {
            meta.clear_local(local::TABLE);
            self.inner.tasks.borrow_mut().take_for_step(meta.key())
        } else {
            Default::default()
        };
        drop(waited);
        let context = if meta.local(local::CONTEXT) {
            ContextRef::Shared(meta.read_rare(|rare| rare.context.clone()).unwrap_or_default())
        } else {
            ContextRef::Bare(vars)
        };
        let entered = context::enter(context, meta.identity())?;
        meta.set_local(local::STARTED | local::STEPPING);
        Ok(entered)
    }

    /// Leaves the task's context and keeps what was set in it.
    #[inline]
    fn end_step(&self, polling: Polling<'_>, entered: Entered) {
        let meta = polling.meta;
        drop(polling);
        match entered.leave() {
            ContextRef::Bare(None) => {}
            left => self.keep_context(meta, left),
        }
    }

    fn keep_context(&self, meta: &TaskMeta, left: ContextRef) {
        let ContextRef::Bare(mut vars) = left else { return };
        if meta.local(local::CONTEXT) {
            return;
        }
        meta.set_local(local::TABLE);
        if let Some(slot) = self.inner.tasks.borrow_mut().get_mut(meta.key()) {
            std::mem::swap(&mut slot.vars, &mut vars);
        }
        drop(vars);
    }

    /// Runs drops of the user's, a coroutine's or a context's, which may panic; that is reported, for nobody could
    /// receive it.
    fn drop_user_value(&self, meta: &TaskMeta, waker: &Waker, drop_it: impl FnOnce()) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(drop_it)) {
            // SAFETY: the driver that calls this has not returned, so the allocation is alive.
            let task = AnyTask::new(unsafe { BorrowedTask::new(meta, waker).to_ref() });
            self.report_panic("Panic while a coroutine was dropped", payload, task);
        }
    }

    fn report_panic(&self, message: &str, payload: Box<dyn Any + Send>, task: AnyTask) {
        let created = task.source_location();
        let context = ExceptionContext::new(message).exception(Error::from_panic(payload)).task(task);
        self.call_exception_handler(&context.source_location(created));
    }

    /// Marks a task as done whose coroutine is gone, and says what the turn has to do.
    fn finish_task(&self, meta: &TaskMeta, waker: &Waker, error: Option<&Error>, panicked: bool) {
        meta.take_mark();
        let slot = self.inner.tasks.borrow_mut().remove(meta.key());
        let member = slot.as_ref().and_then(|slot| slot.member);
        let slot = slot.filter(TaskSlot::holds_something);
        let outcome = match error {
            None => 0,
            Some(Error::Cancelled(_)) => flag::CANCELLED,
            Some(_) => flag::FAILED,
        };
        let mut context = None;
        if meta.local(local::CONTEXT) || error.is_some() {
            context = meta.with_rare(|rare| {
                rare.error = error.cloned();
                rare.context.take()
            });
        }
        // A failure that is reported at once is reported in the task's context.
        let place = match outcome {
            flag::FAILED => slot.as_ref().map(|slot| ContextRef::Bare(slot.vars.clone())),
            _ => None,
        };
        let mut place = context.clone().filter(|_| outcome == flag::FAILED).map(ContextRef::Shared).or(place);
        if context.is_some() || slot.is_some() {
            self.drop_user_value(meta, waker, move || drop((slot, context)));
        }
        let observed = member.and_then(|member| self.member_ended(member, error));
        let seen = if observed == Some(true) { flag::SEEN } else { 0 };
        let before = meta.add(flag::DONE | outcome | seen);
        let (waiters, timer) = if before & flag::LISTED != 0 {
            meta.with_rare(|rare| (std::mem::take(&mut rare.waiters), rare.grace_timer.take()))
        } else {
            Default::default()
        };
        if let Some(timer) = timer {
            let entry = self.inner.timers.borrow_mut().remove(timer.1);
            drop(entry);
        }
        let unread = match outcome {
            flag::FAILED => {
                let unawaited = observed.is_none() && before & flag::AWAITED == 0 && !waiters.has_wakers();
                let nobody_left = !meta.has_handles();
                (nobody_left || (panicked && unawaited)) && meta.claim_report()
            }
            _ => false,
        };
        let report = unread.then(|| {
            // SAFETY: the driver that calls this has not returned, so the allocation is alive.
            never_retrieved(unsafe { BorrowedTask::new(meta, waker).to_ref() })
        });
        if report.is_none() && place.is_some() {
            self.drop_user_value(meta, waker, || drop(place.take()));
        }
        if report.is_some() || !waiters.is_empty() {
            self.inner.finished.borrow_mut().push(Finished { waiters, report, place });
            self.inner.has_finished.set(true);
        }
    }

    /// The task ends unfinished: nobody has to drop it any more.
    #[cold]
    fn end_grace(&self, meta: &TaskMeta) {
        let timer = meta.read_rare(|rare| rare.grace_timer.take());
        let entry = timer.and_then(|timer| self.inner.timers.borrow_mut().remove(timer.1));
        drop(entry);
    }

    /// Runs a task's step, and what its end brings.
    pub(crate) fn run_step(&self, runnable: Runnable<TaskMeta>) {
        runnable.run();
        if self.inner.has_finished.replace(false) {
            self.tell_finished();
        }
    }

    fn tell_finished(&self) {
        loop {
            // Not in the head of the loop: the borrow would last as long as the body.
            let finished = self.inner.finished.borrow_mut().pop();
            let Some(finished) = finished else { return };
            self.notify(finished.waiters);
            if let Some(report) = finished.report {
                let entered = finished.place.and_then(|place| context::enter(place, 0).ok());
                self.call_exception_handler(&report);
                if let (Err(payload), Some(task)) = (catch_unwind(AssertUnwindSafe(|| drop(entered))), report.task) {
                    self.report_panic("Panic while a coroutine was dropped", payload, task);
                }
            }
        }
    }

    /// The task that is being polled.
    #[inline]
    fn current(&self) -> Option<BorrowedTask> {
        // SAFETY: a task is current while its driver polls it, and what this points to lies on that driver's stack:
        // `Polling`, which borrows it, takes the pointer away.
        self.inner.current.get().map(|task| unsafe { *task.as_ref() })
    }

    /// Whether `task` is the one that is being polled.
    pub(crate) fn is_current(&self, task: &TaskRef) -> bool {
        self.current().is_some_and(|current| current.meta == task.meta)
    }

    pub(crate) fn current_task_ref(&self) -> Option<TaskRef> {
        // SAFETY: a task is current while its driver is being polled, so its allocation is alive.
        self.current().map(|task| unsafe { task.to_ref() })
    }

    /// The task that is being polled, as long as it is, and whether `waker` is its own.
    #[inline]
    pub(crate) fn current_key(&self, waker: &Waker) -> Option<(TaskKey, bool)> {
        let task = self.current()?;
        // SAFETY: as above.
        Some((unsafe { task.meta.as_ref() }.key(), task.is_woken_by(waker)))
    }

    /// Whether a wait under `waker` needs no more than to have been noted: the current task's own waker, no scope inside
    /// of the task, nothing that the task has said it waits for. The second value is whether a task is current at all.
    #[inline]
    pub(crate) fn waits_plainly(&self, waker: &Waker) -> (bool, bool) {
        let Some(task) = self.current() else { return (false, false) };
        // SAFETY: as above.
        let may_wait = unsafe { task.meta.as_ref() }.local(local::TABLE);
        (task.is_woken_by(waker) && !may_wait && self.inner.scope.get().is_none(), true)
    }

    /// Whether the task that is being polled has said in this step, or may have, that it waits for something.
    pub(crate) fn current_may_wait(&self) -> bool {
        self.with_current(|task| task.local(local::TABLE)).unwrap_or(false)
    }

    /// Looks at the task that is being polled.
    #[inline]
    pub(crate) fn with_current<R>(&self, look: impl FnOnce(&TaskMeta) -> R) -> Option<R> {
        let task = self.current()?;
        // SAFETY: as above.
        Some(look(unsafe { task.meta.as_ref() }))
    }

    /// The N of the first name "Task-N" of the task that is being polled.
    pub(crate) fn current_number(&self) -> Option<u32> {
        self.with_current(|task| task.key().number)
    }

    /// Lets a task's next step drop its coroutine, if it is not done.
    pub(crate) fn kill_task(&self, key: TaskKey) {
        let task = self.inner.tasks.borrow_mut().find(key);
        if let Some(task) = task {
            task.kill();
            task.wake_all();
        }
    }
}

/// The report of an error that nobody looked at.
pub(crate) fn never_retrieved(task: TaskRef) -> ExceptionContext {
    let created = task.created;
    let error = task.error();
    let mut context = ExceptionContext::new("Task exception was never retrieved").task(AnyTask::new(task));
    context.exception = error;
    context.source_location(created)
}

/// Something that `run_until_complete` polls in place: it may borrow, so its task only knows where it is.
///
/// Invariant: `target` points to a value that lives and is pinned on the caller's stack, or is `None`; the caller clears
/// it before the value goes.
pub(crate) struct InPlace {
    target: Target,
}

/// Shared by the task and the stack frame that it must not outlive.
type Target = Rc<Cell<Option<NonNull<dyn PolledInPlace>>>>;

/// What the task sees of the caller's coroutine.
trait PolledInPlace {
    fn poll_in_place(&mut self, cx: &mut Cx<'_>) -> Poll<Result<()>>;
    fn drop_in_place(&mut self);
}

/// The caller's side: the coroutine and, later, what it gave. Pinned on the stack by `with_in_place`.
struct Frame<T, F> {
    /// Pinned: never moved, dropped in place by being set to `None`.
    coroutine: Option<F>,
    outcome: Option<Result<T>>,
}

impl<T, F: StdFuture<Output = Result<T>>> PolledInPlace for Frame<T, F> {
    fn poll_in_place(&mut self, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        let Some(coroutine) = &mut self.coroutine else { return Poll::Ready(Err(Error::cancelled())) };
        // SAFETY: the frame is pinned on the stack of `with_in_place` and never moved; nor is its coroutine.
        let polled = unsafe { Pin::new_unchecked(coroutine) }.poll(cx);
        polled.map(|outcome| {
            let brief = outcome.as_ref().map(|_| ()).map_err(Error::clone);
            self.outcome = Some(outcome);
            brief
        })
    }

    fn drop_in_place(&mut self) {
        // In place: the assignment drops the coroutine where it lies.
        self.coroutine = None;
    }
}

impl StdFuture for InPlace {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        match self.target.get() {
            // SAFETY: by the invariant the frame is alive; it is reached through this pointer only, on one thread, and
            // not twice at once because a task is not polled while it is being polled.
            Some(mut frame) => unsafe { frame.as_mut() }.poll_in_place(cx),
            None => Poll::Ready(Err(Error::cancelled())),
        }
    }
}

impl Drop for InPlace {
    fn drop(&mut self) {
        if let Some(mut frame) = self.target.take() {
            // SAFETY: as in `poll`; the task is not being polled while it drops its coroutine.
            unsafe { frame.as_mut() }.drop_in_place();
        }
    }
}

/// Lends `coroutine` to `body` as something that a task can poll, with a switch that drops it at once. When this returns,
/// the coroutine has been dropped; the second value is its outcome, if it came to one.
pub(crate) fn with_in_place<T, F, R>(coroutine: F, body: impl FnOnce(InPlace, &dyn Fn()) -> R) -> (R, Option<Result<T>>)
where
    F: StdFuture<Output = Result<T>>,
{
    /// Cuts the task off from the frame, also when `body` panics.
    struct Cut<'a>(&'a Target);
    impl Drop for Cut<'_> {
        fn drop(&mut self) {
            self.0.take();
        }
    }

    let mut frame = Frame { coroutine: Some(coroutine), outcome: None };
    let erased: NonNull<dyn PolledInPlace + '_> = NonNull::from(&mut frame);
    // SAFETY: only the lifetime changes. The pointer is used by `InPlace` and `drop_now` alone, and `Cut` takes it away
    // before `frame` goes: it is declared later, so it is dropped earlier.
    let erased: NonNull<dyn PolledInPlace> = unsafe { std::mem::transmute(erased) };
    let target: Target = Rc::new(Cell::new(Some(erased)));
    let cut = Cut(&target);
    let result = body(InPlace { target: target.clone() }, &|| drop(InPlace { target: target.clone() }));
    drop(cut);
    // In place, for it is pinned; usually it is gone already.
    frame.coroutine = None;
    (result, frame.outcome)
}

impl EventLoop {
    /// Takes a task out of the loop that nobody will finish: its coroutine has been dropped.
    pub(crate) fn abandon_task(&self, task: &TaskRef) {
        task.take_mark();
        self.end_grace(task);
        let slot = self.inner.tasks.borrow_mut().remove(task.key());
        if let Some(member) = slot.as_ref().and_then(|slot| slot.member) {
            self.member_ended(member, None);
        }
        self.drop_guarded(move || drop(slot));
        self.notify(task.end_unfinished());
    }
}
