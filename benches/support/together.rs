//! Tasks put together, locks and queues.

use std::{hint::black_box, rc::Rc, time::Duration};

use asyncio::{Event, Lock, Queue, Semaphore, TaskGroup};
use futures::future::join_all;
use tokio::{
    sync::{Mutex, Notify, mpsc},
    task::{JoinSet, yield_now},
};

use super::{Group, Peer, Stopwatch, batches, on_asyncio, on_smol, on_tokio, scale};

const BATCH: u64 = 1000;
const REACH: Option<(f64, &str)> = Some((0.8, "tokio"));

pub(crate) const GROUPS: &[Group] = &[TASK_GROUP, GATHER, LOCK, SEMAPHORE, EVENT, QUEUE, QUEUE_BURST, TIMEOUT];

pub(crate) const TASK_GROUP: Group = Group {
    name: "task_group",
    about: "a task in a group of 1000, from its making to the group's end (tokio: JoinSet)",
    count: 200_000,
    reach: REACH,
    peers: &[
        Peer { name: "asyncio", run: task_group::asyncio },
        Peer { name: "tokio", run: task_group::tokio },
        Peer { name: "smol", run: task_group::smol },
    ],
};

mod task_group {
    use super::*;

    pub(super) fn asyncio(count: u64) -> Duration {
        on_asyncio(async move {
            let stopwatch = Stopwatch::thread();
            for batch in batches(count, BATCH) {
                TaskGroup::scope(async |group| {
                    for number in 0..batch {
                        group.create_task(async move { Ok(number) });
                    }
                    Ok(())
                })
                .await?;
            }
            Ok(stopwatch.elapsed())
        })
    }

    pub(super) fn tokio(count: u64) -> Duration {
        on_tokio(async move {
            let stopwatch = Stopwatch::thread();
            for batch in batches(count, BATCH) {
                let mut set = JoinSet::new();
                for number in 0..batch {
                    set.spawn_local(async move { number });
                }
                while let Some(result) = set.join_next().await {
                    black_box(result.expect("it does not panic"));
                }
            }
            stopwatch.elapsed()
        })
    }

    /// It has no group: a vector of tasks.
    pub(super) fn smol(count: u64) -> Duration {
        on_smol(move |executor| async move {
            let stopwatch = Stopwatch::thread();
            for batch in batches(count, BATCH) {
                let tasks: Vec<_> = (0..batch).map(|number| executor.spawn(async move { number })).collect();
                for task in tasks {
                    black_box(task.await);
                }
            }
            stopwatch.elapsed()
        })
    }
}

pub(crate) const GATHER: Group = Group {
    name: "gather",
    about: "one of 1000 coroutines that are gathered (theirs: join_all of spawned tasks)",
    count: 200_000,
    reach: REACH,
    peers: &[
        Peer { name: "asyncio", run: gather::asyncio },
        Peer { name: "tokio", run: gather::tokio },
        Peer { name: "smol", run: gather::smol },
    ],
};

mod gather {
    use super::*;

    pub(super) fn asyncio(count: u64) -> Duration {
        on_asyncio(async move {
            let stopwatch = Stopwatch::thread();
            for batch in batches(count, BATCH) {
                let coroutines: Vec<_> = (0..batch).map(|number| async move { Ok(number) }).collect();
                black_box(asyncio::gather(coroutines).await?);
            }
            Ok(stopwatch.elapsed())
        })
    }

    pub(super) fn tokio(count: u64) -> Duration {
        on_tokio(async move {
            let stopwatch = Stopwatch::thread();
            for batch in batches(count, BATCH) {
                black_box(join_all((0..batch).map(|number| tokio::task::spawn_local(async move { number }))).await);
            }
            stopwatch.elapsed()
        })
    }

    pub(super) fn smol(count: u64) -> Duration {
        on_smol(move |executor| async move {
            let stopwatch = Stopwatch::thread();
            for batch in batches(count, BATCH) {
                black_box(join_all((0..batch).map(|number| executor.spawn(async move { number }))).await);
            }
            stopwatch.elapsed()
        })
    }
}

/// How many tasks want one lock.
const RIVALS: u64 = 100;

pub(crate) const LOCK: Group = Group {
    name: "lock",
    about: "a hundred tasks want a lock that is held over one yield: one turn of one",
    count: 200_000,
    reach: REACH,
    peers: &[
        Peer { name: "asyncio", run: lock::asyncio },
        Peer { name: "tokio", run: lock::tokio },
        Peer { name: "smol", run: lock::smol },
    ],
};

