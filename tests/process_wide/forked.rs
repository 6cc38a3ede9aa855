//! A forked child cannot use its parent's loop, may have its own, and leaves the parent's unharmed.
#![expect(unsafe_code, reason = "fork is a call of the C library")]

use std::{
    cell::Cell,
    io::{Read, Write},
    os::unix::net::UnixStream,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use asyncio::{
    Error, ErrorKind, EventLoop, Protocol, Transport, create_task, get_running_loop,
    selector::{EpollSelector, ParkSelector, PollingSelector},
    sleep,
};

use crate::{
    main_thread::tests,
    signals::{Ended, fork},
    support::{Record, handler, new_loop, tick},
};

tests![
    a_child_cannot_use_its_parent_s_loop,
    no_loop_runs_in_a_child_of_a_running_one,
    a_child_that_returns_into_its_parent_s_loop_leaves_it,
    a_child_may_have_a_loop_of_its_own,
    a_grandchild_may_have_a_loop_of_its_own,
    nothing_that_a_child_does_reaches_its_parent,
    a_child_forked_by_a_coroutine_does_not_reach_its_parent,
    a_child_that_drops_a_loop_leaves_its_servers_and_transports,
];

const MS: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);

fn loops() -> [EventLoop; 3] {
    let epoll = EventLoop::builder().selector(EpollSelector::new().unwrap()).build().unwrap();
    let polling = EventLoop::builder().selector(PollingSelector::new().unwrap()).build().unwrap();
    let park = EventLoop::builder().selector(ParkSelector::new()).build().unwrap();
    [epoll, polling, park]
}

/// Whatever a loop that works can do: timers, threads, descriptors if it has any.
fn assert_works(event_loop: &EventLoop) {
    let begin = Instant::now();
    event_loop.run_until_complete(sleep(5 * MS)).unwrap();
    let taken = begin.elapsed();
    assert!(taken >= 5 * MS && taken < 20_000 * MS, "{taken:?}");
    let threadsafe = event_loop.threadsafe();
    let thread = thread::spawn(move || {
        thread::sleep(5 * MS);
        threadsafe.stop();
    });
    event_loop.run_forever().unwrap();
    thread.join().unwrap();
    assert_eq!(event_loop.run_until_complete(event_loop.run_in_executor(None, || 7)).unwrap(), 7);
    let task = event_loop.create_task(async { Ok(8) });
    assert_eq!(event_loop.run_until_complete(task).unwrap(), 8);
    if event_loop.as_fd().is_none() {
        return;
    }
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    let (fd, stopper) = (ours.try_clone().unwrap(), event_loop.clone());
    event_loop
        .add_reader(&fd, move || {
            ours.read_exact(&mut [0]).unwrap();
            stopper.stop();
        })
        .unwrap();
    for _ in 0..3 {
        theirs.write_all(b"x").unwrap();
        event_loop.run_forever().unwrap();
    }
    assert!(event_loop.remove_reader(&fd).unwrap());
}

fn assert_refuses(event_loop: &EventLoop) {
    let (one, _other) = UnixStream::pair().unwrap();
    for error in [
        event_loop.run_forever().unwrap_err(),
        event_loop.run_until_complete(async { Ok(()) }).unwrap_err(),
        event_loop.run_once(Duration::ZERO).unwrap_err(),
        event_loop.add_reader(&one, || ()).unwrap_err(),
        event_loop.add_writer(&one, || ()).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Runtime, "{error}");
        assert!(error.to_string().contains("parent"), "{error}");
    }
    assert!(!event_loop.is_running());
}

fn a_child_cannot_use_its_parent_s_loop() {
    for event_loop in loops() {
        assert_eq!(fork(|| assert_refuses(&event_loop)), Ended::Exited(0));
        assert_works(&event_loop);
    }
}

fn no_loop_runs_in_a_child_of_a_running_one() {
    for event_loop in loops() {
        let main = async {
            let ended = fork(|| {
                let error = get_running_loop().unwrap_err();
                assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Runtime, "no running event loop"));
                let error = create_task(async { Ok(()) }).result().unwrap_err();
                assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Runtime, "no running event loop"));
                assert_works(&new_loop());
                assert!(asyncio::run(async { Ok(get_running_loop()?.is_running()) }).unwrap());
                assert!(get_running_loop().is_err());
            });
            assert_eq!(ended, Ended::Exited(0));
            assert!(get_running_loop()? == event_loop);
            Ok(())
        };
        event_loop.run_until_complete(main).unwrap();
        assert_works(&event_loop);
    }
}

