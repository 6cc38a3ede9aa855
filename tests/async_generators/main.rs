//! Async generators, iterated, closed, dropped and shut down; and staggered races.
#[path = "../support/mod.rs"]
mod support;

use std::future::Future;

mod closing;
mod dropping;
mod iterating;
mod scenarios;
mod shutdown;
mod staggered;

/// As [`support::run`], on the virtual clock.
#[track_caller]
fn run<T>(main: impl Future<Output = asyncio::Result<T>>) -> T {
    let _deadline = support::deadline();
    let (event_loop, _) = support::virtual_loop();
    let reports = support::handler(&event_loop);
    let result = event_loop.run_until_complete(main);
    assert_eq!(event_loop.all_tasks(), [], "tasks are left");
    assert_eq!(event_loop.next_deadline(), None, "timers or callbacks are left");
    event_loop.close().unwrap();
    assert!(reports.len() == 0, "unexpected reports: {:?}", reports.take());
    result.unwrap()
}
