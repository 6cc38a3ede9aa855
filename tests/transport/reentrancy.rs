//! One callback of a protocol at a time, in order, whoever calls the transport and from where.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use asyncio::{ErrorKind, Transport};

use crate::{
    LARGE, TestLoop,
    support::{
        count_iterations,
        transports::{Told::*, *},
    },
    until_readable,
};

/// FLW-005: from inside a callback, the pause comes right after it
fn pause_comes_after_the_callback_that_writes(event_loop: &TestLoop, kind: PairKind) {
    let data = Rc::new(pattern(LARGE));
    let (log, written) = (Log::default(), data.clone());
    let note = log.clone();
    let protocol = Recorder::new(&log).on_data(move |transport, _| {
        transport.write(&written);
        assert!(transport.is_write_paused());
        transport.write(b"more");
        note.note("returns");
    });
    let Pair { ours, peer } = kind.pair();
    let opening = event_loop.create_connection(|| protocol, ()).sock(ours);
    let (transport, _protocol) = event_loop.run_until_complete(opening).unwrap();
    peer.send(b"go");
    until_readable(&transport);
    event_loop.ticks(1);
    assert_eq!(log.take(), [Made, Data(2), Note("returns"), Pause]);
    transport.close();
    let collecting = peer.collect();
    until(event_loop, || log.lost() && collecting.is_finished());
    assert!(collecting.join().unwrap().0 == [&data[..], b"more"].concat());
    assert_eq!(log.take(), [Resume, Lost(None)]);
}

/// FLW-005: the same in every callback: the pause is the next thing that the protocol hears
fn the_pause_is_the_next_call_after_any_callback(event_loop: &TestLoop, kind: PairKind) {
    let data = Rc::new(pattern(LARGE));
    let write = || {
        let data = data.clone();
        move |transport: &Transport| transport.write(&data)
    };

    // connection_made, before the opener returns
    let made = write();
    let Connected { transport, peer: _peer, log, .. } =
        connect_with(event_loop, kind.pair(), |recorder| recorder.on_made(made));
    log.note("opened");
    assert_eq!(log.take(), [Made, Pause, Note("opened")]);
    transport.abort();

    // eof_received
    let eof = write();
    let Connected { transport, peer, log, .. } = connect_with(event_loop, kind.pair(), |recorder| {
        recorder.on_eof(move |transport| {
            eof(transport);
            true
        })
    });
    peer.half_close();
    until(event_loop, || log.has(&Eof));
    assert_eq!(log.take(), [Made, Eof, Pause]);
    transport.abort();

    // buffer_updated and get_buffer
    for in_get in [true, false] {
        let call = write();
        let Connected { transport, peer, log, .. } = connect_with(event_loop, kind.pair(), |recorder| {
            if in_get {
                BufferedRecorder::new(recorder, 10).on_get(call)
            } else {
                BufferedRecorder::new(recorder.on_data(move |transport, _| call(transport)), 10)
            }
        });
        peer.send(b"go");
        until(event_loop, || log.received_len() > 0);
        // What is received into a buffer belongs to the call that gave it.
        assert_eq!(log.take(), [Made, Get(None), Updated(2), Pause]);
        transport.abort();
    }
    event_loop.ticks(1);
}

/// FLW-010: what is written and then dropped in one callback: pause, lost
fn pause_and_loss_keep_their_order(event_loop: &TestLoop, kind: PairKind) {
    let data = Rc::new(pattern(LARGE));
    let written = data.clone();
    let Connected { peer, log, .. } = connect_with(event_loop, kind.pair(), |recorder| {
        recorder.on_data(move |transport, _| {
            transport.write(&written);
            transport.abort();
        })
    });
    peer.send(b"go");
    until(event_loop, || log.lost());
    assert_eq!(log.take(), [Made, Data(2), Pause, Lost(None)]);

    let Connected { peer, log, .. } = connect_with(event_loop, kind.pair(), |recorder| {
        recorder.on_data(move |transport, _| {
            transport.write(&data);
            transport.close();
        })
    });
    peer.send(b"go");
    until(event_loop, || log.has(&Pause));
    let collecting = peer.collect();
    until(event_loop, || log.lost() && collecting.is_finished());
    assert_eq!(collecting.join().unwrap().0.len(), LARGE);
    assert_eq!(log.take(), [Made, Data(2), Pause, Resume, Lost(None)]);
}

