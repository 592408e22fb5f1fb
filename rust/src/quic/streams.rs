//! The user streams of one connection: tagged byte streams beside the distribution.
//!
//! A stream begins with a preamble that holds its tag (`preamble.rs`); then both directions carry bytes of the
//! application. Nothing is pushed upwards but the news that there is something: bytes wait in QUIC until they
//! are asked for, so a slow reader stalls its writer by flow control, and nobody else.
//!
//! Writers queue here and get turns, one quantum each, while their share of the send window has room. Messages have a
//! share of their own and a higher priority, so a bulk transfer never stands in their way for longer than the packets
//! that are in flight.
//!
//! Erlang's stack makes a broken record of a stream whose first frame is a RESET_STREAM or STOP_SENDING: on streams of
//! ours both wait until something we wrote was acknowledged.

use super::meter::Meter;
use super::options::{varint, Options};
use super::preamble::Preamble;
use super::stream_id::{is_user, stream_id};
use super::Event;
use bytes::{Buf, Bytes};
use quinn_proto::{Connection, Dir, ReadError, WriteError};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// What a stream is reset with that nobody takes, as Erlang does.
pub const REFUSED: u64 = 0x100;
/// Below the streams of messages, which have priority 0.
const PRIORITY: i32 = -1;
/// What a stream may give to QUIC before the next one has its turn, and the most that is counted as one: a chunk counts
/// until all of it is acknowledged. Half a packet on loopback; with two packets a sender waited for acknowledgements
/// that the receiver delayed (25 ms each).
pub const QUANTUM: usize = 32 << 10;
/// Writes below this are gathered, so that many small ones don't become many chunks.
const GATHER_BELOW: usize = 8 << 10;
const GATHERED: usize = 64 << 10;

#[derive(Default)]
pub struct UserStreams {
    id: u64,
    is_dialer: bool,
    streams: BTreeMap<u64, UserStream>,
    /// Streams whose preamble is not complete, with their deadlines, in order of arrival.
    parked: VecDeque<(u64, Instant)>,
    /// Streams with something to send, in turn.
    sendable: VecDeque<u64>,
    /// Streams that wait for acknowledgements before they may give QUIC more.
    full: Vec<u64>,
    /// Streams of ours that are to be reset or stopped once something on them was acknowledged.
    doomed: Vec<u64>,
    held: Meter,
    /// How many streams the connection's receive window is made for.
    roomy_for: u64,
    pub counters: Counters,
}

/// Streams that were not let in, by what was wrong with them.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counters {
    /// Nobody accepts the tag, or the tag is empty.
    pub refused: u64,
    /// Too many unfinished preambles.
    pub crowded: u64,
    /// The preamble was not complete in time, or ended early.
    pub unfinished: u64,
}

#[derive(Default)]
struct UserStream {
    ours: bool,
    sending: Sending,
    receiving: Receiving,
}

#[derive(Default)]
struct Sending {
    queue: VecDeque<Bytes>,
    /// Small writes that were gathered.
    tail: Vec<u8>,
    /// Bytes of both.
    queued: usize,
    held: Meter,
    given: u64,
    phase: SendPhase,
    /// `queued` passed the high-water mark; `StreamWritable` follows.
    congested: bool,
    /// It stands in `sendable`.
    scheduled: bool,
    /// QUIC has no room on this stream.
    blocked: bool,
    reset_later: Option<u64>,
}

#[derive(Default, PartialEq, Eq, Clone, Copy)]
enum SendPhase {
    #[default]
    Open,
    /// The end follows what is queued.
    Ending,
    /// QUIC has the end; it is not acknowledged yet.
    Ended,
    Done,
}

#[derive(Default)]
struct Receiving {
    phase: ReceivePhase,
    /// A reader found nothing and wants to hear when there is something.
    waiting: bool,
    stop_later: Option<u64>,
}

#[derive(Default)]
enum ReceivePhase {
    Preamble(Preamble),
    #[default]
    Open,
    Done,
}

/// What `read` found.
#[derive(Debug, Default)]
pub struct Found {
    pub chunks: Vec<Bytes>,
    pub end: Option<End>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The peer's half is complete.
    Finished,
    Reset(u64),
    /// Nothing can be read any more: it was stopped, or is unknown.
    Closed,
}

impl UserStreams {
    pub fn new(id: u64, is_dialer: bool) -> Self {
        Self {
            id,
            is_dialer,
            ..Self::default()
        }
    }

