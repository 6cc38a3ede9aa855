//! create_server: where it listens, its arguments and its errors.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use asyncio::{
    Address, Error, ErrorKind, PEERNAME, Result, SOCKNAME, Server, ToAddress,
    socket::{AF_INET, AF_INET6, AI_NUMERICHOST, AI_PASSIVE},
};
use rustix::fs::OFlags;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::{
    NETS, Names, Net, On, Plan, TestLoop, client, has_ended, place, refuses, silent, socket_option,
    support::{
        Record,
        transports::{BufferedRecorder, Log, PairKind, Recorder, Told},
    },
    try_connect, until_queued,
};

on_each_selector! {
    no_host_is_every_interface_of_both_families
    one_port_serves_both_families
    a_host_that_is_given_twice_is_one_socket
    names_and_addresses_of_one_place_are_one_socket
    the_system_chooses_a_port
    addresses_are_given_in_many_ways
    ports_have_names
    only_addresses_of_the_family_are_bound
    flags_are_passed_on
    an_address_that_is_taken_is_named
    nothing_is_left_where_one_of_several_fails
    an_address_that_the_machine_lacks_is_an_error
    a_family_that_the_machine_lacks_is_left_out
    there_must_be_a_place_and_only_one
    what_is_refused_is_closed
    a_port_is_shared_on_request_only
    two_loops_share_a_port
    a_port_is_bound_again_at_once
    connections_are_kept_alive_on_request
    small_writes_are_sent_at_once
    all_that_wait_are_accepted_in_one_iteration
    no_more_than_the_backlog_in_one_iteration
    it_does_not_listen_before_it_is_told_to
    a_bound_socket_is_served
    both_sides_know_their_addresses
    buffered_protocols_are_served
    sockets_are_the_server_s_own
    a_server_shows_where_it_listens
    a_connected_socket_is_no_server
}

fn addresses(server: &Server) -> Vec<SocketAddr> {
    server.sockets().iter().map(|socket| socket.address().as_inet().unwrap()).collect()
}

fn served(event_loop: &TestLoop, address: impl ToAddress) -> (Server, Record<Log>) {
    let logs = Record::<Log>::default();
    let made = logs.clone();
    let factory = move || {
        let log = Log::default();
        made.push(log.clone());
        Recorder::new(&log)
    };
    (event_loop.run(event_loop.create_server(factory, address)), logs)
}

/// SRV-001
fn no_host_is_every_interface_of_both_families(on: On) {
    let event_loop = on.event_loop();
    let kinds: [fn() -> asyncio::Endpoint; 3] = [|| (None, 0).to_address(), || ("", 0).to_address(), || 0.to_address()];
    for kind in kinds {
        // The system may choose one number for both.
        let differ = (0..4).any(|_| {
            let (server, _) = served(&event_loop, kind());
            let mut found = addresses(&server);
            found.sort();
            let ips: Vec<IpAddr> = found.iter().map(SocketAddr::ip).collect();
            assert_eq!(ips, [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()]);
            assert!(found.iter().all(|address| address.port() != 0));
            for socket in server.sockets().iter().filter(|socket| socket.address().as_inet().unwrap().is_ipv6()) {
                assert_eq!(socket.with_fd(|fd| SockRef::from(&fd).only_v6().unwrap()), Some(true));
            }
            server.close();
            found[0].port() != found[1].port()
        });
        assert!(differ);
    }
}

/// SRV-002
fn one_port_serves_both_families(on: On) {
    let event_loop = on.event_loop();
    // A free port: out of the range that the system gives to others.
    let (server, logs) = (0..500)
        .find_map(|attempt| {
            let logs = Record::<Log>::default();
            let made = logs.clone();
            let factory = move || {
                let log = Log::default();
                made.push(log.clone());
                Recorder::new(&log)
            };
            let port = 20000 + ((std::process::id() + attempt * 7) % 12000) as u16;
            let created = event_loop.run_until_complete(event_loop.create_server(factory, (None, port)));
            match created {
                Ok(server) => Some((server, logs)),
                Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => None,
                Err(error) => panic!("{error}"),
            }
        })
        .unwrap();
    let found = addresses(&server);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].port(), found[1].port());
    for (count, ip) in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()].into_iter().enumerate() {
        let _client = try_connect(&SocketAddr::new(ip, found[0].port()).into()).unwrap();
        event_loop.until(|| logs.len() == count + 1 && logs.items()[count].has(&Told::Made));
    }
    server.close();
}

