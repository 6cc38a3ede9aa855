//! What these tests show: where the standard streams of a subprocess may come from and go to.

use std::{
    fs::File,
    io::{Read, Seek, Write},
    os::fd::{AsFd, AsRawFd},
    os::unix::net::UnixStream,
};

use asyncio::{
    ErrorKind,
    subprocess::{DEVNULL, INHERIT, PIPE, STDOUT, Stdio},
};

use crate::{Log, Place, Recorder, Told, finish, output};

on_each_watcher! {
    devnull_is_empty_and_takes_everything
    a_file_takes_the_output_and_stays_open_here
    a_raw_descriptor_takes_the_output_and_stays_open_here
    a_file_is_the_input
    error_may_share_a_file_and_devnull
    a_command_s_own_streams_are_replaced
    each_stream_may_be_a_socket
    nobody_else_holds_the_pipes
}

/// PRC-005
fn devnull_is_empty_and_takes_everything(place: Place) {
    let event_loop = place.event_loop();
    let command = "read line && exit 1; echo out; echo err >&2; exit 0";
    let all = |builder: crate::Builder| builder.stdin(DEVNULL).stdout(DEVNULL).stderr(DEVNULL);
    let (_, log) = finish(&event_loop, command, all);
    assert_eq!(log.items(), [Told::Made, Told::Exited(Some(0)), Told::Lost(None)]);
}

/// PRC-006
fn a_file_takes_the_output_and_stays_open_here(place: Place) {
    let event_loop = place.event_loop();
    let mut file = tempfile::tempfile().unwrap();
    finish(&event_loop, "echo to a file", |builder| builder.stdout(&file));
    file.write_all(b"and more").unwrap();
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "to a file\nand more");
}

/// PRC-006
fn a_raw_descriptor_takes_the_output_and_stays_open_here(place: Place) {
    let event_loop = place.event_loop();
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    finish(&event_loop, "echo to a pipe", |builder| builder.stdout(writer.as_fd()));
    assert!(rustix::io::fcntl_getfd(&writer).is_ok(), "it is still open");
    drop(writer);
    let mut text = String::new();
    File::from(reader).read_to_string(&mut text).unwrap();
    assert_eq!(text, "to a pipe\n", "and nobody else has the other end");
}

/// A neighbour of PRC-006.
fn a_file_is_the_input(place: Place) {
    let event_loop = place.event_loop();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"from a file").unwrap();
    file.rewind().unwrap();
    let (text, _) = output(&event_loop, "cat", |builder| builder.stdin(&file));
    assert_eq!(text, "from a file");
    // By value it is closed here, and duplicated before.
    file.rewind().unwrap();
    let (text, _) = output(&event_loop, "cat", |builder| builder.stdin(file));
    assert_eq!(text, "from a file");
}

/// PRC-004, its neighbours.
fn error_may_share_a_file_and_devnull(place: Place) {
    let event_loop = place.event_loop();
    let mut file = tempfile::tempfile().unwrap();
    finish(&event_loop, "echo out; echo err >&2; echo out", |builder| builder.stdout(&file).stderr(STDOUT));
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "out\nerr\nout\n");
    let (transport, log) =
        finish(&event_loop, "echo err >&2; exit 2", |builder| builder.stdout(DEVNULL).stderr(STDOUT));
    assert_eq!(transport.get_returncode(), Some(2));
    assert!((1..3).all(|fd| transport.get_pipe_transport(fd).is_none() && log.received(fd as usize).is_empty()));
    let (transport, _) = finish(&event_loop, "exit 3", |builder| builder.stdout(INHERIT).stderr(STDOUT));
    assert_eq!(transport.get_returncode(), Some(3));
    assert!(transport.get_pipe_transport(0).is_some());
    // Which of the two was said first does not matter.
    let (_, log) = finish(&event_loop, "echo err >&2", |builder| builder.stderr(STDOUT).stdout(PIPE));
    assert_eq!(log.text(1), "err\n");
}

/// asyncio's defaults: pipes.
fn a_command_s_own_streams_are_replaced(place: Place) {
    let event_loop = place.event_loop();
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "cat; echo $0 $A", "zero"]).env("A", "variable").stdout(std::process::Stdio::null());
    let log = Log::default();
    let recorder = Recorder::new(&log);
    let (transport, _) = event_loop.run(event_loop.subprocess_exec(|| recorder, command));
    transport.get_pipe_transport(0).unwrap().close();
    event_loop.until(|| log.lost());
    assert_eq!(log.text(1), "zero variable\n");
}

/// A socket is a descriptor like another.
fn each_stream_may_be_a_socket(place: Place) {
    let event_loop = place.event_loop();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.write_all(b"question\n").unwrap();
    let all = |builder: crate::Builder| builder.stdin(&theirs).stdout(&theirs).stderr(&theirs);
    finish(&event_loop, "read line; echo $line; echo err >&2", all);
    drop(theirs);
    let mut text = String::new();
    ours.read_to_string(&mut text).unwrap();
    assert_eq!(text, "question\nerr\n");
    assert!(matches!(format!("{:?}", Stdio::from(&ours)), text if text.contains("Descriptor")));
    assert!(ours.as_raw_fd() >= 0);
    let mistake = event_loop.subprocess_exec(|| Recorder::new(&Log::default()), "true").stdin(STDOUT);
    assert_eq!(event_loop.fails(mistake).kind(), ErrorKind::Value);
}

/// A child has its own pipes and not those of the others, so that each input ends when it is closed.
fn nobody_else_holds_the_pipes(place: Place) {
    let event_loop = place.event_loop();
    let started: Vec<_> = (0..5)
        .map(|_| {
            let (builder, log) = crate::shell(&event_loop, "cat");
            (event_loop.run(builder).0, log)
        })
        .collect();
    for (transport, log) in started {
        crate::stdin(&transport).close();
        event_loop.until(|| log.lost());
        assert_eq!(transport.get_returncode(), Some(0));
    }
}
