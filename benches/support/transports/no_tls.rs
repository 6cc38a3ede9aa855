//! What stands for TLS where the crate is built without it.

use std::net::TcpStream;

use asyncio::CreateServer;

use super::{super::Group, Server, Work};

pub(super) const GROUPS: &[Group] = &[];

pub(super) const ECHO: [Server; 0] = [];

/// None is ever made.
pub(super) type TlsChannel = TcpStream;

pub(super) fn secure<F, P, K>(server: CreateServer<F, P, K>, _work: &Work) -> CreateServer<F, P, K> {
    server
}
