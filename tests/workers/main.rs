//! `run_workers`: a loop on each of several threads. Each test has a process of its own and its main thread, where signals
//! are taken over.
#[path = "../support/main_thread.rs"]
mod main_thread;
#[path = "../support/signals.rs"]
mod signals;
#[path = "../support/mod.rs"]
mod support;

mod failures;
mod limits;
mod passed_on;
mod results;
mod servers;

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use asyncio::{Error, Result};

/// Longer than any test may take.
const LONG: Duration = Duration::from_secs(600);

fn main() -> std::process::ExitCode {
    main_thread::main(&[results::TESTS, failures::TESTS, limits::TESTS, passed_on::TESTS, servers::TESTS])
}

/// What the workers have seen. As a test's peers are threads, the order is only that of each one.
#[derive(Default)]
struct Seen(Mutex<Vec<String>>);

impl Seen {
    fn push(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn sorted(&self) -> Vec<String> {
        let mut all = self.0.lock().unwrap().clone();
        all.sort();
        all
    }
}

/// Waits, in a worker, until others have done their part.
async fn until(done: impl Fn() -> bool) -> Result<()> {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(40), "it never came");
        asyncio::sleep(Duration::from_millis(1)).await?;
    }
    Ok(())
}

/// Waits for the cancellation, and gives its message.
async fn cancelled_with() -> String {
    match asyncio::sleep(LONG).await {
        Err(Error::Cancelled(cancelled)) => cancelled.message.as_deref().unwrap_or("no message").to_owned(),
        other => panic!("{other:?}"),
    }
}