/// TCP-025: what is written before a panic is dropped, and the pause for it is still heard in its place
fn a_panic_after_a_write(event_loop: &TestLoop, kind: PairKind) {
    let Connected { peer, log, .. } = connect_with(event_loop, kind.pair(), |recorder| {
        recorder.on_data(|transport, _| {
            transport.write(&pattern(LARGE));
            panic!("boom");
        })
    });
    peer.send(b"go");
    until(event_loop, || log.lost());
    assert_eq!(log.take(), [Made, Data(2), Pause, Lost(Some(ErrorKind::Panicked))]);
    assert!(event_loop.report().message.contains("data_received"));
}

/// FLW-005: a call of one protocol may call another one, which is told at once
fn another_protocol_is_told_at_once(event_loop: &TestLoop, kind: PairKind) {
    let receiver = connect(event_loop, kind.pair());
    let (sending, note) = (receiver.transport.clone(), receiver.log.clone());
    let sender = connect_with(event_loop, kind.pair(), |recorder| {
        recorder.on_data(move |_, _| {
            sending.write(&pattern(LARGE));
            note.note("written");
        })
    });
    sender.peer.send(b"go");
    until(event_loop, || receiver.log.has(&Note("written")));
    assert_eq!(receiver.log.take(), [Made, Pause, Note("written")]);
    assert_eq!(sender.log.take(), [Made, Data(2)]);
}

/// FLW-005: two that write to each other in their callbacks never find the other one borrowed
fn two_protocols_that_call_each_other(event_loop: &TestLoop, kind: PairKind) {
    type Other = Rc<RefCell<Option<Transport>>>;
    let others: [Other; 2] = Default::default();
    let connections = others.clone().map(|other| {
        let forward = move |data: &[u8]| {
            let other = other.borrow().clone().unwrap();
            other.write(data);
        };
        let (paused, data) = (forward.clone(), forward);
        connect_with(event_loop, kind.pair(), move |recorder| {
            recorder.on_data(move |_, received| data(received)).on_pause(move |_| paused(b"paused"))
        })
    });
    let [one, two] = &connections;
    *others[0].borrow_mut() = Some(two.transport.clone());
    *others[1].borrow_mut() = Some(one.transport.clone());
    two.transport.set_write_buffer_limits(0, None).unwrap();
    one.transport.set_write_buffer_limits(0, None).unwrap();
    // One's data goes to two; when two pauses it writes to one, in the middle of one's callback.
    let data = pattern(LARGE);
    let (mut sent, mut received) = (0, Vec::new());
    until(event_loop, || {
        sent += one.peer.send_some(&data[sent..]);
        two.log.has(&Pause)
    });
    until(event_loop, || {
        sent += one.peer.send_some(&data[sent..]);
        received.extend(two.peer.drain());
        received.len() == LARGE
    });
    assert!(received == data);
    assert!(one.peer.read_exactly(6) == b"paused");
    *others[0].borrow_mut() = None;
    *others[1].borrow_mut() = None;
}

/// BUF-004: one protocol for two transports: what it cannot be told at once comes before anything else of that transport
fn two_transports_share_a_protocol(event_loop: &TestLoop, kind: PairKind) {
    let other: Rc<RefCell<Option<Transport>>> = Rc::default();
    let forward = other.clone();
    let one = connect_with(event_loop, kind.pair(), |recorder| {
        recorder.on_data(move |_, data| {
            if data == b"go" {
                let other = forward.borrow().clone().unwrap();
                other.write(&pattern(LARGE));
                assert!(other.is_write_paused());
            }
        })
    });
    let two = connect(event_loop, kind.pair());
    *other.borrow_mut() = Some(two.transport.clone());
    two.transport.set_protocol(one.protocol.clone());
    two.peer.send(b"from two");
    until(event_loop, || one.log.received_len() == 8);
    assert_eq!(one.log.take(), [Made, Data(8)]);
    one.peer.send(b"go");
    until_readable(&one.transport);
    event_loop.ticks(1);
    // Its turn comes when the protocol is free, in the next iteration.
    two.peer.send(b"again");
    until(event_loop, || one.log.received_len() == 15);
    assert_eq!(one.log.take(), [Data(2), Pause, Data(5)]);
    one.transport.close();
    two.transport.abort();
    event_loop.ticks(1);
    assert_eq!(one.log.take(), [Lost(None), Lost(None)]);
    assert_eq!(Rc::strong_count(&one.protocol), 1);
    *other.borrow_mut() = None;
}

