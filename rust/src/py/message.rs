//! Distribution messages <-> Python: pairs of a control term and a message, or `NO_MESSAGE`.

use super::errors::error;
use super::term::Codec;
use crate::atom_cache::SendCache;
use crate::frame::RawMessage;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyList, PyTuple};

/// What stands for the message of a control message that has none (None is a term of its own).
#[pyclass(frozen, module = "barrel_p2p._native")]
pub struct NoMessage;

#[pymethods]
impl NoMessage {
    fn __repr__(&self) -> &'static str {
        "NO_MESSAGE"
    }
}

static NO_MESSAGE: PyOnceLock<Py<NoMessage>> = PyOnceLock::new();

pub fn no_message(py: Python<'_>) -> PyResult<&'static Py<NoMessage>> {
    NO_MESSAGE.get_or_try_init(py, || Py::new(py, NoMessage))
}

/// The message argument of `send`: None is a term, so that its absence needs a value of its own.
pub enum Payload<'a, 'py> {
    Missing,
    Term(Borrowed<'a, 'py, PyAny>),
}

impl<'a, 'py> FromPyObject<'a, 'py> for Payload<'a, 'py> {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        Ok(Self::Term(object))
    }
}

/// Appends control term and message to `out`, with a version byte between them if they are `tagged`; returns where the
/// control term ends.
pub fn encode(
    py: Python<'_>,
    codec: &Codec,
    control: &Bound<'_, PyAny>,
    message: Payload<'_, '_>,
    tagged: bool,
    mut atoms: Option<&mut SendCache>,
    out: &mut Vec<u8>,
) -> PyResult<usize> {
    codec.encode_term_with_atoms(py, control, out, atoms.as_deref_mut())?;
    let end = out.len();
    if let Payload::Term(message) = message {
        if !message.is(no_message(py)?) {
            if tagged {
                out.push(crate::etf::VERSION);
            }
            codec.encode_term_with_atoms(py, &message, out, atoms)?;
        }
    }
    Ok(end)
}

/// Decodes messages up to the first that is none; what is wrong with that one is the second value.
pub fn decode_batch<'py>(
    py: Python<'py>,
    codec: &Codec,
    batch: &[RawMessage],
) -> PyResult<(Bound<'py, PyList>, Option<String>)> {
    let list = PyList::empty(py);
    for raw in batch {
        match decode(py, codec, raw) {
            Ok(message) => list.append(message)?,
            Err(e) if e.is_instance_of::<PyValueError>(py) => {
                let text = format!("message that can't be decoded: {}", e.value(py));
                return Ok((list, Some(text)));
            }
            Err(e) => return Err(e),
        }
    }
    Ok((list, None))
}

fn decode<'py>(py: Python<'py>, codec: &Codec, raw: &RawMessage) -> PyResult<Bound<'py, PyTuple>> {
    let (body, atoms) = (&raw.body, &raw.atoms);
    let start = version_byte(py, raw, 0)?;
    let (control, at) = codec.decode_term_with_atoms(py, body, start, atoms)?;
    // Python looks into control messages without asking what they are.
    if !control.cast::<PyTuple>().is_ok_and(|c| !c.is_empty()) {
        let text = "a control message that is no tuple, or an empty one";
        return Err(error(py, "DecodeError", text.to_owned()));
    }
    let message = if at < body.len() {
        let start = version_byte(py, raw, at)?;
        let (message, end) = codec.decode_term_with_atoms(py, body, start, atoms)?;
        if end != body.len() {
            let rest = body.len() - end;
            let text = format!("{rest} bytes after the message");
            return Err(error(py, "DecodeError", text));
        }
        message
    } else {
        no_message(py)?.bind(py).clone().into_any()
    };
    let pair = PyTuple::new(py, [&control, &message])?;
    codec.relieve_collector(&pair, [&control, &message]);
    Ok(pair)
}

/// Where the term at `at` begins behind its version byte, if its frame has those.
fn version_byte(py: Python<'_>, raw: &RawMessage, at: usize) -> PyResult<usize> {
    match raw.body.get(at) {
        _ if !raw.tagged => Ok(at),
        Some(131) => Ok(at + 1),
        found => {
            let text = format!("version byte 131 expected at {at}, found {found:?}");
            Err(error(py, "DecodeError", text))
        }
    }
}
