//! What a generator gives to who polls it.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use asyncio::{
    AsyncGenerator, Canceller, ContextVar, Error, ErrorKind, async_generator, create_task, get_running_loop, sleep,
    timeout,
};
use futures::{
    FutureExt, Stream, StreamExt, TryStreamExt, future, join,
    stream::{self, FusedStream, FuturesUnordered},
};

use crate::{
    run,
    support::{Gate, Record, deadline, drop_guard, failure, new_loop, virtual_loop},
};

const LONG: Duration = Duration::from_secs(3600);

/// 0, 1, 2, …, with a step of the loop between.
fn count_to(end: u32) -> AsyncGenerator<u32> {
    async_generator(async move |numbers| {
        for number in 0..end {
            numbers.send(number).await?;
            sleep(Duration::ZERO).await?;
        }
        Ok(())
    })
}

/// AGEN-001
#[test]
fn items_come_in_order_and_a_failure_once_behind_them() {
    let _deadline = deadline();
    let (event_loop, _) = virtual_loop();
    let pause = Duration::from_millis(10);
    let numbers = async_generator(async move |numbers| {
        numbers.send(1).await?;
        sleep(pause).await?;
        numbers.send(2).await?;
        sleep(pause).await
    });
    let list = event_loop.run_until_complete(numbers.try_collect::<Vec<_>>()).unwrap();
    assert_eq!(list, [1, 2]);

    let failing = async_generator(async move |numbers| {
        numbers.send(1).await?;
        sleep(pause).await?;
        numbers.send(2).await?;
        sleep(pause).await?;
        Err(Error::Value("divided by zero".into()))
    });
    event_loop
        .run_until_complete(async {
            let mut failing = failing;
            let mut items = Vec::new();
            let error = loop {
                match failing.next().await.expect("it has not ended") {
                    Ok(item) => items.push(item),
                    Err(error) => break error,
                }
            };
            assert_eq!(items, [1, 2]);
            assert_eq!((error.kind(), error.to_string()), (ErrorKind::Value, "divided by zero".into()));
            for _ in 0..3 {
                assert!(failing.next().await.is_none());
            }
            assert!(failing.is_terminated());
            Ok(())
        })
        .unwrap();
    event_loop.close().unwrap();
}

#[test]
fn nothing_of_the_body_runs_before_the_first_poll() {
    run(async {
        let record = Record::default();
        let seen = record.clone();
        // Not even what stands before the async block.
        let mut numbers = async_generator(move |numbers: asyncio::Yielder<u8>| {
            seen.push("called");
            async move {
                seen.push("polled");
                numbers.send(1).await
            }
        });
        let next = numbers.next();
        assert_eq!(record.len(), 0);
        assert_eq!(next.await.transpose()?, Some(1));
        assert_eq!(record.take(), ["called", "polled"]);
        assert!(numbers.next().await.is_none());
        Ok(())
    });
}

#[test]
fn the_body_goes_on_when_the_next_item_is_asked_for() {
    run(async {
        let record = Record::default();
        let seen = record.clone();
        let mut numbers = async_generator(async move |numbers| {
            seen.push("begin");
            numbers.send(1).await?;
            seen.push("between");
            numbers.send(2).await?;
            seen.push("end");
            Ok(())
        });
        assert_eq!(numbers.next().await.transpose()?, Some(1));
        sleep(Duration::ZERO).await?;
        assert_eq!(record.take(), ["begin"]);
        assert_eq!(numbers.next().await.transpose()?, Some(2));
        assert_eq!(record.take(), ["between"]);
        assert!(!numbers.is_terminated());
        assert!(numbers.next().await.is_none());
        assert!(numbers.is_terminated());
        assert_eq!(record.take(), ["end"]);
        Ok(())
    });
}

