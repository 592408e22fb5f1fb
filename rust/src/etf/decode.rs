//! Bytes -> calls of a builder.

use super::canonical::Canonical;
use super::{
    float_text, inflate, tag, write, AtomText, Fail, Fault, Limits, MAX_REFERENCE_WORDS, VERSION,
};
use std::borrow::Cow;

/// Makes values of what the reader meets. Errors are the builder's own limits (atoms, memory) or its host's exceptions.
pub trait Builder: Sized {
    type Value;
    /// A tuple or list that is being filled.
    type Items;
    /// A map that is being filled.
    type Pairs;

    fn small(&mut self, value: u8) -> Result<Self::Value, Fail>;
    fn integer(&mut self, value: i64) -> Result<Self::Value, Fail>;
    /// `magnitude` is little endian and may have leading (high) zeros.
    fn big(&mut self, negative: bool, magnitude: &[u8]) -> Result<Self::Value, Fail>;
    fn float(&mut self, value: f64) -> Result<Self::Value, Fail>;
    /// An atom as a term. `text` is claimed to be UTF-8 but not checked yet.
    fn atom(&mut self, text: &[u8], at: usize) -> Result<Self::Value, Fail>;
    /// An atom as the name of a node, module or function, where `true` is no truth value.
    fn name(&mut self, text: &[u8], at: usize) -> Result<Self::Value, Fail>;
    fn binary(&mut self, data: &[u8]) -> Result<Self::Value, Fail>;
    /// A binary that another Python node marked as text; it may still not be UTF-8.
    fn text(&mut self, data: &[u8]) -> Result<Self::Value, Fail>;
    /// `bits` is 1 to 7; the unused low bits of the last byte may be dirty.
    fn bits(&mut self, data: &[u8], bits: u8) -> Result<Self::Value, Fail>;

    /// A chance to answer for a whole NEW_PID_EXT with a one-byte-length atom without parsing it.
    fn known_pid(&mut self, _raw: &[u8]) -> Option<Self::Value> {
        None
    }
    fn pid(
        &mut self,
        node: Self::Value,
        id: u32,
        serial: u32,
        creation: u32,
        raw: &[u8],
    ) -> Result<Self::Value, Fail>;
    fn port(&mut self, node: Self::Value, id: u64, creation: u32) -> Result<Self::Value, Fail>;
    fn reference(
        &mut self,
        node: Self::Value,
        parts: RawReference<'_>,
    ) -> Result<Self::Value, Fail>;
    fn export(
        &mut self,
        module: Self::Value,
        function: Self::Value,
        arity: u32,
    ) -> Result<Self::Value, Fail>;
    fn fun(&mut self, raw: &[u8]) -> Result<Self::Value, Fail>;

    fn tuple_begin(&mut self, n: usize) -> Result<Self::Items, Fail>;
    fn tuple_put(&mut self, items: &mut Self::Items, value: Self::Value);
    fn tuple_end(&mut self, items: Self::Items) -> Result<Self::Value, Fail>;

    /// `n` items are sure to come; more may follow when the tail is a list of its own.
    fn list_begin(&mut self, n: usize) -> Result<Self::Items, Fail>;
    fn list_put(&mut self, items: &mut Self::Items, value: Self::Value) -> Result<(), Fail>;
    fn list_end(&mut self, items: Self::Items) -> Result<Self::Value, Fail>;
    fn improper(&mut self, items: Self::Items, tail: Self::Value) -> Result<Self::Value, Fail>;
    /// STRING_EXT: a list of bytes.
    fn string(&mut self, bytes: &[u8]) -> Result<Self::Value, Fail>;

    fn map_begin(&mut self, n: usize) -> Result<Self::Pairs, Fail>;
    fn map_put(
        &mut self,
        pairs: &mut Self::Pairs,
        key: Self::Value,
        value: Self::Value,
    ) -> Result<(), Fail>;
    fn map_end(&mut self, pairs: Self::Pairs, at: usize) -> Result<Self::Value, Fail>;
}

/// A reference as it stood on the wire: `words` are 1 to 5 big-endian numbers, `canonical` its bytes if they are what OTP
/// 27 would send.
pub struct RawReference<'a> {
    pub creation: u32,
    pub words: &'a [u8],
    pub canonical: Option<&'a [u8]>,
}

