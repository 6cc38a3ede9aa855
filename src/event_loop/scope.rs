//! Who takes a cancellation: the awaitable that the cancelled task waits in.
//!
//! `cancel()` forwards to the future or task that is being awaited, if there is one and it accepts. Otherwise the task is
//! *marked*, and the next of our awaitables that is polled again after it has suspended takes the mark.

use std::{
    cell::Cell,
    collections::HashSet,
    sync::Arc,
    task::{Context as Cx, Waker},
    time::Duration,
};

use crate::{
    error::Cancelled,
    event_loop::{
        EventLoop,
        child_scope::ScopeKey,
        meta::{TaskKey, flag},
        observers::ObserverKey,
        running,
        step::TaskRef,
        turn::{Ready, TimerEntry},
    },
};

thread_local! {
    /// How many tasks of this thread's loops are marked: while it is zero, a leaf looks no further.
    static MARKS: Cell<usize> = const { Cell::new(0) };
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

pub(crate) fn count_mark() {
    MARKS.set(MARKS.get() + 1);
}

/// Counts a cancellation that was received.
pub(crate) fn count_taken() {
    TAKEN.set(TAKEN.get().wrapping_add(1));
}

/// How many cancellations were received on this thread: whether one was in between.
pub(crate) fn taken() -> u64 {
    TAKEN.get()
}

pub(crate) fn uncount_mark() {
    MARKS.set(MARKS.get().saturating_sub(1));
}

/// Something that a cancellation is forwarded to.
pub(crate) trait CancelTarget {
    /// Whether it accepted: it was not done yet.
    fn cancel_target(self: Arc<Self>, reason: Cancelled) -> bool;
}

/// What a scope waits for, as far as a cancellation is forwarded there.
#[derive(Clone, Default)]
pub(crate) enum Waiting {
    #[default]
    Nothing,
    Task(TaskKey),
    Future(Arc<dyn CancelTarget>),
    /// A scope inside of this one, and what that waits for.
    Scope(ScopeKey),
    /// Several tasks and futures together.
    Observer(ObserverKey),
}

/// What a poll happens in: a task, or a scope inside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    Task(TaskKey),
    Child(ScopeKey),
}

