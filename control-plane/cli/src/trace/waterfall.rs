//! Draws a trace: a line for each span, its bar where it lies in time, solid where the trace's end waited for it. A
//! narrow terminal gets the lines without bars. Errors and retries have words of their own, so that nothing hangs on colour.

use std::fmt::Write;

use super::tree::{Node, Tree};
use crate::terminal::{Style, columns, fit, paint, tame};

#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub width: usize,
    pub colours: bool,
    /// Spans that are drawn at most.
    pub most: usize,
}

pub fn draw(tree: &Tree, look: Look) -> String {
    let mut out = String::new();
    head(tree, look, &mut out);
    let shown = choose(tree, look.most);
    let lines = lines(tree, &shown);
    let layout = Layout::new(&lines, look.width);
    axis(tree, layout, look, &mut out);
    for line in &lines {
        match line {
            Line::Span { node, label, notes } => span(tree, node, label, notes, layout, look, &mut out),
            Line::Hidden { label, count } => {
                let text = format!("{label}… {count} more {}", plural(*count, "span"));
                let _ = writeln!(out, "{}", paint(look.colours, Style::Dim, fit(&text, layout.whole).trim_end()));
            }
        }
    }
    legend(tree, layout, look, lines.len(), &mut out);
    out
}

enum Line<'a> {
    Span { node: &'a Node, label: String, notes: Vec<(Style, String)> },
    Hidden { label: String, count: usize },
}

fn head(tree: &Tree, look: Look, out: &mut String) {
    let Some(first) = tree.nodes.first() else { return };
    let errors = tree.nodes.iter().filter(|node| node.span.failed.is_some()).count();
    let retries = tree.nodes.iter().filter(|node| node.span.retry().is_some()).count();
    let orphans = tree.nodes.iter().filter(|node| node.orphan).count();
    let title = format!("trace {}", first.span.trace);
    let _ = writeln!(
        out,
        "{}  {}",
        paint(look.colours, Style::Bold, &title),
        paint(look.colours, Style::Dim, &utc(tree.start))
    );
    let mut facts = vec![
        (Style::Plain, tame(&first.span.name)),
        (Style::Plain, duration(tree.duration())),
        (Style::Plain, counted(tree.services(), "service")),
        (Style::Plain, counted(tree.nodes.len(), "span")),
    ];
    for (count, what, style) in [(errors, "error", Style::Red), (retries, "retry", Style::Yellow)] {
        if count > 0 {
            facts.push((style, counted(count, what)));
        }
    }
    if orphans > 0 {
        facts.push((Style::Yellow, format!("{} missing", counted(orphans, "parent"))));
    }
    if tree.repeated > 0 {
        facts.push((Style::Dim, format!("{} told twice", counted(tree.repeated, "span"))));
    }
    // By facts, so that a narrow terminal breaks between them.
    let (mut line, mut taken) = (String::new(), 0);
    for (place, (style, fact)) in facts.into_iter().enumerate() {
        let width = columns(&fact) + 3;
        if place > 0 {
            if taken + width > look.width {
                line.push('\n');
                taken = 0;
            } else {
                line.push_str(" · ");
            }
        }
        taken += width;
        line.push_str(&paint(look.colours, style, &fact));
    }
    let _ = writeln!(out, "{line}\n");
}

/// Which spans are drawn where there are too many: those that the end waited for, that failed or were tried again, with
/// all above them, and then the first ones.
fn choose(tree: &Tree, most: usize) -> Vec<bool> {
    let mut shown = vec![tree.nodes.len() <= most; tree.nodes.len()];
    let mut left = most;
    let telling = |node: &Node| node.span.failed.is_some() || node.span.retry().is_some() || node.is_critical();
    let first = tree.nodes.iter().enumerate().filter(|(_, node)| telling(node)).map(|(place, _)| place);
    for wanted in first.chain(0..tree.nodes.len()) {
        let mut above = Vec::new();
        let mut next = Some(wanted);
        // No further than there is room, or a long chain would be climbed from each of its spans.
        while let Some(place) = next.filter(|place| above.len() <= left && shown.get(*place) == Some(&false)) {
            above.push(place);
            next = tree.nodes.get(place).and_then(|node| node.parent);
        }
        if above.len() > left {
            continue;
        }
        left -= above.len();
        for place in above {
            if let Some(shown) = shown.get_mut(place) {
                *shown = true;
            }
        }
    }
    shown
}

