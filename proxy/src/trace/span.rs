//! The compact record of a span: what the road fills in and hands over. It owns what it names (cheap reference-counted
//! bytes), is made at the exchange's close and turned into OTLP on another thread.

use std::borrow::Cow;

use spanmesh_proto::{SpanId, TraceId};

/// One finished span.
#[derive(Clone, Debug)]
pub struct Span {
    pub trace: TraceId,
    pub id: SpanId,
    pub parent: Option<SpanId>,
    pub kind: Kind,
    pub name: Cow<'static, str>,
    pub start_nanos: u64,
    pub end_nanos: u64,
    pub attributes: Vec<(&'static str, Value)>,
    pub error: bool,
    /// A span of another trace that this one goes back to.
    pub link: Option<(TraceId, SpanId)>,
    /// The trace-flags byte of W3C, as the next hop saw it.
    pub flags: u8,
}

/// The numbers are OTLP's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Server = 2,
    Client = 3,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(Cow<'static, str>),
    Int(i64),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Value::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(Cow::Owned(text))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Value::Int(number)
    }
}
