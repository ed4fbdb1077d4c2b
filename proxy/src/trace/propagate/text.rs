//! What the formats are written in: hexadecimal and decimal ids, base64, single lines. One rule for ids of all widths:
//! a shorter one stands for itself with zeros in front, a wider one is shortened to its low bits. Pure, no allocation.

use bytes::BytesMut;
use http::header::{AsHeaderName, HeaderMap};
use spanmesh_proto::{SpanId, TraceId, hex_into};

/// A field that has one value: said twice in different words, nobody knows which one holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    None,
    One(&'a [u8]),
    Several,
}

pub fn line(headers: &HeaderMap, name: impl AsHeaderName) -> Line<'_> {
    let mut lines = headers.get_all(name).iter();
    let Some(first) = lines.next() else { return Line::None };
    match lines.all(|other| other == first) {
        true => Line::One(first.as_bytes().trim_ascii()),
        false => Line::Several,
    }
}

/// The first value, where a format says that it wins.
pub fn first(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&[u8]> {
    headers.get(name).map(|value| value.as_bytes().trim_ascii())
}

/// 1 to `most` hexadecimal digits, in either case: who sends upper case means the same.
pub fn hex(text: &[u8], most: usize) -> Option<u128> {
    if text.is_empty() || text.len() > most.min(32) {
        return None;
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    text.iter().try_fold(0u128, |number, byte| Some(number << 4 | u128::from(digit(byte)?)))
}

/// 1 to 20 decimal digits that fit into 64 bits.
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 20 {
        return None;
    }
    text.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| byte - b'0')?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

pub fn trace(number: u128) -> Option<TraceId> {
    TraceId::from_bytes(number.to_be_bytes())
}

pub fn span(number: u64) -> Option<SpanId> {
    SpanId::from_bytes(number.to_be_bytes())
}

pub fn trace_number(trace: TraceId) -> u128 {
    u128::from_be_bytes(trace.to_bytes())
}

pub fn span_number(span: SpanId) -> u64 {
    u64::from_be_bytes(span.to_bytes())
}

/// What a format of 64 bits says of a trace. `None` where those bits are zero, which is no id.
pub fn low(trace: TraceId) -> Option<u64> {
    let low = trace_number(trace) as u64;
    (low != 0).then_some(low)
}

pub fn high(trace: TraceId) -> u64 {
    (trace_number(trace) >> 64) as u64
}

pub fn put_hex(out: &mut BytesMut, bytes: &[u8]) {
    let mut text = [0; 32];
    let length = 2 * bytes.len().min(16);
    hex_into(&mut text, bytes);
    out.extend_from_slice(text.get(..length).unwrap_or_default());
}

pub fn put_decimal(out: &mut BytesMut, mut number: u64) {
    let mut text = [b'0'; 20];
    let mut first = text.len();
    for (place, digit) in text.iter_mut().enumerate().rev() {
        *digit = b'0' + (number % 10) as u8;
        first = place;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(text.get(first..).unwrap_or_default());
}

/// Base64 (RFC 4648 §4), padded or not.
pub fn put_base64(out: &mut BytesMut, bytes: &[u8], padded: bool) {
    for chunk in bytes.chunks(3) {
        let mut three = [0; 3];
        three.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        let [a, b, c] = three.map(u32::from);
        let bits = a << 16 | b << 8 | c;
        let mut four = [18, 12, 6, 0].map(|shift| letter(bits >> shift));
        let length = chunk.len() + 1;
        four.iter_mut().skip(length).for_each(|letter| *letter = b'=');
        out.extend_from_slice(if padded { &four } else { four.get(..length).unwrap_or_default() });
    }
}

/// Decodes into a buffer and returns what was written of it. Padding may be there or not; `None` for what is no base64
/// or has no room.
pub fn base64<'a>(text: &[u8], into: &'a mut [u8]) -> Option<&'a [u8]> {
    let text = match text {
        [start @ .., b'=', b'='] | [start @ .., b'='] => start,
        _ => text,
    };
    let mut length = 0;
    for chunk in text.chunks(4) {
        let mut bits = 0u32;
        for byte in chunk {
            bits = bits << 6 | u32::from(number(*byte)?);
        }
        let bytes = match chunk.len() {
            4 => 3,
            3 => 2,
            2 => 1,
            _ => return None,
        };
        bits <<= 6 * (4 - chunk.len());
        for byte in bits.to_be_bytes().into_iter().skip(1).take(bytes) {
            *into.get_mut(length)? = byte;
            length += 1;
        }
    }
    into.get(..length)
}

fn letter(number: u32) -> u8 {
    // Six bits are always below 64.
    LETTERS[(number & 63) as usize]
}

/// The alphabet for URLs means the same.
fn number(letter: u8) -> Option<u8> {
    const NUMBERS: [u8; 256] = {
        let mut numbers = [NONE; 256];
        let mut number = 0;
        while number < 64 {
            numbers[LETTERS[number] as usize] = number as u8;
            number += 1;
        }
        (numbers[b'-' as usize], numbers[b'_' as usize]) = (62, 63);
        numbers
    };
    // A byte is always below 256.
    Some(NUMBERS[usize::from(letter)]).filter(|number| *number != NONE)
}

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const NONE: u8 = 0xff;

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut BytesMut)) -> String {
        let mut out = BytesMut::new();
        write(&mut out);
        String::from_utf8(out.to_vec()).expect("text")
    }

    #[test]
    fn numbers_are_read_as_they_are_written() {
        for number in [0, 1, 9, 10, 1234567890, u64::MAX] {
            let text = written(|out| put_decimal(out, number));
            assert_eq!(text, number.to_string());
            assert_eq!(decimal(text.as_bytes()), Some(number));
            let text = written(|out| put_hex(out, &number.to_be_bytes()));
            assert_eq!(text, format!("{number:016x}"));
            assert_eq!(hex(text.as_bytes(), 16), Some(u128::from(number)));
        }
        for bad in ["", "18446744073709551616", "-1", "+1", "1a", "000000000000000000001"] {
            assert_eq!(decimal(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(hex(b"12345", 4), None);
        assert_eq!(hex(b"1g", 4), None);
        assert_eq!(hex(b"AbC", 4), Some(0xabc));
    }

    #[test]
    fn base64_comes_back_padded_or_not() {
        for length in 0..40 {
            let bytes: Vec<u8> = (0..length).map(|byte: u8| byte.wrapping_mul(37)).collect();
            for padded in [true, false] {
                let text = written(|out| put_base64(out, &bytes, padded));
                assert_eq!(base64(text.as_bytes(), &mut [0; 64]), Some(bytes.as_slice()), "{text}");
            }
        }
        assert_eq!(written(|out| put_base64(out, b"a", true)), "YQ==");
        for bad in ["a", "a===", "!aaa", "aaaaa", "aa=a"] {
            assert_eq!(base64(bad.as_bytes(), &mut [0; 64]), None, "{bad}");
        }
        assert_eq!(base64(b"YWJjZA", &mut [0; 3]), None);
    }
}
