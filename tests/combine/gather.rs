//! Results of a gathering, and their order.

use std::{cell::Cell, rc::Rc};

use asyncio::{Error, ErrorKind, Future, Result, create_task, gather, sleep};

use crate::{MS, SECOND, ZERO, after, assert_error, error, fails, run, support::failure, turns};

/// GATH-001
#[test]
fn results_stand_in_the_order_of_the_arguments() {
    let (values, took) = run(async { gather(vec![after(20, 1), after(10, 2), after(0, 3)]).await });
    assert_eq!((values, took), (vec![1, 2, 3], MS * 20));
    let (values, took) = run(async { gather((after(20, 1), after(10, "2"), after(0, 3.0))).await });
    assert_eq!((values, took), ((1, "2", 3.0), MS * 20));
}

/// GATH-002
#[test]
fn the_first_error_is_given_at_once_and_the_others_go_on() {
    let (value, took) = run(async {
        let event_loop = asyncio::get_running_loop()?;
        let begin = event_loop.time();
        let s = create_task(after(30, "s")).shared();
        let failed = gather((s.clone(), async { Err::<(), _>(error("E")) })).await;
        assert_error(failed, "E");
        assert_eq!(event_loop.time(), begin);
        assert!(!s.done() && s.cancelling() == 0);
        s.await
    });
    assert_eq!((value, took), ("s", MS * 30));
}

/// GATH-003
#[test]
fn errors_can_be_results() {
    let (outcomes, took) = run(async {
        let children: Vec<std::pin::Pin<Box<dyn std::future::Future<Output = Result<i32>>>>> =
            vec![Box::pin(after(10, 3)), Box::pin(after(5, 1)), Box::pin(fails(1, "E1")), Box::pin(fails(20, "E2"))];
        let all = gather(children).return_exceptions().start();
        for _ in 0..19 {
            sleep(MS).await?;
            turns(5).await?;
            assert!(!all.done());
        }
        all.await
    });
    assert_eq!(took, MS * 20);
    let [a, b, c, d] = <[Result<i32>; 4]>::try_from(outcomes).unwrap();
    assert_eq!((a.unwrap(), b.unwrap()), (3, 1));
    assert_error(c, "E1");
    assert_error(d, "E2");
}

#[test]
fn errors_can_be_results_of_a_tuple() {
    let ((a, b, c, d), took) = run(async {
        let all = (after(10, 3), after(5, "1"), fails::<u8>(1, "E1"), fails::<()>(20, "E2"));
        gather(all).return_exceptions().await
    });
    assert_eq!((a.unwrap(), b.unwrap(), took), (3, "1", MS * 20));
    assert_error(c, "E1");
    assert_error(d, "E2");
}

/// GATH-010
#[test]
fn the_same_one_twice_is_awaited_once_and_given_twice() {
    run(async {
        let (x, y) = (Future::new().shared(), Future::new().shared());
        let all = gather(vec![x.clone(), x.clone(), y.clone()]).start();
        y.set_result("y")?;
        turns(3).await?;
        assert!(!all.done());
        x.set_result("x")?;
        assert_eq!(all.await?, ["x", "x", "y"]);

        let runs = Rc::new(Cell::new(0));
        let counter = runs.clone();
        let task = create_task(async move {
            counter.set(counter.get() + 1);
            after(1, "task").await
        });
        let task = task.shared();
        assert_eq!(gather((task.clone(), task.clone(), task.clone())).await?, ("task", "task", "task"));
        assert_eq!(runs.get(), 1);
        let (first, second) = gather((task.clone(), task.clone())).return_exceptions().await?;
        assert_eq!((first?, second?), ("task", "task"));
        Ok(())
    });
}

/// A value that cannot be cloned goes to the first who takes it.
#[test]
fn a_future_that_is_given_twice_has_one_value() {
    run(async {
        let x = Future::<u8>::new();
        let all = gather((x.clone(), x.clone())).return_exceptions().start();
        x.set_result(1)?;
        let (first, second) = all.await?;
        assert_eq!(first?, 1);
        assert_eq!(failure(second), (ErrorKind::InvalidState, "Result was already taken".into()));
        Ok(())
    });
}

#[test]
fn nothing_is_gathered_at_once() {
    let ((), took) = run(async {
        gather(()).await?;
        assert!(gather(()).start().done());
        assert!(gather(Vec::<Future<u8>>::new()).await?.is_empty());
        assert!(gather(Vec::<Future<u8>>::new()).return_exceptions().await?.is_empty());
        gather(()).return_exceptions().await?;
        let nothing = gather(()).start();
        assert!(!nothing.cancel() && !nothing.cancelled());
        Ok(())
    });
    assert_eq!(took, ZERO);
}

