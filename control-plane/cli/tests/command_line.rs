//! The command line as a script uses it: what it says, where, and with which exit code it ends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spanmesh"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

/// Exit code, standard output, standard error.
fn said(arguments: &[&str]) -> (i32, String, String) {
    told(command(arguments).output().expect("run"))
}

fn told(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

/// A query API that gives one answer to whoever asks; what it was asked comes back. It stands in for Jaeger and Tempo, whose
/// servers no package registry has. The answers are as their documentation shows them: Tempo's "HTTP API" page (a trace by id
/// in its first and second version), Jaeger's "APIs" page (the JSON of its own pages, and `/api/v3`). What that leaves open is
/// not covered: how real servers cut an answer that is long, and what they say when they are overloaded.
fn api(status: &'static str, body: String) -> (SocketAddr, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let asked = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).expect("read") == 1 {
            head.push(byte[0]);
        }
        write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).expect("write");
        String::from_utf8(head).expect("text")
    });
    (address, asked)
}

const ID: &str = "0af7651916cd43dd8448eb211c80319c";

fn jaeger() -> String {
    format!(
        r#"{{"data":[{{"traceID":"{ID}","spans":[{{"traceID":"{ID}","spanID":"b7ad6b7169203331","operationName":"GET /",
        "startTime":1790000000000000,"duration":1500,"tags":[],"processID":"p1"}}],"processes":{{"p1":{{"serviceName":"shop"}}}}}}]}}"#
    )
}

