//! The atom cache of a channel over TCP (erl_dist_protocol, "Distribution Header"). Knows no Python.
//!
//! Each side numbers the atoms it sends by slots of a table of 2048 entries, which the other side mirrors. The header of a
//! message lists the slots that its terms refer to, at most 255, and brings the texts of those that are new:
//!
//! ```text
//! 131 68 | n | flags: n/2 + 1 bytes, if n > 0 | n times: slot (low 8 bits) [length, text if new]
//! ```
//!
//! `flags` holds half a byte per atom, the low half first: bit 3 says that the entry is new, bits 0 to 2 are the high bits of
//! the slot. The half byte behind the last one has bit 0 set if lengths have two bytes instead of one.

use crate::etf::{AtomText, MAX_ATOM_BYTES};
use crate::frame::FrameError;
use std::sync::Arc;

const SLOTS: usize = 2048;
const MAX_REFERENCES: usize = 255;
const NEW: u8 = 8;
const LONG: u8 = 1;

/// What the peer's header says about the atoms of a message.
pub struct ReceiveCache {
    slots: Vec<Option<AtomText>>,
}

impl ReceiveCache {
    pub fn new() -> Self {
        Self {
            slots: vec![None; SLOTS],
        }
    }

    /// Reads a header from its count byte on; returns the atoms it names and the position behind it.
    pub fn read(&mut self, data: &[u8], at: usize) -> Result<(Vec<AtomText>, usize), FrameError> {
        let cut = || FrameError("distribution header cut off".into());
        let count = *data.get(at).ok_or_else(cut)? as usize;
        let mut at = at + 1;
        if count == 0 {
            return Ok((Vec::new(), at));
        }
        let flags = data.get(at..at + count / 2 + 1).ok_or_else(cut)?;
        let half = |i: usize| flags[i / 2] >> (4 * (i % 2)) & 15;
        let width = if half(count) & LONG != 0 { 2 } else { 1 };
        at += flags.len();
        let mut atoms = Vec::with_capacity(count);
        for i in 0..count {
            let slot = (half(i) as usize & 7) << 8 | *data.get(at).ok_or_else(cut)? as usize;
            at += 1;
            if half(i) & NEW != 0 {
                let length = data.get(at..at + width).ok_or_else(cut)?;
                let length = length.iter().fold(0, |n, &byte| n << 8 | byte as usize);
                at += width;
                if length > MAX_ATOM_BYTES {
                    return Err(FrameError(format!(
                        "atom of {length} bytes in a distribution header"
                    )));
                }
                let text = data.get(at..at + length).ok_or_else(cut)?;
                at += length;
                self.slots[slot] = Some(Arc::from(text));
            }
            match &self.slots[slot] {
                Some(text) => atoms.push(text.clone()),
                None => {
                    return Err(FrameError(format!(
                        "reference to slot {slot} of the atom cache, which is empty"
                    )))
                }
            }
        }
        Ok((atoms, at))
    }
}

impl Default for ReceiveCache {
    fn default() -> Self {
        Self::new()
    }
}

/// Our table, and the references of the message that is being encoded.
pub struct SendCache {
    slots: Vec<Slot>,
    /// Number of the message that is being encoded.
    message: u64,
    references: Vec<Reference>,
}

#[derive(Clone, Default)]
struct Slot {
    text: Option<AtomText>,
    /// The last message that referred to it, and by which index.
    message: u64,
    index: u8,
}

struct Reference {
    slot: u16,
    new: bool,
}

impl SendCache {
    pub fn new() -> Self {
        Self {
            slots: vec![Slot::default(); SLOTS],
            message: 1,
            references: Vec::new(),
        }
    }

    /// The index that stands for `text` in this message; None when it has to be written out.
    #[inline]
    pub fn refer(&mut self, text: &[u8]) -> Option<u8> {
        let at = hash(text) % SLOTS;
        let slot = &mut self.slots[at];
        let known = slot.text.as_deref() == Some(text);
        if slot.message == self.message {
            // Taken in this message: by this atom, or by another one whose reference must stay what it is.
            return known.then_some(slot.index);
        }
        if self.references.len() == MAX_REFERENCES || text.len() > 255 {
            return None;
        }
        if !known {
            slot.text = Some(Arc::from(text));
        }
        slot.message = self.message;
        slot.index = self.references.len() as u8;
        let index = slot.index;
        self.references.push(Reference {
            slot: at as u16,
            new: !known,
        });
        Some(index)
    }

    /// The atoms that this message refers to, by their indices.
    pub fn referred(&self) -> Vec<AtomText> {
        let text = |r: &Reference| self.slots[r.slot as usize].text.clone();
        self.references.iter().filter_map(text).collect()
    }

    /// Appends the header, from its count byte on, and makes ready for the next message.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let count = self.references.len();
        out.push(count as u8);
        if count > 0 {
            let flags = out.len();
            out.resize(flags + count / 2 + 1, 0); // the last half byte stays 0: no long atoms
            for (i, reference) in self.references.iter().enumerate() {
                let new = if reference.new { NEW } else { 0 };
                out[flags + i / 2] |= (new | (reference.slot >> 8) as u8) << (4 * (i % 2));
                out.push(reference.slot as u8);
                if reference.new {
                    let text = self.slots[reference.slot as usize].text.as_deref();
                    let text = text.unwrap_or_default();
                    out.push(text.len() as u8);
                    out.extend_from_slice(text);
                }
            }
        }
        self.next();
    }

    /// The message will not be sent: the peer does not learn what was new in it.
    pub fn forget(&mut self) {
        for reference in &self.references {
            if reference.new {
                self.slots[reference.slot as usize].text = None;
            }
        }
        self.next();
    }

    fn next(&mut self) {
        self.references.clear();
        self.message += 1;
    }
}

