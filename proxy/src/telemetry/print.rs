//! Writes numbers, addresses and durations into a buffer, digit by digit. For what every request writes: the
//! standard library's formatting machinery takes ten times as many instructions for an address.

use std::fmt::Display;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// In decimal.
pub fn number(out: &mut Vec<u8>, mut value: u64) {
    if value < 10 {
        return out.push(b'0' + value as u8);
    }
    let mut text = [0; DIGITS];
    let mut free = DIGITS;
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
        free -= 1;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(text.get(free..).unwrap_or_default());
}

/// As `Display` has it.
pub fn address(out: &mut Vec<u8>, value: SocketAddr) {
    if value.is_ipv6() {
        return display(out, value);
    }
    ip(out, value.ip());
    out.push(b':');
    number(out, value.port().into());
}

/// As `Display` has it.
pub fn ip(out: &mut Vec<u8>, value: IpAddr) {
    match value {
        IpAddr::V4(address) => {
            let (text, length) = ipv4(address);
            out.extend_from_slice(text.get(..length).unwrap_or_default());
        }
        IpAddr::V6(_) => display(out, value),
    }
}

/// The digits and points of an address, and how many bytes they take.
pub fn ipv4(address: Ipv4Addr) -> ([u8; IP], usize) {
    let (mut text, mut length) = ([0; IP], 0);
    let mut put = |byte| {
        if let Some(place) = text.get_mut(length) {
            *place = byte;
            length += 1;
        }
    };
    for (place, octet) in address.octets().into_iter().enumerate() {
        if place > 0 {
            put(b'.');
        }
        if octet >= 100 {
            put(b'0' + octet / 100);
        }
        if octet >= 10 {
            put(b'0' + octet / 10 % 10);
        }
        put(b'0' + octet % 10);
    }
    (text, length)
}

/// Seconds to the nanosecond, without the zeros at the end.
pub fn seconds(out: &mut Vec<u8>, value: Duration) {
    number(out, value.as_secs());
    let mut nanos = value.subsec_nanos();
    if nanos == 0 {
        return;
    }
    let mut text = *b".000000000";
    for digit in text.iter_mut().skip(1).rev() {
        *digit = b'0' + (nanos % 10) as u8;
        nanos /= 10;
    }
    let end = text.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
    out.extend_from_slice(text.get(..end).unwrap_or_default());
}

pub fn display(out: &mut Vec<u8>, value: impl Display) {
    // Writing into a Vec cannot fail.
    let _ = write!(out, "{value}");
}

/// Of the largest `u64`.
const DIGITS: usize = 20;
/// Of the longest address of IPv4.
const IP: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(fill: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        fill(&mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn numbers_print_as_the_standard_library_has_them() {
        let powers = (0..20).map(|power| 10u64.pow(power));
        for value in powers.flat_map(|power| [power - 1, power, power + 1]).chain([u64::MAX]) {
            assert_eq!(text(|out| number(out, value)), value.to_string());
        }
    }

    #[test]
    fn addresses_print_as_the_standard_library_has_them() {
        for value in
            ["0.0.0.0:0", "1.10.99.101:1", "255.255.255.255:65535", "10.0.100.9:80", "[::1]:443", "[fe80::1%3]:1"]
        {
            let value: SocketAddr = value.parse().expect(value);
            assert_eq!(text(|out| address(out, value)), value.to_string());
            assert_eq!(text(|out| ip(out, value.ip())), value.ip().to_string());
        }
    }

    #[test]
    fn seconds_have_the_digits_that_they_need() {
        for (nanos, expected) in [
            (0, "0"),
            (1, "0.000000001"),
            (1_500_000, "0.0015"),
            (999_999_999, "0.999999999"),
            (1_000_000_000, "1"),
            (61_020_000_000, "61.02"),
        ] {
            assert_eq!(text(|out| seconds(out, Duration::from_nanos(nanos))), expected);
        }
    }
}
