//! Runtimes that are newer than the machine's, of Debian unstable: each in a root directory of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use profiler_integration::children;
use profiler_integration::environment::{have, have_root, have_tools, one_at_a_time, target_folder};
use profiler_integration::java::{Mode, compile, prove_shares, record_shares};
use profiler_integration::proof::HERTZ;
use profiler_integration::python::{BAR_OF_FEW, program, prove_phases};
use profiler_integration::recording::{Recorded, record_running};
use profiler_integration::truth::Truth;
use profiler_kernels::Error;
use profiler_kernels::archives::Archives;
use profiler_kernels::packages::{Packages, Unstable};
use tempfile::TempDir;

/// Patience with a program that says its version.
const PATIENCE: Duration = Duration::from_secs(60);
/// The newest versions that are followed, Python's minor one and Java's.
const NEWEST: (u32, u32) = (15, 28);
/// Versions of Java that are maintained for years.
const LONG_TERM: [u32; 5] = [8, 11, 17, 21, 25];
/// What Pythons, and JVMs without windows, are linked with.
const LIBRARIES: [&str; 6] = ["libc6", "libexpat1", "libgcc-s1", "libstdc++6", "libzstd1", "zlib1g"];

/// A root directory with a runtime.
struct Root {
    folder: TempDir,
}

