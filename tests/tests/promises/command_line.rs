//! The program's command line: what it says, and with which exit code it ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use spanmesh_tests::Dir;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spanmesh-proxy-under-test"));
    command.args(arguments).env_clear();
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

const GOOD: &str = "\
version: 1
role: standalone
admin: {address: '127.0.0.1:0'}
status: {address: '127.0.0.1:0'}
listeners:
- {name: in, mode: inbound, address: '127.0.0.1:0', upstream: app}
upstreams:
- {name: app, addresses: ['127.0.0.1:9']}
";

#[test]
fn it_tells_its_version_and_its_usage() {
    for arguments in [&["version"][..], &["--version"], &["-V"]] {
        let (code, out, err) = said(arguments);
        assert_eq!(
            (code, out.as_str(), err.as_str()),
            (0, concat!("spanmesh-proxy ", env!("CARGO_PKG_VERSION"), "\n"), "")
        );
    }
    for arguments in [&[][..], &["--help"], &["-h"], &["help"]] {
        let (code, out, _) = said(arguments);
        assert_eq!(code, 0);
        assert!(out.contains("check-config FILE") && out.contains("Exit codes"), "{out}");
    }
}

#[test]
fn wrong_usage_ends_with_2_and_a_hint() {
    for (arguments, expected) in [
        (&["rnu"][..], "rnu"),
        (&["--what"], "--what"),
        (&["run"], "--config"),
        (&["run", "--config"], "--config"),
        (&["run", "proxy.yaml"], "proxy.yaml"),
        (&["check-config"], "FILE"),
        (&["check-config", "a", "b"], "b"),
        (&["version", "now"], "now"),
    ] {
        let (code, out, err) = said(arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(err.contains(expected) && err.contains("--help"), "{arguments:?}: {err}");
    }
}

#[test]
fn a_broken_file_ends_with_2_and_says_where_and_what() {
    let dir = Dir::new();
    let file = dir.write("broken.yaml", GOOD.replace("mode: inbound", "mode: sideways").replace("role: s", "roll: s"));
    let file = file.display().to_string();
    for arguments in [&["run", "--config", &file][..], &["check-config", &file]] {
        let (code, out, err) = said(arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        assert!(err.contains(&format!("{file}:2:1: ")) && err.contains("roll"), "{err}");
        assert!(err.contains(&format!("{file}:6:")) && err.contains("listeners[0].mode"), "{err}");
        assert!(err.contains("inbound"), "what would be right: {err}");
    }
    let missing = dir.path("missing.yaml").display().to_string();
    for arguments in [&["run", "--config", &missing][..], &["check-config", &missing]] {
        let (code, _, err) = said(arguments);
        assert_eq!(code, 2);
        assert!(err.contains(&missing), "{err}");
    }
    let not_yaml = dir.write("not.yaml", "version: 1\nrole: [standalone\n").display().to_string();
    let (code, _, err) = said(&["check-config", &not_yaml]);
    assert_eq!(code, 2);
    assert!(err.contains(&format!("{not_yaml}:")), "{err}");
}

#[test]
fn a_right_file_is_told_to_be_right() {
    let dir = Dir::new();
    let file = dir.write("good.yaml", GOOD).display().to_string();
    let (code, out, err) = said(&["check-config", &file]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains(&file) && out.contains("ok") && out.contains("1 listener"), "{out}");
    // The environment is part of what is checked.
    let mut command = command(&["check-config", &file]);
    let (code, _, err) = told(command.env("SPANMESH_LISTENERS__0__MODE", "sideways").output().expect("run"));
    assert_eq!(code, 2);
    assert!(err.contains("SPANMESH_LISTENERS__0__MODE"), "{err}");
}

#[test]
fn an_address_that_is_taken_ends_with_1_and_a_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("address").to_string();
    let dir = Dir::new();
    for place in ["listeners", "admin", "status"] {
        let text = match place {
            "listeners" => GOOD.replace("inbound, address: '127.0.0.1:0'", &format!("inbound, address: '{address}'")),
            other => {
                GOOD.replace(&format!("{other}: {{address: '127.0.0.1:0'"), &format!("{other}: {{address: '{address}'"))
            }
        };
        let file = dir.write("taken.yaml", text).display().to_string();
        let (code, _, err) = said(&["run", "--config", &file]);
        assert_eq!(code, 1, "{err}");
        assert!(err.contains(&address) && err.contains("ss -ltnp"), "{err}");
    }
}

#[test]
fn a_certificate_that_is_not_there_ends_with_1_and_its_path() {
    let dir = Dir::new();
    let text =
        GOOD.replace("mode: inbound", "mode: gateway, tls: {certificates: [{cert: /no/such.crt, key: /no/such.key}]}");
    let file = dir.write("tls.yaml", text).display().to_string();
    let (code, _, err) = said(&["run", "--config", &file]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("/no/such"), "{err}");
}

#[test]
fn it_runs_serves_and_ends_well_after_sigterm() {
    for signal in [Signal::TERM, Signal::INT] {
        let origin = TcpListener::bind("127.0.0.1:0").expect("bind");
        let dir = Dir::new();
        let text = GOOD.replace("127.0.0.1:9", &origin.local_addr().expect("address").to_string());
        let file = dir.write("good.yaml", text).display().to_string();
        let mut child =
            command(&["run", "--config", &file]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("run");
        let mut lines = BufReader::new(child.stderr.take().expect("standard error")).lines();
        let listening = lines.find_map(|line| {
            let line: Value = serde_json::from_str(&line.expect("a line")).ok()?;
            (line["message"] == "listening").then(|| line["address"].as_str().map(str::to_owned)).flatten()
        });
        let address: SocketAddr = listening.expect("it tells where it listens").parse().expect("an address");
        // What it says is read to the end, or it would be killed for saying it.
        let reader = std::thread::spawn(move || lines.map_while(Result::ok).count());

        let mut client = TcpStream::connect(address).expect("connect");
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").expect("write");
        let (mut stream, _) = origin.accept().expect("accept");
        let mut head = [0; 16];
        stream.read_exact(&mut head).expect("read");
        assert_eq!(&head, b"GET / HTTP/1.1\r\n");
        // A request is in flight when the end is ordered; it still gets its answer.
        kill_process(Pid::from_child(&child), signal).expect("kill");
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").expect("write");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("read");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
        drop(stream);
        let status = child.wait().expect("wait");
        assert_eq!(status.code(), Some(0));
        reader.join().expect("join");
    }
}
