//! Finds secrets by what they look like, wherever they stand in a text: numbers of cards, e-mail addresses, tokens, and the
//! user of a URL. One pass over the bytes; whatever looks back or ahead has a bound, so no text takes longer than its length.
//! Texts may be percent-encoded: what an escape stands for counts where it parts words.

use std::ops::Range;

use crate::config::Pattern;

/// What was found, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Secret(Range<usize>),
    /// The user, and perhaps password, before a URL's host; `@` is not part of it.
    User(Range<usize>),
}

/// What follows a text that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing.
    Whole,
    /// More of it, which is not there: what touches its end may be the begin of a secret, and counts as one.
    Cut,
}

/// Which patterns are looked for. The users of URLs are found in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patterns {
    cards: bool,
    emails: bool,
    bearers: bool,
    jwts: bool,
}

impl Patterns {
    pub fn of(wanted: &[Pattern]) -> Self {
        let has = |pattern| wanted.contains(&pattern);
        Self {
            cards: has(Pattern::Cards),
            emails: has(Pattern::Emails),
            bearers: has(Pattern::Bearers),
            jwts: has(Pattern::Jwts),
        }
    }

    /// What is there, in order and without overlaps.
    pub fn find(self, text: &[u8], end: End) -> impl Iterator<Item = Found> {
        Scan { text, wanted: self, cut: (end == End::Cut).then_some(text.len()), at: 0, told: 0, escaped: None }
    }
}

struct Scan<'a> {
    text: &'a [u8],
    wanted: Patterns,
    /// Where the text was cut, if it was.
    cut: Option<usize>,
    at: usize,
    /// Where the last find ended.
    told: usize,
    /// Behind the last escape: what stands there begins a word, whatever the escape's digits are.
    escaped: Option<usize>,
}

impl Iterator for Scan<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        loop {
            let skipped = self.text.get(self.at..)?.iter().position(|byte| MARKS[usize::from(*byte)])?;
            self.at += skipped;
            if let Some(found) = self.here() {
                let (Found::Secret(range) | Found::User(range)) = &found;
                (self.at, self.told) = (range.end, range.end);
                return Some(found);
            }
        }
    }
}

