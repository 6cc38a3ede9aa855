//! What these tests show: connections that end at an awkward moment, and what is kept until then.

use std::{
    cell::RefCell,
    fmt,
    future::IntoFuture,
    io::{self, Read, Write},
    net::TcpStream,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

use asyncio::{
    Error, ErrorKind, Server, Task, TlsVersion, Transport,
    rustls::{
        ClientConnection, Connection, ContentType, KeyLog, ProtocolVersion, ServerConnection,
        crypto::{
            cipher::{OutboundChunks, OutboundPlainMessage},
            tls13::{OkmBlock, expand},
        },
        pki_types::ServerName,
    },
};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::{
    certificates,
    peers::{Driven, Ends, Side, Way, ways},
    start_tls::{context, start_tls},
    support::{
        loops::{On, TestLoop},
        transports::{Log, Pair, Peer, Recorder, Told, Told::*, until},
    },
};

on_each_selector! {
    a_message_in_too_many_pieces_ends_the_handshake
    a_message_in_too_many_pieces_ends_both_layers
    a_message_in_too_many_pieces_ends_what_was_established
    a_hello_may_come_in_pieces
    the_descriptor_is_kept_until_a_borrowed_protocol_was_told
    a_server_waits_until_a_borrowed_protocol_was_told
    a_loop_that_is_closed_lets_a_borrowed_protocol_go
    a_limit_that_has_passed_with_the_last_message_ends_nothing
    a_close_alert_ends_a_handshake_at_once
    a_close_alert_ends_an_encrypted_handshake_at_once
    a_close_alert_ends_the_handshake_of_a_server_at_once
    a_close_alert_ends_what_was_begun_in_clear_at_once
}

/// In order, each of the layers of an end, the lowest first.
pub(crate) struct End {
    pub(crate) layers: Vec<Transport>,
    pub(crate) log: Log,
}

impl End {
    /// What its protocol uses.
    pub(crate) fn transport(&self) -> &Transport {
        self.layers.last().unwrap()
    }
}

/// How many layers of TLS a connection has, and whether the first of them is there from its beginning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    from_beginning: bool,
    upgrades: usize,
}

pub(crate) const FORMS: [Form; 4] = [
    Form { from_beginning: true, upgrades: 0 },
    Form { from_beginning: false, upgrades: 1 },
    Form { from_beginning: true, upgrades: 1 },
    Form { from_beginning: false, upgrades: 3 },
];

pub(crate) fn opposite(way: Way) -> Way {
    Way { ours: if way.ours == Side::Client { Side::Server } else { Side::Client }, ..way }
}

impl Form {
    /// No TLS at all.
    pub(crate) const fn in_clear() -> Form {
        Form { from_beginning: false, upgrades: 0 }
    }

    pub(crate) fn has_tls(self) -> bool {
        self.from_beginning || self.upgrades > 0
    }

    /// Whether there is a transport below the one that a protocol uses.
    pub(crate) fn has_old_ones(self) -> bool {
        self.upgrades > 0
    }

    /// Connects two ends of ours: the side that [`ours`](Way::ours) names, and the other.
    pub(crate) fn connect(self, event_loop: &TestLoop, way: Way) -> [End; 2] {
        let mut ends = if self.from_beginning {
            let ends = way.connect_both(event_loop, |one| one, |other| other);
            ends.map(|(transport, log)| End { layers: vec![transport], log })
        } else {
            let Pair { ours, peer } = way.kind.pair();
            [ours, peer.0.into()].map(|fd| {
                let log = Log::default();
                let opening = event_loop.create_connection(|| Recorder::new(&log), ()).sock(fd);
                End { layers: vec![event_loop.run(opening).0], log }
            })
        };
        let [one, other] = &mut ends;
        self.upgrade(event_loop, way, one, other);
        ends
    }

