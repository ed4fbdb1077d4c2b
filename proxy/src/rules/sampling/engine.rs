//! A compiled plan. A request asks it without a lock and without allocating; only an operation that is new takes a lock,
//! once. Thresholds that move stand in atomics, which `trace/sampler` writes and a request reads.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use http::header::HeaderMap;
use spanmesh_proto::TraceId;
use tokio::sync::mpsc;

use super::ask::{Request, Service, Test, rpc};
use super::bucket::Bucket;
use super::index::{Index, Mask, RULES, SEED, Same, marked};
use super::keep::{Ended, Keeper, Kept};
use super::plan::{Action, Chain, Id, Plan, Rule};
use super::tally::{Seat, Tally};
use super::threshold::Threshold;
use crate::config::{Mode, ParentDecision};

#[derive(Debug)]
pub struct Engine {
    pub version: u64,
    own: Compiled,
    chains: Vec<(Box<str>, Compiled)>,
    by_name: HashMap<u64, Vec<u16>, BuildHasherDefault<Same>>,
    captures: Vec<Taker>,
    takes: Option<mpsc::Sender<Captured>>,
    pub(super) guard: Option<f64>,
    guarded: AtomicU64,
    pub(super) rows: Vec<Row>,
    thresholds: Box<[AtomicU64]>,
    tallies: Mutex<Vec<Arc<Tally>>>,
    adapts: bool,
    keeps: bool,
}

/// What a head rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub seat: Seat,
    /// `None`: never.
    pub threshold: Option<Threshold>,
}

/// A trace that a capture has kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    pub capture: Arc<str>,
    pub generation: u64,
    pub trace: TraceId,
}

/// A part of a plan that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub policy: Arc<str>,
    pub rule: Arc<str>,
    pub reason: String,
}

/// What lives on when a plan is replaced.
#[derive(Debug, Default)]
pub struct Lasting {
    /// By a capture's name and generation.
    pub(crate) permits: HashMap<(Arc<str>, u64), Arc<AtomicU32>>,
    /// By a keep rule.
    pub(crate) buckets: HashMap<Id, Arc<Bucket>>,
}

/// The seats of one rule.
#[derive(Debug)]
pub(super) struct Row {
    pub first: Seat,
    pub id: Id,
    pub action: Option<Action>,
    pub operations: Option<Arc<Operations>>,
}

/// The operations of an adaptive rule that were seen here, each with a seat behind the rule's own.
#[derive(Debug)]
pub(super) struct Operations {
    first: u32,
    marks: Box<[AtomicU64]>,
    known: AtomicU32,
    pub names: Mutex<Vec<(Seat, String)>>,
}

#[derive(Debug)]
struct Compiled {
    parent: ParentDecision,
    rules: Vec<Judge>,
    index: Index,
    boosts: Vec<Judge>,
    keepers: Vec<Keeper>,
}

#[derive(Debug)]
struct Judge {
    test: Test,
    seat: Seat,
    action: Kind,
}

#[derive(Debug)]
enum Kind {
    Never,
    Fixed(Threshold),
    Moving,
    Adaptive(Arc<Operations>),
}

#[derive(Debug)]
struct Taker {
    test: Test,
    seat: Seat,
    name: Arc<str>,
    generation: u64,
    until: u64,
    sides: Vec<Mode>,
    permits: Arc<AtomicU32>,
}

impl Engine {
    /// One that nobody follows.
    pub fn new(plan: &Plan) -> Self {
        Self::compile(plan, &mut Lasting::default(), None).0
    }

    /// A rule that cannot be used is left out and told.
    pub fn compile(plan: &Plan, lasting: &mut Lasting, takes: Option<mpsc::Sender<Captured>>) -> (Self, Vec<Refused>) {
        let mut builder = Builder { rows: Vec::new(), seats: Seat::FIRST, refused: Vec::new(), lasting };
        let own = builder.chain(&plan.own);
        let mut by_name: HashMap<u64, Vec<u16>, _> = HashMap::default();
        let mut chains = Vec::new();
        for (name, chain) in plan.destinations.iter().take(CHAINS) {
            let place = u16::try_from(chains.len()).unwrap_or(u16::MAX);
            by_name.entry(marked(SEED, name.as_bytes())).or_default().push(place);
            chains.push((name.as_str().into(), builder.chain(chain)));
        }
        let captures = plan.captures.iter().filter_map(|capture| {
            let id = Id::new(&format!("capture:{}", capture.name), "capture", capture.generation);
            let test = builder.test(&id, &capture.match_)?;
            let seat = builder.row(id, None, false).0;
            let key = (capture.name.clone(), capture.generation);
            let fresh = || Arc::default();
            let permits = builder.lasting.permits.entry(key).or_insert_with(fresh).clone();
            Some(Taker {
                test,
                seat,
                name: capture.name.clone(),
                generation: capture.generation,
                until: capture.until,
                sides: capture.sides.clone(),
                permits,
            })
        });
        let captures = captures.collect();
        let Builder { rows, seats, refused, .. } = builder;
        let adapts = rows.iter().any(|row| row.operations.is_some());
        let keeps =
            !own.keepers.is_empty() || chains.iter().any(|(_, chain): &(Box<str>, Compiled)| !chain.keepers.is_empty());
        let engine = Self {
            version: plan.version,
            own,
            chains,
            by_name,
            captures,
            takes,
            guard: plan.guard,
            guarded: AtomicU64::new(0),
            rows,
            thresholds: (0..seats).map(|_| AtomicU64::new(UNSET)).collect(),
            tallies: Mutex::default(),
            adapts,
            keeps,
        };
        (engine, refused)
    }

