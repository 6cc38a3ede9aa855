//! What these tests show: what is written, what is kept, and who waits for it to go.

use std::{cell::Cell, io::ErrorKind as IoKind, rc::Rc};

use asyncio::{Error, ErrorKind, SOCKET, create_task};

use crate::{
    Ends, LARGE, joined, polls,
    support::{
        failure,
        loops::On,
        transports::{PairKind, pattern},
    },
    turn, turns,
};

on_each_selector! {
    what_is_written_arrives
    lines_are_written_in_order
    the_end_comes_behind_what_was_written
    writing_after_the_end_is_a_mistake
    all_who_drain_go_on_together
    one_who_drains_may_be_cancelled
    who_gave_up_draining_misses_nothing
    draining_is_over_at_once_while_little_is_kept
    the_water_marks_are_the_transports
    backpressure_works_both_ways
    a_writer_that_drains_lets_others_run
    writing_after_close_is_silent_and_draining_is_not
    closing_sends_what_was_written
    a_reset_ends_who_drains
    a_reset_is_what_closing_ends_with
    who_waits_for_the_end_is_told
    a_peer_that_went_ends_a_loop_of_writes
    an_aborted_connection_is_lost
}

fn kind_of(error: &Error) -> IoKind {
    error.io_error().expect("it is the system's").kind()
}

/// What writing to one who has gone comes to.
fn is_gone(error: &Error) -> bool {
    matches!(kind_of(error), IoKind::ConnectionReset | IoKind::ConnectionAborted | IoKind::BrokenPipe)
}

fn what_is_written_arrives(on: On) {
    let event_loop = on.event_loop();
    for kind in [PairKind::Tcp, PairKind::Unix, PairKind::Socketpair] {
        let Ends { reader: _reader, writer, peer } = Ends::open(&event_loop, kind.pair());
        writer.write("text ").unwrap();
        writer.write(b"bytes ").unwrap();
        writer.write(vec![b'v']).unwrap();
        writer.write("").unwrap();
        assert_eq!(peer.read_exactly(12), b"text bytes v");
        event_loop.run(writer.drain());
        assert!(writer.can_write_eof());
        assert!(format!("{writer:?}").starts_with("<StreamWriter transport=<Transport fd="), "{writer:?}");
        let number = writer.get_extra_info(SOCKET).unwrap();
        assert!(writer.transport().unwrap().with_fd(|fd| std::os::fd::AsRawFd::as_raw_fd(&fd) == number).unwrap());
    }
}

fn lines_are_written_in_order(on: On) {
    let event_loop = on.event_loop();
    let Ends { reader: _reader, writer, peer } = Ends::tcp(&event_loop);
    writer.writelines(["one\n", "", "two\n"]).unwrap();
    writer.writelines(vec![b"three\n".to_vec()]).unwrap();
    writer.writelines::<&str>([]).unwrap();
    assert_eq!(peer.read_exactly(14), b"one\ntwo\nthree\n");
    let data = pattern(LARGE);
    let collected = peer.collect();
    writer.writelines(data.chunks(10_007).collect::<Vec<_>>()).unwrap();
    event_loop.run(writer.drain());
    writer.write_eof().unwrap();
    event_loop.until(|| collected.is_finished());
    assert!(collected.join().unwrap().0 == data);
}

fn the_end_comes_behind_what_was_written(on: On) {
    let event_loop = on.event_loop();
    let Ends { mut reader, writer, peer } = Ends::tcp(&event_loop);
    let data = pattern(LARGE);
    writer.write(&data).unwrap();
    writer.write_eof().unwrap();
    writer.write_eof().unwrap();
    let collected = peer.collect();
    event_loop.until(|| collected.is_finished());
    let (received, peer) = collected.join().unwrap();
    assert!(received == data);
    // The other direction is open.
    peer.send(b"answer");
    peer.half_close();
    assert_eq!(event_loop.run(reader.read(None)), b"answer");
    assert!(!writer.is_closing());
}

fn writing_after_the_end_is_a_mistake(on: On) {
    let event_loop = on.event_loop();
    let Ends { reader: _reader, writer, peer } = Ends::tcp(&event_loop);
    writer.write("all").unwrap();
    writer.write_eof().unwrap();
    let (kind, text) = failure(writer.write("more"));
    assert_eq!((kind, text.contains("after write_eof")), (ErrorKind::Runtime, true), "{text}");
    assert_eq!(failure(writer.writelines(["more"])).0, ErrorKind::Runtime);
    event_loop.run(writer.drain());
    assert_eq!(peer.read_exactly(3), b"all");
    peer.until_readable();
    assert!(peer.ended());
    assert_eq!(event_loop.reports.len(), 0);
}

