//! Which connections want something, so that nobody walks over all of them, however many there are.
//!
//! Each is in up to three lists, and says itself in which (`Scheduled`): those that the next flush looks at, because
//! something was done to them; those with something to report, in turn; and the timetable.

use crate::quic::connection::Connection;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

#[derive(Default)]
pub struct Schedule {
    active: Vec<u64>,
    ready: VecDeque<u64>,
    due: BTreeSet<(Instant, u64)>,
}

/// Where one connection stands in the schedule.
#[derive(Default)]
pub struct Scheduled {
    active: bool,
    ready: bool,
    due: Option<Instant>,
}

impl Schedule {
    /// The next flush looks at this connection.
    pub fn touch(&mut self, connection: &mut Connection) {
        if !std::mem::replace(&mut connection.scheduled.active, true) {
            self.active.push(connection.id());
        }
    }

    /// The same, and its turn to report comes if it has something.
    pub fn mark(&mut self, connection: &mut Connection) {
        self.touch(connection);
        self.queue(connection);
    }

    fn queue(&mut self, connection: &mut Connection) {
        if !connection.scheduled.ready && connection.has_news() {
            connection.scheduled.ready = true;
            self.ready.push_back(connection.id());
        }
    }

    /// The connections for this flush; `settle` each.
    pub fn take_active(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.active)
    }

    /// The flush is through with a connection: notes what it waits for now.
    pub fn settle(&mut self, connection: &mut Connection) {
        connection.scheduled.active = false;
        if connection.unflushed && !connection.broken {
            self.touch(connection);
        }
        self.queue(connection);
        self.set_due(connection, connection.next_due());
    }

    fn set_due(&mut self, connection: &mut Connection, next: Option<Instant>) {
        let before = std::mem::replace(&mut connection.scheduled.due, next);
        if before != next {
            let id = connection.id();
            before.map(|at| self.due.remove(&(at, id)));
            next.map(|at| self.due.insert((at, id)));
        }
    }

    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// How many connections have something to report.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Whose turn it is to report; None if that one is gone.
    pub fn next_ready<'a>(
        &mut self,
        connections: &'a mut BTreeMap<u64, Connection>,
    ) -> Option<&'a mut Connection> {
        let connection = connections.get_mut(&self.ready.pop_front()?)?;
        connection.scheduled.ready = false;
        Some(connection)
    }

    /// When the first connection is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes the first connection that is due out of the timetable, until the flush that follows.
    pub fn pop_due<'a>(
        &mut self,
        connections: &'a mut BTreeMap<u64, Connection>,
        now: Instant,
    ) -> Option<&'a mut Connection> {
        let (at, id) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.due.pop_first();
        let connection = connections.get_mut(&id)?;
        connection.scheduled.due = None;
        Some(connection)
    }

    /// The connection is over; it has no turn any more when it comes.
    pub fn forget(&mut self, connection: &mut Connection) {
        self.set_due(connection, None);
    }
}
