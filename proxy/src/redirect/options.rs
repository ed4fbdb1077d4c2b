//! The options of `redirect`, their defaults and their grammar. Text from annotations arrives here, and is text no more
//! afterwards: ports are numbers, addresses are addresses.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use lexopt::{Arg, Parser, ValueExt};

use super::RedirectError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub outbound_port: u16,
    pub inbound_port: u16,
    /// Never redirected: probes and scrapes come from outside.
    pub status_port: u16,
    /// Never redirected: listens on loopback alone.
    pub admin_port: u16,
    /// Whose traffic is the proxy's own, by any of the three.
    pub proxy_uid: u32,
    pub proxy_gid: u32,
    pub mark: u32,
    pub inbound: Ports,
    pub outbound: Ports,
    /// Destinations; `None` stands for all.
    pub include_cidrs: Option<Vec<Cidr>>,
    pub exclude_cidrs: Vec<Cidr>,
    pub backend: Choice,
    pub ipv6: Ipv6,
    pub remove: bool,
    pub dry_run: bool,
}

/// Destination ports of one direction; `None` stands for all, and an exclusion wins over an inclusion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    pub include: Option<Vec<PortRange>>,
    pub exclude: Vec<PortRange>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

/// A network, its address without bits beyond the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub address: IpAddr,
    pub prefix: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// nftables where the kernel and a program have it, else iptables.
    Auto,
    Iptables,
    Nftables,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6 {
    /// If an interface other than `lo` has an IPv6 address.
    Auto,
    Off,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            outbound_port: 14001,
            inbound_port: 14006,
            status_port: 14020,
            admin_port: 14000,
            proxy_uid: 14000,
            proxy_gid: 14000,
            mark: 0x14,
            inbound: Ports::default(),
            outbound: Ports::default(),
            include_cidrs: None,
            exclude_cidrs: Vec::new(),
            backend: Choice::Auto,
            ipv6: Ipv6::Auto,
            remove: false,
            dry_run: false,
        }
    }
}

/// Reads the arguments; `None` when they ask for help.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Option<Options>, RedirectError> {
    let usage = |error: lexopt::Error| RedirectError::Usage(error.to_string());
    let mut options = Options::default();
    let mut parser = Parser::from_args(args);
    while let Some(argument) = parser.next().map_err(usage)? {
        let Arg::Long(name) = argument else {
            if argument == Arg::Short('h') {
                return Ok(None);
            }
            return Err(usage(argument.unexpected()));
        };
        let name = name.to_owned();
        match name.as_str() {
            "help" => return Ok(None),
            "remove" => options.remove = true,
            "dry-run" => options.dry_run = true,
            known if OPTIONS.contains(&known) => {
                let value = parser.value().and_then(ValueExt::string).map_err(usage)?;
                set(&mut options, known, value.trim())
                    .map_err(|fault| RedirectError::Usage(format!("--{known} {value:?}: {fault}")))?;
            }
            _ => return Err(RedirectError::Usage(format!("unknown option --{name}"))),
        }
    }
    Ok(Some(options))
}

fn set(options: &mut Options, name: &str, value: &str) -> Result<(), String> {
    match name {
        "outbound-port" => options.outbound_port = port(value)?,
        "inbound-port" => options.inbound_port = port(value)?,
        "status-port" => options.status_port = port(value)?,
        "admin-port" => options.admin_port = port(value)?,
        "proxy-uid" => options.proxy_uid = id(value)?,
        "proxy-gid" => options.proxy_gid = id(value)?,
        "mark" => options.mark = mark(value)?,
        "include-inbound-ports" => options.inbound.include = all_or_list(value)?,
        "exclude-inbound-ports" => options.inbound.exclude = list(value)?,
        "include-outbound-ports" => options.outbound.include = all_or_list(value)?,
        "exclude-outbound-ports" => options.outbound.exclude = list(value)?,
        "include-outbound-cidrs" => options.include_cidrs = all_or_list(value)?,
        "exclude-outbound-cidrs" => options.exclude_cidrs = list(value)?,
        "backend" => {
            options.backend = match value {
                "auto" => Choice::Auto,
                "iptables" => Choice::Iptables,
                "nftables" => Choice::Nftables,
                _ => return Err("must be auto, iptables or nftables".into()),
            }
        }
        "ipv6" => {
            options.ipv6 = match value {
                "auto" => Ipv6::Auto,
                "off" => Ipv6::Off,
                _ => return Err("must be auto or off".into()),
            }
        }
        _ => return Err("unknown option".into()),
    }
    Ok(())
}

