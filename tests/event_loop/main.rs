//! The loop: running, scheduling, timers, clocks, selectors, closing.
#[path = "../support/mod.rs"]
mod support;

mod callback_panics;
mod closing;
mod current_loop;
mod embedding;
mod fairness;
mod many_timers;
mod outliving;
mod poll;
mod running;
mod scheduling;
mod selectors;
mod threads;
mod timers;
mod virtual_clock;
mod wake_distances;

use std::{fmt::Debug, time::Duration};

use asyncio::{Error, ErrorKind, EventLoop};
use support::Record;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

#[track_caller]
fn assert_error<T: Debug>(result: asyncio::Result<T>, kind: ErrorKind, text: &str) {
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (kind, text));
}

fn value_error(text: &str) -> Error {
    Error::Value(text.into())
}

/// A callback that records one item.
fn push<T: 'static>(record: &Record<T>, item: T) -> impl FnOnce() + 'static {
    let record = record.clone();
    move || record.push(item)
}

/// Records `number` and schedules itself with the next one.
fn chain(event_loop: EventLoop, record: Record<usize>, number: usize) {
    record.push(number);
    let next = event_loop.clone();
    event_loop.call_soon(move || chain(next, record, number + 1));
}

fn start_chain(event_loop: &EventLoop, record: &Record<usize>) {
    let (next, record) = (event_loop.clone(), record.clone());
    event_loop.call_soon(move || chain(next, record, 0));
}
