//! `tracestate`: members of many vendors, in order, over several lines. It is looked through once without being kept,
//! and written anew only where a member changes; else it passes as it came. What must go goes by whole members.

use http::{HeaderMap, HeaderValue};

use super::ink::Ink;
use super::w3c::{self, TRACESTATE};

/// A look through the lines, one after another.
#[derive(Clone, Copy, Debug, Default)]
pub struct Check {
    lines: usize,
    members: usize,
    ours: bool,
    ot: bool,
    broken: bool,
}

/// What it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    Absent,
    Valid {
        /// The mesh's own member is there, and OpenTelemetry's.
        ours: bool,
        ot: bool,
    },
    /// One member that is none spoils the whole list.
    Invalid,
}

impl Check {
    pub fn line(&mut self, line: &HeaderValue) {
        self.lines += 1;
        for member in members(line) {
            let Some((key, _)) = parse(member) else { return self.broken = true };
            self.members += 1;
            self.ours |= key == OURS.as_bytes();
            self.ot |= key == OT.as_bytes();
        }
    }

    pub fn end(self) -> Checked {
        match self {
            Self { lines: 0, .. } => Checked::Absent,
            Self { broken: false, members: 0..=MEMBERS, ours, ot, .. } => Checked::Valid { ours, ot },
            _ => Checked::Invalid,
        }
    }
}

impl Checked {
    pub fn is_valid(self) -> bool {
        matches!(self, Self::Valid { .. })
    }
}

/// What becomes of the list.
#[derive(Clone, Copy, Debug, Default)]
pub struct Edit<'a> {
    pub without: &'a [&'a str],
    /// A member that is new or changed, which goes to the left.
    pub with: Option<(&'a str, &'a str)>,
}

pub fn check(headers: &HeaderMap) -> Checked {
    let mut check = Check::default();
    let [_, tracestate] = &w3c::NAMES;
    headers.get_all(tracestate).iter().for_each(|line| check.line(line));
    check.end()
}

/// All of it as one value. `None` where it is longer than what is written anew.
pub fn whole(headers: &HeaderMap) -> Option<HeaderValue> {
    let lines = headers.get_all(TRACESTATE);
    let (first, more) = (lines.iter().next()?, lines.iter().nth(1).is_some());
    if lines.iter().fold(0, |sum, line| sum + line.len() + 1) > BYTES + 1 {
        return None;
    }
    if !more {
        return Some(first.clone());
    }
    let lines: Vec<&[u8]> = lines.iter().map(HeaderValue::as_bytes).collect();
    HeaderValue::from_bytes(&lines.join(&b',')).ok()
}

/// The value of a member.
pub fn member<'a>(headers: &'a HeaderMap, key: &str) -> Option<&'a str> {
    let mut all = headers.get_all(TRACESTATE).iter().flat_map(members).filter_map(parse);
    all.find(|(name, _)| *name == key.as_bytes()).and_then(|(_, value)| std::str::from_utf8(value).ok())
}

/// The first member of a request that brought none: what most requests need, so that it costs little.
pub fn begin(headers: &mut HeaderMap, (key, value): (&str, &[&str]), ink: &mut Ink) {
    let written = ink.value(key.len() + 1 + value.iter().map(|part| part.len()).sum::<usize>(), |out| {
        [key, "="].iter().chain(value).for_each(|part| out.extend_from_slice(part.as_bytes()));
    });
    if let Some(value) = written {
        let [_, tracestate] = &w3c::NAMES;
        headers.insert(tracestate, value);
    }
}

/// Writes the list anew, in one line. Of a valid list.
pub fn rewrite(headers: &mut HeaderMap, edit: &Edit<'_>, ink: &mut Ink) {
    let value = {
        let kept = |key: &[u8]| {
            !edit.without.iter().any(|name| name.as_bytes() == key)
                && edit.with.is_none_or(|(name, _)| name.as_bytes() != key)
        };
        let members = headers.get_all(TRACESTATE).iter().flat_map(members);
        let all = members.filter(|member| parse(member).is_some_and(|(key, _)| kept(key)));
        let mut list: [Option<&[u8]>; MEMBERS] = [None; MEMBERS];
        list.iter_mut().zip(all).for_each(|(place, member)| *place = Some(member));
        let new = edit.with.map_or(0, |(key, value)| key.len() + value.len() + 2);
        let total = new + list.iter().flatten().fold(0, |sum, member| sum + member.len() + 1);
        let mut over = total.saturating_sub(BYTES + 1);
        // Long members first, from the end, as far as that is needed; then whatever stands at the end.
        for long in [true, false] {
            for place in list.iter_mut().rev().filter(|place| place.is_some_and(|member| !long || member.len() > LONG))
            {
                if over > 0 {
                    over = over.saturating_sub(place.take().map_or(0, |member| member.len() + 1));
                }
            }
        }
        let room = MEMBERS - usize::from(edit.with.is_some());
        let mut empty = true;
        let value = ink.value(total, |out| {
            if let Some((key, value)) = edit.with {
                out.extend_from_slice(key.as_bytes());
                out.extend_from_slice(b"=");
                out.extend_from_slice(value.as_bytes());
                empty = false;
            }
            for member in list.iter().flatten().take(room) {
                if !empty {
                    out.extend_from_slice(b",");
                }
                out.extend_from_slice(member);
                empty = false;
            }
        });
        value.filter(|_| !empty)
    };
    match value {
        Some(value) => drop(headers.insert(TRACESTATE, value)),
        None => drop(headers.remove(TRACESTATE)),
    }
}

