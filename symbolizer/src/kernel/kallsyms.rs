//! `/proc/kallsyms` as a sorted array of 16 bytes a symbol and one arena of names.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

/// Most bytes read: a kernel with every driver built in has about 20 MB.
const MAX_BYTES: u64 = 256 << 20;
/// A symbol does not reach further than this. The end of a module is not in the table, so that what follows the last symbol of
/// one would else be taken for a part of it.
const MAX_REACH: u64 = 1 << 20;
const CORE: u16 = u16::MAX;

#[derive(Clone, Copy, Debug)]
struct Symbol {
    start: u64,
    /// Offset of the name; [`NOT_CODE`] if the symbol only marks where code ends.
    name: u32,
    module: u16,
    /// Order among aliases, best first.
    rank: u16,
}

const NOT_CODE: u32 = u32::MAX;

/// A reading of the table.
#[derive(Debug, Default)]
pub(super) struct Table {
    symbols: Vec<Symbol>,
    /// Each name ends in a newline, which no name has in it.
    names: String,
    modules: Vec<Box<str>>,
    zeros: usize,
}

impl Table {
    pub fn read(path: &Path) -> io::Result<Self> {
        Self::parse(BufReader::with_capacity(64 << 10, File::open(path)?.take(MAX_BYTES)))
    }

    fn parse(mut lines: impl BufRead) -> io::Result<Self> {
        let mut table = Self::default();
        let mut line = Vec::new();
        while {
            line.clear();
            lines.read_until(b'\n', &mut line)? > 0
        } {
            if let Ok(line) = std::str::from_utf8(&line) {
                table.add(line);
            }
        }
        // Data symbols serve only to end code, so of a run of them the first is enough.
        table.symbols.sort_unstable_by_key(|s| (s.start, s.name == NOT_CODE, s.rank, s.name));
        table.symbols.dedup_by(|later, earlier| {
            later.start == earlier.start || (later.name == NOT_CODE && earlier.name == NOT_CODE)
        });
        table.symbols.shrink_to_fit();
        table.names.shrink_to_fit();
        Ok(table)
    }

    /// One line: `ffffffff81000000 T name`, then, for a module, a tab and `[module]`.
    fn add(&mut self, line: &str) {
        let mut words = line.split_ascii_whitespace();
        let (Some(start), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else { return };
        let Ok(start) = u64::from_str_radix(start, 16) else { return };
        if start == 0 {
            self.zeros += 1;
            return;
        }
        let module = words.next().and_then(|word| word.strip_prefix('[')?.strip_suffix(']'));
        let module = match module {
            None => CORE,
            // Symbols of a module stand together.
            Some(module) => match self.modules.last() {
                Some(last) if **last == *module => (self.modules.len() - 1) as u16,
                _ if self.modules.len() < usize::from(CORE) => {
                    self.modules.push(module.into());
                    (self.modules.len() - 1) as u16
                }
                _ => CORE,
            },
        };
        let code = matches!(kind, "t" | "T" | "w" | "W" | "i");
        let name_at = match u32::try_from(self.names.len()) {
            Ok(at) if code && at != NOT_CODE => {
                self.names.push_str(name);
                self.names.push('\n');
                at
            }
            _ => NOT_CODE,
        };
        self.symbols.push(Symbol { start, name: name_at, module, rank: rank(kind, name) });
    }

    /// No address is shown: the reader may not see them.
    pub fn is_hidden(&self) -> bool {
        self.symbols.is_empty() && self.zeros > 0
    }

    pub fn bytes(&self) -> u64 {
        (self.symbols.capacity() * size_of::<Symbol>() + self.names.capacity()) as u64
    }

    /// The symbol that covers an address.
    pub fn find(&self, address: u64) -> Option<u32> {
        let index = self.symbols.partition_point(|s| s.start <= address).checked_sub(1)?;
        let symbol = self.symbols.get(index)?;
        // What follows the last symbol of all is nobody's.
        let last = index + 1 == self.symbols.len() && address.wrapping_sub(symbol.start) > 4096;
        let covers = symbol.name != NOT_CODE && address.wrapping_sub(symbol.start) < MAX_REACH && !last;
        covers.then_some(index as u32)
    }

    pub fn name(&self, index: u32) -> &str {
        let symbol = self.symbols.get(index as usize);
        let rest = symbol.and_then(|s| self.names.get(s.name as usize..)).unwrap_or_default();
        rest.split('\n').next().unwrap_or_default()
    }

    pub fn module_id(&self, index: u32) -> Option<u16> {
        self.symbols.get(index as usize).map(|s| s.module).filter(|module| *module != CORE)
    }

    pub fn module(&self, index: u32) -> Option<&str> {
        self.modules.get(usize::from(self.module_id(index)?)).map(|name| &**name)
    }
}

/// Order among symbols of one address: section marks (`_text`, `__sched_text_start`) and the prefix symbols of call padding name
/// no function; then global before weak before local, and few leading underscores before many.
fn rank(kind: &str, name: &str) -> u16 {
    let mark = ["_text", "_stext", "_etext", "_sinittext", "_einittext"].contains(&name)
        || name.ends_with("_text_start")
        || name.ends_with("_text_end")
        || name.starts_with("__pfx_");
    let binding = match kind {
        "T" => 0,
        "W" | "w" | "i" => 1,
        _ => 2,
    };
    let underscores = name.bytes().take_while(|b| *b == b'_').count().min(63) as u16;
    u16::from(mark) << 15 | binding << 8 | underscores
}
