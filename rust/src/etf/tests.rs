use super::canonical::canonical;
use super::check::Check;
use super::{write, Fault, Limits, Reader, MAX_DEPTH};

fn check_with(data: &[u8], limits: Limits) -> Result<usize, String> {
    let mut reader = Reader::new(data, 0, limits);
    match reader.versioned(&mut Check::default()) {
        Ok(()) => Ok(reader.position()),
        Err(fault) => Err(fault.to_string()),
    }
}

fn check(data: &[u8]) -> Result<usize, String> {
    check_with(data, Limits::default())
}

/// A small generator of our own (xorshift): no dependency, and a failure names its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// A term of a few levels, as valid bytes.
fn random_term(random: &mut Random, depth: u32, out: &mut Vec<u8>) {
    let n = random.below(4) as usize;
    match random.below(if depth == 0 { 9 } else { 13 }) {
        0 => write::integer(out, random.next() as i64),
        1 => write::integer(out, random.below(1000) as i64 - 500),
        2 => write::big(out, n > 1, &[1; 300][..9 + n * 90]),
        3 => write::float(out, n as f64 * 1.5),
        4 => write::atom(out, &b"atom"[..n]),
        5 => write::binary(out, &[7; 4][..n]),
        6 => write::bit_binary(out, &[7; 5][..n + 1], random.below(8) as u8 + 1),
        7 => {
            out.extend([super::tag::NEWER_REFERENCE, 0, n as u8 + 1]);
            write::atom(out, b"a@b");
            out.extend(vec![1; 4 * (n + 2)]);
        }
        8 => {
            out.push(super::tag::NEW_PID);
            write::atom(out, b"a@b");
            out.extend([1; 12]);
        }
        9 => {
            write::tuple(out, n);
            (0..n).for_each(|_| random_term(random, depth - 1, out));
        }
        10 => {
            write::head(out, super::tag::LIST, n as u32);
            (0..n).for_each(|_| random_term(random, depth - 1, out));
            match random.below(3) {
                0 => random_term(random, depth - 1, out),
                _ => out.push(super::tag::NIL),
            }
        }
        11 => {
            write::head(out, super::tag::MAP, n as u32);
            for key in 0..n {
                write::integer(out, key as i64);
                random_term(random, depth - 1, out);
            }
        }
        _ => {
            out.extend([super::tag::STRING, 0, n as u8]);
            out.extend(vec![b'x'; n]);
        }
    }
}

#[test]
fn whole_terms_are_read_to_their_end_and_cut_ones_never() {
    for seed in 1..500 {
        let mut random = Random(seed);
        let mut data = vec![131];
        random_term(&mut random, 5, &mut data);
        assert_eq!(check(&data), Ok(data.len()), "seed {seed}: {data:02x?}");
        for end in 0..data.len() {
            assert!(
                check(&data[..end]).is_err(),
                "seed {seed} cut at {end}: {data:02x?}"
            );
        }
        data.extend(b"rest");
        assert_eq!(check(&data), Ok(data.len() - 4), "seed {seed} with a tail");
    }
}

#[test]
fn no_bytes_make_the_reader_panic() {
    for seed in 1..3_000 {
        let mut random = Random(seed);
        let mut data = vec![131];
        random_term(&mut random, 4, &mut data);
        for _ in 0..random.below(6) {
            let at = random.below(data.len() as u64) as usize;
            data[at] = random.next() as u8;
        }
        let _ = check(&data);
        let _ = canonical(&data[1..], Limits::default(), &[]);
    }
    for seed in 1..20_000 {
        let mut random = Random(seed);
        let noise: Vec<u8> = (0..random.below(40))
            .map(|_| (64 + random.below(60)) as u8 % 122)
            .collect();
        let _ = check(&[&[131], &noise[..]].concat());
        let _ = canonical(&noise, Limits::default(), &[]);
    }
}

#[test]
fn the_deepest_term_fits_a_small_stack() {
    let read = |levels: usize, depth: u32| {
        let data = [&[131][..], &[104, 1].repeat(levels), &[106]].concat();
        check_with(
            &data,
            Limits {
                depth,
                ..Limits::default()
            },
        )
    };
    let thread = std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(move || {
            let deepest = MAX_DEPTH as usize;
            assert!(read(deepest, MAX_DEPTH).is_ok());
            assert!(read(deepest + 1, MAX_DEPTH)
                .unwrap_err()
                .contains("max_depth=1024"));
            assert!(read(1_000_000, MAX_DEPTH).is_err());
        });
    thread.unwrap().join().unwrap();
}

