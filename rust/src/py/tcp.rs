//! `DistStream`: one established channel over TCP as net/tcp_connection.py sees it.

use super::errors::error;
use super::message::{decode_batch, encode, Payload};
use super::term::Codec;
use crate::atom_cache::SendCache;
use crate::frame::{self, Deframer, FrameError, Limits};
use crate::tcp::{ticker, Link, Pushed};
use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Bytes read at once. Large enough that a system call per read costs little, small enough for the cache.
const READ: usize = 64 << 10;
const READ_MORE: usize = 256 << 10;
/// Unfinished messages of one peer, as over QUIC (quic/options.rs).
const MAX_HELD: usize = 256 << 20;
const MAX_SEQUENCES: usize = 4096;
/// Bytes of a message that fit one frame, whatever its header.
const MAX_WHOLE: usize = u32::MAX as usize - (1 << 20);
/// A larger encoding buffer is given back after use.
const KEEP: usize = 1 << 20;

const BLOCKED: u8 = 1;
const RELIEVED: u8 = 2;
const BROKEN: u8 = 4;

type Batch<'py> = (Bound<'py, PyList>, Option<(&'static str, String)>);

/// Framing, terms and the send queue of one TCP connection after its handshake.
#[pyclass(frozen, module = "barrel_p2p._native")]
pub struct DistStream {
    link: Arc<Link>,
    codec: Py<Codec>,
    wake: Py<PyAny>,
    fragments: bool,
    atom_cache: bool,
    reading: Mutex<Reading>,
    /// Taken out while a message is encoded: that can run Python code, which may send.
    writing: Mutex<Option<Box<Writing>>>,
    sequence: AtomicU64,
}

struct Reading {
    deframer: Deframer,
    size: usize,
}

#[derive(Default)]
struct Writing {
    cache: Option<SendCache>,
    body: Vec<u8>,
    header: Vec<u8>,
}

#[pymethods]
impl DistStream {
    /// Takes over the connected, non-blocking socket `fd`, which it will close. `wake` is called when the first thing is
    /// queued since the last flush.
    #[new]
    #[pyo3(signature = (codec, wake, fd, *, fragments, atom_cache, max_frame, high_water, low_water, tick_ms))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        codec: Py<Codec>,
        wake: Py<PyAny>,
        fd: i32,
        fragments: bool,
        atom_cache: bool,
        max_frame: usize,
        high_water: usize,
        low_water: usize,
        tick_ms: u64,
    ) -> PyResult<Self> {
        if fd < 0 {
            return Err(pyo3::exceptions::PyValueError::new_err("no descriptor"));
        }
        // SAFETY: the caller gives the descriptor up.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let tick_every = Duration::from_millis(tick_ms.max(1));
        let link = Arc::new(Link::new(socket, high_water, low_water, tick_every));
        ticker::watch(&link)?;
        let limits = Limits {
            max_frame,
            max_held: MAX_HELD.max(max_frame),
            max_sequences: MAX_SEQUENCES,
            fragments,
            atom_cache,
        };
        let writing = Writing {
            cache: atom_cache.then(SendCache::new),
            ..Writing::default()
        };
        Ok(Self {
            link,
            codec,
            wake,
            fragments,
            atom_cache,
            reading: Mutex::new(Reading {
                deframer: Deframer::new(limits),
                size: READ,
            }),
            writing: Mutex::new(Some(Box::new(writing))),
            sequence: AtomicU64::new(1),
        })
    }

    /// Reads the socket once. Returns the messages that have become whole, and (kind, text) if nothing follows them.
    fn receive<'py>(&self, py: Python<'py>) -> PyResult<Batch<'py>> {
        let mut reading = self.reading();
        let mut buffer = Vec::with_capacity(reading.size);
        match self.link.receive(&mut buffer) {
            Ok(0) => end(py, "application", "the peer closed the connection".into()),
            Ok(n) => {
                reading.size = if n == buffer.capacity() {
                    READ_MORE
                } else {
                    READ
                };
                self.deframe(py, reading, buffer.into())
            }
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Ok((PyList::empty(py), None))
            }
            Err(e) if e.kind() == io::ErrorKind::TimedOut => end(py, "timeout", e.to_string()),
            Err(e) => end(py, "reset", e.to_string()),
        }
    }

    /// The same for bytes that were read before the channel began.
    fn feed<'py>(&self, py: Python<'py>, data: &[u8]) -> PyResult<Batch<'py>> {
        self.deframe(py, self.reading(), Bytes::copy_from_slice(data))
    }

    /// Encodes one message into the send queue; returns the queue's depth in bytes. On a closed connection it does
    /// nothing and returns 0, as a send to a dead node does nothing.
    #[pyo3(signature = (control, message=Payload::Missing))]
    fn send(&self, control: &Bound<'_, PyAny>, message: Payload<'_, '_>) -> PyResult<usize> {
        let py = control.py();
        // A message sent while another one is encoded goes first, and does without the cache: the outer one has its turn.
        let mut writing = self.writing().take().unwrap_or_default();
        let encoded = self.encode(py, control, message, &mut writing);
        let result = match encoded {
            Ok(end) => Ok(self.push(&mut writing, end)),
            Err(e) => {
                if let Some(cache) = &mut writing.cache {
                    cache.forget();
                }
                Err(e)
            }
        };
        writing.body.clear();
        writing.header.clear();
        if writing.body.capacity() > KEEP {
            writing.body = Vec::new();
        }
        if writing.cache.is_some() == self.atom_cache {
            *self.writing() = Some(writing);
        }
        let pushed = result?;
        self.ask_for_flush(py, pushed)?;
        Ok(if pushed.burst {
            self.link.queued()
        } else {
            pushed.queued
        })
    }

    /// Queues bytes as they are: what is left of the handshake.
    fn write(&self, py: Python<'_>, data: &[u8]) -> PyResult<()> {
        let pushed = self.link.push(|out| out.extend_from_slice(data));
        self.ask_for_flush(py, pushed)
    }

    /// Writes what is queued. Returns the sum of 1: the socket is full, flush when it is writable; 2: the queue fell below
    /// low water; 4: the connection is broken, reading it tells how.
    fn flush(&self) -> u8 {
        let flushed = self.link.flush();
        let flag = |set: bool, value: u8| if set { value } else { 0 };
        flag(flushed.blocked, BLOCKED)
            | flag(flushed.relieved, RELIEVED)
            | flag(flushed.broken, BROKEN)
    }

    /// Sends a sign of life now.
    fn tick(&self) {
        self.link.tick();
    }

    /// Bytes that the socket has not taken yet.
    #[getter]
    fn queued(&self) -> usize {
        self.link.queued()
    }

    /// Seconds since bytes last came.
    #[getter]
    fn silent_for(&self) -> f64 {
        self.link.silent_for().as_secs_f64()
    }

    /// Counters since the handshake.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (sent, received) = self.link.carried();
        let dict = PyDict::new(py);
        dict.set_item("bytes_sent", sent)?;
        dict.set_item("bytes_received", received)?;
        Ok(dict)
    }

    /// Ends the connection; what is queued is dropped. The descriptor stays open as long as this object lives.
    fn close(&self) {
        self.link.close();
    }
}

