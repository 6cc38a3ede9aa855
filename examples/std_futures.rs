//! Futures and combinators of other crates under our tasks, and our awaitables under theirs.
//!
//! Try it: `cargo run --example std_futures`

use std::time::Duration;

use asyncio::{Result, cancellable, create_task, sleep};
use futures::{
    StreamExt,
    future::{Either, join, select},
    stream::FuturesUnordered,
};

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn main() -> Result<()> {
    asyncio::run(async {
        // A channel of another crate, filled by a thread that knows nothing of the loop.
        let (sender, receiver) = async_channel::bounded(2);
        let thread = std::thread::spawn(move || (1..=5).all(|number| sender.send_blocking(number).is_ok()));
        let adder = create_task(async move {
            let mut sum = 0;
            while let Ok(number) = receiver.recv().await {
                sum += number;
            }
            Ok(sum)
        });
        println!("sum over async-channel: {}", adder.await?);
        assert!(thread.join().expect("it does not panic"));

        // Combinators of the futures crate over sleeps and tasks.
        let (slept, answer) = join(sleep(millis(5)), create_task(async { Ok(42) })).await;
        slept?;
        println!("join: {}", answer?);

        match select(sleep(millis(5)), sleep(millis(5000))).await {
            Either::Left((slept, _)) => println!("select: the short sleep, {slept:?}"),
            Either::Right(_) => println!("select: the long sleep"),
        }

        let mut sleeps: FuturesUnordered<_> =
            [30, 10, 20].into_iter().map(|count| async move { sleep(millis(count)).await.map(|()| count) }).collect();
        while let Some(count) = sleeps.next().await {
            println!("FuturesUnordered: {} ms", count?);
        }

        // A foreign future has no room for a cancellation. `cancellable` makes some, so that the task can clean up.
        let waiter = create_task(async {
            match cancellable(std::future::pending::<()>()).await {
                Err(error) if error.is_cancelled() => Ok("cancelled, cleaned up"),
                _ => Ok("never"),
            }
        });
        sleep(Duration::ZERO).await?;
        waiter.cancel();
        println!("cancellable: {}", waiter.await?);
        Ok(())
    })
}
