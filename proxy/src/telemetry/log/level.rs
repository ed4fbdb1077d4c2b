//! Reads what is to be logged: `info`, or `info,h2=warn`. Stricter than `Targets`, which takes a misspelt level for the name of
//! a target and then logs nothing else.

use tracing_subscriber::filter::{LevelFilter, Targets};

/// Without a level of its own the rest logs at `info`.
pub(super) fn parse(text: &str) -> Result<Targets, String> {
    if text.len() > LENGTH {
        return Err(format!("a log level of more than {LENGTH} bytes"));
    }
    let mut targets = Targets::new().with_default(LevelFilter::INFO);
    let mut rest = None;
    for part in text.split(',').map(str::trim) {
        match part.split_once('=') {
            None => {
                if rest.replace(part).is_some() {
                    return Err(format!("{text:?} names two levels for the rest; name one, and targets as h2=warn"));
                }
                targets = targets.with_default(level(part)?);
            }
            Some((target, name)) => {
                let target = target.trim();
                if target.is_empty() || !target.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:-".contains(&b)) {
                    return Err(format!("{target:?} is no target; write a module's name, as in info,h2=warn"));
                }
                targets = targets.with_target(target, level(name.trim())?);
            }
        }
    }
    Ok(targets)
}

fn level(name: &str) -> Result<LevelFilter, String> {
    match name {
        "off" => Ok(LevelFilter::OFF),
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err(format!(
            "{name:?} is no log level; it is one of off, error, warn, info, debug, trace, as in info,h2=warn"
        )),
    }
}

/// Dozens of targets; nobody writes more by hand.
const LENGTH: usize = 1024;

/// What is accepted names levels only, and is accepted again in pieces.
pub fn fuzz_level(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if parse(text).is_ok() {
        assert!(text.split(',').all(|part| parse(part).is_ok()));
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_level_and_targets() {
        let targets = parse("warn, h2=debug,hyper::proto=off").expect("a level");
        assert!(targets.would_enable("spanmesh", &Level::WARN) && !targets.would_enable("spanmesh", &Level::INFO));
        assert!(targets.would_enable("h2::frame", &Level::DEBUG) && !targets.would_enable("h2", &Level::TRACE));
        assert!(!targets.would_enable("hyper::proto::h1", &Level::ERROR));
    }

    #[test]
    fn targets_alone_leave_the_rest_at_info() {
        let targets = parse("h2=trace").expect("a level");
        assert!(targets.would_enable("spanmesh", &Level::INFO) && !targets.would_enable("spanmesh", &Level::DEBUG));
    }

    #[test]
    fn what_is_misspelt_is_refused_with_what_would_be_right() {
        for wrong in ["", "inof", "INFO", "info,", "info,debug", "h2=", "=info", "h2[span]=info", "h2=info=warn", "5"] {
            let why = parse(wrong).expect_err(wrong);
            assert!(why.contains("h2=warn"), "{why}");
        }
        assert!(parse(&"a".repeat(2000)).is_err());
    }

    #[test]
    fn any_text_is_taken_or_refused() {
        for text in ["info,h2=warn", "a=b,c", ",,,", "é=info", "off"] {
            fuzz_level(text.as_bytes());
        }
        fuzz_level(b"\xff");
    }
}