    // --- what the application asks for -------------------------------------------------------------------------

    /// A new stream of ours, or None if the peer allows no further one now.
    pub fn open(&mut self, quic: &mut Connection, options: &Options) -> Option<u64> {
        // A peer that allowed few streams at first has some of those for messages still to come.
        let id = std::iter::from_fn(|| quic.streams().open(Dir::Bi))
            .find(|id| is_user(u64::from(*id)))?;
        let stream = UserStream {
            ours: true,
            ..UserStream::default()
        };
        self.add(quic, id.into(), stream, options);
        Some(id.into())
    }

    /// Queues bytes; returns how many are queued on the stream now.
    pub fn write(&mut self, stream: u64, data: Bytes, options: &Options) -> usize {
        let Some(known) = self.streams.get_mut(&stream) else {
            return 0;
        };
        let sending = &mut known.sending;
        if sending.phase != SendPhase::Open {
            return 0;
        }
        sending.push(data);
        sending.congested |= sending.queued >= options.stream_high_water as usize;
        let queued = sending.queued;
        self.schedule(stream);
        queued
    }

    /// Ends our half after what is queued.
    pub fn finish(&mut self, stream: u64) {
        if let Some(known) = self.streams.get_mut(&stream) {
            if known.sending.phase == SendPhase::Open {
                known.sending.phase = SendPhase::Ending;
                self.schedule(stream);
            }
        }
    }

    /// Ends our half at once; what is queued is dropped.
    pub fn reset(&mut self, quic: &mut Connection, stream: u64, code: u64) {
        let Some(known) = self.streams.get_mut(&stream) else {
            return;
        };
        let sending = &mut known.sending;
        if sending.phase == SendPhase::Done {
            return;
        }
        if known.ours && !sending.acknowledged() {
            sending.drop_unsent_but_first();
            sending.reset_later = Some(code);
            self.doomed.push(stream);
            return;
        }
        sending.end();
        // Fails only for a stream that has ended already.
        let _ = quic.send_stream(stream_id(stream)).reset(varint(code));
        self.forget_if_done(stream);
    }

    /// Takes nothing more of the peer's half, and tells it so.
    pub fn stop(&mut self, quic: &mut Connection, stream: u64, code: u64) {
        let Some(known) = self.streams.get_mut(&stream) else {
            return;
        };
        if matches!(known.receiving.phase, ReceivePhase::Done) {
            return;
        }
        if known.ours && !known.sending.acknowledged() && known.sending.phase != SendPhase::Done {
            known.receiving.stop_later = Some(code);
            self.doomed.push(stream);
            return;
        }
        known.receiving.phase = ReceivePhase::Done;
        // Fails only for a stream that has ended already.
        let _ = quic.recv_stream(stream_id(stream)).stop(varint(code));
        self.forget_if_done(stream);
    }

    /// Nobody takes this stream of the peer's.
    pub fn refuse(&mut self, quic: &mut Connection, stream: u64) {
        self.counters.refused += 1;
        self.cut(quic, stream);
    }

    /// What has arrived, up to `max` bytes.
    pub fn read(&mut self, quic: &mut Connection, stream: u64, max: usize) -> (Found, bool) {
        let mut found = Found::default();
        let Some(known) = self.streams.get_mut(&stream) else {
            found.end = Some(End::Closed);
            return (found, false);
        };
        if matches!(known.receiving.phase, ReceivePhase::Done) || max == 0 {
            found.end = (max != 0).then_some(End::Closed);
            return (found, false);
        }
        let mut receive = quic.recv_stream(stream_id(stream));
        let Ok(mut chunks) = receive.read(true) else {
            known.receiving.phase = ReceivePhase::Done;
            found.end = Some(End::Closed);
            self.forget_if_done(stream);
            return (found, false);
        };
        let mut left = max;
        while left > 0 {
            match chunks.next(left) {
                Ok(Some(chunk)) => {
                    left -= chunk.bytes.len();
                    found.chunks.push(chunk.bytes);
                }
                Ok(None) => {
                    found.end = Some(End::Finished);
                    break;
                }
                Err(ReadError::Reset(code)) => {
                    found.end = Some(End::Reset(code.into()));
                    break;
                }
                Err(ReadError::Blocked) => {
                    known.receiving.waiting = found.chunks.is_empty();
                    break;
                }
            }
        }
        let transmit = chunks.finalize().should_transmit();
        if found.end.is_some() {
            known.receiving.phase = ReceivePhase::Done;
            self.forget_if_done(stream);
        }
        (found, transmit)
    }

