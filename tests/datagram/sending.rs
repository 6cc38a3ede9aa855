//! What these tests show: sendto and try_sendto: where datagrams go, and what becomes of those that cannot.

use std::{cell::Cell, net::SocketAddr, path::Path, rc::Rc};

use asyncio::{AddrInfo, AddrInfoHints, Address, DatagramTransport, ErrorKind, Port, Resolver, Result};

use crate::{Call, Log, On, address, nobody, nothing_waits, receive, sockname, support::failure, udp};

on_each_selector! {
    a_connected_endpoint_sends_to_one_address
    a_name_is_compared_by_its_address
    an_endpoint_without_an_address_needs_one
    who_refuses_is_an_error_received_once
    the_next_datagram_may_hear_of_a_refusal_first
    nobody_hears_of_a_refusal_without_a_connection
    what_the_system_does_not_send_is_an_error_received
    an_error_inside_of_a_callback_comes_after_it
    nothing_is_a_datagram_too
    all_kinds_of_addresses_are_taken
    an_address_of_another_family_is_an_error_received
    question_and_answer_allocate_nothing
}

const REFUSED: Call = Call::Error(Some(libc::ECONNREFUSED));

/// UDP-002
fn a_connected_endpoint_sends_to_one_address(on: On) {
    let event_loop = on.event_loop();
    let log = Log::default();
    let remote = udp();
    let to = remote.local_addr().unwrap();
    let transport = event_loop.connected(&log, to);
    assert!(transport.try_sendto(b"1", None).is_ok());
    assert!(transport.try_sendto(b"2", to).is_ok());
    assert!(transport.try_sendto(b"3", Address::from(to)).is_ok());
    let other = SocketAddr::new(to.ip(), to.port() ^ 1);
    let expected = format!("Invalid address: must be None or {to}");
    assert_eq!(failure(transport.try_sendto(b"4", other)), (ErrorKind::Value, expected.clone()));
    let path = transport.try_sendto(b"4", Path::new("/nowhere"));
    assert_eq!(failure(path), (ErrorKind::Value, expected.clone()));
    assert_eq!(event_loop.reports.len(), 0);
    let line = line!() + 1;
    transport.sendto(b"5", other);
    let [report]: [_; 1] = event_loop.reports.take().try_into().unwrap();
    assert!(report.message.contains("sendto()"), "{}", report.message);
    assert_eq!(report.exception.unwrap().to_string(), expected);
    assert_eq!(report.socket, transport.get_extra_info(asyncio::SOCKET));
    let place = report.source_location.unwrap();
    assert_eq!((place.line(), place.file().ends_with("sending.rs")), (line, true));
    assert!(report.extra["transport"].contains("DatagramTransport"));

    event_loop.ticks(2);
    assert!(!transport.is_closing());
    transport.sendto(b"6", None);
    let received: Vec<_> = (0..4).map(|_| receive(&remote).0).collect();
    assert_eq!(received, [b"1", b"2", b"3", b"6"]);
    assert!(nothing_waits(&remote));
    assert_eq!(log.take(), [Call::Made]);
}

/// UDP-003
fn a_name_is_compared_by_its_address(on: On) {
    struct Here;
    impl Resolver for Here {
        fn getaddrinfo(&self, host: Option<&str>, port: &Port, hints: AddrInfoHints) -> Result<Vec<AddrInfo>> {
            let (Some("localhost"), Port::Number(port)) = (host, port) else { panic!("{host:?} {port}") };
            Ok(vec![AddrInfo::new(([127, 0, 0, 1], *port).into(), hints.socket_type)])
        }
    }
    let event_loop = on.event_loop();
    event_loop.set_resolver(Here).unwrap();
    let remote = udp();
    let port = remote.local_addr().unwrap().port();
    let transport = event_loop.connected(&Log::default(), ("localhost", port));
    assert!(transport.try_sendto(b"x", SocketAddr::from(([127, 0, 0, 1], port))).is_ok());
    let other = transport.try_sendto(b"x", SocketAddr::from(([127, 0, 0, 2], port)));
    assert_eq!(failure(other).0, ErrorKind::Value);
    assert_eq!(receive(&remote), (b"x".to_vec(), sockname(&transport)));
    assert!(nothing_waits(&remote));
}

