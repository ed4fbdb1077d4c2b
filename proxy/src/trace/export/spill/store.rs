//! The segments of one destination in a folder that this process alone has. Records are appended to the newest segment and
//! synced one by one; the oldest is given out, and its state overwritten when nobody needs it any more; a segment without
//! waiting records is deleted. Blocks: only the thread of the disk calls it.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};

use super::record::{self, Found};
use crate::trace::export::parcel::{Envelope, Parcel};

pub struct Store {
    dir: PathBuf,
    limit: u64,
    /// From the oldest to the newest.
    segments: VecDeque<Segment>,
    /// The newest segment takes more.
    open: bool,
    next: u64,
    bytes: u64,
    held: Option<Place>,
    lock: File,
}

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    segment: u64,
    at: usize,
}

/// A record that was given out.
pub struct Given {
    pub place: Place,
    pub spans: usize,
    /// `None` if it cannot be read any more.
    pub parcel: Option<(Parcel, Arc<Envelope>)>,
}

/// What lay in the folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Spans that wait.
    pub spans: usize,
    /// Spans that cannot be read, as far as their number is known.
    pub lost: usize,
    /// Something cannot be read.
    pub damaged: bool,
}

struct Segment {
    number: u64,
    path: PathBuf,
    /// Only those that are read or written are open: the oldest and the newest.
    file: Option<File>,
    envelope: Arc<Envelope>,
    /// Those that wait, the one that was given out included.
    records: VecDeque<Found>,
    /// Of all that were ever in it.
    spans: u32,
    bytes: u64,
}

