//! What these tests show: streams over TLS, from the start and after a talk in clear.

use std::{io::ErrorKind as IoKind, time::Duration};

use asyncio::{
    CIPHER, CLOSE_NOTIFY, Error, ErrorKind, PEERNAME, Result, SSLCONTEXT, Server, SslContext, Stream, StreamReader,
    StreamWriter, create_task,
};
use futures::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

use crate::{
    certificates,
    peers::{Driven, Side, Way, ways},
    support::{
        failure,
        loops::{On, TestLoop},
        transports::pattern,
    },
};

on_each_selector! {
    streams_speak_tls_from_the_start
    much_goes_both_ways
    a_connection_that_asks_for_it_is_encrypted
    a_hello_that_came_with_the_last_line_is_the_handshakes
    a_line_in_clear_is_never_read_after_the_upgrade
    a_line_in_clear_is_never_read_before_the_upgrade_either
    what_was_written_goes_first_and_in_clear
    a_small_limit_does_not_matter_to_the_handshake
    wrong_arguments_leave_all_as_it_was
    a_closing_stream_is_not_encrypted
    a_handshake_that_is_given_up_ends_both_halves
    a_certificate_that_is_not_trusted_ends_both_halves
    who_waits_to_read_reads_what_is_encrypted_later
    a_reader_that_went_does_not_hinder_the_upgrade
    a_reader_that_goes_during_the_handshake_does_not_hinder_it
    a_search_begins_anew_in_what_is_encrypted
    it_is_done_once
    a_reset_is_what_readers_get
    what_is_no_tls_is_what_readers_get
    an_end_without_an_alert_is_told_to_those_who_can_hear_it
    an_end_with_an_alert_is_an_end
    a_flush_waits_until_all_has_gone
    closing_says_so_to_the_other_side
    a_handler_that_fails_after_the_upgrade_closes_in_order
    over_unix_sockets
}

/// Much more than the system takes.
const LARGE: usize = 8_000_000;

/// A stream over TLS, and who is at the other side.
struct Ends {
    reader: StreamReader,
    writer: StreamWriter,
    peer: Driven,
}

/// A stream in clear, and who may encrypt it at the other side.
fn in_clear(event_loop: &TestLoop, way: Way, limit: usize) -> Ends {
    let pair = way.kind.pair();
    let (reader, writer) = event_loop.run(async { asyncio::open_connection(()).sock(pair.ours).limit(limit).await });
    Ends { reader, writer, peer: way.peer(pair.peer) }
}

/// What that side of `way` encrypts with.
fn context(way: Way) -> SslContext {
    match way.ours {
        Side::Client => certificates::client(),
        Side::Server => certificates::server(),
    }
}

async fn start_tls(way: Way, writer: &StreamWriter) -> Result<()> {
    let starting = writer.start_tls(&context(way));
    if way.ours == Side::Client { starting.server_hostname("localhost").await } else { starting.await }
}

impl Ends {
    fn open(event_loop: &TestLoop, way: Way) -> Ends {
        let Ends { reader, writer, mut peer } = in_clear(event_loop, way, 1 << 16);
        let task = event_loop.create_task(async move {
            start_tls(way, &writer).await?;
            Ok(writer)
        });
        event_loop.until(|| {
            peer.turn();
            task.done() && !peer.connection.is_handshaking()
        });
        Ends { reader, writer: event_loop.run(task), peer }
    }
}

/// Echoes lines, to the end.
async fn echo(mut reader: StreamReader, writer: StreamWriter) -> Result<()> {
    while let Some(line) = reader.next_line().await? {
        writer.write(line)?;
        writer.drain().await?;
    }
    Ok(())
}

fn serve(event_loop: &TestLoop, handler: impl AsyncFn(StreamReader, StreamWriter) -> Result<()> + 'static) -> Server {
    event_loop.run(async { asyncio::start_server(handler, ("127.0.0.1", 0)).await })
}

