//! Terms <-> Python objects.
//!
//! The hot paths call the C API directly: each term of a message is one or two calls of a few nanoseconds, and PyO3's
//! checked wrappers would be most of the cost. What they rely on is said beside each `unsafe`; two rules hold everywhere:
//! the interpreter is attached (a `Python` token is at hand), and an [`Obj`] owns one reference.

mod atoms;
mod build;
mod classes;
mod encode;
mod object;

use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::exceptions::{PyRecursionError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyTuple};

use crate::atom_cache::SendCache;
use crate::etf::{AtomText, Fail, Limits, Reader, MAX_DEPTH, VERSION};
use atoms::{Atoms, Pids};
use build::Objects;
use classes::Classes;
use object::{Attached, Obj};

/// Encodes and decodes terms; keeps the atoms and pids it has met last. One codec serves a whole node.
#[pyclass(frozen, module = "barrel_p2p._native")]
pub struct Codec {
    classes: &'static Classes,
    limits: Limits,
    /// The atom that `None` stands for.
    none_atom: String,
    atoms: Attached<Atoms>,
    pids: Attached<Pids>,
    /// How much the last `encode` needed: the next one starts with that capacity.
    usual_size: AtomicUsize,
}

/// What Rust callers use. Positions and lengths are those of terms without the byte 131.
impl Codec {
    /// Appends the encoding of `term` to `out`. If that fails `out` is as it was, and the error is an EncodeError.
    pub fn encode_term(
        &self,
        py: Python<'_>,
        term: &Bound<'_, PyAny>,
        out: &mut Vec<u8>,
    ) -> PyResult<()> {
        self.encode_term_with_atoms(py, term, out, None)
    }

    /// The same for a message behind a distribution header, in which atoms may be references to `atoms`.
    pub fn encode_term_with_atoms(
        &self,
        py: Python<'_>,
        term: &Bound<'_, PyAny>,
        out: &mut Vec<u8>,
        atoms: Option<&mut SendCache>,
    ) -> PyResult<()> {
        let start = out.len();
        encode::encode(self, py, term, out, atoms).inspect_err(|_| out.truncate(start))
    }

    /// The term that starts at `offset`, and the offset behind it. The error is a DecodeError.
    pub fn decode_term<'py>(
        &self,
        py: Python<'py>,
        data: &[u8],
        offset: usize,
    ) -> PyResult<(Bound<'py, PyAny>, usize)> {
        self.decode_term_with_atoms(py, data, offset, &[])
    }

    /// Spare the cycle collector a new tuple whose items could not be part of a cycle (see `Obj::untrack`).
    pub fn relieve_collector(&self, tuple: &Bound<'_, PyTuple>, items: [&Bound<'_, PyAny>; 2]) {
        // SAFETY: the objects are alive, and the references taken are given back here.
        unsafe {
            if items
                .iter()
                .all(|item| Obj::share(item.as_ptr()).is_plain())
            {
                Obj::share(tuple.as_ptr()).untrack();
            }
        }
    }

    /// The same for a message behind a distribution header: `atoms[i]` is what ATOM_CACHE_REF `i` stands for.
    pub fn decode_term_with_atoms<'py>(
        &self,
        py: Python<'py>,
        data: &[u8],
        offset: usize,
        atoms: &[AtomText],
    ) -> PyResult<(Bound<'py, PyAny>, usize)> {
        let _quiet = QuietCollector::for_bytes(data.len() - offset.min(data.len()));
        let mut reader = Reader::new(data, offset, self.limits).with_atoms(atoms);
        let mut objects = Objects::new(py, self);
        match reader.term(&mut objects) {
            Ok(object) => Ok((object.into_bound(py), reader.position())),
            Err(fail) => Err(self.decode_error(py, fail)),
        }
    }

    fn decode_versioned<'py>(
        &self,
        py: Python<'py>,
        data: &[u8],
        at: usize,
    ) -> PyResult<(Bound<'py, PyAny>, usize)> {
        let _quiet = QuietCollector::for_bytes(data.len() - at.min(data.len()));
        let mut reader = Reader::new(data, at, self.limits);
        let mut objects = Objects::new(py, self);
        match reader.versioned(&mut objects) {
            Ok(object) => Ok((object.into_bound(py), reader.position())),
            Err(fail) => Err(self.decode_error(py, fail)),
        }
    }

    #[cold]
    fn decode_error(&self, py: Python<'_>, fail: Fail) -> PyErr {
        if fail.in_host {
            let error = PyErr::fetch(py);
            if error.is_instance_of::<PyRecursionError>(py) {
                // keys of maps are hashed and compared by Python, whose own limit may be the smaller one
                let what =
                    "key of a map is nested deeper than Python's recursion limit lets it be hashed";
                return self.classes.decode_error(py, what.to_owned());
            }
            return error;
        }
        self.classes.decode_error(py, fail.to_string())
    }
}

