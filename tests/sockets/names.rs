//! getaddrinfo and getnameinfo, their resolver and its threads.

use std::{
    future::IntoFuture,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use asyncio::{
    AddrInfo, AddrInfoHints, Error, ErrorKind, Port, Resolver, Result,
    socket::{
        AF_INET, AF_INET6, AI_CANONNAME, AI_NUMERICHOST, AI_PASSIVE, EAI_AGAIN, EAI_FAMILY, EAI_NONAME, EAI_SERVICE,
        IPPROTO_TCP, IPPROTO_UDP, NI_NUMERICHOST, NI_NUMERICSERV, SOCK_DGRAM, SOCK_STREAM,
    },
};
use futures::future::{Either, FutureExt, join_all, select};

use crate::{On, turn};

on_each_selector! {
    a_literal_address_needs_no_resolver
    no_host_is_this_machine
    services_have_names
    what_is_not_found_is_an_error
    addresses_have_names
    a_cancelled_lookup_does_not_keep_the_loop
    a_dropped_lookup_does_not_keep_the_loop
    the_resolver_is_told_what_was_asked
    nothing_is_looked_up_before_it_is_awaited
    a_panicking_resolver_fails_the_lookup
    errors_of_the_resolver_come_as_they_are
    a_resolver_may_be_replaced_while_it_works
    lookups_and_jobs_do_not_starve_each_other
    several_lookups_run_at_once
    lookups_on_a_closed_loop_are_refused
    a_lookup_holds_a_virtual_clock
    each_loop_has_its_resolver
}

fn code(result: Result<impl std::fmt::Debug>) -> i32 {
    match result.unwrap_err() {
        Error::Resolve(error) => error.code(),
        other => panic!("{other:?}"),
    }
}

/// What a resolver was asked.
type Question = (Option<String>, Port, AddrInfoHints);

/// Says when it is asked, and answers when it is told to, or when nobody can tell it any more.
struct Told {
    asked: Sender<Question>,
    answers: Mutex<Receiver<Result<Vec<AddrInfo>>>>,
}

impl Told {
    fn new() -> (Self, Receiver<Question>, Sender<Result<Vec<AddrInfo>>>) {
        let ((asked, questions), (answer, answers)) = (channel(), channel());
        (Told { asked, answers: answers.into() }, questions, answer)
    }
}

impl Resolver for Told {
    fn getaddrinfo(&self, host: Option<&str>, port: &Port, hints: AddrInfoHints) -> Result<Vec<AddrInfo>> {
        let _ = self.asked.send((host.map(str::to_owned), port.clone(), hints)); // the test may be over
        self.answers.lock().unwrap().recv().unwrap_or_else(|_| Ok(Vec::new()))
    }

    fn getnameinfo(&self, _: SocketAddr, _: i32) -> Result<(String, String)> {
        self.answers.lock().unwrap().recv().unwrap_or_else(|_| Ok(Vec::new())).map(|_| Default::default())
    }
}

/// Answers with its own function.
struct Own<F>(F);

impl<F: Fn(Option<&str>) -> Result<Vec<AddrInfo>> + Send + Sync> Resolver for Own<F> {
    fn getaddrinfo(&self, host: Option<&str>, _: &Port, _: AddrInfoHints) -> Result<Vec<AddrInfo>> {
        (self.0)(host)
    }

    fn getnameinfo(&self, _: SocketAddr, _: i32) -> Result<(String, String)> {
        (self.0)(None).map(|_| ("host".into(), "service".into()))
    }
}

fn own<F: Fn(Option<&str>) -> Result<Vec<AddrInfo>> + Send + Sync>(answer: F) -> Own<F> {
    Own(answer)
}

fn local(port: u16) -> AddrInfo {
    AddrInfo::new((Ipv4Addr::LOCALHOST, port).into(), SOCK_STREAM)
}

/// DNS-001
fn a_literal_address_needs_no_resolver(on: On) {
    let event_loop = on.event_loop();
    event_loop.set_resolver(own(|host| panic!("asked for {host:?}"))).unwrap();
    let expected = [local(80)];
    assert_eq!((expected[0].family, expected[0].protocol), (AF_INET, IPPROTO_TCP));
    assert_eq!(expected[0].canonical_name, "");
    event_loop.run(async {
        let asked = event_loop.getaddrinfo("127.0.0.1", 80).socket_type(SOCK_STREAM);
        assert_eq!(asked.into_future().now_or_never().expect("at once")?, expected);
        assert_eq!(event_loop.getaddrinfo("127.0.0.1", "80").socket_type(SOCK_STREAM).await?, expected);
        let six = event_loop.getaddrinfo("::1", 53).family(AF_INET6).proto(IPPROTO_UDP).await?;
        assert_eq!(six, [AddrInfo::new((Ipv6Addr::LOCALHOST, 53).into(), SOCK_DGRAM)]);
        Ok(())
    });
    // And the system's says the same.
    let event_loop = on.event_loop();
    event_loop.run(async {
        assert_eq!(event_loop.getaddrinfo("127.0.0.1", "80").socket_type(SOCK_STREAM).await?, expected);
        let named = event_loop.getaddrinfo("127.0.0.1", 80).socket_type(SOCK_STREAM).flags(AI_CANONNAME).await?;
        assert_eq!((named[0].canonical_name.as_str(), named[0].address), ("127.0.0.1", expected[0].address));
        let both = event_loop.getaddrinfo("127.0.0.1", 80).await?;
        assert!(both.iter().any(|info| info.socket_type == SOCK_STREAM), "{both:?}");
        assert!(both.iter().any(|info| info.socket_type == SOCK_DGRAM), "{both:?}");
        Ok(())
    });
}

/// DNS-002
fn no_host_is_this_machine(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let any = event_loop.getaddrinfo(None, 0).socket_type(SOCK_STREAM).family(AF_INET).flags(AI_PASSIVE).await?;
        assert_eq!(any.len(), 1);
        assert_eq!(any[0].address, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        let here = event_loop.getaddrinfo(None, 80).socket_type(SOCK_STREAM).await?;
        assert!(!here.is_empty());
        assert!(here.iter().all(|info| info.address.ip().is_loopback() && info.address.port() == 80), "{here:?}");
        Ok(())
    });
}

