//! Panics of callbacks, and of what they and coroutines capture: reported, and the loop goes on.
use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::Duration,
};

use asyncio::{Error, ErrorKind, sleep};

use crate::{
    MINUTE, MS, assert_error, push,
    support::{Record, deadline, drop_guard, handler, new_loop, tick, virtual_loop},
};

/// Panics when it is dropped, unless that would be a second panic.
struct PanicsOnDrop(&'static str);

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("{}", self.0);
        }
    }
}

#[test]
fn a_panicking_callback_is_reported_and_the_others_run() {
    let (event_loop, record) = (new_loop(), Record::default());
    let reports = handler(&event_loop);
    event_loop.call_soon(push(&record, 1));
    let failing = event_loop.call_soon(|| panic!("boom"));
    event_loop.call_soon(push(&record, 2));
    event_loop.call_later(Duration::ZERO, || panic!("{} boom", "timer"));
    tick(&event_loop);
    assert_eq!(record.take(), [1, 2]);
    let reports = reports.take();
    assert_eq!(reports.len(), 2);
    assert!(reports[0].message.starts_with("Exception in callback"));
    let error = reports[0].exception.as_ref().unwrap();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Panicked, "boom"));
    assert!(reports[0].handle == Some(failing.any()));
    assert_eq!(reports[1].exception.as_ref().unwrap().to_string(), "timer boom");
    assert_error(event_loop.run_until_complete(failing), ErrorKind::Panicked, "boom");
}

#[test]
fn a_panic_of_an_awaited_callback_goes_to_the_one_who_waits() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let main = async {
        let failing = event_loop.call_soon(|| panic!("boom"));
        failing.await
    };
    assert_error(event_loop.run_until_complete::<(), _>(main), ErrorKind::Panicked, "boom");
    assert!(reports.take().is_empty());
}

/// LOOP-024: nothing that a callback does ends the loop's run; only `run` gives `KeyboardInterrupt`, which the signals'
/// own tests show.
#[test]
fn no_failure_of_a_callback_breaks_out_of_the_loop() {
    let (event_loop, record) = (new_loop(), Record::default());
    let reports = handler(&event_loop);
    event_loop.call_soon(push(&record, 1));
    let returned = event_loop.call_soon(|| Err::<(), _>(Error::KeyboardInterrupt));
    event_loop.call_soon(|| std::panic::panic_any(Error::KeyboardInterrupt));
    event_loop.call_soon(push(&record, 2));
    tick(&event_loop);
    assert_eq!(record.take(), [1, 2]);
    assert!(!event_loop.is_closed() && !event_loop.is_running());
    assert_eq!(reports.take().len(), 1, "an error that is returned is a value; a panic is reported");
    let returned = event_loop.run_until_complete(returned).unwrap();
    assert_error(returned, ErrorKind::KeyboardInterrupt, "keyboard interrupt");
}

#[test]
fn a_panicking_reader_is_reported_and_stays() {
    use std::io::Write;
    let (event_loop, calls) = (new_loop(), Rc::new(Cell::new(0)));
    let reports = handler(&event_loop);
    let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    theirs.write_all(b"unread").unwrap();
    let count = calls.clone();
    event_loop
        .add_reader(&ours, move || {
            count.set(count.get() + 1);
            panic!("boom");
        })
        .unwrap();
    (0..3).for_each(|_| tick(&event_loop));
    assert_eq!((calls.get(), reports.take().len()), (3, 3));
    assert!(event_loop.remove_reader(&ours).unwrap());
}

#[test]
fn a_panicking_done_callback_does_not_stop_the_next() {
    let (event_loop, record) = (new_loop(), Record::default());
    let reports = handler(&event_loop);
    let future = event_loop.create_future::<()>();
    let (first, second) = (push(&record, 1), push(&record, 2));
    future.add_done_callback(move |_| first());
    future.add_done_callback(|_| panic!("boom"));
    future.add_done_callback(move |_| second());
    future.set_result(()).unwrap();
    tick(&event_loop);
    assert_eq!(record.take(), [1, 2]);
    assert_eq!(reports.take().len(), 1);
}

#[test]
fn a_panicking_call_from_a_thread_is_reported() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    drop(event_loop.call_soon_threadsafe(|| panic!("boom")));
    tick(&event_loop);
    let reports = reports.take();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].exception.as_ref().unwrap().to_string(), "boom");
}

