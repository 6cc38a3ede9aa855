//! What these tests show: servers whose connections are streams, and what becomes of a handler that fails.

use std::{cell::RefCell, rc::Rc, time::Duration};

use asyncio::{
    ContextVar, Error, ErrorKind, PEERNAME, Result, SOCKNAME, StreamReader, StreamWriter, create_task, current_task,
};

use crate::{
    client, plain_client, serve,
    support::{Gate, Record, loops::On, transports::pattern},
    turns, turns_until,
};

on_each_selector! {
    a_line_comes_back
    a_line_comes_back_from_a_task_that_the_handler_started
    a_stream_can_be_written_to_after_its_end_was_read
    a_handler_that_fails_is_reported_and_its_connection_closed
    a_handler_that_panics_is_reported_and_its_connection_closed
    a_handler_that_fails_closes_what_it_passed_on
    a_handler_that_is_cancelled_closes_in_silence
    a_handler_that_cancels_itself_closes_in_silence
    a_handler_that_is_dropped_closes_what_it_passed_on
    a_handler_that_never_ran_closes_its_connection
    a_handler_that_returns_closes_by_dropping
    a_writer_that_was_kept_stays_open
    the_limit_is_that_of_the_connections
    as_many_connections_as_allowed
    handlers_see_the_context_of_the_server
    many_connections_at_once
    a_server_that_closes_leaves_its_connections
    a_server_does_not_serve_before_it_starts
    the_loop_may_be_closed_while_handlers_wait
    an_eager_handler_runs_at_once
}

async fn echo(mut reader: StreamReader, writer: StreamWriter) -> Result<()> {
    let line = reader.readline().await?;
    writer.write(line)?;
    writer.drain().await?;
    writer.close();
    writer.wait_closed().await
}

/// SWR-001
fn a_line_comes_back(on: On) {
    let event_loop = on.event_loop();
    let server = serve(&event_loop, echo);
    event_loop.run(async {
        let (mut reader, writer) = client(&server).await;
        writer.write("hello world!\n")?;
        assert_eq!(reader.readline().await?, b"hello world!\n");
        writer.close();
        writer.wait_closed().await?;
        server.close();
        server.wait_closed().await
    });
    assert_eq!(event_loop.reports.len(), 0);
}

/// SWR-001
fn a_line_comes_back_from_a_task_that_the_handler_started(on: On) {
    let event_loop = on.event_loop();
    let server = serve(&event_loop, async |reader, writer| {
        drop(create_task(echo(reader, writer)));
        Ok(())
    });
    event_loop.run(async {
        let (mut reader, writer) = client(&server).await;
        writer.write("hello world!\n")?;
        assert_eq!(reader.readline().await?, b"hello world!\n");
        assert_eq!(reader.readline().await?, b"");
        server.close();
        writer.close();
        server.wait_closed().await
    });
    assert_eq!(event_loop.reports.len(), 0);
}

/// SWR-002
fn a_stream_can_be_written_to_after_its_end_was_read(on: On) {
    let event_loop = on.event_loop();
    let seen = Record::default();
    let record = seen.clone();
    let server = serve(&event_loop, async move |mut reader, writer| {
        record.push(reader.read(None).await?);
        writer.write("reply")?;
        writer.close();
        Ok(())
    });
    event_loop.run(async {
        let (mut reader, writer) = client(&server).await;
        writer.write("req")?;
        writer.writelines(["1", "2"])?;
        writer.write_eof()?;
        assert_eq!(reader.read(None).await?, b"reply");
        Ok(())
    });
    assert_eq!(seen.take(), [b"req12".to_vec()]);
}

