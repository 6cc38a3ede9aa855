//! Groups inside of groups.

use std::time::Duration;

use asyncio::{Result, TaskGroup, create_task, sleep};

use crate::{
    clean_up_for, counted, fail_after, fail_in_clean_up, for_ever, ms, outcome, run, shown, support::Record, this_task,
};

/// TG-008
#[test]
fn a_failure_of_the_outer_group_passes_through_the_inner_one() {
    run(async {
        let seen = Record::default();
        let result = TaskGroup::scope(async |outer| {
            outer.create_task(fail_after(10, "E"));
            let result = TaskGroup::scope(async |inner| {
                inner.create_task(sleep(Duration::from_secs(10)));
                Ok(())
            })
            .await;
            seen.push(shown(&result));
            result
        })
        .await;
        assert_eq!(shown(&result), "[E]", "of the outer one only");
        assert_eq!(seen.take(), ["cancelled"]);
        assert_eq!(this_task().cancelling(), 0);

        let result = TaskGroup::scope(async |outer| {
            outer.create_task(sleep(Duration::from_secs(10)));
            TaskGroup::scope(async |inner| {
                inner.create_task(fail_after(10, "E"));
                Ok(())
            })
            .await
        })
        .await;
        assert_eq!(shown(&result), "[[E]]");
        assert_eq!(this_task().cancelling(), 0);
        sleep(Duration::ZERO).await
    });
}

/// TG-008: while the inner body runs.
#[test]
fn a_failure_of_the_outer_group_passes_through_the_inner_body() {
    let result = outcome(TaskGroup::scope(async |outer| {
        outer.create_task(fail_after(10, "E"));
        TaskGroup::scope(async |inner| {
            inner.create_task(for_ever());
            for_ever().await
        })
        .await
    }));
    assert_eq!(shown(&result), "[E]");
}

/// CPython's `test_taskgroup_11` and `12`.
#[test]
fn errors_of_the_inner_group_come_out_of_the_outer_one() {
    run(async {
        for with_sibling in [false, true] {
            let task = create_task(TaskGroup::scope(async move |outer| {
                if with_sibling {
                    outer.create_task(for_ever());
                }
                TaskGroup::scope(async |inner| {
                    for text in ["A", "B"] {
                        inner.create_task(fail_in_clean_up(text));
                    }
                    for_ever().await
                })
                .await
            }));
            sleep(ms(10)).await?;
            task.cancel();
            assert_eq!(shown(&task.await), "[[A, B]]");
        }
        Ok(())
    });
}

/// CPython's `test_nested_groups_both_cancelled`.
#[test]
fn both_of_two_nested_groups_fail_at_once() {
    run(async {
        let result = TaskGroup::scope(async |outer| {
            let result = TaskGroup::scope(async |inner| {
                inner.create_task(fail_after(0, "inner"));
                outer.create_task(fail_after(0, "outer"));
                Ok(())
            })
            .await;
            assert_eq!(shown(&result), "[inner]");
            assert_eq!(this_task().cancelling(), 1);
            Ok(())
        })
        .await;
        assert_eq!(shown(&result), "[outer]");
        assert_eq!(this_task().cancelling(), 0);
        sleep(Duration::ZERO).await
    });
}

/// As in asyncio: a failed outer group is told again where the errors of the inner one were caught.
#[test]
fn the_outer_failure_is_not_forgotten_because_of_inner_errors() {
    for in_body in [true, false] {
        run(async {
            let result = TaskGroup::scope(async |outer| {
                outer.create_task(fail_after(10, "outer"));
                let result = TaskGroup::scope(async |inner| {
                    inner.create_task(fail_in_clean_up("inner"));
                    if in_body { for_ever().await } else { Ok(()) }
                })
                .await;
                assert_eq!(shown(&result), "[inner]");
                assert_eq!(this_task().cancelling(), 1);
                let slept = sleep(Duration::from_secs(1)).await;
                assert_eq!(shown(&slept), "cancelled");
                slept
            })
            .await;
            assert_eq!(shown(&result), "[outer]");
            assert_eq!(this_task().cancelling(), 0);
            sleep(Duration::ZERO).await
        });
    }
}

/// Five levels, a failure at each: what comes out is nested as the groups are.
#[test]
fn groups_are_nested_as_deep_as_wanted() {
    fn level(depth: u32, fails: u32) -> std::pin::Pin<Box<dyn Future<Output = Result<()>>>> {
        Box::pin(TaskGroup::scope(async move |group| {
            if depth == fails {
                group.create_task(fail_after(10, "E"));
            }
            group.create_task(clean_up_for(1));
            if depth > 0 { level(depth - 1, fails).await } else { Ok(()) }
        }))
    }
    for (fails, expected) in [(0, "[[[[[E]]]]]"), (2, "[[[E]]]"), (4, "[E]")] {
        let (result, turns) = counted(level(4, fails));
        assert_eq!(shown(&result), expected);
        assert!(turns < 60, "{turns}");
    }
}

/// In tasks of tasks: each level waits for the one below.
#[test]
fn groups_in_tasks_of_groups_end_from_the_inside() {
    fn level(depth: u32, ended: Record<u32>) -> std::pin::Pin<Box<dyn Future<Output = Result<()>>>> {
        Box::pin(async move {
            let result = TaskGroup::scope(async |group| {
                if depth > 0 {
                    for _ in 0..2 {
                        group.create_task(level(depth - 1, ended.clone()));
                    }
                    Ok(())
                } else {
                    for_ever().await
                }
            })
            .await;
            ended.push(depth);
            result
        })
    }
    run(async {
        let ended = Record::default();
        let task = create_task(level(3, ended.clone()));
        sleep(ms(10)).await?;
        assert_eq!(asyncio::all_tasks()?.len(), 1 + 15);
        task.cancel_with("ext");
        assert_eq!(shown(&task.await), "cancelled ext");
        let mut ended = ended.take();
        assert_eq!(ended.len(), 15);
        assert_eq!(ended.pop(), Some(3));
        assert!(ended.is_sorted(), "{ended:?}");
        assert_eq!(asyncio::all_tasks()?.len(), 1);
        Ok(())
    });
}

/// A task of the inner group makes one of the outer, and the other way round.
#[test]
fn tasks_can_be_made_across_levels() {
    run(async {
        let record = Record::default();
        let seen = record.clone();
        TaskGroup::scope(async |outer| {
            TaskGroup::scope(async |inner| {
                let (outer, inner2, seen) = (outer.clone(), inner.clone(), seen.clone());
                inner.create_task(async move {
                    let record = seen.clone();
                    outer.create_task(async move {
                        sleep(ms(20)).await?;
                        record.push("outer");
                        Ok(())
                    });
                    inner2.create_task(async move {
                        sleep(ms(10)).await?;
                        seen.push("inner");
                        Ok(())
                    });
                    Ok(())
                });
                Ok(())
            })
            .await?;
            seen.push("between");
            Ok(())
        })
        .await?;
        assert_eq!(record.take(), ["inner", "between", "outer"]);
        Ok(())
    });
}

/// One after the other in one task: nothing of the first is left for the second.
#[test]
fn groups_follow_each_other() {
    run(async {
        for round in 0..20 {
            let result = TaskGroup::scope(async |group| {
                if round % 2 == 0 {
                    group.create_task(fail_after(1, "E"));
                }
                group.create_task(clean_up_for(1)).cancel();
                sleep(ms(2)).await
            })
            .await;
            assert_eq!(shown(&result), if round % 2 == 0 { "[E]" } else { "ok" });
            assert_eq!(this_task().cancelling(), 0);
        }
        Ok(())
    });
}
