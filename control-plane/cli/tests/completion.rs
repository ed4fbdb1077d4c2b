//! What each shell offers when the tabulator is pressed, asked of the shell itself.

use std::path::Path;
use std::process::Command;

/// What `shell` offers at the end of each line, in any order, without what it says of it.
fn offers(shell: &str, lines: &[(&str, &[&str])]) {
    if Command::new(shell).arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "there is no {shell}: apt-get install {shell}");
        eprintln!("there is no {shell}, so what it offers is not known");
        return;
    }
    let script = Command::new(env!("CARGO_BIN_EXE_spanmesh")).args(["completion", shell]).output().expect("run").stdout;
    let file = std::env::temp_dir().join(format!("spanmesh-completion-{}.{shell}", std::process::id()));
    std::fs::write(&file, script).expect("write");
    for (line, expected) in lines {
        let output = asked(shell, &file, line).output().expect("run");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let mut words: Vec<&str> = out.lines().map(|line| line.split('\t').next().unwrap_or_default()).collect();
        words.sort_unstable();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(words, expected, "{shell}: {line:?}: {err}");
        assert!(output.status.success() && err.is_empty(), "{shell}: {line:?}: {err}");
    }
    std::fs::remove_file(&file).expect("remove");
}

fn asked(shell: &str, script: &Path, line: &str) -> Command {
    let mut command = Command::new(shell);
    match shell {
        "fish" => command.args(["--no-config", "-c", &format!("source {}; complete -C '{line}'", script.display())]),
        "zsh" => {
            let capture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/completion/capture.zsh");
            command.arg("-f").arg(capture).arg(script).arg(line)
        }
        _ => command.args(["--norc", "-c", &bash(script, line)]),
    };
    command
}

/// What bash does itself when the key is pressed.
fn bash(script: &Path, line: &str) -> String {
    let words: Vec<_> = line.split(' ').collect();
    let quoted: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
    format!(
        "source {}; COMP_WORDS=({}); COMP_CWORD={}; _spanmesh; [ ${{#COMPREPLY[@]}} -eq 0 ] || printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        script.display(),
        quoted.join(" "),
        words.len() - 1
    )
}

const COMMANDS: &[&str] =
    &["demo", "trace", "proxy", "control-plane", "proxy-status", "policy", "completion", "man", "help"];
const FORMS: &[&str] = &["waterfall", "json", "yaml", "table"];
const SIDES: &[&str] = &["outbound", "inbound", "gateway"];
const SHELLS: &[&str] = &["bash", "zsh", "fish"];

#[test]
fn fish_offers_commands_options_words_and_files() {
    offers(
        "fish",
        &[
            ("spanmesh ", COMMANDS),
            ("spanmesh de", &["demo"]),
            ("spanmesh trace --li", &["--list"]),
            ("spanmesh trace -o ya", &["yaml"]),
            ("spanmesh trace --output ", FORMS),
            ("spanmesh trace --file /etc/host --li", &["--list"]),
            ("spanmesh trace --file /etc/hostn", &["/etc/hostname"]),
            ("spanmesh demo --li", &[]),
            ("spanmesh demo --colour n", &["never"]),
            ("spanmesh completion ", SHELLS),
            ("spanmesh proxy ru", &["run"]),
            ("spanmesh policy li", &["lint"]),
            ("spanmesh policy --side ", SIDES),
            ("spanmesh proxy-status -o ya", &["yaml"]),
            ("spanmesh help tr", &["trace"]),
        ],
    );
}

#[test]
fn zsh_offers_commands_options_words_and_files() {
    offers(
        "zsh",
        &[
            ("spanmesh ", COMMANDS),
            ("spanmesh de", &["demo"]),
            ("spanmesh trace --li", &["--list"]),
            ("spanmesh trace -o ya", &["yaml"]),
            ("spanmesh trace --output ", FORMS),
            ("spanmesh trace --file /etc/hostn", &["hostname"]),
            ("spanmesh demo --colour n", &["never"]),
            ("spanmesh completion ", SHELLS),
            ("spanmesh proxy ru", &["run"]),
            ("spanmesh policy li", &["lint"]),
            ("spanmesh policy --side ", SIDES),
            ("spanmesh proxy-status -o ya", &["yaml"]),
            ("spanmesh help tr", &["trace"]),
        ],
    );
}

#[test]
fn bash_offers_commands_options_words_and_files() {
    offers(
        "bash",
        &[
            ("spanmesh de", &["demo"]),
            ("spanmesh trace --li", &["--list"]),
            ("spanmesh trace -o ya", &["yaml"]),
            ("spanmesh trace --output ", FORMS),
            ("spanmesh trace --file /etc/hostn", &["/etc/hostname"]),
            ("spanmesh demo --li", &[]),
            ("spanmesh completion ", &["bash", "zsh", "fish", "--help"]),
            ("spanmesh policy li", &["lint"]),
            ("spanmesh policy --side ", SIDES),
            ("spanmesh proxy-status -o ya", &["yaml"]),
            ("spanmesh help tr", &["trace"]),
        ],
    );
}
