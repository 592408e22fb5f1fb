//! The builder whose values are Python objects.

use pyo3::ffi;
use pyo3::prelude::*;

use super::atoms::make_atom;
use super::classes::{Class, Slot};
use super::object::Obj;
use super::Codec;
use crate::etf::check::atom_text;
use crate::etf::{Builder, Fail, Fault, RawReference};

pub struct Objects<'a, 'py> {
    py: Python<'py>,
    codec: &'a Codec,
    /// Keys and values of the maps that are open: a dict is only filled when all are there, because what a dict can't hold
    /// must not be lost.
    pairs: Vec<Obj>,
}

/// A tuple or list, and how many of its places are filled.
pub struct Items {
    object: Obj,
    filled: usize,
    size: usize,
    plain: bool,
}

impl<'a, 'py> Objects<'a, 'py> {
    pub fn new(py: Python<'py>, codec: &'a Codec) -> Self {
        Objects {
            py,
            codec,
            pairs: Vec::new(),
        }
    }

    fn host(&self, error: PyErr) -> Fail {
        error.restore(self.py);
        Fault::host()
    }

    #[cold]
    #[inline(never)]
    fn new_atom(&mut self, text: &[u8], at: usize) -> Result<Obj, Fail> {
        let text = atom_text(text, at)?;
        let atom = self.plain_atom(text)?;
        let kept = atom.keep(self.py);
        let atoms = &self.codec.atoms;
        drop(atoms.with(self.py, |atoms| atoms.insert(text.as_bytes(), kept)));
        Ok(atom)
    }

    fn plain_atom(&self, text: &str) -> Result<Obj, Fail> {
        let atom = make_atom(self.py, self.codec.classes.atom.ptr, text)
            .map_err(|error| self.host(error))?;
        // SAFETY: a new reference is given up.
        unsafe { Obj::new(atom.into_ptr()) }
    }

    /// A new object whose `slots` hold `values`.
    fn instance<const N: usize>(
        &self,
        class: &Class,
        slots: &[Slot],
        values: [&Obj; N],
    ) -> Result<Obj, Fail> {
        let object = class.blank()?;
        let mut plain = true;
        for (slot, value) in slots.iter().zip(values) {
            slot.set(&object, value)?;
            plain = plain && value.is_plain();
        }
        if plain {
            object.untrack();
        }
        Ok(object)
    }

    #[inline]
    fn unsigned(&self, value: u64) -> Result<Obj, Fail> {
        // SAFETY: returns a new reference or NULL.
        unsafe { Obj::new(ffi::PyLong_FromUnsignedLongLong(value)) }
    }

    /// The map that no dict can hold.
    #[cold]
    #[inline(never)]
    fn term_map(&mut self, pairs: Vec<Obj>, at: usize) -> Result<Obj, Fail> {
        let py = self.py;
        let mut tuples = Vec::with_capacity(pairs.len() / 2);
        let mut pairs = pairs.into_iter();
        while let (Some(key), Some(value)) = (pairs.next(), pairs.next()) {
            tuples.push((key.into_bound(py), value.into_bound(py)));
        }
        match self.codec.classes.term_map.bind(py).call1((tuples,)) {
            // SAFETY: a new reference is given up.
            Ok(map) => unsafe { Obj::new(map.into_ptr()) },
            Err(error) if error.is_instance_of::<pyo3::exceptions::PyValueError>(py) => {
                Err(Fault::new(at, "duplicate key in a map"))
            }
            Err(error) => Err(self.host(error)),
        }
    }
}

// SAFETY of the calls below: they return a new reference or NULL with an exception; pointers and lengths are those of live
// slices and objects; functions that steal a reference are given one.
impl Builder for Objects<'_, '_> {
    type Value = Obj;
    type Items = Items;
    type Pairs = usize;

    #[inline]
    fn small(&mut self, value: u8) -> Result<Obj, Fail> {
        Ok(unsafe { Obj::share(self.codec.classes.small[value as usize].as_ptr()) })
    }

    #[inline]
    fn integer(&mut self, value: i64) -> Result<Obj, Fail> {
        unsafe { Obj::new(ffi::PyLong_FromLongLong(value)) }
    }

    fn big(&mut self, negative: bool, magnitude: &[u8]) -> Result<Obj, Fail> {
        let py = self.py;
        let bytes = pyo3::types::PyBytes::new(py, magnitude);
        let value = py
            .get_type::<pyo3::types::PyInt>()
            .call_method1("from_bytes", (bytes, "little"))
            .and_then(|value| if negative { value.neg() } else { Ok(value) })
            .map_err(|error| self.host(error))?;
        unsafe { Obj::new(value.into_ptr()) }
    }

