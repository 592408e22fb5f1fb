//! What the application asks for, of the node's endpoint or of one connection.

use super::endpoint::Endpoint;
use super::left::LeftSockets;
use super::schedule::Schedule;
use super::{is_same_host, Core};
use crate::frame::Limits;
use crate::quic::connection::{Connection, Phase};
use crate::quic::options::Options;
use crate::quic::reason::CloseReason;
use crate::quic::socket::Socket;
use crate::quic::streams::UserStreams;
use crate::quic::Link;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::RawFd;
use std::time::Instant;

impl Core {
    /// Dials; the handshake starts with the next `flush`. A socket of the caller's is used as it is, bound and
    /// perhaps connected; without one there is a new one.
    pub fn connect(
        &mut self,
        peer: SocketAddr,
        server_name: &str,
        given: Option<UdpSocket>,
        now: Instant,
    ) -> io::Result<Link> {
        let socket = Socket::dial(given, peer, peer, self.options.socket_buffer as usize)?;
        let fd = socket.fd();
        let mut endpoint = Endpoint::new(socket, &self.configs, false)?;
        let local = endpoint.address;
        let same_host = is_same_host(peer.ip(), Some(local.ip()));
        let config = self.configs.client(same_host);
        let (handle, quic) = endpoint
            .quinn
            .connect(now, config, peer, server_name)
            .map_err(|e| io::Error::new(ErrorKind::InvalidInput, e))?;
        self.endpoints.insert(fd, endpoint);
        Ok(self.add_connection(fd, handle, quic, local, same_host))
    }

    /// Answers connections that begin from now on with another certificate. Those that exist keep theirs.
    pub fn set_certificate(
        &mut self,
        certificate: &[u8],
        private_key: &[u8],
        alpn: &[u8],
    ) -> Result<(), String> {
        self.configs
            .set_certificate(certificate, private_key, alpn, &self.options)?;
        if let Some(listener) = self.listener.and_then(|fd| self.endpoints.get_mut(&fd)) {
            listener.configure(false, &self.configs);
        }
        Ok(())
    }

    /// A connection to do something with; the next flush looks at it.
    pub fn connection(&mut self, id: u64) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(&id)?;
        self.schedule.touch(connection);
        Some(connection)
    }

    /// From now on messages are read and written.
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
        self.schedule.touch(connection);
        self.gate.known(id, now);
        Ok(())
    }

    /// Does something to the user streams of a connection, if it still exists; what comes of it is sent.
    pub fn with_streams<T>(
        &mut self,
        id: u64,
        step: impl FnOnce(&mut UserStreams, &mut quinn_proto::Connection, &Options) -> T,
    ) -> Option<T> {
        let connection = self.connections.get_mut(&id)?;
        if connection.phase != Phase::Distribution {
            return None;
        }
        connection.unflushed = true;
        self.schedule.touch(connection);
        let result = step(&mut connection.user, &mut connection.quic, &self.options);
        Some(result)
    }

    /// Closes the socket of a dialed connection after `Detached`; the event loop must not watch it any more.
    pub fn release(&mut self, fd: RawFd) {
        if self.left.remove(fd) {
            return;
        }
        let endpoint = self.endpoints.get(&fd);
        if endpoint.is_some_and(|e| e.ids.is_empty() && !e.is_listener) {
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
        self.schedule = Schedule::default();
        self.blocked.clear();
        self.endpoints.clear();
        self.left = LeftSockets::default();
    }
}
