//! What these tests show: data through TLS in every shape, and who is told to wait; with a peer that the test drives.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use asyncio::{ErrorKind, ExceptionContext, TlsVersion, Transport};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::{
    peers::{Driven, Ends, Way, ways},
    support::{
        loops::{On, TestLoop},
        transports::{Told::*, *},
    },
};

on_each_selector! {
    water_marks_follow_the_rules_of_all_transports
    lower_water_marks_pause_at_once
    a_writer_is_paused_once_and_resumed_once
    pause_and_resume_come_at_the_water_marks
    a_producer_goes_on_in_turns
    pause_comes_inside_of_a_write_from_outside
    pause_comes_right_after_the_callback_that_writes
    what_connection_made_writes_arrives
    nothing_is_sent_for_nothing
    small_pieces_share_a_record
    lines_of_every_size_come_in_order
    nothing_comes_while_reading_is_paused
    reading_may_be_paused_before_anything_came
    data_received_may_pause_in_the_middle_of_a_burst
    pauses_are_not_counted
    buffers_of_every_size_take_everything
    a_small_buffer_costs_no_more_than_its_calls
    an_empty_buffer_is_fatal
    get_buffer_may_pause
    a_protocol_can_be_replaced_in_its_own_callback
    what_was_decrypted_for_one_protocol_goes_to_the_next
    the_new_protocol_resumes
    data_for_a_protocol_that_is_borrowed_shortly_waits
    data_for_a_borrowed_protocol_is_fatal
    what_was_decrypted_waits_for_a_borrowed_protocol_as_well
    a_borrowed_protocol_is_told_to_pause_later
    records_of_every_size_come_and_go
    records_come_in_segments_of_any_size
    a_handshake_may_come_byte_by_byte
    tiny_records_come_and_go
    both_directions_flow_at_the_same_time
    a_key_update_changes_nothing_for_the_protocol
    a_key_update_is_answered_with_what_is_written_next
    a_key_update_may_be_the_last_thing_before_a_close
}

/// So many bytes are more than the system takes from a side whose peer does not read.
const LARGE: usize = 8_000_000;

/// Where the protocol of a TLS transport is told to pause and to resume, unless somebody says otherwise.
const LIMITS: (usize, usize) = (131_072, 524_288);

/// The only report that there was.
#[track_caller]
fn report(event_loop: &TestLoop) -> ExceptionContext {
    let mut reports = event_loop.reports.take();
    assert_eq!(reports.len(), 1, "{reports:?}");
    reports.remove(0)
}

/// Waits, while no loop runs, until there is something for a transport to read.
#[track_caller]
fn until_readable(transport: &Transport) {
    let readable = transport.with_fd(|fd| {
        let limit = Timespec { tv_sec: 40, tv_nsec: 0 };
        rustix::event::poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&limit)).unwrap()
    });
    assert_eq!(readable, Some(1), "nothing came");
}

impl<P> Ends<P> {
    /// Until the peer has received so much in all.
    #[track_caller]
    fn until_received(&mut self, event_loop: &TestLoop, count: usize) {
        event_loop.until(|| {
            self.peer.turn();
            self.peer.received.len() >= count
        });
        assert_eq!(self.peer.received.len(), count);
    }

    /// Until our protocol has received so much in all.
    #[track_caller]
    fn until_delivered(&mut self, event_loop: &TestLoop, count: usize) {
        event_loop.until(|| {
            self.peer.turn();
            self.log.received_len() >= count
        });
        assert_eq!(self.log.received_len(), count);
    }

    /// The peer closes, and this side follows.
    #[track_caller]
    fn end(&mut self, event_loop: &TestLoop) {
        let alert = self.peer.seal_close_notify();
        self.peer.send_sealed(&alert);
        event_loop.until(|| {
            self.peer.turn();
            self.log.lost() && self.peer.ended
        });
        assert!(self.peer.close_notify && self.peer.error.is_none());
    }
}

/// Recorders that send back what they get.
fn echo(recorder: Recorder) -> Recorder {
    recorder.on_data(|transport, data| transport.write(data))
}

/// TLS-003, in part.
fn water_marks_follow_the_rules_of_all_transports(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let Ends { transport, log, .. } = way.connect(&event_loop);
        assert_eq!(transport.get_write_buffer_limits(), LIMITS);
        let cases = [
            ((Some(100_000), None), (25_000, 100_000)),
            ((None, Some(1000)), (1000, 4000)),
            ((Some(0), None), (0, 0)),
            ((Some(7), Some(7)), (7, 7)),
            ((None, None), LIMITS),
        ];
        for ((high, low), limits) in cases {
            transport.set_write_buffer_limits(high, low).unwrap();
            assert_eq!(transport.get_write_buffer_limits(), limits, "high {high:?}, low {low:?}");
            for (high, low) in [(0, 1), (10, 11)] {
                let error = transport.set_write_buffer_limits(high, low).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Value);
                assert!(error.to_string().contains("high") && error.to_string().contains("low"), "{error}");
                assert_eq!(transport.get_write_buffer_limits(), limits);
            }
        }
        assert!(!transport.is_write_paused());
        assert_eq!(log.take(), [Made]);
    }
}

