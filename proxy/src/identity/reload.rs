//! Follows certificate files and puts what is new into use, without a restart and without losing a handshake.
//!
//! The contents are compared every few seconds: Kubernetes replaces a mounted secret by turning a symlink, which shows
//! neither in the link's time nor surely in length or inode. A pair that cannot be used (broken, missing, or half
//! written: new certificate, old key) leaves its predecessor in use; the other pairs of the listener are not held up.
//!
//! `app` starts one [`watch`] per listener on the background runtime; dropping it stops it.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certs::{CertificateError, CertificateSet, Fingerprint, Pair};
use super::tls::provider;

/// The certificates in use, exchanged as a whole. The lock is held for the clone of an `Arc`, once per handshake.
#[derive(Debug)]
pub struct LiveCertificates(RwLock<Arc<CertificateSet>>);

#[derive(Debug)]
pub enum ReloadEvent {
    Replaced {
        cert: PathBuf,
        not_after: Option<SystemTime>,
    },
    /// Said once for each contents; the old pair stays in use.
    Refused(CertificateError),
}

impl LiveCertificates {
    pub fn new(set: CertificateSet) -> Arc<LiveCertificates> {
        Arc::new(LiveCertificates(RwLock::new(Arc::new(set))))
    }

    pub fn active(&self) -> Arc<CertificateSet> {
        // A poisoned lock still holds a whole set: it is only ever replaced.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, set: CertificateSet) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(set);
    }
}

impl ResolvesServerCert for LiveCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.active().resolve(hello)
    }
}

/// Runs until dropped. Files are read and parsed on a blocking thread.
pub async fn watch(live: Arc<LiveCertificates>, interval: Duration, on_event: impl Fn(ReloadEvent)) {
    let mut watcher = Watcher::new(live);
    loop {
        tokio::time::sleep(interval).await;
        let looked = tokio::task::spawn_blocking(move || {
            let events = watcher.look();
            (watcher, events)
        });
        // It fails only while the runtime shuts down.
        let Ok((returned, events)) = looked.await else { return };
        watcher = returned;
        events.into_iter().for_each(&on_event);
    }
}

/// The state of [`watch`] between two looks.
struct Watcher {
    live: Arc<LiveCertificates>,
    /// For each pair what was refused last.
    refused: Vec<Option<Refused>>,
}

struct Refused {
    /// `None`: it could not be read.
    contents: Option<Fingerprint>,
    said: bool,
}

impl Watcher {
    fn new(live: Arc<LiveCertificates>) -> Watcher {
        let refused = live.active().pairs.iter().map(|_| None).collect();
        Watcher { live, refused }
    }

    fn look(&mut self) -> Vec<ReloadEvent> {
        let (active, mut events) = (self.live.active(), Vec::new());
        let mut pairs = active.pairs.clone();
        for (pair, refused) in pairs.iter_mut().zip(&mut self.refused) {
            match newer(pair, refused) {
                Ok(None) => {}
                Ok(Some(new)) => {
                    events.push(ReloadEvent::Replaced { cert: new.files.cert.clone(), not_after: new.not_after });
                    *pair = Arc::new(new);
                }
                Err(error) => events.push(ReloadEvent::Refused(error)),
            }
        }
        if events.iter().any(|event| matches!(event, ReloadEvent::Replaced { .. })) {
            self.live.replace(CertificateSet::new(pairs));
        }
        events
    }
}

