//! What these tests show: crates that need tokio's runtime, under `tokio_compat`.

use std::{cell::Cell, convert::Infallible, fs, rc::Rc, thread, time::Duration};

use asyncio::{
    Error, ErrorKind, Result, hyper_rt,
    tokio_compat::{Compat, CompatExt},
};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server, service::service_fn};

use crate::{close, serve, support::loops::On};

on_each_selector! {
    reqwest_talks_to_hyper_on_the_loop
    reqwest_gives_up_by_its_own_timeout
    a_cancelled_request_is_dropped
    tokios_timers_and_sockets_work_beside_ours
    the_thread_of_tokio_starts_at_first_use
}

async fn serve_echo(count: Rc<Cell<usize>>) -> Result<(asyncio::Server, std::net::SocketAddr)> {
    serve(async move |stream| {
        let service = service_fn(async |request: Request<Incoming>| {
            count.set(count.get() + 1);
            if request.uri().path() == "/never" {
                std::future::pending::<()>().await;
            }
            let body = request.into_body().collect().await?.to_bytes();
            Ok::<_, hyper::Error>(Response::new(Full::new(body)))
        });
        let mut http = server::conn::http1::Builder::new();
        // A client that goes away in mid request is no failure here.
        let _ = http.timer(hyper_rt::Timer).serve_connection(stream, service).await;
        Ok(())
    })
    .await
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

fn reqwest_talks_to_hyper_on_the_loop(on: On) {
    let event_loop = on.event_loop();
    let count = Rc::new(Cell::new(0));
    event_loop.run(async {
        let (server, address) = serve_echo(count.clone()).await?;
        let (seen, here) = (count.clone(), thread::current().id());
        let task = asyncio::create_task(
            async move {
                let client = client();
                for number in 0..5 {
                    let body = format!("{number}").repeat(100_000);
                    let sent = client.post(format!("http://{address}/")).body(body.clone()).send().await;
                    let response = sent.and_then(reqwest::Response::error_for_status).map_err(Error::other)?;
                    assert!(response.text().await.map_err(Error::other)? == body);
                    assert_eq!((seen.get(), thread::current().id()), (number + 1, here));
                }
                Ok(())
            }
            .compat(),
        );
        task.await?;
        close(server).await
    });
    assert_eq!(count.get(), 5);
}

fn reqwest_gives_up_by_its_own_timeout(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let (server, address) = serve_echo(Rc::default()).await?;
        let asked = async {
            let request = client().get(format!("http://{address}/never")).timeout(Duration::from_millis(30));
            request.send().await
        };
        assert!(asked.compat().await.unwrap_err().is_timeout());
        close(server).await
    });
}

fn a_cancelled_request_is_dropped(on: On) {
    let event_loop = on.event_loop();
    let count = Rc::new(Cell::new(0));
    event_loop.run(async {
        let (server, address) = serve_echo(count.clone()).await?;
        let limit = Duration::from_millis(50);
        let asked = async move { client().get(format!("http://{address}/never")).send().await.map_err(Error::other) };
        let task = asyncio::create_task(async move { asyncio::timeout(limit, asked.compat()).await.map(drop) });
        assert_eq!(task.await.unwrap_err().kind(), ErrorKind::Timeout);
        close(server).await
    });
}

fn tokios_timers_and_sockets_work_beside_ours(on: On) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let event_loop = on.event_loop();
    let main = async {
        let (server, address) = serve(async |mut stream| {
            let mut buffer = [0; 5];
            stream.read_exact(&mut buffer).await?;
            stream.write_all(&buffer).await?;
            stream.shutdown().await?;
            Ok(())
        })
        .await?;
        let mut theirs = tokio::net::TcpStream::connect(address).await?;
        tokio::time::sleep(Duration::from_millis(1)).await;
        theirs.write_all(b"hello").await?;
        asyncio::sleep(Duration::from_millis(1)).await?;
        let mut answer = String::new();
        theirs.read_to_string(&mut answer).await?;
        assert_eq!(answer, "hello");
        // What is tokio's has futures' traits by the same adapter.
        let mut theirs = Compat::new(theirs);
        assert_eq!(futures::AsyncReadExt::read(&mut theirs, &mut [0]).await?, 0);
        assert_eq!(tokio::spawn(async { 5 }).await.map_err(Error::other)?, 5);
        drop(theirs);
        close(server).await
    };
    event_loop.run(main.compat());
}

fn the_thread_of_tokio_starts_at_first_use(on: On) {
    fn threads_of_tokio() -> usize {
        let names = fs::read_dir("/proc/self/task").unwrap().map(|thread| {
            fs::read_to_string(thread.unwrap().path().join("comm")).unwrap_or_default() // it may just have ended
        });
        names.filter(|name| name.starts_with("async-compat")).count()
    }
    if !on.in_child() {
        return;
    }
    let event_loop = on.event_loop();
    event_loop.run(async {
        let service = service_fn(async |_: Request<Incoming>| Ok::<_, Infallible>(Response::new(String::new())));
        let (server, address) = serve(async move |stream| {
            server::conn::http1::Builder::new().serve_connection(stream, service).await.map_err(Error::other)
        })
        .await?;
        let mut stream = crate::connect(address).await?;
        // tokio's traits alone start nothing.
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET / HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await?;
        assert!(answer.contains("200 OK"), "{answer}");
        drop(stream);
        close(server).await?;
        assert_eq!(threads_of_tokio(), 0);
        async { tokio::time::sleep(Duration::from_millis(1)).await }.compat().await;
        assert_eq!(threads_of_tokio(), 1);
        Ok(())
    });
}
