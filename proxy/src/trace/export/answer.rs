//! Reads what a receiver answers: `ExportTraceServiceResponse` in protobuf or JSON, and `google.rpc.Status` beside an
//! error. Few fields are of interest, so they are picked out of the bytes; what else there is must be well-formed, and is
//! not kept: an answer of 4 MiB takes no more memory than that.

mod said;

use std::time::Duration;

use self::said::Said;

/// A request was taken, all of it or a part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    pub rejected: u64,
    /// Why, or a warning beside nothing rejected.
    pub message: String,
}

/// `ExportTraceServiceResponse { partial_success = 1 { rejected_spans = 1, error_message = 2 } }`. Unknown fields are
/// ignored, but not known ones of another type: a `google.rpc.Status` begins with a number.
pub fn protobuf(body: &[u8]) -> Option<Taken> {
    let mut taken = Taken::default();
    for field in fields(body) {
        let partial = match field? {
            (1, Field::Bytes(partial)) => partial,
            (1, _) => return None,
            _ => continue,
        };
        for field in fields(partial) {
            match field? {
                // A negative number of spans is none.
                (1, Field::Number(rejected)) if i64::try_from(rejected).is_ok() => taken.rejected = rejected,
                (2, Field::Bytes(message)) => taken.message = shown(message),
                (1 | 2, _) => return None,
                _ => {}
            }
        }
    }
    Some(taken)
}

/// Unknown fields are ignored, but for those that speak of an error.
pub fn json(body: &[u8]) -> Option<Taken> {
    // A list would be read as the fields in their order.
    let is_object = body.trim_ascii_start().starts_with(b"{");
    let said: Said = serde_json::from_slice(body).ok().filter(|said: &Said| is_object && !said.is_error())?;
    let partial = said.partial_success.unwrap_or_default();
    let message = partial.error_message.unwrap_or_default();
    Some(Taken { rejected: partial.rejected_spans.0, message: shown(message.as_bytes()) })
}

/// The delay in the `RetryInfo` of a `google.rpc.Status { code = 1, message = 2, details = 3 { type_url = 1, value = 2 } }`.
pub fn retry_info(status: &[u8]) -> Option<Duration> {
    fields(status).map_while(|field| field).find_map(|field| match field {
        (3, Field::Bytes(detail)) => delay(detail),
        _ => None,
    })
}

/// The message of a `google.rpc.Status`, as far as the bytes are one; else the text that they may be.
pub fn error_text(is_protobuf: bool, body: &[u8]) -> String {
    let message = match is_protobuf {
        true => fields(body).map_while(|field| field).find_map(|field| match field {
            (2, Field::Bytes(message)) => Some(shown(message)),
            _ => None,
        }),
        false => {
            let said = serde_json::from_slice::<Said>(body).ok();
            said.and_then(|said| said.message.0).map(|message| shown(message.as_bytes()))
        }
    };
    message.unwrap_or_else(|| if is_protobuf { String::new() } else { shown(body) })
}

/// Text from outside, for a line of the log.
pub fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text.get(..SHOWN).unwrap_or(text));
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

