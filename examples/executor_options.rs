//! The choices of `run_in_executor`: the loop's own pool, a pool of yours, and any other executor, such as rayon's.
//!
//! Try it: `cargo run --release --example executor_options`
//!
//! Where Python needs a process pool for work that keeps a processor busy, threads do in Rust: there is no interpreter
//! lock that they would share.

use std::{fs::File, io::Read};

use asyncio::{Executor, Job, Result, ThreadPool};

/// Work that waits for the system would block the loop: threads are for that.
fn blocking_io() -> std::io::Result<usize> {
    let mut bytes = [0; 100];
    File::open("/dev/urandom")?.read(&mut bytes)
}

/// Work that keeps a processor busy blocks the loop as well.
fn cpu_bound() -> u64 {
    (0..10_000_000_u64).map(|number| number * number).fold(0, u64::wrapping_add)
}

/// An executor is whatever runs a job elsewhere: here a pool of rayon's.
struct Rayon(rayon::ThreadPool);

impl Executor for Rayon {
    fn submit(&self, job: Job) -> Result<()> {
        self.0.spawn(job);
        Ok(())
    }
}

fn main() -> Result<()> {
    asyncio::run(async {
        let event_loop = asyncio::get_running_loop()?;

        // 1. In the loop's default executor.
        let count = event_loop.run_in_executor(None, blocking_io).await??;
        println!("default thread pool: {count} bytes");

        // 2. In a thread pool of our own.
        let pool = ThreadPool::new(2);
        let count = event_loop.run_in_executor(Some(&pool), blocking_io).await??;
        println!("custom thread pool: {count} bytes");

        // 3. In a pool for processor work.
        let rayon = rayon::ThreadPoolBuilder::new().num_threads(2).build().map_err(asyncio::Error::other)?;
        let sum = event_loop.run_in_executor(Some(&Rayon(rayon)), cpu_bound).await?;
        println!("rayon's pool: {sum}");

        // Any of them can become the one that `None` means.
        event_loop.set_default_executor(pool)?;
        let sum = event_loop.run_in_executor(None, cpu_bound).await?;
        println!("new default executor: {sum}");
        Ok(())
    })
}
