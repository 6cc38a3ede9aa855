//! Blocking work in the loop's default executor, in a pool of threads and in a pool of processes.
//!
//! Try it: `cargo run --release --features process-pool --example three_executors`
//!
//! asyncio's page has the same program. Here work that keeps a processor busy may as well go to threads, which share no
//! interpreter lock; processes are for functions that might crash, leak, or must be stopped by force.

use std::{fs::File, io::Read};

use asyncio::{ProcessPool, Result, ThreadPool};

/// Work that waits for the system would block the loop: it goes to a thread.
fn blocking_io() -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; 100];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Work that keeps a processor busy would block the loop as well.
fn cpu_bound(limit: u64) -> u64 {
    (0..limit).map(|number| number * number).fold(0, u64::wrapping_add)
}

async fn main_coroutine() -> Result<()> {
    let event_loop = asyncio::get_running_loop()?;

    // 1. Run in the loop's default executor:
    let result = event_loop.run_in_executor(None, blocking_io).await??;
    println!("default thread pool {result:02x?}");

    // 2. Run in a custom thread pool:
    let pool = ThreadPool::new(4);
    let result = event_loop.run_in_executor(Some(&pool), blocking_io).await??;
    println!("custom thread pool {result:02x?}");

    // 3. Run in a custom process pool: a function and its arguments, for a closure cannot cross to another process.
    let pool = ProcessPool::new(None)?;
    let result = event_loop.run_in_executor(Some(&pool), pool.job(cpu_bound, 10_000_000)).await??;
    println!("custom process pool {result}");
    Ok(())
}

fn main() -> Result<()> {
    // The processes of the pool are this program, started again; in them this call does not return.
    ProcessPool::init();
    asyncio::run(main_coroutine())
}
