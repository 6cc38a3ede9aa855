//! What the benches share: the work itself, once for each runtime, and how it is measured.
//!
//! Every group does one thing on asyncio, on tokio (`current_thread` with a `LocalSet`) and on smol (`LocalExecutor`
//! under `block_on`), in one thread, in one process, with the same profile.
#![allow(dead_code, reason = "each bench uses a part of it")]

pub(crate) mod processes;
pub(crate) mod sockets;
pub(crate) mod tasks;
pub(crate) mod threads;
pub(crate) mod timers;
pub(crate) mod together;
pub(crate) mod transports;

use std::{future::Future, rc::Rc, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// One kind of work, on every runtime.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    /// What it does, for the table.
    pub(crate) about: &'static str,
    /// How many operations one measurement of the table makes; fewer in the warm-up.
    pub(crate) count: u64,
    /// What CONTRIBUTING.md asks for: at most this share of the peer's time.
    pub(crate) reach: Option<(f64, &'static str)>,
    pub(crate) peers: &'static [Peer],
}

/// The work on one runtime.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// Does that many operations and gives the time that they took together.
    pub(crate) run: fn(u64) -> Duration,
}

impl Group {
    pub(crate) fn peer(&self, name: &str) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.name == name)
    }
}

/// The time of what is measured.
#[derive(Clone, Copy)]
pub(crate) enum Stopwatch {
    /// CPU time of this thread.
    Thread(Duration),
    /// CPU time of all threads.
    Process(Duration),
    Wall(Duration),
}

impl Stopwatch {
    pub(crate) fn thread() -> Self {
        Stopwatch::Thread(read(ClockId::ThreadCPUTime))
    }

    pub(crate) fn process() -> Self {
        Stopwatch::Process(read(ClockId::ProcessCPUTime))
    }

    pub(crate) fn wall() -> Self {
        Stopwatch::Wall(read(ClockId::Monotonic))
    }

    pub(crate) fn elapsed(self) -> Duration {
        match self {
            Stopwatch::Thread(begin) => read(ClockId::ThreadCPUTime) - begin,
            Stopwatch::Process(begin) => read(ClockId::ProcessCPUTime) - begin,
            Stopwatch::Wall(begin) => read(ClockId::Monotonic) - begin,
        }
    }
}

fn read(clock: ClockId) -> Duration {
    clock_gettime(clock).try_into().expect("clocks do not run before their beginning")
}

/// The time that one of `done` operations took, for `wanted` operations.
pub(crate) fn scale(time: Duration, done: u64, wanted: u64) -> Duration {
    time.mul_f64(wanted as f64 / done as f64)
}

/// `count` in parts of at most `size`.
pub(crate) fn batches(count: u64, size: u64) -> impl Iterator<Item = u64> {
    let whole = std::iter::repeat_n(size, usize::try_from(count / size).expect("it fits into memory"));
    whole.chain(Some(count % size).filter(|rest| *rest > 0))
}

/// Runs `main` as a task of its own, as all three do here: what wakes it is then what wakes any task.
pub(crate) fn on_asyncio<T: 'static>(main: impl Future<Output = asyncio::Result<T>> + 'static) -> T {
    asyncio::run(async { asyncio::create_task(main).await }).expect("the work does not fail")
}

pub(crate) fn on_tokio<T: 'static>(main: impl Future<Output = T> + 'static) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let main = async { tokio::task::spawn_local(main).await.expect("it does not panic") };
    tokio::task::LocalSet::new().block_on(&runtime, main)
}

/// What a task of smol's needs to make others: there is no implicit executor.
pub(crate) type SmolExecutor = Rc<smol::LocalExecutor<'static>>;

pub(crate) fn on_smol<T: 'static, F: Future<Output = T> + 'static>(main: impl FnOnce(SmolExecutor) -> F) -> T {
    let executor = SmolExecutor::default();
    let main = executor.spawn(main(executor.clone()));
    smol::block_on(executor.run(main))
}

/// The main function of a Criterion bench.
pub(crate) fn run_criterion(groups: &[Group]) {
    let mut criterion = criterion::Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    for group in groups {
        let mut benches = criterion.benchmark_group(group.name);
        for peer in group.peers {
            benches.bench_function(peer.name, |bencher| bencher.iter_custom(peer.run));
        }
        benches.finish();
    }
    criterion.final_summary();
}
