//! create_datagram_endpoint: arguments, addresses, sockets.

use std::{
    cell::Cell,
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd},
        unix::net::{UnixDatagram, UnixStream},
    },
    path::Path,
    rc::Rc,
};

use asyncio::{
    AddrInfo, AddrInfoHints, Address, CreateDatagramEndpoint, DatagramTransport, ErrorKind, PEERNAME, PIPE, Port,
    Resolver, Result, SOCKET, socket,
};
use socket2::SockRef;

use crate::{Call, Log, Logging, On, address, nothing_waits, receive, sockname, support::failure, udp};

on_each_selector! {
    a_server_and_a_client_know_each_other
    sockets_have_no_options_that_were_not_asked_for
    an_address_or_a_family_is_needed
    a_family_alone_is_any_address
    two_addresses_need_one_family
    a_socket_goes_with_no_other_argument
    only_a_datagram_socket_will_do
    a_socket_is_taken_as_it_is
    an_address_that_is_not_ours_is_an_error
    nothing_is_done_for_arguments_that_contradict_each_other
    names_are_looked_up_with_everything_that_was_asked_for
    addresses_of_one_family_go_together
    the_next_family_is_tried_and_the_first_error_given
    no_host_is_any_interface_or_this_machine
    one_host_at_a_time
    a_name_that_is_not_found_is_an_error
    ipv6_works_as_ipv4
    two_sockets_share_a_port
    broadcasts_are_sent_and_answered
    a_closed_loop_opens_nothing
    what_is_not_awaited_opens_nothing
    an_endpoint_is_known_by_its_looks
}

