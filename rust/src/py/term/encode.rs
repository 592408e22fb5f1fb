//! Python objects -> bytes.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt};

use super::classes::Slot;
use super::object::Obj;
use super::Codec;
use crate::atom_cache::SendCache;
use crate::etf::check::Check;
use crate::etf::{canonical, tag, write, Limits, Reader, MAX_ATOM_CHARS, MAX_DEPTH};

/// Appends the encoding of `term` to `out`; after an error `out` holds a part of it.
pub fn encode(
    codec: &Codec,
    py: Python<'_>,
    term: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
    atoms: Option<&mut SendCache>,
) -> PyResult<()> {
    let start = out.len();
    let mut encoder = Encoder {
        py,
        codec,
        out,
        atoms,
        room: codec.limits.depth,
        met: 0,
    };
    // SAFETY: `term` is alive.
    unsafe { encoder.term(term.as_ptr()) }.map_err(|refusal| refusal.into_error(codec, py))?;
    if encoder.out.len() - start > codec.limits.bytes {
        let message = format!(
            "term of {} bytes exceeds max_bytes={}",
            out.len() - start,
            codec.limits.bytes
        );
        return Err(codec.classes.encode_error(py, message));
    }
    Ok(())
}

/// Why a value has no form, and the way to it from the inside out.
struct Refusal {
    what: String,
    way: Vec<Step>,
    /// A Python exception that is none of ours, such as MemoryError.
    error: Option<PyErr>,
}

enum Step {
    Item(usize),
    Value(Obj),
    Key(Obj),
    Tail,
}

type Done = Result<(), Box<Refusal>>;

#[cold]
#[inline(never)]
fn refuse(what: impl Into<String>) -> Box<Refusal> {
    Box::new(Refusal {
        what: what.into(),
        way: Vec::new(),
        error: None,
    })
}

impl Refusal {
    #[cold]
    #[inline(never)]
    fn at(mut self: Box<Self>, step: Step) -> Box<Self> {
        self.way.push(step);
        self
    }

    fn into_error(self, codec: &Codec, py: Python<'_>) -> PyErr {
        if let Some(error) = self.error {
            return error;
        }
        let mut message = String::new();
        let n = self.way.len();
        for (i, step) in self.way.into_iter().rev().enumerate() {
            if i == 8 && n > 12 {
                message.push_str("...");
            }
            if i < 8 || i + 4 >= n || n <= 12 {
                message.push_str(&step.render(py));
            }
        }
        let what = self.what;
        codec.classes.encode_error(
            py,
            if n == 0 {
                what
            } else {
                format!("at {message}: {what}")
            },
        )
    }
}

impl Step {
    fn render(self, py: Python<'_>) -> String {
        match self {
            Step::Item(i) => format!("[{i}]"),
            Step::Value(key) => format!("[{}]", short_repr(&key.into_bound(py))),
            Step::Key(key) => format!("<key {}>", short_repr(&key.into_bound(py))),
            Step::Tail => ".tail".to_owned(),
        }
    }
}