#[test]
fn the_offset_of_a_fault_is_where_the_broken_term_starts() {
    assert_eq!(
        check(&[131, 104, 2, 97, 1, 200]).unwrap_err(),
        "at offset 5: unknown tag 200"
    );
    assert_eq!(
        check(&[130, 97, 1]).unwrap_err(),
        "at offset 0: an external term starts with the byte 131"
    );
    assert!(check(&[131, 119, 2, 0xed, 0xa0])
        .unwrap_err()
        .contains("UTF-8"));
    assert!(Fault::new(3, "x").to_string().starts_with("at offset 3"));
}

#[test]
fn equal_terms_have_one_canonical_form() {
    let same = |left: &[u8], right: &[u8]| {
        let limits = Limits::default();
        canonical(left, limits, &[]).unwrap() == canonical(right, limits, &[]).unwrap()
    };
    assert!(same(&[97, 5], &[110, 4, 0, 5, 0, 0, 0]));
    assert!(same(
        &[107, 0, 2, 1, 2],
        &[108, 0, 0, 0, 2, 97, 1, 97, 2, 106]
    ));
    assert!(same(
        &[108, 0, 0, 0, 1, 97, 1, 107, 0, 1, 2],
        &[107, 0, 2, 1, 2]
    ));
    assert!(same(b"M\0\0\0\x01\x08a", b"m\0\0\0\x01a"));
    assert!(same(b"M\0\0\0\x01\x03\xbf", b"M\0\0\0\x01\x03\xa0"));
    assert!(same(b"d\0\x01\xe9", b"w\x02\xc3\xa9"));
    assert!(same(
        b"t\0\0\0\x02a\x01a\x01a\x02a\x02",
        b"t\0\0\0\x02a\x02a\x02a\x01a\x01"
    ));
    assert!(!same(&[97, 1], &[70, 63, 240, 0, 0, 0, 0, 0, 0]));
    assert!(!same(
        &[70, 0, 0, 0, 0, 0, 0, 0, 0],
        &[70, 128, 0, 0, 0, 0, 0, 0, 0]
    ));
    assert!(!same(b"M\0\0\0\x01\x03\xa0", b"m\0\0\0\x01\xa0"));
}

#[test]
fn compressed_terms_are_inflated_to_their_claimed_size_only() {
    // zlib.compress(b"m\0\0\0\x64" + b"z" * 100)
    let zlib = b"\x78\x9c\xcb\x65\x60\x60\x48\xa9\xa2\x03\x00\x00\xbb\xbd\x30\x7a";
    let packed = |claimed: u32| [&[131, 80][..], &claimed.to_be_bytes(), zlib].concat();
    assert_eq!(check(&packed(105)), Ok(packed(105).len()));
    for claimed in [0, 1, 104, 106, 1 << 20, u32::MAX] {
        assert!(check(&packed(claimed)).is_err(), "claimed {claimed}");
    }
    assert!(check_with(
        &packed(105),
        Limits {
            bytes: 100,
            ..Limits::default()
        }
    )
    .is_err());
}

/// The text of the atom or the bytes of the fun that `data` encodes behind a header that names `atoms`.
fn with_atoms(data: &[u8], atoms: &[&[u8]]) -> Result<Vec<u8>, String> {
    let atoms: Vec<super::AtomText> = atoms.iter().map(|&text| text.into()).collect();
    let mut reader = Reader::new(data, 0, Limits::default()).with_atoms(&atoms);
    let done = reader.term(&mut super::canonical::Canonical::new(usize::MAX));
    done.map_err(|fault| fault.to_string())
}

#[test]
fn references_to_the_atom_cache_are_the_same_terms() {
    let cached = |bytes: &[u8]| with_atoms(bytes, &[b"ok", b"a@b"]);
    let plain = |bytes: &[u8]| with_atoms(bytes, &[]);
    assert_eq!(cached(&[82, 0]), plain(&[119, 2, b'o', b'k']));
    assert!(cached(&[82, 2])
        .unwrap_err()
        .contains("without a cached atom"));
    assert!(plain(&[82, 0]).is_err());
    assert!(cached(&[82]).is_err());
    let node = [119, 3, b'a', b'@', b'b'];
    let numbers = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    for head in [&[88][..], &[90, 0, 2]] {
        let short = [head, &[82, 1], &numbers].concat();
        let long = [head, &node, &numbers].concat();
        assert_eq!(cached(&short).unwrap(), plain(&long).unwrap());
        for end in 0..short.len() {
            assert!(cached(&short[..end]).is_err());
        }
    }
}

#[test]
fn the_canonical_form_of_a_bit_string_is_one_itself() {
    let dirty = [77, 0, 0, 0, 2, 3, 0x55, 0xff];
    let form = canonical(&dirty, Limits::default(), &[]).unwrap();
    assert_eq!(form, [77, 0, 0, 0, 2, 3, 0x55, 0xe0]);
}

