//! What these tests show: what connecting a pipe promises, and what becomes of the descriptor.

use std::{
    cell::Cell,
    fs::File,
    future::Future as StdFuture,
    os::fd::{AsRawFd, OwnedFd},
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use asyncio::{ErrorKind, EventLoop, OpenStream, PEERNAME, PIPE, SOCKET, SOCKNAME};
use rustix::{fs::FlockOperation, io::Errno};

use crate::{
    Channel, End, Ignore, LARGE, TestLoop, duplicate, is_nonblocking, pipe, set_nonblocking,
    support::{
        drop_guard, failure, logs,
        transports::{Log, Recorder, Told},
    },
};

on_each_channel! {
    a_read_pipe_is_made_before_the_opener_returns_and_data_comes
    a_write_pipe_is_made_before_the_opener_returns
    the_mode_is_as_it_was_found_afterwards
    a_dropped_opening_leaves_nothing_behind
    a_cancelled_opening_leaves_nothing_behind
    an_opening_dropped_after_it_was_made_is_lost
    an_opening_that_is_never_awaited_only_closes
    a_factory_that_panics_leaves_nothing_behind
    a_closed_loop_connects_nothing
    closing_the_loop_closes_the_pipes
    a_pipe_belongs_to_its_transport
    connection_made_may_close_at_once
}

on_each_selector! {
    a_file_is_no_pipe
    another_loop_connects_nothing
    debug_mode_warns_of_pipes_that_are_left_open
}

/// The two ways, which have much in common.
const BOTH: [Way; 2] = [Way { reads: true }, Way { reads: false }];

#[derive(Clone, Copy, Debug)]
struct Way {
    reads: bool,
}

impl Way {
    /// What the transport gets, and the other end.
    fn ends(self, channel: Channel) -> (OwnedFd, End) {
        if self.reads { channel.reader() } else { channel.writer() }
    }

    fn connect<F: FnOnce() -> Recorder>(
        self,
        event_loop: &EventLoop,
        make: F,
        fd: impl Into<OwnedFd>,
    ) -> OpenStream<F, Recorder> {
        if self.reads { event_loop.connect_read_pipe(make, fd) } else { event_loop.connect_write_pipe(make, fd) }
    }

    /// Whether the transport's descriptor, of which there is no duplicate, is closed.
    fn is_gone(self, end: &End) -> bool {
        if self.reads { end.is_unread() } else { end.ended() }
    }
}

fn poll_once<F: StdFuture + Unpin>(future: &mut F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// PIP-001, FLW-001
fn a_read_pipe_is_made_before_the_opener_returns_and_data_comes(event_loop: &TestLoop, channel: Channel) {
    let (reader, end) = channel.reader();
    end.send(b"hello");
    let (number, mode, log) = (reader.as_raw_fd(), duplicate(&reader), Log::default());
    let (transport, protocol) = event_loop
        .run_until_complete(async {
            let connected = event_loop.connect_read_pipe(|| Recorder::new(&log), reader).await;
            log.note("returned");
            connected
        })
        .unwrap();
    event_loop.until(|| log.received_len() == 5);
    assert_eq!(log.take(), [Told::Made, Told::Note("returned"), Told::Data(5)]);
    assert_eq!(log.received(), b"hello");
    assert!(is_nonblocking(mode));
    assert_eq!(transport.get_extra_info(PIPE), Some(number));
    assert_eq!(transport.get_extra_info(SOCKET), None);
    assert_eq!((transport.get_extra_info(PEERNAME), transport.get_extra_info(SOCKNAME)), (None, None));
    assert_eq!(transport.get_write_buffer_limits(), (16_384, 65_536));
    assert!(transport.is_reading() && !transport.is_closing());
    assert!(Rc::ptr_eq(&transport.get_protocol::<Recorder>().unwrap(), &protocol));
}

/// PIP-001, FLW-001: the same for writing.
fn a_write_pipe_is_made_before_the_opener_returns(event_loop: &TestLoop, channel: Channel) {
    let (writer, end) = channel.writer();
    let (number, mode, log) = (writer.as_raw_fd(), duplicate(&writer), Log::default());
    let (transport, _) = event_loop
        .run_until_complete(async {
            let make = || Recorder::new(&log).on_made(|transport| transport.write(b"first"));
            let connected = event_loop.connect_write_pipe(make, writer).await;
            log.note("returned");
            connected
        })
        .unwrap();
    event_loop.ticks(3);
    assert_eq!(log.take(), [Told::Made, Told::Note("returned")]);
    assert_eq!(end.drain(), b"first");
    assert!(is_nonblocking(mode));
    assert_eq!(transport.get_extra_info(PIPE), Some(number));
    assert_eq!(transport.get_extra_info(SOCKET), None);
    assert_eq!(transport.get_write_buffer_limits(), (16_384, 65_536));
    assert!(!transport.is_reading() && !transport.is_closing());
}

/// PIP-007
fn a_file_is_no_pipe(event_loop: &TestLoop) {
    for way in BOTH {
        let place = tempfile::tempdir().unwrap();
        let file = || File::options().create(true).truncate(false).read(true).write(true).open(place.path().join("f"));
        let directory = || File::open(place.path());
        for (open, what) in [(&file as &dyn Fn() -> std::io::Result<File>, "file"), (&directory, "directory")] {
            // A duplicate made before still works, in the mode that it had.
            for nonblocking in [false, true] {
                let given = open().unwrap();
                set_nonblocking(&given, nonblocking);
                let copy = given.try_clone().unwrap();
                let opening = way.connect(event_loop, || panic!("the factory is not called"), given);
                let (kind, text) = failure(event_loop.run_until_complete(opening).map(drop));
                assert_eq!(kind, ErrorKind::Value, "{way:?}, {what}: {text}");
                assert!(text.contains("pipe"), "{text}");
                assert_eq!(is_nonblocking(&copy), nonblocking);
                copy.metadata().unwrap();
            }
            // What was handed over is closed: a lock lasts until then.
            let given = open().unwrap();
            rustix::fs::flock(&given, FlockOperation::LockExclusive).unwrap();
            let other = open().unwrap();
            assert_eq!(rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive), Err(Errno::AGAIN));
            let opening = way.connect(event_loop, || panic!("the factory is not called"), given);
            event_loop.run_until_complete(opening).map(drop).unwrap_err();
            rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive).unwrap();
        }
    }
}

