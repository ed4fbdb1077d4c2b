//! One JSON line per request, to stdout or a file. Which fields, the exchange says; here is how they get out.
//!
//! Held once per worker: the buffer in which a line is built is its own and is used again. Writing never waits, see [`sink`](super::sink).

use std::cell::RefCell;
use std::io;
use std::time::Duration;

use super::json::{self, Object};
use super::metrics::Registry;
use super::sink::{Limits, Sink, Target};
use crate::trace::redact::Redactor;

/// The access log; one clone per worker. Without a target nothing is built and nothing written.
pub struct AccessLog {
    sink: Option<Sink>,
    redactor: Redactor,
    buffer: RefCell<Vec<u8>>,
}

impl AccessLog {
    pub fn open(target: Option<Target>, redactor: Redactor, registry: &Registry) -> io::Result<AccessLog> {
        let open = |target| Sink::open("access", target, Limits::default(), registry);
        Ok(AccessLog { sink: target.map(open).transpose()?, redactor, buffer: RefCell::default() })
    }

    pub fn is_on(&self) -> bool {
        self.sink.is_some()
    }

    /// What is taken out of what comes from outside.
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// Writes one line; `fill` gives its fields and is not called when the log is off. For what comes from outside use
    /// [`Object::clipped`] with [`VALUE`]. False if the line was dropped.
    pub fn write(&self, fill: impl FnOnce(&mut Object)) -> bool {
        let Some(sink) = &self.sink else { return true };
        // Taken, not borrowed: a `fill` that logs finds an empty buffer instead of a panic.
        let mut buffer = self.buffer.take();
        json::object(&mut buffer, fill);
        let kept = sink.push(buffer.as_slice());
        buffer.clear();
        buffer.shrink_to(BUFFER);
        self.buffer.replace(buffer);
        kept
    }

    /// Queues a line that was built elsewhere, without its line feed.
    pub fn push(&self, line: String) -> bool {
        self.sink.as_ref().is_none_or(|sink| sink.push(line.into_bytes()))
    }

    /// Waits until all lines are out, at most `patience`. Blocks: for the end of a process.
    pub fn flush(&self, patience: Duration) -> bool {
        self.sink.as_ref().is_none_or(|sink| sink.flush(patience))
    }
}

impl Clone for AccessLog {
    fn clone(&self) -> AccessLog {
        AccessLog { sink: self.sink.clone(), redactor: self.redactor.clone(), buffer: RefCell::default() }
    }
}

/// Bytes of one value from outside (path, host, user agent) that a line shows.
pub const VALUE: usize = 2048;
/// What a worker's buffer keeps between lines.
const BUFFER: usize = 4096;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::telemetry::test_dir::TestDir;

    #[test]
    fn lines_are_json_whatever_the_path_says() {
        let dir = TestDir::new("access-log");
        let log =
            AccessLog::open(Some(Target::File(dir.join("log"))), Redactor::default(), &Registry::new()).expect("open");
        let worker = log.clone();
        assert!(worker.write(|line| {
            line.time("time", std::time::UNIX_EPOCH);
            line.clipped("path", b"/\"\n\xff", VALUE);
            line.number("status", 200);
        }));
        assert!(worker.write(|line| line.clipped("path", &[b'a'; 10_000], VALUE)));
        assert!(log.push("{}".into()));
        assert!(log.flush(Duration::from_secs(10)));
        let text = fs::read_to_string(dir.join("log")).expect("written");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "{\"time\":\"1970-01-01T00:00:00.000000Z\",\"path\":\"/\\\"\\n\u{FFFD}\",\"status\":200}");
        assert_eq!(lines[1].len(), VALUE + "{\"path\":\"…\"}".len());
        assert_eq!(lines[2..], ["{}"]);
    }

    #[test]
    fn off_is_free() {
        let log = AccessLog::open(None, Redactor::default(), &Registry::new()).expect("open");
        assert!(!log.is_on());
        assert!(log.write(|_| panic!("not built")));
        assert!(log.push("x".into()) && log.flush(Duration::ZERO));
    }

    #[test]
    fn a_line_within_a_line_is_two_lines() {
        let dir = TestDir::new("access-log-nested");
        let log =
            AccessLog::open(Some(Target::File(dir.join("log"))), Redactor::default(), &Registry::new()).expect("open");
        log.write(|outer| {
            log.write(|inner| inner.number("inner", 1));
            outer.number("outer", 2);
        });
        assert!(log.flush(Duration::from_secs(10)));
        assert_eq!(fs::read_to_string(dir.join("log")).expect("written"), "{\"inner\":1}\n{\"outer\":2}\n");
    }
}