/// TLS-022: what waits already counts.
fn lower_water_marks_pause_at_once(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let mut ends = way.connect(&event_loop);
        ends.transport.set_write_buffer_limits(2 * LARGE, LARGE).unwrap();
        ends.transport.write(&pattern(LARGE));
        assert_eq!((ends.log.items(), ends.transport.is_write_paused()), (vec![Made], false));
        ends.transport.set_write_buffer_limits(None, None).unwrap();
        assert_eq!((ends.log.take(), ends.transport.is_write_paused()), (vec![Made, Pause], true));
        // Higher ones count when it shrinks the next time.
        ends.transport.set_write_buffer_limits(2 * LARGE, LARGE).unwrap();
        assert_eq!((ends.log.take(), ends.transport.is_write_paused()), (vec![], true));
        event_loop.until(|| {
            ends.peer.receive(100_000);
            !ends.log.items().is_empty()
        });
        assert_eq!((ends.log.take(), ends.transport.is_write_paused()), (vec![Resume], false));
        assert!(ends.transport.get_write_buffer_size() > 0);
        ends.until_received(&event_loop, LARGE);
        ends.end(&event_loop);
        assert_eq!(ends.log.take(), [Eof, Lost(None)], "{way:?}");
    }
}

/// TLS-022
fn a_writer_is_paused_once_and_resumed_once(on: On) {
    let event_loop = on.event_loop();
    let chunk = pattern(64 << 10);
    for way in ways() {
        let mut ends = way.connect(&event_loop);
        let mut written = 0;
        while !ends.log.has(&Pause) {
            assert!(written < 32 << 20);
            ends.transport.write(&chunk);
            written += chunk.len();
        }
        // Who does not listen is not told again.
        for _ in 0..10 {
            ends.transport.write(&chunk);
            written += chunk.len();
            event_loop.ticks(1);
        }
        assert_eq!(ends.log.items(), [Made, Pause], "{way:?}");
        ends.until_received(&event_loop, written);
        assert!(ends.peer.received.chunks(chunk.len()).all(|received| received == chunk));
        event_loop.ticks(3);
        assert_eq!(ends.log.take(), [Made, Pause, Resume], "{way:?}");
        assert_eq!(ends.transport.get_write_buffer_size(), 0);
    }
}

/// TLS-022: above the high one, and at the low one.
fn pause_and_resume_come_at_the_water_marks(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let Ends { transport, log, mut peer, .. } = way.connect(&event_loop);
        let (mut written, chunk) = (0, pattern(40_000));
        while !log.has(&Pause) {
            assert!(transport.get_write_buffer_size() <= LIMITS.1);
            transport.write(&chunk);
            written += chunk.len();
            assert_eq!(log.has(&Pause), transport.get_write_buffer_size() > LIMITS.1);
            assert_eq!(log.has(&Pause), transport.is_write_paused());
        }
        event_loop.until(|| {
            assert_eq!(log.has(&Resume), transport.get_write_buffer_size() <= LIMITS.0);
            assert_eq!(log.has(&Resume), !transport.is_write_paused());
            peer.receive(40_000);
            peer.received.len() == written
        });
        assert_eq!(log.take(), [Made, Pause, Resume], "{way:?}");
    }
}

/// TLS-022: who writes when it is resumed.
fn a_producer_goes_on_in_turns(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let way = Way { small: true, ..way };
        let left = Rc::new(Cell::new(5));
        let again = left.clone();
        let mut ends = way.connect_with(&event_loop, |recorder| {
            recorder.on_resume(move |transport| {
                assert!(!transport.is_write_paused());
                if again.get() > 0 {
                    again.set(again.get() - 1);
                    transport.write(&pattern(600_000));
                    assert!(transport.is_write_paused());
                }
            })
        });
        ends.transport.write(&pattern(700_000));
        ends.until_received(&event_loop, 700_000 + 5 * 600_000);
        let expected = [vec![Made], vec![[Pause, Resume]; 6].concat()].concat();
        event_loop.ticks(3);
        assert_eq!(ends.log.take(), expected, "{way:?}");
        assert!(ends.peer.received[..700_000] == pattern(700_000));
        assert!(ends.peer.received[700_000..].chunks(600_000).all(|chunk| chunk == pattern(600_000)));
    }
}

/// TLS-022: before the call returns.
fn pause_comes_inside_of_a_write_from_outside(on: On) {
    let event_loop = on.event_loop();
    let data = pattern(LARGE);
    for way in ways() {
        let calls: [fn(&Transport, &[u8]); 3] = [
            |transport, data| transport.write(data),
            |transport, data| transport.try_write(data).unwrap(),
            |transport, data| transport.writelines(data.chunks(70_001).collect::<Vec<_>>()),
        ];
        for call in calls {
            let mut ends = way.connect(&event_loop);
            call(&ends.transport, &data);
            ends.log.note("returns");
            assert!(ends.transport.is_write_paused() && ends.transport.get_write_buffer_size() > LIMITS.1);
            assert_eq!(ends.log.items(), [Made, Pause, Note("returns")], "{way:?}");
            ends.transport.close();
            event_loop.until(|| {
                ends.peer.turn();
                ends.peer.close_notify
            });
            assert!(ends.peer.received == data);
            ends.end(&event_loop);
        }
        // From a callback of the loop's, or of another protocol, as well.
        let Ends { transport, log, peer: _peer, .. } = way.connect(&event_loop);
        let (writer, note) = (transport.clone(), log.clone());
        event_loop.call_soon(move || {
            writer.write(&pattern(LARGE));
            note.note("returns");
        });
        event_loop.ticks(1);
        assert_eq!(log.take(), [Made, Pause, Note("returns")]);

        let receiver = way.connect(&event_loop);
        let (writer, note) = (receiver.transport.clone(), receiver.log.clone());
        let mut sender = way.connect_with(&event_loop, |recorder| {
            recorder.on_data(move |_, _| {
                writer.write(&pattern(LARGE));
                note.note("returns");
            })
        });
        sender.peer.send(b"go");
        sender.until_delivered(&event_loop, 2);
        assert_eq!(receiver.log.take(), [Made, Pause, Note("returns")]);
        assert_eq!(sender.log.take(), [Made, Data(2)]);
    }
}

