//! The exporter and a gRPC receiver that is not ours (tonic), well and unwell. Whatever happens, no sample is unaccounted for.

use std::{
    collections::BTreeMap,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use crate::profiles::{samples, small};
use crate::receivers::{
    GrpcOptions, GrpcReceiver, Reply, drained, fail, fail_with_delay, options, resetting_proxy, wait_for,
};
use profiler_export::{Compression, ExportStats, Exporter, ExporterOptions, RetryOptions};
use profiler_formats::otlp;
use prost::Message;
use tonic::Code;

/// Exports `count` samples to a receiver that answers with `replies`, and waits until nothing is left.
fn exported(count: u64, replies: Vec<Reply>) -> (ExportStats, GrpcReceiver) {
    let receiver = GrpcReceiver::new(replies);
    let exporter = Exporter::start(options(receiver.url())).unwrap();
    exporter.export(&small(count));
    let stats = drained(&exporter);
    assert_eq!(exporter.shutdown(Duration::from_secs(5)), stats);
    (stats, receiver)
}

fn dropped(stats: &ExportStats) -> Vec<(&'static str, u64)> {
    stats.dropped_samples.iter().map(|(reason, count)| (*reason, *count)).collect()
}

#[test]
fn what_is_exported_arrives_sample_by_sample_in_every_compression() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let receiver = GrpcReceiver::new(Vec::new());
        let exporter = Exporter::start(ExporterOptions { compression, ..options(receiver.url()) }).unwrap();
        let profile = small(1200);
        exporter.export(&profile);
        let stats = drained(&exporter);
        assert_eq!((stats.sent_samples, stats.sent_requests, stats.total_dropped_samples()), (1200, 1, 0));
        assert_eq!((stats.latency.count, stats.retries, stats.last_error.clone()), (1, 0, None));
        assert_eq!(stats.sent_raw_bytes, otlp::encode(&profile).len() as u64);
        match compression {
            Compression::None => assert_eq!(stats.sent_wire_bytes, stats.sent_raw_bytes),
            _ => assert!(stats.sent_wire_bytes < stats.sent_raw_bytes),
        }
        let requests = receiver.inbox.take();
        let received = otlp::decode(&requests[0].encode_to_vec()).unwrap();
        assert_eq!(samples(&received), samples(&profile));
        assert_eq!(exporter.shutdown(Duration::from_secs(5)).unaccounted_samples(), 0);
    }
}

#[test]
fn a_receiver_that_is_down_at_the_start_gets_everything_when_it_comes_up() {
    let address = GrpcReceiver::new(Vec::new()).stop();
    let exporter = Exporter::start(options(format!("http://{address}"))).unwrap();
    for _ in 0..5 {
        exporter.export(&small(100));
    }
    let stats = wait_for("three failures", || Some(exporter.stats()).filter(|stats| stats.failures_in_a_row >= 3));
    assert_eq!((stats.queued_samples, stats.unaccounted_samples()), (500, 0));
    assert!(stats.queued_bytes > 0);
    let (_, error) = stats.last_error.unwrap();
    assert!(error.contains("cannot connect to 127.0.0.1") && error.contains("refused"), "{error}");
    let receiver = GrpcReceiver::start(GrpcOptions { address, ..GrpcOptions::default() });
    let stats = drained(&exporter);
    assert_eq!((stats.sent_samples, stats.sent_requests, stats.failures_in_a_row), (500, 5, 0));
    assert_eq!(receiver.inbox.samples(), 500);
}

#[test]
fn a_receiver_that_goes_and_comes_back_gets_everything() {
    let receiver = GrpcReceiver::new(Vec::new());
    let exporter = Exporter::start(options(receiver.url())).unwrap();
    exporter.export(&small(10));
    drained(&exporter);
    assert_eq!(receiver.inbox.samples(), 10);
    let address = receiver.stop();
    exporter.export(&small(20));
    wait_for("a failure", || (exporter.stats().failures_in_a_row > 0).then_some(()));
    exporter.export(&small(30));
    let receiver = GrpcReceiver::start(GrpcOptions { address, ..GrpcOptions::default() });
    assert_eq!(drained(&exporter).sent_samples, 60);
    assert_eq!(receiver.inbox.samples(), 50);
}

#[test]
fn a_name_that_does_not_resolve_is_waited_for() {
    let exporter = Exporter::start(options("http://collector.invalid:4317")).unwrap();
    exporter.export(&small(7));
    let stats = wait_for("a failure", || Some(exporter.stats()).filter(|stats| stats.failures_in_a_row > 0));
    let (_, error) = stats.last_error.unwrap();
    assert!(error.contains("cannot resolve \"collector.invalid\""), "{error}");
    let stats = exporter.shutdown(Duration::ZERO);
    assert_eq!(dropped(&stats), [("shutdown", 7)]);
    assert_eq!((stats.queued_samples, stats.unaccounted_samples()), (0, 0));
}