/// SWR-012
fn a_handler_that_fails_is_reported_and_its_connection_closed(on: On) {
    let event_loop = on.event_loop();
    let server = serve(&event_loop, async |_reader, writer: StreamWriter| {
        writer.write("last words")?;
        Err(Error::Value("the handler's".into()))
    });
    event_loop.run(async {
        let (mut reader, writer) = client(&server).await;
        writer.write("test msg")?;
        assert_eq!(reader.readexactly(10).await?, b"last words");
        Ok(())
    });
    event_loop.until(|| event_loop.reports.len() > 0);
    let [report] = &event_loop.reports.take()[..] else { panic!("one report") };
    assert_eq!(report.message, "Unhandled exception in client_connected_cb");
    assert_eq!(report.exception.as_ref().unwrap().to_string(), "the handler's");
    assert_eq!(report.exception.as_ref().unwrap().kind(), ErrorKind::Value);
    assert!(report.extra["transport"].starts_with("<Transport "), "{report:?}");
    assert_eq!(report.keys(), ["exception", "message", "transport"]);
}

/// SWR-012
fn a_handler_that_panics_is_reported_and_its_connection_closed(on: On) {
    let event_loop = on.event_loop();
    let server = serve(&event_loop, async |_reader, _writer| panic!("boom"));
    event_loop.run(async {
        let (mut reader, _writer) = client(&server).await;
        assert_eq!(reader.read(None).await?, b"");
        Ok(())
    });
    let [report] = &event_loop.reports.take()[..] else { panic!("one report") };
    assert_eq!(report.message, "Unhandled exception in client_connected_cb");
    assert_eq!(report.exception.as_ref().unwrap().kind(), ErrorKind::Panicked);
    assert!(report.exception.as_ref().unwrap().to_string().contains("boom"));
    assert!(report.extra["transport"].starts_with("<Transport "), "{report:?}");
}

/// SWR-012: a writer that was passed on does not keep the connection of a handler that fails.
fn a_handler_that_fails_closes_what_it_passed_on(on: On) {
    let event_loop = on.event_loop();
    for panics in [false, true] {
        let kept = Rc::new(RefCell::new(Vec::new()));
        let keep = kept.clone();
        let server = serve(&event_loop, async move |reader, writer| {
            keep.borrow_mut().push((reader, writer));
            turns(3).await;
            assert!(!panics, "boom");
            Err(Error::Value("fails".into()))
        });
        event_loop.run(async {
            let (mut reader, _writer) = client(&server).await;
            assert_eq!(reader.read(None).await?, b"");
            Ok(())
        });
        assert!(kept.borrow()[0].1.is_closing());
        assert_eq!(event_loop.reports.take().len(), 1);
        kept.borrow_mut().clear();
    }
}

/// SWR-013
fn a_handler_that_is_cancelled_closes_in_silence(on: On) {
    let event_loop = on.event_loop();
    let tasks = Record::default();
    let (record, kept) = (tasks.clone(), Rc::new(RefCell::new(Vec::new())));
    let keep = kept.clone();
    let server = serve(&event_loop, async move |mut reader: StreamReader, writer| {
        record.push(current_task()?.unwrap());
        keep.borrow_mut().push(writer);
        reader.readline().await?;
        Ok(())
    });
    event_loop.run(async {
        let (mut reader, _writer) = client(&server).await;
        turns_until(|| tasks.len() == 1).await;
        turns(3).await;
        tasks.items()[0].cancel();
        assert_eq!(reader.read(None).await?, b"");
        Ok(())
    });
    assert!(kept.borrow()[0].is_closing());
    kept.borrow_mut().clear();
    assert!(tasks.items()[0].cancelled());
    assert_eq!(event_loop.reports.len(), 0);
}

/// SWR-013
fn a_handler_that_cancels_itself_closes_in_silence(on: On) {
    let event_loop = on.event_loop();
    let server = serve(&event_loop, async |_reader, writer: StreamWriter| {
        writer.close();
        current_task()?.unwrap().cancel();
        Ok(())
    });
    event_loop.run(async {
        let (mut reader, writer) = client(&server).await;
        assert_eq!(reader.read(None).await?, b"");
        writer.close();
        writer.wait_closed().await
    });
    assert_eq!(event_loop.reports.len(), 0);
}