impl Default for SendCache {
    fn default() -> Self {
        Self::new()
    }
}

/// FNV-1a: atoms are short, and a peer gains nothing from collisions, which only cost it the cache.
#[inline]
fn hash(text: &[u8]) -> usize {
    let hash = text.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ byte as u64).wrapping_mul(0x100_0000_01b3)
    });
    (hash ^ hash >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(atoms: &[AtomText]) -> Vec<&[u8]> {
        atoms.iter().map(|text| &**text).collect()
    }

    #[test]
    fn what_is_written_is_read_and_texts_travel_once() {
        let (mut ours, mut theirs) = (SendCache::new(), ReceiveCache::new());
        let mut sizes = Vec::new();
        for _ in 0..2 {
            assert_eq!(ours.refer(b"alpha"), Some(0));
            assert_eq!(ours.refer("é".as_bytes()), Some(1));
            assert_eq!(ours.refer(b"alpha"), Some(0));
            assert_eq!(ours.refer(b""), Some(2));
            let mut out = vec![9];
            ours.finish(&mut out);
            out.push(104);
            let (atoms, end) = theirs.read(&out, 1).unwrap();
            assert_eq!(texts(&atoms), [&b"alpha"[..], "é".as_bytes(), b""]);
            assert_eq!(out[end..], [104]);
            sizes.push(end);
        }
        assert_eq!(sizes[0] - sizes[1], 5 + 2 + 3);
    }

    #[test]
    fn many_atoms_collide_and_stay_themselves() {
        let (mut ours, mut theirs) = (SendCache::new(), ReceiveCache::new());
        for round in 0..100 {
            let names: Vec<_> = (0..300)
                .map(|i| format!("atom_{}", i * 37 + round))
                .collect();
            let mut expected = Vec::new();
            for name in &names {
                match ours.refer(name.as_bytes()) {
                    Some(index) => {
                        assert_eq!(index as usize, expected.len());
                        expected.push(name.as_bytes());
                    }
                    None => assert!(expected.len() > 200 || round > 0 || !expected.is_empty()),
                }
            }
            assert!(expected.len() > 100 && expected.len() <= 255);
            let mut out = Vec::new();
            ours.finish(&mut out);
            let (atoms, end) = theirs.read(&out, 0).unwrap();
            assert_eq!(texts(&atoms), expected);
            assert_eq!(end, out.len());
        }
    }

    #[test]
    fn a_message_that_is_not_sent_leaves_no_trace() {
        let (mut ours, mut theirs) = (SendCache::new(), ReceiveCache::new());
        ours.refer(b"kept");
        let mut out = Vec::new();
        ours.finish(&mut out);
        theirs.read(&out, 0).unwrap();
        ours.refer(b"kept");
        ours.refer(b"lost");
        ours.forget();
        ours.refer(b"lost");
        ours.refer(b"kept");
        out.clear();
        ours.finish(&mut out);
        let (atoms, _) = theirs.read(&out, 0).unwrap();
        assert_eq!(texts(&atoms), [b"lost", b"kept"]);
    }

    #[test]
    fn an_atom_whose_slot_is_taken_in_this_message_is_written_out() {
        let mut ours = SendCache::new();
        let rival = (0..)
            .map(|i| i.to_string().into_bytes())
            .find(|name| hash(name) % SLOTS == hash(b"first") % SLOTS);
        let rival = rival.unwrap();
        assert_eq!(ours.refer(b"first"), Some(0));
        assert_eq!(ours.refer(&rival), None);
        assert_eq!(ours.refer(b"first"), Some(0));
        ours.finish(&mut Vec::new());
        assert_eq!(ours.refer(&rival), Some(0));
        assert_eq!(texts(&ours.referred()), [&*rival]);
    }

    #[test]
    fn long_atoms_are_written_out_and_read_from_the_cache() {
        assert_eq!(SendCache::new().refer(&[b'a'; 256]), None);
        let mut header = vec![1, 0x18, 7, 1, 0];
        header.extend([b'a'; 256]);
        let (atoms, end) = ReceiveCache::new().read(&header, 0).unwrap();
        assert_eq!((atoms[0].len(), end), (256, header.len()));
    }

    #[test]
    fn what_is_too_long_for_an_atom_is_not_kept() {
        for (length, good) in [(1020u16, true), (1021, false), (65_535, false)] {
            let mut header = vec![1, 0x18, 7];
            header.extend(length.to_be_bytes());
            header.resize(header.len() + length as usize, b'a');
            assert_eq!(ReceiveCache::new().read(&header, 0).is_ok(), good);
        }
    }

    #[test]
    fn empty_slots_and_cut_headers_are_refused() {
        let error = ReceiveCache::new().read(&[1, 0x02, 7], 0).unwrap_err();
        assert!(error.0.contains("slot 519"), "{error:?}");
        let whole = [2, 0x88, 0, 1, 2, b'o', b'k', 2, 1, b'x'];
        for end in 0..whole.len() {
            let error = ReceiveCache::new().read(&whole[..end], 0).unwrap_err();
            assert!(error.0.contains("cut off"), "{error:?}");
        }
        assert!(ReceiveCache::new().read(&whole, 0).is_ok());
    }
}
