//! A queue on disk: requests that wait for their receiver and survive the process, `kill -9` and a power cut.
//!
//! A folder of segments, each a file of records (see [`Record`]), appended to in order:
//!
//! - Each [`append`](Spool::append) ends with `fdatasync`: when it returns, the record is on the disk. (A window of the agent is
//!   10 s, so this is a few syncs a minute.) A new segment's folder entry is synced before its first record,
//!   and a new folder in the one above it when the spool is opened.
//! - A delivered record is marked in place by one byte, which is not synced; a segment is removed when all its records are
//!   marked. After a power cut, records whose mark was lost are sent once more: at least once, never zero times.
//! - At the byte limit the oldest segment goes, once what is new is on the disk, and its samples are counted. For that moment
//!   the files are larger than the limit by one record.
//! - A record that is cut short at the end of a file is cut off and counted. Where a segment has bytes that nobody wrote, it is
//!   read up to them; the rest is kept aside as `*.bad` (at most 8 such files), counted, and not read again.
//! - A full disk, or one that fails, is an error of `append` that leaves everything else as it was.
//! - What else is in the folder never keeps the spool from opening: a segment that can neither be read nor set aside is passed
//!   over and counted, and a name that is not written here is left alone.
//! - A folder is locked: two processes never share one.

mod directory;
mod error;
mod record;

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::FileExt,
    path::PathBuf,
};

use directory::Directory;
pub(crate) use directory::create_folder;
pub use error::Error;
use error::{READ, failed};
pub use record::Record;
use record::{DONE, End, HEADER, Header, MAGIC, STATE};

/// Where a spool is and how large it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolOptions {
    /// Its folder, of its own; made if it does not exist.
    pub directory: PathBuf,
    /// Bytes that its segments may have together.
    pub max_bytes: u64,
}

/// What is in a spool, and what happened to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpoolStats {
    /// Bytes of its segments.
    pub bytes: u64,
    /// Records that wait.
    pub records: u64,
    /// Samples in them.
    pub samples: u64,
    /// Samples that were found when it was opened.
    pub restored_samples: u64,
    /// Files, or ends of files, that were set aside as malformed or, where even that failed, passed over.
    pub set_aside: u64,
    /// Records at the end of a file that were not there in full.
    pub torn_records: u64,
    /// Why the last record could not be written; `None` if it could.
    pub failure: Option<String>,
}

/// Names a record of an open spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordId(u64);

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: RecordId,
    segment: u64,
    offset: u64,
    header: Header,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    bytes: u64,
    /// Records that wait.
    waiting: u64,
}

/// A queue on disk; see the [module](self).
#[derive(Debug)]
pub struct Spool {
    directory: Directory,
    max_bytes: u64,
    /// Oldest first, as the entries.
    segments: VecDeque<Segment>,
    entries: VecDeque<Entry>,
    /// The segment that is appended to, the last one.
    active: Option<File>,
    /// The segment that was last read.
    reader: Option<(u64, File)>,
    /// The record that [`Self::take`] gave; its segment may be gone already.
    taken: Option<(Entry, bool)>,
    next_segment: u64,
    next_id: u64,
    stats: SpoolStats,
}

impl Spool {
    /// Opens the spool in a folder, and finds what an earlier process left there. Time grows with the number of records, not with
    /// their bytes.
    pub fn open(options: &SpoolOptions) -> Result<Self, Error> {
        let mut spool = Self {
            directory: Directory::open(&options.directory)?,
            max_bytes: options.max_bytes,
            segments: VecDeque::new(),
            entries: VecDeque::new(),
            active: None,
            reader: None,
            taken: None,
            next_segment: 0,
            next_id: 0,
            stats: SpoolStats::default(),
        };
        for number in spool.directory.segments()? {
            spool.next_segment = number.saturating_add(1);
            spool.recover(number);
        }
        spool.stats.restored_samples = spool.stats.samples;
        Ok(spool)
    }

    /// What is in it, and what happened to it.
    #[must_use]
    pub fn stats(&self) -> &SpoolStats {
        &self.stats
    }

