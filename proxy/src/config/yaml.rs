//! The only place that knows the YAML library: text to `Tree`, `Tree` to text, and the line on which a field stands.
//!
//! The library tells a place only for an error raised while it reads. So `locate` reads the text again, follows the path
//! to the field, and fails there on purpose.

mod locate;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::tree::{FieldPath, Step, Tree};
use locate::{FOUND, Follow};

pub use locate::locate;

/// Why a text is no YAML that this program reads, and where. Line and column count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub line: usize,
    pub column: usize,
    pub path: FieldPath,
    pub wrong: String,
    pub right: String,
}

/// Reads one document. An empty one is `Tree::Null`.
pub fn parse(text: &str) -> Result<Tree, Refusal> {
    if let Some((line, column)) = too_many_open(text) {
        let wrong = format!("is not valid YAML: the {MAX_OPEN}th bracket in a row is opened here and none is closed");
        return Err(Refusal { line, column, path: FieldPath::default(), wrong, right: "close the brackets".into() });
    }
    let reading = Reading { budget: Cell::new(MAX_WEIGHT), fault: RefCell::default() };
    let seed = Value { reading: &reading, trail: Trail::Root };
    seed.deserialize(serde_yaml::Deserializer::from_str(text)).map_err(|error| {
        let (fault, at) = match reading.fault.take() {
            Some(fault) => (fault, place(&error)),
            None => explain(text, &error),
        };
        let (line, column) = at.unwrap_or((1, 1));
        Refusal { line, column, path: fault.path, wrong: fault.wrong, right: fault.right }
    })
}

/// A tree as a document of its own.
pub fn write(tree: &Tree) -> String {
    // A tree of plain maps and lists always serializes; the library's signature covers types that YAML cannot hold.
    serde_yaml::to_string(tree).unwrap_or_else(|error| format!("# {error}\n"))
}

/// The library's work grows with the square of the brackets that are open, long before it refuses to go deeper.
/// Brackets in quotes are counted too, but those of a right file are closed.
fn too_many_open(text: &str) -> Option<(usize, usize)> {
    let mut open = 0usize;
    for (number, line) in text.lines().enumerate() {
        for (column, letter) in line.chars().enumerate() {
            match letter {
                '[' | '{' => open += 1,
                ']' | '}' => open = open.saturating_sub(1),
                _ => {}
            }
            if open == MAX_OPEN {
                return Some((number + 1, column + 1));
            }
        }
    }
    None
}

fn place(error: &serde_yaml::Error) -> Option<(usize, usize)> {
    error.location().map(|location| (location.line(), location.column()))
}

struct Reading {
    budget: Cell<usize>,
    fault: RefCell<Option<Fault>>,
}

struct Fault {
    path: FieldPath,
    wrong: String,
    right: String,
}

/// The way back to the root, so that a path is written down only when there is a fault to tell.
#[derive(Clone, Copy)]
enum Trail<'a> {
    Root,
    Item(&'a Trail<'a>, usize),
    Field(&'a Trail<'a>, &'a str),
}

impl Trail<'_> {
    fn path(&self) -> FieldPath {
        let mut steps = Vec::new();
        let mut here = self;
        loop {
            match here {
                Trail::Root => break,
                Trail::Item(above, index) => {
                    steps.push(Step::Item(*index));
                    here = above;
                }
                Trail::Field(above, name) => {
                    steps.push(Step::Field((*name).into()));
                    here = above;
                }
            }
        }
        steps.reverse();
        FieldPath(steps)
    }
}

impl Reading {
    /// Notes the fault; the error that is returned only stops the library and carries the place out.
    fn refuse<E: serde::de::Error>(&self, trail: Trail<'_>, wrong: &str, right: &str) -> E {
        *self.fault.borrow_mut() = Some(Fault { path: trail.path(), wrong: wrong.into(), right: right.into() });
        E::custom(wrong)
    }

