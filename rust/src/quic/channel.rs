//! The send buffer of a connection: what `send` writes to and the endpoint empties.

use crate::burst::completes_burst;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

const OPENING: u8 = 0;
const PLAIN: u8 = 1;
const FRAGMENTS: u8 = 2;
const CLOSED: u8 = 3;

/// Encoded frames on their way to QUIC. Never locked while Python code may run.
pub struct Channel {
    pub id: u64,
    high_water: usize,
    low_water: usize,
    state: AtomicU8,
    staging: Mutex<Vec<u8>>,
    queued: AtomicUsize,
    sequence: AtomicU64,
    /// Set once `queued` reached the high-water mark, until `Writable` was reported.
    congested: AtomicBool,
    /// Set while the endpoint knows that there is something to flush.
    pub dirty: AtomicBool,
}

/// Whether a channel takes messages, and in which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Opening,
    Open { fragments: bool },
    Closed,
}

impl Channel {
    pub fn new(id: u64, high_water: usize, low_water: usize) -> Self {
        Self {
            id,
            high_water,
            low_water,
            state: AtomicU8::new(OPENING),
            staging: Mutex::new(Vec::new()),
            queued: AtomicUsize::new(0),
            sequence: AtomicU64::new(1),
            congested: AtomicBool::new(false),
            dirty: AtomicBool::new(false),
        }
    }

    pub fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            OPENING => State::Opening,
            PLAIN => State::Open { fragments: false },
            FRAGMENTS => State::Open { fragments: true },
            _ => State::Closed,
        }
    }

    pub fn open(&self, fragments: bool) {
        let state = if fragments { FRAGMENTS } else { PLAIN };
        self.state.store(state, Ordering::Release);
    }

    /// From now on nothing is taken; what was queued is dropped.
    pub fn close(&self) {
        self.state.store(CLOSED, Ordering::Release);
        *self.staging() = Vec::new();
        self.queued.store(0, Ordering::Relaxed);
    }

    /// Bytes of frames that QUIC has not taken yet.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Takes the buffer out to encode into it, so that no lock is held while Python code may run.
    pub fn borrow(&self) -> Vec<u8> {
        std::mem::take(&mut self.staging())
    }

    /// Puts a borrowed buffer back with `added` more bytes; returns the depth of the queue, and whether another burst is
    /// complete.
    pub fn give_back(&self, mut buffer: Vec<u8>, added: usize) -> (usize, bool) {
        let mut staging = self.staging();
        if self.state() == State::Closed {
            return (0, false);
        }
        // Code that ran during the encoding may have sent messages of its own: they come first.
        if !staging.is_empty() {
            staging.append(&mut buffer);
        } else {
            *staging = buffer;
        }
        let burst = completes_burst(staging.len(), added);
        let queued = self.queued.fetch_add(added, Ordering::Relaxed) + added;
        if queued >= self.high_water {
            self.congested.store(true, Ordering::Relaxed);
        }
        (queued, burst)
    }

    /// The id of the next fragmented message; never 0, with which a fragment crashes the Erlang VM (seen with OTP 27).
    pub fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes what is ready to be written to QUIC.
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.staging())
    }

    /// Returns an emptied buffer for reuse, unless a new one is in use already.
    pub fn recycle(&self, mut buffer: Vec<u8>) {
        let mut staging = self.staging();
        if staging.capacity() == 0 {
            buffer.clear();
            *staging = buffer;
        }
    }

    /// Notes that QUIC took `bytes`; true if that ended a congestion.
    pub fn written(&self, bytes: usize) -> bool {
        let queued = self.queued.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        queued <= self.low_water && self.congested.swap(false, Ordering::Relaxed)
    }

    fn staging(&self) -> MutexGuard<'_, Vec<u8>> {
        // Nothing panics while it is held; and a buffer has no state that a panic could break.
        self.staging.lock().unwrap_or_else(|e| e.into_inner())
    }
}
