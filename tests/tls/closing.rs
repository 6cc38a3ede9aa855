//! What these tests show: how TLS connections end, in order or not; with a peer that is driven by the test.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    time::Duration,
};

use asyncio::{CLOSE_NOTIFY, ErrorKind, ExceptionContext, Protocol, Transport};

use crate::{
    certificates,
    peers::{Ends, Way, ways},
    support::{
        loops::{On, TestLoop},
        transports::{Told::*, *},
    },
    tls_client, tls_server,
};

on_each_selector! {
    each_side_hears_the_end_and_then_the_loss_once
    both_sides_close_at_the_same_time
    a_last_write_comes_before_the_end
    there_is_no_half_open_tls
    a_peer_that_never_answers_is_waited_for_as_long_as_was_said
    an_abort_ends_it_in_the_next_iteration
    an_abort_is_an_end_for_the_other_side
    ten_megabytes_come_before_the_end_of_a_slow_connection
    a_slow_peer_that_goes_on_gets_everything_however_long_it_takes
    a_peer_that_stops_to_read_is_given_up
    a_close_while_paused_discards_what_was_not_read
    a_close_while_paused_needs_no_data
    the_peer_may_close_while_megabytes_wait_for_it
    after_the_peer_has_closed_writes_are_nothing
    a_reset_is_the_error_of_the_loss
    what_is_no_tls_is_the_error_of_the_loss
    what_is_done_with_what_came_before_the_garbage_is_no_panic
    what_comes_behind_the_close_alert_is_nothing
    a_peer_that_goes_without_having_read_its_tickets_is_no_failure
    what_came_before_the_garbage_is_delivered
    panics_where_data_is_received_are_fatal
    a_panic_in_connection_made_is_fatal
    other_panics_are_reported_and_change_nothing
    a_new_protocol_hears_the_rest
    an_end_without_an_alert_is_an_end
    an_end_in_the_middle_of_a_record_is_an_end
    an_answer_without_an_alert_ends_our_close
    a_peer_that_goes_without_waiting_for_us_is_no_failure
    what_is_no_tls_behind_our_close_is_the_error_of_the_loss
    close_works_in_every_callback
    abort_works_in_every_callback
    close_and_abort_may_be_called_again
    a_close_alert_waits_while_reading_is_paused
    data_and_alert_in_one_segment_come_in_order
    what_follows_the_close_alert_is_nothing
    the_last_words_may_be_said_at_the_end
    closing_the_loop_lets_go_of_connections_in_every_state
    closing_the_loop_lets_go_of_handshakes
    without_handles_the_connection_goes_on
    no_timer_is_left_after_the_loss
}

/// So many bytes are more than the system takes from a side whose peer does not read.
const LARGE: usize = 8_000_000;

/// The only report that there was.
#[track_caller]
fn report(event_loop: &TestLoop) -> ExceptionContext {
    let mut reports = event_loop.reports.take();
    assert_eq!(reports.len(), 1, "{reports:?}");
    reports.remove(0)
}

/// Whether the error of the loss was a reset.
fn is_reset(log: &Log) -> bool {
    log.error().is_some_and(|error| std::io::Error::from(error).kind() == std::io::ErrorKind::ConnectionReset)
}

impl<P> Ends<P> {
    /// The peer reads on to our close alert and answers it, until the connection has ended on both sides.
    #[track_caller]
    fn end_in_order(&mut self, event_loop: &TestLoop) {
        self.until_close_notify(event_loop);
        self.answer(event_loop);
    }

    #[track_caller]
    fn until_close_notify(&mut self, event_loop: &TestLoop) {
        event_loop.until(|| {
            self.peer.turn();
            self.peer.close_notify
        });
    }

    /// The peer says that it sends no more, and waits for the end.
    #[track_caller]
    fn answer(&mut self, event_loop: &TestLoop) {
        let alert = self.peer.seal_close_notify();
        self.peer.send_sealed(&alert);
        event_loop.until(|| {
            self.peer.turn();
            self.log.lost() && self.peer.ended
        });
    }
}

/// TLS-013
fn each_side_hears_the_end_and_then_the_loss_once(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let [(one, log), (other, other_log)] = way.connect_both(&event_loop, |one| one, |other| other);
        one.close();
        // Nothing is called from inside of close().
        assert_eq!((log.items(), other_log.items()), (vec![Made], vec![Made]), "{way:?}");
        assert!(one.is_closing() && !one.is_reading());
        one.write(b"late");
        one.writelines(["late", "er"]);
        event_loop.until(|| log.lost() && other_log.lost());
        assert!(other.is_closing());
        for transport in [&one, &other] {
            transport.write(b"late");
            transport.close();
            assert_eq!(transport.get_extra_info(CLOSE_NOTIFY), Some(true), "{way:?}");
            assert!(transport.with_fd(|_| ()).is_none());
        }
        event_loop.ticks(5);
        assert_eq!((log.take(), other_log.take()), (vec![Made, Eof, Lost(None)], vec![Made, Eof, Lost(None)]));
    }
}

/// TLS-013: neither waits for the other, and what crosses the closes is discarded.
fn both_sides_close_at_the_same_time(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for data in [&b""[..], b"crosses"] {
            let [(one, log), (other, other_log)] = way.connect_both(&event_loop, |one| one, |other| other);
            for transport in [&one, &other] {
                transport.write(data);
                transport.close();
            }
            event_loop.until(|| log.lost() && other_log.lost());
            event_loop.ticks(3);
            assert_eq!((log.take(), other_log.take()), (vec![Made, Eof, Lost(None)], vec![Made, Eof, Lost(None)]));
        }
    }
}

/// TLS-014
fn a_last_write_comes_before_the_end(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let [(one, log), (_other, other_log)] = way.connect_both(&event_loop, |one| one, Recorder::keep_open);
        one.write(b"last");
        one.close();
        event_loop.until(|| log.lost() && other_log.lost());
        event_loop.ticks(3);
        assert_eq!(other_log.received(), b"last");
        assert_eq!(other_log.take(), [Made, Data(4), Eof, Lost(None)], "{way:?}");
        assert_eq!(log.take(), [Made, Eof, Lost(None)], "{way:?}");
    }
}

/// TLS-014: this side's close alert answers the other's at once, whatever `eof_received` says.
fn there_is_no_half_open_tls(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for keep in [true, false] {
            let mut ends = way.connect_with(&event_loop, |recorder| recorder.on_eof(move |_| keep));
            ends.answer(&event_loop);
            assert!(ends.peer.close_notify, "{way:?}");
            assert_eq!(ends.log.take(), [Made, Eof, Lost(None)], "{way:?}");
        }
    }
}

