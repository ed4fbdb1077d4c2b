//! The manual page, as roff.

use std::fmt::Write;

use crate::commands::COMMANDS;
use crate::help;

pub fn page() -> String {
    let mut text = format!(".TH SPANMESH 1 \"\" \"spanmesh {}\" \"User Commands\"\n", env!("CARGO_PKG_VERSION"));
    text.push_str(".SH NAME\nspanmesh \\- every call between your services, traced\n.SH SYNOPSIS\n.B spanmesh\n.I COMMAND\n[\\fIOPTIONS\\fR]\n.SH COMMANDS\n");
    for command in COMMANDS {
        let _ = writeln!(text, ".SS spanmesh {} {}\n{}", command.name, escaped(command.usage), escaped(command.about));
        for option in command.options {
            let _ = writeln!(text, ".TP\n\\fB{}\\fR\n{}", escaped(help::form(option).trim()), escaped(option.help));
        }
        text.push_str(".PP\nExamples:\n");
        for (line, what) in command.examples {
            let _ = writeln!(text, ".PP\n.RS 2\n{}\n.RE\n.nf\n.RS 4\n{}\n.RE\n.fi", escaped(what), escaped(line));
        }
    }
    text.push_str(".SH EXIT STATUS\n");
    for (code, meaning) in
        [(0, "done"), (1, "failed"), (2, "wrong usage or configuration"), (3, "checked and found wanting")]
    {
        let _ = writeln!(text, ".TP\n.B {code}\n{meaning}");
    }
    text.push_str(".SH ENVIRONMENT\n.TP\n.B NO_COLOR\nIf set, there are no colours unless they are asked for.\n.TP\n.B COLUMNS\nThe width of what is no terminal.\n.TP\n.B TMPDIR\nWhere the demo puts its files.\n");
    text
}

/// Hyphens that are typed, backslashes, and dots that would begin a request.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}
