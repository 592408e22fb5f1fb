//! `QuicStream`: one user stream.

use super::with_core;
use crate::quic::options::Options;
use crate::quic::streams::{End, Found, UserStreams};
use crate::quic::watcher::Shared;
use bytes::Bytes;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::sync::Arc;

/// Below this a copy costs less than keeping the object alive until the peer has acknowledged it.
const COPY_BELOW: usize = 8 << 10;

#[pyclass(frozen, module = "barrel_p2p._native")]
pub struct QuicStream {
    pub shared: Arc<Shared>,
    pub wake: Py<PyAny>,
    pub connection: u64,
    #[pyo3(get)]
    pub id: u64,
}

#[pymethods]
impl QuicStream {
    /// Queues bytes; returns how many are queued on the stream now. A large `bytes` object is not copied.
    fn write(&self, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        let py = data.py();
        let data = take(data)?;
        let id = self.id;
        let queued = self.step(py, move |streams, _, options| {
            streams.write(id, data, options)
        })?;
        Ok(queued.unwrap_or(0))
    }

    /// What has arrived, up to `max` bytes, and how the stream ended: None if it has not, -1 complete, -2 unknown or
    /// stopped, else the code of the peer's reset. Nothing at all: STREAM_READABLE follows.
    fn read<'py>(
        &self,
        py: Python<'py>,
        max: usize,
    ) -> PyResult<(Bound<'py, PyBytes>, Option<i64>)> {
        let (connection, id) = (self.connection, self.id);
        let read = with_core(&self.shared, py, |core| {
            let connection = core.connection(connection)?;
            let (read, transmit) = connection.user.read(&mut connection.quic, id, max);
            connection.unflushed |= transmit;
            Some((read, transmit))
        })?;
        let (read, transmit) = read.unwrap_or_else(|| {
            let closed = Found {
                end: Some(End::Closed),
                ..Found::default()
            };
            (closed, false)
        });
        if transmit {
            self.ask_for_flush(py)?;
        }
        found(py, read)
    }

    /// Ends our half after what is queued; STREAM_FINISHED follows when all of it has arrived.
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        let id = self.id;
        self.step(py, |streams, _, _| streams.finish(id)).map(drop)
    }

    /// Ends our half at once.
    fn reset(&self, py: Python<'_>, code: u64) -> PyResult<()> {
        let id = self.id;
        self.step(py, |streams, quic, _| streams.reset(quic, id, code))
            .map(drop)
    }

    /// Takes nothing more of the peer's half.
    fn stop(&self, py: Python<'_>, code: u64) -> PyResult<()> {
        let id = self.id;
        self.step(py, |streams, quic, _| streams.stop(quic, id, code))
            .map(drop)
    }

    /// Nobody takes this stream of the peer's: both halves end with code 0x100.
    fn refuse(&self, py: Python<'_>) -> PyResult<()> {
        let id = self.id;
        self.step(py, |streams, quic, _| streams.refuse(quic, id))
            .map(drop)
    }
}

impl QuicStream {
    fn step<T: Send>(
        &self,
        py: Python<'_>,
        step: impl FnOnce(&mut UserStreams, &mut quinn_proto::Connection, &Options) -> T + Send,
    ) -> PyResult<Option<T>> {
        let id = self.connection;
        let result = with_core(&self.shared, py, |core| core.with_streams(id, step))?;
        self.ask_for_flush(py)?;
        Ok(result)
    }

    fn ask_for_flush(&self, py: Python<'_>) -> PyResult<()> {
        if self.shared.want_flush() {
            self.wake.call0(py)?;
        }
        Ok(())
    }
}

/// What was read, as Python's: one copy.
pub fn found(py: Python<'_>, found: Found) -> PyResult<(Bound<'_, PyBytes>, Option<i64>)> {
    let end = found.end.map(|end| match end {
        End::Finished => -1,
        End::Closed => -2,
        End::Reset(code) => i64::try_from(code).unwrap_or(i64::MAX),
    });
    let bytes = match &found.chunks[..] {
        [] => PyBytes::new(py, b""),
        [one] => PyBytes::new(py, one),
        many => {
            let total = many.iter().map(Bytes::len).sum();
            PyBytes::new_with(py, total, |mut out| {
                for chunk in many {
                    let (here, rest) = out.split_at_mut(chunk.len());
                    here.copy_from_slice(chunk);
                    out = rest;
                }
                Ok(())
            })?
        }
    };
    Ok((bytes, end))
}

/// The bytes of a Python object: a large `bytes` object is kept, for it never changes; all else is copied.
fn take(data: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    if let Ok(bytes) = data.cast_exact::<PyBytes>() {
        let whole = bytes.as_bytes();
        return Ok(if whole.len() < COPY_BELOW {
            Bytes::copy_from_slice(whole)
        } else {
            Bytes::from_owner(Kept::of(bytes))
        });
    }
    let buffer = PyBuffer::<u8>::get(data)?;
    if !buffer.is_c_contiguous() {
        return Err(PyBufferError::new_err("the buffer is not contiguous"));
    }
    Ok(buffer.to_vec(data.py())?.into())
}

/// A `bytes` object that QUIC reads without the GIL.
struct Kept {
    start: *const u8,
    length: usize,
    _object: Py<PyBytes>,
}

// SAFETY: a bytes object is immutable and stays where it is while a reference to it is held; the reference itself may
// be dropped on any thread (PyO3 defers that until the GIL is held).
unsafe impl Send for Kept {}
// SAFETY: as above, and nothing is ever written.
unsafe impl Sync for Kept {}

impl Kept {
    fn of(bytes: &Bound<'_, PyBytes>) -> Self {
        let data = bytes.as_bytes();
        Self {
            start: data.as_ptr(),
            length: data.len(),
            _object: bytes.clone().unbind(),
        }
    }
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the memory of the object that is held.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }
}
