//! Whole connections: any bytes as a client's, and any bytes as an origin's answers. What is written in between is
//! judged by [`strict`] and [`frames`]: canonical messages, as many as were meant, none out of another's body, each
//! exchange closed once, and all of it over when both have gone.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Duration, sleep};

use super::memory::{self, Manner, Ran, Spoken};
use super::origin::{self, Book, Got};
use super::seen::{self, Closed};
use super::strict::{self, Read};
use super::{client, frames};
use crate::error::Flag;

/// The first byte says how the client behaves, the others are what it sends; the origin speaks HTTP/1.1.
pub fn fuzz_client_http1(data: &[u8]) {
    client_bytes("http1", data);
}

/// The same, and the origin speaks HTTP/2.
pub fn fuzz_client_http2(data: &[u8]) {
    client_bytes("http2", data);
}

/// The first byte says how a good client and the bad origin behave, the others are what the first connection to the
/// origin answers over HTTP/1.1. Other connections are answered well.
pub fn fuzz_origin_http1(data: &[u8]) {
    origin_bytes("http1", data);
}

/// The same over HTTP/2: the first frame at once, the others when a request's head has come.
pub fn fuzz_origin_http2(data: &[u8]) {
    origin_bytes("http2", data);
}

fn client_bytes(protocol: &'static str, data: &[u8]) {
    let (manner, bytes) = Manner::of(data);
    let book = Book::default();
    let got = book.clone();
    let ran =
        memory::run(protocol, |io| memory::speak(io, manner, bytes), move |io, _| serve(protocol, io, book.clone()));
    let got = got.take();
    let mut wrong = ran.wrong.clone();
    wrong.extend(carried(&ran.closed, &got, true).err());
    let stays = !manner.is_rude() && !manner.is_hasty();
    wrong.extend(answers(&ran, stays).err());
    if ran.spoken == Spoken::Http1 {
        wrong.extend(meant(bytes, &ran.closed, &got).err());
    }
    settle(&ran, &got, &wrong, data);
}

fn origin_bytes(protocol: &'static str, data: &[u8]) {
    let (manner, bytes) = Manner::of(data);
    let book = Book::default();
    let (got, sent) = (book.clone(), bytes.to_vec());
    let upstream = move |io, number| {
        let (bytes, book) = (sent.clone(), book.clone());
        async move {
            match (number, protocol) {
                (0, "http1") => hostile_http1(io, manner, &bytes, book).await,
                (0, _) => hostile_http2(io, manner, &bytes).await,
                _ => serve(protocol, io, book).await,
            }
        }
    };
    // What the client's manner says of leaving holds for the origin here; the client is a good one.
    let over_http2 = manner.choice() & 1 != 0;
    let ran = match over_http2 {
        false => memory::run(protocol, |io| memory::speak(io, Manner::of(b"0").0, client::requests(manner)), upstream),
        true => memory::run(protocol, client::http2, upstream),
    };
    let got = got.take();
    let mut wrong = ran.wrong.clone();
    wrong.extend(carried(&ran.closed, &got, protocol == "http1").err());
    if !over_http2 {
        wrong.extend(answers(&ran, true).err());
        // What comes in pieces may come behind the next request, and nobody could tell it from that one's answer.
        if protocol == "http1" && manner.pieces(bytes).len() <= 1 {
            wrong.extend(own_answers(&ran).err());
        }
    }
    settle(&ran, &got, &wrong, data);
}

fn settle(ran: &Ran, got: &[Got], wrong: &[String], data: &[u8]) {
    if ran.spurious {
        return;
    }
    seen::mark((got.len().min(4), got.iter().filter(|got| got.whole).count().min(4), ran.answers.len().min(1)));
    assert!(
        wrong.is_empty(),
        "{wrong:#?}\nclosed: {:#?}\ngot: {got:#?}\nanswers: {:?}\ninput: {:?}",
        ran.closed,
        String::from_utf8_lossy(&ran.answers),
        String::from_utf8_lossy(data),
    );
}

async fn serve(protocol: &str, io: DuplexStream, book: Book) {
    match protocol {
        "http1" => origin::http1(io, book).await,
        _ => origin::http2(io, book).await,
    }
}

