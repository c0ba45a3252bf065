//! Builds the ground-truth programs of `programs/`, each variant once.
//!
//! What is built goes to `target/ground-truth/KEY/`, where the key is a hash of the sources and of all commands: a second
//! call, from another test or another day, finds the file.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::environment::{find, repository, target_folder};
use crate::{Error, children};

/// Frame pointers omitted, with the little debug information that a distribution's build has.
const C_FLAGS: &[&str] = &["-O2", "-g1", "-fomit-frame-pointer"];

/// How an executable is linked, and by what compiler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Linking {
    /// gcc, position-independent.
    #[default]
    Pie,
    /// gcc, at a fixed address.
    NoPie,
    /// gcc, without shared libraries, position-independent.
    StaticPie,
    /// gcc, without shared libraries, at a fixed address.
    Static,
    /// musl-gcc, without shared libraries.
    Musl,
    /// clang, position-independent.
    Clang,
    /// A shared library.
    Library,
}

/// Where an executable's symbols are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SymbolTables {
    /// In the executable.
    #[default]
    Kept,
    /// Nowhere.
    Stripped,
    /// In a file beside it that `.gnu_debuglink` names.
    DebugLink,
    /// Compressed in `.gnu_debugdata`, as Fedora has it.
    MiniDebugInfo,
}

/// A program of `programs/` and how to build it.
#[derive(Clone, Debug, Hash)]
pub struct Program {
    language: Language,
    source: String,
    linking: Linking,
    symbols: SymbolTables,
    flags: Vec<String>,
    /// What Go calls the architecture; the machine's own if empty.
    architecture: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Language {
    C,
    Cpp,
    Rust,
    Go,
}

/// `programs/c/SOURCE.c`
#[must_use]
pub fn c(source: &str) -> Program {
    Program::new(Language::C, source)
}

/// `programs/cpp/SOURCE.cpp`
#[must_use]
pub fn cpp(source: &str) -> Program {
    Program::new(Language::Cpp, source)
}

/// `programs/rust/SOURCE.rs`
#[must_use]
pub fn rust(source: &str) -> Program {
    Program::new(Language::Rust, source)
}

/// `programs/go/SOURCE/`
#[must_use]
pub fn go(source: &str) -> Program {
    Program::new(Language::Go, source)
}

impl Program {
    fn new(language: Language, source: &str) -> Self {
        Self {
            language,
            source: source.into(),
            linking: Linking::default(),
            symbols: SymbolTables::default(),
            flags: Vec::new(),
            architecture: String::new(),
        }
    }

    /// Links as `linking` says.
    #[must_use]
    pub fn linking(mut self, linking: Linking) -> Self {
        self.linking = linking;
        self
    }

    /// Leaves symbols as `symbols` says.
    #[must_use]
    pub fn symbols(mut self, symbols: SymbolTables) -> Self {
        self.symbols = symbols;
        self
    }

    /// Adds flags for the compiler (or for `go build`).
    #[must_use]
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
        self
    }

    /// Builds a Go program for another architecture (`386`).
    #[must_use]
    pub fn architecture(mut self, architecture: &str) -> Self {
        self.architecture = architecture.into();
        self
    }

    /// The built file.
    pub fn build(&self) -> Result<PathBuf, Error> {
        static BUILDING: Mutex<()> = Mutex::new(());
        let _one = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = target_folder().join("ground-truth").join(format!("{:016x}", self.key()?));
        let name = match self.linking {
            Linking::Library => format!("lib{}.so", self.source),
            _ => self.source.clone(),
        };
        let file = folder.join(&name);
        if file.is_file() {
            return Ok(file);
        }
        // Built elsewhere and moved into place whole, since another process may be building the same.
        let parent = target_folder().join("ground-truth");
        fs::create_dir_all(&parent).map_err(Error::file("create", &parent))?;
        let work = tempfile::tempdir_in(&parent).map_err(Error::file("create a folder in", &parent))?;
        let made = work.path().join(&name);
        run(self.compile(&made)?)?;
        self.place_symbols(&made)?;
        if fs::rename(work.path(), &folder).is_err() && !file.is_file() {
            return Err(Error::file("move into place", &folder)(std::io::Error::last_os_error()));
        }
        Ok(file)
    }

    fn sources(&self) -> PathBuf {
        let programs = repository().join("integration/programs");
        programs.join(match self.language {
            Language::C => "c",
            Language::Cpp => "cpp",
            Language::Rust => "rust",
            Language::Go => "go",
        })
    }