impl Waiting {
    /// What tells this from what others wait for; an address is never odd.
    pub(crate) fn target(&self) -> usize {
        match self {
            Waiting::Nothing => 0,
            Waiting::Task(key) => (key.number as usize) << 3 | 1,
            Waiting::Scope(key) => (key.number as usize) << 3 | 3,
            Waiting::Observer(key) => (key.number.get() as usize) << 3 | 5,
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
    /// Set when a cancellation was passed on to what this waits for; cleared when the outcome is there.
    passed_on: bool,
    /// The task that knows our waker, which is not its own, and the place where it does.
    foreign: Option<(u64, TaskKey, usize)>,
    /// The scope that forwards its cancellation to what we wait for, and what that is. Until the scope's next step.
    forwards: Option<(u64, Scope, usize)>,
}

impl Leaf {
    pub(crate) const fn new() -> Self {
        Leaf { suspended: false, passed_on: false, foreign: None, forwards: None }
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
        let plain = self.foreign.is_none() && MARKS.get() == 0;
        match event_loop.map(|event_loop| event_loop.waits_plainly(cx.waker())) {
            None | Some((false, false)) => self.suspended = true,
            Some((true, _)) if plain => self.suspended = true,
            Some(_) => self.suspend_among_others(event_loop, cx),
        }
    }

    /// The rest of [`suspend`](Self::suspend).
    fn suspend_among_others(&mut self, event_loop: Option<&EventLoop>, cx: &Cx<'_>) {
        let Some((event_loop, scope)) = self.suspend_in(event_loop, cx) else { return };
        if event_loop.scope_may_wait(scope) {
            // What was polled before in this step may have been given up: this is what the scope awaits now.
            event_loop.set_waiting(scope, Waiting::Nothing);
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
        let Some((event_loop, scope)) = self.suspend_in(event_loop, cx) else { return };
        let (waiting, id) = (waiting(), event_loop.inner.shared.id);
        if self.forwards.is_some_and(|before| (before.0, before.1) != (id, scope)) {
            self.withdraw(); // it was polled by another task before
        }
        self.forwards = Some((id, scope, waiting.target()));
        event_loop.set_waiting(scope, waiting);
    }

    /// What both have in common; gives the scope that polls, if a task does.
    #[inline]
    fn suspend_in<'l>(&mut self, event_loop: Option<&'l EventLoop>, cx: &Cx<'_>) -> Option<(&'l EventLoop, Scope)> {
        let begins = !std::mem::replace(&mut self.suspended, true);
        let event_loop = event_loop?;
        let (key, own) = event_loop.current_key(cx.waker())?;
        if begins && MARKS.get() != 0 {
            event_loop.defer_marks();
        }
        if !own || self.foreign.is_some() {
            self.suspend_foreign(event_loop, key, own, cx.waker());
        }
        Some((event_loop, event_loop.current_child().map_or(Scope::Task(key), Scope::Child)))
    }

    #[cold]
    fn suspend_foreign(&mut self, event_loop: &EventLoop, key: TaskKey, own: bool, waker: &Waker) {
        if own {
            self.withdraw_foreign();
        } else {
            self.register_waker(event_loop, key, waker);
        }
    }

    /// The cancellation that was taken is passed on to what this waits for, whose end is waited for.
    pub(crate) fn pass_on(&mut self) {
        self.passed_on = true;
    }

    /// To be called when the wait is over, or given up.
    #[inline]
    pub(crate) fn resume(&mut self) {
        self.suspended = false;
        self.passed_on = false;
        if self.forwards.is_some() {
            self.withdraw();
        }
        if self.foreign.is_some() {
            self.withdraw_foreign();
        }
    }

    fn withdraw(&mut self) {
        let Some((id, scope, target)) = self.forwards.take() else { return };
        // Elsewhere than on the loop's thread nothing can be withdrawn; a stale target is harmless.
        let take = |event_loop: &EventLoop| event_loop.take_waiting(scope, target);
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
            self.withdraw_foreign();
        }
        let scope = event_loop.current_child();
        let (place, old) = task.with_rare(|rare| match place.and_then(|(_, _, place)| rare.foreign.get_mut(place)) {
            Some((within, known)) => {
                *within = scope;
                let other = !known.will_wake(waker);
                (None, other.then(|| std::mem::replace(known, waker.clone())))
            }
            None => (Some(rare.foreign.insert((scope, waker.clone()))), None),
        });
        drop(old);
        if let Some(place) = place {
            self.foreign = Some((event_loop.inner.shared.id, key, place));
        }
    }

    /// Counts the waker, if it is not the task's own, among those inside of `scope`, whose body is polled with it.
    pub(super) fn wakes(&self, event_loop: &EventLoop, scope: ScopeKey) {
        let Some((_, key, place)) = self.foreign else { return };
        let task = event_loop.inner.tasks.borrow_mut().find(key);
        let Some(task) = task else { return };
        task.with_rare(|rare| {
            if let Some((within, _)) = rare.foreign.get_mut(place) {
                *within = Some(scope);
            }
        });
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
        if self.passed_on {
            // The wait is given up in the midst: the next await is told instead.
            running::tell_again(Cancelled::default());
        }
        self.resume();
    }
}

impl EventLoop {
    /// Says what a scope waits for; the last word of a step counts.
    pub(crate) fn set_waiting(&self, scope: Scope, waiting: Waiting) {
        let before = match scope {
            Scope::Task(key) => self.inner.tasks.borrow_mut().set_waiting(key, waiting),
            Scope::Child(key) => self.inner.scopes.borrow_mut().set_waiting(key, waiting),
        };
        drop(before);
    }

    /// Gives what a scope waits for, if that is `target`, for the caller to drop.
    fn take_waiting(&self, scope: Scope, target: usize) -> Waiting {
        match scope {
            Scope::Task(key) => self.inner.tasks.borrow_mut().take_waiting(key, target),
            Scope::Child(key) => self.inner.scopes.borrow_mut().take_waiting(key, target),
        }
    }

    /// Whether a scope that is being polled has said in this step, or may have, that it waits for something.
    #[inline]
    fn scope_may_wait(&self, scope: Scope) -> bool {
        match scope {
            Scope::Task(_) => self.current_may_wait(),
            Scope::Child(_) => true,
        }
    }

    fn waiting_of(&self, scope: Scope) -> Waiting {
        match scope {
            Scope::Task(key) => self.inner.tasks.borrow_mut().waiting(key),
            Scope::Child(key) => self.inner.scopes.borrow().waiting(key),
        }
    }

    /// Forwards a cancellation along the chain of what is awaited, to the future at its end. Else gives the scope that
    /// is to be marked: the one that it began with, or the last task of the chain.
    pub(super) fn forward_cancel(&self, first: Scope, reason: &Cancelled) -> Forwarded {
        let mut marked = first;
        let mut next = first;
        let mut ring = Ring::new(first);
        loop {
            next = match self.waiting_of(next) {
                Waiting::Future(future) if future.clone().cancel_target(reason.clone()) => {
                    return Forwarded::Accepted(marked);
                }
                Waiting::Observer(key) if self.cancel_observed(key, reason) => return Forwarded::Passed,
                Waiting::Scope(key) => Scope::Child(key),
                Waiting::Task(key) if !ring.closes_with(Scope::Task(key)) => {
                    let awaited = self.inner.tasks.borrow_mut().find(key);
                    let Some(awaited) = awaited else { return Forwarded::Nowhere(marked) };
                    awaited.request_cancel();
                    marked = Scope::Task(key);
                    marked
                }
                _ => return Forwarded::Nowhere(marked),
            };
        }
    }
}

/// What became of a cancellation.
pub(super) enum Forwarded {
    /// A future accepted it; the scope that waits for it will receive it there.
    Accepted(Scope),
    /// Whoever waits goes on until those who were told have ended.
    Passed,
    /// This scope has to take it.
    Nowhere(Scope),
}

impl TaskRef {
    /// asyncio: `Task.cancel`. From any thread; false if the task is done, which counts as a look at its outcome.
    pub(crate) fn cancel(&self, reason: Cancelled) -> bool {
        if self.is_done() {
            self.add(flag::SEEN);
            return false;
        }
        self.request_cancel();
        if self.shared.on_its_thread() {
            self.pass_cancel(reason);
            return true;
        }
        let task = self.clone();
        self.shared.push_call(move |_| {
            // Unless the request was taken back on its way.
            if task.requests() > 0 {
                task.pass_cancel(reason);
            }
        })
    }

