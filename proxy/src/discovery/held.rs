//! The resources that were pushed and are good, and what comes of a push: what is in force then, and what was refused. Pure.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;
use spanmesh_proto::v1;

use super::read::{self, Decoded, Snapshot};

/// Kinds that this version understands.
pub const KINDS: [&str; 4] = [read::POLICY, read::DESTINATION, read::THRESHOLDS, read::CAPTURE];

/// Kind and name.
pub type Key = (String, String);

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Held {
    resources: BTreeMap<Key, Resource>,
    /// Of the latest push.
    pub version: u64,
    /// Resources that there are, of kinds that this version does not know.
    strangers: BTreeSet<Key>,
}

#[derive(Clone, Debug, PartialEq)]
struct Resource {
    digest: u64,
    body: Bytes,
    decoded: Decoded,
    /// It has fields that are not known here.
    is_partial: bool,
}

impl Held {
    /// Takes what is good of a push. What is not is told, and what was there before goes on.
    pub fn apply(&mut self, push: &v1::Push, environment: &[(String, String)]) -> Vec<v1::Refusal> {
        let mut refusals = Vec::new();
        if push.whole {
            self.strangers.clear();
            let stays: Vec<Key> = push.held.iter().map(|held| (held.kind.clone(), held.name.clone())).collect();
            let comes: Vec<Key> = push.changed.iter().map(|new| (new.kind.clone(), new.name.clone())).collect();
            self.resources.retain(|key, _| stays.contains(key) || comes.contains(key));
        }
        for name in &push.removed {
            let key = (name.kind.clone(), name.name.clone());
            self.resources.remove(&key);
            self.strangers.remove(&key);
        }
        for resource in push.changed.iter() {
            let v1::Resource { kind, name, digest, body } = resource;
            let key = (kind.clone(), name.clone());
            if !KINDS.contains(&kind.as_str()) {
                if self.strangers.len() < UNKNOWN {
                    self.strangers.insert(key);
                }
                continue;
            }
            let is_new = !self.resources.contains_key(&key);
            let outcome = match is_new && self.resources.len() >= MOST {
                true => Err(format!("there are {MOST} resources already")),
                false => read::decode(kind, name, body, environment),
            };
            match outcome {
                Ok((decoded, is_partial)) => {
                    let resource = Resource { digest: *digest, body: body.clone(), decoded, is_partial };
                    self.resources.insert(key, resource);
                }
                Err(reason) => {
                    refusals.push(v1::Refusal { kind: kind.clone(), name: name.clone(), reason });
                }
            }
        }
        self.version = push.version;
        refusals
    }

    /// Kinds and fields that this version does not know, for as long as they are there.
    pub fn unknown(&self) -> Vec<String> {
        let kinds = self.strangers.iter();
        let kinds = kinds.map(|(kind, name)| format!("{kind}/{name}: the kind is not known to this version"));
        let partial = self.resources.iter().filter(|(_, resource)| resource.is_partial);
        let fields =
            partial.map(|((kind, name), _)| format!("{kind}/{name}: has fields that this version does not know"));
        kinds.chain(fields).take(UNKNOWN).collect()
    }

    /// For the next control plane that is asked.
    pub fn told(&self) -> Vec<v1::Held> {
        let held = |((kind, name), resource): (&Key, &Resource)| v1::Held {
            kind: kind.clone(),
            name: name.clone(),
            digest: resource.digest,
        };
        self.resources.iter().map(held).collect()
    }

    /// Services whose callers' rules are held.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.resources.keys().filter(|(kind, _)| kind == read::DESTINATION).map(|(_, name)| name.as_str())
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(
            self.version,
            self.resources.iter().map(|((_, name), resource)| (name.as_str(), &resource.decoded)),
        )
    }

    /// As a push that brings another proxy here.
    pub fn to_bytes(&self) -> Vec<u8> {
        let resource = |((kind, name), resource): (&Key, &Resource)| v1::Resource {
            kind: kind.clone(),
            name: name.clone(),
            digest: resource.digest,
            body: resource.body.clone(),
        };
        let changed = self.resources.iter().map(resource).collect();
        v1::Push { version: self.version, whole: true, changed, ..v1::Push::default() }.encode_to_vec()
    }

    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    pub fn from_bytes(bytes: &[u8], environment: &[(String, String)]) -> Option<Self> {
        let push = v1::Push::decode(bytes).ok()?;
        let mut held = Self::default();
        // A version before this one may have taken what this one does not.
        held.apply(&push, environment);
        Some(held)
    }
}

/// A gateway that calls thousands of services has one resource for each.
const MOST: usize = 8_192;
const UNKNOWN: usize = 32;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn destination(place: usize, generation: u64) -> v1::Resource {
        let rule = |number: usize| v1::Rule {
            policy: format!("shop/policy-{place}"),
            generation,
            name: format!("rule-{number}"),
            r#match: Some(v1::Match {
                method: "GET".into(),
                path: Some(v1::PathMatch { path: Some(v1::path_match::Path::Prefix(format!("/some/path-{number}"))) }),
                ..v1::Match::default()
            }),
            action: Some(match number {
                2 => v1::rule::Action::Adaptive(v1::Adaptive {
                    spans_per_second: 100.0,
                    min_traces_per_minute: 1.0,
                    min_probability: 1e-5,
                }),
                _ => v1::rule::Action::Threshold(1 << 55),
            }),
        };
        let chain = v1::Chain { rules: (0..3).map(rule).collect(), ..v1::Chain::default() };
        v1::Resource {
            kind: read::DESTINATION.into(),
            name: format!("service-{place}.shop"),
            digest: generation,
            body: chain.encode_to_vec().into(),
        }
    }

    /// On the background, where nothing waits for it. Optimised it is a tenth of what this build takes.
    #[test]
    fn one_change_of_a_thousand_policies_costs_little() {
        let mut held = Held::default();
        let changed = (0..1000).map(|place| destination(place, 1)).collect();
        held.apply(&v1::Push { version: 1, whole: true, changed, ..v1::Push::default() }, &[]);
        let sampler = crate::trace::sampler::Sampler::default();
        let engine = sampler.engine(&held.snapshot().plan);
        let mut least = [Duration::MAX; 5];
        for version in 2..7 {
            let push = v1::Push { version, changed: vec![destination(7, version)], ..v1::Push::default() };
            let begun = Instant::now();
            assert_eq!(held.apply(&push, &[]), []);
            let applied = begun.elapsed();
            let snapshot = held.snapshot();
            let shown = begun.elapsed();
            let newer = sampler.engine(&snapshot.plan);
            let compiled = begun.elapsed();
            let tally = newer.0.tally();
            let counted = begun.elapsed();
            let bytes = held.to_bytes();
            let encoded = begun.elapsed();
            let parts = [applied, shown - applied, compiled - shown, counted - compiled, encoded - counted];
            least.iter_mut().zip(parts).for_each(|(least, took)| *least = took.min(*least));
            assert!(bytes.len() < 300 * 1000, "{} bytes to be written", bytes.len());
            drop((tally, newer));
        }
        drop(engine);
        eprintln!("apply, snapshot, engine, a worker's tally, bytes: {least:?}");
        let [.., tally, _] = least;
        assert!(least.iter().sum::<Duration>() < Duration::from_millis(400), "{least:?}");
        assert!(tally < Duration::from_millis(5), "the road waits for it: {tally:?}");
    }
}