/// Reads terms from `data`. A reader is cheap: make one for each message.
pub struct Reader<'a> {
    data: &'a [u8],
    pos: usize,
    /// What is left of the depth limit.
    room: u32,
    /// Terms that open containers still wait for. Each needs a byte, so a length that exceeds what is left is a lie
    /// and is seen before anything is allocated for it: memory stays in proportion to the bytes.
    owed: usize,
    /// Texts met so far: only they can make two keys of a map equal in Erlang that differ in their bytes.
    texts: usize,
    /// Where the keys of the open maps stand, as far as they could be equal in that way.
    key_spans: Vec<(usize, usize)>,
    /// Bytes that the search for such keys may still look at.
    key_work: usize,
    /// Bytes of atoms that it may still write out. References that stand for 128 bytes on the average have room enough.
    key_atoms: usize,
    /// By how much funs may still grow when such references in them are written out, all together.
    growth: usize,
    /// It was read before: a search for equal keys in a search for them would double the work with each level.
    again: bool,
    limits: Limits,
    /// `data` was cut to the size limit.
    cut: bool,
    /// The atoms that ATOM_CACHE_REF 0, 1, .. stand for: those of the distribution header in front of the term.
    atoms: &'a [AtomText],
    /// What has to be written out in the fun that is being read, if any.
    fun: Option<FunSpots>,
}

/// A fun is kept as bytes, to be sent again: references to the cache of its message must not stay in it.
#[derive(Default)]
struct FunSpots {
    /// Positions of ATOM_CACHE_REF.
    references: Vec<usize>,
    /// Positions of the size fields of inner funs, and by how much each grows.
    sizes: Vec<(usize, usize)>,
    growth: usize,
}

impl<'a> Reader<'a> {
    pub fn new(data: &'a [u8], offset: usize, limits: Limits) -> Self {
        let end = data.len().min(offset.saturating_add(limits.bytes));
        Reader {
            data: &data[..end],
            pos: offset.min(end),
            room: limits.depth,
            owed: 0,
            texts: 0,
            key_spans: Vec::new(),
            key_work: (end - offset.min(end))
                .saturating_mul(8)
                .saturating_add(4096),
            key_atoms: (end - offset.min(end))
                .saturating_mul(64)
                .saturating_add(4096),
            growth: limits.bytes,
            again: false,
            limits,
            cut: end < data.len(),
            atoms: &[],
            fun: None,
        }
    }

    /// The same for terms behind a distribution header that named `atoms`.
    pub fn with_atoms(mut self, atoms: &'a [AtomText]) -> Self {
        self.atoms = atoms;
        self
    }

    pub fn position(&self) -> usize {
        self.pos
    }

    /// A term that stands alone: version byte first, maybe compressed.
    pub fn versioned<B: Builder>(&mut self, b: &mut B) -> Result<B::Value, Fail> {
        let at = self.pos;
        if self.u8()? != VERSION {
            return Err(Fault::new(at, "an external term starts with the byte 131"));
        }
        if self.data.get(self.pos) == Some(&tag::COMPRESSED) {
            self.pos += 1;
            return self.compressed(b);
        }
        self.term(b)
    }

    /// A term without version byte, as it stands in distribution messages.
    #[inline]
    pub fn term<B: Builder>(&mut self, b: &mut B) -> Result<B::Value, Fail> {
        self.owed += 1;
        self.any(b)
    }

    #[inline(never)]
    fn compressed<B: Builder>(&mut self, b: &mut B) -> Result<B::Value, Fail> {
        let at = self.pos;
        let claimed = self.u32()? as usize;
        if claimed > self.limits.bytes {
            let what = format!(
                "compressed term of {claimed} bytes exceeds max_bytes={}",
                self.limits.bytes
            );
            return Err(Fault::new(at, what));
        }
        let (inflated, used) = inflate::inflate(&self.data[self.pos..], claimed)
            .map_err(|what| Fault::new(at, what))?;
        self.pos += used;
        let mut inner = Reader::new(&inflated, 0, self.limits);
        inner.term(b).map_err(|mut fault| {
            fault.what = format!("in the inflated term at {}: {}", fault.offset, fault.what).into();
            fault.offset = at;
            fault
        })
    }

