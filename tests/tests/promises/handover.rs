//! A running proxy is replaced by another one, and nobody who talks to it notices: real processes, real load.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::client::{ResponseFuture, SendRequest};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustix::process::Signal;
use spanmesh_tests::client::whole;
use spanmesh_tests::origin::{Body, empty};
use spanmesh_tests::{Client, Dir, Origin, Process, Protocol, Wire, eventually, process, run};
use tokio::net::TcpStream;

const PROGRAM: &str = env!("CARGO_BIN_EXE_spanmesh-proxy-under-test");
const REPLACEMENTS: usize = 20;

fn config(workers: usize, listeners: &[&str], upstream: SocketAddr, protocol: Protocol) -> String {
    let listener = |name: &&str| format!("- {{name: {name}, mode: inbound, address: '127.0.0.1:0', upstream: app}}\n");
    let listeners: String = listeners.iter().map(listener).collect();
    format!(
        "workers: {workers}\nhandover: {{socket: DIR/handover.sock}}\ndrain: {{timeout: 20s}}\n\
         listeners:\n{listeners}\
         upstreams:\n- {{name: app, addresses: ['{upstream}'], protocol: {}}}\n",
        protocol.word()
    )
}

/// Clients that go on until they are told to stop.
struct Load {
    address: SocketAddr,
    on: Cell<bool>,
    served: Cell<usize>,
    failed: RefCell<Vec<String>>,
}

impl Load {
    fn new(address: SocketAddr) -> Rc<Self> {
        Rc::new(Self { address, on: Cell::new(true), served: Cell::new(0), failed: RefCell::default() })
    }

    fn outcome(&self, who: &str, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.served.set(self.served.get() + 1),
            Err(error) => self.failed.borrow_mut().push(format!("{who}: {error}")),
        }
    }

    /// 200 new connections a second, each with one request.
    async fn connections(self: Rc<Self>) {
        let mut turn = tokio::time::interval(Duration::from_millis(5));
        let mut protocol = Protocol::Http1;
        let mut asked = Vec::new();
        while self.on.get() {
            turn.tick().await;
            protocol = if protocol == Protocol::Http1 { Protocol::Http2 } else { Protocol::Http1 };
            let load = self.clone();
            asked.push(tokio::task::spawn_local(async move {
                let outcome = match protocol {
                    Protocol::Http1 => load.once_http1().await,
                    Protocol::Http2 => load.once_http2().await,
                };
                load.outcome("a new connection", outcome);
            }));
        }
        for one in asked {
            one.await.expect("join");
        }
    }

    /// One connection with a request every few milliseconds, until the proxy says that it is the last.
    async fn kept_http1(self: Rc<Self>) {
        while self.on.get() {
            let mut send = match self.dial_http1().await {
                Ok(send) => send,
                Err(error) => return self.outcome("HTTP/1 kept alive", Err(error)),
            };
            while self.on.get() {
                let outcome = get(send.send_request(self.http1())).await;
                let last = !matches!(outcome, Ok(false));
                self.outcome("HTTP/1 kept alive", outcome.map(|_| ()));
                if last {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(7)).await;
            }
        }
    }

    /// The same over HTTP/2. A request that the client could not send because of a GOAWAY, or that crossed it and that
    /// the proxy did not take, was not one yet: the log, which must agree with the count, tells it from one that was.
    async fn kept_http2(self: Rc<Self>) {
        while self.on.get() {
            let mut send = match self.dial_http2().await {
                Ok(send) => send,
                Err(error) => return self.outcome("HTTP/2 kept alive", Err(error)),
            };
            while self.on.get() {
                send = match send.ready().await {
                    Ok(send) => send,
                    Err(_) => break,
                };
                let Ok((answer, _)) = send.send_request(self.http2(), true) else { break };
                match get_http2(answer).await {
                    Err(Lost::Untaken) => break,
                    Err(Lost::Failed(error)) => self.outcome("HTTP/2 kept alive", Err(error)),
                    Ok(()) => self.outcome("HTTP/2 kept alive", Ok(())),
                }
                tokio::time::sleep(Duration::from_millis(7)).await;
            }
        }
    }

    async fn once_http1(&self) -> Result<(), String> {
        let mut send = self.dial_http1().await?;
        get(send.send_request(self.http1())).await.map(|_| ())
    }

    async fn once_http2(&self) -> Result<(), String> {
        let mut send = self.dial_http2().await?.ready().await.map_err(|error| format!("not ready: {error:?}"))?;
        let (answer, _) = send.send_request(self.http2(), true).map_err(|error| format!("not sent: {error:?}"))?;
        match get_http2(answer).await {
            Ok(()) => Ok(()),
            Err(Lost::Untaken) => Err("a new connection's first request was not taken".into()),
            Err(Lost::Failed(error)) => Err(error),
        }
    }

    async fn dial_http1(&self) -> Result<http1::SendRequest<Body>, String> {
        let stream = TcpStream::connect(self.address).await.map_err(|error| format!("connect: {error}"))?;
        let (send, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| said(&error))?;
        tokio::task::spawn_local(connection);
        Ok(send)
    }

    async fn dial_http2(&self) -> Result<SendRequest<Bytes>, String> {
        let stream = TcpStream::connect(self.address).await.map_err(|error| format!("connect: {error}"))?;
        let (send, connection) =
            h2::client::handshake(stream).await.map_err(|error| format!("handshake: {error:?}"))?;
        tokio::task::spawn_local(connection);
        Ok(send)
    }

    fn http1(&self) -> http::Request<Body> {
        http::Request::builder().uri("/").header("host", "app").body(empty()).expect("request")
    }

    fn http2(&self) -> http::Request<()> {
        http::Request::builder().uri(format!("http://{}/", self.address)).body(()).expect("request")
    }
}

