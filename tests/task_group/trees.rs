//! A thousand random trees of groups, gathers, limits, shields, failures and cancellations on the virtual clock.
//!
//! Whatever happens: a scope that has ended has no tasks; its errors are those that its tasks and its body let out, in
//! order; one that was dropped reports them; nobody spins; nothing is left.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::Future as StdFuture,
    pin::Pin,
    rc::Rc,
    time::Duration,
};

use asyncio::{AnyTask, Error, EventLoop, Result, Task, TaskGroup, gather, shield, shielded, sleep, timeout};
use futures::future::Either;

use crate::{
    ms, show, shown,
    support::{self, handler, virtual_loop},
    this_task, value,
};

type Node = Pin<Box<dyn StdFuture<Output = Result<()>>>>;

/// What the nodes of a tree share.
struct Tree {
    state: Cell<u64>,
    /// Whether tasks are cancelled by others than their groups.
    cancels: bool,
    /// Whether a task polls several nodes at once: then the scopes of one count as cancelled for the other.
    joins: bool,
    /// What may fail does one time in so many.
    calm: u64,
    event_loop: EventLoop,
    turn: Cell<usize>,
    /// How much there was to do: what the number of iterations is measured by.
    work: Cell<usize>,
    last_error: Cell<u32>,
    /// The text of the panic that is under way.
    panic: RefCell<String>,
    tasks: RefCell<Vec<AnyTask>>,
    /// Scopes that were dropped before their end.
    dropped: RefCell<Vec<Rc<Scope>>>,
    /// Errors that nobody has to tell of, as those of a gather that was dropped.
    optional: RefCell<Vec<Error>>,
    problems: RefCell<Vec<String>>,
    /// How the scopes ended.
    fates: RefCell<BTreeMap<&'static str, usize>>,
}

/// A group, as it is known from outside.
#[derive(Default)]
struct Scope {
    live: Cell<usize>,
    /// What its tasks let out, in order.
    errors: RefCell<Vec<Error>>,
    /// The iteration in which it was dropped.
    dropped: Cell<Option<usize>>,
}

impl Tree {
    /// SplitMix64.
    fn next(&self) -> u64 {
        let state = self.state.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.state.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn pick(&self, count: u64) -> u64 {
        self.next() % count
    }

    fn one_in(&self, count: u64) -> bool {
        self.pick(count) == 0
    }

    fn delay(&self) -> Duration {
        ms(self.pick(6) * self.pick(6))
    }

    fn works(&self) {
        self.work.set(self.work.get() + 1);
    }

    fn sleep(&self) -> asyncio::Sleep {
        self.works();
        sleep(self.delay())
    }

    fn error_text(&self) -> String {
        self.last_error.set(self.last_error.get() + 1);
        format!("e{}", self.last_error.get())
    }

    fn check(&self, holds: bool, problem: impl FnOnce() -> String) {
        if !holds {
            self.problems.borrow_mut().push(problem());
        }
    }

    fn panics(&self) -> ! {
        let text = self.error_text();
        self.panic.replace(text.clone());
        // As `panic!`, without the hook that prints it.
        std::panic::resume_unwind(Box::new(text))
    }
}

/// Notes the error or the panic that a coroutine ends with.
struct Noted<'a> {
    tree: &'a Tree,
    errors: &'a RefCell<Vec<Error>>,
}

impl Noted<'_> {
    fn note<T>(&self, outcome: &Result<T>) {
        if let Err(error) = outcome {
            if !error.is_cancelled() {
                self.errors.borrow_mut().push(error.clone());
            }
        }
    }
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.errors.borrow_mut().push(Error::Panicked(self.tree.panic.borrow().as_str().into()));
        }
    }
}

/// Counts a task of a scope as long as its coroutine exists.
struct Live(Rc<Tree>, Rc<Scope>);

impl Live {
    fn new(tree: &Rc<Tree>, scope: &Rc<Scope>) -> Self {
        scope.live.set(scope.live.get() + 1);
        Live(tree.clone(), scope.clone())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.1.live.set(self.1.live.get() - 1);
        if let Some(dropped) = self.1.dropped.get() {
            let late = self.0.turn.get() - dropped;
            self.0.check(late <= 2, || format!("a task outlived its scope by {late} iterations"));
        }
    }
}

/// A scope under way.
struct Entered {
    tree: Rc<Tree>,
    scope: Rc<Scope>,
    ended: bool,
}

