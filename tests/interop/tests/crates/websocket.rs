//! What these tests show: async-tungstenite over streams, on both sides.

use std::{cell::Cell, rc::Rc};

use async_tungstenite::{WebSocketStream, accept_async, client_async, tungstenite::Message};
use asyncio::{Error, Result, create_task};
use futures::StreamExt;

use crate::{close, connect, serve, support::loops::On};

on_each_selector! {
    messages_are_echoed
    many_websockets_share_one_thread
    both_halves_of_a_websocket_work_at_once
}

/// Echoes, and counts messages.
async fn serve_echo(count: Rc<Cell<usize>>) -> Result<(asyncio::Server, std::net::SocketAddr)> {
    serve(async move |stream| {
        let mut socket = accept_async(stream).await.map_err(Error::other)?;
        while let Some(message) = socket.next().await {
            let message = message.map_err(Error::other)?;
            if message.is_text() || message.is_binary() {
                count.set(count.get() + 1);
                socket.send(message).await.map_err(Error::other)?;
            }
        }
        Ok(())
    })
    .await
}

async fn open(address: std::net::SocketAddr) -> Result<WebSocketStream<asyncio::Stream>> {
    let (socket, _response) = client_async("ws://loopback/", connect(address).await?).await.map_err(Error::other)?;
    Ok(socket)
}

/// The closing handshake, to its end.
async fn end(mut socket: WebSocketStream<asyncio::Stream>) -> Result<()> {
    socket.close(None).await.map_err(Error::other)?;
    while let Some(message) = socket.next().await {
        assert!(message.map_err(Error::other)?.is_close());
    }
    Ok(())
}

fn messages_are_echoed(on: On) {
    let event_loop = on.event_loop();
    let count = Rc::new(Cell::new(0));
    event_loop.run(async {
        let (server, address) = serve_echo(count.clone()).await?;
        let mut socket = open(address).await?;
        for message in [Message::text("hello"), Message::text(""), Message::binary(vec![7; 1_000_000])] {
            socket.send(message.clone()).await.map_err(Error::other)?;
            assert!(socket.next().await.unwrap().map_err(Error::other)? == message);
        }
        socket.send(Message::Ping("are you there".into())).await.map_err(Error::other)?;
        let pong = socket.next().await.unwrap().map_err(Error::other)?;
        assert_eq!(pong, Message::Pong("are you there".into()));
        end(socket).await?;
        close(server).await
    });
    assert_eq!(count.get(), 3);
}

fn many_websockets_share_one_thread(on: On) {
    let event_loop = on.event_loop();
    let count = Rc::new(Cell::new(0));
    event_loop.run(async {
        let (server, address) = serve_echo(count.clone()).await?;
        let clients: Vec<_> = (0..20)
            .map(|number| {
                create_task(async move {
                    let mut socket = open(address).await?;
                    for turn in 0..10 {
                        let message = Message::text(format!("{number} {turn}"));
                        socket.send(message.clone()).await.map_err(Error::other)?;
                        assert_eq!(socket.next().await.unwrap().map_err(Error::other)?, message);
                    }
                    end(socket).await
                })
            })
            .collect();
        for client in clients {
            client.await?;
        }
        close(server).await
    });
    assert_eq!(count.get(), 200);
}

fn both_halves_of_a_websocket_work_at_once(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let (server, address) = serve_echo(Rc::default()).await?;
        let (mut sender, mut receiver) = open(address).await?.split();
        let sending = create_task(async move {
            for _ in 0..30 {
                sender.send(Message::binary(vec![1; 100_000])).await.map_err(Error::other)?;
            }
            sender.close(None).await.map_err(Error::other)
        });
        for _ in 0..30 {
            assert_eq!(receiver.next().await.unwrap().map_err(Error::other)?.len(), 100_000);
        }
        sending.await?;
        while let Some(message) = receiver.next().await {
            assert!(message.map_err(Error::other)?.is_close());
        }
        close(server).await
    });
}
