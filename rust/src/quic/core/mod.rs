//! Everything one transport owns: its sockets, quinn endpoints and connections, driven from outside.
//!
//! One turn: `receive` hands datagrams to the connections (`arrivals`), or `drive` runs what is due (`timers`); both end
//! with what there is to report. `flush` sends (`flush`), and `rearm` says when to come back. In between the application
//! gives its orders (`commands`, `migration`). `schedule` knows which connections any of this is about.

mod arrivals;
mod commands;
mod config;
mod endpoint;
mod flush;
mod left;
mod migration;
mod schedule;
mod timers;

pub use config::{Identity, SetupError};
pub use migration::MoveError;
pub use schedule::Scheduled;

use super::channel::Channel;
use super::connection::{Budget, Connection};
use super::gate::{Gate, TurnedAway};
use super::options::Options;
use super::socket::{Arena, Socket, MAX_SEND};
use super::{Event, Link};
use config::Configs;
use endpoint::Endpoint;
use left::LeftSockets;
use quinn_proto::{ConnectionHandle, EndpointEvent};
use schedule::Schedule;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Instant;

pub struct Core {
    options: Options,
    configs: Configs,
    gate: Gate,
    listener: Option<RawFd>,
    /// By the descriptors of their sockets.
    endpoints: BTreeMap<RawFd, Endpoint>,
    left: LeftSockets,
    /// Endpoints whose sockets have packets that the kernel had no room for.
    blocked: BTreeSet<RawFd>,
    /// Sockets that the event loop is to forget.
    detached: Vec<RawFd>,
    connections: BTreeMap<u64, Connection>,
    next_id: u64,
    schedule: Schedule,
    /// When the event loop will call `drive` at the latest, as far as it was told.
    armed: Option<Instant>,
    arena: Arena,
    packet: Vec<u8>,
}

impl Core {
    pub fn new(
        identity: &Identity<'_>,
        listen: Option<SocketAddr>,
        options: Options,
    ) -> Result<Self, SetupError> {
        let buffer = options.socket_buffer as usize;
        let socket = listen
            .map(|address| Socket::bind(address, buffer))
            .transpose()
            .map_err(SetupError::Bind)?;
        let granted = socket.as_ref().map_or(buffer, Socket::receive_buffer);
        let configs = Configs::new(identity, &options, granted).map_err(SetupError::Identity)?;
        let listener = socket.as_ref().map(Socket::fd);
        let mut endpoints = BTreeMap::new();
        if let Some(socket) = socket {
            let fd = socket.fd();
            let endpoint = Endpoint::new(socket, &configs, true).map_err(SetupError::Bind)?;
            endpoints.insert(fd, endpoint);
        }
        Ok(Self {
            gate: Gate::new(&options.gate()),
            options,
            configs,
            listener,
            endpoints,
            left: LeftSockets::default(),
            blocked: BTreeSet::new(),
            detached: Vec::new(),
            connections: BTreeMap::new(),
            next_id: 1,
            schedule: Schedule::default(),
            armed: None,
            arena: Arena::default(),
            packet: Vec::with_capacity(MAX_SEND + 2048),
        })
    }

    pub fn listener(&self) -> Option<(RawFd, SocketAddr)> {
        let fd = self.listener?;
        Some((fd, self.endpoints.get(&fd)?.address))
    }

    /// How many dialers got no handshake, by reason.
    pub fn turned_away(&self) -> &TurnedAway {
        self.gate.turned_away()
    }

    /// Inbound connections whose peers have not shown who they are.
    pub fn strangers(&self) -> usize {
        self.gate.strangers()
    }

    /// Reads what arrived on one socket and adds what came of it to `out`.
    pub fn receive(&mut self, fd: RawFd, now: Instant, out: &mut Vec<Event>) -> io::Result<()> {
        let result = self.read_socket(fd, now);
        self.collect(now, out);
        result
    }

    /// Runs timers that are due, and goes on with what the last batch left.
    pub fn drive(&mut self, now: Instant, out: &mut Vec<Event>) {
        self.armed = None;
        self.run_timers(now);
        self.collect(now, out);
    }