impl Root {
    fn lay_out(unstable: &Unstable, packages: &[&str]) -> Result<Self, Error> {
        let parent = packages_folder();
        let folder = tempfile::tempdir_in(&parent).map_err(Error::file("create a folder in", parent))?;
        let root = Self { folder };
        unstable.lay_out(packages, &root.path())?;
        fs::create_dir(root.path().join("proc")).map_err(Error::file("create", root.path().join("proc")))?;
        Ok(root)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// A program that runs `program` there, as the same process, with a `/proc`.
    fn starter(&self, program: &str) -> PathBuf {
        let starter = self.folder.path().join("start");
        // In a mount namespace of its own: nothing is left mounted.
        let text = format!(
            "#!/bin/sh\nexec unshare --mount sh -c 'mount --rbind /proc \"$0/proc\" && exec chroot \"$0\" \"$@\"' {} {program} \"$@\"\n",
            self.path().display()
        );
        fs::write(&starter, text).unwrap_or_else(|error| panic!("{error}"));
        fs::set_permissions(&starter, fs::Permissions::from_mode(0o755)).unwrap_or_else(|error| panic!("{error}"));
        starter
    }
}

fn packages_folder() -> PathBuf {
    target_folder().join("kernels")
}

/// Debian unstable, or in words why not.
fn unstable(test: &str) -> Option<Unstable> {
    let found = Archives::find(Archives::default())
        .and_then(|archives| Packages::new(&packages_folder(), archives).unstable())
        .map_err(|error| error.to_string());
    let trouble = found.as_ref().err().cloned().unwrap_or_default();
    have(test, found.is_ok(), &format!("Debian unstable ({trouble})")).then_some(found.ok()).flatten()
}

/// The runtime in `packages`, or in words why not.
fn root(test: &str, unstable: &Unstable, packages: &[&str]) -> Option<Root> {
    let found = Root::lay_out(unstable, packages).map_err(|error| error.to_string());
    let trouble = found.as_ref().err().cloned().unwrap_or_default();
    let what = format!("{} of Debian unstable ({trouble})", packages.last().unwrap_or(&"a runtime"));
    have(test, found.is_ok(), &what).then_some(found.ok()).flatten()
}

#[test]
fn root_python_of_debian_unstable_has_phases() {
    let test = "root_python_of_debian_unstable_has_phases";
    if !have_root(test) || !have_tools(test, &["unshare", "chroot"]) {
        return;
    }
    let fetching = one_at_a_time();
    let Some(unstable) = unstable(test) else { return };
    let mut versions = unstable.numbers("python3.", "-minimal").unwrap_or_else(|error| panic!("{error}"));
    versions.retain(|minor| (8..=NEWEST.0).contains(minor));
    assert!(!versions.is_empty(), "{test}: Debian unstable has no Python that is followed");
    drop(fetching);
    for minor in versions {
        let fetching = one_at_a_time();
        let own = [
            format!("libpython3.{minor}-minimal"),
            format!("libpython3.{minor}-stdlib"),
            format!("python3.{minor}-minimal"),
        ];
        let packages: Vec<&str> = LIBRARIES.into_iter().chain(own.iter().map(String::as_str)).collect();
        let Some(root) = root(test, &unstable, &packages) else { continue };
        fs::copy(program(), root.path().join("phases.py")).expect("a copy of the program");
        let start = root.starter(&format!("/usr/bin/python3.{minor}"));
        drop(fetching);
        prove_phases(&format!("python 3.{minor} of Debian unstable"), BAR_OF_FEW, || {
            record_running(HERTZ, &start, &["/phases.py", "--ms", "1200"])
        });
        // Trampolines. Later the 201 calls of the program's recursion have about as many frames as a stack can have, 1,024, and in 3.15 more.
        if (12..=13).contains(&minor) {
            prove_phases(&format!("python 3.{minor} of Debian unstable, -X perf"), BAR_OF_FEW, || {
                record_running(HERTZ, &start, &["-X", "perf", "/phases.py", "--ms", "1200"])
            });
        }
    }
}

/// The version of the machine's `java`: 17 of `openjdk version "17.0.15"`, 8 of `"1.8.0_412"`.
fn javas_own_version() -> Option<u32> {
    let told = children::run_well(Command::new("java").arg("-version"), PATIENCE).ok()?.stderr;
    let mut numbers = told.split('"').nth(1)?.split(['.', '-', '_']).map(str::parse::<u32>);
    match numbers.next()?.ok()? {
        1 => numbers.next()?.ok(),
        version => Some(version),
    }
}

/// Where `java` is in a root directory, as it is called there.
fn java_in(root: &Path, version: u32) -> Option<String> {
    let home = format!("/usr/lib/jvm/java-{version}-openjdk-amd64");
    let places = [format!("{home}/bin/java"), format!("{home}/jre/bin/java")];
    places.into_iter().find(|place| root.join(place.trim_start_matches('/')).is_file())
}

#[test]
fn root_openjdk_of_debian_unstable_has_phases() {
    let test = "root_openjdk_of_debian_unstable_has_phases";
    if !have_root(test) || !have_tools(test, &["unshare", "chroot", "javac"]) {
        return;
    }
    let fetching = one_at_a_time();
    let Some(unstable) = unstable(test) else { return };
    let mut versions = unstable.numbers("openjdk-", "-jre-headless").unwrap_or_else(|error| panic!("{error}"));
    versions.retain(|version| (8..=NEWEST.1).contains(version));
    let newest = versions.last().copied();
    // What the machine has is recorded by the tests of `profiler-integration`.
    let own = javas_own_version();
    versions.retain(|version| (LONG_TERM.contains(version) || newest == Some(*version)) && own != Some(*version));
    assert!(!versions.is_empty(), "{test}: Debian unstable has no JVM that is followed");
    drop(fetching);
    for version in versions {
        let fetching = one_at_a_time();
        let own = format!("openjdk-{version}-jre-headless");
        let packages: Vec<&str> = LIBRARIES.into_iter().chain([own.as_str()]).collect();
        let Some(root) = root(test, &unstable, &packages) else { continue };
        let java = java_in(&root.path(), version).unwrap_or_else(|| panic!("{own} has no java"));
        let classes = root.path().join("classes");
        fs::create_dir(&classes).expect("a folder of its own");
        compile(&classes).unwrap_or_else(|error| panic!("{error}"));
        let start = root.starter(&java);
        drop(fetching);
        // The second compiler of 8 says nothing of what is inlined into a counted loop.
        let mode = if version == 8 { Mode::FIRST_COMPILER } else { Mode::MIXED };
        prove_shares(&format!("openjdk {version} of Debian unstable"), &mode, || {
            let recorded = record_shares(&start, "/classes", &mode, "2000")?;
            // A busy machine has some per cent more samples than CPU time, whatever runs: they are counted in the tests of the machine's own JVM.
            Ok(Recorded { truth: Truth { is_partial: true, ..recorded.truth }, ..recorded })
        });
    }
}