#[test]
fn an_item_that_is_there_costs_no_iteration() {
    let event_loop = new_loop();
    let mut numbers = async_generator(async |numbers| {
        for number in 0..100 {
            numbers.send(number).await?;
        }
        Ok(())
    });
    let iterations = event_loop
        .run_until_complete(async {
            let iterations = crate::support::count_iterations(&get_running_loop()?);
            let mut sum = 0;
            while let Some(number) = numbers.next().await {
                sum += number?;
            }
            assert_eq!(sum, 4950);
            Ok(iterations.get())
        })
        .unwrap();
    assert_eq!(iterations, 0);
}

#[test]
fn a_generator_without_items_ends_at_once() {
    run(async {
        let mut none = async_generator(async |_: asyncio::Yielder<u8>| Ok(()));
        assert!(none.next().await.is_none());
        let mut fails = async_generator(async |_: asyncio::Yielder<u8>| Err(Error::Value("no".into())));
        assert_eq!(failure(fails.next().await.transpose()), (ErrorKind::Value, "no".into()));
        assert!(fails.next().await.is_none());
        Ok(())
    });
}

#[test]
fn items_and_bodies_need_not_be_send() {
    run(async {
        let shared = Rc::new(Cell::new(0));
        let inside = shared.clone();
        let cells = async_generator(async move |cells| {
            for number in 1..=3 {
                inside.set(inside.get() + number);
                cells.send(inside.clone()).await?;
            }
            Ok(())
        });
        let seen: Vec<_> = cells.map_ok(|cell| cell.get()).try_collect().await?;
        assert_eq!(seen, [1, 3, 6]);
        assert_eq!(Rc::strong_count(&shared), 1);
        Ok(())
    });
}

#[test]
fn a_poll_that_is_given_up_loses_nothing() {
    run(async {
        let gate = Gate::default();
        let inside = gate.clone();
        let mut numbers = async_generator(async move |numbers| {
            numbers.send(1).await?;
            inside.await;
            numbers.send(2).await?;
            sleep(Duration::from_millis(1)).await?;
            numbers.send(3).await
        });
        assert_eq!(numbers.next().await.transpose()?, Some(1));
        for _ in 0..3 {
            assert!(numbers.next().now_or_never().is_none());
        }
        gate.open();
        assert_eq!(numbers.next().await.transpose()?, Some(2));
        assert!(numbers.next().now_or_never().is_none());
        // By another task.
        let task = create_task(async move {
            let item = numbers.next().await.transpose()?;
            assert!(numbers.next().await.is_none());
            Ok(item)
        });
        assert_eq!(task.await?, Some(3));
        Ok(())
    });
}

#[test]
fn the_cancellation_of_the_task_arrives_in_the_body() {
    run(async {
        let record = Record::default();
        let seen = record.clone();
        let task = create_task(async move {
            let inside = seen.clone();
            let mut numbers = async_generator(async move |numbers| {
                numbers.send(1).await?;
                let slept = sleep(LONG).await;
                inside.push("cleaning up");
                sleep(Duration::ZERO).await?;
                inside.push("cleaned up");
                slept
            });
            assert_eq!(numbers.next().await.transpose()?, Some(1));
            let item = numbers.next().await.expect("an error");
            seen.push("item");
            assert!(numbers.next().await.is_none());
            item
        });
        sleep(Duration::ZERO).await?;
        task.cancel_with("enough");
        let Err(Error::Cancelled(cancelled)) = task.await else { panic!("it was cancelled") };
        assert_eq!(cancelled.message.as_deref(), Some("enough"));
        assert!(matches!(cancelled.by, Some(Canceller::Task(_))));
        assert_eq!(record.take(), ["cleaning up", "cleaned up", "item"]);
        Ok(())
    });
}

#[test]
fn a_body_that_swallows_the_cancellation_goes_on() {
    run(async {
        let task = create_task(async {
            let mut numbers = async_generator(async |numbers| {
                let slept = sleep(LONG).await;
                assert!(slept.unwrap_err().is_cancelled());
                numbers.send(1).await?;
                numbers.send(2).await
            });
            let mut items = Vec::new();
            while let Some(item) = numbers.next().await {
                items.push(item?);
            }
            Ok(items)
        });
        sleep(Duration::ZERO).await?;
        task.cancel();
        assert_eq!(task.await?, [1, 2]);
        Ok(())
    });
}

