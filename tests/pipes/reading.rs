//! What these tests show: what comes out of a pipe.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use asyncio::{ErrorKind, Transport};

use crate::{
    Channel, LARGE, TestLoop, pipe,
    support::{
        failure,
        transports::{BufferedRecorder, Log, PairKind, Recorder, Told, pattern},
    },
};

on_each_channel! {
    data_comes_then_the_end_then_the_loss
    pausing_and_resuming_again_does_nothing
    closing_twice_loses_once
    aborting_loses_in_the_next_tick
    unread_bytes_do_not_come_after_close
    the_end_closes_whatever_eof_received_returns
    a_large_amount_arrives_whole
    bytes_arrive_one_at_a_time
    data_received_may_close
    data_received_may_pause
    connection_made_may_pause
    the_end_waits_while_paused
    a_paused_pipe_costs_nothing
    writing_is_a_mistake
    after_the_end_everything_is_silent
    a_buffered_protocol_receives_into_its_own_memory
    a_buffered_protocol_without_memory_is_fatal
    protocols_may_be_changed
    a_borrowed_protocol_is_told_later
    a_protocol_that_stays_borrowed_is_given_up
}

on_each_selector! {
    a_broken_pipe_is_reported
    a_reset_is_reported
}

/// PIP-002
fn data_comes_then_the_end_then_the_loss(event_loop: &TestLoop, channel: Channel) {
    let (reader, end) = channel.reader();
    let (transport, log) = event_loop.read(reader);
    end.send(b"abc");
    drop(end);
    event_loop.until(|| log.lost());
    assert_eq!(log.take(), [Told::Made, Told::Data(3), Told::Eof, Told::Lost(None)]);
    assert!(transport.is_closing() && !transport.is_reading());
    assert_eq!(transport.with_fd(|_| ()), None, "it is closed");
    assert!(transport.get_protocol::<Recorder>().is_none());
    event_loop.ticks(2);
    assert_eq!(log.take(), []);
}

/// PIP-004
fn pausing_and_resuming_again_does_nothing(event_loop: &TestLoop, channel: Channel) {
    let (reader, end) = channel.reader();
    let (transport, log) = event_loop.read(reader);
    transport.pause_reading();
    transport.pause_reading();
    assert!(!transport.is_reading());
    end.send(b"ab");
    event_loop.ticks(3);
    assert_eq!(log.take(), [Told::Made]);
    transport.resume_reading();
    transport.resume_reading();
    assert!(transport.is_reading());
    event_loop.until(|| log.received_len() == 2);
    event_loop.ticks(2);
    assert_eq!(log.take(), [Told::Data(2)]);
    transport.close();
    transport.pause_reading();
    transport.resume_reading();
    assert!(!transport.is_reading());
    event_loop.ticks(2);
    transport.resume_reading();
    transport.pause_reading();
    event_loop.ticks(2);
    assert_eq!(log.take(), [Told::Lost(None)]);
}

/// PIP-005
fn closing_twice_loses_once(event_loop: &TestLoop, channel: Channel) {
    let (reader, end) = channel.reader();
    let (transport, log) = event_loop.read(reader);
    transport.close();
    transport.close();
    assert_eq!(log.take(), [Told::Made]);
    assert!(transport.is_closing() && transport.with_fd(|_| ()).is_some());
    event_loop.ticks(1);
    assert_eq!(log.take(), [Told::Lost(None)]);
    assert!(end.is_unread());
    transport.close();
    event_loop.ticks(2);
    assert_eq!(log.take(), []);
}

/// PIP-005: the same by abort.
fn aborting_loses_in_the_next_tick(event_loop: &TestLoop, channel: Channel) {
    let (reader, end) = channel.reader();
    let (transport, log) = event_loop.read(reader);
    end.send(b"unread");
    transport.abort();
    transport.abort();
    transport.close();
    event_loop.ticks(1);
    assert_eq!(log.take(), [Told::Made, Told::Lost(None)]);
    assert!(end.is_unread());
}

/// PIP-005: TCP-006, for pipes.
fn unread_bytes_do_not_come_after_close(event_loop: &TestLoop, channel: Channel) {
    let (reader, end) = channel.reader();
    let (transport, log) = event_loop.read(reader);
    end.send(b"0123456789");
    drop(end);
    transport.close();
    event_loop.ticks(3);
    assert_eq!(log.take(), [Told::Made, Told::Lost(None)]);
}