async fn client(server: &Server) -> Result<(StreamReader, StreamWriter)> {
    asyncio::open_connection(server.sockets()[0].address()).await
}

fn streams_speak_tls_from_the_start(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let server = asyncio::start_server(echo, ("127.0.0.1", 0)).ssl(&certificates::server()).await?;
        let opening = asyncio::open_connection(server.sockets()[0].address());
        let (mut reader, writer) = opening.ssl(&certificates::client()).server_hostname("localhost").await?;
        assert!(writer.get_extra_info(CIPHER).is_some() && !writer.can_write_eof());
        assert_eq!(failure(writer.write_eof()).0, ErrorKind::Runtime);
        for line in ["one\n", "two\n"] {
            writer.write(line)?;
            assert_eq!(reader.readline().await?, line.as_bytes());
        }
        writer.close();
        writer.wait_closed().await?;
        assert_eq!(reader.read(None).await?, b"");
        server.close();
        server.wait_closed().await
    });
}

fn much_goes_both_ways(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let echoing = async |reader: StreamReader, writer: StreamWriter| {
            let mut stream = Stream::join(reader, writer)?;
            let mut memory = vec![0; 50_000];
            loop {
                let count = stream.read(&mut memory).await?;
                if count == 0 {
                    return Ok(stream.close().await?);
                }
                stream.write_all(&memory[..count]).await?;
            }
        };
        let server = asyncio::start_server(echoing, ("127.0.0.1", 0)).ssl(&certificates::server()).await?;
        let opening = asyncio::open_connection(server.sockets()[0].address());
        let (mut reader, writer) = opening.ssl(&certificates::client()).server_hostname("localhost").await?;
        let sending = create_task(async move {
            for chunk in pattern(LARGE).chunks(70_000) {
                writer.write(chunk)?;
                writer.drain().await?;
            }
            Ok(writer)
        });
        assert!(reader.readexactly(LARGE).await? == pattern(LARGE));
        drop(sending.await?);
        assert_eq!(reader.read(None).await?, b"");
        server.close();
        server.wait_closed().await
    });
}

/// STL-012
fn a_connection_that_asks_for_it_is_encrypted(on: On) {
    let event_loop = on.event_loop();
    let context = certificates::server();
    let server = serve(&event_loop, async move |mut reader, writer| {
        writer.write(reader.readline().await?)?;
        writer.drain().await?;
        assert!(writer.get_extra_info(SSLCONTEXT).is_none());
        writer.start_tls(&context).await?;
        assert!(writer.get_extra_info(SSLCONTEXT).is_some() && writer.get_extra_info(PEERNAME).is_some());
        writer.write(reader.readline().await?)?;
        writer.drain().await?;
        writer.close();
        writer.wait_closed().await
    });
    event_loop.run(async {
        let (mut reader, writer) = client(&server).await?;
        writer.write("hello world 1!\n")?;
        writer.drain().await?;
        assert_eq!(reader.readline().await?, b"hello world 1!\n");
        let before = writer.transport()?;
        writer.start_tls(&certificates::client()).server_hostname("localhost").await?;
        assert!(writer.transport()? != before && writer.get_extra_info(CIPHER).is_some());
        writer.write("hello world 2!\n")?;
        writer.drain().await?;
        assert_eq!(reader.readline().await?, b"hello world 2!\n");
        assert_eq!(reader.read(None).await?, b"");
        writer.close();
        writer.wait_closed().await?;
        server.close();
        server.wait_closed().await
    });
}

