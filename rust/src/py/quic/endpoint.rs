//! `QuicEndpoint`: drives the core, and turns its events into Python objects.

use super::connection::QuicConnection;
use super::stream::found;
use super::{duplicate, ip, pair, with_core, Codecs};
use super::{ACCEPTED, CLOSED, CONNECTED, DETACHED, MESSAGES, MOVED, STREAM, WRITABLE};
use super::{
    STREAMS_AVAILABLE, STREAM_FINISHED, STREAM_OPENED, STREAM_READABLE, STREAM_REST,
    STREAM_STOPPED, STREAM_WRITABLE,
};
use crate::frame::RawMessage;
use crate::py::errors::{error, os_error};
use crate::py::message::decode_batch;
use crate::py::term::Codec;
use crate::quic::core::{Core, Identity, SetupError};
use crate::quic::options::Options;
use crate::quic::reason::CloseReason;
use crate::quic::watcher::{self, Shared};
use crate::quic::{Event, Link};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// All QUIC sockets and connections of one transport.
#[pyclass(frozen, module = "barrel_p2p._native")]
pub struct QuicEndpoint {
    shared: Arc<Shared>,
    codecs: Arc<Codecs>,
    wake: Py<PyAny>,
    listen: Option<(i32, SocketAddr)>,
}

#[pymethods]
impl QuicEndpoint {
    #[new]
    #[pyo3(signature = (codec, wake, *, certificate, private_key, reset_key, listen=None,
                        alpn=b"erlang-dist".to_vec(), options=None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        codec: Py<Codec>,
        wake: Py<PyAny>,
        certificate: Vec<u8>,
        private_key: Vec<u8>,
        reset_key: Vec<u8>,
        listen: Option<(String, u16)>,
        alpn: Vec<u8>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let options = read_options(options)?;
        let interval = Duration::from_millis(options.watcher_ms);
        let address = listen
            .map(|(host, port)| Ok::<_, PyErr>(SocketAddr::new(ip(&host)?, port)))
            .transpose()?;
        let identity = Identity {
            certificate: &certificate,
            private_key: &private_key,
            reset_key: &reset_key,
            alpn: &alpn,
        };
        let core = Core::new(&identity, address, options).map_err(|e| match e {
            SetupError::Identity(text) => error(py, "ConfigError", text),
            SetupError::Bind(e) => os_error(e),
        })?;
        let listen = core.listener();
        let shared = Arc::new(Shared::new(core)?);
        if !interval.is_zero() {
            watcher::start(&shared, interval)?;
        }
        let codecs = Arc::new(Codecs {
            usual: codec,
            special: Mutex::default(),
        });
        Ok(Self {
            shared,
            codecs,
            wake,
            listen,
        })
    }

    /// The address of the listening socket with its real port.
    #[getter]
    fn listen_address(&self) -> Option<(String, u16)> {
        self.listen.map(|(_, address)| pair(address))
    }

    #[getter]
    fn listen_fd(&self) -> Option<i32> {
        self.listen.map(|(fd, _)| fd)
    }

    /// Readable when the watcher has news: then `drive`.
    #[getter]
    fn alarm_fd(&self) -> i32 {
        self.shared.alarm_fd()
    }

    /// How often the watcher stood in for the event loop.
    #[getter]
    fn stood_in(&self) -> u64 {
        self.shared.stood_in()
    }

    /// How many dialers got no handshake, by reason.
    fn turned_away(&self, py: Python<'_>) -> PyResult<BTreeMap<&'static str, u64>> {
        let counts = self.with_core(py, |core| core.turned_away().by_reason())?;
        Ok(counts.into())
    }

    /// Inbound connections whose peers have not shown who they are.
    fn strangers(&self, py: Python<'_>) -> PyResult<usize> {
        self.with_core(py, |core| core.strangers())
    }

    /// Dials; `fd` is a UDP socket of the caller's to use, which stays the caller's to close.
    #[pyo3(signature = (host, port, server_name, fd=None))]
    fn connect(
        slf: &Bound<'_, Self>,
        host: &str,
        port: u16,
        server_name: &str,
        fd: Option<i32>,
    ) -> PyResult<QuicConnection> {
        let this = slf.get();
        let peer = SocketAddr::new(ip(host)?, port);
        let given = fd.map(duplicate).transpose()?;
        let link = this.with_core(slf.py(), |core| {
            core.connect(peer, server_name, given, Instant::now())
        })?;
        Ok(this.connection(slf.py(), link.map_err(os_error)?))
    }

    /// Answers connections that begin from now on with another certificate. Collect what is due with `drive` first.
    fn set_certificate(
        &self,
        py: Python<'_>,
        certificate: &[u8],
        private_key: &[u8],
        alpn: &[u8],
    ) -> PyResult<()> {
        self.with_core(py, |core| {
            core.set_certificate(certificate, private_key, alpn)
        })?
        .map_err(|text| error(py, "ConfigError", text))
    }

    /// Reads a socket that is readable; returns events.
    fn receive<'py>(&self, py: Python<'py>, fd: i32) -> PyResult<Bound<'py, PyList>> {
        self.shared.visit();
        let (events, result) = self.with_core(py, |core| {
            let mut events = Vec::new();
            let result = core.receive(fd, Instant::now(), &mut events);
            (events, result)
        })?;
        result?;
        self.to_python(py, events)
    }

    /// Runs due timers and goes on with work that was left; returns events.
    fn drive<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.shared.visit();
        let events = self.with_core(py, |core| {
            let mut events = Vec::new();
            self.shared.answer(core);
            core.drive(Instant::now(), &mut events);
            events
        })?;
        self.to_python(py, events)
    }

    /// Writes everything queued; returns the seconds until `drive` is needed if that is earlier than what was
    /// returned before, else None.
    fn flush(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        self.shared.visit();
        let dirty = self.shared.begin_flush();
        self.with_core(py, |core| {
            let now = Instant::now();
            core.flush(now, dirty);
            let next = core.rearm(now);
            next.map(|next| next.saturating_duration_since(now).as_secs_f64())
        })
    }

    /// Closes the socket of a dialed connection, after its DETACHED event and after the loop forgot it.
    fn release(&self, py: Python<'_>, fd: i32) -> PyResult<()> {
        self.with_core(py, |core| core.release(fd))
    }

    /// Closes all connections (their close frames go out now), all sockets, and stops the watcher.
    fn close(&self, py: Python<'_>, code: u64, reason: &str) -> PyResult<()> {
        self.shared.stop();
        self.with_core(py, |core| core.close(Instant::now(), code, reason))
    }
}

