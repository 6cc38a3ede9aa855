//! What these tests show: the other side ends: by half, in order, or not.

use asyncio::{Error, ErrorKind};

use crate::{
    LARGE, TestLoop,
    support::transports::{Told::*, *},
    until_readable,
};

/// What kind of error of the system it is.
#[track_caller]
fn io_kind(error: Option<Error>) -> std::io::ErrorKind {
    std::io::Error::from(error.expect("it failed")).kind()
}

/// TCP-012
fn the_end_of_the_input_closes(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
    peer.half_close();
    until(event_loop, || log.has(&Eof));
    assert!(transport.is_closing() && !transport.is_reading());
    until(event_loop, || log.lost());
    event_loop.ticks(2);
    assert_eq!(log.take(), [Made, Eof, Lost(None)]);
    peer.until_readable();
    assert!(peer.ended());
}

/// TCP-012: what came before it is received first, what waits is sent after it
fn the_end_comes_after_the_data(event_loop: &TestLoop, kind: PairKind) {
    let data = pattern(LARGE);
    let Connected { peer, log, .. } = connect_with(event_loop, kind.pair(), |recorder| {
        let data = data.clone();
        recorder.on_eof(move |transport| {
            transport.write(&data);
            false
        })
    });
    peer.send(b"first");
    peer.half_close();
    until(event_loop, || log.has(&Pause));
    let collecting = peer.collect();
    until(event_loop, || collecting.is_finished() && log.lost());
    assert!(collecting.join().unwrap().0 == data);
    let told = log.items();
    assert_eq!(told[..3], [Made, Data(5), Eof]);
    assert_eq!(told[told.len() - 2..], [Resume, Lost(None)]);
}

/// TCP-014
fn the_end_of_the_input_can_keep_it_open(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect_with(event_loop, kind.pair(), Recorder::keep_open);
    peer.half_close();
    until(event_loop, || log.has(&Eof));
    event_loop.ticks(3);
    assert!(!transport.is_closing());
    transport.write(b"after");
    assert_eq!(peer.read_exactly(5), b"after");
    event_loop.ticks(3);
    assert_eq!(log.take(), [Made, Eof]);
    assert!(!peer.ended());
    transport.close();
    event_loop.ticks(1);
    assert_eq!(log.take(), [Lost(None)]);
    peer.until_readable();
    assert!(peer.ended());
}

/// TCP-014: open by half it does not keep the loop busy, whether something waits to be sent or not
fn open_by_half_it_lets_the_loop_sleep(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect_with(event_loop, kind.pair(), Recorder::keep_open);
    peer.half_close();
    until(event_loop, || log.has(&Eof));
    for written in [false, true] {
        if written {
            transport.write(&pattern(LARGE));
            event_loop.ticks(3);
        }
        event_loop.sleeps();
    }
    transport.abort();
    event_loop.ticks(1);
    assert_eq!(log.take(), [Made, Eof, Pause, Lost(None)]);
}

/// TCP-015
fn write_eof_comes_after_what_waits(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
    let data = pattern(LARGE);
    transport.set_write_buffer_limits(usize::MAX, None).unwrap();
    transport.write(&data);
    transport.write_eof().unwrap();
    event_loop.ticks(2);
    let collecting = peer.collect();
    until(event_loop, || collecting.is_finished());
    let (received, peer) = collecting.join().unwrap();
    assert!(received == data);
    assert!(!transport.is_closing() && transport.is_reading());
    peer.send(b"still");
    until(event_loop, || log.received_len() == 5);
    assert_eq!((log.take(), log.received()), (vec![Made, Data(5)], b"still".to_vec()));
    peer.half_close();
    until(event_loop, || log.lost());
    assert_eq!(log.take(), [Eof, Lost(None)]);
}

/// TCP-015: it ends the output of an idle one at once
fn write_eof_is_sent_at_once(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
    transport.write(b"all");
    transport.write_eof().unwrap();
    assert_eq!(peer.read_exactly(3), b"all");
    peer.until_readable();
    assert!(peer.ended());
    transport.close();
    event_loop.ticks(1);
    assert_eq!(log.take(), [Made, Lost(None)]);
}

/// TCP-015: close after it waits for what waits; abort does not
fn write_eof_then_close_sends_everything(event_loop: &TestLoop, kind: PairKind) {
    let data = pattern(LARGE);
    let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
    transport.write(&data);
    transport.write_eof().unwrap();
    transport.close();
    let collecting = peer.collect();
    until(event_loop, || collecting.is_finished() && log.lost());
    assert!(collecting.join().unwrap().0 == data);
    assert_eq!(log.take(), [Made, Pause, Resume, Lost(None)]);

    let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
    transport.write(&data);
    transport.write_eof().unwrap();
    transport.abort();
    event_loop.ticks(1);
    assert_eq!(log.take(), [Made, Pause, Lost(None)]);
    assert!(peer.collect().join().unwrap().0.len() < LARGE);
}