#[test]
fn one_alone_is_gathered() {
    run(async {
        assert_eq!(gather((after(1, "a"),)).await?, ("a",));
        assert_eq!(gather(vec![after(1, "a")]).await?, ["a"]);
        let (only,) = gather((fails::<()>(1, "E"),)).return_exceptions().await?;
        assert_error(only, "E");
        assert_error(gather(vec![fails::<()>(1, "E")]).await, "E");
        Ok(())
    });
}

#[test]
fn twelve_of_different_types_are_gathered() {
    let (values, took) = run(async {
        gather((
            after(1, 1_u8),
            after(12, 2_u16),
            after(2, 3_u32),
            after(11, 4_u64),
            after(3, 5_i8),
            after(10, 6_i16),
            after(4, 'g'),
            after(9, "h"),
            after(5, 9.0_f32),
            after(8, Some(10)),
            after(6, vec![11]),
            after(7, ()),
        ))
        .await
    });
    assert_eq!(values, (1, 2, 3, 4, 5, 6, 'g', "h", 9.0, Some(10), vec![11], ()));
    assert_eq!(took, MS * 12);
}

/// Whichever of a tuple fails, its error is the result; whichever ends last is waited for.
#[test]
fn every_place_of_a_tuple_counts() {
    for place in 0..12_u32 {
        let at =
            |index| fails::<u32>(if index == place { 1 } else { 2 }, if index == place { "this" } else { "other" });
        let (failed, took, reports) = crate::run_reporting(async {
            let failed =
                gather((at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8), at(9), at(10), at(11))).await;
            sleep(MS * 2).await?;
            failed
        });
        assert_error(failed, "this");
        assert_eq!((took, reports.len()), (MS * 3, 11), "the others are nobody's");
        let at = |index| after(if index == place { 9 } else { 1 }, index);
        let (values, took) = run(async move {
            gather((at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8), at(9), at(10), at(11))).await
        });
        assert_eq!((values, took), ((0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11), MS * 9));
    }
}

#[test]
fn a_thousand_are_gathered() {
    let (values, took) = run(async { gather((0..1000).map(|n| after(n * 7 % 1000, n)).collect::<Vec<_>>()).await });
    assert_eq!(values, (0..1000).collect::<Vec<_>>());
    assert_eq!(took, MS * 999);
    let (outcomes, _) = run(async {
        let all = (0..1000).map(|n| async move { if n % 3 == 0 { Err(error("E")) } else { after(n % 5, n).await } });
        gather(all.collect::<Vec<_>>()).return_exceptions().await
    });
    for (n, outcome) in (0..).zip(outcomes) {
        match outcome {
            Ok(value) => assert!(value == n && n % 3 != 0),
            Err(error) => assert!(error.to_string() == "E" && n % 3 == 0),
        }
    }
}

#[test]
fn nothing_starts_before_it_is_awaited_or_started() {
    run(async {
        let begun = Rc::new(Cell::new(0));
        let work = || {
            let begun = begun.clone();
            async move {
                begun.set(begun.get() + 1);
                Ok(())
            }
        };
        let lazy = gather((work(), work()));
        turns(3).await?;
        assert_eq!(begun.get(), 0);
        drop(lazy);
        turns(3).await?;
        assert_eq!(begun.get(), 0);
        let started = gather((work(), work())).start();
        assert_eq!(begun.get(), 0, "they start in the next iteration");
        turns(1).await?;
        assert_eq!(begun.get(), 2);
        started.await?;
        gather(vec![work(), work(), work()]).return_exceptions().await?;
        assert_eq!(begun.get(), 5);
        Ok(())
    });
}

/// `test_success` and `test_one_exception` of CPython, on bare futures.
#[test]
fn a_gathering_is_done_with_its_last_future() {
    run(async {
        let [a, b, c] = std::array::from_fn(|_| Future::<u8>::new());
        let all = gather((a.clone(), b.clone(), c.clone())).start();
        b.set_result(1)?;
        a.set_result(2)?;
        turns(3).await?;
        assert!(!all.done() && !all.cancelled());
        assert_eq!(format!("{all:?}"), "<Gathering pending>");
        c.set_result(3)?;
        assert!(!all.done(), "it learns of it in the next iteration");
        turns(2).await?;
        assert!(all.done() && !all.cancelled());
        assert_eq!(format!("{all:?}"), "<Gathering finished>");
        assert_eq!(all.await?, (2, 1, 3));

        let [a, b, c, d, e] = std::array::from_fn(|_| Future::<u8>::new());
        let mut all = gather(vec![a.clone(), b.clone(), c.clone(), d.clone(), e.clone()]).start();
        a.set_result(1)?;
        b.set_exception(error("E"))?;
        turns(2).await?;
        assert!(all.done() && !all.cancelled());
        assert_eq!(format!("{all:?}"), "<Gathering failed>");
        assert_error((&mut all).await, "E");
        assert_error((&mut all).await, "E");
        c.set_result(3)?;
        d.cancel();
        e.set_exception(Error::Runtime("late".into()))?;
        assert_eq!(e.exception()?.unwrap().to_string(), "late");
        turns(2).await?;
        assert_error(all.await, "E");
        Ok(())
    });
}

