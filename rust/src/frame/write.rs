//! Messages out: frames, which `mod.rs` describes, and fragments of long ones.

use super::{FIRST_FRAGMENT, NEXT_FRAGMENT, NORMAL, PASS_THROUGH, VERSION};

/// Bytes of terms in one fragment, as OTP has it. An upstream node appends what arrives to its frame and copies all of it
/// each time, so the time it takes grows with the square of the frame: one of 4 MiB kept it busy for 11 s.
pub const FRAGMENT: usize = 64 * 1024;

/// Starts a frame in `out`; the control term and the message term follow, then `finish`.
pub fn begin(out: &mut Vec<u8>, fragments: bool) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    match fragments {
        true => out.extend_from_slice(&[VERSION, NORMAL, 0]),
        false => out.extend_from_slice(&[PASS_THROUGH, VERSION]),
    }
    start
}

/// Writes the length of the frame that began at `start`; false if it is too long for the 32-bit prefix.
#[must_use]
pub fn finish(out: &mut [u8], start: usize) -> bool {
    match u32::try_from(out.len() - start - 4) {
        Ok(length) => {
            out[start..start + 4].copy_from_slice(&length.to_be_bytes());
            true
        }
        Err(_) => false,
    }
}

/// Splits the frame that began at `start`, if it is a long one, into fragments with the id `sequence`, in place.
/// The control term, which ends at `control_end`, must stand in the first one as a whole.
pub fn split(out: &mut Vec<u8>, start: usize, control_end: usize, sequence: u64) {
    const NORMAL_HEAD: usize = 4 + 3;
    const FIRST_HEAD: usize = 4 + 19;
    const NEXT_HEAD: usize = 4 + 18;
    let body = start + NORMAL_HEAD;
    let first = (control_end - body).max(FRAGMENT);
    let end = out.len();
    if end - body <= first {
        return;
    }
    let more = (end - body - first).div_ceil(FRAGMENT);
    out.resize(end + FIRST_HEAD - NORMAL_HEAD + more * NEXT_HEAD, 0);
    // From the last to the first, because every piece moves towards the end.
    for piece in (0..=more).rev() {
        let (from, to, tag, head) = match piece {
            0 => (body, body + first, FIRST_FRAGMENT, FIRST_HEAD),
            n => {
                let from = body + first + (n - 1) * FRAGMENT;
                (from, end.min(from + FRAGMENT), NEXT_FRAGMENT, NEXT_HEAD)
            }
        };
        let at = match piece {
            0 => start,
            n => start + FIRST_HEAD + first + (n - 1) * (NEXT_HEAD + FRAGMENT),
        };
        out.copy_within(from..to, at + head);
        let length = (head - 4 + to - from) as u32; // at most a control term and FRAGMENT
        out[at..at + 4].copy_from_slice(&length.to_be_bytes());
        out[at + 4..at + 6].copy_from_slice(&[VERSION, tag]);
        out[at + 6..at + 14].copy_from_slice(&sequence.to_be_bytes());
        out[at + 14..at + 22].copy_from_slice(&((more - piece + 1) as u64).to_be_bytes());
        if piece == 0 {
            out[at + 22] = 0; // no entries of an atom cache
        }
    }
}

/// Appends a message behind a distribution header to `out`, in fragments if it is large.
///
/// `header` is the header from its count byte on. The first `whole` bytes of `body`, the control term, stay in the first
/// fragment. Without `sequence` it is sent whole: header and body must then fit a 32-bit length.
pub fn write(out: &mut Vec<u8>, header: &[u8], body: &[u8], whole: usize, sequence: Option<u64>) {
    let first = FRAGMENT.max(whole);
    match sequence {
        Some(sequence) if body.len() > first => {
            let rest = body[first..].chunks(FRAGMENT);
            out.reserve(body.len() + header.len() + 22 * (rest.len() + 1));
            let mut number = rest.len() as u64 + 1;
            let mut fragment = |kind: u8, header: &[u8], part: &[u8]| {
                let length = 18 + header.len() + part.len();
                out.extend_from_slice(&(length as u32).to_be_bytes());
                out.extend_from_slice(&[VERSION, kind]);
                out.extend_from_slice(&sequence.to_be_bytes());
                out.extend_from_slice(&number.to_be_bytes());
                out.extend_from_slice(header);
                out.extend_from_slice(part);
                number -= 1;
            };
            fragment(FIRST_FRAGMENT, header, &body[..first]);
            rest.for_each(|part| fragment(NEXT_FRAGMENT, &[], part));
        }
        _ => {
            let length = (2 + header.len() + body.len()) as u32;
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&[VERSION, NORMAL]);
            out.extend_from_slice(header);
            out.extend_from_slice(body);
        }
    }
}
