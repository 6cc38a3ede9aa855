//! Pending, done, cancelled, taken.

use asyncio::{Error, ErrorKind, Future};

use crate::support::{self, failure, new_loop, tick};

fn invalid(text: &str) -> (ErrorKind, String) {
    (ErrorKind::InvalidState, text.into())
}

fn user_error() -> Error {
    Error::other("user error")
}

/// FUT-001
#[test]
fn a_new_future_is_pending() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<u8>();
    assert!(!future.done());
    assert!(!future.cancelled());
    assert_eq!(failure(future.result()), invalid("Result is not set."));
    assert_eq!(failure(future.exception()), invalid("Exception is not set."));
    assert!(future.get_loop().unwrap() == event_loop);
}

/// FUT-002
#[test]
fn a_result_is_set_once_and_stays() {
    let event_loop = new_loop();
    let future = event_loop.create_future();
    future.set_result(42).unwrap();
    for _ in 0..2 {
        assert!(future.done());
        assert!(!future.cancelled());
        assert_eq!(future.result().unwrap(), 42);
        assert_eq!(future.result().unwrap(), 42);
        assert!(future.exception().unwrap().is_none());
        assert_eq!(failure(future.set_result(1)).0, ErrorKind::InvalidState);
        assert_eq!(failure(future.set_exception(user_error())).0, ErrorKind::InvalidState);
        assert!(!future.cancel());
        assert!(!future.cancel_with("too late"));
    }
}

/// FUT-003
#[test]
fn an_exception_is_set_once_and_stays() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<u8>();
    future.set_exception(user_error()).unwrap();
    for _ in 0..2 {
        assert!(future.done());
        assert!(!future.cancelled());
        assert_eq!(failure(future.result()), (ErrorKind::Other, "user error".into()));
        assert_eq!(future.exception().unwrap().unwrap().to_string(), "user error");
        assert_eq!(failure(future.set_result(1)).0, ErrorKind::InvalidState);
        assert_eq!(failure(future.set_exception(Error::Value("v".into()))).0, ErrorKind::InvalidState);
        assert!(!future.cancel());
    }
}

/// FUT-004
#[test]
fn a_cancelled_future_stays_cancelled() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<u8>();
    assert!(future.cancel());
    assert!(future.cancelled());
    assert!(future.done());
    assert_eq!(failure(future.result()).0, ErrorKind::Cancelled);
    assert_eq!(failure(future.exception()).0, ErrorKind::Cancelled);
    assert_eq!(failure(future.set_result(1)).0, ErrorKind::InvalidState);
    assert_eq!(failure(future.set_exception(user_error())).0, ErrorKind::InvalidState);
    assert!(!future.cancel());
    assert!(future.cancelled());
}

fn message<T: std::fmt::Debug>(result: asyncio::Result<T>) -> Option<String> {
    match result.unwrap_err() {
        Error::Cancelled(cancelled) => cancelled.message.map(|text| text.to_string()),
        other => panic!("not a cancellation: {other}"),
    }
}

/// FUT-005
#[test]
fn a_cancel_message_is_seen_by_all_who_look() {
    let event_loop = new_loop();
    let (told, bare) = (event_loop.create_future::<u8>(), event_loop.create_future::<u8>());
    assert!(told.cancel_with("my message"));
    assert!(bare.cancel());
    assert_eq!(message(told.result()).as_deref(), Some("my message"));
    assert_eq!(message(told.exception()).as_deref(), Some("my message"));
    assert_eq!(message(event_loop.run_until_complete(&told)).as_deref(), Some("my message"));
    assert_eq!(message(event_loop.run_until_complete(told)).as_deref(), Some("my message"));
    assert_eq!(message(bare.result()), None);
    assert_eq!(message(bare.exception()), None);
    assert_eq!(message(event_loop.run_until_complete(bare)), None);
}

/// FUT-022
#[test]
fn debug_tells_the_state() {
    let event_loop = new_loop();
    let futures: [Future<u8>; 4] = std::array::from_fn(|_| event_loop.create_future());
    futures[1].cancel();
    futures[2].set_result(4).unwrap();
    futures[3].set_exception(Error::Runtime("broken".into())).unwrap();
    let texts = futures.each_ref().map(|future| format!("{future:?}"));
    for (text, part) in texts.iter().zip(["pending", "cancelled", "finished result=4", "finished exception="]) {
        assert!(text.contains(part), "{text}");
        assert!(text.contains("state.rs"), "it says where it was created: {text}");
    }
    assert!(texts[3].contains("broken"), "{}", texts[3]);
    let _ = futures[3].exception();
}

/// FUT-002, FUT-003: what is set may itself be a cancellation, and that is one.
#[test]
fn setting_a_cancellation_as_the_exception_cancels() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<u8>();
    future.set_exception(Error::cancelled()).unwrap();
    assert!(future.cancelled());
    assert_eq!(failure(future.exception()).0, ErrorKind::Cancelled);
}