/// After its results were moved out, an await gives an error as that of a future does.
#[test]
fn results_are_given_once() {
    run(async {
        let mut all = gather((after(1, 1), after(2, 2))).start();
        assert_eq!((&mut all).await?, (1, 2));
        assert!(all.done());
        assert_eq!(failure(all.await), (ErrorKind::InvalidState, "Result was already taken".into()));
        Ok(())
    });
}

/// Somebody else took the value of a future that was given.
#[test]
fn a_value_that_was_taken_elsewhere_is_an_error() {
    run(async {
        let x = Future::<u8>::new();
        let mut taker = x.clone();
        let all = gather((x.clone(), after(5, ()))).start();
        x.set_result(1)?;
        assert_eq!((&mut taker).await?, 1);
        assert_eq!(failure(all.await), (ErrorKind::InvalidState, "Result was already taken".into()));
        Ok(())
    });
}

#[test]
fn gatherings_stand_in_gatherings() {
    let (values, took) = run(async {
        let inner = gather((after(3, 1), gather(vec![after(9, 2), after(1, 3)])));
        gather((inner, gather((after(2, 4),)).start(), gather(()))).await
    });
    assert_eq!((values, took), (((1, vec![2, 3]), (4,), ()), MS * 9));
    let (failed, took) = run(async {
        let inner = gather((fails::<()>(3, "E"), after(1, ())));
        let failed = gather((inner, after(5, ()))).await;
        sleep(MS * 2).await?;
        Ok(failed)
    });
    assert_error(failed, "E");
    assert_eq!(took, MS * 5);
}

/// Children that were done before: all, some, failed, cancelled. As in CPython, then nothing is waited for.
#[test]
fn those_that_are_done_are_not_waited_for() {
    run(async {
        let (one, two) = (Future::new(), Future::new().shared());
        one.set_result(1)?;
        two.set_result(2)?;
        let three = create_task(async { Ok(3) });
        let four = create_task(async { Ok(4) }).shared();
        turns(1).await?;
        let all = gather((one, two.clone(), three, four.clone())).start();
        assert!(all.done());
        assert_eq!(all.await?, (1, 2, 3, 4));

        let all = gather((two.clone(), four.clone(), after(4, 5))).start();
        assert!(!all.done());
        assert_eq!(all.await?, (2, 4, 5));

        let failed = Future::<u8>::new();
        failed.set_exception(error("E"))?;
        let all = gather((two.clone(), failed.clone(), after(4, ()))).start();
        assert!(all.done() && !all.cancelled());
        assert_error(all.await, "E");
        let all = gather((failed.clone(), two.clone())).return_exceptions().start();
        assert!(all.done());
        let (bad, good) = all.await?;
        assert_error(bad, "E");
        assert_eq!(good?, 2);

        let cancelled = Future::<u8>::new();
        cancelled.cancel_with("before");
        let all = gather((two.clone(), cancelled.clone(), four)).start();
        assert!(all.done() && all.cancelled());
        crate::assert_cancelled(all.await);
        let all = gather((cancelled, two)).return_exceptions().start();
        assert!(all.done() && !all.cancelled());
        assert!(all.await?.0.unwrap_err().is_cancelled());
        sleep(SECOND).await
    });
}

/// The first error counts in the order of ending, and for those that were done before in the order of the arguments.
#[test]
fn the_first_error_counts() {
    run(async {
        let [a, b, c] = std::array::from_fn(|_| Future::<u8>::new());
        let all = gather((a.clone(), b.clone(), c.clone())).start();
        c.set_exception(error("c"))?;
        a.set_exception(error("a"))?;
        assert_error(all.await, "c");
        assert_error(gather((b.clone(), a.clone(), c.clone())).await, "a");
        assert_error(gather((c.clone(), b.clone(), a.clone())).await, "c");
        drop((a, b));
        Ok(())
    });
}
