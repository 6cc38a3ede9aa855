//! Several who wait for the next one, and waits that are cancelled or given up.

use asyncio::{
    ErrorKind, Future, NextCompleted, as_completed, create_task, current_task, gather, sleep, timeout, wait,
};
use futures::{StreamExt, future::join_all};

use crate::{
    MS, SECOND, after, assert_cancelled, run,
    support::{Record, failure},
    turns,
};

/// `test_as_completed_reverse_wait` of CPython.
#[test]
fn whoever_waits_first_gets_the_first() {
    let (_, took) = run(async {
        let mut waits = as_completed([after(50, "a"), after(100, "b")]).into_iter().collect::<Vec<_>>();
        assert_eq!(waits.len(), 2);
        let second = waits.pop().unwrap();
        assert_eq!(second.await?, "a");
        assert_eq!(waits.pop().unwrap().await?, "b");
        Ok(())
    });
    assert_eq!(took, MS * 100);
}

/// `test_as_completed_concurrent`.
#[test]
fn all_can_be_awaited_at_once() {
    run(async {
        let waits = as_completed([after(50, "a"), after(50, "b")]).into_iter().map(create_task).collect::<Vec<_>>();
        let (done, pending) = wait(&waits).await?;
        assert_eq!((done.len(), pending.len()), (2, 0));
        assert_eq!(gather(waits).await?, ["a", "b"]);
        let waits = as_completed((0..20).map(|n| after(n, n))).into_iter().collect::<Vec<_>>();
        let values = join_all(waits).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        assert_eq!(values, (0..20).collect::<Vec<_>>());
        Ok(())
    });
}

/// The line of those who wait is fair.
#[test]
fn results_go_to_those_who_wait_in_their_order() {
    run(async {
        let futures = (0..5).map(|_| Future::<usize>::new()).collect::<Vec<_>>();
        let log = Record::default();
        let waits = as_completed(futures.clone()).into_iter().enumerate().map(|(n, next)| {
            let log = log.clone();
            create_task(async move {
                let value = next.await?;
                log.push((n, value));
                Ok(())
            })
        });
        let waits = waits.collect::<Vec<_>>();
        turns(2).await?;
        for place in [4, 0, 3] {
            futures[place].set_result(place)?;
        }
        turns(3).await?;
        assert_eq!(log.take(), [(0, 4), (1, 0), (2, 3)]);
        futures[2].set_result(2)?;
        futures[1].set_result(1)?;
        wait(waits).await?;
        assert_eq!(log.take(), [(3, 2), (4, 1)]);
        Ok(())
    });
}

/// A stream that is cancelled while it waits loses nothing.
#[test]
fn a_cancelled_stream_can_be_iterated_again() {
    for point in 0..6 {
        run(async move {
            let future = Future::<u8>::new();
            let setter = future.clone();
            let task = create_task(async move {
                let other = Future::new();
                let late = other.clone();
                let mut completed = as_completed([future, other]);
                let mut cancelled = 0;
                let mut values = Vec::new();
                while let Some(next) = completed.next().await {
                    match next {
                        Ok(done) => values.push(done.await?),
                        Err(error) => {
                            assert!(error.is_cancelled());
                            cancelled += 1;
                            current_task()?.unwrap().uncancel();
                            late.set_result(2)?;
                        }
                    }
                }
                Ok((values, cancelled))
            });
            turns(2).await?;
            if point < 3 {
                turns(point).await?;
                assert!(task.cancel());
                turns(2).await?;
                setter.set_result(1)?;
            } else {
                setter.set_result(1)?;
                turns(point - 3).await?;
                assert!(task.cancel());
            }
            let (mut values, cancelled) = task.await?;
            values.sort_unstable();
            assert_eq!((values, cancelled), (vec![1, 2], 1), "{point}");
            Ok(())
        });
    }
}

/// A plain wait that is cancelled takes nothing: the result goes to the next who asks.
#[test]
fn a_cancelled_wait_leaves_its_result_to_the_others() {
    for point in 0..4 {
        run(async move {
            let futures = [0; 2].map(|_| Future::<u8>::new());
            let mut waits = as_completed(futures.each_ref().map(Future::clone)).into_iter();
            let (first, second) = (waits.next().unwrap(), waits.next().unwrap());
            assert!(waits.next().is_none());
            let (first, second) = (create_task(first), create_task(second));
            turns(2).await?;
            if point > 0 {
                futures[1].set_result(1)?;
                turns(point - 1).await?;
            }
            if first.cancel() {
                assert_cancelled(first.await);
                if point == 0 {
                    futures[1].set_result(1)?;
                }
                assert_eq!(second.await?, 1, "{point}");
            } else {
                assert_eq!((first.await?, point), (1, 3));
                futures[0].set_result(0)?;
                assert_eq!(second.await?, 0);
            }
            Ok(())
        });
    }
}

/// A wait that was cancelled and swallowed it can be awaited again.
#[test]
fn a_cancelled_wait_can_be_awaited_again() {
    run(async {
        let task = create_task(async {
            let mut next: NextCompleted<_> = as_completed([after(10, 5)]).into_iter().next().unwrap();
            assert_cancelled((&mut next).await);
            current_task()?.unwrap().uncancel();
            next.await
        });
        turns(2).await?;
        task.cancel();
        assert_eq!(task.await?, 5);
        Ok(())
    });
}

