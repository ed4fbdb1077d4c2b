//! The fields of a JSON answer that are of interest, whatever else and however much stands beside them. Lists and objects
//! are read over and never kept, since a few bytes of them take many of memory.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// `ExportTraceServiceResponse`, or what stands in its place.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Said<'a> {
    #[serde(borrow)]
    pub partial_success: Option<Partial<'a>>,
    /// With `message` a `google.rpc.Status`.
    code: Something<'a>,
    #[serde(borrow)]
    pub message: Text<'a>,
    error: Something<'a>,
    errors: Something<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Partial<'a> {
    pub rejected_spans: Count,
    #[serde(borrow)]
    pub error_message: Option<Cow<'a, str>>,
}

/// A 64-bit integer is a string of digits, and many write a number.
#[derive(Default)]
pub struct Count(pub u64);

/// A text, or nothing if something else stands there.
#[derive(Default)]
pub struct Text<'a>(pub Option<Cow<'a, str>>);

/// Anything at all.
#[derive(Default)]
enum Something<'a> {
    /// Nothing, or what says nothing.
    #[default]
    Empty,
    Number(u64),
    Text(Cow<'a, str>),
    Other,
}

impl Said<'_> {
    /// Whether it is no answer to spans that were taken. Some receivers have a `code` for success, of another kind.
    pub fn is_error(&self) -> bool {
        let is_status = matches!(self.code, Something::Number(1..=LAST_CODE));
        is_status || [&self.error, &self.errors].iter().any(|said| !matches!(said, Something::Empty))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Something<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Any)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Self(match from.deserialize_any(Any)? {
            Something::Text(text) => Some(text),
            Something::Empty | Something::Number(_) | Something::Other => None,
        }))
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let wrong = || D::Error::custom("is no number of spans");
        match from.deserialize_any(Any)? {
            Something::Empty => Ok(Self(0)),
            Something::Number(number) => Ok(Self(number)),
            Something::Text(digits) => digits.parse().map(Self).map_err(|_| wrong()),
            Something::Other => Err(wrong()),
        }
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Something<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E>(self, is_so: bool) -> Result<Something<'de>, E> {
        Ok(if is_so { Something::Other } else { Something::Empty })
    }

    fn visit_u64<E>(self, number: u64) -> Result<Something<'de>, E> {
        Ok(if number == 0 { Something::Empty } else { Something::Number(number) })
    }

    fn visit_i64<E>(self, _: i64) -> Result<Something<'de>, E> {
        Ok(Something::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Something<'de>, E> {
        Ok(Something::Other)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Something<'de>, E> {
        Ok(if text.is_empty() { Something::Empty } else { Something::Text(Cow::Borrowed(text)) })
    }

    fn visit_str<E>(self, text: &str) -> Result<Something<'de>, E> {
        Ok(if text.is_empty() { Something::Empty } else { Something::Text(Cow::Owned(text.to_owned())) })
    }

    fn visit_unit<E>(self) -> Result<Something<'de>, E> {
        Ok(Something::Empty)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Something<'de>, A::Error> {
        let mut seen = Something::Empty;
        while list.next_element::<IgnoredAny>()?.is_some() {
            seen = Something::Other;
        }
        Ok(seen)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Something<'de>, A::Error> {
        let mut seen = Something::Empty;
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            seen = Something::Other;
        }
        Ok(seen)
    }
}

/// UNAUTHENTICATED, the last code of gRPC.
const LAST_CODE: u64 = 16;
