//! How tasks are made: by a call, by a builder, through a factory.

use std::{
    cell::RefCell,
    fmt,
    future::{Future as StdFuture, IntoFuture},
    panic::Location,
    pin::Pin,
    rc::Rc,
};

use futures::task::{LocalFutureObj, LocalSpawn, SpawnError};

use crate::{
    context::{self, Context},
    error::{Error, Result},
    event_loop::{
        EventLoop,
        any_task::AnyTask,
        observers::Member,
        running,
        step::{self, Spawned},
        threadsafe::closed,
        turn::Ready,
    },
    task::Task,
};

/// A coroutine whose type is forgotten: what a task factory wraps.
pub type Coroutine = Pin<Box<dyn StdFuture<Output = ()>>>;

/// What [`EventLoop::set_task_factory`] takes: called for every task that is made, before it is.
///
/// asyncio: a task factory.
pub type TaskFactory = Rc<dyn Fn(&EventLoop, &mut TaskRequest) -> Result<()>>;

type Wrap = Box<dyn FnOnce(Coroutine) -> Coroutine>;

/// A task that is about to be made, for the factory to change.
///
/// asyncio: the arguments of a task factory. Differs: the factory decides how, the loop makes the task.
#[derive(Default)]
pub struct TaskRequest {
    name: Option<String>,
    context: Option<Context>,
    eager: bool,
    wrap: Option<Wrap>,
}

impl TaskRequest {
    /// Gives the task a name.
    pub fn name(&mut self, name: impl Into<String>) -> &mut Self {
        self.name = Some(name.into());
        self
    }

    /// Lets the task run in `context` itself, not in a copy of the present one.
    pub fn context(&mut self, context: &Context) -> &mut Self {
        self.context = Some(context.clone());
        self
    }

    /// Whether the first step runs at once, inside the call that makes the task, if the loop is running.
    pub fn eager(&mut self, eager: bool) -> &mut Self {
        self.eager = eager;
        self
    }

    /// Puts something around the coroutine: `wrap` gives a coroutine that must await the one it is given.
    pub fn wrap(&mut self, wrap: impl FnOnce(Coroutine) -> Coroutine + 'static) -> &mut Self {
        self.wrap = Some(match self.wrap.take() {
            None => Box::new(wrap),
            Some(before) => Box::new(move |coroutine| wrap(before(coroutine))),
        });
        self
    }

    fn is_plain(&self) -> bool {
        self.name.is_none() && self.context.is_none() && !self.eager && self.wrap.is_none()
    }

    /// The name that was asked for.
    pub fn get_name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The context that was asked for.
    pub fn get_context(&self) -> Option<&Context> {
        self.context.as_ref()
    }

    /// Whether an eager start was asked for.
    pub fn is_eager(&self) -> bool {
        self.eager
    }
}

impl fmt::Debug for TaskRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskRequest")
            .field("name", &self.name)
            .field("context", &self.context)
            .field("eager", &self.eager)
            .finish_non_exhaustive()
    }
}