/// TLS-022: from inside of one of the protocol's own.
fn pause_comes_right_after_the_callback_that_writes(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let write = |log: &Log| {
            let note = log.clone();
            move |transport: &Transport| {
                transport.write(&pattern(LARGE));
                assert!(transport.is_write_paused());
                transport.write(b"more");
                note.note("returns");
            }
        };
        let log = Log::default();

        let made = write(&log);
        let ends = way.connect_with(&event_loop, |_| Recorder::new(&log).on_made(made));
        assert_eq!(log.items()[..3], [Made, Note("returns"), Pause], "{way:?}");
        ends.transport.abort();
        event_loop.until(|| log.lost());
        log.take();

        let data = write(&log);
        let mut ends =
            way.connect_with(&event_loop, |_| Recorder::new(&log).on_data(move |transport, _| data(transport)));
        ends.peer.send(b"go");
        event_loop.until(|| log.has(&Data(2)));
        assert_eq!(log.take(), [Made, Data(2), Note("returns"), Pause], "{way:?}");
        event_loop.until(|| {
            ends.peer.turn();
            ends.peer.received.len() == LARGE + 4
        });
        assert_eq!((log.take(), &ends.peer.received[LARGE..]), (vec![Resume], &b"more"[..]), "{way:?}");
        ends.transport.abort();
        event_loop.until(|| log.lost());
        log.take();

        for in_get in [true, false] {
            let call = write(&log);
            let mut ends = way.connect_with(&event_loop, |_| match in_get {
                true => BufferedRecorder::new(Recorder::new(&log), 10).on_get(call),
                false => BufferedRecorder::new(Recorder::new(&log).on_data(move |transport, _| call(transport)), 10),
            });
            ends.peer.send(b"go");
            event_loop.until(|| log.has(&Updated(2)));
            let told = log.take();
            match in_get {
                // What is received into a buffer belongs to the call that gave it.
                true => assert_eq!(told, [Made, Get(Some(2)), Note("returns"), Updated(2), Pause], "{way:?}"),
                false => assert_eq!(told, [Made, Get(Some(2)), Updated(2), Note("returns"), Pause], "{way:?}"),
            }
            ends.transport.abort();
            event_loop.until(|| log.lost());
            log.take();
        }

        let eof = write(&log);
        let mut ends = way.connect_with(&event_loop, |_| {
            Recorder::new(&log).on_eof(move |transport| {
                eof(transport);
                true
            })
        });
        let alert = ends.peer.seal_close_notify();
        ends.peer.send_sealed(&alert);
        event_loop.until(|| {
            ends.peer.turn();
            log.lost()
        });
        assert_eq!(log.take(), [Made, Eof, Note("returns"), Pause, Resume, Lost(None)], "{way:?}");
        assert_eq!(ends.peer.received.len(), LARGE + 4);
    }
}

/// TLS-022: before the opener returns.
fn what_connection_made_writes_arrives(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for size in [5, 70_000, LARGE] {
            let data = pattern(size);
            let written = data.clone();
            let mut ends = way.connect_with(&event_loop, |recorder| {
                recorder.on_made(move |transport| {
                    transport.write(&written);
                    transport.writelines(["and", "lines"]);
                })
            });
            ends.until_received(&event_loop, size + 8);
            assert!(ends.peer.received == [&data[..], b"andlines"].concat(), "{way:?}");
            ends.end(&event_loop);
            assert_eq!(ends.log.items()[0], Made);
        }
    }
}

/// The lengths of the records that the peer has received and not looked at.
fn records(peer: &Driven) -> Vec<usize> {
    let (wire, mut lengths) = (peer.socket.drain(), Vec::new());
    let mut left = &wire[..];
    while let [kind, _, _, high, low, ..] = *left {
        assert_eq!(kind, 23, "application data");
        let length = usize::from(u16::from_be_bytes([high, low]));
        lengths.push(length);
        left = &left[5 + length..];
    }
    assert!(left.is_empty());
    lengths
}

/// What a record of TLS 1.2 (with AES-GCM or ChaCha20) and 1.3 adds at most to its data, beside the header.
const ADDED: usize = 24;

/// TLS-003, in part: an empty write is no record.
fn nothing_is_sent_for_nothing(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let mut ends = way.connect(&event_loop);
        // The last of the handshake comes first.
        ends.transport.write(b"x");
        ends.until_received(&event_loop, 1);
        ends.transport.write(b"");
        ends.transport.writelines([b""; 0]);
        ends.transport.writelines([b""; 200]);
        ends.transport.try_write(b"").unwrap();
        event_loop.ticks(3);
        assert_eq!(records(&ends.peer), [], "{way:?}");
    }
}

