//! An echo server: sock_echo_1, sock_echo_10, sock_echo_100.

mod support;

fn main() {
    support::run_criterion(support::sockets::GROUPS);
}
