//! Both processes played by two threads on real sockets: what waits in the accept queues arrives, and whatever goes
//! wrong leaves the predecessor as it was.

use std::cell::Cell;
use std::fs;
use std::future::pending;
use std::io::{PipeReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    accept_with, bind, connect, listen, send, sendmsg, socket_with,
};
use socket2::{Domain, Socket as Raw, Type};

use super::message::{Entry, Message};
use super::wire::receive;
use super::*;

const WAIT: Duration = Duration::from_secs(5);

/// A path of its own for each test.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("spanmesh-handover-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.join("handover.sock")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `count` SO_REUSEPORT listeners on one free port.
fn listeners(count: usize) -> (SocketAddr, Vec<TcpListener>) {
    let mut address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let mut list = Vec::new();
    for _ in 0..count {
        let socket = Raw::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(128).unwrap();
        let listener = TcpListener::from(socket);
        address = listener.local_addr().unwrap();
        list.push(listener);
    }
    (address, list)
}

/// A predecessor in a thread of its own that owns its listeners and drops them when they are taken.
struct Predecessor {
    taken: mpsc::Receiver<()>,
    thread: JoinHandle<Result<(), HandoverError>>,
}

impl Predecessor {
    fn start(path: &Path, named: Vec<(&'static str, TcpListener)>) -> Self {
        let (tell, taken) = mpsc::channel();
        let own = path.to_owned();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let kept = Cell::new(Some(named));
            let offer = || {
                let named = kept.take().unwrap();
                let copy = |(name, socket): &(&'static str, TcpListener)| {
                    (String::from(*name), socket.local_addr().unwrap(), OwnedFd::from(socket.try_clone().unwrap()))
                };
                let copies = named.iter().map(copy).collect();
                kept.set(Some(named));
                copies
            };
            runtime.block_on(serve(
                &own,
                offer,
                || {
                    drop(kept.take());
                    tell.send(()).unwrap();
                },
                pending(),
            ))
        });
        let started = Instant::now();
        while !path.exists() {
            assert!(started.elapsed() < WAIT, "the predecessor does not listen");
            thread::sleep(Duration::from_millis(1));
        }
        Self { taken, thread }
    }

    /// What its `serve` returns once it is let go.
    fn finish(self, path: &Path) -> Result<(), HandoverError> {
        self.taken.recv_timeout(WAIT).unwrap();
        fs::remove_file(path).unwrap();
        self.thread.join().unwrap()
    }

    fn is_taken(&self) -> bool {
        self.taken.try_recv().is_ok()
    }
}

fn named(name: &'static str, sockets: Vec<TcpListener>) -> Vec<(&'static str, TcpListener)> {
    sockets.into_iter().map(|socket| (name, socket)).collect()
}

fn accepted(sockets: &[Socket]) -> usize {
    let waiting = |socket: &Socket| std::iter::from_fn(|| socket.listener.accept().ok()).count();
    sockets.iter().map(waiting).sum()
}

