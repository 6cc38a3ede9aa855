//! Random schedules against a plain model: tasks, cancellations, drops and timeouts, on the virtual clock.
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    fmt::Debug,
    future::Future,
    pin::pin,
    rc::Rc,
};

use asyncio::{
    Condition, Error, LifoQueue, Lock, PriorityQueue, Queue, QueueOrder, Result, Semaphore, Task, create_task, sleep,
};
use futures::future::{Either, select};

use crate::{
    MS, SECOND,
    support::{deadline, virtual_loop},
    turns,
};

const SCHEDULES: u64 = 1000;

/// A small generator; clones are one.
#[derive(Clone)]
struct Random(Rc<Cell<u64>>);

impl Random {
    fn below(&self, bound: u64) -> u64 {
        // splitmix64
        self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mut mixed = self.0.get();
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn one_in(&self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// Nothing, an iteration or more, some milliseconds.
    async fn pause(&self) -> Result<()> {
        match self.below(4) {
            0 => Ok(()),
            1 => turns(self.below(3) as usize).await,
            _ => sleep(MS * self.below(4) as u32).await,
        }
    }

    /// Waits for `future`, now and then for a short time only; `None` if it was dropped then.
    async fn perhaps_in_time<T>(&self, future: impl Future<Output = Result<T>>) -> Option<Result<T>> {
        if !self.one_in(3) {
            return Some(future.await);
        }
        match select(pin!(future), pin!(sleep(MS * self.below(4) as u32))).await {
            Either::Left((outcome, _)) => Some(outcome),
            Either::Right((Err(error), _)) => Some(Err(error)),
            Either::Right((Ok(()), _)) => None,
        }
    }
}

/// Says which schedule failed.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}", self.0);
        }
    }
}

/// Runs `body` under many schedules; none may take an hour of virtual time.
fn schedules(body: impl AsyncFn(Random) -> Result<()>) {
    let _deadline = deadline();
    for seed in 0..SCHEDULES {
        let _seed = Seed(seed);
        let (event_loop, _) = virtual_loop();
        let random = Random(Rc::new(Cell::new(seed)));
        let outcome = event_loop.run_until_complete(async {
            match select(pin!(body(random)), pin!(sleep(3600 * SECOND))).await {
                Either::Left((outcome, _)) => outcome,
                Either::Right(_) => panic!("somebody waits for ever"),
            }
        });
        outcome.unwrap();
        assert_eq!(event_loop.all_tasks(), []);
    }
}

/// Cancels some of the tasks at some moments, and waits for all. None may fail otherwise.
async fn harass<T: Debug + 'static>(random: &Random, tasks: Vec<Task<T>>, mut check: impl FnMut()) -> Result<()> {
    for _ in 0..random.below(6) {
        random.pause().await?;
        for _ in 0..random.below(3) {
            tasks[random.below(tasks.len() as u64) as usize].cancel();
        }
        if random.one_in(2) {
            // The time stands still meanwhile: whoever can go on does.
            turns(60).await?;
            check();
        }
    }
    for task in tasks {
        if let Err(error) = task.await {
            assert!(error.is_cancelled(), "{error:?}");
        }
    }
    Ok(())
}

/// Who stands in the line, as it should be.
#[derive(Clone, Default)]
struct Expected(Rc<RefCell<VecDeque<u64>>>, Rc<Cell<u64>>);

/// One in the line; leaves when it is dropped.
struct Standing(Expected, u64);

impl Expected {
    fn join(&self) -> Standing {
        self.1.set(self.1.get() + 1);
        self.0.borrow_mut().push_back(self.1.get());
        Standing(self.clone(), self.1.get())
    }
}

impl Standing {
    fn position(&self) -> usize {
        self.0.0.borrow().iter().position(|number| *number == self.1).expect("it stands there")
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        let position = self.position();
        self.0.0.borrow_mut().remove(position);
    }
}

/// `future`, in the expected line from its first poll to its end; gives the position that it had at the end.
async fn in_line<T>(expected: &Expected, future: impl Future<Output = Result<T>>) -> Result<(T, usize)> {
    let standing = expected.join();
    let value = future.await?;
    Ok((value, standing.position()))
}

fn waiters(of: &impl Debug) -> usize {
    let text = format!("{of:?}");
    text.split_once("waiters=").map_or(0, |(_, count)| count.trim_end_matches('>').parse().unwrap())
}

