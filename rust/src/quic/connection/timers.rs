//! What a connection waits for: the end of the handshake, tags of user streams, QUIC's own timer, and a sign of life
//! from a peer on this host whose port the kernel calls unreachable.

use super::{Connection, Phase};
use crate::quic::options::Options;
use crate::quic::reason::CloseReason;
use std::time::{Duration, Instant};

/// How often a suspected peer is asked for a sign of life.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);

/// The kernel called the peer's port unreachable; see `Connection::suspect`.
pub struct Suspicion {
    since: Instant,
    reports: u32,
    frames_then: u64,
    next_probe: Instant,
}

impl Connection {
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

    /// Does what is due.
    pub fn run_timers(&mut self, now: Instant, options: &Options) {
        self.check_suspicion(now, Duration::from_millis(options.unreachable_ms));
        if self.handshake_deadline.is_some_and(|limit| limit <= now) {
            let text = "no TLS handshake within handshake_timeout_ms";
            self.close(now, 0, text, CloseReason::new("timeout", text));
        }
        if self.user.next_deadline().is_some_and(|at| at <= now) {
            self.unflushed |= self.user.expire(&mut self.quic, now);
        }
        if self.timer.is_some_and(|timer| timer <= now) {
            self.quic.handle_timeout(now);
            self.unflushed = true;
        }
    }

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
    fn check_suspicion(&mut self, now: Instant, unreachable: Duration) {
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
}
