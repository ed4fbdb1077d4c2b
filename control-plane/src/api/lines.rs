//! A watch's answer, line by line: each is one event in JSON.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use kube::client::Body;
use tokio::time::{Instant, timeout_at};

use super::Failure;

pub struct Lines {
    body: Body,
    buffer: BytesMut,
    /// Up to here there is no end of a line.
    looked: usize,
    /// The server was asked to have ended it by then.
    until: Instant,
}

impl Lines {
    pub fn new(body: Body, time: Duration) -> Self {
        Self { body, buffer: BytesMut::new(), looked: 0, until: Instant::now() + time }
    }

    /// Nothing when it has ended. What has no end of line then was cut off, and is no event. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let fresh = self.buffer.get(self.looked..).unwrap_or_default();
            if let Some(end) = fresh.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.looked + end + 1).freeze();
                self.looked = 0;
                return Ok(Some(line));
            }
            self.looked = self.buffer.len();
            if self.looked > LONGEST {
                return Err(Failure::Away(format!("an event of a watch is longer than {LONGEST} bytes")));
            }
            let Ok(frame) = timeout_at(self.until, self.body.frame()).await else {
                return Err(Failure::Away("a watch has not ended when it was to".into()));
            };
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(Failure::Away(format!("a watch broke off: {error}"))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

/// Objects have at most 1.5 MiB where they are stored, and may have twice that in JSON.
const LONGEST: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lines_come_whole_and_what_was_cut_off_does_not_come() {
        let mut lines = Lines::new(Body::from(b"{\"a\": 1}\n{}\n{\"b".to_vec()), Duration::from_secs(1));
        assert_eq!(lines.next().await.unwrap().unwrap(), "{\"a\": 1}\n");
        assert_eq!(lines.next().await.unwrap().unwrap(), "{}\n");
        assert_eq!(lines.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_event_without_end_is_an_end() {
        let mut lines = Lines::new(Body::from(vec![b' '; LONGEST + 1]), Duration::from_secs(1));
        assert!(matches!(lines.next().await, Err(Failure::Away(_))));
    }
}
