//! Debian's packages, by an apt of our own: its sources and lists touch nothing of the machine's, and it checks the archive's
//! signatures and every package's checksum.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use profiler_integration::children;

use crate::error::Error;

/// Lists older than this are fetched anew.
const LISTS_LAST: Duration = Duration::from_secs(24 * 3600);
/// Patience with apt.
const PATIENCE: Duration = Duration::from_secs(300);
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Depends on the newest cloud kernel of its release.
const META: &str = "linux-image-cloud-amd64";

/// A kernel to test: the newest of a release of Debian.
#[derive(Debug)]
pub struct Release {
    /// What it is called here.
    pub name: &'static str,
    /// Archive and suite.
    sources: &'static [(&'static str, &'static str)],
}

const DEBIAN: &str = "http://deb.debian.org/debian";
const SECURITY: &str = "http://deb.debian.org/debian-security";

/// What is promised, oldest first.
pub const RELEASES: &[Release] = &[
    Release { name: "5.10", sources: &[(SECURITY, "bullseye-security")] },
    Release { name: "6.1", sources: &[(SECURITY, "bookworm-security")] },
    Release { name: "6.12", sources: &[(SECURITY, "trixie-security"), (DEBIAN, "trixie")] },
    Release { name: "sid", sources: &[(DEBIAN, "sid")] },
];

/// A kernel that is there.
#[derive(Debug)]
pub struct Kernel {
    /// The package's version.
    pub version: String,
    /// The compressed image that qemu boots.
    pub image: PathBuf,
}

/// The newest cloud kernel of `release`, below `folder`.
pub fn kernel(folder: &Path, release: &Release) -> Result<Kernel, Error> {
    let apt = Apt::new(folder, release)?;
    let missing = |what: &str| Error::NoPackage { what: what.into(), release: release.name };
    let meta = apt.newest(META)?.ok_or_else(|| missing(META))?;
    let is_kernel = |name: &&str| name.starts_with("linux-image-") && name.ends_with("-cloud-amd64");
    let image =
        meta.dependencies().find(is_kernel).ok_or_else(|| missing("kernel that linux-image-cloud-amd64 names"))?;
    // From 6.19 on the image has a package of its own, and linux-image-* is empty.
    let split = apt
        .newest(image)?
        .and_then(|package| package.dependencies().find(|name| name.starts_with("linux-binary-")).map(str::to_owned));
    let package = split.as_deref().unwrap_or(image);
    let tree = apt.unpacked(package)?;
    let image = ["boot", "usr/lib/modules"].iter().find_map(|at| find(&tree.join(at), "vmlinuz", 1));
    Ok(Kernel {
        version: meta.version().to_owned(),
        image: image.ok_or_else(|| missing(&format!("vmlinuz of {package}")))?,
    })
}

/// A static busybox, for the guest's shell.
pub fn busybox(folder: &Path) -> Result<PathBuf, Error> {
    let release = RELEASES.iter().find(|release| release.name == "6.12").unwrap_or(&RELEASES[0]);
    let tree = Apt::new(folder, release)?.unpacked("busybox-static")?;
    let found = ["bin", "usr/bin"].iter().map(|at| tree.join(at).join("busybox")).find(|file| file.is_file());
    found.ok_or_else(|| Error::NoPackage { what: "busybox".into(), release: release.name })
}

/// The first file below `folder`, at most `depth` folders down, whose name begins with `name`.
fn find(folder: &Path, name: &str, depth: usize) -> Option<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(folder).ok()?.filter_map(Result::ok).map(|entry| entry.path()).collect();
    entries.sort_unstable();
    entries.into_iter().find_map(|path| {
        if path.is_dir() {
            return depth.checked_sub(1).and_then(|depth| find(&path, name, depth));
        }
        path.file_name()?.to_string_lossy().starts_with(name).then_some(path)
    })
}

/// What `apt-cache show` prints of a package.
struct Package(String);

impl Package {
    fn field(&self, name: &str) -> &str {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
    }

    fn version(&self) -> &str {
        self.field("Version")
    }

    fn dependencies(&self) -> impl Iterator<Item = &str> {
        self.field("Depends").split(',').filter_map(|dependency| dependency.split_whitespace().next())
    }
}

