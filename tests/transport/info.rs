//! What these tests show: what a transport tells of itself, and to whom its descriptor belongs.

use std::{
    collections::HashSet,
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};

use asyncio::{Address, ErrorKind, PEERNAME, PIPE, SOCKET, SOCKNAME, Transport};

use crate::{
    LARGE, TestLoop,
    support::{
        failure,
        transports::{Told::*, *},
    },
};

/// TCP-024
fn addresses_are_readable_after_the_loss(event_loop: &TestLoop, kind: PairKind) {
    let Pair { ours, peer } = kind.pair();
    let number = ours.as_raw_fd();
    let inet = |address: socket2::SockAddr| address.as_socket().map(Address::from);
    let (local, remote) = match kind {
        PairKind::Tcp => (inet(peer.0.peer_addr().unwrap()).unwrap(), inet(peer.0.local_addr().unwrap()).unwrap()),
        PairKind::Unix => {
            let path = peer.0.local_addr().unwrap().as_pathname().unwrap().to_owned();
            (Address::Unnamed, Address::UnixPath(path))
        }
        PairKind::Socketpair => (Address::Unnamed, Address::Unnamed),
    };
    let Connected { transport, peer: _peer, log, .. } = connect(event_loop, Pair { ours, peer });
    for _ in 0..2 {
        assert_eq!(transport.get_extra_info(SOCKET), Some(number));
        assert_eq!(transport.get_extra_info(SOCKNAME).as_ref(), Some(&local));
        assert_eq!(transport.get_extra_info(PEERNAME).as_ref(), Some(&remote));
        assert_eq!(transport.get_extra_info(PIPE), None);
        transport.close();
        event_loop.ticks(2);
    }
    assert_eq!(log.take(), [Made, Lost(None)]);
}

/// TCP-024: also where nobody asked before, and where the other side has gone before it was opened
fn addresses_are_kept_for_those_who_ask_late(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
    let (ours, theirs) = (peer.0.peer_addr().unwrap(), peer.0.local_addr().unwrap());
    drop(peer);
    until(event_loop, || log.lost());
    let address = |told: Option<Address>| told.unwrap().as_inet();
    assert_eq!(address(transport.get_extra_info(SOCKNAME)), ours.as_socket());
    assert_eq!(address(transport.get_extra_info(PEERNAME)), theirs.as_socket());
}

/// TCP-004: the descriptor is lent until it is closed
fn the_descriptor_is_lent(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer: _peer, .. } = connect(event_loop, kind.pair());
    let look = |transport: &Transport| transport.with_fd(|fd| fd.as_raw_fd());
    assert_eq!(look(&transport), transport.get_extra_info(SOCKET));
    // Whoever has it may call the transport.
    let set = transport.with_fd(|fd| {
        transport.write(b"within");
        transport.pause_reading();
        assert_eq!(look(&transport), Some(fd.as_raw_fd()));
        transport.close();
        socket2::SockRef::from(&fd).set_recv_buffer_size(1 << 14)
    });
    set.unwrap().unwrap();
    assert_eq!(look(&transport), transport.get_extra_info(SOCKET));
    event_loop.ticks(1);
    assert_eq!(look(&transport), None);
}

/// TCP-004: sockets are made non-blocking, and TCP sends small writes at once
fn sockets_are_prepared(event_loop: &TestLoop, kind: PairKind) {
    let pair = kind.pair();
    let flags = rustix::fs::fcntl_getfl(&pair.ours).unwrap();
    assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK));
    let Connected { transport, peer: _peer, .. } = connect(event_loop, pair);
    transport.with_fd(|fd| {
        assert!(rustix::fs::fcntl_getfl(fd).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
        if kind == PairKind::Tcp {
            assert!(socket2::SockRef::from(&fd).tcp_nodelay().unwrap());
        }
    });
}

