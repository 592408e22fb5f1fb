//! What one side writes, whole or in fragments, the other puts together, whatever comes in between.
#![no_main]

use barrel_p2p_fuzz::atom_cache::SendCache;
use barrel_p2p_fuzz::etf::AtomText;
use barrel_p2p_fuzz::frame::{self, Deframer, Limits};
use barrel_p2p_fuzz::input::{Cuts, Input};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use std::collections::VecDeque;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let atom_cache = input.byte() & 1 != 0;
    let mut cuts = Cuts::new(input.byte());
    let limits = Limits {
        max_frame: 1 << 20,
        max_held: usize::MAX,
        max_sequences: 8,
        fragments: true,
        atom_cache,
    };
    let mut cache = atom_cache.then(SendCache::new);
    let mut sent: Vec<(Vec<u8>, Vec<AtomText>)> = Vec::new();
    let mut later: Vec<VecDeque<Vec<u8>>> = Vec::new();
    let mut stream = Vec::new();
    while !input.is_empty() && sent.len() < 8 {
        let body = body(&mut input, sent.len() as u8);
        let control = input.number() * 4 % (body.len() + 1);
        let atoms = match &mut cache {
            Some(cache) => refer(cache, &mut input),
            None => Vec::new(),
        };
        let sequence = sent.len() as u64 + 1;
        let mut frames = frames(&written(&mut cache, &body, control, sequence, input.byte()));
        // headers come in the order in which the cache learned their atoms; what follows the first frame may wait
        stream.extend(frames.pop_front().unwrap_or_default());
        sent.push((body, atoms));
        later.push(frames);
        if cuts.below(2) == 0 {
            some_of(&mut later, &mut cuts, &mut stream);
        }
    }
    while later.iter().any(|frames| !frames.is_empty()) {
        some_of(&mut later, &mut cuts, &mut stream);
    }

    let (mut deframer, mut out) = (Deframer::new(limits), Vec::new());
    let mut rest = &stream[..];
    while !rest.is_empty() {
        let (chunk, left) = rest.split_at(1 + cuts.below(rest.len()));
        rest = left;
        let fed = deframer.feed(4, Bytes::copy_from_slice(chunk), &mut out);
        assert_eq!(fed, Ok(()), "what we write is refused");
    }
    out.sort_by_key(|message| message.body[0]);
    let got: Vec<_> = out
        .iter()
        .map(|m| (m.body.to_vec(), m.atoms.clone()))
        .collect();
    assert!(
        got == sent,
        "{} messages sent, {} came, or others",
        sent.len(),
        got.len()
    );
});

/// Begins with its number; up to 256 KiB, which is four fragments.
fn body(input: &mut Input<'_>, number: u8) -> Vec<u8> {
    let size = 1 + 4 * input.number() + usize::from(input.byte());
    let step = input.byte();
    let byte = |at: usize| (at as u8).wrapping_mul(step) ^ (at >> 8) as u8;
    let mut body: Vec<u8> = (0..size).map(byte).collect();
    body[0] = number;
    body
}

/// Lets the next message refer to some atoms; returns those it can.
fn refer(cache: &mut SendCache, input: &mut Input<'_>) -> Vec<AtomText> {
    for _ in 0..input.byte() {
        let size = usize::from(input.byte() % 8);
        cache.refer(input.bytes(size));
    }
    cache.referred()
}

fn written(
    cache: &mut Option<SendCache>,
    body: &[u8],
    control: usize,
    sequence: u64,
    way: u8,
) -> Vec<u8> {
    let mut out = Vec::new();
    match cache {
        Some(cache) => {
            let mut header = Vec::new();
            cache.finish(&mut header);
            frame::write(&mut out, &header, body, control, Some(sequence));
        }
        None if way & 1 == 0 => frame::write(&mut out, &[0], body, control, Some(sequence)),
        None => {
            let start = frame::begin(&mut out, true);
            out.extend_from_slice(body);
            assert!(frame::finish(&mut out, start));
            frame::split(&mut out, start, start + 7 + control, sequence);
        }
    }
    out
}

fn frames(mut data: &[u8]) -> VecDeque<Vec<u8>> {
    let mut frames = VecDeque::new();
    while let Some(prefix) = data.first_chunk::<4>() {
        let (frame, rest) = data.split_at(4 + u32::from_be_bytes(*prefix) as usize);
        frames.push_back(frame.to_vec());
        data = rest;
    }
    assert!(data.is_empty());
    frames
}

/// The next frame of some of the messages that are not complete.
fn some_of(later: &mut [VecDeque<Vec<u8>>], cuts: &mut Cuts, stream: &mut Vec<u8>) {
    let start = cuts.below(later.len());
    for i in 0..=cuts.below(later.len()) {
        let n = later.len();
        stream.extend(later[(start + i) % n].pop_front().unwrap_or_default());
    }
}
