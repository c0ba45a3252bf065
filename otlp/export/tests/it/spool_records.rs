//! The spool: what is appended comes out, whatever happens to the process, the disk and the files.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use profiler_export::{
    Compression,
    spool::{Error, Record, Spool, SpoolOptions},
};
use profiler_need::{have, have_root};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

fn record(seed: u64, length: usize) -> Record {
    let bytes: Vec<u8> = (0..length as u64).map(|index| (index.wrapping_mul(31) ^ seed) as u8).collect();
    Record {
        bytes: bytes.into(),
        compression: [Compression::None, Compression::Gzip, Compression::Zstd][seed as usize % 3],
        raw_bytes: length as u64 * 3,
        samples: seed + 1,
        start_unix_nanos: seed * 10,
        end_unix_nanos: seed * 10 + 10,
    }
}

fn open(directory: &Path) -> Spool {
    open_with(directory, 64 * MIB)
}

fn open_with(directory: &Path, max_bytes: u64) -> Spool {
    Spool::open(&SpoolOptions { directory: directory.to_owned(), max_bytes }).unwrap()
}

/// Appends all, which fit.
fn fill(spool: &mut Spool, records: &[Record]) {
    records.iter().for_each(|record| assert_eq!(spool.append(record).unwrap(), 0));
}

/// Takes out everything, as sent.
fn drain(spool: &mut Spool) -> Vec<Record> {
    let mut all = Vec::new();
    while let Some((id, record)) = spool.take() {
        all.extend(record.ok());
        spool.finish(id);
    }
    assert_eq!((spool.stats().records, spool.stats().samples), (0, 0));
    all
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "spool"))
        .collect();
    paths.sort();
    paths
}

fn bad(directory: &Path) -> usize {
    fs::read_dir(directory)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().to_string_lossy().ends_with(".bad"))
        .count()
}

#[test]
fn records_come_out_as_they_went_in_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path());
    let records: Vec<Record> = (0..50).map(|seed| record(seed, 1 + seed as usize * 997)).collect();
    for record in &records {
        assert_eq!(spool.append(record).unwrap(), 0);
    }
    assert_eq!(spool.stats().records, 50);
    assert_eq!(spool.stats().samples, (1..=50).sum::<u64>());
    let on_disk: u64 = segments(folder.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert_eq!(spool.stats().bytes, on_disk);
    assert_eq!(drain(&mut spool), records);
    drop(spool);
    assert_eq!(segments(folder.path()), Vec::<PathBuf>::new());
}

#[test]
fn what_was_not_delivered_is_there_again_and_what_was_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path());
    let records: Vec<Record> = (0..10).map(|seed| record(seed, 100)).collect();
    fill(&mut spool, &records);
    for _ in 0..4 {
        let (id, _) = spool.take().unwrap();
        spool.finish(id);
    }
    let (id, _) = spool.take().unwrap();
    assert_eq!(spool.put_back(id), 0);
    // Without its destructor: the process is gone.
    std::mem::forget(spool);
    let copy = tempfile::tempdir().unwrap();
    segments(folder.path()).iter().for_each(|path| {
        fs::copy(path, copy.path().join(path.file_name().unwrap())).unwrap();
    });
    let mut spool = open(copy.path());
    assert_eq!(spool.stats().restored_samples, (5..=10).sum::<u64>());
    assert_eq!(drain(&mut spool), records[4..]);
}

#[test]
fn a_folder_is_of_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let options = SpoolOptions { directory: folder.path().to_owned(), max_bytes: MIB };
    let first = Spool::open(&options).unwrap();
    let error = Spool::open(&options).unwrap_err();
    assert!(matches!(&error, Error::Locked { directory } if directory == folder.path()), "{error}");
    assert!(error.to_string().contains("in use by another process"));
    drop(first);
    Spool::open(&options).unwrap();
}

#[test]
fn the_oldest_make_room_and_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open_with(folder.path(), MIB);
    let records: Vec<Record> = (0..200).map(|seed| record(seed, 20_000)).collect();
    let mut discarded = 0;
    for record in &records {
        discarded += spool.append(record).unwrap();
        assert!(spool.stats().bytes <= MIB);
        let on_disk: u64 = segments(folder.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        assert_eq!(spool.stats().bytes, on_disk);
    }
    let left = drain(&mut spool);
    assert!(left.len() >= 45, "{}", left.len());
    assert_eq!(left, records[records.len() - left.len()..]);
    assert_eq!(discarded + left.iter().map(|record| record.samples).sum::<u64>(), (1..=200).sum::<u64>());
}

