//! create_connection: the order of what happens, its arguments and its errors.

use std::{
    future::IntoFuture,
    io,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use asyncio::{
    Address, Error, ErrorKind, PEERNAME, SOCKET, SOCKNAME,
    socket::{AF_INET, AF_INET6},
};
use futures::FutureExt;
use rustix::event::{PollFd, PollFlags};
use socket2::SockRef;

use crate::{
    Count, Names, On, accepted, at_own_number, both, has_ended, is_open, listener, lost, refusing, silent,
    support::transports::{Log, PairKind, Peer, Recorder, Told},
};

on_each_selector! {
    the_opener_goes_on_before_data_comes
    a_refused_connection_names_the_address
    all_errors_are_a_group_also_of_one
    all_errors_are_a_group_of_each_address
    only_addresses_of_the_family_are_tried
    an_answer_of_another_family_is_not_tried
    there_must_be_a_place_and_only_one
    what_belongs_to_tls_needs_it
    tls_needs_a_name
    a_socket_must_be_a_stream
    a_given_socket_becomes_the_transport_s
    a_socket_that_is_refused_is_closed
    a_builder_that_is_dropped_closes_its_socket
    the_local_address_is_bound
    a_local_address_that_is_taken_is_named
    a_local_address_is_for_remotes_of_its_family
    a_local_address_of_another_family_only_is_an_error
    a_local_address_is_no_use_with_a_socket
    small_writes_are_sent_at_once
    both_sides_know_their_addresses
    a_name_that_is_not_found_is_an_error
    an_empty_answer_is_an_error
    a_transport_may_be_ended_while_it_is_made
    a_panic_of_connection_made_is_reported_only
    another_loop_s_connection_is_refused
    without_a_running_loop_nothing_is_connected
    what_is_not_awaited_does_nothing
    builders_show_what_they_are_asked
}

/// CON-001
fn the_opener_goes_on_before_data_comes(on: On) {
    let event_loop = on.event_loop();
    let expected = [Told::Note("factory"), Told::Made, Told::Note("returned"), Told::Data(5)];
    // The data is there before anything else happens.
    for kind in [PairKind::Tcp, PairKind::Unix, PairKind::Socketpair] {
        let (pair, log) = (kind.pair(), Log::default());
        pair.peer.send(b"hello");
        let factory = || {
            log.note("factory");
            Recorder::new(&log)
        };
        let transport = event_loop.run(async {
            let (transport, _) = event_loop.create_connection(factory, ()).sock(pair.ours).await?;
            log.note("returned");
            Ok(transport)
        });
        event_loop.until(|| log.has(&Told::Data(5)));
        assert_eq!(log.take(), expected, "{kind:?}");
        transport.close();
    }
    // By an address; the data has come by the time the protocol hears of its connection.
    let (listener, address) = listener();
    let peer = std::thread::spawn(move || {
        let peer = Peer::new(listener.accept().unwrap().0);
        peer.send(b"hello");
        peer
    });
    let log = Log::default();
    let made = |recorder: Recorder| {
        recorder.on_made(|transport| {
            let arrived = transport.with_fd(|fd| {
                let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
                rustix::event::poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 30, tv_nsec: 0 })).unwrap()
            });
            assert_eq!(arrived, Some(1));
        })
    };
    let factory = || {
        log.note("factory");
        made(Recorder::new(&log))
    };
    let transport = event_loop.run(async {
        let (transport, _) = event_loop.create_connection(factory, address).await?;
        log.note("returned");
        Ok(transport)
    });
    event_loop.until(|| log.has(&Told::Data(5)));
    assert_eq!(log.take(), expected);
    transport.close();
    drop(peer.join().unwrap());
}

/// CON-003
fn a_refused_connection_names_the_address(on: On) {
    let event_loop = on.event_loop();
    let (_holder, address) = refusing();
    let made = Count::default();
    let factory = || {
        made.up();
        silent()
    };
    let error = event_loop.fails(event_loop.create_connection(factory, ("127.0.0.1", address.port())));
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Io, Some(libc::ECONNREFUSED)));
    assert_eq!(error.io_error().unwrap().kind(), io::ErrorKind::ConnectionRefused);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert_eq!(made.get(), 0);
}

