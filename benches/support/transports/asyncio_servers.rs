//! Servers of ours, by protocols.
use std::net::{TcpListener, UdpSocket};
use super::{super::on_asyncio, DATAGRAM, PIECE, Work};
pub(super) use super::raw_servers::*;
pub(super) fn send(l: TcpListener, w: Work) { super::raw_servers::send_all(l, w) }
pub(super) fn echo_buffered(l: TcpListener, w: Work) { super::raw_servers::echo(l, w) }
pub(super) fn receive_buffered(l: TcpListener, w: Work) { super::raw_servers::receive(l, w) }
