//! Moving a dialed connection to a new socket, and back if nothing comes there.

use super::Core;
use crate::quic::connection::Phase;
use crate::quic::socket::Socket;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::RawFd;
use std::time::Instant;

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

impl Core {
    /// Moves a dialed connection to a new socket, and asks the peer for a sign there; `Moved` follows.
    ///
    /// `to` is where the packets go from now on, such as another relay; the peer's address if there is none.
    pub fn migrate(
        &mut self,
        id: u64,
        to: Option<SocketAddr>,
        given: Option<UdpSocket>,
    ) -> Result<RawFd, MoveError> {
        let connection = self
            .connections
            .get(&id)
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
        let buffer = self.options.socket_buffer as usize;
        let socket = Socket::dial(given, to, peer, buffer).map_err(MoveError::Socket)?;
        let local = socket.local_address().map_err(MoveError::Socket)?;
        let fd = socket.fd();
        self.change_socket(id, socket, local, true)
            .ok_or(MoveError::NotConnected)?;
        self.left.limit(fd, Instant::now());
        Ok(fd)
    }

    /// Goes back to the socket that the connection left last, if the new path is not proven yet.
    pub fn migrate_back(&mut self, id: u64) -> bool {
        self.return_to_last(id).is_some()
    }

    fn return_to_last(&mut self, id: u64) -> Option<()> {
        let connection = self.connections.get_mut(&id)?;
        if !std::mem::take(&mut connection.path.unproven) {
            return None;
        }
        let socket = self.left.take_back(connection.fd)?;
        let local = socket.local_address().ok()?;
        let fd = socket.fd();
        self.change_socket(id, socket, local, false)?;
        self.left.linger(fd, Instant::now());
        Some(())
    }

    /// Puts `socket` in the place of the connection's, which is read for a while yet.
    fn change_socket(
        &mut self,
        id: u64,
        socket: Socket,
        local: SocketAddr,
        unproven: bool,
    ) -> Option<()> {
        let connection = self.connections.get_mut(&id)?;
        let mut endpoint = self.endpoints.remove(&connection.fd)?;
        let fd = socket.fd();
        let old = std::mem::replace(&mut endpoint.socket, socket);
        self.left.leave(old, fd);
        endpoint.address = local;
        self.endpoints.insert(fd, endpoint);
        connection.fd = fd;
        connection.path.local = local;
        connection.path.unproven = unproven;
        connection.suspicion = None;
        // The peer learns of the new address by this packet.
        connection.quic.local_address_changed();
        connection.unflushed = true;
        self.schedule.touch(connection);
        Some(())
    }
}
