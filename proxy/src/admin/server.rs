//! HTTP/1.1 for the two servers: accept, a few connections at a time, tower's layers around the pages.
//!
//! When all places are taken the oldest connection goes: someone who holds connections open cannot keep a probe out.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tower::timeout::error::Elapsed;
use tower::{BoxError, ServiceBuilder};

use super::AdminState;
use super::pages::{Answer, Site, text};
use crate::telemetry::metrics::family::ADMIN_REFUSED;

/// Serves `site` until `closing` is true, and then finishes the answers that are on their way. Its connections go with
/// it when it is dropped.
pub(super) async fn serve(listener: TcpListener, state: AdminState, site: Site, closing: watch::Receiver<bool>) {
    let counters = state.registry.shared();
    let evicted = counters.counter(ADMIN_REFUSED, &[site.name, "connections"]);
    let accept_errors = counters.counter(ADMIN_REFUSED, &[site.name, "accept"]);
    let overloaded = counters.counter(ADMIN_REFUSED, &[site.name, "overload"]);
    let late = counters.counter(ADMIN_REFUSED, &[site.name, "timeout"]);
    let service = ServiceBuilder::new()
        .map_result(move |result: Result<Answer, BoxError>| {
            let error = match result {
                Ok(answer) => return Ok::<_, BoxError>(answer),
                Err(error) => error,
            };
            if error.is::<Elapsed>() {
                late.add(1);
                Ok(text(StatusCode::SERVICE_UNAVAILABLE, "this took too long\n"))
            } else {
                overloaded.add(1);
                Ok(text(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once\n"))
            }
        })
        .load_shed()
        .concurrency_limit(REQUESTS)
        .timeout(TIMEOUT)
        .service_fn(move |request: Request<Incoming>| {
            let answer = site.answer(&state, &request.into_parts().0);
            async move { Ok::<_, BoxError>(answer) }
        });

    let mut connections = Connections::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = close(closing.clone()) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let service = TowerToHyperService::new(service.clone());
                if connections.open(carry(stream, service, closing.clone())) {
                    evicted.add(1);
                }
            }
            Err(_) => {
                // Out of file descriptors, as a rule: wait for one instead of spinning.
                accept_errors.add(1);
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
    drop(listener);
    while connections.tasks.join_next().await.is_some() {}
}

/// Ends when the server is to close.
async fn close(mut closing: watch::Receiver<bool>) {
    if closing.wait_for(|closing| *closing).await.is_err() {
        std::future::pending().await
    }
}

async fn carry<S>(stream: TcpStream, service: TowerToHyperService<S>, closing: watch::Receiver<bool>)
where
    S: tower::Service<Request<Incoming>, Response = Answer, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
{
    let asked = AtomicBool::new(false);
    let service = service_fn(|request| {
        asked.store(true, Ordering::Relaxed);
        service.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(HEAD)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // A client that goes away or sends nonsense is its own trouble.
    let lingered = async {
        close(closing).await;
        if !asked.load(Ordering::Relaxed) {
            tokio::time::sleep(LINGER).await;
        }
    };
    tokio::select! {
        _ = connection.as_mut() => return,
        () = lingered => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// The connections of one server, oldest first.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    ages: VecDeque<AbortHandle>,
}

impl Connections {
    /// True if the oldest had to go for it.
    fn open(&mut self, connection: impl Future<Output = ()> + Send + 'static) -> bool {
        while self.tasks.try_join_next().is_some() {}
        self.ages.retain(|task| !task.is_finished());
        let full = self.ages.len() >= CONNECTIONS;
        if full && let Some(oldest) = self.ages.pop_front() {
            oldest.abort();
        }
        self.ages.push_back(self.tasks.spawn(connection));
        full
    }
}

/// A kubelet, two Prometheus servers, a few humans.
const CONNECTIONS: usize = 64;
const REQUESTS: usize = 16;
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may wait for the end of a request's head, the next one included. Above Prometheus' interval it
/// would save a handshake; below it frees a place.
const IDLE: Duration = Duration::from_secs(10);
const HEAD: usize = 16 * 1024;
/// A closing server waits so long for the request of a client that has just connected.
const LINGER: Duration = Duration::from_secs(1);
const ACCEPT_REST: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::admin::pages::tests::state;
    use crate::admin::{Command, serve_admin, serve_status};

    /// Never told to close.
    fn open() -> watch::Receiver<bool> {
        watch::channel(false).1
    }

    fn run<F: Future>(test: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), test).await.expect("in time") })
    }

    async fn bind() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        (listener, address)
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        answer
    }

    #[test]
    fn admin_answers_over_a_socket() {
        run(async {
            let (state, mut orders) = state();
            let (listener, address) = bind().await;
            tokio::spawn(serve_admin(listener, state, open()));
            let close = format!("Host: {address}\r\nConnection: close\r\n\r\n");
            let answer = ask(address, &format!("GET /config HTTP/1.1\r\n{close}")).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nversion: 1\n"), "{answer}");
            assert!(!answer.to_ascii_lowercase().contains("\r\ndate:"));
            let answer = ask(address, &format!("HEAD /metrics HTTP/1.1\r\n{close}")).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
            let answer = ask(address, &format!("POST /drain HTTP/1.1\r\nOrigin: http://evil.example\r\n{close}")).await;
            assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
            assert!(orders.try_recv().is_err());
            let answer = ask(address, &format!("POST /drain HTTP/1.1\r\nContent-Length: 2\r\n{close}{{}}")).await;
            assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
            assert_eq!(orders.recv().await, Some(Command::Drain));
        });
    }

    #[test]
    fn status_answers_whatever_the_host() {
        run(async {
            let (state, _orders) = state();
            let (listener, address) = bind().await;
            tokio::spawn(serve_status(listener, state, open()));
            let answer = ask(address, "GET /metrics HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("# EOF\n"), "{answer}");
            let answer = ask(address, "GET /live HTTP/1.0\r\n\r\n").await;
            assert!(answer.ends_with("\r\n\r\nlive\n"), "{answer}");
            let answer = ask(address, "POST /quitquitquit HTTP/1.0\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.0 404 "), "{answer}");
        });
    }

    #[test]
    fn connections_held_open_do_not_keep_a_probe_out() {
        run(async {
            let (state, _orders) = state();
            let registry = state.registry.clone();
            let (listener, address) = bind().await;
            tokio::spawn(serve_status(listener, state, open()));
            let mut held = Vec::new();
            for _ in 0..CONNECTIONS {
                let mut stream = TcpStream::connect(address).await.expect("connected");
                stream.write_all(b"GET /live HTTP/1.1\r\n").await.expect("sent");
                held.push(stream);
            }
            let answer = ask(address, "GET /live HTTP/1.0\r\n\r\n").await;
            assert!(answer.ends_with("live\n"), "{answer}");
            let mut first = held.remove(0);
            assert!(matches!(first.read(&mut [0; 16]).await, Ok(0) | Err(_)), "the oldest has gone");
            assert!(registry.render().contains("admin_refused_total{server=\"status\",reason=\"connections\"} 1\n"));
        });
    }

    #[test]
    fn a_head_without_end_is_cut_off() {
        run(async {
            let (state, _orders) = state();
            let (listener, address) = bind().await;
            tokio::spawn(serve_status(listener, state, open()));
            let mut stream = TcpStream::connect(address).await.expect("connected");
            stream.write_all(b"GET /live HTTP/1.1\r\nX: ").await.expect("sent");
            let mut answer = Vec::new();
            let flood = [b'x'; 4096];
            while stream.write_all(&flood).await.is_ok() {}
            let _ = stream.read_to_end(&mut answer).await;
            assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "));
        });
    }

    #[test]
    fn dropping_the_server_ends_its_connections() {
        run(async {
            let (state, _orders) = state();
            let (listener, address) = bind().await;
            let server = tokio::spawn(serve_status(listener, state, open()));
            let mut stream = TcpStream::connect(address).await.expect("connected");
            stream.write_all(b"GET /live HTTP/1.1\r\nHost: pod\r\n\r\n").await.expect("sent");
            assert!(stream.read(&mut [0; 1024]).await.is_ok_and(|n| n > 0));
            server.abort();
            assert!(matches!(stream.read(&mut [0; 16]).await, Ok(0) | Err(_)));
        });
    }
}