    fn upgrade(self, event_loop: &TestLoop, way: Way, one: &mut End, other: &mut End) {
        for _ in 0..self.upgrades {
            let tasks = [(way, &*one), (opposite(way), &*other)]
                .map(|(way, end)| event_loop.create_task(start_tls(event_loop, way, end.transport()).into_future()));
            event_loop.until(|| tasks.iter().all(Task::done));
            let [first, second] = tasks.map(|task| event_loop.run(task));
            one.layers.push(first);
            other.layers.push(second);
        }
    }
}

/// Opens our side of a connection, with a limit for its handshake.
fn open(event_loop: &TestLoop, way: Way, ours: OwnedFd, recorder: Recorder, limit: Duration) -> Task<Transport> {
    let context = context(way);
    match way.ours {
        Side::Client => {
            let opening = event_loop.create_connection(move || recorder, ()).sock(ours).ssl(&context);
            let opening = opening.server_hostname("localhost").ssl_handshake_timeout(limit).into_future();
            event_loop.create_task(async move { Ok(opening.await?.0) })
        }
        Side::Server => {
            let opening = event_loop.connect_accepted_socket(move || recorder, ours).ssl(&context);
            let opening = opening.ssl_handshake_timeout(limit).into_future();
            event_loop.create_task(async move { Ok(opening.await?.0) })
        }
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// Waits, while no loop runs, until there is something to read.
#[track_caller]
fn until_readable(fd: BorrowedFd<'_>) {
    let limit = Timespec { tv_sec: 40, tv_nsec: 0 };
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut fds, Some(&limit)).unwrap(), 1, "nothing came");
}

impl Peer {
    /// Sends what the system takes, and nothing to who has gone.
    fn try_send(&self, data: &[u8]) -> usize {
        (&self.0).write(data).unwrap_or(0)
    }

    /// Waits for the end, of whatever kind.
    #[track_caller]
    fn until_ended(&self, event_loop: &TestLoop) {
        let mut chunk = vec![0; 1 << 16];
        until(event_loop, || match (&self.0).read(&mut chunk) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        });
    }
}

/// The bytes of a message of the handshake that is as long as they may be.
fn message(kind: u8) -> impl Iterator<Item = u8> {
    [kind, 0, 0xff, 0xf0].into_iter().chain(std::iter::repeat(0))
}

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const KEY_UPDATE: u8 = 24;

/// What a side is sent first.
fn first_message(ours: Side) -> u8 {
    if ours == Side::Client { SERVER_HELLO } else { CLIENT_HELLO }
}

/// The beginning of such a message, of which each byte comes in a record of its own.
fn in_pieces(kind: u8, count: usize) -> Vec<u8> {
    message(kind).take(count).flat_map(|byte| [22, 3, 3, 0, 1, byte]).collect()
}

/// How much of it is not too much yet, in records, and how much surely is.
const FEW: usize = 10_000;
const MANY: usize = 60_000;

#[track_caller]
fn assert_too_many(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Ssl, "{error}");
    assert!(error.to_string().contains("too many pieces"), "{error}");
}

/// Waits for a task, while the other side goes on sending.
#[track_caller]
fn until_done(event_loop: &TestLoop, task: &Task<Transport>, mut send: impl FnMut()) {
    let mut turns = 0;
    event_loop.until(|| {
        turns += 1;
        assert!(turns < 2_000, "the loop spins");
        if !task.done() {
            send();
        }
        task.done()
    });
}

fn a_message_in_too_many_pieces_ends_the_handshake(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let (Pair { ours, peer }, log) = (way.kind.pair(), Log::default());
        let task = open(&event_loop, way, ours, Recorder::new(&log), MINUTE);
        event_loop.ticks(2);
        peer.drain();
        let pieces = in_pieces(first_message(way.ours), MANY);
        let few = FEW * 6;
        let mut sent = 0;
        event_loop.until(|| {
            sent += peer.try_send(&pieces[sent..few]);
            sent == few
        });
        event_loop.sleeps();
        assert!(!task.done(), "it may still become a message");
        until_done(&event_loop, &task, || {
            let end = pieces.len().min(sent + 6_000);
            sent += peer.try_send(&pieces[sent..end]);
        });
        let error = event_loop.fails(task);
        assert_too_many(&error);
        assert!(error.to_string().starts_with("TLS handshake failed"), "{error}");
        assert!(sent < pieces.len(), "{way:?}: all of it was taken");
        peer.until_ended(&event_loop);
        assert_eq!(log.items(), [], "{way:?}");
        assert!(event_loop.has_no_timer());
        event_loop.sleeps();
    }
}

