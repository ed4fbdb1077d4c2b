//! Ties a process of the demo to the demo itself: the other end of its standard input is held there. When the demo ends,
//! however it ends, the kernel closes it, and this process goes. The one that hears it first clears the folder away.

use std::io::BufRead;
use std::path::PathBuf;
use std::process::exit;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use super::folder;

/// Watches in a thread of its own. What the demo says in lines is handed out.
pub fn hold(folder: Option<PathBuf>) -> Receiver<String> {
    let (tell, told) = sync_channel(LINES);
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            // Nobody listens in a proxy.
            let _ = tell.try_send(line);
        }
        if let Some(folder) = folder {
            folder::remove(&folder);
        }
        exit(0);
    });
    told
}

/// The demo says one thing to each of its processes.
const LINES: usize = 4;
