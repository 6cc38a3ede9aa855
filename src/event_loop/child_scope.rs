//! Scopes inside of a task: what a timeout or a group cancels without cancelling the task.
//!
//! A scope is polled by the future that owns it. Marks are looked for from the innermost scope outwards, so that a leaf
//! takes the nearest one; what nobody takes ends the body of the scope and nothing else.

use std::{
    mem,
    sync::Arc,
    task::{Context as Cx, Poll},
    time::Instant,
};

use crate::{
    constants::MOST_SPARED,
    error::{Cancelled, Canceller, Error, Result},
    event_loop::{
        EventLoop,
        meta::{TaskKey, flag},
        running,
        scope::{self, Forwarded, Leaf, Scope, Waiting},
        step::TaskRef,
        threadsafe::Shared,
        timers::TimerKey,
        turn::{Ready, TimerEntry},
        waiters::wake,
    },
};

/// Names a child scope for as long as it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ScopeKey {
    slot: u32,
    pub(super) number: u32,
}

impl ScopeKey {
    /// Of a scope that has been closed.
    const GONE: ScopeKey = ScopeKey { slot: u32::MAX, number: 0 };
}

mod bit {
    /// A cancellation waits to be taken. Counted by `scope::count_mark`.
    pub(super) const MARKED: u16 = 1;
    /// Goes with MARKED: it was when the present poll began, so that whoever can take the mark has the chance.
    pub(super) const OFFERED: u16 = 2;
    /// A cancellation was forwarded to a future and has not come back.
    pub(super) const FORWARDED: u16 = 4;
    /// The scope was cancelled: the task's count is raised. Never cleared.
    pub(super) const CANCELLED: u16 = 8;
    /// Its deadline passed. Never cleared.
    pub(super) const EXPIRED: u16 = 16;
    /// Marks of the scopes around it are not for those inside.
    pub(super) const SHIELD: u16 = 32;
    /// The next poll drops the body, whatever it does.
    pub(super) const KILLED: u16 = 64;
    /// Goes with MARKED: a leaf has begun to wait since, and the mark was held back for it. Once for each mark.
    pub(super) const DEFERRED: u16 = 128;
}

struct ChildScope {
    number: u32,
    bits: u16,
    /// Who polls it, and the scope around it: as of the last poll.
    task: TaskKey,
    parent: Option<ScopeKey>,
    waiting: Waiting,
    /// Of the mark, or of what was forwarded.
    reason: Cancelled,
    /// How often the body was spared although nobody took the mark.
    spared: u8,
    /// When the scope is cancelled by itself.
    deadline: Option<Instant>,
    timer: Option<TimerKey>,
    /// The number of the scope that had been opened last when this one was cancelled.
    cancelled_after: u32,
}

/// The child scopes of a loop.
#[derive(Default)]
pub(crate) struct Scopes {
    slab: slab::Slab<ChildScope>,
    last: u32,
}

impl Scopes {
    fn insert(&mut self, task: TaskKey, bits: u16) -> ScopeKey {
        self.last = self.last.wrapping_add(1);
        let number = self.last;
        let slot = self.slab.insert(ChildScope {
            number,
            bits,
            task,
            parent: None,
            waiting: Waiting::Nothing,
            reason: Cancelled::default(),
            spared: 0,
            deadline: None,
            timer: None,
            cancelled_after: 0,
        });
        ScopeKey { slot: u32::try_from(slot).expect("fewer scopes than memory"), number }
    }

    fn get(&self, key: ScopeKey) -> Option<&ChildScope> {
        self.slab.get(key.slot as usize).filter(|scope| scope.number == key.number)
    }

    #[inline]
    fn get_mut(&mut self, key: ScopeKey) -> Option<&mut ChildScope> {
        self.slab.get_mut(key.slot as usize).filter(|scope| scope.number == key.number)
    }

    pub(super) fn waiting(&self, key: ScopeKey) -> Waiting {
        self.get(key).map_or(Waiting::Nothing, |scope| scope.waiting.clone())
    }

