//! Keeps the path to the field that is being read or checked, and collects what is wrong there, so that all of it is told at once.
//!
//! The forms of `schema` and the checks of `validate` write into it; `config::parse` turns the findings into problems.

use super::problem::{Finding, suggest};
use super::schema::Table;
use super::tree::{FieldPath, Step, Tree};

#[derive(Default)]
pub struct Reader {
    path: FieldPath,
    findings: Vec<Finding>,
    /// Findings beyond `MAX_PROBLEMS`, which are only counted.
    unsaid: usize,
}

impl Reader {
    pub fn finish(self) -> (Vec<Finding>, usize) {
        (self.findings, self.unsaid)
    }

    /// How much was found wrong so far.
    pub fn count(&self) -> usize {
        self.findings.len() + self.unsaid
    }

    /// Runs `inside` one step deeper.
    pub fn field<T>(&mut self, name: &str, inside: impl FnOnce(&mut Reader) -> T) -> T {
        self.step(Step::Field(name.into()), inside)
    }

    pub fn item<T>(&mut self, index: usize, inside: impl FnOnce(&mut Reader) -> T) -> T {
        self.step(Step::Item(index), inside)
    }

    /// Runs `inside` for every item of the list `name`.
    pub fn each<'a, T>(&mut self, name: &str, items: &'a [T], mut inside: impl FnMut(&mut Reader, usize, &'a T)) {
        self.field(name, |reader| {
            for (index, item) in items.iter().enumerate() {
                reader.item(index, |reader| inside(reader, index, item));
            }
        });
    }

    /// The field where the reader stands is wrong. Gives `None`, so that a form can end with it.
    pub fn wrong<T>(&mut self, wrong: impl Into<String>, right: impl Into<String>) -> Option<T> {
        self.note(false, wrong.into(), right.into());
        None
    }

    /// The field `name` of the section where the reader stands is wrong.
    pub fn wrong_field(&mut self, name: &str, wrong: impl Into<String>, right: impl Into<String>) {
        self.field(name, |reader| reader.note(false, wrong.into(), right.into()));
    }

    /// The field `name` should not stand here at all: the place that is told is its name's.
    pub fn needless_field(&mut self, name: &str, wrong: impl Into<String>, right: impl Into<String>) {
        self.field(name, |reader| reader.note(true, wrong.into(), right.into()));
    }

    /// The entries of a section, after refusing those that it does not have.
    pub fn section<'a>(&mut self, tree: &'a Tree, table: fn() -> Table) -> Option<&'a [(String, Tree)]> {
        let entries = self.entries(tree)?;
        let table = table();
        let known = table.names();
        for (name, value) in entries {
            if known.contains(&name.as_str()) {
                continue;
            }
            match table.later.iter().find(|later| later.name == name) {
                Some(later) if later.may_be_empty && value.is_empty() => {}
                Some(later) => self.needless_field(name, "is not in this version", later.instead),
                None => self.needless_field(name, "is not a field", suggest(name, "fields here", &known)),
            }
        }
        Some(entries)
    }

    /// The field `name`, which has no default, is not there.
    pub fn missing<T>(&mut self, name: &str, table: fn() -> Table) -> Option<T> {
        let table = table();
        let kind = table.fields.iter().find(|field| field.name == name).map(|field| field.kind.words());
        self.field(name, |reader| reader.wrong("is missing", format!("add {}", kind.unwrap_or_default())))
    }

    pub fn entries<'a>(&mut self, tree: &'a Tree) -> Option<&'a [(String, Tree)]> {
        match tree {
            Tree::Map(entries) => Some(entries),
            Tree::Null => self.wrong("is empty", "write `{}` for a section without fields, or leave it out"),
            other => {
                self.wrong(format!("is {}", other.describe()), "write a section: fields below it, or `{name: value}`")
            }
        }
    }

    fn step<T>(&mut self, step: Step, inside: impl FnOnce(&mut Reader) -> T) -> T {
        self.path.0.push(step);
        let result = inside(self);
        self.path.0.pop();
        result
    }

    fn note(&mut self, at_name: bool, wrong: String, right: String) {
        if self.findings.len() < super::problem::MAX_PROBLEMS {
            self.findings.push(Finding { path: self.path.clone(), at_name, wrong, right });
        } else {
            self.unsaid += 1;
        }
    }
}
