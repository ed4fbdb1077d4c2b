//! The compact record of a span: what the road fills in at the close of an exchange and hands over in batches. A span is
//! of fixed size; its words (path, host, …) lie in the text of its batch, so that a span allocates nothing. It is put into
//! OpenTelemetry's terms on another thread (`attributes`), and redacted there.

use std::borrow::Cow;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use spanmesh_proto::{SpanId, TraceId};

use super::manner::Manner;
use super::propagate::Format;
use super::redact::patterns::{AHEAD, End};
use super::sample::By;
use super::trust::{Inferred, Set};
use crate::error::Flag;
use crate::rules::sampling::Trigger;

/// One finished span.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub trace: TraceId,
    pub id: SpanId,
    pub parent: Option<SpanId>,
    /// The trace-flags byte of W3C, as the next hop saw it.
    pub flags: u8,
    pub kind: Kind,
    pub side: Side,
    pub start_nanos: u64,
    pub end_nanos: u64,
    /// What is spoken with the peer; `None` where nothing was.
    pub protocol: Option<Protocol>,
    pub grpc: bool,
    /// What is spoken with the peer is under TLS.
    pub secure: bool,
    /// The other end of the socket.
    pub peer: SocketAddr,
    /// Whom the request is from, as far as it is known.
    pub client: IpAddr,
    /// Where the request was going, for one that names no host.
    pub server: SocketAddr,
    pub status: Option<u16>,
    pub grpc_status: Option<u32>,
    pub flag: Flag,
    /// How many attempts of the same request went before, and how the last of them ended.
    pub resent: u32,
    pub cause: Option<Cause>,
    /// Bytes of the request's content, or from the client; and back.
    pub sent: u64,
    pub received: u64,
    pub method: Words,
    pub host: Words,
    pub path: Words,
    pub query: Words,
    /// The template that the path follows.
    pub route: Words,
    pub route_source: Option<RouteSource>,
    pub agent: Words,
    /// What was reported while it lived: how often, and of the latest reports when and how many bytes.
    pub reports: Words,
    /// What `custom` took down.
    pub custom: Words,
    pub context: Origin,
    pub times: Times,
}

/// What the proxy itself took of a span's time, in microseconds, where it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// From when the request was there, or its last attempt over, until an attempt began.
    pub queue: Option<u32>,
    /// The wait for a connection, without the making of it. Unknown where one lay ready.
    pub pool: Option<u32>,
    pub connect: Option<u32>,
    pub tls: Option<u32>,
    /// From the span's begin until the head of the answer.
    pub first_byte: Option<u32>,
}

/// How a span came to its trace.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin {
    pub source: Option<Format>,
    pub disagreed: Set,
    pub inferred: Option<Inferred>,
    pub decided: Option<By>,
    /// The policy and the rule that decided.
    pub policy: Words,
    pub rule: Words,
    pub generation: u64,
    /// What kept it at its end.
    pub trigger: Option<Trigger>,
    /// A span of another trace that this one goes back to.
    pub link: Option<(TraceId, SpanId)>,
    pub request_id: Words,
    pub debug_id: Words,
    /// The tracestate that the next hop is told.
    pub state: Words,
}

/// The numbers are OTLP's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What is reported of a span while it lives.
    Internal = 1,
    Server = 2,
    Client = 3,
}

/// On which side of a call the proxy stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Server,
    Client,
    Gateway,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http10,
    Http11,
    Http2,
    /// Bytes that nobody here reads.
    Bytes,
}

/// Why there was another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Flag(Flag),
    Status(u16),
}

/// More than an hour is an hour and some.
pub fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

/// Who says which template a path follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteSource {
    Configured,
    Learned,
}

/// Where in the text of its batch a span's word stands. Words that are empty are not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Words {
    from: u32,
    length: u16,
    /// So many bytes stand behind it that are never told: by them one sees whether it ends in the middle of a secret.
    ahead: u16,
}

/// How far a span was that lives long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    pub unix_nanos: u64,
    pub sent: u64,
    pub received: u64,
}

/// What a word is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Host,
    Query,
    Text,
    Custom,
}

/// Spans that are handed over together.
#[derive(Debug, Default)]
pub struct Batch {
    spans: Vec<Span>,
    text: Vec<u8>,
    /// The text when it is whole, if it is one in UTF-8.
    sealed: String,
    /// How its spans are told; without it they are told as they are.
    pub manner: Option<Arc<Manner>>,
}

impl Batch {
    /// Takes down a word for spans of this batch, of which `limit` bytes are told.
    pub fn word(&mut self, word: &[u8], limit: usize) -> Words {
        let words = put(&mut self.text, word.get(..limit.saturating_add(AHEAD)).unwrap_or(word));
        words.told(limit)
    }

