//! Adding, replacing and removing handlers, and what they run under.

use std::{io::Write, os::unix::net::UnixStream, rc::Rc, thread};

use asyncio::{Context, ContextVar, ErrorKind, Signal, ToSignal};

use crate::{
    main_thread::tests,
    signals::{SIG_DFL, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, disposition, install, raise},
    support::{Record, drop_guard, handler, new_loop, tick},
};

tests![
    numbers_that_are_no_signals_are_refused,
    some_signals_cannot_be_caught,
    a_handler_runs_on_the_loop_and_its_removal_brings_the_default_back,
    a_number_and_a_name_are_the_same_signal,
    realtime_signals_are_served,
    the_second_handler_replaces_the_first,
    what_was_queued_for_a_replaced_handler_is_not_run,
    a_handler_may_remove_that_of_another_signal,
    a_handler_that_is_removed_before_its_turn_does_not_run,
    a_handler_may_remove_itself,
    a_handler_may_replace_itself,
    a_handler_may_add_another,
    other_threads_cannot_add_handlers,
    a_closed_loop_is_told_before_the_thread_and_the_signal,
    removing_what_was_never_added_is_false,
    a_handler_is_dropped_when_it_is_removed_replaced_or_its_loop_is_closed,
    the_drop_of_a_replaced_handler_may_use_the_loop,
    the_drop_of_a_removed_handler_may_use_the_loop,
    a_handler_runs_in_the_context_it_was_added_in,
    what_a_handler_sets_stays_in_its_own_context,
    a_handler_under_a_given_context_runs_in_that_very_one,
    a_handler_or_reader_that_panics_is_reported_and_stays,
    a_handler_that_panics_does_not_harm_its_neighbours,
    a_refused_handler_is_dropped,
];

/// SIG-001
fn numbers_that_are_no_signals_are_refused() {
    let event_loop = new_loop();
    for number in [0, -1, 65, 1000, i32::MIN, i32::MAX] {
        let text = format!("invalid signal number {number}");
        let error = event_loop.add_signal_handler(number, || ()).unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::Value, text.clone()));
        let error = event_loop.remove_signal_handler(number).unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::Value, text));
    }
}

/// SIG-002
fn some_signals_cannot_be_caught() {
    let event_loop = new_loop();
    for signal in [Signal::Kill, Signal::Stop] {
        let error = event_loop.add_signal_handler(signal, || ()).unwrap_err();
        let text = format!("sig {} cannot be caught", signal.signal_number());
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::Runtime, text));
        assert!(!event_loop.remove_signal_handler(signal).unwrap());
    }
    let error = event_loop.add_signal_handler(9, || ()).unwrap_err();
    assert_eq!(error.to_string(), "sig 9 cannot be caught");
    let error = event_loop.add_signal_handler(19, || ()).unwrap_err();
    assert_eq!(error.to_string(), "sig 19 cannot be caught");
}

/// SIG-003
fn a_handler_runs_on_the_loop_and_its_removal_brings_the_default_back() {
    install(SIGINT, SIG_DFL);
    let (event_loop, calls) = (new_loop(), Record::default());
    let (seen, expected, main) = (calls.clone(), event_loop.clone(), thread::current().id());
    event_loop
        .add_signal_handler(SIGINT, move || {
            assert_eq!(asyncio::get_running_loop().unwrap(), expected);
            assert!(expected.is_running());
            assert_eq!(thread::current().id(), main);
            assert!(asyncio::current_task().unwrap().is_none());
            seen.push("called");
            expected.stop();
        })
        .unwrap();
    assert_ne!(disposition(SIGINT), SIG_DFL);
    raise(SIGINT);
    assert_eq!(calls.len(), 0, "called inside the loop only");
    event_loop.run_forever().unwrap();
    assert_eq!(calls.items(), ["called"]);
    tick(&event_loop);
    assert_eq!(calls.take(), ["called"]);

    assert!(event_loop.remove_signal_handler(SIGINT).unwrap());
    assert_eq!(disposition(SIGINT), SIG_DFL);
    assert!(!event_loop.remove_signal_handler(SIGINT).unwrap());
    assert_eq!(disposition(SIGINT), SIG_DFL);
}