/// Answers the first head with the bytes, and each later one on the same connection with its own path.
async fn hostile_http1(io: DuplexStream, manner: Manner, bytes: &[u8], book: Book) {
    let (near, far) = tokio::io::duplex(seen::PIPE);
    // The good origin behind reads and writes down everything; only its first answer is replaced.
    tokio::task::spawn_local(origin::http1(far, book));
    let (mut from, mut to) = tokio::io::split(io);
    let (mut answers, mut requests) = tokio::io::split(near);
    let passing = tokio::task::spawn_local(async move { tokio::io::copy(&mut from, &mut requests).await });
    let mut first = vec![0; seen::PIPE];
    let Ok(1..) = answers.read(&mut first).await else { return };
    for piece in manner.pieces(bytes) {
        if to.write_all(piece).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
    if manner.is_rude() {
        passing.abort();
        return;
    }
    if !manner.is_hasty() {
        let rest = tokio::time::timeout(STAY, tokio::io::copy(&mut answers, &mut to)).await;
        seen::mark(rest.is_ok());
    }
    let _ = to.shutdown().await;
    sleep(STAY).await;
    passing.abort();
}

async fn hostile_http2(mut io: DuplexStream, manner: Manner, bytes: &[u8]) {
    let first = frames::frame(bytes).map_or(0, |(_, rest)| bytes.len() - rest.len());
    let (settings, rest) = bytes.split_at(first);
    if io.write_all(settings).await.is_err() {
        return;
    }
    let mut read = Vec::new();
    let has_head = |read: &[u8]| {
        let mut left = read.get(frames::PREFACE.len()..).unwrap_or_default();
        while let Some((frame, rest)) = frames::frame(left) {
            if frame.kind == frames::HEADERS {
                return true;
            }
            left = rest;
        }
        false
    };
    while !has_head(&read) {
        match tokio::time::timeout(2 * STAY, io.read_buf(&mut read)).await {
            Ok(Ok(1..)) => {}
            _ => break,
        }
    }
    let (mut from, mut to) = tokio::io::split(io);
    let reading = tokio::task::spawn_local(async move {
        while let Ok(1..) = from.read_buf(&mut read).await {}
        read
    });
    for piece in manner.pieces(rest) {
        if to.write_all(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    if manner.is_rude() {
        return reading.abort();
    }
    if !manner.is_hasty() {
        sleep(STAY).await;
    }
    let _ = to.shutdown().await;
    let Ok(Ok(read)) = tokio::time::timeout(2 * STAY, reading).await else { return };
    let behind = read.strip_prefix(frames::PREFACE).unwrap_or_default();
    if let Err(wrong) = frames::read(behind) {
        seen::wrong(format!("to the origin: {wrong}"));
    }
}

/// Each request that reached the origin is the one of an exchange, and there are no others. `complete` when all of the
/// origin's connections were written down.
fn carried(closed: &[Closed], got: &[Got], complete: bool) -> Result<(), String> {
    // Behind a switch of protocols bytes are bytes.
    if closed.iter().any(|closed| closed.status == Some(101)) {
        return Ok(());
    }
    let attempts: usize = closed.iter().map(|closed| closed.attempts).sum();
    let answered: usize = closed.iter().map(|closed| closed.answered).sum();
    if got.len() > attempts || complete && got.len() < answered {
        return Err(format!("{} requests reached the origin, of {attempts} attempts, {answered} answered", got.len()));
    }
    let mut left: Vec<_> = closed.iter().flat_map(|closed| std::iter::repeat_n(closed, closed.attempts)).collect();
    // What came whole has the first choice: a part of a request fits more exchanges.
    for got in got.iter().filter(|got| got.whole).chain(got.iter().filter(|got| !got.whole)) {
        let fits = |closed: &&Closed| {
            closed.path == got.path && closed.method.as_ref().is_some_and(|method| becomes(method, &got.method))
        };
        let sized = |closed: &&Closed| {
            // Answered early, the record was closed before its body had passed.
            closed.attempts > 1
                || closed.path.starts_with("/early")
                || closed.sent == got.body.len() as u64
                || !got.whole && closed.sent >= got.body.len() as u64
        };
        let exact = left.iter().position(|closed| fits(closed) && sized(closed));
        match exact {
            Some(place) => drop(left.swap_remove(place)),
            None => return Err(format!("no exchange sent this: {got:?}")),
        }
    }
    Ok(())
}

/// RFC 8441 §5: a WebSocket is asked for by GET over HTTP/1.1 and by CONNECT over HTTP/2.
fn becomes(method: &str, carried: &str) -> bool {
    method == carried || [("GET", "CONNECT"), ("CONNECT", "GET")].contains(&(method, carried))
}

/// What the client got is one canonical answer for each exchange that has one, in their order.
fn answers(ran: &Ran, stays: bool) -> Result<(), String> {
    match ran.spoken {
        Spoken::Other if ran.answers.is_empty() => return Ok(()),
        Spoken::Other => return Err("bytes were answered that are no HTTP".into()),
        Spoken::Http2 => {
            let streams = frames::read(&ran.answers).map_err(|wrong| format!("to the client: {wrong}"))?;
            if streams.len() > ran.closed.len() {
                return Err(format!("{} answers for {} exchanges", streams.len(), ran.closed.len()));
            }
            return Ok(());
        }
        Spoken::Http1 => {}
    }
    let mut rest = ran.answers.as_slice();
    let mut last = None;
    for closed in ran.closed.iter().filter(|closed| closed.status.is_some()) {
        if let Some(before) = last {
            if rest.is_empty() {
                continue;
            }
            return Err(format!("{} bytes behind {before}", rest.len()));
        }
        loop {
            let method = closed.method.as_deref().unwrap_or("GET").as_bytes();
            let (head, used) =
                match strict::response(rest, method, true).map_err(|wrong| format!("to the client: {wrong}"))? {
                    Read::Nothing | Read::Part(_) => {
                        if stays && closed.flag == Flag::Ok {
                            return Err(format!("a whole answer that is none: {closed:?}"));
                        }
                        rest = &[];
                        last = Some("an answer that was cut");
                        break;
                    }
                    Read::Whole(head, _, used) => (head, used),
                };
            rest = rest.get(used..).unwrap_or_default();
            if (100..200).contains(&head.status()) && head.status() != 101 {
                continue;
            }
            if Some(head.status()) != closed.status {
                return Err(format!("answered {}, closed as {closed:?}", head.status()));
            }
            if head.status() == 101 {
                return Ok(());
            }
            if head.values(b"connection").contains(&&b"close"[..]) {
                last = Some("an answer that closes");
            }
            break;
        }
    }
    // The engine asks for a body that never comes.
    if ran.closed.last().is_some_and(|closed| closed.status.is_none()) {
        while let Ok(Read::Whole(head, _, used)) = strict::response(rest, b"GET", true)
            && head.status() == 100
        {
            rest = rest.get(used..).unwrap_or_default();
        }
    }
    match rest {
        [] => Ok(()),
        more => Err(format!("{} bytes that are nobody's answer", more.len())),
    }
}

/// The requests that can be read in one way only are those that were carried, as far as they go: a second opinion on
/// where the messages of the client's bytes end.
fn meant(bytes: &[u8], closed: &[Closed], got: &[Got]) -> Result<(), String> {
    let mut rest = bytes;
    let mut closed = closed.iter();
    while let Ok(Read::Whole(head, body, used)) = strict::request(rest) {
        let Some(closed) = closed.next() else { return Ok(()) };
        let told = origin::path(head.target());
        // The engine refuses some that are well framed: too many fields, a target that it cannot read.
        let Some(method) = &closed.method else { return Ok(()) };
        if method.as_bytes() != head.method() || told.starts_with(b"/") && origin::text(told) != closed.path {
            return Err(format!("the client meant {head:?}, and it became {closed:?}"));
        }
        let mut same = got.iter().filter(|got| got.method == *method && got.path == closed.path && got.whole);
        if closed.flag == Flag::Ok
            && closed.answered == 1
            && !told.starts_with(b"/early")
            && !same.any(|got| got.body == body)
        {
            return Err(format!("the body of {head:?} did not arrive as it was meant"));
        }
        if !head.values(b"upgrade").is_empty() || method == "CONNECT" {
            return Ok(());
        }
        rest = rest.get(used..).unwrap_or_default();
    }
    Ok(())
}

/// Behind the first answer, which is the hostile one, each request has its own or one of the proxy's: an origin that
/// answers twice does not answer the next request.
fn own_answers(ran: &Ran) -> Result<(), String> {
    let mut rest = ran.answers.as_slice();
    let mut answered = ran.closed.iter().filter(|closed| closed.status.is_some());
    let Some(first) = answered.next() else { return Ok(()) };
    if first.status == Some(101) {
        return Ok(());
    }
    let method = first.method.as_deref().unwrap_or("GET").as_bytes();
    let Ok(Read::Whole(_, _, used)) = final_answer(rest, method) else { return Ok(()) };
    rest = rest.get(used..).unwrap_or_default();
    for closed in answered {
        let method = closed.method.as_deref().unwrap_or("GET").as_bytes();
        let Ok(Read::Whole(head, body, used)) = final_answer(rest, method) else { return Ok(()) };
        if head.status() == 101 {
            return Ok(());
        }
        if closed.flag == Flag::Ok && (head.status() != 200 || body != closed.path.as_bytes()) {
            return Err(format!("another's answer: {head:?} {:?} for {closed:?}", String::from_utf8_lossy(&body)));
        }
        rest = rest.get(used..).unwrap_or_default();
    }
    Ok(())
}

fn final_answer(bytes: &[u8], method: &[u8]) -> Result<Read, String> {
    let mut at = 0;
    loop {
        match strict::response(bytes.get(at..).unwrap_or_default(), method, true)? {
            Read::Whole(head, _, used) if head.status() < 200 && head.status() != 101 => at += used,
            Read::Whole(head, body, used) => return Ok(Read::Whole(head, body, at + used)),
            other => return Ok(other),
        }
    }
}

/// How long the hostile origin stays when it has said its say. Less than the limits of idleness.
const STAY: Duration = Duration::from_secs(2);
