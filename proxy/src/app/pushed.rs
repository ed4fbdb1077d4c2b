//! The road as the client of the control plane sees it: what is pushed becomes the workers' policy, their manner of telling
//! spans, and the destinations of these.

use std::sync::Arc;
use std::time::Instant;

use spanmesh_proto::v1;

use super::follow::Publisher;
use super::{StartError, destinations, manner};
use crate::config::pushed::Pushed;
use crate::config::{Config, ControlPlane, Mode, Policy};
use crate::discovery::Snapshot;
use crate::discovery::client::{Road, Settings};
use crate::rules::sampling::plan::{self, Id};
use crate::rules::sampling::{Plan, RuleCount};
use crate::trace::export::Changes;
use crate::trace::sampler::Sampler;

pub struct Pushing {
    publisher: Publisher,
    /// As the file has it.
    config: Arc<Config>,
    changes: Option<Changes>,
    sampler: Sampler,
    /// What was applied last.
    before: Option<Pushed>,
    plan: Option<Plan>,
    thresholds: Vec<plan::Pushed>,
    reported: Instant,
}

impl Road for Pushing {
    fn apply(&mut self, snapshot: Snapshot) {
        let Snapshot { pushed, plan, thresholds, limits } = snapshot;
        self.sampler.limits(limits);
        let before = self.plan.replace(plan.clone());
        // Thresholds come every few seconds, and policies seldom.
        if before.is_some_and(|before| before.decides_as(&plan)) && self.before == pushed {
            self.sampler.thresholds(thresholds.clone());
            self.thresholds = thresholds;
            return self.publisher.forget();
        }
        let mut config = (*self.config).clone();
        if let Some(pushed) = &pushed {
            config.policy = pushed.policy.clone();
            let gateways = config.listeners.iter_mut().filter(|listener| listener.mode == Mode::Gateway);
            gateways.for_each(|listener| listener.trust = pushed.trust.unwrap_or(listener.trust));
        }
        let told =
            match self.changed(|pushed| (pushed.policy.redaction.clone(), pushed.policy.attributes.clone()), &pushed) {
                true => manner(&config.policy),
                false => Ok(self.publisher.manner()),
            };
        // A key that cannot be read now must not let secrets pass that were hidden before.
        let manner = told.unwrap_or_else(|error| {
            tracing::warn!("what spans tell stays as it was: {error}");
            self.publisher.manner()
        });
        if self.changed(|pushed| pushed.policy.destinations.clone(), &pushed) {
            self.send_to(&config.policy);
        }
        self.before = pushed;
        // First, so that a rule that is new has its threshold from its first request on.
        if self.thresholds != thresholds {
            self.sampler.thresholds(thresholds.clone());
            self.thresholds = thresholds;
        }
        self.publisher.publish(config, manner, &plan);
        self.publisher.forget();
    }

    fn report(&mut self) -> v1::Report {
        let counts = self.sampler.counts();
        let held = |id: &Id, operation: &str| {
            let of_rule = self.thresholds.iter().filter(|held| *held.policy == *id.policy && *held.rule == *id.rule);
            let named = of_rule.clone().find(|held| held.operation == operation);
            named.or_else(|| of_rule.clone().find(|held| held.operation.is_empty())).map(|held| held.threshold.number())
        };
        let rule = |count: &RuleCount| v1::RuleCount {
            policy: count.id.policy.to_string(),
            rule: count.id.rule.to_string(),
            operation: count.operation.clone(),
            seen: count.seen,
            kept: count.kept,
            held: held(&count.id, &count.operation),
        };
        let window = self.reported.elapsed().as_millis();
        self.reported = Instant::now();
        v1::Report {
            window: u32::try_from(window).unwrap_or(u32::MAX),
            rules: counts.rules.iter().map(rule).collect(),
            arrived_kept: counts.arrived_kept,
            arrived_dropped: counts.arrived_dropped,
            unruled: counts.unruled,
            spans: counts.spans,
            guard: counts.guard,
            ..v1::Report::default()
        }
    }

    fn permit(&mut self, capture: &str) {
        self.sampler.permit(capture);
    }

    fn lost(&mut self) {
        self.sampler.revoke();
    }
}

impl Pushing {
    pub fn new(publisher: Publisher, config: Arc<Config>, changes: Option<Changes>, sampler: Sampler) -> Self {
        let reported = Instant::now();
        Self { publisher, config, changes, sampler, before: None, plan: None, thresholds: Vec::new(), reported }
    }

    fn changed<T: PartialEq>(&self, part: impl Fn(&Pushed) -> T, now: &Option<Pushed>) -> bool {
        self.before.as_ref().map(&part) != now.as_ref().map(&part)
    }

    fn send_to(&self, policy: &Policy) {
        let Some(changes) = &self.changes else { return };
        match destinations(policy) {
            Ok(destinations) => changes.tell(destinations),
            Err(error) => tracing::warn!("spans go where they went before: {error}"),
        }
    }
}

/// How the control plane is reached, and who asks it.
pub fn settings(config: &Config, control_plane: &ControlPlane) -> Result<Settings, StartError> {
    let node = &config.node;
    let or_owner = |workload: &str| if workload.is_empty() { node.owner_name.clone() } else { workload.to_owned() };
    let node = v1::Node {
        service: match node.service.as_str() {
            "" => super::resource::service(node),
            service => service.to_owned(),
        },
        namespace: node.namespace.clone(),
        pod: node.pod.clone(),
        service_account: node.service_account.clone(),
        cluster: node.cluster.clone(),
        workload: or_owner(&control_plane.workload),
        role: config.role.name().into(),
    };
    let addresses = super::tls::control_plane(control_plane)?;
    Ok(Settings {
        addresses,
        token_file: control_plane.token_file.clone(),
        node,
        state: control_plane.state.clone(),
        environment: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
    })
}
