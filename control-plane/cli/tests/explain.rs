//! `spanmesh policy explain` as a script uses it. What it says is compared with `golden/policy/`; `BLESS=1` writes the files
//! anew.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use serde_json::{Value, json};

fn explained(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spanmesh"));
    command.args(["policy", "explain"]).args(arguments).env_clear().stdin(Stdio::null());
    command.current_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/policies"));
    let output = command.output().expect("run");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

fn golden(name: &str, arguments: &[&str]) {
    let (code, text, err) = explained(&[&["--source", "dir:before"], arguments].concat());
    assert_eq!((code, err.as_str()), (0, ""), "{name}");
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/policy").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("create");
        std::fs::write(&file, &text).expect("write");
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(text == expected, "{name} is said otherwise than in {}:\n{text}", file.display());
}

fn value(arguments: &[&str]) -> Value {
    let (code, out, err) = explained(&[&["--source", "dir:before", "-o", "json"], arguments].concat());
    assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}");
    serde_json::from_str(&out).expect("JSON")
}

const CALL: [&str; 4] = ["--from", "cart.shop", "--to", "payment.shop"];

#[test]
fn a_call_is_explained_at_both_of_its_proxies() {
    golden("explain.txt", &[&CALL[..], &["--method", "GET", "--path", "/pay/7"]].concat());
}

#[test]
fn a_decision_that_was_made_before_holds_where_policy_says_so() {
    golden("explain-kept.txt", &["--from", "cart.shop", "--to", "stock.shop", "--parent", "kept"]);
}

#[test]
fn the_rule_that_decides_is_the_one_of_the_proxy() {
    let decides = |arguments: &[&str]| {
        let value = value(arguments);
        let first = &value["proxies"][0];
        (first["decides"]["policy"].as_str().map(str::to_owned), first["decides"]["rule"].as_str().map(str::to_owned))
    };
    let of = |policy: &str, rule: &str| (Some(policy.to_owned()), Some(rule.to_owned()));
    for (more, expected) in [
        // A policy for a service decides at its callers, before what holds for them in general.
        (&["--path", "/pay"][..], of("shop/payment", "pay")),
        (&["--method", "POST", "--header", "x-tier=gold", "--path", "/pay"], of("shop/payment", "gold")),
        (&["--path", "/payments"], of("shop/shop", "tenth")),
        (&["--host", "a.shop.example"], of("shop/payment", "slow")),
        // An override of the mesh is above, where it is asked.
        (&["--path", "/healthz"], of("default", "probes")),
        (&["--side", "inbound", "--path", "/pay"], of("shop/payment", "pay")),
        (&["--side", "gateway", "--parent", "dropped", "--path", "/pay"], of("shop/payment", "pay")),
    ] {
        assert_eq!(decides(&[&CALL[..], more].concat()), expected, "{more:?}");
    }
    let orders = ["--from", "cart.shop", "--to", "orders.shop"];
    assert_eq!(decides(&orders), of("shop/shop", "orders"));
    assert_eq!(decides(&["--from", "a.elsewhere", "--to", "b.elsewhere"]), of("default", "rest"));
    // What came with a decision is asked nothing.
    assert_eq!(decides(&["--from", "cart.shop", "--to", "stock.shop", "--parent", "dropped"]), (None, None));
}

#[test]
fn what_keeps_a_rule_from_deciding_is_named_by_its_field() {
    let value = value(&[&CALL[..], &["--path", "/pay"]].concat());
    let rules = value["proxies"][0]["rules"].as_array().expect("a list");
    let gold = rules.iter().find(|rule| rule["rule"] == "gold").expect("gold");
    let fields: Vec<_> = gold["misses"].as_array().expect("a list").iter().map(|miss| &miss["field"]).collect();
    assert_eq!(fields, ["method", "headers[0]"]);
    let tenth = rules.iter().find(|rule| rule["rule"] == "tenth").expect("tenth");
    assert_eq!(tenth["outcome"], "notAsked");
}

/// A control plane as far as it has these pages, one after the other.
fn pages(pages: Vec<Value>) -> (String, thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address").to_string();
    let served = thread::spawn(move || {
        let answer = |page: Value| {
            let (mut stream, _) = listener.accept().expect("accept");
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).expect("read") == 1 {
                head.push(byte[0]);
            }
            let body = page.to_string();
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).expect("write");
            String::from_utf8(head).expect("text").lines().next().unwrap_or_default().to_owned()
        };
        pages.into_iter().map(answer).collect()
    });
    (address, served)
}

