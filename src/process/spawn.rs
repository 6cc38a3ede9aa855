//! Starting subprocesses.

use std::{
    cell::RefCell,
    ffi::{OsStr, OsString},
    fmt,
    future::{Future as StdFuture, IntoFuture},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    pin::Pin,
    process::Command,
    rc::Rc,
};

use crate::{
    error::{Error, Result},
    event_loop::EventLoop,
    net::sock::Home,
    process::{
        protocol::{AnySubprocessProtocol, SubprocessProtocol},
        stdio::{Setting, Stdio},
        transport::{Subprocess, SubprocessTransport},
        watcher::Children,
    },
    sys::child::{self, Setup, Spawned},
};

impl EventLoop {
    /// Starts a program, and tells the protocol that `factory` makes of what comes through its pipes and of its end.
    ///
    /// `program` is a name, which is looked for in `PATH`, or a path; a list of words, the program and its arguments; or a
    /// [`std::process::Command`], which keeps what it was given, but its standard streams. Those are pipes, unless
    /// [`stdin`](CreateSubprocess::stdin), [`stdout`](CreateSubprocess::stdout) and [`stderr`](CreateSubprocess::stderr)
    /// say otherwise.
    ///
    /// The protocol's `connection_made` has been called when this returns, and nothing but that. The process belongs to
    /// the loop: it is reaped when it ends, whoever still has its transport, and killed when the loop is closed before.
    /// This works on every thread, and takes no handler of SIGCHLD where the system has descriptors for processes, as
    /// Linux does. Other children of this program are never reaped.
    ///
    /// Descriptors that are not closed at exec are inherited, as by [`std::process::Command`]; see
    /// [`close_fds`](CreateSubprocess::close_fds).
    ///
    /// # Cancel safety
    ///
    /// Nothing is started before it is awaited. A cancelled or dropped call kills what it has started.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] with the program's name in its text, where it cannot be started:
    /// [`NotFound`](io::ErrorKind::NotFound) for the program or its directory,
    /// [`PermissionDenied`](io::ErrorKind::PermissionDenied), want of descriptors or memory. [`Error::Value`] for what
    /// contradicts itself, and for a NUL in a word. [`Error::Runtime`] where no loop runs, [`Error::Value`] in another
    /// loop than this one. The factory has not been called then, and no descriptor is left open.
    ///
    /// # Panics
    ///
    /// A panic of the factory comes out of the await; the process is killed.
    ///
    /// # Examples
    ///
    /// ```
    /// use asyncio::{SubprocessProtocol, SubprocessTransport};
    ///
    /// /// Asks for one line, and gives what comes back.
    /// struct Ask(Vec<u8>, asyncio::Future<String>);
    ///
    /// impl SubprocessProtocol for Ask {
    ///     fn connection_made(&mut self, transport: &SubprocessTransport) {
    ///         let stdin = transport.get_pipe_transport(0).expect("it is piped");
    ///         stdin.write(b"hello");
    ///         stdin.close();
    ///     }
    ///
    ///     fn pipe_data_received(&mut self, _fd: i32, data: &[u8]) {
    ///         self.0.extend_from_slice(data);
    ///     }
    ///
    ///     fn connection_lost(&mut self, _error: Option<&asyncio::Error>) {
    ///         let _ = self.1.set_result(String::from_utf8_lossy(&self.0).into_owned());
    ///     }
    /// }
    ///
    /// asyncio::run(async {
    ///     let event_loop = asyncio::get_running_loop()?;
    ///     let answer = event_loop.create_future();
    ///     let ask = Ask(Vec::new(), answer.clone());
    ///     let (transport, _) = event_loop.subprocess_exec(|| ask, ["tr", "a-z", "A-Z"]).await?;
    ///     assert_eq!(answer.await?, "HELLO");
    ///     assert_eq!(transport.get_returncode(), Some(0));
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `loop.subprocess_exec`. Differs: the program and its arguments are one list, further ones are `arg`s; the
    /// factory is called when the program runs.
    pub fn subprocess_exec<'f, P: SubprocessProtocol>(
        &self,
        factory: impl FnOnce() -> P + 'f,
        program: impl Into<Program>,
    ) -> CreateSubprocess<WithProtocol<'f, P>> {
        self.subprocess(factory, program.into())
    }

    /// Runs a command in the shell, `/bin/sh`; otherwise as [`subprocess_exec`](Self::subprocess_exec).
    ///
    /// What comes from elsewhere does not belong into a command: give it as an argument of a program, or in a variable of
    /// the environment.
    ///
    /// # Errors
    ///
    /// As [`subprocess_exec`](Self::subprocess_exec). A program that the shell does not find is the shell's exit code 127.
    ///
    /// # Examples
    ///
    /// ```
    /// struct Exit(asyncio::Future<()>);
    ///
    /// impl asyncio::SubprocessProtocol for Exit {
    ///     fn process_exited(&mut self) {
    ///         let _ = self.0.set_result(()); // unless nobody waits for it any more
    ///     }
    /// }
    ///
    /// asyncio::run(async {
    ///     let event_loop = asyncio::get_running_loop()?;
    ///     let exited = event_loop.create_future();
    ///     let exit = Exit(exited.clone());
    ///     let (transport, _) = event_loop.subprocess_shell(|| exit, "exit $(expr $A + 2)").env("A", "5").await?;
    ///     exited.await?;
    ///     assert_eq!(transport.get_returncode(), Some(7));
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `loop.subprocess_shell`.
    pub fn subprocess_shell<'f, P: SubprocessProtocol>(
        &self,
        factory: impl FnOnce() -> P + 'f,
        command: impl AsRef<OsStr>,
    ) -> CreateSubprocess<WithProtocol<'f, P>> {
        self.subprocess(factory, Program::shell(command.as_ref()))
    }

    fn subprocess<'f, P>(
        &self,
        factory: impl FnOnce() -> P + 'f,
        program: Program,
    ) -> CreateSubprocess<WithProtocol<'f, P>> {
        CreateSubprocess::new(program, WithProtocol { home: Home::of(self), factory: Box::new(factory) })
    }
}