/// TLS-016
fn a_peer_that_never_answers_is_waited_for_as_long_as_was_said(on: On) {
    let (event_loop, clock) = on.virtual_loop();
    for way in ways() {
        for talks_on in [false, true] {
            let way = Way { shutdown_timeout: Some(Duration::from_millis(300)), ..way };
            let Ends { transport, log, mut peer, .. } = way.connect(&event_loop);
            transport.close();
            peer.turn();
            assert!(peer.close_notify);
            clock.advance(Duration::from_millis(299));
            if talks_on {
                // That is no answer.
                peer.send(b"but");
            }
            event_loop.ticks(5);
            assert_eq!(log.items(), [Made], "{way:?}");
            assert!(!peer.ended);
            clock.advance(Duration::from_millis(1));
            event_loop.ticks(3);
            assert_eq!(log.take(), [Made, Lost(Some(ErrorKind::Timeout))], "{way:?}");
            assert!(log.error().unwrap().to_string().contains("shutdown"), "{:?}", log.error());
            assert!(event_loop.has_no_timer());
            event_loop.until(|| {
                peer.turn();
                peer.ended
            });
        }
    }
}

/// TLS-018
fn an_abort_ends_it_in_the_next_iteration(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for buffered in [0, LARGE] {
            let Ends { transport, log, mut peer, .. } = way.connect(&event_loop);
            transport.write(&pattern(buffered));
            log.take();
            transport.abort();
            assert!(transport.is_closing());
            assert_eq!(log.items(), [], "{way:?}");
            event_loop.ticks(1);
            assert_eq!(log.take(), [Lost(None)], "{way:?}");
            assert_eq!(transport.get_write_buffer_size(), 0);
            event_loop.until(|| {
                peer.turn();
                peer.ended
            });
            // What waited is dropped, and nothing says that it was all.
            assert!(!peer.close_notify && (buffered == 0 || peer.received.len() < LARGE), "{way:?}");
        }
    }
}

/// TLS-018: as its other side hears it.
fn an_abort_is_an_end_for_the_other_side(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let [(one, log), (other, other_log)] = way.connect_both(&event_loop, |one| one, |other| other);
        one.abort();
        event_loop.until(|| log.lost() && other_log.lost());
        assert_eq!(log.take(), [Made, Lost(None)], "{way:?}");
        let told = other_log.take();
        let reset = told == [Made, Lost(Some(ErrorKind::Io))] && is_reset(&other_log);
        assert!(told == [Made, Eof, Lost(None)] || reset, "{way:?}: {told:?}");
        assert_eq!(other.get_extra_info(CLOSE_NOTIFY), Some(false));
    }
}

/// TLS-020
fn ten_megabytes_come_before_the_end_of_a_slow_connection(on: On) {
    let event_loop = on.event_loop();
    let data = pattern(10_000_000);
    for way in ways() {
        let mut ends = way.connect(&event_loop);
        ends.transport.write(&data);
        ends.transport.close();
        assert!(ends.transport.get_write_buffer_size() > 0);
        event_loop.until(|| {
            ends.peer.receive(300_000);
            ends.peer.close_notify
        });
        assert!(ends.peer.received == data, "{way:?}");
        ends.answer(&event_loop);
        assert_eq!(ends.log.take(), [Made, Pause, Resume, Eof, Lost(None)], "{way:?}");
    }
}

/// TLS-020: the limit of the shutdown begins anew while the buffer shrinks.
fn a_slow_peer_that_goes_on_gets_everything_however_long_it_takes(on: On) {
    let (event_loop, clock) = on.virtual_loop();
    let data = pattern(600_000);
    for way in ways() {
        let way = Way { shutdown_timeout: Some(Duration::from_millis(300)), small: true, ..way };
        let mut ends = way.connect(&event_loop);
        ends.transport.write(&data);
        ends.transport.close();
        let mut rounds = 0;
        while ends.transport.get_write_buffer_size() > 0 {
            let before = ends.transport.get_write_buffer_size();
            event_loop.until(|| {
                ends.peer.receive(20_000);
                ends.transport.get_write_buffer_size() + 50_000 < before.max(50_001)
            });
            clock.advance(Duration::from_millis(250));
            event_loop.ticks(2);
            rounds += 1;
        }
        // Many times the limit.
        assert!(rounds >= 6, "{rounds}");
        ends.until_close_notify(&event_loop);
        assert!(ends.peer.received == data, "{way:?}");
        ends.answer(&event_loop);
        assert_eq!(ends.log.take(), [Made, Pause, Resume, Eof, Lost(None)], "{way:?}");
    }
}

/// TLS-016, TLS-020: a peer that does not read is given up after the limit, and so is one that stops.
fn a_peer_that_stops_to_read_is_given_up(on: On) {
    let (event_loop, clock) = on.virtual_loop();
    for way in ways() {
        for reads_first in [0, 3_000_000] {
            // Both after our close and after its own.
            for by_peer in [false, true] {
                let way = Way { shutdown_timeout: Some(Duration::from_millis(300)), ..way };
                let Ends { transport, log, mut peer, .. } = way.connect(&event_loop);
                transport.write(&pattern(LARGE));
                if by_peer {
                    let alert = peer.seal_close_notify();
                    peer.send_sealed(&alert);
                    event_loop.until(|| transport.is_closing());
                } else {
                    transport.close();
                }
                event_loop.until(|| {
                    peer.receive(reads_first.min(100_000));
                    peer.received.len() + 100_000 >= reads_first
                });
                // The first limit may pass for what was written meanwhile.
                for _ in 0..3 {
                    event_loop.ticks(3);
                    clock.advance(Duration::from_millis(299));
                }
                event_loop.ticks(3);
                clock.advance(Duration::from_millis(2));
                event_loop.ticks(5);
                assert!(log.lost(), "{way:?}");
                let told: Vec<_> = log.take().into_iter().filter(|told| *told != Resume).collect();
                let lost = Lost(Some(ErrorKind::Timeout));
                let expected = if by_peer { vec![Made, Pause, Eof, lost] } else { vec![Made, Pause, lost] };
                assert_eq!(told, expected, "{way:?}");
                assert!(log.error().unwrap().to_string().contains("shutdown"));
                event_loop.until(|| {
                    peer.turn();
                    peer.ended
                });
                assert!(peer.received.len() < LARGE && !peer.close_notify);
            }
        }
    }
}