/// CON-004
fn all_errors_are_a_group_also_of_one(on: On) {
    let event_loop = on.event_loop();
    let (_holder, address) = refusing();
    for delay in [None, Some(Duration::from_millis(250))] {
        let connecting = event_loop.create_connection(silent, ("127.0.0.1", address.port()));
        let error = event_loop.fails(connecting.all_errors(true).happy_eyeballs_delay(delay));
        assert_eq!(error.kind(), ErrorKind::Group);
        let errors = error.group().unwrap().exceptions();
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].raw_os_error(), Some(libc::ECONNREFUSED));
    }
}

fn all_errors_are_a_group_of_each_address(on: On) {
    let event_loop = on.event_loop();
    let (_holder, one) = refusing();
    let (_other_holder, two) = refusing();
    event_loop.set_resolver(Names(vec![("two.test", vec![one, two])])).unwrap();
    for delay in [None, Some(Duration::from_millis(250))] {
        let connecting = event_loop.create_connection(silent, ("two.test", 1));
        let error = event_loop.fails(connecting.all_errors(true).happy_eyeballs_delay(delay));
        let errors = error.group().unwrap().exceptions();
        let texts: Vec<String> = errors.iter().map(Error::to_string).collect();
        assert_eq!(texts.len(), 2);
        assert!(texts[0].contains(&one.to_string()) && texts[1].contains(&two.to_string()), "{texts:?}");
    }
    // What is no failure of an address is none of them.
    let error = event_loop.fails(event_loop.create_connection(silent, ("none.test", 1)).all_errors(true));
    assert_eq!(error.kind(), ErrorKind::Resolve);
}

/// CON-006
fn only_addresses_of_the_family_are_tried(on: On) {
    let event_loop = on.event_loop();
    event_loop.set_resolver(both()).unwrap();
    let (_holder, address) = refusing();
    let connect = |family| event_loop.create_connection(silent, ("both.test", address.port())).family(family);
    let error = event_loop.fails(connect(AF_INET));
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Io, Some(libc::ECONNREFUSED)));
    let text = error.to_string();
    assert!(text.contains("127.0.0.1") && !text.contains("::1") && !text.contains("Multiple"), "{text}");
    let text = event_loop.fails(connect(AF_INET6)).to_string();
    assert!(!text.contains("127.0.0.1") && text.contains("::1"), "{text}");
    // And an address that is not of the family is none.
    let literal = event_loop.fails(event_loop.create_connection(silent, ("127.0.0.1", 1)).family(AF_INET6));
    assert_eq!(literal.kind(), ErrorKind::Resolve);
    let ready = event_loop.fails(event_loop.create_connection(silent, address).family(AF_INET6));
    assert_eq!(ready.kind(), ErrorKind::Resolve);
}

fn an_answer_of_another_family_is_not_tried(on: On) {
    /// Answers with both families, whatever was asked for.
    struct Careless(Names);
    impl asyncio::Resolver for Careless {
        fn getaddrinfo(
            &self,
            host: Option<&str>,
            port: &asyncio::Port,
            hints: asyncio::AddrInfoHints,
        ) -> asyncio::Result<Vec<asyncio::AddrInfo>> {
            self.0.getaddrinfo(host, port, hints.family(0))
        }
    }
    let event_loop = on.event_loop();
    event_loop.set_resolver(Careless(both())).unwrap();
    let (_holder, address) = refusing();
    let connecting = event_loop.create_connection(silent, ("both.test", address.port())).family(AF_INET);
    let text = event_loop.fails(connecting).to_string();
    assert!(text.contains("127.0.0.1") && !text.contains("::1"), "{text}");
    let server = event_loop.run(event_loop.create_server(silent, ("both.test", 0)).family(AF_INET));
    assert_eq!(server.sockets().len(), 1);
    assert!(server.sockets()[0].address().as_inet().unwrap().is_ipv4());
    server.close();
}

