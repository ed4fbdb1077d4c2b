//! How it really goes: which policies a control plane has in force, and what proxies have reported to it since they connected.

use serde_json::{Value, json};
use spanmesh_control_plane::offline::Policies;
use spanmesh_proxy::rules::sampling::explain::Asked;

use super::Hop;
use crate::control;
use crate::failure::Failure;
use crate::output::counted;
use crate::policy::seat::GATEWAY;
use crate::terminal::Terminal;

/// Requests at the proxies of one service, both sides together, since they connected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    proxies: usize,
    arrived: u64,
    unruled: u64,
    others: u64,
    /// Policy and rule, and how many requests it decided.
    rules: Vec<(String, String, u64)>,
}

/// The proxies that are connected, as the control plane tells of them.
pub struct Proxies(Vec<Value>);

pub fn proxies(address: &str, terminal: &mut Terminal) -> Result<Proxies, Failure> {
    let page = control::page(address, "/proxies", terminal)?;
    Ok(Proxies(page["proxies"].as_array().cloned().unwrap_or_default()))
}

/// What is in force.
pub fn policies(address: &str, terminal: &mut Terminal) -> Result<Policies, Failure> {
    let page = control::page(address, "/sampling", terminal)?;
    Policies::shown(&page).ok_or_else(|| {
        Failure::failed(format!(
            "{address} does not say which policies are in force; is it a control plane of this version? \
             `--source dir:PATH` reads them from a folder"
        ))
    })
}

impl Proxies {
    /// For each hop.
    pub fn shares(&self, hops: &[Hop]) -> Vec<Share> {
        hops.iter().map(|hop| Share::of(&self.0, &hop.at)).collect()
    }

    /// All proxies of this service are, and there is one.
    pub fn are_gateways(&self, (service, namespace): &(String, String)) -> bool {
        let mut own = self.0.iter().filter(|proxy| proxy["service"] == **service && proxy["namespace"] == **namespace);
        let is_gateway = |proxy: &Value| proxy["role"] == GATEWAY;
        own.clone().next().is_some() && own.all(is_gateway)
    }
}

impl Share {
    fn of(proxies: &[Value], at: &str) -> Self {
        let word = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let mut share = Self::default();
        for proxy in proxies {
            if format!("{}.{}", word(proxy, "service"), word(proxy, "namespace")) != at {
                continue;
            }
            let decided = &proxy["decided"];
            let count = |field: &str| decided[field].as_u64().unwrap_or_default();
            share.proxies += 1;
            share.arrived += count("arrivedKept") + count("arrivedDropped");
            share.unruled += count("unruled");
            share.others += count("otherRules");
            for rule in decided["rules"].as_array().into_iter().flatten() {
                let (policy, name) = (word(rule, "policy"), word(rule, "rule"));
                let seen = rule["seen"].as_u64().unwrap_or_default();
                match share.rules.iter_mut().find(|(one, other, _)| *one == policy && *other == name) {
                    Some((.., sum)) => *sum += seen,
                    None => share.rules.push((policy, name, seen)),
                }
            }
        }
        share
    }

    fn all(&self) -> u64 {
        self.arrived + self.unruled + self.others + self.rules.iter().map(|(.., seen)| seen).sum::<u64>()
    }

    fn by(&self, asked: &Asked) -> u64 {
        let is = |(policy, rule, _): &&(String, String, u64)| **policy == *asked.id.policy && **rule == *asked.id.rule;
        self.rules.iter().filter(is).map(|(.., seen)| seen).sum()
    }

    pub fn sentence(&self, decides: Option<&Asked>) -> String {
        let all = self.all();
        let proxies = counted(self.proxies, "connected proxy", "connected proxies");
        if all == 0 {
            return format!("live: {proxies}, and no request was reported yet");
        }
        let part = |count: u64| format!("{:.1} %", 100.0 * count as f64 / all as f64);
        let by = decides.map(|asked| format!(", {} by {}", part(self.by(asked)), asked.id.rule)).unwrap_or_default();
        format!(
            "live: of {all} requests at {proxies}, both sides together, {} arrived decided already{by}, {} by no rule",
            part(self.arrived),
            part(self.unruled)
        )
    }

    pub fn value(&self) -> Value {
        let rules = self.rules.iter().map(|(policy, rule, seen)| json!({"policy": policy, "rule": rule, "seen": seen}));
        json!({
            "proxies": self.proxies,
            "requests": self.all(),
            "arrivedDecided": self.arrived,
            "unruled": self.unruled,
            "otherRules": self.others,
            "rules": rules.collect::<Vec<_>>(),
        })
    }
}
