use std::{cell::Cell, pin::pin, rc::Rc, task::Poll};

use asyncio::{ErrorKind, LifoQueue, PriorityQueue, Queue, QueueOrder, Result, Task, create_task};

use crate::{
    poll_now, poll_pinned,
    support::{Record, drop_guard, failure, run},
    turns,
};

fn getter<T: 'static>(queue: &Queue<T>) -> Task<T> {
    let queue = queue.clone();
    create_task(async move { queue.get().await })
}

fn putter<T: 'static>(queue: &Queue<T>, item: T) -> Task<()> {
    let queue = queue.clone();
    create_task(async move { queue.put(item).await })
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    failure(result).0
}

/// QUE-001
#[test]
fn each_kind_of_queue_has_its_order() {
    async fn order<O: QueueOrder<u8>>(queue: &Queue<u8, O>) -> Result<[u8; 3]> {
        for item in [1, 3, 2] {
            queue.put(item).await?;
        }
        Ok([queue.get().await?, queue.get().await?, queue.get().await?])
    }
    run(async {
        assert_eq!(order(&Queue::new(0)).await?, [1, 3, 2]);
        assert_eq!(order(&LifoQueue::new(0)).await?, [2, 3, 1]);
        assert_eq!(order(&PriorityQueue::new(0)).await?, [1, 2, 3]);
        Ok(())
    });
}

#[test]
fn equal_items_of_a_priority_queue_keep_their_order() {
    #[derive(Debug)]
    struct Job(u8, usize);
    impl Ord for Job {
        fn cmp(&self, other: &Self) -> std::cmp::Ordering {
            self.0.cmp(&other.0)
        }
    }
    impl PartialOrd for Job {
        fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
            Some(self.cmp(other))
        }
    }
    impl PartialEq for Job {
        fn eq(&self, other: &Self) -> bool {
            self.0 == other.0
        }
    }
    impl Eq for Job {}

    let queue = PriorityQueue::new(0);
    let mut jobs: Vec<_> = (0..100).map(|number| (number % 3, usize::from(number))).collect();
    jobs.iter().for_each(|job| queue.put_nowait(Job(job.0, job.1)).unwrap());
    let got: Vec<_> = std::iter::from_fn(|| queue.get_nowait().ok()).map(|job| (job.0, job.1)).collect();
    jobs.sort();
    assert_eq!(got, jobs);
}

/// QUE-002
#[test]
fn a_put_waits_while_the_queue_is_full() {
    run(async {
        let (queue, done) = (Queue::new(2), Rc::new(Cell::new(0)));
        let (puts, count) = (queue.clone(), done.clone());
        let task = create_task(async move {
            for item in 0..3 {
                puts.put(item).await?;
                count.set(count.get() + 1);
            }
            Ok(())
        });
        turns(2).await?;
        assert_eq!(done.get(), 2);
        assert_eq!((queue.qsize(), queue.full()), (2, true));
        assert_eq!(queue.get().await?, 0);
        turns(1).await?;
        assert_eq!(done.get(), 3);
        assert_eq!(queue.qsize(), 2);
        task.await?;
        assert_eq!([queue.get().await?, queue.get().await?], [1, 2]);
        assert!(queue.empty());
        Ok(())
    });
}

/// QUE-003; a negative size cannot be said.
#[test]
fn a_queue_without_a_limit_is_never_full() {
    let queue = Queue::new(0);
    assert_eq!((queue.full(), queue.empty(), queue.maxsize(), queue.qsize()), (false, true, 0, 0));
    (0..1000).for_each(|item| queue.put_nowait(item).unwrap());
    assert_eq!((queue.full(), queue.empty(), queue.qsize()), (false, false, 1000));

    let queue = Queue::new(1);
    assert_eq!((queue.full(), queue.empty(), queue.maxsize()), (false, true, 1));
    assert_eq!(kind(queue.get_nowait()), ErrorKind::QueueEmpty);
    queue.put_nowait("a").unwrap();
    assert_eq!((queue.full(), queue.empty()), (true, false));
    assert_eq!(kind(queue.put_nowait("b")), ErrorKind::QueueFull);
    assert!(matches!(queue.try_put("b"), Err(("b", asyncio::Error::QueueFull))));
    assert_eq!(queue.get_nowait().unwrap(), "a");
    queue.try_put("b").unwrap();
}

#[test]
fn a_get_waits_while_the_queue_is_empty() {
    run(async {
        let queue = Queue::new(0);
        let task = getter(&queue);
        turns(2).await?;
        assert!(!task.done());
        queue.put_nowait(1)?;
        assert!(!task.done());
        turns(1).await?;
        assert!(task.done());
        assert_eq!(task.await?, 1);
        Ok(())
    });
}

