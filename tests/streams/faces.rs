//! What these tests show: streams by the traits of the futures ecosystem, beside asyncio's own methods.

use std::{
    cell::RefCell,
    io::{ErrorKind as IoKind, IoSlice, Write},
    pin::Pin,
    ptr,
    rc::Rc,
    task::{Context, RawWaker, RawWakerVTable, Waker},
};

use asyncio::{Error, ErrorKind, Stream, StreamWriter, create_task};
use futures::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, TryStreamExt, future::poll_fn};

use crate::{
    Ends, LARGE, LIMIT, Random, fed, joined, polls,
    support::{
        failure,
        loops::{On, TestLoop},
        run,
        transports::{PairKind, pattern},
    },
    turns, turns_until,
};

on_each_selector! {
    reads_of_all_kinds_lose_nothing
    much_is_copied_through
    lines_are_a_stream
    a_flush_waits_until_all_has_gone
    closing_ends_what_is_written
    a_full_transport_takes_no_more
    pieces_are_written_together
    a_huge_write_is_taken_in_parts
    several_tasks_write_by_reference
    writing_to_one_who_went_fails
    a_reset_is_an_error_of_the_system
    a_split_stream_serves_both_ways
    a_waker_may_come_back_while_it_is_cloned
}

#[test]
fn asyncios_methods_come_first() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        feeder.feed_data(b"some bytes and a line\nand an end")?;
        let bytes: Vec<u8> = reader.read(4).await?;
        assert_eq!(bytes, b"some");
        let mut memory = [0; 6];
        assert_eq!(AsyncReadExt::read(&mut reader, &mut memory).await?, 6);
        assert_eq!(&memory, b" bytes");
        let mut line = String::new();
        assert_eq!(AsyncBufReadExt::read_line(&mut reader, &mut line).await?, 12);
        assert_eq!(line, " and a line\n");
        feeder.feed_eof()?;
        let mut rest = Vec::new();
        assert_eq!(reader.read_to_end(&mut rest).await?, 10);
        assert_eq!(rest, b"and an end");
        assert_eq!(AsyncReadExt::read(&mut reader, &mut memory).await?, 0);
        assert_eq!(AsyncReadExt::read(&mut reader, &mut []).await?, 0);
        assert_eq!(reader.fill_buf().await?, b"");
        assert_eq!(reader.read_exact(&mut memory).await.unwrap_err().kind(), IoKind::UnexpectedEof);
        Ok(())
    });
}

#[test]
fn what_is_lent_is_the_front_of_what_is_unread() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        feeder.feed_data(b"0123456789")?;
        assert_eq!(reader.fill_buf().await?, b"0123456789");
        reader.consume_unpin(3);
        assert_eq!(reader.fill_buf().await?, b"3456789");
        assert_eq!(reader.read(2).await?, b"34");
        // What was lent before that read is nothing to consume.
        reader.consume_unpin(1);
        assert_eq!(reader.fill_buf().await?, b"56789");
        feeder.feed_data(b"abc")?;
        reader.consume_unpin(0);
        reader.consume_unpin(5);
        assert_eq!(reader.fill_buf().await?, b"abc");
        reader.consume_unpin(100);
        assert!(polls(reader.fill_buf(), 3).await.is_none());
        reader.consume_unpin(1);
        feeder.feed_eof()?;
        assert_eq!(reader.fill_buf().await?, b"");
        Ok(())
    });
}

#[test]
fn an_exception_is_an_error_of_io() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        feeder.feed_data(b"unread")?;
        feeder.set_exception(Error::Value("broken".into()))?;
        let error = AsyncReadExt::read(&mut reader, &mut [0]).await.unwrap_err();
        assert!(error.to_string().contains("broken"), "{error}");
        assert_eq!(Error::from(error).kind(), ErrorKind::Value);
        assert!(reader.fill_buf().await.is_err());
        Ok(())
    });
}

/// Operations by chance, given up by chance, against a plain position in what the other side sends.
fn reads_of_all_kinds_lose_nothing(on: On) {
    let event_loop = on.event_loop();
    for seed in 0..30 {
        let kind = [PairKind::Tcp, PairKind::Socketpair][seed % 2];
        by_chance(&event_loop, kind, seed);
    }
}