/// A factory that lets every task begin at once: pass it to [`EventLoop::set_task_factory`].
///
/// # Examples
///
/// ```
/// asyncio::run(async {
///     let event_loop = asyncio::get_running_loop()?;
///     event_loop.set_task_factory(Some(asyncio::eager_task_factory()));
///     let task = asyncio::create_task(async { Ok(5) });
///     assert!(task.done()); // it did not have to wait for anything
///     assert_eq!(task.await?, 5);
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.eager_task_factory`.
pub fn eager_task_factory() -> TaskFactory {
    Rc::new(|_, request| {
        request.eager(true);
        Ok(())
    })
}

/// Makes a task with more than [`EventLoop::create_task`] takes; nothing is made before [`start`](Self::start).
///
/// asyncio: the arguments of `loop.create_task`.
#[must_use = "no task is made before `start`"]
pub struct TaskBuilder<F> {
    event_loop: EventLoop,
    coroutine: F,
    request: TaskRequest,
}

impl<F> TaskBuilder<F> {
    /// Gives the task a name.
    ///
    /// asyncio: `loop.create_task(name=..)`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.request.name(name);
        self
    }

    /// Lets the task run in `context` itself, not in a copy of the present one.
    ///
    /// asyncio: `loop.create_task(context=..)`.
    pub fn context(mut self, context: &Context) -> Self {
        self.request.context(context);
        self
    }

    /// Whether the first step runs at once, inside `start`, if the loop is running.
    ///
    /// A coroutine that ends in its first step gives a task that is done.
    ///
    /// asyncio: `loop.create_task(eager_start=..)`.
    pub fn eager_start(mut self, eager: bool) -> Self {
        self.request.eager(eager);
        self
    }

    /// Makes the task.
    ///
    /// asyncio: `loop.create_task`.
    #[track_caller]
    pub fn start<T: 'static>(self) -> Task<T>
    where
        F: IntoFuture<Output = Result<T>>,
        F::IntoFuture: 'static,
    {
        self.event_loop.make_task(self.coroutine.into_future(), self.request, Location::caller())
    }
}

impl<F> fmt::Debug for TaskBuilder<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskBuilder").field("request", &self.request).finish_non_exhaustive()
    }
}

impl EventLoop {
    /// Lets the loop run `coroutine` by itself, from the next iteration on.
    ///
    /// It runs in a copy of the present context. On a closed loop the coroutine is dropped and the task is born failed
    /// with [`Error::Runtime`]. [`task`](Self::task) takes a name, a context, and an eager start.
    ///
    /// # Examples
    ///
    /// ```
    /// let event_loop = asyncio::new_event_loop()?;
    /// let task = event_loop.create_task(async { Ok(5) });
    /// assert_eq!(event_loop.run_until_complete(task)?, 5);
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `loop.create_task`.
    #[track_caller]
    pub fn create_task<T, F>(&self, coroutine: F) -> Task<T>
    where
        T: 'static,
        F: IntoFuture<Output = Result<T>>,
        F::IntoFuture: 'static,
    {
        let (coroutine, created) = (coroutine.into_future(), Location::caller());
        if self.makes_plain_tasks() {
            return self.make_plain_task(coroutine, created, None);
        }
        self.make_task(coroutine, TaskRequest::default(), created)
    }

    /// A task with a name, a context or an eager start: `event_loop.task(coroutine).name("x").start()`.
    ///
    /// # Examples
    ///
    /// ```
    /// let event_loop = asyncio::new_event_loop()?;
    /// let task = event_loop.task(async { Ok(5) }).name("five").start();
    /// assert_eq!(task.get_name(), "five");
    /// assert_eq!(event_loop.run_until_complete(task)?, 5);
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `loop.create_task(coro, name=.., context=.., eager_start=..)`.
    pub fn task<F>(&self, coroutine: F) -> TaskBuilder<F> {
        TaskBuilder { event_loop: self.clone(), coroutine, request: TaskRequest::default() }
    }

    /// Lets `factory` see every task that is made: it may name it, start it eagerly, wrap it, or refuse it.
    ///
    /// If it fails, the task is born failed with its error and the coroutine is dropped. `None` takes it away. What is
    /// polled in place (`run`, `run_until_complete`, `block_on`) is no concern of the factory's.
    ///
    /// asyncio: `loop.set_task_factory`.
    pub fn set_task_factory(&self, factory: Option<TaskFactory>) {
        let before = self.inner.task_factory.replace(factory.map(|factory| Rc::new(factory) as Rc<dyn std::any::Any>));
        drop(before);
    }

    /// What [`set_task_factory`](Self::set_task_factory) was given.
    ///
    /// asyncio: `loop.get_task_factory`.
    pub fn get_task_factory(&self) -> Option<TaskFactory> {
        let stored = self.inner.task_factory.borrow().clone()?;
        stored.downcast_ref::<TaskFactory>().cloned()
    }

    /// The task that runs now, if it is one of this loop's; `None` in callbacks and while the loop does not run.
    ///
    /// asyncio: `asyncio.current_task(loop)`.
    pub fn current_task(&self) -> Option<AnyTask> {
        self.current_task_ref().map(AnyTask::new)
    }

    /// The tasks of this loop that are not done, in no particular order.
    ///
    /// asyncio: `asyncio.all_tasks(loop)`.
    pub fn all_tasks(&self) -> Vec<AnyTask> {
        let tasks = self.inner.tasks.borrow().all();
        tasks.into_iter().map(AnyTask::new).collect()
    }

    /// Whether a task needs nothing but its coroutine and a copy of the present context: the usual case.
    #[inline]
    pub(crate) fn makes_plain_tasks(&self) -> bool {
        !self.is_closed() && self.context().is_none() && self.inner.task_factory.borrow().is_none()
    }

    /// Runs no foreign code.
    #[inline]
    pub(crate) fn make_plain_task<T, F>(
        &self,
        coroutine: F,
        created: &'static Location<'static>,
        member: Option<Member>,
    ) -> Task<T>
    where
        T: 'static,
        F: StdFuture<Output = Result<T>> + 'static,
    {
        let vars = context::current_vars();
        let Spawned { task, outcome, runnable } = step::spawn(self, coroutine, vars, created, member);
        self.push(Ready::Step(runnable));
        Task::new(task, outcome)
    }

    pub(crate) fn make_task<T, F>(
        &self,
        coroutine: F,
        request: TaskRequest,
        created: &'static Location<'static>,
    ) -> Task<T>
    where
        T: 'static,
        F: StdFuture<Output = Result<T>> + 'static,
    {
        self.make_task_for(coroutine, request, created, None)
    }

    /// As [`make_task`](Self::make_task); `member`'s observer is told of the end first.
    fn make_task_for<T, F>(
        &self,
        coroutine: F,
        mut request: TaskRequest,
        created: &'static Location<'static>,
        member: Option<Member>,
    ) -> Task<T>
    where
        T: 'static,
        F: StdFuture<Output = Result<T>> + 'static,
    {
        if self.is_closed() {
            drop(coroutine);
            return self.born_failed(closed(), created, member);
        }
        if self.inner.task_factory.borrow().is_some() {
            if let Some(factory) = self.get_task_factory() {
                if let Err(error) = factory(self, &mut request) {
                    drop(coroutine);
                    return self.born_failed(error, created, member);
                }
            }
        }
        match request.wrap.take() {
            None => self.spawn_task(coroutine, request, created, member),
            Some(wrap) => self.spawn_task(wrapped(coroutine, wrap), request, created, member),
        }
    }

    fn spawn_task<T, F>(
        &self,
        coroutine: F,
        request: TaskRequest,
        created: &'static Location<'static>,
        member: Option<Member>,
    ) -> Task<T>
    where
        T: 'static,
        F: StdFuture<Output = Result<T>> + 'static,
    {
        let context = request.context.or_else(|| self.context().cloned());
        let vars = if context.is_none() { context::current_vars() } else { None };
        let Spawned { task, outcome, runnable } = step::spawn(self, coroutine, vars, created, member);
        if let Some(context) = context {
            task.set_context(context);
        }
        if let Some(name) = request.name {
            task.set_name(name);
        }
        if request.eager && self.is_the_running_one() {
            self.run_step(runnable);
        } else {
            runnable.schedule();
        }
        Task::new(task, outcome)
    }

    /// A task whose end an observer is told of first.
    #[inline]
    pub(crate) fn make_member<T, F>(
        &self,
        coroutine: F,
        request: TaskRequest,
        created: &'static Location<'static>,
        member: Option<Member>,
    ) -> Task<T>
    where
        T: 'static,
        F: StdFuture<Output = Result<T>> + 'static,
    {
        if request.is_plain() && self.makes_plain_tasks() {
            return self.make_plain_task(coroutine, created, member);
        }
        self.make_task_for(coroutine, request, created, member)
    }

    /// A task that has failed before it began: its one step is over when this returns.
    pub(crate) fn born_failed<T: 'static>(
        &self,
        error: Error,
        created: &'static Location<'static>,
        member: Option<Member>,
    ) -> Task<T> {
        let coroutine = std::future::ready(Err(error));
        let Spawned { task, outcome, runnable } = step::spawn(self, coroutine, None, created, member);
        let _running = (!self.is_the_running_one()).then(|| running::enter(self));
        self.run_step(runnable);
        Task::new(task, outcome)
    }
}

