//! `block_on`: any future, any output.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    thread,
    time::Duration,
};

use asyncio::ErrorKind;

use crate::{
    main_thread::tests,
    support::{Gate, Record, drop_guard, logs},
};

tests![
    any_output_comes_back,
    the_future_may_borrow_and_need_not_be_send,
    anything_that_becomes_a_future_will_do,
    a_panic_comes_through,
    a_panic_with_any_payload_comes_through,
    inside_a_running_loop_it_panics,
    a_stopped_loop_is_a_panic,
    cancelling_it_leaves_a_foreign_future_alone,
    cancelling_it_reaches_what_takes_cancellations,
    a_cancellation_that_nobody_took_does_not_change_the_output,
    a_cancellation_before_the_first_await_does_not_change_the_output,
    leftovers_are_cancelled_and_awaited,
    the_default_executor_is_shut_down,
    it_may_be_called_again_and_on_any_thread,
    foreign_wakers_work,
    it_runs_in_a_loop_of_its_own,
];

fn any_output_comes_back() {
    assert_eq!(asyncio::block_on(async { 40 + 2 }), 42);
    asyncio::block_on(async {});
    assert_eq!(asyncio::block_on(async { Some("text") }), Some("text"));
    let foreign: Result<u8, String> = asyncio::block_on(async { Err("spam".into()) });
    assert_eq!(foreign, Err("spam".into()));
    let ours: asyncio::Result<u8> = asyncio::block_on(async { Err(asyncio::Error::Value("spam".into())) });
    assert_eq!(ours.unwrap_err().kind(), ErrorKind::Value);
    asyncio::block_on(asyncio::sleep(Duration::from_millis(1))).unwrap();
}

fn the_future_may_borrow_and_need_not_be_send() {
    let (text, count) = (String::from("asyncio"), Rc::new(Cell::new(0)));
    let mut lengths = Vec::new();
    let first: &str = asyncio::block_on(async {
        lengths.push(text.len());
        count.set(1);
        asyncio::sleep(Duration::ZERO).await.unwrap();
        let held = count.clone();
        asyncio::sleep(Duration::ZERO).await.unwrap();
        held.set(held.get() + 1);
        &text[..1]
    });
    assert_eq!((first, lengths, count.get()), ("a", vec![7], 2));
    let output: Rc<Cell<i32>> = asyncio::block_on(async { count });
    assert_eq!((output.get(), Rc::strong_count(&output)), (2, 1));
}

fn anything_that_becomes_a_future_will_do() {
    assert_eq!(asyncio::block_on(std::future::ready(1)), 1);
    assert_eq!(asyncio::block_on(Box::pin(async { 2 })), 2);
    let mut future = Box::pin(async { 3 });
    assert_eq!(asyncio::block_on(&mut future), 3);
    assert_eq!(asyncio::block_on(async { futures::join!(async { 4 }, async { 5 }) }), (4, 5));
}

fn text_of(payload: Box<dyn std::any::Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast_ref::<&str>().expect("a panic with a text").to_string(),
    }
}

fn a_panic_comes_through() {
    let (guard, dropped) = drop_guard();
    let (left, left_dropped) = drop_guard();
    let (panicked, records) = logs(|| {
        catch_unwind(AssertUnwindSafe(|| {
            asyncio::block_on(async {
                let _guard = guard;
                let _leftover = asyncio::create_task(async move {
                    let _left = left;
                    asyncio::sleep(Duration::from_secs(60)).await
                });
                asyncio::sleep(Duration::ZERO).await.unwrap();
                panic!("spam {}", 1)
            })
        }))
    });
    let panicked: Result<(), _> = panicked;
    assert_eq!(text_of(panicked.unwrap_err()), "spam 1");
    assert!(dropped.get() && left_dropped.get());
    assert_eq!(records, []);
    assert_eq!(asyncio::block_on(async { 5 }), 5);
}

fn a_panic_with_any_payload_comes_through() {
    let panicked = catch_unwind(|| asyncio::block_on(async { std::panic::panic_any(5_u8) }));
    let panicked: Result<(), _> = panicked;
    assert_eq!(*panicked.unwrap_err().downcast::<u8>().unwrap(), 5);
}

fn inside_a_running_loop_it_panics() {
    let refused = |place: &str| {
        let polled = Cell::new(false);
        let panicked = catch_unwind(AssertUnwindSafe(|| asyncio::block_on(async { polled.set(true) })));
        let text = "asyncio::block_on() cannot be called from a running event loop";
        assert_eq!(text_of(panicked.unwrap_err()), text, "{place}");
        assert!(!polled.get());
    };
    asyncio::run(async {
        refused("run");
        asyncio::get_running_loop()?.call_soon(move || refused("callback")).await
    })
    .unwrap();
    asyncio::block_on(async {
        refused("block_on");
        asyncio::sleep(Duration::ZERO).await.unwrap();
    });
}

fn a_stopped_loop_is_a_panic() {
    let (guard, dropped) = drop_guard();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        asyncio::block_on(async {
            let _guard = guard;
            asyncio::get_running_loop().unwrap().stop();
            std::future::pending::<()>().await;
        })
    }));
    assert!(text_of(panicked.unwrap_err()).contains("Event loop stopped before Future completed."));
    assert!(dropped.get());
}