impl Scan<'_> {
    /// What the byte at this place is a sign of. Steps on where it is a sign of nothing.
    fn here(&mut self) -> Option<Found> {
        let (at, wanted) = (self.at, self.wanted);
        self.at += 1;
        match self.text.get(at)? {
            b'0'..=b'9' => {
                let run = self.run(at, CARD_MAX + 1, |byte| byte.is_ascii_digit());
                self.at = at + run;
                self.card(at, run).filter(|_| wanted.cards).map(Found::Secret)
            }
            b':' => self.user(at, b"://", b"@", b"/"),
            b'@' => self.email(at, 1).filter(|_| wanted.emails).map(Found::Secret),
            b'%' => {
                if !self.text.get(at + 1..at + 3)?.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                (self.at, self.escaped) = (at + 3, Some(at + 3));
                if self.is(at, b"%40") && wanted.emails {
                    return self.email(at, 3).map(Found::Secret);
                }
                self.user(at, b"%3A%2F%2F", b"%40", b"%2F")
            }
            b'J' => self.jwt(at.checked_sub(2)?).filter(|_| wanted.jwts).map(Found::Secret),
            _ => self.bearer(at).filter(|_| wanted.bearers).map(Found::Secret),
        }
    }

    /// 13 to 19 digits that begin like a card's and hold by Luhn's sum: in one, or in groups that begin with four.
    fn card(&self, start: usize, run: usize) -> Option<Range<usize>> {
        if !self.begins(start) || !matches!(self.text.get(start), Some(b'2'..=b'6')) {
            return None;
        }
        let ends = |end: usize| !self.text.get(end).is_some_and(u8::is_ascii_alphabetic);
        if (CARD_MIN..=CARD_MAX).contains(&run) {
            return (ends(start + run) && luhn(self.text.get(start..start + run)?)).then_some(start..start + run);
        }
        let mut digits = [0; CARD_MAX];
        let (mut count, mut end, mut best) = (0, start, None);
        let separator = separator(self.text.get(start + 4..).filter(|_| run == 4)?)?;
        loop {
            let group = self.run(end, 7, |byte| byte.is_ascii_digit());
            let (Some(from), true) = (self.text.get(end..end + group), (3..=6).contains(&group)) else { return best };
            let Some(place) = digits.get_mut(count..count + group) else { return best };
            place.copy_from_slice(from);
            (count, end) = (count + group, end + group);
            if count >= CARD_MIN && ends(end) && luhn(digits.get(..count)?) {
                best = Some(start..end);
            }
            if !self.is(end, separator) {
                return best;
            }
            end += separator.len();
        }
    }

    /// A name, `@`, and a domain whose last word is of letters.
    fn email(&self, at: usize, mark: usize) -> Option<Range<usize>> {
        let before = self.text.get(self.told..at)?;
        let name = before.iter().rev().take(NAME_MAX).take_while(|byte| is_name(**byte)).count();
        let domain =
            self.run(at + mark, DOMAIN_MAX, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
        let told = self.text.get(at + mark..at + mark + domain)?;
        if self.is_cut(at + mark + domain) {
            return (name > 0).then_some(at - name..at + mark + domain);
        }
        let last = told.iter().rposition(u8::is_ascii_alphanumeric)? + 1;
        let mut words = told.get(..last)?.rsplitn(2, |byte| *byte == b'.');
        let (top, rest) = (words.next()?, words.next()?);
        let is_domain = top.len() >= 2 && top.iter().all(u8::is_ascii_alphabetic) && !rest.is_empty();
        (name > 0 && is_domain).then_some(at - name..at + mark + last)
    }

    /// `://user:password@`, or the same within a value that is encoded.
    fn user(&self, at: usize, begin: &[u8], end: &[u8], slash: &[u8]) -> Option<Found> {
        if !self.is(at, begin) {
            return None;
        }
        let start = at + begin.len();
        let mut user = None;
        for place in start..start + USER_MAX {
            if self.is_cut(place) {
                return Some(Found::User(start..place));
            }
            let is_over = |byte: &u8| byte.is_ascii_whitespace() || b"/?#&\"'<>,".contains(byte);
            if self.text.get(place).is_none_or(is_over) || self.is(place, slash) {
                break;
            }
            if self.is(place, end) || self.is(place, b"@") {
                user = Some(place);
            }
        }
        user.filter(|end| *end > start).map(|end| Found::User(start..end))
    }

    /// Two or more parts of base64url, the first of which is an object of JSON.
    fn jwt(&self, start: usize) -> Option<Range<usize>> {
        if !self.is(start, b"eyJ") || start < self.told || !self.begins(start) {
            return None;
        }
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if start.checked_sub(1).and_then(|before| self.text.get(before)).is_some_and(|before| is_part(*before))
            && self.escaped != Some(start)
        {
            return None;
        }
        let length = self.run(start, usize::MAX, is_part);
        let parts = self.text.get(start..start + length)?.split(|byte| *byte == b'.');
        let is_token = self.is_cut(start + length) || parts.filter(|part| part.len() >= TOKEN).count() >= 2;
        is_token.then_some(start..start + length)
    }

    /// What follows the word.
    fn bearer(&self, at: usize) -> Option<Range<usize>> {
        let word = self.text.get(at..at + 6)?;
        if !word.eq_ignore_ascii_case(b"bearer") || !self.begins(at) {
            return None;
        }
        let gap = match self.text.get(at + 6..)? {
            [b' ' | b'+' | b':' | b'=', ..] => 1,
            [b'%', b'2', b'0' | b'B' | b'b', ..] => 3,
            _ => return None,
        };
        let start = at + 6 + gap;
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=%".contains(&byte);
        let length = self.run(start, usize::MAX, is_token);
        (length >= TOKEN || self.is_cut(start + length)).then_some(start..start + length)
    }

    /// What would tell is not there.
    fn is_cut(&self, at: usize) -> bool {
        self.cut == Some(at)
    }

    fn run(&self, from: usize, most: usize, is: impl Fn(u8) -> bool) -> usize {
        self.text.get(from..).unwrap_or_default().iter().take(most).take_while(|byte| is(**byte)).count()
    }

    /// Case does not matter: escapes are written either way.
    fn is(&self, at: usize, what: &[u8]) -> bool {
        self.text.get(at..at + what.len()).is_some_and(|there| there.eq_ignore_ascii_case(what))
    }

    /// Nothing of the same word stands before it.
    fn begins(&self, at: usize) -> bool {
        let before = at.checked_sub(1).and_then(|before| self.text.get(before));
        at == self.told || self.escaped == Some(at) || !before.is_some_and(u8::is_ascii_alphanumeric)
    }
}