/// A fun of module `m` by a process of node `m` with `free` variables.
fn fun(m: &[u8], free: &[&[u8]]) -> Vec<u8> {
    let mut out = vec![112, 0, 0, 0, 0, 1];
    out.extend([7; 16]);
    out.extend([0, 0, 0, 3]);
    out.extend((free.len() as u32).to_be_bytes());
    out.extend(m);
    out.extend([97, 3, 97, 4, 88]);
    out.extend(m);
    out.extend([0; 12]);
    free.iter().for_each(|term| out.extend(*term));
    let size = (out.len() - 1) as u32;
    out[1..5].copy_from_slice(&size.to_be_bytes());
    out
}

#[test]
fn an_empty_text_is_read_beside_funs_but_not_in_them() {
    let limits = Limits {
        empty_text: true,
        ..Limits::default()
    };
    let (empty, m) = ([77, 0, 0, 0, 0, 8], [119, 1, b'm']);
    let beside = [&[131, 104, 2][..], &fun(&m, &[&[106]]), &empty].concat();
    assert_eq!(check_with(&beside, limits), Ok(beside.len()));
    let inside = [&[131][..], &fun(&m, &[&empty])].concat();
    let fault = check_with(&inside, limits).unwrap_err();
    assert!(fault.contains("bit string of 0 bytes"), "{fault}");
}

/// Reads `data` with the longest atom in its header, and 10,000 bytes as limit.
fn with_a_long_atom(data: &[u8]) -> Result<(), String> {
    with_atom(255, data)
}

fn with_atom(chars: usize, data: &[u8]) -> Result<(), String> {
    let limits = Limits {
        bytes: 10_000,
        ..Limits::default()
    };
    let atoms = ["\u{10348}".repeat(chars).as_bytes().into()];
    let mut reader = Reader::new(data, 0, limits).with_atoms(&atoms);
    let done = reader.term(&mut Check::default());
    done.map_err(|fault| fault.to_string())
}

#[test]
fn maps_in_funs_of_funs_are_looked_at_once_for_each_fun_around_them() {
    let map = [116, 0, 0, 0, 2, 97, 1, 97, 1, 97, 2, 97, 2];
    let nested = |levels| {
        (0..levels).fold(map.to_vec(), |inner, _| {
            fun(&[119, 1, b'm'], &[&map, &inner])
        })
    };
    let read = |levels| check(&[&[131], &nested(levels)[..]].concat());
    assert!(read(8).is_ok());
    for levels in [60, 500] {
        assert!(read(levels).unwrap_err().contains("too often")); // doubled at each level it would not end
    }
}

#[test]
fn references_in_funs_are_written_out_within_the_limit_of_all_bytes() {
    let node = [119, 1, b'm'];
    let tuple = |n: usize, fun: Vec<u8>| [vec![104, n as u8], fun.repeat(n)].concat();
    let small = fun(&node, &[&[82, 0][..]; 3]);
    assert_eq!(with_a_long_atom(&tuple(3, small.clone())), Ok(()));
    let error = with_a_long_atom(&tuple(4, small)).unwrap_err();
    assert!(error.contains("exceed max_bytes=10000"), "{error}");
    let error = with_a_long_atom(&fun(&node, &[&[82, 0][..]; 10])).unwrap_err();
    assert!(error.contains("exceed max_bytes=10000"), "{error}");
}

#[test]
fn keys_that_are_compared_are_not_written_out_without_end() {
    let text = [77, 0, 0, 0, 1, 8, b'a', 106];
    let keys = |n: u8, references: u8| {
        let key = |i| {
            [
                &[104, references + 1, 97, i][..],
                &[82, 0].repeat(references.into()),
                &[106],
            ]
            .concat()
        };
        let keys: Vec<u8> = (0..n).flat_map(key).collect();
        [&[116, 0, 0, 0, n + 1][..], &text, &keys].concat()
    };
    assert_eq!(with_a_long_atom(&keys(2, 2)), Ok(()));
    for (n, references) in [(200, 2), (2, 200)] {
        let error = with_a_long_atom(&keys(n, references)).unwrap_err();
        assert!(error.contains("too long"), "{error}");
        assert_eq!(with_atom(25, &keys(n, references)), Ok(()));
    }
}

#[test]
fn a_fun_is_written_out_with_its_atoms() {
    let (short, long) = ([82, 0], [119, 3, b'm', b'@', b'h']);
    let inner = |m: &[u8]| fun(m, &[&[97, 9], m]);
    let cached = fun(&short, &[&short, &inner(&short), &[82, 0]]);
    let plain = fun(&long, &[&long, &inner(&long), &long]);
    assert_eq!(with_atoms(&cached, &[b"m@h"]).unwrap(), plain);
    for end in 0..cached.len() {
        assert!(with_atoms(&cached[..end], &[b"m@h"]).is_err());
    }
}
