//! What these tests show: streams have tokio's traits, which need no runtime of tokio's.

use std::{cell::RefCell, rc::Rc};

use asyncio::{Error, Result, Stream, create_task};
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio_util::codec::{Framed, FramedRead, FramedWrite, LengthDelimitedCodec, LinesCodec};

use crate::{close, connect, serve, support::loops::On};

on_each_selector! {
    tokio_util_frames_a_stream
    tokio_util_frames_both_halves
    a_proxy_by_copy_bidirectional_passes_on_both_ends
    lines_and_exact_reads_work_on_the_reader
    hyper_takes_a_stream_through_hyper_util
}

fn tokio_util_frames_a_stream(on: On) {
    let event_loop = on.event_loop();
    let lines = Rc::new(RefCell::new(Vec::new()));
    event_loop.run(async {
        let record = lines.clone();
        let (server, address) = serve(async move |stream| {
            let mut framed = Framed::new(stream, LinesCodec::new());
            while let Some(line) = framed.next().await {
                let line = line.map_err(Error::other)?;
                record.borrow_mut().push(line.clone());
                framed.send(line.to_uppercase()).await.map_err(Error::other)?;
            }
            SinkExt::<String>::close(&mut framed).await.map_err(Error::other)
        })
        .await?;
        let mut framed = Framed::new(connect(address).await?, LinesCodec::new());
        for line in ["one", "", "three"] {
            framed.send(line).await.map_err(Error::other)?;
            assert_eq!(framed.next().await.unwrap().map_err(Error::other)?, line.to_uppercase());
        }
        SinkExt::<String>::close(&mut framed).await.map_err(Error::other)?;
        drop(framed);
        close(server).await
    });
    assert_eq!(*lines.borrow(), ["one", "", "three"]);
}

fn tokio_util_frames_both_halves(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let (server, address) = serve(async |stream| {
            let (reader, writer) = stream.into_split();
            let frames = FramedRead::new(reader, LengthDelimitedCodec::new());
            let sink = FramedWrite::new(writer, LengthDelimitedCodec::new());
            frames.map(|frame| frame.map(BytesMut::freeze)).forward(sink).await?;
            Ok(())
        })
        .await?;
        let (reader, writer) = connect(address).await?.into_split();
        let mut frames = FramedRead::new(reader, LengthDelimitedCodec::new());
        let sending = create_task(async move {
            let mut sink = FramedWrite::new(writer, LengthDelimitedCodec::new());
            for number in 0..100u8 {
                sink.send(Bytes::from(vec![number; 50_000])).await?;
            }
            Ok(sink)
        });
        for number in 0..100u8 {
            assert!(frames.next().await.unwrap()?[..] == [number; 50_000]);
        }
        let mut sink = sending.await?;
        SinkExt::<Bytes>::close(&mut sink).await?;
        drop((sink, frames));
        close(server).await
    });
}

fn a_proxy_by_copy_bidirectional_passes_on_both_ends(on: On) {
    let event_loop = on.event_loop();
    let passed = Rc::new(RefCell::new(None));
    event_loop.run(async {
        let (target, behind) = serve(async |mut stream| {
            let mut question = [0; 8];
            stream.read_exact(&mut question).await?;
            stream.write_all(b"answer").await?;
            stream.shutdown().await?;
            Ok(())
        })
        .await?;
        let record = passed.clone();
        let (proxy, address) = serve(async move |mut front: Stream| {
            let mut back = connect(behind).await?;
            *record.borrow_mut() = Some(copy_bidirectional(&mut front, &mut back).await?);
            Ok(())
        })
        .await?;
        let mut client = connect(address).await?;
        client.write_all(b"question").await?;
        client.flush().await?;
        let mut answer = String::new();
        client.read_to_string(&mut answer).await?;
        assert_eq!(answer, "answer");
        client.shutdown().await?;
        drop(client);
        close(proxy).await?;
        close(target).await
    });
    assert_eq!(*passed.borrow(), Some((8, 6)));
}

fn lines_and_exact_reads_work_on_the_reader(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let (server, address) = serve(async |mut stream| {
            stream.write_all(b"one\ntwo\nrest of it").await?;
            stream.shutdown().await?;
            Ok(())
        })
        .await?;
        let (reader, writer) = connect(address).await?.into_split();
        let mut reader = reader;
        let mut line = String::new();
        AsyncBufReadExt::read_line(&mut reader, &mut line).await?;
        assert_eq!(line, "one\n");
        let mut buffered = BufReader::new(reader).lines();
        assert_eq!(buffered.next_line().await?.as_deref(), Some("two"));
        let mut reader = buffered.into_inner();
        let mut four = [0; 4];
        reader.read_exact(&mut four).await?;
        assert_eq!(&four, b"rest");
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).await?;
        assert_eq!(rest, b" of it");
        drop(writer);
        close(server).await
    });
}

fn hyper_takes_a_stream_through_hyper_util(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let (server, address) = serve(async |stream| {
            let service = hyper::service::service_fn(async |_| Ok::<_, Error>(hyper::Response::new("hi".to_owned())));
            let http = hyper::server::conn::http1::Builder::new();
            http.serve_connection(TokioIo::new(stream), service).await.map_err(Error::other)
        })
        .await?;
        let mut client = connect(address).await?;
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        client.read_to_string(&mut answer).await?;
        assert!(answer.ends_with("\r\n\r\nhi"), "{answer}");
        drop(client);
        close(server).await
    });
}

/// The reader and the writer may cross threads with tokio's traits, too.
const _: () = {
    const fn takes<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send>() {}
    takes::<Stream>();
    const fn result<T: Send>() {}
    result::<Result<Stream>>();
};