    pub fn parent(&self) -> ParentDecision {
        self.own.parent
    }

    /// Some rule wants to know of operations.
    pub fn adapts(&self) -> bool {
        self.adapts
    }

    /// Some rule is asked at a request's end.
    pub fn keeps(&self) -> bool {
        self.keeps
    }

    /// Some rule asks where a request goes.
    pub fn has_destinations(&self) -> bool {
        !self.chains.is_empty() || !self.own.index.destined.is_empty()
    }

    /// A capture takes this trace.
    pub fn capture(&self, request: &Request<'_>, headers: &HeaderMap, believed: bool, trace: TraceId) -> Option<Seat> {
        let takes = self.takes.as_ref().filter(|_| !self.captures.is_empty())?;
        self.captures.iter().find_map(|taker| {
            let wanted = request.now < taker.until
                && (taker.sides.is_empty() || taker.sides.contains(&request.side))
                && taker.permits.load(Relaxed) > 0
                && taker.test.holds(request, headers, believed);
            if !wanted {
                return None;
            }
            // Room first: what was taken must be told.
            let room = takes.try_reserve().ok()?;
            taker.permits.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).ok()?;
            room.send(Captured { capture: taker.name.clone(), generation: taker.generation, trace });
            Some(taker.seat)
        })
    }

    /// The chain of where a request goes, for its callers.
    pub fn chain(&self, request: &Request<'_>) -> Option<u16> {
        if self.chains.is_empty() || request.side == Mode::Inbound {
            return None;
        }
        let to = request.destination?;
        let mark = marked(marked(marked(SEED, to.name.as_bytes()), b"."), to.namespace.as_bytes());
        let places = self.by_name.get(&mark)?;
        places.iter().copied().find(|place| {
            let name = self.chains.get(usize::from(*place)).and_then(|(name, _)| Service::parse(name));
            name.is_some_and(|name| name.is(to))
        })
    }

    /// The rule that decides where a trace begins. A caller's own rules for a destination come before the destination's, and
    /// those before the caller's other rules.
    pub fn head(
        &self,
        request: &Request<'_>,
        headers: &HeaderMap,
        believed: bool,
        chain: Option<u16>,
    ) -> Option<Choice> {
        let own = &self.own;
        let all = own.index.all();
        let Some((_, theirs)) = self.at(chain) else {
            return self.first(own, all, request, headers, believed);
        };
        self.first(own, own.index.destined, request, headers, believed)
            .or_else(|| self.first(theirs, theirs.index.all(), request, headers, believed))
            .or_else(|| self.first(own, all.and(own.index.destined.others()), request, headers, believed))
    }

    /// The boost that keeps most of those that match.
    pub fn boost(
        &self,
        request: &Request<'_>,
        headers: &HeaderMap,
        believed: bool,
        chain: Option<u16>,
    ) -> Option<Choice> {
        let theirs = self.at(chain).into_iter().flat_map(|(_, chain)| &chain.boosts);
        let holding = self.own.boosts.iter().chain(theirs).filter(|judge| judge.test.holds(request, headers, believed));
        let choices = holding.map(|judge| self.choice(judge, request)).filter(|choice| choice.threshold.is_some());
        choices.min_by_key(|choice| choice.threshold)
    }

    /// What traces that begin here must reach besides.
    pub fn guarded(&self) -> Threshold {
        Threshold::new(self.guarded.load(Relaxed)).unwrap_or(Threshold::ALL)
    }

    /// What the end of a request says: the first keep rule that holds and whose limit has room. The threshold is the lowest of
    /// all that hold: what one of them drops another keeps.
    pub fn keep(&self, ended: &Ended, chain: Option<u16>) -> Option<Kept> {
        let theirs = self.at(chain).into_iter().flat_map(|(_, chain)| &chain.keepers);
        let (mut sure, mut by) = (None::<Threshold>, None);
        for keeper in self.own.keepers.iter().chain(theirs) {
            let Some(trigger) = keeper.fires(ended) else { continue };
            sure = [sure, keeper.sure(ended.now)].into_iter().flatten().min();
            if by.is_none() && keeper.takes(ended) {
                by = Some((keeper.seat(), trigger));
            }
        }
        let (seat, trigger) = by?;
        let threshold = sure.filter(|threshold| threshold.keeps(ended.randomness));
        Some(Kept { seat, trigger, threshold })
    }

    /// For one listener of one worker.
    pub fn tally(&self) -> Arc<Tally> {
        let tally = Arc::new(Tally::new(self.thresholds.len()));
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner).push(tally.clone());
        tally
    }

    /// Whose seat it is. `None` where no rule decided.
    pub fn id(&self, seat: Seat) -> Option<&Id> {
        let behind = self.rows.partition_point(|row| row.first <= seat);
        self.rows.get(behind.checked_sub(1)?).map(|row| &row.id)
    }

    pub(crate) fn count(&self, seat: Seat) -> (u64, u64) {
        let tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        tallies.iter().map(|tally| tally.at(seat)).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    pub(crate) fn spans(&self) -> u64 {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|tally| tally.made()).sum()
    }

    /// Knows the operations of the same rules of a plan before, as far as they are wanted: each has its threshold from the
    /// start.
    pub(super) fn take_operations(&self, before: &Engine, wanted: impl Fn(&Id, &str) -> bool) {
        for row in &self.rows {
            let Some(operations) = &row.operations else { continue };
            let same = before.rows.iter().find(|other| other.id.is_same_rule(&row.id) && other.operations.is_some());
            if let Some(others) = same.and_then(|other| other.operations.as_ref()) {
                operations.take(others, |name| wanted(&row.id, name));
            }
        }
    }

    pub(crate) fn set(&self, seat: Seat, threshold: Threshold) {
        if let Some(cell) = self.thresholds.get(seat.0 as usize) {
            cell.store(threshold.number(), Relaxed);
        }
    }

    pub(crate) fn set_guard(&self, threshold: Threshold) {
        self.guarded.store(threshold.number(), Relaxed);
    }

    fn at(&self, chain: Option<u16>) -> Option<&(Box<str>, Compiled)> {
        chain.and_then(|place| self.chains.get(usize::from(place)))
    }

    fn first(
        &self,
        chain: &Compiled,
        asked: Mask,
        request: &Request<'_>,
        headers: &HeaderMap,
        believed: bool,
    ) -> Option<Choice> {
        if asked.is_empty() {
            return None;
        }
        let judge = |place: usize| chain.rules.get(place);
        let holds = |place| judge(place).is_some_and(|judge| judge.test.holds(request, headers, believed));
        let place = chain.index.first(request, headers, asked, holds)?;
        judge(place).map(|judge| self.choice(judge, request))
    }

    fn choice(&self, judge: &Judge, request: &Request<'_>) -> Choice {
        let at = |seat: Seat| self.thresholds.get(seat.0 as usize).and_then(|cell| Threshold::new(cell.load(Relaxed)));
        // An operation that is new goes by what holds for all that are not named.
        let moving = |seat: Seat| at(seat).or_else(|| at(judge.seat)).or(Some(Threshold::ALL));
        match &judge.action {
            Kind::Never => Choice { seat: judge.seat, threshold: None },
            Kind::Fixed(threshold) => Choice { seat: judge.seat, threshold: Some(*threshold) },
            Kind::Moving => Choice { seat: judge.seat, threshold: moving(judge.seat) },
            Kind::Adaptive(operations) => {
                let seat = operations.seat(request, judge.seat);
                Choice { seat, threshold: moving(seat) }
            }
        }
    }
}