/// PIP-002: nothing could be written, so there is nothing to keep it open for.
fn the_end_closes_whatever_eof_received_returns(event_loop: &TestLoop, channel: Channel) {
    for (keeps, closes) in [(true, false), (false, false), (true, true)] {
        let (reader, end) = channel.reader();
        let seen = Rc::new(Cell::new(None));
        let state = seen.clone();
        let (_, _, log) = event_loop.read_with(reader, |recorder| {
            recorder.on_eof(move |transport| {
                state.set(Some((transport.is_closing(), transport.is_reading())));
                if closes {
                    transport.close();
                }
                keeps
            })
        });
        drop(end);
        event_loop.until(|| log.lost());
        assert_eq!(log.take(), [Told::Made, Told::Eof, Told::Lost(None)]);
        assert_eq!(seen.get(), Some((true, false)));
    }
}

/// PIP-002: however much there is.
fn a_large_amount_arrives_whole(event_loop: &TestLoop, channel: Channel) {
    let (reader, end) = channel.reader();
    let (_, log) = event_loop.read(reader);
    let writer = end.pour(pattern(3 * LARGE), 77_777);
    event_loop.until(|| log.lost());
    writer.join().unwrap();
    assert_eq!(log.joined(), [Told::Made, Told::Data(3 * LARGE), Told::Eof, Told::Lost(None)]);
    assert!(log.received() == pattern(3 * LARGE));
}

/// PIP-002: however little there is.
fn bytes_arrive_one_at_a_time(event_loop: &TestLoop, channel: Channel) {
    let (reader, end) = channel.reader();
    let (_, log) = event_loop.read(reader);
    for (index, byte) in pattern(100).into_iter().enumerate() {
        end.send(&[byte]);
        event_loop.until(|| log.received_len() == index + 1);
    }
    drop(end);
    event_loop.until(|| log.lost());
    assert_eq!(log.count(&Told::Data(1)), 100);
    assert_eq!(log.received(), pattern(100));
}

/// PIP-005: TCP-007, for pipes.
fn data_received_may_close(event_loop: &TestLoop, channel: Channel) {
    let (reader, end) = channel.reader();
    let (_, _, log) = event_loop.read_with(reader, |recorder| recorder.on_data(|transport, _| transport.close()));
    end.send(b"first");
    event_loop.until(|| log.received_len() == 5);
    event_loop.ticks(1);
    assert_eq!(log.take(), [Told::Made, Told::Data(5), Told::Lost(None)]);
    assert!(end.is_unread());
}

/// PIP-004: TCP-022, for pipes. One delivery for each resume, and the end waits too.
fn data_received_may_pause(event_loop: &TestLoop, channel: Channel) {
    let (reader, end) = channel.reader();
    let pause = |transport: &Transport, _: &[u8]| transport.pause_reading();
    let (transport, _, log) = event_loop.read_with(reader, |recorder| recorder.on_data(pause));
    end.send(b"a");
    event_loop.until(|| log.received_len() == 1);
    end.send(b"b");
    drop(end);
    event_loop.ticks(3);
    assert_eq!(log.take(), [Told::Made, Told::Data(1)]);
    transport.resume_reading();
    event_loop.until(|| log.received_len() == 2);
    event_loop.ticks(3);
    assert_eq!(log.take(), [Told::Data(1)]);
    transport.resume_reading();
    event_loop.until(|| log.lost());
    assert_eq!(log.take(), [Told::Eof, Told::Lost(None)]);
}

/// PIP-004: TCP-021, for pipes.
fn connection_made_may_pause(event_loop: &TestLoop, channel: Channel) {
    let (reader, end) = channel.reader();
    end.send(b"early");
    let (transport, _, log) = event_loop.read_with(reader, |recorder| recorder.on_made(Transport::pause_reading));
    event_loop.ticks(3);
    assert_eq!(log.take(), [Told::Made]);
    assert!(!transport.is_reading());
    transport.resume_reading();
    event_loop.until(|| log.received_len() == 5);
    assert_eq!(log.take(), [Told::Data(5)]);
}

/// PIP-004, PIP-002: with and without bytes before it.
fn the_end_waits_while_paused(event_loop: &TestLoop, channel: Channel) {
    for bytes in [0, 7] {
        let (reader, end) = channel.reader();
        let (transport, log) = event_loop.read(reader);
        transport.pause_reading();
        end.send(&vec![9; bytes]);
        drop(end);
        event_loop.ticks(3);
        assert_eq!(log.take(), [Told::Made]);
        assert!(!transport.is_closing());
        transport.resume_reading();
        event_loop.until(|| log.lost());
        assert_eq!(log.received(), vec![9; bytes]);
        assert_eq!(log.take().iter().rev().take(2).rev().cloned().collect::<Vec<_>>(), [Told::Eof, Told::Lost(None)]);
    }
}

