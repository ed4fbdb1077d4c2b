//! A problem, and the walk through a resource that finds them.

use std::fmt;

use crate::says::Rule;

/// What is wrong, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// As `spec.defaults.head.rules[2].action`.
    pub path: String,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Knows where in the resource it is.
#[derive(Default)]
pub(crate) struct Check {
    path: String,
    pub problems: Vec<Problem>,
}

impl Check {
    pub fn field(&mut self, name: &str, look: impl FnOnce(&mut Check)) {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        look(self);
        self.path.truncate(length);
    }

    pub fn some<T>(&mut self, name: &str, value: Option<&T>, look: impl FnOnce(&mut Check, &T)) {
        if let Some(value) = value {
            self.field(name, |check| look(check, value));
        }
    }

    pub fn item(&mut self, index: usize, look: impl FnOnce(&mut Check)) {
        let length = self.path.len();
        self.path.push_str(&format!("[{index}]"));
        look(self);
        self.path.truncate(length);
    }

    pub fn each<T>(&mut self, name: &str, items: &[T], mut look: impl FnMut(&mut Check, &T)) {
        self.field(name, |check| {
            for (index, item) in items.iter().enumerate() {
                check.item(index, |check| look(check, item));
            }
        });
    }

    pub fn must(&mut self, holds: bool, rule: Rule) {
        if !holds {
            self.wrong(rule.says);
        }
    }

    pub fn wrong(&mut self, message: impl Into<String>) {
        self.problems.push(Problem { path: self.path.clone(), message: message.into() });
    }
}