/// TLS-024
fn a_close_while_paused_discards_what_was_not_read(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        // In the system.
        let mut ends = way.connect(&event_loop);
        ends.transport.pause_reading();
        ends.peer.send(b"trailing data");
        event_loop.ticks(3);
        ends.transport.close();
        ends.peer.send(b"and more");
        ends.end_in_order(&event_loop);
        assert_eq!(ends.log.take(), [Made, Eof, Lost(None)], "{way:?}");

        // Decrypted already: the protocol paused in the middle of it.
        let mut ends = way.connect_with(&event_loop, |recorder| {
            BufferedRecorder::new(recorder.on_data(|transport, _| transport.pause_reading()), 5)
        });
        ends.peer.send(b"trailing data");
        event_loop.until(|| ends.log.received_len() == 5);
        ends.transport.close();
        ends.end_in_order(&event_loop);
        assert_eq!(ends.log.take(), [Made, Get(Some(13)), Updated(5), Eof, Lost(None)], "{way:?}");

        // And the peer has closed as well.
        let Ends { transport, log, mut peer, .. } =
            way.connect_with(&event_loop, |recorder| recorder.on_data(|transport, _| transport.pause_reading()));
        let sealed = [peer.seal(b"data"), peer.seal_close_notify()].concat();
        peer.send_sealed(&sealed);
        event_loop.until(|| log.received_len() == 4);
        event_loop.ticks(2);
        transport.close();
        assert_eq!(log.items(), [Made, Data(4)], "{way:?}");
        event_loop.until(|| {
            peer.turn();
            log.lost() && peer.ended
        });
        assert!(peer.close_notify);
        assert_eq!(log.take(), [Made, Data(4), Eof, Lost(None)], "{way:?}");

        // More than the system takes at once.
        let mut ends = way.connect(&event_loop);
        ends.transport.pause_reading();
        ends.peer.send(&pattern(LARGE));
        assert!(!ends.peer.has_sent());
        event_loop.ticks(3);
        ends.transport.close();
        ends.end_in_order(&event_loop);
        assert_eq!(ends.log.take(), [Made, Eof, Lost(None)], "{way:?}");
    }
}

/// TLS-013, TLS-024: with nothing to discard.
fn a_close_while_paused_needs_no_data(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let mut ends = way.connect(&event_loop);
        ends.transport.pause_reading();
        ends.transport.close();
        // Of no effect any more.
        ends.transport.resume_reading();
        ends.transport.pause_reading();
        assert!(!ends.transport.is_reading());
        ends.end_in_order(&event_loop);
        assert_eq!(ends.log.take(), [Made, Eof, Lost(None)], "{way:?}");
    }
}

/// TLS-026
fn the_peer_may_close_while_megabytes_wait_for_it(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        // The system may take the first of these.
        for size in [4_000_000, LARGE] {
            let Ends { transport, log, mut peer, .. } = way.connect(&event_loop);
            transport.write(&pattern(size));
            let alert = peer.seal_close_notify();
            peer.send_sealed(&alert);
            event_loop.until(|| log.has(&Eof));
            assert!(transport.get_write_buffer_size() > 0 || size < LARGE);
            event_loop.until(|| {
                peer.turn();
                log.lost() && peer.ended
            });
            assert!(peer.received == pattern(size) && peer.close_notify, "{way:?}");
            let told: Vec<_> = log.take().into_iter().filter(|told| ![Pause, Resume].contains(told)).collect();
            assert_eq!(told, [Made, Eof, Lost(None)], "{way:?}");
        }
    }
}

/// TLS-027
fn after_the_peer_has_closed_writes_are_nothing(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for in_order in [true, false] {
            let Ends { transport, log, mut peer, .. } = way.connect(&event_loop);
            if in_order {
                let alert = peer.seal_close_notify();
                peer.send_sealed(&alert);
            }
            drop(peer);
            event_loop.until(|| log.lost());
            for _ in 0..25 {
                transport.write(b"late");
                transport.try_write(b"late").unwrap();
                transport.writelines([&pattern(1000), &pattern(2000)]);
                assert_eq!(transport.get_write_buffer_size(), 0);
                event_loop.ticks(1);
            }
            assert_eq!(log.take(), [Made, Eof, Lost(None)], "{way:?}");
        }
    }
}

/// TLS-028
fn a_reset_is_the_error_of_the_loss(on: On) {
    let event_loop = on.event_loop();
    let ways = ways().into_iter().filter(|way| way.kind == PairKind::Tcp);
    for way in ways {
        let Ends { transport, log, peer, .. } = way.connect(&event_loop);
        peer.socket.reset();
        event_loop.until(|| log.lost());
        assert_eq!(log.take(), [Made, Lost(Some(ErrorKind::Io))], "{way:?}");
        assert!(is_reset(&log), "{:?}", log.error());
        assert_eq!(transport.get_extra_info(CLOSE_NOTIFY), Some(false));
        transport.write(b"late");
        transport.close();
    }
}

/// TLS-028
fn what_is_no_tls_is_the_error_of_the_loss(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for garbage in [&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], &[0xff; 300], &pattern(50_000)] {
            let Ends { transport, log, mut peer, .. } = way.connect(&event_loop);
            transport.write(b"before");
            peer.send_sealed(garbage);
            event_loop.until(|| {
                peer.turn();
                log.lost() && peer.ended
            });
            assert_eq!(log.take(), [Made, Lost(Some(ErrorKind::Ssl))], "{way:?}");
            assert_eq!(peer.received, b"before");
            // The peer is told, if it still listens.
            assert!(peer.error.is_some() || garbage.len() > 40_000, "{way:?}");
        }
        // A record that was changed on its way.
        let Ends { log, mut peer, .. } = way.connect(&event_loop);
        let mut sealed = peer.seal(b"something");
        *sealed.last_mut().unwrap() ^= 1;
        peer.send_sealed(&sealed);
        event_loop.until(|| log.lost());
        assert_eq!(log.take(), [Made, Lost(Some(ErrorKind::Ssl))], "{way:?}");
    }
}

/// TLS-028: a session that has failed is not asked again, by whatever the protocol does with what was right.
fn what_is_done_with_what_came_before_the_garbage_is_no_panic(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for closes in [false, true] {
            let answer = move |transport: &Transport, data: &[u8]| match closes {
                false => transport.write(data),
                true => transport.close(),
            };
            let Ends { log, mut peer, .. } = way.connect_with(&event_loop, |recorder| recorder.on_data(answer));
            let right = peer.seal(b"right");
            let mut wrong = peer.seal(b"wrong");
            *wrong.last_mut().unwrap() ^= 1;
            peer.send_sealed(&[right, wrong].concat());
            event_loop.until(|| log.lost());
            assert_eq!(log.take(), [Made, Data(5), Lost(Some(ErrorKind::Ssl))], "{way:?}");
            assert!(log.error().unwrap().to_string().contains('[') || way.kind != PairKind::Tcp);
        }
    }
}