    /// Takes down what is of no use if it is not whole.
    pub fn whole(&mut self, word: &[u8], limit: usize) -> Words {
        if word.len() > limit { Words::default() } else { put(&mut self.text, word) }
    }

    /// Says words otherwise: `change` is asked once for each, and gives `None` for one that stays. Spans of one request
    /// share theirs.
    pub fn rewrite(&mut self, mut change: impl FnMut(Part, &[u8], End) -> Option<Vec<u8>>) {
        let Self { spans, text, .. } = self;
        let mut known = [(Words::default(), Words::default()); PARTS];
        for span in spans {
            for ((part, words), (before, after)) in span.words_mut().into_iter().zip(&mut known) {
                if words.is_empty() {
                    continue;
                }
                if words != before {
                    let end = if usize::from(words.ahead) < AHEAD { End::Whole } else { End::Cut };
                    let said = text.get(words.seen()).and_then(|word| change(part, word, end));
                    // A secret may have shrunk; then less is told than might be.
                    let told = said.map(|said| {
                        put(text, said.get(..said.len().saturating_sub(words.ahead.into())).unwrap_or_default())
                    });
                    (*before, *after) = (*words, told.unwrap_or(*words));
                }
                *words = *after;
            }
        }
    }

    /// Nothing more is taken down. Looking through the whole text once costs less than through each of its words.
    pub fn seal(&mut self) {
        match String::from_utf8(mem::take(&mut self.text)) {
            Ok(text) => self.sealed = text,
            Err(error) => self.text = error.into_bytes(),
        }
    }

    /// All that will be needed at once: growing would copy it several times.
    pub fn make_room(&mut self, text: usize) {
        self.spans.reserve_exact(SPANS);
        self.text.reserve_exact(text);
    }

    pub fn push(&mut self, span: Span) {
        self.spans.push(span);
    }

    /// Bytes of its text.
    pub fn size(&self) -> usize {
        self.text.len()
    }

    pub fn len(&self) -> usize {
        self.spans.len()
    }

    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Enough to be handed over.
    pub fn is_full(&self) -> bool {
        self.spans.len() >= SPANS || self.text.len() >= TEXT
    }

    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Takes down reports of a span: all that there were, and the latest of them.
    pub fn reports(&mut self, count: u32, kept: impl Iterator<Item = Report>) -> Words {
        if count == 0 {
            return Words::default();
        }
        let mut words = put(&mut self.text, &count.to_be_bytes());
        for Report { unix_nanos, sent, received } in kept {
            for number in [unix_nanos, sent, received] {
                words.length = words.length.saturating_add(put(&mut self.text, &number.to_be_bytes()).length);
            }
        }
        words
    }

    /// What `reports` took down: how many are no longer there, and those that are.
    pub fn reported(&self, words: Words) -> (u32, impl Iterator<Item = Report>) {
        let (count, rest) = self
            .bytes(words)
            .split_first_chunk()
            .map_or((0, &[][..]), |(count, rest)| (u32::from_be_bytes(*count), rest));
        let (kept, _) = rest.as_chunks::<24>();
        let gone = count.saturating_sub(u32::try_from(kept.len()).unwrap_or(u32::MAX));
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let reports = kept.iter().map(move |entry| {
            let (unix_nanos, bytes) = entry.split_at(8);
            let (sent, received) = bytes.split_at(8);
            Report { unix_nanos: number(unix_nanos), sent: number(sent), received: number(received) }
        });
        (gone, reports)
    }

    /// A span's word as it came.
    pub fn bytes(&self, words: Words) -> &[u8] {
        let text = if self.text.is_empty() { self.sealed.as_bytes() } else { &self.text };
        text.get(words.range()).unwrap_or_default()
    }

    /// A span's word. It may come from outside: what is no UTF-8 is replaced.
    pub fn text(&self, words: Words) -> Cow<'_, str> {
        match self.sealed.get(words.range()) {
            Some(text) => text.into(),
            None => String::from_utf8_lossy(self.bytes(words)),
        }
    }
}

impl Span {
    /// A SERVER span of which nothing is known but its ids.
    pub fn new(trace: TraceId, id: SpanId) -> Self {
        let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
        Self {
            trace,
            id,
            parent: None,
            flags: 1,
            kind: Kind::Server,
            side: Side::Server,
            start_nanos: 0,
            end_nanos: 0,
            protocol: None,
            grpc: false,
            secure: false,
            peer: nobody,
            client: nobody.ip(),
            server: nobody,
            status: None,
            grpc_status: None,
            flag: Flag::Ok,
            resent: 0,
            cause: None,
            sent: 0,
            received: 0,
            method: Words::default(),
            host: Words::default(),
            path: Words::default(),
            query: Words::default(),
            route: Words::default(),
            route_source: None,
            agent: Words::default(),
            reports: Words::default(),
            custom: Words::default(),
            context: Origin::default(),
            times: Times::default(),
        }
    }

