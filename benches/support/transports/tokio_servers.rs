//! Servers on tokio: a task for each connection.

use std::{
    future::Future,
    io,
    net::{TcpListener, UdpSocket},
    rc::Rc,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Notify,
};

use super::{super::on_tokio, DATAGRAM, PIECE, Work};

pub(super) fn serve<F: Future<Output = io::Result<()>> + 'static>(
    listener: TcpListener,
    work: Work,
    serve: impl Fn(TcpStream, Work) -> F + 'static,
) {
    on_tokio(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("it is a socket");
        let over = Rc::new(Notify::new());
        for _ in 0..work.left.get() {
            let (socket, _) = listener.accept().await.expect("it listens");
            socket.set_nodelay(true).expect("it is a TCP socket");
            let (serving, work, over) = (serve(socket, work.clone()), work.clone(), over.clone());
            tokio::task::spawn_local(async move {
                serving.await.expect("the socket works");
                if work.one_has_ended() {
                    over.notify_one();
                }
            });
        }
        over.notified().await;
    });
}

pub(super) fn echo(listener: TcpListener, work: Work) {
    serve(listener, work, |mut socket, work| async move {
        let mut buffer = work.buffer();
        loop {
            match socket.read(&mut buffer).await? {
                0 => return Ok(()),
                count => socket.write_all(&buffer[..count]).await?,
            }
        }
    });
}

pub(super) fn receive(listener: TcpListener, work: Work) {
    serve(listener, work, |mut socket, work| async move {
        let mut buffer = work.buffer();
        while socket.read(&mut buffer).await? > 0 {}
        Ok(())
    });
}

pub(super) fn send(listener: TcpListener, work: Work) {
    serve(listener, work, |mut socket, work| async move {
        socket.read_exact(&mut [0]).await?;
        let piece = [b'x'; PIECE];
        for _ in 0..work.bytes / PIECE as u64 {
            socket.write_all(&piece).await?;
        }
        Ok(())
    });
}

pub(super) fn datagrams(socket: UdpSocket) {
    on_tokio(async move {
        let socket = tokio::net::UdpSocket::from_std(socket).expect("it is a socket");
        let mut buffer = [0; 2 * DATAGRAM];
        loop {
            match socket.recv_from(&mut buffer).await.expect("the socket works") {
                (0, _) => return,
                (count, address) => socket.send_to(&buffer[..count], address).await.expect("there is room"),
            };
        }
    });
}
