//! Clients that mean harm, or that break. None cares what it is told; each ends by its own doing or after a while.

use std::io::Result;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::good::{Places, UPGRADE};
use super::origins::noise;
use super::{Dice, floods};
use crate::certificates::connect;
use crate::streams::reset_at_close;

/// The kinds of attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gust {
    Garbage,
    Malformed,
    Half,
    Slow,
    LargeHead,
    Upload,
    Download,
    Switched,
    Tunnel,
    Handshake,
    Flood,
    BrokenHttp1,
    BrokenHttp2,
}

impl Gust {
    pub const ALL: [Gust; 13] = [
        Gust::Garbage,
        Gust::Malformed,
        Gust::Half,
        Gust::Slow,
        Gust::LargeHead,
        Gust::Upload,
        Gust::Download,
        Gust::Switched,
        Gust::Tunnel,
        Gust::Handshake,
        Gust::Flood,
        Gust::BrokenHttp1,
        Gust::BrokenHttp2,
    ];

    /// One attack on a connection of its own, which vanishes after the patience.
    pub async fn blow(self, places: Rc<Places>, mut dice: Dice, patience: Duration) {
        let _ = tokio::time::timeout(patience, self.attack(&places, &mut dice)).await;
    }

    async fn attack(self, places: &Places, dice: &mut Dice) -> Result<()> {
        match self {
            Gust::Garbage => garbage(places, dice).await,
            Gust::Malformed => malformed(places, dice).await,
            Gust::Half => half(places, dice).await,
            Gust::Slow => slow(places, dice).await,
            Gust::LargeHead => large_head(places, dice).await,
            Gust::Upload => upload(places, dice).await,
            Gust::Download => download(places, dice).await,
            Gust::Switched => switched(places, dice).await,
            Gust::Tunnel => tunnel(places, dice).await,
            Gust::Handshake => handshake(places, dice).await,
            Gust::Flood => floods::any(places, dice).await,
            Gust::BrokenHttp1 => broken_http1(places, dice).await,
            Gust::BrokenHttp2 => floods::broken_http2(places, dice).await,
        }
    }
}

/// A connection that will end with a reset as often as quietly.
pub async fn open(address: std::net::SocketAddr, dice: &mut Dice) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    if dice.below(2) == 0 {
        reset_at_close(&stream);
    }
    Ok(stream)
}

/// Reads what comes, for a moment or to the end.
pub async fn listen(stream: &mut (impl AsyncReadExt + Unpin), dice: &mut Dice) -> Result<()> {
    let mut rest = Vec::new();
    let wait = Duration::from_millis(dice.below(4000) as u64);
    let _ = tokio::time::timeout(wait, stream.take(1 << 20).read_to_end(&mut rest)).await;
    Ok(())
}

async fn garbage(places: &Places, dice: &mut Dice) -> Result<()> {
    let address = [places.plain, places.edge, places.tcp][dice.below(3)];
    let mut stream = open(address, dice).await?;
    let length = 1 + dice.below(3000);
    stream.write_all(&noise(dice, length)).await?;
    listen(&mut stream, dice).await
}

async fn malformed(places: &Places, dice: &mut Dice) -> Result<()> {
    let mut stream = open(places.plain, dice).await?;
    stream.write_all(MALFORMED[dice.below(MALFORMED.len())].as_bytes()).await?;
    listen(&mut stream, dice).await
}

const MALFORMED: [&str; 16] = [
    "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nhello",
    "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nokX",
    "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n",
    "GET /echo HTTP/1.1\r\n\r\n",
    "GET /echo HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    "GET /echo HTTP/1.1\r\nhost : a\r\n\r\n",
    "GET /echo HTTP/1.1\r\nhost: a\r\nx: a\r\n b\r\n\r\n",
    "GET http://b/echo HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /echo HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "GET /echo\r\n",
    "GET /echo HTTP/3.7\r\nhost: a\r\n\r\n",
    "CONNECT a:99999 HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /echo HTTP/1.1\r\nhost: a\r\nx: \0\r\n\r\n",
];

/// A good request, but for its end.
async fn half(places: &Places, dice: &mut Dice) -> Result<()> {
    let whole = "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\nexpect: 100-continue\r\n\r\nhalf a body";
    let mut stream = open(places.plain, dice).await?;
    let end = dice.below(whole.len());
    stream.write_all(&whole.as_bytes()[..end]).await?;
    if dice.below(2) == 0 {
        listen(&mut stream, dice).await?;
    }
    Ok(())
}

