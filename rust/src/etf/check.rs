//! The builder that builds nothing: is this a term?

use super::{Builder, Fail, Fault, RawReference, MAX_ATOM_CHARS};

/// Checks all that needs no memory: duplicate keys are left to builders that hold the keys.
#[derive(Default)]
pub struct Check {
    /// A map with more than one key was met.
    pub maps: bool,
}

/// Whether `text` may be an atom: valid UTF-8 and at most 255 characters.
pub fn atom_text(text: &[u8], at: usize) -> Result<&str, Fail> {
    let text = std::str::from_utf8(text).map_err(|_| Fault::new(at, "atom is no valid UTF-8"))?;
    if text.len() > MAX_ATOM_CHARS && text.chars().count() > MAX_ATOM_CHARS {
        return Err(Fault::new(at, "atom has more than 255 characters"));
    }
    Ok(text)
}

impl Builder for Check {
    type Value = ();
    type Items = ();
    type Pairs = ();

    fn small(&mut self, _: u8) -> Result<(), Fail> {
        Ok(())
    }
    fn integer(&mut self, _: i64) -> Result<(), Fail> {
        Ok(())
    }
    fn big(&mut self, _: bool, _: &[u8]) -> Result<(), Fail> {
        Ok(())
    }
    fn float(&mut self, _: f64) -> Result<(), Fail> {
        Ok(())
    }
    fn atom(&mut self, text: &[u8], at: usize) -> Result<(), Fail> {
        atom_text(text, at).map(|_| ())
    }
    fn name(&mut self, text: &[u8], at: usize) -> Result<(), Fail> {
        atom_text(text, at).map(|_| ())
    }
    fn binary(&mut self, _: &[u8]) -> Result<(), Fail> {
        Ok(())
    }
    fn text(&mut self, _: &[u8]) -> Result<(), Fail> {
        Ok(())
    }
    fn bits(&mut self, _: &[u8], _: u8) -> Result<(), Fail> {
        Ok(())
    }
    fn pid(&mut self, _: (), _: u32, _: u32, _: u32, _: &[u8]) -> Result<(), Fail> {
        Ok(())
    }
    fn port(&mut self, _: (), _: u64, _: u32) -> Result<(), Fail> {
        Ok(())
    }
    fn reference(&mut self, _: (), _: RawReference<'_>) -> Result<(), Fail> {
        Ok(())
    }
    fn export(&mut self, _: (), _: (), _: u32) -> Result<(), Fail> {
        Ok(())
    }
    fn fun(&mut self, _: &[u8]) -> Result<(), Fail> {
        Ok(())
    }
    fn tuple_begin(&mut self, _: usize) -> Result<(), Fail> {
        Ok(())
    }
    fn tuple_put(&mut self, _: &mut (), _: ()) {}
    fn tuple_end(&mut self, _: ()) -> Result<(), Fail> {
        Ok(())
    }
    fn list_begin(&mut self, _: usize) -> Result<(), Fail> {
        Ok(())
    }
    fn list_put(&mut self, _: &mut (), _: ()) -> Result<(), Fail> {
        Ok(())
    }
    fn list_end(&mut self, _: ()) -> Result<(), Fail> {
        Ok(())
    }
    fn improper(&mut self, _: (), _: ()) -> Result<(), Fail> {
        Ok(())
    }
    fn string(&mut self, _: &[u8]) -> Result<(), Fail> {
        Ok(())
    }
    fn map_begin(&mut self, n: usize) -> Result<(), Fail> {
        self.maps |= n > 1;
        Ok(())
    }
    fn map_put(&mut self, _: &mut (), _: (), _: ()) -> Result<(), Fail> {
        Ok(())
    }
    fn map_end(&mut self, _: (), _: usize) -> Result<(), Fail> {
        Ok(())
    }
}
