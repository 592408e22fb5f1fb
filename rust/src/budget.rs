//! Buckets of tokens, and the budget of source addresses: handshakes that they begin and do not finish.
//!
//! A handshake takes a token of its address, a success gives it back: so many good nodes behind one address don't wait
//! for each other. An IPv6 host owns at least 2^64 addresses, so the first half of the address counts.
//!
//! The table is bounded. Where it is full, addresses that owe nothing go first, then the one that was quiet for the
//! longest time: who has thousands of addresses gets round it, and is held by what counts over all of them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

/// Handshakes that an address may have begun at once; four times a node's `max_unauthenticated`.
pub const ADDRESS_BURST: u64 = 256;
/// Failed handshakes of one address that we bear for long, some 2 ms of CPU each. As many addresses as a node has places
/// for strangers then stay below the rate of handshakes over all, and leave some of it to others.
pub const ADDRESS_PER_SECOND: u64 = 4;
/// Addresses that are counted; under a hundred bytes each.
const MAX_ADDRESSES: usize = 4096;

/// Tokens, which come back with time up to a size.
#[derive(Debug, Clone)]
pub struct Bucket {
    size: f64,
    per_second: f64,
    tokens: f64,
    /// When `tokens` was right; None: it is full since ever.
    at: Option<Instant>,
}

impl Bucket {
    pub fn new(size: u64, per_second: u64) -> Self {
        Self {
            size: size as f64,
            per_second: per_second as f64,
            tokens: size as f64,
            at: None,
        }
    }

    pub fn size(&self) -> f64 {
        self.size
    }

    /// The tokens at this moment.
    pub fn level(&self, now: Instant) -> f64 {
        let passed = self.at.map_or(0.0, |at| {
            now.saturating_duration_since(at).as_secs_f64() // 0 if the time given is an earlier one
        });
        (self.tokens + passed * self.per_second).min(self.size)
    }

    /// Takes a token if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let level = self.level(now);
        let enough = level >= 1.0;
        self.set(if enough { level - 1.0 } else { level }, now);
        enough
    }

    pub fn give_back(&mut self, now: Instant) {
        self.set((self.level(now) + 1.0).min(self.size), now);
    }

    fn set(&mut self, tokens: f64, now: Instant) {
        self.tokens = tokens;
        self.at = self.at.max(Some(now));
    }
}

/// The budget of every source address. Time is passed in.
#[derive(Debug)]
pub struct Budget {
    fresh: Bucket,
    buckets: HashMap<IpAddr, Bucket>,
}

impl Budget {
    pub fn new(burst: u64, per_second: u64) -> Self {
        Self {
            fresh: Bucket::new(burst, per_second),
            buckets: HashMap::new(),
        }
    }

    /// A handshake from an address that is proven begins; false if too many of them have failed.
    pub fn begin(&mut self, source: IpAddr, now: Instant) -> bool {
        let source = source_of(source);
        if !self.buckets.contains_key(&source) && self.buckets.len() >= MAX_ADDRESSES {
            self.make_room(now);
        }
        let fresh = &self.fresh;
        let bucket = self.buckets.entry(source).or_insert_with(|| fresh.clone());
        bucket.take(now)
    }

    /// A handshake from there ended with a channel: it costs nothing.
    pub fn succeeded(&mut self, source: IpAddr, now: Instant) {
        if let Some(bucket) = self.buckets.get_mut(&source_of(source)) {
            bucket.give_back(now);
        }
    }

    /// What part of its budget an address has left, 0 to 1; less than one handshake counts as nothing.
    pub fn share_left(&self, source: IpAddr, now: Instant) -> f64 {
        let bucket = self.buckets.get(&source_of(source));
        let level = bucket.map_or(self.fresh.size, |bucket| bucket.level(now));
        if level < 1.0 {
            0.0
        } else {
            level / self.fresh.size
        }
    }

    fn make_room(&mut self, now: Instant) {
        self.buckets
            .retain(|_, bucket| bucket.level(now) < bucket.size);
        if self.buckets.len() >= MAX_ADDRESSES {
            let quiet = self.buckets.iter().min_by_key(|(_, bucket)| bucket.at);
            let quietest = quiet.map(|(source, _)| *source);
            quietest.and_then(|source| self.buckets.remove(&source));
        }
    }
}

