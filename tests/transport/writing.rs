//! What these tests show: what is written arrives: at once if it can, all of it, in order.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use asyncio::ErrorKind;

use crate::{
    LARGE, TestLoop,
    support::{
        failure,
        transports::{Told::*, *},
    },
};

/// TCP-001
fn what_is_written_is_sent_at_once(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
    transport.write(b"now");
    assert_eq!(transport.get_write_buffer_size(), 0);
    assert_eq!(peer.read_exactly(3), b"now");
    assert_eq!(log.take(), [Made]);
}

/// TCP-002
fn what_waits_keeps_the_order_of_the_calls(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, .. } = connect(event_loop, kind.pair());
    let data = pattern(LARGE);
    transport.write(&data);
    assert!(transport.get_write_buffer_size() > 0);
    transport.write(b"a");
    transport.write(b"b");
    transport.writelines(["c", "d", ""]);
    let mut received = Vec::new();
    until(event_loop, || {
        received.extend(peer.drain());
        received.len() >= LARGE + 4
    });
    event_loop.ticks(5);
    received.extend(peer.drain());
    assert!(received == [data, b"abcd".to_vec()].concat());
    assert_eq!(transport.get_write_buffer_size(), 0);
}

/// TCP-003
fn lines_are_written_one_after_the_other(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, .. } = connect(event_loop, kind.pair());
    transport.writelines(["ab", "cd", "ef", ""]);
    assert_eq!(peer.read_exactly(6), b"abcdef");
    let data = pattern(6_000_000);
    let lines: Vec<&[u8]> = data.chunks(100).collect();
    assert_eq!(lines.len(), 60_000);
    transport.writelines(&lines);
    transport.close();
    let collecting = peer.collect();
    until(event_loop, || collecting.is_finished());
    assert!(collecting.join().unwrap().0 == data);
}

/// TCP-003: around the number of pieces that one call of the system takes, with empty ones anywhere
fn any_number_of_lines_arrives(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, .. } = connect(event_loop, kind.pair());
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for count in [0, 1, 2, 126, 127, 128, 129, 255, 256, 257, 1023, 1024, 1025, 1300] {
        lines.resize_with(count, Vec::new);
        for (index, line) in lines.iter_mut().enumerate() {
            *line = pattern(index % 5);
        }
        let whole = lines.concat();
        transport.writelines(&lines);
        transport.try_writelines(&lines).unwrap();
        assert_eq!(peer.read_exactly(2 * whole.len()), [whole.clone(), whole].concat(), "{count} lines");
    }
    assert_eq!(peer.recv(1), None);
}

/// TCP-003: nothing is nothing, also behind what waits
fn empty_writes_are_nothing(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
    let write_nothing = || {
        transport.write(b"");
        transport.try_write(b"").unwrap();
        transport.writelines::<&str>([]);
        transport.writelines(["", ""]);
        transport.writelines(vec![Vec::new(); 1000]);
    };
    write_nothing();
    event_loop.ticks(3);
    assert_eq!((transport.get_write_buffer_size(), peer.recv(1)), (0, None));
    transport.set_write_buffer_limits(usize::MAX, None).unwrap();
    transport.write(&pattern(LARGE));
    let size = transport.get_write_buffer_size();
    write_nothing();
    assert_eq!(transport.get_write_buffer_size(), size);
    assert_eq!(log.take(), [Made]);
}

/// TCP-003: what a protocol writes in `pause_writing` comes after all of the lines that made it pause
fn lines_stay_together(event_loop: &TestLoop, kind: PairKind) {
    for (count, length) in [(1000, 20_000), (129, 100_000), (100, 100_000)] {
        let Connected { transport, peer, log, .. } =
            connect_with(event_loop, kind.pair(), |recorder| recorder.on_pause(|transport| transport.write(b"!")));
        let data = pattern(count * length);
        let lines: Vec<&[u8]> = data.chunks(length).collect();
        transport.writelines(&lines);
        assert_eq!(log.take(), [Made, Pause]);
        transport.close();
        let collecting = peer.collect();
        until(event_loop, || collecting.is_finished());
        assert!(collecting.join().unwrap().0 == [&data[..], b"!"].concat(), "{count} lines of {length} bytes");
    }
}

/// TCP-003: and `write_eof` in it ends them after the last
fn lines_are_whole_before_an_end_that_they_cause(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect_with(event_loop, kind.pair(), |recorder| {
        recorder.keep_open().on_pause(|transport| transport.write_eof().unwrap())
    });
    let data = pattern(12_800_100);
    transport.writelines(data.chunks(100_000).collect::<Vec<_>>());
    assert_eq!(log.take(), [Made, Pause]);
    let collecting = peer.collect();
    until(event_loop, || collecting.is_finished());
    assert!(collecting.join().unwrap().0 == data);
    assert!(!transport.is_closing());
}

/// TCP-003: the pause comes where the last of many lines are empty, too
fn lines_that_end_with_nothing_pause(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer: _peer, log, .. } = connect(event_loop, kind.pair());
    let data = pattern(LARGE);
    let mut lines: Vec<&[u8]> = data.chunks(LARGE / 128).collect();
    lines.resize(300, b"");
    transport.writelines(&lines);
    assert_eq!(log.take(), [Made, Pause]);
    assert!(transport.is_write_paused());
}