/// CON-008
fn there_must_be_a_place_and_only_one(on: On) {
    let event_loop = on.event_loop();
    let made = Count::default();
    let factory = || {
        made.up();
        silent()
    };
    let neither = event_loop.fails(event_loop.create_connection(factory, ()));
    let pair = PairKind::Tcp.pair();
    let twice = event_loop.fails(event_loop.create_connection(factory, ("127.0.0.1", 1)).sock(pair.ours));
    let several = event_loop.fails(event_loop.create_connection(factory, (["127.0.0.1", "127.0.0.2"], 1)));
    let no_host = event_loop.fails(event_loop.create_connection(factory, (Vec::new(), 1)));
    let unix = event_loop.fails(event_loop.create_connection(factory, Address::UnixAbstract(b"x".to_vec())));
    for error in [neither, twice, several, no_host, unix] {
        assert_eq!(error.kind(), ErrorKind::Value, "{error}");
    }
    assert_eq!(made.get(), 0);
    assert!(has_ended(&pair.peer), "the socket is closed");
}

/// CON-009
fn what_belongs_to_tls_needs_it(on: On) {
    let event_loop = on.event_loop();
    let (listener, address) = listener();
    // No name is looked up either.
    event_loop.set_resolver(Names(Vec::new())).unwrap();
    let connect = || event_loop.create_connection(silent, ("name.test", address.port()));
    let second = Duration::from_secs(1);
    let wrong = [
        ("server_hostname", connect().server_hostname("x")),
        ("server_hostname", connect().server_hostname("")),
        ("ssl_handshake_timeout", connect().ssl_handshake_timeout(second)),
        ("ssl_shutdown_timeout", connect().ssl_shutdown_timeout(second)),
        ("ssl_shutdown_timeout", event_loop.create_connection(silent, address).ssl_shutdown_timeout(Duration::ZERO)),
        ("ssl_handshake_timeout", event_loop.create_connection(silent, address).ssl_handshake_timeout(Duration::ZERO)),
    ];
    for (name, connecting) in wrong {
        let error = event_loop.fails(connecting);
        assert_eq!(error.kind(), ErrorKind::Value);
        assert!(error.to_string().contains(name), "{error}");
    }
    assert_eq!(accepted(&listener).len(), 0);
}

/// CON-010
#[cfg(feature = "tls")]
fn tls_needs_a_name(on: On) {
    let event_loop = on.event_loop();
    let context = asyncio::SslContext::client().unwrap();
    let pair = PairKind::Tcp.pair();
    let wrong = [
        event_loop.create_connection(silent, ()).sock(pair.ours).ssl(&context),
        event_loop.create_connection(silent, 443).ssl(&context),
        event_loop.create_connection(silent, ("", 443)).ssl(&context),
    ];
    for connecting in wrong {
        let error = event_loop.fails(connecting);
        assert_eq!(error.kind(), ErrorKind::Value);
        assert!(error.to_string().contains("server_hostname"), "{error}");
    }
    let zero = event_loop.create_connection(silent, ("127.0.0.1", 443)).ssl(&context);
    assert_eq!(event_loop.fails(zero.ssl_handshake_timeout(Duration::ZERO)).kind(), ErrorKind::Value);
}

#[cfg(not(feature = "tls"))]
fn tls_needs_a_name(_: On) {
    eprintln!("not tested: it needs the feature `tls`");
}