/// SIG-003, by another spelling of the signal.
fn a_number_and_a_name_are_the_same_signal() {
    let (event_loop, calls) = (new_loop(), Record::default());
    let seen = calls.clone();
    event_loop.add_signal_handler(Signal::Usr1, move || seen.push(1)).unwrap();
    let seen = calls.clone();
    event_loop.add_signal_handler(SIGUSR1, move || seen.push(2)).unwrap();
    raise(SIGUSR1);
    tick(&event_loop);
    assert_eq!(calls.take(), [2]);
    assert!(event_loop.remove_signal_handler(Signal::Usr1).unwrap());
    assert!(!event_loop.remove_signal_handler(SIGUSR1).unwrap());
}

fn realtime_signals_are_served() {
    let (event_loop, calls) = (new_loop(), Record::default());
    for number in [libc::SIGRTMIN(), libc::SIGRTMAX()] {
        let seen = calls.clone();
        event_loop.add_signal_handler(number, move || seen.push(number)).unwrap();
        raise(number);
        tick(&event_loop);
        assert_eq!(calls.take(), [number]);
    }
    event_loop.close().unwrap();
    assert_eq!(disposition(libc::SIGRTMIN()), SIG_DFL);
}

/// SIG-005
fn the_second_handler_replaces_the_first() {
    let (event_loop, calls) = (new_loop(), Record::default());
    for name in ["first", "second"] {
        let seen = calls.clone();
        event_loop.add_signal_handler(SIGUSR1, move || seen.push(name)).unwrap();
    }
    for _ in 0..3 {
        raise(SIGUSR1);
        tick(&event_loop);
        tick(&event_loop);
        assert_eq!(calls.take(), ["second"]);
    }
    assert!(event_loop.remove_signal_handler(SIGUSR1).unwrap());
    assert!(!event_loop.remove_signal_handler(SIGUSR1).unwrap(), "there was one handler, not two");
}

/// SIG-005, where the signal came before the replacement.
fn what_was_queued_for_a_replaced_handler_is_not_run() {
    let (event_loop, calls) = (new_loop(), Record::default());
    let seen = calls.clone();
    event_loop.add_signal_handler(SIGUSR1, move || seen.push("first")).unwrap();
    raise(SIGUSR1);
    let seen = calls.clone();
    event_loop.add_signal_handler(SIGUSR1, move || seen.push("second")).unwrap();
    tick(&event_loop);
    assert_eq!(calls.take(), ["second"], "who is called is looked up when the loop takes the signal");
}

/// SIG-006
fn a_handler_may_remove_that_of_another_signal() {
    let (event_loop, output) = (new_loop(), Record::default());
    let seen = output.clone();
    event_loop.add_signal_handler(SIGUSR1, move || seen.push("GOTIT")).unwrap();
    let (seen, remover) = (output.clone(), event_loop.clone());
    event_loop
        .add_signal_handler(SIGUSR2, move || {
            assert!(remover.remove_signal_handler(SIGUSR1).unwrap());
            seen.push("REMOVED");
        })
        .unwrap();
    for number in [SIGUSR1, SIGUSR1, SIGUSR2] {
        raise(number);
        tick(&event_loop);
    }
    assert_eq!(output.take(), ["GOTIT", "GOTIT", "REMOVED"]);
    assert_eq!(disposition(SIGUSR1), SIG_DFL);
    assert_ne!(disposition(SIGUSR2), SIG_DFL);
}

/// SIG-006, with all three signals in one iteration.
fn a_handler_that_is_removed_before_its_turn_does_not_run() {
    let (event_loop, output) = (new_loop(), Record::default());
    let (seen, remover) = (output.clone(), event_loop.clone());
    event_loop
        .add_signal_handler(SIGUSR1, move || {
            seen.push("removes");
            remover.remove_signal_handler(SIGUSR2).unwrap();
        })
        .unwrap();
    let seen = output.clone();
    event_loop.add_signal_handler(SIGUSR2, move || seen.push("removed")).unwrap();
    raise(SIGUSR1);
    raise(SIGUSR2);
    tick(&event_loop);
    tick(&event_loop);
    assert_eq!(output.take(), ["removes"]);
}

