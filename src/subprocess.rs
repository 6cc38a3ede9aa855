//! Subprocesses with streams, and where their standard streams lead.
//!
//! asyncio: `asyncio.subprocess`.

use std::{
    borrow::Cow,
    cell::Cell,
    ffi::OsStr,
    fmt,
    future::{Future as StdFuture, IntoFuture},
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    combine::timeout::timeout,
    constants::{GROUP_CHECK, LIMIT},
    error::{Error, ErrorKind, Result},
    event_loop::{
        EventLoop,
        owned::{IoEvent, IoHandler},
        running,
        threadsafe::Shared,
        turn::TimerEntry,
    },
    process::watcher::{Children, Parent},
    streams::{
        reader::{StreamReader, check_limit},
        writer::StreamWriter,
    },
    sync::event::Event,
    sys::{
        child::{Child, Spawned},
        signal::ToSignal,
    },
};

pub use crate::process::{
    spawn::{CreateSubprocess, Program, WithProtocol},
    stdio::Stdio,
};

/// See [`Stdio::PIPE`].
pub const PIPE: Stdio = Stdio::PIPE;

/// See [`Stdio::DEVNULL`].
pub const DEVNULL: Stdio = Stdio::DEVNULL;

/// See [`Stdio::INHERIT`].
pub const INHERIT: Stdio = Stdio::INHERIT;

/// See [`Stdio::STDOUT`].
pub const STDOUT: Stdio = Stdio::STDOUT;

