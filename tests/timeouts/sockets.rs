//! Limits on raw sockets.

use std::{
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use asyncio::{ErrorKind, get_running_loop, timeout};

use crate::{MS, SECOND, kind, support};

/// SOK-017
#[test]
fn an_accept_that_takes_too_long() {
    support::run(async {
        let event_loop = get_running_loop()?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let begin = Instant::now();
        let outcome = timeout(50 * MS, event_loop.sock_accept(&listener)).await;
        assert_eq!(kind(&outcome), Some(ErrorKind::Timeout));
        assert!(begin.elapsed() >= 50 * MS);
        assert!(!event_loop.remove_reader(&listener)?);
        drop(listener);
        let refused = TcpStream::connect_timeout(&address, 30 * SECOND).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        Ok(())
    });
}

/// SOK-017: the next one gets the client.
#[test]
fn an_accept_after_one_that_took_too_long() {
    support::run(async {
        let event_loop = get_running_loop()?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        for delay in [Duration::ZERO, MS, 5 * MS] {
            let outcome = timeout(delay, event_loop.sock_accept(&listener)).await;
            assert_eq!(kind(&outcome), Some(ErrorKind::Timeout));
        }
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (accepted, _) = timeout(30 * SECOND, event_loop.sock_accept(&listener)).await?;
        drop((client, accepted));
        Ok(())
    });
}