#[test]
fn locks_are_taken_by_one_at_a_time_in_order() {
    schedules(async |random| {
        let (lock, expected, held) = (Lock::new(), Expected::default(), Rc::new(Cell::new(false)));
        let tasks = (0..2 + random.below(5)).map(|_| {
            let (random, lock, expected, held) = (random.clone(), lock.clone(), expected.clone(), held.clone());
            create_task(async move {
                for _ in 0..1 + random.below(4) {
                    random.pause().await?;
                    let acquire = random.perhaps_in_time(in_line(&expected, lock.acquire())).await;
                    let Some((guard, position)) = acquire.transpose()? else { continue };
                    assert_eq!(position, 0, "it was another one's turn");
                    assert!(!held.replace(true), "two hold the lock");
                    let paused = random.pause().await;
                    held.set(false);
                    if random.one_in(3) {
                        guard.forget();
                        lock.release()?;
                    }
                    paused?;
                }
                Ok(())
            })
        });
        let tasks: Vec<_> = tasks.collect();
        let idle = || assert!(held.get() || waiters(&lock) == 0, "nobody holds {lock:?}");
        harass(&random, tasks, idle).await?;
        assert_eq!(format!("{lock:?}"), "<Lock unlocked>");
        assert!(lock.try_acquire().is_some());
        Ok(())
    });
}

#[test]
fn permits_are_never_lost_and_never_doubled() {
    schedules(async |random| {
        let permits = 1 + random.below(3) as usize;
        let timeouts = random.one_in(2);
        let (semaphore, expected, held) = (Semaphore::new(permits), Expected::default(), Rc::new(Cell::new(0)));
        let tasks = (0..2 + random.below(6)).map(|_| {
            let (random, semaphore) = (random.clone(), semaphore.clone());
            let (expected, held) = (expected.clone(), held.clone());
            create_task(async move {
                for _ in 0..1 + random.below(4) {
                    random.pause().await?;
                    let acquire = in_line(&expected, semaphore.acquire());
                    let (permit, position) = if timeouts {
                        let Some(acquired) = random.perhaps_in_time(acquire).await.transpose()? else { continue };
                        acquired
                    } else {
                        acquire.await?
                    };
                    // Several may have a permit and not know it yet; a timer may let a later one know first.
                    assert!(position == 0 || timeouts && position < permits, "it was another one's turn");
                    held.set(held.get() + 1);
                    assert!(held.get() <= permits);
                    let paused = random.pause().await;
                    held.set(held.get() - 1);
                    if random.one_in(3) {
                        permit.forget();
                        semaphore.release();
                    }
                    paused?;
                }
                Ok(())
            })
        });
        let tasks: Vec<_> = tasks.collect();
        let idle = || assert!(held.get() == permits || waiters(&semaphore) == 0, "permits are free: {semaphore:?}");
        harass(&random, tasks, idle).await?;
        assert_eq!(format!("{semaphore:?}"), format!("<Semaphore unlocked value={permits}>"));
        Ok(())
    });
}

#[test]
fn notifications_are_never_lost() {
    schedules(async |random| {
        let condition = Condition::new();
        let (stock, held) = (Rc::new(Cell::new(0_u64)), Rc::new(Cell::new(false)));
        let consumers = 1 + random.below(5);
        let produced = Rc::new(Cell::new(0));
        let (taken, alive) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0_usize)));
        let consume = |mortal: bool| {
            let (random, condition, stock) = (random.clone(), condition.clone(), stock.clone());
            let (held, taken, alive) = (held.clone(), taken.clone(), alive.clone());
            create_task(async move {
                let take = async {
                    let _guard = condition.acquire().await?;
                    while stock.get() == 0 {
                        assert!(!held.get());
                        alive.set(alive.get() + 1);
                        let _left = Countdown(alive.clone());
                        condition.wait().await?;
                        assert!(condition.locked());
                    }
                    assert!(!held.replace(true), "two hold the lock");
                    let _held = Clear(held.clone());
                    // At once: who was told and then takes nothing would have to tell another one.
                    stock.set(stock.get() - 1);
                    taken.set(taken.get() + 1);
                    random.pause().await
                };
                random.pause().await?;
                if mortal { random.perhaps_in_time(take).await.unwrap_or(Ok(())) } else { take.await }
            })
        };
        let mortals: Vec<_> = (0..consumers).map(|_| consume(true)).collect();
        let immortals: Vec<_> = (0..1 + random.below(3)).map(|_| consume(false)).collect();
        let total = mortals.len() + immortals.len();
        let producer = {
            let (random, condition, stock) = (random.clone(), condition.clone(), stock.clone());
            let (held, produced) = (held.clone(), produced.clone());
            create_task(async move {
                while produced.get() < total {
                    random.pause().await?;
                    let _guard = condition.acquire().await?;
                    assert!(!held.replace(true), "two hold the lock");
                    let _held = Clear(held.clone());
                    let count = (1 + random.below(2) as usize).min(total - produced.get());
                    stock.set(stock.get() + count as u64);
                    produced.set(produced.get() + count);
                    if random.one_in(4) {
                        condition.notify_all()?;
                    } else {
                        condition.notify(count)?;
                    }
                    random.pause().await?;
                }
                Ok(())
            })
        };
        let idle = || {
            let stuck = stock.get() > 0 && !condition.locked() && alive.get() > 0;
            assert!(!stuck, "{} wait while there is stock: {condition:?}", alive.get());
        };
        harass(&random, mortals, idle).await?;
        producer.await?;
        for immortal in immortals {
            immortal.await?;
        }
        assert_eq!(taken.get() + stock.get() as usize, produced.get());
        assert_eq!(format!("{condition:?}"), "<Condition unlocked>");
        Ok(())
    });
}

