//! What these tests show: crates of the ecosystem work on the loop's one thread, with `Rc` state in the tasks.
#[path = "../../../support/mod.rs"]
#[macro_use]
mod support;

mod axum;
mod channels_and_locks;
mod copy;
mod executor;
mod futures_rustls;
mod http1;
mod http2;
mod reqwest;
mod tokio_traits;
mod tower;
mod websocket;

use std::{net::SocketAddr, time::Duration};

use asyncio::{Result, Server, Stream, VirtualClock};

/// A server of one connection handler, on a free port.
async fn serve(handler: impl AsyncFn(Stream) -> Result<()> + 'static) -> Result<(Server, SocketAddr)> {
    let handler = async move |reader, writer| handler(Stream::join(reader, writer)?).await;
    let server = asyncio::start_server(handler, ("127.0.0.1", 0)).await?;
    let address = server.sockets()[0].address().as_inet().expect("it is IPv4");
    Ok((server, address))
}

async fn connect(address: SocketAddr) -> Result<Stream> {
    let (reader, writer) = asyncio::open_connection(address).await?;
    Stream::join(reader, writer)
}

/// Until the last connection is gone.
async fn close(server: Server) -> Result<()> {
    server.close();
    asyncio::timeout(Duration::from_secs(30), server.wait_closed()).await
}

/// Moves the clock on, in steps of a minute between which the loop runs.
async fn pass_time(clock: &VirtualClock, done: impl Fn() -> bool) -> Result<()> {
    while !done() {
        clock.advance(Duration::from_secs(60));
        asyncio::sleep(Duration::ZERO).await?;
    }
    Ok(())
}
