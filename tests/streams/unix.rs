//! What these tests show: streams over unix sockets.

use std::time::Duration;

use asyncio::{StreamReader, StreamWriter, create_task};

use crate::support::loops::On;

on_each_selector! {
    a_line_comes_back
    a_line_comes_back_from_a_task_that_the_handler_started
    a_socket_may_be_handed_over
    limits_and_listeners_can_be_set
}

async fn echo(mut reader: StreamReader, writer: StreamWriter) -> asyncio::Result<()> {
    let line = reader.readline().await?;
    writer.write(line)?;
    writer.drain().await?;
    writer.close();
    writer.wait_closed().await
}

async fn client(path: &std::path::Path) -> asyncio::Result<Vec<u8>> {
    let (mut reader, writer) = asyncio::open_unix_connection(path).await?;
    writer.write("hello world!\n")?;
    let line = reader.readline().await?;
    writer.close();
    writer.wait_closed().await?;
    Ok(line)
}

/// UNX-017
fn a_line_comes_back(on: On) {
    let event_loop = on.event_loop();
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("socket");
    event_loop.run(async {
        let server = asyncio::start_unix_server(echo, &path).await?;
        assert_eq!(client(&path).await?, b"hello world!\n");
        server.close();
        server.wait_closed().await
    });
    assert!(!path.exists());
    assert_eq!(event_loop.reports.len(), 0);
}

/// UNX-017
fn a_line_comes_back_from_a_task_that_the_handler_started(on: On) {
    let event_loop = on.event_loop();
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("socket");
    event_loop.run(async {
        let handler = async |reader, writer| {
            drop(create_task(echo(reader, writer)));
            Ok(())
        };
        let server = asyncio::start_unix_server(handler, &path).await?;
        assert_eq!(client(&path).await?, b"hello world!\n");
        server.close();
        server.wait_closed().await
    });
    assert_eq!(event_loop.reports.len(), 0);
}

fn a_socket_may_be_handed_over(on: On) {
    let event_loop = on.event_loop();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    event_loop.run(async {
        let (mut reader, writer) = asyncio::open_unix_connection(()).sock(ours).await?;
        let (mut other, answer) = asyncio::open_unix_connection(()).sock(theirs).limit(10).await?;
        writer.write("question\n")?;
        assert_eq!(other.readline().await?, b"question\n");
        answer.write("answer\n")?;
        assert_eq!(reader.readline().await?, b"answer\n");
        Ok(())
    });
}

fn limits_and_listeners_can_be_set(on: On) {
    let event_loop = on.event_loop();
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    event_loop.run(async {
        let handler = async |mut reader: StreamReader, writer: StreamWriter| {
            let outcome = reader.readline().await;
            writer.write(if outcome.is_err() { "too long" } else { "fine" })
        };
        let server = asyncio::start_unix_server(handler, ()).sock(listener).limit(3).start_serving(false).await?;
        assert!(!server.is_serving());
        server.start_serving().await?;
        for (line, answer) in [("abc\n", "fine"), ("abcd\n", "too long")] {
            let (mut reader, writer) = asyncio::open_unix_connection(&path).await?;
            writer.write(line)?;
            let answered = asyncio::timeout(Duration::from_secs(30), reader.read(None)).await?;
            assert_eq!(answered, answer.as_bytes());
        }
        server.close();
        server.wait_closed().await
    });
}
