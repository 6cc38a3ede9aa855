//! How many iterations lie between a result and the one who waits for it.
use std::{cell::Cell, rc::Rc};

use asyncio::{EventLoop, Future, Result};

use crate::support::{Gate, count_iterations, new_loop, tick};

/// Lets `waits` await a future in a task, and counts the iterations from `set_result` to the task's going on.
fn distance<F>(waits: impl FnOnce(EventLoop, Future<u8>) -> F) -> usize
where
    F: std::future::Future<Output = Result<u8>> + 'static,
{
    let event_loop = new_loop();
    let future = event_loop.create_future();
    let count = count_iterations(&event_loop);
    let (waiting, counter) = (waits(event_loop.clone(), future.clone()), count.clone());
    let resumed = Rc::new(Cell::new(None));
    let seen = resumed.clone();
    let _task = event_loop.create_task(async move {
        let value = waiting.await?;
        seen.set(Some((value, counter.get())));
        Ok(())
    });
    (0..5).for_each(|_| tick(&event_loop));
    assert_eq!(resumed.get(), None);
    let begin = count.get();
    future.set_result(7).unwrap();
    (0..5).for_each(|_| tick(&event_loop));
    let (value, end) = resumed.get().expect("the task has gone on");
    assert_eq!(value, 7);
    // The counter stands before the woken task in the queue, and has been called in the same iteration.
    end - begin
}

/// A part of what the first row on wake-up distances asks.
#[test]
fn a_task_goes_on_one_iteration_after_the_future_is_set() {
    assert_eq!(distance(|_, future| future), 1);
    assert_eq!(distance(|_, future| async move { (&future).await }), 1);
    assert_eq!(distance(|_, future| future.shared()), 1);
    let nested = |_, future: Future<u8>| async move {
        let inner = async { future.await.map(|value| value - 1) };
        inner.await.map(|value| value + 1)
    };
    assert_eq!(distance(nested), 1, "a coroutine that is awaited costs nothing");
}

/// A part of what the second row on wake-up distances asks.
#[test]
fn a_task_that_awaits_a_task_goes_on_one_iteration_later() {
    assert_eq!(distance(|event_loop, future| event_loop.create_task(future)), 2);
    assert_eq!(distance(|event_loop, future| event_loop.create_task(future).shared()), 2);
    let by_reference = |event_loop: EventLoop, future| {
        let task = event_loop.create_task(future);
        async move { (&task).await }
    };
    assert_eq!(distance(by_reference), 2);
    let twice = |event_loop: EventLoop, future| {
        let inner = event_loop.create_task(future);
        event_loop.create_task(inner)
    };
    assert_eq!(distance(twice), 3, "each task in between costs one");
}

#[test]
fn a_foreign_future_wakes_its_task_for_the_next_iteration() {
    let event_loop = new_loop();
    let (gate, count) = (Gate::default(), count_iterations(&event_loop));
    let (waits, counter, resumed) = (gate.clone(), count.clone(), Rc::new(Cell::new(0)));
    let seen = resumed.clone();
    let _task = event_loop.create_task(async move {
        waits.await;
        seen.set(counter.get());
        Ok(())
    });
    (0..3).for_each(|_| tick(&event_loop));
    let begin = count.get();
    gate.open();
    tick(&event_loop);
    assert_eq!(resumed.get() - begin, 1);
}

#[test]
fn a_done_callback_runs_in_the_iteration_after_the_result() {
    let event_loop = new_loop();
    let (future, count) = (event_loop.create_future(), count_iterations(&event_loop));
    let (counter, called) = (count.clone(), Rc::new(Cell::new(0)));
    let seen = called.clone();
    future.add_done_callback(move |_| seen.set(counter.get()));
    tick(&event_loop);
    let begin = count.get();
    future.set_result(1).unwrap();
    assert_eq!(called.get(), 0, "not inside of set_result");
    tick(&event_loop);
    assert_eq!(called.get() - begin, 1);
}
