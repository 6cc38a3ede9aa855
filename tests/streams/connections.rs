//! What these tests show: streams over connections, from their opening to their end.

use std::{
    cell::Cell,
    io::{ErrorKind as IoKind, Write},
    rc::Rc,
};

use asyncio::{ErrorKind, PEERNAME, SOCKNAME, Stream, create_task};
use futures::AsyncWriteExt;

use crate::{
    Ends, LIMIT, joined, polls,
    support::{
        failure,
        loops::On,
        run,
        transports::{Log, PairKind, Recorder, Told, pattern},
    },
    turns,
};

on_each_selector! {
    a_connection_is_opened
    a_refused_connection_is_an_error
    the_end_of_the_other_side_is_not_ours
    closing_ends_both_halves
    closing_drops_what_was_not_read
    a_reset_is_what_reads_give
    what_came_before_the_reset_is_read
    a_reader_alone_keeps_no_connection
    a_writer_alone_keeps_the_connection
    both_halves_in_either_order
    a_reader_that_went_stops_reading
    another_protocol_takes_the_transport
    another_protocol_hears_of_what_we_paused
    another_protocol_keeps_what_was_written
    much_comes_in_pieces_of_any_size
    a_flood_does_not_starve_others
    the_loop_may_be_closed_first
    halves_of_two_streams_make_none
}

fn a_connection_is_opened(on: On) {
    let event_loop = on.event_loop();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut request = [0; 18];
        std::io::Read::read_exact(&mut socket, &mut request).unwrap();
        socket.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 12\r\n\r\nTest message").unwrap();
        request
    });
    event_loop.run(async {
        let (mut reader, writer) = asyncio::open_connection(("127.0.0.1", address.port())).await?;
        assert_eq!(writer.get_extra_info(PEERNAME).unwrap().as_inet(), Some(address));
        assert!(writer.get_extra_info(SOCKNAME).is_some());
        writer.write("GET / HTTP/1.0\r\n\r\n")?;
        assert_eq!(reader.readline().await?, b"HTTP/1.0 200 OK\r\n");
        assert!(reader.read(None).await?.ends_with(b"\r\n\r\nTest message"));
        assert!(!writer.is_closing());
        writer.close();
        assert!(writer.is_closing());
        writer.wait_closed().await
    });
    assert_eq!(&server.join().unwrap(), b"GET / HTTP/1.0\r\n\r\n");
}

fn a_refused_connection_is_an_error(on: On) {
    let event_loop = on.event_loop();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap();
    drop(holder);
    let error = event_loop.fails(async { asyncio::open_connection(address).await });
    assert_eq!(error.io_error().unwrap().kind(), IoKind::ConnectionRefused);
    let error = event_loop.fails(async { asyncio::open_unix_connection("/nowhere/at/all").await });
    assert_eq!(error.io_error().unwrap().kind(), IoKind::NotFound);
    let outside = asyncio::open_connection(address);
    assert_eq!(event_loop.fails(outside).kind(), ErrorKind::Runtime);
}

/// SWR-003
fn the_end_of_the_other_side_is_not_ours(on: On) {
    let event_loop = on.event_loop();
    for kind in [PairKind::Tcp, PairKind::Socketpair] {
        let Ends { mut reader, writer, peer } = Ends::open(&event_loop, kind.pair());
        drop(peer);
        assert_eq!(event_loop.run(reader.read(None)), b"");
        assert!(reader.at_eof());
        event_loop.ticks(3);
        assert!(!writer.is_closing());
        writer.close();
        assert!(writer.is_closing());
        event_loop.run(writer.wait_closed());
    }
}

/// SWR-004
fn closing_ends_both_halves(on: On) {
    let event_loop = on.event_loop();
    let Ends { mut reader, writer, peer } = Ends::tcp(&event_loop);
    assert!(!writer.is_closing());
    writer.close();
    writer.close();
    assert!(writer.is_closing());
    event_loop.run(writer.wait_closed());
    event_loop.run(writer.wait_closed());
    assert!(reader.at_eof());
    assert_eq!(event_loop.run(reader.read(None)), b"");
    assert_eq!(event_loop.run(reader.read(10)), b"");
    assert!(writer.is_closing() && reader.exception().is_none());
    assert!(peer.ended());
}

/// SWR-004: what was received is still there, what was not is lost.
fn closing_drops_what_was_not_read(on: On) {
    let event_loop = on.event_loop();
    let Ends { mut reader, writer, peer } = Ends::open(&event_loop, PairKind::Socketpair.pair());
    peer.send(b"line\nrest");
    assert_eq!(event_loop.run(reader.readline()), b"line\n");
    writer.close();
    peer.send_some(b"late");
    event_loop.run(writer.wait_closed());
    assert!(!reader.at_eof());
    assert_eq!(event_loop.run(reader.read(None)), b"rest");
    assert!(reader.at_eof());
}

