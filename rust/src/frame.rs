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

use crate::atom_cache::ReceiveCache;
use crate::etf::AtomText;
use bytes::Bytes;
use std::collections::HashMap;

const VERSION: u8 = 131;
const NORMAL: u8 = 68;
const FIRST_FRAGMENT: u8 = 69;
const NEXT_FRAGMENT: u8 = 70;
const PASS_THROUGH: u8 = 112;

/// Bytes of terms in one fragment, as OTP has it. An upstream node appends what arrives to its frame and copies all of it
/// each time, so the time it takes grows with the square of the frame: one of 4 MiB kept it busy for 11 s.
const FRAGMENT: usize = 64 * 1024;

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

/// Starts a frame in `out`; the control term and the message term follow, then `finish`.
pub fn begin(out: &mut Vec<u8>, fragments: bool) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    match fragments {
        true => out.extend_from_slice(&[VERSION, NORMAL, 0]),
        false => out.extend_from_slice(&[PASS_THROUGH, VERSION]),
    }
    start
}

/// Writes the length of the frame that began at `start`; false if it is too long for the 32-bit prefix.
#[must_use]
pub fn finish(out: &mut [u8], start: usize) -> bool {
    match u32::try_from(out.len() - start - 4) {
        Ok(length) => {
            out[start..start + 4].copy_from_slice(&length.to_be_bytes());
            true
        }
        Err(_) => false,
    }
}