/// TCP-015 and TCP-014 together: both directions end, one after the other, either way
fn both_ends_half_close(event_loop: &TestLoop, kind: PairKind) {
    for ours_first in [true, false] {
        let Connected { transport, peer, log, .. } = connect_with(event_loop, kind.pair(), Recorder::keep_open);
        if ours_first {
            transport.write_eof().unwrap();
            peer.until_readable();
            assert!(peer.ended());
        }
        peer.half_close();
        until(event_loop, || log.has(&Eof));
        event_loop.ticks(3);
        if !ours_first {
            transport.write(b"last");
            transport.write_eof().unwrap();
            assert_eq!(peer.read_exactly(4), b"last");
            peer.until_readable();
            assert!(peer.ended());
        }
        event_loop.ticks(3);
        // Who keeps it open closes it.
        assert_eq!(log.take(), [Made, Eof]);
        assert!(!transport.is_closing());
        transport.close();
        event_loop.ticks(1);
        assert_eq!(log.take(), [Lost(None)]);
    }
}

/// TCP-016
fn write_eof_may_come_again(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
    assert!(transport.can_write_eof());
    transport.write_eof().unwrap();
    transport.write_eof().unwrap();
    peer.until_readable();
    assert!(peer.ended());
    assert!(!transport.is_closing());
    transport.close();
    transport.write_eof().unwrap();
    event_loop.ticks(1);
    transport.write_eof().unwrap();
    assert!(transport.can_write_eof());
    assert_eq!(log.take(), [Made, Lost(None)]);

    let Connected { transport, peer: _peer, .. } = connect(event_loop, kind.pair());
    transport.close();
    transport.write_eof().unwrap();
    event_loop.ticks(1);
}

/// TCP-018
fn a_reset_is_no_end_but_a_loss(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect_with(event_loop, kind.pair(), Recorder::keep_open);
    transport.write(b"unread");
    peer.until_readable();
    peer.reset();
    until(event_loop, || log.lost());
    event_loop.ticks(2);
    assert_eq!(log.take(), [Made, Lost(Some(ErrorKind::Io))]);
    assert_eq!(io_kind(log.error()), std::io::ErrorKind::ConnectionReset);
    assert!(transport.is_closing());
    assert_eq!(event_loop.reports.len(), 0);
}

/// TCP-018: a reading that is paused does not hear of it until it goes on or writes
fn a_reset_while_paused_is_found_later(event_loop: &TestLoop, kind: PairKind) {
    for writes in [true, false] {
        let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
        transport.write(b"unread");
        peer.until_readable();
        transport.pause_reading();
        peer.reset();
        until_readable(&transport);
        event_loop.ticks(5);
        assert_eq!(log.take(), [Made]);
        if writes {
            transport.write(b"to nobody");
            // Where the system has told of the reset once, a second write is told that there is nobody.
            transport.write(b"to nobody");
        } else {
            transport.resume_reading();
        }
        until(event_loop, || log.lost());
        assert_eq!(log.take(), [Lost(Some(ErrorKind::Io))]);
        let error = io_kind(log.error());
        assert!(matches!(error, std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe), "{error:?}");
    }
}

/// TCP-018: the other side goes while much waits to be sent to it
fn a_peer_that_vanishes_ends_what_waits(event_loop: &TestLoop, kind: PairKind) {
    for (paused, resets) in [(false, true), (false, false), (true, true), (true, false)] {
        let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
        transport.write(&pattern(LARGE));
        event_loop.ticks(2);
        if paused {
            transport.pause_reading();
        }
        assert_eq!(log.take(), [Made, Pause]);
        peer.until_readable();
        if resets {
            peer.reset();
        } else {
            drop(peer);
        }
        until(event_loop, || log.lost());
        let told = log.take();
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told, [Lost(Some(ErrorKind::Io))], "paused: {paused}, resets: {resets}");
        let error = io_kind(log.error());
        assert!(matches!(error, std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe), "{error:?}");
        assert_eq!((transport.get_write_buffer_size(), transport.is_closing()), (0, true));
    }
}

/// TCP-018: a close that still sends ends with the error, once
fn a_peer_that_vanishes_ends_a_close(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
    transport.write(&pattern(LARGE));
    transport.close();
    event_loop.ticks(2);
    assert_eq!(log.take(), [Made, Pause]);
    peer.reset();
    until(event_loop, || log.lost());
    event_loop.ticks(2);
    assert_eq!(log.take(), [Lost(Some(ErrorKind::Io))]);
    assert_eq!(transport.get_write_buffer_size(), 0);
}

/// TCP-018: writing to a peer that has closed is no report but a loss
fn writing_to_nobody_is_a_loss(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect_with(event_loop, kind.pair(), Recorder::keep_open);
    drop(peer);
    until(event_loop, || log.has(&Eof));
    event_loop.ticks(2);
    until(event_loop, || {
        transport.write(b"to nobody");
        log.lost()
    });
    assert_eq!(log.take(), [Made, Eof, Lost(Some(ErrorKind::Io))]);
}

on_each! {
    the_end_of_the_input_closes
    the_end_comes_after_the_data
    the_end_of_the_input_can_keep_it_open
    open_by_half_it_lets_the_loop_sleep
    write_eof_comes_after_what_waits
    write_eof_is_sent_at_once
    write_eof_then_close_sends_everything
    both_ends_half_close
    write_eof_may_come_again
    a_reset_is_no_end_but_a_loss
    a_reset_while_paused_is_found_later
    a_peer_that_vanishes_ends_what_waits
    a_peer_that_vanishes_ends_a_close
    writing_to_nobody_is_a_loss
}
