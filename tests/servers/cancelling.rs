//! Openings that are given up at each of their awaits: by a drop, and by a cancellation.

use std::{
    future::{Future as StdFuture, poll_fn},
    net::{SocketAddr, TcpListener},
    pin::{Pin, pin},
    rc::Rc,
    time::Duration,
};

use asyncio::{Error, EventLoop, Result, Transport};

use crate::{
    Names, On, TestLoop, accepted, has_ended, lost, polls, silent,
    support::{
        self, DropGuard,
        transports::{Log, PairKind, Peer, Recorder, Told},
    },
    turn,
};

on_each_selector! {
    a_connect_in_progress_is_cancelled
    dropped_at_every_await
    cancelled_at_every_await
    a_cancellation_at_the_last_moment_is_too_late
    a_server_s_opening_is_cancelled_while_it_looks_up_its_name
    an_opening_that_is_never_finished_does_not_keep_the_loop
}

/// CON-024
fn a_connect_in_progress_is_cancelled(on: On) {
    let event_loop = on.event_loop();
    let (listener, address) = crate::listener();
    let made = crate::Count::default();
    event_loop.run(async {
        let (connecting, count) = (event_loop.event_loop.clone(), made.clone());
        let task = event_loop.create_task(async move {
            let factory = || {
                count.up();
                silent()
            };
            connecting.create_connection(factory, address).await
        });
        turn().await;
        assert!(!task.done() && task.cancel());
        assert!(task.await.err().unwrap().is_cancelled());
        Ok(())
    });
    assert_eq!(made.get(), 0);
    for peer in accepted(&listener) {
        assert!(has_ended(&peer));
    }
}

type Opened = Pin<Box<dyn StdFuture<Output = Result<Transport>>>>;

/// What is opened, and who sees it from the other side.
struct Opening {
    opening: Opened,
    peer: Option<Peer>,
    listener: Option<socket2::Socket>,
}

/// A way to open a connection with this protocol.
type Way = fn(&EventLoop, Recorder, SocketAddr) -> Opening;