#[test]
fn resource_exhausted_without_retry_info_is_dropped() {
    let (stats, receiver) = exported(12, vec![fail(Code::ResourceExhausted, "quota")]);
    assert_eq!((dropped(&stats), receiver.calls()), (vec![("grpc RESOURCE_EXHAUSTED", 12)], 1));
    assert_eq!((stats.sent_samples, stats.unaccounted_samples()), (0, 0));
}

#[test]
fn retry_info_is_honoured() {
    for code in [Code::ResourceExhausted, Code::Unavailable] {
        let (stats, receiver) = exported(12, vec![fail_with_delay(code, 2)]);
        assert_eq!((stats.sent_samples, stats.retries, stats.total_dropped_samples()), (12, 1, 0));
        let times = receiver.times.lock().unwrap().clone();
        assert_eq!(times.len(), 2);
        // Longer than any backoff here.
        assert!(times[1] - times[0] >= Duration::from_secs(2), "{:?}", times[1] - times[0]);
    }
}

#[test]
fn retry_info_of_no_time_means_the_usual_wait() {
    let receiver = GrpcReceiver::new([0, -1, 0].map(|seconds| fail_with_delay(Code::Unavailable, seconds)).into());
    let mut options = options(receiver.url());
    options.retry = RetryOptions { randomization: 0.0, multiplier: 2.0, ..options.retry };
    let exporter = Exporter::start(options).unwrap();
    exporter.export(&small(12));
    let stats = drained(&exporter);
    assert_eq!((stats.sent_samples, stats.retries), (12, 3));
    let times = receiver.times.lock().unwrap().clone();
    let waits: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let growing = [20, 40, 80].map(Duration::from_millis);
    assert!(waits.iter().zip(growing).all(|(wait, least)| *wait >= least), "{waits:?}");
}

#[test]
fn each_code_is_retried_or_dropped_as_the_specification_says() {
    let retryable =
        [Code::Cancelled, Code::DeadlineExceeded, Code::Aborted, Code::OutOfRange, Code::Unavailable, Code::DataLoss];
    let (stats, receiver) = exported(3, retryable.map(|code| fail(code, "later")).into());
    assert_eq!((stats.sent_samples, stats.retries, receiver.calls()), (3, 6, 7));

    let final_codes = [
        (Code::Unknown, "grpc UNKNOWN"),
        (Code::InvalidArgument, "grpc INVALID_ARGUMENT"),
        (Code::NotFound, "grpc NOT_FOUND"),
        (Code::AlreadyExists, "grpc ALREADY_EXISTS"),
        (Code::PermissionDenied, "grpc PERMISSION_DENIED"),
        (Code::FailedPrecondition, "grpc FAILED_PRECONDITION"),
        (Code::Unimplemented, "grpc UNIMPLEMENTED"),
        (Code::Internal, "grpc INTERNAL"),
        (Code::Unauthenticated, "grpc UNAUTHENTICATED"),
    ];
    let receiver = GrpcReceiver::new(final_codes.map(|(code, _)| fail(code, "never")).into());
    let exporter = Exporter::start(options(receiver.url())).unwrap();
    final_codes.iter().for_each(|_| exporter.export(&small(3)));
    let stats = drained(&exporter);
    let expected: BTreeMap<&str, u64> = final_codes.iter().map(|(_, reason)| (*reason, 3)).collect();
    assert_eq!((&stats.dropped_samples, receiver.calls(), stats.retries), (&expected, 9, 0));
}

#[test]
fn an_older_receiver_without_the_service_is_named() {
    // As a gRPC server answers that lacks the service.
    let (stats, _) =
        exported(3, vec![fail(Code::Unimplemented, "unknown service opentelemetry.proto...ProfilesService")]);
    let (_, error) = stats.last_error.unwrap();
    assert!(error.contains("unknown service") && error.contains("service.profilesSupport"), "{error}");
}

#[test]
fn partial_success_is_counted_and_not_retried() {
    // Two processes, and so two profiles in the request.
    let (stats, receiver) = exported(100, vec![Reply::Partial(1, "too old")]);
    assert_eq!((stats.sent_samples, stats.rejected_samples, receiver.calls()), (50, 50, 1));
    assert!(stats.last_error.unwrap().1.contains("too old"));
    let (stats, _) = exported(100, vec![Reply::Partial(2, "")]);
    assert_eq!((stats.sent_samples, stats.rejected_samples), (0, 100));
    let (stats, _) = exported(100, vec![Reply::Partial(i64::MAX, "")]);
    assert_eq!((stats.sent_samples, stats.rejected_samples), (0, 100));
    let (stats, _) = exported(100, vec![Reply::Partial(-1, "")]);
    assert_eq!((stats.sent_samples, stats.rejected_samples), (100, 0));
    // A warning.
    let (stats, receiver) = exported(100, vec![Reply::Partial(0, "slow down")]);
    assert_eq!((stats.sent_samples, stats.rejected_samples, receiver.calls()), (100, 0, 1));
}

