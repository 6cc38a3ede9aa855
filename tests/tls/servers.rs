//! What these tests show: everything that opens connections and servers, over TLS; and how servers end.

use std::{
    cell::Cell,
    fs::File,
    future::IntoFuture,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixStream},
    rc::Rc,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use asyncio::{
    AddrInfo, AddrInfoHints, Address, CIPHER, Error, ErrorKind, PEERNAME, Port, Resolver, Result, SERVER_HOSTNAME,
    SESSION_REUSED, Server, TlsVersion, Transport,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{SockAddr, Socket, Type};

use crate::{
    certificates,
    peers::{Driven, Side, TlsPeer, ways},
    support::{
        Record,
        loops::{On, TestLoop},
        transports::{Log, PairKind, Peer, Recorder, Told, pattern},
    },
};

on_each_selector! {
    a_client_without_a_host_needs_a_name
    a_context_is_for_one_side
    no_limit_is_zero
    what_belongs_to_tls_needs_it
    the_host_is_the_name
    a_given_socket_is_encrypted
    an_accepted_socket_is_encrypted
    a_given_listener_is_served
    a_server_that_serves_later
    unix_servers_and_clients
    closing_leaves_connections_and_handshakes
    a_handshake_is_waited_for
    clients_are_closed_in_order
    clients_that_were_encrypted_later_are_closed_in_order
    what_clients_are_to_get_comes_before_the_alert
    clients_are_aborted
    shutting_down_gives_a_grace
    handshakes_count_as_connections
    silent_clients_make_room_after_the_limit
    who_gives_up_its_handshake_makes_room
    a_silent_client_holds_up_nobody
    a_hundred_clients_at_once
    bad_clients_do_not_disturb_the_good_ones
    a_factory_that_panics
    a_protocol_that_never_knew_is_let_go
    closing_the_loop_ends_handshakes_and_connections
    one_context_for_several_loops
    without_descriptors_accepting_pauses
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Net {
    Tcp,
    Unix,
}

const NETS: [Net; 2] = [Net::Tcp, Net::Unix];

#[derive(Clone, Copy, Default)]
struct Plan {
    max_connections: Option<usize>,
    handshake_timeout: Option<Duration>,
}

/// A server that sends back what it gets, with the logs of its connections and their transports, in the order in which
/// they came and in which their handshakes ended.
struct Served {
    server: Server,
    logs: Record<Log>,
    ends: Record<Transport>,
}

impl Served {
    fn new(event_loop: &TestLoop, net: Net) -> Self {
        Served::with(event_loop, net, Plan::default())
    }

    fn with(event_loop: &TestLoop, net: Net, plan: Plan) -> Self {
        let (logs, ends) = (Record::<Log>::default(), Record::default());
        let (made, begun) = (logs.clone(), ends.clone());
        let factory = move || {
            let log = Log::default();
            made.push(log.clone());
            let begun = begun.clone();
            Recorder::new(&log)
                .on_made(move |transport| begun.push(transport.clone()))
                .on_data(|transport, data| transport.write(data))
        };
        let context = certificates::server();
        let limit = plan.handshake_timeout.unwrap_or(asyncio::SSL_HANDSHAKE_TIMEOUT);
        let server = match net {
            Net::Tcp => {
                let creating = event_loop.create_server(factory, ("127.0.0.1", 0)).ssl(&context);
                event_loop.run(creating.ssl_handshake_timeout(limit).max_connections(plan.max_connections))
            }
            Net::Unix => {
                let creating = event_loop.create_unix_server(factory, abstract_name()).ssl(&context);
                event_loop.run(creating.ssl_handshake_timeout(limit).max_connections(plan.max_connections))
            }
        };
        Served { server, logs, ends }
    }

    /// Clients of both versions, whose handshakes are over at both sides.
    fn clients(&self, event_loop: &TestLoop, count: usize) -> Vec<Driven> {
        let begun = self.ends.len();
        let mut clients: Vec<Driven> = (0..count).map(|index| client(&self.server, version(index))).collect();
        event_loop.until(|| {
            clients.iter_mut().for_each(Driven::turn);
            self.ends.len() == begun + count && clients.iter().all(|client| !client.connection.is_handshaking())
        });
        clients
    }

    /// Clients that say nothing, accepted.
    fn silent(&self, event_loop: &TestLoop, count: usize) -> Vec<Peer> {
        let accepted = self.logs.len() + count;
        let clients = (0..count).map(|_| connect(&self.server)).collect();
        event_loop.until(|| self.logs.len() == accepted);
        event_loop.ticks(2);
        clients
    }

    /// How many protocols know of a connection, or have known.
    fn made(&self) -> usize {
        self.logs.items().iter().filter(|log| log.has(&Told::Made)).count()
    }

    fn until_all_lost(&self, event_loop: &TestLoop) {
        event_loop.until(|| self.logs.items().iter().all(|log| log.items().is_empty() || log.lost()));
    }

    /// Ends it, with all that is left of it.
    fn end(self, event_loop: &TestLoop) {
        self.server.close();
        self.server.abort_clients();
        event_loop.run(self.server.wait_closed());
    }
}

fn version(index: usize) -> TlsVersion {
    if index % 2 == 0 { TlsVersion::V1_3 } else { TlsVersion::V1_2 }
}

/// A name in the abstract namespace that nobody else has.
fn abstract_name() -> String {
    static LAST: AtomicUsize = AtomicUsize::new(0);
    format!("\0asyncio-tls-{}-{}", std::process::id(), LAST.fetch_add(1, Ordering::Relaxed))
}

fn place(server: &Server) -> SockAddr {
    match server.sockets()[0].address() {
        Address::Inet(address) => (*address).into(),
        Address::UnixAbstract(name) => {
            SockAddr::unix(format!("\0{}", String::from_utf8(name.clone()).unwrap())).unwrap()
        }
        address => panic!("{address}"),
    }
}

/// A connection in clear, which a listener with room in its queue needs not accept.
fn connect(server: &Server) -> Peer {
    let place = place(server);
    let socket = Socket::new(place.domain(), Type::STREAM, None).unwrap();
    socket.connect(&place).unwrap();
    Peer::new(socket)
}

/// A client whose handshake has not begun.
fn client(server: &Server, version: TlsVersion) -> Driven {
    let way = ways().into_iter().find(|way| way.ours == Side::Server && way.version == version).unwrap();
    way.peer(connect(server))
}

/// Sends something and receives it back.
fn echo(event_loop: &TestLoop, clients: &mut [Driven], data: &[u8]) {
    clients.iter_mut().for_each(|client| client.send(data));
    event_loop.until(|| {
        clients.iter_mut().for_each(Driven::turn);
        clients.iter().all(|client| client.received.len() >= data.len())
    });
    for client in clients {
        assert!(std::mem::take(&mut client.received) == data);
    }
}

/// Whether the other side has ended, which the system may need a moment to tell.
fn has_ended(peer: &Peer) -> bool {
    peer.until_readable();
    peer.ended()
}

fn silent() -> Recorder {
    Recorder::new(&Log::default())
}

/// Lets a loop run for a little while, in which something must not happen.
fn linger(event_loop: &TestLoop) {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(10) {
        event_loop.run_once(Duration::from_millis(1)).unwrap();
    }
}

#[track_caller]
fn assert_value(error: &Error, text: &str) {
    assert_eq!(error.kind(), ErrorKind::Value, "{error}");
    assert!(error.to_string().contains(text), "{error}");
}

/// CON-010, UNX-014
fn a_client_without_a_host_needs_a_name(on: On) {
    let event_loop = on.event_loop();
    let made = Rc::new(Cell::new(0));
    let factory = || {
        made.set(made.get() + 1);
        silent()
    };
    let context = certificates::client();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let unix_listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    unix_listener.set_nonblocking(true).unwrap();
    for empty in [false, true] {
        let pair = PairKind::Tcp.pair();
        let mut wrong = [
            event_loop.create_connection(factory, ()).sock(pair.ours).ssl(&context),
            event_loop.create_connection(factory, port).ssl(&context),
            event_loop.create_connection(factory, ("", port)).ssl(&context),
        ];
        let mut wrong_unix = [
            event_loop.create_unix_connection(factory, &path).ssl(&context),
            event_loop.create_unix_connection(factory, ()).sock(UnixStream::pair().unwrap().0).ssl(&context),
        ];
        if empty {
            wrong = wrong.map(|connecting| connecting.server_hostname(""));
            wrong_unix = wrong_unix.map(|connecting| connecting.server_hostname(""));
        }
        for error in wrong.map(|connecting| event_loop.fails(connecting)) {
            assert_value(&error, "server_hostname");
        }
        for error in wrong_unix.map(|connecting| event_loop.fails(connecting)) {
            assert_value(&error, "server_hostname");
        }
        assert!(pair.peer.ended() && pair.peer.drain().is_empty(), "the socket that was given is closed");
    }
    let error = event_loop
        .fails(event_loop.create_connection(factory, listener.local_addr().unwrap()).ssl(&context).server_hostname(""));
    assert_value(&error, "dangerous");
    assert_eq!(made.get(), 0);
    assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert_eq!(unix_listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

fn a_context_is_for_one_side(on: On) {
    let event_loop = on.event_loop();
    let (client, server) = (certificates::client(), certificates::server());
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let pair = || OwnedFd::from(UnixStream::pair().unwrap().0);
    let wrong = [
        event_loop.fails(event_loop.create_connection(silent, address).ssl(&server).server_hostname("localhost")),
        event_loop.fails(event_loop.create_unix_connection(silent, "/").ssl(&server).server_hostname("localhost")),
        event_loop.fails(event_loop.create_server(silent, ("127.0.0.1", 0)).ssl(&client)),
        event_loop.fails(event_loop.create_unix_server(silent, abstract_name()).ssl(&client)),
        event_loop.fails(event_loop.connect_accepted_socket(silent, pair()).ssl(&client)),
    ];
    for (error, needs) in wrong.iter().zip(["client", "client", "server", "server", "server"]) {
        assert_value(error, &format!("a {needs} needs"));
    }
}

fn no_limit_is_zero(on: On) {
    let event_loop = on.event_loop();
    let (client, server) = (certificates::client(), certificates::server());
    let pair = || OwnedFd::from(UnixStream::pair().unwrap().0);
    for zero_handshake in [false, true] {
        macro_rules! fails {
            ($opening:expr) => {
                event_loop.fails(if zero_handshake {
                    $opening.ssl_handshake_timeout(Duration::ZERO)
                } else {
                    $opening.ssl_shutdown_timeout(Duration::ZERO)
                })
            };
        }
        let wrong = [
            fails!(event_loop.create_connection(silent, ("localhost", 1)).ssl(&client)),
            fails!(event_loop.create_unix_connection(silent, "/").ssl(&client).server_hostname("localhost")),
            fails!(event_loop.create_server(silent, ("127.0.0.1", 0)).ssl(&server)),
            fails!(event_loop.create_unix_server(silent, abstract_name()).ssl(&server)),
            fails!(event_loop.connect_accepted_socket(silent, pair()).ssl(&server)),
        ];
        for error in &wrong {
            assert_value(error, "positive");
            assert_value(error, if zero_handshake { "ssl_handshake_timeout" } else { "ssl_shutdown_timeout" });
        }
    }
}

/// SRV-009, UNX-014, CON-028: what they say of limits without TLS.
fn what_belongs_to_tls_needs_it(on: On) {
    let event_loop = on.event_loop();
    let second = Duration::from_secs(1);
    let pair = || OwnedFd::from(UnixStream::pair().unwrap().0);
    let name = abstract_name();
    let unix = || event_loop.create_unix_connection(silent, &name);
    let wrong = [
        ("handshake", event_loop.fails(event_loop.create_server(silent, 0).ssl_handshake_timeout(second))),
        ("shutdown", event_loop.fails(event_loop.create_server(silent, 0).ssl_shutdown_timeout(second))),
        ("handshake", event_loop.fails(event_loop.create_unix_server(silent, &name).ssl_handshake_timeout(second))),
        ("shutdown", event_loop.fails(event_loop.create_unix_server(silent, &name).ssl_shutdown_timeout(second))),
        ("handshake", event_loop.fails(unix().ssl_handshake_timeout(second))),
        ("shutdown", event_loop.fails(unix().ssl_shutdown_timeout(second))),
        ("server_hostname", event_loop.fails(unix().server_hostname("localhost"))),
        ("server_hostname", event_loop.fails(unix().server_hostname(""))),
        (
            "handshake",
            event_loop.fails(event_loop.connect_accepted_socket(silent, pair()).ssl_handshake_timeout(second)),
        ),
        ("shutdown", event_loop.fails(event_loop.connect_accepted_socket(silent, pair()).ssl_shutdown_timeout(second))),
    ];
    for (text, error) in &wrong {
        assert_value(error, text);
    }
}

/// A resolver that knows one name.
struct Known(&'static str);

impl Resolver for Known {
    fn getaddrinfo(&self, host: Option<&str>, port: &Port, hints: AddrInfoHints) -> Result<Vec<AddrInfo>> {
        let Port::Number(port) = port else { panic!("{port:?}") };
        assert_eq!(host, Some(self.0));
        Ok(vec![AddrInfo::new((Ipv4Addr::LOCALHOST, *port).into(), hints.socket_type)])
    }
}

fn the_host_is_the_name(on: On) {
    let event_loop = on.event_loop();
    event_loop.set_resolver(Known("server.test")).unwrap();
    let context = certificates::authority().issue(&["server.test", "127.0.0.1"]).server();
    let creating = event_loop.create_server(silent, ("127.0.0.1", 0)).ssl(&context);
    let server = event_loop.run(creating);
    let address = server.sockets()[0].address().as_inet().unwrap();
    let trusting = certificates::client();
    for host in ["server.test", "127.0.0.1"] {
        let log = Log::default();
        let connecting = event_loop.create_connection(|| Recorder::new(&log), (host, address.port())).ssl(&trusting);
        let (transport, _) = event_loop.run(connecting);
        assert_eq!(transport.get_extra_info(SERVER_HOSTNAME).as_deref(), Some(host));
        transport.close();
        event_loop.until(|| log.lost());
        // Another name than that of the host may be asked for.
        let connecting = event_loop.create_connection(silent, (host, address.port())).ssl(&trusting);
        let error = event_loop.fails(connecting.server_hostname("another.test"));
        assert_eq!(error.kind(), ErrorKind::Ssl);
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    server.close();
    event_loop.run(server.wait_closed());
}

/// CON-012, over TLS.
fn a_given_socket_is_encrypted(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let served = Served::new(&event_loop, net);
        for nonblocking in [false, true] {
            let socket = connect(&served.server).0;
            socket.set_nonblocking(nonblocking).unwrap();
            let log = Log::default();
            let context = certificates::client();
            let (transport, _) = match net {
                Net::Tcp => {
                    let opening = event_loop.create_connection(|| Recorder::new(&log), ()).sock(socket);
                    event_loop.run(opening.ssl(&context).server_hostname("localhost"))
                }
                Net::Unix => {
                    let opening = event_loop.create_unix_connection(|| Recorder::new(&log), ()).sock(socket);
                    event_loop.run(opening.ssl(&context).server_hostname("localhost"))
                }
            };
            assert!(transport.with_fd(|fd| socket2::SockRef::from(&fd).nonblocking().unwrap()).unwrap());
            if net == Net::Tcp {
                assert!(transport.with_fd(|fd| socket2::SockRef::from(&fd).tcp_nodelay().unwrap()).unwrap());
            }
            assert!(transport.get_extra_info(CIPHER).is_some());
            transport.write(b"hello");
            event_loop.until(|| log.received() == b"hello");
            transport.close();
            event_loop.until(|| log.lost());
            assert_eq!(log.joined(), [Told::Made, Told::Data(5), Told::Eof, Told::Lost(None)]);
            assert!(transport.with_fd(|_| ()).is_none());
        }
        served.until_all_lost(&event_loop);
        served.end(&event_loop);
    }
}

/// CON-028, over TLS.
fn an_accepted_socket_is_encrypted(on: On) {
    let event_loop = on.event_loop();
    for wait in [false, true] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let client = thread::spawn(move || {
            let mut client = TlsPeer::connect(address).unwrap();
            client.send(b"test data").unwrap();
            let reply = client.receive(5).unwrap();
            assert!(client.receive_all().unwrap().is_empty());
            client.close_notify().unwrap();
            reply
        });
        let (accepted, _) = listener.accept().unwrap();
        if wait {
            // The handshake of the client has begun long ago.
            accepted.peek(&mut [0]).unwrap();
        }
        let log = Log::default();
        let factory = || {
            Recorder::new(&log).on_data(|transport, _| {
                transport.write(b"roger");
                transport.close();
            })
        };
        let opening = event_loop.connect_accepted_socket(factory, accepted).ssl(&certificates::server());
        let (transport, _) = event_loop.run(async {
            let opened = opening.await?;
            log.note("returned");
            Ok(opened)
        });
        assert!(transport.get_extra_info(PEERNAME).is_some());
        event_loop.until(|| log.lost());
        assert_eq!(client.join().unwrap(), b"roger");
        let told = [Told::Made, Told::Note("returned"), Told::Data(9), Told::Eof, Told::Lost(None)];
        assert_eq!(log.joined(), told);
        assert_eq!(log.received(), b"test data");
    }
}

/// SRV-014, over TLS.
fn a_given_listener_is_served(on: On) {
    let event_loop = on.event_loop();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    // It waits in the queue, and has begun its handshake.
    let mut early = {
        let way = ways().into_iter().find(|way| way.ours == Side::Server).unwrap();
        way.peer(Peer::new(TcpStream::connect(address).unwrap()))
    };
    early.turn();
    let log = Log::default();
    let record = log.clone();
    let creating = event_loop.create_server(move || Recorder::new(&record), ()).sock(listener);
    let server = event_loop.run(creating.ssl(&certificates::server()));
    assert_eq!(server.sockets()[0].address().as_inet(), Some(address));
    event_loop.until(|| {
        early.turn();
        log.has(&Told::Made) && !early.connection.is_handshaking()
    });
    early.send(b"hello");
    event_loop.until(|| log.received() == b"hello");
    server.close();
    server.abort_clients();
    event_loop.run(server.wait_closed());
}

/// SRV-013, over TLS.
fn a_server_that_serves_later(on: On) {
    let event_loop = on.event_loop();
    let log = Log::default();
    let record = log.clone();
    let creating = event_loop.create_server(move || Recorder::new(&record), ("127.0.0.1", 0)).start_serving(false);
    let server = event_loop.run(creating.ssl(&certificates::server()));
    let address = server.sockets()[0].address().as_inet().unwrap();
    assert!(!server.is_serving());
    let refused = event_loop.create_connection(silent, address).ssl(&certificates::client());
    let error = event_loop.fails(refused.server_hostname("localhost"));
    assert_eq!(error.io_error().map(io::Error::kind), Some(io::ErrorKind::ConnectionRefused));
    event_loop.run(server.start_serving());
    assert!(server.is_serving());
    let client_log = Log::default();
    let (client, _) = crate::tls_client(&event_loop, address, || Recorder::new(&client_log));
    client.close();
    event_loop.until(|| client_log.lost() && log.lost());
    server.close();
    event_loop.run(server.wait_closed());
}

/// UNX-001 and UNX-011, over TLS.
fn unix_servers_and_clients(on: On) {
    let event_loop = on.event_loop();
    let data = pattern(1 << 20);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let abstract_path = abstract_name();
    for place in [path.to_str().unwrap(), &abstract_path] {
        let (log, server_log) = (Log::default(), Log::default());
        let record = server_log.clone();
        let factory = move || Recorder::new(&record).on_data(|transport, data| transport.write(data));
        let creating = event_loop.create_unix_server(factory, place).ssl(&certificates::server());
        let server = event_loop.run(creating);
        let opening = event_loop.create_unix_connection(|| Recorder::new(&log), place).ssl(&certificates::client());
        let (transport, _) = event_loop.run(opening.server_hostname("localhost"));
        assert_eq!(transport.get_extra_info(PEERNAME).as_ref(), Some(server.sockets()[0].address()));
        assert_eq!(transport.get_extra_info(CIPHER).unwrap().protocol, "TLSv1.3");
        transport.write(&data);
        event_loop.until(|| log.received_len() == data.len());
        assert!(log.received() == data && server_log.received() == data);
        // Its certificate is looked at as everybody's.
        let opening = event_loop.create_unix_connection(silent, place).ssl(&certificates::client());
        assert_eq!(event_loop.fails(opening.server_hostname("another")).kind(), ErrorKind::Ssl);
        transport.close();
        event_loop.until(|| log.lost() && server_log.lost());
        server.close();
        event_loop.run(server.wait_closed());
        assert!(!path.exists());
    }
}

/// SRV-018, over TLS.
fn closing_leaves_connections_and_handshakes(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let served = Served::new(&event_loop, net);
        let mut clients = served.clients(&event_loop, 2);
        let place = place(&served.server);
        // One is in the middle of its handshake.
        let mut late = client(&served.server, TlsVersion::V1_3);
        event_loop.until(|| served.logs.len() == 3);
        served.server.close();
        served.server.close();
        assert!(served.server.sockets().is_empty() && !served.server.is_serving());
        let another = Socket::new(place.domain(), Type::STREAM, None).unwrap();
        assert_eq!(another.connect(&place).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        echo(&event_loop, &mut clients, b"still here");
        event_loop.until(|| {
            late.turn();
            served.made() == 3
        });
        clients.push(late);
        echo(&event_loop, &mut clients, b"and here");
        drop(clients);
        event_loop.run(served.server.wait_closed());
        served.until_all_lost(&event_loop);
    }
}

/// SRV-020, for those whose handshake is not over.
fn a_handshake_is_waited_for(on: On) {
    for net in NETS {
        for case in 0..3 {
            let (event_loop, clock) = on.virtual_loop();
            let limit = Duration::from_secs(10);
            let plan = Plan { handshake_timeout: Some(limit), ..Plan::default() };
            let served = Served::with(&event_loop, net, plan);
            let server = served.server.clone();
            let waiter = event_loop.create_task(async move { server.wait_closed().await });
            let clients = served.silent(&event_loop, 1);
            served.server.close();
            event_loop.ticks(3);
            assert!(!waiter.done(), "{net:?}");
            match case {
                0 => drop(clients),
                1 => {
                    clock.advance(limit - Duration::from_millis(1));
                    event_loop.ticks(3);
                    assert!(!waiter.done());
                    clock.advance(Duration::from_millis(1));
                }
                _ => served.server.close_clients(),
            }
            event_loop.until(|| waiter.done());
            event_loop.run(waiter);
            event_loop.run(served.server.wait_closed());
            assert_eq!(served.logs.items()[0].items(), [], "{net:?}, {case}");
        }
    }
}

/// SRV-023, over TLS.
fn clients_are_closed_in_order(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let served = Served::new(&event_loop, net);
        let mut clients = served.clients(&event_loop, 3);
        let silent = served.silent(&event_loop, 1);
        served.server.close();
        served.server.close_clients();
        assert!(served.ends.items().iter().all(Transport::is_closing));
        event_loop.until(|| {
            clients.iter_mut().for_each(Driven::turn);
            clients.iter().all(|client| client.close_notify)
        });
        assert!(served.logs.items().iter().all(|log| !log.lost()), "they wait for the alerts of their clients");
        for client in &mut clients {
            let alert = client.seal_close_notify();
            client.send_sealed(&alert);
        }
        event_loop.run(served.server.wait_closed());
        event_loop.ticks(2);
        let logs = served.logs.items();
        for log in &logs[..3] {
            assert_eq!(log.items(), [Told::Made, Told::Eof, Told::Lost(None)], "{net:?}");
        }
        assert_eq!(logs[3].items(), [], "it never knew");
        assert!(has_ended(&silent[0]));
    }
}

/// SRV-023, for those that were encrypted later, once and once more.
fn clients_that_were_encrypted_later_are_closed_in_order(on: On) {
    let event_loop = on.event_loop();
    for ends_it in ["close_clients", "abort_clients"] {
        let (log, ends) = (Log::default(), Record::default());
        let (recorded, made) = (log.clone(), ends.clone());
        let factory = move || {
            let made = made.clone();
            Recorder::new(&recorded).on_made(move |transport| made.push(transport.clone()))
        };
        let server = event_loop.run(event_loop.create_server(factory, ("127.0.0.1", 0)));
        let address = server.sockets()[0].address().as_inet().unwrap();
        let way = ways().into_iter().find(|way| way.ours == Side::Server && way.version == TlsVersion::V1_3).unwrap();
        let mut client = way.peer(Peer::new(TcpStream::connect(address).unwrap()));
        event_loop.until(|| ends.len() == 1);
        let starting = event_loop.start_tls(&ends.items()[0], &certificates::server());
        let task = event_loop.create_task(starting.into_future());
        event_loop.until(|| {
            client.turn();
            task.done() && !client.connection.is_handshaking()
        });
        let transport = event_loop.run(task);
        transport.write(b"last words");
        server.close();
        if ends_it == "close_clients" {
            server.close_clients();
            assert!(transport.is_closing());
            event_loop.until(|| {
                client.turn();
                client.close_notify
            });
            assert_eq!(client.received, b"last words");
            assert!(!log.lost());
            let alert = client.seal_close_notify();
            client.send_sealed(&alert);
            event_loop.run(server.wait_closed());
            event_loop.ticks(2);
            assert_eq!(log.items(), [Told::Made, Told::Eof, Told::Lost(None)]);
        } else {
            server.abort_clients();
            event_loop.run(server.wait_closed());
            event_loop.ticks(2);
            assert_eq!(log.items(), [Told::Made, Told::Lost(None)]);
        }
    }
}

fn what_clients_are_to_get_comes_before_the_alert(on: On) {
    let event_loop = on.event_loop();
    let data = pattern(3_000_000);
    for net in NETS {
        let served = Served::new(&event_loop, net);
        let mut clients = served.clients(&event_loop, 4);
        served.ends.items().iter().for_each(|end| end.write(&data));
        served.server.close();
        served.server.close_clients();
        event_loop.until(|| {
            clients.iter_mut().for_each(Driven::turn);
            clients.iter().all(|client| client.close_notify)
        });
        assert!(clients.iter().all(|client| client.received == data), "{net:?}");
        drop(clients);
        event_loop.run(served.server.wait_closed());
        for log in served.logs.items() {
            assert_eq!(log.count(&Told::Lost(None)), 1);
        }
    }
}

fn clients_are_aborted(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let served = Served::new(&event_loop, net);
        let mut clients = served.clients(&event_loop, 3);
        let silent = served.silent(&event_loop, 2);
        served.server.abort_clients();
        assert!(served.ends.items().iter().all(Transport::is_closing));
        event_loop.until(|| {
            clients.iter_mut().for_each(Driven::turn);
            clients.iter().all(|client| client.ended)
        });
        assert!(clients.iter().all(|client| !client.close_notify), "without a word");
        served.until_all_lost(&event_loop);
        let logs = served.logs.items();
        assert!(logs[..3].iter().all(|log| log.items() == [Told::Made, Told::Lost(None)]), "{net:?}");
        assert!(logs[3..].iter().all(|log| log.items().is_empty()));
        assert!(silent.iter().all(has_ended));
        // The server goes on.
        let mut clients = served.clients(&event_loop, 1);
        echo(&event_loop, &mut clients, b"hello");
        served.end(&event_loop);
    }
}

fn shutting_down_gives_a_grace(on: On) {
    for net in NETS {
        for all_leave in [false, true] {
            let (event_loop, clock) = on.virtual_loop();
            let served = Served::new(&event_loop, net);
            let mut clients = served.clients(&event_loop, 2);
            let silent = served.silent(&event_loop, 1);
            let (server, grace) = (served.server.clone(), Duration::from_secs(5));
            let shutdown = event_loop.create_task(async move { server.shutdown(grace).await });
            event_loop.ticks(3);
            assert!(!served.server.is_serving() && served.ends.items().iter().all(|end| !end.is_closing()));
            echo(&event_loop, &mut clients, b"within the grace");
            // One leaves, in order.
            let alert = clients[0].seal_close_notify();
            clients[0].send_sealed(&alert);
            event_loop.until(|| {
                clients[0].turn();
                clients[0].ended
            });
            assert!(clients[0].close_notify && !shutdown.done());
            if all_leave {
                drop((clients, silent));
                event_loop.until(|| shutdown.done());
                assert!(event_loop.has_no_timer());
            } else {
                clock.advance(grace - Duration::from_millis(1));
                event_loop.ticks(3);
                assert!(!shutdown.done() && !clients[1].socket.ended());
                clock.advance(Duration::from_millis(1));
                event_loop.until(|| shutdown.done());
                clients[1].turn();
                assert!(has_ended(&silent[0]) && has_ended(&clients[1].socket));
                assert!(!clients[1].close_notify);
            }
            event_loop.run(shutdown);
            served.until_all_lost(&event_loop);
            let logs = served.logs.items();
            assert!(logs[..2].iter().all(|log| log.count(&Told::Lost(None)) == 1), "{net:?}");
            assert_eq!(logs[2].items(), []);
        }
    }
}

fn handshakes_count_as_connections(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let served = Served::with(&event_loop, net, Plan { max_connections: Some(2), ..Plan::default() });
        let mut silent = served.silent(&event_loop, 2);
        let mut third = client(&served.server, TlsVersion::V1_3);
        third.turn();
        linger(&event_loop);
        third.turn();
        assert_eq!((served.logs.len(), third.connection.is_handshaking()), (2, true), "{net:?}");
        drop(silent.pop());
        event_loop.until(|| {
            third.turn();
            served.made() == 1
        });
        // The limit stands, for those whose handshake is over as well.
        let mut fourth = client(&served.server, TlsVersion::V1_2);
        fourth.turn();
        linger(&event_loop);
        assert_eq!(served.logs.len(), 3);
        drop(third);
        event_loop.until(|| {
            fourth.turn();
            served.made() == 2
        });
        assert!(!silent[0].ended());
        served.end(&event_loop);
    }
}

fn silent_clients_make_room_after_the_limit(on: On) {
    for net in NETS {
        let (event_loop, clock) = on.virtual_loop();
        let limit = Duration::from_secs(7);
        let plan = Plan { max_connections: Some(3), handshake_timeout: Some(limit) };
        let served = Served::with(&event_loop, net, plan);
        let silent = served.silent(&event_loop, 3);
        let mut late = client(&served.server, TlsVersion::V1_3);
        late.turn();
        clock.advance(limit - Duration::from_millis(1));
        linger(&event_loop);
        assert_eq!(served.logs.len(), 3);
        clock.advance(Duration::from_millis(1));
        event_loop.until(|| {
            late.turn();
            served.made() == 1
        });
        assert!(silent.iter().all(has_ended));
        assert_eq!(served.logs.items()[..3].iter().map(|log| log.items().len()).sum::<usize>(), 0, "{net:?}");
        // Its own limit is over with its handshake.
        clock.advance(limit * 2);
        echo(&event_loop, std::slice::from_mut(&mut late), b"hello");
        served.end(&event_loop);
    }
}

fn who_gives_up_its_handshake_makes_room(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let served = Served::with(&event_loop, net, Plan { max_connections: Some(1), ..Plan::default() });
        for round in 0..5 {
            // Ours, given up at a different moment each time.
            let socket = connect(&served.server).0;
            let opening = event_loop.create_connection(silent, ()).sock(socket).ssl(&certificates::client());
            let opening = opening.server_hostname("localhost").into_future();
            let task = event_loop.create_task(async move { opening.await.map(|(transport, _)| transport) });
            event_loop.ticks(round);
            if task.cancel() {
                event_loop.until(|| task.done());
            }
            if let Ok(transport) = task.result() {
                transport.abort();
            }
            let mut next = client(&served.server, TlsVersion::V1_3);
            let made = served.made();
            event_loop.until(|| {
                next.turn();
                served.made() > made && !next.connection.is_handshaking()
            });
            echo(&event_loop, std::slice::from_mut(&mut next), b"hello");
        }
        served.end(&event_loop);
    }
}

