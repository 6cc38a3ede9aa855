//! What these tests show: water marks: when a protocol is told to pause writing, and when to go on.

use std::{cell::RefCell, rc::Rc};

use asyncio::{Address, DatagramProtocol, ErrorKind, Transport};

use crate::{
    LARGE, TestLoop,
    support::{
        failure,
        transports::{Told::*, *},
    },
};

/// Fills the system's buffers; gives how many bytes wait in the transport.
fn fill(transport: &Transport) -> usize {
    transport.set_write_buffer_limits(usize::MAX, None).unwrap();
    transport.write(&pattern(LARGE));
    transport.get_write_buffer_size()
}

/// FLW-001
fn limits_are_64_and_16_kib(event_loop: &TestLoop, kind: PairKind) {
    struct Deaf;
    impl DatagramProtocol for Deaf {
        fn datagram_received(&mut self, _data: &[u8], _address: &Address) {}
    }
    let log = Log::default();
    let Connected { transport, peer: _peer, .. } = connect(event_loop, kind.pair());
    let ((reading, writing, datagrams), _ends) = event_loop
        .run_until_complete(async {
            let pipe = || rustix::pipe::pipe().map_err(std::io::Error::from);
            let ((read, write), (other_read, other_write)) = (pipe()?, pipe()?);
            let (reading, _) = event_loop.connect_read_pipe(|| Recorder::new(&log), read).await?;
            let (writing, _) = event_loop.connect_write_pipe(|| Recorder::new(&log), other_write).await?;
            let opening = event_loop.create_datagram_endpoint(|| Deaf).local_addr(("127.0.0.1", 0));
            Ok(((reading, writing, opening.await?.0), (write, other_read)))
        })
        .unwrap();
    for transport in [transport, reading, writing] {
        assert_eq!(transport.get_write_buffer_limits(), (16384, 65536), "{transport:?}");
    }
    assert_eq!(datagrams.get_write_buffer_limits(), (16384, 65536));
}

/// FLW-002
fn one_limit_makes_the_other(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer: _peer, .. } = connect(event_loop, kind.pair());
    let cases = [
        ((Some(100_000), None), (25_000, 100_000)),
        ((None, Some(1000)), (1000, 4000)),
        ((Some(0), None), (0, 0)),
        ((Some(1), None), (0, 1)),
        ((None, Some(0)), (0, 0)),
        ((Some(7), None), (1, 7)),
        ((Some(9), Some(9)), (9, 9)),
        ((Some(9), Some(0)), (0, 9)),
        ((None, None), (16384, 65536)),
    ];
    for ((high, low), limits) in cases {
        transport.set_write_buffer_limits(high, low).unwrap();
        assert_eq!(transport.get_write_buffer_limits(), limits, "high {high:?}, low {low:?}");
    }
    transport.set_write_buffer_limits(5, None).unwrap();
    transport.set_write_buffer_limits(None, None).unwrap();
    assert_eq!(transport.get_write_buffer_limits(), (16384, 65536));
}

/// FLW-003
fn low_above_high_is_refused(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer: _peer, .. } = connect(event_loop, kind.pair());
    for (high, low) in [(0, 1), (10, 11)] {
        let (error, text) = failure(transport.set_write_buffer_limits(high, low));
        assert_eq!(error, ErrorKind::Value);
        assert!(text.contains("high") && text.contains("low"), "{text}");
        assert_eq!(transport.get_write_buffer_limits(), (16384, 65536));
    }
}

/// FLW-004
fn one_byte_above_high_pauses_once(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer: _peer, log, .. } = connect(event_loop, kind.pair());
    let size = fill(&transport);
    transport.set_write_buffer_limits(size, None).unwrap();
    assert_eq!((log.take(), transport.is_write_paused()), (vec![Made], false));
    transport.write(b"1");
    assert_eq!((log.take(), transport.is_write_paused()), (vec![Pause], true));
    transport.write(b"2");
    transport.writelines(["3"]);
    assert_eq!(log.take(), []);
    assert_eq!(transport.get_write_buffer_size(), size + 3);
}

/// FLW-004: with limits of zero the first byte that waits pauses, and the last that goes resumes
fn limits_of_zero_hold_nothing(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
    transport.set_write_buffer_limits(0, None).unwrap();
    transport.write(b"taken at once");
    assert_eq!(log.take(), [Made]);
    transport.write(&pattern(LARGE));
    assert_eq!(log.take(), [Pause]);
    until(event_loop, || {
        peer.recv(1 << 20);
        assert_eq!(log.has(&Resume), transport.get_write_buffer_size() == 0);
        log.has(&Resume)
    });
    assert_eq!(log.take(), [Resume]);
}

/// FLW-005
fn pause_comes_before_write_returns(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer: _peer, log, .. } = connect(event_loop, kind.pair());
    transport.write(&pattern(LARGE));
    log.note("returned");
    assert_eq!(log.take(), [Made, Pause, Note("returned")]);
    assert!(transport.is_write_paused());
}

/// FLW-005: and before `set_write_buffer_limits` returns that makes what waits too much
fn lower_limits_pause(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
    let size = fill(&transport);
    transport.set_write_buffer_limits(size - 1, None).unwrap();
    assert_eq!(log.take(), [Made, Pause]);
    // Higher ones resume when the buffer shrinks next, not now.
    transport.set_write_buffer_limits(4 * size, size).unwrap();
    assert_eq!((log.take(), transport.is_write_paused()), (vec![], true));
    until(event_loop, || {
        peer.recv(1 << 20);
        log.has(&Resume)
    });
    assert!(transport.get_write_buffer_size() < size && !transport.is_write_paused());
}

