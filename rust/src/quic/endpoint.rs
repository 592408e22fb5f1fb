//! Everything one transport owns: its sockets, quinn endpoints and connections, driven from outside.

use super::channel::Channel;
use super::connection::{Budget, Connection, Phase};
use super::options::Options;
use super::reason::CloseReason;
use super::socket::{Arena, Socket, ARENA, MAX_SEND};
use super::{tls, Event, Link};
use crate::frame::Limits;
use bytes::BytesMut;
use quinn_proto::{
    ClientConfig, ConnectionHandle, DatagramEvent, EndpointConfig, HashedConnectionIdGenerator,
    Incoming, ServerConfig, TransportConfig, ValidationTokenConfig,
};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Datagram batches read in one call, so that a flood on one socket leaves time for the others.
const RECEIVE_ROUNDS: usize = 4;
/// When the kernel has no room for a packet, or work is left over, try again after this.
const RETRY: Duration = Duration::from_millis(1);

pub struct Core {
    options: Options,
    quinn: Arc<EndpointConfig>,
    client: Arc<quinn_proto::crypto::rustls::QuicClientConfig>,
    transport: PerPlace<Arc<TransportConfig>>,
    server: PerPlace<Arc<ServerConfig>>,
    listener: Option<RawFd>,
    endpoints: BTreeMap<RawFd, Endpoint>,
    connections: BTreeMap<u64, Connection>,
    /// Connections with something to report, in turn.
    ready: VecDeque<u64>,
    next_id: u64,
    arena: Arena,
    packet: Vec<u8>,
    detached: Vec<RawFd>,
    /// When the event loop will call `drive` at the latest, as far as it was told.
    armed: Option<Instant>,
}

/// One socket with its quinn endpoint: the listener, or one dialed connection.
struct Endpoint {
    socket: Socket,
    quinn: quinn_proto::Endpoint,
    handles: HashMap<ConnectionHandle, u64>,
    /// The local address of the socket, with an unspecified IP for a listener on all interfaces.
    address: SocketAddr,
    is_listener: bool,
}

/// Settings for peers on this host, and for all others.
struct PerPlace<T> {
    local: T,
    remote: T,
}

impl<T> PerPlace<T> {
    fn get(&self, local: bool) -> &T {
        if local {
            &self.local
        } else {
            &self.remote
        }
    }
}

/// What a node is known by on the wire.
pub struct Identity<'a> {
    pub certificate: &'a [u8],
    pub private_key: &'a [u8],
    pub reset_key: &'a [u8],
    pub alpn: &'a [u8],
}

/// A setup that can't work; the text says why.
#[derive(Debug)]
pub enum SetupError {
    Identity(String),
    Bind(io::Error),
}

