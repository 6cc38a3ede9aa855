//! Tasks and callbacks among themselves.

use std::{cell::Cell, hint::black_box, rc::Rc, time::Duration};

use super::{Group, Peer, Stopwatch, batches, on_asyncio, on_smol, on_tokio, scale};

const BATCH: u64 = 1000;

pub(crate) const GROUPS: &[Group] = &[SPAWN_JOIN, YIELD, YIELD_ALONE, CALLBACK, ONESHOT];

pub(crate) const SPAWN_JOIN: Group = Group {
    name: "spawn_join",
    about: "a task is made, runs, and is awaited; 1000 at a time",
    count: 200_000,
    reach: Some((0.45, "tokio")),
    peers: &[
        Peer { name: "asyncio", run: spawn_join::asyncio },
        Peer { name: "tokio", run: spawn_join::tokio },
        Peer { name: "smol", run: spawn_join::smol },
    ],
};

mod spawn_join {
    use super::*;

    pub(super) fn asyncio(count: u64) -> Duration {
        on_asyncio(async move {
            let event_loop = asyncio::get_running_loop()?;
            let mut tasks = Vec::with_capacity(BATCH as usize);
            let stopwatch = Stopwatch::thread();
            for batch in batches(count, BATCH) {
                tasks.extend((0..batch).map(|number| event_loop.create_task(async move { Ok(number) })));
                for task in tasks.drain(..) {
                    black_box(task.await?);
                }
            }
            Ok(stopwatch.elapsed())
        })
    }

    pub(super) fn tokio(count: u64) -> Duration {
        on_tokio(async move {
            let mut tasks = Vec::with_capacity(BATCH as usize);
            let stopwatch = Stopwatch::thread();
            for batch in batches(count, BATCH) {
                tasks.extend((0..batch).map(|number| tokio::task::spawn_local(async move { number })));
                for task in tasks.drain(..) {
                    black_box(task.await.expect("it does not panic"));
                }
            }
            stopwatch.elapsed()
        })
    }

    pub(super) fn smol(count: u64) -> Duration {
        on_smol(move |executor| async move {
            let mut tasks = Vec::with_capacity(BATCH as usize);
            let stopwatch = Stopwatch::thread();
            for batch in batches(count, BATCH) {
                tasks.extend((0..batch).map(|number| executor.spawn(async move { number })));
                for task in tasks.drain(..) {
                    black_box(task.await);
                }
            }
            stopwatch.elapsed()
        })
    }
}

/// How many tasks take turns in `yield`.
const YIELDERS: u64 = 100;

pub(crate) const YIELD: Group = Group {
    name: "yield",
    about: "a hundred tasks take turns: the cost of one turn",
    count: 500_000,
    reach: Some((0.8, "tokio")),
    peers: &[
        Peer { name: "asyncio", run: |count| yields::asyncio(count, YIELDERS) },
        Peer { name: "tokio", run: |count| yields::tokio(count, YIELDERS) },
        Peer { name: "smol", run: |count| yields::smol(count, YIELDERS) },
    ],
};

pub(crate) const YIELD_ALONE: Group = Group {
    name: "yield_alone",
    about: "one task yields, and nothing else is ready",
    count: 500_000,
    reach: Some((0.8, "tokio")),
    peers: &[
        Peer { name: "asyncio", run: |count| yields::asyncio(count, 1) },
        Peer { name: "tokio", run: |count| yields::tokio(count, 1) },
        Peer { name: "smol", run: |count| yields::smol(count, 1) },
    ],
};

mod yields {
    use super::*;

    pub(super) fn asyncio(count: u64, yielders: u64) -> Duration {
        let each = count.div_ceil(yielders);
        let time = on_asyncio(async move {
            let event_loop = asyncio::get_running_loop()?;
            let work = async |each| {
                for _ in 0..each {
                    asyncio::sleep(Duration::ZERO).await?;
                }
                Ok(())
            };
            let stopwatch = Stopwatch::thread();
            let tasks: Vec<_> = (0..yielders).map(|_| event_loop.create_task(work(each))).collect();
            for task in tasks {
                task.await?;
            }
            Ok(stopwatch.elapsed())
        });
        scale(time, each * yielders, count)
    }

    pub(super) fn tokio(count: u64, yielders: u64) -> Duration {
        let each = count.div_ceil(yielders);
        let time = on_tokio(async move {
            let work = async |each| {
                for _ in 0..each {
                    tokio::task::yield_now().await;
                }
            };
            let stopwatch = Stopwatch::thread();
            let tasks: Vec<_> = (0..yielders).map(|_| tokio::task::spawn_local(work(each))).collect();
            for task in tasks {
                task.await.expect("it does not panic");
            }
            stopwatch.elapsed()
        });
        scale(time, each * yielders, count)
    }

    pub(super) fn smol(count: u64, yielders: u64) -> Duration {
        let each = count.div_ceil(yielders);
        let time = on_smol(move |executor| async move {
            let work = async |each| {
                for _ in 0..each {
                    smol::future::yield_now().await;
                }
            };
            let stopwatch = Stopwatch::thread();
            let tasks: Vec<_> = (0..yielders).map(|_| executor.spawn(work(each))).collect();
            for task in tasks {
                task.await;
            }
            stopwatch.elapsed()
        });
        scale(time, each * yielders, count)
    }
}

