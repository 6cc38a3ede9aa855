//! Who learns that a child ended: its loop, by a descriptor that stands for the child where the system has such, and by
//! SIGCHLD elsewhere. Either way the loop asks for its own children only.

use std::{
    cell::{Cell, RefCell},
    io::{self, Read},
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::UnixStream,
    },
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::{Rc, Weak},
    sync::Arc,
};

use crate::{
    constants::CHILDREN_CHECK,
    error::Result,
    event_loop::{
        EventLoop,
        owned::{IoEvent, IoHandler},
        slots,
        timers::TimerKey,
        turn::{Ready, TimerEntry},
    },
    report,
    sys::{
        child::{self, Child},
        fork,
        selector::Interest,
        signal::{self, Registration},
    },
};

/// Whom a child belongs to.
pub(crate) trait Parent {
    /// The child has ended and is reaped.
    fn exited(self: Rc<Self>, event_loop: &EventLoop, returncode: i32);
    /// Lets go of all that is other people's: the loop is closed.
    fn discard(self: Rc<Self>);
}

/// What a loop knows of its children. Dropped by close, which kills those that still run.
pub(crate) struct Children {
    /// Set by without_descriptors(); never cleared.
    by_signal_only: Cell<bool>,
    by_signal: RefCell<Option<Rc<BySignal>>>,
    /// Whoever is to be told when the loop is closed: those with a child, or with something left to tell.
    parents: RefCell<Vec<Rc<dyn Parent>>>,
    /// Those that ran when the loop was closed.
    left: RefCell<Vec<Arc<Child>>>,
}

impl Children {
    pub(crate) fn of(event_loop: &EventLoop) -> Rc<Children> {
        event_loop.slots().get_or_init(slots::CHILDREN, || Children {
            by_signal_only: Cell::new(false),
            by_signal: RefCell::default(),
            parents: RefCell::default(),
            left: RefCell::default(),
        })
    }

    /// Whether a child's end may be seen by a descriptor.
    pub(crate) fn by_descriptor(&self) -> bool {
        !self.by_signal_only.get()
    }

    /// Keeps a parent until it is [`forget`](Self::forget)ed.
    pub(crate) fn keep(&self, parent: Rc<dyn Parent>) {
        self.parents.borrow_mut().push(parent);
    }

    pub(crate) fn forget(&self, parent: &Rc<dyn Parent>) {
        let mut parents = self.parents.borrow_mut();
        let place = parents.iter().position(|kept| Rc::ptr_eq(kept, parent));
        let forgotten = place.map(|place| parents.swap_remove(place));
        drop(parents);
        drop(forgotten);
    }

    /// Tells `parent` when `child` ends. On an error the child still runs.
    pub(crate) fn watch(
        self: &Rc<Self>,
        event_loop: &EventLoop,
        child: Arc<Child>,
        parent: Rc<dyn Parent>,
    ) -> Result<()> {
        let number = child.descriptor();
        let children = Rc::downgrade(self);
        let watched = Rc::new(Watched { child, number, parent: RefCell::new(Some(parent)), children });
        let Some(number) = number else { return self.watch_by_signal(event_loop, watched) };
        event_loop.own(number, watched)?;
        if let Err(error) = event_loop.watch_owned(number, Interest { readable: true, writable: false }) {
            event_loop.disown(number);
            return Err(error.into());
        }
        Ok(())
    }

    fn watch_by_signal(self: &Rc<Self>, event_loop: &EventLoop, watched: Rc<Watched>) -> Result<()> {
        let before = self.by_signal.borrow().clone();
        let by_signal = match before {
            Some(by_signal) => by_signal,
            None => {
                let by_signal = BySignal::new(event_loop, Rc::downgrade(self))?;
                *self.by_signal.borrow_mut() = Some(by_signal.clone());
                by_signal
            }
        };
        by_signal.watched.borrow_mut().push(watched);
        // It may have ended before SIGCHLD was ours.
        event_loop.push(Ready::Io(by_signal, IoEvent::Made));
        Ok(())
    }
}

impl Drop for Children {
    /// A drop of the user's that panics keeps nothing else from being done; the last panic goes on, to be reported.
    fn drop(&mut self) {
        let mut panicked = None;
        for parent in self.parents.take() {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| parent.discard())) {
                panicked = Some(payload);
            }
        }
        child::give_up(self.left.take());
        if let Some(payload) = panicked {
            resume_unwind(payload);
        }
    }
}

/// A child whose end the loop waits for.
struct Watched {
    child: Arc<Child>,
    /// The descriptor that tells of its end.
    number: Option<RawFd>,
    /// Taken at the end.
    parent: RefCell<Option<Rc<dyn Parent>>>,
    children: Weak<Children>,
}

