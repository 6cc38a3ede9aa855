//! Schedules whose course CPython 3.13 was asked for: who goes on in which iteration, and with what.
//!
//! `recorded.txt` has two lines for each: what is done, and what CPython's asyncio then did. A schedule is the object, its
//! number, and its steps, between which one iteration passes. A task's entry is `iteration:task=outcome`; after each step
//! comes what the object says of itself.
//!
//! | step | what |
//! |---|---|
//! | `a0` | task 0 acquires and keeps, waits, or passes the barrier |
//! | `c0` | cancels task 0 |
//! | `r` `s` `u` `x` `b` | release, set, clear, reset, abort |
//! | `n0.1.2` | task 0 notifies one under the lock, which it keeps for two iterations more |
//! | `g0` `p0.5` `j0` | task 0 gets, puts 5, joins |
//! | `G` `P5` `d` `h1` | get_nowait, put_nowait, task_done, shutdown at once |
use std::{cell::Cell, collections::HashMap, fmt::Display, future::Future, rc::Rc};

use asyncio::{
    Barrier, BoundedSemaphore, Condition, Event, LifoQueue, Lock, PriorityQueue, Queue, QueueOrder, Result, Semaphore,
    Task, create_task,
};

use crate::{
    support::{Record, deadline, new_loop},
    turns,
};

/// What happens in a schedule, and when.
#[derive(Clone, Default)]
struct Course {
    iteration: Rc<Cell<usize>>,
    entries: Record<String>,
}

impl Course {
    fn note<T: Display>(&self, name: &str, outcome: &Result<T>) {
        let iteration = self.iteration.get();
        self.entries.push(match outcome {
            Ok(value) => format!("{iteration}:{name}={value}"),
            Err(error) => format!("{iteration}:{name}={:?}", error.kind()),
        });
    }
}

/// The tasks of a schedule, by their numbers.
struct Tasks {
    course: Course,
    tasks: HashMap<String, Task<()>>,
}

impl Tasks {
    fn start<T: Display>(&mut self, name: &str, work: impl Future<Output = Result<T>> + 'static) {
        let (course, own_name) = (self.course.clone(), name.to_owned());
        let task = create_task(async move {
            let outcome = work.await;
            course.note(&own_name, &outcome);
            match outcome {
                Err(error) if error.is_cancelled() => Err(error),
                _ => Ok(()),
            }
        });
        self.tasks.insert(name.to_owned(), task);
    }
}

/// One kind of object under a schedule.
trait Subject: Clone + 'static {
    /// Does one step.
    async fn act(&self, letter: &str, arguments: &[&str], tasks: &mut Tasks) -> Result<()>;
    fn state(&self) -> Option<String>;
}

fn python(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

/// What a call that gives nothing gives in Python.
fn none<T>(outcome: Result<T>) -> Result<&'static str> {
    outcome.map(|_| "None")
}

async fn run_schedule(subject: impl Subject, steps: &str) -> Result<String> {
    let course = Course::default();
    let mut tasks = Tasks { course: course.clone(), tasks: HashMap::new() };
    for step in steps.split(';') {
        for action in step.split(',').filter(|action| !action.is_empty()) {
            let (letter, rest) = action.split_at(1);
            if letter == "c" {
                tasks.tasks[rest].cancel();
            } else {
                subject.act(letter, &rest.split('.').collect::<Vec<_>>(), &mut tasks).await?;
            }
        }
        subject.state().into_iter().for_each(|state| course.entries.push(state));
        course.iteration.set(course.iteration.get() + 1);
        turns(1).await?;
    }
    for _ in 0..4 {
        course.iteration.set(course.iteration.get() + 1);
        turns(1).await?;
    }
    let entries = course.entries.take().join(" ");
    for task in tasks.tasks.values() {
        task.cancel();
    }
    while tasks.tasks.values().any(|task| !task.done()) {
        turns(1).await?;
    }
    Ok(entries)
}

#[test]
fn every_schedule_goes_as_it_went_in_cpython() {
    let _deadline = deadline();
    let lines: Vec<&str> = include_str!("recorded.txt").lines().collect();
    for schedule in lines.chunks(2) {
        let mut words = schedule[0].splitn(3, ' ');
        let mut next = || words.next().expect("object, number, steps");
        let (kind, number, steps) = (next(), next().parse().unwrap(), next());
        let event_loop = new_loop();
        let went = event_loop.run_until_complete(async {
            match kind {
                "lock" => run_schedule(Lock::new(), steps).await,
                "sem" => run_schedule(Semaphore::new(number), steps).await,
                "bsem" => run_schedule(BoundedSemaphore::new(number + 1), steps).await,
                "event" => run_schedule(Event::new(), steps).await,
                "cond" => run_schedule(Condition::new(), steps).await,
                "barrier" => run_schedule(Barrier::new(number + 1)?, steps).await,
                "queue" => run_schedule(Queue::new(number), steps).await,
                "lifo" => run_schedule((*LifoQueue::new(number)).clone(), steps).await,
                "prio" => run_schedule((*PriorityQueue::new(number)).clone(), steps).await,
                _ => unreachable!("{kind}"),
            }
        });
        assert_eq!(went.unwrap(), schedule[1], "{}", schedule[0]);
    }
    assert!(lines.len() > 400);
}