fn option(transport: &DatagramTransport, look: impl Fn(SockRef<'_>) -> io::Result<bool>) -> bool {
    transport.with_fd(|fd| look(SockRef::from(&fd))).unwrap().unwrap()
}

fn is_nonblocking(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::fcntl_getfl(fd).unwrap().contains(rustix::fs::OFlags::NONBLOCK)
}

/// UDP-001
fn a_server_and_a_client_know_each_other(on: On) {
    let event_loop = on.event_loop();
    let server_log = Log::hooked(|call, transport| {
        if let Call::Received(data, sender) = call {
            transport.sendto(&[b"resp:", data.as_slice()].concat(), sender);
        }
    });
    let server = event_loop.bound(&server_log);
    let server_address = sockname(&server);
    let client_log = Log::default();
    let (client, protocol) = event_loop
        .run(event_loop.create_datagram_endpoint(client_log.protocol()).remote_addr(server_address.as_inet().unwrap()));
    assert!(client.get_protocol::<Logging>().is_some_and(|ours| Rc::ptr_eq(&ours, &protocol)));
    assert_eq!(client_log.take(), [Call::Made]);
    client.sendto(b"xxx", None);
    event_loop.until(|| client_log.len() == 1);
    let client_address = sockname(&client);
    assert_eq!(server_log.take(), [Call::Made, Call::Received(b"xxx".to_vec(), client_address.clone())]);
    assert_eq!(client_log.take(), [Call::Received(b"resp:xxx".to_vec(), server_address.clone())]);

    assert_eq!(client.get_extra_info(PEERNAME), Some(server_address.clone()));
    assert_eq!(server.get_extra_info(PEERNAME), None);
    for (transport, name) in [(&client, &client_address), (&server, &server_address)] {
        assert!(name.as_inet().is_some_and(|inet| inet.ip() == Ipv4Addr::LOCALHOST && inet.port() != 0));
        let number = transport.with_fd(|fd| fd.as_raw_fd());
        assert_eq!(transport.get_extra_info(SOCKET), number);
        assert!(transport.get_extra_info(PIPE).is_none());
        assert_eq!(transport.with_fd(is_nonblocking), Some(true));
    }
}

/// UDP-011
fn sockets_have_no_options_that_were_not_asked_for(on: On) {
    let event_loop = on.event_loop();
    let options = |transport: &DatagramTransport| {
        [
            option(transport, |socket| socket.reuse_port()),
            option(transport, |socket| socket.reuse_address()),
            option(transport, |socket| socket.broadcast()),
        ]
    };
    let open = || event_loop.create_datagram_endpoint(Log::default().protocol()).local_addr(("127.0.0.1", 0));
    assert_eq!(options(&event_loop.run(open()).0), [false; 3]);
    let off = open().reuse_port(false).allow_broadcast(false);
    assert_eq!(options(&event_loop.run(off).0), [false; 3]);
    let both = open().reuse_port(true).allow_broadcast(true);
    assert_eq!(options(&event_loop.run(both).0), [true, false, true]);
    assert_eq!(options(&event_loop.run(open().reuse_port(true)).0), [true, false, false]);
    assert_eq!(options(&event_loop.run(open().allow_broadcast(true)).0), [false, false, true]);
}

/// UDP-012
fn an_address_or_a_family_is_needed(on: On) {
    let event_loop = on.event_loop();
    let called = Cell::new(false);
    let factory = || {
        called.set(true);
        Log::default().protocol()()
    };
    let nothing = event_loop.create_datagram_endpoint(factory).local_addr(()).family(socket::AF_UNSPEC);
    let (kind, text) = failure(event_loop.run_until_complete(nothing));
    assert!(kind == ErrorKind::Value && text.contains("family"), "{text}");
    assert!(!called.get());
}

/// UDP-012
fn a_family_alone_is_any_address(on: On) {
    let event_loop = on.event_loop();
    let log = Log::default();
    let open = |family| event_loop.create_datagram_endpoint(log.protocol()).family(family);
    let (transport, _) = event_loop.run(open(socket::AF_INET));
    assert_eq!(sockname(&transport), Address::Inet("0.0.0.0:0".parse().unwrap()));
    assert_eq!(transport.get_extra_info(PEERNAME), None);

    // It can send, and be answered then.
    let peer = udp();
    transport.sendto(b"x", peer.local_addr().unwrap());
    let (data, sender) = receive(&peer);
    let port = sender.as_inet().unwrap().port();
    assert_eq!((data, sockname(&transport)), (b"x".to_vec(), SocketAddr::from(([0, 0, 0, 0], port)).into()));
    peer.send_to(b"y", ("127.0.0.1", port)).unwrap();
    event_loop.until(|| log.len() == 2);
    assert_eq!(log.take(), [Call::Made, Call::Received(b"y".to_vec(), address(&peer))]);

    let (unix, _) = event_loop.run(open(socket::AF_UNIX));
    assert_eq!((sockname(&unix), unix.get_extra_info(PEERNAME)), (Address::Unnamed, None));
    assert_eq!(event_loop.fail(open(12_345)).raw_os_error(), Some(libc::EAFNOSUPPORT));
    let wrong = open(socket::AF_INET).proto(socket::IPPROTO_TCP);
    assert_eq!(event_loop.fail(wrong).raw_os_error(), Some(libc::EPROTONOSUPPORT));
}

/// UDP-013
fn two_addresses_need_one_family(on: On) {
    let event_loop = on.event_loop();
    let open = || event_loop.create_datagram_endpoint(|| -> Logging { unreachable!() });
    let texts = open().local_addr(("::1", 0)).remote_addr(("127.0.0.1", 1));
    assert_eq!(event_loop.fail(texts).kind(), ErrorKind::Value);
    let (six, four) = (SocketAddr::from(([0; 8], 0)), SocketAddr::from(([127, 0, 0, 1], 1)));
    let addresses = open().local_addr(six).remote_addr(four);
    assert_eq!(event_loop.fail(addresses).kind(), ErrorKind::Value);
    let path = open().local_addr(Path::new("/nowhere/a")).remote_addr(four);
    assert_eq!(event_loop.fail(path).kind(), ErrorKind::Value);
}

/// UDP-014
fn a_socket_goes_with_no_other_argument(on: On) {
    let event_loop = on.event_loop();
    type Setter = fn(CreateDatagramEndpoint<'static, Logging>) -> CreateDatagramEndpoint<'static, Logging>;
    let setters: [(&str, Setter); 7] = [
        ("local_addr", |open| open.local_addr(("127.0.0.1", 0))),
        ("remote_addr", |open| open.remote_addr(("127.0.0.1", 1))),
        ("family", |open| open.family(socket::AF_INET)),
        ("proto", |open| open.proto(socket::IPPROTO_UDP)),
        ("flags", |open| open.flags(socket::AI_PASSIVE)),
        ("reuse_port", |open| open.reuse_port(true)),
        ("allow_broadcast", |open| open.allow_broadcast(true)),
    ];
    let open = || event_loop.create_datagram_endpoint(|| -> Logging { unreachable!() }).sock(udp());
    for (name, set) in setters {
        let (kind, text) = failure(event_loop.run_until_complete(set(open())));
        assert!(kind == ErrorKind::Value && text.contains(name), "{name}: {text}");
        let others = setters.iter().filter(|(other, _)| *other != name);
        assert!(others.into_iter().all(|(other, _)| !text.contains(&format!("{other}="))), "{name}: {text}");
    }
    let all = setters.iter().fold(open(), |open, (_, set)| set(open));
    let (kind, text) = failure(event_loop.run_until_complete(all));
    assert!(kind == ErrorKind::Value && setters.iter().all(|(name, _)| text.contains(name)), "{text}");
    // Unless they say nothing.
    let log = Log::default();
    let open = event_loop.create_datagram_endpoint(log.protocol()).local_addr(()).remote_addr(()).family(0).proto(0);
    event_loop.run(open.flags(0).reuse_port(false).allow_broadcast(false).sock(udp()));
    assert_eq!(log.take(), [Call::Made]);
}

/// UDP-014
fn only_a_datagram_socket_will_do(on: On) {
    let event_loop = on.event_loop();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (pipe, _) = rustix::pipe::pipe().unwrap();
    let packets = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::SEQPACKET, None).unwrap();
    let (stream, peer) = UnixStream::pair().unwrap();
    let wrong: [OwnedFd; 4] = [tcp.into(), pipe, packets.into(), stream.into()];
    for sock in wrong {
        let open = event_loop.create_datagram_endpoint(|| -> Logging { unreachable!() }).sock(sock);
        let (kind, text) = failure(event_loop.run_until_complete(open));
        assert!(kind == ErrorKind::Value && text.contains("datagram"), "{text}");
    }
    assert_eq!(io::Read::read(&mut &peer, &mut [0]).unwrap(), 0, "it was closed");
}

fn a_socket_is_taken_as_it_is(on: On) {
    let event_loop = on.event_loop();
    let log = Log::default();
    let open = |sock: UdpSocket| event_loop.create_datagram_endpoint(log.protocol()).sock(sock);
    let peer = udp();
    // In blocking mode, with a datagram that waits already.
    let sock = UdpSocket::bind("127.0.0.1:0").unwrap();
    let name = address(&sock);
    peer.send_to(b"early", sock.local_addr().unwrap()).unwrap();
    let (transport, _) = event_loop.run(open(sock));
    assert_eq!(transport.with_fd(is_nonblocking), Some(true));
    assert_eq!((sockname(&transport), transport.get_extra_info(PEERNAME)), (name, None));
    event_loop.until(|| log.len() == 2);
    assert_eq!(log.take(), [Call::Made, Call::Received(b"early".to_vec(), address(&peer))]);

    // Connected.
    let sock = udp();
    sock.connect(peer.local_addr().unwrap()).unwrap();
    let (connected, _) = event_loop.run(open(sock));
    assert_eq!(connected.get_extra_info(PEERNAME), Some(address(&peer)));
    connected.sendto(b"a", None);
    connected.sendto(b"b", address(&peer));
    assert_eq!([receive(&peer).0, receive(&peer).0], [b"a", b"b"]);
    let elsewhere = connected.try_sendto(b"c", SocketAddr::from(([127, 0, 0, 1], 1)));
    assert_eq!(elsewhere.unwrap_err().kind(), ErrorKind::Value);
    assert!(nothing_waits(&peer));

    // One that another endpoint has.
    let (sock, copy) = {
        let sock = udp();
        let copy = sock.try_clone().unwrap();
        (sock, copy)
    };
    let _first = event_loop.run(open(sock));
    event_loop.run(open(copy));
}

/// UDP-015
fn an_address_that_is_not_ours_is_an_error(on: On) {
    if !on.in_child() {
        return;
    }
    let event_loop = on.event_loop();
    let before = crate::unclaimed::open_descriptors();
    let open = event_loop.create_datagram_endpoint(|| -> Logging { unreachable!() });
    let error = event_loop.fail(open.local_addr(("1.2.3.4", 0)));
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Io, Some(libc::EADDRNOTAVAIL)));
    assert!(error.to_string().contains("1.2.3.4:0"), "{error}");
    let taken = udp();
    let open = event_loop.create_datagram_endpoint(|| -> Logging { unreachable!() });
    let error = event_loop.fail(open.local_addr(taken.local_addr().unwrap()));
    assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));
    drop(taken);
    assert_eq!(crate::unclaimed::open_descriptors(), before);
}