fn cancel_current() {
    assert!(asyncio::current_task().unwrap().unwrap().cancel());
}

fn cancelling_it_leaves_a_foreign_future_alone() {
    let gate = Gate::default();
    let output = asyncio::block_on(async {
        let task = asyncio::current_task().unwrap().unwrap();
        let event_loop = asyncio::get_running_loop().unwrap();
        // While it waits, several times.
        for delay in 1..4 {
            let task = task.clone();
            event_loop.call_later(Duration::from_millis(delay), move || assert!(task.cancel()));
        }
        let opener = gate.clone();
        event_loop.call_later(Duration::from_millis(8), move || thread::spawn(move || opener.open()).join());
        gate.clone().await;
        "opened"
    });
    assert_eq!(output, "opened");
    assert!(gate.polls() >= 2);
}

fn cancelling_it_reaches_what_takes_cancellations() {
    let record = Record::default();
    let seen = record.clone();
    asyncio::block_on(async move {
        cancel_current();
        let slept = asyncio::sleep(Duration::from_secs(60)).await;
        seen.push(slept.unwrap_err().kind());
        let task = asyncio::current_task().unwrap().unwrap();
        let future = asyncio::get_running_loop().unwrap().create_future::<()>();
        asyncio::get_running_loop().unwrap().call_soon(move || assert!(task.cancel()));
        seen.push((&future).await.unwrap_err().kind());
        assert!(future.cancelled());
    });
    assert_eq!(record.take(), [ErrorKind::Cancelled, ErrorKind::Cancelled]);
}

fn a_cancellation_that_nobody_took_does_not_change_the_output() {
    let gate = Gate::default();
    let output = asyncio::block_on(async {
        let (task, opener) = (asyncio::current_task().unwrap().unwrap(), gate.clone());
        asyncio::get_running_loop().unwrap().call_soon(move || {
            assert!(task.cancel());
            opener.open();
        });
        gate.clone().await;
        5
    });
    assert_eq!(output, 5);
}

fn a_cancellation_before_the_first_await_does_not_change_the_output() {
    let output = asyncio::block_on(async {
        cancel_current();
        5
    });
    assert_eq!(output, 5);
    // Where its leaves are ready at once, they leave the mark alone.
    let output = asyncio::block_on(async {
        let future = asyncio::get_running_loop().unwrap().create_future();
        future.set_result(6).unwrap();
        cancel_current();
        future.await.unwrap()
    });
    assert_eq!(output, 6);
    // Before it is polled at all.
    let output = asyncio::block_on(async {
        cancel_current();
        futures::pending!();
        7
    });
    assert_eq!(output, 7);
}

fn leftovers_are_cancelled_and_awaited() {
    let record = Record::default();
    let seen = record.clone();
    asyncio::block_on(async move {
        let _leftover = asyncio::create_task(async move {
            let cancelled = asyncio::sleep(Duration::from_secs(60)).await;
            asyncio::sleep(Duration::from_millis(1)).await?;
            seen.push("cleaned up");
            cancelled
        });
        asyncio::sleep(Duration::ZERO).await.unwrap();
    });
    assert_eq!(record.take(), ["cleaned up"]);
}

fn the_default_executor_is_shut_down() {
    let (started, has_started) = std::sync::mpsc::channel();
    let (ended, has_ended) = std::sync::mpsc::channel();
    asyncio::block_on(async move {
        let _job = asyncio::get_running_loop().unwrap().run_in_executor(None, move || {
            started.send(()).unwrap();
            thread::sleep(Duration::from_millis(20));
            ended.send(()).unwrap();
        });
        has_started.recv().unwrap();
    });
    has_ended.try_recv().expect("a job that has begun is waited for");
}

fn it_may_be_called_again_and_on_any_thread() {
    for round in 0..3 {
        assert_eq!(asyncio::block_on(async { round }), round);
    }
    let threads = [0, 1, 2].map(|number| {
        thread::spawn(move || {
            asyncio::block_on(async {
                asyncio::sleep(Duration::from_millis(1)).await.unwrap();
                number
            })
        })
    });
    assert_eq!(threads.map(|thread| thread.join().unwrap()), [0, 1, 2]);
}

fn foreign_wakers_work() {
    let (sender, receiver) = async_channel::bounded(1);
    let thread = thread::spawn(move || {
        for number in 0..100 {
            sender.send_blocking(number).unwrap();
        }
    });
    let sum = asyncio::block_on(async {
        let mut sum = 0;
        while let Ok(number) = receiver.recv().await {
            sum += number;
        }
        sum
    });
    assert_eq!(sum, 4950);
    thread.join().unwrap();
}

fn it_runs_in_a_loop_of_its_own() {
    let (event_loop, name) = asyncio::block_on(async {
        let task = asyncio::current_task().unwrap().unwrap();
        (asyncio::get_running_loop().unwrap(), task.get_name())
    });
    assert!(event_loop.is_closed() && !name.is_empty());
    assert!(asyncio::get_running_loop().is_err());
}