    // --- what happened -----------------------------------------------------------------------------------------

    /// The peer opened a stream, or something came on one.
    pub fn arrived(
        &mut self,
        quic: &mut Connection,
        stream: u64,
        now: Instant,
        options: &Options,
        events: &mut VecDeque<Event>,
    ) {
        if let Some(known) = self.streams.get_mut(&stream) {
            if let ReceivePhase::Preamble(_) = known.receiving.phase {
                self.read_preamble(quic, stream, events);
            } else if known.receiving.waiting {
                known.receiving.waiting = false;
                let id = self.id;
                events.push_back(Event::StreamReadable { id, stream });
            }
            return;
        }
        if self.is_ours(stream) || !has_something(quic, stream) {
            return; // it has ended; or it was opened by the number of a later one, and nothing came on it yet
        }
        let mut state = UserStream::default();
        state.receiving.phase = ReceivePhase::Preamble(Preamble::default());
        self.add(quic, stream, state, options);
        self.read_preamble(quic, stream, events);
        let unfinished = self
            .streams
            .get(&stream)
            .is_some_and(|s| matches!(s.receiving.phase, ReceivePhase::Preamble(_)));
        if unfinished {
            if self.parked.len() as u64 >= options.max_preambles {
                self.counters.crowded += 1;
                self.cut(quic, stream);
            } else {
                let limit = Duration::from_millis(options.preamble_timeout_ms);
                self.parked.push_back((stream, now + limit));
            }
        }
    }

    /// QUIC may have room on this stream.
    pub fn writable(&mut self, stream: u64) {
        if let Some(known) = self.streams.get_mut(&stream) {
            known.sending.blocked = false;
            self.schedule(stream);
        }
    }

    /// All that we wrote arrived, and the end of it.
    pub fn finished(&mut self, stream: u64, events: &mut VecDeque<Event>) {
        if let Some(known) = self.streams.get_mut(&stream) {
            known.sending.end();
            let id = self.id;
            events.push_back(Event::StreamFinished { id, stream });
            self.forget_if_done(stream);
        }
    }

    /// The peer takes nothing more of our half.
    pub fn stopped(
        &mut self,
        quic: &mut Connection,
        stream: u64,
        code: u64,
        events: &mut VecDeque<Event>,
    ) {
        if let Some(known) = self.streams.get_mut(&stream) {
            known.sending.end();
            // Ends our half, as RFC 9000 wants it (3.5); fails only if it has ended meanwhile.
            let _ = quic.send_stream(stream_id(stream)).reset(varint(code));
            let id = self.id;
            events.push_back(Event::StreamStopped { id, stream, code });
            self.forget_if_done(stream);
        }
    }

    /// Refuses streams whose preamble is late.
    pub fn expire(&mut self, quic: &mut Connection, now: Instant) -> bool {
        let mut any = false;
        while let Some((stream, deadline)) = self.parked.front().copied() {
            if deadline > now {
                break;
            }
            self.parked.pop_front();
            self.counters.unfinished += 1;
            self.cut(quic, stream);
            any = true;
        }
        any
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.parked.front().map(|(_, deadline)| *deadline)
    }

    /// Streams that are open, in either direction.
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// Bytes that writers queued and QUIC has not taken.
    pub fn queued(&self) -> usize {
        self.streams.values().map(|s| s.sending.queued).sum()
    }

    /// The connection ended: what arrived before that is handed over whole, in events of each stream.
    pub fn close(&mut self, quic: &mut Connection, events: &mut Vec<Event>) {
        let numbers: Vec<u64> = self.streams.keys().copied().collect();
        for stream in numbers {
            let open = self
                .streams
                .get(&stream)
                .is_some_and(|s| matches!(s.receiving.phase, ReceivePhase::Open));
            if open {
                let (rest, _) = self.read(quic, stream, usize::MAX);
                let id = self.id;
                events.push(Event::StreamRest { id, stream, rest });
            }
        }
        self.clear();
    }

    pub fn clear(&mut self) {
        self.streams.clear();
        self.parked.clear();
        self.sendable.clear();
        self.full.clear();
        self.doomed.clear();
    }

    // --- writing -----------------------------------------------------------------------------------------------

