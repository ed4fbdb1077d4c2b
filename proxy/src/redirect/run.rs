//! The part of `redirect` that touches the machine: what is installed and allowed here, running a step, and what a
//! program's complaint most likely means.

use std::fs;
use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

use super::{Backend, Choice, Options, Plan, RedirectError, Step, iptables, plan};

/// Which programs to use: the first that works here; for a removal each that does, since another may have been the one
/// that loaded the rules.
pub fn backends(options: &Options) -> Result<Vec<Backend>, RedirectError> {
    let (candidates, name): (&[Backend], _) = match options.backend {
        Choice::Auto => (&[Backend::Nftables, Backend::Iptables, Backend::IptablesNft, Backend::IptablesLegacy], "nft"),
        Choice::Iptables => (&[Backend::Iptables, Backend::IptablesNft, Backend::IptablesLegacy], "iptables-restore"),
        Choice::Nftables => (&[Backend::Nftables], "nft"),
    };
    let mut working = Vec::new();
    let mut fault = RedirectError::Program(name);
    for backend in candidates {
        if options.remove && twice(*backend, &working) {
            continue;
        }
        match probe(options, *backend) {
            Ok(()) => working.push(*backend),
            // What is installed and fails says more than what is not installed.
            Err(RedirectError::Program(_)) => {}
            Err(error) => fault = if let RedirectError::Program(_) = fault { error } else { fault },
        }
        if !working.is_empty() && !options.remove {
            break;
        }
    }
    if working.is_empty() { Err(fault) } else { Ok(working) }
}

/// Whether a backend works here. Without the right to ask the kernel, whether it is installed.
fn probe(options: &Options, backend: Backend) -> Result<(), RedirectError> {
    let privileged = check_privilege().is_ok();
    for step in plan(options, backend).steps {
        let Some((program, _)) = step.command.split_first() else { continue };
        match &step.look {
            _ if !privileged => run(&[program.clone(), "--version".into()], "").map(drop)?,
            Some(look) => run(look, "").map(drop)?,
            None => {
                let mut check = step.command.clone();
                check.insert(1, "--check".into());
                run(&check, &step.input).map(drop)?;
            }
        }
    }
    Ok(())
}

/// Whether a removal has no use for this program after those: it would find the same rules as plain `iptables` does, or
/// look into a nat table of iptables-legacy that is not there (and the look would make one).
fn twice(backend: Backend, working: &[Backend]) -> bool {
    let plain_is = |kind: &str| {
        working.contains(&Backend::Iptables)
            && run(&["iptables".into(), "--version".into()], "").is_ok_and(|version| version.contains(kind))
    };
    match backend {
        Backend::Nftables | Backend::Iptables => false,
        Backend::IptablesNft => plain_is("nf_tables"),
        Backend::IptablesLegacy => plain_is("legacy") || !legacy_nat(),
    }
}

fn legacy_nat() -> bool {
    ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"]
        .iter()
        .any(|names| fs::read_to_string(names).is_ok_and(|names| names.lines().any(|name| name == "nat")))
}

/// Loads one transaction.
pub fn step(step: &Step) -> Result<(), RedirectError> {
    let input = match &step.look {
        Some(look) => iptables::settle(&step.input, &run(look, "")?),
        None => Some(step.input.clone()),
    };
    match input {
        Some(input) => run(&step.command, &input).map(drop),
        None => Ok(()),
    }
}

/// Prints the plan as shell commands, as it would be run now.
pub fn print(plan: &Plan) {
    for step in &plan.steps {
        let input = match step.look.as_ref().map(|look| run(look, "")) {
            Some(Ok(saved)) => iptables::settle(&step.input, &saved),
            Some(Err(_)) => {
                println!("# not allowed to look at the rules that are there; this is for a namespace without any");
                Some(step.input.clone())
            }
            None => Some(step.input.clone()),
        };
        match input {
            Some(input) => println!("{} <<'END'\n{input}END", step.command.join(" ")),
            None => println!("# nothing to remove with {}", step.command.join(" ")),
        }
    }
}

/// Whether this process may change the rules of its network namespace.
pub fn check_privilege() -> Result<(), RedirectError> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    match effective {
        Some(mask) if mask & CAP_NET_ADMIN == 0 => Err(RedirectError::Privilege),
        // Without /proc the kernel itself will say so.
        Some(_) | None => Ok(()),
    }
}

