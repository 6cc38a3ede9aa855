//! A loop on each of several threads: the way past one core.

use std::{
    cell::Cell,
    future::IntoFuture,
    panic::{AssertUnwindSafe, Location, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use crate::{
    context::{self, ContextRef, Vars},
    error::{Cancelled, Canceller, Error, Result},
    event_loop::{
        EventLoop,
        exceptions::ExceptionContext,
        running, slots,
        threadsafe::{Shared, ThreadsafeLoop},
    },
    report,
    runner::Runner,
    stopping::Interrupts,
    sys::signal::{self, Signal},
    task::run::MainOptions,
};

/// Runs `work` in `count` threads, each with a loop of its own, and gives their results in the order of the workers.
///
/// This is the way past one core: servers that share a port by `reuse_port`, one loop a thread, nothing shared between
/// them but what the program shares. Past one machine, the program stands behind a load balancer or a message bus as it
/// is: each machine runs its workers.
///
/// Each worker is what [`run`](crate::run) is to a program, in a thread named `worker-0` and so on: `work` is called in
/// its loop, in a copy of the caller's context, and may borrow, for all have ended when this returns; its future need not
/// be `Send`. One that ends early leaves the others alone.
///
/// The first worker to fail or to panic has the others cancelled, with a message that says why, and its error is what
/// comes out in the end. Errors that follow go to the exception handlers of their loops, but for cancellations.
///
/// On the main thread SIGINT and SIGTERM are taken over where the program has no handler of its own and they are not
/// ignored, until the last worker's main has ended. Each arrival cancels the mains of all workers, with the signal's name
/// for a message; of SIGINT a third one drops them, as under `run`. Workers that answer by cleaning up and giving `Ok`
/// make the whole `Ok`: so a SIGTERM drains servers. A failure does not cancel workers that were asked to end already. A
/// worker that has not begun when a cancellation comes finds it at its first await.
///
/// # Errors
///
/// The first failure of a worker, in time; [`Error::Panicked`] if it was a panic. [`Error::KeyboardInterrupt`] where a
/// SIGINT ended a worker, and [`Error::Cancelled`] where a worker let the cancellation of a SIGTERM out.
/// [`Error::Value`] for no workers; [`Error::Runtime`] inside a running loop; [`Error::Io`] if a thread or a loop could
/// not be made: what has begun is cancelled and awaited then.
///
/// # Examples
///
/// A server for each core, until SIGTERM; connections that are open then may end in their time.
///
/// ```no_run
/// use asyncio::{Error, Protocol, Result, Transport, Worker};
///
/// #[derive(Default)]
/// struct Echo(Option<Transport>);
///
/// impl Protocol for Echo {
///     fn connection_made(&mut self, transport: &Transport) {
///         self.0 = Some(transport.clone());
///     }
///
///     fn data_received(&mut self, data: &[u8]) {
///         self.0.iter().for_each(|transport| transport.write(data));
///     }
///
///     fn connection_lost(&mut self, _error: Option<&Error>) {
///         self.0 = None;
///     }
/// }
///
/// async fn serve(worker: Worker) -> Result<()> {
///     let event_loop = asyncio::get_running_loop()?;
///     let server = event_loop.create_server(Echo::default, ("0.0.0.0", 8888)).reuse_port(true).await?;
///     println!("worker {} of {} serves", worker.index(), worker.count());
///     match server.serve_forever().await {
///         // It has closed the server and waited for the last connection.
///         Err(Error::Cancelled(cancelled)) if cancelled.message.as_deref() == Some("SIGTERM") => Ok(()),
///         ended => ended,
///     }
/// }
///
/// fn main() -> Result<()> {
///     let cores = std::thread::available_parallelism()?.get();
///     asyncio::run_workers(cores, serve)?;
///     Ok(())
/// }
/// ```
///
/// Workers may borrow, and give results:
///
/// ```
/// let words = ["several", "loops", "side", "by", "side"];
/// let lengths = asyncio::run_workers(2, |worker| {
///     let words = &words;
///     async move {
///         let mine = words.iter().skip(worker.index()).step_by(worker.count());
///         Ok(mine.map(|word| word.len()).sum::<usize>())
///     }
/// })?;
/// assert_eq!(lengths, [15, 7]);
/// # asyncio::ok(())
/// ```
///
/// asyncio: has none; programs start several processes.
#[track_caller]
pub fn run_workers<T, F, W>(count: usize, work: W) -> Result<Vec<T>>
where
    T: Send,
    F: IntoFuture<Output = Result<T>>,
    W: Fn(Worker) -> F + Sync,
{
    let created = Location::caller();
    if running::require().is_ok() {
        return Err(Error::Runtime("asyncio::run_workers() cannot be called from a running event loop".into()));
    }
    if count == 0 {
        return Err(Error::Value("the number of workers must not be zero".into()));
    }
    let supervisor = running::new_event_loop()?;
    let team = Arc::new(Team::new(count, supervisor.threadsafe()));
    take_signals_over(&supervisor, &team)?;
    let vars = context::current_vars();
    let values: Option<Vec<T>> = thread::scope(|scope| {
        let mut threads = Vec::with_capacity(count);
        for index in 0..count {
            let (team, work, vars) = (&team, &work, vars.clone());
            let body = move || team.run_worker(Worker { index, count }, work, vars, created);
            match thread::Builder::new().name(format!("worker-{index}")).spawn_scoped(scope, body) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    let error = Error::io(error, "the thread could not be started");
                    team.fail(&format!("worker {index}"), error, Some(&supervisor));
                    (index..count).for_each(|index| team.end(index));
                    break;
                }
            }
        }
        if let Err(error) = supervise(&supervisor) {
            team.fail("the loop that supervises the workers", error, None);
        }
        // All of them, whatever the first gave.
        let values: Vec<Option<T>> = threads.into_iter().map(|thread| thread.join().ok().flatten()).collect();
        values.into_iter().collect()
    });
    match team.board().failure.take() {
        Some(error) => Err(error),
        None => Ok(values.expect("a worker that gives no value has failed")),
    }
}

