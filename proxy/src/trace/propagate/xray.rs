//! AWS X-Ray's `x-amzn-trace-id`: fields in any order. Load balancers send a root without a parent. Fields that nobody
//! here knows stay; `Self`, which a load balancer says of its own hop, does not.

use http::{HeaderMap, HeaderName};
use spanmesh_proto::{SpanId, TraceId};

use super::ink::Ink;
use super::text::{self, Line, put_hex};
use super::{Decision, Found, Reading};
use crate::trace::context::TraceContext;

pub const XRAY: HeaderName = HeaderName::from_static("x-amzn-trace-id");
pub static NAMES: [HeaderName; 1] = [XRAY];

pub fn read(headers: &HeaderMap) -> Reading {
    match text::line(headers, XRAY) {
        Line::None => Reading::Absent,
        Line::One(text) => parse(text).map_or(Reading::Malformed, Reading::Valid),
        Line::Several => Reading::Malformed,
    }
}

/// `Root=1-{8}-{24};Parent={16};Sampled={0|1|?}`. `?` leaves the decision to us.
pub fn parse(text: &[u8]) -> Option<Found> {
    let (mut trace, mut parent, mut decision) = (None, None, Decision::Open);
    for (key, value) in fields(text) {
        match key {
            b"Root" => trace = Some(root(value)?),
            b"Parent" if value.len() == 16 => parent = Some(text::span(text::hex(value, 16)? as u64)?),
            b"Parent" => return None,
            b"Sampled" => {
                decision = match value {
                    b"0" => Decision::Deny,
                    b"1" => Decision::Accept,
                    b"?" | b"" => Decision::Open,
                    _ => return None,
                }
            }
            _ => {}
        }
    }
    match (trace, decision) {
        (Some(trace), decision) => Some(Found::new(trace, parent, decision)),
        (None, Decision::Open) => None,
        (None, decision) => Some(Found::decided(decision)),
    }
}

pub fn write(headers: &mut HeaderMap, context: &TraceContext, span: SpanId, ink: &mut Ink) -> Option<()> {
    let value = {
        let before = match text::line(headers, XRAY) {
            Line::One(text) => text,
            Line::None | Line::Several => &[],
        };
        let (epoch, rest) = (context.trace.to_bytes(), context.trace.to_bytes());
        ink.value(LENGTH + before.len().min(KEPT), |out| {
            out.extend_from_slice(b"Root=1-");
            put_hex(out, epoch.get(..4).unwrap_or_default());
            out.extend_from_slice(b"-");
            put_hex(out, rest.get(4..).unwrap_or_default());
            out.extend_from_slice(b";Parent=");
            put_hex(out, &span.to_bytes());
            out.extend_from_slice(if context.sampled { b";Sampled=1" } else { b";Sampled=0" });
            let mut room = KEPT;
            for (key, value) in fields(before) {
                let needs = key.len() + value.len() + 2;
                if matches!(key, b"Root" | b"Parent" | b"Sampled" | b"Self" | b"") || needs > room {
                    continue;
                }
                room -= needs;
                out.extend_from_slice(b";");
                out.extend_from_slice(key);
                out.extend_from_slice(b"=");
                out.extend_from_slice(value);
            }
        })?
    };
    headers.insert(XRAY, value);
    Some(())
}

fn fields(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    text.split(|byte| *byte == b';').filter_map(|field| {
        let field = field.trim_ascii();
        let (key, value) = field.split_at(field.iter().position(|byte| *byte == b'=')?);
        Some((key.trim_ascii(), value.get(1..).unwrap_or_default().trim_ascii()))
    })
}

fn root(text: &[u8]) -> Option<TraceId> {
    let mut parts = text.split(|byte| *byte == b'-');
    let (version, epoch, rest) = (parts.next()?, parts.next()?, parts.next()?);
    if version != b"1" || epoch.len() != 8 || rest.len() != 24 || parts.next().is_some() {
        return None;
    }
    text::trace(text::hex(epoch, 8)? << 96 | text::hex(rest, 24)?)
}

const LENGTH: usize = 80;
/// Bytes of unknown fields that travel on; load balancers write the header anew beyond 7 KB.
const KEPT: usize = 2 * 1024;
