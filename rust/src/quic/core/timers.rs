//! Time: what is due, and when the event loop has to come back.

use super::{guarded, Core};
use std::time::{Duration, Instant};

/// When the kernel has no room for a packet, try again after this.
const RETRY: Duration = Duration::from_millis(1);

impl Core {
    /// When `drive` has to be called, if that is earlier than the event loop was told before.
    ///
    /// Timers move with every packet, mostly to later: a call that comes too early costs less than telling the
    /// loop each time.
    pub fn rearm(&mut self, now: Instant) -> Option<Instant> {
        let next = self.next_timeout(now)?;
        if self.armed.is_some_and(|armed| armed <= next) {
            return None;
        }
        self.armed = Some(next);
        Some(next)
    }

    fn next_timeout(&self, now: Instant) -> Option<Instant> {
        if self.has_news() {
            return Some(now);
        }
        let retry = (!self.blocked.is_empty()).then(|| now + RETRY);
        self.timer().into_iter().chain(retry).min()
    }

    /// The earliest timer of all connections.
    pub fn timer(&self) -> Option<Instant> {
        let timers = [self.schedule.next_due(), self.left.next_due()];
        timers.into_iter().flatten().min()
    }

    pub(super) fn run_timers(&mut self, now: Instant) {
        while let Some(connection) = self.schedule.pop_due(&mut self.connections, now) {
            let id = connection.id();
            self.run_timers_of(id, now);
        }
        self.detached.extend(self.left.expire(now));
    }

    pub(super) fn run_timers_of(&mut self, id: u64, now: Instant) {
        if let Some(connection) = self.connections.get_mut(&id) {
            guarded(connection, |c| c.run_timers(now, &self.options));
            self.pump(id, now);
        }
    }
}