/// The pair as it stands in the files, if that is new and good; an error the first time that it is not.
fn newer(pair: &Pair, refused: &mut Option<Refused>) -> Result<Option<Pair>, CertificateError> {
    let (contents, parsed) = match pair.files.read() {
        Err(error) => (None, Err(error)),
        Ok(bytes) => {
            let contents = Fingerprint::of(&bytes);
            if contents == pair.fingerprint {
                *refused = None;
                return Ok(None);
            }
            if refused.as_ref().is_some_and(|refused| refused.said && refused.contents == Some(contents)) {
                return Ok(None);
            }
            (Some(contents), Pair::parse(pair.files.clone(), &bytes, &provider()))
        }
    };
    match parsed {
        Ok(new) => {
            *refused = None;
            Ok(Some(new))
        }
        Err(error) => {
            let before = refused.as_ref().filter(|refused| refused.contents == contents);
            // Who writes two files one after the other is between them for a moment; that is not worth a word yet.
            let half_written = matches!(error, CertificateError::KeyMismatch { .. }) && before.is_none();
            let said_before = before.is_some_and(|refused| refused.said);
            *refused = Some(Refused { contents, said: !half_written });
            if half_written || said_before { Ok(None) } else { Err(error) }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::fixture::{Authority, Folder, shown_names};
    use super::*;

    fn live(files: &[(PathBuf, PathBuf)]) -> (Arc<LiveCertificates>, Watcher) {
        let live = LiveCertificates::new(CertificateSet::load(files).unwrap());
        (live.clone(), Watcher::new(live))
    }

    fn words(events: &[ReloadEvent]) -> Vec<String> {
        let word = |event: &ReloadEvent| match event {
            ReloadEvent::Replaced { .. } => "replaced".to_owned(),
            ReloadEvent::Refused(error) => error.to_string(),
        };
        events.iter().map(word).collect()
    }

    #[test]
    fn a_new_pair_is_shown_from_the_next_handshake_on() {
        let (authority, folder) = (Authority::new(), Folder::new());
        let files = folder.pair("tls", &authority.leaf(&["old.example"]));
        let (live, mut watcher) = live(std::slice::from_ref(&files));
        assert!(watcher.look().is_empty(), "nothing has changed");
        assert_eq!(shown_names(live.clone(), None), ["old.example"]);
        folder.pair("tls", &authority.leaf_until(&["new.example"], 2050));
        let events = watcher.look();
        assert!(
            matches!(&events[..], [ReloadEvent::Replaced { cert, not_after: Some(_) }] if *cert == files.0),
            "{events:?}"
        );
        assert_eq!(shown_names(live.clone(), None), ["new.example"]);
        assert!(watcher.look().is_empty());
    }

    #[test]
    fn a_turned_symlink_is_seen() {
        let (authority, folder) = (Authority::new(), Folder::new());
        let data = folder.path("..data");
        for name in ["one", "two"] {
            fs::create_dir(folder.path(name)).unwrap();
            folder.pair(&format!("{name}/tls"), &authority.leaf(&[&format!("{name}.example")]));
        }
        symlink("one", &data).unwrap();
        let (live, mut watcher) = live(&[(data.join("tls.crt"), data.join("tls.key"))]);
        assert_eq!(shown_names(live.clone(), None), ["one.example"]);
        symlink("two", folder.path("..next")).unwrap();
        fs::rename(folder.path("..next"), &data).unwrap();
        assert_eq!(words(&watcher.look()), ["replaced"]);
        assert_eq!(shown_names(live, None), ["two.example"]);
    }

    #[test]
    fn a_broken_pair_leaves_the_old_one_in_use_and_is_named_once() {
        let (authority, folder) = (Authority::new(), Folder::new());
        let files = folder.pair("tls", &authority.leaf(&["old.example"]));
        let good = fs::read(&files.0).unwrap();
        let (live, mut watcher) = live(std::slice::from_ref(&files));
        for (broken, expected) in [("", "holds no certificate"), ("-----BEGIN CERTIFICATE-----\n", "broken PEM")] {
            fs::write(&files.0, broken).unwrap();
            let said = words(&watcher.look());
            assert!(said.len() == 1 && said[0].contains(expected), "{said:?}");
            assert!(watcher.look().is_empty() && watcher.look().is_empty(), "said once");
            assert_eq!(shown_names(live.clone(), None), ["old.example"]);
        }
        fs::remove_file(&files.0).unwrap();
        assert!(words(&watcher.look())[0].contains("cannot be read"));
        assert!(watcher.look().is_empty());
        fs::write(&files.0, good).unwrap();
        assert!(watcher.look().is_empty(), "the old contents are back: nothing to do");
        fs::write(&files.0, "").unwrap();
        assert_eq!(watcher.look().len(), 1, "and a new break is said again");
        folder.pair("tls", &authority.leaf(&["new.example"]));
        assert_eq!(words(&watcher.look()), ["replaced"]);
        assert_eq!(shown_names(live, None), ["new.example"]);
    }

    #[test]
    fn a_half_written_pair_waits_for_its_other_half() {
        let (authority, folder) = (Authority::new(), Folder::new());
        let files = folder.pair("tls", &authority.leaf(&["old.example"]));
        let (live, mut watcher) = live(std::slice::from_ref(&files));
        let new = authority.leaf(&["new.example"]);
        fs::write(&files.0, &new.cert).unwrap();
        assert!(watcher.look().is_empty(), "the key may be on its way");
        assert_eq!(shown_names(live.clone(), None), ["old.example"]);
        assert!(words(&watcher.look())[0].contains("does not belong"), "it has not come");
        assert!(watcher.look().is_empty());
        assert_eq!(shown_names(live.clone(), None), ["old.example"]);
        fs::write(&files.1, &new.key).unwrap();
        assert_eq!(words(&watcher.look()), ["replaced"]);
        assert_eq!(shown_names(live, None), ["new.example"]);
    }

    #[test]
    fn one_broken_pair_does_not_hold_up_another() {
        let (authority, folder) = (Authority::new(), Folder::new());
        let a = folder.pair("a", &authority.leaf(&["a.example"]));
        let b = folder.pair("b", &authority.leaf(&["b.example"]));
        let (live, mut watcher) = live(&[a.clone(), b]);
        fs::write(&a.0, "").unwrap();
        folder.pair("b", &authority.leaf(&["c.example"]));
        let said = words(&watcher.look());
        assert!(said[0].contains("holds no certificate") && said[1] == "replaced", "{said:?}");
        assert_eq!(shown_names(live.clone(), Some("a.example")), ["a.example"]);
        assert_eq!(shown_names(live, Some("c.example")), ["c.example"]);
    }

    #[test]
    fn watching_takes_what_is_new_and_stops_when_dropped() {
        let (authority, folder) = (Authority::new(), Folder::new());
        let (live, _) = live(&[folder.pair("tls", &authority.leaf(&["old.example"]))]);
        folder.pair("tls", &authority.leaf(&["new.example"]));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
            let watch = watch(live.clone(), Duration::from_millis(1), move |event| drop(sender.send(event)));
            tokio::select! {
                () = watch => panic!("it ended by itself"),
                event = receiver.recv() => assert!(matches!(event, Some(ReloadEvent::Replaced { .. }))),
            }
            assert!(receiver.recv().await.is_none());
        });
        assert_eq!(shown_names(live, None), ["new.example"]);
    }
}
