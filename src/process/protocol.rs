//! Protocols of subprocesses: what their transports call.

use std::{
    any::{Any, type_name},
    cell::{RefCell, RefMut},
    rc::Rc,
};

use crate::{
    error::Error,
    process::transport::SubprocessTransport,
    transport::calls::{Callee, ChildNotice, Notice},
};

/// What happens to a subprocess, as calls.
///
/// ```text
/// connection_made -> (pipe_data_received* -> pipe_connection_lost, for each pipe | process_exited) -> connection_lost
///                    pause_writing, resume_writing, in turns
/// ```
///
/// Pipes go by the number that they have in the child: 0 is its standard input, 1 its output, 2 its error. All that came
/// through a pipe is told before the pipe's end; `process_exited` may come before, between and after; `connection_lost`
/// comes when the process has ended and all pipes are closed, with `None`.
///
/// The rules of [`Protocol`](crate::Protocol) hold, but a panic is reported and changes nothing, and a protocol that
/// somebody else holds is told later: meanwhile what comes through the pipes is left there.
///
/// # Examples
///
/// ```
/// use asyncio::{Future, SubprocessProtocol};
///
/// struct Date {
///     text: Vec<u8>,
///     exited: Future<()>,
/// }
///
/// impl SubprocessProtocol for Date {
///     fn pipe_data_received(&mut self, _fd: i32, data: &[u8]) {
///         self.text.extend_from_slice(data);
///     }
///
///     fn connection_lost(&mut self, _error: Option<&asyncio::Error>) {
///         let _ = self.exited.set_result(()); // unless nobody waits for it any more
///     }
/// }
///
/// asyncio::run(async {
///     let event_loop = asyncio::get_running_loop()?;
///     let exited = event_loop.create_future();
///     let date = Date { text: Vec::new(), exited: exited.clone() };
///     let (transport, protocol) = event_loop.subprocess_exec(|| date, ["date", "+%Y"]).await?;
///     exited.await?;
///     assert_eq!(transport.get_returncode(), Some(0));
///     assert_eq!(protocol.borrow().text.len(), 5);
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.SubprocessProtocol`.
pub trait SubprocessProtocol: 'static {
    /// The process runs. Keep a clone of `transport` to write to it or to signal it.
    fn connection_made(&mut self, transport: &SubprocessTransport) {
        let _ = transport;
    }

    /// The child has written to its standard output (1) or error (2): at least one byte, split anyhow.
    fn pipe_data_received(&mut self, fd: i32, data: &[u8]) {
        let _ = (fd, data);
    }

    /// A pipe is closed: by this side or, at the end of what came through it, by the other (`None`), or it is broken.
    fn pipe_connection_lost(&mut self, fd: i32, error: Option<&Error>) {
        let _ = (fd, error);
    }

    /// The process has ended; `get_returncode` says how.
    fn process_exited(&mut self) {}

    /// The process has ended and all its pipes are closed. Nothing more comes.
    fn connection_lost(&mut self, error: Option<&Error>) {
        let _ = error;
    }

    /// More waits to be written to the child's standard input than the high-water mark: write no more for now.
    fn pause_writing(&mut self) {}

    /// What waits has fallen to the low-water mark: go on.
    fn resume_writing(&mut self) {}
}

/// For factories that choose between protocols.
impl<P: SubprocessProtocol + ?Sized> SubprocessProtocol for Box<P> {
    fn connection_made(&mut self, transport: &SubprocessTransport) {
        (**self).connection_made(transport);
    }

    fn pipe_data_received(&mut self, fd: i32, data: &[u8]) {
        (**self).pipe_data_received(fd, data);
    }

    fn pipe_connection_lost(&mut self, fd: i32, error: Option<&Error>) {
        (**self).pipe_connection_lost(fd, error);
    }

    fn process_exited(&mut self) {
        (**self).process_exited();
    }

    fn connection_lost(&mut self, error: Option<&Error>) {
        (**self).connection_lost(error);
    }

    fn pause_writing(&mut self) {
        (**self).pause_writing();
    }

    fn resume_writing(&mut self) {
        (**self).resume_writing();
    }
}

/// A protocol that has lost its type.
#[derive(Clone)]
pub(super) struct AnySubprocessProtocol(pub(super) Rc<dyn SubprocessCell>);

pub(super) trait SubprocessCell {
    fn try_borrow(&self) -> Option<RefMut<'_, dyn SubprocessProtocol>>;
    fn into_any(self: Rc<Self>) -> Rc<dyn Any>;
    fn type_name(&self) -> &'static str;
}

impl<P: SubprocessProtocol> SubprocessCell for RefCell<P> {
    fn try_borrow(&self) -> Option<RefMut<'_, dyn SubprocessProtocol>> {
        let borrowed = self.try_borrow_mut().ok()?;
        Some(RefMut::map(borrowed, |protocol| protocol as &mut dyn SubprocessProtocol))
    }

    fn into_any(self: Rc<Self>) -> Rc<dyn Any> {
        self
    }

    fn type_name(&self) -> &'static str {
        type_name::<P>()
    }
}

impl Callee for AnySubprocessProtocol {
    type Borrowed<'a> = RefMut<'a, dyn SubprocessProtocol>;
    type Transport = SubprocessTransport;

    fn try_borrow(&self) -> Option<RefMut<'_, dyn SubprocessProtocol>> {
        self.0.try_borrow()
    }

    fn notify(protocol: &mut RefMut<'_, dyn SubprocessProtocol>, transport: &SubprocessTransport, notice: &Notice) {
        match notice {
            Notice::Made => protocol.connection_made(transport),
            Notice::Pause => protocol.pause_writing(),
            Notice::Resume => protocol.resume_writing(),
            Notice::Lost(error) => protocol.connection_lost(error.as_ref()),
            Notice::Child(ChildNotice::Data(fd, data)) => {
                // Before the call, which may pause it again.
                transport.0.resume_pipe(*fd);
                protocol.pipe_data_received(*fd, data);
            }
            Notice::Child(ChildNotice::PipeLost(fd, error)) => protocol.pipe_connection_lost(*fd, error.as_ref()),
            Notice::Child(ChildNotice::Exited) => protocol.process_exited(),
            Notice::Eof | Notice::Error(_) => {}
        }
    }

    fn type_name(&self) -> &'static str {
        self.0.type_name()
    }
}