    pub(super) fn set_waiting(&mut self, key: ScopeKey, waiting: Waiting) -> Waiting {
        match self.get_mut(key) {
            Some(scope) => mem::replace(&mut scope.waiting, waiting),
            None => waiting,
        }
    }

    pub(super) fn take_waiting(&mut self, key: ScopeKey, target: usize) -> Waiting {
        match self.get_mut(key) {
            Some(scope) if scope.waiting.target() == target => mem::take(&mut scope.waiting),
            _ => Waiting::Nothing,
        }
    }

    /// Whether a cancellation waits to be taken in this scope or one around it, below the task.
    pub(super) fn is_marked(&self, key: ScopeKey) -> bool {
        let mut next = Some(key);
        while let Some(scope) = next.and_then(|key| self.get(key)) {
            if scope.bits & bit::MARKED != 0 {
                return true;
            }
            next = scope.parent;
        }
        false
    }

    /// Whether a shield is open inside of a scope that keeps its marks from those in it.
    fn is_shielded_inside(&self, scope: ScopeKey, task: TaskKey) -> bool {
        let shields = self.slab.iter().filter(|(_, shield)| shield.bits & bit::SHIELD != 0 && shield.task == task);
        shields.into_iter().any(|(_, shield)| {
            let mut next = shield.parent;
            while next != Some(scope) {
                match next.and_then(|key| self.get(key)) {
                    Some(around) if around.bits & bit::SHIELD == 0 => next = around.parent,
                    _ => return false,
                }
            }
            true
        })
    }

    /// Whether a scope is this one, or inside of it; or has been closed, so that nobody knows.
    fn is_within(&self, inside: ScopeKey, outer: ScopeKey) -> bool {
        let mut next = Some(inside);
        while let Some(key) = next.filter(|key| *key != outer) {
            match self.get(key) {
                Some(scope) => next = scope.parent,
                None => return true,
            }
        }
        next.is_some()
    }

    /// Whether a scope around the one with this number was cancelled since that was opened, and has not its mark still to
    /// be taken, later; `None` if a shield that is between them and the task hides it.
    fn is_cancelled_around(&self, number: u32, parent: Option<ScopeKey>) -> Option<bool> {
        let mut next = parent;
        while let Some(scope) = next.and_then(|key| self.get(key)) {
            // They are numbered one after the other, and the numbers begin anew after the last.
            let since = scope.cancelled_after.wrapping_sub(number) <= u32::MAX / 2;
            if scope.bits & (bit::CANCELLED | bit::MARKED) == bit::CANCELLED && since {
                return Some(true);
            }
            if scope.bits & bit::SHIELD != 0 {
                return None;
            }
            next = scope.parent;
        }
        Some(false)
    }
}

impl ChildScope {
    fn mark(&mut self, reason: Cancelled) {
        if self.bits & bit::MARKED == 0 {
            self.bits |= bit::MARKED;
            scope::count_mark();
            self.spared = 0;
        }
        self.reason = reason;
    }

    fn take_mark(&mut self) -> Option<Cancelled> {
        if self.bits & bit::MARKED == 0 {
            return None;
        }
        self.bits &= !(bit::MARKED | bit::OFFERED | bit::DEFERRED | bit::FORWARDED);
        scope::uncount_mark();
        Some(mem::take(&mut self.reason))
    }
}

/// A child scope, owned by the future whose body is polled in it. May cross threads; its end is on the
/// loop's, wherever it is dropped.
pub(crate) struct OwnedScope {
    shared: Arc<Shared>,
    key: ScopeKey,
    task: TaskKey,
    /// The task's count of requests when the scope was opened, or came to this task.
    requests: u32,
    /// As any awaitable that waits: for what the body waits for.
    leaf: Leaf,
}

/// What became of a body that was polled in its scope.
pub(crate) enum Polled<T> {
    Ready(T),
    Pending,
    /// Nobody took the scope's cancellation: the body is to be dropped.
    GivenUp(Cancelled),
}

/// What a scope has seen when it ends.
pub(crate) struct Closed {
    pub(crate) expired: bool,
    /// See [`OwnedScope::is_asked_from_outside`].
    pub(crate) outside: bool,
}

