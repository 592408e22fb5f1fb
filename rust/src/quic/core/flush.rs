//! Datagrams out: what is queued goes into QUIC, and QUIC's packets to the socket.

use super::endpoint::Endpoint;
use super::{guarded, Core};
use crate::quic::connection::Connection;
use crate::quic::options::Options;
use crate::quic::socket::MAX_SEND;
use std::time::Instant;

impl Core {
    /// Writes everything queued, as far as QUIC and the kernel take it.
    pub fn flush(&mut self, now: Instant, dirty: Vec<u64>) {
        for id in dirty {
            if let Some(connection) = self.connection(id) {
                connection.unflushed = true;
            }
        }
        self.blocked.retain(|fd| {
            self.endpoints.get_mut(fd).is_some_and(|endpoint| {
                endpoint.socket.send_blocked();
                endpoint.socket.is_blocked()
            })
        });
        for id in self.schedule.take_active() {
            self.flush_one(id, now);
        }
    }

    /// Sends what one connection has, and notes what it waits for.
    fn flush_one(&mut self, id: u64, now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let fd = connection.fd;
        if let Some(endpoint) = self.endpoints.get_mut(&fd).filter(|_| connection.unflushed) {
            guarded(connection, |connection| {
                transmit(connection, endpoint, &mut self.packet, now, &self.options);
            });
            if endpoint.socket.is_blocked() {
                self.blocked.insert(fd);
            }
        }
        self.schedule.settle(connection);
        if connection.is_over() {
            self.forget(id);
        }
    }
}

/// Writes streams into QUIC and packets to the socket until there is no more to send now.
fn transmit(
    connection: &mut Connection,
    endpoint: &mut Endpoint,
    packet: &mut Vec<u8>,
    now: Instant,
    options: &Options,
) {
    connection.unflushed = false;
    loop {
        connection.write_streams(options);
        let mut sent = false;
        while !endpoint.socket.is_blocked() {
            let mtu = usize::from(connection.quic.current_mtu());
            let segments = (MAX_SEND / mtu).clamp(1, endpoint.socket.max_segments());
            packet.clear();
            let Some(transmit) = connection.quic.poll_transmit(now, segments, packet) else {
                break;
            };
            endpoint.socket.send(transmit, &packet[..]);
            sent = true;
        }
        exchange(connection, &mut endpoint.quinn);
        connection.poll(now, options);
        // Sending may have made room in QUIC for more of what is queued.
        if !(sent && connection.unflushed) || endpoint.socket.is_blocked() {
            break;
        }
        connection.unflushed = false;
    }
    connection.unflushed |= endpoint.socket.is_blocked();
    connection.timer = connection.quic.poll_timeout();
}

/// Carries events between a connection and its quinn endpoint.
fn exchange(connection: &mut Connection, endpoint: &mut quinn_proto::Endpoint) {
    while let Some(event) = connection.quic.poll_endpoint_events() {
        connection.drained |= event.is_drained();
        if let Some(event) = endpoint.handle_event(connection.handle, event) {
            connection.quic.handle_event(event);
            connection.unflushed = true;
        }
    }
}
