//! What one proxy keeps by a rule of the whole mesh at most, until its next thresholds come: those are planned for the load
//! that was, and a burst must not wait for the plan. Pure; also what a mesh in virtual time is made of.

use std::time::Duration;

use super::plan::Limit;
use super::rate::Rate;

/// How much of a rule's traces are this proxy's as a rule.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cap {
    kept: Rate,
    usual: f64,
}

impl Cap {
    /// Traces in a second: somewhat more than what is usual here, or than an equal part.
    pub fn most(self, limit: &Limit) -> f64 {
        let part = limit.traces_per_second / f64::from(limit.proxies.max(1));
        SLACK * self.usual.max(part).min(limit.traces_per_second)
    }

    /// Something was kept in the last minutes.
    pub fn is_used(self) -> bool {
        self.usual > UNUSED
    }

    /// So many were kept since the last look; `most` could be.
    pub fn look(&mut self, kept: u64, most: f64, since: Duration) {
        self.kept.look(kept, since);
        // What passed before a burst was seen is not usual.
        let now = self.kept.per_second().min(most);
        self.usual += (now - self.usual) * (1.0 - (-since.as_secs_f64() / MEMORY).exp());
    }
}

/// More than chance, and together with what is usual elsewhere less than twice the limit.
const SLACK: f64 = 1.5;
/// Seconds. A load that moves from one proxy to another is let in at this pace; a burst of all of them has its new thresholds
/// before they are at twice the limit.
const MEMORY: f64 = 10.0;
const UNUSED: f64 = 1e-6;

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_millis(100);

    fn limit(proxies: u32) -> Limit {
        Limit { policy: "shop/cart".into(), rule: "rest".into(), traces_per_second: 100.0, proxies }
    }

    #[test]
    fn what_is_usual_is_let_through_and_a_burst_is_not() {
        let mut cap = Cap::default();
        assert_eq!(cap.most(&limit(10)), 15.0, "an equal part and a half");
        assert_eq!(cap.most(&limit(0)), 150.0);
        for _ in 0..600 {
            cap.look(6, cap.most(&limit(10)), LOOK);
        }
        let most = cap.most(&limit(10));
        assert!((85.0..=90.0).contains(&most), "{most} where it was sixty, which is more than its part");
        // Ten times as much for a second before it is held, then all that may pass: four seconds later not yet twice.
        for look in 0..40 {
            cap.look(if look < 5 { 60 } else { 9 }, cap.most(&limit(10)), LOOK);
        }
        let most = cap.most(&limit(10));
        assert!(most < 120.0, "{most}");
    }

    #[test]
    fn no_proxy_has_more_than_all_of_them_and_a_half() {
        let mut cap = Cap::default();
        for _ in 0..6000 {
            cap.look(1000, cap.most(&limit(4)), LOOK);
        }
        assert_eq!(cap.most(&limit(4)), 150.0);
    }
}