/// Starts a program in the running loop.
///
/// Of `program` see [`EventLoop::subprocess_exec`]. Its standard streams are this process's, or what a
/// [`std::process::Command`] was given, unless [`stdin`](CreateSubprocess::stdin), [`stdout`](CreateSubprocess::stdout)
/// and [`stderr`](CreateSubprocess::stderr) say otherwise.
///
/// # Cancel safety
///
/// Nothing is started before it is awaited, and it does not wait.
///
/// # Errors
///
/// Those of [`EventLoop::subprocess_exec`]; [`Error::Value`] for a limit of zero.
///
/// # Examples
///
/// ```
/// use asyncio::subprocess::PIPE;
///
/// asyncio::run(async {
///     let mut process = asyncio::create_subprocess_exec(["printf", "one\ntwo\n"]).stdout(PIPE).await?;
///     let stdout = process.stdout.as_mut().expect("it is piped");
///     assert_eq!(stdout.readline().await?, b"one\n");
///     assert_eq!(stdout.readline().await?, b"two\n");
///     assert_eq!(process.wait().await?, 0);
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.create_subprocess_exec`.
pub fn create_subprocess_exec(program: impl Into<Program>) -> CreateSubprocess<WithStreams> {
    CreateSubprocess::new(program.into(), WithStreams { limit: LIMIT, grace: None })
}

/// Runs a command in the shell, `/bin/sh`; otherwise as [`create_subprocess_exec`]. See
/// [`EventLoop::subprocess_shell`] for what does not belong into a command.
///
/// # Cancel safety
///
/// Nothing is started before it is awaited, and it does not wait.
///
/// # Errors
///
/// As [`create_subprocess_exec`].
///
/// # Examples
///
/// ```
/// use asyncio::subprocess::PIPE;
///
/// asyncio::run(async {
///     let mut process = asyncio::create_subprocess_shell("sort | head -n 1").stdin(PIPE).stdout(PIPE).await?;
///     let (stdout, stderr) = process.communicate("pear\napple\n").await?;
///     assert_eq!(stdout.as_deref(), Some(&b"apple\n"[..]));
///     assert_eq!((stderr, process.returncode()), (None, Some(0)));
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.create_subprocess_shell`.
pub fn create_subprocess_shell(command: impl AsRef<OsStr>) -> CreateSubprocess<WithStreams> {
    create_subprocess_exec(Program::shell(command.as_ref()))
}

/// A subprocess with streams is to be made.
#[derive(Debug)]
pub struct WithStreams {
    limit: usize,
    /// Whether the process is ended with its [`Process`], and how much time it has for that.
    grace: Option<Duration>,
}

impl CreateSubprocess<WithStreams> {
    /// What a line may have that is read from the process, and half of what is held before reading pauses, in bytes;
    /// 65,536 unless said.
    ///
    /// asyncio: `limit`.
    pub fn limit(mut self, limit: usize) -> Self {
        self.target.limit = limit;
        self
    }

    /// Ends the process with its whole group when the [`Process`] is dropped, for example because the task that holds it
    /// is cancelled: by SIGTERM, and by SIGKILL what is there after `grace`. A loop that is closed before that does not
    /// wait.
    ///
    /// What the process has started ends so even where it has ended itself before, on Linux from 6.9 on. Elsewhere
    /// nothing happens then, for its group may be another one's: drop it while it runs.
    ///
    /// The process leads a group of its own, so that what it has started ends, too.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// asyncio::run(async {
    ///     let command = asyncio::create_subprocess_shell("sleep 1000; echo never").kill_on_drop(Duration::from_secs(1));
    ///     let task = asyncio::create_task(async {
    ///         let process = command.await?;
    ///         process.wait().await
    ///     });
    ///     asyncio::sleep(Duration::from_millis(10)).await?;
    ///     task.cancel(); // the shell and what it runs are asked to end
    ///     assert!(task.await.is_err());
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: has none; a process outlives its `Process`.
    pub fn kill_on_drop(mut self, grace: Duration) -> Self {
        self.target.grace = Some(grace);
        self
    }
}

impl IntoFuture for CreateSubprocess<WithStreams> {
    type Output = Result<Process>;
    type IntoFuture = Pin<Box<dyn StdFuture<Output = Result<Process>>>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.start(&running::require()?) })
    }
}

impl CreateSubprocess<WithStreams> {
    fn start(self, event_loop: &EventLoop) -> Result<Process> {
        let CreateSubprocess { mut options, target: WithStreams { limit, grace } } = self;
        check_limit(limit)?;
        if grace.is_some() {
            options.lead_group()?;
        }
        let Spawned { child, pipes } = options.spawn(event_loop)?.take();
        if grace.is_some() {
            child.hold_group_safely();
        }
        let state = Arc::new(State { child: child.clone(), ended: Event::new(), kills_group: grace.is_some() });
        let owner: Rc<dyn Parent> = Rc::new(Owner(state.clone()));
        let children = Children::of(event_loop);
        if let Err(error) = children.watch(event_loop, child.clone(), owner.clone()) {
            crate::sys::child::give_up(vec![child]);
            return Err(error);
        }
        children.keep(owner);
        let [stdin, stdout, stderr] = pipes;
        let reader = |pipe| StreamReader::of_pipe(event_loop, pipe, limit);
        let streams = || {
            let stdin = stdin.map(|pipe| StreamWriter::of_pipe(event_loop, pipe)).transpose()?;
            Ok((stdin, stdout.map(reader).transpose()?, stderr.map(reader).transpose()?))
        };
        let (stdin, stdout, stderr) = streams().inspect_err(|_: &Error| {
            // It may have ended.
            let _ = child.signal(libc::SIGKILL);
        })?;
        let shared = event_loop.inner.shared.clone();
        let ending = grace.map(|grace| (shared, grace));
        Ok(Process { stdin, stdout, stderr, state, ending })
    }
}

/// A subprocess, with streams where it has pipes.
///
/// Dropping it does not end the process, unless [`kill_on_drop`](CreateSubprocess::kill_on_drop) was asked for: it is
/// reaped when it ends, and killed when the loop is closed before. Its streams go with it, which closes the pipes.
///
/// `Threads:` may cross them; its streams belong to the loop's.
///
/// # Examples
///
/// ```
/// use asyncio::subprocess::{PIPE, Process};
///
/// asyncio::run(async {
///     let mut process: Process = asyncio::create_subprocess_exec("cat").stdin(PIPE).stdout(PIPE).await?;
///     let (stdin, stdout) = (process.stdin.take().expect("piped"), process.stdout.as_mut().expect("piped"));
///     stdin.write("a line\n")?;
///     assert_eq!(stdout.readline().await?, b"a line\n");
///     assert_eq!(process.returncode(), None);
///     stdin.close();
///     assert_eq!(process.wait().await?, 0);
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.subprocess.Process`.
pub struct Process {
    /// What is written to its standard input, if that is a pipe.
    pub stdin: Option<StreamWriter>,
    /// What is read from its standard output, if that is a pipe.
    pub stdout: Option<StreamReader>,
    /// What is read from its standard error, if that is a pipe.
    pub stderr: Option<StreamReader>,
    state: Arc<State>,
    /// The loop and the time of grace, if it is to be ended with this.
    ending: Option<(Arc<Shared>, Duration)>,
}

struct State {
    child: Arc<Child>,
    /// Set at the end.
    ended: Event,
    kills_group: bool,
}

impl Process {
    /// Its number. It is no other process's as long as `returncode` gives `None`.
    ///
    /// asyncio: `Process.pid`.
    pub fn pid(&self) -> u32 {
        self.state.child.pid()
    }

    /// What it came to, once it has ended: its exit code, or the negative number of the signal that ended it; 255 if
    /// nobody can know, because somebody else has reaped it.
    ///
    /// asyncio: `Process.returncode`.
    pub fn returncode(&self) -> Option<i32> {
        self.state.child.returncode()
    }

    /// Waits until the process ends, and gives its [`returncode`](Self::returncode). Any number of tasks may wait, on any
    /// thread.
    ///
    /// Who else holds a pipe of it does not matter. A process that waits for somebody to read what it writes does not end:
    /// read from it, or use [`communicate`](Self::communicate).
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost by cancelling or dropping it.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`]; [`Error::Runtime`] if the loop was closed before.
    ///
    /// asyncio: `Process.wait`. Differs: does not wait for pipes that others keep open.
    pub async fn wait(&self) -> Result<i32> {
        if let Some(returncode) = self.returncode() {
            return Ok(returncode);
        }
        self.state.ended.wait().await?;
        self.returncode().ok_or_else(|| Error::Runtime("Event loop is closed".into()))
    }

    /// Writes `input` to its standard input and closes that, reads its standard output and error to their ends, and waits
    /// for it: all at once, so that no side waits for the other. `None` stands for no input.
    ///
    /// Gives what was read; `None` for what is no pipe. Without a pipe the input is not sent. That the process does not
    /// read it all is no error.
    ///
    /// # Cancel safety
    ///
    /// What has been read stays in the streams, for the next call; what was to be written goes on its way.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`]; [`Error::Io`] of the pipes; [`Error::Runtime`] on another thread and when the loop is closed.
    ///
    /// # Examples
    ///
    /// See [`create_subprocess_shell`].
    ///
    /// asyncio: `Process.communicate`.
    pub async fn communicate<'i>(&mut self, input: impl Into<Input<'i>>) -> Result<(Option<Vec<u8>>, Option<Vec<u8>>)> {
        let input = input.into();
        let writing = feed(self.stdin.as_ref(), &input);
        let (stdout, stderr) = (read_to_end(self.stdout.as_mut()), read_to_end(self.stderr.as_mut()));
        let ((), stdout, stderr) = futures::future::try_join3(writing, stdout, stderr).await?;
        self.wait().await?;
        Ok((stdout, stderr))
    }

    /// Sends a signal to it. One that has ended but that the loop has not come to yet takes it in silence. On any thread.
    ///
    /// # Errors
    ///
    /// [`Error::ProcessLookup`] if it has ended; [`Error::Io`] if the system refuses: there is no such signal, or it runs
    /// under another user.
    ///
    /// asyncio: `Process.send_signal`.
    pub fn send_signal(&self, signal: impl ToSignal) -> Result<()> {
        self.state.child.signal(signal.signal_number())
    }

    /// Asks it to end, by SIGTERM.
    ///
    /// # Errors
    ///
    /// As [`send_signal`](Self::send_signal).
    ///
    /// asyncio: `Process.terminate`.
    pub fn terminate(&self) -> Result<()> {
        self.state.child.signal(libc::SIGTERM)
    }

    /// Ends it, by SIGKILL. What it has started goes on, and may keep its pipes open, so that reads of them wait.
    ///
    /// # Errors
    ///
    /// As [`send_signal`](Self::send_signal).
    ///
    /// asyncio: `Process.kill`.
    pub fn kill(&self) -> Result<()> {
        self.state.child.signal(libc::SIGKILL)
    }

    /// Signals it, with its group if that is to end with it.
    fn signal_all(&self, number: i32) -> Result<()> {
        let child = &self.state.child;
        if self.ending.is_some() { child.signal_group(number) } else { child.signal(number) }
    }

    /// Asks it to end, waits for that as long as `grace`, and kills it then. Gives its return code. Where
    /// [`kill_on_drop`](CreateSubprocess::kill_on_drop) was asked for, its whole group is asked and killed with it.
    ///
    /// # Cancel safety
    ///
    /// Cancelled or dropped, it has asked, and does not kill.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`]; [`Error::Io`] if the process runs under another user; [`Error::Runtime`] as for
    /// [`wait`](Self::wait).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// asyncio::run(async {
    ///     let process = asyncio::create_subprocess_exec(["sleep", "1000"]).await?;
    ///     assert_eq!(process.shutdown(Duration::from_secs(10)).await?, -15);
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: has none.
    pub async fn shutdown(&self, grace: Duration) -> Result<i32> {
        unless_gone(self.signal_all(libc::SIGTERM))?;
        match timeout(grace, self.wait()).await {
            Err(Error::Timeout(_)) => {
                unless_gone(self.signal_all(libc::SIGKILL))?;
                self.wait().await
            }
            ended => ended,
        }
    }
}

