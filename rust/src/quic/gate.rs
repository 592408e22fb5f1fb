//! Who gets a TLS handshake: decided by the first packet alone, before anything that costs.
//!
//! Whoever reaches the port can begin handshakes, from forged addresses too. What that may cost is bounded step by step:
//!
//! 1. *First packets that are looked at* (keys derived, perhaps answered) have a rate over all. Past it they are dropped
//!    unread; the last quarter is kept for those with a token, which come from dialers that were asked to prove their
//!    address.
//! 2. *While it is calm* a dialer is let in at once. It is calm while fewer than half of the places for strangers are
//!    taken, less than half of the rate of handshakes is used up, and the address has some of its budget left.
//!    Otherwise a dialer has to prove its address first, by a Retry, which costs us no memory.
//! 3. *A proven address* has a budget (`budget`), and only a proven one is charged: who forges addresses spends nobody's.
//!    Past it, it is refused.
//! 4. *Handshakes* have a rate over all. The more of its budget an address has spent, the more of the rate must be left:
//!    who fails all the time leaves room for who does not.
//! 5. *Places for strangers*, who have not shown who they are, are few. When all are taken a proven address that holds less
//!    than its share of them gets the place of somebody unproven, or else the oldest of the address with the most.
//!
//! Refusals have a rate too. Past it a dialer gets no answer, which costs us nothing and is sent on to nobody; an honest
//! one sends its packet again after a second or so, as QUIC has it.

use crate::budget::{source_of, Bucket, Budget};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Instant;

/// The bucket of first packets holds this part of a second: as long may a loop be away without a loss to dialers, and
/// a quarter of it is what it takes then to look at them all.
const LOOKS_BURST: u64 = 25;

/// What the gate is set up with; the options of the same names say where the defaults come from.
pub struct Limits {
    pub max_unauthenticated: u64,
    pub first_packets_per_second: u64,
    pub handshakes_per_second: u64,
    pub refusals_per_second: u64,
    pub address_burst: u64,
    pub address_per_second: u64,
}

/// A packet that may be the first of a dialer, or that we would answer for its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstPacket {
    Initial { token: bool },
    OtherVersion,
}

impl FirstPacket {
    /// Tells by the first bytes; None for packets of connections, and for what is too short to be answered.
    pub fn read(datagram: &[u8]) -> Option<Self> {
        const LEAST: usize = 1200;
        if datagram.len() < LEAST || datagram[0] & 0x80 == 0 {
            return None;
        }
        if datagram[1..5] != [0, 0, 0, 1] {
            return Some(Self::OtherVersion);
        }
        let is_initial = datagram[0] & 0x30 == 0;
        let source_id = 6 + usize::from(datagram[5]);
        let token = source_id + 1 + usize::from(*datagram.get(source_id)?);
        let rest = datagram.get(token..)?;
        // Its length has 1, 2, 4 or 8 bytes, and nothing keeps a zero from being the longest.
        let width = 1 << (rest.first()? >> 6);
        let length = rest.get(..width)?;
        let token = length[0] & 0x3f != 0 || length[1..].iter().any(|byte| *byte != 0);
        is_initial.then_some(Self::Initial { token })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    /// Accept, and close this connection, which has lost its place.
    AcceptInsteadOf(u64),
    /// Ask the dialer to prove its address.
    Retry,
    /// Tell it that we don't want it now.
    Refuse,
    Ignore,
}

/// How many dialers were turned away, by reason; one that was asked to prove its address may have come back.
#[derive(Debug, Default, Clone)]
pub struct TurnedAway {
    retry: u64,
    refused_load: u64,
    refused_address: u64,
    ignored_load: u64,
    ignored_address: u64,
    ignored_flood: u64,
    gave_way: u64,
}

impl TurnedAway {
    pub fn by_reason(&self) -> [(&'static str, u64); 7] {
        [
            ("retry", self.retry),
            ("refused_load", self.refused_load),
            ("refused_address", self.refused_address),
            ("ignored_load", self.ignored_load),
            ("ignored_address", self.ignored_address),
            ("ignored_flood", self.ignored_flood),
            ("gave_way", self.gave_way),
        ]
    }
}

/// A connection whose dialer has not shown who it is.
struct Stranger {
    source: IpAddr,
    /// It gets what is sent to its address.
    proven: bool,
}

pub struct Gate {
    max_strangers: usize,
    looks: Bucket,
    pace: Bucket,
    refusals: Bucket,
    addresses: Budget,
    /// By the number of the connection, so the oldest comes first.
    strangers: BTreeMap<u64, Stranger>,
    /// How many of them each source has.
    held: HashMap<IpAddr, usize>,
    turned_away: TurnedAway,
}

impl Gate {
    pub fn new(limits: &Limits) -> Self {
        let looks = limits.first_packets_per_second;
        Self {
            max_strangers: limits.max_unauthenticated as usize,
            looks: Bucket::new((looks / LOOKS_BURST).max(1), looks),
            pace: Bucket::new(limits.handshakes_per_second, limits.handshakes_per_second),
            refusals: Bucket::new(limits.refusals_per_second, limits.refusals_per_second),
            addresses: Budget::new(limits.address_burst, limits.address_per_second),
            strangers: BTreeMap::new(),
            held: HashMap::new(),
            turned_away: TurnedAway::default(),
        }
    }