#[test]
fn a_connection_that_is_reset_within_a_request_is_made_anew() {
    let receiver = GrpcReceiver::new(Vec::new());
    let address = resetting_proxy(receiver.address, 3, 300);
    let options = ExporterOptions { compression: Compression::None, ..options(format!("http://{address}")) };
    let exporter = Exporter::start(options).unwrap();
    exporter.export(&small(5000));
    let stats = drained(&exporter);
    assert_eq!((stats.sent_samples, stats.retries, stats.total_dropped_samples()), (5000, 3, 0));
    assert_eq!(receiver.inbox.samples(), 5000);
}

#[test]
fn a_receiver_that_is_too_slow_is_asked_again() {
    let receiver = GrpcReceiver::new(vec![Reply::Slow(Duration::from_secs(3600))]);
    let options = ExporterOptions { timeout: Duration::from_secs(2), ..options(receiver.url()) };
    let exporter = Exporter::start(options).unwrap();
    exporter.export(&small(9));
    let stats = wait_for("the timeout", || Some(exporter.stats()).filter(|stats| stats.retries > 0));
    // Whoever's clock is faster: the client's, or the server's, which knows the deadline from the call.
    let error = stats.last_error.unwrap().1;
    assert!(error.contains("no answer from http://127.0.0.1") || error.contains("imeout"), "{error}");
    assert_eq!(stats.queued_samples + stats.sent_samples, 9);
    assert_eq!(drained(&exporter).sent_samples, 9);
}

#[test]
fn a_request_that_is_too_large_for_the_receiver_is_divided_and_so_are_later_ones() {
    let receiver = GrpcReceiver::start(GrpcOptions { max_message: 100_000, ..GrpcOptions::default() });
    let exporter = Exporter::start(options(receiver.url())).unwrap();
    let profile = small(60_000);
    assert!(otlp::encode(&profile).len() > 400_000);
    exporter.export(&profile);
    let stats = drained(&exporter);
    assert_eq!((stats.sent_samples, stats.total_dropped_samples()), (60_000, 0));
    assert_eq!(receiver.inbox.samples(), 60_000);
    assert!(stats.divided_requests >= 2, "{stats:?}");
    exporter.export(&profile);
    let later = drained(&exporter);
    assert_eq!((later.sent_samples, later.divided_requests), (120_000, stats.divided_requests));
}

#[test]
fn what_cannot_be_divided_is_dropped() {
    let (stats, receiver) =
        exported(4, vec![fail(Code::ResourceExhausted, "grpc: received message larger than max (9 vs. 4)")]);
    assert_eq!((dropped(&stats), receiver.calls()), (vec![("grpc RESOURCE_EXHAUSTED", 4)], 1));
}

#[test]
fn the_oldest_make_room_in_the_queue() {
    let address = GrpcReceiver::new(Vec::new()).stop();
    let retry = RetryOptions {
        initial_interval: Duration::from_secs(600),
        max_interval: Duration::from_secs(600),
        ..RetryOptions::default()
    };
    let one = {
        let exporter = Exporter::start(options(format!("http://{address}"))).unwrap();
        exporter.export(&small(100));
        exporter.stats().queued_bytes
    };
    let limited = ExporterOptions { queue_bytes: one * 7 / 2, retry, ..options(format!("http://{address}")) };
    let exporter = Exporter::start(limited).unwrap();
    for _ in 0..10 {
        exporter.export(&small(100));
        assert_eq!(exporter.stats().unaccounted_samples(), 0);
    }
    let stats = exporter.stats();
    assert_eq!((dropped(&stats), stats.queued_samples), (vec![("queue full", 700)], 300));
    assert!(stats.queued_bytes <= one * 7 / 2);
    let stats = exporter.shutdown(Duration::ZERO);
    assert_eq!(dropped(&stats), [("queue full", 700), ("shutdown", 300)]);
    assert_eq!(stats.unaccounted_samples(), 0);
}

