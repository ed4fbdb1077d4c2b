//! The demo, as a newcomer and as a script run it: it shows what it promises, and however it ends it leaves nothing behind.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A folder that demos put theirs into, and the test that nothing of them is left.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("spanmesh-cli-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("folder");
        Self(path)
    }

    fn demo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spanmesh"));
        command.arg("demo").args(arguments).arg("--folder").arg(&self.0);
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Processes whose command line names this folder.
    fn processes(&self) -> Vec<String> {
        let of = |entry: std::io::Result<std::fs::DirEntry>| {
            let line = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(self.0.to_str()?).then_some(line)
        };
        std::fs::read_dir("/proc").expect("proc").filter_map(of).collect()
    }

    fn files(&self) -> usize {
        std::fs::read_dir(&self.0).expect("folder").count()
    }

    fn is_left_clean(&self) {
        let begun = Instant::now();
        while self.files() > 0 || !self.processes().is_empty() {
            assert!(begun.elapsed() < PATIENCE, "left behind: {:?}, {} files", self.processes(), self.files());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn end(child: &mut Child) -> i32 {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("wait") {
            return status.code().unwrap_or(-1);
        }
        if begun.elapsed() > PATIENCE {
            child.kill().expect("kill");
            panic!("the demo does not end");
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn rest(from: Option<impl Read>) -> String {
    let mut text = String::new();
    from.expect("piped").read_to_string(&mut text).expect("text");
    text
}

/// Reads until a line has this in it.
fn until(out: &mut BufReader<ChildStdout>, wanted: &str) -> String {
    let mut text = String::new();
    loop {
        let mut line = String::new();
        assert!(out.read_line(&mut line).expect("text") > 0, "it ended without saying `{wanted}`:\n{text}");
        text.push_str(&line);
        if line.contains(wanted) {
            return text;
        }
    }
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("a signal");
}

#[test]
fn two_demos_at_once_show_all_that_they_promise() {
    let places = [Place::new(), Place::new()];
    let demos: Vec<_> =
        places.iter().map(|place| place.demo(&["--headless", "--for", "150s"]).spawn().expect("demo")).collect();
    for (place, demo) in places.iter().zip(demos) {
        let output = demo.wait_with_output().expect("wait");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{out}{err}");
        assert_eq!(out.lines().filter(|line| line.starts_with("ok ")).count(), 8, "{out}");
        for said in ["edge ← GET /checkout", "prices ← demo.Prices/Quote", "payment ← PUT /payments/", "critical path"]
        {
            assert!(out.contains(said), "{said}: {out}");
        }
        assert!(!out.contains('\u{1b}') && !out.contains('\r'), "no terminal, no colours: {out}");
        place.is_left_clean();
    }
}

#[test]
fn what_is_missing_ends_with_3_and_is_named() {
    let place = Place::new();
    let mut demo = place.demo(&[&ANY_PORT[..], &["--headless", "--for", "1ms"]].concat()).spawn().expect("demo");
    assert_eq!(end(&mut demo), 3);
    let (out, err) = (rest(demo.stdout.take()), rest(demo.stderr.take()));
    assert!(out.contains("MISSING") && err.contains("the demo lacks: "), "{out}{err}");
    for lacks in ["an edited policy changes", "control plane is away", "a killed service shows"] {
        assert!(err.contains(lacks), "{lacks}: {err}");
    }
    place.is_left_clean();
}

#[test]
fn a_trace_of_the_demo_is_drawn_by_its_id_and_ctrl_c_leaves_nothing() {
    let place = Place::new();
    let mut demo = place.demo(&ANY_PORT).spawn().expect("demo");
    let mut out = BufReader::new(demo.stdout.take().expect("piped"));
    let mut text = until(&mut out, "Try next");
    text.push_str(&until(&mut out, "Ctrl-C"));
    let id = text.lines().find_map(|line| line.strip_prefix("trace ")?.split(' ').next()).expect("a trace").to_owned();
    let from = text.split_once("--from ").and_then(|(_, rest)| rest.split_whitespace().next()).expect("a server");
    for arguments in
        [&["trace", &id, "--from", from][..], &["trace", "--from", from], &["trace", "--list", "--from", from]]
    {
        let drawn = Command::new(env!("CARGO_BIN_EXE_spanmesh")).args(arguments).output().expect("run");
        let drawn_text = String::from_utf8_lossy(&drawn.stdout);
        assert_eq!(drawn.status.code(), Some(0), "{}", String::from_utf8_lossy(&drawn.stderr));
        assert!(drawn_text.contains("GET /checkout"), "{drawn_text}");
    }
    assert!(
        place.processes().len() > 12,
        "the demo, its control plane, 5 services, 6 proxies: {:?}",
        place.processes()
    );
    send(&demo, Signal::INT);
    assert_eq!(end(&mut demo), 0);
    assert_eq!(place.processes(), Vec::<String>::new(), "nothing outlives it");
    assert_eq!(place.files(), 0);
}

/// A word of what the demo says to try next.
fn after<'a>(text: &'a str, before: &str) -> &'a str {
    let found = text.split_once(before).and_then(|(_, rest)| rest.split_whitespace().next());
    found.unwrap_or_else(|| panic!("no `{before}`: {text}"))
}

fn spanmesh(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_spanmesh")).args(arguments).env_clear().output().expect("run");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    assert_eq!((output.status.code(), text(output.stderr)), (Some(0), String::new()), "{arguments:?}");
    text(output.stdout)
}

/// Asks again until it is so.
fn until_said(wanted: &str, said: impl Fn() -> String) -> String {
    let begun = Instant::now();
    loop {
        let text = said();
        if text.contains(wanted) {
            return text;
        }
        assert!(begun.elapsed() < PATIENCE, "never `{wanted}`: {text}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn what_the_demo_says_to_try_next_works() {
    let place = Place::new();
    let mut demo = place.demo(&ANY_PORT).args(["--rate", "20"]).spawn().expect("demo");
    let mut out = BufReader::new(demo.stdout.take().expect("piped"));
    let text = until(&mut out, "Ctrl-C");
    let admin = after(&text, "proxy-status --address ").to_owned();
    assert_eq!(after(&text, "policy explain --address "), admin, "{text}");
    assert!(text.lines().any(|line| line.contains("control-plane") && line.contains(&admin)), "{text}");

    let status = until_said("6 of 6 proxies in step with version", || spanmesh(&["proxy-status", "--address", &admin]));
    for name in ["edge.demo", "shop.demo", "prices.demo", "orders.demo", "stock.demo", "payment.demo"] {
        assert!(status.lines().any(|line| line.starts_with(name) && line.contains(" yes ")), "{name}: {status}");
    }
    // Which rule decides at the gateway, and that all has been decided when it arrives behind it.
    let explain = ["policy", "explain", "--address", &admin, "--from", "edge.demo", "--to", "shop.demo"];
    // Each reports when its second is over, in any order.
    until_said("0.0 % arrived decided already, 100.0 % by all", || spanmesh(&explain));
    let told = until_said("100.0 % arrived decided already, 0.0 % by all", || spanmesh(&explain));
    assert!(told.starts_with("gateway side of edge.demo"), "{told}");
    assert!(told.contains("all of demo/demo decides: the trace is kept"), "{told}");
    assert!(told.contains("0.0 % arrived decided already, 100.0 % by all"), "{told}");

    // The file that it names, with a mistake and without.
    let file = after(&text, "sed -i 's/\"1\"/\"0.1\"/' ").to_owned();
    let written = std::fs::read_to_string(&file).expect("the file");
    std::fs::write(&file, written.replace("\"1\"", "\"7\"")).expect("write");
    let refused = until(&mut out, "refused");
    assert!(refused.contains("control-plane: sampling.yaml"), "{refused}");
    std::fs::write(&file, written.replace("\"1\"", "\"0.1\"")).expect("write");
    until_said("as 0.1 of all do", || spanmesh(&explain));

    // Without its control plane it goes on, until that is back.
    let process = after(&text, "end the control plane             kill ").parse().expect("a process");
    kill_process(Pid::from_raw(process).expect("a process"), Signal::KILL).expect("a signal");
    let told = until(&mut out, "the control plane is back");
    assert!(
        told.contains("the control plane has ended (signal: 9") && told.contains("go on with the policies"),
        "{told}"
    );
    until_said("6 of 6 proxies in step", || spanmesh(&["proxy-status", "--address", &admin]));
    let told = until(&mut out, "requests/s");
    assert!(!told.contains("cannot be followed"), "once for all proxies: {told}");
    send(&demo, Signal::INT);
    assert_eq!(end(&mut demo), 0);
    place.is_left_clean();
}

#[test]
fn a_demo_that_ends_without_its_control_plane_leaves_nothing() {
    for signal in [Signal::INT, Signal::KILL] {
        let place = Place::new();
        let mut demo = place.demo(&ANY_PORT).spawn().expect("demo");
        let mut out = BufReader::new(demo.stdout.take().expect("piped"));
        let text = until(&mut out, "Ctrl-C");
        let process = after(&text, "end the control plane             kill ").parse().expect("a process");
        kill_process(Pid::from_raw(process).expect("a process"), Signal::KILL).expect("a signal");
        until(&mut out, "the control plane has ended");
        send(&demo, signal);
        demo.wait().expect("wait");
        place.is_left_clean();
    }
}

#[test]
fn variables_that_are_meant_for_other_proxies_change_nothing() {
    let place = Place::new();
    let mut command = place.demo(&ANY_PORT);
    command.env("SPANMESH_LOG", "error").env("SPANMESH_ROLE", "gateway").env("OTEL_SDK_DISABLED", "true");
    let mut demo = command.spawn().expect("demo");
    until(&mut BufReader::new(demo.stdout.take().expect("piped")), "Try next");
    send(&demo, Signal::TERM);
    assert_eq!(end(&mut demo), 0);
    place.is_left_clean();
}

#[test]
fn a_demo_that_is_killed_leaves_nothing() {
    for wait_for in [None, Some("CONFIGURATION"), Some("Try next")] {
        let place = Place::new();
        let mut demo = place.demo(&ANY_PORT).spawn().expect("demo");
        let mut out = BufReader::new(demo.stdout.take().expect("piped"));
        match wait_for {
            Some(wanted) => drop(until(&mut out, wanted)),
            // In the middle of its start.
            None => {
                while place.processes().len() < 3 {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        }
        send(&demo, Signal::KILL);
        demo.wait().expect("wait");
        place.is_left_clean();
    }
}

#[test]
fn a_port_in_use_is_said_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = taken.local_addr().expect("address").port().to_string();
    for option in ["--port", "--traces-port", "--admin-port"] {
        let place = Place::new();
        let mut demo = place.demo(&[option, &port]).spawn().expect("demo");
        assert_eq!(end(&mut demo), 1);
        let err = rest(demo.stderr.take());
        assert!(err.contains(&format!("127.0.0.1:{port}")) && err.contains(&format!("`{option} 0`")), "{err}");
        place.is_left_clean();
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_said_with_what_to_do() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spanmesh"));
    // Not even root makes a folder there.
    let output = command.args(["demo", "--folder", "/proc"]).env_clear().output().expect("run");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(err.contains("/proc") && err.contains("`--folder DIR`") && Path::new("/proc").exists(), "{err}");
}

#[test]
fn a_closed_pipe_ends_the_demo() {
    let place = Place::new();
    let mut demo = place.demo(&ANY_PORT).spawn().expect("demo");
    let mut out = BufReader::new(demo.stdout.take().expect("piped"));
    until(&mut out, "SERVICE");
    drop(out);
    assert_eq!(end(&mut demo), 0);
    assert_eq!(rest(demo.stderr.take()), "");
    place.is_left_clean();
}

const ANY_PORT: [&str; 6] = ["--port", "0", "--traces-port", "0", "--admin-port", "0"];
/// All of it may run on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(60);