/// SRV-003
fn a_host_that_is_given_twice_is_one_socket(on: On) {
    let event_loop = on.event_loop();
    let (server, logs) = served(&event_loop, (["127.0.0.1", "127.0.0.1", "127.0.0.2"], 0));
    let mut found = addresses(&server);
    found.sort();
    assert_eq!(found.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>(), ["127.0.0.1", "127.0.0.2"]);
    let _clients: Vec<_> = found.iter().map(|address| try_connect(&(*address).into()).unwrap()).collect();
    event_loop.until(|| logs.len() == 2);
    server.close();
}

fn names_and_addresses_of_one_place_are_one_socket(on: On) {
    let event_loop = on.event_loop();
    let names = vec![
        ("one.test", vec![([127, 0, 0, 1], 0).into()]),
        ("two.test", vec![([127, 0, 0, 1], 0).into(), ([127, 0, 0, 2], 0).into()]),
    ];
    event_loop.set_resolver(Names(names)).unwrap();
    let (server, _) = served(&event_loop, (["one.test", "127.0.0.1", "two.test", "two.test"], 0));
    assert_eq!(server.sockets().len(), 2);
    server.close();
}

/// SRV-005
fn the_system_chooses_a_port(on: On) {
    let event_loop = on.event_loop();
    let (server, logs) = served(&event_loop, ("127.0.0.1", 0));
    assert_ne!(addresses(&server)[0].port(), 0);
    assert!(server.is_serving());
    let _client = client(&server);
    event_loop.until(|| logs.len() == 1);
    server.close();
}

fn addresses_are_given_in_many_ways(on: On) {
    let event_loop = on.event_loop();
    let owned = "127.0.0.1".to_owned();
    let hosts: &[&str] = &["127.0.0.1"];
    let servers = [
        served(&event_loop, ("127.0.0.1", 0)).0,
        served(&event_loop, (&owned, 0)).0,
        served(&event_loop, (owned.clone(), 0)).0,
        served(&event_loop, (Some("127.0.0.1"), 0)).0,
        served(&event_loop, ("127.0.0.1", "0")).0,
        served(&event_loop, (["127.0.0.1"], 0)).0,
        served(&event_loop, (hosts, 0)).0,
        served(&event_loop, (vec![owned], 0)).0,
        served(&event_loop, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).0,
        served(&event_loop, (IpAddr::from(Ipv4Addr::LOCALHOST), 0)).0,
        served(&event_loop, (Ipv4Addr::LOCALHOST, 0)).0,
        served(&event_loop, Address::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))).0,
    ];
    for server in servers {
        assert_eq!(addresses(&server).len(), 1);
        assert_eq!(addresses(&server)[0].ip(), Ipv4Addr::LOCALHOST);
        // And so may those who connect.
        let port = addresses(&server)[0].port();
        let (transport, _) =
            event_loop.run(event_loop.create_connection(silent, ("127.0.0.1", port.to_string().as_str())));
        transport.abort();
        server.close();
        server.abort_clients();
    }
    let (server, _) = served(&event_loop, (Ipv6Addr::LOCALHOST, 0));
    assert_eq!(addresses(&server)[0].ip(), Ipv6Addr::LOCALHOST);
    server.close();
}

fn ports_have_names(on: On) {
    /// Knows one service.
    struct Services(u16);
    impl asyncio::Resolver for Services {
        fn getaddrinfo(
            &self,
            _: Option<&str>,
            port: &asyncio::Port,
            hints: asyncio::AddrInfoHints,
        ) -> Result<Vec<asyncio::AddrInfo>> {
            assert_eq!(port, &asyncio::Port::from("our-service"));
            Ok(vec![asyncio::AddrInfo::new((Ipv4Addr::LOCALHOST, self.0).into(), hints.socket_type)])
        }
    }
    let event_loop = on.event_loop();
    event_loop.set_resolver(Services(0)).unwrap();
    let (server, logs) = served(&event_loop, ("127.0.0.1", "our-service"));
    let address = addresses(&server)[0];
    event_loop.set_resolver(Services(address.port())).unwrap();
    let (transport, _) = event_loop.run(event_loop.create_connection(silent, ("our-host", "our-service")));
    assert_eq!(transport.get_extra_info(PEERNAME), Some(address.into()));
    event_loop.until(|| logs.len() == 1);
    transport.close();
    server.close();
    // The system's own know names, too, and those that there are not.
    let event_loop = on.event_loop();
    let error = event_loop.fails(event_loop.create_server(silent, ("127.0.0.1", "no-such-service")));
    assert_eq!(error.kind(), ErrorKind::Resolve);
}

