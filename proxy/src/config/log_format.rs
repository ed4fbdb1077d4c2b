//! How a line of the access log is written: as JSON, or as a text with fields in braces.

use super::forms;
use super::problem::shown;
use super::reader::Reader;
use super::schema::{Form, Kind, words};
use super::tree::Tree;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object for each line, with the fields that there are.
    Json,
    /// What stands between fields stays.
    Line(Vec<LogPiece>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPiece {
    Text(String),
    Field(LogField),
}

words! {
    /// What a line of the access log tells.
    pub enum LogField {
        /// When the request came.
        Time = "time",
        /// The listener's name.
        Listener = "listener",
        /// The client's address.
        Peer = "peer",
        /// Where a redirected connection was going.
        OriginalDestination = "originalDestination",
        /// `HTTP/1.0`, `HTTP/1.1`, `HTTP/2` or `TCP`.
        Protocol = "protocol",
        /// The method.
        Method = "method",
        /// The path, without its query.
        Path = "path",
        /// The host.
        Host = "host",
        /// The status.
        Status = "status",
        /// The status of gRPC.
        GrpcStatus = "grpcStatus",
        /// How it ended.
        Flag = "flag",
        /// Why there was no connection, in words.
        Detail = "detail",
        /// The route's name.
        Route = "route",
        /// The upstream's name.
        Upstream = "upstream",
        /// The address of the last attempt.
        Endpoint = "endpoint",
        /// How many attempts there were.
        Attempts = "attempts",
        /// Bytes of the request's content.
        RequestBytes = "requestBytes",
        /// Bytes of the answer's content.
        ResponseBytes = "responseBytes",
        /// Seconds from the request's head to the last byte of its answer.
        Duration = "duration",
        /// Seconds from the request's head to that of its answer.
        FirstByte = "firstByte",
        /// The trace.
        TraceId = "traceId",
        /// The span of the request.
        SpanId = "spanId",
        /// The span of the last attempt, where it is one of its own.
        AttemptSpanId = "attemptSpanId",
        /// The span that called.
        ParentSpanId = "parentSpanId",
        /// The flags of W3C's trace context; `01` is sampled.
        TraceFlags = "traceFlags",
        /// The request id.
        RequestId = "requestId",
    }
}

/// All of them, in the order of a JSON line.
pub const LOG_FIELDS: [LogField; 26] = [
    LogField::Time,
    LogField::Listener,
    LogField::Peer,
    LogField::OriginalDestination,
    LogField::Protocol,
    LogField::Method,
    LogField::Path,
    LogField::Host,
    LogField::Status,
    LogField::GrpcStatus,
    LogField::Flag,
    LogField::Detail,
    LogField::Route,
    LogField::Upstream,
    LogField::Endpoint,
    LogField::Attempts,
    LogField::RequestBytes,
    LogField::ResponseBytes,
    LogField::Duration,
    LogField::FirstByte,
    LogField::TraceId,
    LogField::SpanId,
    LogField::AttemptSpanId,
    LogField::ParentSpanId,
    LogField::TraceFlags,
    LogField::RequestId,
];

words! {
    /// Which requests have a line in the access log.
    pub enum Logged {
        /// Every request.
        All = "all",
        /// Those that did not end well: another flag than `ok`, a status from 500 on, or one of gRPC that is the server's fault.
        Errors = "errors",
    }
}

impl Form for LogFormat {
    type Plain = LogFormat;

    fn read(reader: &mut Reader, tree: &Tree) -> Option<LogFormat> {
        let text = forms::text(reader, tree)?;
        if text == "json" {
            return Some(LogFormat::Json);
        }
        match pieces(text) {
            Ok(pieces) if pieces.iter().any(|piece| matches!(piece, LogPiece::Field(_))) => {
                Some(LogFormat::Line(pieces))
            }
            Ok(_) => reader.wrong(format!("`{}` has no field", shown(text)), RIGHT),
            Err(wrong) => reader.wrong(wrong, RIGHT),
        }
    }

    fn write(plain: &LogFormat) -> Tree {
        let LogFormat::Line(pieces) = plain else { return Tree::text("json") };
        let text: String = pieces.iter().map(LogPiece::written).collect();
        Tree::text(&text)
    }

    fn kind() -> Kind {
        Kind::Plain("`json` or a text with `{fields}`".into())
    }
}

impl LogPiece {
    fn written(&self) -> String {
        match self {
            LogPiece::Text(text) => text.replace('{', "{{").replace('}', "}}"),
            LogPiece::Field(field) => format!("{{{}}}", field.name()),
        }
    }
}

/// `{{` and `}}` are braces that stay.
fn pieces(text: &str) -> Result<Vec<LogPiece>, String> {
    if text.len() > LONGEST || text.bytes().any(|byte| byte < b' ' && byte != b'\t') {
        return Err(format!("`{}` is no line", shown(text)));
    }
    let (mut pieces, mut plain, mut rest) = (Vec::new(), String::new(), text);
    while let Some(at) = rest.find(['{', '}']) {
        let (before, after) = rest.split_at(at);
        plain.push_str(before);
        if let Some(after) = after.strip_prefix("{{") {
            plain.push('{');
            rest = after;
        } else if let Some(after) = after.strip_prefix("}}") {
            plain.push('}');
            rest = after;
        } else {
            let named = after.strip_prefix('{').and_then(|after| after.split_once('}'));
            let Some((name, after)) = named else {
                return Err(format!("`{}` has a brace without its other", shown(text)));
            };
            let field = LOG_FIELDS.into_iter().find(|field| field.name() == name);
            let field = field.ok_or_else(|| format!("`{}` is no field", shown(name)))?;
            if !plain.is_empty() {
                pieces.push(LogPiece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(LogPiece::Field(field));
            rest = after;
        }
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(LogPiece::Text(plain));
    }
    Ok(pieces)
}

const RIGHT: &str = "write `json`, or a line such as `{time} {method} {path} {status} {duration} {traceId}` in quotes, with fields \
     of `telemetry.accessLog.format` in CONFIGURATION.md";
const LONGEST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_text_and_fields_and_is_written_as_it_was_read() {
        let text = "{{x}} [{time}] \"{method} {path}\" {status}.";
        let read = pieces(text).expect("right");
        assert_eq!(read.len(), 9);
        assert_eq!(read[0], LogPiece::Text("{x} [".into()));
        assert_eq!(read[1], LogPiece::Field(LogField::Time));
        assert_eq!(read.iter().map(LogPiece::written).collect::<String>(), text);
        for wrong in ["{nothing}", "{time", "time}", "{time}\n", "{}", "{ time }"] {
            assert!(pieces(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_field_is_in_the_list_once_and_in_its_place() {
        assert!(LOG_FIELDS.iter().enumerate().all(|(place, field)| *field as usize == place));
        assert_eq!(LogField::RequestId as usize + 1, LOG_FIELDS.len());
    }
}