fn a_handler_may_remove_itself() {
    let (event_loop, calls) = (new_loop(), Record::default());
    let (guard, dropped) = drop_guard();
    let (seen, remover, still) = (calls.clone(), event_loop.clone(), dropped.clone());
    event_loop
        .add_signal_handler(SIGUSR1, move || {
            let _guard = &guard;
            assert!(remover.remove_signal_handler(SIGUSR1).unwrap());
            assert!(!still.get(), "what runs is not dropped under its feet");
            seen.push("called");
        })
        .unwrap();
    raise(SIGUSR1);
    raise(SIGUSR1);
    tick(&event_loop);
    assert_eq!(calls.take(), ["called"]);
    assert!(dropped.get());
    assert_eq!(disposition(SIGUSR1), SIG_DFL);
}

fn a_handler_may_replace_itself() {
    let (event_loop, calls) = (new_loop(), Record::default());
    let (seen, adder) = (calls.clone(), event_loop.clone());
    event_loop
        .add_signal_handler(SIGUSR1, move || {
            seen.push("first");
            let seen = seen.clone();
            adder.add_signal_handler(SIGUSR1, move || seen.push("second")).unwrap();
        })
        .unwrap();
    for _ in 0..3 {
        raise(SIGUSR1);
        tick(&event_loop);
    }
    assert_eq!(calls.take(), ["first", "second", "second"]);
}

fn a_handler_may_add_another() {
    let (event_loop, calls) = (new_loop(), Record::default());
    let (seen, adder) = (calls.clone(), event_loop.clone());
    event_loop
        .add_signal_handler(SIGUSR1, move || {
            seen.push("outer");
            let seen = seen.clone();
            adder.add_signal_handler(SIGUSR2, move || seen.push("inner")).unwrap();
            raise(SIGUSR2);
        })
        .unwrap();
    raise(SIGUSR1);
    tick(&event_loop);
    tick(&event_loop);
    assert_eq!(calls.take(), ["outer", "inner"]);
}

/// SIG-008
fn other_threads_cannot_add_handlers() {
    let ours = new_loop();
    thread::spawn(|| {
        let event_loop = new_loop();
        let error = event_loop.add_signal_handler(SIGUSR2, || panic!("must not run")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Runtime);
        assert_eq!(disposition(SIGUSR2), SIG_DFL);
        assert!(!event_loop.remove_signal_handler(SIGUSR2).unwrap());
        // The number is looked at first.
        assert_eq!(event_loop.add_signal_handler(0, || ()).unwrap_err().kind(), ErrorKind::Value);

        // A running loop is no better.
        let inside = event_loop.clone();
        let error = event_loop.run_until_complete(async move { inside.add_signal_handler(SIGUSR2, || ()) });
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Runtime);
        event_loop.close().unwrap();
    })
    .join()
    .unwrap();
    assert_eq!(disposition(SIGUSR2), SIG_DFL);
    assert!(!ours.remove_signal_handler(SIGUSR2).unwrap());
}

/// SIG-008, SIG-002 and SIG-001 on a closed loop.
fn a_closed_loop_is_told_before_the_thread_and_the_signal() {
    fn check() {
        let event_loop = new_loop();
        event_loop.close().unwrap();
        for number in [SIGTERM, 9, 0] {
            let error = event_loop.add_signal_handler(number, || ()).unwrap_err();
            assert_eq!((error.kind(), error.to_string()), (ErrorKind::Runtime, "Event loop is closed".into()));
        }
        assert!(!event_loop.remove_signal_handler(SIGTERM).unwrap());
        assert_eq!(disposition(SIGTERM), SIG_DFL);
    }
    check();
    thread::spawn(check).join().unwrap();
}

