//! How a transport calls its protocol: one call at a time, in order, and never while somebody else holds it.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    os::fd::RawFd,
    panic::{AssertUnwindSafe, Location, catch_unwind},
    rc::Rc,
    time::Duration,
};

use crate::{
    constants::{FIRST_RETRY, LAST_RETRY, NOTICES_PER_TURN},
    context::{self, ContextRef},
    error::Error,
    event_loop::{
        EventLoop,
        exceptions::ExceptionContext,
        owned::{IoEvent, IoHandler},
        turn::{Ready, TimerEntry},
    },
};

/// What a protocol is told besides what was received.
#[derive(Clone, Debug)]
pub(crate) enum Notice {
    Made,
    Pause,
    Resume,
    /// Nothing more will come, and nothing can be kept open.
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "only TLS closes in both directions at once"))]
    Eof,
    /// A datagram could not be sent or was refused.
    Error(Error),
    Child(ChildNotice),
    Lost(Option<Error>),
}

/// What the protocol of a subprocess is told of it. A pipe goes by the number that it has in the child.
#[derive(Clone, Debug)]
pub(crate) enum ChildNotice {
    /// What came through a pipe while somebody held the protocol.
    Data(i32, Vec<u8>),
    PipeLost(i32, Option<Error>),
    Exited,
}

impl Notice {
    /// How the report begins of a panic in it.
    pub(crate) fn failure(&self) -> String {
        format!("protocol.{}() failed", self.callback())
    }

    fn callback(&self) -> &'static str {
        match self {
            Notice::Made => "connection_made",
            Notice::Pause => "pause_writing",
            Notice::Resume => "resume_writing",
            Notice::Eof => "eof_received",
            Notice::Error(_) => "error_received",
            Notice::Child(ChildNotice::Data(..)) => "pipe_data_received",
            Notice::Child(ChildNotice::PipeLost(..)) => "pipe_connection_lost",
            Notice::Child(ChildNotice::Exited) => "process_exited",
            Notice::Lost(_) => "connection_lost",
        }
    }
}

/// A protocol as its transport holds it.
pub(crate) trait Callee: Clone + 'static {
    type Borrowed<'a>
    where
        Self: 'a;
    type Transport;

    /// `None` while somebody else holds it.
    fn try_borrow(&self) -> Option<Self::Borrowed<'_>>;
    fn notify(borrowed: &mut Self::Borrowed<'_>, transport: &Self::Transport, notice: &Notice);
    fn type_name(&self) -> &'static str;
}

/// A transport as its calls see it.
pub(crate) trait Caller<P: Callee>: IoHandler + 'static {
    fn calls(&self) -> &Calls<P>;
    fn transport(self: Rc<Self>) -> P::Transport;
    /// The number of its descriptor, for reports.
    fn number(&self) -> Option<RawFd>;
    /// Gives what went wrong to the exception handler.
    #[cold]
    fn report(&self, event_loop: &EventLoop, message: String, error: Error) {
        let protocol = self.calls().protocol().map_or("None", |protocol| protocol.type_name());
        let context = ExceptionContext::new(message).exception(error).extra("transport", self.describe());
        event_loop.call_exception_handler(&with_number(context, self.number()).extra("protocol", protocol));
    }
    /// Gives a mistake of the caller's to the exception handler.
    #[cold]
    fn report_mistake(&self, event_loop: &EventLoop, call: &str, error: Error, location: &'static Location<'static>) {
        let context = ExceptionContext::new(format!("{call}() was called where it must not be"))
            .exception(error)
            .extra("transport", self.describe())
            .source_location(location);
        event_loop.call_exception_handler(&with_number(context, self.number()));
    }
    /// The protocol panicked when it was told.
    #[cold]
    fn notice_failed(&self, event_loop: &EventLoop, notice: &Notice, error: Error) {
        self.report(event_loop, notice.failure(), error);
    }
    /// The protocol has been told that the connection is over. Whether it may be let go: a layer may still have to tell
    /// its own.
    fn ended(&self, event_loop: &EventLoop) -> bool;
}