fn ways() -> [(&'static str, Way); 8] {
    fn from(opening: impl StdFuture<Output = Result<Transport>> + 'static) -> Opening {
        Opening { opening: Box::pin(opening), peer: None, listener: None }
    }
    fn with_pair(kind: PairKind, open: impl FnOnce(std::os::fd::OwnedFd) -> Opened) -> Opening {
        let pair = kind.pair();
        Opening { opening: open(pair.ours), peer: Some(pair.peer), listener: None }
    }
    [
        ("address", |event_loop, protocol, address| {
            let opening = event_loop.create_connection(|| protocol, address);
            from(async { Ok(opening.await?.0) })
        }),
        ("name", |event_loop, protocol, _| {
            let opening = event_loop.create_connection(|| protocol, ("one.test", 1));
            from(async { Ok(opening.await?.0) })
        }),
        ("local address", |event_loop, protocol, address| {
            let opening = event_loop.create_connection(|| protocol, address).local_addr(("me.test", 0));
            from(async { Ok(opening.await?.0) })
        }),
        ("race", |event_loop, protocol, _| {
            let opening = event_loop.create_connection(|| protocol, ("many.test", 1));
            from(async { Ok(opening.happy_eyeballs_delay(Duration::ZERO).await?.0) })
        }),
        ("one after the other", |event_loop, protocol, _| {
            let opening = event_loop.create_connection(|| protocol, ("many.test", 1)).happy_eyeballs_delay(None);
            from(async { Ok(opening.await?.0) })
        }),
        ("socket", |event_loop, protocol, _| {
            with_pair(PairKind::Tcp, |fd| {
                let opening = event_loop.create_connection(|| protocol, ()).sock(fd);
                Box::pin(async { Ok(opening.await?.0) })
            })
        }),
        ("accepted", |event_loop, protocol, _| {
            with_pair(PairKind::Tcp, |fd| {
                let opening = event_loop.connect_accepted_socket(|| protocol, fd);
                Box::pin(async { Ok(opening.await?.0) })
            })
        }),
        ("unix", |event_loop, protocol, _| {
            let name = crate::abstract_name();
            let listener = crate::Net::Unix.socket();
            listener.bind(&socket2::SockAddr::unix(&name).unwrap()).unwrap();
            listener.listen(5).unwrap();
            listener.set_nonblocking(true).unwrap();
            let opening = event_loop.create_unix_connection(|| protocol, name);
            Opening { listener: Some(listener), ..from(async { Ok(opening.await?.0) }) }
        }),
    ]
}

/// Gives openings up after ever more polls, until one has nothing left to be given up.
fn give_up(on: On, give_up_at: impl Fn(&TestLoop, Opened, usize) -> Option<Transport>) {
    let (one, first) = crate::listener();
    let (two, second) = crate::listener();
    let (_holder, refused) = crate::refusing();
    let event_loop = on.event_loop();
    let names = vec![
        ("one.test", vec![first]),
        ("many.test", vec![refused, first, second]),
        ("me.test", vec![([127, 0, 0, 2], 0).into()]),
    ];
    event_loop.set_resolver(Names(names)).unwrap();
    for (name, way) in ways() {
        let mut at = 0;
        loop {
            let (log, (guard, dropped)) = (Log::default(), support::drop_guard());
            let Opening { opening, peer, listener } = way(&event_loop, guarded(&log, guard), first);
            let transport = give_up_at(&event_loop, opening, at);
            event_loop.settle();
            if let Some(transport) = transport {
                assert_eq!(log.take(), [Told::Made], "{name} {at}");
                assert!(!transport.is_closing());
                transport.abort();
                event_loop.ticks(3);
                assert_eq!(log.take(), [lost()], "{name} {at}");
                assert!(dropped.get());
                assert!(at > 1 || peer.is_some(), "{name} was never given up");
                drop(listened(&[&one, &two]));
                break;
            }
            let told = log.take();
            assert!(told.is_empty() || told == [Told::Made, lost()], "{name} {at}: {told:?}");
            assert!(dropped.get(), "{name} {at}: somebody keeps the protocol");
            for peer in listened(&[&one, &two]).into_iter().chain(peer) {
                assert!(has_ended(&peer), "{name} {at}");
            }
            for (socket, _) in listener.iter().filter_map(|listener| listener.accept().ok()) {
                assert!(has_ended(&Peer::new(socket)), "{name} {at}");
            }
            assert!(event_loop.has_no_timer(), "{name} {at}");
            assert_eq!(event_loop.all_tasks(), [], "{name} {at}");
            at += 1;
            assert!(at < 1000, "{name} never ends");
        }
    }
}

fn guarded(log: &Log, guard: DropGuard) -> Recorder {
    Recorder::new(log).on_made(move |_| {
        let _ = &guard;
    })
}

fn listened(listeners: &[&TcpListener]) -> Vec<Peer> {
    listeners.iter().flat_map(|listener| accepted(listener)).collect()
}

fn dropped_at_every_await(on: On) {
    give_up(on, |event_loop, opening, at| {
        let polled = event_loop.run(async { Ok(polls(opening, at).await) });
        polled.transpose().unwrap()
    });
}

fn cancelled_at_every_await(on: On) {
    give_up(on, |event_loop, opening, at| {
        let ended = event_loop.run(async {
            let task = event_loop.create_task(async move {
                let (mut opening, mut polls) = (pin!(opening), 0);
                let cancel = || asyncio::current_task().unwrap().unwrap().cancel();
                if at == 0 {
                    cancel();
                }
                poll_fn(|cx| {
                    let polled = opening.as_mut().poll(cx);
                    polls += 1;
                    if polled.is_pending() && polls == at {
                        cancel();
                    }
                    polled
                })
                .await
            });
            Ok(task.await)
        });
        match ended {
            Ok(transport) => Some(transport),
            Err(Error::Cancelled(_)) => None,
            Err(error) => panic!("{error}"),
        }
    });
}

/// The opener is woken, and cancelled before it goes on: it must not lose the connection unseen.
fn a_cancellation_at_the_last_moment_is_too_late(on: On) {
    let event_loop = on.event_loop();
    for ticks in 0..8 {
        let (pair, log) = (PairKind::Tcp.pair(), Log::default());
        let opening = event_loop.create_connection(
            {
                let log = log.clone();
                move || Recorder::new(&log)
            },
            (),
        );
        let opening = opening.sock(pair.ours);
        let task = event_loop.create_task(async move { Ok(opening.await?.0) });
        event_loop.ticks(ticks);
        let taken = task.cancel();
        let ended = event_loop.run_until_complete(task);
        event_loop.ticks(3);
        match ended {
            Ok(transport) => {
                assert!(!taken, "{ticks}");
                assert_eq!(log.take(), [Told::Made]);
                transport.abort();
            }
            Err(error) => {
                assert!(taken && error.is_cancelled(), "{ticks}: {error}");
                let told = log.take();
                assert!(told.is_empty() || told == [Told::Made, lost()], "{ticks}: {told:?}");
                assert!(has_ended(&pair.peer));
            }
        }
    }
}

fn a_server_s_opening_is_cancelled_while_it_looks_up_its_name(on: On) {
    /// Answers when it is told to.
    struct Slow(std::sync::Mutex<std::sync::mpsc::Receiver<()>>);
    impl asyncio::Resolver for Slow {
        fn getaddrinfo(
            &self,
            _: Option<&str>,
            _: &asyncio::Port,
            _: asyncio::AddrInfoHints,
        ) -> Result<Vec<asyncio::AddrInfo>> {
            let _ = self.0.lock().unwrap().recv(); // or the test is over
            Ok(vec![asyncio::AddrInfo::new(([127, 0, 0, 1], 0).into(), asyncio::socket::SOCK_STREAM)])
        }
    }
    let event_loop = on.event_loop();
    let (answer, told) = std::sync::mpsc::channel();
    event_loop.set_resolver(Slow(told.into())).unwrap();
    let (guard, dropped) = support::drop_guard();
    let opening = event_loop.create_server(
        move || {
            let _ = &guard;
            silent()
        },
        ("slow.test", 0),
    );
    event_loop.run(async {
        let task = event_loop.create_task(async move { opening.await });
        turn().await;
        task.cancel();
        assert!(task.await.unwrap_err().is_cancelled());
        Ok(())
    });
    assert!(dropped.get(), "the factory is dropped");
    let connecting = event_loop.create_connection(silent, ("slow.test", 1));
    assert!(event_loop.run(async { Ok(polls(connecting, 1).await) }).is_none());
    drop(answer);
}

fn an_opening_that_is_never_finished_does_not_keep_the_loop(on: On) {
    let (guard, dropped) = support::drop_guard();
    let (_full, address, _first) = crate::full_listener();
    let (opening, polled) = {
        let event_loop = on.event_loop();
        let kept = Rc::new(guard);
        let held = kept.clone();
        let opening = event_loop.create_connection(
            move || {
                drop(held);
                silent()
            },
            address,
        );
        let mut opening = Box::pin(IntoFuture::into_future(opening));
        event_loop.run(async {
            let pending = poll_fn(|cx| std::task::Poll::Ready(opening.as_mut().poll(cx).is_pending())).await;
            assert!(pending);
            Ok(())
        });
        (opening, kept)
    };
    drop(polled);
    assert!(!dropped.get());
    drop(opening);
    assert!(dropped.get());
}
