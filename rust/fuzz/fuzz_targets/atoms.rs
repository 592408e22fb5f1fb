//! Distribution headers: any bytes are read or refused, and what our cache writes the other side's mirror understands.
#![no_main]

use barrel_p2p_fuzz::atom_cache::{ReceiveCache, SendCache};
use barrel_p2p_fuzz::input::Input;
use barrel_p2p_fuzz::memory;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    any_bytes(data);
    our_own(Input(data));
});

/// As many headers as there are, one behind the other.
fn any_bytes(data: &[u8]) {
    let before = memory::live();
    let mut cache = ReceiveCache::new();
    let mut at = 0;
    while at < data.len() {
        let Ok((atoms, end)) = cache.read(data, at) else {
            break;
        };
        assert!(end > at && end <= data.len());
        assert_eq!(atoms.len(), usize::from(data[at]));
        assert!(atoms.iter().all(|text| text.len() <= 1020));
        at = end;
    }
    let held = memory::live() - before;
    assert!(held <= 34_000 + 20 * data.len(), "{held} bytes held");
}

fn our_own(mut input: Input<'_>) {
    let (mut ours, mut theirs) = (SendCache::new(), ReceiveCache::new());
    while !input.is_empty() {
        let orders = input.byte();
        for _ in 0..orders & 31 {
            let size = usize::from(input.byte());
            let text = input.bytes(size);
            if let Some(index) = ours.refer(text) {
                assert_eq!(*ours.referred()[usize::from(index)], *text);
            }
        }
        if orders & 32 != 0 {
            ours.forget();
            continue;
        }
        let (expected, mut header) = (ours.referred(), Vec::new());
        ours.finish(&mut header);
        assert_eq!(theirs.read(&header, 0), Ok((expected, header.len())));
    }
}
