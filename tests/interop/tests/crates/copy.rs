//! What these tests show: what `futures` has for readers and writers, over streams.

use std::rc::Rc;

use asyncio::{Error, Result, Stream, StreamWriter, create_task};
use futures::{
    AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, TryStreamExt,
    io::{self, AllowStdIo, BufReader, BufWriter, Cursor},
};

use crate::{close, connect, serve, support::loops::On};

on_each_selector! {
    copy_echoes_to_the_end
    copy_buf_takes_what_is_buffered
    a_proxy_by_copy_passes_on_both_ends
    lines_come_one_by_one
    readers_and_writers_combine
    what_is_read_with_the_traits_and_by_name_is_one_row_of_bytes
}

const LENGTH: usize = 5_000_000;

fn pattern() -> Vec<u8> {
    (0..LENGTH).map(|number| (number % 249) as u8).collect()
}

/// As of asyncio's writers: what was written goes out first.
async fn end(writer: StreamWriter) -> Result<()> {
    writer.close();
    writer.wait_closed().await
}

/// Sends the pattern and an end, and receives it back.
async fn ask_for_an_echo(stream: Stream) -> Result<()> {
    let (mut reader, mut writer) = stream.into_split();
    let sending = create_task(async move {
        assert_eq!(io::copy(Cursor::new(pattern()), &mut writer).await?, LENGTH as u64);
        writer.write_eof()?;
        Ok(writer) // that it is dropped would close the connection
    });
    let mut answer = Vec::new();
    reader.read_to_end(&mut answer).await?;
    assert!(answer == pattern());
    sending.await.map(drop)
}

fn copy_echoes_to_the_end(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let tag = Rc::new(());
        let (server, address) = serve(async move |stream| {
            let _tag = tag.clone();
            let (reader, mut writer) = stream.into_split();
            assert_eq!(io::copy(reader, &mut writer).await?, LENGTH as u64);
            end(writer).await
        })
        .await?;
        ask_for_an_echo(connect(address).await?).await?;
        close(server).await
    });
}

fn copy_buf_takes_what_is_buffered(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let (server, address) = serve(async |stream| {
            let (reader, mut writer) = stream.into_split();
            assert_eq!(io::copy_buf(reader, &mut writer).await?, LENGTH as u64);
            end(writer).await
        })
        .await?;
        ask_for_an_echo(connect(address).await?).await?;
        close(server).await
    });
}

fn a_proxy_by_copy_passes_on_both_ends(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let (target, behind) = serve(async |stream| {
            let (reader, mut writer) = stream.into_split();
            io::copy(reader, &mut writer).await?;
            end(writer).await
        })
        .await?;
        let (proxy, address) = serve(async move |stream| {
            let (from_client, mut to_client) = stream.into_split();
            let (from_target, mut to_target) = connect(behind).await?.into_split();
            let there = async {
                io::copy(from_client, &mut to_target).await?;
                to_target.write_eof()
            };
            let back = async {
                io::copy(from_target, &mut to_client).await?;
                to_client.write_eof()
            };
            futures::try_join!(there, back)?;
            Ok(())
        })
        .await?;
        ask_for_an_echo(connect(address).await?).await?;
        close(proxy).await?;
        close(target).await
    });
}

fn lines_come_one_by_one(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let (server, address) = serve(async |mut stream| {
            for number in 0..1000 {
                stream.write_all(format!("line {number}\r\n").as_bytes()).await?;
            }
            stream.write_all(b"without an end").await?;
            stream.close().await?;
            Ok(())
        })
        .await?;
        let (reader, writer) = connect(address).await?.into_split();
        let lines: Vec<String> = reader.lines().try_collect().await?;
        assert_eq!(lines.len(), 1001);
        assert_eq!((&*lines[999], &*lines[1000]), ("line 999", "without an end"));
        drop(writer);
        close(server).await
    });
}

fn readers_and_writers_combine(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let (server, address) = serve(async |stream| {
            let (reader, writer) = stream.into_split();
            let mut writer = BufWriter::new(writer);
            let (mut reader, mut chunk) = (BufReader::new(reader), Vec::new());
            while reader.read_until(b';', &mut chunk).await? > 0 {
                chunk.reverse();
                writer.write_all(&chunk).await?;
                chunk.clear();
            }
            writer.flush().await?;
            end(writer.into_inner()).await
        })
        .await?;
        let mut stream = connect(address).await?;
        stream.write_all(b"abc;def;ghi").await?;
        let (mut reader, writer) = stream.into_split();
        writer.write_eof()?;
        let mut first = String::new();
        (&mut reader).take(4).read_to_string(&mut first).await?;
        assert_eq!(first, ";cba");
        let mut rest = AllowStdIo::new(Vec::new());
        io::copy(reader.chain(Cursor::new("!")), &mut rest).await?;
        assert_eq!(rest.into_inner(), b";fedihg!");
        drop(writer);
        close(server).await
    });
}

fn what_is_read_with_the_traits_and_by_name_is_one_row_of_bytes(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let (server, address) = serve(async |mut stream| {
            stream.write_all(b"0123456789abcdef\nrest").await?;
            stream.close().await?;
            Ok(())
        })
        .await?;
        let (mut reader, writer) = connect(address).await?.into_split();
        let mut three = [0; 3];
        AsyncReadExt::read_exact(&mut reader, &mut three).await?;
        assert_eq!(&three, b"012");
        assert_eq!(reader.readexactly(3).await?, b"345"[..]);
        assert_eq!(AsyncBufReadExt::fill_buf(&mut reader).await?[..2], b"67"[..]);
        AsyncBufReadExt::consume_unpin(&mut reader, 2);
        assert_eq!(reader.readline().await?, b"89abcdef\n"[..]);
        let mut rest = String::new();
        AsyncReadExt::read_to_string(&mut reader, &mut rest).await.map_err(Error::from)?;
        assert_eq!(rest, "rest");
        drop(writer);
        close(server).await
    });
}
