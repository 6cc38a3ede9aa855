//! Servers on smol: a task for each connection.

use std::{
    future::Future,
    io,
    net::{TcpListener, TcpStream, UdpSocket},
};

use smol::{
    Async,
    io::{AsyncReadExt as _, AsyncWriteExt as _},
};

use super::{super::on_smol, DATAGRAM, PIECE, Work};

type Socket = Async<TcpStream>;

pub(super) fn serve<F: Future<Output = io::Result<()>> + 'static>(
    listener: TcpListener,
    work: Work,
    serve: impl Fn(Socket, Work) -> F + 'static,
) {
    on_smol(move |executor| async move {
        let listener = Async::new_nonblocking(listener).expect("it is a socket");
        let (end, ended) = smol::channel::bounded(1);
        for _ in 0..work.left.get() {
            let (socket, _) = listener.accept().await.expect("it listens");
            socket.get_ref().set_nodelay(true).expect("it is a TCP socket");
            let (serving, work, end) = (serve(socket, work.clone()), work.clone(), end.clone());
            let task = executor.spawn(async move {
                serving.await.expect("the socket works");
                if work.one_has_ended() {
                    end.try_send(()).expect("it is the only one");
                }
            });
            task.detach();
        }
        ended.recv().await.expect("somebody is last");
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
    on_smol(move |_| async move {
        let socket = Async::new_nonblocking(socket).expect("it is a socket");
        let mut buffer = [0; 2 * DATAGRAM];
        loop {
            match socket.recv_from(&mut buffer).await.expect("the socket works") {
                (0, _) => return,
                (count, address) => socket.send_to(&buffer[..count], address).await.expect("there is room"),
            };
        }
    });
}