fn a_message_in_too_many_pieces_ends_both_layers(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for ours in [Side::Client, Side::Server] {
            let Ends { transport, log, mut peer, .. } = way.connect(&event_loop);
            let starting = start_tls(&event_loop, Way { ours, ..way }, &transport).ssl_handshake_timeout(MINUTE);
            let task = event_loop.create_task(starting.into_future());
            event_loop.ticks(3);
            let pieces = in_pieces(first_message(ours), MANY);
            let (few, rest) = pieces.split_at(FEW * 6);
            peer.send(few);
            event_loop.until(|| {
                peer.turn();
                peer.has_sent()
            });
            event_loop.sleeps();
            assert!(!task.done());
            peer.send(rest);
            until_done(&event_loop, &task, || peer.turn());
            assert_too_many(&event_loop.fails(task));
            event_loop.until(|| {
                peer.turn();
                log.lost() && peer.ended
            });
            assert_eq!(log.items(), [Made, Lost(Some(ErrorKind::Ssl))], "{way:?}, {ours:?}");
            assert_too_many(&log.error().unwrap());
            assert!(transport.is_closing() && event_loop.has_no_timer());
            event_loop.sleeps();
        }
    }
}

/// What was logged of the secrets of a connection.
#[derive(Default)]
struct Secrets(Mutex<Vec<(String, Vec<u8>)>>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

impl KeyLog for Secrets {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        self.0.lock().unwrap().push((label.to_owned(), secret.to_vec()));
    }
}

impl Secrets {
    /// The other side of a connection, whose secrets are logged here.
    fn peer(self: &Arc<Self>, way: Way, socket: Peer) -> Driven {
        let context = context(opposite(way));
        let connection = match way.ours {
            Side::Client => {
                let mut config = (**context.server_config().unwrap()).clone();
                config.key_log = self.clone();
                ServerConnection::new(Arc::new(config)).unwrap().into()
            }
            Side::Server => {
                let mut config = (**context.client_config().unwrap()).clone();
                config.key_log = self.clone();
                ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap().into()
            }
        };
        Driven::new(socket, connection)
    }

    /// Encrypts records for our side, the first ones that go with this secret of TLS 1.3.
    fn seal<'a>(
        &self,
        connection: &Connection,
        label: &str,
        kind: ContentType,
        payloads: impl IntoIterator<Item = &'a [u8]>,
    ) -> Vec<u8> {
        let secrets = self.0.lock().unwrap();
        let (_, secret) = secrets.iter().find(|(name, _)| name == label).expect("it is not that far yet");
        let suite = connection.negotiated_cipher_suite().unwrap().tls13().unwrap();
        let expander = suite.hkdf_provider.expander_for_okm(&OkmBlock::new(secret));
        let key: [u8; 32] = expand(&*expander, &[&[0, 32, 9], b"tls13 key", &[0]]);
        let iv: [u8; 12] = expand(&*expander, &[&[0, 12, 8], b"tls13 iv", &[0]]);
        let mut encrypter = suite.aead_alg.encrypter(key.into(), iv.into());
        let mut sealed = Vec::new();
        for (number, payload) in (0..).zip(payloads) {
            let payload = OutboundChunks::Single(payload);
            let message = OutboundPlainMessage { typ: kind, version: ProtocolVersion::TLSv1_3, payload };
            sealed.extend(encrypter.encrypt(message, number).unwrap().encode());
        }
        sealed
    }
}