impl Drop for Entered {
    fn drop(&mut self) {
        if !self.ended {
            self.scope.dropped.set(Some(self.tree.turn.get()));
            self.tree.dropped.borrow_mut().push(self.scope.clone());
            *self.tree.fates.borrow_mut().entry("dropped").or_default() += 1;
        }
    }
}

/// Something that ends by itself, how deep it may be.
fn node(tree: Rc<Tree>, depth: u32) -> Node {
    tree.works();
    let kinds = if depth == 0 { 10 } else { 24 };
    match tree.pick(kinds) {
        0 => Box::pin(async { Ok(()) }),
        1 | 2 => Box::pin(async move { tree.sleep().await }),
        3 => Box::pin(async move {
            tree.sleep().await?;
            if tree.one_in(tree.calm) { Err(value(&tree.error_text())) } else { Ok(()) }
        }),
        4 => Box::pin(async move {
            tree.sleep().await?;
            if tree.one_in(2 * tree.calm) { tree.panics() } else { Ok(()) }
        }),
        5 => Box::pin(async move {
            for _ in 0..tree.pick(4) {
                let _ = tree.sleep().await; // does not listen
            }
            Ok(())
        }),
        6 => Box::pin(async move {
            let outcome = tree.sleep().await;
            tree.sleep().await?; // a clean-up
            outcome
        }),
        7 => Box::pin(async move {
            match tree.sleep().await {
                Err(_) if tree.one_in(tree.calm) => Err(value(&tree.error_text())),
                outcome => outcome,
            }
        }),
        8 => Box::pin(async move {
            // Only a foreign future: nobody takes a cancellation here.
            let limit = tree.delay();
            tree.works();
            match timeout(limit, async {
                std::future::pending::<()>().await;
                Ok(())
            })
            .await
            {
                Err(Error::Timeout(_)) => Ok(()),
                outcome => outcome,
            }
        }),
        9 => Box::pin(async move {
            if tree.cancels && tree.one_in(3) {
                this_task().cancel_with("myself");
            }
            tree.sleep().await
        }),
        10 | 11 => Box::pin(async move {
            let (limit, inner) = (tree.delay(), node(tree.clone(), depth - 1));
            let outcome = timeout(limit, inner).await;
            if tree.one_in(tree.calm) { outcome } else { Ok(()) }
        }),
        12 => Box::pin(async move { shielded(node(tree.clone(), depth - 1)).await }),
        13 => Box::pin(async move {
            let nodes: Vec<_> = (0..tree.pick(4)).map(|_| apart(tree.clone(), depth - 1)).collect();
            if tree.one_in(2) {
                gather(nodes).return_exceptions().await?;
                Ok(())
            } else {
                gather(nodes).await.map(|_| ())
            }
        }),
        14 => Box::pin(async move { shield(apart(tree.clone(), depth - 1)).await }),
        15 if tree.joins => Box::pin(async move {
            let (one, two) = (node(tree.clone(), depth - 1), tree.sleep());
            // The one that is left is dropped where it waits.
            match futures::future::select(one, two).await {
                Either::Left((outcome, _)) | Either::Right((outcome, _)) => outcome,
            }
        }),
        16 if tree.joins => Box::pin(async move {
            let (one, two) = (node(tree.clone(), depth - 1), node(tree.clone(), depth - 1));
            let (one, two) = futures::future::join(one, two).await;
            one.and(two)
        }),
        _ => group(tree, depth - 1),
    }
}

/// A coroutine that becomes a task of no group.
async fn apart(tree: Rc<Tree>, depth: u32) -> Result<()> {
    let noted = Noted { tree: &tree, errors: &tree.optional };
    let outcome = node(tree.clone(), depth).await;
    noted.note(&outcome);
    drop(noted);
    outcome
}

/// Makes a task of a group, which may make others in turn.
fn make_child(tree: &Rc<Tree>, scope: &Rc<Scope>, group: &TaskGroup, depth: u32) -> Task<()> {
    tree.works();
    let live = Live::new(tree, scope);
    let grows = tree.one_in(5).then(|| group.clone());
    let coroutine = async move {
        let Live(tree, scope) = &live;
        let noted = Noted { tree, errors: &scope.errors };
        if let Some(group) = grows {
            if tree.one_in(2) {
                tree.sleep().await?;
            }
            drop(make_child(tree, scope, &group, depth.saturating_sub(1)));
        }
        let outcome = node(tree.clone(), depth).await;
        noted.note(&outcome);
        drop(noted);
        check_counts(tree);
        outcome
    };
    let task = group.task(Box::pin(coroutine) as Node).eager_start(tree.one_in(6)).start();
    if task.done() && matches!(task.exception(), Ok(Some(Error::Runtime(_)))) {
        return task; // refused
    }
    tree.tasks.borrow_mut().push(task.any());
    task
}