fn by_chance(event_loop: &TestLoop, kind: PairKind, seed: usize) {
    let mut random = Random(seed as u64);
    let limit = [1, 10, 300, 5000, LIMIT][random.below(5)];
    let Ends { mut reader, writer: _writer, peer } = Ends::with_limit(event_loop, kind.pair(), limit);
    let data = pattern(300_000);
    let (mut sent, mut at) = (0, 0);
    event_loop.run(async {
        while sent < data.len() || at < 200_000 {
            if sent < data.len() && random.below(2) == 0 {
                let most = [10, 1000, 50_000][random.below(3)];
                sent += peer.send_some(&data[sent..data.len().min(sent + 1 + random.below(most))]);
            }
            let most = [1, 20, 3000, 100_000][random.below(4)];
            let (count, patience) = (random.below(most) + 1, random.below(6) + 1);
            match random.below(6) {
                0 => {
                    if let Some(read) = polls(reader.read(count), patience).await {
                        let read = read?;
                        assert!(!read.is_empty() && read.len() <= count);
                        assert!(data[at..].starts_with(&read), "seed {seed}");
                        at += read.len();
                    }
                }
                1 => {
                    if let Some(read) = polls(reader.readexactly(count), patience).await {
                        assert!(read? == data[at..at + count], "seed {seed}");
                        at += count;
                    }
                }
                2 => match polls(reader.readuntil(["\n", "ab", "xyz"]), patience).await {
                    Some(Ok(read)) => {
                        assert!(data[at..].starts_with(&read), "seed {seed}");
                        at += read.len();
                    }
                    Some(Err(Error::LimitOverrun(error))) => {
                        let read = reader.readexactly(error.consumed()).await?;
                        assert!(data[at..].starts_with(&read), "seed {seed}");
                        at += read.len();
                    }
                    Some(Err(error)) => return Err(error),
                    None => {}
                },
                3 => {
                    let mut memory = vec![0; count];
                    if let Some(read) = polls(AsyncReadExt::read(&mut reader, &mut memory), patience).await {
                        let read = read?;
                        assert!(read > 0 && memory[..read] == data[at..at + read], "seed {seed}");
                        at += read;
                    }
                }
                4 => {
                    let taken = match polls(reader.fill_buf(), patience).await {
                        None => 0,
                        Some(lent) => {
                            let lent = lent?;
                            assert!(!lent.is_empty() && data[at..].starts_with(lent), "seed {seed}");
                            random.below(lent.len() + 1)
                        }
                    };
                    reader.consume_unpin(taken);
                    at += taken;
                }
                _ => turns(random.below(3)).await,
            }
        }
        assert_eq!(sent, data.len());
        peer.half_close();
        assert!(reader.read(None).await? == data[at..], "seed {seed}");
        assert!(reader.at_eof());
        Ok(())
    });
}

fn much_is_copied_through(on: On) {
    let event_loop = on.event_loop();
    let [(reader, mut writer), (back, mut sink)] = joined(&event_loop, PairKind::Tcp);
    let [(far, mut far_writer), (mut end, _end)] = joined(&event_loop, PairKind::Socketpair);
    event_loop.run(async {
        let copying = create_task(async move {
            let copied = futures::io::copy(back, &mut far_writer).await?;
            AsyncWriteExt::close(&mut far_writer).await?;
            Ok(copied)
        });
        let sending = create_task(async move {
            writer.write_all(&pattern(LARGE)).await?;
            AsyncWriteExt::close(&mut writer).await?;
            Ok((reader, writer, far))
        });
        let mut received = Vec::new();
        end.read_to_end(&mut received).await?;
        assert!(received == pattern(LARGE));
        assert_eq!(copying.await?, LARGE as u64);
        drop(sending.await?);
        AsyncWriteExt::close(&mut sink).await?;
        Ok(())
    });
}

fn lines_are_a_stream(on: On) {
    let event_loop = on.event_loop();
    let Ends { reader, writer, peer } = Ends::tcp(&event_loop);
    let stream = Stream::join(reader, writer).unwrap();
    peer.send(b"one\ntwo\r\nthree");
    peer.half_close();
    let lines: Vec<String> = event_loop.run(async { Ok(stream.lines().try_collect().await?) });
    assert_eq!(lines, ["one", "two", "three"]);
}

fn a_flush_waits_until_all_has_gone(on: On) {
    let event_loop = on.event_loop();
    let Ends { reader: _reader, mut writer, peer } = Ends::tcp(&event_loop);
    event_loop.run(async {
        writer.flush().await?;
        writer.write(pattern(LARGE))?;
        assert!(polls(writer.flush(), 5).await.is_none());
        let collected = peer.collect();
        writer.flush().await?;
        assert_eq!(writer.transport()?.get_write_buffer_size(), 0);
        drop(writer);
        turns_until(|| collected.is_finished()).await;
        assert!(collected.join().unwrap().0 == pattern(LARGE));
        Ok(())
    });
}