/// Our side is the server: a client has sent nothing with its last keys when it begins.
fn a_message_in_too_many_pieces_ends_what_was_established(on: On) {
    let event_loop = on.event_loop();
    for way in ways().into_iter().filter(|way| way.ours == Side::Server && way.version == TlsVersion::V1_3) {
        let (Pair { ours, peer }, log, secrets) = (way.kind.pair(), Log::default(), Arc::new(Secrets::default()));
        let mut peer = secrets.peer(way, peer);
        let task = open(&event_loop, way, ours, Recorder::new(&log), MINUTE);
        event_loop.until(|| {
            peer.turn();
            task.done() && !peer.connection.is_handshaking()
        });
        let transport = event_loop.run(task);
        let bytes: Vec<u8> = message(KEY_UPDATE).take(20_000).collect();
        let label = "CLIENT_TRAFFIC_SECRET_0";
        let sealed = secrets.seal(&peer.connection, label, ContentType::Handshake, bytes.chunks(1));
        // Each has 23 bytes.
        let (few, rest) = sealed.split_at(23 * 2_000);
        peer.send_sealed(few);
        event_loop.until(|| {
            peer.turn();
            peer.has_sent()
        });
        event_loop.sleeps();
        // The other direction does not wait for it.
        transport.write(b"still there");
        event_loop.until(|| {
            peer.turn();
            peer.received == b"still there"
        });
        peer.send_sealed(rest);
        let mut turns = 0;
        event_loop.until(|| {
            turns += 1;
            assert!(turns < 2_000, "the loop spins");
            peer.turn();
            log.lost() && peer.ended
        });
        assert_eq!(log.items(), [Made, Lost(Some(ErrorKind::Ssl))], "{way:?}");
        assert_too_many(&log.error().unwrap());
        assert!(event_loop.has_no_timer());
        event_loop.sleeps();
    }
}

/// As long as it is not endless.
fn a_hello_may_come_in_pieces(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let (Pair { ours, peer }, log) = (way.kind.pair(), Log::default());
        let mut peer = way.peer(peer);
        let task = open(&event_loop, way, ours, Recorder::new(&log), MINUTE);
        event_loop.until(|| {
            peer.receive(usize::MAX);
            peer.connection.wants_write()
        });
        let sealed = peer.seal(b"");
        let (hello, rest) = sealed.split_at(5 + usize::from(u16::from_be_bytes([sealed[3], sealed[4]])));
        let pieces: Vec<u8> = hello[5..].iter().flat_map(|byte| [22, 3, 3, 0, 1, *byte]).collect();
        peer.send_sealed(&pieces);
        peer.send_sealed(rest);
        event_loop.until(|| {
            peer.turn();
            task.done() && !peer.connection.is_handshaking()
        });
        let transport = event_loop.run(task);
        peer.send(b"hello");
        event_loop.until(|| log.received() == b"hello");
        transport.abort();
        event_loop.until(|| log.lost());
    }
}

fn is_open(transport: &Transport) -> bool {
    transport.with_fd(|_| ()).is_some()
}

/// How our side ends a connection, and what its protocol is told then. The other side answers.
const ENDS: [(fn(&Transport), &[Told]); 2] =
    [(|transport| transport.abort(), &[Lost(None)]), (|transport| transport.close(), &[Eof, Lost(None)])];

fn the_descriptor_is_kept_until_a_borrowed_protocol_was_told(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for form in FORMS {
            for (end, told) in ENDS {
                let [ours, other] = form.connect(&event_loop, way);
                let protocol = ours.transport().get_protocol::<Recorder>().unwrap();
                let borrowed = protocol.borrow_mut();
                end(ours.transport());
                event_loop.sleeps();
                assert_eq!(ours.log.items(), [Made], "{way:?}, {form:?}");
                assert!(ours.layers.iter().all(|layer| is_open(layer) && layer.is_closing()), "{way:?}, {form:?}");
                drop(borrowed);
                event_loop.until(|| ours.log.lost());
                assert!(!ours.layers.iter().any(is_open), "{way:?}, {form:?}");
                event_loop.until(|| other.log.lost());
                event_loop.ticks(2);
                assert_eq!(ours.log.items()[1..], *told, "{way:?}, {form:?}");
                assert_eq!(Rc::strong_count(&protocol), 1);
                assert!(ours.transport().get_protocol::<Recorder>().is_none());
            }
        }
    }
}