/// TLS-003, in part: a header and a body cost one record, not two.
fn small_pieces_share_a_record(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let mut ends = way.connect(&event_loop);
        ends.transport.write(b"x");
        ends.until_received(&event_loop, 1);
        let pieces: [(Vec<Vec<u8>>, usize); 4] = [
            (vec![b"header".to_vec(), b"body".to_vec()], 1),
            (vec![vec![1; 10]; 100], 1),
            (vec![vec![], vec![1; 16_000], vec![], vec![2; 384], vec![]], 1),
            (vec![vec![1; 16_384], vec![2; 16_384]], 2),
        ];
        for (pieces, count) in pieces {
            ends.transport.writelines(&pieces);
            event_loop.ticks(1);
            let lengths = records(&ends.peer);
            let size: usize = pieces.iter().map(Vec::len).sum();
            let sum: usize = lengths.iter().sum();
            assert_eq!(lengths.len(), count, "{way:?}: {lengths:?} for {size} bytes");
            assert!((size..=size + count * ADDED).contains(&sum), "{way:?}: {lengths:?} for {size} bytes");
        }
    }
}

/// TLS-004, in part: also more of them than one call of the system takes.
fn lines_of_every_size_come_in_order(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let mut ends = way.connect(&event_loop);
        let data = pattern(3_000_000);
        let lines = |sizes: &[usize]| {
            let mut left = &data[..];
            let mut lines = Vec::new();
            for size in sizes {
                let (line, after) = left.split_at((*size).min(left.len()));
                lines.push(line);
                left = after;
            }
            lines
        };
        let mut expected = Vec::new();
        let sizes: [Vec<usize>; 6] = [
            vec![1; 1000],
            (0..400).collect(),
            vec![300_000, 1, 0, 16_384, 16_385, 245_760, 245_761, 1],
            [vec![1; 127], vec![500_000], vec![1; 127], vec![500_000], vec![0; 5]].concat(),
            vec![10_000; 129],
            vec![3_000_000],
        ];
        for sizes in &sizes {
            let lines = lines(sizes);
            expected.extend(lines.concat());
            ends.transport.writelines(&lines);
        }
        // Told once, after the last line of the call that was too much.
        assert_eq!(ends.log.count(&Pause), 1);
        ends.until_received(&event_loop, expected.len());
        assert!(ends.peer.received == expected, "{way:?}");
        event_loop.ticks(3);
        assert_eq!(ends.log.take(), [Made, Pause, Resume], "{way:?}");
    }
}

/// TLS-021
fn nothing_comes_while_reading_is_paused(on: On) {
    let event_loop = on.event_loop();
    let data = pattern(10_000_000);
    for way in ways() {
        let mut ends = way.connect(&event_loop);
        ends.transport.pause_reading();
        ends.peer.send(&data);
        for _ in 0..50 {
            ends.peer.turn();
            event_loop.ticks(1);
        }
        assert!(!ends.transport.is_reading() && !ends.peer.has_sent());
        assert_eq!(ends.log.items(), [Made], "{way:?}");
        // The other direction flows.
        ends.transport.write(b"meanwhile");
        ends.until_received(&event_loop, 9);
        ends.transport.resume_reading();
        // Not from inside of the call.
        assert_eq!((ends.log.items(), ends.transport.is_reading()), (vec![Made], true));
        ends.until_delivered(&event_loop, data.len());
        assert!(ends.log.received() == data, "{way:?}");
        assert_eq!(ends.log.joined(), [Made, Data(data.len())]);
    }
}

/// TLS-031
fn reading_may_be_paused_before_anything_came(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        // The handshake completes on both sides, or this would hang.
        let pause = |recorder: Recorder| recorder.on_made(|transport| transport.pause_reading());
        let [(one, log), (other, other_log)] = way.connect_both(&event_loop, pause, |other| other);
        assert!(!one.is_reading() && other.is_reading());
        other.write(b"d");
        event_loop.ticks(10);
        assert_eq!((log.items(), other_log.items()), (vec![Made], vec![Made]), "{way:?}");
        one.write(b"from the one that is paused");
        event_loop.until(|| other_log.received_len() == 27);
        assert_eq!(log.items(), [Made]);
        one.resume_reading();
        event_loop.until(|| log.received_len() == 1);
        assert_eq!(log.received(), b"d");
        one.close();
        event_loop.until(|| log.lost() && other_log.lost());

        // Of data that comes with the end of the handshake nothing is delivered either.
        let (log, pair) = (Log::default(), way.kind.pair());
        let mut peer = way.peer(pair.peer);
        let task = event_loop.create_task(way.open(&event_loop, pair.ours, pause(Recorder::new(&log))));
        let mut sent = false;
        event_loop.until(|| {
            peer.receive(usize::MAX);
            if !peer.connection.is_handshaking() && !sent {
                sent = true;
                let sealed = peer.seal(b"early");
                peer.send_sealed(&sealed);
            }
            peer.flush();
            task.done() && sent
        });
        let (transport, _) = event_loop.run(task);
        event_loop.ticks(10);
        assert_eq!(log.items(), [Made], "{way:?}");
        transport.resume_reading();
        assert_eq!(log.items(), [Made]);
        event_loop.until(|| log.received() == b"early");
        transport.abort();
    }
}

