//! The exporter and receivers of OTLP/HTTP, by hand: what is on the wire, and what each answer means.

use std::time::{Duration, SystemTime};

use crate::profiles::{samples, small};
use crate::receivers::{GrpcReceiver, HttpReceiver, HttpReply, drained, http, options, wait_for};
use profiler_export::{Compression, ExportStats, Exporter, ExporterOptions, MetricsClient, Protocol, RetryOptions};
use profiler_formats::otlp;

fn http_options(endpoint: String) -> ExporterOptions {
    ExporterOptions { protocol: Protocol::HttpProtobuf, ..options(endpoint) }
}

fn exported(count: u64, replies: Vec<HttpReply>) -> (ExportStats, HttpReceiver) {
    let receiver = HttpReceiver::new(replies);
    let exporter = Exporter::start(http_options(receiver.url())).unwrap();
    exporter.export(&small(count));
    let stats = drained(&exporter);
    assert_eq!(exporter.shutdown(Duration::from_secs(5)), stats);
    (stats, receiver)
}

fn dropped(stats: &ExportStats) -> Vec<(&'static str, u64)> {
    stats.dropped_samples.iter().map(|(reason, count)| (*reason, *count)).collect()
}

fn last_error(stats: ExportStats) -> String {
    stats.last_error.unwrap().1
}

#[test]
fn a_request_is_as_the_specification_has_it() {
    for (compression, encoding) in
        [(Compression::None, None), (Compression::Gzip, Some("gzip")), (Compression::Zstd, Some("zstd"))]
    {
        let receiver = HttpReceiver::new(Vec::new());
        let options = ExporterOptions {
            compression,
            headers: vec![("x-api-key".to_owned(), "s3cret".into())],
            ..http_options(format!("{}/base/", receiver.url()))
        };
        let exporter = Exporter::start(options).unwrap();
        let profile = small(1000);
        exporter.export(&profile);
        exporter.export(&profile);
        assert_eq!(drained(&exporter).sent_samples, 2000);
        let seen = receiver.seen();
        assert_eq!(seen.len(), 2);
        let request = &seen[0];
        assert_eq!(request.line, "POST /base/v1development/profiles HTTP/1.1");
        assert_eq!(request.header("content-type"), Some("application/x-protobuf"));
        assert_eq!(request.header("content-encoding"), encoding);
        assert_eq!(request.header("x-api-key"), Some("s3cret"));
        assert_eq!(request.header("host"), Some(receiver.address.to_string().as_str()));
        assert!(request.header("user-agent").unwrap().starts_with("profiler-otlp/"));
        assert_eq!(samples(&otlp::decode(&request.raw()).unwrap()), samples(&profile));
    }
}

#[test]
fn a_complete_endpoint_is_used_as_it_is() {
    let receiver = HttpReceiver::new(Vec::new());
    let endpoint = format!("{}/here?a=b", receiver.url());
    let exporter = Exporter::start(ExporterOptions { endpoint_is_complete: true, ..http_options(endpoint) }).unwrap();
    exporter.export(&small(1));
    drained(&exporter);
    assert_eq!(receiver.seen()[0].line, "POST /here?a=b HTTP/1.1");
}

#[test]
fn retry_after_in_seconds_is_honoured() {
    for status in ["429 Too Many Requests", "503 Service Unavailable"] {
        let (stats, receiver) = exported(10, vec![http(status, "Retry-After: 2\r\n", b"wait")]);
        assert_eq!((stats.sent_samples, stats.retries), (10, 1));
        let seen = receiver.seen();
        assert!(seen[1].time - seen[0].time >= Duration::from_secs(2));
    }
}

#[test]
fn retry_after_as_a_date_is_honoured() {
    // A date has whole seconds: two of three at least are left.
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(4));
    let begun = std::time::Instant::now();
    let (stats, receiver) =
        exported(10, vec![http("503 Service Unavailable", &format!("Retry-After: {date}\r\n"), b"")]);
    assert_eq!((stats.sent_samples, stats.retries), (10, 1));
    let seen = receiver.seen();
    assert!(seen[1].time - begun >= Duration::from_secs(2), "{:?}", seen[1].time - begun);
}

