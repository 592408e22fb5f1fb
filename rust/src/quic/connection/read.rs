//! Reading: what came of a connection goes to the event loop in batches, and is read from QUIC no sooner than then.

use super::Connection;
use crate::frame::RawMessage;
use crate::quic::options::Options;
use crate::quic::stream_id::{is_handshake, stream_id};
use crate::quic::Event;
use quinn_proto::ReadError;
use std::time::Instant;

/// Bytes read from a stream at a time, so that a batch ends near its bound.
const READ_SIZE: usize = 32 << 10;

/// How much one collection may still take.
pub struct Budget {
    pub messages: usize,
    pub bytes: usize,
}

impl Connection {
    /// Whether `collect` has something.
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
            } else if is_handshake(stream) {
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
}