/// TLS-014: it is over with the close alert, whatever comes behind it.
fn what_comes_behind_the_close_alert_is_nothing(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let Ends { log, mut peer, .. } = way.connect(&event_loop);
        let sealed = [peer.seal(b"last"), peer.seal_close_notify(), pattern(200_000)].concat();
        peer.send_sealed(&sealed);
        event_loop.until(|| {
            peer.flush();
            log.lost()
        });
        assert_eq!(log.joined()[..3], [Made, Data(4), Eof], "{way:?}");
        assert!(log.error().is_none_or(|_| is_reset(&log)), "{:?}", log.error());
    }
}

/// TLS-013: a peer that never reads is answered by the system with a reset, which is not ours to report.
fn a_peer_that_goes_without_having_read_its_tickets_is_no_failure(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let Ends { log, mut peer, .. } = way.connect(&event_loop);
        let sealed = [peer.seal(b"last"), peer.seal_close_notify()].concat();
        peer.send_sealed(&sealed);
        drop(peer);
        event_loop.until(|| log.lost());
        assert_eq!(log.take(), [Made, Data(4), Eof, Lost(None)], "{way:?}");
    }
}

/// TLS-028: what was right and came in one segment with what is not.
fn what_came_before_the_garbage_is_delivered(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let Ends { log, mut peer, .. } = way.connect(&event_loop);
        let sealed = [&peer.seal(b"right")[..], &peer.seal(b"too"), &[0xff; 100]].concat();
        peer.send_sealed(&sealed);
        event_loop.until(|| log.lost());
        assert_eq!(log.joined(), [Made, Data(8), Lost(Some(ErrorKind::Ssl))], "{way:?}");

        let Ends { log, mut peer, .. } = way.connect_with(&event_loop, |recorder| BufferedRecorder::new(recorder, 3));
        let sealed = [&peer.seal(b"right")[..], &peer.seal(b"too"), &[0xff; 100]].concat();
        peer.send_sealed(&sealed);
        event_loop.until(|| log.lost());
        assert_eq!(log.received(), b"righttoo", "{way:?}");
        assert_eq!(log.take().pop(), Some(Lost(Some(ErrorKind::Ssl))), "{way:?}");
    }
}

/// TLS-029
fn panics_where_data_is_received_are_fatal(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for callback in ["data_received", "eof_received"] {
            let mut ends = way.connect_with(&event_loop, |recorder| match callback {
                "data_received" => recorder.on_data(|_, _| panic!("boom")),
                _ => recorder.on_eof(|_| panic!("boom")),
            });
            ends.transport.write(&pattern(LARGE));
            assert_eq!(ends.log.take(), [Made, Pause]);
            let sealed = [ends.peer.seal(b"data"), ends.peer.seal_close_notify()].concat();
            ends.peer.send_sealed(&sealed);
            check_fatal(&event_loop, &mut ends, callback);
            let lost = Lost(Some(ErrorKind::Panicked));
            let expected = if callback == "data_received" { vec![Data(4), lost] } else { vec![Data(4), Eof, lost] };
            assert_eq!(ends.log.take(), expected, "{way:?}");
        }
        for callback in ["get_buffer", "buffer_updated"] {
            let mut ends = way.connect_with(&event_loop, |recorder| match callback {
                "get_buffer" => BufferedRecorder::new(recorder, 3).on_get(|_| panic!("boom")),
                _ => BufferedRecorder::new(recorder.on_data(|_, _| panic!("boom")), 3),
            });
            ends.transport.write(&pattern(LARGE));
            ends.peer.send(b"data");
            check_fatal(&event_loop, &mut ends, callback);
            let lost = Lost(Some(ErrorKind::Panicked));
            match callback {
                "get_buffer" => assert_eq!(ends.log.take(), [Made, Pause, Get(Some(4)), lost]),
                _ => assert_eq!(ends.log.take(), [Made, Pause, Get(Some(4)), Updated(3), lost]),
            }
        }
    }
}

/// One report, and the panic is what the connection was lost with.
#[track_caller]
fn check_fatal<P>(event_loop: &TestLoop, ends: &mut Ends<P>, callback: &str) {
    event_loop.until(|| ends.log.lost());
    event_loop.ticks(3);
    let report = report(event_loop);
    assert!(report.message.contains(callback) && report.message.contains("Fatal"), "{}", report.message);
    assert!(report.exception.unwrap().to_string().contains("boom"));
    assert!(ends.log.error().unwrap().to_string().contains("boom"));
    assert_eq!(ends.transport.get_write_buffer_size(), 0);
    event_loop.until(|| {
        ends.peer.turn();
        ends.peer.ended
    });
    assert!(ends.peer.received.len() < LARGE && !ends.peer.close_notify);
}

/// TLS-029: the end of a handshake is received as well.
fn a_panic_in_connection_made_is_fatal(on: On) {
    let event_loop = on.event_loop();
    let (log, server_log) = (Log::default(), Log::default());
    let of_server = server_log.clone();
    let panics = Rc::new(Cell::new(false));
    let at_server = panics.clone();
    let (server, address) = tls_server(&event_loop, move || {
        let panics = at_server.clone();
        Recorder::new(&of_server).on_made(move |_| assert!(!panics.get(), "boom"))
    });
    let connecting = || {
        event_loop
            .create_connection(|| Recorder::new(&log).on_made(|_| panic!("boom")), address)
            .ssl(&certificates::client())
            .server_hostname("localhost")
    };
    let error = event_loop.fails(connecting());
    assert!(error.kind() == ErrorKind::Panicked && error.to_string().contains("boom"), "{error}");
    event_loop.until(|| log.lost() && server_log.lost());
    assert_eq!(log.take(), [Made, Lost(Some(ErrorKind::Panicked))]);
    let told = report(&event_loop);
    assert!(told.message.contains("connection_made") && told.message.contains("Fatal"), "{}", told.message);
    server_log.take();

    panics.set(true);
    let (transport, _) = tls_client(&event_loop, address, || Recorder::new(&log));
    event_loop.until(|| log.lost() && server_log.lost());
    assert!(transport.is_closing());
    assert_eq!(server_log.take(), [Made, Lost(Some(ErrorKind::Panicked))]);
    let told = report(&event_loop);
    assert!(told.message.contains("connection_made") && told.message.contains("Fatal"), "{}", told.message);
    server.close();
}

