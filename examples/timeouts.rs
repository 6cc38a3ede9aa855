//! Time limits: around a future, around a block, moved while it runs, and kept from what must not be cut off.
//!
//! Try it: `cargo run --example timeouts`

use std::time::Duration;

use asyncio::{Error, Result, Timeout, create_task, get_running_loop, shield, sleep, timeout, wait_for};

const SHORT: Duration = Duration::from_millis(5);
const LONG: Duration = Duration::from_secs(3600);

/// Sees that its time is over and cleans up: the timeout waits for that.
async fn careful() -> Result<()> {
    let slept = sleep(LONG).await;
    if slept.is_err() {
        println!("  cleaning up, which may await");
        sleep(SHORT).await?;
    }
    slept
}

fn main() -> Result<()> {
    asyncio::run(async {
        println!("around a future:");
        match timeout(SHORT, careful()).await {
            Err(Error::Timeout(text)) => println!("  {text}"),
            other => other?,
        }

        println!("a task is cancelled when the wait for it is over:");
        let mut task = create_task(careful());
        println!(
            "  {:?}, cancelled: {}",
            wait_for(&mut task, SHORT).await.map_err(|error| error.kind()),
            task.cancelled()
        );

        println!("unless it is shielded:");
        let save = create_task(async {
            sleep(SHORT * 3).await?;
            Ok("  saved all the same")
        })
        .shared();
        println!("  {:?}", timeout(SHORT, shield(save.clone())).await.map_err(|error| error.kind()));
        println!("{}", save.await?);

        println!("a limit that moves with the work:");
        let event_loop = get_running_loop()?;
        let idle = Timeout::new(SHORT * 4);
        let outcome = idle
            .scope(async |idle| {
                for step in 0..3 {
                    sleep(SHORT * 2).await?;
                    println!("  step {step}: some time more");
                    idle.reschedule(event_loop.time() + SHORT * 4)?;
                }
                sleep(LONG).await
            })
            .await;
        println!("  {:?}, expired: {}", outcome.map_err(|error| error.kind()), idle.expired());
        Ok(())
    })
}
