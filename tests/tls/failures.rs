//! What these tests show: TLS connections that do not come about, the reason that is said, and what is left then.

use std::{
    cell::{Cell, RefCell},
    future::{Future as StdFuture, IntoFuture},
    io::{self, ErrorKind as IoKind, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::AsFd,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use asyncio::{
    Error, ErrorKind, Protocol, Result, Server, SslContext, TlsVersion, Transport, VerifyMode,
    rustls::{
        ClientConfig, RootCertStore,
        client::WebPkiServerVerifier,
        crypto::ring,
        pki_types::{CertificateRevocationListDer, UnixTime, pem::PemObject},
    },
};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tracing::Level;

use crate::{
    certificates::{self, Authority, Identity, authority, client_builder, localhost},
    handshake::{Met, VERSIONS, der, meet, only},
    peers::{TlsPeer, serve_one},
    support::{
        DropGuard, drop_guard, failure, logs,
        loops::{On, TestLoop},
        transports::{Log, Pair, PairKind, Peer, Recorder, Told},
    },
};

on_each_selector! {
    a_silent_server_ends_the_attempt_after_the_limit
    the_limit_of_a_handshake_is_kept_in_real_time
    a_trickle_of_bytes_does_not_move_the_limit
    a_silent_client_is_closed_after_the_limit
    a_client_that_goes_silent_midway_is_closed_after_the_limit
    limits_of_zero_are_refused_everywhere
    a_server_that_closes_after_the_first_message_resets_the_connection
    a_server_that_ends_at_any_moment_resets_the_connection
    a_client_that_ends_at_any_moment_leaves_nothing
    a_cancelled_attempt_closes_the_connection_at_once
    an_attempt_that_outlasts_its_timeout_closes_the_connection
    an_attempt_that_is_dropped_closes_the_connection
    a_loop_that_is_closed_drops_handshakes
    a_server_that_is_not_trusted_is_refused
    a_certificate_out_of_its_time_is_refused
    a_certificate_that_was_revoked_is_refused
    a_self_signed_certificate_is_good_for_whom_it_was_given_to
    a_chain_without_its_intermediate_is_refused
    the_other_side_of_a_refused_certificate_hears_why_and_the_end
    what_is_not_tls_ends_only_its_own_connection
    garbage_at_a_unix_server_ends_only_its_own_connection
    an_http_client_that_waits_is_closed
    a_server_that_speaks_no_tls_is_refused_with_that_reason
    a_server_that_damages_its_messages_is_refused
    what_came_early_and_is_not_tls_is_refused_however_long_it_is
    a_handshake_that_is_closed_or_aborted_tells_the_protocol_nothing
    an_attempt_whose_socket_is_shut_down_ends_with_an_error
    a_client_without_the_certificate_that_is_required_is_refused
    a_bad_certificate_of_a_client_is_refused_even_where_it_is_optional
    versions_that_do_not_meet_are_refused_by_both
    protocols_without_overlap_are_refused_by_both
    a_refusal_names_whom_it_is_about
    a_handshake_that_is_broken_off_names_the_other_side
    alerts_have_words
}

/// A server whose protocols are counted as long as they are there.
struct Watched {
    server: Server,
    address: SocketAddr,
    log: Log,
    alive: Rc<Cell<usize>>,
}

struct Counted {
    alive: Rc<Cell<usize>>,
    recorder: Recorder,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.alive.set(self.alive.get() - 1);
    }
}

impl Protocol for Counted {
    fn connection_made(&mut self, transport: &Transport) {
        self.recorder.connection_made(transport);
    }

    fn data_received(&mut self, data: &[u8]) {
        self.recorder.data_received(data);
    }

    fn eof_received(&mut self) -> bool {
        self.recorder.eof_received()
    }

    fn connection_lost(&mut self, error: Option<&Error>) {
        self.recorder.connection_lost(error);
    }
}

impl Watched {
    fn new(event_loop: &TestLoop, context: &SslContext) -> Self {
        Watched::with_limit(event_loop, context, Duration::from_secs(30))
    }

    fn with_limit(event_loop: &TestLoop, context: &SslContext, limit: Duration) -> Self {
        let (log, alive): (Log, Rc<Cell<usize>>) = Default::default();
        let (recorded, count) = (log.clone(), alive.clone());
        let factory = move || {
            count.set(count.get() + 1);
            let recorder = Recorder::new(&recorded).on_data(|transport, data| transport.write(data));
            Counted { alive: count.clone(), recorder }
        };
        let creating = event_loop.create_server(factory, ("127.0.0.1", 0)).ssl(context).ssl_handshake_timeout(limit);
        let server = event_loop.run(creating);
        let address = server.sockets()[0].address().as_inet().unwrap();
        Watched { server, address, log, alive }
    }

    /// Nobody was told anything so far, and the next client is served; then the server ends.
    #[track_caller]
    fn serves_on_and_ends(self, event_loop: &TestLoop, client: &SslContext) {
        event_loop.until(|| self.alive.get() == 0);
        assert_eq!(self.log.items(), [], "protocols were told of what did not come about");
        let log = Log::default();
        let connecting = event_loop.create_connection(|| Recorder::new(&log), self.address).ssl(client);
        let (transport, _) = event_loop.run(connecting.server_hostname("localhost"));
        transport.write(b"still there?");
        event_loop.until(|| log.received() == b"still there?");
        transport.close();
        self.server.close();
        event_loop.run(self.server.wait_closed());
        event_loop.until(|| log.lost());
        assert_eq!(log.joined(), [Told::Made, Told::Data(12), Told::Eof, Told::Lost(None)]);
        assert_eq!(self.log.joined(), [Told::Made, Told::Data(12), Told::Eof, Told::Lost(None)]);
    }
}

/// A client's attempt at a silent peer: the peer has its first message.
struct Attempt {
    task: asyncio::Task<Transport>,
    peer: Peer,
    log: Log,
    guard: crate::support::Dropped,
}

struct Guarded(Recorder, #[expect(dead_code, reason = "its drop is seen")] DropGuard);

impl Protocol for Guarded {
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

fn connecting(
    event_loop: &TestLoop,
    kind: PairKind,
    limit: Duration,
) -> (impl StdFuture<Output = Result<Transport>> + use<>, Peer, Log, crate::support::Dropped) {
    let Pair { ours, peer } = kind.pair();
    let (log, (guard, dropped)) = (Log::default(), drop_guard());
    let recorder = Recorder::new(&log);
    let connecting = event_loop.create_connection(move || Guarded(recorder, guard), ()).sock(ours);
    let connecting = connecting.ssl(&certificates::client()).server_hostname("localhost").ssl_handshake_timeout(limit);
    let connecting = connecting.into_future();
    (async move { Ok(connecting.await?.0) }, peer, log, dropped)
}

impl Attempt {
    fn new(event_loop: &TestLoop, kind: PairKind, limit: Duration) -> Self {
        let (connecting, peer, log, guard) = connecting(event_loop, kind, limit);
        let task = event_loop.create_task(connecting);
        let mut hello = Vec::new();
        event_loop.until(|| {
            hello.extend(peer.drain());
            is_whole(&hello)
        });
        Attempt { task, peer, log, guard }
    }

    /// It has failed, and left nothing: the protocol was told nothing, and the peer sees the end.
    #[track_caller]
    fn fails(self, event_loop: &TestLoop) -> (Error, Peer) {
        let Attempt { task, peer, log, guard } = self;
        let error = event_loop.fails(task);
        event_loop.until(|| {
            let _ = peer.recv(1 << 16); // an alert, perhaps
            peer.ended()
        });
        assert_eq!(log.items(), []);
        assert!(guard.get(), "the protocol is still there");
        assert_eq!(event_loop.next_deadline(), None, "a timer is left");
        (error, peer)
    }
}

/// Whether these are whole records.
fn is_whole(mut records: &[u8]) -> bool {
    while let [_, _, _, high, low, rest @ ..] = records {
        let Some(after) = rest.get(usize::from(*high) << 8 | usize::from(*low)..) else { return false };
        if after.is_empty() {
            return true;
        }
        records = after;
    }
    false
}

fn io_kind(error: &Error) -> Option<IoKind> {
    error.io_error().map(io::Error::kind)
}

#[track_caller]
fn assert_aborted(error: &Error, limit: &str) {
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(io_kind(error), Some(IoKind::ConnectionAborted));
    let text = error.to_string();
    assert!(text.contains("handshake") && text.contains(limit), "{text}");
}

/// TLS-005
fn a_silent_server_ends_the_attempt_after_the_limit(on: On) {
    for kind in [PairKind::Tcp, PairKind::Unix] {
        let (event_loop, clock) = on.virtual_loop();
        let attempt = Attempt::new(&event_loop, kind, Duration::from_millis(300));
        clock.advance(Duration::from_millis(299));
        event_loop.ticks(5);
        assert!(!attempt.task.done() && !attempt.peer.ended());
        clock.advance(Duration::from_millis(1));
        let (error, _) = attempt.fails(&event_loop);
        assert_aborted(&error, "0.3");
    }
}

/// TLS-005
fn the_limit_of_a_handshake_is_kept_in_real_time(on: On) {
    let event_loop = on.event_loop();
    let begin = Instant::now();
    let attempt = Attempt::new(&event_loop, PairKind::Tcp, Duration::from_millis(300));
    let (error, _) = attempt.fails(&event_loop);
    assert_aborted(&error, "0.3");
    assert!(begin.elapsed() >= Duration::from_millis(300));
    assert!(begin.elapsed() < Duration::from_secs(20));
}

/// TLS-005
fn a_trickle_of_bytes_does_not_move_the_limit(on: On) {
    let (event_loop, clock) = on.virtual_loop();
    let attempt = Attempt::new(&event_loop, PairKind::Tcp, Duration::from_secs(5));
    // The beginning of a record, byte by byte.
    for byte in [0x16, 3, 3, 0x3f, 0xff] {
        assert!(!attempt.task.done());
        attempt.peer.send(&[byte]);
        clock.advance(Duration::from_secs(1));
        event_loop.ticks(5);
    }
    let (error, _) = attempt.fails(&event_loop);
    assert_aborted(&error, "5");
}

/// Reads to the end of a connection, which must come while the loop runs.
#[track_caller]
fn read_to_the_end(event_loop: &TestLoop, socket: TcpStream) -> (Vec<u8>, IoKind) {
    socket.set_nonblocking(true).unwrap();
    let (mut received, mut chunk, mut end) = (Vec::new(), [0; 4096], None);
    event_loop.until(|| {
        match (&socket).read(&mut chunk) {
            Ok(0) => end = Some(IoKind::UnexpectedEof),
            Ok(count) => received.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == IoKind::WouldBlock => {}
            Err(error) => end = Some(error.kind()),
        }
        end.is_some()
    });
    let end = end.unwrap();
    assert!([IoKind::UnexpectedEof, IoKind::ConnectionReset].contains(&end), "{end}");
    (received, end)
}

/// TLS-006
fn a_silent_client_is_closed_after_the_limit(on: On) {
    let (event_loop, clock) = on.virtual_loop();
    let watched = Watched::with_limit(&event_loop, &certificates::server(), Duration::from_millis(200));
    let silent = TcpStream::connect(watched.address).unwrap();
    silent.set_nonblocking(true).unwrap();
    event_loop.until(|| watched.alive.get() == 1);
    event_loop.ticks(3);
    clock.advance(Duration::from_millis(199));
    event_loop.ticks(5);
    assert_eq!((&silent).read(&mut [0]).unwrap_err().kind(), IoKind::WouldBlock);
    clock.advance(Duration::from_millis(1));
    let (received, end) = read_to_the_end(&event_loop, silent);
    assert_eq!((received, end), (Vec::new(), IoKind::UnexpectedEof));
    assert_eq!(event_loop.next_deadline(), None);
    watched.serves_on_and_ends(&event_loop, &certificates::client());
}

/// TLS-006
fn a_client_that_goes_silent_midway_is_closed_after_the_limit(on: On) {
    for (version, _) in VERSIONS {
        let (event_loop, clock) = on.virtual_loop();
        let server = only(localhost().server_builder(), version).build().unwrap();
        let watched = Watched::with_limit(&event_loop, &server, Duration::from_millis(200));
        let mut peer = TlsPeer::client(TcpStream::connect(watched.address).unwrap());
        peer.flush().unwrap();
        event_loop.until(|| {
            peer.socket.set_nonblocking(true).unwrap();
            peer.socket.peek(&mut [0]).is_ok()
        });
        event_loop.ticks(3);
        clock.advance(Duration::from_millis(200));
        let (received, _) = read_to_the_end(&event_loop, peer.socket);
        assert!(is_whole(&received), "a part of the server's messages");
        watched.serves_on_and_ends(&event_loop, &certificates::client());
    }
}

/// TLS-007
fn limits_of_zero_are_refused_everywhere(on: On) {
    let event_loop = on.event_loop();
    let (client, server) = (certificates::client(), certificates::server());
    let plain = || Recorder::new(&Log::default());
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("socket");
    let (zero, nowhere) = (Duration::ZERO, ("127.0.0.1", 9));
    let pair = || PairKind::Tcp.pair();
    let ours = || pair().ours;
    let refused = |error: Error| {
        assert_eq!(error.kind(), ErrorKind::Value);
        assert!(error.to_string().contains("positive"), "{error}");
    };

    let make = || event_loop.create_connection(plain, nowhere).ssl(&client).server_hostname("localhost");
    refused(event_loop.fails(make().ssl_handshake_timeout(zero)));
    refused(event_loop.fails(make().ssl_shutdown_timeout(zero)));
    let make = || event_loop.create_unix_connection(plain, &path).ssl(&client).server_hostname("localhost");
    refused(event_loop.fails(make().ssl_handshake_timeout(zero)));
    refused(event_loop.fails(make().ssl_shutdown_timeout(zero)));
    let make = || event_loop.create_server(plain, ("127.0.0.1", 0)).ssl(&server);
    refused(event_loop.fails(make().ssl_handshake_timeout(zero)));
    refused(event_loop.fails(make().ssl_shutdown_timeout(zero)));
    let make = || event_loop.create_unix_server(plain, &path).ssl(&server);
    refused(event_loop.fails(make().ssl_handshake_timeout(zero)));
    refused(event_loop.fails(make().ssl_shutdown_timeout(zero)));
    assert!(!path.exists());
    let make = || event_loop.connect_accepted_socket(plain, ours()).ssl(&server);
    refused(event_loop.fails(make().ssl_handshake_timeout(zero)));
    refused(event_loop.fails(make().ssl_shutdown_timeout(zero)));

    let connected = crate::support::transports::connect(&event_loop, pair());
    let make = || event_loop.start_tls(&connected.transport, &client).server_hostname("localhost");
    refused(event_loop.fails(make().ssl_handshake_timeout(zero)));
    refused(event_loop.fails(make().ssl_shutdown_timeout(zero)));
    connected.transport.write(b"in clear");
    assert_eq!(connected.peer.read_exactly(8), b"in clear");
    connected.transport.close();
    event_loop.until(|| connected.log.lost());
}

/// TLS-008
fn a_server_that_closes_after_the_first_message_resets_the_connection(on: On) {
    let event_loop = on.event_loop();
    for kind in [PairKind::Tcp, PairKind::Unix, PairKind::Socketpair] {
        let Attempt { task, peer, log, guard } = Attempt::new(&event_loop, kind, Duration::from_secs(30));
        drop(peer);
        let error = event_loop.fails(task);
        assert_eq!(io_kind(&error), Some(IoKind::ConnectionReset), "{error}");
        assert_eq!(log.items(), []);
        assert!(guard.get());
    }
}

/// How a peer ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Its direction, and reads on.
    Half,
    Close,
    Reset,
}

impl End {
    const ALL: [End; 3] = [End::Half, End::Close, End::Reset];

    /// The socket, if it is still open.
    fn end(self, socket: TcpStream) -> Option<TcpStream> {
        match self {
            End::Half => {
                socket.shutdown(std::net::Shutdown::Write).unwrap();
                Some(socket)
            }
            End::Close => None,
            End::Reset => {
                Peer::new(socket).reset();
                None
            }
        }
    }
}

/// TLS-008
fn a_server_that_ends_at_any_moment_resets_the_connection(on: On) {
    let event_loop = on.event_loop();
    for end in End::ALL {
        // Of its answer; the first moment is before it has read anything.
        for sent in [None, Some(0), Some(1), Some(5), Some(100), Some(300)] {
            let (address, thread) = serve_one(move |socket| {
                if let Some(sent) = sent {
                    let mut peer = TlsPeer::server(socket.try_clone().unwrap());
                    while !peer.connection.wants_write() {
                        peer.connection.read_tls(&mut peer.socket).unwrap();
                        peer.connection.process_new_packets().unwrap();
                    }
                    let mut answer = Vec::new();
                    peer.connection.write_tls(&mut answer).unwrap();
                    peer.socket.write_all(&answer[..sent.min(answer.len() - 1)]).unwrap();
                }
                end.end(socket).map(|mut socket| {
                    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
                    io::copy(&mut socket, &mut io::sink())
                })
            });
            let log = Log::default();
            let connecting = event_loop.create_connection(|| Recorder::new(&log), address);
            let error = event_loop.fails(connecting.ssl(&certificates::client()).server_hostname("localhost"));
            let kind = io_kind(&error);
            // The first message may come too late, and finds nobody.
            let expected = kind == Some(IoKind::ConnectionReset) || sent.is_none() && kind == Some(IoKind::BrokenPipe);
            assert!(expected, "{end:?} after {sent:?}: {error}");
            assert_eq!(log.items(), []);
            if let Some(ended) = thread.join().unwrap() {
                assert!(ended.is_ok(), "the client has not closed: {ended:?}");
            }
        }
    }
}

/// TLS-006, TLS-008
fn a_client_that_ends_at_any_moment_leaves_nothing(on: On) {
    let event_loop = on.event_loop();
    let watched = Watched::new(&event_loop, &certificates::server());
    let hello = {
        let mut peer = TlsPeer::client(TcpStream::connect(watched.address).unwrap());
        let mut hello = Vec::new();
        peer.connection.write_tls(&mut hello).unwrap();
        hello
    };
    for end in End::ALL {
        for sent in [0, 1, 5, 6, hello.len() / 2, hello.len() - 1, hello.len()] {
            let mut socket = TcpStream::connect(watched.address).unwrap();
            socket.write_all(&hello[..sent]).unwrap();
            if sent == hello.len() {
                // It has begun to answer.
                socket.set_nonblocking(true).unwrap();
                event_loop.until(|| socket.peek(&mut [0]).is_ok());
            }
            if let Some(socket) = end.end(socket) {
                read_to_the_end(&event_loop, socket);
            }
        }
    }
    watched.serves_on_and_ends(&event_loop, &certificates::client());
}

/// TLS-009
fn a_cancelled_attempt_closes_the_connection_at_once(on: On) {
    for kind in [PairKind::Tcp, PairKind::Unix] {
        let (event_loop, _clock) = on.virtual_loop();
        let attempt = Attempt::new(&event_loop, kind, Duration::from_secs(10));
        assert!(attempt.task.cancel());
        let (error, _) = attempt.fails(&event_loop);
        assert!(error.is_cancelled(), "{error}");
    }
}

/// TLS-009
fn an_attempt_that_outlasts_its_timeout_closes_the_connection(on: On) {
    let (event_loop, clock) = on.virtual_loop();
    let (connecting, peer, log, guard) = connecting(&event_loop, PairKind::Tcp, Duration::from_secs(10));
    let task = event_loop.create_task(asyncio::timeout(Duration::from_millis(500), connecting));
    event_loop.until(|| !peer.drain().is_empty());
    clock.advance(Duration::from_millis(500));
    let (error, _) = Attempt { task, peer, log, guard }.fails(&event_loop);
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(!error.to_string().contains("handshake"), "{error}");
}

/// TLS-009
fn an_attempt_that_is_dropped_closes_the_connection(on: On) {
    let (event_loop, _clock) = on.virtual_loop();
    let (connecting, peer, log, guard) = connecting(&event_loop, PairKind::Tcp, Duration::from_secs(10));
    let mut connecting = Some(Box::pin(connecting));
    // It is polled until it has sent something, and let go of in the middle.
    event_loop.run(std::future::poll_fn(|cx| {
        if peer.drain().is_empty() {
            assert!(connecting.as_mut().unwrap().as_mut().poll(cx).is_pending());
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        connecting = None;
        Poll::Ready(Ok(()))
    }));
    event_loop.until(|| peer.ended());
    assert_eq!(log.items(), []);
    assert!(guard.get());
    assert_eq!(event_loop.next_deadline(), None);
}

/// TLS-009
fn a_loop_that_is_closed_drops_handshakes(on: On) {
    let event_loop = on.event_loop();
    let watched = Watched::new(&event_loop, &certificates::server());
    let silent = TcpStream::connect(watched.address).unwrap();
    let (connecting, peer, log, guard) = connecting(&event_loop, PairKind::Tcp, Duration::from_secs(10));
    let mut connecting = Box::pin(connecting);
    event_loop.run(std::future::poll_fn(|cx| {
        if peer.drain().is_empty() || watched.alive.get() == 0 {
            assert!(connecting.as_mut().poll(cx).is_pending());
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }));
    event_loop.close().unwrap();
    assert!(peer.ended());
    assert_eq!(watched.alive.get(), 0);
    drop(connecting);
    assert!(guard.get());
    assert_eq!((log.items(), watched.log.items()), (vec![], vec![]));
    silent.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let end = (&silent).read(&mut [0]);
    assert!(end.is_ok_and(|count| count == 0));
}

/// A server that shows this certificate is refused by the client, who says why.
#[track_caller]
fn refused(event_loop: &TestLoop, server: &SslContext, client: &SslContext, host: Option<&str>, reasons: &[&str]) {
    let watched = Watched::new(event_loop, server);
    let log = Log::default();
    let mut connecting = event_loop.create_connection(|| Recorder::new(&log), watched.address).ssl(client);
    if let Some(host) = host {
        connecting = connecting.server_hostname(host);
    }
    let (kind, text) = failure(event_loop.run_until_complete(connecting).map(|_| ()));
    assert_eq!(kind, ErrorKind::Ssl, "{text}");
    for reason in reasons {
        assert!(text.contains(reason), "{text:?} does not say {reason:?}");
    }
    assert_eq!(log.items(), []);
    let anybody = SslContext::client_builder().dangerous_disable_certificate_verification().build().unwrap();
    watched.serves_on_and_ends(event_loop, &anybody);
}

/// TLS-010
fn a_server_that_is_not_trusted_is_refused(on: On) {
    let event_loop = on.event_loop();
    let own = KeyPair::generate().unwrap();
    let self_signed = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&own).unwrap();
    let self_signed = Identity { chain: self_signed.pem(), key: own.serialize_pem() };
    let stranger = Authority::new("a stranger").issue(&["localhost"]);
    // Somebody who only has the same name.
    let impostor = Authority::new("the authority of these tests").issue(&["localhost"]);
    let other = authority().issue(&["example.org"]);
    let address = authority().issue(&["192.0.2.1"]);
    let client_only = authority().issue_as(&["localhost"], |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    });
    const FAILED: &str = "certificate verify failed";
    for (version, _) in VERSIONS {
        let client = only(client_builder(), version).build().unwrap();
        let check = |identity: &Identity, host: Option<&str>, reasons: &[&str]| {
            refused(&event_loop, &identity.server(), &client, host, reasons);
        };
        check(&self_signed, Some("localhost"), &[FAILED, "not issued by anybody who is trusted", "UnknownIssuer"]);
        check(&stranger, Some("localhost"), &[FAILED, "not issued by anybody who is trusted", "UnknownIssuer"]);
        check(&impostor, Some("localhost"), &[FAILED]);
        check(&other, Some("localhost"), &[FAILED, "not valid for name \"localhost\"", "example.org"]);
        check(localhost(), Some("example.org"), &[FAILED, "not valid for name \"example.org\""]);
        check(localhost(), Some("sub.localhost"), &[FAILED, "not valid for name"]);
        check(localhost(), None, &[FAILED, "127.0.0.1"]);
        check(&address, None, &[FAILED, "127.0.0.1", "192.0.2.1"]);
        check(&client_only, Some("localhost"), &[FAILED, "usage"]);
    }
}

/// TLS-010
fn a_certificate_out_of_its_time_is_refused(on: On) {
    let event_loop = on.event_loop();
    let expired = authority().issue_as(&["localhost"], |params| params.not_after = date_time_ymd(2001, 2, 3));
    let future = authority().issue_as(&["localhost"], |params| params.not_before = date_time_ymd(2999, 2, 3));
    for (version, _) in VERSIONS {
        let client = only(client_builder(), version).build().unwrap();
        let host = Some("localhost");
        let reasons = ["certificate verify failed", "it expired ", " days ago (Expired)"];
        refused(&event_loop, &expired.server(), &client, host, &reasons);
        let reasons = ["certificate verify failed", "not valid yet, and will be in ", " days (NotValidYet)"];
        refused(&event_loop, &future.server(), &client, host, &reasons);
    }
    // How long ago it was is what a clock says.
    let today = || UnixTime::now().as_secs() / (24 * 3600);
    let then = date_time_ymd(2001, 2, 3).unix_timestamp().unsigned_abs() / (24 * 3600);
    let before = today();
    let met = meet(&event_loop, PairKind::Tcp, &certificates::client(), &expired.server());
    let (_, text) = failure(met.client);
    let told = (before..=today()).any(|day| text.contains(&format!("it expired {} days ago", day - then)));
    assert!(told, "{text}");
    let (kind, text) = failure(met.server);
    assert_eq!(kind, ErrorKind::Ssl);
    assert!(text.contains("it does not accept our certificate (alert CertificateExpired)"), "{text}");
}

/// TLS-010
fn a_certificate_that_was_revoked_is_refused(on: On) {
    let event_loop = on.event_loop();
    let serial = rcgen::SerialNumber::from(7_u64);
    let bad = authority().issue_as(&["localhost"], |params| params.serial_number = Some(serial.clone()));
    let list = CertificateRevocationListDer::from_pem_slice(authority().revoke(serial).as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(der(&authority().pem)).unwrap();
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).with_crls([list]);
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_webpki_verifier(verifier.build().unwrap()).with_no_client_auth();
    let client = SslContext::from(config);
    refused(&event_loop, &bad.server(), &client, Some("localhost"), &["certificate verify failed", "Revoked"]);
    // Others are still good.
    meet(&event_loop, PairKind::Tcp, &client, &certificates::server()).finish(&event_loop);
}

/// TLS-010
fn a_self_signed_certificate_is_good_for_whom_it_was_given_to(on: On) {
    let event_loop = on.event_loop();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let server = Identity { chain: certificate.pem(), key: key.serialize_pem() }.server();
    let client = SslContext::client_builder().verify_pem(certificate.pem()).build().unwrap();
    meet(&event_loop, PairKind::Tcp, &client, &server).finish(&event_loop);
    refused(&event_loop, &server, &client, None, &["certificate verify failed", "127.0.0.1"]);
}

/// TLS-010
fn a_chain_without_its_intermediate_is_refused(on: On) {
    let event_loop = on.event_loop();
    let leaf = authority().vouch_for("an intermediate").issue(&["localhost"]);
    let reasons = &["certificate verify failed", "not issued by anybody who is trusted"];
    refused(&event_loop, &leaf.server(), &certificates::client(), Some("localhost"), reasons);
}

/// TLS-010
fn the_other_side_of_a_refused_certificate_hears_why_and_the_end(on: On) {
    let event_loop = on.event_loop();
    let client = SslContext::client_builder().verify_pem(Authority::new("a stranger").pem).build().unwrap();
    let (address, thread) = serve_one(|socket| {
        let mut peer = TlsPeer::server(socket);
        let refused = peer.handshake().unwrap_err().to_string();
        let mut rest = Vec::new();
        (refused, peer.socket.read_to_end(&mut rest), rest)
    });
    let log = Log::default();
    let connecting = event_loop.create_connection(|| Recorder::new(&log), address).ssl(&client);
    let error = event_loop.fails(connecting.server_hostname("localhost"));
    assert_eq!(error.kind(), ErrorKind::Ssl);
    assert_eq!(log.items(), []);
    let (refused, end, rest) = thread.join().unwrap();
    assert!(refused.contains("UnknownCA"), "{refused}");
    assert!(end.is_ok() || end.unwrap_err().kind() == IoKind::ConnectionReset);
    assert_eq!(rest, b"");
}

/// What is sent to servers that expect a client's first message, and whether they can tell at once that it is none.
fn garbage() -> Vec<(&'static str, Vec<u8>, bool)> {
    let record = |kind: u8, body: &[u8]| {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&[kind, 3, 1], &length[..], body].concat()
    };
    let noise: Vec<u8> = (0..70_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8 | 0x80).collect();
    vec![
        ("http", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), true),
        ("a long http request", [b"POST / HTTP/1.1\r\n\r\n".to_vec(), vec![b'x'; 1 << 20]].concat(), true),
        ("http 2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), true),
        ("ssh", b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(), true),
        ("one line", b"EHLO me\r\n".to_vec(), true),
        ("zeros", vec![0; 4096], true),
        ("noise", noise, true),
        ("a hello of SSL 2", b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10".repeat(5), true),
        ("a record that is too long", [0x16, 3, 1, 0xff, 0xff].repeat(4), true),
        ("an empty handshake record", record(0x16, b"").repeat(3), true),
        ("a handshake message of an unknown kind", record(0x16, &[99, 0, 0, 4, 1, 2, 3, 4]), true),
        ("a server's first message", record(0x16, &[2, 0, 0, 4, 1, 2, 3, 4]), true),
        ("an absurd first message", record(0x16, &[1, 0, 0, 4, 1, 2, 3, 4]), true),
        ("data that is not encrypted", record(0x17, b"hello"), true),
        ("a change of ciphers", record(0x14, &[1]).repeat(9), true),
        ("an alert", record(0x15, &[2, 40]), true),
        ("a beginning of http", b"GE".to_vec(), false),
        ("a beginning of a record", vec![0x16, 3, 1, 2, 0, 1, 0], false),
    ]
}

/// TLS-012
fn what_is_not_tls_ends_only_its_own_connection(on: On) {
    let event_loop = on.event_loop();
    let watched = Watched::new(&event_loop, &certificates::server());
    for (what, bytes, at_once) in garbage() {
        let socket = TcpStream::connect(watched.address).unwrap();
        let mut writer = socket.try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            // It may be reset before it has sent all.
            let _ = writer.write_all(&bytes);
            if !at_once {
                let _ = writer.shutdown(std::net::Shutdown::Write);
            }
        });
        let (received, _) = read_to_the_end(&event_loop, socket);
        thread.join().unwrap();
        if !received.is_empty() {
            assert!(is_whole(&received) && received[0] == 0x15, "{what}: an alert, and nothing else: {received:?}");
        }
        event_loop.until(|| watched.alive.get() == 0);
    }
    watched.serves_on_and_ends(&event_loop, &certificates::client());
}

