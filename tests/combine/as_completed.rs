//! Results in the order in which they come, by both iterations.

use std::pin::Pin;

use asyncio::{AsCompleted, ErrorKind, Future, Result, Task, as_completed, create_task, get_running_loop, sleep};
use futures::{Stream, StreamExt, TryStreamExt, stream::FusedStream};

use crate::{
    FOREVER, MS, SECOND, ZERO, after, assert_cancelled, assert_error, error, fails, run, run_reporting,
    support::failure, turns,
};

type Boxed<T> = Pin<Box<dyn std::future::Future<Output = Result<T>>>>;

/// All results, by the stream or by the plain iteration.
async fn collect<T>(mut completed: AsCompleted<T>, by_stream: bool) -> Result<Vec<T>> {
    let mut values = Vec::new();
    if by_stream {
        while let Some(next) = completed.next().await {
            values.push(next?.await?);
        }
    } else {
        for next in completed {
            values.push(next.await?);
        }
    }
    Ok(values)
}

/// ASC-001
#[test]
fn plain_iteration_gives_results_as_they_come() {
    let (values, took) = run(async {
        let items: Vec<Boxed<_>> = vec![Box::pin(after(20, "a")), Box::pin(after(10, "b"))];
        let mut values = Vec::new();
        for next in as_completed(items) {
            values.push(next.await?);
        }
        Ok(values)
    });
    assert_eq!((values, took), (vec!["b", "a"], MS * 20));
}

/// ASC-002
#[test]
fn asynchronous_iteration_gives_the_very_handles() {
    let (_, took) = run(async {
        let (a, b) = (create_task(after(20, "a")), create_task(after(10, "b")));
        let (any_a, any_b) = (a.any(), b.any());
        let mut completed = as_completed([a, b]);
        let first = completed.next().await.unwrap()?;
        assert!(first == any_b && first != any_a && first.is(&any_b) && first.done());
        assert_eq!(first.task().unwrap().result()?, "b");
        assert!(!any_a.done());
        assert_eq!(first.await?, "b");
        let second = completed.next().await.unwrap()?;
        assert!(second == any_a && second.done());
        let task: Task<_> = second.into_task().unwrap();
        assert!(task == any_a);
        assert_eq!(task.await?, "a");
        assert!(completed.next().await.is_none() && completed.next().await.is_none());
        assert!(completed.is_terminated());

        let mut completed = as_completed([after(1, 1)]);
        let made = completed.next().await.unwrap()?;
        assert!(made != any_a && made.task().unwrap().done());
        assert!(made.task().unwrap().get_name().starts_with("Task-"));
        assert_eq!(made.await?, 1);
        Ok(())
    });
    assert_eq!(took, MS * 21);
}

/// ASC-003
#[test]
fn a_timeout_is_an_error_of_the_iteration() {
    for by_stream in [false, true] {
        let (_, took) = run(async move {
            let (a, b) = (create_task(after(100, "a")), create_task(after(150, "b")).shared());
            let b_again = b.clone();
            let items: Vec<Boxed<_>> = vec![Box::pin(a), Box::pin(b_again)];
            let mut completed = as_completed(items).timeout(MS * 120);
            let timed_out = if by_stream {
                assert_eq!(completed.next().await.unwrap()?.await?, "a");
                let failed = completed.next().await.unwrap().map(drop);
                assert!(completed.next().await.is_none());
                failed
            } else {
                let mut plain = completed.into_iter();
                assert_eq!(plain.next().unwrap().await?, "a");
                let failed = plain.next().unwrap().await.map(drop);
                assert!(plain.next().is_none());
                failed
            };
            assert_eq!(failure(timed_out), (ErrorKind::Timeout, "timed out".into()));
            assert_eq!(b.cancelling(), 0);
            assert_eq!(b.await?, "b");
            // What was boxed around it goes on until its task has ended.
            turns(3).await
        });
        assert_eq!(took, MS * 150);
    }
}

