//! Whose pod is whose, as far as the source knows: which services select it and which workload made it. What a pod's proxy
//! says of itself counts only where nothing is known here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::picture::Seat;

/// Names and values.
pub type Labels = BTreeMap<String, String>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workloads {
    pods: HashMap<(String, String), Known>,
    services: HashSet<(String, String)>,
    is_known: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    workload: String,
    /// Shared by pods that are alike.
    services: Arc<[String]>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    pub labels: Labels,
    /// Empty for one that nothing has made.
    pub workload: String,
}

impl Workloads {
    /// Both by namespace and name. Of services: what they select, if anything.
    pub fn new<'a>(
        pods: impl Iterator<Item = (&'a str, &'a str, &'a Pod)>,
        services: impl Iterator<Item = (&'a str, &'a str, Option<&'a Labels>)>,
    ) -> Self {
        let mut names = HashSet::new();
        let mut selectors: HashMap<&str, Vec<(&str, &Labels)>> = HashMap::new();
        for (namespace, name, selector) in services {
            names.insert((namespace.to_owned(), name.to_owned()));
            if let Some(selector) = selector.filter(|selector| !selector.is_empty()) {
                selectors.entry(namespace).or_default().push((name, selector));
            }
        }
        let mut alike: HashSet<Arc<[String]>> = HashSet::new();
        let mut known = HashMap::new();
        for (namespace, name, pod) in pods {
            let all = selectors.get(namespace).map(Vec::as_slice).unwrap_or_default();
            let selects = |selector: &Labels| selector.iter().all(|(name, value)| pod.labels.get(name) == Some(value));
            let mut services: Vec<String> =
                all.iter().filter(|(_, selector)| selects(selector)).map(|(name, _)| (*name).to_owned()).collect();
            services.sort();
            let services: Arc<[String]> = services.into();
            let services = alike.get(&services).cloned().unwrap_or_else(|| {
                alike.insert(services.clone());
                services
            });
            known.insert((namespace.to_owned(), name.to_owned()), Known { workload: pod.workload.clone(), services });
        }
        Self { pods: known, services: names, is_known: true }
    }

    /// The seat of a proxy that says that it is in this pod.
    pub fn seat(&self, said: Seat, pod: &str) -> Seat {
        match self.pods.get(&(said.namespace.clone(), pod.to_owned())) {
            Some(Known { workload, services }) => {
                Seat { workload: workload.clone(), selected_by: Some(services.clone()), ..said }
            }
            None => said,
        }
    }

    /// That there is no such service. Nothing is said where none is known.
    pub fn lacks(&self, namespace: &str, service: &str) -> bool {
        self.is_known && !self.services.contains(&(namespace.to_owned(), service.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(list: &[(&str, &str)]) -> Labels {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn seat(workloads: &Workloads, pod: &str) -> (String, Option<Vec<String>>) {
        let said = Seat { namespace: "shop".into(), workload: "said".into(), ..Seat::default() };
        let seat = workloads.seat(said, pod);
        (seat.workload, seat.selected_by.map(|services| services.to_vec()))
    }

    /// <https://kubernetes.io/docs/concepts/services-networking/service/#services-without-selectors>: they select nothing.
    #[test]
    fn a_pod_is_its_workloads_and_of_the_services_that_select_it() {
        let cart = Pod { labels: labels(&[("app", "cart"), ("tier", "back")]), workload: "cart".into() };
        let lone = Pod { labels: labels(&[]), workload: String::new() };
        let pods = [("shop", "cart-1", &cart), ("shop", "lone", &lone), ("other", "cart-1", &cart)];
        let (by_app, by_both) = (labels(&[("app", "cart")]), labels(&[("app", "cart"), ("tier", "front")]));
        let tier = labels(&[("tier", "back")]);
        let services = [
            ("shop", "tier", Some(&tier)),
            ("shop", "cart", Some(&by_app)),
            ("shop", "front", Some(&by_both)),
            ("shop", "outside", None),
            ("else", "cart", Some(&by_app)),
        ];
        let workloads = Workloads::new(pods.into_iter(), services.into_iter());
        assert_eq!(seat(&workloads, "cart-1"), ("cart".into(), Some(vec!["cart".into(), "tier".into()])));
        assert_eq!(seat(&workloads, "lone"), (String::new(), Some(Vec::new())));
        assert_eq!(seat(&workloads, "elsewhere"), ("said".into(), None));
        assert!(workloads.lacks("shop", "orders") && !workloads.lacks("shop", "outside"));
        assert!(!Workloads::default().lacks("shop", "orders"));
    }
}