fn nothing_is_done_for_arguments_that_contradict_each_other(on: On) {
    struct Never;
    impl Resolver for Never {
        fn getaddrinfo(&self, host: Option<&str>, port: &Port, _: AddrInfoHints) -> Result<Vec<AddrInfo>> {
            panic!("{host:?} {port} was looked up")
        }
    }
    let event_loop = on.event_loop();
    event_loop.set_resolver(Never).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let stale = folder.path().join("stale");
    drop(UnixDatagram::bind(&stale).unwrap());
    let open = || event_loop.create_datagram_endpoint(|| -> Logging { unreachable!() });
    let long = folder.path().join("x".repeat(200));
    for (wrong, kind) in [
        (open().local_addr(stale.as_path()).remote_addr(("name.test", 1)), ErrorKind::Value),
        (open().local_addr(stale.as_path()).family(socket::AF_INET), ErrorKind::Value),
        (open().local_addr(stale.as_path()).remote_addr(Path::new("a\0b")), ErrorKind::Value),
        (open().local_addr(stale.as_path()).remote_addr(long), ErrorKind::Io),
        (open().local_addr(stale.as_path()).remote_addr(Address::Unnamed), ErrorKind::Value),
        (open().local_addr(Address::Unnamed), ErrorKind::Value),
        (open().local_addr(("name.test", 1)).family(socket::AF_UNIX), ErrorKind::Value),
        (open().local_addr(("name.test", 1)).remote_addr((["a", "b"], 1)), ErrorKind::Value),
        (open().local_addr(("name.test", 1)).sock(udp()), ErrorKind::Value),
    ] {
        let text = format!("{wrong:?}");
        assert_eq!(event_loop.fail(wrong).kind(), kind, "{text}");
        assert!(stale.exists(), "{text}");
    }
}