/// DNS-003
fn services_have_names(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let http = event_loop.getaddrinfo("127.0.0.1", "http").socket_type(SOCK_STREAM).await?;
        assert_eq!(http, [local(80)]);
        let nonsense = event_loop.getaddrinfo("127.0.0.1", "nonsense").socket_type(SOCK_STREAM).await;
        assert_eq!(code(nonsense), EAI_SERVICE);
        for impossible in ["70000", "a\0b"] {
            let error = event_loop.getaddrinfo("127.0.0.1", impossible).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Value);
        }
        Ok(())
    });
}

/// DNS-004
fn what_is_not_found_is_an_error(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let unknown = code(event_loop.getaddrinfo("no.such.host.invalid", 80).await);
        assert!([EAI_NONAME, EAI_AGAIN].contains(&unknown), "{unknown}");
        for hint in [0, SOCK_STREAM] {
            let other = code(event_loop.getaddrinfo("::1", 80).family(AF_INET).socket_type(hint).await);
            // EAI_ADDRFAMILY, where there is one.
            assert!([EAI_NONAME, -9].contains(&other), "{other}");
        }
        assert_eq!(code(event_loop.getaddrinfo("localhost", 80).flags(AI_NUMERICHOST).await), EAI_NONAME);
        assert_eq!(code(event_loop.getaddrinfo("127.0.0.1", 80).family(9999).await), EAI_FAMILY);
        assert_eq!(code(event_loop.getaddrinfo("", 80).await), EAI_NONAME);
        assert_eq!(event_loop.getaddrinfo("a\0b", 80).await.unwrap_err().kind(), ErrorKind::Value);
        Ok(())
    });
}

