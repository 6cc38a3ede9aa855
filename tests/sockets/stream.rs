//! sock_recv, sock_recv_into and sock_sendall on streams.

use std::{
    cell::Cell,
    future::Future as StdFuture,
    io::{ErrorKind as IoErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use asyncio::{Error, ErrorKind, EventLoop};
use futures::future::{Either, FutureExt, join, select};

use crate::{
    On, at_number, begins_to_wait, fill, own_number, pair, poll_once, reset, support::Record, tcp_pair, tcp_pair_on,
    turn, until_readable,
};

on_each_selector! {
    what_is_there_is_received_at_the_first_poll
    a_wait_ends_with_what_came
    what_was_not_asked_for_stays
    the_end_of_the_peer_is_no_bytes
    a_cancelled_receive_leaves_nothing_behind
    a_dropped_receive_loses_nothing
    the_loser_of_a_select_loses_nothing
    a_cancellation_comes_before_bytes_that_came_too
    a_cancelled_send_makes_room_for_the_next
    a_cancelled_receive_makes_room_for_the_next
    a_cancelled_send_leaves_nothing_behind
    a_dropped_wait_is_gone_even_from_another_thread
    a_large_echo_is_identical
    receiving_goes_on_while_sending_is_blocked
    a_second_call_that_would_wait_is_refused
    a_wait_polled_by_another_task_wakes_that_one
    polls_without_reason_keep_the_wait
    blocking_sockets_are_refused_in_debug_mode
    blocking_sockets_do_not_block_the_loop
    nothing_is_received_and_sent_at_once
    the_largest_sizes_are_allowed
    a_reset_is_an_error
    a_broken_connection_is_an_error_and_no_signal
    half_of_a_connection_may_end
    anything_that_lends_a_descriptor_will_do
    what_is_no_socket_is_an_error
    calls_without_a_running_loop_are_refused
    calls_under_another_loop_are_refused
    calls_while_the_loop_closes_are_refused
    closing_the_loop_drops_the_waits
    a_thousand_sockets_at_once
    a_steady_echo_is_correct
    a_stream_over_ipv6
    a_waiting_call_holds_a_virtual_clock
    a_panic_beside_a_wait_leaves_nothing_behind
    duplicates_wait_apart
    a_reused_number_is_received_from
}

/// SOK-001
fn what_is_there_is_received_at_the_first_poll(on: On) {
    let event_loop = on.event_loop();
    let (a, mut b) = pair();
    b.write_all(b"hi").unwrap();
    event_loop.run(async {
        let ran = Rc::new(Cell::new(0));
        let seen = ran.clone();
        event_loop.call_soon(move || seen.set(seen.get() + 1));
        assert_eq!(event_loop.sock_recv(&a, 10).await?, b"hi");
        assert_eq!(ran.get(), 0);
        b.write_all(b"again")?;
        let mut buffer = [0; 10];
        assert_eq!(event_loop.sock_recv_into(&a, &mut buffer).await?, 5);
        assert_eq!(&buffer[..6], b"again\0");
        event_loop.sock_sendall(&a, b"back").await?;
        assert_eq!(ran.get(), 0);
        turn().await;
        assert_eq!(ran.get(), 1);
        Ok(())
    });
}

/// SOK-003
fn a_wait_ends_with_what_came(on: On) {
    let event_loop = on.event_loop();
    for (a, mut b) in [tcp_pair().into_fds(), pair().into_fds()] {
        let (a, receiver) = (Rc::new(a), event_loop.event_loop.clone());
        let fd = a.clone();
        let task = event_loop.create_task(async move { receiver.sock_recv(&*fd, 1024).await });
        event_loop.ticks(3);
        assert!(!task.done());
        b.write_all(b"12345").unwrap();
        assert_eq!(event_loop.run(task), b"12345");

        let (receiver, fd) = (event_loop.event_loop.clone(), a.clone());
        let task = event_loop.create_task(async move { receiver.sock_recv(&*fd, 3).await });
        event_loop.ticks(3);
        assert!(!task.done());
        b.write_all(b"abcde").unwrap();
        assert_eq!(event_loop.run(task), b"abc");
        assert_eq!(event_loop.run(event_loop.sock_recv(&*a, 3)), b"de");
    }
}

/// Streams of either kind as one type.
trait IntoFds {
    fn into_fds(self) -> (OwnedFd, socket2::Socket);
}

impl<S: Into<OwnedFd>> IntoFds for (S, S) {
    fn into_fds(self) -> (OwnedFd, socket2::Socket) {
        (self.0.into(), self.1.into().into())
    }
}

fn what_was_not_asked_for_stays(on: On) {
    let event_loop = on.event_loop();
    let (a, mut b) = pair();
    b.write_all(b"0123456789").unwrap();
    let mut buffer = [b'.'; 4];
    assert_eq!(event_loop.run(event_loop.sock_recv(&a, 1)), b"0");
    assert_eq!(event_loop.run(event_loop.sock_recv_into(&a, &mut buffer)), 4);
    assert_eq!(&buffer, b"1234");
    assert_eq!(event_loop.run(event_loop.sock_recv_into(&a, &mut buffer[1..3])), 2);
    assert_eq!(&buffer, b"1564");
    assert_eq!(event_loop.run(event_loop.sock_recv(&a, 100)), b"789");
}

/// SOK-004
fn the_end_of_the_peer_is_no_bytes(on: On) {
    let event_loop = on.event_loop();
    for (a, b) in [tcp_pair().into_fds(), pair().into_fds()] {
        event_loop.run(async {
            let mut waiting = Box::pin(event_loop.sock_recv(&a, 10));
            begins_to_wait(waiting.as_mut()).await;
            drop(b);
            assert_eq!(waiting.await?, b"");
            assert_eq!(event_loop.sock_recv_into(&a, &mut [0; 10]).await?, 0);
            assert_eq!(event_loop.sock_recv(&a, 10).await?, b"");
            Ok(())
        });
    }
}

/// SOK-005
fn a_cancelled_receive_leaves_nothing_behind(on: On) {
    let event_loop = on.event_loop();
    let (a, mut b) = pair();
    let a = Rc::new(a);
    for into in [false, true] {
        let (receiver, fd) = (event_loop.event_loop.clone(), a.clone());
        let task = event_loop.create_task(async move {
            if into {
                receiver.sock_recv_into(&*fd, &mut [0; 10]).await?;
            } else {
                receiver.sock_recv(&*fd, 10).await?;
            }
            Ok(())
        });
        event_loop.ticks(2);
        task.cancel();
        assert!(event_loop.run_until_complete(task).unwrap_err().is_cancelled());
        assert!(!event_loop.remove_reader(&*a).unwrap());
        b.write_all(b"data").unwrap();
        assert_eq!(event_loop.run_once(Duration::ZERO).unwrap(), 0, "nobody is woken");
        assert_eq!(event_loop.run(event_loop.sock_recv(&*a, 10)), b"data");
    }
    event_loop.add_reader(&*a, || ()).unwrap();
    assert!(event_loop.remove_reader(&*a).unwrap());
}

fn a_dropped_receive_loses_nothing(on: On) {
    let event_loop = on.event_loop();
    let (a, mut b) = pair();
    event_loop.run(async {
        for round in 0..10_u8 {
            let mut waiting = Box::pin(event_loop.sock_recv(&a, 10));
            begins_to_wait(waiting.as_mut()).await;
            if round % 2 == 0 {
                // The bytes are there, and perhaps the loop has noticed.
                b.write_all(&[round])?;
                turn().await;
            }
            drop(waiting);
            if round % 2 == 1 {
                b.write_all(&[round])?;
            }
            assert_eq!(event_loop.sock_recv(&a, 10).await?, [round]);
        }
        Ok(())
    });
}

fn the_loser_of_a_select_loses_nothing(on: On) {
    let event_loop = on.event_loop();
    let (a, mut b) = pair();
    event_loop.run(async {
        for round in 0..5_u8 {
            let receive = Box::pin(event_loop.sock_recv(&a, 10));
            let sleep = asyncio::sleep(Duration::from_micros(100));
            let Either::Right((slept, loser)) = select(receive, sleep).await else { panic!("nothing was sent") };
            slept?;
            drop(loser);
            b.write_all(&[round])?;
            let receive = Box::pin(event_loop.sock_recv(&a, 10));
            match select(receive, asyncio::sleep(Duration::from_secs(30))).await {
                Either::Left((received, _)) => assert_eq!(received?, [round]),
                Either::Right(_) => panic!("the bytes were lost"),
            }
        }
        Ok(())
    });
}

fn a_cancellation_comes_before_bytes_that_came_too(on: On) {
    let event_loop = on.event_loop();
    let (a, mut b) = pair();
    let a = Rc::new(a);
    for cancel_first in [true, false] {
        let (receiver, fd) = (event_loop.event_loop.clone(), a.clone());
        let task = event_loop.create_task(async move { receiver.sock_recv(&*fd, 10).await });
        event_loop.ticks(2);
        if cancel_first {
            task.cancel();
            b.write_all(b"data").unwrap();
        } else {
            b.write_all(b"data").unwrap();
            // The event wakes the task in the iteration in which this callback runs, before it.
            let cancelled = task.any();
            event_loop.call_soon(move || cancelled.cancel());
        }
        event_loop.ticks(3);
        if task.cancelled() {
            assert_eq!(event_loop.run(event_loop.sock_recv(&*a, 10)), b"data");
        } else {
            assert!(!cancel_first);
            assert_eq!(event_loop.run(task), b"data");
        }
    }
}

/// SOK-008
fn a_cancelled_send_makes_room_for_the_next(on: On) {
    let event_loop = on.event_loop();
    let (a, mut b) = pair();
    let filled = fill(&a);
    let a = Rc::new(a);
    event_loop.run(async {
        let (sender, fd) = (event_loop.event_loop.clone(), a.clone());
        let task = event_loop.create_task(async move { sender.sock_sendall(&*fd, b"hello").await });
        turn().await;
        task.cancel();
        let mut second = Box::pin(event_loop.sock_sendall(&*a, b"world"));
        begins_to_wait(second.as_mut()).await;
        b.set_nonblocking(false)?;
        let peer = thread::spawn(move || {
            let mut all = Vec::new();
            b.read_to_end(&mut all).map(|_| all)
        });
        second.await?;
        assert!(task.await.unwrap_err().is_cancelled());
        a.shutdown(Shutdown::Write)?;
        let all = peer.join().unwrap()?;
        assert!(all.ends_with(b"world"), "{:?}", String::from_utf8_lossy(&all[filled.min(all.len())..]));
        assert_eq!(all.len(), filled + 5, "and nothing of the first");
        Ok(())
    });
}

fn a_cancelled_receive_makes_room_for_the_next(on: On) {
    let event_loop = on.event_loop();
    let (a, mut b) = pair();
    let a = Rc::new(a);
    event_loop.run(async {
        let (receiver, fd) = (event_loop.event_loop.clone(), a.clone());
        let first = event_loop.create_task(async move { receiver.sock_recv(&*fd, 10).await });
        let (receiver, fd) = (event_loop.event_loop.clone(), a.clone());
        // It waits by way of another task, which passes the cancellation on.
        let outer = event_loop.create_task(async move {
            turn().await;
            receiver.create_task(async move { get_loop().sock_recv(&*fd, 10).await }).await
        });
        turn().await;
        first.cancel();
        for _ in 0..4 {
            turn().await;
        }
        assert!(first.cancelled() && !outer.done());
        assert_eq!(event_loop.sock_recv(&*a, 10).await.unwrap_err().kind(), ErrorKind::Runtime);
        outer.cancel();
        let mut third = Box::pin(event_loop.sock_recv(&*a, 10));
        begins_to_wait(third.as_mut()).await;
        turn().await;
        turn().await;
        assert!(outer.await.unwrap_err().is_cancelled());
        b.write_all(b"third")?;
        assert_eq!(third.await?, b"third");

        // A reader may take the place of a cancelled wait as well.
        let (receiver, fd) = (event_loop.event_loop.clone(), a.clone());
        let fourth = event_loop.create_task(async move { receiver.sock_recv(&*fd, 10).await });
        turn().await;
        assert!(event_loop.add_reader(&*a, || ()).is_err());
        fourth.cancel();
        event_loop.add_reader(&*a, || ())?;
        assert!(fourth.await.unwrap_err().is_cancelled());
        assert!(event_loop.remove_reader(&*a)?, "the end of the cancelled wait leaves the reader alone");
        Ok(())
    });
}

fn get_loop() -> EventLoop {
    asyncio::get_running_loop().unwrap()
}

/// SOK-011
fn a_cancelled_send_leaves_nothing_behind(on: On) {
    let event_loop = on.event_loop();
    for (a, b) in [tcp_pair().into_fds(), pair().into_fds()] {
        let a = Rc::new(a);
        let (sender, fd) = (event_loop.event_loop.clone(), a.clone());
        let task = event_loop.create_task(async move { sender.sock_sendall(&*fd, &vec![7; 200 << 20]).await });
        let cancelled = task.any();
        event_loop.call_later(Duration::from_millis(200), move || assert!(cancelled.cancel()));
        assert!(event_loop.run_until_complete(task).unwrap_err().is_cancelled());
        assert!(!event_loop.remove_writer(&*a).unwrap());
        drop(Rc::into_inner(a).expect("the task has let it go"));
        drop(b);
        event_loop.ticks(2);
    }
}

fn a_dropped_wait_is_gone_even_from_another_thread(on: On) {
    let event_loop = on.event_loop();
    let (a, mut b) = pair();
    event_loop.run(async {
        let mut waiting = Box::pin(event_loop.sock_recv(&a, 10));
        begins_to_wait(waiting.as_mut()).await;
        thread::scope(|scope| scope.spawn(move || drop(waiting)).join()).unwrap();
        turn().await;
        let mut next = Box::pin(event_loop.sock_recv(&a, 10));
        begins_to_wait(next.as_mut()).await;
        b.write_all(b"x")?;
        assert_eq!(next.await?, b"x");
        Ok(())
    });
}

/// SOK-009
fn a_large_echo_is_identical(on: On) {
    let event_loop = on.event_loop();
    let payload: Arc<Vec<u8>> = Arc::new((0..1_000_000_u32).map(|i| (i * 7 + i / 251) as u8).collect());
    for (a, b) in [tcp_pair().into_fds(), pair().into_fds()] {
        // Nothing could go on if one direction waited for the other.
        with_small_buffers([a.as_fd(), b.as_fd()]);
        b.set_nonblocking(false).unwrap();
        let peer = thread::spawn(move || echo(b));
        let (a, record) = (Rc::new(a), Record::default());
        let (sender, fd, data, log) = (event_loop.event_loop.clone(), a.clone(), payload.clone(), record.clone());
        let sending = event_loop.create_task(async move {
            sender.sock_sendall(&*fd, &data).await?;
            log.push("sent");
            socket2::SockRef::from(&*fd).shutdown(Shutdown::Write)?;
            Ok(())
        });
        event_loop.run(async {
            let (mut all, mut buffer) = (Vec::new(), vec![0; 5000]);
            while all.len() < payload.len() {
                record.push("receiving");
                if all.len() % 2 == 0 {
                    all.extend(event_loop.sock_recv(&*a, 10_000).await?);
                } else {
                    let count = event_loop.sock_recv_into(&*a, &mut buffer).await?;
                    all.extend(&buffer[..count]);
                }
            }
            assert!(all == **payload, "the echo differs");
            assert_eq!(event_loop.sock_recv(&*a, 1).await?, b"");
            sending.await
        });
        let order = record.take();
        let sent = order.iter().position(|entry| *entry == "sent").unwrap();
        assert!(sent > 5, "nothing was received before all was sent: {sent}");
        peer.join().unwrap();
    }
}

fn echo(mut stream: impl Read + Write) {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => return,
            count => stream.write_all(&buffer[..count]).unwrap(),
        }
    }
}