/// FLW-005: user code that holds the protocol hears of it later, in order, and nothing spins meanwhile
fn a_borrowed_protocol_is_told_later_in_order(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, protocol, peer, log } = connect(event_loop, kind.pair());
    let borrowed = protocol.borrow_mut();
    transport.write(&pattern(LARGE));
    assert!(transport.is_write_paused());
    let mut received = 0;
    until(event_loop, || {
        received += peer.drain().len();
        received == LARGE && !transport.is_write_paused()
    });
    transport.write(&pattern(LARGE));
    transport.close();
    until(event_loop, || {
        received += peer.drain().len();
        received == 2 * LARGE
    });
    // Now it can only wait.
    event_loop.sleeps();
    assert_eq!(log.take(), [Made]);
    drop(borrowed);
    until(event_loop, || log.lost());
    assert_eq!(log.take(), [Pause, Resume, Pause, Resume, Lost(None)]);
    assert_eq!(Rc::strong_count(&protocol), 1);
}

/// FLW-005: held for a statement, it is told in the next iteration
fn a_short_borrow_delays_by_one_iteration(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, protocol, peer: _peer, log } = connect(event_loop, kind.pair());
    let borrowed = protocol.borrow_mut();
    transport.write(&pattern(LARGE));
    drop(borrowed);
    assert_eq!(log.take(), [Made]);
    event_loop.ticks(1);
    assert_eq!(log.take(), [Pause]);
    // A reader is in the way as well.
    let borrowed = protocol.borrow();
    transport.abort();
    event_loop.ticks(1);
    assert_eq!(log.take(), []);
    drop(borrowed);
    until(event_loop, || log.lost());
    assert_eq!(log.take(), [Lost(None)]);
}

/// FLW-005: held over an await, the loop wakes some tens of times and no more
fn a_borrow_over_an_await_does_not_spin(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, protocol, peer: _peer, log } = connect(event_loop, kind.pair());
    let holder = event_loop.create_task({
        let (transport, protocol, note) = (transport.clone(), protocol.clone(), log.clone());
        #[expect(clippy::await_holding_refcell_ref, reason = "what becomes of it is the test")]
        async move {
            let borrowed = protocol.borrow_mut();
            transport.write(&pattern(LARGE));
            asyncio::sleep(Duration::from_millis(300)).await?;
            note.note("released");
            drop(borrowed);
            Ok(())
        }
    });
    let mut turns = 0;
    while !holder.done() {
        event_loop.run_once(None).unwrap();
        turns += 1;
    }
    assert!(turns < 40, "{turns} iterations");
    until(event_loop, || log.has(&Pause));
    assert_eq!(log.take(), [Made, Note("released"), Pause]);
    transport.abort();
    event_loop.ticks(1);
}

/// TCP-025: data for a protocol that stays borrowed is the failure of data_received; the loss comes when it is free
fn data_for_a_borrowed_protocol_is_fatal(event_loop: &TestLoop, kind: PairKind) {
    for by_eof in [false, true] {
        let Connected { transport, protocol, peer, log } = connect(event_loop, kind.pair());
        let borrowed = protocol.borrow_mut();
        if by_eof {
            peer.half_close();
        } else {
            peer.send(b"data");
        }
        until_readable(&transport);
        event_loop.ticks(1);
        // One iteration is nothing yet.
        assert_eq!((event_loop.reports.len(), transport.is_closing()), (0, false));
        event_loop.ticks(1);
        let report = event_loop.report();
        let error = report.exception.unwrap();
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::Runtime, "protocol is borrowed".into()));
        assert!(report.message.contains("data_received"), "{}", report.message);
        assert!(report.extra["transport"].contains("fd="), "{:?}", report.extra);
        assert!(transport.is_closing());
        assert_eq!(log.take(), [Made]);
        // Neither data nor loss keep the loop busy.
        event_loop.sleeps();
        assert_eq!(log.take(), []);
        drop(borrowed);
        until(event_loop, || log.lost());
        assert_eq!(log.take(), [Lost(Some(ErrorKind::Runtime))]);
        assert!(log.error().unwrap().to_string().contains("protocol is borrowed"));
        assert!(peer.ended());
    }
}

