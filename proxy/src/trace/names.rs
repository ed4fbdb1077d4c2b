//! How many names the spans of each service may have, whichever worker made them. A worker asks once for each name that is
//! new to it and remembers the answer (`rules::template`).

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use crate::rules::template::TEMPLATES;

/// Clones share. Services are those that the configuration names.
#[derive(Clone, Debug, Default)]
pub struct Names(Arc<Mutex<Services>>);

type Services = HashMap<Box<str>, HashSet<Box<str>>>;

impl Names {
    /// Whether a service has the name, or may have one more.
    pub fn admit(&self, service: &str, name: &str) -> bool {
        let mut services = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !services.contains_key(service) {
            services.insert(service.into(), HashSet::new());
        }
        let Some(names) = services.get_mut(service) else { return false };
        names.contains(name) || names.len() < TEMPLATES && names.insert(name.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_has_so_many_whoever_asks() {
        let (one, other) = (Names::default(), Names::default());
        let shared = one.clone();
        for number in 0..TEMPLATES {
            let worker = if number % 2 == 0 { &one } else { &shared };
            assert!(worker.admit("cart", &format!("/{number}")));
        }
        assert!(one.admit("cart", "/1") && shared.admit("cart", "/0"), "what has a name keeps it");
        assert!(!one.admit("cart", "/more") && !shared.admit("cart", "/more"));
        assert!(one.admit("shop", "/more") && other.admit("cart", "/more"));
    }
}