    /// Aliases (`*name`) repeat what they stand for, so a short text can mean a huge tree.
    fn spend<E: serde::de::Error>(&self, trail: Trail<'_>, length: usize) -> Result<(), E> {
        match self.budget.get().checked_sub(WEIGHT_OF_VALUE + length) {
            Some(left) => {
                self.budget.set(left);
                Ok(())
            }
            None => {
                Err(self.refuse(trail, "is larger than this program reads, once its aliases are written out", SMALLER))
            }
        }
    }
}

/// What the library found wrong, and where. It calls a second document whatever follows the first, be it YAML or not, and
/// tells no place for it, so that is looked at by itself.
fn explain(text: &str, error: &serde_yaml::Error) -> (Fault, Option<(usize, usize)>) {
    if error.to_string().contains("more than one document")
        && let Some(second) = serde_yaml::Deserializer::from_str(text).nth(1)
        && let Err(error) = (Follow { steps: &[], name: false }).deserialize(second)
    {
        let fault = match error.to_string().starts_with(FOUND) {
            true => Fault {
                path: FieldPath::default(),
                wrong: "begins a second document".into(),
                right: "keep one document, without a second `---`".into(),
            },
            false => syntax(&error),
        };
        return (fault, place(&error));
    }
    (syntax(error), place(error))
}

/// The library's own message.
fn syntax(error: &serde_yaml::Error) -> Fault {
    // The library repeats text of the file, line ends and all.
    let text = error.to_string().replace(char::is_control, " ");
    // The library appends the place, which a problem tells in front.
    let wrong = match error.location() {
        Some(place) => text.replacen(&format!(" at line {} column {}", place.line(), place.column()), "", 1),
        None => text,
    };
    let right = match wrong.as_str() {
        "recursion limit exceeded" => "a configuration nests a few levels, never a hundred",
        "repetition limit exceeded" => SMALLER,
        "unknown anchor" => "an alias `*name` needs an anchor `&name` above it",
        _ => "check the indentation, brackets and quotes here and in the line above",
    };
    Fault { path: FieldPath::default(), wrong: format!("is not valid YAML: {wrong}"), right: right.into() }
}