impl OwnedScope {
    /// A scope inside of the one that polls; `None` outside of tasks.
    pub(crate) fn open(event_loop: &EventLoop) -> Option<Self> {
        Self::with_bits(event_loop, 0)
    }

    /// One whose body does not see the cancellations of the scopes around it.
    pub(crate) fn open_shield(event_loop: &EventLoop) -> Option<Self> {
        Self::with_bits(event_loop, bit::SHIELD)
    }

    fn with_bits(event_loop: &EventLoop, bits: u16) -> Option<Self> {
        let (task, requests) = event_loop.with_current(|task| (task.key(), task.requests()))?;
        let key = event_loop.inner.scopes.borrow_mut().insert(task, bits);
        if bits & bit::SHIELD != 0 {
            event_loop.with_current(|task| task.begin_shield());
        }
        let shared = event_loop.inner.shared.clone();
        Some(OwnedScope { shared, key, task, requests, leaf: Leaf::new() })
    }

    pub(crate) fn key(&self) -> ScopeKey {
        self.key
    }

    pub(crate) fn loop_id(&self) -> u64 {
        self.shared.id
    }

    /// Polls `body` inside of the scope, under the task that polls now.
    #[inline]
    pub(crate) fn poll<T>(
        &mut self,
        event_loop: &EventLoop,
        cx: &mut Cx<'_>,
        body: impl FnOnce(&mut Cx<'_>) -> Poll<T>,
    ) -> Result<Polled<T>> {
        let (forwarded, killed) = self.begin_poll(event_loop)?;
        if killed {
            return Ok(Polled::GivenUp(self.take_mark(event_loop).unwrap_or_default()));
        }
        let entered = Entered { event_loop, outer: event_loop.inner.scope.replace(Some(self.key)) };
        let polled = body(cx);
        drop(entered);
        Ok(match polled {
            Poll::Pending => self.end_pending(event_loop, cx, forwarded),
            Poll::Ready(value) => {
                self.leaf.resume();
                Polled::Ready(value)
            }
        })
    }

    /// Gives whether something was forwarded and has not come back, and whether the body is not to be polled any more.
    fn begin_poll(&mut self, event_loop: &EventLoop) -> Result<(bool, bool)> {
        if event_loop.inner.shared.id != self.shared.id {
            return Err(Error::Value("the scope belongs to a different loop than the one that runs".into()));
        }
        let task = event_loop.with_current(|task| task.key());
        let Some(task) = task else { return Err(Error::Runtime("a scope must be polled by a task".into())) };
        if task != self.task {
            self.move_to_current(event_loop, task);
        }
        let mut scopes = event_loop.inner.scopes.borrow_mut();
        let Some(scope) = scopes.get_mut(self.key) else { return Err(Error::cancelled()) };
        scope.task = task;
        scope.parent = event_loop.inner.scope.get();
        if scope.bits & bit::MARKED != 0 {
            scope.bits |= bit::OFFERED;
        }
        let before = (scope.bits & bit::FORWARDED != 0, scope.bits & bit::KILLED != 0);
        scope.bits &= !bit::KILLED;
        let waiting = mem::take(&mut scope.waiting);
        drop(scopes);
        drop(waiting);
        Ok(before)
    }

    /// The scope has come from another task: what it asks for, if it was cancelled, is asked of the new one.
    #[cold]
    fn move_to_current(&mut self, event_loop: &EventLoop, task: TaskKey) {
        let before = mem::replace(&mut self.task, task);
        self.requests = event_loop.with_current(|task| task.requests()).unwrap_or(0);
        let bits = event_loop.inner.scopes.borrow().get(self.key).map_or(0, |scope| scope.bits);
        if bits & (bit::CANCELLED | bit::SHIELD) == 0 {
            return;
        }
        let before = event_loop.inner.tasks.borrow_mut().find(before);
        if bits & bit::CANCELLED != 0 {
            before.iter().for_each(|task| task.lower());
            event_loop.with_current(|task| task.raise());
        }
        if bits & bit::SHIELD != 0 {
            before.iter().for_each(|task| task.end_shield());
            event_loop.with_current(|task| task.begin_shield());
        }
    }

    fn end_pending<T>(&mut self, event_loop: &EventLoop, cx: &Cx<'_>, forwarded: bool) -> Polled<T> {
        let mut scopes = event_loop.inner.scopes.borrow_mut();
        let Some(scope) = scopes.get_mut(self.key) else { return Polled::GivenUp(Cancelled::default()) };
        if scope.bits & bit::OFFERED != 0 {
            drop(scopes);
            if !event_loop.spares(Some(self.key), self.task) {
                self.leaf.resume();
                return Polled::GivenUp(self.take_mark(event_loop).unwrap_or_default());
            }
            scopes = event_loop.inner.scopes.borrow_mut();
        }
        let Some(scope) = scopes.get_mut(self.key) else { return Polled::GivenUp(Cancelled::default()) };
        if forwarded && scope.bits & bit::FORWARDED != 0 {
            // The future that took it was given up: the next poll offers it again.
            let reason = mem::take(&mut scope.reason);
            scope.bits &= !bit::FORWARDED;
            scope.mark(reason);
        }
        // Another was taken instead in this poll, or it was set in it.
        let again = scope.bits & (bit::MARKED | bit::OFFERED) == bit::MARKED;
        let (shield, waits) = (scope.bits & bit::SHIELD != 0, !matches!(scope.waiting, Waiting::Nothing));
        drop(scopes);
        if again {
            cx.waker().wake_by_ref();
        }
        let key = self.key;
        if waits && !shield {
            self.leaf.suspend_on(Some(event_loop), cx, || Waiting::Scope(key));
        } else {
            self.leaf.suspend(Some(event_loop), cx);
        }
        self.leaf.wakes(event_loop, key);
        Polled::Pending
    }

    /// Takes the scope's own mark away.
    pub(crate) fn take_mark(&self, event_loop: &EventLoop) -> Option<Cancelled> {
        let mut scopes = event_loop.inner.scopes.borrow_mut();
        let scope = scopes.get_mut(self.key)?;
        let taken = scope.take_mark();
        scope.bits &= !bit::FORWARDED;
        taken
    }

    /// Whether a cancellation of the scope itself waits to be taken.
    pub(crate) fn is_marked(&self, event_loop: &EventLoop) -> bool {
        event_loop.inner.scopes.borrow().get(self.key).is_some_and(|scope| scope.bits & bit::MARKED != 0)
    }

    /// Whether the task, or a scope around this one, was asked to cancel since this one was opened, and that was not taken
    /// back. What a shield in between holds back does not count.
    pub(crate) fn is_asked_from_outside(&self, event_loop: &EventLoop) -> bool {
        let scopes = event_loop.inner.scopes.borrow();
        let parent = scopes.get(self.key).and_then(|scope| scope.parent);
        let around = scopes.is_cancelled_around(self.key.number, parent);
        drop(scopes);
        around.unwrap_or(false) || (around.is_some() && self.is_task_asked(event_loop))
    }

    fn is_task_asked(&self, event_loop: &EventLoop) -> bool {
        let asked = event_loop.with_current(|task| task.key() == self.task && task.requests() > self.requests);
        asked.unwrap_or(false)
    }

    /// Ends the scope.
    pub(crate) fn close(mut self, event_loop: &EventLoop) -> Closed {
        let outside = self.is_asked_from_outside(event_loop);
        let bits = self.remove(event_loop);
        Closed { expired: bits & bit::EXPIRED != 0, outside }
    }

    /// Takes the scope out of its loop.
    fn remove(&mut self, event_loop: &EventLoop) -> u16 {
        self.leaf.resume();
        let key = mem::replace(&mut self.key, ScopeKey::GONE);
        event_loop.remove_scope(key)
    }
}

impl Drop for OwnedScope {
    fn drop(&mut self) {
        if self.key == ScopeKey::GONE {
            return;
        }
        match running::local(&self.shared) {
            Some(event_loop) => {
                self.remove(&event_loop);
            }
            None => {
                let key = self.key;
                // A closed loop has no use for it any more.
                self.shared.push_call(move |event_loop| {
                    event_loop.remove_scope(key);
                });
            }
        }
    }
}

/// Makes a scope the innermost one until this is dropped, however the poll ends.
struct Entered<'a> {
    event_loop: &'a EventLoop,
    outer: Option<ScopeKey>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.event_loop.inner.scope.set(self.outer);
    }
}