/// FLW-006
fn resume_comes_at_the_low_mark(event_loop: &TestLoop, kind: PairKind) {
    let sizes = Rc::new(RefCell::new(Vec::new()));
    let seen = sizes.clone();
    let Connected { transport, peer, log, .. } = connect_with(event_loop, kind.pair(), |recorder| {
        recorder.on_resume(move |transport| {
            assert!(!transport.is_write_paused());
            seen.borrow_mut().push(transport.get_write_buffer_size());
        })
    });
    transport.set_write_buffer_limits(65536, 10).unwrap();
    transport.write(&pattern(LARGE));
    assert_eq!(log.take(), [Made, Pause]);
    let mut received = 0;
    until(event_loop, || {
        if transport.get_write_buffer_size() > 10 {
            assert!(!log.has(&Resume) && transport.is_write_paused());
        }
        received += peer.recv(50_000).unwrap_or_default().len();
        received == LARGE
    });
    event_loop.ticks(3);
    assert_eq!(log.take(), [Resume]);
    assert!(matches!(sizes.borrow()[..], [0..=10]), "{sizes:?}");
}

/// FLW-006: each crossing is told, in turns
fn pauses_and_resumes_take_turns(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
    assert_eq!(log.take(), [Made]);
    let data = pattern(LARGE);
    for _ in 0..3 {
        transport.write(&data);
        let mut received = 0;
        until(event_loop, || {
            received += peer.drain().len();
            received == LARGE
        });
        event_loop.ticks(2);
        assert_eq!((log.take(), transport.is_write_paused()), (vec![Pause, Resume], false));
    }
}

/// FLW-006: writing in `resume_writing` above the mark pauses again, right after it
fn writing_in_resume_pauses_again(event_loop: &TestLoop, kind: PairKind) {
    let data = Rc::new(pattern(LARGE));
    let again = data.clone();
    let mut left = 3;
    let Connected { transport, peer, log, .. } = connect_with(event_loop, kind.pair(), |recorder| {
        recorder.on_resume(move |transport| {
            left -= 1;
            if left > 0 {
                transport.write(&again);
                assert!(transport.is_write_paused());
            } else {
                transport.close();
            }
        })
    });
    transport.write(&data);
    // By the same thread: it takes nothing while it writes.
    let mut received = Vec::new();
    until(event_loop, || {
        received.extend(peer.drain());
        log.lost() && peer.ended()
    });
    assert!(received == data.repeat(3));
    assert_eq!(log.take(), [Made, Pause, Resume, Pause, Resume, Pause, Resume, Lost(None)]);
}

/// FLW-010
fn abort_does_not_resume(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer: _peer, log, .. } = connect(event_loop, kind.pair());
    transport.write(&pattern(LARGE));
    transport.abort();
    event_loop.ticks(3);
    assert_eq!(log.take(), [Made, Pause, Lost(None)]);
}

/// FLW-011
fn close_resumes_before_the_loss(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
    transport.write(&pattern(LARGE));
    transport.close();
    let collecting = peer.collect();
    until(event_loop, || log.lost() && collecting.is_finished());
    assert_eq!(collecting.join().unwrap().0.len(), LARGE);
    assert_eq!(log.take(), [Made, Pause, Resume, Lost(None)]);
}

/// FLW-012
fn a_panic_of_either_changes_nothing(event_loop: &TestLoop, kind: PairKind) {
    for name in ["pause_writing", "resume_writing"] {
        let Connected { transport, peer, log, .. } = connect_with(event_loop, kind.pair(), |recorder| match name {
            "pause_writing" => recorder.on_pause(|_| panic!("boom")),
            _ => recorder.on_resume(|_| panic!("boom")),
        });
        let data = pattern(LARGE);
        transport.write(&data);
        let mut received = Vec::new();
        until(event_loop, || {
            received.extend(peer.drain());
            received.len() == LARGE
        });
        assert!(received == data && !transport.is_closing());
        event_loop.ticks(3);
        assert_eq!(log.take(), [Made, Pause, Resume]);
        let report = event_loop.report();
        assert!(report.message.contains(name), "{}", report.message);
        let error = report.exception.unwrap();
        assert_eq!((error.kind(), error.to_string().contains("boom")), (ErrorKind::Panicked, true));
        assert!(report.extra.contains_key("transport") && report.extra["protocol"].contains("Recorder"));
        // It goes on as before.
        transport.write(b"more");
        assert_eq!(peer.read_exactly(4), b"more");
        transport.close();
        event_loop.ticks(1);
        assert_eq!(log.take(), [Lost(None)]);
    }
}

/// FLW-005: in the callback that crosses the mark `is_write_paused` says so at once
fn who_writes_can_see_the_pause_at_once(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect_with(event_loop, kind.pair(), |recorder| {
        recorder.on_data(|transport, _| {
            let mut written = 0;
            while !transport.is_write_paused() {
                transport.write(&[b'x'; 10_000]);
                written += 10_000;
                assert!(written <= 2 * LARGE);
            }
            assert!((65_537..=75_536).contains(&transport.get_write_buffer_size()));
        })
    });
    peer.send(b"go");
    until(event_loop, || log.has(&Pause));
    assert_eq!(log.take(), [Made, Data(2), Pause]);
    assert!(transport.is_write_paused());
}

on_each! {
    limits_are_64_and_16_kib
    one_limit_makes_the_other
    low_above_high_is_refused
    one_byte_above_high_pauses_once
    limits_of_zero_hold_nothing
    pause_comes_before_write_returns
    lower_limits_pause
    resume_comes_at_the_low_mark
    pauses_and_resumes_take_turns
    writing_in_resume_pauses_again
    abort_does_not_resume
    close_resumes_before_the_loss
    a_panic_of_either_changes_nothing
    who_writes_can_see_the_pause_at_once
}