fn a_silent_client_holds_up_nobody(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let served = Served::new(&event_loop, net);
        let silent = served.silent(&event_loop, 5);
        // One stops in the middle.
        let mut half = client(&served.server, TlsVersion::V1_2);
        half.flush();
        event_loop.until(|| served.logs.len() == 6);
        let mut clients = served.clients(&event_loop, 10);
        echo(&event_loop, &mut clients, &pattern(10_000));
        assert_eq!(served.made(), 10);
        assert!(silent.iter().all(|client| !client.ended()));
        drop(clients);
        served.until_all_lost(&event_loop);
        // And it may go on.
        event_loop.until(|| {
            half.turn();
            served.made() == 11
        });
        served.end(&event_loop);
        assert!(silent.iter().all(has_ended), "{net:?}");
    }
}

fn a_hundred_clients_at_once(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let served = Served::new(&event_loop, net);
        let context = certificates::client();
        let mut tasks = Vec::new();
        for index in 0..100 {
            let log = Log::default();
            let socket = connect(&served.server).0;
            let record = log.clone();
            let opening = event_loop.create_connection(move || Recorder::new(&record), ()).sock(socket).ssl(&context);
            let opening = opening.server_hostname("localhost").into_future();
            let data = pattern(1000 + index * 100);
            let sent = data.clone();
            let task = event_loop.create_task(async move {
                let (transport, _) = opening.await?;
                transport.write(&sent);
                Ok(transport)
            });
            tasks.push((task, log, data));
        }
        event_loop.until(|| tasks.iter().all(|(_, log, data)| log.received_len() == data.len()));
        assert_eq!(served.made(), 100);
        for (task, log, data) in tasks {
            assert!(log.received() == data);
            event_loop.run(task).close();
            event_loop.until(|| log.lost());
            assert_eq!(log.items().last(), Some(&Told::Lost(None)), "{net:?}");
        }
        served.server.close();
        event_loop.run(served.server.wait_closed());
        served.until_all_lost(&event_loop);
        assert!(served.logs.items().iter().all(|log| log.count(&Told::Lost(None)) == 1));
    }
}