/// TLS-021: what was decrypted with it waits as well.
fn data_received_may_pause_in_the_middle_of_a_burst(on: On) {
    let event_loop = on.event_loop();
    let data = pattern(1_000_000);
    for way in ways() {
        fn check<P: asyncio::StreamProtocol<K>, K: 'static>(
            event_loop: &TestLoop,
            way: Way,
            data: &[u8],
            most: usize,
            make: impl FnOnce(Recorder) -> P,
        ) {
            let mut ends = way.connect_with(event_loop, |recorder| {
                make(recorder.on_data(|transport, _| {
                    transport.pause_reading();
                    assert!(!transport.is_reading());
                }))
            });
            ends.peer.send(data);
            let mut rounds = 0;
            while ends.log.received_len() < data.len() {
                let before = ends.log.received_len();
                event_loop.until(|| {
                    ends.peer.turn();
                    ends.log.received_len() > before
                });
                let after = ends.log.received_len();
                assert!(after - before <= most);
                ends.peer.turn();
                event_loop.ticks(2);
                assert_eq!(ends.log.received_len(), after, "{way:?}");
                ends.transport.resume_reading();
                rounds += 1;
            }
            assert!(rounds > 1 && ends.log.received() == data, "{way:?}");
        }
        check(&event_loop, way, &data, 256 << 10, |recorder| recorder);
        check(&event_loop, way, &data, 30_011, |recorder| BufferedRecorder::new(recorder, 30_011));
        check(&event_loop, way, &data[..5000], 100, |recorder| BufferedRecorder::new(recorder, 100));
    }
}

/// TLS-021: one resume is enough, and the last call counts.
fn pauses_are_not_counted(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let mut ends = way.connect(&event_loop);
        ends.transport.resume_reading();
        ends.transport.pause_reading();
        ends.transport.pause_reading();
        ends.peer.send(b"1");
        event_loop.ticks(3);
        assert_eq!(ends.log.items(), [Made]);
        ends.transport.resume_reading();
        ends.transport.resume_reading();
        ends.until_delivered(&event_loop, 1);
        ends.peer.send(b"2");
        ends.transport.pause_reading();
        ends.transport.resume_reading();
        ends.until_delivered(&event_loop, 2);
        ends.peer.send(b"3");
        ends.transport.pause_reading();
        ends.transport.resume_reading();
        ends.transport.pause_reading();
        event_loop.ticks(5);
        assert_eq!(ends.log.take(), [Made, Data(1), Data(1)], "{way:?}");
        ends.transport.resume_reading();
        ends.until_delivered(&event_loop, 3);

        // In the callback.
        let mut ends = way.connect_with(&event_loop, |recorder| {
            let recorder = recorder.on_data(|transport, data| {
                transport.pause_reading();
                transport.resume_reading();
                if data.contains(&b'!') {
                    transport.pause_reading();
                }
            });
            BufferedRecorder::new(recorder, 2)
        });
        ends.peer.send(b"abcd!fgh");
        ends.until_delivered(&event_loop, 6);
        event_loop.ticks(5);
        assert_eq!(ends.log.received(), b"abcd!f", "{way:?}");
        ends.transport.resume_reading();
        ends.until_delivered(&event_loop, 8);
    }
}

/// TLS-004, in part: for protocols that read into memory of their own.
fn buffers_of_every_size_take_everything(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for (size, count) in [(1, 20_000), (100, 200_000), (16_384, 1_000_000), (1 << 20, 3_000_000)] {
            let data = pattern(count);
            let mut ends = way.connect_with(&event_loop, |recorder| BufferedRecorder::new(echo(recorder), size));
            ends.peer.send(&data);
            ends.until_received(&event_loop, count);
            assert!(ends.log.received() == data && ends.peer.received == data, "{way:?}");
            let told = ends.log.items();
            for pair in told[1..].chunks(2) {
                let [Get(Some(hint)), Updated(count)] = *pair else {
                    let flow = pair.iter().any(|told| matches!(told, Pause | Resume));
                    assert!(flow, "{way:?}: {pair:?}");
                    break;
                };
                assert_eq!(count, hint.min(size), "{way:?}");
            }
            ends.end(&event_loop);
        }
    }
}

/// TLS-004, in part: a megabyte byte by byte. Moving what is left for each of them would take minutes.
fn a_small_buffer_costs_no_more_than_its_calls(on: On) {
    let event_loop = on.event_loop();
    let begin = std::time::Instant::now();
    let data = pattern(1_000_000);
    let mut ends = ways()[2].connect_with(&event_loop, |recorder| BufferedRecorder::new(recorder, 1));
    ends.peer.send(&data);
    ends.until_delivered(&event_loop, data.len());
    assert!(ends.log.received() == data);
    assert!(begin.elapsed() < std::time::Duration::from_secs(20), "{:?}", begin.elapsed());
}

/// TLS-029: as a panic there.
fn an_empty_buffer_is_fatal(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let Ends { transport, log, mut peer, .. } =
            way.connect_with(&event_loop, |recorder| BufferedRecorder::new(recorder, 0));
        transport.write(&pattern(LARGE));
        peer.send(b"1");
        event_loop.until(|| log.lost());
        event_loop.ticks(3);
        assert_eq!(log.take(), [Made, Pause, Get(Some(1)), Lost(Some(ErrorKind::Runtime))], "{way:?}");
        let report = report(&event_loop);
        assert!(report.message.contains("get_buffer"), "{}", report.message);
        assert_eq!(report.exception.unwrap().to_string(), log.error().unwrap().to_string());
        assert_eq!(report.extra["protocol"], std::any::type_name::<BufferedRecorder>());
        event_loop.until(|| {
            peer.turn();
            peer.ended
        });
        assert!(peer.received.len() < LARGE && !peer.close_notify);
    }
}

/// TLS-021: what was asked for in it is the last for now.
fn get_buffer_may_pause(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let mut ends = way.connect_with(&event_loop, |recorder| {
            BufferedRecorder::new(recorder, 2).on_get(|transport| transport.pause_reading())
        });
        ends.peer.send(b"abcd");
        ends.until_delivered(&event_loop, 2);
        event_loop.ticks(3);
        assert_eq!(ends.log.take(), [Made, Get(Some(4)), Updated(2)], "{way:?}");
        ends.transport.resume_reading();
        ends.until_delivered(&event_loop, 4);
        assert_eq!(ends.log.take(), [Get(Some(2)), Updated(2)], "{way:?}");
    }
}

