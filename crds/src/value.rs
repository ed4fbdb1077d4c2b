//! Texts with a grammar. A resource keeps what was written, so that `problems` can name the place of a wrong one; whoever
//! works with the value calls `parse`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::says::{self, Rule, cel};

/// Has no fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

/// How many of all, as a decimal above 0 and at most 1: `0.05`, or `1e-5`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Probability(#[serde(deserialize_with = "quoted")] pub String);

/// A whole number and its unit: `500ms`, `10s`, `5m` or `1h`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Period(pub String);

/// A status of HTTP or, with `-`, a range of them: `429` or `500-599`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct StatusRange(#[serde(deserialize_with = "quoted")] pub String);

impl Probability {
    pub fn parse(&self) -> Result<f64, &'static str> {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let plain = match (self.0.split_once("e-"), self.0.split_once('.')) {
            (Some((number, power)), None) => digits(number) && digits(power),
            (Some(_), Some(_)) => false,
            (None, Some((whole, part))) => digits(whole) && digits(part),
            (None, None) => digits(&self.0),
        };
        match self.0.parse::<f64>() {
            Ok(number) if plain && number > 1.0 => Err("is more than all"),
            Ok(number) if plain && number >= SMALLEST_PROBABILITY => Ok(number),
            Ok(number) if plain && number > 0.0 => Err("is too small: of 2^56 traces not one would be kept"),
            Ok(_) if plain => Err("is nothing"),
            Ok(_) | Err(_) => Err("is no decimal"),
        }
    }
}

impl Period {
    pub fn parse(&self) -> Result<Duration, &'static str> {
        let digits = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = self.0.split_at_checked(digits).ok_or("is not a number")?;
        let unit: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60 * 1000,
            "h" => 3600 * 1000,
            "" => return Err("has no unit"),
            _ => return Err("has an unknown unit"),
        };
        let number: u64 = number.parse().map_err(|_| "does not begin with a whole number")?;
        match number.checked_mul(unit) {
            Some(milliseconds) if self.0.len() <= LONGEST_PERIOD => Ok(Duration::from_millis(milliseconds)),
            _ => Err("is too long"),
        }
    }
}

impl StatusRange {
    /// First and last.
    pub fn parse(&self) -> Result<(u16, u16), &'static str> {
        let status = |text: &str| match text.parse() {
            Ok(status) if text.len() == 3 && (100..=599).contains(&status) => Ok(status),
            _ => Err("is no status of HTTP"),
        };
        let (first, last) = self.0.split_once('-').unwrap_or((&self.0, &self.0));
        match (status(first)?, status(last)?) {
            (first, last) if first <= last => Ok((first, last)),
            _ => Err("ends before it begins"),
        }
    }
}

/// In a file a number without quotes is a number, and its zeros are lost.
fn quoted<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct Quoted;
    impl serde::de::Visitor<'_> for Quoted {
        type Value = String;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("text in quotes, such as \"0.05\" or \"429\"")
        }

        fn visit_str<E>(self, text: &str) -> Result<String, E> {
            Ok(text.into())
        }
    }
    deserializer.deserialize_any(Quoted)
}

/// 2^-56: a trace has 56 random bits.
const SMALLEST_PROBABILITY: f64 = 1.0 / (1u64 << 56) as f64;
/// Six digits and a unit: CEL counts in nanoseconds, and a million hours are too many of them.
const LONGEST_PERIOD: usize = 8;

macro_rules! text {
    ($($Name:ident $longest:expr, $rules:expr;)+) => {
        $(impl JsonSchema for $Name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($Name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let rules: &[Rule] = &$rules;
                let mut schema = schemars::json_schema!({"type": "string", "minLength": 1, "maxLength": $longest});
                if !rules.is_empty() {
                    schema.insert("x-kubernetes-validations".into(), cel(rules));
                }
                schema
            }
        })+
    };
}

text! {
    Probability 24, [says::PROBABILITY];
    Period LONGEST_PERIOD, [];
    StatusRange 7, [says::STATUS_RANGE];
}