    fn key(&self) -> Result<u64, Error> {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        C_FLAGS.hash(&mut hasher);
        let mut folders = vec![self.sources()];
        if self.language == Language::Cpp {
            folders.push(repository().join("integration/programs/c"));
        }
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(Error::file("read", &folder))? {
                let path = entry.map_err(Error::file("read", &folder))?.path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files.sort_unstable();
        for file in files {
            // A program depends on its own source and on what several share.
            let stem = file.file_stem().unwrap_or_default().to_string_lossy();
            if self.language == Language::Go || stem == self.source || stem == "truth" {
                file.hash(&mut hasher);
                fs::read(&file).map_err(Error::file("read", &file))?.hash(&mut hasher);
            }
        }
        Ok(hasher.finish())
    }

    fn compile(&self, output: &Path) -> Result<Command, Error> {
        let sources = self.sources();
        let mut command;
        match self.language {
            Language::C | Language::Cpp => {
                let (gcc, clang, extension) = match self.language {
                    Language::C => ("gcc", "clang", "c"),
                    _ => ("g++", "clang++", "cpp"),
                };
                command = Command::new(match self.linking {
                    Linking::Musl => "musl-gcc".into(),
                    Linking::Clang => newest(clang),
                    _ => gcc.to_owned(),
                });
                command.args(C_FLAGS).args(match self.linking {
                    Linking::Pie | Linking::Clang => &["-fPIE", "-pie"][..],
                    Linking::NoPie => &["-no-pie", "-fno-pie"],
                    Linking::StaticPie => &["-static-pie", "-fPIE"],
                    Linking::Static => &["-static", "-no-pie", "-fno-pie"],
                    Linking::Musl => &["-static"],
                    Linking::Library => &["-fPIC", "-shared"],
                });
                command.arg(sources.join(format!("{}.{extension}", self.source))).arg("-o").arg(output);
                command.args(&self.flags).args(["-lpthread", "-ldl"]);
            }
            Language::Rust => {
                command = Command::new("rustc");
                command.args(["--edition", "2024", "-O", "-C", "force-frame-pointers=no"]).args(&self.flags);
                command.arg(sources.join(format!("{}.rs", self.source))).arg("-o").arg(output);
            }
            Language::Go => {
                command = Command::new(find("go").unwrap_or_else(|| "go".into()));
                command.env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=mod").current_dir(&sources);
                if !self.architecture.is_empty() {
                    command.env("GOARCH", &self.architecture);
                }
                command.arg("build").args(&self.flags).arg("-o").arg(output).arg(format!("./{}", self.source));
            }
        }
        Ok(command)
    }

    fn place_symbols(&self, file: &Path) -> Result<(), Error> {
        let debug = file.with_extension("debug");
        let mini = file.with_extension("mini");
        let tool = |name: &str, arguments: &[&str], files: &[&Path]| {
            let mut command = Command::new(name);
            command.args(arguments).args(files);
            run(command)
        };
        let add = |section: &str, from: &Path| format!("--add-section={section}={}", from.display());
        match self.symbols {
            SymbolTables::Kept => Ok(()),
            SymbolTables::Stripped => tool("strip", &[], &[file]),
            SymbolTables::DebugLink => {
                tool("objcopy", &["--only-keep-debug"], &[file, &debug])?;
                tool("strip", &[], &[file])?;
                tool("objcopy", &[&format!("--add-gnu-debuglink={}", debug.display())], &[file])
            }
            SymbolTables::MiniDebugInfo => {
                tool("objcopy", &["--only-keep-debug", "--strip-debug"], &[file, &mini])?;
                tool("xz", &["--keep"], &[&mini])?;
                tool("strip", &[], &[file])?;
                tool("objcopy", &[&add(".gnu_debugdata", &mini.with_extension("mini.xz"))], &[file])
            }
        }
    }
}

/// `compiler`, or its newest version that is installed under a versioned name.
fn newest(compiler: &str) -> String {
    if find(compiler).is_some() {
        return compiler.into();
    }
    (14..=25)
        .rev()
        .map(|version| format!("{compiler}-{version}"))
        .find(|name| find(name).is_some())
        .unwrap_or_else(|| compiler.into())
}

fn run(mut command: Command) -> Result<(), Error> {
    children::run_well(&mut command, Duration::from_secs(180)).map(drop)
}