fn only_addresses_of_the_family_are_bound(on: On) {
    let event_loop = on.event_loop();
    for (family, ip) in [(AF_INET, IpAddr::from(Ipv4Addr::UNSPECIFIED)), (AF_INET6, Ipv6Addr::UNSPECIFIED.into())] {
        let server = event_loop.run(event_loop.create_server(silent, 0).family(family));
        assert_eq!(addresses(&server).iter().map(SocketAddr::ip).collect::<Vec<_>>(), [ip]);
        server.close();
    }
    let error = event_loop.fails(event_loop.create_server(silent, ("127.0.0.1", 0)).family(AF_INET6));
    assert_eq!(error.kind(), ErrorKind::Resolve);
}

fn flags_are_passed_on(on: On) {
    let event_loop = on.event_loop();
    // Without AI_PASSIVE no host is this machine only.
    let server = event_loop.run(event_loop.create_server(silent, 0).flags(0).family(AF_INET));
    assert_eq!(addresses(&server)[0].ip(), Ipv4Addr::LOCALHOST);
    server.close();
    let numeric = event_loop.create_server(silent, ("localhost", 0)).flags(AI_NUMERICHOST | AI_PASSIVE);
    assert_eq!(event_loop.fails(numeric).kind(), ErrorKind::Resolve);
}

/// SRV-006
fn an_address_that_is_taken_is_named(on: On) {
    let event_loop = on.event_loop();
    let (_listener, address) = crate::listener();
    let (_holder, bound) = crate::refusing();
    for address in [address, bound] {
        let error = event_loop.fails(event_loop.create_server(silent, ("127.0.0.1", address.port())));
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Io, Some(libc::EADDRINUSE)));
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}

fn nothing_is_left_where_one_of_several_fails(on: On) {
    let event_loop = on.event_loop();
    let (holder, address) = crate::refusing();
    // The first could be had; the second is taken.
    let hosts = ["127.0.0.9", "127.0.0.1"];
    let error = event_loop.fails(event_loop.create_server(silent, (hosts, address.port())));
    assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));
    assert!(error.to_string().contains("127.0.0.1"), "{error}");
    drop(holder);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 9], address.port())).into()).unwrap();
}

fn an_address_that_the_machine_lacks_is_an_error(on: On) {
    let event_loop = on.event_loop();
    let error = event_loop.fails(event_loop.create_server(silent, ("203.0.113.1", 0)));
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Io, Some(libc::EADDRNOTAVAIL)));
    assert!(error.to_string().contains("203.0.113.1"), "{error}");
    let error = event_loop.fails(event_loop.create_server(silent, (["203.0.113.1", "203.0.113.2"], 0)));
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(["203.0.113.1", "203.0.113.2"].iter().all(|host| error.to_string().contains(host)), "{error}");
}

fn a_family_that_the_machine_lacks_is_left_out(on: On) {
    let event_loop = on.event_loop();
    let (server, _) = served(&event_loop, (["203.0.113.1", "127.0.0.1"], 0));
    assert_eq!(addresses(&server).iter().map(|address| address.ip().to_string()).collect::<Vec<_>>(), ["127.0.0.1"]);
    server.close();
}

/// SRV-009
fn there_must_be_a_place_and_only_one(on: On) {
    let event_loop = on.event_loop();
    let second = Duration::from_secs(1);
    let tcp = || OwnedFd::from(Net::Tcp.bound());
    let udp = || OwnedFd::from(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let somewhere = || event_loop.create_server(silent, ("127.0.0.1", 0));
    let wrong = [
        event_loop.create_server(silent, ()),
        somewhere().sock(tcp()),
        event_loop.create_server(silent, 0).sock(tcp()),
        event_loop.create_server(silent, ()).sock(udp()),
        somewhere().ssl_handshake_timeout(second),
        somewhere().ssl_shutdown_timeout(second),
        somewhere().max_connections(0),
        event_loop.create_server(silent, Address::UnixAbstract(b"x".to_vec())),
    ];
    for opening in wrong {
        let shown = format!("{opening:?}");
        assert_eq!(event_loop.fails(opening).kind(), ErrorKind::Value, "{shown}");
    }
    let text = event_loop.fails(event_loop.create_server(silent, ()).sock(udp())).to_string();
    assert!(text.contains("Stream"), "{text}");
}

fn what_is_refused_is_closed(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let listening = net.bound();
        listening.listen(5).unwrap();
        let place = listening.local_addr().unwrap();
        let waiting = try_connect(&place).unwrap();
        let second = Duration::from_secs(1);
        let error = match net {
            Net::Tcp => {
                event_loop.fails(event_loop.create_server(silent, ()).sock(listening).ssl_handshake_timeout(second))
            }
            Net::Unix => event_loop
                .fails(event_loop.create_unix_server(silent, ()).sock(listening).ssl_handshake_timeout(second)),
        };
        assert_eq!(error.kind(), ErrorKind::Value);
        assert!(has_ended(&waiting) && refuses(&place));
    }
}