/// SWR-008
fn all_who_drain_go_on_together(on: On) {
    let event_loop = on.event_loop();
    let Ends { reader: _reader, writer, peer } = Ends::tcp(&event_loop);
    let writer = Rc::new(writer);
    writer.write(pattern(LARGE)).unwrap();
    let drains = [0, 1, 2].map(|_| {
        let writer = writer.clone();
        event_loop.create_task(async move { writer.drain().await })
    });
    event_loop.ticks(5);
    assert!(drains.iter().all(|drain| !drain.done()));
    let mut received = 0;
    event_loop.until(|| {
        received += peer.drain().len();
        received == LARGE
    });
    event_loop.until(|| drains.iter().all(|drain| drain.done()));
    drains.into_iter().for_each(|drain| event_loop.run(drain));
}

/// SWR-008: the others wait on.
fn one_who_drains_may_be_cancelled(on: On) {
    let event_loop = on.event_loop();
    let Ends { reader: _reader, writer, peer } = Ends::tcp(&event_loop);
    let writer = Rc::new(writer);
    writer.write(pattern(LARGE)).unwrap();
    let drains = [0, 1, 2].map(|_| {
        let writer = writer.clone();
        event_loop.create_task(async move { writer.drain().await })
    });
    event_loop.ticks(2);
    drains[1].cancel();
    event_loop.ticks(3);
    assert_eq!(drains.each_ref().map(|drain| drain.done()), [false, true, false]);
    event_loop.until(|| {
        peer.drain();
        drains.iter().all(|drain| drain.done())
    });
    assert_eq!(drains.each_ref().map(|drain| drain.cancelled()), [false, true, false]);
}

/// What nobody waits for any more is no unseen error.
fn who_gave_up_draining_misses_nothing(on: On) {
    let event_loop = on.event_loop();
    let Ends { reader: _reader, writer, peer } = Ends::tcp(&event_loop);
    writer.write(pattern(LARGE)).unwrap();
    event_loop.run(async {
        for _ in 0..10 {
            assert!(polls(writer.drain(), 2).await.is_none());
            assert!(polls(writer.wait_closed(), 2).await.is_none());
        }
        Ok(())
    });
    peer.reset();
    event_loop.until(|| writer.is_closing());
    event_loop.ticks(3);
    assert_eq!(event_loop.reports.len(), 0);
    assert!(is_gone(&event_loop.fails(writer.drain())));
}

fn draining_is_over_at_once_while_little_is_kept(on: On) {
    let event_loop = on.event_loop();
    let Ends { reader: _reader, writer, peer: _peer } = Ends::open(&event_loop, PairKind::Socketpair.small_pair());
    let transport = writer.transport().unwrap();
    transport.set_write_buffer_limits(1_000_000, None).unwrap();
    writer.write(pattern(500_000)).unwrap();
    assert!(transport.get_write_buffer_size() > 0);
    assert!(event_loop.run(async { Ok(polls(writer.drain(), 1).await) }).is_some());
    transport.abort();
}

fn the_water_marks_are_the_transports(on: On) {
    let event_loop = on.event_loop();
    let Ends { reader: _reader, writer, peer } = Ends::open(&event_loop, PairKind::Socketpair.small_pair());
    let transport = writer.transport().unwrap();
    transport.set_write_buffer_limits(0, None).unwrap();
    writer.write(pattern(100_000)).unwrap();
    assert!(event_loop.run(async { Ok(polls(writer.drain(), 3).await) }).is_none());
    let drain = event_loop.run(async {
        let drain = writer.drain();
        let mut drain = std::pin::pin!(drain);
        let mut received = Vec::new();
        while futures::poll!(&mut drain).is_pending() {
            received.extend(peer.drain());
            asyncio::sleep(std::time::Duration::from_millis(1)).await?;
        }
        Ok(received)
    });
    assert_eq!(transport.get_write_buffer_size(), 0);
    assert!([drain, peer.drain()].concat() == pattern(100_000));
}

/// SWR-008: both sides write much and read what the other wrote.
fn backpressure_works_both_ways(on: On) {
    let event_loop = on.event_loop();
    for kind in [PairKind::Tcp, PairKind::Socketpair] {
        let sides = joined(&event_loop, kind);
        let largest = Rc::new(Cell::new(0));
        let tasks = sides.map(|(mut reader, writer)| {
            let (writer, largest) = (Rc::new(writer), largest.clone());
            let sender = writer.clone();
            let sending = event_loop.create_task(async move {
                for chunk in pattern(LARGE).chunks(50_000) {
                    sender.write(chunk)?;
                    largest.set(largest.get().max(sender.transport()?.get_write_buffer_size()));
                    sender.drain().await?;
                }
                sender.write_eof()
            });
            let receiving = event_loop.create_task(async move {
                let _writer = writer;
                let mut received = Vec::new();
                loop {
                    let data = reader.read(30_000).await?;
                    if data.is_empty() {
                        return Ok(received == pattern(LARGE));
                    }
                    received.extend(data);
                }
            });
            (sending, receiving)
        });
        for (sending, receiving) in tasks {
            event_loop.run(sending);
            assert!(event_loop.run(receiving));
        }
        assert!(largest.get() < (1 << 16) + 50_000, "{}", largest.get());
    }
}