/// TLS-032: the next call is the new one's.
fn a_protocol_can_be_replaced_in_its_own_callback(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let log2 = Log::default();
        let next = log2.clone();
        let mut ends = way.connect_with(&event_loop, |recorder| {
            recorder.on_data(move |transport, data| {
                assert_eq!(data, b"first");
                let recorder = Recorder::new(&next).with_transport(transport);
                transport.set_protocol(Rc::new(RefCell::new(BufferedRecorder::new(recorder, 3))));
            })
        });
        ends.peer.send(b"first");
        ends.until_delivered(&event_loop, 5);
        assert_eq!(Rc::strong_count(&ends.protocol), 1);
        ends.peer.send(b"second");
        event_loop.until(|| log2.received_len() == 6);
        let alert = ends.peer.seal_close_notify();
        ends.peer.send_sealed(&alert);
        event_loop.until(|| log2.lost());
        assert_eq!(ends.log.take(), [Made, Data(5)], "{way:?}");
        let told = [Get(Some(6)), Updated(3), Get(Some(3)), Updated(3), Eof, Lost(None)];
        assert_eq!(log2.take(), told, "{way:?}");
    }
}

/// TLS-032: in the middle of what came at once.
fn what_was_decrypted_for_one_protocol_goes_to_the_next(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for in_get in [false, true] {
            for buffered in [false, true] {
                let log2 = Log::default();
                let next = log2.clone();
                let replace = move |transport: &Transport| {
                    let recorder = Recorder::new(&next).with_transport(transport);
                    match buffered {
                        false => transport.set_protocol(Rc::new(RefCell::new(recorder))),
                        true => transport.set_protocol(Rc::new(RefCell::new(BufferedRecorder::new(recorder, 6)))),
                    }
                };
                let mut ends = way.connect_with(&event_loop, |recorder| match in_get {
                    true => BufferedRecorder::new(recorder, 3).on_get(replace),
                    false => BufferedRecorder::new(recorder.on_data(move |transport, _| replace(transport)), 3),
                });
                let sealed = [ends.peer.seal(b"oldand"), ends.peer.seal(b"new"), ends.peer.seal_close_notify()];
                ends.peer.send_sealed(&sealed.concat());
                event_loop.until(|| log2.lost());
                assert_eq!(ends.log.take(), [Made, Get(Some(9)), Updated(3)], "{way:?}");
                assert_eq!((ends.log.received(), log2.received()), (b"old".to_vec(), b"andnew".to_vec()));
                match buffered {
                    false => assert_eq!(log2.take(), [Data(6), Eof, Lost(None)], "{way:?}"),
                    true => assert_eq!(log2.take(), [Get(Some(6)), Updated(6), Eof, Lost(None)], "{way:?}"),
                }
                assert_eq!(Rc::strong_count(&ends.protocol), 1);
            }
        }
    }
}

/// TLS-032: of what the one was told to pause for, the other is told to resume.
fn the_new_protocol_resumes(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let mut ends = way.connect(&event_loop);
        ends.transport.write(&pattern(LARGE));
        let log2 = Log::default();
        let new = Recorder::new(&log2).with_transport(&ends.transport);
        ends.transport.set_protocol(Rc::new(RefCell::new(new)));
        ends.until_received(&event_loop, LARGE);
        event_loop.ticks(2);
        assert_eq!((ends.log.take(), log2.take()), (vec![Made, Pause], vec![Resume]), "{way:?}");
    }
}

/// TLS-021: a borrow of one iteration loses nothing, however often.
fn data_for_a_protocol_that_is_borrowed_shortly_waits(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let Ends { transport, protocol, log, mut peer } = way.connect(&event_loop);
        event_loop.ticks(2);
        for count in 1..10 {
            peer.send(b"x");
            until_readable(&transport);
            let borrowed = protocol.borrow_mut();
            event_loop.ticks(1);
            drop(borrowed);
            event_loop.ticks(1);
            assert_eq!(log.received_len(), count, "{way:?}");
        }
        assert!(!transport.is_closing());
    }
}

/// TLS-029: to be borrowed for long is to fail there, once; the loss comes when it is free.
fn data_for_a_borrowed_protocol_is_fatal(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for by_alert in [false, true] {
            let Ends { transport, protocol, log, mut peer } = way.connect(&event_loop);
            event_loop.ticks(2);
            let borrowed = protocol.borrow_mut();
            let sealed = if by_alert { peer.seal_close_notify() } else { peer.seal(b"data") };
            peer.send_sealed(&sealed);
            until_readable(&transport);
            event_loop.ticks(1);
            // One iteration is nothing yet.
            assert_eq!((event_loop.reports.len(), transport.is_closing()), (0, false));
            event_loop.ticks(1);
            check_borrowed(&event_loop, &transport, "data_received");
            event_loop.ticks(3);
            assert_eq!(log.items(), [Made], "{way:?}");
            drop(borrowed);
            event_loop.until(|| log.lost());
            assert_eq!(log.take(), [Made, Lost(Some(ErrorKind::Runtime))], "{way:?}");
            event_loop.until(|| {
                peer.turn();
                peer.ended
            });
            assert!(!peer.close_notify);
        }
    }
}

