//! What is wrong with a configuration, said so that its author can mend it: the place, the field, what is wrong, what would be right.
//!
//! A `Finding` knows only the field; `place` turns it into a `Problem` with the line of the file or the variable that set the field.

use std::fmt;

use super::tree::FieldPath;

/// One thing that is wrong. Displays as `FILE:LINE:COLUMN: field.path[2].name: what is wrong; what would be right`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub place: Place,
    /// Empty when no single field is at fault.
    pub field: String,
    pub wrong: String,
    pub right: String,
}

/// Where the faulty text stands. Lines and columns count from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Spot { file: String, line: usize, column: usize },
    File(String),
    Variable(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Spot { file, line, column } => write!(f, "{file}:{line}:{column}: ")?,
            Place::File(file) => write!(f, "{file}: ")?,
            Place::Variable(name) => write!(f, "{}: ", shown(name))?,
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}; {}", self.wrong, self.right)
    }
}

impl std::error::Error for Problem {}

/// A problem whose place is not yet known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub path: FieldPath,
    /// The field's name is what is wrong, not its value.
    pub at_name: bool,
    pub wrong: String,
    pub right: String,
}

/// Problems shown at once: enough to mend a file in one go, and a bound on the passes that look for their lines.
pub const MAX_PROBLEMS: usize = 50;

/// The known name that was probably meant, if one is near: one typing error per three letters.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A longer word is no typing error, and the distance costs the product of both lengths.
    if word.len() > MAX_WORD {
        return None;
    }
    let word = word.to_lowercase();
    known
        .into_iter()
        .map(|name| (distance(&word, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= name.len().div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// `did you mean …? …` where a name is near, then all names.
pub fn suggest(word: &str, what: &str, known: &[&str]) -> String {
    let list = match known {
        [] => format!("there are no {what}"),
        _ => format!("the {what} are {}", quoted(known)),
    };
    match nearest(word, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`? {list}"),
        None => list,
    }
}

/// `a`, `b`, `c`; cut after `MAX_LIST`.
pub fn quoted(words: &[&str]) -> String {
    let shown: Vec<String> = words.iter().take(MAX_LIST).map(|word| format!("`{word}`")).collect();
    match words.len().saturating_sub(MAX_LIST) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Text of the author as it is repeated in a message: one line, cut after `MAX_SHOWN` characters.
pub fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        short.push('…');
    }
    // escape_debug also escapes quotes, which the backticks of a message make needless.
    short.replace("\\\"", "\"").replace("\\'", "'")
}

/// Levenshtein distance in which two swapped neighbours count as one error.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            // `above` and `before` have b.len() + 1 cells and `row` has j + 1, so every cell asked for is there.
            let mut cost = (above[j] + usize::from(x != y)).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i - 1] == *y && *x == b[j - 1] {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or(0)
}

const MAX_WORD: usize = 96;
const MAX_LIST: usize = 40;
const MAX_SHOWN: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not() {
        let known = ["address", "admin", "status"];
        assert_eq!(nearest("adress", known), Some("address"));
        assert_eq!(nearest("stauts", known), Some("status"));
        assert_eq!(nearest("ADMIN", known), Some("admin"));
        assert_eq!(nearest("upstream", known), None);
        assert_eq!(nearest(&"a".repeat(1000), known), None);
    }

    #[test]
    fn text_of_the_author_stays_on_one_short_line() {
        assert_eq!(shown("a\nb"), "a\\nb");
        assert_eq!(shown(&"x".repeat(100)).chars().count(), MAX_SHOWN + 1);
    }
}
