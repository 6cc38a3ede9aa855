//! Errors that nobody looked at.

use asyncio::Error;

use crate::support::{self, handler, new_loop, tick};

fn user_error() -> Error {
    Error::other("user error")
}

/// FUT-014
#[test]
fn an_error_that_was_awaited_is_not_reported() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let future = event_loop.create_future::<u8>();
    let awaited = future.clone();
    let task = event_loop.create_task(async move {
        assert_eq!(awaited.await.unwrap_err().to_string(), "user error");
        Ok(())
    });
    tick(&event_loop);
    future.set_exception(user_error()).unwrap();
    drop(future);
    tick(&event_loop);
    assert!(task.done());
    drop(task);
    tick(&event_loop);
    assert_eq!(reports.take().len(), 0);
}

/// FUT-014: the shared forms count as well.
#[test]
fn an_error_that_was_awaited_by_reference_is_not_reported() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let future = event_loop.create_future::<u8>();
    future.set_exception(user_error()).unwrap();
    assert!(event_loop.run_until_complete(&future).is_err());
    drop(future);
    tick(&event_loop);
    assert_eq!(reports.take().len(), 0);
}

/// FUT-016
#[test]
fn an_error_that_nobody_looked_at_is_reported_at_the_last_drop() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let future = event_loop.create_future::<u8>();
    let known = future.any();
    future.set_exception(user_error()).unwrap();
    tick(&event_loop);
    assert_eq!(reports.len(), 0);
    drop(future);
    tick(&event_loop);
    let reports = reports.take();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].message, "Future exception was never retrieved");
    assert_eq!(reports[0].exception.as_ref().unwrap().to_string(), "user error");
    assert_eq!(reports[0].future.as_ref(), Some(&known));
    assert_eq!(reports[0].keys(), ["exception", "future", "message"]);
    assert_eq!(reports[0].source_location.unwrap().file(), file!());
}

/// FUT-016: a done callback that does not look is no look.
#[test]
fn an_error_that_only_a_callback_passed_by_is_reported() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let future = event_loop.create_future::<u8>();
    future.add_done_callback(|future| assert!(future.done() && !future.cancelled()));
    future.set_exception(user_error()).unwrap();
    drop(future);
    assert_eq!(reports.len(), 0, "the callback will have the future");
    tick(&event_loop);
    assert_eq!(reports.take().len(), 1);
    tick(&event_loop);
    assert_eq!(reports.take().len(), 0);
}

/// FUT-017
#[test]
fn what_needs_no_look_is_not_reported() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    drop(event_loop.create_future::<u8>());
    let set = event_loop.create_future();
    set.set_result(1).unwrap();
    drop(set);
    let cancelled = event_loop.create_future::<u8>();
    cancelled.cancel();
    drop(cancelled);
    let read = event_loop.create_future::<u8>();
    read.set_exception(user_error()).unwrap();
    assert!(read.result().is_err());
    drop(read);
    let asked = event_loop.create_future::<u8>();
    asked.set_exception(user_error()).unwrap();
    assert!(asked.exception().unwrap().is_some());
    drop(asked);
    tick(&event_loop);
    assert_eq!(reports.take().len(), 0);
}

/// FUT-017: the look may come through any handle, and `cancel` on a done future is one.
#[test]
fn a_look_through_another_handle_counts() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let future = event_loop.create_future::<u8>();
    future.set_exception(user_error()).unwrap();
    let other = future.clone();
    assert!(other.result().is_err());
    drop((future, other));
    let cancelled = event_loop.create_future::<u8>();
    cancelled.set_exception(user_error()).unwrap();
    assert!(!cancelled.cancel());
    drop(cancelled);
    tick(&event_loop);
    assert_eq!(reports.take().len(), 0);
}

/// FUT-019
#[test]
fn only_the_drop_of_the_last_handle_reports() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let future = event_loop.create_future::<u8>();
    let clone = future.clone();
    future.set_exception(user_error()).unwrap();
    drop(future);
    tick(&event_loop);
    assert_eq!(reports.len(), 0);
    drop(clone);
    tick(&event_loop);
    assert_eq!(reports.take().len(), 1);
}

/// FUT-021
#[test]
fn an_error_that_run_until_complete_returned_is_not_reported() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let future = event_loop.create_future::<u8>();
    let setter = future.clone();
    event_loop.call_soon(move || setter.set_exception(user_error()));
    let kept = future.clone();
    assert_eq!(event_loop.run_until_complete(future).unwrap_err().to_string(), "user error");
    drop(kept);
    tick(&event_loop);
    assert_eq!(reports.take().len(), 0);
}

/// FUT-016: where no handler is set, a record is written.
#[test]
fn an_unread_error_is_logged_by_default() {
    let event_loop = new_loop();
    let ((), logs) = support::logs(|| {
        let future = event_loop.create_future::<u8>();
        future.set_exception(user_error()).unwrap();
        drop(future);
        tick(&event_loop);
    });
    assert_eq!(logs.len(), 1);
    assert_eq!(logs[0].0, tracing::Level::ERROR);
    assert!(logs[0].1.starts_with("Future exception was never retrieved"), "{}", logs[0].1);
    assert!(logs[0].1.contains("user error"), "{}", logs[0].1);
}

/// FUT-016: the handler may do what it likes with the loop.
#[test]
fn the_handler_may_make_and_drop_futures() {
    let event_loop = new_loop();
    let count = std::rc::Rc::new(std::cell::Cell::new(0));
    let counted = count.clone();
    event_loop.set_exception_handler(Some(std::rc::Rc::new(move |event_loop, _| {
        counted.set(counted.get() + 1);
        if counted.get() < 3 {
            event_loop.create_future::<u8>().set_exception(user_error()).unwrap();
        }
    })));
    event_loop.create_future::<u8>().set_exception(user_error()).unwrap();
    tick(&event_loop);
    assert_eq!(count.get(), 3);
}
