//! Baggage: whose members may travel on. W3C's passes as it came unless something must go, which goes by whole members; what
//! other formats have for it (`uberctx-*`, `jaeger-baggage`, `ot-baggage-*`, `sw8-correlation`) goes by the same rule.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::ink::Ink;
use super::text;

pub const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
const CORRELATION: HeaderName = HeaderName::from_static("sw8-correlation");
const JAEGER: HeaderName = HeaderName::from_static("jaeger-baggage");

/// How much there is of W3C's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Size {
    bytes: usize,
    members: usize,
}

impl Size {
    pub fn add(&mut self, line: &HeaderValue) {
        self.bytes += line.len() + 1;
        self.members += members(line).count();
    }

    /// More than every hop must carry: 64 members, 8,192 bytes.
    pub fn is_over(self) -> bool {
        self.members > MEMBERS || self.bytes > BYTES + 1
    }
}

/// Takes all baggage out, also that of other formats.
pub fn clear(headers: &mut HeaderMap) {
    for name in [BAGGAGE, CORRELATION, JAEGER] {
        headers.remove(name);
    }
    remove(headers, |_| true);
}

/// Takes out all that stands behind other keys, in whatever header it comes.
pub fn keep(headers: &mut HeaderMap, keys: &[String], ink: &mut Ink) {
    let listed = |key: &[u8]| keys.iter().any(|listed| listed.as_bytes() == key);
    for name in [BAGGAGE, CORRELATION, JAEGER] {
        let kept = match name == CORRELATION {
            true => write(headers, &name, ink, |member| correlated(member, &mut [0; LONGEST]).is_some_and(listed)),
            false => write(headers, &name, ink, |member| key(member).is_some_and(listed)),
        };
        put(headers, name, kept);
    }
    // Names of headers have no case, and a key in one has lost its own.
    remove(headers, |key| !keys.iter().any(|listed| listed.eq_ignore_ascii_case(key)));
}

/// Takes members of W3C's away until it is no more than every hop must carry.
pub fn cut(headers: &mut HeaderMap, ink: &mut Ink) {
    let kept = write(headers, &BAGGAGE, ink, |member| key(member).is_some());
    put(headers, BAGGAGE, kept);
}

/// What stands behind a key for the first time, as it is written, without its properties.
pub fn value<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a [u8]> {
    let mut members = headers.get_all(BAGGAGE).iter().flat_map(members);
    let member = members.find(|member| key(member) == Some(wanted.as_bytes()))?;
    let (_, value) = member.split_at_checked(member.iter().position(|byte| *byte == b'=')? + 1)?;
    value.split(|byte| *byte == b';').next().map(<[u8]>::trim_ascii)
}

fn write(headers: &HeaderMap, name: &HeaderName, ink: &mut Ink, keep: impl Fn(&[u8]) -> bool) -> Option<HeaderValue> {
    let mut length = 0;
    let lines = headers.get_all(name);
    let most = lines.iter().fold(0, |sum, line| sum + line.len() + 1).min(BYTES);
    let value = ink.value(most, |out| {
        for member in lines.iter().flat_map(members).filter(|member| keep(member)).take(MEMBERS) {
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

fn put(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) => drop(headers.insert(name, value)),
        None => drop(headers.remove(name)),
    }
}

/// Takes out headers that have their key in their name. All are found first: to look again after each would take quadratic time.
fn remove(headers: &mut HeaderMap, is_unwanted: impl Fn(&str) -> bool) {
    let key = |name: &HeaderName| {
        let name = name.as_str();
        name.strip_prefix("uberctx-").or_else(|| name.strip_prefix("ot-baggage-")).is_some_and(&is_unwanted)
    };
    let names: Vec<HeaderName> = headers.keys().filter(|name| key(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

fn members(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let members = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    members.filter(|member| !member.is_empty())
}

fn key(member: &[u8]) -> Option<&[u8]> {
    let (key, _) = member.split_at(member.iter().position(|byte| *byte == b'=')?);
    Some(key.trim_ascii()).filter(|key| !key.is_empty())
}

/// Of `{key}:{value}`, both in base64.
fn correlated<'a>(member: &[u8], scratch: &'a mut [u8]) -> Option<&'a [u8]> {
    let (key, _) = member.split_at(member.iter().position(|byte| *byte == b':')?);
    text::base64(key, scratch)
}

const MEMBERS: usize = 64;
const BYTES: usize = 8192;
/// No listed key is longer.
const LONGEST: usize = 256;

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
        let lines = [("baggage", "a=1;p=q, b=2"), ("baggage", "ab=3 , c=%20,bad"), ("sw8-correlation", "")];
        let mut map = headers(&lines);
        keep(&mut map, &["a".to_owned(), "c".to_owned()], &mut Ink::default());
        assert_eq!(all(&map), ["a=1;p=q,c=%20"]);
        assert_eq!(map.len(), 1);
        keep(&mut map, &[], &mut Ink::default());
        assert!(map.is_empty());
    }

    #[test]
    fn what_is_listed_stays_in_every_format() {
        let lines = [
            ("uberctx-userid", "1"),
            ("uberctx-admin", "1"),
            ("ot-baggage-userid", "1"),
            ("ot-baggage-admin", "1"),
            ("jaeger-baggage", "admin=1, userId=2"),
            // admin, userId, no base64, no key.
            ("sw8-correlation", "YWRtaW4=:MQ==,dXNlcklk:Mg==,dXNlcklk!:MQ==,:MQ=="),
        ];
        let mut map = headers(&lines);
        keep(&mut map, &["userId".to_owned()], &mut Ink::default());
        let mut left: Vec<_> = map.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text"))).collect();
        left.sort_unstable();
        let expected = [
            ("jaeger-baggage", "userId=2"),
            ("ot-baggage-userid", "1"),
            ("sw8-correlation", "dXNlcklk:Mg=="),
            ("uberctx-userid", "1"),
        ];
        assert_eq!(left, expected);
        keep(&mut map, &[], &mut Ink::default());
        assert!(map.is_empty());
    }

    fn limit(headers: &mut HeaderMap) -> bool {
        let mut size = Size::default();
        headers.get_all(BAGGAGE).iter().for_each(|line| size.add(line));
        if size.is_over() {
            cut(headers, &mut Ink::default());
        }
        size.is_over()
    }

    #[test]
    fn up_to_the_limits_it_passes_as_it_came_and_beyond_whole_members_go() {
        let many = |count: usize, size: usize| {
            (0..count).map(|number| format!("{number:03}={}", "v".repeat(size))).collect::<Vec<_>>().join(",")
        };
        for (count, size, left) in [(64, 10, 64), (65, 10, 64), (180, 1, 64), (64, 123, 64), (64, 124, 63)] {
            let mut map = headers(&[("baggage", &many(count, size))]);
            assert_eq!(limit(&mut map), left < count, "{count} {size}");
            assert_eq!(all(&map)[0], many(left, size), "{count} {size}");
        }
        let mut map = headers(&[("baggage", &many(1, 9000))]);
        assert!(limit(&mut map) && map.is_empty());
    }
}