fn a_reset_is_what_reads_give(on: On) {
    let event_loop = on.event_loop();
    let Ends { mut reader, writer, peer } = Ends::tcp(&event_loop);
    event_loop.run(async {
        let reading = create_task(async move { Ok((reader.readline().await, reader)) });
        turns(3).await;
        peer.reset();
        let (outcome, mut reader) = reading.await?;
        for error in [outcome.unwrap_err(), reader.exception().unwrap(), reader.read(1).await.unwrap_err()] {
            assert_eq!(error.io_error().unwrap().kind(), IoKind::ConnectionReset, "{error}");
        }
        assert!(!reader.at_eof() && writer.is_closing());
        let error = writer.wait_closed().await.unwrap_err();
        assert_eq!(error.io_error().unwrap().kind(), IoKind::ConnectionReset, "{error}");
        let error = writer.drain().await.unwrap_err();
        assert_eq!(error.io_error().unwrap().kind(), IoKind::ConnectionReset, "{error}");
        Ok(())
    });
}

/// A read that waited gets what came; the error is the next one's.
fn what_came_before_the_reset_is_read(on: On) {
    let event_loop = on.event_loop();
    let Ends { mut reader, writer: _writer, peer } = Ends::tcp(&event_loop);
    event_loop.run(async {
        let reading = create_task(async move { Ok((reader.readline().await?, reader.readline().await)) });
        turns(3).await;
        peer.send(b"last\n");
        turns(5).await;
        peer.reset();
        let (line, outcome) = reading.await?;
        assert_eq!(line, b"last\n");
        assert_eq!(failure(outcome).0, ErrorKind::Io);
        Ok(())
    });
}

fn a_reader_alone_keeps_no_connection(on: On) {
    let event_loop = on.event_loop();
    let Ends { mut reader, writer, peer } = Ends::open(&event_loop, PairKind::Socketpair.pair());
    writer.write("all of it").unwrap();
    peer.send(b"unread");
    event_loop.until(|| format!("{reader:?}").contains("6 bytes"));
    drop(writer);
    event_loop.until(|| peer.0.peek(&mut [std::mem::MaybeUninit::uninit()]).is_ok());
    assert_eq!(peer.drain(), b"all of it");
    event_loop.until(|| peer.ended());
    assert_eq!(event_loop.run(reader.read(None)), b"unread");
}

fn a_writer_alone_keeps_the_connection(on: On) {
    let event_loop = on.event_loop();
    let Ends { reader, writer, peer } = Ends::tcp(&event_loop);
    drop(reader);
    event_loop.ticks(3);
    assert!(!writer.is_closing() && !peer.ended());
    writer.write("on").unwrap();
    assert_eq!(peer.read_exactly(2), b"on");
    writer.close();
    event_loop.run(writer.wait_closed());
    assert!(peer.ended());
}

fn both_halves_in_either_order(on: On) {
    let event_loop = on.event_loop();
    for reader_first in [true, false] {
        let Ends { reader, writer, peer } = Ends::tcp(&event_loop);
        writer.write(pattern(100_000)).unwrap();
        if reader_first {
            drop(reader);
            drop(writer);
        } else {
            drop(writer);
            drop(reader);
        }
        let collected = peer.collect();
        event_loop.until(|| collected.is_finished());
        assert!(collected.join().unwrap().0 == pattern(100_000));
    }
}

fn a_reader_that_went_stops_reading(on: On) {
    let event_loop = on.event_loop();
    let Ends { reader, writer, peer } = Ends::open(&event_loop, PairKind::Socketpair.small_pair());
    drop(reader);
    assert!(!writer.transport().unwrap().is_reading());
    let mut sent = 0;
    for _ in 0..100 {
        sent += peer.send_some(&pattern(1000));
        event_loop.ticks(1);
    }
    assert!(sent < 90_000, "{sent}");
}

