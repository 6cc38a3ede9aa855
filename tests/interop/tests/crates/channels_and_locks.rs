//! What these tests show: async-channel and async-lock between tasks, connections and threads.

use std::{cell::RefCell, rc::Rc, sync::Arc, thread, time::Duration};

use asyncio::{Error, ErrorKind, Result, create_task};
use futures::{AsyncBufReadExt, AsyncWriteExt, StreamExt};

use crate::{close, connect, serve, support::loops::On};

on_each_selector! {
    connections_feed_a_channel
    a_channel_holds_back_who_is_too_fast
    a_channel_carries_to_a_thread_and_back
    a_lock_is_held_over_awaits
    a_cancelled_waiter_leaves_the_lock_to_the_next
    readers_share_and_a_writer_waits
    a_semaphore_limits_connections
    a_cell_is_filled_once
    a_barrier_lets_all_go_together
    a_lock_is_released_by_a_thread
}

fn connections_feed_a_channel(on: On) {
    let event_loop = on.event_loop();
    let mut all = event_loop.run(async {
        let (sender, receiver) = async_channel::bounded(4);
        let (server, address) = serve(async move |stream| {
            let mut lines = futures::io::BufReader::new(stream).lines();
            while let Some(line) = lines.next().await {
                sender.send(Rc::new(line?)).await.expect("it is received");
            }
            Ok(())
        })
        .await?;
        for number in 0..3 {
            let mut stream = connect(address).await?;
            for line in 0..5 {
                stream.write_all(format!("{number} {line}\n").as_bytes()).await?;
            }
            stream.close().await?;
        }
        let mut all = Vec::new();
        for _ in 0..15 {
            all.push(receiver.recv().await.map_err(Error::other)?.to_string());
        }
        close(server).await?;
        Ok(all)
    });
    all.sort();
    let expected: Vec<_> = (0..3).flat_map(|number| (0..5).map(move |line| format!("{number} {line}"))).collect();
    assert_eq!(all, expected);
}

fn a_channel_holds_back_who_is_too_fast(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let (sender, receiver) = async_channel::bounded(2);
        let sent = Rc::new(RefCell::new(0));
        let count = sent.clone();
        let producer = create_task(async move {
            for number in 0..10 {
                sender.send(number).await.map_err(Error::other)?;
                *count.borrow_mut() += 1;
            }
            Ok(())
        });
        asyncio::sleep(Duration::ZERO).await?;
        assert_eq!(*sent.borrow(), 2);
        let all: Vec<_> = receiver.collect().await;
        assert_eq!(all, (0..10).collect::<Vec<_>>());
        producer.await
    });
}

fn a_channel_carries_to_a_thread_and_back(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let ((ask, asked), (answer, answers)) = (async_channel::bounded(1), async_channel::bounded(1));
        let thread = thread::spawn(move || {
            while let Ok(number) = asked.recv_blocking() {
                answer.send_blocking(number * 2).unwrap();
            }
        });
        for number in 0..500 {
            ask.send(number).await.map_err(Error::other)?;
            assert_eq!(answers.recv().await.unwrap(), number * 2);
        }
        drop(ask);
        thread.join().unwrap();
        Ok(())
    });
}

fn a_lock_is_held_over_awaits(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let lock = Rc::new(async_lock::Mutex::new(0));
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let lock = lock.clone();
                create_task(async move {
                    let mut guard = lock.lock().await;
                    let before = *guard;
                    asyncio::sleep(Duration::ZERO).await?;
                    *guard = before + 1;
                    Ok(())
                })
            })
            .collect();
        for task in tasks {
            task.await?;
        }
        assert_eq!(*lock.lock().await, 20);
        Ok(())
    });
}