fn with_small_buffers(fds: [BorrowedFd<'_>; 2]) {
    for fd in fds {
        let socket = socket2::SockRef::from(&fd);
        socket.set_send_buffer_size(64 << 10).unwrap();
        socket.set_recv_buffer_size(64 << 10).unwrap();
    }
}

/// SOK-010
fn receiving_goes_on_while_sending_is_blocked(on: On) {
    let event_loop = on.event_loop();
    for (a, mut b) in [tcp_pair().into_fds(), pair().into_fds()] {
        with_small_buffers([a.as_fd(), b.as_fd()]);
        let a = Rc::new(a);
        let data = vec![9; 3_000_000];
        event_loop.run(async {
            let mut receiving = Box::pin(event_loop.sock_recv(&*a, 10));
            begins_to_wait(receiving.as_mut()).await;
            let (sender, fd) = (event_loop.event_loop.clone(), a.clone());
            let sending = event_loop.create_task(async move { sender.sock_sendall(&*fd, &data).await });
            turn().await;
            assert!(!sending.done());
            b.write_all(b"in")?;
            assert_eq!(receiving.await?, b"in");
            assert!(!sending.done());
            b.set_nonblocking(false)?;
            let peer = thread::spawn(move || {
                let mut all = vec![0; 3_000_000];
                b.read_exact(&mut all).unwrap();
                (all.iter().all(|byte| *byte == 9), b)
            });
            sending.await?;
            assert!(peer.join().unwrap().0);
            Ok(())
        });
    }
}

fn a_second_call_that_would_wait_is_refused(on: On) {
    let event_loop = on.event_loop();
    let (a, mut b) = pair();
    event_loop.run(async {
        let mut first = Box::pin(event_loop.sock_recv(&a, 10));
        begins_to_wait(first.as_mut()).await;
        for _ in 0..2 {
            let error = event_loop.sock_recv(&a, 10).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Runtime);
            assert!(error.to_string().contains("another call is waiting to read"), "{error}");
            assert_eq!(event_loop.sock_recv_into(&a, &mut [0; 3]).await.unwrap_err().kind(), ErrorKind::Runtime);
        }
        assert!(poll_in_task(first.as_mut()).await.is_pending(), "the first still waits");
        drop(first);
        let mut second = Box::pin(event_loop.sock_recv(&a, 10));
        begins_to_wait(second.as_mut()).await;
        b.write_all(b"12")?;
        // What is ready needs no wait, so this one takes the bytes, and the other goes on waiting.
        assert_eq!(event_loop.sock_recv(&a, 1).await?, b"1");
        assert_eq!(event_loop.sock_recv(&a, 1).await?, b"2");
        turn().await;
        turn().await;
        assert!(poll_in_task(second.as_mut()).await.is_pending());
        b.write_all(b"3")?;
        assert_eq!(second.await?, b"3");

        let filled = fill(&a);
        let mut first = Box::pin(event_loop.sock_sendall(&a, b"first"));
        begins_to_wait(first.as_mut()).await;
        let error = event_loop.sock_sendall(&a, b"second").await.unwrap_err();
        assert!(error.to_string().contains("another call is waiting to write"), "{error}");
        b.read_exact(&mut vec![0; filled])?;
        first.await?;
        let mut rest = [0; 6];
        assert_eq!(b.read(&mut rest)?, 5);
        assert_eq!(&rest[..5], b"first");
        Ok(())
    });
}

