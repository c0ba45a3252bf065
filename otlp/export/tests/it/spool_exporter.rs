//! The exporter with a spool: what a process leaves behind, the next one sends.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::profiles::{samples, small};
use crate::receivers::{GrpcOptions, GrpcReceiver, Inbox, Reply, drained, fail, options, wait_for};
use profiler_export::{Compression, ExportStats, Exporter, ExporterOptions, SpoolOptions};
use profiler_formats::otlp;
use profiler_model::{Process, Profiles, Sample, Thread, builder::ProfileBuilder};
use prost::Message;
use tonic::Code;

fn with_spool(endpoint: String, directory: &Path) -> ExporterOptions {
    let spool = Some(SpoolOptions { directory: directory.to_owned(), max_bytes: 64 << 20 });
    ExporterOptions { spool, ..options(endpoint) }
}

fn address_of_nobody() -> String {
    format!("http://{}", GrpcReceiver::new(Vec::new()).stop())
}

#[test]
fn what_one_exporter_leaves_the_next_one_sends() {
    let folder = tempfile::tempdir().unwrap();
    let exporter = Exporter::start(with_spool(address_of_nobody(), folder.path())).unwrap();
    let profile = small(300);
    exporter.export(&profile);
    exporter.export(&small(200));
    let stats = wait_for("the spool", || Some(exporter.stats()).filter(|stats| stats.queued_samples == 0));
    assert_eq!((stats.spooled_samples(), stats.unaccounted_samples()), (500, 0));
    let stats = exporter.shutdown(Duration::from_secs(30));
    assert_eq!((stats.spooled_samples(), stats.total_dropped_samples(), stats.unaccounted_samples()), (500, 0, 0));

    let receiver = GrpcReceiver::new(Vec::new());
    // Another compression than when it was written.
    let options = ExporterOptions { compression: Compression::Zstd, ..with_spool(receiver.url(), folder.path()) };
    let exporter = Exporter::start(options).unwrap();
    exporter.export(&small(50));
    let stats = drained(&exporter);
    assert_eq!((stats.restored_samples, stats.accepted_samples, stats.sent_samples), (500, 50, 550));
    assert_eq!(stats.spool.unwrap().records, 0);
    let first = receiver.inbox.take().remove(0);
    assert_eq!(samples(&otlp::decode(&first.encode_to_vec()).unwrap()), samples(&profile));
    assert_eq!(exporter.shutdown(Duration::from_secs(30)).unaccounted_samples(), 0);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"]);
}

#[test]
fn two_exporters_do_not_share_a_spool() {
    let folder = tempfile::tempdir().unwrap();
    let _first = Exporter::start(with_spool(address_of_nobody(), folder.path())).unwrap();
    let error = Exporter::start(with_spool(address_of_nobody(), folder.path())).unwrap_err();
    assert!(error.to_string().contains("in use by another process"), "{error}");
}

#[test]
fn refusals_divisions_and_partial_success_keep_the_counts_right() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = GrpcReceiver::start(GrpcOptions {
        replies: vec![fail(Code::InvalidArgument, "no"), Reply::Partial(1, "half"), fail(Code::Unavailable, "wait")],
        max_message: 100_000,
        ..GrpcOptions::default()
    });
    let exporter = Exporter::start(with_spool(receiver.url(), folder.path())).unwrap();
    for count in [100, 200, 300, 60_000] {
        exporter.export(&small(count));
    }
    let stats = drained(&exporter);
    let dropped: Vec<_> = stats.dropped_samples.clone().into_iter().collect();
    assert_eq!(dropped, [("grpc INVALID_ARGUMENT", 100)]);
    assert_eq!((stats.rejected_samples, stats.sent_samples), (100, 60_400));
    assert!(stats.divided_requests > 0 && stats.retries == 1, "{stats:?}");
    assert_eq!(exporter.shutdown(Duration::from_secs(30)).unaccounted_samples(), 0);
}