impl EventLoop {
    /// The innermost scope that is being polled, if that is not the task itself.
    #[inline]
    pub(crate) fn current_child(&self) -> Option<ScopeKey> {
        self.inner.scope.get()
    }

    /// Cancels what runs in the scope. Once: a second call does nothing.
    pub(crate) fn cancel_scope(&self, key: ScopeKey, reason: Cancelled) {
        let mut scopes = self.inner.scopes.borrow_mut();
        let last = scopes.last;
        let task = match scopes.get_mut(key) {
            Some(scope) if scope.bits & bit::CANCELLED == 0 => {
                scope.bits |= bit::CANCELLED;
                scope.cancelled_after = last;
                scope.task
            }
            _ => return,
        };
        drop(scopes);
        let task = self.inner.tasks.borrow_mut().find(task);
        task.iter().for_each(|task| task.raise());
        self.deliver(Scope::Child(key), reason);
    }

    /// Forwards a cancellation of `first` to what is awaited, or marks who has to take it.
    pub(super) fn deliver(&self, first: Scope, reason: Cancelled) {
        let find = |key| self.inner.tasks.borrow_mut().find(key);
        match self.forward_cancel(first, &reason) {
            Forwarded::Accepted(Scope::Task(key)) => {
                find(key).into_iter().for_each(|task| task.note_forwarded(reason.clone()));
            }
            Forwarded::Nowhere(Scope::Task(key)) => {
                find(key).into_iter().for_each(|task| task.mark_and_wake(reason.clone()));
            }
            Forwarded::Accepted(Scope::Child(key)) => {
                if let Some(scope) = self.inner.scopes.borrow_mut().get_mut(key) {
                    scope.bits |= bit::FORWARDED;
                    scope.reason = reason;
                }
            }
            Forwarded::Nowhere(Scope::Child(key)) => self.mark_scope(key, reason),
            Forwarded::Passed => {}
        }
    }

