//! Three tables: heap bytes of a task that waits, those of a connection that waits, and heap allocations per operation.
//! Counted, not timed: no Criterion.

#[path = "../tests/support/counting.rs"]
mod counting;
mod support;

use std::{
    cell::Cell,
    future::{Future, pending},
    rc::Rc,
    time::Duration,
};

use counting::{Counting, allocations, bytes};
use support::{Group, on_asyncio, on_smol, on_tokio, sockets, tasks, threads, timers, together, transports};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const TASKS: u64 = 10_000;

const BATCH: u64 = 100;

const CONNECTIONS: usize = 1000;

const HOUR: Duration = Duration::from_secs(3600);

fn main() {
    println!("Bytes of an idle task, of {TASKS}: all of it, and beside its coroutine\n");
    println!("| it waits for | asyncio | tokio | smol |\n|---|--:|--:|--:|");
    let never = [idle::asyncio(pending::<()>), idle::tokio(pending::<()>), idle::smol(pending::<()>)];
    print_idle("nothing that comes", never);
    let sleeping = [
        idle::asyncio(async || drop(asyncio::sleep(HOUR).await)),
        idle::tokio(|| tokio::time::sleep(HOUR)),
        idle::smol(async || _ = smol::Timer::after(HOUR).await),
    ];
    print_idle("a sleep", sleeping);

    println!(
        "\nBytes of an idle connection to an echo server, of {CONNECTIONS}; 1 KiB is a buffer where tasks serve\n"
    );
    println!("| asyncio (`Protocol`) | asyncio (streams) | tokio | smol | raw epoll |\n|--:|--:|--:|--:|--:|");
    let [asyncio, streams, tokio, smol, raw] = transports::idle_connections(CONNECTIONS, bytes);
    println!("| {asyncio:.0} | {streams:.0} | {tokio:.0} | {smol:.0} | {raw:.0} |");

    if let [asyncio, tokio] = transports::idle_tls_connections(CONNECTIONS, bytes)[..] {
        println!(
            "\nThe same over TLS\n\n| asyncio (`Protocol`) | tokio-rustls |\n|--:|--:|\n| {asyncio:.0} | {tokio:.0} |"
        );
    }

    println!("\nHeap allocations of the thread, per operation\n");
    println!("| work | asyncio | tokio | smol |\n|---|--:|--:|--:|");
    for group in
        tasks::GROUPS.iter().chain(together::GROUPS).chain(timers::GROUPS).chain(threads::GROUPS).chain(sockets::GROUPS)
    {
        print_allocations(group);
    }
}

/// What a waiting task costs.
struct Idle {
    bytes: f64,
    coroutine: usize,
}

impl Idle {
    fn of<F>(before: i64, _: &F) -> Self {
        Idle { bytes: (bytes() - before) as f64 / TASKS as f64, coroutine: size_of::<F>() }
    }
}

fn print_idle(what: &str, idle: [Idle; 3]) {
    let [asyncio, tokio, smol] =
        idle.map(|Idle { bytes, coroutine }| format!("{bytes:.0} (+{:.0})", bytes - coroutine as f64));
    println!("| {what} | {asyncio} | {tokio} | {smol} |");
}

fn print_allocations(group: &Group) {
    // Two runs, so that what a runtime allocates for itself drops out.
    let per_operation = |peer: &str| {
        let peer = group.peer(peer).expect("all groups have the three");
        let count = |operations| {
            let before = allocations();
            (peer.run)(operations);
            allocations() - before
        };
        let (few, many) = (count(2000), count(4000));
        format!("{:.2}", many.saturating_sub(few) as f64 / 2000.0)
    };
    let [asyncio, tokio, smol] = ["asyncio", "tokio", "smol"].map(per_operation);
    println!("| {} | {asyncio} | {tokio} | {smol} |", group.name);
}

/// Each begins `TASKS` tasks that wait, and lets go of them; a hundred at a time, so that queues stay small.
mod idle {
    use super::*;

    async fn note<F: Future>(begun: Rc<Cell<u64>>, wait: F) {
        begun.set(begun.get() + 1);
        drop(begun);
        drop(wait.await);
    }

    pub(super) fn asyncio<F: Future + 'static>(wait: impl Fn() -> F + 'static) -> Idle {
        on_asyncio(async move {
            let event_loop = asyncio::get_running_loop()?;
            let begun = Rc::new(Cell::new(0));
            let before = bytes();
            let work = async |begun, wait| {
                note(begun, wait).await;
                asyncio::ok(())
            };
            for batch in 1..=TASKS / BATCH {
                for _ in 0..BATCH {
                    drop(event_loop.create_task(work(begun.clone(), wait())));
                }
                while begun.get() < batch * BATCH {
                    asyncio::sleep(Duration::ZERO).await?;
                }
            }
            Ok(Idle::of(before, &work(begun, wait())))
        })
    }

    pub(super) fn tokio<F: Future + 'static>(wait: impl Fn() -> F + 'static) -> Idle {
        on_tokio(async move {
            let begun = Rc::new(Cell::new(0));
            let before = bytes();
            for batch in 1..=TASKS / BATCH {
                for _ in 0..BATCH {
                    drop(tokio::task::spawn_local(note(begun.clone(), wait())));
                }
                while begun.get() < batch * BATCH {
                    tokio::task::yield_now().await;
                }
            }
            Idle::of(before, &note(begun, wait()))
        })
    }

    pub(super) fn smol<F: Future + 'static>(wait: impl Fn() -> F + 'static) -> Idle {
        on_smol(|executor| async move {
            let begun = Rc::new(Cell::new(0));
            let before = bytes();
            for batch in 1..=TASKS / BATCH {
                for _ in 0..BATCH {
                    executor.spawn(note(begun.clone(), wait())).detach();
                }
                while begun.get() < batch * BATCH {
                    smol::future::yield_now().await;
                }
            }
            Idle::of(before, &note(begun, wait()))
        })
    }
}