/// Empty members are allowed and mean nothing.
fn members(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let members = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    members.filter(|member| !member.is_empty())
}

fn parse(member: &[u8]) -> Option<(&[u8], &[u8])> {
    let (key, value) = member.split_at(member.iter().position(|byte| *byte == b'=')?);
    let value = value.get(1..)?;
    let starts = key.first().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let is_key = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(byte);
    let is_value = |byte: &u8| (0x20..=0x7e).contains(byte) && *byte != b'=';
    let fits = (1..=256).contains(&key.len()) && (1..=256).contains(&value.len());
    (starts && fits && key.iter().all(is_key) && value.iter().all(is_value)).then_some((key, value))
}

/// The mesh's member: written by proxies alone, so that who is no proxy cannot bring it.
pub const OURS: &str = "spanmesh";
/// OpenTelemetry's, in which sampling is told.
pub const OT: &str = "ot";
const MEMBERS: usize = 32;
/// What a list that is written anew may have; one that is only passed on may be longer.
const BYTES: usize = 4096;
/// These go first.
const LONG: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(TRACESTATE, HeaderValue::from_str(line).expect("a value"));
        }
        headers
    }

    fn is_valid(text: &str) -> bool {
        check(&headers(&[text])).is_valid()
    }

    #[test]
    fn keys_and_values_of_level_two() {
        for good in [
            "foo=1",
            "foo=1,bar=2",
            "foo=1 \t , \t bar=2, \t baz=3",
            "foo=1,",
            "foo=1,,bar=2",
            "",
            "foo@=1",
            "foo@@bar=1",
            "1a-2f@foo=1",
            "0=1",
            "foo=a b",
            "foo=!~",
            "foo=1,foo=2",
        ] {
            assert!(is_valid(good), "{good}");
        }
        for bad in
            ["@foo=1,bar=2", "foo=,bar=3", "foo =1", "FOO=1", "foo.bar=1", "foo", "foo=bar=baz", "=1", "foo=é", "-a=1"]
        {
            assert!(!is_valid(bad), "{bad}");
        }
        for (length, valid) in [(256, true), (257, false)] {
            assert_eq!(is_valid(&format!("{}=1", "k".repeat(length))), valid);
            assert_eq!(is_valid(&format!("k={}", "v".repeat(length))), valid);
        }
    }

    #[test]
    fn there_are_at_most_thirty_two_over_all_lines() {
        let many = |count| (0..count).map(|number| format!("k{number}=1")).collect::<Vec<_>>().join(",");
        assert!(is_valid(&many(32)));
        assert!(!is_valid(&many(33)));
        assert!(check(&headers(&["", &many(20), "a=1"])).is_valid());
        assert_eq!(check(&headers(&[&many(20), &many(13)])), Checked::Invalid);
        assert_eq!(check(&HeaderMap::new()), Checked::Absent);
    }

    #[test]
    fn a_changed_member_moves_to_the_left_and_the_last_gives_way() {
        let mut ink = Ink::default();
        let mut map = headers(&["a=1,ot=th:8", "spanmesh=x,b=2"]);
        assert_eq!(check(&map), Checked::Valid { ours: true, ot: true });
        assert_eq!(member(&map, OT), Some("th:8"));
        rewrite(&mut map, &Edit { without: &[OURS], with: Some((OT, "th:c")) }, &mut ink);
        assert_eq!(map.get_all(TRACESTATE).iter().collect::<Vec<_>>(), ["ot=th:c,a=1,b=2"]);
        rewrite(&mut map, &Edit { without: &[OT, "a", "b"], with: None }, &mut ink);
        assert!(map.is_empty());
        let full = (0..32).map(|number| format!("k{number}=1")).collect::<Vec<_>>().join(",");
        let mut map = headers(&[&full]);
        rewrite(&mut map, &Edit { without: &[], with: Some((OT, "th:c")) }, &mut ink);
        assert!(check(&map).is_valid() && member(&map, "k31").is_none() && member(&map, "k30").is_some());
    }

    #[test]
    fn long_members_give_way_first() {
        let short = (0..10).map(|number| format!("s{number}={}", "v".repeat(100)));
        let long = (0..20).map(|number| format!("l{number}={}", "v".repeat(250)));
        let all = long.chain(short).collect::<Vec<_>>().join(",");
        let mut map = headers(&[&all]);
        rewrite(&mut map, &Edit { without: &[], with: Some((OT, "th:c")) }, &mut Ink::default());
        let left = map.get(TRACESTATE).expect("a list").to_str().expect("text").to_owned();
        assert!(left.len() <= BYTES && left.len() > BYTES - 300, "{}", left.len());
        assert!(left.contains("s9=") && left.contains("l0=") && !left.contains("l19="));
    }
}
