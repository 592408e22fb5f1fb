//! Atoms and pids that have been met before: one object each, found by their bytes.
//!
//! Both tables are caches: what is not in them is made anew. So they have a fixed size, and no peer can fill them up.

use std::collections::HashMap;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBool;

use super::object::Obj;
use crate::etf::AtomText;

/// Direct-mapped first level of both tables. A power of two.
const FRONT: usize = 1024;
const PIDS: usize = 1024;
/// Atoms that are kept. An atom has at most 1,020 bytes, its object about as many again: 18 MiB at the very most.
const ATOMS: usize = 8192;

/// The atoms met last; `true`, `false` and the atom of `None` stand in it for ever, as the Python constants.
pub struct Atoms {
    /// Slot of the cheap hash -> position in `all` + 1. Only a hint: whoever finds collisions for it gains nothing but the
    /// way through `index`, whose hash is keyed.
    front: Box<[u32; FRONT]>,
    index: HashMap<AtomText, u32>,
    /// The constants, and behind them a ring: once it is full a new atom takes the place of the oldest.
    all: Vec<(AtomText, Py<PyAny>)>,
    constants: usize,
    oldest: usize,
}

impl Atoms {
    pub fn new(py: Python<'_>, none_atom: &str) -> Self {
        let mut atoms = Atoms {
            front: Box::new([0; FRONT]),
            index: HashMap::new(),
            all: Vec::new(),
            constants: 0,
            oldest: 0,
        };
        let truth = |value| PyBool::new(py, value).to_owned().into_any().unbind();
        atoms.push(b"true", truth(true));
        atoms.push(b"false", truth(false));
        atoms.push(none_atom.as_bytes(), py.None());
        atoms.constants = atoms.all.len();
        atoms
    }

    pub fn len(&self) -> usize {
        self.all.len() - self.constants
    }

    #[inline]
    pub fn find(&mut self, text: &[u8]) -> Option<Obj> {
        let slot = cheap_hash(text) as usize % FRONT;
        if let Some((known, object)) = self.all.get((self.front[slot] as usize).wrapping_sub(1)) {
            if **known == *text {
                // SAFETY: the table holds the object.
                return Some(unsafe { Obj::share(object.as_ptr()) });
            }
        }
        self.find_in_index(text, slot)
    }

    #[inline(never)]
    fn find_in_index(&mut self, text: &[u8], slot: usize) -> Option<Obj> {
        let &position = self.index.get(text)?;
        self.front[slot] = position + 1;
        // SAFETY: the table holds the object.
        Some(unsafe { Obj::share(self.all[position as usize].1.as_ptr()) })
    }

    /// Keeps `object` for `text`, unless there is one already. The caller drops what comes back, outside of the table.
    #[must_use]
    pub fn insert(&mut self, text: &[u8], object: Py<PyAny>) -> Option<Py<PyAny>> {
        if self.index.contains_key(text) {
            return Some(object);
        }
        if self.len() < ATOMS {
            self.push(text, object);
            return None;
        }
        let place = self.constants + self.oldest;
        self.oldest = (self.oldest + 1) % ATOMS;
        let text: AtomText = text.into();
        self.index.insert(text.clone(), place as u32);
        let (gone, object) = std::mem::replace(&mut self.all[place], (text, object));
        self.index.remove(&gone);
        Some(object)
    }

    fn push(&mut self, text: &[u8], object: Py<PyAny>) {
        let text: AtomText = text.into();
        self.index.insert(text.clone(), self.all.len() as u32);
        self.all.push((text, object));
    }
}

/// The bytes of a pid, and its object.
type Known = (Box<[u8]>, Py<PyAny>);

/// The pids met last, by their encoding.
pub struct Pids {
    slots: Vec<Option<Known>>,
}

impl Pids {
    pub fn new() -> Self {
        Pids {
            slots: (0..PIDS).map(|_| None).collect(),
        }
    }

    #[inline]
    pub fn find(&self, raw: &[u8]) -> Option<Obj> {
        match &self.slots[Self::slot(raw)] {
            // SAFETY: the table holds the object.
            Some((known, object)) if **known == *raw => {
                Some(unsafe { Obj::share(object.as_ptr()) })
            }
            _ => None,
        }
    }

    /// The caller drops what had the place before, outside of the table.
    pub fn insert(&mut self, raw: &[u8], object: Py<PyAny>) -> Option<Known> {
        self.slots[Self::slot(raw)].replace((raw.into(), object))
    }

    #[inline]
    fn slot(raw: &[u8]) -> usize {
        // the last 12 bytes are id, serial and creation: they differ where the node's name does not
        let tail = raw.last_chunk::<12>().map_or(0, |tail| {
            let id = u32::from_be_bytes([tail[0], tail[1], tail[2], tail[3]]) as u64;
            let serial = u32::from_be_bytes([tail[4], tail[5], tail[6], tail[7]]) as u64;
            let creation = u32::from_be_bytes([tail[8], tail[9], tail[10], tail[11]]) as u64;
            id ^ serial << 32 ^ creation << 16
        });
        (tail.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize % PIDS
    }
}

/// A few instructions: length, first and last bytes. Atoms that differ only in the middle share a slot, no more.
#[inline]
fn cheap_hash(text: &[u8]) -> u64 {
    let word = match (text.first_chunk::<8>(), text.last_chunk::<8>()) {
        (Some(first), Some(last)) => {
            u64::from_le_bytes(*first).rotate_left(5) ^ u64::from_le_bytes(*last)
        }
        _ => match (text.first_chunk::<4>(), text.last_chunk::<4>()) {
            (Some(first), Some(last)) => {
                (u32::from_le_bytes(*first) as u64) << 32 | u32::from_le_bytes(*last) as u64
            }
            _ => text.iter().fold(0, |word, &byte| word << 8 | byte as u64),
        },
    };
    (word ^ (text.len() as u64) << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40
}

/// The Python object of an atom that was not met before.
pub fn make_atom(py: Python<'_>, class: *mut ffi::PyTypeObject, text: &str) -> PyResult<Py<PyAny>> {
    let text = pyo3::types::PyString::new(py, text);
    // SAFETY: `class` is the Atom class, kept alive by `Classes`.
    let class = unsafe { Bound::from_borrowed_ptr(py, class.cast()) };
    let atom = class.call1((text,))?;
    // SAFETY: a live object. Python gives the collector every instance of a class made by a class statement, but an atom
    // holds nothing, and only tuples of untracked objects can be untracked themselves.
    unsafe { ffi::PyObject_GC_UnTrack(atom.as_ptr().cast()) };
    Ok(atom.unbind())
}