fn separator(text: &[u8]) -> Option<&'static [u8]> {
    const SEPARATORS: [&[u8]; 7] = [b"-", b" ", b"+", b".", b"%20", b"%2D", b"%2B"];
    let begins =
        |separator: &&&[u8]| text.get(..separator.len()).is_some_and(|there| there.eq_ignore_ascii_case(separator));
    SEPARATORS.iter().find(begins).copied()
}

fn luhn(digits: &[u8]) -> bool {
    let double = |digit: u32| if digit > 4 { 2 * digit - 9 } else { 2 * digit };
    let digits = digits.iter().rev().map(|digit| u32::from(digit.wrapping_sub(b'0')) % 10);
    let sum: u32 = digits.zip(0..).map(|(digit, place)| if place % 2 == 1 { double(digit) } else { digit }).sum();
    sum.is_multiple_of(10)
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80 || b"._+-%".contains(&byte)
}

/// Bytes that a secret may be known by; most texts have few of them.
static MARKS: [bool; 256] = {
    let mut marks = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        marks[byte] = matches!(byte as u8, b'0'..=b'9' | b':' | b'@' | b'%' | b'J' | b'b' | b'B');
        byte += 1;
    }
    marks
};

const CARD_MIN: usize = 13;
const CARD_MAX: usize = 19;
/// RFC 5321 section 4.5.3.1.
const NAME_MAX: usize = 64;
const DOMAIN_MAX: usize = 255;
const USER_MAX: usize = 256;
/// Shorter ones are words.
const TOKEN: usize = 8;
/// How much further than it is told a text has to be looked at: whatever begins before that is known for what it is by then, or
/// touches the end. The longest is an e-mail address up to its `@`, and a card's number in groups with escapes between them.
pub const AHEAD: usize = 96;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const ALL: Patterns = Patterns { cards: true, emails: true, bearers: true, jwts: true };

    fn found(text: &str) -> Vec<&str> {
        let ranges = ALL.find(text.as_bytes(), End::Whole).map(|found| match found {
            Found::Secret(range) | Found::User(range) => range,
        });
        ranges.map(|range| &text[range]).collect()
    }

    #[test]
    fn cards_are_found_in_one_and_in_groups() {
        for (text, expected) in [
            ("/cards/4111111111111111/x", &["4111111111111111"][..]),
            ("n=4111-1111-1111-1111&m=5500+0000+0000+0004", &["4111-1111-1111-1111", "5500+0000+0000+0004"]),
            ("n=3782%20822463%2010005.", &["3782%20822463%2010005"]),
            ("12 4111 1111 1111 1111", &["4111 1111 1111 1111"]),
            ("%204111111111111111%20", &["4111111111111111"]),
            ("q%3D4111111111111111", &["4111111111111111"]),
            ("4111 1111 1111 1111 4111-1111-1111-1111", &["4111 1111 1111 1111", "4111-1111-1111-1111"]),
            ("/orders/4111111111111112", &[]),
            ("/orders/9111111111111111", &[]),
            ("/x/a4111111111111111", &[]),
            ("/x/4111111111111111a", &[]),
            ("41111111111111114111111111111111", &[]),
            ("4111-1111", &[]),
        ] {
            assert_eq!(found(text), expected, "{text}");
        }
    }

    #[test]
    fn addresses_are_found_as_they_are_and_encoded() {
        for (text, expected) in [
            ("/users/bob.b+x@mail.example.org/x", &["bob.b+x@mail.example.org"][..]),
            ("to=bob%40example.org&cc=a@b.cd.", &["bob%40example.org", "a@b.cd"]),
            ("/jörg@example.org", &["jörg@example.org"]),
            ("/@scope/name@1.2", &[]),
            ("/react@18.2.0-beta/x@y", &[]),
            ("@example.org", &[]),
        ] {
            assert_eq!(found(text), expected, "{text}");
        }
    }

    #[test]
    fn tokens_are_found_by_their_form_and_by_the_word_before() {
        for (text, expected) in [
            ("t=eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl&b", &["eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl"][..]),
            ("x%3DeyJhbGciOiJI.eyJzdWIiOiIx.", &["eyJhbGciOiJI.eyJzdWIiOiIx."]),
            ("auth=Bearer%20abcdefgh12&x", &["abcdefgh12"]),
            ("BEARER abc.def-ghi=", &["abc.def-ghi="]),
            ("/eyJ/eyebrow", &[]),
            ("the bearer of news", &[]),
            ("/forbearer abcdefghi", &[]),
        ] {
            assert_eq!(found(text), expected, "{text}");
        }
    }

    #[test]
    fn a_url_within_a_text_tells_no_user() {
        for (text, expected) in [
            ("/to/https://bob:pw@host/x@y", &["bob:pw"][..]),
            ("to=https%3a%2F%2Fbob%3Apw%40host%2Fx", &["bob%3Apw"]),
            ("https://host/a:b@c", &[]),
        ] {
            assert_eq!(found(text), expected, "{text}");
            let users = Patterns::default().find(text.as_bytes(), End::Whole).count();
            assert_eq!(users, expected.len(), "patterns or not: {text}");
        }
    }

    #[test]
    fn a_secret_that_begins_before_a_cut_is_found_wherever_the_cut_is() {
        for (secret, visible) in [
            ("4111111111111111", 0),
            ("4111%201111%201111%201111", 0),
            ("a.name.as.long.as.names.are.that.nobody.would.like.to.type@mail.example.org", 0),
            ("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJlIGFuZCBtb3Jl", 0),
            ("Bearer abcdefghijklmnopqrstuvwxyz", 7),
            ("https://a-user:and-a-password@host/", 8),
        ] {
            let text = format!("/path/{secret}/{}", "x".repeat(2 * AHEAD));
            for told in 7 + visible..6 + secret.len() {
                let found = ALL.find(&text.as_bytes()[..told + AHEAD], End::Cut).next();
                let Some(Found::Secret(range) | Found::User(range)) = found else { panic!("{}", &text[..told]) };
                assert!(
                    range.start <= 6 + visible && (range.end >= told || secret.ends_with("@host/")),
                    "{range:?} {secret}"
                );
            }
        }
    }

    #[test]
    fn what_touches_a_cut_is_a_secret_and_what_does_not_is_looked_at_as_ever() {
        let found = |text: &str| {
            let ranges = ALL.find(text.as_bytes(), End::Cut).map(|found| match found {
                Found::Secret(range) | Found::User(range) => text[range].to_owned(),
            });
            ranges.collect::<Vec<_>>().join(" ")
        };
        for (text, expected) in [
            ("/a/eyJ", "eyJ"),
            ("/a/eyJ/b", ""),
            ("/a?t=bearer+a", "a"),
            ("/a/bob@ex", "bob@ex"),
            ("/a/bob@", "bob@"),
            ("/to/https://bo", "bo"),
            ("/to/https://host/", ""),
            ("/a/bob@ex/c", ""),
        ] {
            assert_eq!(found(text), expected, "{text}");
        }
    }

    #[test]
    fn no_text_takes_long() {
        for piece in ["eyJ", "bearer ", "a@", "%40", "://", "%3A%2F%2F", "4111-", "4111", "1a@b.", "eyJaaaaaaa.%"] {
            let text = piece.repeat(200_000 / piece.len());
            let started = Instant::now();
            ALL.find(text.as_bytes(), End::Whole).for_each(drop);
            assert!(started.elapsed().as_secs() < 2, "{piece}");
        }
    }
}
