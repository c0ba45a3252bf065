//! Programs to look into, and other people's tools to compare with.

use profiler_address::ElfVaddr;
use profiler_need::{have_tools, llvm_tool};
use profiler_symbolizer::{Object, ObjectKey, Options, Symbolized, Symbolizer};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

/// A frame as compared: linkage name, file, line.
pub type Place = (String, String, u32);

/// Runs a program; false, where that may be, if it is not there.
pub fn run(program: &str, arguments: &[&str]) -> bool {
    if !have_tools(&format!("{program} {}", arguments.join(" ")), &[program]) {
        return false;
    }
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    true
}

/// Path of a source of a test program.
pub fn source(name: &str) -> String {
    format!("{}/tests/programs/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Output of a program that reads `input`; none, where that may be, if it is not there.
pub fn output(program: &str, arguments: &[&str], input: &str) -> Option<String> {
    if !have_tools(&format!("{program} {}", arguments.join(" ")), &[program]) {
        return None;
    }
    let mut command = Command::new(program);
    let child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = child.unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join();
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub fn object(path: &Path) -> Object {
    Object {
        key: ObjectKey(path.to_string_lossy().into()),
        file: Arc::new(File::open(path).unwrap()),
        path: path.to_string_lossy().into_owned(),
        root: PathBuf::from("/"),
        held: None,
    }
}

pub fn options(source_lines: bool) -> Options {
    Options { source_lines, ..Options::default() }
}

/// Ours, for a file and options.
pub fn ours(path: &Path, options: Options, addresses: &[u64]) -> Vec<Symbolized> {
    let addresses: Vec<_> = addresses.iter().map(|address| ElfVaddr(*address)).collect();
    let mut symbolizer = Symbolizer::new(options);
    let found = symbolizer.native(&object(path), &addresses);
    assert_eq!(symbolizer.stats().panics, 0);
    found
}

/// Names alone, innermost first.
pub fn names(found: &[Symbolized]) -> Vec<Vec<String>> {
    found.iter().map(|s| s.frames.iter().map(|f| f.system_name.to_string()).collect()).collect()
}

/// (start, size) of a section.
pub fn section(path: &Path, name: &str) -> (u64, u64) {
    let text = output("readelf", &["-SW", &path.to_string_lossy()], "").unwrap();
    let line = text.lines().find(|line| line.split_whitespace().any(|word| word == name)).unwrap();
    let words: Vec<_> = line.split(']').nth(1).unwrap().split_whitespace().collect();
    (u64::from_str_radix(words[2], 16).unwrap(), u64::from_str_radix(words[4], 16).unwrap())
}

/// `count` addresses spread over a section, always the same.
pub fn spread(section: (u64, u64), count: u64) -> Vec<u64> {
    let mut state = 88_172_645_463_325_252u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        section.0 + state % section.1
    };
    (0..count).map(|_| next()).collect()
}

/// llvm-symbolizer's version, such as 19.
pub fn llvm_version(program: &str) -> u32 {
    let text = output(program, &["--version"], "").unwrap();
    let version =
        text.lines().find_map(|line| line.split_once("version ")).and_then(|(_, version)| version.split('.').next());
    version.and_then(|version| version.parse().ok()).unwrap_or_else(|| panic!("no version in {text}"))
}

/// The path as llvm-symbolizer 19 gives it. 14 puts a relative compilation directory before the same directory of the line table:
/// `./posix/./posix/regexec.c`.
fn as_of_19(path: &str) -> String {
    let Some((directory, rest)) = path.rsplit_once("/./") else { return path.to_owned() };
    let name = rest.strip_prefix(directory.trim_start_matches("./")).and_then(|name| name.strip_prefix('/'));
    name.map_or_else(|| path.to_owned(), |name| format!("{directory}/{name}"))
}

/// llvm-symbolizer's answers; none, where that may be, if it is not installed.
pub fn llvm(path: &Path, addresses: &[u64]) -> Option<BTreeMap<u64, Vec<Place>>> {
    let program = &llvm_tool(&format!("names and lines of {}", path.display()), "llvm-symbolizer")?;
    let version = llvm_version(program);
    println!("{program} is of version {version}");
    let object = format!("--obj={}", path.display());
    let input: String = addresses.iter().map(|address| format!("{address:#x}\n")).collect();
    let text = output(program, &[&object, "--addresses", "--no-demangle", "--functions=linkage", "--inlines"], &input)?;
    let mut found = BTreeMap::new();
    for block in text.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let mut lines = block.trim_start().lines();
        let address = u64::from_str_radix(lines.next()?.trim_start_matches("0x"), 16).ok()?;
        let rest: Vec<_> = lines.collect();
        let frames = rest.chunks(2).filter_map(|pair| {
            let mut place = pair.get(1)?.rsplitn(3, ':');
            let (_, line, file) = (place.next()?, place.next()?, place.next()?);
            let file = if version < 19 { as_of_19(file) } else { file.to_owned() };
            Some((pair[0].to_owned(), file, line.parse().ok()?))
        });
        found.insert(address, frames.filter(|(name, _, line)| name != "??" || *line != 0).collect());
    }
    Some(found)
}

/// blazesym's answers.
pub fn blazesym(path: &Path, addresses: &[u64]) -> BTreeMap<u64, Vec<Place>> {
    use blazesym::symbolize::{CodeInfo, Input, Symbolized, Symbolizer, source};
    let mut builder = Symbolizer::builder().enable_code_info(true).enable_inlined_fns(true);
    builder = builder.set_debug_dirs(Some([Path::new("/usr/lib/debug")]));
    let source = source::Source::Elf(source::Elf::new(path));
    let symbolizer = builder.build();
    let found = symbolizer.symbolize(&source, Input::VirtOffset(addresses)).unwrap();
    let place = |name: &str, info: Option<&CodeInfo<'_>>| -> Place {
        let path = info.map_or("??".into(), |info| info.to_path().to_string_lossy().into_owned());
        (name.to_owned(), path, info.and_then(|info| info.line).unwrap_or(0))
    };
    let frames = |found: &Symbolized<'_>| match found {
        // The outermost function first.
        Symbolized::Sym(symbol) => {
            let inlined = symbol.inlined.iter().rev().map(|f| place(&f.name, f.code_info.as_ref()));
            inlined.chain([place(&symbol.name, symbol.code_info.as_deref())]).collect()
        }
        Symbolized::Unknown(_) => Vec::new(),
    };
    addresses.iter().copied().zip(found.iter().map(frames)).collect()
}