/// Which of the workers of [`run_workers`] one is.
///
/// `Threads:` may cross them.
///
/// # Examples
///
/// ```
/// let shares = asyncio::run_workers(3, async |worker| {
///     Ok(format!("{} of {}", worker.index() + 1, worker.count()))
/// })?;
/// assert_eq!(shares, ["1 of 3", "2 of 3", "3 of 3"]);
/// # asyncio::ok(())
/// ```
///
/// asyncio: has none.
#[derive(Clone, Debug)]
pub struct Worker {
    index: usize,
    count: usize,
}

impl Worker {
    /// Its number, from 0 on.
    ///
    /// asyncio: has none.
    pub fn index(&self) -> usize {
        self.index
    }

    /// How many workers there are.
    ///
    /// asyncio: has none.
    pub fn count(&self) -> usize {
        self.count
    }
}

/// Lets the supervising loop pass on the signals that are for us to take, until it is closed.
fn take_signals_over(supervisor: &EventLoop, team: &Arc<Team>) -> Result<()> {
    let signals = [(Signal::Int, "SIGINT", Canceller::Interrupt), (Signal::Term, "SIGTERM", Canceller::Workers)];
    for (signal, name, by) in signals {
        if signal::on_main_thread() && signal::is_default(signal as i32) {
            let team = team.clone();
            let reason = Cancelled::by(by, Some(name.into()));
            supervisor.add_signal_handler(signal, move || team.receive(reason.clone()))?;
        }
    }
    Ok(())
}

/// Waits until the last main has ended, passes signals on meanwhile, and gives them back.
fn supervise(supervisor: &EventLoop) -> Result<()> {
    let ran = supervisor.run_forever();
    // Signals that came in its last iteration.
    let late = supervisor.run_once(Duration::ZERO);
    let closed = supervisor.close();
    ran.and(late).and(closed)
}

/// What the threads share.
struct Team {
    /// Stopped when the last main has ended.
    supervisor: ThreadsafeLoop,
    board: Mutex<Board>,
}

struct Board {
    stages: Vec<Stage>,
    /// The first, in time.
    failure: Option<Error>,
    /// What all mains are to be cancelled with, one after the other. Invariant: it only grows.
    requests: Vec<Cancelled>,
}

/// ```text
/// Starting --start--> Running --end--> Ended
/// Starting --end, where no thread or no loop could be made--> Ended
/// ```
enum Stage {
    Starting,
    Running(Arc<Shared>),
    /// Main has.
    Ended,
}

impl Board {
    fn all_ended(&self) -> bool {
        self.stages.iter().all(|stage| matches!(stage, Stage::Ended))
    }
}