#[test]
fn what_cannot_be_written_pushes_nothing_out() {
    let folder = tempfile::tempdir().unwrap();
    let (directory, elsewhere) = (folder.path().join("spool"), folder.path().join("elsewhere"));
    let mut spool = open_with(&directory, MIB);
    // Each in a segment of its own, so that the next one needs a new file.
    let records: Vec<Record> = (0..20).map(|seed| record(seed, 70_000)).collect();
    let discarded: u64 = records.iter().map(|record| spool.append(record).unwrap()).sum();
    assert!(discarded > 0);
    let before = spool.stats().clone();
    fs::rename(&directory, &elsewhere).unwrap();
    for _ in 0..3 {
        spool.append(&record(20, 70_000)).unwrap_err();
        assert_eq!((spool.stats().samples, spool.stats().bytes), (before.samples, before.bytes));
    }
    fs::rename(&elsewhere, &directory).unwrap();
    let discarded = discarded + spool.append(&record(20, 70_000)).unwrap();
    let left = drain(&mut spool);
    assert_eq!(discarded + left.iter().map(|record| record.samples).sum::<u64>(), (1..=21).sum::<u64>());
    assert!(left.iter().any(|record| record.samples == 21));
}

#[test]
fn a_small_spool_has_room_for_the_newest() {
    // A limit below the least size of a segment: the segment that is appended to has to give way itself.
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open_with(folder.path(), 10_000);
    let mut discarded = 0;
    for seed in 0..20 {
        discarded += spool.append(&record(seed, 4000)).unwrap();
        assert!(spool.stats().bytes <= 10_000);
        let on_disk: u64 = segments(folder.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        assert_eq!(spool.stats().bytes, on_disk);
    }
    let left = drain(&mut spool);
    assert_eq!(left.last(), Some(&record(19, 4000)));
    assert_eq!(discarded + left.iter().map(|record| record.samples).sum::<u64>(), (1..=20).sum::<u64>());
}

#[test]
fn a_record_that_is_being_sent_may_lose_its_segment() {
    for is_delivered in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = open_with(folder.path(), MIB);
        spool.append(&record(0, 20_000)).unwrap();
        let (id, sent) = spool.take().unwrap();
        assert_eq!(sent.unwrap(), record(0, 20_000));
        let mut discarded = 0;
        let mut appended = 0;
        while discarded == 0 {
            appended += 1;
            discarded += spool.append(&record(appended, 20_000)).unwrap();
        }
        let waiting = spool.stats().samples;
        // The first, with one sample, is neither lost nor there.
        assert_eq!(waiting + discarded, (1..=appended + 1).sum::<u64>());
        if is_delivered {
            spool.finish(id);
        } else {
            assert_eq!(spool.put_back(id), 1);
        }
        assert_eq!(spool.stats().samples, waiting - 1);
        let left = drain(&mut spool);
        assert_eq!(left.iter().map(|record| record.samples).sum::<u64>(), waiting - 1);
    }
}

#[test]
fn a_record_cut_short_at_the_end_is_cut_off() {
    let whole = tempfile::tempdir().unwrap();
    let mut spool = open(whole.path());
    fill(&mut spool, &[0, 1, 2].map(|seed| record(seed, 500)));
    let path = segments(whole.path()).remove(0);
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 12 + 3 * 549);
    for cut in [0, 5, 12, 13, 60, 561, 562, 600, 1109, 1110, 1111, bytes.len() - 1] {
        let folder = tempfile::tempdir().unwrap();
        let torn = folder.path().join(path.file_name().unwrap());
        fs::write(&torn, &bytes[..cut]).unwrap();
        let mut spool = open(folder.path());
        let there = cut.saturating_sub(12) / 549;
        assert_eq!(spool.stats().torn_records, u64::from(cut < 12 || (cut - 12) % 549 != 0), "{cut}");
        assert_eq!((spool.stats().records, spool.stats().set_aside), (there as u64, 0), "{cut}");
        // What comes now stands behind what is good.
        spool.append(&record(9, 77)).unwrap();
        let expected: Vec<Record> = (0..there as u64).map(|seed| record(seed, 500)).chain([record(9, 77)]).collect();
        assert_eq!(drain(&mut spool), expected, "{cut}");
    }
}