/// What a subprocess runs: a name or path, a list of words, or a [`std::process::Command`].
///
/// asyncio: `program` and `*args`.
#[derive(Debug)]
pub struct Program(Kind);

#[derive(Debug)]
enum Kind {
    Words(Vec<OsString>),
    Shell(OsString),
    Command(Command),
}

impl Program {
    pub(crate) fn shell(command: &OsStr) -> Self {
        Program(Kind::Shell(command.to_owned()))
    }

    fn words<S: Into<OsString>>(words: impl IntoIterator<Item = S>) -> Self {
        Program(Kind::Words(words.into_iter().map(Into::into).collect()))
    }
}

impl From<Command> for Program {
    fn from(command: Command) -> Self {
        Program(Kind::Command(command))
    }
}

impl From<&str> for Program {
    fn from(name: &str) -> Self {
        Program::words([name])
    }
}

impl From<String> for Program {
    fn from(name: String) -> Self {
        Program::words([name])
    }
}

impl From<&String> for Program {
    fn from(name: &String) -> Self {
        Program::words([name])
    }
}

impl From<&OsStr> for Program {
    fn from(name: &OsStr) -> Self {
        Program::words([name])
    }
}

impl From<OsString> for Program {
    fn from(name: OsString) -> Self {
        Program::words([name])
    }
}

impl From<&Path> for Program {
    fn from(path: &Path) -> Self {
        Program::words([path])
    }
}

impl From<PathBuf> for Program {
    fn from(path: PathBuf) -> Self {
        Program::words([path])
    }
}

impl From<&PathBuf> for Program {
    fn from(path: &PathBuf) -> Self {
        Program::words([path])
    }
}

impl<S: Into<OsString>, const N: usize> From<[S; N]> for Program {
    fn from(words: [S; N]) -> Self {
        Program::words(words)
    }
}

impl<S: Into<OsString>> From<Vec<S>> for Program {
    fn from(words: Vec<S>) -> Self {
        Program::words(words)
    }
}

impl<S: AsRef<OsStr>> From<&[S]> for Program {
    fn from(words: &[S]) -> Self {
        Program::words(words.iter().map(S::as_ref))
    }
}