fn port(value: &str) -> Result<u16, String> {
    match value.parse() {
        Ok(0) | Err(_) => Err(format!("{value:?} is no port; a port is a number from 1 to 65535")),
        Ok(port) => Ok(port),
    }
}

/// 0 would let everything pass that runs as root, or in root's group as containers often do.
fn id(value: &str) -> Result<u32, String> {
    match value.parse() {
        Ok(0) => Err("must not be 0: an application that runs as root would not be redirected".into()),
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err("must be a number, such as 14000".into()),
    }
}

fn mark(value: &str) -> Result<u32, String> {
    let mark = match value.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => value.parse(),
    };
    match mark {
        Ok(0) => Err("must not be 0, the mark of every packet that has none".into()),
        Ok(mark) => Ok(mark),
        Err(_) => Err("must be a number, such as 0x14".into()),
    }
}

fn all_or_list<T: FromStr<Err = String>>(value: &str) -> Result<Option<Vec<T>>, String> {
    if value == "*" { Ok(None) } else { list(value).map(Some) }
}

fn list<T: FromStr<Err = String>>(value: &str) -> Result<Vec<T>, String> {
    let items = value.split(',').map(str::trim).filter(|item| !item.is_empty());
    let items = items.map(str::parse).collect::<Result<Vec<T>, _>>()?;
    if items.len() > LIST {
        return Err(format!("more than {LIST} entries; use ranges or wider networks"));
    }
    Ok(items)
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (port(first.trim())?, port(last.trim())?),
            None => (port(text)?, port(text)?),
        };
        if first > last {
            return Err(format!("the range {text} ends before it begins"));
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("{text:?} is no network; one looks like 10.0.0.0/8, 10.1.2.3 or fd00::/8");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| fault())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix: u8 = prefix.map_or(Ok(bits), str::parse).map_err(|_| fault())?;
        if prefix > bits {
            return Err(fault());
        }
        // A shift by all bits is none at all, hence the check.
        let address = match address {
            IpAddr::V4(v4) => {
                let keep = u32::MAX.checked_shl(u32::from(32 - prefix)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & keep))
            }
            IpAddr::V6(v6) => {
                let keep = u128::MAX.checked_shl(u32::from(128 - prefix)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & keep))
            }
        };
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Those that take a value.
const OPTIONS: [&str; 15] = [
    "outbound-port",
    "inbound-port",
    "status-port",
    "admin-port",
    "proxy-uid",
    "proxy-gid",
    "mark",
    "include-inbound-ports",
    "exclude-inbound-ports",
    "include-outbound-ports",
    "exclude-outbound-ports",
    "include-outbound-cidrs",
    "exclude-outbound-cidrs",
    "backend",
    "ipv6",
];

/// Entries of one list. Each is a rule that every new connection may be held against.
const LIST: usize = 1000;

pub const HELP: &str = "\
Sends the TCP traffic of this network namespace to the proxy (needs CAP_NET_ADMIN).

