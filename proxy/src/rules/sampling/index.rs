//! Which rules of a chain may match a request at all, told by a few cheap marks of it, so that a hundred rules cost
//! hardly more than one. What is left is asked in order.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use http::header::{HeaderMap, HeaderName};
use http::method::Method;

use super::super::path::{PathPattern, Segment};
use super::ask::{Request, Test, members, rpc};
use crate::config::Party;
use crate::rules::matcher::{HostPattern, host_of};

/// A bit for each rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mask([u64; 4]);

/// A chain has at most so many rules.
pub const RULES: usize = 256;

#[derive(Debug, Default)]
pub struct Index {
    all: Mask,
    methods: [Mask; KNOWN + 1],
    segments: Marks,
    /// Of each rule the questions that it asks, a bit for each.
    asks: Vec<u64>,
    hosts: Marks,
    routes: Marks,
    services: Marks,
    sources: Marks,
    destinations: Marks,
    baggage: Marks,
    headers: Vec<(HeaderName, Mask, Marks)>,
    /// Rules that ask for a destination.
    pub destined: Mask,
}

/// Rules by one mark of a request. Marks that collide only cost a look.
#[derive(Debug, Default)]
struct Marks {
    by: HashMap<u64, Mask, BuildHasherDefault<Same>>,
    /// Rules that do not ask for it.
    others: Mask,
}

impl Index {
    pub fn new<'a>(tests: impl Iterator<Item = &'a Test>) -> Self {
        let mut index = Self::default();
        for (place, test) in tests.take(RULES).enumerate() {
            index.all.add(place);
            for (method, mask) in METHODS.iter().map(Some).chain([None]).zip(&mut index.methods) {
                let fits = match (&test.method, method) {
                    (None, _) => true,
                    (Some(asked), Some(method)) => asked == method,
                    (Some(asked), None) => !METHODS.contains(asked),
                };
                if fits {
                    mask.add(place);
                }
            }
            index.segments.add(place, test.path.as_ref().and_then(beginning));
            let host = match &test.host {
                Some(HostPattern::Exact(name)) => Some(mark(name)),
                Some(HostPattern::Below(_)) | None => None,
            };
            let service = test.grpc.as_ref().map(|(service, _)| service.as_deref().map_or(ANY_SERVICE, mark));
            let route = test.route.as_deref().map(mark);
            let source = test.source.as_ref().and_then(party);
            let destination = test.destination.as_ref().and_then(party);
            let member = test.baggage.first().map(|(key, _)| mark(key));
            let mut asks = 0;
            for (question, marks, mark) in [
                (HOST, &mut index.hosts, host),
                (ROUTE, &mut index.routes, route),
                (SERVICE, &mut index.services, service),
                (SOURCE, &mut index.sources, source),
                (DESTINATION, &mut index.destinations, destination),
                (BAGGAGE, &mut index.baggage, member),
            ] {
                marks.add(place, mark);
                asks |= u64::from(mark.is_some()) << question;
            }
            if let Some((name, value)) = test.headers.first() {
                let known = index.headers.iter().position(|(known, ..)| known == name);
                let at = known.unwrap_or(index.headers.len());
                if at == index.headers.len() && at < NAMES {
                    index.headers.push((name.clone(), Mask::default(), Marks::default()));
                }
                if let Some((_, there, values)) = index.headers.get_mut(at) {
                    there.add(place);
                    values.add(place, value.as_ref().map(|value| mark_bytes(value.as_bytes())));
                    asks |= 1 << (HEADERS as usize + at);
                }
            }
            index.asks.push(asks);
            if test.asks_destination() {
                index.destined.add(place);
            }
        }
        index
    }

    /// The first rule that holds, of those that are `asked`. A question is put to the request when the first rule that is left
    /// asks it, and then once: its answer leaves out all rules that it speaks against.
    pub fn first(
        &self,
        request: &Request<'_>,
        headers: &HeaderMap,
        asked: Mask,
        holds: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let method = METHODS.iter().position(|method| Some(method) == request.method).unwrap_or(KNOWN);
        let mut left = self.methods.get(method).copied().unwrap_or_default().and(asked);
        left = left.and(self.paths(request.path));
        let mut answered = 0;
        loop {
            let place = left.first()?;
            let open = self.asks.get(place).map_or(0, |asks| asks & !answered);
            if open != 0 {
                let question = open.trailing_zeros();
                answered |= 1 << question;
                left = left.and(self.answer(question, request, headers));
            } else if holds(place) {
                return Some(place);
            } else {
                left.remove(place);
            }
        }
    }

    /// The rules for paths that begin as this one does, and those for any.
    fn paths(&self, path: &str) -> Mask {
        let mut left = self.segments.others;
        let Some(path) = path.strip_prefix('/').filter(|_| !self.segments.by.is_empty()) else { return left };
        let mut mark = SEED;
        for segment in path.split('/').take(DEPTH) {
            mark = marked(marked(mark, b"/"), segment.as_bytes());
            left = left.or(self.segments.by.get(&mark).copied().unwrap_or_default());
        }
        left
    }

    /// The rules that what a request has does not speak against.
    fn answer(&self, question: u32, request: &Request<'_>, headers: &HeaderMap) -> Mask {
        match question {
            HOST => self.hosts.of(|| Some(mark(host_of(request.host)))),
            ROUTE => self.routes.of(|| request.route.map(mark)),
            SERVICE => {
                let Some((service, _)) = rpc(request) else { return self.services.others };
                self.services.of(|| Some(mark(service))).or(self.services.of(|| Some(ANY_SERVICE)))
            }
            SOURCE => self.sources.of(|| request.source.map(|source| mark(source.name))),
            DESTINATION => self.destinations.of(|| request.destination.map(|destination| mark(destination.name))),
            BAGGAGE => {
                let there = members(headers).map(|(key, _)| self.baggage.of(|| Some(mark_bytes(key))));
                there.fold(self.baggage.others, Mask::or)
            }
            more => {
                let Some((name, asks, values)) = self.headers.get((more - HEADERS) as usize) else { return self.all };
                let lines = headers.get_all(name).iter();
                let there = lines.map(|line| values.of(|| Some(mark_bytes(line.as_bytes()))));
                asks.others().or(there.fold(Mask::default(), Mask::or))
            }
        }
    }

    pub fn all(&self) -> Mask {
        self.all
    }
}

