//! `profiler config` as a user meets it: exit codes, what is printed where, layers of a real process, secrets. And the shipped
//! schema, held against another implementation of JSON Schema and another reader of YAML.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use profiler_integration::children::{self, Finished};
use profiler_integration::environment::{profiler, python_with, repository};
use profiler_integration::recording::folder;

const PATIENCE: Duration = Duration::from_secs(60);

/// `profiler config ARGUMENTS`, with no variables but these.
fn config(arguments: &[&str], variables: &[(&str, &str)]) -> Finished {
    let mut command = Command::new(profiler());
    command.env_clear().envs(variables.iter().copied()).arg("config").args(arguments);
    let finished = children::run(&mut command, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
    finished
}

/// `profiler config check` of a file with `text`.
fn check(text: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Finished {
    let folder = folder().expect("a folder");
    let path = folder.path().join("c.yaml");
    fs::write(&path, text).expect("written");
    let path = path.display().to_string();
    let mut all = vec!["check", &path];
    all.extend(arguments);
    let mut finished = config(&all, variables);
    finished.stdout = finished.stdout.replace(&path, "c.yaml");
    finished.stderr = finished.stderr.replace(&path, "c.yaml");
    finished
}

fn is_right(finished: &Finished) {
    assert_eq!((finished.status.code(), finished.stderr.as_str()), (Some(0), ""), "{}", finished.command);
}

fn is_wrong(finished: &Finished) {
    assert_eq!((finished.status.code(), finished.stdout.as_str()), (Some(2), ""), "{}", finished.stderr);
}

#[test]
fn the_check_says_that_rust_log_goes_before_the_level() {
    let said = check("log: {level: warn}\n", &[], &[("RUST_LOG", "info,profiler=debug")]);
    is_right(&said);
    assert!(
        said.stdout.contains("# RUST_LOG=info,profiler=debug is set here, and goes before log.level"),
        "{}",
        said.stdout
    );
    for empty in [&[("RUST_LOG", "")] as &[_], &[]] {
        let said = check("log: {level: warn}\n", &[], empty);
        is_right(&said);
        assert!(!said.stdout.contains("RUST_LOG"), "{}", said.stdout);
    }
}

#[test]
fn the_four_layers_of_a_real_process_go_before_each_other() {
    let text = "rate: 19\nwindow: 20s\nsymbols: lines\n";
    let arguments = ["--rate", "49", "-v", "--set", "labels.team=web"];
    let variables =
        [("PROFILER_RATE", "29"), ("PROFILER_WINDOW", "30s"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1")];
    let finished = check(text, &arguments, &variables);
    is_right(&finished);
    for line in [
        "rate: 49  # flag --rate",
        "window: 30s  # environment PROFILER_WINDOW",
        "symbols: lines  # c.yaml:3:10",
        "jitter: 10%  # default",
        "  team: web  # flag --set",
        "  level: debug  # flag -v",
        "    endpoint: http://c:1  # environment OTEL_EXPORTER_OTLP_ENDPOINT",
    ] {
        assert!(finished.stdout.lines().any(|shown| shown == line), "no {line:?} in\n{}", finished.stdout);
    }
}

#[test]
fn without_file_and_variables_there_is_a_whole_configuration() {
    let finished = config(&["check"], &[]);
    is_right(&finished);
    assert!(finished.stdout.contains("endpoint: http://localhost:4317  # default"), "{}", finished.stdout);
}

#[test]
fn everything_that_is_wrong_is_named_with_its_place_and_the_right_way() {
    let finished = check("windw: 1\nlimits:\n  memory: 128MB\n", &["--rate", "fast"], &[("PROFILER_JITTER", "1")]);
    is_wrong(&finished);
    for words in [
        "profiler: the configuration has 4 errors:",
        "c.yaml:1:1: there is no key \"windw\"; did you mean window?",
        "c.yaml:3:11: limits.memory: ",
        "perhaps 128MiB",
        "environment PROFILER_JITTER: jitter: ",
        "flag --rate: rate: ",
    ] {
        assert!(finished.stderr.contains(words), "no {words:?} in\n{}", finished.stderr);
    }
}

#[test]
fn files_that_are_no_configuration_are_refused() {
    for (text, words) in [
        ("rate: [", "this is no YAML"),
        ("rate: 1\n---\nrate: 2\n", "c.yaml:2:1: a second document"),
        ("\u{0}\u{1}\u{2}", "c.yaml:1:1"),
        ("<html><body>404</body></html>\n", "one value stands where keys are wanted"),
    ] {
        let finished = check(text, &[], &[]);
        is_wrong(&finished);
        assert!(finished.stderr.contains(words), "{text:?}: no {words:?} in\n{}", finished.stderr);
    }
    for path in ["/nonexistent.yaml", "/", "/dev/zero"] {
        let finished = config(&["check", path], &[]);
        is_wrong(&finished);
        assert!(finished.stderr.starts_with(&format!("profiler: {path}: ")), "{}", finished.stderr);
    }
}

/// Nobody may ever open the other end of a pipe that has a name; the shell's own pipes end.
#[test]
fn a_named_pipe_is_refused_at_once_and_the_shells_pipes_are_read() {
    let folder = folder().expect("a folder");
    let pipe = folder.path().join("pipe");
    children::run_well(Command::new("mkfifo").arg(&pipe), PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    let start = std::time::Instant::now();
    let refused = config(&["check", &pipe.display().to_string()], &[]);
    is_wrong(&refused);
    assert!(refused.stderr.contains("named pipe"), "{}", refused.stderr);
    assert!(start.elapsed() < Duration::from_secs(10));
    let mut shell = Command::new("sh");
    shell.env_clear().env("PATH", "/usr/bin:/bin").arg("-c");
    shell.arg(format!("(sleep 0.3; echo 'rate: 19') | {} config check /dev/stdin", profiler().display()));
    let read = children::run(&mut shell, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    is_right(&read);
    assert!(read.stdout.contains("rate: 19  # /dev/stdin:1:7"), "{}", read.stdout);
}

#[test]
fn a_remote_configuration_narrows_and_what_widens_is_refused() {
    let place = folder().expect("a folder");
    let remote = place.path().join("fleet.yaml");
    let remote_text = remote.display().to_string();
    // There need not be one.
    is_right(&check("rate: 49\n", &["--remote", &remote_text], &[]));
    fs::write(&remote, "rate: 19\n").expect("written");
    let narrowed = check("rate: 49\n", &["--remote", &remote_text], &[]);
    is_right(&narrowed);
    let line = format!("rate: 19  # remote {remote_text}:1:7");
    assert!(narrowed.stdout.lines().any(|shown| shown == line), "{}", narrowed.stdout);
    fs::write(&remote, "rate: 99\nexporters: []\n").expect("written");
    let refused = check("rate: 49\n", &["--remote", &remote_text], &[]);
    is_wrong(&refused);
    for words in
        ["remote configuration is refused", "rate: would widen", "(c.yaml:1:7)", "exporters: is the host's own"]
    {
        assert!(refused.stderr.contains(words), "no {words:?} in\n{}", refused.stderr);
    }
}

#[test]
fn times_are_written_alike_in_the_file_and_on_the_command_line() {
    for window in ["90s", "1m30s", "1min 30s", "1.5m"] {
        let checked = check(&format!("window: {window}\n"), &["--set", "limits.memory=64MiB"], &[]);
        is_right(&checked);
        assert!(checked.stdout.contains("window: 90s  # c.yaml:1:9"), "{}", checked.stdout);
    }
    for wrong in ["10", "1m30", "30s1m", "2 minutes"] {
        let checked = check(&format!("window: {wrong}\n"), &[], &[]);
        is_wrong(&checked);
        assert!(checked.stderr.contains("like 500ms, 10s, 2min or 1m30s"), "{}", checked.stderr);
    }
}

#[test]
fn secrets_are_not_printed() {
    let text = "exporters: [{otlp: {headers: {authorization: 'Bearer ${env:TOKEN}', x: geheim}}}]\nlabels: {a: '${env:TOKEN}'}";
    let variables = [("TOKEN", "geheim"), ("OTEL_EXPORTER_OTLP_HEADERS", "y=geheim")];
    let right = check(text, &[], &variables);
    is_right(&right);
    assert!(right.stdout.contains("authorization: \"[hidden]\"") && right.stdout.contains("${env:TOKEN}"));
    let wrong = check(&format!("{text}\nrate: ${{env:TOKEN}}"), &[], &variables);
    is_wrong(&wrong);
    for shown in [right.stdout, wrong.stderr] {
        assert!(!shown.contains("geheim"), "{shown}");
    }
}

#[test]
fn what_is_printed_is_a_configuration_that_means_the_same() {
    let text = fs::read_to_string(repository().join("deploy/config.example.yaml")).expect("it is shipped");
    let first = check(&text, &[], &[]);
    is_right(&first);
    let second = check(&first.stdout, &[], &[]);
    is_right(&second);
    let values = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split("  # ").next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(values(&first.stdout), values(&second.stdout));
}

#[test]
fn the_schema_is_the_shipped_one() {
    let finished = config(&["schema"], &[]);
    is_right(&finished);
    let shipped = fs::read_to_string(repository().join("docs/config.schema.json")).expect("it is shipped");
    assert_eq!(finished.stdout, shipped);
}

/// What the Python packages `jsonschema` and `yaml` say of a file under the schema: `right`, or the first thing that is wrong.
const VALIDATE: &str = "
import json, sys, jsonschema, yaml
schema = json.load(open(sys.argv[1]))
validator = jsonschema.validators.validator_for(schema)
validator.check_schema(schema)
for path in sys.argv[2:]:
    errors = sorted(validator(schema).iter_errors(yaml.safe_load(open(path))), key=str)
    print('right' if not errors else errors[0].message.splitlines()[0])
";

/// The verdicts of another implementation.
fn verdicts(python: &str, files: &[&Path]) -> Vec<String> {
    let mut command = Command::new(python);
    command.args(["-c", VALIDATE]).arg(repository().join("docs/config.schema.json")).args(files);
    let finished = children::run_well(&mut command, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    finished.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn others_read_the_schema_as_we_mean_it() {
    let test = "others_read_the_schema_as_we_mean_it";
    let Some(python) = python_with(test, "jsonschema, yaml", "python3-jsonschema and python3-yaml") else { return };
    let right = ["controller/config/src/tests/everything.yaml", "deploy/config.example.yaml"]
        .map(|name| repository().join(name));
    let right: Vec<&Path> = right.iter().map(AsRef::as_ref).collect();
    assert_eq!(verdicts(python, &right), ["right", "right"]);

    let folder = folder().expect("a folder");
    let texts = [
        // Right.
        "{}",
        "rate: ${env:RATE}",
        "limits: {memory: off}",
        "exporters: [{otlp: {headers: {a: 1}, timeout: 1.5s}}]",
        "{window: 1m30s, jitter: 2s 500ms}",
        "log:\nexporters:\n- otlp:\n",
        // Wrong.
        "windw: 10s",
        "window: 10",
        "rate: 0",
        "rate: fast",
        "limits: {memory: 128MB}",
        "symbols: line",
        "exporters: [{name: a}]",
        "exporters: [{files: {}}]",
        "exporters: [{otlp: {}, files: {directory: /a}}]",
        "targets: {include: [{pid: [1]}]}",
        "exporters: {otlp: {}}",
    ];
    let paths: Vec<_> = (0..texts.len()).map(|index| folder.path().join(format!("{index}.yaml"))).collect();
    for (path, text) in paths.iter().zip(texts) {
        fs::write(path, text).expect("written");
    }
    let paths: Vec<&Path> = paths.iter().map(AsRef::as_ref).collect();
    let theirs = verdicts(python, &paths);
    assert_eq!(theirs.len(), texts.len());
    for (text, theirs) in texts.iter().zip(theirs) {
        let ours = check(text, &[], &[("RATE", "49")]);
        assert_eq!(ours.status.success(), theirs == "right", "{text}\nthey: {theirs}\nwe: {}", ours.stderr);
    }
}
