//! The policy as listeners hold it. The background makes it from the configuration and sends it to each worker; there it
//! is held as `Rc`, and a request keeps the one that it began with. The last `Arc` is dropped in the background.

use std::collections::HashMap;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use crate::config::{Config, Listener, Propagation, Untraced};
#[cfg(any(test, feature = "fuzzing"))]
use crate::rules::sampling::Plan;
use crate::rules::sampling::{Engine, Tally};
use crate::trace::manner::Manner;
use crate::trace::trust;

/// What one listener does with traces.
#[derive(Debug)]
pub struct Policy {
    pub rules: trust::Rules,
    /// Requests that make no spans.
    pub untraced: Vec<Untraced>,
    /// How what is seen is told.
    pub manner: Arc<Manner>,
}

/// A policy at a listener of a worker, and what is counted of it there. Clones share.
#[derive(Clone)]
pub struct Held(Rc<(Arc<Policy>, Arc<Tally>)>);

impl Held {
    pub fn tally(&self) -> &Tally {
        &self.0.1
    }
}

impl Deref for Held {
    type Target = Policy;

    fn deref(&self) -> &Policy {
        &self.0.0
    }
}

/// The policies of all listeners, by their names, and the configuration that they are of.
#[derive(Debug)]
pub struct Policies {
    pub config: Arc<Config>,
    listeners: HashMap<String, Arc<Policy>>,
    /// For listeners that this configuration does not have.
    usual: Arc<Policy>,
}

impl Policies {
    /// Decides on traces as the configuration has it, and nobody follows what it counts.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn new(config: Arc<Config>) -> Self {
        let engine = Engine::new(&Plan::from(&config.policy.sampling));
        Self::with(config, Arc::default(), Arc::new(engine))
    }

    /// Decides on traces by this engine.
    pub fn with(config: Arc<Config>, manner: Arc<Manner>, engine: Arc<Engine>) -> Self {
        let policy = |own: Option<&Propagation>| {
            let propagation = own.unwrap_or(&config.policy.propagation).clone();
            let rules = trust::Rules { propagation, sampling: engine.clone() };
            Arc::new(Policy { rules, untraced: config.policy.untraced.clone(), manner: manner.clone() })
        };
        let of = |listener: &Listener| (listener.name.clone(), policy(listener.propagation.as_ref()));
        Self { listeners: config.listeners.iter().map(of).collect(), usual: policy(None), config }
    }

    /// The policy of a listener, for the worker that asks.
    pub fn held(&self, listener: &str) -> Held {
        let policy = self.listeners.get(listener).unwrap_or(&self.usual).clone();
        let tally = policy.rules.sampling.tally();
        Held(Rc::new((policy, tally)))
    }

    pub fn manner(&self) -> Arc<Manner> {
        self.usual.manner.clone()
    }

    /// Whether nobody else holds any of it.
    pub fn is_forgotten(self: &Arc<Self>) -> bool {
        let mut policies = self.listeners.values().chain([&self.usual]);
        Arc::strong_count(self) == 1 && policies.all(|policy| Arc::strong_count(policy) == 1)
    }
}