async fn poll_in_task<F: StdFuture>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

fn a_wait_polled_by_another_task_wakes_that_one(on: On) {
    let event_loop = on.event_loop();
    let (a, mut b) = pair();
    let fd = Rc::new(a);
    let receive = || {
        let fd = fd.clone();
        Box::pin(async move { get_loop().sock_recv(&*fd, 10).await })
    };
    event_loop.run(async {
        let mut waiting = receive();
        begins_to_wait(waiting.as_mut()).await;
        let other = asyncio::create_task(waiting);
        turn().await;
        assert!(!other.done());
        b.write_all(b"moved")?;
        assert_eq!(other.await?, b"moved");
        // The wait is the second task's, and so is its cancellation.
        let mut waiting = receive();
        begins_to_wait(waiting.as_mut()).await;
        let other = asyncio::create_task(waiting);
        turn().await;
        other.cancel();
        let mut next = receive();
        begins_to_wait(next.as_mut()).await;
        assert!(other.await.unwrap_err().is_cancelled());
        b.write_all(b"next")?;
        assert_eq!(next.await?, b"next");
        Ok(())
    });
}

fn polls_without_reason_keep_the_wait(on: On) {
    let event_loop = on.event_loop();
    let (a, mut b) = pair();
    event_loop.run(async {
        let receiving = async {
            let mut receiving = Box::pin(event_loop.sock_recv(&a, 10));
            begins_to_wait(receiving.as_mut()).await;
            for _ in 0..5 {
                assert!(poll_in_task(receiving.as_mut()).await.is_pending());
                assert!(poll_once(receiving.as_mut()).is_pending(), "under a waker that wakes nobody");
                assert!(poll_in_task(receiving.as_mut()).await.is_pending());
            }
            receiving.await
        };
        let others = async {
            for _ in 0..5 {
                turn().await;
            }
            b.write_all(b"woken")
        };
        let (received, others) = join(receiving, others).await;
        others?;
        assert_eq!(received?, b"woken");
        Ok(())
    });
}