/// Answers with these addresses, and says what it was asked.
struct Fixed(Vec<(&'static str, Vec<SocketAddr>)>, std::sync::mpsc::Sender<(Option<String>, AddrInfoHints)>);

impl Resolver for Fixed {
    fn getaddrinfo(&self, host: Option<&str>, port: &Port, hints: AddrInfoHints) -> Result<Vec<AddrInfo>> {
        self.1.send((host.map(str::to_owned), hints)).unwrap();
        let (_, found) = self.0.iter().find(|(name, _)| Some(*name) == host).expect("a name of the test");
        let Port::Number(port) = *port else { panic!("{port}") };
        let with_port = |address: &SocketAddr| SocketAddr::new(address.ip(), port);
        Ok(found.iter().map(|address| AddrInfo::new(with_port(address), hints.socket_type)).collect())
    }
}

fn resolver(names: &[(&'static str, &[&str])]) -> (Fixed, std::sync::mpsc::Receiver<(Option<String>, AddrInfoHints)>) {
    let (sender, asked) = std::sync::mpsc::channel();
    let addresses = |texts: &[&str]| texts.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect();
    (Fixed(names.iter().map(|(name, texts)| (*name, addresses(texts))).collect(), sender), asked)
}

fn names_are_looked_up_with_everything_that_was_asked_for(on: On) {
    let event_loop = on.event_loop();
    let (names, asked) = resolver(&[("here.test", &["127.0.0.1"]), ("there.test", &["127.0.0.1"])]);
    event_loop.set_resolver(names).unwrap();
    let peer = udp();
    let open = event_loop.create_datagram_endpoint(Log::default().protocol());
    let open = open.local_addr(("here.test", 0)).remote_addr(("there.test", peer.local_addr().unwrap().port()));
    let open = open.family(socket::AF_INET).proto(socket::IPPROTO_UDP).flags(socket::AI_ADDRCONFIG);
    let (transport, _) = event_loop.run(open);
    assert_eq!(transport.get_extra_info(PEERNAME), Some(address(&peer)));
    assert_eq!(sockname(&transport).as_inet().unwrap().ip(), Ipv4Addr::LOCALHOST);
    let hints = AddrInfoHints::new().family(socket::AF_INET).protocol(socket::IPPROTO_UDP);
    let hints = hints.socket_type(socket::SOCK_DGRAM).flags(socket::AI_ADDRCONFIG);
    let expected = [(Some("here.test".into()), hints), (Some("there.test".into()), hints)];
    assert_eq!(asked.try_iter().collect::<Vec<_>>(), expected);
}

fn addresses_of_one_family_go_together(on: On) {
    let event_loop = on.event_loop();
    let (names, _asked) = resolver(&[("both.test", &["::1", "127.0.0.1"]), ("four.test", &["127.0.0.1"])]);
    event_loop.set_resolver(names).unwrap();
    let port = udp().local_addr().unwrap().port();
    for (local, remote) in [("both.test", "four.test"), ("four.test", "both.test")] {
        let open = event_loop.create_datagram_endpoint(Log::default().protocol());
        let (transport, _) = event_loop.run(open.local_addr((local, 0)).remote_addr((remote, port)));
        assert!(sockname(&transport).as_inet().unwrap().is_ipv4());
        assert_eq!(transport.get_extra_info(PEERNAME), Some(SocketAddr::from(([127, 0, 0, 1], port)).into()));
    }
}

fn the_next_family_is_tried_and_the_first_error_given(on: On) {
    let event_loop = on.event_loop();
    let (names, _asked) = resolver(&[
        ("good.test", &["2001:db8::1", "127.0.0.1"]),
        ("bad.test", &["1.2.3.4", "2001:db8::1"]),
        ("first.test", &["127.0.0.1", "1.2.3.4"]),
    ]);
    event_loop.set_resolver(names).unwrap();
    for name in ["good.test", "first.test"] {
        let log = Log::default();
        let (transport, _) = event_loop.run(event_loop.create_datagram_endpoint(log.protocol()).local_addr((name, 0)));
        assert_eq!(sockname(&transport).as_inet().unwrap().ip(), Ipv4Addr::LOCALHOST);
        assert_eq!(log.take(), [Call::Made]);
    }
    let open = event_loop.create_datagram_endpoint(|| -> Logging { unreachable!() }).local_addr(("bad.test", 0));
    let error = event_loop.fail(open);
    assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL));
    assert!(error.to_string().contains("1.2.3.4:0"), "{error}");
}

fn no_host_is_any_interface_or_this_machine(on: On) {
    let event_loop = on.event_loop();
    for nowhere in [None, Some("")] {
        let log = Log::default();
        let open = event_loop.create_datagram_endpoint(log.protocol()).family(socket::AF_INET);
        let (server, _) = event_loop.run(open.local_addr((nowhere, 0)));
        let name = sockname(&server).as_inet().unwrap();
        assert!(name.ip().is_unspecified() && name.port() != 0, "{name}");
        let open = event_loop.create_datagram_endpoint(Log::default().protocol()).family(socket::AF_INET);
        let (client, _) = event_loop.run(open.remote_addr((nowhere, name.port())));
        let peer = SocketAddr::from(([127, 0, 0, 1], name.port()));
        assert_eq!(client.get_extra_info(PEERNAME), Some(peer.into()));
        client.sendto(b"x", None);
        event_loop.until(|| log.len() == 2);
        assert_eq!(log.take_data(), [b"x"]);
    }
}

fn one_host_at_a_time(on: On) {
    let event_loop = on.event_loop();
    for hosts in [&[][..], &["127.0.0.1", "127.0.0.1"]] {
        for is_local in [true, false] {
            let open = event_loop.create_datagram_endpoint(|| -> Logging { unreachable!() });
            let open = if is_local { open.local_addr((hosts, 0)) } else { open.remote_addr((hosts, 1)) };
            assert_eq!(event_loop.fail(open).kind(), ErrorKind::Value);
        }
    }
}

fn a_name_that_is_not_found_is_an_error(on: On) {
    struct Nothing;
    impl Resolver for Nothing {
        fn getaddrinfo(&self, host: Option<&str>, _: &Port, _: AddrInfoHints) -> Result<Vec<AddrInfo>> {
            match host {
                Some("empty.test") => Ok(Vec::new()),
                _ => Err(asyncio::Error::resolve(socket::EAI_NONAME, "Name or service not known")),
            }
        }
    }
    let event_loop = on.event_loop();
    event_loop.set_resolver(Nothing).unwrap();
    for (name, kind) in [("missing.test", ErrorKind::Resolve), ("empty.test", ErrorKind::Io)] {
        let open = event_loop.create_datagram_endpoint(|| -> Logging { unreachable!() });
        assert_eq!(event_loop.fail(open.remote_addr((name, 1))).kind(), kind);
    }
    let open = event_loop.create_datagram_endpoint(|| -> Logging { unreachable!() });
    let other_family = open.local_addr(("::1", 0)).family(socket::AF_INET);
    assert_eq!(event_loop.fail(other_family).kind(), ErrorKind::Resolve);
}

fn ipv6_works_as_ipv4(on: On) {
    let Ok(peer) = UdpSocket::bind("[::1]:0") else {
        eprintln!("not tested: this machine has no IPv6 loopback");
        return;
    };
    peer.set_nonblocking(true).unwrap();
    let event_loop = on.event_loop();
    let log = Log::default();
    let open = event_loop.create_datagram_endpoint(log.protocol()).local_addr(("::1", 0));
    let (bound, _) = event_loop.run(open);
    let name = sockname(&bound);
    assert!(name.as_inet().is_some_and(|inet| inet.is_ipv6()));
    peer.send_to(b"six", name.as_inet().unwrap()).unwrap();
    event_loop.until(|| log.len() == 2);
    assert_eq!(log.take(), [Call::Made, Call::Received(b"six".to_vec(), address(&peer))]);
    bound.sendto(b"back", address(&peer));
    assert_eq!(receive(&peer), (b"back".to_vec(), name.clone()));

    let client = event_loop.connected(&Log::default(), ("::1", peer.local_addr().unwrap().port()));
    client.sendto(b"connected", None);
    client.sendto(b"the same", peer.local_addr().unwrap());
    assert_eq!([receive(&peer), receive(&peer)].map(|(_, sender)| sender), [sockname(&client), sockname(&client)]);
    assert_eq!(client.try_sendto(b"x", name).unwrap_err().kind(), ErrorKind::Value);
    let (any, _) = event_loop.run(event_loop.create_datagram_endpoint(log.protocol()).family(socket::AF_INET6));
    assert_eq!(sockname(&any), Address::Inet("[::]:0".parse().unwrap()));
}

fn two_sockets_share_a_port(on: On) {
    let event_loop = on.event_loop();
    let logs = [Log::default(), Log::default()];
    let open = |log: &Log, port| {
        event_loop.create_datagram_endpoint(log.protocol()).local_addr(("127.0.0.1", port)).reuse_port(true)
    };
    let (first, _) = event_loop.run(open(&logs[0], 0));
    let to = sockname(&first).as_inet().unwrap();
    let (second, _) = event_loop.run(open(&logs[1], to.port()));
    assert_eq!(sockname(&second), sockname(&first));
    let alone = event_loop.create_datagram_endpoint(Log::default().protocol()).local_addr(to);
    assert_eq!(event_loop.fail(alone).raw_os_error(), Some(libc::EADDRINUSE));
    for _ in 0..40 {
        udp().send_to(b"x", to).unwrap();
    }
    event_loop.until(|| logs[0].len() + logs[1].len() == 42);
}

fn broadcasts_are_sent_and_answered(on: On) {
    let event_loop = on.event_loop();
    let Ok(peer) = UdpSocket::bind("0.0.0.0:0") else { panic!("any address will do") };
    peer.set_nonblocking(true).unwrap();
    let to = SocketAddr::from(([127, 255, 255, 255], peer.local_addr().unwrap().port()));
    let log = Log::default();
    let open = |log: &Log| {
        let open = event_loop.create_datagram_endpoint(log.protocol()).local_addr(("127.0.0.1", 0));
        open.remote_addr(to)
    };
    // Not without leave: connecting fails already.
    assert_eq!(event_loop.fail(open(&log)).raw_os_error(), Some(libc::EACCES));
    let (transport, _) = event_loop.run(open(&log).allow_broadcast(true));
    assert_eq!(transport.get_extra_info(PEERNAME), None, "it is not connected");
    transport.sendto(b"anybody?", None);
    transport.sendto(b"you?", to);
    assert_eq!([receive(&peer), receive(&peer)].map(|(data, _)| data), [&b"anybody?"[..], b"you?"]);
    let elsewhere = transport.try_sendto(b"x", SocketAddr::from(([127, 0, 0, 1], to.port())));
    let (kind, text) = failure(elsewhere);
    assert!(kind == ErrorKind::Value && text.contains(&to.to_string()), "{text}");
    let other = udp();
    other.send_to(b"me!", sockname(&transport).as_inet().unwrap()).unwrap();
    event_loop.until(|| log.len() == 2);
    assert_eq!(log.take(), [Call::Made, Call::Received(b"me!".to_vec(), address(&other))]);
}

fn a_closed_loop_opens_nothing(on: On) {
    let event_loop = on.event_loop();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let open = event_loop.create_datagram_endpoint(|| -> Logging { unreachable!() });
    event_loop.close().unwrap();
    let other = on.event_loop();
    let (kind, text) = failure(other.run_until_complete(open.sock(ours)));
    assert!(kind == ErrorKind::Value && text.contains("different loop"), "{text}");
    assert!(crate::is_gone(&theirs));

    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let open = event_loop.create_datagram_endpoint(|| -> Logging { unreachable!() }).sock(ours);
    let nowhere = futures::executor::block_on(open.into_future());
    assert_eq!(failure(nowhere).0, ErrorKind::Runtime);
    assert!(crate::is_gone(&theirs));
}

fn what_is_not_awaited_opens_nothing(on: On) {
    let event_loop = on.event_loop();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let factory = || -> Logging { unreachable!() };
    #[expect(unused_must_use, reason = "that is what is tested")]
    {
        event_loop.create_datagram_endpoint(factory).sock(ours);
        event_loop.create_datagram_endpoint(factory).local_addr(("127.0.0.1", 0));
    }
    drop(event_loop.create_datagram_endpoint(factory).local_addr(("127.0.0.1", 0)).into_future());
    event_loop.ticks(2);
    assert!(crate::is_gone(&theirs));
}

fn an_endpoint_is_known_by_its_looks(on: On) {
    let event_loop = on.event_loop();
    let (a, b) = (event_loop.bound(&Log::default()), event_loop.bound(&Log::default()));
    assert!(a == a.clone() && a != b);
    let number = a.with_fd(|fd| fd.as_raw_fd()).unwrap();
    assert_eq!(format!("{a:?}"), format!("<DatagramTransport fd={number} read=polling write=<idle, bufsize=0>>"));
    a.close();
    assert!(format!("{a:?}").contains("closing"), "{a:?}");
    event_loop.ticks(1);
    assert!(format!("{a:?}").contains("closed"), "{a:?}");
    let watched = b.with_fd(|fd| event_loop.add_reader(fd, || ())).unwrap();
    let (kind, text) = failure(watched);
    assert!(kind == ErrorKind::Runtime && text.contains("used by transport <DatagramTransport"), "{text}");
}