/// Whether an interface other than `lo` has an IPv6 address; for a removal, whether the kernel has IPv6 at all, since
/// the addresses may have gone before the rules.
pub fn has_ipv6(options: &Options) -> bool {
    let Ok(table) = fs::read_to_string("/proc/net/if_inet6") else { return false };
    options.remove
        || table.lines().any(|line| line.split_whitespace().last().is_some_and(|interface| interface != "lo"))
}

fn run(words: &[String], input: &str) -> Result<String, RedirectError> {
    let command = words.join(" ");
    let failed = |output: String, cause| RedirectError::Failed { command: command.clone(), output, cause };
    let Some((program, rest)) = words.split_first() else {
        return Err(failed("no command".into(), ""));
    };
    let started = Command::new(program)
        .args(rest)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(RedirectError::Program(known(program))),
        Err(error) => return Err(failed(error.to_string(), "")),
    };
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read to the end says why on its way out.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string(), ""))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let cause = cause(&words);
        Err(failed(words, cause))
    }
}

/// The program's name for the message about what to install.
fn known(program: &str) -> &'static str {
    if program.starts_with("nft") {
        "nft"
    } else if program.starts_with("ip6tables") {
        "ip6tables-restore"
    } else {
        "iptables-restore"
    }
}

/// What a program's complaint most likely means, and the next step.
fn cause(words: &str) -> &'static str {
    let says = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    if says(&["xtables.lock"]) {
        "\nthe lock file cannot be written: mount an emptyDir at /run, or use --backend nftables"
    } else if says(&["Permission denied", "Operation not permitted", "you must be root"]) {
        "\nmissing CAP_NET_ADMIN (iptables-legacy also needs CAP_NET_RAW), or a seccomp or SELinux rule forbids it"
    } else if says(&[
        "do you need to insmod",
        "No such file or directory",
        "not supported",
        "Protocol not available",
        "missing kernel module",
        "No chain/target/match",
        "not found",
    ]) {
        "\na kernel module is missing on the node: nft_chain_nat, nft_redir and nf_conntrack for nftables (Linux 5.2 or \
         later), iptable_nat, ip6table_nat, xt_REDIRECT and xt_owner for iptables; load them, choose the other \
         --backend, or use --ipv6 off if only IPv6's are missing"
    } else {
        ""
    }
}

/// Bit 12 of the capability mask.
const CAP_NET_ADMIN: u64 = 1 << 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_program_that_is_not_there_is_named_with_what_to_install() {
        let error = run(&words("iptables-none-restore --noflush"), "").unwrap_err();
        assert!(matches!(error, RedirectError::Program("iptables-restore")));
        assert!(error.to_string().contains("install the package nftables"));
    }

    #[test]
    fn a_program_that_fails_is_quoted_with_the_likely_cause() {
        let script = "echo 'iptables: do you need to insmod?' >&2; exit 3";
        let error = run(&["sh".into(), "-c".into(), script.into()], "*nat\n").unwrap_err().to_string();
        assert!(error.contains("do you need to insmod?") && error.contains("kernel module is missing"), "{error}");
    }

    #[test]
    fn complaints_are_told_apart() {
        for (complaint, cause_part) in [
            (
                "iptables v1.8.9 (legacy): can't initialize iptables table `nat': Permission denied (you must be root)",
                "CAP_NET_ADMIN",
            ),
            ("netlink: Error: cache initialization failed: Operation not permitted", "CAP_NET_ADMIN"),
            ("Error: Could not process rule: No such file or directory", "kernel module"),
            ("can't initialize ip6tables table `nat': Table does not exist (do you need to insmod?)", "--ipv6 off"),
            ("Fatal: can't open lock file /run/xtables.lock: Permission denied", "emptyDir"),
        ] {
            assert!(cause(complaint).contains(cause_part), "{complaint}");
        }
        assert_eq!(cause("line 3: syntax error"), "");
    }

    #[test]
    fn what_a_program_prints_is_returned_and_its_input_reaches_it() {
        assert_eq!(run(&words("cat"), "*nat\nCOMMIT\n").unwrap(), "*nat\nCOMMIT\n");
    }
}
