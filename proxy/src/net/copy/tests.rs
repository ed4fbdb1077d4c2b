use std::{
    cell::RefCell,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex, split},
    net::TcpListener,
    task::{JoinHandle, spawn_local},
    time::timeout,
};

use super::*;
use crate::system::budget::Budget;

const LONG: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;

/// The two ends that peers hold, and the copy between them.
struct Copied {
    client: TcpStream,
    upstream: TcpStream,
    moved: Rc<Moved>,
    first: Rc<RefCell<Vec<Side>>>,
    polls: Arc<AtomicUsize>,
    budget: Arc<Budget>,
    end: JoinHandle<CopyEnd>,
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

async fn copied(idle: Duration, prefix: &'static [u8], pipe_bytes: usize) -> Copied {
    let ((client, from), (to, upstream)) = (pair().await, pair().await);
    let first = Rc::new(RefCell::new(Vec::new()));
    let seen = first.clone();
    let watch = CopyWatch::new(idle).on_first(move |side| seen.borrow_mut().push(side));
    let moved = watch.moved();
    let polls = Arc::new(AtomicUsize::new(0));
    let counted = polls.clone();
    let budget = Budget::new(pipe_bytes);
    let pipes = Pipes::new(budget.clone());
    let end = spawn_local(async move {
        let mut copy = pin!(copy_tcp(Prefixed::new(from, prefix), to, &watch, &pipes));
        poll_fn(|cx| {
            counted.fetch_add(1, Relaxed);
            copy.as_mut().poll(cx)
        })
        .await
    });
    Copied { client, upstream, moved, first, polls, budget, end }
}

async fn plain() -> Copied {
    copied(LONG, b"", 16 * MIB).await
}

impl Copied {
    async fn end(self) -> CopyEnd {
        timeout(LONG, self.end).await.unwrap().unwrap()
    }
}

/// Bytes that tell their place, so that a lost, repeated or exchanged one is seen.
fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let word = |at: u64| (at ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    (0..length.div_ceil(8) as u64).flat_map(word).take(length).collect()
}

fn send(mut stream: impl AsyncWrite + Unpin + 'static, bytes: Vec<u8>) -> JoinHandle<()> {
    spawn_local(async move {
        stream.write_all(&bytes).await.unwrap();
        stream.shutdown().await.unwrap();
    })
}

async fn receive(mut stream: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut bytes = Vec::new();
    timeout(LONG, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    bytes
}

async fn exact(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    timeout(LONG, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    bytes
}

/// Until nothing has changed for a while.
async fn settled(mut value: impl FnMut() -> u64) -> u64 {
    let mut last = value();
    for _ in 0..100 {
        sleep(Duration::from_millis(200)).await;
        match value() {
            now if now == last => return now,
            now => last = now,
        }
    }
    panic!("never settled");
}

async fn is_reset(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    match timeout(LONG, stream.read_to_end(&mut rest)).await.unwrap() {
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        Ok(_) => false,
    }
}

const CLEAN: CopyEnd = CopyEnd { up: Ended::Eof, down: Ended::Eof, first: None };

#[tokio::test(flavor = "local")]
async fn a_client_that_closes_its_side_still_gets_the_answer() {
    let mut c = plain().await;
    c.client.write_all(b"question").await.unwrap();
    c.client.shutdown().await.unwrap();
    assert_eq!(receive(&mut c.upstream).await, b"question");
    c.upstream.write_all(b"answer").await.unwrap();
    assert_eq!(exact(&mut c.client, 6).await, b"answer");
    c.upstream.shutdown().await.unwrap();
    assert_eq!(receive(&mut c.client).await, b"");
    assert_eq!((c.moved.up.get(), c.moved.down.get()), (8, 6));
    assert_eq!(c.end().await, CopyEnd { first: Some(Side::Client), ..CLEAN });
}

#[tokio::test(flavor = "local")]
async fn an_upstream_that_closes_its_side_still_hears_the_client() {
    let mut c = plain().await;
    c.upstream.shutdown().await.unwrap();
    assert_eq!(receive(&mut c.client).await, b"");
    c.client.write_all(b"afterwards").await.unwrap();
    c.client.shutdown().await.unwrap();
    assert_eq!(receive(&mut c.upstream).await, b"afterwards");
    assert_eq!(c.end().await, CopyEnd { first: Some(Side::Upstream), ..CLEAN });
}

#[tokio::test(flavor = "local")]
async fn who_speaks_first_is_told_once() {
    let mut c = plain().await;
    c.upstream.write_all(b"220 ready").await.unwrap();
    assert_eq!(exact(&mut c.client, 9).await, b"220 ready");
    c.client.write_all(b"EHLO").await.unwrap();
    assert_eq!(exact(&mut c.upstream, 4).await, b"EHLO");
    assert_eq!(*c.first.borrow(), [Side::Upstream]);
}

#[tokio::test(flavor = "local")]
async fn sniffed_bytes_are_written_first() {
    let mut c = copied(LONG, b"sniffed, ", 16 * MIB).await;
    let bulk = pattern(3, 2 * MIB);
    let sending = send(c.client, bulk.clone());
    let received = receive(&mut c.upstream).await;
    assert_eq!(&received[..9], b"sniffed, ");
    assert!(received[9..] == bulk);
    sending.await.unwrap();
    assert_eq!(*c.first.borrow(), [Side::Client]);
}

async fn bulk(pipe_bytes: usize) -> (u64, Arc<Budget>) {
    const LENGTH: usize = 64 * MIB;
    let c = copied(LONG, b"", pipe_bytes).await;
    let ((client_read, client_write), (upstream_read, upstream_write)) = (split(c.client), split(c.upstream));
    let (question, answer) = (pattern(1, LENGTH), pattern(2, LENGTH));
    send(client_write, question.clone());
    send(upstream_write, answer.clone());
    let down = spawn_local(receive(client_read));
    let up = receive(upstream_read).await;
    let down = down.await.unwrap();
    assert!(up == question, "what the upstream got");
    assert!(down == answer, "what the client got");
    assert_eq!((c.moved.up.get(), c.moved.down.get()), (LENGTH as u64, LENGTH as u64));
    let end = timeout(LONG, c.end).await.unwrap().unwrap();
    assert_eq!(CopyEnd { first: None, ..end }, CLEAN);
    (c.moved.spliced.get(), c.budget)
}

#[tokio::test(flavor = "local")]
async fn bulk_is_moved_whole_and_in_the_kernel() {
    let (spliced, budget) = bulk(16 * MIB).await;
    assert!(spliced > 64 * MIB as u64, "only {spliced} bytes were spliced");
    assert_eq!(budget.held(), 0, "every pipe was given back");
}

#[tokio::test(flavor = "local")]
async fn without_a_pipe_bulk_is_moved_all_the_same() {
    assert_eq!(bulk(0).await.0, 0);
}

#[tokio::test(flavor = "local")]
async fn a_talk_in_small_pieces_needs_no_pipe() {
    let mut c = plain().await;
    for _ in 0..200 {
        c.client.write_all(&[7; 1000]).await.unwrap();
        exact(&mut c.upstream, 1000).await;
    }
    assert_eq!(c.moved.spliced.get(), 0);
    assert_eq!(c.budget.held(), 0);
}

#[tokio::test(flavor = "local")]
async fn a_reader_that_stalls_holds_little_and_costs_nothing() {
    for pipe_bytes in [16 * MIB, 0] {
        let mut c = copied(LONG, b"", pipe_bytes).await;
        let sent = Rc::new(Cell::new(0));
        let (_keep, mut writer) = split(c.client);
        let (total, bytes) = (sent.clone(), pattern(5, 8 * MIB));
        let length = 32 * bytes.len();
        spawn_local(async move {
            for at in 0..length / 1024 {
                let at = at * 1024 % bytes.len();
                writer.write_all(&bytes[at..at + 1024]).await.unwrap();
                total.set(total.get() + 1024);
            }
            writer.shutdown().await.unwrap();
        });
        let stalled = settled(|| sent.get()).await;
        assert!(stalled < length as u64 / 2, "{stalled} bytes were taken from the sender");
        assert!(c.budget.held() <= 2 * 256 * 1024);
        let before = c.polls.load(Relaxed);
        sleep(Duration::from_millis(300)).await;
        assert!(c.polls.load(Relaxed) - before < 10, "it spins");

        let mut buffer = vec![0; MIB];
        let mut received = 0;
        loop {
            match timeout(LONG, c.upstream.read(&mut buffer)).await.unwrap().unwrap() {
                0 => break,
                count => received += count,
            }
        }
        assert_eq!(received, length);
    }
}

#[tokio::test(flavor = "local")]
async fn a_quiet_connection_holds_no_pipe_beyond_the_spare_ones() {
    let mut c = plain().await;
    let sending = c.client.write_all(&[7; 8 * MIB]);
    let (sent, _) = tokio::join!(sending, exact(&mut c.upstream, 8 * MIB));
    sent.unwrap();
    let held = settled(|| c.budget.held() as u64).await;
    assert!(held <= 256 * 1024);
    assert!(!c.end.is_finished());
}

#[tokio::test(flavor = "local")]
async fn a_reset_of_one_side_resets_the_other() {
    let mut c = plain().await;
    c.client.write_all(b"x").await.unwrap();
    exact(&mut c.upstream, 1).await;
    c.client.set_zero_linger().unwrap();
    drop(c.client);
    assert!(is_reset(&mut c.upstream).await);
    let end = c.end.await.unwrap();
    assert_eq!(end, CopyEnd { up: Ended::Reset, down: Ended::Cut, first: Some(Side::Client) });

    let mut c = plain().await;
    c.upstream.write_all(b"x").await.unwrap();
    exact(&mut c.client, 1).await;
    c.upstream.set_zero_linger().unwrap();
    drop(c.upstream);
    assert!(is_reset(&mut c.client).await);
    let end = c.end.await.unwrap();
    assert_eq!(end, CopyEnd { up: Ended::Cut, down: Ended::Reset, first: Some(Side::Upstream) });
}

#[tokio::test(flavor = "local")]
async fn a_client_that_went_away_before_the_answer_resets_the_upstream() {
    let mut c = plain().await;
    c.client.shutdown().await.unwrap();
    assert_eq!(receive(&mut c.upstream).await, b"");
    drop(c.client);
    // The first bytes meet a closed socket, the client's host answers with a reset, and the next find it.
    let broke = timeout(LONG, async {
        while c.upstream.write_all(&[7; 1000]).await.is_ok() {
            sleep(Duration::from_millis(5)).await
        }
    });
    broke.await.unwrap();
    let end = c.end.await.unwrap();
    assert_eq!(end, CopyEnd { up: Ended::Eof, down: Ended::Reset, first: Some(Side::Client) });
}

#[tokio::test(flavor = "local")]
async fn an_answer_before_a_reset_is_delivered() {
    // A server that refuses a long upload: it answers, and closes without reading the rest, which is a reset.
    let mut c = plain().await;
    c.client.write_all(&[7; 64 * 1024]).await.unwrap();
    settled(|| c.moved.up.get()).await;
    c.upstream.write_all(b"413").await.unwrap();
    drop(c.upstream);
    assert_eq!(exact(&mut c.client, 3).await, b"413");
    assert!(is_reset(&mut c.client).await);
    let end = c.end.await.unwrap();
    assert!(end.is_abrupt());
    assert_eq!(end.first, Some(Side::Upstream));
}

#[tokio::test(flavor = "local")]
async fn silence_ends_a_copy_and_a_byte_puts_that_off() {
    let idle = Duration::from_millis(400);
    let mut c = copied(idle, b"", 0).await;
    let start = Instant::now();
    for _ in 0..8 {
        sleep(idle / 4).await;
        c.upstream.write_all(b"x").await.unwrap();
        exact(&mut c.client, 1).await;
    }
    let last = Instant::now();
    assert!(last - start >= idle * 2 && !c.end.is_finished());
    assert_eq!(receive(&mut c.client).await, b"", "closed, not reset");
    assert!(last.elapsed() >= idle * 3 / 4);
    assert_eq!(c.end().await, CopyEnd { up: Ended::Idle, down: Ended::Idle, first: None });
}

#[tokio::test(flavor = "local")]
async fn streams_that_are_no_sockets_are_copied_too() {
    let ((client, from), (to, upstream)) = (duplex(100), duplex(5000));
    let end = spawn_local(async move { copy(from, to, &CopyWatch::new(LONG)).await });
    let ((client_read, client_write), (upstream_read, upstream_write)) = (split(client), split(upstream));
    let (question, answer) = (pattern(1, MIB), pattern(2, MIB));
    send(client_write, question.clone());
    assert!(receive(upstream_read).await == question);
    send(upstream_write, answer.clone());
    assert!(receive(client_read).await == answer);
    assert_eq!(end.await.unwrap(), CopyEnd { first: Some(Side::Client), ..CLEAN });
}

/// A stream that holds back what is written until it is flushed, as TLS may.
struct Held<S>(S, Vec<u8>);

impl<S: AsyncRead + Unpin> AsyncRead for Held<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Held<S> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.1.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.1.is_empty() {
            let Self(stream, held) = &mut *self;
            let count = std::task::ready!(Pin::new(stream).poll_write(cx, held))?;
            held.drain(..count);
        }
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test(flavor = "local")]
async fn what_a_stream_holds_back_is_flushed_before_waiting() {
    let ((mut client, from), (to, mut upstream)) = (duplex(100), duplex(3));
    spawn_local(async move { copy(from, Held(to, Vec::new()), &CopyWatch::new(LONG)).await });
    client.write_all(b"no more comes").await.unwrap();
    let mut bytes = [0; 13];
    timeout(LONG, upstream.read_exact(&mut bytes)).await.unwrap().unwrap();
    assert_eq!(&bytes, b"no more comes");
}

#[tokio::test(flavor = "local")]
async fn the_future_stays_small() {
    let ((_a, from), (to, _b)) = (pair().await, pair().await);
    let (watch, pipes) = (CopyWatch::new(LONG), Pipes::new(Budget::new(0)));
    let size = size_of_val(&copy_tcp(from, to, &watch, &pipes));
    assert!(size <= 1024, "{size} bytes a connection");
}
