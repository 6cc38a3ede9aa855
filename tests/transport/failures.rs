//! What these tests show: callbacks that panic, and what is reported of them.

use std::{
    cell::RefCell,
    future::{Future as StdFuture, IntoFuture},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    task::Poll,
};

use asyncio::{BufferedProtocol, ErrorKind, Protocol, Transport};

use crate::{
    LARGE, TestLoop,
    support::transports::{Told::*, *},
};

/// TCP-025
fn a_panic_of_data_received_is_fatal(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } =
        connect_with(event_loop, kind.pair(), |recorder| recorder.on_data(|_, _| panic!("boom")));
    transport.write(&pattern(LARGE));
    assert!(transport.get_write_buffer_size() > 0);
    peer.send(b"1");
    until(event_loop, || log.lost());
    event_loop.ticks(3);
    assert_eq!(log.take(), [Made, Pause, Data(1), Lost(Some(ErrorKind::Panicked))]);
    assert!(log.error().unwrap().to_string().contains("boom"));
    assert_eq!((transport.get_write_buffer_size(), transport.is_closing()), (0, true));
    let report = event_loop.report();
    assert!(report.message.contains("data_received"), "{}", report.message);
    let error = report.exception.unwrap();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Panicked, log.error().unwrap().to_string()));
    assert_eq!(report.socket, transport.get_extra_info(asyncio::SOCKET));
    assert!(report.extra["transport"].contains("Transport"), "{:?}", report.extra);
    assert_eq!(report.extra["protocol"], std::any::type_name::<Recorder>());
    assert!(peer.collect().join().unwrap().0.len() < LARGE);
}

/// TCP-026
fn a_panic_of_eof_received_is_fatal(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } =
        connect_with(event_loop, kind.pair(), |recorder| recorder.on_eof(|_| panic!("boom")));
    transport.write(&pattern(LARGE));
    peer.half_close();
    until(event_loop, || log.lost());
    event_loop.ticks(3);
    assert_eq!(log.take(), [Made, Pause, Eof, Lost(Some(ErrorKind::Panicked))]);
    assert!(log.error().unwrap().to_string().contains("boom"));
    let report = event_loop.report();
    assert!(report.message.contains("eof_received"), "{}", report.message);
    assert!(report.exception.unwrap().to_string().contains("boom"));
    assert!(peer.collect().join().unwrap().0.len() < LARGE);
}

/// TCP-026: the same of a buffered one
fn a_panic_of_a_buffered_eof_received_is_fatal(event_loop: &TestLoop, kind: PairKind) {
    let Connected { peer, log, .. } = connect_with(event_loop, kind.pair(), |recorder| {
        BufferedRecorder::new(recorder.on_eof(|_| panic!("boom")), 10)
    });
    peer.half_close();
    until(event_loop, || log.lost());
    assert_eq!(log.take(), [Made, Get(None), Eof, Lost(Some(ErrorKind::Panicked))]);
    assert!(event_loop.report().message.contains("eof_received"));
}

/// TCP-025: a transport that is closing already is lost as its close said, where nothing waits; else with the error
fn a_panic_after_close_changes_the_loss_only_if_something_waits(event_loop: &TestLoop, kind: PairKind) {
    for waits in [false, true] {
        let Connected { transport, peer, log, .. } = connect_with(event_loop, kind.pair(), |recorder| {
            recorder.on_data(|transport, _| {
                transport.close();
                panic!("boom");
            })
        });
        if waits {
            transport.write(&pattern(LARGE));
        }
        peer.send(b"1");
        until(event_loop, || log.lost());
        let expected = if waits {
            vec![Made, Pause, Data(1), Lost(Some(ErrorKind::Panicked))]
        } else {
            vec![Made, Data(1), Lost(None)]
        };
        assert_eq!(log.take(), expected);
        assert!(event_loop.report().message.contains("data_received"));
    }
}