#[test]
fn a_panic_in_the_drop_of_a_capture_is_the_callback_s() {
    let (event_loop, record) = (new_loop(), Record::default());
    let reports = handler(&event_loop);
    let (log, bomb) = (record.clone(), PanicsOnDrop("in a drop"));
    event_loop.call_soon(move || {
        let _bomb = bomb;
        log.push("ran");
    });
    event_loop.call_soon(push(&record, "next"));
    tick(&event_loop);
    assert_eq!(record.take(), ["ran", "next"]);
    let reports = reports.take();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].exception.as_ref().unwrap().to_string(), "in a drop");
}

#[test]
fn a_panic_in_the_drop_of_a_value_nobody_takes_is_reported() {
    let (event_loop, record) = (new_loop(), Record::default());
    let reports = handler(&event_loop);
    drop(event_loop.call_soon(|| PanicsOnDrop("a value")));
    event_loop.call_soon(push(&record, "next"));
    tick(&event_loop);
    assert_eq!(record.take(), ["next"]);
    assert_eq!(reports.take()[0].exception.as_ref().unwrap().to_string(), "a value");
}

#[test]
fn cancel_passes_a_panic_on_and_has_cancelled_all_the_same() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let (soon_bomb, later_bomb) = (PanicsOnDrop("soon"), PanicsOnDrop("later"));
    let soon = event_loop.call_soon(move || drop(soon_bomb));
    let later = event_loop.call_later(MINUTE, move || drop(later_bomb));
    assert!(catch_unwind(AssertUnwindSafe(|| soon.cancel())).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| later.cancel())).is_err());
    assert!(soon.cancelled() && later.cancelled());
    soon.cancel();
    later.cancel();
    tick(&event_loop);
    assert_eq!(event_loop.next_deadline(), None, "no timer is left");
    assert_error(event_loop.run_until_complete(soon), ErrorKind::Cancelled, "cancelled");
    assert_error(event_loop.run_until_complete(later), ErrorKind::Cancelled, "cancelled");
    assert!(reports.take().is_empty(), "whoever cancelled got the panic");
}

#[test]
fn a_panic_in_cancel_does_not_leave_the_one_who_waits_waiting() {
    let _deadline = deadline();
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let bomb = PanicsOnDrop("captured");
    let handle = Rc::new(Cell::new(Some(event_loop.call_later(MINUTE, move || drop(bomb)))));
    let canceller = handle.clone();
    let waiter = event_loop.create_task(std::future::poll_fn(move |cx| {
        let mut waited = handle.take().unwrap();
        let polled = std::pin::Pin::new(&mut waited).poll(cx);
        handle.set(Some(waited));
        polled
    }));
    tick(&event_loop);
    event_loop.call_soon(move || {
        let handle = canceller.take().unwrap();
        let cancelled = catch_unwind(AssertUnwindSafe(|| handle.cancel()));
        canceller.set(Some(handle));
        assert!(cancelled.is_err());
    });
    assert_error(event_loop.run_until_complete(waiter), ErrorKind::Cancelled, "cancelled");
    assert!(reports.take().is_empty());
}

#[test]
fn removing_a_reader_passes_a_panic_on_and_has_removed_it() {
    let event_loop = new_loop();
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let bomb = PanicsOnDrop("reader");
    event_loop
        .add_reader(&ours, move || {
            let _ = &bomb;
        })
        .unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| event_loop.remove_reader(&ours))).is_err());
    assert!(!event_loop.remove_reader(&ours).unwrap());
    let bomb = PanicsOnDrop("replaced");
    event_loop
        .add_reader(&ours, move || {
            let _ = &bomb;
        })
        .unwrap();
    let added = catch_unwind(AssertUnwindSafe(|| event_loop.add_reader(&ours, || ())));
    assert!(added.is_err());
    assert!(event_loop.remove_reader(&ours).unwrap(), "the new one stands");
}

