//! The proxy under test as a process of its own: for signals, exit codes, limits, and one that replaces another.

use std::collections::HashMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::proxy::{self, complete, lines};
use crate::{PATIENCE, eventually};

pub struct Process {
    child: Child,
    log: PathBuf,
    pub admin: SocketAddr,
    pub status: SocketAddr,
    listeners: HashMap<String, SocketAddr>,
}

/// How to start one.
pub struct Start<'a> {
    /// `env!("CARGO_BIN_EXE_spanmesh-proxy-under-test")`, which only a test knows.
    pub program: &'a str,
    /// Its files: the configuration, the access log, the spans and its own log. Several processes may share it.
    pub dir: &'a Path,
    /// As for `Proxy::start`.
    pub yaml: &'a str,
    /// The limit of open files, hard and soft.
    pub open_files: Option<u32>,
    /// The folder of a cgroup to start it in.
    pub cgroup: Option<&'a Path>,
}

impl Process {
    /// Starts one and waits until it serves.
    pub async fn start(program: &str, dir: &Path, yaml: &str) -> Self {
        Self::spawn(Start { program, dir, yaml, open_files: None, cgroup: None }).await
    }

    pub async fn spawn(start: Start<'_>) -> Self {
        let (mut child, log) = launch(&start);
        let mut found = None;
        eventually("the process serves", || {
            found = announced(&log);
            let ended = child.try_wait().expect("wait");
            assert!(ended.is_none(), "the proxy ended: {ended:?}\n{}", text(&log));
            found.is_some()
        })
        .await;
        let (admin, status, listeners) = found.expect("found");
        Self { child, log, admin, status, listeners }
    }

    /// Starts one that is to fail, and returns its exit code and what it said.
    pub async fn fail(program: &str, dir: &Path, yaml: &str) -> (Option<i32>, String) {
        let (mut child, log) = launch(&Start { program, dir, yaml, open_files: None, cgroup: None });
        let code = exit(&mut child).await;
        (code, text(&log))
    }

    pub fn address(&self, listener: &str) -> SocketAddr {
        *self.listeners.get(listener).expect("a listener of this name")
    }

    pub fn listens(&self, listener: &str) -> bool {
        self.listeners.contains_key(listener)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a signal");
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its resident memory, in bytes.
    pub fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        line.split_whitespace().next().expect("a number").parse::<usize>().expect("a number") * 1024
    }

    /// What it said on standard error.
    pub fn said(&self) -> String {
        text(&self.log)
    }

    /// Waits for its end; `None` after a signal.
    pub async fn exit_code(&mut self) -> Option<i32> {
        exit(&mut self.child).await
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_some()
    }

    /// GET on the status server: the status line and the body.
    pub fn status(&self, path: &str) -> String {
        proxy::plain(self.status, "GET", path)
    }

    /// As `Proxy::metric`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        proxy::sum(&self.status("/metrics"), name, labels)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The access log that processes in this folder share.
pub fn log(dir: &Path) -> Vec<Value> {
    proxy::json(&dir.join("access.log"))
}

fn launch(start: &Start<'_>) -> (Child, PathBuf) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let config = start.dir.join(format!("proxy-{number}.yaml"));
    std::fs::write(&config, complete(start.dir, start.yaml).replace("log: warn", "log: info")).expect("write");
    let log = start.dir.join(format!("proxy-{number}.log"));
    let files = start.open_files.map(|limit| format!("ulimit -n {limit} && "));
    let cgroup = start.cgroup.map(|folder| format!("echo 0 > '{}/cgroup.procs' && ", folder.display()));
    let mut command = match (&files, &cgroup) {
        (None, None) => Command::new(start.program),
        _ => {
            let first = [files.unwrap_or_default(), cgroup.unwrap_or_default()].concat();
            let mut command = Command::new("/bin/sh");
            command.args(["-c", &format!("{first}exec \"$0\" \"$@\""), start.program]);
            command
        }
    };
    let file = File::create(&log).expect("a log");
    command.arg("run").arg("--config").arg(config);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
    (command.spawn().expect("the proxy starts"), log)
}

type Announced = (SocketAddr, SocketAddr, HashMap<String, SocketAddr>);

/// What a proxy says when it serves: each listener, then `ready`.
fn announced(log: &Path) -> Option<Announced> {
    let said: Vec<Value> = lines(log).iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let address = |value: &Value| value.as_str()?.parse().ok();
    let ready = said.iter().find(|line| line["message"] == "ready")?;
    let listeners = said.iter().filter(|line| line["message"] == "listening");
    let listeners =
        listeners.filter_map(|line| Some((line["listener"].as_str()?.to_owned(), address(&line["address"])?)));
    Some((address(&ready["admin"])?, address(&ready["status"])?, listeners.collect()))
}

async fn exit(child: &mut Child) -> Option<i32> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("wait") {
            return status.code();
        }
        assert!(started.elapsed() < PATIENCE / 2, "the proxy does not end");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
