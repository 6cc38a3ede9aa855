//! What these tests show: what the limit of a stream is for, and what it is not.

use asyncio::{Error, ErrorKind, StreamReader, create_task};

use crate::{
    Ends, LIMIT, fed, rest,
    support::{
        failure,
        loops::On,
        run,
        transports::{PairKind, pattern},
    },
    turn,
};

on_each_selector! {
    reading_pauses_while_much_is_unread
    the_default_limit_is_64_kib
    a_line_too_long_does_not_stop_the_connection
    a_read_of_more_than_is_held_goes_on
    small_reads_share_what_was_received
}

/// STR-002
#[test]
fn the_limit_does_not_cap_reads() {
    run(async {
        let (feeder, mut reader) = fed(3);
        feeder.feed_data(b"chunk")?;
        assert_eq!(reader.read(5).await?, b"chunk");
        feeder.feed_data(b"chunk")?;
        assert_eq!(reader.readexactly(5).await?, b"chunk");
        let read = create_task(async move { reader.readexactly(7).await });
        turn().await;
        feeder.feed_data(b"chun")?;
        feeder.feed_data(b"k")?;
        turn().await;
        feeder.feed_data(b"12")?;
        assert_eq!(read.await?, b"chunk12");
        Ok(())
    });
}

/// STR-005: a limit cannot be negative here.
#[test]
fn a_limit_of_zero_is_refused() {
    run(async {
        let (kind, text) = failure(StreamReader::new(0));
        assert_eq!(kind, ErrorKind::Value);
        assert!(text.contains("imit"), "{text}");
        StreamReader::new(1)?;
        StreamReader::new(usize::MAX)?;
        let (kind, text) = failure(asyncio::open_connection(("127.0.0.1", 1)).limit(0).await);
        assert!(kind == ErrorKind::Value && text.contains("imit"), "{text}");
        let (kind, text) = failure(asyncio::open_unix_connection("nowhere").limit(0).await);
        assert!(kind == ErrorKind::Value && text.contains("imit"), "{text}");
        let (kind, text) = failure(asyncio::start_server(async |_, _| Ok(()), ("127.0.0.1", 0)).limit(0).await);
        assert!(kind == ErrorKind::Value && text.contains("imit"), "{text}");
        let (kind, text) = failure(asyncio::start_unix_server(async |_, _| Ok(()), "nowhere").limit(0).await);
        assert!(kind == ErrorKind::Value && text.contains("imit"), "{text}");
        Ok(())
    });
}

/// STR-009
#[test]
fn a_line_of_the_limit_and_its_end_is_allowed() {
    run(async {
        let (feeder, mut reader) = fed(7);
        feeder.feed_data(b"1234567\n")?;
        assert_eq!(reader.readline().await?, b"1234567\n");
        feeder.feed_data(b"12345678\n")?;
        assert_eq!(failure(reader.readline().await).0, ErrorKind::Value);
        assert_eq!(rest(&feeder, reader).await, b"");
        Ok(())
    });
}

/// STR-011
#[test]
fn a_line_without_an_end_is_dropped() {
    run(async {
        let (feeder, mut reader) = fed(7);
        feeder.feed_data(b"12345678")?;
        let (kind, text) = failure(reader.readline().await);
        assert_eq!(kind, ErrorKind::Value);
        assert!(text.contains("Separator is not found, and chunk exceed the limit"), "{text}");
        feeder.feed_data(b"ok\n")?;
        assert_eq!(reader.readline().await?, b"ok\n");
        Ok(())
    });
}

/// STR-011: with its end, if that has come, and nothing behind it.
#[test]
fn a_line_too_long_is_dropped_with_its_end() {
    run(async {
        let (feeder, mut reader) = fed(3);
        feeder.feed_data(b"li")?;
        feeder.feed_data(b"ne1\nline2\n")?;
        let (kind, text) = failure(reader.readline().await);
        assert_eq!(kind, ErrorKind::Value);
        assert!(text.contains("Separator is found, but chunk is longer than limit"), "{text}");
        assert_eq!(rest(&feeder, reader).await, b"line2\n");

        let (feeder, mut reader) = fed(3);
        for chunk in ["li", "ne1", "li"] {
            feeder.feed_data(chunk.as_bytes())?;
        }
        assert_eq!(failure(reader.readline().await).0, ErrorKind::Value);
        assert_eq!(rest(&feeder, reader).await, b"");
        Ok(())
    });
}

