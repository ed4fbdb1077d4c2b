//! The program's own log, to standard error: text on a terminal, else a line of JSON for each event, in the form of the
//! proxy's log. `SPANMESH_LOG` is the least level that is told.

use std::fmt::{self, Write};
use std::io::{self, IsTerminal};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::registry::LookupSpan;

/// Whoever has set one before keeps it.
pub fn start() {
    let level = std::env::var("SPANMESH_LOG").ok().and_then(|level| level.parse().ok()).unwrap_or(Level::INFO);
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr);
    let _ = match io::stderr().is_terminal() {
        true => tracing::subscriber::set_global_default(log.with_target(false).finish()),
        false => tracing::subscriber::set_global_default(log.event_format(Json).finish()),
    };
}

struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let metadata = event.metadata();
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        let level = metadata.level().as_str().to_ascii_lowercase();
        let head = [("time", time.as_str()), ("level", &level), ("target", metadata.target())];
        let mut line = String::from("{");
        for (name, value) in head {
            let _ = write!(line, "\"{name}\":{},", Value::from(value));
        }
        // The message first, then the rest by name.
        let message = fields.0.remove("message").unwrap_or_default();
        let _ = write!(line, "\"message\":{message}");
        for (name, value) in &fields.0 {
            let _ = write!(line, ",{}:{value}", Value::from(name.as_str()));
        }
        writeln!(writer, "{line}}}")
    }
}

struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
}
