//! A set of formats, in one word: what a request is in, what agrees, what is written.

use super::{FORMATS, Format};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set(u16);

impl Set {
    /// Of bits in the order of the formats.
    pub fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    pub fn add(&mut self, format: Format) {
        self.0 |= 1 << format as u16;
    }

    pub fn has(self, format: Format) -> bool {
        self.0 & 1 << format as u16 != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub fn iter(self) -> impl Iterator<Item = Format> {
        FORMATS.into_iter().filter(move |format| self.has(*format))
    }
}

impl From<&[Format]> for Set {
    fn from(formats: &[Format]) -> Self {
        let mut all = Self::default();
        formats.iter().for_each(|format| all.add(*format));
        all
    }
}