/// SOK-018: sock_sendfile is not built yet.
fn blocking_sockets_are_refused_in_debug_mode(on: On) {
    #[track_caller]
    fn refused<T: std::fmt::Debug>(result: asyncio::Result<T>) {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Value);
        assert!(error.to_string().contains("non-blocking"), "{error}");
    }
    let event_loop = on.event_loop();
    let (a, mut b) = pair();
    b.write_all(b"x").unwrap();
    a.set_nonblocking(false).unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let here = udp.local_addr().unwrap();
    udp.send_to(b"x", here).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let tcp = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    until_readable(&udp);
    until_readable(&listener);
    for debug in [true, false] {
        event_loop.set_debug(debug);
        event_loop.run(async {
            if debug {
                refused(event_loop.sock_recv(&a, 1).await);
                refused(event_loop.sock_recv_into(&a, &mut [0]).await);
                refused(event_loop.sock_recvfrom(&udp, 1).await);
                refused(event_loop.sock_recvfrom_into(&udp, &mut [0]).await);
                refused(event_loop.sock_sendall(&a, b"x").await);
                refused(event_loop.sock_sendto(&udp, b"x", here).await);
                refused(event_loop.sock_sendto(&udp, b"x", ("a name", 1)).await);
            }
            refused(event_loop.sock_connect(&tcp, listener.local_addr()?).await);
            refused(event_loop.sock_connect(&tcp, ("a name", 1)).await);
            refused(event_loop.sock_accept(&listener).await);
            Ok(())
        });
    }
    // Nothing was done: what was there is there.
    assert!(tcp.peer_addr().is_err());
    assert_eq!(event_loop.run(event_loop.sock_recv(&a, 10)), b"x");
    assert_eq!(event_loop.run(event_loop.sock_recvfrom(&udp, 10)), (b"x".to_vec(), here.into()));
    assert_eq!(b.read(&mut [0; 9]).unwrap_err().kind(), IoErrorKind::WouldBlock);
    assert_eq!(listener.accept().unwrap().1, client.local_addr().unwrap());
    // In debug mode, non-blocking sockets are as good as ever.
    event_loop.set_debug(true);
    a.set_nonblocking(true).unwrap();
    b.write_all(b"y").unwrap();
    assert_eq!(event_loop.run(event_loop.sock_recv(&a, 10)), b"y");
}

