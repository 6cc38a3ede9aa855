//! Blocking work in threads with `to_thread`, while the loop goes on and context variables go along.
//!
//! Try it: `cargo run --example blocking_to_thread`

use std::{thread, time::Duration};

use asyncio::{ContextVar, Result, create_task, sleep, to_thread};

static REQUEST: ContextVar<u32> = ContextVar::new("request");

/// Something that knows nothing of event loops.
fn blocking_lookup() -> Result<String> {
    thread::sleep(Duration::from_millis(100));
    Ok(format!("request {} served in a thread of the pool", REQUEST.get()?))
}

async fn handle(number: u32) -> Result<String> {
    REQUEST.set(number);
    to_thread(blocking_lookup).await
}

/// Shows that nothing blocks the loop, until it is cancelled.
async fn tick() -> Result<()> {
    loop {
        sleep(Duration::from_millis(25)).await?;
        println!("the loop is free");
    }
}

fn main() -> Result<()> {
    asyncio::run(async {
        let ticker = create_task(tick());
        let requests: Vec<_> = (1..=3).map(|number| create_task(handle(number))).collect();
        for request in requests {
            println!("{}", request.await?);
        }

        // What fails in the thread fails here.
        let failed: Result<()> = to_thread(|| Ok(std::fs::remove_file("no such file")?)).await;
        println!("error from a thread: {}", failed.expect_err("there is no such file"));

        ticker.cancel();
        Ok(())
    })
}
