//! Standard output: how wide it is, whether it takes colours, and whether lines can be written over. Everything that a
//! command prints goes through here, so that a closed pipe is an error to be handled and not a panic.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

pub struct Terminal {
    out: io::Stdout,
    /// A person looks at it: it has colours, unless they are not wanted, and a line that changes.
    pub live: bool,
    pub colours: bool,
    pub width: usize,
    /// A line that will be written over stands there.
    status: bool,
}

/// Whether colours are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    /// On a terminal that can show them.
    Auto,
    Always,
    Never,
}

impl Colours {
    pub const WORDS: [&str; 3] = ["auto", "always", "never"];

    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "auto" => Some(Self::Auto),
            "always" => Some(Self::Always),
            "never" => Some(Self::Never),
            _ => None,
        }
    }
}

impl Terminal {
    pub fn new(colours: Colours, width: Option<usize>) -> Self {
        let out = io::stdout();
        let live = out.is_terminal();
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let able = live && variable("NO_COLOR").is_none() && variable("TERM").is_none_or(|term| term != "dumb");
        let columns = || variable("COLUMNS").and_then(|text| text.to_str()?.parse().ok());
        let window = || rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col));
        let width = width.or_else(|| window().filter(|columns| *columns > 0)).or_else(columns).unwrap_or(WIDTH);
        Self {
            out,
            live,
            colours: match colours {
                Colours::Auto => able,
                Colours::Always => true,
                Colours::Never => false,
            },
            width: width.clamp(NARROWEST, WIDEST),
            status: false,
        }
    }

    /// Writes whole lines.
    pub fn print(&mut self, text: &str) -> io::Result<()> {
        let mut out = self.out.lock();
        if std::mem::take(&mut self.status) {
            out.write_all(b"\r\x1b[K")?;
        }
        out.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            out.write_all(b"\n")?;
        }
        out.flush()
    }

    /// Writes a line that the next one replaces. Only where somebody looks on.
    pub fn status(&mut self, text: &str) -> io::Result<()> {
        if !self.live {
            return Ok(());
        }
        let text = cut(text, self.width.saturating_sub(1));
        let mut out = self.out.lock();
        write!(out, "\r\x1b[K{text}")?;
        self.status = true;
        out.flush()
    }

    pub fn paint(&self, style: Style, text: &str) -> String {
        paint(self.colours, style, text)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Plain,
    Bold,
    Dim,
    Red,
    Yellow,
    Green,
    /// One of a few that are told apart.
    Colour(u8),
}

pub fn paint(colours: bool, style: Style, text: &str) -> String {
    let code = match style {
        Style::Plain => return text.to_owned(),
        Style::Bold => "1".to_owned(),
        Style::Dim => "2".to_owned(),
        Style::Red => "1;31".to_owned(),
        Style::Yellow => "33".to_owned(),
        Style::Green => "32".to_owned(),
        Style::Colour(number) => format!("38;5;{number}"),
    };
    if colours && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Text of others, safe to show: one that could steer the terminal shows as a dot.
pub fn tame(text: &str) -> String {
    text.chars().map(|c| if steers(c) { '·' } else { c }).collect()
}

/// The same of several lines.
pub fn tame_lines(text: &str) -> String {
    text.chars().map(|c| if steers(c) && c != '\n' { '·' } else { c }).collect()
}

/// JSON that means the same and is safe to show: outside of strings it has no such characters but ends of lines.
pub fn tame_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if !steers(c) || c == '\n' {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
    out
}

/// Controls, in one byte and in two; what turns the direction of writing; what is there and cannot be seen.
pub fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// How many columns a text takes. Near enough for what services and paths are called.
pub fn columns(text: &str) -> usize {
    text.chars().map(column).sum()
}

fn column(c: char) -> usize {
    match c as u32 {
        0x300..=0x36f | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xff00..=0xff60 | 0x1f300..=0x1faff => {
            2
        }
        _ => 1,
    }
}

/// Cut to so many columns, with an ellipsis for what is missing.
pub fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut taken = 0;
    for c in text.chars() {
        if taken + column(c) + 1 > width {
            break;
        }
        taken += column(c);
        short.push(c);
    }
    if width > 0 {
        short.push('…');
    }
    short
}

/// Cut or filled up to exactly so many columns.
pub fn fit(text: &str, width: usize) -> String {
    let mut text = cut(text, width);
    let missing = width.saturating_sub(columns(&text));
    text.extend(std::iter::repeat_n(' ', missing));
    text
}

/// Of what is no terminal: wide enough for a trace, narrow enough for a page.
const WIDTH: usize = 100;
const NARROWEST: usize = 20;
const WIDEST: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_fits_by_columns_and_not_by_bytes() {
        assert_eq!(fit("Zürich", 8), "Zürich  ");
        assert_eq!(fit("Zürich", 4), "Zür…");
        assert_eq!(columns("日本"), 4);
        assert_eq!(fit("日本語", 4), "日… ");
        assert_eq!(cut("a", 0), "");
    }

    #[test]
    fn what_steers_a_terminal_is_shown_as_dots() {
        assert_eq!(tame("a\x1b[2Jb\u{202e}c\n\u{9b}d\u{e0041}\u{feff}"), "a·[2Jb·c··d··");
        assert_eq!(tame_lines("a\x07\nb"), "a·\nb");
        let json = serde_json::to_string_pretty(&["\x1b\u{9b}\u{202e}\u{e0041}é\n"]).unwrap();
        let tamed = tame_json(&json);
        assert!(!tamed.chars().any(|c| steers(c) && c != '\n') && tamed.contains("\\udb40\\udc41é"), "{tamed}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&tamed).unwrap(), ["\x1b\u{9b}\u{202e}\u{e0041}é\n"]);
    }
}