impl Store {
    /// Fails if another process has the folder.
    pub fn open(dir: &Path, limit: u64) -> io::Result<(Self, Left)> {
        // Paths of requests are nobody else's business.
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let lock = writable().create(true).open(dir.join(LOCK))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| io::Error::new(io::ErrorKind::ResourceBusy, "another process has it"))?;
        let mut store = Self {
            dir: dir.to_owned(),
            limit,
            segments: VecDeque::new(),
            open: false,
            next: 0,
            bytes: 0,
            held: None,
            lock,
        };
        let left = store.recover()?;
        // No place of a store that was here before means anything in this one.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        store.next = store.next.max(u64::try_from(now.as_nanos()).unwrap_or_default());
        Ok((store, left))
    }

    /// How many records wait, without the one that was given out.
    pub fn waiting(&self) -> usize {
        let all: usize = self.segments.iter().map(|segment| segment.records.len()).sum();
        all.saturating_sub(self.held.is_some().into())
    }

    /// Spans that wait, without those that were given out.
    pub fn spans(&self) -> usize {
        let waits =
            |segment: &Segment, found: &Found| self.held != Some(Place { segment: segment.number, at: found.at });
        let of = |segment: &Segment| -> usize {
            segment.records.iter().filter(|found| waits(segment, found)).map(|found| found.spans as usize).sum()
        };
        self.segments.iter().map(of).sum()
    }

    /// Whether the folder is still the one that was opened.
    pub fn is_there(&self) -> bool {
        let there = fs::metadata(self.dir.join(LOCK));
        let ours = self.lock.metadata();
        matches!((there, ours), (Ok(there), Ok(ours)) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()))
    }

    /// Makes room for a parcel: how many spans had to go.
    pub fn make_room(&mut self, parcel: &Parcel) -> usize {
        let mut gone = 0;
        // The record's head, where each span ends, and perhaps a new segment's front.
        let needed = (parcel.size() + FRONT) as u64;
        while self.bytes + needed > self.limit
            && let Some(oldest) = self.segments.front()
        {
            let held = self.held.filter(|held| held.segment == oldest.number);
            let waits = |found: &&Found| held.is_none_or(|held| held.at != found.at);
            gone += oldest.records.iter().filter(waits).map(|found| found.spans as usize).sum::<usize>();
            // What was given out is no longer the disk's to count.
            if held.is_some() {
                self.held = None;
            }
            self.remove(0);
        }
        gone
    }

    /// On an error nothing of it stays.
    pub fn append(&mut self, parcel: &Parcel, envelope: &Arc<Envelope>) -> io::Result<()> {
        if (parcel.size() + FRONT) as u64 > self.limit {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "a request is larger than the whole spill"));
        }
        let segment_limit = (self.limit / SEGMENTS).clamp(SMALLEST, LARGEST);
        let fits = |segment: &Segment| segment.bytes < segment_limit && segment.envelope == *envelope;
        if !(self.open && self.segments.back().is_some_and(fits)) {
            self.open = false;
            self.begin(envelope)?;
        }
        let Some(segment) = self.segments.back_mut() else { return Err(io::ErrorKind::NotFound.into()) };
        let record = record::record(parcel, segment.spans);
        let bytes = segment.bytes;
        let written = segment.file().and_then(|file| file.write_all_at(&record, bytes).and_then(|()| file.sync_data()));
        if let Err(error) = written {
            // If this fails too, the rest lies behind what is known, and a reader finds it broken.
            self.open = segment.file().and_then(|file| file.set_len(bytes)).is_ok();
            self.clear(self.segments.len().saturating_sub(1));
            return Err(error);
        }
        let spans = u32::try_from(parcel.len()).unwrap_or(u32::MAX);
        let at = usize::try_from(segment.bytes).unwrap_or(usize::MAX);
        segment.records.push_back(Found { at, length: record.len(), spans, waits: true });
        segment.spans = segment.spans.saturating_add(spans);
        segment.bytes += record.len() as u64;
        self.bytes += record.len() as u64;
        Ok(())
    }

    /// The oldest. It stays until it is settled; there is one at a time.
    pub fn give(&mut self) -> Option<Given> {
        if self.held.is_some() {
            return None;
        }
        let segment = self.segments.iter_mut().find(|segment| !segment.records.is_empty())?;
        let found = segment.records.front()?.clone();
        let place = Place { segment: segment.number, at: found.at };
        let mut bytes = vec![0; found.length];
        // The padding of the last record may be missing.
        let read = segment.file().and_then(|file| read_at(file, &mut bytes, found.at as u64));
        let parcel = read.ok().and_then(|()| record::read_record(&bytes));
        let parcel = parcel.map(|parcel| (parcel, segment.envelope.clone()));
        self.held = Some(place);
        Some(Given { place, spans: found.spans as usize, parcel })
    }

    /// Back to where it was. False if its room was needed in between.
    pub fn take_back(&mut self, place: Place) -> bool {
        if self.held == Some(place) {
            self.held = None;
            return true;
        }
        false
    }

    /// Nobody needs it any more. An error means that the next process will send it again.
    pub fn settle(&mut self, place: Place) -> io::Result<()> {
        if self.held == Some(place) {
            self.held = None;
        }
        let Some(index) = self.segments.iter().position(|segment| segment.number == place.segment) else {
            return Ok(());
        };
        let Some(segment) = self.segments.get_mut(index) else { return Ok(()) };
        segment.records.retain(|found| found.at != place.at);
        let state = place.at.saturating_add(record::STATE) as u64;
        let written = segment.file().and_then(|file| file.write_all_at(&[record::SETTLED], state));
        self.clear(index);
        written
    }

    /// Deletes a segment in which nothing waits.
    fn clear(&mut self, index: usize) {
        if self.segments.get(index).is_some_and(|segment| segment.records.is_empty()) {
            self.remove(index);
        }
    }

    fn remove(&mut self, index: usize) {
        if index + 1 == self.segments.len() {
            self.open = false;
        }
        if let Some(segment) = self.segments.remove(index) {
            self.bytes = self.bytes.saturating_sub(segment.bytes);
            let _ = fs::remove_file(&segment.path);
        }
    }

    fn begin(&mut self, envelope: &Arc<Envelope>) -> io::Result<()> {
        let number = self.next;
        let path = self.dir.join(format!("{number:016x}.{SUFFIX}"));
        let file = writable().create_new(true).open(&path)?;
        self.next += 1;
        let front = record::front(envelope);
        if let Err(error) = file.write_all_at(&front, 0).and_then(|()| File::open(&self.dir)?.sync_all()) {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        let bytes = front.len() as u64;
        let records = VecDeque::new();
        let (file, envelope) = (Some(file), envelope.clone());
        self.segments.push_back(Segment { number, path, file, envelope, records, spans: 0, bytes });
        self.bytes += bytes;
        self.open = true;
        Ok(())
    }

    fn recover(&mut self) -> io::Result<Left> {
        let mut names: Vec<(u64, bool, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let suffix = path.extension().and_then(|suffix| suffix.to_str());
            let is_counted = suffix == Some(COUNTED);
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let number = stem.and_then(|stem| u64::from_str_radix(stem, 16).ok());
            if let Some(number) = number.filter(|_| is_counted || suffix == Some(SUFFIX)) {
                names.push((number, is_counted, path));
            }
        }
        names.sort();
        let mut left = Left::default();
        for (number, is_counted, path) in names {
            self.next = self.next.max(number.saturating_add(1));
            self.read_back(number, is_counted, path, &mut left)?;
        }
        Ok(left)
    }

    fn read_back(&mut self, number: u64, is_counted: bool, path: PathBuf, left: &mut Left) -> io::Result<()> {
        let mut bytes = Vec::new();
        File::open(&path)?.take(READ).read_to_end(&mut bytes)?;
        let front = record::read_front(&bytes);
        let scan = record::scan(&bytes, front.as_ref().map_or(0, |(_, length)| *length));
        let records: VecDeque<_> = scan.found.into_iter().filter(|found| found.waits).collect();
        let spans: usize = records.iter().map(|found| found.spans as usize).sum();
        // What is lost in a file is counted once; a file that another process could not delete is not opened a third time.
        if !is_counted {
            left.lost += usize::try_from(scan.lost).unwrap_or(usize::MAX);
            left.damaged |= scan.damaged;
        }
        let Some((envelope, _)) = front else {
            left.lost += spans;
            left.damaged = true;
            return fs::remove_file(&path);
        };
        if records.is_empty() {
            return fs::remove_file(&path);
        }
        let mut path = path;
        if scan.damaged && !is_counted {
            let counted = path.with_extension(COUNTED);
            fs::rename(&path, &counted)?;
            path = counted;
        }
        left.spans += spans;
        let size = bytes.len() as u64;
        self.bytes += size;
        let envelope = Arc::new(envelope);
        self.segments.push_back(Segment { number, path, file: None, envelope, records, spans: 0, bytes: size });
        Ok(())
    }
}