fn bad_clients_do_not_disturb_the_good_ones(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let served = Served::new(&event_loop, net);
        let mut good = served.clients(&event_loop, 3);
        let nonsense = pattern(70_000);
        let bad: [&[u8]; 6] =
            [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\n", b"\x16\x03\x01\xff\xff", b"", &[0; 300], &nonsense];
        for round in 0..5 {
            let mut left = Vec::new();
            for (index, data) in bad.iter().enumerate() {
                let peer = connect(&served.server);
                peer.send_some(data);
                if index == round {
                    peer.half_close();
                }
                if (index + round) % 3 == 0 {
                    drop(peer);
                } else {
                    left.push(peer);
                }
            }
            let mut next = served.clients(&event_loop, 1);
            echo(&event_loop, &mut next, b"between them");
            echo(&event_loop, &mut good, &pattern(5000));
            good.append(&mut next);
        }
        served.server.close();
        assert_eq!(served.made(), 8, "{net:?}");
        assert_eq!(event_loop.reports.len(), 0);
        echo(&event_loop, &mut good, b"and on");
        drop(good);
        event_loop.run(served.server.wait_closed());
    }
}

/// SRV-015, over TLS.
fn a_factory_that_panics(on: On) {
    let event_loop = on.event_loop();
    let log = Log::default();
    let (record, calls) = (log.clone(), Rc::new(Cell::new(0)));
    let counted = calls.clone();
    let factory = move || {
        counted.set(counted.get() + 1);
        assert_ne!(counted.get(), 1, "not the first one");
        Recorder::new(&record)
    };
    let (server, _) = crate::tls_server(&event_loop, factory);
    let mut first = client(&server, TlsVersion::V1_3);
    first.flush();
    event_loop.until(|| {
        first.turn();
        first.ended
    });
    let reports = event_loop.reports.take();
    assert_eq!(reports.len(), 1);
    assert!(reports[0].message.contains("transport creation"), "{:?}", reports[0]);
    assert!(server.is_serving() && first.connection.is_handshaking());
    let mut second = client(&server, TlsVersion::V1_3);
    event_loop.until(|| {
        second.turn();
        log.has(&Told::Made)
    });
    server.close();
    server.abort_clients();
    event_loop.run(server.wait_closed());
    assert_eq!(calls.get(), 2);
}

