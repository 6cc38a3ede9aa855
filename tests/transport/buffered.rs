//! What these tests show: protocols that receive into memory of their own, and changes of protocol.

use std::{cell::RefCell, rc::Rc};

use asyncio::ErrorKind;

use crate::{
    LARGE, TestLoop,
    support::transports::{Told::*, *},
};

/// BUF-001
fn data_comes_in_buffers(event_loop: &TestLoop, kind: PairKind) {
    let Connected { peer, log, .. } =
        connect_with(event_loop, kind.pair(), |recorder| BufferedRecorder::new(recorder, 100));
    let data = pattern(250);
    peer.send(&data);
    until(event_loop, || log.received_len() == 250);
    let told = [Made, Get(None), Updated(100), Get(None), Updated(100), Get(None), Updated(50)];
    assert_eq!((log.take(), log.received()), (told.to_vec(), data));
    drop(peer);
    until(event_loop, || log.lost());
    assert_eq!(log.take(), [Get(None), Eof, Lost(None)]);
}

/// BUF-002
fn an_empty_buffer_is_fatal(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } =
        connect_with(event_loop, kind.pair(), |recorder| BufferedRecorder::new(recorder, 0));
    peer.send(b"1");
    until(event_loop, || log.lost());
    assert_eq!(log.take(), [Made, Get(None), Lost(Some(ErrorKind::Runtime))]);
    let report = event_loop.report();
    assert!(report.message.contains("get_buffer"), "{}", report.message);
    assert_eq!(report.exception.unwrap().to_string(), log.error().unwrap().to_string());
    assert_eq!(report.extra["protocol"], std::any::type_name::<BufferedRecorder>());
    assert!(transport.is_closing());
    peer.until_readable();
    assert!(peer.ended());
}

/// BUF-003
fn a_panic_of_either_is_fatal(event_loop: &TestLoop, kind: PairKind) {
    for name in ["get_buffer", "buffer_updated"] {
        let Connected { transport, peer, log, .. } = connect_with(event_loop, kind.pair(), |recorder| match name {
            "get_buffer" => BufferedRecorder::new(recorder, 100).on_get(|_| panic!("boom")),
            _ => BufferedRecorder::new(recorder.on_data(|_, _| panic!("boom")), 100),
        });
        transport.write(&pattern(LARGE));
        peer.send(b"1");
        until(event_loop, || log.lost());
        event_loop.ticks(2);
        let lost = Lost(Some(ErrorKind::Panicked));
        match name {
            "get_buffer" => assert_eq!(log.take(), [Made, Pause, Get(None), lost]),
            _ => assert_eq!(log.take(), [Made, Pause, Get(None), Updated(1), lost]),
        }
        assert!(log.error().unwrap().to_string().contains("boom"));
        let report = event_loop.report();
        assert!(report.message.contains(name), "{}", report.message);
        assert!(report.exception.unwrap().to_string().contains("boom"));
        assert!(peer.collect().join().unwrap().0.len() < LARGE);
    }
}

/// BUF-004
fn a_protocol_can_be_replaced_by_one_of_another_kind(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, protocol: p1, peer, log: log1 } = connect(event_loop, kind.pair());
    assert!(Rc::ptr_eq(&transport.get_protocol::<Recorder>().unwrap(), &p1));
    assert!(transport.get_protocol::<BufferedRecorder>().is_none());

    let log2 = Log::default();
    let p2 = BufferedRecorder::new(Recorder::new(&log2).with_transport(&transport), 100);
    let p2 = Rc::new(RefCell::new(p2));
    transport.set_protocol(p2.clone());
    assert!(Rc::ptr_eq(&transport.get_protocol::<BufferedRecorder>().unwrap(), &p2));
    assert!(transport.get_protocol::<Recorder>().is_none());
    peer.send(b"abc");
    until(event_loop, || log2.received_len() == 3);

    let log3 = Log::default();
    let p3 = Rc::new(RefCell::new(Recorder::new(&log3).with_transport(&transport)));
    transport.set_protocol(p3.clone());
    assert!(Rc::ptr_eq(&transport.get_protocol::<Recorder>().unwrap(), &p3));
    peer.send(b"de");
    until(event_loop, || log3.received_len() == 2);
    drop(peer);
    until(event_loop, || log3.lost());
    event_loop.ticks(2);

    assert_eq!(log1.take(), [Made]);
    assert_eq!((log2.take(), log2.received()), (vec![Get(None), Updated(3)], b"abc".to_vec()));
    assert_eq!((log3.take(), log3.received()), (vec![Data(2), Eof, Lost(None)], b"de".to_vec()));
    // The transport has let go of all of them.
    assert!(transport.get_protocol::<Recorder>().is_none());
    assert_eq!([Rc::strong_count(&p1), Rc::strong_count(&p2), Rc::strong_count(&p3)], [1, 1, 1]);
}

/// BUF-004: set in a callback, the next call is the new one's
fn a_protocol_can_be_replaced_in_its_own_callback(event_loop: &TestLoop, kind: PairKind) {
    let log2 = Log::default();
    let next = log2.clone();
    let Connected { transport, protocol, peer, log } = connect_with(event_loop, kind.pair(), |recorder| {
        recorder.on_data(move |transport, data| {
            assert_eq!(data, b"first");
            let recorder = Recorder::new(&next).with_transport(transport);
            transport.set_protocol(Rc::new(RefCell::new(BufferedRecorder::new(recorder, 3))));
        })
    });
    peer.send(b"first");
    until(event_loop, || log.received_len() == 5);
    assert_eq!(Rc::strong_count(&protocol), 1);
    peer.send(b"second");
    until(event_loop, || log2.received_len() == 6);
    peer.half_close();
    until(event_loop, || log2.lost());
    assert_eq!(log.take(), [Made, Data(5)]);
    assert_eq!(log2.take(), [Get(None), Updated(3), Get(None), Updated(3), Get(None), Eof, Lost(None)]);
    assert!(transport.is_closing());
}

