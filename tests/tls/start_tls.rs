//! What these tests show: connections that stand and are encrypted then, and what becomes of the transport in clear.

use std::{
    cell::RefCell,
    future::IntoFuture,
    io::{self, Read, Write},
    rc::Rc,
    time::{Duration, Instant},
};

use asyncio::{
    CIPHER, ErrorKind, PEERCERT, PEERNAME, SOCKNAME, SSL_VERSION, SSLCONTEXT, SslContext, StartTls, StreamProtocol,
    TlsVersion, Transport,
};

use crate::{
    certificates,
    peers::{Driven, Side, Way, ways},
    support::{
        failure,
        loops::{On, TestLoop},
        transports::{BufferedRecorder, Log, Pair, PairKind, Peer, Recorder, Told, pattern},
    },
};

on_each_selector! {
    a_connection_that_asks_for_it_is_encrypted
    a_buffered_protocol_is_encrypted_as_well
    a_pipe_is_not_encrypted
    a_transport_that_is_closing_is_not_encrypted
    a_silent_peer_is_given_up_after_the_limit
    a_silent_peer_in_real_time
    a_timeout_ends_the_connection
    what_is_not_tls_ends_the_connection
    the_awaiter_goes_on_before_data_is_received
    data_of_a_server_that_does_not_wait_comes_after_the_awaiter_too
    wrong_arguments_change_nothing
    a_client_that_checks_no_name_needs_none
    a_client_may_name_an_address
    the_old_transport_writes_nothing_any_more
    the_old_transport_ends_the_connection
    the_old_transport_ends_the_handshake
    what_waits_to_be_written_goes_first_and_in_clear
    what_the_new_limits_pause_is_resumed
    what_was_not_told_yet_is_told
    a_paused_transport_reads_again
    it_is_done_once
    it_does_not_disturb_a_file_on_its_way
    writing_must_not_have_ended
    cancelled_at_any_moment
    dropped_at_any_moment
    a_handshake_that_began_early
    what_was_sent_in_clear_is_never_delivered
    what_comes_early_and_is_not_tls_is_never_delivered
    an_end_in_the_handshake_is_told_once
    an_end_before_the_handshake_is_found
    a_certificate_that_is_not_trusted
    another_protocol_may_be_set
    closing_the_loop_in_the_handshake_leaves_nothing
    another_loop_does_nothing
    many_at_once
}

/// A connection in clear, and who is at the other side.
struct Clear<P = Recorder> {
    way: Way,
    transport: Transport,
    protocol: Rc<RefCell<P>>,
    log: Log,
    peer: Driven,
}

impl Clear {
    fn open(event_loop: &TestLoop, way: Way) -> Self {
        Clear::with(event_loop, way, way.kind.pair(), |recorder| recorder)
    }
}

impl<P> Clear<P> {
    fn with<K: 'static>(event_loop: &TestLoop, way: Way, pair: Pair, make: impl FnOnce(Recorder) -> P) -> Self
    where
        P: StreamProtocol<K>,
    {
        let log = Log::default();
        let opening = event_loop.create_connection(|| make(Recorder::new(&log)), ()).sock(pair.ours);
        let (transport, protocol) = event_loop.run(opening);
        Clear { way, transport, protocol, log, peer: way.peer(pair.peer) }
    }

    fn start_tls(&self, event_loop: &TestLoop) -> StartTls {
        start_tls(event_loop, self.way, &self.transport)
    }

    /// Encrypts it.
    fn upgrade(&mut self, event_loop: &TestLoop) -> Transport {
        let task = event_loop.create_task(self.start_tls(event_loop).into_future());
        event_loop.until(|| {
            self.peer.turn();
            task.done() && !self.peer.connection.is_handshaking()
        });
        event_loop.run(task)
    }

    /// Starts an upgrade that must fail.
    fn fails(&mut self, event_loop: &TestLoop) -> asyncio::Error {
        let task = event_loop.create_task(self.start_tls(event_loop).into_future());
        event_loop.until(|| {
            self.peer.turn();
            task.done()
        });
        event_loop.fails(task)
    }

    /// Looks at what goes both ways, in clear.
    fn assert_in_clear(&self, event_loop: &TestLoop) {
        let before = self.log.received_len();
        self.transport.try_write(b"in clear").unwrap();
        assert_eq!(self.peer.socket.read_exactly(8), b"in clear", "{:?}", self.way);
        self.peer.socket.send(b"and back");
        event_loop.until(|| self.log.received_len() == before + 8);
        assert_eq!(self.log.received()[before..], *b"and back");
    }

    /// Closes both sides, which must go as if nothing had happened.
    fn close_in_order(mut self, event_loop: &TestLoop, transport: &Transport) {
        transport.close();
        event_loop.until(|| {
            self.peer.turn();
            if self.peer.close_notify {
                let alert = self.peer.seal_close_notify();
                self.peer.send_sealed(&alert);
            }
            self.log.lost()
        });
        assert_eq!(self.log.items().last(), Some(&Told::Lost(None)), "{:?}", self.way);
        assert!(self.peer.close_notify && self.transport.is_closing());
    }

    /// The connection has ended, in this way and once; nobody reads any more.
    fn assert_ended(&mut self, event_loop: &TestLoop, told: &[Told]) {
        event_loop.until(|| self.log.lost());
        event_loop.ticks(3);
        assert_eq!(self.log.joined(), told, "{:?}", self.way);
        assert!(self.transport.is_closing());
        event_loop.until(|| {
            self.peer.socket.drain_quietly();
            self.peer.socket.ended()
        });
        assert_eq!(event_loop.reports.len(), 0);
    }
}

impl Peer {
    /// Takes what is there, an end of whatever kind as well.
    fn drain_quietly(&self) -> Vec<u8> {
        let (mut all, mut chunk) = (Vec::new(), vec![0; 1 << 16]);
        while let Ok(count @ 1..) = (&self.0).read(&mut chunk) {
            all.extend_from_slice(&chunk[..count]);
        }
        all
    }
}

