//! One line per request, to stdout or a file: JSON, or a text of the configuration's own. What a request's fields say, the
//! exchange tells; here is how they get out.
//!
//! Held once per worker: the buffers in which a line is built are its own and are used again. Writing never waits, see [`sink`](super::sink).

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, SystemTime};

use super::json::{self, Object};
use super::metrics::Registry;
use super::sink::{Limits, Sink, Target};
use super::{print, timestamp};
use crate::config::{LOG_FIELDS, LogField, LogFormat, LogPiece, Logged};

/// The access log; one clone per worker. Without a target nothing is built and nothing written.
pub struct AccessLog {
    sink: Option<Sink>,
    style: Style,
    buffer: RefCell<Vec<u8>>,
    values: RefCell<Vec<u8>>,
}

/// Which lines there are, and what they look like.
#[derive(Clone, Debug)]
pub struct Style {
    pub format: LogFormat,
    pub requests: Logged,
}

impl Default for Style {
    fn default() -> Self {
        Self { format: LogFormat::Json, requests: Logged::All }
    }
}

/// An open line.
pub struct Line<'a, 'b>(Form<'a, 'b>);

enum Form<'a, 'b> {
    Json(&'a mut Object<'b>),
    /// The values one behind the other, and where each is.
    Text(&'a mut Vec<u8>, &'a mut [Range<usize>; LOG_FIELDS.len()]),
}

