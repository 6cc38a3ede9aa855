//! Who takes a cancellation: the awaitable that the cancelled task waits in.
//!
//! `cancel()` forwards to the future or task that is being awaited, if there is one and it accepts. Otherwise the task is
//! *marked*, and the next of our awaitables that is polled again after it has suspended takes the mark.

use std::{
    cell::Cell,
    sync::Arc,
    task::{Context as Cx, Waker},
};

use crate::{
    error::{Cancelled, Text},
    event_loop::{
        EventLoop,
        meta::{TaskKey, flag},
        running,
        step::TaskRef,
    },
};

thread_local! {
    /// How many tasks of this thread's loops are marked: while it is zero, a leaf looks no further.
    static MARKS: Cell<usize> = const { Cell::new(0) };
}

pub(crate) fn count_mark() {
    MARKS.set(MARKS.get() + 1);
}

pub(crate) fn uncount_mark() {
    MARKS.set(MARKS.get().saturating_sub(1));
}

/// Something that a cancellation is forwarded to.
pub(crate) trait CancelTarget {
    /// Whether it accepted: it was not done yet.
    fn cancel_target(self: Arc<Self>, message: Option<Text>) -> bool;
}

/// What a task waits for, as far as a cancellation is forwarded there.
#[derive(Clone, Default)]
pub(crate) enum Waiting {
    #[default]
    Nothing,
    Task(TaskKey),
    Future(Arc<dyn CancelTarget>),
}

impl Waiting {
    /// What tells this from what others wait for; an address is never odd.
    pub(crate) fn target(&self) -> usize {
        match self {
            Waiting::Nothing => 0,
            Waiting::Task(key) => (key.number as usize) << 1 | 1,
            Waiting::Future(future) => Arc::as_ptr(future).cast::<()>().addr(),
        }
    }
}

/// The part of an awaitable that takes cancellations. Plain data: the awaitable may cross threads.
///
/// ```text
/// Fresh --suspend--> Suspended --resume--> Fresh
///                        `--take_cancel: a mark is taken from the polling task
/// ```
#[derive(Debug, Default)]
pub(crate) struct Leaf {
    /// Set by `suspend`, cleared by `resume`: a leaf that is ready at its first poll leaves the mark alone.
    suspended: bool,
    /// The task that knows our waker, which is not its own, and the place where it does.
    foreign: Option<(u64, TaskKey, usize)>,
    /// The task that forwards its cancellation to what we wait for, and what that is. Until the task's next step.
    forwards: Option<(u64, TaskKey, usize)>,
}

impl Leaf {
    pub(crate) const fn new() -> Self {
        Leaf { suspended: false, foreign: None, forwards: None }
    }

    /// Whether this leaf has not suspended: what is ready now is ready at its first poll.
    #[inline]
    pub(crate) fn is_fresh(&self) -> bool {
        !self.suspended
    }

    /// Takes the cancellation of the task that polls, if it has one and this leaf has suspended before.
    #[inline]
    pub(crate) fn take_cancel(&self) -> Option<Cancelled> {
        if MARKS.get() == 0 || !self.suspended {
            return None;
        }
        running::current()?.take_current_mark()
    }

    /// To be called before `Poll::Pending`, with the loop that runs if there is one.
    #[inline]
    pub(crate) fn suspend(&mut self, event_loop: Option<&EventLoop>, cx: &Cx<'_>) {
        let Some((event_loop, key)) = self.suspend_in(event_loop, cx) else { return };
        if event_loop.current_may_wait() {
            // What was polled before in this step may have been given up: this is what the task awaits now.
            let before = event_loop.inner.tasks.borrow_mut().set_waiting(key, Waiting::Nothing);
            drop(before);
        }
    }

    /// As [`suspend`](Self::suspend), for a leaf that waits for a task or future: cancelling the polling task cancels it.
    #[inline]
    pub(crate) fn suspend_on(
        &mut self,
        event_loop: Option<&EventLoop>,
        cx: &Cx<'_>,
        waiting: impl FnOnce() -> Waiting,
    ) {
        let Some((event_loop, key)) = self.suspend_in(event_loop, cx) else { return };
        let (waiting, id) = (waiting(), event_loop.inner.shared.id);
        if self.forwards.is_some_and(|before| (before.0, before.1) != (id, key)) {
            self.withdraw(); // it was polled by another task before
        }
        self.forwards = Some((id, key, waiting.target()));
        let before = event_loop.inner.tasks.borrow_mut().set_waiting(key, waiting);
        drop(before);
    }