impl Team {
    fn new(count: usize, supervisor: ThreadsafeLoop) -> Self {
        let stages = (0..count).map(|_| Stage::Starting).collect();
        Team { supervisor, board: Mutex::new(Board { stages, failure: None, requests: Vec::new() }) }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets requests reach a worker, from its first step on: the earlier ones, too.
    fn start(&self, index: usize, shared: &Arc<Shared>) {
        self.board().stages[index] = Stage::Running(shared.clone());
        Member::catch_up_soon(shared);
    }

    fn end(&self, index: usize) {
        self.end_unless_asked(index, usize::MAX);
    }

    /// Ends a worker unless requests have come that it has not seen.
    fn end_unless_asked(&self, index: usize, seen: usize) -> bool {
        let mut board = self.board();
        if board.requests.len() > seen {
            return false;
        }
        board.stages[index] = Stage::Ended;
        let last = board.all_ended();
        drop(board);
        if last {
            self.supervisor.stop();
        }
        true
    }

    /// Takes note of a failure, and cancels the others if it is the first and they are not to end anyway. One that is not
    /// the first is reported, to the loop if there is one, unless it is the answer to a cancellation.
    fn fail(&self, who: &str, error: Error, event_loop: Option<&EventLoop>) {
        let message = format!("{who} failed: {error}");
        let mut board = self.board();
        let is_first = board.failure.is_none();
        let asked = !board.requests.is_empty();
        if is_first {
            board.failure = Some(error.clone());
        }
        drop(board);
        if is_first && !asked {
            self.ask(Cancelled::by(Canceller::Workers, Some(message.into())));
        } else if !is_first && !matches!(error, Error::Cancelled(_) | Error::KeyboardInterrupt) {
            let text = format!("{who} failed, but not as the first one");
            let context = ExceptionContext::new(text).exception(error);
            match event_loop {
                Some(event_loop) => event_loop.call_exception_handler(&context),
                None => report::error(&context.record()),
            }
        }
    }

    /// Passes a signal on.
    fn receive(&self, reason: Cancelled) {
        let mut board = self.board();
        if board.all_ended() && reason.by == Some(Canceller::Interrupt) {
            // Nobody is left whom it could interrupt, and it must not be lost.
            board.failure.get_or_insert(Error::KeyboardInterrupt);
            return;
        }
        drop(board);
        self.ask(reason);
    }

    /// Cancels the mains of all workers; those that have not begun will find it at their first await.
    fn ask(&self, reason: Cancelled) {
        let mut board = self.board();
        board.requests.push(reason);
        let mut running = Vec::new();
        for stage in &board.stages {
            if let Stage::Running(shared) = stage {
                running.push(shared.clone());
            }
        }
        drop(board);
        running.iter().for_each(Member::catch_up_soon);
    }

    /// The whole of a worker's thread. `None` if it failed.
    fn run_worker<T, F, W>(
        self: &Arc<Self>,
        worker: Worker,
        work: &W,
        vars: Vars,
        created: &'static Location<'static>,
    ) -> Option<T>
    where
        F: IntoFuture<Output = Result<T>>,
        W: Fn(Worker) -> F,
    {
        let index = worker.index;
        // A panic of main's is caught further in: this one comes from the clean-up.
        let run = AssertUnwindSafe(|| self.run_loop(worker, work, vars, created));
        let result = catch_unwind(run).unwrap_or_else(|payload| Err(Error::from_panic(payload)));
        let value = result.unwrap_or_else(|error| {
            self.fail(&format!("worker {index}"), error, None);
            None
        });
        self.end(index);
        value
    }

    /// As `run`, with requests of the team's in place of SIGINT. `None` if main failed, which has been noted then.
    fn run_loop<T, F, W>(
        self: &Arc<Self>,
        worker: Worker,
        work: &W,
        vars: Vars,
        created: &'static Location<'static>,
    ) -> Result<Option<T>>
    where
        F: IntoFuture<Output = Result<T>>,
        W: Fn(Worker) -> F,
    {
        let _entered = context::enter(ContextRef::Bare(vars), 0)?;
        let index = worker.index;
        let mut runner = Runner::new();
        let (event_loop, context) = runner.open()?;
        let member = Member { team: self.clone(), seen: Cell::new(0), interrupts: Interrupts::default() };
        let member = event_loop.slots().get_or_init(slots::WORKER, || member);
        let main = async { work(worker).await };
        let options = MainOptions { context: Some(context), keep: false };
        let result = event_loop.run_main(main, options, created, |task| {
            member.interrupts.begin(task);
            self.start(index, &event_loop.inner.shared);
        });
        while !self.end_unless_asked(index, member.seen.get()) {
            member.catch_up(&event_loop);
        }
        let interrupted = member.interrupts.end(&result);
        let result = if interrupted { Err(Error::KeyboardInterrupt) } else { result };
        let value = result.map_err(|error| self.fail(&format!("worker {index}"), error, Some(&event_loop))).ok();
        let closed = runner.close();
        match value {
            Some(value) => closed.map(|()| Some(value)),
            None => Ok(None),
        }
    }
}

/// What a worker's loop keeps of the team.
struct Member {
    team: Arc<Team>,
    /// How many of the team's requests have been acted on.
    seen: Cell<usize>,
    interrupts: Interrupts,
}

impl Member {
    /// Lets a worker's loop catch up; one that is closed has no main any more.
    fn catch_up_soon(shared: &Arc<Shared>) {
        shared.push_call(|event_loop| {
            if let Some(member) = event_loop.slots().get::<Member>(slots::WORKER) {
                member.catch_up(event_loop);
            }
        });
    }

    /// Cancels main for each request that has come since the last time.
    fn catch_up(&self, event_loop: &EventLoop) {
        let seen = self.seen.get();
        let requests = self.team.board().requests[seen..].to_vec();
        self.seen.set(seen + requests.len());
        for request in requests {
            if request.by == Some(Canceller::Interrupt) {
                self.interrupts.interrupt(event_loop, request);
            } else if let Some(task) = self.interrupts.task() {
                task.cancel(request);
            }
        }
    }
}
