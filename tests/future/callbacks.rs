//! Done callbacks.

use std::{cell::RefCell, rc::Rc};

use asyncio::{CallbackToken, ContextVar, Error};

use crate::support::{self, Record, failure, handler, new_loop, tick};

/// FUT-006
#[test]
fn callbacks_run_in_order_in_the_next_iteration() {
    let event_loop = new_loop();
    let (future, record) = (event_loop.create_future::<u8>(), Record::default());
    for number in 1..=3 {
        let (seen, this) = (record.clone(), future.clone());
        future.add_done_callback(move |given| {
            assert!(*given == this);
            assert!(given.done());
            assert_eq!(given.result().unwrap(), 9);
            seen.push(number);
        });
    }
    future.set_result(9).unwrap();
    assert_eq!(record.len(), 0);
    tick(&event_loop);
    assert_eq!(record.take(), [1, 2, 3]);
}

/// FUT-006: the other two ends call them just so.
#[test]
fn callbacks_run_for_errors_and_cancellations_too() {
    let event_loop = new_loop();
    let record = Record::default();
    let (failed, cancelled) = (event_loop.create_future::<u8>(), event_loop.create_future::<u8>());
    for future in [&failed, &cancelled] {
        let seen = record.clone();
        future.add_done_callback(move |given| seen.push(given.cancelled()));
    }
    failed.set_exception(Error::Value("v".into())).unwrap();
    cancelled.cancel();
    assert_eq!(record.len(), 0);
    tick(&event_loop);
    assert_eq!(record.take(), [false, true]);
    let _ = failed.exception();
}

/// FUT-006: also where the one who set the result drops the last handle at once.
#[test]
fn callbacks_run_although_every_handle_is_dropped() {
    let event_loop = new_loop();
    let (future, record) = (event_loop.create_future::<u8>(), Record::default());
    let seen = record.clone();
    future.add_done_callback(move |given| seen.push(given.result().unwrap()));
    future.set_result(4).unwrap();
    drop(future);
    tick(&event_loop);
    let done = event_loop.create_future::<u8>();
    done.set_result(5).unwrap();
    let seen = record.clone();
    done.add_done_callback(move |given| seen.push(given.result().unwrap()));
    drop(done);
    tick(&event_loop);
    assert_eq!(record.take(), [4, 5]);
}

/// FUT-007
#[test]
fn a_callback_added_to_a_done_future_waits_for_the_next_iteration() {
    let event_loop = new_loop();
    let (future, record) = (event_loop.create_future::<u8>(), Record::default());
    future.set_result(1).unwrap();
    let seen = record.clone();
    future.add_done_callback(move |_| seen.push("c"));
    record.push("after");
    assert_eq!(record.items(), ["after"]);
    tick(&event_loop);
    assert_eq!(record.take(), ["after", "c"]);
}

/// FUT-008
#[test]
fn a_token_removes_its_callback_once() {
    let event_loop = new_loop();
    let (future, record) = (event_loop.create_future::<u8>(), Record::default());
    let add = |number: u8| -> CallbackToken {
        let seen = record.clone();
        future.add_done_callback(move |_| seen.push(number))
    };
    let mut ones = vec![add(1)];
    let two = add(2);
    assert!(future.remove_done_callback(&two));
    assert!(!future.remove_done_callback(&two), "c3, which is not there");
    add(2);
    ones.extend((0..5).map(|_| add(1)));
    let removed = ones.iter().filter(|token| future.remove_done_callback(token)).count();
    assert_eq!(removed, 6);
    future.set_result(0).unwrap();
    tick(&event_loop);
    assert_eq!(record.take(), [2]);
}

/// FUT-008: a callback that is removed is dropped at once.
#[test]
fn a_removed_callback_is_dropped() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<u8>();
    let (guard, dropped) = support::drop_guard();
    let token = future.add_done_callback(move |_| drop(guard));
    assert!(!dropped.get());
    assert!(future.remove_done_callback(&token));
    assert!(dropped.get());
}

/// FUT-008: a token means nothing to another future, neither to its callbacks nor to those who await it.
#[test]
fn a_token_of_another_future_removes_nothing() {
    let event_loop = new_loop();
    let record = Record::default();
    let (one, two, done) = (event_loop.create_future(), event_loop.create_future(), event_loop.create_future());
    done.set_result(0).unwrap();
    let late = done.add_done_callback(|_| ());
    let first = one.add_done_callback(|_| ());
    let awaited = two.clone();
    let waiter = event_loop.create_task(async move { (&awaited).await });
    tick(&event_loop);
    let seen = record.clone();
    let second = two.add_done_callback(move |_| seen.push("two"));
    for foreign in [&first, &late] {
        assert!(!two.remove_done_callback(foreign));
    }
    assert!(!one.remove_done_callback(&second));
    two.set_result(7).unwrap();
    one.set_result(8).unwrap();
    assert_eq!(event_loop.run_until_complete(waiter).unwrap(), 7);
    assert_eq!(record.take(), ["two"]);
}

