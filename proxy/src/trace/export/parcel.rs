//! Encoded spans that go out in one request. Each span is encoded once, behind the one before; what stands around all of
//! them (the resource, the scope, the lengths of both) is added when a request is written, so that spans can be gathered
//! up to a size, and a parcel that is too large for its receiver can be cut in two.

use bytes::Bytes;

use super::json::{self, Resource};
use super::{protobuf, zipkin};
use crate::trace::attributes::Told;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Protobuf,
    Json,
    /// Zipkin's JSON, version 2.
    Zipkin,
}

#[derive(Debug, Default)]
pub struct Parcel {
    spans: Vec<u8>,
    /// Where each span ends.
    ends: Vec<usize>,
}

/// What all requests to a destination have in common.
#[derive(Debug, PartialEq, Eq)]
pub struct Envelope {
    format: Format,
    head: Vec<u8>,
    /// In protobuf the scope, which has a length of its own; for Zipkin what every span says of the service.
    scope: Vec<u8>,
}

impl Parcel {
    /// An empty one with room for as much: growing would copy its spans several times.
    pub fn like(other: &Self) -> Self {
        Self { spans: Vec::with_capacity(other.spans.len()), ends: Vec::with_capacity(other.ends.len()) }
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// What it holds of the memory, nearly.
    pub fn size(&self) -> usize {
        self.spans.len() + self.ends.len() * size_of::<usize>()
    }

    /// Takes a span that was encoded elsewhere.
    pub fn push(&mut self, span: &[u8]) {
        self.spans.extend_from_slice(span);
        self.ends.push(self.spans.len());
    }

    /// The spans one behind the other, and where each ends.
    pub fn parts(&self) -> (&[u8], &[usize]) {
        (&self.spans, &self.ends)
    }

    /// From its parts, if they fit.
    pub fn of(spans: Vec<u8>, ends: Vec<usize>) -> Option<Self> {
        let fits = ends.is_sorted() && ends.last().copied().unwrap_or(0) == spans.len();
        fits.then_some(Self { spans, ends })
    }

    /// `None` for a single span.
    pub fn halves(self) -> Option<(Parcel, Parcel)> {
        let Self { mut spans, mut ends } = self;
        let second = ends.split_off(ends.len() / 2);
        let cut = *ends.last()?;
        let rest = spans.split_off(cut);
        Some((Parcel { spans, ends }, Parcel { spans: rest, ends: second.iter().map(|end| end - cut).collect() }))
    }
}

impl Envelope {
    pub fn new(format: Format, resource: &Resource) -> Self {
        let (mut head, mut scope) = (Vec::new(), Vec::new());
        match format {
            Format::Protobuf => {
                protobuf::resource(&mut head, resource);
                protobuf::scope(&mut scope);
            }
            Format::Json => {
                json::encode(&mut head, resource, std::iter::empty());
                head.truncate(head.len().saturating_sub(JSON_END.len()));
            }
            Format::Zipkin => {
                head.push(b'[');
                zipkin::service(&mut scope, resource);
            }
        }
        Self { format, head, scope }
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// The format, and what stands around the spans.
    pub fn parts(&self) -> (Format, &[u8], &[u8]) {
        (self.format, &self.head, &self.scope)
    }

    pub fn of(format: Format, head: Vec<u8>, scope: Vec<u8>) -> Self {
        Self { format, head, scope }
    }

    /// One span as it lies in a parcel.
    pub fn encode(&self, out: &mut Vec<u8>, told: &Told<'_>) {
        match self.format {
            Format::Protobuf => protobuf::entry(out, told),
            Format::Json => {
                out.push(b',');
                json::entry(out, told);
            }
            Format::Zipkin => {
                out.push(b',');
                zipkin::entry(out, &self.scope, told);
            }
        }
    }

    /// The body of a request.
    pub fn wrap(&self, parcel: &Parcel) -> Bytes {
        let mut body = Vec::with_capacity(self.head.len() + self.scope.len() + parcel.spans.len() + AROUND);
        match self.format {
            Format::Protobuf => protobuf::request(&mut body, &self.head, &self.scope, &parcel.spans),
            Format::Json | Format::Zipkin => {
                body.extend_from_slice(&self.head);
                body.extend_from_slice(parcel.spans.strip_prefix(b",").unwrap_or(&parcel.spans));
                body.extend_from_slice(if self.format == Format::Json { JSON_END } else { b"]" });
            }
        }
        body.into()
    }
}

impl Format {
    /// In a file.
    pub fn number(self) -> u8 {
        match self {
            Format::Protobuf => 1,
            Format::Json => 2,
            Format::Zipkin => 3,
        }
    }

    pub fn numbered(number: u8) -> Option<Self> {
        [Format::Protobuf, Format::Json, Format::Zipkin].into_iter().find(|format| format.number() == number)
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Format::Protobuf => "application/x-protobuf",
            Format::Json | Format::Zipkin => "application/json",
        }
    }
}

const JSON_END: &[u8] = b"]}]}]}";
/// Keys and lengths around the spans.
const AROUND: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::span::Batch;

    fn resource() -> Resource {
        Resource(vec![("service.name".into(), "a".into()), ("service.version".into(), String::new())])
    }

    fn parcel(spans: &[&[u8]]) -> Parcel {
        let mut parcel = Parcel::default();
        spans.iter().for_each(|span| parcel.push(span));
        parcel
    }

    #[test]
    fn an_empty_request_is_the_one_that_is_encoded_at_once() {
        let (mut json, mut protobuf) = (Vec::new(), Vec::new());
        json::encode(&mut json, &resource(), std::iter::empty());
        protobuf::encode(&mut protobuf, &resource(), &Batch::default());
        for (format, whole) in [(Format::Json, json), (Format::Protobuf, protobuf)] {
            assert_eq!(Envelope::new(format, &resource()).wrap(&Parcel::default()), whole, "{format:?}");
        }
    }

    #[test]
    fn halves_hold_what_the_whole_held() {
        let (first, second) = parcel(&[b",a", b",bb", b",ccc"]).halves().expect("two");
        assert_eq!((first.spans.as_slice(), first.len()), (&b",a"[..], 1));
        assert_eq!((second.spans.as_slice(), second.ends.as_slice()), (&b",bb,ccc"[..], &[3, 7][..]));
        assert!(first.halves().is_none() && Parcel::default().halves().is_none());
        let body = Envelope::new(Format::Json, &Resource::default()).wrap(&second);
        assert!(body.ends_with(b"\"spans\":[bb,ccc]}]}]}"), "{body:?}");
    }
}
