//! What these tests show: panics in the protocols of pipes are reported, and no more.

use std::cell::Cell;

use asyncio::{ErrorKind, ExceptionContext};

use crate::{
    Channel, LARGE, TestLoop,
    support::transports::{BufferedRecorder, Told, pattern},
};

on_each_channel! {
    data_received
    data_received_while_it_pauses
    connection_made
    connection_made_of_a_write_pipe
    eof_received
    connection_lost
    connection_lost_of_a_write_pipe
    pause_writing
    resume_writing
    get_buffer
    buffer_updated
}

#[track_caller]
fn is_of(report: &ExceptionContext, callback: &str, text: &str) {
    assert!(report.message.contains(callback), "{report:?}");
    let error = report.exception.as_ref().unwrap();
    assert_eq!(error.kind(), ErrorKind::Panicked);
    assert!(error.to_string().contains(text), "{error}");
    let whole = format!("{report:?}");
    assert!(whole.contains("PipeTransport fd=") || whole.contains("PipeTransport clos"), "{whole}");
    assert!(whole.contains("Recorder"), "{whole}");
}

/// PIP-006
fn data_received(event_loop: &TestLoop, channel: Channel) {
    let (reader, end) = channel.reader();
    let (transport, _, log) =
        event_loop.read_with(reader, |recorder| recorder.on_data(|_, _| panic!("no data please")));
    for (round, bytes) in [b"one", b"two"].into_iter().enumerate() {
        end.send(bytes);
        event_loop.until(|| event_loop.reports.len() == round + 1);
        event_loop.ticks(2);
    }
    assert_eq!(log.take(), [Told::Made, Told::Data(3), Told::Data(3)]);
    assert_eq!(log.received(), b"onetwo");
    let reports = event_loop.reports.take();
    assert_eq!(reports.len(), 2);
    reports.iter().for_each(|report| is_of(report, "data_received", "no data please"));
    assert!(!transport.is_closing() && transport.is_reading());
    // Its end comes as always.
    drop(end);
    event_loop.until(|| log.lost());
    assert_eq!(log.take(), [Told::Eof, Told::Lost(None)]);
}

/// PIP-006: what the callback did before it panicked is done.
fn data_received_while_it_pauses(event_loop: &TestLoop, channel: Channel) {
    let (reader, end) = channel.reader();
    let (transport, _, log) = event_loop.read_with(reader, |recorder| {
        recorder.on_data(|transport, _| {
            transport.pause_reading();
            panic!("paused");
        })
    });
    end.send(b"1");
    event_loop.until(|| log.received_len() == 1);
    end.send(b"2");
    event_loop.ticks(3);
    is_of(&event_loop.report(), "data_received", "paused");
    assert!(!transport.is_reading() && !transport.is_closing());
    transport.resume_reading();
    event_loop.until(|| log.received_len() == 2);
    is_of(&event_loop.report(), "data_received", "paused");
    assert_eq!(log.take(), [Told::Made, Told::Data(1), Told::Data(1)]);
}

/// PIP-006: the opener returns nevertheless.
fn connection_made(event_loop: &TestLoop, channel: Channel) {
    let (reader, end) = channel.reader();
    let (transport, _, log) = event_loop.read_with(reader, |recorder| recorder.on_made(|_| panic!("not made")));
    is_of(&event_loop.report(), "connection_made", "not made");
    assert!(!transport.is_closing());
    end.send(b"abc");
    event_loop.until(|| log.received_len() == 3);
    assert_eq!(log.take(), [Told::Made, Told::Data(3)]);
}

/// PIP-006: the same for writing.
fn connection_made_of_a_write_pipe(event_loop: &TestLoop, channel: Channel) {
    let (writer, end) = channel.writer();
    let (transport, _, log) = event_loop.write_with(writer, |recorder| recorder.on_made(|_| panic!("not made")));
    is_of(&event_loop.report(), "connection_made", "not made");
    transport.write(b"abc");
    assert_eq!(end.drain(), b"abc");
    drop(end);
    event_loop.until(|| log.lost());
    assert_eq!(log.take(), [Told::Made, Told::Lost(None)]);
}

/// PIP-006, PIP-002: it is the end all the same, and no error.
fn eof_received(event_loop: &TestLoop, channel: Channel) {
    let (reader, end) = channel.reader();
    let (transport, _, log) = event_loop.read_with(reader, |recorder| recorder.on_eof(|_| panic!("no end")));
    drop(end);
    event_loop.until(|| log.lost());
    assert_eq!(log.take(), [Told::Made, Told::Eof, Told::Lost(None)]);
    is_of(&event_loop.report(), "eof_received", "no end");
    assert_eq!(transport.with_fd(|_| ()), None);
}