pub(crate) fn context(way: Way) -> SslContext {
    let builder = match way.ours {
        Side::Client => certificates::client_builder(),
        Side::Server => certificates::localhost().server_builder(),
    };
    builder.minimum_version(way.version).maximum_version(way.version).build().unwrap()
}

pub(crate) fn start_tls(event_loop: &TestLoop, way: Way, transport: &Transport) -> StartTls {
    let starting = event_loop.start_tls(transport, &context(way));
    match way.ours {
        Side::Client => starting.server_hostname("localhost"),
        Side::Server => starting,
    }
}

fn side(ours: Side) -> impl Iterator<Item = Way> {
    ways().into_iter().filter(move |way| way.ours == ours)
}

/// STL-001, for protocols of this kind on both sides.
fn ask_and_encrypt<P: StreamProtocol<K>, K: 'static>(on: On, make: fn(Recorder) -> P) {
    let event_loop = on.event_loop();
    for way in side(Side::Client) {
        let (pair, logs) = (way.kind.pair(), [Log::default(), Log::default()]);
        let [client_log, server_log] = &logs;
        let opening = event_loop.create_connection(|| make(Recorder::new(client_log)), ()).sock(pair.ours);
        let (client, client_protocol) = event_loop.run(opening);
        let opening = event_loop.connect_accepted_socket(|| make(Recorder::new(server_log)), pair.peer.0);
        let (server, server_protocol) = event_loop.run(opening);
        client.write(b"STARTTLS");
        event_loop.until(|| server_log.received() == b"STARTTLS");
        for clear in [&client, &server] {
            assert!(clear.get_extra_info(SSLCONTEXT).is_none() && clear.get_extra_info(CIPHER).is_none());
            assert!(clear.get_extra_info(PEERCERT).is_none() && clear.get_extra_info(SSL_VERSION).is_none());
        }
        server.write(b"OK");
        let serving = start_tls(&event_loop, Way { ours: Side::Server, ..way }, &server).server_side(true);
        let serving = event_loop.create_task(serving.into_future());
        event_loop.until(|| client_log.received() == b"OK");
        let encrypted_client = event_loop.run(start_tls(&event_loop, way, &client).server_side(false));
        let encrypted_server = event_loop.run(serving);
        let ends = [
            (&client, &encrypted_client, &client_protocol, client_log),
            (&server, &encrypted_server, &server_protocol, server_log),
        ];
        for (clear, encrypted, protocol, log) in ends {
            assert_ne!(encrypted, clear);
            assert!(Rc::ptr_eq(&encrypted.get_protocol::<P>().unwrap(), protocol));
            assert_eq!(encrypted.get_extra_info(PEERNAME), clear.get_extra_info(PEERNAME));
            assert_eq!(encrypted.get_extra_info(SOCKNAME), clear.get_extra_info(SOCKNAME));
            assert!(encrypted.get_extra_info(SSLCONTEXT).is_some() && clear.get_extra_info(SSLCONTEXT).is_none());
            let version = if way.version == TlsVersion::V1_2 { "TLSv1.2" } else { "TLSv1.3" };
            assert_eq!(encrypted.get_extra_info(CIPHER).unwrap().protocol, version);
            assert!(encrypted.is_reading() && !encrypted.is_closing() && !clear.is_closing());
            assert_eq!(log.count(&Told::Made), 1, "{way:?}");
        }
        assert!(encrypted_client.get_extra_info(PEERCERT).is_some());
        encrypted_client.write(b"secret");
        event_loop.until(|| server_log.received() == b"STARTTLSsecret");
        encrypted_server.write(b"secret, too");
        event_loop.until(|| client_log.received() == b"OKsecret, too");
        encrypted_client.close();
        event_loop.until(|| client_log.lost() && server_log.lost());
        for log in &logs {
            assert_eq!(log.count(&Told::Made), 1);
            assert_eq!(log.items()[log.items().len() - 2..], [Told::Eof, Told::Lost(None)]);
        }
    }
}

/// STL-001
fn a_connection_that_asks_for_it_is_encrypted(on: On) {
    ask_and_encrypt(on, |recorder| recorder);
}

/// STL-001
fn a_buffered_protocol_is_encrypted_as_well(on: On) {
    ask_and_encrypt(on, |recorder| BufferedRecorder::new(recorder, 5));
}

/// STL-003
fn a_pipe_is_not_encrypted(on: On) {
    let event_loop = on.event_loop();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let (reader_log, writer_log) = (Log::default(), Log::default());
    let connecting = event_loop.connect_read_pipe(|| Recorder::new(&reader_log), reader);
    let (reader, _) = event_loop.run(connecting);
    let connecting = event_loop.connect_write_pipe(|| Recorder::new(&writer_log), writer);
    let (writer, _) = event_loop.run(connecting);
    for transport in [&reader, &writer] {
        let starts = [
            event_loop.start_tls(transport, &certificates::client()).server_hostname("localhost"),
            event_loop.start_tls(transport, &certificates::server()),
        ];
        for starting in starts {
            let error = event_loop.fails(starting);
            assert_eq!(error.kind(), ErrorKind::Value);
            assert!(error.to_string().contains("not supported"), "{error}");
        }
    }
    // They are as they were.
    writer.write(b"in clear");
    event_loop.until(|| reader_log.received() == b"in clear");
    writer.close();
    event_loop.until(|| reader_log.lost() && writer_log.lost());
    assert_eq!(reader_log.joined(), [Told::Made, Told::Data(8), Told::Eof, Told::Lost(None)]);
    assert_eq!(writer_log.joined(), [Told::Made, Told::Lost(None)]);
}