enum Lost {
    /// GOAWAY without an error, and no answer: a stream beyond the last one that GOAWAY names was not looked at, and may
    /// be asked for again elsewhere (RFC 9113 section 6.8).
    Untaken,
    Failed(String),
}

async fn get_http2(answer: ResponseFuture) -> Result<(), Lost> {
    let answer =
        answer.await.map_err(|error| match error.is_go_away() && error.reason() == Some(Reason::NO_ERROR) {
            true => Lost::Untaken,
            false => Lost::Failed(format!("no answer: {error:?}")),
        })?;
    let status = answer.status().as_u16();
    let mut body = answer.into_body();
    let mut whole = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(|error| Lost::Failed(format!("a broken answer: {error:?}")))?;
        body.flow_control().release_capacity(chunk.len()).expect("what was received");
        whole.extend_from_slice(&chunk);
    }
    match (status, &whole[..]) {
        (200, b"hello") => Ok(()),
        (status, body) => Err(Lost::Failed(format!("{status} {}", String::from_utf8_lossy(body)))),
    }
}

/// Whether the answer said that it is the last one.
async fn get(
    answer: impl Future<Output = Result<http::Response<hyper::body::Incoming>, hyper::Error>>,
) -> Result<bool, String> {
    let answer = answer.await.map_err(|error| said(&error))?;
    let answer = whole(answer).await.map_err(|error| said(&error))?;
    match (answer.status.as_u16(), &answer.body[..]) {
        (200, b"hello") => Ok(answer.headers.get("connection").is_some_and(|value| value == "close")),
        (status, body) => Err(format!("{status} {}", String::from_utf8_lossy(body))),
    }
}

fn said(error: &hyper::Error) -> String {
    format!("{error:?}")
}

