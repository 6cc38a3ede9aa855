//! Servers that end in good order: who may still finish, and until when.

use std::{
    cell::RefCell,
    collections::HashMap,
    mem,
    rc::Rc,
    time::{Duration, Instant},
};

use crate::{
    combine::timeout::timeout_at,
    constants::DRAIN_LOOK,
    error::{Error, Result},
    event_loop::EventLoop,
    future::Future,
    net::server::core::{ServerCore, servers},
    report,
    sys::{addr::Address, socket},
    transport::{
        Transport,
        activity::Activity,
        extra_info::{PEERNAME, SOCKNAME},
    },
};

impl EventLoop {
    pub(crate) fn has_servers(&self) -> bool {
        !all(self).is_empty()
    }

    /// Drains all servers of the loop, also those that are made meanwhile. Until it is over, or dropped, those who serve
    /// for ever are not told that their server has ended: what they do then may be what others still need.
    ///
    /// asyncio: has none.
    pub(crate) async fn drain_servers(&self, limit: Duration) -> Result<()> {
        let _over = EndDrain::begin(self);
        drain(self, || all(self), self.deadline_in(limit)).await?;
        Ok(())
    }

    /// Closes all servers and ends their connections at once, as a drain does at its deadline.
    pub(crate) fn abort_servers(&self) {
        for server in all(self) {
            server.close();
            server.abort_rest();
        }
    }
}

fn all(event_loop: &EventLoop) -> Vec<Rc<ServerCore>> {
    servers(event_loop).cores.borrow().values().cloned().collect()
}

/// Drains what `servers` gives, now and later, and gives how many connections were aborted.
pub(super) async fn drain(
    event_loop: &EventLoop,
    servers: impl Fn() -> Vec<Rc<ServerCore>>,
    deadline: Instant,
) -> Result<usize> {
    let (mut aborted, mut seen) = (0, Idle::default());
    loop {
        let mut left = servers();
        left.retain(|server| !server.has_ended());
        if left.is_empty() {
            return Ok(aborted);
        }
        left.iter().for_each(|server| server.refuse(event_loop));
        let now = event_loop.time();
        let next = if now < deadline {
            seen = left.iter().flat_map(|server| server.close_idle(&seen)).collect();
            Some(deadline.min(now + DRAIN_LOOK))
        } else {
            aborted += left.iter().map(|server| server.abort_rest()).sum::<usize>();
            None
        };
        let ended = async {
            for server in &left {
                server.wait_closed().await?;
            }
            Ok(())
        };
        match timeout_at(next, ended).await {
            Ok(()) | Err(Error::Timeout(_)) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The idle connections by their server and their key there, and what had moved in them when they were looked at.
type Idle = HashMap<(u64, usize), Activity>;

impl ServerCore {
    /// Closes, and takes over first what the system has accepted already: those clients believe that they are connected.
    fn refuse(self: &Rc<Self>, event_loop: &EventLoop) {
        if self.is_serving() {
            let listeners = self.listeners.borrow().clone();
            listeners.iter().for_each(|listener| listener.accept_waiting(event_loop, self));
        }
        self.close();
    }

    /// Closes the connections in which nothing has moved since they were `seen` idle, and gives the others that are.
    fn close_idle(&self, seen: &Idle) -> Vec<((u64, usize), Activity)> {
        let mut idle = Vec::new();
        let clients: Vec<_> = self.clients.borrow().iter().map(|(key, client)| (key, client.clone())).collect();
        for (key, client) in clients {
            let key = (self.key, key);
            match idle_since(&client) {
                _ if client.is_closing() => {}
                Some(activity) if seen.get(&key) == Some(&activity) => client.close(),
                Some(activity) => idle.push((key, activity)),
                None => {}
            }
        }
        idle
    }

    /// Ends the connections that are left, says which of them had something to do, and gives how many those were.
    fn abort_rest(&self) -> usize {
        let mut aborted = 0;
        for client in self.clients() {
            let unsent = client.get_write_buffer_size();
            // One that is closing and has sent all waits for a word of the other side's.
            let is_done = if client.is_closing() { unsent == 0 } else { idle_since(&client).is_some() };
            if is_done {
                client.close();
            } else {
                aborted += 1;
                report::warning(&describe(&client, unsent));
            }
            client.abort();
        }
        aborted
    }
}

/// What had moved in a connection when it became idle; `None` if it is not.
fn idle_since(client: &Transport) -> Option<Activity> {
    let standing = client.0.standing();
    // What has come in this very turn, and would be lost with the connection.
    let is_idle = standing.is_idle() && client.with_fd(socket::has_input) != Some(true);
    is_idle.then_some(standing.activity)
}

fn describe(client: &Transport, unsent: usize) -> String {
    let peer = match client.get_extra_info(PEERNAME) {
        None | Some(Address::Unnamed) => "an unnamed peer".to_owned(),
        Some(peer) => peer.to_string(),
    };
    let place = client.get_extra_info(SOCKNAME).map_or_else(String::new, |place| format!(" at {place}"));
    format!("drain: aborted the connection of {peer}{place} with {unsent} bytes unsent: {client:?}")
}

/// Who waits for the end of a drain of all servers.
#[derive(Default)]
pub(super) struct Draining {
    /// `None` while there is no such drain.
    waiters: RefCell<Option<Vec<Future<()>>>>,
}

impl Draining {
    pub(super) fn is_going_on(&self) -> bool {
        self.waiters.borrow().is_some()
    }

    /// Waits until the drain is over, if there is one.
    pub(super) async fn wait_over(&self, event_loop: &EventLoop) -> Result<()> {
        let waiter = match &mut *self.waiters.borrow_mut() {
            Some(waiters) => {
                let waiter = event_loop.create_future();
                waiters.push(waiter.clone());
                waiter
            }
            None => return Ok(()),
        };
        waiter.await
    }
}

/// Ends the wait of those who waited for the drain.
struct EndDrain<'a>(&'a EventLoop);

impl<'a> EndDrain<'a> {
    fn begin(event_loop: &'a EventLoop) -> Self {
        servers(event_loop).draining.waiters.borrow_mut().get_or_insert_default();
        EndDrain(event_loop)
    }
}

impl Drop for EndDrain<'_> {
    fn drop(&mut self) {
        let waiters = mem::take(&mut *servers(self.0).draining.waiters.borrow_mut());
        for waiter in waiters.into_iter().flatten() {
            // It may have been given up.
            let _ = waiter.set_result(());
        }
    }
}
