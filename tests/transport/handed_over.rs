//! What these tests show: descriptors that were watched before, and openings that end in the middle.

use std::{cell::RefCell, os::fd::AsFd, rc::Rc, time::Duration};

use asyncio::{BufferedProtocol, DatagramProtocol, Protocol};
use futures::FutureExt;

use crate::{
    TestLoop,
    support::{
        Record, tick,
        transports::{Connected, Log, Pair, PairKind, Peer, Recorder, Told, connect, connect_with, until},
    },
};

on_each! {
    what_a_watcher_left_behind_does_not_keep_the_loop_awake
    nor_does_it_after_the_transport_has_ended
    an_opening_that_connection_made_gives_up_ends_with_connection_lost
    a_boxed_protocol_is_called_like_any
    transports_are_keys
    what_ends_while_it_is_lent_is_closed_after_that
}

fn what_a_watcher_left_behind_does_not_keep_the_loop_awake(event_loop: &TestLoop, kind: PairKind) {
    let Pair { ours, peer } = kind.pair();
    event_loop.add_reader(&ours, || panic!("a transport has it")).unwrap();
    peer.send(b"unread");
    let Connected { transport, log, .. } = connect_with(event_loop, Pair { ours, peer }, |recorder| {
        recorder.on_made(|transport| transport.pause_reading())
    });
    event_loop.sleeps();
    assert_eq!(log.take(), [Told::Made]);
    transport.resume_reading();
    until(event_loop, || log.received_len() == 6);
    transport.abort();
    event_loop.ticks(2);
}

fn nor_does_it_after_the_transport_has_ended(event_loop: &TestLoop, kind: PairKind) {
    let Pair { ours, peer } = kind.pair();
    event_loop.add_reader(&ours, || panic!("a transport has it")).unwrap();
    let kept = ours.as_fd().try_clone_to_owned().unwrap();
    let Connected { transport, log, peer, .. } = connect(event_loop, Pair { ours, peer });
    transport.abort();
    until(event_loop, || log.lost());
    peer.send(b"nobody reads it");
    event_loop.sleeps();
    drop(kept);
}

/// A connection as a future, which a callback may drop.
type Opening = Rc<RefCell<Option<asyncio::OpenStream<Box<dyn FnOnce() -> Recorder>, Recorder>>>>;

fn an_opening_that_connection_made_gives_up_ends_with_connection_lost(event_loop: &TestLoop, kind: PairKind) {
    let (Pair { ours, peer }, log) = (kind.pair(), Log::default());
    let opening = Opening::default();
    let (given_up, record) = (opening.clone(), log.clone());
    let factory: Box<dyn FnOnce() -> Recorder> =
        Box::new(move || Recorder::new(&record).on_made(move |_| drop(given_up.take())));
    *opening.borrow_mut() = Some(event_loop.create_connection(factory, ()).sock(ours).into_future());
    let driven = opening.clone();
    let driver = event_loop.create_task(async move {
        let polled = driven.borrow_mut().as_mut().map(|opening| opening.now_or_never().is_none());
        assert_eq!(polled, Some(true));
        Ok(())
    });
    event_loop.run_until_complete(driver).unwrap();
    until(event_loop, || log.lost());
    assert_eq!(log.take(), [Told::Made, Told::Lost(None)]);
    peer_has_gone(event_loop, &peer);
}

fn peer_has_gone(event_loop: &TestLoop, peer: &Peer) {
    until(event_loop, || peer.ended());
}

fn a_boxed_protocol_is_called_like_any(event_loop: &TestLoop, kind: PairKind) {
    let (log, Pair { ours, peer }) = (Log::default(), kind.pair());
    let record = log.clone();
    let factory = move || -> Box<dyn Protocol> { Box::new(Recorder::new(&record)) };
    let opening = event_loop.create_connection(factory, ()).sock(ours);
    let (transport, protocol) = event_loop.run_until_complete(opening).unwrap();
    assert!(Rc::ptr_eq(&transport.get_protocol::<Box<dyn Protocol>>().unwrap(), &protocol));
    peer.send(b"abc");
    until(event_loop, || log.received_len() == 3);
    peer.half_close();
    until(event_loop, || log.lost());
    assert_eq!(log.joined(), [Told::Made, Told::Data(3), Told::Eof, Told::Lost(None)]);
}

