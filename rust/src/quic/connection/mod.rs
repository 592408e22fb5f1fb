//! One QUIC connection: quinn-proto's state machine, and what the distribution makes of its streams.
//!
//! Until `start_dist` only the streams of the handshake are read; the rest waits in quinn's buffers, bounded by the small
//! window of an unauthenticated connection.

mod path;
mod read;
mod timers;
mod write;

pub use read::Budget;

use super::channel::Channel;
use super::core::Scheduled;
use super::options::{varint, Options};
use super::reason::{close_reason, CloseReason};
use super::stream_id::{is_handshake, is_user};
use super::streams::UserStreams;
use super::Event;
use crate::frame::{Deframer, Limits};
use bytes::Bytes;
use path::Path;
use quinn_proto::{ConnectionError, Dir, StreamEvent};
use rustls::pki_types::CertificateDer;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Instant;
use timers::Suspicion;
use write::{MessageStream, Outgoing};

pub struct Connection {
    pub channel: Arc<Channel>,
    /// The key of its socket and quinn endpoint.
    pub fd: RawFd,
    pub handle: quinn_proto::ConnectionHandle,
    pub quic: quinn_proto::Connection,
    pub is_dialer: bool,
    pub same_host: bool,
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
    /// What there is to write on the streams of the handshake.
    outgoing: BTreeMap<u64, Outgoing>,
    messages: Option<MessageStream>,
    pub user: UserStreams,
    /// Where it is, and how often it moved.
    pub path: Path,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Handshaking,
    Unauthenticated,
    Distribution,
    Closed,
}

impl Connection {
    pub fn new(
        channel: Arc<Channel>,
        fd: RawFd,
        handle: quinn_proto::ConnectionHandle,
        quic: quinn_proto::Connection,
        local: SocketAddr,
        same_host: bool,
    ) -> Self {
        let is_dialer = quic.side().is_client();
        Self {
            user: UserStreams::new(channel.id, is_dialer),
            path: Path {
                local,
                peer: quic.remote_address(),
                moves: 0,
                unproven: false,
            },
            channel,
            fd,
            handle,
            is_dialer,
            quic,
            same_host,
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
            outgoing: BTreeMap::new(),
            messages: None,
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
        let mut opened = None;
        while let Some(id) = self.open(Dir::Bi) {
            opened = Some(id);
            if is_user(id + 4) {
                break;
            }
        }
        if opened.is_none_or(|id| id < first) {
            return Err("the peer lets us open no data stream".into());
        }
        self.messages = Some(MessageStream::new(first));
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
                match &mut self.messages {
                    Some(messages) if messages.id == id => messages.unblock(),
                    _ => self.user.writable(id.into()),
                }
                self.unflushed = true;
            }
            StreamEvent::Stopped { id, .. }
                if self.messages.as_ref().is_some_and(|m| m.id == id) =>
            {
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
        match self.phase {
            Phase::Closed => {}
            Phase::Distribution if is_user(stream) => {
                self.user
                    .arrived(&mut self.quic, stream, now, options, &mut self.events);
                self.unflushed = true;
            }
            Phase::Distribution => self.mark_readable(stream),
            _ if is_handshake(stream) => self.mark_readable(stream),
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
        self.messages = None;
        self.suspicion = None;
        self.unflushed = true;
        self.lost.get_or_insert(reason);
    }
}

fn is_by_peer(reason: &ConnectionError) -> bool {
    matches!(
        reason,
        ConnectionError::ApplicationClosed(_) | ConnectionError::ConnectionClosed(_)
    )
}