/// A protocol whose drop can be seen.
struct Counted(Recorder, #[expect(dead_code, reason = "its drop is what is looked at")] Rc<()>);

impl asyncio::Protocol for Counted {
    fn connection_made(&mut self, transport: &Transport) {
        self.0.connection_made(transport);
    }

    fn data_received(&mut self, data: &[u8]) {
        self.0.data_received(data);
    }

    fn connection_lost(&mut self, error: Option<&Error>) {
        self.0.connection_lost(error);
    }
}

fn a_protocol_that_never_knew_is_let_go(on: On) {
    let event_loop = on.event_loop();
    let (log, alive) = (Log::default(), Rc::new(()));
    let (record, counted) = (log.clone(), alive.clone());
    let (server, _) = crate::tls_server(&event_loop, move || Counted(Recorder::new(&record), counted.clone()));
    let factory_only = Rc::strong_count(&alive);
    for reset in [false, true] {
        let peers: Vec<Peer> = (0..5).map(|_| connect(&server)).collect();
        event_loop.until(|| Rc::strong_count(&alive) == factory_only + 5);
        for (index, peer) in peers.into_iter().enumerate() {
            if index % 2 == 0 {
                peer.send(b"this is not TLS");
            }
            if reset { peer.reset() } else { drop(peer) }
        }
        event_loop.until(|| Rc::strong_count(&alive) == factory_only);
    }
    assert_eq!(log.items(), []);
    server.close();
    event_loop.run(server.wait_closed());
    assert_eq!(Rc::strong_count(&alive), 1, "the factory has gone with its server");
}

fn closing_the_loop_ends_handshakes_and_connections(on: On) {
    for net in NETS {
        let event_loop = on.event_loop();
        let served = Served::new(&event_loop, net);
        let mut clients = served.clients(&event_loop, 2);
        let silent = served.silent(&event_loop, 2);
        let protocols: Vec<_> = served.ends.items().iter().map(|end| end.get_protocol::<Recorder>().unwrap()).collect();
        event_loop.close().unwrap();
        assert!(protocols.iter().all(|protocol| Rc::strong_count(protocol) == 1), "{net:?}");
        assert!(silent.iter().all(has_ended));
        for client in &mut clients {
            client.turn();
            assert!(has_ended(&client.socket) && !client.close_notify);
        }
        assert!(served.logs.items().iter().all(|log| !log.lost()));
        assert!(!served.server.is_serving());
    }
}

/// What workers share: the tickets of one loop are good for the others.
fn one_context_for_several_loops(on: On) {
    let ((tell, told), context) = (mpsc::channel(), certificates::server());
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let (tell, context) = (tell.clone(), context.clone());
            thread::spawn(move || {
                let event_loop = on.event_loop();
                let factory = || silent().on_data(|transport, data| transport.write(data));
                let creating = event_loop.create_server(factory, ("127.0.0.1", 0)).ssl(&context);
                let server = event_loop.run(creating);
                tell.send(server.clone()).unwrap();
                event_loop.run(server.wait_closed());
            })
        })
        .collect();
    let servers: Vec<Server> = threads.iter().map(|_| told.recv().unwrap()).collect();
    let event_loop = on.event_loop();
    let trusting = certificates::client();
    for round in 0..6 {
        let (log, address) = (Log::default(), servers[round % 3].sockets()[0].address().as_inet().unwrap());
        let connecting = event_loop.create_connection(|| Recorder::new(&log), address).ssl(&trusting);
        let (transport, _) = event_loop.run(connecting.server_hostname("localhost"));
        assert_eq!(transport.get_extra_info(SESSION_REUSED), Some(round > 0));
        transport.write(b"hello");
        event_loop.until(|| log.received() == b"hello");
        transport.close();
        event_loop.until(|| log.lost());
    }
    servers.iter().for_each(Server::close);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Takes all the descriptors that this process may have.