#[test]
fn the_oldest_make_room_in_the_spool() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Some(SpoolOptions { directory: folder.path().to_owned(), max_bytes: 1 << 20 });
    let exporter = Exporter::start(ExporterOptions {
        spool,
        compression: Compression::None,
        max_request_bytes: 100_000,
        ..options(address_of_nobody())
    })
    .unwrap();
    for _ in 0..40 {
        exporter.export(&small(10_000));
        wait_for("the spool", || Some(exporter.stats()).filter(|stats| stats.queued_samples == 0));
        assert_eq!(exporter.stats().unaccounted_samples(), 0);
    }
    let stats = exporter.shutdown(Duration::ZERO);
    assert!(stats.dropped_samples["spool full"] > 200_000, "{stats:?}");
    assert!(stats.spooled_samples() > 50_000 && stats.spool.as_ref().unwrap().bytes <= 1 << 20, "{stats:?}");
    assert_eq!((stats.accepted_samples, stats.unaccounted_samples()), (400_000, 0));
}

#[test]
fn a_spool_that_takes_nothing_leaves_the_queue_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("spool");
    let receiver = GrpcReceiver::new(Vec::new());
    let exporter = Exporter::start(with_spool(receiver.url(), &directory)).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    exporter.export(&small(70));
    let stats = drained(&exporter);
    assert_eq!((stats.sent_samples, stats.total_dropped_samples()), (70, 0));
    assert!(stats.spool.unwrap().failure.unwrap().contains("cannot create"));
}

/// An exporter to nobody, uncompressed, with two records of 20,000 samples in its spool in a file each, the first of which it has read.
fn two_files(directory: &Path) -> (Exporter, ExporterOptions) {
    let spool = Some(SpoolOptions { directory: directory.to_owned(), max_bytes: 1 << 20 });
    let mut patient = ExporterOptions {
        spool,
        compression: Compression::None,
        max_request_bytes: 500_000,
        ..options(address_of_nobody())
    };
    (patient.retry.initial_interval, patient.retry.max_interval) = (Duration::from_secs(600), Duration::from_secs(600));
    let exporter = Exporter::start(patient.clone()).unwrap();
    exporter.export(&small(20_000));
    exporter.export(&small(20_000));
    wait_for("the spool", || Some(exporter.stats()).filter(|stats| stats.spooled_samples() == 40_000));
    wait_for("a failure", || (exporter.stats().failures_in_a_row > 0).then_some(()));
    let files = std::fs::read_dir(directory).unwrap().filter(|entry| entry.as_ref().unwrap().file_name() != "lock");
    assert_eq!(files.count(), 2);
    (exporter, patient)
}

#[test]
fn a_spool_that_cannot_be_read_for_a_while_waits_and_holds_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    let (directory, elsewhere) = (folder.path().join("spool"), folder.path().join("elsewhere"));
    let (exporter, patient) = two_files(&directory);
    // As if its file system were away.
    std::fs::rename(&directory, &elsewhere).unwrap();
    let receiver = GrpcReceiver::new(Vec::new());
    let quick = options(receiver.url());
    exporter.reconfigure(ExporterOptions { endpoint: quick.endpoint, retry: quick.retry, ..patient }).unwrap();
    let unreadable =
        |stats: &ExportStats| stats.last_error.as_ref().is_some_and(|(_, text)| text.contains("cannot open"));
    let stats = wait_for("an error", || Some(exporter.stats()).filter(unreadable));
    assert_eq!((stats.sent_samples, stats.spooled_samples()), (20_000, 20_000));
    assert_eq!((stats.total_dropped_samples(), stats.unaccounted_samples()), (0, 0));
    exporter.export(&small(50));
    wait_for("what is new", || Some(exporter.stats()).filter(|stats| stats.sent_samples == 20_050));
    std::fs::rename(&elsewhere, &directory).unwrap();
    let stats = drained(&exporter);
    assert_eq!((stats.sent_samples, stats.total_dropped_samples()), (40_050, 0));
    assert_eq!(receiver.inbox.samples(), 40_050);
}

#[test]
fn what_is_gone_from_the_spool_is_lost_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (exporter, patient) = two_files(folder.path());
    let mut files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    std::fs::remove_file(&files[1]).unwrap();
    let receiver = GrpcReceiver::new(Vec::new());
    exporter.reconfigure(ExporterOptions { endpoint: receiver.url(), ..patient }).unwrap();
    let stats = drained(&exporter);
    assert_eq!((stats.sent_samples, stats.dropped_samples["damaged spool record"]), (20_000, 20_000));
}