#[test]
fn a_cancellation_is_not_taken_by_a_send() {
    run(async {
        let task = create_task(async {
            let event_loop = get_running_loop()?;
            let mut numbers = count_to(2);
            assert_eq!(numbers.next().await.transpose()?, Some(0));
            // Of the task itself: the next await that suspends has to take it, and `send` is none.
            event_loop.current_task().expect("in a task").cancel();
            let mut numbers = stream::iter([Ok(7)]).chain(numbers);
            assert_eq!(numbers.next().await.transpose()?, Some(7));
            let mut quick = async_generator(async |quick| {
                quick.send(8).await?;
                quick.send(9).await
            });
            assert_eq!(quick.next().await.transpose()?, Some(8));
            assert_eq!(quick.next().await.transpose()?, Some(9));
            assert!(quick.next().await.is_none());
            let slept = sleep(LONG).await;
            assert!(slept.as_ref().unwrap_err().is_cancelled());
            assert_eq!(numbers.next().await.transpose()?, Some(1));
            assert!(numbers.next().await.is_none());
            slept
        });
        assert!(task.await.unwrap_err().is_cancelled());
        Ok(())
    });
}

#[test]
fn a_body_with_foreign_futures_alone_is_dropped_with_its_task() {
    run(async {
        let (guard, dropped) = drop_guard();
        let task = create_task(async move {
            let mut numbers = async_generator(async move |numbers: asyncio::Yielder<u8>| {
                let _guard = guard;
                future::pending::<()>().await;
                numbers.send(1).await
            });
            numbers.next().await.transpose()
        });
        sleep(Duration::ZERO).await?;
        task.cancel();
        assert!(task.await.unwrap_err().is_cancelled());
        // It has begun, so the loop closes it: nobody takes that either.
        sleep(Duration::ZERO).await?;
        sleep(Duration::ZERO).await?;
        assert!(dropped.get());
        Ok(())
    });
}

