//! The mutex around the core, and the thread that stands in for an event loop that does not come round.
//!
//! User code may block the loop for many seconds. Meanwhile peers would see neither acknowledgements nor
//! keep-alives and declare a healthy node dead. So a thread looks, every few milliseconds while there is traffic and
//! every `watcher_ms` otherwise, whether the loop has come round; if it has not although a socket is readable, a
//! timer overdue or a send waiting, the thread does the I/O itself: it receives, acknowledges, sends what is already encoded. It needs no GIL and hands nothing to Python;
//! what arrives stays encoded in QUIC's receive buffers, bounded by flow control, until the loop comes back.

use super::core::Core;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

/// A timer this late means that the loop is stuck, not merely busy.
const OVERDUE: Duration = Duration::from_millis(30);
/// How often it looks while there is traffic: a loop that stalls for some milliseconds in each turn must not let the
/// socket's buffer overflow.
const BUSY: Duration = Duration::from_millis(4);

/// So many calls of the loop between two looks are no traffic yet: keep-alives and gossip make some tens a second.
const QUIET: u64 = 16;

/// The core of an endpoint, shared by the event loop's thread and the watcher.
pub struct Shared {
    core: Mutex<Core>,
    /// Connections with newly encoded messages.
    dirty: Mutex<Vec<u64>>,
    /// A flush was asked of the loop and has not happened.
    flush_wanted: AtomicBool,
    /// Counts the calls of the event loop.
    visits: AtomicU64,
    stopped: Mutex<bool>,
    stop: Condvar,
    /// Written by the watcher when it has news, watched by the loop.
    alarm: UnixStream,
    bell: UnixStream,
    rung: AtomicBool,
    stood_in: AtomicU64,
}

/// A step panicked while it held the core, which can't be trusted any more.
#[derive(Debug)]
pub struct Poisoned;

impl Shared {
    pub fn new(core: Core) -> io::Result<Self> {
        let (alarm, bell) = UnixStream::pair()?;
        alarm.set_nonblocking(true)?;
        bell.set_nonblocking(true)?;
        Ok(Self {
            core: Mutex::new(core),
            dirty: Mutex::new(Vec::new()),
            flush_wanted: AtomicBool::new(false),
            visits: AtomicU64::new(0),
            stopped: Mutex::new(false),
            stop: Condvar::new(),
            alarm,
            bell,
            rung: AtomicBool::new(false),
            stood_in: AtomicU64::new(0),
        })
    }

    /// Becomes readable when the watcher has something for the loop: then `drive`.
    pub fn alarm_fd(&self) -> RawFd {
        self.alarm.as_raw_fd()
    }

    /// How often the watcher stood in.
    pub fn stood_in(&self) -> u64 {
        self.stood_in.load(Ordering::Relaxed)
    }

    /// The core, unless the watcher has it at the moment.
    pub fn try_core(&self) -> Result<Option<MutexGuard<'_, Core>>, Poisoned> {
        match self.core.try_lock() {
            Ok(core) => Ok(Some(core)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Poisoned(_)) => Err(Poisoned),
        }
    }

    pub fn core(&self) -> Result<MutexGuard<'_, Core>, Poisoned> {
        self.core.lock().map_err(|_| Poisoned)
    }

    /// Notes that the event loop is alive.
    pub fn visit(&self) {
        self.visits.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a connection has messages to flush; true if the loop has to be asked for a flush.
    pub fn mark_dirty(&self, id: u64) -> bool {
        self.dirty().push(id);
        self.want_flush()
    }

    /// True if the loop has to be asked for a flush.
    pub fn want_flush(&self) -> bool {
        !self.flush_wanted.swap(true, Ordering::AcqRel)
    }

    /// The connections to flush; from now on a send asks for a flush again.
    pub fn begin_flush(&self) -> Vec<u64> {
        self.flush_wanted.store(false, Ordering::Release);
        std::mem::take(&mut self.dirty())
    }

    /// Silences the alarm. Who holds the core answers and rings: a byte that was read together with an earlier one while
    /// `rung` stayed set would be the last one ever.
    pub fn answer(&self, _core: &mut Core) {
        if self.rung.swap(false, Ordering::AcqRel) {
            let mut alarm = &self.alarm;
            while alarm.read(&mut [0; 64]).is_ok_and(|n| n > 0) {}
        }
    }

    fn ring(&self, _core: &mut Core) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // Fails only if the pipe is full, and then the loop wakes anyway.
            let _ = (&self.bell).write(&[1]);
        }
    }

    fn dirty(&self) -> MutexGuard<'_, Vec<u64>> {
        self.dirty.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Ends the watcher.
    pub fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(|e| e.into_inner()) = true;
        self.stop.notify_all();
    }

    /// Sleeps; true if the watcher has to end.
    fn sleep(&self, time: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(|e| e.into_inner());
        match self
            .stop
            .wait_timeout_while(stopped, time, |stopped| !*stopped)
        {
            Ok((stopped, _)) => *stopped,
            Err(_) => true,
        }
    }

    /// Stands in for the loop if there is work that it should have done.
    fn stand_in(&self) -> bool {
        let Ok(Some(mut core)) = self.try_core() else {
            return false; // the loop is inside
        };
        if core.is_idle() {
            return false;
        }
        let now = Instant::now();
        let overdue = core.timer().is_some_and(|timer| timer + OVERDUE <= now);
        if !overdue && self.dirty().is_empty() && !readable(core.fds()) {
            return false;
        }
        let dirty = std::mem::take(&mut *self.dirty());
        self.stood_in.fetch_add(1, Ordering::Relaxed);
        core.stand_in(now, dirty);
        if core.has_news() {
            self.ring(&mut core);
        }
        true
    }
}

/// Starts the watcher of an endpoint; it ends with `Shared::stop`.
pub fn start(shared: &Arc<Shared>, interval: Duration) -> io::Result<()> {
    let shared = shared.clone();
    thread::Builder::new()
        .name("barrel-quic-watcher".into())
        .spawn(move || {
            // After a panic the core is poisoned, and the loop's next call reports it.
            let _ = catch_unwind(AssertUnwindSafe(|| watch(&shared, interval)));
        })
        .map(|_| ())
}

fn watch(shared: &Shared, interval: Duration) {
    let mut seen = shared.visits.load(Ordering::Relaxed);
    let mut pause = interval;
    while !shared.sleep(pause) {
        let visits = shared.visits.load(Ordering::Relaxed);
        let busy = visits - seen > QUIET || (visits == seen && shared.stand_in());
        seen = visits;
        pause = if busy { BUSY } else { pause * 2 }.min(interval);
    }
}

/// Whether one of the sockets has something to read.
fn readable(fds: impl Iterator<Item = RawFd>) -> bool {
    let mut polls: Vec<libc::pollfd> = fds
        .map(|fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    // SAFETY: the pointer and the count describe the vector above; a timeout of 0 returns at once.
    unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, 0) > 0 }
}