impl Drop for QuicEndpoint {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl QuicEndpoint {
    fn connection(&self, py: Python<'_>, link: Link) -> QuicConnection {
        QuicConnection {
            shared: self.shared.clone(),
            codecs: self.codecs.clone(),
            wake: self.wake.clone_ref(py),
            link,
        }
    }

    fn with_core<T: Send>(
        &self,
        py: Python<'_>,
        step: impl FnOnce(&mut Core) -> T + Send,
    ) -> PyResult<T> {
        with_core(&self.shared, py, step)
    }

    /// Makes events into tuples, decoding messages; a message that can't be decoded ends its connection.
    fn to_python<'py>(&self, py: Python<'py>, events: Vec<Event>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for event in events {
            let tuple = match event {
                Event::Accepted { link } => {
                    let id = link.channel.id;
                    (ACCEPTED, id, self.connection(py, link))
                        .into_pyobject(py)?
                        .into_any()
                }
                Event::Connected { id, certificate } => {
                    let certificate = certificate.map(|der| PyBytes::new(py, &der));
                    (CONNECTED, id, certificate).into_pyobject(py)?.into_any()
                }
                Event::Stream {
                    id,
                    stream,
                    data,
                    fin,
                } => {
                    let data = PyBytes::new(py, &data);
                    (STREAM, id, stream, data, fin)
                        .into_pyobject(py)?
                        .into_any()
                }
                Event::Messages { id, batch } => {
                    let messages = self.decode(py, id, &batch)?;
                    if messages.is_empty() {
                        continue;
                    }
                    (MESSAGES, id, messages).into_pyobject(py)?.into_any()
                }
                Event::Writable { id } => (WRITABLE, id).into_pyobject(py)?.into_any(),
                Event::Closed { id, reason } => {
                    let CloseReason { kind, code, text } = reason;
                    self.codecs.special().remove(&id);
                    (CLOSED, id, kind, code, text).into_pyobject(py)?.into_any()
                }
                Event::StreamOpened { id, stream, tag } => {
                    (STREAM_OPENED, id, stream, PyBytes::new(py, &tag))
                        .into_pyobject(py)?
                        .into_any()
                }
                Event::StreamReadable { id, stream } => {
                    (STREAM_READABLE, id, stream).into_pyobject(py)?.into_any()
                }
                Event::StreamWritable { id, stream } => {
                    (STREAM_WRITABLE, id, stream).into_pyobject(py)?.into_any()
                }
                Event::StreamStopped { id, stream, code } => (STREAM_STOPPED, id, stream, code)
                    .into_pyobject(py)?
                    .into_any(),
                Event::StreamFinished { id, stream } => {
                    (STREAM_FINISHED, id, stream).into_pyobject(py)?.into_any()
                }
                Event::StreamsAvailable { id } => {
                    (STREAMS_AVAILABLE, id).into_pyobject(py)?.into_any()
                }
                Event::StreamRest { id, stream, rest } => {
                    let (data, end) = found(py, rest)?;
                    (STREAM_REST, id, stream, data, end)
                        .into_pyobject(py)?
                        .into_any()
                }
                Event::Moved { id } => (MOVED, id).into_pyobject(py)?.into_any(),
                Event::Detached { fd } => (DETACHED, fd).into_pyobject(py)?.into_any(),
            };
            list.append(tuple)?;
        }
        Ok(list)
    }

    fn decode<'py>(
        &self,
        py: Python<'py>,
        id: u64,
        batch: &[RawMessage],
    ) -> PyResult<Bound<'py, PyList>> {
        let codec = self.codecs.of(py, id);
        let (list, bad) = decode_batch(py, codec.get(), batch)?;
        if let Some(text) = bad {
            self.with_core(py, |core| {
                if let Some(connection) = core.connection(id) {
                    connection.fail(Instant::now(), &text);
                }
            })?;
        }
        Ok(list)
    }
}

fn read_options(given: Option<&Bound<'_, PyDict>>) -> PyResult<Options> {
    let mut options = Options::default();
    for (name, value) in given.into_iter().flatten() {
        let name: String = name.extract()?;
        let value: u64 = value.extract().map_err(|_| {
            PyTypeError::new_err(format!("option {name}: not a non-negative integer"))
        })?;
        if !options.set(&name, value) {
            return Err(PyValueError::new_err(format!(
                "there is no QUIC option {name}"
            )));
        }
    }
    Ok(options)
}