fn lines<'a>(tree: &'a Tree, shown: &[bool]) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    // Of each span that is open: how many columns of rails stand before its children, as text.
    let mut rails: Vec<bool> = Vec::new();
    let is_shown = |place: usize| shown.get(place).copied().unwrap_or_default();
    let mut hidden = 0;
    let mut hidden_at = 0;
    for (place, node) in tree.nodes.iter().enumerate() {
        if !is_shown(place) {
            if hidden == 0 {
                hidden_at = node.depth;
            }
            hidden += 1;
            hidden_at = hidden_at.min(node.depth);
            continue;
        }
        if hidden > 0 {
            lines.push(Line::Hidden { label: indent(&rails, hidden_at), count: std::mem::take(&mut hidden) });
        }
        rails.truncate(node.depth);
        let siblings = node.parent.and_then(|parent| tree.nodes.get(parent)).map(|parent| &parent.children);
        let last = siblings.is_none_or(|all| all.last() == Some(&place));
        let mut label = indent(&rails, node.depth);
        if node.depth > 0 && node.depth <= DEEPEST {
            label.push_str(if last { "└ " } else { "├ " });
        }
        rails.push(!last && node.depth > 0);
        lines.push(Line::Span { node, label, notes: notes(tree, node) });
    }
    if hidden > 0 {
        lines.push(Line::Hidden { label: indent(&rails, hidden_at), count: hidden });
    }
    lines
}

/// The rails of the spans above. Beyond a depth they would take the whole width, so the number stands there.
fn indent(rails: &[bool], depth: usize) -> String {
    let mut text = String::new();
    for rail in rails.iter().take(depth).skip(1).take(DEEPEST.saturating_sub(1)) {
        text.push_str(if *rail { "│ " } else { "  " });
    }
    if depth > DEEPEST {
        let _ = write!(text, "…{depth} ");
    }
    text
}

fn notes(tree: &Tree, node: &Node) -> Vec<(Style, String)> {
    let mut notes = Vec::new();
    if let Some(count) = node.span.retry() {
        notes.push((Style::Yellow, format!("↻{count}")));
    }
    if let Some(reason) = node.span.reason() {
        notes.push((Style::Red, format!("✗ {}", crate::terminal::cut(&tame(&reason), REASON))));
    }
    if node.orphan {
        notes.push((Style::Yellow, "parent missing".into()));
    }
    if node.is_skewed(tree) {
        let sign = if node.shift < 0 { '-' } else { '+' };
        notes.push((Style::Yellow, format!("clock {sign}{}", duration(node.shift.unsigned_abs()))));
    }
    notes
}

/// How the columns are given out.
#[derive(Clone, Copy, Debug)]
struct Layout {
    whole: usize,
    label: usize,
    /// None on a narrow terminal.
    bar: Option<usize>,
}

