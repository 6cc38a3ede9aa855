//! The loop and other threads. Wall time beside CPU time of the whole process: what is waited for is another thread.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Poll,
    thread::{self, JoinHandle, Thread},
    time::Duration,
};

use futures::{future::join_all, task::AtomicWaker};

use super::{Group, Peer, Stopwatch, batches, on_asyncio, on_smol, on_tokio};

pub(crate) const GROUPS: &[Group] =
    &[THREADSAFE_WAKE, THREADSAFE_WAKE_WALL, EXECUTOR_1, EXECUTOR_1_WALL, EXECUTOR_1000, EXECUTOR_1000_WALL];

type Clock = fn() -> Stopwatch;

pub(crate) const THREADSAFE_WAKE: Group = Group {
    name: "threadsafe_wake",
    about: "a task asks another thread, which wakes it: a round trip, CPU time of both",
    count: 20_000,
    reach: Some((1.0, "tokio")),
    peers: &[
        Peer { name: "asyncio", run: |count| wake::asyncio(count, Stopwatch::process) },
        Peer { name: "tokio", run: |count| wake::tokio(count, Stopwatch::process) },
        Peer { name: "smol", run: |count| wake::smol(count, Stopwatch::process) },
    ],
};

pub(crate) const THREADSAFE_WAKE_WALL: Group = Group {
    name: "threadsafe_wake_wall",
    about: "the same by the clock on the wall",
    count: 20_000,
    reach: Some((1.0, "tokio")),
    peers: &[
        Peer { name: "asyncio", run: |count| wake::asyncio(count, Stopwatch::wall) },
        Peer { name: "tokio", run: |count| wake::tokio(count, Stopwatch::wall) },
        Peer { name: "smol", run: |count| wake::smol(count, Stopwatch::wall) },
    ],
};

mod wake {
    use super::*;

    #[derive(Default)]
    struct Exchange {
        asked: AtomicUsize,
        answered: AtomicUsize,
        stop: AtomicBool,
        waker: AtomicWaker,
    }

    /// A thread that answers.
    struct Other {
        exchange: Arc<Exchange>,
        thread: Thread,
        handle: Option<JoinHandle<()>>,
    }

    impl Other {
        fn start() -> Self {
            let exchange = Arc::new(Exchange::default());
            let theirs = exchange.clone();
            let handle = thread::spawn(move || {
                let mut answered = 0;
                while !theirs.stop.load(Ordering::Acquire) {
                    let asked = theirs.asked.load(Ordering::Acquire);
                    if asked == answered {
                        thread::park();
                        continue;
                    }
                    answered = asked;
                    theirs.answered.store(answered, Ordering::Release);
                    theirs.waker.wake();
                }
            });
            Other { exchange, thread: handle.thread().clone(), handle: Some(handle) }
        }

        async fn ask(&self) {
            let asked = self.exchange.asked.fetch_add(1, Ordering::AcqRel) + 1;
            self.thread.unpark();
            poll_fn(|cx| {
                self.exchange.waker.register(cx.waker());
                match self.exchange.answered.load(Ordering::Acquire) == asked {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
            .await;
        }
    }

    impl Drop for Other {
        fn drop(&mut self) {
            self.exchange.stop.store(true, Ordering::Release);
            self.thread.unpark();
            let ended = self.handle.take().map(JoinHandle::join);
            assert!(matches!(ended, Some(Ok(()))));
        }
    }

    async fn ask(count: u64, clock: Clock) -> Duration {
        let other = Other::start();
        other.ask().await;
        let stopwatch = clock();
        for _ in 0..count {
            other.ask().await;
        }
        stopwatch.elapsed()
    }

    pub(super) fn asyncio(count: u64, clock: Clock) -> Duration {
        on_asyncio(async move { Ok(ask(count, clock).await) })
    }

    pub(super) fn tokio(count: u64, clock: Clock) -> Duration {
        on_tokio(ask(count, clock))
    }

    pub(super) fn smol(count: u64, clock: Clock) -> Duration {
        on_smol(|_| ask(count, clock))
    }
}

pub(crate) const EXECUTOR_1: Group = Group {
    name: "executor_1",
    about: "a job that does nothing, in the default pool of threads: one after the other, CPU time of the process",
    count: 10_000,
    reach: Some((1.0, "tokio")),
    peers: &[
        Peer { name: "asyncio", run: |count| executor::asyncio(count, 1, Stopwatch::process) },
        Peer { name: "tokio", run: |count| executor::tokio(count, 1, Stopwatch::process) },
        Peer { name: "smol", run: |count| executor::smol(count, 1, Stopwatch::process) },
    ],
};

pub(crate) const EXECUTOR_1_WALL: Group = Group {
    name: "executor_1_wall",
    about: "the same by the clock on the wall",
    count: 10_000,
    reach: Some((1.0, "tokio")),
    peers: &[
        Peer { name: "asyncio", run: |count| executor::asyncio(count, 1, Stopwatch::wall) },
        Peer { name: "tokio", run: |count| executor::tokio(count, 1, Stopwatch::wall) },
        Peer { name: "smol", run: |count| executor::smol(count, 1, Stopwatch::wall) },
    ],
};

pub(crate) const EXECUTOR_1000: Group = Group {
    name: "executor_1000",
    about: "1000 such jobs at a time, CPU time of the process",
    count: 20_000,
    reach: Some((1.0, "tokio")),
    peers: &[
        Peer { name: "asyncio", run: |count| executor::asyncio(count, 1000, Stopwatch::process) },
        Peer { name: "tokio", run: |count| executor::tokio(count, 1000, Stopwatch::process) },
        Peer { name: "smol", run: |count| executor::smol(count, 1000, Stopwatch::process) },
    ],
};

pub(crate) const EXECUTOR_1000_WALL: Group = Group {
    name: "executor_1000_wall",
    about: "the same by the clock on the wall",
    count: 20_000,
    reach: Some((1.0, "tokio")),
    peers: &[
        Peer { name: "asyncio", run: |count| executor::asyncio(count, 1000, Stopwatch::wall) },
        Peer { name: "tokio", run: |count| executor::tokio(count, 1000, Stopwatch::wall) },
        Peer { name: "smol", run: |count| executor::smol(count, 1000, Stopwatch::wall) },
    ],
};

mod executor {
    use super::*;

    pub(super) fn asyncio(count: u64, in_flight: u64, clock: Clock) -> Duration {
        on_asyncio(async move {
            let event_loop = asyncio::get_running_loop()?;
            event_loop.run_in_executor(None, || ()).await?;
            let stopwatch = clock();
            for batch in batches(count, in_flight) {
                for job in join_all((0..batch).map(|_| event_loop.run_in_executor(None, || ()))).await {
                    job?;
                }
            }
            Ok(stopwatch.elapsed())
        })
    }

    pub(super) fn tokio(count: u64, in_flight: u64, clock: Clock) -> Duration {
        on_tokio(async move {
            tokio::task::spawn_blocking(|| ()).await.expect("it does not panic");
            let stopwatch = clock();
            for batch in batches(count, in_flight) {
                for job in join_all((0..batch).map(|_| tokio::task::spawn_blocking(|| ()))).await {
                    job.expect("it does not panic");
                }
            }
            stopwatch.elapsed()
        })
    }

    pub(super) fn smol(count: u64, in_flight: u64, clock: Clock) -> Duration {
        on_smol(|_| async move {
            smol::unblock(|| ()).await;
            let stopwatch = clock();
            for batch in batches(count, in_flight) {
                join_all((0..batch).map(|_| smol::unblock(|| ()))).await;
            }
            stopwatch.elapsed()
        })
    }
}
