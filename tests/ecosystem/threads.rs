//! Futures woken by foreign threads.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use asyncio::{create_task, sleep};
use futures::{FutureExt, StreamExt, stream::FuturesUnordered};

use crate::support;

#[test]
fn foreign_timers_and_sockets_wake_our_tasks() {
    // async-io has a reactor thread of its own; its wakes come from there.
    support::run(async {
        let foreign = smol::Timer::after(Duration::from_millis(5));
        let (mut one, mut two) = (FutureExt::fuse(foreign), Box::pin(sleep(Duration::from_secs(60)).fuse()));
        let first = futures::select! {
            _ = one => "foreign",
            _ = two => "ours",
        };
        assert_eq!(first, "foreign");
        let (mut here, mut there) = smol::net::unix::UnixStream::pair()?;
        let echo = create_task(async move {
            use smol::io::{AsyncReadExt, AsyncWriteExt};
            let mut buffer = [0; 4];
            there.read_exact(&mut buffer).await?;
            there.write_all(&buffer).await?;
            Ok(())
        });
        use smol::io::{AsyncReadExt, AsyncWriteExt};
        here.write_all(b"ping").await?;
        let mut buffer = [0; 4];
        here.read_exact(&mut buffer).await?;
        assert_eq!(&buffer, b"ping");
        echo.await
    });
}

#[test]
fn children_of_one_combinator_are_woken_by_many_threads() {
    support::run(async {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..60).map(|_| futures::channel::oneshot::channel::<usize>()).unzip();
        let children: FuturesUnordered<_> = receivers.into_iter().collect();
        let mut senders: Vec<_> = senders.into_iter().enumerate().collect();
        let mut threads = Vec::new();
        while !senders.is_empty() {
            let part: Vec<_> = senders.drain(..20).collect();
            threads
                .push(thread::spawn(move || part.into_iter().for_each(|(index, sender)| sender.send(index).unwrap())));
        }
        let mut seen: Vec<_> = children.map(Result::unwrap).collect().await;
        seen.sort_unstable();
        assert_eq!(seen, (0..60).collect::<Vec<_>>());
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        Ok(())
    });
}

#[test]
fn two_loops_talk_through_foreign_channels() {
    let _deadline = support::deadline();
    let (to_b, from_a) = async_channel::bounded::<u32>(1);
    let (to_a, from_b) = async_channel::bounded::<u32>(1);
    let b = thread::spawn(move || {
        asyncio::run(async {
            while let Ok(number) = from_a.recv().await {
                to_a.send(number + 1).await.map_err(asyncio::Error::other)?;
            }
            Ok(())
        })
    });
    let total = asyncio::run(async {
        let mut total = 0;
        for number in 0..200 {
            to_b.send(number).await.map_err(asyncio::Error::other)?;
            total += from_b.recv().await.map_err(asyncio::Error::other)?;
        }
        drop(to_b);
        Ok(total)
    });
    b.join().unwrap().unwrap();
    assert_eq!(total.unwrap(), (1..=200).sum::<u32>());
}

#[test]
fn a_shared_future_of_futures_is_waited_for_in_two_loops() {
    let _deadline = support::deadline();
    let (give, take) = futures::channel::oneshot::channel::<u8>();
    let shared = take.map(Result::unwrap).shared();
    let theirs = shared.clone();
    let (ready, waits) = mpsc::channel();
    let other = thread::spawn(move || {
        asyncio::run(async {
            ready.send(()).unwrap();
            asyncio::ok(theirs.await)
        })
    });
    waits.recv().unwrap();
    let sender = thread::spawn(move || give.send(4).unwrap());
    assert_eq!(asyncio::run(async { Ok(shared.await) }).unwrap(), 4);
    assert_eq!(other.join().unwrap().unwrap(), 4);
    sender.join().unwrap();
}

#[test]
fn rayon_answers_through_a_channel() {
    support::run(async {
        let (give, take) = futures::channel::oneshot::channel();
        rayon::spawn(move || {
            use rayon::prelude::*;
            give.send((0..1000u64).into_par_iter().sum::<u64>()).unwrap();
        });
        assert_eq!(take.await.map_err(asyncio::Error::other)?, 499_500);
        Ok(())
    });
}

#[test]
fn a_waker_shared_by_threads_wakes_once_a_step() {
    support::run(async {
        let gate = support::Gate::default();
        let opener = Arc::new(gate.clone());
        let waiter = create_task(async move {
            gate.await;
            Ok(())
        });
        sleep(Duration::ZERO).await?;
        let waker = opener.waker().unwrap();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (waker, opener) = (waker.clone(), opener.clone());
                thread::spawn(move || {
                    (0..100).for_each(|_| waker.wake_by_ref());
                    opener.open();
                })
            })
            .collect();
        waiter.await?;
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        Ok(())
    });
}
