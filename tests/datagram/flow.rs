//! What these tests show: water marks: what waits to be sent, and when the protocol is told.

use std::{os::unix::net::UnixDatagram, path::PathBuf};

use asyncio::{Address, DatagramTransport, ErrorKind};

use crate::{Call, Log, On, TestLoop, support::failure};

on_each_selector! {
    the_limits_are_the_usual_ones
    limits_are_checked
    what_waits_counts_with_its_headers
    each_crossing_is_told_once
    pausing_inside_of_a_callback_comes_after_it
    an_error_while_sending_drops_one_datagram
    a_full_receiver_costs_no_turns
}

/// A receiver without room, and an endpoint that sends to it: connected, or to its path.
pub(crate) struct Full {
    pub(crate) transport: DatagramTransport,
    /// Where to send.
    pub(crate) to: Option<Address>,
    receiver: UnixDatagram,
    /// Whose datagrams lie in the receiver.
    _fillers: Vec<UnixDatagram>,
    _folder: tempfile::TempDir,
}

impl Full {
    pub(crate) fn new(event_loop: &TestLoop, log: &Log, connected: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path: PathBuf = folder.path().join("receiver");
        let receiver = UnixDatagram::bind(&path).unwrap();
        receiver.set_nonblocking(true).unwrap();
        let open = event_loop.create_datagram_endpoint(log.protocol()).family(asyncio::socket::AF_UNIX);
        let open = if connected { open.remote_addr(path.as_path()) } else { open };
        let (transport, _) = event_loop.run(open);
        let mut fillers = Vec::new();
        loop {
            let filler = UnixDatagram::unbound().unwrap();
            filler.set_nonblocking(true).unwrap();
            let sent = (0..).take_while(|_| filler.send_to(b"fill", &path).is_ok()).count();
            fillers.push(filler);
            if sent == 0 {
                break;
            }
        }
        let to = (!connected).then_some(Address::UnixPath(path));
        Full { transport, to, receiver, _fillers: fillers, _folder: folder }
    }

    pub(crate) fn send(&self, data: &[u8]) {
        self.transport.sendto(data, self.to.clone());
    }

    /// What is there, without what filled it.
    pub(crate) fn drain(&self) -> Vec<Vec<u8>> {
        let mut buffer = [0; 5000];
        let datagram = || self.receiver.recv(&mut buffer).ok().map(|count| buffer[..count].to_vec());
        std::iter::from_fn(datagram).filter(|data| data != b"fill").collect()
    }
}

/// FLW-001
fn the_limits_are_the_usual_ones(on: On) {
    let event_loop = on.event_loop();
    let transports = [event_loop.bound(&Log::default()), event_loop.paired(&Log::default()).0];
    for transport in transports {
        assert_eq!(transport.get_write_buffer_limits(), (16_384, 65_536));
        assert_eq!((transport.get_write_buffer_size(), transport.is_write_paused()), (0, false));
    }
}

/// FLW-001, beside FLW-002 and FLW-003
fn limits_are_checked(on: On) {
    let event_loop = on.event_loop();
    let transport = event_loop.bound(&Log::default());
    for (high, low, limits) in [
        (Some(100_000), None, (25_000, 100_000)),
        (None, Some(1000), (1000, 4000)),
        (Some(0), None, (0, 0)),
        (Some(7), Some(7), (7, 7)),
        (None, None, (16_384, 65_536)),
    ] {
        transport.set_write_buffer_limits(high, low).unwrap();
        assert_eq!(transport.get_write_buffer_limits(), limits);
    }
    let (kind, text) = failure(transport.set_write_buffer_limits(10, 11));
    assert!(kind == ErrorKind::Value && text.contains("high") && text.contains("low"), "{text}");
    assert_eq!(transport.get_write_buffer_limits(), (16_384, 65_536));
}

fn what_waits_counts_with_its_headers(on: On) {
    for connected in [true, false] {
        let event_loop = on.event_loop();
        let full = Full::new(&event_loop, &Log::default(), connected);
        let mut size = 0;
        for length in [0, 1, 100, 4000] {
            full.send(&vec![b'x'; length]);
            size += length + 8;
            assert_eq!(full.transport.get_write_buffer_size(), size);
        }
        let looks = format!("{:?}", full.transport);
        assert!(looks.contains(&format!("write=<polling, bufsize={size}>")), "{looks}");
        let mut received = Vec::new();
        while received.len() < 4 {
            received.extend(full.drain());
            event_loop.run_once(std::time::Duration::from_millis(10)).unwrap();
        }
        assert_eq!(received.iter().map(Vec::len).collect::<Vec<_>>(), [0, 1, 100, 4000]);
        event_loop.until(|| full.transport.get_write_buffer_size() == 0);
        assert_eq!(event_loop.next_deadline(), None, "nothing is tried any more");
    }
}

