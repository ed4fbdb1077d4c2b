//! A slow client's network: what a client sends arrives in small pieces, each in a segment of its own.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub struct Dribble {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Dribble {
    /// Takes connections to `target` and passes the client's first `slow` bytes on in pieces of `piece` bytes, with a
    /// pause after each; the rest, and the answers, as they come.
    pub async fn to(target: SocketAddr, piece: usize, slow: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let task = tokio::task::spawn_local(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                tokio::task::spawn_local(carry(client, target, piece, slow));
            }
        });
        Self { address, task }
    }
}

impl Drop for Dribble {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(mut client: TcpStream, target: SocketAddr, piece: usize, slow: usize) {
    let mut server = TcpStream::connect(target).await.expect("connect");
    server.set_nodelay(true).expect("nodelay");
    let mut left = slow;
    let mut buffer = vec![0; 64 * 1024];
    while left > 0 {
        tokio::select! {
            read = client.read(&mut buffer) => {
                let Ok(count @ 1..) = read else { break };
                for bytes in buffer[..count].chunks(piece) {
                    if server.write_all(bytes).await.is_err() {
                        return;
                    }
                    left = left.saturating_sub(bytes.len());
                    tokio::time::sleep(Duration::from_micros(200)).await;
                }
            }
            read = server.readable() => {
                read.expect("readable");
                match server.try_read(&mut buffer) {
                    Ok(0) => return,
                    Ok(count) => client.write_all(&buffer[..count]).await.expect("write"),
                    Err(_) => {}
                }
            }
        }
    }
    // How either side ends it is theirs to know.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}