    pub fn turned_away(&self) -> &TurnedAway {
        &self.turned_away
    }

    /// How many places are taken.
    pub fn strangers(&self) -> usize {
        self.strangers.len()
    }

    // --- before a packet is read -----------------------------------------------------------------------------------

    /// Whether a first packet may be looked at. `looked` or `overlooked` follows, if no connection owned it.
    pub fn may_look(&self, packet: FirstPacket, now: Instant) -> bool {
        let token = packet == FirstPacket::Initial { token: true };
        let kept = if token { 0.0 } else { self.looks.size() / 4.0 };
        self.looks.level(now) >= kept + 1.0
    }

    pub fn looked(&mut self, now: Instant) {
        self.looks.take(now);
    }

    pub fn overlooked(&mut self) {
        self.turned_away.ignored_flood += 1;
    }

    // --- before the handshake --------------------------------------------------------------------------------------

    /// What becomes of a dialer; `proven` if it answered a Retry. After `Accept...` call `began`.
    pub fn decide(&mut self, from: IpAddr, proven: bool, now: Instant) -> Verdict {
        let share_left = self.addresses.share_left(from, now);
        let (pace, most) = (self.pace.level(now), self.pace.size());
        if !proven {
            let room = self.strangers.len() < self.max_strangers / 2;
            if room && share_left > 0.0 && pace >= (most / 2.0).max(1.0) {
                self.pace.take(now);
                return Verdict::Accept;
            }
            self.turned_away.retry += 1;
            return Verdict::Retry;
        }
        if share_left == 0.0 {
            let refuse = self.refusals.take(now);
            self.turned_away.refused_address += u64::from(refuse);
            self.turned_away.ignored_address += u64::from(!refuse);
            return refusal(refuse);
        }
        let full = self.strangers.len() >= self.max_strangers;
        if full && !self.deserves_a_place(from) {
            let refuse = self.refusals.take(now);
            self.turned_away.refused_load += u64::from(refuse);
            self.turned_away.ignored_load += u64::from(!refuse);
            return refusal(refuse);
        }
        if pace < ((1.0 - share_left) * most / 2.0).max(1.0) {
            self.turned_away.ignored_load += 1;
            return Verdict::Ignore;
        }
        self.pace.take(now);
        self.addresses.begin(from, now);
        match full.then(|| self.who_gives_way()).flatten() {
            Some(id) => {
                self.gone(id);
                self.turned_away.gave_way += 1;
                Verdict::AcceptInsteadOf(id)
            }
            None => Verdict::Accept,
        }
    }

    fn deserves_a_place(&self, from: IpAddr) -> bool {
        let holds = self.held.get(&source_of(from)).copied().unwrap_or(0);
        let sources = self.held.len() + usize::from(holds == 0);
        self.strangers.values().any(|s| !s.proven) || (holds + 1) * sources <= self.max_strangers
    }

