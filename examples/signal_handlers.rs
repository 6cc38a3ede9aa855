//! Handlers for SIGINT and SIGTERM with `add_signal_handler`: whichever comes first ends the program.
//!
//! Try it: `cargo run --example signal_handlers`, then press Ctrl-C; with `-- --demo` it sends itself a SIGTERM.
//!
//! asyncio's page stops the loop in the handler, and `asyncio.run` then fails because its main coroutine has not ended.
//! Here the handler completes a future that main awaits, so that the program ends well.

use std::{process, time::Duration};

use asyncio::{Result, Signal};

async fn main_coroutine(demo: bool) -> Result<()> {
    let event_loop = asyncio::get_running_loop()?;
    let asked = event_loop.create_future();
    for (name, signal) in [("SIGINT", Signal::Int), ("SIGTERM", Signal::Term)] {
        let asked = asked.clone();
        event_loop.add_signal_handler(signal, move || {
            println!("got signal {name}: exit");
            // The second signal finds it done already.
            let _ = asked.set_result(());
        })?;
    }
    if demo {
        event_loop.call_later(Duration::from_millis(100), || {
            let kill = format!("kill -s TERM {}", process::id());
            process::Command::new("sh").args(["-c", &kill]).status().expect("there is a shell");
        });
    }
    asked.await
}

fn main() -> Result<()> {
    println!("Event loop running, press Ctrl-C to interrupt.");
    println!("pid {}: send SIGINT or SIGTERM to exit.", process::id());
    asyncio::run(main_coroutine(std::env::args().any(|argument| argument == "--demo")))
}
