//! The commands that there are. Help, completion and the man page are written from this list, so that they cannot disagree.

use std::ffi::OsString;
use std::process::ExitCode;

use lexopt::{Arg, Parser};

use crate::failure::Failure;
use crate::output::Form;
use crate::terminal::{Colours, Terminal};
use crate::trace::listing::Output;
use crate::{completion, demo, help, man, policy, status, trace};

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
        // Their own commands have help of their own.
        Some("proxy") if !is_help(arguments.first()) => return Ok(spanmesh_proxy::cli::main(arguments)),
        Some("control-plane") if !is_help(arguments.first()) => return Ok(spanmesh_control_plane::main(arguments)),
        Some("-h" | "--help" | "help") => return help(&arguments),
        Some("-V" | "--version" | "version") => {
            nothing_after(arguments.first())?;
            print(&format!("spanmesh {}\n", env!("CARGO_PKG_VERSION")))?;
            return Ok(ExitCode::SUCCESS);
        }
        // What the demo starts; nobody types it.
        Some(demo::PART) => return demo::part(arguments),
        _ => {}
    }
    let known = first.to_str().and_then(find);
    let command = known.ok_or_else(|| unknown(&first.to_string_lossy()))?;
    if asks_for_help(&arguments) {
        print(&help::one(command, arguments.first().and_then(|word| word.to_str())))?;
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

fn is_help(argument: Option<&OsString>) -> bool {
    argument.is_some_and(|argument| argument == "--help" || argument == "-h")
}

fn help(arguments: &[OsString]) -> Result<ExitCode, Failure> {
    let text = match arguments.first().map(|name| name.to_string_lossy()) {
        None => help::all(),
        Some(name) => {
            let command = find(&name).ok_or_else(|| unknown(&name))?;
            let word = arguments.get(1).and_then(|word| word.to_str());
            let known = word.filter(|word| command.words.contains(word));
            nothing_after(arguments.get(if known.is_some() { 2 } else { 1 }))?;
            help::one(command, known)
        }
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn unknown(name: &str) -> Failure {
    let names: Vec<_> = COMMANDS.iter().map(|command| command.name).collect();
    Failure::Usage { command: None, text: format!("`{name}` is no command; there are {}", names.join(", ")) }
}

fn nothing_after(argument: Option<&OsString>) -> Result<(), Failure> {
    match argument {
        None => Ok(()),
        Some(argument) => {
            Err(Failure::Usage { command: None, text: format!("`{}` is too much", argument.to_string_lossy()) })
        }
    }
}

fn print(text: &str) -> Result<(), Failure> {
    Ok(Terminal::new(Colours::Never, None).print(text)?)
}

fn run_proxy(parser: &mut Parser) -> Result<ExitCode, Failure> {
    let arguments = parser.raw_args().map_err(|error| Failure::usage("proxy", error))?;
    Ok(spanmesh_proxy::cli::main(arguments))
}

fn run_control_plane(parser: &mut Parser) -> Result<ExitCode, Failure> {
    let arguments = parser.raw_args().map_err(|error| Failure::usage("control-plane", error))?;
    Ok(spanmesh_control_plane::main(arguments))
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
    if let Some(other) = parser.next().map_err(wrong)? {
        return Err(wrong(other.unexpected()));
    }
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
const OUTPUT: Opt =
    Opt { short: Some('o'), long: "output", value: Some("FORM"), words: &Form::WORDS, help: "table, json or yaml" };
const WIDTH: Opt = option(None, "width", Some("COLUMNS"), "draw for this many columns instead of the terminal's");

pub const COMMANDS: &[Command] = &[
    Command {
        name: "demo",
        summary: "a whole mesh at work, on this machine",
        usage: "[OPTIONS]",
        about: "Starts five small services, each behind a sidecar of its own, a gateway in front of them, and a control \
                plane that tells all proxies the policies of a folder; sends a few requests a second through; collects the \
                spans; draws one trace; and says what to try next. It ends with Ctrl-C and leaves nothing behind.",
        options: &[
            option(None, "port", Some("PORT"), "where the gateway listens; 0 takes a free port [8080, or a free one]"),
            option(
                None,
                "traces-port",
                Some("PORT"),
                "where traces can be asked for; 0 takes a free port [16686, or a free one]",
            ),
            option(
                None,
                "admin-port",
                Some("PORT"),
                "where the control plane has its pages; 0 takes a free port [14015, or a free one]",
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
        name: "control-plane",
        summary: "the control plane: run, version",
        usage: "COMMAND [OPTIONS]",
        about: "Everything that the program spanmesh-control-plane does: it reads policy resources, from Kubernetes or a folder, \
                and pushes to each proxy what concerns it. `spanmesh control-plane help` tells more.",
        options: &[],
        words: &["run", "version", "help"],
        examples: &[
            ("spanmesh control-plane run --source kube", "follow the API server that kubectl talks to"),
            ("spanmesh control-plane run --source dir:policies", "serve proxies, follow changes of the folder"),
            (
                "spanmesh control-plane run --source dir:policies --listen 127.0.0.1:14010",
                "only for proxies on this machine",
            ),
        ],
        run: run_control_plane,
    },
    Command {
        name: "proxy-status",
        summary: "which proxies a control plane serves",
        usage: "[NAME] [OPTIONS]",
        about: "Lists the proxies that are connected to a control plane: who they are, whether each has the present policy \
                in force, what it has refused, and when it has last reported. With a name, which is a service, \
                service.namespace or a pod, it says all there is of those.",
        options: &[
            option(None, "address", Some("HOST:PORT"), "where the control plane has its pages [127.0.0.1:14015]"),
            OUTPUT,
            COLOUR,
        ],
        words: &[],
        examples: &[
            ("spanmesh proxy-status", "are they all in step?"),
            ("spanmesh proxy-status cart.shop", "why is this one not?"),
            ("spanmesh proxy-status -o json | jq '.proxies[] | select(.inStep | not) | .pod'", "for a script"),
        ],
        run: status::main,
    },
    Command {
        name: "policy",
        summary: "policies: lint, diff, explain",
        usage: "lint PATH… | diff OLD NEW | explain --source dir:PATH|--address HOST:PORT --to SERVICE.NAMESPACE … [OPTIONS]",
        about: "Looks at policies before they are in force, without a cluster and a control plane, or as they are in force. `lint` says what is \
                wrong in folders, files or standard input (-), with file, line and field, and what is accepted though \
                hardly anybody means it; it ends with 3 if anything would be refused. `diff` says whose rules change when \
                one folder takes the place of another, and shows them in the order in which they are asked. `explain` says \
                of one request which rule decides on its trace, at which proxy, and why the others do not. With --address \
                it asks a control plane which policies are in force, unless --source says otherwise, and tells what share \
                of the live requests arrived decided already, and what share that rule decided.",
        options: &[
            option(None, "source", Some("dir:PATH"), "explain: the folder that the policies are in"),
            option(None, "from", Some("NAME"), "explain: who asks, as service.namespace"),
            option(None, "to", Some("NAME"), "explain: who is asked, as service.namespace"),
            option(None, "method", Some("METHOD"), "explain: the request's method [GET]"),
            option(None, "path", Some("PATH"), "explain: its path [/]"),
            option(None, "host", Some("HOST"), "explain: its host [what --to says]"),
            option(None, "header", Some("NAME=VALUE"), "explain: one of its headers, also baggage; may come again"),
            option(None, "route", Some("NAME"), "explain: the route of the proxy's configuration that it takes"),
            Opt {
                short: None,
                long: "side",
                value: Some("SIDE"),
                words: &policy::SIDES,
                help: "explain: only this side: outbound, inbound or gateway [all that it passes]",
            },
            Opt {
                short: None,
                long: "parent",
                value: Some("DECISION"),
                words: &policy::PARENTS,
                help: "explain: what it brings to the first proxy: none, kept or dropped [none]",
            },
            option(
                None,
                "address",
                Some("HOST:PORT"),
                "explain: ask this control plane what is in force and how it really goes",
            ),
            option(None, "service", Some("NAME"), "diff: for the proxies of this service, and its callers"),
            option(None, "namespace", Some("NAME"), "diff: in this namespace"),
            option(None, "workload", Some("NAME"), "diff, explain: of this Deployment or StatefulSet"),
            option(None, "account", Some("NAME"), "diff, explain: that run as this ServiceAccount"),
            Opt {
                short: None,
                long: "role",
                value: Some("ROLE"),
                words: &policy::ROLES,
                help: "diff: sidecar, gateway or standalone [sidecar]",
            },
            OUTPUT,
            COLOUR,
        ],
        words: &["lint", "diff", "explain"],
        examples: &[
            ("spanmesh policy lint policies", "is all of it right?"),
            ("helm template chart | spanmesh policy lint -", "what a chart makes"),
            ("spanmesh policy diff policies policies.new", "whose rules change?"),
            (
                "spanmesh policy explain --source dir:policies --from cart.shop --to payment.shop --method POST --path /pay",
                "which rule decides, and why not the others?",
            ),
            (
                "spanmesh policy explain --address 127.0.0.1:14015 --from cart.shop --to payment.shop",
                "the same of what is in force now, and how many requests it decides",
            ),
        ],
        run: policy::main,
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