/// DNS-007
fn addresses_have_names(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let four = SocketAddr::from((Ipv4Addr::LOCALHOST, 80));
        let names = event_loop.getnameinfo(four, NI_NUMERICHOST | NI_NUMERICSERV).await?;
        assert_eq!(names, ("127.0.0.1".to_owned(), "80".to_owned()));
        let six = SocketAddr::from((Ipv6Addr::LOCALHOST, 80));
        assert_eq!(event_loop.getnameinfo(six, NI_NUMERICHOST).await?.0, "::1");
        assert_eq!(event_loop.getnameinfo(four, 1 << 30).await.unwrap_err().kind(), ErrorKind::Resolve, "bad flags");
        Ok(())
    });
}

/// DNS-006
fn a_cancelled_lookup_does_not_keep_the_loop(on: On) {
    /// Says at the end of its thread whether that panics.
    struct AtTheEnd(Sender<bool>);
    impl Drop for AtTheEnd {
        fn drop(&mut self) {
            let _ = self.0.send(thread::panicking()); // the test may have failed
        }
    }
    thread_local!(static END: std::cell::RefCell<Option<AtTheEnd>> = const { std::cell::RefCell::new(None) });

    let event_loop = on.event_loop();
    let (told, asked, answer) = Told::new();
    let (ended, end) = channel();
    let ended = Mutex::new(ended);
    let told = Arc::new(told);
    event_loop
        .set_resolver(own(move |host| {
            END.set(Some(AtTheEnd(ended.lock().unwrap().clone())));
            told.getaddrinfo(host, &Port::Number(1), AddrInfoHints::new())
        }))
        .unwrap();
    let lookup = event_loop.getaddrinfo("slow.test", 80);
    let task = event_loop.create_task(async move { lookup.await });
    event_loop.ticks(1);
    assert_eq!(asked.recv().unwrap().0.as_deref(), Some("slow.test"), "it runs");
    let begin = Instant::now();
    task.cancel();
    assert!(event_loop.run_until_complete(task).unwrap_err().is_cancelled());
    event_loop.close().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(20));
    assert!(end.try_recv().is_err(), "the lookup still runs");
    answer.send(Ok(vec![local(1)])).unwrap();
    assert_eq!(end.recv_timeout(Duration::from_secs(30)), Ok(false));
}

fn a_dropped_lookup_does_not_keep_the_loop(on: On) {
    let event_loop = on.event_loop();
    let (told, asked, answer) = Told::new();
    event_loop.set_resolver(told).unwrap();
    event_loop.run(async {
        let lookup = event_loop.getaddrinfo("slow.test", 80).into_future();
        match select(lookup, asyncio::sleep(Duration::from_millis(5))).await {
            Either::Left((found, _)) => panic!("{found:?}"),
            Either::Right((slept, _)) => slept,
        }
    });
    asked.recv().unwrap();
    answer.send(Err(Error::resolve(EAI_NONAME, "nobody reads it"))).unwrap();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(20) {
        event_loop.run_once(Duration::from_millis(5)).unwrap();
    }
    // Nor does one that the loop is closed over.
    let lookup = event_loop.getaddrinfo("slow.test", 80);
    let task = event_loop.create_task(async move { lookup.await });
    event_loop.ticks(1);
    asked.recv().unwrap();
    event_loop.close().unwrap();
    assert!(task.cancelled());
    assert_eq!(event_loop.reports.take().len(), 1, "the pending task");
    drop(answer);
}

fn the_resolver_is_told_what_was_asked(on: On) {
    let event_loop = on.event_loop();
    let (told, asked, answer) = Told::new();
    event_loop.set_resolver(told).unwrap();
    event_loop.run(async {
        answer.send(Ok(vec![local(7), local(8)])).unwrap();
        let lookup = event_loop.getaddrinfo("a.test", "http").family(AF_INET).socket_type(SOCK_STREAM);
        let lookup = lookup.proto(IPPROTO_TCP).flags(AI_CANONNAME);
        assert_eq!(lookup.await?, [local(7), local(8)]);
        let hints = AddrInfoHints::new().family(AF_INET).socket_type(SOCK_STREAM);
        let hints = hints.protocol(IPPROTO_TCP).flags(AI_CANONNAME);
        assert_eq!(asked.recv().unwrap(), (Some("a.test".into()), Port::Service("http".into()), hints));

        answer.send(Ok(Vec::new())).unwrap();
        assert_eq!(event_loop.getaddrinfo(None, 9).await?, []);
        assert_eq!(asked.recv().unwrap(), (None, Port::Number(9), AddrInfoHints::new()));
        Ok(())
    });
}

