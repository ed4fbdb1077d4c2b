//! What `spanmesh trace` draws, compared with `golden/`: wide, narrow, in colour, with clocks that differ, with parents
//! that are missing, with a thousand spans. `BLESS=1` writes the files anew.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

/// One span: id, parent, service, name, kind, start and end in microseconds, attributes.
struct Span(u64, u64, &'static str, String, u8, u64, u64, Vec<(&'static str, Value)>);

fn otlp(spans: &[Span]) -> String {
    const BEGIN: u64 = 1_790_000_000_000_000_000;
    let resource = |Span(id, parent, service, name, kind, start, end, attributes): &Span| {
        let failed = attributes.iter().any(|(key, _)| *key == "error.type");
        let pair = |(key, value): &(&str, Value)| match value.as_str() {
            Some(text) => json!({"key": key, "value": {"stringValue": text}}),
            None => json!({"key": key, "value": {"intValue": value.to_string()}}),
        };
        json!({
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]},
            "scopeSpans": [{"spans": [{
                "traceId": "0af7651916cd43dd8448eb211c80319c",
                "spanId": format!("{id:016x}"),
                "parentSpanId": if *parent == 0 { String::new() } else { format!("{parent:016x}") },
                "name": name,
                "kind": kind,
                "startTimeUnixNano": (BEGIN + start * 1000).to_string(),
                "endTimeUnixNano": (BEGIN + end * 1000).to_string(),
                "status": if failed { json!({"code": 2}) } else { json!({}) },
                "attributes": attributes.iter().map(pair).collect::<Vec<_>>(),
            }]}],
        })
    };
    json!({"resourceSpans": spans.iter().map(resource).collect::<Vec<_>>()}).to_string()
}

const SERVER: u8 = 2;
const CLIENT: u8 = 3;

fn shop() -> Vec<Span> {
    let span = |id, parent, service, name: &str, kind, start, end, attributes| {
        Span(id, parent, service, name.to_owned(), kind, start, end, attributes)
    };
    let status = |code: u64| ("http.response.status_code", json!(code));
    let failed = |code: u64| vec![status(code), ("error.type", json!(code.to_string()))];
    vec![
        span(1, 0, "edge", "GET /checkout", SERVER, 0, 214_000, vec![status(200)]),
        span(2, 1, "edge", "GET /checkout", CLIENT, 400, 213_600, vec![status(200)]),
        span(3, 2, "shop", "GET /checkout", SERVER, 900, 213_100, vec![status(200)]),
        span(4, 3, "shop", "demo.Prices/Quote", CLIENT, 4_000, 12_000, vec![]),
        span(5, 4, "prices", "demo.Prices/Quote", SERVER, 4_600, 11_500, vec![]),
        span(6, 3, "shop", "PUT /orders/{id}", CLIENT, 13_000, 212_000, vec![status(200)]),
        span(7, 6, "orders", "PUT /orders/{id}", SERVER, 13_500, 211_500, vec![status(200)]),
        span(8, 7, "orders", "GET /stock/{id}", CLIENT, 14_000, 171_000, vec![status(200)]),
        span(9, 8, "stock", "GET /stock/{id}", SERVER, 14_500, 170_500, vec![status(200)]),
        span(10, 7, "orders", "PUT /payments/{id}", CLIENT, 172_000, 188_000, failed(503)),
        span(11, 10, "payment", "PUT /payments/{id}", SERVER, 172_400, 187_700, failed(503)),
        span(
            12,
            7,
            "orders",
            "PUT /payments/{id}",
            CLIENT,
            195_000,
            211_000,
            vec![status(200), ("http.request.resend_count", json!(1))],
        ),
        span(13, 12, "payment", "PUT /payments/{id}", SERVER, 195_500, 210_600, vec![status(200)]),
    ]
}

/// Draws a trace as a script would, and compares.
fn golden(name: &str, spans: &[Span], arguments: &[&str]) {
    let input = std::env::temp_dir().join(format!("spanmesh-golden-{}-{name}.json", std::process::id()));
    std::fs::write(&input, otlp(spans)).expect("write");
    let mut command = Command::new(env!("CARGO_BIN_EXE_spanmesh"));
    command.args(["trace", "--file"]).arg(&input).args(arguments).env_clear();
    let output = command.output().expect("run");
    std::fs::remove_file(&input).expect("remove");
    let drawn = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"));
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&file, &drawn).expect("write");
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(drawn == expected, "{name} is drawn otherwise than in {}:\n{drawn}", file.display());
}

#[test]
fn a_wide_terminal_shows_bars_the_critical_path_errors_and_retries() {
    golden("wide", &shop(), &["--width", "120"]);
}

#[test]
fn a_usual_terminal_shows_the_same_with_shorter_bars() {
    golden("usual", &shop(), &["--width", "80"]);
}

#[test]
fn a_narrow_terminal_shows_lines_without_bars() {
    golden("narrow", &shop(), &["--width", "44"]);
}

#[test]
fn colours_are_there_when_they_are_asked_for() {
    golden("colour", &shop(), &["--width", "80", "--colour", "always"]);
}

#[test]
fn a_clock_that_differs_is_put_right_and_said() {
    let mut spans = shop();
    for Span(_, _, service, _, _, start, end, _) in &mut spans {
        if *service == "orders" {
            (*start, *end) = (*start + 5_000_000, *end + 5_000_000);
        }
    }
    golden("skew", &spans, &["--width", "100"]);
}

#[test]
fn spans_whose_parents_are_missing_stand_for_themselves_and_say_so() {
    let mut spans = shop();
    spans.retain(|Span(id, ..)| *id != 7 && *id != 4);
    golden("orphans", &spans, &["--width", "100"]);
}

#[test]
fn of_a_thousand_spans_those_that_matter_are_drawn() {
    let mut spans = vec![Span(1, 0, "batch", "run".into(), 1, 0, 1_000_000, vec![])];
    for number in 0..999 {
        let start = 1000 * number;
        let attributes = if number == 500 { vec![("error.type", json!("timeout"))] } else { vec![] };
        // Nobody waits for most: they overlap the one that is long.
        let end = if number == 3 { 990_000 } else { start + 800 };
        spans.push(Span(number + 2, 1, "batch", format!("step {number}"), 1, start, end, attributes));
    }
    golden("thousand", &spans, &["--width", "80"]);
    golden("thousand-table", &spans[..5], &["-o", "table"]);
}

#[test]
fn scripts_get_json_and_yaml() {
    golden("json", &shop()[..3], &["-o", "json"]);
    golden("yaml", &shop()[..3], &["-o", "yaml"]);
    golden("list", &shop(), &["--list"]);
}

#[test]
fn what_others_named_cannot_steer_the_terminal() {
    let spans = [Span(
        1,
        0,
        "a\u{1b}[2Jb",
        "GET /\u{202e}x\n\ty\u{7}".into(),
        SERVER,
        0,
        10,
        vec![("error.type", json!("\u{1b}]0;x"))],
    )];
    golden("tame", &spans, &["--width", "60"]);
}
