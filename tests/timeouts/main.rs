//! Time limits, shields, shielded sections, cancellation with a grace, and who asked for a cancellation.
#[path = "../support/mod.rs"]
mod support;

mod bodies;
mod combinators;
mod counts;
mod distances;
mod grace;
mod handle;
mod many;
mod moved;
mod nested;
mod reasons;
mod shield;
mod shielded;
mod shielded_among_others;
mod sockets;
mod targets;
mod threads;
mod timeout;
mod wait_for;
mod with_cancel;

use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use asyncio::{AnyTask, Cancelled, Error, ErrorKind, EventLoop, Result, sleep};

use crate::support::{handler, virtual_loop};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// As `support::run`, on a virtual clock.
#[track_caller]
fn run<T>(main: impl Future<Output = Result<T>>) -> T {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    let reports = handler(&event_loop);
    let result = event_loop.run_until_complete(main);
    assert_clean(&event_loop);
    event_loop.close().unwrap();
    assert!(reports.len() == 0, "unexpected reports: {:?}", reports.take());
    result.unwrap()
}

/// Nothing is left that would ever run.
#[track_caller]
fn assert_clean(event_loop: &EventLoop) {
    support::tick(event_loop);
    assert_eq!(event_loop.all_tasks(), [], "tasks are left");
    assert_eq!(event_loop.next_deadline(), None, "timers or callbacks are left");
}

/// Runs iterations until `done`, and gives how many there were.
#[track_caller]
fn turns_until(event_loop: &EventLoop, done: impl Fn() -> bool) -> usize {
    for turns in 0..100_000 {
        if done() {
            return turns;
        }
        event_loop.run_once(None).unwrap();
    }
    panic!("it spins");
}

/// Lets everything that is ready run, so many times.
async fn turns(count: usize) -> Result<()> {
    for _ in 0..count {
        sleep(Duration::ZERO).await?;
    }
    Ok(())
}

fn now() -> Instant {
    asyncio::get_running_loop().unwrap().time()
}

fn own() -> AnyTask {
    asyncio::current_task().unwrap().unwrap()
}

fn kind<T: std::fmt::Debug>(result: &Result<T>) -> Option<ErrorKind> {
    result.as_ref().err().map(Error::kind)
}

/// The data of a cancellation.
#[track_caller]
fn cancelled<T: std::fmt::Debug>(result: Result<T>) -> Cancelled {
    match result {
        Err(Error::Cancelled(cancelled)) => cancelled,
        other => panic!("a cancellation was expected: {other:?}"),
    }
}

/// The message of a cancellation.
#[track_caller]
fn message<T: std::fmt::Debug>(result: Result<T>) -> Option<String> {
    cancelled(result).message.map(|message| message.to_string())
}

/// Polls once, with a waker that does nothing.
fn poll_now<F: Future>(future: F) -> Poll<F::Output> {
    poll_pinned(pin!(future))
}

fn poll_pinned<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}
