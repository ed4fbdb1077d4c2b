//! One span, as the command line sees it: what all formats that traces are kept in have in common.

use std::collections::BTreeMap;

use serde_json::Value;
use spanmesh_proto::{SpanId, TraceId};

#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub trace: TraceId,
    pub id: SpanId,
    pub parent: Option<SpanId>,
    pub service: String,
    pub name: String,
    pub kind: Kind,
    /// Nanoseconds since 1970, by the clock of the machine that made it.
    pub start: u64,
    pub end: u64,
    /// It failed: with this message, which may be empty.
    pub failed: Option<String>,
    pub attributes: Vec<(String, Value)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Internal,
    Server,
    Client,
    Producer,
    Consumer,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Server => "server",
            Self::Client => "client",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }

    /// As OTLP numbers it.
    pub fn number(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Server => 2,
            Self::Client => 3,
            Self::Producer => 4,
            Self::Consumer => 5,
        }
    }

    pub fn of_number(number: i64) -> Self {
        match number {
            2 => Self::Server,
            3 => Self::Client,
            4 => Self::Producer,
            5 => Self::Consumer,
            // 0 is "not said", and what later versions may add is nothing that is known here.
            _ => Self::Internal,
        }
    }

    /// `SPAN_KIND_SERVER`, `server`, `Server`.
    pub fn of_word(word: &str) -> Self {
        let word = word.to_ascii_lowercase();
        match word.strip_prefix("span_kind_").unwrap_or(&word) {
            "server" => Self::Server,
            "client" => Self::Client,
            "producer" => Self::Producer,
            "consumer" => Self::Consumer,
            _ => Self::Internal,
        }
    }

    /// Which way the call goes.
    pub fn sign(self) -> char {
        match self {
            Self::Internal => '·',
            Self::Server | Self::Consumer => '←',
            Self::Client | Self::Producer => '→',
        }
    }
}

impl Span {
    pub fn attribute(&self, name: &str) -> Option<&Value> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    pub fn text(&self, name: &str) -> Option<String> {
        self.attribute(name).map(plain)
    }

    /// Which try it was beyond the first.
    pub fn retry(&self) -> Option<u64> {
        let count = self.attribute("http.request.resend_count")?;
        count.as_u64().or_else(|| count.as_str()?.parse().ok()).filter(|count| *count > 0)
    }

    /// Why it failed, in a word or two.
    pub fn reason(&self) -> Option<String> {
        let message = self.failed.as_ref()?;
        let status = ["http.response.status_code", "rpc.response.status_code", "error.type"];
        let said = status.iter().find_map(|name| self.text(name));
        Some(said.or_else(|| Some(message.clone()).filter(|text| !text.is_empty())).unwrap_or_else(|| "error".into()))
    }

    pub fn duration(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// The spans of each trace, in the order of the traces' first spans.
pub fn by_trace(spans: Vec<Span>) -> Vec<(TraceId, Vec<Span>)> {
    let mut traces: BTreeMap<[u8; 16], Vec<Span>> = BTreeMap::new();
    for span in spans {
        traces.entry(span.trace.to_bytes()).or_default().push(span);
    }
    let mut traces: Vec<_> = traces.into_values().filter_map(|spans| Some((spans.first()?.trace, spans))).collect();
    traces.sort_by_key(|(_, spans)| spans.iter().map(|span| span.start).min());
    traces
}

/// The name of a service, which each of its spans has of its own: a long one would fill the memory.
pub fn service(name: &str) -> String {
    name.chars().take(SERVICE).collect()
}

const SERVICE: usize = 255;

/// Text without its quotes.
pub fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
