//! A chat over websockets: async-tungstenite over streams; what one says, all others hear.
//!
//! Try it: `cargo run -p asyncio-interop --example websocket_chat`, where three talk for a moment; or
//! `-- 127.0.0.1:8080`, then `websocat ws://127.0.0.1:8080` in some other terminals, until Ctrl-C.

use std::{cell::RefCell, collections::BTreeMap, env, net::SocketAddr, rc::Rc};

use async_tungstenite::{WebSocketReceiver, accept_async, client_async, tungstenite::Message};
use asyncio::{Barrier, Error, Queue, Result, Stream, StreamReader, StreamWriter, TaskGroup, create_task};
use futures::StreamExt;

/// What is to be said to each guest, by number. The tasks of a loop share it without a lock.
type Room = Rc<RefCell<BTreeMap<usize, Queue<String>>>>;

/// A connection, whose task this is.
async fn serve(room: Room, reader: StreamReader, writer: StreamWriter) -> Result<()> {
    let socket = accept_async(Stream::join(reader, writer)?).await.map_err(Error::other)?;
    let ((mut sender, receiver), queue) = (socket.split(), Queue::new(100));
    let number = room.borrow().last_key_value().map_or(1, |(last, _)| last + 1);
    queue.put_nowait(format!("welcome, guest {number}"))?;
    room.borrow_mut().insert(number, queue.clone());
    let saying = create_task(async move {
        while let Ok(text) = queue.get().await {
            sender.send(Message::text(text)).await.map_err(Error::other)?;
        }
        Ok(())
    });
    let heard = hear(&room, number, receiver).await;
    room.borrow_mut().remove(&number);
    saying.cancel();
    let _ = saying.await; // it was cancelled, or its guest had gone
    heard
}

async fn hear(room: &Room, number: usize, mut receiver: WebSocketReceiver<Stream>) -> Result<()> {
    while let Some(message) = receiver.next().await {
        let Message::Text(text) = message.map_err(Error::other)? else { continue };
        for (_, queue) in room.borrow().iter().filter(|(other, _)| **other != number) {
            let _ = queue.put_nowait(format!("guest {number}: {text}")); // who is far behind misses some
        }
    }
    Ok(())
}

/// Somebody who says a word once all are there, and hears those of the others.
async fn guest(address: SocketAddr, word: &str, all_here: Barrier) -> Result<()> {
    let (reader, writer) = asyncio::open_connection(address).await?;
    let connecting = client_async("ws://localhost/", Stream::join(reader, writer)?);
    let (mut socket, _) = connecting.await.map_err(Error::other)?;
    for turn in 0..3 {
        if let Some(message) = socket.next().await {
            println!("{}", message.map_err(Error::other)?);
        }
        if turn == 0 {
            all_here.wait().await?;
            socket.send(Message::text(word)).await.map_err(Error::other)?;
        }
    }
    socket.close(None).await.map_err(Error::other)
}

fn main() -> Result<()> {
    let given = env::args().nth(1);
    asyncio::run(async {
        let room = Room::default();
        let handler = async move |reader, writer| serve(room.clone(), reader, writer).await;
        let address: SocketAddr = given.as_deref().unwrap_or("127.0.0.1:0").parse().map_err(Error::other)?;
        let server = asyncio::start_server(handler, address).await?;
        println!("{server:?}");
        if given.is_some() {
            return server.serve_forever().await;
        }
        let address = server.sockets()[0].address().as_inet().expect("it is of IP");
        let all_here = Barrier::new(3)?;
        TaskGroup::scope(async |group| {
            for word in ["hi", "oh", "ah"] {
                group.create_task(guest(address, word, all_here.clone()));
            }
            Ok(())
        })
        .await
    })
}