/// That a process has ended is no error where it is to end.
fn unless_gone(sent: Result<()>) -> Result<()> {
    sent.or_else(|error| if error.kind() == ErrorKind::ProcessLookup { Ok(()) } else { Err(error) })
}

async fn feed(stdin: Option<&StreamWriter>, input: &Input<'_>) -> Result<()> {
    let Some(stdin) = stdin else { return Ok(()) };
    if let Some(input) = &input.0 {
        stdin.write(input)?;
        if let Err(error) = stdin.drain().await {
            let kind = error.io_error().map(io::Error::kind);
            if !matches!(kind, Some(io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)) {
                return Err(error);
            }
        }
    }
    stdin.close();
    Ok(())
}

async fn read_to_end(reader: Option<&mut StreamReader>) -> Result<Option<Vec<u8>>> {
    match reader {
        Some(reader) => reader.read(None).await.map(Some),
        None => Ok(None),
    }
}

/// What is sent to a process by [`Process::communicate`]: bytes, a text, or `None`.
///
/// asyncio: the `input` argument.
#[derive(Clone, Debug)]
pub struct Input<'i>(Option<Cow<'i, [u8]>>);

impl From<Option<Vec<u8>>> for Input<'_> {
    fn from(input: Option<Vec<u8>>) -> Self {
        Input(input.map(Cow::Owned))
    }
}