/// STL-009
fn a_hello_that_came_with_the_last_line_is_the_handshakes(on: On) {
    let event_loop = on.event_loop();
    for way in ways().into_iter().filter(|way| way.ours == Side::Server) {
        for limit in [10, 1 << 16] {
            let Ends { mut reader, writer, mut peer } = in_clear(&event_loop, way, limit);
            let hello = peer.seal(b"");
            peer.send_sealed(&[b"STARTTLS\n", &hello[..]].concat());
            assert_eq!(event_loop.run(reader.readline()), b"STARTTLS\n");
            event_loop.until(|| format!("{reader:?}").contains(&format!("{} bytes", hello.len())));
            let task = event_loop.create_task(async move {
                start_tls(way, &writer).await?;
                Ok(writer)
            });
            event_loop.until(|| {
                peer.turn();
                task.done()
            });
            let writer = event_loop.run(task);
            peer.send(b"secret\n");
            assert_eq!(event_loop.run(reader.readline()), b"secret\n", "{way:?}");
            writer.write("answer").unwrap();
            event_loop.until(|| {
                peer.turn();
                peer.received == b"answer"
            });
        }
    }
}

/// STL-010
fn a_line_in_clear_is_never_read_after_the_upgrade(on: On) {
    let event_loop = on.event_loop();
    for way in ways().into_iter().filter(|way| way.ours == Side::Server) {
        for seen in [true, false] {
            let Ends { mut reader, writer, mut peer } = in_clear(&event_loop, way, 1 << 16);
            let hello = peer.seal(b"");
            peer.send_sealed(b"STARTTLS\n");
            assert_eq!(event_loop.run(reader.readline()), b"STARTTLS\n");
            peer.send_sealed(b"injected\n");
            peer.send_sealed(&hello);
            if seen {
                event_loop.until(|| format!("{reader:?}").contains("bytes"));
            }
            event_loop.run(async {
                let error = start_tls(way, &writer).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Ssl, "{error}");
                assert!(reader.readline().await.is_err());
                assert!(reader.read(None).await.is_err());
                assert!(writer.is_closing());
                Ok(())
            });
            assert_eq!(event_loop.reports.len(), 0);
        }
    }
}

/// STL-010: nor by a read that waited when the upgrade began.
fn a_line_in_clear_is_never_read_before_the_upgrade_either(on: On) {
    let event_loop = on.event_loop();
    for way in ways().into_iter().filter(|way| way.ours == Side::Server) {
        let Ends { mut reader, writer, mut peer } = in_clear(&event_loop, way, 1 << 16);
        event_loop.run(async {
            let reading = create_task(async move { reader.readline().await });
            asyncio::sleep(Duration::ZERO).await?;
            let starting = start_tls(way, &writer);
            let mut starting = std::pin::pin!(starting);
            assert!(futures::poll!(&mut starting).is_pending());
            peer.send_sealed(b"injected\n");
            assert_eq!(starting.await.unwrap_err().kind(), ErrorKind::Ssl);
            assert!(reading.await.is_err());
            Ok(())
        });
    }
}

fn what_was_written_goes_first_and_in_clear(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let Ends { reader: _reader, writer, mut peer } = in_clear(&event_loop, way, 1 << 16);
        writer.write(pattern(LARGE)).unwrap();
        let task = event_loop.create_task(async move {
            start_tls(way, &writer).await?;
            writer.write("encrypted")?;
            Ok(writer)
        });
        let mut received = Vec::new();
        event_loop.until(|| {
            received.extend(peer.socket.recv(LARGE - received.len()).unwrap_or_default());
            received.len() == LARGE
        });
        assert!(received == pattern(LARGE));
        event_loop.until(|| {
            peer.turn();
            peer.received == b"encrypted"
        });
        event_loop.run(task);
    }
}

