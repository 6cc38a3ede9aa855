//! What these tests show: TLS over TLS, and files over TLS.

use std::{
    cell::RefCell,
    fs::File,
    future::IntoFuture,
    io::{self, Cursor, Read, Seek, SeekFrom, Write},
    rc::Rc,
    time::{Duration, Instant},
};

use asyncio::{
    CIPHER, CLOSE_NOTIFY, Error, ErrorKind, PEERNAME, Reader, Task, TlsVersion, Transport,
    rustls::{ClientConnection, Connection, ServerConnection, pki_types::ServerName},
};

use crate::{
    certificates,
    peers::{Driven, Ends, Side, Way, ways},
    start_tls::start_tls,
    support::{
        failure,
        loops::{On, TestLoop},
        transports::{BufferedRecorder, Log, Recorder, Told, pattern},
    },
};

on_each_selector! {
    a_mebibyte_is_echoed_through_two_layers
    a_connection_has_as_many_layers_as_one_likes
    a_buffered_protocol_with_little_memory_over_two_layers
    a_paused_outer_layer_holds_back_both
    a_protocol_that_is_held_shortly_is_called_later
    the_outer_layer_pauses_who_writes
    data_in_the_last_message_of_the_outer_handshake
    closing_the_outer_layer_closes_both_in_order
    both_sides_close_the_outer_layer_at_once
    closing_the_inner_layer_cuts_the_outer_one_off
    aborting_either_layer_ends_both
    an_outer_handshake_that_fails_ends_both
    an_outer_handshake_that_takes_too_long_ends_both
    an_outer_handshake_may_be_given_up
    what_goes_wrong_below_is_told_above
    the_inner_layer_is_not_written_to
    closing_the_loop_leaves_neither_layer
    a_file_is_sent_over_tls
    a_part_of_a_file_is_sent_over_tls
    arguments_that_are_refused
    a_reader_is_sent_over_tls
    what_is_written_around_a_file_keeps_its_place
    writes_meanwhile_are_refused
    the_file_does_not_pause_the_protocol
    nothing_is_received_while_a_file_is_sent
    who_paused_reading_finds_it_paused_after_the_file
    closing_meanwhile_ends_the_file
    cancelled_meanwhile_the_transport_goes_on
    a_peer_that_goes_ends_the_file
    a_peer_that_says_its_last_gets_the_file
    a_file_over_two_layers
    a_file_over_two_layers_ends_with_either
    several_files_follow_each_other
}

const MEBIBYTE: usize = 1 << 20;
/// The size of the behaviours' file.
const SIZE: usize = 2_097_153;
/// More than two systems with small buffers take.
const LARGE: usize = 600_000;

/// Two of our transports, with TLS over TLS.
struct Layered {
    inner: [Transport; 2],
    outer: [Transport; 2],
    logs: [Log; 2],
}

impl Layered {
    fn open(event_loop: &TestLoop, way: Way) -> Self {
        let [(one, one_log), (other, other_log)] = way.connect_both(event_loop, |one| one, |other| other);
        let outer = lay_over(event_loop, way, [&one, &other]);
        Layered { inner: [one, other], outer, logs: [one_log, other_log] }
    }

    fn until_lost(&self, event_loop: &TestLoop) {
        event_loop.until(|| self.logs.iter().all(Log::lost));
        event_loop.ticks(3);
        assert!(self.inner.iter().chain(&self.outer).all(Transport::is_closing));
    }
}

fn opposite(way: Way) -> Way {
    Way { ours: if way.ours == Side::Client { Side::Server } else { Side::Client }, ..way }
}

/// The version that it is not.
fn another(version: TlsVersion) -> TlsVersion {
    if version == TlsVersion::V1_2 { TlsVersion::V1_3 } else { TlsVersion::V1_2 }
}

/// TLS of the other version, and with the sides changed, over what connects two transports.
fn lay_over(event_loop: &TestLoop, way: Way, ends: [&Transport; 2]) -> [Transport; 2] {
    let way = Way { version: another(way.version), ..opposite(way) };
    let [one, other] = [(way, ends[0]), (opposite(way), ends[1])]
        .map(|(way, end)| event_loop.create_task(start_tls(event_loop, way, end).into_future()));
    event_loop.until(|| one.done() && other.done());
    [event_loop.run(one), event_loop.run(other)]
}

/// TLS over TLS whose other side is driven by hand.
struct ByHand {
    transport: Transport,
    log: Log,
    peer: Driven,
    /// The layer over it.
    over: Connection,
    received: Vec<u8>,
    close_notify: bool,
}

impl ByHand {
    /// The handshake of the outer layer has not begun, at the other side.
    fn new(ends: Ends) -> Self {
        // Our side of the outer layer is the client.
        let over = ServerConnection::new(certificates::server().server_config().unwrap().clone()).unwrap();
        let Ends { transport, log, peer, .. } = ends;
        ByHand { transport, log, peer, over: over.into(), received: Vec::new(), close_notify: false }
    }

    fn start_tls(&self, event_loop: &TestLoop) -> Task<Transport> {
        let starting = event_loop.start_tls(&self.transport, &certificates::client()).server_hostname("localhost");
        event_loop.create_task(starting.into_future())
    }

