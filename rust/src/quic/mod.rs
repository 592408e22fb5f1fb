//! The QUIC carrier without Python: sockets, TLS, quinn-proto connections, and the thread that stands in for a
//! blocked event loop.
//!
//! `core::Core` owns everything and is driven from outside: `receive` when a socket is readable, `drive` when a
//! timer is due, `flush` to write what is queued. It lives behind the one mutex of `Shared`; the watcher thread
//! takes that mutex only while the event loop does not come round. `Channel` is the part of a connection that
//! `send` touches without the mutex.

pub mod channel;
pub mod congestion;
pub mod connection;
pub mod core;
pub mod gate;
pub mod meter;
pub mod options;
pub mod preamble;
pub mod reason;
pub mod socket;
pub mod stream_id;
pub mod streams;
pub mod tls;
pub mod watcher;

use crate::frame::RawMessage;
use reason::CloseReason;
use std::net::SocketAddr;
use std::sync::Arc;

/// What the owner of an endpoint hears about, in order for each connection.
pub enum Event {
    /// A peer dialed us; its TLS handshake is under way.
    Accepted { link: Link },
    /// The TLS handshake is done; the dialer gets the acceptor's leaf certificate (DER).
    Connected {
        id: u64,
        certificate: Option<Vec<u8>>,
    },
    /// Bytes of the authentication streams or of stream 0, before the distribution starts.
    Stream {
        id: u64,
        stream: u64,
        data: Vec<u8>,
        fin: bool,
    },
    /// Distribution messages, in the order of each stream.
    Messages { id: u64, batch: Vec<RawMessage> },
    /// The send queue fell to the low-water mark after it had reached the high one.
    Writable { id: u64 },
    /// The peer opened a user stream and its tag is complete.
    StreamOpened { id: u64, stream: u64, tag: Vec<u8> },
    /// Something came on a user stream whose reader had found nothing.
    StreamReadable { id: u64, stream: u64 },
    /// The queue of a user stream fell to the low-water mark after it had reached the high one.
    StreamWritable { id: u64, stream: u64 },
    /// The peer takes nothing more from us on this stream.
    StreamStopped { id: u64, stream: u64, code: u64 },
    /// All that we wrote on this stream arrived, and its end.
    StreamFinished { id: u64, stream: u64 },
    /// The peer allows more streams than before.
    StreamsAvailable { id: u64 },
    /// What had arrived on a user stream when its connection ended; `Closed` follows.
    StreamRest {
        id: u64,
        stream: u64,
        rest: streams::Found,
    },
    /// The new path of a connection is proven.
    Moved { id: u64 },
    /// The last event of a connection.
    Closed { id: u64, reason: CloseReason },
    /// The socket of a dialed connection is not needed any more: forget it, then call `release`.
    Detached { fd: i32 },
}

/// The fixed facts of one connection, and its send buffer.
#[derive(Clone)]
pub struct Link {
    pub channel: Arc<channel::Channel>,
    pub fd: i32,
    pub is_dialer: bool,
    pub peer: SocketAddr,
    pub local: SocketAddr,
}
