//! The decoder of terms: its builders agree, what it reads can be read again, and memory stays in proportion.
#![no_main]

use barrel_p2p_fuzz::etf::{canonical::Canonical, check::Check, AtomText, Fail, Limits, Reader};
use barrel_p2p_fuzz::input::Input;
use barrel_p2p_fuzz::memory;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// What ATOM_CACHE_REF 0, 1, .. stand for: common ones, none at all, no UTF-8, the longest.
static ATOMS: LazyLock<Vec<AtomText>> = LazyLock::new(|| {
    let longest = "\u{10348}".repeat(255);
    let texts: [&[u8]; 5] = [b"ok", b"a@b", b"", b"\xff", longest.as_bytes()];
    texts.map(AtomText::from).to_vec()
});

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let flags = input.byte();
    let data = input.0;
    let limits = Limits {
        depth: if flags & 1 == 0 { 512 } else { 3 },
        bytes: 1 << 16,
        empty_text: flags & 2 != 0,
        ..Limits::default()
    };
    let atoms: &[AtomText] = if flags & 4 == 0 { &[] } else { &ATOMS };
    // what funs and compared keys grow by is bounded for itself; they are there several times for a moment
    let growth = if atoms.is_empty() {
        0
    } else {
        2 * limits.bytes + 256 * data.len()
    };
    let enough = 64 * data.len() + (64 << 10) + growth;

    let (checked, used) = memory::peak(|| {
        let mut reader = Reader::new(data, 0, limits).with_atoms(atoms);
        reader
            .term(&mut Check::default())
            .map(|()| reader.position())
    });
    assert!(used <= enough, "checking {} bytes took {used}", data.len());
    let (built, used) = memory::peak(|| {
        let mut reader = Reader::new(data, 0, limits).with_atoms(atoms);
        let mut canonical = Canonical::new(64 * data.len());
        reader
            .term(&mut canonical)
            .map(|term| (term, reader.position()))
    });
    assert!(
        used <= enough,
        "the canonical form of {} bytes took {used}",
        data.len()
    );
    match (checked, built) {
        (Ok(end), Ok((term, built_end))) => {
            assert_eq!(end, built_end);
            match canonical(&term) {
                Ok(again) => assert!(again == (term.clone(), term.len()), "it is its own form"),
                // a shorter form has less work to spend on the same maps
                Err(fault) => assert!(fault.contains("too often"), "{fault}"),
            }
        }
        (Ok(_), Err(fail)) => assert!(only_canonical_refuses(&fail), "{fail}"),
        (Err(fail), Ok(_)) => panic!("what is refused has a canonical form: {fail}"),
        (Err(_), Err(_)) => {}
    }

    let (_, used) = memory::peak(|| Reader::new(data, 0, limits).versioned(&mut Check::default()));
    assert!(
        used <= enough + 2 * limits.bytes,
        "{} bytes took {used}",
        data.len()
    );
});

/// It alone holds the keys of maps beside each other, and writes out the atoms that others share.
fn only_canonical_refuses(fail: &Fail) -> bool {
    ["duplicate key in a map", "are too long"]
        .iter()
        .any(|what| fail.what.contains(what))
}

fn canonical(data: &[u8]) -> Result<(Vec<u8>, usize), String> {
    let mut reader = Reader::new(
        data,
        0,
        Limits {
            bytes: data.len(),
            ..Limits::default()
        },
    );
    let term = reader
        .term(&mut Canonical::new(data.len()))
        .map_err(|fail| fail.to_string())?;
    Ok((term, reader.position()))
}