fn removing_what_was_never_added_is_false() {
    let event_loop = new_loop();
    assert!(!event_loop.remove_signal_handler(SIGUSR1).unwrap());
    event_loop.add_signal_handler(SIGUSR2, || ()).unwrap();
    assert!(!event_loop.remove_signal_handler(SIGUSR1).unwrap());
    assert!(event_loop.remove_signal_handler(SIGUSR2).unwrap());
}

fn a_handler_is_dropped_when_it_is_removed_replaced_or_its_loop_is_closed() {
    let event_loop = new_loop();
    let add = || {
        let (guard, dropped) = drop_guard();
        event_loop.add_signal_handler(SIGUSR1, move || _ = &guard).unwrap();
        dropped
    };
    let first = add();
    event_loop.remove_signal_handler(SIGUSR1).unwrap();
    assert!(first.get());
    let second = add();
    let third = add();
    assert!(second.get() && !third.get());
    // Queued, but never run.
    raise(SIGUSR1);
    event_loop.close().unwrap();
    assert!(third.get());
    assert_eq!(disposition(SIGUSR1), SIG_DFL);
}

/// Does something with its loop when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn the_drop_of_a_replaced_handler_may_use_the_loop() {
    let (event_loop, record) = (new_loop(), Record::default());
    let (user, seen) = (event_loop.clone(), record.clone());
    let on_drop = OnDrop(move || {
        seen.push("dropped");
        let seen = seen.clone();
        assert!(user.remove_signal_handler(SIGUSR1).unwrap());
        user.add_signal_handler(SIGUSR2, move || seen.push("added by the drop")).unwrap();
    });
    event_loop.add_signal_handler(SIGUSR1, move || _ = &on_drop).unwrap();
    event_loop.add_signal_handler(SIGUSR1, || ()).unwrap();
    assert_eq!(record.take(), ["dropped"]);
    assert_eq!(disposition(SIGUSR1), SIG_DFL);
    raise(SIGUSR2);
    tick(&event_loop);
    assert_eq!(record.take(), ["added by the drop"]);
}

fn the_drop_of_a_removed_handler_may_use_the_loop() {
    let (event_loop, record) = (new_loop(), Record::default());
    let (user, seen) = (event_loop.clone(), record.clone());
    let on_drop = OnDrop(move || {
        let seen = seen.clone();
        assert!(!user.remove_signal_handler(SIGUSR1).unwrap());
        user.add_signal_handler(SIGUSR1, move || seen.push("added by the drop")).unwrap();
    });
    event_loop.add_signal_handler(SIGUSR1, move || _ = &on_drop).unwrap();
    assert!(event_loop.remove_signal_handler(SIGUSR1).unwrap());
    raise(SIGUSR1);
    tick(&event_loop);
    assert_eq!(record.take(), ["added by the drop"]);
}

static VARIABLE: ContextVar<i32> = ContextVar::with_default("variable", || 0);

fn a_handler_runs_in_the_context_it_was_added_in() {
    let (event_loop, seen) = (new_loop(), Record::default());
    VARIABLE.set(1);
    let record = seen.clone();
    event_loop.add_signal_handler(SIGUSR1, move || record.push(VARIABLE.get().unwrap())).unwrap();
    VARIABLE.set(2);
    raise(SIGUSR1);
    tick(&event_loop);
    assert_eq!(seen.take(), [1]);

    // Added in a task, called after its end.
    let (record, adder) = (seen.clone(), event_loop.clone());
    let added = event_loop.run_until_complete(async move {
        VARIABLE.set(3);
        adder.add_signal_handler(SIGUSR1, move || record.push(VARIABLE.get().unwrap()))
    });
    added.unwrap();
    raise(SIGUSR1);
    tick(&event_loop);
    assert_eq!(seen.take(), [3]);
    assert_eq!(VARIABLE.get().unwrap(), 2);
}

