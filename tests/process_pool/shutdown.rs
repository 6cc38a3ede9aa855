//! What these tests show: how a pool ends, and that its processes end with it.

use std::{
    path::Path,
    sync::mpsc::channel,
    time::{Duration, Instant},
};

use asyncio::{ErrorKind, Executor, ProcessPool};

use crate::{main_thread::tests, process_number, with_pool};

tests! {
    a_shutdown_lets_the_jobs_end_and_then_the_processes,
    after_a_shutdown_jobs_are_refused,
    dropping_the_last_handle_ends_the_processes_after_their_jobs,
    the_default_executor_is_waited_for_at_the_end_of_run,
}

const DEADLINE: Duration = Duration::from_secs(20);

/// Ends once the file is there.
fn wait(path: String) -> u32 {
    while !Path::new(&path).exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::process::id()
}

fn is_alive(number: u32) -> bool {
    Path::new(&format!("/proc/{number}")).exists()
}

fn a_shutdown_lets_the_jobs_end_and_then_the_processes() {
    let directory = tempfile::tempdir().unwrap();
    let go = directory.path().join("go").display().to_string();
    with_pool(1, |event_loop, pool| {
        let go = go.clone();
        async move {
            let running = event_loop.run_in_executor(Some(&pool), pool.job(wait, go.clone()));
            let queued = event_loop.run_in_executor(Some(&pool), pool.job(process_number, ()));
            let (sender, receiver) = channel();
            pool.shutdown(Box::new(move || sender.send(()).unwrap()));
            assert!(receiver.try_recv().is_err(), "a job still runs");
            std::fs::write(go, "")?;
            let number = running.await??;
            assert_eq!(queued.await??, number);
            receiver.recv_timeout(DEADLINE).unwrap();
            assert!(!is_alive(number), "done is called when the processes have ended");
            Ok(())
        }
    });
}

fn after_a_shutdown_jobs_are_refused() {
    with_pool(1, |event_loop, pool| async move {
        event_loop.run_in_executor(Some(&pool), pool.job(process_number, ())).await??;
        let (sender, receiver) = channel();
        pool.clone().shutdown(Box::new(move || sender.send(()).unwrap()));
        receiver.recv_timeout(DEADLINE).unwrap();
        let by_the_pool = event_loop.run_in_executor(Some(&pool), pool.job(process_number, ())).await.unwrap_err();
        let by_a_thread = asyncio::to_thread(pool.job(process_number, ())).await.unwrap_err();
        for error in [by_the_pool, by_a_thread] {
            assert_eq!(error.kind(), ErrorKind::Runtime);
            assert_eq!(error.to_string(), "cannot schedule new futures after shutdown");
        }
        Ok(())
    });
}

fn dropping_the_last_handle_ends_the_processes_after_their_jobs() {
    let directory = tempfile::tempdir().unwrap();
    let go = directory.path().join("go").display().to_string();
    with_pool(2, |event_loop, pool| {
        let go = go.clone();
        async move {
            let job = event_loop.run_in_executor(Some(&pool), pool.job(wait, go.clone()));
            drop(pool);
            std::fs::write(go, "")?;
            let number = job.await??;
            let begin = Instant::now();
            while is_alive(number) {
                assert!(begin.elapsed() < DEADLINE, "it is still there");
                asyncio::sleep(Duration::from_millis(1)).await?;
            }
            Ok(())
        }
    });
}

fn the_default_executor_is_waited_for_at_the_end_of_run() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("written").display().to_string();
    fn write(path: String) {
        std::thread::sleep(Duration::from_millis(50));
        std::fs::write(path, "").unwrap();
    }
    let written = path.clone();
    asyncio::run(async move {
        let (event_loop, pool) = (asyncio::get_running_loop()?, ProcessPool::new(1)?);
        event_loop.set_default_executor(pool.clone())?;
        drop(event_loop.run_in_executor(None, pool.job(write, path)));
        Ok(())
    })
    .unwrap();
    assert!(Path::new(&written).exists());
}
