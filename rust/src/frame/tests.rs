use super::write::FRAGMENT;
use super::*;

const LIMITS: Limits = Limits {
    max_frame: 1000,
    max_held: 4000,
    max_sequences: 3,
    fragments: true,
    atom_cache: false,
};

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes().to_vec();
    out.extend_from_slice(payload);
    out
}

fn normal(body: &[u8]) -> Vec<u8> {
    frame(&[&[131, 68, 0], body].concat())
}

fn fragment(tag: u8, sequence: u64, number: u64, body: &[u8]) -> Vec<u8> {
    let atoms: &[u8] = if tag == 69 { &[0] } else { &[] };
    frame(
        &[
            &[131, tag][..],
            &sequence.to_be_bytes(),
            &number.to_be_bytes(),
            atoms,
            body,
        ]
        .concat(),
    )
}

fn run(limits: Limits, stream: &[u8]) -> Result<Vec<Vec<u8>>, FrameError> {
    let mut out = Vec::new();
    Deframer::new(limits).feed(4, Bytes::copy_from_slice(stream), &mut out)?;
    Ok(bodies(out))
}

fn bodies(out: Vec<RawMessage>) -> Vec<Vec<u8>> {
    out.into_iter().map(|m| m.body.to_vec()).collect()
}

fn error(limits: Limits, stream: &[u8]) -> String {
    run(limits, stream).expect_err("should be refused").0
}

#[test]
fn every_cut_gives_the_same_messages() {
    let stream = [
        normal(b"one"),
        vec![0; 4],
        fragment(69, 7, 3, b"a"),
        normal(b""),
        fragment(70, 7, 2, b"bc"),
        fragment(70, 7, 1, b"d"),
        normal(b"last"),
    ]
    .concat();
    let expected = run(LIMITS, &stream).unwrap();
    assert_eq!(expected, [&b"one"[..], b"", b"abcd", b"last"]);
    for first in 0..=stream.len() {
        for second in first..=stream.len() {
            let mut deframer = Deframer::new(LIMITS);
            let mut out = Vec::new();
            for part in [&stream[..first], &stream[first..second], &stream[second..]] {
                deframer
                    .feed(4, Bytes::copy_from_slice(part), &mut out)
                    .unwrap();
            }
            assert_eq!(bodies(out), expected, "cut at {first} and {second}");
            assert_eq!(deframer.held(), 0);
        }
    }
}

#[test]
fn byte_by_byte_with_two_streams_at_once() {
    let left = [
        normal(b"left"),
        fragment(69, 1, 2, b"l"),
        fragment(70, 1, 1, b"l"),
    ]
    .concat();
    let right = [
        normal(b"right"),
        fragment(69, 1, 2, b"r"),
        fragment(70, 1, 1, b"r"),
    ]
    .concat();
    let mut deframer = Deframer::new(LIMITS);
    let mut out = Vec::new();
    for at in 0..left.len().max(right.len()) {
        for (stream, bytes) in [(4, &left), (8, &right)] {
            if let Some(byte) = bytes.get(at) {
                deframer
                    .feed(stream, Bytes::copy_from_slice(&[*byte]), &mut out)
                    .unwrap();
            }
        }
    }
    let mut got = bodies(out);
    got.sort();
    assert_eq!(got, [&b"left"[..], b"ll", b"right", b"rr"]);
}

#[test]
fn missing_counts_down_to_the_end_of_a_frame() {
    let mut deframer = Deframer::new(LIMITS);
    let mut out = Vec::new();
    let stream = normal(b"0123456789");
    assert_eq!(deframer.missing(4), 0);
    deframer
        .feed(4, Bytes::copy_from_slice(&stream[..6]), &mut out)
        .unwrap();
    assert_eq!(deframer.missing(4), stream.len() - 6);
}

#[test]
fn a_claimed_length_allocates_nothing() {
    let limits = Limits {
        max_frame: usize::MAX,
        max_held: usize::MAX,
        ..LIMITS
    };
    let mut deframer = Deframer::new(limits);
    deframer
        .feed(
            4,
            Bytes::from_static(&[255, 255, 255, 255, 131]),
            &mut Vec::new(),
        )
        .unwrap();
    assert!(deframer.streams[&4].capacity() < 100);
}

