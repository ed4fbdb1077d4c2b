//! `spanmesh policy` and `spanmesh proxy-status` as a script uses them. What they say is compared with `golden/policy/`;
//! `BLESS=1` writes the files anew.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use serde_json::{Value, json};

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spanmesh"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    // Files are named as they are given.
    command.current_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/policies"));
    command
}

fn said(arguments: &[&str]) -> (i32, String, String) {
    told(command(arguments).output().expect("run"))
}

fn told(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

fn golden(name: &str, text: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/policy").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("create");
        std::fs::write(&file, text).expect("write");
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(text == expected, "{name} is said otherwise than in {}:\n{text}", file.display());
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

#[test]
fn lint_says_what_is_refused_by_file_line_and_field_and_ends_with_3() {
    let (code, out, err) = said(&["policy", "lint", "bad"]);
    assert_eq!(code, 3, "{out}{err}");
    assert!(err.contains("3 resources are refused"), "{err}");
    for part in
        ["bad/wrong.yaml:9 ", "bad/wrong.yaml:16 ", "bad/wrong.yaml:20 ", "MeshTracing mine: ", "name it default"]
    {
        assert!(out.contains(part), "{part}: {out}");
    }
    golden("lint.txt", &out);
    let (code, out, _) = said(&["policy", "lint", "bad", "-o", "json"]);
    assert_eq!(code, 3);
    let value = parsed(&out);
    assert_eq!((&value["accepted"], &value["refused"]), (&json!(2), &json!(3)));
    let severities = value["findings"].as_array().expect("a list").iter().map(|finding| &finding["severity"]);
    assert!(severities.clone().any(|word| word == "warning") && severities.clone().any(|word| word == "refused"));
}

#[test]
fn lint_ends_with_0_where_all_is_good_or_only_odd() {
    let (code, out, err) = said(&["policy", "lint", "before"]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "3 good, 0 refused\n", ""));
    let (code, out, _) = said(&["policy", "lint", "bad/odd.yaml"]);
    assert_eq!(code, 0, "{out}");
    for part in
        ["`carts` is never asked: `gets` stands before it", "gives way to shop/older", "all listeners", "`everything`"]
    {
        assert!(out.contains(part), "{part}: {out}");
    }
    let (code, out, _) = said(&["policy", "lint", "before/notes.txt"]);
    assert!(code == 3 || out.contains("no resource of spanmesh.io"), "{out}");
}

#[test]
fn lint_reads_standard_input() {
    let mut child = command(&["policy", "lint", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run");
    let text = "apiVersion: spanmesh.io/v1alpha1\nkind: SamplingPolicy\nmetadata: {name: x}\nspec: {}\n";
    child.stdin.take().expect("stdin").write_all(text.as_bytes()).expect("write");
    let (code, out, _) = told(child.wait_with_output().expect("wait"));
    assert_eq!(code, 3);
    assert!(out.starts_with("standard input:1 ") && out.contains("metadata.namespace: is missing"), "{out}");
}

#[test]
fn diff_shows_rules_before_and_after_for_those_that_it_changes() {
    let (code, out, err) = said(&["policy", "diff", "before", "after"]);
    assert_eq!((code, err.as_str()), (0, ""));
    golden("diff.txt", &out);
    let (code, out, _) = said(&["policy", "diff", "before", "before"]);
    assert_eq!(code, 0);
    assert!(out.starts_with("nothing changes for "), "{out}");
    let (code, out, _) =
        said(&["policy", "diff", "before", "after", "--service", "payment", "--namespace", "shop", "-o", "json"]);
    assert_eq!(code, 0);
    let value = parsed(&out);
    let names: Vec<_> = value["changed"].as_array().expect("a list").iter().map(|view| &view["for"]).collect();
    assert_eq!(names, ["proxies of service payment in namespace shop", "callers of payment.shop"]);
}

#[test]
fn diff_counts_what_is_refused_as_a_control_plane_does() {
    let folder = std::env::temp_dir().join(format!("spanmesh-diff-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("create");
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/policies/before");
    std::fs::copy(here.join("mesh.yaml"), folder.join("mesh.yaml")).expect("copy");
    let text = std::fs::read_to_string(here.join("shop.yaml")).expect("read").replace("\"0.05\"", "\"5\"");
    std::fs::write(folder.join("shop.yaml"), text).expect("write");
    let (code, out, err) = said(&["policy", "diff", "before", folder.to_str().expect("text")]);
    std::fs::remove_dir_all(&folder).expect("remove");
    assert_eq!(code, 3, "{out}");
    assert!(out.starts_with("nothing changes"), "{out}");
    assert!(err.contains("what it was goes on"), "{err}");
}

/// A control plane's pages: one answer to whoever asks.
fn pages(body: Value) -> (SocketAddr, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let served = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).expect("read") == 1 {
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"GET /proxies HTTP/1.1\r\n"));
        let body = body.to_string();
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).expect("write");
    });
    (address, served)
}

