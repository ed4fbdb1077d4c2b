//! What the demo tells a person: what stands where, one trace, what to try next, and a line of numbers that goes on.

use std::cell::RefCell;
use std::fmt::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::check::Finding;
use super::control::{self, Step};
use super::folder::Folder;
use super::load::Load;
use super::mesh::{EDGE, Mesh, PROXY_COUNT};
use super::store::Store;
use crate::failure::Failure;
use crate::terminal::{Style, Terminal, fit};
use crate::trace::tree::Tree;
use crate::trace::waterfall::{self, Look};

pub struct Story {
    began: Instant,
    shown: bool,
    warned: bool,
    told: Instant,
}

impl Story {
    pub fn new(began: Instant) -> Self {
        Self { began, shown: false, warned: false, told: began }
    }

    /// What stands where.
    pub fn mesh(&self, mesh: &Mesh, folder: &Folder, terminal: &mut Terminal) -> Result<(), Failure> {
        let mut text = format!("{PICTURE}\n");
        let row = |cells: [&str; 6]| {
            let widths = [15, 29, 9, 10, 17, 0];
            let line: String =
                cells.iter().zip(widths).map(|(cell, width)| fit(cell, width.max(cell.chars().count()))).collect();
            format!("  {}\n", line.trim_end())
        };
        let head = row(["SERVICE", "WHAT", "PROCESS", "SIDECAR", "CALLED AT", "CONFIGURATION"]);
        text.push_str(&terminal.paint(Style::Dim, head.trim_end()));
        text.push('\n');
        let address = |address: Option<SocketAddr>| address.map_or("-".to_owned(), |address| address.to_string());
        text.push_str(&row([
            EDGE,
            "gateway",
            &mesh.gateway_id().to_string(),
            "-",
            &address(mesh.edge),
            "proxies/edge.yaml",
        ]));
        for name in super::mesh::NAMES {
            let Some(member) = mesh.member(name) else { continue };
            let sidecar = member.sidecar.as_ref().map_or(0, |sidecar| sidecar.id);
            text.push_str(&row([
                name,
                member.service.what,
                &member.app.id.to_string(),
                &sidecar.to_string(),
                &address(member.inbound),
                &format!("proxies/{name}.yaml"),
            ]));
        }
        if let Some(control_plane) = &mesh.control_plane {
            let id = control_plane.id().to_string();
            let pages = control_plane.admin.to_string();
            text.push_str(&row([control::NAME, "tells proxies the policies", &id, "-", &pages, "policies/"]));
        }
        let _ = writeln!(text, "  configurations in {}\n", folder.path().display());
        terminal.print(&text)?;
        Ok(())
    }

    /// Ten times a second.
    pub fn look(
        &mut self,
        mesh: &Mesh,
        load: &Load,
        store: &RefCell<Store>,
        terminal: &mut Terminal,
        receiver: SocketAddr,
    ) -> Result<(), Failure> {
        if !self.shown {
            let waited = self.began.elapsed();
            if self.first_trace(store, terminal)? {
                terminal.print(&next(mesh, receiver))?;
            } else if waited > LATE && !self.warned {
                self.warned = true;
                terminal.print(&lacking(load, store))?;
            } else {
                terminal.status("waiting for the first trace to come in whole …")?;
            }
            return Ok(());
        }
        let pause = if terminal.live { Duration::from_millis(500) } else { Duration::from_secs(10) };
        if self.told.elapsed() < pause {
            return Ok(());
        }
        self.told = Instant::now();
        let text = numbers(mesh, load, store);
        match terminal.live {
            true => terminal.status(&text)?,
            false => terminal.print(&text)?,
        }
        Ok(())
    }

    /// Draws the first trace that is whole, once.
    pub fn first_trace(&mut self, store: &RefCell<Store>, terminal: &mut Terminal) -> Result<bool, Failure> {
        if self.shown {
            return Ok(true);
        }
        let Some(spans) = store.borrow().whole().cloned() else { return Ok(false) };
        let waited = self.began.elapsed();
        let tree = Tree::new(spans);
        let look = Look { width: terminal.width, colours: terminal.colours, most: 100 };
        terminal.print(&waterfall::draw(&tree, look))?;
        let waited = format!("the first whole trace, {:.1} s after the start", waited.as_secs_f64());
        terminal.print(&format!("{}\n\n", terminal.paint(Style::Dim, &waited)))?;
        self.shown = true;
        Ok(true)
    }

