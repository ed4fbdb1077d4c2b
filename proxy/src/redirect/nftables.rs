//! The rules as one `nft -f` transaction for both families: a table of our own, made anew. Pure.

use super::{Cidr, Ipv6, Options, PortRange, Step};

pub fn steps(options: &Options) -> Vec<Step> {
    // Adding it first makes the deletion succeed where there is none.
    let mut input = format!("table inet {TABLE}\ndelete table inet {TABLE}\n");
    if !options.remove {
        input.push_str(&table(options));
    }
    vec![Step { look: None, command: vec!["nft".into(), "-f".into(), "-".into()], input }]
}

fn table(options: &Options) -> String {
    let mut inbound = Vec::new();
    let mut outbound = Vec::new();
    if options.ipv6 == Ipv6::Off {
        inbound.push("meta nfproto ipv6 return".to_owned());
        outbound.push("meta nfproto ipv6 return".to_owned());
    }

    for port in [options.status_port, options.admin_port] {
        inbound.push(format!("tcp dport {port} return"));
    }
    inbound.extend(options.inbound.exclude.iter().map(|range| format!("tcp dport {range} return")));
    for ports in included(options.inbound.include.as_deref()) {
        inbound.push(format!("{ports} redirect to :{}", options.inbound_port));
    }

    outbound.push("oifname \"lo\" return".to_owned());
    outbound.push(format!("meta skuid {} return", options.proxy_uid));
    outbound.push(format!("meta skgid {} return", options.proxy_gid));
    outbound.push(format!("meta mark {:#x} return", options.mark));
    outbound.extend(options.exclude_cidrs.iter().map(|cidr| format!("{} return", to(cidr))));
    outbound.extend(options.outbound.exclude.iter().map(|range| format!("tcp dport {range} return")));
    let destinations = match &options.include_cidrs {
        None => vec![String::new()],
        Some(list) => list.iter().map(|cidr| format!("{} ", to(cidr))).collect(),
    };
    for destination in destinations {
        for ports in included(options.outbound.include.as_deref()) {
            outbound.push(format!("{destination}{ports} redirect to :{}", options.outbound_port));
        }
    }

    let inbound = chain("inbound", "prerouting", &inbound);
    let outbound = chain("outbound", "output", &outbound);
    format!("table inet {TABLE} {{\n{inbound}{outbound}}}\n")
}

/// A chain at the place where the kernel rewrites destinations.
fn chain(name: &str, hook: &str, rules: &[String]) -> String {
    let mut text = format!("\tchain {name} {{\n\t\ttype nat hook {hook} priority -100; policy accept;\n");
    for rule in rules {
        text.push_str(&format!("\t\t{rule}\n"));
    }
    text + "\t}\n"
}

fn included(ports: Option<&[PortRange]>) -> Vec<String> {
    match ports {
        None => vec!["meta l4proto tcp".to_owned()],
        Some(list) => list.iter().map(|range| format!("tcp dport {range}")).collect(),
    }
}

fn to(cidr: &Cidr) -> String {
    let family = if cidr.address.is_ipv4() { "ip" } else { "ip6" };
    format!("{family} daddr {cidr}")
}

const TABLE: &str = "spanmesh";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redirect::{Backend, Ports, plan};

    fn input(options: &Options) -> String {
        let plan = plan(options, Backend::Nftables);
        assert_eq!(plan.steps.len(), 1);
        assert_eq!(plan.steps[0].command, ["nft", "-f", "-"]);
        plan.steps[0].input.clone()
    }

    #[test]
    fn by_default_both_families_get_these_rules() {
        let expected = "\
table inet spanmesh
delete table inet spanmesh
table inet spanmesh {
\tchain inbound {
\t\ttype nat hook prerouting priority -100; policy accept;
\t\ttcp dport 14020 return
\t\ttcp dport 14000 return
\t\tmeta l4proto tcp redirect to :14006
\t}
\tchain outbound {
\t\ttype nat hook output priority -100; policy accept;
\t\toifname \"lo\" return
\t\tmeta skuid 14000 return
\t\tmeta skgid 14000 return
\t\tmeta mark 0x14 return
\t\tmeta l4proto tcp redirect to :14001
\t}
}
";
        assert_eq!(input(&Options::default()), expected);
    }

    #[test]
    fn without_ipv6_it_is_let_through_first() {
        let input = input(&Options { ipv6: Ipv6::Off, ..Options::default() });
        assert_eq!(input.matches("policy accept;\n\t\tmeta nfproto ipv6 return\n").count(), 2);
    }

    #[test]
    fn exclusions_come_before_what_is_included() {
        let options = Options {
            inbound: Ports { include: Some(vec!["80".parse().unwrap()]), exclude: vec!["9000-9010".parse().unwrap()] },
            outbound: Ports { include: None, exclude: vec!["443".parse().unwrap()] },
            include_cidrs: Some(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]),
            exclude_cidrs: vec!["10.9.0.0/16".parse().unwrap(), "fd09::/16".parse().unwrap()],
            ..Options::default()
        };
        let input = input(&options);
        let rules: Vec<_> = input.lines().map(str::trim).collect();
        let after = |line: &str| rules.iter().position(|rule| *rule == line).map(|at| &rules[at + 1..]).unwrap();
        assert_eq!(
            after("tcp dport 14000 return")[..2],
            ["tcp dport 9000-9010 return", "tcp dport 80 redirect to :14006"]
        );
        assert_eq!(
            after("meta mark 0x14 return")[..5],
            [
                "ip daddr 10.9.0.0/16 return",
                "ip6 daddr fd09::/16 return",
                "tcp dport 443 return",
                "ip daddr 10.0.0.0/8 meta l4proto tcp redirect to :14001",
                "ip6 daddr fd00::/8 meta l4proto tcp redirect to :14001",
            ]
        );
    }

    #[test]
    fn a_removal_leaves_no_table_whether_there_was_one_or_not() {
        let input = input(&Options { remove: true, ..Options::default() });
        assert_eq!(input, "table inet spanmesh\ndelete table inet spanmesh\n");
    }
}
