//! What of the extension reads bytes of the network, without Python and QUIC, for the fuzz targets beside it.

#[path = "../../src/atom_cache.rs"]
pub mod atom_cache;
#[path = "../../src/etf/mod.rs"]
pub mod etf;
#[path = "../../src/frame/mod.rs"]
pub mod frame;
pub mod input;
pub mod memory;
#[path = "../../src/quic/preamble.rs"]
pub mod preamble;
mod same_keys;