/// SWR-013: where it waits for what is not ours, it is dropped.
fn a_handler_that_is_dropped_closes_what_it_passed_on(on: On) {
    let event_loop = on.event_loop();
    let tasks = Record::default();
    let (record, kept) = (tasks.clone(), Rc::new(RefCell::new(Vec::new())));
    let keep = kept.clone();
    let server = serve(&event_loop, async move |_reader, writer| {
        record.push(current_task()?.unwrap());
        keep.borrow_mut().push(writer);
        Gate::default().await;
        Ok(())
    });
    event_loop.run(async {
        let (mut reader, _writer) = client(&server).await;
        turns_until(|| tasks.len() == 1).await;
        tasks.items()[0].cancel();
        assert_eq!(reader.read(None).await?, b"");
        Ok(())
    });
    assert!(kept.borrow()[0].is_closing());
    kept.borrow_mut().clear();
}

/// SWR-013: before its first step.
fn a_handler_that_never_ran_closes_its_connection(on: On) {
    let event_loop = on.event_loop();
    let ran = Record::default();
    let record = ran.clone();
    let server = serve(&event_loop, async move |_reader, _writer| {
        record.push("ran");
        Ok(())
    });
    let peer = plain_client(&server);
    event_loop.until(|| match &event_loop.all_tasks()[..] {
        [task] => task.cancel(),
        _ => false,
    });
    event_loop.until(|| peer.ended());
    assert_eq!(ran.len(), 0);
}

fn a_handler_that_returns_closes_by_dropping(on: On) {
    let event_loop = on.event_loop();
    let server = serve(&event_loop, async |_reader, writer: StreamWriter| writer.write(pattern(crate::LARGE)));
    event_loop.run(async {
        let (mut reader, _writer) = client(&server).await;
        assert!(reader.read(None).await? == pattern(crate::LARGE));
        Ok(())
    });
}

/// SWR-014
fn a_writer_that_was_kept_stays_open(on: On) {
    let event_loop = on.event_loop();
    let kept = Rc::new(RefCell::new(Vec::new()));
    let keep = kept.clone();
    let server = serve(&event_loop, async move |_reader, writer| {
        keep.borrow_mut().push(writer);
        Ok(())
    });
    event_loop.run(async {
        let (mut reader, _writer) = client(&server).await;
        let timed_out = asyncio::timeout(Duration::from_millis(300), reader.read(None)).await;
        assert_eq!(timed_out.unwrap_err().kind(), ErrorKind::Timeout);
        let writer = kept.borrow_mut().pop().unwrap();
        assert!(!writer.is_closing());
        writer.write("at last")?;
        drop(writer);
        assert_eq!(reader.read(None).await?, b"at last");
        Ok(())
    });
}

fn the_limit_is_that_of_the_connections(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let handler = async |mut reader: StreamReader, writer: StreamWriter| {
            let text = reader.readline().await.map_or_else(|error| error.to_string(), |line| format!("{line:?}"));
            assert!(writer.get_extra_info(PEERNAME).is_some() && writer.get_extra_info(SOCKNAME).is_some());
            writer.write(text)
        };
        let server = asyncio::start_server(handler, ("127.0.0.1", 0)).limit(3).await?;
        let (mut reader, writer) = client(&server).await;
        writer.write("abcd\n")?;
        let answer = reader.read(None).await?;
        assert!(String::from_utf8_lossy(&answer).contains("longer than limit"));
        Ok(())
    });
}

fn as_many_connections_as_allowed(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let server = asyncio::start_server(echo, ("127.0.0.1", 0)).max_connections(1).await?;
        let (mut first, writer) = client(&server).await;
        let (mut second, other) = client(&server).await;
        other.write("second\n")?;
        assert!(asyncio::timeout(Duration::from_millis(50), second.read(1)).await.is_err());
        writer.write("first\n")?;
        assert_eq!(first.read(None).await?, b"first\n");
        drop(writer);
        assert_eq!(second.readline().await?, b"second\n");
        Ok(())
    });
}