/// Splits the frame that began at `start`, if it is a long one, into fragments with the id `sequence`, in place.
/// The control term, which ends at `control_end`, must stand in the first one as a whole.
pub fn split(out: &mut Vec<u8>, start: usize, control_end: usize, sequence: u64) {
    const NORMAL_HEAD: usize = 4 + 3;
    const FIRST_HEAD: usize = 4 + 19;
    const NEXT_HEAD: usize = 4 + 18;
    let body = start + NORMAL_HEAD;
    let first = (control_end - body).max(FRAGMENT);
    let end = out.len();
    if end - body <= first {
        return;
    }
    let more = (end - body - first).div_ceil(FRAGMENT);
    out.resize(end + FIRST_HEAD - NORMAL_HEAD + more * NEXT_HEAD, 0);
    // From the last to the first, because every piece moves towards the end.
    for piece in (0..=more).rev() {
        let (from, to, tag, head) = match piece {
            0 => (body, body + first, FIRST_FRAGMENT, FIRST_HEAD),
            n => {
                let from = body + first + (n - 1) * FRAGMENT;
                (from, end.min(from + FRAGMENT), NEXT_FRAGMENT, NEXT_HEAD)
            }
        };
        let at = match piece {
            0 => start,
            n => start + FIRST_HEAD + first + (n - 1) * (NEXT_HEAD + FRAGMENT),
        };
        out.copy_within(from..to, at + head);
        let length = (head - 4 + to - from) as u32; // at most a control term and FRAGMENT
        out[at..at + 4].copy_from_slice(&length.to_be_bytes());
        out[at + 4..at + 6].copy_from_slice(&[VERSION, tag]);
        out[at + 6..at + 14].copy_from_slice(&sequence.to_be_bytes());
        out[at + 14..at + 22].copy_from_slice(&((more - piece + 1) as u64).to_be_bytes());
        if piece == 0 {
            out[at + 22] = 0; // no entries of an atom cache
        }
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

/// Appends a message behind a distribution header to `out`, in fragments if it is large.
///
/// `header` is the header from its count byte on. The first `whole` bytes of `body`, the control term, stay in the first
/// fragment. Without `sequence` it is sent whole: header and body must then fit a 32-bit length.
pub fn write(out: &mut Vec<u8>, header: &[u8], body: &[u8], whole: usize, sequence: Option<u64>) {
    let first = FRAGMENT.max(whole);
    match sequence {
        Some(sequence) if body.len() > first => {
            let rest = body[first..].chunks(FRAGMENT);
            out.reserve(body.len() + header.len() + 22 * (rest.len() + 1));
            let mut number = rest.len() as u64 + 1;
            let mut fragment = |kind: u8, header: &[u8], part: &[u8]| {
                let length = 18 + header.len() + part.len();
                out.extend_from_slice(&(length as u32).to_be_bytes());
                out.extend_from_slice(&[VERSION, kind]);
                out.extend_from_slice(&sequence.to_be_bytes());
                out.extend_from_slice(&number.to_be_bytes());
                out.extend_from_slice(header);
                out.extend_from_slice(part);
                number -= 1;
            };
            fragment(FIRST_FRAGMENT, header, &body[..first]);
            rest.for_each(|part| fragment(NEXT_FRAGMENT, &[], part));
        }
        _ => {
            let length = (2 + header.len() + body.len()) as u32;
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&[VERSION, NORMAL]);
            out.extend_from_slice(header);
            out.extend_from_slice(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        max_frame: 1000,
        max_held: 4000,
        max_sequences: 3,
        fragments: true,
        atom_cache: false,
    };

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut out = (payload.len() as u32).to_be_bytes().to_vec();
        out.extend_from_slice(payload);
        out
    }

    fn normal(body: &[u8]) -> Vec<u8> {
        frame(&[&[131, 68, 0], body].concat())
    }

    fn fragment(tag: u8, sequence: u64, number: u64, body: &[u8]) -> Vec<u8> {
        let atoms: &[u8] = if tag == 69 { &[0] } else { &[] };
        frame(
            &[
                &[131, tag][..],
                &sequence.to_be_bytes(),
                &number.to_be_bytes(),
                atoms,
                body,
            ]
            .concat(),
        )
    }

    fn run(limits: Limits, stream: &[u8]) -> Result<Vec<Vec<u8>>, FrameError> {
        let mut out = Vec::new();
        Deframer::new(limits).feed(4, Bytes::copy_from_slice(stream), &mut out)?;
        Ok(bodies(out))
    }

    fn bodies(out: Vec<RawMessage>) -> Vec<Vec<u8>> {
        out.into_iter().map(|m| m.body.to_vec()).collect()
    }

    fn error(limits: Limits, stream: &[u8]) -> String {
        run(limits, stream).expect_err("should be refused").0
    }

    #[test]
    fn every_cut_gives_the_same_messages() {
        let stream = [
            normal(b"one"),
            vec![0; 4],
            fragment(69, 7, 3, b"a"),
            normal(b""),
            fragment(70, 7, 2, b"bc"),
            fragment(70, 7, 1, b"d"),
            normal(b"last"),
        ]
        .concat();
        let expected = run(LIMITS, &stream).unwrap();
        assert_eq!(expected, [&b"one"[..], b"", b"abcd", b"last"]);
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let mut deframer = Deframer::new(LIMITS);
                let mut out = Vec::new();
                for part in [&stream[..first], &stream[first..second], &stream[second..]] {
                    deframer
                        .feed(4, Bytes::copy_from_slice(part), &mut out)
                        .unwrap();
                }
                assert_eq!(bodies(out), expected, "cut at {first} and {second}");
                assert_eq!(deframer.held(), 0);
            }
        }
    }

    #[test]
    fn byte_by_byte_with_two_streams_at_once() {
        let left = [
            normal(b"left"),
            fragment(69, 1, 2, b"l"),
            fragment(70, 1, 1, b"l"),
        ]
        .concat();
        let right = [
            normal(b"right"),
            fragment(69, 1, 2, b"r"),
            fragment(70, 1, 1, b"r"),
        ]
        .concat();
        let mut deframer = Deframer::new(LIMITS);
        let mut out = Vec::new();
        for at in 0..left.len().max(right.len()) {
            for (stream, bytes) in [(4, &left), (8, &right)] {
                if let Some(byte) = bytes.get(at) {
                    deframer
                        .feed(stream, Bytes::copy_from_slice(&[*byte]), &mut out)
                        .unwrap();
                }
            }
        }
        let mut got = bodies(out);
        got.sort();
        assert_eq!(got, [&b"left"[..], b"ll", b"right", b"rr"]);
    }

    #[test]
    fn missing_counts_down_to_the_end_of_a_frame() {
        let mut deframer = Deframer::new(LIMITS);
        let mut out = Vec::new();
        let stream = normal(b"0123456789");
        assert_eq!(deframer.missing(4), 0);
        deframer
            .feed(4, Bytes::copy_from_slice(&stream[..6]), &mut out)
            .unwrap();
        assert_eq!(deframer.missing(4), stream.len() - 6);
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        let limits = Limits {
            max_frame: usize::MAX,
            max_held: usize::MAX,
            ..LIMITS
        };
        let mut deframer = Deframer::new(limits);
        deframer
            .feed(
                4,
                Bytes::from_static(&[255, 255, 255, 255, 131]),
                &mut Vec::new(),
            )
            .unwrap();
        assert!(deframer.streams[&4].capacity() < 100);
    }

    #[test]
    fn oversized_frames_and_messages_are_refused() {
        assert!(error(LIMITS, &[0, 0, 4, 0]).contains("1024 bytes, more than the 1000"));
        let big = [fragment(69, 1, 9, &[0; 900]), fragment(70, 1, 8, &[0; 900])].concat();
        assert!(error(LIMITS, &big).contains("larger than 1000"));
    }

    #[test]
    fn unfinished_bytes_and_sequences_are_bounded() {
        let many: Vec<u8> = (0..4).flat_map(|s| fragment(69, s, 2, b"x")).collect();
        assert!(error(LIMITS, &many).contains("more than 3 fragmented"));
        let limits = Limits {
            max_held: 1500,
            ..LIMITS
        };
        let heavy: Vec<u8> = (0..2).flat_map(|s| fragment(69, s, 2, &[0; 900])).collect();
        assert!(error(limits, &heavy).contains("more than 1500 bytes"));
    }

    #[test]
    fn gaps_repeats_and_strangers_among_fragments() {
        let gap = [fragment(69, 1, 4, b"x"), fragment(70, 1, 2, b"x")].concat();
        assert!(error(LIMITS, &gap).contains("where 3 was due"));
        let repeat = [
            fragment(69, 1, 4, b"x"),
            fragment(70, 1, 3, b"x"),
            fragment(70, 1, 3, b"x"),
        ]
        .concat();
        assert!(error(LIMITS, &repeat).contains("where 2 was due"));
        let twice = [fragment(69, 1, 4, b"x"), fragment(69, 1, 4, b"x")].concat();
        assert!(error(LIMITS, &twice).contains("started twice"));
        assert!(error(LIMITS, &fragment(70, 1, 4, b"x")).contains("unknown sequence"));
        assert!(error(LIMITS, &fragment(69, 1, 0, b"x")).contains("number 0"));
        // A message of one fragment is whole at once, and its sequence may be used again.
        let single = [fragment(69, 1, 1, b"x"), fragment(69, 1, 1, b"y")].concat();
        assert_eq!(run(LIMITS, &single).unwrap(), [b"x", b"y"]);
    }

    #[test]
    fn the_form_must_match_the_negotiation() {
        let plain = Limits {
            fragments: false,
            ..LIMITS
        };
        assert!(error(plain, &normal(b"x")).contains("not negotiated"));
        assert!(error(plain, &fragment(69, 1, 1, b"x")).contains("not negotiated"));
        assert!(error(LIMITS, &frame(&[112, 131, 97, 1])).contains("were negotiated"));
        let cache = Limits {
            fragments: false,
            atom_cache: true,
            ..LIMITS
        };
        assert_eq!(run(cache, &normal(b"x")).unwrap(), [b"x"]);
        assert!(error(cache, &fragment(69, 1, 1, b"x")).contains("not negotiated"));
        assert!(error(cache, &frame(&[112, 131, 97, 1])).contains("were negotiated"));
        let mut out = Vec::new();
        Deframer::new(plain)
            .feed(4, frame(&[112, 131, 97, 1]).into(), &mut out)
            .unwrap();
        assert_eq!(
            out,
            [RawMessage {
                body: Bytes::from_static(&[131, 97, 1]),
                tagged: true,
                atoms: Vec::new(),
            }]
        );
    }

    #[test]
    fn garbage_has_a_reason() {
        for payload in [
            &[131][..],
            &[131, 68],
            &[131, 68, 1],
            &[131, 69, 0],
            &[131, 70],
            &[0, 0],
            &[112],
            &[112, 1],
        ] {
            assert!(!error(LIMITS, &frame(payload)).is_empty());
        }
    }

    #[test]
    fn a_long_frame_is_split_and_put_together_again() {
        let limits = Limits {
            max_frame: 4 * FRAGMENT,
            max_held: 10 * FRAGMENT,
            ..LIMITS
        };
        for length in [10, FRAGMENT, FRAGMENT + 1, 2 * FRAGMENT, 3 * FRAGMENT + 5] {
            let terms: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let mut out = b"before".to_vec();
            let start = begin(&mut out, true);
            out.extend_from_slice(&terms);
            assert!(finish(&mut out, start));
            split(&mut out, start, start + 7 + 5, 9);
            assert_eq!(&out[..6], b"before");
            assert_eq!(run(limits, &out[6..]), Ok(vec![terms]), "{length} bytes");
            let fragmented = out[start + 5] == FIRST_FRAGMENT;
            assert_eq!(fragmented, length > FRAGMENT, "{length} bytes");
        }
    }

    #[test]
    fn a_long_control_term_stays_in_the_first_fragment() {
        let mut out = Vec::new();
        let start = begin(&mut out, true);
        out.extend_from_slice(&vec![1; 2 * FRAGMENT + 100]);
        assert!(finish(&mut out, start));
        split(&mut out, start, start + 7 + FRAGMENT + 50, 1);
        assert_eq!(be32(&out) - 19, FRAGMENT + 50);
    }

    #[test]
    fn what_begin_and_finish_write_is_read_back() {
        for fragments in [true, false] {
            let mut out = Vec::new();
            let start = begin(&mut out, fragments);
            out.extend_from_slice(b"control");
            if !fragments {
                out.push(VERSION);
            }
            out.extend_from_slice(b"message");
            assert!(finish(&mut out, start));
            let got = run(
                Limits {
                    fragments,
                    ..LIMITS
                },
                &out,
            )
            .unwrap();
            let expected: &[u8] = if fragments {
                b"controlmessage"
            } else {
                b"\x83control\x83message"
            };
            assert_eq!(got, [expected]);
        }
    }
    #[test]
    fn what_write_splits_is_put_together() {
        let limits = Limits {
            max_frame: 1 << 20,
            max_held: 1 << 20,
            ..LIMITS
        };
        for size in [0, 1, FRAGMENT, FRAGMENT + 1, 3 * FRAGMENT, 200_000] {
            let body: Vec<u8> = (0..size).map(|i| i as u8).collect();
            for whole in [0, size.min(100), size] {
                let mut out = Vec::new();
                write(&mut out, &[0], &body, whole, Some(5));
                assert_eq!(run(limits, &out).unwrap(), [&*body]);
            }
            let mut out = Vec::new();
            write(&mut out, &[0], &body, 0, None);
            assert_eq!(out.len(), 7 + size);
        }
    }

    #[test]
    fn fragments_keep_the_atoms_of_their_own_header() {
        let limits = Limits {
            atom_cache: true,
            ..LIMITS
        };
        let header = |text: &[u8]| [&[1, 0x08, 3, text.len() as u8], text].concat();
        let first = [
            &[131, 69][..],
            &[0, 0, 0, 0, 0, 0, 0, 1],
            &[0, 0, 0, 0, 0, 0, 0, 2],
        ]
        .concat();
        let stream = [
            frame(&[&first[..], &header(b"one"), b"a"].concat()),
            frame(&[&[131, 68][..], &header(b"two"), b"x"].concat()),
            fragment(70, 1, 1, b"b"),
        ]
        .concat();
        let mut out = Vec::new();
        Deframer::new(limits)
            .feed(0, stream.into(), &mut out)
            .unwrap();
        let got: Vec<_> = out.iter().map(|m| (&*m.body, &*m.atoms[0])).collect();
        assert_eq!(got, [(&b"x"[..], &b"two"[..]), (b"ab", b"one")]);
    }

    #[test]
    fn the_atoms_of_unfinished_messages_count_as_held() {
        let limits = Limits {
            max_frame: 4000,
            max_sequences: 1000,
            atom_cache: true,
            ..LIMITS
        };
        // one entry of 1,000 bytes, which is new; then messages of 23 bytes that refer to it
        let entry = [&[1, 0x18, 3, 3, 232][..], &[b'a'; 1000]].concat();
        let normal = frame(&[&[131, 68][..], &entry].concat());
        let begun = |sequence: u64| {
            let ids = [sequence.to_be_bytes(), 2u64.to_be_bytes()].concat();
            frame(&[&[131, 69][..], &ids, &[1, 0, 3]].concat())
        };
        let stream: Vec<u8> = (0..3).flat_map(begun).collect();
        assert!(run(limits, &[&normal[..], &stream].concat()).is_ok());
        let stream: Vec<u8> = (0..4).flat_map(begun).collect();
        assert!(error(limits, &[&normal[..], &stream].concat()).contains("more than 4000 bytes"));
        let done: Vec<u8> = (0..20)
            .flat_map(|s| [begun(s), fragment(70, s, 1, b"x")].concat())
            .collect();
        assert_eq!(
            run(limits, &[&normal[..], &done].concat()).unwrap().len(),
            21
        );
    }
}
