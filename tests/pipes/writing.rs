//! What these tests show: what goes into a pipe.

use std::{cell::Cell, fs::OpenOptions, rc::Rc};

use asyncio::{ErrorKind, Transport};

use crate::{
    Channel, End, Fifo, LARGE, TestLoop, duplicate,
    support::{
        failure,
        transports::{BufferedRecorder, Log, PairKind, Recorder, Told, pattern},
    },
};

on_each_channel! {
    what_fits_is_written_at_once
    nothing_is_written_for_nothing
    closing_writes_what_waits
    write_eof_closes
    aborting_drops_what_waits
    a_reader_that_goes_ends_the_transport
    a_reader_that_goes_while_bytes_wait_is_an_error
    a_reader_that_goes_while_closing_is_an_error
    a_write_to_nobody_is_an_error
    a_slow_reader_gets_everything
    many_lines_are_written_in_order
    the_limits_make_each_other
    wrong_limits_change_nothing
    each_crossing_is_told_once
    a_pause_is_told_before_write_returns
    resuming_waits_for_the_low_mark
    a_pause_comes_right_after_the_callback_that_wrote
    resume_writing_may_write_more
    reading_is_not_what_it_does
    after_the_loss_everything_is_silent
    a_buffered_protocol_may_write
}

on_each_selector! {
    the_system_takes_what_fits_into_a_pipe
    a_fifo_open_for_both_is_no_hang_up
    what_is_sent_to_a_socket_is_no_hang_up
    the_end_of_a_sockets_input_is_no_hang_up
}

/// Fills the channel and more: what waits then.
fn overfill(transport: &Transport) -> usize {
    transport.write(&pattern(LARGE));
    let size = transport.get_write_buffer_size();
    assert!(size > 65_536 && transport.is_write_paused());
    size
}

/// PIP-008
fn what_fits_is_written_at_once(event_loop: &TestLoop, channel: Channel) {
    let (writer, end) = channel.writer();
    let (transport, log) = event_loop.write(writer);
    transport.write(b"1");
    transport.writelines(["2", "3"]);
    assert_eq!(end.drain(), b"123");
    assert!(transport.can_write_eof());
    assert_eq!(transport.get_write_buffer_limits(), (16_384, 65_536));
    assert_eq!(transport.get_write_buffer_size(), 0);
    transport.try_write(b"4").unwrap();
    transport.try_writelines([b"5", b"6"]).unwrap();
    assert_eq!(end.drain(), b"456");
    assert_eq!(log.take(), [Told::Made]);
}

/// PIP-008
fn nothing_is_written_for_nothing(event_loop: &TestLoop, channel: Channel) {
    let (writer, end) = channel.writer();
    let (transport, log) = event_loop.write(writer);
    transport.write(b"");
    transport.writelines::<&[u8]>([]);
    transport.writelines(["", ""]);
    transport.writelines(["", "a", "", "b"]);
    event_loop.ticks(2);
    assert_eq!((end.drain(), transport.get_write_buffer_size()), (b"ab".to_vec(), 0));
    assert_eq!(log.take(), [Told::Made]);
}

/// PIP-009
fn the_system_takes_what_fits_into_a_pipe(event_loop: &TestLoop) {
    let (writer, end) = Channel::Pipe.writer();
    rustix::pipe::fcntl_setpipe_size(&writer, 65_536).unwrap();
    let (transport, log) = event_loop.write(writer);
    transport.write(&pattern(65_536));
    assert_eq!(transport.get_write_buffer_size(), 0);
    transport.write(&pattern(65_536));
    assert_eq!(transport.get_write_buffer_size(), 65_536);
    assert_eq!(log.take(), [Told::Made]);
    transport.write(b"x");
    assert_eq!(transport.get_write_buffer_size(), 65_537);
    assert_eq!(log.take(), [Told::Pause]);
    event_loop.ticks(3);
    assert_eq!((log.take(), transport.get_write_buffer_size()), (vec![], 65_537));

    let mut got = Vec::new();
    event_loop.until(|| {
        got.extend(end.drain());
        got.len() == 2 * 65_536 + 1
    });
    assert!(got == [pattern(65_536), pattern(65_536), b"x".to_vec()].concat());
    assert_eq!(log.take(), [Told::Resume]);
}

