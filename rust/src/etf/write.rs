//! Parts of terms -> bytes, in the form that OTP 27 chooses.

use super::tag;

/// `text` has at most 255 characters, so its length fits.
#[inline]
pub fn atom(out: &mut Vec<u8>, text: &[u8]) {
    if text.len() < 256 {
        out.extend_from_slice(&[tag::SMALL_ATOM_UTF8, text.len() as u8]);
    } else {
        out.push(tag::ATOM_UTF8);
        out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    }
    out.extend_from_slice(text);
}

#[inline]
pub fn integer(out: &mut Vec<u8>, value: i64) {
    if (0..256).contains(&value) {
        out.extend_from_slice(&[tag::SMALL_INTEGER, value as u8]);
    } else if let Ok(value) = i32::try_from(value) {
        head(out, tag::INTEGER, value as u32);
    } else {
        let magnitude = value.unsigned_abs().to_le_bytes();
        let n = 8 - magnitude
            .iter()
            .rev()
            .take_while(|&&byte| byte == 0)
            .count();
        out.extend_from_slice(&[tag::SMALL_BIG, n as u8, (value < 0) as u8]);
        out.extend_from_slice(&magnitude[..n]);
    }
}

/// `magnitude` is little endian without high zeros and longer than 8 bytes, or an integer that no i64 holds.
pub fn big(out: &mut Vec<u8>, negative: bool, magnitude: &[u8]) {
    if magnitude.len() < 256 {
        out.extend_from_slice(&[tag::SMALL_BIG, magnitude.len() as u8, negative as u8]);
    } else {
        head(out, tag::LARGE_BIG, magnitude.len() as u32);
        out.push(negative as u8);
    }
    out.extend_from_slice(magnitude);
}

#[inline]
pub fn float(out: &mut Vec<u8>, value: f64) {
    let bits = value.to_bits().to_be_bytes();
    let mut whole = [tag::NEW_FLOAT; 9];
    whole[1..].copy_from_slice(&bits);
    out.extend_from_slice(&whole);
}

#[inline]
pub fn binary(out: &mut Vec<u8>, data: &[u8]) {
    head(out, tag::BINARY, data.len() as u32);
    out.extend_from_slice(data);
}

#[inline]
pub fn bit_binary(out: &mut Vec<u8>, data: &[u8], bits: u8) {
    head(out, tag::BIT_BINARY, data.len() as u32);
    out.push(bits);
    out.extend_from_slice(data);
}

#[inline]
pub fn tuple(out: &mut Vec<u8>, n: usize) {
    if n < 256 {
        out.extend_from_slice(&[tag::SMALL_TUPLE, n as u8]);
    } else {
        head(out, tag::LARGE_TUPLE, n as u32);
    }
}

/// A tag and a 32-bit number: a length, mostly.
#[inline]
pub fn head(out: &mut Vec<u8>, tag: u8, n: u32) {
    let n = n.to_be_bytes();
    out.extend_from_slice(&[tag, n[0], n[1], n[2], n[3]]);
}
