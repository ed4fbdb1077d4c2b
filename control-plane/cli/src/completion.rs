//! Completion for bash, zsh and fish, written from the list of commands.

use std::fmt::Write;

use crate::commands::{COMMANDS, Command, Opt};

pub fn script(shell: &str) -> Option<String> {
    match shell {
        "bash" => Some(bash()),
        "zsh" => Some(zsh()),
        "fish" => Some(fish()),
        _ => None,
    }
}

fn names() -> String {
    let names: Vec<_> = COMMANDS.iter().map(|command| command.name).collect();
    names.join(" ")
}

/// What can stand behind a command's name.
fn words(command: &Command) -> String {
    let options = command.options.iter().map(|option| format!("--{}", option.long));
    let words = command.words.iter().map(|word| (*word).to_owned());
    words.chain(options).chain(["--help".to_owned()]).collect::<Vec<_>>().join(" ")
}

fn bash() -> String {
    let mut text = String::from(
        "# Completion of spanmesh for bash.\n_spanmesh() {\n    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}\n    COMPREPLY=()\n",
    );
    let _ = writeln!(
        text,
        "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        COMPREPLY=($(compgen -W \"{} help --help --version\" -- \"$word\"))\n        return\n    fi",
        names()
    );
    text.push_str("    case \"${COMP_WORDS[1]} $before\" in\n");
    for command in COMMANDS {
        for option in command.options.iter().filter(|option| option.value.is_some()) {
            let patterns: Vec<_> =
                spellings(option).iter().map(|spelling| format!("\"{} {spelling}\"", command.name)).collect();
            let reply = match (option.words.is_empty(), takes_path(option)) {
                (false, _) => format!("compgen -W \"{}\" -- \"$word\"", option.words.join(" ")),
                (true, true) => "compgen -f -- \"$word\"".to_owned(),
                (true, false) => "true".to_owned(),
            };
            let _ = writeln!(text, "    {}) COMPREPLY=($({reply})); return ;;", patterns.join(" | "));
        }
    }
    text.push_str("    esac\n    case \"${COMP_WORDS[1]}\" in\n");
    for command in COMMANDS {
        let _ =
            writeln!(text, "    {}) COMPREPLY=($(compgen -W \"{}\" -- \"$word\")) ;;", command.name, words(command));
    }
    let _ = writeln!(
        text,
        "    help) COMPREPLY=($(compgen -W \"{}\" -- \"$word\")) ;;\n    esac\n}}\ncomplete -o default -F _spanmesh spanmesh",
        names()
    );
    text
}

fn zsh() -> String {
    let mut text =
        String::from("#compdef spanmesh\n# Completion of spanmesh for zsh.\n_spanmesh() {\n    local -a commands=(\n");
    for command in COMMANDS {
        let _ = writeln!(text, "        '{}:{}'", command.name, quoted(command.summary));
    }
    let _ = writeln!(text, "        'help:{HELP}'");
    text.push_str("    )\n    if (( CURRENT == 2 )); then\n        _describe command commands\n        return\n    fi\n    local name=$words[2]\n    shift words\n    (( CURRENT-- ))\n    case $name in\n");
    for command in COMMANDS {
        let _ = write!(text, "    {}) _arguments -s", command.name);
        for option in command.options {
            let value = match (option.value, option.words.is_empty(), takes_path(option)) {
                (None, ..) => String::new(),
                (Some(value), false, _) => format!(":{}:({})", quoted(value), option.words.join(" ")),
                (Some(value), true, true) => format!(":{}:_files", quoted(value)),
                (Some(value), true, false) => format!(":{}:", quoted(value)),
            };
            for spelling in spellings(option) {
                let _ = write!(text, " \\\n        '{spelling}[{}]{value}'", quoted(option.help));
            }
        }
        let _ = write!(text, " \\\n        '--help[help]'");
        if !command.words.is_empty() {
            let _ = write!(text, " \\\n        '1:word:({})'", command.words.join(" "));
        }
        text.push_str(" ;;\n");
    }
    let _ = writeln!(text, "    help) _arguments '1:command:({})' ;;", names());
    text.push_str("    esac\n}\nif [ \"$funcstack[1]\" = _spanmesh ]; then _spanmesh \"$@\"; else compdef _spanmesh spanmesh; fi\n");
    text
}

fn fish() -> String {
    let mut text = String::from("# Completion of spanmesh for fish.\ncomplete -c spanmesh -f\n");
    let _ = writeln!(text, "complete -c spanmesh -n __fish_use_subcommand -a help -d '{HELP}'");
    let _ = writeln!(text, "complete -c spanmesh -n '__fish_seen_subcommand_from help' -a '{}'", names());
    for command in COMMANDS {
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
        let _ = writeln!(
            text,
            "complete -c spanmesh -n __fish_use_subcommand -a {} -d '{}'",
            command.name,
            quoted(command.summary)
        );
        let within = format!("complete -c spanmesh -n '__fish_seen_subcommand_from {}'", command.name);
        for option in command.options {
            let short = option.short.map(|short| format!(" -s {short}")).unwrap_or_default();
            let value = match (option.value, option.words.is_empty(), takes_path(option)) {
                (None, ..) => String::new(),
                (Some(_), false, _) => format!(" -x -a '{}'", option.words.join(" ")),
                (Some(_), true, true) => " -r -F".to_owned(),
                (Some(_), true, false) => " -x".to_owned(),
            };
            let _ = writeln!(text, "{within}{short} -l {}{value} -d '{}'", option.long, quoted(option.help));
        }
        let _ = writeln!(text, "{within} -s h -l help -d help");
        if !command.words.is_empty() {
            let _ = writeln!(text, "{within} -a '{}'", command.words.join(" "));
        }
    }
    text
}

/// The command that is none of its own.
const HELP: &str = "what a command does";

fn spellings(option: &Opt) -> Vec<String> {
    let short = option.short.map(|short| format!("-{short}"));
    short.into_iter().chain([format!("--{}", option.long)]).collect()
}

fn takes_path(option: &Opt) -> bool {
    matches!(option.value, Some("FILE" | "DIR"))
}

/// Within single quotes and brackets of zsh.
fn quoted(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\'' => out.push_str("'\\''"),
            '[' | ']' | ':' => {
                out.push('\\');
                out.push(c);
            }
            _ => out.push(c),
        }
    }
    out
}
