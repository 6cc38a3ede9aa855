//! What these tests show: a transport that is used by a handle from before start_tls, or from where nobody expects it.

use std::{
    cell::RefCell,
    future::{Future as StdFuture, IntoFuture},
    os::fd::OwnedFd,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use asyncio::{
    ALPN_PROTOCOL, CIPHER, CLOSE_NOTIFY, ErrorKind, PEERCERT, PEERCERT_CHAIN, Result, SERVER_HOSTNAME, SESSION_REUSED,
    SSL_VERSION, SSLCONTEXT, SslContext, TlsVersion, Transport,
    rustls::{
        ClientConfig, DigitallySignedStruct, Error as RustlsError, KeyLog, NamedGroup, RootCertStore, SignatureScheme,
        client::{
            ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue, WebPkiServerVerifier,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    },
};
use futures::FutureExt;

use crate::{
    certificates,
    endings::{End, FORMS, Form, opposite},
    peers::{Side, Way, ways},
    start_tls::{context, start_tls},
    support::{
        loops::{On, TestLoop},
        transports::{BufferedRecorder, Log, Pair, Recorder, Told::*},
    },
};

on_each_selector! {
    a_paused_transport_is_not_resumed_by_an_old_one
    an_old_transport_pauses_and_resumes_the_handshake
    an_old_transport_pauses_and_resumes_what_is_encrypted
    an_old_transport_that_is_paused_and_resumed_does_not_disturb_the_end
    an_old_transport_takes_no_protocol_in_the_handshake
    an_old_transport_takes_no_protocol_after_the_handshake
    whoever_stores_tickets_may_ask_for_the_transport
    whoever_checks_certificates_may_ask_for_what_is_below
    an_upgrade_may_begin_in_connection_made
}

/// Connections whose end is reached by old transports, too.
fn with_old_ones() -> impl Iterator<Item = (Way, Form)> {
    ways().into_iter().flat_map(|way| FORMS.into_iter().filter(|form| form.has_old_ones()).map(move |form| (way, form)))
}

impl End {
    fn old_ones(&self) -> &[Transport] {
        &self.layers[..self.layers.len() - 1]
    }
}

/// Closes it from our side, which must go as if nothing had happened.
#[track_caller]
fn close_in_order(event_loop: &TestLoop, ours: &End, other: &End) {
    ours.transport().close();
    event_loop.until(|| ours.log.lost() && other.log.lost());
    for end in [ours, other] {
        let told = end.log.items();
        assert_eq!(told[told.len() - 2..], [Eof, Lost(None)]);
    }
}

fn a_paused_transport_is_not_resumed_by_an_old_one(on: On) {
    let event_loop = on.event_loop();
    for (way, form) in with_old_ones() {
        let [ours, other] = form.connect(&event_loop, way);
        let transport = ours.transport();
        assert_eq!(ours.log.take(), [Made]);
        for paused_twice in [false, true] {
            for old in ours.old_ones() {
                if paused_twice {
                    // By a protocol that still has the old one.
                    old.pause_reading();
                }
                transport.pause_reading();
                other.transport().write(b"secret");
                old.resume_reading();
                event_loop.sleeps();
                assert_eq!(ours.log.take(), [], "{way:?}, {form:?}");
                assert!(!transport.is_reading());
                let before = ours.log.received_len();
                transport.resume_reading();
                event_loop.until(|| ours.log.received_len() == before + 6);
                assert_eq!(ours.log.take(), [Data(6)], "{way:?}, {form:?}");
                event_loop.sleeps();
            }
        }
        assert!(ours.log.received().chunks(6).all(|received| received == b"secret"));
        close_in_order(&event_loop, &ours, &other);
    }
}

fn an_old_transport_pauses_and_resumes_the_handshake(on: On) {
    let event_loop = on.event_loop();
    for (way, form) in with_old_ones() {
        let [mut ours, mut other] = form.connect(&event_loop, way);
        // One more.
        let tasks = [(way, &ours), (opposite(way), &other)]
            .map(|(way, end)| event_loop.create_task(start_tls(&event_loop, way, end.transport()).into_future()));
        while !tasks.iter().all(|task| task.done()) {
            for old in &ours.layers {
                old.pause_reading();
                old.pause_reading();
            }
            event_loop.ticks(2);
            for old in &ours.layers {
                old.resume_reading();
                old.resume_reading();
            }
            event_loop.run_once(Duration::from_millis(2)).unwrap();
        }
        let [one, another] = tasks.map(|task| event_loop.run(task));
        ours.layers.push(one);
        other.layers.push(another);
        other.transport().write(b"secret");
        event_loop.until(|| ours.log.received() == b"secret");
        assert_eq!(ours.log.items(), [Made, Data(6)], "{way:?}, {form:?}");
        close_in_order(&event_loop, &ours, &other);
    }
}

fn an_old_transport_pauses_and_resumes_what_is_encrypted(on: On) {
    let event_loop = on.event_loop();
    for (way, form) in with_old_ones() {
        let [ours, other] = form.connect(&event_loop, way);
        let transport = ours.transport();
        for (index, old) in ours.old_ones().iter().enumerate() {
            old.resume_reading();
            event_loop.sleeps();
            old.pause_reading();
            other.transport().write(b"secret");
            event_loop.sleeps();
            assert!(transport.is_reading(), "nobody has paused this one");
            old.resume_reading();
            event_loop.until(|| ours.log.received_len() == 6 * (index + 1));
        }
        assert_eq!(ours.log.joined(), [Made, Data(6 * ours.old_ones().len())], "{way:?}, {form:?}");
        close_in_order(&event_loop, &ours, &other);
    }
}

fn an_old_transport_that_is_paused_and_resumed_does_not_disturb_the_end(on: On) {
    let event_loop = on.event_loop();
    for (way, form) in with_old_ones() {
        for aborts in [false, true] {
            let [ours, other] = form.connect(&event_loop, way);
            let call_all = || {
                for old in ours.old_ones() {
                    old.resume_reading();
                    old.pause_reading();
                    old.resume_reading();
                }
            };
            if aborts {
                ours.transport().abort();
            } else {
                ours.transport().close();
            }
            event_loop.until(|| {
                call_all();
                ours.log.lost() && other.log.lost()
            });
            call_all();
            event_loop.sleeps();
            let told = if aborts { vec![Made, Lost(None)] } else { vec![Made, Eof, Lost(None)] };
            assert_eq!(ours.log.items(), told, "{way:?}, {form:?}");
        }
    }
}

/// Sets another protocol, of either kind, which must be reported and change nothing.
fn assert_takes_no_protocol(event_loop: &TestLoop, old: &Transport) {
    let log = Log::default();
    let one = Rc::new(RefCell::new(Recorder::new(&log).with_transport(old)));
    let another = Rc::new(RefCell::new(BufferedRecorder::new(Recorder::new(&log).with_transport(old), 10)));
    assert_eq!(event_loop.reports.len(), 0);
    old.set_protocol(one.clone());
    let line = line!() - 1;
    old.set_protocol(another.clone());
    let reports = event_loop.reports.take();
    assert_eq!(reports.len(), 2);
    for report in &reports {
        let error = report.exception.as_ref().unwrap();
        assert_eq!(error.kind(), ErrorKind::Runtime);
        assert!(report.message.contains("set_protocol") && error.to_string().contains("start_tls"), "{report:?}");
        assert!(report.extra["transport"].contains("fd="), "{report:?}");
    }
    assert_eq!(reports[0].source_location.unwrap().line(), line);
    // Nobody holds them, so nobody will ever call them.
    assert_eq!((Rc::strong_count(&one), Rc::strong_count(&another)), (1, 1));
    assert!(old.get_protocol::<Recorder>().is_none() && old.get_protocol::<BufferedRecorder>().is_none());
    assert_eq!(log.items(), []);
}

fn an_old_transport_takes_no_protocol_in_the_handshake(on: On) {
    let limit = Duration::from_millis(200);
    for way in ways() {
        for form in FORMS.into_iter().chain([PLAIN]) {
            // The handshake takes too long.
            let (event_loop, clock) = on.virtual_loop();
            let [ours, other] = form.connect(&event_loop, way);
            let starting = start_tls(&event_loop, way, ours.transport()).ssl_handshake_timeout(limit);
            let task = event_loop.create_task(starting.into_future());
            if way.ours == Side::Client {
                // Nobody is to take its first message for anything else.
                other.transport().pause_reading();
            }
            event_loop.ticks(3);
            ours.layers.iter().for_each(|old| assert_takes_no_protocol(&event_loop, old));
            clock.advance(limit - Duration::from_millis(1));
            event_loop.ticks(3);
            assert!(!task.done() && !ours.log.lost());
            clock.advance(Duration::from_millis(1));
            event_loop.until(|| task.done());
            let error = event_loop.fails(task);
            assert_eq!(error.io_error().unwrap().kind(), std::io::ErrorKind::ConnectionAborted, "{error}");
            event_loop.until(|| ours.log.lost());
            assert_eq!(ours.log.items(), [Made, Lost(Some(ErrorKind::Io))], "{way:?}, {form:?}");
            assert!(ours.layers.iter().all(|old| old.is_closing() && old.with_fd(|_| ()).is_none()));
            other.transport().abort();
            event_loop.until(|| other.log.lost());
            assert!(event_loop.has_no_timer());

            // It does not.
            let event_loop = on.event_loop();
            let [mut ours, mut other] = form.connect(&event_loop, way);
            let task = event_loop.create_task(start_tls(&event_loop, way, ours.transport()).into_future());
            if way.ours == Side::Client {
                other.transport().pause_reading();
            }
            event_loop.ticks(3);
            ours.layers.iter().for_each(|old| assert_takes_no_protocol(&event_loop, old));
            other.layers.push(event_loop.run(start_tls(&event_loop, opposite(way), other.transport())));
            ours.layers.push(event_loop.run(task));
            other.transport().write(b"secret");
            event_loop.until(|| ours.log.received() == b"secret");
            close_in_order(&event_loop, &ours, &other);
        }
    }
}

/// No layer at all.
const PLAIN: Form = Form::in_clear();

fn an_old_transport_takes_no_protocol_after_the_handshake(on: On) {
    let event_loop = on.event_loop();
    for (way, form) in with_old_ones() {
        let [ours, other] = form.connect(&event_loop, way);
        ours.old_ones().iter().for_each(|old| assert_takes_no_protocol(&event_loop, old));
        other.transport().write(b"secret");
        event_loop.until(|| ours.log.received() == b"secret");
        assert!(ours.transport().get_protocol::<Recorder>().is_some());
        close_in_order(&event_loop, &ours, &other);
        // Now it is silent, as every other call.
        let late = Rc::new(RefCell::new(Recorder::new(&Log::default())));
        ours.layers.iter().for_each(|layer| layer.set_protocol(late.clone()));
        assert_eq!((event_loop.reports.len(), Rc::strong_count(&late)), (0, 1));
    }
}

thread_local! {
    /// What the user's own parts of a configuration reach.
    static REACHED: RefCell<Vec<Transport>> = const { RefCell::new(Vec::new()) };
    /// What they saw of it, for each time.
    static SEEN: RefCell<Vec<Vec<Info>>> = const { RefCell::new(Vec::new()) };
}

/// What a transport tells of TLS, and whether it does.
#[derive(Clone, Debug, PartialEq)]
struct Info {
    of_session: [bool; 7],
    context: bool,
    close_notify: Option<bool>,
}

const NOTHING: [bool; 7] = [false; 7];

fn ask(transport: &Transport) -> Info {
    assert!(!format!("{transport:?}").is_empty() && !transport.is_closing());
    Info {
        of_session: [
            transport.get_extra_info(PEERCERT).is_some(),
            transport.get_extra_info(PEERCERT_CHAIN).is_some(),
            transport.get_extra_info(CIPHER).is_some(),
            transport.get_extra_info(SSL_VERSION).is_some(),
            transport.get_extra_info(ALPN_PROTOCOL).is_some(),
            transport.get_extra_info(SERVER_HOSTNAME).is_some(),
            transport.get_extra_info(SESSION_REUSED).is_some(),
        ],
        context: transport.get_extra_info(SSLCONTEXT).is_some(),
        close_notify: transport.get_extra_info(CLOSE_NOTIFY),
    }
}

/// A user's own part of a configuration, which asks for the transport whenever it is called.
#[derive(Debug)]
struct Asks(Arc<WebPkiServerVerifier>);

impl Asks {
    fn now(&self) {
        let seen = REACHED.with_borrow(|reached| reached.iter().map(ask).collect());
        SEEN.with_borrow_mut(|all| all.push(seen));
    }

    fn config() -> ClientConfig {
        let mut config =
            (**certificates::client_builder().set_alpn_protocols(["h2"]).build().unwrap().client_config().unwrap())
                .clone();
        let mut roots = RootCertStore::empty();
        let authority = &certificates::authority().pem;
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), config.crypto_provider().clone());
        let asks = Arc::new(Asks(verifier.build().unwrap()));
        config.dangerous().set_certificate_verifier(asks.clone());
        config.key_log = asks.clone();
        config.resumption = Resumption::store(asks);
        config
    }
}

