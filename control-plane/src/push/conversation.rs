//! One proxy's stream without the stream: what it was sent, what it has acknowledged, and what it is to be sent next. Pure,
//! so that every order of events can be tried.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use spanmesh_proto::v1;

use crate::picture::{Key, Kind, Wanted};

/// What the control plane knows of what a proxy has.
#[derive(Debug, Default)]
pub struct Conversation {
    /// Digests of what it was sent.
    sent: BTreeMap<Key, u64>,
    /// What it said of resources that it did not take, until it is sent others.
    refused: HashMap<Key, String>,
    kinds: BTreeSet<Kind>,
    services: BTreeSet<String>,
    /// What it told before: held when the stream began.
    held: BTreeMap<Key, u64>,
    nonce: u64,
    waiting: Option<Waiting>,
    /// All up to this version is in force there.
    version: u64,
    greeted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting {
    nonce: u64,
    version: u64,
}

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misstep(pub &'static str);

impl Conversation {
    pub fn new(hello: &v1::Hello) -> Result<Self, Misstep> {
        if hello.held.len() > HELD {
            return Err(Misstep("holds more resources than there can be"));
        }
        let mut conversation = Self {
            kinds: hello.kinds.iter().filter_map(|kind| Kind::parse(kind)).collect(),
            held: hello
                .held
                .iter()
                .filter_map(|held| Some((Key::parse(&held.kind, &held.name)?, held.digest)))
                .collect(),
            ..Self::default()
        };
        conversation.interested(&hello.services)?;
        Ok(conversation)
    }

    /// Services that the proxy calls, besides those that it named before.
    pub fn interested(&mut self, services: &[String]) -> Result<(), Misstep> {
        if services.iter().any(|service| service.len() > NAME || !service.contains('.')) {
            return Err(Misstep("names a service that is not `service.namespace`"));
        }
        let fresh: Vec<_> = services.iter().filter(|service| !self.services.contains(*service)).collect();
        if self.services.len() + fresh.len() > SERVICES {
            return Err(Misstep("calls more services than a proxy may name"));
        }
        self.services.extend(fresh.into_iter().cloned());
        Ok(())
    }

    pub fn services(&self) -> &BTreeSet<String> {
        &self.services
    }

    /// What brings the proxy from what it has to what it is to have; nothing while an answer is awaited, or if it has all
    /// of it.
    pub fn offer(&mut self, wanted: &Wanted, version: u64) -> Option<v1::Push> {
        if self.waiting.is_some() {
            return None;
        }
        let whole = !std::mem::replace(&mut self.greeted, true);
        let before = if whole { std::mem::take(&mut self.held) } else { self.sent.clone() };
        let items = wanted.items.iter().filter(|(key, _)| self.kinds.contains(&key.kind));
        let mut after: BTreeMap<Key, u64> = items.clone().map(|(key, item)| (key.clone(), item.digest)).collect();
        let left = before.iter().filter(|(key, _)| Some(key.kind) == wanted.as_held);
        after.extend(left.map(|(key, digest)| (key.clone(), *digest)));
        let is_same = |key: &Key| before.get(key) == after.get(key);
        let changed: Vec<_> = items.filter(|(key, _)| !is_same(key)).map(|(key, item)| item.wire(key)).collect();
        let removed: Vec<_> = match whole {
            true => Vec::new(),
            false => before.keys().filter(|key| !after.contains_key(key)).map(Key::wire).collect(),
        };
        let held = after.iter().filter(|(key, _)| whole && is_same(key)).map(|(key, digest)| v1::Held {
            kind: key.kind.name().into(),
            name: key.name.clone(),
            digest: *digest,
        });
        let held = held.collect();
        self.refused.retain(|key, _| is_same(key));
        self.sent = after;
        if !whole && changed.is_empty() && removed.is_empty() {
            // It is as far as everybody else without having heard of it.
            self.version = version;
            return None;
        }
        self.nonce += 1;
        self.waiting = Some(Waiting { nonce: self.nonce, version });
        Some(v1::Push { nonce: self.nonce, version, whole, changed, removed, held })
    }

    pub fn acknowledged(&mut self, ack: &v1::Ack) -> Result<(), Misstep> {
        let waiting = self.answered(ack.nonce)?;
        self.version = waiting.version;
        Ok(())
    }

    pub fn refused(&mut self, nack: &v1::Nack) -> Result<(), Misstep> {
        let waiting = self.answered(nack.nonce)?;
        self.version = waiting.version;
        for refusal in nack.refusals.iter().take(REFUSALS) {
            let Some(key) = Key::parse(&refusal.kind, &refusal.name).filter(|key| self.sent.contains_key(key)) else {
                return Err(Misstep("refuses what it was not sent"));
            };
            let reason = refusal.reason.chars().filter(|c| !c.is_control()).take(REASON).collect();
            self.refused.insert(key, reason);
        }
        Ok(())
    }

    /// The version that is in force there, but for what was refused.
    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    pub fn refusals(&self) -> &HashMap<Key, String> {
        &self.refused
    }

    fn answered(&mut self, nonce: u64) -> Result<Waiting, Misstep> {
        match self.waiting.take() {
            Some(waiting) if waiting.nonce == nonce => Ok(waiting),
            _ => Err(Misstep("answers a push that it was not sent")),
        }
    }
}

/// A proxy has its own policy, thresholds, captures, and one resource for each service that it calls.
const HELD: usize = SERVICES + 1_000;
/// More services than this are called by gateways at most.
const SERVICES: usize = 4_096;
/// Of a service: two DNS labels and the point between them.
const NAME: usize = 127;
const REFUSALS: usize = 64;
const REASON: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::Item;

    fn item(text: &str) -> Item {
        Item::new(bytes::Bytes::copy_from_slice(text.as_bytes()))
    }

    fn wanted(items: &[(&str, &str)]) -> Wanted {
        let items = items.iter().map(|(name, text)| (Key::parse("destination", name).unwrap(), item(text)));
        Wanted { items: items.collect(), as_held: None }
    }

    fn hello(held: &[(&str, &str)]) -> v1::Hello {
        let held = held.iter().map(|(name, text)| v1::Held {
            kind: "destination".into(),
            name: (*name).into(),
            digest: item(text).digest,
        });
        v1::Hello { kinds: vec!["destination".into(), "weather".into()], held: held.collect(), ..v1::Hello::default() }
    }

    fn changed(push: &v1::Push) -> Vec<&str> {
        push.changed.iter().map(|resource| resource.name.as_str()).collect()
    }

    fn ack(push: &v1::Push) -> v1::Ack {
        v1::Ack { nonce: push.nonce, version: push.version }
    }

    #[test]
    fn the_first_push_is_all_that_the_proxy_does_not_hold() {
        let mut talk = Conversation::new(&hello(&[("a.x", "1"), ("b.x", "old"), ("gone.x", "1")])).unwrap();
        let push = talk.offer(&wanted(&[("a.x", "1"), ("b.x", "new"), ("c.x", "1")]), 7).unwrap();
        assert!(push.whole);
        assert_eq!(changed(&push), ["b.x", "c.x"]);
        assert_eq!(push.held.iter().map(|held| held.name.as_str()).collect::<Vec<_>>(), ["a.x"]);
        assert!(push.removed.is_empty(), "what is neither held nor changed is gone");
        talk.acknowledged(&ack(&push)).unwrap();
        assert_eq!(talk.version(), 7);
    }

    #[test]
    fn the_first_push_comes_even_if_there_is_nothing_to_say() {
        let mut talk = Conversation::new(&hello(&[])).unwrap();
        let push = talk.offer(&wanted(&[]), 1).unwrap();
        assert!(push.whole && push.changed.is_empty());
    }

    #[test]
    fn later_ones_are_what_has_changed_and_come_one_at_a_time() {
        let mut talk = Conversation::new(&hello(&[])).unwrap();
        let first = talk.offer(&wanted(&[("a.x", "1"), ("b.x", "1")]), 1).unwrap();
        assert_eq!(talk.offer(&wanted(&[("a.x", "2"), ("b.x", "1")]), 2), None, "the first is not answered yet");
        talk.acknowledged(&ack(&first)).unwrap();
        let second = talk.offer(&wanted(&[("a.x", "3")]), 3).unwrap();
        assert!(!second.whole);
        assert_eq!(changed(&second), ["a.x"]);
        assert_eq!(second.removed.iter().map(|name| name.name.as_str()).collect::<Vec<_>>(), ["b.x"]);
        talk.acknowledged(&ack(&second)).unwrap();
        assert_eq!(talk.offer(&wanted(&[("a.x", "3")]), 4), None);
        assert_eq!(talk.version(), 4, "what does not concern it is in force there as well");
    }

    #[test]
    fn what_was_refused_is_remembered_and_not_sent_again() {
        let mut talk = Conversation::new(&hello(&[])).unwrap();
        let push = talk.offer(&wanted(&[("a.x", "bad"), ("b.x", "1")]), 1).unwrap();
        let refusal = v1::Refusal { kind: "destination".into(), name: "a.x".into(), reason: "no\u{1b} good".into() };
        talk.refused(&v1::Nack { nonce: push.nonce, version: 1, refusals: vec![refusal] }).unwrap();
        assert_eq!(talk.refusals().values().collect::<Vec<_>>(), ["no good"]);
        assert_eq!(talk.offer(&wanted(&[("a.x", "bad"), ("b.x", "1")]), 2), None);
        assert_eq!(talk.refusals().len(), 1);
        let mended = talk.offer(&wanted(&[("a.x", "good"), ("b.x", "1")]), 3).unwrap();
        assert_eq!((changed(&mended), talk.refusals().len()), (vec!["a.x"], 0));
    }

    #[test]
    fn missteps_end_the_conversation() {
        let mut talk = Conversation::new(&hello(&[])).unwrap();
        assert!(talk.acknowledged(&v1::Ack { nonce: 1, version: 1 }).is_err(), "nothing was sent");
        let push = talk.offer(&wanted(&[("a.x", "1")]), 1).unwrap();
        assert!(talk.acknowledged(&v1::Ack { nonce: push.nonce + 1, version: 1 }).is_err());
        let many: Vec<String> = (0..=SERVICES).map(|place| format!("s{place}.x")).collect();
        assert!(talk.interested(&many).is_err());
        assert!(talk.interested(&["noname".into()]).is_err());
        assert!(talk.services().is_empty());
    }

    #[test]
    fn a_kind_may_be_left_as_it_is() {
        let mut talk = Conversation::new(&hello(&[("a.x", "1"), ("b.x", "2")])).unwrap();
        let as_held = Wanted { items: Vec::new(), as_held: Some(Kind::Destination) };
        let push = talk.offer(&as_held, 1).unwrap();
        assert_eq!((push.held.len(), push.changed.len()), (2, 0));
        talk.acknowledged(&ack(&push)).unwrap();
        assert_eq!(talk.offer(&as_held, 2), None);
        assert_eq!(talk.offer(&wanted(&[]), 3).unwrap().removed.len(), 2);
    }

    #[test]
    fn a_kind_that_the_proxy_does_not_know_is_not_sent() {
        let mut talk = Conversation::new(&v1::Hello { kinds: vec!["policy".into()], ..v1::Hello::default() }).unwrap();
        assert!(talk.offer(&wanted(&[("a.x", "1")]), 1).unwrap().changed.is_empty());
    }
}