/// STL-004
fn a_transport_that_is_closing_is_not_encrypted(on: On) {
    let event_loop = on.event_loop();
    let ends: [fn(&Transport); 3] = [
        |transport| transport.close(),
        |transport| transport.abort(),
        |transport| {
            transport.write(&pattern(4_000_000));
            transport.close();
        },
    ];
    for way in ways() {
        for end in ends {
            let clear = Clear::open(&event_loop, way);
            end(&clear.transport);
            let begin = Instant::now();
            assert_eq!(event_loop.fails(clear.start_tls(&event_loop)).kind(), ErrorKind::Runtime, "{way:?}");
            assert!(begin.elapsed() < Duration::from_secs(5));
            let mut received = Vec::new();
            event_loop.until(|| {
                received.extend(clear.peer.socket.drain());
                clear.log.lost()
            });
            received.extend(clear.peer.socket.drain());
            assert!(pattern(4_000_000).starts_with(&received), "only what was written in clear is sent");
            // And when it has ended.
            assert_eq!(event_loop.fails(clear.start_tls(&event_loop)).kind(), ErrorKind::Runtime);
            event_loop.ticks(3);
            assert_eq!(clear.log.count(&Told::Lost(None)), 1);
            assert_eq!(clear.log.items().last(), Some(&Told::Lost(None)));
        }
    }
}

/// STL-005
fn a_silent_peer_is_given_up_after_the_limit(on: On) {
    for way in ways() {
        let (event_loop, clock) = on.virtual_loop();
        let mut clear = Clear::open(&event_loop, way);
        let starting = clear.start_tls(&event_loop).ssl_handshake_timeout(Duration::from_millis(200));
        let task = event_loop.create_task(starting.into_future());
        event_loop.ticks(3);
        clock.advance(Duration::from_millis(199));
        event_loop.ticks(3);
        assert!(!task.done() && !clear.transport.is_closing());
        clock.advance(Duration::from_millis(1));
        event_loop.until(|| task.done());
        let error = event_loop.fails(task);
        assert_eq!(error.kind(), ErrorKind::Io, "{way:?}");
        assert_eq!(error.io_error().unwrap().kind(), io::ErrorKind::ConnectionAborted);
        assert!(error.to_string().contains("handshake") && error.to_string().contains("0.2"), "{error}");
        assert!(clear.transport.is_closing());
        clear.assert_ended(&event_loop, &[Told::Made, Told::Lost(Some(ErrorKind::Io))]);
        assert_eq!(clear.log.error().unwrap().to_string(), error.to_string());
    }
}

/// STL-005
fn a_silent_peer_in_real_time(on: On) {
    let event_loop = on.event_loop();
    let mut clear = Clear::open(&event_loop, ways()[0]);
    let begin = Instant::now();
    let starting = clear.start_tls(&event_loop).ssl_handshake_timeout(Duration::from_millis(200));
    assert_eq!(event_loop.fails(starting).kind(), ErrorKind::Io);
    assert!((200..10_000).contains(&begin.elapsed().as_millis()), "{:?}", begin.elapsed());
    clear.assert_ended(&event_loop, &[Told::Made, Told::Lost(Some(ErrorKind::Io))]);
}

/// STL-006
fn a_timeout_ends_the_connection(on: On) {
    for way in ways() {
        let (event_loop, clock) = on.virtual_loop();
        let mut clear = Clear::open(&event_loop, way);
        let starting = clear.start_tls(&event_loop);
        let task = event_loop.create_task(asyncio::timeout(Duration::from_millis(500), starting));
        event_loop.ticks(3);
        clock.advance(Duration::from_millis(499));
        event_loop.ticks(3);
        assert!(!task.done() && !clear.transport.is_closing());
        clock.advance(Duration::from_millis(1));
        event_loop.until(|| task.done());
        assert_eq!(event_loop.fails(task).kind(), ErrorKind::Timeout, "{way:?}");
        assert!(clear.transport.is_closing());
        clear.assert_ended(&event_loop, &[Told::Made, Told::Lost(None)]);
        assert!(event_loop.has_no_timer());
    }
}

/// STL-007
fn what_is_not_tls_ends_the_connection(on: On) {
    let event_loop = on.event_loop();
    let answers: [&[u8]; 4] = [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0\0\0\0\0\0", &[0xff; 5], &pattern(100_000)];
    for way in ways() {
        for answer in answers {
            let mut clear = Clear::open(&event_loop, way);
            let task = event_loop.create_task(clear.start_tls(&event_loop).into_future());
            event_loop.ticks(2);
            clear.peer.socket.send(answer);
            event_loop.until(|| task.done());
            let error = event_loop.fails(task);
            assert_eq!(error.kind(), ErrorKind::Ssl, "{way:?}: {error}");
            assert!(clear.transport.is_closing());
            clear.assert_ended(&event_loop, &[Told::Made, Told::Lost(Some(ErrorKind::Ssl))]);
            assert_eq!(clear.log.error().unwrap().to_string(), error.to_string());
        }
    }
}

/// STL-008
fn the_awaiter_goes_on_before_data_is_received(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for within_timeout in [false, true] {
            let mut clear = Clear::open(&event_loop, way);
            let (starting, log) = (clear.start_tls(&event_loop), clear.log.clone());
            let task = event_loop.create_task(async move {
                let transport = match within_timeout {
                    true => asyncio::timeout(Duration::from_secs(30), starting).await?,
                    false => starting.await?,
                };
                log.note("returned");
                Ok(transport)
            });
            // Its last message goes together with the data.
            event_loop.until(|| {
                clear.peer.receive(usize::MAX);
                if clear.peer.connection.is_handshaking() {
                    clear.peer.flush();
                }
                !clear.peer.connection.is_handshaking()
            });
            let sealed = clear.peer.seal(b"first");
            clear.peer.send_sealed(&sealed);
            event_loop.until(|| clear.log.received_len() == 5);
            assert_eq!(clear.log.joined(), [Told::Made, Told::Note("returned"), Told::Data(5)], "{way:?}");
            assert_eq!(clear.log.received(), b"first");
            let transport = event_loop.run(task);
            clear.close_in_order(&event_loop, &transport);
        }
    }
}

