//! What these tests show: hyper's server and client for HTTP/1 over streams, with the loop's timer.

use std::{cell::RefCell, convert::Infallible, net::SocketAddr, rc::Rc, time::Duration};

use asyncio::{Error, ErrorKind, Result, Stream, create_task, hyper_rt};
use futures::{AsyncReadExt, AsyncWriteExt};
use http_body_util::{BodyExt, Empty, Full};
use hyper::{
    Method, Request, Response, StatusCode, body::Bytes, body::Incoming, client::conn, header, server,
    service::service_fn,
};

use crate::{close, connect, pass_time, serve, support::loops::On};

on_each_selector! {
    a_server_and_a_client_keep_a_connection_alive
    large_bodies_go_both_ways
    many_clients_are_served_on_one_thread
    the_header_timeout_ends_a_slow_client
    a_request_in_time_is_served_under_a_header_timeout
    an_upgrade_hands_over_the_stream
    an_upgrade_keeps_what_came_early
    a_client_that_is_cancelled_ends_its_connection
    a_graceful_shutdown_finishes_the_request
    hyper_serves_a_unix_socket
}

fn request(method: Method, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(path).header(header::HOST, "loopback");
    request.body(Full::new(body.into())).unwrap()
}

/// Sends requests over `stream`; the connection's task goes on until the sender is dropped.
async fn client(stream: Stream) -> Result<(conn::http1::SendRequest<Full<Bytes>>, asyncio::Task<()>)> {
    let (sender, connection) = conn::http1::handshake(stream).await.map_err(Error::other)?;
    Ok((sender, create_task(async move { connection.await.map_err(Error::other) })))
}

async fn text(response: Response<Incoming>) -> Result<String> {
    let body = response.into_body().collect().await.map_err(Error::other)?.to_bytes();
    String::from_utf8(body.into()).map_err(Error::other)
}

/// Answers with the method, the path and the body, and notes the path.
async fn echo(seen: Rc<RefCell<Vec<String>>>, request: Request<Incoming>) -> hyper::Result<Response<Full<Bytes>>> {
    let (parts, body) = request.into_parts();
    seen.borrow_mut().push(parts.uri.path().to_owned());
    let mut answer = format!("{} {} ", parts.method, parts.uri.path()).into_bytes();
    answer.extend_from_slice(&body.collect().await?.to_bytes());
    Ok(Response::new(Full::new(answer.into())))
}

async fn serve_echo(seen: Rc<RefCell<Vec<String>>>) -> Result<(asyncio::Server, SocketAddr)> {
    serve(async move |stream| {
        let service = service_fn(|request| echo(seen.clone(), request));
        let mut http = server::conn::http1::Builder::new();
        http.timer(hyper_rt::Timer).header_read_timeout(Duration::from_secs(60));
        http.serve_connection(stream, service).await.map_err(Error::other)
    })
    .await
}

fn a_server_and_a_client_keep_a_connection_alive(on: On) {
    let event_loop = on.event_loop();
    let seen = Rc::new(RefCell::new(Vec::new()));
    event_loop.run(async {
        let (server, address) = serve_echo(seen.clone()).await?;
        let (mut sender, connection) = client(connect(address).await?).await?;
        for number in 0..5 {
            sender.ready().await.map_err(Error::other)?;
            let path = format!("/{number}");
            let response = sender.send_request(request(Method::POST, &path, "hello")).await.map_err(Error::other)?;
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(text(response).await?, format!("POST {path} hello"));
        }
        drop(sender);
        connection.await?;
        close(server).await
    });
    assert_eq!(*seen.borrow(), ["/0", "/1", "/2", "/3", "/4"]);
}

fn large_bodies_go_both_ways(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let (server, address) = serve_echo(Rc::default()).await?;
        let (mut sender, connection) = client(connect(address).await?).await?;
        let body: Vec<u8> = (0..3_000_000u32).map(|number| b'a' + (number % 26) as u8).collect();
        let response = sender.send_request(request(Method::PUT, "/", body.clone())).await.map_err(Error::other)?;
        let answer = text(response).await?;
        assert!(answer.strip_prefix("PUT / ").unwrap().as_bytes() == body);
        drop(sender);
        connection.await?;
        close(server).await
    });
}