/// STR-011: where the line is waited for.
#[test]
fn a_line_that_grows_too_long_is_dropped() {
    run(async {
        for (chunks, left) in
            [(&["chunk1", "chunk2", "chunk3\n"][..], &b""[..]), (&["chunk1", "chunk2\n", "chunk3\n"], b"chunk3\n")]
        {
            let (feeder, mut reader) = fed(7);
            let read = create_task(async move { Ok((reader.readline().await, reader)) });
            turn().await;
            for chunk in chunks {
                feeder.feed_data(chunk.as_bytes())?;
            }
            let (outcome, reader) = read.await?;
            assert_eq!(failure(outcome).0, ErrorKind::Value);
            assert_eq!(rest(&feeder, reader).await, left);
        }
        Ok(())
    });
}

/// STR-011: the iteration over lines fails once, and goes on with the next.
#[test]
fn the_iteration_goes_on_behind_a_line_too_long() {
    run(async {
        let (feeder, mut reader) = fed(3);
        feeder.feed_data(b"one\nthree\ntwo\n")?;
        assert_eq!(reader.next_line().await?.as_deref(), Some(&b"one\n"[..]));
        assert_eq!(failure(reader.next_line().await).0, ErrorKind::Value);
        assert_eq!(reader.next_line().await?.as_deref(), Some(&b"two\n"[..]));
        Ok(())
    });
}

/// STR-014
#[test]
fn more_than_the_limit_before_a_separator_stays() {
    run(async {
        let (feeder, mut reader) = fed(3);
        feeder.feed_data(b"some dataAA")?;
        let Err(Error::LimitOverrun(error)) = reader.readuntil("AAA").await else { panic!("it is too much") };
        assert!(error.to_string().contains("not found") && error.consumed() == 9, "{error:?}");
        feeder.feed_data(b"A")?;
        let Err(Error::LimitOverrun(error)) = reader.readuntil("AAA").await else { panic!("it is too much") };
        assert!(error.to_string().contains("is found") && error.consumed() == 9, "{error:?}");
        assert_eq!(reader.readexactly(12).await?, b"some dataAAA");
        Ok(())
    });
}

/// STR-014: just the limit is allowed, and the separator does not count.
#[test]
fn just_the_limit_before_a_separator_is_allowed() {
    run(async {
        let (feeder, mut reader) = fed(4);
        feeder.feed_data(b"1234AAA12345AAA")?;
        assert_eq!(reader.readuntil("AAA").await?, b"1234AAA");
        let Err(Error::LimitOverrun(error)) = reader.readuntil("AAA").await else { panic!("it is too much") };
        assert_eq!(error.consumed(), 5);
        assert_eq!(reader.readexactly(error.consumed() + 3).await?, b"12345AAA");
        Ok(())
    });
}

/// STR-018
#[test]
fn the_shortest_of_the_separators_that_end_together_decides() {
    run(async {
        let (feeder, mut reader) = fed(3);
        feeder.feed_data(b"some dataA")?;
        for separators in [["A", "ome dataA"], ["ome dataA", "A"]] {
            let Err(Error::LimitOverrun(error)) = reader.readuntil(separators).await else { panic!("too much") };
            assert!(error.to_string().contains("is found") && error.consumed() == 9, "{error:?}");
        }
        assert_eq!(rest(&feeder, reader).await, b"some dataA");
        Ok(())
    });
}

/// SWR-015
fn reading_pauses_while_much_is_unread(on: On) {
    let event_loop = on.event_loop();
    let Ends { mut reader, writer, peer } = Ends::with_limit(&event_loop, PairKind::Tcp.pair(), 1000);
    let transport = writer.transport().unwrap();
    assert!(transport.is_reading());
    peer.send(&pattern(2000));
    event_loop.until(|| format!("{reader:?}").contains("2000 bytes"));
    assert!(transport.is_reading());
    peer.send(&pattern(2001)[2000..]);
    event_loop.until(|| !transport.is_reading());
    event_loop.run(async {
        assert_eq!(reader.read(1000).await?, pattern(1000));
        assert!(!transport.is_reading());
        assert_eq!(reader.read(1).await?, pattern(1001)[1000..]);
        assert!(transport.is_reading());
        Ok(())
    });
    peer.send(b"more");
    assert_eq!(event_loop.run(reader.readexactly(1004)), [&pattern(2001)[1001..], b"more"].concat());
}

