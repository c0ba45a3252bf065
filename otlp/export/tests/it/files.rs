//! Profiles as files in a folder.

use std::{fs, path::Path};

use crate::profiles::{samples, small};
use profiler_export::{FileSink, FilesOptions};
use profiler_formats::format::{self, Format};
use profiler_model::Profiles;

fn options(directory: &Path, format: Format) -> FilesOptions {
    FilesOptions { directory: directory.to_owned(), format, max_files: 3, max_bytes: 0 }
}

/// A profile that starts `second` seconds after the others.
fn at(second: u64) -> Profiles {
    let mut profile = small(100);
    let later = second * 1_000_000_000;
    let part = &mut profile.profiles[0];
    part.start_unix_nanos += later;
    part.samples.iter_mut().for_each(|sample| sample.time_unix_nanos = sample.time_unix_nanos.map(|time| time + later));
    profile
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn each_profile_is_a_file_and_the_oldest_go() {
    for (format, ending) in [(Format::Pprof, ".pb.gz"), (Format::Otlp, ".otlp"), (Format::OtlpJson, ".otlp.json")] {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("made/for/it");
        let sink = FileSink::open(options(&directory, format)).unwrap();
        fs::write(directory.join("notes.txt"), "not ours").unwrap();
        // Written in another order than that of their times: a clock may have been set back. The oldest is what was written first.
        let paths: Vec<_> = [1, 3, 2, 5, 4].map(|second| sink.write(&at(second)).unwrap().unwrap()).into();
        assert!(paths.iter().all(|path| path.to_string_lossy().ends_with(ending)));
        let left: Vec<_> = names(&directory);
        assert_eq!(left.len(), 4, "{left:?}");
        assert_eq!(left[0], "notes.txt");
        for (name, second) in left[1..].iter().zip([2, 4, 5]) {
            let back = format::read(&fs::read(directory.join(name)).unwrap()).unwrap();
            assert_eq!(samples(&back), samples(&at(second)));
        }
        let stats = sink.stats();
        assert_eq!((stats.written_samples, stats.written_files, stats.removed_files), (500, 5, 2));
    }
}

#[test]
fn a_clock_that_is_set_back_costs_none_of_the_newest_files() {
    let folder = tempfile::tempdir().unwrap();
    let seconds_left = || {
        let files = names(folder.path()).into_iter().map(|name| fs::read(folder.path().join(name)).unwrap());
        let starts = files.map(|bytes| format::read(&bytes).unwrap().window().0 - at(0).window().0);
        starts.map(|start| start / 1_000_000_000).collect::<Vec<_>>()
    };
    let sink = FileSink::open(options(folder.path(), Format::Pprof)).unwrap();
    (7200..7204).for_each(|second| drop(sink.write(&at(second)).unwrap()));
    assert_eq!(seconds_left(), [7201, 7202, 7203]);
    (3600..3602).for_each(|second| drop(sink.write(&at(second)).unwrap()));
    assert_eq!(seconds_left(), [3600, 3601, 7203]);
    // Started again, and set back once more.
    let sink = FileSink::open(options(folder.path(), Format::Pprof)).unwrap();
    sink.write(&at(60)).unwrap();
    assert_eq!(seconds_left(), [60, 3601, 7203]);
    (61..63).for_each(|second| drop(sink.write(&at(second)).unwrap()));
    assert_eq!(seconds_left(), [60, 61, 62]);
}

#[test]
fn two_profiles_of_one_time_are_two_files() {
    let folder = tempfile::tempdir().unwrap();
    let sink = FileSink::open(options(folder.path(), Format::Otlp)).unwrap();
    let paths = [0; 2].map(|_| sink.write(&at(0)).unwrap().unwrap());
    assert_ne!(paths[0], paths[1]);
    assert_eq!(names(folder.path()).len(), 2);
}

#[test]
fn bytes_are_limited_but_the_newest_stays() {
    let folder = tempfile::tempdir().unwrap();
    let sink = FileSink::open(FilesOptions { max_files: 0, ..options(folder.path(), Format::Pprof) }).unwrap();
    let one = sink.stats().written_bytes + fs::metadata(sink.write(&at(0)).unwrap().unwrap()).unwrap().len();
    let limits = FilesOptions { max_files: 0, max_bytes: one * 5 / 2, ..options(folder.path(), Format::Pprof) };
    let sink = FileSink::open(limits.clone()).unwrap();
    (1..6).for_each(|second| drop(sink.write(&at(second)).unwrap()));
    assert_eq!(names(folder.path()).len(), 2);
    let sink = FileSink::open(FilesOptions { max_bytes: 1, ..limits }).unwrap();
    assert_eq!(names(folder.path()).len(), 1);
    let newest = sink.write(&at(9)).unwrap().unwrap();
    assert_eq!(names(folder.path()), [newest.file_name().unwrap().to_str().unwrap()]);
}

#[test]
fn what_was_interrupted_is_removed_and_what_is_empty_not_written() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(".profile-half.otlp"), "half").unwrap();
    let sink = FileSink::open(options(folder.path(), Format::Otlp)).unwrap();
    assert_eq!(sink.write(&small(0)).unwrap(), None);
    assert_eq!(names(folder.path()), Vec::<String>::new());
}

#[test]
fn files_are_for_their_owner_alone_and_follow_no_link() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("made/for/it");
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
    let sink = FileSink::open(options(&directory, Format::Otlp)).unwrap();
    assert_eq!((mode(&folder.path().join("made")), mode(&directory)), (0o700, 0o700));
    let first = sink.write(&at(0)).unwrap().unwrap();
    assert_eq!(mode(&first), 0o600);

    // A link under the name that the next file has while it is written.
    let name = first.file_name().unwrap().to_str().unwrap();
    let victim = folder.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    symlink(&victim, directory.join(format!(".{}", name.replace("-0000", "-0001")))).unwrap();
    let second = sink.write(&at(0)).unwrap().unwrap();
    assert_eq!((mode(&second), fs::read_to_string(&victim).unwrap().as_str()), (0o600, "untouched"));
    assert!(fs::symlink_metadata(&second).unwrap().is_file());
    assert_eq!(samples(&format::read(&fs::read(&second).unwrap()).unwrap()), samples(&at(0)));
    assert_eq!(names(&directory).len(), 2);
}

#[test]
fn a_folder_that_is_gone_is_an_error_that_names_it_and_a_count() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("gone");
    let sink = FileSink::open(options(&directory, Format::Otlp)).unwrap();
    fs::remove_dir(&directory).unwrap();
    let error = sink.write(&at(0)).unwrap_err().to_string();
    assert!(error.contains("gone") && error.contains("cannot write"), "{error}");
    assert_eq!(sink.stats().dropped_samples, 100);
    fs::create_dir(&directory).unwrap();
    assert!(sink.write(&at(1)).unwrap().is_some());
}