fn many_clients_are_served_on_one_thread(on: On) {
    let event_loop = on.event_loop();
    let seen = Rc::new(RefCell::new(Vec::new()));
    event_loop.run(async {
        let (server, address) = serve_echo(seen.clone()).await?;
        let clients: Vec<_> = (0..50)
            .map(|number| {
                create_task(async move {
                    let (mut sender, connection) = client(connect(address).await?).await?;
                    for turn in 0..3 {
                        sender.ready().await.map_err(Error::other)?;
                        let path = format!("/{number}/{turn}");
                        let sent = sender.send_request(request(Method::GET, &path, "")).await.map_err(Error::other)?;
                        assert_eq!(text(sent).await?, format!("GET {path} "));
                    }
                    drop(sender);
                    connection.await
                })
            })
            .collect();
        for client in clients {
            client.await?;
        }
        close(server).await
    });
    assert_eq!(seen.borrow().len(), 150);
}

/// In virtual time, moved on by hand: nobody waits an hour.
fn the_header_timeout_ends_a_slow_client(on: On) {
    let (event_loop, clock) = on.virtual_loop();
    let (errors, begin) = (Rc::new(RefCell::new(Vec::new())), event_loop.time());
    event_loop.run(async {
        let record = errors.clone();
        let (server, address) = serve(async move |stream| {
            let service = service_fn(async |_| Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())));
            let mut http = server::conn::http1::Builder::new();
            http.timer(hyper_rt::Timer).header_read_timeout(Duration::from_secs(3600));
            let error = http.serve_connection(stream, service).await.unwrap_err();
            record.borrow_mut().push(error);
            Ok(())
        })
        .await?;
        let mut stream = connect(address).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: loop").await?;
        pass_time(&clock, || !errors.borrow().is_empty()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        assert_eq!(answer, "", "the server closes without an answer");
        stream.close().await?;
        close(server).await
    });
    assert!(event_loop.time() - begin >= Duration::from_secs(3600));
    assert!(matches!(&errors.borrow()[..], [error] if error.is_timeout()), "{errors:?}");
}

fn a_request_in_time_is_served_under_a_header_timeout(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let (server, address) = serve_echo(Rc::default()).await?;
        let mut stream = connect(address).await?;
        for piece in ["GET /slow HTTP/1.1\r\n", "host: loopback\r\n", "connection: close\r\n", "\r\n"] {
            stream.write_all(piece.as_bytes()).await?;
            stream.flush().await?;
            asyncio::sleep(Duration::from_millis(2)).await?;
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nGET /slow "), "{answer:?}");
        stream.close().await?;
        close(server).await
    });
    assert_eq!(event_loop.next_deadline(), None, "the timer of the header is gone");
}

/// Answers 101 and then speaks in capitals.
async fn shout(request: Request<Incoming>, tasks: Rc<RefCell<Vec<asyncio::Task<()>>>>) -> Response<Empty<Bytes>> {
    tasks.borrow_mut().push(create_task(async move {
        let upgraded = hyper::upgrade::on(request).await.map_err(Error::other)?;
        let parts = upgraded.downcast::<Stream>().expect("it is the stream that was served");
        let (mut stream, mut text) = (parts.io, parts.read_buf.to_vec());
        loop {
            stream.write_all(&text.to_ascii_uppercase()).await?;
            stream.flush().await?;
            text.resize(100, 0);
            let count = stream.read(&mut text).await?;
            if count == 0 {
                stream.close().await?;
                return Ok(());
            }
            text.truncate(count);
        }
    }));
    let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    response.header(header::CONNECTION, "upgrade").header(header::UPGRADE, "shout").body(Empty::new()).unwrap()
}

async fn serve_shouting(tasks: Rc<RefCell<Vec<asyncio::Task<()>>>>) -> Result<(asyncio::Server, SocketAddr)> {
    serve(async move |stream| {
        let service = service_fn(async |request| Ok::<_, Infallible>(shout(request, tasks.clone()).await));
        let http = server::conn::http1::Builder::new();
        http.serve_connection(stream, service).with_upgrades().await.map_err(Error::other)
    })
    .await
}

fn an_upgrade_hands_over_the_stream(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let tasks = Rc::new(RefCell::new(Vec::new()));
        let (server, address) = serve_shouting(tasks.clone()).await?;
        let (mut sender, connection) = conn::http1::handshake(connect(address).await?).await.map_err(Error::other)?;
        let connection = create_task(async move { connection.with_upgrades().await.map_err(Error::other) });
        let mut asked = request(Method::GET, "/", "");
        asked.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
        asked.headers_mut().insert(header::UPGRADE, header::HeaderValue::from_static("shout"));
        let response = sender.send_request(asked).await.map_err(Error::other)?;
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let upgraded = hyper::upgrade::on(response).await.map_err(Error::other)?;
        connection.await?;
        let parts = upgraded.downcast::<Stream>().expect("it is the stream that was given");
        assert!(parts.read_buf.is_empty());
        let mut stream = parts.io;
        for word in ["hello", "again"] {
            stream.write_all(word.as_bytes()).await?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).await?;
            assert_eq!(answer, word.to_uppercase().as_bytes());
        }
        stream.close().await?;
        let task = tasks.borrow_mut().pop().unwrap();
        task.await?;
        close(server).await
    });
}