#[test]
fn a_header_that_nobody_wrote_is_set_aside_with_what_follows() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path());
    fill(&mut spool, &[0, 1, 2].map(|seed| record(seed, 500)));
    let path = segments(folder.path()).remove(0);
    // Left as it is by a process that is gone.
    let bytes = fs::read(&path).unwrap();
    drop(drain(&mut spool));
    drop(spool);
    fs::write(&path, &bytes).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"\xff", 12 + 549 + 9).unwrap();
    let mut spool = open(folder.path());
    let stats = spool.stats();
    assert_eq!((stats.records, stats.set_aside, stats.torn_records), (1, 1, 0));
    assert_eq!(fs::metadata(folder.path().join(format!("{}.bad", path.display()))).unwrap().len(), 2 * 549);
    assert_eq!(drain(&mut spool), [record(0, 500)]);
}

#[test]
fn a_payload_that_is_damaged_is_given_up_alone_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path());
    fill(&mut spool, &[0, 1, 2].map(|seed| record(seed, 500)));
    let path = segments(folder.path()).remove(0);
    OpenOptions::new().write(true).open(&path).unwrap().write_all_at(b"\xff\xfe", 12 + 549 + 49 + 250).unwrap();
    let (id, first) = spool.take().unwrap();
    assert_eq!(first.unwrap(), record(0, 500));
    spool.finish(id);
    let (id, second) = spool.take().unwrap();
    let error = second.unwrap_err();
    assert!(matches!(error, Error::Damaged { samples: 2, .. }), "{error}");
    spool.finish(id);
    assert_eq!(drain(&mut spool), [record(2, 500)]);
}

#[test]
fn files_that_are_no_segments_are_set_aside_within_bounds() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..20 {
        fs::write(folder.path().join(format!("{number:016x}.spool")), format!("rubbish of length {number}")).unwrap();
    }
    fs::create_dir(folder.path().join("00000000000000ff.spool")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.path().join("00000000000000fe.spool")).unwrap();
    fs::write(folder.path().join("else"), "left alone").unwrap();
    let mut spool = open(folder.path());
    assert_eq!((spool.stats().set_aside, spool.stats().records), (22, 0));
    assert!(bad(folder.path()) <= 9, "{}", bad(folder.path()));
    assert!(folder.path().join("else").exists());
    assert!(Path::new("/etc/passwd").exists());
    spool.append(&record(1, 10)).unwrap();
    assert_eq!(drain(&mut spool), [record(1, 10)]);
}

#[test]
fn names_that_are_not_written_here_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["00000000000000AB.spool", "+0000000000000ab.spool", "1.spool", ".spool", "000000000000000g.spool"] {
        fs::write(folder.path().join(name), "not ours").unwrap();
    }
    let mut spool = open(folder.path());
    assert_eq!((spool.stats().set_aside, spool.stats().records), (0, 0));
    assert_eq!(segments(folder.path()).len(), 4, "all but .spool, which is no ending");
    spool.append(&record(1, 10)).unwrap();
    assert_eq!(drain(&mut spool), [record(1, 10)]);
}

#[test]
fn what_cannot_be_set_aside_is_passed_over_and_blocks_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path());
    fill(&mut spool, &[record(1, 10)]);
    drop(spool);
    // A folder and a file, where each would have to go there is a folder with something in it.
    fs::create_dir(folder.path().join("0000000000000003.spool")).unwrap();
    fs::write(folder.path().join("0000000000000004.spool"), "rubbish of some length").unwrap();
    for number in 3..5 {
        let taken = folder.path().join(format!("000000000000000{number}.spool.bad"));
        fs::create_dir_all(taken.join("something")).unwrap();
    }
    let mut spool = open(folder.path());
    assert_eq!((spool.stats().set_aside, spool.stats().records), (2, 1));
    spool.append(&record(2, 10)).unwrap();
    assert!(folder.path().join("0000000000000005.spool").exists());
    assert_eq!(drain(&mut spool), [record(1, 10), record(2, 10)]);
}

#[test]
fn the_last_number_of_all_leaves_numbers_for_new_segments() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open_with(folder.path(), MIB);
    let old: Vec<Record> = (0..3).map(|seed| record(seed, 70_000)).collect();
    fill(&mut spool, &old);
    drop(spool);
    let last = |number: u64| folder.path().join(format!("{number:016x}.spool"));
    fs::rename(last(2), last(u64::MAX)).unwrap();
    fs::rename(last(1), last(u64::MAX - 1)).unwrap();
    let mut spool = open_with(folder.path(), MIB);
    let new: Vec<Record> = (10..14).map(|seed| record(seed, 70_000)).collect();
    fill(&mut spool, &new);
    assert!(last(6).exists());
    assert_eq!(drain(&mut spool), [old, new].concat());
}

