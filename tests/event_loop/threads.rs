//! Loops on several threads at once.
use std::{
    cell::RefCell,
    rc::Rc,
    sync::{Barrier, mpsc},
    thread,
    time::Duration,
};

use asyncio::{ThreadsafeLoop, get_running_loop, sleep};

use crate::{
    MS,
    support::{deadline, handler, new_loop},
};

#[test]
fn loops_on_many_threads_do_not_disturb_each_other() {
    let _deadline = deadline();
    let threads: Vec<_> = (0..8_u64)
        .map(|thread| {
            thread::spawn(move || {
                let event_loop = new_loop();
                let reports = handler(&event_loop);
                let sum = Rc::new(RefCell::new(0));
                let main = async {
                    let tasks: Vec<_> = (0..100)
                        .map(|number| {
                            let (sum, event_loop) = (sum.clone(), event_loop.clone());
                            asyncio::create_task(async move {
                                sleep(Duration::from_micros(number % 10 * 100)).await?;
                                assert!(get_running_loop()? == event_loop);
                                let job = event_loop.run_in_executor(None, move || thread * number);
                                *sum.borrow_mut() += job.await?;
                                Ok(())
                            })
                        })
                        .collect();
                    for task in tasks {
                        task.await?;
                    }
                    event_loop.shutdown_default_executor(None).await
                };
                event_loop.run_until_complete(main).unwrap();
                event_loop.close().unwrap();
                assert!(reports.take().is_empty());
                sum.take()
            })
        })
        .collect();
    for (number, thread) in threads.into_iter().enumerate() {
        assert_eq!(thread.join().unwrap(), number as u64 * 4950);
    }
}

/// Sends a number around the loops, which each add one, until it has made all its rounds.
async fn relay(loops: Vec<ThreadsafeLoop>, next: usize, number: usize, end: usize) -> asyncio::Result<usize> {
    if number == end {
        return Ok(number);
    }
    let rest = loops.clone();
    let following = (next + 1) % loops.len();
    let there = loops[next].run_coroutine_threadsafe(move || Box::pin(relay(rest, following, number + 1, end)));
    there.await
}

#[test]
fn loops_run_coroutines_in_each_other() {
    let _deadline = deadline();
    const THREADS: usize = 4;
    let (send, receive) = mpsc::channel();
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let send = send.clone();
            thread::spawn(move || {
                let event_loop = new_loop();
                let reports = handler(&event_loop);
                send.send(event_loop.threadsafe()).unwrap();
                event_loop.run_forever().unwrap();
                assert_eq!(event_loop.all_tasks(), []);
                assert!(reports.take().is_empty());
            })
        })
        .collect();
    let loops: Vec<_> = receive.iter().take(THREADS).collect();
    let end = asyncio::run(relay(loops.clone(), 0, 0, 100)).unwrap();
    assert_eq!(end, 100);
    loops.iter().for_each(ThreadsafeLoop::stop);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn every_wake_of_a_sleeping_loop_arrives() {
    let _deadline = deadline();
    const ROUNDS: usize = 2000;
    // Ping-pong: the loop falls asleep between any two calls, so that a lost wake would hang.
    let event_loop = new_loop();
    let threadsafe = event_loop.threadsafe();
    let thread = thread::spawn(move || {
        for round in 0..ROUNDS {
            assert_eq!(threadsafe.call_soon_threadsafe(move || round).result(None).unwrap(), round);
        }
        threadsafe.stop();
    });
    event_loop.run_forever().unwrap();
    thread.join().unwrap();
}

#[test]
fn wakes_of_many_threads_race_with_falling_asleep() {
    let _deadline = deadline();
    const THREADS: usize = 4;
    const ROUNDS: usize = 300;
    let event_loop = new_loop();
    let main = async {
        for _ in 0..ROUNDS {
            let barrier = std::sync::Arc::new(Barrier::new(THREADS));
            let jobs: Vec<_> = (0..THREADS)
                .map(|number| {
                    let barrier = barrier.clone();
                    event_loop.run_in_executor(None, move || {
                        barrier.wait();
                        number
                    })
                })
                .collect();
            for (number, job) in jobs.into_iter().enumerate() {
                assert_eq!(job.await?, number);
            }
        }
        Ok(())
    };
    event_loop.run_until_complete(main).unwrap();
}

#[test]
fn a_thread_may_have_several_loops_one_after_the_other() {
    let _deadline = deadline();
    let loops: Vec<_> = (0..5).map(|_| new_loop()).collect();
    for _ in 0..3 {
        for (number, event_loop) in loops.iter().enumerate() {
            let main = async {
                sleep(MS).await?;
                assert!(get_running_loop()? == *event_loop);
                Ok(number)
            };
            assert_eq!(event_loop.run_until_complete(main).unwrap(), number);
        }
    }
    loops[0].close().unwrap();
    assert_eq!(loops[1].run_until_complete(async { Ok(1) }).unwrap(), 1);
}

#[test]
fn a_loop_wakes_another_of_its_thread() {
    let (a, b) = (new_loop(), new_loop());
    let gate = crate::support::Gate::default();
    let waits = gate.clone();
    let mut task = b.create_task(async move {
        waits.await;
        Ok(get_running_loop()?.name().is_none())
    });
    crate::support::tick(&b);
    a.run_until_complete(async {
        gate.open();
        Ok(())
    })
    .unwrap();
    assert!(!task.done());
    assert!(b.run_until_complete(&mut task).unwrap());
}
