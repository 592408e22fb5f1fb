//! Counts the bytes that QUIC holds: given to it and not acknowledged yet.
//!
//! quinn keeps one send window for all streams. A bulk transfer would fill it, and a message would wait until the
//! window drains. So messages and user streams each have a share, and each stream too; what a share holds is known
//! exactly, because quinn drops a chunk once it is acknowledged.

use bytes::Bytes;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

#[derive(Clone, Default)]
pub struct Meter(Arc<AtomicUsize>);

impl Meter {
    /// The same bytes, counted until the last reference to them is dropped.
    pub fn count(&self, bytes: Bytes, also: Option<&Meter>) -> Bytes {
        self.0.fetch_add(bytes.len(), Ordering::Relaxed);
        if let Some(also) = also {
            also.0.fetch_add(bytes.len(), Ordering::Relaxed);
        }
        Bytes::from_owner(Counted {
            bytes,
            meter: self.clone(),
            also: also.cloned(),
        })
    }

    pub fn level(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

struct Counted {
    bytes: Bytes,
    meter: Meter,
    also: Option<Meter>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.meter.0.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        if let Some(also) = &self.also {
            also.0.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_until_their_last_slice_is_dropped() {
        let (all, one) = (Meter::default(), Meter::default());
        let mut whole = all.count(Bytes::from(vec![7; 100]), Some(&one));
        let front = whole.split_to(30);
        drop(whole);
        assert_eq!((all.level(), one.level()), (100, 100));
        drop(front);
        assert_eq!((all.level(), one.level()), (0, 0));
    }
}