/// STL-008, for a client: the server's first data may come before the client has said its last.
fn data_of_a_server_that_does_not_wait_comes_after_the_awaiter_too(on: On) {
    use asyncio::rustls::{ServerConfig, ServerConnection};
    let event_loop = on.event_loop();
    let mut config: ServerConfig = (**certificates::server().server_config().unwrap()).clone();
    config.send_half_rtt_data = true;
    for way in side(Side::Client).filter(|way| way.version == TlsVersion::V1_3) {
        let mut clear = Clear::open(&event_loop, way);
        clear.peer.connection = ServerConnection::new(config.clone().into()).unwrap().into();
        let (starting, log) = (clear.start_tls(&event_loop), clear.log.clone());
        let task = event_loop.create_task(async move {
            let transport = starting.await?;
            log.note("returned");
            Ok(transport)
        });
        event_loop.ticks(2);
        clear.peer.receive(usize::MAX);
        let sealed = clear.peer.seal(b"first");
        assert!(clear.peer.connection.is_handshaking(), "the client has not said its last");
        clear.peer.send_sealed(&sealed);
        event_loop.until(|| clear.log.received_len() == 5);
        assert_eq!(clear.log.joined(), [Told::Made, Told::Note("returned"), Told::Data(5)]);
        let transport = event_loop.run(task);
        clear.close_in_order(&event_loop, &transport);
    }
}

fn wrong_arguments_change_nothing(on: On) {
    let event_loop = on.event_loop();
    let clear = Clear::open(&event_loop, ways()[0]);
    let (client, server) = (certificates::client(), certificates::server());
    let start = |context| event_loop.start_tls(&clear.transport, context);
    let wrong = [
        ("server_hostname", start(&client)),
        ("server_hostname", start(&client).server_hostname("")),
        ("server_hostname", start(&client).server_hostname("no name at all")),
        ("server_hostname", start(&server).server_hostname("localhost")),
        ("server_hostname", start(&server).server_hostname("")),
        ("for clients", start(&client).server_side(true)),
        ("for servers", start(&server).server_side(false).server_hostname("localhost")),
        ("positive", start(&server).ssl_handshake_timeout(Duration::ZERO)),
        ("positive", start(&server).ssl_shutdown_timeout(Duration::ZERO)),
        ("positive", start(&client).server_hostname("localhost").ssl_handshake_timeout(Duration::ZERO)),
    ];
    for (text, starting) in wrong {
        let error = event_loop.fails(starting);
        assert_eq!(error.kind(), ErrorKind::Value, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        clear.assert_in_clear(&event_loop);
    }
    let mut clear = clear;
    let transport = clear.upgrade(&event_loop);
    clear.close_in_order(&event_loop, &transport);
}

fn a_client_that_checks_no_name_needs_none(on: On) {
    let event_loop = on.event_loop();
    let context = certificates::client_builder().dangerous_disable_hostname_check().build().unwrap();
    for way in side(Side::Client) {
        for name in [None, Some(""), Some("another.example")] {
            let mut clear = Clear::open(&event_loop, way);
            let mut starting = event_loop.start_tls(&clear.transport, &context);
            if let Some(name) = name {
                starting = starting.server_hostname(name);
            }
            let task = event_loop.create_task(starting.into_future());
            event_loop.until(|| {
                clear.peer.turn();
                task.done() && !clear.peer.connection.is_handshaking()
            });
            let transport = event_loop.run(task);
            clear.close_in_order(&event_loop, &transport);
        }
    }
}

fn a_client_may_name_an_address(on: On) {
    use asyncio::rustls::ServerConnection;
    let event_loop = on.event_loop();
    let identity = certificates::authority().issue(&["127.0.0.1", "::1"]);
    for (name, fits) in [("127.0.0.1", true), ("::1", true), ("127.0.0.2", false), ("localhost", false)] {
        let mut clear = Clear::open(&event_loop, ways()[0]);
        let config = identity.server().server_config().unwrap().clone();
        clear.peer.connection = ServerConnection::new(config).unwrap().into();
        let starting = event_loop.start_tls(&clear.transport, &certificates::client()).server_hostname(name);
        let task = event_loop.create_task(starting.into_future());
        event_loop.until(|| {
            clear.peer.turn();
            task.done() && (!fits || !clear.peer.connection.is_handshaking())
        });
        if fits {
            let transport = event_loop.run(task);
            clear.close_in_order(&event_loop, &transport);
        } else {
            let error = event_loop.fails(task);
            assert_eq!(error.kind(), ErrorKind::Ssl);
            assert!(error.to_string().contains("certificate"), "{error}");
            clear.assert_ended(&event_loop, &[Told::Made, Told::Lost(Some(ErrorKind::Ssl))]);
        }
    }
}

/// What must not be done with a transport that was taken over: all of it is refused, and nothing is sent.
#[track_caller]
fn assert_taken_over(event_loop: &TestLoop, transport: &Transport) {
    let file = tempfile::tempfile().unwrap();
    (&file).write_all(b"in clear").unwrap();
    let refused = [
        transport.try_write(b"in clear"),
        transport.try_writelines([b"in clear", b"in clear"]),
        transport.write_eof(),
        Err(event_loop.fails(event_loop.sendfile(transport, &file))),
    ];
    for refused in refused {
        let (kind, text) = failure(refused);
        assert_eq!(kind, ErrorKind::Runtime, "{text}");
        assert!(text.contains("start_tls"), "{text}");
    }
    assert_eq!(event_loop.reports.len(), 0);
    transport.write(b"in clear");
    transport.writelines([b"in clear"]);
    let log = Log::default();
    transport.set_protocol(Rc::new(RefCell::new(Recorder::new(&log))));
    let reports = event_loop.reports.take();
    assert_eq!(reports.len(), 3);
    for (report, call) in reports.iter().zip(["write", "writelines", "set_protocol"]) {
        assert!(report.message.contains(call), "{report:?}");
        assert_eq!(report.exception.as_ref().unwrap().kind(), ErrorKind::Runtime);
    }
}

fn the_old_transport_writes_nothing_any_more(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let mut clear = Clear::open(&event_loop, way);
        let task = event_loop.create_task(clear.start_tls(&event_loop).into_future());
        event_loop.ticks(2);
        assert_taken_over(&event_loop, &clear.transport);
        event_loop.until(|| {
            clear.peer.turn();
            task.done() && !clear.peer.connection.is_handshaking()
        });
        let transport = event_loop.run(task);
        assert_taken_over(&event_loop, &clear.transport);
        assert!(clear.transport.get_protocol::<Recorder>().is_none(), "it is the new one's");
        // Nothing is seen of it on the wire.
        transport.write(b"in secret");
        event_loop.ticks(2);
        clear.peer.turn();
        assert_eq!(clear.peer.received, b"in secret", "{way:?}");
        assert!(clear.peer.error.is_none());
        transport.write(b"in secret");
        clear.peer.socket.until_readable();
        let wire = clear.peer.socket.drain();
        assert!(!wire.windows(6).any(|window| window == b"secret"));
        transport.abort();
        clear.assert_ended(&event_loop, &[Told::Made, Told::Lost(None)]);
        // And when all is over it is silent, as every other one.
        clear.transport.write(b"late");
        clear.transport.try_write(b"late").unwrap();
        assert_eq!(event_loop.reports.len(), 0);
    }
}

