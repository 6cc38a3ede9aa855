//! A coroutine that waits between two words.
//!
//! Try it: `cargo run --example hello`

use std::time::Duration;

async fn say_after(delay: Duration, what: &str) -> asyncio::Result<()> {
    asyncio::sleep(delay).await?;
    println!("{what}");
    Ok(())
}

fn main() -> asyncio::Result<()> {
    asyncio::run(async {
        say_after(Duration::ZERO, "Hello").await?;
        say_after(Duration::from_millis(500), "World").await
    })
}