fn closing_ends_what_is_written(on: On) {
    let event_loop = on.event_loop();
    let Ends { mut reader, mut writer, peer } = Ends::tcp(&event_loop);
    event_loop.run(async {
        writer.write(pattern(LARGE))?;
        assert!(polls(AsyncWriteExt::close(&mut writer), 5).await.is_none());
        let collected = peer.collect();
        AsyncWriteExt::close(&mut writer).await?;
        AsyncWriteExt::close(&mut writer).await?;
        turns_until(|| collected.is_finished()).await;
        let (received, peer) = collected.join().unwrap();
        assert!(received == pattern(LARGE));
        assert!(!writer.is_closing());
        peer.send(b"answer");
        assert_eq!(reader.readexactly(6).await?, b"answer");
        assert_eq!(failure(writer.write("more")).0, ErrorKind::Runtime);
        assert!(AsyncWriteExt::write(&mut writer, b"more").await.is_err());
        Ok(())
    });
}

fn a_full_transport_takes_no_more(on: On) {
    let event_loop = on.event_loop();
    let Ends { reader: _reader, mut writer, peer } = Ends::tcp(&event_loop);
    event_loop.run(async {
        let chunk = pattern(100_000);
        let mut taken = 0;
        while let Some(count) = polls(AsyncWriteExt::write(&mut writer, &chunk), 3).await {
            taken += count?;
        }
        assert!(writer.transport()?.get_write_buffer_size() <= (1 << 16) + 100_000);
        let received = create_task({
            let mut left = taken + 100_000;
            async move {
                while left > 0 {
                    left -= peer.drain().len();
                    asyncio::sleep(std::time::Duration::from_millis(1)).await?;
                }
                Ok(peer)
            }
        });
        assert_eq!(AsyncWriteExt::write(&mut writer, &chunk).await?, 100_000);
        received.await?;
        Ok(())
    });
}

fn pieces_are_written_together(on: On) {
    let event_loop = on.event_loop();
    let Ends { reader: _reader, mut writer, peer } = Ends::tcp(&event_loop);
    event_loop.run(async {
        let pieces = [IoSlice::new(b"one "), IoSlice::new(b""), IoSlice::new(b"two")];
        let count = poll_fn(|cx| Pin::new(&mut writer).poll_write_vectored(cx, &pieces)).await?;
        assert_eq!(count, 7);
        assert_eq!(peer.read_exactly(7), b"one two");
        let data = pattern(5000);
        let many: Vec<_> = data.chunks(1).map(IoSlice::new).collect();
        let mut left = &many[..];
        while !left.is_empty() {
            // Each piece is of one byte.
            let count = poll_fn(|cx| Pin::new(&mut writer).poll_write_vectored(cx, left)).await?;
            assert!(count > 0);
            left = &left[count..];
        }
        assert!(peer.read_exactly(5000) == data);
        Ok(())
    });
}

fn a_huge_write_is_taken_in_parts(on: On) {
    let event_loop = on.event_loop();
    let Ends { reader: _reader, mut writer, peer } = Ends::tcp(&event_loop);
    event_loop.run(async {
        let data = pattern(16 << 20);
        // What is held stays small, however much is to be written.
        let count = AsyncWriteExt::write(&mut writer, &data).await?;
        assert_eq!(count, 1 << 20);
        let collected = peer.collect();
        let (first, second) = data[count..].split_at(9 << 20);
        let pieces = [IoSlice::new(&[]), IoSlice::new(first), IoSlice::new(second)];
        let more = poll_fn(|cx| Pin::new(&mut writer).poll_write_vectored(cx, &pieces)).await?;
        assert_eq!(more, 1 << 20);
        writer.write_all(&data[count + more..]).await?;
        AsyncWriteExt::close(&mut writer).await?;
        turns_until(|| collected.is_finished()).await;
        assert!(collected.join().unwrap().0 == data);
        Ok(())
    });
}

fn several_tasks_write_by_reference(on: On) {
    let event_loop = on.event_loop();
    let Ends { reader: _reader, writer, peer } = Ends::tcp(&event_loop);
    let collected = peer.collect();
    event_loop.run(async {
        let shared = Rc::new(writer);
        let tasks = [b'a', b'b', b'c'].map(|byte| {
            let shared = shared.clone();
            create_task(async move {
                let mut writer = &*shared;
                for _ in 0..20 {
                    writer.write_all(&[byte; 50_000]).await?;
                }
                writer.flush().await?;
                Ok(())
            })
        });
        for task in tasks {
            task.await?;
        }
        AsyncWriteExt::close(&mut &*shared).await?;
        turns_until(|| collected.is_finished()).await;
        let (received, _) = collected.join().unwrap();
        assert_eq!(received.len(), 3_000_000);
        for piece in received.chunks(50_000) {
            assert!(piece.iter().all(|byte| *byte == piece[0]), "a write was split");
        }
        Ok(())
    });
}

