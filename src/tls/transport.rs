//! TLS as a transport: what its user calls.

use std::{
    io::{self, IoSlice},
    os::fd::BorrowedFd,
    panic::Location,
    task::{Poll, Waker},
};

use crate::{
    constants::HIGH_WATER_SSL,
    error::{Error, Result},
    event_loop::owned::IoHandler,
    tls::{protocol::TlsTransport, state::Phase},
    transport::{
        RawTransport, SendfileMode, Transport,
        activity::Standing,
        calls::Caller,
        extra_info::{ExtraName, ExtraValue, TlsInfo},
        protocol::AnyStreamProtocol,
    },
};

impl TlsTransport {
    /// Whether a write is to be done; a mistake is an error.
    fn check_write(&self, call: &str) -> Result<bool> {
        if self.is_closing() {
            return Ok(false);
        }
        if self.phase.get() == Phase::Handshake {
            return Err(Error::Runtime(format!("unable to {call}; the TLS handshake is in progress").into()));
        }
        if self.layered.get() {
            let text = format!("Cannot call {call}() on {}: start_tls() has taken it over", IoHandler::describe(self));
            return Err(Error::Runtime(text.into()));
        }
        if self.sending_file.get() {
            return Err(Error::Runtime(format!("unable to {call}; sendfile is in progress").into()));
        }
        Ok(true)
    }

    /// What only TLS knows; most of it once the handshake is over.
    fn tls_info(&self, info: TlsInfo) -> Option<ExtraValue> {
        Some(match info {
            TlsInfo::SslContext => Box::new(self.options.context.clone()),
            TlsInfo::PeerCert => Box::new(self.look(|session| session.peer_certificates())?.into_iter().next()?),
            TlsInfo::PeerCertChain => {
                let chain = self.look(|session| session.peer_certificates());
                Box::new(chain.filter(|chain| !chain.is_empty())?)
            }
            TlsInfo::Cipher => Box::new(self.look(|session| session.cipher())??),
            TlsInfo::SslVersion => Box::new(self.look(|session| session.cipher())??.protocol),
            TlsInfo::AlpnProtocol => Box::new(self.look(|session| session.alpn_protocol())??),
            TlsInfo::ServerHostname => Box::new(self.look(|session| session.server_hostname())??),
            TlsInfo::SessionReused => Box::new(self.look(|session| session.is_resumed())?),
            TlsInfo::CloseNotify => Box::new(self.close_notify.get()),
        })
    }
}

impl RawTransport for TlsTransport {
    fn describe(&self) -> String {
        IoHandler::describe(self)
    }

    fn write(&self, data: &[u8]) -> Result<()> {
        if self.check_write("write")? && !data.is_empty() {
            self.write_for_layer(&[IoSlice::new(data)], false)?;
        }
        Ok(())
    }