    /// Takes over segment `number` as an earlier process left it. Nothing about one file keeps the rest from being of use: what can
    /// neither be read nor set aside stays where it is, counted, and the next segments have higher numbers.
    fn recover(&mut self, number: u64) {
        let (file, length) = match self.directory.open_segment(number) {
            Ok(opened) => opened,
            Err(error) => {
                self.stats.set_aside += 1;
                // Else it may be as good as any, and the next process can read it.
                if error.kind() == ErrorKind::InvalidData {
                    let _ = self.directory.set_aside(number);
                }
                return;
            }
        };
        let scan = record::scan(&file, length);
        // Where cutting fails, what is good is of use all the same: nothing is appended to this file.
        match scan.end {
            End::Malformed if scan.good == 0 => {
                self.stats.set_aside += 1;
                let _ = self.directory.set_aside(number);
                return;
            }
            End::Malformed => {
                self.stats.set_aside += 1;
                let _ = self.directory.set_rest_aside(number, &file, scan.good);
            }
            End::Torn => {
                self.stats.torn_records += 1;
                let _ = file.set_len(scan.good).and_then(|()| file.sync_all());
            }
            End::Clean => {}
        }
        if scan.waiting.is_empty() {
            let _ = fs::remove_file(self.directory.segment(number));
            return;
        }
        self.segments.push_back(Segment { number, bytes: scan.good, waiting: 0 });
        self.stats.bytes += scan.good;
        for (offset, header) in scan.waiting {
            self.enter(number, offset, header);
        }
    }

    /// Notes a record of segment `number`, the last one.
    fn enter(&mut self, number: u64, offset: u64, header: Header) {
        let id = RecordId(self.next_id);
        self.next_id += 1;
        self.entries.push_back(Entry { id, segment: number, offset, header });
        self.stats.records += 1;
        self.stats.samples += header.samples;
        if let Some(segment) = self.segments.back_mut() {
            segment.waiting += 1;
        }
    }

    /// Bytes at which a segment is full: a sixteenth of the spool, so that little goes at once when the oldest goes.
    fn segment_bytes(&self) -> u64 {
        (self.max_bytes / 16).clamp(64 << 10, 16 << 20)
    }

    /// Changes the limit; what is over it goes with the next record.
    pub fn set_max_bytes(&mut self, max_bytes: u64) {
        self.max_bytes = max_bytes;
    }

    /// Appends `record` and makes it durable. Returns the samples of older records that had to go to make room.
    ///
    /// # Errors
    ///
    /// The record is not in the spool; all others are.
    pub fn append(&mut self, record: &Record) -> Result<u64, Error> {
        let appended = self.try_append(record);
        self.stats.failure = appended.as_ref().err().map(ToString::to_string);
        appended
    }

    fn try_append(&mut self, record: &Record) -> Result<u64, Error> {
        let too_large = || Error::TooLarge { bytes: record.bytes.len() as u64, limit: self.max_bytes };
        let header = Header::of(record).ok_or_else(too_large)?;
        let needed = header.span() + MAGIC.len() as u64;
        if needed > self.max_bytes.min(record::MAX_SEGMENT) {
            return Err(too_large());
        }
        let is_full = |active: &Segment| {
            active.bytes >= self.segment_bytes() || active.bytes.saturating_add(header.span()) > self.max_bytes
        };
        if self.segments.back().is_some_and(is_full) {
            self.active = None;
        }
        let (number, file, offset) = self.active()?;
        let path = self.directory.segment(number);
        let mut bytes = header.write();
        bytes.extend_from_slice(&record.bytes);
        if let Err(error) = file.write_all_at(&bytes, offset).and_then(|()| file.sync_data()) {
            // What follows must not stand behind half a record. Where even this fails, the next record begins a new segment,
            // and the half is cut off when the spool is opened again.
            let _ = file.set_len(offset);
            self.active = None;
            return Err(failed("write to", path)(error));
        }
        if let Some(segment) = self.segments.back_mut() {
            segment.bytes += header.span();
        }
        self.stats.bytes += header.span();
        self.enter(number, offset, header);
        // Only now: what cannot be written must not push out what can be read. The last segment is within the limit by itself.
        let mut discarded = 0;
        while self.stats.bytes > self.max_bytes
            && self.segments.len() > 1
            && let Some(oldest) = self.segments.pop_front()
        {
            discarded += self.discard(&oldest);
        }
        Ok(discarded)
    }

    /// The segment to append to, its file and length.
    fn active(&mut self) -> Result<(u64, File, u64), Error> {
        if let Some(file) = &self.active
            && let Some(segment) = self.segments.back()
        {
            let file = file.try_clone().map_err(failed("open", self.directory.segment(segment.number)))?;
            return Ok((segment.number, file, segment.bytes));
        }
        let number = self.next_segment;
        let path = self.directory.segment(number);
        self.next_segment = number.saturating_add(1);
        let file = self.directory.create_segment(number)?;
        let header = file.write_all_at(&MAGIC, 0);
        let clone = header.and_then(|()| file.try_clone());
        let clone = clone.map_err(|error| {
            let _ = fs::remove_file(&path);
            failed("write to", &path)(error)
        })?;
        self.remove_finished();
        let bytes = MAGIC.len() as u64;
        self.segments.push_back(Segment { number, bytes, waiting: 0 });
        self.stats.bytes += bytes;
        self.active = Some(file);
        Ok((number, clone, bytes))
    }