impl<S: AsRef<OsStr>, const N: usize> From<&[S; N]> for Program {
    fn from(words: &[S; N]) -> Self {
        Program::from(&words[..])
    }
}

impl<S: AsRef<OsStr>> From<&Vec<S>> for Program {
    fn from(words: &Vec<S>) -> Self {
        Program::from(&words[..])
    }
}

/// The work of [`EventLoop::subprocess_exec`], of [`create_subprocess_exec`](crate::create_subprocess_exec) and of their
/// kin: nothing is started until it is awaited.
///
/// asyncio: the keyword arguments, which are those of `subprocess.Popen`.
#[must_use = "nothing is started until it is awaited"]
pub struct CreateSubprocess<T> {
    pub(crate) options: Options,
    pub(crate) target: T,
}

/// A subprocess with a protocol is to be made.
pub struct WithProtocol<'f, P> {
    home: Home,
    factory: Box<dyn FnOnce() -> P + 'f>,
}

impl<P> fmt::Debug for WithProtocol<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WithProtocol").finish_non_exhaustive()
    }
}

impl<T: fmt::Debug> fmt::Debug for CreateSubprocess<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CreateSubprocess").field(&self.options).field(&self.target).finish()
    }
}

impl<T> CreateSubprocess<T> {
    pub(crate) fn new(program: Program, target: T) -> Self {
        CreateSubprocess { options: Options::new(program), target }
    }

    /// One more argument.
    ///
    /// asyncio: one more of `*args`.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.options.args.push(arg.as_ref().to_owned());
        self
    }

    /// More arguments.
    ///
    /// asyncio: `*args`.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.options.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Where its standard input comes from.
    ///
    /// asyncio: `stdin`.
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.options.stdio[0] = Some(stdin.into());
        self
    }

    /// Where its standard output goes.
    ///
    /// asyncio: `stdout`.
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.options.stdio[1] = Some(stdout.into());
        self
    }

    /// Where its standard error goes.
    ///
    /// asyncio: `stderr`.
    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.options.stdio[2] = Some(stderr.into());
        self
    }

    /// The directory that it runs in; otherwise this process's.
    ///
    /// asyncio: `cwd`.
    pub fn cwd(mut self, directory: impl AsRef<Path>) -> Self {
        self.options.cwd = Some(directory.as_ref().to_owned());
        self
    }

    /// Sets a variable of its environment, which is otherwise this process's.
    ///
    /// asyncio: `env`. Differs: adds to the environment; see [`env_clear`](Self::env_clear).
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        let change = Variable::Set(name.as_ref().to_owned(), value.as_ref().to_owned());
        self.options.environment.push(change);
        self
    }

    /// As [`env`](Self::env), for several.
    ///
    /// asyncio: `env=` with those of `os.environ`, too.
    pub fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(self, variables: impl IntoIterator<Item = (N, V)>) -> Self {
        variables.into_iter().fold(self, |this, (name, value)| this.env(name, value))
    }

    /// Takes a variable out of its environment.
    ///
    /// asyncio: has none; `env=` without it.
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.options.environment.push(Variable::Remove(name.as_ref().to_owned()));
        self
    }

    /// Empties its environment: it has what is set after this, and nothing else.
    ///
    /// asyncio: `env={}`.
    pub fn env_clear(mut self) -> Self {
        self.options.environment.push(Variable::Clear);
        self
    }

    /// Runs this program in the place of the one that the first word names, which the program still finds there. For a
    /// command of the shell it is the shell.
    ///
    /// asyncio: `executable`.
    pub fn executable(mut self, program: impl AsRef<OsStr>) -> Self {
        self.options.executable = Some(program.as_ref().to_owned());
        self
    }

    /// Whether it leads a session of its own (`setsid`), and so has no terminal and a group of its own.
    ///
    /// asyncio: `start_new_session`.
    pub fn start_new_session(mut self, start_new_session: bool) -> Self {
        self.options.start_new_session = start_new_session;
        self
    }

    /// The group of processes that it belongs to; 0 is a new one, which it leads.
    ///
    /// asyncio: `process_group`.
    pub fn process_group(mut self, process_group: i32) -> Self {
        self.options.process_group = Some(process_group);
        self
    }

    /// The number of the user that it runs under. If this process is the superuser's it has no supplementary groups then,
    /// unless [`extra_groups`](Self::extra_groups) gives some.
    ///
    /// asyncio: `user`. Differs: takes no names; a superuser's groups are not kept.
    pub fn user(mut self, user: u32) -> Self {
        self.options.user = Some(user);
        self
    }

    /// The number of the group that it runs under.
    ///
    /// asyncio: `group`. Differs: takes no names.
    pub fn group(mut self, group: u32) -> Self {
        self.options.group = Some(group);
        self
    }

    /// The numbers of its supplementary groups.
    ///
    /// asyncio: `extra_groups`. Differs: takes no names.
    pub fn extra_groups(mut self, groups: impl IntoIterator<Item = u32>) -> Self {
        self.options.extra_groups = Some(groups.into_iter().collect());
        self
    }

    /// Which permissions the files that it makes do not have.
    ///
    /// asyncio: `umask`.
    pub fn umask(mut self, umask: u32) -> Self {
        self.options.umask = Some(umask);
        self
    }

    /// The descriptors that stay open in it, by the same numbers; all others but the standard streams are closed. They
    /// must be open here until it is started.
    ///
    /// asyncio: `pass_fds`.
    pub fn pass_fds(mut self, fds: impl IntoIterator<Item = impl AsFd>) -> Self {
        let numbers = fds.into_iter().map(|fd| fd.as_fd().as_raw_fd());
        self.options.pass_fds.get_or_insert_default().extend(numbers);
        self
    }

    /// Whether no descriptor is inherited but the standard streams and those of [`pass_fds`](Self::pass_fds), not even
    /// those that are not marked to be closed at exec. What Rust opens is.
    ///
    /// asyncio: `close_fds`. Differs: off, unless there are `pass_fds`; starting a program is faster so.
    pub fn close_fds(mut self, close_fds: bool) -> Self {
        self.options.close_fds = Some(close_fds);
        self
    }

    /// Whether SIGPIPE, which Rust's programs ignore, does what it does by default: it ends who writes to a pipe that
    /// nobody reads. True unless said otherwise.
    ///
    /// asyncio: `restore_signals`.
    pub fn restore_signals(mut self, restore_signals: bool) -> Self {
        self.options.keeps_sigpipe = !restore_signals;
        self
    }
}

