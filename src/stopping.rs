//! What the signals that end a program do to a run: its servers drain, if they are to, and main is cancelled.

use std::{
    cell::{Cell, RefCell},
    panic::Location,
    rc::Rc,
    time::Duration,
};

use crate::{
    error::{Cancelled, Canceller, Error, Result},
    event_loop::{EventLoop, any_task::AnyTask, step::TaskRef},
    signals::SignalGuard,
};

/// What SIGINT does to a run, and SIGTERM where the servers drain.
///
/// ```text
/// Running --signal, where servers drain and there are some--> Draining --they have ended--> Cancelling
///                                                  Draining --signal: they are aborted--> Cancelling
/// Running --any other signal--> Cancelling
/// ```
#[derive(Default)]
pub(crate) struct Stopping {
    /// How long servers may drain; `None` where they do not.
    limit: Option<Duration>,
    stage: Cell<Stage>,
    interrupts: Interrupts,
    /// The signal that came last.
    last: Cell<StopSignal>,
    drain: RefCell<Option<AnyTask>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Running,
    Draining,
    Cancelling,
}

#[derive(Clone, Copy, Default)]
enum StopSignal {
    #[default]
    Int,
    Term,
}

impl StopSignal {
    fn reason(self) -> Cancelled {
        match self {
            StopSignal::Int => Cancelled::by(Canceller::Interrupt, None),
            StopSignal::Term => Cancelled::by(Canceller::Terminate, Some("SIGTERM".into())),
        }
    }
}

impl Stopping {
    pub(crate) fn new(limit: Option<Duration>) -> Rc<Self> {
        Rc::new(Stopping { limit, ..Stopping::default() })
    }

    /// Acts on the signals until the guards go, where that is for us to do.
    pub(crate) fn take_over(self: &Rc<Self>, event_loop: &EventLoop) -> Result<Vec<SignalGuard>> {
        let mut guards = Vec::new();
        for (number, signal) in [(libc::SIGINT, StopSignal::Int), (libc::SIGTERM, StopSignal::Term)] {
            if number == libc::SIGINT || self.limit.is_some() {
                let stopping = self.clone();
                guards.extend(event_loop.take_over(number, move |event_loop| stopping.arrived(event_loop, signal))?);
            }
        }
        Ok(guards)
    }

    pub(crate) fn begin(&self, task: &TaskRef) {
        self.interrupts.begin(task);
    }

    fn arrived(self: &Rc<Self>, event_loop: &EventLoop, signal: StopSignal) {
        self.last.set(signal);
        let main_has_ended = self.interrupts.task().is_none_or(|task| task.is_done());
        match (self.stage.get(), self.limit) {
            (Stage::Running, Some(limit)) if !main_has_ended && event_loop.has_servers() => {
                self.stage.set(Stage::Draining);
                self.begin_drain(event_loop, limit);
            }
            (Stage::Draining, _) => {
                self.stage.set(Stage::Cancelling);
                event_loop.abort_servers();
                self.cancel_main(event_loop);
            }
            (Stage::Cancelling, _) if main_has_ended => {
                // Nothing but servers that do not even end when they are aborted.
                let drain = self.drain.borrow().clone();
                if let Some(drain) = drain {
                    drain.cancel();
                }
            }
            (Stage::Running | Stage::Cancelling, _) => {
                self.stage.set(Stage::Cancelling);
                self.interrupts.interrupt(event_loop, signal.reason());
            }
        }
    }

    /// In a task that no task factory sees: it is not the program's.
    fn begin_drain(self: &Rc<Self>, event_loop: &EventLoop, limit: Duration) {
        let (stopping, draining) = (self.clone(), event_loop.clone());
        let drain = async move {
            // Whoever cancels it wants the end sooner.
            let _ = draining.drain_servers(limit).await;
            if stopping.stage.get() == Stage::Draining {
                stopping.stage.set(Stage::Cancelling);
                stopping.cancel_main(&draining);
            }
            Ok(())
        };
        let drain = event_loop.make_plain_task(drain, Location::caller(), None);
        drain.set_name("drain of the servers");
        self.drain.replace(Some(drain.any()));
    }

    /// Cancels main after a drain, of which it may have been the end already.
    fn cancel_main(&self, event_loop: &EventLoop) {
        if self.interrupts.task().is_some_and(|task| !task.is_done()) {
            self.interrupts.interrupt(event_loop, self.last.get().reason());
        }
    }

    /// Goes on with a drain after main has ended: other servers than its own may not have.
    pub(crate) fn finish_drain(&self, event_loop: &EventLoop) {
        let drain = self.drain.borrow().clone();
        if let Some(drain) = drain.filter(|drain| !drain.done()) {
            // It may be cancelled, and the loop may be stopped.
            let _ = event_loop.run_until_complete(drain);
        }
    }

    /// What the run gives, after main's end.
    pub(crate) fn end<T>(&self, result: Result<T>) -> Result<T> {
        self.drain.take();
        if !self.interrupts.end(&result) {
            return result;
        }
        Err(match self.last.get() {
            StopSignal::Int => Error::KeyboardInterrupt,
            signal @ StopSignal::Term => Error::Cancelled(signal.reason()),
        })
    }
}

/// What SIGINT does to a main task: the first cancels it, the second cancels it again, the third drops it.
#[derive(Default)]
pub(crate) struct Interrupts {
    count: Cell<usize>,
    /// Set by one that comes when main has ended, or in its last step: it cannot be cancelled any more. Never cleared.
    too_late: Cell<bool>,
    /// Main, while it runs.
    task: RefCell<Option<TaskRef>>,
}

impl Interrupts {
    pub(crate) fn begin(&self, task: &TaskRef) {
        self.task.replace(Some(task.clone()));
    }

    pub(crate) fn interrupt(&self, event_loop: &EventLoop, reason: Cancelled) {
        self.count.set(self.count.get() + 1);
        let Some(task) = self.task() else { return };
        match self.count.get() {
            _ if task.is_done() => self.too_late.set(true),
            1 => drop(task.cancel(reason)),
            // Behind the step that the first one has queued: main takes them one by one.
            2 => drop(event_loop.call_soon(move || task.cancel(reason))),
            _ => {
                task.kill();
                task.wake_all();
            }
        }
    }

    pub(crate) fn task(&self) -> Option<TaskRef> {
        self.task.borrow().clone()
    }

    /// Says, after main's end, whether it counts as interrupted.
    pub(crate) fn end<T>(&self, result: &Result<T>) -> bool {
        let task = self.task.take();
        match result {
            _ if self.count.get() > 1 => true,
            // A cancellation that nobody else asked for.
            Err(Error::Cancelled(_)) => self.count.get() == 1 && task.is_some_and(|task| task.uncancel() == 0),
            Ok(_) => self.too_late.get(),
            Err(_) => false,
        }
    }
}