    fn who_gives_way(&self) -> Option<u64> {
        let most = self.held.values().max();
        let unproven = self.strangers.iter().find(|(_, s)| !s.proven);
        let heaviest = || {
            let of_heaviest = |s: &Stranger| self.held.get(&s.source) == most;
            self.strangers.iter().find(|(_, s)| of_heaviest(s))
        };
        unproven.or_else(heaviest).map(|(id, _)| *id)
    }

    // --- what becomes of those who were let in ---------------------------------------------------------------------

    pub fn began(&mut self, id: u64, from: IpAddr, proven: bool) {
        let source = source_of(from);
        *self.held.entry(source).or_default() += 1;
        self.strangers.insert(id, Stranger { source, proven });
    }

    /// The TLS handshake is done: the address is no forged one.
    pub fn proved(&mut self, id: u64, now: Instant) {
        if let Some(stranger) = self.strangers.get_mut(&id).filter(|s| !s.proven) {
            stranger.proven = true;
            self.addresses.begin(stranger.source, now);
        }
    }

    /// The peer has shown who it is.
    pub fn known(&mut self, id: u64, now: Instant) {
        if let Some(source) = self.gone(id) {
            self.addresses.succeeded(source, now);
        }
    }

    /// The connection has ended; returns whose it was, if it was a stranger's.
    pub fn gone(&mut self, id: u64) -> Option<IpAddr> {
        let source = self.strangers.remove(&id)?.source;
        if let Some(count) = self.held.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.held.remove(&source);
            }
        }
        Some(source)
    }
}

