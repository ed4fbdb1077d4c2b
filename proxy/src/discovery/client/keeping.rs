//! When what was pushed is written to disk: policies at once, thresholds alone every now and then, since they are new every few
//! seconds and of use for as long. One write at a time; what comes meanwhile is written together after it.

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::super::store;

#[derive(Default)]
pub struct Keeping {
    saving: Option<JoinHandle<()>>,
    latest: Option<Instant>,
    due: Option<Instant>,
}

impl Keeping {
    /// What is held is not on disk.
    pub fn changed(&mut self, has_policy: bool, now: Instant) {
        let due = self.latest.filter(|_| !has_policy).map_or(now, |latest| latest + THRESHOLDS);
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
    }

    /// Until there is something to write. Cancel safe.
    pub async fn turn(&mut self) {
        if let Some(saving) = &mut self.saving {
            let _ = saving.await;
            self.saving = None;
        }
        match self.due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Without waiting for it.
    pub fn write(&mut self, folder: PathBuf, bytes: Vec<u8>, now: Instant) {
        (self.due, self.latest) = (None, Some(now));
        self.saving = Some(tokio::spawn(async move {
            let shown = folder.display().to_string();
            let written = tokio::task::spawn_blocking(move || store::write(&folder, &bytes)).await;
            if let Ok(Err(error)) = written {
                tracing::warn!(
                    "the policy cannot be kept in {shown}: {error}; a start without the control plane is without it"
                );
            }
        }));
    }
}

const THRESHOLDS: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_written_at_once_and_thresholds_once_a_minute() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut keeping = Keeping::default();
        keeping.changed(false, start);
        assert_eq!(keeping.due, Some(start), "nothing was written yet");
        (keeping.due, keeping.latest) = (None, Some(start));
        keeping.changed(false, after(10));
        keeping.changed(false, after(20));
        assert_eq!(keeping.due, Some(after(60)));
        keeping.changed(true, after(30));
        assert_eq!(keeping.due, Some(after(30)));
        keeping.changed(false, after(31));
        assert_eq!(keeping.due, Some(after(30)));
    }
}