/// TCP-010: after `write_eof` a write is a mistake: `try_write` gives it back, `write` reports it, and nothing is sent
fn a_write_after_write_eof_is_a_mistake(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } = connect(event_loop, kind.pair());
    transport.write(b"all");
    transport.write_eof().unwrap();
    for data in [&b"more"[..], b""] {
        let (error, text) = failure(transport.try_write(data));
        assert_eq!(error, ErrorKind::Runtime);
        assert!(text.contains("write_eof"), "{text}");
    }
    assert_eq!(failure(transport.try_writelines(["more"])).0, ErrorKind::Runtime);
    let line = line!() + 1;
    transport.write(b"more");
    let report = event_loop.report();
    assert_eq!(report.exception.unwrap().kind(), ErrorKind::Runtime);
    assert!(report.message.contains("write()"), "{}", report.message);
    assert_eq!(report.extra["transport"], format!("{transport:?}"));
    assert_eq!(report.source_location.map(|place| (place.file(), place.line())), Some((file!(), line)));
    transport.writelines(["more"]);
    assert!(event_loop.report().message.contains("writelines()"));
    peer.until_readable();
    assert_eq!(peer.drain(), b"all");
    until(event_loop, || peer.ended());
    assert_eq!(log.take(), [Made]);
    // Once it closes, it is silence.
    transport.close();
    transport.try_write(b"more").unwrap();
    transport.write(b"more");
    transport.writelines(["more"]);
    event_loop.ticks(2);
    transport.try_writelines(["more"]).unwrap();
    transport.write(b"more");
    assert_eq!(log.take(), [Lost(None)]);
}

/// TCP-002: nothing is lost in the smallest of buffers, where each write of the system is a part of one
fn small_system_buffers_lose_nothing(event_loop: &TestLoop, kind: PairKind) {
    const CHUNK: usize = 1 << 16;
    let total = 100 << 20;
    let data = Arc::new(pattern(CHUNK + 1));
    // Goes on whenever it may, at another place of the pattern each time.
    let sent = Rc::new(RefCell::new(0));
    let (source, counter) = (data.clone(), sent.clone());
    let go_on = move |transport: &asyncio::Transport| {
        while *counter.borrow() < total && !transport.is_write_paused() {
            let at = *counter.borrow() % (CHUNK + 1);
            let end = (at + 40_000).min(CHUNK + 1).min(at + total - *counter.borrow());
            *counter.borrow_mut() += end - at;
            transport.write(&source[at..end]);
        }
        if *counter.borrow() == total && !transport.is_closing() {
            transport.close();
        }
    };
    let again = go_on.clone();
    let Connected { peer, log, .. } =
        connect_with(event_loop, kind.small_pair(), |recorder| recorder.on_made(go_on).on_resume(again));
    let reading = std::thread::spawn(move || {
        let mut count = 0;
        loop {
            peer.until_readable();
            let Some(received) = peer.recv(CHUNK) else { continue };
            if received.is_empty() {
                return count;
            }
            for byte in received {
                assert_eq!(byte, data[count % (CHUNK + 1)], "at {count}");
                count += 1;
            }
        }
    });
    until(event_loop, || reading.is_finished());
    assert_eq!((reading.join().unwrap(), *sent.borrow()), (total, total));
    until(event_loop, || log.lost());
    let log = log.take();
    assert_eq!((log.first(), log.last()), (Some(&Made), Some(&Lost(None))));
    assert!(log[1..log.len() - 1].chunks(2).all(|pair| pair == [Pause, Resume]), "{log:?}");
}

/// TCP-002: the other way round, with both sides at it at once
fn both_directions_go_on_at_once(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } =
        connect_with(event_loop, kind.pair(), |recorder| recorder.on_data(|transport, data| transport.write(data)));
    let data = pattern(3_000_000);
    let (mut sent, mut received) = (0, Vec::new());
    until(event_loop, || {
        sent += peer.send_some(&data[sent..]);
        received.extend(peer.recv(50_000).unwrap_or_default());
        received.len() >= data.len()
    });
    assert!(received == data);
    assert_eq!(log.received_len(), data.len());
    assert!(log.received() == data);
    assert_eq!(transport.get_write_buffer_size(), 0);
}

/// TCP-001: one byte at a time
fn bytes_one_by_one(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, peer, log, .. } =
        connect_with(event_loop, kind.pair(), |recorder| recorder.on_data(|transport, data| transport.write(data)));
    let data = pattern(2000);
    for (index, byte) in data.iter().enumerate() {
        peer.send(&[*byte]);
        until(event_loop, || log.received_len() == index + 1);
        assert_eq!(peer.read_exactly(1), [*byte]);
    }
    assert_eq!(log.received(), data);
    assert_eq!(log.count(&Data(1)), data.len());
    transport.abort();
    event_loop.ticks(1);
    assert_eq!(log.items().last(), Some(&Lost(None)));
}

on_each! {
    what_is_written_is_sent_at_once
    what_waits_keeps_the_order_of_the_calls
    lines_are_written_one_after_the_other
    any_number_of_lines_arrives
    empty_writes_are_nothing
    lines_stay_together
    lines_are_whole_before_an_end_that_they_cause
    lines_that_end_with_nothing_pause
    a_write_after_write_eof_is_a_mistake
    small_system_buffers_lose_nothing
    both_directions_go_on_at_once
    bytes_one_by_one
}
