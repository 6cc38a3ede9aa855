//! What these tests show: what is refused before anything is sent.

use std::{
    fs::File,
    future::IntoFuture,
    io::{Cursor, Write},
    net::UdpSocket,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::{UnixDatagram, UnixStream},
    },
    rc::Rc,
    task::{Context, Waker},
};

use asyncio::{ErrorKind, Reader};
use socket2::{Domain, Socket, Type};

use crate::{
    Log, Range, Source, Target, TestLoop, WHOLE, Way, assert_same, cases, collect, file, pattern, refuse_files,
    support::failure, transports, unix_pair,
};

on_each_selector! {
    a_count_of_zero_is_refused
    a_socket_that_is_no_stream_is_refused
    a_socket_in_blocking_mode_is_refused
    what_the_system_cannot_send_is_read_unless_that_is_ruled_out
    without_the_fallback_the_system_still_sends
    files_that_the_system_does_not_map_are_read
    a_file_that_cannot_be_read_is_an_error_of_its_own
    a_socket_that_is_not_connected_is_an_error_of_its_own
    a_pipe_is_refused
    a_transport_that_is_closing_is_refused
    after_write_eof_no_file_is_sent
    nothing_is_done_before_it_is_awaited
    another_loop_and_no_loop_are_refused
}

/// SND-004
fn a_count_of_zero_is_refused(event_loop: &TestLoop) {
    for case in cases() {
        let (open, source) = (case.open(event_loop), case.source(&pattern(1000)));
        source.set_position(5);
        for fallback in [true, false] {
            for offset in [0, 10, 5000] {
                let range = Range { offset, count: Some(0), fallback };
                let (kind, text) = failure(event_loop.run_until_complete(open.target.send(&source, range)));
                assert_eq!(kind, ErrorKind::Value, "{case:?}: {text}");
                assert!(text.contains("count"), "{text}");
            }
        }
        assert_eq!(source.position(), 5, "{case:?}");
        assert_same(&open.received(event_loop), b"", case);
    }
}

