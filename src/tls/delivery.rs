//! From what was received to the calls of the protocol.

use std::{cell::Cell, io, rc::Rc};

use crate::{
    error::Error,
    event_loop::{EventLoop, owned::IoEvent, turn::Ready},
    tls::{protocol::TlsTransport, session::Processed, state::Phase},
    transport::{
        calls::{Called, Caller, Calls},
        protocol::BorrowedProtocol,
    },
};

/// What a delivery came to.
enum Delivered {
    /// So many bytes.
    Some(usize),
    NoRoom,
}

impl TlsTransport {
    /// Receives and decrypts to the front of `plain`.
    fn receive(
        &self,
        receive: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>,
        plain: &mut [u8],
    ) -> io::Result<(usize, Processed)> {
        let mut lent = self.buffers.lend();
        let mut session = self.session.borrow_mut();
        let kept = session.put_kept(&mut lent.memory);
        let count = receive(&mut lent.memory[kept..])?;
        let mut outgoing = Vec::new();
        let processed = if count == 0 {
            Processed { plain: 0, closed: false, outcome: Ok(()) }
        } else {
            session.process(&mut lent.memory[..kept + count], plain, &mut outgoing)
        };
        drop((session, lent));
        self.send(&outgoing);
        Ok((count, processed))
    }

    /// Receives while nothing can be delivered: during the handshake, and after this side has closed.
    pub(super) fn receive_apart(&self, receive: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        let mut plain = self.buffers.lend();
        let (count, processed) = self.receive(receive, &mut plain.memory)?;
        if self.phase.get() == Phase::Handshake {
            self.undelivered.borrow_mut().extend_from_slice(&plain.memory[..processed.plain]);
        }
        drop(plain);
        self.go_on(processed);
        Ok(count)
    }

    /// Receives and delivers, with the protocol borrowed, so that nothing is received that cannot be delivered.
    pub(super) fn receive_and_deliver(
        self: &Rc<Self>,
        event_loop: &EventLoop,
        receive: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let callback = Cell::new("data_received");
        let mut received = None;
        let mut refused = false;
        let called = Calls::call(self, event_loop, |protocol| {
            // What it was told just before, late, has made it pause or close.
            if !self.delivers() {
                return Ok(Delivered::Some(0));
            }
            let mut plain = self.buffers.lend();
            let (count, processed) = self.receive(receive, &mut plain.memory)?;
            let decrypted = &plain.memory[..processed.plain];
            received = Some((count, processed));
            if decrypted.is_empty() {
                return Ok(Delivered::Some(0));
            }
            // Should the protocol panic, what it was given counts as delivered.
            let delivered = self.deliver_to(protocol, decrypted, &callback);
            if let Delivered::Some(count) = delivered {
                refused = count == 0;
                self.undelivered.borrow_mut().extend_from_slice(&decrypted[count..]);
            }
            Ok(delivered)
        });
        if !matches!(called, Called::Borrowed) {
            self.attempts.set(0);
        }
        match called {
            Called::Returned(Ok(Delivered::Some(_))) => {}
            Called::Returned(Ok(Delivered::NoRoom)) => self.no_room(event_loop),
            Called::Returned(Err(error)) => return Err(error),
            Called::Panicked(error) => self.fatal(event_loop, callback.get(), error),
            Called::Borrowed => {
                self.not_delivered(event_loop);
            }
            Called::Gone => {}
        }
        let Some((count, processed)) = received else {
            // Somebody may have let the transport under it receive by a handle from before.
            self.update_reading();
            return Err(io::ErrorKind::WouldBlock.into());
        };
        if processed.outcome.is_err() {
            // What came before is right.
            self.deliver(event_loop);
        }
        self.go_on(processed);
        if !self.undelivered.borrow().is_empty() {
            if refused {
                // By a layer over this one, which is to have its next attempt in another turn.
                self.queue_delivery(event_loop);
                self.update_reading();
            } else {
                self.deliver(event_loop);
            }
        }
        Ok(count)
    }

