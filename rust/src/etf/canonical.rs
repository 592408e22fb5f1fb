//! Terms as bytes that are equal exactly when Erlang's `=:=` holds, to find the keys of a map that Erlang sees as one.

use super::check::atom_text;
use super::{tag, write, AtomText, Builder, Fail, Fault, Limits, RawReference, Reader};

/// One byte form of the term that `data` is the encoding of (without the byte 131).
pub fn canonical(data: &[u8], limits: Limits, atoms: &[AtomText]) -> Result<Vec<u8>, Fail> {
    Reader::new(data, 0, limits)
        .with_atoms(atoms)
        .term(&mut Canonical::new(usize::MAX))
}

/// Builds for each term its one form: what OTP 27 would send, with texts as binaries and maps sorted by their keys.
pub struct Canonical {
    /// Bytes of atoms that it may still write. A reference to the atom cache has two bytes, its atom up to 1,020.
    room: usize,
}

impl Canonical {
    pub fn new(room: usize) -> Self {
        Self { room }
    }

    pub fn room(&self) -> usize {
        self.room
    }

    fn take(&mut self, bytes: usize, at: usize) -> Result<(), Fail> {
        match self.room.checked_sub(bytes) {
            Some(left) => self.room = left,
            None => return Err(Fault::new(at, "the atoms of keys of maps are too long")),
        }
        Ok(())
    }
}

/// The elements so far, and their number.
pub struct Items {
    bytes: Vec<u8>,
    count: u32,
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Result<Vec<u8>, Fail> {
    let mut out = Vec::new();
    write(&mut out);
    Ok(out)
}

impl Builder for Canonical {
    type Value = Vec<u8>;
    type Items = Items;
    type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

    fn small(&mut self, value: u8) -> Result<Vec<u8>, Fail> {
        self.integer(value as i64)
    }
    fn integer(&mut self, value: i64) -> Result<Vec<u8>, Fail> {
        written(|out| write::integer(out, value))
    }
    fn big(&mut self, negative: bool, magnitude: &[u8]) -> Result<Vec<u8>, Fail> {
        written(|out| write::big(out, negative, magnitude))
    }
    fn float(&mut self, value: f64) -> Result<Vec<u8>, Fail> {
        written(|out| write::float(out, value)) // 0.0 and -0.0 are two keys, as in OTP 27
    }
    fn atom(&mut self, text: &[u8], at: usize) -> Result<Vec<u8>, Fail> {
        atom_text(text, at)?;
        self.take(text.len(), at)?;
        written(|out| write::atom(out, text))
    }
    fn name(&mut self, text: &[u8], at: usize) -> Result<Vec<u8>, Fail> {
        self.atom(text, at)
    }
    fn binary(&mut self, data: &[u8]) -> Result<Vec<u8>, Fail> {
        written(|out| write::binary(out, data))
    }
    fn text(&mut self, data: &[u8]) -> Result<Vec<u8>, Fail> {
        self.binary(data)
    }
    fn bits(&mut self, data: &[u8], bits: u8) -> Result<Vec<u8>, Fail> {
        let mut data = data.to_vec();
        if let Some(last) = data.last_mut() {
            *last &= (0xff00u16 >> bits) as u8;
        }
        written(|out| write::bit_binary(out, &data, bits))
    }
    fn pid(
        &mut self,
        node: Vec<u8>,
        id: u32,
        serial: u32,
        creation: u32,
        _: &[u8],
    ) -> Result<Vec<u8>, Fail> {
        written(|out| {
            out.push(tag::NEW_PID);
            out.extend(node);
            [id, serial, creation]
                .iter()
                .for_each(|word| out.extend(word.to_be_bytes()));
        })
    }
    fn port(&mut self, node: Vec<u8>, id: u64, creation: u32) -> Result<Vec<u8>, Fail> {
        written(|out| {
            out.push(tag::V4_PORT);
            out.extend(node);
            out.extend(id.to_be_bytes());
            out.extend(creation.to_be_bytes());
        })
    }
    fn reference(&mut self, node: Vec<u8>, parts: RawReference<'_>) -> Result<Vec<u8>, Fail> {
        written(|out| {
            out.push(tag::NEWER_REFERENCE);
            out.extend((parts.words.len() as u16 / 4).to_be_bytes());
            out.extend(node);
            out.extend(parts.creation.to_be_bytes());
            out.extend(parts.words);
        })
    }
    fn export(&mut self, module: Vec<u8>, function: Vec<u8>, arity: u32) -> Result<Vec<u8>, Fail> {
        written(|out| {
            out.push(tag::EXPORT);
            out.extend(module);
            out.extend(function);
            write::integer(out, arity as i64);
        })
    }
    fn fun(&mut self, raw: &[u8]) -> Result<Vec<u8>, Fail> {
        Ok(raw.to_vec())
    }

    fn tuple_begin(&mut self, _: usize) -> Result<Items, Fail> {
        Ok(Items {
            bytes: Vec::new(),
            count: 0,
        })
    }
    fn tuple_put(&mut self, items: &mut Items, value: Vec<u8>) {
        items.bytes.extend(value);
        items.count += 1;
    }
    fn tuple_end(&mut self, items: Items) -> Result<Vec<u8>, Fail> {
        written(|out| {
            write::tuple(out, items.count as usize);
            out.extend(items.bytes);
        })
    }
    fn list_begin(&mut self, n: usize) -> Result<Items, Fail> {
        self.tuple_begin(n)
    }
    fn list_put(&mut self, items: &mut Items, value: Vec<u8>) -> Result<(), Fail> {
        self.tuple_put(items, value);
        Ok(())
    }
    fn list_end(&mut self, items: Items) -> Result<Vec<u8>, Fail> {
        self.improper(items, vec![tag::NIL])
    }
    fn improper(&mut self, items: Items, tail: Vec<u8>) -> Result<Vec<u8>, Fail> {
        if items.count == 0 {
            return Ok(tail);
        }
        written(|out| {
            write::head(out, tag::LIST, items.count);
            out.extend(items.bytes);
            out.extend(tail);
        })
    }
    fn string(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Fail> {
        let mut items = self.list_begin(bytes.len())?;
        for &byte in bytes {
            write::integer(&mut items.bytes, byte as i64);
        }
        items.count = bytes.len() as u32;
        self.list_end(items)
    }

    fn map_begin(&mut self, _: usize) -> Result<Self::Pairs, Fail> {
        Ok(Vec::new())
    }
    fn map_put(
        &mut self,
        pairs: &mut Self::Pairs,
        key: Vec<u8>,
        value: Vec<u8>,
    ) -> Result<(), Fail> {
        pairs.push((key, value));
        Ok(())
    }
    fn map_end(&mut self, mut pairs: Self::Pairs, at: usize) -> Result<Vec<u8>, Fail> {
        pairs.sort_unstable();
        if pairs.windows(2).any(|two| two[0].0 == two[1].0) {
            return Err(Fault::new(at, "duplicate key in a map"));
        }
        written(|out| {
            write::head(out, tag::MAP, pairs.len() as u32);
            for (key, value) in pairs {
                out.extend(key);
                out.extend(value);
            }
        })
    }
}
