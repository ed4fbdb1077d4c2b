//! Finds the line of a field: follows its path through the text and fails there on purpose, so that the error's place is the answer.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::place;
use crate::config::tree::{FieldPath, Step};

/// Line and column of the value at `path`, or of its name when `name` is set; where the text has no such field, of what should hold it.
pub fn locate(text: &str, path: &FieldPath, name: bool) -> (usize, usize) {
    let seed = Follow { steps: &path.0, name };
    match seed.deserialize(serde_yaml::Deserializer::from_str(text)) {
        Ok(()) => (1, 1),
        Err(error) => place(&error).unwrap_or((1, 1)),
    }
}

/// Follows the steps to a field and fails there.
pub(super) struct Follow<'a> {
    pub steps: &'a [Step],
    /// Fail at the field's name, not at its value.
    pub name: bool,
}

/// The map's key that comes next: fails if it is the one whose name is looked for.
struct FollowName<'a> {
    wanted: &'a str,
    fail: bool,
}

impl<'de> DeserializeSeed<'de> for Follow<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> DeserializeSeed<'de> for FollowName<'_> {
    type Value = bool;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for FollowName<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<bool, E> {
        let found = name == self.wanted;
        if found && self.fail { Err(E::custom(FOUND)) } else { Ok(found) }
    }
}

/// Every way out that does not go deeper is an error here, on purpose: its place is the answer.
impl<'de> Visitor<'de> for Follow<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FOUND)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        if let Some((Step::Item(wanted), deeper)) = self.steps.split_first() {
            for _ in 0..*wanted {
                if list.next_element::<IgnoredAny>()?.is_none() {
                    break;
                }
            }
            list.next_element_seed(Follow { steps: deeper, name: self.name })?;
        }
        Err(A::Error::custom(FOUND))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if let Some((Step::Field(wanted), deeper)) = self.steps.split_first() {
            let fail = self.name && deeper.is_empty();
            while let Some(found) = map.next_key_seed(FollowName { wanted, fail })? {
                if found {
                    map.next_value_seed(Follow { steps: deeper, name: self.name })?;
                }
                map.next_value::<IgnoredAny>()?;
            }
        }
        Err(A::Error::custom(FOUND))
    }
}

/// No message of the library begins like this.
pub(super) const FOUND: &str = "the field that was looked for";

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str) -> Step {
        Step::Field(name.into())
    }

    #[test]
    fn a_field_is_found_by_its_path() {
        let text = "a: 1\nlist:\n- name: x\n  deep: {k: v}\n- name: y\n";
        let at = |steps: &[Step], name| locate(text, &FieldPath(steps.to_vec()), name);
        assert_eq!(at(&[field("a")], false), (1, 4));
        assert_eq!(at(&[field("a")], true), (1, 1));
        assert_eq!(at(&[field("list"), Step::Item(1), field("name")], false), (5, 9));
        assert_eq!(at(&[field("list"), Step::Item(0), field("deep"), field("k")], false), (4, 13));
        assert_eq!(at(&[field("list"), Step::Item(0), field("deep"), field("k")], true), (4, 10));
        // Not there: the place of what should hold it.
        assert_eq!(at(&[field("list"), Step::Item(1), field("gone")], false), (5, 3));
        assert_eq!(at(&[field("a"), field("b"), field("c")], false), (1, 4));
        assert_eq!(at(&[field("list"), Step::Item(7)], false), (3, 1));
        assert_eq!(locate("", &FieldPath::default(), false), (1, 1));
    }
}