/// The limit is for lines, and what it paused goes on.
fn a_small_limit_does_not_matter_to_the_handshake(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let Ends { mut reader, writer, mut peer } = in_clear(&event_loop, way, 1);
        if way.ours == Side::Server {
            peer.turn();
            event_loop.until(|| !writer.transport().unwrap().is_reading());
        }
        let task = event_loop.create_task(async move {
            start_tls(way, &writer).await?;
            Ok(writer)
        });
        event_loop.until(|| {
            peer.turn();
            task.done() && !peer.connection.is_handshaking()
        });
        let writer = event_loop.run(task);
        let transport = writer.transport().unwrap();
        // It pauses above twice the limit as before.
        peer.send(b"abc");
        event_loop.until(|| !transport.is_reading());
        assert_eq!(event_loop.run(reader.read(2)), b"ab");
        assert!(transport.is_reading());
        peer.send(&pattern(100_000));
        let all = event_loop.create_task(async move { reader.readexactly(100_001).await });
        event_loop.until(|| {
            peer.turn();
            all.done()
        });
        assert!(event_loop.run(all)[1..] == pattern(100_000));
    }
}

fn wrong_arguments_leave_all_as_it_was(on: On) {
    let event_loop = on.event_loop();
    for way in ways().into_iter().filter(|way| way.ours == Side::Client) {
        for limit in [1, 1 << 16] {
            let Ends { mut reader, writer, mut peer } = in_clear(&event_loop, way, limit);
            peer.send_sealed(b"unread ");
            event_loop.until(|| format!("{reader:?}").contains("7 bytes"));
            let reads = writer.transport().unwrap().is_reading();
            assert_eq!(reads, limit > 1);
            // A client needs a name.
            let error = event_loop.fails(async { writer.start_tls(&certificates::client()).await });
            assert_eq!(error.kind(), ErrorKind::Value, "{error}");
            assert_eq!(writer.transport().unwrap().is_reading(), reads);
            peer.send_sealed(b"and more\n");
            assert_eq!(event_loop.run(reader.readexactly(16)), b"unread and more\n");
            writer.write("in clear").unwrap();
            assert_eq!(peer.socket.read_exactly(8), b"in clear");
            // A pause of the user's own stays, too.
            writer.transport().unwrap().pause_reading();
            event_loop.fails(async { writer.start_tls(&certificates::client()).await });
            assert!(!writer.transport().unwrap().is_reading());
        }
    }
}

fn a_closing_stream_is_not_encrypted(on: On) {
    let event_loop = on.event_loop();
    let way = ways()[0];
    let Ends { reader: _reader, writer, .. } = in_clear(&event_loop, way, 1 << 16);
    writer.close();
    let error = event_loop.fails(start_tls(way, &writer));
    assert_eq!(error.io_error().unwrap().kind(), IoKind::ConnectionReset, "{error}");
}

fn a_handshake_that_is_given_up_ends_both_halves(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for cancels in [true, false] {
            let Ends { mut reader, writer, peer } = in_clear(&event_loop, way, 1 << 16);
            event_loop.run(async {
                if cancels {
                    let outcome = asyncio::timeout(Duration::from_millis(5), start_tls(way, &writer)).await;
                    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Timeout);
                } else {
                    let starting = start_tls(way, &writer);
                    assert!(futures::poll!(std::pin::pin!(starting)).is_pending());
                }
                assert!(writer.is_closing());
                // Whatever it is, it comes.
                drop(reader.read(None).await);
                drop(writer.wait_closed().await);
                assert!(writer.drain().await.is_err());
                Ok(())
            });
            event_loop.until(|| {
                peer.socket.drain();
                peer.socket.ended()
            });
        }
    }
}

fn a_certificate_that_is_not_trusted_ends_both_halves(on: On) {
    let event_loop = on.event_loop();
    let context = certificates::server();
    let server = serve(&event_loop, async move |_reader, writer| {
        let error = writer.start_tls(&context).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Ssl, "{error}");
        Ok(())
    });
    event_loop.run(async {
        let (mut reader, writer) = client(&server).await?;
        let stranger = certificates::Authority::new("a stranger");
        let context = SslContext::client_builder().verify_pem(&stranger.pem).build()?;
        let error = writer.start_tls(&context).server_hostname("localhost").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Ssl, "{error}");
        assert!(reader.read(None).await.is_err() && writer.is_closing());
        server.close();
        server.wait_closed().await
    });
}