fn counted() -> Value {
    json!({"version": 1, "proxies": [{
        "service": "cart", "namespace": "shop", "role": "sidecar",
        "decided": {
            "arrivedKept": 30, "arrivedDropped": 50, "unruled": 0, "otherRules": 0,
            "rules": [{"policy": "shop/payment", "rule": "pay", "seen": 20, "kept": 1}],
        },
    }]})
}

#[test]
fn a_live_control_plane_says_what_share_arrived_decided_already() {
    let (address, served) = pages(vec![counted()]);
    let more = ["--source", "dir:before", "--path", "/pay", "--address", &address];
    let (code, out, err) = explained(&[&CALL[..], &more].concat());
    served.join().expect("served");
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("of 100 requests at 1 connected proxy"), "{out}");
    assert!(out.contains("80.0 % arrived decided already, 20.0 % by pay"), "{out}");
}

#[test]
fn what_is_in_force_is_explained_without_a_folder() {
    let policy = |spec: Value| {
        json!({
            "apiVersion": "spanmesh.io/v1alpha1", "kind": "SamplingPolicy", "spec": spec,
            "metadata": {"name": "payment", "namespace": "shop", "generation": 7},
        })
    };
    let rule = json!({"name": "pay", "action": {"probability": "0.25"}});
    let known = policy(json!({
        "targetRefs": [{"kind": "Namespace", "name": "shop"}], "defaults": {"head": {"rules": [rule]}},
    }));
    let (address, served) = pages(vec![json!({"items": [known]}), counted()]);
    let (code, out, err) = explained(&[&CALL[..], &["--address", &address, "-o", "json"]].concat());
    assert_eq!(served.join().expect("served"), ["GET /sampling HTTP/1.1", "GET /proxies HTTP/1.1"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let value: Value = serde_json::from_str(&out).expect("JSON");
    let (first, last) = (&value["proxies"][0], &value["proxies"][1]);
    assert_eq!((&first["decides"]["rule"], &first["decides"]["generation"]), (&json!("pay"), &json!(7)));
    assert_eq!((&first["live"]["requests"], &first["live"]["arrivedDecided"]), (&json!(100), &json!(80)));
    assert_eq!((&last["at"], &last["live"]["proxies"]), (&json!("payment.shop"), &json!(0)));
    // What a newer control plane has does not count, and is said.
    let (address, served) = pages(vec![json!({"items": [policy(json!({"whatever": 1}))]}), counted()]);
    let (code, _, err) = explained(&[&CALL[..], &["--address", &address]].concat());
    served.join().expect("served");
    assert_eq!(code, 0);
    assert!(err.contains("1 resource is not understood"), "{err}");
    // And one that has no such page is no control plane that can be asked.
    let (address, served) = pages(vec![json!({})]);
    let (code, out, err) = explained(&[&CALL[..], &["--address", &address]].concat());
    served.join().expect("served");
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("does not say which policies are in force"), "{err}");
}

#[test]
fn a_request_that_is_not_described_is_wrong_usage() {
    for (arguments, expected) in [
        (&["--from", "a.b"][..], "--source dir:/path/to/folder, or --address"),
        (&["--source", "kube"], "dir:/path"),
        (&["--source", "dir:before"], "--from cart.shop"),
        (&["--source", "dir:before", "--from", "cart"], "`cart` is no service"),
        (&["--source", "dir:before", "--from", "a.b", "--path", "x"], "does not begin with /"),
        (&["--source", "dir:before", "--from", "a.b", "--side", "inbound"], "--to is missing"),
        (&["--source", "dir:before", "--to", "a.b", "--side", "outbound"], "--from is missing"),
        (&["--source", "dir:before", "--from", "a.b", "--header", "x"], "x-tier=gold"),
        (&["--source", "dir:before", "--from", "a.b", "--parent", "maybe"], "none, kept, dropped"),
    ] {
        let (code, out, err) = explained(arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(err.contains(expected), "{arguments:?}: {err}");
    }
}