    /// Gives QUIC what it takes, in turns.
    pub fn pump(
        &mut self,
        quic: &mut Connection,
        local: bool,
        options: &Options,
        events: &mut VecDeque<Event>,
    ) {
        let window = if local {
            options
                .local_streams_send_window
                .min(options.streams_send_window)
        } else {
            options.streams_send_window
        };
        if self.streams.is_empty() {
            return;
        }
        for stream in std::mem::take(&mut self.doomed) {
            self.carry_out(quic, stream);
        }
        for stream in std::mem::take(&mut self.full) {
            self.schedule(stream);
        }
        while self.held.level() < window as usize {
            let Some(stream) = self.sendable.pop_front() else {
                break;
            };
            let Some(known) = self.streams.get_mut(&stream) else {
                continue;
            };
            let sending = &mut known.sending;
            sending.scheduled = false;
            if sending.held.level() >= options.send_window as usize {
                self.full.push(stream);
                continue;
            }
            let more = sending.give(quic, stream, &self.held);
            if sending.congested && sending.queued <= options.stream_low_water as usize {
                sending.congested = false;
                let id = self.id;
                events.push_back(Event::StreamWritable { id, stream });
            }
            if more {
                self.schedule(stream);
            }
        }
    }

    fn schedule(&mut self, stream: u64) {
        if let Some(known) = self.streams.get_mut(&stream) {
            let sending = &mut known.sending;
            if !sending.scheduled && !sending.blocked && sending.has_more() {
                sending.scheduled = true;
                self.sendable.push_back(stream);
            }
        }
    }

    /// Does what waited for the first acknowledgement.
    fn carry_out(&mut self, quic: &mut Connection, stream: u64) {
        let Some(known) = self.streams.get_mut(&stream) else {
            return;
        };
        if !known.sending.acknowledged() {
            self.doomed.push(stream);
            return;
        }
        let stop = known.receiving.stop_later.take();
        let reset = known.sending.reset_later.take();
        if let Some(code) = stop {
            self.stop(quic, stream, code);
        }
        if let Some(code) = reset {
            self.reset(quic, stream, code);
        }
    }

    // --- reading the preamble ----------------------------------------------------------------------------------

    fn read_preamble(&mut self, quic: &mut Connection, stream: u64, events: &mut VecDeque<Event>) {
        let Some(known) = self.streams.get_mut(&stream) else {
            return;
        };
        let ReceivePhase::Preamble(preamble) = &mut known.receiving.phase else {
            return;
        };
        let mut receive = quic.recv_stream(stream_id(stream));
        let Ok(mut chunks) = receive.read(true) else {
            return self.give_up(quic, stream);
        };
        let ended = loop {
            match chunks.next(preamble.missing()) {
                // All of it is taken: no more was asked for.
                Ok(Some(chunk)) => preamble.feed(&chunk.bytes),
                Ok(None) | Err(ReadError::Reset(_)) => break true,
                Err(ReadError::Blocked) => break false,
            };
            if preamble.missing() == 0 {
                break false;
            }
        };
        let _ = chunks.finalize();
        match preamble.tag() {
            None if ended => self.give_up(quic, stream),
            None => {}
            Some([]) => {
                self.unpark(stream);
                self.refuse(quic, stream);
            }
            Some(tag) => {
                let tag = tag.to_vec();
                known.receiving.phase = ReceivePhase::Open;
                self.unpark(stream);
                let id = self.id;
                events.push_back(Event::StreamOpened { id, stream, tag });
            }
        }
    }

    /// The stream ended within its preamble.
    fn give_up(&mut self, quic: &mut Connection, stream: u64) {
        self.unpark(stream);
        self.counters.unfinished += 1;
        self.cut(quic, stream);
    }

    fn unpark(&mut self, stream: u64) {
        self.parked.retain(|(parked, _)| *parked != stream);
    }

    /// Ends both halves of a stream of the peer's, which has carried something.
    fn cut(&mut self, quic: &mut Connection, stream: u64) {
        let (id, code) = (stream_id(stream), varint(REFUSED));
        // Both fail only if that half has ended meanwhile.
        let _ = quic.recv_stream(id).stop(code);
        let _ = quic.send_stream(id).reset(code);
        self.streams.remove(&stream);
    }

    // --- bookkeeping -------------------------------------------------------------------------------------------