    fn upgraded(event_loop: &TestLoop, way: Way) -> (Self, Transport) {
        let mut by_hand = ByHand::new(way.connect(event_loop));
        let task = by_hand.start_tls(event_loop);
        event_loop.until(|| {
            by_hand.turn();
            task.done() && !by_hand.over.is_handshaking()
        });
        (by_hand, event_loop.run(task))
    }

    fn turn(&mut self) {
        self.peer.turn();
        self.process();
        let made = self.made();
        if !made.is_empty() {
            self.peer.send(&made);
        }
    }

    fn process(&mut self) {
        let sealed = std::mem::take(&mut self.peer.received);
        let mut sealed = &sealed[..];
        while !sealed.is_empty() {
            self.over.read_tls(&mut sealed).unwrap();
            self.over.process_new_packets().unwrap();
            match self.over.reader().read_to_end(&mut self.received) {
                Ok(_) => self.close_notify = true,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
    }

    fn made(&mut self) -> Vec<u8> {
        let mut made = Vec::new();
        while self.over.wants_write() {
            self.over.write_tls(&mut made).unwrap();
        }
        made
    }

    fn send(&mut self, data: &[u8]) {
        self.over.writer().write_all(data).unwrap();
        let made = self.made();
        self.peer.send(&made);
    }
}

fn closed() -> [Told; 2] {
    [Told::Eof, Told::Lost(None)]
}

fn a_mebibyte_is_echoed_through_two_layers(on: On) {
    let event_loop = on.event_loop();
    let data = pattern(MEBIBYTE);
    for way in ways() {
        let layered = Layered::open(&event_loop, way);
        let Layered { inner, outer, logs } = &layered;
        for (outer, inner) in outer.iter().zip(inner) {
            assert_ne!(outer, inner);
            assert_eq!(outer.get_extra_info(PEERNAME), inner.get_extra_info(PEERNAME));
            let [of_outer, of_inner] = [outer, inner].map(|transport| transport.get_extra_info(CIPHER).unwrap());
            assert_ne!(of_outer.protocol, of_inner.protocol);
            assert!(outer.get_protocol::<Recorder>().is_some() && inner.get_protocol::<Recorder>().is_none());
        }
        outer[0].write(&data);
        let mut echoed = 0;
        event_loop.until(|| {
            let received = logs[1].received();
            outer[1].write(&received[echoed..]);
            echoed = received.len();
            logs[0].received_len() == MEBIBYTE
        });
        assert!(logs.iter().all(|log| log.received() == data), "{way:?}");
        assert!(logs.iter().all(|log| log.count(&Told::Made) == 1));
        outer[0].close();
        layered.until_lost(&event_loop);
    }
}

fn a_connection_has_as_many_layers_as_one_likes(on: On) {
    let event_loop = on.event_loop();
    let data = pattern(300_000);
    let way = ways()[0];
    let [(one, one_log), (other, other_log)] = way.connect_both(&event_loop, |one| one, |other| other);
    let mut ends = [one, other];
    for layer in 0..5 {
        ends = lay_over(&event_loop, ways()[layer], [&ends[0], &ends[1]]);
        ends[0].write(&data);
        ends[1].write(&data);
        let expected = (layer + 1) * data.len();
        event_loop.until(|| one_log.received_len() == expected && other_log.received_len() == expected);
    }
    let all = data.repeat(5);
    assert!(one_log.received() == all && other_log.received() == all);
    ends[1].close();
    event_loop.until(|| one_log.lost() && other_log.lost());
    for log in [one_log, other_log] {
        assert_eq!(log.items()[log.items().len() - 2..], closed());
        assert_eq!(log.count(&Told::Made), 1);
    }
}

fn a_buffered_protocol_with_little_memory_over_two_layers(on: On) {
    let event_loop = on.event_loop();
    let data = pattern(20_000);
    for way in ways() {
        let Ends { transport, log, peer, .. } =
            way.connect_with(&event_loop, |recorder| BufferedRecorder::new(recorder, 7));
        let protocol = transport.get_protocol::<BufferedRecorder>().unwrap();
        let over = ServerConnection::new(certificates::server().server_config().unwrap().clone()).unwrap();
        let (received, close_notify) = (Vec::new(), false);
        let mut by_hand = ByHand { transport, log, peer, over: over.into(), received, close_notify };
        let task = by_hand.start_tls(&event_loop);
        event_loop.until(|| {
            by_hand.turn();
            task.done() && !by_hand.over.is_handshaking()
        });
        let outer = event_loop.run(task);
        assert!(Rc::ptr_eq(&outer.get_protocol::<BufferedRecorder>().unwrap(), &protocol));
        by_hand.send(&data);
        event_loop.until(|| by_hand.log.received_len() == data.len());
        assert!(by_hand.log.received() == data);
        outer.abort();
        event_loop.until(|| by_hand.log.lost());
    }
}

fn a_paused_outer_layer_holds_back_both(on: On) {
    let event_loop = on.event_loop();
    let data = pattern(4 * MEBIBYTE);
    for way in ways() {
        let layered = Layered::open(&event_loop, Way { small: true, ..way });
        let Layered { outer, logs, .. } = &layered;
        outer[0].pause_reading();
        assert!(!outer[0].is_reading());
        outer[1].write(&data);
        event_loop.ticks(50);
        assert_eq!(logs[0].received_len(), 0);
        // What is not received stays at the other side.
        assert!(outer[1].get_write_buffer_size() > 3 * MEBIBYTE, "{way:?}");
        outer[0].resume_reading();
        assert_eq!(logs[0].received_len(), 0, "not from inside of the call");
        event_loop.until(|| logs[0].received_len() == data.len());
        assert!(logs[0].received() == data);
        outer[0].close();
        layered.until_lost(&event_loop);
    }
}

/// A protocol that somebody holds for one iteration is called in the next, as without layers.
fn a_protocol_that_is_held_shortly_is_called_later(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let layered = Layered::open(&event_loop, way);
        event_loop.ticks(3);
        let protocol = layered.outer[1].get_protocol::<Recorder>().unwrap();
        let held = protocol.borrow_mut();
        layered.outer[0].write(b"x");
        event_loop.ticks(1);
        drop(held);
        event_loop.until(|| layered.logs[1].received() == b"x");
        drop(protocol);
        layered.outer[0].close();
        layered.until_lost(&event_loop);
        assert_eq!(layered.logs[1].items(), [Told::Made, Told::Data(1), Told::Eof, Told::Lost(None)], "{way:?}");
    }
}

fn the_outer_layer_pauses_who_writes(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let layered = Layered::open(&event_loop, way);
        let Layered { outer, logs, .. } = &layered;
        assert_eq!(outer[0].get_write_buffer_limits(), (131_072, 524_288));
        outer[1].pause_reading();
        let (chunk, mut written) = (pattern(1 << 16), 0);
        event_loop.until(|| {
            outer[0].write(&chunk);
            written += chunk.len();
            assert!(written < 64 * MEBIBYTE, "it never paused");
            logs[0].has(&Told::Pause)
        });
        assert!(outer[0].is_write_paused());
        outer[0].write(&chunk);
        event_loop.ticks(5);
        assert_eq!(logs[0].items(), [Told::Made, Told::Pause], "{way:?}");
        outer[1].resume_reading();
        event_loop.until(|| logs[1].received_len() == written + chunk.len());
        assert_eq!(logs[0].items(), [Told::Made, Told::Pause, Told::Resume]);
        outer[1].close();
        layered.until_lost(&event_loop);
    }
}

