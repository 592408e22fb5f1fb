//! What a stream is for, by its number alone, as in Erlang's quic_dist.
//!
//! Stream 0 and the first unidirectional stream of each side authenticate. The other bidirectional streams below 68
//! (dialer's, even) or 65 (acceptor's, odd) carry the distribution, sixteen of each side (QUIC_DIST_DATA_STREAMS); from
//! there on they are user streams.

use quinn_proto::{StreamId, VarInt};

/// Stream 0, and the first unidirectional stream of either side.
pub fn is_handshake(stream: u64) -> bool {
    matches!(stream, 0 | 2 | 3)
}

/// Streams above those of the distribution; a unidirectional one never is, for it has no way back.
pub fn is_user(stream: u64) -> bool {
    stream & 2 == 0 && stream >= if stream & 1 == 0 { 68 } else { 65 }
}

pub fn stream_id(id: u64) -> StreamId {
    VarInt::from_u64(id).unwrap_or(VarInt::MAX).into()
}
