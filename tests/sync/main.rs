//! Locks, events, conditions, semaphores, barriers, queues.
#[path = "../support/mod.rs"]
mod support;

mod barrier;
mod combinators;
mod condition;
mod distances;
mod event;
mod faces;
mod lock;
mod model;
mod queue;
mod recorded;
mod semaphore;
mod threads;

use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use asyncio::{Result, sleep};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Lets everything that is ready run, so many times.
async fn turns(count: usize) -> Result<()> {
    for _ in 0..count {
        sleep(Duration::ZERO).await?;
    }
    Ok(())
}

/// Polls once, with a waker that does nothing.
fn poll_now<F: Future>(future: F) -> Poll<F::Output> {
    poll_pinned(pin!(future))
}

fn poll_pinned<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}