fn data_in_the_last_message_of_the_outer_handshake(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let mut by_hand = ByHand::new(way.connect(&event_loop));
        // Here it is our side that is the server.
        let config = certificates::client().client_config().unwrap().clone();
        by_hand.over = ClientConnection::new(config, ServerName::try_from("localhost").unwrap()).unwrap().into();
        let (starting, log) = (event_loop.start_tls(&by_hand.transport, &certificates::server()), by_hand.log.clone());
        let task = event_loop.create_task(async move {
            let transport = starting.await?;
            log.note("returned");
            Ok(transport)
        });
        let hello = by_hand.made();
        by_hand.peer.send(&hello);
        event_loop.until(|| {
            by_hand.peer.turn();
            by_hand.process();
            !by_hand.over.is_handshaking()
        });
        by_hand.send(b"first");
        event_loop.until(|| by_hand.log.received_len() == 5);
        assert_eq!(by_hand.log.joined(), [Told::Made, Told::Note("returned"), Told::Data(5)], "{way:?}");
        event_loop.run(task).abort();
        event_loop.until(|| by_hand.log.lost());
    }
}

fn closing_the_outer_layer_closes_both_in_order(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for closes in [0, 1] {
            let layered = Layered::open(&event_loop, way);
            let Layered { inner, outer, logs } = &layered;
            outer[closes].write(b"last");
            outer[closes].close();
            assert!(outer[closes].is_closing());
            outer[closes].write(b"late");
            layered.until_lost(&event_loop);
            assert_eq!(logs[closes].items(), [Told::Made, Told::Eof, Told::Lost(None)], "{way:?}");
            assert_eq!(logs[1 - closes].joined(), [Told::Made, Told::Data(4), Told::Eof, Told::Lost(None)]);
            for transport in inner.iter().chain(outer) {
                assert_eq!(transport.get_extra_info(CLOSE_NOTIFY), Some(true), "{transport:?}");
            }
        }
    }
}

fn both_sides_close_the_outer_layer_at_once(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let layered = Layered::open(&event_loop, way);
        layered.outer.iter().for_each(Transport::close);
        layered.until_lost(&event_loop);
        assert!(layered.logs.iter().all(|log| log.items() == [Told::Made, Told::Eof, Told::Lost(None)]));
    }
}

/// The inner one says its last; nobody can know that the outer one has said all.
fn closing_the_inner_layer_cuts_the_outer_one_off(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let layered = Layered::open(&event_loop, way);
        let Layered { inner, outer, logs } = &layered;
        inner[0].close();
        assert!(outer[0].is_closing());
        layered.until_lost(&event_loop);
        assert_eq!(logs[0].items().last(), Some(&Told::Lost(None)));
        assert_eq!(logs[1].items(), [Told::Made, Told::Eof, Told::Lost(None)], "{way:?}");
        assert_eq!(inner[1].get_extra_info(CLOSE_NOTIFY), Some(true));
        assert_eq!(outer[1].get_extra_info(CLOSE_NOTIFY), Some(false));
    }
}

