//! Channels and events of other crates.

use std::{cell::RefCell, rc::Rc, time::Duration};

use asyncio::{Error, cancellable, create_task, sleep};
use event_listener::Event;
use futures::{SinkExt, StreamExt};

use crate::support::{self, Record, new_loop, tick};

#[test]
fn async_channel_carries_between_tasks() {
    support::run(async {
        let (sender, receiver) = async_channel::bounded(2);
        let producer = create_task(async move {
            for number in 0..100 {
                sender.send(number).await.map_err(Error::other)?;
            }
            Ok(())
        });
        let consumers: Vec<_> = (0..3)
            .map(|_| {
                let receiver = receiver.clone();
                create_task(async move {
                    let mut sum = 0;
                    while let Ok(number) = receiver.recv().await {
                        sum += number;
                        sleep(Duration::ZERO).await?;
                    }
                    Ok(sum)
                })
            })
            .collect();
        producer.await?;
        let mut sum = 0;
        for consumer in consumers {
            sum += consumer.await?;
        }
        assert_eq!(sum, (0..100).sum::<i32>());
        Ok(())
    });
}

#[test]
fn async_channel_is_fed_by_a_thread() {
    support::run(async {
        let (sender, receiver) = async_channel::unbounded();
        let thread = std::thread::spawn(move || {
            for number in 0..1000 {
                sender.send_blocking(number).unwrap();
            }
        });
        let seen: Vec<i32> = receiver.collect().await;
        assert_eq!(seen, (0..1000).collect::<Vec<_>>());
        thread.join().unwrap();
        Ok(())
    });
}

#[test]
fn a_cancelled_receiver_leaves_the_message_for_the_next() {
    let event_loop = new_loop();
    let (sender, receiver) = async_channel::bounded(1);
    let theirs = receiver.clone();
    let dropped = event_loop.create_task(async move { theirs.recv().await.map_err(Error::other) });
    let theirs = receiver.clone();
    let caught = event_loop.create_task(async move {
        let waited = cancellable(theirs.recv()).await;
        Ok(waited.is_err())
    });
    tick(&event_loop);
    dropped.cancel();
    caught.cancel();
    tick(&event_loop);
    assert!(dropped.cancelled() && caught.result().unwrap());
    sender.try_send(1).unwrap();
    assert_eq!(receiver.try_recv().unwrap(), 1);
}

#[test]
fn event_listener_wakes_tasks() {
    support::run(async {
        let (event, record) = (Rc::new(Event::new()), Record::default());
        let tasks: Vec<_> = (0..3)
            .map(|number| {
                let (listener, seen) = (event.listen(), record.clone());
                create_task(async move {
                    listener.await;
                    seen.push(number);
                    Ok(())
                })
            })
            .collect();
        sleep(Duration::ZERO).await?;
        event.notify(2);
        sleep(Duration::ZERO).await?;
        assert_eq!(record.items(), [0, 1]);
        event.notify(1);
        for task in tasks {
            task.await?;
        }
        assert_eq!(record.take(), [0, 1, 2]);
        Ok(())
    });
}

#[test]
fn event_listener_is_notified_by_a_thread() {
    support::run(async {
        let event = std::sync::Arc::new(Event::new());
        for _ in 0..100 {
            let listener = event.listen();
            let theirs = event.clone();
            let thread = std::thread::spawn(move || theirs.notify(1));
            listener.await;
            thread.join().unwrap();
        }
        Ok(())
    });
}

#[test]
fn futures_channels_carry_between_tasks() {
    support::run(async {
        let (mut sender, receiver) = futures::channel::mpsc::channel(1);
        let producer = create_task(async move {
            for number in 0..20 {
                sender.send(number).await.map_err(Error::other)?;
            }
            Ok(())
        });
        let doubled = receiver.then(|number| async move {
            sleep(Duration::ZERO).await?;
            Ok::<_, Error>(number * 2)
        });
        let all: Vec<_> = doubled.collect().await;
        producer.await?;
        assert_eq!(all.into_iter().collect::<asyncio::Result<Vec<_>>>()?, (0..20).map(|n| n * 2).collect::<Vec<_>>());
        let (give, take) = futures::channel::oneshot::channel();
        asyncio::get_running_loop()?.call_soon(move || give.send(5).unwrap());
        assert_eq!(take.await.map_err(Error::other)?, 5);
        Ok(())
    });
}

#[test]
fn tokios_channels_and_locks_work_without_its_runtime() {
    support::run(async {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        let lock = Rc::new(tokio::sync::Mutex::new(0));
        let tasks: Vec<_> = (0..4)
            .map(|number| {
                let (sender, lock) = (sender.clone(), lock.clone());
                create_task(async move {
                    let mut guard = lock.lock().await;
                    sleep(Duration::ZERO).await?;
                    *guard += number;
                    sender.send(number).await.map_err(Error::other)
                })
            })
            .collect();
        drop(sender);
        let mut seen = Vec::new();
        while let Some(number) = receiver.recv().await {
            seen.push(number);
        }
        for task in tasks {
            task.await?;
        }
        assert_eq!((seen, *lock.lock().await), (vec![0, 1, 2, 3], 6));
        Ok(())
    });
}

#[test]
fn a_foreign_lock_is_released_by_a_cancelled_task() {
    support::run(async {
        let lock = Rc::new(futures::lock::Mutex::new(RefCell::new(1)));
        let theirs = lock.clone();
        let holder = create_task(async move {
            let guard = theirs.lock().await;
            sleep(Duration::from_secs(3600)).await?;
            drop(guard);
            Ok(())
        });
        sleep(Duration::ZERO).await?;
        assert!(lock.try_lock().is_none());
        holder.cancel();
        assert!(holder.await.unwrap_err().is_cancelled());
        assert_eq!(*lock.lock().await.borrow(), 1);
        Ok(())
    });
}