fn exhaust() -> Vec<File> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(100), maximum: limit.maximum }).unwrap();
    let mut taken = Vec::new();
    loop {
        match File::open("/dev/null") {
            Ok(file) => taken.push(file),
            Err(error) if error.raw_os_error() == Some(libc::EMFILE) => return taken,
            Err(error) => panic!("{error}"),
        }
    }
}

fn without_descriptors_accepting_pauses(on: On) {
    if !on.in_child() {
        return;
    }
    let event_loop = on.event_loop();
    for net in NETS {
        let served = Served::new(&event_loop, net);
        let mut first = served.clients(&event_loop, 1);
        let mut clients: Vec<Driven> = (0..4).map(|index| client(&served.server, version(index))).collect();
        clients.iter_mut().for_each(Driven::turn);
        let taken = exhaust();
        event_loop.until(|| event_loop.reports.len() == 1);
        let reports = event_loop.reports.take();
        assert!(reports[0].message.contains("out of system resource"), "{:?}", reports[0]);
        // Those that are there go on meanwhile.
        echo(&event_loop, &mut first, &pattern(100_000));
        assert_eq!((served.logs.len(), served.server.is_serving()), (1, true));
        drop(taken);
        event_loop.until(|| {
            clients.iter_mut().for_each(Driven::turn);
            served.made() == 5 && clients.iter().all(|client| !client.connection.is_handshaking())
        });
        echo(&event_loop, &mut clients, b"hello");
        served.end(&event_loop);
    }
}