/// Reads a value into a tree.
struct Value<'a> {
    reading: &'a Reading,
    trail: Trail<'a>,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = Tree;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Tree, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Tree, E> {
        self.reading.spend(self.trail, 0)?;
        Ok(Tree::Null)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Tree, E> {
        self.visit_unit()
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Tree, E> {
        self.reading.spend(self.trail, 0)?;
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Tree, E> {
        self.visit_i128(value.into())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Tree, E> {
        self.visit_i128(value.into())
    }

    fn visit_i128<E: serde::de::Error>(self, value: i128) -> Result<Tree, E> {
        self.reading.spend(self.trail, 0)?;
        Ok(Tree::Number(value))
    }

    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Tree, E> {
        self.visit_i128(i128::try_from(value).unwrap_or(i128::MAX))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Tree, E> {
        self.reading.spend(self.trail, 0)?;
        Ok(Tree::Fraction(value))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Tree, E> {
        self.reading.spend(self.trail, text.len())?;
        Ok(Tree::text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
        self.reading.spend(self.trail, 0)?;
        let mut items = Vec::new();
        loop {
            let trail = Trail::Item(&self.trail, items.len());
            let Some(item) = list.next_element_seed(Value { reading: self.reading, trail })? else {
                return Ok(Tree::List(items));
            };
            items.push(item);
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        self.reading.spend(self.trail, 0)?;
        let mut seen = HashSet::new();
        let mut entries = Vec::new();
        while let Some(name) = map.next_key_seed(Name { reading: self.reading, trail: self.trail, seen: &mut seen })? {
            let trail = Trail::Field(&self.trail, &name);
            let value = map.next_value_seed(Value { reading: self.reading, trail })?;
            entries.push((name, value));
        }
        Ok(Tree::Map(entries))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Tree, A::Error> {
        Err(self.reading.refuse(self.trail, "has a YAML tag (`!…`)", "write the value without a tag"))
    }
}

/// Reads the name of a map's entry and refuses one that the map already has.
struct Name<'a> {
    reading: &'a Reading,
    trail: Trail<'a>,
    seen: &'a mut HashSet<String>,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = String;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<String, E> {
        self.reading.spend(self.trail, name.len())?;
        if self.seen.insert(name.into()) {
            return Ok(name.into());
        }
        let trail = Trail::Field(&self.trail, name);
        Err(self.reading.refuse(trail, "stands here for the second time", "keep one of the two"))
    }
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Tree::Null => to.serialize_unit(),
            Tree::Bool(value) => to.serialize_bool(*value),
            Tree::Number(value) => to.serialize_i128(*value),
            Tree::Fraction(value) => to.serialize_f64(*value),
            Tree::Text(text) | Tree::Word(text) => to.serialize_str(text),
            Tree::List(items) => to.collect_seq(items),
            Tree::Map(entries) => {
                let mut map = to.serialize_map(Some(entries.len()))?;
                for (name, value) in entries {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

const SMALLER: &str = "write less of it, or repeat less by alias";

const MAX_OPEN: usize = 1000;
/// What a tree may weigh: a value `WEIGHT_OF_VALUE`, a text its length. A file of `MAX_FILE` bytes without aliases stays below.
const MAX_WEIGHT: usize = 32 << 20;
const WEIGHT_OF_VALUE: usize = 16;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_document_becomes_a_tree() {
        let tree = parse("a: 1\nb: [x, \"1\", 1.5, true, ~]\n").unwrap();
        let list = vec![Tree::text("x"), Tree::text("1"), Tree::Fraction(1.5), Tree::Bool(true), Tree::Null];
        assert_eq!(tree, Tree::Map(vec![("a".into(), Tree::Number(1)), ("b".into(), Tree::List(list))]));
        assert_eq!(parse("").unwrap(), Tree::Null);
        assert_eq!(parse("# nothing\n").unwrap(), Tree::Null);
    }

    #[test]
    fn what_is_no_yaml_is_told_with_its_line() {
        for (text, line, wrong) in [
            ("a: [1, 2\nb: 3\n", 2, "did not find expected ',' or ']'"),
            ("a: 1\na: 2\n", 2, "second time"),
            ("a: *b\n", 1, "unknown anchor"),
            ("a: 1\n---\nb: 2\n", 3, "begins a second document"),
            ("{a: 1}\n}\n", 2, "did not find expected"),
            ("a: 1\nb: !secret x\n", 2, "tag"),
            ("a:\n\t- 1\n", 2, "cannot start any token"),
            ("? [a]\n: 1\n", 1, "invalid type: sequence"),
        ] {
            let refusal = parse(text).unwrap_err();
            assert_eq!(refusal.line, line, "{text:?} {refusal:?}");
            assert!(refusal.wrong.contains(wrong), "{text:?} {refusal:?}");
        }
        assert_eq!(parse("x: {a: 1, a: 2}").unwrap_err().path.to_string(), "x.a");
    }

    #[test]
    fn a_short_text_cannot_mean_a_huge_tree() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let before = format!("*a{}", level - 1);
            bomb += &format!("a{level}: &a{level} [{}]\n", [before.as_str(); 10].join(", "));
        }
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), vec!["*a"; 100_000].join(", "));
        let endless = "a: &a [*a, *a]\n".to_owned();
        let deep = "[".repeat(900);
        let deeper = "{a: ".repeat(250_000);
        for text in [bomb, long, endless, deep, deeper] {
            let began = Instant::now();
            assert!(parse(&text).is_err());
            assert!(began.elapsed() < Duration::from_secs(10), "{:.40} took {:?}", text, began.elapsed());
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let tree = parse("a: \"1.4\"\nb: [\"true\", \"~\", \"\", 5]\nc: {}\nd: []\n").unwrap();
        assert_eq!(parse(&write(&tree)).unwrap(), tree);
    }
}