/// TLS-012
fn garbage_at_a_unix_server_ends_only_its_own_connection(on: On) {
    let event_loop = on.event_loop();
    let place = tempfile::tempdir().unwrap();
    let (path, log) = (place.path().join("socket"), Log::default());
    let recorded = log.clone();
    let creating = event_loop.create_unix_server(move || Recorder::new(&recorded), &path);
    let server = event_loop.run(creating.ssl(&certificates::server()));
    for (what, bytes, at_once) in garbage() {
        let mut socket = std::os::unix::net::UnixStream::connect(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.write(&bytes);
        if !at_once {
            socket.shutdown(std::net::Shutdown::Write).unwrap();
        }
        let peer = Peer::new(socket);
        event_loop.until(|| {
            let ended = peer.ended();
            if !ended {
                let received = peer.recv(1 << 16).unwrap_or_default();
                assert!(received.is_empty() || received[0] == 0x15, "{what}: an alert, and nothing else");
            }
            ended
        });
    }
    assert_eq!(log.items(), []);
    let client_log = Log::default();
    let connecting = event_loop.create_unix_connection(|| Recorder::new(&client_log), &path);
    let (transport, _) = event_loop.run(connecting.ssl(&certificates::client()).server_hostname("localhost"));
    transport.write(b"hello");
    event_loop.until(|| log.received() == b"hello");
    transport.close();
    server.close();
    event_loop.run(server.wait_closed());
    event_loop.until(|| client_log.lost());
}

/// TLS-012
fn an_http_client_that_waits_is_closed(on: On) {
    let event_loop = on.event_loop();
    let watched = Watched::new(&event_loop, &certificates::server());
    let (ended, records) = logs(|| {
        let mut socket = TcpStream::connect(watched.address).unwrap();
        socket.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        read_to_the_end(&event_loop, socket).1
    });
    assert_eq!(ended, IoKind::UnexpectedEof);
    // Nobody is called for it; the log says why.
    assert!(records.iter().any(|(_, text)| text.contains("what was received is not TLS")), "{records:?}");
    watched.serves_on_and_ends(&event_loop, &certificates::client());
}

/// TLS-010, TLS-012
fn a_server_that_speaks_no_tls_is_refused_with_that_reason(on: On) {
    let event_loop = on.event_loop();
    let answers: [&[u8]; 4] = [
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
        b"220 mail.example.org ESMTP\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        &[0; 64],
    ];
    for answer in answers {
        for kind in [PairKind::Tcp, PairKind::Unix] {
            let attempt = Attempt::new(&event_loop, kind, Duration::from_secs(30));
            attempt.peer.send(answer);
            let (error, _) = attempt.fails(&event_loop);
            assert_eq!(error.kind(), ErrorKind::Ssl);
            let text = error.to_string();
            assert!(text.contains("handshake failed") && text.contains("is not TLS"), "{text}");
        }
    }
    // An alert says what it is.
    let attempt = Attempt::new(&event_loop, PairKind::Tcp, Duration::from_secs(30));
    attempt.peer.send(&[0x15, 3, 3, 0, 2, 2, 40]);
    let (error, _) = attempt.fails(&event_loop);
    assert_eq!(error.kind(), ErrorKind::Ssl);
    assert!(error.to_string().contains("HandshakeFailure"), "{error}");
    // One that says that there is no more is an end, though TCP goes on.
    let attempt = Attempt::new(&event_loop, PairKind::Tcp, Duration::from_secs(30));
    attempt.peer.send(&[0x15, 3, 3, 0, 2, 1, 0]);
    let (error, _) = attempt.fails(&event_loop);
    assert_eq!(io_kind(&error), Some(IoKind::ConnectionReset), "{error}");
}

/// TLS-010, TLS-012
fn a_server_that_damages_its_messages_is_refused(on: On) {
    let event_loop = on.event_loop();
    for kind in [PairKind::Tcp, PairKind::Socketpair] {
        let attempt = Attempt::new(&event_loop, kind, Duration::from_secs(30));
        // A record of a handshake, with nothing that belongs into one.
        attempt.peer.send(&[&[0x16, 3, 3, 0, 100][..], &[0xa5; 100]].concat());
        let (error, _) = attempt.fails(&event_loop);
        assert_eq!(error.kind(), ErrorKind::Ssl, "{error}");
        assert!(error.to_string().contains("handshake failed"), "{error}");
    }
}

/// TLS-012
fn what_came_early_and_is_not_tls_is_refused_however_long_it_is(on: On) {
    let event_loop = on.event_loop();
    for size in [1, 100, 1 << 20] {
        let connected = crate::support::transports::connect(&event_loop, PairKind::Tcp.pair());
        let upgrade = event_loop.start_tls(&connected.transport, &certificates::server()).buffered(vec![b'x'; size]);
        let error = event_loop.fails(upgrade);
        assert!(error.kind() == ErrorKind::Ssl && error.to_string().contains("is not TLS"), "{error}");
        event_loop.until(|| connected.log.lost());
        assert_eq!(connected.log.items(), [Told::Made, Told::Lost(Some(error.kind()))]);
        connected.peer.drain();
        assert!(connected.peer.ended());
    }
}

/// TLS-019
fn a_handshake_that_is_closed_or_aborted_tells_the_protocol_nothing(on: On) {
    let (event_loop, _clock) = on.virtual_loop();
    for abort in [false, true] {
        for midway in [false, true] {
            let watched = Watched::new(&event_loop, &certificates::server());
            let mut peer = TlsPeer::client(TcpStream::connect(watched.address).unwrap());
            event_loop.until(|| watched.alive.get() == 1);
            event_loop.ticks(2);
            if midway {
                peer.flush().unwrap();
                peer.socket.set_nonblocking(true).unwrap();
                event_loop.until(|| peer.socket.peek(&mut [0]).is_ok());
            }
            // They are the transports of handshakes that are not finished.
            if abort {
                watched.server.abort_clients()
            } else {
                watched.server.close_clients()
            }
            let (received, _) = read_to_the_end(&event_loop, peer.socket);
            assert_eq!(received.is_empty(), !midway);
            assert_eq!(event_loop.next_deadline(), None);
            watched.serves_on_and_ends(&event_loop, &certificates::client());
        }
    }
}

/// TLS-019
fn an_attempt_whose_socket_is_shut_down_ends_with_an_error(on: On) {
    let (event_loop, _clock) = on.virtual_loop();
    for how in [rustix::net::Shutdown::Both, rustix::net::Shutdown::Read] {
        let Pair { ours, peer } = PairKind::Tcp.pair();
        let raw = ours.as_fd().try_clone_to_owned().unwrap();
        let (log, made) = (Log::default(), Rc::new(RefCell::new(false)));
        let (recorded, called) = (log.clone(), made.clone());
        let connecting = event_loop.create_connection(
            move || {
                *called.borrow_mut() = true;
                Recorder::new(&recorded)
            },
            (),
        );
        let connecting = connecting.sock(ours).ssl(&certificates::client()).server_hostname("localhost");
        let task = event_loop.create_task(async move { Ok(connecting.await?.0) });
        event_loop.until(|| !peer.drain().is_empty());
        assert!(*made.borrow());
        rustix::net::shutdown(&raw, how).unwrap();
        drop(raw);
        let error = event_loop.fails(task);
        assert_eq!(io_kind(&error), Some(IoKind::ConnectionReset), "{error}");
        assert_eq!(log.items(), []);
        event_loop.until(|| peer.ended());
        assert_eq!(event_loop.next_deadline(), None);
    }
}

/// Both have refused, or the client has heard of it only after its own handshake, as it is with TLS 1.3.
#[track_caller]
fn refused_by_server(event_loop: &TestLoop, version: TlsVersion, met: Met, reason: &str, alerts: &[&str]) {
    let (kind, text) = failure(met.server);
    assert_eq!(kind, ErrorKind::Ssl);
    assert!(text.contains("handshake failed") && text.contains(reason), "{text}");
    assert_eq!(met.server_log.items(), []);
    let error = match (version, met.client) {
        (TlsVersion::V1_2, client) => {
            assert_eq!(met.client_log.items(), []);
            client.unwrap_err()
        }
        (_, Err(error)) => {
            assert_eq!(met.client_log.items(), []);
            error
        }
        (_, Ok(_)) => {
            event_loop.until(|| met.client_log.lost());
            assert_eq!(met.client_log.items(), [Told::Made, Told::Lost(Some(ErrorKind::Ssl))]);
            met.client_log.error().unwrap()
        }
    };
    assert_eq!(error.kind(), ErrorKind::Ssl);
    let text = error.to_string();
    assert!(alerts.iter().any(|alert| text.contains(alert)), "{text}");
    assert!(text.contains("the other side gave up"), "{text}");
}

fn asking(mode: VerifyMode) -> SslContext {
    localhost().server_builder().verify_pem(&authority().pem).verify_mode(mode).build().unwrap()
}

/// TLS-010
fn a_client_without_the_certificate_that_is_required_is_refused(on: On) {
    let event_loop = on.event_loop();
    for (version, _) in VERSIONS {
        let client = only(client_builder(), version).build().unwrap();
        let server = asking(VerifyMode::Required);
        let alert = "it demands a certificate of ours (alert CertificateRequired)";
        for kind in [PairKind::Tcp, PairKind::Unix] {
            let met = meet(&event_loop, kind, &client, &server);
            refused_by_server(&event_loop, version, met, "certificate required", &[alert]);
        }
        // A server that listens tells nobody but the log, and goes on.
        let watched = Watched::new(&event_loop, &server);
        let log = Log::default();
        let ((), records) = logs(|| {
            let connecting = event_loop.create_connection(|| Recorder::new(&log), watched.address).ssl(&client);
            let connected = event_loop.run_until_complete(connecting.server_hostname("localhost"));
            assert_eq!(connected.is_ok(), version == TlsVersion::V1_3);
            event_loop.until(|| watched.alive.get() == 0 && (connected.is_err() || log.lost()));
        });
        assert!(records.iter().any(|(_, text)| text.contains("certificate required")), "{records:?}");
        let own = authority().issue(&["somebody"]);
        let good = client_builder().cert_chain_pem(&own.chain, &own.key).build().unwrap();
        watched.serves_on_and_ends(&event_loop, &good);
    }
}

/// TLS-010
fn a_bad_certificate_of_a_client_is_refused_even_where_it_is_optional(on: On) {
    let event_loop = on.event_loop();
    let stranger = Authority::new("a stranger").issue(&["somebody"]);
    let expired = authority().issue_as(&["somebody"], |params| params.not_after = date_time_ymd(2001, 2, 3));
    let servers_only = authority().issue_as(&["somebody"], |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    let unknown = "it does not trust who issued our certificate (alert UnknownCA)";
    let cases = [
        (stranger, "not issued by anybody who is trusted", [unknown; 2]),
        (expired, "expired", ["it does not accept our certificate (alert CertificateExpired)"; 2]),
        (servers_only, "usage", ["UnsupportedCertificate", "BadCertificate"]),
    ];
    for (version, _) in VERSIONS {
        for mode in [VerifyMode::Optional, VerifyMode::Required] {
            for (own, reason, alerts) in &cases {
                let client = only(client_builder(), version).cert_chain_pem(&own.chain, &own.key).build().unwrap();
                let met = meet(&event_loop, PairKind::Tcp, &client, &asking(mode));
                refused_by_server(&event_loop, version, met, reason, alerts);
            }
        }
    }
}

/// TLS-010
fn versions_that_do_not_meet_are_refused_by_both(on: On) {
    let event_loop = on.event_loop();
    for (ours, theirs) in [(TlsVersion::V1_2, TlsVersion::V1_3), (TlsVersion::V1_3, TlsVersion::V1_2)] {
        let client = only(client_builder(), ours).build().unwrap();
        let server = only(localhost().server_builder(), theirs).build().unwrap();
        for kind in [PairKind::Tcp, PairKind::Unix] {
            let met = meet(&event_loop, kind, &client, &server);
            refused_by_server(&event_loop, TlsVersion::V1_2, met, "incompatible", &["ProtocolVersion"]);
        }
    }
}

/// TLS-010
fn protocols_without_overlap_are_refused_by_both(on: On) {
    let event_loop = on.event_loop();
    let server = localhost().server_builder().set_alpn_protocols(["h2"]).build().unwrap();
    for (version, _) in VERSIONS {
        let client = only(client_builder(), version).set_alpn_protocols(["http/1.1"]).build().unwrap();
        let met = meet(&event_loop, PairKind::Tcp, &client, &server);
        let alert = "no protocol in common, of ALPN (alert NoApplicationProtocol)";
        // No handshake is over: versions make no difference.
        refused_by_server(&event_loop, TlsVersion::V1_2, met, "protocol", &[alert]);
    }
    // Without an offer there is nothing to disagree about.
    let watched = Watched::new(&event_loop, &server);
    let client = client_builder().set_alpn_protocols(["http/1.1"]).build().unwrap();
    let connecting = event_loop.create_connection(|| Recorder::new(&Log::default()), watched.address).ssl(&client);
    assert_eq!(event_loop.fails(connecting.server_hostname("localhost")).kind(), ErrorKind::Ssl);
    watched.serves_on_and_ends(&event_loop, &certificates::client());
}

/// How an error says whom it is about, at the client of who has this socket.
fn whom(peer: &Peer) -> String {
    let address = peer.0.local_addr().unwrap();
    match (address.as_socket(), address.as_pathname()) {
        (Some(address), _) => format!(" [localhost, {address}]"),
        (None, Some(path)) => format!(" [localhost, {}]", path.display()),
        (None, None) => " [localhost]".to_owned(),
    }
}

/// TLS-010, TLS-012
fn a_refusal_names_whom_it_is_about(on: On) {
    let event_loop = on.event_loop();
    let stranger = Authority::new("a stranger").issue(&["localhost"]).server();
    let refusal = |kind: PairKind, client: &SslContext, name: Option<&str>| {
        let Pair { ours, peer } = kind.pair();
        let whom = whom(&peer);
        let plain = || Recorder::new(&Log::default());
        let mut connecting = event_loop.create_connection(plain, ()).sock(ours).ssl(client);
        if let Some(name) = name {
            connecting = connecting.server_hostname(name);
        }
        let accepting = event_loop.connect_accepted_socket(plain, peer.0).ssl(&stranger);
        let both = futures::future::join(connecting.into_future(), accepting.into_future());
        let (client, server) = event_loop.run(async { Ok(both.await) });
        assert!(server.is_err());
        (failure(client.map(drop)), whom)
    };
    let client = certificates::client();
    for kind in [PairKind::Tcp, PairKind::Unix, PairKind::Socketpair] {
        let ((kind, text), whom) = refusal(kind, &client, Some("localhost"));
        assert_eq!(kind, ErrorKind::Ssl);
        assert!(text.starts_with("TLS handshake failed: certificate verify failed: "), "{text}");
        assert!(text.ends_with(&whom), "{text:?} does not say {whom:?}");
    }
    // Whose name nobody knows is known by its address, if it has one.
    let nameless = client_builder().dangerous_disable_hostname_check().build().unwrap();
    let ((_, text), whom) = refusal(PairKind::Tcp, &nameless, None);
    assert!(text.ends_with(&whom.replace("localhost, ", "")), "{text:?} does not say {whom:?}");
    let ((_, text), _) = refusal(PairKind::Socketpair, &nameless, None);
    assert!(!text.contains('['), "{text}");

    // A server tells its log whom it has refused.
    let watched = Watched::new(&event_loop, &certificates::server());
    let (address, records) = logs(|| {
        let mut socket = TcpStream::connect(watched.address).unwrap();
        socket.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let address = socket.local_addr().unwrap();
        read_to_the_end(&event_loop, socket);
        event_loop.until(|| watched.alive.get() == 0);
        address
    });
    let end = format!("what was received is not TLS (InvalidContentType) [{address}]");
    let debug = records.iter().filter(|(level, text)| *level == Level::DEBUG && text.ends_with(&end));
    assert_eq!(debug.count(), 1, "{records:?}");
    watched.serves_on_and_ends(&event_loop, &certificates::client());
}

/// TLS-005, TLS-006, TLS-008
fn a_handshake_that_is_broken_off_names_the_other_side(on: On) {
    let (event_loop, clock) = on.virtual_loop();
    let limit = Duration::from_millis(200);
    for kind in [PairKind::Tcp, PairKind::Unix, PairKind::Socketpair] {
        for silent in [true, false] {
            let attempt = Attempt::new(&event_loop, kind, limit);
            let whom = whom(&attempt.peer);
            if silent {
                clock.advance(limit);
            } else {
                attempt.peer.half_close();
            }
            let text = attempt.fails(&event_loop).0.to_string();
            assert!(text.contains("handshake") && text.contains(&whom), "{text:?} does not say {whom:?}");
        }
    }
    let attempt = Attempt::new(&event_loop, PairKind::Tcp, limit);
    let whom = whom(&attempt.peer);
    attempt.peer.reset();
    let error = event_loop.fails(attempt.task);
    assert_eq!(io_kind(&error), Some(IoKind::ConnectionReset));
    assert!(error.to_string().contains(&whom), "{error} does not say {whom:?}");
    // At a server it is the log that hears of it.
    for silent in [true, false] {
        let watched = Watched::with_limit(&event_loop, &certificates::server(), limit);
        let (address, records) = logs(|| {
            let socket = TcpStream::connect(watched.address).unwrap();
            let address = socket.local_addr().unwrap();
            event_loop.until(|| watched.alive.get() == 1);
            event_loop.ticks(3);
            if silent {
                clock.advance(limit);
            } else {
                socket.shutdown(std::net::Shutdown::Write).unwrap();
            }
            read_to_the_end(&event_loop, socket);
            event_loop.until(|| watched.alive.get() == 0);
            address
        });
        let end = format!(" [{address}]");
        let debug = records.iter().filter(|(level, text)| *level == Level::DEBUG && text.contains(&end));
        assert_eq!(debug.count(), 1, "{records:?}");
        watched.serves_on_and_ends(&event_loop, &certificates::client());
    }
}

/// TLS-010
fn alerts_have_words(on: On) {
    let event_loop = on.event_loop();
    let alerts = [
        (40, "nothing in common, such as a cipher suite (alert HandshakeFailure)"),
        (42, "it does not accept our certificate (alert BadCertificate)"),
        (48, "it does not trust who issued our certificate (alert UnknownCA)"),
        (49, "it does not accept our certificate (alert AccessDenied)"),
        (70, "no version of TLS in common (alert ProtocolVersion)"),
        (80, "alert InternalError"),
        (112, "it has no certificate for this name (alert UnrecognisedName)"),
        (116, "it demands a certificate of ours (alert CertificateRequired)"),
        (120, "no protocol in common, of ALPN (alert NoApplicationProtocol)"),
    ];
    for (number, words) in alerts {
        let attempt = Attempt::new(&event_loop, PairKind::Socketpair, Duration::from_secs(30));
        attempt.peer.send(&[0x15, 3, 3, 0, 2, 2, number]);
        let (error, _) = attempt.fails(&event_loop);
        assert_eq!(error.kind(), ErrorKind::Ssl);
        let text = format!("TLS handshake failed: the other side gave up: {words} [localhost]");
        assert_eq!(error.to_string(), text);
    }
}
