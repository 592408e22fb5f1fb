//! One socket with its quinn endpoint: the listener, or one dialed connection.

use super::config::Configs;
use crate::quic::socket::Socket;
use quinn_proto::ConnectionHandle;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;

pub struct Endpoint {
    pub socket: Socket,
    pub quinn: quinn_proto::Endpoint,
    /// The number of each connection here.
    pub ids: HashMap<ConnectionHandle, u64>,
    /// The local address of the socket, with an unspecified IP for a listener on all interfaces.
    pub address: SocketAddr,
    pub is_listener: bool,
    /// For the moment packets of no connection are dropped unread.
    pub is_shut: bool,
}

impl Endpoint {
    pub fn new(socket: Socket, configs: &Configs, is_listener: bool) -> io::Result<Self> {
        let address = socket.local_address()?;
        let server = is_listener.then(|| configs.listener(false));
        let may_probe_mtu = !socket.may_fragment();
        let quinn = quinn_proto::Endpoint::new(configs.endpoint(), server, may_probe_mtu, None);
        Ok(Self {
            socket,
            quinn,
            ids: HashMap::new(),
            address,
            is_listener,
            is_shut: false,
        })
    }

    /// Accepts with the configuration of now, or drops packets of no connection unread.
    pub fn configure(&mut self, shut: bool, configs: &Configs) {
        self.is_shut = shut;
        self.quinn.set_server_config(Some(configs.listener(shut)));
    }
}