/// `set_protocol` on the transport leaves the reader what it has, and nothing more.
fn another_protocol_takes_the_transport(on: On) {
    let event_loop = on.event_loop();
    let Ends { mut reader, writer, peer } = Ends::tcp(&event_loop);
    peer.send(b"for the reader");
    event_loop.until(|| format!("{reader:?}").contains("14 bytes"));
    let transport = writer.transport().unwrap();
    let log = Log::default();
    let protocol = Rc::new(std::cell::RefCell::new(Recorder::new(&log).with_transport(&transport)));
    transport.set_protocol(protocol);
    peer.send(b"for the protocol");
    event_loop.until(|| log.received() == b"for the protocol");
    assert_eq!(event_loop.run(reader.readexactly(3)), b"for");
    assert_eq!(event_loop.run(reader.read(100)), b" the reader");
    let (kind, text) = failure(event_loop.run(async { Ok(reader.read(100).await) }));
    assert_eq!((kind, text.contains("set_protocol")), (ErrorKind::Runtime, true), "{text}");
    assert_eq!(event_loop.fails(reader.readline()).kind(), ErrorKind::Runtime);
    assert_eq!(event_loop.fails(reader.read(None)).kind(), ErrorKind::Runtime);
    assert!(!reader.at_eof() && reader.exception().is_none());
    // The writer writes, and has nothing to do with the end.
    writer.write("still").unwrap();
    event_loop.run(writer.drain());
    assert_eq!(peer.read_exactly(5), b"still");
    event_loop.run(writer.wait_closed());
    drop((reader, writer));
    event_loop.ticks(3);
    assert!(!transport.is_closing() && transport.is_reading());
    transport.write(b"alone");
    assert_eq!(peer.read_exactly(5), b"alone");
    drop(peer);
    event_loop.until(|| log.lost());
    assert_eq!(log.joined(), [Told::Data(16), Told::Eof, Told::Lost(None)]);
}

/// What the stream had paused goes on for the new protocol, who knows nothing of it.
fn another_protocol_hears_of_what_we_paused(on: On) {
    let event_loop = on.event_loop();
    for reader_went in [true, false] {
        let Ends { reader, writer, peer } = Ends::with_limit(&event_loop, PairKind::Tcp.pair(), 10);
        let transport = writer.transport().unwrap();
        let mut reader = Some(reader);
        if reader_went {
            reader = None;
        } else {
            peer.send(&pattern(21));
        }
        event_loop.until(|| !transport.is_reading());
        let log = Log::default();
        transport.set_protocol(Rc::new(std::cell::RefCell::new(Recorder::new(&log).with_transport(&transport))));
        peer.send(b"more");
        event_loop.until(|| log.received() == b"more");
        if let Some(reader) = &mut reader {
            assert!(event_loop.run(reader.readexactly(21)) == pattern(21));
        }
        transport.close();
        event_loop.until(|| log.lost());
    }
}

/// Who waits for what was written does not wait for ever.
fn another_protocol_keeps_what_was_written(on: On) {
    let event_loop = on.event_loop();
    let Ends { mut reader, mut writer, peer } = Ends::tcp(&event_loop);
    let transport = writer.transport().unwrap();
    writer.write(pattern(crate::LARGE)).unwrap();
    let log = Log::default();
    event_loop.run(async {
        let read = reader.read(1);
        let (mut read, taken) = (std::pin::pin!(read), transport.clone());
        assert!(futures::poll!(&mut read).is_pending());
        let recorder = Recorder::new(&log).with_transport(&transport);
        {
            let writer = &writer;
            let (drain, wait) = (writer.drain(), writer.wait_closed());
            let (mut drain, mut wait) = (std::pin::pin!(drain), std::pin::pin!(wait));
            assert!(futures::poll!(&mut drain).is_pending() && futures::poll!(&mut wait).is_pending());
            taken.set_protocol(Rc::new(std::cell::RefCell::new(recorder)));
            drain.await?;
            wait.await?;
        }
        assert_eq!(failure(read.await).0, ErrorKind::Runtime);
        writer.flush().await?;
        assert!(transport.get_write_buffer_size() > 0);
        Ok(())
    });
    let collected = peer.collect();
    transport.close();
    event_loop.until(|| log.lost());
    assert!(collected.join().unwrap().0 == pattern(crate::LARGE));
}

/// Straight from the socket and out of the buffer, with any limit.
fn much_comes_in_pieces_of_any_size(on: On) {
    let event_loop = on.event_loop();
    let data = pattern(3_000_000);
    for (limit, count) in [(1, 100_000), (1000, 999), (LIMIT, 1), (LIMIT, 70_000), (1 << 30, 4096)] {
        let count = if count == 1 { 17 } else { count };
        let Ends { mut reader, writer: _writer, peer } = Ends::with_limit(&event_loop, PairKind::Tcp.pair(), limit);
        let sent = data.clone();
        let sender = std::thread::spawn(move || {
            peer.0.set_nonblocking(false).unwrap();
            (&peer.0).write_all(&sent).unwrap();
        });
        let received = event_loop.run(async {
            let mut received = Vec::new();
            loop {
                let piece = reader.read(count).await?;
                assert!(piece.len() <= count);
                if piece.is_empty() {
                    return Ok(received);
                }
                received.extend(piece);
            }
        });
        sender.join().unwrap();
        assert!(received == data, "{limit} {count}");
    }
}

