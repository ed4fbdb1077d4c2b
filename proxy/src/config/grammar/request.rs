//! What a route asks of a request: paths, templates, methods, headers. As strict as `rules`, which compiles them.

use std::collections::BTreeMap;

use super::Headers;
use crate::config::forms;
use crate::config::problem::shown;
use crate::config::reader::Reader;
use crate::config::schema::{Form, Kind};
use crate::config::tree::Tree;

impl Form for Headers {
    type Plain = BTreeMap<String, String>;

    fn read(reader: &mut Reader, tree: &Tree) -> Option<Self::Plain> {
        let entries = reader.entries(tree)?;
        let mut headers = BTreeMap::new();
        let mut whole = true;
        for (name, value) in entries {
            let value = reader.field(name, |reader| header(reader, name, value));
            let is_new = !headers.contains_key(&name.to_ascii_lowercase());
            whole &= value.is_some() && is_new;
            if !is_new {
                reader.needless_field(
                    name,
                    "names a header for the second time",
                    "keep one of the two; case does not matter",
                );
            }
            headers.insert(name.to_ascii_lowercase(), value.unwrap_or_default());
        }
        whole.then_some(headers)
    }

    fn write(plain: &Self::Plain) -> Tree {
        match plain.is_empty() {
            true => Tree::Null,
            false => Tree::Map(plain.iter().map(|(name, value)| (name.clone(), Tree::text(value))).collect()),
        }
    }

    fn kind() -> Kind {
        Kind::Whole("a map of header names and values".into())
    }
}

fn header(reader: &mut Reader, name: &str, value: &Tree) -> Option<String> {
    if !is_token(name) || name.len() > MAX_HEADER_NAME {
        return reader.wrong("is not a header's name", "write a name such as `x-tenant`");
    }
    if name.eq_ignore_ascii_case("host") {
        return reader.wrong("is a field of its own", "match by `host`, which also holds for HTTP/2");
    }
    let value = forms::text(reader, value)?;
    let plain = value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte));
    match plain && value.trim() == value {
        true => Some(value.into()),
        false => reader.wrong(
            format!("`{}` is not a header's value", shown(value)),
            "write visible ASCII characters without a space at either end",
        ),
    }
}

pub fn url_path(text: &str) -> Result<String, &'static str> {
    match text.contains(['{', '}']) {
        true => Err("has a `{` or `}`, as only a `pathTemplate` has"),
        false => path(text),
    }
}

fn path(text: &str) -> Result<String, &'static str> {
    if !text.starts_with('/') {
        return Err("does not begin with `/`");
    }
    if text.contains(['?', '#']) {
        return Err("has a `?` or `#`, where the path ends");
    }
    match text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.into()),
        false => {
            Err("has a space, a control character or a letter beyond ASCII, which a request's path has only as `%XX`")
        }
    }
}

pub fn path_template(text: &str) -> Result<String, &'static str> {
    let path = path(text)?;
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let mut names = Vec::new();
    for (index, segment) in segments.iter().enumerate() {
        let Some(inside) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
            if segment.contains(['{', '}', '*']) {
                return Err("has a `{`, `}` or `*` inside a segment; a whole segment is a name, or none of it");
            }
            continue;
        };
        let name = match inside.strip_suffix("=**") {
            Some(_) if index + 1 < segments.len() => return Err("has `{…=**}` before its last segment"),
            Some(name) => name,
            None => inside,
        };
        let begins = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        if !begins || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err("has a segment whose name is not of letters, digits and `_`, or begins with a digit");
        }
        if names.contains(&name) {
            return Err("has two segments of one name");
        }
        names.push(name);
    }
    match names.is_empty() {
        true => Err("has no `{name}`; without one it is a `path`"),
        false => Ok(path),
    }
}

pub fn method(text: &str) -> Result<String, &'static str> {
    if !is_token(text) {
        return Err("is not a method");
    }
    // Methods are case-sensitive (RFC 9110 9.1), and the registered ones are upper case.
    match text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        true => Err("has lower-case letters, which the methods of HTTP do not"),
        false => Ok(text.into()),
    }
}

/// A header field that may be added to a request without changing what it is or how it is framed. In lower case.
pub fn field_name(text: &str) -> Result<String, &'static str> {
    let name = text.to_ascii_lowercase();
    match name.as_str() {
        _ if !is_token(text) || name.len() > MAX_HEADER_NAME => Err("is not a header's name"),
        "host" | "connection" | "te" | "trailer" | "transfer-encoding" | "upgrade" | "expect" | "keep-alive" => {
            Err("is a header that HTTP itself sets")
        }
        _ if name.starts_with("content-") || name.starts_with("grpc-") => Err("is a header that OTLP sets"),
        _ => Ok(name),
    }
}

/// In lower case.
pub fn header_name(text: &str) -> Result<String, &'static str> {
    match is_token(text) && text.len() <= MAX_HEADER_NAME {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("is not a header's name"),
    }
}

/// RFC 9110 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Longer names are no one's; the limit keeps messages short.
const MAX_HEADER_NAME: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_has_names_for_whole_segments() {
        for text in ["/carts/{id}", "/{rest=**}", "/a/{b}/c/{d=**}"] {
            assert_eq!(path_template(text), Ok(text.into()));
        }
        for text in
            ["/carts", "/{}", "/{a}/{a}", "/{a=**}/b", "/x{a}", "/{a", "carts/{id}", "/{a-b}", "/{9}", "/{a=*}", "/*"]
        {
            assert!(path_template(text).is_err(), "{text}");
        }
    }

    #[test]
    fn methods_are_upper_case() {
        assert!(method("GET").is_ok() && method("M-SEARCH").is_ok());
        assert!(method("get").is_err() && method("").is_err() && method("G T").is_err());
    }
}
