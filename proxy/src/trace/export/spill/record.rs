//! How parcels lie in a segment on disk, and what is found when a segment is read back after whatever end its writer had.
//! Pure: bytes in, bytes out; `store` has the files. A record's place is a multiple of 32, so its head lies in one sector
//! and is there as a whole or not at all; what it says of its spans is known even where they are lost.
//!
//! ```text
//!   segment   magic · checksum · format · two lengths · what is around the spans   (padded to 32)
//!             record, record, …
//!   record    magic · state · number of the spans before it · its spans · length · checksum of the content · checksum of
//!             the head without its state   (32 bytes) · content: where each span ends, the spans   (padded to 32)
//! ```

use std::ops::Range;

use flate2::Crc;

use crate::trace::export::parcel::{Envelope, Format, Parcel};

/// A record in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where its head begins.
    pub at: usize,
    /// Head, content and padding.
    pub length: usize,
    pub spans: u32,
    /// Nobody has it yet.
    pub waits: bool,
}

/// What a segment holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    pub found: Vec<Found>,
    /// Spans that were written and cannot be read, as far as their number is known.
    pub lost: u64,
    /// Something cannot be read.
    pub damaged: bool,
}

/// What stands at a segment's begin.
pub fn front(envelope: &Envelope) -> Vec<u8> {
    let (format, head, scope) = envelope.parts();
    let mut body = vec![format.number(), 0, 0, 0];
    for part in [head, scope] {
        body.extend_from_slice(&length(part.len()).to_le_bytes());
    }
    body.extend_from_slice(head);
    body.extend_from_slice(scope);
    let mut out = FRONT.to_vec();
    out.extend_from_slice(&checksum(&[&body]).to_le_bytes());
    out.extend_from_slice(&body);
    pad(&mut out);
    out
}

/// The front of a segment and its length; `None` if it is not whole.
pub fn read_front(segment: &[u8]) -> Option<(Envelope, usize)> {
    let mut rest = segment;
    (take(&mut rest, FRONT.len())? == FRONT).then_some(())?;
    let sum = word(&mut rest)?;
    let body = rest;
    let format = Format::numbered(*take(&mut rest, 4)?.first()?)?;
    let (head, scope) = (word(&mut rest)? as usize, word(&mut rest)? as usize);
    let (head, scope) = (take(&mut rest, head)?, take(&mut rest, scope)?);
    let body = body.get(..body.len() - rest.len())?;
    (checksum(&[body]) == sum).then_some(())?;
    let length = (segment.len() - rest.len()).next_multiple_of(ALIGN);
    Some((Envelope::of(format, head.to_vec(), scope.to_vec()), length))
}

/// A record that waits; `before` is how many spans the segment has had before it.
pub fn record(parcel: &Parcel, before: u32) -> Vec<u8> {
    let (spans, ends) = parcel.parts();
    let mut out = vec![0; HEAD];
    for end in ends {
        out.extend_from_slice(&length(*end).to_le_bytes());
    }
    out.extend_from_slice(spans);
    let content = out.get(HEAD..).unwrap_or_default();
    let (size, sum) = (length(content.len()), checksum(&[content]));
    let mut head = Vec::with_capacity(HEAD);
    head.extend_from_slice(&RECORD);
    head.extend_from_slice(&[WAITS, 0, 0, 0]);
    for word in [before, length(parcel.len()), size, sum] {
        head.extend_from_slice(&word.to_le_bytes());
    }
    head.extend_from_slice(&[0; 4]);
    head.extend_from_slice(&head_sum(&head).to_le_bytes());
    out.splice(..HEAD, head);
    pad(&mut out);
    out
}

/// The parcel in a record, as long as every byte is what was written.
pub fn read_record(record: &[u8]) -> Option<Parcel> {
    let head = Head::read(record)?;
    let content = record.get(HEAD..HEAD.checked_add(head.content)?)?;
    (checksum(&[content]) == head.sum).then_some(())?;
    let mut rest = content;
    let mut ends = Vec::new();
    for _ in 0..head.spans {
        ends.push(word(&mut rest)? as usize);
    }
    Parcel::of(rest.to_vec(), ends)
}

