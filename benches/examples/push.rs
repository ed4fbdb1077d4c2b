//! How fast and at what cost a control plane brings a saved file to many proxies. The control plane is the real program in a
//! process of its own; the proxies are simulated in this one: each has its own connection, takes what it is sent and
//! acknowledges it, and decides nothing.
//!
//! `cargo run --release -p spanmesh-benches --example push -- PROGRAM [--proxies N] [--policies N] [--tls]`, where PROGRAM
//! is a built `spanmesh-control-plane`. It prints when the first and the last proxy had a change of the mesh, whom a change
//! of one namespace touched, and what the control plane takes of memory and time.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_core::Stream;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use spanmesh_proto::v1;
use spanmesh_proto::v1::discovery_client::DiscoveryClient;
use spanmesh_proto::v1::from_proxy::Message as From;
use spanmesh_proto::v1::to_proxy::Message as To;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsConnector;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let options = Options::parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(options))
}

struct Options {
    program: PathBuf,
    proxies: usize,
    policies: usize,
    tls: bool,
}

impl Options {
    fn parse() -> Result<Self, Failure> {
        let mut options = Self { program: PathBuf::new(), proxies: 1000, policies: 1000, tls: false };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut number = || arguments.next().unwrap_or_default().parse::<usize>();
            match argument.as_str() {
                "--proxies" => options.proxies = number()?,
                "--policies" => options.policies = number()?,
                "--tls" => options.tls = true,
                path => options.program = path.into(),
            }
        }
        match options.program.is_file() {
            true => Ok(options),
            false => Err("the first argument is a built spanmesh-control-plane".into()),
        }
    }
}

/// What a simulated proxy tells.
struct Heard {
    namespace: usize,
    whole: bool,
    at: Instant,
}

async fn measure(options: Options) -> Result<(), Failure> {
    let mut files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    files.current = files.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, files)?;
    if let Some(most) = files.maximum.filter(|most| *most < options.proxies as u64 + SPARE) {
        return Err(format!("this process may open {most} files: `ulimit -n` says so, and root may raise it").into());
    }
    let folder = std::env::temp_dir().join(format!("spanmesh-push-{}", std::process::id()));
    let policies = folder.join("policies");
    std::fs::create_dir_all(&policies)?;
    let namespaces = (options.policies / 10).max(1);
    for number in 0..options.policies {
        let text = policy(number, number % namespaces, "0.5");
        std::fs::write(policies.join(format!("policy-{number:05}.yaml")), text)?;
    }
    mesh(&folder, &policies, "0.1")?;
    let tls = options.tls.then(|| certificates(&folder)).transpose()?;
    let server = Server::start(&options, &folder, &policies)?;
    println!("{} policies in {namespaces} namespaces; empty: {} MiB", options.policies, server.mebibytes());

    let (tell, mut heard) = mpsc::unbounded_channel();
    let turns = Arc::new(Semaphore::new(64));
    let begun = Instant::now();
    for number in 0..options.proxies {
        let (tell, tls, turns, address) = (tell.clone(), tls.clone(), turns.clone(), server.address);
        tokio::spawn(async move {
            if let Err(error) = proxy(number, number % namespaces, address, tls, turns, tell).await {
                eprintln!("proxy {number}: {error}");
            }
        });
    }
    wait(&mut heard, options.proxies, |heard| heard.whole).await?;
    println!("{} proxies connected and served in {:.1?}; {} MiB", options.proxies, begun.elapsed(), server.mebibytes());
    tokio::time::sleep(Duration::from_secs(2)).await;

    let (mut firsts, mut lasts) = (Vec::new(), Vec::new());
    for turn in 0..ROUNDS {
        let saved = Instant::now();
        mesh(&folder, &policies, if turn % 2 == 0 { "0.2" } else { "0.3" })?;
        let times = wait(&mut heard, options.proxies, |_| true).await?;
        firsts.push(times.first - saved);
        lasts.push(times.last - saved);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    firsts.sort();
    lasts.sort();
    println!(
        "a change of the mesh, median (worst) of {ROUNDS}: first {:.0?} ({:.0?}), last {:.0?} ({:.0?})",
        firsts[ROUNDS / 2],
        firsts[ROUNDS - 1],
        lasts[ROUNDS / 2],
        lasts[ROUNDS - 1]
    );

    let saved = Instant::now();
    std::fs::write(policies.join("policy-00000.yaml"), policy(0, 0, "0.25"))?;
    let concerned = options.proxies.div_ceil(namespaces);
    let times = wait(&mut heard, concerned, |heard| heard.namespace == 0).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut others = 0;
    while let Ok(more) = heard.try_recv() {
        others += usize::from(more.namespace != 0);
    }
    println!(
        "a change of one namespace: {concerned} proxies after {:.0?}, {others} others were sent something",
        times.last - saved
    );
    println!("at the end: {} MiB, {:.1} s of processor time", server.mebibytes(), server.seconds());
    drop(server);
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

struct Times {
    first: Instant,
    last: Instant,
}

async fn wait(
    heard: &mut mpsc::UnboundedReceiver<Heard>,
    count: usize,
    fits: impl Fn(&Heard) -> bool,
) -> Result<Times, Failure> {
    let mut times: Option<Times> = None;
    let mut left = count;
    while left > 0 {
        let next = tokio::time::timeout(Duration::from_secs(120), heard.recv()).await;
        let next = next.map_err(|_| format!("{left} of {count} proxies heard nothing"))?.ok_or("nobody is left")?;
        if fits(&next) {
            left -= 1;
            times = Some(Times { first: times.map_or(next.at, |times| times.first.min(next.at)), last: next.at });
        }
    }
    times.ok_or_else(|| "nobody was waited for".into())
}

async fn proxy(
    number: usize,
    namespace: usize,
    address: SocketAddr,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    turns: Arc<Semaphore>,
    tell: mpsc::UnboundedSender<Heard>,
) -> Result<(), Failure> {
    loop {
        let turn = turns.acquire().await?;
        let stream = TcpStream::connect(address).await?;
        let io: Box<dyn Io> = match tls.clone() {
            Some((connector, name)) => Box::new(connector.connect(name, stream).await?),
            None => Box::new(stream),
        };
        let (send, connection) = http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(io)).await?;
        drop(turn);
        tokio::spawn(connection);
        let (out, messages) = mpsc::channel(4);
        let node = v1::Node {
            service: format!("service-{}", number % 7),
            namespace: format!("namespace-{namespace}"),
            pod: format!("pod-{number}"),
            role: "sidecar".into(),
            ..v1::Node::default()
        };
        let kinds = ["policy", "destination", "thresholds", "capture"].map(str::to_owned).into();
        let hello = v1::Hello { version: "simulated".into(), node: Some(node), kinds, ..v1::Hello::default() };
        out.send(v1::FromProxy { message: Some(From::Hello(hello)) }).await?;
        let mut client = DiscoveryClient::with_origin(Channel(send), format!("http://{address}").parse()?);
        let mut pushes = client.follow(Messages(messages)).await?.into_inner();
        let mut away = None;
        while let Some(message) = pushes.message().await? {
            match message.message {
                Some(To::Push(push)) => {
                    let _ = tell.send(Heard { namespace, whole: push.whole, at: Instant::now() });
                    let ack = v1::Ack { nonce: push.nonce, version: push.version };
                    out.send(v1::FromProxy { message: Some(From::Ack(ack)) }).await?;
                }
                Some(To::Leave(leave)) => {
                    away = Some(Duration::from_millis(leave.after.into()));
                    break;
                }
                Some(To::Permit(_)) | None => {}
            }
        }
        match away {
            Some(away) => tokio::time::sleep(away).await,
            None => return Ok(()),
        }
    }
}

struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(options: &Options, folder: &Path, policies: &Path) -> Result<Self, Failure> {
        let mut command = Command::new(&options.program);
        command.args(["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.arg("--source").arg(format!("dir:{}", policies.display()));
        if options.tls {
            command.arg("--tls-certificate").arg(folder.join("cert.pem")).arg("--tls-key").arg(folder.join("key.pem"));
        }
        let mut child = command.stderr(Stdio::piped()).env("NO_COLOR", "1").spawn()?;
        let mut lines = BufReader::new(child.stderr.take().ok_or("no standard error")?).lines();
        let address = loop {
            let line = lines.next().ok_or("the control plane has ended")??;
            let told = line.split_once("push=").and_then(|(_, rest)| rest.split(' ').next());
            if let Some(address) = told {
                break address.parse()?;
            }
        };
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { child, address })
    }

    fn mebibytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|number| number.parse::<usize>().ok()).unwrap_or_default() / 1024
    }

    fn seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks = |place: usize| fields.get(place).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or_default();
        (ticks(11) + ticks(12)) / 100.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn policy(number: usize, namespace: usize, probability: &str) -> String {
    format!(
        "apiVersion: spanmesh.io/v1alpha1\nkind: SamplingPolicy\nmetadata: {{name: policy-{number}, namespace: namespace-{namespace}}}\n\
         spec:\n  targetRefs: [{{kind: Namespace, name: namespace-{namespace}}}]\n  strategy: PatchDefaults\n  defaults:\n    head:\n      \
         rules:\n      - {{name: path-{number}, match: {{path: {{type: Prefix, value: /path-{number}}}}}, action: {{probability: \"{probability}\"}}}}\n"
    )
}

/// In one step, as an editor does.
fn mesh(folder: &Path, policies: &Path, probability: &str) -> Result<(), Failure> {
    let text = format!(
        "apiVersion: spanmesh.io/v1alpha1\nkind: MeshTracing\nmetadata: {{name: default}}\nspec:\n  defaults:\n    head:\n      \
         rules: [{{name: all, action: {{probability: \"{probability}\"}}}}]\n"
    );
    std::fs::write(folder.join("mesh"), text)?;
    Ok(std::fs::rename(folder.join("mesh"), policies.join("mesh.yaml"))?)
}

fn certificates(folder: &Path) -> Result<(TlsConnector, ServerName<'static>), Failure> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    std::fs::write(folder.join("cert.pem"), made.cert.pem())?;
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem())?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(made.cert.pem().as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok((TlsConnector::from(Arc::new(config)), ServerName::try_from("localhost")?))
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

struct Messages(mpsc::Receiver<v1::FromProxy>);

impl Stream for Messages {
    type Item = v1::FromProxy;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<v1::FromProxy>> {
        self.0.poll_recv(context)
    }
}

struct Channel(http2::SendRequest<tonic::body::Body>);

impl tower::Service<http::Request<tonic::body::Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

const ROUNDS: usize = 9;
/// Files of this process that are no connections.
const SPARE: u64 = 100;
