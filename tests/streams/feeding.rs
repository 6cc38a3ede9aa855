//! What these tests show: readers that are fed by hand, and by whatever feeds them.

use std::{cell::RefCell, io::Write, rc::Rc};

use asyncio::{Error, ErrorKind, StreamFeeder, StreamReader, create_task};

use crate::{
    LIMIT, fed, pipe, rest,
    support::{
        failure,
        loops::On,
        new_loop, run,
        transports::{PairKind, pattern},
    },
    turn,
};

on_each_selector! {
    a_feeder_is_a_protocol
    a_feeder_pauses_what_it_is_fed_by
    a_pipe_is_read_whatever_the_limit
    a_broken_connection_breaks_the_reader
}

#[test]
fn nothing_is_nothing() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        feeder.feed_data(b"")?;
        assert!(crate::polls(reader.read(1), 3).await.is_none());
        assert_eq!(rest(&feeder, reader).await, b"");
        Ok(())
    });
}

#[test]
fn nothing_wakes_nobody() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        let read = create_task(async move { reader.read(5).await });
        turn().await;
        feeder.feed_data(b"")?;
        crate::turns(3).await;
        assert!(!read.done());
        feeder.feed_data(b"x")?;
        assert_eq!(read.await?, b"x");
        Ok(())
    });
}

#[test]
fn nothing_comes_behind_the_end() {
    run(async {
        let (feeder, reader) = fed(LIMIT);
        feeder.feed_data(b"before")?;
        feeder.feed_eof()?;
        feeder.feed_eof()?;
        let (kind, text) = failure(feeder.feed_data(b"behind"));
        assert_eq!(kind, ErrorKind::Runtime);
        assert!(text.contains("after feed_eof"), "{text}");
        assert_eq!(rest(&feeder, reader).await, b"before");
        Ok(())
    });
}

#[test]
fn dropping_the_feeder_ends_the_stream() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        let read = create_task(async move { Ok((reader.readexactly(3).await?, reader.read(None).await?)) });
        turn().await;
        feeder.feed_data(b"last")?;
        drop(feeder);
        assert_eq!(read.await?, (b"las".to_vec(), b"t".to_vec()));
        Ok(())
    });
}

#[test]
fn dropping_the_reader_leaves_the_feeder_alone() {
    run(async {
        let (feeder, reader) = fed(LIMIT);
        feeder.feed_data(b"unread")?;
        drop(reader);
        feeder.feed_data(b"unread")?;
        feeder.set_exception(Error::Runtime("nobody".into()))?;
        feeder.feed_eof()
    });
}

#[test]
fn a_reader_belongs_to_a_loop() {
    std::thread::spawn(|| {
        assert_eq!(failure(StreamReader::new(10)).0, ErrorKind::Runtime);
        // One that is set will do.
        let event_loop = new_loop();
        asyncio::set_event_loop(&event_loop);
        let (feeder, mut reader) = StreamReader::new(10).unwrap();
        feeder.feed_data(b"early").unwrap();
        assert_eq!(event_loop.run_until_complete(reader.readexactly(5)).unwrap(), b"early");
        asyncio::set_event_loop(None);
        assert_eq!(failure(StreamReader::new(10)).0, ErrorKind::Runtime);
    })
    .join()
    .unwrap();
}

#[test]
fn callbacks_feed() {
    let event_loop = new_loop();
    let (feeder, mut reader) = event_loop.run_until_complete(async { StreamReader::new(10) }).unwrap();
    let feeder = Rc::new(feeder);
    for chunk in [b"chunk1 ", b"chunk2\n"] {
        let feeder = feeder.clone();
        event_loop.call_soon(move || feeder.feed_data(chunk));
    }
    assert_eq!(event_loop.run_until_complete(reader.readexactly(14)).unwrap(), b"chunk1 chunk2\n");
    event_loop.close().unwrap();
    assert_eq!(failure(feeder.feed_data(b"late")).0, ErrorKind::Runtime);
    assert_eq!(failure(feeder.feed_eof()).0, ErrorKind::Runtime);
    assert_eq!(failure(feeder.set_exception(Error::Runtime("late".into()))).0, ErrorKind::Runtime);
}

/// STR-004: a feeder, too, keeps what it feeds by from giving more than can be held.
fn a_feeder_is_a_protocol(on: On) {
    let event_loop = on.event_loop();
    let pair = PairKind::Tcp.pair();
    let (feeder, mut reader) = event_loop.run(async { StreamReader::new(LIMIT) });
    let opening = event_loop.create_connection(|| feeder, ()).sock(pair.ours);
    let (transport, protocol): (_, Rc<RefCell<StreamFeeder>>) = event_loop.run(opening);
    pair.peer.send(b"a line\nand more");
    assert_eq!(event_loop.run(reader.readline()), b"a line\n");
    pair.peer.half_close();
    assert_eq!(event_loop.run(reader.read(None)), b"and more");
    event_loop.until(|| transport.is_closing());
    assert!(reader.at_eof());
    drop(protocol);
    assert_eq!(event_loop.run(reader.read(None)), b"");
}

fn a_feeder_pauses_what_it_is_fed_by(on: On) {
    let event_loop = on.event_loop();
    let pair = PairKind::Socketpair.pair();
    let (feeder, mut reader) = event_loop.run(async { StreamReader::new(100) });
    let opening = event_loop.create_connection(|| feeder, ()).sock(pair.ours);
    let (transport, _) = event_loop.run(opening);
    pair.peer.send(&pattern(201));
    event_loop.until(|| !transport.is_reading());
    assert!(event_loop.run(reader.read(101)) == pattern(101));
    assert!(transport.is_reading());
    pair.peer.send(b"more");
    assert!(event_loop.run(reader.readexactly(104)).ends_with(b"more"));
    transport.close();
    assert_eq!(event_loop.run(reader.read(None)), b"");
}

/// STR-004
fn a_pipe_is_read_whatever_the_limit(on: On) {
    let event_loop = on.event_loop();
    let (theirs, mut ours) = pipe();
    let (feeder, mut reader) = event_loop.run(async { StreamReader::new(1) });
    ours.write_all(b"data").unwrap();
    event_loop.run(event_loop.connect_read_pipe(|| feeder, theirs));
    event_loop.ticks(3);
    drop(ours);
    assert_eq!(event_loop.run(reader.read(None)), b"data");
}

/// STR-023
fn a_broken_connection_breaks_the_reader(on: On) {
    let event_loop = on.event_loop();
    let pair = PairKind::Tcp.pair();
    let (feeder, mut reader) = event_loop.run(async { StreamReader::new(LIMIT) });
    event_loop.run(event_loop.create_connection(|| feeder, ()).sock(pair.ours));
    pair.peer.reset();
    let error = event_loop.fails(reader.readline());
    assert_eq!(error.io_error().unwrap().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(reader.exception().unwrap().kind(), ErrorKind::Io);
}
