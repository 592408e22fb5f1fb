//! When queued messages leave before the turn of the event loop is over.

/// So many bytes are worth a flush of their own: the peer begins with them while the sender goes on. Less would cost system
/// calls, more would let the two take turns (docs/internals/data-plane.md).
pub const BURST: usize = 16 << 10;

/// Whether the last `added` of `queued` bytes completed another burst.
pub fn completes_burst(queued: usize, added: usize) -> bool {
    queued / BURST != (queued - added) / BURST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_burst_is_complete_once() {
        let added = 100;
        let complete = (1..=BURST).filter(|n| completes_burst(n * added, added));
        assert_eq!(complete.count(), added);
        assert!(completes_burst(3 * BURST + 1, 2 * BURST + 2));
        assert!(!completes_burst(BURST - 1, BURST - 1));
        assert!(!completes_burst(0, 0));
    }
}
