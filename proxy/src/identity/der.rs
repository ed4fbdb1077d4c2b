//! The one field of a certificate that webpki keeps to itself: when it ends. A cursor, no index, no allocation.
//!
//! It judges nothing (rustls does, in every handshake); it is for the metric that warns before the end. What it cannot
//! read is `None`. Called by `certs`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `notAfter` of an X.509 certificate in DER (RFC 5280 §4.1).
pub fn not_after(certificate: &[u8]) -> Option<SystemTime> {
    let mut to_be_signed = Reader(Reader(Reader(certificate).tagged(SEQUENCE)?).tagged(SEQUENCE)?);
    // Version (left out in version 1) and serial number; then signature algorithm and issuer.
    if to_be_signed.element()?.0 == VERSION {
        to_be_signed.tagged(INTEGER)?;
    }
    to_be_signed.tagged(SEQUENCE)?;
    to_be_signed.tagged(SEQUENCE)?;
    let mut validity = Reader(to_be_signed.tagged(SEQUENCE)?);
    validity.element()?;
    let (tag, text) = validity.element()?;
    match tag {
        UTC_TIME => {
            // RFC 5280 §4.1.2.5.1: 50 to 99 are in the twentieth century.
            let (year, rest) = number(text, 2)?;
            time_of(if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = number(text, 4)?;
            time_of(year, rest)
        }
        _ => None,
    }
}

pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// Tag and contents. Tags of more than one byte and lengths of more than four do not occur in certificates.
    pub(super) fn element(&mut self) -> Option<(u8, &'a [u8])> {
        let [tag, length] = *self.take(2)? else { return None };
        let length = match length {
            0..=0x7f => usize::from(length),
            0x81..=0x84 => {
                let bytes = self.take(usize::from(length & 0x7f))?;
                bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
            }
            _ => return None,
        };
        Some((tag, self.take(length)?))
    }

    pub(super) fn tagged(&mut self, expected: u8) -> Option<&'a [u8]> {
        let (tag, contents) = self.element()?;
        (tag == expected).then_some(contents)
    }
}

fn number(text: &[u8], digits: usize) -> Option<(u64, &[u8])> {
    let (number, rest) = text.split_at_checked(digits)?;
    let value =
        number.iter().try_fold(0, |value, digit| digit.is_ascii_digit().then(|| value * 10 + u64::from(digit - b'0')));
    Some((value?, rest))
}

/// The rest of a time is `MMDDHHMMSSZ`; DER allows no other form.
fn time_of(year: u64, rest: &[u8]) -> Option<SystemTime> {
    let (month, rest) = number(rest, 2)?;
    let (day, rest) = number(rest, 2)?;
    let (hour, rest) = number(rest, 2)?;
    let (minute, rest) = number(rest, 2)?;
    let (second, rest) = number(rest, 2)?;
    if rest != b"Z" || !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 59
    {
        return None;
    }
    // Days since 0000-03-01 in the Gregorian calendar: with the year beginning in March, the leap day comes last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    let days = days.checked_sub(DAYS_BEFORE_1970)?;
    UNIX_EPOCH.checked_add(Duration::from_secs(days * 86_400 + hour * 3_600 + minute * 60 + second))
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// From 0000-03-01 to 1970-01-01.
const DAYS_BEFORE_1970: u64 = 719_468;

/// Any bytes, and a certificate is whatever begins like one: nothing may panic, and no end lies beyond the year 9999.
pub fn fuzz_der(data: &[u8]) {
    let end_of_9999 = UNIX_EPOCH + Duration::from_secs(253_402_300_800);
    for skip in 0..data.len().min(8) {
        let (_, data) = data.split_at(skip);
        assert!(not_after(data).is_none_or(|end| end < end_of_9999));
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::super::fixture::Authority;
    use super::*;

    fn seconds(year: u64, rest: &str) -> Option<u64> {
        time_of(year, rest.as_bytes()).map(|time| time.duration_since(UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (year, rest, expected) in [
            (1970, "0101000000Z", Some(0)),
            (2000, "0229120000Z", Some(951_825_600)),
            (2038, "0119031407Z", Some(i32::MAX as u64)),
            (2049, "1231235959Z", Some(2_524_607_999)),
            (2100, "0301000000Z", Some(4_107_542_400)),
            (9999, "1231235959Z", Some(253_402_300_799)),
            (1969, "1231235959Z", None),
            (0, "0101000000Z", None),
            (2026, "1301000000Z", None),
            (2026, "0100000000Z", None),
            (2026, "0101240000Z", None),
            (2026, "0101000000", None),
            (2026, "01010000Z", None),
            (2026, "0101000000+0100", None),
            (2026, "01 1000000Z", None),
        ] {
            assert_eq!(seconds(year, rest), expected, "{year} {rest}");
        }
    }

    #[test]
    fn the_end_of_a_certificate_is_read_in_both_forms() {
        let authority = Authority::new();
        for (year, expected) in [(2040, 2_208_988_800), (2050, 2_524_608_000)] {
            let leaf = authority.leaf_until(&["a.example"], year);
            assert_eq!(not_after(&leaf.der), Some(UNIX_EPOCH + Duration::from_secs(expected)));
        }
    }

    #[test]
    fn broken_certificates_do_no_harm() {
        let good = Authority::new().leaf(&["a.example"]).der;
        for end in 0..good.len() {
            fuzz_der(&good[..end]);
        }
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..20_000 {
            let mut bad = good.clone();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..bad.len());
                bad[at] = rng.random();
            }
            fuzz_der(&bad);
        }
        fuzz_der(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0x30]);
    }
}
