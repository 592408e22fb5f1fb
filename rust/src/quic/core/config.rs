//! What quinn is configured with: who we are, and how connections behave.

use crate::quic::options::Options;
use crate::quic::tls;
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::crypto::HandshakeTokenKey;
use quinn_proto::{
    ClientConfig, EndpointConfig, HashedConnectionIdGenerator, ServerConfig, TransportConfig,
    ValidationTokenConfig,
};
use std::io;
use std::sync::Arc;

/// First packets of dialers in one batch that wait for the gate's verdict, and what each may bring along.
const MAX_INCOMING: usize = 1024;
const INCOMING_BYTES: u64 = 16 << 10;

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

pub struct Configs {
    endpoint: Arc<EndpointConfig>,
    client: Arc<QuicClientConfig>,
    transport: PerPlace<Arc<TransportConfig>>,
    /// Seals what a Retry says; it outlives a change of the certificate.
    token_key: Arc<dyn HandshakeTokenKey>,
    server: PerPlace<Arc<ServerConfig>>,
    /// Takes no connection at all: quinn then drops an Initial that it has no connection for before it derives keys.
    shut: Arc<ServerConfig>,
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

impl Configs {
    pub fn new(
        identity: &Identity<'_>,
        options: &Options,
        socket_buffer: usize,
    ) -> Result<Self, String> {
        let transport = PerPlace {
            local: Arc::new(options.transport(true, socket_buffer)),
            remote: Arc::new(options.transport(false, socket_buffer)),
        };
        let crypto = tls::server(identity.certificate, identity.private_key, identity.alpn)?;
        let token_key: Arc<dyn HandshakeTokenKey> = Arc::new(token_key()?);
        let (server, shut) = servers(&crypto, &token_key, &transport, options);
        Ok(Self {
            endpoint: Arc::new(endpoint(identity.reset_key)?),
            client: tls::client(identity.alpn)?,
            transport,
            token_key,
            server,
            shut,
        })
    }

    pub fn set_certificate(
        &mut self,
        certificate: &[u8],
        private_key: &[u8],
        alpn: &[u8],
        options: &Options,
    ) -> Result<(), String> {
        let crypto = tls::server(certificate, private_key, alpn)?;
        (self.server, self.shut) = servers(&crypto, &self.token_key, &self.transport, options);
        Ok(())
    }

    pub fn endpoint(&self) -> Arc<EndpointConfig> {
        self.endpoint.clone()
    }

    /// For one dialed connection.
    pub fn client(&self, same_host: bool) -> ClientConfig {
        let mut config = ClientConfig::new(self.client.clone());
        config.transport_config(self.transport.get(same_host).clone());
        config
    }

    /// For one accepted connection.
    pub fn server(&self, same_host: bool) -> Arc<ServerConfig> {
        self.server.get(same_host).clone()
    }

    /// For the listener itself, which before a connection is accepted knows no place.
    pub fn listener(&self, shut: bool) -> Arc<ServerConfig> {
        let config = if shut {
            &self.shut
        } else {
            &self.server.remote
        };
        config.clone()
    }
}

fn endpoint(reset_key: &[u8]) -> Result<EndpointConfig, String> {
    let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, reset_key);
    // Connection ids must be recognized after a restart too, or stale packets get no stateless reset.
    let cid_key = ring::hmac::sign(&reset_key, b"connection ids");
    let cid_key = cid_key.as_ref()[..8]
        .try_into()
        .map(u64::from_be_bytes)
        .unwrap_or(0);
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(cid_key)))
        .grease_quic_bit(false)
        .max_udp_payload_size(65_527)
        .map_err(|e| e.to_string())?;
    Ok(config)
}

fn token_key() -> Result<ring::hkdf::Prk, String> {
    let mut secret = [0; 32];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut secret)
        .map_err(|_| "the system gives no random bytes".to_owned())?;
    Ok(ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, &[]).extract(&secret))
}

/// How connections are accepted, and `Configs::shut`.
fn servers(
    crypto: &Arc<QuicServerConfig>,
    token_key: &Arc<dyn HandshakeTokenKey>,
    transport: &PerPlace<Arc<TransportConfig>>,
    options: &Options,
) -> (PerPlace<Arc<ServerConfig>>, Arc<ServerConfig>) {
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
    let accepting = PerPlace {
        local: one(&transport.local, MAX_INCOMING),
        remote: one(&transport.remote, MAX_INCOMING),
    };
    (accepting, one(&transport.remote, 0))
}
