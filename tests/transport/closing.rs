//! close and abort: what is sent before, what is heard after.

use std::{cell::RefCell, rc::Rc};

use asyncio::Transport;

use crate::{
    LARGE, TestLoop,
    support::transports::{Told::*, *},
    until_readable,
};

/// Everything that can be called, in no state of use.
fn call_everything(transport: &Transport) {
    for _ in 0..10 {
        transport.write(b"late");
        transport.try_write(b"late").unwrap();
        transport.writelines(["late", "later"]);
        transport.try_writelines(["late", "later"]).unwrap();
    }
    transport.write_eof().unwrap();
    transport.pause_reading();
    transport.resume_reading();
    transport.set_write_buffer_limits(0, 0).unwrap();
    transport.abort();
    transport.close();
    assert!(transport.is_closing() && !transport.is_reading() && !transport.is_write_paused());
    assert_eq!(transport.get_write_buffer_size(), 0);
}

/// TCP-004
fn close_is_heard_of_in_the_next_iteration(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
    transport.close();
    assert!(transport.is_closing() && !transport.is_reading());
    assert_eq!(log.take(), [Made]);
    assert!(transport.with_fd(|_| ()).is_some() && !peer.ended());
    event_loop.ticks(1);
    assert_eq!(log.take(), [Lost(None)]);
    assert!(transport.with_fd(|_| ()).is_none());
    peer.until_readable();
    assert!(peer.ended());
    assert_eq!(peer.drain(), b"");
}

/// TCP-005
fn however_often_it_is_closed_it_is_lost_once(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer: _peer, log, .. } = connect(event_loop, kind.pair());
    transport.close();
    transport.close();
    transport.abort();
    transport.close();
    event_loop.ticks(5);
    assert_eq!(log.take(), [Made, Lost(None)]);
    transport.abort();
    event_loop.ticks(5);
    assert_eq!(log.take(), []);
}

/// TCP-006
fn nothing_is_received_after_close(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
    peer.send(b"ten bytes.");
    until_readable(&transport);
    transport.close();
    event_loop.ticks(5);
    assert_eq!(log.take(), [Made, Lost(None)]);
}

/// TCP-006: nor where the event has been collected already when another callback of the same iteration closes
fn nothing_is_received_after_a_close_in_the_same_iteration(event_loop: &TestLoop, kind: PairKind) {
    let one = connect(event_loop, kind.pair());
    let two = connect(event_loop, kind.pair());
    let ends = [(&one, &two), (&two, &one)].map(|(this, other)| {
        this.peer.send(b"ten bytes.");
        until_readable(&this.transport);
        let other = other.transport.clone();
        let protocol = Recorder::new(&this.log).with_transport(&this.transport).on_data(move |_, _| other.close());
        this.transport.set_protocol(Rc::new(RefCell::new(protocol)));
        this.log.take()
    });
    assert_eq!(ends, [[Made], [Made]]);
    event_loop.ticks(2);
    let mut logs = [one.log.take(), two.log.take()];
    logs.sort_by_key(|log| log.contains(&Data(10)));
    assert_eq!(logs, [vec![Lost(None)], vec![Data(10)]]);
}

/// TCP-007
fn close_in_data_received_is_the_end_of_data(event_loop: &TestLoop, kind: PairKind) {
    let Connected { peer, log, .. } =
        connect_with(event_loop, kind.pair(), |recorder| recorder.on_data(|transport, _| transport.close()));
    let data = pattern(600_000);
    let sent = peer.send_some(&data);
    let sending = std::thread::spawn(move || {
        peer.0.set_nonblocking(false).unwrap();
        // The rest finds nobody who takes it.
        let _ = std::io::Write::write_all(&mut &peer.0, &data[sent..]);
    });
    until(event_loop, || log.lost() && sending.is_finished());
    event_loop.ticks(3);
    let log = log.take();
    assert!(matches!(log[..], [Made, Data(1..), Lost(None)]), "{log:?}");
}

