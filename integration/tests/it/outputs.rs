//! Outputs of root in a folder of another user, who puts there what he likes: nothing of root's is written to, nobody else gets
//! the profile, and nothing hangs.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use profiler_integration::children::{self, Finished};
use profiler_integration::environment::{beside_its_like, have_root, have_tools, profiler};
use profiler_integration::recording::folder;
use profiler_integration::rows::{rows, total};
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(60);
const NOBODY: u32 = 65534;

/// A folder of nobody, in which the profiler runs, and beside it a file of root's.
struct Scene {
    place: tempfile::TempDir,
}

impl Scene {
    fn set(test: &str) -> Option<Self> {
        if !have_root(test) || !have_tools(test, &["setpriv", "mkfifo", "ln"]) {
            return None;
        }
        let place = folder().expect("a folder");
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("ours");
        let scene = Self { place };
        fs::create_dir(scene.hostile()).expect("a folder");
        std::os::unix::fs::chown(scene.hostile(), Some(NOBODY), Some(NOBODY)).expect("given away");
        fs::write(scene.precious(), "precious").expect("written");
        Some(scene)
    }

    fn hostile(&self) -> PathBuf {
        self.place.path().join("hostile")
    }

    fn precious(&self) -> PathBuf {
        self.place.path().join("precious")
    }

    /// A shell of nobody's, in his folder.
    fn nobody(&self, line: &str) {
        let mut shell = Command::new("setpriv");
        shell.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]);
        shell.args(["sh", "-c", line]).current_dir(self.hostile());
        children::run_well(&mut shell, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    }

    /// `profiler record` of nothing much.
    fn record(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(profiler());
        command.env_remove("SUDO_UID").env_remove("SUDO_GID").current_dir(self.hostile());
        command.args(["record", "-p"]).arg(std::process::id().to_string()).args(arguments);
        command
    }

    fn refuses(&self, arguments: &[&str], words: &[&str]) {
        let begun = Instant::now();
        let finished = run(&mut self.record(arguments));
        assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
        for word in words {
            assert!(finished.stderr.contains(word), "no {word:?} in {}", finished.stderr);
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "not before the recording");
    }

    /// Nothing of root's was touched, and nothing unfinished is left.
    fn is_clean(&self, expected: &[&str]) {
        assert_eq!(fs::read_to_string(self.precious()).expect("readable"), "precious");
        let entries = fs::read_dir(self.hostile()).expect("readable").flatten();
        let mut left: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        left.sort();
        assert_eq!(left, expected);
    }
}

fn run(command: &mut Command) -> Finished {
    children::run(command, PATIENCE).unwrap_or_else(|error| panic!("{error}"))
}

fn is_private_file(path: &Path, owner: u32) {
    let found = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(found.is_file(), "{}", path.display());
    assert_eq!((found.mode() & 0o7777, found.uid()), (0o600, owner), "{}", path.display());
}

#[test]
fn root_no_link_in_anothers_folder_is_followed() {
    let Some(scene) = Scene::set("root_no_link_in_anothers_folder_is_followed") else { return };
    let _one = beside_its_like();
    scene.nobody("ln -s ../precious profile.pb.gz; ln -s /nowhere/at/all profile.html");
    // Whoever watches knows the pid in time; here it is known beforehand.
    let line = format!(
        "ln -s ../precious profile.html.partial-$$; ln -s ../precious profile.pb.gz.partial-$$; exec {} record -p {} -d 1",
        profiler().display(),
        std::process::id()
    );
    let mut shell = Command::new("sh");
    shell.env_remove("SUDO_UID").current_dir(scene.hostile()).args(["-c", &line]);
    let finished = run(&mut shell);
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    assert_eq!(fs::read_to_string(scene.precious()).expect("readable"), "precious");
    for name in ["profile.html", "profile.pb.gz"] {
        is_private_file(&scene.hostile().join(name), 0);
    }
}