fn the_old_transport_ends_the_connection(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for abort in [false, true] {
            let mut clear = Clear::open(&event_loop, way);
            let transport = clear.upgrade(&event_loop);
            if abort {
                clear.transport.abort()
            } else {
                clear.transport.close()
            }
            assert!(transport.is_closing() && clear.transport.is_closing());
            transport.write(b"late");
            transport.close();
            event_loop.until(|| {
                clear.peer.turn();
                clear.log.lost() && clear.peer.ended
            });
            event_loop.ticks(2);
            assert!(!clear.peer.close_notify, "without a word");
            assert_eq!(clear.peer.received, b"");
            assert_eq!(clear.log.joined(), [Told::Made, Told::Lost(None)], "{way:?}");
        }
    }
}

fn the_old_transport_ends_the_handshake(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for abort in [false, true] {
            let mut clear = Clear::open(&event_loop, way);
            let task = event_loop.create_task(clear.start_tls(&event_loop).into_future());
            event_loop.ticks(2);
            if abort {
                clear.transport.abort()
            } else {
                clear.transport.close()
            }
            event_loop.until(|| task.done());
            let error = event_loop.fails(task);
            assert_eq!(error.io_error().map(io::Error::kind), Some(io::ErrorKind::ConnectionAborted), "{error}");
            clear.assert_ended(&event_loop, &[Told::Made, Told::Lost(None)]);
        }
    }
}

fn what_waits_to_be_written_goes_first_and_in_clear(on: On) {
    let event_loop = on.event_loop();
    let data = pattern(1_000_000);
    for way in ways() {
        let mut clear = Clear::with(&event_loop, way, way.kind.small_pair(), |recorder| recorder);
        clear.transport.write(&data);
        assert!(clear.transport.get_write_buffer_size() > 600_000);
        let task = event_loop.create_task(clear.start_tls(&event_loop).into_future());
        event_loop.ticks(2);
        assert_eq!(clear.log.items(), [Told::Made, Told::Pause]);
        let mut received = Vec::new();
        event_loop.until(|| {
            received.extend(clear.peer.socket.recv(data.len() - received.len()).unwrap_or_default());
            received.len() == data.len()
        });
        assert!(received == data, "{way:?}");
        event_loop.until(|| {
            clear.peer.turn();
            task.done() && !clear.peer.connection.is_handshaking()
        });
        let transport = event_loop.run(task);
        assert_eq!(clear.log.items(), [Told::Made, Told::Pause, Told::Resume], "{way:?}");
        assert!(!transport.is_write_paused());
        transport.write(b"behind it");
        event_loop.until(|| {
            clear.peer.turn();
            clear.peer.received == b"behind it"
        });
        clear.close_in_order(&event_loop, &transport);
    }
}

/// A transport in clear may have had limits of its own.
fn what_the_new_limits_pause_is_resumed(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for high in [0, 1 << 30] {
            let mut clear = Clear::with(&event_loop, way, way.kind.small_pair(), |recorder| recorder);
            clear.transport.set_write_buffer_limits(high, None).unwrap();
            clear.transport.write(&pattern(1_000_000));
            assert_eq!(clear.log.count(&Told::Pause), usize::from(high == 0));
            let task = event_loop.create_task(clear.start_tls(&event_loop).into_future());
            event_loop.ticks(2);
            assert!(clear.transport.is_write_paused());
            let mut received = 0;
            event_loop.until(|| {
                received += clear.peer.socket.recv(1_000_000 - received).unwrap_or_default().len();
                received == 1_000_000
            });
            event_loop.until(|| {
                clear.peer.turn();
                task.done() && !clear.peer.connection.is_handshaking()
            });
            let transport = event_loop.run(task);
            assert_eq!(transport.get_write_buffer_limits(), (131_072, 524_288));
            assert_eq!(clear.log.items(), [Told::Made, Told::Pause, Told::Resume], "{way:?}, {high}");
            clear.close_in_order(&event_loop, &transport);
        }
    }
}

