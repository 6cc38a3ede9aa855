//! Heap allocations for each operation, once everything has its size: what CONTRIBUTING.md promises.

#[path = "support/counting.rs"]
mod counting;
mod support;

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    hint::black_box,
    io::{Read, Write},
    net::UdpSocket,
    os::unix::net::UnixStream,
    pin::pin,
    rc::Rc,
    sync::mpsc,
    task::{Poll, Waker},
    thread,
    time::Duration,
};

use asyncio::{
    Address, BufferedProtocol, Condition, DatagramProtocol, DatagramTransport, Event, EventLoop, LifoQueue, Lock,
    PriorityQueue, Protocol, Queue, Result, SOCKNAME, Semaphore, Stream, StreamProtocol, TaskGroup, Transport,
    create_task,
};
use futures::{AsyncReadExt, AsyncWriteExt};
use socket2::SockRef;

use crate::counting::{Counting, allocations, bytes};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often each operation is done.
const ROUNDS: u64 = 1000;

const MINUTE: Duration = Duration::from_secs(60);

/// The allocations of `ROUNDS` rounds of `work`, the second time: the first one brings queues and tables to their size.
async fn count(mut work: impl AsyncFnMut() -> Result<()>) -> Result<u64> {
    let mut counted = 0;
    for _ in 0..2 {
        let before = allocations();
        for _ in 0..ROUNDS {
            work().await?;
        }
        counted = allocations() - before;
    }
    Ok(counted)
}

/// As [`count`], in a loop of its own.
fn counted(work: impl AsyncFnMut() -> Result<()>) -> u64 {
    run(count(work))
}

/// As `support::run`, for work that may leave a task to the loop's close.
fn run<T>(main: impl Future<Output = Result<T>>) -> T {
    let _deadline = support::deadline();
    asyncio::run(main).unwrap()
}

fn running_loop() -> EventLoop {
    asyncio::get_running_loop().unwrap()
}

/// Polls `future` once.
async fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

async fn next_iteration() -> Result<()> {
    asyncio::sleep(Duration::ZERO).await
}

#[test]
fn a_task_that_is_made_and_awaited_is_one_allocation() {
    let counted = counted(async || {
        let task = running_loop().create_task(async { Ok(5) });
        assert_eq!(task.await?, 5);
        Ok(())
    });
    assert_eq!(counted, ROUNDS);
}

#[test]
fn a_task_of_many_that_are_pending_at_once_is_one_allocation() {
    let counted = run(async {
        let event_loop = running_loop();
        let mut tasks = Vec::with_capacity(ROUNDS as usize);
        let mut counted = 0;
        for _ in 0..2 {
            let before = allocations();
            tasks.extend((0..ROUNDS).map(|_| {
                event_loop.create_task(async {
                    next_iteration().await?;
                    next_iteration().await
                })
            }));
            for task in tasks.drain(..) {
                task.await?;
            }
            counted = allocations() - before;
        }
        Ok(counted)
    });
    assert_eq!(counted, ROUNDS);
}

#[test]
fn call_soon_is_one_allocation() {
    let called = Rc::new(Cell::new(0));
    let record = called.clone();
    let counted = counted(async move || {
        let record = record.clone();
        running_loop().call_soon(move || record.set(record.get() + 1));
        next_iteration().await
    });
    assert_eq!(called.get(), 2 * ROUNDS);
    assert_eq!(counted, ROUNDS);
}

#[test]
fn an_awaited_callback_is_one_allocation() {
    let counted = counted(async || {
        assert_eq!(running_loop().call_soon(|| 7).await?, 7);
        Ok(())
    });
    assert_eq!(counted, ROUNDS);
}

#[test]
fn a_timer_that_is_set_and_cancelled_is_one_allocation() {
    let counted = counted(async || {
        running_loop().call_later(MINUTE, || ()).cancel();
        Ok(())
    });
    assert_eq!(counted, ROUNDS);
}

#[test]
fn a_sleep_that_is_begun_and_dropped_allocates_nothing() {
    let counted = counted(async || {
        assert!(poll_once(asyncio::sleep(MINUTE)).await.is_pending());
        Ok(())
    });
    assert_eq!(counted, 0);
}