/// A reader that always finds something gives others their turn.
fn a_flood_does_not_starve_others(on: On) {
    let event_loop = on.event_loop();
    let Ends { mut reader, writer: _writer, peer } = Ends::open(&event_loop, PairKind::Socketpair.pair());
    const TOTAL: usize = 64 << 20;
    let sender = std::thread::spawn(move || {
        peer.0.set_nonblocking(false).unwrap();
        let chunk = vec![0; 1 << 20];
        (0..TOTAL >> 20).for_each(|_| (&peer.0).write_all(&chunk).unwrap());
    });
    let (turns, longest) = (Rc::new(Cell::new(0_usize)), Cell::new(0));
    let (count, ended) = (turns.clone(), Rc::new(Cell::new(false)));
    let end = ended.clone();
    event_loop.run(async {
        let counting = create_task(async move {
            while !end.get() {
                count.set(count.get() + 1);
                crate::turn().await;
            }
            Ok(())
        });
        crate::turn().await;
        let (mut total, mut since, mut last) = (0, 0, turns.get());
        while total < TOTAL {
            let received = reader.read(1024).await?.len();
            total += received;
            if last != turns.get() {
                (since, last) = (0, turns.get());
            }
            since += received;
            longest.set(longest.get().max(since));
        }
        ended.set(true);
        counting.await
    });
    sender.join().unwrap();
    // What is held in the buffer, and what one turn may receive beside it.
    assert!(longest.get() < 1 << 20, "{} bytes in one turn", longest.get());
}

fn the_loop_may_be_closed_first(on: On) {
    let event_loop = on.event_loop();
    let Ends { mut reader, writer, peer } = Ends::tcp(&event_loop);
    peer.send(b"unread");
    writer.write("written").unwrap();
    let mut stream = joined(&event_loop, PairKind::Tcp).map(|(reader, writer)| Stream::join(reader, writer).unwrap());
    event_loop.close().unwrap();
    assert_eq!(peer.read_exactly(7), b"written");
    peer.until_readable();
    assert!(peer.ended());
    assert_eq!(failure(writer.write("late")).0, ErrorKind::Runtime);
    assert_eq!(failure(writer.writelines(["late"])).0, ErrorKind::Runtime);
    assert_eq!(failure(writer.write_eof()).0, ErrorKind::Runtime);
    assert_eq!(failure(writer.transport()).0, ErrorKind::Runtime);
    assert!(writer.is_closing() && !writer.can_write_eof() && reader.at_eof());
    assert!(writer.get_extra_info(PEERNAME).is_none());
    assert_eq!(reader.exception().unwrap().kind(), ErrorKind::Runtime);
    assert_eq!((format!("{reader:?}"), format!("{writer:?}")), ("<StreamReader>".into(), "<StreamWriter>".into()));
    writer.close();
    run(async {
        assert_eq!(failure(writer.drain().await).0, ErrorKind::Runtime);
        assert_eq!(failure(writer.wait_closed().await).0, ErrorKind::Runtime);
        assert_eq!(failure(reader.read(1).await).0, ErrorKind::Runtime);
        assert_eq!(failure(reader.readline().await).0, ErrorKind::Runtime);
        assert!(stream[0].write(b"late").await.is_err());
        assert!(stream[1].flush().await.is_err());
        Ok(())
    });
}

fn halves_of_two_streams_make_none(on: On) {
    let event_loop = on.event_loop();
    let [(one, one_writer), (other, other_writer)] = joined(&event_loop, PairKind::Tcp);
    let (kind, text) = failure(Stream::join(one, other_writer));
    assert_eq!((kind, text.contains("not of one stream")), (ErrorKind::Value, true), "{text}");
    let mut other_stream = event_loop.run(async {
        let mut other = other;
        // Its writer went with the attempt.
        assert!(polls(other.read(None), 100).await.is_some());
        Ok(other)
    });
    assert_eq!(event_loop.run(other_stream.read(None)), b"");
    drop(one_writer);
    let [(reader, writer), _other] = joined(&event_loop, PairKind::Tcp);
    let mut stream = Stream::join(reader, writer).unwrap();
    stream.writer().write("x").unwrap();
    assert!(!stream.reader().at_eof());
    assert!(format!("{stream:?}").contains("StreamReader"), "{stream:?}");
    let (reader, writer) = stream.into_split();
    Stream::join(reader, writer).unwrap();
}