/// What a subprocess is started with.
#[derive(Debug)]
pub(crate) struct Options {
    program: Program,
    args: Vec<OsString>,
    stdio: [Option<Stdio>; 3],
    cwd: Option<PathBuf>,
    environment: Vec<Variable>,
    executable: Option<OsString>,
    start_new_session: bool,
    process_group: Option<i32>,
    user: Option<u32>,
    group: Option<u32>,
    extra_groups: Option<Vec<u32>>,
    umask: Option<u32>,
    pass_fds: Option<Vec<RawFd>>,
    close_fds: Option<bool>,
    keeps_sigpipe: bool,
}

/// A change of the environment.
#[derive(Debug)]
enum Variable {
    Set(OsString, OsString),
    Remove(OsString),
    Clear,
}

impl Options {
    fn new(program: Program) -> Self {
        Options {
            program,
            args: Vec::new(),
            stdio: [const { None }; 3],
            cwd: None,
            environment: Vec::new(),
            executable: None,
            start_new_session: false,
            process_group: None,
            user: None,
            group: None,
            extra_groups: None,
            umask: None,
            pass_fds: None,
            close_fds: None,
            keeps_sigpipe: false,
        }
    }

    /// Gives pipes to the standard streams that nothing is said of.
    fn with_pipes(mut self) -> Self {
        for stdio in &mut self.stdio {
            stdio.get_or_insert(Stdio::PIPE);
        }
        self
    }

    /// Gives the process a group of its own, whatever else is said.
    pub(crate) fn lead_group(&mut self) -> Result<()> {
        match self.process_group {
            None if self.start_new_session => {}
            None => self.process_group = Some(0),
            Some(0) => {}
            Some(_) => {
                return Err(Error::Value("kill_on_drop does not go with the process_group of another one".into()));
            }
        }
        Ok(())
    }