fn waiting(event_loop: &TestLoop, server: &Server) -> Task<()> {
    let server = server.clone();
    event_loop.create_task(async move { server.wait_closed().await })
}

fn a_server_waits_until_a_borrowed_protocol_was_told(on: On) {
    let event_loop = on.event_loop();
    for form in FORMS {
        for (end, told) in ENDS {
            let [ours_log, other_log] = [Log::default(), Log::default()];
            let made: Rc<RefCell<Option<Transport>>> = Rc::default();
            let (log, place) = (ours_log.clone(), made.clone());
            let factory = move || {
                let place = place.clone();
                Recorder::new(&log).on_made(move |transport| *place.borrow_mut() = Some(transport.clone()))
            };
            let (mut creating, client) = (event_loop.create_server(factory, ("127.0.0.1", 0)), certificates::client());
            if form.from_beginning {
                creating = creating.ssl(&certificates::server());
            }
            let server = event_loop.run(creating);
            let address = server.sockets()[0].address().as_inet().unwrap();
            let mut connecting = event_loop.create_connection(|| Recorder::new(&other_log), address);
            if form.from_beginning {
                connecting = connecting.ssl(&client).server_hostname("localhost");
            }
            let (transport, _) = event_loop.run(connecting);
            event_loop.until(|| made.borrow().is_some());
            let mut ours = End { layers: vec![made.take().unwrap()], log: ours_log };
            let mut other = End { layers: vec![transport], log: other_log };
            let way = ways().into_iter().find(|way| way.ours == Side::Server).unwrap();
            form.upgrade(&event_loop, way, &mut ours, &mut other);

            let protocol = ours.transport().get_protocol::<Recorder>().unwrap();
            let wait = waiting(&event_loop, &server);
            server.close();
            let borrowed = protocol.borrow_mut();
            end(ours.transport());
            event_loop.sleeps();
            assert!(!wait.done(), "{form:?}");
            assert!(is_open(ours.transport()));
            drop(borrowed);
            event_loop.until(|| {
                let lost = ours.log.lost();
                assert!(lost || !wait.done(), "{form:?}");
                wait.done()
            });
            event_loop.run(wait);
            assert_eq!(ours.log.items()[1..], *told, "{form:?}");
            event_loop.until(|| other.log.lost());
        }
    }
}

fn a_loop_that_is_closed_lets_a_borrowed_protocol_go(on: On) {
    for way in ways() {
        for form in FORMS {
            for (end, _) in ENDS {
                let event_loop = on.event_loop();
                let [ours, _other] = form.connect(&event_loop, way);
                let protocol = ours.transport().get_protocol::<Recorder>().unwrap();
                let weak = Rc::downgrade(&protocol);
                let borrowed = protocol.borrow_mut();
                end(ours.transport());
                event_loop.sleeps();
                event_loop.close().unwrap();
                drop(borrowed);
                drop(protocol);
                assert!(weak.upgrade().is_none(), "{way:?}, {form:?}");
                assert_eq!(ours.log.items(), [Made], "there is no loop that could tell");
                assert!(!ours.layers.iter().any(is_open));
            }
        }
    }
}

/// How many times the other side sends until our handshake is over.
fn flights(way: Way) -> usize {
    if way.ours == Side::Client && way.version == TlsVersion::V1_3 { 1 } else { 2 }
}