/// TCP-004: its text says what it does
fn the_text_tells_the_state(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
    let number = transport.get_extra_info(SOCKET).unwrap();
    let text = || format!("{transport:?}");
    assert_eq!(text(), format!("<Transport fd={number} read=polling write=<idle, bufsize=0>>"));
    transport.pause_reading();
    assert_eq!(text(), format!("<Transport fd={number} read=idle write=<idle, bufsize=0>>"));
    transport.write(&pattern(LARGE));
    let size = transport.get_write_buffer_size();
    assert_eq!(text(), format!("<Transport fd={number} read=idle write=<polling, bufsize={size}>>"));
    transport.resume_reading();
    transport.close();
    assert_eq!(text(), format!("<Transport closing fd={number} read=idle write=<polling, bufsize={size}>>"));
    let collecting = peer.collect();
    until(event_loop, || log.lost() && collecting.is_finished());
    assert_eq!(text(), format!("<Transport closed fd={number} read=idle write=<idle, bufsize=0>>"));
}

/// TCP-004: handles are one transport
fn clones_are_equal(event_loop: &TestLoop, kind: PairKind) {
    let one = connect(event_loop, kind.pair());
    let two = connect(event_loop, kind.pair());
    assert_eq!(one.transport, one.transport.clone());
    assert_ne!(one.transport, two.transport);
    let numbers: HashSet<_> = [&one, &two].map(|it| it.transport.get_extra_info(SOCKET)).into();
    assert_eq!(numbers.len(), 2);
    one.transport.clone().close();
    assert!(one.transport.is_closing() && !two.transport.is_closing());
    event_loop.ticks(1);
}

/// FDW-010
fn its_descriptor_cannot_be_watched(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
    let check = || {
        transport.with_fd(|fd: BorrowedFd<'_>| {
            let results = [
                event_loop.add_reader(fd, || panic!("never")).map(|_| ()),
                event_loop.remove_reader(&fd).map(|_| ()),
                event_loop.add_writer(fd, || panic!("never")).map(|_| ()),
                event_loop.remove_writer(&fd).map(|_| ()),
                event_loop.remove_reader(&fd.as_raw_fd()).map(|_| ()),
                event_loop.remove_writer(&fd.as_raw_fd()).map(|_| ()),
            ];
            for result in results {
                let (error, text) = failure(result);
                assert_eq!(error, ErrorKind::Runtime);
                assert!(text.contains("used by transport"), "{text}");
            }
        })
    };
    check().unwrap();
    // Whether the loop watches it or not.
    transport.pause_reading();
    check().unwrap();
    transport.resume_reading();
    transport.write(&pattern(LARGE));
    check().unwrap();
    peer.send(b"still read");
    until(event_loop, || log.received_len() == 10);
    transport.close();
    check().unwrap();
    transport.abort();
    check().unwrap();
    let number = transport.get_extra_info(SOCKET).unwrap();
    event_loop.ticks(1);
    assert!(check().is_none());
    // Nobody's any more.
    assert!(!event_loop.remove_reader(&number).unwrap());
    assert!(!event_loop.remove_writer(&number).unwrap());
}

/// SOK-019
fn its_descriptor_cannot_be_received_from(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
    for pending in [false, true] {
        if pending {
            transport.write(&pattern(LARGE));
        }
        let calls = transport.with_fd(|fd| {
            let mut memory = [0; 10];
            let limit = Duration::from_secs(20);
            event_loop.run_until_complete(async {
                let mut failures = vec![
                    failure(asyncio::timeout(limit, event_loop.sock_recv(&fd, 10)).await),
                    failure(asyncio::timeout(limit, event_loop.sock_recv_into(&fd, &mut memory)).await),
                ];
                if pending {
                    // Some of it the system may take; it is refused when it must wait.
                    let data = pattern(LARGE);
                    failures.push(failure(asyncio::timeout(limit, event_loop.sock_sendall(&fd, &data)).await));
                }
                Ok(failures)
            })
        });
        for (error, text) in calls.unwrap().unwrap() {
            assert_eq!(error, ErrorKind::Runtime);
            assert!(text.contains("used by transport"), "{text}");
        }
    }
    peer.send(b"data");
    until(event_loop, || log.received_len() == 4);
    assert_eq!(log.take(), [Made, Pause, Data(4)]);
    let received = peer.read_exactly(1 << 16);
    assert!(received == pattern(LARGE)[..1 << 16]);
}

on_each! {
    addresses_are_readable_after_the_loss
    addresses_are_kept_for_those_who_ask_late
    the_descriptor_is_lent
    sockets_are_prepared
    the_text_tells_the_state
    clones_are_equal
    its_descriptor_cannot_be_watched
    its_descriptor_cannot_be_received_from
}
