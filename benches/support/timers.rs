//! Timers: many that fire, and one that does not.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use super::{Group, Peer, Stopwatch, on_asyncio, on_smol, on_tokio, scale};

pub(crate) const GROUPS: &[Group] = &[TIMER_FIRE, TIMER_CANCEL];

/// How many timers fire, and in what time.
pub(crate) const TIMERS: u64 = 100_000;
const SPREAD: Duration = Duration::from_millis(200);

/// How long the first timer waits: all are set by then.
const SET_UP: Duration = Duration::from_millis(150);

/// What a run of timers showed.
pub(crate) struct Fired {
    /// CPU time of the process, for all of them: made, set, fired.
    pub(crate) time: Duration,
    pub(crate) mean_lateness: Duration,
}

pub(crate) const TIMER_FIRE: Group = Group {
    name: "timer_fire",
    about: "100,000 tasks that sleep until a moment within 200 ms: one of them, made and run",
    count: TIMERS,
    reach: Some((1.0, "tokio")),
    peers: &[
        Peer { name: "asyncio", run: |count| cost(count, fire::asyncio) },
        Peer { name: "asyncio call_at", run: |count| cost(count, fire::call_at) },
        Peer { name: "tokio", run: |count| cost(count, fire::tokio) },
        Peer { name: "smol", run: |count| cost(count, fire::smol) },
    ],
};

/// The same runs, by how late the timers are: `run` gives the mean lateness for each operation.
pub(crate) const TIMER_LATENESS: Group = Group {
    name: "timer_lateness",
    about: "how late these are on average",
    count: TIMERS,
    reach: None,
    peers: &[
        Peer { name: "asyncio", run: |count| lateness(count, fire::asyncio) },
        Peer { name: "asyncio call_at", run: |count| lateness(count, fire::call_at) },
        Peer { name: "tokio", run: |count| lateness(count, fire::tokio) },
        Peer { name: "smol", run: |count| lateness(count, fire::smol) },
    ],
};

fn cost(count: u64, run: fn() -> Fired) -> Duration {
    scale(run().time, TIMERS, count)
}

fn lateness(count: u64, run: fn() -> Fired) -> Duration {
    run().mean_lateness.mul_f64(count as f64)
}

pub(crate) mod fire {
    use super::*;

    /// The moments, in no order, and how late each was.
    #[derive(Clone, Default)]
    struct Lateness {
        total: Rc<Cell<Duration>>,
        fired: Rc<Cell<u64>>,
    }

    impl Lateness {
        fn note(&self, deadline: Instant) {
            let late = Instant::now().saturating_duration_since(deadline);
            self.total.set(self.total.get() + late);
            self.fired.set(self.fired.get() + 1);
        }

        fn fired(&self, stopwatch: Stopwatch) -> Fired {
            assert_eq!(self.fired.get(), TIMERS);
            Fired { time: stopwatch.elapsed(), mean_lateness: self.total.get().div_f64(TIMERS as f64) }
        }
    }

    fn deadlines() -> impl Iterator<Item = Instant> {
        let begin = Instant::now() + SET_UP;
        let mut random = 0x2545_F491_4F6C_DD1D_u64;
        (0..TIMERS).map(move |_| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            begin + Duration::from_nanos(random % SPREAD.as_nanos() as u64)
        })
    }

    pub(crate) fn asyncio() -> Fired {
        on_asyncio(async move {
            let event_loop = asyncio::get_running_loop()?;
            let lateness = Lateness::default();
            let stopwatch = Stopwatch::process();
            let work = async |deadline, lateness: Lateness| {
                asyncio::sleep_until(deadline).await?;
                lateness.note(deadline);
                Ok(())
            };
            let tasks: Vec<_> =
                deadlines().map(|deadline| event_loop.create_task(work(deadline, lateness.clone()))).collect();
            for task in tasks {
                task.await?;
            }
            Ok(lateness.fired(stopwatch))
        })
    }

    pub(crate) fn call_at() -> Fired {
        on_asyncio(async move {
            let event_loop = asyncio::get_running_loop()?;
            let lateness = Lateness::default();
            let stopwatch = Stopwatch::process();
            for deadline in deadlines() {
                let lateness = lateness.clone();
                event_loop.call_at(deadline, move || lateness.note(deadline));
            }
            asyncio::sleep(SET_UP + SPREAD).await?;
            while lateness.fired.get() < TIMERS {
                asyncio::sleep(Duration::from_millis(1)).await?;
            }
            Ok(lateness.fired(stopwatch))
        })
    }

    pub(crate) fn tokio() -> Fired {
        on_tokio(async move {
            let lateness = Lateness::default();
            let stopwatch = Stopwatch::process();
            let work = async |deadline: Instant, lateness: Lateness| {
                tokio::time::sleep_until(deadline.into()).await;
                lateness.note(deadline);
            };
            let tasks: Vec<_> =
                deadlines().map(|deadline| tokio::task::spawn_local(work(deadline, lateness.clone()))).collect();
            for task in tasks {
                task.await.expect("it does not panic");
            }
            lateness.fired(stopwatch)
        })
    }

    pub(crate) fn smol() -> Fired {
        on_smol(move |executor| async move {
            let lateness = Lateness::default();
            let stopwatch = Stopwatch::process();
            let work = async |deadline, lateness: Lateness| {
                smol::Timer::at(deadline).await;
                lateness.note(deadline);
            };
            let tasks: Vec<_> = deadlines().map(|deadline| executor.spawn(work(deadline, lateness.clone()))).collect();
            for task in tasks {
                task.await;
            }
            lateness.fired(stopwatch)
        })
    }
}

const MINUTE: Duration = Duration::from_secs(60);

pub(crate) const TIMER_CANCEL: Group = Group {
    name: "timer_cancel",
    about: "a sleep of 60 s is polled once and dropped",
    count: 500_000,
    reach: Some((0.25, "tokio")),
    peers: &[
        Peer { name: "asyncio", run: cancel::asyncio },
        Peer { name: "asyncio call_later", run: cancel::call_later },
        Peer { name: "tokio", run: cancel::tokio },
        Peer { name: "smol", run: cancel::smol },
    ],
};

mod cancel {
    use super::*;

    async fn poll_once(future: impl Future) {
        let mut future = pin!(future);
        let pending = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await;
        assert!(pending);
    }

    pub(super) fn asyncio(count: u64) -> Duration {
        on_asyncio(async move {
            let stopwatch = Stopwatch::thread();
            for _ in 0..count {
                poll_once(asyncio::sleep(MINUTE)).await;
            }
            Ok(stopwatch.elapsed())
        })
    }

    pub(super) fn call_later(count: u64) -> Duration {
        on_asyncio(async move {
            let event_loop = asyncio::get_running_loop()?;
            let stopwatch = Stopwatch::thread();
            for _ in 0..count {
                event_loop.call_later(MINUTE, || ()).cancel();
            }
            Ok(stopwatch.elapsed())
        })
    }

    pub(super) fn tokio(count: u64) -> Duration {
        on_tokio(async move {
            let stopwatch = Stopwatch::thread();
            for _ in 0..count {
                poll_once(tokio::time::sleep(MINUTE)).await;
            }
            stopwatch.elapsed()
        })
    }

    pub(super) fn smol(count: u64) -> Duration {
        on_smol(|_| async move {
            let stopwatch = Stopwatch::thread();
            for _ in 0..count {
                poll_once(smol::Timer::after(MINUTE)).await;
            }
            stopwatch.elapsed()
        })
    }
}