    /// Cancels the task, and lets its coroutine be dropped if it has not ended after `grace`.
    pub(crate) fn cancel_with_grace(&self, reason: Cancelled, grace: Duration) -> bool {
        if !self.cancel(reason) {
            return false;
        }
        if self.shared.on_its_thread() {
            self.begin_grace(grace);
            return true;
        }
        let task = self.clone();
        self.shared.push_call(move |_| task.begin_grace(grace))
    }

    fn begin_grace(&self, grace: Duration) {
        let Some(event_loop) = running::local(&self.shared).filter(|_| !self.is_done()) else { return };
        if grace.is_zero() {
            // Behind the step in which it sees the cancellation.
            event_loop.push(Ready::Kill(self.key()));
            return;
        }
        let deadline = event_loop.deadline_in(grace);
        let before = self.read_rare(|rare| rare.grace_timer);
        if before.is_some_and(|before| before.0 <= deadline) {
            return; // the shortest of several counts
        }
        let timer = event_loop.insert_timer(deadline, TimerEntry::Kill(self.key()));
        // The end of the task looks for the timer then.
        self.add(flag::LISTED);
        self.with_rare(|rare| rare.grace_timer = Some((deadline, timer)));
        if let Some((_, before)) = before {
            let entry = event_loop.inner.timers.borrow_mut().remove(before);
            drop(entry);
        }
    }

    /// Delivers a cancellation, and those that this brings: one after the other, however long the chain is.
    fn pass_cancel(&self, reason: Cancelled) {
        let Some(event_loop) = running::local(&self.shared) else { return };
        let inner = &event_loop.inner;
        if inner.cancelling.get() {
            inner.uncancelled.borrow_mut().push_back((self.clone(), reason));
            return;
        }
        inner.cancelling.set(true);
        inner.cancellations.set(inner.cancellations.get() + 1);
        let _passing = Passing(&event_loop);
        self.deliver_cancel(reason);
        loop {
            // Not in the head of the loop: the borrow would last as long as the body.
            let next = inner.uncancelled.borrow_mut().pop_front();
            let Some((task, reason)) = next else { return };
            task.deliver_cancel(reason);
        }
    }

    /// Forwards the cancellation to what is awaited, or marks who has to take it.
    fn deliver_cancel(&self, reason: Cancelled) {
        let Some(event_loop) = running::local(&self.shared) else { return };
        if self.is_done() {
            return;
        }
        event_loop.deliver(Scope::Task(self.key()), reason);
    }

    pub(super) fn mark_and_wake(&self, reason: Cancelled) {
        self.mark(reason);
        self.wake_all();
    }

    /// Whether the task waits for `other`, be it through others.
    pub(crate) fn awaits(&self, other: &TaskRef) -> bool {
        let Some(event_loop) = running::local(&self.shared) else { return false };
        let mut seen = HashSet::new();
        let mut open = vec![Scope::Task(self.key())];
        while let Some(scope) = open.pop() {
            if !seen.insert(scope) {
                continue;
            }
            match event_loop.waiting_of(scope) {
                Waiting::Task(key) if key == other.key() => return true,
                Waiting::Task(key) => open.push(Scope::Task(key)),
                Waiting::Scope(key) => open.push(Scope::Child(key)),
                Waiting::Observer(key) => {
                    let tasks = event_loop.observed_tasks(key);
                    if tasks.contains(&other.key()) {
                        return true;
                    }
                    open.extend(tasks.into_iter().map(Scope::Task));
                }
                Waiting::Nothing | Waiting::Future(_) => {}
            }
        }
        false
    }
}

/// Cancellations are being passed along until this is dropped.
struct Passing<'a>(&'a EventLoop);

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        self.0.inner.cancelling.set(false);
    }
}

/// Tasks that wait for each other form a ring: it is found by meeting a task that was passed before. The one that is
/// remembered is a later one each time that the way has doubled.
struct Ring {
    passed: Scope,
    steps: usize,
    limit: usize,
}

impl Ring {
    fn new(first: Scope) -> Self {
        Ring { passed: first, steps: 0, limit: 1 }
    }

    fn closes_with(&mut self, next: Scope) -> bool {
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