#[pymethods]
impl Codec {
    #[new]
    #[pyo3(signature = (*, none_atom="undefined", max_depth=512, max_bytes=67_108_864, exact_empty_str=false))]
    fn new(
        py: Python<'_>,
        none_atom: &str,
        max_depth: u32,
        max_bytes: usize,
        exact_empty_str: bool,
    ) -> PyResult<Self> {
        if !matches!(none_atom, "undefined" | "nil") {
            return Err(PyValueError::new_err(
                "none_atom is \"undefined\" or \"nil\"",
            ));
        }
        if !(1..=MAX_DEPTH).contains(&max_depth) {
            return Err(PyValueError::new_err(format!(
                "max_depth is 1 to {MAX_DEPTH}"
            )));
        }
        if !(1..=u32::MAX as usize).contains(&max_bytes) {
            return Err(PyValueError::new_err("max_bytes is 1 to 2**32 - 1"));
        }
        let classes = Classes::get(py)?;
        Ok(Codec {
            classes,
            limits: Limits {
                depth: max_depth,
                bytes: max_bytes,
                empty_text: exact_empty_str,
                ..Limits::default()
            },
            none_atom: none_atom.to_owned(),
            atoms: Attached::new(Atoms::new(py, none_atom)),
            pids: Attached::new(Pids::new()),
            usual_size: AtomicUsize::new(64),
        })
    }

    /// The external term of `term`, with the leading byte 131.
    fn encode<'py>(
        &self,
        py: Python<'py>,
        term: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let mut out = Vec::with_capacity(self.usual_size.load(Ordering::Relaxed));
        out.push(VERSION);
        encode::encode(self, py, term, &mut out, None)?;
        // follow growth at once, forget a single large term slowly
        let usual = self.usual_size.load(Ordering::Relaxed);
        let next = if out.len() > usual {
            out.len().min(1 << 16)
        } else {
            usual - (usual - out.len()) / 16
        };
        self.usual_size.store(next.max(64), Ordering::Relaxed);
        Ok(PyBytes::new(py, &out))
    }

    /// The term at the start of `data`, which begins with the byte 131. Like binary_to_term/1 it ignores what follows.
    fn decode<'py>(
        &self,
        py: Python<'py>,
        data: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let data = as_bytes(data)?;
        Ok(self.decode_versioned(py, data.as_bytes(), 0)?.0)
    }

    /// Appends a term to `buffer`.
    #[pyo3(signature = (buffer, term, *, version=true))]
    fn encode_into(
        &self,
        py: Python<'_>,
        buffer: &Bound<'_, PyByteArray>,
        term: &Bound<'_, PyAny>,
        version: bool,
    ) -> PyResult<()> {
        let mut out = Vec::with_capacity(self.usual_size.load(Ordering::Relaxed));
        if version {
            out.push(VERSION);
        }
        encode::encode(self, py, term, &mut out, None)?;
        let before = buffer.len();
        buffer.resize(before + out.len())?;
        // SAFETY: no other Python code runs between the resize and the copy, so nobody else sees or moves the buffer.
        unsafe { buffer.as_bytes_mut()[before..].copy_from_slice(&out) };
        Ok(())
    }

    /// The term at `offset` and the offset of what follows it.
    #[pyo3(signature = (data, offset=0, *, version=true))]
    fn decode_prefix<'py>(
        &self,
        py: Python<'py>,
        data: &Bound<'py, PyAny>,
        offset: usize,
        version: bool,
    ) -> PyResult<(Bound<'py, PyAny>, usize)> {
        let data = as_bytes(data)?;
        if version {
            self.decode_versioned(py, data.as_bytes(), offset)
        } else {
            self.decode_term(py, data.as_bytes(), offset)
        }
    }

    /// How many atoms are kept to be found again; not more than 8,192.
    #[getter]
    fn atoms(&self, py: Python<'_>) -> usize {
        self.atoms.with(py, |atoms| atoms.len())
    }
}

/// Keeps the cycle collector away while a large term is built: it would look at every new object several times and find
/// nothing, as all of them are still held. That was a quarter of the time of decoding 1,000 maps.
struct QuietCollector(bool);

impl QuietCollector {
    fn for_bytes(n: usize) -> Self {
        // SAFETY: we are attached. A small term makes too few objects to be worth two calls.
        QuietCollector(n > 4096 && unsafe { ffi::PyGC_Disable() } != 0)
    }
}

impl Drop for QuietCollector {
    fn drop(&mut self) {
        if self.0 {
            // SAFETY: we are attached, and it was on before.
            unsafe { ffi::PyGC_Enable() };
        }
    }
}

/// `data` itself if it is bytes, else a copy: nobody may change it while it is read.
fn as_bytes<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    if let Ok(bytes) = data.cast_exact::<PyBytes>() {
        return Ok(bytes.clone());
    }
    // SAFETY: PyObject_CheckBuffer and PyBytes_FromObject take any object; the latter returns a new reference or NULL.
    unsafe {
        if ffi::PyObject_CheckBuffer(data.as_ptr()) == 0 {
            let kind = data.get_type().name()?;
            return Err(PyTypeError::new_err(format!(
                "a bytes-like object is required, not {kind}"
            )));
        }
        let copy = Bound::from_owned_ptr_or_err(data.py(), ffi::PyBytes_FromObject(data.as_ptr()))?;
        Ok(copy.cast_into_unchecked())
    }
}
