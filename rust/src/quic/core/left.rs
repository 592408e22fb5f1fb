//! Sockets that connections moved away from: what still comes to them belongs to the connection.

use crate::quic::socket::Socket;
use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::time::Instant;

/// Sockets that one connection left and that are read still; older ones are given up at once.
const MAX_LEFT: usize = 8;

#[derive(Default)]
pub struct LeftSockets(BTreeMap<RawFd, Left>);

struct Left {
    socket: Socket,
    /// The key of the endpoint it belongs to.
    endpoint: RawFd,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The new path is unproven, and the connection may come back.
    Needed,
    /// What is on its way is read until then.
    Lingering(Instant),
    /// The event loop was told to forget it.
    Offered,
}

impl LeftSockets {
    /// A connection left `socket`, and its endpoint is known as `endpoint` from now on.
    pub fn leave(&mut self, socket: Socket, endpoint: RawFd) {
        let old = socket.fd();
        for earlier in self.of(old) {
            earlier.endpoint = endpoint;
        }
        let left = Left {
            socket,
            endpoint,
            state: State::Needed,
        };
        self.0.insert(old, left);
    }

    /// Takes out the socket that a connection may come back to.
    pub fn take_back(&mut self, endpoint: RawFd) -> Option<Socket> {
        let mut mine = self.0.iter().filter(|(_, l)| l.endpoint == endpoint);
        let fd = *mine.find(|(_, left)| left.state == State::Needed)?.0;
        self.0.remove(&fd).map(|left| left.socket)
    }

    /// The new path is proven: the socket before it is needed for what is on its way only.
    pub fn linger(&mut self, endpoint: RawFd, until: Instant) {
        for left in self.of(endpoint) {
            if left.state == State::Needed {
                left.state = State::Lingering(until);
            }
        }
    }

    /// Keeps few sockets, however often a connection moves.
    pub fn limit(&mut self, endpoint: RawFd, now: Instant) {
        let mut lingering: Vec<_> = self
            .of(endpoint)
            .filter_map(|left| Some((left.until()?, left)))
            .collect();
        lingering.sort_by_key(|(until, _)| *until);
        let surplus = (lingering.len() + 1).saturating_sub(MAX_LEFT);
        for (_, left) in lingering.into_iter().take(surplus) {
            left.state = State::Lingering(now);
        }
    }

    /// The sockets that nothing is expected on any more; each is named once.
    pub fn expire(&mut self, now: Instant) -> impl Iterator<Item = RawFd> + '_ {
        let all = self.0.values_mut();
        all.filter(move |left| left.until().is_some_and(|until| until <= now))
            .map(Left::offer)
    }

    /// The same when their connection is over.
    pub fn abandon(&mut self, endpoint: RawFd) -> impl Iterator<Item = RawFd> + '_ {
        self.of(endpoint)
            .filter(|left| left.state != State::Offered)
            .map(Left::offer)
    }

    /// When `expire` has something.
    pub fn next_due(&self) -> Option<Instant> {
        self.0.values().filter_map(Left::until).min()
    }

    /// The socket of that number, and the key of its endpoint.
    pub fn get_mut(&mut self, fd: RawFd) -> Option<(&mut Socket, RawFd)> {
        self.0
            .get_mut(&fd)
            .map(|left| (&mut left.socket, left.endpoint))
    }

    /// Closes one; false if there is none of that number.
    pub fn remove(&mut self, fd: RawFd) -> bool {
        self.0.remove(&fd).is_some()
    }

    pub fn fds(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.0.keys().copied()
    }

    fn of(&mut self, endpoint: RawFd) -> impl Iterator<Item = &mut Left> {
        self.0
            .values_mut()
            .filter(move |left| left.endpoint == endpoint)
    }
}

impl Left {
    fn until(&self) -> Option<Instant> {
        match self.state {
            State::Lingering(until) => Some(until),
            _ => None,
        }
    }

    fn offer(&mut self) -> RawFd {
        self.state = State::Offered;
        self.socket.fd()
    }
}