/// Forks, and returns in both: true in the child. The child must not outlive its test.
fn split(child: &Cell<libc::pid_t>) -> bool {
    // SAFETY: the process has one thread, so the child may do anything.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    child.set(pid);
    pid == 0
}

fn a_child_that_returns_into_its_parent_s_loop_leaves_it() {
    for event_loop in loops() {
        let record = Record::default();
        let pid = Rc::new(Cell::new(-1));
        let (forking, log) = (pid.clone(), record.clone());
        event_loop.call_soon(move || log.push(split(&forking)));
        let (stopper, log, who) = (event_loop.clone(), record.clone(), pid.clone());
        event_loop.call_later(20 * MS, move || {
            log.push(who.get() == 0);
            stopper.stop();
        });
        let ended = event_loop.run_forever();
        if pid.get() == 0 {
            let code = match ended {
                Err(error) if error.kind() == ErrorKind::Runtime && record.take() == [true] => 0,
                _ => 102,
            };
            // SAFETY: it takes a number and does not return.
            unsafe { libc::_exit(code) };
        }
        ended.unwrap();
        assert_eq!(record.take(), [false, false]);
        let mut status = -1;
        // SAFETY: the child is ours and the pointer is valid.
        assert_eq!(unsafe { libc::waitpid(pid.get(), &mut status, 0) }, pid.get());
        assert!(libc::WIFEXITED(status));
        assert_eq!(libc::WEXITSTATUS(status), 0);
        assert_works(&event_loop);
    }
}

fn a_child_may_have_a_loop_of_its_own() {
    for event_loop in loops() {
        tick(&event_loop);
        let ended = fork(|| {
            for own in loops() {
                assert_works(&own);
                own.close().unwrap();
            }
            asyncio::set_event_loop(&new_loop());
            assert_works(&asyncio::get_event_loop().unwrap());
        });
        assert_eq!(ended, Ended::Exited(0));
        assert_works(&event_loop);
    }
}

fn a_grandchild_may_have_a_loop_of_its_own() {
    let event_loop = new_loop();
    let ended = fork(|| {
        let own = new_loop();
        tick(&own);
        let ended = fork(|| {
            assert_refuses(&event_loop);
            assert_refuses(&own);
            assert_works(&new_loop());
        });
        assert_eq!(ended, Ended::Exited(0));
        assert_works(&own);
    });
    assert_eq!(ended, Ended::Exited(0));
    assert_works(&event_loop);
}

fn nothing_that_a_child_does_reaches_its_parent() {
    for event_loop in loops() {
        let reports = handler(&event_loop);
        let record = Record::default();
        let future = event_loop.create_future();
        let (waits, log) = (future.clone(), record.clone());
        let task = event_loop.create_task(async move {
            let value = waits.await?;
            sleep(MS).await?;
            log.push(value);
            Ok(())
        });
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let fd = ours.try_clone().unwrap();
        let has_descriptors = event_loop.as_fd().is_some();
        if has_descriptors {
            let log = record.clone();
            event_loop
                .add_reader(&fd, move || {
                    let mut byte = [0];
                    ours.read_exact(&mut byte).unwrap();
                    log.push(byte[0]);
                })
                .unwrap();
        }
        let log = record.clone();
        let timer = event_loop.call_later(10 * MS, move || log.push(3));
        // The loop counts as asleep: whoever wakes it writes to what wakes it.
        event_loop.run_once(Duration::ZERO).unwrap();
        let ended = fork(|| {
            timer.cancel();
            future.set_result(9).unwrap();
            task.cancel();
            event_loop.call_soon(|| unreachable!("the child does not run it"));
            drop(event_loop.call_soon_threadsafe(|| unreachable!("the child does not run it")));
            event_loop.threadsafe().stop();
            event_loop.stop();
            if has_descriptors {
                assert!(event_loop.remove_reader(&fd).unwrap());
            }
            event_loop.close().unwrap();
            assert!(event_loop.is_closed());
            assert_works(&new_loop());
        });
        assert_eq!(ended, Ended::Exited(0));
        // Not woken, and nothing has happened to it.
        assert_eq!(event_loop.next_deadline(), Some(timer.when()));
        assert!(!task.done() && !future.done() && !timer.cancelled() && !event_loop.is_closed());
        future.set_result(2).unwrap();
        event_loop.run_until_complete(task).unwrap();
        event_loop.run_until_complete(timer).unwrap();
        let mut seen = record.take();
        seen.sort_unstable();
        assert_eq!(seen, [2, 3]);
        if has_descriptors {
            theirs.write_all(&[4]).unwrap();
            tick(&event_loop);
            assert_eq!(record.take(), [4]);
            assert!(event_loop.remove_reader(&fd).unwrap());
        }
        assert_works(&event_loop);
        event_loop.close().unwrap();
        assert!(reports.take().is_empty());
    }
}

