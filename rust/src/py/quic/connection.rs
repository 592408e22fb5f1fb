//! `QuicConnection`: streams, `send`, and the state of one connection.

use super::stream::QuicStream;
use super::{duplicate, ip, pair, with_core, Codecs};
use crate::frame;
use crate::py::errors::{error, os_error};
use crate::py::message::{encode, Payload};
use crate::py::term::Codec;
use crate::quic::channel::{Channel, State};
use crate::quic::congestion::Observed;
use crate::quic::connection::Connection;
use crate::quic::core::MoveError;
use crate::quic::reason::CloseReason;
use crate::quic::watcher::Shared;
use crate::quic::Link;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use quinn_proto::Dir;
use std::net::SocketAddr;
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

    /// The descriptor of its socket when it was made; a move changes it.
    #[getter]
    fn fd(&self) -> i32 {
        self.link.fd
    }

    #[getter]
    fn is_dialer(&self) -> bool {
        self.link.is_dialer
    }

    /// Where the peer is, as far as is known; the last address of one that is gone.
    #[getter]
    fn peer_address(&self, py: Python<'_>) -> PyResult<(String, u16)> {
        Ok(pair(
            self.ask(py, |c| c.path.peer)?.unwrap_or(self.link.peer),
        ))
    }

    #[getter]
    fn local_address(&self, py: Python<'_>) -> PyResult<(String, u16)> {
        Ok(pair(
            self.ask(py, |c| c.path.local)?.unwrap_or(self.link.local),
        ))
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

    /// Opens a user stream; None if the peer allows no further one now (STREAMS_AVAILABLE follows).
    fn open_stream(&self, py: Python<'_>) -> PyResult<Option<QuicStream>> {
        let id = self.id();
        let opened = with_core(&self.shared, py, |core| {
            core.with_streams(id, |streams, quic, options| streams.open(quic, options))
        })?;
        match opened {
            Some(stream) => Ok(stream.map(|stream| self.make_stream(py, stream))),
            None => Err(error(py, "NotConnected", "the connection is closed")),
        }
    }

    /// The user stream of that number, which the peer opened.
    fn stream(&self, py: Python<'_>, stream: u64) -> QuicStream {
        self.make_stream(py, stream)
    }

    /// Moves to a new socket, or to the one with descriptor `fd`; returns its descriptor. MOVED follows once the peer
    /// has answered there. `to` is where packets go from now on, such as another relay.
    #[pyo3(signature = (to=None, fd=None))]
    fn migrate(&self, py: Python<'_>, to: Option<(String, u16)>, fd: Option<i32>) -> PyResult<i32> {
        let to = to
            .map(|(host, port)| Ok::<_, PyErr>(SocketAddr::new(ip(&host)?, port)))
            .transpose()?;
        let given = fd.map(duplicate).transpose()?;
        let id = self.id();
        let moved = with_core(&self.shared, py, |core| core.migrate(id, to, given))?;
        match moved {
            Ok(fd) => {
                self.ask_for_flush(py)?;
                Ok(fd)
            }
            Err(MoveError::NotConnected) => {
                Err(error(py, "NotConnected", "the connection is closed"))
            }
            Err(MoveError::NotDialer) => {
                Err(error(py, "NotDialer", "only the side that dialed can move"))
            }
            Err(MoveError::Forbidden) => Err(error(
                py,
                "MigrationDisabled",
                "the peer does not let connections move (disable_active_migration)",
            )),
            Err(MoveError::Moving) => Err(error(
                py,
                "MigrationError",
                "the connection is moving already",
            )),
            Err(MoveError::Socket(e)) => Err(os_error(e)),
        }
    }

    /// Back to the socket before; false if the new path was proven meanwhile.
    fn migrate_back(&self, py: Python<'_>) -> PyResult<bool> {
        let id = self.id();
        let back = with_core(&self.shared, py, |core| core.migrate_back(id))?;
        self.ask_for_flush(py)?;
        Ok(back)
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
        let (queued, burst) = channel.give_back(buffer, added);
        let first =
            !channel.dirty.swap(true, Ordering::AcqRel) && self.shared.mark_dirty(channel.id);
        if burst {
            self.wake.call1(py, (true,))?;
            return Ok(channel.queued());
        }
        if first {
            self.wake.call0(py)?;
        }
        Ok(queued)
    }

    /// Stops handing out messages; flow control then stalls the peer.
    fn pause(&self, py: Python<'_>) -> PyResult<()> {
        self.change(py, |connection| connection.paused = true)
    }

    fn resume(&self, py: Python<'_>) -> PyResult<()> {
        self.change(py, |connection| connection.paused = false)
    }

    /// Closes the connection; the close frame goes out with the next flush. CLOSED "local" follows.
    fn close(&self, py: Python<'_>, code: u64, reason: &str) -> PyResult<()> {
        self.change(py, |connection| {
            let closed = CloseReason {
                kind: "local",
                code,
                text: reason.to_owned(),
            };
            connection.close(Instant::now(), code, reason, closed);
        })
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
            core.connection(id).map(|c| {
                let seen = Observed::look(c.quic.congestion_state());
                let counters = (c.user.counters, c.user.open_streams(), c.path.moves);
                (c.quic.stats(), c.unwritten(), seen, counters)
            })
        })?;
        if let Some((stats, unwritten, seen, (refusals, streams, moves))) = stats {
            let latest = seen.latest_rtt.unwrap_or(stats.path.rtt);
            dict.set_item("latest_rtt_us", latest.as_micros() as u64)?;
            dict.set_item("min_rtt_us", stats.path.min_rtt.as_micros() as u64)?;
            dict.set_item("in_flight", seen.in_flight)?;
            dict.set_item("migrations", moves)?;
            dict.set_item("streams", streams)?;
            dict.set_item("streams_refused", refusals.refused)?;
            dict.set_item("preambles_crowded", refusals.crowded)?;
            dict.set_item("preambles_unfinished", refusals.unfinished)?;
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

    fn make_stream(&self, py: Python<'_>, stream: u64) -> QuicStream {
        QuicStream {
            shared: self.shared.clone(),
            wake: self.wake.clone_ref(py),
            connection: self.id(),
            id: stream,
        }
    }

    /// Asks the connection something, if it still exists.
    fn ask<T: Send>(
        &self,
        py: Python<'_>,
        question: impl FnOnce(&mut Connection) -> T + Send,
    ) -> PyResult<Option<T>> {
        let id = self.id();
        with_core(&self.shared, py, |core| core.connection(id).map(question))
    }

    /// Does something to the connection if it still exists, and sees to it that the result is sent.
    fn change(&self, py: Python<'_>, step: impl FnOnce(&mut Connection) + Send) -> PyResult<()> {
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
