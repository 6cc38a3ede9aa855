//! Loops for tests that run on each selector and must leave nothing behind.

use std::{future::IntoFuture, ops::Deref, process::Command};

use asyncio::{
    EventLoop, EventLoopBuilder, ExceptionContext, Result, VirtualClock,
    selector::{EpollSelector, PollingSelector},
};

use super::{Record, Watchdog, transports::until};

/// Makes a test of each function, on each selector.
#[allow(unused_macros, reason = "each area uses a part of it")]
macro_rules! on_each_selector {
    ($($test:ident)*) => {
        on_each_selector!(@ epoll $($test)*);
        on_each_selector!(@ polling $($test)*);
    };
    (@ $selector:ident $($test:ident)*) => {
        mod $selector {$(
            #[test]
            fn $test() {
                let path = concat!(module_path!(), "::", stringify!($test));
                super::$test(crate::support::loops::On { builder: crate::support::loops::$selector, path });
            }
        )*}
    };
}

/// Where a test runs.
#[derive(Clone, Copy)]
pub(crate) struct On {
    pub(crate) builder: fn() -> EventLoopBuilder,
    pub(crate) path: &'static str,
}

pub(crate) fn epoll() -> EventLoopBuilder {
    EventLoop::builder().selector(EpollSelector::new().unwrap())
}

pub(crate) fn polling() -> EventLoopBuilder {
    EventLoop::builder().selector(PollingSelector::new().unwrap())
}

impl On {
    pub(crate) fn event_loop(self) -> TestLoop {
        TestLoop::new((self.builder)())
    }

    pub(crate) fn virtual_loop(self) -> (TestLoop, VirtualClock) {
        let clock = VirtualClock::new();
        (TestLoop::new((self.builder)().clock(clock.clone())), clock)
    }

    /// Runs the rest of a test in a process of its own: true there.
    pub(crate) fn in_child(self) -> bool {
        const MARK: &str = "ASYNCIO_TEST_CHILD";
        if std::env::var_os(MARK).is_some() {
            return true;
        }
        let (_, name) = self.path.split_once("::").unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", name, "--nocapture"]).env(MARK, "1").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{:?}: {text}", output.status);
        false
    }
}

/// A loop that must end clean: no task and no timer is left, and nothing was reported that the test did not take.
pub(crate) struct TestLoop {
    pub(crate) event_loop: EventLoop,
    pub(crate) reports: Record<ExceptionContext>,
    _deadline: Watchdog,
}

impl TestLoop {
    pub(crate) fn new(builder: EventLoopBuilder) -> Self {
        let event_loop = builder.debug(false).build().unwrap();
        let reports = super::handler(&event_loop);
        TestLoop { event_loop, reports, _deadline: super::deadline() }
    }

    pub(crate) fn run<T>(&self, main: impl IntoFuture<Output = Result<T>>) -> T {
        self.event_loop.run_until_complete(main).unwrap()
    }

    /// As `run`, for what must fail.
    #[track_caller]
    pub(crate) fn fails<T>(&self, main: impl IntoFuture<Output = Result<T>>) -> asyncio::Error {
        self.event_loop.run_until_complete(main).err().expect("it must fail")
    }

    pub(crate) fn ticks(&self, count: usize) {
        (0..count).for_each(|_| super::tick(&self.event_loop));
    }

    /// What was closed last comes to its end, and so do lookups that nobody waits for.
    pub(crate) fn settle(&self) {
        self.ticks(3);
        while self.next_deadline().is_some_and(|deadline| deadline <= self.time()) {
            self.ticks(1);
        }
    }

    /// Not counting what threads may bring at any moment.
    pub(crate) fn has_no_timer(&self) -> bool {
        self.next_deadline().is_none_or(|deadline| deadline <= self.time())
    }

    #[track_caller]
    pub(crate) fn until(&self, done: impl FnMut() -> bool) {
        until(&self.event_loop, done);
    }
}

impl Deref for TestLoop {
    type Target = EventLoop;

    fn deref(&self) -> &EventLoop {
        &self.event_loop
    }
}

impl Drop for TestLoop {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        if !self.event_loop.is_closed() {
            self.settle();
        }
        assert_eq!(self.event_loop.all_tasks(), [], "tasks are left");
        assert!(self.event_loop.is_closed() || self.has_no_timer(), "timers are left");
        self.event_loop.close().unwrap();
        assert!(self.reports.len() == 0, "unexpected reports: {:?}", self.reports.take());
    }
}