mod lock {
    use super::*;

    pub(super) fn asyncio(count: u64) -> Duration {
        let each = count.div_ceil(RIVALS);
        let time = on_asyncio(async move {
            let lock = Lock::new();
            let stopwatch = Stopwatch::thread();
            let rival = |lock: Lock| async move {
                for _ in 0..each {
                    let _guard = lock.acquire().await?;
                    asyncio::sleep(Duration::ZERO).await?;
                }
                Ok(())
            };
            let tasks: Vec<_> = (0..RIVALS).map(|_| asyncio::create_task(rival(lock.clone()))).collect();
            for task in tasks {
                task.await?;
            }
            Ok(stopwatch.elapsed())
        });
        scale(time, each * RIVALS, count)
    }

    pub(super) fn tokio(count: u64) -> Duration {
        let each = count.div_ceil(RIVALS);
        let time = on_tokio(async move {
            let lock = Rc::new(Mutex::new(()));
            let stopwatch = Stopwatch::thread();
            let rival = |lock: Rc<Mutex<()>>| async move {
                for _ in 0..each {
                    let _guard = lock.lock().await;
                    yield_now().await;
                }
            };
            let tasks: Vec<_> = (0..RIVALS).map(|_| tokio::task::spawn_local(rival(lock.clone()))).collect();
            for task in tasks {
                task.await.expect("it does not panic");
            }
            stopwatch.elapsed()
        });
        scale(time, each * RIVALS, count)
    }

    pub(super) fn smol(count: u64) -> Duration {
        let each = count.div_ceil(RIVALS);
        let time = on_smol(move |executor| async move {
            let lock = Rc::new(smol::lock::Mutex::new(()));
            let stopwatch = Stopwatch::thread();
            let rival = |lock: Rc<smol::lock::Mutex<()>>| async move {
                for _ in 0..each {
                    let _guard = lock.lock().await;
                    smol::future::yield_now().await;
                }
            };
            let tasks: Vec<_> = (0..RIVALS).map(|_| executor.spawn(rival(lock.clone()))).collect();
            for task in tasks {
                task.await;
            }
            stopwatch.elapsed()
        });
        scale(time, each * RIVALS, count)
    }
}

pub(crate) const SEMAPHORE: Group = Group {
    name: "semaphore",
    about: "a hundred tasks want one of ten permits that are held over one yield: one turn of one",
    count: 200_000,
    reach: REACH,
    peers: &[
        Peer { name: "asyncio", run: semaphore::asyncio },
        Peer { name: "tokio", run: semaphore::tokio },
        Peer { name: "smol", run: semaphore::smol },
    ],
};

mod semaphore {
    use super::*;

    const PERMITS: usize = 10;

    pub(super) fn asyncio(count: u64) -> Duration {
        let each = count.div_ceil(RIVALS);
        let time = on_asyncio(async move {
            let semaphore = Semaphore::new(PERMITS);
            let stopwatch = Stopwatch::thread();
            let rival = |semaphore: Semaphore| async move {
                for _ in 0..each {
                    let _permit = semaphore.acquire().await?;
                    asyncio::sleep(Duration::ZERO).await?;
                }
                Ok(())
            };
            let tasks: Vec<_> = (0..RIVALS).map(|_| asyncio::create_task(rival(semaphore.clone()))).collect();
            for task in tasks {
                task.await?;
            }
            Ok(stopwatch.elapsed())
        });
        scale(time, each * RIVALS, count)
    }

    pub(super) fn tokio(count: u64) -> Duration {
        let each = count.div_ceil(RIVALS);
        let time = on_tokio(async move {
            let semaphore = Rc::new(tokio::sync::Semaphore::new(PERMITS));
            let stopwatch = Stopwatch::thread();
            let rival = |semaphore: Rc<tokio::sync::Semaphore>| async move {
                for _ in 0..each {
                    let _permit = semaphore.acquire().await.expect("it is not closed");
                    yield_now().await;
                }
            };
            let tasks: Vec<_> = (0..RIVALS).map(|_| tokio::task::spawn_local(rival(semaphore.clone()))).collect();
            for task in tasks {
                task.await.expect("it does not panic");
            }
            stopwatch.elapsed()
        });
        scale(time, each * RIVALS, count)
    }

