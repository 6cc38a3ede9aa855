//! What these tests show: `ProcessPool`, whose processes are this test's program, started again.
#[path = "../support/main_thread.rs"]
mod main_thread;

mod failures;
mod jobs;
mod shutdown;
mod uninitialised;

use std::{future::Future as StdFuture, process::ExitCode, time::Duration};

use asyncio::{EventLoop, ProcessPool, Result};

fn main() -> ExitCode {
    // Each test has a process of its own, and so has what must not have called init(): before it, on purpose.
    if std::env::args().nth(1).as_deref() == Some(uninitialised::ARGUMENT) {
        return uninitialised::run();
    }
    ProcessPool::init();
    main_thread::main(&[jobs::TESTS, failures::TESTS, shutdown::TESTS, uninitialised::TESTS])
}

/// Runs a coroutine that has a pool of `limit` processes, for at most half a minute.
fn with_pool<F: StdFuture<Output = Result<()>>>(limit: usize, coroutine: impl FnOnce(EventLoop, ProcessPool) -> F) {
    asyncio::run(async {
        let (event_loop, pool) = (asyncio::get_running_loop()?, ProcessPool::new(limit)?);
        asyncio::timeout(Duration::from_secs(30), coroutine(event_loop, pool)).await
    })
    .unwrap();
}

/// The number of the process that it runs in.
fn process_number(_: ()) -> u32 {
    std::process::id()
}
