//! What is known of a task besides its coroutine: the metadata in its allocation.

use std::{
    panic::Location,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU8, AtomicU16, AtomicU32, Ordering},
    },
    task::Waker,
    time::Instant,
};

use crate::{
    constants::MOST_SPARED,
    context::{self, Context},
    error::{Cancelled, Error},
    event_loop::{EventLoop, child_scope::ScopeKey, scope, threadsafe::Shared, timers::TimerKey, waiters::Waiters},
};

/// What any thread may ask of a task; it lies in the task's one allocation, before the coroutine.
pub(crate) struct TaskMeta {
    pub(crate) shared: Arc<Shared>,
    pub(crate) created: &'static Location<'static>,
    /// What few tasks have.
    rare: Mutex<Option<Box<Rare>>>,
    /// How many `Task` and `AnyTask` there are: who may still look at a failure.
    handles: AtomicU32,
    /// The task's place in the loop's table, until it is done.
    slot: u32,
    /// Tells tasks of one loop apart that had the same slot; also the N of "Task-N".
    number: u32,
    /// asyncio: `_num_cancels_requested`, without those of timeouts and groups inside.
    requests: AtomicU16,
    /// The `flag::` bits: set by the loop's thread (`SEEN`, `AWAITED`, `LISTED`, `DETACHED` by any), never cleared.
    flags: AtomicU8,
    /// The `local::` bits: read and written by the loop's thread only, so plain loads and stores do.
    local: AtomicU8,
}

#[derive(Default)]
pub(crate) struct Rare {
    name: Option<Box<str>>,
    pub(super) error: Option<Error>,
    /// Of a cancellation that is marked or forwarded and not yet taken.
    reason: Cancelled,
    /// Goes with a mark: it was held back once, for an awaitable that has begun to wait since.
    deferred: bool,
    /// Goes with a mark: how often the coroutine was spared although nobody took it.
    spared: u8,
    /// How many scopes inside of the task have asked it to cancel and not ended yet.
    raised: u32,
    /// How many shields are open inside of the task.
    shields: u32,
    pub(super) waiters: Waiters,
    /// Set while `local::CONTEXT` is.
    pub(super) context: Option<Context>,
    /// Set from `cancel_with_grace` to the end.
    pub(super) grace_timer: Option<(Instant, TimerKey)>,
    /// Wakers that are not the task's own, of awaitables inside that wait, and the innermost scope of each.
    pub(crate) foreign: slab::Slab<(Option<ScopeKey>, Waker)>,
}

pub(crate) mod flag {
    pub(crate) const DONE: u8 = 1;
    /// Goes with DONE.
    pub(crate) const CANCELLED: u8 = 2;
    /// Goes with DONE: there is an error that is not a cancellation.
    pub(crate) const FAILED: u8 = 4;
    /// Somebody has looked at the outcome, or it has been reported.
    pub(crate) const SEEN: u8 = 8;
    /// A `Task` has been polled and waits, or the task is waited for by who runs the loop.
    pub(crate) const AWAITED: u8 = 16;
    /// `Rare::waiters` or `Rare::grace_timer` has been used.
    pub(crate) const LISTED: u8 = 32;
    /// The `Task` has been dropped: nobody will take the value.
    pub(crate) const DETACHED: u8 = 64;
    /// A cancellation was forwarded to a future; cleared when it is received as that future's outcome.
    pub(crate) const FORWARDED: u8 = 128;
}

pub(super) mod local {
    /// The loop's table holds something for the next step: variables, or what the task waits for.
    pub(in crate::event_loop) const TABLE: u8 = 64;
    pub(in crate::event_loop) const STARTED: u8 = 1;
    /// A cancellation waits to be taken (asyncio: `_must_cancel`). Counted by `scope::marks`.
    pub(in crate::event_loop) const MARKED: u8 = 2;
    /// The context is a shared one, in `Rare::context`.
    pub(in crate::event_loop) const CONTEXT: u8 = 4;
    /// The next step drops the coroutine, whatever it does.
    pub(in crate::event_loop) const KILLED: u8 = 8;
    /// The coroutine is not dropped because nobody takes a cancellation (`block_on`).
    pub(in crate::event_loop) const KEPT: u8 = 16;
    /// Set by begin_step, cleared by end_step: the variables are with the thread.
    pub(in crate::event_loop) const STEPPING: u8 = 32;
    /// Goes with MARKED: it was when the present step began, so that whoever can take the mark has the chance.
    pub(in crate::event_loop) const OFFERED: u8 = 128;
}