/// A wait that was woken and is dropped before it could take the result passes it on.
#[test]
fn a_dropped_wait_that_was_woken_passes_the_result_on() {
    run(async {
        let futures = [0; 3].map(|_| Future::<u8>::new());
        let mut waits = as_completed(futures.each_ref().map(Future::clone)).into_iter().collect::<Vec<_>>();
        let (third, second, mut first) = (waits.pop().unwrap(), waits.pop().unwrap(), waits.pop().unwrap());
        waits.push(third);
        // Under a waker that does nothing: it is told and does not take.
        let polled = std::pin::Pin::new(&mut first);
        assert!(
            std::future::Future::poll(polled, &mut std::task::Context::from_waker(std::task::Waker::noop()))
                .is_pending()
        );
        let second = create_task(second);
        turns(2).await?;
        futures[0].set_result(7)?;
        turns(3).await?;
        assert!(!second.done(), "the first one was woken");
        drop(first);
        assert_eq!(second.await?, 7);
        drop(waits);
        Ok(())
    });
}

/// The same with a timeout: as many waits end with it as there were members, and one that is dropped passes it on.
#[test]
fn a_timeout_reaches_all_who_wait() {
    let (_, took) = run(async {
        let waits = as_completed((0..4).map(|_| Future::<u8>::new())).timeout(MS * 5);
        let waits = waits.into_iter().map(create_task).collect::<Vec<_>>();
        for task in waits {
            assert_eq!(failure(task.await).0, ErrorKind::Timeout);
        }
        let mut waits = as_completed((0..2).map(|_| Future::<u8>::new())).timeout(MS * 5).into_iter();
        let (mut first, second) = (waits.next().unwrap(), create_task(waits.next().unwrap()));
        let polled = std::pin::Pin::new(&mut first);
        assert!(
            std::future::Future::poll(polled, &mut std::task::Context::from_waker(std::task::Waker::noop()))
                .is_pending()
        );
        drop(first);
        assert_eq!(failure(second.await).0, ErrorKind::Timeout);
        Ok(())
    });
    assert_eq!(took, MS * 10);
}

/// Waits under timeouts of their own, some given up: every result is given once.
#[test]
fn waits_that_are_given_up_lose_no_result() {
    let (_, took) = run(async {
        let mut completed = as_completed((1..=10).map(|n| after(n * 10, n)));
        let mut values = Vec::new();
        let mut given_up = 0;
        while values.len() < 10 {
            match timeout(MS * 3, async { completed.next().await.transpose() }).await {
                Ok(Some(done)) => values.push(done.await?),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Timeout);
                    given_up += 1;
                }
            }
        }
        assert_eq!(values, (1..=10).collect::<Vec<_>>());
        assert!(given_up >= 20, "{given_up}");
        Ok(())
    });
    assert_eq!(took, MS * 100);
}

/// A wait's cancellation touches no member.
#[test]
fn cancelling_who_iterates_touches_no_member() {
    run(async {
        let member = create_task(after(10, 1)).shared();
        let given = member.clone();
        let other = create_task(after(1000, 2)).shared();
        let task = create_task(async move {
            for next in as_completed([given, other]) {
                next.await?;
            }
            Ok(())
        });
        turns(3).await?;
        task.cancel();
        assert_cancelled(task.await);
        assert!(!member.done() && member.cancelling() == 0);
        assert_eq!(member.await?, 1);
        sleep(SECOND).await
    });
}

/// As in CPython, the plain iteration has as many items as there are members, awaited or not.
#[test]
fn a_loop_that_awaits_nothing_ends() {
    run(async {
        let items = |count: u8| as_completed((0..count).map(|n| after(1, n))).into_iter();
        assert_eq!((items(0).take(100).count(), items(3).take(100).count()), (0, 3));
        assert!(items(3).take(100).nth(2).is_some() && items(3).take(100).nth(3).is_none());
        assert_eq!(items(3).take(100).skip(1).count(), 2);
        sleep(MS * 5).await
    });
}

/// Many who come and go, with a fixed pattern: all results are given, each once.
#[test]
fn a_crowd_gets_every_result_once() {
    run(async {
        let futures = (0..200).map(|_| Future::<usize>::new()).collect::<Vec<_>>();
        let mut plain = as_completed(futures.clone()).into_iter();
        let log = Record::default();
        let spawn = |plain: &mut asyncio::CompletedIter<usize>| {
            let next = plain.next()?;
            let log = log.clone();
            Some(create_task(async move {
                let value = next.await?;
                log.push(value);
                Ok(())
            }))
        };
        let mut tasks = std::collections::VecDeque::new();
        let mut number = 12345_u32;
        let mut random = |below: u32| {
            number = number.wrapping_mul(1_103_515_245).wrapping_add(12345);
            (number >> 16) % below
        };
        let mut cancelled = 0;
        for (place, future) in futures.iter().enumerate() {
            for _ in 0..random(3) {
                tasks.extend(spawn(&mut plain));
            }
            turns(random(3) as usize).await?;
            future.set_result(place)?;
            turns(random(3) as usize).await?;
            if random(4) == 0 {
                // The last in line still waits, unless there were enough results for all.
                if let Some(task) = tasks.pop_back() {
                    cancelled += usize::from(task.cancel());
                }
            }
        }
        while let Some(task) = spawn(&mut plain) {
            tasks.push_back(task);
        }
        if !tasks.is_empty() {
            wait(tasks).await?;
        }
        turns(3).await?;
        let mut values = log.take();
        // In order: the line is fair, and nothing overtakes.
        assert!(values.is_sorted());
        values.dedup();
        assert_eq!(values.len(), 200 - cancelled);
        assert!(cancelled > 5, "{cancelled}");
        Ok(())
    });
}