/// ASC-005
#[test]
fn iteration_can_be_resumed_and_duplicates_count_once() {
    run(async {
        let coroutines = || (0..4).map(|n| async move { Ok(n) });
        let mut completed = as_completed(coroutines());
        let mut collected = Vec::new();
        for next in &mut completed {
            collected.push(next.await?);
            if collected.len() == 2 {
                break;
            }
        }
        assert_eq!(collected.len(), 2);
        for next in &mut completed {
            collected.push(next.await?);
        }
        collected.sort_unstable();
        assert_eq!(collected, [0, 1, 2, 3]);
        assert!(completed.into_iter().next().is_none());

        let mut completed = as_completed(coroutines());
        let mut collected = Vec::new();
        while let Some(next) = completed.next().await {
            collected.push(next?.await?);
            if collected.len() == 2 {
                break;
            }
        }
        assert_eq!(collected.len(), 2);
        while let Some(next) = completed.next().await {
            collected.push(next?.await?);
        }
        collected.sort_unstable();
        assert_eq!(collected, [0, 1, 2, 3]);

        for by_stream in [false, true] {
            let (x, y) = (Future::new().shared(), Future::new().shared());
            let completed = as_completed([x.clone(), x.clone(), y.clone(), x.clone()]);
            x.set_result("x")?;
            y.set_result("y")?;
            assert_eq!(collect(completed, by_stream).await?, ["x", "y"]);
            assert!(collect(as_completed(Vec::<Future<u8>>::new()), by_stream).await?.is_empty());
        }
        Ok(())
    });
}

/// `test_as_completed` of CPython.
#[test]
fn those_that_end_first_come_first() {
    for by_stream in [false, true] {
        let (values, took) = run(async move {
            collect(as_completed(vec![after(10, 'b'), after(150, 'c'), after(10, 'a')]), by_stream).await
        });
        assert_eq!((values, took), (vec!['b', 'a', 'c'], MS * 150));
        let (values, took) =
            run(async move { collect(as_completed((0..1000).map(|n| after(999 - n, n))), by_stream).await });
        assert_eq!((values, took), ((0..1000).rev().collect::<Vec<_>>(), MS * 999));
        let (values, took) = run(async move { collect(as_completed([after(3, 1)]), by_stream).await });
        assert_eq!((values, took), (vec![1], MS * 3));
    }
}

/// The two ways of iterating one object, mixed.
#[test]
fn both_iterations_can_be_mixed() {
    run(async {
        let mut completed = as_completed((0..6).map(|n| after(n, n)));
        let mut values = Vec::new();
        values.push(completed.next().await.unwrap()?.await?);
        values.push((&mut completed).into_iter().next().unwrap().await?);
        for next in (&mut completed).into_iter().take(2) {
            values.push(next.await?);
        }
        assert_eq!(format!("{completed:?}"), "<AsCompleted left=2>");
        assert_eq!(completed.size_hint(), (0, Some(2)));
        values.push(completed.next().await.unwrap()?.await?);
        for next in completed {
            values.push(next.await?);
        }
        assert_eq!(values, [0, 1, 2, 3, 4, 5]);
        Ok(())
    });
}

#[test]
fn it_is_a_stream_for_combinators() {
    run(async {
        let values = as_completed([after(2, 2), after(1, 1), after(3, 3)]).and_then(|done| done);
        assert_eq!(values.try_collect::<Vec<_>>().await?, [1, 2, 3]);
        let first = as_completed([after(2, 2), after(1, 1)]).take(1).and_then(|done| done);
        assert_eq!(first.try_collect::<Vec<_>>().await?, [1]);
        sleep(MS * 5).await?;
        let mut selected = as_completed([after(2, 2), after(1, 1)]);
        let mut values = Vec::new();
        loop {
            futures::select! {
                next = selected.next() => match next {
                    Some(next) => values.push(next?.await?),
                    None => break,
                },
                complete => break,
            }
        }
        assert_eq!(values, [1, 2]);
        Ok(())
    });
}

/// Errors, cancellations and panics of members are the results of their items, and end nothing.
#[test]
fn failures_of_members_are_results() {
    for by_stream in [false, true] {
        run(async move {
            let doomed = create_task(after(50, 0));
            let any = doomed.any();
            get_running_loop()?.call_later(MS * 2, move || any.cancel());
            let panics = async {
                sleep(MS * 3).await?;
                if true {
                    panic!("boom");
                }
                Ok(0)
            };
            let items: Vec<Boxed<i32>> =
                vec![Box::pin(fails(1, "E")), Box::pin(doomed), Box::pin(panics), Box::pin(after(4, 4))];
            let mut completed = as_completed(items);
            let mut outcomes = Vec::new();
            if by_stream {
                while let Some(next) = completed.next().await {
                    outcomes.push(next?.await);
                }
            } else {
                for next in &mut completed {
                    outcomes.push(next.await);
                }
            }
            let [failed, cancelled, panicked, good] = <[Result<i32>; 4]>::try_from(outcomes).unwrap();
            assert_error(failed, "E");
            assert_cancelled(cancelled);
            assert_eq!(failure(panicked), (ErrorKind::Panicked, "boom".into()));
            assert_eq!(good?, 4);
            Ok(())
        });
    }
}