/// CON-011
fn a_socket_must_be_a_stream(on: On) {
    let event_loop = on.event_loop();
    let made = Count::default();
    let factory = || {
        made.up();
        silent()
    };
    let udp = || OwnedFd::from(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let unix = || OwnedFd::from(std::os::unix::net::UnixDatagram::unbound().unwrap());
    let file = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    for fd in [udp(), unix(), file()] {
        let error = event_loop.fails(event_loop.create_connection(factory, ()).sock(fd));
        assert_eq!(error.kind(), ErrorKind::Value);
        assert!(error.to_string().contains("Stream"), "{error}");
    }
    for fd in [udp(), unix(), file()] {
        let error = event_loop.fails(event_loop.connect_accepted_socket(factory, fd));
        assert_eq!(error.kind(), ErrorKind::Value);
        assert!(error.to_string().contains("Stream"), "{error}");
    }
    assert_eq!(made.get(), 0);
}

/// CON-012
fn a_given_socket_becomes_the_transport_s(on: On) {
    let event_loop = on.event_loop();
    for kind in [PairKind::Tcp, PairKind::Unix, PairKind::Socketpair] {
        let (pair, log) = (kind.pair(), Log::default());
        let ours = at_own_number(&pair.ours);
        drop(pair.ours);
        SockRef::from(&ours).set_nonblocking(false).unwrap();
        let number = ours.as_raw_fd();
        let connecting = event_loop.create_connection(|| Recorder::new(&log), ()).sock(ours);
        let (transport, _) = event_loop.run(connecting);
        assert_eq!(transport.get_extra_info(SOCKET), Some(number));
        transport.with_fd(|fd| {
            assert_eq!(fd.as_raw_fd(), number);
            assert!(rustix::fs::fcntl_getfl(fd).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
            if kind == PairKind::Tcp {
                assert!(SockRef::from(&fd).tcp_nodelay().unwrap());
            }
        });
        transport.close();
        assert!(is_open(number), "not before connection_lost");
        event_loop.until(|| log.lost());
        event_loop.ticks(1);
        assert_eq!(log.take(), [Told::Made, lost()]);
        assert!(!is_open(number));
        assert_eq!(transport.with_fd(|_| ()), None);
        assert!(has_ended(&pair.peer));
    }
}

fn a_socket_that_is_refused_is_closed(on: On) {
    let event_loop = on.event_loop();
    let pair = PairKind::Tcp.pair();
    let connecting = event_loop.create_connection(silent, ()).sock(pair.ours).server_hostname("x");
    assert_eq!(event_loop.fails(connecting).kind(), ErrorKind::Value);
    assert!(has_ended(&pair.peer));
    // One that another transport owns is not taken away from it.
    let pair = PairKind::Tcp.pair();
    let (mine, log) = (pair.ours.try_clone().unwrap(), Log::default());
    let (transport, _) = event_loop.run(event_loop.create_connection(|| Recorder::new(&log), ()).sock(pair.ours));
    let (other, _) = event_loop.run(event_loop.create_connection(silent, ()).sock(mine));
    other.abort();
    event_loop.ticks(2);
    transport.write(b"still here");
    assert_eq!(pair.peer.read_exactly(10), b"still here");
    transport.close();
}

fn a_builder_that_is_dropped_closes_its_socket(on: On) {
    let event_loop = on.event_loop();
    for awaited in [false, true] {
        for kind in [PairKind::Tcp, PairKind::Unix] {
            let pair = kind.pair();
            match (kind, awaited) {
                (PairKind::Tcp, false) => drop(event_loop.create_connection(silent, ()).sock(pair.ours)),
                (PairKind::Tcp, true) => {
                    drop(IntoFuture::into_future(event_loop.create_connection(silent, ()).sock(pair.ours)));
                }
                (_, false) => drop(event_loop.create_unix_connection(silent, ()).sock(pair.ours)),
                (_, true) => {
                    drop(IntoFuture::into_future(event_loop.create_unix_connection(silent, ()).sock(pair.ours)));
                }
            }
            assert!(has_ended(&pair.peer));
        }
    }
    let pair = PairKind::Tcp.pair();
    drop(event_loop.connect_accepted_socket(silent, pair.ours));
    assert!(has_ended(&pair.peer));
    let replaced = [PairKind::Tcp.pair(), PairKind::Tcp.pair()];
    let [first, second] = replaced;
    let connecting = event_loop.create_connection(silent, ()).sock(first.ours).sock(second.ours);
    assert!(has_ended(&first.peer) && !second.peer.ended());
    drop(connecting);
}

/// CON-014
fn the_local_address_is_bound(on: On) {
    let event_loop = on.event_loop();
    let (listener, address) = listener();
    let connecting = event_loop.create_connection(silent, address).local_addr(("127.0.0.2", 0));
    let (transport, _) = event_loop.run(connecting);
    let local = transport.get_extra_info(SOCKNAME).unwrap().as_inet().unwrap();
    assert_eq!(local.ip(), Ipv4Addr::new(127, 0, 0, 2));
    assert_eq!(listener.accept().unwrap().1, local);
    transport.close();
    // A name will do.
    event_loop.set_resolver(Names(vec![("me.test", vec![([127, 0, 0, 3], 0).into()])])).unwrap();
    let connecting = event_loop.create_connection(silent, address).local_addr(("me.test", 0));
    let (transport, _) = event_loop.run(connecting);
    assert_eq!(listener.accept().unwrap().1.ip(), Ipv4Addr::new(127, 0, 0, 3));
    transport.close();
}

/// CON-015
fn a_local_address_that_is_taken_is_named(on: On) {
    let event_loop = on.event_loop();
    let (listener, address) = listener();
    let error = event_loop.fails(event_loop.create_connection(silent, address).local_addr(address));
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Io, Some(libc::EADDRINUSE)));
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert_eq!(accepted(&listener).len(), 0);
}

