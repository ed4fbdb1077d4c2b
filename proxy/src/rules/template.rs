//! Templates of paths, for services that nobody has configured routes for: `/users/4711/items` is `/users/{id}/items`. What
//! can be told by its looks (numbers, UUIDs, hashes, dates, encoded blobs) is told without memory, so all replicas tell
//! the same; a place where too many words were seen becomes `{id}` too. Names spans and nothing else: no route.

use std::collections::HashSet;

/// What was seen of one service's paths. Bounded by the templates that it may have.
#[derive(Debug, Default)]
pub struct Templates {
    root: Place,
    /// Given so far. Never fewer, also when a place becomes `{id}`: a name that was told once stays in what others keep.
    known: usize,
    methods: HashSet<Box<str>>,
    /// The last template, so that one that is known allocates nothing.
    text: String,
}

/// A place in paths, after the segments that lead to it.
#[derive(Debug, Default)]
struct Place {
    words: Vec<(Box<str>, Place)>,
    any: Option<Box<Place>>,
    /// Too many words were seen here.
    open: bool,
    /// A path ended here.
    ends: bool,
}

impl Templates {
    /// The template of a path. `learn` is for paths that the service knows: what it refused teaches nothing. `None` beyond
    /// the cap or where `admit` says no to a new one, for unknown paths that are not to be learned, and for what is no path.
    pub fn find(&mut self, path: &str, learn: bool, admit: impl FnOnce(&str) -> bool) -> Option<&str> {
        let path = path.strip_prefix('/')?;
        let room = self.known < TEMPLATES;
        let Self { root, known, text: template, .. } = self;
        template.clear();
        let mut place = root;
        for (depth, segment) in path.split('/').enumerate() {
            template.push('/');
            if depth == DEPTH {
                template.push_str("{rest}");
                place = place.any(learn && room)?;
                break;
            }
            if !segment.is_empty() && (place.open || !is_word(segment)) {
                template.push_str(ID);
                place = place.any(learn && room)?;
                continue;
            }
            let seen = place.words.iter().position(|(word, _)| **word == *segment);
            let index = match seen {
                Some(index) => index,
                None if !(learn && room) => return None,
                // What is empty is no word.
                None if segment.is_empty() || place.words.len() < if depth == 0 { FIRST_WORDS } else { WORDS } => {
                    place.words.push((segment.into(), Place::default()));
                    place.words.len() - 1
                }
                None => {
                    // What was known of each word holds for all of them.
                    place.open = true;
                    place.words.clear();
                    template.push_str(ID);
                    place = place.any(true)?;
                    continue;
                }
            };
            template.push_str(segment);
            place = &mut place.words.get_mut(index)?.1;
        }
        if !place.ends {
            if !(learn && room && admit(template)) {
                return None;
            }
            place.ends = true;
            *known += 1;
        }
        Some(&self.text)
    }

    /// Whether a method of gRPC is one of those that the service may have names of. Under the same cap, and learned as paths
    /// are.
    pub fn method(&mut self, method: &str, learn: bool, admit: impl FnOnce(&str) -> bool) -> bool {
        if self.methods.contains(method) {
            return true;
        }
        let admitted = learn && self.known < TEMPLATES && admit(method);
        if admitted {
            self.known += 1;
            self.methods.insert(method.into());
        }
        admitted
    }

    pub fn len(&self) -> usize {
        self.known
    }

    pub fn is_empty(&self) -> bool {
        self.known == 0
    }
}

impl Place {
    fn any(&mut self, learn: bool) -> Option<&mut Place> {
        if self.any.is_none() && learn {
            self.any = Some(Box::default());
        }
        self.any.as_deref_mut()
    }
}

/// Whether a segment looks like a part of an interface and not like a name of one thing. `v2` and `oauth2` are words.
fn is_word(segment: &str) -> bool {
    let plain = segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    let digits = segment.bytes().filter(u8::is_ascii_digit).count();
    let letters = segment.bytes().filter(u8::is_ascii_alphabetic).count();
    plain
        && segment.len() <= WORD
        && digits <= WORD_DIGITS
        && letters >= digits
        && !is_hash(segment)
        && !is_blob(segment)
}

