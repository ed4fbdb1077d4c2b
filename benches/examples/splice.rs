//! What splice is worth: one connection of opaque bytes, copied through user space and in the kernel.
//!
//!     cargo run --release -p spanmesh-benches --example splice

use std::error::Error;
use std::future::{Future, poll_fn};
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::pin::pin;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use spanmesh_proxy::net::copy::pipe::Pipes;
use spanmesh_proxy::net::copy::{CopyWatch, copy_tcp};
use spanmesh_proxy::system::budget::Budget;
use tokio::net::TcpStream;

fn main() -> Result<(), Box<dyn Error>> {
    for round in 0..3 {
        for pipe_bytes in [0, 16 * MIB] {
            let (rate, cpu) = measure(4096 * MIB, pipe_bytes)?;
            println!("round {round}, {} MiB for pipes: {rate:.0} MB/s, {cpu:.0} µs of CPU per MB", pipe_bytes / MIB);
        }
    }
    Ok(())
}

/// One sender and one reader on a thread of their own, the copy on another: its rate and its CPU time.
fn measure(length: usize, pipe_bytes: usize) -> Result<(f64, f64), Box<dyn Error>> {
    let source = TcpListener::bind("127.0.0.1:0")?;
    let sink = TcpListener::bind("127.0.0.1:0")?;
    let (from, to) = (source.local_addr()?, sink.local_addr()?);
    let sender = thread::spawn(move || -> io::Result<()> {
        let (mut stream, bytes) = (source.accept()?.0, vec![7; 256 * 1024]);
        (0..length / bytes.len()).try_for_each(|_| stream.write_all(&bytes))
    });
    let reader = thread::spawn(move || -> io::Result<()> {
        let (mut stream, mut bytes) = (sink.accept()?.0, vec![0; 256 * 1024]);
        while stream.read(&mut bytes)? > 0 {}
        Ok(())
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    let (start, before) = (Instant::now(), cpu()?);
    runtime.block_on(async move {
        let (client, upstream) = (TcpStream::connect(from).await?, TcpStream::connect(to).await?);
        let (watch, pipes) = (CopyWatch::new(IDLE), Pipes::new(Budget::new(pipe_bytes)));
        let (moved, mut copy) = (watch.moved(), pin!(copy_tcp(client, upstream, &watch, &pipes)));
        poll_fn(|cx| match copy.as_mut().poll(cx) {
            Poll::Pending if moved.up.get() < length as u64 => Poll::Pending,
            _ => Poll::Ready(()),
        })
        .await;
        io::Result::Ok(())
    })?;
    let (took, cpu) = (start.elapsed().as_secs_f64(), cpu()? - before);
    for thread in [sender, reader] {
        thread.join().map_err(|_| "an end of the connection panicked")??;
    }
    Ok((length as f64 / 1e6 / took, cpu / (length as f64 / 1e6)))
}

/// Microseconds of this thread.
fn cpu() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(stat.split(' ').next().ok_or("an empty schedstat")?.parse::<f64>()? / 1e3)
}

const MIB: usize = 1 << 20;
const IDLE: Duration = Duration::from_secs(30);
