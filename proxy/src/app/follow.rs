//! Follows the configuration's file, and puts a changed policy into use without a restart. A file that is wrong is refused
//! by name and line, and the policy before goes on. What needs sockets, threads or connections waits for the next start.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::config::{Config, Problem, Source};
use crate::rules::sampling::Plan;
use crate::telemetry::metrics::{Registry, family};
use crate::trace::manner::Manner;
use crate::trace::sampler::Sampler;
use crate::worker::policy::Policies;

/// Sends policies to the workers, and lets old ones go in this thread.
pub struct Publisher {
    sender: watch::Sender<Arc<Policies>>,
    sampler: Sampler,
    /// Old ones that requests may still hold.
    retired: Vec<Arc<Policies>>,
}

impl Publisher {
    pub fn new(config: Arc<Config>, manner: Arc<Manner>, sampler: Sampler) -> Self {
        let plan = Plan::from(&config.policy.sampling);
        let policies = policies(config, manner, &plan, &sampler);
        Self { sender: watch::Sender::new(Arc::new(policies)), sampler, retired: Vec::new() }
    }

    pub fn manner(&self) -> Arc<Manner> {
        self.sender.borrow().manner()
    }

    pub fn subscribe(&self) -> watch::Receiver<Arc<Policies>> {
        self.sender.subscribe()
    }

    pub fn publish(&mut self, config: Config, manner: Arc<Manner>, plan: &Plan) {
        let policies = policies(Arc::new(config), manner, plan, &self.sampler);
        let old = self.sender.send_replace(Arc::new(policies));
        self.retired.push(old);
    }

    pub fn forget(&mut self) {
        self.retired.retain(|policies| !policies.is_forgotten());
        // Requests that never end hold the oldest. Then a worker frees them, which costs it a moment.
        let more = self.retired.len().saturating_sub(RETIRED);
        self.retired.drain(..more);
    }
}

/// A rule that cannot be used was refused when it was read.
fn policies(config: Arc<Config>, manner: Arc<Manner>, plan: &Plan, sampler: &Sampler) -> Policies {
    let (engine, refused) = sampler.engine(plan);
    for refused in refused {
        tracing::warn!("the sampling rule {} is left out: {}", refused.rule, refused.reason);
    }
    Policies::with(config, manner, engine)
}

/// Runs until dropped. Without a file it only keeps the workers' channel open.
pub async fn follow(mut publisher: Publisher, source: Option<Source>, registry: Registry) {
    let Some(source) = source else { return std::future::pending().await };
    let mut looks = Looks::default();
    loop {
        tokio::time::sleep(LOOK).await;
        publisher.forget();
        let reader = source.clone();
        // It fails only while the runtime shuts down.
        let Ok(read) = tokio::task::spawn_blocking(move || reader.read()).await else { return };
        let Some(contents) = looks.settled(read) else { continue };
        let running = publisher.sender.borrow().clone();
        let file = source.file().display();
        let outcome = match contents.and_then(|text| source.parse(&text)) {
            Ok(newer) => {
                let adopted = running.config.adopt(&newer);
                if !adopted.left.is_empty() {
                    let left = adopted.left.join(", ");
                    tracing::warn!("{file}: {left} changed; that holds from the next start on");
                }
                if !adopted.changed {
                    continue;
                }
                let plan = Plan::from(&adopted.config.policy.sampling);
                publisher.publish(adopted.config, running.manner(), &plan);
                tracing::info!("{file}: the policy was replaced");
                "replaced"
            }
            Err(problems) => {
                for problem in problems {
                    tracing::warn!("the changed configuration is refused, the policy before goes on: {problem}");
                }
                "refused"
            }
        };
        registry.shared().counter(family::POLICY_RELOADS, &[outcome]).add(1);
    }
}

type Contents = Result<String, Vec<Problem>>;

/// What the file held at the latest look, and what was acted on. Whoever writes it may be in the middle of that, so what
/// is new counts when it is the same a look later.
#[derive(Default)]
struct Looks {
    latest: Option<Contents>,
    acted: bool,
}

impl Looks {
    fn settled(&mut self, contents: Contents) -> Option<Contents> {
        if self.latest.as_ref() != Some(&contents) {
            // The first look shows what is running already, unless it changed in between: that is seen by comparing.
            self.acted = false;
            self.latest = Some(contents);
            return None;
        }
        if std::mem::replace(&mut self.acted, true) { None } else { Some(contents) }
    }
}

/// Twice this is how long an edit takes to hold.
const LOOK: Duration = Duration::from_millis(250);
const RETIRED: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Contents {
        Ok(text.to_owned())
    }

    #[test]
    fn contents_count_once_and_when_they_have_come_to_rest() {
        let mut looks = Looks::default();
        let seen: Vec<_> =
            ["a", "a", "a", "b", "bc", "bc", "bc", "a", "bc", "bc"].map(|now| looks.settled(text(now))).into();
        let acted: Vec<_> = seen.into_iter().map(|seen| seen.map(Result::unwrap)).collect();
        let at = |place: usize| acted[place].as_deref();
        assert_eq!([at(1), at(5), at(9)], [Some("a"), Some("bc"), Some("bc")]);
        assert_eq!(acted.iter().flatten().count(), 3);
    }

    #[test]
    fn an_old_policy_goes_when_the_last_request_has_let_go_of_it() {
        let yaml = "version: 1\nrole: standalone\nlisteners:\n- {name: in, mode: outbound, address: '127.0.0.1:1'}\n";
        let config = crate::config::parse(yaml, "test.yaml", std::iter::empty()).unwrap();
        let mut publisher = Publisher::new(Arc::new(config.clone()), Arc::default(), Sampler::default());
        let held = publisher.sender.borrow().held("in");
        publisher.publish(config.clone(), Arc::default(), &Plan::default());
        publisher.forget();
        assert_eq!(publisher.retired.len(), 1, "a request holds it");
        drop(held);
        publisher.forget();
        assert_eq!(publisher.retired.len(), 0);
    }
}