fn proxies() -> Value {
    let proxy = |id: u64, service: &str, held: u64, refusals: Value| {
        json!({
            "id": id, "service": service, "namespace": "shop", "pod": format!("{service}-7d9"), "workload": service,
            "role": "sidecar", "proxyVersion": "0.1.0", "peer": "10.0.0.7:41000", "connectedSeconds": 61, "version": held,
            "inStep": held >= 7 && refusals == json!([]), "waitingForAnswer": false, "refusals": refusals, "unknown": [],
            "report": {"secondsAgo": 2},
            "decided": {
                "arrivedKept": 30, "arrivedDropped": 50, "unruled": 0, "spans": 33, "otherRules": 0,
                "rules": [
                    {"policy": "shop/payment", "rule": "pay", "seen": 15, "kept": 1},
                    {"policy": "shop/shop", "rule": "tenth", "seen": 5, "kept": 1},
                ],
            },
        })
    };
    let refused = json!([{"resource": "policy/own", "reason": "rules[0]: is odd"}]);
    json!({"version": 7, "connected": 3, "converged": 1, "proxies": [
        proxy(1, "cart", 7, json!([])), proxy(2, "payment", 7, refused), proxy(3, "late", 5, json!([])),
    ]})
}

#[test]
fn proxy_status_lists_proxies_and_says_all_of_one() {
    for (name, arguments) in [("status.txt", &[][..]), ("status-one.txt", &["payment.shop"])] {
        let (address, served) = pages(proxies());
        let address = address.to_string();
        let (code, out, err) = said(&[&["proxy-status", "--address", &address], arguments].concat());
        served.join().expect("served");
        assert_eq!((code, err.as_str()), (0, ""));
        golden(name, &out);
    }
    let (address, served) = pages(proxies());
    let (code, out, _) = said(&["proxy-status", "cart-7d9", "-o", "json", "--address", &address.to_string()]);
    served.join().expect("served");
    assert_eq!((code, &parsed(&out)[0]["service"]), (0, &json!("cart")));
    let (address, served) = pages(proxies());
    let (code, _, err) = said(&["proxy-status", "nobody", "--address", &address.to_string()]);
    served.join().expect("served");
    assert_eq!(code, 1);
    assert!(err.contains("no connected proxy is called nobody"), "{err}");
}

#[test]
fn a_control_plane_that_is_not_there_is_named_with_what_to_do() {
    let (code, out, err) = said(&["proxy-status", "--address", "127.0.0.1:9"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("127.0.0.1:9") && err.contains("is it running?") && err.contains("--address"), "{err}");
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_control_plane_is_a_subcommand_that_proxy_status_asks() {
    let (code, out, _) = said(&["control-plane", "version"]);
    assert_eq!((code, out.as_str()), (0, concat!("spanmesh-control-plane ", env!("CARGO_PKG_VERSION"), "\n")));
    assert_eq!(said(&["control-plane", "walk"]).0, 2);
    let nowhere =
        ["control-plane", "run", "--source", "dir:/nowhere", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let (code, _, err) = said(&nowhere);
    assert_eq!(code, 1);
    assert!(err.contains("the folder /nowhere cannot be read") && !err.contains("ready"), "{err}");
    let mut run = command(&["control-plane", "run", "--source", "dir:before", "--listen", "127.0.0.1:0"]);
    let mut child = Running(run.args(["--admin", "127.0.0.1:0"]).stderr(Stdio::piped()).spawn().expect("run"));
    let log = BufReader::new(child.0.stderr.take().expect("a log"));
    let told = log.lines().map_while(Result::ok).find(|line| line.contains("admin"));
    let told = told.expect("where it listens");
    // A line of JSON in the form of the proxy's, since nobody looks on.
    let told = parsed(&told);
    assert_eq!((&told["level"], &told["message"]), (&json!("info"), &json!("ready")));
    assert!(told["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{told}");
    let address = told["admin"].as_str().expect("an address").to_owned();
    let (code, out, err) = said(&["proxy-status", "--address", &address]);
    assert_eq!(code, 0, "{told}: {err}");
    assert!(out.starts_with("no proxy is connected"), "{out}");
}

#[test]
fn wrong_usage_of_policies_ends_with_2() {
    for (arguments, expected) in [
        (&["policy"][..], "lint, diff or explain"),
        (&["policy", "lnit"], "`lnit` is not known"),
        (&["policy", "lint"], "standard input"),
        (&["policy", "lint", "before", "-o", "xml"], "table, json, yaml"),
        (&["policy", "diff", "before"], "say what to compare"),
        (&["policy", "diff", "before", "after", "--service", "x"], "--namespace is missing"),
        (&["policy", "diff", "before", "after", "--role", "king"], "sidecar, gateway, standalone"),
        (&["proxy-status", "--what"], "--what"),
    ] {
        let (code, out, err) = said(arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(err.contains(expected) && err.contains("--help"), "{arguments:?}: {err}");
    }
    let (code, _, err) = said(&["policy", "lint", "nowhere"]);
    assert_eq!(code, 1);
    assert!(err.contains("nowhere cannot be read"), "{err}");
}