    /// What both have in common; gives the task that polls, if one does.
    #[inline]
    fn suspend_in<'l>(&mut self, event_loop: Option<&'l EventLoop>, cx: &Cx<'_>) -> Option<(&'l EventLoop, TaskKey)> {
        self.suspended = true;
        let event_loop = event_loop?;
        let (key, own) = event_loop.current_key(cx.waker())?;
        if !own || self.foreign.is_some() {
            self.suspend_foreign(event_loop, key, own, cx.waker());
        }
        Some((event_loop, key))
    }

    #[cold]
    fn suspend_foreign(&mut self, event_loop: &EventLoop, key: TaskKey, own: bool, waker: &Waker) {
        if own {
            self.forget_waker(event_loop);
        } else {
            self.register_waker(event_loop, key, waker);
        }
    }

    /// To be called when the wait is over, or given up.
    #[inline]
    pub(crate) fn resume(&mut self) {
        self.suspended = false;
        if self.forwards.is_some() {
            self.withdraw();
        }
        if self.foreign.is_some() {
            self.withdraw_foreign();
        }
    }

    fn withdraw(&mut self) {
        let Some((id, key, target)) = self.forwards.take() else { return };
        // Elsewhere than on the loop's thread nothing can be withdrawn; a stale target is harmless.
        let take = |event_loop: &EventLoop| event_loop.inner.tasks.borrow_mut().take_waiting(key, target);
        let here = running::with(|running| running.filter(|running| running.inner.shared.id == id).map(take));
        let waiting = here.or_else(|| running::by_id(id).as_ref().map(take));
        drop(waiting);
    }

    #[cold]
    fn withdraw_foreign(&mut self) {
        // As above; a stale waker is harmless.
        if let Some(event_loop) = self.foreign.and_then(|entry| running::by_id(entry.0)) {
            self.forget_waker(&event_loop);
        }
    }

    fn register_waker(&mut self, event_loop: &EventLoop, key: TaskKey, waker: &Waker) {
        let Some(task) = event_loop.inner.tasks.borrow_mut().find(key) else { return };
        let place = self.foreign.filter(|entry| entry.0 == event_loop.inner.shared.id && entry.1 == key);
        if place.is_none() {
            self.forget_waker(event_loop);
        }
        let (place, old) = task.with_rare(|rare| match place.and_then(|(_, _, place)| rare.foreign.get_mut(place)) {
            Some(known) if known.will_wake(waker) => (None, None),
            Some(known) => (None, Some(std::mem::replace(known, waker.clone()))),
            None => (Some(rare.foreign.insert(waker.clone())), None),
        });
        drop(old);
        if let Some(place) = place {
            self.foreign = Some((event_loop.inner.shared.id, key, place));
        }
    }

    fn forget_waker(&mut self, event_loop: &EventLoop) {
        let Some((_, key, place)) = self.foreign.take() else { return };
        let task = event_loop.inner.tasks.borrow_mut().find(key);
        let waker = task.and_then(|task| task.with_rare(|rare| rare.foreign.try_remove(place)));
        drop(waker);
    }
}

impl Drop for Leaf {
    #[inline]
    fn drop(&mut self) {
        self.resume();
    }
}

impl TaskRef {
    /// asyncio: `Task.cancel`. From any thread; false if the task is done, which counts as a look at its outcome.
    pub(crate) fn cancel(&self, message: Option<Text>) -> bool {
        if self.is_done() {
            self.add(flag::SEEN);
            return false;
        }
        self.request_cancel();
        if self.shared.on_its_thread() {
            self.deliver_cancel(message);
            return true;
        }
        let task = self.clone();
        self.shared.push_call(move |_| {
            // Unless the request was taken back on its way.
            if task.cancelling() > 0 {
                task.deliver_cancel(message);
            }
        })
    }

    /// Forwards the cancellation along the chain of awaited tasks, to the future at its end, or marks the last task.
    fn deliver_cancel(&self, message: Option<Text>) {
        let Some(event_loop) = running::local(&self.shared) else { return };
        let mut task = self.clone();
        let mut ring = Ring::new(task.key());
        loop {
            if task.is_done() {
                return;
            }
            let waiting = event_loop.inner.tasks.borrow_mut().waiting(task.key());
            let awaited = match waiting {
                Waiting::Future(future) if future.clone().cancel_target(message.clone()) => {
                    task.note_forwarded(message);
                    return;
                }
                Waiting::Task(key) if !ring.closes_with(key) => event_loop.inner.tasks.borrow_mut().find(key),
                _ => None,
            };
            let Some(awaited) = awaited else { break };
            awaited.request_cancel();
            task = awaited;
        }
        task.mark(message);
        task.wake_all();
    }

    /// Whether the task waits for `other`, be it through others.
    pub(crate) fn awaits(&self, other: &TaskRef) -> bool {
        let Some(event_loop) = running::local(&self.shared) else { return false };
        let mut ring = Ring::new(self.key());
        let mut next = self.key();
        loop {
            let waiting = event_loop.inner.tasks.borrow_mut().waiting(next);
            next = match waiting {
                Waiting::Task(key) if key == other.key() => return true,
                Waiting::Task(key) if !ring.closes_with(key) => key,
                _ => return false,
            };
        }
    }
}

/// Tasks that wait for each other form a ring: it is found by meeting a task that was passed before. The one that is
/// remembered is a later one each time that the way has doubled.
struct Ring {
    passed: TaskKey,
    steps: usize,
    limit: usize,
}

impl Ring {
    fn new(first: TaskKey) -> Self {
        Ring { passed: first, steps: 0, limit: 1 }
    }

    fn closes_with(&mut self, next: TaskKey) -> bool {
        if next == self.passed {
            return true;
        }
        self.steps += 1;
        if self.steps == self.limit {
            *self = Ring { passed: next, steps: 0, limit: self.limit * 2 };
        }
        false
    }
}