/// At the end of a task no scope inside of it counts as cancelled.
fn check_counts(tree: &Tree) {
    let task = this_task();
    for _ in 0..task.cancelling() {
        task.uncancel();
    }
    tree.check(task.cancelling() == 0, || format!("{} scopes are still cancelled", task.cancelling()));
}

fn group(tree: Rc<Tree>, depth: u32) -> Node {
    Box::pin(async move {
        let scope = Rc::new(Scope::default());
        let mut entered = Entered { tree: tree.clone(), scope: scope.clone(), ended: false };
        let mut builder = TaskGroup::builder();
        let mut deadline = None;
        if tree.one_in(4) {
            deadline = Some(tree.event_loop.time() + tree.delay());
            builder = builder.deadline(deadline);
        }
        if tree.one_in(4) {
            builder = builder.grace(tree.delay());
        }
        let before = this_task().cancelling();
        let body_outcome = RefCell::new(None);
        let result = builder
            .scope(async |group| {
                let outcome = body(&tree, &scope, group, depth).await;
                body_outcome.replace(Some(outcome.clone()));
                outcome
            })
            .await;
        entered.ended = true;
        let (tree, scope) = (&entered.tree, &entered.scope);
        tree.check(scope.live.get() == 0, || format!("{} tasks live after their scope", scope.live.get()));
        let after = this_task().cancelling();
        tree.check(after >= before || tree.joins, || format!("cancelling was {before} and is {after}"));
        let body_outcome = body_outcome.take();
        let mut expected = scope.errors.take();
        if let Some(Err(error)) = &body_outcome {
            if !error.is_cancelled() {
                expected.push(error.clone());
            }
        }
        let expected: Vec<_> = expected.iter().map(show).collect();
        let fits = match &result {
            _ if !expected.is_empty() => shown(&result) == format!("[{}]", expected.join(", ")),
            Ok(()) => matches!(body_outcome, Some(Ok(()))),
            Err(Error::Timeout(_)) => deadline.is_some_and(|deadline| deadline <= tree.event_loop.time()),
            Err(error) => error.is_cancelled(),
        };
        let fate = match &result {
            Ok(()) => "ok",
            Err(Error::Group(_)) => "failed",
            Err(Error::Timeout(_)) => "timed out",
            Err(_) => "cancelled",
        };
        *tree.fates.borrow_mut().entry(fate).or_default() += 1;
        tree.check(fits, || format!("a scope with {expected:?} and {body_outcome:?} gave {result:?}"));
        result
    })
}

async fn body(tree: &Rc<Tree>, scope: &Rc<Scope>, group: &TaskGroup, depth: u32) -> Result<()> {
    let mut children = Vec::new();
    for _ in 0..tree.pick(10) {
        match tree.pick(16) {
            0..=6 => children.push(make_child(tree, scope, group, depth)),
            7 | 8 => tree.sleep().await?,
            9 => node(tree.clone(), depth).await?,
            10 => {
                let _ = node(tree.clone(), depth).await;
            }
            11 => {
                if let Some(child) = children.pop() {
                    child.await?;
                }
            }
            12 => {
                if let Some(child) = children.pop() {
                    let _ = child.await;
                }
            }
            13 => {
                if let Some(child) = children.first().filter(|child| !child.done()) {
                    child.cancel();
                }
            }
            14 => {
                let tasks = tree.tasks.borrow();
                if tree.cancels && !tasks.is_empty() {
                    let task = &tasks[usize::try_from(tree.pick(tasks.len() as u64)).unwrap()];
                    if !task.done() {
                        if tree.one_in(3) {
                            task.cancel_with_grace(tree.delay())
                        } else {
                            task.cancel_with("another")
                        };
                    }
                }
            }
            _ if tree.one_in(3) => group.cancel(),
            _ if tree.one_in(3) => group.cancel_with_grace(tree.delay()),
            _ => {}
        }
    }
    Ok(())
}

/// Counts the texts of errors that are no groups.
fn count_leaves<'a>(errors: impl IntoIterator<Item = &'a Error>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for error in errors {
        let leaves = match error {
            Error::Group(group) => group.leaves().map(show).collect(),
            other => vec![show(other)],
        };
        for leaf in leaves {
            *counts.entry(leaf).or_default() += 1;
        }
    }
    counts
}

