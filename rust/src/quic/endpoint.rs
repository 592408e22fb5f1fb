//! Everything one transport owns: its sockets, quinn endpoints and connections, driven from outside.

use super::channel::Channel;
use super::connection::{Budget, Connection, Phase};
use super::gate::{FirstPacket, Gate, TurnedAway, Verdict};
use super::options::Options;
use super::reason::CloseReason;
use super::socket::{Arena, Socket, ARENA, MAX_SEND};
use super::streams::UserStreams;
use super::{tls, Event, Link};
use crate::frame::Limits;
use bytes::BytesMut;
use quinn_proto::crypto::HandshakeTokenKey;
use quinn_proto::{
    ClientConfig, ConnectionHandle, DatagramEvent, EndpointConfig, EndpointEvent,
    HashedConnectionIdGenerator, Incoming, ServerConfig, TransportConfig, ValidationTokenConfig,
};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::RawFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Datagram batches read in one call, so that a flood on one socket leaves time for the others.
const RECEIVE_ROUNDS: usize = 4;
/// Sockets that one connection left and that are read still; older ones are given up at once.
const MAX_LEFT: usize = 8;
/// First packets of dialers in one batch that wait for the gate's verdict, and what each may bring along.
const MAX_INCOMING: usize = 1024;
const INCOMING_BYTES: u64 = 16 << 10;
/// When the kernel has no room for a packet, or work is left over, try again after this.
const RETRY: Duration = Duration::from_millis(1);

pub struct Core {
    options: Options,
    quinn: Arc<EndpointConfig>,
    client: Arc<quinn_proto::crypto::rustls::QuicClientConfig>,
    transport: PerPlace<Arc<TransportConfig>>,
    /// Seals what a Retry says; it outlives a change of the certificate.
    token_key: Arc<dyn HandshakeTokenKey>,
    server: Servers,
    gate: Gate,
    listener: Option<RawFd>,
    endpoints: BTreeMap<RawFd, Endpoint>,
    connections: BTreeMap<u64, Connection>,
    /// Connections with something to report, in turn.
    ready: VecDeque<u64>,
    /// Connections that something was done to since the last flush: it looks at no others, however many there are.
    active: Vec<u64>,
    /// When each connection that waits for something is due, as `Connection::due` has it.
    due: BTreeSet<(Instant, u64)>,
    /// Endpoints whose sockets have packets that the kernel had no room for.
    blocked: BTreeSet<RawFd>,
    next_id: u64,
    arena: Arena,
    packet: Vec<u8>,
    detached: Vec<RawFd>,
    /// Sockets that connections moved away from; what still comes to them belongs to the connection.
    left: BTreeMap<RawFd, Left>,
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
    /// For the moment packets of no connection are dropped unread.
    is_shut: bool,
}

/// A socket that a connection moved away from.
struct Left {
    socket: Socket,
    /// The key of the endpoint it belongs to.
    endpoint: RawFd,
    state: LeftState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LeftState {
    /// The new path is unproven, and the connection may come back.
    Needed,
    /// What is on its way is read until then.
    Lingering(Instant),
    /// The event loop was told to forget it.
    Offered,
}

/// Why a connection can't move.
#[derive(Debug)]
pub enum MoveError {
    NotConnected,
    /// Only who dialed can move.
    NotDialer,
    /// The peer's transport parameters forbid it.
    Forbidden,
    /// The last move is not proven yet.
    Moving,
    Socket(io::Error),
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

/// How connections are accepted; the endpoint itself has one of the last two.
struct Servers {
    local: Arc<ServerConfig>,
    remote: Arc<ServerConfig>,
    /// Takes no connection at all: quinn then drops an Initial that it has no connection for before it derives keys.
    shut: Arc<ServerConfig>,
}

impl Servers {
    fn new(
        crypto: &Arc<quinn_proto::crypto::rustls::QuicServerConfig>,
        token_key: &Arc<dyn HandshakeTokenKey>,
        transport: &PerPlace<Arc<TransportConfig>>,
        options: &Options,
    ) -> Self {
        let one = |transport: &Arc<TransportConfig>, max_incoming: usize| {
            let mut config = ServerConfig::new(crypto.clone(), token_key.clone());
            config.migration(options.refuse_migration == 0);
            config.transport_config(transport.clone());
            let mut tokens = ValidationTokenConfig::default();
            tokens.sent(0);
            config.validation_token_config(tokens);
            config.max_incoming(max_incoming);
            // What may follow the first packet in the same batch; the rest of a handshake is short.
            config.incoming_buffer_size(INCOMING_BYTES);
            config.incoming_buffer_size_total(INCOMING_BYTES * MAX_INCOMING as u64);
            Arc::new(config)
        };
        Self {
            local: one(&transport.local, MAX_INCOMING),
            remote: one(&transport.remote, MAX_INCOMING),
            shut: one(&transport.remote, 0),
        }
    }