#[test]
fn a_sleep_that_ends_allocates_nothing() {
    let (event_loop, _) = support::virtual_loop();
    let counted = event_loop.run_until_complete(count(async || asyncio::sleep(MINUTE).await)).unwrap();
    assert_eq!(counted, 0);
    event_loop.close().unwrap();
}

#[test]
fn a_sleep_of_zero_allocates_nothing() {
    assert_eq!(counted(next_iteration), 0);
}

/// A task that can be woken as often as one likes, and its waker.
fn sleeper(event_loop: &EventLoop, polls: Rc<Cell<u64>>) -> (asyncio::Task<()>, Rc<Cell<Option<Waker>>>) {
    let kept = Rc::new(Cell::new(None));
    let keep = kept.clone();
    let task = event_loop.create_task(poll_fn(move |cx| {
        if polls.replace(polls.get() + 1) == 0 {
            keep.set(Some(cx.waker().clone()));
        }
        Poll::Pending
    }));
    (task, kept)
}

#[test]
fn a_wake_on_the_loops_thread_allocates_nothing() {
    let polls = Rc::new(Cell::new(0));
    let seen = polls.clone();
    let counted = run(async move {
        let (task, waker) = sleeper(&running_loop(), polls);
        next_iteration().await?;
        let waker = waker.take().expect("it has been polled");
        let counted = count(async || {
            waker.wake_by_ref();
            next_iteration().await
        });
        let counted = counted.await?;
        task.cancel();
        Ok(counted)
    });
    assert_eq!(counted, 0);
    assert!(seen.get() >= 2 * ROUNDS);
}

/// Counted on both threads: the inbox keeps its size.
#[test]
fn a_wake_from_another_thread_allocates_nothing() {
    let counted = run(async {
        let (orders, ordered) = mpsc::sync_channel::<Waker>(1);
        let other = thread::spawn(move || {
            let mut last = 0;
            for (round, waker) in ordered.iter().enumerate() {
                let before = allocations();
                waker.wake();
                if round as u64 >= ROUNDS {
                    last += allocations() - before;
                }
            }
            last
        });
        let counted = count(async || {
            let mut woken = false;
            poll_fn(|cx| {
                if std::mem::replace(&mut woken, true) {
                    return Poll::Ready(());
                }
                orders.send(cx.waker().clone()).expect("the thread waits for orders");
                Poll::Pending
            })
            .await;
            Ok(())
        });
        let counted = counted.await?;
        drop(orders);
        Ok((counted, other.join().expect("it does not panic")))
    });
    assert_eq!(counted, (0, 0));
}

#[test]
fn a_steady_echo_over_a_socket_allocates_nothing() {
    let counted = run(async {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let event_loop = running_loop();
        let server_loop = event_loop.clone();
        let server = event_loop.create_task(async move {
            let mut buffer = [0; 1024];
            loop {
                match server_loop.sock_recv_into(&theirs, &mut buffer).await? {
                    0 => return Ok(()),
                    count => server_loop.sock_sendall(&theirs, &buffer[..count]).await?,
                }
            }
        });
        let counted = count(async || {
            let mut buffer = [0; 1024];
            event_loop.sock_sendall(&ours, b"echo").await?;
            assert_eq!(event_loop.sock_recv_into(&ours, &mut buffer).await?, 4);
            Ok(())
        });
        let counted = counted.await?;
        drop(ours);
        server.await?;
        Ok(counted)
    });
    assert_eq!(counted, 0);
}

#[test]
fn a_steady_echo_over_streams_allocates_nothing() {
    let counted = run(async {
        let (ours, theirs) = UnixStream::pair()?;
        let mut theirs = stream(theirs).await?;
        let server = create_task(async move {
            let mut buffer = [0; 1024];
            loop {
                match theirs.read(&mut buffer).await? {
                    0 => return Ok(()),
                    count => theirs.write_all(&buffer[..count]).await?,
                }
            }
        });
        let mut ours = stream(ours).await?;
        let counted = count(async || {
            let mut buffer = [0; 4];
            ours.write_all(b"echo").await?;
            ours.read_exact(&mut buffer).await?;
            assert_eq!(&buffer, b"echo");
            Ok(())
        });
        let counted = counted.await?;
        drop(ours);
        server.await?;
        Ok(counted)
    });
    assert_eq!(counted, 0);
}