/// What a field says.
pub enum Value<'a> {
    Text(&'a str),
    /// From outside: cut after [`VALUE`] bytes.
    Bytes(&'a [u8]),
    Number(u64),
    Seconds(Duration),
    Address(SocketAddr),
    Time(SystemTime),
    /// Digits, which need no escape.
    Id(&'a [u8]),
}

impl AccessLog {
    pub fn open(target: Option<Target>, style: Style, registry: &Registry) -> io::Result<AccessLog> {
        let open = |target| Sink::open("access", target, Limits::default(), registry);
        let sink = target.map(open).transpose()?;
        Ok(AccessLog { sink, style, buffer: RefCell::default(), values: RefCell::default() })
    }

    pub fn is_on(&self) -> bool {
        self.sink.is_some()
    }

    /// Whether a request has a line that ended well, or not so.
    pub fn wants(&self, failed: bool) -> bool {
        self.is_on() && (failed || self.style.requests == Logged::All)
    }

    /// Writes one line; `fill` gives its fields and is not called when the log is off. False if the line was dropped.
    pub fn write(&self, fill: impl FnOnce(&mut Line)) -> bool {
        let Some(sink) = &self.sink else { return true };
        // Taken, not borrowed: a `fill` that logs finds an empty buffer instead of a panic.
        let mut buffer = self.buffer.take();
        match &self.style.format {
            LogFormat::Json => json::object(&mut buffer, |object| fill(&mut Line(Form::Json(object)))),
            LogFormat::Line(pieces) => {
                let mut values = self.values.take();
                let mut places = [const { 0..0 }; LOG_FIELDS.len()];
                fill(&mut Line(Form::Text(&mut values, &mut places)));
                put_together(&mut buffer, pieces, &values, &places);
                values.clear();
                values.shrink_to(BUFFER);
                self.values.replace(values);
            }
        }
        let kept = sink.push(buffer.as_slice());
        buffer.clear();
        buffer.shrink_to(BUFFER);
        self.buffer.replace(buffer);
        kept
    }

    /// Queues a line that was built elsewhere, without its line feed.
    pub fn push(&self, line: String) -> bool {
        self.sink.as_ref().is_none_or(|sink| sink.push(line.as_bytes()))
    }

    /// Waits until all lines are out, at most `patience`. Blocks: for the end of a process.
    pub fn flush(&self, patience: Duration) -> bool {
        self.sink.as_ref().is_none_or(|sink| sink.flush(patience))
    }
}

impl Clone for AccessLog {
    fn clone(&self) -> AccessLog {
        let (sink, style) = (self.sink.clone(), self.style.clone());
        AccessLog { sink, style, buffer: RefCell::default(), values: RefCell::default() }
    }
}

impl Line<'_, '_> {
    pub fn put(&mut self, field: LogField, value: Value<'_>) {
        match &mut self.0 {
            Form::Json(object) => {
                let key = field.name();
                match value {
                    Value::Text(text) => object.text(key, text),
                    Value::Bytes(bytes) => object.clipped(key, bytes, VALUE),
                    Value::Number(number) => object.number(key, number),
                    Value::Seconds(seconds) => object.seconds(key, seconds),
                    Value::Address(address) => object.address(key, address),
                    Value::Time(time) => object.time(key, time),
                    Value::Id(id) => object.id(key, id),
                }
            }
            Form::Text(out, places) => {
                let start = out.len();
                match value {
                    Value::Text(text) => put_plain(out, text.as_bytes()),
                    Value::Bytes(bytes) => put_plain(out, bytes.get(..VALUE).unwrap_or(bytes)),
                    Value::Number(number) => print::number(out, number),
                    Value::Seconds(seconds) => print::seconds(out, seconds),
                    Value::Address(address) => print::address(out, address),
                    Value::Time(time) => timestamp::write(out, time),
                    Value::Id(id) => out.extend_from_slice(id),
                }
                if let Some(place) = places.get_mut(field as usize) {
                    *place = start..out.len();
                }
            }
        }
    }
}

fn put_together(out: &mut Vec<u8>, pieces: &[LogPiece], values: &[u8], places: &[Range<usize>]) {
    for piece in pieces {
        match piece {
            LogPiece::Text(text) => out.extend_from_slice(text.as_bytes()),
            LogPiece::Field(field) => {
                let value = places.get(*field as usize).and_then(|place| values.get(place.clone()));
                out.extend_from_slice(value.filter(|value| !value.is_empty()).unwrap_or(b"-"));
            }
        }
    }
}

/// Whatever a value says, the line is one line, and a quote in it ends no value.
fn put_plain(out: &mut Vec<u8>, text: &[u8]) {
    for char in String::from_utf8_lossy(text).chars() {
        match char {
            '"' | '\\' => out.extend_from_slice(&[b'\\', char as u8]),
            char if char.is_control() || matches!(char, '\u{2028}' | '\u{2029}') => {
                out.extend_from_slice(char.escape_unicode().to_string().as_bytes());
            }
            char => out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Bytes of one value from outside (path, host, request id) that a line shows.
pub const VALUE: usize = 2048;
/// What a worker's buffer keeps between lines.
const BUFFER: usize = 4096;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::telemetry::test_dir::TestDir;

    fn log(dir: &TestDir, format: LogFormat) -> AccessLog {
        let style = Style { format, ..Style::default() };
        AccessLog::open(Some(Target::File(dir.join("log"))), style, &Registry::new()).expect("open")
    }

    #[test]
    fn lines_are_json_whatever_the_path_says() {
        let dir = TestDir::new("access-log");
        let log = log(&dir, LogFormat::Json);
        let worker = log.clone();
        assert!(worker.write(|line| {
            line.put(LogField::Time, Value::Time(std::time::UNIX_EPOCH));
            line.put(LogField::Path, Value::Bytes(b"/\"\n\xff"));
            line.put(LogField::Status, Value::Number(200));
        }));
        assert!(worker.write(|line| line.put(LogField::Path, Value::Bytes(&[b'a'; 10_000]))));
        assert!(log.push("{}".into()));
        assert!(log.flush(Duration::from_secs(10)));
        let text = fs::read_to_string(dir.join("log")).expect("written");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "{\"time\":\"1970-01-01T00:00:00.000000Z\",\"path\":\"/\\\"\\n\u{FFFD}\",\"status\":200}");
        assert_eq!(lines[1].len(), VALUE + "{\"path\":\"…\"}".len());
        assert_eq!(lines[2..], ["{}"]);
    }

    #[test]
    fn a_line_of_ones_own_is_one_line_whatever_the_path_says() {
        let dir = TestDir::new("access-log-line");
        let pieces = [
            LogPiece::Field(LogField::Status),
            LogPiece::Text(" \"".into()),
            LogPiece::Field(LogField::Path),
            LogPiece::Text("\" {".into()),
            LogPiece::Field(LogField::Route),
            LogPiece::Text("}".into()),
        ];
        let log = log(&dir, LogFormat::Line(pieces.to_vec()));
        for path in [&b"/a"[..], b"/\"\\\n\x00\xff", &[b'a'; 10_000]] {
            log.write(|line| {
                line.put(LogField::Path, Value::Bytes(path));
                line.put(LogField::Peer, Value::Address(([127, 0, 0, 1], 1).into()));
                line.put(LogField::Status, Value::Number(200));
            });
        }
        log.write(|_| {});
        assert!(log.flush(Duration::from_secs(10)));
        let text = fs::read_to_string(dir.join("log")).expect("written");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "200 \"/a\" {-}");
        assert_eq!(lines[1], "200 \"/\\\"\\\\\\u{a}\\u{0}\u{FFFD}\" {-}");
        assert_eq!(lines[2].len(), "200 \"\" {-}".len() + VALUE);
        assert_eq!(lines[3..], ["- \"-\" {-}"]);
    }

    #[test]
    fn off_is_free() {
        let log = AccessLog::open(None, Style::default(), &Registry::new()).expect("open");
        assert!(!log.is_on() && !log.wants(true));
        assert!(log.write(|_| panic!("not built")));
        assert!(log.push("x".into()) && log.flush(Duration::ZERO));
    }

    #[test]
    fn a_line_within_a_line_is_two_lines() {
        let dir = TestDir::new("access-log-nested");
        let log = log(&dir, LogFormat::Json);
        log.write(|outer| {
            log.write(|inner| inner.put(LogField::Attempts, Value::Number(1)));
            outer.put(LogField::Status, Value::Number(2));
        });
        assert!(log.flush(Duration::from_secs(10)));
        assert_eq!(fs::read_to_string(dir.join("log")).expect("written"), "{\"attempts\":1}\n{\"status\":2}\n");
    }
}