fn short_repr(object: &Bound<'_, PyAny>) -> String {
    let text = object.repr().map_or_else(
        |_| "?".to_owned(),
        |text| text.to_string_lossy().into_owned(),
    );
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// What has been met: two keys of a map that Python holds apart can be one in Erlang, if these come together.
mod met {
    pub const TEXT: u8 = 1;
    pub const BINARY: u8 = 2;
    /// None, True, False
    pub const CONSTANT: u8 = 4;
    /// Atom("true") and the like
    pub const CONSTANT_ATOM: u8 = 8;
    /// Subclasses, whose equality may be anything.
    pub const ODD: u8 = 16;

    pub fn may_hide_equals(met: u8) -> bool {
        met & (TEXT | BINARY) == TEXT | BINARY
            || met & (CONSTANT | CONSTANT_ATOM) == CONSTANT | CONSTANT_ATOM
            || met & ODD != 0
    }
}

struct Encoder<'a, 'py> {
    py: Python<'py>,
    codec: &'a Codec,
    out: &'a mut Vec<u8>,
    /// The atom cache of the channel, if the term goes behind a distribution header that can name its entries.
    atoms: Option<&'a mut SendCache>,
    /// What is left of the depth limit.
    room: u32,
    met: u8,
}

/// SAFETY of all functions that take a pointer: it is a live object, and stays alive during the call. Containers hold their
/// items; those of mutable ones are shared first, as a finalizer could run while we are inside and change the container.
impl Encoder<'_, '_> {
    unsafe fn term(&mut self, object: *mut ffi::PyObject) -> Done {
        let kind = ffi::Py_TYPE(object);
        let classes = self.codec.classes;
        if kind == classes.atom.ptr {
            self.atom(object)
        } else if kind == &raw mut ffi::PyBytes_Type {
            self.met |= met::BINARY;
            let data = ffi::PyBytes_AsString(object).cast::<u8>();
            self.binary(std::slice::from_raw_parts(
                data,
                ffi::PyBytes_Size(object) as usize,
            ))
        } else if kind == &raw mut ffi::PyTuple_Type {
            self.tuple(object)
        } else if kind == &raw mut ffi::PyLong_Type {
            self.integer(object)
        } else if kind == &raw mut ffi::PyUnicode_Type {
            self.text(object)
        } else if kind == &raw mut ffi::PyDict_Type {
            self.dict(object)
        } else if kind == &raw mut ffi::PyList_Type {
            self.list(object)
        } else if kind == &raw mut ffi::PyFloat_Type {
            self.float(object)
        } else if kind == classes.pid.ptr {
            self.cached_encoding(object, &classes.pid_slots[4])
        } else if kind == classes.reference.ptr {
            self.cached_encoding(object, &classes.reference_slots[3])
        } else if object == ffi::Py_None() {
            self.met |= met::CONSTANT;
            self.put_atom(self.codec.none_atom.as_bytes());
            Ok(())
        } else if object == ffi::Py_True() {
            self.met |= met::CONSTANT;
            self.put_atom(b"true");
            Ok(())
        } else if object == ffi::Py_False() {
            self.met |= met::CONSTANT;
            self.put_atom(b"false");
            Ok(())
        } else if kind == classes.improper.ptr {
            self.improper(object)
        } else {
            self.rare(object)
        }
    }

    #[inline(never)]
    unsafe fn rare(&mut self, object: *mut ffi::PyObject) -> Done {
        let classes = self.codec.classes;
        let kind = ffi::Py_TYPE(object);
        if kind == classes.port.ptr {
            self.port(object)
        } else if kind == classes.bit_string.ptr {
            self.bit_string(object)
        } else if kind == classes.export.ptr {
            self.export(object)
        } else if kind == classes.fun.ptr {
            self.fun(object)
        } else if kind == classes.term_map.ptr {
            self.term_map(object)
        } else if kind == &raw mut ffi::PyByteArray_Type {
            self.met |= met::BINARY;
            let data = ffi::PyByteArray_AsString(object).cast::<u8>();
            self.binary(std::slice::from_raw_parts(
                data,
                ffi::PyByteArray_Size(object) as usize,
            ))
        } else if kind == &raw mut ffi::PyMemoryView_Type {
            self.met |= met::BINARY;
            let bytes = self.own(ffi::PyBytes_FromObject(object))?;
            self.bytes_object(&bytes)
        } else {
            self.subclass(object)
        }
    }

    /// Subclasses are encoded as the class they extend: an IntEnum as its number, a namedtuple as a tuple.
    unsafe fn subclass(&mut self, object: *mut ffi::PyObject) -> Done {
        let classes = self.codec.classes;
        self.met |= met::ODD;
        if classes.atom.is_base_of(object) {
            self.atom(object)
        } else if ffi::PyUnicode_Check(object) != 0 {
            self.text(object)
        } else if ffi::PyLong_Check(object) != 0 {
            self.integer(object)
        } else if ffi::PyFloat_Check(object) != 0 {
            self.float(object)
        } else if ffi::PyBytes_Check(object) != 0 {
            let data = ffi::PyBytes_AsString(object).cast::<u8>();
            self.binary(std::slice::from_raw_parts(
                data,
                ffi::PyBytes_Size(object) as usize,
            ))
        } else if ffi::PyByteArray_Check(object) != 0 {
            let data = ffi::PyByteArray_AsString(object).cast::<u8>();
            self.binary(std::slice::from_raw_parts(
                data,
                ffi::PyByteArray_Size(object) as usize,
            ))
        } else if ffi::PyTuple_Check(object) != 0 {
            self.tuple(object)
        } else if ffi::PyList_Check(object) != 0 {
            self.list(object)
        } else if ffi::PyDict_Check(object) != 0 {
            self.dict(object)
        } else {
            let kind = Bound::from_borrowed_ptr(self.py, object).get_type();
            let name = kind
                .fully_qualified_name()
                .map_or_else(|_| "?".into(), |name| name.to_string());
            Err(refuse(format!("{name} has no Erlang form")))
        }
    }

    // --- atoms and numbers ----------------------------------------------------------------------------------------------

    unsafe fn utf8(&mut self, object: *mut ffi::PyObject) -> Result<&'static [u8], Box<Refusal>> {
        let mut size = 0;
        let data = ffi::PyUnicode_AsUTF8AndSize(object, &mut size);
        if data.is_null() {
            return Err(self.no_utf8(object));
        }
        // the text belongs to `object`, which outlives its encoding
        Ok(std::slice::from_raw_parts(data.cast(), size as usize))
    }

    #[cold]
    #[inline(never)]
    unsafe fn no_utf8(&mut self, object: *mut ffi::PyObject) -> Box<Refusal> {
        let error = PyErr::fetch(self.py);
        if !error.is_instance_of::<pyo3::exceptions::PyUnicodeEncodeError>(self.py) {
            return self.foreign(error);
        }
        let kind = if self.codec.classes.atom.is_base_of(object) {
            "atom"
        } else {
            "str"
        };
        refuse(format!("{kind} with a surrogate has no Erlang form"))
    }

    unsafe fn atom(&mut self, object: *mut ffi::PyObject) -> Done {
        let text = self.utf8(object)?;
        if text.len() > MAX_ATOM_CHARS {
            let chars = ffi::PyUnicode_GetLength(object);
            if chars as usize > MAX_ATOM_CHARS {
                return Err(refuse(format!(
                    "atom of {chars} characters, more than 255, has no Erlang form"
                )));
            }
        }
        if matches!(text, b"true" | b"false") || text == self.codec.none_atom.as_bytes() {
            self.met |= met::CONSTANT_ATOM;
        }
        self.put_atom(text);
        Ok(())
    }

    #[inline]
    fn put_atom(&mut self, text: &[u8]) {
        if let Some(atoms) = &mut self.atoms {
            if let Some(index) = atoms.refer(text) {
                self.out.extend_from_slice(&[tag::ATOM_CACHE_REF, index]);
                return;
            }
        }
        write::atom(self.out, text);
    }

    unsafe fn text(&mut self, object: *mut ffi::PyObject) -> Done {
        let text = self.utf8(object)?;
        if text.is_empty() && !self.codec.limits.empty_text {
            self.met |= met::BINARY | met::TEXT;
            write::binary(self.out, text);
            return Ok(());
        }
        self.met |= met::TEXT;
        self.check_size(text.len())?;
        write::bit_binary(self.out, text, 8);
        Ok(())
    }

    unsafe fn integer(&mut self, object: *mut ffi::PyObject) -> Done {
        let mut overflow = 0;
        let value = ffi::PyLong_AsLongLongAndOverflow(object, &mut overflow);
        if overflow != 0 {
            return self.big(object);
        }
        write::integer(self.out, value);
        Ok(())
    }

    #[inline(never)]
    unsafe fn big(&mut self, object: *mut ffi::PyObject) -> Done {
        let py = self.py;
        let object = Bound::from_borrowed_ptr(py, object);
        let int = py.get_type::<PyInt>(); // a subclass must not interfere
        let size = int
            .call_method1("bit_length", (&object,))
            .and_then(|bits| bits.extract::<usize>());
        let size = size.map_err(|error| self.foreign(error))?.div_ceil(8);
        if size > self.codec.limits.integer_bytes {
            let limit = self.codec.limits.integer_bytes;
            return Err(refuse(format!(
                "integer of {size} bytes, more than {limit}, has no Erlang form"
            )));
        }
        let negative = object.lt(0).map_err(|error| self.foreign(error))?;
        let magnitude = int
            .call_method1("__abs__", (&object,))
            .and_then(|value| int.call_method1("to_bytes", (value, size, "little")))
            .map_err(|error| self.foreign(error))?;
        write::big(
            self.out,
            negative,
            magnitude.cast_unchecked::<PyBytes>().as_bytes(),
        );
        Ok(())
    }

    unsafe fn float(&mut self, object: *mut ffi::PyObject) -> Done {
        let value = ffi::PyFloat_AsDouble(object);
        if !value.is_finite() {
            let name = if value.is_nan() {
                "nan"
            } else if value > 0.0 {
                "inf"
            } else {
                "-inf"
            };
            return Err(refuse(format!("float {name} has no Erlang form")));
        }
        write::float(self.out, value);
        Ok(())
    }

    fn binary(&mut self, data: &[u8]) -> Done {
        self.check_size(data.len())?;
        write::binary(self.out, data);
        Ok(())
    }

    fn bytes_object(&mut self, bytes: &Obj) -> Done {
        // SAFETY: `bytes` is alive, and PyBytes_Check says what it is.
        unsafe {
            if ffi::PyBytes_Check(bytes.ptr()) == 0 {
                return Err(refuse("an attribute that should be bytes is not"));
            }
            let data = ffi::PyBytes_AsString(bytes.ptr()).cast::<u8>();
            self.binary(std::slice::from_raw_parts(
                data,
                ffi::PyBytes_Size(bytes.ptr()) as usize,
            ))
        }
    }

    // --- containers -----------------------------------------------------------------------------------------------------

    unsafe fn tuple(&mut self, object: *mut ffi::PyObject) -> Done {
        let n = ffi::PyTuple_Size(object);
        self.enter()?;
        write::tuple(self.out, n as usize);
        self.tuple_items(object, n)?;
        self.room += 1;
        Ok(())
    }

    unsafe fn tuple_items(&mut self, object: *mut ffi::PyObject, n: isize) -> Done {
        for i in 0..n {
            self.term(ffi::PyTuple_GetItem(object, i))
                .map_err(|refusal| refusal.at(Step::Item(i as usize)))?;
        }
        Ok(())
    }

    unsafe fn list(&mut self, object: *mut ffi::PyObject) -> Done {
        let n = ffi::PyList_Size(object);
        if n == 0 {
            self.out.push(tag::NIL);
            return Ok(());
        }
        if n < 65_536 && self.string(object, n) {
            return Ok(());
        }
        self.enter()?;
        write::head(self.out, tag::LIST, n as u32);
        for i in 0..n {
            let item = ffi::PyList_GetItem(object, i);
            if item.is_null() {
                drop(PyErr::take(self.py));
                return Err(refuse("list changed while it was encoded"));
            }
            let done = if self.is_leaf(item) {
                self.term(item)
            } else {
                self.term(Obj::share(item).ptr())
            };
            done.map_err(|refusal| refusal.at(Step::Item(i as usize)))?;
        }
        self.out.push(tag::NIL);
        self.room += 1;
        Ok(())
    }

    /// STRING_EXT, if all items are bytes: as OTP does, and a quarter of the size.
    #[inline]
    unsafe fn string(&mut self, object: *mut ffi::PyObject, n: isize) -> bool {
        if !is_byte(ffi::PyList_GetItem(object, 0)) {
            return false;
        }
        let start = self.out.len();
        self.out
            .extend_from_slice(&[tag::STRING, (n >> 8) as u8, n as u8]);
        for i in 0..n {
            let item = ffi::PyList_GetItem(object, i);
            if !is_byte(item) {
                self.out.truncate(start);
                return false;
            }
            self.out
                .push(ffi::PyLong_AsLongLongAndOverflow(item, &mut 0) as u8);
        }
        true
    }

    #[inline(never)]
    unsafe fn improper(&mut self, object: *mut ffi::PyObject) -> Done {
        let slots = &self.codec.classes.improper_slots;
        let elements = self.own(slots[0].get(object))?;
        let tail = self.own(slots[1].get(object))?;
        if ffi::PyTuple_Check(elements.ptr()) == 0 {
            return Err(refuse("ImproperList.elements is no tuple"));
        }
        let n = ffi::PyTuple_Size(elements.ptr());
        self.enter()?;
        write::head(self.out, tag::LIST, n as u32);
        self.tuple_items(elements.ptr(), n)?;
        self.term(tail.ptr())
            .map_err(|refusal| refusal.at(Step::Tail))?;
        self.room += 1;
        Ok(())
    }

    unsafe fn dict(&mut self, object: *mut ffi::PyObject) -> Done {
        let n = ffi::PyDict_Size(object);
        let mut map = self.map_begin(n)?;
        let (mut position, mut key, mut value) = (0, std::ptr::null_mut(), std::ptr::null_mut());
        let mut left = n;
        while ffi::PyDict_Next(object, &mut position, &mut key, &mut value) != 0 {
            left -= 1;
            if self.is_leaf(key) && self.is_leaf(value) {
                self.leaf_pair(&mut map, key, value)?;
            } else {
                self.pair(&mut map, Obj::share(key), Obj::share(value))?;
            }
        }
        if left != 0 {
            return Err(refuse("dict changed while it was encoded"));
        }
        self.map_end(map)
    }

    #[inline(never)]
    unsafe fn term_map(&mut self, object: *mut ffi::PyObject) -> Done {
        let entries = self.own(self.codec.classes.map_slots[0].get(object))?;
        if ffi::PyDict_Check(entries.ptr()) == 0 {
            return Err(refuse("not a whole TermMap"));
        }
        let mut map = self.map_begin(ffi::PyDict_Size(entries.ptr()))?;
        let (mut position, mut key, mut entry) = (0, std::ptr::null_mut(), std::ptr::null_mut());
        while ffi::PyDict_Next(entries.ptr(), &mut position, &mut key, &mut entry) != 0 {
            if ffi::PyTuple_Check(entry) == 0 || ffi::PyTuple_Size(entry) != 2 {
                return Err(refuse("not a whole TermMap"));
            }
            let key = Obj::share(ffi::PyTuple_GetItem(entry, 0));
            let value = Obj::share(ffi::PyTuple_GetItem(entry, 1));
            self.pair(&mut map, key, value)?;
        }
        self.map_end(map)
    }

    fn map_begin(&mut self, n: isize) -> Result<OpenMap, Box<Refusal>> {
        self.enter()?;
        write::head(self.out, tag::MAP, n as u32);
        let outside = std::mem::take(&mut self.met);
        Ok(OpenMap {
            first: self.out.len(),
            pairs: n as usize,
            outside,
            inside: 0,
        })
    }

    #[inline]
    unsafe fn pair(&mut self, map: &mut OpenMap, key: Obj, value: Obj) -> Done {
        if let Err(refusal) = self.term(key.ptr()) {
            return Err(refusal.at(Step::Key(key)));
        }
        let keys = self.met; // of the keys so far
        if let Err(refusal) = self.term(value.ptr()) {
            return Err(refusal.at(Step::Value(key)));
        }
        map.inside |= self.met;
        self.met = keys;
        Ok(())
    }

    /// The same for two leaves, which nobody else can touch meanwhile.
    #[inline]
    unsafe fn leaf_pair(
        &mut self,
        map: &mut OpenMap,
        key: *mut ffi::PyObject,
        value: *mut ffi::PyObject,
    ) -> Done {
        if let Err(refusal) = self.term(key) {
            return Err(refusal.at(Step::Key(Obj::share(key))));
        }
        let keys = self.met;
        if let Err(refusal) = self.term(value) {
            return Err(refusal.at(Step::Value(Obj::share(key))));
        }
        map.inside |= self.met;
        self.met = keys;
        Ok(())
    }

    /// Whether no Python code can run while `object` is encoded, so that it needs no reference of ours. An integer is one
    /// as long as it is no big one.
    #[inline]
    unsafe fn is_leaf(&self, object: *mut ffi::PyObject) -> bool {
        let kind = ffi::Py_TYPE(object);
        if kind == &raw mut ffi::PyLong_Type {
            let mut overflow = 0;
            ffi::PyLong_AsLongLongAndOverflow(object, &mut overflow);
            return overflow == 0;
        }
        kind == self.codec.classes.atom.ptr
            || kind == &raw mut ffi::PyBytes_Type
            || kind == &raw mut ffi::PyUnicode_Type
            || kind == &raw mut ffi::PyFloat_Type
            || kind == &raw mut ffi::PyBool_Type
    }

    fn map_end(&mut self, map: OpenMap) -> Done {
        if map.pairs > 1 && met::may_hide_equals(self.met) {
            self.refuse_equal_keys(&map)?;
        }
        self.met |= map.outside | map.inside;
        self.room += 1;
        Ok(())
    }

    /// Two keys that are one in Erlang would be `badarg` at the receiver, and cost the connection.
    #[cold]
    #[inline(never)]
    fn refuse_equal_keys(&mut self, map: &OpenMap) -> Done {
        let limits = Limits {
            depth: MAX_DEPTH,
            bytes: usize::MAX,
            ..self.codec.limits
        };
        let texts = self
            .atoms
            .as_ref()
            .map_or_else(Vec::new, |atoms| atoms.referred());
        let mut reader = Reader::new(self.out, map.first, limits).with_atoms(&texts);
        let mut seen = std::collections::HashSet::with_capacity(map.pairs);
        for _ in 0..map.pairs {
            let from = reader.position();
            let key = reader
                .term(&mut Check::default())
                .and_then(|()| {
                    canonical::canonical(&self.out[from..reader.position()], limits, &texts)
                })
                .map_err(|fault| refuse(format!("a key does not decode again: {fault}")))?;
            if !seen.insert(key) {
                return Err(refuse("two keys of the map are one term in Erlang (a str and bytes, or True and Atom(\"true\"))"));
            }
            reader
                .term(&mut Check::default())
                .map_err(|fault| refuse(format!("a value does not decode again: {fault}")))?;
        }
        Ok(())
    }

    // --- Erlang's own ---------------------------------------------------------------------------------------------------

    /// Pids and references hold their encoding.
    unsafe fn cached_encoding(&mut self, object: *mut ffi::PyObject, slot: &Slot) -> Done {
        let mut etf = slot.get(object);
        if etf.is_null() {
            ffi::PyErr_Clear();
            etf = ffi::PyObject_GetAttr(object, self.codec.classes.etf_name.as_ptr());
        }
        if etf.is_null() || ffi::PyBytes_CheckExact(etf) == 0 {
            return Err(self.no_encoding(object, etf));
        }
        let data = ffi::PyBytes_AsString(etf).cast::<u8>();
        self.own_encoding(std::slice::from_raw_parts(
            data,
            ffi::PyBytes_Size(etf) as usize,
        ));
        ffi::Py_DECREF(etf);
        Ok(())
    }

    /// A pid or reference as it stands without a cache: its node's name is the atom that repeats most.
    #[inline]
    fn own_encoding(&mut self, data: &[u8]) {
        if let Some(atoms) = &mut self.atoms {
            let name_at = if data.first() == Some(&tag::NEW_PID) {
                1
            } else {
                3
            };
            if let Some(&[tag::SMALL_ATOM_UTF8, n]) = data.get(name_at..name_at + 2) {
                let end = name_at + 2 + n as usize;
                let index = data
                    .get(name_at + 2..end)
                    .and_then(|text| atoms.refer(text));
                if let Some(index) = index {
                    self.out.extend_from_slice(&data[..name_at]);
                    self.out.extend_from_slice(&[tag::ATOM_CACHE_REF, index]);
                    self.out.extend_from_slice(&data[end..]);
                    return;
                }
            }
        }
        self.out.extend_from_slice(data);
    }

    #[cold]
    #[inline(never)]
    unsafe fn no_encoding(
        &mut self,
        object: *mut ffi::PyObject,
        etf: *mut ffi::PyObject,
    ) -> Box<Refusal> {
        let is_pid = ffi::Py_TYPE(object) == self.codec.classes.pid.ptr;
        let kind = if is_pid { "Pid" } else { "Reference" };
        if !etf.is_null() {
            ffi::Py_DECREF(etf);
            return refuse(format!("{kind} without encoding"));
        }
        let error = PyErr::fetch(self.py);
        refuse(format!(
            "{kind} has no Erlang form: {}",
            error.value(self.py)
        ))
    }

    unsafe fn port(&mut self, object: *mut ffi::PyObject) -> Done {
        let slots = &self.codec.classes.port_slots;
        self.out.push(tag::V4_PORT);
        self.name(slots[0].get(object), "node of a Port")?;
        let id: u64 = self.number(slots[1].get(object), "id of a Port is no 64-bit number")?;
        let creation: u32 = self.number(
            slots[2].get(object),
            "creation of a Port is no 32-bit number",
        )?;
        self.out.extend_from_slice(&id.to_be_bytes());
        self.out.extend_from_slice(&creation.to_be_bytes());
        Ok(())
    }

    unsafe fn export(&mut self, object: *mut ffi::PyObject) -> Done {
        let slots = &self.codec.classes.export_slots;
        self.out.push(tag::EXPORT);
        self.name(slots[0].get(object), "module of an Export")?;
        self.name(slots[1].get(object), "function of an Export")?;
        let arity: u32 = self.number(
            slots[2].get(object),
            "arity of an Export is no 32-bit number",
        )?;
        write::integer(self.out, arity as i64);
        Ok(())
    }

    unsafe fn bit_string(&mut self, object: *mut ffi::PyObject) -> Done {
        let slots = &self.codec.classes.bit_slots;
        let data = self.own(slots[0].get(object))?;
        let bits: u8 = self.number(slots[1].get(object), "bits of a BitString is no number")?;
        let start = self.out.len();
        self.bytes_object(&data)?; // BINARY_EXT: tag, length, bytes; what differs is put right
        self.out[start] = tag::BIT_BINARY;
        self.out.insert(start + 5, bits);
        Ok(())
    }

    /// The bytes are sent as they are, so they are looked at first: the class is public, anybody can fill it.
    unsafe fn fun(&mut self, object: *mut ffi::PyObject) -> Done {
        let data = self.own(self.codec.classes.fun_slots[0].get(object))?;
        if ffi::PyBytes_Check(data.ptr()) == 0 {
            return Err(refuse("data of a Fun is no bytes"));
        }
        let start = ffi::PyBytes_AsString(data.ptr()).cast::<u8>();
        let data = std::slice::from_raw_parts(start, ffi::PyBytes_Size(data.ptr()) as usize);
        match data.first() {
            Some(&tag::NEW_FUN) => {}
            Some(&tag::FUN) => {
                return Err(refuse(
                    "a Fun of tag 117 is not read by any node since OTP 23",
                ))
            }
            _ => return Err(refuse("data of a Fun is no NEW_FUN_EXT")),
        }
        let limits = Limits {
            depth: self.room,
            ..self.codec.limits
        };
        let mut reader = Reader::new(data, 0, limits);
        match reader.term(&mut Check::default()) {
            Ok(()) if reader.position() == data.len() => {
                self.out.extend_from_slice(data);
                Ok(())
            }
            Ok(()) => Err(refuse("data of a Fun has bytes too many")),
            Err(fault) => Err(refuse(format!("data of a Fun is broken {fault}"))),
        }
    }

    unsafe fn name(&mut self, object: *mut ffi::PyObject, what: &str) -> Done {
        let object = self.own(object)?;
        if ffi::PyUnicode_Check(object.ptr()) == 0 {
            return Err(refuse(format!("{what} is no atom")));
        }
        self.atom(object.ptr())
    }

    unsafe fn number<T: for<'x, 'y> FromPyObject<'x, 'y>>(
        &mut self,
        object: *mut ffi::PyObject,
        what: &str,
    ) -> Result<T, Box<Refusal>> {
        let object = self.own(object)?.into_bound(self.py);
        object.extract::<T>().map_err(|_| refuse(what))
    }

    // --- small things ---------------------------------------------------------------------------------------------------

    #[inline]
    fn enter(&mut self) -> Done {
        if self.room == 0 {
            let limit = self.codec.limits.depth;
            return Err(refuse(format!(
                "nested deeper than max_depth={limit} (or a container holds itself)"
            )));
        }
        self.room -= 1;
        Ok(())
    }

    #[inline]
    fn check_size(&self, n: usize) -> Done {
        if n > self.codec.limits.bytes {
            return Err(refuse(format!(
                "{n} bytes exceed max_bytes={}",
                self.codec.limits.bytes
            )));
        }
        Ok(())
    }

    /// Takes over a new reference; NULL is a Python exception.
    unsafe fn own(&mut self, new: *mut ffi::PyObject) -> Result<Obj, Box<Refusal>> {
        if new.is_null() {
            let error = PyErr::fetch(self.py);
            return Err(self.foreign(error));
        }
        Obj::new(new).map_err(|_| refuse("NULL"))
    }

    #[cold]
    #[inline(never)]
    fn foreign(&mut self, error: PyErr) -> Box<Refusal> {
        Box::new(Refusal {
            what: String::new(),
            way: Vec::new(),
            error: Some(error),
        })
    }
}

/// A map that is being written.
struct OpenMap {
    /// Where its pairs begin.
    first: usize,
    pairs: usize,
    /// What was met before it, and in its values.
    outside: u8,
    inside: u8,
}

/// # Safety
/// `item` is alive or NULL.
#[inline]
unsafe fn is_byte(item: *mut ffi::PyObject) -> bool {
    if item.is_null() || ffi::PyLong_Check(item) == 0 || ffi::PyBool_Check(item) != 0 {
        return false;
    }
    let mut overflow = 0;
    let value = ffi::PyLong_AsLongLongAndOverflow(item, &mut overflow);
    overflow == 0 && (0..256).contains(&value)
}