    /// Removes the segment `oldest`, which is out of the list already; returns the samples that go with it.
    fn discard(&mut self, oldest: &Segment) -> u64 {
        self.stats.bytes = self.stats.bytes.saturating_sub(oldest.bytes);
        let mut discarded = 0;
        while let Some(entry) = self.entries.front().copied().filter(|entry| entry.segment == oldest.number) {
            self.entries.pop_front();
            match &mut self.taken {
                // Being sent; whether it is lost is not known yet.
                Some((taken, is_gone)) if taken.id == entry.id => *is_gone = true,
                _ => {
                    discarded += entry.header.samples;
                    self.forget(&entry);
                }
            }
        }
        // If it cannot be removed, the next process sends it, late but not lost.
        let _ = fs::remove_file(self.directory.segment(oldest.number));
        discarded
    }

    /// Takes `entry` out of the counts.
    fn forget(&mut self, entry: &Entry) {
        self.stats.records = self.stats.records.saturating_sub(1);
        self.stats.samples = self.stats.samples.saturating_sub(entry.header.samples);
    }

    /// The oldest record, which is then being sent until [`finish`](Self::finish) or [`put_back`](Self::put_back). `None` if
    /// there is none.
    ///
    /// # Errors
    ///
    /// The record cannot be read; it too wants one of the two.
    pub fn take(&mut self) -> Option<(RecordId, Result<Record, Error>)> {
        let entry = *self.entries.front()?;
        self.taken = Some((entry, false));
        Some((entry.id, self.read(&entry)))
    }

    fn read(&mut self, entry: &Entry) -> Result<Record, Error> {
        let path = self.directory.segment(entry.segment);
        let damaged = |path| Error::Damaged { path, samples: entry.header.samples };
        if let Err(error) = self.reader(entry.segment) {
            // Somebody removed it; but where the whole folder is gone, it may be mounted again.
            let is_removed = error.kind() == ErrorKind::NotFound && self.directory.is_there();
            return Err(if is_removed { damaged(path) } else { failed("open", path)(error) });
        }
        let mut payload = vec![0; entry.header.payload_length as usize];
        let read = self.reader(entry.segment).and_then(|file| file.read_exact_at(&mut payload, entry.offset + HEADER));
        if let Err(error) = read {
            // A handle can be stale where the file is not.
            self.reader = None;
            return Err(failed(READ, path)(error));
        }
        entry.header.record(payload).ok_or_else(|| damaged(path))
    }

    fn reader(&mut self, number: u64) -> std::io::Result<&File> {
        if self.reader.as_ref().is_none_or(|(open, _)| *open != number) {
            self.reader = None;
        }
        match &mut self.reader {
            Some((_, file)) => Ok(file),
            none => Ok(&none.insert((number, self.directory.open_segment(number)?.0)).1),
        }
    }

    /// The record `id` has been delivered, or is given up: it is not sent again.
    pub fn finish(&mut self, id: RecordId) {
        let Some((entry, is_gone)) = self.taken.take().filter(|(entry, _)| entry.id == id) else { return };
        self.forget(&entry);
        if is_gone {
            return;
        }
        if let Ok(position) = self.entries.binary_search_by_key(&id, |other| other.id) {
            self.entries.remove(position);
        }
        // If the mark cannot be written, the record is sent again by the next process, at worst.
        let _ = self.reader(entry.segment).and_then(|file| file.write_all_at(&[DONE], entry.offset + STATE));
        if let Some(segment) = self.segments.iter_mut().find(|segment| segment.number == entry.segment) {
            segment.waiting = segment.waiting.saturating_sub(1);
        }
        self.remove_finished();
    }

    /// The record `id` is not being sent any more and waits again. Returns its samples if its segment had to go meanwhile.
    pub fn put_back(&mut self, id: RecordId) -> u64 {
        match self.taken.take().filter(|(entry, _)| entry.id == id) {
            Some((entry, true)) => {
                self.forget(&entry);
                entry.header.samples
            }
            _ => 0,
        }
    }

    /// Removes segments that nothing waits in, but for the one that is appended to.
    fn remove_finished(&mut self) {
        let active = self.active.as_ref().and(self.segments.back()).map(|segment| segment.number);
        let (directory, stats, reader) = (&self.directory, &mut self.stats, &mut self.reader);
        self.segments.retain(|segment| {
            let keep = segment.waiting > 0 || Some(segment.number) == active;
            if !keep {
                stats.bytes = stats.bytes.saturating_sub(segment.bytes);
                // One that cannot be removed has no record that waits: it is removed when the spool is opened again.
                let _ = fs::remove_file(directory.segment(segment.number));
                if reader.as_ref().is_some_and(|(number, _)| *number == segment.number) {
                    *reader = None;
                }
            }
            keep
        });
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // Leaves an empty folder where nothing waits.
        self.active = None;
        self.remove_finished();
    }
}
