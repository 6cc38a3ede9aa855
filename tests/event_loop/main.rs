//! The loop: running, scheduling, timers.
#[path = "../support/mod.rs"]
mod support;

use support::{Record, tick};

#[test]
fn smoke() {
    let event_loop = support::new_loop();
    let record = Record::default();
    let r = record.clone();
    event_loop.call_soon(move || r.push(1));
    tick(&event_loop);
    assert_eq!(record.take(), [1]);
    support::run(async {
        let task = asyncio::create_task(async {
            asyncio::sleep(std::time::Duration::from_millis(3)).await?;
            Ok(4)
        });
        assert_eq!(task.await?, 4);
        Ok(())
    });
}
