//! Structured concurrency: tasks that end together, all their errors in one, and a group with a deadline.
//!
//! Try it: `cargo run --example task_group`

use std::time::Duration;

use asyncio::{Error, ErrorKind, Result, TaskGroup, gather, sleep};

async fn fetch(name: &'static str, millis: u64) -> Result<String> {
    sleep(Duration::from_millis(millis)).await?;
    match name {
        "down" => Err(Error::other("no such host")),
        _ => Ok(format!("{name} after {millis} ms")),
    }
}

async fn all_goes_well() -> Result<()> {
    let names = ["a", "b", "c"];
    let mut lines = Vec::new();
    TaskGroup::scope(async |group| {
        // The block may borrow from where it stands; the tasks own what they work on.
        let tasks = names.map(|name| group.create_task(fetch(name, 10)));
        for task in tasks {
            lines.push(task.await?);
        }
        Ok(())
    })
    .await?;
    println!("a group: {lines:?}");

    let (first, second) = gather((fetch("x", 5), fetch("y", 1))).await?;
    println!("gathered: {first}, {second}");
    Ok(())
}

async fn one_fails() {
    let outcome: Result<()> = TaskGroup::scope(async |group| {
        group.create_task(fetch("down", 5));
        group.create_task(async {
            let answer = fetch("slow", 3_600_000).await;
            println!("the other one is cancelled: {}", answer.is_err_and(|error| error.is_cancelled()));
            Ok(())
        });
        sleep(Duration::from_secs(3600)).await // so is the block
    })
    .await;
    let error = outcome.expect_err("one task fails");
    println!("the group fails: {error:#}");
    let (other, rest) = error.group().expect("it is a group").split(|error| error.kind() == ErrorKind::Other);
    println!("errors of ours: {}, others: {}", other.map_or(0, |group| group.leaves().count()), rest.is_some());
}

async fn a_deadline() {
    let outcome: Result<()> = TaskGroup::builder()
        .timeout(Duration::from_millis(10))
        .scope(async |group| {
            group.create_task(fetch("slow", 3_600_000));
            Ok(())
        })
        .await;
    println!("a group with a deadline: {:?}", outcome.map_err(|error| error.kind()));
}

fn main() -> Result<()> {
    asyncio::run(async {
        all_goes_well().await?;
        one_fails().await;
        a_deadline().await;
        Ok(())
    })
}
