//! Child processes: what happens in them before their program runs, signals to them, and their end.

use std::{
    fmt, io, mem,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{Pid, WaitOptions},
};

use crate::{
    constants::{LAST_WORDS, UNKNOWN_RETURNCODE},
    error::{Error, ErrorKind, Result},
    sys::fork,
};

/// What a child does between its birth and its program, beside what the standard library does.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    pub(crate) umask: Option<u32>,
    /// Whether SIGPIPE stays ignored, if it is.
    pub(crate) keeps_sigpipe: bool,
    pub(crate) new_session: bool,
    pub(crate) groups: Option<Vec<u32>>,
    pub(crate) group: Option<u32>,
    pub(crate) user: Option<u32>,
    /// Whether standard error goes where standard output goes.
    pub(crate) stderr_to_stdout: bool,
    /// The descriptors that stay open beside the standard ones, if the others are to be closed.
    pub(crate) kept: Option<Vec<RawFd>>,
}

impl Setup {
    /// Whether there is nothing to do, so that the system's fastest way of starting a program will do.
    fn is_empty(&self) -> bool {
        let Setup { umask, keeps_sigpipe, new_session, groups, group, user, stderr_to_stdout, kept } = self;
        let numbers = umask.or(*group).or(*user);
        let switches = *keeps_sigpipe || *new_session || *stderr_to_stdout;
        numbers.is_none() && groups.is_none() && kept.is_none() && !switches
    }

    /// Runs in the child. Async-signal-safe: system calls and memory that is there.
    fn apply(&self, last_descriptor: RawFd) -> io::Result<()> {
        // SAFETY: each call takes numbers, or a pointer with the length of the vector that it points into.
        unsafe {
            if let Some(umask) = self.umask {
                libc::umask(umask as libc::mode_t);
            }
            if self.keeps_sigpipe {
                libc::signal(libc::SIGPIPE, libc::SIG_IGN);
            }
            if self.new_session {
                check(libc::setsid())?;
            }
            match &self.groups {
                Some(groups) => check(libc::setgroups(groups.len() as _, groups.as_ptr()))?,
                // The groups of the superuser are not for another.
                None if self.user.is_some() && libc::geteuid() == 0 => check(libc::setgroups(0, std::ptr::null()))?,
                None => {}
            }
            if let Some(group) = self.group {
                check(libc::setregid(group, group))?;
            }
            if let Some(user) = self.user {
                check(libc::setreuid(user, user))?;
            }
            if self.stderr_to_stdout {
                check(libc::dup2(1, 2))?;
            }
            if let Some(kept) = &self.kept {
                close_at_exec(last_descriptor);
                for number in kept {
                    let flags = libc::fcntl(*number, libc::F_GETFD);
                    check(flags)?;
                    check(libc::fcntl(*number, libc::F_SETFD, flags & !libc::FD_CLOEXEC))?;
                }
            }
        }
        Ok(())
    }
}

