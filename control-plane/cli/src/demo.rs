//! `spanmesh demo`: a whole mesh of processes on loopback, what it shows, and its end. `mesh` says what there is, `child`
//! starts and ends processes, `load` sends requests, `receiver` takes the spans, `story` tells a person about it, and
//! `check` asks whether all of it is true.

mod check;
mod child;
mod configuration;
mod control;
mod folder;
mod lifeline;
mod load;
mod mesh;
mod options;
mod receiver;
mod said;
mod service;
mod store;
mod story;

use std::cell::RefCell;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use lexopt::Parser;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;
use crate::terminal::Terminal;
use folder::Folder;
use load::Load;
use mesh::Mesh;
use options::Options;
use receiver::Receiver;
use store::Store;
use story::Story;

pub fn main(parser: &mut Parser) -> Result<ExitCode, Failure> {
    let began = Instant::now();
    let options = Options::parse(parser)?;
    let runtime = local()?;
    let outcome = runtime.block_on(run(&options, began));
    runtime.shutdown_background();
    outcome
}

/// One process of the demo.
pub fn part(arguments: Vec<OsString>) -> Result<ExitCode, Failure> {
    let mut arguments = arguments.into_iter();
    let (kind, what, folder) = (arguments.next(), arguments.next(), arguments.next().map(PathBuf::from));
    match (kind.as_ref().and_then(|kind| kind.to_str()), what) {
        (Some("proxy"), Some(file)) => {
            lifeline::hold(folder);
            Ok(spanmesh_proxy::cli::main(["run".into(), "--config".into(), file]))
        }
        (Some(control::NAME), Some(policies)) => {
            lifeline::hold(folder);
            let mut source = OsString::from("dir:");
            source.push(policies);
            let (push, admin) = (arguments.next().unwrap_or_default(), arguments.next().unwrap_or_default());
            let told = ["run".into(), "--source".into(), source, "--listen".into(), push, "--admin".into(), admin];
            Ok(spanmesh_control_plane::main(told))
        }
        (Some("service"), Some(name)) => {
            let told = lifeline::hold(folder);
            let address = arguments.next().unwrap_or_default();
            local()?.block_on(service::run(&name.to_string_lossy(), &address.to_string_lossy(), told))?;
            Ok(ExitCode::SUCCESS)
        }
        _ => Err(Failure::Usage { command: None, text: format!("`{PART}` is the demo's own") }),
    }
}

async fn run(options: &Options, began: Instant) -> Result<ExitCode, Failure> {
    // First of all, so that there is no moment in which a signal leaves something behind.
    let mut signals = Signals::new().map_err(Failure::failed)?;
    let mut terminal = Terminal::new(options.colours, options.width);
    let folder = Folder::new(options.folder.as_deref())?;
    let store = Rc::new(RefCell::new(Store::default()));
    let mut mesh = Mesh::default();
    let shown = tokio::select! {
        shown = show(options, began, &mut terminal, &folder, &store, &mut mesh) => shown,
        () = signals.hear() => Ok(ExitCode::SUCCESS),
    };
    mesh.end(&mut terminal).await;
    folder.remove();
    shown
}

async fn show(
    options: &Options,
    began: Instant,
    terminal: &mut Terminal,
    folder: &Folder,
    store: &Rc<RefCell<Store>>,
    mesh: &mut Mesh,
) -> Result<ExitCode, Failure> {
    let deadline = options.time.map(|time| began + time);
    let receiver = Receiver::start(options.traces_port, store.clone()).await?;
    mesh.start(options, folder, receiver.address, terminal).await?;
    let load = Load::start(mesh.edge, options.rate());
    let mut story = Story::new(began);
    story.mesh(mesh, folder, terminal)?;
    if options.headless {
        let verdict = check::run(mesh, &load, store, &mut story, terminal, deadline).await?;
        return story.verdict(&verdict, terminal);
    }
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            _ = look.tick() => {
                story.look(mesh, &load, store, terminal, receiver.address)?;
                if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            event = mesh.event() => {
                if let Some(text) = mesh.handle(event).await? {
                    terminal.print(&text)?;
                }
            }
        }
    }
}

/// What a person or a script ends the demo with.
struct Signals(Vec<Signal>);

impl Signals {
    fn new() -> std::io::Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()];
        Ok(Self(kinds.into_iter().map(signal).collect::<Result<_, _>>()?))
    }

    async fn hear(&mut self) {
        std::future::poll_fn(|context| {
            let heard = self.0.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
            if heard { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }
}

fn local() -> Result<tokio::runtime::LocalRuntime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .map_err(Failure::failed)
}

pub const PART: &str = "demo-part";
/// How often the line of numbers is written anew.
const LOOK: Duration = Duration::from_millis(100);