async fn stream(socket: UnixStream) -> Result<Stream> {
    let (reader, writer) = asyncio::open_unix_connection(()).sock(socket).await?;
    Stream::join(reader, writer)
}

/// What a connection sends before its first echo, unasked: its write buffer has its size then.
const GREETING: usize = 256 << 10;

/// Sends messages back, and counts what that allocates: whoever sends waits for each of them.
struct Echoes {
    transport: Option<Transport>,
    size: usize,
    rounds: u64,
    received: u64,
    before: u64,
    counted: asyncio::Future<u64>,
}

impl Echoes {
    fn connected(&mut self, transport: &Transport) {
        // So small that large messages go in pieces.
        let shrunk = transport.with_fd(|fd| SockRef::from(&fd).set_send_buffer_size(16 << 10));
        shrunk.expect("it is open").expect("it is a socket");
        transport.write(&vec![0; GREETING]);
        self.transport = Some(transport.clone());
    }

    fn echo(&mut self, data: &[u8]) {
        let half = self.rounds * self.size as u64;
        if self.received == half {
            self.before = allocations();
        }
        self.received += data.len() as u64;
        self.transport.as_ref().expect("it is connected").write(data);
        if self.received == 2 * half {
            let counted = allocations() - self.before;
            self.counted.set_result(counted).expect("this comes once");
        }
    }
}

struct PlainEcho(Echoes);

impl Protocol for PlainEcho {
    fn connection_made(&mut self, transport: &Transport) {
        self.0.connected(transport);
    }

    fn data_received(&mut self, data: &[u8]) {
        self.0.echo(data);
    }
}

struct BufferedEcho(Echoes, Vec<u8>);

impl BufferedProtocol for BufferedEcho {
    fn connection_made(&mut self, transport: &Transport) {
        self.0.connected(transport);
    }

    fn get_buffer(&mut self, _size_hint: Option<usize>) -> &mut [u8] {
        &mut self.1
    }

    fn buffer_updated(&mut self, count: usize) {
        self.0.echo(&self.1[..count]);
    }
}

/// What `rounds` messages of `size` bytes allocate, the second time.
fn echoed<P: StreamProtocol<Kind>, Kind: 'static>(size: usize, rounds: u64, make: fn(Echoes) -> P) -> u64 {
    run(async {
        let event_loop = running_loop();
        let (ours, mut theirs) = UnixStream::pair()?;
        let client = event_loop.create_task(asyncio::to_thread(move || {
            theirs.read_exact(&mut vec![0; GREETING]).expect("it greets");
            let (message, mut answer) = (vec![b'x'; size], vec![0; size]);
            for _ in 0..2 * rounds {
                theirs.write_all(&message).expect("it receives");
                theirs.read_exact(&mut answer).expect("it answers");
            }
            assert_eq!(answer, message);
            Ok(())
        }));
        let counted = event_loop.create_future();
        let echoes = Echoes { transport: None, size, rounds, received: 0, before: 0, counted: counted.clone() };
        let (transport, _) = event_loop.connect_accepted_socket(|| make(echoes), ours).await?;
        let counted = counted.await?;
        client.await?;
        transport.close();
        Ok(counted)
    })
}

#[test]
fn a_steady_echo_by_a_protocol_allocates_nothing() {
    for (size, rounds) in [(1, ROUNDS), (1 << 10, ROUNDS), (100 << 10, ROUNDS / 10)] {
        assert_eq!(echoed(size, rounds, PlainEcho), 0, "{size} bytes");
    }
}

#[test]
fn a_steady_echo_by_a_buffered_protocol_allocates_nothing() {
    for (size, rounds) in [(1, ROUNDS), (1 << 10, ROUNDS), (100 << 10, ROUNDS / 10)] {
        let make = |echoes: Echoes| {
            let memory = vec![0; echoes.size];
            BufferedEcho(echoes, memory)
        };
        assert_eq!(echoed(size, rounds, make), 0, "{size} bytes");
    }
}

/// How many bytes of the heap a connection may take while nothing happens on it, a small protocol included.
const IDLE_CONNECTION: i64 = 600;