    pub(super) fn smol(count: u64) -> Duration {
        let each = count.div_ceil(RIVALS);
        let time = on_smol(move |executor| async move {
            let semaphore = Rc::new(smol::lock::Semaphore::new(PERMITS));
            let stopwatch = Stopwatch::thread();
            let rival = |semaphore: Rc<smol::lock::Semaphore>| async move {
                for _ in 0..each {
                    let _permit = semaphore.acquire().await;
                    smol::future::yield_now().await;
                }
            };
            let tasks: Vec<_> = (0..RIVALS).map(|_| executor.spawn(rival(semaphore.clone()))).collect();
            for task in tasks {
                task.await;
            }
            stopwatch.elapsed()
        });
        scale(time, each * RIVALS, count)
    }
}

pub(crate) const EVENT: Group = Group {
    name: "event",
    about: "two tasks wake each other through an event each, a round (theirs: Notify, event-listener)",
    count: 200_000,
    reach: REACH,
    peers: &[
        Peer { name: "asyncio", run: event::asyncio },
        Peer { name: "tokio", run: event::tokio },
        Peer { name: "smol", run: event::smol },
    ],
};

mod event {
    use super::*;

    pub(super) fn asyncio(count: u64) -> Duration {
        on_asyncio(async move {
            let (ping, pong) = (Event::new(), Event::new());
            let (asked, answer) = (ping.clone(), pong.clone());
            let other = asyncio::create_task(async move {
                for _ in 0..count {
                    asked.wait().await?;
                    asked.clear();
                    answer.set();
                }
                Ok(())
            });
            let stopwatch = Stopwatch::thread();
            for _ in 0..count {
                ping.set();
                pong.wait().await?;
                pong.clear();
            }
            let elapsed = stopwatch.elapsed();
            other.await?;
            Ok(elapsed)
        })
    }

    pub(super) fn tokio(count: u64) -> Duration {
        on_tokio(async move {
            let (ping, pong) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
            let (asked, answer) = (ping.clone(), pong.clone());
            let other = tokio::task::spawn_local(async move {
                for _ in 0..count {
                    asked.notified().await;
                    answer.notify_one();
                }
            });
            let stopwatch = Stopwatch::thread();
            for _ in 0..count {
                ping.notify_one();
                pong.notified().await;
            }
            let elapsed = stopwatch.elapsed();
            other.await.expect("it does not panic");
            elapsed
        })
    }

    pub(super) fn smol(count: u64) -> Duration {
        use event_listener::Event;
        on_smol(move |executor| async move {
            let (ping, pong) = (Rc::new(Event::new()), Rc::new(Event::new()));
            let (asked, answer) = (ping.clone(), pong.clone());
            let mut listener = asked.listen();
            let other = executor.spawn(async move {
                for _ in 0..count {
                    let next = asked.listen();
                    std::mem::replace(&mut listener, next).await;
                    answer.notify(1);
                }
            });
            let stopwatch = Stopwatch::thread();
            for _ in 0..count {
                let listener = pong.listen();
                ping.notify(1);
                listener.await;
            }
            let elapsed = stopwatch.elapsed();
            other.await;
            elapsed
        })
    }
}

pub(crate) const QUEUE: Group = Group {
    name: "queue",
    about: "two tasks ask each other through a queue each, a round (tokio: mpsc)",
    count: 200_000,
    reach: REACH,
    peers: &[
        Peer { name: "asyncio", run: queue::asyncio },
        Peer { name: "tokio", run: queue::tokio },
        Peer { name: "smol", run: queue::smol },
    ],
};

mod queue {
    use super::*;

    pub(super) fn asyncio(count: u64) -> Duration {
        on_asyncio(async move {
            let (questions, answers) = (Queue::new(1), Queue::new(1));
            let (asked, answered) = (questions.clone(), answers.clone());
            let other = asyncio::create_task(async move {
                for _ in 0..count {
                    let question: u64 = asked.get().await?;
                    answered.put(question + 1).await?;
                }
                Ok(())
            });
            let stopwatch = Stopwatch::thread();
            for number in 0..count {
                questions.put(number).await?;
                black_box(answers.get().await?);
            }
            let elapsed = stopwatch.elapsed();
            other.await?;
            Ok(elapsed)
        })
    }

    pub(super) fn tokio(count: u64) -> Duration {
        on_tokio(async move {
            let (questions, mut asked) = mpsc::channel::<u64>(1);
            let (answered, mut answers) = mpsc::channel(1);
            let other = tokio::task::spawn_local(async move {
                for _ in 0..count {
                    let question = asked.recv().await.expect("it is open");
                    answered.send(question + 1).await.expect("it is open");
                }
            });
            let stopwatch = Stopwatch::thread();
            for number in 0..count {
                questions.send(number).await.expect("it is open");
                black_box(answers.recv().await);
            }
            let elapsed = stopwatch.elapsed();
            other.await.expect("it does not panic");
            elapsed
        })
    }

