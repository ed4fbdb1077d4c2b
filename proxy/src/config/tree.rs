//! A configuration as it was written, before anything is known of its meaning: scalars, lists, maps, and the path to a field.
//!
//! `yaml` makes trees from text, `variables` lays the environment over them, the forms of `schema` read them.

use std::fmt;

use super::problem::shown;

/// One value as written.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    Null,
    Bool(bool),
    Number(i128),
    Fraction(f64),
    Text(String),
    /// From a variable: it may be text, a number or a yes or no, as its field wants.
    Word(String),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

impl Tree {
    pub fn text(text: impl Into<String>) -> Tree {
        Tree::Text(text.into())
    }

    /// What a message calls this value.
    pub fn describe(&self) -> String {
        match self {
            Tree::Null => "nothing".into(),
            Tree::Bool(value) => format!("`{value}`"),
            Tree::Number(value) => format!("`{value}`"),
            Tree::Fraction(value) => format!("`{value}`"),
            Tree::Text(text) | Tree::Word(text) => format!("`{}`", shown(text)),
            Tree::List(_) => "a list".into(),
            Tree::Map(_) => "a map".into(),
        }
    }

    pub fn is_empty(&self) -> bool {
        match self {
            Tree::List(items) => items.is_empty(),
            Tree::Map(entries) => entries.is_empty(),
            _ => false,
        }
    }
}

/// The way from the root of the file to a value: `listeners[2].routes[0].match`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldPath(pub Vec<Step>);

/// A list's item by its index, or a field by its name. Items are ordered before fields, and by number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Item(usize),
    Field(String),
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, step) in self.0.iter().enumerate() {
            match step {
                Step::Item(index) => write!(f, "[{index}]")?,
                Step::Field(name) if depth == 0 => write!(f, "{}", shown(name))?,
                Step::Field(name) => write!(f, ".{}", shown(name))?,
            }
        }
        Ok(())
    }
}