/// PIP-001: however it ends.
fn the_mode_is_as_it_was_found_afterwards(event_loop: &TestLoop, channel: Channel) {
    for way in BOTH {
        for before in [false, true] {
            for ending in 0..4 {
                let (fd, end) = way.ends(channel);
                set_nonblocking(&fd, before);
                let (mode, log) = (duplicate(&fd), Log::default());
                let opening = way.connect(event_loop, || Recorder::new(&log), fd);
                let (transport, _) = event_loop.run_until_complete(opening).unwrap();
                assert!(is_nonblocking(&mode));
                let mut end = Some(end);
                match ending {
                    0 => transport.close(),
                    1 => transport.abort(),
                    2 => drop(end.take()),
                    _ if way.reads => drop(end.take()),
                    _ => transport.write_eof().unwrap(),
                }
                event_loop.until(|| log.lost());
                assert_eq!(is_nonblocking(&mode), before, "{way:?}, {ending}");
                assert_eq!(transport.with_fd(|_| ()), None);
            }
        }
    }
}

/// PIP-001: the work may be dropped at every await.
fn a_dropped_opening_leaves_nothing_behind(event_loop: &TestLoop, channel: Channel) {
    for way in BOTH {
        let (fd, end) = way.ends(channel);
        let (mode, log) = (duplicate(&fd), Log::default());
        let (guard, dropped) = drop_guard();
        let make = || Recorder::new(&log).on_lost(move |_, _| _ = &guard);
        event_loop
            .run_until_complete(async {
                let mut opening = way.connect(event_loop, make, fd);
                assert!(poll_once(&mut opening).is_pending());
                assert!(is_nonblocking(&mode));
                drop(opening);
                assert!(!is_nonblocking(&mode) && dropped.get());
                Ok(())
            })
            .unwrap();
        drop(mode);
        assert!(way.is_gone(&end));
        event_loop.ticks(3);
        assert_eq!(log.take(), []);
    }
}

