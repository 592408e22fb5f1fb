//! Framing of the Erlang distribution on a data stream: bytes in, whole messages out. Knows neither carriers nor Python.
//!
//! A stream is a sequence of frames `length:32 | payload`; length 0 is a tick. What stands in a payload depends on
//! which of the flags FRAGMENTS and DIST_HDR_ATOM_CACHE the two nodes negotiated:
//!
//! | negotiated | payload                                                                            |
//! |------------|------------------------------------------------------------------------------------|
//! | one        | `131 68 atoms` control \[message\]: the terms carry no version byte of their own   |
//! | FRAGMENTS  | `131 69 seq:64 n:64 atoms` first part, then `131 70 seq:64 n-1:64` ... down to n=1 |
//! | none       | `112 131` control \[`131` message\]                                                |
//!
//! `atoms` is what `atom_cache.rs` describes; distribution over QUIC never uses the cache, so there it is a single 0.
//! A claimed length is never trusted: buffers grow with the bytes that arrived.

#[cfg(test)]
mod tests;
mod write;

pub use write::{begin, finish, split, write};

use crate::atom_cache::ReceiveCache;
use crate::etf::AtomText;
use bytes::Bytes;
use std::collections::HashMap;

const VERSION: u8 = 131;
const NORMAL: u8 = 68;
const FIRST_FRAGMENT: u8 = 69;
const NEXT_FRAGMENT: u8 = 70;
const PASS_THROUGH: u8 = 112;

/// Bounds on what a peer can make us hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest frame, and largest message put together from fragments, in bytes.
    pub max_frame: usize,
    /// Bytes of incomplete frames and messages held for one connection.
    pub max_held: usize,
    /// Fragmented messages in progress on one connection. Erlang has one per sending process and channel.
    pub max_sequences: usize,
    /// Whether FRAGMENTS was negotiated; each side must then use the matching form.
    pub fragments: bool,
    /// Whether DIST_HDR_ATOM_CACHE was negotiated.
    pub atom_cache: bool,
}

impl Limits {
    /// Whether messages have a distribution header.
    fn header(&self) -> bool {
        self.fragments || self.atom_cache
    }
}

/// The peer broke the framing; the text says how, for the close reason and the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameError(pub String);

/// One control message with its optional payload, still encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawMessage {
    /// The control term, and the message term if bytes remain after it.
    pub body: Bytes,
    /// Whether each of the terms starts with the version byte 131.
    pub tagged: bool,
    /// What references to the atom cache in the terms stand for.
    pub atoms: Vec<AtomText>,
}

/// Turns the data streams of one connection into messages.
pub struct Deframer {
    limits: Limits,
    /// Per stream: the head of a frame that has not arrived whole, with its length prefix.
    streams: HashMap<u64, Vec<u8>>,
    /// Per stream and sequence id: a fragmented message in progress.
    fragments: HashMap<(u64, u64), Partial>,
    held: usize,
    cache: Option<ReceiveCache>,
}

struct Partial {
    last: u64,
    body: Vec<u8>,
    /// From the first fragment; later messages may give the slots of the cache to other atoms meanwhile.
    atoms: Vec<AtomText>,
}

impl Partial {
    /// The atoms count too, also those that the cache still shares: a header of 300 bytes can name 255 long ones.
    fn held(&self) -> usize {
        let atoms: usize = self.atoms.iter().map(|text| 32 + text.len()).sum();
        self.body.len() + atoms
    }
}