impl Core {
    pub fn new(
        identity: &Identity<'_>,
        listen: Option<SocketAddr>,
        options: Options,
    ) -> Result<Self, SetupError> {
        let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, identity.reset_key);
        // Connection ids must be recognized after a restart too, or stale packets get no stateless reset.
        let cid_key = ring::hmac::sign(&reset_key, b"connection ids");
        let cid_key = cid_key.as_ref()[..8]
            .try_into()
            .map(u64::from_be_bytes)
            .unwrap_or(0);
        let mut quinn = EndpointConfig::new(Arc::new(reset_key));
        quinn
            .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(cid_key)))
            .grease_quic_bit(false)
            .max_udp_payload_size(65_527)
            .map_err(|e| SetupError::Identity(e.to_string()))?;

        let socket = match listen {
            Some(address) => Some(
                Socket::bind(address, options.socket_buffer as usize).map_err(SetupError::Bind)?,
            ),
            None => None,
        };
        let buffer = socket
            .as_ref()
            .map_or(options.socket_buffer as usize, Socket::receive_buffer);
        let transport = PerPlace {
            local: Arc::new(options.transport(true, buffer)),
            remote: Arc::new(options.transport(false, buffer)),
        };
        let crypto = tls::server(identity.certificate, identity.private_key, identity.alpn)
            .map_err(SetupError::Identity)?;
        let server = |transport: &Arc<TransportConfig>| {
            let mut config = ServerConfig::with_crypto(crypto.clone());
            config.transport_config(transport.clone());
            let mut tokens = ValidationTokenConfig::default();
            tokens.sent(0);
            config.validation_token_config(tokens);
            Arc::new(config)
        };
        let server = PerPlace {
            local: server(&transport.local),
            remote: server(&transport.remote),
        };
        let mut core = Self {
            client: tls::client(identity.alpn).map_err(SetupError::Identity)?,
            options,
            quinn: Arc::new(quinn),
            transport,
            listener: None,
            server,
            endpoints: BTreeMap::new(),
            connections: BTreeMap::new(),
            ready: VecDeque::new(),
            next_id: 1,
            arena: Arena::default(),
            packet: Vec::with_capacity(MAX_SEND + 2048),
            detached: Vec::new(),
            armed: None,
        };
        if let Some(socket) = socket {
            let server = Some(core.server.remote.clone());
            core.listener = Some(
                core.add_endpoint(socket, server)
                    .map_err(SetupError::Bind)?,
            );
        }
        Ok(core)
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    pub fn listener(&self) -> Option<(RawFd, SocketAddr)> {
        let fd = self.listener?;
        Some((fd, self.endpoints.get(&fd)?.address))
    }

    /// Dials; the handshake starts with the next `flush`.
    pub fn connect(
        &mut self,
        peer: SocketAddr,
        server_name: &str,
        now: Instant,
    ) -> io::Result<Link> {
        let socket = Socket::connect(peer, self.options.socket_buffer as usize)?;
        let local = socket.local_address()?;
        let same_host = is_same_host(peer.ip(), Some(local.ip()));
        let fd = self.add_endpoint(socket, None)?;
        let mut config = ClientConfig::new(self.client.clone());
        config.transport_config(self.transport.get(same_host).clone());
        let endpoint = self.endpoints.get_mut(&fd).ok_or(io::ErrorKind::NotFound)?;
        let (handle, quic) = match endpoint.quinn.connect(now, config, peer, server_name) {
            Ok(pair) => pair,
            Err(e) => {
                self.endpoints.remove(&fd);
                return Err(io::Error::new(io::ErrorKind::InvalidInput, e));
            }
        };
        Ok(self.add_connection(fd, handle, quic, peer, local, same_host))
    }

    /// Reads what arrived on one socket and adds what came of it to `out`.
    pub fn receive(&mut self, fd: RawFd, now: Instant, out: &mut Vec<Event>) -> io::Result<()> {
        let result = self.read_socket(fd, now);
        self.collect(now, out);
        result.map(|_| ())
    }

    /// Runs timers that are due, and goes on with what the last batch left.
    pub fn drive(&mut self, now: Instant, out: &mut Vec<Event>) {
        self.armed = None;
        self.run_timers(now);
        self.collect(now, out);
    }

    /// Writes everything queued, as far as QUIC and the kernel take it.
    pub fn flush(&mut self, now: Instant, dirty: Vec<u64>) {
        for id in dirty {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.unflushed = true;
            }
        }
        for endpoint in self.endpoints.values_mut() {
            endpoint.socket.send_blocked();
        }
        let mut drained = Vec::new();
        for (id, connection) in &mut self.connections {
            if !connection.unflushed {
                continue;
            }
            let Some(endpoint) = self.endpoints.get_mut(&connection.fd) else {
                continue;
            };
            guarded(connection, |connection| {
                transmit(connection, endpoint, &mut self.packet, now)
            });
            if connection.has_news() && !connection.ready {
                connection.ready = true;
                self.ready.push_back(*id);
            }
            if connection.drained && !connection.has_news() {
                drained.push(*id);
            }
        }
        for id in drained {
            self.forget(id);
        }
    }

    /// When `drive` has to be called, if that is earlier than the event loop was told before.
    ///
    /// Timers move with every packet, mostly to later: a call that comes too early costs less than telling the
    /// loop each time.
    pub fn rearm(&mut self, now: Instant) -> Option<Instant> {
        let next = self.next_timeout(now)?;
        if self.armed.is_some_and(|armed| armed <= next) {
            return None;
        }
        self.armed = Some(next);
        Some(next)
    }

    fn next_timeout(&self, now: Instant) -> Option<Instant> {
        if self.has_news() {
            return Some(now);
        }
        let blocked = self.endpoints.values().any(|e| e.socket.is_blocked());
        let retry = blocked.then(|| now + RETRY);
        self.timer().into_iter().chain(retry).min()
    }

    /// The earliest timer of all connections.
    pub fn timer(&self) -> Option<Instant> {
        let timers = self.connections.values().flat_map(|c| {
            let probe = c.suspicion.as_ref().map(|s| s.next_probe);
            c.timer.into_iter().chain(probe).chain(c.handshake_deadline)
        });
        timers.min()
    }

    pub fn connection(&mut self, id: u64) -> Option<&mut Connection> {
        self.connections.get_mut(&id)
    }

    pub fn start_dist(&mut self, id: u64, fragments: bool, max_frame: usize) -> Result<(), String> {
        let limits = Limits {
            max_frame,
            max_held: (self.options.max_unfinished as usize).max(max_frame),
            max_sequences: self.options.max_sequences as usize,
            fragments,
            atom_cache: false,
        };
        let connection = self
            .connections
            .get_mut(&id)
            .ok_or("the connection is closed")?;
        connection.start_dist(limits, &self.options)?;
        self.mark(id);
        Ok(())
    }

    /// Puts a connection in the queue of those with something to report, if it has.
    pub fn mark(&mut self, id: u64) {
        if let Some(connection) = self.connections.get_mut(&id) {
            if !connection.ready && connection.has_news() {
                connection.ready = true;
                self.ready.push_back(id);
            }
        }
    }

    /// Closes the socket of a dialed connection after `Detached`; the event loop must not watch it any more.
    pub fn release(&mut self, fd: RawFd) {
        if self
            .endpoints
            .get(&fd)
            .is_some_and(|e| e.handles.is_empty() && !e.is_listener)
        {
            self.endpoints.remove(&fd);
        }
    }

    /// Closes all connections with a close frame, sends those, and closes all sockets.
    pub fn close(&mut self, now: Instant, code: u64, text: &str) {
        for connection in self.connections.values_mut() {
            connection.close(now, code, text, CloseReason::new("local", text));
        }
        self.flush(now, Vec::new());
        self.connections.clear();
        self.endpoints.clear();
        self.ready.clear();
    }

    pub fn fds(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.endpoints.keys().copied()
    }

    pub fn is_idle(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// Whether there is something for the event loop to collect.
    pub fn has_news(&self) -> bool {
        !self.ready.is_empty() || !self.detached.is_empty()
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

    // --- inside ----------------------------------------------------------------------------------------------------

    fn add_endpoint(
        &mut self,
        socket: Socket,
        server: Option<Arc<ServerConfig>>,
    ) -> io::Result<RawFd> {
        let fd = socket.fd();
        let address = socket.local_address()?;
        let is_listener = server.is_some();
        let quinn =
            quinn_proto::Endpoint::new(self.quinn.clone(), server, !socket.may_fragment(), None);
        let handles = HashMap::new();
        self.endpoints.insert(
            fd,
            Endpoint {
                socket,
                quinn,
                handles,
                address,
                is_listener,
            },
        );
        Ok(fd)
    }

    fn add_connection(
        &mut self,
        fd: RawFd,
        handle: ConnectionHandle,
        quic: quinn_proto::Connection,
        peer: SocketAddr,
        local: SocketAddr,
        same_host: bool,
    ) -> Link {
        let id = self.next_id;
        self.next_id += 1;
        let high_water = self.options.send_high_water as usize;
        let low_water = self.options.send_low_water as usize;
        let channel = Arc::new(Channel::new(id, high_water, low_water));
        let connection = Connection::new(channel.clone(), fd, handle, quic, same_host);
        let is_dialer = connection.is_dialer;
        self.connections.insert(id, connection);
        if let Some(endpoint) = self.endpoints.get_mut(&fd) {
            endpoint.handles.insert(handle, id);
        }
        Link {
            channel,
            fd,
            is_dialer,
            peer,
            local,
        }
    }

    fn read_socket(&mut self, fd: RawFd, now: Instant) -> io::Result<()> {
        let mut touched = Vec::new();
        let mut result = Ok(());
        for _ in 0..RECEIVE_ROUNDS {
            let Some(endpoint) = self.endpoints.get_mut(&fd) else {
                return Ok(());
            };
            let count = match endpoint.socket.receive(&mut self.arena) {
                Ok(count) => count,
                Err(e) => {
                    result = Err(e);
                    break;
                }
            };
            self.handle_datagrams(fd, count, now, &mut touched);
            if count < ARENA {
                break;
            }
        }
        touched.sort_unstable();
        touched.dedup();
        for id in touched {
            self.pump(id);
        }
        self.suspect_unreachable(fd, now);
        result
    }

    fn handle_datagrams(&mut self, fd: RawFd, count: usize, now: Instant, touched: &mut Vec<u64>) {
        let mut incoming = Vec::new();
        let Some(endpoint) = self.endpoints.get_mut(&fd) else {
            return;
        };
        for (meta, datagram) in self.arena.datagrams(count) {
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
            match event {
                None => {}
                Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                    let Some(id) = endpoint.handles.get(&handle) else {
                        continue;
                    };
                    if let Some(connection) = self.connections.get_mut(id) {
                        guarded(connection, |c| c.quic.handle_event(event));
                        connection.unflushed = true;
                        touched.push(*id);
                    }
                }
                Some(DatagramEvent::NewConnection(new)) => {
                    let local_ip = meta.dst_ip;
                    incoming.push((new, local_ip));
                }
                Some(DatagramEvent::Response(transmit)) => {
                    endpoint.socket.send(transmit, &self.packet[..]);
                }
            }
        }
        for (new, local_ip) in incoming {
            touched.extend(self.admit(fd, new, local_ip, now));
        }
    }

    /// Accepts a dialer, asks it to prove its address first, or refuses it.
    fn admit(
        &mut self,
        fd: RawFd,
        new: Incoming,
        local_ip: Option<IpAddr>,
        now: Instant,
    ) -> Option<u64> {
        let strangers = self.connections.values().filter(|c| {
            !c.is_dialer && matches!(c.phase, Phase::Handshaking | Phase::Unauthenticated)
        });
        let strangers = strangers.count() as u64;
        let endpoint = self.endpoints.get_mut(&fd)?;
        self.packet.clear();
        if strangers >= self.options.max_unauthenticated {
            let transmit = endpoint.quinn.refuse(new, &mut self.packet);
            endpoint.socket.send(transmit, &self.packet);
            return None;
        }
        if strangers >= self.options.max_unauthenticated / 2
            && !new.remote_address_validated()
            && new.may_retry()
        {
            if let Ok(transmit) = endpoint.quinn.retry(new, &mut self.packet) {
                endpoint.socket.send(transmit, &self.packet);
            }
            return None;
        }
        let peer = new.remote_address();
        let same_host = is_same_host(peer.ip(), local_ip);
        let server = self.server.get(same_host).clone();
        match endpoint
            .quinn
            .accept(new, now, &mut self.packet, Some(server))
        {
            Ok((handle, quic)) => {
                let ip = local_ip.unwrap_or(endpoint.address.ip());
                let local = SocketAddr::new(ip, endpoint.address.port());
                let link = self.add_connection(fd, handle, quic, peer, local, same_host);
                let id = link.channel.id;
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

    /// Takes quinn's events of one connection.
    fn pump(&mut self, id: u64) {
        if let Some(connection) = self.connections.get_mut(&id) {
            guarded(connection, Connection::poll);
        }
        self.mark(id);
    }

    fn run_timers(&mut self, now: Instant) {
        let unreachable = Duration::from_millis(self.options.unreachable_ms);
        let mut due = Vec::new();
        for (id, connection) in &mut self.connections {
            if connection.suspicion.is_some() {
                guarded(connection, |c| c.check_suspicion(now, unreachable));
                due.push(*id);
            }
            if connection
                .handshake_deadline
                .is_some_and(|limit| limit <= now)
            {
                guarded(connection, |c| {
                    let text = "no TLS handshake within handshake_timeout_ms";
                    c.close(now, 0, text, CloseReason::new("timeout", text));
                });
                due.push(*id);
            }
            if connection.timer.is_some_and(|timer| timer <= now) {
                guarded(connection, |c| c.quic.handle_timeout(now));
                connection.unflushed = true;
                due.push(*id);
            }
        }
        for id in due {
            self.pump(id);
        }
    }

    fn suspect_unreachable(&mut self, fd: RawFd, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(&fd) else {
            return;
        };
        let peers = endpoint.socket.take_unreachable();
        if peers.is_empty() {
            return;
        }
        for connection in self.connections.values_mut() {
            let alive = connection.phase != Phase::Closed;
            if alive
                && connection.fd == fd
                && connection.local
                && peers.contains(&connection.quic.remote_address())
            {
                connection.suspect(now);
            }
        }
        self.run_timers(now);
    }

    /// Moves news of the ready connections into `out`, one after the other, within the bounds of a batch.
    fn collect(&mut self, now: Instant, out: &mut Vec<Event>) {
        out.extend(self.detached.drain(..).map(|fd| Event::Detached { fd }));
        let mut budget = Budget {
            messages: self.options.batch_messages as usize,
            bytes: self.options.batch_bytes as usize,
        };
        for _ in 0..self.ready.len() {
            if budget.messages == 0 || budget.bytes == 0 {
                break;
            }
            let Some(id) = self.ready.pop_front() else {
                break;
            };
            let Some(connection) = self.connections.get_mut(&id) else {
                continue;
            };
            connection.ready = false;
            let options = &self.options;
            guarded(connection, |c| c.collect(now, options, &mut budget, out));
            if connection.broken {
                connection.report_breakdown(out);
            }
            if connection.drained && !connection.has_news() {
                self.forget(id);
            } else {
                self.mark(id);
            }
        }
    }

    /// Drops a drained connection, and offers its socket for release if it had one of its own.
    fn forget(&mut self, id: u64) {
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        if let Some(endpoint) = self.endpoints.get_mut(&connection.fd) {
            endpoint.handles.remove(&connection.handle);
            if !endpoint.is_listener {
                self.detached.push(connection.fd);
            }
        }
    }
}

/// Writes streams into QUIC and packets to the socket until there is no more to send now.
fn transmit(
    connection: &mut Connection,
    endpoint: &mut Endpoint,
    packet: &mut Vec<u8>,
    now: Instant,
) {
    connection.unflushed = false;
    loop {
        connection.write_streams();
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
        connection.poll();
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