    fn add(&mut self, quic: &mut Connection, stream: u64, state: UserStream, options: &Options) {
        self.streams.insert(stream, state);
        // Fails only if our half has ended already.
        let _ = quic.send_stream(stream_id(stream)).set_priority(PRIORITY);
        // Streams that nobody reads must not use up the credit of the messages: each brings a window of its own.
        let streams = (self.streams.len() as u64).min(options.roomy_streams);
        if streams > self.roomy_for {
            self.roomy_for = streams;
            let window = options.receive_window + streams * options.stream_receive_window;
            quic.set_receive_window(varint(window));
        }
    }

    fn forget_if_done(&mut self, stream: u64) {
        let done = self.streams.get(&stream).is_some_and(|s| {
            s.sending.phase == SendPhase::Done && matches!(s.receiving.phase, ReceivePhase::Done)
        });
        if done {
            self.streams.remove(&stream);
        }
    }

    fn is_ours(&self, stream: u64) -> bool {
        (stream & 1 == 0) == self.is_dialer
    }
}

impl Sending {
    fn push(&mut self, data: Bytes) {
        self.queued += data.len();
        if data.len() < GATHER_BELOW {
            self.tail.extend_from_slice(&data);
            if self.tail.len() >= GATHERED {
                self.close_tail();
            }
        } else {
            self.close_tail();
            self.queue.push_back(data);
        }
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.queue.push_back(std::mem::take(&mut self.tail).into());
        }
    }

    fn has_more(&self) -> bool {
        self.queued > 0 || self.phase == SendPhase::Ending
    }

    /// Gives QUIC one quantum; true if it would take more.
    fn give(&mut self, quic: &mut Connection, stream: u64, total: &Meter) -> bool {
        let mut send = quic.send_stream(stream_id(stream));
        let mut quantum = QUANTUM;
        while self.queued > 0 && quantum > 0 {
            if self.queue.is_empty() {
                self.close_tail();
            }
            let Some(front) = self.queue.front_mut() else {
                break;
            };
            // Only what QUIC takes may count: else streams whose readers are slow would use up the share of all.
            let piece = front.slice(..front.len().min(quantum));
            let mut chunk = total.count(piece, Some(&self.held));
            match send.write_chunks(std::slice::from_mut(&mut chunk)) {
                Ok(written) => {
                    front.advance(written.bytes);
                    if front.is_empty() {
                        self.queue.pop_front();
                    }
                    self.queued -= written.bytes;
                    self.given += written.bytes as u64;
                    quantum -= written.bytes;
                }
                Err(WriteError::Blocked) => {
                    self.blocked = true;
                    return false;
                }
                // Stopped or closed: the event that says so is on its way.
                Err(_) => {
                    self.end();
                    return false;
                }
            }
        }
        if self.queued == 0 && self.phase == SendPhase::Ending {
            self.phase = SendPhase::Ended;
            // Fails only if the stream was stopped, of which an event tells.
            let _ = send.finish();
        }
        self.queued > 0
    }

    /// Whether the peer has seen anything of what we wrote.
    fn acknowledged(&self) -> bool {
        self.given > self.held.level() as u64
    }

    /// Before a reset that has to wait: what is still needed is one frame, of which the peer learns of the stream.
    fn drop_unsent_but_first(&mut self) {
        if self.given > 0 {
            self.drop_queue();
        } else {
            self.close_tail();
            self.queue.truncate(1);
            if let Some(first) = self.queue.front_mut() {
                first.truncate(GATHER_BELOW);
            }
            self.queued = self.queue.iter().map(Bytes::len).sum();
        }
        if self.phase != SendPhase::Done {
            self.phase = SendPhase::Ended; // takes nothing more
        }
    }

    fn drop_queue(&mut self) {
        self.queue.clear();
        self.tail = Vec::new();
        self.queued = 0;
    }

    fn end(&mut self) {
        self.drop_queue();
        self.phase = SendPhase::Done;
        self.congested = false;
    }
}

/// Whether a byte or the end of the stream has arrived.
fn has_something(quic: &mut Connection, stream: u64) -> bool {
    let mut receive = quic.recv_stream(stream_id(stream));
    let Ok(mut chunks) = receive.read(true) else {
        return false;
    };
    // Asking for nothing tells "blocked" from all else, and takes nothing.
    let something = !matches!(chunks.next(0), Err(ReadError::Blocked));
    let _ = chunks.finalize();
    something
}