/// A byte now and then: in the head, in a body, in a chunk.
async fn slow(places: &Places, dice: &mut Dice) -> Result<()> {
    let mut stream = open(places.plain, dice).await?;
    let two = places.sharing.way(1);
    let chunked = format!("POST {two}/echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nfff\r\n");
    let begun = [
        "",
        "GET /echo HTTP/1.1\r\nhost: a\r\nx: ",
        "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n",
        &chunked,
    ];
    stream.write_all(begun[dice.below(begun.len())].as_bytes()).await?;
    for _ in 0..dice.below(50) {
        stream.write_all(b"G").await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn large_head(places: &Places, dice: &mut Dice) -> Result<()> {
    let mut stream = open(places.plain, dice).await?;
    stream.write_all(b"GET /echo HTTP/1.1\r\nhost: a\r\n").await?;
    let field = format!("x-{}: {}\r\n", dice.below(1000), "v".repeat([10, 1000, 20_000][dice.below(3)]));
    for _ in 0..200 {
        stream.write_all(field.as_bytes()).await?;
    }
    stream.write_all(b"\r\n").await?;
    listen(&mut stream, dice).await
}

/// Leaves in the middle of its own body.
async fn upload(places: &Places, dice: &mut Dice) -> Result<()> {
    let mut stream = open(places.plain, dice).await?;
    let way = places.sharing.way(dice.below(3));
    let head = format!("POST {way}/up/0/9000000 HTTP/1.1\r\nhost: a\r\ncontent-length: 9000000\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let length = dice.below(1 << 20);
    stream.write_all(&noise(dice, length)).await
}

/// Leaves in the middle of an answer, or does not read it.
async fn download(places: &Places, dice: &mut Dice) -> Result<()> {
    let mut stream = open(places.plain, dice).await?;
    let way = places.sharing.way(dice.below(3));
    let head = format!("GET {way}/down/0/4000000 HTTP/1.1\r\nhost: a\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    if dice.below(4) == 0 {
        tokio::time::sleep(Duration::from_millis(dice.below(8000) as u64)).await;
        return Ok(());
    }
    let mut piece = vec![0; 1 + dice.below(1 << 20)];
    stream.read_exact(&mut piece).await.map(drop)
}

/// Leaves during or after a switch of protocols.
async fn switched(places: &Places, dice: &mut Dice) -> Result<()> {
    let mut stream = open(places.plain, dice).await?;
    let path = ["/ws", "/echo", "/bad1", "/bad2"][dice.below(4)];
    stream.write_all(UPGRADE.replace("/ws", path).as_bytes()).await?;
    let length = dice.below(5000);
    stream.write_all(&noise(dice, length)).await?;
    if dice.below(2) == 0 {
        listen(&mut stream, dice).await?;
    }
    Ok(())
}

async fn tunnel(places: &Places, dice: &mut Dice) -> Result<()> {
    let mut stream = open(places.tcp, dice).await?;
    let length = dice.below(1 << 20);
    stream.write_all(&noise(dice, length)).await?;
    let mut piece = vec![0; 1 + dice.below(length + 1)];
    if dice.below(2) == 0 {
        stream.read_exact(&mut piece).await?;
    }
    Ok(())
}

/// Leaves in the middle of a handshake, or right behind it.
async fn handshake(places: &Places, dice: &mut Dice) -> Result<()> {
    let connector = if dice.below(2) == 0 { &places.http1 } else { &places.http2 };
    let wait = Duration::from_micros(dice.below(3000) as u64);
    let Ok(stream) = tokio::time::timeout(wait, connect(connector, "storm.example", places.edge)).await else {
        return Ok(());
    };
    let mut stream = stream?;
    let length = dice.below(2000);
    stream.write_all(&noise(dice, length)).await?;
    listen(&mut stream, dice).await
}

/// Good requests to bad origins.
async fn broken_http1(places: &Places, dice: &mut Dice) -> Result<()> {
    let mut stream = open(places.plain, dice).await?;
    for _ in 0..1 + dice.below(4) {
        let path = floods::BAD[dice.below(floods::BAD.len())];
        let request = match dice.below(3) {
            0 => format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"),
            1 => format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello"),
            _ => format!(
                "PUT {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 200000\r\n\r\n{}",
                "p".repeat(dice.below(200_001))
            ),
        };
        stream.write_all(request.as_bytes()).await?;
    }
    listen(&mut stream, dice).await
}
