//! The external term format of Erlang, without a word of Python.
//!
//! [`Reader`] walks bytes and tells a [`Builder`] what it meets; a builder makes values of its own: Python objects at the
//! border, nothing at all in [`check::Check`] (fuzzing, opaque funs), comparable bytes in [`canonical::Canonical`] (equal
//! map keys). The format is described in "External Term Format" of the Erlang/OTP documentation (erts); where that page is
//! silent the behaviour is that of `binary_to_term/1` of OTP 27.

pub mod canonical;
pub mod check;
mod decode;
mod float_text;
mod inflate;
pub mod write;

#[cfg(test)]
mod tests;

pub use decode::{Builder, RawReference, Reader};

use std::borrow::Cow;

/// The byte before a term that stands alone.
pub const VERSION: u8 = 131;

/// Tags as the documentation names them.
pub mod tag {
    pub const NEW_FLOAT: u8 = 70;
    pub const BIT_BINARY: u8 = 77;
    pub const COMPRESSED: u8 = 80;
    pub const ATOM_CACHE_REF: u8 = 82;
    pub const NEW_PID: u8 = 88;
    pub const NEW_PORT: u8 = 89;
    pub const NEWER_REFERENCE: u8 = 90;
    pub const SMALL_INTEGER: u8 = 97;
    pub const INTEGER: u8 = 98;
    pub const FLOAT: u8 = 99;
    pub const ATOM: u8 = 100;
    pub const REFERENCE: u8 = 101;
    pub const PORT: u8 = 102;
    pub const PID: u8 = 103;
    pub const SMALL_TUPLE: u8 = 104;
    pub const LARGE_TUPLE: u8 = 105;
    pub const NIL: u8 = 106;
    pub const STRING: u8 = 107;
    pub const LIST: u8 = 108;
    pub const BINARY: u8 = 109;
    pub const SMALL_BIG: u8 = 110;
    pub const LARGE_BIG: u8 = 111;
    pub const NEW_FUN: u8 = 112;
    pub const EXPORT: u8 = 113;
    pub const NEW_REFERENCE: u8 = 114;
    pub const SMALL_ATOM: u8 = 115;
    pub const MAP: u8 = 116;
    pub const FUN: u8 = 117;
    pub const ATOM_UTF8: u8 = 118;
    pub const SMALL_ATOM_UTF8: u8 = 119;
    pub const V4_PORT: u8 = 120;
    pub const LOCAL: u8 = 121;
}

/// The text of an atom in an atom cache, claimed to be UTF-8.
pub type AtomText = std::sync::Arc<[u8]>;

/// An atom has at most this many characters (OTP's MAX_ATOM_CHARACTERS).
pub const MAX_ATOM_CHARS: usize = 255;

/// The same in bytes: a character has at most four.
pub const MAX_ATOM_BYTES: usize = 4 * MAX_ATOM_CHARS;

/// A reference has at most this many words (OTP's ERTS_MAX_REF_NUMBERS).
pub const MAX_REFERENCE_WORDS: usize = 5;

/// What the decoder accepts before it gives up on a peer.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Containers inside containers. Each level costs native stack, see `MAX_DEPTH`.
    pub depth: u32,
    /// Bytes of one term, counted after inflation too.
    pub bytes: usize,
    /// Bytes of one integer.
    pub integer_bytes: usize,
    /// Whether an empty text (BIT_BINARY_EXT, no bytes, 8 bits) is read; OTP calls it badarg.
    pub empty_text: bool,
}

/// No codec may be asked for more: at this depth encoder and decoder still fit a thread's stack of 512 KiB.
pub const MAX_DEPTH: u32 = 1024;

impl Default for Limits {
    fn default() -> Self {
        Limits {
            depth: 512,
            bytes: 64 << 20,
            integer_bytes: MAX_INTEGER_BYTES,
            empty_text: false,
        }
    }
}

/// OTP 26 and later hold integers of at most 65,535 words of 64 bits.
pub const MAX_INTEGER_BYTES: usize = 65_535 * 8;

/// Why bytes are no term, and where. `in_host` says that the builder's own world has an error pending (a Python exception).
#[derive(Debug)]
pub struct Fault {
    pub offset: usize,
    pub what: Cow<'static, str>,
    pub in_host: bool,
}

/// Boxed, so that a `Result` of a pointer travels in registers.
pub type Fail = Box<Fault>;

impl Fault {
    #[cold]
    #[inline(never)]
    pub fn new(offset: usize, what: impl Into<Cow<'static, str>>) -> Fail {
        Box::new(Fault {
            offset,
            what: what.into(),
            in_host: false,
        })
    }

    /// The builder failed for a reason that its own world holds.
    #[cold]
    #[inline(never)]
    pub fn host() -> Fail {
        Box::new(Fault {
            offset: 0,
            what: Cow::Borrowed("the builder failed"),
            in_host: true,
        })
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "at offset {}: {}", self.offset, self.what)
    }
}

impl std::error::Error for Fault {}