/// TCP-025: a borrow of one iteration loses nothing, however often
fn data_for_a_protocol_that_is_borrowed_shortly_waits(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, protocol, peer, log } = connect(event_loop, kind.pair());
    for count in 1..10 {
        peer.send(b"x");
        until_readable(&transport);
        let borrowed = protocol.borrow_mut();
        event_loop.ticks(1);
        drop(borrowed);
        event_loop.ticks(1);
        assert_eq!(log.received_len(), count);
    }
    assert!(!transport.is_closing());
}

/// TCP-006: what is told late can close or pause: nothing is received after that
fn what_was_told_late_can_still_end_the_reading(event_loop: &TestLoop, kind: PairKind) {
    let calls: [fn(&Transport); 3] = [Transport::close, Transport::abort, Transport::pause_reading];
    for (index, call) in calls.into_iter().enumerate() {
        let Connected { transport, protocol, peer, log } =
            connect_with(event_loop, kind.pair(), |recorder| recorder.on_pause(call));
        let borrowed = protocol.borrow_mut();
        transport.write(&pattern(LARGE));
        // The next attempt is some milliseconds away then, and the data comes before it.
        let begin = std::time::Instant::now();
        while begin.elapsed() < Duration::from_millis(40) {
            event_loop.run_once(Duration::from_millis(1)).unwrap();
        }
        drop(borrowed);
        peer.send(b"data");
        until_readable(&transport);
        until(event_loop, || log.has(&Pause));
        event_loop.ticks(3);
        let told = log.take();
        if index == 1 {
            assert_eq!(told, [Made, Pause, Lost(None)]);
        } else {
            assert_eq!(told, [Made, Pause]);
        }
        transport.abort();
        // The next attempt that was planned finds nothing to do.
        until(event_loop, || event_loop.next_deadline().is_none());
    }
}

/// FLW-005: a callback may run others' code that calls the transport: a handle of it, a panic hook, a drop
fn drops_of_protocols_may_call_their_transport(event_loop: &TestLoop, kind: PairKind) {
    struct Last(Transport, Log);
    impl Drop for Last {
        fn drop(&mut self) {
            self.0.write(b"late");
            self.0.close();
            self.0.abort();
            assert!(self.0.get_protocol::<Recorder>().is_none());
            self.1.note("dropped");
        }
    }
    let Connected { transport, protocol, peer, log } = connect_with(event_loop, kind.pair(), |recorder| recorder);
    let last = Last(transport.clone(), log.clone());
    transport.set_protocol(Rc::new(RefCell::new(Recorder::new(&log).with_transport(&transport).on_data(
        move |_, _| {
            let _ = &last;
        },
    ))));
    drop(protocol);
    transport.close();
    event_loop.ticks(1);
    assert_eq!(log.take(), [Made, Lost(None), Note("dropped")]);
    peer.until_readable();
    assert_eq!(peer.drain(), b"");
}

/// FLW-005: a transport of a protocol that nobody else holds works as well, and so does a write from a plain callback
fn other_callbacks_are_outside(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, protocol, peer: _peer, log } = connect(event_loop, kind.pair());
    drop(protocol);
    let (writer, note) = (transport.clone(), log.clone());
    event_loop.call_soon(move || {
        writer.write(&pattern(LARGE));
        note.note("callback returns");
    });
    event_loop.ticks(1);
    assert_eq!(log.take(), [Made, Pause, Note("callback returns")]);
    let iterations: Rc<Cell<usize>> = count_iterations(event_loop);
    event_loop.ticks(3);
    assert_eq!((iterations.get(), log.take()), (3, vec![]));
    event_loop.close().unwrap();
}

on_each! {
    pause_comes_after_the_callback_that_writes
    the_pause_is_the_next_call_after_any_callback
    pause_and_loss_keep_their_order
    a_panic_after_a_write
    another_protocol_is_told_at_once
    two_protocols_that_call_each_other
    two_transports_share_a_protocol
    a_borrowed_protocol_is_told_later_in_order
    a_short_borrow_delays_by_one_iteration
    a_borrow_over_an_await_does_not_spin
    data_for_a_borrowed_protocol_is_fatal
    data_for_a_protocol_that_is_borrowed_shortly_waits
    what_was_told_late_can_still_end_the_reading
    drops_of_protocols_may_call_their_transport
    other_callbacks_are_outside
}