impl Deframer {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            streams: HashMap::new(),
            fragments: HashMap::new(),
            held: 0,
            cache: limits.atom_cache.then(ReceiveCache::new),
        }
    }

    /// Takes the next bytes of `stream` and appends the messages they complete to `out`.
    ///
    /// After an error the messages already in `out` are good; the deframer must not be fed again.
    pub fn feed(
        &mut self,
        stream: u64,
        chunk: Bytes,
        out: &mut Vec<RawMessage>,
    ) -> Result<(), FrameError> {
        let mut at = match self.streams.remove(&stream) {
            None => 0,
            Some(head) => match self.complete(stream, head, &chunk, out)? {
                Some(used) => used,
                None => return Ok(()),
            },
        };
        // Frames that lie whole in the chunk are handed on as slices of it, without a copy.
        while let Some(prefix) = chunk.get(at..at + 4) {
            let length = self.length(prefix)?;
            if chunk.len() - at - 4 < length {
                break;
            }
            if length > 0 {
                self.payload(stream, chunk.slice(at + 4..at + 4 + length), out)?;
            }
            at += 4 + length;
        }
        if at < chunk.len() {
            self.hold(chunk.len() - at)?;
            self.streams.insert(stream, chunk[at..].to_vec());
        }
        Ok(())
    }

    /// How many more bytes of `stream` complete the frame in progress; 0 when none is known to be.
    pub fn missing(&self, stream: u64) -> usize {
        let Some(head) = self.streams.get(&stream) else {
            return 0;
        };
        match head.get(..4) {
            Some(prefix) => 4 + be32(prefix) - head.len(),
            None => 0,
        }
    }

    /// Bytes held for incomplete frames and messages.
    #[cfg(test)]
    fn held(&self) -> usize {
        self.held
    }

    /// Goes on with a frame whose first bytes came earlier; returns how much of `chunk` it took, or None if all.
    fn complete(
        &mut self,
        stream: u64,
        mut head: Vec<u8>,
        chunk: &Bytes,
        out: &mut Vec<RawMessage>,
    ) -> Result<Option<usize>, FrameError> {
        let before = head.len();
        let mut at = 0;
        if head.len() < 4 {
            at = (4 - head.len()).min(chunk.len());
            head.extend_from_slice(&chunk[..at]);
        }
        if head.len() >= 4 {
            let whole = 4 + self.length(&head[..4])?;
            let take = (whole - head.len()).min(chunk.len() - at);
            head.extend_from_slice(&chunk[at..at + take]);
            at += take;
            if head.len() == whole {
                self.held -= before;
                if whole > 4 {
                    self.payload(stream, Bytes::from(head).slice(4..), out)?;
                }
                return Ok(Some(at));
            }
        }
        self.hold(head.len() - before)?;
        self.streams.insert(stream, head);
        Ok(None)
    }

    fn payload(
        &mut self,
        stream: u64,
        payload: Bytes,
        out: &mut Vec<RawMessage>,
    ) -> Result<(), FrameError> {
        let kind = (payload[0], payload.get(1).copied());
        let fragmented = matches!(kind, (VERSION, Some(FIRST_FRAGMENT | NEXT_FRAGMENT)));
        match kind {
            _ if fragmented && !self.limits.fragments => Err(FrameError(
                "fragment although fragments were not negotiated".into(),
            )),
            (VERSION, Some(NORMAL)) if !self.limits.header() => Err(FrameError(
                "frame with a distribution header although it was not negotiated".into(),
            )),
            (VERSION, Some(NORMAL)) => {
                let (atoms, at) = self.atoms(&payload, 2)?;
                out.push(RawMessage {
                    body: payload.slice(at..),
                    tagged: false,
                    atoms,
                });
                Ok(())
            }
            (VERSION, Some(FIRST_FRAGMENT)) => self.first_fragment(stream, payload, out),
            (VERSION, Some(NEXT_FRAGMENT)) => self.next_fragment(stream, payload, out),
            (PASS_THROUGH, Some(VERSION)) if self.limits.header() => Err(FrameError(
                "pass-through frame although distribution headers were negotiated".into(),
            )),
            (PASS_THROUGH, Some(VERSION)) => {
                out.push(RawMessage {
                    body: payload.slice(1..),
                    tagged: true,
                    atoms: Vec::new(),
                });
                Ok(())
            }
            (a, Some(b)) => Err(FrameError(format!("unknown frame header {a} {b}"))),
            (a, None) => Err(FrameError(format!("frame of the single byte {a}"))),
        }
    }

    fn first_fragment(
        &mut self,
        stream: u64,
        payload: Bytes,
        out: &mut Vec<RawMessage>,
    ) -> Result<(), FrameError> {
        let (sequence, number) = fragment_ids(&payload)?;
        let (atoms, at) = self.atoms(&payload, 18)?;
        if number == 0 {
            return Err(FrameError("fragment number 0".into()));
        }
        if number == 1 {
            if self.fragments.contains_key(&(stream, sequence)) {
                return Err(FrameError(format!(
                    "fragment sequence {sequence} started twice"
                )));
            }
            out.push(RawMessage {
                body: payload.slice(at..),
                tagged: false,
                atoms,
            });
            return Ok(());
        }
        if self.fragments.len() >= self.limits.max_sequences {
            return Err(FrameError(format!(
                "more than {} fragmented messages at once",
                self.limits.max_sequences
            )));
        }
        let partial = Partial {
            last: number,
            body: payload[at..].to_vec(),
            atoms,
        };
        self.hold(partial.held())?;
        match self.fragments.insert((stream, sequence), partial) {
            None => Ok(()),
            Some(_) => Err(FrameError(format!(
                "fragment sequence {sequence} started twice"
            ))),
        }
    }

    fn next_fragment(
        &mut self,
        stream: u64,
        payload: Bytes,
        out: &mut Vec<RawMessage>,
    ) -> Result<(), FrameError> {
        let (sequence, number) = fragment_ids(&payload)?;
        let rest = &payload[18..];
        self.hold(rest.len())?;
        let Some(partial) = self.fragments.get_mut(&(stream, sequence)) else {
            return Err(FrameError(format!(
                "fragment of the unknown sequence {sequence}"
            )));
        };
        if number == 0 || number != partial.last - 1 {
            let expected = partial.last - 1;
            return Err(FrameError(format!(
                "fragment {number} of sequence {sequence} where {expected} was due"
            )));
        }
        if partial.body.len() + rest.len() > self.limits.max_frame {
            return Err(FrameError(format!(
                "fragmented message larger than {} bytes",
                self.limits.max_frame
            )));
        }
        partial.last = number;
        partial.body.extend_from_slice(rest);
        if number == 1 {
            if let Some(done) = self.fragments.remove(&(stream, sequence)) {
                self.held -= done.held();
                out.push(RawMessage {
                    body: Bytes::from(done.body),
                    tagged: false,
                    atoms: done.atoms,
                });
            }
        }
        Ok(())
    }

    /// The atoms of a distribution header whose count stands at `at`, and the position behind the header.
    fn atoms(&mut self, payload: &[u8], at: usize) -> Result<(Vec<AtomText>, usize), FrameError> {
        match (&mut self.cache, payload.get(at)) {
            (Some(cache), _) => cache.read(payload, at),
            (None, Some(0)) => Ok((Vec::new(), at + 1)),
            (None, Some(n)) => Err(FrameError(format!(
                "distribution header with {n} atom cache entries; none can be in use"
            ))),
            (None, None) => Err(FrameError("distribution header cut off".into())),
        }
    }

    fn length(&self, prefix: &[u8]) -> Result<usize, FrameError> {
        let length = be32(prefix);
        if length > self.limits.max_frame {
            return Err(FrameError(format!(
                "frame of {length} bytes, more than the {} allowed",
                self.limits.max_frame
            )));
        }
        Ok(length)
    }

    fn hold(&mut self, more: usize) -> Result<(), FrameError> {
        self.held += more;
        if self.held > self.limits.max_held {
            return Err(FrameError(format!(
                "more than {} bytes of unfinished messages",
                self.limits.max_held
            )));
        }
        Ok(())
    }
}

fn be32(prefix: &[u8]) -> usize {
    u32::from_be_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]) as usize
}

fn fragment_ids(payload: &[u8]) -> Result<(u64, u64), FrameError> {
    let id = |range| {
        payload
            .get(range)
            .and_then(|b: &[u8]| b.try_into().ok())
            .map(u64::from_be_bytes)
    };
    match (id(2..10), id(10..18)) {
        (Some(sequence), Some(number)) => Ok((sequence, number)),
        _ => Err(FrameError(format!(
            "fragment header cut off after {} bytes",
            payload.len()
        ))),
    }
}