/// CON-016
fn a_local_address_is_for_remotes_of_its_family(on: On) {
    let event_loop = on.event_loop();
    event_loop.set_resolver(both()).unwrap();
    let (listener, address) = listener();
    for delay in [None, Some(Duration::from_millis(250))] {
        let connecting = event_loop.create_connection(silent, ("both.test", address.port()));
        let connecting = connecting.local_addr(("127.0.0.1", 0)).happy_eyeballs_delay(delay);
        let (transport, _) = event_loop.run(connecting);
        assert_eq!(transport.get_extra_info(PEERNAME), Some(address.into()));
        assert!(transport.get_extra_info(SOCKNAME).unwrap().as_inet().unwrap().is_ipv4());
        transport.close();
        assert!(listener.accept().unwrap().1.is_ipv4());
    }
}

fn a_local_address_of_another_family_only_is_an_error(on: On) {
    let event_loop = on.event_loop();
    let (listener, address) = listener();
    let error = event_loop.fails(event_loop.create_connection(silent, address).local_addr(("::1", 0)));
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("no matching local address"), "{error}");
    assert_eq!(accepted(&listener).len(), 0);
    // Of several local addresses the first that can be had is taken.
    let locals = vec![([203, 0, 113, 1], 0).into(), ([127, 0, 0, 4], 0).into()];
    event_loop.set_resolver(Names(vec![("mine.test", locals)])).unwrap();
    let connecting = event_loop.create_connection(silent, address).local_addr(("mine.test", 0));
    let (transport, _) = event_loop.run(connecting);
    assert_eq!(listener.accept().unwrap().1.ip(), Ipv4Addr::new(127, 0, 0, 4));
    transport.close();
}

fn a_local_address_is_no_use_with_a_socket(on: On) {
    let event_loop = on.event_loop();
    let pair = PairKind::Tcp.pair();
    let connecting = event_loop.create_connection(silent, ()).sock(pair.ours).local_addr(("127.0.0.1", 0));
    assert_eq!(event_loop.fails(connecting).kind(), ErrorKind::Value);
}

fn small_writes_are_sent_at_once(on: On) {
    let event_loop = on.event_loop();
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address).unwrap();
        let (transport, _) = event_loop.run(event_loop.create_connection(silent, listener.local_addr().unwrap()));
        assert_eq!(transport.with_fd(|fd| SockRef::from(&fd).tcp_nodelay().unwrap()), Some(true));
        assert_eq!(
            transport.with_fd(|fd| rustix::io::fcntl_getfd(fd).unwrap()),
            Some(rustix::io::FdFlags::CLOEXEC),
            "children do not inherit it"
        );
        transport.close();
    }
}

fn both_sides_know_their_addresses(on: On) {
    let event_loop = on.event_loop();
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let log = Log::default();
        let connecting = event_loop.create_connection(|| Recorder::new(&log), (address.ip(), address.port()));
        let (transport, protocol) = event_loop.run(connecting);
        let (accepted, from) = listener.accept().unwrap();
        assert_eq!(transport.get_extra_info(PEERNAME), Some(Address::from(address)));
        assert_eq!(transport.get_extra_info(SOCKNAME), Some(Address::from(from)));
        let got = transport.get_protocol::<Recorder>().unwrap();
        assert!(std::rc::Rc::ptr_eq(&got, &protocol));
        // Also after the end.
        drop(accepted);
        event_loop.until(|| log.lost());
        assert_eq!(transport.get_extra_info(PEERNAME), Some(Address::from(address)));
        assert_eq!(transport.get_extra_info(SOCKNAME), Some(Address::from(from)));
    }
}