/// A member that ended as cancelled is no cancellation of who iterates: the stream goes on.
#[test]
fn a_cancelled_member_does_not_end_the_stream() {
    run(async {
        let futures = [0; 3].map(|_| Future::<u8>::new());
        let mut completed = as_completed(futures.each_ref().map(Future::clone));
        futures[1].cancel();
        futures[0].set_exception(error("E"))?;
        futures[2].set_result(2)?;
        let first = completed.next().await.unwrap()?;
        assert!(first.is(&futures[1]) && !first.is(&futures[0]) && first.task().is_none());
        assert_cancelled(first.await);
        assert_error(completed.next().await.unwrap()?.await, "E");
        assert_eq!(completed.next().await.unwrap()?.await?, 2);
        assert!(completed.next().await.is_none());
        Ok(())
    });
}

/// What is not looked at is reported, as anywhere.
#[test]
fn errors_that_nobody_takes_are_reported() {
    let (result, _, reports) = run_reporting(async {
        let mut completed = as_completed([fails::<()>(1, "taken"), fails(2, "dropped"), fails(3, "later")]);
        assert_error(completed.next().await.unwrap()?.await, "taken");
        drop(completed.next().await.unwrap()?);
        drop(completed);
        sleep(MS * 5).await
    });
    result.unwrap();
    let mut texts = reports.into_iter().map(|report| report.1).collect::<Vec<_>>();
    texts.sort();
    assert_eq!(texts, ["dropped", "later"]);
}

#[test]
fn a_timeout_that_is_not_needed_leaves_no_timer() {
    for by_stream in [false, true] {
        let (values, took) = run(async move {
            let values = collect(as_completed([after(10, 'a')]).timeout(SECOND), by_stream).await?;
            let event_loop = get_running_loop()?;
            assert!(event_loop.next_deadline().is_none_or(|next| next <= event_loop.time()));
            Ok(values)
        });
        assert_eq!((values, took), (vec!['a'], MS * 10));
    }
    // All have ended and none was asked for: the timer is gone as well.
    run(async {
        let completed = as_completed([after(1, ()), after(2, ())]).timeout(FOREVER);
        sleep(MS * 5).await?;
        let event_loop = get_running_loop()?;
        assert!(event_loop.next_deadline().is_none_or(|next| next <= event_loop.time()));
        drop(completed);
        // Nor does a drop leave one, or another word about the limit.
        drop(as_completed([Future::<u8>::new()]).timeout(FOREVER));
        let completed = as_completed([Future::<u8>::new()]).timeout(FOREVER).timeout(SECOND).timeout(None);
        assert!(event_loop.next_deadline().is_none_or(|next| next <= event_loop.time()));
        drop(completed);
        let nothing = as_completed(Vec::<Future<u8>>::new()).timeout(FOREVER);
        assert!(event_loop.next_deadline().is_none_or(|next| next <= event_loop.time()));
        drop(nothing);
        Ok(())
    });
}

/// The time is counted from the setter, not from the first wait.
#[test]
fn the_timeout_begins_with_its_setter() {
    let (_, took) = run(async {
        let mut completed = as_completed([after(50, 'a')]).timeout(MS * 10);
        sleep(MS * 20).await?;
        assert_eq!(failure(completed.next().await.unwrap().map(drop)).0, ErrorKind::Timeout);
        assert!(completed.next().await.is_none());
        sleep(MS * 30).await
    });
    assert_eq!(took, MS * 50);
}

/// Those that ended before the timeout come before it, whoever asks when.
#[test]
fn what_ended_in_time_is_given_before_the_timeout() {
    for by_stream in [false, true] {
        run(async move {
            let mut completed = as_completed((1..=5).map(|n| after(n, n))).timeout(MS * 3 + MS / 2);
            sleep(MS * 10).await?;
            let mut outcomes = Vec::new();
            if by_stream {
                while let Some(next) = completed.next().await {
                    outcomes.push(match next {
                        Ok(done) => done.await,
                        Err(error) => Err(error),
                    });
                }
            } else {
                for next in &mut completed {
                    outcomes.push(next.await);
                }
            }
            let expected = if by_stream { 4 } else { 5 };
            assert_eq!(outcomes.len(), expected);
            for (n, outcome) in (1..).zip(outcomes) {
                match outcome {
                    Ok(value) => assert!(value == n && n <= 3),
                    Err(error) => assert!(n > 3 && error.kind() == ErrorKind::Timeout),
                }
            }
            Ok(())
        });
    }
}

