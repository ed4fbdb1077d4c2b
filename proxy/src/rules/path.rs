//! Patterns of paths: exact, prefix on segment borders, template.
//!
//! A path is matched **as sent**: no percent-decoding, no removal of dot segments, no folding of double slashes.
//! `/cart/../admin` is a path below `/cart`, and `/%63art` is not. What the origin makes of such a path is the
//! origin's affair, so a route is a signpost and never a guard.

use super::matcher::{PatternError, Patterns, fail};

#[derive(Clone, Debug)]
pub(super) enum PathPattern {
    Exact(String),
    /// Without its trailing slash; empty is everything.
    Prefix(String),
    Template {
        segments: Vec<Segment>,
        /// Whether anything may follow.
        rest: bool,
    },
}

#[derive(Clone, Debug)]
pub(super) enum Segment {
    Literal(String),
    Any,
}

impl PathPattern {
    pub(super) fn compile(patterns: &Patterns) -> Result<Option<PathPattern>, PatternError> {
        match (&patterns.path, &patterns.path_prefix, &patterns.path_template) {
            (None, None, None) => Ok(None),
            (Some(path), None, None) => {
                check_path("path", path)?;
                Ok(Some(PathPattern::Exact(path.clone())))
            }
            (None, Some(prefix), None) => {
                check_path("pathPrefix", prefix)?;
                Ok(Some(PathPattern::Prefix(prefix.strip_suffix('/').unwrap_or(prefix).to_owned())))
            }
            (None, None, Some(template)) => {
                check_path("pathTemplate", template)?;
                compile_template(template).map(Some).map_err(|problem| fail("pathTemplate", template, problem))
            }
            (_, Some(second), None) => Err(fail("pathPrefix", second, ONE_PATH)),
            (_, _, Some(second)) => Err(fail("pathTemplate", second, ONE_PATH)),
        }
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        match self {
            PathPattern::Exact(exact) => path == exact,
            PathPattern::Prefix(prefix) if prefix.is_empty() => true,
            PathPattern::Prefix(prefix) => {
                path.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            PathPattern::Template { segments, rest } => {
                let Some(path) = path.strip_prefix('/') else { return false };
                let mut sent = path.split('/');
                segments.iter().all(|segment| sent.next().is_some_and(|text| segment.matches(text)))
                    && (*rest || sent.next().is_none())
            }
        }
    }
}

impl Segment {
    fn matches(&self, text: &str) -> bool {
        match self {
            Segment::Literal(literal) => text == literal,
            Segment::Any => !text.is_empty(),
        }
    }
}

fn compile_template(template: &str) -> Result<PathPattern, &'static str> {
    let mut segments = Vec::new();
    let mut names = Vec::new();
    let mut parts = template.split('/').skip(1);
    while let Some(part) = parts.next() {
        let Some(variable) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) else {
            if part.contains(['{', '}', '*']) {
                return Err(TEMPLATE_PART);
            }
            segments.push(Segment::Literal(part.to_owned()));
            continue;
        };
        let (name, rest) = match variable.split_once('=') {
            Some((name, "**")) => (name, true),
            Some(_) => return Err(TEMPLATE_GLOB),
            None => (variable, false),
        };
        let starts_well = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        if !starts_well || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(TEMPLATE_NAME);
        }
        if names.contains(&name) {
            return Err(TEMPLATE_TWICE);
        }
        names.push(name);
        if rest {
            return if parts.next().is_some() {
                Err(TEMPLATE_REST)
            } else {
                Ok(PathPattern::Template { segments, rest })
            };
        }
        segments.push(Segment::Any);
    }
    Ok(PathPattern::Template { segments, rest: false })
}

fn check_path(field: &'static str, text: &str) -> Result<(), PatternError> {
    if !text.starts_with('/') {
        Err(fail(field, text, PATH_SLASH))
    } else if text.contains(['?', '#']) {
        Err(fail(field, text, PATH_QUERY))
    } else if text.bytes().any(|byte| !byte.is_ascii_graphic()) {
        Err(fail(field, text, PATH_BYTES))
    } else {
        Ok(())
    }
}

