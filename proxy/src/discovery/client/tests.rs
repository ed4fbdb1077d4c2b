//! A conversation with a control plane of a version to come.

use hyper::server::conn::http2::Builder;
use hyper_util::service::TowerToHyperService;
use spanmesh_proto::v1::discovery_server::{Discovery, DiscoveryServer};
use tokio::net::TcpListener;

use super::*;
use crate::config::{Address, Endpoint};

#[tokio::test]
async fn what_is_not_known_is_ignored_and_told_in_the_next_report() {
    let (heard, mut said) = mpsc::unbounded_channel();
    let resource = v1::Resource { kind: "mood".into(), name: "own".into(), ..v1::Resource::default() };
    let push = v1::Push { nonce: 1, version: 7, whole: true, changed: vec![resource], ..v1::Push::default() };
    // A message that is not known is none when it is decoded.
    let script = vec![v1::ToProxy { message: None }, v1::ToProxy { message: Some(To::Push(push)) }];
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let service = TowerToHyperService::new(DiscoveryServer::new(Peer { script, heard }));
        let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
    });
    let endpoint = Endpoint { secure: false, address: Address { host: "127.0.0.1".into(), port }, path: String::new() };
    let settings = Settings {
        addresses: vec![Dial { endpoint, tls: None, renew: Duration::from_secs(600) }],
        token_file: None,
        node: v1::Node::default(),
        state: None,
        environment: Vec::new(),
    };
    let news = News { services: mpsc::channel(1).1, captured: mpsc::channel(1).1 };
    let heard = async {
        let mut acknowledged = false;
        loop {
            match said.recv().await.unwrap().message.unwrap() {
                From::Hello(hello) => assert_eq!(hello.kinds, KINDS),
                From::Ack(ack) => acknowledged = (ack.nonce, ack.version) == (1, 7),
                From::Report(report) => return (acknowledged, report),
                other => panic!("{other:?}"),
            }
        }
    };
    let (acknowledged, report) = tokio::select! {
        () = follow(settings, Still, news, Registry::new()) => unreachable!("it follows until it is dropped"),
        heard = timeout(Duration::from_secs(60), heard) => heard.unwrap(),
    };
    assert!(acknowledged);
    let told = ["message: one came that this version does not know", "mood/own: the kind is not known to this version"];
    assert_eq!((report.version, report.unknown), (7, told.map(str::to_owned).to_vec()));
}

struct Still;

impl Road for Still {
    fn apply(&mut self, _snapshot: Snapshot) {}

    fn report(&mut self) -> v1::Report {
        v1::Report::default()
    }

    fn permit(&mut self, _capture: &str) {}

    fn lost(&mut self) {}
}

struct Peer {
    script: Vec<v1::ToProxy>,
    heard: mpsc::UnboundedSender<v1::FromProxy>,
}

#[tonic::async_trait]
impl Discovery for Peer {
    type FollowStream = Script;

    async fn follow(
        &self,
        request: tonic::Request<Streaming<v1::FromProxy>>,
    ) -> Result<tonic::Response<Script>, tonic::Status> {
        let (mut messages, heard) = (request.into_inner(), self.heard.clone());
        tokio::spawn(async move {
            while let Ok(Some(message)) = messages.message().await {
                let _ = heard.send(message);
            }
        });
        let (open, lines) = mpsc::channel(MESSAGES);
        for line in self.script.clone() {
            open.try_send(Ok(line)).unwrap();
        }
        Ok(tonic::Response::new(Script { lines, _open: open }))
    }
}

/// What is said at once, and then nothing more.
struct Script {
    lines: mpsc::Receiver<Result<v1::ToProxy, tonic::Status>>,
    _open: mpsc::Sender<Result<v1::ToProxy, tonic::Status>>,
}

impl Stream for Script {
    type Item = Result<v1::ToProxy, tonic::Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.lines.poll_recv(context)
    }
}