#[test]
fn an_idle_connection_takes_little_memory() {
    const CONNECTIONS: i64 = 200;

    struct Idle(Option<Transport>);

    impl Protocol for Idle {
        fn connection_made(&mut self, transport: &Transport) {
            self.0 = Some(transport.clone());
        }

        fn data_received(&mut self, _data: &[u8]) {}
    }

    let taken = run(async {
        let mut taken = 0;
        // Twice, as the loop's tables have their size the second time.
        for _ in 0..2 {
            let mut others = Vec::with_capacity(CONNECTIONS as usize);
            let before = bytes();
            for _ in 0..CONNECTIONS {
                let (ours, theirs) = UnixStream::pair()?;
                others.push(theirs);
                running_loop().connect_accepted_socket(|| Idle(None), ours).await?;
            }
            taken = bytes() - before;
            drop(others);
            for _ in 0..10 {
                next_iteration().await?; // in which they end
            }
        }
        Ok(taken)
    });
    assert!(taken <= CONNECTIONS * IDLE_CONNECTION, "{} bytes", taken / CONNECTIONS);
}

struct DatagramEcho {
    transport: Option<DatagramTransport>,
    received: u64,
    before: u64,
    counted: asyncio::Future<u64>,
}

impl DatagramProtocol for DatagramEcho {
    fn connection_made(&mut self, transport: &DatagramTransport) {
        self.transport = Some(transport.clone());
    }

    fn datagram_received(&mut self, data: &[u8], address: &Address) {
        if self.received == ROUNDS {
            self.before = allocations();
        }
        self.received += 1;
        self.transport.as_ref().expect("it is open").sendto(data, address);
        if self.received == 2 * ROUNDS {
            let counted = allocations() - self.before;
            self.counted.set_result(counted).expect("this comes once");
        }
    }
}

#[test]
fn a_steady_exchange_of_datagrams_allocates_nothing() {
    let counted = run(async {
        let event_loop = running_loop();
        let counted = event_loop.create_future();
        let factory = || DatagramEcho { transport: None, received: 0, before: 0, counted: counted.clone() };
        let (transport, _) = event_loop.create_datagram_endpoint(factory).local_addr(("127.0.0.1", 0)).await?;
        let address = transport.get_extra_info(SOCKNAME).expect("it is bound").as_inet().expect("it is a UDP socket");
        let client = event_loop.create_task(asyncio::to_thread(move || {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
            socket.connect(address).expect("loopback");
            for _ in 0..2 * ROUNDS {
                socket.send(b"ping").expect("there is room");
                assert_eq!(socket.recv(&mut [0; 8]).expect("nothing is lost on loopback"), 4);
            }
            Ok(())
        }));
        let counted = counted.await?;
        client.await?;
        transport.close();
        Ok(counted)
    });
    assert_eq!(counted, 0);
}

#[test]
fn a_future_that_is_made_set_and_awaited_is_one_allocation() {
    let counted = counted(async || {
        let future = running_loop().create_future();
        future.set_result(5)?;
        assert_eq!(future.await?, 5);
        Ok(())
    });
    assert_eq!(counted, ROUNDS);
}

#[test]
fn a_future_that_another_task_sets_is_one_allocation() {
    let counted = run(async {
        let event_loop = running_loop();
        let wanted = Rc::new(Cell::new(None::<asyncio::Future<u64>>));
        let asked = wanted.clone();
        let setter: asyncio::Task<()> = event_loop.create_task(async move {
            loop {
                if let Some(future) = asked.take() {
                    future.set_result(5)?;
                }
                next_iteration().await?;
            }
        });
        let counted = count(async || {
            let future = event_loop.create_future();
            wanted.set(Some(future.clone()));
            assert_eq!(black_box(future.await?), 5);
            Ok(())
        });
        let counted = counted.await?;
        setter.cancel();
        Ok(counted)
    });
    assert_eq!(counted, ROUNDS);
}

#[test]
fn locks_that_are_free_allocate_nothing() {
    let (lock, semaphore, condition) = (Lock::new(), Semaphore::new(2), Condition::new());
    let counted = counted(async || {
        drop(lock.acquire().await?);
        drop(semaphore.acquire().await?);
        let guard = condition.acquire().await?;
        condition.notify_all()?;
        drop(guard);
        Ok(())
    });
    assert_eq!(counted, 0);
}

