//! What these tests show: pause_reading and resume_reading.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use asyncio::Transport;

use crate::{
    TestLoop,
    support::transports::{Told::*, *},
    until_readable,
};

/// TCP-020
fn pausing_and_resuming_may_come_again(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
    assert!(transport.is_reading());
    transport.resume_reading();
    assert!(transport.is_reading());
    transport.pause_reading();
    transport.pause_reading();
    assert!(!transport.is_reading());
    peer.send(b"1");
    until_readable(&transport);
    event_loop.ticks(3);
    assert_eq!(log.take(), [Made]);
    transport.resume_reading();
    transport.resume_reading();
    assert!(transport.is_reading());
    until(event_loop, || log.received_len() == 1);
    assert_eq!(log.take(), [Data(1)]);
    transport.close();
    for _ in 0..2 {
        for call in [Transport::pause_reading, Transport::pause_reading, Transport::resume_reading] {
            call(&transport);
            assert!(!transport.is_reading());
        }
        event_loop.ticks(1);
    }
    assert_eq!(log.take(), [Lost(None)]);
}

/// TCP-021
fn connection_made_can_pause(event_loop: &TestLoop, kind: PairKind) {
    let pair = kind.pair();
    pair.peer.send(b"early");
    let Connected { transport, peer, log, .. } =
        connect_with(event_loop, pair, |recorder| recorder.on_made(Transport::pause_reading));
    assert!(!transport.is_reading());
    until_readable(&transport);
    event_loop.ticks(5);
    assert_eq!(log.take(), [Made]);
    // An end waits, too.
    peer.half_close();
    event_loop.ticks(5);
    assert_eq!(log.take(), []);
    transport.resume_reading();
    assert!(transport.is_reading());
    until(event_loop, || log.lost());
    assert_eq!(log.take(), [Data(5), Eof, Lost(None)]);
}

/// TCP-021: and resume again in the same call
fn connection_made_can_pause_and_resume(event_loop: &TestLoop, kind: PairKind) {
    let pair = kind.pair();
    pair.peer.send(b"early");
    let Connected { peer: _peer, log, .. } = connect_with(event_loop, pair, |recorder| {
        recorder.on_made(|transport| {
            transport.pause_reading();
            transport.resume_reading();
        })
    });
    until(event_loop, || log.received_len() == 5);
    assert_eq!(log.take(), [Made, Data(5)]);
}

/// TCP-022
fn each_resume_is_one_delivery(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } =
        connect_with(event_loop, kind.pair(), |recorder| recorder.on_data(|transport, _| transport.pause_reading()));
    peer.send(b"a");
    until(event_loop, || log.received_len() == 1);
    assert_eq!(log.take(), [Made, Data(1)]);
    peer.send(b"b");
    peer.half_close();
    until_readable(&transport);
    event_loop.ticks(5);
    assert_eq!(log.take(), []);
    transport.resume_reading();
    until(event_loop, || log.received_len() == 2);
    event_loop.ticks(5);
    assert_eq!((log.take(), log.received()), (vec![Data(1)], b"ab".to_vec()));
    assert!(!transport.is_reading() && !transport.is_closing());
    transport.resume_reading();
    until(event_loop, || log.lost());
    assert_eq!(log.take(), [Eof, Lost(None)]);
}

/// TCP-020: paused from another callback of the same iteration, the data that was found waits
fn a_pause_holds_what_was_found_already(event_loop: &TestLoop, kind: PairKind) {
    let one = connect(event_loop, kind.pair());
    let two = connect(event_loop, kind.pair());
    for (this, other) in [(&one, &two), (&two, &one)] {
        this.peer.send(b"data");
        until_readable(&this.transport);
        let other = other.transport.clone();
        let protocol = Recorder::new(&this.log).with_transport(&this.transport).on_data(move |_, _| {
            other.pause_reading();
        });
        this.transport.set_protocol(Rc::new(RefCell::new(protocol)));
        this.log.take();
    }
    event_loop.ticks(3);
    let (first, second) = if one.log.received_len() > 0 { (&one, &two) } else { (&two, &one) };
    assert_eq!((first.log.take(), second.log.take()), (vec![Data(4)], vec![]));
    second.transport.resume_reading();
    until(event_loop, || second.log.received_len() == 4);
    assert!(!first.transport.is_reading());
}

/// TCP-020: a storm of both, from inside and from outside, loses nothing
fn a_storm_of_pauses_loses_nothing(event_loop: &TestLoop, kind: PairKind) {
    let turns = Rc::new(Cell::new(0));
    let counter = turns.clone();
    let Connected { transport, peer, log, .. } = connect_with(event_loop, kind.pair(), |recorder| {
        recorder.on_data(move |transport, _| {
            counter.set(counter.get() + 1);
            for _ in 0..counter.get() % 4 {
                transport.pause_reading();
                transport.resume_reading();
                transport.pause_reading();
            }
        })
    });
    let data = pattern(2_000_000);
    let (mut sent, mut round) = (0, 0);
    until(event_loop, || {
        round += 1;
        sent += peer.send_some(&data[sent..data.len().min(sent + 7001)]);
        if round % 3 == 0 {
            (0..round % 5).for_each(|_| transport.pause_reading());
            transport.resume_reading();
        }
        log.received_len() == data.len()
    });
    assert!(log.received() == data);
    let counted = log.count(&Made);
    assert_eq!((counted, log.take().iter().all(|told| matches!(told, Made | Data(1..)))), (1, true));
    assert!(turns.get() > 5);
}

/// TCP-020: paused, data that waits does not keep the loop busy
fn paused_it_lets_the_loop_sleep(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
    transport.pause_reading();
    peer.send(b"data");
    drop(peer);
    until_readable(&transport);
    event_loop.sleeps();
    assert_eq!(log.take(), [Made]);
    transport.resume_reading();
    until(event_loop, || log.lost());
    assert_eq!(log.take(), [Data(4), Eof, Lost(None)]);
}

on_each! {
    pausing_and_resuming_may_come_again
    connection_made_can_pause
    connection_made_can_pause_and_resume
    each_resume_is_one_delivery
    a_pause_holds_what_was_found_already
    a_storm_of_pauses_loses_nothing
    paused_it_lets_the_loop_sleep
}
