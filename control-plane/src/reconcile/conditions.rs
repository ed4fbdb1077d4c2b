//! Conditions as Kubernetes has them: <https://gateway-api.sigs.k8s.io/geps/gep-713/> and
//! <https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md>

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

pub const ACCEPTED: &str = "Accepted";
pub const PROGRAMMED: &str = "Programmed";
pub const CONVERGED: &str = "Converged";

/// What is so, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Say {
    pub kind: &'static str,
    pub status: &'static str,
    pub reason: &'static str,
    pub message: String,
}

pub fn say(kind: &'static str, holds: bool, reason: &'static str, message: impl Into<String>) -> Say {
    let status = if holds { "True" } else { "False" };
    Say { kind, status, reason, message: message.into() }
}

/// Times stay where nothing has turned; conditions of others stay.
pub fn settled(said: Vec<Say>, generation: u64, before: &[Condition], now: Timestamp) -> Vec<Condition> {
    let foreign = before.iter().filter(|condition| !said.iter().any(|say| say.kind == condition.type_)).cloned();
    let foreign: Vec<_> = foreign.filter(|condition| !OURS.contains(&condition.type_.as_str())).collect();
    let ours = said.into_iter().map(|say| {
        let same = before.iter().find(|condition| condition.type_ == say.kind && condition.status == say.status);
        Condition {
            type_: say.kind.to_owned(),
            status: say.status.to_owned(),
            reason: say.reason.to_owned(),
            message: say.message.chars().take(MESSAGE).collect(),
            observed_generation: i64::try_from(generation).ok(),
            last_transition_time: same.map_or(Time(now), |same| same.last_transition_time.clone()),
        }
    });
    let mut all: Vec<_> = ours.chain(foreign).take(CONDITIONS).collect();
    // The server may have put them into an order of its own, which is none of our business.
    all.sort_by_key(|condition| before.iter().position(|old| old.type_ == condition.type_).unwrap_or(usize::MAX));
    all
}

/// Whether they say something else, or only with other words.
pub fn flips(one: &[Condition], two: &[Condition]) -> bool {
    let said = |conditions: &[Condition]| {
        let mut said: Vec<_> = conditions
            .iter()
            .map(|condition| (condition.type_.clone(), condition.status.clone(), condition.observed_generation))
            .collect();
        said.sort();
        said
    };
    said(one) != said(two)
}

const OURS: [&str; 3] = [ACCEPTED, PROGRAMMED, CONVERGED];
/// As the definitions have it.
const CONDITIONS: usize = 8;
const MESSAGE: usize = 2_048;
