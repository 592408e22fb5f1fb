//! The preamble of a user stream: one byte of length and the tag, 1 to 255 bytes. This file knows no QUIC, so that it
//! can be fuzzed.

/// What has come of a preamble.
#[derive(Debug, Default)]
pub struct Preamble(Vec<u8>);

impl Preamble {
    /// Bytes that belong to it for certain and have not come; 0 once it is complete.
    pub fn missing(&self) -> usize {
        match self.0.first() {
            None => 1,
            Some(length) => 1 + usize::from(*length) - self.0.len(),
        }
    }

    /// Takes what belongs to it from the front of `bytes`; returns how many. The rest is the application's.
    pub fn feed(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while self.missing() > 0 && taken < bytes.len() {
            let end = bytes.len().min(taken + self.missing());
            self.0.extend_from_slice(&bytes[taken..end]);
            taken = end;
        }
        taken
    }

    /// The tag of a complete one. An empty tag is none that anybody could accept.
    pub fn tag(&self) -> Option<&[u8]> {
        (self.missing() == 0).then(|| &self.0[1..])
    }
}

#[cfg(test)]
mod tests {
    use super::Preamble;

    fn fed(chunks: &[&[u8]]) -> (usize, Option<Vec<u8>>) {
        let mut preamble = Preamble::default();
        let taken = chunks.iter().map(|chunk| preamble.feed(chunk)).sum();
        (taken, preamble.tag().map(<[u8]>::to_vec))
    }

    #[test]
    fn a_tag_is_read_and_what_follows_is_left() {
        assert_eq!(fed(&[b"\x04echoabc"]), (5, Some(b"echo".to_vec())));
        assert_eq!(
            fed(&[b"\x04", b"ec", b"hoabc", b"d"]),
            (5, Some(b"echo".to_vec()))
        );
        assert_eq!(fed(&[b"\0\x04echo"]), (1, Some(Vec::new())));
        assert_eq!(fed(&[&[255; 300]]), (256, Some(vec![255; 255])));
    }

    #[test]
    fn an_unfinished_one_has_no_tag() {
        assert_eq!(fed(&[]), (0, None));
        assert_eq!(fed(&[b"", b"\x04", b"ech"]), (4, None));
    }
}