/// PIP-001: cancelled like every task, before and after the protocol has heard of its connection.
fn a_cancelled_opening_leaves_nothing_behind(event_loop: &TestLoop, channel: Channel) {
    for (way, before) in BOTH.into_iter().flat_map(|way| [(way, true), (way, false)]) {
        let (fd, end) = way.ends(channel);
        if way.reads {
            end.send(b"kept");
        }
        let (mode, log) = (duplicate(&fd), Log::default());
        let (recorder, opener) = (Recorder::new(&log), event_loop.event_loop.clone());
        let task = event_loop.create_task(async move {
            let factory = || {
                let current = opener.current_task().unwrap();
                if before {
                    opener.call_soon(move || current.cancel());
                }
                recorder
            };
            way.connect(&opener, factory, fd).await?;
            Ok(())
        });
        let cancelled = event_loop.run_until_complete(async {
            // The task's first step, and what that has scheduled.
            asyncio::sleep(Duration::ZERO).await?;
            assert_eq!(log.items(), [Told::Made]);
            task.cancel();
            task.await
        });
        assert_eq!(cancelled.unwrap_err().kind(), ErrorKind::Cancelled);
        event_loop.ticks(3);
        assert_eq!(log.take(), [Told::Made, Told::Lost(None)]);
        assert!(!is_nonblocking(&mode));
        if way.reads {
            assert_eq!(End::new(mode).drain(), b"kept");
        } else {
            drop(mode);
        }
        assert!(way.is_gone(&end));
    }
}

/// PIP-001, PIP-005: a protocol that heard of its connection hears of its end.
fn an_opening_dropped_after_it_was_made_is_lost(event_loop: &TestLoop, channel: Channel) {
    for way in BOTH {
        let (fd, end) = way.ends(channel);
        let log = Log::default();
        let mut opening = way.connect(event_loop, || Recorder::new(&log), fd);
        event_loop
            .run_until_complete(async {
                assert!(poll_once(&mut opening).is_pending());
                Ok(())
            })
            .unwrap();
        event_loop.ticks(2);
        assert_eq!(log.take(), [Told::Made]);
        drop(opening);
        assert_eq!(log.take(), []);
        event_loop.ticks(1);
        assert_eq!(log.take(), [Told::Lost(None)]);
        assert!(way.is_gone(&end));
    }
}

/// PIP-007: nothing is done before it is awaited.
fn an_opening_that_is_never_awaited_only_closes(event_loop: &TestLoop, channel: Channel) {
    for way in BOTH {
        let (fd, end) = way.ends(channel);
        let mode = duplicate(&fd);
        let opening = way.connect(event_loop, || panic!("the factory is not called"), fd);
        assert!(!is_nonblocking(&mode));
        drop(mode);
        assert!(!way.is_gone(&end));
        drop(opening);
        assert!(way.is_gone(&end));
    }
}

/// PIP-007: what was handed over is closed when the call fails.
fn a_factory_that_panics_leaves_nothing_behind(event_loop: &TestLoop, channel: Channel) {
    for way in BOTH {
        let (fd, end) = way.ends(channel);
        let mode = duplicate(&fd);
        let opener = event_loop.event_loop.clone();
        let task = event_loop.create_task(async move {
            way.connect(&opener, || panic!("no protocol"), fd).await?;
            Ok(())
        });
        let (kind, text) = failure(event_loop.run_until_complete(task));
        assert_eq!(kind, ErrorKind::Panicked);
        assert!(text.contains("no protocol"), "{text}");
        // The task had failed before anybody waited for it.
        assert!(event_loop.report().exception.is_some());
        assert!(!is_nonblocking(&mode));
        drop(mode);
        assert!(way.is_gone(&end));
    }
}

/// PIP-007: the same for what can never work.
fn a_closed_loop_connects_nothing(event_loop: &TestLoop, channel: Channel) {
    event_loop.close().unwrap();
    for way in BOTH {
        let (fd, end) = way.ends(channel);
        let mode = duplicate(&fd);
        let mut opening = way.connect(event_loop, || panic!("the factory is not called"), fd);
        let Poll::Ready(result) = poll_once(&mut opening) else { panic!("it waits") };
        assert_eq!(result.map(drop).unwrap_err().kind(), ErrorKind::Runtime);
        assert!(!is_nonblocking(&mode));
        drop((mode, opening));
        assert!(way.is_gone(&end));
    }
}

/// PIP-007: one loop's work is not done under another one.
fn another_loop_connects_nothing(event_loop: &TestLoop) {
    let other = asyncio::new_event_loop().unwrap();
    for way in BOTH {
        let (reader, writer) = pipe();
        let opening =
            way.connect(&other, || panic!("the factory is not called"), if way.reads { reader } else { writer });
        let (kind, _) = failure(event_loop.run_until_complete(opening).map(drop));
        assert_eq!(kind, ErrorKind::Value);
    }
    other.close().unwrap();
}

