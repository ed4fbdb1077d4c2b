//! The wiring: from options to a control plane that serves, and from there to its end.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::api::Api;
use crate::cli::{Options, Source};
use crate::keeper::{self, Keeper};
use crate::leader::{self, Leave};
use crate::push::{Hub, registry::Registry};
use crate::reconcile::{self, Reconciler};
use crate::source::{self, Reading};
use crate::{admin, log, push};

/// A control plane that serves as long as this lives.
pub struct Running {
    pub bound: Bound,
    tasks: JoinSet<String>,
    leave: Option<Leave>,
}

/// Where it listens, with the ports that the kernel chose.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    pub push: SocketAddr,
    pub admin: SocketAddr,
}

/// Runs to the program's end.
pub fn run(options: Options) -> Result<(), String> {
    log::start();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let (mut asked, mut interrupted) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(asked), Ok(interrupted)) => (asked, interrupted),
            (Err(error), _) | (_, Err(error)) => return Err(error.to_string()),
        };
        let mut running = start(options).await?;
        tracing::info!(push = %running.bound.push, admin = %running.bound.admin, "ready");
        let outcome = tokio::select! {
            _ = asked.recv() => Ok(()),
            _ = interrupted.recv() => Ok(()),
            problem = running.failed() => Err(problem),
        };
        running.leave().await;
        outcome
    })
}

/// Binds before it returns, so that tests run the real program on port 0.
pub async fn start(options: Options) -> Result<Running, String> {
    // Later it may go and come again; at the start its name is more likely to be wrong.
    if let Source::Dir(path) = &options.source
        && let Err(error) = tokio::fs::read_dir(path).await
    {
        let path = path.display();
        return Err(format!("--source: the folder {path} cannot be read: {error}; make it, or name another"));
    }
    let push = bind("--listen", options.listen).await?;
    let admin = bind("--admin", options.admin).await?;
    let address = |listener: &TcpListener| listener.local_addr().map_err(|error| error.to_string());
    let bound = Bound { push: address(&push)?, admin: address(&admin)? };
    let tls = match &options.certificate {
        Some((certificate, key)) => Some(acceptor(certificate, key)?),
        None => {
            tracing::warn!("proxies connect without TLS: --tls-certificate and --tls-key are not set");
            None
        }
    };
    let (reading, readings) = watch::channel(Reading::default());
    let (pictures, present) = watch::channel(None);
    let (told, heard) = mpsc::channel(TOLD);
    let (captures, captured) = watch::channel(Vec::new());
    let hub = Hub { pictures: present.clone(), registry: Arc::new(Registry::default()), told, door: Arc::default() };
    let mut view = admin::View {
        registry: hub.registry.clone(),
        door: hub.door.clone(),
        pictures: present,
        readings: readings.clone(),
        captures: captured,
        asked: None,
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(verdicts(readings.clone()));
    let mut leaves = None;
    match options.source {
        Source::Dir(path) => {
            tasks.spawn(async move {
                match source::dir::follow(path.clone(), reading).await {
                    Ok(()) => "the source ended".to_owned(),
                    Err(error) => format!("--source: the folder {} cannot be followed: {error}", path.display()),
                }
            });
        }
        Source::Kube(file) => {
            let api = Api::new(file.as_deref()).await.map_err(|error| format!("--source kube: {error}"))?;
            view.asked = Some(api.counts());
            let (objects, present) = watch::channel(Arc::default());
            let (leading, lead) = watch::channel(None);
            let (leave, asked) = Leave::new();
            leaves = Some(leave);
            let me = leader::identity();
            let reconciler = Reconciler {
                api: api.clone(),
                me: me.clone(),
                lead,
                objects: present,
                readings: readings.clone(),
                pictures: view.pictures.clone(),
                captures: view.captures.clone(),
                registry: hub.registry.clone(),
            };
            tasks.spawn(ending("the writer of statuses", reconcile::run(reconciler)));
            // It ends when it was asked to leave, which is when everything does.
            tokio::spawn(leader::run(api.clone(), me, leading, asked));
            tasks.spawn(ending("the source", source::kube::follow(api, reading, objects)));
        }
    }
    tasks.spawn(async move {
        keeper::run(Keeper { readings, told: heard, pictures, captures, interval: options.interval }).await;
        "the source ended".to_owned()
    });
    tasks.spawn(async move {
        push::server::serve(push, tls, hub).await;
        "the server of proxies ended".to_owned()
    });
    tasks.spawn(async move {
        admin::serve(admin, view).await;
        "the admin server ended".to_owned()
    });
    Ok(Running { bound, tasks, leave: leaves })
}

impl Running {
    /// Whatever others wait for is given back.
    pub async fn leave(&mut self) {
        if let Some(leave) = self.leave.take() {
            leave.now().await;
        }
    }

    /// Why it no longer works. Cancel safe.
    pub async fn failed(&mut self) -> String {
        match self.tasks.join_next().await {
            Some(Ok(problem)) => problem,
            Some(Err(error)) => error.to_string(),
            None => "nothing runs".into(),
        }
    }
}

async fn ending(what: &str, task: impl Future<Output = ()>) -> String {
    task.await;
    format!("{what} ended")
}

/// Says what became of resources whenever that changes.
async fn verdicts(mut readings: watch::Receiver<Reading>) -> String {
    let mut before = Vec::new();
    while readings.changed().await.is_ok() {
        let verdicts = readings.borrow_and_update().verdicts.clone();
        for verdict in verdicts.iter().filter(|verdict| !verdict.accepted && !before.contains(*verdict)) {
            let what = [verdict.kind.as_str(), verdict.namespace.as_str(), verdict.name.as_str()];
            let what: Vec<_> = what.into_iter().filter(|word| !word.is_empty()).collect();
            let rest = if verdict.before { "; what it said before goes on" } else { "" };
            tracing::warn!(
                resource = what.join("/"),
                "{}: refused: {}{rest}",
                verdict.place,
                verdict.problems.join("; ")
            );
        }
        before = verdicts.to_vec();
        tracing::info!(resources = before.iter().filter(|verdict| verdict.accepted).count(), "the source was read");
    }
    "the source ended".into()
}

async fn bind(flag: &str, address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("{flag}: {address} is in use: `ss -ltnp` shows by whom; {flag} takes another address")
        }
        _ => format!("{flag}: cannot listen on {address}: {error}"),
    })
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, String> {
    let wrong = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate).and_then(|chain| chain.collect());
    let chain = chain.map_err(|error| wrong(certificate, &error))?;
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .map_err(|error| wrong(certificate, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A few for each of many thousand proxies at once.
const TOLD: usize = 4096;