impl Segment {
    fn file(&mut self) -> io::Result<&File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => writable().open(&self.path)?,
        };
        Ok(self.file.insert(file))
    }
}

fn writable() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// As much as there is.
fn read_at(file: &File, mut bytes: &mut [u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.read_at(bytes, at)? {
            0 => break,
            read => {
                at += read as u64;
                bytes = bytes.get_mut(read..).unwrap_or_default();
            }
        }
    }
    Ok(())
}

const LOCK: &str = "lock";
/// A segment with losses that were counted is called otherwise.
const SUFFIX: &str = "spans";
const COUNTED: &str = "counted";
/// A spill is at least so many segments, of which the oldest goes when there is no room.
const SEGMENTS: u64 = 16;
const SMALLEST: u64 = 4 * 1024;
const LARGEST: u64 = 8 * 1024 * 1024;
/// Of a segment: it grows beyond its limit by one record.
const READ: u64 = LARGEST + 128 * 1024 * 1024;
/// More than a record and a segment have around their spans; the resource is a few hundred bytes.
const FRONT: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::test_dir::TestDir;
    use crate::trace::export::json::Resource;
    use crate::trace::export::parcel::Format;

    fn envelope() -> Arc<Envelope> {
        Arc::new(Envelope::new(Format::Protobuf, &Resource::default()))
    }

    fn parcel(byte: u8, spans: usize) -> Parcel {
        let mut parcel = Parcel::default();
        (0..spans).for_each(|_| parcel.push(&[byte; 100]));
        parcel
    }

    fn put(store: &mut Store, byte: u8) -> usize {
        let gone = store.make_room(&parcel(byte, 10));
        store.append(&parcel(byte, 10), &envelope()).unwrap();
        gone
    }

    fn next(store: &mut Store) -> (u8, Place) {
        let given = store.give().expect("one waits");
        let (parcel, _) = given.parcel.expect("whole");
        (parcel.parts().0[0], given.place)
    }

    fn files(dir: &TestDir) -> usize {
        fs::read_dir(dir.path()).unwrap().count() - 1
    }

    #[test]
    fn the_oldest_come_first_and_what_is_settled_is_gone_for_good() {
        let dir = TestDir::new("spill-order");
        let (mut store, left) = Store::open(dir.path(), 1 << 20).unwrap();
        assert_eq!(left, Left::default());
        (0..30).for_each(|byte| assert_eq!(put(&mut store, byte), 0));
        for byte in 0..10 {
            let (first, place) = next(&mut store);
            assert_eq!(first, byte);
            store.settle(place).unwrap();
        }
        let (_, place) = next(&mut store);
        assert!(store.give().is_none() && store.waiting() == 19 && store.take_back(place));
        drop(store);
        let (mut store, left) = Store::open(dir.path(), 1 << 20).unwrap();
        assert_eq!(left, Left { spans: 200, lost: 0, damaged: false });
        put(&mut store, 30);
        for byte in 10..31 {
            let (first, place) = next(&mut store);
            assert_eq!(first, byte);
            store.settle(place).unwrap();
        }
        assert!(store.give().is_none() && store.bytes == 0);
        assert_eq!(files(&dir), 0);
    }

    #[test]
    fn the_oldest_go_when_there_is_no_room_but_not_twice() {
        let dir = TestDir::new("spill-room");
        let (mut store, _) = Store::open(dir.path(), 64 * 1024).unwrap();
        let (mut gone, mut held) = (0, None);
        for byte in 0..200 {
            gone += put(&mut store, byte);
            if byte == 0 {
                held = Some(next(&mut store).1);
            }
            assert!(store.bytes <= 64 * 1024, "{}", store.bytes);
        }
        assert!(!store.take_back(held.unwrap()), "its room was needed");
        store.settle(held.unwrap()).unwrap();
        // Ten spans were given out, and whoever has them counts them.
        assert_eq!(gone + 10 * store.waiting() + 10, 2000);
        let size: u64 = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        assert_eq!(size, store.bytes);
    }

    #[test]
    fn a_folder_has_one_owner() {
        let dir = TestDir::new("spill-owner");
        let (store, _) = Store::open(dir.path(), 1 << 20).unwrap();
        assert!(Store::open(dir.path(), 1 << 20).is_err());
        drop(store);
        assert!(Store::open(dir.path(), 1 << 20).is_ok());
    }

    #[test]
    fn an_end_at_any_byte_costs_one_record_and_is_counted_once() {
        let dir = TestDir::new("spill-cut");
        let (mut store, _) = Store::open(dir.path(), 1 << 20).unwrap();
        (0..3).for_each(|byte| assert_eq!(put(&mut store, byte), 0));
        let path = store.segments[0].path.clone();
        let front = store.segments[0].records[0].at;
        let length = store.segments[0].records[0].length;
        drop(store);
        let whole = fs::read(&path).unwrap();
        for cut in (0..whole.len()).step_by(7) {
            for entry in fs::read_dir(dir.path()).unwrap() {
                let _ = fs::remove_file(entry.unwrap().path());
            }
            fs::write(&path, &whole[..cut]).unwrap();
            let (mut store, left) = Store::open(dir.path(), 1 << 20).unwrap();
            let (records, into) = (cut.saturating_sub(front) / length, cut.saturating_sub(front) % length);
            if cut >= front {
                let padded = into > length - 32 && left.spans > records * 10;
                assert_eq!(left.spans, (records + usize::from(padded)) * 10, "{cut}");
                assert_eq!(left.lost, if into >= 32 && !padded { 10 } else { 0 }, "{cut}");
            }
            put(&mut store, 9);
            drop(store);
            let (_, again) = Store::open(dir.path(), 1 << 20).unwrap();
            assert_eq!(again, Left { spans: left.spans + 10, lost: 0, damaged: false }, "{cut}");
        }
    }
}