pub(crate) const CALLBACK: Group = Group {
    name: "callback",
    about: "`call_soon`; a detached task where there are no callbacks; 1000 at a time",
    count: 500_000,
    reach: Some((0.2, "tokio")),
    peers: &[
        Peer { name: "asyncio", run: callback::asyncio },
        Peer { name: "tokio", run: callback::tokio },
        Peer { name: "smol", run: callback::smol },
    ],
};

mod callback {
    use super::*;

    pub(super) fn asyncio(count: u64) -> Duration {
        on_asyncio(async move {
            let event_loop = asyncio::get_running_loop()?;
            let called = Rc::new(Cell::new(0));
            let stopwatch = Stopwatch::thread();
            for batch in batches(count, BATCH) {
                called.set(0);
                for _ in 0..batch {
                    let called = called.clone();
                    event_loop.call_soon(move || called.set(called.get() + 1));
                }
                while called.get() < batch {
                    asyncio::sleep(Duration::ZERO).await?;
                }
            }
            Ok(stopwatch.elapsed())
        })
    }

    pub(super) fn tokio(count: u64) -> Duration {
        on_tokio(async move {
            let called = Rc::new(Cell::new(0));
            let stopwatch = Stopwatch::thread();
            for batch in batches(count, BATCH) {
                called.set(0);
                for _ in 0..batch {
                    let called = called.clone();
                    tokio::task::spawn_local(async move { called.set(called.get() + 1) });
                }
                while called.get() < batch {
                    tokio::task::yield_now().await;
                }
            }
            stopwatch.elapsed()
        })
    }

    pub(super) fn smol(count: u64) -> Duration {
        on_smol(move |executor| async move {
            let called = Rc::new(Cell::new(0));
            let stopwatch = Stopwatch::thread();
            for batch in batches(count, BATCH) {
                called.set(0);
                for _ in 0..batch {
                    let called = called.clone();
                    executor.spawn(async move { called.set(called.get() + 1) }).detach();
                }
                while called.get() < batch {
                    smol::future::yield_now().await;
                }
            }
            stopwatch.elapsed()
        })
    }
}

pub(crate) const ONESHOT: Group = Group {
    name: "oneshot",
    about: "two tasks answer each other: a round trip of two futures, each set by the other task",
    count: 200_000,
    reach: Some((0.8, "tokio")),
    peers: &[
        Peer { name: "asyncio", run: oneshot::asyncio },
        Peer { name: "tokio", run: oneshot::tokio },
        Peer { name: "smol", run: oneshot::smol },
    ],
};

/// A request carries where the reply goes, a reply carries where the next request goes.
mod oneshot {
    use super::*;

    struct ByFuture(asyncio::Future<Option<ByFuture>>);

    pub(super) fn asyncio(count: u64) -> Duration {
        on_asyncio(async move {
            let event_loop = asyncio::get_running_loop()?;
            let server_loop = event_loop.clone();
            let first = event_loop.create_future();
            let mut requests = ByFuture(first.clone());
            let stopwatch = Stopwatch::thread();
            let server = event_loop.create_task(async move {
                let mut request = first;
                while let Some(ByFuture(reply)) = request.await? {
                    request = server_loop.create_future();
                    reply.set_result(Some(ByFuture(request.clone())))?;
                }
                Ok(())
            });
            for _ in 0..count {
                let reply = event_loop.create_future();
                requests.0.set_result(Some(ByFuture(reply.clone())))?;
                requests = reply.await?.expect("the server answers");
            }
            requests.0.set_result(None)?;
            server.await?;
            Ok(stopwatch.elapsed())
        })
    }

    struct ByTokio(tokio::sync::oneshot::Sender<Option<ByTokio>>);

    pub(super) fn tokio(count: u64) -> Duration {
        on_tokio(async move {
            let (sender, mut request) = tokio::sync::oneshot::channel();
            let mut requests = ByTokio(sender);
            let stopwatch = Stopwatch::thread();
            let server = tokio::task::spawn_local(async move {
                while let Ok(Some(ByTokio(reply))) = request.await {
                    let (sender, receiver) = tokio::sync::oneshot::channel();
                    request = receiver;
                    drop(reply.send(Some(ByTokio(sender))));
                }
            });
            for _ in 0..count {
                let (sender, reply) = tokio::sync::oneshot::channel();
                drop(requests.0.send(Some(ByTokio(sender))));
                requests = reply.await.ok().flatten().expect("the server answers");
            }
            drop(requests.0.send(None));
            server.await.expect("it does not panic");
            stopwatch.elapsed()
        })
    }

    struct ByFutures(futures::channel::oneshot::Sender<Option<ByFutures>>);

    pub(super) fn smol(count: u64) -> Duration {
        on_smol(move |executor| async move {
            let (sender, mut request) = futures::channel::oneshot::channel();
            let mut requests = ByFutures(sender);
            let stopwatch = Stopwatch::thread();
            let server = executor.spawn(async move {
                while let Ok(Some(ByFutures(reply))) = request.await {
                    let (sender, receiver) = futures::channel::oneshot::channel();
                    request = receiver;
                    drop(reply.send(Some(ByFutures(sender))));
                }
            });
            for _ in 0..count {
                let (sender, reply) = futures::channel::oneshot::channel();
                drop(requests.0.send(Some(ByFutures(sender))));
                requests = reply.await.ok().flatten().expect("the server answers");
            }
            drop(requests.0.send(None));
            server.await;
            stopwatch.elapsed()
        })
    }
}