fn blocking_sockets_do_not_block_the_loop(on: On) {
    let event_loop = on.event_loop();
    let (a, mut b) = pair();
    let filled = fill(&a);
    a.set_nonblocking(false).unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let here = udp.local_addr().unwrap();
    event_loop.run(async {
        let mut receiving = Box::pin(event_loop.sock_recv(&a, 10));
        let mut sending = Box::pin(event_loop.sock_sendall(&a, &[1; 100_000]));
        let mut datagram = Box::pin(event_loop.sock_recvfrom(&udp, 10));
        begins_to_wait(receiving.as_mut()).await;
        begins_to_wait(sending.as_mut()).await;
        begins_to_wait(datagram.as_mut()).await;
        b.set_nonblocking(false)?;
        b.write_all(b"in")?;
        assert_eq!(receiving.await?, b"in");
        let mut buffer = [0; 10];
        let mut receiving = Box::pin(event_loop.sock_recv_into(&a, &mut buffer));
        begins_to_wait(receiving.as_mut()).await;
        let peer = thread::spawn(move || {
            b.read_exact(&mut vec![0; filled + 100_000]).unwrap();
            b
        });
        sending.await?;
        drop(peer.join().unwrap());
        assert_eq!(receiving.await?, 0);
        assert_eq!(event_loop.sock_sendto(&udp, b"to me", here).await?, 5);
        assert_eq!(datagram.await?, (b"to me".to_vec(), here.into()));
        let mut buffer = [0; 3];
        let mut datagram = Box::pin(event_loop.sock_recvfrom_into(&udp, &mut buffer));
        begins_to_wait(datagram.as_mut()).await;
        drop(datagram);
        Ok(())
    });
}

fn nothing_is_received_and_sent_at_once(on: On) {
    let event_loop = on.event_loop();
    for (a, mut b) in [tcp_pair().into_fds(), pair().into_fds()] {
        event_loop.run(async {
            assert_eq!(event_loop.sock_recv(&a, 0).await?, b"");
            assert_eq!(event_loop.sock_recv_into(&a, &mut []).await?, 0);
            event_loop.sock_sendall(&a, b"").await?;
            b.write_all(b"kept")?;
            until_readable(&a);
            assert_eq!(event_loop.sock_recv(&a, 0).await?, b"");
            assert_eq!(event_loop.sock_recv_into(&a, &mut []).await?, 0);
            assert_eq!(event_loop.sock_recv(&a, 10).await?, b"kept");
            assert_eq!(b.read(&mut [0; 9]).unwrap_err().kind(), IoErrorKind::WouldBlock, "nothing was sent");
            Ok(())
        });
    }
}

fn the_largest_sizes_are_allowed(on: On) {
    let event_loop = on.event_loop();
    let (a, mut b) = pair();
    event_loop.run(async {
        for size in [usize::MAX, usize::MAX / 2, isize::MAX as usize, 1 << 40, 1 << 30] {
            let mut waiting = Box::pin(event_loop.sock_recv(&a, size));
            begins_to_wait(waiting.as_mut()).await;
            b.write_all(b"few")?;
            let received = waiting.await?;
            assert_eq!(received, b"few");
            assert!(received.capacity() < 1 << 20, "{}", received.capacity());
        }
        Ok(())
    });
}

fn a_reset_is_an_error(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let (a, b) = tcp_pair();
        let mut waiting = Box::pin(event_loop.sock_recv(&a, 10));
        begins_to_wait(waiting.as_mut()).await;
        reset(b);
        assert_eq!(waiting.await.unwrap_err().raw_os_error(), Some(libc::ECONNRESET));
        assert!(!event_loop.remove_reader(&a)?);
        assert_eq!(event_loop.sock_recv(&a, 10).await?, b"", "as the system has it");

        let (a, b) = tcp_pair();
        let mut receiving = Box::pin(event_loop.sock_recv(&a, 10));
        let data = vec![1; 100 << 20];
        let mut sending = Box::pin(event_loop.sock_sendall(&a, &data));
        begins_to_wait(receiving.as_mut()).await;
        begins_to_wait(sending.as_mut()).await;
        reset(b);
        let (received, sent) = join(receiving, sending).await;
        // The reset is told once, to whoever asks first.
        let codes = [received.err().and_then(|error| error.raw_os_error()), sent.unwrap_err().raw_os_error()];
        assert!(codes.contains(&Some(libc::ECONNRESET)), "{codes:?}");
        assert!([Some(libc::ECONNRESET), Some(libc::EPIPE)].contains(&codes[1]), "{codes:?}");
        Ok(())
    });
}