/// The task's coroutine inside what the factory put around it.
async fn wrapped<T: 'static>(coroutine: impl StdFuture<Output = Result<T>> + 'static, wrap: Wrap) -> Result<T> {
    let result = Rc::new(RefCell::new(None));
    let slot = result.clone();
    let inner: Coroutine = Box::pin(async move {
        let outcome = coroutine.await;
        slot.replace(Some(outcome));
    });
    wrap(inner).await;
    let outcome = result.take();
    outcome.unwrap_or_else(|| Err(Error::Runtime("the task factory's coroutine did not await the task's".into())))
}

/// Lets the running loop run `coroutine` by itself; see [`EventLoop::create_task`].
///
/// Where no loop runs on this thread, the coroutine is dropped and the task is born failed with [`Error::Runtime`]
/// "no running event loop": between the runs of a loop, call it on the [`EventLoop`].
///
/// # Examples
///
/// ```
/// asyncio::run(async {
///     let task = asyncio::create_task(async { Ok(5) });
///     assert_eq!(task.await?, 5);
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.create_task`.
#[track_caller]
pub fn create_task<T, F>(coroutine: F) -> Task<T>
where
    T: 'static,
    F: IntoFuture<Output = Result<T>>,
    F::IntoFuture: 'static,
{
    let (coroutine, created) = (coroutine.into_future(), Location::caller());
    let coroutine = match running::with(|running| match running {
        Some(event_loop) if event_loop.inner.shared.in_its_process() && event_loop.makes_plain_tasks() => {
            Ok(event_loop.make_plain_task(coroutine, created, None))
        }
        _ => Err(coroutine),
    }) {
        Ok(task) => return task,
        Err(coroutine) => coroutine,
    };
    match running::require() {
        Ok(event_loop) => event_loop.make_task(coroutine, TaskRequest::default(), created),
        Err(error) => homeless(error, created),
    }
}

/// A task of `future`: a task passes through, anything else becomes one of the running loop, or of the one that was set.
///
/// Where there is no loop, the future is dropped and the task is born failed with [`Error::Runtime`].
///
/// # Examples
///
/// ```
/// asyncio::run(async {
///     let task = asyncio::create_task(async { Ok(5) });
///     let name = task.get_name();
///     let same = asyncio::ensure_future(task);
///     assert_eq!(same.get_name(), name);
///     assert_eq!(same.await?, 5);
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.ensure_future`. Differs: a future becomes a task that ends as it does.
#[track_caller]
pub fn ensure_future<T, F>(future: F) -> Task<T>
where
    T: 'static,
    F: IntoFuture<Output = Result<T>> + 'static,
    F::IntoFuture: 'static,
{
    let created = Location::caller();
    let mut future = Some(future);
    let any: &mut dyn std::any::Any = &mut future;
    if let Some(task) = any.downcast_mut::<Option<Task<T>>>().and_then(Option::take) {
        return task;
    }
    let Some(future) = future else { unreachable!("it was not taken") };
    match running::get_event_loop() {
        Ok(event_loop) => event_loop.make_task(future.into_future(), TaskRequest::default(), created),
        Err(error) => homeless(error, created),
    }
}

/// A task that has failed because there is no loop.
pub(crate) fn homeless<T: 'static>(error: Error, created: &'static Location<'static>) -> Task<T> {
    EventLoop::closed_one().born_failed(error, created, None)
}

/// The task that runs now on this thread, `None` in a callback.
///
/// # Errors
///
/// [`Error::Runtime`] "no running event loop" if none runs on this thread.
///
/// asyncio: `asyncio.current_task`.
pub fn current_task() -> Result<Option<AnyTask>> {
    Ok(running::require()?.current_task())
}

/// The tasks of the running loop that are not done.
///
/// # Errors
///
/// [`Error::Runtime`] "no running event loop" if none runs on this thread.
///
/// asyncio: `asyncio.all_tasks`.
pub fn all_tasks() -> Result<Vec<AnyTask>> {
    Ok(running::require()?.all_tasks())
}

impl LocalSpawn for EventLoop {
    fn spawn_local_obj(&self, future: LocalFutureObj<'static, ()>) -> std::result::Result<(), SpawnError> {
        self.status_local()?;
        drop(self.create_task(async move {
            future.await;
            Ok(())
        }));
        Ok(())
    }

    fn status_local(&self) -> std::result::Result<(), SpawnError> {
        if self.is_closed() { Err(SpawnError::shutdown()) } else { Ok(()) }
    }
}