fn with_number(context: ExceptionContext, number: Option<RawFd>) -> ExceptionContext {
    match number {
        Some(number) => context.socket(number),
        None => context,
    }
}

/// A protocol, and what it has not been told yet.
pub(crate) struct Calls<P> {
    /// Taken when the connection has ended, which breaks the cycle of the two.
    protocol: RefCell<Option<P>>,
    /// Set while a call of ours runs.
    calling: Cell<bool>,
    /// What is to be told after the call that runs, or once whoever holds the protocol lets it go.
    waiting: RefCell<VecDeque<Notice>>,
    /// How long until the next attempt to tell it; `None` while there is no need.
    retry: Cell<Option<Duration>>,
    /// Whether that attempt is on its way.
    scheduled: Cell<bool>,
    context: Cell<ContextRef>,
    identity: u64,
}

/// What became of a call.
pub(crate) enum Called<R> {
    Returned(R),
    Panicked(Error),
    /// Somebody else holds the protocol, or a call runs.
    Borrowed,
    /// There is no protocol any more.
    Gone,
}

impl<P: Callee> Calls<P> {
    pub(crate) fn new(event_loop: &EventLoop, protocol: P) -> Self {
        // A copy, as for every callback that is scheduled.
        let context = match event_loop.capture() {
            ContextRef::Shared(context) => ContextRef::Bare(context.vars()),
            bare @ ContextRef::Bare(_) => bare,
        };
        Calls {
            protocol: RefCell::new(Some(protocol)),
            calling: Cell::new(false),
            waiting: RefCell::default(),
            retry: Cell::new(None),
            scheduled: Cell::new(false),
            context: Cell::new(context),
            identity: context::fresh_identity(),
        }
    }

    pub(crate) fn protocol(&self) -> Option<P> {
        self.protocol.borrow().clone()
    }

    /// Puts another protocol in the place of the one that is there, if the connection has not ended.
    pub(crate) fn set_protocol(&self, protocol: P) {
        let mut place = self.protocol.borrow_mut();
        let before = if place.is_some() { place.replace(protocol) } else { Some(protocol) };
        drop(place);
        drop(before);
    }

    /// Whether the protocol believes that it is to pause writing: it `is_paused`, or it is not, but what says so waits.
    pub(crate) fn was_told_to_pause(&self, is_paused: bool) -> bool {
        let waiting = self.waiting.borrow();
        let next = waiting.iter().find(|notice| matches!(notice, Notice::Pause | Notice::Resume));
        next.map_or(is_paused, |next| matches!(next, Notice::Resume))
    }

    /// Looks at the protocol where nothing waits to be told.
    #[inline]
    pub(crate) fn peek<R>(&self, look: impl FnOnce(&P) -> Option<R>) -> Option<R> {
        if !self.waiting.borrow().is_empty() {
            return None;
        }
        self.protocol.borrow().as_ref().and_then(look)
    }

    /// Whether the protocol has yet to be told of its connection, because somebody else holds it.
    pub(crate) fn is_unmade(&self) -> bool {
        self.waiting.borrow().iter().any(|notice| matches!(notice, Notice::Made))
    }

    /// Lets go of the protocol.
    pub(crate) fn release(&self) {
        let protocol = self.protocol.take();
        let left = (protocol, self.waiting.take(), self.context.take());
        drop(left);
    }