/// SWR-016
fn the_default_limit_is_64_kib(on: On) {
    let event_loop = on.event_loop();
    for count in [65_536, 65_537] {
        let Ends { mut reader, writer: _writer, peer } = Ends::tcp(&event_loop);
        let line = [&vec![b'x'; count][..], b"\n"].concat();
        let sent = line.clone();
        let sender = std::thread::spawn(move || {
            peer.0.set_nonblocking(false).unwrap();
            std::io::Write::write_all(&mut &peer.0, &sent).unwrap();
            peer
        });
        let outcome = event_loop.run(async { Ok(reader.readline().await) });
        match count {
            65_536 => assert!(outcome.unwrap() == line),
            _ => assert_eq!(failure(outcome).0, ErrorKind::Value),
        }
        sender.join().unwrap();
    }
}

/// STR-011: a paused connection goes on when a line too long was dropped.
fn a_line_too_long_does_not_stop_the_connection(on: On) {
    let event_loop = on.event_loop();
    let Ends { mut reader, writer, peer } = Ends::with_limit(&event_loop, PairKind::Socketpair.pair(), 100);
    let transport = writer.transport().unwrap();
    peer.send(&[b'x'; 5000]);
    event_loop.until(|| !transport.is_reading());
    assert_eq!(event_loop.fails(reader.readline()).kind(), ErrorKind::Value);
    assert!(transport.is_reading());
    peer.send(b"good\n");
    assert_eq!(event_loop.run(reader.readline()), b"good\n");
}

/// STR-002: also where the connection is paused because of what is held already.
fn a_read_of_more_than_is_held_goes_on(on: On) {
    let event_loop = on.event_loop();
    for kind in [PairKind::Tcp, PairKind::Socketpair] {
        let Ends { mut reader, writer, peer } = Ends::with_limit(&event_loop, kind.pair(), 1);
        let (transport, data) = (writer.transport().unwrap(), pattern(5_000_000));
        peer.send(&data[..100]);
        event_loop.until(|| !transport.is_reading());
        let sent = data.clone();
        let sender = std::thread::spawn(move || {
            peer.0.set_nonblocking(false).unwrap();
            std::io::Write::write_all(&mut &peer.0, &sent[100..]).unwrap();
            peer
        });
        assert!(event_loop.run(reader.readexactly(2_000_000)) == data[..2_000_000]);
        let rest = event_loop.run(async {
            let reading = create_task(async move { reader.read(None).await });
            crate::turns_until(|| sender.is_finished()).await;
            drop(sender.join());
            reading.await
        });
        assert!(rest == data[2_000_000..]);
    }
}

#[test]
fn what_is_known_of_a_reader_is_in_its_debug_text() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        assert_eq!(format!("{reader:?}"), "<StreamReader>");
        assert!(format!("{feeder:?}").contains("StreamFeeder"));
        feeder.feed_data(b"data")?;
        assert_eq!(format!("{reader:?}"), "<StreamReader 4 bytes>");
        reader.read(4).await?;
        feeder.feed_eof()?;
        assert_eq!(format!("{reader:?}"), "<StreamReader eof>");
        feeder.set_exception(Error::Runtime("broken".into()))?;
        assert!(format!("{reader:?}").starts_with("<StreamReader eof exception="), "{reader:?}");
        let (_feeder, reader) = fed(123);
        assert_eq!(format!("{reader:?}"), "<StreamReader limit=123>");
        Ok(())
    });
}

/// A read takes more from the connection than it gives, so that the next ones need no system call.
fn small_reads_share_what_was_received(on: On) {
    let event_loop = on.event_loop();
    let Ends { mut reader, writer: _writer, peer } = Ends::open(&event_loop, PairKind::Socketpair.pair());
    event_loop.run(async {
        for (count, left) in [(4, "96 bytes"), (1, "95 bytes")] {
            let reading = create_task(async move { Ok((reader.readexactly(count).await?, reader)) });
            if count == 4 {
                turn().await;
                peer.send(&pattern(100));
            }
            let piece;
            (piece, reader) = reading.await?;
            assert_eq!(piece.len(), count);
            assert!(format!("{reader:?}").contains(left), "{reader:?}");
        }
        assert!(reader.read(1000).await? == pattern(100)[5..]);
        Ok(())
    });
}
