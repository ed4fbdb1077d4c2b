//! The last good policy on disk: one file with a checksum, written whole beside the old one and put in its place. One that
//! is not whole is as good as none.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};

/// Reads what was kept. It blocks.
pub fn read(folder: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    match File::open(path(folder)) {
        Ok(file) => file.take(LARGEST).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let (head, body) = bytes.split_at_checked(HEAD).ok_or_else(torn)?;
    let (magic, sum) = head.split_at_checked(MAGIC.len()).ok_or_else(torn)?;
    if magic != MAGIC || sum != digest(&SHA256, body).as_ref() {
        return Err(torn());
    }
    Ok(Some(body.to_vec()))
}

/// Keeps it, also over a loss of power. It blocks.
pub fn write(folder: &Path, body: &[u8]) -> io::Result<()> {
    if !folder.exists() {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    }
    let beside = folder.join(BESIDE);
    let mut file = File::create(&beside)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(MAGIC)?;
    file.write_all(digest(&SHA256, body).as_ref())?;
    file.write_all(body)?;
    file.sync_all()?;
    fs::rename(&beside, path(folder))?;
    File::open(folder)?.sync_all()
}

fn path(folder: &Path) -> PathBuf {
    folder.join("policy.snapshot")
}

fn torn() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "is not whole, and counts as not there")
}

/// The last byte is the version of this file's form.
const MAGIC: &[u8] = b"spanmesh-policy\x01";
const HEAD: usize = MAGIC.len() + 32;
const BESIDE: &str = "policy.snapshot.new";
/// More was never pushed.
const LARGEST: u64 = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::test_dir::TestDir;

    #[test]
    fn what_was_kept_is_read_and_what_is_torn_is_not() {
        let dir = TestDir::new("policy-store");
        let folder = dir.join("state");
        assert_eq!(read(&folder).unwrap(), None);
        write(&folder, b"first").unwrap();
        write(&folder, b"second").unwrap();
        assert_eq!(read(&folder).unwrap().as_deref(), Some(&b"second"[..]));
        let whole = fs::read(path(&folder)).unwrap();
        for length in 0..whole.len() {
            fs::write(path(&folder), &whole[..length]).unwrap();
            assert!(read(&folder).is_err(), "cut at {length}");
        }
        for place in 0..whole.len() {
            let mut changed = whole.clone();
            changed[place] ^= 1;
            fs::write(path(&folder), changed).unwrap();
            assert!(read(&folder).is_err(), "changed at {place}");
        }
    }
}
