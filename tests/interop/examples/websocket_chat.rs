//! A chat over websockets: async-tungstenite over streams; what one says, all others hear.
//!
//! Try it: `cargo run -p asyncio-interop --example websocket_chat`, where three talk for a moment; or
//! `-- 127.0.0.1:8080`, then `websocat ws://127.0.0.1:8080` in some other terminals, until Ctrl-C.

use std::{cell::RefCell, collections::BTreeMap, env, net::SocketAddr, rc::Rc};

use asyncio::{Error, Queue, Result, Stream, StreamReader, StreamWriter, TaskGroup, create_task};
use async_tungstenite::{WebSocketReceiver, accept_async, client_async, tungstenite::Message};
use futures::StreamExt;

/// What is to be said to each guest. The tasks of a loop share it without a lock.
#[derive(Clone, Default)]
struct Room {
    guests: Rc<RefCell<BTreeMap<usize, Queue<String>>>>,
}

impl Room {
    fn enter(&self) -> (usize, Queue<String>) {
        let mut guests = self.guests.borrow_mut();
        let (number, queue) = (guests.last_key_value().map_or(1, |(last, _)| last + 1), Queue::new(100));
        guests.insert(number, queue.clone());
        (number, queue)
    }

    /// Whoever is 100 messages behind misses some.
    fn say(&self, from: usize, text: &str) {
        let guests = self.guests.borrow();
        for (_, queue) in guests.iter().filter(|(number, _)| **number != from) {
            let _ = queue.put_nowait(format!("guest {from}: {text}"));
        }
    }
}

async fn serve(room: Room, reader: StreamReader, writer: StreamWriter) -> Result<()> {
    let socket = accept_async(Stream::join(reader, writer)?).await.map_err(Error::other)?;
    let ((number, queue), (mut sender, receiver)) = (room.enter(), socket.split());
    queue.put_nowait(format!("welcome, guest {number}"))?;
    let writing = create_task(async move {
        loop {
            sender.send(Message::text(queue.get().await?)).await.map_err(Error::other)?;
        }
    });
    let heard = hear(&room, number, receiver).await;
    room.guests.borrow_mut().remove(&number);
    writing.cancel();
    let _: Result<()> = writing.await; // it was cancelled, or its guest had gone
    heard
}

async fn hear(room: &Room, number: usize, mut receiver: WebSocketReceiver<Stream>) -> Result<()> {
    while let Some(message) = receiver.next().await {
        if let Message::Text(text) = message.map_err(Error::other)? {
            room.say(number, &text);
        }
    }
    Ok(())
}

/// Waits for its welcome, then for its turn; says a word and hears those of the others.
async fn guest(address: SocketAddr, word: &'static str, all_here: asyncio::Barrier) -> Result<()> {
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
        let all_here = asyncio::Barrier::new(3)?;
        TaskGroup::scope(async |group| {
            for word in ["hi", "oh", "ah"] {
                group.create_task(guest(address, word, all_here.clone()));
            }
            Ok(())
        })
        .await
    })
}
