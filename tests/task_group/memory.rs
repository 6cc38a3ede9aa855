//! A group that lives long does not grow, and groups that are over leave nothing.

use std::{cell::Cell, rc::Rc, time::Duration};

use asyncio::{Result, TaskGroup, sleep};

use crate::{
    clean_up_for,
    counting::{Counting, bytes},
    fail_after, for_ever, ms, run, shown,
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// 100,000 short tasks, never more than a hundred at once.
#[test]
fn a_long_lived_group_does_not_grow() {
    run(TaskGroup::scope(async |group| {
        let count = Rc::new(Cell::new(0));
        let mut before = 0;
        for round in 0..1000 {
            for _ in 0..100 {
                let count = count.clone();
                group.create_task(async move {
                    count.set(count.get() + 1);
                    Ok(())
                });
            }
            sleep(Duration::ZERO).await?;
            sleep(Duration::ZERO).await?;
            if round == 10 {
                before = bytes();
            }
        }
        assert_eq!(count.get(), 100_000);
        let grown = bytes() - before;
        assert!(grown < 1000, "{grown} bytes more");
        Ok(())
    }));
}

/// Groups of every fate: entered and left, failed, cancelled, dropped, with deadlines and graces.
#[test]
fn groups_that_are_over_leave_nothing() {
    async fn round() -> Result<()> {
        TaskGroup::scope(async |group| {
            group.create_task(sleep(ms(1)));
            Ok(())
        })
        .await?;
        let builder = TaskGroup::builder().timeout(ms(100)).grace(ms(10));
        let failed = builder
            .clone()
            .scope(async |group| {
                group.create_task(fail_after(1, "E"));
                group.create_task(clean_up_for(50));
                for_ever().await
            })
            .await;
        assert_eq!(shown(&failed), "[E]");
        let late = builder.clone().scope(async |_| for_ever().await).await;
        assert_eq!(shown(&late), "timed out");
        builder
            .scope(async |group| {
                group.create_task(for_ever());
                group.cancel_with_grace(ms(50));
                Ok(())
            })
            .await?;
        let dropped = std::pin::pin!(TaskGroup::builder().timeout(ms(100)).scope(async |group| {
            group.create_task(for_ever());
            group.create_task(sleep(ms(1)));
            for_ever().await
        }));
        let _ = futures::future::select(dropped, sleep(ms(5))).await;
        sleep(ms(1)).await
    }
    run(async {
        let mut before = 0;
        for number in 0..1000 {
            round().await?;
            if number == 20 {
                before = bytes();
            }
        }
        let grown = bytes() - before;
        assert!(grown < 1000, "{grown} bytes more");
        Ok(())
    });
}
