//! One process of the demo, as the demo holds it: this program again, with another task. It lives no longer than the demo
//! (`lifeline`), and Ctrl-C in the terminal reaches the demo alone, which then ends the others in order.

use std::ffi::{OsStr, OsString};
use std::process::{ExitStatus, Stdio};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, Command};
use tokio::sync::mpsc;

use crate::failure::Failure;

pub struct Child {
    pub name: String,
    pub id: u32,
    process: tokio::process::Child,
    lifeline: Option<ChildStdin>,
    /// What it writes to standard output and standard error.
    lines: mpsc::Receiver<String>,
}

impl Child {
    pub fn start(name: &str, arguments: &[&OsStr]) -> Result<Self, Failure> {
        let program =
            std::env::current_exe().map_err(|error| Failure::failed(format!("cannot find this program: {error}")))?;
        let mut command = Command::new(program);
        // What somebody has set for proxies of their own is not meant for these.
        let foreign = |name: &OsString| OURS.iter().any(|prefix| name.to_string_lossy().starts_with(prefix));
        for name in std::env::vars_os().map(|(name, _)| name).filter(foreign) {
            command.env_remove(name);
        }
        let mut process = command
            .env(DELAY.0, DELAY.1)
            .arg(super::PART)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failure::failed(format!("cannot start {name}: {error}")))?;
        let (tell, lines) = mpsc::channel(LINES);
        if let Some(out) = process.stdout.take() {
            tokio::task::spawn_local(read(out, tell.clone()));
        }
        if let Some(err) = process.stderr.take() {
            tokio::task::spawn_local(read(err, tell));
        }
        let lifeline = process.stdin.take();
        Ok(Self { name: name.to_owned(), id: process.id().unwrap_or_default(), process, lifeline, lines })
    }

    /// The next line that it says; `None` when it has ended.
    pub async fn line(&mut self) -> Option<String> {
        self.lines.recv().await
    }

    pub fn poll_line(&mut self, context: &mut Context<'_>) -> Poll<Option<String>> {
        self.lines.poll_recv(context)
    }

    pub async fn tell(&mut self, line: &str) {
        if let Some(lifeline) = &mut self.lifeline {
            // Whoever has ended is noticed by its silence.
            let _ = lifeline.write_all(format!("{line}\n").as_bytes()).await;
            let _ = lifeline.flush().await;
        }
    }

    /// How it ended, after `line` has said that it did.
    pub async fn ended(&mut self) -> Option<ExitStatus> {
        tokio::time::timeout(END, self.process.wait()).await.ok()?.ok()
    }

    pub fn kill(&mut self) {
        // One that has ended already is what was wanted.
        let _ = self.process.start_kill();
    }

    /// Lets go of it: it ends by itself then.
    pub fn release(&mut self) {
        self.lifeline = None;
    }

    /// Waits until it is gone.
    pub async fn end(mut self) {
        self.release();
        if tokio::time::timeout(END, self.process.wait()).await.is_err() {
            let _ = self.process.kill().await;
        }
    }
}

async fn read(from: impl AsyncRead + Unpin, tell: mpsc::Sender<String>) {
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if tell.send(line).await.is_err() {
            return;
        }
    }
}

/// How variables begin that proxies and the control plane read.
const OURS: [&str; 2] = ["SPANMESH_", "OTEL_"];
/// Spans wait for others no longer than this, in milliseconds: a person waits for them.
const DELAY: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "200");
/// Lines that nobody has looked at yet; beyond that the child waits, or its log drops and counts.
const LINES: usize = 256;
/// A process that is let go of ends at once.
const END: Duration = Duration::from_secs(3);