    /// What a test found, and with it how the command ends.
    pub fn verdict(&self, findings: &[Finding], terminal: &mut Terminal) -> Result<ExitCode, Failure> {
        let mut missing = Vec::new();
        for finding in findings {
            let (word, style, text) = match &finding.outcome {
                Ok(seen) => ("ok     ", Style::Green, seen),
                Err(lacks) => {
                    missing.push(finding.what);
                    ("MISSING", Style::Red, lacks)
                }
            };
            terminal.print(&format!("{} {}: {text}", terminal.paint(style, word), finding.what))?;
        }
        terminal.print(&format!("{:.1} s", self.began.elapsed().as_secs_f64()))?;
        match missing.is_empty() {
            true => Ok(ExitCode::SUCCESS),
            false => Err(Failure::Wanting(format!("the demo lacks: {}", missing.join("; ")))),
        }
    }
}

fn next(mesh: &Mesh, receiver: SocketAddr) -> String {
    let program = program();
    let edge = mesh.edge.map_or_else(String::new, |edge| edge.to_string());
    let file = mesh.sampling_file.display();
    let (admin, control_plane) = match &mesh.control_plane {
        Some(control_plane) => (control_plane.admin.to_string(), control_plane.id()),
        None => (crate::control::USUAL.to_owned(), 0),
    };
    let stock = mesh.member("stock").map_or(0, |member| member.app.id);
    // The usual places need not be said.
    let from = match format!("http://{receiver}") {
        usual if usual == crate::trace::source::USUAL => String::new(),
        other => format!(" --from {other}"),
    };
    let at = if admin == crate::control::USUAL { String::new() } else { format!(" --address {admin}") };
    format!(
        "\
Try next
  send a request                    curl -i http://{edge}/checkout
  draw its trace                    {program} trace ID{from}
                                    with the ID from `server-timing` in the answer
  list the latest traces            {program} trace --list{from}
  keep fewer traces                 sed -i 's/\"1\"/\"0.1\"/' {file}
                                    and watch `kept` below
  who has which policies            {program} proxy-status{at}
  who decides on a trace            {program} policy explain --address {admin} --from edge.demo --to shop.demo
  break a service                   kill {stock}
                                    stock ends; calls to it fail for some seconds
  end the control plane             kill {control_plane}
                                    requests go on, and are decided as before; it comes back
  end                               Ctrl-C
"
    )
}

fn numbers(mesh: &Mesh, load: &Load, store: &RefCell<Store>) -> String {
    const WINDOW: Duration = Duration::from_secs(2);
    let now = Instant::now();
    let samples = load.since(now.checked_sub(WINDOW).unwrap_or(now));
    let count = samples.len().max(1);
    let percent = |part: usize| 100 * part / count;
    let failed = samples.iter().filter(|sample| sample.status != Some(200)).count();
    let kept = samples.iter().filter(|sample| sample.trace.is_some_and(|(_, sampled)| sampled)).count();
    let policies = match mesh.control_plane.as_ref().and_then(|control_plane| control_plane.step()) {
        Some(Step { version, converged, .. }) => format!("policies {version} at {converged} of {PROXY_COUNT} proxies"),
        None => "no control plane".to_owned(),
    };
    format!(
        "{:.1} requests/s   {} % failed   {} % of traces kept   {policies}   {} spans so far",
        samples.len() as f64 / WINDOW.as_secs_f64(),
        percent(failed),
        percent(kept),
        store.borrow().spans
    )
}

fn lacking(load: &Load, store: &RefCell<Store>) -> String {
    let store = store.borrow();
    let services = store.services();
    let lacks: Vec<_> =
        super::mesh::NAMES.iter().chain([&EDGE]).filter(|name| !services.contains(*name)).copied().collect();
    let answered = load.since(Instant::now().checked_sub(LATE).unwrap_or_else(Instant::now));
    let answered = answered.iter().filter(|sample| sample.status.is_some()).count();
    format!(
        "no whole trace after {} s: {answered} requests were answered, {} spans came, none from {}; it goes on waiting",
        LATE.as_secs(),
        store.spans,
        if lacks.is_empty() { "nobody".to_owned() } else { lacks.join(", ") }
    )
}

/// As somebody in this folder would type it.
fn program() -> String {
    let Ok(path) = std::env::current_exe() else { return "spanmesh".to_owned() };
    let here = std::env::current_dir().ok();
    let short = here.and_then(|here| path.strip_prefix(here).ok().map(ToOwned::to_owned));
    short.unwrap_or(path).display().to_string()
}

const PICTURE: &str = "
  load ──▶ edge ──▶ shop ──┬──▶ prices      gRPC
                           └──▶ orders ──┬──▶ stock      slow
                               only B3   └──▶ payment    fails now and then
";
/// A mesh whose first trace takes longer has a fault.
const LATE: Duration = Duration::from_secs(15);