fn transports_are_keys(event_loop: &TestLoop, kind: PairKind) {
    let (one, other) = (connect(event_loop, kind.pair()), connect(event_loop, kind.pair()));
    let mut room = std::collections::HashSet::new();
    assert!(room.insert(one.transport.clone()) && room.insert(other.transport.clone()));
    assert!(!room.insert(one.transport.clone()));
    assert!(room.remove(&other.transport) && room.contains(&one.transport));
    one.transport.close();
    other.transport.close();
    event_loop.ticks(2);
}

fn what_ends_while_it_is_lent_is_closed_after_that(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
    let number = transport.with_fd(|_| {
        transport.abort();
        event_loop.ticks(2);
        assert!(log.lost());
        transport.with_fd(|fd| std::os::fd::AsRawFd::as_raw_fd(&fd))
    });
    assert!(number.flatten().is_some(), "it stays open while it is lent");
    assert_eq!(transport.with_fd(|_| ()), None);
    peer_has_gone(event_loop, &peer);
    assert!(format!("{transport:?}").contains("closed"), "{transport:?}");
}

/// A loop that is dropped while a connection is being opened is gone, with all that it had.
#[test]
fn an_opener_does_not_keep_its_loop_alive() {
    let _deadline = crate::support::deadline();
    for unix in [false, true] {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("full");
        // Neither answers: the queues are full.
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let unix_listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let mut held = Vec::new();
        for listener in [tcp.as_fd(), unix_listener.as_fd()] {
            let listener = socket2::SockRef::from(&listener);
            listener.listen(0).unwrap();
            let address = listener.local_addr().unwrap();
            for _ in 0..3 {
                let socket = socket2::Socket::new(address.domain(), socket2::Type::STREAM, None).unwrap();
                socket.set_nonblocking(true).unwrap();
                let _ = socket.connect(&address);
                held.push(socket);
            }
        }
        let event_loop = asyncio::new_event_loop().unwrap();
        event_loop.set_exception_handler(Some(Rc::new(|_, _| ())));
        let address = tcp.local_addr().unwrap();
        let log = Log::default();
        let record = log.clone();
        if unix {
            let opening = event_loop.create_unix_connection(move || Recorder::new(&record), &path).into_future();
            event_loop.create_task(async move { opening.await.map(|_| ()) });
        } else {
            let opening = event_loop.create_connection(move || Recorder::new(&record), address).into_future();
            event_loop.create_task(async move { opening.await.map(|_| ()) });
        }
        for _ in 0..4 {
            event_loop.run_once(Duration::from_millis(1)).unwrap();
        }
        let remote = event_loop.threadsafe();
        drop(event_loop);
        assert!(remote.is_closed(), "somebody still holds the loop");
        assert_eq!(log.take(), []);
    }
}

#[test]
fn boxes_of_every_kind_are_protocols() {
    fn protocol<P: Protocol>() {}
    fn buffered<P: BufferedProtocol>() {}
    fn datagram<P: DatagramProtocol>() {}
    protocol::<Box<dyn Protocol>>();
    buffered::<Box<dyn BufferedProtocol>>();
    datagram::<Box<dyn DatagramProtocol>>();
}

/// A virtual clock stands while data is on its way that has come already, also where descriptors do not hold it.
#[test]
fn a_virtual_clock_does_not_jump_over_what_has_come() {
    let (event_loop, clock) = crate::support::virtual_loop();
    let _deadline = crate::support::deadline();
    let pair = PairKind::Socketpair.pair();
    let seen = Record::default();
    let (record, begin) = (seen.clone(), event_loop.time());
    let now = clock.clone();
    let Connected { transport, peer, .. } = connect_with(&event_loop, pair, |recorder| {
        recorder.on_data(move |_, _| record.push(asyncio::Clock::now(&now).duration_since(begin)))
    });
    transport.with_fd(|fd| event_loop.set_background(&fd, true));
    event_loop.call_later(Duration::from_secs(10), || ());
    peer.send(b"x");
    until(&event_loop, || seen.len() == 1);
    assert_eq!(seen.take(), [Duration::ZERO]);
    // Nothing is there any more: now it goes on.
    tick(&event_loop);
    event_loop.run_once(None).unwrap();
    assert_eq!(event_loop.time().duration_since(begin), Duration::from_secs(10));
    transport.abort();
    tick(&event_loop);
}