/// All records behind the front. A head that is damaged hides its own record only: the next one says how many spans went
/// before it.
pub fn scan(segment: &[u8], front: usize) -> Scan {
    let mut scan = Scan::default();
    let (mut at, mut before) = (front, 0_u32);
    while let Some(rest) = segment.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(head) = Head::read(rest).filter(|head| head.before >= before) else {
            scan.damaged |= rest.iter().take(ALIGN).any(|byte| *byte != 0);
            at += ALIGN;
            continue;
        };
        scan.lost += u64::from(head.before - before);
        scan.damaged |= head.before > before;
        before = head.before.saturating_add(head.spans);
        let length = HEAD.saturating_add(head.content).next_multiple_of(ALIGN);
        // One that was given away may be damaged as it likes.
        if !head.waits || read_record(rest).is_some() {
            scan.found.push(Found { at, length, spans: head.spans, waits: head.waits });
        } else {
            scan.lost += u64::from(head.spans);
            scan.damaged = true;
        }
        at = at.saturating_add(length);
    }
    scan
}

/// Where in a record its state stands, and what is written there when it was given away.
pub const STATE: usize = 4;
pub const SETTLED: u8 = b's';

struct Head {
    waits: bool,
    before: u32,
    spans: u32,
    content: usize,
    sum: u32,
}

impl Head {
    fn read(record: &[u8]) -> Option<Self> {
        let head = record.get(..HEAD)?;
        let mut rest = head;
        (take(&mut rest, RECORD.len())? == RECORD).then_some(())?;
        let state = *take(&mut rest, 4)?.first()?;
        let (before, spans) = (word(&mut rest)?, word(&mut rest)?);
        let (content, sum, _, own) = (word(&mut rest)? as usize, word(&mut rest)?, word(&mut rest)?, word(&mut rest)?);
        (head_sum(head.get(..HEAD - 4)?) == own && content <= LARGEST).then_some(())?;
        // A state that nobody writes is a damaged one: twice is better than never.
        Some(Self { waits: state != SETTLED, before, spans, content, sum })
    }
}

/// Of a head but for its state and its own checksum.
fn head_sum(head: &[u8]) -> u32 {
    let around = |range: Range<usize>| head.get(range).unwrap_or_default();
    checksum(&[around(0..STATE), around(STATE + 1..HEAD - 4)])
}

fn checksum(parts: &[&[u8]]) -> u32 {
    let mut crc = Crc::new();
    parts.iter().for_each(|part| crc.update(part));
    crc.sum()
}

fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(ALIGN), 0);
}

