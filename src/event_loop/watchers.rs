//! Who wants to know when a descriptor is ready.
//!
//! Descriptors belong to the users, who may close them behind our back; the system forgets them then, and their numbers
//! come back as other descriptors. So every new wait makes one system call that says what is wanted, whatever this table
//! believes: a change of what is known, or an addition where the system knows nothing.

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd, RawFd},
    panic::Location,
    rc::Rc,
    task::Waker,
};

use crate::{
    error::{Error, Result},
    event_loop::{
        EventLoop,
        child_scope::ScopeKey,
        meta::TaskKey,
        owned::{IoEvent, Owned},
        repeated::{Repeated, RepeatedHandle},
        threadsafe::{check_process, closed},
        turn::Ready,
        waiters::wake,
    },
    sys::selector::{Event, Interest, Mode, Selector, is_open},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

impl Direction {
    fn other(self) -> Self {
        match self {
            Direction::Read => Direction::Write,
            Direction::Write => Direction::Read,
        }
    }

    /// The plan for a descriptor where this direction is watched in the mode `own` and the other one in `other`.
    fn plan(self, own: Option<Mode>, other: Option<Mode>) -> Plan {
        let interest = match self {
            Direction::Read => Interest { readable: own.is_some(), writable: other.is_some() },
            Direction::Write => Interest { readable: other.is_some(), writable: own.is_some() },
        };
        // Waits are for once, so that a descriptor that nobody waits for any more costs no call to be forgotten.
        let lasts = [own, other].contains(&Some(Mode::Level));
        Plan { interest, mode: if lasts { Mode::Level } else { Mode::Oneshot } }
    }
}

/// What the system is told about a descriptor.
#[derive(Clone, Copy)]
struct Plan {
    interest: Interest,
    mode: Mode,
}

/// Who watches one direction of a descriptor.
#[derive(Default)]
enum Watch {
    #[default]
    Nobody,
    /// As long as it is not removed.
    Callback(Rc<dyn Repeated>),
    Wait(Wait),
}

/// A wait for once.
struct Wait {
    /// Tells waits apart.
    number: u64,
    waker: Waker,
    /// The task that waits: once it is cancelled, the wait is as good as over.
    task: Option<TaskKey>,
    /// The scope inside of the task: once that is cancelled, too.
    scope: Option<ScopeKey>,
}

impl Watch {
    /// `None` if nobody watches.
    fn mode(&self) -> Option<Mode> {
        match self {
            Watch::Nobody => None,
            Watch::Callback(_) => Some(Mode::Level),
            Watch::Wait(_) => Some(Mode::Oneshot),
        }
    }

    /// Ends a watch that was taken out of the table: a callback runs no more, and whoever waits finds out by himself.
    fn end(self) {
        match self {
            Watch::Callback(handle) => handle.deactivate(),
            Watch::Wait(wait) => wake(wait.waker),
            Watch::Nobody => {}
        }
    }
}

#[derive(Default)]
struct Source {
    reader: Watch,
    writer: Watch,
    /// Whether the system should know the descriptor; it may have forgotten it.
    known: bool,
    /// Set by set_background(): a wait for it does not hold a virtual clock.
    background: bool,
}

impl Source {
    fn watch(&mut self, direction: Direction) -> &mut Watch {
        match direction {
            Direction::Read => &mut self.reader,
            Direction::Write => &mut self.writer,
        }
    }

    fn plan(&self) -> Plan {
        Direction::Read.plan(self.reader.mode(), self.writer.mode())
    }

    fn is_watched(&self) -> bool {
        !self.plan().interest.is_empty()
    }

    /// What an event brings for one direction: a callback, which stays, or a wait, which is over.
    fn fire(&mut self, direction: Direction) -> Watch {
        match self.watch(direction) {
            Watch::Callback(handle) => Watch::Callback(handle.clone()),
            other => mem::take(other),
        }
    }

    fn holds_clock(&self) -> bool {
        !self.background && self.is_watched()
    }
}

/// The sources by descriptor number: numbers are small and dense.
#[derive(Default)]
pub(crate) struct Watchers {
    sources: Vec<Option<Box<Source>>>,
    /// How many sources are watched.
    watched: usize,
    /// How many of them hold a virtual clock.
    foreground: usize,
    last_wait: u64,
    /// The descriptors that transports and servers own.
    pub(super) owned: Owned,
}

impl Watchers {
    pub(crate) fn is_empty(&self) -> bool {
        self.watched == 0 && self.owned.watched == 0
    }

    pub(crate) fn holds_clock(&self) -> bool {
        self.foreground > 0 || self.owned.foreground > 0
    }

    pub(super) fn is_known(&self, fd: RawFd) -> bool {
        usize::try_from(fd).is_ok_and(|index| self.sources.get(index).is_some_and(Option::is_some))
    }

    fn get(&mut self, fd: RawFd) -> Option<&mut Source> {
        self.sources.get_mut(usize::try_from(fd).ok()?)?.as_deref_mut()
    }

    /// Changes a source and keeps the counts right.
    fn change<R>(&mut self, fd: RawFd, change: impl FnOnce(&mut Source) -> R) -> Option<R> {
        let index = usize::try_from(fd).ok()?;
        if index >= self.sources.len() {
            self.sources.resize_with(index + 1, || None);
        }
        let source = self.sources[index].get_or_insert_default();
        let before = (source.is_watched(), source.holds_clock());
        let result = change(source);
        let after = (source.is_watched(), source.holds_clock());
        self.watched = self.watched + usize::from(after.0) - usize::from(before.0);
        self.foreground = self.foreground + usize::from(after.1) - usize::from(before.1);
        Some(result)
    }

    /// Takes everybody out, for close.
    fn drain(&mut self) -> Vec<Watch> {
        self.watched = 0;
        self.foreground = 0;
        let sources = mem::take(&mut self.sources);
        sources.into_iter().flatten().flat_map(|source| [source.reader, source.writer]).collect()
    }
}

/// How it went to tell the system what a descriptor is watched for.
enum Armed {
    Known,
    /// The system had forgotten the descriptor: it is another one now, and only the new watch was told.
    Anew,
}

/// Tells the system about a new watch: `all` that is watched then, or the new one `alone` where the system has forgotten
/// the descriptor that the others meant. One call in the usual case.
fn arm(selector: &mut dyn Selector, fd: RawFd, known: bool, all: Plan, alone: Plan) -> io::Result<Armed> {
    let key = key_of(fd)?;
    if !known {
        match selector.register(fd, key, all.interest, all.mode) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                selector.modify(fd, key, all.interest, all.mode)?;
            }
            result => result?,
        }
        return Ok(Armed::Known);
    }
    match selector.modify(fd, key, all.interest, all.mode) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            selector.register(fd, key, alone.interest, alone.mode)?;
            Ok(Armed::Anew)
        }
        result => result.map(|()| Armed::Known),
    }
}