fn nothing_is_looked_up_before_it_is_awaited(on: On) {
    let event_loop = on.event_loop();
    let (told, asked, answer) = Told::new();
    event_loop.set_resolver(told).unwrap();
    event_loop.run(async {
        let lookup = event_loop.getaddrinfo("a.test", 1);
        turn().await;
        assert!(asked.try_recv().is_err());
        let lookup = lookup.into_future();
        turn().await;
        assert!(asked.try_recv().is_err());
        answer.send(Ok(vec![local(1)])).unwrap();
        assert_eq!(lookup.await?, [local(1)]);
        assert!(asked.try_recv().is_ok());
        Ok(())
    });
}

fn a_panicking_resolver_fails_the_lookup(on: On) {
    let event_loop = on.event_loop();
    event_loop.set_resolver(own(|_| panic!("expected: the resolver is broken"))).unwrap();
    event_loop.run(async {
        // More often than there are threads: none of them is lost.
        for _ in 0..6 {
            let error = event_loop.getaddrinfo("a.test", 1).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Panicked);
            assert!(error.to_string().contains("the resolver is broken"), "{error}");
        }
        let error = event_loop.getnameinfo(local(1).address, 0).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Panicked);
        event_loop.set_resolver(own(|_| Ok(vec![local(5)])))?;
        assert_eq!(event_loop.getaddrinfo("a.test", 1).await?, [local(5)]);
        Ok(())
    });
}

fn errors_of_the_resolver_come_as_they_are(on: On) {
    let event_loop = on.event_loop();
    event_loop
        .set_resolver(own(|host| {
            Err(match host {
                Some("again.test") => Error::resolve(EAI_AGAIN, "try again"),
                Some("cancelled.test") => Error::cancelled(),
                Some(_) => Error::other("an own error"),
                None => Error::resolve(EAI_NONAME, "no name"),
            })
        }))
        .unwrap();
    event_loop.run(async {
        assert_eq!(code(event_loop.getaddrinfo("again.test", 1).await), EAI_AGAIN);
        let error = event_loop.getaddrinfo("own.test", 1).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Other, "an own error"));
        assert!(event_loop.getaddrinfo("cancelled.test", 1).await.unwrap_err().is_cancelled());
        assert_eq!(code(event_loop.getnameinfo(local(1).address, 0).await), EAI_NONAME);
        Ok(())
    });
}

fn a_resolver_may_be_replaced_while_it_works(on: On) {
    let event_loop = on.event_loop();
    let (told, asked, answer) = Told::new();
    event_loop.set_resolver(told).unwrap();
    let lookup = event_loop.getaddrinfo("old.test", 1);
    let old = event_loop.create_task(async move { lookup.await });
    event_loop.ticks(1);
    asked.recv().unwrap();
    event_loop.set_resolver(own(|_| Ok(vec![local(2)]))).unwrap();
    assert_eq!(event_loop.run(event_loop.getaddrinfo("new.test", 1)), [local(2)]);
    assert!(!old.done());
    answer.send(Ok(vec![local(1)])).unwrap();
    assert_eq!(event_loop.run(old), [local(1)]);
}