/// TCP-008
fn close_sends_what_waits_first(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
    let data = pattern(LARGE);
    transport.set_write_buffer_limits(usize::MAX, None).unwrap();
    transport.write(&data);
    transport.close();
    assert!(transport.is_closing() && transport.get_write_buffer_size() > 0);
    event_loop.ticks(5);
    transport.write(b"late");
    let mut received = Vec::new();
    while transport.get_write_buffer_size() > 0 {
        assert_eq!(log.items(), [Made]);
        assert!(transport.with_fd(|_| ()).is_some());
        received.extend(peer.recv(100_000).unwrap_or_default());
        event_loop.ticks(1);
    }
    until(event_loop, || {
        received.extend(peer.recv(100_000).unwrap_or_default());
        peer.ended()
    });
    assert!(received == data);
    event_loop.ticks(1);
    assert_eq!(log.take(), [Made, Lost(None)]);
}

/// TCP-008: data that arrives meanwhile is not delivered, and keeps the loop from nothing
fn nothing_is_received_while_close_sends(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
    transport.write(&pattern(LARGE));
    transport.close();
    peer.send(b"unheard");
    until_readable(&transport);
    // Not watched for reading, it does not wake the loop.
    event_loop.sleeps();
    let collecting = peer.collect();
    until(event_loop, || log.lost() && collecting.is_finished());
    assert_eq!(log.take(), [Made, Pause, Resume, Lost(None)]);
}

/// TCP-010
fn after_the_loss_everything_is_silence(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
    transport.close();
    event_loop.ticks(1);
    assert_eq!(log.take(), [Made, Lost(None)]);
    call_everything(&transport);
    event_loop.ticks(3);
    assert_eq!(log.take(), []);
    assert_eq!(peer.drain(), b"");
}

/// TCP-010: the same from close, abort or a reset on, inside of `connection_lost`, and from callbacks of others
fn calls_are_silence_from_the_end_on(event_loop: &TestLoop, kind: PairKind) {
    let endings: [fn(&Transport); 2] = [Transport::close, Transport::abort];
    for end in endings {
        let Connected { transport, peer, log, .. } = connect_with(event_loop, kind.pair(), |recorder| {
            recorder.on_lost(|transport, _| call_everything(transport))
        });
        end(&transport);
        call_everything(&transport);
        let other = connect_with(event_loop, kind.pair(), |recorder| {
            let transport = transport.clone();
            recorder.on_data(move |_, _| call_everything(&transport))
        });
        for _ in 0..2 {
            other.peer.send(b"x");
            let heard = other.log.received_len() + 1;
            until(event_loop, || other.log.received_len() == heard);
        }
        assert_eq!(log.take(), [Made, Lost(None)]);
        assert_eq!(peer.drain(), b"");
        other.transport.close();
        event_loop.ticks(1);
    }
}

/// TCP-011
fn abort_drops_what_waits(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
    let data = pattern(LARGE);
    transport.write(&data);
    assert!(transport.get_write_buffer_size() > 0);
    transport.abort();
    assert_eq!(transport.get_write_buffer_size(), 0);
    assert!(transport.is_closing());
    assert_eq!(log.take(), [Made, Pause]);
    event_loop.ticks(1);
    assert_eq!(log.take(), [Lost(None)]);
    let (received, _) = peer.collect().join().unwrap();
    assert!(received.len() < LARGE && data.starts_with(&received));
}

/// TCP-011: close with much to send can still be aborted
fn abort_cuts_a_close_short(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
    transport.write(&pattern(LARGE));
    transport.close();
    event_loop.ticks(3);
    assert_eq!(log.take(), [Made, Pause]);
    transport.abort();
    assert_eq!(transport.get_write_buffer_size(), 0);
    event_loop.ticks(1);
    assert_eq!(log.take(), [Lost(None)]);
    assert!(peer.collect().join().unwrap().0.len() < LARGE);
}

