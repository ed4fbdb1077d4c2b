//! How commands write what they found: a table for people, JSON and YAML for scripts.

use std::fmt::Write;

use serde_json::Value;

use crate::failure::Failure;
use crate::terminal::{columns, fit};
use crate::trace::command::{json, yaml};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    #[default]
    Table,
    Json,
    Yaml,
}

impl Form {
    pub const WORDS: [&str; 3] = ["table", "json", "yaml"];

    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "table" => Some(Self::Table),
            "json" => Some(Self::Json),
            "yaml" => Some(Self::Yaml),
            _ => None,
        }
    }

    /// The same facts in this form.
    pub fn write(self, value: &Value, table: impl FnOnce() -> String) -> Result<String, Failure> {
        match self {
            Self::Table => Ok(table()),
            Self::Json => Ok(json(value)),
            Self::Yaml => yaml(value),
        }
    }
}

/// `1 proxy`, `2 proxies`.
pub fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Columns two blanks apart.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or_default();
    let widths: Vec<usize> = (0..count)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| columns(cell)).max().unwrap_or_default())
        .collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{}  ", fit(cell, *width));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}
