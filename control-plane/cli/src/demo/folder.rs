//! The folder of the demo's files, which goes with it.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

pub struct Folder(PathBuf);

impl Folder {
    /// Makes one with a name of its own, which nobody else may look into.
    pub fn new(within: Option<&Path>) -> Result<Self, Failure> {
        let within = within.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let mut refused = None;
        for _ in 0..TRIES {
            let path = within.join(format!("{NAME}{:08x}", rand::random::<u32>()));
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) => refused = Some(error),
            }
        }
        let why = refused.map(|error| error.to_string()).unwrap_or_default();
        Err(Failure::failed(format!(
            "cannot make a folder in {}: {why}; `--folder DIR` or TMPDIR names another place for the demo's files",
            within.display()
        )))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file, in a folder of this one.
    pub fn write(&self, within: &str, name: &str, text: &str) -> Result<PathBuf, Failure> {
        let within = self.0.join(within);
        let path = within.join(name);
        match std::fs::create_dir_all(&within).and_then(|()| std::fs::write(&path, text)) {
            Ok(()) => Ok(path),
            Err(error) => Err(Failure::failed(format!(
                "cannot write {}: {error}; `--folder DIR` or TMPDIR names another place for the demo's files",
                path.display()
            ))),
        }
    }

    pub fn remove(self) {}
}

impl Drop for Folder {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Removes a folder of ours, and no other.
pub fn remove(path: &Path) {
    let ours = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(NAME));
    // All processes of a demo that was killed do this at once, and one may find gone what it has just seen.
    let gone = || std::fs::remove_dir_all(path).is_ok() || !path.exists();
    let _ = ours && (0..TRIES).any(|_| gone());
}

const NAME: &str = "spanmesh-demo-";
const TRIES: usize = 8;