    pub(super) fn smol(count: u64) -> Duration {
        on_smol(move |executor| async move {
            let (questions, asked) = async_channel::bounded::<u64>(1);
            let (answered, answers) = async_channel::bounded(1);
            let other = executor.spawn(async move {
                for _ in 0..count {
                    let question = asked.recv().await.expect("it is open");
                    answered.send(question + 1).await.expect("it is open");
                }
            });
            let stopwatch = Stopwatch::thread();
            for number in 0..count {
                questions.send(number).await.expect("it is open");
                black_box(answers.recv().await.expect("it is open"));
            }
            let elapsed = stopwatch.elapsed();
            other.await;
            elapsed
        })
    }
}

pub(crate) const QUEUE_BURST: Group = Group {
    name: "queue_burst",
    about: "one task fills a queue with room for 1000, another empties it: one item (tokio: mpsc)",
    count: 1_000_000,
    reach: REACH,
    peers: &[
        Peer { name: "asyncio", run: queue_burst::asyncio },
        Peer { name: "tokio", run: queue_burst::tokio },
        Peer { name: "smol", run: queue_burst::smol },
    ],
};

mod queue_burst {
    use super::*;

    pub(super) fn asyncio(count: u64) -> Duration {
        on_asyncio(async move {
            let queue = Queue::new(BATCH as usize);
            let items = queue.clone();
            let stopwatch = Stopwatch::thread();
            let producer = asyncio::create_task(async move {
                for number in 0..count {
                    queue.put(number).await?;
                }
                Ok(())
            });
            for _ in 0..count {
                black_box(items.get().await?);
            }
            let elapsed = stopwatch.elapsed();
            producer.await?;
            Ok(elapsed)
        })
    }

    pub(super) fn tokio(count: u64) -> Duration {
        on_tokio(async move {
            let (queue, mut items) = mpsc::channel(BATCH as usize);
            let stopwatch = Stopwatch::thread();
            let producer = tokio::task::spawn_local(async move {
                for number in 0..count {
                    queue.send(number).await.expect("it is open");
                }
            });
            for _ in 0..count {
                black_box(items.recv().await);
            }
            let elapsed = stopwatch.elapsed();
            producer.await.expect("it does not panic");
            elapsed
        })
    }

    pub(super) fn smol(count: u64) -> Duration {
        on_smol(move |executor| async move {
            let (queue, items) = async_channel::bounded(BATCH as usize);
            let stopwatch = Stopwatch::thread();
            let producer = executor.spawn(async move {
                for number in 0..count {
                    queue.send(number).await.expect("it is open");
                }
            });
            for _ in 0..count {
                black_box(items.recv().await.expect("it is open"));
            }
            let elapsed = stopwatch.elapsed();
            producer.await;
            elapsed
        })
    }
}

pub(crate) const TIMEOUT: Group = Group {
    name: "timeout",
    about: "a timeout that does not fire, around one yield",
    count: 500_000,
    reach: REACH,
    peers: &[
        Peer { name: "asyncio", run: timeout::asyncio },
        Peer { name: "tokio", run: timeout::tokio },
        Peer { name: "smol", run: timeout::smol },
    ],
};

mod timeout {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    pub(super) fn asyncio(count: u64) -> Duration {
        on_asyncio(async move {
            let stopwatch = Stopwatch::thread();
            for _ in 0..count {
                asyncio::timeout(LONG, asyncio::sleep(Duration::ZERO)).await?;
            }
            Ok(stopwatch.elapsed())
        })
    }

    pub(super) fn tokio(count: u64) -> Duration {
        on_tokio(async move {
            let stopwatch = Stopwatch::thread();
            for _ in 0..count {
                tokio::time::timeout(LONG, yield_now()).await.expect("it is in time");
            }
            stopwatch.elapsed()
        })
    }

    pub(super) fn smol(count: u64) -> Duration {
        use smol::future::FutureExt as _;
        on_smol(move |_| async move {
            let stopwatch = Stopwatch::thread();
            for _ in 0..count {
                let late = async {
                    smol::Timer::after(LONG).await;
                    panic!("it is in time");
                };
                smol::future::yield_now().or(late).await;
            }
            stopwatch.elapsed()
        })
    }
}
