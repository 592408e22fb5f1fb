//! Where a connection is, and whether the path of its last move is proven.

use super::Connection;
use crate::quic::Event;
use std::net::SocketAddr;

/// The addresses of a connection, and what became of the last move.
pub struct Path {
    pub local: SocketAddr,
    pub peer: SocketAddr,
    /// How often either end changed its address, in an active migration or behind a NAT.
    pub moves: u64,
    /// We moved, and nothing valid came to the new socket yet.
    pub unproven: bool,
}

impl Connection {
    /// Notes that a datagram came to the socket of this connection (`current`) or to one that it left.
    ///
    /// True if that proves the path of the last move.
    pub fn note_path(&mut self, current: bool, frames_before: Option<u64>) -> bool {
        let peer = self.quic.remote_address();
        if peer != self.path.peer {
            self.path.peer = peer;
            self.path.moves += 1;
        }
        // What is valid and came to the new socket was sent to its address: the peer has learnt it, and both ways work.
        let proven = self.path.unproven
            && current
            && frames_before.is_some_and(|before| before != self.frames_received());
        if proven {
            self.path.unproven = false;
            self.path.moves += 1;
            self.events.push_back(Event::Moved { id: self.id() });
        }
        proven
    }

    /// Whether the peer said in its transport parameters that nobody may move.
    pub fn forbids_migration(&self) -> bool {
        const DISABLE_ACTIVE_MIGRATION: u64 = 0x0c;
        let parameters = self.quic.crypto_session().transport_parameters();
        let Ok(Some(parameters)) = parameters else {
            return false;
        };
        // quinn keeps the field to itself, but writes it as it read it.
        let mut encoded = Vec::new();
        parameters.write(&mut encoded);
        let mut rest = &encoded[..];
        while let (Some(id), Some(length)) = (take_varint(&mut rest), take_varint(&mut rest)) {
            if id == DISABLE_ACTIVE_MIGRATION {
                return true;
            }
            let Some(after) = rest.get(length as usize..) else {
                break;
            };
            rest = after;
        }
        false
    }

    pub fn frames_received(&self) -> u64 {
        let frames = self.quic.stats().frame_rx;
        frames.acks + frames.ping + frames.stream + frames.crypto + frames.max_data
    }
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let first = *rest.first()?;
    let length = 1 << (first >> 6);
    let bytes = rest.get(..length)?;
    *rest = &rest[length..];
    let high = u64::from(first & 0x3f);
    Some(bytes[1..].iter().fold(high, |v, b| v << 8 | u64::from(*b)))
}