    fn any<B: Builder>(&mut self, b: &mut B) -> Result<B::Value, Fail> {
        let at = self.pos;
        let tag = self.u8()?;
        self.owed -= 1;
        match tag {
            tag::SMALL_ATOM_UTF8 => {
                let n = self.u8()? as usize;
                let text = self.take(n)?;
                b.atom(text, at)
            }
            tag::SMALL_INTEGER => {
                let value = self.u8()?;
                b.small(value)
            }
            tag::ATOM_CACHE_REF => {
                let text = self.cached(at)?;
                b.atom(text, at)
            }
            tag::INTEGER => {
                let value = self.u32()? as i32;
                b.integer(value as i64)
            }
            tag::BINARY => {
                let n = self.u32()? as usize;
                let data = self.take(n)?;
                b.binary(data)
            }
            tag::SMALL_TUPLE => {
                let n = self.u8()? as usize;
                self.tuple(b, n, at)
            }
            tag::NIL => {
                let items = b.list_begin(0)?;
                b.list_end(items)
            }
            tag::LIST => self.list(b, at),
            tag::MAP => self.map(b, at),
            tag::STRING => {
                let n = self.u16()? as usize;
                let bytes = self.take(n)?;
                b.string(bytes)
            }
            tag::NEW_FLOAT => {
                let value = f64::from_bits(self.u64()?);
                if !value.is_finite() {
                    return Err(Fault::new(at, "float is not finite"));
                }
                b.float(value)
            }
            tag::NEW_PID => {
                // The common form has a length before anything is parsed: tag, atom tag, length, text, 3 words.
                if self.data.get(self.pos) == Some(&tag::SMALL_ATOM_UTF8) {
                    if let Some(&n) = self.data.get(self.pos + 1) {
                        let end = self.pos + 2 + n as usize + 12;
                        if end <= self.data.len() {
                            if let Some(value) = b.known_pid(&self.data[at..end]) {
                                self.pos = end;
                                return Ok(value);
                            }
                        }
                    }
                }
                self.pid(b, at, tag)
            }
            tag::BIT_BINARY => self.bit_binary(b, at),
            tag::SMALL_BIG => {
                let n = self.u8()? as usize;
                self.big(b, n, at)
            }
            tag::NEWER_REFERENCE => self.reference(b, at, tag),
            tag::LARGE_TUPLE => {
                let n = self.u32()? as usize;
                self.tuple(b, n, at)
            }
            _ => self.rare(b, tag, at),
        }
    }

    /// What is seldom met is kept out of `any`, whose stack frame is paid for at each level of nesting.
    #[inline(never)]
    fn rare<B: Builder>(&mut self, b: &mut B, tag: u8, at: usize) -> Result<B::Value, Fail> {
        match tag {
            tag::ATOM | tag::SMALL_ATOM | tag::ATOM_UTF8 => {
                let text = self.atom_text(tag, at)?;
                match text {
                    Text::Utf8(text) => b.atom(text, at),
                    Text::Made(text) => b.atom(text.as_bytes(), at),
                }
            }
            tag::LARGE_BIG => {
                let n = self.u32()? as usize;
                self.big(b, n, at)
            }
            tag::FLOAT => {
                let field = self.take(31)?;
                match float_text::parse(field) {
                    Some(value) => b.float(value),
                    None => Err(Fault::new(at, "FLOAT_EXT holds no finite float")),
                }
            }
            tag::PID => self.pid(b, at, tag),
            tag::PORT | tag::NEW_PORT | tag::V4_PORT => self.port(b, tag),
            tag::REFERENCE | tag::NEW_REFERENCE => self.reference(b, at, tag),
            tag::EXPORT => self.export(b),
            tag::NEW_FUN | tag::FUN => self.fun(b, at, tag),
            tag::COMPRESSED => Err(Fault::new(
                at,
                "a compressed term may only stand right after the byte 131",
            )),
            tag::LOCAL => Err(Fault::new(
                at,
                "LOCAL_EXT is only for the node that made it",
            )),
            _ => Err(Fault::new(at, format!("unknown tag {tag}"))),
        }
    }