fn a_name_that_is_not_found_is_an_error(on: On) {
    let event_loop = on.event_loop();
    event_loop.set_resolver(both()).unwrap();
    let made = Count::default();
    let factory = || {
        made.up();
        silent()
    };
    let remote = event_loop.fails(event_loop.create_connection(factory, ("none.test", 1)));
    let (listener, address) = listener();
    let local = event_loop.fails(event_loop.create_connection(factory, address).local_addr(("none.test", 0)));
    assert_eq!([remote.kind(), local.kind()], [ErrorKind::Resolve; 2]);
    assert_eq!((made.get(), accepted(&listener).len()), (0, 0));
}

fn an_empty_answer_is_an_error(on: On) {
    let event_loop = on.event_loop();
    event_loop.set_resolver(Names(vec![("empty.test", Vec::new())])).unwrap();
    let remote = event_loop.fails(event_loop.create_connection(silent, ("empty.test", 1)));
    let (_listener, address) = listener();
    let local = event_loop.fails(event_loop.create_connection(silent, address).local_addr(("empty.test", 0)));
    let server = event_loop.fails(event_loop.create_server(silent, ("empty.test", 0)));
    for error in [remote, local, server] {
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("empty list"), "{error}");
    }
}

/// CON-026
fn a_transport_may_be_ended_while_it_is_made(on: On) {
    let event_loop = on.event_loop();
    for kind in [PairKind::Tcp, PairKind::Unix, PairKind::Socketpair] {
        for aborts in [true, false] {
            let (pair, log) = (kind.pair(), Log::default());
            let end = move |recorder: Recorder| {
                recorder.on_made(move |transport| if aborts { transport.abort() } else { transport.close() })
            };
            let factory = || end(Recorder::new(&log));
            event_loop.run(async {
                let (transport, _) = event_loop.create_connection(factory, ()).sock(pair.ours).await?;
                log.note("returned");
                assert!(transport.is_closing());
                Ok(())
            });
            assert_eq!(log.take(), [Told::Made, lost(), Told::Note("returned")], "{kind:?} {aborts}");
            assert!(has_ended(&pair.peer));
            event_loop.ticks(2);
            assert_eq!(log.take(), []);
        }
    }
    // What was written is sent all the same.
    let pair = PairKind::Tcp.pair();
    let bye = |recorder: Recorder| {
        recorder.on_made(|transport| {
            transport.write(b"bye");
            transport.close();
        })
    };
    let (transport, _) = event_loop.run(event_loop.create_connection(|| bye(silent()), ()).sock(pair.ours));
    assert!(transport.is_closing());
    assert_eq!(pair.peer.read_exactly(3), b"bye");
}

/// CON-027
fn a_panic_of_connection_made_is_reported_only(on: On) {
    let event_loop = on.event_loop();
    for kind in [PairKind::Tcp, PairKind::Unix, PairKind::Socketpair] {
        let (pair, log) = (kind.pair(), Log::default());
        let factory = || Recorder::new(&log).on_made(|_| panic!("in connection_made"));
        let opening = event_loop.create_connection(factory, ()).sock(pair.ours);
        let (transport, _) = event_loop.run(asyncio::timeout(Duration::from_secs(1), opening));
        let reports = event_loop.reports.take();
        assert_eq!(reports.len(), 1);
        assert!(reports[0].message.contains("connection_made"), "{:?}", reports[0]);
        assert_eq!(reports[0].exception.as_ref().unwrap().kind(), ErrorKind::Panicked);
        // It works as before.
        pair.peer.send(b"hello");
        event_loop.until(|| log.received_len() == 5);
        transport.close();
        event_loop.until(|| log.lost());
        event_loop.ticks(2);
        assert_eq!(log.take(), [Told::Made, Told::Data(5), lost()]);
        assert!(has_ended(&pair.peer));
    }
}