/// Who holds its protocol hears of it later, and not less.
fn what_was_not_told_yet_is_told(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let mut clear = Clear::with(&event_loop, way, way.kind.small_pair(), |recorder| recorder);
        let protocol = clear.protocol.clone();
        let held = protocol.borrow_mut();
        clear.transport.write(&pattern(1_000_000));
        let task = event_loop.create_task(clear.start_tls(&event_loop).into_future());
        event_loop.ticks(1);
        assert_eq!(clear.log.items(), [Told::Made]);
        drop(held);
        event_loop.until(|| clear.log.has(&Told::Pause));
        let mut received = 0;
        event_loop.until(|| {
            received += clear.peer.socket.recv(1_000_000 - received).unwrap_or_default().len();
            received == 1_000_000
        });
        event_loop.until(|| {
            clear.peer.turn();
            task.done() && !clear.peer.connection.is_handshaking()
        });
        let transport = event_loop.run(task);
        assert_eq!(clear.log.items(), [Told::Made, Told::Pause, Told::Resume], "{way:?}");
        clear.close_in_order(&event_loop, &transport);
    }
}

fn a_paused_transport_reads_again(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let mut clear = Clear::open(&event_loop, way);
        clear.transport.pause_reading();
        let transport = clear.upgrade(&event_loop);
        assert!(transport.is_reading());
        clear.peer.send(b"hello");
        event_loop.until(|| clear.log.received() == b"hello");
        // To pause the new one is to pause.
        transport.pause_reading();
        clear.peer.send(b"again");
        event_loop.ticks(5);
        assert_eq!(clear.log.received(), b"hello");
        transport.resume_reading();
        event_loop.until(|| clear.log.received() == b"helloagain");
        clear.close_in_order(&event_loop, &transport);
    }
}

fn it_is_done_once(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let mut clear = Clear::open(&event_loop, way);
        let (first, second) = (clear.start_tls(&event_loop), clear.start_tls(&event_loop));
        let first = event_loop.create_task(first.into_future());
        let second = event_loop.create_task(second.into_future());
        event_loop.until(|| second.done());
        let error = event_loop.fails(second);
        assert_eq!(error.kind(), ErrorKind::Runtime);
        assert!(error.to_string().contains("start_tls"), "{error}");
        event_loop.until(|| {
            clear.peer.turn();
            first.done() && !clear.peer.connection.is_handshaking()
        });
        // The one that succeeded is not disturbed, not even afterwards.
        let transport = event_loop.run(first);
        assert_eq!(event_loop.fails(clear.start_tls(&event_loop)).kind(), ErrorKind::Runtime);
        clear.peer.send(b"hello");
        event_loop.until(|| clear.log.received() == b"hello");
        clear.close_in_order(&event_loop, &transport);
    }
}

fn it_does_not_disturb_a_file_on_its_way(on: On) {
    let event_loop = on.event_loop();
    let data = pattern(300_000);
    for way in ways() {
        let mut clear = Clear::with(&event_loop, way, way.kind.small_pair(), |recorder| recorder);
        let file = tempfile::tempfile().unwrap();
        (&file).write_all(&data).unwrap();
        let (transport, sender) = (clear.transport.clone(), event_loop.event_loop.clone());
        let sending = event_loop.create_task(async move { sender.sendfile(&transport, &file).await });
        event_loop.ticks(3);
        let error = event_loop.fails(clear.start_tls(&event_loop));
        assert_eq!(error.kind(), ErrorKind::Runtime);
        assert!(error.to_string().contains("sendfile"), "{error}");
        let mut received = Vec::new();
        event_loop.until(|| {
            received.extend(clear.peer.socket.drain());
            sending.done() && received.len() == data.len()
        });
        assert!(received == data && event_loop.run(sending) == 300_000);
        clear.assert_in_clear(&event_loop);
        let transport = clear.upgrade(&event_loop);
        clear.close_in_order(&event_loop, &transport);
    }
}

fn writing_must_not_have_ended(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let clear = Clear::open(&event_loop, way);
        clear.transport.write_eof().unwrap();
        let error = event_loop.fails(clear.start_tls(&event_loop));
        assert_eq!(error.kind(), ErrorKind::Runtime);
        assert!(error.to_string().contains("write_eof"), "{error}");
        // It can still be read from.
        clear.peer.socket.send(b"in clear");
        event_loop.until(|| clear.log.received() == b"in clear");
        assert!(!clear.transport.is_closing());
        clear.transport.close();
        event_loop.ticks(3);
        assert_eq!(clear.log.joined(), [Told::Made, Told::Data(8), Told::Lost(None)]);
    }
}

fn cancelled_at_any_moment(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let mut given_up = 0;
        for ticks in 0.. {
            let mut clear = Clear::open(&event_loop, way);
            let task = event_loop.create_task(clear.start_tls(&event_loop).into_future());
            for _ in 0..ticks {
                event_loop.ticks(1);
                clear.peer.turn();
            }
            if !task.cancel() {
                let transport = event_loop.run(task);
                event_loop.until(|| {
                    clear.peer.turn();
                    !clear.peer.connection.is_handshaking()
                });
                clear.close_in_order(&event_loop, &transport);
                break;
            }
            event_loop.until(|| task.done());
            assert_eq!(event_loop.fails(task).kind(), ErrorKind::Cancelled, "{way:?}, {ticks}");
            if ticks == 0 {
                // Nothing has begun.
                clear.assert_in_clear(&event_loop);
                let transport = clear.upgrade(&event_loop);
                clear.close_in_order(&event_loop, &transport);
                continue;
            }
            clear.assert_ended(&event_loop, &[Told::Made, Told::Lost(None)]);
            assert!(event_loop.has_no_timer());
            given_up += 1;
        }
        assert!(given_up > 0);
    }
}

