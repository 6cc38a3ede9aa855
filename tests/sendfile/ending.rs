//! What these tests show: connections that end while a file is sent.

use std::io::{ErrorKind as IoKind, Read};

use asyncio::{Error, ErrorKind, Result, Task};

use crate::{Case, Open, SIZE, Source, Target, TestLoop, WHOLE, Way, assert_same, cases, collect, pattern, transports};

on_each_selector! {
    a_peer_that_closes_in_the_middle_is_an_error
    a_peer_that_closes_ends_a_transport_that_does_not_read
    a_peer_that_is_gone_already_is_an_error
    abort_ends_a_file_that_is_blocked
    close_ends_a_file_that_is_blocked
    a_peer_that_goes_ends_a_file_that_is_blocked
    a_transport_may_be_closed_before_the_file_begins
    what_waits_before_the_file_may_be_dropped
    a_loop_may_be_closed_meanwhile
    a_system_that_refuses_in_the_middle_is_an_error
}

fn transport(open: &Open) -> &asyncio::Transport {
    let Target::Transport(transport) = &open.target else { unreachable!() };
    transport
}

/// Begins to send a file, which is much larger than what the system takes while the peer does not read.
fn blocked(event_loop: &TestLoop, case: Case) -> (Open, Source, Task<u64>) {
    let (open, source) = (case.open_with(event_loop, Some(4096)), case.source(&pattern(SIZE)));
    let task = event_loop.create_task(open.target.sending(&source, WHOLE));
    open.until_blocked(event_loop);
    assert!(!task.done(), "{case:?}");
    (open, source, task)
}

#[track_caller]
fn assert_broken(result: Result<u64>, case: Case) {
    let error = result.unwrap_err();
    let kinds = [IoKind::BrokenPipe, IoKind::ConnectionReset, IoKind::ConnectionAborted];
    let kind = error.io_error().map(std::io::Error::kind);
    assert!(kind.is_some_and(|kind| kinds.contains(&kind)), "{case:?}: {error:?}");
}

/// The protocol hears of the end, once.
#[track_caller]
fn assert_lost(event_loop: &TestLoop, open: &Open) {
    event_loop.until(|| open.log.lost() > 0);
    event_loop.linger();
    assert_eq!(open.log.lost(), 1, "{:?}", open.case);
    assert!(transport(open).is_closing(), "{:?}", open.case);
}

/// SND-013, and the same of sockets.
fn a_peer_that_closes_in_the_middle_is_an_error(event_loop: &TestLoop) {
    let data = pattern(SIZE);
    for case in cases() {
        let (mut open, source) = (case.open_with(event_loop, Some(4096)), case.source(&data));
        let mut peer = open.peer.try_clone().unwrap();
        open.peer = crate::unix_pair(None).1; // the other thread's is the only one
        let reader = std::thread::spawn(move || {
            let mut begin = [0; 1024];
            peer.read_exact(&mut begin).unwrap();
            begin
        });
        assert_broken(event_loop.run_until_complete(open.target.send(&source, WHOLE)), case);
        assert!((1..SIZE as u64).contains(&source.position()), "{case:?}: {}", source.position());
        assert_eq!(reader.join().unwrap(), data[..1024], "{case:?}");
        if case.over_transport {
            assert_lost(event_loop, &open);
        }
    }
}

/// SND-013, where reading would not show it.
fn a_peer_that_closes_ends_a_transport_that_does_not_read(event_loop: &TestLoop) {
    for case in transports() {
        let (mut open, source) = (case.open_with(event_loop, Some(4096)), case.source(&pattern(SIZE)));
        transport(&open).pause_reading();
        let task = event_loop.create_task(open.target.sending(&source, WHOLE));
        open.until_blocked(event_loop);
        open.peer = crate::unix_pair(None).1;
        assert_broken(event_loop.run_until_complete(task), case);
        assert_lost(event_loop, &open);
        assert_eq!(open.log.0.take(), ["lost(Some)"], "{case:?}");
    }
}

fn a_peer_that_is_gone_already_is_an_error(event_loop: &TestLoop) {
    for case in cases() {
        for fallback in [true, false] {
            let (mut open, source) = (case.open(event_loop), case.source(&pattern(SIZE)));
            // With something unread, so that it is a reset.
            event_loop.run(open.target.write(b"unread"));
            open.peer = crate::unix_pair(None).1;
            source.set_position(5);
            let range = crate::Range { fallback, ..WHOLE };
            let error = event_loop.run_until_complete(open.target.send(&source, range)).unwrap_err();
            if fallback || case.way == Way::System {
                assert_eq!(error.kind(), ErrorKind::Io, "{case:?}: {error}");
            } else {
                assert_eq!(error.kind(), ErrorKind::SendfileNotAvailable, "{case:?}: {error}");
            }
            if case.over_transport {
                assert_lost(event_loop, &open);
            }
        }
    }
}

