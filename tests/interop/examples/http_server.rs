//! An HTTP server: hyper over streams, with the loop's timer, one task a connection, and state in an `Rc`.
//!
//! Try it: `cargo run -p asyncio-interop --example http_server`, which asks itself; or `-- 127.0.0.1:8080`, then
//! `curl -d hello http://127.0.0.1:8080/shout` in another terminal, until Ctrl-C. SIGTERM lets it answer what it was asked.

use std::{cell::Cell, env, net::SocketAddr, pin::pin, rc::Rc, time::Duration};

use asyncio::{Error, Event, Result, Signal, Stream, StreamReader, StreamWriter, create_task, hyper_rt};
use futures::future::{Either, select};
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client, server,
    service::service_fn,
};

type Body = Full<Bytes>;

async fn answer(count: Rc<Cell<u64>>, request: Request<Incoming>) -> Result<Response<Body>> {
    count.set(count.get() + 1);
    let text = match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => format!("You are number {}.\n", count.get()),
        (&Method::GET, "/nap") => {
            asyncio::sleep(Duration::from_millis(10)).await?; // others are served meanwhile
            "Good morning.\n".into()
        }
        (&Method::POST, "/shout") => {
            let body = request.into_body().collect().await.map_err(Error::other)?.to_bytes();
            String::from_utf8_lossy(&body).to_uppercase()
        }
        _ => {
            let missing = Response::builder().status(StatusCode::NOT_FOUND).body(Body::from("Nothing here.\n"));
            return missing.map_err(Error::other);
        }
    };
    Ok(Response::new(text.into()))
}

/// A connection, from its first request to its last.
async fn serve(count: Rc<Cell<u64>>, ending: &Event, reader: StreamReader, writer: StreamWriter) -> Result<()> {
    let mut http = server::conn::http1::Builder::new();
    http.timer(hyper_rt::Timer).header_read_timeout(Duration::from_secs(10)); // for who sends half a request
    let service = service_fn(|request| answer(count.clone(), request));
    let mut connection = pin!(http.serve_connection(Stream::join(reader, writer)?, service));
    let ended = match select(connection.as_mut(), pin!(ending.wait())).await {
        Either::Left((ended, _)) => ended,
        Either::Right(_) => {
            connection.as_mut().graceful_shutdown(); // answers what it is at, and nothing more
            connection.await
        }
    };
    if let Err(error) = ended {
        println!("{error}"); // the client's fault, mostly
    }
    Ok(())
}

async fn ask(address: SocketAddr, method: Method, path: &str, body: &'static str) -> Result<()> {
    let (reader, writer) = asyncio::open_connection(address).await?;
    let connecting = client::conn::http1::handshake(Stream::join(reader, writer)?);
    let (mut sender, connection) = connecting.await.map_err(Error::other)?;
    let connection = create_task(async move { connection.await.map_err(Error::other) });
    let request = Request::builder().method(&method).uri(path).header("host", "localhost").body(Body::from(body));
    let response = sender.send_request(request.map_err(Error::other)?).await.map_err(Error::other)?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(Error::other)?.to_bytes();
    print!("{method} {path}: {status}: {}", String::from_utf8_lossy(&body));
    drop(sender); // hyper's client ends its connection then
    connection.await
}

fn main() -> Result<()> {
    let given = env::args().nth(1);
    asyncio::run(async {
        let (count, ending) = (Rc::new(Cell::new(0)), Event::new());
        let (told, end) = (ending.clone(), ending.clone());
        let handler = async move |reader, writer| serve(count.clone(), &told, reader, writer).await;
        let address: SocketAddr = given.as_deref().unwrap_or("127.0.0.1:0").parse().map_err(Error::other)?;
        let server = asyncio::start_server(handler, address).await?;
        println!("{server:?}");
        if given.is_some() {
            asyncio::get_running_loop()?.add_signal_handler(Signal::Term, move || end.set())?;
            ending.wait().await?;
            return server.shutdown(Duration::from_secs(10)).await;
        }
        let address = server.sockets()[0].address().as_inet().expect("it is of IP");
        let nap = create_task(ask(address, Method::GET, "/nap", ""));
        ask(address, Method::GET, "/", "").await?;
        ask(address, Method::POST, "/shout", "hello\n").await?;
        ask(address, Method::GET, "/nowhere", "").await?;
        nap.await
    })
}
