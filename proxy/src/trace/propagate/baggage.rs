//! W3C baggage: whose members may travel on. It passes as it came unless something must go, which goes by whole members.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::ink::Ink;

pub const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
const CORRELATION: HeaderName = HeaderName::from_static("sw8-correlation");
const JAEGER: HeaderName = HeaderName::from_static("jaeger-baggage");

/// Takes all baggage out, also that of other formats.
pub fn clear(headers: &mut HeaderMap) {
    for name in [BAGGAGE, CORRELATION, JAEGER] {
        headers.remove(name);
    }
    let is_baggage = |name: &str| name.starts_with("uberctx-") || name.starts_with("ot-baggage-");
    while let Some(name) = headers.keys().find(|name| is_baggage(name.as_str())).cloned() {
        headers.remove(name);
    }
}

/// Takes out the baggage that only other formats' headers hold, and of W3C's the members that are not listed.
pub fn keep(headers: &mut HeaderMap, keys: &[String], ink: &mut Ink) {
    let kept = write(headers, ink, |key| keys.iter().any(|listed| listed.as_bytes() == key));
    clear(headers);
    if let Some(kept) = kept {
        headers.insert(BAGGAGE, kept);
    }
}

/// Takes members away beyond what every hop must carry: 64 of them and 8,192 bytes. False if nothing had to go.
pub fn limit(headers: &mut HeaderMap, ink: &mut Ink) -> bool {
    let (mut bytes, mut count) = (0, 0);
    for line in headers.get_all(BAGGAGE) {
        bytes += line.len() + 1;
        count += members(line).count();
    }
    if count <= MEMBERS && bytes <= BYTES + 1 {
        return false;
    }
    match write(headers, ink, |_| true) {
        Some(kept) => drop(headers.insert(BAGGAGE, kept)),
        None => drop(headers.remove(BAGGAGE)),
    }
    true
}

/// What stands behind a key for the first time, as it is written, without its properties.
pub fn value<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a [u8]> {
    let mut members = headers.get_all(BAGGAGE).iter().flat_map(members);
    let member = members.find(|member| key(member) == Some(wanted.as_bytes()))?;
    let (_, value) = member.split_at_checked(member.iter().position(|byte| *byte == b'=')? + 1)?;
    value.split(|byte| *byte == b';').next().map(<[u8]>::trim_ascii)
}

fn write(headers: &HeaderMap, ink: &mut Ink, keep: impl Fn(&[u8]) -> bool) -> Option<HeaderValue> {
    let mut length = 0;
    let lines = headers.get_all(BAGGAGE);
    let most = lines.iter().fold(0, |sum, line| sum + line.len() + 1).min(BYTES);
    let value = ink.value(most, |out| {
        for member in lines.iter().flat_map(members).filter(|member| key(member).is_some_and(&keep)).take(MEMBERS) {
            let needs = member.len() + usize::from(length > 0);
            if length + needs > BYTES {
                continue;
            }
            if length > 0 {
                out.extend_from_slice(b",");
            }
            out.extend_from_slice(member);
            length += needs;
        }
    });
    value.filter(|_| length > 0)
}

fn members(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let members = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    members.filter(|member| !member.is_empty())
}

fn key(member: &[u8]) -> Option<&[u8]> {
    let (key, _) = member.split_at(member.iter().position(|byte| *byte == b'=')?);
    Some(key.trim_ascii()).filter(|key| !key.is_empty())
}

const MEMBERS: usize = 64;
const BYTES: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    fn all(headers: &HeaderMap) -> Vec<&str> {
        headers.get_all(BAGGAGE).iter().map(|value| value.to_str().expect("text")).collect()
    }

    #[test]
    fn what_is_listed_stays_with_its_properties() {
        let lines =
            [("baggage", "a=1;p=q, b=2"), ("baggage", "ab=3 , c=%20,bad"), ("uberctx-a", "1"), ("sw8-correlation", "")];
        let mut map = headers(&lines);
        keep(&mut map, &["a".to_owned(), "c".to_owned()], &mut Ink::default());
        assert_eq!(all(&map), ["a=1;p=q,c=%20"]);
        assert_eq!(map.len(), 1);
        keep(&mut map, &[], &mut Ink::default());
        assert!(map.is_empty());
    }

    #[test]
    fn up_to_the_limits_it_passes_as_it_came_and_beyond_whole_members_go() {
        let many = |count: usize, size: usize| {
            (0..count).map(|number| format!("{number:03}={}", "v".repeat(size))).collect::<Vec<_>>().join(",")
        };
        for (count, size, left) in [(64, 10, 64), (65, 10, 64), (180, 1, 64), (64, 123, 64), (64, 124, 63)] {
            let mut map = headers(&[("baggage", &many(count, size))]);
            assert_eq!(limit(&mut map, &mut Ink::default()), left < count, "{count} {size}");
            assert_eq!(all(&map)[0], many(left, size), "{count} {size}");
        }
        let mut map = headers(&[("baggage", &many(1, 9000))]);
        assert!(limit(&mut map, &mut Ink::default()) && map.is_empty());
    }
}
