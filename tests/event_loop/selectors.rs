//! The same loop on every selector, and on one that is not the crate's.
use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::UnixStream,
    },
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use asyncio::{
    ErrorKind, EventLoop,
    selector::{EpollSelector, Event, Interest, Mode, ParkSelector, PollingSelector, Selector, SelectorWaker},
    sleep,
};

use crate::{
    MINUTE, MS, SECOND, assert_error,
    poll::poll,
    push,
    support::{Record, deadline, handler, tick},
};

/// A selector of one's own, over poll(2). It forgets nothing, reports directions apart, and wakes up now and then for no
/// reason at all: a loop must live with that.
struct OwnSelector {
    watched: BTreeMap<RawFd, (usize, Interest, Mode)>,
    receiver: UnixStream,
    waker: Arc<OwnWaker>,
    selects: usize,
}

struct OwnWaker(UnixStream);

impl SelectorWaker for OwnWaker {
    fn wake(&self) {
        // A full socket wakes as well.
        let _ = (&self.0).write(&[1]);
    }
}

impl OwnSelector {
    fn new() -> Self {
        let (sender, receiver) = UnixStream::pair().unwrap();
        sender.set_nonblocking(true).unwrap();
        receiver.set_nonblocking(true).unwrap();
        OwnSelector { watched: BTreeMap::new(), receiver, waker: Arc::new(OwnWaker(sender)), selects: 0 }
    }
}

impl Selector for OwnSelector {
    fn register(&mut self, fd: RawFd, key: usize, interest: Interest, mode: Mode) -> io::Result<()> {
        if self.watched.contains_key(&fd) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.watched.insert(fd, (key, interest, mode));
        Ok(())
    }

    fn modify(&mut self, fd: RawFd, key: usize, interest: Interest, mode: Mode) -> io::Result<()> {
        let entry = self.watched.get_mut(&fd).ok_or(io::ErrorKind::NotFound)?;
        *entry = (key, interest, mode);
        Ok(())
    }