/// The other half may wait meanwhile.
fn who_waits_to_read_reads_what_is_encrypted_later(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let Ends { mut reader, writer, mut peer } = in_clear(&event_loop, way, 1 << 16);
        let reading = event_loop.create_task(async move { reader.readline().await });
        event_loop.ticks(2);
        let task = event_loop.create_task(async move {
            start_tls(way, &writer).await?;
            Ok(writer)
        });
        event_loop.until(|| {
            peer.turn();
            task.done() && !peer.connection.is_handshaking()
        });
        peer.send(b"secret\n");
        assert_eq!(event_loop.run(reading), b"secret\n");
        drop(event_loop.run(task));
    }
}

fn a_reader_that_went_does_not_hinder_the_upgrade(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let Ends { reader, writer, mut peer } = in_clear(&event_loop, way, 1 << 16);
        drop(reader);
        let task = event_loop.create_task(async move {
            start_tls(way, &writer).await?;
            writer.write("encrypted")?;
            Ok(writer)
        });
        event_loop.until(|| {
            peer.turn();
            peer.received == b"encrypted"
        });
        drop(event_loop.run(task));
    }
}

/// What is sent to nobody stays where it is then.
fn a_reader_that_goes_during_the_handshake_does_not_hinder_it(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let Ends { reader, writer, mut peer } = in_clear(&event_loop, way, 1 << 16);
        let task = event_loop.create_task(async move {
            start_tls(way, &writer).await?;
            assert!(!writer.transport()?.is_reading());
            writer.write("encrypted")?;
            Ok(writer)
        });
        event_loop.ticks(2);
        drop(reader);
        event_loop.until(|| {
            peer.turn();
            peer.received == b"encrypted"
        });
        drop(event_loop.run(task));
    }
}

/// A read that waits has searched the beginning of the handshake.
fn a_search_begins_anew_in_what_is_encrypted(on: On) {
    let event_loop = on.event_loop();
    for way in ways().into_iter().filter(|way| way.ours == Side::Server) {
        for by_line in [true, false] {
            let Ends { mut reader, writer, mut peer } = in_clear(&event_loop, way, 1 << 16);
            let reading = event_loop.create_task(async move {
                if by_line { reader.readline().await } else { reader.readuntil("\n").await }
            });
            let hello = peer.seal(b"");
            peer.send_sealed(&hello[..5]);
            event_loop.ticks(5);
            let task = event_loop.create_task(async move {
                start_tls(way, &writer).await?;
                Ok(writer)
            });
            event_loop.ticks(2);
            peer.send_sealed(&hello[5..]);
            event_loop.until(|| {
                peer.turn();
                task.done() && !peer.connection.is_handshaking()
            });
            peer.send(b"x\n");
            assert_eq!(event_loop.run(reading), b"x\n");
            drop(event_loop.run(task));
        }
    }
}

fn it_is_done_once(on: On) {
    let event_loop = on.event_loop();
    let way = ways()[0];
    let Ends { reader: _reader, writer, mut peer } = in_clear(&event_loop, way, 1 << 16);
    event_loop.run(async {
        let first = start_tls(way, &writer);
        let mut first = std::pin::pin!(first);
        assert!(futures::poll!(&mut first).is_pending());
        assert_eq!(failure(writer.write("in between")).0, ErrorKind::Runtime);
        assert_eq!(failure(start_tls(way, &writer).await).0, ErrorKind::Runtime);
        while futures::poll!(&mut first).is_pending() {
            peer.turn();
            asyncio::sleep(Duration::from_millis(1)).await?;
        }
        writer.write("after")
    });
    event_loop.until(|| {
        peer.turn();
        peer.received == b"after"
    });
}