fn an_endpoint_without_an_address_needs_one(on: On) {
    let event_loop = on.event_loop();
    let log = Log::default();
    let transport = event_loop.bound(&log);
    assert_eq!(failure(transport.try_sendto(b"x", None)).0, ErrorKind::Value);
    transport.sendto(b"x", None);
    let reports = event_loop.take_reports();
    assert!(reports.len() == 1 && reports[0].0.contains("sendto()"), "{reports:?}");
    event_loop.ticks(2);
    let peer = udp();
    transport.sendto(b"y", peer.local_addr().unwrap());
    assert_eq!(receive(&peer).0, b"y");
    assert_eq!(log.take(), [Call::Made], "it is open and was told nothing");
}

/// UDP-006
fn who_refuses_is_an_error_received_once(on: On) {
    let event_loop = on.event_loop();
    let log = Log::default();
    let remote = nobody();
    let transport = event_loop.connected(&log, remote.local_addr().unwrap());
    transport.sendto(b"lost", None);
    event_loop.until(|| log.len() == 2);
    event_loop.ticks(5);
    assert_eq!(log.take(), [Call::Made, REFUSED]);
    assert!(!transport.is_closing());
    // Somebody listens now.
    remote.connect(sockname(&transport).as_inet().unwrap()).unwrap();
    transport.sendto(b"heard", None);
    assert_eq!(receive(&remote).0, b"heard");
    remote.send(b"answer").unwrap();
    event_loop.until(|| log.len() == 1);
    assert_eq!(log.take(), [Call::Received(b"answer".to_vec(), address(&remote))]);
}

/// UDP-006
fn the_next_datagram_may_hear_of_a_refusal_first(on: On) {
    let event_loop = on.event_loop();
    let log = Log::default();
    let remote = nobody();
    let transport = event_loop.connected(&log, remote.local_addr().unwrap());
    assert_eq!(log.take(), [Call::Made]);
    transport.sendto(b"lost", None);
    assert_eq!(log.len(), 0);
    transport.sendto(b"told", None);
    assert_eq!(log.take(), [REFUSED], "when the call returns");
    event_loop.ticks(5);
    assert_eq!(log.take(), []);
    assert!(!transport.is_closing());
}

/// UDP-008
fn nobody_hears_of_a_refusal_without_a_connection(on: On) {
    let event_loop = on.event_loop();
    let log = Log::default();
    let transport = event_loop.bound(&log);
    let to = nobody();
    for _ in 0..3 {
        transport.sendto(b"x", to.local_addr().unwrap());
        event_loop.ticks(3);
    }
    assert_eq!(log.take(), [Call::Made]);
}

/// UDP-009
fn what_the_system_does_not_send_is_an_error_received(on: On) {
    let event_loop = on.event_loop();
    let log = Log::default();
    let transport = event_loop.bound(&log);
    let peer = udp();
    let to = peer.local_addr().unwrap();
    assert_eq!(log.take(), [Call::Made]);
    transport.sendto(&[0; 70_000], to);
    assert_eq!(log.take(), [Call::Error(Some(libc::EMSGSIZE))], "when the call returns");
    transport.sendto(b"x", SocketAddr::from(([255; 4], to.port())));
    assert_eq!(log.take(), [Call::Error(Some(libc::EACCES))]);
    assert!(transport.try_sendto(&[0; 70_000], to).is_ok(), "it is no mistake of the caller's");
    assert_eq!(log.take(), [Call::Error(Some(libc::EMSGSIZE))]);
    event_loop.ticks(2);
    assert!(!transport.is_closing() && transport.get_write_buffer_size() == 0);
    transport.sendto(&[7; 65_507], to);
    assert_eq!(receive(&peer).0, [7; 65_507]);
    assert_eq!(log.take(), []);
}

fn an_error_inside_of_a_callback_comes_after_it(on: On) {
    let event_loop = on.event_loop();
    let peer = udp();
    let to = peer.local_addr().unwrap();
    let sends = Cell::new(2);
    let inside = Rc::new(Cell::new(false));
    let seen = inside.clone();
    let log = Log::hooked(move |call, transport| {
        assert!(!seen.replace(true), "one call at a time");
        if !matches!(call, Call::Received(..)) && sends.get() > 0 {
            sends.set(sends.get() - 1);
            transport.sendto(&[0; 70_000], to);
            transport.sendto(b"good", to);
        }
        seen.set(false);
    });
    let transport = event_loop.bound(&log);
    let error = Call::Error(Some(libc::EMSGSIZE));
    assert_eq!(log.take(), [Call::Made, error.clone(), error], "the second one because of the first");
    assert_eq!([receive(&peer).0, receive(&peer).0], [b"good", b"good"]);
    assert!(!transport.is_closing() && !inside.get());
}