#[test]
fn twenty_replacements_under_load_lose_no_request() {
    for upstream in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let origin = Origin::hello(upstream).await;
            let dir = Dir::new();
            let start = async |number: usize| {
                let config = config(number % 3 + 1, &["in"], origin.address, upstream);
                Process::start(PROGRAM, dir.as_ref(), &config).await
            };
            let mut proxies = vec![start(0).await];
            let load = Load::new(proxies[0].address("in"));
            let mut clients = vec![tokio::task::spawn_local(load.clone().connections())];
            for _ in 0..4 {
                clients.push(tokio::task::spawn_local(load.clone().kept_http1()));
                clients.push(tokio::task::spawn_local(load.clone().kept_http2()));
            }
            let probed = Rc::new(Cell::new(0));
            clients.push(tokio::task::spawn_local(probe(load.clone(), proxies[0].status, probed.clone())));
            for number in 1..=REPLACEMENTS {
                let before = load.served.get();
                proxies.push(start(number).await);
                assert_eq!(proxies[number].address("in"), load.address);
                assert_eq!(proxies[number].status, proxies[0].status);
                eventually("traffic goes on", || load.served.get() > before + 100).await;
            }
            load.on.set(false);
            for client in clients {
                client.await.expect("join");
            }
            let failed = load.failed.take();
            assert!(
                failed.is_empty(),
                "{} of {}: {:#?}",
                failed.len(),
                load.served.get(),
                &failed[..failed.len().min(9)]
            );
            assert!(probed.get() > REPLACEMENTS, "the status page was looked at {} times", probed.get());
            // All but the last have ended by themselves, in order; the last one by a signal.
            proxies[REPLACEMENTS].signal(Signal::TERM);
            for proxy in &mut proxies {
                assert_eq!(proxy.exit_code().await, Some(0), "{}", proxy.said());
            }
            let log = process::log(dir.as_ref());
            assert!(log.iter().all(|line| line["flag"] == "ok"));
            assert_eq!(log.len(), load.served.get(), "each request stands in the log, and no other");
        });
    }
}

/// A kubelet that asks all the time.
async fn probe(load: Rc<Load>, status: SocketAddr, probed: Rc<Cell<usize>>) {
    while load.on.get() {
        let asked = async {
            let mut wire = Wire::from(TcpStream::connect(status).await.map_err(|error| error.to_string())?);
            wire.write("GET /live HTTP/1.1\r\nhost: pod\r\nconnection: close\r\n\r\n").await;
            let answer = String::from_utf8_lossy(&wire.rest().await).into_owned();
            if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(format!("answered {answer:?}")) }
        };
        match asked.await {
            Ok(()) => probed.set(probed.get() + 1),
            Err(error) => load.failed.borrow_mut().push(format!("the status page: {error}")),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn a_successor_that_cannot_start_leaves_the_predecessor_serving() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let dir = Dir::new();
        let usual = config(2, &["in"], origin.address, Protocol::Http1);
        let mut proxy = Process::start(PROGRAM, dir.as_ref(), &usual).await;
        let load = Load::new(proxy.address("in"));
        let clients = [
            tokio::task::spawn_local(load.clone().connections()),
            tokio::task::spawn_local(load.clone().kept_http1()),
            tokio::task::spawn_local(load.clone().kept_http2()),
        ];
        let (taken, _) = Wire::listen().await;
        let address = taken.local_addr().expect("address");
        for (wrong, code) in [
            // It takes the sockets and then finds an address that it cannot have.
            (
                usual.replace(
                    "- {name: in,",
                    &format!("- {{name: new, mode: inbound, address: '{address}', upstream: app}}\n- {{name: in,"),
                ),
                1,
            ),
            // It finds no certificate.
            (usual.replace("name: app,", "name: app, tls: {rootFile: DIR/none.pem, serverName: app},"), 1),
            // It does not even ask.
            (usual.replace("workers: 2", "workers: many"), 2),
        ] {
            let (found, said) = Process::fail(PROGRAM, dir.as_ref(), &wrong).await;
            assert_eq!(found, Some(code), "{said}");
            let before = load.served.get();
            eventually("traffic goes on", || load.served.get() > before + 20).await;
        }
        assert!(!proxy.has_ended());
        // The way is free for one that can.
        let mut successor = Process::start(PROGRAM, dir.as_ref(), &usual).await;
        assert_eq!(proxy.exit_code().await, Some(0), "{}", proxy.said());
        load.on.set(false);
        for client in clients {
            client.await.expect("join");
        }
        assert!(load.failed.borrow().is_empty(), "{:#?}", load.failed.borrow());
        successor.signal(Signal::TERM);
        assert_eq!(successor.exit_code().await, Some(0), "{}", successor.said());
    });
}