/// TLS-029: the others are not where anything is received.
fn other_panics_are_reported_and_change_nothing(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for callback in ["pause_writing", "resume_writing", "connection_lost"] {
            let mut ends = way.connect_with(&event_loop, |recorder| match callback {
                "pause_writing" => recorder.on_pause(|_| panic!("boom")),
                "resume_writing" => recorder.on_resume(|_| panic!("boom")),
                _ => recorder.on_lost(|_, _| panic!("boom")),
            });
            ends.transport.write(&pattern(LARGE));
            event_loop.until(|| {
                ends.peer.turn();
                ends.peer.received.len() == LARGE
            });
            ends.peer.send(b"data");
            event_loop.until(|| ends.log.received() == b"data");
            ends.transport.close();
            ends.end_in_order(&event_loop);
            assert_eq!(ends.log.take(), [Made, Pause, Resume, Data(4), Eof, Lost(None)], "{way:?}");
            let report = report(&event_loop);
            assert!(report.message.contains(callback), "{}", report.message);
            assert!(report.exception.unwrap().to_string().contains("boom"));
        }
    }
}

/// TLS-032
fn a_new_protocol_hears_the_rest(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for buffered in [false, true] {
            let mut ends = way.connect(&event_loop);
            let (log, late) = (Log::default(), Rc::downgrade(&ends.protocol));
            let recorder = Recorder::new(&log).with_transport(&ends.transport);
            if buffered {
                let new = Rc::new(RefCell::new(BufferedRecorder::new(recorder, 10)));
                ends.transport.set_protocol(new.clone());
                assert!(Rc::ptr_eq(&ends.transport.get_protocol::<BufferedRecorder>().unwrap(), &new));
                assert!(ends.transport.get_protocol::<Recorder>().is_none());
            } else {
                ends.transport.set_protocol(Rc::new(RefCell::new(recorder)));
            }
            assert_eq!(Rc::strong_count(&ends.protocol), 1);
            drop(ends.protocol);
            assert!(late.upgrade().is_none());
            ends.peer.send(b"1");
            event_loop.until(|| log.received() == b"1");
            let alert = ends.peer.seal_close_notify();
            ends.peer.send_sealed(&alert);
            event_loop.until(|| log.lost());
            event_loop.ticks(3);
            let told = log.take();
            match buffered {
                false => assert_eq!(told, [Data(1), Eof, Lost(None)], "{way:?}"),
                true => assert_eq!(told, [Get(Some(1)), Updated(1), Eof, Lost(None)], "{way:?}"),
            }
            assert_eq!(ends.log.take(), [Made], "{way:?}");
            // After the loss none is taken.
            ends.transport.set_protocol(Rc::new(RefCell::new(Recorder::new(&log))));
            assert!(ends.transport.get_protocol::<Recorder>().is_none());
        }
    }
}

/// TLS-034, but for streams.
fn an_end_without_an_alert_is_an_end(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for keep in [true, false] {
            let Ends { transport, log, mut peer, .. } =
                way.connect_with(&event_loop, |recorder| recorder.on_eof(move |_| keep));
            peer.send(b"x");
            peer.socket.half_close();
            event_loop.until(|| {
                peer.receive(usize::MAX);
                log.lost() && peer.ended
            });
            event_loop.ticks(3);
            assert_eq!(log.take(), [Made, Data(1), Eof, Lost(None)], "{way:?}");
            assert_eq!(transport.get_extra_info(CLOSE_NOTIFY), Some(false), "{way:?}");
            // We do it right.
            assert!(peer.close_notify, "{way:?}");
        }
    }
}

/// TLS-034: a part of a record is nothing.
fn an_end_in_the_middle_of_a_record_is_an_end(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        // Of its header, of its body, and all but the last byte.
        for part in [1, 4, 5, 6, 20, usize::MAX] {
            let Ends { transport, log, mut peer, .. } = way.connect(&event_loop);
            let (whole, lost) = (peer.seal(b"x"), peer.seal(b"lost"));
            peer.send_sealed(&[&whole, &lost[..part.min(lost.len() - 1)]].concat());
            peer.socket.half_close();
            event_loop.until(|| log.lost());
            assert_eq!(log.take(), [Made, Data(1), Eof, Lost(None)], "{way:?}");
            assert_eq!(transport.get_extra_info(CLOSE_NOTIFY), Some(false), "{way:?}");
        }
    }
}

/// TLS-013, TLS-034: the other side's end of TCP is enough.
fn an_answer_without_an_alert_ends_our_close(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let mut ends = way.connect(&event_loop);
        ends.transport.close();
        ends.until_close_notify(&event_loop);
        ends.peer.socket.half_close();
        event_loop.until(|| ends.log.lost());
        assert_eq!(ends.log.take(), [Made, Eof, Lost(None)], "{way:?}");
        assert_eq!(ends.transport.get_extra_info(CLOSE_NOTIFY), Some(false), "{way:?}");
    }
}

/// TLS-013, TLS-034: where our close alert finds nobody who would read it.
fn a_peer_that_goes_without_waiting_for_us_is_no_failure(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for in_order in [true, false] {
            for closes in [true, false] {
                let Ends { transport, log, mut peer, .. } = way.connect(&event_loop);
                if in_order {
                    let alert = peer.seal_close_notify();
                    peer.send_sealed(&alert);
                }
                peer.turn();
                drop(peer);
                if closes {
                    transport.close();
                    assert_eq!(log.items(), [Made]);
                }
                event_loop.until(|| log.lost());
                event_loop.ticks(3);
                assert_eq!(log.take(), [Made, Eof, Lost(None)], "{way:?}, {in_order}, {closes}");
            }
        }
        // Something else that it does not read is lost, and that is one.
        let Ends { transport, log, peer, .. } = way.connect(&event_loop);
        transport.write(&pattern(LARGE));
        drop(peer);
        transport.close();
        event_loop.until(|| log.lost());
        assert_eq!(log.items().pop(), Some(Lost(Some(ErrorKind::Io))), "{way:?}");
    }
}

/// TLS-028: after our close alert, too, and there is no other after that one.
fn what_is_no_tls_behind_our_close_is_the_error_of_the_loss(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let mut ends = way.connect(&event_loop);
        ends.transport.close();
        ends.until_close_notify(&event_loop);
        ends.peer.send_sealed(b"GET / HTTP/1.1\r\n\r\n");
        event_loop.until(|| {
            ends.peer.turn();
            ends.log.lost() && ends.peer.ended
        });
        assert_eq!(ends.log.take(), [Made, Lost(Some(ErrorKind::Ssl))], "{way:?}");
    }
}

