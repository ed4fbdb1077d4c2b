//! The operations of all rules, by number: reports are kept by number. A rule has so many and the mesh so many in all;
//! what is beyond is `other`. One that nobody calls is forgotten after a while, sooner if there is no room.

use std::sync::Arc;
use std::time::Duration;

use super::operation::{Operation, Rate};
use super::rule::Planned;

#[derive(Debug)]
pub struct Operations {
    slots: Vec<Option<Slot>>,
    /// Numbers that nothing refers to.
    free: Vec<u32>,
    nameless: Arc<str>,
    other: Arc<str>,
}

#[derive(Debug)]
struct Slot {
    /// The place of the rule that it belongs to.
    rule: usize,
    operation: Operation,
}

impl Default for Operations {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), nameless: "".into(), other: OTHER.into() }
    }
}

impl Operations {
    /// The number of the rule's operation of this name; made if there is room for it.
    pub fn number(&mut self, now: Duration, place: usize, rule: &mut Planned, name: &str) -> u32 {
        let known = if rule.is_adaptive() { name } else { "" };
        if let Some(&number) = rule.operations.get(known) {
            return number;
        }
        let full = rule.operations.len() >= PER_RULE || self.len() >= IN_ALL || name.len() > NAME;
        let name = match name {
            _ if !rule.is_adaptive() => self.nameless.clone(),
            "" => self.other.clone(),
            _ if full => self.other.clone(),
            name => name.into(),
        };
        if let Some(&number) = rule.operations.get(&name) {
            return number;
        }
        let slot = Some(Slot { rule: place, operation: Operation::new(now) });
        let number = self.free.pop().unwrap_or(self.slots.len() as u32);
        match self.slots.get_mut(number as usize) {
            Some(free) => *free = slot,
            None => self.slots.push(slot),
        }
        rule.operations.insert(name, number);
        number
    }

    pub fn get(&self, number: u32) -> Option<&Operation> {
        self.slots.get(number as usize)?.as_ref().map(|slot| &slot.operation)
    }

    pub fn of(&mut self, number: u32) -> Option<&mut Operation> {
        self.slots.get_mut(number as usize)?.as_mut().map(|slot| &mut slot.operation)
    }

    pub fn rule(&self, number: u32) -> Option<usize> {
        self.slots.get(number as usize)?.as_ref().map(|slot| slot.rule)
    }

    /// That are remembered.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// One more than the highest number.
    pub fn numbers(&self) -> usize {
        self.slots.len()
    }

    /// These are all rules there are now; what belongs to none of them is forgotten. The numbers may be given again:
    /// no report may refer to them any more.
    pub fn place(&mut self, rules: &[Planned]) {
        let mut places = vec![None; self.slots.len()];
        for (place, rule) in rules.iter().enumerate() {
            for &number in rule.operations.values() {
                places[number as usize] = Some(place);
            }
        }
        self.free.clear();
        for (number, (slot, place)) in self.slots.iter_mut().zip(places).enumerate() {
            match (slot.as_mut(), place) {
                (Some(slot), Some(place)) => slot.rule = place,
                _ => {
                    *slot = None;
                    self.free.push(number as u32);
                }
            }
        }
    }

    /// Forgets what was not called for long. Whatever a report refers to has a rate in `rates`.
    pub fn tidy(&mut self, now: Duration, rules: &mut [Planned], rates: &[Rate]) {
        let crowded = self.len() >= IN_ALL;
        for rule in rules {
            let full = crowded || rule.operations.len() >= PER_RULE;
            let patience = if full { PATIENCE_WHEN_FULL } else { PATIENCE };
            rule.operations.retain(|_, &mut number| {
                let used = rates.get(number as usize).is_none_or(|rate| rate.count > 0.0);
                let slot = &mut self.slots[number as usize];
                let recent = slot.as_ref().is_some_and(|slot| now.saturating_sub(slot.operation.called()) < patience);
                if !used && !recent {
                    *slot = None;
                    self.free.push(number);
                }
                used || recent
            });
        }
    }

    pub fn nameless(&self) -> &Arc<str> {
        &self.nameless
    }
}

/// As proxies have it, which bound what they report in the same way.
const OTHER: &str = "other";
const PER_RULE: usize = 256;
/// A quarter of a kilobyte each, and as much in what is sent.
const IN_ALL: usize = 65_536;
/// In bytes, of an operation's name.
const NAME: usize = 256;
const PATIENCE: Duration = Duration::from_secs(60 * 60);
const PATIENCE_WHEN_FULL: Duration = Duration::from_secs(10 * 60);
