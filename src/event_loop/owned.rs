//! Descriptors that transports and servers own: registered for as long as they are watched, with one system call for each
//! change and none in between, because nobody else closes them.

use std::{io, mem, os::fd::RawFd, rc::Rc, task::Waker};

use crate::{
    error::{Error, Result},
    event_loop::{EventLoop, threadsafe::check_process, watchers::key_of},
    sys::selector::{Event, Interest, Mode},
};

/// What owns a descriptor: told what it is ready for, and of what it asked the queue to be told.
pub(crate) trait IoHandler {
    fn run(self: Rc<Self>, event_loop: &EventLoop, event: IoEvent);

    /// Who is to be woken at once when the descriptor is readable, instead of a call from the ready queue.
    #[inline]
    fn take_reader(&self) -> Option<Waker> {
        None
    }

    /// Lets go of the descriptor and of all that is other people's: the loop is closed.
    fn discard(self: Rc<Self>);

    /// How reports and errors call it.
    fn describe(&self) -> String;
}

/// What a handler is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IoEvent {
    /// The descriptor is ready.
    Ready { readable: bool, writable: bool },
    /// The protocol is to hear of its connection.
    Made,
    /// The protocol is to hear that the connection is over.
    Lost,
    /// What could not be delivered may be tried again.
    Retry,
    /// What it set a timer for has not come.
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "only TLS has such limits"))]
    TimedOut,
}

struct OwnedSource {
    handler: Rc<dyn IoHandler>,
    /// What the selector watches it for; it does not know the descriptor where there is none. An empty interest is in
    /// hang-ups alone.
    interest: Option<Interest>,
    /// Set by set_background(): a wait for it does not hold a virtual clock.
    background: bool,
}

impl OwnedSource {
    fn counts(&self) -> (usize, usize) {
        let watched = self.interest.is_some();
        (usize::from(watched), usize::from(watched && !self.background))
    }
}

/// The owned descriptors by number.
#[derive(Default)]
pub(super) struct Owned {
    sources: Vec<Option<OwnedSource>>,
    /// How many are watched.
    pub(super) watched: usize,
    /// How many of them hold a virtual clock.
    pub(super) foreground: usize,
}

impl Owned {
    fn get(&self, fd: RawFd) -> Option<&OwnedSource> {
        self.sources.get(usize::try_from(fd).ok()?)?.as_ref()
    }

    /// Changes a source and keeps the counts right; `None` if nobody owns the descriptor.
    fn change<R>(&mut self, fd: RawFd, change: impl FnOnce(&mut Option<OwnedSource>) -> R) -> Option<R> {
        let place = self.sources.get_mut(usize::try_from(fd).ok()?)?;
        let counts = |place: &Option<OwnedSource>| place.as_ref().map_or((0, 0), OwnedSource::counts);
        let before = counts(place);
        let result = place.is_some().then(|| change(place));
        let after = counts(place);
        self.watched = self.watched + after.0 - before.0;
        self.foreground = self.foreground + after.1 - before.1;
        result
    }

    /// False if nobody owns the descriptor.
    pub(super) fn set_background(&mut self, fd: RawFd, background: bool) -> bool {
        let set = |place: &mut Option<OwnedSource>| place.iter_mut().for_each(|source| source.background = background);
        self.change(fd, set).is_some()
    }

    /// What an event means to the descriptor's owner, if it has one.
    #[inline]
    pub(super) fn fire(&self, fd: RawFd, event: Event) -> Option<(Rc<dyn IoHandler>, IoEvent)> {
        let source = self.get(fd)?;
        let interest = source.interest?;
        let readable = event.readable && (interest.readable || interest.is_empty());
        let writable = event.writable && interest.writable;
        Some((source.handler.clone(), IoEvent::Ready { readable, writable }))
    }

    /// Takes everybody out, for close.
    pub(super) fn drain(&mut self) -> Vec<Rc<dyn IoHandler>> {
        let sources = mem::take(self).sources;
        sources.into_iter().flatten().map(|source| source.handler).collect()
    }
}

impl EventLoop {
    /// Refuses a descriptor that a transport or server owns.
    pub(crate) fn refuse_owned(&self, fd: RawFd) -> Result<()> {
        let handler = self.inner.watchers.borrow().owned.get(fd).map(|source| source.handler.clone());
        match handler {
            None => Ok(()),
            Some(handler) => {
                Err(Error::Runtime(format!("File descriptor {fd} is used by transport {}", handler.describe()).into()))
            }
        }
    }

    /// Makes `handler` the owner of `fd`, which is not watched yet. Whoever watched it before watches no more.
    pub(crate) fn own(&self, fd: RawFd, handler: Rc<dyn IoHandler>) -> Result<()> {
        self.check_open()?;
        check_process(&self.inner.shared)?;
        self.refuse_owned(fd)?;
        let index = key_of(fd)?;
        if self.inner.watchers.borrow().is_known(fd) {
            self.forget_source(fd);
            // What they were told of by the selector nobody would take any more. It may know nothing of it.
            let _ = self.inner.selector.borrow_mut().deregister(fd);
        }
        let mut watchers = self.inner.watchers.borrow_mut();
        let sources = &mut watchers.owned.sources;
        if index >= sources.len() {
            sources.resize_with(index + 1, || None);
        }
        sources[index] = Some(OwnedSource { handler, interest: None, background: false });
        Ok(())
    }

    /// Changes what an owned descriptor is watched for: one system call if it is a change, else none.
    pub(crate) fn watch_owned(&self, fd: RawFd, interest: Interest) -> io::Result<()> {
        // A hang-up is reported even to those who want to hear nothing: they are not registered at all.
        self.watch(fd, (!interest.is_empty()).then_some(interest))
    }

    /// As [`watch_owned`](Self::watch_owned), for who wants to hear of a hang-up even with an empty interest, where the
    /// system can tell: it comes as readable.
    pub(crate) fn watch_owned_to_its_end(&self, fd: RawFd, interest: Interest) -> io::Result<()> {
        self.watch(fd, Some(interest))
    }

    fn watch(&self, fd: RawFd, interest: Option<Interest>) -> io::Result<()> {
        if !self.inner.shared.in_its_process() {
            return Ok(());
        }
        let mut watchers = self.inner.watchers.borrow_mut();
        let Some(before) = watchers.owned.get(fd).map(|source| source.interest) else { return Ok(()) };
        if before == interest {
            return Ok(());
        }
        let key = key_of(fd)?;
        let mut selector = self.inner.selector.borrow_mut();
        let told = match interest {
            None => selector.deregister(fd),
            Some(interest) if before.is_some() => selector.modify(fd, key, interest, Mode::Level),
            Some(interest) => match selector.register(fd, key, interest, Mode::Level) {
                // Left over from somebody who watched it by number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    selector.modify(fd, key, interest, Mode::Level)
                }
                told => told,
            },
        };
        drop(selector);
        if told.is_ok() || interest.is_none() {
            watchers.owned.change(fd, |place| place.iter_mut().for_each(|source| source.interest = interest));
        }
        told
    }

    /// Ends the ownership; the descriptor may be closed then.
    pub(crate) fn disown(&self, fd: RawFd) {
        // Already gone where the descriptor could never be watched.
        let _ = self.watch_owned(fd, Interest::NONE);
        let owner = self.inner.watchers.borrow_mut().owned.change(fd, Option::take);
        drop(owner);
    }
}
