//! `QuicEndpoint` and `QuicConnection`: the QUIC carrier as net/quic.py sees it.
//!
//! Calls come from the event loop's thread. The core's mutex is taken with the GIL released if the watcher has it;
//! Python objects are made and read only while it is free, because that can run arbitrary code (finalizers).

use super::errors::error;
use super::term::Codec;
use crate::frame::{self, RawMessage};
use crate::quic::channel::{Channel, State};
use crate::quic::endpoint::{Core, Identity, SetupError};
use crate::quic::options::Options;
use crate::quic::watcher::{self, Shared};
use crate::quic::{CloseReason, Event, Link};
use pyo3::exceptions::{PyOSError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};
use quinn_proto::Dir;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

const ACCEPTED: u8 = 0;
const CONNECTED: u8 = 1;
const STREAM: u8 = 2;
const MESSAGES: u8 = 3;
const WRITABLE: u8 = 4;
const CLOSED: u8 = 5;
const DETACHED: u8 = 6;

/// What stands for the message of a control message that has none (None is a term of its own).
#[pyclass(frozen, module = "barrel_p2p._native")]
struct NoMessage;

#[pymethods]
impl NoMessage {
    fn __repr__(&self) -> &'static str {
        "NO_MESSAGE"
    }
}

static NO_MESSAGE: PyOnceLock<Py<NoMessage>> = PyOnceLock::new();

