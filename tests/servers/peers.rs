//! Peers that are other people's programs: CPython's asyncio, socat, nc. Where there is none, that is said.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

use asyncio::Server;

use crate::{
    Count, NETS, Net, On, Plan, TestLoop, silent,
    support::transports::{Log, Recorder, pattern},
};

on_each_selector! {
    cpython_s_streams_are_served
    cpython_s_server_is_a_server
    socat_and_nc_are_served
}

/// A program that is ended with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended
        let _ = self.0.wait();
    }
}

/// Starts a program; `None` where it does not exist, which is printed.
fn start(command: &mut Command) -> Option<Program> {
    match command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() {
        Ok(child) => Some(Program(child)),
        Err(error) => {
            eprintln!("not tested: there is no {:?} here: {error}", command.get_program());
            None
        }
    }
}

fn python(script: &str, arguments: &[String]) -> Option<Program> {
    start(Command::new("python3").args(["-c", script]).args(arguments))
}

/// How another program's socket calls are told where a server is.
fn place(server: &Server) -> [String; 2] {
    match server.sockets()[0].address() {
        asyncio::Address::Inet(address) => [address.ip().to_string(), address.port().to_string()],
        asyncio::Address::UnixAbstract(name) => ["abstract".into(), String::from_utf8(name.clone()).unwrap()],
        address => panic!("{address}"),
    }
}

/// Runs the loop until the program has ended well.
fn ends_well(event_loop: &TestLoop, program: &mut Program) {
    let mut status = None;
    event_loop.until(|| {
        status = program.0.try_wait().unwrap();
        status.is_some()
    });
    assert!(status.unwrap().success());
}

const CLIENT: &str = r#"
import asyncio, sys

async def main(host, port):
    if host == "abstract":
        reader, writer = await asyncio.open_unix_connection("\0" + port)
    else:
        reader, writer = await asyncio.open_connection(host, int(port))
    # A line and its echo, many times.
    for number in range(100):
        line = b"line %d\n" % number
        writer.write(line)
        await writer.drain()
        assert await reader.readline() == line
    # Much, both ways at once, and the end of our side.
    much = bytes(range(256)) * 8192
    async def send():
        writer.write(much)
        writer.write_eof()
        await writer.drain()
    sending = asyncio.ensure_future(send())
    assert await reader.read() == much + b"bye"
    await sending
    writer.close()
    await writer.wait_closed()

asyncio.run(main(*sys.argv[1:]))
"#;

fn cpython_s_streams_are_served(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, logs) = net.serve_with(&event_loop, Plan::default(), |recorder| {
            recorder.on_data(|transport, data| transport.write(data)).on_eof(|transport| {
                transport.write(b"bye");
                transport.close();
                true
            })
        });
        let Some(mut program) = python(CLIENT, &place(&server)) else { return };
        ends_well(&event_loop, &mut program);
        event_loop.until(|| logs.items().iter().all(Log::lost));
        assert_eq!(logs.len(), 1);
        assert!(logs.items()[0].error().is_none());
        server.close();
        event_loop.run(server.wait_closed());
    }
}

const SERVER: &str = r#"
import asyncio, sys

async def serve(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write(b"bye")
    writer.close()

async def main(kind, name):
    if kind == "unix":
        server = await asyncio.start_unix_server(serve, name)
        print(name, flush=True)
    else:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main(*sys.argv[1:]))
"#;

fn cpython_s_server_is_a_server(on: On) {
    const MUCH: usize = 2_000_000;
    let event_loop = on.event_loop();
    let folder = tempfile::tempdir().unwrap();
    for net in NETS {
        let path = folder.path().join("socket").to_str().unwrap().to_owned();
        let kind = if net == Net::Unix { "unix" } else { "inet" };
        let Some(mut program) = python(SERVER, &[kind.into(), path]) else { return };
        let mut line = String::new();
        BufReader::new(program.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let where_it_is = line.trim();
        let logs: Vec<Log> = (0..3).map(|_| Log::default()).collect();
        for log in &logs {
            let protocol = || Recorder::new(log).keep_open();
            let (transport, _) = match net {
                Net::Tcp => event_loop.run(event_loop.create_connection(protocol, ("127.0.0.1", where_it_is))),
                Net::Unix => event_loop.run(event_loop.create_unix_connection(protocol, Path::new(where_it_is))),
            };
            transport.write(&pattern(MUCH));
            transport.write_eof().unwrap();
        }
        event_loop.until(|| logs.iter().all(|log| log.received_len() == MUCH + 3));
        for log in logs {
            let received = log.received();
            assert!(received[..MUCH] == pattern(MUCH) && received.ends_with(b"bye"));
        }
    }
}

fn socat_and_nc_are_served(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let served = Count::default();
        let count = served.clone();
        // The server ends the connection: that is what all of these programs understand.
        let (server, _) = net.serve_with(&event_loop, Plan::default(), move |_| {
            let count = count.clone();
            let mut all = Vec::new();
            silent().on_data(move |transport, data| {
                all.extend_from_slice(data);
                if all.ends_with(b"end\n") {
                    transport.write(&all);
                    transport.close();
                    count.up();
                }
            })
        });
        let [host, port] = place(&server);
        let commands: Vec<Vec<String>> = match net {
            Net::Tcp => vec![
                vec!["socat".into(), "-t5".into(), "-".into(), format!("TCP:{host}:{port}")],
                vec!["nc".into(), host, port],
            ],
            Net::Unix => vec![vec!["socat".into(), "-t5".into(), "-".into(), format!("ABSTRACT-CONNECT:{port}")]],
        };
        for command in commands {
            let Some(mut program) = start(Command::new(&command[0]).args(&command[1..])) else { continue };
            let before = served.get();
            let mut input = program.0.stdin.take().unwrap();
            input.write_all(b"begin\nend\n").unwrap();
            event_loop.until(|| served.get() == before + 1);
            event_loop.ticks(3);
            let output = program.0.stdout.take().unwrap();
            let lines: Vec<String> = BufReader::new(output).lines().take(2).map(Result::unwrap).collect();
            assert_eq!(lines, ["begin", "end"]);
            drop(input);
        }
        server.close();
        event_loop.run(server.wait_closed());
    }
}