/// apt with its own sources, lists and state.
struct Apt {
    root: PathBuf,
    debs: PathBuf,
}

impl Apt {
    fn new(folder: &Path, release: &Release) -> Result<Self, Error> {
        let apt = Self { root: folder.join("apt").join(release.name), debs: folder.join("debs") };
        for folder in ["lists/partial", "cache/archives/partial", "none"] {
            let folder = apt.root.join(folder);
            fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
        }
        fs::create_dir_all(&apt.debs).map_err(Error::file("create", &apt.debs))?;
        let write = |name: &str, text: &str| {
            let file = apt.root.join(name);
            fs::write(&file, text).map_err(Error::file("write", &file))
        };
        let source =
            |(archive, suite): &(&str, &str)| format!("deb [arch=amd64 signed-by={KEYRING}] {archive} {suite} main\n");
        write("sources.list", &release.sources.iter().map(source).collect::<String>())?;
        write("status", "")?;
        let updated = apt.root.join("updated");
        let age = fs::metadata(&updated).and_then(|file| file.modified()).ok();
        if age.and_then(|then| SystemTime::now().duration_since(then).ok()).is_none_or(|age| age > LISTS_LAST) {
            eprintln!(
                "{}: fetching the lists of {}",
                release.name,
                release.sources.iter().map(|(_, suite)| *suite).collect::<Vec<_>>().join(", ")
            );
            children::run_well(
                apt.command("apt-get").args(["-q", "update", "-o", "APT::Update::Error-Mode=any"]),
                PATIENCE,
            )?;
            write("updated", "")?;
        }
        Ok(apt)
    }

    /// `tool` on our sources. What else is configured on the machine (a proxy, say) holds.
    fn command(&self, tool: &str) -> Command {
        let mut command = Command::new(tool);
        let at = |name: &str| self.root.join(name).display().to_string();
        for (option, value) in [
            ("Dir::Etc::sourcelist", at("sources.list")),
            ("Dir::Etc::sourceparts", at("none")),
            ("Dir::Etc::preferences", at("none/preferences")),
            ("Dir::Etc::preferencesparts", at("none")),
            ("Dir::State", at("")),
            ("Dir::State::lists", at("lists")),
            ("Dir::State::status", at("status")),
            ("Dir::Cache", at("cache")),
            ("APT::Architecture", "amd64".into()),
            ("APT::Architectures", "amd64".into()),
            ("APT::Sandbox::User", "root".into()),
            ("Acquire::Languages", "none".into()),
            ("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false".into()),
        ] {
            command.arg("-o").arg(format!("{option}={value}"));
        }
        command
    }

    /// The newest version of `package`, if there is one.
    fn newest(&self, package: &str) -> Result<Option<Package>, Error> {
        let found = children::run(self.command("apt-cache").args(["show", "--no-all-versions", package]), PATIENCE)?;
        Ok((found.status.success() && !found.stdout.is_empty()).then_some(Package(found.stdout)))
    }

    /// The folder with the files of `package`, fetched and unpacked once.
    fn unpacked(&self, package: &str) -> Result<PathBuf, Error> {
        let version = self.newest(package)?.map(|found| found.version().replace(['/', ':'], "_")).unwrap_or_default();
        let tree = self.debs.join(format!("{package}_{version}"));
        if tree.is_dir() {
            return Ok(tree);
        }
        let fetched = self.debs.join(format!("{package}_{version}.fetched"));
        let _ = fs::remove_dir_all(&fetched);
        fs::create_dir_all(&fetched).map_err(Error::file("create", &fetched))?;
        eprintln!("fetching {package} {version}");
        children::run_well(self.command("apt-get").args(["-q", "download", package]).current_dir(&fetched), PATIENCE)?;
        let missing = || Error::NoPackage { what: package.into(), release: "what was fetched" };
        let deb = find(&fetched, package, 0).ok_or_else(missing)?;
        let partial = self.debs.join(format!("{package}_{version}.partial"));
        children::run_well(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&partial), PATIENCE)?;
        fs::rename(&partial, &tree).map_err(Error::file("move into place", &tree))?;
        let _ = fs::remove_dir_all(&fetched);
        Ok(tree)
    }
}