/// PIP-010
fn closing_writes_what_waits(event_loop: &TestLoop, channel: Channel) {
    let (writer, end) = channel.writer();
    if channel != Channel::Socketpair {
        rustix::pipe::fcntl_setpipe_size(&writer, 65_536).unwrap();
    }
    let (transport, log) = event_loop.write(writer);
    // All that it takes, and 65,537 bytes more.
    let mut sent = Vec::new();
    while transport.get_write_buffer_size() == 0 {
        transport.write(&[b'.'; 4096]);
        sent.extend([b'.'; 4096]);
    }
    let rest = pattern(65_537 - transport.get_write_buffer_size());
    transport.write(&rest);
    sent.extend(&rest);
    assert_eq!(transport.get_write_buffer_size(), 65_537);

    transport.close();
    transport.write(b"dropped");
    transport.writelines(["dropped"]);
    assert!(transport.try_write(b"dropped").is_ok());
    assert_eq!(transport.get_write_buffer_size(), 65_537);
    assert!(transport.is_closing());
    event_loop.ticks(3);
    assert_eq!(log.take(), [Told::Made, Told::Pause]);
    let mut got = Vec::new();
    event_loop.until(|| {
        got.extend(end.drain());
        log.lost()
    });
    got.extend(end.drain());
    assert!(got == sent && end.ended());
    assert_eq!(log.take(), [Told::Resume, Told::Lost(None)]);
}

/// PIP-008, PIP-010: a pipe has one direction, so its end is the end.
fn write_eof_closes(event_loop: &TestLoop, channel: Channel) {
    for waits in [false, true] {
        let (writer, end) = channel.writer();
        let (transport, log) = event_loop.write(writer);
        let count = if waits { LARGE } else { 100 };
        transport.write(&pattern(count));
        transport.write_eof().unwrap();
        transport.write_eof().unwrap();
        assert!(transport.is_closing() && transport.can_write_eof());
        transport.write(b"silence");
        assert!(transport.try_write(b"silence").is_ok());
        transport.close();
        let reader = end.collect();
        event_loop.until(|| log.lost());
        assert!(reader.join().unwrap() == pattern(count));
        let told = log.take();
        let expected: &[Told] = if waits {
            &[Told::Made, Told::Pause, Told::Resume, Told::Lost(None)]
        } else {
            &[Told::Made, Told::Lost(None)]
        };
        assert_eq!(told, expected);
        transport.write_eof().unwrap();
    }
}

/// FLW-010, TCP-011, for pipes.
fn aborting_drops_what_waits(event_loop: &TestLoop, channel: Channel) {
    for closes_first in [false, true] {
        let (writer, end) = channel.writer();
        let (transport, log) = event_loop.write(writer);
        overfill(&transport);
        if closes_first {
            transport.close();
        }
        transport.abort();
        assert_eq!(transport.get_write_buffer_size(), 0);
        event_loop.ticks(1);
        assert_eq!(log.take(), [Told::Made, Told::Pause, Told::Lost(None)]);
        assert!(end.drain().len() < LARGE && end.ended());
    }
}

/// PIP-013
fn a_reader_that_goes_ends_the_transport(event_loop: &TestLoop, channel: Channel) {
    let (writer, end) = channel.writer();
    let (transport, log) = event_loop.write(writer);
    transport.write(b"1");
    event_loop.ticks(2);
    assert_eq!(end.drain(), b"1");
    drop(end);
    event_loop.until(|| log.lost());
    assert_eq!(log.take(), [Told::Made, Told::Lost(None)]);
    assert!(transport.is_closing() && transport.with_fd(|_| ()).is_none());

    // It had gone before anybody looked.
    let (writer, end) = channel.writer();
    drop(end);
    let (_, log) = event_loop.write(writer);
    event_loop.until(|| log.lost());
    assert_eq!(log.take(), [Told::Made, Told::Lost(None)]);
}

/// PIP-013: what waits is lost, and that is an error.
fn a_reader_that_goes_while_bytes_wait_is_an_error(event_loop: &TestLoop, channel: Channel) {
    let (writer, end) = channel.writer();
    let (transport, log) = event_loop.write(writer);
    overfill(&transport);
    event_loop.ticks(2);
    drop(end);
    event_loop.until(|| log.lost());
    assert_eq!(log.take(), [Told::Made, Told::Pause, Told::Lost(Some(ErrorKind::Io))]);
    assert_eq!(log.error().unwrap().raw_os_error(), Some(libc::EPIPE));
    assert_eq!(transport.get_write_buffer_size(), 0);
}

