//! `QuicConnection`: streams, `send`, and the state of one connection.

use super::{pair, with_core, Codecs};
use crate::frame;
use crate::py::errors::error;
use crate::py::message::{encode, Payload};
use crate::py::term::Codec;
use crate::quic::channel::{Channel, State};
use crate::quic::reason::CloseReason;
use crate::quic::watcher::Shared;
use crate::quic::Link;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use quinn_proto::Dir;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Instant;

/// One QUIC connection.
#[pyclass(frozen, module = "barrel_p2p._native")]
pub struct QuicConnection {
    pub shared: Arc<Shared>,
    pub codecs: Arc<Codecs>,
    pub wake: Py<PyAny>,
    pub link: Link,
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
        let result = encode(
            py,
            codec.get(),
            control,
            message,
            !fragments,
            None,
            &mut buffer,
        );
        let control_end = match result {
            Ok(at) => at,
            Err(e) => {
                buffer.truncate(start);
                channel.give_back(buffer, 0);
                return Err(e);
            }
        };
        if !frame::finish(&mut buffer, start) {
            buffer.truncate(start);
            channel.give_back(buffer, 0);
            return Err(error(py, "EncodeError", "the message is larger than 4 GiB"));
        }
        if fragments {
            frame::split(&mut buffer, start, control_end, channel.next_sequence());
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
