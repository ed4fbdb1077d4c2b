//! Which rules of a chain may match a request at all, told by a few cheap marks of it, so that a hundred rules cost
//! hardly more than one. What is left is asked in order.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use http::header::{HeaderMap, HeaderName};
use http::method::Method;

use super::super::path::{PathPattern, Segment};
use super::ask::{Request, Test, rpc};
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
    hosts: Marks,
    routes: Marks,
    services: Marks,
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
            index.segments.add(place, test.path.as_ref().and_then(first_segment));
            index.hosts.add(
                place,
                match &test.host {
                    Some(HostPattern::Exact(name)) => Some(mark(name)),
                    Some(HostPattern::Below(_)) | None => None,
                },
            );
            index.routes.add(place, test.route.as_deref().map(mark));
            let service = test.grpc.as_ref().map(|(service, _)| service.as_deref().map_or(ANY_SERVICE, mark));
            index.services.add(place, service);
            if let Some((name, value)) = test.headers.first() {
                let known = index.headers.iter().position(|(known, ..)| known == name);
                let at = known.unwrap_or_else(|| {
                    index.headers.push((name.clone(), Mask::default(), Marks::default()));
                    index.headers.len() - 1
                });
                if let Some((_, asks, values)) = index.headers.get_mut(at) {
                    asks.add(place);
                    values.add(place, value.as_ref().map(|value| mark_bytes(value.as_bytes())));
                }
            }
            if test.asks_destination() {
                index.destined.add(place);
            }
        }
        index
    }

    /// The rules that may match, of those that are `asked`.
    pub fn candidates(&self, request: &Request<'_>, headers: &HeaderMap, asked: Mask) -> Mask {
        let method = METHODS.iter().position(|method| Some(method) == request.method).unwrap_or(KNOWN);
        let mut left = self.methods.get(method).copied().unwrap_or_default().and(asked);
        left = left.and(self.segments.of(|| segment(request.path).map(mark)));
        if !self.hosts.by.is_empty() {
            left = left.and(self.hosts.of(|| Some(mark(host_of(request.host)))));
        }
        if !self.routes.by.is_empty() {
            left = left.and(self.routes.of(|| request.route.map(mark)));
        }
        if !self.services.by.is_empty() {
            let called = rpc(request);
            let any = if called.is_some() { self.services.of(|| Some(ANY_SERVICE)) } else { Mask::default() };
            left = left.and(self.services.of(|| called.map(|(service, _)| mark(service))).or(any));
        }
        for (name, asks, values) in &self.headers {
            if left.and(*asks).is_empty() {
                continue;
            }
            let mut fits = Mask::default();
            for line in headers.get_all(name) {
                fits = fits.or(values.of(|| Some(mark_bytes(line.as_bytes()))));
            }
            left = left.and(asks.others().or(fits));
        }
        left
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

    /// The places, in order.
    pub fn places(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(at, mut word)| {
            std::iter::from_fn(move || {
                let bit = word.trailing_zeros() as usize;
                word &= word.wrapping_sub(1);
                (bit < 64).then_some(at * 64 + bit)
            })
        })
    }
}

/// Of a path that begins in one way only.
fn first_segment(pattern: &PathPattern) -> Option<u64> {
    match pattern {
        PathPattern::Exact(path) | PathPattern::Prefix(path) => segment(path).map(mark),
        PathPattern::Template { segments, .. } => match segments.first() {
            Some(Segment::Literal(literal)) => Some(mark(literal)),
            Some(Segment::Any) | None => None,
        },
    }
}

fn segment(path: &str) -> Option<&str> {
    path.strip_prefix('/')?.split('/').next()
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
/// Rules for any call of gRPC.
const ANY_SERVICE: u64 = 0;
pub(super) const SEED: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;