fn is_hash(segment: &str) -> bool {
    segment.len() >= HASH && segment.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Letters whose case changes at every other place are encoded bytes; `getOrderHistory` changes it where a word begins.
fn is_blob(segment: &str) -> bool {
    let changes = segment.as_bytes().windows(2).filter(|pair| match pair {
        [before, after] => before.is_ascii_lowercase() && after.is_ascii_uppercase(),
        _ => false,
    });
    segment.len() >= BLOB && (changes.count() + 1) * 3 > segment.len()
}

const ID: &str = "{id}";
/// Templates of one service in the life of a worker. Beyond that spans are named by their method alone.
pub const TEMPLATES: usize = 200;
/// Words at one place; an interface has rarely more, and names of things are soon more.
const WORDS: usize = 24;
/// At the first, where a whole interface hangs.
const FIRST_WORDS: usize = 64;
/// Segments that are looked at; what follows is one.
const DEPTH: usize = 10;
/// Of a word: letters, and digits among them.
const WORD: usize = 40;
const WORD_DIGITS: usize = 2;
/// Hexadecimal digits that are no word any more, and letters.
const HASH: usize = 12;
const BLOB: usize = 8;

/// Paths, a line each; one that begins with `!` is not learned. Every template is bounded, and known when it is asked
/// for again.
pub fn fuzz_templates(input: &[u8]) {
    let mut templates = Templates::default();
    for line in String::from_utf8_lossy(input).lines() {
        let (path, learn) = line.strip_prefix('!').map_or((line, true), |path| (path, false));
        let Some(first) = templates.find(path, learn, |_| true).map(str::to_owned) else { continue };
        assert!(first.starts_with('/') && first.len() <= (DEPTH + 1) * (WORD + 1), "{first}");
        assert_eq!(templates.find(path, false, |_| true), Some(first.as_str()), "{path}");
        assert!(templates.len() <= TEMPLATES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_the_name_of_one_thing_is_an_id() {
        for (path, template) in [
            ("/", "/"),
            ("/users/4711/items", "/users/{id}/items"),
            ("/users/4711/", "/users/{id}/"),
            ("/carts/0af76519-16cd-43dd-8448-eb211c80319c", "/carts/{id}"),
            ("/blobs/deadbeefdeadbeef", "/blobs/{id}"),
            ("/commits/a1b2c3d", "/commits/{id}"),
            ("/reports/2024-05-06", "/reports/{id}"),
            ("/token/dGhlQnJPd25GbFkK", "/token/{id}"),
            ("/mail/bob@example.org", "/mail/{id}"),
            ("/name/J%C3%BCrgen", "/name/{id}"),
            ("/api/v2/oauth2/getOrderHistory", "/api/v2/oauth2/getOrderHistory"),
            ("/static/app.min.js", "/static/app.min.js"),
            ("/a/b/c/d/e/f/g/h/i/j/k/l", "/a/b/c/d/e/f/g/h/i/j/{rest}"),
            ("/a//b", "/a//b"),
        ] {
            let mut templates = Templates::default();
            assert_eq!(templates.find(path, true, |_| true), Some(template), "{path}");
            assert_eq!(
                (templates.find(path, false, |_| true).map(str::to_owned), templates.len()),
                (Some(template.to_owned()), 1),
                "{path}"
            );
        }
        assert_eq!(Templates::default().find("*", true, |_| true), None);
    }

    #[test]
    fn a_place_with_too_many_words_is_an_id_and_stays_one() {
        let mut templates = Templates::default();
        let word = |number: usize| char::from(b'a' + u8::try_from(number).expect("a letter")).to_string();
        for number in 0..WORDS {
            let path = format!("/shops/{}/stock", word(number));
            assert_eq!(templates.find(&path, true, |_| true), Some(path.as_str()));
        }
        assert_eq!(templates.len(), WORDS);
        for path in ["/shops/zz/stock", "/shops/a/stock"] {
            assert_eq!(templates.find(path, true, |_| true), Some("/shops/{id}/stock"));
        }
        assert_eq!(templates.len(), WORDS + 1);
    }

    #[test]
    fn there_are_never_more_templates_than_the_cap() {
        let mut templates = Templates::default();
        let letters: Vec<_> = ('a'..='t').collect();
        let mut named = 0;
        for (first, second, third) in
            letters.iter().flat_map(|a| letters.iter().flat_map(move |b| ['x', 'y'].map(|c| (a, b, c))))
        {
            named += usize::from(templates.find(&format!("/{first}/{second}/{third}"), true, |_| true).is_some());
        }
        assert_eq!((named, templates.len()), (TEMPLATES, TEMPLATES));
        assert!(templates.find("/a/a/x", true, |_| true).is_some(), "what is known stays known");
    }

    #[test]
    fn what_was_refused_teaches_nothing() {
        let mut templates = Templates::default();
        assert_eq!(templates.find("/wp-admin/setup.php", false, |_| true), None);
        assert!(templates.is_empty());
        assert!(templates.find("/users/1", true, |_| true).is_some());
        assert_eq!(templates.find("/users/2", false, |_| true), Some("/users/{id}"));
    }
}