/// All names of each address in the symbol tables: two of one address are both right.
pub fn aliases(path: &Path) -> BTreeMap<String, BTreeSet<u64>> {
    let mut found: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    let path = path.to_string_lossy().into_owned();
    let notes = output("readelf", &["-n", &path], "").unwrap_or_default();
    let id = notes.lines().find_map(|line| line.trim().strip_prefix("Build ID: ")).unwrap_or("00");
    let debug_file = format!("/usr/lib/debug/.build-id/{}/{}.debug", &id[..2], &id[2..]);
    for (table, path) in [("--syms", &path), ("--dyn-syms", &path), ("--syms", &debug_file)] {
        let text = output("readelf", &["-W", table, path], "").unwrap_or_default();
        for line in text.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            if let (Some(address), Some(name)) =
                (words.get(1).and_then(|w| u64::from_str_radix(w, 16).ok()), words.get(7))
            {
                found.entry(name.split('@').next().unwrap_or(name).to_owned()).or_default().insert(address);
            }
        }
    }
    found
}

/// What came of a comparison.
#[derive(Debug, Default)]
pub struct Compared {
    pub same: usize,
    pub unknown_to_both: usize,
    /// Differences that are right, by what explains them.
    pub explained: BTreeMap<&'static str, usize>,
    pub unexplained: Vec<String>,
}

/// Compares frame by frame: names, files and lines.
pub fn compare(path: &Path, addresses: &[u64], ours: &[Symbolized], theirs: &BTreeMap<u64, Vec<Place>>) -> Compared {
    let aliases = aliases(path);
    let mut compared = Compared::default();
    for (address, found) in addresses.iter().zip(ours) {
        let ours: Vec<Place> = found
            .frames
            .iter()
            .map(|f| (f.system_name.to_string(), f.file.as_deref().unwrap_or("??").to_owned(), f.line))
            .collect();
        let empty = Vec::new();
        let theirs = theirs.get(address).unwrap_or(&empty);
        match difference(&ours, theirs, &aliases) {
            Ok(None) if ours.is_empty() => compared.unknown_to_both += 1,
            Ok(None) => compared.same += 1,
            Ok(Some(reason)) => *compared.explained.entry(reason).or_default() += 1,
            Err(()) => compared.unexplained.push(format!("{address:#x}\n  ours   {ours:?}\n  theirs {theirs:?}")),
        }
    }
    compared
}

fn difference(
    ours: &[Place],
    theirs: &[Place],
    aliases: &BTreeMap<String, BTreeSet<u64>>,
) -> Result<Option<&'static str>, ()> {
    if ours == theirs {
        return Ok(None);
    }
    match (ours, theirs) {
        ([(name, _, 0)], _) if name.ends_with("@plt") => {
            return Ok(Some("PLT stubs, which llvm-symbolizer has no names for"));
        }
        ([(_, file, 0)], []) if file == "??" => {
            return Ok(Some("a local symbol of the debug file, without debug info"));
        }
        ([], [(name, _, _)]) if name == "??" => return Ok(Some("a line of padding between functions")),
        ([], [(name, _, 0)]) if name == "_fini" || name == "_init" => {
            return Ok(Some("a symbol stretched beyond its section"));
        }
        _ => {}
    }
    if ours.len() != theirs.len() {
        return Err(());
    }
    let mut reason = None;
    for (index, (our, their)) in ours.iter().zip(theirs).enumerate() {
        if our.2 != their.2 {
            return Err(());
        }
        if our.1 != their.1 {
            // llvm-symbolizer gives the name of a FILE symbol where there is no line.
            if our.2 != 0 || our.1 != "??" {
                return Err(());
            }
            reason = Some("no line: llvm-symbolizer gives a FILE symbol");
        }
        if our.0 == their.0 {
            continue;
        }
        let outermost = index + 1 == ours.len();
        let same_place = match (aliases.get(&our.0), aliases.get(&their.0)) {
            (Some(ours), Some(theirs)) => !ours.is_disjoint(theirs),
            _ => false,
        };
        reason = Some(match () {
            () if outermost && same_place => "names of one address",
            () if outermost && our.0.starts_with(&format!("{}.", their.0)) => {
                "part of a function, by symbol: f.part.0, f.cold"
            }
            () => return Err(()),
        });
    }
    Ok(reason)
}
