//! What these tests show: reads that are given up lose nothing, in whatever way that happens.

use std::{future::Future, pin::Pin, rc::Rc, time::Duration};

use asyncio::{Error, Result, StreamReader, create_task, timeout};
use futures::{
    AsyncBufReadExt, AsyncReadExt,
    future::{Either, select},
};

use crate::{
    Ends, LARGE, LIMIT, polls,
    support::{
        loops::{On, TestLoop},
        run,
        transports::{PairKind, pattern},
    },
    turn, turns, turns_until,
};

on_each_selector! {
    a_cancelled_task_leaves_what_came
    a_timeout_leaves_what_came
    a_dropped_read_leaves_what_came
    a_read_that_lost_a_race_leaves_what_came
    a_cancelled_read_goes_on_in_another_task
    what_comes_with_the_cancellation_stays
    cancelling_an_opener_leaves_nothing
    a_cancelled_server_listens_no_more
    a_cancelled_wait_does_not_close
}

type Reading<'r> = Pin<Box<dyn Future<Output = Result<()>> + 'r>>;

/// Reads that wait for more than `part`.
fn kinds() -> Vec<(&'static str, fn(&mut StreamReader) -> Reading<'_>)> {
    fn hide<'r, T: 'r>(reading: impl Future<Output = Result<T>> + 'r) -> Reading<'r> {
        Box::pin(async { reading.await.map(drop) })
    }
    vec![
        ("readline", |reader| hide(reader.readline())),
        ("next_line", |reader| hide(reader.next_line())),
        ("readexactly", |reader| hide(reader.readexactly(10))),
        ("readexactly much", |reader| hide(reader.readexactly(10 * LIMIT))),
        ("readuntil", |reader| hide(reader.readuntil("\r\n"))),
        ("readuntil several", |reader| hide(reader.readuntil(["\r\n", "partly"]))),
        ("read to the end", |reader| hide(reader.read(None))),
    ]
}

/// Gives a read up in each kind, and looks what is left.
fn each(event_loop: &TestLoop, give_up: impl AsyncFn(&'static str, Reading<'_>, &dyn Fn())) {
    for (name, kind) in kinds() {
        for pair in [PairKind::Tcp, PairKind::Socketpair] {
            let Ends { mut reader, writer: _writer, peer } = Ends::open(event_loop, pair.pair());
            peer.send(b"pa");
            event_loop.run(async {
                for _ in 0..3 {
                    give_up(name, kind(&mut reader), &|| ()).await;
                }
                give_up(name, kind(&mut reader), &|| peer.send(b"rt")).await;
                peer.half_close();
                assert_eq!(reader.readexactly(4).await?, b"part", "{name}");
                assert_eq!(reader.read(None).await?, b"", "{name}");
                Ok(())
            });
        }
    }
}

fn a_cancelled_task_leaves_what_came(on: On) {
    let event_loop = on.event_loop();
    each(&event_loop, async |name, reading, send| {
        let task = asyncio::current_task().unwrap().unwrap();
        asyncio::get_running_loop().unwrap().call_later(Duration::from_millis(5), move || task.cancel());
        send();
        assert!(reading.await.is_err_and(|error| error.is_cancelled()), "{name}");
        asyncio::current_task().unwrap().unwrap().uncancel();
    });
}

fn a_timeout_leaves_what_came(on: On) {
    let event_loop = on.event_loop();
    each(&event_loop, async |name, reading, send| {
        send();
        let outcome = timeout(Duration::from_millis(5), reading).await;
        assert_eq!(outcome.unwrap_err().kind(), asyncio::ErrorKind::Timeout, "{name}");
    });
}

fn a_dropped_read_leaves_what_came(on: On) {
    let event_loop = on.event_loop();
    for count in 1..6 {
        each(&event_loop, async |name, reading, send| {
            send();
            assert!(polls(reading, count).await.is_none(), "{name}");
        });
    }
}

fn a_read_that_lost_a_race_leaves_what_came(on: On) {
    let event_loop = on.event_loop();
    each(&event_loop, async |name, reading, send| {
        send();
        match select(reading, Box::pin(turns(4))).await {
            Either::Left((outcome, _)) => panic!("{name}: {outcome:?}"),
            Either::Right(((), reading)) => drop(reading),
        }
    });
}

fn a_cancelled_read_goes_on_in_another_task(on: On) {
    let event_loop = on.event_loop();
    let Ends { reader, writer: _writer, peer } = Ends::tcp(&event_loop);
    let shared = Rc::new(std::cell::RefCell::new(Some(reader)));
    event_loop.run(async {
        for _ in 0..3 {
            let place = shared.clone();
            let task = create_task(async move {
                let mut reader = place.borrow_mut().take().unwrap();
                let outcome = reader.readline().await;
                place.borrow_mut().replace(reader);
                outcome
            });
            turn().await;
            peer.send(b"x");
            turns(3).await;
            task.cancel();
            assert!(task.await.is_err_and(|error| error.is_cancelled()));
        }
        peer.send(b"\n");
        let mut reader = shared.borrow_mut().take().unwrap();
        assert_eq!(reader.readline().await?, b"xxx\n");
        Ok(())
    });
}

/// Both in one turn: the bytes wait for the next read.
#[test]
fn what_is_fed_with_the_cancellation_stays() {
    run(async {
        for cancel_first in [true, false] {
            let (feeder, mut reader) = crate::fed(LIMIT);
            let task = create_task(async move { Ok((reader.readline().await, reader)) });
            turn().await;
            if cancel_first {
                task.cancel();
            }
            feeder.feed_data(b"line\n")?;
            if !cancel_first {
                task.cancel();
            }
            let (outcome, mut reader) = task.await?;
            assert!(outcome.is_err_and(|error| error.is_cancelled()));
            assert_eq!(reader.readline().await?, b"line\n");
        }
        Ok(())
    });
}

fn what_comes_with_the_cancellation_stays(on: On) {
    let event_loop = on.event_loop();
    let Ends { reader, writer: _writer, peer } = Ends::open(&event_loop, PairKind::Socketpair.pair());
    let mut place = Some(reader);
    for _ in 0..50 {
        let mut reader = place.take().unwrap();
        let task = event_loop.create_task(async move { Ok((reader.read(100).await, reader)) });
        event_loop.ticks(1);
        // Seen by the selector in the turn in which the task is cancelled.
        peer.send(b"bytes");
        task.cancel();
        let (outcome, mut reader) = event_loop.run(task);
        assert!(outcome.is_err_and(|error| error.is_cancelled()));
        assert_eq!(event_loop.run(reader.readexactly(5)), b"bytes");
        place = Some(reader);
    }
}

/// The faces of futures have no room for a cancellation: who polls them is dropped, and the bytes stay.
#[test]
fn other_faces_are_cancelled_by_dropping() {
    run(async {
        let (feeder, mut reader) = crate::fed(LIMIT);
        assert!(polls(AsyncReadExt::read(&mut reader, &mut [0; 10]), 3).await.is_none());
        assert!(polls(reader.fill_buf(), 3).await.is_none());
        feeder.feed_data(b"stays")?;
        assert_eq!(reader.fill_buf().await?, b"stays");
        assert_eq!(reader.read(100).await?, b"stays");

        let task = create_task(async move {
            let outcome = AsyncReadExt::read(&mut reader, &mut [0; 10]).await;
            Err::<(), _>(Error::Value(format!("{outcome:?}").into()))
        });
        turns(2).await;
        task.cancel();
        assert!(task.await.is_err_and(|error| error.is_cancelled()));
        Ok(())
    });
}

fn cancelling_an_opener_leaves_nothing(on: On) {
    let event_loop = on.event_loop();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    event_loop.run(async {
        for count in 1..8 {
            let opened = polls(async { asyncio::open_connection(address).await }, count).await;
            drop(opened);
        }
        let task = create_task(async move { asyncio::open_connection(address).await.map(drop) });
        task.cancel();
        assert!(task.await.is_err());
        Ok(())
    });
    listener.set_nonblocking(true).unwrap();
    let accepted: Vec<_> = std::iter::from_fn(|| listener.accept().ok()).collect();
    event_loop.settle();
    for (stream, _) in accepted {
        let peer = crate::support::transports::Peer::new(stream);
        event_loop.until(|| peer.ended());
    }
}

fn a_cancelled_server_listens_no_more(on: On) {
    let event_loop = on.event_loop();
    let place = tempfile::tempdir().unwrap();
    event_loop.run(async {
        for count in 1..6 {
            let path = place.path().join(count.to_string());
            let starting = async { asyncio::start_unix_server(async |_, _| Ok(()), &path).await };
            let started = polls(starting, count).await;
            drop(started);
            turns(2).await;
        }
        Ok(())
    });
}

fn a_cancelled_wait_does_not_close(on: On) {
    let event_loop = on.event_loop();
    let Ends { reader: _reader, writer, peer } = Ends::tcp(&event_loop);
    event_loop.run(async {
        assert!(timeout(Duration::from_millis(1), writer.wait_closed()).await.is_err());
        assert!(!writer.is_closing());
        writer.write(pattern(LARGE))?;
        assert!(timeout(Duration::from_millis(1), writer.drain()).await.is_err());
        let collected = peer.collect();
        writer.drain().await?;
        writer.close();
        writer.wait_closed().await?;
        turns_until(|| collected.is_finished()).await;
        assert!(collected.join().unwrap().0 == pattern(LARGE));
        Ok(())
    });
}