/// UDP-019, beside FLW-004, FLW-005 and FLW-006
fn each_crossing_is_told_once(on: On) {
    for connected in [true, false] {
        let event_loop = on.event_loop();
        let log = Log::default();
        let full = Full::new(&event_loop, &log, connected);
        assert_eq!(log.take(), [Call::Made]);
        full.transport.set_write_buffer_limits(1080, 500).unwrap();
        (0..10).for_each(|_| full.send(&[1; 100]));
        assert_eq!((log.take(), full.transport.is_write_paused()), (vec![], false), "exactly at the mark");
        full.send(b"");
        assert_eq!((log.take(), full.transport.is_write_paused()), (vec![Call::Pause], true), "when the call returns");
        full.send(&[1; 100]);
        assert_eq!(log.take(), []);
        let transport = full.transport.clone();
        log.set_hook(move |call, _| {
            assert_eq!(*call, Call::Resume);
            assert!(transport.get_write_buffer_size() <= 500 && !transport.is_write_paused());
        });
        let mut received = 0;
        while received < 12 {
            received += full.drain().len();
            event_loop.run_once(std::time::Duration::from_millis(10)).unwrap();
        }
        event_loop.until(|| full.transport.get_write_buffer_size() == 0);
        assert_eq!(log.take(), [Call::Resume]);
    }
}

fn pausing_inside_of_a_callback_comes_after_it(on: On) {
    for connected in [true, false] {
        let event_loop = on.event_loop();
        let log = Log::default();
        let full = Full::new(&event_loop, &log, connected);
        let to = full.to.clone();
        let seen = log.clone();
        log.set_hook(move |call, transport| {
            if *call == Call::Error(None) {
                panic!("of its own");
            }
            if matches!(call, Call::Error(_)) {
                transport.set_write_buffer_limits(0, 0).unwrap();
                transport.sendto(b"x", to.clone());
                assert!(transport.is_write_paused(), "also inside");
                assert!(!seen.calls.items().contains(&Call::Pause));
            }
        });
        // Too large for any datagram.
        full.send(&vec![0; 8 << 20]);
        assert_eq!(log.take(), [Call::Made, Call::Error(Some(libc::EMSGSIZE)), Call::Pause]);
        full.transport.abort();
        event_loop.ticks(1);
        assert_eq!(log.take(), [Call::Lost(None)]);
    }
}

fn an_error_while_sending_drops_one_datagram(on: On) {
    for connected in [true, false] {
        let event_loop = on.event_loop();
        let log = Log::default();
        let full = Full::new(&event_loop, &log, connected);
        full.send(b"first");
        full.send(&vec![0; 8 << 20]);
        full.send(b"last");
        assert_eq!(log.take(), [Call::Made, Call::Pause], "it is tried later");
        full.transport.close();
        let mut received = Vec::new();
        while log.calls.items().last() != Some(&Call::Lost(None)) {
            received.extend(full.drain());
            event_loop.run_once(std::time::Duration::from_millis(10)).unwrap();
        }
        received.extend(full.drain());
        assert_eq!(received, [&b"first"[..], b"last"]);
        let calls = log.take();
        assert_eq!(calls[calls.len() - 1], Call::Lost(None));
        assert_eq!(calls.iter().filter(|call| **call == Call::Error(Some(libc::EMSGSIZE))).count(), 1);
        assert_eq!(calls.iter().filter(|call| **call == Call::Resume).count(), 1);
        assert_eq!(calls.len(), 3);
    }
}

/// UDP-019
fn a_full_receiver_costs_no_turns(on: On) {
    for connected in [true, false] {
        let (event_loop, _clock) = on.virtual_loop();
        let log = Log::default();
        let full = Full::new(&event_loop, &log, connected);
        full.transport.with_fd(|fd| event_loop.set_background(&fd, true));
        full.send(b"waits");
        event_loop.ticks(2);
        for _ in 0..50 {
            assert_eq!(event_loop.run_once(std::time::Duration::ZERO).unwrap(), 0, "connected: {connected}");
        }
        // Where the system does not tell, a timer looks again; not often.
        let begin = event_loop.time();
        let runs = std::iter::repeat_with(|| event_loop.run_once(std::time::Duration::from_millis(1)).unwrap());
        let ran: usize = runs.take(100).sum();
        let passed = event_loop.time() - begin;
        assert!(if connected { ran == 0 } else { (1..=50).contains(&ran) }, "{ran} in {passed:?}");
        full.transport.abort();
        event_loop.ticks(1);
        assert_eq!(log.take(), [Call::Made, Call::Lost(None)]);
    }
}
