//! Debian's packages, by an apt of our own: its sources and lists touch nothing of the machine's, and it checks the archive's
//! signatures and every package's checksum.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use profiler_integration::children;

use crate::archives::{Archive, Archives};
use crate::error::Error;

/// Lists older than this are fetched anew.
const LISTS_LAST: Duration = Duration::from_secs(24 * 3600);
/// Patience with apt.
const PATIENCE: Duration = Duration::from_secs(300);
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A kernel to test: the newest cloud kernel of a release of Debian.
#[derive(Debug)]
pub struct Release {
    /// What it is called here.
    pub name: &'static str,
    /// Its processor.
    pub processor: Processor,
    /// Archive and suite.
    sources: &'static [(Archive, &'static str)],
}

/// A processor that is emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processor {
    /// x86-64, on which the whole profiler runs.
    X86,
    /// arm64, on which its kernel half does.
    Arm64,
}

impl Processor {
    /// What Debian calls it.
    const fn debian(self) -> &'static str {
        match self {
            Self::X86 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

const BULLSEYE: &[(Archive, &str)] = &[(Archive::Security, "bullseye-security")];
const BOOKWORM: &[(Archive, &str)] = &[(Archive::Security, "bookworm-security"), (Archive::Main, "bookworm")];
const TRIXIE: &[(Archive, &str)] = &[(Archive::Security, "trixie-security"), (Archive::Main, "trixie")];
const SID: &[(Archive, &str)] = &[(Archive::Main, "sid")];

/// What is promised, oldest first, and then where only the kernel half is shown.
pub const RELEASES: &[Release] = &[
    Release { name: "5.10", processor: Processor::X86, sources: BULLSEYE },
    Release { name: "6.1", processor: Processor::X86, sources: BOOKWORM },
    Release { name: "6.12", processor: Processor::X86, sources: TRIXIE },
    Release { name: "sid", processor: Processor::X86, sources: SID },
    Release { name: "5.10-arm64", processor: Processor::Arm64, sources: &[(Archive::Main, "bullseye")] },
    Release { name: "6.1-arm64", processor: Processor::Arm64, sources: BOOKWORM },
    Release { name: "6.12-arm64", processor: Processor::Arm64, sources: TRIXIE },
    Release { name: "sid-arm64", processor: Processor::Arm64, sources: SID },
];
/// Whose packages [`Packages::unstable`] are.
const UNSTABLE: &str = "sid";
/// Where tools for guests come from.
const TOOLS: [&str; 2] = ["6.1", "6.1-arm64"];

/// A kernel that is there.
#[derive(Debug)]
pub struct Kernel {
    /// The package's version.
    pub version: String,
    /// The compressed image that qemu boots.
    pub image: PathBuf,
}

/// Debian's packages, kept below a folder.
#[derive(Clone, Debug)]
pub struct Packages {
    folder: PathBuf,
    archives: Archives,
}

impl Packages {
    /// Packages from `archives`, kept below `folder`.
    #[must_use]
    pub fn new(folder: &Path, archives: Archives) -> Self {
        Self { folder: folder.to_owned(), archives }
    }

    /// The folder of everything that is fetched or built for guests.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The newest cloud kernel of `release`.
    ///
    /// # Errors
    /// It cannot be fetched.
    pub fn kernel(&self, release: &Release) -> Result<Kernel, Error> {
        let apt = Apt::new(self, release)?;
        let missing = |what: &str| Error::NoPackage { what: what.into(), release: release.name };
        let flavour = format!("-cloud-{}", release.processor.debian());
        let meta = format!("linux-image{flavour}");
        let meta = apt.newest(&meta)?.ok_or_else(|| missing(&meta))?;
        let is_kernel = |name: &&str| name.starts_with("linux-image-") && name.ends_with(&flavour);
        let image =
            meta.dependencies().find(is_kernel).ok_or_else(|| missing("kernel that linux-image-cloud-* names"))?;
        // From 6.19 on the image has a package of its own, and linux-image-* is empty.
        let split = apt.newest(image)?.and_then(|package| {
            package.dependencies().find(|name| name.starts_with("linux-binary-")).map(str::to_owned)
        });
        let package = split.as_deref().unwrap_or(image);
        let tree = apt.unpacked(package)?;
        let image = ["boot", "usr/lib/modules"].iter().find_map(|at| find(&tree.join(at), "vmlinuz", 1));
        Ok(Kernel {
            version: meta.version().to_owned(),
            image: image.ok_or_else(|| missing(&format!("vmlinuz of {package}")))?,
        })
    }

    /// The folder with the files of `package` for guests with `processor`.
    ///
    /// # Errors
    /// It cannot be fetched.
    pub fn tool(&self, processor: Processor, package: &str) -> Result<PathBuf, Error> {
        let of = |release: &&Release| TOOLS.contains(&release.name) && release.processor == processor;
        let release = RELEASES.iter().find(of).unwrap_or(&RELEASES[0]);
        Apt::new(self, release)?.unpacked(package)
    }

    /// Debian unstable, for runtimes that are newer than the machine's.
    ///
    /// # Errors
    /// Its lists cannot be fetched.
    pub fn unstable(&self) -> Result<Unstable, Error> {
        let missing = || Error::NoPackage { what: UNSTABLE.into(), release: "the releases" };
        let release = RELEASES.iter().find(|release| release.name == UNSTABLE).ok_or_else(missing)?;
        Apt::new(self, release).map(Unstable)
    }

    /// A static busybox, for the guest's shell.
    ///
    /// # Errors
    /// It cannot be fetched.
    pub fn busybox(&self, processor: Processor) -> Result<PathBuf, Error> {
        let tree = self.tool(processor, "busybox-static")?;
        let found = ["bin", "usr/bin"].iter().map(|at| tree.join(at).join("busybox")).find(|file| file.is_file());
        found.ok_or_else(|| Error::NoPackage { what: "busybox".into(), release: "what was fetched" })
    }
}

/// Debian unstable.
pub struct Unstable(Apt);

impl Unstable {
    /// The numbers `N` of which it has a package `BEFORE N AFTER`, ascending.
    ///
    /// # Errors
    /// apt does not tell.
    pub fn numbers(&self, before: &str, after: &str) -> Result<Vec<u32>, Error> {
        let names = children::run_well(self.0.command("apt-cache").args(["pkgnames", before]), PATIENCE)?;
        let number = |name: &str| name.strip_prefix(before)?.strip_suffix(after)?.parse().ok();
        let mut numbers: Vec<u32> = names.stdout.lines().filter_map(number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        Ok(numbers)
    }

    /// Makes `folder`, which is on the same file system as what is fetched, a root directory with the files of `packages`.
    ///
    /// # Errors
    /// One of them cannot be fetched, or linked there.
    pub fn lay_out(&self, packages: &[&str], folder: &Path) -> Result<(), Error> {
        // Unstable has all its programs and libraries below /usr.
        for name in ["bin", "lib", "lib64", "sbin"] {
            let target = Path::new("usr").join(name);
            let made = folder.join(&target);
            fs::create_dir_all(&made).map_err(Error::file("create", &made))?;
            let link = folder.join(name);
            std::os::unix::fs::symlink(&target, &link).map_err(Error::file("link", &link))?;
        }
        for tree in self.0.all_unpacked(packages)? {
            for part in ["usr", "etc"] {
                let from = tree.join(part);
                if from.is_dir() {
                    let mut copy = Command::new("cp");
                    copy.args(["--archive", "--link", "--no-target-directory"]).arg(from).arg(folder.join(part));
                    children::run_well(&mut copy, PATIENCE)?;
                }
            }
        }
        Ok(())
    }
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
    architecture: &'static str,
}

impl Apt {
    fn new(packages: &Packages, release: &Release) -> Result<Self, Error> {
        let folder = &packages.folder;
        let architecture = release.processor.debian();
        let debs = folder.join("debs").join(architecture);
        let apt = Self { root: folder.join("apt").join(release.name), debs, architecture };
        for folder in ["lists/partial", "cache/archives/partial", "none"] {
            let folder = apt.root.join(folder);
            fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
        }
        fs::create_dir_all(&apt.debs).map_err(Error::file("create", &apt.debs))?;
        let write = |name: &str, text: &str| {
            let file = apt.root.join(name);
            fs::write(&file, text).map_err(Error::file("write", &file))
        };
        let source = |(archive, suite): &(Archive, &str)| {
            let uri = packages.archives.uri(*archive)?;
            Some(format!("deb [arch={architecture} signed-by={KEYRING}] {uri} {suite} main\n"))
        };
        let sources: String = release.sources.iter().filter_map(source).collect();
        if sources.is_empty() {
            return Err(Error::NoArchive { release: release.name });
        }
        write("sources.list", &sources)?;
        write("status", "")?;
        let updated = apt.root.join("updated");
        // The file says of which sources the lists are.
        let is_of_these = fs::read_to_string(&updated).is_ok_and(|of| of == sources);
        let age = fs::metadata(&updated).and_then(|file| file.modified()).ok().filter(|_| is_of_these);
        if age.and_then(|then| SystemTime::now().duration_since(then).ok()).is_none_or(|age| age > LISTS_LAST) {
            eprintln!(
                "{}: fetching the lists of {}",
                release.name,
                release.sources.iter().map(|(_, suite)| *suite).collect::<Vec<_>>().join(", ")
            );
            let mut update = apt.command("apt-get");
            update.args(["-q", "update", "-o", "APT::Update::Error-Mode=any"]);
            match children::run_well(&mut update, PATIENCE) {
                Ok(_) => write("updated", &sources)?,
                // Old lists serve: what they name may be here already.
                Err(error) if age.is_some() => eprintln!("{}: going on with old lists: {error}", release.name),
                Err(source) => return Err(Error::Unreachable { release: release.name, source }),
            }
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
            // Images of containers have them turned off, and each call takes seconds of CPU time then.
            ("Dir::Cache::pkgcache", "pkgcache.bin".into()),
            ("Dir::Cache::srcpkgcache", "srcpkgcache.bin".into()),
            ("APT::Architecture", self.architecture.into()),
            ("APT::Architectures", self.architecture.into()),
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
        let missing = || Error::NoPackage { what: package.into(), release: "what was fetched" };
        self.all_unpacked(&[package])?.pop().ok_or_else(missing)
    }

    /// The same of several, which are asked for at once.
    fn all_unpacked(&self, packages: &[&str]) -> Result<Vec<PathBuf>, Error> {
        let mut show = self.command("apt-cache");
        let told = children::run(show.args(["show", "--no-all-versions"]).args(packages), PATIENCE)?.stdout;
        let told: Vec<Package> = told.split("\n\n").map(|stanza| Package(stanza.to_owned())).collect();
        let mut wanted = Vec::with_capacity(packages.len());
        for &package in packages {
            let version = told.iter().find(|told| told.field("Package") == package).map_or("", Package::version);
            let name = format!("{package}_{}", version.replace(['/', ':'], "_"));
            wanted.push((package, self.debs.join(&name), name));
        }
        let missing: Vec<_> = wanted.iter().filter(|(_, tree, _)| !tree.is_dir()).collect();
        if !missing.is_empty() {
            let fetched = tempfile::tempdir_in(&self.debs).map_err(Error::file("create a folder in", &self.debs))?;
            let mut download = self.command("apt-get");
            download.args(["-q", "download"]).current_dir(fetched.path());
            for (package, _, name) in &missing {
                eprintln!("fetching {name}");
                download.arg(package);
            }
            children::run_well(&mut download, PATIENCE)
                .map_err(|source| Error::Unreachable { release: "the lists", source })?;
            for (package, tree, _) in missing {
                let missing = || Error::NoPackage { what: (*package).into(), release: "what was fetched" };
                let deb = find(fetched.path(), &format!("{package}_"), 0).ok_or_else(missing)?;
                let partial = fetched.path().join(package);
                children::run_well(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&partial), PATIENCE)?;
                fs::rename(&partial, tree).map_err(Error::file("move into place", tree))?;
            }
        }
        Ok(wanted.into_iter().map(|(_, tree, _)| tree).collect())
    }
}
