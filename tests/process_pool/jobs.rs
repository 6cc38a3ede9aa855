//! What these tests show: what a job is given and gives, and where it runs.

use std::{
    collections::BTreeSet,
    io::Read,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use asyncio::{Executor, ProcessPool};

use crate::{main_thread::tests, process_number, with_pool};

tests! {
    functions_get_their_arguments_and_give_their_result_from_another_process,
    as_in_python_ten_jobs_on_four_processes_give_ten_results,
    one_process_serves_one_job_after_the_other,
    jobs_run_at_the_same_time_in_at_most_as_many_processes_as_allowed,
    the_limit_holds_for_jobs_that_other_executors_wait_for,
    results_that_are_errors_of_the_function_arrive_as_such,
    large_arguments_and_results_arrive_whole,
    the_loop_turns_while_a_process_is_started,
    a_pool_can_be_the_default_executor,
    a_job_that_is_cancelled_before_it_begins_does_not_run,
    standard_input_is_empty,
    a_pool_may_be_made_within_a_process_of_a_pool,
    the_limit_is_at_least_one,
}

fn functions_get_their_arguments_and_give_their_result_from_another_process() {
    fn join(words: Vec<String>, separator: &str) -> String {
        words.join(separator)
    }
    with_pool(2, |event_loop, pool| async move {
        let words = vec!["to".to_owned(), "be".to_owned()];
        let job = pool.job(|(words, separator): (Vec<String>, String)| join(words, &separator), (words, " ".into()));
        assert_eq!(event_loop.run_in_executor(Some(&pool), job).await??, "to be");
        let number = event_loop.run_in_executor(Some(&pool), pool.job(process_number, ())).await??;
        assert_ne!(number, std::process::id());
        Ok(())
    });
}

fn as_in_python_ten_jobs_on_four_processes_give_ten_results() {
    fn fibonacci(n: u32) -> u64 {
        if n < 2 { 1 } else { fibonacci(n - 1) + fibonacci(n - 2) }
    }
    with_pool(4, |event_loop, pool| async move {
        let jobs: Vec<_> = (0..10).map(|n| event_loop.run_in_executor(Some(&pool), pool.job(fibonacci, n))).collect();
        let results: asyncio::Result<Vec<u64>> = asyncio::gather(jobs).await?.into_iter().collect();
        assert_eq!(results?, [1, 1, 2, 3, 5, 8, 13, 21, 34, 55]);
        Ok(())
    });
}

fn one_process_serves_one_job_after_the_other() {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    fn count(_: ()) -> (u32, u32) {
        (std::process::id(), CALLS.fetch_add(1, Ordering::Relaxed) + 1)
    }
    with_pool(3, |event_loop, pool| async move {
        let (first, calls) = event_loop.run_in_executor(Some(&pool), pool.job(count, ())).await??;
        assert_eq!(calls, 1);
        for expected in 2..20 {
            let (number, calls) = event_loop.run_in_executor(Some(&pool), pool.job(count, ())).await??;
            assert_eq!((number, calls), (first, expected), "no second process is started while one is idle");
        }
        Ok(())
    });
}

fn jobs_run_at_the_same_time_in_at_most_as_many_processes_as_allowed() {
    // Each waits for the other one's file: both run at once.
    fn meet((own, other): (String, String)) -> u32 {
        std::fs::write(own, "").unwrap();
        while !std::path::Path::new(&other).exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::process::id()
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    with_pool(2, |event_loop, pool| {
        let (one, other) = (path("one"), path("other"));
        async move {
            let meeting = asyncio::gather((
                event_loop.run_in_executor(Some(&pool), pool.job(meet, (one.clone(), other.clone()))),
                event_loop.run_in_executor(Some(&pool), pool.job(meet, (other, one))),
            ));
            let (first, second) = meeting.await?;
            let pair = BTreeSet::from([first?, second?]);
            assert_eq!(pair.len(), 2);
            for _ in 0..20 {
                let job = || event_loop.run_in_executor(Some(&pool), pool.job(process_number, ()));
                let (first, second, third) = asyncio::gather((job(), job(), job())).await?;
                assert!(BTreeSet::from([first?, second?, third?]).is_subset(&pair), "there is no third process");
            }
            Ok(())
        }
    });
}

fn the_limit_holds_for_jobs_that_other_executors_wait_for() {
    with_pool(1, |event_loop, pool| async move {
        let number = event_loop.run_in_executor(Some(&pool), pool.job(process_number, ())).await??;
        let jobs: Vec<_> = (0..8).map(|_| asyncio::to_thread(pool.job(process_number, ()))).collect();
        assert_eq!(asyncio::gather(jobs).await?, [number; 8]);
        Ok(())
    });
}

fn results_that_are_errors_of_the_function_arrive_as_such() {
    fn parse(text: String) -> Result<u8, String> {
        text.parse().map_err(|error: std::num::ParseIntError| error.to_string())
    }
    with_pool(1, |event_loop, pool| async move {
        let good = event_loop.run_in_executor(Some(&pool), pool.job(parse, "250".into())).await??;
        let bad = event_loop.run_in_executor(Some(&pool), pool.job(parse, "256".into())).await??;
        assert_eq!(good, Ok(250));
        assert_eq!(bad.unwrap_err(), "number too large to fit in target type");
        Ok(())
    });
}

fn large_arguments_and_results_arrive_whole() {
    fn reverse(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.reverse();
        bytes
    }
    with_pool(1, |event_loop, pool| async move {
        let bytes: Vec<u8> = (0..4_000_000_u32).map(|number| number as u8).collect();
        let mut back = event_loop.run_in_executor(Some(&pool), pool.job(reverse, bytes.clone())).await??;
        back.reverse();
        assert!(back == bytes);
        Ok(())
    });
}

fn the_loop_turns_while_a_process_is_started() {
    with_pool(1, |event_loop, pool| async move {
        let job = event_loop.run_in_executor(Some(&pool), pool.job(process_number, ()));
        asyncio::sleep(Duration::ZERO).await?;
        assert!(!job.done(), "neither new() nor submitting it has waited for the process");
        job.await??;
        Ok(())
    });
}

fn a_pool_can_be_the_default_executor() {
    with_pool(1, |event_loop, pool| async move {
        event_loop.set_default_executor(pool.clone())?;
        let number = asyncio::to_thread(pool.job(process_number, ())).await?;
        assert_ne!(number, std::process::id());
        // What is no job of the pool stays in this process.
        assert_eq!(asyncio::to_thread(|| Ok(std::process::id())).await?, std::process::id());
        Ok(())
    });
}

fn a_job_that_is_cancelled_before_it_begins_does_not_run() {
    fn write(path: String) {
        std::fs::write(path, "").unwrap();
    }
    fn wait(path: String) {
        while !std::path::Path::new(&path).exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (go, never) = (path("go"), path("never"));
    with_pool(1, |event_loop, pool| {
        let (go, never) = (go.clone(), never.clone());
        async move {
            let busy = event_loop.run_in_executor(Some(&pool), pool.job(wait, go.clone()));
            let cancelled = event_loop.run_in_executor(Some(&pool), pool.job(write, never));
            cancelled.cancel();
            write(go);
            busy.await??;
            event_loop.run_in_executor(Some(&pool), pool.job(process_number, ())).await??;
            Ok(())
        }
    });
    assert!(!std::path::Path::new(&never).exists());
}

fn standard_input_is_empty() {
    fn read(_: ()) -> usize {
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap()
    }
    with_pool(1, |event_loop, pool| async move {
        assert_eq!(event_loop.run_in_executor(Some(&pool), pool.job(read, ())).await??, 0);
        Ok(())
    });
}

fn a_pool_may_be_made_within_a_process_of_a_pool() {
    fn below(_: ()) -> (u32, u32) {
        let mut inner = 0;
        with_pool(1, |event_loop, pool| {
            let inner = &mut inner;
            async move {
                *inner = event_loop.run_in_executor(Some(&pool), pool.job(process_number, ())).await??;
                Ok(())
            }
        });
        (std::process::id(), inner)
    }
    with_pool(1, |event_loop, pool| async move {
        let (child, grandchild) = event_loop.run_in_executor(Some(&pool), pool.job(below, ())).await??;
        assert_eq!(BTreeSet::from([std::process::id(), child, grandchild]).len(), 3);
        Ok(())
    });
}

fn the_limit_is_at_least_one() {
    let error = ProcessPool::new(0).unwrap_err();
    assert_eq!(error.kind(), asyncio::ErrorKind::Value);
    assert_eq!(error.to_string(), "max_workers must be greater than 0");
    let cores = std::thread::available_parallelism().unwrap().get();
    let pool = ProcessPool::new(None).unwrap();
    assert_eq!(pool.max_workers(), cores);
    assert_eq!(format!("{pool:?}"), format!("ProcessPool {{ max_workers: {cores}, .. }}"));
    let (sender, receiver) = std::sync::mpsc::channel();
    pool.shutdown(Box::new(move || sender.send(()).unwrap()));
    receiver.try_recv().expect("a pool that never had a job ends at once");
}
