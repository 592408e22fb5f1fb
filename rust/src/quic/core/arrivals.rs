//! Datagrams in: each goes to the connection it belongs to, or to the gate if it is the first of a dialer.

use super::{guarded, is_same_host, Core};
use crate::quic::connection::Phase;
use crate::quic::gate::{FirstPacket, Verdict};
use crate::quic::reason::CloseReason;
use crate::quic::socket::ARENA;
use crate::quic::Event;
use bytes::BytesMut;
use quinn_proto::{DatagramEvent, Incoming};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

/// Datagram batches read in one call, so that a flood on one socket leaves time for the others.
const RECEIVE_ROUNDS: usize = 4;

impl Core {
    /// Reads what arrived on one socket, one that a connection left too.
    pub(super) fn read_socket(&mut self, fd: RawFd, now: Instant) -> io::Result<()> {
        let mut touched = Vec::new();
        let mut result = Ok(());
        let mut key = fd;
        for _ in 0..RECEIVE_ROUNDS {
            let socket = match (self.endpoints.get_mut(&fd), self.left.get_mut(fd)) {
                (Some(endpoint), _) => &mut endpoint.socket,
                (None, Some((socket, endpoint))) => {
                    key = endpoint;
                    socket
                }
                (None, None) => return Ok(()),
            };
            let count = match socket.receive(&mut self.arena) {
                Ok(count) => count,
                Err(e) => {
                    result = Err(e);
                    break;
                }
            };
            self.demultiplex(key, count, key == fd, now, &mut touched);
            if count < ARENA {
                break;
            }
        }
        touched.sort_unstable();
        touched.dedup();
        for id in touched {
            self.pump(id, now);
        }
        if key == fd {
            self.suspect_unreachable(fd, now);
        } else if let Some((socket, _)) = self.left.get_mut(fd) {
            socket.take_unreachable(); // it is no path any more
        }
        result
    }

    /// Hands out the datagrams of the arena; `touched` gets the connections they were for.
    fn demultiplex(
        &mut self,
        fd: RawFd,
        count: usize,
        current: bool,
        now: Instant,
        touched: &mut Vec<u64>,
    ) {
        let mut incoming = Vec::new();
        let Some(endpoint) = self.endpoints.get_mut(&fd) else {
            return;
        };
        for (meta, datagram) in self.arena.datagrams(count) {
            let first = FirstPacket::read(datagram).filter(|_| endpoint.is_listener);
            let shut = first.is_some_and(|first| !self.gate.may_look(first, now));
            if shut && first == Some(FirstPacket::OtherVersion) {
                self.gate.overlooked();
                continue;
            }
            if first.is_some() && shut != endpoint.is_shut {
                endpoint.configure(shut, &self.configs);
            }
            self.packet.clear();
            // A listener on all interfaces has to answer from the address that was asked.
            let local_ip = meta
                .dst_ip
                .filter(|_| endpoint.address.ip().is_unspecified());
            let event = endpoint.quinn.handle(
                now,
                meta.addr,
                local_ip,
                None,
                BytesMut::from(datagram),
                &mut self.packet,
            );
            if first.is_some() && !matches!(event, Some(DatagramEvent::ConnectionEvent(..))) {
                if shut {
                    self.gate.overlooked();
                } else {
                    self.gate.looked(now);
                }
            }
            match event {
                None => {}
                Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                    let id = endpoint.ids.get(&handle);
                    let Some(connection) = id.and_then(|id| self.connections.get_mut(id)) else {
                        continue;
                    };
                    let mut proven = false;
                    guarded(connection, |c| {
                        let before = c.path.unproven.then(|| c.frames_received());
                        c.quic.handle_event(event);
                        proven = c.note_path(current, before);
                    });
                    if proven {
                        let linger = Duration::from_millis(self.options.linger_ms);
                        self.left.linger(fd, now + linger);
                    }
                    connection.unflushed = true;
                    touched.push(connection.id());
                }
                Some(DatagramEvent::NewConnection(new)) => incoming.push((new, meta.dst_ip)),
                Some(DatagramEvent::Response(transmit)) => {
                    endpoint.socket.send(transmit, &self.packet[..]);
                }
            }
        }
        for (new, local_ip) in incoming {
            touched.extend(self.admit(fd, new, local_ip, now));
        }
    }

    /// Does with a dialer what the gate says.
    fn admit(
        &mut self,
        fd: RawFd,
        new: Incoming,
        local_ip: Option<IpAddr>,
        now: Instant,
    ) -> Option<u64> {
        let endpoint = self.endpoints.get_mut(&fd)?;
        self.packet.clear();
        let (peer, proven) = (new.remote_address(), new.remote_address_validated());
        match self.gate.decide(peer.ip(), proven, now) {
            Verdict::Accept => {}
            Verdict::AcceptInsteadOf(id) => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    let reason = CloseReason::new("local", "it gave way to others");
                    guarded(connection, |c| {
                        c.close(now, 0, "busy", reason);
                        c.give_up();
                    });
                    self.schedule.mark(connection);
                }
            }
            Verdict::Retry => {
                match endpoint.quinn.retry(new, &mut self.packet) {
                    Ok(transmit) => endpoint.socket.send(transmit, &self.packet),
                    Err(again) => endpoint.quinn.ignore(again.into_incoming()),
                }
                return None;
            }
            Verdict::Refuse => {
                let transmit = endpoint.quinn.refuse(new, &mut self.packet);
                endpoint.socket.send(transmit, &self.packet);
                return None;
            }
            Verdict::Ignore => {
                endpoint.quinn.ignore(new);
                return None;
            }
        }
        let same_host = is_same_host(peer.ip(), local_ip);
        let server = Some(self.configs.server(same_host));
        match endpoint.quinn.accept(new, now, &mut self.packet, server) {
            Ok((handle, quic)) => {
                let ip = local_ip.unwrap_or(endpoint.address.ip());
                let local = SocketAddr::new(ip, endpoint.address.port());
                let link = self.add_connection(fd, handle, quic, local, same_host);
                let id = link.channel.id;
                self.gate.began(id, peer.ip(), proven);
                let limit = Duration::from_millis(self.options.handshake_timeout_ms);
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.handshake_deadline = Some(now + limit);
                    connection.push(Event::Accepted { link });
                }
                Some(id)
            }
            Err(error) => {
                if let Some(transmit) = error.response {
                    endpoint.socket.send(transmit, &self.packet);
                }
                None
            }
        }
    }

    /// Suspects the peers on this host that the kernel called unreachable.
    fn suspect_unreachable(&mut self, fd: RawFd, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(&fd) else {
            return;
        };
        let peers = endpoint.socket.take_unreachable();
        if peers.is_empty() {
            return;
        }
        let mut suspects = Vec::new();
        for (id, connection) in &mut self.connections {
            let alive = connection.phase != Phase::Closed;
            if alive
                && connection.fd == fd
                && connection.same_host
                && peers.contains(&connection.quic.remote_address())
            {
                connection.suspect(now);
                suspects.push(*id);
            }
        }
        for id in suspects {
            self.run_timers_of(id, now);
        }
    }
}
