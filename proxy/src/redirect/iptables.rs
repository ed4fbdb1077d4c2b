//! The rules as iptables-restore reads them, one transaction for each family. Pure.

use super::{Cidr, Ipv6, Options, Ports, Step};

/// `variant` follows the program's name: empty, `-nft` or `-legacy`.
pub fn steps(options: &Options, variant: &str) -> Vec<Step> {
    let families: &[Family] = match options.ipv6 {
        Ipv6::Auto => &[Family::V4, Family::V6],
        Ipv6::Off => &[Family::V4],
    };
    let step = |family: &Family| {
        let program = match family {
            Family::V4 => format!("iptables{variant}"),
            Family::V6 => format!("ip6tables{variant}"),
        };
        let words = |rest: &[&str], name: &str| {
            let mut words = vec![format!("{program}-{name}")];
            words.extend(rest.iter().map(ToString::to_string));
            words
        };
        Step {
            look: Some(words(&["-t", "nat"], "save")),
            command: words(&["--noflush", "--wait", LOCK_WAIT], "restore"),
            input: if options.remove { removal() } else { rules(options, *family) },
        }
    };
    families.iter().map(step).collect()
}

/// The input for a namespace whose nat table is `saved`: a jump that is there is not added again, one that is not there
/// is not deleted (which would fail the transaction). `None` when there is nothing to remove.
pub fn settle(input: &str, saved: &str) -> Option<String> {
    let removing = input.contains("\n-X ");
    if removing && !saved.contains(INBOUND) && !saved.contains(OUTBOUND) {
        return None;
    }
    let mut settled = String::new();
    for line in input.lines() {
        let found = |rule: &str| saved.lines().filter(|line| line.trim_end() == rule).count();
        let times = match line.strip_prefix("-D ") {
            Some(rule) => found(&format!("-A {rule}")),
            None if line.starts_with("-A PREROUTING ") || line.starts_with("-A OUTPUT ") => {
                usize::from(found(line) == 0)
            }
            None => 1,
        };
        for _ in 0..times {
            settled.push_str(line);
            settled.push('\n');
        }
    }
    Some(settled)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

fn rules(options: &Options, family: Family) -> String {
    // Naming a chain empties it if it is there and makes it if it is not.
    let mut lines = vec!["*nat".to_owned(), format!(":{INBOUND} - [0:0]"), format!(":{OUTBOUND} - [0:0]")];
    for port in [options.status_port, options.admin_port] {
        lines.push(format!("-A {INBOUND} -p tcp --dport {port} -j RETURN"));
    }
    excluded(&mut lines, INBOUND, &options.inbound);
    for ports in included(&options.inbound) {
        lines.push(format!("-A {INBOUND} -p tcp{ports} -j REDIRECT --to-ports {}", options.inbound_port));
    }

    lines.push(format!("-A {OUTBOUND} -o lo -j RETURN"));
    lines.push(format!("-A {OUTBOUND} -m owner --uid-owner {} -j RETURN", options.proxy_uid));
    lines.push(format!("-A {OUTBOUND} -m owner --gid-owner {} -j RETURN", options.proxy_gid));
    lines.push(format!("-A {OUTBOUND} -m mark --mark {:#x} -j RETURN", options.mark));
    for cidr in options.exclude_cidrs.iter().filter(|cidr| of(cidr, family)) {
        lines.push(format!("-A {OUTBOUND} -d {cidr} -j RETURN"));
    }
    excluded(&mut lines, OUTBOUND, &options.outbound);
    let destinations = match &options.include_cidrs {
        None => vec![String::new()],
        Some(list) => list.iter().filter(|cidr| of(cidr, family)).map(|cidr| format!(" -d {cidr}")).collect(),
    };
    for destination in destinations {
        for ports in included(&options.outbound) {
            let to = options.outbound_port;
            lines.push(format!("-A {OUTBOUND}{destination} -p tcp{ports} -j REDIRECT --to-ports {to}"));
        }
    }

    lines.push(format!("-A PREROUTING -p tcp -j {INBOUND}"));
    lines.push(format!("-A OUTPUT -p tcp -j {OUTBOUND}"));
    lines.push("COMMIT".to_owned());
    lines.join("\n") + "\n"
}

fn removal() -> String {
    format!(
        "*nat\n:{INBOUND} - [0:0]\n:{OUTBOUND} - [0:0]\n-D PREROUTING -p tcp -j {INBOUND}\n-D OUTPUT -p tcp -j {OUTBOUND}\n\
         -X {INBOUND}\n-X {OUTBOUND}\nCOMMIT\n"
    )
}

fn excluded(lines: &mut Vec<String>, chain: &str, ports: &Ports) {
    for range in &ports.exclude {
        lines.push(format!("-A {chain} -p tcp --dport {}:{} -j RETURN", range.first, range.last));
    }
}

fn included(ports: &Ports) -> Vec<String> {
    match &ports.include {
        None => vec![String::new()],
        Some(list) => list.iter().map(|range| format!(" --dport {}:{}", range.first, range.last)).collect(),
    }
}

fn of(cidr: &Cidr, family: Family) -> bool {
    cidr.address.is_ipv4() == (family == Family::V4)
}

const INBOUND: &str = "SPANMESH_INBOUND";
const OUTBOUND: &str = "SPANMESH_OUTBOUND";
/// Seconds for the lock that all iptables programs share; each holds it for milliseconds.
const LOCK_WAIT: &str = "10";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redirect::{Backend, plan};

    const FRESH: &str = "\
*nat
:SPANMESH_INBOUND - [0:0]
:SPANMESH_OUTBOUND - [0:0]
-A SPANMESH_INBOUND -p tcp --dport 14020 -j RETURN
-A SPANMESH_INBOUND -p tcp --dport 14000 -j RETURN
-A SPANMESH_INBOUND -p tcp -j REDIRECT --to-ports 14006
-A SPANMESH_OUTBOUND -o lo -j RETURN
-A SPANMESH_OUTBOUND -m owner --uid-owner 14000 -j RETURN
-A SPANMESH_OUTBOUND -m owner --gid-owner 14000 -j RETURN
-A SPANMESH_OUTBOUND -m mark --mark 0x14 -j RETURN
-A SPANMESH_OUTBOUND -p tcp -j REDIRECT --to-ports 14001
-A PREROUTING -p tcp -j SPANMESH_INBOUND
-A OUTPUT -p tcp -j SPANMESH_OUTBOUND
COMMIT
";

    const SAVED: &str = "\
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:SPANMESH_INBOUND - [0:0]
:SPANMESH_OUTBOUND - [0:0]
-A PREROUTING -p tcp -j SPANMESH_INBOUND
-A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT
-A OUTPUT -p tcp -j SPANMESH_OUTBOUND
COMMIT
";

    fn inputs(options: &Options) -> Vec<String> {
        plan(options, Backend::Iptables).steps.into_iter().map(|step| step.input).collect()
    }

    #[test]
    fn by_default_both_families_get_these_rules() {
        let plan = plan(&Options::default(), Backend::Iptables);
        let programs: Vec<_> = plan.steps.iter().map(|step| step.command.join(" ")).collect();
        assert_eq!(programs, ["iptables-restore --noflush --wait 10", "ip6tables-restore --noflush --wait 10"]);
        assert_eq!(plan.steps[0].input, FRESH);
        assert_eq!(plan.steps[1].input, FRESH);
    }

    #[test]
    fn the_variants_are_called_by_their_own_names() {
        let plan = plan(&Options { ipv6: Ipv6::Off, ..Options::default() }, Backend::IptablesLegacy);
        assert_eq!(plan.steps.len(), 1);
        assert_eq!(plan.steps[0].command[0], "iptables-legacy-restore");
        assert_eq!(plan.steps[0].look.as_ref().unwrap()[0], "iptables-legacy-save");
    }

    #[test]
    fn exclusions_come_first_and_each_family_has_its_own_networks() {
        let options = Options {
            inbound: Ports { include: None, exclude: vec!["9000-9010".parse().unwrap()] },
            outbound: Ports { include: Some(vec!["80".parse().unwrap()]), exclude: vec!["443".parse().unwrap()] },
            include_cidrs: Some(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]),
            exclude_cidrs: vec!["10.9.0.0/16".parse().unwrap()],
            ..Options::default()
        };
        let inputs = inputs(&options);
        let v4: Vec<_> = inputs[0].lines().filter(|line| line.contains(":") && line.starts_with("-A")).collect();
        assert_eq!(
            v4,
            [
                "-A SPANMESH_INBOUND -p tcp --dport 9000:9010 -j RETURN",
                "-A SPANMESH_OUTBOUND -p tcp --dport 443:443 -j RETURN",
                "-A SPANMESH_OUTBOUND -d 10.0.0.0/8 -p tcp --dport 80:80 -j REDIRECT --to-ports 14001",
            ]
        );
        assert!(inputs[0].contains("-A SPANMESH_OUTBOUND -d 10.9.0.0/16 -j RETURN\n"));
        assert!(!inputs[0].contains("fd00"));
        assert!(inputs[1].contains("-A SPANMESH_OUTBOUND -d fd00::/8 -p tcp --dport 80:80 -j REDIRECT"));
        assert!(!inputs[1].contains("10.9"));
    }

    #[test]
    fn what_includes_nothing_redirects_nothing() {
        let none = Ports { include: Some(vec![]), exclude: vec![] };
        let options = Options { inbound: none.clone(), outbound: none, ..Options::default() };
        assert!(inputs(&options).iter().all(|input| !input.contains("REDIRECT")));
    }

    #[test]
    fn a_second_run_does_not_add_the_jumps_again() {
        let fresh = "*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n";
        assert_eq!(settle(FRESH, fresh).unwrap(), FRESH);
        let second = settle(FRESH, SAVED).unwrap();
        assert!(!second.contains("-A PREROUTING") && !second.contains("-A OUTPUT"));
        assert_eq!(second.lines().count(), FRESH.lines().count() - 2);
    }

    #[test]
    fn a_removal_deletes_what_is_there_and_no_more() {
        let removal = inputs(&Options { remove: true, ..Options::default() }).remove(0);
        assert_eq!(settle(&removal, SAVED).unwrap(), removal);
        assert_eq!(settle(&removal, ""), None);
        let twice = SAVED.replace(
            "-A PREROUTING -p tcp -j SPANMESH_INBOUND",
            "-A PREROUTING -p tcp -j SPANMESH_INBOUND\n-A PREROUTING -p tcp -j SPANMESH_INBOUND",
        );
        assert_eq!(settle(&removal, &twice).unwrap().matches("-D PREROUTING").count(), 2);
        let without = SAVED.replace("-A OUTPUT -p tcp -j SPANMESH_OUTBOUND\n", "");
        assert!(!settle(&removal, &without).unwrap().contains("-D OUTPUT"));
    }
}