    /// Calls the protocol with the beginning of `plain`, which is not empty.
    fn deliver_to(
        &self,
        protocol: &mut BorrowedProtocol<'_>,
        plain: &[u8],
        callback: &Cell<&'static str>,
    ) -> Delivered {
        self.unanswered.set(true);
        match protocol {
            BorrowedProtocol::Plain(protocol) => {
                protocol.data_received(plain);
                Delivered::Some(plain.len())
            }
            BorrowedProtocol::Buffered(protocol) => {
                callback.set("get_buffer");
                let memory = protocol.get_buffer(Some(plain.len()));
                let count = memory.len().min(plain.len());
                if count == 0 {
                    return Delivered::NoRoom;
                }
                memory[..count].copy_from_slice(&plain[..count]);
                callback.set("buffer_updated");
                protocol.buffer_updated(count);
                Delivered::Some(count)
            }
            BorrowedProtocol::Sink(sink) => Delivered::Some(sink.data_received(plain)),
        }
    }

    /// Delivers what was decrypted before, and then the end of the input.
    pub(super) fn deliver(self: &Rc<Self>, event_loop: &EventLoop) {
        let callback = Cell::new("data_received");
        // Nobody adds to it meanwhile.
        let mut waiting = self.undelivered.take();
        let mut begin = 0;
        while self.delivers() && begin < waiting.len() {
            let called = Calls::call(self, event_loop, |protocol| {
                let waiting = &waiting[begin..];
                if self.delivers() { self.deliver_to(protocol, waiting, &callback) } else { Delivered::Some(0) }
            });
            if !matches!(called, Called::Borrowed) {
                self.attempts.set(0);
            }
            match called {
                Called::Returned(Delivered::Some(0)) if self.delivers() => {
                    // A layer over this one could not deliver either.
                    self.queue_delivery(event_loop);
                    break;
                }
                Called::Returned(Delivered::Some(count)) => begin += count,
                Called::Returned(Delivered::NoRoom) => self.no_room(event_loop),
                Called::Panicked(error) => self.fatal(event_loop, callback.get(), error),
                Called::Borrowed => {
                    if self.not_delivered(event_loop) {
                        self.queue_delivery(event_loop);
                    }
                    break;
                }
                Called::Gone => break,
            }
        }
        if self.phase.get() == Phase::Open && begin < waiting.len() {
            waiting.drain(..begin);
            self.undelivered.replace(waiting);
        }
        if self.input_ended.get() && self.delivers() && self.undelivered.borrow().is_empty() {
            self.tell_end();
            self.shut();
        }
        if self.input_ended.get() && self.phase.get() == Phase::Closing {
            self.finish();
        }
        self.update_reading();
    }

    pub(super) fn queue_delivery(&self, event_loop: &EventLoop) {
        if !self.delivery_queued.replace(true) {
            event_loop.push(Ready::Io(self.this(), IoEvent::Ready { readable: true, writable: false }));
        }
    }

    #[cold]
    fn no_room(&self, event_loop: &EventLoop) {
        let error = Error::Runtime("get_buffer() returned an empty buffer".into());
        self.fatal(event_loop, "get_buffer", error);
    }

    #[cold]
    pub(super) fn fatal(&self, event_loop: &EventLoop, callback: &str, error: Error) {
        self.report(event_loop, format!("Fatal error: protocol.{callback}() call failed."), error.clone());
        self.break_off(error);
    }

    /// Nothing is lost by waiting; but not for ever. Whether it is to be tried again.
    #[cold]
    fn not_delivered(&self, event_loop: &EventLoop) -> bool {
        self.attempts.set(self.attempts.get().saturating_add(1));
        if self.attempts.get() < 2 {
            return true;
        }
        let error = Error::Runtime("protocol is borrowed".into());
        let message = "Fatal error: protocol.data_received() could not be called.".to_owned();
        self.report(event_loop, message, error.clone());
        self.break_off(error);
        false
    }
}