fn a_writer_that_drains_lets_others_run(on: On) {
    let event_loop = on.event_loop();
    let Ends { reader: _reader, writer, peer } = Ends::tcp(&event_loop);
    writer.write(pattern(LARGE)).unwrap();
    event_loop.run(async {
        let drain = create_task(async move {
            writer.drain().await?;
            Ok(writer)
        });
        turns(10).await;
        assert!(!drain.done());
        let collected = peer.collect();
        let writer = drain.await?;
        drop(writer);
        crate::turns_until(|| collected.is_finished()).await;
        assert!(collected.join().unwrap().0 == pattern(LARGE));
        Ok(())
    });
}

/// SWR-005
fn writing_after_close_is_silent_and_draining_is_not(on: On) {
    let event_loop = on.event_loop();
    let Ends { reader: _reader, writer, peer } = Ends::tcp(&event_loop);
    writer.close();
    writer.write("late").unwrap();
    writer.writelines(["late"]).unwrap();
    writer.write_eof().unwrap();
    for _ in 0..2 {
        let error = event_loop.fails(writer.drain());
        assert_eq!((error.kind(), kind_of(&error)), (ErrorKind::Io, IoKind::ConnectionReset));
        assert!(error.to_string().contains("Connection lost"), "{error}");
    }
    peer.until_readable();
    assert!(peer.ended());
    assert_eq!(event_loop.reports.len(), 0);
}

fn closing_sends_what_was_written(on: On) {
    let event_loop = on.event_loop();
    let Ends { reader: _reader, writer, peer } = Ends::tcp(&event_loop);
    let data = pattern(LARGE);
    writer.write(&data).unwrap();
    writer.close();
    assert!(writer.is_closing());
    assert!(event_loop.run(async { Ok(polls(writer.wait_closed(), 5).await) }).is_none());
    let collected = peer.collect();
    event_loop.run(writer.wait_closed());
    assert!(collected.join().unwrap().0 == data);
}

fn a_reset_ends_who_drains(on: On) {
    let event_loop = on.event_loop();
    let Ends { mut reader, writer, peer } = Ends::tcp(&event_loop);
    let writer = Rc::new(writer);
    writer.write(pattern(LARGE)).unwrap();
    let drains = [0, 1, 2].map(|_| {
        let writer = writer.clone();
        event_loop.create_task(async move { writer.drain().await })
    });
    event_loop.ticks(3);
    peer.reset();
    event_loop.until(|| drains.iter().all(|drain| drain.done()));
    for drain in drains {
        assert!(is_gone(&event_loop.fails(drain)));
    }
    assert!(is_gone(&event_loop.fails(reader.read(1))));
    assert!(is_gone(&event_loop.fails(writer.drain())));
    writer.write("late").unwrap();
    assert!(writer.is_closing());
    assert!(is_gone(&event_loop.fails(writer.wait_closed())));
}

fn a_reset_is_what_closing_ends_with(on: On) {
    let event_loop = on.event_loop();
    let Ends { reader: _reader, writer, peer } = Ends::tcp(&event_loop);
    writer.write(pattern(LARGE)).unwrap();
    writer.close();
    peer.reset();
    assert!(is_gone(&event_loop.fails(writer.wait_closed())));
    assert!(is_gone(&event_loop.fails(writer.wait_closed())));
}

fn who_waits_for_the_end_is_told(on: On) {
    let event_loop = on.event_loop();
    let Ends { reader: _reader, writer, peer: _peer } = Ends::tcp(&event_loop);
    let writer = Rc::new(writer);
    let waits = [0, 1].map(|_| {
        let writer = writer.clone();
        event_loop.create_task(async move { writer.wait_closed().await })
    });
    event_loop.ticks(3);
    assert!(waits.iter().all(|wait| !wait.done()));
    writer.close();
    for wait in waits {
        event_loop.run(wait);
    }
    event_loop.run(writer.wait_closed());
}

/// SWR-007
fn a_peer_that_went_ends_a_loop_of_writes(on: On) {
    let event_loop = on.event_loop();
    let Ends { reader: _reader, writer, peer } = Ends::tcp(&event_loop);
    drop(peer);
    let error = event_loop.fails(async {
        loop {
            writer.write("foo\n")?;
            writer.drain().await?;
        }
        #[expect(unreachable_code, reason = "the type of the block")]
        Ok(())
    });
    assert!(is_gone(&error), "{error}");
    assert_eq!(event_loop.reports.len(), 0);
}

fn an_aborted_connection_is_lost(on: On) {
    let event_loop = on.event_loop();
    let Ends { mut reader, writer, peer: _peer } = Ends::tcp(&event_loop);
    writer.write(pattern(LARGE)).unwrap();
    event_loop.run(async {
        let reading = create_task(async move { reader.read(None).await });
        turn().await;
        writer.transport()?.abort();
        writer.wait_closed().await?;
        assert_eq!(reading.await?, b"");
        assert_eq!(kind_of(&writer.drain().await.unwrap_err()), IoKind::ConnectionReset);
        Ok(())
    });
}
