//! OpenCensus' binary format in gRPC's `grpc-trace-bin`: version 0, then fields, each behind its number. A field that
//! nobody knows ends the reading, since its length is not known either.

use http::{HeaderMap, HeaderName};
use spanmesh_proto::{SpanId, TraceId};

use super::ink::Ink;
use super::text::{self, Line, put_base64};
use super::{Decision, Found, Reading};
use crate::trace::context::TraceContext;

pub const BINARY: HeaderName = HeaderName::from_static("grpc-trace-bin");
pub static NAMES: [HeaderName; 1] = [BINARY];

pub fn read(headers: &HeaderMap) -> Reading {
    let line = match text::line(headers, BINARY) {
        Line::None => return Reading::Absent,
        Line::One(text) => text,
        Line::Several => return Reading::Malformed,
    };
    let mut bytes = [0; LONGEST];
    text::base64(line, &mut bytes).and_then(parse).map_or(Reading::Malformed, Reading::Valid)
}

pub fn parse(bytes: &[u8]) -> Option<Found> {
    let Some((0, mut rest)) = bytes.split_first() else { return None };
    let (mut trace, mut parent, mut decision) = (None, None, Decision::Open);
    while let Some((field, value)) = rest.split_first() {
        rest = match field {
            0 => {
                let (id, after) = value.split_first_chunk::<16>()?;
                trace = Some(TraceId::from_bytes(*id)?);
                after
            }
            1 => {
                let (id, after) = value.split_first_chunk::<8>()?;
                parent = Some(SpanId::from_bytes(*id)?);
                after
            }
            2 => {
                let (options, after) = value.split_first()?;
                decision = Decision::of(options & SAMPLED != 0);
                after
            }
            _ => break,
        };
    }
    match (trace, parent, decision) {
        (Some(trace), parent, decision) => Some(Found::new(trace, parent, decision)),
        (None, None, Decision::Deny | Decision::Accept) => Some(Found::decided(decision)),
        _ => None,
    }
}

/// Without padding, as gRPC asks of those who send.
pub fn write(headers: &mut HeaderMap, context: &TraceContext, span: SpanId, ink: &mut Ink) -> Option<()> {
    let mut bytes = [0; 29];
    let parts = [0, 0].into_iter().chain(context.trace.to_bytes()).chain([1]).chain(span.to_bytes());
    let options = [2, u8::from(context.sampled) * SAMPLED];
    bytes.iter_mut().zip(parts.chain(options)).for_each(|(to, from)| *to = from);
    let value = ink.value(40, |out| put_base64(out, &bytes, false))?;
    headers.insert(BINARY, value);
    Some(())
}

const SAMPLED: u8 = 0x01;
/// Far more than is known of the format; what is longer is something else.
const LONGEST: usize = 256;