fn refusal(told: bool) -> Verdict {
    if told {
        Verdict::Refuse
    } else {
        Verdict::Ignore
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{ADDRESS_BURST, ADDRESS_PER_SECOND};
    use std::time::Duration;

    const LIMITS: Limits = Limits {
        max_unauthenticated: 8,
        first_packets_per_second: 2_500,
        handshakes_per_second: 100,
        refusals_per_second: 2,
        address_burst: 20,
        address_per_second: 1,
    };

    /// A gate, and a door-keeper's view of what passes it.
    struct Door {
        gate: Gate,
        now: Instant,
        last: u64,
    }

    impl Door {
        fn new(limits: Limits) -> Self {
            Self {
                gate: Gate::new(&limits),
                now: Instant::now(),
                last: 0,
            }
        }

        fn wait(&mut self, ms: u64) {
            self.now += Duration::from_millis(ms);
        }

        fn knock(&mut self, from: &str, proven: bool) -> Verdict {
            let from: IpAddr = from.parse().expect("an address");
            let verdict = self.gate.decide(from, proven, self.now);
            if matches!(verdict, Verdict::Accept | Verdict::AcceptInsteadOf(_)) {
                self.last += 1;
                self.gate.began(self.last, from, proven);
            }
            verdict
        }

        fn count(&self, reason: &str) -> u64 {
            let counts = self.gate.turned_away().by_reason();
            let found = counts.iter().find(|(name, _)| *name == reason);
            found.expect("a reason").1
        }
    }

    #[test]
    fn half_of_the_places_are_for_proven_addresses() {
        let mut door = Door::new(LIMITS);
        for n in 0..4 {
            assert_eq!(door.knock(&format!("10.0.0.{n}"), false), Verdict::Accept);
        }
        assert_eq!(door.knock("10.0.0.9", false), Verdict::Retry);
        assert_eq!(door.knock("10.0.0.9", true), Verdict::Accept);
        door.gate.gone(1);
        door.gate.known(2, door.now);
        assert_eq!(door.knock("10.0.0.5", false), Verdict::Accept);
    }

    #[test]
    fn one_address_fills_the_places_and_is_refused_then() {
        let mut door = Door::new(LIMITS);
        for _ in 0..8 {
            assert_eq!(door.knock("10.0.0.1", true), Verdict::Accept);
        }
        let told: Vec<_> = (0..4).map(|_| door.knock("10.0.0.1", true)).collect();
        assert_eq!(told[..2], [Verdict::Refuse; 2]);
        assert_eq!(told[2..], [Verdict::Ignore; 2], "refusals are few");
        assert_eq!(door.knock("10.0.0.1", false), Verdict::Retry);
        assert_eq!(
            (door.count("refused_load"), door.count("ignored_load")),
            (2, 2)
        );
    }

    #[test]
    fn a_newcomer_gets_its_share_of_the_places() {
        let mut door = Door::new(LIMITS);
        for _ in 0..8 {
            door.knock("10.0.0.1", true);
        }
        let verdicts: Vec<_> = (0..5).map(|_| door.knock("10.0.0.2", true)).collect();
        let oldest = [1, 2, 3, 4].map(Verdict::AcceptInsteadOf);
        assert_eq!(
            verdicts[..4],
            oldest,
            "half of the places, the oldest first"
        );
        assert_eq!(verdicts[4], Verdict::Refuse);
        assert_eq!(
            door.knock("10.0.0.1", true),
            Verdict::Refuse,
            "nor does the other get more than half"
        );
        assert!(matches!(
            door.knock("10.0.0.3", true),
            Verdict::AcceptInsteadOf(_)
        ));
        assert_eq!(door.gate.strangers.len(), 8);
        assert_eq!(door.count("gave_way"), 5);
    }

    #[test]
    fn who_is_unproven_gives_way_to_who_is_proven() {
        let mut door = Door::new(LIMITS);
        for n in 0..4 {
            door.knock(&format!("10.0.0.{n}"), false);
        }
        door.gate.proved(1, door.now);
        for n in 0..4 {
            door.knock(&format!("10.0.1.{n}"), true);
        }
        assert_eq!(door.knock("10.0.2.1", true), Verdict::AcceptInsteadOf(2));
        assert_eq!(door.knock("10.0.2.1", true), Verdict::AcceptInsteadOf(3));
    }

    #[test]
    fn only_proven_addresses_are_charged() {
        let mut door = Door::new(Limits {
            address_burst: 3,
            max_unauthenticated: 64,
            ..LIMITS
        });
        for _ in 0..10 {
            assert_eq!(
                door.knock("192.0.2.1", false),
                Verdict::Accept,
                "forged, perhaps"
            );
            door.gate.gone(door.last);
        }
        for _ in 0..3 {
            assert_eq!(door.knock("192.0.2.1", false), Verdict::Accept);
            door.gate.proved(door.last, door.now); // the TLS handshake is done
            door.gate.gone(door.last); // and the cookie was wrong
        }
        assert_eq!(
            door.knock("192.0.2.1", false),
            Verdict::Retry,
            "no calm for this address"
        );
        assert_eq!(door.knock("192.0.2.1", true), Verdict::Refuse);
        assert_eq!(door.count("refused_address"), 1);
        assert_eq!(door.knock("192.0.2.2", false), Verdict::Accept);
        door.wait(1000);
        assert_eq!(door.knock("192.0.2.1", true), Verdict::Accept);
    }

    #[test]
    fn many_good_nodes_behind_one_address_never_wait() {
        let mut door = Door::new(LIMITS);
        for n in 0..500 {
            assert_eq!(door.knock("192.0.2.1", n % 2 == 0), Verdict::Accept);
            door.gate.proved(door.last, door.now);
            door.gate.known(door.last, door.now);
            door.wait(20);
        }
    }

    #[test]
    fn handshakes_have_a_rate_over_all_and_who_fails_leaves_room_for_others() {
        let mut door = Door::new(Limits {
            max_unauthenticated: 64,
            ..LIMITS
        });
        let (mut failed, mut honest) = (0, 0);
        for n in 0..400 {
            let verdict = door.knock(&format!("10.0.0.{}", n % 10), true);
            if verdict == Verdict::Accept {
                door.gate.gone(door.last);
                failed += 1;
            }
            if n % 40 == 39 {
                let verdict = door.knock(&format!("10.0.1.{}", n / 40), true);
                honest += u64::from(verdict == Verdict::Accept);
                door.gate.known(door.last, door.now);
            }
        }
        assert!((50..100).contains(&failed), "{failed}");
        assert_eq!(honest, 10);
        for _ in 0..200 {
            assert_ne!(
                door.knock("10.0.0.1", false),
                Verdict::Accept,
                "the pace is used up"
            );
        }
    }

    #[test]
    fn who_begins_and_ends_handshakes_all_the_time_leaves_room_for_others() {
        let mut door = Door::new(Limits {
            max_unauthenticated: 64,
            handshakes_per_second: 256,
            address_burst: ADDRESS_BURST,
            address_per_second: ADDRESS_PER_SECOND,
            ..LIMITS
        });
        let mut honest = Vec::new();
        for ms in 0..20_000 {
            door.wait(1);
            for n in 0..10 {
                let from = format!("10.0.0.{}", (ms * 10 + n) % 48);
                if door.knock(&from, true) == Verdict::Accept {
                    door.gate.gone(door.last);
                }
            }
            if ms % 100 == 50 {
                honest.push(door.knock("192.0.2.1", true));
                door.gate.known(door.last, door.now);
            }
        }
        let kept_out = |verdicts: &[Verdict]| {
            let out = verdicts.iter().filter(|v| **v != Verdict::Accept);
            out.count()
        };
        assert!(
            kept_out(&honest[..20]) <= 10,
            "while the others have spent nothing"
        );
        assert_eq!(kept_out(&honest[20..]), 0);
    }

    #[test]
    fn first_packets_have_a_rate_and_a_quarter_is_for_those_with_a_token() {
        let mut door = Door::new(LIMITS);
        let [new, back] = [false, true].map(|token| FirstPacket::Initial { token });
        let mut looked = |packet| {
            let may = door.gate.may_look(packet, door.now);
            if may {
                door.gate.looked(door.now);
            }
            may
        };
        assert_eq!(
            (0..1000).filter(|_| looked(new)).count(),
            75,
            "100 are a 25th of a second"
        );
        assert!(!looked(FirstPacket::OtherVersion));
        assert_eq!((0..1000).filter(|_| looked(back)).count(), 25);
        door.wait(20);
        assert!(door.gate.may_look(new, door.now));
    }

    #[test]
    fn first_packets_are_told_by_their_first_bytes() {
        let packet = |start: &[u8], size: usize| {
            let mut bytes = start.to_vec();
            bytes.resize(size, 0);
            FirstPacket::read(&bytes)
        };
        let no_token = [0xc3, 0, 0, 0, 1, 2, 7, 7, 1, 9, 0];
        let long_zero = [0xc3, 0, 0, 0, 1, 2, 7, 7, 1, 9, 0x80, 0, 0, 0, 8];
        let token = [0xc3, 0, 0, 0, 1, 2, 7, 7, 1, 9, 0x40, 80];
        assert_eq!(
            packet(&no_token, 1200),
            Some(FirstPacket::Initial { token: false })
        );
        assert_eq!(
            packet(&long_zero, 1200),
            Some(FirstPacket::Initial { token: false })
        );
        assert_eq!(
            packet(&token, 1200),
            Some(FirstPacket::Initial { token: true })
        );
        assert_eq!(packet(&no_token, 1199), None, "too short for one");
        assert_eq!(
            packet(&[0xe3, 0, 0, 0, 1], 1200),
            None,
            "a Handshake packet"
        );
        assert_eq!(packet(&[0x43], 1200), None, "a short header");
        assert_eq!(
            packet(&[0xc3, 9, 9, 9, 9], 1200),
            Some(FirstPacket::OtherVersion)
        );
        assert_eq!(FirstPacket::read(&[]), None);
        let mut ids = vec![0xff; 1200];
        ids[..5].copy_from_slice(&[0xc3, 0, 0, 0, 1]);
        assert_eq!(
            FirstPacket::read(&ids),
            Some(FirstPacket::Initial { token: true })
        );
    }

    #[test]
    fn nothing_is_kept_of_who_left() {
        let mut door = Door::new(LIMITS);
        for n in 0..1000 {
            door.knock(&format!("10.1.{}.{}", n / 250, n % 250), n % 3 > 0);
            door.gate.gone(door.last);
            door.wait(50);
        }
        assert!(door.gate.strangers.is_empty() && door.gate.held.is_empty());
    }
}