/// TCP-025: panics of connection_made and connection_lost are reported, and change nothing
fn panics_of_made_and_lost_are_reported(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, protocol, peer, log } = connect_with(event_loop, kind.pair(), |recorder| {
        recorder.on_made(|_| panic!("made")).on_lost(|_, _| panic!("lost"))
    });
    let report = event_loop.report();
    assert!(report.message.contains("connection_made"), "{}", report.message);
    assert!(report.exception.unwrap().to_string().contains("made"));
    peer.send(b"data");
    until(event_loop, || log.received_len() == 4);
    transport.write(b"reply");
    assert_eq!(peer.read_exactly(5), b"reply");
    transport.close();
    event_loop.ticks(1);
    let report = event_loop.report();
    assert!(report.message.contains("connection_lost"), "{}", report.message);
    assert!(report.exception.unwrap().to_string().contains("lost"));
    event_loop.ticks(3);
    assert_eq!(log.take(), [Made, Data(4), Lost(None)]);
    // It has let go all the same.
    assert_eq!(Rc::strong_count(&protocol), 1);
    assert!(transport.with_fd(|_| ()).is_none());
    peer.until_readable();
    assert!(peer.ended());
}

/// TCP-025: each callback of a protocol that fails always is reported once, and the loop goes on
fn a_protocol_that_always_fails(event_loop: &TestLoop, kind: PairKind) {
    struct Failing;
    impl Protocol for Failing {
        fn connection_made(&mut self, _transport: &Transport) {
            panic!("1")
        }
        fn data_received(&mut self, _data: &[u8]) {
            panic!("3")
        }
        fn connection_lost(&mut self, _error: Option<&asyncio::Error>) {
            panic!("4")
        }
        fn pause_writing(&mut self) {
            panic!("2")
        }
    }
    let Pair { ours, peer } = kind.pair();
    let opening = event_loop.create_connection(|| Failing, ()).sock(ours);
    let (transport, _) = event_loop.run_until_complete(opening).unwrap();
    transport.write(&pattern(LARGE));
    peer.send(b"data");
    until(event_loop, || transport.with_fd(|_| ()).is_none());
    let messages: Vec<_> = event_loop.reports.take().into_iter().map(|report| report.message).collect();
    let names = ["connection_made", "pause_writing", "data_received", "connection_lost"];
    assert_eq!(messages.len(), names.len(), "{messages:?}");
    assert!(messages.iter().zip(names).all(|(message, name)| message.contains(name)), "{messages:?}");
}

/// TCP-012, FLW-001: what a protocol need not write: both kinds have the rest by default
fn the_defaults_of_protocols(event_loop: &TestLoop, kind: PairKind) {
    struct Plain;
    impl Protocol for Plain {
        fn data_received(&mut self, _data: &[u8]) {}
    }
    struct Buffered([u8; 8]);
    impl BufferedProtocol for Buffered {
        fn get_buffer(&mut self, _size_hint: Option<usize>) -> &mut [u8] {
            &mut self.0
        }
        fn buffer_updated(&mut self, _count: usize) {}
    }
    for buffered in [false, true] {
        let Pair { ours, peer } = kind.pair();
        let transport = if buffered {
            let opening = event_loop.create_connection(|| Buffered([0; 8]), ()).sock(ours);
            event_loop.run_until_complete(opening).unwrap().0
        } else {
            let opening = event_loop.create_connection(|| Plain, ()).sock(ours);
            event_loop.run_until_complete(opening).unwrap().0
        };
        let data = pattern(LARGE);
        transport.write(&data);
        assert!(transport.is_write_paused());
        let mut received = Vec::new();
        until(event_loop, || {
            received.extend(peer.drain());
            received.len() == LARGE
        });
        assert!(received == data);
        peer.send(b"ignored by whoever it is");
        peer.half_close();
        // An end closes.
        until(event_loop, || transport.with_fd(|_| ()).is_none());
    }
}

/// Fails when it is dropped.
struct PanicsOnDrop(Log, Option<Transport>);

impl Protocol for PanicsOnDrop {
    fn connection_made(&mut self, transport: &Transport) {
        self.0.push(Made);
        self.1 = Some(transport.clone());
    }

    /// Puts another one in its own place.
    fn data_received(&mut self, data: &[u8]) {
        self.0.push(Data(data.len()));
        let transport = self.1.take().unwrap();
        let next = Recorder::new(&self.0).with_transport(&transport);
        transport.set_protocol(Rc::new(RefCell::new(next)));
    }

    fn connection_lost(&mut self, _error: Option<&asyncio::Error>) {
        self.0.push(Lost(None));
    }
}

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        self.0.note("dropped");
        if !std::thread::panicking() {
            panic!("dropped");
        }
    }
}