    /// Finds contradictions, and what was wrong from the beginning.
    fn validate(&mut self) -> Result<()> {
        let refuse = |text: &'static str| Err(Error::Value(text.into()));
        match &self.program.0 {
            Kind::Words(words) if words.is_empty() => return refuse("a program is needed"),
            Kind::Shell(_) if !self.args.is_empty() => {
                return refuse("a command of the shell has no arguments: they belong into the command");
            }
            Kind::Command(_) if self.executable.is_some() => {
                return refuse("executable does not go with a Command: make that of it, with arg0");
            }
            _ => {}
        }
        if self.start_new_session && self.process_group.is_some() {
            return refuse("process_group does not go with start_new_session: who leads a session leads its group");
        }
        if self.process_group.is_some_and(|group| group < 0) {
            return refuse("process_group must not be negative");
        }
        if self.close_fds == Some(false) && self.pass_fds.is_some() {
            return refuse("pass_fds does not go with close_fds(false)");
        }
        for (name, stdio) in ["stdin", "stdout"].into_iter().zip(&self.stdio) {
            if let Some(Stdio(Setting::Stdout)) = stdio {
                return Err(Error::Value(format!("STDOUT is for stderr only, not for {name}").into()));
            }
        }
        for (name, stdio) in ["stdin", "stdout", "stderr"].into_iter().zip(&mut self.stdio) {
            if let Some(Stdio(Setting::Descriptor(Err(error)))) = stdio {
                return Err(Error::io(std::mem::replace(error, io::ErrorKind::Other.into()), name));
            }
        }
        for number in self.pass_fds.iter().flatten() {
            if let Err(error) = child::check_open(*number) {
                return Err(Error::io(error, format!("descriptor {number} in pass_fds")));
            }
        }
        Ok(())
    }

    /// Starts the program. What the standard library's command has of pipes it has too, where nothing else is said.
    pub(crate) fn spawn(mut self, event_loop: &EventLoop) -> Result<Started> {
        self.validate()?;
        event_loop.check_open()?;
        let kept = match (self.pass_fds.take(), self.close_fds) {
            (None, Some(true)) => Some(Vec::new()),
            (kept, _) => kept,
        };
        let mut setup = Setup {
            umask: self.umask,
            keeps_sigpipe: self.keeps_sigpipe,
            new_session: self.start_new_session,
            groups: self.extra_groups.take(),
            group: self.group,
            user: self.user,
            stderr_to_stdout: false,
            kept,
        };
        let is_command = matches!(self.program.0, Kind::Command(_));
        let stdio = std::mem::take(&mut self.stdio);
        let mut command = self.command();
        let program = command.get_program().to_owned();
        let failed = |error: io::Error| {
            if error.kind() == io::ErrorKind::InvalidInput && error.raw_os_error().is_none() {
                return Error::Value(format!("embedded null byte: {program:?}").into());
            }
            let directory = self.cwd.as_ref().map(|directory| format!(" in {directory:?}")).unwrap_or_default();
            Error::io(error, format!("cannot start {program:?}{directory}"))
        };
        let shared = set_stdio(&mut command, stdio, is_command, &mut setup).map_err(&failed)?;
        let by_descriptor = Children::of(event_loop).by_descriptor();
        let Spawned { child, mut pipes } = child::spawn(command, setup, by_descriptor).map_err(&failed)?;
        if let Some(shared) = shared {
            pipes[1] = Some(shared);
        }
        Ok(Started(Some(Spawned { child, pipes })))
    }