pub(super) fn key_of(fd: RawFd) -> io::Result<usize> {
    usize::try_from(fd).map_err(|_| Error::Value(format!("Invalid file descriptor: {fd}").into()).into())
}

/// After something was removed: narrows what the system watches, or lets it forget the descriptor. False if the
/// descriptor was closed meanwhile, so that nobody who waits for it would be woken.
fn disarm(selector: &mut dyn Selector, fd: RawFd, source: &mut Source) -> bool {
    if !source.known {
        return true;
    }
    let plan = source.plan();
    if plan.interest.is_empty() {
        source.known = false;
        // A descriptor that was closed meanwhile is forgotten already.
        let _ = selector.deregister(fd);
        return true;
    }
    key_of(fd).is_ok_and(|key| selector.modify(fd, key, plan.interest, plan.mode).is_ok())
}

impl EventLoop {
    /// Calls `callback` in every iteration in which `fd` is readable, as long as it is not removed.
    ///
    /// A reader that was there is replaced. The callback runs in a copy of the present context, and keeps it. Watching
    /// goes by the descriptor's number: remove the reader before you close the descriptor.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the descriptor cannot be watched (EBADF: not open, EPERM: a regular file); [`Error::Runtime`]
    /// if the loop is closed, if this is a forked child of its process, if a `sock_*` call is waiting to read, or if the
    /// descriptor is used by a transport or server.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::{io::{Read, Write}, os::unix::net::UnixStream};
    ///
    /// let (mut ours, mut theirs) = UnixStream::pair()?;
    /// let event_loop = asyncio::new_event_loop()?;
    /// let (stop, fd) = (event_loop.clone(), ours.try_clone()?);
    /// event_loop.add_reader(&fd, move || {
    ///     let mut buffer = [0; 16];
    ///     assert_eq!(ours.read(&mut buffer).expect("it is readable"), 3);
    ///     stop.stop();
    /// })?;
    /// theirs.write_all(b"abc")?;
    /// event_loop.run_forever()?;
    /// assert!(event_loop.remove_reader(&fd)?);
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `loop.add_reader`.
    #[track_caller]
    pub fn add_reader(&self, fd: impl AsFd, callback: impl FnMut() + 'static) -> Result<()> {
        self.add_watch(fd.as_fd().as_raw_fd(), Direction::Read, callback, Location::caller())
    }