impl Subject for Lock {
    async fn act(&self, letter: &str, arguments: &[&str], tasks: &mut Tasks) -> Result<()> {
        let lock = self.clone();
        match letter {
            "a" => tasks.start(arguments[0], async move { none(lock.acquire().await.map(|guard| guard.forget())) }),
            _ => tasks.course.note("r", &self.release().map(|()| python(self.locked()))),
        }
        Ok(())
    }

    fn state(&self) -> Option<String> {
        Some(format!("l{}", python(self.locked())))
    }
}

impl Subject for Semaphore {
    async fn act(&self, letter: &str, arguments: &[&str], tasks: &mut Tasks) -> Result<()> {
        let semaphore = self.clone();
        match letter {
            "a" => {
                tasks.start(arguments[0], async move { none(semaphore.acquire().await.map(|permit| permit.forget())) });
            }
            _ => {
                self.release();
                tasks.course.note("r", &Ok(python(self.locked())));
            }
        }
        Ok(())
    }

    fn state(&self) -> Option<String> {
        Some(format!("l{}", python(self.locked())))
    }
}

impl Subject for BoundedSemaphore {
    async fn act(&self, letter: &str, arguments: &[&str], tasks: &mut Tasks) -> Result<()> {
        let semaphore = self.clone();
        match letter {
            "a" => {
                tasks.start(arguments[0], async move { none(semaphore.acquire().await.map(|permit| permit.forget())) });
            }
            _ => tasks.course.note("r", &self.release().map(|()| python(self.locked()))),
        }
        Ok(())
    }

    fn state(&self) -> Option<String> {
        Some(format!("l{}", python(self.locked())))
    }
}

impl Subject for Event {
    async fn act(&self, letter: &str, arguments: &[&str], tasks: &mut Tasks) -> Result<()> {
        let event = self.clone();
        match letter {
            "a" => tasks.start(arguments[0], async move { none(event.wait().await) }),
            "s" => self.set(),
            _ => self.clear(),
        }
        Ok(())
    }

    fn state(&self) -> Option<String> {
        None
    }
}

impl Subject for Condition {
    async fn act(&self, letter: &str, arguments: &[&str], tasks: &mut Tasks) -> Result<()> {
        let (condition, course) = (self.clone(), tasks.course.clone());
        if letter == "a" {
            tasks.start(arguments[0], async move {
                let _guard = condition.acquire().await?;
                condition.wait().await?;
                course.entries.push(format!("{}:back", course.iteration.get()));
                none(turns(1).await)
            });
        } else {
            let (count, keeps) = (arguments[1].parse().unwrap(), arguments[2].parse().unwrap());
            tasks.start(arguments[0], async move {
                let _guard = condition.acquire().await?;
                condition.notify(count)?;
                none(turns(keeps).await)
            });
        }
        Ok(())
    }

    fn state(&self) -> Option<String> {
        Some(format!("l{}", python(self.locked())))
    }
}

impl Subject for Barrier {
    async fn act(&self, letter: &str, arguments: &[&str], tasks: &mut Tasks) -> Result<()> {
        let barrier = self.clone();
        match letter {
            "a" => tasks.start(arguments[0], async move { barrier.wait().await }),
            "x" => self.reset().await?,
            _ => self.abort().await?,
        }
        Ok(())
    }

    fn state(&self) -> Option<String> {
        Some(format!("b{}{}", self.n_waiting(), python(self.broken())))
    }
}

impl<O: QueueOrder<u8> + 'static> Subject for Queue<u8, O> {
    async fn act(&self, letter: &str, arguments: &[&str], tasks: &mut Tasks) -> Result<()> {
        let queue = self.clone();
        let course = &tasks.course;
        match (letter, arguments) {
            ("g", [task]) => tasks.start(task, async move { queue.get().await }),
            ("p", [task, item]) => {
                let item = item.parse().unwrap();
                tasks.start(task, async move { none(queue.put(item).await) });
            }
            ("j", [task]) => tasks.start(task, async move { none(queue.join().await) }),
            ("G", _) => course.note("G", &self.get_nowait()),
            ("P", [item]) => course.note("P", &none(self.put_nowait(item.parse().unwrap()))),
            ("d", _) => course.note("d", &none(self.task_done())),
            _ => self.shutdown(arguments == ["1"]),
        }
        Ok(())
    }

    fn state(&self) -> Option<String> {
        Some(format!("q{}", self.qsize()))
    }
}
