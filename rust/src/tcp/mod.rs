//! The bytes of a distribution channel over TCP: what waits to be sent, and ticks. Knows no Python.
//!
//! A link is read and flushed by the event loop's thread. The ticker's thread writes to it only when nothing was sent for a
//! while, which the loop sees to by itself unless it is blocked or has nothing to say.

pub mod ticker;

use crate::burst::completes_burst;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A zero length: no message, but a sign of life.
const TICK: [u8; 4] = [0; 4];
/// Buffers above this are given back once they are empty.
const KEEP: usize = 1 << 20;

/// What `Link::flush` left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flushed {
    /// The socket has no room: flush again when it is writable.
    pub blocked: bool,
    /// The queue fell below the low-water mark after it had reached the high one.
    pub relieved: bool,
    /// The socket takes nothing any more; reading it tells why.
    pub broken: bool,
}

/// A connected, non-blocking socket and its send queue.
pub struct Link {
    socket: OwnedFd,
    queue: Mutex<Queue>,
    queued: AtomicUsize,
    high_water: usize,
    low_water: usize,
    tick_every: Duration,
    origin: Instant,
    /// Milliseconds since `origin`.
    sent_at: AtomicU64,
    received_at: AtomicU64,
    bytes_sent: AtomicU64,
    bytes_received: AtomicU64,
}

#[derive(Default)]
struct Queue {
    buffer: Vec<u8>,
    /// How much of `buffer` the socket has taken.
    written: usize,
    congested: bool,
    /// A flush has been asked for, or the socket is being waited for.
    awaited: bool,
    /// The socket took no more at the last flush.
    blocked: bool,
    broken: bool,
    closed: bool,
}

/// What a push left.
#[derive(Debug, Default, Clone, Copy)]
pub struct Pushed {
    /// Bytes in the queue.
    pub queued: usize,
    /// A flush has to be asked for.
    pub first: bool,
    /// Another burst is complete: it may as well leave at once.
    pub burst: bool,
}

impl Link {
    pub fn new(socket: OwnedFd, high_water: usize, low_water: usize, tick_every: Duration) -> Self {
        Self {
            socket,
            queue: Mutex::default(),
            queued: AtomicUsize::new(0),
            high_water,
            low_water,
            tick_every,
            origin: Instant::now(),
            sent_at: AtomicU64::new(0),
            received_at: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
        }
    }

    /// Bytes that the socket has not taken yet.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Lets `write` append to the queue.
    pub fn push(&self, write: impl FnOnce(&mut Vec<u8>)) -> Pushed {
        let mut queue = self.queue();
        if queue.closed || queue.broken {
            return Pushed::default();
        }
        let queue = &mut *queue;
        if queue.written > KEEP && queue.written > queue.buffer.len() / 2 {
            queue.buffer.drain(..queue.written);
            queue.written = 0;
        }
        let before = queue.buffer.len();
        write(&mut queue.buffer);
        let added = queue.buffer.len() - before;
        let queued = queue.buffer.len() - queue.written;
        self.queued.store(queued, Ordering::Relaxed);
        queue.congested |= queued >= self.high_water;
        Pushed {
            queued,
            first: !std::mem::replace(&mut queue.awaited, true),
            burst: !queue.blocked && completes_burst(queued, added),
        }
    }

    /// Gives the socket as much as it takes.
    pub fn flush(&self) -> Flushed {
        let mut queue = self.queue();
        self.flush_queue(&mut queue);
        let blocked = queue.written < queue.buffer.len();
        queue.awaited = blocked;
        queue.blocked = blocked;
        let relieved = queue.congested && self.queued() <= self.low_water;
        queue.congested &= !relieved;
        Flushed {
            blocked,
            relieved,
            broken: queue.broken,
        }
    }

    /// Sends a sign of life if nothing was sent for `tick_every`; returns how long until this is due again.
    fn tick_if_due(&self) -> Duration {
        let silent = self
            .now()
            .saturating_sub(self.sent_at.load(Ordering::Relaxed));
        match self.tick_every.checked_sub(Duration::from_millis(silent)) {
            Some(left) if !left.is_zero() => left,
            _ => {
                self.tick();
                self.tick_every
            }
        }
    }

    /// Sends a sign of life, unless what waits in the queue is one.
    pub fn tick(&self) {
        let mut queue = self.queue();
        if queue.closed || queue.broken {
            return;
        }
        if queue.written == queue.buffer.len() {
            queue.buffer.extend_from_slice(&TICK);
        }
        self.flush_queue(&mut queue);
    }

    /// Reads what has arrived into `buffer`, up to its capacity; Ok(0) is the end of the stream.
    pub fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        buffer.clear();
        // SAFETY: the buffer has that capacity, and recv says how much of it it filled.
        let n = unsafe {
            let room = buffer.as_mut_ptr().cast();
            let n = libc::recv(self.fd(), room, buffer.capacity(), libc::MSG_DONTWAIT);
            buffer.set_len(n.max(0) as usize);
            n
        };
        if n < 0 {
            return Err(io::Error::last_os_error());
        }
        self.received_at.store(self.now(), Ordering::Relaxed);
        self.bytes_received.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n as usize)
    }

    /// Bytes sent and received so far.
    pub fn carried(&self) -> (u64, u64) {
        (
            self.bytes_sent.load(Ordering::Relaxed),
            self.bytes_received.load(Ordering::Relaxed),
        )
    }

    /// How long ago bytes last came.
    pub fn silent_for(&self) -> Duration {
        Duration::from_millis(
            self.now()
                .saturating_sub(self.received_at.load(Ordering::Relaxed)),
        )
    }

    /// Ends the connection in both directions; what is queued is dropped.
    pub fn close(&self) {
        let mut queue = self.queue();
        if !std::mem::replace(&mut queue.closed, true) {
            queue.buffer = Vec::new();
            queue.written = 0;
            self.queued.store(0, Ordering::Relaxed);
            // SAFETY: the descriptor is open as long as we live. Errors mean that it is closed already.
            unsafe { libc::shutdown(self.fd(), libc::SHUT_RDWR) };
        }
    }

    pub fn is_closed(&self) -> bool {
        self.queue().closed
    }

    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    fn flush_queue(&self, queue: &mut Queue) {
        while queue.written < queue.buffer.len() && !queue.broken && !queue.closed {
            let rest = &queue.buffer[queue.written..];
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            // SAFETY: `rest` is alive and has that length.
            let n = unsafe { libc::send(self.fd(), rest.as_ptr().cast(), rest.len(), flags) };
            if n >= 0 {
                queue.written += n as usize;
                self.sent_at.store(self.now(), Ordering::Relaxed);
                self.bytes_sent.fetch_add(n as u64, Ordering::Relaxed);
                continue;
            }
            match io::Error::last_os_error().kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => break,
                _ => queue.broken = true,
            }
        }
        if queue.broken || queue.written == queue.buffer.len() {
            queue.written = 0;
            queue.buffer.clear();
            if queue.buffer.capacity() > KEEP {
                queue.buffer = Vec::new();
            }
        }
        let queued = queue.buffer.len() - queue.written;
        self.queued.store(queued, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        self.origin.elapsed().as_millis() as u64
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A panic while it is held leaves a queue that is still one; what it did not get to is sent with the next flush.
        self.queue.lock().unwrap_or_else(|e| e.into_inner())
    }
}

#[cfg(test)]
mod tests;