fn a_cancelled_waiter_leaves_the_lock_to_the_next(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let lock = Rc::new(async_lock::Mutex::new(()));
        let guard = lock.lock().await;
        let (first, second) = (lock.clone(), lock.clone());
        let first = create_task(async move {
            drop(first.lock().await);
            Ok(())
        });
        let second = create_task(async move {
            drop(second.lock().await);
            Ok("second")
        });
        asyncio::sleep(Duration::ZERO).await?;
        first.cancel();
        assert_eq!(first.await.unwrap_err().kind(), ErrorKind::Cancelled);
        drop(guard);
        assert_eq!(second.await?, "second");
        Ok(())
    });
}

fn readers_share_and_a_writer_waits(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let lock = Rc::new(async_lock::RwLock::new(1));
        let (one, two) = (lock.read().await, lock.read().await);
        let theirs = lock.clone();
        let writer = create_task(async move {
            *theirs.write().await += 1;
            Ok(())
        });
        asyncio::sleep(Duration::ZERO).await?;
        assert_eq!((*one, *two, writer.done()), (1, 1, false));
        drop((one, two));
        writer.await?;
        assert_eq!(*lock.read().await, 2);
        Ok(())
    });
}

fn a_semaphore_limits_connections(on: On) {
    let event_loop = on.event_loop();
    let most = Rc::new(RefCell::new((0, 0)));
    event_loop.run(async {
        let (semaphore, counts) = (Rc::new(async_lock::Semaphore::new(2)), most.clone());
        let (server, address) = serve(async move |mut stream| {
            let _permit = semaphore.acquire().await;
            let (running, peak) = *counts.borrow();
            counts.replace((running + 1, peak.max(running + 1)));
            asyncio::sleep(Duration::from_millis(2)).await?;
            counts.borrow_mut().0 -= 1;
            stream.write_all(b"served").await?;
            stream.close().await?;
            Ok(())
        })
        .await?;
        let clients: Vec<_> = (0..8)
            .map(|_| {
                create_task(async move {
                    let mut answer = String::new();
                    futures::AsyncReadExt::read_to_string(&mut connect(address).await?, &mut answer).await?;
                    Ok(answer)
                })
            })
            .collect();
        for client in clients {
            assert_eq!(client.await?, "served");
        }
        close(server).await
    });
    assert_eq!(*most.borrow(), (0, 2));
}

fn a_cell_is_filled_once(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let (cell, calls) = (Rc::new(async_lock::OnceCell::new()), Rc::new(RefCell::new(0)));
        let tasks: Vec<_> = (0..5)
            .map(|number| {
                let (cell, calls) = (cell.clone(), calls.clone());
                create_task(async move {
                    let value = cell.get_or_try_init(|| async {
                        *calls.borrow_mut() += 1;
                        asyncio::sleep(Duration::ZERO).await?;
                        Ok::<_, Error>(number)
                    });
                    value.await.copied()
                })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await?, 0);
        }
        assert_eq!(*calls.borrow(), 1);
        Ok(())
    });
}

fn a_barrier_lets_all_go_together(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let barrier = Rc::new(async_lock::Barrier::new(3));
        let tasks: Vec<_> = (0..3)
            .map(|_| {
                let barrier = barrier.clone();
                create_task(async move { Ok(barrier.wait().await.is_leader()) })
            })
            .collect();
        let mut leaders = 0;
        for task in tasks {
            leaders += usize::from(task.await?);
        }
        assert_eq!(leaders, 1);
        Ok(())
    });
}

fn a_lock_is_released_by_a_thread(on: On) {
    let event_loop = on.event_loop();
    let seen: Result<()> = event_loop.event_loop.run_until_complete(async {
        let lock = Arc::new(async_lock::Mutex::new(0));
        for turn in 1..=100 {
            let mut guard = lock.clone().lock_arc().await;
            let thread = thread::spawn(move || {
                *guard += 1;
                drop(guard);
            });
            assert!(*lock.lock().await == turn, "the thread had the lock until it was done");
            thread.join().unwrap();
        }
        Ok(())
    });
    seen.unwrap();
}
