//! Writing: what is queued goes into QUIC as far as its share of the send window has room.

use super::{Connection, Phase};
use crate::quic::channel::Channel;
use crate::quic::meter::Meter;
use crate::quic::options::{varint, Options};
use crate::quic::reason::CloseReason;
use crate::quic::stream_id::stream_id;
use crate::quic::streams::QUANTUM;
use crate::quic::Event;
use bytes::{Buf, Bytes};
use quinn_proto::{Dir, StreamId, WriteError};
use std::collections::VecDeque;

/// Below this a frame is copied into quinn, and the buffer reused; above, the buffer itself is handed over.
const COPY_BELOW: usize = 4 << 10;

impl Connection {
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

    /// Gives QUIC what it takes of everything queued. `Writable` may follow from it.
    pub fn write_streams(&mut self, options: &Options) {
        self.channel
            .dirty
            .store(false, std::sync::atomic::Ordering::Release);
        if self.phase == Phase::Closed {
            return;
        }
        self.write_handshake();
        if let Some(messages) = &mut self.messages {
            let window = options.send_window as usize;
            if messages.write(&mut self.quic, &self.channel, window, &mut self.lost) {
                self.events.push_back(Event::Writable { id: self.id() });
            }
        }
        self.user
            .pump(&mut self.quic, self.same_host, options, &mut self.events);
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

    /// The stream as one that we may send on, or None.
    fn sendable(&self, stream: u64) -> Option<StreamId> {
        let id = stream_id(stream);
        let ours = id.initiator() == self.quic.side();
        (id.dir() == Dir::Bi || ours).then_some(id)
    }
}

/// What is to be written on a stream of the handshake.
#[derive(Default)]
pub struct Outgoing {
    chunks: VecDeque<Bytes>,
    fin: bool,
}

/// Our stream of messages.
pub struct MessageStream {
    pub id: StreamId,
    /// Frames that there was no room for.
    rest: Bytes,
    blocked: bool,
    /// What QUIC holds of them.
    held: Meter,
}

impl MessageStream {
    pub fn new(id: u64) -> Self {
        Self {
            id: stream_id(id),
            rest: Bytes::new(),
            blocked: false,
            held: Meter::default(),
        }
    }

    /// QUIC has room again.
    pub fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Moves encoded messages into QUIC; true if the queue fell below the low-water mark.
    fn write(
        &mut self,
        quic: &mut quinn_proto::Connection,
        channel: &Channel,
        window: usize,
        lost: &mut Option<CloseReason>,
    ) -> bool {
        let mut writable = false;
        // While QUIC has no room, messages gather in the channel's one buffer. A blocked stream is not tried again:
        // quinn would announce it with a frame that Erlang's stack takes badly on a young stream.
        while !self.blocked {
            let room = window.saturating_sub(self.held.level());
            if room == 0 || !self.has_frames(channel) {
                break; // what is acknowledged makes room
            }
            let piece = self.rest.len().min(room).min(QUANTUM);
            let mut chunk = self.held.count(self.rest.slice(..piece), None);
            let mut send = quic.send_stream(self.id);
            match send.write_chunks(std::slice::from_mut(&mut chunk)) {
                Ok(written) => {
                    self.rest.advance(written.bytes);
                    writable |= channel.written(written.bytes);
                }
                Err(WriteError::Blocked) => self.blocked = true,
                Err(_) => {
                    lost.get_or_insert_with(|| {
                        CloseReason::new("protocol", "the stream of our messages is closed")
                    });
                    break;
                }
            }
        }
        writable
    }

    /// Whether there are frames for QUIC, in `rest` then.
    fn has_frames(&mut self, channel: &Channel) -> bool {
        if self.rest.is_empty() {
            let staged = channel.take();
            if staged.len() < COPY_BELOW {
                self.rest = Bytes::copy_from_slice(&staged);
                channel.recycle(staged);
            } else {
                self.rest = Bytes::from(staged);
            }
        }
        !self.rest.is_empty()
    }
}