#[test]
fn a_delay_of_nothing_or_none_at_all_means_the_usual_wait() {
    for value in ["0", "Wed, 21 Oct 2015 07:28:00 GMT", "soon", "-5", "1e3"] {
        let wait = || http("429 Too Many Requests", &format!("Retry-After: {value}\r\n"), b"");
        let receiver = HttpReceiver::new(vec![wait(), wait(), wait()]);
        let mut options = http_options(receiver.url());
        options.retry = RetryOptions { randomization: 0.0, multiplier: 2.0, ..options.retry };
        let exporter = Exporter::start(options).unwrap();
        exporter.export(&small(10));
        let stats = drained(&exporter);
        assert_eq!((stats.sent_samples, stats.retries), (10, 3), "{value}");
        let waits: Vec<_> = receiver.seen().windows(2).map(|pair| pair[1].time - pair[0].time).collect();
        let growing = [20, 40, 80].map(Duration::from_millis);
        assert!(waits.iter().zip(growing).all(|(wait, least)| *wait >= least), "{value}: {waits:?}");
    }
}

#[test]
fn statuses_that_are_final_are_dropped_under_their_number() {
    for (status, reason) in [
        ("400 Bad Request", "http 400"),
        ("401 Unauthorized", "http 401"),
        ("404 Not Found", "http 404"),
        ("418 Teapot", "http 4xx"),
        ("500 Internal Server Error", "http 500"),
        ("501 Not Implemented", "http 5xx"),
        ("307 Temporary Redirect", "http 3xx"),
    ] {
        let (stats, receiver) = exported(10, vec![http(status, "location: http://elsewhere/\r\n", b"no")]);
        assert_eq!((dropped(&stats), receiver.seen().len()), (vec![(reason, 10)], 1));
    }
}

