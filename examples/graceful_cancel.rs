//! Ending tasks in good order: they see the cancellation and who asked for it, clean up, and have so long and no longer.
//!
//! Try it: `cargo run --example graceful_cancel`

use std::time::Duration;

use asyncio::{Error, Result, TaskGroup, create_task, shielded, sleep};

const STEP: Duration = Duration::from_millis(5);

/// Works until it is told to stop; then says goodbye, which nothing breaks off.
async fn worker(name: &'static str) -> Result<()> {
    loop {
        match sleep(STEP).await {
            Ok(()) => {}
            Err(Error::Cancelled(reason)) => {
                let by = reason.by.map_or("nobody".to_string(), |by| by.to_string());
                println!("{name}: stopped by {by}, {:?}", reason.message.as_deref().unwrap_or("no reason given"));
                shielded(async {
                    sleep(STEP).await?;
                    println!("{name}: said goodbye");
                    Ok(())
                })
                .await?;
                return Err(Error::Cancelled(reason));
            }
            Err(other) => return Err(other),
        }
    }
}

/// Does not listen.
async fn stubborn() -> Result<()> {
    loop {
        if sleep(STEP).await.is_err() {
            println!("stubborn: I go on");
        }
    }
}

fn main() -> Result<()> {
    asyncio::run(async {
        let one = create_task(worker("one"));
        sleep(STEP * 2).await?;
        one.cancel_with("the user left");
        println!("one ended cancelled: {}", one.await.is_err_and(|error| error.is_cancelled()));

        TaskGroup::scope(async |group| {
            group.create_task(worker("two"));
            group.create_task(stubborn());
            sleep(STEP * 2).await?;
            group.cancel_with_grace(STEP * 4);
            Ok(())
        })
        .await?;
        println!("the group has ended, and all of its tasks");
        Ok(())
    })
}