#[test]
fn getters_are_served_in_the_order_in_which_they_came() {
    run(async {
        let queue = Queue::new(0);
        let tasks = [getter(&queue), getter(&queue), getter(&queue)];
        turns(1).await?;
        for item in 1..=3 {
            queue.put(item).await?;
        }
        for (task, item) in tasks.into_iter().zip(1..) {
            assert_eq!(task.await?, item);
        }
        Ok(())
    });
}

/// QUE-005
#[test]
fn a_getter_that_is_cancelled_when_it_was_woken_loses_no_item() {
    run(async {
        let queue = Queue::new(0);
        let reader = getter(&queue);
        turns(1).await?;
        queue.put_nowait(1)?;
        queue.put_nowait(2)?;
        assert!(reader.cancel());
        assert!(reader.await.unwrap_err().is_cancelled());
        assert_eq!(getter(&queue).await?, 1);
        assert_eq!(queue.get_nowait()?, 2);
        Ok(())
    });
}

#[test]
fn a_getter_that_is_cancelled_wakes_the_next() {
    // In the same iteration, before or after the put.
    for before in [true, false] {
        run(async move {
            let queue = Queue::new(0);
            let [first, second, third] = [getter(&queue), getter(&queue), getter(&queue)];
            turns(1).await?;
            if before {
                first.cancel();
            }
            queue.put_nowait(1)?;
            first.cancel();
            assert_eq!(second.await?, 1);
            assert!(first.await.unwrap_err().is_cancelled());
            assert!(!third.done());
            queue.put_nowait(2)?;
            assert_eq!(third.await?, 2);
            Ok(())
        });
    }
}

#[test]
fn a_getter_that_is_dropped_wakes_the_next() {
    let queue = Queue::new(0);
    let (mut first, mut second) = (Box::pin(queue.get()), pin!(queue.get()));
    assert!(poll_pinned(first.as_mut()).is_pending());
    assert!(poll_pinned(second.as_mut()).is_pending());
    queue.put_nowait(1).unwrap();
    assert!(poll_pinned(second.as_mut()).is_pending(), "it is the first one's turn");
    drop(first);
    assert!(matches!(poll_pinned(second.as_mut()), Poll::Ready(Ok(1))));
    assert_eq!(format!("{queue:?}"), "<Queue maxsize=0 items=0 tasks=1>");
}

/// Whoever comes while there is an item takes it; the one that was woken goes on waiting.
#[test]
fn one_who_was_woken_for_nothing_waits_again() {
    run(async {
        let queue = Queue::new(0);
        let first = getter(&queue);
        turns(1).await?;
        queue.put_nowait(1)?;
        assert_eq!(queue.get_nowait()?, 1);
        turns(2).await?;
        assert!(!first.done());
        queue.put_nowait(2)?;
        assert_eq!(first.await?, 2);
        Ok(())
    });
}

/// QUE-007
#[test]
fn a_cancelled_put_leaves_nothing_behind() {
    run(async {
        let (queue, record) = (Queue::new(1), Record::default());
        let (guard, dropped) = drop_guard();
        let put = |name: &'static str, guard| {
            let (queue, record) = (queue.clone(), record.clone());
            create_task(async move {
                queue.put((name, guard)).await?;
                record.push(name);
                Ok(())
            })
        };
        let put_a = put("a", None);
        turns(1).await?;
        assert!(put_a.done());
        let (put_b, put_c) = (put("b", None), put("c", Some(guard)));
        turns(1).await?;
        assert!(put_c.cancel());
        assert_eq!(queue.get_nowait()?.0, "a");
        turns(1).await?;
        assert_eq!(queue.get_nowait()?.0, "b");
        assert!(put_c.await.unwrap_err().is_cancelled());
        assert!(dropped.get());
        put_b.await?;
        assert_eq!(format!("{queue:?}"), "<Queue maxsize=1 items=0 tasks=2>");
        assert_eq!(record.take(), ["a", "b"]);
        Ok(())
    });
}

