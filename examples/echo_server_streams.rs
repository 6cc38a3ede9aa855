//! An echo server by streams: one coroutine for each connection.
//!
//! Try it: `cargo run --example echo_server_streams -- 127.0.0.1:8888`, then `nc 127.0.0.1 8888`. Without an address it
//! talks to itself and ends.

use asyncio::{Result, StreamReader, StreamWriter};

async fn echo(mut reader: StreamReader, writer: StreamWriter) -> Result<()> {
    println!("connected: {:?}", writer.get_extra_info(asyncio::PEERNAME));
    loop {
        let data = reader.read(64 * 1024).await?;
        if data.is_empty() {
            break; // the other side has ended
        }
        writer.write(&data)?;
        writer.drain().await?;
    }
    writer.close();
    writer.wait_closed().await
}

async fn talk(address: &asyncio::Address) -> Result<()> {
    let (mut reader, writer) = asyncio::open_connection(address).await?;
    writer.write("Hello World!\n")?;
    println!("received: {:?}", String::from_utf8_lossy(&reader.readline().await?));
    writer.write_eof()?;
    assert!(reader.read(None).await?.is_empty());
    Ok(())
}

fn main() -> Result<()> {
    let address = std::env::args().nth(1);
    asyncio::run(async {
        let at: std::net::SocketAddr =
            address.as_deref().unwrap_or("127.0.0.1:0").parse().map_err(asyncio::Error::other)?;
        let server = asyncio::start_server(echo, at).await?;
        println!("serving on {}", server.sockets()[0].address());
        match address {
            Some(_) => server.serve_forever().await,
            None => talk(server.sockets()[0].address()).await,
        }
    })
}
