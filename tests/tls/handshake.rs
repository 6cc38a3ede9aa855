//! What these tests show: TLS connections that come about, and what is known of them.

use std::{future::IntoFuture, io, rc::Rc, sync::Arc};

use asyncio::{
    ALPN_PROTOCOL, CIPHER, CLOSE_NOTIFY, ErrorKind, PEERCERT, PEERCERT_CHAIN, PEERNAME, PIPE, Result, SERVER_HOSTNAME,
    SESSION_REUSED, SOCKET, SOCKNAME, SSL_HANDSHAKE_TIMEOUT, SSL_SHUTDOWN_TIMEOUT, SSL_VERSION, SSLCONTEXT, SslContext,
    SslContextBuilder, TlsVersion, Transport, VerifyMode,
    rustls::{
        self, CipherSuite, ClientConfig, ServerConfig,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use crate::{
    Connected, certificates,
    certificates::{Authority, authority, client_builder, localhost},
    peers::TlsPeer,
    support::{
        failure,
        loops::{On, TestLoop},
        transports::{self, BufferedRecorder, Log, Pair, PairKind, Recorder, Told, pattern},
    },
    tls_server,
};

on_each_selector! {
    data_flows_in_both_directions
    a_client_hears_of_its_connection_after_the_handshake_and_before_its_opener_returns
    a_server_hears_of_a_connection_when_its_own_handshake_is_over
    both_ends_know_the_configuration_the_certificate_and_the_cipher
    a_cipher_suite_has_the_name_that_iana_gave_it
    an_encrypted_transport_cannot_end_only_its_writing
    data_of_25_clients_at_a_time_is_intact_in_both_directions
    data_of_25_buffered_clients_at_a_time_is_intact_in_both_directions
    the_limits_are_60_and_30_seconds_and_no_timer_outlives_its_use
    what_is_known_of_a_connection_is_still_known_when_it_is_lost
    a_plain_transport_knows_nothing_of_tls
    both_sides_agree_on_the_protocol_that_the_server_likes_best
    nothing_is_negotiated_unless_both_sides_have_protocols
    a_server_gets_the_certificate_that_it_requires
    a_certificate_is_optional_with_and_without
    a_client_shows_no_certificate_unless_it_is_asked
    the_newest_version_that_both_speak_is_spoken
    a_chain_leads_over_an_intermediate_to_whom_the_client_trusts
}

/// The versions of TLS, and how a transport calls them.
pub(crate) const VERSIONS: [(TlsVersion, &str); 2] = [(TlsVersion::V1_2, "TLSv1.2"), (TlsVersion::V1_3, "TLSv1.3")];

pub(crate) fn only(builder: SslContextBuilder, version: TlsVersion) -> SslContextBuilder {
    builder.minimum_version(version).maximum_version(version)
}

/// Both ends of a connection that was tried: what became of it at each.
pub(crate) struct Met {
    pub(crate) client: Result<Transport>,
    pub(crate) client_log: Log,
    pub(crate) server: Result<Transport>,
    pub(crate) server_log: Log,
}

/// Lets two of our own ends come together, over a pair of sockets, for `localhost`.
pub(crate) fn meet(event_loop: &TestLoop, kind: PairKind, client: &SslContext, server: &SslContext) -> Met {
    let Pair { ours, peer } = kind.pair();
    let (client_log, server_log) = (Log::default(), Log::default());
    let connecting = event_loop.create_connection(|| Recorder::new(&client_log), ()).sock(ours).ssl(client);
    let accepting = event_loop.connect_accepted_socket(|| Recorder::new(&server_log), peer.0).ssl(server);
    let connecting = connecting.server_hostname("localhost").into_future();
    let both = futures::future::join(connecting, accepting.into_future());
    let (client, server) = event_loop.run(async { Ok(both.await) });
    let (client, server) = (client.map(|(transport, _)| transport), server.map(|(transport, _)| transport));
    Met { client, client_log, server, server_log }
}

impl Met {
    /// The transports of a connection that came about.
    #[track_caller]
    pub(crate) fn ends(&self) -> [&Transport; 2] {
        [self.client.as_ref().unwrap(), self.server.as_ref().unwrap()]
    }

    /// Sends something both ways, and closes in order.
    #[track_caller]
    pub(crate) fn finish(&self, event_loop: &TestLoop) {
        let [client, server] = self.ends();
        client.write(b"question");
        server.write(b"answer!");
        event_loop.until(|| self.server_log.received_len() == 8 && self.client_log.received_len() == 7);
        client.close();
        event_loop.until(|| self.client_log.lost() && self.server_log.lost());
        assert_eq!(self.client_log.joined(), [Told::Made, Told::Data(7), Told::Eof, Told::Lost(None)]);
        assert_eq!(self.server_log.joined(), [Told::Made, Told::Data(8), Told::Eof, Told::Lost(None)]);
    }
}

pub(crate) fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// TLS-001, in part.
fn data_flows_in_both_directions(on: On) {
    let event_loop = on.event_loop();
    let ends = Connected::new(&event_loop);
    ends.client.write(b"hello");
    ends.client.writelines([b"a", b"b"]);
    event_loop.until(|| ends.server_log.received_len() == 7);
    assert_eq!(ends.server_log.received(), b"helloab");
    ends.server.write(b"back");
    event_loop.until(|| ends.client_log.received_len() == 4);
    ends.client.close();
    assert!(ends.client.is_closing());
    event_loop.until(|| ends.client_log.lost() && ends.server_log.lost());
    assert_eq!(ends.client_log.joined(), [Told::Made, Told::Data(4), Told::Eof, Told::Lost(None)]);
    assert_eq!(ends.server_log.joined(), [Told::Made, Told::Data(7), Told::Eof, Told::Lost(None)]);
}

/// What a peer on a socket that does not block does about its handshake.
fn step(peer: &mut TlsPeer) {
    peer.socket.set_nonblocking(true).unwrap();
    match peer.connection.read_tls(&mut peer.socket) {
        Ok(_) => {
            peer.connection.process_new_packets().unwrap();
        }
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
    }
    peer.flush().unwrap();
}

/// TLS-001
fn a_client_hears_of_its_connection_after_the_handshake_and_before_its_opener_returns(on: On) {
    let event_loop = on.event_loop();
    for (version, name) in VERSIONS {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (log, context) = (Log::default(), only(client_builder(), version).build().unwrap());
        let noted = log.clone();
        let connecting = event_loop.create_connection(
            move || {
                noted.note("factory");
                Recorder::new(&noted).on_made(move |transport| {
                    assert_eq!(transport.get_extra_info(SSL_VERSION), Some(name), "the handshake is over");
                    transport.write(b"hello");
                })
            },
            listener.local_addr().unwrap(),
        );
        let (connecting, noted) = (connecting.ssl(&context).server_hostname("localhost"), log.clone());
        let task = event_loop.create_task(async move {
            let (transport, _) = connecting.await?;
            noted.note("returned");
            transport.writelines([b"a", b"b"]);
            Ok(transport)
        });
        listener.set_nonblocking(true).unwrap();
        let mut accepted = None;
        event_loop.until(|| {
            accepted = listener.accept().ok();
            accepted.is_some()
        });
        let mut peer = TlsPeer::server(accepted.unwrap().0);
        peer.socket.set_nonblocking(true).unwrap();
        event_loop.until(|| peer.socket.peek(&mut [0]).is_ok());
        event_loop.ticks(5);
        assert_eq!(log.items(), [Told::Note("factory")], "it waits for an answer");
        event_loop.until(|| {
            step(&mut peer);
            task.done()
        });
        assert_eq!(log.items(), [Told::Note("factory"), Told::Made, Told::Note("returned")]);
        let transport = event_loop.run(task);
        event_loop.ticks(2);
        peer.socket.set_nonblocking(false).unwrap();
        assert_eq!(peer.receive(7).unwrap(), b"helloab");
        transport.abort();
        event_loop.until(|| log.lost());
    }
}

/// TLS-001
fn a_server_hears_of_a_connection_when_its_own_handshake_is_over(on: On) {
    let event_loop = on.event_loop();
    let log = Log::default();
    let noted = log.clone();
    let (server, address) = tls_server(&event_loop, move || {
        noted.note("factory");
        Recorder::new(&noted).on_made(|transport| {
            assert!(transport.get_extra_info(CIPHER).is_some(), "the handshake is over");
            transport.write(b"welcome");
        })
    });
    let mut peer = TlsPeer::client(std::net::TcpStream::connect(address).unwrap());
    peer.flush().unwrap();
    peer.socket.set_nonblocking(true).unwrap();
    event_loop.until(|| peer.socket.peek(&mut [0]).is_ok());
    event_loop.ticks(5);
    assert_eq!(log.items(), [Told::Note("factory")], "the client has not finished");
    event_loop.until(|| {
        step(&mut peer);
        log.has(&Told::Made)
    });
    peer.send(b"hello").unwrap();
    peer.send(b"a").unwrap();
    peer.send(b"b").unwrap();
    event_loop.until(|| log.received_len() == 7);
    assert_eq!(log.received(), b"helloab");
    assert_eq!(log.joined(), [Told::Note("factory"), Told::Made, Told::Data(7)]);
    peer.socket.set_nonblocking(false).unwrap();
    assert_eq!(peer.receive(7).unwrap(), b"welcome");
    server.close();
    server.abort_clients();
    event_loop.run(server.wait_closed());
}

/// TLS-002
fn both_ends_know_the_configuration_the_certificate_and_the_cipher(on: On) {
    let event_loop = on.event_loop();
    for ((version, name), kind) in VERSIONS.into_iter().zip([PairKind::Tcp, PairKind::Unix]) {
        let (ours, theirs) = (only(client_builder(), version).build().unwrap(), certificates::server());
        let met = meet(&event_loop, kind, &ours, &theirs);
        let [client, server] = met.ends();

        let context = client.get_extra_info(SSLCONTEXT).unwrap();
        assert!(Arc::ptr_eq(context.client_config().unwrap(), ours.client_config().unwrap()));
        let context = server.get_extra_info(SSLCONTEXT).unwrap();
        assert!(Arc::ptr_eq(context.server_config().unwrap(), theirs.server_config().unwrap()));

        let shown = der(&localhost().chain);
        assert_eq!(client.get_extra_info(PEERCERT), Some(shown.clone()));
        assert_eq!(client.get_extra_info(PEERCERT_CHAIN), Some(vec![shown]));
        assert_eq!(server.get_extra_info(PEERCERT), None, "it did not ask for one");
        assert_eq!(server.get_extra_info(PEERCERT_CHAIN), None);
        assert_eq!(client.get_extra_info(SERVER_HOSTNAME).as_deref(), Some("localhost"));
        assert_eq!(server.get_extra_info(SERVER_HOSTNAME), None);

        let cipher = client.get_extra_info(CIPHER).unwrap();
        assert_eq!(server.get_extra_info(CIPHER), Some(cipher));
        assert!(cipher.name.starts_with("TLS_"), "{cipher}");
        assert!([128, 256].contains(&cipher.bits), "{cipher}");
        assert_eq!(cipher.protocol, name);
        let numbers = met.ends().map(|end| {
            assert_eq!(end.get_extra_info(SSL_VERSION), Some(name));
            assert_eq!(end.get_extra_info(SESSION_REUSED), Some(false));
            assert_eq!(end.get_extra_info(CLOSE_NOTIFY), Some(false));
            assert_eq!(end.get_extra_info(ALPN_PROTOCOL), None);
            assert_eq!(end.get_extra_info(PIPE), None);
            end.get_extra_info(SOCKET).unwrap()
        });
        assert_ne!(numbers[0], numbers[1]);
        if kind == PairKind::Tcp {
            assert_eq!(client.get_extra_info(SOCKNAME), server.get_extra_info(PEERNAME));
        }
        assert_eq!(client.get_extra_info(PEERNAME), server.get_extra_info(SOCKNAME));
        assert!(client.get_extra_info(PEERNAME).is_some());
        met.finish(&event_loop);
    }
}

/// Configurations of rustls that speak one cipher suite.
fn with_suite(suite: CipherSuite) -> (SslContext, SslContext) {
    let mut provider: CryptoProvider = ring::default_provider();
    provider.cipher_suites.retain(|supported| supported.suite() == suite);
    let provider = Arc::new(provider);
    let versions: &[_] =
        if format!("{suite:?}").starts_with("TLS13") { &[&rustls::version::TLS13] } else { &[&rustls::version::TLS12] };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(der(&authority().pem)).unwrap();
    let client = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions).unwrap();
    let server = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let key = PrivateKeyDer::from_pem_slice(localhost().key.as_bytes()).unwrap();
    let server = server.with_no_client_auth().with_single_cert(vec![der(&localhost().chain)], key);
    (client.with_root_certificates(roots).with_no_client_auth().into(), server.unwrap().into())
}

/// TLS-002
fn a_cipher_suite_has_the_name_that_iana_gave_it(on: On) {
    let event_loop = on.event_loop();
    let suites = [
        (CipherSuite::TLS13_AES_128_GCM_SHA256, "TLS_AES_128_GCM_SHA256", "TLSv1.3", 128),
        (CipherSuite::TLS13_AES_256_GCM_SHA384, "TLS_AES_256_GCM_SHA384", "TLSv1.3", 256),
        (CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, "TLS_CHACHA20_POLY1305_SHA256", "TLSv1.3", 256),
        (
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            "TLSv1.2",
            128,
        ),
        (
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            "TLSv1.2",
            256,
        ),
        (
            CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
            "TLSv1.2",
            256,
        ),
    ];
    for (suite, name, protocol, bits) in suites {
        let (client, server) = with_suite(suite);
        let met = meet(&event_loop, PairKind::Socketpair, &client, &server);
        for end in met.ends() {
            let cipher = end.get_extra_info(CIPHER).unwrap();
            assert_eq!((cipher.name, cipher.protocol, cipher.bits), (name, protocol, bits));
            assert_eq!(end.get_extra_info(SSL_VERSION), Some(protocol));
        }
        met.finish(&event_loop);
    }
}

/// TLS-003
fn an_encrypted_transport_cannot_end_only_its_writing(on: On) {
    let event_loop = on.event_loop();
    for kind in [PairKind::Tcp, PairKind::Unix] {
        let met = meet(&event_loop, kind, &certificates::client(), &certificates::server());
        for end in met.ends() {
            assert!(!end.can_write_eof());
            let (kind, text) = failure(end.write_eof());
            assert_eq!(kind, ErrorKind::Runtime);
            assert!(text.contains("not supported"), "{text}");
            assert_eq!(end.get_write_buffer_limits(), (131_072, 524_288));
        }
        // Nothing has happened to it.
        met.finish(&event_loop);
    }
}

/// TLS-004
fn data_of_25_clients_at_a_time_is_intact_in_both_directions(on: On) {
    exchange(on, false);
}

/// TLS-004
fn data_of_25_buffered_clients_at_a_time_is_intact_in_both_directions(on: On) {
    exchange(on, true);
}

fn exchange(on: On, buffered: bool) {
    const SIZE: usize = 1 << 20;
    const CLIENTS: usize = 25;
    let event_loop = on.event_loop();
    let there = Rc::new(pattern(SIZE));
    let back: Rc<Vec<u8>> = Rc::new(there.iter().map(|byte| !byte).collect());
    let server_logs: Rc<std::cell::RefCell<Vec<Log>>> = Rc::default();
    let (logs, data) = (server_logs.clone(), back.clone());
    let factory = move || {
        let (log, data) = (Log::default(), data.clone());
        logs.borrow_mut().push(log.clone());
        Recorder::new(&log).on_made(move |transport| transport.write(&data))
    };
    let (server, address) = if buffered {
        tls_server(&event_loop, move || BufferedRecorder::new(factory.clone()(), 10_000))
    } else {
        tls_server(&event_loop, factory)
    };
    let context = certificates::client();
    let logs: Vec<Log> = (0..CLIENTS).map(|_| Log::default()).collect();
    let clients = logs.iter().enumerate().map(|(index, log)| {
        let data = there.clone();
        let recorder = Recorder::new(log).on_made(move |transport| {
            // Different pieces, so that records are of every size.
            for piece in data.chunks(500 + index * 12_345) {
                transport.write(piece);
            }
        });
        let event_loop: &asyncio::EventLoop = &event_loop;
        let context = &context;
        async move {
            let (transport, _) = if buffered {
                let made = event_loop.create_connection(|| BufferedRecorder::new(recorder, 30_000), address);
                let (transport, protocol) = made.ssl(context).server_hostname("localhost").await?;
                (transport, protocol as Rc<dyn std::any::Any>)
            } else {
                let made = event_loop.create_connection(|| recorder, address);
                let (transport, protocol) = made.ssl(context).server_hostname("localhost").await?;
                (transport, protocol as Rc<dyn std::any::Any>)
            };
            Ok(transport)
        }
    });
    let transports = event_loop.run(async { futures::future::try_join_all(clients).await });
    event_loop.until(|| {
        let servers = server_logs.borrow();
        logs.iter().chain(servers.iter()).all(|log| log.received_len() == SIZE)
    });
    assert_eq!(server_logs.borrow().len(), CLIENTS);
    for (client, server) in logs.iter().zip(&*server_logs.borrow()) {
        assert!(client.received() == *back, "damaged on its way to the client");
        assert!(server.received() == *there, "damaged on its way to the server");
    }
    transports.iter().for_each(Transport::close);
    server.close();
    event_loop.run(server.wait_closed());
    event_loop.until(|| logs.iter().all(Log::lost));
    assert!(logs.iter().all(|log| log.has(&Told::Lost(None))));
}

/// TLS-017
fn the_limits_are_60_and_30_seconds_and_no_timer_outlives_its_use(on: On) {
    assert_eq!((SSL_HANDSHAKE_TIMEOUT.as_secs(), SSL_SHUTDOWN_TIMEOUT.as_secs()), (60, 30));
    let (event_loop, _clock) = on.virtual_loop();
    for (version, _) in VERSIONS {
        let client = only(client_builder(), version).build().unwrap();
        let met = meet(&event_loop, PairKind::Tcp, &client, &certificates::server());
        assert!(event_loop.has_no_timer(), "of the handshake");
        let [client, _] = met.ends();
        client.close();
        assert!(!event_loop.has_no_timer(), "the shutdown has its limit");
        event_loop.until(|| met.client_log.lost() && met.server_log.lost());
        assert_eq!(event_loop.next_deadline(), None, "of the shutdown");
    }
    // One that is aborted, too.
    let met = meet(&event_loop, PairKind::Tcp, &certificates::client(), &certificates::server());
    let [client, server] = met.ends();
    server.close();
    client.abort();
    event_loop.until(|| met.client_log.lost() && met.server_log.lost());
    assert_eq!(event_loop.next_deadline(), None);
}

/// TLS-033
fn what_is_known_of_a_connection_is_still_known_when_it_is_lost(on: On) {
    let event_loop = on.event_loop();
    let mutual = localhost().server_builder().verify_pem(&authority().pem).verify_mode(VerifyMode::Required);
    let theirs = mutual.set_alpn_protocols(["h2"]).build().unwrap();
    let own = authority().issue(&["somebody"]);
    for aborted in [false, true] {
        for (version, name) in VERSIONS {
            let builder = only(client_builder(), version).set_alpn_protocols(["h2"]);
            let ours = builder.cert_chain_pem(&own.chain, &own.key).build().unwrap();
            let met = meet(&event_loop, PairKind::Tcp, &ours, &theirs);
            let [client, server] = met.ends();
            let known = met.ends().map(known_of);
            if aborted {
                client.abort()
            } else {
                client.close()
            }
            event_loop.until(|| met.client_log.lost() && met.server_log.lost());
            event_loop.ticks(2);
            assert_eq!(met.ends().map(known_of), known);
            assert_eq!(client.get_extra_info(PEERCERT), Some(der(&localhost().chain)));
            assert_eq!(server.get_extra_info(PEERCERT), Some(der(&own.chain)));
            assert_eq!(client.get_extra_info(SERVER_HOSTNAME).as_deref(), Some("localhost"));
            for end in met.ends() {
                assert!(end.get_extra_info(PEERNAME).is_some() && end.get_extra_info(SOCKNAME).is_some());
                assert_eq!(end.get_extra_info(CIPHER).unwrap().protocol, name);
                assert_eq!(end.get_extra_info(ALPN_PROTOCOL).as_deref(), Some(&b"h2"[..]));
                assert!(end.get_extra_info(SSLCONTEXT).is_some());
                assert_eq!(end.get_extra_info(SESSION_REUSED), Some(false));
                // Who is aborted hears of no end of the other side's.
                assert_eq!(end.get_extra_info(CLOSE_NOTIFY), Some(!aborted));
            }
        }
    }
}

/// What does not change at the end.
fn known_of(transport: &Transport) -> String {
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        transport.get_extra_info(PEERNAME),
        transport.get_extra_info(SOCKNAME),
        transport.get_extra_info(PEERCERT),
        transport.get_extra_info(PEERCERT_CHAIN),
        transport.get_extra_info(CIPHER),
        transport.get_extra_info(SSL_VERSION),
        transport.get_extra_info(ALPN_PROTOCOL),
        transport.get_extra_info(SERVER_HOSTNAME),
    )
}