#[test]
fn a_timeout_around_next_cancels_what_the_body_awaits() {
    let _deadline = deadline();
    let (event_loop, _) = virtual_loop();
    event_loop
        .run_until_complete(async {
            let mut numbers = async_generator(async |numbers| {
                numbers.send(1).await?;
                let Err(Error::Cancelled(cancelled)) = sleep(LONG).await else { panic!("it was cancelled") };
                assert_eq!(cancelled.by, Some(Canceller::Timeout));
                sleep(Duration::from_secs(2)).await?;
                numbers.send(2).await?;
                sleep(LONG).await
            });
            let second = Duration::from_secs(1);
            let next = |numbers: &mut AsyncGenerator<i32>| {
                timeout(second, numbers.next().map(Option::transpose)).boxed_local().now_or_never().is_none()
            };
            assert_eq!(timeout(second, numbers.next().map(Option::transpose)).await?, Some(1));
            // Swallowed: what comes then is in time.
            assert_eq!(timeout(second, numbers.next().map(Option::transpose)).await?, Some(2));
            // Given up by hand: the body stays where it is.
            assert!(next(&mut numbers));
            let outcome = timeout(second, numbers.next().map(Option::transpose)).await;
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Timeout);
            assert!(numbers.next().await.is_none());
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_timeout_inside_may_have_items_in_it() {
    let _deadline = deadline();
    let (event_loop, _) = virtual_loop();
    event_loop
        .run_until_complete(async {
            let mut numbers = async_generator(async |numbers| {
                let limited = timeout(Duration::from_secs(1), async {
                    for number in 0.. {
                        numbers.send(number).await?;
                        sleep(Duration::from_millis(300)).await?;
                    }
                    Ok(())
                });
                assert_eq!(limited.await.unwrap_err().kind(), ErrorKind::Timeout);
                numbers.send(100).await
            });
            let mut items = Vec::new();
            while let Some(item) = numbers.next().await {
                items.push(item?);
            }
            assert_eq!(items, [0, 1, 2, 3, 100]);

            // The time passes while the body waits in `send`: the consumer sleeps on.
            let mut numbers = async_generator(async |numbers| {
                let limited = timeout(Duration::from_secs(1), async {
                    numbers.send(1).await?;
                    sleep(LONG).await
                });
                assert_eq!(limited.await.unwrap_err().kind(), ErrorKind::Timeout);
                numbers.send(2).await
            });
            assert_eq!(numbers.next().await.transpose()?, Some(1));
            sleep(Duration::from_secs(5)).await?;
            assert_eq!(numbers.next().await.transpose()?, Some(2));
            assert!(numbers.next().await.is_none());
            let task = get_running_loop()?.current_task().expect("in a task");
            assert_eq!(task.cancelling(), 0);
            Ok(())
        })
        .unwrap();
}

#[test]
fn combinators_take_it_as_any_stream() {
    run(async {
        let even: Vec<u32> = count_to(10).try_filter(|n| future::ready(n % 2 == 0)).try_collect().await?;
        assert_eq!(even, [0, 2, 4, 6, 8]);
        let pairs: Vec<_> = count_to(3).zip(count_to(5)).map(|(a, b)| Ok::<_, Error>((a?, b?))).try_collect().await?;
        assert_eq!(pairs, [(0, 0), (1, 1), (2, 2)]);
        let chained: Vec<u32> = count_to(2).chain(count_to(3)).try_collect().await?;
        assert_eq!(chained, [0, 1, 0, 1, 2]);
        let mut merged: Vec<u32> = stream::select_all((1..=4).map(count_to)).try_collect().await?;
        merged.sort_unstable();
        assert_eq!(merged, [0, 0, 0, 0, 1, 1, 1, 2, 2, 3]);
        let mut all = count_to(100);
        let begin: Vec<u32> = all.by_ref().take(3).try_collect().await?;
        assert_eq!(begin, [0, 1, 2]);
        assert_eq!(all.next().await.transpose()?, Some(3));
        assert_eq!(all.try_fold(0, |sum, n| future::ok(sum + n)).await?, (4..100).sum::<u32>());
        let doubled: Vec<u32> = count_to(20)
            .map_ok(|n| async move {
                sleep(Duration::from_millis(u64::from(n % 3))).await?;
                Ok(n * 2)
            })
            .try_buffered(5)
            .try_collect()
            .await?;
        assert_eq!(doubled, (0..20).map(|n| n * 2).collect::<Vec<_>>());
        let mut peekable = Box::pin(count_to(2).peekable());
        assert!(matches!(peekable.as_mut().peek().await, Some(Ok(0))));
        assert_eq!(peekable.try_collect::<Vec<_>>().await?, [0, 1]);
        let boxed: stream::LocalBoxStream<'_, asyncio::Result<u32>> = count_to(2).boxed_local();
        assert_eq!(boxed.try_collect::<Vec<_>>().await?, [0, 1]);
        Ok(())
    });
}

#[test]
fn select_in_a_loop_takes_it_as_fused() {
    run(async {
        let (mut first, mut second) = (count_to(3), count_to(5));
        let mut items = Vec::new();
        loop {
            futures::select! {
                item = first.select_next_some() => items.push(item?),
                item = second.select_next_some() => items.push(item?),
                complete => break,
            }
        }
        items.sort_unstable();
        assert_eq!(items, [0, 0, 1, 1, 2, 2, 3, 4]);
        Ok(())
    });
}

#[test]
fn generators_are_made_of_generators() {
    run(async {
        fn walk(depth: u32) -> AsyncGenerator<u32> {
            async_generator(async move |nodes| {
                nodes.send(depth).await?;
                if depth > 0 {
                    for _ in 0..2 {
                        let mut inner = walk(depth - 1);
                        while let Some(node) = inner.next().await {
                            nodes.send(node?).await?;
                        }
                    }
                }
                sleep(Duration::ZERO).await
            })
        }
        let nodes: Vec<u32> = walk(3).try_collect().await?;
        assert_eq!(nodes, [3, 2, 1, 0, 0, 1, 0, 0, 2, 1, 0, 0, 1, 0, 0]);

        let mut failing = async_generator(async |numbers| {
            let mut inner = async_generator(async |numbers| {
                numbers.send(1).await?;
                Err(Error::Value("inside".into()))
            });
            while let Some(number) = inner.next().await {
                numbers.send(number?).await?;
            }
            Ok(())
        });
        assert_eq!(failing.next().await.transpose()?, Some(1));
        assert_eq!(failure(failing.next().await.transpose()), (ErrorKind::Value, "inside".into()));
        assert!(failing.next().await.is_none());
        Ok(())
    });
}

#[test]
fn a_generator_may_be_passed_from_task_to_task() {
    run(async {
        let mut numbers = count_to(6);
        let mut items = Vec::new();
        while !numbers.is_terminated() {
            let task = create_task(async move {
                let item = numbers.next().await.transpose()?;
                Ok((numbers, item))
            });
            let (back, item) = task.await?;
            numbers = back;
            items.extend(item);
        }
        assert_eq!(items, [0, 1, 2, 3, 4, 5]);
        Ok(())
    });
}

#[test]
fn sends_that_are_pending_together_give_their_items_in_turn() {
    run(async {
        let joined = async_generator(async |numbers| {
            let (one, two, three) = join!(numbers.send(1), numbers.send(2), async {
                sleep(Duration::ZERO).await?;
                numbers.send(3).await
            });
            one.and(two).and(three)
        });
        assert_eq!(joined.try_collect::<Vec<_>>().await?, [1, 2, 3]);

        // Here each is polled with a waker of its own, and only if that was woken.
        let unordered = async_generator(async |numbers| {
            let mut sends: FuturesUnordered<_> = (0..20).map(|number| numbers.send(number)).collect();
            while let Some(sent) = sends.next().await {
                sent?;
            }
            Ok(())
        });
        let mut items: Vec<i32> = unordered.try_collect().await?;
        items.sort_unstable();
        assert_eq!(items, (0..20).collect::<Vec<_>>());
        Ok(())
    });
}

#[test]
fn an_item_whose_send_is_dropped_in_time_is_withdrawn() {
    run(async {
        let (guard, dropped) = drop_guard();
        let mut numbers = async_generator(async move |numbers| {
            assert!(numbers.send((0, Some(guard))).now_or_never().is_none());
            assert!(dropped.get());
            numbers.send((1, None)).await?;
            let raced = future::select(numbers.send((2, None)), future::ready(())).await;
            assert!(matches!(raced, future::Either::Right(_)));
            drop(raced);
            numbers.send((3, None)).await
        });
        let mut items = Vec::new();
        while let Some(item) = numbers.next().await {
            items.push(item?.0);
        }
        assert_eq!(items, [1, 3]);
        Ok(())
    });
}

#[test]
fn a_send_that_is_polled_after_its_end_says_so() {
    run(async {
        let mut numbers = async_generator(async |numbers| {
            let mut sending = numbers.send(1);
            assert_eq!(format!("{sending:?}"), "<Sending new>");
            (&mut sending).await?;
            assert_eq!(format!("{sending:?}"), "<Sending over>");
            assert_eq!(failure(sending.await).0, ErrorKind::InvalidState);
            Ok(())
        });
        assert_eq!(numbers.next().await.transpose()?, Some(1));
        assert!(numbers.next().await.is_none());
        Ok(())
    });
}

#[test]
fn a_yielder_is_for_the_body_alone() {
    run(async {
        let mut numbers = async_generator(async |numbers| {
            numbers.send(1).await?;
            let outside = create_task(async move {
                let failed = numbers.send(2).await;
                Ok((numbers, failure(failed)))
            });
            let (numbers, failed) = outside.await?;
            assert_eq!(failed, (ErrorKind::Runtime, "a Yielder is for the body of its generator".into()));
            numbers.send(3).await
        });
        assert_eq!(numbers.next().await.transpose()?, Some(1));
        assert_eq!(numbers.next().await.transpose()?, Some(3));
        assert!(numbers.next().await.is_none());

        // And while it runs.
        let kept = Rc::new(Cell::new(None));
        let inside = kept.clone();
        let mut numbers = async_generator(async move |numbers: asyncio::Yielder<u8>| {
            inside.set(Some(numbers));
            Ok(())
        });
        assert!(numbers.next().await.is_none());
        let yielder = kept.take().expect("it was kept");
        assert_eq!(failure(yielder.send(1).await).0, ErrorKind::Runtime);
        drop(numbers);
        assert_eq!(failure(yielder.send(1).await).0, ErrorKind::Runtime);
        Ok(())
    });
}

#[test]
fn a_body_cannot_iterate_or_close_itself() {
    run(async {
        let own = Rc::new(RefCell::new(None::<AsyncGenerator<u8>>));
        let inside = own.clone();
        let mut numbers = async_generator(async move |numbers| {
            let sent = numbers.send(1).await;
            // Here it is closed, so that nobody holds it.
            let mut itself = inside.take().expect("it was put there");
            let failed = failure(itself.next().await.transpose());
            assert_eq!(failed, (ErrorKind::Runtime, "anext(): asynchronous generator is already running".into()));
            let failed = failure(itself.aclose().await);
            assert_eq!(failed, (ErrorKind::Runtime, "aclose(): asynchronous generator is already running".into()));
            sleep(Duration::ZERO).await?;
            drop(itself);
            sleep(Duration::ZERO).await?;
            sent
        });
        assert_eq!(numbers.next().await.transpose()?, Some(1));
        own.replace(Some(numbers));
        get_running_loop()?.shutdown_asyncgens().await?;
        assert!(own.borrow().is_none());
        Ok(())
    });
}

#[test]
fn another_loop_is_refused_once_and_changes_nothing() {
    let _deadline = deadline();
    let (first, second) = (new_loop(), new_loop());
    let mut numbers = count_to(3);
    let mut next = |event_loop: &asyncio::EventLoop| {
        event_loop.run_until_complete(async { Ok(numbers.next().await.map(|item| item.map_err(|e| e.kind()))) })
    };
    assert_eq!(next(&first).unwrap(), Some(Ok(0)));
    assert_eq!(next(&second).unwrap(), Some(Err(ErrorKind::Value)));
    // Who collects the stream must come to an end.
    assert_eq!(next(&second).unwrap(), None);
    assert_eq!(next(&first).unwrap(), Some(Ok(1)));
    assert_eq!(next(&second).unwrap(), Some(Err(ErrorKind::Value)));
    assert_eq!(next(&first).unwrap(), Some(Ok(2)));
    assert_eq!(next(&first).unwrap(), None);
    assert_eq!(next(&second).unwrap(), None);
    let text = |event_loop: &asyncio::EventLoop| {
        let mut numbers = count_to(1);
        first.run_until_complete(async { numbers.next().await.transpose() }).unwrap();
        failure(event_loop.run_until_complete(async { numbers.next().await.transpose() })).1
    };
    assert_eq!(text(&second), "The future belongs to a different loop than the one specified as the loop argument");
}

#[test]
fn without_a_loop_it_does_not_begin() {
    let _deadline = deadline();
    let mut numbers = count_to(2);
    let outside: Vec<_> = futures::executor::block_on(numbers.by_ref().collect());
    assert_eq!(outside.len(), 1);
    assert!(matches!(&outside[0], Err(Error::Runtime(text)) if &**text == "no running event loop"));
    let event_loop = new_loop();
    let items = event_loop.run_until_complete(numbers.try_collect::<Vec<_>>()).unwrap();
    assert_eq!(items, [0, 1]);
}

#[test]
fn a_panic_goes_to_who_polls_and_ends_it() {
    run(async {
        let (guard, dropped) = drop_guard();
        let mut numbers = async_generator(async move |numbers| {
            let _guard = guard;
            numbers.send(1).await?;
            panic!("boom");
        });
        assert_eq!(numbers.next().await.transpose()?, Some(1));
        let task = create_task(async move {
            let polled = std::panic::AssertUnwindSafe(numbers.next()).catch_unwind().await;
            assert!(polled.is_err());
            assert!(numbers.is_terminated());
            assert!(numbers.next().await.is_none());
            numbers.aclose().await?;
            Ok(())
        });
        task.await?;
        assert!(dropped.get());

        let mut numbers = async_generator(async |numbers| {
            numbers.send(1).await?;
            panic!("boom");
        });
        let task = create_task(async move {
            numbers.next().await.transpose()?;
            numbers.next().await.transpose()
        });
        assert_eq!(failure(task.await), (ErrorKind::Panicked, "boom".into()));
        Ok(())
    });
}

#[test]
fn the_body_runs_in_the_context_of_who_polls() {
    static NAME: ContextVar<&str> = ContextVar::new("name");
    run(async {
        let mut names = async_generator(async |names| {
            loop {
                names.send(NAME.get()?).await?;
                sleep(Duration::ZERO).await?;
            }
        });
        NAME.set("one");
        assert_eq!(names.next().await.transpose()?, Some("one"));
        NAME.set("two");
        assert_eq!(names.next().await.transpose()?, Some("two"));
        let task = create_task(async move {
            NAME.set("three");
            let name = names.next().await.transpose()?;
            names.aclose().await?;
            Ok(name)
        });
        assert_eq!(task.await?, Some("three"));
        assert_eq!(NAME.get()?, "two");
        Ok(())
    });
}

#[test]
fn it_says_how_it_stands_and_where_it_was_made() {
    run(async {
        let line = line!() + 1;
        let mut numbers = count_of_one();
        assert_eq!(format!("{numbers:?}"), format!("<AsyncGenerator new created at {}:{line}:27>", file!()));
        numbers.next().await.transpose()?;
        assert!(format!("{numbers:?}").starts_with("<AsyncGenerator suspended created at "));
        numbers.aclose().await?;
        assert!(format!("{numbers:?}").starts_with("<AsyncGenerator ended created at "));
        Ok(())
    });
}

#[track_caller]
fn count_of_one() -> AsyncGenerator<u8> {
    async_generator(async |numbers| {
        assert_eq!(format!("{numbers:?}"), "<Yielder>");
        numbers.send(1).await
    })
}

#[test]
fn it_can_be_moved_while_it_is_suspended() {
    fn unpin<T: Unpin + Stream + FusedStream>(_: &T) {}
    run(async {
        let mut numbers = vec![count_to(2), count_to(3)];
        unpin(&numbers[0]);
        for generator in &mut numbers {
            assert_eq!(generator.next().await.transpose()?, Some(0));
        }
        numbers.reverse();
        numbers.reserve(100);
        let mut rest = Vec::new();
        for generator in numbers {
            rest.push(generator.try_collect::<Vec<_>>().await?);
        }
        assert_eq!(rest, [vec![1, 2], vec![1]]);
        Ok(())
    });
}

#[test]
fn many_thousand_items_and_generators_leave_nothing_behind() {
    run(async {
        let mut sum = 0;
        for _ in 0..1000 {
            let mut numbers = async_generator(async |numbers| {
                for number in 0..10 {
                    numbers.send(number).await?;
                }
                Ok(())
            });
            while let Some(number) = numbers.next().await {
                sum += number?;
            }
        }
        assert_eq!(sum, 45_000);
        Ok(())
    });
}