#[test]
fn root_an_output_is_its_owners_alone() {
    let Some(scene) = Scene::set("root_an_output_is_its_owners_alone") else { return };
    let _one = beside_its_like();
    // Readable for all, once.
    fs::write(scene.hostile().join("a.html"), "old").expect("written");
    for (uid, gid, owner) in [(None, None, 0), (Some("12345"), Some("12346"), 12345), (Some("12345"), None, 12345)] {
        let mut command = scene.record(&["-d", "1", "-o", "a.html"]);
        for (name, value) in [("SUDO_UID", uid), ("SUDO_GID", gid)] {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let finished = run(&mut command);
        assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
        is_private_file(&scene.hostile().join("a.html"), owner);
    }
    scene.is_clean(&["a.html"]);
}

#[test]
fn root_what_cannot_be_given_to_who_called_sudo_is_told_once() {
    let test = "root_what_cannot_be_given_to_who_called_sudo_is_told_once";
    let Some(scene) = Scene::set(test) else { return };
    let _one = beside_its_like();
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-chown", "--inh-caps=-chown"]).arg(profiler()).current_dir(scene.place.path());
    command.args(["record", "-d", "1", "-p"]).arg(std::process::id().to_string());
    command.args(["-o", "a.html", "-o", "b.html"]).env("SUDO_UID", "12345").env("SUDO_GID", "12346");
    let finished = run(&mut command);
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    is_private_file(&scene.place.path().join("a.html"), 0);
    assert_eq!(finished.stderr.matches("sudo chown -R 12345:12346 a.html").count(), 1, "{}", finished.stderr);
    assert_eq!(finished.stderr.matches("sudo chown").count(), 1, "{}", finished.stderr);
}

#[test]
fn root_standard_output_that_is_a_file_keeps_what_is_in_it() {
    let Some(scene) = Scene::set("root_standard_output_that_is_a_file_keeps_what_is_in_it") else { return };
    let _one = beside_its_like();
    let record =
        |name: &str| format!("{} record -p {} -d 1 -q -f html -o {name}", profiler().display(), std::process::id());
    let out = scene.place.path().join("out");
    for line in [
        format!("echo head > out; {} >> out; echo tail >> out", record("/dev/stdout")),
        format!("(echo head; {}; echo tail) > out", record("/dev/stdout")),
        format!("(echo head; {}; echo tail) > out", record("/proc/self/fd/1")),
        format!("(echo head >&3; {}; ) 3>> out; echo tail >> out", record("/dev/fd/3")),
    ] {
        let _ = fs::remove_file(&out);
        let mut shell = Command::new("sh");
        shell.env_remove("SUDO_UID").current_dir(scene.place.path()).args(["-c", &line]);
        let finished = run(&mut shell);
        assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
        let text = fs::read_to_string(&out).expect("readable");
        let ends: String = text.chars().take(40).chain(text.chars().rev().take(40)).collect();
        assert!(text.starts_with("head\n<") && text.ends_with(">\ntail\n"), "{line}: {} bytes, {ends:?}", text.len());
    }
}

#[test]
fn root_a_pipe_under_a_default_name_or_of_another_user_is_refused() {
    let Some(scene) = Scene::set("root_a_pipe_under_a_default_name_or_of_another_user_is_refused") else { return };
    let _one = beside_its_like();
    scene.nobody("mkfifo profile.html");
    scene.refuses(&["-d", "60"], &["profile.html", "named pipe", "-o"]);
    scene.refuses(&["-d", "60", "-o", "profile.html"], &["profile.html", "pipe of user 65534"]);
    scene.is_clean(&["profile.html"]);
}

#[test]
fn root_a_link_to_a_device_is_refused() {
    let Some(scene) = Scene::set("root_a_link_to_a_device_is_refused") else { return };
    let _one = beside_its_like();
    scene.nobody("ln -s /dev/null profile.pb.gz");
    scene.refuses(&["-d", "60"], &["profile.pb.gz", "device"]);
    scene.refuses(&["-d", "60", "-o", "profile.pb.gz"], &["profile.pb.gz", "link of user 65534", "device"]);
    // Root's own link, where anybody could make it another.
    symlink("/dev/null", scene.hostile().join("own.html")).expect("linked");
    scene.refuses(&["-d", "60", "-o", "own.html"], &["own.html", "device"]);
    scene.is_clean(&["own.html", "profile.pb.gz"]);
    // By its own name it is what the user wants.
    let finished = run(&mut scene.record(&["-d", "1", "-f", "html", "-o", "/dev/null"]));
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    assert!(fs::metadata("/dev/null").expect("there").file_type().is_char_device());
}

#[test]
fn root_a_pipe_that_nobody_reads_is_given_up_by_ctrl_c() {
    let Some(scene) = Scene::set("root_a_pipe_that_nobody_reads_is_given_up_by_ctrl_c") else { return };
    let _one = beside_its_like();
    let pipe = scene.place.path().join("pipe");
    children::run_well(Command::new("mkfifo").arg(&pipe), PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    let name = pipe.display().to_string();
    let arguments = ["-d", "1", "-f", "pprof", "-o", &name];
    // Nobody opens it.
    let mut running = children::start(&mut scene.record(&arguments)).expect("it starts");
    assert!(running.says("Sampling ", PATIENCE).expect("it samples"));
    sleep(Duration::from_secs(2));
    let until = Instant::now() + PATIENCE;
    // The first may end the recording only, on a slow machine.
    while running.is_running() {
        assert!(Instant::now() < until, "it hangs");
        running.signal(Signal::INT);
        sleep(Duration::from_secs(1));
    }
    let finished = running.wait(PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
    assert!(finished.stderr.contains("nobody has opened the pipe"), "{}", finished.stderr);
    // Somebody does, and reads.
    let copy = scene.place.path().join("copy");
    let line = format!("cat {name} > {}", copy.display());
    let reader = children::start(Command::new("sh").args(["-c", &line])).expect("it starts");
    let finished = run(&mut scene.record(&arguments));
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    reader.wait(PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    let profile = profiler_formats::pprof::decode(&fs::read(&copy).expect("there")).expect("a whole profile");
    println!("{} in the pipe", total(&rows(&profile)));
    scene.is_clean(&[]);
}

#[test]
fn root_too_few_descriptors_are_told_with_the_way_out() {
    let Some(scene) = Scene::set("root_too_few_descriptors_are_told_with_the_way_out") else { return };
    let profile = scene.place.path().join("p.folded");
    let names: String = (0..64).map(|number| format!(" -o {number}.html")).collect();
    fs::write(&profile, "").expect("written");
    let line = format!("ulimit -n 32; exec {} convert {} {names}", profiler().display(), profile.display());
    let finished = run(Command::new("sh").current_dir(scene.hostile()).args(["-c", &line]));
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
    assert!(finished.stderr.contains("ulimit -n") && !finished.stderr.contains("place"), "{}", finished.stderr);
    scene.is_clean(&[]);
    let line = format!("ulimit -n 20; exec {} record -d 1", profiler().display());
    let finished = run(Command::new("sh").current_dir(scene.hostile()).args(["-c", &line]));
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
    assert!(finished.stderr.contains("ulimit -n"), "{}", finished.stderr);
    scene.is_clean(&[]);
}