/// TLS-002, TLS-033
fn a_plain_transport_knows_nothing_of_tls(on: On) {
    let event_loop = on.event_loop();
    let plain = transports::connect(&event_loop, PairKind::Tcp.pair());
    let transport = &plain.transport;
    for lost in [false, true] {
        assert!(transport.get_extra_info(SSLCONTEXT).is_none());
        assert_eq!(transport.get_extra_info(PEERCERT), None);
        assert_eq!(transport.get_extra_info(PEERCERT_CHAIN), None);
        assert_eq!(transport.get_extra_info(CIPHER), None);
        assert_eq!(transport.get_extra_info(SSL_VERSION), None);
        assert_eq!(transport.get_extra_info(ALPN_PROTOCOL), None);
        assert_eq!(transport.get_extra_info(SERVER_HOSTNAME), None);
        assert_eq!(transport.get_extra_info(SESSION_REUSED), None);
        assert_eq!(transport.get_extra_info(CLOSE_NOTIFY), None);
        assert!(transport.get_extra_info(PEERNAME).is_some());
        if !lost {
            transport.close();
            event_loop.until(|| plain.log.lost());
        }
    }
}

fn negotiated(event_loop: &TestLoop, version: TlsVersion, ours: &[&str], theirs: &[&str]) -> [Option<Vec<u8>>; 2] {
    let client = only(client_builder(), version).set_alpn_protocols(ours).build().unwrap();
    let server = localhost().server_builder().set_alpn_protocols(theirs).build().unwrap();
    let met = meet(event_loop, PairKind::Socketpair, &client, &server);
    let agreed = met.ends().map(|end| end.get_extra_info(ALPN_PROTOCOL));
    met.finish(event_loop);
    agreed
}

