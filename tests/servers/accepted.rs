//! connect_accepted_socket.

use std::time::Duration;

use asyncio::{Address, ErrorKind, PEERNAME, SOCKNAME};
use socket2::SockRef;

use crate::{
    On, has_ended, lost, silent,
    support::transports::{BufferedRecorder, Log, PairKind, Recorder, Told},
};

on_each_selector! {
    an_accepted_socket_is_served
    what_belongs_to_tls_needs_it
    a_buffered_protocol_is_served
    what_had_come_before_is_there
    a_client_that_has_gone_is_lost
    it_is_closed_where_the_opening_is_dropped
}

const KINDS: [PairKind; 3] = [PairKind::Tcp, PairKind::Unix, PairKind::Socketpair];

/// CON-028
fn an_accepted_socket_is_served(on: On) {
    let event_loop = on.event_loop();
    for kind in KINDS {
        let (pair, log) = (kind.pair(), Log::default());
        SockRef::from(&pair.ours).set_nonblocking(false).unwrap();
        let roger = |recorder: Recorder| recorder.on_data(|transport, _| transport.write(b"roger"));
        let opening = event_loop.connect_accepted_socket(|| roger(Recorder::new(&log)), pair.ours);
        let (transport, _) = event_loop.run(opening);
        pair.peer.send(b"test data");
        event_loop.until(|| log.received_len() == 9);
        assert_eq!(log.received(), b"test data");
        assert_eq!(pair.peer.read_exactly(5), b"roger");
        if kind == PairKind::Tcp {
            let theirs = pair.peer.0.local_addr().unwrap().as_socket().map(Address::from);
            assert_eq!(transport.get_extra_info(PEERNAME), theirs);
            let ours = pair.peer.0.peer_addr().unwrap().as_socket().map(Address::from);
            assert_eq!(transport.get_extra_info(SOCKNAME), ours);
            assert_eq!(transport.with_fd(|fd| SockRef::from(&fd).tcp_nodelay().unwrap()), Some(true));
        }
        drop(pair.peer);
        event_loop.until(|| log.lost());
        assert_eq!(log.joined(), [Told::Made, Told::Data(9), Told::Eof, lost()]);
    }
}

/// CON-028
fn what_belongs_to_tls_needs_it(on: On) {
    let event_loop = on.event_loop();
    for shutdown in [false, true] {
        let pair = PairKind::Tcp.pair();
        let opening = event_loop.connect_accepted_socket(silent, pair.ours);
        let second = Duration::from_secs(1);
        let opening =
            if shutdown { opening.ssl_shutdown_timeout(second) } else { opening.ssl_handshake_timeout(second) };
        let error = event_loop.fails(opening);
        assert_eq!(error.kind(), ErrorKind::Value);
        assert!(error.to_string().contains(if shutdown { "shutdown" } else { "handshake" }), "{error}");
        assert!(has_ended(&pair.peer));
    }
}

fn a_buffered_protocol_is_served(on: On) {
    let event_loop = on.event_loop();
    for kind in KINDS {
        let (pair, log) = (kind.pair(), Log::default());
        pair.peer.send(b"12345");
        let factory = || BufferedRecorder::new(Recorder::new(&log), 100);
        let (transport, protocol) = event_loop.run(event_loop.connect_accepted_socket(factory, pair.ours));
        assert!(transport.get_protocol::<BufferedRecorder>().is_some());
        drop(protocol);
        event_loop.until(|| log.received_len() == 5);
        transport.close();
        event_loop.until(|| log.lost());
        assert_eq!(log.take(), [Told::Made, Told::Get(None), Told::Updated(5), lost()]);
    }
}

fn what_had_come_before_is_there(on: On) {
    let event_loop = on.event_loop();
    for kind in KINDS {
        let (pair, log) = (kind.pair(), Log::default());
        pair.peer.send(b"hello");
        pair.peer.half_close();
        let opening = event_loop.connect_accepted_socket(|| Recorder::new(&log), pair.ours);
        event_loop.run(async {
            opening.await?;
            log.note("returned");
            Ok(())
        });
        event_loop.until(|| log.lost());
        assert_eq!(log.take(), [Told::Made, Told::Note("returned"), Told::Data(5), Told::Eof, lost()]);
    }
}

fn a_client_that_has_gone_is_lost(on: On) {
    let event_loop = on.event_loop();
    let (pair, log) = (PairKind::Tcp.pair(), Log::default());
    pair.peer.reset();
    event_loop.run(event_loop.connect_accepted_socket(|| Recorder::new(&log), pair.ours));
    event_loop.until(|| log.lost());
    assert_eq!(log.take(), [Told::Made, Told::Lost(Some(ErrorKind::Io))]);
    assert_eq!(log.error().unwrap().raw_os_error(), Some(libc::ECONNRESET));
}

fn it_is_closed_where_the_opening_is_dropped(on: On) {
    let event_loop = on.event_loop();
    let pair = PairKind::Tcp.pair();
    drop(IntoFuture::into_future(event_loop.connect_accepted_socket(silent, pair.ours)));
    assert!(has_ended(&pair.peer));
}