/// `Any` with a `RetryInfo { retry_delay = 1 { seconds = 1, nanos = 2 } }`.
fn delay(detail: &[u8]) -> Option<Duration> {
    let (mut is_retry_info, mut value) = (false, &[][..]);
    for field in fields(detail) {
        match field? {
            (1, Field::Bytes(url)) => is_retry_info = url.ends_with(b"google.rpc.RetryInfo"),
            (2, Field::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    if !is_retry_info {
        return None;
    }
    let mut delay = Duration::ZERO;
    for field in fields(value) {
        let (1, Field::Bytes(duration)) = field? else { continue };
        let (mut seconds, mut nanos) = (0, 0);
        for field in fields(duration) {
            match field? {
                (1, Field::Number(number)) => seconds = number,
                (2, Field::Number(number)) => nanos = number,
                _ => {}
            }
        }
        // A negative one is a varint of ten bytes, and means at once.
        let is_sane = i64::try_from(seconds).is_ok() && nanos < 1_000_000_000;
        delay = if is_sane { Duration::from_secs(seconds) + Duration::from_nanos(nanos) } else { Duration::ZERO };
    }
    Some(delay)
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// The fields of a message in their order; `None` and then nothing where it is broken.
fn fields(mut rest: &[u8]) -> impl Iterator<Item = Option<(u64, Field<'_>)>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = take(&mut rest);
        if field.is_none() {
            rest = &[];
        }
        Some(field)
    })
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<(u64, Field<'a>)> {
    let key = varint(rest)?;
    let field = match key & 7 {
        0 => Field::Number(varint(rest)?),
        1 => split(rest, 8).map(|_| Field::Fixed)?,
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            Field::Bytes(split(rest, length)?)
        }
        5 => split(rest, 4).map(|_| Field::Fixed)?,
        _ => return None,
    };
    (key >> 3 > 0).then_some((key >> 3, field))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..70).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if *byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn split<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

/// Of a message from outside, in the log.
const SHOWN: usize = 256;

/// Whatever a receiver answers is read or refused, and nothing that is shown has a control character.
pub fn fuzz_answer(data: &[u8]) {
    let _ = retry_info(data);
    for taken in [protobuf(data), json(data)].into_iter().flatten() {
        assert!(!taken.message.contains(char::is_control));
    }
    for is_protobuf in [true, false] {
        assert!(!error_text(is_protobuf, data).contains(char::is_control));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(rejected: u64, message: &str) -> Option<Taken> {
        Some(Taken { rejected, message: message.into() })
    }

    #[test]
    fn an_answer_says_what_was_rejected() {
        assert_eq!(protobuf(b""), taken(0, ""));
        assert_eq!(protobuf(b"\x0a\x00"), taken(0, ""));
        assert_eq!(protobuf(b"\x0a\x07\x08\x96\x01\x12\x02no"), taken(150, "no"));
        assert_eq!(protobuf(b"\x50\x01\x0a\x02\x12\x00"), taken(0, ""), "unknown fields are passed over");
        for text in [&b"<html>"[..], b"\x0a\x07\x08", b"\x0a", b"\x08\xff", b"\x03", b"\x00\x00"] {
            assert_eq!(protobuf(text), None, "{text:?}");
        }
        assert_eq!(protobuf(b"\x08\x0d\x12\x03bad"), None, "a google.rpc.Status");
        assert_eq!(protobuf(b"\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), None, "-1 rejected");
        assert_eq!(json(b"{}"), taken(0, ""));
        assert_eq!(json(b"{\"partialSuccess\":{},\"x\":1}"), taken(0, ""));
        for rejected in ["\"3\"", "3"] {
            let text = format!("{{\"partialSuccess\":{{\"rejectedSpans\":{rejected},\"errorMessage\":\"a\\nb\"}}}}");
            assert_eq!(json(text.as_bytes()), taken(3, "a b"));
        }
        for text in
            [&b""[..], b"[]", b"<html>", b"{\"partialSuccess\":1}", b"{\"partialSuccess\":{\"rejectedSpans\":-1}}"]
        {
            assert_eq!(json(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_yes_with_an_error_inside_is_none() {
        for text in [
            r#"{"code":13,"message":"no room"}"#,
            r#"{"error":"no such tenant"}"#,
            r#"{"error":{"code":403}}"#,
            r#"{"errors":[{"message":"x"}],"data":null}"#,
            r#"{"error":true,"partialSuccess":{}}"#,
        ] {
            assert_eq!(json(text.as_bytes()), None, "{text}");
        }
        for text in [
            r#"{"code":0,"message":"ok"}"#,
            r#"{"code":200,"message":"OK"}"#,
            r#"{"error":null,"errors":[],"status":"success"}"#,
            r#"{"error":"","errors":{},"x":[{"error":1}]}"#,
            r#"{"code":"13","message":[1,2]}"#,
        ] {
            assert_eq!(json(text.as_bytes()), taken(0, ""), "{text}");
        }
    }

    #[test]
    fn a_delay_is_found_among_the_details() {
        let info = |duration: &[u8]| {
            let url = b"type.googleapis.com/google.rpc.RetryInfo";
            let mut detail = vec![0x0a, url.len() as u8];
            detail.extend_from_slice(url);
            detail.extend([0x12, duration.len() as u8 + 2, 0x0a, duration.len() as u8]);
            detail.extend_from_slice(duration);
            let mut status = b"\x08\x08\x12\x04full\x1a\x06\x0a\x04x/yz".to_vec();
            status.extend([0x1a, detail.len() as u8]);
            status.extend(detail);
            status
        };
        assert_eq!(retry_info(&info(b"\x08\x02\x10\x80\xca\xb5\xee\x01")), Some(Duration::from_millis(2500)));
        assert_eq!(retry_info(&info(b"")), Some(Duration::ZERO));
        let negative = b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        assert_eq!(retry_info(&info(negative)), Some(Duration::ZERO));
        assert_eq!(retry_info(b"\x08\x08\x12\x04full"), None);
        assert_eq!(error_text(true, &info(b"")), "full");
        assert_eq!(error_text(false, b"{\"code\":8,\"message\":\"full\"}"), "full");
        assert_eq!(error_text(false, b"<h1>\r\nno</h1>"), "<h1>  no</h1>");
    }
}