/// TLS-002
fn both_sides_agree_on_the_protocol_that_the_server_likes_best(on: On) {
    let event_loop = on.event_loop();
    for (version, _) in VERSIONS {
        let h2 = Some(b"h2".to_vec());
        assert_eq!(negotiated(&event_loop, version, &["h2"], &["h2"]), [h2.clone(), h2.clone()]);
        let agreed = negotiated(&event_loop, version, &["http/1.1", "h2"], &["spdy", "h2", "http/1.1"]);
        assert_eq!(agreed, [h2.clone(), h2]);
    }
}

/// TLS-002
fn nothing_is_negotiated_unless_both_sides_have_protocols(on: On) {
    let event_loop = on.event_loop();
    for (version, _) in VERSIONS {
        assert_eq!(negotiated(&event_loop, version, &[], &["h2"]), [None, None]);
        assert_eq!(negotiated(&event_loop, version, &["h2"], &[]), [None, None]);
    }
}

fn asking(mode: VerifyMode) -> SslContext {
    localhost().server_builder().verify_pem(&authority().pem).verify_mode(mode).build().unwrap()
}

/// TLS-002
fn a_server_gets_the_certificate_that_it_requires(on: On) {
    let event_loop = on.event_loop();
    let own = authority().issue(&["somebody"]);
    for (version, _) in VERSIONS {
        let client = only(client_builder(), version).cert_chain_pem(&own.chain, &own.key).build().unwrap();
        let met = meet(&event_loop, PairKind::Unix, &client, &asking(VerifyMode::Required));
        let [_, server] = met.ends();
        assert_eq!(server.get_extra_info(PEERCERT), Some(der(&own.chain)));
        assert_eq!(server.get_extra_info(PEERCERT_CHAIN), Some(vec![der(&own.chain)]));
        met.finish(&event_loop);
    }
}