impl Operations {
    /// Before anybody asks: those of another that are wanted. Each is put where it will be looked for.
    fn take(&self, others: &Operations, wanted: impl Fn(&str) -> bool) {
        let known = others.names.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        for (seat, name) in known.into_iter().filter(|(_, name)| wanted(name)) {
            let place = seat.0.saturating_sub(others.first) as usize;
            let Some(mark) = others.marks.get(place).map(|cell| cell.load(Relaxed)) else { continue };
            let length = self.marks.len();
            let places = (0..length).map(|step| (mark as usize + step) % length);
            let mut cells = places.filter_map(|place| Some((place, self.marks.get(place)?)));
            if let Some((place, cell)) = cells.find(|(_, cell)| cell.load(Relaxed) == 0) {
                cell.store(mark, Relaxed);
                self.known.fetch_add(1, Relaxed);
                names.push((Seat(self.first + u32::try_from(place).unwrap_or(0)), name));
            }
        }
    }

    /// The seat of a request's operation; the rule's own for those that have no name or no room.
    fn seat(&self, request: &Request<'_>, other: Seat) -> Seat {
        let method = request.method.map_or("", |method| method.as_str());
        let (before, name) = match (request.route, request.template) {
            (Some(route), _) => ("", route),
            (None, Some(called)) if rpc(request).is_some() => ("", called),
            (None, Some(template)) => (method, template),
            (None, None) => return other,
        };
        let mark = marked(marked(marked(SEED, before.as_bytes()), b" "), name.as_bytes()).max(1);
        let length = self.marks.len();
        let start = mark as usize % length.max(1);
        for step in 0..length {
            let place = (start + step) % length;
            let Some(cell) = self.marks.get(place) else { return other };
            let seat = Seat(self.first + u32::try_from(place).unwrap_or(0));
            match cell.load(Relaxed) {
                known if known == mark => return seat,
                0 => {}
                _ => continue,
            }
            if self.known.fetch_update(Relaxed, Relaxed, |known| (known < OPERATIONS).then_some(known + 1)).is_err() {
                return other;
            }
            return match cell.compare_exchange(0, mark, Relaxed, Relaxed) {
                Ok(_) => {
                    let name = if before.is_empty() { name.to_owned() } else { format!("{before} {name}") };
                    self.names.lock().unwrap_or_else(PoisonError::into_inner).push((seat, name));
                    seat
                }
                // Another worker was first; the next request of this operation finds its place.
                Err(_) => {
                    self.known.fetch_sub(1, Relaxed);
                    other
                }
            };
        }
        other
    }
}

