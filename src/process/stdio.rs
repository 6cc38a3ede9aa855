//! Where the standard input, output and error of a subprocess come from and go to.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

/// Where a standard stream of a subprocess leads.
///
/// A file, a socket or another descriptor will do, too: it is duplicated at once, and stays its owner's.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Seek};
///
/// use asyncio::subprocess::{DEVNULL, STDOUT};
///
/// asyncio::run(async {
///     let mut file = tempfile::tempfile()?;
///     let process = asyncio::create_subprocess_shell("echo out; echo err >&2")
///         .stdin(DEVNULL)
///         .stdout(&file)
///         .stderr(STDOUT)
///         .await?;
///     assert_eq!(process.wait().await?, 0);
///     let mut text = String::new();
///     file.rewind()?;
///     file.read_to_string(&mut text)?;
///     assert_eq!(text, "out\nerr\n");
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: the `stdin`, `stdout` and `stderr` arguments.
#[derive(Debug)]
pub struct Stdio(pub(super) Setting);

#[derive(Debug)]
pub(super) enum Setting {
    Pipe,
    DevNull,
    Inherit,
    Stdout,
    /// A duplicate, or why there is none.
    Descriptor(io::Result<OwnedFd>),
}

impl Stdio {
    /// A new pipe to this process.
    ///
    /// asyncio: `subprocess.PIPE`.
    pub const PIPE: Stdio = Stdio(Setting::Pipe);

    /// The system's empty file, which takes everything.
    ///
    /// asyncio: `subprocess.DEVNULL`.
    pub const DEVNULL: Stdio = Stdio(Setting::DevNull);

    /// Where this process's own leads.
    ///
    /// asyncio: `None`.
    pub const INHERIT: Stdio = Stdio(Setting::Inherit);

    /// Where standard output leads; for standard error only.
    ///
    /// asyncio: `subprocess.STDOUT`.
    pub const STDOUT: Stdio = Stdio(Setting::Stdout);
}

impl<T: AsFd> From<T> for Stdio {
    /// A duplicate of the descriptor. That there is none, because it is not open, is the error of the start.
    fn from(file: T) -> Self {
        Stdio(Setting::Descriptor(file.as_fd().try_clone_to_owned()))
    }
}
