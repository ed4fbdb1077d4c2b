//! Forms of values that are not peculiar to this program: numbers, yes or no, lists, text, things that may be left out.
//!
//! What has a grammar of its own (durations, addresses, hosts) is in `grammar`.

use std::path::PathBuf;

use super::problem::{quoted, shown, suggest};
use super::reader::Reader;
use super::schema::{Form, Kind};
use super::tree::Tree;

impl<F: Form> Form for Option<F> {
    type Plain = Option<F::Plain>;

    fn read(reader: &mut Reader, tree: &Tree) -> Option<Self::Plain> {
        F::read(reader, tree).map(Some)
    }

    fn write(plain: &Self::Plain) -> Tree {
        plain.as_ref().map_or(Tree::Null, F::write)
    }

    fn kind() -> Kind {
        F::kind()
    }

    fn absent() -> Option<Self::Plain> {
        Some(None)
    }
}

impl<F: Form> Form for Vec<F> {
    type Plain = Vec<F::Plain>;

    /// Reads every item, so that all faulty ones are told.
    fn read(reader: &mut Reader, tree: &Tree) -> Option<Self::Plain> {
        let Tree::List(items) = tree else {
            return reader.wrong(
                format!("is {}, not a list", tree.describe()),
                "write a list: `[a, b]`, or a line `- a` for each item",
            );
        };
        let read = |(index, item)| reader.item(index, |reader| F::read(reader, item));
        let items: Vec<Option<F::Plain>> = items.iter().enumerate().map(read).collect();
        items.into_iter().collect()
    }

    fn write(plain: &Self::Plain) -> Tree {
        Tree::List(plain.iter().map(F::write).collect())
    }

    fn kind() -> Kind {
        Kind::List(Box::new(F::kind()))
    }
}

impl Form for bool {
    type Plain = bool;

    fn read(reader: &mut Reader, tree: &Tree) -> Option<bool> {
        match tree {
            Tree::Bool(value) => Some(*value),
            Tree::Word(word) if word == "true" => Some(true),
            Tree::Word(word) if word == "false" => Some(false),
            other => reader.wrong(format!("is {}", other.describe()), "write `true` or `false`"),
        }
    }

    fn write(plain: &bool) -> Tree {
        Tree::Bool(*plain)
    }

    fn kind() -> Kind {
        Kind::Plain("`true` or `false`".into())
    }
}

macro_rules! numbers {
    ($($Number:ty: $words:literal, $right:literal, $least:literal;)+) => { $(
        impl Form for $Number {
            type Plain = $Number;

            fn read(reader: &mut Reader, tree: &Tree) -> Option<$Number> {
                let number = match tree {
                    Tree::Number(number) => <$Number>::try_from(*number).ok(),
                    Tree::Word(word) => word.parse().ok(),
                    _ => None,
                };
                match number {
                    Some(number) if ($least..=<$Number>::MAX).contains(&number) => Some(number),
                    _ => reader.wrong(format!("is {}", tree.describe()), $right),
                }
            }

            fn write(plain: &$Number) -> Tree {
                Tree::Number(i128::try_from(*plain).unwrap_or(i128::MAX))
            }

            fn kind() -> Kind {
                Kind::Plain($words.into())
            }
        }
    )+ };
}

// The only u16 of a configuration are ports.
numbers! {
    u8: "a number", "write a whole number from 0 to 255", 0;
    u16: "a port", "write a port, 1 to 65535", 1;
    u32: "a number", "write a whole number from 0 to 4294967295", 0;
    usize: "a number", "write a whole number, 0 or more", 0;
}

impl Form for String {
    type Plain = String;

    fn read(reader: &mut Reader, tree: &Tree) -> Option<String> {
        let text = text(reader, tree)?;
        if text.chars().any(char::is_control) {
            return reader.wrong("has a control character", "write printable text on one line");
        }
        if text.len() > MAX_TEXT {
            return reader.wrong(format!("has {} bytes", text.len()), format!("write at most {MAX_TEXT} bytes"));
        }
        Some(text.into())
    }

    fn write(plain: &String) -> Tree {
        Tree::text(plain)
    }

    fn kind() -> Kind {
        Kind::Plain("text".into())
    }
}

impl Form for PathBuf {
    type Plain = PathBuf;

    fn read(reader: &mut Reader, tree: &Tree) -> Option<PathBuf> {
        match String::read(reader, tree)? {
            path if path.is_empty() => reader.wrong("is empty", "write the path of a file"),
            path => Some(path.into()),
        }
    }

    fn write(plain: &PathBuf) -> Tree {
        Tree::text(plain.to_string_lossy())
    }

    fn kind() -> Kind {
        Kind::Plain("a path".into())
    }
}

/// The value as text; a number or a yes or no is not text, because `1.10` would lose its zero on the way.
pub fn text<'a>(reader: &mut Reader, tree: &'a Tree) -> Option<&'a str> {
    match tree {
        Tree::Text(text) | Tree::Word(text) => Some(text),
        Tree::Null => reader.wrong("is empty", "write a value, or leave the field out"),
        Tree::Bool(_) | Tree::Number(_) | Tree::Fraction(_) => {
            reader.wrong(format!("is {} without quotes, which is not text", tree.describe()), "write it in quotes")
        }
        Tree::List(_) | Tree::Map(_) => reader.wrong(format!("is {}", tree.describe()), "write one text"),
    }
}

/// Refuses a word that is not in a closed list; one that a later version will have is told so.
pub fn no_such_word<T>(reader: &mut Reader, word: &str, known: &[&str], later: &[&str]) -> Option<T> {
    if later.contains(&word) {
        return reader.wrong(format!("`{word}` is not in this version"), format!("it has {}", quoted(known)));
    }
    reader.wrong(format!("`{}` is not known here", shown(word)), suggest(word, "words here", known))
}

/// Longest text of a field: a path of Linux has at most 4096 bytes, everything else is shorter.
const MAX_TEXT: usize = 4096;