    /// Marks a scope, and wakes those who wait in it.
    fn mark_scope(&self, key: ScopeKey, reason: Cancelled) {
        let task = match self.inner.scopes.borrow_mut().get_mut(key) {
            Some(scope) => {
                scope.mark(reason);
                scope.task
            }
            None => return,
        };
        let task = self.inner.tasks.borrow_mut().find(task);
        let Some(task) = task else { return };
        let scopes = self.inner.scopes.borrow();
        let wakers = task.foreign_within(|inside| scopes.is_within(inside, key));
        drop(scopes);
        task.waker().wake_by_ref();
        wakers.into_iter().for_each(wake);
    }

    /// Lets the scope be cancelled at `deadline`, in the next iteration if that is past, or never.
    pub(crate) fn set_scope_deadline(&self, key: ScopeKey, deadline: Option<Instant>) {
        let past = deadline.is_some_and(|deadline| deadline <= self.time());
        let timer = deadline.filter(|_| !past).map(|deadline| self.insert_timer(deadline, TimerEntry::Expire(key)));
        let before = match self.inner.scopes.borrow_mut().get_mut(key) {
            Some(scope) => {
                scope.deadline = deadline;
                mem::replace(&mut scope.timer, timer)
            }
            None => timer,
        };
        let before = before.and_then(|timer| self.inner.timers.borrow_mut().remove(timer));
        drop(before);
        if past {
            self.push(Ready::Expire(key));
        }
    }

    /// When the scope is cancelled by itself.
    pub(crate) fn scope_deadline(&self, key: ScopeKey) -> Option<Instant> {
        self.inner.scopes.borrow().get(key).and_then(|scope| scope.deadline)
    }