/// SRV-010
fn a_port_is_shared_on_request_only(on: On) {
    let event_loop = on.event_loop();
    let (plain, _) = served(&event_loop, ("127.0.0.1", 0));
    assert_eq!(socket_option(&plain, |socket| socket.reuse_port()), [false]);
    plain.close();
    let share = |port| event_loop.create_server(silent, ("127.0.0.1", port)).reuse_port(true);
    let first = event_loop.run(share(0));
    let port = addresses(&first)[0].port();
    let second = event_loop.run(share(port));
    for server in [&first, &second] {
        assert_eq!(socket_option(server, |socket| socket.reuse_port()), [true]);
        assert_eq!(addresses(server)[0].port(), port);
        assert!(server.is_serving());
    }
    // Who does not ask for it does not get in.
    let error = event_loop.fails(event_loop.create_server(silent, ("127.0.0.1", port)));
    assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));
    first.close();
    second.close();
}

fn two_loops_share_a_port(on: On) {
    let event_loop = on.event_loop();
    let answer = |letter: &'static [u8]| {
        move || {
            silent().on_made(move |transport| {
                transport.write(letter);
                transport.close();
            })
        }
    };
    let opening = event_loop.create_server(answer(b"a"), ("127.0.0.1", 0)).reuse_port(true);
    let first = event_loop.run(opening);
    let port = addresses(&first)[0].port();
    let (started, start) = std::sync::mpsc::channel();
    let other = std::thread::spawn(move || {
        let other = on.event_loop();
        let server = other.run(other.create_server(answer(b"b"), ("127.0.0.1", port)).reuse_port(true));
        started.send(server.clone()).unwrap();
        other.run(server.wait_closed());
    });
    let second = start.recv().unwrap();
    // The system spreads them as it likes: each has a share of many.
    let mut letters = Vec::new();
    while !(letters.contains(&b'a') && letters.contains(&b'b')) {
        assert!(letters.len() < 1000, "only one of them is served");
        let client = client(&first);
        event_loop.until(|| client.0.peek(&mut [std::mem::MaybeUninit::uninit()]).is_ok());
        letters.extend(client.read_exactly(1));
    }
    second.close();
    other.join().unwrap();
    first.close();
}

fn a_port_is_bound_again_at_once(on: On) {
    let event_loop = on.event_loop();
    let (server, logs) = served(&event_loop, ("127.0.0.1", 0));
    let (port, client) = (addresses(&server)[0].port(), client(&server));
    event_loop.until(|| logs.len() == 1);
    server.close();
    server.close_clients();
    event_loop.until(|| logs.items()[0].lost());
    // This side closed first, so the system keeps the address for a while.
    drop(client);
    let strict = event_loop.create_server(silent, ("127.0.0.1", port)).reuse_address(false);
    assert_eq!(event_loop.fails(strict).raw_os_error(), Some(libc::EADDRINUSE));
    let again = event_loop.run(event_loop.create_server(silent, ("127.0.0.1", port)));
    assert_eq!(socket_option(&again, |socket| socket.reuse_address()), [true]);
    again.close();
    let off = event_loop.run(event_loop.create_server(silent, ("127.0.0.1", 0)).reuse_address(false));
    assert_eq!(socket_option(&off, |socket| socket.reuse_address()), [false]);
    off.close();
}