#[test]
fn a_putter_that_is_cancelled_or_dropped_wakes_the_next() {
    for before in [true, false] {
        run(async move {
            let queue = Queue::new(1);
            queue.put_nowait(0)?;
            let [first, second, third] = [1, 2, 3].map(|item| putter(&queue, item));
            turns(1).await?;
            if before {
                first.cancel();
            }
            assert_eq!(queue.get_nowait()?, 0);
            first.cancel();
            second.await?;
            assert_eq!(queue.get_nowait()?, 2);
            third.await?;
            assert_eq!(queue.get_nowait()?, 3);
            assert!(first.await.unwrap_err().is_cancelled());
            Ok(())
        });
    }
    let queue = Queue::new(1);
    queue.put_nowait(0).unwrap();
    let (mut first, mut second) = (Box::pin(queue.put(1)), pin!(queue.put(2)));
    assert!(poll_pinned(first.as_mut()).is_pending());
    assert!(poll_pinned(second.as_mut()).is_pending());
    queue.get_nowait().unwrap();
    assert!(poll_pinned(second.as_mut()).is_pending());
    drop(first);
    assert!(poll_pinned(second.as_mut()).is_ready());
    assert_eq!(queue.get_nowait().unwrap(), 2);
}

#[test]
fn after_a_cancellation_a_put_can_be_awaited_again() {
    run(async {
        let queue = Queue::new(1);
        queue.put_nowait(0)?;
        let puts = queue.clone();
        let task = create_task(async move {
            let mut put = puts.put(1);
            assert!((&mut put).await.unwrap_err().is_cancelled());
            put.await
        });
        turns(1).await?;
        task.cancel();
        turns(1).await?;
        assert_eq!(queue.get().await?, 0);
        assert_eq!(queue.get().await?, 1);
        task.await
    });
}

/// QUE-008
#[test]
fn join_waits_until_all_items_are_done() {
    run(async {
        let queue = Queue::new(0);
        queue.join().await?;
        assert!(poll_now(queue.join()).is_ready(), "at once on a fresh queue");
        (0..100).for_each(|item| queue.put_nowait(item).unwrap());
        let sum = Rc::new(Cell::new((0, 0)));
        let workers = [0, 1].map(|_| {
            let (queue, sum) = (queue.clone(), sum.clone());
            create_task(async move {
                while let Ok(item) = queue.get().await {
                    turns(item % 3).await?;
                    let (count, total) = sum.get();
                    sum.set((count + 1, total + item));
                    queue.task_done()?;
                }
                Ok(())
            })
        });
        queue.join().await?;
        assert_eq!(sum.get(), (100, 4950));
        let too_many = (ErrorKind::Value, "task_done() called too many times".to_owned());
        assert_eq!(failure(queue.task_done()), too_many);
        assert_eq!(failure(Queue::<u8>::new(0).task_done()), too_many);
        queue.shutdown(false);
        for worker in workers {
            worker.await?;
        }
        Ok(())
    });
}

#[test]
fn join_returns_only_after_the_last_task_done() {
    run(async {
        let queue = Queue::new(0);
        (0..3).for_each(|item| queue.put_nowait(item).unwrap());
        let joins = [0, 1].map(|_| {
            let queue = queue.clone();
            create_task(async move { queue.join().await })
        });
        for _ in 0..3 {
            queue.get().await?;
            turns(2).await?;
            assert!(!joins[0].done());
            queue.task_done()?;
        }
        // Work that comes when it is over does not matter any more.
        queue.put_nowait(9)?;
        turns(1).await?;
        assert!(joins[0].done() && joins[1].done());
        assert!(poll_now(queue.join()).is_pending());
        for join in joins {
            join.await?;
        }
        Ok(())
    });
}

#[test]
fn a_cancelled_join_harms_nobody() {
    run(async {
        let queue = Queue::new(0);
        queue.put_nowait(1)?;
        let [first, second] = [0, 1].map(|_| {
            let queue = queue.clone();
            create_task(async move { queue.join().await })
        });
        turns(1).await?;
        first.cancel();
        queue.task_done()?;
        second.await?;
        assert!(first.await.unwrap_err().is_cancelled());
        Ok(())
    });
}

/// QUE-009
#[test]
fn a_shut_down_queue_refuses_all() {
    run(async {
        let queue = Queue::<u8>::new(0);
        let blocked = getter(&queue);
        turns(1).await?;
        queue.shutdown(false);
        assert_eq!(kind(blocked.await), ErrorKind::QueueShutDown);
        assert_eq!(kind(queue.put(1).await), ErrorKind::QueueShutDown);
        assert_eq!(kind(queue.put_nowait(1)), ErrorKind::QueueShutDown);
        assert!(matches!(queue.try_put(1), Err((1, asyncio::Error::QueueShutDown))));
        assert_eq!(kind(queue.get().await), ErrorKind::QueueShutDown);
        assert_eq!(kind(queue.get_nowait()), ErrorKind::QueueShutDown);
        queue.join().await
    });
}