    /// The scope's deadline has passed.
    pub(super) fn expire_scope(&self, key: ScopeKey) {
        let now = self.time();
        match self.inner.scopes.borrow_mut().get_mut(key) {
            // Unless it was moved since this was queued.
            Some(scope) if scope.deadline.is_some_and(|deadline| deadline <= now) => scope.bits |= bit::EXPIRED,
            _ => return,
        }
        self.cancel_scope(key, Cancelled::by(Canceller::Timeout, None));
    }

    /// Whether the scope's deadline has passed.
    pub(crate) fn is_scope_expired(&self, key: ScopeKey) -> bool {
        self.inner.scopes.borrow().get(key).is_some_and(|scope| scope.bits & bit::EXPIRED != 0)
    }

    /// Lets the scope's next poll give its body up.
    pub(crate) fn kill_scope(&self, key: ScopeKey) {
        let task = match self.inner.scopes.borrow_mut().get_mut(key) {
            Some(scope) => {
                scope.bits |= bit::KILLED;
                scope.task
            }
            None => return,
        };
        let task = self.inner.tasks.borrow_mut().find(task);
        task.iter().for_each(TaskRef::wake_all);
    }

    /// Takes a scope out and gives its bits.
    fn remove_scope(&self, key: ScopeKey) -> u16 {
        let mut scopes = self.inner.scopes.borrow_mut();
        if scopes.get(key).is_none() {
            return 0;
        }
        let mut scope = scopes.slab.remove(key.slot as usize);
        drop(scopes);
        if let Some(timer) = scope.timer {
            let entry = self.inner.timers.borrow_mut().remove(timer);
            drop(entry);
        }
        scope.take_mark();
        if scope.bits & (bit::CANCELLED | bit::SHIELD) != 0 {
            self.end_special_scope(&scope);
        }
        scope.bits
    }

    #[cold]
    fn end_special_scope(&self, scope: &ChildScope) {
        let task = self.inner.tasks.borrow_mut().find(scope.task);
        let Some(task) = task else { return };
        if scope.bits & bit::CANCELLED != 0 {
            task.lower();
        }
        if scope.bits & bit::SHIELD != 0 {
            task.end_shield();
            // What was held back is offered now: in the step after this one.
            self.withhold_marks();
            if !self.is_current(&task) {
                task.wake_all();
            }
        }
    }

    /// Takes the nearest cancellation that is not shielded from those who are being polled: one for all that wait.
    pub(crate) fn take_current_mark(&self) -> Option<Cancelled> {
        let mut taken = None;
        let mut next = self.inner.scope.get();
        if next.is_some() {
            let mut scopes = self.inner.scopes.borrow_mut();
            while let Some(scope) = next.and_then(|key| scopes.get_mut(key)) {
                // What was forwarded was to the future that the same leaf waits for.
                scope.bits &= !bit::FORWARDED;
                match taken {
                    None => taken = scope.take_mark(),
                    // Its turn is the next step.
                    Some(_) => scope.bits &= !bit::OFFERED,
                }
                if scope.bits & bit::SHIELD != 0 {
                    return taken;
                }
                next = scope.parent;
            }
        }
        // A request of the task's own is received with that of a scope; it is the one to tell of.
        let own = self.with_current(|task| match (task.take_mark(), &taken) {
            (None, Some(_)) => task.take_forwarded(),
            (own, _) => own,
        });
        let taken = own.flatten().or(taken);
        if taken.is_some() {
            scope::count_taken();
        }
        taken
    }

    /// The scopes that are being polled have received the cancellations that were forwarded.
    pub(crate) fn receive_forwarded(&self) {
        let mut next = self.inner.scope.get();
        if next.is_some() {
            let mut scopes = self.inner.scopes.borrow_mut();
            while let Some(scope) = next.and_then(|key| scopes.get_mut(key)) {
                scope.bits &= !bit::FORWARDED;
                next = scope.parent;
            }
        }
        self.with_current(|task| task.receive_forwarded());
        scope::count_taken();
    }

    /// Whether a cancellation of the task, or of a scope in it, has not been received yet.
    pub(crate) fn is_told_soon(&self, task: &TaskRef) -> bool {
        let scopes = self.inner.scopes.borrow();
        let waits = |scope: &ChildScope| scope.bits & (bit::MARKED | bit::FORWARDED) != 0;
        task.is_marked()
            || task.has(flag::FORWARDED)
            || scopes.slab.iter().any(|(_, scope)| scope.task == task.key() && waits(scope))
    }