impl From<Vec<u8>> for Input<'_> {
    fn from(input: Vec<u8>) -> Self {
        Input(Some(Cow::Owned(input)))
    }
}

impl From<String> for Input<'_> {
    fn from(input: String) -> Self {
        Input::from(input.into_bytes())
    }
}

impl<'i> From<&'i [u8]> for Input<'i> {
    fn from(input: &'i [u8]) -> Self {
        Input(Some(Cow::Borrowed(input)))
    }
}

impl<'i, const N: usize> From<&'i [u8; N]> for Input<'i> {
    fn from(input: &'i [u8; N]) -> Self {
        Input::from(&input[..])
    }
}

impl<'i> From<&'i Vec<u8>> for Input<'i> {
    fn from(input: &'i Vec<u8>) -> Self {
        Input::from(&input[..])
    }
}

impl<'i> From<&'i str> for Input<'i> {
    fn from(input: &'i str) -> Self {
        Input::from(input.as_bytes())
    }
}

impl<'i> From<&'i String> for Input<'i> {
    fn from(input: &'i String) -> Self {
        Input::from(input.as_bytes())
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Process {:?}>", self.state.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some((shared, grace)) = self.ending.take() else { return };
        let child = self.state.child.clone();
        if child.returncode().is_some() && child.group_is_gone() {
            return;
        }
        child.hold_group();
        // It may have ended, or run under another user.
        let _ = child.signal_group(libc::SIGTERM);
        let end = move |event_loop: &EventLoop| Ending::begin(event_loop, child, grace);
        match running::local(&shared) {
            Some(event_loop) if !event_loop.is_closed() => end(&event_loop),
            Some(_) => {}
            None => drop(shared.push_call(end)), // a closed loop has killed it
        }
    }
}

/// The process as its loop sees it.
struct Owner(Arc<State>);

impl Parent for Owner {
    fn exited(self: Rc<Self>, event_loop: &EventLoop, _: i32) {
        self.0.ended.set();
        let this: Rc<dyn Parent> = self;
        Children::of(event_loop).forget(&this);
    }

    fn discard(self: Rc<Self>) {
        if self.0.kills_group {
            // It may have ended.
            let _ = self.0.child.signal_group(libc::SIGKILL);
        }
        self.0.ended.set();
    }
}

/// A group of processes that has been asked to end.
///
/// ```text
/// begin -> looked at, again and again -> gone, or killed at the deadline
/// ```
struct Ending {
    child: Arc<Child>,
    deadline: Instant,
    /// Set at the end; never cleared.
    done: Cell<bool>,
}

impl Ending {
    fn begin(event_loop: &EventLoop, child: Arc<Child>, grace: Duration) {
        let deadline = event_loop.deadline_in(grace);
        Rc::new(Ending { child, deadline, done: Cell::new(false) }).look(event_loop);
    }

    fn look(self: Rc<Self>, event_loop: &EventLoop) {
        if self.child.returncode().is_some() && self.child.group_is_gone() {
            self.done.set(true);
        } else if event_loop.time() < self.deadline {
            let next = event_loop.deadline_in(GROUP_CHECK).min(self.deadline);
            event_loop.insert_timer(next, TimerEntry::Io(self, IoEvent::Retry));
        }
    }
}

impl Drop for Ending {
    /// At the deadline, or where the loop was closed: there is no more time.
    fn drop(&mut self) {
        if !self.done.get() {
            // It may just have ended.
            let _ = self.child.signal_group(libc::SIGKILL);
            self.child.release_group();
        }
    }
}

impl IoHandler for Ending {
    fn run(self: Rc<Self>, event_loop: &EventLoop, _: IoEvent) {
        self.look(event_loop);
    }

    fn discard(self: Rc<Self>) {}

    fn describe(&self) -> String {
        format!("<process group {:?}>", self.child)
    }
}