#[test]
fn folders_that_are_made_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(&folder.path().join("made/for/it"));
    fill(&mut spool, &[record(1, 10)]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for made in ["made", "made/for", "made/for/it"] {
        assert_eq!(mode(&folder.path().join(made)), 0o700, "{made}");
    }
    assert_eq!(mode(&segments(&folder.path().join("made/for/it"))[0]), 0o600);
}

#[test]
fn a_record_larger_than_the_spool_is_refused_and_harms_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open_with(folder.path(), MIB);
    spool.append(&record(1, 10)).unwrap();
    let error = spool.append(&record(2, 2 << 20)).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }));
    assert!(spool.stats().failure.as_ref().unwrap().contains("does not fit"));
    spool.append(&record(3, 10)).unwrap();
    assert_eq!(spool.stats().failure, None);
    assert_eq!(drain(&mut spool), [record(1, 10), record(3, 10)]);
}

#[test]
fn a_folder_that_vanishes_is_an_error_and_its_return_the_end_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("spool");
    let mut spool = open_with(&directory, MIB);
    fs::remove_dir_all(&directory).unwrap();
    assert!(spool.append(&record(1, 10)).unwrap_err().to_string().contains("cannot create"));
    fs::create_dir(&directory).unwrap();
    spool.append(&record(2, 10)).unwrap();
    assert_eq!(drain(&mut spool), [record(2, 10)]);
}

/// A full disk: everything that was there stays, and room that comes back is used. Needs root for a small tmpfs.
#[test]
fn root_a_full_disk_refuses_a_record_and_keeps_the_others() {
    let test = "root_a_full_disk_refuses_a_record_and_keeps_the_others";
    if !have_root(test) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mount = |arguments: &[&str]| {
        std::process::Command::new(arguments[0]).args(&arguments[1..]).arg(folder.path()).status().unwrap().success()
    };
    let mounted = mount(&["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs"]);
    if !have(test, mounted, "the right to mount (CAP_SYS_ADMIN)") {
        return;
    }
    let result = std::panic::catch_unwind(|| {
        let filler = folder.path().join("filler");
        let mut spool = open_with(&folder.path().join("spool"), 64 * MIB);
        spool.append(&record(0, 100_000)).unwrap();
        let mut file = fs::File::create(&filler).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        drop(file);
        let error = spool.append(&record(1, 100_000)).unwrap_err().to_string();
        assert!(error.contains("No space left") && error.contains("free space there"), "{error}");
        assert_eq!((spool.stats().records, spool.stats().samples), (1, 1));
        assert!(spool.stats().failure.is_some());
        fs::remove_file(&filler).unwrap();
        spool.append(&record(2, 100_000)).unwrap();
        assert_eq!(spool.stats().failure, None);
        assert_eq!(drain(&mut spool), [record(0, 100_000), record(2, 100_000)]);
        drop(spool);
        // Nothing half-written is found later.
        let mut spool = open(&folder.path().join("spool"));
        assert_eq!((spool.stats().torn_records, spool.stats().set_aside), (0, 0));
        assert_eq!(drain(&mut spool), []);
    });
    assert!(mount(&["umount"]));
    result.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a segment's bytes have become, opening ends, what is read was written, and the spool is of use.
    #[test]
    fn damage_anywhere_is_survived(
        lengths in proptest::collection::vec(1_usize..300, 1..12),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let whole = tempfile::tempdir().unwrap();
        let mut spool = open(whole.path());
        let records: Vec<Record> =
            lengths.iter().enumerate().map(|(seed, length)| record(seed as u64, *length)).collect();
        fill(&mut spool, &records);
        let path = segments(whole.path()).remove(0);
        let mut bytes = fs::read(&path).unwrap();
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(path.file_name().unwrap()), bytes).unwrap();
        let mut spool = open(folder.path());
        spool.append(&record(99, 10)).unwrap();
        let found = drain(&mut spool);
        prop_assert_eq!(found.last(), Some(&record(99, 10)));
        prop_assert!(found[..found.len() - 1].iter().all(|record| records.contains(record)));
    }
}