/// PIP-004: the system tells of a hang-up again and again, and the loop must be able to wait nevertheless.
fn a_paused_pipe_costs_nothing(event_loop: &TestLoop, channel: Channel) {
    let (reader, end) = channel.reader();
    let (transport, log) = event_loop.read(reader);
    transport.pause_reading();
    drop(end);
    event_loop.ticks(2);
    for _ in 0..3 {
        assert_eq!(event_loop.run_once(std::time::Duration::from_millis(1)).unwrap(), 0, "something ran");
    }
    assert_eq!(log.take(), [Told::Made]);
}

/// PIP-002: SND and TCP rows speak of misuse; a read pipe cannot be written to.
fn writing_is_a_mistake(event_loop: &TestLoop, channel: Channel) {
    let (reader, end) = channel.reader();
    let (transport, log) = event_loop.read(reader);
    assert!(!transport.can_write_eof());
    let (kind, text) = failure(transport.write_eof());
    assert!(kind == ErrorKind::Runtime && text.contains("not supported"), "{text}");
    for (call, result) in [("write", transport.try_write(b"x")), ("writelines", transport.try_writelines(["x", "y"]))] {
        let (kind, text) = failure(result);
        assert!(kind == ErrorKind::Runtime && text.contains("not supported") && text.contains(call), "{text}");
    }
    assert_eq!(event_loop.reports.len(), 0);

    transport.write(b"x");
    let report = event_loop.report();
    assert!(report.message.contains("write()"), "{report:?}");
    assert_eq!(report.exception.as_ref().map(|error| error.kind()), Some(ErrorKind::Runtime));
    assert!(format!("{report:?}").contains("<ReadPipeTransport fd="), "{report:?}");
    transport.writelines(["x", "y"]);
    assert!(event_loop.report().message.contains("writelines()"));

    // Nothing of that has changed anything.
    assert_eq!((transport.get_write_buffer_size(), transport.is_closing()), (0, false));
    end.send(b"still");
    event_loop.until(|| log.received_len() == 5);
    assert_eq!(log.take(), [Told::Made, Told::Data(5)]);
    if channel == Channel::Socketpair {
        assert_eq!(end.drain(), b"");
    }
}

/// TCP-010, for pipes.
fn after_the_end_everything_is_silent(event_loop: &TestLoop, channel: Channel) {
    let (reader, end) = channel.reader();
    let (transport, log) = event_loop.read(reader);
    drop(end);
    event_loop.until(|| log.lost());
    log.take();
    transport.write(b"x");
    transport.writelines(["x"]);
    assert!(transport.try_write(b"x").is_ok());
    transport.pause_reading();
    transport.resume_reading();
    transport.abort();
    transport.close();
    let late = Log::default();
    transport.set_protocol(Rc::new(RefCell::new(Recorder::new(&late))));
    event_loop.ticks(3);
    assert_eq!((log.take(), late.take()), (vec![], vec![]));
    assert!(transport.get_protocol::<Recorder>().is_none());
    assert!(format!("{transport:?}").contains("<ReadPipeTransport closed fd="), "{transport:?}");
}

/// BUF-001, for pipes.
fn a_buffered_protocol_receives_into_its_own_memory(event_loop: &TestLoop, channel: Channel) {
    let (reader, end) = channel.reader();
    let (_, _, log) = event_loop.read_with(reader, |recorder| BufferedRecorder::new(recorder, 100));
    end.send(&pattern(250));
    drop(end);
    event_loop.until(|| log.lost());
    let updated = |count| [Told::Get(None), Told::Updated(count)];
    let told = [updated(100), updated(100), updated(50)].concat();
    assert_eq!(log.received(), pattern(250));
    assert_eq!(log.take(), [&[Told::Made][..], &told, &[Told::Get(None), Told::Eof, Told::Lost(None)]].concat());
}