fn writing_to_one_who_went_fails(on: On) {
    let event_loop = on.event_loop();
    let Ends { reader: _reader, mut writer, peer } = Ends::tcp(&event_loop);
    event_loop.run(async {
        writer.write(pattern(LARGE))?;
        let flushing = create_task(async move {
            let outcome = writer.flush().await;
            Ok((outcome, writer))
        });
        turns(3).await;
        peer.reset();
        let (outcome, mut writer) = flushing.await?;
        let gone = [IoKind::ConnectionReset, IoKind::BrokenPipe, IoKind::ConnectionAborted];
        assert!(gone.contains(&outcome.unwrap_err().kind()));
        assert!(gone.contains(&AsyncWriteExt::write(&mut writer, b"x").await.unwrap_err().kind()));
        assert!(gone.contains(&writer.flush().await.unwrap_err().kind()));
        assert!(AsyncWriteExt::close(&mut writer).await.is_err());
        Ok(())
    });
    let Ends { reader: _reader, mut writer, peer: _peer } = Ends::tcp(&event_loop);
    event_loop.run(async {
        let asyncios = &writer;
        asyncios.close();
        assert_eq!(AsyncWriteExt::write(&mut writer, b"x").await.unwrap_err().kind(), IoKind::ConnectionReset);
        writer.flush().await?;
        AsyncWriteExt::close(&mut writer).await?;
        writer.wait_closed().await
    });
}

fn a_reset_is_an_error_of_the_system(on: On) {
    let event_loop = on.event_loop();
    for buffered in [false, true] {
        let Ends { mut reader, writer: _writer, peer } = Ends::tcp(&event_loop);
        event_loop.run(async {
            let reading = create_task(async move {
                let outcome = if buffered {
                    reader.fill_buf().await.map(<[u8]>::len)
                } else {
                    AsyncReadExt::read(&mut reader, &mut [0; 10]).await
                };
                Ok((outcome, AsyncReadExt::read(&mut reader, &mut [0; 10]).await))
            });
            turns(3).await;
            peer.reset();
            let (first, second) = reading.await?;
            assert_eq!(first.unwrap_err().kind(), IoKind::ConnectionReset);
            assert_eq!(second.unwrap_err().kind(), IoKind::ConnectionReset);
            Ok(())
        });
    }
}

fn a_split_stream_serves_both_ways(on: On) {
    let event_loop = on.event_loop();
    let [ours, theirs] =
        joined(&event_loop, PairKind::Tcp).map(|(reader, writer)| Stream::join(reader, writer).unwrap());
    event_loop.run(async {
        let (mut reading, mut writing) = ours.split();
        let echoing = create_task(async move {
            let (reading, mut writing) = theirs.split();
            futures::io::copy_buf(futures::io::BufReader::new(reading), &mut writing).await?;
            writing.close().await?;
            Ok(())
        });
        let sending = async {
            writing.write_all(&pattern(LARGE)).await?;
            writing.close().await
        };
        let mut received = Vec::new();
        let (sent, read) = futures::join!(sending, reading.read_to_end(&mut received));
        sent?;
        read?;
        assert!(received == pattern(LARGE));
        echoing.await
    });
}

/// The system's calls that a test of its own makes block no loop.
#[test]
fn a_stream_reads_what_a_thread_writes() {
    run(async {
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let (reader, writer) = asyncio::open_unix_connection(()).sock(ours).await?;
        let mut stream = Stream::join(reader, writer)?;
        let writing = std::thread::spawn(move || theirs.write_all(&pattern(LARGE)).unwrap());
        let mut received = vec![0; LARGE];
        stream.read_exact(&mut received).await?;
        writing.join().unwrap();
        assert!(received == pattern(LARGE));
        assert!(stream.fill_buf().await?.is_empty());
        Ok(())
    });
}

/// Wakers are other people's code.
#[expect(unsafe_code, reason = "no other waker tells that it is cloned")]
fn a_waker_may_come_back_while_it_is_cloned(on: On) {
    thread_local!(static WRITER: RefCell<Option<Rc<StreamWriter>>> = const { RefCell::new(None) });
    static TABLE: RawWakerVTable = RawWakerVTable::new(clone, |_| {}, |_| {}, |_| {});
    fn clone(_: *const ()) -> RawWaker {
        if let Some(writer) = WRITER.take() {
            assert!(Pin::new(&mut &*writer).poll_flush(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        RawWaker::new(ptr::null(), &TABLE)
    }
    let event_loop = on.event_loop();
    let Ends { reader: _reader, writer, peer: _peer } = Ends::tcp(&event_loop);
    writer.write(pattern(LARGE)).unwrap();
    let writer = Rc::new(writer);
    // SAFETY: the functions of the table look at no data.
    let waker = unsafe { Waker::new(ptr::null(), &TABLE) };
    WRITER.set(Some(writer.clone()));
    assert!(Pin::new(&mut &*writer).poll_flush(&mut Context::from_waker(&waker)).is_pending());
    assert!(WRITER.take().is_none(), "it has been cloned");
}
