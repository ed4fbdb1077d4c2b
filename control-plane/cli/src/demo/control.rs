//! The control plane of the demo: a process as the sidecars are, on the folder of policies, and what it tells of the proxies
//! that have these in force. When it has ended it comes back at the same addresses.

use std::cell::Cell;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;

use super::child::Child;
use super::folder::Folder;
use super::mesh::PROXY_COUNT;
use super::{configuration, receiver, said};
use crate::control;
use crate::failure::Failure;

pub struct ControlPlane {
    /// `None` while it is away.
    pub process: Option<Child>,
    /// Where proxies connect.
    pub push: SocketAddr,
    /// Where it has its pages.
    pub admin: SocketAddr,
    seen: Rc<Cell<Option<Step>>>,
    watch: JoinHandle<()>,
}

/// How far the proxies are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Of all policies together; it grows with each change.
    pub version: u64,
    pub connected: u64,
    /// That have this version in force.
    pub converged: u64,
}

impl ControlPlane {
    /// `port` is the one of its pages.
    pub async fn start(folder: &Folder, port: Option<u16>) -> Result<Self, Failure> {
        let admin = match receiver::listen(port, USUAL).await {
            Ok(free) => free.local_addr().map_err(Failure::failed)?,
            Err(error) => {
                let port = port.unwrap_or(USUAL);
                return Err(Failure::failed(format!(
                    "cannot listen on 127.0.0.1:{port} for the control plane's pages: {error}; `--admin-port 0` takes a free port, `ss -ltnp` shows who has this one"
                )));
            }
        };
        let started = match begin(folder.path(), ANY, admin).await {
            // Another demo may have been faster.
            Err(_) if port.is_none_or(|port| port == 0) => begin(folder.path(), ANY, ANY).await,
            started => started,
        };
        let (process, push, admin) = started?;
        let seen = Rc::new(Cell::new(None));
        let watch = tokio::task::spawn_local(watch(admin, seen.clone()));
        Ok(Self { process: Some(process), push, admin, seen, watch })
    }

    /// It has ended and comes back where it was.
    pub async fn again(&mut self, folder: &Path) -> Result<u32, Failure> {
        let (process, ..) = begin(folder, self.push, self.admin).await?;
        Ok(self.process.insert(process).id)
    }

    /// As it told last; nothing while it is away.
    pub fn step(&self) -> Option<Step> {
        self.seen.get()
    }

    pub fn id(&self) -> u32 {
        self.process.as_ref().map_or(0, |process| process.id)
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

async fn begin(folder: &Path, push: SocketAddr, admin: SocketAddr) -> Result<(Child, SocketAddr, SocketAddr), Failure> {
    let addresses = [push.to_string(), admin.to_string()];
    let [push, admin] = addresses.each_ref().map(OsStr::new);
    let policies = folder.join(configuration::POLICIES);
    let mut process = Child::start(NAME, &[OsStr::new(NAME), policies.as_os_str(), folder.as_os_str(), push, admin])?;
    let listeners = said::ready(&mut process).await?;
    let at = |name: &str| {
        listeners.get(name).copied().ok_or_else(|| Failure::failed(format!("the {NAME} does not say where it listens")))
    };
    Ok((process, at(said::PUSH)?, at(said::ADMIN)?))
}

async fn watch(admin: SocketAddr, seen: Rc<Cell<Option<Step>>>) {
    let address = admin.to_string();
    loop {
        let now = control::ask_page(&address, "/proxies").await.ok().as_ref().and_then(step);
        seen.set(now);
        // At the start the demo waits for this.
        let all = now.is_some_and(|step| step.converged == PROXY_COUNT);
        tokio::time::sleep(if all { LOOK } else { SOON }).await;
    }
}

fn step(page: &Value) -> Option<Step> {
    let number = |field: &str| page[field].as_u64();
    Some(Step { version: number("version")?, connected: number("connected")?, converged: number("converged")? })
}

pub const NAME: &str = "control-plane";
const USUAL: u16 = 14015;
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
/// A person sees no delay in this.
const LOOK: Duration = Duration::from_millis(50);
const SOON: Duration = Duration::from_millis(10);