/// FUT-010
#[test]
fn removing_a_callback_from_a_callback_comes_too_late() {
    let event_loop = new_loop();
    let (future, record) = (event_loop.create_future::<u8>(), Record::default());
    let tokens = Rc::new(RefCell::new(Vec::<CallbackToken>::new()));
    let theirs = tokens.clone();
    let removed = record.clone();
    future.add_done_callback(move |future| {
        let count = theirs.borrow().iter().filter(|token| future.remove_done_callback(token)).count();
        removed.push(if count == 0 { "none removed" } else { "removed" });
    });
    for _ in 0..2 {
        let seen = record.clone();
        tokens.borrow_mut().push(future.add_done_callback(move |_| seen.push("s")));
    }
    future.set_result(0).unwrap();
    tick(&event_loop);
    assert_eq!(record.take(), ["none removed", "s", "s"]);
}

/// FUT-011
#[test]
fn a_failing_callback_does_not_keep_the_others_from_running() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let (future, record) = (event_loop.create_future::<u8>(), Record::default());
    let (first, third) = (record.clone(), record.clone());
    future.add_done_callback(move |_| first.push(1));
    future.add_done_callback(move |_| panic!("boom"));
    future.add_done_callback(move |_| third.push(3));
    future.set_result(0).unwrap();
    tick(&event_loop);
    assert_eq!(record.take(), [1, 3]);
    let reports = reports.take();
    assert_eq!(reports.len(), 1);
    assert!(reports[0].message.starts_with("Exception in callback"), "{}", reports[0].message);
    assert_eq!(reports[0].exception.as_ref().unwrap().to_string(), "boom");
}

/// FUT-024
#[test]
fn a_callback_added_by_a_callback_runs_one_iteration_later() {
    let event_loop = new_loop();
    let (future, record) = (event_loop.create_future::<u8>(), Record::default());
    let outer = record.clone();
    future.add_done_callback(move |future| {
        outer.push("c1");
        let inner = outer.clone();
        future.add_done_callback(move |_| inner.push("c2"));
    });
    future.set_result(0).unwrap();
    tick(&event_loop);
    assert_eq!(record.items(), ["c1"]);
    tick(&event_loop);
    assert_eq!(record.take(), ["c1", "c2"]);
}

#[test]
fn a_callback_runs_in_a_copy_of_the_context_it_was_added_in() {
    static VALUE: ContextVar<u8> = ContextVar::new("value");
    support::run(async {
        let event_loop = asyncio::get_running_loop()?;
        let (future, record) = (event_loop.create_future::<u8>(), Record::default());
        VALUE.set(1);
        let seen = record.clone();
        future.add_done_callback(move |_| {
            seen.push(VALUE.get().unwrap());
            VALUE.set(9);
        });
        let seen = record.clone();
        future.add_done_callback(move |_| seen.push(VALUE.get().unwrap()));
        VALUE.set(2);
        future.set_result(0)?;
        (&future).await?;
        asyncio::sleep(std::time::Duration::ZERO).await?;
        assert_eq!(record.take(), [1, 1]);
        assert_eq!(VALUE.get()?, 2);
        Ok(())
    });
}

#[test]
fn a_callback_may_do_anything_to_its_future() {
    let event_loop = new_loop();
    let (future, record) = (event_loop.create_future::<String>(), Record::default());
    let seen = record.clone();
    future.add_done_callback(move |future| {
        assert!(!future.cancel());
        assert_eq!(failure(future.set_result("again".into())).0, asyncio::ErrorKind::InvalidState);
        seen.push(future.result().unwrap());
        let again = future.clone();
        let _detached = asyncio::create_task(async move { again.await.map(drop) });
    });
    future.set_result("value".into()).unwrap();
    tick(&event_loop);
    tick(&event_loop);
    assert_eq!(record.take(), ["value"]);
    assert_eq!(failure(future.result()).1, "Result was already taken");
}

#[test]
fn callbacks_that_never_run_are_dropped_with_the_future_or_the_loop() {
    let event_loop = new_loop();
    let ((with_future, first), (with_loop, second)) = (support::drop_guard(), support::drop_guard());
    let (short, long) = (event_loop.create_future::<u8>(), event_loop.create_future::<u8>());
    short.add_done_callback(move |_| drop(with_future));
    long.add_done_callback(move |_| drop(with_loop));
    drop(short);
    assert!(first.get());
    assert!(!second.get());
    event_loop.close().unwrap();
    assert!(second.get());
    long.set_result(1).unwrap();
}

#[test]
fn a_callback_on_a_closed_loop_is_dropped_and_reported() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let future = event_loop.create_future::<u8>();
    event_loop.close().unwrap();
    let (guard, dropped) = support::drop_guard();
    let token = future.add_done_callback(move |_| drop(guard));
    assert!(dropped.get());
    assert_eq!(reports.take().len(), 1);
    assert!(!future.remove_done_callback(&token));
}