/// TCP-005: inside of any callback, both end it at once
fn close_and_abort_work_inside_of_every_callback(event_loop: &TestLoop, kind: PairKind) {
    let endings: [fn(&Transport); 2] = [Transport::close, Transport::abort];
    for end in endings {
        // connection_made
        let pair = kind.pair();
        pair.peer.send(b"unheard");
        let Connected { transport, peer: _peer, log, .. } =
            connect_with(event_loop, pair, |recorder| recorder.on_made(end));
        assert!(transport.is_closing());
        event_loop.ticks(2);
        assert_eq!(log.take(), [Made, Lost(None)]);

        // data_received
        let Connected { peer, log, .. } =
            connect_with(event_loop, kind.pair(), |recorder| recorder.on_data(move |transport, _| end(transport)));
        peer.send(b"data");
        until(event_loop, || log.lost());
        assert_eq!(log.take(), [Made, Data(4), Lost(None)]);

        // eof_received, which says that it stays open
        let Connected { peer, log, .. } = connect_with(event_loop, kind.pair(), |recorder| {
            recorder.on_eof(move |transport| {
                end(transport);
                true
            })
        });
        peer.half_close();
        until(event_loop, || log.lost());
        event_loop.ticks(2);
        assert_eq!(log.take(), [Made, Eof, Lost(None)]);

        // connection_lost
        let Connected { transport, peer: _peer, log, .. } =
            connect_with(event_loop, kind.pair(), |recorder| recorder.on_lost(move |transport, _| end(transport)));
        transport.close();
        event_loop.ticks(3);
        assert_eq!(log.take(), [Made, Lost(None)]);
    }

    // pause_writing: abort drops what waits, close does not.
    let Connected { transport, peer, log, .. } =
        connect_with(event_loop, kind.pair(), |recorder| recorder.on_pause(Transport::abort));
    transport.write(&pattern(LARGE));
    assert_eq!(transport.get_write_buffer_size(), 0);
    event_loop.ticks(2);
    assert_eq!(log.take(), [Made, Pause, Lost(None)]);
    assert!(peer.collect().join().unwrap().0.len() < LARGE);

    let data = pattern(LARGE);
    for in_pause in [true, false] {
        let Connected { transport, peer, log, .. } = connect_with(event_loop, kind.pair(), |recorder| {
            if in_pause { recorder.on_pause(Transport::close) } else { recorder.on_resume(Transport::close) }
        });
        transport.write(&data);
        assert_eq!(transport.is_closing(), in_pause);
        let collecting = peer.collect();
        until(event_loop, || collecting.is_finished() && log.lost());
        assert!(collecting.join().unwrap().0 == data);
        assert_eq!(log.take(), [Made, Pause, Resume, Lost(None)]);
    }

    // resume_writing, with something left to drop
    let Connected { transport, peer, log, .. } =
        connect_with(event_loop, kind.pair(), |recorder| recorder.on_resume(Transport::abort));
    transport.set_write_buffer_limits(LARGE, LARGE - 1).unwrap();
    transport.write(&vec![b'x'; 2 * LARGE]);
    // By the same thread: while it sends nobody takes, so that no single call of the system takes all the rest.
    let mut received = 0;
    until(event_loop, || {
        received += peer.recv(1 << 20).unwrap_or_default().len();
        log.lost() && peer.ended()
    });
    assert!(received < 2 * LARGE);
    assert_eq!(log.take(), [Made, Pause, Resume, Lost(None)]);
}

/// TCP-004: the descriptor's number is free once the connection is lost, and the old handle has no part in the new owner
fn a_number_that_is_used_again_is_another_transport(event_loop: &TestLoop, kind: PairKind) {
    let old = connect(event_loop, kind.pair());
    old.transport.close();
    event_loop.ticks(1);
    let Pair { ours, peer } = kind.pair();
    // Other tests take numbers, too.
    let number = old.transport.get_extra_info(asyncio::SOCKET).unwrap();
    let ours = rustix::io::fcntl_dupfd_cloexec(ours, number).unwrap();
    let new = connect(event_loop, Pair { ours, peer });
    call_everything(&old.transport);
    assert_ne!(old.transport, new.transport);
    new.peer.send(b"hello");
    until(event_loop, || new.log.received_len() == 5);
    new.transport.write(b"world");
    assert_eq!(new.peer.read_exactly(5), b"world");
    assert_eq!(new.log.take(), [Made, Data(5)]);
}

on_each! {
    close_is_heard_of_in_the_next_iteration
    however_often_it_is_closed_it_is_lost_once
    nothing_is_received_after_close
    nothing_is_received_after_a_close_in_the_same_iteration
    close_in_data_received_is_the_end_of_data
    close_sends_what_waits_first
    nothing_is_received_while_close_sends
    after_the_loss_everything_is_silence
    calls_are_silence_from_the_end_on
    abort_drops_what_waits
    abort_cuts_a_close_short
    close_and_abort_work_inside_of_every_callback
    a_number_that_is_used_again_is_another_transport
}