/// Names a task of one loop for as long as it is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TaskKey {
    pub(crate) slot: u32,
    pub(crate) number: u32,
}

impl TaskMeta {
    /// A task that has one handle.
    pub(super) fn new(shared: Arc<Shared>, created: &'static Location<'static>, key: TaskKey) -> Self {
        TaskMeta {
            shared,
            created,
            rare: Mutex::new(None),
            handles: AtomicU32::new(1),
            slot: key.slot,
            number: key.number,
            requests: AtomicU16::new(0),
            flags: AtomicU8::new(0),
            local: AtomicU8::new(0),
        }
    }

    #[inline]
    pub(crate) fn key(&self) -> TaskKey {
        TaskKey { slot: self.slot, number: self.number }
    }

    #[inline]
    pub(crate) fn has(&self, bits: u8) -> bool {
        self.flags.load(Ordering::Acquire) & bits != 0
    }

    /// Sets bits and gives those that were set before.
    #[inline]
    pub(crate) fn add(&self, bits: u8) -> u8 {
        self.flags.fetch_or(bits, Ordering::SeqCst)
    }

    /// Notes a look at the outcome of a task that is done: only a failure is ever reported.
    #[inline]
    pub(crate) fn see(&self) {
        if self.has(flag::FAILED) {
            self.add(flag::SEEN);
        }
    }

    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        self.has(flag::DONE)
    }

    #[inline]
    pub(super) fn local(&self, bits: u8) -> bool {
        self.local.load(Ordering::Relaxed) & bits != 0
    }

    #[inline]
    pub(super) fn set_local(&self, bits: u8) {
        self.local.store(self.local.load(Ordering::Relaxed) | bits, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn clear_local(&self, bits: u8) {
        self.local.store(self.local.load(Ordering::Relaxed) & !bits, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn is_marked(&self) -> bool {
        self.local(local::MARKED)
    }

    #[inline]
    pub(crate) fn has_started(&self) -> bool {
        self.local(local::STARTED)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<Rare>>> {
        self.rare.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Works on what few tasks have, under its lock: no foreign code in `work`.
    pub(crate) fn with_rare<R>(&self, work: impl FnOnce(&mut Rare) -> R) -> R {
        work(self.lock().get_or_insert_default())
    }

    pub(super) fn read_rare<R>(&self, read: impl FnOnce(&mut Rare) -> Option<R>) -> Option<R> {
        self.lock().as_deref_mut().and_then(read)
    }

    /// Works on the list of waiters unless the task is done.
    pub(crate) fn with_waiters<R>(&self, work: impl FnOnce(&mut Waiters) -> R) -> Option<R> {
        self.with_rare(|rare| {
            // Under the lock: the end of the task sets DONE first and then takes the list under the lock.
            let before = self.add(flag::LISTED);
            (before & flag::DONE == 0).then(|| work(&mut rare.waiters))
        })
    }

    pub(crate) fn name(&self) -> String {
        let given = self.read_rare(|rare| rare.name.as_ref().map(ToString::to_string));
        given.unwrap_or_else(|| format!("Task-{}", self.number))
    }

    pub(crate) fn set_name(&self, name: String) {
        self.with_rare(|rare| rare.name = Some(name.into()));
    }

    /// The error that the task ended with.
    pub(crate) fn error(&self) -> Option<Error> {
        self.read_rare(|rare| rare.error.clone())
    }

    pub(crate) fn cancelling(&self) -> u32 {
        self.requests() + self.raised()
    }

    /// How often somebody outside of it asked the task to cancel.
    pub(crate) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed).into()
    }

    fn raised(&self) -> u32 {
        self.read_rare(|rare| Some(rare.raised)).unwrap_or(0)
    }

    /// A scope inside of the task asks it to cancel, until [`lower`](Self::lower).
    pub(crate) fn raise(&self) {
        self.with_rare(|rare| rare.raised += 1);
    }

    /// A shield is opened inside of the task, until [`end_shield`](Self::end_shield).
    pub(super) fn begin_shield(&self) {
        self.with_rare(|rare| rare.shields += 1);
    }

    pub(super) fn end_shield(&self) {
        self.with_rare(|rare| rare.shields = rare.shields.saturating_sub(1));
    }

    pub(super) fn has_shields(&self) -> bool {
        self.read_rare(|rare| Some(rare.shields > 0)).unwrap_or(false)
    }

    pub(crate) fn lower(&self) {
        self.with_rare(|rare| rare.raised = rare.raised.saturating_sub(1));
    }

    pub(crate) fn request_cancel(&self) {
        // Saturates; a task with 65,535 requests is cancelled enough.
        let _ = self.requests.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_add(1));
    }

    pub(crate) fn uncancel(&self) -> u32 {
        let before = self.requests.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1));
        let left = before.map_or(0, |count| count - 1);
        if left == 0 && self.shared.on_its_thread() && !self.is_done() {
            self.take_mark();
        }
        u32::from(left) + self.raised()
    }

    /// Marks the task as cancelled. On the loop's thread only.
    pub(crate) fn mark(&self, reason: Cancelled) {
        let is_new = !self.is_marked();
        if is_new {
            self.set_local(local::MARKED);
            scope::count_mark();
        }
        self.with_rare(|rare| {
            rare.reason = reason;
            rare.deferred &= !is_new;
            rare.spared *= u8::from(!is_new);
        });
    }

    /// Takes the mark, if there is one. On the loop's thread only.
    #[inline]
    pub(crate) fn take_mark(&self) -> Option<Cancelled> {
        if !self.is_marked() {
            return None;
        }
        self.clear_local(local::MARKED | local::OFFERED);
        scope::uncount_mark();
        self.receive_forwarded();
        Some(self.take_reason())
    }

    fn take_reason(&self) -> Cancelled {
        self.read_rare(|rare| Some(std::mem::take(&mut rare.reason))).unwrap_or_default()
    }

    /// The mark was not for this step: another was taken instead, or nobody could take any. The next one offers it again.
    pub(super) fn withhold_mark(&self) {
        self.clear_local(local::OFFERED);
    }

    /// Holds the mark back for the next step, once.
    pub(super) fn defer_mark(&self) {
        if self.local(local::OFFERED) && !self.with_rare(|rare| std::mem::replace(&mut rare.deferred, true)) {
            self.clear_local(local::OFFERED);
        }
    }

    /// The cancellation to end a pending coroutine with, if it is to end: nobody took the mark that the step began with,
    /// or it was killed. A mark that is set during a step is left for the next one.
    #[inline]
    pub(super) fn verdict(&self, is_spared: impl FnOnce() -> bool) -> Option<Cancelled> {
        if !self.local(local::OFFERED | local::KILLED) {
            return None;
        }
        if self.local(local::KILLED) {
            return Some(self.take_mark().unwrap_or_default());
        }
        if self.local(local::KEPT) || is_spared() { None } else { self.take_mark() }
    }

    /// Counts that the coroutine is spared; false if that was often enough.
    pub(super) fn spare(&self) -> bool {
        self.clear_local(local::OFFERED);
        self.with_rare(|rare| {
            rare.spared = rare.spared.saturating_add(1);
            rare.spared <= MOST_SPARED
        })
    }

    /// Whether a mark waits that was not for the step that ends: it was set in it, or another was taken instead.
    #[inline]
    pub(super) fn is_to_offer(&self) -> bool {
        self.local(local::MARKED) && !self.local(local::OFFERED)
    }

    /// Notes that a future has accepted the task's cancellation: the task's next step receives it there.
    pub(crate) fn note_forwarded(&self, reason: Cancelled) {
        self.with_rare(|rare| rare.reason = reason);
        self.add(flag::FORWARDED);
    }

    /// A cancellation that was forwarded to a future has come back as that future's outcome.
    pub(crate) fn receive_forwarded(&self) {
        if self.has(flag::FORWARDED) {
            self.flags.fetch_and(!flag::FORWARDED, Ordering::SeqCst);
        }
    }

    /// The cancellation that was forwarded, if it has not come back: it is received in another way.
    pub(crate) fn take_forwarded(&self) -> Option<Cancelled> {
        if !self.has(flag::FORWARDED) {
            return None;
        }
        self.receive_forwarded();
        Some(self.take_reason())
    }

    /// After a step in which nobody received what was forwarded: the future was no longer awaited. The task itself is
    /// marked instead.
    #[cold]
    pub(super) fn take_back_forwarded(&self, waker: &Waker) {
        if self.flags.fetch_and(!flag::FORWARDED, Ordering::SeqCst) & flag::FORWARDED != 0 {
            self.mark(self.take_reason());
            waker.wake_by_ref();
        }
    }

    /// Ends a task as cancelled whose coroutine is gone; the caller tells those who wait.
    pub(super) fn end_unfinished(&self) -> Waiters {
        self.with_rare(|rare| rare.error = Some(Error::cancelled()));
        // As at every end: first the flag, then the list under the lock.
        self.add(flag::DONE | flag::CANCELLED);
        self.with_rare(|rare| std::mem::take(&mut rare.waiters))
    }

    /// Lets the next step drop the coroutine. On the loop's thread only.
    pub(crate) fn kill(&self) {
        self.set_local(local::KILLED);
    }

    pub(crate) fn keep(&self) {
        self.set_local(local::KEPT);
    }

    /// The context that the task runs in; makes it one that can be shared. An empty one once the task is done.
    pub(crate) fn context(&self, event_loop: Option<&EventLoop>) -> Context {
        if let Some(context) = self.read_rare(|rare| rare.context.clone()) {
            return context;
        }
        let Some(event_loop) = event_loop.filter(|_| !self.is_done()) else { return Context::new() };
        let context = if !self.local(local::STEPPING) {
            let vars = event_loop.inner.tasks.borrow_mut().take_vars(self.key());
            Context::from_vars(vars, self.identity())
        } else if let Some(context) = context::share_current(self.identity()) {
            context
        } else {
            // In the midst of a step that has entered another context: its variables are out of reach until it goes on.
            return Context::new();
        };
        self.set_context(context.clone());
        context
    }

    /// Tells the task's context from all others that ever were: even, as `context::fresh_identity` is odd.
    pub(super) fn identity(&self) -> u64 {
        (self.shared.id << 33) | (u64::from(self.number) << 1)
    }

    pub(crate) fn set_context(&self, context: Context) {
        self.with_rare(|rare| rare.context = Some(context));
        self.set_local(local::CONTEXT);
    }

    pub(crate) fn add_handle(&self) {
        self.handles.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the caller must report the error: the last handle goes, and nobody looked.
    #[must_use]
    #[inline]
    pub(crate) fn drop_handle(&self) -> bool {
        if self.is_done() && !self.has(flag::FAILED) {
            return false; // nothing will be reported, so that nobody asks for the count any more
        }
        let last = self.handles.fetch_sub(1, Ordering::SeqCst) == 1;
        // In one order with the end of the task, which sets the flag and then counts: one of the two sees the other.
        last && self.flags.load(Ordering::SeqCst) & flag::FAILED != 0 && self.claim_report()
    }

    pub(super) fn has_handles(&self) -> bool {
        self.handles.load(Ordering::SeqCst) > 0
    }

    /// Whether nobody has looked at the outcome or reported it so far; from now on somebody has.
    #[must_use]
    pub(super) fn claim_report(&self) -> bool {
        self.add(flag::SEEN) & flag::SEEN == 0
    }
}
