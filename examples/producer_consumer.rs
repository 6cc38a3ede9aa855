//! Producers and consumers around a queue of limited size: who is too fast waits, and nothing is left undone.
//!
//! Try it: `cargo run --example producer_consumer`

use std::time::Duration;

use asyncio::{Error, Queue, Result, create_task, sleep};

const MS: Duration = Duration::from_millis(1);

/// Puts three orders in, and waits while the queue is full.
async fn produce(name: &str, queue: Queue<String>) -> Result<()> {
    for number in 1..=3 {
        queue.put(format!("{name}{number}")).await?;
        println!("{name} has ordered {number}, {} in the queue", queue.qsize());
    }
    Ok(())
}

/// Works on orders until there will be none any more; gives how many there were.
async fn consume(name: &str, queue: Queue<String>) -> Result<u32> {
    let mut count = 0;
    loop {
        let order = match queue.get().await {
            Err(Error::QueueShutDown) => return Ok(count),
            order => order?,
        };
        sleep(20 * MS).await?;
        println!("        {name} has made {order}");
        count += 1;
        queue.task_done()?;
    }
}

fn main() -> Result<()> {
    asyncio::run(async {
        let queue = Queue::new(2);
        let consumers = ["x", "y"].map(|name| create_task(consume(name, queue.clone())));
        let producers = ["a", "b", "c"].map(|name| create_task(produce(name, queue.clone())));
        for producer in producers {
            producer.await?;
        }
        // All orders are in the queue: wait until they are made, and let the consumers go.
        queue.join().await?;
        queue.shutdown(false);
        for consumer in consumers {
            println!("made: {}", consumer.await?);
        }
        Ok(())
    })
}