    fn get(&self, local: bool) -> &Arc<ServerConfig> {
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
        let token_key: Arc<dyn HandshakeTokenKey> =
            Arc::new(token_key().map_err(SetupError::Identity)?);
        let server = Servers::new(&crypto, &token_key, &transport, &options);
        let mut core = Self {
            client: tls::client(identity.alpn).map_err(SetupError::Identity)?,
            gate: Gate::new(&options.gate()),
            options,
            quinn: Arc::new(quinn),
            transport,
            listener: None,
            token_key,
            server,
            endpoints: BTreeMap::new(),
            connections: BTreeMap::new(),
            ready: VecDeque::new(),
            active: Vec::new(),
            due: BTreeSet::new(),
            blocked: BTreeSet::new(),
            next_id: 1,
            arena: Arena::default(),
            packet: Vec::with_capacity(MAX_SEND + 2048),
            detached: Vec::new(),
            left: BTreeMap::new(),
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

    /// Answers connections that begin from now on with another certificate. Those that exist keep theirs.
    pub fn set_certificate(
        &mut self,
        certificate: &[u8],
        private_key: &[u8],
        alpn: &[u8],
    ) -> Result<(), String> {
        let crypto = tls::server(certificate, private_key, alpn)?;
        self.server = Servers::new(&crypto, &self.token_key, &self.transport, &self.options);
        if let Some(listener) = self.listener.and_then(|fd| self.endpoints.get_mut(&fd)) {
            listener
                .quinn
                .set_server_config(Some(self.server.remote.clone()));
            listener.is_shut = false;
        }
        Ok(())
    }

    /// How many dialers got no handshake, by reason.
    pub fn turned_away(&self) -> &TurnedAway {
        self.gate.turned_away()
    }

    /// Inbound connections whose peers have not shown who they are.
    pub fn strangers(&self) -> usize {
        self.gate.strangers()
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    pub fn listener(&self) -> Option<(RawFd, SocketAddr)> {
        let fd = self.listener?;
        Some((fd, self.endpoints.get(&fd)?.address))
    }

    /// Dials; the handshake starts with the next `flush`. A socket of the caller's is used as it is, bound and
    /// perhaps connected; without one there is a new one.
    pub fn connect(
        &mut self,
        peer: SocketAddr,
        server_name: &str,
        given: Option<UdpSocket>,
        now: Instant,
    ) -> io::Result<Link> {
        let buffer = self.options.socket_buffer as usize;
        let socket = match given {
            Some(socket) => Socket::given(socket, peer, peer, buffer)?,
            None => Socket::connect(peer, peer, buffer)?,
        };
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

    /// Moves a dialed connection to a new socket, and asks the peer for a sign there; `Moved` follows.
    ///
    /// `to` is where the packets go from now on, such as another relay; the peer's address if there is none.
    pub fn migrate(
        &mut self,
        id: u64,
        to: Option<SocketAddr>,
        given: Option<UdpSocket>,
    ) -> Result<(RawFd, SocketAddr), MoveError> {
        let buffer = self.options.socket_buffer as usize;
        let connection = self
            .connections
            .get_mut(&id)
            .filter(|c| c.phase != Phase::Closed)
            .ok_or(MoveError::NotConnected)?;
        if !connection.is_dialer {
            return Err(MoveError::NotDialer);
        }
        if connection.path.unproven {
            return Err(MoveError::Moving);
        }
        if connection.forbids_migration() {
            return Err(MoveError::Forbidden);
        }
        let peer = connection.quic.remote_address();
        let endpoint = self
            .endpoints
            .get(&connection.fd)
            .ok_or(MoveError::NotConnected)?;
        let to = to.unwrap_or(endpoint.socket.destination().unwrap_or(peer));
        let socket = match given {
            Some(socket) => Socket::given(socket, to, peer, buffer),
            None => Socket::connect(to, peer, buffer),
        };
        let socket = socket.map_err(MoveError::Socket)?;
        let local = socket.local_address().map_err(MoveError::Socket)?;
        let fd = socket.fd();
        let old = connection.fd;
        self.change_socket(id, old, socket, local)
            .ok_or(MoveError::NotConnected)?;
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.path.unproven = true;
        }
        self.limit_left(fd);
        Ok((fd, local))
    }

    /// Goes back to the socket that the connection left last, if the new path is not proven yet.
    pub fn migrate_back(&mut self, id: u64) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else {
            return false;
        };
        if !connection.path.unproven {
            return false;
        }
        connection.path.unproven = false;
        let current = connection.fd;
        let last = self
            .left
            .iter()
            .find(|(_, left)| left.endpoint == current && left.state == LeftState::Needed)
            .map(|(fd, _)| *fd);
        let Some(left) = last.and_then(|fd| self.left.remove(&fd)) else {
            return false;
        };
        let Ok(local) = left.socket.local_address() else {
            return false;
        };
        let now = Instant::now();
        self.change_socket(id, current, left.socket, local);
        if let Some(left) = self.left.get_mut(&current) {
            left.state = LeftState::Lingering(now);
        }
        true
    }

    /// Puts `socket` in the place of the one with the number `old`, which is read for a while yet.
    fn change_socket(
        &mut self,
        id: u64,
        old: RawFd,
        socket: Socket,
        local: SocketAddr,
    ) -> Option<()> {
        let mut endpoint = self.endpoints.remove(&old)?;
        let fd = socket.fd();
        let left = Left {
            socket: std::mem::replace(&mut endpoint.socket, socket),
            endpoint: fd,
            state: LeftState::Needed,
        };
        endpoint.address = local;
        self.endpoints.insert(fd, endpoint);
        for earlier in self.left.values_mut().filter(|l| l.endpoint == old) {
            earlier.endpoint = fd;
        }
        self.left.insert(old, left);
        let connection = self.connections.get_mut(&id)?;
        connection.fd = fd;
        connection.path.local = local;
        connection.suspicion = None;
        // The peer learns of the new address by this packet.
        connection.quic.local_address_changed();
        connection.unflushed = true;
        self.touch(id);
        Some(())
    }

    /// Keeps few sockets that were left, however often a connection moves.
    fn limit_left(&mut self, endpoint: RawFd) {
        let mine = self.left.iter().filter(|(_, l)| l.endpoint == endpoint);
        let mut waiting: Vec<_> = mine
            .filter_map(|(fd, left)| match left.state {
                LeftState::Lingering(until) => Some((until, *fd)),
                _ => None,
            })
            .collect();
        waiting.sort_unstable();
        let surplus = (waiting.len() + 1).saturating_sub(MAX_LEFT);
        for (_, fd) in waiting.into_iter().take(surplus) {
            if let Some(left) = self.left.get_mut(&fd) {
                left.state = LeftState::Lingering(Instant::now());
            }
        }
    }

    /// The last move of a connection is proven: the socket before it is needed for what is on its way only.
    fn release_left(&mut self, endpoint: RawFd, now: Instant) {
        let until = now + Duration::from_millis(self.options.linger_ms);
        for left in self.left.values_mut() {
            if left.endpoint == endpoint && left.state == LeftState::Needed {
                left.state = LeftState::Lingering(until);
            }
        }
    }

    /// Offers sockets for release that were left long enough ago.
    fn expire_left(&mut self, now: Instant) {
        for (fd, left) in &mut self.left {
            if matches!(left.state, LeftState::Lingering(until) if until <= now) {
                left.state = LeftState::Offered;
                self.detached.push(*fd);
            }
        }
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
            if let Some(connection) = self.connection(id) {
                connection.unflushed = true;
            }
        }
        for fd in std::mem::take(&mut self.blocked) {
            if let Some(endpoint) = self.endpoints.get_mut(&fd) {
                endpoint.socket.send_blocked();
                self.note_blocked(fd);
            }
        }
        for id in std::mem::take(&mut self.active) {
            self.flush_one(id, now);
        }
    }

    /// Sends what one connection has, and notes when it is due next.
    fn flush_one(&mut self, id: u64, now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.active = false;
        let fd = connection.fd;
        if let Some(endpoint) = self.endpoints.get_mut(&fd).filter(|_| connection.unflushed) {
            let options = &self.options;
            guarded(connection, |connection| {
                transmit(connection, endpoint, &mut self.packet, now, options)
            });
            let waits = connection.unflushed && !connection.broken;
            self.note_blocked(fd);
            if waits {
                self.touch(id);
            }
        }
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.has_news() && !connection.ready {
            connection.ready = true;
            self.ready.push_back(id);
        }
        if connection.is_over() {
            self.forget(id);
            return;
        }
        let next = connection.next_due();
        let before = std::mem::replace(&mut connection.due, next);
        if before != next {
            before.map(|at| self.due.remove(&(at, id)));
            next.map(|at| self.due.insert((at, id)));
        }
    }

    /// The next flush looks at this connection.
    fn touch(&mut self, id: u64) {
        if let Some(connection) = self.connections.get_mut(&id) {
            if !std::mem::replace(&mut connection.active, true) {
                self.active.push(id);
            }
        }
    }

    fn note_blocked(&mut self, fd: RawFd) {
        if self
            .endpoints
            .get(&fd)
            .is_some_and(|e| e.socket.is_blocked())
        {
            self.blocked.insert(fd);
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
        let retry = (!self.blocked.is_empty()).then(|| now + RETRY);
        self.timer().into_iter().chain(retry).min()
    }

    /// The earliest timer of all connections.
    pub fn timer(&self) -> Option<Instant> {
        let due = self.due.first().map(|(at, _)| *at);
        let left = self.left.values().filter_map(|left| match left.state {
            LeftState::Lingering(until) => Some(until),
            _ => None,
        });
        due.into_iter().chain(left).min()
    }

    /// A connection to do something with; the next flush looks at it.
    pub fn connection(&mut self, id: u64) -> Option<&mut Connection> {
        self.touch(id);
        self.connections.get_mut(&id)
    }

    /// Opens a user stream: Some(None) if the peer allows no further one now, None without a connection.
    pub fn open_stream(&mut self, id: u64) -> Option<Option<u64>> {
        self.touch(id);
        let connection = self.connections.get_mut(&id)?;
        if connection.phase != Phase::Distribution {
            return None;
        }
        let (quic, options) = (&mut connection.quic, &self.options);
        Some(connection.user.open(quic, options))
    }

    /// Does something to the user streams of a connection, if it still exists; what comes of it is sent.
    pub fn with_streams<T>(
        &mut self,
        id: u64,
        step: impl FnOnce(&mut UserStreams, &mut quinn_proto::Connection, &Options) -> T,
    ) -> Option<T> {
        self.touch(id);
        let connection = self.connections.get_mut(&id)?;
        if connection.broken || connection.phase != Phase::Distribution {
            return None;
        }
        connection.unflushed = true;
        let result = step(&mut connection.user, &mut connection.quic, &self.options);
        Some(result)
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
        let now = Instant::now();
        connection.start_dist(now, limits, &self.options)?;
        self.gate.known(id, now);
        self.mark(id);
        Ok(())
    }

    /// Puts a connection in the queue of those with something to report, if it has.
    pub fn mark(&mut self, id: u64) {
        self.touch(id);
        if let Some(connection) = self.connections.get_mut(&id) {
            if !connection.ready && connection.has_news() {
                connection.ready = true;
                self.ready.push_back(id);
            }
        }
    }

    /// Closes the socket of a dialed connection after `Detached`; the event loop must not watch it any more.
    pub fn release(&mut self, fd: RawFd) {
        if self.left.remove(&fd).is_some() {
            return;
        }
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
        self.flush(now, self.connections.keys().copied().collect());
        self.connections.clear();
        self.active.clear();
        self.due.clear();
        self.blocked.clear();
        self.endpoints.clear();
        self.left.clear();
        self.ready.clear();
    }

    pub fn fds(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.endpoints.keys().chain(self.left.keys()).copied()
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
                is_shut: false,
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
        let connection = Connection::new(channel.clone(), fd, handle, quic, same_host, local);
        let is_dialer = connection.is_dialer;
        self.connections.insert(id, connection);
        self.touch(id);
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
        let mut key = fd;
        for _ in 0..RECEIVE_ROUNDS {
            let socket = match (self.endpoints.get_mut(&fd), self.left.get_mut(&fd)) {
                (Some(endpoint), _) => &mut endpoint.socket,
                (None, Some(left)) => {
                    key = left.endpoint;
                    &mut left.socket
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
            self.handle_datagrams(key, count, key == fd, now, &mut touched);
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
        } else if let Some(left) = self.left.get_mut(&fd) {
            left.socket.take_unreachable(); // it is no path any more
        }
        result
    }

    fn handle_datagrams(
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
                endpoint.is_shut = shut;
                let config = if shut {
                    &self.server.shut
                } else {
                    &self.server.remote
                };
                endpoint.quinn.set_server_config(Some(config.clone()));
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
                    let Some(id) = endpoint.handles.get(&handle) else {
                        continue;
                    };
                    if let Some(connection) = self.connections.get_mut(id) {
                        guarded(connection, |c| {
                            let before = c.path.unproven.then(|| c.frames_received());
                            c.quic.handle_event(event);
                            c.note_path(current, before);
                        });
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
                    self.mark(id);
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
        let endpoint = self.endpoints.get_mut(&fd)?;
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

    /// Takes quinn's events of one connection.
    fn pump(&mut self, id: u64, now: Instant) {
        let mut settled = None;
        if let Some(connection) = self.connections.get_mut(&id) {
            let options = &self.options;
            guarded(connection, |c| c.poll(now, options));
            settled =
                (connection.path.moves > 0 && !connection.path.unproven && connection.is_dialer)
                    .then_some(connection.fd);
        }
        if let Some(fd) = settled {
            self.release_left(fd, now);
        }
        self.mark(id);
    }

    fn run_timers(&mut self, now: Instant) {
        while let Some((_, id)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.pop_first();
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.due = None;
            }
            self.run_timers_of(id, now);
        }
        self.expire_left(now);
    }

    fn run_timers_of(&mut self, id: u64, now: Instant) {
        let unreachable = Duration::from_millis(self.options.unreachable_ms);
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        guarded(connection, |c| {
            c.check_suspicion(now, unreachable);
            if c.handshake_deadline.is_some_and(|limit| limit <= now) {
                let text = "no TLS handshake within handshake_timeout_ms";
                c.close(now, 0, text, CloseReason::new("timeout", text));
            }
            if c.user.next_deadline().is_some_and(|at| at <= now) {
                c.expire_preambles(now);
            }
            if c.timer.is_some_and(|timer| timer <= now) {
                c.quic.handle_timeout(now);
                c.unflushed = true;
            }
        });
        self.pump(id, now);
    }

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
                && connection.local
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

    /// Moves news of the ready connections into `out`, one after the other, within the bounds of a batch.
    fn collect(&mut self, now: Instant, out: &mut Vec<Event>) {
        let before = out.len();
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
            if connection.is_over() {
                self.forget(id);
            } else {
                self.mark(id);
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
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        connection.due.map(|at| self.due.remove(&(at, id)));
        if let Some(endpoint) = self.endpoints.get_mut(&connection.fd) {
            endpoint.handles.remove(&connection.handle);
            if !connection.drained {
                let gone = EndpointEvent::drained();
                endpoint.quinn.handle_event(connection.handle, gone);
            }
            if !endpoint.is_listener {
                self.detached.push(connection.fd);
                for (fd, left) in &mut self.left {
                    if left.endpoint == connection.fd && left.state != LeftState::Offered {
                        left.state = LeftState::Offered;
                        self.detached.push(*fd);
                    }
                }
            }
        }
    }
}

fn token_key() -> Result<ring::hkdf::Prk, String> {
    let mut secret = [0; 32];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut secret)
        .map_err(|_| "the system gives no random bytes".to_owned())?;
    Ok(ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, &[]).extract(&secret))
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