fn handlers_see_the_context_of_the_server(on: On) {
    let event_loop = on.event_loop();
    static WHO: ContextVar<&str> = ContextVar::with_default("who", || "nobody");
    let seen = Record::default();
    let record = seen.clone();
    event_loop.run(async {
        WHO.set("the server");
        let handler = async move |_reader, _writer| {
            record.push(WHO.get()?);
            WHO.set("a handler");
            Ok(())
        };
        let server = asyncio::start_server(handler, ("127.0.0.1", 0)).await?;
        WHO.set("a client");
        for _ in 0..2 {
            let (mut reader, _writer) = client(&server).await;
            assert_eq!(reader.read(None).await?, b"");
        }
        Ok(())
    });
    assert_eq!(seen.take(), ["the server", "the server"]);
}

fn many_connections_at_once(on: On) {
    let event_loop = on.event_loop();
    let server = serve(&event_loop, async |mut reader, writer| {
        while let Some(line) = reader.next_line().await? {
            writer.write(line)?;
            writer.drain().await?;
        }
        Ok(())
    });
    event_loop.run(async {
        let clients: Vec<_> = (0..200)
            .map(|number| {
                let address = server.sockets()[0].address().clone();
                create_task(async move {
                    let (mut reader, writer) = asyncio::open_connection(&address).await?;
                    for round in 0..10 {
                        let line = format!("client {number}, round {round}\n");
                        writer.write(&line)?;
                        assert_eq!(reader.readline().await?, line.as_bytes());
                    }
                    writer.write_eof()?;
                    reader.read(None).await
                })
            })
            .collect();
        for client in clients {
            assert_eq!(client.await?, b"");
        }
        server.close();
        server.wait_closed().await
    });
    assert_eq!(event_loop.all_tasks(), []);
}

fn a_server_that_closes_leaves_its_connections(on: On) {
    let event_loop = on.event_loop();
    let server = serve(&event_loop, echo);
    event_loop.run(async {
        let (mut reader, writer) = client(&server).await;
        turns_until(|| event_loop.all_tasks().len() == 2).await;
        server.close();
        turns(3).await;
        writer.write("still\n")?;
        assert_eq!(reader.readline().await?, b"still\n");
        server.wait_closed().await
    });
}

fn a_server_does_not_serve_before_it_starts(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let server = asyncio::start_server(echo, ("127.0.0.1", 0)).start_serving(false).await?;
        assert!(!server.is_serving());
        server.start_serving().await?;
        let (mut reader, writer) = client(&server).await;
        writer.write("line\n")?;
        assert_eq!(reader.readline().await?, b"line\n");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = asyncio::start_server(echo, ()).sock(listener).await?;
        let (mut reader, writer) = client(&server).await;
        writer.write("line\n")?;
        assert_eq!(reader.readline().await?, b"line\n");
        Ok(())
    });
    let outside = asyncio::start_server(echo, ("127.0.0.1", 0));
    assert_eq!(event_loop.fails(outside).kind(), ErrorKind::Runtime);
}

fn the_loop_may_be_closed_while_handlers_wait(on: On) {
    let event_loop = on.event_loop();
    let server = serve(&event_loop, async |mut reader: StreamReader, _writer| reader.read(None).await.map(drop));
    let peer = plain_client(&server);
    event_loop.until(|| event_loop.all_tasks().len() == 1);
    event_loop.ticks(3);
    event_loop.close().unwrap();
    peer.until_readable();
    assert!(peer.ended());
    let reports: Vec<String> = event_loop.reports.take().into_iter().map(|report| report.message).collect();
    assert!(reports.iter().all(|message| message.contains("was destroyed but it is pending")), "{reports:?}");
}

fn an_eager_handler_runs_at_once(on: On) {
    let event_loop = on.event_loop();
    event_loop.set_task_factory(Some(asyncio::eager_task_factory()));
    let server = serve(&event_loop, echo);
    event_loop.run(async {
        let (mut reader, writer) = client(&server).await;
        writer.write("eager\n")?;
        assert_eq!(reader.read(None).await?, b"eager\n");
        Ok(())
    });
}