struct Builder<'a> {
    rows: Vec<Row>,
    seats: u32,
    refused: Vec<Refused>,
    lasting: &'a mut Lasting,
}

impl Builder<'_> {
    fn chain(&mut self, chain: &Chain) -> Compiled {
        let rules: Vec<Judge> = chain.rules.iter().take(RULES).filter_map(|rule| self.judge(rule)).collect();
        for rule in chain.rules.iter().skip(RULES) {
            self.refuse(&rule.id, format!("is behind {RULES} others"));
        }
        let keepers = chain.keeps.iter().map(|keep| {
            let bucket = self.lasting.buckets.entry(keep.id.clone()).or_default().clone();
            let seat = self.row(keep.id.clone(), None, false).0;
            Keeper::new(keep, seat, bucket)
        });
        let keepers = keepers.collect();
        Compiled {
            parent: chain.parent,
            index: Index::new(rules.iter().map(|judge| &judge.test)),
            boosts: chain.boosts.iter().take(RULES).filter_map(|rule| self.judge(rule)).collect(),
            rules,
            keepers,
        }
    }

    fn judge(&mut self, rule: &Rule) -> Option<Judge> {
        let test = self.test(&rule.id, &rule.match_)?;
        let adaptive = matches!(rule.action, Action::Adaptive(_));
        let (seat, operations) = self.row(rule.id.clone(), Some(rule.action), adaptive);
        let action = match (rule.action, operations) {
            (Action::Never, _) => Kind::Never,
            (Action::Always, _) => Kind::Fixed(Threshold::ALL),
            (Action::Threshold(threshold), _) => Kind::Fixed(threshold),
            (Action::RateLimit(_), _) | (Action::Adaptive(_), None) => Kind::Moving,
            (Action::Adaptive(_), Some(operations)) => Kind::Adaptive(operations),
        };
        Some(Judge { test, seat, action })
    }

    fn test(&mut self, id: &Id, written: &crate::config::Match) -> Option<Test> {
        Test::compile(written).map_err(|error| self.refuse(id, error.to_string())).ok()
    }

    fn refuse(&mut self, id: &Id, reason: String) {
        self.refused.push(Refused { policy: id.policy.clone(), rule: id.rule.clone(), reason });
    }

    fn row(&mut self, id: Id, action: Option<Action>, adaptive: bool) -> (Seat, Option<Arc<Operations>>) {
        let first = Seat(self.seats);
        self.seats += 1;
        let operations = adaptive.then(|| {
            let operations = Operations {
                first: self.seats,
                marks: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
                known: AtomicU32::new(0),
                names: Mutex::default(),
            };
            self.seats += PLACES;
            Arc::new(operations)
        });
        self.rows.push(Row { first, id, action, operations: operations.clone() });
        (first, operations)
    }
}

/// Services that a proxy calls.
const CHAINS: usize = 4096;
/// Operations of a rule that have a seat of their own, and places to find them in.
const OPERATIONS: u32 = 256;
const PLACES: u32 = 512;
/// No threshold: more than 56 bits.
const UNSET: u64 = u64::MAX;