fn what_a_handler_sets_stays_in_its_own_context() {
    let (event_loop, seen) = (new_loop(), Record::default());
    let record = seen.clone();
    let count = move || {
        record.push(VARIABLE.get().unwrap());
        VARIABLE.set(VARIABLE.get().unwrap() + 1);
    };
    event_loop.add_signal_handler(SIGUSR1, count).unwrap();
    for _ in 0..3 {
        raise(SIGUSR1);
        tick(&event_loop);
    }
    assert_eq!(seen.take(), [0, 1, 2], "a handle has one context, as in asyncio");
    assert_eq!(VARIABLE.get().unwrap(), 0);
}

fn a_handler_under_a_given_context_runs_in_that_very_one() {
    let event_loop = new_loop();
    let context = Context::new();
    let handler = || drop(VARIABLE.set(VARIABLE.get().unwrap() + 10));
    event_loop.in_context(&context).add_signal_handler(SIGUSR1, handler).unwrap();
    for expected in [10, 20] {
        raise(SIGUSR1);
        tick(&event_loop);
        assert_eq!(context.get(&VARIABLE), Some(expected));
    }
    assert_eq!(VARIABLE.get().unwrap(), 0);
    // It is one loop: the handler is removed through either handle.
    assert!(event_loop.remove_signal_handler(SIGUSR1).unwrap());
}

/// EXC-008
fn a_handler_or_reader_that_panics_is_reported_and_stays() {
    let (event_loop, calls) = (new_loop(), Record::default());
    let reports = handler(&event_loop);
    let seen = calls.clone();
    let failing = move || {
        seen.push("handler");
        panic!("boom");
    };
    event_loop.add_signal_handler(SIGUSR1, failing).unwrap();
    for _ in 0..2 {
        raise(SIGUSR1);
        tick(&event_loop);
        assert_eq!(calls.take(), ["handler"]);
        let [report] = <[_; 1]>::try_from(reports.take()).unwrap();
        assert!(report.message.starts_with("Exception in callback"), "{}", report.message);
        let error = report.exception.as_ref().unwrap();
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::Panicked, "boom".into()));
        assert_eq!(report.keys(), ["exception", "handle", "message"]);
    }
    assert!(event_loop.remove_signal_handler(SIGUSR1).unwrap());

    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let seen = calls.clone();
    let failing = move || {
        seen.push("reader");
        panic!("boom");
    };
    event_loop.add_reader(&ours, failing).unwrap();
    theirs.write_all(b"x").unwrap();
    for _ in 0..2 {
        tick(&event_loop);
        assert_eq!(calls.take(), ["reader"]);
        let [report] = <[_; 1]>::try_from(reports.take()).unwrap();
        assert!(report.message.starts_with("Exception in callback"), "{}", report.message);
        let error = report.exception.as_ref().unwrap();
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::Panicked, "boom".into()));
    }
    assert!(event_loop.remove_reader(&ours).unwrap());
}

fn a_handler_that_panics_does_not_harm_its_neighbours() {
    let (event_loop, calls) = (new_loop(), Record::default());
    let reports = handler(&event_loop);
    event_loop.add_signal_handler(SIGUSR1, || panic!("boom")).unwrap();
    let seen = calls.clone();
    event_loop.add_signal_handler(SIGUSR2, move || seen.push("other")).unwrap();
    for number in [SIGUSR1, SIGUSR2, SIGUSR1, SIGUSR2] {
        raise(number);
    }
    let seen = calls.clone();
    event_loop.call_soon(move || seen.push("callback"));
    tick(&event_loop);
    assert_eq!(reports.len(), 2);
    let mut calls = calls.take();
    calls.sort_unstable();
    assert_eq!(calls, ["callback", "other", "other"]);
}

fn a_refused_handler_is_dropped() {
    let event_loop = new_loop();
    for number in [0, 9] {
        let held = Rc::new(());
        let captured = held.clone();
        event_loop.add_signal_handler(number, move || drop(captured.clone())).unwrap_err();
        assert_eq!(Rc::strong_count(&held), 1);
    }
}
