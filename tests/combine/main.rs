//! Tasks and futures put together: gather, wait, as_completed.
#[path = "../support/mod.rs"]
mod support;

mod as_completed;
mod as_completed_loops;
mod as_completed_waiters;
mod distances;
mod gather;
mod gather_cancel;
mod gather_failures;
mod gather_kinds;
mod gather_loops;
mod rings;
mod wait;
mod wait_cancel;
mod wait_order;

use std::{future::Future as StdFuture, time::Duration};

use asyncio::{Error, ErrorKind, ExceptionContext, Result, sleep};

use crate::support::{Record, deadline, handler, virtual_loop};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const ZERO: Duration = Duration::ZERO;
const FOREVER: Duration = Duration::from_secs(1_000_000);

/// Gives `value` after so many milliseconds.
async fn after<T>(millis: u32, value: T) -> Result<T> {
    sleep(MS * millis).await?;
    Ok(value)
}

/// Fails after so many milliseconds.
async fn fails<T>(millis: u32, text: &'static str) -> Result<T> {
    sleep(MS * millis).await?;
    Err(error(text))
}

/// Lets everything that is ready run, so many times.
async fn turns(count: usize) -> Result<()> {
    for _ in 0..count {
        sleep(ZERO).await?;
    }
    Ok(())
}

fn error(text: &'static str) -> Error {
    Error::Value(text.into())
}

/// Whether it is the error of this text.
#[track_caller]
fn assert_error<T: std::fmt::Debug>(result: Result<T>, text: &str) {
    assert_eq!(support::failure(result), (ErrorKind::Value, text.into()));
}

#[track_caller]
fn assert_cancelled<T: std::fmt::Debug>(result: Result<T>) {
    let error = result.expect_err("a cancellation was expected");
    assert!(error.is_cancelled(), "{error:?}");
}

/// What was reported: the messages, each with its error.
fn texts(reports: &Record<ExceptionContext>) -> Vec<(String, String)> {
    let text = |report: ExceptionContext| (report.message, report.exception.map_or(String::new(), |e| e.to_string()));
    reports.take().into_iter().map(text).collect()
}

/// Runs a coroutine on the virtual clock, and gives the time that it took and what was reported. No task, no timer and
/// no callback may be left.
#[track_caller]
fn run_reporting<T>(main: impl StdFuture<Output = Result<T>>) -> (Result<T>, Duration, Vec<(String, String)>) {
    let _deadline = deadline();
    let (event_loop, _clock) = virtual_loop();
    let reports = handler(&event_loop);
    let begin = event_loop.time();
    let result = event_loop.run_until_complete(main);
    let took = event_loop.time() - begin;
    assert_eq!(event_loop.all_tasks(), [], "tasks are left");
    // What was still on its way, such as an observer's message.
    (0..3).for_each(|_| support::tick(&event_loop));
    assert_eq!(event_loop.next_deadline(), None, "timers or callbacks are left");
    event_loop.close().unwrap();
    (result, took, texts(&reports))
}

/// As [`run_reporting`], where nothing must be reported and nothing fail.
#[track_caller]
fn run<T>(main: impl StdFuture<Output = Result<T>>) -> (T, Duration) {
    let (result, took, reports) = run_reporting(main);
    assert_eq!(reports, [], "unexpected reports");
    (result.unwrap(), took)
}