/// TLS-002
fn a_certificate_is_optional_with_and_without(on: On) {
    let event_loop = on.event_loop();
    let own = authority().issue(&["somebody"]);
    for (version, _) in VERSIONS {
        let with = only(client_builder(), version).cert_chain_pem(&own.chain, &own.key).build().unwrap();
        let without = only(client_builder(), version).build().unwrap();
        for (client, shown) in [(with, Some(der(&own.chain))), (without, None)] {
            let met = meet(&event_loop, PairKind::Tcp, &client, &asking(VerifyMode::Optional));
            assert_eq!(met.ends()[1].get_extra_info(PEERCERT), shown);
            met.finish(&event_loop);
        }
    }
}

/// TLS-002
fn a_client_shows_no_certificate_unless_it_is_asked(on: On) {
    let event_loop = on.event_loop();
    let own = Authority::new("nobody's").issue(&["somebody"]);
    for (version, _) in VERSIONS {
        let client = only(client_builder(), version).cert_chain_pem(&own.chain, &own.key).build().unwrap();
        let met = meet(&event_loop, PairKind::Tcp, &client, &asking(VerifyMode::None));
        assert_eq!(met.ends()[1].get_extra_info(PEERCERT), None);
        met.finish(&event_loop);
    }
}

/// TLS-002
fn the_newest_version_that_both_speak_is_spoken(on: On) {
    let event_loop = on.event_loop();
    let any = || (client_builder(), localhost().server_builder());
    for (old, oldest) in VERSIONS {
        let cases = [
            (only(any().0, old), any().1, oldest),
            (any().0, only(any().1, old), oldest),
            (any().0.minimum_version(old), any().1.maximum_version(old), oldest),
            (any().0.maximum_version(old), any().1.minimum_version(old), oldest),
            (any().0.minimum_version(old), any().1, "TLSv1.3"),
        ];
        for (client, server, expected) in cases {
            let met = meet(&event_loop, PairKind::Socketpair, &client.build().unwrap(), &server.build().unwrap());
            assert_eq!(met.ends().map(|end| end.get_extra_info(SSL_VERSION)), [Some(expected); 2]);
            met.finish(&event_loop);
        }
    }
}

/// TLS-002
fn a_chain_leads_over_an_intermediate_to_whom_the_client_trusts(on: On) {
    let event_loop = on.event_loop();
    let between = authority().vouch_for("an intermediate");
    let leaf = between.issue(&["localhost"]);
    let chain = leaf.chain.clone() + &between.pem;
    let server = SslContext::server_builder().cert_chain_pem(&chain, &leaf.key).build().unwrap();
    let met = meet(&event_loop, PairKind::Tcp, &certificates::client(), &server);
    let [client, _] = met.ends();
    assert_eq!(client.get_extra_info(PEERCERT), Some(der(&leaf.chain)));
    assert_eq!(client.get_extra_info(PEERCERT_CHAIN), Some(vec![der(&leaf.chain), der(&between.pem)]));
    met.finish(&event_loop);
}
