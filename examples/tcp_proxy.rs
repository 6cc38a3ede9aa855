//! A proxy: passes on bytes and ends in both directions, and lets a slow reader slow the other side down.
//!
//! Try it: `cargo run --example tcp_proxy`, which asks itself; or `-- 8888 example.org 80`, until Ctrl-C.

use std::{cell::Cell, env, rc::Rc};

use asyncio::{Endpoint, Error, Result, StreamReader, StreamWriter, ToAddress, open_connection, start_server};

const PIECE: usize = 64 << 10;

/// One direction, to its end.
async fn pass_on(mut reader: StreamReader, writer: &StreamWriter, passed: &Cell<usize>) -> Result<()> {
    loop {
        let data = reader.read(PIECE).await?;
        if data.is_empty() {
            return writer.write_eof(); // the other direction goes on
        }
        passed.set(passed.get() + data.len());
        writer.write(&data)?;
        writer.drain().await?; // waits while the other side does not read
    }
}

/// A connection, whose task this is: when it returns, the writers are dropped, which closes both sides.
async fn serve(target: Endpoint, passed: Rc<Cell<usize>>, front: (StreamReader, StreamWriter)) -> Result<()> {
    let work = async {
        let back = open_connection(target).await?;
        futures::try_join!(pass_on(front.0, &back.1, &passed), pass_on(back.0, &front.1, &passed))
    };
    if let Err(error) = work.await {
        println!("{error}"); // one side is not there or broke off
    }
    Ok(())
}

/// What is behind the proxy when it asks itself: answers in capitals, once the question has ended.
async fn shout(mut reader: StreamReader, writer: StreamWriter) -> Result<()> {
    let question = reader.read(None).await?;
    writer.write(question.to_ascii_uppercase())?;
    writer.drain().await
}

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    asyncio::run(async {
        let behind = start_server(shout, ("127.0.0.1", 0)).await?;
        let (port, target) = match &*arguments {
            [port, host, service] => (port.parse().map_err(Error::other)?, (&**host, &**service).to_address()),
            _ => (0, behind.sockets()[0].address().to_address()),
        };
        let passed = Rc::new(Cell::new(0));
        let count = passed.clone();
        let handler = async move |reader, writer| serve(target.clone(), count.clone(), (reader, writer)).await;
        let server = start_server(handler, ("127.0.0.1", port)).await?;
        println!("{server:?}");
        if port != 0 {
            return server.serve_forever().await;
        }
        let (mut reader, writer) = open_connection(server.sockets()[0].address()).await?;
        writer.write(b"hello through the proxy")?;
        writer.write_eof()?;
        println!("{}", String::from_utf8_lossy(&reader.read(None).await?));
        println!("{} bytes passed on", passed.get());
        Ok(())
    })
}