fn a_child_forked_by_a_coroutine_does_not_reach_its_parent() {
    for event_loop in loops() {
        let gate = crate::support::Gate::default();
        let (waits, log) = (gate.clone(), Record::default());
        let seen = log.clone();
        let task = event_loop.create_task(async move {
            waits.await;
            seen.push("parent");
            Ok(())
        });
        let main = async {
            sleep(Duration::ZERO).await?;
            let ended = fork(|| {
                gate.open();
                let own = new_loop();
                own.run_until_complete(sleep(MS)).unwrap();
                assert_eq!(log.len(), 0, "the parent's task does not run in the child's loop");
                own.close().unwrap();
            });
            assert_eq!(ended, Ended::Exited(0));
            sleep(MS).await?;
            assert!(!task.done());
            gate.open();
            task.await
        };
        let begin = Instant::now();
        event_loop.run_until_complete(main).unwrap();
        assert!(begin.elapsed() < MINUTE);
        assert_eq!(log.take(), ["parent"]);
    }
}

/// A protocol that sends back what it gets.
#[derive(Default)]
struct Echo(Option<Transport>);

impl Protocol for Echo {
    fn connection_made(&mut self, transport: &Transport) {
        self.0 = Some(transport.clone());
    }

    fn data_received(&mut self, data: &[u8]) {
        if let Some(transport) = &self.0 {
            transport.write(data);
        }
    }

    fn connection_lost(&mut self, _error: Option<&Error>) {
        self.0 = None;
    }
}

fn a_child_that_drops_a_loop_leaves_its_servers_and_transports() {
    for (index, event_loop) in loops().into_iter().take(2).enumerate() {
        let path = std::env::temp_dir().join(format!("asyncio-forked-{}-{index}", std::process::id()));
        let opening = event_loop.create_unix_server(Echo::default, &path);
        let server = event_loop.run_until_complete(opening).unwrap();
        let mut before = UnixStream::connect(&path).unwrap();
        before.set_nonblocking(true).unwrap();
        (0..3).for_each(|_| tick(&event_loop));

        let ended = fork(|| {
            server.close();
            drop(server.clone());
            drop(event_loop.clone());
            // As at the end of a child that has the last handle.
            let _ = event_loop.close();
        });
        assert_eq!(ended, Ended::Exited(0));

        assert!(path.exists(), "the child has removed its parent's socket");
        let mut after = UnixStream::connect(&path).unwrap();
        after.set_nonblocking(true).unwrap();
        for client in [&mut before, &mut after] {
            client.write_all(b"hello").unwrap();
            let (begin, mut answer) = (Instant::now(), Vec::new());
            while answer.len() < 5 {
                assert!(begin.elapsed() < MINUTE, "no answer");
                tick(&event_loop);
                let mut buffer = [0; 5];
                if let Ok(count) = client.read(&mut buffer) {
                    answer.extend_from_slice(&buffer[..count]);
                }
            }
            assert_eq!(answer, b"hello");
        }
        drop((before, after));
        server.close();
        event_loop.run_until_complete(server.wait_closed()).unwrap();
        assert!(!path.exists());
    }
}