/// TLS-028: the readers' half.
fn a_reset_is_what_readers_get(on: On) {
    let event_loop = on.event_loop();
    let tcp = ways().into_iter().filter(|way| way.kind == crate::support::transports::PairKind::Tcp);
    for way in tcp {
        let Ends { mut reader, writer, peer } = Ends::open(&event_loop, way);
        event_loop.run(async {
            let reading = create_task(async move { Ok((reader.readline().await, reader)) });
            asyncio::sleep(Duration::ZERO).await?;
            peer.socket.reset();
            let (outcome, mut reader) = reading.await?;
            let kind = |error: Error| error.io_error().map(std::io::Error::kind);
            assert_eq!(kind(outcome.unwrap_err()), Some(IoKind::ConnectionReset));
            assert_eq!(kind(reader.read(1).await.unwrap_err()), Some(IoKind::ConnectionReset));
            assert_eq!(kind(reader.exception().unwrap()), Some(IoKind::ConnectionReset));
            assert_eq!(kind(writer.wait_closed().await.unwrap_err()), Some(IoKind::ConnectionReset));
            Ok(())
        });
        assert_eq!(event_loop.reports.len(), 0);
    }
}

/// TLS-028: the readers' half.
fn what_is_no_tls_is_what_readers_get(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let Ends { mut reader, writer, mut peer } = Ends::open(&event_loop, way);
        let right = peer.seal(b"right\n");
        peer.send_sealed(&right);
        peer.send_sealed(b"GET / HTTP/1.1\r\n\r\n");
        event_loop.run(async {
            assert_eq!(reader.readline().await?, b"right\n");
            assert_eq!(reader.readline().await.unwrap_err().kind(), ErrorKind::Ssl);
            assert_eq!(reader.read(1).await.unwrap_err().kind(), ErrorKind::Ssl);
            assert_eq!(reader.exception().unwrap().kind(), ErrorKind::Ssl);
            let error = AsyncReadExt::read(&mut reader, &mut [0]).await.unwrap_err();
            assert_eq!(Error::from(error).kind(), ErrorKind::Ssl);
            assert_eq!(writer.wait_closed().await.unwrap_err().kind(), ErrorKind::Ssl);
            assert_eq!(writer.drain().await.unwrap_err().kind(), ErrorKind::Ssl);
            Ok(())
        });
        assert_eq!(event_loop.reports.len(), 0);
    }
}

/// TLS-034: the streams' half.
fn an_end_without_an_alert_is_told_to_those_who_can_hear_it(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for early in [true, false] {
            let Ends { mut reader, writer, mut peer } = Ends::open(&event_loop, way);
            event_loop.run(async {
                let send = |peer: &mut Driven| {
                    peer.send(b"x");
                    peer.socket.half_close();
                };
                if early {
                    send(&mut peer);
                    while !format!("{reader:?}").contains("eof") {
                        asyncio::sleep(Duration::from_millis(1)).await?;
                    }
                }
                let reading = create_task(async move {
                    let mut memory = [0; 10];
                    assert_eq!(AsyncReadExt::read(&mut reader, &mut memory).await?, 1);
                    let error = AsyncReadExt::read(&mut reader, &mut memory).await.unwrap_err();
                    Ok((error.kind(), reader))
                });
                asyncio::sleep(Duration::ZERO).await?;
                if !early {
                    send(&mut peer);
                }
                let (kind, mut reader) = reading.await?;
                assert_eq!(kind, IoKind::UnexpectedEof, "{way:?}");
                assert_eq!(reader.fill_buf().await.unwrap_err().kind(), IoKind::UnexpectedEof);
                assert_eq!(reader.read_to_end(&mut Vec::new()).await.unwrap_err().kind(), IoKind::UnexpectedEof);
                // asyncio's reads know of no such thing.
                assert_eq!(reader.read(None).await?, b"");
                assert_eq!(reader.readline().await?, b"");
                assert!(reader.at_eof() && reader.exception().is_none());
                assert_eq!(writer.get_extra_info(CLOSE_NOTIFY), Some(false));
                writer.close();
                writer.wait_closed().await
            });
            assert_eq!(event_loop.reports.len(), 0);
        }
    }
}

