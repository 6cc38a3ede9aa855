//! What these tests show: TLS connections that come about, and what is known of them.

use crate::{
    Connected,
    support::{loops::On, transports::Told},
};

on_each_selector! { data_flows_in_both_directions }

/// TLS-001, in part.
fn data_flows_in_both_directions(on: On) {
    let event_loop = on.event_loop();
    let ends = Connected::new(&event_loop);
    ends.client.write(b"hello");
    ends.client.writelines([b"a", b"b"]);
    event_loop.until(|| ends.server_log.received_len() == 7);
    assert_eq!(ends.server_log.received(), b"helloab");
    ends.server.write(b"back");
    event_loop.until(|| ends.client_log.received_len() == 4);
    ends.client.close();
    assert!(ends.client.is_closing());
    event_loop.until(|| ends.client_log.lost() && ends.server_log.lost());
    assert_eq!(ends.client_log.joined(), [Told::Made, Told::Data(4), Told::Eof, Told::Lost(None)]);
    assert_eq!(ends.server_log.joined(), [Told::Made, Told::Data(7), Told::Eof, Told::Lost(None)]);
}
