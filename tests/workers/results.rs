//! What workers are given, and what comes of them.

use std::{
    cell::Cell,
    collections::HashSet,
    rc::Rc,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use asyncio::{ContextVar, ErrorKind, Result, ThreadsafeLoop, Worker, run_workers};

use crate::{
    LONG, Seen,
    main_thread::tests,
    signals::{SIG_DFL, SIGINT, SIGTERM, disposition, install},
    support::{drop_guard, failure},
    until,
};

tests![
    results_come_in_the_order_of_the_workers,
    each_worker_has_a_thread_and_a_loop_of_its_own,
    a_worker_knows_its_index_and_the_count,
    work_may_borrow_and_its_future_stays_on_its_thread,
    the_closure_is_called_in_the_workers_loop,
    workers_run_in_copies_of_the_callers_context,
    one_worker_that_ends_early_leaves_the_others_alone,
    tasks_that_are_left_are_cancelled_and_awaited,
    one_worker_is_enough,
    many_workers_are_fine,
    runs_may_follow_one_another,
    no_workers_are_refused,
    a_running_loop_is_refused,
    other_threads_may_call_it,
];

fn results_come_in_the_order_of_the_workers() {
    let ended = AtomicUsize::new(0);
    let results = run_workers(4, |worker| {
        let ended = &ended;
        async move {
            until(|| ended.load(Ordering::SeqCst) == worker.count() - 1 - worker.index()).await?;
            ended.fetch_add(1, Ordering::SeqCst);
            Ok(worker.index() * 10)
        }
    });
    assert_eq!(results.unwrap(), [0, 10, 20, 30]);
}

fn each_worker_has_a_thread_and_a_loop_of_its_own() {
    let together = Barrier::new(3);
    let results = run_workers(3, async |worker| {
        together.wait(); // they run side by side
        let event_loop = asyncio::get_running_loop()?;
        let name = thread::current().name().map(str::to_owned);
        assert_eq!(name, Some(format!("worker-{}", worker.index())));
        Ok((thread::current().id(), event_loop.threadsafe()))
    });
    let (threads, loops): (Vec<_>, Vec<ThreadsafeLoop>) = results.unwrap().into_iter().unzip();
    assert_eq!(threads.iter().collect::<HashSet<_>>().len(), 3);
    assert!(!threads.contains(&thread::current().id()));
    assert!(loops[0] != loops[1] && loops[1] != loops[2] && loops[0] != loops[2]);
    assert!(loops.iter().all(ThreadsafeLoop::is_closed));
}

fn a_worker_knows_its_index_and_the_count() {
    async fn whole(worker: Worker) -> Result<(usize, usize, String)> {
        Ok((worker.index(), worker.count(), format!("{:?}", worker.clone())))
    }
    let expected = |index| (index, 2, format!("Worker {{ index: {index}, count: 2 }}"));
    assert_eq!(run_workers(2, whole).unwrap(), [expected(0), expected(1)]);
}

fn work_may_borrow_and_its_future_stays_on_its_thread() {
    let words = [String::from("several"), String::from("loops")];
    let lengths = run_workers(2, async |worker| {
        let word = Rc::new(&words[worker.index()]);
        asyncio::sleep(Duration::from_millis(1)).await?;
        Ok(word.len())
    });
    assert_eq!(lengths.unwrap(), [7, 5]);
}

fn the_closure_is_called_in_the_workers_loop() {
    let times = run_workers(2, |_| {
        let event_loop = asyncio::get_running_loop();
        let task = asyncio::current_task();
        async move {
            assert_eq!(event_loop?, asyncio::get_running_loop()?);
            assert_eq!(task?, asyncio::current_task()?);
            Ok(1)
        }
    });
    assert_eq!(times.unwrap(), [1, 1]);
}

fn workers_run_in_copies_of_the_callers_context() {
    static VARIABLE: ContextVar<usize> = ContextVar::new("variable");
    VARIABLE.set(5);
    let seen = run_workers(2, async |worker| {
        let before = VARIABLE.get()?;
        VARIABLE.set(worker.index() + 10);
        asyncio::sleep(Duration::ZERO).await?;
        Ok((before, VARIABLE.get()?))
    });
    assert_eq!(seen.unwrap(), [(5, 10), (5, 11)]);
    assert_eq!(VARIABLE.get().unwrap(), 5);
}

fn one_worker_that_ends_early_leaves_the_others_alone() {
    let (early, thread_gone) = drop_guard();
    let early = Mutex::new(Some(early));
    let results = run_workers(3, async |worker| {
        if worker.index() == 1 {
            thread_local!(static KEPT: Cell<Option<crate::support::DropGuard>> = const { Cell::new(None) });
            KEPT.set(early.lock().unwrap().take()); // dropped with the thread
            return Ok(0);
        }
        until(|| thread_gone.get()).await?;
        asyncio::sleep(Duration::from_millis(20)).await?;
        Ok(worker.index())
    });
    assert_eq!(results.unwrap(), [0, 0, 2]);
}

fn tasks_that_are_left_are_cancelled_and_awaited() {
    let seen = Arc::new(Seen::default());
    run_workers(2, async |worker| {
        let seen = seen.clone();
        asyncio::create_task(async move {
            let cancelled = asyncio::sleep(LONG).await;
            asyncio::sleep(Duration::from_millis(1)).await?;
            seen.push(format!("{} cleaned up", worker.index()));
            cancelled
        });
        asyncio::sleep(Duration::ZERO).await
    })
    .unwrap();
    assert_eq!(seen.sorted(), ["0 cleaned up", "1 cleaned up"]);
}

fn one_worker_is_enough() {
    assert_eq!(run_workers(1, async |_| Ok("one")).unwrap(), ["one"]);
}

fn many_workers_are_fine() {
    let results = run_workers(64, async |worker| {
        asyncio::sleep(Duration::from_millis(1)).await?;
        Ok(worker.index())
    });
    assert!(results.unwrap().into_iter().eq(0..64));
}

fn runs_may_follow_one_another() {
    for round in 0..20 {
        assert_eq!(run_workers(2, async |_| Ok(round)).unwrap(), [round, round]);
    }
    assert_eq!(asyncio::run(async { Ok(1) }).unwrap(), 1);
}

fn no_workers_are_refused() {
    let result = run_workers::<(), _, _>(0, async |_| panic!("nobody is there"));
    assert_eq!(failure(result), (ErrorKind::Value, "the number of workers must not be zero".into()));
}

fn a_running_loop_is_refused() {
    let text = "asyncio::run_workers() cannot be called from a running event loop";
    asyncio::run(async {
        let result = run_workers::<(), _, _>(2, async |_| panic!("nobody is there"));
        assert_eq!(failure(result), (ErrorKind::Runtime, text.into()));
        Ok(())
    })
    .unwrap();
    // A worker is a running loop, too.
    let result = run_workers(1, async |_| run_workers::<(), _, _>(2, async |_| Ok(())));
    assert_eq!(failure(result), (ErrorKind::Runtime, text.into()));
}

fn other_threads_may_call_it() {
    install(SIGINT, SIG_DFL);
    install(SIGTERM, SIG_DFL);
    let caller = thread::spawn(|| {
        run_workers(2, async |worker| {
            assert_eq!((disposition(SIGINT), disposition(SIGTERM)), (SIG_DFL, SIG_DFL), "signals are left alone");
            asyncio::sleep(Duration::from_millis(1)).await?;
            Ok(worker.index())
        })
    });
    assert_eq!(caller.join().unwrap().unwrap(), [0, 1]);
}