/// What counts as one source: an IPv4 address, the first 64 bits of an IPv6 one.
pub fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn seconds(n: f64) -> Duration {
        Duration::from_secs_f64(n)
    }

    #[test]
    fn an_address_that_fails_again_and_again_is_held_and_others_are_not() {
        let (mut budget, start) = (Budget::new(10, 2), Instant::now());
        let begun = |budget: &mut Budget, source, at| budget.begin(ip(source), at);
        let first: Vec<bool> = (0..12)
            .map(|_| begun(&mut budget, "192.0.2.1", start))
            .collect();
        assert_eq!(first, [vec![true; 10], vec![false; 2]].concat());
        assert_eq!(budget.share_left(ip("192.0.2.1"), start), 0.0);
        assert!(begun(&mut budget, "192.0.2.2", start));
        let later = start + seconds(1.0);
        let then: Vec<bool> = (0..3)
            .map(|_| begun(&mut budget, "192.0.2.1", later))
            .collect();
        assert_eq!(then, [true, true, false]);
    }

    #[test]
    fn good_nodes_behind_one_address_cost_nothing() {
        let (mut budget, now) = (Budget::new(10, 0), Instant::now());
        for _ in 0..1000 {
            assert!(budget.begin(ip("192.0.2.1"), now));
            budget.succeeded(ip("192.0.2.1"), now);
        }
        assert_eq!(budget.share_left(ip("192.0.2.1"), now), 1.0);
    }

    #[test]
    fn a_host_with_many_ipv6_addresses_is_one_source() {
        let source = |text| source_of(ip(text));
        assert_eq!(source("2001:db8:1:2:3::4"), source("2001:db8:1:2::"));
        assert_ne!(source("2001:db8:1:2::"), source("2001:db8:1:3::"));
        assert_eq!(source("::ffff:192.0.2.1"), ip("192.0.2.1"));
    }

    #[test]
    fn many_addresses_do_not_fill_the_memory_and_the_busiest_are_kept() {
        let (mut budget, start) = (Budget::new(4, 1), Instant::now());
        for n in 0..MAX_ADDRESSES as u32 + 100 {
            // All owe something, so the quietest has to go.
            let now = start + Duration::from_micros(u64::from(n));
            budget.begin(IpAddr::from((n + 1).to_be_bytes()), now);
            budget.begin(ip("192.0.2.1"), now);
        }
        assert_eq!(budget.buckets.len(), MAX_ADDRESSES);
        let end = start + Duration::from_micros(MAX_ADDRESSES as u64 + 100);
        assert_eq!(budget.share_left(ip("192.0.2.1"), end), 0.0);
        budget.begin(ip("192.0.2.2"), end + seconds(60.0));
        assert_eq!(budget.buckets.len(), 1, "the debts were old");
    }

    #[test]
    fn no_schedule_gets_more_failures_through_than_the_budget() {
        let mut random = 1u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
            (random >> 33) % below
        };
        for _ in 0..100 {
            let (mut budget, start) = (Budget::new(5, 1), Instant::now());
            let (mut passed, mut failed) = (0.0, 0.0);
            for _ in 0..200 {
                passed += next(1000) as f64 / 1000.0;
                let now = start + seconds(passed);
                if budget.begin(ip("192.0.2.1"), now) {
                    if next(2) == 0 {
                        budget.succeeded(ip("192.0.2.1"), now);
                    } else {
                        failed += 1.0;
                    }
                }
            }
            assert!(failed <= 5.0 + passed, "{failed} in {passed} s");
        }
    }

    #[test]
    fn a_clock_that_stands_or_is_late_gives_nothing() {
        let (mut bucket, now) = (Bucket::new(1, 1), Instant::now());
        assert!(bucket.take(now + seconds(5.0)));
        assert!(!bucket.take(now), "asked for an earlier time");
        assert!(!bucket.take(now + seconds(5.5)));
        assert!(bucket.take(now + seconds(6.0)));
    }
}