/// SND-016
fn abort_ends_a_file_that_is_blocked(event_loop: &TestLoop) {
    for case in transports() {
        let (open, source, task) = blocked(event_loop, case);
        transport(&open).abort();
        event_loop.ticks(2);
        if case.way != Way::Reading {
            assert!(task.done(), "{case:?}");
        }
        assert_broken(event_loop.run_until_complete(task), case);
        assert!((1..SIZE as u64).contains(&source.position()), "{case:?}: {}", source.position());
        assert_lost(event_loop, &open);
        assert_eq!(open.log.0.take(), ["lost(None)"], "{case:?}");
    }
}

/// SND-016
fn close_ends_a_file_that_is_blocked(event_loop: &TestLoop) {
    for case in transports() {
        let (open, source, task) = blocked(event_loop, case);
        transport(&open).close();
        event_loop.ticks(2);
        if case.way != Way::Reading {
            assert!(task.done(), "{case:?}");
        }
        assert_broken(event_loop.run_until_complete(task), case);
        assert!((1..SIZE as u64).contains(&source.position()), "{case:?}: {}", source.position());
        // What the transport has taken is sent before it ends.
        let received = collect(open.peer.try_clone().unwrap());
        assert_lost(event_loop, &open);
        assert_eq!(open.log.0.take(), ["lost(None)"], "{case:?}");
        assert_eq!(received.join().unwrap().len() as u64, source.position(), "{case:?}");
    }
}

/// SND-016, and the same of sockets.
fn a_peer_that_goes_ends_a_file_that_is_blocked(event_loop: &TestLoop) {
    for case in cases() {
        let (mut open, source, task) = blocked(event_loop, case);
        open.peer = crate::unix_pair(None).1;
        assert_broken(event_loop.run_until_complete(task), case);
        assert!((1..SIZE as u64).contains(&source.position()), "{case:?}: {}", source.position());
        if case.over_transport {
            assert_lost(event_loop, &open);
        }
    }
}

fn a_transport_may_be_closed_before_the_file_begins(event_loop: &TestLoop) {
    for case in transports() {
        let (open, source) = (case.open(event_loop), case.source(&pattern(SIZE)));
        source.set_position(5);
        let task = event_loop.create_task(open.target.sending(&source, WHOLE));
        transport(&open).close();
        let error = event_loop.run_until_complete(task).unwrap_err();
        assert_eq!((error.kind(), source.position()), (ErrorKind::Runtime, 5), "{case:?}");
        assert_lost(event_loop, &open);
    }
}

fn what_waits_before_the_file_may_be_dropped(event_loop: &TestLoop) {
    for case in transports() {
        for aborts in [true, false] {
            let (open, source) = (case.open_with(event_loop, Some(4096)), case.source(&pattern(SIZE)));
            source.set_position(5);
            transport(&open).write(&pattern(8_000_000));
            let task = event_loop.create_task(open.target.sending(&source, WHOLE));
            event_loop.ticks(3);
            if aborts {
                transport(&open).abort()
            } else {
                transport(&open).close()
            }
            assert_broken(event_loop.run_until_complete(task), case);
            assert_eq!(source.position(), 5, "{case:?}");
            let received = collect(open.peer.try_clone().unwrap());
            assert_lost(event_loop, &open);
            let received = received.join().unwrap().len();
            assert!(received <= 8_000_000 && (aborts || received == 8_000_000), "{case:?}: {received}");
        }
    }
}

fn a_loop_may_be_closed_meanwhile(event_loop: &TestLoop) {
    let opened: Vec<_> = cases().map(|case| blocked(event_loop, case)).collect();
    event_loop.close().unwrap();
    for (open, source, task) in opened {
        assert!(task.done(), "{:?}", open.case);
        assert!(matches!(task.exception(), Err(Error::Cancelled(_)) | Ok(Some(_))), "{:?}", open.case);
        assert!((1..SIZE as u64).contains(&source.position()), "{:?}: {}", open.case, source.position());
    }
    event_loop.reports.take();
}

/// There is no falling back then; CPython has it the same way.
fn a_system_that_refuses_in_the_middle_is_an_error(event_loop: &TestLoop) {
    let data = pattern(SIZE);
    for case in cases().filter(|case| case.way == Way::System) {
        let (open, source, task) = blocked(event_loop, case);
        match &open.target {
            Target::Socket(fd) => crate::refuse_files(&**fd),
            Target::Transport(transport) => transport.with_fd(|fd| crate::refuse_files(&fd)).unwrap(),
        }
        let received = collect(open.peer.try_clone().unwrap());
        let error = event_loop.run_until_complete(task).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{case:?}: {error}");
        let sent = source.position() as usize;
        assert!((1..SIZE).contains(&sent), "{case:?}: {sent}");
        // That says nothing about the connection.
        event_loop.run(open.target.write(b"SUFFIX"));
        open.target.finish();
        event_loop.until(|| received.is_finished());
        assert_same(&received.join().unwrap(), &[&data[..sent], b"SUFFIX"].concat(), case);
    }
}