    /// The watcher's turn: everything but handing over to Python.
    pub fn stand_in(&mut self, now: Instant, dirty: Vec<u64>) {
        let fds: Vec<RawFd> = self.fds().collect();
        for fd in fds {
            // A broken socket is reported to the event loop when it comes round.
            let _ = self.read_socket(fd, now);
        }
        self.run_timers(now);
        self.flush(now, dirty);
    }

    pub fn fds(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.endpoints.keys().copied().chain(self.left.fds())
    }

    pub fn is_idle(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// Whether there is something for the event loop to collect.
    pub fn has_news(&self) -> bool {
        self.schedule.has_ready() || !self.detached.is_empty()
    }

    fn add_connection(
        &mut self,
        fd: RawFd,
        handle: ConnectionHandle,
        quic: quinn_proto::Connection,
        local: SocketAddr,
        same_host: bool,
    ) -> Link {
        let id = self.next_id;
        self.next_id += 1;
        let high_water = self.options.send_high_water as usize;
        let low_water = self.options.send_low_water as usize;
        let channel = Arc::new(Channel::new(id, high_water, low_water));
        let mut connection = Connection::new(channel.clone(), fd, handle, quic, local, same_host);
        let link = Link {
            channel,
            fd,
            is_dialer: connection.is_dialer,
            peer: connection.path.peer,
            local,
        };
        self.schedule.touch(&mut connection);
        self.connections.insert(id, connection);
        if let Some(endpoint) = self.endpoints.get_mut(&fd) {
            endpoint.ids.insert(handle, id);
        }
        link
    }

    /// Takes quinn's events of one connection.
    fn pump(&mut self, id: u64, now: Instant) {
        if let Some(connection) = self.connections.get_mut(&id) {
            guarded(connection, |c| c.poll(now, &self.options));
            self.schedule.mark(connection);
        }
    }

    /// Moves news of the ready connections into `out`, one after the other, within the bounds of a batch.
    fn collect(&mut self, now: Instant, out: &mut Vec<Event>) {
        let before = out.len();
        out.extend(self.detached.drain(..).map(|fd| Event::Detached { fd }));
        let mut budget = Budget {
            messages: self.options.batch_messages as usize,
            bytes: self.options.batch_bytes as usize,
        };
        for _ in 0..self.schedule.ready() {
            if budget.messages == 0 || budget.bytes == 0 {
                break;
            }
            let Some(connection) = self.schedule.next_ready(&mut self.connections) else {
                continue;
            };
            guarded(connection, |c| {
                c.collect(now, &self.options, &mut budget, out)
            });
            if connection.broken {
                connection.report_breakdown(out);
            }
            if connection.is_over() {
                let id = connection.id();
                self.forget(id);
            } else {
                self.schedule.mark(connection);
            }
        }
        for event in &out[before..] {
            match event {
                Event::Connected { id, .. } => self.gate.proved(*id, now),
                Event::Closed { id, .. } => drop(self.gate.gone(*id)),
                _ => {}
            }
        }
    }

    /// Drops a connection that is over, and offers its socket for release if it had one of its own.
    fn forget(&mut self, id: u64) {
        let Some(mut connection) = self.connections.remove(&id) else {
            return;
        };
        self.schedule.forget(&mut connection);
        let fd = connection.fd;
        let Some(endpoint) = self.endpoints.get_mut(&fd) else {
            return;
        };
        endpoint.ids.remove(&connection.handle);
        if !connection.drained {
            let gone = EndpointEvent::drained();
            endpoint.quinn.handle_event(connection.handle, gone);
        }
        if !endpoint.is_listener {
            self.detached.push(fd);
            self.detached.extend(self.left.abandon(fd));
        }
    }
}

/// Runs one step of a connection; a panic in it costs this connection only.
fn guarded(connection: &mut Connection, step: impl FnOnce(&mut Connection)) {
    if connection.broken {
        return;
    }
    if catch_unwind(AssertUnwindSafe(|| step(connection))).is_err() {
        connection.break_down();
    }
}

/// Whether an address is one of this host: then packets to it can't leave it, and ICMP errors are the kernel's own.
fn is_same_host(peer: IpAddr, local: Option<IpAddr>) -> bool {
    peer.to_canonical().is_loopback()
        || local.map(|ip| ip.to_canonical()) == Some(peer.to_canonical())
}