Usage: spanmesh-proxy redirect [OPTIONS]

  --dry-run                      print what would be run, run nothing
  --remove                       remove the rules
  --backend auto|iptables|nftables
                                 what loads the rules (auto: nftables if it works here)
  --ipv6 auto|off                auto: if an interface besides lo has an IPv6 address
  --outbound-port 14001          where connections of the application go
  --inbound-port 14006           where connections to the application go
  --status-port 14020            not redirected on arrival
  --admin-port 14000             not redirected on arrival
  --proxy-uid 14000              the proxy's user, group and packet mark:
  --proxy-gid 14000              its own connections are not redirected
  --mark 0x14
  --include-inbound-ports *      redirect only these on arrival; \"\" redirects none
  --exclude-inbound-ports LIST   redirect all but these on arrival
  --include-outbound-ports *     redirect only these destinations' ports; \"\" redirects none
  --exclude-outbound-ports LIST  redirect all but these destinations' ports
  --include-outbound-cidrs *     redirect only these destinations; \"\" redirects none
  --exclude-outbound-cidrs LIST  redirect all but these destinations

Lists are separated by commas: ports 80,443,9000-9010, networks 10.0.0.0/8,fd00::/8. What is
included must pass every include option, and what is excluded by one option is excluded.
Connections over lo stay as they are. A second run replaces the rules of the first.
";

/// Any text: no panic, and what is read is written so that it reads the same.
pub fn fuzz_redirect(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for range in list::<PortRange>(text).unwrap_or_default() {
        assert!(range.first != 0 && range.first <= range.last);
        assert_eq!(range.to_string().parse(), Ok(range));
    }
    for cidr in list::<Cidr>(text).unwrap_or_default() {
        assert_eq!(cidr.to_string().parse(), Ok(cidr));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Options, String> {
        match parse(args.iter().map(OsString::from)) {
            Ok(options) => Ok(options.expect("no help")),
            Err(error) => Err(error.to_string()),
        }
    }

    fn ports(text: &str) -> Result<String, String> {
        list::<PortRange>(text).map(|ports| ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        assert_eq!(parsed(&[]).unwrap(), Options::default());
    }

    #[test]
    fn every_option_is_in_the_help_and_takes_a_value() {
        for name in OPTIONS {
            assert!(HELP.contains(&format!("--{name} ")), "{name}");
            assert!(parsed(&[&format!("--{name}")]).is_err(), "{name} without a value");
        }
        assert!(parse(["--help".into()]).unwrap().is_none());
    }

    #[test]
    fn lists_of_ports_are_read_and_faults_named() {
        assert_eq!(ports("80, 443,9000-9010,").unwrap(), "80,443,9000-9010");
        assert_eq!(ports("").unwrap(), "");
        assert_eq!(ports("5-5").unwrap(), "5");
        for bad in ["0", "65536", "x", "10-5", "1-", "-", "80;443", "*", "80:90", "१"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
        assert!(ports(&"1,".repeat(1001)).is_err());
    }

    #[test]
    fn networks_are_read_without_the_bits_beyond_their_prefix() {
        for (text, cidr) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("1.2.3.4/0", "0.0.0.0/0"),
            ("fd00::1/8", "fd00::/8"),
            ("::1/0", "::/0"),
            ("::1", "::1/128"),
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), cidr);
        }
        for bad in ["10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "/8", "shop.example", "10.0.0.0/-1"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_star_stands_for_all_and_nothing_for_none() {
        let options = parsed(&["--include-inbound-ports", "*", "--include-outbound-ports="]).unwrap();
        assert_eq!(options.inbound.include, None);
        assert_eq!(options.outbound.include, Some(vec![]));
    }

    #[test]
    fn faults_name_the_option_and_what_would_be_right() {
        for (args, expected) in [
            (["--proxy-uid", "0"], "--proxy-uid \"0\": must not be 0"),
            (["--mark", "0"], "--mark \"0\": must not be 0"),
            (["--mark", "0xzz"], "such as 0x14"),
            (["--backend", "ebpf"], "auto, iptables or nftables"),
            (["--inbound-port", "none"], "from 1 to 65535"),
            (["--exclude-outbound-cidrs", "ten"], "one looks like 10.0.0.0/8"),
            (["--surprise", "1"], "unknown option --surprise"),
        ] {
            let error = parsed(&args).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