impl Watched {
    /// Tells the parent if the child has ended; false while it runs.
    fn look(&self, event_loop: &EventLoop) -> bool {
        let Some(ended) = self.child.reap() else { return self.child.returncode().is_some() };
        if let Some(number) = self.number {
            event_loop.disown(number);
        }
        drop(ended.descriptor);
        if !ended.is_known {
            let (pid, returncode) = (self.child.pid(), ended.returncode);
            report::warning(&format!("Unknown child process pid {pid}, will report returncode {returncode}"));
        }
        let parent = self.parent.take();
        if let Some(parent) = parent {
            parent.exited(event_loop, ended.returncode);
        }
        true
    }
}

impl IoHandler for Watched {
    fn run(self: Rc<Self>, event_loop: &EventLoop, _: IoEvent) {
        self.look(event_loop);
    }

    fn discard(self: Rc<Self>) {
        if let Some(children) = self.children.upgrade() {
            children.left.borrow_mut().push(self.child.clone());
        }
        let parent = self.parent.take();
        drop(parent);
    }

    fn describe(&self) -> String {
        format!("<child process {:?}>", self.child)
    }
}

/// Watches the children that have no descriptor: looks at them whenever SIGCHLD has come.
struct BySignal {
    number: RawFd,
    /// Becomes readable with the signal. Taken when nobody is watched any more.
    reader: RefCell<Option<UnixStream>>,
    registration: Cell<Option<Registration>>,
    watched: RefCell<Vec<Rc<Watched>>>,
    check: Cell<Option<TimerKey>>,
    children: Weak<Children>,
}

impl BySignal {
    fn new(event_loop: &EventLoop, children: Weak<Children>) -> Result<Rc<Self>> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        let process = fork::generation();
        let registration = signal::register(libc::SIGCHLD, move || {
            // Where there is no room somebody has been told already.
            if fork::generation() == process {
                let _ = rustix::io::write(&writer, &[0]);
            }
        })?;
        let number = reader.as_raw_fd();
        let by_signal = Rc::new(BySignal {
            number,
            reader: RefCell::new(Some(reader)),
            registration: Cell::new(Some(registration)),
            watched: RefCell::default(),
            check: Cell::new(None),
            children,
        });
        event_loop.own(number, by_signal.clone())?;
        if let Err(error) = event_loop.watch_owned(number, Interest { readable: true, writable: false }) {
            event_loop.disown(number);
            return Err(error.into());
        }
        Ok(by_signal)
    }

    fn look(self: &Rc<Self>, event_loop: &EventLoop) {
        // Parents that are told may start other children.
        let watched = self.watched.borrow().clone();
        let ended: Vec<_> = watched.into_iter().filter(|watched| watched.look(event_loop)).collect();
        let mut left = self.watched.borrow_mut();
        left.retain(|watched| !ended.iter().any(|ended| Rc::ptr_eq(ended, watched)));
        let is_done = left.is_empty();
        drop(left);
        if is_done {
            self.end(event_loop);
        } else if self.check.get().is_none() {
            self.check_later(event_loop);
        }
    }

    fn check_later(self: &Rc<Self>, event_loop: &EventLoop) {
        let deadline = event_loop.deadline_in(CHILDREN_CHECK);
        self.check.set(Some(event_loop.insert_timer(deadline, TimerEntry::Io(self.clone(), IoEvent::Retry))));
    }

    /// Gives the signal back.
    fn end(&self, event_loop: &EventLoop) {
        let Some(reader) = self.reader.take() else { return };
        event_loop.disown(self.number);
        // The signal's handler writes to the other end.
        drop(self.registration.take());
        drop(reader);
        if let Some(key) = self.check.take() {
            let entry = event_loop.inner.timers.borrow_mut().remove(key);
            drop(entry);
        }
        if let Some(children) = self.children.upgrade() {
            let this = children.by_signal.take();
            drop(this);
        }
    }

    /// Takes what the signals have left to be read.
    fn drain(&self) -> io::Result<()> {
        let reader = self.reader.borrow();
        let Some(mut reader) = reader.as_ref() else { return Ok(()) };
        while reader.read(&mut [0; 64])? == 64 {}
        Ok(())
    }
}

impl IoHandler for BySignal {
    fn run(self: Rc<Self>, event_loop: &EventLoop, event: IoEvent) {
        match event {
            // There is nothing to be read, or it is read at the next time.
            IoEvent::Ready { .. } => drop(self.drain()),
            IoEvent::Retry => self.check.set(None),
            _ => {}
        }
        self.look(event_loop);
    }

    fn discard(self: Rc<Self>) {
        drop(self.registration.take());
        let reader = self.reader.take();
        drop(reader);
        for watched in self.watched.take() {
            watched.discard();
        }
    }

    fn describe(&self) -> String {
        format!("<{} child processes, by SIGCHLD>", self.watched.borrow().len())
    }
}

impl EventLoop {
    /// Lets this loop learn of the end of its children by SIGCHLD, as on systems that have nothing better.
    #[doc(hidden)]
    pub fn without_process_descriptors(&self) {
        Children::of(self).by_signal_only.set(true);
    }
}