fn word(rest: &mut &[u8]) -> Option<u32> {
    take(rest, 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

const FRONT: &[u8] = b"spanmesh spill 1\n   ";
const RECORD: [u8; 4] = *b"span";
const WAITS: u8 = b'w';
const ALIGN: usize = 32;
const HEAD: usize = 32;
/// Of a record's content: a request has at most 32 MiB, but for one large span.
const LARGEST: usize = 64 * 1024 * 1024;

/// Whatever lies on the disk, no record is made up: each that is found reads back, within the bytes there are, and behind
/// the one before.
pub fn fuzz_segment(data: &[u8]) {
    let front = read_front(data).map_or(0, |(_, front)| front);
    let scan = scan(data, front);
    let mut end = front;
    for found in &scan.found {
        assert!(found.at >= end);
        end = found.at + found.length;
        if found.waits {
            let parcel = data.get(found.at..).and_then(read_record);
            assert_eq!(parcel.map(|parcel| parcel.len()), Some(found.spans as usize));
        }
    }
    assert!(scan.lost == 0 || scan.damaged);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::export::json::Resource;

    fn parcel(spans: &[&[u8]]) -> Parcel {
        let mut parcel = Parcel::default();
        spans.iter().for_each(|span| parcel.push(span));
        parcel
    }

    /// A segment of three parcels with two, one and three spans, and where each record begins.
    fn segment() -> (Vec<u8>, Vec<usize>) {
        let resource = Resource(vec![("service.name".into(), "a".into())]);
        let mut out = front(&Envelope::new(Format::Protobuf, &resource));
        let mut places = vec![out.len()];
        for (before, parcel) in
            [(0, parcel(&[b"one", b"two"])), (2, parcel(&[&[7; 100]])), (3, parcel(&[b"4", b"", b"6"]))]
        {
            out.extend(record(&parcel, before));
            places.push(out.len());
        }
        (out, places)
    }

    fn waiting(scan: &Scan) -> Vec<u32> {
        scan.found.iter().filter(|found| found.waits).map(|found| found.spans).collect()
    }

    #[test]
    fn what_was_written_is_read_back() {
        let (mut bytes, places) = segment();
        let (envelope, front) = read_front(&bytes).unwrap();
        assert_eq!(envelope.format(), Format::Protobuf);
        let seen = scan(&bytes, front);
        assert_eq!((waiting(&seen), seen.lost, seen.damaged), (vec![2, 1, 3], 0, false));
        let third = read_record(&bytes[places[2]..]).unwrap();
        assert_eq!(third.parts(), (&b"46"[..], &[1, 1, 2][..]));
        bytes[places[1] + STATE] = SETTLED;
        let seen = scan(&bytes, front);
        assert_eq!((waiting(&seen), seen.lost, seen.damaged), (vec![2, 3], 0, false));
    }

    #[test]
    fn an_end_at_any_byte_costs_the_last_record_and_its_spans_are_known() {
        let (bytes, places) = segment();
        for cut in places[0]..bytes.len() {
            let seen = scan(&bytes[..cut], places[0]);
            let whole = places[1..].iter().filter(|end| content_end(&bytes, **end) <= cut).count();
            assert_eq!(waiting(&seen), [2, 1, 3][..whole], "{cut}");
            let into = cut.saturating_sub(places[whole]);
            let lost = if into >= HEAD { u64::from([2, 1, 3, 0][whole] as u8) } else { 0 };
            assert_eq!(seen.lost, lost, "{cut}");
            assert_eq!(seen.damaged, into > 0 && whole < 3, "{cut}");
        }
        for cut in 0..places[0] {
            assert!(read_front(&bytes[..cut]).is_none() || cut + ALIGN > places[0], "{cut}");
        }
    }

    /// Padding may be missing.
    fn content_end(bytes: &[u8], end: usize) -> usize {
        end - bytes[..end].iter().rev().take(ALIGN).take_while(|byte| **byte == 0).count()
    }

    #[test]
    fn a_wrong_byte_anywhere_costs_one_record_and_is_counted() {
        let (bytes, places) = segment();
        for place in places[0]..bytes.len() {
            for wrong in [0x01, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[place] ^= wrong;
                let hit = places.iter().rposition(|at| *at <= place).unwrap();
                let in_state = place == places[hit] + STATE;
                let in_padding = place >= content_end(&segment().0, places[hit + 1]);
                let seen = scan(&bytes, places[0]);
                let mut rest = vec![2, 1, 3];
                if !in_state && !in_padding {
                    let lost = u64::from(rest.remove(hit));
                    assert!(seen.damaged, "{place}");
                    // Nothing behind the last record says how many spans were in it.
                    let known = hit < 2 || place >= places[hit] + HEAD;
                    assert_eq!(seen.lost, if known { lost } else { 0 }, "{place}");
                }
                assert_eq!(waiting(&seen), rest, "{place}");
            }
        }
        for place in 0..places[0] {
            let padding = place >= content_end(&bytes, places[0]);
            let mut bytes = bytes.clone();
            bytes[place] ^= 0x10;
            assert!(read_front(&bytes).is_none() || padding, "{place}");
        }
    }
}