fn a_broken_connection_is_an_error_and_no_signal(on: On) {
    if !on.in_child() {
        return;
    }
    // The harness ignores SIGPIPE; here it would end the process.
    #[expect(unsafe_code, reason = "std cannot give SIGPIPE its default back")]
    // SAFETY: no handler is installed, and this process runs no other test.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
    let event_loop = on.event_loop();
    event_loop.run(async {
        let (a, b) = pair();
        drop(b);
        for data in [&b"x"[..], &[0; 1 << 20]] {
            assert_eq!(event_loop.sock_sendall(&a, data).await.unwrap_err().raw_os_error(), Some(libc::EPIPE));
        }
        let (a, b) = pair();
        let data = vec![0; 10 << 20];
        let mut waiting = Box::pin(event_loop.sock_sendall(&a, &data));
        begins_to_wait(waiting.as_mut()).await;
        drop(b);
        let code = waiting.await.unwrap_err().raw_os_error();
        assert!([Some(libc::EPIPE), Some(libc::ECONNRESET)].contains(&code), "{code:?}");
        assert!(!event_loop.remove_writer(&a)?);
        let (a, _b) = tcp_pair();
        a.shutdown(Shutdown::Write)?;
        let error = event_loop.sock_sendall(&a, b"x").await.unwrap_err();
        assert_eq!(error.io_error().unwrap().kind(), IoErrorKind::BrokenPipe);
        let (a, b) = std::os::unix::net::UnixDatagram::pair()?;
        drop(b);
        let nowhere = std::path::Path::new("/nonexistent/socket");
        assert!(event_loop.sock_sendto(&a, b"x", nowhere).await.is_err());
        Ok(())
    });
}

fn half_of_a_connection_may_end(on: On) {
    let event_loop = on.event_loop();
    for (a, mut b) in [tcp_pair().into_fds(), pair().into_fds()] {
        event_loop.run(async {
            b.shutdown(Shutdown::Write)?;
            assert_eq!(event_loop.sock_recv(&a, 10).await?, b"");
            event_loop.sock_sendall(&a, b"still").await?;
            until_readable(&b);
            let mut buffer = [0; 5];
            b.read_exact(&mut buffer)?;
            assert_eq!(&buffer, b"still");
            Ok(())
        });
    }
}

fn anything_that_lends_a_descriptor_will_do(on: On) {
    async fn send_and_receive<S: AsFd>(event_loop: &EventLoop, socket: S, peer: &UnixStream) -> asyncio::Result<()> {
        let (mut peer, mut buffer) = (peer, [0; 4]);
        event_loop.sock_sendall(&socket, b"ping").await?;
        peer.read_exact(&mut buffer)?;
        let mut waiting = Box::pin(event_loop.sock_recv(&socket, 10));
        begins_to_wait(waiting.as_mut()).await;
        peer.write_all(b"pong")?;
        assert_eq!(waiting.await?, b"pong");
        event_loop.add_reader(&socket, || ())?;
        event_loop.add_writer(socket.as_fd(), || ())?;
        assert!(event_loop.remove_reader(&socket.as_fd())?);
        assert!(event_loop.remove_writer(&socket.as_fd().as_raw_fd())?);
        Ok(())
    }
    let event_loop = on.event_loop();
    let (a, b) = pair();
    let owned = || OwnedFd::from(a.try_clone().unwrap());
    event_loop.run(async {
        send_and_receive(&event_loop, &a, &b).await?;
        send_and_receive(&event_loop, a.as_fd(), &b).await?;
        send_and_receive(&event_loop, Rc::new(a.try_clone()?), &b).await?;
        send_and_receive(&event_loop, Arc::new(a.try_clone()?), &b).await?;
        send_and_receive(&event_loop, Box::new(a.try_clone()?), &b).await?;
        send_and_receive(&event_loop, owned(), &b).await?;
        send_and_receive(&event_loop, socket2::Socket::from(owned()), &b).await?;
        // What its own type calls a file is a socket all the same.
        send_and_receive(&event_loop, std::fs::File::from(owned()), &b).await?;
        let (c, d): (OwnedFd, OwnedFd) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            rustix::net::SocketFlags::NONBLOCK | rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .map_err(std::io::Error::from)?;
        send_and_receive(&event_loop, &c, &UnixStream::from(d)).await?;
        send_and_receive(&event_loop, &&&a, &b).await
    });
}

fn what_is_no_socket_is_an_error(on: On) {
    let event_loop = on.event_loop();
    let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    event_loop.run(async {
        for fd in [file.as_fd(), reader.as_fd(), writer.as_fd()] {
            let not_a_socket = Some(libc::ENOTSOCK);
            assert_eq!(event_loop.sock_recv(&fd, 1).await.unwrap_err().raw_os_error(), not_a_socket);
            assert_eq!(event_loop.sock_recv_into(&fd, &mut [0]).await.unwrap_err().raw_os_error(), not_a_socket);
            assert_eq!(event_loop.sock_recvfrom(&fd, 1).await.unwrap_err().raw_os_error(), not_a_socket);
            assert_eq!(event_loop.sock_sendall(&fd, b"x").await.unwrap_err().raw_os_error(), not_a_socket);
        }
        let unconnected = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        let code = event_loop.sock_recv(&unconnected, 1).await.unwrap_err().raw_os_error();
        assert_eq!(code, Some(libc::ENOTCONN));
        Ok(())
    });
}

fn calls_without_a_running_loop_are_refused(on: On) {
    #[track_caller]
    fn refused<T: std::fmt::Debug>(future: impl StdFuture<Output = asyncio::Result<T>>) {
        let Poll::Ready(Err(error)) = poll_once(std::pin::pin!(future)) else { panic!("it was not refused") };
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Runtime, "no running event loop"));
    }
    let event_loop = on.event_loop();
    let (a, mut b) = pair();
    b.write_all(b"x").unwrap();
    let address = "127.0.0.1:9".parse::<std::net::SocketAddr>().unwrap();
    for closed in [false, true] {
        refused(event_loop.sock_recv(&a, 1));
        refused(event_loop.sock_recv_into(&a, &mut [0]));
        refused(event_loop.sock_recvfrom(&a, 1));
        refused(event_loop.sock_recvfrom_into(&a, &mut [0]));
        refused(event_loop.sock_sendall(&a, b"y"));
        refused(event_loop.sock_sendto(&a, b"y", address));
        refused(event_loop.sock_connect(&a, address));
        refused(event_loop.sock_accept(&a));
        if !closed {
            event_loop.close().unwrap();
        }
    }
    assert_eq!(b.read(&mut [0]).unwrap_err().kind(), IoErrorKind::WouldBlock, "nothing was sent");
    let (first, second) = (on.event_loop(), on.event_loop());
    drop(first);
    assert_eq!(second.run(second.sock_recv(&a, 9)), b"x", "nothing was received");
}