fn aborting_either_layer_ends_both(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for aborts_inner in [false, true] {
            let layered = Layered::open(&event_loop, way);
            let Layered { inner, outer, logs } = &layered;
            if aborts_inner {
                inner[0].abort()
            } else {
                outer[0].abort()
            }
            assert!(outer[0].is_closing() && inner[0].is_closing());
            layered.until_lost(&event_loop);
            assert_eq!(logs[0].items(), [Told::Made, Told::Lost(None)], "{way:?}");
            assert_eq!(logs[1].items().iter().filter(|told| matches!(told, Told::Lost(_))).count(), 1);
        }
    }
}

fn an_outer_handshake_that_fails_ends_both(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let mut by_hand = ByHand::new(way.connect(&event_loop));
        let task = by_hand.start_tls(&event_loop);
        by_hand.peer.send(b"this is encrypted once, and not twice");
        event_loop.until(|| task.done());
        let error = event_loop.fails(task);
        assert_eq!(error.kind(), ErrorKind::Ssl, "{error}");
        event_loop.until(|| {
            by_hand.peer.turn();
            by_hand.log.lost() && by_hand.peer.ended
        });
        event_loop.ticks(3);
        assert_eq!(by_hand.log.items(), [Told::Made, Told::Lost(Some(ErrorKind::Ssl))], "{way:?}");
        assert_eq!(by_hand.log.error().unwrap().to_string(), error.to_string());
        assert!(by_hand.transport.is_closing());
    }
}

fn an_outer_handshake_that_takes_too_long_ends_both(on: On) {
    for way in ways() {
        let (event_loop, clock) = on.virtual_loop();
        let mut by_hand = ByHand::new(way.connect(&event_loop));
        let starting = event_loop.start_tls(&by_hand.transport, &certificates::client()).server_hostname("localhost");
        let limit = Duration::from_secs(5);
        let task = event_loop.create_task(starting.ssl_handshake_timeout(limit).into_future());
        event_loop.ticks(3);
        clock.advance(limit - Duration::from_millis(1));
        event_loop.ticks(3);
        assert!(!task.done());
        clock.advance(Duration::from_millis(1));
        event_loop.until(|| task.done());
        let error = event_loop.fails(task);
        assert_eq!(error.io_error().map(io::Error::kind), Some(io::ErrorKind::ConnectionAborted), "{error}");
        event_loop.until(|| {
            by_hand.peer.turn();
            by_hand.log.lost() && by_hand.peer.ended
        });
        assert_eq!(by_hand.log.items(), [Told::Made, Told::Lost(Some(ErrorKind::Io))], "{way:?}");
        assert!(event_loop.has_no_timer());
    }
}

fn an_outer_handshake_may_be_given_up(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for ticks in [0, 1, 3] {
            let mut by_hand = ByHand::new(way.connect(&event_loop));
            let task = by_hand.start_tls(&event_loop);
            event_loop.ticks(ticks);
            assert!(task.cancel());
            assert_eq!(event_loop.fails(task).kind(), ErrorKind::Cancelled);
            if ticks == 0 {
                // Nothing has begun.
                by_hand.transport.write(b"once");
                event_loop.until(|| {
                    by_hand.peer.turn();
                    by_hand.peer.received == b"once"
                });
                by_hand.transport.abort();
            }
            event_loop.until(|| {
                by_hand.peer.turn();
                by_hand.log.lost() && by_hand.peer.ended
            });
            assert_eq!(by_hand.log.items(), [Told::Made, Told::Lost(None)], "{way:?}, {ticks}");
            assert!(event_loop.has_no_timer());
        }
    }
}

fn what_goes_wrong_below_is_told_above(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for case in 0..5 {
            let (mut by_hand, outer) = ByHand::upgraded(&event_loop, way);
            by_hand.send(b"hello");
            event_loop.until(|| by_hand.log.received_len() == 5);
            let expected = match case {
                0 => {
                    by_hand.peer.send_sealed(b"\x17\x03\x03\x00\x20this is encrypted by nobody at all");
                    Told::Lost(Some(ErrorKind::Ssl))
                }
                1 => {
                    by_hand.peer.send(b"\x17\x03\x03\x00\x20this is encrypted once, not twice.");
                    Told::Lost(Some(ErrorKind::Ssl))
                }
                2 => {
                    by_hand.peer.socket.half_close();
                    Told::Lost(None)
                }
                3 => {
                    let alert = by_hand.peer.seal_close_notify();
                    by_hand.peer.send_sealed(&alert);
                    Told::Lost(None)
                }
                _ if way.kind == crate::support::transports::PairKind::Tcp => {
                    let Driven { socket, .. } = by_hand.peer;
                    socket.reset();
                    event_loop.until(|| by_hand.log.lost());
                    let reset = by_hand.log.error().unwrap();
                    assert_eq!(reset.io_error().map(io::Error::kind), Some(io::ErrorKind::ConnectionReset));
                    continue;
                }
                _ => {
                    outer.abort();
                    Told::Lost(None)
                }
            };
            event_loop.until(|| {
                by_hand.peer.receive(usize::MAX);
                by_hand.log.lost()
            });
            let told = by_hand.log.joined();
            assert_eq!(told.last(), Some(&expected), "{way:?}, {case}");
            assert_eq!(told.contains(&Told::Eof), case == 2 || case == 3, "{way:?}, {case}");
            assert_eq!(outer.get_extra_info(CLOSE_NOTIFY), Some(false));
            assert_eq!(by_hand.transport.get_extra_info(CLOSE_NOTIFY), Some(case == 3));
            if let Some(error) = by_hand.log.error() {
                assert_eq!(error.kind(), ErrorKind::Ssl);
            }
        }
    }
}