fn lookups_and_jobs_do_not_starve_each_other(on: On) {
    /// More than either pool has threads.
    const MANY: usize = 80;
    let event_loop = on.event_loop();
    // All threads of the resolver are busy: jobs run.
    let (told, asked, answer) = Told::new();
    event_loop.set_resolver(told).unwrap();
    let lookups: Vec<_> = (0..MANY)
        .map(|_| {
            let lookup = event_loop.getaddrinfo("slow.test", 1);
            event_loop.create_task(async move { lookup.await })
        })
        .collect();
    event_loop.ticks(1);
    asked.recv().unwrap();
    assert_eq!(event_loop.run(event_loop.run_in_executor(None, || 5)), 5);
    (0..MANY).for_each(|_| answer.send(Ok(vec![local(1)])).unwrap());
    for found in event_loop.run(async { Ok(join_all(lookups).await) }) {
        assert_eq!(found.unwrap(), [local(1)]);
    }
    // All threads of the executor are busy: lookups are answered.
    let (go, gone) = channel::<()>();
    let gone = Arc::new(Mutex::new(gone));
    let jobs: Vec<_> = (0..MANY)
        .map(|_| {
            let gone = gone.clone();
            event_loop.run_in_executor(None, move || gone.lock().unwrap().recv().is_ok())
        })
        .collect();
    event_loop.set_resolver(own(|_| Ok(vec![local(3)]))).unwrap();
    assert_eq!(event_loop.run(event_loop.getaddrinfo("quick.test", 1)), [local(3)]);
    assert!(jobs.iter().all(|job| !job.done()));
    (0..MANY).for_each(|_| go.send(()).unwrap());
    assert!(event_loop.run(async { Ok(join_all(jobs).await) }).into_iter().all(|job| job.unwrap()));
}

fn several_lookups_run_at_once(on: On) {
    let event_loop = on.event_loop();
    let meeting = Arc::new(std::sync::Barrier::new(2));
    event_loop
        .set_resolver(own(move |_| {
            meeting.wait();
            Ok(vec![local(1)])
        }))
        .unwrap();
    let lookups = [event_loop.getaddrinfo("one.test", 1), event_loop.getaddrinfo("two.test", 1)];
    let found = event_loop.run(async { Ok(join_all(lookups.map(IntoFuture::into_future)).await) });
    assert!(found.into_iter().all(|found| found.unwrap() == [local(1)]));
}

fn lookups_on_a_closed_loop_are_refused(on: On) {
    let (closed, event_loop) = (on.event_loop(), on.event_loop());
    let before = closed.getaddrinfo("127.0.0.1", 80).socket_type(SOCK_STREAM);
    closed.close().unwrap();
    let after = closed.getaddrinfo("a.test", 80);
    let address = local(1).address;
    event_loop.run(async {
        for refused in [before.await, after.await] {
            let error = refused.unwrap_err();
            assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Runtime, "Event loop is closed"));
        }
        assert_eq!(closed.getnameinfo(address, 0).await.unwrap_err().kind(), ErrorKind::Runtime);
        assert_eq!(closed.set_resolver(own(|_| Ok(Vec::new()))).unwrap_err().kind(), ErrorKind::Runtime);
        Ok(())
    });
}

fn a_lookup_holds_a_virtual_clock(on: On) {
    let (event_loop, _clock) = on.virtual_loop();
    let (told, asked, answer) = Told::new();
    event_loop.set_resolver(told).unwrap();
    let begin = event_loop.time();
    let peer = thread::spawn(move || {
        asked.recv().unwrap();
        thread::sleep(Duration::from_millis(10));
        answer.send(Ok(vec![local(1)])).unwrap();
    });
    event_loop.run(async {
        let lookup = event_loop.getaddrinfo("slow.test", 1).into_future();
        match select(lookup, asyncio::sleep(Duration::from_secs(1000))).await {
            Either::Left((found, _)) => assert_eq!(found?, [local(1)]),
            Either::Right(_) => panic!("the clock went on while a name was looked up"),
        }
        Ok(())
    });
    assert_eq!(event_loop.time(), begin);
    peer.join().unwrap();
}

fn each_loop_has_its_resolver(on: On) {
    let (one, other) = (on.event_loop(), on.event_loop());
    one.set_resolver(own(|_| Ok(vec![local(1)]))).unwrap();
    other.set_resolver(own(|_| Ok(vec![local(2)]))).unwrap();
    assert_eq!(one.run(one.getaddrinfo("a.test", 80)), [local(1)]);
    assert_eq!(other.run(other.getaddrinfo("a.test", 80)), [local(2)]);
    // Which the name of a host alone decides, also for a socket.
    assert_eq!(one.run(one.getaddrinfo("a.test", 80).family(AF_INET6)), [local(1)]);
}