impl KeyLog for Asks {
    fn log(&self, _label: &str, _client_random: &[u8], _secret: &[u8]) {
        self.now();
    }
}

impl ServerCertVerifier for Asks {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, RustlsError> {
        self.now();
        self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, RustlsError> {
        self.now();
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, RustlsError> {
        self.now();
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

impl ClientSessionStore for Asks {
    fn set_kx_hint(&self, _server_name: ServerName<'static>, _group: NamedGroup) {
        self.now();
    }

    fn kx_hint(&self, _server_name: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _server_name: ServerName<'static>, _value: Tls12ClientSessionValue) {
        self.now();
    }

    fn tls12_session(&self, _server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _server_name: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _server_name: ServerName<'static>, _value: Tls13ClientSessionValue) {
        self.now();
    }

    fn take_tls13_ticket(&self, _server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        None
    }
}

/// Tickets come when the client has its connection already: the store is called from inside of its session.
fn whoever_stores_tickets_may_ask_for_the_transport(on: On) {
    let event_loop = on.event_loop();
    for way in ways().into_iter().filter(|way| way.ours == Side::Client && way.version == TlsVersion::V1_3) {
        let (Pair { ours, peer }, log) = (way.kind.pair(), Log::default());
        let mut peer = way.peer(peer);
        let context = SslContext::from(Arc::new(Asks::config()));
        let recorder = Recorder::new(&log).on_made(|transport| {
            SEEN.take();
            REACHED.with_borrow_mut(|reached| reached.push(transport.clone()));
        });
        let opening = event_loop.create_connection(move || recorder, ()).sock(ours).ssl(&context);
        let task = event_loop.create_task(opening.server_hostname("localhost").into_future());
        event_loop.until(|| {
            peer.turn();
            task.done() && !peer.connection.is_handshaking()
        });
        let (transport, _) = event_loop.run(task);
        // Behind the tickets.
        peer.send(b"hello");
        event_loop.until(|| log.received() == b"hello");
        let seen = SEEN.take();
        assert!(!seen.is_empty(), "no ticket was stored");
        let inside = Info { of_session: NOTHING, context: true, close_notify: Some(false) };
        assert!(seen.iter().all(|seen| *seen == [inside.clone()]), "{seen:?}");
        // All but ALPN, which the other side does not know.
        let of_session = [true, true, true, true, false, true, true];
        assert_eq!(ask(&transport), Info { of_session, ..inside });
        REACHED.take();
        transport.abort();
        event_loop.until(|| log.lost());
        assert_eq!(event_loop.reports.len(), 0);
    }
}

fn whoever_checks_certificates_may_ask_for_what_is_below(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for form in FORMS.into_iter().chain([PLAIN]) {
            let [mut ours, mut other] = form.connect(&event_loop, way);
            REACHED.set(ours.layers.clone());
            let before: Vec<Info> = ours.layers.iter().map(ask).collect();
            let context = SslContext::from(Arc::new(Asks::config()));
            let starting = event_loop.start_tls(ours.transport(), &context).server_hostname("localhost");
            let task = event_loop.create_task(starting.into_future());
            let accepting = event_loop.start_tls(other.transport(), &certificates::server());
            let accepting = event_loop.create_task(accepting.into_future());
            event_loop.until(|| task.done() && accepting.done());
            ours.layers.push(event_loop.run(task));
            other.layers.push(event_loop.run(accepting));
            REACHED.take();
            let seen = SEEN.take();
            // A key exchange, a certificate, its signature, and secrets.
            assert!(seen.len() >= 4, "{seen:?}");
            assert!(seen.iter().all(|seen| *seen == before), "{seen:?}");
            if !form.has_tls() {
                assert_eq!(before[0], Info { of_session: NOTHING, context: false, close_notify: None });
            }
            close_in_order(&event_loop, &ours, &other);
        }
    }
}

type Starting = Pin<Box<dyn StdFuture<Output = Result<Transport>>>>;

/// As long as connection_made runs, the protocol is borrowed.
fn an_upgrade_may_begin_in_connection_made(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for encrypted_before in [false, true] {
            let place: Rc<RefCell<Option<Starting>>> = Rc::default();
            let (log, other_log) = (Log::default(), Log::default());
            let recorder = Recorder::new(&log).on_made({
                let (event_loop, place) = (event_loop.event_loop.clone(), place.clone());
                move |transport| {
                    let starting = event_loop.start_tls(transport, &context(way));
                    let client = way.ours == Side::Client;
                    let starting = if client { starting.server_hostname("localhost") } else { starting };
                    let mut starting: Starting = Box::pin(starting.into_future());
                    assert!((&mut starting).now_or_never().is_none());
                    *place.borrow_mut() = Some(starting);
                }
            });
            // What comes next is for the handshake.
            let other_recorder = Recorder::new(&other_log).on_made(|transport| transport.pause_reading());
            let Pair { ours, peer } = way.kind.pair();
            let open = |way: Way, fd: OwnedFd, recorder: Recorder| {
                event_loop.create_task(match encrypted_before {
                    true => way.open(&event_loop, fd, recorder),
                    false => Box::pin(event_loop.create_connection(move || recorder, ()).sock(fd).into_future()),
                })
            };
            let tasks = [open(way, ours, recorder), open(opposite(way), peer.0.into(), other_recorder)];
            let [(old, _), (other_old, _)] = tasks.map(|task| event_loop.run(task));
            let task = event_loop.create_task(place.take().unwrap());
            let other = event_loop.run(start_tls(&event_loop, opposite(way), &other_old));
            let transport = event_loop.run(task);
            other.write(b"secret");
            event_loop.until(|| log.received() == b"secret");
            assert_eq!(log.items(), [Made, Data(6)], "{way:?}");
            let ours = End { layers: vec![old, transport], log };
            close_in_order(&event_loop, &ours, &End { layers: vec![other_old, other], log: other_log });
        }
    }
}
