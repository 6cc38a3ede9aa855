//! A server and 100 clients by streams, a group of tasks, a thread, a cancellation and a time limit.
//!
//! Try it: `cargo run --release --example quickstart`; or `-- serve 127.0.0.1:8888` and then `nc 127.0.0.1 8888` in
//! another terminal, until Ctrl-C.

use std::{cell::Cell, rc::Rc, time::Duration};

use asyncio::{Address, Error, Result, StreamReader, StreamWriter, TaskGroup, create_task, sleep, timeout, to_thread};

const CLIENTS: usize = 100;

/// The server's side of one connection: a coroutine in a task of its own.
async fn echo(mut reader: StreamReader, writer: StreamWriter, served: &Cell<usize>) -> Result<()> {
    while let Some(line) = reader.next_line().await? {
        writer.write(&line)?;
        writer.drain().await?; // waits while the other side does not read
        served.set(served.get() + 1); // all on one thread: no lock, no atomics
    }
    Ok(()) // dropping the writer closes the connection
}

/// The client's side: says some lines, and wants each back.
async fn client(number: usize, server: &Address) -> Result<usize> {
    let (mut reader, writer) = asyncio::open_connection(server).await?;
    for line in 0..10 {
        let said = format!("line {line} of client {number}\n");
        writer.write(&said)?;
        let heard = timeout(Duration::from_secs(30), reader.readline()).await?;
        if heard != said.as_bytes() {
            return Err(Error::other(format!("client {number} got other bytes back")));
        }
    }
    Ok(10)
}

async fn serve_clients() -> Result<String> {
    let served = Rc::new(Cell::new(0));
    let counter = served.clone();
    let connected = async move |reader, writer| echo(reader, writer, &counter).await;
    let server = asyncio::start_server(connected, ("127.0.0.1", 0)).backlog(CLIENTS as u32).await?;
    let address = server.sockets()[0].address().clone();
    // If one of them fails, the others are cancelled, and the error comes out here.
    TaskGroup::scope(async |group| {
        for number in 0..CLIENTS {
            let address = address.clone();
            group.create_task(async move { client(number, &address).await });
        }
        Ok(())
    })
    .await?;
    server.close();
    server.wait_closed().await?; // the last connection has ended
    Ok(format!("{CLIENTS} clients had {} lines echoed", served.get()))
}

/// A coroutine sees its cancellation where it waits, and may clean up.
async fn cancel_a_task() -> Result<&'static str> {
    let task = create_task(async {
        match sleep(Duration::from_secs(3600)).await {
            Err(Error::Cancelled(_)) => Ok("an hour's sleep was cut short, and its task has cleaned up"),
            other => other.map(|()| "slept for an hour"),
        }
    });
    sleep(Duration::ZERO).await?; // lets the task begin
    task.cancel();
    task.await
}

async fn show_all() -> Result<()> {
    println!("echo server   {}", serve_clients().await?);
    println!("thread        20! = {}", to_thread(|| Ok((1..=20_u64).product::<u64>())).await?);
    println!("cancellation  {}", cancel_a_task().await?);
    let late = timeout(Duration::from_millis(5), sleep(Duration::from_secs(3600))).await;
    println!("time limit    {}", late.expect_err("an hour is longer than 5 ms"));
    println!("all is well");
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let address: std::net::SocketAddr = match arguments.as_slice() {
        [] => return asyncio::run(show_all()),
        [command, address] if command == "serve" => address.parse().map_err(Error::other)?,
        _ => return Err(Error::Value("nothing, or: serve 127.0.0.1:8888".into())),
    };
    let served = asyncio::run(async {
        let connected = async |reader, writer| echo(reader, writer, &Cell::new(0)).await;
        let server = asyncio::start_server(connected, address).await?;
        println!("echoing on {address}; Ctrl-C ends it");
        server.serve_forever().await
    });
    match served {
        Err(Error::KeyboardInterrupt) => println!("\ninterrupted"),
        other => other?,
    }
    Ok(())
}