fn run_tree(seed: u64) -> BTreeMap<&'static str, usize> {
    let (event_loop, _) = virtual_loop();
    let reports = handler(&event_loop);
    let tree = Rc::new(Tree {
        state: Cell::new(seed),
        cancels: seed % 3 != 0,
        joins: seed % 2 == 0,
        calm: [1, 3, 10, 30][(seed / 6 % 4) as usize],
        event_loop: event_loop.clone(),
        turn: Cell::default(),
        work: Cell::default(),
        last_error: Cell::default(),
        panic: RefCell::default(),
        tasks: RefCell::default(),
        dropped: RefCell::default(),
        optional: RefCell::default(),
        problems: RefCell::default(),
        fates: RefCell::default(),
    });
    let shared = tree.clone();
    let root = event_loop.create_task(async move {
        let noted = Noted { tree: &shared, errors: &shared.optional };
        let outcome = group(shared.clone(), 4).await;
        noted.note(&outcome);
        drop(noted);
        if !shared.cancels {
            let count = this_task().cancelling();
            shared.check(count == 0, || format!("nobody cancelled the root, and it counts {count}"));
            let slept = sleep(Duration::ZERO).await;
            shared.check(slept.is_ok(), || "a cancellation leaked out of the root's group".into());
        }
        check_counts(&shared);
        outcome
    });
    let cancelled_at = if tree.cancels { tree.pick(40) as usize } else { usize::MAX };
    while !root.done() || !event_loop.all_tasks().is_empty() {
        event_loop.run_once(None).unwrap();
        tree.turn.set(tree.turn.get() + 1);
        if tree.turn.get() == cancelled_at {
            root.cancel_with("ext");
        }
        assert!(tree.turn.get() < 20_000, "the loop spins");
    }
    let (turns, work) = (tree.turn.get(), tree.work.get());
    tree.check(turns <= 4 * work + 20, || format!("{turns} iterations for {work} things to do"));
    for _ in 0..3 {
        event_loop.run_once(Duration::ZERO).unwrap();
    }
    tree.check(event_loop.next_deadline().is_none(), || "timers or callbacks are left".into());
    drop(root.exception());
    tree.tasks.take();
    for scope in tree.dropped.borrow().iter() {
        tree.check(scope.live.get() == 0, || "tasks live on".into());
    }
    let dropped = tree.dropped.take();
    let errors: Vec<Error> = dropped.iter().flat_map(|scope| scope.errors.take()).collect();
    let mut expected = count_leaves(&errors);
    let optional = count_leaves(&*tree.optional.borrow());
    let reports = reports.take();
    let reported = count_leaves(reports.iter().filter_map(|report| report.exception.as_ref()));
    for (error, count) in reported {
        let left = expected.remove(&error).unwrap_or(0);
        let may_be = optional.get(&error).copied().unwrap_or(0);
        tree.check(left <= count && count <= left + may_be, || {
            format!("{error} was reported {count} times instead of {left}")
        });
    }
    tree.check(expected.is_empty(), || format!("not reported: {expected:?}"));
    event_loop.close().unwrap();
    let problems = tree.problems.take();
    assert!(problems.is_empty(), "seed {seed}: {problems:#?}\nreports: {reports:#?}");
    tree.fates.take()
}

#[track_caller]
fn run_trees(seeds: std::ops::Range<u64>) {
    let _deadline = support::deadline();
    let mut fates = BTreeMap::new();
    for seed in seeds {
        struct Says(u64);
        impl Drop for Says {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    eprintln!("seed {}", self.0);
                }
            }
        }
        let says = Says(seed);
        for (fate, count) in run_tree(seed) {
            *fates.entry(fate).or_insert(0) += count;
        }
        drop(says);
    }
    for fate in ["ok", "failed", "timed out", "cancelled", "dropped"] {
        assert!(fates.get(fate).is_some_and(|count| *count >= 10), "the trees grow one-sidedly: {fates:?}");
    }
}

#[test]
fn random_trees_of_tasks_lose_nothing_1() {
    run_trees(0..350);
}

#[test]
fn random_trees_of_tasks_lose_nothing_2() {
    run_trees(1000..1350);
}

#[test]
fn random_trees_of_tasks_lose_nothing_3() {
    run_trees(2000..2350);
}
