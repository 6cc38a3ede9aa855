//! The same by streams: a task for each connection, as on tokio and smol.

use std::{net::TcpListener, rc::Rc, time::Duration};

use asyncio::{Future, StreamReader, StreamWriter};
use futures::{AsyncReadExt, AsyncWriteExt as _};

use super::{
    super::{Group, Peer, on_asyncio},
    BACKLOG, KIB, Server, Work, clients, listen, raw_servers, run, run_echo, smol_servers, tokio_servers,
};

pub(super) const GROUPS: &[Group] = &[
    echo::<1, 1>("echo_streams_1x1B", "a request and its echo by AsyncRead and AsyncWrite; 1 connection, 1 B", 20_000),
    echo::<1, KIB>("echo_streams_1x1KiB", "the same; 1 connection, 1 KiB", 20_000),
    echo::<1, { 100 * KIB }>("echo_streams_1x100KiB", "the same; 1 connection, 100 KiB", 5_000),
    echo::<10, KIB>("echo_streams_10x1KiB", "the same; 10 connections, 1 KiB", 50_000),
    echo::<10, { 100 * KIB }>("echo_streams_10x100KiB", "the same; 10 connections, 100 KiB", 5_000),
    echo::<100, KIB>("echo_streams_100x1KiB", "the same; 100 connections, 1 KiB", 50_000),
    echo::<100, { 100 * KIB }>("echo_streams_100x100KiB", "the same; 100 connections, 100 KiB", 5_000),
    LINES,
];

/// The lines of a piece: 1024 of 64 bytes.
const LINE: usize = 64;

const LINES: Group = Group {
    name: "readline",
    about: "64 KiB of lines of 64 bytes, read line by line, that come in as fast as they can",
    count: 1_600,
    reach: Some((1.0, "tokio")),
    peers: &[
        Peer { name: "asyncio", run: |count| run_lines(count, lines) },
        Peer { name: "asyncio_futures", run: |count| run_lines(count, lines_of_futures) },
        Peer { name: "tokio", run: |count| run_lines(count, tokio_lines) },
        Peer { name: "smol", run: |count| run_lines(count, smol_lines) },
    ],
};

const fn echo<const CONNECTIONS: usize, const SIZE: usize>(
    name: &'static str,
    about: &'static str,
    count: u64,
) -> Group {
    let peers = const {
        use super::RAW;
        use std::net::TcpStream;
        &[
            Peer { name: "asyncio", run: |count| run_echo::<TcpStream>(count, CONNECTIONS, SIZE, echo_futures) },
            Peer {
                name: "asyncio_methods",
                run: |count| run_echo::<TcpStream>(count, CONNECTIONS, SIZE, echo_methods),
            },
            Peer { name: RAW, run: |count| run_echo::<TcpStream>(count, CONNECTIONS, SIZE, raw_servers::echo) },
            Peer { name: "tokio", run: |count| run_echo::<TcpStream>(count, CONNECTIONS, SIZE, tokio_servers::echo) },
            Peer { name: "smol", run: |count| run_echo::<TcpStream>(count, CONNECTIONS, SIZE, smol_servers::echo) },
        ]
    };
    Group { name, about, count, reach: Some((1.05, "tokio")), peers }
}

/// Serves whoever comes by `client`, until the last one has gone.
fn serve<C>(listener: TcpListener, work: Work, client: C)
where
    C: AsyncFn(StreamReader, StreamWriter, &Work) -> asyncio::Result<()> + 'static,
{
    on_asyncio(async move {
        let over = Rc::new(Future::<()>::new());
        let ended = over.clone();
        let connected = async move |reader, writer| {
            client(reader, writer, &work).await?;
            if work.one_has_ended() {
                ended.set_result(())?;
            }
            Ok(())
        };
        let server = asyncio::start_server(connected, ()).sock(listener).backlog(BACKLOG as u32).await?;
        (&*over).await?;
        server.close();
        server.wait_closed().await
    });
}

pub(super) fn echo_futures(listener: TcpListener, work: Work) {
    serve(listener, work, async |mut reader, mut writer, work| {
        let mut buffer = work.buffer();
        loop {
            match AsyncReadExt::read(&mut reader, &mut buffer).await? {
                0 => return Ok(()),
                count => writer.write_all(&buffer[..count]).await?,
            }
        }
    });
}

fn echo_methods(listener: TcpListener, work: Work) {
    serve(listener, work, async |mut reader, writer, work| {
        loop {
            let data = reader.read(2 * work.size).await?;
            if data.is_empty() {
                return Ok(());
            }
            writer.write(&data)?;
            writer.drain().await?;
        }
    });
}

fn run_lines(count: u64, server: Server) -> Duration {
    let (listener, address) = listen(1);
    let mut piece = Vec::new();
    for _ in 0..64 * KIB / LINE {
        piece.extend_from_slice(&[b'x'; LINE - 1]);
        piece.push(b'\n');
    }
    run(move || clients::send(address, &piece, count), || server(listener, Work::new(1, 64 * KIB)))
}

fn lines(listener: TcpListener, work: Work) {
    serve(listener, work, async |mut reader, _writer, _work| {
        while let Some(line) = reader.next_line().await? {
            assert_eq!(line.len(), LINE);
        }
        Ok(())
    });
}

fn lines_of_futures(listener: TcpListener, work: Work) {
    serve(listener, work, async |reader, _writer, _work| {
        let mut reader = futures::io::BufReader::new(reader);
        let mut line = Vec::new();
        while futures::AsyncBufReadExt::read_until(&mut reader, b'\n', &mut line).await? > 0 {
            assert_eq!(line.len(), LINE);
            line.clear();
        }
        Ok(())
    });
}

fn tokio_lines(listener: TcpListener, work: Work) {
    tokio_servers::serve(listener, work, |socket, _work| async move {
        let mut reader = tokio::io::BufReader::new(socket);
        let mut line = Vec::new();
        while tokio::io::AsyncBufReadExt::read_until(&mut reader, b'\n', &mut line).await? > 0 {
            assert_eq!(line.len(), LINE);
            line.clear();
        }
        Ok(())
    });
}

fn smol_lines(listener: TcpListener, work: Work) {
    smol_servers::serve(listener, work, |socket, _work| async move {
        let mut reader = smol::io::BufReader::new(socket);
        let mut line = Vec::new();
        while smol::io::AsyncBufReadExt::read_until(&mut reader, b'\n', &mut line).await? > 0 {
            assert_eq!(line.len(), LINE);
            line.clear();
        }
        Ok(())
    });
}