impl Layout {
    fn new(lines: &[Line<'_>], whole: usize) -> Self {
        let longest = lines.iter().map(|line| match line {
            Line::Span { node, label, notes } => columns(label) + columns(&title(node)) + width(notes),
            Line::Hidden { .. } => 0,
        });
        let longest = longest.max().unwrap_or_default();
        let rest = whole.saturating_sub(TIME + 2);
        let half = (whole * 11 / 20).min(longest);
        let label = longest.min(half.max(rest.saturating_sub(WIDEST_BAR)));
        let bar = rest.saturating_sub(label + 1);
        match bar >= NARROWEST_BAR {
            true => Self { whole, label, bar: Some(bar) },
            false => Self { whole, label: rest.min(longest), bar: None },
        }
    }
}

fn axis(tree: &Tree, layout: Layout, look: Look, out: &mut String) {
    let Some(bar) = layout.bar else { return };
    let end = duration(tree.duration());
    let line = format!(
        "{:label$}  {:>time$} 0{end:>rest$}",
        "",
        "",
        label = layout.label,
        time = TIME,
        rest = bar.saturating_sub(1)
    );
    let _ = writeln!(out, "{}", paint(look.colours, Style::Dim, line.trim_end()));
}

fn span(
    tree: &Tree,
    node: &Node,
    label: &str,
    notes: &[(Style, String)],
    layout: Layout,
    look: Look,
    out: &mut String,
) {
    // The notes stay, whatever has to give way to them.
    let room = layout.label.saturating_sub(width(notes));
    let rails = crate::terminal::cut(label, room);
    let left = room.saturating_sub(columns(&rails));
    let title = fit(&title(node), left);
    let service = columns(&tame(&node.span.service)).min(columns(title.trim_end()));
    let split = title.char_indices().nth(service).map_or(title.len(), |(at, _)| at);
    let (service, name) = title.split_at(split);
    let colour = Style::Colour(hue(&node.span.service));
    let _ = write!(
        out,
        "{}{}{}",
        paint(look.colours, Style::Dim, &rails),
        paint(look.colours, colour, service),
        if node.span.failed.is_some() { paint(look.colours, Style::Red, name) } else { name.to_owned() }
    );
    for (style, note) in notes {
        let _ = write!(out, " {}", paint(look.colours, *style, note));
    }
    let time = duration(node.end.saturating_sub(node.start));
    let style = if node.is_critical() { Style::Bold } else { Style::Plain };
    let _ = write!(out, "  {}", paint(look.colours, style, &format!("{time:>TIME$}")));
    if let Some(width) = layout.bar {
        let _ = write!(out, " {}", colour_bar(look, node, colour, bar(tree, node, width).trim_end()));
    } else if node.is_critical() {
        out.push_str(" ●");
    }
    while out.ends_with(' ') {
        out.pop();
    }
    out.push('\n');
}

fn colour_bar(look: Look, node: &Node, colour: Style, cells: &str) -> String {
    let blank = cells.len() - cells.trim_start().len();
    let (blank, cells) = cells.split_at(blank);
    let style = if node.span.failed.is_some() { Style::Red } else { colour };
    format!("{blank}{}", paint(look.colours, style, cells))
}

/// The cells of a bar: solid where the end waited for the span itself, a line where it went on otherwise.
fn bar(tree: &Tree, node: &Node, width: usize) -> String {
    let (from, to) = cells(tree, (node.start, node.end), width);
    let critical: Vec<(usize, usize)> = node.critical.iter().map(|part| cells(tree, *part, width)).collect();
    (0..width)
        .map(|cell| match cell {
            cell if cell < from || cell >= to => ' ',
            cell if critical.iter().any(|(from, to)| (*from..*to).contains(&cell)) => '█',
            _ => '─',
        })
        .collect()
}

/// At least one cell, and within the width.
fn cells(tree: &Tree, (start, end): (u64, u64), width: usize) -> (usize, usize) {
    let whole = u128::from(tree.duration().max(1));
    let place = |time: u64| {
        let place = u128::from(time.saturating_sub(tree.start)) * width as u128 / whole;
        usize::try_from(place).unwrap_or(width)
    };
    let from = place(start).min(width.saturating_sub(1));
    (from, place(end).clamp(from + 1, width.max(from + 1)))
}

fn legend(tree: &Tree, layout: Layout, look: Look, lines: usize, out: &mut String) {
    let mark = if layout.bar.is_some() { "█" } else { "●" };
    let mut text = format!("{mark} on the critical path   → calls   ← is called");
    if tree.nodes.iter().any(|node| node.span.retry().is_some()) {
        text.push_str("   ↻ tried again");
    }
    if tree.nodes.iter().any(|node| node.span.failed.is_some()) {
        text.push_str("   ✗ failed");
    }
    if lines > 0 {
        let text = crate::terminal::cut(&text, look.width);
        let _ = writeln!(out, "\n{}", paint(look.colours, Style::Dim, &text));
    }
}

fn title(node: &Node) -> String {
    format!("{} {} {}", tame(&node.span.service), node.span.kind.sign(), tame(&node.span.name))
}

fn width(notes: &[(Style, String)]) -> usize {
    notes.iter().map(|(_, note)| columns(note) + 1).sum()
}

/// A service has the same colour in every trace.
fn hue(service: &str) -> u8 {
    let sum = service.bytes().fold(5381u32, |sum, byte| sum.wrapping_mul(33) ^ u32::from(byte));
    HUES.get(sum as usize % HUES.len()).copied().unwrap_or(39)
}

/// `950 µs`, `12.3 ms`, `1.20 s`.
pub fn duration(nanos: u64) -> String {
    let n = nanos as f64;
    match nanos {
        0..=999 => format!("{nanos} ns"),
        1_000..=999_999 => format!("{:.0} µs", n / 1e3),
        1_000_000..=99_999_999 => format!("{:.1} ms", n / 1e6),
        100_000_000..=999_999_999 => format!("{:.0} ms", n / 1e6),
        1_000_000_000..=99_999_999_999 => format!("{:.2} s", n / 1e9),
        _ => format!("{:.0} s", n / 1e9),
    }
}

pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {}", plural(count, what))
}

fn plural(count: usize, what: &str) -> String {
    match (count, what.strip_suffix('y')) {
        (1, _) => what.to_owned(),
        (_, Some(stem)) => format!("{stem}ies"),
        (_, None) => format!("{what}s"),
    }
}

/// `2026-11-21 17:02:11.123 UTC`.
pub fn utc(nanos: u64) -> String {
    let seconds = nanos / 1_000_000_000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days to a date by the civil calendar, with years that begin in March (Howard Hinnant's method).
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, milli) = (second / 3600, second / 60 % 60, nanos / 1_000_000 % 1000);
    format!("{year}-{month:02}-{date:02} {hour:02}:{minute:02}:{:02}.{milli:03} UTC", second % 60)
}

/// Of a duration: `12.3 ms` and the like.
const TIME: usize = 7;
const NARROWEST_BAR: usize = 12;
const WIDEST_BAR: usize = 100;
/// Of the words for why a span failed.
const REASON: usize = 24;
/// Levels that are drawn with rails.
const DEEPEST: usize = 16;
const HUES: [u8; 8] = [39, 78, 141, 172, 45, 114, 204, 111];