fn calls_under_another_loop_are_refused(on: On) {
    #[track_caller]
    fn refused<T: std::fmt::Debug>(result: asyncio::Result<T>) {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Value);
        assert!(error.to_string().contains("different loop"), "{error}");
    }
    let (one, other) = (on.event_loop(), on.event_loop());
    let (a, mut b) = pair();
    b.write_all(b"x").unwrap();
    let address = "127.0.0.1:9".parse::<std::net::SocketAddr>().unwrap();
    for closed in [false, true] {
        other.run(async {
            refused(one.sock_recv(&a, 1).await);
            refused(one.sock_recv_into(&a, &mut [0]).await);
            refused(one.sock_recvfrom(&a, 1).await);
            refused(one.sock_recvfrom_into(&a, &mut [0]).await);
            refused(one.sock_sendall(&a, b"y").await);
            refused(one.sock_sendto(&a, b"y", address).await);
            refused(one.sock_connect(&a, address).await);
            refused(one.sock_accept(&a).await);
            Ok(())
        });
        if !closed {
            // One that waits already still waits afterwards, in its own loop.
            b.write_all(b"y").unwrap();
            one.run(async {
                assert_eq!(one.sock_recv(&a, 9).await?, b"xy");
                Ok(())
            });
            let mut waiting = Box::pin(one.sock_recv(&a, 9));
            one.run(async {
                begins_to_wait(waiting.as_mut()).await;
                Ok(())
            });
            refused(other.run_until_complete(waiting.as_mut()));
            one.close().unwrap();
        }
    }
}

fn calls_while_the_loop_closes_are_refused(on: On) {
    struct Last(EventLoop, UnixStream, Record<ErrorKind>);
    impl Drop for Last {
        fn drop(&mut self) {
            let future = self.0.sock_recv(&self.1, 1);
            let Poll::Ready(Err(error)) = poll_once(std::pin::pin!(future)) else { panic!("it waits") };
            self.2.push(error.kind());
        }
    }
    let event_loop = on.event_loop();
    let (a, _b) = pair();
    let record = Record::default();
    let last = Last(event_loop.event_loop.clone(), a, record.clone());
    let task = event_loop.create_task(async move {
        let _last = last;
        std::future::pending::<asyncio::Result<()>>().await
    });
    event_loop.ticks(1);
    event_loop.close().unwrap();
    assert_eq!(record.take(), [ErrorKind::Runtime]);
    assert!(task.cancelled());
    assert_eq!(event_loop.reports.take().len(), 1, "the pending task");
}

fn closing_the_loop_drops_the_waits(on: On) {
    let event_loop = on.event_loop();
    let (a, mut b) = pair();
    let a = Rc::new(a);
    let (receiver, fd) = (event_loop.event_loop.clone(), a.clone());
    let task = event_loop.create_task(async move { receiver.sock_recv(&*fd, 1).await });
    // This one outlives its loop.
    let mut outside = Box::pin(event_loop.sock_sendall(&*a, b"x"));
    fill(&a);
    event_loop.ticks(1);
    event_loop.run(async {
        begins_to_wait(outside.as_mut()).await;
        Ok(())
    });
    event_loop.close().unwrap();
    assert!(task.cancelled());
    assert_eq!(Rc::strong_count(&a), 1);
    assert_eq!(event_loop.reports.take().len(), 1, "the pending task");
    b.write_all(b"y").unwrap();
    drop(outside);
    let next = on.event_loop();
    assert_eq!(next.run(next.sock_recv(&*a, 9)), b"y");
}

fn a_thousand_sockets_at_once(on: On) {
    crate::with_many_descriptors();
    let event_loop = on.event_loop();
    let (mut servers, mut clients) = (Vec::new(), Vec::new());
    for number in 0..500_u16 {
        let (a, b) = pair();
        let (server, client) = (event_loop.event_loop.clone(), event_loop.event_loop.clone());
        servers.push(event_loop.create_task(async move {
            loop {
                let data = server.sock_recv(&a, 16).await?;
                if data.is_empty() {
                    return Ok(());
                }
                server.sock_sendall(&a, &data).await?;
            }
        }));
        clients.push(event_loop.create_task(async move {
            for round in 0..5_u16 {
                let message = [number.to_le_bytes(), round.to_le_bytes()].concat();
                client.sock_sendall(&b, &message).await?;
                assert_eq!(client.sock_recv(&b, 16).await?, message);
            }
            Ok(())
        }));
    }
    event_loop.run(async {
        for task in clients.into_iter().chain(servers) {
            task.await?;
        }
        Ok(())
    });
}