#[test]
fn a_panic_in_the_drop_of_a_cancelled_coroutine_is_reported() {
    let (event_loop, _) = virtual_loop();
    let reports = handler(&event_loop);
    let (guard, dropped) = drop_guard();
    let task = event_loop.create_task(async move {
        let (_guard, _bomb) = (guard, PanicsOnDrop("coroutine"));
        std::future::pending::<()>().await;
        Ok(())
    });
    let any = task.any();
    let main = async {
        sleep(Duration::ZERO).await?;
        assert!(task.cancel());
        task.await
    };
    assert_error(event_loop.run_until_complete(main), ErrorKind::Cancelled, "cancelled");
    assert!(dropped.get());
    assert_eq!(event_loop.all_tasks(), []);
    let reports = reports.take();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].exception.as_ref().unwrap().to_string(), "coroutine");
    assert!(reports[0].task.as_ref() == Some(&any));
    event_loop.run_until_complete(sleep(MS)).unwrap();
}

#[test]
fn a_panic_in_the_drop_of_a_task_that_never_ran_is_reported() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let bomb = PanicsOnDrop("never ran");
    let task = event_loop.create_task(async move {
        let _bomb = bomb;
        Ok(())
    });
    task.cancel();
    assert_error(event_loop.run_until_complete(task), ErrorKind::Cancelled, "cancelled");
    let reports = reports.take();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].exception.as_ref().unwrap().to_string(), "never ran");
}

#[test]
fn a_panic_in_the_drop_of_what_a_cancelled_task_awaits_is_its_outcome_or_reported() {
    let (event_loop, _) = virtual_loop();
    let reports = handler(&event_loop);
    // The coroutine sees the cancellation and lets it out: the drop then happens inside of its step.
    let task = event_loop.create_task(async move {
        let _bomb = PanicsOnDrop("on the way out");
        sleep(MINUTE).await
    });
    let main = async {
        sleep(Duration::ZERO).await?;
        task.cancel();
        task.await
    };
    assert_error(event_loop.run_until_complete(main), ErrorKind::Panicked, "on the way out");
    assert!(reports.take().is_empty(), "whoever awaits it got it");
    assert_eq!(event_loop.all_tasks(), []);
}

#[test]
fn a_panic_in_the_drop_of_a_stopped_main_future_is_reported() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let stopper = event_loop.clone();
    let stopped = event_loop.run_until_complete(async move {
        let _bomb = PanicsOnDrop("main");
        stopper.stop();
        sleep(MINUTE).await
    });
    assert_error(stopped, ErrorKind::Runtime, "Event loop stopped before Future completed.");
    assert_eq!(reports.take()[0].exception.as_ref().unwrap().to_string(), "main");
    assert_eq!(event_loop.run_until_complete(async { Ok(1) }).unwrap(), 1);
}

#[test]
fn a_payload_that_panics_when_it_is_dropped_does_not_end_the_loop() {
    let (event_loop, record) = (new_loop(), Record::default());
    let reports = handler(&event_loop);
    event_loop.call_soon(|| std::panic::panic_any(PanicsOnDrop("a payload")));
    drop(event_loop.create_task::<(), _>(async { std::panic::panic_any(PanicsOnDrop("a task's payload")) }));
    event_loop.call_soon(push(&record, "next"));
    tick(&event_loop);
    assert_eq!(record.take(), ["next"]);
    assert!(reports.len() >= 2);
    tick(&event_loop);
    assert_eq!(event_loop.all_tasks(), []);
}

/// A select's loser that was awaiting a handle leaves its panic to the exception handler.
#[test]
fn a_panic_is_reported_although_a_wait_was_given_up() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let mut handle = event_loop.call_later(Duration::from_millis(1), || panic!("boom"));
    let waker = std::task::Waker::noop();
    let polled = Future::poll(std::pin::Pin::new(&mut handle), &mut std::task::Context::from_waker(waker));
    assert!(polled.is_pending());
    drop(handle);
    event_loop.run_until_complete(sleep(Duration::from_millis(5))).unwrap();
    let reports = reports.take();
    assert_eq!(reports.len(), 1);
    assert!(reports[0].message.starts_with("Exception in callback"));
}

/// The handle failed while somebody waited, who went away without a look.
#[test]
fn a_panic_that_was_handed_to_nobody_is_reported_at_the_drop() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let mut handle = event_loop.call_soon(|| panic!("boom"));
    let waker = std::task::Waker::noop();
    let polled = Future::poll(std::pin::Pin::new(&mut handle), &mut std::task::Context::from_waker(waker));
    assert!(polled.is_pending());
    tick(&event_loop);
    assert_eq!(reports.len(), 0, "somebody waits");
    drop(handle);
    assert_eq!(reports.take().len(), 1);
}