#[test]
fn oversized_frames_and_messages_are_refused() {
    assert!(error(LIMITS, &[0, 0, 4, 0]).contains("1024 bytes, more than the 1000"));
    let big = [fragment(69, 1, 9, &[0; 900]), fragment(70, 1, 8, &[0; 900])].concat();
    assert!(error(LIMITS, &big).contains("larger than 1000"));
}

#[test]
fn unfinished_bytes_and_sequences_are_bounded() {
    let many: Vec<u8> = (0..4).flat_map(|s| fragment(69, s, 2, b"x")).collect();
    assert!(error(LIMITS, &many).contains("more than 3 fragmented"));
    let limits = Limits {
        max_held: 1500,
        ..LIMITS
    };
    let heavy: Vec<u8> = (0..2).flat_map(|s| fragment(69, s, 2, &[0; 900])).collect();
    assert!(error(limits, &heavy).contains("more than 1500 bytes"));
}

#[test]
fn gaps_repeats_and_strangers_among_fragments() {
    let gap = [fragment(69, 1, 4, b"x"), fragment(70, 1, 2, b"x")].concat();
    assert!(error(LIMITS, &gap).contains("where 3 was due"));
    let repeat = [
        fragment(69, 1, 4, b"x"),
        fragment(70, 1, 3, b"x"),
        fragment(70, 1, 3, b"x"),
    ]
    .concat();
    assert!(error(LIMITS, &repeat).contains("where 2 was due"));
    let twice = [fragment(69, 1, 4, b"x"), fragment(69, 1, 4, b"x")].concat();
    assert!(error(LIMITS, &twice).contains("started twice"));
    assert!(error(LIMITS, &fragment(70, 1, 4, b"x")).contains("unknown sequence"));
    assert!(error(LIMITS, &fragment(69, 1, 0, b"x")).contains("number 0"));
    // A message of one fragment is whole at once, and its sequence may be used again.
    let single = [fragment(69, 1, 1, b"x"), fragment(69, 1, 1, b"y")].concat();
    assert_eq!(run(LIMITS, &single).unwrap(), [b"x", b"y"]);
}

#[test]
fn the_form_must_match_the_negotiation() {
    let plain = Limits {
        fragments: false,
        ..LIMITS
    };
    assert!(error(plain, &normal(b"x")).contains("not negotiated"));
    assert!(error(plain, &fragment(69, 1, 1, b"x")).contains("not negotiated"));
    assert!(error(LIMITS, &frame(&[112, 131, 97, 1])).contains("were negotiated"));
    let cache = Limits {
        fragments: false,
        atom_cache: true,
        ..LIMITS
    };
    assert_eq!(run(cache, &normal(b"x")).unwrap(), [b"x"]);
    assert!(error(cache, &fragment(69, 1, 1, b"x")).contains("not negotiated"));
    assert!(error(cache, &frame(&[112, 131, 97, 1])).contains("were negotiated"));
    let mut out = Vec::new();
    Deframer::new(plain)
        .feed(4, frame(&[112, 131, 97, 1]).into(), &mut out)
        .unwrap();
    assert_eq!(
        out,
        [RawMessage {
            body: Bytes::from_static(&[131, 97, 1]),
            tagged: true,
            atoms: Vec::new(),
        }]
    );
}

#[test]
fn garbage_has_a_reason() {
    for payload in [
        &[131][..],
        &[131, 68],
        &[131, 68, 1],
        &[131, 69, 0],
        &[131, 70],
        &[0, 0],
        &[112],
        &[112, 1],
    ] {
        assert!(!error(LIMITS, &frame(payload)).is_empty());
    }
}

#[test]
fn a_long_frame_is_split_and_put_together_again() {
    let limits = Limits {
        max_frame: 4 * FRAGMENT,
        max_held: 10 * FRAGMENT,
        ..LIMITS
    };
    for length in [10, FRAGMENT, FRAGMENT + 1, 2 * FRAGMENT, 3 * FRAGMENT + 5] {
        let terms: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        let mut out = b"before".to_vec();
        let start = begin(&mut out, true);
        out.extend_from_slice(&terms);
        assert!(finish(&mut out, start));
        split(&mut out, start, start + 7 + 5, 9);
        assert_eq!(&out[..6], b"before");
        assert_eq!(run(limits, &out[6..]), Ok(vec![terms]), "{length} bytes");
        let fragmented = out[start + 5] == FIRST_FRAGMENT;
        assert_eq!(fragmented, length > FRAGMENT, "{length} bytes");
    }
}