/// TLS-034: the opposite.
fn an_end_with_an_alert_is_an_end(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let Ends { mut reader, writer, mut peer } = Ends::open(&event_loop, way);
        let sealed = [peer.seal(b"x"), peer.seal_close_notify()].concat();
        peer.send_sealed(&sealed);
        peer.socket.half_close();
        event_loop.run(async {
            let mut all = Vec::new();
            assert_eq!(reader.read_to_end(&mut all).await?, 1);
            assert_eq!(reader.fill_buf().await?, b"");
            assert_eq!(reader.read(None).await?, b"");
            assert_eq!(writer.get_extra_info(CLOSE_NOTIFY), Some(true));
            writer.wait_closed().await
        });
    }
}

fn a_flush_waits_until_all_has_gone(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        let Ends { reader, writer, mut peer } = Ends::open(&event_loop, way);
        let mut stream = Stream::join(reader, writer).unwrap();
        stream.writer().write(pattern(LARGE)).unwrap();
        let task = event_loop.create_task(async move {
            stream.flush().await?;
            Ok(stream)
        });
        event_loop.ticks(10);
        assert!(!task.done());
        event_loop.until(|| {
            peer.turn();
            task.done()
        });
        let stream = event_loop.run(task);
        assert_eq!(stream.writer().transport().unwrap().get_write_buffer_size(), 0);
        event_loop.until(|| {
            peer.turn();
            peer.received.len() == LARGE
        });
        assert!(peer.received == pattern(LARGE));
    }
}

fn closing_says_so_to_the_other_side(on: On) {
    let event_loop = on.event_loop();
    for way in ways() {
        for how in ["close", "drop", "poll_close"] {
            let Ends { reader: _reader, writer, mut peer } = Ends::open(&event_loop, way);
            writer.write("last").unwrap();
            let mut kept = Some(writer);
            match how {
                "close" => kept.as_ref().unwrap().close(),
                "drop" => kept = None,
                _ => event_loop.run(async { Ok(AsyncWriteExt::close(kept.as_mut().unwrap()).await?) }),
            }
            event_loop.until(|| {
                peer.turn();
                peer.close_notify
            });
            assert_eq!(peer.received, b"last");
            let alert = peer.seal_close_notify();
            peer.send_sealed(&alert);
            event_loop.until(|| {
                peer.turn();
                peer.ended
            });
            drop(kept);
        }
    }
}

/// SWR-012: by the transport that the stream has now.
fn a_handler_that_fails_after_the_upgrade_closes_in_order(on: On) {
    let event_loop = on.event_loop();
    let context = certificates::server();
    let kept = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let keep = kept.clone();
    let server = serve(&event_loop, async move |reader, writer| {
        writer.start_tls(&context).await?;
        writer.write("last words")?;
        keep.borrow_mut().push((reader, writer));
        Err(Error::Value("fails".into()))
    });
    event_loop.run(async {
        let (mut reader, writer) = client(&server).await?;
        writer.start_tls(&certificates::client()).server_hostname("localhost").await?;
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await?;
        assert_eq!(all, b"last words");
        assert_eq!(writer.get_extra_info(CLOSE_NOTIFY), Some(true));
        server.close();
        server.wait_closed().await
    });
    assert_eq!(event_loop.reports.take().len(), 1);
    kept.borrow_mut().clear();
}

fn over_unix_sockets(on: On) {
    let event_loop = on.event_loop();
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("socket");
    event_loop.run(async {
        let server = asyncio::start_unix_server(echo, &path).ssl(&certificates::server()).await?;
        let opening = asyncio::open_unix_connection(&path).ssl(&certificates::client());
        let (mut reader, writer) = opening.server_hostname("localhost").await?;
        writer.write("line\n")?;
        assert_eq!(reader.readline().await?, b"line\n");
        writer.close();
        writer.wait_closed().await?;
        server.close();
        server.wait_closed().await
    });
}