    /// Calls the protocol from the ready queue, and then tells it what has come up meanwhile.
    #[inline]
    pub(crate) fn call<C: Caller<P>, R>(
        caller: &Rc<C>,
        event_loop: &EventLoop,
        call: impl FnOnce(&mut P::Borrowed<'_>) -> R,
    ) -> Called<R> {
        let calls = caller.calls();
        if !calls.waiting.borrow().is_empty() {
            Self::flush(caller, event_loop);
            if !calls.waiting.borrow().is_empty() {
                return Called::Borrowed;
            }
        }
        let called = calls.enter(call);
        if !calls.waiting.borrow().is_empty() {
            Self::flush(caller, event_loop);
        }
        called
    }

    /// Runs `call` with the protocol, in its context.
    #[inline]
    fn enter<R>(&self, call: impl FnOnce(&mut P::Borrowed<'_>) -> R) -> Called<R> {
        if self.calling.get() {
            return Called::Borrowed;
        }
        let Some(protocol) = self.protocol() else { return Called::Gone };
        let Some(mut borrowed) = protocol.try_borrow() else { return Called::Borrowed };
        self.calling.set(true);
        let entered = context::enter(self.context.take(), self.identity).expect("a bare context can be entered");
        let outcome = catch_unwind(AssertUnwindSafe(|| call(&mut borrowed)));
        self.context.set(entered.leave());
        self.calling.set(false);
        match outcome {
            Ok(value) => Called::Returned(value),
            Err(payload) => Called::Panicked(Error::from_panic(payload)),
        }
    }

    /// Tells the protocol now, or after the call of ours that runs, or once it is let go.
    pub(crate) fn notify<C: Caller<P>>(caller: &Rc<C>, event_loop: &EventLoop, notice: Notice) {
        let calls = caller.calls();
        if !calls.calling.get() && calls.waiting.borrow().is_empty() {
            // Not by way of the queue, whose memory an idle connection does not need.
            return Self::tell(caller, event_loop, Some(notice));
        }
        calls.waiting.borrow_mut().push_back(notice);
        if !calls.calling.get() {
            Self::flush(caller, event_loop);
        }
    }

    /// Tells what waits.
    pub(crate) fn flush<C: Caller<P>>(caller: &Rc<C>, event_loop: &EventLoop) {
        Self::tell(caller, event_loop, None);
    }

    /// Tells the `first` notice and what waits, as far as the protocol can be had and others have their turns: what it
    /// does when it is told may make more to tell.
    fn tell<C: Caller<P>>(caller: &Rc<C>, event_loop: &EventLoop, mut first: Option<Notice>) {
        let calls = caller.calls();
        for _ in 0..NOTICES_PER_TURN {
            let notice = first.take().or_else(|| calls.waiting.borrow_mut().pop_front());
            let Some(notice) = notice else { return calls.retry.set(None) };
            let transport = caller.clone().transport();
            match calls.enter(|borrowed| P::notify(borrowed, &transport, &notice)) {
                Called::Returned(()) => {}
                Called::Panicked(error) => {
                    caller.notice_failed(event_loop, &notice, error);
                }
                Called::Borrowed => {
                    calls.waiting.borrow_mut().push_front(notice);
                    return Self::retry_later(caller, event_loop);
                }
                Called::Gone => return calls.waiting.borrow_mut().clear(),
            }
            if let Notice::Lost(_) = notice {
                calls.retry.set(None);
                // Last, for the drop of a protocol is other people's code.
                if caller.ended(event_loop) {
                    calls.release();
                }
                return;
            }
        }
        if !calls.waiting.borrow().is_empty() && !calls.scheduled.replace(true) {
            event_loop.push(Ready::Io(caller.clone(), IoEvent::Retry));
        }
    }

    /// As [`flush`](Self::flush), when a retry that was asked for has come.
    pub(crate) fn retry<C: Caller<P>>(caller: &Rc<C>, event_loop: &EventLoop) {
        caller.calls().scheduled.set(false);
        Self::flush(caller, event_loop);
    }

    /// In the next iteration first, and then by a timer: whoever holds a protocol for long costs no spinning.
    fn retry_later<C: Caller<P>>(caller: &Rc<C>, event_loop: &EventLoop) {
        let calls = caller.calls();
        // Whoever calls it from here comes to this again.
        if calls.calling.get() || calls.scheduled.replace(true) {
            return;
        }
        match calls.retry.get() {
            None => {
                calls.retry.set(Some(FIRST_RETRY));
                event_loop.push(Ready::Io(caller.clone(), IoEvent::Retry));
            }
            Some(delay) => {
                calls.retry.set(Some((delay * 2).min(LAST_RETRY)));
                let deadline = event_loop.deadline_in(delay);
                event_loop.insert_timer(deadline, TimerEntry::Io(caller.clone(), IoEvent::Retry));
            }
        }
    }
}