    fn deregister(&mut self, fd: RawFd) -> io::Result<()> {
        self.watched.remove(&fd).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn select(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        self.selects += 1;
        if self.selects % 3 == 0 {
            return Ok(());
        }
        let entry = |fd, interest: Interest| libc::pollfd {
            fd,
            events: if interest.readable { libc::POLLIN } else { 0 }
                | if interest.writable { libc::POLLOUT } else { 0 },
            revents: 0,
        };
        let watched = self.watched.iter().filter(|(_, watch)| !watch.1.is_empty());
        let mut entries = vec![entry(self.receiver.as_raw_fd(), Interest::READABLE)];
        entries.extend(watched.map(|(fd, watch)| entry(*fd, watch.1)));
        poll(&mut entries, timeout)?;
        while (&self.receiver).read(&mut [0; 64]).is_ok_and(|count| count == 64) {}
        for entry in &entries[1..] {
            let (key, _, mode) = self.watched[&entry.fd];
            let ended = entry.revents & (libc::POLLHUP | libc::POLLERR) != 0;
            let readable = entry.revents & libc::POLLIN != 0 || ended;
            let writable = entry.revents & libc::POLLOUT != 0 || ended;
            if readable {
                events.push(Event { key, readable: true, writable: false });
            }
            if writable {
                events.push(Event { key, readable: false, writable: true });
            }
            if mode == Mode::Oneshot && (readable || writable) {
                self.watched.insert(entry.fd, (key, Interest::NONE, mode));
            }
        }
        Ok(())
    }

    fn waker(&self) -> Arc<dyn SelectorWaker> {
        self.waker.clone()
    }
}

fn with(selector: impl Selector + 'static) -> EventLoop {
    EventLoop::builder().selector(selector).build().unwrap()
}

fn timers_fire(event_loop: &EventLoop) {
    let record = Record::default();
    event_loop.call_later(20 * MS, push(&record, "second"));
    event_loop.call_later(10 * MS, push(&record, "first"));
    event_loop.call_later(MINUTE, push(&record, "never"));
    let begin = Instant::now();
    event_loop.run_until_complete(sleep(30 * MS)).unwrap();
    let taken = begin.elapsed();
    assert!(taken >= 30 * MS && taken < 30 * SECOND, "{taken:?}");
    assert_eq!(record.take(), ["first", "second"]);
}

fn threads_wake_it(event_loop: &EventLoop) {
    for _ in 0..100 {
        let threadsafe = event_loop.threadsafe();
        let thread = thread::spawn(move || threadsafe.stop());
        event_loop.run_forever().unwrap();
        thread.join().unwrap();
    }
    // A wake that comes while the loop is busy is not lost either.
    let threadsafe = event_loop.threadsafe();
    thread::spawn(move || threadsafe.stop()).join().unwrap();
    event_loop.run_forever().unwrap();
}

fn jobs_come_back(event_loop: &EventLoop) {
    let main = async {
        let mut sum = 0;
        for number in 0..100 {
            sum += event_loop.run_in_executor(None, move || number).await?;
        }
        Ok(sum)
    };
    assert_eq!(event_loop.run_until_complete(main).unwrap(), 4950);
}

fn a_thread_talks_to_it(event_loop: &EventLoop) {
    let threadsafe = event_loop.threadsafe();
    let thread = thread::spawn(move || {
        let sum = (0..200)
            .map(|number| {
                let coroutine = async move {
                    sleep(Duration::from_micros(number % 7)).await?;
                    Ok(number)
                };
                threadsafe.run_coroutine_threadsafe(coroutine).result(None).unwrap()
            })
            .sum::<u64>();
        threadsafe.stop();
        sum
    });
    event_loop.run_forever().unwrap();
    assert_eq!(thread.join().unwrap(), 19_900);
}

fn a_reader_and_a_writer_are_called(event_loop: &EventLoop) {
    let record = Record::default();
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    let fd = ours.try_clone().unwrap();
    let (log, stopper) = (record.clone(), event_loop.clone());
    event_loop
        .add_reader(&fd, move || {
            let mut bytes = [0; 16];
            let count = ours.read(&mut bytes).unwrap();
            log.push(String::from_utf8(bytes[..count].to_vec()).unwrap());
            stopper.stop();
        })
        .unwrap();
    theirs.write_all(b"one").unwrap();
    event_loop.run_forever().unwrap();
    // Nothing is there: a wait for the reader has to end by another thread's write.
    let thread = thread::spawn(move || {
        thread::sleep(10 * MS);
        theirs.write_all(b"two").unwrap();
        theirs
    });
    event_loop.run_forever().unwrap();
    let theirs = thread.join().unwrap();
    let (log, stopper) = (record.clone(), event_loop.clone());
    event_loop
        .add_writer(&fd, move || {
            log.push("writable".into());
            stopper.stop();
        })
        .unwrap();
    event_loop.run_forever().unwrap();
    assert!(event_loop.remove_writer(&fd).unwrap());
    assert!(event_loop.remove_reader(&fd).unwrap());
    assert!(!event_loop.remove_reader(&fd).unwrap());
    (&theirs).write_all(b"three").unwrap();
    tick(event_loop);
    assert_eq!(record.take(), ["one", "two", "writable"]);
}

fn a_reader_is_called_as_long_as_it_is_readable(event_loop: &EventLoop) {
    let record = Record::default();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"nobody reads this").unwrap();
    let (log, stopper) = (record.clone(), event_loop.clone());
    event_loop
        .add_reader(&ours, move || {
            log.push(());
            if log.len() == 5 {
                stopper.stop();
            }
        })
        .unwrap();
    event_loop.run_forever().unwrap();
    assert_eq!(record.len(), 5);
    assert!(event_loop.remove_reader(&ours).unwrap());
}