/// Gives the system's error for the result -1.
fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has every descriptor but the standard ones closed when another program runs; what the standard library waits for is so
/// already.
fn close_at_exec(last_descriptor: RawFd) {
    if descriptor::close_all_at_exec() {
        return;
    }
    for number in 3..=last_descriptor {
        // SAFETY: it takes numbers; one that is no descriptor is an error, which does not matter.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// The highest number that a descriptor can have, or a high one where there is no limit.
fn last_descriptor() -> RawFd {
    // SAFETY: it takes a number.
    let limit = unsafe { libc::sysconf(libc::_SC_OPEN_MAX) };
    RawFd::try_from(limit).ok().filter(|limit| *limit > 0).map_or(65_535, |limit| limit - 1)
}

/// Whether this process ignores SIGPIPE, as Rust's programs do.
fn ignores_sigpipe() -> bool {
    let mut current = mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action sigaction only writes the old one, to a pointer that is valid; zeros are valid too.
    unsafe {
        libc::sigaction(libc::SIGPIPE, std::ptr::null(), current.as_mut_ptr());
        current.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// A child that has just been started, and the parent's ends of its pipes: of standard input, output and error.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) child: Arc<Child>,
    pub(crate) pipes: [Option<OwnedFd>; 3],
}

/// Starts a program. With `by_descriptor` its end is seen by a descriptor, where the system has such.
pub(crate) fn spawn(mut command: Command, mut setup: Setup, by_descriptor: bool) -> io::Result<Spawned> {
    reap_orphans();
    setup.keeps_sigpipe &= ignores_sigpipe();
    if !setup.is_empty() {
        let last_descriptor = last_descriptor();
        // SAFETY: `apply` makes system calls only, and neither allocates nor locks.
        unsafe { command.pre_exec(move || setup.apply(last_descriptor)) };
    }
    let mut child = command.spawn()?;
    let pipes = [
        child.stdin.take().map(OwnedFd::from),
        child.stdout.take().map(OwnedFd::from),
        child.stderr.take().map(OwnedFd::from),
    ];
    let pid = Pid::from_child(&child);
    // Without a descriptor its end is looked for otherwise, whatever the reason.
    let descriptor = if by_descriptor { descriptor::open(pid).ok() } else { None };
    let state = Mutex::new(State { stage: Stage::Running(descriptor), holds: Holds::Nothing });
    let child = Child { pid, generation: fork::generation(), state };
    Ok(Spawned { child: Arc::new(child), pipes })
}

/// A child process of ours.
///
/// ```text
/// Running --reap--> Ended
/// ```
///
/// Its number stays its own until it is reaped, and signals are sent and the child is reaped under one lock: nobody else
/// is ever signalled, or reaped.
///
/// `Threads:` may cross them and be shared by them.
pub(crate) struct Child {
    pid: Pid,
    /// The process that it is a child of.
    generation: u32,
    state: Mutex<State>,
}

struct State {
    stage: Stage,
    holds: Holds,
}

/// Whether the group that a child leads is to be signalled after its end, too.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    Nothing,
    /// If there is something that stands for it, whoever has its number.
    Safely,
    Anyhow,
}

enum Stage {
    /// With the descriptor that becomes readable at its end.
    Running(Option<OwnedFd>),
    /// With its return code.
    Ended(i32, Group),
}

/// The group of processes that a child has led.
enum Group {
    /// Nobody asks for it, or it has gone.
    None,
    /// The child's descriptor stands for it, whoever has its number.
    Descriptor(OwnedFd),
    /// It had members when this was last asked. As long as it has the system gives its number to nobody else, and it takes
    /// the system longer to come to the same number again than to the next question.
    Number,
}

/// What a child came to.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code, or the negative number of the signal that ended it.
    pub(crate) returncode: i32,
    /// Whether that is so: somebody else may have asked the system before, which answers once.
    pub(crate) is_known: bool,
    /// What told of the end; its owner is to be told before it is closed.
    pub(crate) descriptor: Option<OwnedFd>,
}

impl Child {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// The descriptor that becomes readable at its end; it is open until the child is reaped.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        match &self.state().stage {
            Stage::Running(descriptor) => descriptor.as_ref().map(AsRawFd::as_raw_fd),
            Stage::Ended(..) => None,
        }
    }

    /// What it came to, once it is reaped.
    pub(crate) fn returncode(&self) -> Option<i32> {
        match &self.state().stage {
            Stage::Running(_) => None,
            Stage::Ended(returncode, _) => Some(*returncode),
        }
    }

    /// Sends a signal to it; one that has ended and is not reaped yet takes it in silence.
    pub(crate) fn signal(&self, number: i32) -> Result<()> {
        self.send(number, |pid, stage| match stage {
            Stage::Running(Some(descriptor)) => descriptor::signal(descriptor, number),
            Stage::Running(None) => kill(pid, number),
            Stage::Ended(..) => Err(Errno::SRCH.into()),
        })
    }

    /// Sends a signal to the group of processes that it leads; while [`hold_group`](Self::hold_group) lasts after its end,
    /// too.
    pub(crate) fn signal_group(&self, number: i32) -> Result<()> {
        self.send(number, |pid, stage| match stage {
            Stage::Running(_) | Stage::Ended(_, Group::Number) => kill(-pid, number),
            Stage::Ended(_, Group::Descriptor(descriptor)) => descriptor::signal_group(descriptor, number),
            Stage::Ended(_, Group::None) => Err(Errno::SRCH.into()),
        })
    }

    /// Whether nobody is left in the group whose leader it was. Once it is true there is no group to be signalled.
    pub(crate) fn group_is_gone(&self) -> bool {
        let gone = self.signal_group(0).is_err_and(|error| error.kind() == ErrorKind::ProcessLookup);
        if gone {
            self.release_group();
        }
        gone
    }

    fn send(&self, number: i32, send: impl FnOnce(i32, &Stage) -> io::Result<()>) -> Result<()> {
        let pid = self.pid.as_raw_nonzero().get();
        if self.generation != fork::generation() {
            return Err(Error::Runtime(format!("process {pid} belongs to the parent process").into()));
        }
        send(pid, &self.state().stage).map_err(|error| {
            if error.raw_os_error() == Some(libc::ESRCH) {
                return Error::ProcessLookup(format!("process {pid} has ended").into());
            }
            Error::io(error, format!("signal {number} to process {pid}"))
        })
    }

    /// From now on its group can be signalled after its end, too. Then [`group_is_gone`](Self::group_is_gone) is to be asked
    /// often.
    pub(crate) fn hold_group(&self) {
        self.state().holds = Holds::Anyhow;
    }

    /// As [`hold_group`](Self::hold_group), where the system can do it without being asked often.
    pub(crate) fn hold_group_safely(&self) {
        self.state().holds = Holds::Safely;
    }

    pub(crate) fn release_group(&self) {
        let mut state = self.state();
        state.holds = Holds::Nothing;
        if let Stage::Ended(_, group) = &mut state.stage {
            *group = Group::None;
        }
    }

    /// Asks the system what it came to; `None` while it runs, and once it has been reaped.
    pub(crate) fn reap(&self) -> Option<Ended> {
        let mut state = self.state();
        if self.generation != fork::generation() {
            return None;
        }
        let holds = state.holds;
        let Stage::Running(descriptor) = &mut state.stage else { return None };
        let (returncode, is_known) = match wait(self.pid, descriptor.as_ref()) {
            Ok(returncode) => (returncode?, true),
            // Nobody knows any more: the system keeps it for one who asks, or for none where SIGCHLD is ignored.
            Err(_) => (UNKNOWN_RETURNCODE, false),
        };
        let (group, descriptor) = match descriptor.take() {
            Some(descriptor) if holds != Holds::Nothing && descriptor::stands_for_group(&descriptor) => {
                (Group::Descriptor(descriptor), None)
            }
            descriptor if holds == Holds::Anyhow && kill(-self.pid.as_raw_nonzero().get(), 0).is_ok() => {
                (Group::Number, descriptor)
            }
            descriptor => (Group::None, descriptor),
        };
        state.stage = Stage::Ended(returncode, group);
        Some(Ended { returncode, is_known, descriptor })
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.returncode() {
            Some(returncode) => write!(f, "pid={} returncode={returncode}", self.pid()),
            None => write!(f, "pid={} running", self.pid()),
        }
    }
}