    #[inline]
    fn float(&mut self, value: f64) -> Result<Obj, Fail> {
        unsafe { Obj::new(ffi::PyFloat_FromDouble(value)) }
    }

    #[inline]
    fn atom(&mut self, text: &[u8], at: usize) -> Result<Obj, Fail> {
        match self.codec.atoms.with(self.py, |atoms| atoms.find(text)) {
            Some(atom) => Ok(atom),
            None => self.new_atom(text, at),
        }
    }

    #[inline]
    fn name(&mut self, text: &[u8], at: usize) -> Result<Obj, Fail> {
        let atom = self.atom(text, at)?;
        if atom.kind() == self.codec.classes.atom.ptr {
            return Ok(atom);
        }
        self.plain_atom(atom_text(text, at)?) // a node or module called `true`
    }

    #[inline]
    fn binary(&mut self, data: &[u8]) -> Result<Obj, Fail> {
        unsafe {
            Obj::new(ffi::PyBytes_FromStringAndSize(
                data.as_ptr().cast(),
                data.len() as isize,
            ))
        }
    }

    #[inline]
    fn text(&mut self, data: &[u8]) -> Result<Obj, Fail> {
        let text =
            unsafe { ffi::PyUnicode_FromStringAndSize(data.as_ptr().cast(), data.len() as isize) };
        if text.is_null() && std::str::from_utf8(data).is_err() {
            drop(PyErr::take(self.py));
            return self.binary(data); // no Python node sent this; to Erlang it is a binary like any other
        }
        unsafe { Obj::new(text) }
    }

    fn bits(&mut self, data: &[u8], bits: u8) -> Result<Obj, Fail> {
        let classes = self.codec.classes;
        let mut data = data.to_vec();
        if let Some(last) = data.last_mut() {
            *last &= (0xff00u16 >> bits) as u8;
        }
        let data = self.binary(&data)?;
        let bits = self.small(bits)?;
        self.instance(&classes.bit_string, &classes.bit_slots, [&data, &bits])
    }

    #[inline]
    fn known_pid(&mut self, raw: &[u8]) -> Option<Obj> {
        self.codec.pids.with(self.py, |pids| pids.find(raw))
    }

    fn pid(
        &mut self,
        node: Obj,
        id: u32,
        serial: u32,
        creation: u32,
        raw: &[u8],
    ) -> Result<Obj, Fail> {
        let classes = self.codec.classes;
        let numbers = (
            self.unsigned(id as u64)?,
            self.unsigned(serial as u64)?,
            self.unsigned(creation as u64)?,
        );
        let fields = [&node, &numbers.0, &numbers.1, &numbers.2];
        let pid = self.instance(&classes.pid, &classes.pid_slots, fields)?;
        if raw[..2] == [crate::etf::tag::NEW_PID, crate::etf::tag::SMALL_ATOM_UTF8] {
            classes.pid_slots[4].set(&pid, &self.binary(raw)?)?;
            let kept = pid.keep(self.py);
            drop(self.codec.pids.with(self.py, |pids| pids.insert(raw, kept)));
        }
        Ok(pid)
    }

    fn port(&mut self, node: Obj, id: u64, creation: u32) -> Result<Obj, Fail> {
        let classes = self.codec.classes;
        let (id, creation) = (self.unsigned(id)?, self.unsigned(creation as u64)?);
        self.instance(&classes.port, &classes.port_slots, [&node, &id, &creation])
    }

    fn reference(&mut self, node: Obj, parts: RawReference<'_>) -> Result<Obj, Fail> {
        let classes = self.codec.classes;
        let reference = self.instance(&classes.reference, &classes.reference_slots, [&node])?;
        let words = parts.words.chunks_exact(4);
        let mut ids = self.tuple_begin(words.len())?;
        for word in words {
            let word =
                self.unsigned(u32::from_be_bytes([word[0], word[1], word[2], word[3]]) as u64)?;
            self.tuple_put(&mut ids, word);
        }
        let ids = self.tuple_end(ids)?;
        classes.reference_slots[2].set(&reference, &ids)?;
        match parts.canonical {
            // an alias is mostly looked up by its ids and sent back: its creation is read when asked for
            Some(raw) => classes.reference_slots[3].set(&reference, &self.binary(raw)?)?,
            None => classes.reference_slots[1]
                .set(&reference, &self.unsigned(parts.creation as u64)?)?,
        }
        Ok(reference)
    }

