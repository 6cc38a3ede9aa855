//! What these tests show: descriptors whose mode is shared, by duplicates in one loop, in several, in other processes.

use std::thread;

use asyncio::Transport;

use crate::{
    Channel, End, LARGE, TestLoop, duplicate, epoll, is_nonblocking, pipe, set_nonblocking,
    support::transports::{Log, Told, pattern},
};

on_each_channel! {
    the_last_one_makes_it_blocking_again
    the_mode_is_found_by_the_first_one
    a_mode_changed_meanwhile_is_set_again
}

on_each_selector! {
    both_ways_through_one_socket
    both_ends_of_a_pipe
    transports_of_several_threads
    several_loops_of_one_thread
}

/// PIP-001: in whatever order they end.
fn the_last_one_makes_it_blocking_again(event_loop: &TestLoop, channel: Channel) {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [1, 0, 2]] {
        let (writer, end) = channel.writer();
        let mode = duplicate(&writer);
        let opened: [(Transport, Log); 3] = std::array::from_fn(|_| event_loop.write(duplicate(&writer)));
        drop(writer);
        for (place, index) in order.into_iter().enumerate() {
            assert!(is_nonblocking(&mode));
            let (transport, log) = &opened[index];
            // None of them may block.
            transport.write(&pattern(LARGE));
            transport.abort();
            event_loop.ticks(1);
            assert!(log.lost());
            assert_eq!(is_nonblocking(&mode), place < 2, "{order:?}, {place}");
        }
        end.drain();
    }
}

/// PIP-001: what was non-blocking stays so.
fn the_mode_is_found_by_the_first_one(event_loop: &TestLoop, channel: Channel) {
    let (writer, _end) = channel.writer();
    let mode = duplicate(&writer);
    set_nonblocking(&mode, true);
    let (first, _) = event_loop.write(duplicate(&writer));
    let (second, _) = event_loop.write(writer);
    for transport in [first, second] {
        transport.close();
        event_loop.ticks(1);
        assert!(is_nonblocking(&mode));
    }
}

/// PIP-001: others that share it may change it, which those who come later find.
fn a_mode_changed_meanwhile_is_set_again(event_loop: &TestLoop, channel: Channel) {
    let (writer, end) = channel.writer();
    let mode = duplicate(&writer);
    let (first, _) = event_loop.write(duplicate(&writer));
    set_nonblocking(&mode, false);
    let (second, log) = event_loop.write(writer);
    assert!(is_nonblocking(&mode));
    first.abort();
    event_loop.ticks(1);
    assert!(is_nonblocking(&mode));
    second.write(b"on");
    assert_eq!(end.drain(), b"on");
    second.close();
    event_loop.until(|| log.lost());
    assert!(!is_nonblocking(&mode));
}

/// PIP-001, PIP-008: as a program's standard input and output may be.
fn both_ways_through_one_socket(event_loop: &TestLoop) {
    let (socket, end) = Channel::Socketpair.reader();
    let mode = duplicate(&socket);
    let (output, written) = event_loop.write(duplicate(&socket));
    let echo = output.clone();
    let (_, _, read) = event_loop.read_with(socket, |recorder| recorder.on_data(move |_, data| echo.write(data)));
    let mut got = Vec::new();
    for piece in pattern(100_000).chunks(10_000) {
        end.send(piece);
        let wanted = got.len() + piece.len();
        event_loop.until(|| {
            got.extend(end.drain());
            got.len() == wanted
        });
    }
    assert!(got == pattern(100_000));
    drop(end);
    event_loop.until(|| read.lost() && written.lost());
    assert_eq!(read.joined(), [Told::Made, Told::Data(100_000), Told::Eof, Told::Lost(None)]);
    assert_eq!(written.take(), [Told::Made, Told::Lost(None)]);
    assert!(output.is_closing() && !is_nonblocking(&mode));
}

/// PIP-001: the ends of a pipe have a mode each.
fn both_ends_of_a_pipe(event_loop: &TestLoop) {
    let (reader, writer) = pipe();
    let modes = [duplicate(&reader), duplicate(&writer)];
    let (input, read) = event_loop.read(reader);
    let (output, written) = event_loop.write(writer);
    output.write(&pattern(LARGE));
    event_loop.until(|| read.received_len() == LARGE);
    assert!(read.received() == pattern(LARGE));
    input.close();
    event_loop.until(|| read.lost());
    assert_eq!(modes.each_ref().map(is_nonblocking), [false, true]);
    drop(modes.into_iter().next());
    event_loop.until(|| written.lost());
}

/// PIP-001
fn transports_of_several_threads(event_loop: &TestLoop) {
    let (writer, end) = Channel::Pipe.writer();
    let mode = duplicate(&writer);
    let (transport, _) = event_loop.write(duplicate(&writer));
    let other = thread::spawn(move || {
        let event_loop = TestLoop::new(epoll());
        let (transport, log) = event_loop.write(writer);
        transport.write(b"from a thread");
        transport.close();
        event_loop.until(|| log.lost());
    });
    other.join().unwrap();
    assert!(is_nonblocking(&mode));
    assert_eq!(end.drain(), b"from a thread");
    transport.close();
    event_loop.ticks(1);
    assert!(!is_nonblocking(&mode));
}

/// PIP-005
fn several_loops_of_one_thread(event_loop: &TestLoop) {
    let (reader, writer) = pipe();
    let mode = duplicate(&reader);
    let other = TestLoop::new(epoll());
    let (_, first) = event_loop.read(duplicate(&reader));
    let (_, second) = other.read(reader);
    // A loop that is closed gives it on like a transport that ends.
    event_loop.close().unwrap();
    assert!(is_nonblocking(&mode));
    End::new(writer).send(b"abc");
    other.until(|| second.lost());
    assert!(!is_nonblocking(&mode));
    assert_eq!(first.take(), [Told::Made]);
    assert_eq!(second.take(), [Told::Made, Told::Data(3), Told::Eof, Told::Lost(None)]);
}
