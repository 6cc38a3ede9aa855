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
        handle::{Repeated, RepeatedHandle},
        threadsafe::{check_process, closed},
        turn::Ready,
    },
    sys::selector::{Event, Interest, Mode, Selector},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// Who watches one direction of a descriptor.
#[derive(Default)]
enum Watch {
    #[default]
    Nobody,
    /// As long as it is not removed.
    Callback(Rc<dyn Repeated>),
    /// Once; the number tells waits apart.
    Wait(u64, Waker),
}

impl Watch {
    fn is_nobody(&self) -> bool {
        matches!(self, Watch::Nobody)
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

    fn interest(&self) -> Interest {
        Interest { readable: !self.reader.is_nobody(), writable: !self.writer.is_nobody() }
    }

    /// Waits are for once, so that a descriptor that nobody waits for any more costs no call to be forgotten.
    fn mode(&self) -> Mode {
        match (&self.reader, &self.writer) {
            (Watch::Callback(_), _) | (_, Watch::Callback(_)) => Mode::Level,
            _ => Mode::Oneshot,
        }
    }

    fn holds_clock(&self) -> bool {
        !self.background && !self.interest().is_empty()
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
}

impl Watchers {
    pub(crate) fn is_empty(&self) -> bool {
        self.watched == 0
    }

    pub(crate) fn holds_clock(&self) -> bool {
        self.foreground > 0
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
        let before = (!source.interest().is_empty(), source.holds_clock());
        let result = change(source);
        let after = (!source.interest().is_empty(), source.holds_clock());
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

/// Tells the system what a source is watched for now. One call in the usual case.
fn arm(selector: &mut dyn Selector, fd: RawFd, source: &mut Source) -> io::Result<()> {
    let (interest, mode) = (source.interest(), source.mode());
    let key = usize::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    let result = if source.known {
        match selector.modify(fd, key, interest, mode) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => selector.register(fd, key, interest, mode),
            other => other,
        }
    } else {
        match selector.register(fd, key, interest, mode) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => selector.modify(fd, key, interest, mode),
            other => other,
        }
    };
    source.known = result.is_ok();
    result
}

/// After something was removed: narrows what the system watches, or lets it forget the descriptor. False if the
/// descriptor was closed meanwhile, so that nobody who waits for it would be woken.
fn disarm(selector: &mut dyn Selector, fd: RawFd, source: &mut Source) -> bool {
    if !source.known {
        return true;
    }
    if source.interest().is_empty() {
        source.known = false;
        // A descriptor that was closed meanwhile is forgotten already.
        let _ = selector.deregister(fd);
        return true;
    }
    arm(selector, fd, source).is_ok()
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
    /// if the loop is closed, if this is a forked child of its process, or if a `sock_*` call is waiting to read.
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
    /// None at present; a transport's descriptor will be [`Error::Runtime`].
    ///
    /// asyncio: `loop.remove_reader`.
    pub fn remove_reader(&self, fd: &impl AsRawFd) -> Result<bool> {
        Ok(self.remove_watch(fd.as_raw_fd(), Direction::Read))
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
    /// None at present; a transport's descriptor will be [`Error::Runtime`].
    ///
    /// asyncio: `loop.remove_writer`.
    pub fn remove_writer(&self, fd: &impl AsRawFd) -> Result<bool> {
        Ok(self.remove_watch(fd.as_raw_fd(), Direction::Write))
    }

    /// Says whether a wait for `fd` lets a virtual clock go on (`true`) or holds it (`false`, the rule).
    ///
    /// Lasts until it is said otherwise or the loop is closed. For descriptors from which nothing is expected, such as a
    /// listener in a test of time-outs.
    ///
    /// asyncio: has no virtual clock.
    pub fn set_background(&self, fd: &impl AsRawFd, background: bool) {
        self.inner.watchers.borrow_mut().change(fd.as_raw_fd(), |source| source.background = background);
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
        let handle = RepeatedHandle::repeated(self, callback, created, Some(fd));
        self.refuse_second_wait(fd, direction)?;
        self.put_watch(fd, direction, Watch::Callback(handle))
    }

    fn remove_watch(&self, fd: RawFd, direction: Direction) -> bool {
        let mut watchers = self.inner.watchers.borrow_mut();
        let is_callback = watchers.get(fd).is_some_and(|source| matches!(source.watch(direction), Watch::Callback(_)));
        if !is_callback {
            return false;
        }
        let removed = watchers.change(fd, |source| mem::take(source.watch(direction)));
        drop(watchers);
        self.disarm(fd);
        if let Some(Watch::Callback(handle)) = removed {
            handle.deactivate();
        }
        true
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
        if self.refresh_wait(fd, direction, wait, waker) {
            return Ok(());
        }
        self.refuse_second_wait(fd, direction)?;
        self.refuse_callback(fd, direction)?;
        self.put_watch(fd, direction, Watch::Wait(wait, waker.clone()))
    }

    /// Whether the wait stands already; it then wakes `waker` from now on.
    fn refresh_wait(&self, fd: RawFd, direction: Direction, wait: u64, waker: &Waker) -> bool {
        let mut watchers = self.inner.watchers.borrow_mut();
        let Some(Watch::Wait(number, known)) = watchers.get(fd).map(|source| source.watch(direction)) else {
            return false;
        };
        if *number != wait {
            return false;
        }
        if !known.will_wake(waker) {
            let old = mem::replace(known, waker.clone());
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
            .is_some_and(|source| matches!(source.watch(direction), Watch::Wait(number, _) if *number == wait));
        if !stands {
            return;
        }
        let removed = watchers.change(fd, |source| mem::take(source.watch(direction)));
        drop(watchers);
        self.disarm(fd);
        drop(removed);
    }

    fn refuse_second_wait(&self, fd: RawFd, direction: Direction) -> Result<()> {
        let waits = self
            .inner
            .watchers
            .borrow_mut()
            .get(fd)
            .is_some_and(|source| matches!(source.watch(direction), Watch::Wait(..)));
        if waits && !self.forget_if_stale(fd) {
            let what = if direction == Direction::Read { "read from" } else { "write to" };
            return Err(Error::Runtime(format!("another call is waiting to {what} descriptor {fd}").into()));
        }
        Ok(())
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
        let (interest, mode, key) = (source.interest(), source.mode(), usize::try_from(fd).unwrap_or_default());
        let probe = self.inner.selector.borrow_mut().modify(fd, key, interest, mode);
        if !probe.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return false;
        }
        drop(watchers);
        self.forget_source(fd);
        true
    }

    /// Drops the watchers of a descriptor that the system has forgotten, and wakes those who wait to find out.
    fn forget_source(&self, fd: RawFd) {
        let stale = self.inner.watchers.borrow_mut().change(fd, |source| {
            source.known = false;
            [mem::take(&mut source.reader), mem::take(&mut source.writer)]
        });
        for watch in stale.into_iter().flatten() {
            match watch {
                Watch::Callback(handle) => handle.deactivate(),
                Watch::Wait(_, waker) => waker.wake(),
                Watch::Nobody => {}
            }
        }
    }

    fn put_watch(&self, fd: RawFd, direction: Direction, watch: Watch) -> Result<()> {
        let mut watchers = self.inner.watchers.borrow_mut();
        let mut selector = self.inner.selector.borrow_mut();
        let outcome = watchers.change(fd, |source| {
            let before = mem::replace(source.watch(direction), watch);
            match arm(&mut **selector, fd, source) {
                Ok(()) => (Ok(()), before),
                Err(error) => (Err(error), mem::replace(source.watch(direction), before)),
            }
        });
        drop((watchers, selector));
        let (result, unused) = outcome.ok_or_else(|| Error::Value(format!("invalid descriptor {fd}").into()))?;
        if let Watch::Callback(handle) = unused {
            handle.deactivate();
        }
        result.map_err(Error::from)
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
        for (direction, happened) in [(Direction::Read, event.readable), (Direction::Write, event.writable)] {
            if happened {
                self.dispatch_direction(fd, direction);
            }
        }
    }

    fn dispatch_direction(&self, fd: RawFd, direction: Direction) {
        let mut watchers = self.inner.watchers.borrow_mut();
        let Some(source) = watchers.get(fd) else { return };
        match source.watch(direction) {
            Watch::Callback(handle) => {
                let handle = handle.clone().as_run();
                drop(watchers);
                self.push(Ready::Handle(handle));
            }
            Watch::Wait(..) => {
                let woken = watchers.change(fd, |source| mem::take(source.watch(direction)));
                // The system reported once and watches no more; whoever else waits must be armed again.
                let others = watchers.get(fd).is_some_and(|source| !source.interest().is_empty());
                drop(watchers);
                if others {
                    self.disarm(fd);
                }
                if let Some(Watch::Wait(_, waker)) = woken {
                    waker.wake();
                }
            }
            Watch::Nobody => {}
        }
    }

    /// Drops all watchers. Called by close.
    pub(crate) fn drop_watchers(&self) {
        let watches = self.inner.watchers.borrow_mut().drain();
        for watch in watches {
            match watch {
                Watch::Callback(handle) => handle.deactivate(),
                Watch::Wait(_, waker) => drop(waker),
                Watch::Nobody => {}
            }
        }
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_closed() { Err(closed()) } else { Ok(()) }
    }
}