fn packet_socket() -> OwnedFd {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

/// A successor that says whatever the test wants.
fn stray_successor(path: &Path) -> OwnedFd {
    let link = packet_socket();
    connect(&link, &SocketAddrUnix::new(path).unwrap()).unwrap();
    link
}

/// A predecessor that answers the hello with whatever the test wants, and the error that the successor makes of it.
fn stray_predecessor(answer: impl FnOnce(OwnedFd) + Send + 'static) -> HandoverError {
    let place = Place::new();
    let socket = packet_socket();
    bind(&socket, &SocketAddrUnix::new(place.path()).unwrap()).unwrap();
    listen(&socket, 1).unwrap();
    let thread = thread::spawn(move || {
        let link = accept_with(&socket, SocketFlags::CLOEXEC).unwrap();
        let hello = receive(&link).unwrap().open("hello").unwrap();
        assert_eq!(hello.0, Message::Hello);
        answer(link);
    });
    let error = take(&place.path(), Duration::from_millis(500)).unwrap_err();
    thread.join().unwrap();
    error
}

/// Sends a message with copies of the writing end of a pipe; the reading end tells when all of them are closed.
fn send_pipes(link: &OwnedFd, bytes: &[u8], count: usize) -> PipeReader {
    let (reader, writer) = std::io::pipe().unwrap();
    let fds = vec![writer.as_fd(); count];
    let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(count))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    sendmsg(link, &[std::io::IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).unwrap();
    reader
}

fn all_closed(mut pipe: PipeReader) -> bool {
    pipe.read(&mut [0]).unwrap() == 0
}

#[test]
fn without_a_predecessor_there_is_nothing_to_take() {
    let place = Place::new();
    assert!(take(&place.path(), WAIT).unwrap().is_none(), "no file");
    let socket = packet_socket();
    bind(&socket, &SocketAddrUnix::new(place.path()).unwrap()).unwrap();
    drop(socket);
    assert!(take(&place.path(), WAIT).unwrap().is_none(), "a file that a dead proxy left");
}

#[test]
fn connections_that_wait_in_the_accept_queues_survive() {
    let place = Place::new();
    let (address, sockets) = listeners(3);
    let (admin, admin_sockets) = listeners(1);
    let clients: Vec<_> = (0..40).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut all = named("in", sockets);
    all.extend(named("admin", admin_sockets));
    let predecessor = Predecessor::start(&place.path(), all);

    let inheritance = take(&place.path(), WAIT).unwrap().unwrap();
    let names: Vec<_> = inheritance.sockets.iter().map(|socket| (socket.name.as_str(), socket.address)).collect();
    assert_eq!(names, [("in", address), ("in", address), ("in", address), ("admin", admin)]);
    assert!(!predecessor.is_taken());
    inheritance.confirm.ready().unwrap();
    predecessor.finish(&place.path()).unwrap();

    let later = TcpStream::connect(address).unwrap();
    assert_eq!(accepted(&inheritance.sockets), 41, "each waits in a queue that is now the successor's");
    drop((clients, later));
}

#[test]
fn more_sockets_than_one_message_holds_arrive_in_order() {
    let place = Place::new();
    let (_, sockets) = listeners(150);
    let predecessor = Predecessor::start(&place.path(), named("in", sockets));
    let inheritance = take(&place.path(), WAIT).unwrap().unwrap();
    assert_eq!(inheritance.sockets.len(), 150);
    inheritance.confirm.ready().unwrap();
    predecessor.finish(&place.path()).unwrap();
}

#[test]
fn a_successor_that_dies_midway_changes_nothing() {
    let place = Place::new();
    let (address, sockets) = listeners(2);
    let predecessor = Predecessor::start(&place.path(), named("in", sockets));
    drop(take(&place.path(), WAIT).unwrap().unwrap());
    drop(stray_successor(&place.path()));
    let client = TcpStream::connect(address).unwrap();
    assert!(!predecessor.is_taken());

    let inheritance = take(&place.path(), WAIT).unwrap().unwrap();
    inheritance.confirm.ready().unwrap();
    predecessor.finish(&place.path()).unwrap();
    assert_eq!(accepted(&inheritance.sockets), 1);
    drop(client);
}

#[test]
fn a_conversation_that_has_begun_is_finished_by_a_predecessor_that_ends() {
    let place = Place::new();
    let path = place.path();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let (tell, taken) = mpsc::channel();
    let predecessor = {
        let path = path.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let enough = async { drop(ended.await) };
            runtime.block_on(serve(&path, Vec::new, || tell.send(()).unwrap(), enough))
        })
    };
    let started = Instant::now();
    while !path.exists() {
        assert!(started.elapsed() < WAIT, "the predecessor does not listen");
        thread::sleep(Duration::from_millis(1));
    }
    let inheritance = take(&path, WAIT).unwrap().unwrap();
    drop(end);
    thread::sleep(Duration::from_millis(50));
    inheritance.confirm.ready().unwrap();
    taken.recv_timeout(WAIT).unwrap();
    fs::remove_file(&path).unwrap();
    predecessor.join().unwrap().unwrap();
}

#[test]
fn a_predecessor_that_ends_waits_for_no_successor() {
    let place = Place::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(serve(&place.path(), Vec::new, || panic!("nobody came"), async {})).unwrap();
}

#[test]
fn twenty_replacements_in_a_row_lose_no_connection() {
    let place = Place::new();
    let (address, sockets) = listeners(2);
    let mut predecessor = Predecessor::start(&place.path(), named("in", sockets));
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(TcpStream::connect(address).unwrap());
        let Inheritance { sockets, confirm } = take(&place.path(), WAIT).unwrap().unwrap();
        confirm.ready().unwrap();
        predecessor.taken.recv_timeout(WAIT).unwrap();
        let next = sockets.into_iter().map(|socket| ("in", socket.listener)).collect();
        predecessor = Predecessor::start(&place.path(), next);
    }
    let inheritance = take(&place.path(), WAIT).unwrap().unwrap();
    inheritance.confirm.ready().unwrap();
    predecessor.finish(&place.path()).unwrap();
    assert_eq!(accepted(&inheritance.sockets), 20);
}

#[test]
fn who_comes_between_two_proxies_finds_the_second() {
    let place = Place::new();
    let (address, sockets) = listeners(1);
    let first = Predecessor::start(&place.path(), named("in", sockets));
    let inheritance = take(&place.path(), WAIT).unwrap().unwrap();
    inheritance.confirm.ready().unwrap();
    first.taken.recv_timeout(WAIT).unwrap();

    let path = place.path();
    let third = thread::spawn(move || take(&path, WAIT));
    thread::sleep(Duration::from_millis(50)); // it waits in the first one's queue, nobody listens after it yet
    let next = inheritance.sockets.into_iter().map(|socket| ("in", socket.listener)).collect();
    let second = Predecessor::start(&place.path(), next);
    let inheritance = third.join().unwrap().unwrap().expect("not taken for a first start");
    assert_eq!(inheritance.sockets[0].address, address);
    inheritance.confirm.ready().unwrap();
    second.finish(&place.path()).unwrap();
    first.thread.join().unwrap().unwrap();
}