impl Marks {
    fn add(&mut self, place: usize, mark: Option<u64>) {
        match mark {
            Some(mark) => self.by.entry(mark).or_default().add(place),
            None => self.others.add(place),
        }
    }

    fn of(&self, mark: impl FnOnce() -> Option<u64>) -> Mask {
        if self.by.is_empty() {
            return self.others;
        }
        let by = mark().and_then(|mark| self.by.get(&mark)).copied().unwrap_or_default();
        self.others.or(by)
    }
}

impl Mask {
    fn add(&mut self, place: usize) {
        if let Some(word) = self.0.get_mut(place / 64) {
            *word |= 1 << (place % 64);
        }
    }

    pub fn and(self, other: Mask) -> Mask {
        self.with(other, |a, b| a & b)
    }

    fn or(self, other: Mask) -> Mask {
        self.with(other, |a, b| a | b)
    }

    pub fn others(self) -> Mask {
        Mask(self.0.map(|word| !word))
    }

    fn with(mut self, other: Mask, join: impl Fn(u64, u64) -> u64) -> Mask {
        for (word, other) in self.0.iter_mut().zip(other.0) {
            *word = join(*word, other);
        }
        self
    }

    pub fn is_empty(self) -> bool {
        self.0 == [0; 4]
    }

    fn first(self) -> Option<usize> {
        let (at, word) = self.0.into_iter().enumerate().find(|(_, word)| *word != 0)?;
        Some(at * 64 + word.trailing_zeros() as usize)
    }

    fn remove(&mut self, place: usize) {
        if let Some(word) = self.0.get_mut(place / 64) {
            *word &= !(1 << (place % 64));
        }
    }
}

/// Of the first segments, as far as they are the same for all paths that match.
fn beginning(pattern: &PathPattern) -> Option<u64> {
    let join = |mark: u64, segment: &str| marked(marked(mark, b"/"), segment.as_bytes());
    let (mark, depth) = match pattern {
        PathPattern::Exact(path) | PathPattern::Prefix(path) => {
            let segments = path.strip_prefix('/')?.split('/').take(DEPTH);
            segments.fold((SEED, 0), |(mark, depth), segment| (join(mark, segment), depth + 1))
        }
        PathPattern::Template { segments, .. } => {
            let literals = segments.iter().take(DEPTH).map_while(|segment| match segment {
                Segment::Literal(literal) => Some(literal),
                Segment::Any => None,
            });
            literals.fold((SEED, 0), |(mark, depth), literal| (join(mark, literal), depth + 1))
        }
    };
    (depth > 0).then_some(mark)
}

/// One that may be any service is found by none.
fn party(party: &Party) -> Option<u64> {
    party.service.as_deref().map(mark)
}

fn mark(text: &str) -> u64 {
    mark_bytes(text.as_bytes())
}

/// FNV-1a, letters in small: what tells rules apart, and never what decides.
pub(super) fn mark_bytes(bytes: &[u8]) -> u64 {
    marked(SEED, bytes)
}

pub(super) fn marked(seed: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(seed, |mark, byte| (mark ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(PRIME))
}

/// A mark is a hash already.
#[derive(Default)]
pub struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = marked(self.0, bytes);
    }

    fn write_u64(&mut self, mark: u64) {
        self.0 = mark;
    }
}

/// Segments of a path that tell rules apart.
const DEPTH: usize = 3;
const KNOWN: usize = 9;
static METHODS: [Method; KNOWN] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::HEAD,
    Method::OPTIONS,
    Method::PATCH,
    Method::CONNECT,
    Method::TRACE,
];
/// Questions, by their bit, the cheapest first; headers are behind them, one bit for each name.
const SOURCE: u32 = 0;
const DESTINATION: u32 = 1;
const ROUTE: u32 = 2;
const SERVICE: u32 = 3;
const HOST: u32 = 4;
const BAGGAGE: u32 = 5;
const HEADERS: u32 = 6;
/// Rules that ask for more names of headers are asked one after the other.
const NAMES: usize = (u64::BITS - HEADERS) as usize;
/// Rules for any call of gRPC.
const ANY_SERVICE: u64 = 0;
pub(super) const SEED: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;