/// Runs `other` again and again in a task beside the `work` that is counted.
fn counted_beside(other: impl AsyncFn() -> Result<()> + 'static, work: impl AsyncFnMut() -> Result<()>) -> u64 {
    run(async {
        let task: asyncio::Task<()> = running_loop().create_task(async move {
            loop {
                other().await?;
            }
        });
        let counted = count(work).await?;
        task.cancel();
        Ok(counted)
    })
}

#[test]
fn a_lock_that_is_waited_for_allocates_nothing() {
    let (lock, held) = (Lock::new(), Rc::new(Cell::new(0)));
    let (theirs, count) = (lock.clone(), held.clone());
    let hold = async move || {
        let _guard = theirs.acquire().await?;
        count.set(count.get() + 1);
        next_iteration().await
    };
    let counted = counted_beside(hold, async || {
        let _guard = lock.acquire().await?;
        next_iteration().await
    });
    assert_eq!(counted, 0);
    assert!(held.get() >= 2 * ROUNDS - 1, "they take turns");
}

#[test]
fn a_semaphore_that_is_waited_for_allocates_nothing() {
    let semaphore = Semaphore::new(0);
    let theirs = semaphore.clone();
    let give = async move || {
        theirs.release();
        next_iteration().await
    };
    let counted = counted_beside(give, async || {
        semaphore.acquire().await?.forget();
        Ok(())
    });
    assert_eq!(counted, 0);
}

#[test]
fn an_event_that_one_waits_for_allocates_nothing() {
    let event = Event::new();
    let theirs = event.clone();
    let set = async move || {
        theirs.set();
        theirs.clear();
        next_iteration().await
    };
    assert_eq!(counted_beside(set, async || event.wait().await), 0);
}

#[test]
fn a_queue_allocates_nothing() {
    let queue = Queue::new(4);
    let counted_now = counted(async || {
        queue.put_nowait(5)?;
        assert_eq!(queue.get_nowait()?, 5);
        queue.put(6).await?;
        assert_eq!(queue.get().await?, 6);
        queue.task_done()?;
        queue.task_done()?;
        queue.join().await
    });
    assert_eq!(counted_now, 0);

    let stack = LifoQueue::new(0);
    let heap = PriorityQueue::new(0);
    let counted = counted(async || {
        stack.put_nowait(5)?;
        heap.put_nowait(5)?;
        assert_eq!(stack.get_nowait()?, heap.get_nowait()?);
        Ok(())
    });
    assert_eq!(counted, 0);
}

#[test]
fn a_queue_that_is_waited_for_allocates_nothing() {
    let (requests, answers) = (Queue::<u8>::new(1), Queue::<u8>::new(1));
    let (theirs, ours) = (requests.clone(), answers.clone());
    let answer = async move || ours.put(theirs.get().await? + 1).await;
    let counted = counted_beside(answer, async || {
        requests.put(1).await?;
        assert_eq!(answers.get().await?, 2);
        Ok(())
    });
    assert_eq!(counted, 0);
}

#[test]
fn a_timeout_that_does_not_fire_allocates_nothing() {
    assert_eq!(counted(async || asyncio::timeout(MINUTE, next_iteration()).await), 0);
}

#[test]
fn a_shielded_section_allocates_nothing() {
    assert_eq!(counted(async || asyncio::shielded(next_iteration()).await), 0);
}

/// How many tasks a group or a gathering has.
const MEMBERS: u64 = 100;

/// The group itself, its line of tasks as it grows, and the line of those that ended.
const GROUP: u64 = 12;

#[test]
fn a_task_of_a_group_is_one_allocation() {
    let counted = counted(async || {
        TaskGroup::scope(async |group| {
            for number in 0..MEMBERS {
                group.create_task(async move { Ok(number) });
            }
            Ok(())
        })
        .await
    });
    assert!(counted >= ROUNDS * MEMBERS, "{counted}");
    assert!(counted <= ROUNDS * (MEMBERS + GROUP), "{counted}");
}

#[test]
fn a_coroutine_that_is_gathered_is_one_allocation() {
    let counted = counted(async || {
        let coroutines: Vec<_> = (0..MEMBERS).map(|number| async move { Ok(number) }).collect();
        black_box(asyncio::gather(coroutines).await?);
        Ok(())
    });
    assert!(counted >= ROUNDS * MEMBERS, "{counted}");
    assert!(counted <= ROUNDS * (MEMBERS + GROUP), "{counted}");
}