#[test]
fn a_long_control_term_stays_in_the_first_fragment() {
    let mut out = Vec::new();
    let start = begin(&mut out, true);
    out.extend_from_slice(&vec![1; 2 * FRAGMENT + 100]);
    assert!(finish(&mut out, start));
    split(&mut out, start, start + 7 + FRAGMENT + 50, 1);
    assert_eq!(be32(&out) - 19, FRAGMENT + 50);
}

#[test]
fn what_begin_and_finish_write_is_read_back() {
    for fragments in [true, false] {
        let mut out = Vec::new();
        let start = begin(&mut out, fragments);
        out.extend_from_slice(b"control");
        if !fragments {
            out.push(VERSION);
        }
        out.extend_from_slice(b"message");
        assert!(finish(&mut out, start));
        let got = run(
            Limits {
                fragments,
                ..LIMITS
            },
            &out,
        )
        .unwrap();
        let expected: &[u8] = if fragments {
            b"controlmessage"
        } else {
            b"\x83control\x83message"
        };
        assert_eq!(got, [expected]);
    }
}

#[test]
fn what_write_splits_is_put_together() {
    let limits = Limits {
        max_frame: 1 << 20,
        max_held: 1 << 20,
        ..LIMITS
    };
    for size in [0, 1, FRAGMENT, FRAGMENT + 1, 3 * FRAGMENT, 200_000] {
        let body: Vec<u8> = (0..size).map(|i| i as u8).collect();
        for whole in [0, size.min(100), size] {
            let mut out = Vec::new();
            write(&mut out, &[0], &body, whole, Some(5));
            assert_eq!(run(limits, &out).unwrap(), [&*body]);
        }
        let mut out = Vec::new();
        write(&mut out, &[0], &body, 0, None);
        assert_eq!(out.len(), 7 + size);
    }
}

#[test]
fn fragments_keep_the_atoms_of_their_own_header() {
    let limits = Limits {
        atom_cache: true,
        ..LIMITS
    };
    let header = |text: &[u8]| [&[1, 0x08, 3, text.len() as u8], text].concat();
    let first = [
        &[131, 69][..],
        &[0, 0, 0, 0, 0, 0, 0, 1],
        &[0, 0, 0, 0, 0, 0, 0, 2],
    ]
    .concat();
    let stream = [
        frame(&[&first[..], &header(b"one"), b"a"].concat()),
        frame(&[&[131, 68][..], &header(b"two"), b"x"].concat()),
        fragment(70, 1, 1, b"b"),
    ]
    .concat();
    let mut out = Vec::new();
    Deframer::new(limits)
        .feed(0, stream.into(), &mut out)
        .unwrap();
    let got: Vec<_> = out.iter().map(|m| (&*m.body, &*m.atoms[0])).collect();
    assert_eq!(got, [(&b"x"[..], &b"two"[..]), (b"ab", b"one")]);
}

#[test]
fn the_atoms_of_unfinished_messages_count_as_held() {
    let limits = Limits {
        max_frame: 4000,
        max_sequences: 1000,
        atom_cache: true,
        ..LIMITS
    };
    // one entry of 1,000 bytes, which is new; then messages of 23 bytes that refer to it
    let entry = [&[1, 0x18, 3, 3, 232][..], &[b'a'; 1000]].concat();
    let normal = frame(&[&[131, 68][..], &entry].concat());
    let begun = |sequence: u64| {
        let ids = [sequence.to_be_bytes(), 2u64.to_be_bytes()].concat();
        frame(&[&[131, 69][..], &ids, &[1, 0, 3]].concat())
    };
    let stream: Vec<u8> = (0..3).flat_map(begun).collect();
    assert!(run(limits, &[&normal[..], &stream].concat()).is_ok());
    let stream: Vec<u8> = (0..4).flat_map(begun).collect();
    assert!(error(limits, &[&normal[..], &stream].concat()).contains("more than 4000 bytes"));
    let done: Vec<u8> = (0..20)
        .flat_map(|s| [begun(s), fragment(70, s, 1, b"x")].concat())
        .collect();
    assert_eq!(
        run(limits, &[&normal[..], &done].concat()).unwrap().len(),
        21
    );
}