fn dropped_at_any_moment(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let mut given_up = 0;
        for polls in 0.. {
            let mut clear = Clear::open(&event_loop, way);
            let starting = clear.start_tls(&event_loop);
            let peer = &mut clear.peer;
            let started = event_loop.run(async move {
                let mut starting = starting.into_future();
                for _ in 0..polls {
                    if let std::task::Poll::Ready(started) = futures::poll!(&mut starting) {
                        return started.map(Some);
                    }
                    asyncio::sleep(Duration::ZERO).await?;
                    peer.turn();
                }
                Ok(None)
            });
            if let Some(transport) = started {
                event_loop.until(|| {
                    clear.peer.turn();
                    !clear.peer.connection.is_handshaking()
                });
                clear.close_in_order(&event_loop, &transport);
                break;
            }
            if polls == 0 {
                clear.assert_in_clear(&event_loop);
                clear.transport.abort();
                event_loop.ticks(2);
                continue;
            }
            clear.assert_ended(&event_loop, &[Told::Made, Told::Lost(None)]);
            assert!(event_loop.has_no_timer());
            given_up += 1;
        }
        assert!(given_up > 0);
    }
}

fn a_handshake_that_began_early(on: On) {
    let event_loop = on.event_loop();
    for way in side(Side::Server) {
        for place in [0, 1, 4, 5, 6, 100, usize::MAX] {
            for at_once in [false, true] {
                let mut clear = Clear::open(&event_loop, way);
                let hello = clear.peer.seal(b"");
                let place = place.min(hello.len());
                let (early, late) = hello.split_at(place);
                if at_once {
                    clear.peer.send_sealed(late);
                }
                let starting = clear.start_tls(&event_loop).buffered(early);
                let task = event_loop.create_task(starting.into_future());
                event_loop.ticks(3);
                if !at_once {
                    for byte in late.chunks(7) {
                        clear.peer.send_sealed(byte);
                        event_loop.ticks(1);
                    }
                }
                event_loop.until(|| {
                    clear.peer.turn();
                    task.done() && !clear.peer.connection.is_handshaking()
                });
                let transport = event_loop.run(task);
                clear.peer.send(b"hello");
                event_loop.until(|| clear.log.received() == b"hello");
                assert_eq!(clear.log.joined(), [Told::Made, Told::Data(5)], "{way:?}, {place}");
                clear.close_in_order(&event_loop, &transport);
            }
        }
    }
}

/// What an attacker put behind the request, in clear, stays in the system until the handshake fails for it.
fn what_was_sent_in_clear_is_never_delivered(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let mut clear = Clear::open(&event_loop, way);
        clear.transport.pause_reading();
        clear.peer.socket.send(b"DELETE everything\r\n");
        let error = clear.fails(&event_loop);
        assert_eq!(error.kind(), ErrorKind::Ssl, "{way:?}: {error}");
        clear.assert_ended(&event_loop, &[Told::Made, Told::Lost(Some(ErrorKind::Ssl))]);
    }
}

fn what_comes_early_and_is_not_tls_is_never_delivered(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for case in 0..4 {
            let mut clear = Clear::open(&event_loop, way);
            let hello = clear.peer.seal(b"");
            let early = match case {
                0 => b"DELETE everything\r\n".to_vec(),
                1 => [b"DELETE everything\r\n", &hello[..]].concat(),
                2 => [&hello[..], b"DELETE everything\r\n"].concat(),
                _ => pattern(1 << 20),
            };
            let task = event_loop.create_task(clear.start_tls(&event_loop).buffered(early).into_future());
            event_loop.until(|| {
                clear.peer.turn();
                task.done()
            });
            let error = event_loop.fails(task);
            assert_eq!(error.kind(), ErrorKind::Ssl, "{way:?}, {case}: {error}");
            clear.assert_ended(&event_loop, &[Told::Made, Told::Lost(Some(ErrorKind::Ssl))]);
        }
    }
}

fn an_end_in_the_handshake_is_told_once(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for reset in [false, true] {
            for turns in 0..2 {
                if (way.kind == PairKind::Unix && reset) || (way.ours == Side::Client && turns == 1) {
                    continue; // there is no reset; and a client has said its last then
                }
                let Clear { transport, log, mut peer, protocol, .. } =
                    Clear::with(&event_loop, way, way.kind.pair(), |recorder| recorder.keep_open());
                let task = event_loop.create_task(start_tls(&event_loop, way, &transport).into_future());
                event_loop.ticks(2);
                if turns == 1 {
                    // Its first message, and no answer to ours.
                    peer.flush();
                    event_loop.ticks(2);
                }
                peer.socket.drain();
                if reset {
                    peer.socket.reset()
                } else {
                    drop(peer.socket)
                }
                event_loop.until(|| task.done());
                let error = event_loop.fails(task);
                assert_eq!(error.io_error().map(io::Error::kind), Some(io::ErrorKind::ConnectionReset), "{error}");
                event_loop.until(|| log.lost());
                event_loop.ticks(3);
                assert_eq!(log.joined(), [Told::Made, Told::Lost(Some(ErrorKind::Io))], "{way:?}");
                assert!(transport.is_closing());
                assert_eq!(Rc::strong_count(&protocol), 1);
            }
        }
    }
}

/// The other side has ended its writing in clear, and the protocol has kept the transport open.
fn an_end_before_the_handshake_is_found(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let mut clear = Clear::with(&event_loop, way, way.kind.pair(), |recorder| recorder.keep_open());
        clear.peer.socket.half_close();
        event_loop.until(|| clear.log.has(&Told::Eof));
        let error = event_loop.fails(asyncio::timeout(Duration::from_secs(20), clear.start_tls(&event_loop)));
        assert_eq!(error.io_error().map(io::Error::kind), Some(io::ErrorKind::ConnectionReset), "{error}");
        clear.assert_ended(&event_loop, &[Told::Made, Told::Eof, Told::Lost(Some(ErrorKind::Io))]);
    }
}