/// PIP-010, PIP-013
fn a_reader_that_goes_while_closing_is_an_error(event_loop: &TestLoop, channel: Channel) {
    let (writer, end) = channel.writer();
    let (transport, log) = event_loop.write(writer);
    overfill(&transport);
    transport.close();
    event_loop.ticks(2);
    assert_eq!(log.take(), [Told::Made, Told::Pause]);
    drop(end);
    event_loop.until(|| log.lost());
    let kind = log.error().and_then(|error| error.io_error().map(|error| error.kind()));
    assert_eq!(log.take(), [Told::Lost(Some(ErrorKind::Io))]);
    assert!(matches!(kind, Some(std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset)), "{kind:?}");
}

/// PIP-013: where the write comes before the loop could see it.
fn a_write_to_nobody_is_an_error(event_loop: &TestLoop, channel: Channel) {
    let (writer, end) = channel.writer();
    let (transport, log) = event_loop.write(writer);
    drop(end);
    transport.write(b"x");
    transport.write(b"y");
    assert!(transport.is_closing());
    assert_eq!((log.take(), transport.get_write_buffer_size()), (vec![Told::Made], 0));
    event_loop.ticks(1);
    assert_eq!(log.take(), [Told::Lost(Some(ErrorKind::Io))]);
    assert_eq!(log.error().unwrap().raw_os_error(), Some(libc::EPIPE));
}

/// PIP-010, FLW-006: a reader that takes a little at a time.
fn a_slow_reader_gets_everything(event_loop: &TestLoop, channel: Channel) {
    let (writer, end) = channel.writer();
    let (transport, log) = event_loop.write(writer);
    let size = overfill(&transport);
    transport.write(b"tail");
    assert_eq!(transport.get_write_buffer_size(), size + 4);
    let mut got = Vec::new();
    event_loop.until(|| {
        got.extend(end.recv(10_000).unwrap_or_default());
        got.len() == LARGE + 4
    });
    assert!(got == [pattern(LARGE), b"tail".to_vec()].concat());
    assert_eq!(log.take(), [Told::Made, Told::Pause, Told::Resume]);
    assert_eq!(transport.get_write_buffer_size(), 0);
    // It is as new.
    transport.write(b"again");
    assert_eq!(end.drain(), b"again");
}

/// PIP-008: TCP-003, for pipes.
fn many_lines_are_written_in_order(event_loop: &TestLoop, channel: Channel) {
    let (writer, end) = channel.writer();
    let (transport, log) = event_loop.write(writer);
    let reader = end.collect();
    let data = pattern(1_000_000);
    let lines: Vec<&[u8]> = data.chunks(100).collect();
    transport.writelines(lines);
    transport.close();
    event_loop.until(|| log.lost());
    assert!(reader.join().unwrap() == data);
}

/// FLW-002, for pipes.
fn the_limits_make_each_other(event_loop: &TestLoop, channel: Channel) {
    let (writer, _end) = channel.writer();
    let (transport, _) = event_loop.write(writer);
    let cases = [
        ((Some(100_000), None), (25_000, 100_000)),
        ((None, Some(1000)), (1000, 4000)),
        ((Some(0), None), (0, 0)),
        ((Some(1), None), (0, 1)),
        ((None, Some(0)), (0, 0)),
        ((None, None), (16_384, 65_536)),
    ];
    for ((high, low), limits) in cases {
        transport.set_write_buffer_limits(high, low).unwrap();
        assert_eq!(transport.get_write_buffer_limits(), limits);
    }
}

/// FLW-003, for pipes.
fn wrong_limits_change_nothing(event_loop: &TestLoop, channel: Channel) {
    let (writer, _end) = channel.writer();
    let (transport, _) = event_loop.write(writer);
    for (high, low) in [(0, 1), (10, 11)] {
        let (kind, text) = failure(transport.set_write_buffer_limits(high, low));
        assert!(kind == ErrorKind::Value && text.contains("high") && text.contains("low"), "{text}");
        assert_eq!(transport.get_write_buffer_limits(), (16_384, 65_536));
    }
}

/// FLW-004, for pipes.
fn each_crossing_is_told_once(event_loop: &TestLoop, channel: Channel) {
    let (writer, _end) = channel.writer();
    let (transport, log) = event_loop.write(writer);
    transport.set_write_buffer_limits(usize::MAX, 0).unwrap();
    transport.write(&pattern(LARGE));
    let size = transport.get_write_buffer_size();
    transport.set_write_buffer_limits(size, 0).unwrap();
    assert_eq!(log.take(), [Told::Made]);
    assert!(!transport.is_write_paused());
    transport.write(b"1");
    assert_eq!((log.take(), transport.get_write_buffer_size()), (vec![Told::Pause], size + 1));
    transport.write(b"2");
    transport.write(b"3");
    assert_eq!((log.take(), transport.get_write_buffer_size()), (vec![], size + 3));
    assert!(transport.is_write_paused());
}