/// TCP-025: a protocol whose drop panics, when the connection has ended: reported, and nothing else comes of it
fn a_panic_in_the_drop_of_a_protocol_is_reported(event_loop: &TestLoop, kind: PairKind) {
    for replaced in [false, true] {
        let log = Log::default();
        let Pair { ours, peer } = kind.pair();
        let opening = event_loop.create_connection(|| PanicsOnDrop(log.clone(), None), ()).sock(ours);
        let transport = event_loop.run_until_complete(async { Ok(opening.await?.0) }).unwrap();
        if replaced {
            // Out of its own callback: it is dropped when that has returned, and the other one goes on.
            peer.send(b"data");
            until(event_loop, || event_loop.reports.len() > 0);
            peer.send(b"more data");
            until(event_loop, || log.received_len() == 9);
        }
        transport.close();
        until(event_loop, || log.lost());
        event_loop.ticks(2);
        let report = event_loop.report();
        assert!(report.exception.unwrap().to_string().contains("dropped"));
        let told = log.take();
        if replaced {
            assert_eq!(told, [Made, Data(4), Note("dropped"), Data(9), Lost(None)]);
        } else {
            assert_eq!(told, [Made, Lost(None), Note("dropped")]);
        }
        assert!(transport.with_fd(|_| ()).is_none());
        peer.until_readable();
        assert!(peer.ended());
    }
}

/// TCP-025: so when an opening is given up, and when the loop closes
fn a_panic_in_a_drop_leaves_no_descriptor(event_loop: &TestLoop, kind: PairKind) {
    // Given up before the protocol has heard of its connection.
    let log = Log::default();
    let Pair { ours, peer } = kind.pair();
    let made = log.clone();
    let mut opening =
        Box::pin(event_loop.create_connection(move || PanicsOnDrop(made, None), ()).sock(ours).into_future());
    let polled = event_loop.run_until_complete(async {
        std::future::poll_fn(|cx| Poll::Ready(opening.as_mut().poll(cx).is_pending())).await;
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(opening)));
        Ok(dropped.is_err())
    });
    let panicked = polled.unwrap();
    event_loop.ticks(2);
    assert_eq!(log.take(), [Note("dropped")]);
    assert_eq!(usize::from(panicked) + event_loop.reports.take().len(), 1);
    peer.until_readable();
    assert!(peer.ended());

    let Pair { ours, peer } = kind.pair();
    let opening = event_loop.create_connection(|| PanicsOnDrop(log.clone(), None), ()).sock(ours);
    event_loop.run_until_complete(async { opening.await.map(|_| ()) }).unwrap();
    let other = connect(event_loop, kind.pair());
    event_loop.close().unwrap();
    assert!(event_loop.report().exception.unwrap().to_string().contains("dropped"));
    assert_eq!(log.take(), [Made, Note("dropped")]);
    for peer in [peer, other.peer] {
        peer.until_readable();
        assert!(peer.ended());
    }
}

/// TCP-010: the exception handler may use the transport that it hears of
fn the_exception_handler_may_call_the_transport(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } =
        connect_with(event_loop, kind.pair(), |recorder| recorder.on_data(|_, _| panic!("boom")));
    let before = event_loop.get_exception_handler();
    let (used, note) = (transport.clone(), log.clone());
    event_loop.set_exception_handler(Some(Rc::new(move |_, _| {
        note.note("handled");
        used.write(b"failed");
        used.close();
    })));
    peer.send(b"1");
    until(event_loop, || log.lost());
    assert_eq!(log.take(), [Made, Data(1), Note("handled"), Lost(None)]);
    assert_eq!(peer.read_exactly(6), b"failed");
    event_loop.set_exception_handler(before);
}

on_each! {
    a_panic_of_data_received_is_fatal
    a_panic_of_eof_received_is_fatal
    a_panic_of_a_buffered_eof_received_is_fatal
    a_panic_after_close_changes_the_loss_only_if_something_waits
    panics_of_made_and_lost_are_reported
    a_protocol_that_always_fails
    the_defaults_of_protocols
    a_panic_in_the_drop_of_a_protocol_is_reported
    a_panic_in_a_drop_leaves_no_descriptor
    the_exception_handler_may_call_the_transport
}