/// What an option is on the listening socket and on an accepted one.
fn options(
    event_loop: &TestLoop,
    keep_alive: Option<bool>,
    look: fn(SockRef<'_>) -> std::io::Result<bool>,
) -> (Vec<bool>, bool) {
    let seen = Record::default();
    let record = seen.clone();
    let factory = move || {
        let record = record.clone();
        silent().on_made(move |transport| record.push(transport.with_fd(|fd| look(SockRef::from(&fd)).unwrap())))
    };
    let mut opening = event_loop.create_server(factory, ("127.0.0.1", 0));
    if let Some(keep_alive) = keep_alive {
        opening = opening.keep_alive(keep_alive);
    }
    let server = event_loop.run(opening);
    let _client = client(&server);
    event_loop.until(|| seen.len() == 1);
    let listening = socket_option(&server, look);
    server.close();
    (listening, seen.take()[0].unwrap())
}

/// SRV-011
fn connections_are_kept_alive_on_request(on: On) {
    let event_loop = on.event_loop();
    let look: fn(SockRef<'_>) -> std::io::Result<bool> = |socket| socket.keepalive();
    assert_eq!(options(&event_loop, Some(true), look), (vec![true], true));
    assert_eq!(options(&event_loop, None, look), (vec![false], false));
    assert_eq!(options(&event_loop, Some(false), look), (vec![false], false));
}

fn small_writes_are_sent_at_once(on: On) {
    let event_loop = on.event_loop();
    assert!(options(&event_loop, None, |socket| socket.tcp_nodelay()).1);
    // Also where the socket was given.
    let seen = Record::default();
    let record = seen.clone();
    let factory = move || {
        let record = record.clone();
        silent().on_made(move |transport| {
            record.push(transport.with_fd(|fd| {
                assert!(rustix::fs::fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK));
                assert_eq!(rustix::io::fcntl_getfd(fd).unwrap(), rustix::io::FdFlags::CLOEXEC);
                SockRef::from(&fd).tcp_nodelay().unwrap()
            }));
        })
    };
    let server = event_loop.run(event_loop.create_server(factory, ()).sock(Net::Tcp.bound()));
    let _client = client(&server);
    event_loop.until(|| seen.len() == 1);
    assert_eq!(seen.take(), [Some(true)]);
    server.close();
}

/// SRV-012
fn all_that_wait_are_accepted_in_one_iteration(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, logs) = net.serve_with(&event_loop, Plan { backlog: 5, ..Plan::default() }, |recorder| recorder);
        let _clients: Vec<_> = (0..5).map(|_| client(&server)).collect();
        until_queued(&place(&server), 5);
        let mut counts = vec![0];
        while counts.last() != Some(&5) {
            event_loop.ticks(1);
            let made = logs.items().iter().filter(|log| log.has(&Told::Made)).count();
            if counts.last() != Some(&made) {
                counts.push(made);
            }
            assert!(counts.len() < 7);
        }
        assert_eq!(counts, [0, 5], "{net:?}");
        server.close();
    }
}

fn no_more_than_the_backlog_in_one_iteration(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let listening = net.bound();
        listening.listen(50).unwrap();
        let place = listening.local_addr().unwrap();
        let _clients: Vec<_> = (0..12).map(|_| try_connect(&place).unwrap()).collect();
        until_queued(&place, 12);
        let logs = Record::<Log>::default();
        let made = logs.clone();
        let factory = move || {
            let log = Log::default();
            made.push(log.clone());
            Recorder::new(&log)
        };
        let server = match net {
            Net::Tcp => event_loop.run(event_loop.create_server(factory, ()).sock(listening).backlog(5)),
            Net::Unix => event_loop.run(event_loop.create_unix_server(factory, ()).sock(listening).backlog(5)),
        };
        // The opening's last iteration may have been the first.
        let mut counts = vec![0, logs.len()];
        while logs.len() < 12 {
            event_loop.ticks(1);
            counts.push(logs.len());
        }
        counts.dedup();
        assert_eq!(counts, [0, 5, 10, 12], "{net:?}");
        server.close();
        server.abort_clients();
    }
}

/// SRV-013
fn it_does_not_listen_before_it_is_told_to(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let plan = Plan { start_serving: false, ..Plan::default() };
        let (server, logs) = net.serve_with(&event_loop, plan, |recorder| recorder);
        let place = place(&server);
        assert!(!server.is_serving());
        assert!(refuses(&place));
        let second = net.socket();
        assert_eq!(second.bind(&place).unwrap_err().raw_os_error(), Some(libc::EADDRINUSE), "it is bound");
        for _ in 0..2 {
            event_loop.run(server.start_serving());
            assert!(server.is_serving());
        }
        let _client = client(&server);
        event_loop.until(|| logs.len() == 1 && logs.items()[0].has(&Told::Made));
        server.close();
        server.abort_clients();
    }
}