    // --- containers -----------------------------------------------------------------------------------------------------

    fn tuple<B: Builder>(&mut self, b: &mut B, n: usize, at: usize) -> Result<B::Value, Fail> {
        self.enter(n, at)?;
        let mut items = b.tuple_begin(n)?;
        for _ in 0..n {
            let value = self.any(b)?;
            b.tuple_put(&mut items, value);
        }
        self.room += 1;
        b.tuple_end(items)
    }

    /// A list whose tail is a list is one list in Erlang: such tails are taken in a loop, they cost no depth.
    fn list<B: Builder>(&mut self, b: &mut B, at: usize) -> Result<B::Value, Fail> {
        let n = self.u32()? as usize;
        self.enter(n.saturating_add(1), at)?;
        let mut items = b.list_begin(n)?;
        let mut count = n;
        let mut n = n;
        loop {
            for _ in 0..n {
                let value = self.any(b)?;
                b.list_put(&mut items, value)?;
            }
            let tail_at = self.pos;
            match self.data.get(self.pos) {
                Some(&tag::NIL) => {
                    self.pos += 1;
                    self.owed -= 1;
                    break;
                }
                Some(&tag::LIST) => {
                    self.pos += 1;
                    n = self.u32()? as usize;
                    self.owe(n, tail_at)?; // its own tail is owed already: it is ours
                    count += n;
                }
                Some(&tag::STRING) => {
                    self.pos += 1;
                    let n = self.u16()? as usize;
                    for &byte in self.take(n)? {
                        let value = b.small(byte)?;
                        b.list_put(&mut items, value)?;
                    }
                    self.owed -= 1;
                    break;
                }
                _ => {
                    let tail = self.any(b)?;
                    self.room += 1;
                    return if count == 0 {
                        Ok(tail)
                    } else {
                        b.improper(items, tail)
                    };
                }
            }
        }
        self.room += 1;
        b.list_end(items)
    }

    fn map<B: Builder>(&mut self, b: &mut B, at: usize) -> Result<B::Value, Fail> {
        let n = self.u32()? as usize;
        self.enter(n.saturating_mul(2), at)?;
        let mut pairs = b.map_begin(n)?;
        let mut kinds = KeyKinds::default();
        let spans = self.key_spans.len();
        for _ in 0..n {
            let key_at = self.pos;
            let texts = self.texts;
            let key = self.any(b)?;
            if kinds.note(self.data[key_at], self.texts - texts) {
                self.key_spans.push((key_at, self.pos));
            }
            let value = self.any(b)?;
            b.map_put(&mut pairs, key, value)?;
        }
        if kinds.texts && kinds.others && !self.again {
            self.refuse_equal_keys(spans, at)?;
        }
        self.key_spans.truncate(spans);
        self.room += 1;
        b.map_end(pairs, at)
    }

    #[cold]
    #[inline(never)]
    fn refuse_equal_keys(&mut self, first: usize, at: usize) -> Result<(), Fail> {
        let mut seen = std::collections::HashSet::with_capacity(self.key_spans.len() - first);
        for i in first..self.key_spans.len() {
            let (from, to) = self.key_spans[i];
            self.work(to - from, at)?;
            let mut canonical = Canonical::new(self.key_atoms);
            let key = self.again(to, from).term(&mut canonical)?;
            self.key_atoms = canonical.room();
            if !seen.insert(key) {
                return Err(Fault::new(from, "duplicate key in a map"));
            }
        }
        Ok(())
    }

    /// The same for the maps among the `n` terms that start at `from` and are known to be whole.
    #[cold]
    #[inline(never)]
    fn refuse_equal_keys_inside(&mut self, from: usize, n: usize) -> Result<(), Fail> {
        self.work(self.pos - from, from)?;
        let mut reader = self.again(self.pos, from);
        let mut canonical = Canonical::new(self.key_atoms);
        for _ in 0..n {
            reader.term(&mut canonical)?;
        }
        self.key_atoms = canonical.room();
        Ok(())
    }

