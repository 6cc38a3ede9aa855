//! close, abort, connection_lost, and what comes after them.

use std::{
    io,
    os::{fd::RawFd, unix::net::UnixDatagram},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use asyncio::{
    Address, DatagramProtocol, ErrorKind, EventLoop, PEERNAME, SOCKET, SOCKNAME,
    selector::{Event, Interest, Mode, ParkSelector, Selector, SelectorWaker},
};

use crate::{Call, Log, Logging, On, TestLoop, is_gone, is_there, nothing_waits, sockname, support::failure, udp};

on_each_selector! {
    nothing_is_sent_after_close
    close_is_told_in_the_next_iteration_and_once
    what_waits_when_it_is_closed_is_not_received
    addresses_outlive_the_end
    the_protocol_is_let_go
    a_handle_that_is_dropped_closes_nothing
    closing_the_loop_tells_nobody
}

/// UDP-005
fn nothing_is_sent_after_close(on: On) {
    let event_loop = on.event_loop();
    let peer = udp();
    let to = peer.local_addr().unwrap();
    let other = udp().local_addr().unwrap();
    for connected in [true, false] {
        let log = Log::default();
        let transport = if connected { event_loop.connected(&log, to) } else { event_loop.bound(&log) };
        assert_eq!(log.take(), [Call::Made]);
        let send = || {
            if connected {
                transport.sendto(b"late", None);
                assert!(transport.try_sendto(b"late", None).is_ok());
            }
            for to in [to, other] {
                // Also to where it must not be sent, and what is too large.
                transport.sendto(b"late", to);
                transport.sendto(&[0; 70_000], to);
                assert!(transport.try_sendto(b"late", to).is_ok());
            }
            assert!(transport.try_sendto(b"late", None).is_ok());
            assert_eq!(transport.get_write_buffer_size(), 0);
        };
        let in_callback = transport.clone();
        log.set_hook(move |call, _| {
            assert_eq!(*call, Call::Lost(None));
            in_callback.sendto(b"late", None);
        });
        transport.close();
        send();
        event_loop.ticks(1);
        assert_eq!(log.take(), [Call::Lost(None)]);
        send();
        transport.close();
        transport.abort();
        event_loop.ticks(3);
        assert_eq!(log.take(), [], "no second connection_lost, no error_received");
        assert!(nothing_waits(&peer));
    }
    assert_eq!(event_loop.take_reports(), []);
}

/// UDP-005, beside TCP-004 and TCP-005
fn close_is_told_in_the_next_iteration_and_once(on: On) {
    let event_loop = on.event_loop();
    for abort_first in [false, true] {
        let log = Log::default();
        let (transport, theirs) = event_loop.paired(&log);
        if abort_first {
            transport.abort();
        }
        transport.close();
        transport.close();
        transport.abort();
        transport.close();
        assert!(transport.is_closing() && transport.with_fd(|_| ()).is_some());
        assert_eq!(log.take(), [Call::Made]);
        assert!(is_there(&theirs));
        event_loop.ticks(1);
        assert_eq!(log.take(), [Call::Lost(None)]);
        assert!(transport.is_closing() && transport.with_fd(|_| ()).is_none());
        assert!(is_gone(&theirs));
        event_loop.ticks(2);
        assert_eq!(log.take(), []);
    }
}

/// UDP-005, beside TCP-006
fn what_waits_when_it_is_closed_is_not_received(on: On) {
    let event_loop = on.event_loop();
    let log = Log::default();
    let (transport, theirs) = event_loop.paired(&log);
    theirs.send(b"unread").unwrap();
    transport.close();
    event_loop.ticks(3);
    assert_eq!(log.take(), [Call::Made, Call::Lost(None)]);
}

/// UDP-005, beside TCP-024
fn addresses_outlive_the_end(on: On) {
    let event_loop = on.event_loop();
    let peer = udp();
    let transport = event_loop.connected(&Log::default(), peer.local_addr().unwrap());
    let looks = || (transport.get_extra_info(SOCKNAME), transport.get_extra_info(PEERNAME));
    let before = looks();
    assert!(before.0.is_some() && before.1.is_some());
    let number = transport.get_extra_info(SOCKET);
    transport.close();
    event_loop.ticks(1);
    assert_eq!((looks(), transport.get_extra_info(SOCKET)), (before, number));
    transport.set_write_buffer_limits(10, 5).unwrap();
    assert_eq!(failure(transport.set_write_buffer_limits(5, 10)).0, ErrorKind::Value);
    assert!(!transport.is_write_paused());
}

fn the_protocol_is_let_go(on: On) {
    let event_loop = on.event_loop();
    let open = event_loop.create_datagram_endpoint(Log::default().protocol()).local_addr(("127.0.0.1", 0));
    let (transport, protocol) = event_loop.run(open);
    assert_eq!(Rc::strong_count(&protocol), 2);
    transport.close();
    assert!(transport.get_protocol::<Logging>().is_some());
    event_loop.ticks(1);
    assert_eq!(Rc::strong_count(&protocol), 1);
    assert!(transport.get_protocol::<Logging>().is_none());
    transport.set_protocol(protocol.clone());
    assert_eq!(Rc::strong_count(&protocol), 1, "too late");
}

fn a_handle_that_is_dropped_closes_nothing(on: On) {
    let event_loop = on.event_loop();
    let log = Log::default();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    struct Quiet(Log);
    impl DatagramProtocol for Quiet {
        fn datagram_received(&mut self, data: &[u8], sender: &Address) {
            self.0.calls.push(Call::Received(data.to_vec(), sender.clone()));
        }
    }
    drop(event_loop.run(event_loop.create_datagram_endpoint(|| Quiet(log.clone())).sock(ours)));
    theirs.send(b"x").unwrap();
    event_loop.until(|| log.len() == 1);
    assert_eq!(log.take_data(), [b"x"]);
}

fn closing_the_loop_tells_nobody(on: On) {
    let event_loop = on.event_loop();
    event_loop.set_debug(true);
    let log = Log::default();
    let (transport, theirs) = event_loop.paired(&log);
    let (closed, _) = event_loop.paired(&Log::default());
    closed.close();
    assert_eq!(log.take(), [Call::Made]);
    let (result, lines) = crate::support::logs(|| event_loop.close());
    result.unwrap();
    assert!(is_gone(&theirs));
    assert!(transport.is_closing() && transport.with_fd(|_| ()).is_none());
    assert!(transport.get_extra_info(SOCKNAME).is_some());
    transport.sendto(b"x", None);
    transport.close();
    transport.abort();
    assert_eq!(log.take(), []);
    let warnings: Vec<_> = lines.iter().filter(|(_, text)| text.contains("unclosed transport")).collect();
    assert!(warnings.len() == 1 && warnings[0].1.contains("DatagramTransport"), "{lines:?}");
}

/// A selector that takes no descriptor.
struct Full(ParkSelector);

impl Selector for Full {
    fn register(&mut self, _: RawFd, _: usize, _: Interest, _: Mode) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::ENOSPC))
    }

    fn modify(&mut self, _: RawFd, _: usize, _: Interest, _: Mode) -> io::Result<()> {
        Ok(())
    }

    fn deregister(&mut self, _: RawFd) -> io::Result<()> {
        Ok(())
    }

    fn select(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        self.0.select(events, timeout)
    }

    fn waker(&self) -> Arc<dyn SelectorWaker> {
        self.0.waker()
    }
}

#[test]
fn the_error_that_ends_it_is_told() {
    let event_loop = TestLoop::new(EventLoop::builder().selector(Full(ParkSelector::new())));
    let log = Log::default();
    let transport = event_loop.bound(&log);
    event_loop.ticks(2);
    assert!(transport.is_closing());
    let calls = log.take();
    assert!(matches!(&calls[..], [Call::Made, Call::Lost(Some(text))] if text.contains("space")), "{calls:?}");
    assert!(sockname(&transport).as_inet().is_some());
}