fn no_message(py: Python<'_>) -> PyResult<&'static Py<NoMessage>> {
    NO_MESSAGE.get_or_try_init(py, || Py::new(py, NoMessage))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add_class::<NoMessage>()?;
    module.add_class::<QuicEndpoint>()?;
    module.add_class::<QuicConnection>()?;
    module.add("NO_MESSAGE", no_message(py)?)?;
    module.add("QUIC_OPTIONS", PyTuple::new(py, Options::NAMES)?)?;
    for (name, value) in [
        ("ACCEPTED", ACCEPTED),
        ("CONNECTED", CONNECTED),
        ("STREAM", STREAM),
        ("MESSAGES", MESSAGES),
        ("WRITABLE", WRITABLE),
        ("CLOSED", CLOSED),
        ("DETACHED", DETACHED),
    ] {
        module.add(name, value)?;
    }
    Ok(())
}

/// The codec of the endpoint, and of those connections whose peers want another one.
struct Codecs {
    usual: Py<Codec>,
    special: Mutex<HashMap<u64, Py<Codec>>>,
}

impl Codecs {
    fn of(&self, py: Python<'_>, id: u64) -> Py<Codec> {
        self.special().get(&id).unwrap_or(&self.usual).clone_ref(py)
    }

    /// Locked for the moment of a look-up, never while Python code may run.
    fn special(&self) -> MutexGuard<'_, HashMap<u64, Py<Codec>>> {
        self.special.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// All QUIC sockets and connections of one transport.
#[pyclass(frozen, module = "barrel_p2p._native")]
struct QuicEndpoint {
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
            SetupError::Bind(e) => PyOSError::new_err((e.raw_os_error(), e.to_string())),
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

    fn connect(
        slf: &Bound<'_, Self>,
        host: &str,
        port: u16,
        server_name: &str,
    ) -> PyResult<QuicConnection> {
        let this = slf.get();
        let peer = SocketAddr::new(ip(host)?, port);
        let link = this.with_core(slf.py(), |core| {
            core.connect(peer, server_name, Instant::now())
        })?;
        Ok(this.connection(slf.py(), link?))
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
        self.shared.answer();
        let events = self.with_core(py, |core| {
            let mut events = Vec::new();
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
        let list = PyList::empty(py);
        for raw in batch {
            match decode_message(py, codec.get(), raw) {
                Ok(message) => list.append(message)?,
                Err(e) if e.is_instance_of::<PyValueError>(py) => {
                    let text = format!("message that can't be decoded: {}", e.value(py));
                    self.with_core(py, |core| {
                        if let Some(connection) = core.connection(id) {
                            connection.fail(Instant::now(), &text);
                        }
                        core.mark(id);
                    })?;
                    break;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(list)
    }
}

fn decode_message<'py>(
    py: Python<'py>,
    codec: &Codec,
    raw: &RawMessage,
) -> PyResult<Bound<'py, PyTuple>> {
    let body = &raw.body;
    let (control, at) = codec.decode_term(py, body, version_byte(py, raw, 0)?)?;
    let message = if at < body.len() {
        let (message, end) = codec.decode_term(py, body, version_byte(py, raw, at)?)?;
        if end != body.len() {
            let rest = body.len() - end;
            return Err(error(
                py,
                "DecodeError",
                format!("{rest} bytes after the message"),
            ));
        }
        message
    } else {
        no_message(py)?.bind(py).clone().into_any()
    };
    PyTuple::new(py, [control, message])
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

/// The message argument of `send`: None is a term, so that its absence needs a value of its own.
enum Payload<'a, 'py> {
    Missing,
    Term(Borrowed<'a, 'py, PyAny>),
}

impl<'a, 'py> FromPyObject<'a, 'py> for Payload<'a, 'py> {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        Ok(Self::Term(object))
    }
}

/// One QUIC connection.
#[pyclass(frozen, module = "barrel_p2p._native")]
struct QuicConnection {
    shared: Arc<Shared>,
    codecs: Arc<Codecs>,
    wake: Py<PyAny>,
    link: Link,
}

#[pymethods]
impl QuicConnection {
    #[getter]
    fn id(&self) -> u64 {
        self.channel().id
    }

    #[getter]
    fn fd(&self) -> i32 {
        self.link.fd
    }

    #[getter]
    fn is_dialer(&self) -> bool {
        self.link.is_dialer
    }

    #[getter]
    fn peer_address(&self) -> (String, u16) {
        pair(self.link.peer)
    }

    #[getter]
    fn local_address(&self) -> (String, u16) {
        pair(self.link.local)
    }

    /// Bytes of messages that QUIC has not taken yet.
    #[getter]
    fn queued(&self) -> usize {
        self.channel().queued()
    }

    fn open_uni(&self, py: Python<'_>) -> PyResult<u64> {
        self.open(py, Dir::Uni)
    }

    fn open_bi(&self, py: Python<'_>) -> PyResult<u64> {
        self.open(py, Dir::Bi)
    }

    /// Queues bytes on a stream that is not one of distribution data, and with `fin` its end.
    #[pyo3(signature = (stream, data, fin=false))]
    fn write(&self, py: Python<'_>, stream: u64, data: &[u8], fin: bool) -> PyResult<()> {
        self.change(py, |connection| connection.write(stream, data, fin))
    }

    fn reset(&self, py: Python<'_>, stream: u64, code: u64) -> PyResult<()> {
        self.change(py, |connection| connection.reset(stream, code))
    }

    /// After the distribution handshake: deframe and decode data streams from now on, and let `send` work.
    #[pyo3(signature = (codec=None, *, fragments, max_frame))]
    fn start_dist(
        &self,
        py: Python<'_>,
        codec: Option<Py<Codec>>,
        fragments: bool,
        max_frame: usize,
    ) -> PyResult<()> {
        let id = self.id();
        let result = with_core(&self.shared, py, |core| {
            core.start_dist(id, fragments, max_frame)
        })?;
        result.map_err(|text| error(py, "NotConnected", text))?;
        if let Some(codec) = codec {
            self.codecs.special().insert(id, codec);
        }
        self.ask_for_flush(py)
    }

    /// Encodes one message into the send queue; returns the queue's depth in bytes. On a closed connection it does
    /// nothing and returns 0, as a send to a dead node does nothing.
    #[pyo3(signature = (control, message=Payload::Missing))]
    fn send(&self, control: &Bound<'_, PyAny>, message: Payload<'_, '_>) -> PyResult<usize> {
        let py = control.py();
        let channel = self.channel();
        let fragments = match channel.state() {
            State::Open { fragments } => fragments,
            State::Closed => return Ok(0),
            State::Opening => {
                return Err(error(py, "NotConnected", "send before start_dist"));
            }
        };
        let mut buffer = channel.borrow();
        let start = frame::begin(&mut buffer, fragments);
        let codec = self.codecs.of(py, channel.id);
        let result = encode(py, codec.get(), control, message, fragments, &mut buffer);
        if let Err(e) = result {
            buffer.truncate(start);
            channel.give_back(buffer, 0);
            return Err(e);
        }
        if !frame::finish(&mut buffer, start) {
            buffer.truncate(start);
            channel.give_back(buffer, 0);
            return Err(error(py, "EncodeError", "the message is larger than 4 GiB"));
        }
        let added = buffer.len() - start;
        let queued = channel.give_back(buffer, added);
        if !channel.dirty.swap(true, Ordering::AcqRel) && self.shared.mark_dirty(channel.id) {
            self.wake.call0(py)?;
        }
        Ok(queued)
    }

    /// Stops handing out messages; flow control then stalls the peer.
    fn pause(&self, py: Python<'_>) -> PyResult<()> {
        self.change(py, |connection| connection.paused = true)
    }

    fn resume(&self, py: Python<'_>) -> PyResult<()> {
        let id = self.id();
        with_core(&self.shared, py, |core| {
            if let Some(connection) = core.connection(id) {
                connection.paused = false;
            }
            core.mark(id);
        })?;
        self.ask_for_flush(py)
    }

    /// Closes the connection; the close frame goes out with the next flush. CLOSED "local" follows.
    fn close(&self, py: Python<'_>, code: u64, reason: &str) -> PyResult<()> {
        let id = self.id();
        with_core(&self.shared, py, |core| {
            if let Some(connection) = core.connection(id) {
                let closed = CloseReason {
                    kind: "local",
                    code,
                    text: reason.to_owned(),
                };
                connection.close(Instant::now(), code, reason, closed);
            }
            core.mark(id);
        })?;
        self.ask_for_flush(py)
    }

    /// Asks the peer for a sign of life; returns `frames_received` of now.
    fn ping(&self, py: Python<'_>) -> PyResult<u64> {
        self.change(py, |connection| {
            connection.quic.ping();
            connection.unflushed = true;
        })?;
        self.frames_received(py)
    }

    /// Counts everything valid that came from the peer.
    #[getter]
    fn frames_received(&self, py: Python<'_>) -> PyResult<u64> {
        let id = self.id();
        let frames = with_core(&self.shared, py, |core| {
            core.connection(id).map(|c| c.frames_received())
        })?;
        Ok(frames.unwrap_or(0))
    }

    /// Counters of this connection, empty once it is gone.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        let id = self.id();
        let stats = with_core(&self.shared, py, |core| {
            core.connection(id).map(|c| (c.quic.stats(), c.unwritten()))
        })?;
        if let Some((stats, unwritten)) = stats {
            dict.set_item("rtt_us", stats.path.rtt.as_micros() as u64)?;
            dict.set_item("cwnd", stats.path.cwnd)?;
            dict.set_item("mtu", stats.path.current_mtu)?;
            dict.set_item("packets_sent", stats.path.sent_packets)?;
            dict.set_item("packets_lost", stats.path.lost_packets)?;
            dict.set_item("congestion_events", stats.path.congestion_events)?;
            dict.set_item("datagrams_sent", stats.udp_tx.datagrams)?;
            dict.set_item("datagrams_received", stats.udp_rx.datagrams)?;
            dict.set_item("bytes_sent", stats.udp_tx.bytes)?;
            dict.set_item("bytes_received", stats.udp_rx.bytes)?;
            dict.set_item("queued", self.queued() + unwritten)?;
        }
        Ok(dict)
    }
}

impl QuicConnection {
    fn channel(&self) -> &Channel {
        &self.link.channel
    }

    fn open(&self, py: Python<'_>, dir: Dir) -> PyResult<u64> {
        let id = self.id();
        let stream = with_core(&self.shared, py, |core| {
            core.connection(id).and_then(|c| c.open(dir))
        })?;
        stream.ok_or_else(|| {
            let text = "the connection is closed, or the peer allows no further stream";
            error(py, "NotConnected", text)
        })
    }

    /// Does something to the connection if it still exists, and sees to it that the result is sent.
    fn change(
        &self,
        py: Python<'_>,
        step: impl FnOnce(&mut crate::quic::connection::Connection) + Send,
    ) -> PyResult<()> {
        let id = self.id();
        with_core(&self.shared, py, |core| core.connection(id).map(step))?;
        self.ask_for_flush(py)
    }

    fn ask_for_flush(&self, py: Python<'_>) -> PyResult<()> {
        if self.shared.want_flush() {
            self.wake.call0(py)?;
        }
        Ok(())
    }
}

fn encode(
    py: Python<'_>,
    codec: &Codec,
    control: &Bound<'_, PyAny>,
    message: Payload<'_, '_>,
    fragments: bool,
    out: &mut Vec<u8>,
) -> PyResult<()> {
    codec.encode_term(py, control, out)?;
    if let Payload::Term(message) = message {
        if !message.is(no_message(py)?) {
            frame::between(out, fragments);
            codec.encode_term(py, &message, out)?;
        }
    }
    Ok(())
}

/// Runs `step` on the core; while the watcher has it, this thread waits without the GIL.
fn with_core<T: Send>(
    shared: &Shared,
    py: Python<'_>,
    step: impl FnOnce(&mut Core) -> T + Send,
) -> PyResult<T> {
    let outcome = catch_unwind(AssertUnwindSafe(|| match shared.try_core() {
        Ok(Some(mut core)) => Ok(step(&mut core)),
        Ok(None) => py.detach(|| shared.core().map(|mut core| step(&mut core))),
        Err(poisoned) => Err(poisoned),
    }));
    match outcome {
        Ok(Ok(value)) => Ok(value),
        _ => Err(error(
            py,
            "InternalError",
            "the QUIC core panicked; the transport can't go on",
        )),
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

fn ip(host: &str) -> PyResult<IpAddr> {
    host.parse()
        .map_err(|_| PyValueError::new_err(format!("{host:?} is no IP address")))
}

fn pair(address: SocketAddr) -> (String, u16) {
    (address.ip().to_string(), address.port())
}