#[test]
fn a_redirect_is_named_without_the_secrets_in_it() {
    let location = "location: https://user:hunter2@elsewhere:1/in?token=hunter2&next=https://h/\r\n";
    let body = b"<a href=\"https://user:hunter2@elsewhere:1/in?token=hunter2\">Temporary Redirect</a>";
    let (stats, _) = exported(10, vec![http("307 Temporary Redirect", location, body)]);
    let error = last_error(stats);
    assert!(error.contains("HTTP 307") && error.contains("https://[hidden]@elsewhere:1/in?[hidden]"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn metrics_that_are_refused_name_the_path_and_not_its_query() {
    let receiver = HttpReceiver::new(vec![http("404 Not Found", "", b"")]);
    let endpoint = format!("{}/m?token=hunter2", receiver.url());
    let options = ExporterOptions { endpoint_is_complete: true, ..http_options(endpoint) };
    let mut client = MetricsClient::new(options).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(client.send(Vec::new())).unwrap_err();
    assert!(error.ends_with("takes no metrics at /m"), "{error}");
    assert_eq!(receiver.seen()[0].line, "POST /m?token=hunter2 HTTP/1.1");
}

#[test]
fn partial_success_is_counted_and_not_retried() {
    // ExportProfilesServiceResponse { partial_success: { rejected_profiles: 1, error_message: "too old" } }
    let body = b"\x0a\x0b\x08\x01\x12\x07too old";
    let (stats, receiver) = exported(100, vec![http("200 OK", "content-type: application/x-protobuf\r\n", body)]);
    assert_eq!((stats.sent_samples, stats.rejected_samples, receiver.seen().len()), (50, 50, 1));
    assert_eq!(last_error(stats), "partial success: too old");
}

#[test]
fn a_connection_that_is_reset_within_a_request_is_made_anew() {
    let (stats, receiver) = exported(10_000, vec![HttpReply::Reset(0), HttpReply::Reset(1000)]);
    assert_eq!((stats.sent_samples, stats.retries, stats.total_dropped_samples()), (10_000, 2, 0));
    assert_eq!(receiver.inbox.samples(), 10_000);
}

#[test]
fn a_connection_that_was_closed_while_idle_costs_no_retry() {
    // Says it keeps the connection, and closes it.
    let closing = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec();
    let receiver = HttpReceiver::new(vec![HttpReply::Raw(closing)]);
    let exporter = Exporter::start(http_options(receiver.url())).unwrap();
    exporter.export(&small(5));
    drained(&exporter);
    // The end of the connection arrives after the answer.
    std::thread::sleep(Duration::from_millis(200));
    exporter.export(&small(6));
    let stats = drained(&exporter);
    assert_eq!((stats.sent_samples, stats.retries, stats.last_error), (11, 0, None));
}

#[test]
fn a_request_that_is_too_large_for_the_receiver_is_divided() {
    let receiver =
        HttpReceiver::with(|request| match request.header("content-length").unwrap().parse::<usize>().unwrap() {
            0..60_000 => HttpReply::Accept,
            _ => http("413 Content Too Large", "", b""),
        });
    let exporter =
        Exporter::start(ExporterOptions { compression: Compression::None, ..http_options(receiver.url()) }).unwrap();
    let profile = small(60_000);
    exporter.export(&profile);
    let stats = drained(&exporter);
    assert_eq!((stats.sent_samples, stats.total_dropped_samples()), (60_000, 0));
    assert!(stats.divided_requests >= 2);
    assert_eq!(receiver.inbox.samples(), 60_000);
}

#[test]
fn a_receiver_that_refuses_every_size_does_not_divide_for_ever() {
    let receiver = HttpReceiver::with(|_| http("413 Content Too Large", "", b""));
    let exporter = Exporter::start(http_options(receiver.url())).unwrap();
    exporter.export(&small(20_000));
    let stats = drained(&exporter);
    assert_eq!((dropped(&stats), stats.sent_samples), (vec![("http 413", 20_000)], 0));
    assert!(receiver.seen().len() < 100);
}

#[test]
fn a_silent_receiver_is_asked_again() {
    let receiver = HttpReceiver::new(vec![HttpReply::Silent(Duration::from_secs(120))]);
    let options = ExporterOptions { timeout: Duration::from_secs(2), ..http_options(receiver.url()) };
    let exporter = Exporter::start(options).unwrap();
    exporter.export(&small(9));
    let stats = drained(&exporter);
    assert_eq!(stats.sent_samples, 9);
    assert!(stats.retries >= 1);
    assert!(last_error(stats).contains("no answer"));
}

#[test]
fn html_is_no_answer() {
    let html = b"<!DOCTYPE html>\n<html>\x1b[2J<title>Log in</title>".as_slice();
    let (stats, receiver) = exported(10, vec![http("200 OK", "content-type: text/html\r\n", html)]);
    assert_eq!((dropped(&stats), receiver.seen().len()), (vec![("not an OTLP receiver", 10)], 1));
    let error = last_error(stats);
    assert!(error.contains("text/html") && error.contains("<title>Log in</title>"), "{error}");
    assert!(!error.contains('\x1b') && !error.contains('\n'));
    let page = [html, "x".repeat(100_000).as_bytes()].concat();
    let (stats, _) = exported(10, vec![http("404 Not Found", "content-type: text/html\r\n", &page)]);
    let error = last_error(stats);
    assert!(error.len() < 600 && error.contains("service.profilesSupport"), "{error}");
}

#[test]
fn an_answer_without_end_is_not_read_to_its_end() {
    let mut endless = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\n\r\n".to_vec();
    endless.resize(3 << 20, b'x');
    let (stats, _) = exported(10, vec![HttpReply::Raw(endless)]);
    assert_eq!(dropped(&stats), [("answer too large", 10)]);
}

#[test]
fn a_receiver_of_another_version_of_the_protocol_shows_what_it_says() {
    // As the Collector answers what it cannot unmarshal: google.rpc.Status in protobuf.
    let message = b"proto: wrong wireType = 0 for field Values";
    let body = [&[0x08, 3, 0x12, message.len() as u8], message.as_slice()].concat();
    let (stats, _) = exported(10, vec![http("400 Bad Request", "content-type: application/x-protobuf\r\n", &body)]);
    assert_eq!(dropped(&stats), [("http 400", 10)]);
    assert_eq!(last_error(stats), "HTTP 400: proto: wrong wireType = 0 for field Values");
    // Before v1development the path did not exist.
    let (stats, _) = exported(10, vec![http("404 Not Found", "content-type: text/plain\r\n", b"404 page not found\n")]);
    assert!(last_error(stats).contains("0.148"));
}

#[test]
fn what_is_no_http_at_all_is_named() {
    let (stats, _) = exported(10, vec![HttpReply::Raw(b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec())]);
    assert_eq!((stats.sent_samples, stats.retries), (10, 1));
    assert!(last_error(stats).contains("does not speak HTTP/1.1"));
    let grpc = GrpcReceiver::new(Vec::new());
    let exporter = Exporter::start(http_options(grpc.url())).unwrap();
    exporter.export(&small(3));
    let stats = wait_for("a failure", || Some(exporter.stats()).filter(|stats| stats.last_error.is_some()));
    assert_eq!(stats.unaccounted_samples(), 0);
    let error = last_error(stats);
    assert!(error.contains("the connection failed"), "{error}");
}