/// An end and the timeout in one iteration: whichever was first in line.
#[test]
fn a_timeout_in_the_iteration_of_an_end() {
    run(async {
        let early = create_task(after(10, 1));
        turns(1).await?;
        let mut completed = as_completed([early]).timeout(MS * 10);
        // The task's end is told one iteration after the timer: as in CPython, the timeout was here first.
        assert_eq!(failure(completed.next().await.unwrap().map(drop)).0, ErrorKind::Timeout);
        let future = Future::new();
        let mut completed = as_completed([future.clone()]).timeout(MS * 10);
        get_running_loop()?.call_later(MS * 9, move || future.set_result(1).unwrap());
        assert_eq!(completed.next().await.unwrap()?.await?, 1);
        Ok(())
    });
}

#[test]
fn a_timeout_of_zero_gives_those_that_are_done() {
    run(async {
        let done = Future::new();
        done.set_result(1)?;
        let pending = Future::<u8>::new();
        let mut completed = as_completed([pending.clone(), done]).timeout(ZERO);
        assert_eq!(completed.next().await.unwrap()?.await?, 1);
        assert_eq!(failure(completed.next().await.unwrap().map(drop)).0, ErrorKind::Timeout);
        assert!(!pending.done());
        Ok(())
    });
}

/// Tasks that end together come in the order in which they end; done ones in the order of the arguments.
#[test]
fn those_that_end_together_keep_their_order() {
    run(async {
        let futures = (0..5).map(|_| Future::<usize>::new()).collect::<Vec<_>>();
        for place in [3, 1, 4] {
            futures[place].set_result(place)?;
        }
        let completed = as_completed(futures.clone());
        futures[2].set_result(2)?;
        futures[0].set_result(0)?;
        assert_eq!(collect(completed, true).await?, [1, 3, 4, 2, 0]);
        Ok(())
    });
}

/// Shared handles: the item gives a clone, and the others still have theirs.
#[test]
fn shared_handles_keep_their_results() {
    for by_stream in [false, true] {
        run(async move {
            let tasks = (0..3).map(|n| create_task(after(n, n)).shared()).collect::<Vec<_>>();
            assert_eq!(collect(as_completed(tasks.clone()), by_stream).await?, [0, 1, 2]);
            assert_eq!(collect(as_completed(tasks.clone()), by_stream).await?, [0, 1, 2]);
            for (n, task) in (0..).zip(tasks) {
                assert_eq!(task.await?, n);
            }
            let failed = create_task(fails::<()>(1, "E")).shared();
            assert_error(collect(as_completed([failed.clone()]), by_stream).await, "E");
            assert_error(failed.await, "E");
            let erased = create_task(after(1, 5));
            assert_eq!(collect(as_completed([erased.any()]), by_stream).await?, [()]);
            assert_eq!(erased.await?, 5);
            Ok(())
        });
    }
}

/// An item says what it is, however it was given.
#[test]
fn items_are_compared_with_handles() {
    run(async {
        let (task, other) = (create_task(after(1, 1)).shared(), create_task(after(1, 1)).shared());
        let item = as_completed([task.clone()]).next().await.unwrap()?;
        assert!(item.is(&task) && item.is(&task.any()) && item == task.any() && !item.is(&other));
        assert!(item.task().is_none(), "it was given in its shared form");
        assert_eq!(format!("{item:?}"), "<Completed>");
        assert!(item.into_task().is_none());
        let future = Future::new().shared();
        future.set_result(1)?;
        let item = as_completed([future.clone()]).next().await.unwrap()?;
        assert!(item.is(&future) && !item.is(&task) && item.into_task().is_none());
        other.await?;
        Ok(())
    });
}

#[test]
fn it_starts_at_the_call_and_a_drop_lets_everything_go_on() {
    run(async {
        let log = crate::support::Record::default();
        let work = |millis, name| {
            let log = log.clone();
            async move {
                let value = after(millis, name).await?;
                log.push(value);
                Ok(value)
            }
        };
        let completed = as_completed([work(1, "a"), work(2, "b"), work(30, "c")]);
        sleep(MS * 10).await?;
        assert_eq!(log.take(), ["a", "b"]);
        drop(completed);
        sleep(MS * 30).await?;
        assert_eq!(log.take(), ["c"]);
        // In the midst of a wait, and of a plain one whose owner is gone.
        let mut completed = as_completed([work(5, "d")]);
        assert!(futures::poll!(completed.next()).is_pending());
        drop(completed);
        let mut next = as_completed([work(6, "e"), work(4, "f")]).into_iter().next().unwrap();
        assert!(futures::poll!(&mut next).is_pending());
        drop(next);
        sleep(MS * 10).await?;
        assert_eq!(log.take(), ["f", "d", "e"]);
        Ok(())
    });
}