/// The exit code or the negative signal of a child that has ended, which it is asked once.
fn wait(pid: Pid, descriptor: Option<&OwnedFd>) -> io::Result<Option<i32>> {
    if let Some(descriptor) = descriptor {
        match descriptor::wait(descriptor) {
            // A kernel that has the descriptors but not this call.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            result => return result,
        }
    }
    loop {
        match rustix::process::waitpid(Some(pid), WaitOptions::NOHANG) {
            Ok(None) => return Ok(None),
            Ok(Some((_, status))) => {
                let signal = status.terminating_signal().map(|signal| -signal);
                match status.exit_status().or(signal) {
                    Some(returncode) => return Ok(Some(returncode)),
                    None => return Ok(None), // stopped, and traced by us
                }
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn kill(pid: i32, number: i32) -> io::Result<()> {
    // SAFETY: kill takes numbers. The process is a child of ours that has not been reaped.
    check(unsafe { libc::kill(pid, number) })
}

/// Children that were killed and had not ended when their loop did.
static ORPHANS: Mutex<Vec<Arc<Child>>> = Mutex::new(Vec::new());

/// Kills children that nobody waits for any more. Those that take longer than a moment to end are reaped later, when
/// another child is started or given up.
pub(crate) fn give_up(mut children: Vec<Arc<Child>>) {
    for child in &children {
        child.release_group();
        // It may have ended, or run under another user.
        let _ = child.signal(libc::SIGKILL);
    }
    let begin = Instant::now();
    loop {
        children.retain(|child| child.returncode().is_none() && child.reap().is_none());
        children.retain(|child| child.generation == fork::generation());
        if children.is_empty() || begin.elapsed() >= LAST_WORDS {
            break;
        }
        thread::sleep(Duration::from_micros(500));
    }
    if !children.is_empty() {
        ORPHANS.lock().unwrap_or_else(PoisonError::into_inner).extend(children);
    }
}

fn reap_orphans() {
    let mut orphans = ORPHANS.lock().unwrap_or_else(PoisonError::into_inner);
    orphans.retain(|child| child.generation == fork::generation());
    orphans.retain(|child| child.returncode().is_none() && child.reap().is_none());
}

/// An error if there is no such descriptor.
pub(crate) fn check_open(number: RawFd) -> io::Result<()> {
    // SAFETY: it takes numbers.
    check(unsafe { libc::fcntl(number, libc::F_GETFD) })
}

/// Two ends of a new pipe that children do not inherit: for reading and for writing.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    descriptor::pipe()
}

/// Descriptors that stand for processes, and what else Linux does in one call.
#[cfg(target_os = "linux")]
mod descriptor {
    use std::{
        io,
        os::fd::{AsFd, AsRawFd, OwnedFd},
    };

    use rustix::{
        io::Errno,
        pipe::PipeFlags,
        process::{Pid, PidfdFlags, WaitId, WaitIdOptions},
    };

    pub(super) fn open(pid: Pid) -> io::Result<OwnedFd> {
        Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
    }

    pub(super) fn signal(process: &OwnedFd, number: i32) -> io::Result<()> {
        send(process, number, 0)
    }

    /// For the group that the process leads, or has led.
    pub(super) fn signal_group(process: &OwnedFd, number: i32) -> io::Result<()> {
        send(process, number, PIDFD_SIGNAL_PROCESS_GROUP)
    }

    /// Whether the kernel knows the call above, as it does from 6.9 on.
    pub(super) fn stands_for_group(process: &OwnedFd) -> bool {
        signal_group(process, 0).map_or_else(|error| error.raw_os_error() != Some(libc::EINVAL), |()| true)
    }

    const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 4;

    fn send(process: &OwnedFd, number: i32, flags: libc::c_uint) -> io::Result<()> {
        let (fd, nothing) = (process.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
        // SAFETY: it takes numbers and a pointer that may be null.
        let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, number, nothing, flags) };
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    pub(super) fn wait(process: &OwnedFd) -> io::Result<Option<i32>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        loop {
            match rustix::process::waitid(WaitId::PidFd(process.as_fd()), options) {
                Ok(status) => {
                    let code = |status: rustix::process::WaitIdStatus| {
                        status.exit_status().or_else(|| status.terminating_signal().map(|signal| -signal))
                    };
                    return Ok(status.and_then(code));
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
        Ok(rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?)
    }

    /// False where the kernel cannot do that.
    pub(super) fn close_all_at_exec() -> bool {
        // SAFETY: it takes numbers.
        unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) == 0 }
    }
}

/// Other systems have none of it.
#[cfg(not(target_os = "linux"))]
mod descriptor {
    use std::{
        io,
        os::fd::{AsFd, OwnedFd},
    };

    use rustix::{
        io::{Errno, FdFlags},
        process::Pid,
    };

    pub(super) fn open(_: Pid) -> io::Result<OwnedFd> {
        Err(Errno::NOSYS.into())
    }

    pub(super) fn signal(_: &OwnedFd, _: i32) -> io::Result<()> {
        Err(Errno::NOSYS.into())
    }

    pub(super) fn signal_group(_: &OwnedFd, _: i32) -> io::Result<()> {
        Err(Errno::NOSYS.into())
    }

    pub(super) fn stands_for_group(_: &OwnedFd) -> bool {
        false
    }

    pub(super) fn wait(_: &OwnedFd) -> io::Result<Option<i32>> {
        Err(Errno::INVAL.into())
    }

    /// A child that another thread starts just now inherits it, where the system cannot do both at once.
    pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
        let (reader, writer) = rustix::pipe::pipe()?;
        for end in [&reader, &writer] {
            rustix::io::fcntl_setfd(end.as_fd(), FdFlags::CLOEXEC)?;
        }
        Ok((reader, writer))
    }

    pub(super) fn close_all_at_exec() -> bool {
        false
    }
}