/// One report, of a connection that ends.
#[track_caller]
fn check_borrowed(event_loop: &TestLoop, transport: &Transport, callback: &str) {
    let report = report(event_loop);
    let error = report.exception.unwrap();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Runtime, "protocol is borrowed".into()));
    assert!(report.message.contains(callback), "{}", report.message);
    assert!(report.extra["transport"].contains("fd="), "{:?}", report.extra);
    assert!(transport.is_closing());
}

/// TLS-021, TLS-029: as what was not received yet.
fn what_was_decrypted_waits_for_a_borrowed_protocol_as_well(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let pauses = |recorder: Recorder| {
            let recorder = recorder.on_data(|transport, _| transport.pause_reading());
            BufferedRecorder::new(recorder, 3)
        };
        let mut ends = way.connect_with(&event_loop, pauses);
        ends.peer.send(b"abcdefghij");
        ends.until_delivered(&event_loop, 3);
        for count in [6, 9] {
            let borrowed = ends.protocol.borrow_mut();
            ends.transport.resume_reading();
            event_loop.ticks(1);
            drop(borrowed);
            event_loop.ticks(1);
            assert_eq!(ends.log.received_len(), count, "{way:?}");
        }
        let borrowed = ends.protocol.borrow_mut();
        ends.transport.resume_reading();
        event_loop.ticks(1);
        assert_eq!((event_loop.reports.len(), ends.transport.is_closing()), (0, false));
        event_loop.ticks(1);
        check_borrowed(&event_loop, &ends.transport, "data_received");
        drop(borrowed);
        event_loop.until(|| ends.log.lost());
        event_loop.ticks(2);
        assert_eq!(ends.log.received(), b"abcdefghi");
        assert_eq!(ends.log.take().pop(), Some(Lost(Some(ErrorKind::Runtime))), "{way:?}");
    }
}

/// TLS-022: in order, before the data that comes meanwhile.
fn a_borrowed_protocol_is_told_to_pause_later(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let Ends { transport, protocol, log, mut peer } = way.connect(&event_loop);
        event_loop.ticks(2);
        let borrowed = protocol.borrow_mut();
        transport.write(&pattern(LARGE));
        assert!(transport.is_write_paused());
        peer.send(b"data");
        until_readable(&transport);
        event_loop.ticks(1);
        assert_eq!(log.items(), [Made]);
        drop(borrowed);
        event_loop.until(|| log.received_len() == 4);
        assert_eq!(log.take(), [Made, Pause, Data(4)], "{way:?}");

        // Both, while it is borrowed.
        let borrowed = protocol.borrow_mut();
        event_loop.until(|| {
            peer.turn();
            !transport.is_write_paused()
        });
        transport.write(&pattern(LARGE));
        assert_eq!(log.items(), []);
        drop(borrowed);
        event_loop.until(|| log.has(&Pause));
        assert_eq!(log.take(), [Resume, Pause], "{way:?}");
        transport.abort();
        event_loop.until(|| log.lost() && event_loop.has_no_timer());
    }
}

/// TLS-004, in part.
fn records_of_every_size_come_and_go(on: On) {
    let event_loop = on.event_loop();
    let sizes: Vec<usize> = (0..40)
        .chain((41..70_000).step_by(1663))
        .chain([16_383, 16_384, 16_385, 32_768, 65_535, 65_536, 69_999, 70_000])
        .collect();
    for way in ways() {
        let mut ends = way.connect_with(&event_loop, echo);
        let mut expected = Vec::new();
        for size in &sizes {
            let data = &pattern(*size + 7)[7..];
            ends.peer.send(data);
            expected.extend_from_slice(data);
            ends.until_received(&event_loop, expected.len());
            assert!(ends.peer.received == expected, "{way:?}, {size}");
        }
        assert!(ends.log.received() == expected);
        ends.end(&event_loop);
    }
}

/// TLS-004, in part: a segment holds a part of a record, or many and a part.
fn records_come_in_segments_of_any_size(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for (segment, sizes) in [
            (1, &[1, 5, 0, 300, 17][..]),
            (3, &[1000, 1, 1, 1000]),
            (997, &[16_384, 16_384, 40, 50_000]),
            (16_385, &[70_000, 1, 70_000]),
            (50_021, &[200_000, 200_000]),
        ] {
            let mut ends = way.connect_with(&event_loop, echo);
            let (mut sealed, mut expected) = (Vec::new(), Vec::new());
            for size in sizes {
                sealed.extend(ends.peer.seal(&pattern(*size)));
                expected.extend(pattern(*size));
            }
            // The end comes in pieces, too.
            sealed.extend(ends.peer.seal_close_notify());
            for piece in sealed.chunks(segment) {
                ends.peer.send_sealed(piece);
                event_loop.ticks(1);
                ends.peer.turn();
            }
            event_loop.until(|| {
                ends.peer.turn();
                ends.log.lost() && ends.peer.ended
            });
            assert!(ends.log.received() == expected && ends.peer.received == expected, "{way:?}, {segment}");
            assert_eq!(ends.transport.get_extra_info(asyncio::CLOSE_NOTIFY), Some(true));
            let told = ends.log.take();
            assert_eq!(told[told.len() - 2..], [Eof, Lost(None)]);
        }
    }
}