fn a_steady_echo_is_correct(on: On) {
    let event_loop = on.event_loop();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let peers: Vec<_> = (0..6_u8)
        .map(|number| {
            let client = TcpStream::connect(address).unwrap();
            let (server, _) = listener.accept().unwrap();
            client.set_nodelay(true).unwrap();
            server.set_nodelay(true).unwrap();
            let echoing = thread::spawn(move || echo(server));
            client.set_nonblocking(true).unwrap();
            (number, client, echoing)
        })
        .collect();
    let mut threads = Vec::new();
    let tasks: Vec<_> = peers
        .into_iter()
        .map(|(number, client, echoing)| {
            threads.push(echoing);
            let looping = event_loop.event_loop.clone();
            event_loop.create_task(async move {
                for round in 0..60_usize {
                    let size = 1 + (round * round * 37 + usize::from(number) * 911) % 20_000;
                    let message: Vec<u8> = (0..size).map(|i| (i + round) as u8 ^ number).collect();
                    looping.sock_sendall(&client, &message).await?;
                    let mut back = Vec::new();
                    while back.len() < size {
                        let part = looping.sock_recv(&client, 4096).await?;
                        assert!(!part.is_empty());
                        back.extend(part);
                    }
                    assert!(back == message, "round {round} of {number}");
                }
                Ok(())
            })
        })
        .collect();
    event_loop.run(async {
        for task in tasks {
            task.await?;
        }
        Ok(())
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn a_stream_over_ipv6(on: On) {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("not tested: this machine has no IPv6 loopback");
        return;
    }
    let event_loop = on.event_loop();
    let (a, b) = tcp_pair_on("[::1]:0");
    event_loop.run(async {
        let mut waiting = Box::pin(event_loop.sock_recv(&b, 10));
        begins_to_wait(waiting.as_mut()).await;
        event_loop.sock_sendall(&a, b"six").await?;
        assert_eq!(waiting.await?, b"six");
        Ok(())
    });
}

fn a_waiting_call_holds_a_virtual_clock(on: On) {
    let (event_loop, _clock) = on.virtual_loop();
    let (a, mut b) = pair();
    let peer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        b.write_all(b"x").unwrap();
        b
    });
    let begin = event_loop.time();
    let b = event_loop.run(async {
        let sleep = Box::pin(asyncio::sleep(Duration::from_secs(1000)));
        match select(Box::pin(event_loop.sock_recv(&a, 1)), sleep).await {
            Either::Left((received, _)) => assert_eq!(received?, b"x"),
            Either::Right(_) => panic!("the clock went on while a descriptor was waited for"),
        }
        assert_eq!(event_loop.time(), begin);
        Ok(peer.join().unwrap())
    });
    // Nothing waits any more: the clock goes.
    event_loop.run(asyncio::sleep(Duration::from_secs(1000)));
    event_loop.set_background(&a, true);
    event_loop.run(async {
        let real = Instant::now();
        match select(Box::pin(event_loop.sock_recv(&a, 1)), asyncio::sleep(Duration::from_secs(1000))).await {
            Either::Left(received) => panic!("{:?}", received.0),
            Either::Right((slept, _)) => slept?,
        }
        assert!(real.elapsed() < Duration::from_secs(60));
        Ok(())
    });
    assert_eq!(event_loop.time() - begin, Duration::from_secs(2000));
    drop(b);
}

fn a_panic_beside_a_wait_leaves_nothing_behind(on: On) {
    let event_loop = on.event_loop();
    let (a, mut b) = pair();
    let a = Rc::new(a);
    let (receiver, fd) = (event_loop.event_loop.clone(), a.clone());
    let task = event_loop.create_task(async move {
        let mut receiving = Box::pin(receiver.sock_recv(&*fd, 10));
        begins_to_wait(receiving.as_mut()).await;
        turn().await;
        panic!("expected")
    });
    let result: asyncio::Result<()> = event_loop.run_until_complete(task);
    assert!(matches!(result, Err(Error::Panicked(_))));
    b.write_all(b"x").unwrap();
    let outcome = event_loop.run(async { Ok(event_loop.sock_recv(&*a, 1).now_or_never()) });
    assert_eq!(outcome.unwrap().unwrap(), b"x");
}

fn duplicates_wait_apart(on: On) {
    let event_loop = on.event_loop();
    let (a, mut b) = pair();
    let copy = a.try_clone().unwrap();
    event_loop.run(async {
        let mut first = Box::pin(event_loop.sock_recv(&a, 1));
        let mut second = Box::pin(event_loop.sock_recv(&copy, 1));
        begins_to_wait(first.as_mut()).await;
        begins_to_wait(second.as_mut()).await;
        b.write_all(b"xy")?;
        let (first, second) = join(first, second).await;
        assert_eq!((first?, second?), (b"x".to_vec(), b"y".to_vec()));
        Ok(())
    });
    drop(a);
    event_loop.run(async {
        let mut second = Box::pin(event_loop.sock_recv(&copy, 1));
        begins_to_wait(second.as_mut()).await;
        b.write_all(b"z")?;
        assert_eq!(second.await?, b"z");
        Ok(())
    });
}

fn a_reused_number_is_received_from(on: On) {
    let event_loop = on.event_loop();
    let number = own_number();
    for round in 0..5_u8 {
        let (a, mut b) = pair();
        let fd = at_number(a, number);
        event_loop.run(async {
            let mut receiving = Box::pin(event_loop.sock_recv(&fd, 10));
            begins_to_wait(receiving.as_mut()).await;
            b.write_all(&[round])?;
            assert_eq!(receiving.await?, [round]);
            // Every other round leaves a wait behind that was given up.
            if round % 2 == 0 {
                let mut given_up = Box::pin(event_loop.sock_recv(&fd, 10));
                begins_to_wait(given_up.as_mut()).await;
            }
            fill_and_wait(&event_loop, &fd, &b).await
        });
    }
}

/// Waits in both directions at once, on a descriptor that is new under its number.
async fn fill_and_wait(event_loop: &EventLoop, fd: &OwnedFd, mut peer: &UnixStream) -> asyncio::Result<()> {
    let stream = UnixStream::from(fd.try_clone()?);
    let filled = fill(&stream);
    let mut receiving = Box::pin(event_loop.sock_recv(fd, 10));
    let mut sending = Box::pin(event_loop.sock_sendall(fd, b"end"));
    begins_to_wait(receiving.as_mut()).await;
    begins_to_wait(sending.as_mut()).await;
    peer.write_all(b"in")?;
    assert_eq!(receiving.await?, b"in");
    peer.read_exact(&mut vec![0; filled])?;
    sending.await?;
    let mut end = [0; 3];
    peer.read_exact(&mut end)?;
    assert_eq!(&end, b"end");
    Ok(())
}
