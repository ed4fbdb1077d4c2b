//! What each proxy last counted. The mesh's rates are the sum over the proxies that still report; one that is silent
//! for three of its windows counts no more.

use std::collections::BTreeMap;
use std::time::Duration;

use super::operation::Rate;

#[derive(Debug, Default)]
pub struct Rates {
    proxies: BTreeMap<u64, Latest>,
}

#[derive(Debug)]
struct Latest {
    until: Duration,
    window: f32,
    counts: Vec<Counted>,
}

/// Of one operation on one proxy, per second. Kept small: there may be ten thousand proxies with hundreds of these.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Counted {
    pub operation: u32,
    pub seen: f32,
    pub kept: f32,
}

impl Rates {
    /// False if there are too many proxies for one more.
    pub fn put(&mut self, now: Duration, proxy: u64, window: Duration, counts: Vec<Counted>) -> bool {
        if self.proxies.len() >= PROXIES && !self.proxies.contains_key(&proxy) {
            return false;
        }
        let silent = (3 * window).clamp(SILENT_LEAST, SILENT_MOST);
        self.proxies.insert(proxy, Latest { until: now + silent, window: window.as_secs_f32(), counts });
        true
    }

    pub fn of(&self, proxy: u64) -> &[Counted] {
        self.proxies.get(&proxy).map_or(&[], |latest| &latest.counts)
    }

    pub fn expire(&mut self, now: Duration) {
        self.proxies.retain(|_, latest| latest.until > now);
    }

    pub fn proxies(&self) -> usize {
        self.proxies.len()
    }

    /// By operation: the place in the list is the operation's number.
    pub fn sums(&self, operations: usize) -> Vec<Rate> {
        let mut sums = vec![Rate::default(); operations];
        for latest in self.proxies.values() {
            for counted in &latest.counts {
                if let Some(sum) = sums.get_mut(counted.operation as usize) {
                    sum.seen += f64::from(counted.seen);
                    sum.kept += f64::from(counted.kept);
                    sum.count += f64::from(counted.seen) * f64::from(latest.window);
                }
            }
        }
        sums
    }

    /// On how many proxies each rule decides, given the rule of each operation.
    pub fn spread(&self, rules: usize, rule_of: impl Fn(u32) -> Option<usize>) -> Vec<u32> {
        let mut spread = vec![0; rules];
        let mut last = vec![u64::MAX; rules];
        for (&proxy, latest) in &self.proxies {
            for rule in latest.counts.iter().filter_map(|counted| rule_of(counted.operation)) {
                if last.get(rule).is_some_and(|&last| last != proxy) {
                    last[rule] = proxy;
                    spread[rule] += 1;
                }
            }
        }
        spread
    }

    /// Operations that are not there any more count no more.
    pub fn forget(&mut self, there: impl Fn(u32) -> bool) {
        for latest in self.proxies.values_mut() {
            latest.counts.retain(|counted| there(counted.operation));
        }
    }
}

/// Twice what a control plane is meant to serve.
const PROXIES: usize = 20_000;
/// A proxy that reports in haste is not gone when it stops to.
const SILENT_LEAST: Duration = Duration::from_secs(10);
const SILENT_MOST: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(5);

    fn counted(operation: u32, seen: f32) -> Counted {
        Counted { operation, seen, kept: seen / 2.0 }
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn proxies_add_up_and_a_newer_report_takes_the_place_of_the_older() {
        let mut rates = Rates::default();
        rates.put(secs(0), 1, WINDOW, vec![counted(0, 10.0), counted(1, 1.0)]);
        rates.put(secs(1), 2, WINDOW, vec![counted(1, 3.0)]);
        rates.put(secs(2), 1, WINDOW, vec![counted(1, 5.0), counted(9, 1.0)]);
        let sums = rates.sums(2);
        assert_eq!(sums[0], Rate::default());
        assert_eq!(sums[1], Rate { seen: 8.0, kept: 4.0, count: 40.0 });
        assert_eq!(rates.spread(1, |operation| (operation == 1).then_some(0)), [2]);
    }

    #[test]
    fn a_silent_proxy_counts_for_three_windows() {
        let mut rates = Rates::default();
        rates.put(secs(0), 1, WINDOW, vec![counted(0, 10.0)]);
        rates.put(secs(0), 2, secs(3600), vec![counted(0, 1.0)]);
        rates.expire(secs(14));
        assert_eq!((rates.proxies(), rates.sums(1)[0].seen), (2, 11.0));
        rates.expire(secs(15));
        assert_eq!((rates.proxies(), rates.sums(1)[0].seen), (1, 1.0));
        rates.expire(secs(60));
        assert_eq!(rates.proxies(), 0);
    }

    #[test]
    fn there_is_room_for_so_many_proxies() {
        let mut rates = Rates::default();
        for proxy in 0..PROXIES as u64 {
            assert!(rates.put(secs(0), proxy, WINDOW, Vec::new()));
        }
        assert!(!rates.put(secs(0), u64::MAX, WINDOW, Vec::new()));
        assert!(rates.put(secs(0), 7, WINDOW, Vec::new()));
    }

    #[test]
    fn operations_that_are_gone_are_forgotten() {
        let mut rates = Rates::default();
        rates.put(secs(0), 1, WINDOW, vec![counted(0, 1.0), counted(1, 2.0), counted(2, 4.0)]);
        rates.forget(|operation| operation != 1);
        assert_eq!(rates.of(1), [counted(0, 1.0), counted(2, 4.0)]);
    }
}
