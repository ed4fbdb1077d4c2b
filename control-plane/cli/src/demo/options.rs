//! What the demo is asked on its command line.

use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser};

use crate::failure::Failure;
use crate::terminal::Colours;

pub struct Options {
    /// None: the usual one, or a free one where that is taken.
    pub port: Option<u16>,
    pub traces_port: Option<u16>,
    pub admin_port: Option<u16>,
    rate: Option<f64>,
    pub folder: Option<PathBuf>,
    pub time: Option<Duration>,
    pub headless: bool,
    pub colours: Colours,
    pub width: Option<usize>,
}

impl Options {
    pub fn parse(parser: &mut Parser) -> Result<Self, Failure> {
        let mut options = Self {
            port: None,
            traces_port: None,
            admin_port: None,
            rate: None,
            folder: None,
            time: None,
            headless: false,
            colours: Colours::Auto,
            width: None,
        };
        let wrong = |error: lexopt::Error| Failure::usage("demo", error);
        while let Some(argument) = parser.next().map_err(wrong)? {
            match argument {
                Arg::Long("port") => {
                    options.port = Some(value(parser, "--port takes a port, 0 to 65535", |text| text.parse().ok())?)
                }
                Arg::Long("traces-port") => {
                    options.traces_port =
                        Some(value(parser, "--traces-port takes a port, 0 to 65535", |text| text.parse().ok())?);
                }
                Arg::Long("admin-port") => {
                    options.admin_port =
                        Some(value(parser, "--admin-port takes a port, 0 to 65535", |text| text.parse().ok())?);
                }
                Arg::Long("rate") => {
                    options.rate = Some(value(parser, "--rate takes requests a second, 0.1 to 200", rate)?)
                }
                Arg::Long("folder") => options.folder = Some(parser.value().map_err(wrong)?.into()),
                Arg::Long("for") => options.time = Some(value(parser, "--for takes a time: 500ms, 10s or 5m", time)?),
                Arg::Long("headless") => options.headless = true,
                Arg::Long("colour" | "color") => {
                    options.colours = value(parser, "--colour takes auto, always or never", Colours::parse)?;
                }
                Arg::Long("width") => {
                    options.width = Some(value(parser, "--width takes a number of columns", |text| text.parse().ok())?);
                }
                other => return Err(wrong(other.unexpected())),
            }
        }
        Ok(options)
    }

    /// A test wants its answers sooner.
    pub fn rate(&self) -> f64 {
        self.rate.unwrap_or(if self.headless { 10.0 } else { 4.0 })
    }
}

fn value<T>(parser: &mut Parser, right: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Failure> {
    let value = parser.value().map_err(|error| Failure::usage("demo", error))?;
    let text = value.to_string_lossy();
    parse(&text).ok_or_else(|| Failure::usage("demo", format!("{right}, not `{text}`")))
}

fn rate(text: &str) -> Option<f64> {
    text.parse().ok().filter(|rate| (0.1..=200.0).contains(rate))
}

fn time(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(millis).filter(|millis| *millis > 0).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(time("10s"), Some(Duration::from_secs(10)));
        assert_eq!(time("1500ms"), Some(Duration::from_millis(1500)));
        for wrong in ["", "10", "s", "0s", "-1s", "1d", "99999999999999999999h", "18446744073709551615h"] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
        assert_eq!(rate("0"), None);
        assert_eq!(rate("NaN"), None);
    }
}