/// SRV-014
fn a_bound_socket_is_served(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        for listens in [false, true] {
            let bound = net.bound();
            let place = bound.local_addr().unwrap();
            let queued = listens.then(|| {
                bound.listen(5).unwrap();
                let client = try_connect(&place).unwrap();
                client.send(b"hello");
                client
            });
            bound.set_nonblocking(false).unwrap();
            let number = bound.as_raw_fd();
            let logs = Record::<Log>::default();
            let made = logs.clone();
            let factory = move || {
                let log = Log::default();
                made.push(log.clone());
                Recorder::new(&log)
            };
            let server = match net {
                Net::Tcp => event_loop.run(event_loop.create_server(factory, ()).sock(bound)),
                Net::Unix => event_loop.run(event_loop.create_unix_server(factory, ()).sock(bound)),
            };
            let [socket] = &server.sockets()[..] else { panic!("{server:?}") };
            assert_eq!(socket.as_raw_fd(), number);
            socket.with_fd(|fd| {
                assert_eq!(fd.as_raw_fd(), number);
                assert!(rustix::fs::fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK));
            });
            assert_eq!(SockAddr::as_socket(&place).map(Address::from), socket.address().as_inet().map(Address::from));
            let client = queued.unwrap_or_else(|| {
                let client = try_connect(&place).unwrap();
                client.send(b"hello");
                client
            });
            event_loop.until(|| logs.len() == 1 && logs.items()[0].received_len() == 5);
            assert_eq!(logs.items()[0].received(), b"hello");
            drop(client);
            server.close();
        }
    }
}

fn both_sides_know_their_addresses(on: On) {
    let event_loop = on.event_loop();
    for host in ["127.0.0.1", "::1"] {
        let seen = Record::default();
        let record = seen.clone();
        let factory = move || {
            let record = record.clone();
            silent().on_made(move |transport| {
                record.push((transport.get_extra_info(PEERNAME), transport.get_extra_info(SOCKNAME)));
            })
        };
        let server = event_loop.run(event_loop.create_server(factory, (host, 0)));
        let client = client(&server);
        event_loop.until(|| seen.len() == 1);
        let local = client.0.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(seen.take(), [(Some(Address::from(local)), Some(server.sockets()[0].address().clone()))]);
        server.close();
    }
}

fn buffered_protocols_are_served(on: On) {
    let event_loop = on.event_loop();
    let logs = Record::<Log>::default();
    let made = logs.clone();
    let factory = move || {
        let log = Log::default();
        made.push(log.clone());
        BufferedRecorder::new(Recorder::new(&log).on_data(|transport, data| transport.write(data)), 64)
    };
    let server = event_loop.run(event_loop.create_server(factory, ("127.0.0.1", 0)));
    let client = client(&server);
    client.send(b"hello");
    event_loop.until(|| logs.len() == 1 && logs.items()[0].received_len() == 5);
    assert_eq!(client.read_exactly(5), b"hello");
    server.close();
}

fn sockets_are_the_server_s_own(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, _) = net.serve(&event_loop);
        let socket = server.sockets().remove(0);
        let refused = [
            socket.with_fd(|fd| event_loop.add_reader(fd, || {}).map(drop)).unwrap(),
            event_loop.remove_reader(&socket).map(drop),
            socket.with_fd(|fd| event_loop.run_until_complete(event_loop.sock_accept(&fd)).map(drop)).unwrap(),
        ];
        for result in refused {
            let error: Error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Runtime);
            assert!(error.to_string().contains("used by transport"), "{error}");
        }
        server.close();
        assert_eq!(socket.with_fd(|_| ()), None);
    }
}

fn a_server_shows_where_it_listens(on: On) {
    let event_loop = on.event_loop();
    let (server, _) = served(&event_loop, (["127.0.0.1", "::1"], 0));
    let text = format!("{server:?}");
    assert!(text.starts_with("<Server sockets=["), "{text}");
    assert!(addresses(&server).iter().all(|address| text.contains(&address.to_string())), "{text}");
    assert!(format!("{:?}", server.sockets()[0]).contains("127.0.0.1"));
    assert_eq!(server, server.clone());
    let (other, _) = served(&event_loop, ("127.0.0.1", 0));
    assert_ne!(server, other);
    server.close();
    assert_eq!(format!("{server:?}"), "<Server sockets=[]>");
    other.close();
}

fn a_connected_socket_is_no_server(on: On) {
    let event_loop = on.event_loop();
    let pair = PairKind::Tcp.pair();
    let error = event_loop.fails(event_loop.create_server(silent, ()).sock(pair.ours));
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(has_ended(&pair.peer));
}