    /// A reader of what was read already, which may write out no more than the search for equal keys has left.
    fn again(&self, end: usize, from: usize) -> Reader<'a> {
        let limits = Limits {
            bytes: (end - from).max(self.key_atoms),
            ..self.limits
        };
        let mut reader = Reader::new(&self.data[..end], from, limits).with_atoms(self.atoms);
        reader.again = true;
        reader
    }

    fn work(&mut self, bytes: usize, at: usize) -> Result<(), Fail> {
        match self.key_work.checked_sub(bytes) {
            Some(left) => self.key_work = left,
            None => {
                return Err(Fault::new(
                    at,
                    "maps are keys of maps, or in funs of funs, too often",
                ))
            }
        }
        Ok(())
    }

    /// One level down, into a container of `n` terms.
    #[inline]
    fn enter(&mut self, n: usize, at: usize) -> Result<(), Fail> {
        if self.room == 0 {
            return Err(Fault::new(
                at,
                format!("nested deeper than max_depth={}", self.limits.depth),
            ));
        }
        self.room -= 1;
        self.owe(n, at)
    }

    #[inline]
    fn owe(&mut self, n: usize, at: usize) -> Result<(), Fail> {
        self.owed = self.owed.saturating_add(n);
        if self.owed > self.data.len() - self.pos {
            return Err(self.short(at));
        }
        Ok(())
    }

    // --- leaves -----------------------------------------------------------------------------------------------------------

    #[inline(never)]
    fn big<B: Builder>(&mut self, b: &mut B, n: usize, at: usize) -> Result<B::Value, Fail> {
        let negative = self.u8()? != 0;
        let magnitude = self.take(n)?;
        let used = n - magnitude
            .iter()
            .rev()
            .take_while(|&&byte| byte == 0)
            .count();
        if used <= 8 {
            let mut word = [0; 8];
            word[..used].copy_from_slice(&magnitude[..used]);
            let value = u64::from_le_bytes(word) as i128;
            if let Ok(value) = i64::try_from(if negative { -value } else { value }) {
                return b.integer(value);
            }
        }
        if used > self.limits.integer_bytes {
            return Err(Fault::new(
                at,
                format!(
                    "integer of {used} bytes exceeds {}",
                    self.limits.integer_bytes
                ),
            ));
        }
        b.big(negative, &magnitude[..used])
    }

    #[inline(never)]
    fn bit_binary<B: Builder>(&mut self, b: &mut B, at: usize) -> Result<B::Value, Fail> {
        let n = self.u32()? as usize;
        let bits = self.u8()?;
        let data = self.take(n)?;
        match bits {
            // a fun is Erlang's, and is sent again as it came: nothing that Erlang nodes refuse may be in it
            8 if n > 0 || (self.limits.empty_text && self.fun.is_none()) => {
                self.texts += 1;
                b.text(data)
            }
            1..=7 if n > 0 => b.bits(data, bits),
            _ => Err(Fault::new(
                at,
                format!("bit string of {n} bytes with {bits} bits in the last one"),
            )),
        }
    }

    #[inline(never)]
    fn pid<B: Builder>(&mut self, b: &mut B, at: usize, tag: u8) -> Result<B::Value, Fail> {
        if tag == tag::NEW_PID && self.data.get(self.pos) == Some(&tag::ATOM_CACHE_REF) {
            return self.pid_of_cached_node(b);
        }
        let node = self.name(b)?;
        let (id, serial) = (self.u32()?, self.u32()?);
        let creation = if tag == tag::PID {
            self.tiny_creation()?
        } else {
            self.u32()?
        };
        b.pid(node, id, serial, creation, &self.data[at..self.pos])
    }

    /// Written out as it would stand without a cache, so that the builder knows it again.
    fn pid_of_cached_node<B: Builder>(&mut self, b: &mut B) -> Result<B::Value, Fail> {
        let name_at = self.pos;
        self.pos += 1;
        let text = self.cached(name_at)?;
        let numbers = self.take(12)?;
        let mut raw = [0; 3 + 255 + 12];
        let size = 3 + text.len() + 12;
        let raw = match raw.get_mut(..size) {
            Some(raw) if text.len() < 256 => {
                raw[..3].copy_from_slice(&[tag::NEW_PID, tag::SMALL_ATOM_UTF8, text.len() as u8]);
                raw[3..3 + text.len()].copy_from_slice(text);
                raw[3 + text.len()..].copy_from_slice(numbers);
                &*raw
            }
            _ => &[tag::NEW_PID, tag::ATOM_UTF8][..], // too long a name for the short form, as above
        };
        if let Some(value) = b.known_pid(raw) {
            return Ok(value);
        }
        let node = b.name(text, name_at)?;
        let word = |i: usize| {
            u32::from_be_bytes([numbers[i], numbers[i + 1], numbers[i + 2], numbers[i + 3]])
        };
        b.pid(node, word(0), word(4), word(8), raw)
    }

    fn port<B: Builder>(&mut self, b: &mut B, tag: u8) -> Result<B::Value, Fail> {
        let node = self.name(b)?;
        let id = if tag == tag::V4_PORT {
            self.u64()?
        } else {
            self.u32()? as u64
        };
        let creation = if tag == tag::PORT {
            self.tiny_creation()?
        } else {
            self.u32()?
        };
        b.port(node, id, creation)
    }

    #[inline(never)]
    fn reference<B: Builder>(&mut self, b: &mut B, at: usize, tag: u8) -> Result<B::Value, Fail> {
        let n = if tag == tag::REFERENCE {
            1
        } else {
            self.u16()? as usize
        };
        if n == 0 || n > MAX_REFERENCE_WORDS {
            return Err(Fault::new(at, format!("reference of {n} words")));
        }
        let name_at = self.pos;
        let name_tag = self.data.get(self.pos).copied();
        let node = self.name(b)?;
        let name_end = self.pos;
        let data = self.data;
        let (words, creation);
        if tag == tag::REFERENCE {
            words = self.take(4)?;
            creation = self.tiny_creation()?;
        } else {
            creation = if tag == tag::NEW_REFERENCE {
                self.tiny_creation()?
            } else {
                self.u32()?
            };
            words = self.take(4 * n)?;
        }
        // OTP's MAX_REFERENCE: 18 bits in the first word of the old tags
        if tag != tag::NEWER_REFERENCE
            && u32::from_be_bytes([words[0], words[1], words[2], words[3]]) >> 18 != 0
        {
            return Err(Fault::new(
                at,
                "old reference whose first word has more than 18 bits",
            ));
        }
        let canonical = match name_tag {
            Some(tag::SMALL_ATOM_UTF8) if tag == tag::NEWER_REFERENCE => {
                Some(Cow::Borrowed(&data[at..self.pos]))
            }
            // as of pids, short names only: two bytes must not be kept as a thousand
            Some(tag::ATOM_CACHE_REF) if tag == tag::NEWER_REFERENCE => self
                .atoms
                .get(data[name_at + 1] as usize)
                .filter(|text| text.len() < 256)
                .map(|text| {
                    let mut raw = Vec::with_capacity(self.pos - at + text.len());
                    raw.extend_from_slice(&data[at..name_at]);
                    write::atom(&mut raw, text);
                    raw.extend_from_slice(&data[name_end..self.pos]);
                    Cow::Owned(raw)
                }),
            _ => None,
        };
        b.reference(
            node,
            RawReference {
                creation,
                words,
                canonical: canonical.as_deref(),
            },
        )
    }

    fn export<B: Builder>(&mut self, b: &mut B) -> Result<B::Value, Fail> {
        let module = self.name(b)?;
        let function = self.name(b)?;
        let at = self.pos;
        match u32::try_from(self.plain_integer()?) {
            Ok(arity) => b.export(module, function, arity),
            Err(_) => Err(Fault::new(
                at,
                "arity of an export is negative or too large",
            )),
        }
    }

    /// A closure stays the bytes it came as, but they are checked: they will be sent again.
    fn fun<B: Builder>(&mut self, b: &mut B, at: usize, tag: u8) -> Result<B::Value, Fail> {
        let mut check = super::check::Check::default();
        let outer = self.fun.take();
        self.fun = Some(FunSpots::default());
        let free;
        if tag == tag::NEW_FUN {
            self.take(4 + 1 + 16 + 4)?; // size (OTP does not look at it either), arity, uniq, index
            free = self.u32()? as usize;
            self.name(&mut check)?;
            self.plain_integer()?;
            self.plain_integer()?;
            self.fun_pid(&mut check)?;
        } else {
            free = self.u32()? as usize;
            self.fun_pid(&mut check)?;
            self.name(&mut check)?;
            self.plain_integer()?;
            self.plain_integer()?;
        }
        self.enter(free, at)?;
        let from = self.pos;
        for _ in 0..free {
            self.any(&mut check)?;
        }
        self.room += 1;
        if check.maps && !self.again {
            self.refuse_equal_keys_inside(from, free)?;
        }
        let mut spots = self.fun.take().unwrap_or_default();
        if tag == tag::NEW_FUN && spots.growth > 0 {
            spots.sizes.push((at + 1, spots.growth));
        }
        match outer {
            Some(mut outer) => {
                // its bytes are a part of the outer fun's, and the builder is one that keeps none
                outer.references.append(&mut spots.references);
                outer.sizes.append(&mut spots.sizes);
                outer.growth += spots.growth;
                self.fun = Some(outer);
                b.fun(&self.data[at..self.pos])
            }
            None if spots.references.is_empty() => b.fun(&self.data[at..self.pos]),
            None => b.fun(&self.written_out(at, &spots)?),
        }
    }

    /// The fun that starts at `at` with its references to the atom cache replaced by atoms.
    fn written_out(&mut self, at: usize, spots: &FunSpots) -> Result<Vec<u8>, Fail> {
        let size = self.pos - at + spots.growth;
        match self.growth.checked_sub(spots.growth) {
            Some(left) => self.growth = left,
            None => {
                let what = format!(
                    "funs with their atoms exceed max_bytes={}",
                    self.limits.bytes
                );
                return Err(Fault::new(at, what));
            }
        }
        let mut data = self.data[at..self.pos].to_vec();
        for &(size_at, growth) in &spots.sizes {
            let field = &mut data[size_at - at..size_at - at + 4];
            let old = u32::from_be_bytes([field[0], field[1], field[2], field[3]]);
            field.copy_from_slice(&old.wrapping_add(growth as u32).to_be_bytes());
        }
        let mut raw = Vec::with_capacity(size);
        let mut done = 0;
        for &spot in &spots.references {
            raw.extend_from_slice(&data[done..spot - at]);
            write::atom(&mut raw, &self.atoms[data[spot - at + 1] as usize]);
            done = spot - at + 2;
        }
        raw.extend_from_slice(&data[done..]);
        Ok(raw)
    }

    fn fun_pid(&mut self, check: &mut super::check::Check) -> Result<(), Fail> {
        let at = self.pos;
        match self.u8()? {
            tag @ (tag::PID | tag::NEW_PID) => self.pid(check, at, tag),
            _ => Err(Fault::new(at, "expected a pid")),
        }
    }

    // --- parts ----------------------------------------------------------------------------------------------------------

    /// An atom in a place where only an atom may stand.
    fn name<B: Builder>(&mut self, b: &mut B) -> Result<B::Value, Fail> {
        let at = self.pos;
        match self.u8()? {
            tag::SMALL_ATOM_UTF8 => {
                let n = self.u8()? as usize;
                let text = self.take(n)?;
                b.name(text, at)
            }
            tag::ATOM_CACHE_REF => {
                let text = self.cached(at)?;
                b.name(text, at)
            }
            tag => match self.atom_text(tag, at)? {
                Text::Utf8(text) => b.name(text, at),
                Text::Made(text) => b.name(text.as_bytes(), at),
            },
        }
    }

    /// The atom that the ATOM_CACHE_REF at `at` stands for; its tag has been read.
    #[inline]
    fn cached(&mut self, at: usize) -> Result<&'a [u8], Fail> {
        let index = self.u8()?;
        match self.atoms.get(index as usize) {
            Some(text) => {
                if let Some(fun) = &mut self.fun {
                    fun.references.push(at);
                    fun.growth += text.len() + if text.len() < 256 { 2 } else { 3 } - 2;
                }
                Ok(text)
            }
            None => Err(Fault::new(at, "atom cache reference without a cached atom")),
        }
    }

    #[inline(never)]
    fn atom_text(&mut self, tag: u8, at: usize) -> Result<Text<'a>, Fail> {
        let n = match tag {
            tag::ATOM | tag::ATOM_UTF8 => self.u16()? as usize,
            tag::SMALL_ATOM | tag::SMALL_ATOM_UTF8 => self.u8()? as usize,
            _ => return Err(Fault::new(at, "expected an atom")),
        };
        let text = self.take(n)?;
        let latin1 = matches!(tag, tag::ATOM | tag::SMALL_ATOM);
        if latin1 && !text.is_ascii() {
            return Ok(Text::Made(text.iter().map(|&byte| byte as char).collect()));
        }
        Ok(Text::Utf8(text))
    }

    /// An integer that is a part of another term.
    fn plain_integer(&mut self) -> Result<i64, Fail> {
        let at = self.pos;
        match self.u8()? {
            tag::SMALL_INTEGER => Ok(self.u8()? as i64),
            tag::INTEGER => Ok(self.u32()? as i32 as i64),
            tag::SMALL_BIG => {
                let n = self.u8()? as usize;
                let negative = self.u8()? != 0;
                let magnitude = self.take(n)?;
                if n > 7 {
                    return Err(Fault::new(at, "integer is too large here"));
                }
                let value = magnitude
                    .iter()
                    .rev()
                    .fold(0, |value, &byte| value << 8 | byte as i64);
                Ok(if negative { -value } else { value })
            }
            _ => Err(Fault::new(at, "expected an integer")),
        }
    }

    /// The creation byte of the old tags: two bits.
    fn tiny_creation(&mut self) -> Result<u32, Fail> {
        let at = self.pos;
        match self.u8()? {
            creation @ 0..=3 => Ok(creation as u32),
            _ => Err(Fault::new(at, "old creation has more than 2 bits")),
        }
    }

    #[inline]
    fn u8(&mut self) -> Result<u8, Fail> {
        match self.data.get(self.pos) {
            Some(&byte) => {
                self.pos += 1;
                Ok(byte)
            }
            None => Err(self.short(self.pos)),
        }
    }

    #[inline]
    fn u16(&mut self) -> Result<u16, Fail> {
        Ok(u16::from_be_bytes(self.fixed()?))
    }

    #[inline]
    fn u32(&mut self) -> Result<u32, Fail> {
        Ok(u32::from_be_bytes(self.fixed()?))
    }

    #[inline]
    fn u64(&mut self) -> Result<u64, Fail> {
        Ok(u64::from_be_bytes(self.fixed()?))
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Fail> {
        match self.data[self.pos..].first_chunk::<N>() {
            Some(bytes) => {
                self.pos += N;
                Ok(*bytes)
            }
            None => Err(self.short(self.pos)),
        }
    }

    #[inline]
    fn take(&mut self, n: usize) -> Result<&'a [u8], Fail> {
        if n > self.data.len() - self.pos {
            return Err(self.short(self.pos));
        }
        let data = &self.data[self.pos..self.pos + n];
        self.pos += n;
        Ok(data)
    }

    #[cold]
    #[inline(never)]
    fn short(&self, at: usize) -> Fail {
        if self.cut {
            return Fault::new(at, format!("term exceeds max_bytes={}", self.limits.bytes));
        }
        Fault::new(at, "the bytes end inside a term")
    }
}

enum Text<'a> {
    Utf8(&'a [u8]),
    Made(String),
}

/// Which keys of a map could be equal in Erlang though their bytes differ: a text and a binary, or containers with them.
#[derive(Default)]
struct KeyKinds {
    texts: bool,
    others: bool,
}

impl KeyKinds {
    /// Whether the key that starts with `tag` and has `texts` texts inside is one of those.
    #[inline]
    fn note(&mut self, tag: u8, texts: usize) -> bool {
        match tag {
            tag::BINARY => self.others = true,
            tag::BIT_BINARY if texts == 1 => self.texts = true,
            tag::SMALL_TUPLE | tag::LARGE_TUPLE | tag::LIST | tag::MAP => {
                self.others = true;
                self.texts |= texts > 0;
            }
            _ => return false,
        }
        true
    }
}
