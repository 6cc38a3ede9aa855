//! A program with a main loop of its own, such as a game's or a window's, that drives the event loop with `run_once`.
//!
//! Try it: `cargo run --example embedding`
//!
//! Where the host waits for descriptors too, it waits for `event_loop.as_fd()` to be readable or for
//! `event_loop.next_deadline()`, and then calls `run_once(Duration::ZERO)`: nothing runs when there is nothing to do.

use std::{
    thread,
    time::{Duration, Instant},
};

use asyncio::Result;

const FRAME: Duration = Duration::from_millis(16);

fn main() -> Result<()> {
    let event_loop = asyncio::new_event_loop()?;

    let remote = event_loop.threadsafe();
    let task = event_loop.create_task(async move {
        for step in 1..=3 {
            asyncio::sleep(Duration::from_millis(40)).await?;
            println!("  coroutine: step {step}");
        }
        let loaded = asyncio::to_thread(|| {
            thread::sleep(Duration::from_millis(30));
            Ok("a level, loaded in a thread")
        });
        loaded.await
    });

    // The host's loop: draw, then give the rest of the frame to the event loop.
    let mut frame = 0;
    while !task.done() {
        let next = Instant::now() + FRAME;
        frame += 1;
        if frame == 3 {
            // Another thread can wake the loop in the middle of a frame.
            let remote = remote.clone();
            thread::spawn(move || remote.call_soon_threadsafe(|| println!("  callback from another thread")));
        }
        let mut ran = 0;
        loop {
            let left = next.saturating_duration_since(Instant::now());
            ran += event_loop.run_once(left)?;
            if left.is_zero() {
                break;
            }
        }
        println!("frame {frame}: {ran} callbacks and steps");
    }
    println!("result: {}", task.result()?);
    event_loop.close()
}