/// Windows of the child that are in `inbox`, with the number of their samples; a window sent twice counts once.
fn windows(inbox: &Inbox) -> BTreeMap<u32, u64> {
    let mut windows = BTreeMap::new();
    for request in inbox.take() {
        let profile = otlp::decode(&request.encode_to_vec()).unwrap();
        let window = u32::try_from(profile.window().0 / 1_000_000_000).unwrap();
        let count = profile.sample_entries() as u64;
        assert!(windows.insert(window, count).is_none_or(|before| before == count));
    }
    windows
}

/// One sample for each of `count` ns from the start of second `window` on.
fn window(window: u32, count: u32) -> Profiles {
    let start = u64::from(window) * 1_000_000_000;
    let mut builder = ProfileBuilder::new();
    let process = builder.process(Process { pid: Some(window), ..Process::default() });
    let thread = builder.thread(Thread { process, tid: window, name: 0 });
    let stack = builder.stack(&[]);
    let profile = builder.profile_mut();
    (profile.start_unix_nanos, profile.duration_nanos) = (start, 1_000_000_000);
    profile.sample_types = vec![crate::profiles::value_type("samples", "count")];
    for number in 0..u64::from(count) {
        let time_unix_nanos = Some(start + number);
        profile.samples.push(Sample { stack, thread: Some(thread), time_unix_nanos, ..Sample::default() });
    }
    builder.finish()
}

/// Not a test but the process that [`kill_9_loses_nothing_that_left_memory`] kills. It exports windows without end, each with as many
/// samples as its number, and says the number of each on stderr once the window left memory: from then on it is in the spool or
/// was delivered, whatever becomes of the process.
#[test]
#[ignore = "is run by another test"]
fn child_that_spools() {
    let Ok(arguments) = std::env::var("SPOOL_CHILD") else { return };
    let mut arguments = arguments.split(' ');
    let mut next = || arguments.next().unwrap();
    let (endpoint, folder, first) = (next(), next(), next().parse().unwrap());
    let exporter = Exporter::start(with_spool(endpoint.to_owned(), Path::new(folder))).unwrap();
    for number in first.. {
        exporter.export(&window(number, number));
        while exporter.stats().queued_samples > 0 {
            thread::sleep(Duration::from_millis(1));
        }
        eprintln!("{number}");
    }
}

/// Runs the child from window `first` on until it has said `count` windows, kills it, and returns the last that it said.
fn run_and_kill(endpoint: &str, folder: &Path, first: u32, count: usize) -> u32 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "spool_exporter::child_that_spools", "--nocapture"])
        .env("SPOOL_CHILD", format!("{endpoint} {} {first}", folder.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stderr.take().unwrap());
    let (say, said) = mpsc::channel();
    thread::spawn(move || {
        out.lines()
            .map_while(Result::ok)
            .filter_map(|line| line.parse::<u32>().ok())
            .try_for_each(|number| say.send(number))
    });
    let heard: Vec<u32> = (0..count).map(|_| said.recv_timeout(crate::receivers::DEADLINE).unwrap()).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    // And what it said before it died.
    said.iter().last().unwrap_or(heard[count - 1])
}

#[test]
fn kill_9_loses_nothing_that_left_memory() {
    let folder = tempfile::tempdir().unwrap();
    let mut expected: BTreeMap<u32, u64> = BTreeMap::new();
    let mut expect = |first: u32, last: u32| expected.extend((first..=last).map(|number| (number, number.into())));
    // Nobody takes anything; killed twice.
    expect(1, run_and_kill(&address_of_nobody(), folder.path(), 1, 15));
    expect(101, run_and_kill(&address_of_nobody(), folder.path(), 101, 15));
    // Killed while it delivers.
    let receiver = GrpcReceiver::new(Vec::new());
    expect(201, run_and_kill(&receiver.url(), folder.path(), 201, 30));
    let exporter = Exporter::start(with_spool(receiver.url(), folder.path())).unwrap();
    let stats = drained(&exporter);
    assert_eq!((stats.total_dropped_samples(), stats.unaccounted_samples()), (0, 0));
    assert_eq!(stats.spool.unwrap().set_aside, 0);
    let windows = windows(&receiver.inbox);
    for (number, count) in expected {
        assert_eq!(windows.get(&number), Some(&count), "window {number}");
    }
}
