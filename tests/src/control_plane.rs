//! The control plane under test: the real program on port 0, in a thread of this process, with a folder of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use spanmesh_control_plane::{Bound, Options, Source, start};
use tokio::sync::oneshot;

use crate::proxy::plain;
use crate::{Dir, eventually};

pub struct ControlPlane {
    pub bound: Bound,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ControlPlane {
    /// Reads the folder `policies` of `dir`.
    pub fn start(dir: &Dir) -> Self {
        Self::start_at(dir, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Listens for proxies there.
    pub fn start_at(dir: &Dir, listen: SocketAddr) -> Self {
        Self::start_with(dir, listen, None, Duration::from_secs(1))
    }

    /// Makes thresholds anew this often.
    pub fn paced(dir: &Dir, interval: Duration) -> Self {
        Self::start_with(dir, SocketAddr::from(([127, 0, 0, 1], 0)), None, interval)
    }

    /// Serves proxies over TLS, with this certificate and its key.
    pub fn secured(dir: &Dir, certificate: (PathBuf, PathBuf)) -> Self {
        Self::start_with(dir, SocketAddr::from(([127, 0, 0, 1], 0)), Some(certificate), Duration::from_secs(1))
    }

    fn start_with(dir: &Dir, listen: SocketAddr, certificate: Option<(PathBuf, PathBuf)>, interval: Duration) -> Self {
        let options = Options {
            source: Source::Dir(folder(dir)),
            listen,
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            certificate,
            interval,
        };
        std::fs::create_dir_all(folder(dir)).expect("a folder for policies");
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let running = start(options).await.expect("the control plane starts");
                tell.send(running.bound).expect("the test waits");
                let _ = stopped.await;
            });
            runtime.shutdown_background();
        });
        Self { bound: told.recv().expect("the control plane has started"), stop: Some(stop), thread: Some(thread) }
    }

    /// Also when it is killed nothing more comes from it than this.
    pub fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the control plane's thread");
        }
    }

    /// The section of a proxy's configuration.
    pub fn section(&self) -> String {
        format!("controlPlane: {{addresses: ['http://{}'], state: DIR/state}}\n", self.bound.push)
    }

    pub fn page(&self, path: &str) -> Value {
        serde_json::from_str(&plain(self.bound.admin, "GET", path)).expect("a page in JSON")
    }

    pub fn metric(&self, name: &str) -> f64 {
        crate::proxy::sum(&plain(self.bound.admin, "GET", "/metrics"), &format!("spanmesh_control_plane_{name}"), &[])
    }

    /// Waits until so many proxies are connected and have all that concerns them.
    pub async fn in_step(&self, proxies: u64) {
        let now = || {
            let page = self.page("/proxies");
            (page["connected"].as_u64(), page["converged"].as_u64())
        };
        eventually(&format!("{proxies} proxies in step"), || now() == (Some(proxies), Some(proxies))).await;
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn folder(dir: &Dir) -> PathBuf {
    dir.path("policies")
}

/// Writes a file of policies in one step, as an editor does.
pub fn put(dir: &Dir, name: &str, yaml: &str) {
    std::fs::create_dir_all(folder(dir)).expect("a folder for policies");
    let beside = dir.write("beside", yaml);
    std::fs::rename(beside, folder(dir).join(name)).expect("a file of policies");
}

pub fn remove(dir: &Dir, name: &str) {
    std::fs::remove_file(folder(dir).join(name)).expect("a file of policies");
}

/// A SamplingPolicy of the namespace `shop` for `target`, with these rules.
pub fn sampling(name: &str, target: &str, rules: &str) -> String {
    format!(
        "apiVersion: spanmesh.io/v1alpha1\nkind: SamplingPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  targetRefs: [{target}]\n  defaults:\n    head:\n      rules:\n{}\n",
        rules.lines().map(|rule| format!("      - {rule}")).collect::<Vec<_>>().join("\n")
    )
}

pub const NAMESPACE: &str = "{kind: Namespace, name: shop}";
