//! What these tests show: an axum application without its tokio feature, served by the loop.

use std::{rc::Rc, sync::Arc, sync::atomic::AtomicUsize, sync::atomic::Ordering, time::Duration};

use asyncio::{Error, Result, Server, hyper_rt};
use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::{get, post},
};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Bytes, body::Incoming, client::conn, server};
use hyper_util::service::TowerToHyperService;

use crate::{close, connect, serve, support::loops::On};

on_each_selector! {
    routes_extractors_and_answers_work
    handlers_await_what_this_crate_has
}

/// A connection's task owns a clone of the router, and an `Rc` of its own.
async fn serve_router(router: Router) -> Result<(Server, std::net::SocketAddr, Rc<()>)> {
    let connections = Rc::new(());
    let theirs = connections.clone();
    let (server, address) = serve(async move |stream| {
        let _connection = theirs.clone();
        let mut http = server::conn::http1::Builder::new();
        let service = TowerToHyperService::new(router.clone());
        http.timer(hyper_rt::Timer).serve_connection(stream, service).await.map_err(Error::other)
    })
    .await?;
    Ok((server, address, connections))
}

async fn send(address: std::net::SocketAddr, request: Request<Full<Bytes>>) -> Result<(StatusCode, String)> {
    let (mut sender, connection) = conn::http1::handshake(connect(address).await?).await.map_err(Error::other)?;
    let connection = asyncio::create_task(async move { connection.await.map_err(Error::other) });
    let response: Response<Incoming> = sender.send_request(request).await.map_err(Error::other)?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(Error::other)?.to_bytes();
    drop(sender);
    connection.await?;
    Ok((status, String::from_utf8(body.into()).map_err(Error::other)?))
}

fn ask(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "loopback").body(Full::default()).unwrap()
}

fn routes_extractors_and_answers_work(on: On) {
    let event_loop = on.event_loop();
    let count = Arc::new(AtomicUsize::new(0));
    let router = Router::new()
        .route("/hello/{name}", get(async |Path(name): Path<String>| format!("hello {name}")))
        .route("/sum", post(async |Json(numbers): Json<Vec<i64>>| Json(numbers.iter().sum::<i64>())))
        .route("/query", get(async |Query(pairs): Query<Vec<(String, u8)>>| format!("{pairs:?}")))
        .route(
            "/count",
            get(async |State(count): State<Arc<AtomicUsize>>| count.fetch_add(1, Ordering::Relaxed).to_string()),
        )
        .with_state(count.clone());
    event_loop.run(async {
        let (server, address, _) = serve_router(router).await?;
        assert_eq!(send(address, ask("/hello/you")).await?, (StatusCode::OK, "hello you".into()));
        assert_eq!(send(address, ask("/nowhere")).await?.0, StatusCode::NOT_FOUND);
        assert_eq!(send(address, ask("/query?a=1&b=2")).await?.1, "[(\"a\", 1), (\"b\", 2)]");
        let numbers = Request::post("/sum").header("host", "loopback").header("content-type", "application/json");
        let numbers = numbers.body(Full::new(Bytes::from("[1,2,39]"))).unwrap();
        assert_eq!(send(address, numbers).await?, (StatusCode::OK, "42".into()));
        assert_eq!(send(address, ask("/count")).await?.1, "0");
        assert_eq!(send(address, ask("/count")).await?.1, "1");
        close(server).await
    });
    assert_eq!(count.load(Ordering::Relaxed), 2);
}

fn handlers_await_what_this_crate_has(on: On) {
    let event_loop = on.event_loop();
    let queue = Arc::new(asyncio::Queue::<String>::new(0));
    let router = Router::new()
        .route("/take", {
            let queue = queue.clone();
            get(async move || {
                let taken = asyncio::timeout(Duration::from_secs(30), queue.get()).await;
                taken.map_err(|error| (StatusCode::GATEWAY_TIMEOUT, error.to_string()))
            })
        })
        .route("/sleep", get(async || asyncio::sleep(Duration::from_millis(1)).await.map_or("late", |()| "awake")));
    event_loop.run(async {
        let (server, address, connections) = serve_router(router).await?;
        assert_eq!(send(address, ask("/sleep")).await?.1, "awake");
        let taking = asyncio::create_task(send(address, ask("/take")));
        while Rc::strong_count(&connections) < 3 {
            asyncio::sleep(Duration::from_millis(1)).await?;
        }
        queue.put("a word".to_owned()).await?;
        assert_eq!(taking.await?, (StatusCode::OK, "a word".into()));
        close(server).await
    });
}
