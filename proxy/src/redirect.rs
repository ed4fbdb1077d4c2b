//! `spanmesh-proxy redirect`: the rules that send a pod's TCP traffic to the proxy, loaded as root in the pod's network
//! namespace by the init container. The rules are text made by a pure function, [`plan`]; [`apply`] loads each family's
//! in one transaction. Nothing of this runs in the proxy itself.
//!
//! ```text
//!   arriving:  PREROUTING ─▶ not status, admin, excluded  ─▶ inbound listener
//!   leaving:   OUTPUT     ─▶ not over lo, not the proxy's, not excluded ─▶ outbound listener
//! ```
//! A pod that calls itself through its Service leaves to the Service's address, is redirected, and the proxy's own
//! connection comes back from the node by way of PREROUTING: the pod's own address over `lo` is nobody's but the
//! application's and the proxy's, so neither direction loops.

mod iptables;
mod nftables;
mod options;
mod run;

use std::ffi::OsString;
use std::fmt;
use std::process::ExitCode;

pub use options::{Choice, Cidr, Ipv6, Options, PortRange, Ports, fuzz_redirect};

/// The program that loads the rules. One program name can stand for either kernel interface, hence the other two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Nftables,
    Iptables,
    IptablesNft,
    IptablesLegacy,
}

/// What is to be run, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Step>,
}

/// One transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Shows what an earlier run left, which decides over some lines of `input`; nftables needs no look.
    pub look: Option<Vec<String>>,
    pub command: Vec<String>,
    /// The rules, as for a namespace without rules of ours (with them, for `--remove`).
    pub input: String,
}

/// The rules for the options, or their removal. Pure; with `Ipv6::Auto` for both families.
pub fn plan(options: &Options, backend: Backend) -> Plan {
    let steps = match backend {
        Backend::Nftables => nftables::steps(options),
        Backend::Iptables => iptables::steps(options, ""),
        Backend::IptablesNft => iptables::steps(options, "-nft"),
        Backend::IptablesLegacy => iptables::steps(options, "-legacy"),
    };
    Plan { steps }
}

/// Runs the plan. A second time changes nothing.
pub fn apply(plan: &Plan) -> Result<(), RedirectError> {
    for step in &plan.steps {
        run::step(step)?;
    }
    Ok(())
}

/// The command, with the arguments after `redirect`: 0 done, 1 failed, 2 wrong usage.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let done = match options::parse(args) {
        Ok(Some(options)) => command(options),
        Ok(None) => {
            print!("{}", options::HELP);
            Ok(())
        }
        Err(error) => Err(error),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("spanmesh-proxy redirect: {error}");
            ExitCode::from(if let RedirectError::Usage(_) = error { 2 } else { 1 })
        }
    }
}

fn command(mut options: Options) -> Result<(), RedirectError> {
    if options.ipv6 == Ipv6::Auto && !run::has_ipv6(&options) {
        options.ipv6 = Ipv6::Off;
    }
    if !options.dry_run {
        run::check_privilege()?;
    }
    for backend in run::backends(&options)? {
        let plan = plan(&options, backend);
        if options.dry_run {
            run::print(&plan);
        } else {
            apply(&plan)?;
        }
    }
    Ok(())
}

/// Why the rules are not in force.
#[derive(Debug)]
pub enum RedirectError {
    /// Wrong arguments; says which and what would be right.
    Usage(String),
    /// No right to change rules.
    Privilege,
    /// No program to load rules with; names the one asked for.
    Program(&'static str),
    /// The program failed: its words, and the likely cause.
    Failed { command: String, output: String, cause: &'static str },
}

impl fmt::Display for RedirectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) => write!(f, "{text} (see --help)"),
            Self::Privilege => write!(
                f,
                "needs CAP_NET_ADMIN in the pod's network namespace: run it as root, in Kubernetes as an init container \
                 with securityContext {{runAsUser: 0, capabilities: {{add: [NET_ADMIN, NET_RAW]}}}}"
            ),
            Self::Program(name) => write!(
                f,
                "{name} is not installed: install the package nftables (nft) or iptables (iptables-restore, \
                 ip6tables-restore), or choose the other with --backend"
            ),
            Self::Failed { command, output, cause } => write!(f, "`{command}` failed: {output}{cause}"),
        }
    }
}

impl std::error::Error for RedirectError {}