#[test]
fn awaiting_moves_the_value_out_once() {
    struct NotClone(u8);
    let event_loop = new_loop();
    let future = event_loop.create_future();
    let (again, looked) = (future.clone(), future.clone());
    future.set_result(NotClone(3)).unwrap();
    assert_eq!(event_loop.run_until_complete(future).unwrap().0, 3);
    assert!(looked.done());
    assert!(!looked.cancelled());
    assert!(looked.exception().unwrap().is_none());
    let second = event_loop.run_until_complete(again).map(|value| value.0);
    assert_eq!(failure(second), invalid("Result was already taken"));
    assert_eq!(failure(looked.set_result(NotClone(4))).0, ErrorKind::InvalidState);
    assert!(!looked.cancel());
}

#[test]
fn a_look_after_the_value_was_taken_is_an_error() {
    let event_loop = new_loop();
    let future = event_loop.create_future();
    let other = future.clone();
    future.set_result(String::from("x")).unwrap();
    assert_eq!(event_loop.run_until_complete(future).unwrap(), "x");
    assert_eq!(failure(other.result()), invalid("Result was already taken"));
    assert_eq!(failure(event_loop.run_until_complete(&other)), invalid("Result was already taken"));
    assert_eq!(failure(event_loop.run_until_complete(other.clone().shared())), invalid("Result was already taken"));
    assert!(other.done());
}

#[test]
fn awaiting_a_reference_or_a_shared_form_clones_and_may_be_repeated() {
    let event_loop = new_loop();
    let future = event_loop.create_future();
    future.set_result(String::from("x")).unwrap();
    for _ in 0..2 {
        assert_eq!(event_loop.run_until_complete(&future).unwrap(), "x");
    }
    let shared = future.clone().shared();
    for _ in 0..2 {
        assert_eq!(event_loop.run_until_complete(shared.clone()).unwrap(), "x");
    }
    assert_eq!(shared.result().unwrap(), "x", "it derefs to the future");
    assert_eq!(event_loop.run_until_complete(future).unwrap(), "x");
}

#[test]
fn an_error_is_never_taken() {
    let event_loop = new_loop();
    let failed = event_loop.create_future::<u8>();
    failed.set_exception(user_error()).unwrap();
    for _ in 0..2 {
        assert_eq!(failure(event_loop.run_until_complete(failed.clone())).1, "user error");
    }
    assert_eq!(failure(failed.result()).1, "user error");
    let cancelled = event_loop.create_future::<u8>();
    cancelled.cancel();
    for _ in 0..2 {
        assert_eq!(failure(event_loop.run_until_complete(cancelled.clone())).0, ErrorKind::Cancelled);
    }
    assert!(cancelled.cancelled());
}

#[test]
fn clones_are_handles_of_one_future() {
    let event_loop = new_loop();
    let (one, two) = (event_loop.create_future::<u8>(), event_loop.create_future::<u8>());
    assert!(one == one.clone());
    assert!(one != two);
    assert_eq!(one.any(), one.clone().any());
    assert_ne!(one.any(), two.any());
    one.clone().set_result(1).unwrap();
    assert_eq!(one.result().unwrap(), 1);
}

#[test]
fn a_future_without_a_loop_belongs_to_the_running_one() {
    support::run(async {
        let future = Future::new();
        assert!(future.get_loop()? == asyncio::get_running_loop()?);
        future.set_result(5)?;
        assert_eq!(future.await?, 5);
        Ok(())
    });
}

#[test]
fn a_future_where_there_is_no_loop_is_born_failed() {
    let _deadline = support::deadline();
    asyncio::set_event_loop(None);
    let future = Future::<u8>::new();
    assert!(future.done());
    let (kind, text) = failure(future.result());
    assert_eq!(kind, ErrorKind::Runtime);
    assert!(text.contains("no current event loop"), "{text}");
    let event_loop = new_loop();
    asyncio::set_event_loop(&event_loop);
    assert!(Future::<u8>::new().get_loop().unwrap() == event_loop);
    asyncio::set_event_loop(None);
}

#[test]
fn a_future_of_a_closed_loop_can_be_set_and_read() {
    let event_loop = new_loop();
    let waiting = event_loop.create_future();
    event_loop.close().unwrap();
    let fresh = event_loop.create_future();
    for future in [waiting, fresh] {
        future.set_result(3).unwrap();
        assert_eq!(future.result().unwrap(), 3);
    }
}

#[test]
fn set_results_values_are_dropped_with_the_future() {
    let event_loop = new_loop();
    let (guard, dropped) = support::drop_guard();
    let future = event_loop.create_future();
    future.set_result(guard).unwrap();
    tick(&event_loop);
    assert!(!dropped.get());
    drop(future);
    assert!(dropped.get());
}
