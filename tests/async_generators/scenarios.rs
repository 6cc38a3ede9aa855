//! Random programs: whatever happens to generators, each body that begins comes to its own end.

use std::{cell::Cell, rc::Rc, time::Duration};

use asyncio::{AsyncGenerator, Task, async_generator, create_task, get_running_loop, sleep, timeout};
use futures::{FutureExt, StreamExt, future};

use crate::support::{deadline, handler, logs, virtual_loop};

/// xorshift64: the same program for the same seed.
#[derive(Clone)]
struct Random(Rc<Cell<u64>>);

impl Random {
    fn below(&self, end: u64) -> u64 {
        let mut x = self.0.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.set(x);
        x % end
    }

    fn pause(&self) -> Duration {
        Duration::from_millis(self.below(4))
    }
}

#[derive(Clone, Default)]
struct Counts {
    begun: Rc<Cell<u32>>,
    /// Those that returned, be it with an error.
    returned: Rc<Cell<u32>>,
    dropped: Rc<Cell<u32>>,
}

struct Body(Counts);

impl Drop for Body {
    fn drop(&mut self) {
        self.0.dropped.set(self.0.dropped.get() + 1);
    }
}

fn numbers(random: &Random, counts: &Counts, depth: u32) -> AsyncGenerator<u64> {
    let (random, counts) = (random.clone(), counts.clone());
    async_generator(async move |numbers| {
        counts.begun.set(counts.begun.get() + 1);
        let _body = Body(counts.clone());
        let work = async {
            for number in 0..random.below(6) {
                match random.below(4) {
                    0 => numbers.send(number).await?,
                    1 => sleep(random.pause()).await?,
                    2 => {
                        let pause = random.pause();
                        create_task(async move { sleep(pause).await }).await?;
                    }
                    _ if depth > 0 => {
                        let mut inner = self::numbers(&random, &counts, depth - 1);
                        while let Some(number) = inner.next().await {
                            numbers.send(number?).await?;
                        }
                    }
                    _ => numbers.send(number).await?,
                }
            }
            Ok(())
        };
        let mut outcome = work.await;
        // The clean-up, which goes on if it is cancelled once more, but does not keep that to itself.
        for _ in 0..random.below(3) {
            outcome = sleep(random.pause()).await.and(outcome);
        }
        counts.returned.set(counts.returned.get() + 1);
        outcome
    })
}

fn consumer(random: &Random, counts: &Counts) -> Task<()> {
    let (random, mut numbers) = (random.clone(), numbers(random, counts, 2));
    create_task(async move {
        for _ in 0..random.below(12) {
            match random.below(8) {
                0 => drop(numbers.next().now_or_never()),
                1 => {
                    let (next, pause) = (numbers.next(), sleep(random.pause()));
                    drop(future::select(next, pause).await);
                }
                2 => {
                    let next = numbers.next().map(Option::transpose);
                    let _ = timeout(random.pause(), next).await;
                }
                3 if random.below(3) == 0 => drop(timeout(random.pause(), numbers.aclose()).await),
                4 if random.below(3) == 0 => drop(numbers.aclose().now_or_never()),
                _ => drop(numbers.next().await),
            }
        }
        if random.below(2) == 0 {
            numbers.aclose().await?;
        }
        Ok(())
    })
}

#[test]
fn every_body_that_begins_comes_to_its_own_end() {
    let _deadline = deadline();
    let mut begun = 0;
    for seed in 1..=500 {
        let random = Random(Rc::new(Cell::new(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed))));
        let counts = Counts::default();
        let (event_loop, _) = virtual_loop();
        let reports = handler(&event_loop);
        // Those that begin after a shutdown have a warning.
        let (result, _) = logs(|| {
            event_loop.run_until_complete(async {
                let mut tasks: Vec<Task<()>> = Vec::new();
                for _ in 0..20 {
                    match random.below(8) {
                        0..=2 => tasks.push(consumer(&random, &counts)),
                        3 | 4 if !tasks.is_empty() => {
                            let index = usize::try_from(random.below(tasks.len() as u64)).expect("small");
                            tasks[index].cancel();
                        }
                        5 => tasks.push(create_task(get_running_loop()?.shutdown_asyncgens())),
                        6 => get_running_loop()?.shutdown_asyncgens().await?,
                        _ => sleep(random.pause()).await?,
                    }
                }
                for task in tasks {
                    let _ = task.await;
                }
                get_running_loop()?.shutdown_asyncgens().await?;
                // Tasks of the loop that wait for others who close.
                sleep(Duration::from_millis(20)).await
            })
        });
        result.unwrap();
        assert_eq!(counts.begun.get(), counts.dropped.get(), "seed {seed}: a body is left");
        assert_eq!(counts.begun.get(), counts.returned.get(), "seed {seed}: a body was dropped on its way");
        assert_eq!(event_loop.all_tasks(), [], "seed {seed}");
        event_loop.close().unwrap();
        assert_eq!(reports.len(), 0, "seed {seed}: {:?}", reports.take());
        begun += counts.begun.get();
    }
    assert!(begun > 3000, "{begun}");
}
