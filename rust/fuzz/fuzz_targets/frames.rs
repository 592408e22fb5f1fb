//! The deframer: how a stream is cut changes nothing, and what it holds is bounded.
#![no_main]

use barrel_p2p_fuzz::frame::{Deframer, FrameError, Limits, RawMessage};
use barrel_p2p_fuzz::input::{Cuts, Input};
use barrel_p2p_fuzz::memory;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

type Outcome = (Vec<RawMessage>, Option<FrameError>);

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let flags = input.byte();
    let mut cuts = Cuts::new(input.byte());
    let data = input.0;
    let roomy = Limits {
        max_frame: 1 << 16,
        max_held: usize::MAX,
        max_sequences: 100,
        fragments: flags & 1 != 0,
        atom_cache: flags & 2 != 0,
    };
    let whole = fed(roomy, data, |rest| rest);
    assert_eq!(fed(roomy, data, |_| 1), whole, "byte by byte");
    assert_eq!(
        fed(roomy, data, |rest| 1 + cuts.below(rest)),
        whole,
        "cut anywhere"
    );

    let tight = Limits {
        max_frame: 512,
        max_held: 2048,
        max_sequences: 4,
        ..roomy
    };
    stays_small(tight, data, cuts);
});

fn fed(limits: Limits, data: &[u8], mut size: impl FnMut(usize) -> usize) -> Outcome {
    let (mut deframer, mut out, mut rest) = (Deframer::new(limits), Vec::new(), data);
    while !rest.is_empty() {
        let (chunk, left) = rest.split_at(size(rest.len()));
        rest = left;
        if let Err(error) = deframer.feed(4, Bytes::copy_from_slice(chunk), &mut out) {
            return (out, Some(error));
        }
        assert!(deframer.missing(4) <= limits.max_frame);
    }
    (out, None)
}

/// The same bytes on three streams in turn, with the messages taken away as they come.
fn stays_small(limits: Limits, data: &[u8], mut cuts: Cuts) {
    let before = memory::live();
    let mut deframer = Deframer::new(limits);
    // the table of the cache, and buffers that double as they grow; the entries of the cache come on top
    let enough = 40_000
        + 4 * limits.max_held
        + if limits.atom_cache {
            data.len() * 20
        } else {
            0
        };
    let mut rest = data;
    while !rest.is_empty() {
        let (chunk, left) = rest.split_at(1 + cuts.below(rest.len()));
        rest = left;
        let chunk = Bytes::copy_from_slice(chunk);
        if deframer
            .feed(4 * cuts.below(3) as u64, chunk, &mut Vec::new())
            .is_err()
        {
            return;
        }
        let held = memory::live() - before;
        assert!(held <= enough, "{held} bytes held");
    }
}