/// PIP-005: no callback runs in a closed loop.
fn closing_the_loop_closes_the_pipes(event_loop: &TestLoop, channel: Channel) {
    let mut opened = Vec::new();
    for way in BOTH {
        for with_bytes in [false, true] {
            let (fd, end) = way.ends(channel);
            let (mode, log) = (duplicate(&fd), Log::default());
            let (guard, dropped) = drop_guard();
            let make = || Recorder::new(&log).on_lost(move |_, _| _ = &guard);
            let (transport, protocol) = event_loop.run_until_complete(way.connect(event_loop, make, fd)).unwrap();
            drop(protocol);
            assert_eq!(log.take(), [Told::Made]);
            opened.push((way, with_bytes, end, mode, log, dropped, transport));
        }
    }
    for (way, with_bytes, end, _, log, dropped, transport) in &opened {
        match (with_bytes, way.reads) {
            (false, _) => {}
            (true, true) => end.send(b"unread"),
            (true, false) => transport.write(&vec![1; LARGE]),
        }
        log.take();
        assert!(!dropped.get());
    }
    event_loop.close().unwrap();
    for (way, _, end, mode, log, dropped, transport) in opened {
        assert_eq!(log.take(), []);
        assert!(dropped.get(), "the protocol is let go");
        assert!(!is_nonblocking(&mode));
        drop(mode);
        if !way.reads {
            end.drain();
        }
        assert!(way.is_gone(&end));
        // What is left is harmless.
        assert!(transport.is_closing() && !transport.is_reading());
        assert_eq!((transport.get_write_buffer_size(), transport.with_fd(|_| ())), (0, None));
        transport.pause_reading();
        transport.resume_reading();
        transport.write(b"late");
        transport.close();
        transport.abort();
        assert_eq!(log.take(), []);
    }
}

/// FDW-010, for pipes.
fn a_pipe_belongs_to_its_transport(event_loop: &TestLoop, channel: Channel) {
    for way in BOTH {
        let (fd, end) = way.ends(channel);
        let log = Log::default();
        let (transport, _) =
            event_loop.run_until_complete(way.connect(event_loop, || Recorder::new(&log), fd)).unwrap();
        let refused = transport.with_fd(|fd| {
            [
                failure(event_loop.add_reader(fd, || ())),
                failure(event_loop.add_writer(fd, || ())),
                failure(event_loop.remove_reader(&fd)),
                failure(event_loop.remove_writer(&fd)),
            ]
        });
        for (kind, text) in refused.unwrap() {
            assert!(kind == ErrorKind::Runtime && text.contains("used by transport"), "{text}");
            assert!(text.contains(if way.reads { "ReadPipe" } else { "WritePipe" }), "{text}");
        }
        // It works on.
        if way.reads {
            end.send(b"abc");
            event_loop.until(|| log.received_len() == 3);
        } else {
            transport.write(b"abc");
            assert_eq!(end.drain(), b"abc");
        }
    }
}

/// PIP-005: from the first callback on.
fn connection_made_may_close_at_once(event_loop: &TestLoop, channel: Channel) {
    for way in BOTH {
        let (fd, end) = way.ends(channel);
        if way.reads {
            end.send(b"unread");
        }
        let (log, closed) = (Log::default(), Rc::new(Cell::new(false)));
        let seen = closed.clone();
        let make = || {
            Recorder::new(&log).on_made(move |transport| {
                transport.close();
                seen.set(transport.is_closing());
            })
        };
        let (transport, _) = event_loop.run_until_complete(way.connect(event_loop, make, fd)).unwrap();
        event_loop.ticks(2);
        assert_eq!(log.take(), [Told::Made, Told::Lost(None)]);
        assert!(closed.get() && transport.is_closing());
        assert!(way.is_gone(&end));
    }
}

/// PIP-005: what asyncio calls a ResourceWarning.
fn debug_mode_warns_of_pipes_that_are_left_open(event_loop: &TestLoop) {
    event_loop.set_debug(true);
    let (reader, writer) = pipe();
    let opening = event_loop.connect_read_pipe(|| Ignore, reader);
    event_loop.run_until_complete(opening).unwrap();
    let ((), texts) = logs(|| event_loop.close().unwrap());
    assert!(texts.iter().any(|(_, text)| text.contains("unclosed transport <ReadPipeTransport fd=")), "{texts:?}");
    drop(writer);
}