fn nothing_is_a_datagram_too(on: On) {
    let event_loop = on.event_loop();
    let log = Log::default();
    let transport = event_loop.bound(&log);
    let peer = udp();
    transport.sendto(b"", peer.local_addr().unwrap());
    assert_eq!(receive(&peer), (Vec::new(), sockname(&transport)));
    let to = sockname(&transport).as_inet().unwrap();
    peer.send_to(b"", to).unwrap();
    peer.send_to(b"x", to).unwrap();
    peer.send_to(b"", to).unwrap();
    event_loop.until(|| log.len() == 4);
    assert_eq!(log.take_data(), [&b""[..], b"x", b""]);
    let connected = event_loop.connected(&Log::default(), peer.local_addr().unwrap());
    connected.sendto(b"", None);
    assert_eq!(receive(&peer), (Vec::new(), sockname(&connected)));
}

fn all_kinds_of_addresses_are_taken(on: On) {
    let event_loop = on.event_loop();
    let transport = event_loop.bound(&Log::default());
    let peer = udp();
    let to = peer.local_addr().unwrap();
    let SocketAddr::V4(four) = to else { panic!("{to}") };
    let ways: [fn(&DatagramTransport, SocketAddr); 6] = [
        |transport, to| transport.sendto(b"x", to),
        |transport, to| {
            let borrowed: &SocketAddr = &to;
            transport.sendto(b"x", borrowed);
        },
        |transport, to| transport.sendto(b"x", Address::from(to)),
        |transport, to| {
            let borrowed: &Address = &to.into();
            transport.sendto(b"x", borrowed);
        },
        |transport, to| transport.sendto(b"x", Some(Address::from(to))),
        |transport, to| transport.sendto(b"x", (to.ip(), to.port())),
    ];
    for way in ways {
        way(&transport, to);
        assert_eq!(receive(&peer).0, b"x");
    }
    transport.sendto(b"x", four);
    assert_eq!(receive(&peer).0, b"x");
}

fn an_address_of_another_family_is_an_error_received(on: On) {
    let event_loop = on.event_loop();
    let log = Log::default();
    let transport = event_loop.bound(&log);
    assert_eq!(log.take(), [Call::Made]);
    transport.sendto(b"x", SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 9)));
    transport.sendto(b"x", Path::new("/nowhere"));
    assert!(matches!(&log.take()[..], [Call::Error(Some(_)), Call::Error(Some(_))]));
    assert_eq!(failure(transport.try_sendto(b"x", Path::new("a\0b"))).0, ErrorKind::Value);
    let long = Path::new("/nowhere").join("x".repeat(200));
    assert_eq!(failure(transport.try_sendto(b"x", long)).0, ErrorKind::Io);
    assert!(!transport.is_closing());
}

fn question_and_answer_allocate_nothing(on: On) {
    let event_loop = on.event_loop();
    struct Player {
        transport: Option<DatagramTransport>,
        stop: asyncio::EventLoop,
        left: Rc<Cell<u64>>,
        allocated: Rc<Cell<u64>>,
    }
    impl asyncio::DatagramProtocol for Player {
        fn connection_made(&mut self, transport: &DatagramTransport) {
            self.transport = Some(transport.clone());
        }

        fn datagram_received(&mut self, data: &[u8], sender: &Address) {
            match self.left.get() {
                0 => return self.stop.stop(),
                1 => self.allocated.set(crate::counting::allocations() - self.allocated.get()),
                // By then everything has its size.
                2000 => self.allocated.set(crate::counting::allocations()),
                _ => {}
            }
            self.left.set(self.left.get() - 1);
            self.transport.as_ref().unwrap().sendto(data, sender);
        }

        fn connection_lost(&mut self, _: Option<&asyncio::Error>) {
            self.transport = None;
        }
    }
    let (left, allocated) = (Rc::new(Cell::new(2500)), Rc::new(Cell::new(0)));
    let player = || Player {
        transport: None,
        stop: event_loop.event_loop.clone(),
        left: left.clone(),
        allocated: allocated.clone(),
    };
    let (server, _) = event_loop.run(event_loop.create_datagram_endpoint(player).local_addr(("127.0.0.1", 0)));
    let remote = sockname(&server).as_inet().unwrap();
    let (client, _) = event_loop.run(event_loop.create_datagram_endpoint(player).remote_addr(remote));
    client.sendto(&[1; 1000], None);
    event_loop.run_forever().unwrap();
    assert_eq!((left.get(), allocated.get()), (0, 0));
    client.close();
    server.close();
    event_loop.ticks(1);
}