/// Makes something happen in the callback of this name.
fn call_in(callback: &'static str, recorder: Recorder, call: fn(&Transport)) -> Recorder {
    match callback {
        "made" => recorder.on_made(call),
        "data" => recorder.on_data(move |transport, _| call(transport)),
        "eof" => recorder.on_eof(move |transport| {
            call(transport);
            true
        }),
        "pause" => recorder.on_pause(call),
        "resume" => recorder.on_resume(call),
        "lost" => recorder.on_lost(move |transport, _| call(transport)),
        _ => panic!("{callback}"),
    }
}

/// TLS-013: as from outside.
fn close_works_in_every_callback(on: On) {
    let event_loop = on.event_loop();
    let close = |transport: &Transport| {
        transport.close();
        assert!(transport.is_closing());
        transport.write(b"late");
    };
    for way in ways() {
        let connect = |callback| way.connect_with(&event_loop, |recorder| call_in(callback, recorder, close));

        let mut ends = connect("made");
        ends.end_in_order(&event_loop);
        assert_eq!(ends.log.take(), [Made, Eof, Lost(None)], "{way:?}");

        let mut ends = connect("data");
        ends.peer.send(b"data");
        ends.end_in_order(&event_loop);
        assert_eq!(ends.log.take(), [Made, Data(4), Eof, Lost(None)], "{way:?}");

        let mut ends = connect("eof");
        ends.answer(&event_loop);
        assert!(ends.peer.close_notify);
        assert_eq!(ends.log.take(), [Made, Eof, Lost(None)], "{way:?}");

        for callback in ["pause", "resume", "lost"] {
            let mut ends = connect(callback);
            ends.transport.write(&pattern(LARGE));
            if callback == "lost" {
                ends.transport.close();
            }
            ends.end_in_order(&event_loop);
            event_loop.ticks(3);
            assert_eq!(ends.log.take(), [Made, Pause, Resume, Eof, Lost(None)], "{way:?}");
            assert_eq!(ends.peer.received.len(), LARGE);
        }

        for in_get in [false, true] {
            let mut ends = way.connect_with(&event_loop, |recorder| match in_get {
                true => BufferedRecorder::new(recorder, 3).on_get(close),
                false => BufferedRecorder::new(recorder.on_data(move |transport, _| close(transport)), 3),
            });
            ends.peer.send(b"data");
            ends.end_in_order(&event_loop);
            assert_eq!(ends.log.take(), [Made, Get(Some(4)), Updated(3), Eof, Lost(None)], "{way:?}");
        }
    }
}

/// TLS-018: as from outside.
fn abort_works_in_every_callback(on: On) {
    let event_loop = on.event_loop();
    let abort = |transport: &Transport| {
        transport.abort();
        assert!(transport.is_closing());
        transport.write(b"late");
        transport.close();
    };
    let ended = |ends: &mut Ends| {
        event_loop.until(|| {
            ends.peer.turn();
            ends.log.lost() && ends.peer.ended
        });
        event_loop.ticks(3);
        ends.log.take()
    };
    for way in ways() {
        let connect = |callback| way.connect_with(&event_loop, |recorder| call_in(callback, recorder, abort));

        let mut ends = connect("made");
        assert_eq!(ended(&mut ends), [Made, Lost(None)], "{way:?}");

        let mut ends = connect("data");
        let sealed = [ends.peer.seal(b"data"), ends.peer.seal_close_notify()].concat();
        ends.peer.send_sealed(&sealed);
        assert_eq!(ended(&mut ends), [Made, Data(4), Lost(None)], "{way:?}");

        let mut ends = connect("eof");
        let alert = ends.peer.seal_close_notify();
        ends.peer.send_sealed(&alert);
        assert_eq!(ended(&mut ends), [Made, Eof, Lost(None)], "{way:?}");
        assert!(!ends.peer.close_notify);

        let mut ends = connect("pause");
        ends.transport.write(&pattern(LARGE));
        assert_eq!(ended(&mut ends), [Made, Pause, Lost(None)], "{way:?}");

        let mut ends = connect("resume");
        ends.transport.write(&pattern(LARGE));
        assert_eq!(ended(&mut ends), [Made, Pause, Resume, Lost(None)], "{way:?}");

        let mut ends = connect("lost");
        ends.transport.abort();
        assert_eq!(ended(&mut ends), [Made, Lost(None)], "{way:?}");

        for in_get in [false, true] {
            let mut ends = way.connect_with(&event_loop, |recorder| match in_get {
                true => BufferedRecorder::new(recorder, 3).on_get(abort),
                false => BufferedRecorder::new(recorder.on_data(move |transport, _| abort(transport)), 3),
            });
            ends.peer.send(b"data");
            event_loop.until(|| ends.log.lost());
            assert_eq!(ends.log.take(), [Made, Get(Some(4)), Updated(3), Lost(None)], "{way:?}");
        }
    }
}

/// TLS-013, TLS-018
fn close_and_abort_may_be_called_again(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let mut ends = way.connect(&event_loop);
        ends.transport.close();
        ends.transport.close();
        event_loop.ticks(2);
        ends.transport.close();
        ends.end_in_order(&event_loop);
        ends.transport.close();
        ends.transport.abort();
        event_loop.ticks(3);
        assert_eq!(ends.log.take(), [Made, Eof, Lost(None)], "{way:?}");

        // The one does not wait for the other side.
        for between in [0, 3] {
            let Ends { transport, log, mut peer, .. } = way.connect(&event_loop);
            transport.write(&pattern(LARGE));
            transport.close();
            event_loop.ticks(between);
            transport.abort();
            event_loop.ticks(1);
            assert_eq!(log.take(), [Made, Pause, Lost(None)], "{way:?}");
            assert!(event_loop.has_no_timer());
            event_loop.until(|| {
                peer.turn();
                peer.ended
            });
            assert!(peer.received.len() < LARGE);
        }

        let Ends { transport, log, mut peer, .. } = way.connect(&event_loop);
        transport.abort();
        transport.close();
        transport.abort();
        event_loop.ticks(1);
        transport.close();
        transport.abort();
        event_loop.ticks(3);
        assert_eq!(log.take(), [Made, Lost(None)], "{way:?}");
        event_loop.until(|| {
            peer.turn();
            peer.ended
        });
        assert!(!peer.close_notify);
    }
}

