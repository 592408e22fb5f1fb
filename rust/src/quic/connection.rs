//! One QUIC connection: quinn-proto's state machine, and what the distribution makes of its streams.
//!
//! Streams are told apart by their number alone, as Erlang does: below 68 (dialer's, even) or 65 (acceptor's, odd)
//! everything but stream 0 carries distribution data, above it are user streams (streams.rs). Until `start_dist` only the
//! authentication streams (the first unidirectional one of each side) and stream 0 are read; the rest waits in
//! quinn's buffers, bounded by the small window of an unauthenticated connection.

use super::channel::Channel;
use super::core::Scheduled;
use super::meter::Meter;
use super::options::{varint, Options};
use super::reason::{close_reason, CloseReason};
use super::streams::{UserStreams, QUANTUM};
use super::Event;
use crate::frame::{Deframer, Limits, RawMessage};
use bytes::{Buf, Bytes};
use quinn_proto::{ConnectionError, Dir, ReadError, Side, StreamEvent, StreamId, VarInt};
use rustls::pki_types::CertificateDer;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Streams of each side that carry distribution data (QUIC_DIST_DATA_STREAMS in Erlang's quic_dist).
const DATA_STREAMS: u64 = 16;
/// Bytes read from a stream at a time, so that a batch ends near its bound.
const READ_SIZE: usize = 32 << 10;
/// Below this a frame is copied into quinn, and the buffer reused; above, the buffer itself is handed over.
const COPY_BELOW: usize = 4 << 10;

pub struct Connection {
    pub channel: Arc<Channel>,
    /// The key of its socket and quinn endpoint.
    pub fd: i32,
    pub handle: quinn_proto::ConnectionHandle,
    pub quic: quinn_proto::Connection,
    pub is_dialer: bool,
    pub local: bool,
    pub phase: Phase,
    pub paused: bool,
    /// Something may have to be sent.
    pub unflushed: bool,
    pub scheduled: Scheduled,
    pub drained: bool,
    /// It may go once what is queued was sent, without the time that QUIC would have it linger: see `give_up`.
    pub given_up: bool,
    /// A step of it panicked; quinn's state must not be touched again.
    pub broken: bool,
    /// When the TLS handshake must be done; the dialer has a timeout of its own.
    pub handshake_deadline: Option<Instant>,
    /// When quinn wants to be called.
    pub timer: Option<Instant>,
    pub suspicion: Option<Suspicion>,
    events: VecDeque<Event>,
    lost: Option<CloseReason>,
    /// Streams with something to read.
    readable: VecDeque<u64>,
    /// Streams that wait for `start_dist`.
    deferred: Vec<u64>,
    deframer: Option<Deframer>,
    unauthenticated_bytes: u64,
    dist_stream: Option<u64>,
    /// Frames that there was no room for.
    dist_rest: Bytes,
    dist_blocked: bool,
    /// What QUIC holds of our messages.
    dist_held: Meter,
    outgoing: BTreeMap<u64, Outgoing>,
    pub user: UserStreams,
    /// Where it is, and how often it moved.
    pub path: Path,
}

/// The addresses of a connection, and what became of the last move.
pub struct Path {
    pub local: SocketAddr,
    pub peer: SocketAddr,
    /// How often either end changed its address, in an active migration or behind a NAT.
    pub moves: u64,
    /// We moved, and nothing valid came to the new socket yet.
    pub unproven: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Handshaking,
    Unauthenticated,
    Distribution,
    Closed,
}

/// The kernel called the peer's port unreachable; see `Connection::suspect`.
pub struct Suspicion {
    since: Instant,
    reports: u32,
    frames_then: u64,
    pub next_probe: Instant,
}

/// How much one collection may still take.
pub struct Budget {
    pub messages: usize,
    pub bytes: usize,
}

#[derive(Default)]
struct Outgoing {
    chunks: VecDeque<Bytes>,
    fin: bool,
}

impl Connection {
    pub fn new(
        channel: Arc<Channel>,
        fd: i32,
        handle: quinn_proto::ConnectionHandle,
        quic: quinn_proto::Connection,
        local: bool,
        address: SocketAddr,
    ) -> Self {
        let is_dialer = quic.side().is_client();
        Self {
            user: UserStreams::new(channel.id, is_dialer),
            path: Path {
                local: address,
                peer: quic.remote_address(),
                moves: 0,
                unproven: false,
            },
            channel,
            fd,
            handle,
            is_dialer,
            quic,
            local,
            phase: Phase::Handshaking,
            paused: false,
            unflushed: true,
            scheduled: Scheduled::default(),
            drained: false,
            given_up: false,
            broken: false,
            handshake_deadline: None,
            timer: None,
            suspicion: None,
            events: VecDeque::new(),
            lost: None,
            readable: VecDeque::new(),
            deferred: Vec::new(),
            deframer: None,
            unauthenticated_bytes: 0,
            dist_stream: None,
            dist_rest: Bytes::new(),
            dist_blocked: false,
            dist_held: Meter::default(),
            outgoing: BTreeMap::new(),
        }
    }

    pub fn id(&self) -> u64 {
        self.channel.id
    }

    pub fn push(&mut self, event: Event) {
        self.events.push_back(event);
    }

    // --- what the application asks for -----------------------------------------------------------------------------

    pub fn open(&mut self, dir: Dir) -> Option<u64> {
        self.quic.streams().open(dir).map(u64::from)
    }

    /// Queues bytes (and the end) on a stream of ours that is not a data stream.
    pub fn write(&mut self, stream: u64, data: &[u8], fin: bool) {
        let out = self.outgoing.entry(stream).or_default();
        if !data.is_empty() {
            out.chunks.push_back(Bytes::copy_from_slice(data));
        }
        out.fin |= fin;
        self.unflushed = true;
    }

    /// Bytes that `write` queued and QUIC has not taken.
    pub fn unwritten(&self) -> usize {
        let chunks = self.outgoing.values().flat_map(|out| &out.chunks);
        chunks.map(Bytes::len).sum::<usize>() + self.user.queued()
    }

    pub fn reset(&mut self, stream: u64, code: u64) {
        self.outgoing.remove(&stream);
        if let Some(id) = self.sendable(stream) {
            // Fails only for a stream that has ended already.
            let _ = self.quic.send_stream(id).reset(varint(code));
        }
        self.unflushed = true;
    }

    /// From now on data streams are deframed, and `Channel` takes messages.
    pub fn start_dist(
        &mut self,
        now: Instant,
        limits: Limits,
        options: &Options,
    ) -> Result<(), String> {
        if self.phase != Phase::Unauthenticated {
            return Err(format!(
                "start_dist on a connection that is {:?}",
                self.phase
            ));
        }
        // Stream 0 belongs to the handshake; our own data streams are reserved whole, so that user streams start
        // above them. Reserving sends nothing.
        let first = if self.is_dialer { 4 } else { 1 };
        let reserve = DATA_STREAMS + u64::from(self.is_dialer);
        let mut opened = None;
        while let Some(id) = self.open(Dir::Bi) {
            opened = Some(id);
            if id >= (reserve - 1) * 4 {
                break;
            }
        }
        if opened.is_none_or(|id| id < first) {
            return Err("the peer lets us open no data stream".into());
        }
        self.dist_stream = Some(first);
        self.deframer = Some(Deframer::new(limits));
        self.phase = Phase::Distribution;
        self.quic.set_receive_window(varint(options.receive_window));
        self.channel.open(limits.fragments);
        for stream in std::mem::take(&mut self.deferred) {
            self.stream_has_data(stream, now, options);
        }
        self.unflushed = true;
        Ok(())
    }

    /// Closes the connection; `reason` is what `Closed` will say.
    pub fn close(&mut self, now: Instant, code: u64, text: &str, reason: CloseReason) {
        if self.phase == Phase::Closed {
            return;
        }
        // A close frame has to fit into one packet with room to spare.
        let cut = (0..=text.len().min(512))
            .rev()
            .find(|n| text.is_char_boundary(*n));
        let text = Bytes::copy_from_slice(&text.as_bytes()[..cut.unwrap_or(0)]);
        self.quic.close(now, varint(code), text);
        self.readable.clear();
        self.end(reason);
    }

    /// The peer broke a rule: its connection ends here.
    pub fn fail(&mut self, now: Instant, text: &str) {
        self.close(now, 0, text, CloseReason::new("protocol", text));
    }

    /// A stranger's connection that ended leaves nothing behind: else who begins and ends one after the other could
    /// make us keep hundreds, for three seconds each. A packet that comes late gets a stateless reset.
    pub fn give_up(&mut self) {
        self.given_up = true;
    }

    /// When something has to be done with it, whether or not anything comes.
    pub fn next_due(&self) -> Option<Instant> {
        if self.broken {
            return None;
        }
        let probe = self.suspicion.as_ref().map(|s| s.next_probe);
        let mine = [self.timer, probe, self.handshake_deadline];
        mine.into_iter()
            .chain([self.user.next_deadline()])
            .flatten()
            .min()
    }

    /// Whether nothing of it is needed any more.
    pub fn is_over(&self) -> bool {
        !self.has_news() && (self.drained || (self.given_up && !self.unflushed))
    }

    /// After a panic: reports the end; quinn's half is left alone until its endpoint goes.
    pub fn break_down(&mut self) {
        self.broken = true;
        self.timer = None;
        self.readable.clear();
        self.end(CloseReason::new(
            "transport",
            "internal error: a step of this connection panicked, please report it",
        ));
        self.drained = true;
    }

    /// What `collect` does for a broken connection.
    pub fn report_breakdown(&mut self, out: &mut Vec<Event>) {
        out.extend(self.events.drain(..));
        if let Some(reason) = self.lost.take() {
            out.push(Event::Closed {
                id: self.id(),
                reason,
            });
        }
    }

    // --- what happened ---------------------------------------------------------------------------------------------

    /// Takes quinn's events; afterwards `has_news` says whether `collect` has something.
    pub fn poll(&mut self, now: Instant, options: &Options) {
        while let Some(event) = self.quic.poll() {
            match event {
                quinn_proto::Event::Connected => self.connected(),
                quinn_proto::Event::ConnectionLost { reason } => {
                    let stranger =
                        matches!(self.phase, Phase::Handshaking | Phase::Unauthenticated);
                    if stranger && !self.is_dialer && is_by_peer(&reason) {
                        self.give_up();
                    }
                    self.end(close_reason(reason));
                }
                quinn_proto::Event::Stream(event) => self.stream_event(event, now, options),
                _ => {}
            }
        }
    }

    fn connected(&mut self) {
        self.phase = Phase::Unauthenticated;
        self.handshake_deadline = None;
        self.unflushed = true;
        let certificate = self.quic.crypto_session().peer_identity();
        let certificate = certificate
            .and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok())
            .and_then(|chain| chain.first().map(|leaf| leaf.to_vec()));
        self.events.push_back(Event::Connected {
            id: self.id(),
            certificate,
        });
    }

    fn stream_event(&mut self, event: StreamEvent, now: Instant, options: &Options) {
        match event {
            StreamEvent::Opened { dir } => {
                while let Some(id) = self.quic.streams().accept(dir) {
                    self.stream_has_data(id.into(), now, options);
                }
            }
            StreamEvent::Readable { id } => self.stream_has_data(id.into(), now, options),
            StreamEvent::Writable { id } => {
                if Some(u64::from(id)) == self.dist_stream {
                    self.dist_blocked = false;
                } else {
                    self.user.writable(id.into());
                }
                self.unflushed = true;
            }
            StreamEvent::Stopped { id, .. } if Some(u64::from(id)) == self.dist_stream => {
                self.lost.get_or_insert_with(|| {
                    CloseReason::new("protocol", "the peer stopped the stream of our messages")
                });
            }
            StreamEvent::Stopped { id, error_code } => {
                self.outgoing.remove(&id.into());
                let events = &mut self.events;
                self.user
                    .stopped(&mut self.quic, id.into(), error_code.into(), events);
                self.unflushed = true;
            }
            StreamEvent::Finished { id } => {
                self.outgoing.remove(&id.into());
                self.user.finished(id.into(), &mut self.events);
            }
            StreamEvent::Available { dir: Dir::Bi } => {
                self.events
                    .push_back(Event::StreamsAvailable { id: self.id() });
            }
            StreamEvent::Available { .. } => {}
        }
    }

    fn stream_has_data(&mut self, stream: u64, now: Instant, options: &Options) {
        let early = stream == 0 || is_auth(stream);
        match self.phase {
            Phase::Closed => {}
            Phase::Distribution if is_user(stream) => {
                self.user
                    .arrived(&mut self.quic, stream, now, options, &mut self.events);
                self.unflushed = true;
            }
            Phase::Distribution => self.mark_readable(stream),
            _ if early => self.mark_readable(stream),
            _ if self.deferred.contains(&stream) => {}
            _ => self.deferred.push(stream),
        }
    }

    fn mark_readable(&mut self, stream: u64) {
        if !self.readable.contains(&stream) {
            self.readable.push_back(stream);
        }
    }

    fn end(&mut self, reason: CloseReason) {
        self.phase = Phase::Closed;
        self.handshake_deadline = None;
        self.channel.close();
        self.outgoing.clear();
        self.dist_rest = Bytes::new();
        self.suspicion = None;
        self.unflushed = true;
        self.lost.get_or_insert(reason);
    }

    // --- liveness on the same host ---------------------------------------------------------------------------------

    /// Notes that the kernel called this peer unreachable.
    ///
    /// One report is only a suspicion: the peer may have moved to another socket, or a packet crossed its restart.
    /// It is dead when the reports go on for `unreachable_ms` and nothing valid arrives.
    pub fn suspect(&mut self, now: Instant) {
        let frames_then = self.frames_received();
        match &mut self.suspicion {
            Some(suspicion) => suspicion.reports += 1,
            None => {
                self.suspicion = Some(Suspicion {
                    since: now,
                    reports: 1,
                    frames_then,
                    next_probe: now + PROBE_INTERVAL,
                });
            }
        }
    }

    /// Clears, probes or confirms a suspicion.
    pub fn check_suspicion(&mut self, now: Instant, unreachable: Duration) {
        let frames = self.frames_received();
        let handshaking = self.phase == Phase::Handshaking;
        let Some(suspicion) = &mut self.suspicion else {
            return;
        };
        if frames != suspicion.frames_then {
            self.suspicion = None;
        } else if handshaking || (suspicion.reports >= 3 && now >= suspicion.since + unreachable) {
            let text = if handshaking {
                "nobody listens on that port (the host says: port unreachable)"
            } else {
                "the host says that the peer's port is closed; its process has ended"
            };
            self.close(now, 0, "", CloseReason::new("unreachable", text));
        } else if now >= suspicion.next_probe {
            suspicion.next_probe = now + PROBE_INTERVAL;
            self.quic.ping();
            self.unflushed = true;
        }
    }

    /// Whether the peer said in its transport parameters that nobody may move.
    pub fn forbids_migration(&self) -> bool {
        const DISABLE_ACTIVE_MIGRATION: u64 = 0x0c;
        let parameters = self.quic.crypto_session().transport_parameters();
        let Ok(Some(parameters)) = parameters else {
            return false;
        };
        // quinn keeps the field to itself, but writes it as it read it.
        let mut encoded = Vec::new();
        parameters.write(&mut encoded);
        let mut rest = &encoded[..];
        while let (Some(id), Some(length)) = (take_varint(&mut rest), take_varint(&mut rest)) {
            if id == DISABLE_ACTIVE_MIGRATION {
                return true;
            }
            let Some(after) = rest.get(length as usize..) else {
                break;
            };
            rest = after;
        }
        false
    }

    pub fn frames_received(&self) -> u64 {
        let frames = self.quic.stats().frame_rx;
        frames.acks + frames.ping + frames.stream + frames.crypto + frames.max_data
    }

    // --- reading ---------------------------------------------------------------------------------------------------

    pub fn has_news(&self) -> bool {
        let readable = !self.readable.is_empty() && (!self.paused || self.lost.is_some());
        !self.events.is_empty() || self.lost.is_some() || readable
    }

    /// Moves what happened into `out`, within the budget; what is left stays for the next call.
    pub fn collect(
        &mut self,
        now: Instant,
        options: &Options,
        budget: &mut Budget,
        out: &mut Vec<Event>,
    ) {
        out.extend(self.events.drain(..));
        // What arrived before the end is still delivered, even to a paused receiver: nobody will resume it.
        if !self.paused || self.lost.is_some() {
            self.read_streams(now, options, budget, out);
            out.extend(self.events.drain(..));
        }
        if self.readable.is_empty() {
            if let Some(reason) = self.lost.take() {
                if !self.quic.is_closed() {
                    self.close(now, 0, &reason.text.clone(), reason.clone());
                    self.lost = None;
                }
                self.user.close(&mut self.quic, out);
                out.push(Event::Closed {
                    id: self.id(),
                    reason,
                });
            }
        }
    }

    /// Refuses user streams whose tag is late.
    pub fn expire_preambles(&mut self, now: Instant) {
        self.unflushed |= self.user.expire(&mut self.quic, now);
    }

    /// Notes that a datagram came to the socket of this connection (`current`) or to one that it left.
    ///
    /// True if that proves the path of the last move.
    pub fn note_path(&mut self, current: bool, frames_before: Option<u64>) -> bool {
        let peer = self.quic.remote_address();
        if peer != self.path.peer {
            self.path.peer = peer;
            self.path.moves += 1;
        }
        // What is valid and came to the new socket was sent to its address: the peer has learnt it, and both ways work.
        let proven = self.path.unproven
            && current
            && frames_before.is_some_and(|before| before != self.frames_received());
        if proven {
            self.path.unproven = false;
            self.path.moves += 1;
            self.events.push_back(Event::Moved { id: self.id() });
        }
        proven
    }

    fn read_streams(
        &mut self,
        now: Instant,
        options: &Options,
        budget: &mut Budget,
        out: &mut Vec<Event>,
    ) {
        let mut batch = Vec::new();
        while budget.messages > 0 && budget.bytes > 0 {
            let Some(stream) = self.readable.pop_front() else {
                break;
            };
            let result = if self.deframer.is_none() {
                self.read_handshake(stream, options)
            } else if stream == 0 || is_auth(stream) {
                self.read_ticks(stream);
                Ok(())
            } else {
                self.read_messages(stream, budget, &mut batch)
            };
            if let Err(text) = result {
                self.fail(now, &text);
            }
        }
        if !batch.is_empty() {
            out.push(Event::Messages {
                id: self.id(),
                batch,
            });
        }
    }

    /// Before the distribution starts: hands out the bytes, up to the budget of an unauthenticated peer.
    fn read_handshake(&mut self, stream: u64, options: &Options) -> Result<(), String> {
        let id = self.id();
        let (mut data, mut fin) = (Vec::new(), false);
        if let Ok(mut chunks) = self.quic.recv_stream(stream_id(stream)).read(true) {
            loop {
                let allowed = options
                    .unauthenticated_bytes
                    .saturating_sub(self.unauthenticated_bytes);
                match chunks.next(allowed as usize + 1) {
                    Ok(Some(chunk)) => {
                        self.unauthenticated_bytes += chunk.bytes.len() as u64;
                        if self.unauthenticated_bytes > options.unauthenticated_bytes {
                            return Err(format!(
                                "more than {} bytes before the distribution started",
                                options.unauthenticated_bytes
                            ));
                        }
                        data.extend_from_slice(&chunk.bytes);
                    }
                    Ok(None) | Err(ReadError::Reset(_)) => {
                        fin = true;
                        break;
                    }
                    Err(ReadError::Blocked) => break,
                }
            }
            self.unflushed |= chunks.finalize().should_transmit();
        }
        if fin || !data.is_empty() {
            self.events.push_back(Event::Stream {
                id,
                stream,
                data,
                fin,
            });
        }
        Ok(())
    }

    /// Stream 0 and the authentication streams carry nothing but ticks now; Erlang drops other bytes, and so do we.
    fn read_ticks(&mut self, stream: u64) {
        if let Ok(mut chunks) = self.quic.recv_stream(stream_id(stream)).read(true) {
            while let Ok(Some(_)) = chunks.next(usize::MAX) {}
            self.unflushed |= chunks.finalize().should_transmit();
        }
    }

    fn read_messages(
        &mut self,
        stream: u64,
        budget: &mut Budget,
        batch: &mut Vec<RawMessage>,
    ) -> Result<(), String> {
        let Some(deframer) = &mut self.deframer else {
            return Ok(());
        };
        let mut receive = self.quic.recv_stream(stream_id(stream));
        let Ok(mut chunks) = receive.read(true) else {
            return Ok(());
        };
        let mut more = true;
        while budget.messages > 0 && budget.bytes > 0 {
            match chunks.next(READ_SIZE.max(deframer.missing(stream))) {
                Ok(Some(chunk)) => {
                    let (count, bytes) = (batch.len(), chunk.bytes.len());
                    deframer.feed(stream, chunk.bytes, batch).map_err(|e| e.0)?;
                    budget.messages = budget.messages.saturating_sub(batch.len() - count);
                    budget.bytes = budget.bytes.saturating_sub(bytes);
                }
                // The end of a data stream means nothing, as in Erlang; the other side has more of them.
                Ok(None) | Err(ReadError::Blocked | ReadError::Reset(_)) => {
                    more = false;
                    break;
                }
            }
        }
        self.unflushed |= chunks.finalize().should_transmit();
        if more {
            self.mark_readable(stream);
        }
        Ok(())
    }

    // --- writing ---------------------------------------------------------------------------------------------------

    /// Gives QUIC what it takes of everything queued. `Writable` may follow from it.
    pub fn write_streams(&mut self, options: &Options) {
        self.channel
            .dirty
            .store(false, std::sync::atomic::Ordering::Release);
        if self.phase == Phase::Closed {
            return;
        }
        self.write_handshake();
        if self.write_messages(options) {
            self.events.push_back(Event::Writable { id: self.id() });
        }
        self.user
            .pump(&mut self.quic, self.local, options, &mut self.events);
    }

    fn write_handshake(&mut self) {
        if self.phase == Phase::Handshaking {
            return;
        }
        let mut done = Vec::new();
        for (stream, out) in &mut self.outgoing {
            let mut send = self.quic.send_stream(stream_id(*stream));
            while let Some(chunk) = out.chunks.front_mut() {
                match send.write(chunk) {
                    Ok(n) if n == chunk.len() => drop(out.chunks.pop_front()),
                    Ok(n) => drop(chunk.split_to(n)),
                    Err(_) => break,
                }
            }
            if out.chunks.is_empty() {
                if out.fin {
                    // Fails only if the stream was stopped or reset.
                    let _ = send.finish();
                }
                done.push(*stream);
            }
        }
        for stream in done {
            self.outgoing.remove(&stream);
        }
    }

    /// Moves encoded messages into QUIC; true if the queue fell below the low-water mark.
    fn write_messages(&mut self, options: &Options) -> bool {
        let Some(stream) = self.dist_stream else {
            return false;
        };
        let mut writable = false;
        // While QUIC has no room, messages gather in the channel's one buffer. A blocked stream is not tried again:
        // quinn would announce it with a frame that Erlang's stack takes badly on a young stream.
        while !self.dist_blocked {
            let held = self.dist_held.level();
            let room = (options.send_window as usize).saturating_sub(held);
            if room == 0 || !self.has_frames() {
                break; // what is acknowledged makes room
            }
            let piece = self.dist_rest.len().min(room).min(QUANTUM);
            let mut chunk = self.dist_held.count(self.dist_rest.slice(..piece), None);
            let mut send = self.quic.send_stream(stream_id(stream));
            match send.write_chunks(std::slice::from_mut(&mut chunk)) {
                Ok(written) => {
                    self.dist_rest.advance(written.bytes);
                    writable |= self.channel.written(written.bytes);
                }
                Err(quinn_proto::WriteError::Blocked) => self.dist_blocked = true,
                Err(_) => {
                    self.lost.get_or_insert_with(|| {
                        CloseReason::new("protocol", "the stream of our messages is closed")
                    });
                    break;
                }
            }
        }
        writable
    }

    /// Whether there are frames for QUIC, in `dist_rest` then.
    fn has_frames(&mut self) -> bool {
        if self.dist_rest.is_empty() {
            let staged = self.channel.take();
            if staged.len() < COPY_BELOW {
                self.dist_rest = Bytes::copy_from_slice(&staged);
                self.channel.recycle(staged);
            } else {
                self.dist_rest = Bytes::from(staged);
            }
        }
        !self.dist_rest.is_empty()
    }

    /// The stream as one that we may send on, or None.
    fn sendable(&self, stream: u64) -> Option<StreamId> {
        let id = stream_id(stream);
        let ours = id.initiator()
            == if self.is_dialer {
                Side::Client
            } else {
                Side::Server
            };
        (id.dir() == Dir::Bi || ours).then_some(id)
    }
}

fn is_by_peer(reason: &ConnectionError) -> bool {
    matches!(
        reason,
        ConnectionError::ApplicationClosed(_) | ConnectionError::ConnectionClosed(_)
    )
}

/// How often a suspected peer is asked for a sign of life.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);

/// The first unidirectional stream of either side.
fn is_auth(stream: u64) -> bool {
    stream == 2 || stream == 3
}

/// Streams above those of the distribution; a unidirectional one never is, for it has no way back.
pub fn is_user(stream: u64) -> bool {
    stream & 2 == 0 && stream >= if stream & 1 == 0 { 68 } else { 65 }
}

fn stream_id(id: u64) -> StreamId {
    VarInt::from_u64(id).unwrap_or(VarInt::MAX).into()
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let first = *rest.first()?;
    let length = 1 << (first >> 6);
    let bytes = rest.get(..length)?;
    *rest = &rest[length..];
    let high = u64::from(first & 0x3f);
    Some(bytes[1..].iter().fold(high, |v, b| v << 8 | u64::from(*b)))
}
