//! What `--help` says.

use std::fmt::Write;

use crate::commands::{COMMANDS, Command, Opt};

pub fn all() -> String {
    let mut text = String::from(
        "Spanmesh: every call between your services, traced.\n\nUsage: spanmesh COMMAND [OPTIONS]\n\nCommands:\n",
    );
    for command in COMMANDS {
        let _ = writeln!(text, "  {:<15}{}", command.name, command.summary);
    }
    text.push_str("\nExamples:\n");
    let examples: Vec<_> = COMMANDS.iter().filter_map(|command| command.examples.first()).collect();
    let width = examples.iter().map(|(line, _)| line.chars().count()).max().unwrap_or_default();
    for (line, what) in examples {
        let _ = writeln!(text, "  {line:<width$}  # {what}");
    }
    let _ = writeln!(
        text,
        "\n`spanmesh COMMAND --help` tells more of one. `spanmesh --version` tells the version.\n\n{EXIT_CODES}"
    );
    text
}

/// All of a command, or of one that it has: of `policy` what belongs to `lint`.
pub fn one(command: &Command, word: Option<&str>) -> String {
    let word = word.filter(|word| command.words.contains(word));
    let own = word.and_then(|word| command.usage.split(" | ").find(|usage| usage.split(' ').next() == Some(word)));
    let usage = format!("{} {}", command.name, own.unwrap_or(command.usage));
    let mut text = format!("{}\n\nUsage: spanmesh {}\n", wrapped(command.about), usage.trim_end());
    if !command.options.is_empty() {
        text.push_str("\nOptions:\n");
        for option in command.options {
            let help = match (word, whose(command, option.help)) {
                (Some(word), Some((words, help))) if words.contains(&word) => help,
                (Some(_), Some(_)) => continue,
                (_, None) | (None, _) => option.help,
            };
            let _ = writeln!(text, "  {:<26}{help}", form(option));
        }
        let _ = writeln!(text, "  {:<26}this text", "-h, --help");
    }
    let concerns = |line: &str| word.is_none_or(|word| line.contains(&format!("{} {word}", command.name)));
    let examples: Vec<_> = command.examples.iter().filter(|(line, _)| concerns(line)).collect();
    text.push_str(if examples.is_empty() { "" } else { "\nExamples:\n" });
    for (line, what) in examples {
        let _ = writeln!(text, "  {line}\n      {what}");
    }
    let _ = writeln!(text, "\n{EXIT_CODES}");
    text
}

/// `lint, diff: what it does` is an option of those two.
fn whose<'a>(command: &Command, help: &'a str) -> Option<(Vec<&'a str>, &'a str)> {
    let (words, help) = help.split_once(": ")?;
    let words: Vec<_> = words.split(", ").collect();
    words.iter().all(|word| command.words.contains(word)).then_some((words, help))
}

/// `-o, --output FORM`.
pub fn form(option: &Opt) -> String {
    let short = option.short.map_or("    ".to_owned(), |short| format!("-{short}, "));
    let value = option.value.map(|value| format!(" {value}")).unwrap_or_default();
    format!("{short}--{}{value}", option.long)
}

fn wrapped(text: &str) -> String {
    let mut out = String::new();
    let mut taken = 0;
    for word in text.split_whitespace() {
        if taken + word.len() + 1 > LINE {
            out.push('\n');
            taken = 0;
        } else if taken > 0 {
            out.push(' ');
        }
        out.push_str(word);
        taken += word.len() + 1;
    }
    out
}

pub const EXIT_CODES: &str =
    "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 checked and found wanting.";
const LINE: usize = 96;