/// The timer is on its way when the message is read that completes the handshake.
fn a_limit_that_has_passed_with_the_last_message_ends_nothing(on: On) {
    for way in ways() {
        for closes in [true, false] {
            let (event_loop, clock) = on.virtual_loop();
            let (Pair { ours, peer }, log) = (way.kind.pair(), Log::default());
            let (mut peer, limit) = (way.peer(peer), Duration::from_millis(300));
            let watched = ours.as_fd().try_clone_to_owned().unwrap();
            let recorder = Recorder::new(&log).on_made(move |transport| {
                transport.write(b"hello");
                if closes {
                    transport.close();
                }
            });
            let task = open(&event_loop, way, ours, recorder, limit);
            for flight in 1..=flights(way) {
                event_loop.until(|| {
                    peer.receive(usize::MAX);
                    peer.connection.wants_write()
                });
                event_loop.ticks(2);
                assert!(!task.done() && log.items().is_empty());
                if flight == flights(way) {
                    // Something slow.
                    clock.advance(limit * 2);
                }
                peer.flush();
            }
            until_readable(watched.as_fd());
            event_loop.ticks(1);
            assert_eq!(log.items(), [Made], "{way:?}");
            event_loop.ticks(3);
            let transport = event_loop.run(task);
            assert_eq!(transport.is_closing(), closes);
            event_loop.until(|| {
                peer.turn();
                peer.received == b"hello" && peer.close_notify == closes
            });
            assert!(!peer.ended && peer.error.is_none(), "{way:?}");
            assert_eq!(log.items(), [Made]);
            if !closes {
                assert!(event_loop.has_no_timer(), "no limit is left");
                clock.advance(MINUTE * 10);
                event_loop.ticks(3);
                assert!(!transport.is_closing());
                transport.close();
                event_loop.until(|| {
                    peer.turn();
                    peer.close_notify
                });
            }
            let alert = peer.seal_close_notify();
            peer.send_sealed(&alert);
            event_loop.until(|| log.lost());
            assert_eq!(log.items(), [Made, Eof, Lost(None)], "{way:?}");
            assert!(event_loop.has_no_timer());
        }
    }
}

/// Warning or fatal: it says the same.
const CLOSE_NOTIFY: [&[u8]; 2] = [&[21, 3, 3, 0, 2, 1, 0], &[21, 3, 3, 0, 2, 2, 0]];

/// An attempt whose other side says that it sends no more.
struct Attempt {
    way: Way,
    task: Task<Transport>,
    log: Log,
    peer: Driven,
}

impl Attempt {
    fn new(event_loop: &TestLoop, way: Way, peer: impl FnOnce(Way, Peer) -> Driven) -> Self {
        let (Pair { ours, peer: socket }, log) = (way.kind.pair(), Log::default());
        let mut peer = peer(way, socket);
        let task = open(event_loop, way, ours, Recorder::new(&log), MINUTE);
        event_loop.ticks(2);
        peer.receive(usize::MAX);
        Attempt { way, task, log, peer }
    }

    /// It ends without any limit having passed, though the other side keeps the connection open.
    #[track_caller]
    fn ends_at_once(self, event_loop: &TestLoop) {
        let Attempt { way, task, log, peer } = self;
        event_loop.until(|| task.done());
        assert_reset(&event_loop.fails(task));
        peer.socket.until_ended(event_loop);
        assert_eq!(log.items(), [], "{way:?}");
        assert!(event_loop.has_no_timer());
        event_loop.ticks(2);
    }

    /// Lets the other side send the beginning of what it has to send: the first message in clear of a server, all of a
    /// client's.
    fn begin(&mut self, event_loop: &TestLoop) {
        let sealed = self.peer.seal(b"");
        match self.way.ours {
            Side::Client => {
                let length = 5 + usize::from(u16::from_be_bytes([sealed[3], sealed[4]]));
                self.peer.send_sealed(&sealed[..length]);
                event_loop.ticks(3);
            }
            Side::Server => {
                self.peer.send_sealed(&sealed);
                event_loop.until(|| {
                    self.peer.receive(usize::MAX);
                    self.peer.connection.wants_write()
                });
            }
        }
        assert!(!self.task.done());
    }
}