#[test]
fn what_fails_for_too_long_is_given_up() {
    let address = GrpcReceiver::new(Vec::new()).stop();
    let mut options = options(format!("http://{address}"));
    options.retry.max_elapsed = Duration::from_millis(300);
    let exporter = Exporter::start(options).unwrap();
    exporter.export(&small(11));
    exporter.export(&small(22));
    let stats = drained(&exporter);
    assert_eq!(dropped(&stats), [("retries exhausted", 33)]);
    assert!(stats.retries > 0);
}

#[test]
fn new_options_take_over_what_waits() {
    let address = GrpcReceiver::new(Vec::new()).stop();
    let retry = RetryOptions {
        initial_interval: Duration::from_secs(600),
        max_interval: Duration::from_secs(600),
        ..RetryOptions::default()
    };
    let exporter = Exporter::start(ExporterOptions { retry, ..options(format!("http://{address}")) }).unwrap();
    exporter.export(&small(40));
    wait_for("a failure", || (exporter.stats().failures_in_a_row > 0).then_some(()));
    let wrong = exporter.reconfigure(options("localhost:4317")).unwrap_err();
    assert!(wrong.to_string().contains("has no scheme"), "{wrong}");
    let receiver = GrpcReceiver::new(Vec::new());
    let new = ExporterOptions {
        compression: Compression::Zstd,
        headers: vec![("Authorization".to_owned(), "Bearer t0ken".into())],
        ..options(receiver.url())
    };
    assert!(!format!("{new:?}").contains("t0ken"));
    exporter.reconfigure(new).unwrap();
    assert_eq!(drained(&exporter).sent_samples, 40);
    assert_eq!(*receiver.authorizations.lock().unwrap(), ["Bearer t0ken"]);
}

#[test]
fn headers_come_from_a_file_and_change_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("headers");
    std::fs::write(&path, "# token\nauthorization: Bearer one\n\nx-tenant: a:b\n").unwrap();
    let receiver = GrpcReceiver::new(Vec::new());
    let exporter = Exporter::start(ExporterOptions {
        headers: vec![("authorization".to_owned(), "Bearer zero".into())],
        headers_file: Some(path.clone()),
        ..options(receiver.url())
    })
    .unwrap();
    exporter.export(&small(1));
    drained(&exporter);
    // What cannot be used leaves the former in place.
    std::fs::write(&path, "no colon here").unwrap();
    exporter.export(&small(1));
    drained(&exporter);
    std::fs::write(folder.path().join("new"), "authorization: Bearer two").unwrap();
    std::fs::rename(folder.path().join("new"), &path).unwrap();
    exporter.export(&small(1));
    drained(&exporter);
    assert_eq!(*receiver.authorizations.lock().unwrap(), ["Bearer one", "Bearer one", "Bearer two"]);
}

#[test]
fn shutdown_sends_what_waits_and_keeps_to_its_deadline() {
    let receiver = GrpcReceiver::new(Vec::new());
    let exporter = Exporter::start(options(receiver.url())).unwrap();
    for _ in 0..20 {
        exporter.export(&small(50));
    }
    let stats = exporter.shutdown(crate::receivers::DEADLINE);
    assert_eq!((stats.sent_samples, stats.unaccounted_samples()), (1000, 0));

    let receiver = GrpcReceiver::new(vec![Reply::Slow(Duration::from_secs(3600))]);
    let exporter = Exporter::start(options(receiver.url())).unwrap();
    exporter.export(&small(50));
    wait_for("the call", || (receiver.calls.load(Ordering::SeqCst) > 0).then_some(()));
    let begun = Instant::now();
    let stats = exporter.shutdown(Duration::from_millis(100));
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!((dropped(&stats), stats.unaccounted_samples()), (vec![("shutdown", 50)], 0));
}

#[test]
fn exporting_does_not_wait_for_the_receiver() {
    let receiver = GrpcReceiver::new(vec![Reply::Slow(Duration::from_secs(3600))]);
    let exporter = Exporter::start(options(receiver.url())).unwrap();
    // From several threads, as anyone may.
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..25).for_each(|_| exporter.export(&small(20))));
        }
    });
    let stats = exporter.stats();
    assert_eq!((stats.accepted_samples, stats.queued_samples, stats.unaccounted_samples()), (2000, 2000, 0));
}

#[test]
fn a_receiver_of_http_1_is_told_from_one_of_grpc() {
    let http = crate::receivers::HttpReceiver::new(Vec::new());
    let exporter = Exporter::start(options(http.url())).unwrap();
    exporter.export(&small(3));
    let stats = wait_for("a failure", || Some(exporter.stats()).filter(|stats| stats.retries > 0));
    let (_, error) = stats.last_error.unwrap();
    assert!(error.contains("the connection failed"), "{error}");
    assert_eq!(exporter.shutdown(Duration::ZERO).unaccounted_samples(), 0);
}