fn the_inner_layer_is_not_written_to(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let (mut by_hand, outer) = ByHand::upgraded(&event_loop, way);
        let inner = &by_hand.transport;
        let file = file(b"encrypted once");
        let refused = [
            inner.try_write(b"encrypted once"),
            inner.try_writelines([b"encrypted once"]),
            Err(event_loop.fails(event_loop.sendfile(inner, &file))),
            Err(event_loop.fails(start_tls(&event_loop, way, inner))),
        ];
        for refused in refused {
            let (kind, text) = failure(refused);
            assert_eq!(kind, ErrorKind::Runtime);
            assert!(text.contains("start_tls"), "{text}");
        }
        inner.write(b"encrypted once");
        assert_eq!(event_loop.reports.take().len(), 1);
        outer.write(b"encrypted twice");
        event_loop.until(|| {
            by_hand.turn();
            by_hand.received == b"encrypted twice"
        });
        outer.abort();
        event_loop.until(|| by_hand.log.lost());
    }
}

fn closing_the_loop_leaves_neither_layer(on: On) {
    for way in ways() {
        let event_loop = on.event_loop();
        let layered = Layered::open(&event_loop, way);
        let protocols = layered.outer.each_ref().map(|outer| outer.get_protocol::<Recorder>().unwrap());
        layered.outer[0].write(&pattern(4 * MEBIBYTE));
        event_loop.ticks(2);
        event_loop.close().unwrap();
        assert!(protocols.iter().all(|protocol| Rc::strong_count(protocol) == 1), "{way:?}");
        assert!(layered.logs.iter().all(|log| !log.lost()));
        for transport in layered.inner.iter().chain(&layered.outer) {
            transport.write(b"late");
            transport.abort();
            assert!(transport.is_closing());
        }
    }
}

/// A file with this content, its position at the end.
fn file(data: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(data).unwrap();
    file
}

/// A file that is being sent, and what the other side has received.
struct Sending {
    ends: Ends,
    file: Rc<File>,
    task: Task<u64>,
}

impl Sending {
    /// To a peer that does not read.
    fn blocked(event_loop: &TestLoop, way: Way) -> Self {
        let ends = Way { small: true, ..way }.connect(event_loop);
        let file = Rc::new(file(&pattern(LARGE)));
        let task = event_loop.create_task(send(event_loop, &ends.transport, &file));
        until_blocked(event_loop, &ends.transport);
        assert!(!task.done());
        Sending { ends, file, task }
    }

    /// Lets the peer receive all that comes until it is so.
    fn until(&mut self, event_loop: &TestLoop, done: impl Fn(&Self) -> bool) {
        event_loop.until(|| {
            self.ends.peer.turn();
            done(self)
        });
    }
}

fn send(
    event_loop: &TestLoop,
    transport: &Transport,
    file: &Rc<File>,
) -> impl Future<Output = asyncio::Result<u64>> + use<> {
    let (event_loop, transport, file) = (event_loop.event_loop.clone(), transport.clone(), file.clone());
    async move { event_loop.sendfile(&transport, &*file).await }
}

fn position(file: &File) -> u64 {
    (&*file).stream_position().unwrap()
}

/// Runs until the system takes no more, and who sends a file waits for that.
fn until_blocked(event_loop: &TestLoop, transport: &Transport) {
    let mut before = 0;
    event_loop.until(|| {
        for _ in 0..3 {
            event_loop.run_once(Duration::from_millis(1)).unwrap();
        }
        let now = transport.get_write_buffer_size();
        std::mem::replace(&mut before, now) == now && now > 0
    });
}

/// Runs until it is so, which must not take as long as a shutdown may.
#[track_caller]
fn until_soon(event_loop: &TestLoop, done: impl Fn() -> bool) {
    let begin = Instant::now();
    event_loop.until(done);
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}

/// Runs a task to its end, while the peer receives.
fn finish<T: Clone + 'static>(event_loop: &TestLoop, peer: &mut Driven, task: Task<T>) -> T {
    event_loop.until(|| {
        peer.turn();
        task.done()
    });
    event_loop.run(task)
}

/// Closes in order, and looks at what the peer has received up to then.
#[track_caller]
fn close_and_compare(event_loop: &TestLoop, ends: &mut Ends, expected: &[u8]) {
    ends.transport.close();
    event_loop.until(|| {
        ends.peer.turn();
        ends.peer.close_notify
    });
    assert!(ends.peer.received == expected, "{} bytes instead of {}", ends.peer.received.len(), expected.len());
    let alert = ends.peer.seal_close_notify();
    ends.peer.send_sealed(&alert);
    event_loop.until(|| ends.log.lost());
    assert_eq!(ends.log.items().last(), Some(&Told::Lost(None)));
}

