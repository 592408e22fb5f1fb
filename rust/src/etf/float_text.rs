//! FLOAT_EXT: a float as text in 31 bytes, as `sprintf("%.20e")` wrote it before OTP 17.

/// The finite float written in `field` up to its first NUL, or None. The grammar is `sys_chars_to_double` of OTP:
/// sign, digits, a point (or comma), digits, and maybe an exponent; nothing else around it.
pub fn parse(field: &[u8]) -> Option<f64> {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    let mut text = Vec::with_capacity(end);
    let mut rest = &field[..end];
    if let Some(sign @ (b'+' | b'-')) = rest.first().copied() {
        text.push(sign);
        rest = &rest[1..];
    }
    rest = take_digits(rest, &mut text)?;
    if !matches!(rest.first(), Some(b'.' | b',')) {
        return None;
    }
    text.push(b'.');
    rest = take_digits(&rest[1..], &mut text)?;
    if matches!(rest.first(), Some(b'e' | b'E')) {
        text.push(b'e');
        rest = &rest[1..];
        if let Some(sign @ (b'+' | b'-')) = rest.first().copied() {
            text.push(sign);
            rest = &rest[1..];
        }
        rest = take_digits(rest, &mut text)?;
    }
    if !rest.is_empty() {
        return None;
    }
    let value: f64 = std::str::from_utf8(&text).ok()?.parse().ok()?;
    value.is_finite().then_some(value)
}

/// Moves the leading digits (at least one) of `from` to `text` and returns what follows.
fn take_digits<'a>(from: &'a [u8], text: &mut Vec<u8>) -> Option<&'a [u8]> {
    let n = from.iter().take_while(|b| b.is_ascii_digit()).count();
    text.extend_from_slice(&from[..n]);
    (n > 0).then(|| &from[n..])
}