    fn words_mut(&mut self) -> [(Part, &mut Words); PARTS] {
        let Self { method, host, path, query, route, agent, custom, context, .. } = self;
        let Origin { request_id, debug_id, .. } = context;
        [
            (Part::Text, method),
            (Part::Host, host),
            (Part::Text, path),
            (Part::Query, query),
            (Part::Text, route),
            (Part::Text, agent),
            (Part::Custom, custom),
            (Part::Text, request_id),
            (Part::Text, debug_id),
        ]
    }
}

fn put(text: &mut Vec<u8>, word: &[u8]) -> Words {
    let (Ok(from), Ok(length)) = (u32::try_from(text.len()), u16::try_from(word.len())) else {
        return Words::default();
    };
    text.extend_from_slice(word);
    Words { from, length, ahead: 0 }
}

impl Words {
    /// Without its first bytes.
    pub fn skip(self, bytes: u16) -> Self {
        let bytes = bytes.min(self.length);
        Self { from: self.from + u32::from(bytes), length: self.length - bytes, ..self }
    }

    /// As much of it as `length` bytes.
    pub fn cut(self, length: usize) -> Self {
        Self { length: u16::try_from(length).map_or(self.length, |length| self.length.min(length)), ..self }
    }

    /// So many bytes of it are told.
    fn told(self, limit: usize) -> Self {
        let Self { length, .. } = self.cut(limit);
        Self { length, ahead: self.length - length, ..self }
    }

    fn range(self) -> Range<usize> {
        let from = self.from as usize;
        from..from.saturating_add(self.length.into())
    }

    fn seen(self) -> Range<usize> {
        let Range { start, end } = self.range();
        start..end.saturating_add(self.ahead.into())
    }

    pub fn is_empty(self) -> bool {
        self.length == 0
    }
}

impl Side {
    pub fn name(self) -> &'static str {
        match self {
            Side::Server => "server",
            Side::Client => "client",
            Side::Gateway => "gateway",
        }
    }
}

impl RouteSource {
    pub fn name(self) -> &'static str {
        match self {
            RouteSource::Configured => "configured",
            RouteSource::Learned => "learned",
        }
    }
}

/// Spans that a worker hands over at once, and about how much text.
const SPANS: usize = 128;
const TEXT: usize = 64 * 1024;
/// Words of a span.
const PARTS: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read_back() {
        let mut batch = Batch::default();
        let report = |number: u64| Report { unix_nanos: u64::MAX - number, sent: number, received: 0 };
        batch.word(b"before", 9);
        let words = batch.reports(40, (0..3).map(report));
        batch.word(b"behind", 9);
        let (gone, kept) = batch.reported(words);
        assert_eq!((gone, kept.collect::<Vec<_>>()), (37, (0..3).map(report).collect()));
        let none = batch.reports(0, std::iter::empty());
        assert!(none.is_empty() && batch.reported(none).0 == 0 && batch.reported(none).1.count() == 0);
    }

    #[test]
    fn what_a_word_is_looked_at_by_is_never_told() {
        let id = SpanId::from_bytes([1; 8]).expect("an id");
        let trace = TraceId::from_bytes([1; 16]).expect("an id");
        for (behind, end) in [(1, End::Whole), (AHEAD - 1, End::Whole), (AHEAD, End::Cut), (1000, End::Cut)] {
            let mut batch = Batch::default();
            let text = [&b"/told/"[..], &vec![b'x'; behind]].concat();
            let path = batch.word(&text, 6);
            assert_eq!(batch.text(path), "/told/");
            batch.push(Span { path, ..Span::new(trace, id) });
            batch.rewrite(|_, word, seen| {
                assert_eq!((word, seen), (&text[..6 + behind.min(AHEAD)], end));
                None
            });
            assert_eq!(batch.text(batch.spans()[0].path), "/told/");
            // A secret of it becomes shorter, and what is not told becomes no part of it.
            batch.rewrite(|_, word, _| Some(word[2..].to_vec()));
            assert_eq!(batch.text(batch.spans()[0].path), "old/");
        }
        let mut batch = Batch::default();
        let (none, all) = (batch.whole(b"long", 3), batch.whole(b"long", 4));
        assert!(none.is_empty() && batch.text(all) == "long");
    }

    #[test]
    fn words_are_read_back_and_cut_to_their_limit() {
        let mut batch = Batch::default();
        let (path, host) = (batch.word(b"/a/path", 3), batch.word(b"h\xff", 9));
        assert_eq!((batch.text(path), batch.text(host)), ("/a/".into(), "h\u{fffd}".into()));
        batch.rewrite(|_, _, _| panic!("no span has these"));
        assert!(batch.word(b"", 9).is_empty() && batch.text(Words::default()).is_empty());
        assert_eq!(batch.text(Words { from: 9, length: u16::MAX, ahead: 0 }), "", "what is not there is empty");
    }
}
