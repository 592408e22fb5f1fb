//! The preamble of a user stream: however a stream is cut, the same tag is read and the same bytes are left.
#![no_main]

use barrel_p2p_fuzz::input::{Cuts, Input};
use barrel_p2p_fuzz::memory;
use barrel_p2p_fuzz::preamble::Preamble;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let mut cuts = Cuts::new(input.byte());
    let data = input.0;
    // what the length in the first byte says
    let whole = data.first().map_or(1, |length| 1 + usize::from(*length));
    let tag = data.get(1..whole);
    for size in [&mut |rest| rest, &mut |_| 1, &mut |rest| {
        1 + cuts.below(rest)
    }] as [&mut dyn FnMut(usize) -> usize; 3]
    {
        let (read, used) = memory::peak(|| fed(data, size));
        assert!(used <= 1024, "{used} bytes for a preamble");
        assert_eq!(read, (data.len().min(whole), tag.map(<[u8]>::to_vec)));
    }
    as_it_asks(data);
});

/// What was taken, and the tag.
fn fed(data: &[u8], size: &mut dyn FnMut(usize) -> usize) -> (usize, Option<Vec<u8>>) {
    let (mut preamble, mut taken, mut rest) = (Preamble::default(), 0, data);
    while !rest.is_empty() {
        let (chunk, left) = rest.split_at(size(rest.len()));
        rest = left;
        let here = preamble.feed(chunk);
        assert!(here == chunk.len() || preamble.tag().is_some());
        taken += here;
    }
    (taken, preamble.tag().map(<[u8]>::to_vec))
}

/// As a stream is read: never more than what is missing, so that nothing has to be put back.
fn as_it_asks(data: &[u8]) {
    let (mut preamble, mut rest) = (Preamble::default(), data);
    while preamble.tag().is_none() {
        let missing = preamble.missing();
        assert!((1..=255).contains(&missing));
        let (chunk, left) = rest.split_at(missing.min(rest.len()));
        if chunk.is_empty() {
            return;
        }
        assert_eq!(preamble.feed(chunk), chunk.len());
        rest = left;
    }
    assert_eq!(preamble.missing(), 0);
    assert_eq!(preamble.feed(rest), 0);
}
