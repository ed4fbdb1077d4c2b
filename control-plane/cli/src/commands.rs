//! The commands that there are. Help, completion and the man page are written from this list, so that they cannot disagree.

use std::ffi::OsString;
use std::process::ExitCode;

use lexopt::{Arg, Parser};

use crate::failure::Failure;
use crate::terminal::{Colours, Terminal};
use crate::trace::listing::Output;
use crate::{completion, demo, help, man, trace};

/// One command.
pub struct Command {
    pub name: &'static str,
    pub summary: &'static str,
    /// What stands behind its name.
    pub usage: &'static str,
    /// Some sentences on what it does.
    pub about: &'static str,
    pub options: &'static [Opt],
    /// What may stand where it takes a word.
    pub words: &'static [&'static str],
    /// Command and what it does.
    pub examples: &'static [(&'static str, &'static str)],
    run: fn(&mut Parser) -> Result<ExitCode, Failure>,
}

pub struct Opt {
    pub short: Option<char>,
    pub long: &'static str,
    /// What it takes, if anything.
    pub value: Option<&'static str>,
    pub words: &'static [&'static str],
    pub help: &'static str,
}

pub fn run(arguments: Vec<OsString>) -> Result<ExitCode, Failure> {
    let mut rest = arguments.into_iter();
    let Some(first) = rest.next() else {
        print(&help::all())?;
        return Ok(ExitCode::SUCCESS);
    };
    let arguments: Vec<OsString> = rest.collect();
    match first.to_str() {
        // Its own commands have help of their own.
        Some("proxy") if !arguments.first().is_some_and(|first| first == "--help" || first == "-h") => {
            return Ok(spanmesh_proxy::cli::main(arguments));
        }
        Some("-h" | "--help" | "help") => return help(&arguments),
        Some("-V" | "--version" | "version") => {
            print(&format!("spanmesh {}\n", env!("CARGO_PKG_VERSION")))?;
            return Ok(ExitCode::SUCCESS);
        }
        // What the demo starts; nobody types it.
        Some(demo::PART) => return demo::part(arguments),
        _ => {}
    }
    let known = first.to_str().and_then(find);
    let Some(command) = known else {
        let names: Vec<_> = COMMANDS.iter().map(|command| command.name).collect();
        let text = format!("`{}` is no command; there are {}", first.to_string_lossy(), names.join(", "));
        return Err(Failure::Usage { command: None, text });
    };
    if asks_for_help(&arguments) {
        print(&help::one(command))?;
        return Ok(ExitCode::SUCCESS);
    }
    (command.run)(&mut Parser::from_args(arguments))
}

pub fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name)
}

fn asks_for_help(arguments: &[OsString]) -> bool {
    let mut own = arguments.iter().take_while(|argument| *argument != "--");
    own.any(|argument| argument == "--help" || argument == "-h")
}