/// SND-011
fn a_file_is_sent_over_tls(on: On) {
    let event_loop = on.event_loop();
    let data = pattern(SIZE);
    let file = Rc::new(file(&data));
    for way in ways() {
        let mut ends = way.connect(&event_loop);
        let task = event_loop.create_task(send(&event_loop, &ends.transport, &file));
        assert_eq!(finish(&event_loop, &mut ends.peer, task), SIZE as u64, "{way:?}");
        assert_eq!(position(&file), SIZE as u64);
        let mut expected = data.clone();
        for (offset, count) in [(1000, 100), (0, 1), (SIZE as u64 - 5, 5)] {
            let sent = event_loop.run(event_loop.sendfile(&ends.transport, &*file).offset(offset).count(count));
            assert_eq!(sent, count);
            assert_eq!(position(&file), offset + count);
            expected.extend_from_slice(&data[offset as usize..][..count as usize]);
        }
        (&*file).seek(SeekFrom::Start(7)).unwrap();
        let error = event_loop.fails(event_loop.sendfile(&ends.transport, &*file).fallback(false));
        assert_eq!(error.kind(), ErrorKind::Runtime);
        assert!(error.to_string().contains("fallback"), "{error}");
        assert_eq!(position(&file), 7, "nothing has happened");
        close_and_compare(&event_loop, &mut ends, &expected);
    }
}

fn a_part_of_a_file_is_sent_over_tls(on: On) {
    let event_loop = on.event_loop();
    let data = pattern(100_000);
    let file = file(&data);
    for way in ways() {
        let mut ends = way.connect(&event_loop);
        let mut expected = Vec::new();
        let parts = [
            (0, Some(16_384)),
            (1, Some(16_385)),
            (99_990, Some(100)),
            (99_999, None),
            (100_000, None),
            (100_010, Some(5)),
            (30_000, Some(65_536)),
            (20_000, None),
        ];
        for (offset, count) in parts {
            let before = (&file).seek(SeekFrom::Start(3)).unwrap();
            let begin = data.len().min(offset);
            let end = count.map_or(data.len(), |count: usize| data.len().min(offset + count)).max(begin);
            let count = count.map(|count| count as u64);
            let sent = event_loop.run(event_loop.sendfile(&ends.transport, &file).offset(offset as u64).count(count));
            assert_eq!(sent, (end - begin) as u64, "{way:?}, {offset}");
            assert_eq!(position(&file), if begin == end { before } else { end as u64 });
            expected.extend_from_slice(&data[begin..end]);
            ends.peer.turn();
        }
        close_and_compare(&event_loop, &mut ends, &expected);
    }
}

fn arguments_that_are_refused(on: On) {
    let event_loop = on.event_loop();
    let file = file(b"content");
    for way in ways() {
        let mut ends = way.connect(&event_loop);
        assert_eq!(event_loop.fails(event_loop.sendfile(&ends.transport, &file).count(0)).kind(), ErrorKind::Value);
        // It is as before.
        ends.transport.write(b"hello");
        close_and_compare(&event_loop, &mut ends, b"hello");
        let closed = event_loop.fails(event_loop.sendfile(&ends.transport, &file));
        assert_eq!(closed.kind(), ErrorKind::Runtime);
        assert!(closed.to_string().contains("closing"), "{closed}");
        assert_eq!(position(&file), 7);
        let ends = way.connect(&event_loop);
        ends.transport.close();
        assert_eq!(event_loop.fails(event_loop.sendfile(&ends.transport, &file)).kind(), ErrorKind::Runtime);
        ends.transport.abort();
        event_loop.until(|| ends.log.lost());
    }
}

fn a_reader_is_sent_over_tls(on: On) {
    let event_loop = on.event_loop();
    let data = pattern(700_000);
    for way in ways() {
        let mut ends = way.connect(&event_loop);
        let peer = Rc::new(RefCell::new(ends.peer));
        let (sent, position) = event_loop.run(async {
            let (turning, event_loop) = (peer.clone(), asyncio::get_running_loop()?);
            let turning = event_loop.create_task(async move {
                loop {
                    turning.borrow_mut().turn();
                    asyncio::sleep(Duration::ZERO).await?;
                }
                #[expect(unreachable_code, reason = "it says what the loop gives")]
                asyncio::ok(())
            });
            let mut reader = Cursor::new(&data);
            let sent = event_loop.sendfile(&ends.transport, Reader(&mut reader)).offset(10).await?;
            turning.cancel();
            let _cancelled: Result<(), Error> = turning.await;
            Ok((sent, reader.position()))
        });
        assert_eq!((sent, position), (699_990, 700_000), "{way:?}");
        ends.peer = Rc::into_inner(peer).unwrap().into_inner();
        close_and_compare(&event_loop, &mut ends, &data[10..]);
    }
}