fn another_loop_s_connection_is_refused(on: On) {
    let event_loop = on.event_loop();
    let (listener, address) = listener();
    for is_closed in [false, true] {
        let other = on.event_loop();
        if is_closed {
            other.close().unwrap();
        }
        let (pair, accepting) = (PairKind::Tcp.pair(), PairKind::Tcp.pair());
        let errors = [
            event_loop.fails(other.create_connection(silent, address)),
            event_loop.fails(other.create_connection(silent, ()).sock(pair.ours)),
            event_loop.fails(other.connect_accepted_socket(silent, accepting.ours)),
            event_loop.fails(other.create_server(silent, ("127.0.0.1", 0))),
            event_loop.fails(other.create_unix_server(silent, crate::abstract_name())),
            event_loop.fails(other.create_unix_connection(silent, crate::abstract_name())),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Value, "{error}");
        }
        assert!(has_ended(&pair.peer) && has_ended(&accepting.peer));
    }
    assert_eq!(accepted(&listener).len(), 0);
}

fn without_a_running_loop_nothing_is_connected(on: On) {
    let event_loop = on.event_loop();
    let (listener, address) = listener();
    for is_closed in [false, true] {
        if is_closed {
            event_loop.close().unwrap();
        }
        let pair = PairKind::Tcp.pair();
        let errors = [
            event_loop.create_connection(silent, address).into_future().now_or_never().unwrap().err().unwrap(),
            event_loop
                .create_connection(silent, ())
                .sock(pair.ours)
                .into_future()
                .now_or_never()
                .unwrap()
                .err()
                .unwrap(),
            event_loop.create_server(silent, ("127.0.0.1", 0)).into_future().now_or_never().unwrap().unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Runtime, "{error}");
        }
        assert!(has_ended(&pair.peer));
    }
    assert_eq!(accepted(&listener).len(), 0);
}

fn what_is_not_awaited_does_nothing(on: On) {
    let event_loop = on.event_loop();
    let (listener, address) = listener();
    let made = Count::default();
    let factory = || {
        made.up();
        silent()
    };
    drop(event_loop.create_connection(factory, address));
    drop(IntoFuture::into_future(event_loop.create_connection(factory, address)));
    let (holder, refused) = refusing();
    drop(holder);
    drop(event_loop.create_server(silent, refused));
    drop(IntoFuture::into_future(event_loop.create_server(silent, refused)));
    assert!(crate::refuses(&refused.into()));
    event_loop.ticks(2);
    assert_eq!((made.get(), accepted(&listener).len()), (0, 0));
}

fn builders_show_what_they_are_asked(on: On) {
    let event_loop = on.event_loop();
    let connecting = event_loop.create_connection(silent, ("example.test", 443)).interleave(7).all_errors(true);
    let text = format!("{connecting:?}");
    assert!(text.contains("CreateConnection") && text.contains("example.test") && text.contains('7'), "{text}");
    assert!(format!("{:?}", IntoFuture::into_future(connecting)).contains("OpenStream"));
    let text = format!("{:?}", event_loop.create_server(silent, ("example.test", 80)).backlog(77));
    assert!(text.contains("CreateServer") && text.contains("example.test") && text.contains("77"), "{text}");
    let text = format!("{:?}", event_loop.create_unix_server(silent, "/x/y").cleanup_socket(false));
    assert!(text.contains("CreateUnixServer") && text.contains("/x/y") && text.contains("false"), "{text}");
    let text = format!("{:?}", event_loop.create_unix_connection(silent, "/x/y"));
    assert!(text.contains("CreateUnixConnection") && text.contains("/x/y"), "{text}");
    let pair = PairKind::Tcp.pair();
    let number = pair.ours.as_raw_fd();
    let text = format!("{:?}", event_loop.connect_accepted_socket(silent, pair.ours));
    assert!(text.contains("ConnectAcceptedSocket") && text.contains(&number.to_string()), "{text}");
}