fn an_upgrade_keeps_what_came_early(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let tasks = Rc::new(RefCell::new(Vec::new()));
        let (server, address) = serve_shouting(tasks.clone()).await?;
        let mut stream = connect(address).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: shout\r\n\r\nearly").await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nEARLY") {
            let mut byte = [0];
            stream.read_exact(&mut byte).await?;
            answer.extend(byte);
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
        stream.close().await?;
        let task = tasks.borrow_mut().pop().unwrap();
        task.await?;
        close(server).await
    });
}

fn a_client_that_is_cancelled_ends_its_connection(on: On) {
    let event_loop = on.event_loop();
    let (begun, dropped) = (Rc::new(RefCell::new(0)), Rc::new(RefCell::new(0)));
    event_loop.run(async {
        struct Guard(Rc<RefCell<i32>>);
        impl Drop for Guard {
            fn drop(&mut self) {
                *self.0.borrow_mut() += 1;
            }
        }
        let (starts, drops) = (begun.clone(), dropped.clone());
        let (server, address) = serve(async move |stream| {
            let service = service_fn(async |_| {
                let _guard = Guard(drops.clone());
                *starts.borrow_mut() += 1;
                std::future::pending::<()>().await;
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            });
            // That the client went away is no failure here.
            let _ = server::conn::http1::Builder::new().serve_connection(stream, service).await;
            Ok(())
        })
        .await?;
        let task = create_task(async move {
            let (mut sender, _connection) = client(connect(address).await?).await?;
            // The await is hyper's: `cancellable` makes it one that sees the cancellation.
            asyncio::cancellable(sender.send_request(request(Method::GET, "/", ""))).await?.map_err(Error::other)?;
            Ok(())
        });
        while *begun.borrow() == 0 {
            asyncio::sleep(Duration::from_millis(1)).await?;
        }
        task.cancel();
        assert_eq!(task.await.unwrap_err().kind(), ErrorKind::Cancelled);
        while *dropped.borrow() == 0 {
            asyncio::sleep(Duration::from_millis(1)).await?;
        }
        close(server).await
    });
}

fn a_graceful_shutdown_finishes_the_request(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let (stop, proceed) = (Rc::new(asyncio::Event::new()), Rc::new(asyncio::Event::new()));
        let (stopped, go_on, began) = (stop.clone(), proceed.clone(), Rc::new(asyncio::Event::new()));
        let begin = began.clone();
        let (server, address) = serve(async move |stream| {
            let service = service_fn(async |_| {
                begin.set();
                go_on.wait().await?;
                Ok::<_, Error>(Response::new(Full::new(Bytes::from("done"))))
            });
            let http = server::conn::http1::Builder::new();
            let mut connection = std::pin::pin!(http.serve_connection(stream, service));
            futures::select! {
                ended = futures::FutureExt::fuse(connection.as_mut()) => return ended.map_err(Error::other),
                stopped = futures::FutureExt::fuse(stopped.wait()) => stopped.map(drop)?,
            }
            connection.as_mut().graceful_shutdown();
            connection.await.map_err(Error::other)
        })
        .await?;
        let (mut sender, connection) = client(connect(address).await?).await?;
        let asked = create_task(async move {
            let response = sender.send_request(request(Method::GET, "/", "")).await.map_err(Error::other)?;
            assert_eq!(response.headers()[header::CONNECTION], "close");
            text(response).await
        });
        began.wait().await?;
        stop.set();
        asyncio::sleep(Duration::ZERO).await?;
        proceed.set();
        assert_eq!(asked.await?, "done");
        connection.await?;
        close(server).await
    });
}

fn hyper_serves_a_unix_socket(on: On) {
    let event_loop = on.event_loop();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("http");
    event_loop.run(async {
        let handler = async |reader, writer| {
            let service = service_fn(|request| echo(Rc::default(), request));
            let http = server::conn::http1::Builder::new();
            http.serve_connection(Stream::join(reader, writer)?, service).await.map_err(Error::other)
        };
        let server = asyncio::start_unix_server(handler, &path).await?;
        let (reader, writer) = asyncio::open_unix_connection(&path).await?;
        let (mut sender, connection) = client(Stream::join(reader, writer)?).await?;
        let response = sender.send_request(request(Method::GET, "/x", "y")).await.map_err(Error::other)?;
        assert_eq!(text(response).await?, "GET /x y");
        drop(sender);
        connection.await?;
        close(server).await
    });
}
