//! What these tests show: halves of streams on other threads, where they may be, and do nothing.

use std::thread;

use asyncio::{ErrorKind, PEERNAME, Stream, StreamFeeder, StreamReader, StreamWriter, create_task};
use futures::{AsyncReadExt, AsyncWriteExt};

use crate::{
    Ends, LIMIT, fed,
    support::{
        failure,
        loops::On,
        new_loop, run,
        transports::{PairKind, pattern},
    },
    turns_until,
};

on_each_selector! {
    halves_work_on_their_own_thread_only
    another_loop_of_the_thread_cannot_wait_for_it
    a_reader_dropped_elsewhere_stops_reading
    a_writer_dropped_elsewhere_closes
    halves_dropped_elsewhere_after_the_loop
    halves_come_back_from_elsewhere
}

/// Does something on another thread.
fn elsewhere<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join().unwrap())
}

#[test]
fn streams_may_cross_threads() {
    fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<StreamReader>();
    send_and_sync::<StreamWriter>();
    send_and_sync::<StreamFeeder>();
    send_and_sync::<Stream>();
}

fn halves_work_on_their_own_thread_only(on: On) {
    let event_loop = on.event_loop();
    let Ends { mut reader, mut writer, peer } = Ends::tcp(&event_loop);
    peer.send(b"for its own thread");
    event_loop.until(|| format!("{reader:?}").contains("18 bytes"));
    elsewhere(|| {
        let refused = |(kind, text): (ErrorKind, String)| {
            assert_eq!((kind, text.contains("thread")), (ErrorKind::Runtime, true), "{text}");
        };
        refused(failure(writer.write("from elsewhere")));
        refused(failure(writer.writelines(["from elsewhere"])));
        refused(failure(writer.write_eof()));
        refused(failure(writer.transport()));
        assert!(writer.is_closing() && !writer.can_write_eof() && writer.get_extra_info(PEERNAME).is_none());
        writer.close();
        assert!(reader.at_eof());
        refused(failure(reader.exception().map_or(Ok(()), Err)));
        assert_eq!((format!("{reader:?}"), format!("{writer:?}")), ("<StreamReader>".into(), "<StreamWriter>".into()));
        let other = new_loop();
        other
            .run_until_complete(async {
                refused(failure(reader.read(1).await));
                refused(failure(reader.readline().await));
                refused(failure(reader.readexactly(1).await));
                refused(failure(reader.readuntil("x").await));
                refused(failure(writer.drain().await));
                refused(failure(writer.wait_closed().await));
                assert!(AsyncReadExt::read(&mut reader, &mut [0]).await.is_err());
                assert!(AsyncWriteExt::write(&mut writer, b"x").await.is_err());
                assert!(writer.flush().await.is_err());
                asyncio::ok(())
            })
            .unwrap();
    });
    assert!(!writer.is_closing());
    assert_eq!(event_loop.run(reader.readexactly(18)), b"for its own thread");
    writer.write("on").unwrap();
    assert_eq!(peer.read_exactly(2), b"on");
}

fn another_loop_of_the_thread_cannot_wait_for_it(on: On) {
    let event_loop = on.event_loop();
    let Ends { mut reader, writer: _writer, peer } = Ends::tcp(&event_loop);
    let (kind, text) = failure(new_loop().run_until_complete(async { reader.read(1).await }));
    assert_eq!((kind, text.contains("different loop")), (ErrorKind::Value, true), "{text}");
    peer.send(b"x");
    assert_eq!(event_loop.run(reader.read(1)), b"x");
}

fn a_reader_dropped_elsewhere_stops_reading(on: On) {
    let event_loop = on.event_loop();
    let Ends { reader, writer, peer } = Ends::tcp(&event_loop);
    let transport = writer.transport().unwrap();
    elsewhere(|| drop(reader));
    event_loop.until(|| !transport.is_reading());
    assert!(!transport.is_closing());
    writer.write("on").unwrap();
    assert_eq!(peer.read_exactly(2), b"on");
}

fn a_writer_dropped_elsewhere_closes(on: On) {
    let event_loop = on.event_loop();
    let Ends { mut reader, writer, peer } = Ends::tcp(&event_loop);
    writer.write(pattern(crate::LARGE)).unwrap();
    let transport = writer.transport().unwrap();
    elsewhere(|| drop(writer));
    let collected = peer.collect();
    event_loop.until(|| collected.is_finished());
    assert!(transport.is_closing());
    assert!(collected.join().unwrap().0 == pattern(crate::LARGE));
    assert_eq!(event_loop.run(reader.read(None)), b"");
}

fn halves_dropped_elsewhere_after_the_loop(on: On) {
    let event_loop = on.event_loop();
    let Ends { reader, writer, peer } = Ends::tcp(&event_loop);
    let other = Ends::open(&event_loop, PairKind::Socketpair.pair());
    elsewhere(|| drop(other.writer));
    event_loop.close().unwrap();
    elsewhere(|| drop((reader, writer, other.reader)));
    peer.until_readable();
    assert!(peer.ended());
}

fn halves_come_back_from_elsewhere(on: On) {
    let event_loop = on.event_loop();
    let Ends { reader, writer, peer } = Ends::tcp(&event_loop);
    let (mut reader, writer) = elsewhere(move || (reader, writer));
    peer.send(b"x");
    writer.write("y").unwrap();
    assert_eq!(event_loop.run(reader.readexactly(1)), b"x");
    assert_eq!(peer.read_exactly(1), b"y");
}

#[test]
fn a_feeder_works_on_its_own_thread_only() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        elsewhere(|| {
            assert_eq!(failure(feeder.feed_data(b"x")).0, ErrorKind::Runtime);
            assert_eq!(failure(feeder.feed_eof()).0, ErrorKind::Runtime);
            assert_eq!(failure(feeder.set_exception(asyncio::Error::Value("x".into()))).0, ErrorKind::Runtime);
        });
        feeder.feed_data(b"y")?;
        assert_eq!(reader.read(5).await?, b"y");
        Ok(())
    });
}

/// Dropping it ends the stream, wherever that is.
#[test]
fn a_feeder_dropped_elsewhere_ends_the_stream() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        feeder.feed_data(b"last")?;
        let read = create_task(async move { reader.read(None).await });
        thread::spawn(move || drop(feeder)).join().unwrap();
        turns_until(|| read.done()).await;
        assert_eq!(read.await?, b"last");
        Ok(())
    });
}
