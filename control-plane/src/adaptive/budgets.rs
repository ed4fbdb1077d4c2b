//! How much of the mesh's budget each rule may have: first the services, and the rules that belong to none, share the
//! mesh's; then the rules of a service share what it has. Each time by water-filling.

use std::collections::BTreeMap;

use super::fill::{Want, level};

/// In spans per second; what has none is bounded by its rules' own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Budgets {
    pub mesh: Option<f64>,
    /// By `name.namespace`.
    pub services: BTreeMap<String, f64>,
}

/// What one rule asks for.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    pub service: Option<&'a str>,
    /// Spans per second that it may have by itself, and those that it would have if it kept all.
    pub budget: f64,
    pub all: f64,
}

impl Budgets {
    /// What each may have, in the order of the claims. Also what it does not use at present: so much of a burst is its.
    pub fn shares(&self, claims: &[Claim<'_>]) -> Vec<f64> {
        let mut groups: BTreeMap<(Option<&str>, usize), Vec<usize>> = BTreeMap::new();
        for (place, claim) in claims.iter().enumerate() {
            let alone = if claim.service.is_none() { place } else { 0 };
            groups.entry((claim.service, alone)).or_default().push(place);
        }
        let most = |service: Option<&str>| {
            let own = service.and_then(|service| self.services.get(service));
            own.copied().unwrap_or(f64::INFINITY).max(0.0)
        };
        let asked = |place: usize| claims.get(place).map_or(0.0, |claim| claim.budget.min(claim.all));
        let wants: Vec<Want> = groups
            .iter()
            .map(|((service, _), members)| {
                let together: f64 = members.iter().map(|&place| asked(place)).sum();
                Want::up_to(together.min(most(*service)))
            })
            .collect();
        let of_mesh = self.mesh.map_or(f64::INFINITY, |mesh| level(&wants, mesh));
        let mut shares: Vec<f64> = claims.iter().map(|claim| claim.budget).collect();
        for ((service, _), members) in &groups {
            let own: Vec<Want> = members.iter().map(|&place| Want::up_to(asked(place))).collect();
            let had = most(*service).min(of_mesh);
            let of_service = level(&own, had);
            let spare = had - own.iter().map(|want| want.high).sum::<f64>();
            for &place in members {
                let share = if of_service.is_finite() { of_service } else { asked(place) + spare };
                if let Some(own) = shares.get_mut(place) {
                    *own = own.min(share);
                }
            }
        }
        shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(service: Option<&str>, budget: f64, all: f64) -> Claim<'_> {
        Claim { service, budget, all }
    }

    fn budgets(mesh: Option<f64>, services: &[(&str, f64)]) -> Budgets {
        Budgets { mesh, services: services.iter().map(|(name, most)| (name.to_string(), *most)).collect() }
    }

    #[test]
    fn without_a_budget_above_each_has_its_own() {
        let claims = [claim(None, 100.0, 5.0), claim(Some("cart.shop"), 50.0, 1e6)];
        assert_eq!(Budgets::default().shares(&claims), [100.0, 50.0]);
    }

    #[test]
    fn the_mesh_is_shared_by_services_and_not_by_their_rules() {
        let claims = [
            claim(Some("a.shop"), 1000.0, 1e6),
            claim(Some("a.shop"), 1000.0, 1e6),
            claim(Some("a.shop"), 1000.0, 10.0),
            claim(Some("b.shop"), 1000.0, 1e6),
            claim(None, 1000.0, 60.0),
        ];
        // 60 for the last, then 270 each; of a's 270 ten are the third's.
        assert_eq!(budgets(Some(600.0), &[]).shares(&claims), [130.0, 130.0, 130.0, 270.0, 270.0]);
    }

    #[test]
    fn a_service_has_no_more_than_its_own_and_the_others_have_the_rest() {
        let claims = [claim(Some("a.shop"), 1000.0, 1e6), claim(Some("b.shop"), 1000.0, 1e6)];
        assert_eq!(budgets(Some(600.0), &[("a.shop", 50.0)]).shares(&claims), [50.0, 550.0]);
        assert_eq!(budgets(None, &[("a.shop", 50.0)]).shares(&claims), [50.0, 1000.0]);
    }
}