#[test]
fn a_successor_with_more_workers_that_cannot_start_takes_no_connection() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let dir = Dir::new();
        let usual = config(1, &["in"], origin.address, Protocol::Http1);
        let proxy = Process::start(PROGRAM, dir.as_ref(), &usual).await;
        let load = Load::new(proxy.address("in"));
        let clients = [tokio::task::spawn_local(load.clone().connections())];
        let more = usual.replace("workers: 1", "workers: 8");
        let (taken, _) = Wire::listen().await;
        let address = taken.local_addr().expect("address");
        // The last address of many is taken, and a certificate is missing.
        let mut crowd: String = (0..32)
            .map(|n| format!("- {{name: new-{n}, mode: inbound, address: '127.0.0.1:0', upstream: app}}\n"))
            .collect();
        crowd.push_str(&format!("- {{name: taken, mode: inbound, address: '{address}', upstream: app}}\n"));
        let crowd = more.replace("upstreams:", &format!("{crowd}upstreams:"));
        let secure = more.replace("name: app,", "name: app, tls: {rootFile: DIR/none.pem, serverName: app},");
        for wrong in [&crowd, &secure].into_iter().cycle().take(20) {
            let (found, said) = Process::fail(PROGRAM, dir.as_ref(), wrong).await;
            assert_eq!(found, Some(1), "{said}");
            let before = load.served.get();
            eventually("traffic goes on", || load.served.get() > before + 20).await;
        }
        load.on.set(false);
        for client in clients {
            client.await.expect("join");
        }
        assert!(load.failed.borrow().is_empty(), "{:#?}", load.failed.borrow());
    });
}

#[test]
fn listeners_come_and_go_with_the_configuration() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let dir = Dir::new();
        let start = async |workers, listeners: &[&str]| serving(dir.as_ref(), workers, listeners, origin.address).await;
        let mut first = start(2, &["stays", "goes"]).await;
        let (stays, goes) = (first.address("stays"), first.address("goes"));
        let mut second = start(1, &["stays", "comes"]).await;
        assert_eq!(first.exit_code().await, Some(0), "{}", first.said());
        assert_eq!(second.address("stays"), stays);
        assert!(!second.listens("goes"));
        assert!(TcpStream::connect(goes).await.is_err(), "nobody listens any more");
        for address in [stays, second.address("comes")] {
            assert_eq!(&Client::connect(Protocol::Http1, address).await.get("/").await.body[..], b"hello");
        }
        second.signal(Signal::TERM);
        assert_eq!(second.exit_code().await, Some(0), "{}", second.said());
    });
}

#[test]
fn what_waits_at_a_listener_that_goes_is_served_by_the_predecessor() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let dir = Dir::new();
        let mut first = serving(dir.as_ref(), 1, &["stays", "goes"], origin.address).await;
        let goes = first.address("goes");
        let on = Rc::new(Cell::new(true));
        let going = on.clone();
        let asking = tokio::task::spawn_local(async move {
            let mut cut = 0;
            while going.get() {
                let Ok(stream) = TcpStream::connect(goes).await else { break };
                let mut wire = Wire::from(stream);
                wire.write("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
                cut += usize::from(!wire.rest().await.starts_with(b"HTTP/1.1 200"));
            }
            cut
        });
        let _second = serving(dir.as_ref(), 1, &["stays"], origin.address).await;
        assert_eq!(first.exit_code().await, Some(0), "{}", first.said());
        on.set(false);
        assert_eq!(asking.await.expect("join"), 0, "answers that were cut off");
    });
}

async fn serving(dir: &Path, workers: usize, listeners: &[&str], origin: SocketAddr) -> Process {
    Process::start(PROGRAM, dir, &config(workers, listeners, origin, Protocol::Http1)).await
}