/// TLS-014, TLS-021: held back until reading goes on, then data before the end.
fn a_close_alert_waits_while_reading_is_paused(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        // In the system, with data or without; TCP may have ended, too.
        for data in [&b""[..], b"data"] {
            for tcp_ends in [false, true] {
                let Ends { transport, log, mut peer, .. } = way.connect(&event_loop);
                transport.pause_reading();
                let sealed = [peer.seal(data), peer.seal_close_notify()].concat();
                peer.send_sealed(&sealed);
                if tcp_ends {
                    peer.socket.half_close();
                }
                event_loop.ticks(5);
                assert_eq!((log.items(), transport.is_closing()), (vec![Made], false), "{way:?}");
                // Meanwhile it can be written to.
                transport.write(b"still here");
                transport.resume_reading();
                assert_eq!(log.items(), [Made]);
                event_loop.until(|| {
                    peer.turn();
                    log.lost() && peer.ended
                });
                assert_eq!(log.received(), data);
                let expected =
                    if data.is_empty() { vec![Made, Eof, Lost(None)] } else { vec![Made, Data(4), Eof, Lost(None)] };
                assert_eq!(log.take(), expected, "{way:?}");
                assert_eq!(peer.received, b"still here");
                assert_eq!(transport.get_extra_info(CLOSE_NOTIFY), Some(true));
            }
        }

        // Decrypted with the data in which the protocol paused.
        let Ends { transport, log, mut peer, .. } =
            way.connect_with(&event_loop, |recorder| recorder.on_data(|transport, _| transport.pause_reading()));
        let sealed = [peer.seal(b"data"), peer.seal_close_notify()].concat();
        peer.send_sealed(&sealed);
        event_loop.until(|| log.received_len() == 4);
        event_loop.ticks(5);
        assert_eq!((log.items(), transport.is_closing()), (vec![Made, Data(4)], false), "{way:?}");
        transport.write(b"still here");
        transport.resume_reading();
        assert_eq!(log.items(), [Made, Data(4)]);
        event_loop.until(|| {
            peer.turn();
            log.lost() && peer.ended
        });
        assert_eq!((log.take(), &peer.received[..]), (vec![Made, Data(4), Eof, Lost(None)], &b"still here"[..]));

        // As that, in pieces.
        let Ends { transport, log, mut peer, .. } = way.connect_with(&event_loop, |recorder| {
            BufferedRecorder::new(recorder.on_data(|transport, _| transport.pause_reading()), 2)
        });
        let sealed = [peer.seal(b"data"), peer.seal_close_notify()].concat();
        peer.send_sealed(&sealed);
        event_loop.until(|| log.received_len() == 2);
        event_loop.ticks(5);
        assert_eq!(log.take(), [Made, Get(Some(4)), Updated(2)], "{way:?}");
        transport.resume_reading();
        event_loop.until(|| log.received_len() == 4);
        event_loop.ticks(5);
        assert_eq!(log.take(), [Get(Some(2)), Updated(2)], "{way:?}");
        transport.resume_reading();
        event_loop.until(|| log.lost());
        assert_eq!((log.take(), log.received()), (vec![Eof, Lost(None)], b"data".to_vec()), "{way:?}");
    }
}

/// TLS-014
fn data_and_alert_in_one_segment_come_in_order(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for tcp_ends in [false, true] {
            let Ends { log, mut peer, .. } = way.connect(&event_loop);
            let sealed = [peer.seal(b"one"), peer.seal(b"two"), peer.seal_close_notify()].concat();
            peer.send_sealed(&sealed);
            if tcp_ends {
                peer.socket.half_close();
            }
            event_loop.until(|| log.lost());
            event_loop.ticks(2);
            assert_eq!((log.joined(), log.received()), (vec![Made, Data(6), Eof, Lost(None)], b"onetwo".to_vec()));

            let Ends { log, mut peer, .. } =
                way.connect_with(&event_loop, |recorder| BufferedRecorder::new(recorder, 4));
            let sealed = [peer.seal(b"one"), peer.seal(b"two"), peer.seal_close_notify()].concat();
            peer.send_sealed(&sealed);
            if tcp_ends {
                peer.socket.half_close();
            }
            event_loop.until(|| log.lost());
            let told = [Made, Get(Some(6)), Updated(4), Get(Some(2)), Updated(2), Eof, Lost(None)];
            assert_eq!((log.take(), log.received()), (told.to_vec(), b"onetwo".to_vec()), "{way:?}");
        }
    }
}

/// TLS-014, TLS-028: nobody looks at it.
fn what_follows_the_close_alert_is_nothing(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for paused in [false, true] {
            let Ends { transport, log, mut peer, .. } = way.connect(&event_loop);
            if paused {
                transport.pause_reading();
            }
            let sealed = [peer.seal(b"data"), peer.seal_close_notify(), b"this is no TLS".to_vec()].concat();
            peer.send_sealed(&sealed);
            event_loop.ticks(3);
            transport.resume_reading();
            event_loop.until(|| log.lost());
            assert_eq!(log.take(), [Made, Data(4), Eof, Lost(None)], "{way:?}");
            assert_eq!(transport.get_extra_info(CLOSE_NOTIFY), Some(true));
        }
    }
}

/// TLS-014, TLS-026: what `eof_received` writes goes before our close alert.
fn the_last_words_may_be_said_at_the_end(on: On) {
    let event_loop = on.event_loop();
    let last = pattern(LARGE);
    for way in ways() {
        let words = last.clone();
        let mut ends = way.connect_with(&event_loop, |recorder| {
            recorder.on_eof(move |transport| {
                assert!(!transport.is_closing());
                transport.write(&words);
                true
            })
        });
        ends.answer(&event_loop);
        assert!(ends.peer.received == last && ends.peer.close_notify, "{way:?}");
        assert_eq!(ends.log.take(), [Made, Eof, Pause, Resume, Lost(None)], "{way:?}");
    }
}

/// TLS-013: nobody is told, for there is no loop that could; but nothing is left.
fn closing_the_loop_lets_go_of_connections_in_every_state(on: On) {
    type State = fn(&mut Ends, &TestLoop);
    let states: [State; 7] = [
        |_, _| {},
        |ends, _| ends.transport.pause_reading(),
        |ends, _| ends.transport.write(&pattern(LARGE)),
        |ends, _| ends.transport.close(),
        |ends, _| {
            ends.transport.write(&pattern(LARGE));
            ends.transport.close();
        },
        |ends, event_loop| {
            // Closed by the peer, and not told yet.
            ends.transport.pause_reading();
            let sealed = [ends.peer.seal(b"data"), ends.peer.seal_close_notify()].concat();
            ends.peer.send_sealed(&sealed);
            event_loop.ticks(3);
        },
        // The last, for the loop runs between.
        |ends, _| ends.transport.abort(),
    ];
    for way in ways() {
        let event_loop = on.event_loop();
        let mut left: Vec<(Weak<RefCell<Recorder>>, Ends)> = Vec::new();
        for state in states {
            let mut ends = way.connect(&event_loop);
            state(&mut ends, &event_loop);
            left.push((Rc::downgrade(&ends.protocol), ends));
        }
        event_loop.close().unwrap();
        for (index, (weak, ends)) in left.into_iter().enumerate() {
            let Ends { transport, protocol, log, mut peer } = ends;
            drop(protocol);
            assert!(weak.upgrade().is_none(), "state {index}, {way:?}");
            assert!(!log.lost(), "state {index}, {way:?}");
            call_everything(&transport);
            let begin = std::time::Instant::now();
            while !peer.ended {
                assert!(begin.elapsed() < Duration::from_secs(30));
                peer.turn();
            }
            assert!(peer.received.len() < LARGE, "state {index}, {way:?}");
        }
    }
}