#[test]
fn help_names_every_command_and_each_command_has_its_own() {
    for arguments in [&[][..], &["--help"], &["-h"], &["help"]] {
        let (code, out, _) = said(arguments);
        assert_eq!(code, 0);
        assert!(out.contains("Exit codes: 0 done"), "{out}");
        for name in ["demo", "trace", "proxy", "control-plane", "proxy-status", "policy", "completion", "man"] {
            assert!(out.contains(&format!("\n  {name} ")), "{name}: {out}");
            let (code, own, _) = said(&[name, "--help"]);
            assert_eq!(code, 0);
            assert!(own.contains("Examples:") && own.contains(&format!("Usage: spanmesh {name}")), "{own}");
            assert_eq!(said(&["help", name]).1, own);
        }
    }
    assert_eq!(said(&["--version"]).1, concat!("spanmesh ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn help_of_a_part_of_a_command_says_what_belongs_to_it() {
    let (code, explain, _) = said(&["policy", "explain", "--help"]);
    assert_eq!(code, 0);
    assert_eq!(said(&["help", "policy", "explain"]).1, explain);
    assert!(explain.contains("Usage: spanmesh policy explain --source dir:PATH|--address HOST:PORT"), "{explain}");
    for (line, is_there) in [
        ("  --parent DECISION     what it brings", true),
        ("  --workload NAME       of this Deployment", true),
        ("--output FORM         table, json or yaml", true),
        ("  spanmesh policy explain", true),
        ("--role", false),
        ("spanmesh policy diff", false),
    ] {
        assert_eq!(explain.contains(line), is_there, "{line}: {explain}");
    }
    assert!(said(&["policy", "--help"]).1.contains("  --role ROLE           diff: sidecar"));
    // Examples stand in a column, however long they are.
    let (_, all, _) = said(&["--help"]);
    let examples = all.lines().filter_map(|line| line.strip_prefix("  ").and_then(|line| line.find("  # ")));
    let columns: Vec<_> = examples.collect();
    assert!(columns.len() > 5 && columns.iter().all(|column| *column == columns[0]), "{all}");
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_would_be_right() {
    for (arguments, expected) in [
        (&["dmeo"][..], "`dmeo` is no command"),
        (&["trace", "xyz"], "32 hexadecimal digits"),
        (&["trace", "00000000000000000000000000000000"], "not all of them 0"),
        (&["trace", ID, "-o", "xml"], "waterfall, json, yaml, table"),
        (&["trace", "--file", "a", "--from", "http://b"], "keep one"),
        (&["trace", "--from", "ftp://x"], "http://"),
        (&["trace", "--width", "wide"], "--width"),
        (&["trace", "--header", "nothing"], "X-Scope-OrgID: team"),
        (&["trace", "--from", "http://a:b@c"], "--header"),
        (&["trace", "--what"], "--what"),
        (&["demo", "--for", "10"], "10s"),
        (&["demo", "--port", "80000"], "--port"),
        (&["demo", "--rate", "0"], "--rate"),
        (&["completion"], "bash, zsh or fish"),
        (&["completion", "csh"], "csh"),
        (&["proxy", "rnu"], "rnu"),
        (&["control-plane", "run"], "--source is missing"),
        (
            &["proxy-status", "--address", "http://127.0.0.1:14015"],
            "--address takes a host and a port, 127.0.0.1:14015",
        ),
        (&["policy", "explain", "--address", "control-plane"], "--address takes a host and a port"),
        (&["completion", "bash", "zsh"], "zsh"),
        (&["help", "dmeo"], "there are demo, trace"),
        (&["help", "demo", "now"], "`now` is too much"),
        (&["version", "now"], "`now` is too much"),
    ] {
        let (code, out, err) = said(arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(err.contains(expected), "{arguments:?}: {err}");
        assert!(err.contains("--help"), "{arguments:?}: {err}");
    }
}

#[test]
fn the_proxy_is_a_subcommand() {
    let (code, out, _) = said(&["proxy", "version"]);
    assert_eq!((code, out.as_str()), (0, concat!("spanmesh-proxy ", env!("CARGO_PKG_VERSION"), "\n")));
    let (code, _, err) = said(&["proxy", "check-config", "/nowhere.yaml"]);
    assert_eq!(code, 2, "{err}");
}

#[test]
fn the_manual_page_is_roff() {
    let (code, page, _) = said(&["man"]);
    assert_eq!(code, 0);
    assert!(page.starts_with(".TH SPANMESH 1"));
    for section in ["NAME", "SYNOPSIS", "COMMANDS", "EXIT STATUS", "ENVIRONMENT"] {
        assert!(page.contains(&format!(".SH {section}\n")), "{section}");
    }
}

#[test]
fn a_trace_is_asked_for_by_its_id() {
    let (address, asked) = api("200 OK", jaeger());
    let (code, out, err) = said(&["trace", ID, "--from", &format!("http://{address}/jaeger")]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("shop · GET /") && out.contains("1.5 ms"), "{out}");
    let asked = asked.join().expect("asked");
    assert!(asked.starts_with(&format!("GET /jaeger/api/traces/{ID} HTTP/1.1\r\n")), "{asked}");
}

#[test]
fn what_jaeger_and_tempo_are_documented_to_answer_is_drawn() {
    let span = |trace: &str, id: &str, kind: &str| {
        format!(
            r#"{{"traceId":"{trace}","spanId":"{id}","name":"GET /","kind":{kind},"startTimeUnixNano":"1790000000000000000",
            "endTimeUnixNano":"1790000000001500000","attributes":[],"status":{{}}}}"#
        )
    };
    let resource = r#""resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]}"#;
    let hex = span(ID, "b7ad6b7169203331", "2");
    let base64 = span("CvdlGRbNQ92ESOshHIAxnA==", "t61rcWkgMzE=", r#""SPAN_KIND_SERVER""#);
    for (api_of, body) in [
        ("Tempo", format!(r#"{{"batches":[{{{resource},"scopeSpans":[{{"scope":{{}},"spans":[{base64}]}}]}}]}}"#)),
        (
            "Tempo's second",
            format!(
                r#"{{"trace":{{"resourceSpans":[{{{resource},"scopeSpans":[{{"spans":[{base64}]}}]}}]}},"metrics":{{}}}}"#
            ),
        ),
        ("Jaeger's page", jaeger()),
        (
            "Jaeger's third",
            format!(r#"{{"result":{{"resourceSpans":[{{{resource},"scopeSpans":[{{"spans":[{hex}]}}]}}]}}}}"#),
        ),
    ] {
        let (address, asked) = api("200 OK", body);
        let (code, out, err) = said(&["trace", ID, "--from", &format!("http://{address}")]);
        assert_eq!((code, err.as_str()), (0, ""), "{api_of}");
        assert!(out.contains("GET /") && out.contains("shop") && out.contains("1.5 ms"), "{api_of}: {out}");
        asked.join().expect("asked");
    }
}

#[test]
fn a_server_is_asked_under_tls_and_told_what_it_wants_to_know() {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key);
    let config = Arc::new(config.expect("a certificate"));
    let roots = std::env::temp_dir().join(format!("spanmesh-roots-{}.pem", std::process::id()));
    std::fs::write(&roots, own.cert.pem()).expect("write");

    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let from = format!("https://localhost:{}", listener.local_addr().expect("address").port());
    let served = thread::spawn(move || {
        let mut heads = Vec::new();
        for _ in 0..2 {
            let (stream, _) = listener.accept().expect("accept");
            let tls = rustls::ServerConnection::new(config.clone()).expect("a connection");
            let mut stream = rustls::StreamOwned::new(tls, stream);
            let mut head = Vec::new();
            let mut byte = [0];
            // A client that does not trust the server ends before it has said anything.
            while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                head.push(byte[0]);
            }
            let body = jaeger();
            let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _ = stream.flush();
            heads.push(String::from_utf8(head).expect("text"));
        }
        heads
    });
    let arguments = ["trace", ID, "--from", &from, "--header", "X-Scope-OrgID: team"];
    let (code, out, err) = told(command(&arguments).env("SSL_CERT_FILE", &roots).output().expect("run"));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("GET /"), "{out}");
    // To whom trusts another root the server is a stranger.
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(&roots, other.cert.pem()).expect("write");
    let (code, out, err) = told(command(&arguments).env("SSL_CERT_FILE", &roots).output().expect("run"));
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("cannot be asked: invalid peer certificate"), "{err}");
    let heads = served.join().expect("served");
    assert!(heads[0].contains("x-scope-orgid: team\r\n"), "{heads:?}");
    assert_eq!(heads[1], "");
    std::fs::remove_file(&roots).expect("remove");
}

#[test]
fn a_trace_that_is_not_there_ends_with_1_and_says_why() {
    for (status, body, expected) in [
        ("404 Not Found", String::new(), "has no trace"),
        ("404 Not Found", r#"{"data":null,"errors":[{"code":404,"msg":"trace not found"}]}"#.into(), "has no trace"),
        ("204 No Content", String::new(), "has no trace"),
        ("200 OK", "{\"data\":[]}".into(), "has no trace"),
        ("200 OK", "<html>".into(), "is not JSON"),
        ("503 Service Unavailable", "too busy".into(), "too busy"),
    ] {
        let (address, asked) = api(status, body);
        let (code, out, err) = said(&["trace", ID, "--from", &format!("http://{address}")]);
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(err.contains(expected), "{err}");
        asked.join().expect("asked");
    }
    let (code, _, err) = said(&["trace", ID, "--from", "http://127.0.0.1:9"]);
    assert_eq!(code, 1);
    assert!(err.contains("is it running?"), "{err}");
    let (code, _, err) = said(&["trace", "--file", "/nowhere.json"]);
    assert_eq!(code, 1);
    assert!(err.contains("/nowhere.json cannot be read"), "{err}");
}

#[test]
fn what_is_written_is_read_from_standard_input_and_a_closed_pipe_is_no_error() {
    let mut child = command(&["trace", "--file", "-", "-o", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run");
    child.stdin.take().expect("stdin").write_all(jaeger().as_bytes()).expect("write");
    let (code, out, _) = told(child.wait_with_output().expect("wait"));
    assert_eq!(code, 0);
    let value: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&value["traceId"], &value["spans"][0]["service"]), (&ID.into(), &"shop".into()));

    let mut child = command(&["help"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run");
    drop(child.stdout.take());
    let (code, _, err) = told(child.wait_with_output().expect("wait"));
    assert_eq!((code, err.as_str()), (0, ""));
}

/// A trace whose every text would steer a terminal, as OTLP/JSON.
fn steering() -> String {
    let evil = |what: &str| format!("{what}\u{1b}[2J\u{1b}]0;x\u{7}\u{9b}31m\r\n\u{202e}\u{2066}\u{feff}\u{8}end");
    let text = |what: &str| serde_json::json!({"stringValue": evil(what)});
    let span = |id: &str, kind: u8, attributes: serde_json::Value| {
        serde_json::json!({
            "traceId": ID, "spanId": id, "name": evil("GET /"), "kind": kind, "startTimeUnixNano": "1790000000000000000",
            "endTimeUnixNano": "1790000000001000000", "status": {"code": 2, "message": evil("why")}, "attributes": attributes,
        })
    };
    serde_json::json!({"resourceSpans": [{
        "resource": {"attributes": [{"key": "service.name", "value": text("shop")}]},
        "scopeSpans": [{"spans": [
            span("00f067aa0ba902b7", 2, serde_json::json!([{"key": evil("key"), "value": text("value")}])),
            span("b7ad6b7169203331", 3, serde_json::json!([{"key": "error.type", "value": text("reset")}])),
        ]}],
    }]})
    .to_string()
}

/// The first character that steers, but for ends of lines.
fn steered(text: &str) -> Option<char> {
    let text = text.replace("\r\n", "\n");
    text.chars().find(|c| {
        c.is_control() && *c != '\n' || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    })
}

#[test]
fn no_form_lets_what_others_named_steer_the_terminal() {
    let file = std::env::temp_dir().join(format!("spanmesh-steering-{}.json", std::process::id()));
    std::fs::write(&file, steering()).expect("write");
    let name = file.to_str().expect("text");
    for form in ["waterfall", "table", "json", "yaml"] {
        for more in [&[][..], &["--list"], &["--all", "--width", "40"]] {
            // On a terminal, which `script` makes: without colours, all that could steer would be others'.
            let line = format!(
                "{} trace --file {name} --colour never -o {form} {}",
                env!("CARGO_BIN_EXE_spanmesh"),
                more.join(" ")
            );
            let mut terminal = Command::new("script");
            terminal.args(["-qec", &line, "/dev/null"]).env("SHELL", "/bin/sh").stdin(Stdio::null());
            let (code, out, err) = told(terminal.output().expect("script, of util-linux"));
            assert_eq!((code, err.as_str()), (0, ""), "{line}: {out}");
            assert!(out.contains("sho") || out.contains("SPAN"), "{line}: {out}");
            // How the terminal shows that its input has ended.
            let out = out.replace("^D\u{8}\u{8}", "");
            assert_eq!(steered(&out), None, "{line}: {out:?}");
        }
    }
    // With colours there are ours and no others.
    let (code, out, _) = said(&["trace", "--file", name, "--colour", "always"]);
    assert_eq!(code, 0);
    let mut plain = out.clone();
    while let Some(at) = plain.find("\u{1b}[") {
        let end = at + plain[at..].find('m').expect("a colour's end");
        assert!(plain[at + 2..end].bytes().all(|byte| byte.is_ascii_digit() || byte == b';'), "{out:?}");
        plain.replace_range(at..=end, "");
    }
    assert_eq!(steered(&plain), None, "{out:?}");
    // What a script gets, which may show it, means what was there.
    for form in ["json", "yaml"] {
        let (_, out, _) = said(&["trace", "--file", name, "-o", form]);
        assert_eq!(steered(&out), None, "{out:?}");
        let value: serde_json::Value = serde_yaml::from_str(&out).expect("YAML");
        let kept = value["spans"][0]["name"].as_str().expect("a name");
        assert!(kept.contains("\u{1b}[2J") && kept.contains('\u{202e}'), "{kept:?}");
    }
    std::fs::remove_file(&file).expect("remove");
}

#[test]
fn what_a_server_says_of_its_error_cannot_steer_the_terminal() {
    for (status, body) in [
        ("503 Service Unavailable", "\u{1b}[2Jbusy\u{7}\u{202e}".to_owned()),
        ("200 OK", "{\"a\u{1b}[2J".to_owned()),
        ("200 OK", "<\u{9b}2J>".to_owned()),
    ] {
        let (address, asked) = api(status, body);
        let (code, out, err) = said(&["trace", ID, "--from", &format!("http://{address}")]);
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert_eq!(steered(&err), None, "{err:?}");
        asked.join().expect("asked");
    }
    let (code, _, err) = said(&["trace", "--file", "/nowhere\u{1b}[2J"]);
    assert_eq!((code, steered(&err)), (1, None), "{err:?}");
}

#[test]
fn there_are_no_colours_but_on_a_terminal_or_when_asked() {
    let (address, _asked) = api("200 OK", jaeger());
    let (_, out, _) = said(&["trace", ID, "--from", &format!("http://{address}")]);
    assert!(!out.contains('\u{1b}'), "{out}");
    let (address, _asked) = api("200 OK", jaeger());
    let (_, out, _) = said(&["trace", ID, "--from", &format!("http://{address}"), "--colour", "always"]);
    assert!(out.contains("\u{1b}["), "{out}");
}