    /// The command with all but its standard streams.
    fn command(&mut self) -> Command {
        let executable = self.executable.take();
        let program = std::mem::replace(&mut self.program.0, Kind::Words(Vec::new()));
        let mut command = match program {
            Kind::Command(command) => command,
            Kind::Shell(line) => {
                let mut command = Command::new(executable.unwrap_or_else(|| "/bin/sh".into()));
                command.arg("-c").arg(line);
                command
            }
            Kind::Words(words) => {
                let mut words = words.into_iter();
                let name = words.next().unwrap_or_default();
                let mut command = match executable {
                    None => Command::new(name),
                    Some(executable) => {
                        let mut command = Command::new(executable);
                        command.arg0(name);
                        command
                    }
                };
                command.args(words);
                command
            }
        };
        command.args(&self.args);
        for change in &self.environment {
            match change {
                Variable::Set(name, value) => command.env(name, value),
                Variable::Remove(name) => command.env_remove(name),
                Variable::Clear => command.env_clear(),
            };
        }
        if let Some(directory) = &self.cwd {
            command.current_dir(directory);
        }
        if let Some(process_group) = self.process_group {
            command.process_group(process_group);
        }
        command
    }
}

/// Sets the standard streams. Where output and error share a pipe, the end that is read from is given back.
fn set_stdio(
    command: &mut Command,
    stdio: [Option<Stdio>; 3],
    is_command: bool,
    setup: &mut Setup,
) -> io::Result<Option<OwnedFd>> {
    let [stdin, stdout, stderr] = stdio.map(|stdio| stdio.map(|stdio| stdio.0));
    if let Some(stdin) = stdin {
        command.stdin(standard(stdin)?);
    }
    if !matches!(stderr, Some(Setting::Stdout)) {
        if let Some(stdout) = stdout {
            command.stdout(standard(stdout)?);
        }
        if let Some(stderr) = stderr {
            command.stderr(standard(stderr)?);
        }
        return Ok(None);
    }
    let (shared, writer) = match stdout {
        // What the command was given before cannot be asked for.
        None if is_command => {
            setup.stderr_to_stdout = true;
            return Ok(None);
        }
        None | Some(Setting::Inherit | Setting::Stdout) => (None, io::stdout().as_fd().try_clone_to_owned()?),
        Some(Setting::DevNull) => {
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            return Ok(None);
        }
        Some(Setting::Descriptor(descriptor)) => (None, descriptor?),
        Some(Setting::Pipe) => {
            let (reader, writer) = child::pipe()?;
            (Some(reader), writer)
        }
    };
    command.stdout(writer.try_clone()?).stderr(writer);
    Ok(shared)
}

fn standard(setting: Setting) -> io::Result<std::process::Stdio> {
    Ok(match setting {
        Setting::Pipe => std::process::Stdio::piped(),
        Setting::DevNull => std::process::Stdio::null(),
        Setting::Inherit | Setting::Stdout => std::process::Stdio::inherit(),
        Setting::Descriptor(descriptor) => descriptor?.into(),
    })
}

/// A process that nobody waits for yet: killed if it is dropped.
#[derive(Debug)]
pub(crate) struct Started(Option<Spawned>);

impl Started {
    pub(crate) fn take(mut self) -> Spawned {
        self.0.take().expect("it is taken once")
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(Spawned { child, pipes }) = self.0.take() {
            drop(pipes);
            child::give_up(vec![child]);
        }
    }
}

impl<'f, P: SubprocessProtocol> IntoFuture for CreateSubprocess<WithProtocol<'f, P>> {
    type Output = Result<(SubprocessTransport, Rc<RefCell<P>>)>;
    type IntoFuture = Pin<Box<dyn StdFuture<Output = Self::Output> + 'f>>;

    fn into_future(self) -> Self::IntoFuture {
        let CreateSubprocess { options, target: WithProtocol { home, factory } } = self;
        Box::pin(async move {
            let event_loop = home.event_loop()?;
            let started = options.with_pipes().spawn(&event_loop)?;
            let protocol = Rc::new(RefCell::new(factory()));
            let opener = event_loop.create_future();
            let erased = AnySubprocessProtocol(protocol.clone());
            let process = Subprocess::open(&event_loop, started.take(), erased, opener.clone())?;
            let mut process = Unclaimed(Some(process));
            // A future that holds its loop would keep it alive.
            drop(event_loop);
            opener.await?;
            let process = process.0.take().expect("nobody else takes it");
            Ok((SubprocessTransport(process), protocol))
        })
    }
}

/// A subprocess that nobody has yet: given up where its opening is.
struct Unclaimed(Option<Rc<Subprocess>>);

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(process) = self.0.take() {
            process.abandon();
        }
    }
}