struct Clear(Rc<Cell<bool>>);

impl Drop for Clear {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

struct Countdown(Rc<Cell<usize>>);

impl Drop for Countdown {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

type Item = (u64, u64);

/// What should be in the queue; `next` is the one that it should give.
struct Contents {
    items: Vec<Item>,
    next: fn(&[Item]) -> usize,
}

/// Producers and consumers over a queue, whose contents are compared at each step.
async fn queue_schedule<O>(random: Random, queue: Queue<Item, O>, next: fn(&[Item]) -> usize) -> Result<()>
where
    O: QueueOrder<Item> + 'static,
{
    let contents = Rc::new(RefCell::new(Contents { items: Vec::new(), next }));
    let made = Rc::new(Cell::new(0));
    let produce = |_| {
        let (random, queue, contents, made) = (random.clone(), queue.clone(), contents.clone(), made.clone());
        create_task(async move {
            for _ in 0..1 + random.below(5) {
                random.pause().await?;
                made.set(made.get() + 1);
                let item = (random.below(4), made.get());
                let put = match random.below(4) {
                    0 => match queue.put_nowait(item) {
                        Err(Error::QueueFull) => None,
                        put => Some(put),
                    },
                    _ => random.perhaps_in_time(queue.put(item)).await,
                };
                if put.transpose()?.is_some() {
                    contents.borrow_mut().items.push(item);
                    assert!(queue.maxsize() == 0 || queue.qsize() <= queue.maxsize());
                }
            }
            Ok(())
        })
    };
    let consume = |_| {
        let (random, queue, contents) = (random.clone(), queue.clone(), contents.clone());
        create_task(async move {
            loop {
                random.pause().await?;
                let got = match random.perhaps_in_time(queue.get()).await {
                    None => continue,
                    Some(Err(Error::QueueShutDown)) => return Ok(()),
                    Some(got) => got?,
                };
                let contents = &mut *contents.borrow_mut();
                let index = (contents.next)(&contents.items);
                assert_eq!(contents.items.remove(index), got, "not the next item");
                assert_eq!(contents.items.len(), queue.qsize());
                queue.task_done()?;
            }
        })
    };
    let producers: Vec<_> = (0..1 + random.below(4)).map(produce).collect();
    let mortals: Vec<_> = (0..random.below(4)).map(consume).collect();
    let immortal = consume(0);
    let mut harassed: Vec<_> = producers;
    let ends_early = mortals.len();
    harassed.extend(mortals);
    let idle = || {
        let text = format!("{queue:?}");
        assert!(queue.empty() || !text.contains("getters="), "{text}");
        assert!(queue.full() || !text.contains("putters="), "{text}");
    };
    // The consumers end with the queue, the producers by themselves.
    let consumers = harassed.split_off(harassed.len() - ends_early);
    harass(&random, harassed, idle).await?;
    queue.join().await?;
    assert!(queue.empty() && contents.borrow().items.is_empty());
    let end = queue.clone();
    let ender = create_task(async move {
        turns(3).await?;
        end.shutdown(false);
        Ok(())
    });
    if !consumers.is_empty() {
        harass(&random, consumers, idle).await?;
    }
    ender.await?;
    immortal.await?;
    assert!(format!("{queue:?}").ends_with(" items=0 shutdown>"), "{queue:?}");
    Ok(())
}

#[test]
fn a_queue_gives_each_item_once_in_order() {
    schedules(async |random| {
        let queue = Queue::new(random.below(4) as usize);
        queue_schedule(random, queue, |_| 0).await
    });
}

#[test]
fn a_lifo_queue_gives_each_item_once_in_order() {
    schedules(async |random| {
        let queue = LifoQueue::new(random.below(4) as usize);
        queue_schedule(random, (*queue).clone(), |items| items.len() - 1).await
    });
}

#[test]
fn a_priority_queue_gives_each_item_once_in_order() {
    schedules(async |random| {
        let queue = PriorityQueue::new(random.below(4) as usize);
        let smallest = |items: &[Item]| (0..items.len()).min_by_key(|index| items[*index]).expect("it is not empty");
        queue_schedule(random, (*queue).clone(), smallest).await
    });
}
