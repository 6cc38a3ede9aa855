//! What these tests show: hyper's HTTP/2, whose requests become tasks of the loop by the executor.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use asyncio::{Error, Result, create_task, hyper_rt};
use futures::{AsyncReadExt, AsyncWriteExt};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Bytes, body::Incoming, client::conn, server, service::service_fn};

use crate::{close, connect, pass_time, serve, support::loops::On};

on_each_selector! {
    requests_run_beside_each_other_on_one_connection
    a_service_that_panics_is_reported
    a_peer_that_does_not_answer_a_ping_is_given_up
}

type Sender = conn::http2::SendRequest<Full<Bytes>>;

async fn client(address: std::net::SocketAddr) -> Result<(Sender, asyncio::Task<()>)> {
    let stream = connect(address).await?;
    let (sender, connection) = conn::http2::handshake(hyper_rt::Executor, stream).await.map_err(Error::other)?;
    Ok((sender, create_task(async move { connection.await.map_err(Error::other) })))
}

async fn ask(mut sender: Sender, body: Vec<u8>) -> Result<Vec<u8>> {
    let request = Request::post("http://loopback/").body(Full::new(body.into())).unwrap();
    let response = sender.send_request(request).await.map_err(Error::other)?;
    Ok(response.into_body().collect().await.map_err(Error::other)?.to_bytes().into())
}

fn requests_run_beside_each_other_on_one_connection(on: On) {
    const REQUESTS: usize = 10;
    let event_loop = on.event_loop();
    let most = Rc::new(Cell::new(0));
    event_loop.run(async {
        let (running, peak) = (Rc::new(Cell::new(0)), most.clone());
        let all_here = Rc::new(asyncio::Barrier::new(REQUESTS)?);
        let (server, address) = serve(async move |stream| {
            let (running, peak, all_here) = (running.clone(), peak.clone(), all_here.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (running, peak, all_here) = (running.clone(), peak.clone(), all_here.clone());
                async move {
                    running.set(running.get() + 1);
                    peak.set(peak.get().max(running.get()));
                    all_here.wait().await?;
                    let body = request.into_body().collect().await.map_err(Error::other)?.to_bytes();
                    running.set(running.get() - 1);
                    Ok::<_, Error>(Response::new(Full::new(body)))
                }
            });
            let mut http = server::conn::http2::Builder::new(hyper_rt::Executor);
            http.timer(hyper_rt::Timer).serve_connection(stream, service).await.map_err(Error::other)
        })
        .await?;
        let (sender, connection) = client(address).await?;
        let requests: Vec<_> =
            (0..REQUESTS).map(|number| create_task(ask(sender.clone(), vec![number as u8; 100_000]))).collect();
        for (number, request) in requests.into_iter().enumerate() {
            assert!(request.await? == vec![number as u8; 100_000]);
        }
        drop(sender);
        connection.await?;
        close(server).await
    });
    assert_eq!(most.get(), REQUESTS);
}

fn a_service_that_panics_is_reported(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let (server, address) = serve(async |stream| {
            let service = service_fn(async |_| -> Result<Response<Full<Bytes>>> { panic!("a bug in the service") });
            let http = server::conn::http2::Builder::new(hyper_rt::Executor);
            http.serve_connection(stream, service).await.map_err(Error::other)
        })
        .await?;
        let (sender, connection) = client(address).await?;
        let answer = ask(sender, Vec::new()).await;
        assert!(answer.is_err(), "its stream is reset");
        connection.await?;
        close(server).await
    });
    let reports = event_loop.reports.take();
    let [report] = &reports[..] else { panic!("{reports:?}") };
    assert_eq!(report.exception.as_ref().map(ToString::to_string).as_deref(), Some("a bug in the service"));
    assert!(report.task.is_some());
}

/// In virtual time, moved on by hand; the ping and its answer's limit are set by `reset` of one timer.
fn a_peer_that_does_not_answer_a_ping_is_given_up(on: On) {
    let (event_loop, clock) = on.virtual_loop();
    let (errors, begin) = (Rc::new(RefCell::new(Vec::new())), event_loop.time());
    event_loop.run(async {
        let record = errors.clone();
        let (server, address) = serve(async move |stream| {
            let service = service_fn(async |_| Ok::<_, Error>(Response::new(Full::new(Bytes::new()))));
            let mut http = server::conn::http2::Builder::new(hyper_rt::Executor);
            http.timer(hyper_rt::Timer);
            http.keep_alive_interval(Duration::from_secs(1000)).keep_alive_timeout(Duration::from_secs(500));
            let error = http.serve_connection(stream, service).await.unwrap_err();
            record.borrow_mut().push(error);
            Ok(())
        })
        .await?;
        let mut stream = connect(address).await?;
        // The preface and empty SETTINGS; then it only listens.
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
        stream.flush().await?;
        pass_time(&clock, || !errors.borrow().is_empty()).await?;
        let mut said = Vec::new();
        stream.read_to_end(&mut said).await?;
        stream.close().await?;
        close(server).await
    });
    assert!(event_loop.time() - begin >= Duration::from_secs(1500));
    assert!(matches!(&errors.borrow()[..], [error] if error.is_timeout()), "{errors:?}");
}
