//! Holds the present picture: what the source read, what proxies report and what time it is go in; whenever something comes
//! of it that concerns a proxy, a new picture goes out. One task, so that nothing here is shared.

use std::sync::Arc;
use std::time::Duration;

use spanmesh_crds::{Action, Budgets, Sampling, TargetKind};
use spanmesh_proto::v1;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::adaptive::{self, Planner, Report};
use crate::capturing::{Capturing, Shown};
use crate::cluster::Cluster;
use crate::picture::Picture;
use crate::push::Told;
use crate::source::Reading;

pub struct Keeper {
    pub readings: watch::Receiver<Reading>,
    pub told: mpsc::Receiver<Told>,
    pub pictures: watch::Sender<Option<Arc<Picture>>>,
    pub captures: watch::Sender<Vec<Shown>>,
    pub interval: Duration,
}

/// Runs until its source ends.
pub async fn run(keeper: Keeper) {
    let Keeper { mut readings, mut told, pictures, captures, interval } = keeper;
    let start = Instant::now();
    let mut planner = Planner::new(Duration::ZERO, interval);
    let mut capturing = Capturing::default();
    let mut version = 0;
    loop {
        let anew = tokio::select! {
            changed = readings.changed() => match changed {
                Ok(()) => {
                    let cluster = readings.borrow_and_update().cluster.clone();
                    planner.set(rules(&cluster), budgets(&cluster));
                    capturing.set(start.elapsed(), &cluster.captures);
                    true
                }
                Err(_) => return,
            },
            Some(told) = told.recv() => {
                match told {
                    Told::Report { steady, report } => heed(&mut planner, start.elapsed(), steady, &report),
                    Told::Connected { proxy, seat, permits } => capturing.connected(proxy, seat, permits),
                    Told::Gone { proxy } => capturing.gone(proxy),
                    Told::Captured { proxy, captured } => capturing.captured(proxy, &captured),
                }
                false
            }
            () = tokio::time::sleep_until(start + planner.wake().min(capturing.wake())) => planner.tick(start.elapsed()),
        };
        let ended = capturing.poll(start.elapsed());
        if let Some(shown) = capturing.shown() {
            captures.send_replace(shown);
        }
        if !anew && !ended {
            continue;
        }
        version += 1;
        let mut cluster = readings.borrow().cluster.clone();
        if cluster.captures.iter().any(|capture| !capturing.runs(&capture.meta)) {
            Arc::make_mut(&mut cluster).captures.retain(|capture| capturing.runs(&capture.meta));
        }
        let thresholds = planner.thresholds().map(|thresholds| Arc::new(wire(thresholds, planner.limits())));
        tracing::debug!(version, "a new picture");
        pictures.send_replace(Some(Arc::new(Picture::new(version, cluster, thresholds))));
    }
}

fn heed(planner: &mut Planner, now: Duration, steady: u64, report: &v1::Report) {
    let counts: Vec<_> = report
        .rules
        .iter()
        .map(|count| adaptive::Count {
            policy: &count.policy,
            rule: &count.rule,
            operation: &count.operation,
            seen: count.seen,
            kept: count.kept,
            held: count.held,
        })
        .collect();
    let window = Duration::from_millis(report.window.into());
    planner.report(now, steady, &Report { window, counts: &counts, spans: report.spans, unruled: report.unruled });
}

fn wire(thresholds: &[adaptive::Threshold], limits: &[adaptive::Limit]) -> v1::Thresholds {
    let one = |threshold: &adaptive::Threshold| v1::Threshold {
        policy: threshold.policy.to_string(),
        rule: threshold.rule.to_string(),
        operation: threshold.operation.to_string(),
        threshold: threshold.threshold,
    };
    let limit = |limit: &adaptive::Limit| v1::Limit {
        policy: limit.policy.to_string(),
        rule: limit.rule.to_string(),
        traces_per_second: limit.traces_per_second,
        proxies: limit.proxies,
    };
    v1::Thresholds { thresholds: thresholds.iter().map(one).collect(), limits: limits.iter().map(limit).collect() }
}

/// Those whose thresholds are made here.
fn rules(cluster: &Cluster) -> Vec<adaptive::Rule> {
    let mesh = cluster.mesh.iter().flat_map(|mesh| {
        let blocks = [mesh.spec.defaults.as_ref(), mesh.spec.overrides.as_ref()];
        blocks.into_iter().flatten().map(|block| (mesh.meta.full_name(), None, block))
    });
    let policies = cluster.sampling.iter().flat_map(|policy| {
        let services: Vec<_> =
            policy.spec.target_refs.iter().filter(|target| target.kind == TargetKind::Service).collect();
        // The budget of a service is for rules that are for it alone.
        let service = match (services.as_slice(), policy.spec.target_refs.len()) {
            ([service], 1) => Some(Arc::from(format!("{}.{}", service.name, policy.meta.namespace))),
            _ => None,
        };
        let blocks = [policy.spec.defaults.as_ref(), policy.spec.overrides.as_ref()];
        blocks.into_iter().flatten().map(move |block| (policy.meta.full_name(), service.clone(), block))
    });
    mesh.chain(policies).flat_map(|(policy, service, block)| measured(policy.into(), service, block)).collect()
}

fn measured(policy: Arc<str>, service: Option<Arc<str>>, block: &Sampling) -> Vec<adaptive::Rule> {
    let rules = block.head.iter().flat_map(|head| &head.rules);
    let kind = |action: &Action| match (&action.adaptive, &action.rate_limit) {
        (Some(adaptive), _) => Some(adaptive::Kind::Adaptive {
            spans_per_second: adaptive.spans_per_second.into(),
            min_traces_per_minute: adaptive.min_traces_per_minute.into(),
            min_probability: adaptive.min_probability.parse().unwrap_or_default(),
        }),
        (None, Some(limit)) if !limit.per_proxy => Some(adaptive::Kind::RateLimit {
            traces_per_second: limit.traces_per_second.into(),
            burst: limit.burst.unwrap_or(limit.traces_per_second).into(),
        }),
        _ => None,
    };
    let rule = |rule: &spanmesh_crds::HeadRule| {
        let kind = kind(&rule.action)?;
        Some(adaptive::Rule { policy: policy.clone(), rule: rule.name.as_str().into(), service: service.clone(), kind })
    };
    rules.filter_map(rule).collect()
}

fn budgets(cluster: &Cluster) -> adaptive::Budgets {
    let written: Option<&Budgets> = cluster.mesh.as_ref().and_then(|mesh| mesh.spec.budgets.as_ref());
    adaptive::Budgets {
        mesh: written.and_then(|budgets| budgets.spans_per_second).map(f64::from),
        services: written
            .iter()
            .flat_map(|budgets| &budgets.services)
            .map(|budget| (format!("{}.{}", budget.service, budget.namespace), budget.spans_per_second.into()))
            .collect(),
    }
}