    fn write_vectored(&self, pieces: &[IoSlice<'_>], more: bool) -> Result<()> {
        if self.check_write("writelines")? {
            self.write_for_layer(pieces, more)?;
        }
        Ok(())
    }

    fn write_eof(&self) -> Result<()> {
        Err(Error::Runtime("write_eof() is not supported by TLS".into()))
    }

    fn can_write_eof(&self) -> bool {
        false
    }

    fn pause_reading(&self) {
        if !self.is_closing() && !self.paused.replace(true) {
            self.update_reading();
        }
    }

    fn resume_reading(&self) {
        if self.is_closing() {
            return;
        }
        let nothing_waits = !self.input_ended.get() && self.undelivered.borrow().is_empty();
        if !self.paused.replace(false) || nothing_waits {
            // Also where it is not paused: somebody may have paused the transport under it by a handle from before.
            return self.update_reading();
        }
        // What waits is delivered from the ready queue, never from inside of this call.
        if let Some(event_loop) = self.event_loop() {
            self.queue_delivery(&event_loop);
        }
    }

    fn is_reading(&self) -> bool {
        !self.is_closing() && !self.paused.get() && !self.sending_file.get()
    }

    fn close(&self) {
        match self.phase.get() {
            Phase::Handshake => self.inner().abort(),
            Phase::Open => self.shut(),
            Phase::Closing | Phase::Ended => {}
        }
    }

    fn abort(&self) {
        self.inner().abort();
    }

    fn is_closing(&self) -> bool {
        self.is_closing()
    }

    fn standing(&self) -> Standing {
        let Standing { activity, waits, .. } = self.inner().0.standing();
        // What the handshake moved is no request, and a part of a record is one.
        let receives = self.phase.get() == Phase::Handshake || self.look(|session| session.keeps_part()) == Some(true);
        let waits = waits || receives || !self.undelivered.borrow().is_empty() || !self.calls.is_at_rest();
        Standing { activity, unanswered: self.unanswered.get(), waits: waits || self.sending_file.get() }
    }

    fn extra_info(&self, name: ExtraName) -> Option<ExtraValue> {
        match name {
            ExtraName::Tls(info) => self.tls_info(info),
            name => self.inner().0.extra_info(name),
        }
    }

    fn with_fd(&self, look: &mut dyn FnMut(BorrowedFd<'_>)) {
        self.inner().0.with_fd(look);
    }

    fn set_protocol(&self, protocol: AnyStreamProtocol) -> Result<()> {
        if self.layered.get() && !protocol.is_sink() && self.calls.protocol().is_some() {
            let text =
                format!("Cannot call set_protocol() on {}: start_tls() has taken it over", IoHandler::describe(self));
            return Err(Error::Runtime(text.into()));
        }
        self.calls.set_protocol(protocol);
        Ok(())
    }

    fn protocol(&self) -> Option<AnyStreamProtocol> {
        self.calls.protocol()
    }

    fn is_truncated(&self) -> bool {
        !self.close_notify.get()
    }

    fn write_buffer_size(&self) -> usize {
        self.inner().get_write_buffer_size()
    }

    fn write_buffer_limits(&self) -> (usize, usize) {
        self.inner().get_write_buffer_limits()
    }

    fn set_write_buffer_limits(&self, high: Option<usize>, low: Option<usize>) -> Result<()> {
        let high = if high.is_none() && low.is_none() { Some(HIGH_WATER_SSL) } else { high };
        self.inner().0.set_write_buffer_limits(high, low)?;
        self.pause_if_full();
        Ok(())
    }

    fn is_write_paused(&self) -> bool {
        self.inner().is_write_paused()
    }

    #[cold]
    fn report_misuse(&self, call: &str, error: Error, location: &'static Location<'static>) {
        if let Some(event_loop) = self.event_loop() {
            self.report_mistake(&event_loop, call, error, location);
        }
    }

    fn sendfile_mode(&self) -> SendfileMode {
        SendfileMode::Fallback
    }

    fn begin_sendfile(&self) -> Result<()> {
        if self.is_closing() {
            return Err(Error::Runtime("Transport is closing".into()));
        }
        self.check_write("sendfile")?;
        self.sending_file.set(true);
        self.update_reading();
        Ok(())
    }

    fn end_sendfile(&self) {
        self.sending_file.set(false);
        // It lets go of who waited.
        self.inner().0.end_sendfile();
        if self.is_closing() {
            return;
        }
        self.pause_if_full();
        if let Some(event_loop) = self.event_loop() {
            self.queue_delivery(&event_loop);
        }
    }

    fn poll_drained(&self, writable: bool, waker: &Waker) -> Poll<Result<()>> {
        if self.phase.get() == Phase::Closing && !self.inner().is_closing() {
            let error = io::ErrorKind::ConnectionAborted.into();
            return Poll::Ready(Err(Error::io(error, "the transport was closed while a file was sent")));
        }
        self.inner().0.poll_drained(writable, waker)
    }

    fn wake_drained(&self) {
        self.inner().0.wake_drained();
    }

    fn fail(&self, error: Error) {
        self.break_off(error);
    }

    fn begin_layer(&self) -> Result<bool> {
        if self.is_closing() {
            return Err(Error::Runtime("start_tls() on a transport that is closing".into()));
        }
        self.check_write("start_tls")?;
        if self.calls.is_unmade() {
            return Err(Error::Runtime("start_tls() before the protocol knows of its connection".into()));
        }
        self.layered.set(true);
        Ok(self.calls.was_told_to_pause(self.writing_paused.get()))
    }

    fn hand_on(&self, layer: Transport) {
        self.inner().0.hand_on(layer);
    }

    fn layer_ended(&self) {
        let Some(event_loop) = self.event_loop() else { return };
        if self.phase.get() == Phase::Ended && self.ended(&event_loop) {
            self.calls.release();
        }
    }

    fn write_for_layer(&self, pieces: &[IoSlice<'_>], more: bool) -> Result<()> {
        if self.is_closing() {
            return Ok(());
        }
        if !pieces.is_empty() {
            self.unanswered.set(false);
        }
        if let Err(error) = self.write_pieces(pieces) {
            self.session_failed(error);
            return Ok(());
        }
        if !more {
            self.pause_if_full();
        }
        Ok(())
    }

    fn abandon(&self) {
        self.give_up();
    }
}