/// BUF-002, for pipes: nothing could ever be read.
fn a_buffered_protocol_without_memory_is_fatal(event_loop: &TestLoop, channel: Channel) {
    let (reader, end) = channel.reader();
    let (_, _, log) = event_loop.read_with(reader, |recorder| BufferedRecorder::new(recorder, 0));
    end.send(b"x");
    event_loop.until(|| log.lost());
    assert_eq!(log.take(), [Told::Made, Told::Get(None), Told::Lost(Some(ErrorKind::Runtime))]);
    assert!(event_loop.report().message.contains("get_buffer"));
    assert!(end.is_unread());
}

/// BUF-004, for pipes.
fn protocols_may_be_changed(event_loop: &TestLoop, channel: Channel) {
    let (reader, end) = channel.reader();
    let (transport, first) = event_loop.read(reader);
    let (second, third) = (Log::default(), Log::default());
    let buffered = BufferedRecorder::new(Recorder::new(&second).with_transport(&transport), 10);
    transport.set_protocol(Rc::new(RefCell::new(buffered)));
    end.send(b"abc");
    event_loop.until(|| second.received_len() == 3);
    let plain = Rc::new(RefCell::new(Recorder::new(&third).with_transport(&transport)));
    transport.set_protocol(plain.clone());
    assert!(transport.get_protocol::<BufferedRecorder>().is_none());
    assert!(Rc::ptr_eq(&transport.get_protocol::<Recorder>().unwrap(), &plain));
    end.send(b"de");
    drop(end);
    event_loop.until(|| third.lost());
    assert_eq!(first.take(), [Told::Made]);
    assert_eq!(second.take(), [Told::Get(None), Told::Updated(3)]);
    assert_eq!(third.take(), [Told::Data(2), Told::Eof, Told::Lost(None)]);
}

/// PIP-002: what cannot be delivered waits in the pipe.
fn a_borrowed_protocol_is_told_later(event_loop: &TestLoop, channel: Channel) {
    let (reader, end) = channel.reader();
    let (_, protocol, log) = event_loop.read_with(reader, |recorder| recorder);
    end.send(b"abc");
    let held = protocol.borrow_mut();
    event_loop.run_once(std::time::Duration::from_secs(30)).unwrap();
    assert_eq!(log.take(), [Told::Made]);
    drop(held);
    event_loop.until(|| log.received_len() == 3);
    assert_eq!(log.take(), [Told::Data(3)]);
}

/// PIP-002: but not for ever.
fn a_protocol_that_stays_borrowed_is_given_up(event_loop: &TestLoop, channel: Channel) {
    let (reader, end) = channel.reader();
    let (transport, protocol, log) = event_loop.read_with(reader, |recorder| recorder);
    end.send(b"abc");
    let held = protocol.borrow_mut();
    event_loop.until(|| transport.is_closing());
    let report = event_loop.report();
    assert!(
        report.exception.as_ref().is_some_and(|error| error.to_string().contains("protocol is borrowed")),
        "{report:?}"
    );
    event_loop.ticks(3);
    assert_eq!(log.take(), [Told::Made]);
    drop(held);
    event_loop.until(|| log.lost());
    assert_eq!(log.take(), [Told::Lost(Some(ErrorKind::Runtime))]);
    assert!(end.is_unread());
}

/// PIP-014: what is no end of a terminal is reported.
fn a_broken_pipe_is_reported(event_loop: &TestLoop) {
    // It cannot be read from.
    let (reader, writer) = pipe();
    let (transport, log) = event_loop.read(writer);
    event_loop.ticks(2);
    assert!(transport.is_reading());
    drop(reader);
    event_loop.until(|| log.lost());
    assert_eq!(log.take(), [Told::Made, Told::Lost(Some(ErrorKind::Io))]);
    assert_eq!(log.error().unwrap().raw_os_error(), Some(libc::EBADF));
    let report = event_loop.report();
    assert!(report.message.contains("read error on pipe transport"), "{report:?}");
    assert_eq!(report.exception.as_ref().and_then(|error| error.raw_os_error()), Some(libc::EBADF));
}

/// PIP-014, TCP-018: a socket is a pipe if one says so.
fn a_reset_is_reported(event_loop: &TestLoop) {
    let pair = PairKind::Tcp.pair();
    let (_, log) = event_loop.read(pair.ours);
    pair.peer.reset();
    event_loop.until(|| log.lost());
    assert_eq!(log.take(), [Told::Made, Told::Lost(Some(ErrorKind::Io))]);
    assert_eq!(log.error().unwrap().raw_os_error(), Some(libc::ECONNRESET));
    assert!(event_loop.report().message.contains("read error on pipe transport"));
}