fn what_is_written_around_a_file_keeps_its_place(on: On) {
    let event_loop = on.event_loop();
    let data = pattern(SIZE);
    let file = Rc::new(file(&data));
    for way in ways() {
        for prefix in [&b"PREFIX"[..], &pattern(3_000_000)] {
            let mut ends = way.connect(&event_loop);
            ends.transport.write(prefix);
            let task = event_loop.create_task(send(&event_loop, &ends.transport, &file));
            assert_eq!(finish(&event_loop, &mut ends.peer, task), SIZE as u64);
            assert_eq!(ends.transport.get_write_buffer_size(), 0, "the system has all of it");
            ends.transport.write(b"SUFFIX");
            close_and_compare(&event_loop, &mut ends, &[prefix, &data, b"SUFFIX"].concat());
        }
    }
}

fn writes_meanwhile_are_refused(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let Sending { mut ends, file, task } = Sending::blocked(&event_loop, way);
        let transport = &ends.transport;
        let refused = [
            transport.try_write(b"data"),
            transport.try_writelines(["x"]),
            Err(event_loop.fails(event_loop.sendfile(transport, &*file))),
            Err(event_loop.fails(start_tls(&event_loop, way, transport))),
        ];
        for refused in refused {
            let (kind, text) = failure(refused);
            assert_eq!(kind, ErrorKind::Runtime);
            assert!(text.contains("sendfile"), "{text}");
        }
        transport.write(b"data");
        transport.writelines(["x"]);
        let reports = event_loop.reports.take();
        assert_eq!(reports.len(), 2);
        assert!(reports.iter().all(|report| format!("{report:?}").contains("sendfile")), "{reports:?}");
        assert_eq!(finish(&event_loop, &mut ends.peer, task), LARGE as u64);
        close_and_compare(&event_loop, &mut ends, &pattern(LARGE));
    }
}

fn the_file_does_not_pause_the_protocol(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let Sending { mut ends, task, .. } = Sending::blocked(&event_loop, way);
        // It is not held in memory either.
        assert!(ends.transport.get_write_buffer_size() < 300_000);
        assert_eq!(finish(&event_loop, &mut ends.peer, task), LARGE as u64);
        assert_eq!(ends.log.items(), [Told::Made], "{way:?}");
        close_and_compare(&event_loop, &mut ends, &pattern(LARGE));
    }
}

fn nothing_is_received_while_a_file_is_sent(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let Sending { mut ends, task, .. } = Sending::blocked(&event_loop, way);
        ends.peer.send(b"meanwhile");
        event_loop.ticks(5);
        assert!(!ends.transport.is_reading());
        assert_eq!(ends.log.items(), [Told::Made]);
        assert_eq!(finish(&event_loop, &mut ends.peer, task), LARGE as u64);
        assert!(ends.transport.is_reading());
        event_loop.until(|| ends.log.received_len() == 9);
        assert_eq!(ends.log.received(), b"meanwhile", "{way:?}");
        close_and_compare(&event_loop, &mut ends, &pattern(LARGE));
    }
}

fn who_paused_reading_finds_it_paused_after_the_file(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let Sending { mut ends, task, .. } = Sending::blocked(&event_loop, way);
        ends.transport.pause_reading();
        ends.peer.send(b"meanwhile");
        assert_eq!(finish(&event_loop, &mut ends.peer, task), LARGE as u64);
        event_loop.ticks(5);
        assert!(!ends.transport.is_reading() && ends.log.received_len() == 0, "{way:?}");
        ends.transport.resume_reading();
        event_loop.until(|| ends.log.received_len() == 9);
        close_and_compare(&event_loop, &mut ends, &pattern(LARGE));
    }
}

/// SND-016, over TLS.
fn closing_meanwhile_ends_the_file(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for abort in [false, true] {
            let mut sending = Sending::blocked(&event_loop, way);
            let transport = sending.ends.transport.clone();
            if abort {
                transport.abort()
            } else {
                transport.close()
            }
            // Although the peer does not read.
            until_soon(&event_loop, || sending.task.done());
            sending.until(&event_loop, |sending| {
                abort && sending.ends.peer.ended || !abort && sending.ends.peer.close_notify
            });
            let Sending { mut ends, file, task } = sending;
            let error = event_loop.fails(task);
            assert_eq!(error.io_error().map(io::Error::kind), Some(io::ErrorKind::ConnectionAborted), "{error}");
            if !abort {
                let alert = ends.peer.seal_close_notify();
                ends.peer.send_sealed(&alert);
            }
            event_loop.until(|| ends.log.lost());
            event_loop.ticks(3);
            assert_eq!(ends.log.items().iter().filter(|told| matches!(told, Told::Lost(_))).count(), 1);
            assert_eq!(ends.log.items().last(), Some(&Told::Lost(None)));
            // What was handed over goes on its way, unless it is thrown away.
            let (received, position) = (ends.peer.received.len() as u64, position(&file));
            assert!(position < LARGE as u64);
            assert!(received == position || abort && received < position, "{received}, {position}");
            assert!(pattern(LARGE).starts_with(&ends.peer.received));
        }
    }
}