#[test]
fn what_is_in_a_queue_that_was_shut_down_can_be_got() {
    run(async {
        let queue = Queue::new(2);
        queue.put_nowait(1)?;
        queue.put_nowait(2)?;
        let blocked = putter(&queue, 3);
        let joins = queue.clone();
        let join = create_task(async move { joins.join().await });
        turns(1).await?;
        queue.shutdown(false);
        assert_eq!(kind(blocked.await), ErrorKind::QueueShutDown);
        assert_eq!((queue.get().await?, queue.get_nowait()?), (1, 2));
        assert_eq!(kind(queue.get().await), ErrorKind::QueueShutDown);
        assert_eq!(kind(queue.get_nowait()), ErrorKind::QueueShutDown);
        assert!(!join.done(), "two items are not done");
        queue.task_done()?;
        queue.task_done()?;
        join.await
    });
}

#[test]
fn an_immediate_shutdown_throws_away_what_is_left_and_counts_it_as_done() {
    run(async {
        let queue = Queue::new(0);
        let (guard, dropped) = drop_guard();
        queue.put_nowait(None)?;
        queue.put_nowait(Some(guard))?;
        queue.put_nowait(None)?;
        let joins = queue.clone();
        let join = create_task(async move { joins.join().await });
        queue.get().await?;
        turns(1).await?;
        queue.shutdown(true);
        assert!(dropped.get());
        assert!(queue.empty());
        assert_eq!(kind(queue.get().await.map(drop)), ErrorKind::QueueShutDown);
        turns(2).await?;
        assert!(!join.done(), "one was got and is not done");
        queue.task_done()?;
        join.await?;
        assert_eq!(kind(queue.task_done()), ErrorKind::Value);
        Ok(())
    });
}

#[test]
fn an_immediate_shutdown_releases_join() {
    run(async {
        let queue = Queue::new(1);
        queue.put_nowait(1)?;
        let (joins, blocked) = (queue.clone(), putter(&queue, 2));
        let join = create_task(async move { joins.join().await });
        turns(1).await?;
        queue.shutdown(true);
        join.await?;
        assert_eq!(kind(blocked.await), ErrorKind::QueueShutDown);
        assert_eq!(format!("{queue:?}"), "<Queue maxsize=1 items=0 shutdown>");
        Ok(())
    });
}

/// Item drops are other people's code: they may use the queue.
#[test]
fn what_is_dropped_with_a_queue_may_use_it() {
    struct Curious(Queue<Curious>);
    impl Drop for Curious {
        fn drop(&mut self) {
            assert_eq!(self.0.qsize(), 0);
        }
    }
    let queue = Queue::new(1);
    queue.put_nowait(Curious(queue.clone())).unwrap();
    queue.shutdown(true);
    assert!(queue.put_nowait(Curious(queue.clone())).is_err());
}

#[test]
fn all_methods_are_there_on_all_kinds() {
    run(async {
        let (stack, heap) = (LifoQueue::new(2), PriorityQueue::new(2));
        stack.put(1).await?;
        heap.put(1).await?;
        assert!(stack.put_nowait(2).is_ok() && heap.put_nowait(0).is_ok());
        assert!(stack.full() && heap.full() && stack.maxsize() == 2 && heap.qsize() == 2);
        assert!(stack.try_put(3).is_err() && heap.try_put(3).is_err());
        assert_eq!((stack.clone().get().await?, heap.clone().get().await?), (2, 0));
        assert_eq!((stack.get_nowait()?, heap.get_nowait()?), (1, 1));
        for _ in 0..2 {
            stack.task_done()?;
            heap.task_done()?;
        }
        stack.join().await?;
        heap.join().await?;
        stack.shutdown(false);
        heap.shutdown(true);
        assert!(stack.empty() && heap.empty());
        assert_eq!(format!("{stack:?}"), "<LifoQueue maxsize=2 items=0 shutdown>");
        assert_eq!(format!("{heap:?}"), "<PriorityQueue maxsize=2 items=0 shutdown>");
        Ok(())
    });
}

#[test]
fn what_a_queue_says_of_itself() {
    let queue = Queue::new(1);
    let mut get = pin!(queue.get());
    assert!(poll_pinned(get.as_mut()).is_pending());
    assert_eq!(format!("{queue:?}"), "<Queue maxsize=1 items=0 getters=1>");
    queue.put_nowait(1).unwrap();
    let (mut put, mut join) = (pin!(queue.put(2)), pin!(queue.join()));
    assert!(poll_pinned(put.as_mut()).is_pending());
    assert!(poll_pinned(join.as_mut()).is_pending());
    assert_eq!(format!("{queue:?}"), "<Queue maxsize=1 items=1 putters=1 tasks=1>");
    assert!(format!("{get:?} {put:?} {join:?}").contains("QueuePut"));
}