/// BUF-004: in `connection_made`, before anything was received; in `eof_received`, before the loss
fn a_protocol_can_be_replaced_at_both_ends(event_loop: &TestLoop, kind: PairKind) {
    let logs = [Log::default(), Log::default()];
    let [next, last] = logs.clone();
    let replace = move |transport: &asyncio::Transport, log: &Log| {
        let last = last.clone();
        let recorder = Recorder::new(log).with_transport(transport).on_eof(move |transport| {
            let recorder = Recorder::new(&last).with_transport(transport);
            transport.set_protocol(Rc::new(RefCell::new(recorder)));
            false
        });
        transport.set_protocol(Rc::new(RefCell::new(recorder)));
    };
    let Connected { transport, protocol, peer, log } =
        connect_with(event_loop, kind.pair(), |recorder| recorder.on_made(move |transport| replace(transport, &next)));
    // The one that was made is what the opener gets.
    assert_eq!(Rc::strong_count(&protocol), 1);
    assert!(transport.get_protocol::<Recorder>().is_some_and(|now| !Rc::ptr_eq(&now, &protocol)));
    peer.send(b"data");
    peer.half_close();
    until(event_loop, || logs[1].lost());
    assert_eq!(log.take(), [Made]);
    assert_eq!(logs[0].joined(), [Data(4), Eof]);
    assert_eq!(logs[1].take(), [Lost(None)]);
}

/// BUF-004: the mark that one was paused at is the other's to resume
fn the_new_protocol_resumes(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
    transport.write(&pattern(LARGE));
    assert_eq!(log.take(), [Made, Pause]);
    let log2 = Log::default();
    transport.set_protocol(Rc::new(RefCell::new(Recorder::new(&log2).with_transport(&transport))));
    transport.close();
    let collecting = peer.collect();
    until(event_loop, || log2.lost() && collecting.is_finished());
    assert_eq!(log2.take(), [Resume, Lost(None)]);
    assert_eq!(log.take(), []);
}

/// BUF-004: after the loss a protocol is not taken any more
fn after_the_loss_no_protocol_is_taken(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer: _peer, log, .. } = connect(event_loop, kind.pair());
    transport.close();
    let log2 = Log::default();
    transport.set_protocol(Rc::new(RefCell::new(Recorder::new(&log2).with_transport(&transport))));
    event_loop.ticks(2);
    // Closing is not yet lost.
    assert_eq!((log.take(), log2.take()), (vec![Made], vec![Lost(None)]));
    let late = Rc::new(RefCell::new(Recorder::new(&log2)));
    transport.set_protocol(late.clone());
    assert_eq!(Rc::strong_count(&late), 1);
    assert!(transport.get_protocol::<Recorder>().is_none());
}

/// BUF-001: megabytes through a small buffer, and the buffer may pause, write and close as others do
fn a_small_buffer_takes_everything(event_loop: &TestLoop, kind: PairKind) {
    let Connected { peer, log, .. } = connect_with(event_loop, kind.pair(), |recorder| {
        let recorder = recorder.on_data(|transport, data| transport.write(data));
        BufferedRecorder::new(recorder, 4099)
    });
    let data = pattern(2_000_000);
    let (mut sent, mut received) = (0, Vec::new());
    until(event_loop, || {
        sent += peer.send_some(&data[sent..]);
        received.extend(peer.drain());
        received.len() == data.len()
    });
    assert!(received == data && log.received() == data);
    let most = log.items().into_iter().filter_map(|told| if let Updated(count) = told { Some(count) } else { None });
    assert_eq!(most.max(), Some(4099));
}

/// BUF-001: what `get_buffer` does to its transport holds from then on
fn get_buffer_may_pause_and_close(event_loop: &TestLoop, kind: PairKind) {
    // It asks to pause: what comes into this buffer is the last.
    let Connected { transport, peer, log, .. } = connect_with(event_loop, kind.pair(), |recorder| {
        BufferedRecorder::new(recorder, 2).on_get(|transport| transport.pause_reading())
    });
    peer.send(b"abcd");
    until(event_loop, || log.received_len() == 2);
    event_loop.ticks(3);
    assert_eq!(log.take(), [Made, Get(None), Updated(2)]);
    transport.resume_reading();
    until(event_loop, || log.received_len() == 4);
    assert_eq!(log.take(), [Get(None), Updated(2)]);

    // Closed there, an end is not heard any more.
    for end in [asyncio::Transport::close, asyncio::Transport::abort] {
        let Connected { peer, log, .. } =
            connect_with(event_loop, kind.pair(), |recorder| BufferedRecorder::new(recorder, 2).on_get(end));
        peer.half_close();
        until(event_loop, || log.lost());
        event_loop.ticks(2);
        assert_eq!(log.take(), [Made, Get(None), Lost(None)]);
    }
}

on_each! {
    data_comes_in_buffers
    an_empty_buffer_is_fatal
    a_panic_of_either_is_fatal
    a_protocol_can_be_replaced_by_one_of_another_kind
    a_protocol_can_be_replaced_in_its_own_callback
    a_protocol_can_be_replaced_at_both_ends
    the_new_protocol_resumes
    after_the_loss_no_protocol_is_taken
    a_small_buffer_takes_everything
    get_buffer_may_pause_and_close
}