fn help(arguments: &[OsString]) -> Result<ExitCode, Failure> {
    let text = match arguments.first().and_then(|name| name.to_str()) {
        None => help::all(),
        Some(name) => match find(name) {
            Some(command) => help::one(command),
            None => return Err(Failure::Usage { command: None, text: format!("`{name}` is no command") }),
        },
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn print(text: &str) -> Result<(), Failure> {
    Ok(Terminal::new(Colours::Never, None).print(text)?)
}

fn run_proxy(parser: &mut Parser) -> Result<ExitCode, Failure> {
    let arguments = parser.raw_args().map_err(|error| Failure::usage("proxy", error))?;
    Ok(spanmesh_proxy::cli::main(arguments))
}

fn run_completion(parser: &mut Parser) -> Result<ExitCode, Failure> {
    let wrong = |error: lexopt::Error| Failure::usage("completion", error);
    let shell = match parser.next().map_err(wrong)? {
        Some(Arg::Value(shell)) => shell.to_string_lossy().into_owned(),
        Some(other) => return Err(wrong(other.unexpected())),
        None => return Err(Failure::usage("completion", "say for which shell: bash, zsh or fish")),
    };
    let Some(script) = completion::script(&shell) else {
        return Err(Failure::usage("completion", format!("`{shell}` is not known; there are bash, zsh and fish")));
    };
    print(&script)?;
    Ok(ExitCode::SUCCESS)
}

fn run_man(parser: &mut Parser) -> Result<ExitCode, Failure> {
    match parser.next().map_err(|error| Failure::usage("man", error))? {
        None => print(&man::page())?,
        Some(other) => return Err(Failure::usage("man", other.unexpected())),
    }
    Ok(ExitCode::SUCCESS)
}

const fn option(short: Option<char>, long: &'static str, value: Option<&'static str>, help: &'static str) -> Opt {
    Opt { short, long, value, words: &[], help }
}

const COLOUR: Opt = Opt {
    short: None,
    long: "colour",
    value: Some("WHEN"),
    words: &Colours::WORDS,
    help: "auto (on a terminal, unless NO_COLOR is set), always or never",
};
const WIDTH: Opt = option(None, "width", Some("COLUMNS"), "draw for this many columns instead of the terminal's");

pub const COMMANDS: &[Command] = &[
    Command {
        name: "demo",
        summary: "a whole mesh at work, on this machine",
        usage: "[OPTIONS]",
        about: "Starts five small services, each behind a sidecar of its own, and a gateway in front of them; sends a few \
                requests a second through; collects the spans; draws one trace; and says what to try next. It ends with \
                Ctrl-C and leaves nothing behind.",
        options: &[
            option(None, "port", Some("PORT"), "where the gateway listens; 0 takes a free port [8080, or a free one]"),
            option(
                None,
                "traces-port",
                Some("PORT"),
                "where traces can be asked for; 0 takes a free port [16686, or a free one]",
            ),
            option(None, "rate", Some("NUMBER"), "requests a second [4]"),
            option(None, "folder", Some("DIR"), "where its files are put, in a folder of their own [TMPDIR]"),
            option(None, "for", Some("TIME"), "end after this time: 90s, 5m"),
            option(
                None,
                "headless",
                None,
                "a test: check what the demo shows, end with 0, or with 3 and what is missing",
            ),
            COLOUR,
            WIDTH,
        ],
        words: &[],
        examples: &[
            ("spanmesh demo", "look at it"),
            ("spanmesh demo --headless --for 30s", "check in a script that all of it works here"),
            ("spanmesh demo --port 9000 --rate 20", "another port, more traffic"),
        ],
        run: demo::main,
    },
    Command {
        name: "trace",
        summary: "a trace, drawn in the terminal",
        usage: "[ID] [OPTIONS]",
        about: "Draws a trace as a waterfall, with the critical path, failures and retries marked. It is fetched by its id \
                from the demo, or from the query API of Jaeger or Tempo, or read from a file of OTLP/JSON such as the proxy \
                and the OpenTelemetry Collector write. Without an id it is the latest that is whole.",
        options: &[
            option(Some('f'), "file", Some("FILE"), "read this file; - is standard input"),
            option(None, "from", Some("URL"), "ask this server [http://127.0.0.1:16686]"),
            option(
                None,
                "header",
                Some("FIELD"),
                "what that server wants to be told: 'X-Scope-OrgID: team'; may come again",
            ),
            option(Some('l'), "list", None, "list the traces that there are instead of drawing one"),
            option(Some('a'), "all", None, "draw all spans of a trace of many"),
            Opt {
                short: Some('o'),
                long: "output",
                value: Some("FORM"),
                words: &Output::WORDS,
                help: "waterfall, json, yaml or table",
            },
            COLOUR,
            WIDTH,
        ],
        words: &[],
        examples: &[
            ("spanmesh trace", "the latest trace of the demo"),
            ("spanmesh trace 0af7651916cd43dd8448eb211c80319c --from http://tempo:3200", "one trace, from Tempo"),
            ("spanmesh trace --file spans.jsonl --list", "which traces are in a file"),
            ("spanmesh trace --file spans.jsonl -o json | jq '.spans[] | select(.error)'", "what failed"),
        ],
        run: trace::command::main,
    },
    Command {
        name: "proxy",
        summary: "the proxy: run, check-config, redirect, version",
        usage: "COMMAND [OPTIONS]",
        about: "Everything that the program spanmesh-proxy does. `spanmesh proxy help` tells more.",
        options: &[],
        words: &["run", "check-config", "redirect", "version", "help"],
        examples: &[
            ("spanmesh proxy run --config proxy.yaml", "run until SIGTERM"),
            ("spanmesh proxy check-config proxy.yaml", "say what is wrong in a configuration"),
        ],
        run: run_proxy,
    },
    Command {
        name: "completion",
        summary: "completion for a shell",
        usage: "bash|zsh|fish",
        about: "Prints a script that completes this command line in a shell.",
        options: &[],
        words: &["bash", "zsh", "fish"],
        examples: &[
            ("source <(spanmesh completion bash)", "for this bash"),
            ("spanmesh completion zsh > \"${fpath[1]}/_spanmesh\"", "for every zsh"),
            ("spanmesh completion fish > ~/.config/fish/completions/spanmesh.fish", "for every fish"),
        ],
        run: run_completion,
    },
    Command {
        name: "man",
        summary: "the manual page",
        usage: "",
        about: "Prints the manual page.",
        options: &[],
        words: &[],
        examples: &[
            ("spanmesh man | man -l -", "read it"),
            ("spanmesh man > /usr/local/share/man/man1/spanmesh.1", "install it"),
        ],
        run: run_man,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_well_described() {
        for command in COMMANDS {
            assert!(!command.examples.is_empty(), "{} has no example", command.name);
            assert!(command.examples.iter().all(|(line, _)| line.contains(&format!("spanmesh {}", command.name))));
            for option in command.options {
                assert!(option.value.is_some() || option.words.is_empty(), "{} takes nothing", option.long);
            }
        }
    }
}