    /// Nobody could see the marks of the scopes that are being polled so far: they are offered in the next step.
    fn withhold_marks(&self) {
        let mut next = self.inner.scope.get();
        let mut scopes = self.inner.scopes.borrow_mut();
        while let Some(scope) = next.and_then(|key| scopes.get_mut(key)) {
            scope.bits &= !bit::OFFERED;
            next = scope.parent;
        }
        drop(scopes);
        self.with_current(|task| task.withhold_mark());
    }

    /// Whether a body, of a scope or of the task itself, is not to be dropped although nobody has taken the mark that was
    /// offered: a shield inside keeps it back, or some that wait under wakers of their own may not have been polled yet.
    #[cold]
    pub(super) fn spares(&self, scope: Option<ScopeKey>, task: TaskKey) -> bool {
        let has_shields = self.inner.tasks.borrow_mut().find(task).is_some_and(|task| task.has_shields());
        // The outermost shield of a task keeps the task's own marks back.
        let shielded =
            has_shields && scope.is_none_or(|scope| self.inner.scopes.borrow().is_shielded_inside(scope, task));
        shielded || self.lets_others_look(scope, task)
    }

    /// Those who poll several at once may stop before they have polled all. Gives them a few steps more.
    fn lets_others_look(&self, scope: Option<ScopeKey>, key: TaskKey) -> bool {
        let task = self.inner.tasks.borrow_mut().find(key);
        let Some(task) = task else { return false };
        let mut scopes = self.inner.scopes.borrow_mut();
        if !task.has_foreign(|inside| match (inside, scope) {
            (_, None) => true,
            (Some(inside), Some(outer)) => scopes.is_within(inside, outer),
            (None, Some(_)) => false,
        }) {
            return false;
        }
        match scope {
            None => task.spare(),
            Some(key) => scopes.get_mut(key).is_some_and(|scope| {
                scope.spared = scope.spared.saturating_add(1);
                scope.bits &= !bit::OFFERED;
                scope.spared <= MOST_SPARED
            }),
        }
    }

    /// A leaf begins to wait while marks are offered: it is to have its chance, in the next step.
    #[cold]
    pub(super) fn defer_marks(&self) {
        let mut next = self.inner.scope.get();
        let mut scopes = self.inner.scopes.borrow_mut();
        while let Some(scope) = next.and_then(|key| scopes.get_mut(key)) {
            if scope.bits & (bit::OFFERED | bit::DEFERRED) == bit::OFFERED {
                scope.bits = scope.bits & !bit::OFFERED | bit::DEFERRED;
            }
            if scope.bits & bit::SHIELD != 0 {
                return;
            }
            next = scope.parent;
        }
        drop(scopes);
        self.with_current(|task| task.defer_mark());
    }

    /// Whoever has asked the task that is being polled, or a scope in it, to cancel and has not taken that back asks again:
    /// the next await is told, unless one waits to be told anyway.
    pub(crate) fn cancel_again(&self, reason: Cancelled) {
        let mut scopes = self.inner.scopes.borrow_mut();
        let (mut outermost, mut next, mut shielded) = (None, self.inner.scope.get(), false);
        while let Some((key, scope)) = next.filter(|_| !shielded).and_then(|key| Some((key, scopes.get(key)?))) {
            if scope.bits & bit::MARKED != 0 {
                return;
            }
            if scope.bits & bit::CANCELLED != 0 {
                outermost = Some(key);
            }
            shielded = scope.bits & bit::SHIELD != 0;
            next = scope.parent;
        }
        let asked = !shielded && self.with_current(|task| task.requests() > 0).unwrap_or(false);
        match outermost.and_then(|key| scopes.get_mut(key)) {
            // The outermost asks longest.
            _ if asked => {
                drop(scopes);
                self.with_current(|task| {
                    if !task.is_marked() {
                        task.mark(reason);
                    }
                });
            }
            Some(scope) => scope.mark(reason),
            None => {}
        }
    }
}