    fn export(&mut self, module: Obj, function: Obj, arity: u32) -> Result<Obj, Fail> {
        let classes = self.codec.classes;
        let arity = self.unsigned(arity as u64)?;
        self.instance(
            &classes.export,
            &classes.export_slots,
            [&module, &function, &arity],
        )
    }

    fn fun(&mut self, raw: &[u8]) -> Result<Obj, Fail> {
        let classes = self.codec.classes;
        let data = self.binary(raw)?;
        self.instance(&classes.fun, &classes.fun_slots, [&data])
    }

    #[inline]
    fn tuple_begin(&mut self, n: usize) -> Result<Items, Fail> {
        let object = unsafe { Obj::new(ffi::PyTuple_New(n as isize))? };
        Ok(Items {
            object,
            filled: 0,
            size: n,
            plain: n > 0,
        })
    }

    #[inline]
    fn tuple_put(&mut self, items: &mut Items, value: Obj) {
        items.plain = items.plain && value.is_plain();
        // can't fail: the place exists and nobody else knows the tuple
        unsafe { ffi::PyTuple_SetItem(items.object.ptr(), items.filled as isize, value.give()) };
        items.filled += 1;
    }

    #[inline]
    fn tuple_end(&mut self, items: Items) -> Result<Obj, Fail> {
        if items.plain {
            items.object.untrack();
        }
        Ok(items.object)
    }

    #[inline]
    fn list_begin(&mut self, n: usize) -> Result<Items, Fail> {
        let object = unsafe { Obj::new(ffi::PyList_New(n as isize))? };
        Ok(Items {
            object,
            filled: 0,
            size: n,
            plain: n > 0,
        })
    }

    #[inline]
    fn list_put(&mut self, items: &mut Items, value: Obj) -> Result<(), Fail> {
        if items.filled < items.size {
            unsafe { ffi::PyList_SetItem(items.object.ptr(), items.filled as isize, value.give()) };
            items.filled += 1;
        } else if unsafe { ffi::PyList_Append(items.object.ptr(), value.ptr()) } != 0 {
            return Err(Fault::host());
        }
        Ok(())
    }

    #[inline]
    fn list_end(&mut self, items: Items) -> Result<Obj, Fail> {
        Ok(items.object)
    }

    fn improper(&mut self, items: Items, tail: Obj) -> Result<Obj, Fail> {
        let classes = self.codec.classes;
        let elements = unsafe { Obj::new(ffi::PyList_AsTuple(items.object.ptr()))? };
        self.instance(
            &classes.improper,
            &classes.improper_slots,
            [&elements, &tail],
        )
    }

    fn string(&mut self, bytes: &[u8]) -> Result<Obj, Fail> {
        let list = unsafe { Obj::new(ffi::PyList_New(bytes.len() as isize))? };
        for (i, &byte) in bytes.iter().enumerate() {
            let value = self.small(byte)?;
            unsafe { ffi::PyList_SetItem(list.ptr(), i as isize, value.give()) };
        }
        Ok(list)
    }

    #[inline]
    fn map_begin(&mut self, _: usize) -> Result<usize, Fail> {
        Ok(self.pairs.len())
    }

    #[inline]
    fn map_put(&mut self, _: &mut usize, key: Obj, value: Obj) -> Result<(), Fail> {
        self.pairs.push(key);
        self.pairs.push(value);
        Ok(())
    }

    fn map_end(&mut self, first: usize, at: usize) -> Result<Obj, Fail> {
        let dict = unsafe { Obj::new(ffi::PyDict_New())? };
        let mut fits = true;
        for pair in self.pairs[first..].chunks_exact(2) {
            if unsafe { ffi::PyDict_SetItem(dict.ptr(), pair[0].ptr(), pair[1].ptr()) } != 0 {
                match PyErr::take(self.py) {
                    Some(error)
                        if error.is_instance_of::<pyo3::exceptions::PyTypeError>(self.py) => {}
                    Some(error) => return Err(self.host(error)),
                    None => {}
                }
                fits = false; // the key can't be hashed
                break;
            }
        }
        let n = (self.pairs.len() - first) / 2;
        if fits && unsafe { ffi::PyDict_Size(dict.ptr()) } as usize == n {
            self.pairs.truncate(first);
            return Ok(dict);
        }
        let pairs = self.pairs.split_off(first);
        self.term_map(pairs, at)
    }
}
