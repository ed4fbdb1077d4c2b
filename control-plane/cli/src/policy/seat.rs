//! The proxies that policies are about: how they are called, and what they do not take.

use spanmesh_control_plane::offline::{Policies, Seat};

/// Whose proxies these are.
pub fn name(seat: &Seat) -> String {
    let Seat { namespace, service, workload, service_account, role, .. } = seat;
    let mut said = Vec::new();
    for (what, text) in [
        (if role == GATEWAY { "gateway" } else { "service" }, service),
        ("workload", workload),
        ("service account", service_account),
    ] {
        if !text.is_empty() {
            said.push(format!("{what} {text}"));
        }
    }
    match (said.is_empty(), namespace.is_empty()) {
        (true, true) => "proxies of namespaces that no policy is in".into(),
        (true, false) => format!("proxies of namespace {namespace} that no policy names"),
        (false, _) => format!("proxies of {} in namespace {namespace}", said.join(", ")),
    }
}

/// What a proxy does not take of what it would be given: for whom, and why.
pub fn refusals(policies: &Policies) -> Vec<(String, String)> {
    let mut refusals = Vec::new();
    for seat in policies.seats() {
        let services = policies.services();
        let chains = services.iter().filter_map(|service| Some((service.clone(), policies.destination(service)?)));
        let chains: Vec<_> = chains.collect();
        if let Err(reason) =
            spanmesh_proxy::discovery::plan(&policies.policy(&seat), &chains, &policies.captures(&seat))
        {
            refusals.push((name(&seat), reason));
        }
    }
    refusals
}

pub const GATEWAY: &str = "gateway";
