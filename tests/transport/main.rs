//! Byte streams over sockets as their protocols see them: TCP, unix sockets and socketpairs, on every selector.
#[path = "../support/mod.rs"]
mod support;

/// Makes a test of each function, on each selector and with each kind of pair.
macro_rules! on_each {
    ($($test:ident)*) => {
        mod epoll {
            on_each!(@ Tcp, tcp, epoll, $($test)*);
            on_each!(@ Unix, unix, epoll, $($test)*);
            on_each!(@ Socketpair, socketpair, epoll, $($test)*);
        }
        mod polling {
            on_each!(@ Tcp, tcp, polling, $($test)*);
            on_each!(@ Unix, unix, polling, $($test)*);
            on_each!(@ Socketpair, socketpair, polling, $($test)*);
        }
    };
    (@ $kind:ident, $module:ident, $selector:ident, $($test:ident)*) => {
        mod $module {$(
            #[test]
            fn $test() {
                let event_loop = crate::TestLoop::new(crate::$selector());
                super::super::$test(&event_loop, crate::support::transports::PairKind::$kind);
            }
        )*}
    };
}

mod buffered;
mod closing;
mod ending;
mod failures;
mod flow;
mod handed_over;
mod info;
mod outliving;
mod reading;
mod reentrancy;
mod writing;

use std::{
    ops::Deref,
    time::{Duration, Instant},
};

use asyncio::{
    EventLoop, EventLoopBuilder, ExceptionContext, Transport,
    selector::{EpollSelector, PollingSelector},
};
use rustix::event::{PollFd, PollFlags, Timespec};
use support::{Record, Watchdog};

/// So many bytes are more than the system takes from a side whose peer does not read.
const LARGE: usize = 8_000_000;

fn epoll() -> EventLoopBuilder {
    EventLoop::builder().selector(EpollSelector::new().unwrap())
}

fn polling() -> EventLoopBuilder {
    EventLoop::builder().selector(PollingSelector::new().unwrap())
}

/// A loop that must end clean: no task and no timer is left, and nothing was reported that the test did not take.
struct TestLoop {
    event_loop: EventLoop,
    reports: Record<ExceptionContext>,
    _deadline: Watchdog,
}

impl TestLoop {
    fn new(builder: EventLoopBuilder) -> Self {
        let event_loop = builder.debug(false).build().unwrap();
        let reports = support::handler(&event_loop);
        TestLoop { event_loop, reports, _deadline: support::deadline() }
    }

    fn ticks(&self, count: usize) {
        (0..count).for_each(|_| support::tick(&self.event_loop));
    }

    /// The loop must have nothing to do: a wait for the system lasts as long as it may.
    #[track_caller]
    fn sleeps(&self) {
        const WAIT: Duration = Duration::from_millis(20);
        let sleeps = || {
            let begin = Instant::now();
            self.event_loop.run_once(WAIT).unwrap() == 0 && begin.elapsed() >= WAIT
        };
        // What was on its way may come first.
        assert!((0..20).any(|_| sleeps()), "the loop does not come to rest");
    }

    /// The only report that there was.
    #[track_caller]
    fn report(&self) -> ExceptionContext {
        let mut reports = self.reports.take();
        assert_eq!(reports.len(), 1, "{reports:?}");
        reports.remove(0)
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
            assert_eq!(self.event_loop.all_tasks(), [], "tasks are left");
            assert_eq!(self.event_loop.next_deadline(), None, "timers or callbacks are left");
        }
        self.event_loop.close().unwrap();
        assert!(self.reports.len() == 0, "unexpected reports: {:?}", self.reports.take());
    }
}

/// Waits, while no loop runs, until there is something for a transport to read.
#[track_caller]
fn until_readable(transport: &Transport) {
    let readable = transport.with_fd(|fd| {
        let limit = Timespec { tv_sec: 40, tv_nsec: 0 };
        rustix::event::poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&limit)).unwrap()
    });
    assert_eq!(readable, Some(1), "nothing came");
}