impl DistStream {
    fn deframe<'py>(
        &self,
        py: Python<'py>,
        mut reading: MutexGuard<'_, Reading>,
        data: Bytes,
    ) -> PyResult<Batch<'py>> {
        let mut batch = Vec::new();
        let fed = reading.deframer.feed(0, data, &mut batch);
        drop(reading); // decoding can run Python code
        let (messages, bad) = decode_batch(py, self.codec.get(), &batch)?;
        let bad = bad.or(fed.err().map(|FrameError(text)| text));
        Ok((messages, bad.map(|text| ("protocol", text))))
    }

    /// Whether frames begin with a distribution header, and terms therefore have no version bytes.
    fn header(&self) -> bool {
        self.fragments || self.atom_cache
    }

    /// Encodes into `writing.body`; returns where the control term ends.
    fn encode(
        &self,
        py: Python<'_>,
        control: &Bound<'_, PyAny>,
        message: Payload<'_, '_>,
        writing: &mut Writing,
    ) -> PyResult<usize> {
        let codec = self.codec.get();
        let Writing { cache, body, .. } = writing;
        let control_end = if self.header() {
            encode(py, codec, control, message, false, cache.as_mut(), body)?
        } else {
            frame::begin(body, false);
            encode(py, codec, control, message, true, None, body)?
        };
        if !self.fragments && body.len() > MAX_WHOLE {
            let text = "the message is larger than the 4 GiB that one frame can hold";
            return Err(error(py, "EncodeError", text));
        }
        Ok(control_end)
    }

    fn ask_for_flush(&self, py: Python<'_>, pushed: Pushed) -> PyResult<()> {
        if pushed.burst {
            self.wake.call1(py, (true,))?;
        } else if pushed.first {
            self.wake.call0(py)?;
        }
        Ok(())
    }

    /// Queues what was encoded.
    fn push(&self, writing: &mut Writing, control_end: usize) -> Pushed {
        let Writing {
            cache,
            body,
            header,
        } = writing;
        if !self.header() {
            let _fits = frame::finish(body, 0); // seen to by `encode`
            return self.link.push(|out| out.extend_from_slice(body));
        }
        match cache {
            Some(cache) => cache.finish(header),
            None => header.push(0),
        }
        let sequence = self
            .fragments
            .then(|| self.sequence.fetch_add(1, Ordering::Relaxed));
        self.link
            .push(|out| frame::write(out, header, body, control_end, sequence))
    }

    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn writing(&self) -> MutexGuard<'_, Option<Box<Writing>>> {
        self.writing.lock().unwrap_or_else(|e| e.into_inner())
    }
}

fn end<'py>(py: Python<'py>, kind: &'static str, text: String) -> PyResult<Batch<'py>> {
    Ok((PyList::empty(py), Some((kind, text))))
}