    /// Takes the reader of `fd` away, also where its callback is queued already. False if there was none.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] "used by transport" for a descriptor that a transport or server owns.
    ///
    /// asyncio: `loop.remove_reader`.
    pub fn remove_reader(&self, fd: &impl AsRawFd) -> Result<bool> {
        self.remove_watch(fd.as_raw_fd(), Direction::Read)
    }

    /// Calls `callback` in every iteration in which `fd` is writable; as [`add_reader`](Self::add_reader) otherwise.
    ///
    /// # Errors
    ///
    /// See [`add_reader`](Self::add_reader).
    ///
    /// asyncio: `loop.add_writer`.
    #[track_caller]
    pub fn add_writer(&self, fd: impl AsFd, callback: impl FnMut() + 'static) -> Result<()> {
        self.add_watch(fd.as_fd().as_raw_fd(), Direction::Write, callback, Location::caller())
    }

    /// Takes the writer of `fd` away; see [`remove_reader`](Self::remove_reader).
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] "used by transport" for a descriptor that a transport or server owns.
    ///
    /// asyncio: `loop.remove_writer`.
    pub fn remove_writer(&self, fd: &impl AsRawFd) -> Result<bool> {
        self.remove_watch(fd.as_raw_fd(), Direction::Write)
    }

    /// Says whether a wait for `fd` lets a virtual clock go on (`true`) or holds it (`false`, the rule).
    ///
    /// Lasts until it is said otherwise or the loop is closed. For descriptors from which nothing is expected, such as a
    /// listener in a test of time-outs. A number that is not open is passed over.
    ///
    /// asyncio: has no virtual clock.
    pub fn set_background(&self, fd: &impl AsRawFd, background: bool) {
        let fd = fd.as_raw_fd();
        // The table grows up to the largest number, so it must be a real one.
        if is_open(fd) {
            let mut watchers = self.inner.watchers.borrow_mut();
            if !watchers.owned.set_background(fd, background) {
                watchers.change(fd, |source| source.background = background);
            }
        }
    }

    fn add_watch(
        &self,
        fd: RawFd,
        direction: Direction,
        callback: impl FnMut() + 'static,
        created: &'static Location<'static>,
    ) -> Result<()> {
        self.check_open()?;
        check_process(&self.inner.shared)?;
        self.refuse_owned(fd)?;
        let handle = RepeatedHandle::repeated(self, callback, created, Some(fd));
        self.refuse_second_wait(fd, direction)?;
        self.put_watch(fd, direction, Watch::Callback(handle))
    }

    fn remove_watch(&self, fd: RawFd, direction: Direction) -> Result<bool> {
        self.refuse_owned(fd)?;
        let mut watchers = self.inner.watchers.borrow_mut();
        let is_callback = watchers.get(fd).is_some_and(|source| matches!(source.watch(direction), Watch::Callback(_)));
        if !is_callback {
            return Ok(false);
        }
        let removed = watchers.change(fd, |source| mem::take(source.watch(direction)));
        drop(watchers);
        self.disarm(fd);
        if let Some(Watch::Callback(handle)) = removed {
            handle.deactivate();
        }
        Ok(true)
    }

    /// A number for a wait, to be told from others on its descriptor.
    pub(crate) fn next_wait(&self) -> u64 {
        let mut watchers = self.inner.watchers.borrow_mut();
        watchers.last_wait += 1;
        watchers.last_wait
    }

    /// Wakes `waker` once when `fd` is ready.
    pub(crate) fn wait_ready(&self, fd: RawFd, direction: Direction, wait: u64, waker: &Waker) -> Result<()> {
        self.check_open()?;
        check_process(&self.inner.shared)?;
        self.refuse_owned(fd)?;
        if self.refresh_wait(fd, direction, wait, waker) {
            return Ok(());
        }
        self.refuse_second_wait(fd, direction)?;
        self.refuse_callback(fd, direction)?;
        let task = self.current_key(waker).map(|(key, _)| key);
        self.put_watch(
            fd,
            direction,
            Watch::Wait(Wait { number: wait, waker: waker.clone(), task, scope: self.current_child() }),
        )
    }

    /// Whether the wait stands already; it then wakes `waker` from now on.
    fn refresh_wait(&self, fd: RawFd, direction: Direction, wait: u64, waker: &Waker) -> bool {
        let task = self.current_key(waker).map(|(key, _)| key);
        let scope = self.current_child();
        let mut watchers = self.inner.watchers.borrow_mut();
        let Some(Watch::Wait(known)) = watchers.get(fd).map(|source| source.watch(direction)) else {
            return false;
        };
        if known.number != wait {
            return false;
        }
        known.task = task;
        known.scope = scope;
        if !known.waker.will_wake(waker) {
            let old = mem::replace(&mut known.waker, waker.clone());
            drop(watchers);
            drop(old);
        }
        true
    }

    /// Takes a wait away that is not over; other waits stay.
    pub(crate) fn forget_wait(&self, fd: RawFd, direction: Direction, wait: u64) {
        let mut watchers = self.inner.watchers.borrow_mut();
        let stands = watchers
            .get(fd)
            .is_some_and(|source| matches!(source.watch(direction), Watch::Wait(known) if known.number == wait));
        if !stands {
            return;
        }
        let removed = watchers.change(fd, |source| mem::take(source.watch(direction)));
        drop(watchers);
        self.disarm(fd);
        drop(removed);
    }

    /// A call that waits keeps others from waiting, unless its task has been cancelled and has not run since.
    fn refuse_second_wait(&self, fd: RawFd, direction: Direction) -> Result<()> {
        let (task, scope) = match self.inner.watchers.borrow_mut().get(fd).map(|source| source.watch(direction)) {
            Some(Watch::Wait(wait)) => (wait.task, wait.scope),
            _ => return Ok(()),
        };
        let task = task.and_then(|key| self.inner.tasks.borrow_mut().find(key));
        let in_scope = scope.is_some_and(|scope| self.inner.scopes.borrow().is_marked(scope));
        if in_scope || task.is_some_and(|task| task.is_marked()) || self.forget_if_stale(fd) {
            return Ok(());
        }
        let what = if direction == Direction::Read { "read from" } else { "write to" };
        Err(Error::Runtime(format!("another call is waiting to {what} descriptor {fd}").into()))
    }

    fn refuse_callback(&self, fd: RawFd, direction: Direction) -> Result<()> {
        let watched = self
            .inner
            .watchers
            .borrow_mut()
            .get(fd)
            .is_some_and(|source| matches!(source.watch(direction), Watch::Callback(_)));
        if watched && !self.forget_if_stale(fd) {
            let what = if direction == Direction::Read { "reader" } else { "writer" };
            return Err(Error::Runtime(format!("descriptor {fd} has a {what}; remove it first").into()));
        }
        Ok(())
    }

    /// Whether the descriptor was closed behind our back and its number is another one's now: the system has forgotten
    /// it. Its watchers are dropped then, and those who wait are woken to find out.
    fn forget_if_stale(&self, fd: RawFd) -> bool {
        let mut watchers = self.inner.watchers.borrow_mut();
        let Some(source) = watchers.get(fd) else { return false };
        let (plan, key) = (source.plan(), usize::try_from(fd).unwrap_or_default());
        let probe = self.inner.selector.borrow_mut().modify(fd, key, plan.interest, plan.mode);
        if !probe.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return false;
        }
        drop(watchers);
        self.forget_source(fd);
        true
    }

    /// Drops the watchers of a descriptor that the system has forgotten, and wakes those who wait to find out.
    pub(super) fn forget_source(&self, fd: RawFd) {
        let stale = self.inner.watchers.borrow_mut().change(fd, |source| {
            source.known = false;
            [mem::take(&mut source.reader), mem::take(&mut source.writer)]
        });
        stale.into_iter().flatten().for_each(Watch::end);
    }

    /// Puts a watch in the place of the one that is there, which ends.
    fn put_watch(&self, fd: RawFd, direction: Direction, watch: Watch) -> Result<()> {
        let mut watchers = self.inner.watchers.borrow_mut();
        let mut selector = self.inner.selector.borrow_mut();
        let (known, other) = match watchers.get(fd) {
            Some(source) => (source.known, source.watch(direction.other()).mode()),
            None => (false, None),
        };
        let (all, alone) = (direction.plan(watch.mode(), other), direction.plan(watch.mode(), None));
        // First the system: the table has no room for a number that is not open.
        let armed = arm(&mut **selector, fd, known, all, alone);
        drop(selector);
        let armed = match armed {
            Ok(armed) => armed,
            Err(error) => {
                drop(watchers);
                watch.end();
                return Err(error.into());
            }
        };
        let ended = watchers.change(fd, |source| {
            source.known = true;
            let before = mem::replace(source.watch(direction), watch);
            match armed {
                Armed::Known => [before, Watch::Nobody],
                Armed::Anew => [before, mem::take(source.watch(direction.other()))],
            }
        });
        drop(watchers);
        ended.into_iter().flatten().for_each(Watch::end);
        Ok(())
    }

    /// Tells the system what `fd` is still watched for.
    fn disarm(&self, fd: RawFd) {
        if !self.inner.shared.in_its_process() {
            return;
        }
        let mut watchers = self.inner.watchers.borrow_mut();
        let Some(source) = watchers.get(fd) else { return };
        let armed = disarm(&mut **self.inner.selector.borrow_mut(), fd, source);
        drop(watchers);
        if !armed {
            self.forget_source(fd);
        }
    }

    /// Queues what an event wakes.
    pub(crate) fn dispatch(&self, event: Event) {
        let Ok(fd) = RawFd::try_from(event.key) else { return };
        let mut watchers = self.inner.watchers.borrow_mut();
        if let Some((handler, event)) = watchers.owned.fire(fd, event) {
            drop(watchers);
            if let IoEvent::Ready { readable: true, writable: false } = event {
                if let Some(reader) = handler.take_reader() {
                    return wake(reader);
                }
            }
            return self.push(Ready::Io(handler, event));
        }
        if watchers.get(fd).is_none() {
            return;
        }
        let fired = watchers.change(fd, |source| {
            let before = source.plan().interest;
            let reader = if event.readable { source.fire(Direction::Read) } else { Watch::Nobody };
            let writer = if event.writable { source.fire(Direction::Write) } else { Watch::Nobody };
            // A wait was reported once and is watched no more; whoever else waits must be armed again.
            ([reader, writer], source.plan().interest != before && source.is_watched())
        });
        drop(watchers);
        let Some((fired, others)) = fired else { return };
        if others {
            self.disarm(fd);
        }
        for watch in fired {
            match watch {
                Watch::Callback(handle) => self.push(Ready::Handle(handle.as_run())),
                Watch::Wait(wait) => wake(wait.waker),
                Watch::Nobody => {}
            }
        }
    }

    /// Drops all watchers. Called by close.
    pub(crate) fn drop_watchers(&self) {
        let (watches, owned) = {
            let mut watchers = self.inner.watchers.borrow_mut();
            (watchers.drain(), watchers.owned.drain())
        };
        for handler in owned {
            self.drop_guarded(move || handler.discard());
        }
        for watch in watches {
            self.drop_guarded(move || match watch {
                Watch::Callback(handle) => handle.deactivate(),
                Watch::Wait(wait) => drop(wait),
                Watch::Nobody => {}
            });
        }
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_closed() { Err(closed()) } else { Ok(()) }
    }
}