/// TLS-004, in part: and so may the handshake.
fn a_handshake_may_come_byte_by_byte(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let (log, pair) = (Log::default(), way.kind.pair());
        let mut peer = way.peer(pair.peer);
        let task = event_loop.create_task(way.open(&event_loop, pair.ours, echo(Recorder::new(&log))));
        event_loop.until(|| {
            peer.receive(usize::MAX);
            for byte in peer.seal(b"") {
                peer.send_sealed(&[byte]);
                event_loop.ticks(1);
            }
            task.done() && !peer.connection.is_handshaking()
        });
        let (transport, protocol) = event_loop.run(task);
        let mut ends = Ends { transport, protocol, log, peer };
        ends.peer.send(b"data");
        ends.until_received(&event_loop, 4);
        ends.end(&event_loop);
        assert_eq!(ends.log.take(), [Made, Data(4), Eof, Lost(None)], "{way:?}");
    }
}

/// TLS-004, in part: where either side makes its records as small as it may.
fn tiny_records_come_and_go(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for (our_records, peer_records) in [(None, Some(32)), (Some(32), None), (Some(100), Some(1000))] {
            let way = Way { our_records, peer_records, ..way };
            let data = pattern(300_000);
            let mut ends = way.connect_with(&event_loop, echo);
            ends.peer.send(&data);
            ends.until_received(&event_loop, data.len());
            assert!(ends.log.received() == data && ends.peer.received == data, "{way:?}");
            ends.transport.writelines([&data[..], b"", &data]);
            ends.until_received(&event_loop, 3 * data.len());
            ends.end(&event_loop);
        }
    }
}

/// TLS-004, in part.
fn both_directions_flow_at_the_same_time(on: On) {
    let event_loop = on.event_loop();
    let data = pattern(LARGE);
    for way in ways() {
        let [(one, log), (other, other_log)] = way.connect_both(&event_loop, |one| one, |other| other);
        one.write(&data);
        other.write(&data);
        event_loop.until(|| log.received_len() == LARGE && other_log.received_len() == LARGE);
        assert!(log.received() == data && other_log.received() == data, "{way:?}");
        one.close();
        event_loop.until(|| log.lost() && other_log.lost());
        assert_eq!((log.count(&Pause), log.count(&Resume)), (1, 1), "{way:?}");
        assert_eq!((other_log.count(&Pause), other_log.count(&Resume)), (1, 1), "{way:?}");
    }
}

/// The ways in which a key can be updated.
fn ways_with_key_updates() -> impl Iterator<Item = Way> {
    ways().into_iter().filter(|way| way.version == TlsVersion::V1_3)
}

/// TLS-004, in part: in the middle of traffic, and again and again.
fn a_key_update_changes_nothing_for_the_protocol(on: On) {
    let event_loop = on.event_loop();
    for way in ways_with_key_updates() {
        let mut ends = way.connect_with(&event_loop, echo);
        let mut expected = Vec::new();
        for (round, size) in [1, 100, 16_385, 300_000, 2_000_000].into_iter().enumerate() {
            let data = pattern(size);
            ends.peer.send(&data);
            // Behind the data and before the next, in one segment with both where they are small.
            for _ in 0..=round {
                ends.peer.connection.refresh_traffic_keys().unwrap();
            }
            ends.peer.send(&data);
            expected.extend_from_slice(&data);
            expected.extend_from_slice(&data);
            ends.until_received(&event_loop, expected.len());
            assert!(ends.peer.received == expected && ends.log.received() == expected, "{way:?}");
        }
        // While much of ours waits to be written, with the keys of before.
        ends.transport.write(&pattern(LARGE));
        ends.peer.connection.refresh_traffic_keys().unwrap();
        ends.peer.send(b"after");
        event_loop.until(|| {
            ends.peer.flush();
            ends.log.received_len() == expected.len() + 5
        });
        ends.until_received(&event_loop, expected.len() + LARGE + 5);
        assert_eq!(&ends.peer.received[expected.len() + LARGE..], b"after");
        ends.end(&event_loop);
    }
}

/// TLS-004, in part: also where nothing comes that would be answered.
fn a_key_update_is_answered_with_what_is_written_next(on: On) {
    let event_loop = on.event_loop();
    for way in ways_with_key_updates() {
        for paused in [false, true] {
            let mut ends = way.connect(&event_loop);
            for round in 1..=3 {
                if paused {
                    ends.transport.pause_reading();
                }
                ends.peer.connection.refresh_traffic_keys().unwrap();
                ends.peer.turn();
                event_loop.ticks(3);
                ends.transport.write(b"one");
                ends.transport.resume_reading();
                event_loop.ticks(3);
                ends.transport.writelines(["two", "three"]);
                ends.until_received(&event_loop, round * 11);
            }
            ends.peer.send(b"still here");
            ends.until_delivered(&event_loop, 10);
            assert!(ends.peer.received == b"onetwothree".repeat(3));
            ends.end(&event_loop);
            assert_eq!(ends.log.take(), [Made, Data(10), Eof, Lost(None)], "{way:?}");
        }
    }
}

/// TLS-013: the answer to it comes before the close alert.
fn a_key_update_may_be_the_last_thing_before_a_close(on: On) {
    let event_loop = on.event_loop();
    for way in ways_with_key_updates() {
        for by_us in [true, false] {
            let mut ends = way.connect(&event_loop);
            ends.peer.connection.refresh_traffic_keys().unwrap();
            ends.peer.turn();
            event_loop.ticks(3);
            if by_us {
                ends.transport.close();
                event_loop.until(|| {
                    ends.peer.turn();
                    ends.peer.close_notify
                });
                // One more, behind our close.
                ends.peer.connection.refresh_traffic_keys().unwrap();
                ends.peer.send(b"discarded");
            }
            ends.end(&event_loop);
            assert_eq!(ends.log.take(), [Made, Eof, Lost(None)], "{way:?}");
        }
    }
}