/// All that can be called of a transport of which nothing is left.
fn call_everything(transport: &Transport) {
    transport.write(b"late");
    transport.try_write(b"late").unwrap();
    transport.writelines(["late"]);
    transport.pause_reading();
    transport.resume_reading();
    transport.set_write_buffer_limits(0, 0).unwrap();
    transport.close();
    transport.abort();
    assert!(transport.is_closing() && !transport.is_reading());
    assert_eq!(transport.get_write_buffer_size(), 0);
    assert!(transport.with_fd(|_| ()).is_none());
    assert!(transport.get_protocol::<Recorder>().is_none());
    assert!(transport.get_extra_info(asyncio::CIPHER).is_some());
    assert!(format!("{transport:?}").contains("closed"));
}

/// A protocol that says when it is dropped.
struct Dropping(Rc<Cell<usize>>);

impl Drop for Dropping {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

impl Protocol for Dropping {
    fn data_received(&mut self, _data: &[u8]) {}
}

/// TLS-013: a handshake under way when the loop closes.
fn closing_the_loop_lets_go_of_handshakes(on: On) {
    for way in ways() {
        for steps in 0..3 {
            let event_loop = (on.builder)().debug(false).build().unwrap();
            let reports = crate::support::handler(&event_loop);
            let (dropped, pair) = (Rc::new(Cell::new(0)), way.kind.pair());
            let mut peer = way.peer(pair.peer);
            let task = event_loop.create_task(way.open(&event_loop, pair.ours, Dropping(dropped.clone())));
            crate::support::tick(&event_loop);
            for _ in 0..steps {
                peer.turn();
                if peer.connection.is_handshaking() {
                    crate::support::tick(&event_loop);
                }
            }
            assert!(!task.done() || steps == 2);
            event_loop.close().unwrap();
            // Of the task, which nobody awaits any more.
            assert!(reports.len() <= 1);
            drop(task);
            assert_eq!(dropped.get(), 1, "{way:?}, {steps} steps");
            let begin = std::time::Instant::now();
            while !peer.ended {
                assert!(begin.elapsed() < Duration::from_secs(30));
                peer.turn();
            }
        }
    }
}

/// TLS-013: an open connection is the loop's; when it ends, nothing is left of it.
fn without_handles_the_connection_goes_on(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let Ends { transport, protocol, log, mut peer } =
            way.connect_with(&event_loop, |recorder| recorder.on_data(|transport, data| transport.write(data)));
        let weak = Rc::downgrade(&protocol);
        drop((transport, protocol));
        event_loop.ticks(3);
        peer.send(b"data");
        event_loop.until(|| {
            peer.turn();
            peer.received == b"data"
        });
        assert!(weak.upgrade().is_some());
        let alert = peer.seal_close_notify();
        peer.send_sealed(&alert);
        event_loop.until(|| log.lost());
        assert_eq!(log.take(), [Made, Data(4), Eof, Lost(None)], "{way:?}");
        assert!(weak.upgrade().is_none(), "{way:?}");

        // Dropped while it closes: it closes in order.
        let ends = way.connect(&event_loop);
        let (weak, protocol) = (Rc::downgrade(&ends.protocol), ends.protocol);
        ends.transport.write(&pattern(LARGE));
        ends.transport.close();
        drop((ends.transport, protocol));
        let (log, mut peer) = (ends.log, ends.peer);
        event_loop.until(|| {
            peer.turn();
            peer.close_notify
        });
        assert_eq!(peer.received.len(), LARGE);
        let alert = peer.seal_close_notify();
        peer.send_sealed(&alert);
        event_loop.until(|| log.lost());
        assert!(weak.upgrade().is_none(), "{way:?}");
    }
}

/// TLS-017: however it ends, and also for a protocol that reads into memory of its own.
fn no_timer_is_left_after_the_loss(on: On) {
    fn check<P: asyncio::StreamProtocol<K>, K: 'static>(
        event_loop: &TestLoop,
        way: Way,
        make: fn(Recorder) -> P,
        end: fn(&mut Ends<P>),
    ) {
        let seen = Rc::new(Cell::new(false));
        let (at_loss, own) = (seen.clone(), event_loop.event_loop.clone());
        let mut ends = way.connect_with(event_loop, |recorder| {
            make(recorder.on_lost(move |_, _| {
                let left = own.next_deadline().is_some_and(|deadline| deadline > own.time());
                assert!(!left, "a timer is left in connection_lost");
                at_loss.set(true);
            }))
        });
        assert!(event_loop.has_no_timer(), "of the handshake, {way:?}");
        end(&mut ends);
        event_loop.until(|| {
            ends.peer.turn();
            ends.log.lost()
        });
        assert!(seen.get() && event_loop.has_no_timer(), "{way:?}");
    }
    fn close_notify<P>(ends: &mut Ends<P>) {
        let alert = ends.peer.seal_close_notify();
        ends.peer.send_sealed(&alert);
    }
    fn ends_of<P: 'static>() -> [fn(&mut Ends<P>); 6] {
        [
            |ends| {
                ends.transport.close();
                close_notify(ends);
            },
            |ends| close_notify(ends),
            |ends| ends.transport.abort(),
            |ends| {
                ends.transport.close();
                ends.transport.abort();
            },
            |ends| {
                ends.transport.close();
                ends.peer.socket.half_close();
            },
            |ends| {
                ends.transport.close();
                ends.peer.send_sealed(b"this is no TLS");
            },
        ]
    }
    let event_loop = on.event_loop();
    for way in ways() {
        for end in ends_of() {
            check(&event_loop, way, |recorder| recorder, end);
        }
        for end in ends_of() {
            check(&event_loop, way, |recorder| BufferedRecorder::new(recorder, 10), end);
        }
    }
}