/// FLW-005, for pipes.
fn a_pause_is_told_before_write_returns(event_loop: &TestLoop, channel: Channel) {
    let (writer, _end) = channel.writer();
    let (transport, log) = event_loop.write(writer);
    transport.write(&pattern(LARGE));
    log.note("returned");
    assert_eq!(log.take(), [Told::Made, Told::Pause, Told::Note("returned")]);
}

/// FLW-006, for pipes.
fn resuming_waits_for_the_low_mark(event_loop: &TestLoop, channel: Channel) {
    let (writer, end) = channel.writer();
    let size = Rc::new(Cell::new(usize::MAX));
    let seen = size.clone();
    let resumed = move |transport: &Transport| seen.set(transport.get_write_buffer_size());
    let (transport, _, log) = event_loop.write_with(writer, |recorder| recorder.on_resume(resumed));
    transport.set_write_buffer_limits(100_000, 10).unwrap();
    overfill(&transport);
    let mut got = 0;
    event_loop.until(|| {
        let before = transport.get_write_buffer_size();
        assert_eq!(log.has(&Told::Resume), before <= 10);
        got += end.recv(20_000).map_or(0, |chunk| chunk.len());
        got == LARGE
    });
    assert_eq!(log.take(), [Told::Made, Told::Pause, Told::Resume]);
    assert!(size.get() <= 10);
}

/// FLW-005, by rule 1: from inside of a callback it comes right after that one.
fn a_pause_comes_right_after_the_callback_that_wrote(event_loop: &TestLoop, channel: Channel) {
    let (writer, _end) = channel.writer();
    let log = Log::default();
    let record = log.clone();
    let written = move |transport: &Transport| {
        transport.write(&pattern(LARGE));
        assert!(transport.is_write_paused());
        record.note("written");
    };
    let opening = event_loop.connect_write_pipe(|| Recorder::new(&log).on_made(written), writer);
    let (transport, protocol) = event_loop.run_until_complete(opening).unwrap();
    assert_eq!(log.take(), [Told::Made, Told::Note("written"), Told::Pause]);
    assert!(protocol.try_borrow_mut().is_ok() && transport.is_write_paused());
}

/// FLW-006, FLW-011: what resume_writing writes is written too.
fn resume_writing_may_write_more(event_loop: &TestLoop, channel: Channel) {
    let (writer, end) = channel.writer();
    let rounds = Cell::new(0);
    let again = move |transport: &Transport| {
        rounds.set(rounds.get() + 1);
        if rounds.get() < 3 {
            transport.write(&pattern(LARGE));
        } else {
            transport.close();
        }
    };
    let (transport, _, log) = event_loop.write_with(writer, |recorder| recorder.on_resume(again));
    let reader = end.collect();
    transport.set_write_buffer_limits(0, 0).unwrap();
    transport.write(&pattern(LARGE));
    // A fast reader may leave nothing to pause for.
    if log.has(&Told::Pause) {
        event_loop.until(|| log.lost() || (!transport.is_write_paused() && transport.get_write_buffer_size() == 0));
    }
    transport.close();
    event_loop.until(|| log.lost());
    let got = reader.join().unwrap();
    assert!(got.len() % LARGE == 0 && got.chunks(LARGE).all(|round| round == pattern(LARGE)));
    assert_eq!(got.len() / LARGE, 1 + log.count(&Told::Resume).min(2));
    assert_eq!(log.count(&Told::Pause), log.count(&Told::Resume));
    assert_eq!(log.take().last(), Some(&Told::Lost(None)));
}

/// PIP-008: it has no input.
fn reading_is_not_what_it_does(event_loop: &TestLoop, channel: Channel) {
    let (writer, end) = channel.writer();
    let (transport, log) = event_loop.write(writer);
    assert!(!transport.is_reading());
    transport.pause_reading();
    transport.resume_reading();
    assert!(!transport.is_reading());
    transport.write(b"on");
    event_loop.ticks(2);
    assert_eq!(end.drain(), b"on");
    // It still notices its reader's going.
    drop(end);
    event_loop.until(|| log.lost());
    assert_eq!(log.take(), [Told::Made, Told::Lost(None)]);
}