fn cancelled_meanwhile_the_transport_goes_on(on: On) {
    let event_loop = on.event_loop();
    let data = pattern(LARGE);
    for way in ways() {
        let Sending { mut ends, file, task } = Sending::blocked(&event_loop, way);
        assert!(task.cancel());
        assert_eq!(event_loop.fails(task).kind(), ErrorKind::Cancelled);
        let sent = position(&file) as usize;
        assert!((1..data.len()).contains(&sent));
        assert!(ends.transport.is_reading());
        ends.transport.write(b"behind it");
        let rest = Rc::new(file.try_clone().unwrap());
        let sending = event_loop.event_loop.clone();
        let transport = ends.transport.clone();
        let task =
            event_loop.create_task(async move { sending.sendfile(&transport, &*rest).offset(sent as u64).await });
        assert_eq!(finish(&event_loop, &mut ends.peer, task) as usize, data.len() - sent);
        close_and_compare(&event_loop, &mut ends, &[&data[..sent], b"behind it", &data[sent..]].concat());
    }
}

/// SND-013, over TLS.
fn a_peer_that_goes_ends_the_file(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let Sending { ends, file, task } = Sending::blocked(&event_loop, way);
        let Ends { log, mut peer, transport, .. } = ends;
        peer.receive(1024);
        drop(peer);
        event_loop.until(|| task.done());
        let error = event_loop.fails(task);
        let kind = error.io_error().map(io::Error::kind);
        let broken =
            [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionAborted].map(Some);
        assert!(broken.contains(&kind), "{way:?}: {error}");
        assert!((1..LARGE as u64).contains(&position(&file)));
        event_loop.until(|| log.lost());
        event_loop.ticks(3);
        assert_eq!(log.items().iter().filter(|told| matches!(told, Told::Lost(_))).count(), 1);
        assert!(transport.is_closing());
    }
}

/// TLS-026, for a file.
fn a_peer_that_says_its_last_gets_the_file(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let mut sending = Sending::blocked(&event_loop, way);
        let alert = sending.ends.peer.seal_close_notify();
        sending.ends.peer.send_sealed(&alert);
        event_loop.ticks(5);
        assert!(!sending.task.done() && !sending.ends.log.has(&Told::Eof));
        sending.until(&event_loop, |sending| sending.ends.log.lost() && sending.ends.peer.close_notify);
        assert_eq!(event_loop.run(sending.task), LARGE as u64);
        assert!(sending.ends.peer.received == pattern(LARGE), "{way:?}");
        assert_eq!(sending.ends.log.items(), [Told::Made, Told::Eof, Told::Lost(None)]);
    }
}

fn a_file_over_two_layers(on: On) {
    let event_loop = on.event_loop();
    let data = pattern(SIZE);
    let file = Rc::new(file(&data));
    for way in ways() {
        let layered = Layered::open(&event_loop, way);
        let Layered { outer, logs, .. } = &layered;
        assert_eq!(event_loop.run(send(&event_loop, &outer[0], &file)), SIZE as u64);
        outer[0].write(b"behind it");
        event_loop.until(|| logs[1].received_len() == SIZE + 9);
        assert!(logs[1].received() == [&data[..], b"behind it"].concat());
        let error = event_loop.fails(event_loop.sendfile(&outer[0], &*file).fallback(false));
        assert_eq!(error.kind(), ErrorKind::Runtime);
        outer[0].close();
        layered.until_lost(&event_loop);
    }
}

fn a_file_over_two_layers_ends_with_either(on: On) {
    let event_loop = on.event_loop();
    let file = Rc::new(file(&pattern(LARGE)));
    for way in ways() {
        for case in 0..4 {
            let layered = Layered::open(&event_loop, Way { small: true, ..way });
            let Layered { inner, outer, logs } = &layered;
            outer[1].pause_reading();
            let task = event_loop.create_task(send(&event_loop, &outer[0], &file));
            until_blocked(&event_loop, &outer[0]);
            assert!(!task.done());
            match case {
                0 => outer[0].close(),
                1 => outer[0].abort(),
                2 => inner[0].close(),
                _ => inner[0].abort(),
            }
            until_soon(&event_loop, || task.done());
            let error = event_loop.fails(task);
            assert_eq!(error.io_error().map(io::Error::kind), Some(io::ErrorKind::ConnectionAborted), "{error}");
            outer[1].resume_reading();
            layered.until_lost(&event_loop);
            assert_eq!(logs[0].items().last(), Some(&Told::Lost(None)), "{way:?}, {case}");
            assert!(pattern(LARGE).starts_with(&logs[1].received()));
        }
    }
}

fn several_files_follow_each_other(on: On) {
    let event_loop = on.event_loop();
    let contents = [pattern(300_000), Vec::new(), pattern(1), pattern(70_000)];
    let files: Vec<Rc<File>> = contents.iter().map(|content| Rc::new(file(content))).collect();
    for way in ways() {
        let mut ends = way.connect(&event_loop);
        let (transport, files, sending) = (ends.transport.clone(), files.clone(), event_loop.event_loop.clone());
        let task = event_loop.create_task(async move {
            let mut sent = Vec::new();
            for file in &files {
                sent.push(sending.sendfile(&transport, &**file).await?);
            }
            Ok(sent)
        });
        assert_eq!(finish(&event_loop, &mut ends.peer, task), [300_000, 0, 1, 70_000]);
        close_and_compare(&event_loop, &mut ends, &contents.concat());
    }
}
