//! A forked child has its parent's handlers by inheritance, and must not act for them.

use std::{
    io::Write,
    os::{fd::AsRawFd, unix::net::UnixStream},
    time::Duration,
};

use asyncio::{ErrorKind, EventLoop, selector::PollingSelector};

use crate::{
    main_thread::tests,
    signals::{Ended, SIG_DFL, SIGUSR1, disposition, fork, is_readable, raise},
    support::{Record, new_loop, tick},
};

tests![
    a_signal_to_a_child_neither_wakes_nor_calls_the_parent,
    a_child_may_have_a_loop_and_handlers_of_its_own,
    a_child_that_closes_its_copy_leaves_the_parent_its_handlers,
    a_child_that_is_forked_inside_a_callback_does_not_run_the_loop,
];

fn a_signal_to_a_child_neither_wakes_nor_calls_the_parent() {
    let polling = || EventLoop::builder().selector(PollingSelector::new().unwrap()).build().unwrap();
    for event_loop in [new_loop(), polling()] {
        let record = Record::default();
        let seen = record.clone();
        event_loop.add_signal_handler(SIGUSR1, move || seen.push("parent")).unwrap();
        // From here on whoever wakes the loop makes its descriptor readable.
        assert_eq!(event_loop.run_once(Duration::ZERO).unwrap(), 0);
        let ended = fork(|| {
            raise(SIGUSR1);
            assert_eq!(event_loop.run_once(Duration::ZERO).unwrap_err().kind(), ErrorKind::Runtime);
            assert_eq!(record.len(), 0);
        });
        assert_eq!(ended, Ended::Exited(0));
        assert!(!event_loop.as_fd().is_some_and(is_readable));
        assert_eq!(event_loop.run_once(Duration::ZERO).unwrap(), 0);
        assert_eq!(record.len(), 0);
        // The parent's own still come.
        raise(SIGUSR1);
        assert!(event_loop.as_fd().is_some_and(is_readable));
        tick(&event_loop);
        assert_eq!(record.take(), ["parent"]);
        event_loop.close().unwrap();
    }
}

fn a_child_may_have_a_loop_and_handlers_of_its_own() {
    let (event_loop, record) = (new_loop(), Record::default());
    let seen = record.clone();
    event_loop.add_signal_handler(SIGUSR1, move || seen.push("parent")).unwrap();
    let ended = fork(|| {
        let own = new_loop();
        let (seen, stopper) = (record.clone(), own.clone());
        own.add_signal_handler(SIGUSR1, move || {
            seen.push("child");
            stopper.stop();
        })
        .unwrap();
        raise(SIGUSR1);
        own.run_forever().unwrap();
        assert_eq!(record.take(), ["child"]);
        own.close().unwrap();
    });
    assert_eq!(ended, Ended::Exited(0));
    tick(&event_loop);
    assert_eq!(record.len(), 0);
    raise(SIGUSR1);
    tick(&event_loop);
    assert_eq!(record.take(), ["parent"]);
}

fn a_child_that_closes_its_copy_leaves_the_parent_its_handlers() {
    let (event_loop, record) = (new_loop(), Record::default());
    let seen = record.clone();
    event_loop.add_signal_handler(SIGUSR1, move || seen.push("signal")).unwrap();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let (seen, remover) = (record.clone(), event_loop.clone());
    let watched = ours.as_raw_fd();
    event_loop
        .add_reader(&ours, move || {
            seen.push("reader");
            assert!(remover.remove_reader(&watched).unwrap());
        })
        .unwrap();
    let ended = fork(|| {
        event_loop.close().unwrap();
        assert_eq!(disposition(SIGUSR1), SIG_DFL);
    });
    assert_eq!(ended, Ended::Exited(0));
    raise(SIGUSR1);
    tick(&event_loop);
    assert_eq!(record.take(), ["signal"]);
    theirs.write_all(b"x").unwrap();
    tick(&event_loop);
    assert_eq!(record.take(), ["reader"], "the selector's registrations are the parent's");
}

fn a_child_that_is_forked_inside_a_callback_does_not_run_the_loop() {
    let (event_loop, record) = (new_loop(), Record::default());
    let seen = record.clone();
    event_loop.add_signal_handler(SIGUSR1, move || seen.push("parent")).unwrap();
    let seen = record.clone();
    event_loop.call_soon(move || {
        let ended = fork(|| {
            assert_eq!(asyncio::get_running_loop().unwrap_err().kind(), ErrorKind::Runtime);
            raise(SIGUSR1);
            // A program of its own, on the way to its end.
            assert_eq!(asyncio::run(async { Ok(5) }).unwrap(), 5);
        });
        assert_eq!(ended, Ended::Exited(0));
        seen.push("forked");
    });
    tick(&event_loop);
    tick(&event_loop);
    assert_eq!(record.take(), ["forked"]);
}