/// SND-004
fn a_socket_that_is_no_stream_is_refused(event_loop: &TestLoop) {
    let (udp, peer) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    udp.connect(peer.local_addr().unwrap()).unwrap();
    let (datagram, unix_peer) = UnixDatagram::pair().unwrap();
    let (packets, packet_peer) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    peer.set_nonblocking(true).unwrap();
    unix_peer.set_nonblocking(true).unwrap();
    packet_peer.set_nonblocking(true).unwrap();
    let sockets = [OwnedFd::from(udp), datagram.into(), packets.into()];
    for socket in &sockets {
        rustix::io::ioctl_fionbio(socket, true).unwrap();
        let file = file(b"content");
        let sendfile = event_loop.sock_sendfile(socket, &file).into_future();
        let (kind, text) = failure(event_loop.run_until_complete(sendfile));
        assert_eq!(kind, ErrorKind::Value);
        assert!(text.contains("SOCK_STREAM"), "{text}");
        let mut memory = Cursor::new("content");
        let sendfile = event_loop.sock_sendfile(socket, Reader(&mut memory)).fallback(false).into_future();
        assert_eq!(failure(event_loop.run_until_complete(sendfile)).0, ErrorKind::Value);
        assert_eq!(memory.position(), 0);
    }
    assert!(peer.recv(&mut [0; 10]).is_err(), "something was sent");
    assert!(unix_peer.recv(&mut [0; 10]).is_err(), "something was sent");
    assert!(packet_peer.recv(&mut [std::mem::MaybeUninit::uninit(); 10]).is_err(), "something was sent");

    let (_reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
    let file = file(b"content");
    let sendfile = event_loop.sock_sendfile(&writer, &file).into_future();
    assert_eq!(event_loop.run_until_complete(sendfile).unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
}

fn a_socket_in_blocking_mode_is_refused(event_loop: &TestLoop) {
    let (ours, _peer) = UnixStream::pair().unwrap();
    let (file, mut memory) = (file(b"content"), Cursor::new("content"));
    let sendings = [
        event_loop.sock_sendfile(&ours, &file).into_future(),
        event_loop.sock_sendfile(&ours, Reader(&mut memory)).into_future(),
    ];
    for sending in sendings {
        let (kind, text) = failure(event_loop.run_until_complete(sending));
        assert_eq!(kind, ErrorKind::Value);
        assert!(text.contains("non-blocking"), "{text}");
    }
}

/// SND-005
fn what_the_system_cannot_send_is_read_unless_that_is_ruled_out(event_loop: &TestLoop) {
    let data = pattern(50_000);
    for case in cases().filter(|case| case.way != Way::System) {
        let (open, source) = (case.open(event_loop), case.source(&data));
        source.set_position(7);
        for range in [WHOLE, Range::new(10, 20)] {
            let range = Range { fallback: false, ..range };
            let (kind, text) = failure(event_loop.run_until_complete(open.target.send(&source, range)));
            assert_eq!(kind, ErrorKind::SendfileNotAvailable, "{case:?}: {text}");
            assert_eq!(source.position(), 7, "{case:?}");
        }
        let received = collect(open.peer.try_clone().unwrap());
        assert_eq!(event_loop.run(open.target.send(&source, Range::new(1, None))), 49_999, "{case:?}");
        assert_eq!(source.position(), 50_000, "{case:?}");
        open.target.finish();
        event_loop.until(|| received.is_finished());
        assert_same(&received.join().unwrap(), &data[1..], case);
    }
}

fn without_the_fallback_the_system_still_sends(event_loop: &TestLoop) {
    let data = pattern(50_000);
    for case in cases().filter(|case| case.way == Way::System) {
        let (open, source) = (case.open(event_loop), case.source(&data));
        let received = collect(open.peer.try_clone().unwrap());
        let range = Range { fallback: false, ..WHOLE };
        assert_eq!(event_loop.run(open.target.send(&source, range)), 50_000, "{case:?}");
        open.target.finish();
        event_loop.until(|| received.is_finished());
        assert_same(&received.join().unwrap(), &data, case);
    }
}

/// SND-005, with a file that the kernel makes up: it has no size, and the kernel does not send it by itself.
fn files_that_the_system_does_not_map_are_read(event_loop: &TestLoop) {
    let expected = std::fs::read("/proc/self/auxv").unwrap();
    for case in cases().filter(|case| case.way == Way::System) {
        let open = case.open(event_loop);
        let source = Source::File(Rc::new(File::open("/proc/self/auxv").unwrap()));
        let none = Range { fallback: false, ..WHOLE };
        let (kind, _) = failure(event_loop.run_until_complete(open.target.send(&source, none)));
        assert_eq!((kind, source.position()), (ErrorKind::SendfileNotAvailable, 0), "{case:?}");
        assert_eq!(event_loop.run(open.target.send(&source, WHOLE)), expected.len() as u64, "{case:?}");
        assert_eq!(source.position(), expected.len() as u64, "{case:?}");
        assert_same(&open.received(event_loop), &expected, case);
    }
}

fn a_file_that_cannot_be_read_is_an_error_of_its_own(event_loop: &TestLoop) {
    let directory = tempfile::tempdir().unwrap();
    let write_only = || File::create(directory.path().join("file")).unwrap();
    let (pipe, writer) = rustix::pipe::pipe().unwrap();
    File::from(writer.try_clone().unwrap()).write_all(b"content").unwrap();
    for case in cases().filter(|case| case.way != Way::Reader) {
        let open = case.open(event_loop);
        let files = [
            (File::open(directory.path()).unwrap(), libc::EISDIR),
            (write_only(), libc::EBADF),
            (File::from(pipe.try_clone().unwrap()), libc::ESPIPE),
        ];
        for (file, code) in files {
            let source = Source::File(Rc::new(file));
            let error = event_loop.run_until_complete(open.target.send(&source, WHOLE)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(code), "{case:?}: {error}");
        }
        // What came to nothing leaves everything as it was.
        let source = case.source(b"content");
        assert_eq!(event_loop.run(open.target.send(&source, WHOLE)), 7, "{case:?}");
        assert_same(&open.received(event_loop), b"content", case);
    }
}

fn a_socket_that_is_not_connected_is_an_error_of_its_own(event_loop: &TestLoop) {
    for way in [Way::System, Way::Reading, Way::Reader] {
        for domain in [Domain::IPV4, Domain::UNIX] {
            let socket = Socket::new(domain, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            if way == Way::Reading {
                refuse_files(&socket);
            }
            let (file, mut memory) = (file(b"content"), Cursor::new("content"));
            let sending = match way {
                Way::Reader => event_loop.sock_sendfile(&socket, Reader(&mut memory)).into_future(),
                _ => event_loop.sock_sendfile(&socket, &file).into_future(),
            };
            let error = event_loop.run_until_complete(sending).unwrap_err();
            let code = error.raw_os_error();
            assert!([Some(libc::ENOTCONN), Some(libc::EPIPE)].contains(&code), "{way:?} {domain:?}: {error}");
        }
    }
}

/// SND-010
fn a_pipe_is_refused(event_loop: &TestLoop) {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let peer = reader.try_clone().unwrap();
    let (writing, _) = event_loop.run(event_loop.connect_write_pipe(Log::default, writer));
    let (reading, _) = event_loop.run(event_loop.connect_read_pipe(Log::default, reader));
    reading.pause_reading();
    for transport in [writing, reading] {
        for source in [Source::File(Rc::new(file(b"content"))), Source::Reader(crate::Shared::new(b"content"))] {
            source.set_position(0);
            let target = Target::Transport(transport.clone());
            for range in [WHOLE, Range { fallback: false, ..WHOLE }] {
                let (kind, text) = failure(event_loop.run_until_complete(target.send(&source, range)));
                assert_eq!((kind, source.position()), (ErrorKind::Runtime, 0));
                assert!(text.contains("not supported"), "{text}");
            }
        }
    }
    assert_eq!(rustix::io::ioctl_fionread(&peer).unwrap(), 0, "something was sent");
}

/// SND-009
fn a_transport_that_is_closing_is_refused(event_loop: &TestLoop) {
    let refused = |open: &crate::Open, source: &Source| {
        for range in [WHOLE, Range { fallback: false, ..WHOLE }, Range::new(3, 0)] {
            let (kind, text) = failure(event_loop.run_until_complete(open.target.send(source, range)));
            assert_eq!(kind, ErrorKind::Runtime, "{text}");
            assert!(text.contains("closing"), "{text}");
        }
        assert_eq!(source.position(), 5);
    };
    for case in transports() {
        for written in [0, 8_000_000] {
            for aborts in [false, true] {
                let (open, source) = (case.open(event_loop), case.source(&pattern(1000)));
                let Target::Transport(transport) = &open.target else { unreachable!() };
                source.set_position(5);
                transport.write(&pattern(written));
                if aborts {
                    transport.abort()
                } else {
                    transport.close()
                }
                refused(&open, &source);
                let received = collect(open.peer.try_clone().unwrap());
                event_loop.until(|| open.log.lost() == 1);
                refused(&open, &source);
                let received = received.join().unwrap();
                assert!(received.len() <= written && (aborts || received.len() == written), "{case:?}");
            }
        }
    }
}

fn after_write_eof_no_file_is_sent(event_loop: &TestLoop) {
    for case in transports() {
        let (open, source) = (case.open(event_loop), case.source(&pattern(1000)));
        let Target::Transport(transport) = &open.target else { unreachable!() };
        transport.write(b"all");
        transport.write_eof().unwrap();
        source.set_position(5);
        let (kind, text) = failure(event_loop.run_until_complete(open.target.send(&source, WHOLE)));
        assert_eq!((kind, source.position()), (ErrorKind::Runtime, 5), "{case:?}");
        assert!(text.contains("write_eof"), "{text}");
        assert_same(&open.received(event_loop), b"all", case);
    }
}

fn nothing_is_done_before_it_is_awaited(event_loop: &TestLoop) {
    let (ours, _peer) = unix_pair(None);
    let file = file(b"content");
    drop(event_loop.sock_sendfile(&ours, &file));
    drop(event_loop.sock_sendfile(&ours, &file).into_future());
    for case in transports() {
        let open = case.open(event_loop);
        let Target::Transport(transport) = &open.target else { unreachable!() };
        let sending = event_loop.sendfile(transport, &file).offset(1);
        assert!(format!("{sending:?}").contains("offset=1"));
        let sending = sending.into_future();
        transport.try_write(b"mine").unwrap();
        drop(sending);
        assert_same(&open.received(event_loop), b"mine", case);
    }
}

fn another_loop_and_no_loop_are_refused(event_loop: &TestLoop) {
    let other = asyncio::new_event_loop().unwrap();
    for case in cases() {
        let (open, source) = (case.open(event_loop), case.source(b"content"));
        let (mut memory, file) = (Cursor::new("content"), file(b"content"));
        let begin = |event_loop: &asyncio::EventLoop| match &open.target {
            Target::Socket(fd) => event_loop.sock_sendfile(&**fd, &file).into_future(),
            Target::Transport(transport) => event_loop.sendfile(transport, &file).into_future(),
        };
        let (kind, text) = failure(other.run_until_complete(begin(event_loop)));
        assert_eq!(kind, ErrorKind::Value, "{case:?}: {text}");
        assert!(text.contains("different loop"), "{text}");

        let mut nowhere = begin(event_loop);
        let polled = nowhere.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(&polled, std::task::Poll::Ready(Err(asyncio::Error::Runtime(_)))), "{polled:?}");

        assert_eq!(event_loop.run(open.target.send(&source, WHOLE)), 7, "{case:?}");
        assert_eq!(event_loop.run(event_loop.sock_sendfile(&unix_pair(None).0, Reader(&mut memory)).into_future()), 7);
        assert_same(&open.received(event_loop), b"content", case);
    }
    let (ours, peer) = unix_pair(None);
    let sending = {
        let file = file(b"content");
        let closed = asyncio::new_event_loop().unwrap();
        closed.close().unwrap();
        let sending = closed.sock_sendfile(&ours, &file).into_future();
        event_loop.run_until_complete(sending)
    };
    assert!(sending.is_err());
    assert!(rustix::io::ioctl_fionread(peer.as_fd()).unwrap() == 0, "something was sent");
    other.close().unwrap();
}