fn a_certificate_that_is_not_trusted(on: On) {
    use asyncio::rustls::{ClientConnection, ServerConnection, pki_types::ServerName};
    let event_loop = on.event_loop();
    let stranger = certificates::Authority::new("nobody knows it");
    for way in ways() {
        let mut clear = Clear::open(&event_loop, way);
        // It is our side that does not trust, or that is not trusted.
        clear.peer.connection = match way.ours {
            Side::Client => {
                let config = stranger.issue(&["localhost"]).server().server_config().unwrap().clone();
                ServerConnection::new(config).unwrap().into()
            }
            Side::Server => {
                let context = SslContext::client_builder().verify_pem(&stranger.pem).build().unwrap();
                let name = ServerName::try_from("localhost").unwrap();
                ClientConnection::new(context.client_config().unwrap().clone(), name).unwrap().into()
            }
        };
        let error = clear.fails(&event_loop);
        assert_eq!(error.kind(), ErrorKind::Ssl);
        let expected = if way.ours == Side::Client { "certificate" } else { "alert" };
        assert!(error.to_string().contains(expected), "{error}");
        clear.assert_ended(&event_loop, &[Told::Made, Told::Lost(Some(ErrorKind::Ssl))]);
    }
}

fn another_protocol_may_be_set(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let mut clear = Clear::open(&event_loop, way);
        let log = Log::default();
        let other =
            Rc::new(RefCell::new(BufferedRecorder::new(Recorder::new(&log).with_transport(&clear.transport), 100)));
        clear.transport.set_protocol(other.clone());
        // The transport's protocol is who is taken along.
        let transport = clear.upgrade(&event_loop);
        assert!(Rc::ptr_eq(&transport.get_protocol::<BufferedRecorder>().unwrap(), &other));
        clear.peer.send(b"hello");
        event_loop.until(|| log.received() == b"hello");
        clear.log.note("is back");
        clear.protocol.replace(Recorder::new(&clear.log).with_transport(&transport));
        transport.set_protocol(clear.protocol.clone());
        clear.peer.send(b"again");
        event_loop.until(|| clear.log.received() == b"again");
        assert_eq!(log.items(), [Told::Get(Some(5)), Told::Updated(5)]);
        let (seen, log_of_first) = (log.clone(), clear.log.clone());
        clear.close_in_order(&event_loop, &transport);
        assert_eq!(seen.items().len(), 2);
        let told = [Told::Made, Told::Note("is back"), Told::Data(5), Told::Eof, Told::Lost(None)];
        assert_eq!(log_of_first.joined(), told);
    }
}

fn closing_the_loop_in_the_handshake_leaves_nothing(on: On) {
    for way in ways() {
        for upgraded in [false, true] {
            let event_loop = on.event_loop();
            let mut clear = Clear::open(&event_loop, way);
            let transport = if upgraded {
                Some(clear.upgrade(&event_loop))
            } else {
                let starting = clear.start_tls(&event_loop).into_future();
                event_loop.create_task(async move { starting.await.map(drop) });
                event_loop.ticks(2);
                None
            };
            event_loop.close().unwrap();
            event_loop.reports.take(); // of the task that is left
            assert_eq!(clear.log.items(), [Told::Made], "there is no loop that could tell");
            assert_eq!(Rc::strong_count(&clear.protocol), 1, "{way:?}");
            event_loop_is_gone(&clear.transport);
            transport.iter().for_each(event_loop_is_gone);
            clear.peer.socket.drain_quietly();
            assert!(clear.peer.socket.ended());
        }
    }
}

/// Nothing that is called has any effect.
fn event_loop_is_gone(transport: &Transport) {
    transport.write(b"late");
    transport.try_write(b"late").unwrap();
    transport.pause_reading();
    transport.resume_reading();
    transport.close();
    transport.abort();
    assert!(transport.is_closing() && !transport.is_reading());
    assert_eq!(transport.get_write_buffer_size(), 0);
    assert!(transport.get_protocol::<Recorder>().is_none());
}

fn another_loop_does_nothing(on: On) {
    let (event_loop, other) = (on.event_loop(), on.event_loop());
    let mut clear = Clear::open(&event_loop, ways()[0]);
    assert_eq!(other.fails(clear.start_tls(&event_loop)).kind(), ErrorKind::Value);
    clear.assert_in_clear(&event_loop);
    let transport = clear.upgrade(&event_loop);
    clear.close_in_order(&event_loop, &transport);
    let clear = Clear::open(&event_loop, ways()[0]);
    let starting = clear.start_tls(&event_loop);
    event_loop.close().unwrap();
    assert_eq!(other.fails(starting).kind(), ErrorKind::Value);
}

fn many_at_once(on: On) {
    let event_loop = on.event_loop();
    let ways: Vec<Way> = ways().into_iter().cycle().take(40).collect();
    let mut all: Vec<Clear> = ways.into_iter().map(|way| Clear::open(&event_loop, way)).collect();
    let start = |clear: &Clear| event_loop.create_task(clear.start_tls(&event_loop).into_future());
    let tasks: Vec<_> = all.iter().map(start).collect();
    event_loop.until(|| {
        all.iter_mut().for_each(|clear| clear.peer.turn());
        all.iter().zip(&tasks).all(|(clear, task)| task.done() && !clear.peer.connection.is_handshaking())
    });
    let data = pattern(100_000);
    let transports: Vec<Transport> = tasks.into_iter().map(|task| event_loop.run(task)).collect();
    transports.iter().for_each(|transport| transport.write(&data));
    all.iter_mut().for_each(|clear| clear.peer.send(&data));
    event_loop.until(|| {
        all.iter_mut().for_each(|clear| clear.peer.turn());
        all.iter().all(|clear| clear.peer.received.len() == data.len() && clear.log.received_len() == data.len())
    });
    for (clear, transport) in all.into_iter().zip(&transports) {
        assert!(clear.peer.received == data && clear.log.received() == data);
        clear.close_in_order(&event_loop, transport);
    }
}