#[test]
fn a_successor_of_another_version_is_told_so() {
    let place = Place::new();
    let (_, sockets) = listeners(1);
    let predecessor = Predecessor::start(&place.path(), named("in", sockets));
    let link = stray_successor(&place.path());
    let mut hello = Message::Hello.encode();
    let at = hello.len() - 2;
    hello[at] = 7;
    send(&link, &hello, SendFlags::NOSIGNAL).unwrap();
    assert_eq!(receive(&link).unwrap().open("answer").unwrap().0, Message::Refuse);
    assert!(!predecessor.is_taken());
}

#[test]
fn a_predecessor_of_another_version_is_named() {
    let error = stray_predecessor(|link| {
        let mut refuse = Message::Refuse.encode();
        let at = refuse.len() - 2;
        refuse[at] = 7;
        send(&link, &refuse, SendFlags::NOSIGNAL).unwrap();
    });
    assert!(matches!(error, HandoverError::Version { theirs: 7 }), "{error}");
}

#[test]
fn garbage_from_a_successor_changes_nothing() {
    let place = Place::new();
    let (address, sockets) = listeners(1);
    let predecessor = Predecessor::start(&place.path(), named("in", sockets));
    let hello = Message::Hello.encode();
    for bytes in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), &hello[..5], &[0; 60_000], &Message::Ready.encode()] {
        let link = stray_successor(&place.path());
        send(&link, bytes, SendFlags::NOSIGNAL).unwrap();
        let closed = receive(&link).map(|packet| packet.open("answer").is_err());
        assert!(closed.unwrap_or(true), "no socket for such a successor");
    }
    let link = stray_successor(&place.path());
    assert!(all_closed(send_pipes(&link, &hello, 3)), "descriptors that nobody asked for are closed");

    assert!(!predecessor.is_taken());
    let inheritance = take(&place.path(), WAIT).unwrap().unwrap();
    assert_eq!(inheritance.sockets[0].address, address);
}

#[test]
fn garbage_from_a_predecessor_is_an_error() {
    for bytes in [b"hello".to_vec(), vec![0xff; 60_000], Message::Ready.encode()] {
        let error = stray_predecessor(move |link| {
            send(&link, &bytes, SendFlags::NOSIGNAL).unwrap();
        });
        assert!(matches!(error, HandoverError::Malformed(_)), "{error}");
    }
}

fn entries(count: usize) -> Vec<u8> {
    let entry = |_| Entry { name: "in".into(), address: ([127, 0, 0, 1], 80).into() };
    Message::Sockets { entries: (0..count).map(entry).collect(), last: true }.encode()
}

#[test]
fn descriptors_that_do_not_fit_the_message_are_closed() {
    // More than one message may carry, more and fewer than it names, and what is no listener.
    for (named, sent) in [(64, 100), (64, 65), (1, 2), (3, 2), (1, 1)] {
        let (tell, pipe) = mpsc::channel();
        let error = stray_predecessor(move |link| tell.send(send_pipes(&link, &entries(named), sent)).unwrap());
        assert!(matches!(error, HandoverError::Malformed(_)), "{named} named, {sent} sent: {error}");
        assert!(all_closed(pipe.recv().unwrap()), "{named} named, {sent} sent");
    }
}

#[test]
fn a_socket_bound_elsewhere_than_it_says_is_refused() {
    let error = stray_predecessor(|link| {
        let (_, sockets) = listeners(1);
        let entry = Entry { name: "in".into(), address: ([127, 0, 0, 1], 1).into() };
        super::wire::send(&link, &Message::Sockets { entries: vec![entry], last: true }, &[sockets[0].as_fd()])
            .unwrap();
    });
    assert!(matches!(error, HandoverError::Malformed(_)), "{error}");
}

#[test]
fn a_silent_predecessor_is_not_waited_for_longer_than_asked() {
    let started = Instant::now();
    let error = stray_predecessor(|link| {
        thread::sleep(Duration::from_millis(700));
        drop(link);
    });
    assert!(matches!(error, HandoverError::TimedOut(_)), "{error}");
    assert!(started.elapsed() < WAIT);
}

#[test]
fn readiness_that_the_predecessor_no_longer_hears_is_an_error() {
    let place = Place::new();
    let socket = packet_socket();
    bind(&socket, &SocketAddrUnix::new(place.path()).unwrap()).unwrap();
    listen(&socket, 1).unwrap();
    let thread = thread::spawn(move || {
        let link = accept_with(&socket, SocketFlags::CLOEXEC).unwrap();
        receive(&link).unwrap();
        super::wire::send(&link, &Message::Sockets { entries: vec![], last: true }, &[]).unwrap();
    });
    let inheritance = take(&place.path(), WAIT).unwrap().unwrap();
    thread.join().unwrap();
    assert!(matches!(inheritance.confirm.ready(), Err(HandoverError::Closed(_))));
}

#[test]
fn what_is_no_socket_is_not_replaced() {
    let place = Place::new();
    fs::write(place.path(), "someone's file").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(serve(&place.path(), Vec::new, || {}, pending())).unwrap_err();
    assert!(matches!(error, HandoverError::Occupied(_)), "{error}");
    assert_eq!(fs::read_to_string(place.path()).unwrap(), "someone's file");
}