const ONE_PATH: &str = "give only one of path, pathPrefix and pathTemplate";
const PATH_SLASH: &str = "a path begins with `/`";
const PATH_QUERY: &str = "the query is not part of the path; end the pattern before `?` or `#`";
const PATH_BYTES: &str = "paths are matched as sent; write blanks and letters beyond ASCII percent-encoded";
const TEMPLATE_PART: &str = "a variable takes a whole segment, as in `/users/{id}/items`";
const TEMPLATE_GLOB: &str = "after `=` only `**` is known, as in `{rest=**}`";
const TEMPLATE_NAME: &str = "a variable has a name of letters, digits and `_`, as in `{id}`";
const TEMPLATE_TWICE: &str = "a variable's name stands twice; give each its own";
const TEMPLATE_REST: &str = "`=**` takes all that follows and must be the last segment";

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(patterns: Patterns, path: &str) -> bool {
        PathPattern::compile(&patterns).unwrap().unwrap().matches(path)
    }

    fn prefix(pattern: &str) -> Patterns {
        Patterns { path_prefix: Some(pattern.into()), ..Patterns::default() }
    }

    fn template(pattern: &str) -> Patterns {
        Patterns { path_template: Some(pattern.into()), ..Patterns::default() }
    }

    fn path(pattern: &str) -> Patterns {
        Patterns { path: Some(pattern.into()), ..Patterns::default() }
    }

    #[test]
    fn prefixes_match_on_segment_borders() {
        for (pattern, sent, expected) in [
            ("/cart", "/cart", true),
            ("/cart", "/cart/", true),
            ("/cart", "/cart/x", true),
            ("/cart", "/cartoon", false),
            ("/cart", "/Cart", false),
            ("/cart/", "/cart", true),
            ("/cart/", "/cart/x", true),
            ("/", "/anything", true),
            ("/", "*", true),
            ("/", "", true),
        ] {
            assert_eq!(holds(prefix(pattern), sent), expected, "{pattern} {sent}");
        }
    }

    #[test]
    fn paths_match_as_sent() {
        assert!(holds(prefix("/cart"), "/cart/../admin"));
        assert!(!holds(prefix("/admin"), "/cart/../admin"));
        assert!(!holds(prefix("/cart"), "/%63art"));
        assert!(!holds(prefix("/cart"), "//cart"));
        assert!(!holds(prefix("/cart"), "/cart%2Fx"));
        assert!(holds(path("/a%20b"), "/a%20b"));
        assert!(!holds(path("/cart"), "/cart/"));
    }

    #[test]
    fn templates_match_whole_segments() {
        for (pattern, sent, expected) in [
            ("/users/{id}", "/users/7", true),
            ("/users/{id}", "/users/", false),
            ("/users/{id}", "/users/7/", false),
            ("/users/{id}", "/users/7/items", false),
            ("/users/{id}/items/{rest=**}", "/users/7/items/a/b", true),
            ("/users/{id}/items/{rest=**}", "/users/7/items/", true),
            ("/users/{id}/items/{rest=**}", "/users/7/items", true),
            ("/users/{id}/items/{rest=**}", "/users/7", false),
            ("/users/{id}/items/{rest=**}", "/users/7/itemsx", false),
            ("/{all=**}", "/", true),
            ("/{all=**}", "*", false),
            ("/a/", "/a/", true),
            ("/a/", "/a", false),
        ] {
            assert_eq!(holds(template(pattern), sent), expected, "{pattern} {sent}");
        }
    }

    #[test]
    fn bad_patterns_are_refused_by_name() {
        for (patterns, field, problem) in [
            (path("cart"), "path", PATH_SLASH),
            (path(""), "path", PATH_SLASH),
            (path("/a?b"), "path", PATH_QUERY),
            (prefix("/a b"), "pathPrefix", PATH_BYTES),
            (template("/a/{b}c"), "pathTemplate", TEMPLATE_PART),
            (template("/a/*"), "pathTemplate", TEMPLATE_PART),
            (template("/{a=*}"), "pathTemplate", TEMPLATE_GLOB),
            (template("/{}"), "pathTemplate", TEMPLATE_NAME),
            (template("/{9}"), "pathTemplate", TEMPLATE_NAME),
            (template("/{a}/{a}"), "pathTemplate", TEMPLATE_TWICE),
            (template("/{a=**}/b"), "pathTemplate", TEMPLATE_REST),
            (Patterns { path: Some("/a".into()), ..prefix("/b") }, "pathPrefix", ONE_PATH),
            (Patterns { path: Some("/a".into()), ..template("/b") }, "pathTemplate", ONE_PATH),
        ] {
            let error = PathPattern::compile(&patterns).unwrap_err();
            assert_eq!((error.field, error.problem), (field, problem), "{error}");
        }
    }
}
