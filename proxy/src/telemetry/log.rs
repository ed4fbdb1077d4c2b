//! The proxy's own log: what `tracing` events say, to stderr as a rule, so that stdout carries records only.
//!
//! Text on a terminal, JSON lines everywhere else. The level can be changed while the proxy runs. Lines go through a sink,
//! so that a stuck reader costs lines and not requests. One per process, because `tracing` has one subscriber.

mod json_event;
mod level;

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use super::metrics::Registry;
use super::sink::{Limits, Sink, Target};
use json_event::JsonEvent;
pub use level::fuzz_level;

/// Changes and shows what is logged. Clones share it.
#[derive(Clone)]
pub struct LogControl(Arc<Control>);

/// Starts the log at `level`. Called again in the same process it only sets the level: the first target and registry stay.
pub fn start(level: &str, target: Target, registry: &Registry) -> Result<LogControl, String> {
    let targets = level::parse(level)?;
    // Two proxies that start in one process at once: the second waits for the first's log instead of failing.
    let _turn = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(control) = STARTED.get() {
        control.set(level)?;
        return Ok(control.clone());
    }
    let terminal = match &target {
        Target::Stdout => io::stdout().is_terminal(),
        Target::Stderr => io::stderr().is_terminal(),
        Target::File(_) => false,
    };
    let sink = Sink::open(NAME, target, Limits::default(), registry).map_err(|error| format!("no thread: {error}"))?;
    let (filter, handle) = reload::Layer::new(targets);
    let layer = layer(terminal, Lines(sink.clone())).with_filter(filter);
    let control = LogControl(Arc::new(Control {
        level: Mutex::new(level.to_owned()),
        apply: Box::new(move |targets| handle.reload(targets).map_err(|error| error.to_string())),
        sink: Some(sink),
    }));
    tracing_subscriber::registry()
        .with(layer)
        .try_init()
        .map_err(|error| format!("another log runs already: {error}"))?;
    Ok(STARTED.get_or_init(|| control).clone())
}

impl LogControl {
    /// A control that steers nothing, for tests.
    pub fn detached(level: &str) -> LogControl {
        LogControl(Arc::new(Control { level: Mutex::new(level.into()), apply: Box::new(|_| Ok(())), sink: None }))
    }

    /// `info`, or `info,h2=warn`; an error says what would be right.
    pub fn set(&self, level: &str) -> Result<(), String> {
        let targets = level::parse(level)?;
        let mut current = self.0.level.lock().unwrap_or_else(PoisonError::into_inner);
        (self.0.apply)(targets)?;
        level.clone_into(&mut current);
        Ok(())
    }

    pub fn current(&self) -> String {
        self.0.level.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until all lines are out, at most `patience`. Blocks: for the end of a process.
    pub fn flush(&self, patience: Duration) -> bool {
        self.0.sink.as_ref().is_none_or(|sink| sink.flush(patience))
    }
}

/// Whether `level` is what [`LogControl::set`] takes. For the configuration's check.
pub fn check_level(level: &str) -> Result<(), String> {
    level::parse(level).map(drop)
}

struct Control {
    level: Mutex<String>,
    apply: Box<dyn Fn(Targets) -> Result<(), String> + Send + Sync>,
    sink: Option<Sink>,
}

fn layer<S>(terminal: bool, lines: Lines) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(lines);
    if terminal { layer.boxed() } else { layer.event_format(JsonEvent).boxed() }
}

/// `fmt` writes each event with one call.
#[derive(Clone)]
struct Lines(Sink);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Lines;

    fn make_writer(&'a self) -> Lines {
        self.clone()
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line.strip_suffix(b"\n").unwrap_or(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The sink's name.
pub(super) const NAME: &str = "log";
static STARTED: OnceLock<LogControl> = OnceLock::new();
static STARTING: Mutex<()> = Mutex::new(());

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::telemetry::test_dir::TestDir;

    fn log_to(dir: &TestDir, terminal: bool, events: impl FnOnce()) -> String {
        let sink =
            Sink::open("test", Target::File(dir.join("log")), Limits::default(), &Registry::new()).expect("open");
        let layer = layer(terminal, Lines(sink.clone())).with_filter(level::parse("info,quiet=warn").expect("a level"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), events);
        assert!(sink.flush(Duration::from_secs(10)));
        fs::read_to_string(dir.join("log")).expect("written")
    }

    #[test]
    fn events_become_json_lines() {
        let text = log_to(&TestDir::new("log-json"), false, || {
            tracing::info!(port = 80, name = "a\n\"b\"", ok = true, part = 0.5, gone = ?Some(1), "listens on {}", "x");
            tracing::debug!("not seen");
            tracing::info!(target: "quiet", "not seen");
            tracing::warn!(target: "quiet", below = -1, "seen");
        });
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].starts_with("{\"time\":\"20"));
        assert!(
            lines[0].ends_with(
                ",\"level\":\"info\",\"target\":\"spanmesh_proxy::telemetry::log::tests\",\"message\":\"listens on x\",\
                 \"port\":80,\"name\":\"a\\n\\\"b\\\"\",\"ok\":true,\"part\":0.5,\"gone\":\"Some(1)\"}"
            ),
            "{text}"
        );
        assert!(
            lines[1].ends_with(",\"level\":\"warn\",\"target\":\"quiet\",\"message\":\"seen\",\"below\":-1}"),
            "{text}"
        );
    }

    #[test]
    fn events_are_text_on_a_terminal() {
        let text = log_to(&TestDir::new("log-text"), true, || tracing::info!(port = 80, "listens"));
        assert!(text.ends_with(" INFO spanmesh_proxy::telemetry::log::tests: listens port=80\n"), "{text}");
    }

    #[test]
    fn a_level_that_is_refused_changes_nothing() {
        let control = LogControl::detached("info");
        control.set("debug,h2=warn").expect("a level");
        assert_eq!(control.current(), "debug,h2=warn");
        assert!(control.set("loud").is_err());
        assert_eq!(control.current(), "debug,h2=warn");
    }

    #[test]
    fn the_level_changes_while_it_runs() {
        let dir = TestDir::new("log-start");
        let target = Target::File(dir.join("log"));
        let control = start("warn", target.clone(), &Registry::new()).expect("started");
        tracing::info!(target: "log_test", "before");
        control.set("info").expect("a level");
        tracing::info!(target: "log_test", "after");
        assert!(control.flush(Duration::from_secs(10)));
        let text = fs::read_to_string(dir.join("log")).expect("written");
        assert!(text.contains("after") && !text.contains("before"), "{text}");

        let again = start("error", target, &Registry::new()).expect("the same log");
        assert_eq!(control.current(), "error");
        assert_eq!(again.current(), "error");
        assert!(start("loud", Target::Stderr, &Registry::new()).is_err());
    }
}