/// PIP-006: the descriptor is closed all the same.
fn connection_lost(event_loop: &TestLoop, channel: Channel) {
    let (reader, end) = channel.reader();
    let (transport, _, log) = event_loop.read_with(reader, |recorder| recorder.on_lost(|_, _| panic!("never")));
    transport.close();
    event_loop.ticks(2);
    assert_eq!(log.take(), [Told::Made, Told::Lost(None)]);
    is_of(&event_loop.report(), "connection_lost", "never");
    assert!(end.is_unread() && transport.with_fd(|_| ()).is_none());
}

/// PIP-006: the same for writing.
fn connection_lost_of_a_write_pipe(event_loop: &TestLoop, channel: Channel) {
    let (writer, end) = channel.writer();
    let (transport, _, log) = event_loop.write_with(writer, |recorder| recorder.on_lost(|_, _| panic!("never")));
    transport.write(b"last");
    transport.close();
    event_loop.ticks(2);
    assert_eq!(log.take(), [Told::Made, Told::Lost(None)]);
    is_of(&event_loop.report(), "connection_lost", "never");
    assert_eq!(end.drain(), b"last");
    assert!(end.ended());
}

/// FLW-012, PIP-006
fn pause_writing(event_loop: &TestLoop, channel: Channel) {
    let (writer, end) = channel.writer();
    let (transport, _, log) = event_loop.write_with(writer, |recorder| recorder.on_pause(|_| panic!("no pause")));
    transport.write(&pattern(LARGE));
    is_of(&event_loop.report(), "pause_writing", "no pause");
    assert!(!transport.is_closing() && transport.is_write_paused());
    let mut got = Vec::new();
    event_loop.until(|| {
        got.extend(end.drain());
        got.len() == LARGE
    });
    assert!(got == pattern(LARGE));
    assert_eq!(log.take(), [Told::Made, Told::Pause, Told::Resume]);
}

/// FLW-012, PIP-006
fn resume_writing(event_loop: &TestLoop, channel: Channel) {
    let (writer, end) = channel.writer();
    let (transport, _, log) = event_loop.write_with(writer, |recorder| recorder.on_resume(|_| panic!("no resume")));
    transport.write(&pattern(LARGE));
    let mut got = Vec::new();
    event_loop.until(|| {
        got.extend(end.drain());
        got.len() == LARGE
    });
    assert!(got == pattern(LARGE));
    is_of(&event_loop.report(), "resume_writing", "no resume");
    assert!(!transport.is_closing() && !transport.is_write_paused());
    transport.write(b"more");
    assert_eq!(end.drain(), b"more");
    assert_eq!(log.take(), [Told::Made, Told::Pause, Told::Resume]);
}

/// BUF-003 as PIP-006 has it: nothing was read, so nothing is lost, and it is asked again.
fn get_buffer(event_loop: &TestLoop, channel: Channel) {
    let (reader, end) = channel.reader();
    let first = Cell::new(true);
    let (transport, _, log) = event_loop.read_with(reader, |recorder| {
        BufferedRecorder::new(recorder, 10).on_get(move |_| assert!(!first.replace(false), "no buffer"))
    });
    end.send(b"abc");
    event_loop.until(|| log.received_len() == 3);
    assert_eq!(log.take(), [Told::Made, Told::Get(None), Told::Get(None), Told::Updated(3)]);
    assert_eq!(log.received(), b"abc");
    is_of(&event_loop.report(), "get_buffer", "no buffer");
    assert!(!transport.is_closing());
}

/// BUF-003 as PIP-006 has it.
fn buffer_updated(event_loop: &TestLoop, channel: Channel) {
    let (reader, end) = channel.reader();
    let (transport, _, log) = event_loop
        .read_with(reader, |recorder| BufferedRecorder::new(recorder.on_data(|_, _| panic!("no update")), 10));
    for (round, bytes) in [b"one", b"two"].into_iter().enumerate() {
        end.send(bytes);
        event_loop.until(|| event_loop.reports.len() == round + 1);
    }
    event_loop.reports.take().iter().for_each(|report| is_of(report, "buffer_updated", "no update"));
    assert_eq!(log.received(), b"onetwo");
    assert!(!transport.is_closing());
}