fn sockets_echo(event_loop: &EventLoop) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    let echoing = event_loop.clone();
    let echo = event_loop.create_task(async move {
        let mut buffer = [0; 1024];
        let mut total = 0;
        loop {
            let count = echoing.sock_recv_into(&theirs, &mut buffer).await?;
            if count == 0 {
                return Ok(total);
            }
            echoing.sock_sendall(&theirs, &buffer[..count]).await?;
            total += count;
        }
    });
    let main = async {
        for number in 0..100_u8 {
            let message = [number; 100];
            event_loop.sock_sendall(&ours, &message).await?;
            let (mut buffer, mut received) = ([0; 100], 0);
            while received < buffer.len() {
                received += event_loop.sock_recv_into(&ours, &mut buffer[received..]).await?;
            }
            assert_eq!(buffer, message);
        }
        drop(ours);
        echo.await
    };
    assert_eq!(event_loop.run_until_complete(main).unwrap(), 10_000);
}

macro_rules! selector_suite {
    ($name:ident, $selector:expr, [$($test:ident),* $(,)?]) => {
        mod $name {
            use super::*;

            $(#[test]
            fn $test() {
                let _deadline = deadline();
                let event_loop = with($selector);
                let reports = handler(&event_loop);
                super::$test(&event_loop);
                event_loop.close().unwrap();
                assert!(reports.take().is_empty());
            })*
        }
    };
    ($name:ident, $selector:expr) => {
        selector_suite!($name, $selector, [
            timers_fire,
            threads_wake_it,
            jobs_come_back,
            a_thread_talks_to_it,
            a_reader_and_a_writer_are_called,
            a_reader_is_called_as_long_as_it_is_readable,
            sockets_echo,
        ]);
    };
}

selector_suite!(epoll, EpollSelector::new().unwrap());
selector_suite!(polling, PollingSelector::new().unwrap());
selector_suite!(own, OwnSelector::new());
selector_suite!(park, ParkSelector::new(), [timers_fire, threads_wake_it, jobs_come_back, a_thread_talks_to_it]);

#[test]
fn a_selector_without_descriptors_refuses_them() {
    let event_loop = with(ParkSelector::new());
    let (one, _other) = UnixStream::pair().unwrap();
    let error = event_loop.add_reader(&one, || ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(error.io_error().unwrap().kind(), io::ErrorKind::Unsupported);
    assert!(!event_loop.remove_reader(&one).unwrap(), "it was not kept");
    event_loop.run_until_complete(sleep(MS)).unwrap();
}

/// A selector that has come to its end.
struct BrokenSelector(ParkSelector);

impl Selector for BrokenSelector {
    fn register(&mut self, fd: RawFd, key: usize, interest: Interest, mode: Mode) -> io::Result<()> {
        self.0.register(fd, key, interest, mode)
    }

    fn modify(&mut self, fd: RawFd, key: usize, interest: Interest, mode: Mode) -> io::Result<()> {
        self.0.modify(fd, key, interest, mode)
    }

    fn deregister(&mut self, fd: RawFd) -> io::Result<()> {
        self.0.deregister(fd)
    }

    fn select(&mut self, _: &mut Vec<Event>, _: Option<Duration>) -> io::Result<()> {
        Err(io::Error::other("the selector broke"))
    }

    fn waker(&self) -> Arc<dyn SelectorWaker> {
        self.0.waker()
    }
}

#[test]
fn a_selector_that_fails_ends_the_run_and_the_loop_can_be_closed() {
    let _deadline = deadline();
    let event_loop = with(BrokenSelector(ParkSelector::new()));
    let reports = handler(&event_loop);
    let failed = event_loop.run_until_complete(sleep(MINUTE));
    assert_error(failed, ErrorKind::Io, "the selector broke");
    assert!(!event_loop.is_running());
    assert_error(event_loop.run_forever(), ErrorKind::Io, "the selector broke");
    assert_eq!(event_loop.run_once(None).unwrap_err().kind(), ErrorKind::Io);
    event_loop.close().unwrap();
    assert!(reports.take().is_empty());
}
