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
    for (line, what) in COMMANDS.iter().filter_map(|command| command.examples.first()) {
        let _ = writeln!(text, "  {line:<44}# {what}");
    }
    let _ = writeln!(
        text,
        "\n`spanmesh COMMAND --help` tells more of one. `spanmesh --version` tells the version.\n\n{EXIT_CODES}"
    );
    text
}

pub fn one(command: &Command) -> String {
    let mut text = format!("{}\n\nUsage: spanmesh {} {}\n", wrapped(command.about), command.name, command.usage);
    if !command.options.is_empty() {
        text.push_str("\nOptions:\n");
        for option in command.options {
            let _ = writeln!(text, "  {:<26}{}", form(option), option.help);
        }
        let _ = writeln!(text, "  {:<26}this text", "-h, --help");
    }
    text.push_str("\nExamples:\n");
    for (line, what) in command.examples {
        let _ = writeln!(text, "  {line}\n      {what}");
    }
    let _ = writeln!(text, "\n{EXIT_CODES}");
    text
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