#[track_caller]
fn assert_reset(error: &Error) {
    assert_eq!(error.io_error().map(io::Error::kind), Some(io::ErrorKind::ConnectionReset), "{error}");
    assert!(error.to_string().contains("handshake"), "{error}");
}

fn a_close_alert_ends_a_handshake_at_once(on: On) {
    let (event_loop, _clock) = on.virtual_loop();
    for way in ways() {
        for alert in CLOSE_NOTIFY {
            for begun in [false, true] {
                for at_once in [true, false] {
                    let mut attempt = Attempt::new(&event_loop, way, Way::peer);
                    if begun {
                        attempt.begin(&event_loop);
                    }
                    for bytes in alert.chunks(if at_once { 7 } else { 1 }) {
                        assert!(!attempt.task.done());
                        attempt.peer.socket.send(bytes);
                        event_loop.ticks(2);
                    }
                    attempt.ends_at_once(&event_loop);
                }
            }
        }
    }
}

fn a_close_alert_ends_an_encrypted_handshake_at_once(on: On) {
    let (event_loop, _clock) = on.virtual_loop();
    for way in ways().into_iter().filter(|way| way.version == TlsVersion::V1_3) {
        let secrets = Arc::new(Secrets::default());
        let mut attempt = Attempt::new(&event_loop, way, |way, socket| secrets.peer(way, socket));
        attempt.begin(&event_loop);
        let label = match way.ours {
            Side::Client => "SERVER_HANDSHAKE_TRAFFIC_SECRET",
            Side::Server => "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
        };
        let alert: &[u8] = &[1, 0];
        let sealed = secrets.seal(&attempt.peer.connection, label, ContentType::Alert, [alert]);
        attempt.peer.socket.send(&sealed);
        attempt.ends_at_once(&event_loop);
    }
}

fn a_close_alert_ends_the_handshake_of_a_server_at_once(on: On) {
    let (event_loop, _clock) = on.virtual_loop();
    let log = Log::default();
    let recorded = log.clone();
    let creating = event_loop.create_server(move || Recorder::new(&recorded), ("127.0.0.1", 0));
    let server = event_loop.run(creating.ssl(&certificates::server()).ssl_handshake_timeout(MINUTE));
    let address = server.sockets()[0].address().as_inet().unwrap();
    let way = ways().into_iter().find(|way| way.ours == Side::Server).unwrap();
    for begun in [false, true] {
        let mut peer = way.peer(Peer::new(TcpStream::connect(address).unwrap()));
        event_loop.ticks(3);
        if begun {
            peer.flush();
            event_loop.until(|| {
                peer.receive(usize::MAX);
                peer.connection.wants_write()
            });
        }
        peer.socket.send(CLOSE_NOTIFY[0]);
        peer.socket.until_ended(&event_loop);
        assert!(event_loop.has_no_timer());
    }
    let wait = waiting(&event_loop, &server);
    server.close();
    event_loop.run(wait);
    assert_eq!(log.items(), []);
}

fn a_close_alert_ends_what_was_begun_in_clear_at_once(on: On) {
    let (event_loop, _clock) = on.virtual_loop();
    for way in ways() {
        let (Pair { ours, peer }, log) = (way.kind.pair(), Log::default());
        let opening = event_loop.create_connection(|| Recorder::new(&log), ()).sock(ours);
        let (transport, _) = event_loop.run(opening);
        let task = event_loop.create_task(start_tls(&event_loop, way, &transport).into_future());
        event_loop.ticks(2);
        peer.send(CLOSE_NOTIFY[0]);
        event_loop.until(|| task.done());
        assert_reset(&event_loop.fails(task));
        peer.until_ended(&event_loop);
        event_loop.until(|| log.lost());
        assert_eq!(log.items(), [Made, Lost(Some(ErrorKind::Io))], "{way:?}");
        assert!(transport.is_closing() && event_loop.has_no_timer());
    }
}
