//! Task groups: how they end, who is cancelled when, what is left behind, which errors come out.
#[path = "../support/counting.rs"]
mod counting;
#[path = "../support/mod.rs"]
mod support;

mod cancel;
mod cancelled_from_outside;
mod children;
mod combinations;
mod deadlines;
mod dropped;
mod eager;
mod entering;
mod exception_group;
mod failures;
mod grace;
mod made_midway;
mod memory;
mod nested;
mod trees;

use std::{future::Future as StdFuture, time::Duration};

use asyncio::{Error, EventLoop, Result, sleep};

use support::{handler, virtual_loop};

/// Runs a coroutine on a virtual clock; nothing may be left or be reported.
#[track_caller]
fn outcome<T>(main: impl StdFuture<Output = Result<T>>) -> Result<T> {
    let _deadline = support::deadline();
    let (event_loop, _) = virtual_loop();
    let reports = handler(&event_loop);
    let result = event_loop.run_until_complete(main);
    assert_nothing_is_left(&event_loop);
    event_loop.close().unwrap();
    assert!(reports.len() == 0, "unexpected reports: {:?}", reports.take());
    result
}

/// As [`outcome`], for what must succeed.
#[track_caller]
fn run<T>(main: impl StdFuture<Output = Result<T>>) -> T {
    outcome(main).unwrap()
}

/// As [`outcome`], with the number of iterations that it took.
#[track_caller]
fn counted<T: 'static>(main: impl StdFuture<Output = Result<T>> + 'static) -> (Result<T>, usize) {
    let _deadline = support::deadline();
    let (event_loop, _) = virtual_loop();
    let reports = handler(&event_loop);
    let task = event_loop.create_task(main);
    let mut turns = 0;
    while !task.done() {
        event_loop.run_once(None).unwrap();
        turns += 1;
        assert!(turns < 100_000, "the loop spins");
    }
    assert_nothing_is_left(&event_loop);
    let result = event_loop.run_until_complete(task);
    event_loop.close().unwrap();
    assert!(reports.len() == 0, "unexpected reports: {:?}", reports.take());
    (result, turns)
}

#[track_caller]
fn assert_nothing_is_left(event_loop: &EventLoop) {
    assert_eq!(event_loop.all_tasks(), [], "tasks are left");
    assert_eq!(event_loop.next_deadline(), None, "timers or callbacks are left");
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn value(text: &str) -> Error {
    Error::Value(text.into())
}

/// Fails with a Value of this text after `delay` milliseconds; a delay of zero is one iteration.
async fn fail_after(delay: u64, text: &'static str) -> Result<()> {
    sleep(ms(delay)).await?;
    Err(value(text))
}

/// Waits to be cancelled, and then cleans up for `delay` milliseconds.
async fn clean_up_for(delay: u64) -> Result<()> {
    let cancelled = sleep(Duration::from_secs(3600)).await;
    sleep(ms(delay)).await?;
    cancelled
}

/// Waits to be cancelled, and fails then with a Value of this text.
async fn fail_in_clean_up(text: &'static str) -> Result<()> {
    let _ = sleep(Duration::from_secs(3600)).await;
    Err(value(text))
}

async fn for_ever() -> Result<()> {
    sleep(Duration::from_secs(3600)).await
}

fn this_task() -> asyncio::AnyTask {
    asyncio::current_task().unwrap().unwrap()
}

/// An error in few words, the errors of a task group in brackets.
fn show(error: &Error) -> String {
    match error {
        Error::Group(group) => {
            let errors: Vec<String> = group.exceptions().iter().map(show).collect();
            let message = Some(group.message()).filter(|message| *message != "unhandled errors in a TaskGroup");
            format!("{}[{}]", message.unwrap_or(""), errors.join(", "))
        }
        Error::Cancelled(cancelled) => match &cancelled.message {
            Some(message) => format!("cancelled {message}"),
            None => "cancelled".into(),
        },
        Error::Value(text) => text.to_string(),
        Error::Timeout(text) => text.to_string(),
        other => format!("{:?}: {other}", other.kind()),
    }
}

/// [`show`] of an error, or "ok".
fn shown<T>(result: &Result<T>) -> String {
    match result {
        Ok(_) => "ok".into(),
        Err(error) => show(error),
    }
}