/// TCP-010, for pipes.
fn after_the_loss_everything_is_silent(event_loop: &TestLoop, channel: Channel) {
    let (writer, end) = channel.writer();
    let (transport, log) = event_loop.write(writer);
    drop(end);
    event_loop.until(|| log.lost());
    log.take();
    for _ in 0..10 {
        transport.write(b"x");
    }
    transport.writelines(["x"]);
    assert!(transport.try_write(b"x").is_ok() && transport.try_writelines(["x"]).is_ok());
    transport.write_eof().unwrap();
    transport.abort();
    transport.close();
    event_loop.ticks(3);
    assert_eq!((log.take(), transport.get_write_buffer_size()), (vec![], 0));
    assert!(transport.get_protocol::<Recorder>().is_none());
    assert!(format!("{transport:?}").contains("<WritePipeTransport closed fd="), "{transport:?}");
}

/// BUF-001: the kind of protocol is all one to who writes.
fn a_buffered_protocol_may_write(event_loop: &TestLoop, channel: Channel) {
    let (writer, end) = channel.writer();
    let (transport, _, log) = event_loop.write_with(writer, |recorder| BufferedRecorder::new(recorder, 10));
    overfill(&transport);
    transport.close();
    let reader = end.collect();
    event_loop.until(|| log.lost());
    assert!(reader.join().unwrap() == pattern(LARGE));
    assert_eq!(log.take(), [Told::Made, Told::Pause, Told::Resume, Told::Lost(None)]);
}

/// PIP-013: where nobody has gone.
fn a_fifo_open_for_both_is_no_hang_up(event_loop: &TestLoop) {
    let fifo = Fifo::new();
    let both = fifo.open(OpenOptions::new().read(true).write(true));
    let end = End::new(duplicate(&both));
    end.send(b"before ");
    let (transport, log) = event_loop.write(both);
    event_loop.ticks(3);
    transport.write(b"after");
    event_loop.ticks(3);
    assert_eq!(end.drain(), b"before after");
    // What waits is written as the FIFO empties.
    transport.write(&pattern(LARGE));
    let mut got = Vec::new();
    event_loop.until(|| {
        got.extend(end.drain());
        got.len() == LARGE
    });
    assert!(got == pattern(LARGE));
    assert_eq!(log.take(), [Told::Made, Told::Pause, Told::Resume]);
    // Nothing runs for the bytes that nobody reads.
    transport.write(b"unread");
    event_loop.ticks(2);
    assert_eq!(event_loop.run_once(std::time::Duration::from_millis(1)).unwrap(), 0);
    transport.close();
    event_loop.ticks(1);
    assert_eq!(log.take(), [Told::Lost(None)]);
}

/// PIP-013: bytes from the other side are not its going, and do not hide it.
fn what_is_sent_to_a_socket_is_no_hang_up(event_loop: &TestLoop) {
    for bytes_wait in [false, true] {
        let (writer, end) = Channel::Socketpair.writer();
        let input = duplicate(&writer);
        let (transport, log) = event_loop.write(writer);
        end.send(b"for somebody else");
        event_loop.ticks(3);
        assert_eq!(event_loop.run_once(std::time::Duration::from_millis(1)).unwrap(), 0, "it spins");
        transport.write(b"still");
        event_loop.ticks(2);
        assert_eq!(end.drain(), b"still");
        assert_eq!(End::new(input).drain(), b"for somebody else");
        if bytes_wait {
            overfill(&transport);
            event_loop.ticks(2);
        }
        log.take();
        drop(end);
        event_loop.until(|| log.lost());
        let error = bytes_wait.then_some(ErrorKind::Io);
        assert_eq!(log.take(), [Told::Lost(error)]);
    }
}

/// PIP-013: who sends no more may still read.
fn the_end_of_a_sockets_input_is_no_hang_up(event_loop: &TestLoop) {
    for kind in [PairKind::Tcp, PairKind::Unix, PairKind::Socketpair] {
        let pair = kind.pair();
        let (transport, log) = event_loop.write(pair.ours);
        pair.peer.half_close();
        event_loop.ticks(3);
        transport.write(b"answer");
        assert_eq!(pair.peer.read_exactly(6), b"answer");
        transport.close();
        event_loop.until(|| log.lost());
        assert_eq!(log.take(), [Told::Made, Told::Lost(None)]);
    }
}
