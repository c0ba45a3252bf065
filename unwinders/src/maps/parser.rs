//! `/proc/PID/maps`, one line a mapping (`fs/proc/task_mmu.c`, `show_map_vma`):
//!
//! ```text
//! 7f04ac26b000-7f04ac3c0000 r-xp 00026000 fe:00 1180162     /usr/lib/x86_64-linux-gnu/libc.so.6
//! start        end          perm offset   dev   inode       path, newlines as \012, perhaps " (deleted)"
//! ```

use std::borrow::Cow;
use std::io::{self, BufRead};
use std::sync::Arc;

use profiler_address::{FileOffset, UserAddr};

use super::{Backing, FileId, MAX_MAPPINGS, Mapping};

/// The longest line that is read: a path of `PATH_MAX` bytes that are all newlines, and the columns before it.
pub const MAX_LINE_BYTES: usize = 4 * 4096 + 256;
/// Lines read of one process; `vm.max_map_count` is 65,530 by default and some databases raise it to 262,144.
pub const MAX_LINES: u64 = 1 << 20;

/// Which mappings [`parse`] keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Keep {
    /// Those that code can run in.
    #[default]
    Executable,
    /// All.
    All,
}

/// What a maps file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// Mappings in the order of the file.
    pub mappings: Vec<Mapping>,
    /// Lines read.
    pub lines: u64,
    /// Lines that are not what the kernel prints, or too long.
    pub malformed: u64,
    /// A bound was reached and the rest of the file not read.
    pub truncated: bool,
}

/// Reads a maps file to its end or to a bound.
///
/// # Errors
/// Those of `reader`. What was read before the error is lost; a process that dies while it is read ends the file instead.
pub fn parse(reader: impl BufRead, keep: Keep) -> io::Result<Parsed> {
    parse_with(reader, keep, &mut |path| Arc::from(path))
}

/// [`parse`] with a maker of shared paths.
///
/// # Errors
/// As [`parse`].
pub fn parse_with(
    mut reader: impl BufRead,
    keep: Keep,
    intern: &mut dyn FnMut(&[u8]) -> Arc<[u8]>,
) -> io::Result<Parsed> {
    let mut parsed = Parsed::default();
    // One file's segments follow each other, so the last path is mostly the next one too.
    let mut last: Option<Arc<[u8]>> = None;
    let mut intern_cached = |path: &[u8]| match &last {
        Some(same) if **same == *path => Arc::clone(same),
        _ => last.insert(intern(path)).clone(),
    };
    let mut line = Vec::new();
    let mut before = Before::default();
    let mut too_long = false;
    loop {
        let buffer = match reader.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if buffer.is_empty() {
            if !line.is_empty() || too_long {
                parsed.take(&line, too_long, keep, &mut before, &mut intern_cached);
            }
            return Ok(parsed);
        }
        let mut rest = buffer;
        while let Some(newline) = memchr::memchr(b'\n', rest) {
            let (piece, after) = rest.split_at(newline);
            rest = after.get(1..).unwrap_or_default();
            if line.is_empty() && !too_long {
                parsed.take(piece, piece.len() > MAX_LINE_BYTES, keep, &mut before, &mut intern_cached);
            } else {
                too_long |= line.len() + piece.len() > MAX_LINE_BYTES;
                if !too_long {
                    line.extend_from_slice(piece);
                }
                parsed.take(&line, too_long, keep, &mut before, &mut intern_cached);
                line.clear();
                too_long = false;
            }
            if parsed.lines >= MAX_LINES || parsed.mappings.len() >= MAX_MAPPINGS {
                parsed.truncated = true;
                return Ok(parsed);
            }
        }
        too_long |= line.len() + rest.len() > MAX_LINE_BYTES;
        if too_long {
            line.clear();
        } else {
            line.extend_from_slice(rest);
        }
        let used = buffer.len();
        reader.consume(used);
    }
}

/// The last mapping of a file, and what has followed it without a gap.
#[derive(Debug, Default)]
struct Before {
    line: Vec<u8>,
    end: u64,
}

impl Before {
    /// Goes on to the mapping of `line`.
    fn pass(&mut self, line: &[u8]) {
        let Some((start, end)) = bounds(line) else { return };
        // Names that memory was given stand in brackets.
        if memchr::memmem::find(line, b" /").is_some() {
            self.line.clear();
            self.line.extend_from_slice(line);
        } else if start != self.end {
            self.line.clear();
        }
        self.end = end;
    }

    /// The file's mapping, if `mapping` follows it without a gap.
    fn file(&self, mapping: &Mapping, intern: &mut dyn FnMut(&[u8]) -> Arc<[u8]>) -> Option<Mapping> {
        let before = parse_line(&self.line, Keep::All, intern)??;
        (self.end == mapping.start.0 && before.file().is_some()).then_some(before)
    }
}

impl Parsed {
    fn take(
        &mut self,
        line: &[u8],
        too_long: bool,
        keep: Keep,
        before: &mut Before,
        intern: &mut dyn FnMut(&[u8]) -> Arc<[u8]>,
    ) {
        self.lines += 1;
        if too_long {
            self.malformed += 1;
            return;
        }
        match parse_line(line, keep, intern) {
            Some(Some(mut mapping)) => {
                if keep == Keep::Executable
                    && mapping.backing == Backing::Anonymous
                    && let Some(file) = before.file(&mapping, intern)
                {
                    mapping.backing = Backing::Replaced(Arc::new(file));
                }
                self.mappings.push(mapping);
            }
            Some(None) => {}
            None => self.malformed += 1,
        }
        before.pass(line);
    }
}

/// First address of a line's mapping, and one past its last.
fn bounds(line: &[u8]) -> Option<(u64, u64)> {
    let (start, rest) = number::<16>(line)?;
    Some((start, number::<16>(rest.strip_prefix(b"-")?)?.0))
}

/// Reads one line, without its newline. `None` if it is malformed, `Some(None)` if `keep` leaves it out.
pub fn parse_line(line: &[u8], keep: Keep, intern: &mut dyn FnMut(&[u8]) -> Arc<[u8]>) -> Option<Option<Mapping>> {
    let (start, rest) = number::<16>(line)?;
    let (end, rest) = number::<16>(rest.strip_prefix(b"-")?)?;
    let rest = rest.strip_prefix(b" ")?;
    let (&[read, _, execute, _, b' '], rest) = rest.split_first_chunk::<5>()? else { return None };
    if start >= end || !matches!(read, b'r' | b'-') || !matches!(execute, b'x' | b'-') {
        return None;
    }
    let (offset, rest) = number::<16>(rest)?;
    let (major, rest) = number::<16>(rest.strip_prefix(b" ")?)?;
    let (minor, rest) = number::<16>(rest.strip_prefix(b":")?)?;
    let (inode, rest) = number::<10>(rest.strip_prefix(b" ")?)?;
    // The kernel pads with spaces to the column of the path, which itself never starts with one.
    let name = match rest {
        [] => rest,
        [b' ', ..] => rest.trim_ascii_start(),
        _ => return None,
    };
    let id = FileId { major: u32::try_from(major).ok()?, minor: u32::try_from(minor).ok()?, inode };
    if keep == Keep::Executable && execute != b'x' {
        return Some(None);
    }
    let backing = Backing::from_name(id, &unescape(name), intern);
    let offset = if matches!(backing, Backing::File(..) | Backing::Vdso) { FileOffset(offset) } else { FileOffset(0) };
    Some(Some(Mapping { start: UserAddr(start), end: UserAddr(end), offset, backing }))
}

/// The number at the start of `text` and what follows it; `None` if there is none or it has more than 64 bits.
fn number<const BASE: u64>(text: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    let mut digits = 0;
    for &byte in text {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' if BASE == 16 => byte - b'a' + 10,
            _ => break,
        };
        value = value.checked_mul(BASE)?.checked_add(u64::from(digit))?;
        digits += 1;
    }
    (digits > 0).then(|| (value, text.get(digits..).unwrap_or_default()))
}

/// Newlines are the only bytes that the kernel escapes here, a backslash is not: only `\012` is an escape.
fn unescape(name: &[u8]) -> Cow<'_, [u8]> {
    const NEWLINE: &[u8] = b"\\012";
    if memchr::memchr(b'\\', name).is_none() {
        return Cow::Borrowed(name);
    }
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(NEWLINE) {
            plain.push(b'\n');
            rest = after;
        } else {
            plain.push(first);
            rest = after;
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Option<Option<Mapping>> {
        parse_line(line.as_bytes(), Keep::All, &mut |path| Arc::from(path))
    }

    #[test]
    fn anonymous_code_that_follows_a_file_without_a_gap_may_be_that_files() {
        let text = "\
            1000-2000 r--p 00000000 fe:00 7 /bin/a\n\
            2000-3000 r-xp 00000000 00:00 0 \n\
            3000-4000 rw-p 00000000 00:00 0 \n\
            4000-5000 r-xp 00000000 00:00 0 \n\
            6000-7000 r-xp 00000000 00:00 0 \n\
            7000-8000 r-xp 00000000 00:00 0 \n";
        let parsed = parse(text.as_bytes(), Keep::Executable).unwrap();
        let of = |index: usize| match &parsed.mappings[index].backing {
            Backing::Replaced(file) => Some((file.start.0, file.end.0, file.file().unwrap().0.inode)),
            Backing::Anonymous => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(parsed.mappings.len(), 4);
        assert_eq!((of(0), of(1)), (Some((0x1000, 0x2000, 7)), Some((0x1000, 0x2000, 7))));
        assert_eq!((of(2), of(3)), (None, None), "there is a gap before");
    }

    fn file(line: &str) -> (FileId, Vec<u8>) {
        let mapping = one(line).unwrap().unwrap();
        let (id, path) = mapping.file().unwrap();
        (id, path.to_vec())
    }

    #[test]
    fn a_file_mapping_has_all_its_columns() {
        let mapping =
            one("7f04ac26b000-7f04ac3c0000 r-xp 00026000 fe:01 1180162                    /usr/lib/libc.so.6");
        assert_eq!(
            mapping,
            Some(Some(Mapping {
                start: UserAddr(0x7f04_ac26_b000),
                end: UserAddr(0x7f04_ac3c_0000),
                offset: FileOffset(0x26000),
                backing: Backing::File(
                    FileId { major: 0xfe, minor: 1, inode: 1_180_162 },
                    Arc::from(&b"/usr/lib/libc.so.6"[..])
                ),
            }))
        );
    }

    #[test]
    fn paths_keep_spaces_newlines_and_bytes_that_are_no_text() {
        let path = |p: &str| file(&format!("1000-2000 r-xp 0 00:2f 7    {p}")).1;
        assert_eq!(path("/a b  c"), b"/a b  c");
        assert_eq!(path("/a\\012b"), b"/a\nb");
        assert_eq!(path("/a\\040b\\"), b"/a\\040b\\");
        assert_eq!(path("/x (deleted)"), b"/x");
        assert_eq!(path("/x (deleted) (deleted)"), b"/x (deleted)");
        let odd =
            parse_line(b"1000-2000 r-xp 0 00:2f 7    /\xff\xfe", Keep::All, &mut |p| Arc::from(p)).unwrap().unwrap();
        assert_eq!(&**odd.file().unwrap().1, b"/\xff\xfe");
    }

    #[test]
    fn what_is_no_file_is_told_by_its_name() {
        let backing = |inode: u64, name: &str| {
            one(&format!("1000-2000 r-xp 00001000 00:00 {inode} {name}")).unwrap().unwrap().backing
        };
        assert_eq!(backing(0, "                  [vdso]"), Backing::Vdso);
        assert_eq!(backing(0, "                  [vsyscall]"), Backing::Vsyscall);
        for name in ["[heap]", "[stack]", "[anon:v8 code]", "//anon", "[uprobes]", ""] {
            assert_eq!(backing(0, name), Backing::Anonymous, "{name}");
        }
        assert_eq!(backing(5, "anon_inode:[perf_event]"), Backing::Anonymous);
        assert!(matches!(backing(5, "/memfd:doublemapper (deleted)"), Backing::File(..)));
    }

    #[test]
    fn only_executable_mappings_are_kept_by_default() {
        let text = b"1000-2000 r--p 0 00:01 1 /a\n2000-3000 r-xp 0 00:01 1 /a\n3000-4000 --xp 0 00:00 0 \n";
        let parsed = parse(&text[..], Keep::Executable).unwrap();
        assert_eq!(parsed.mappings.iter().map(|m| m.start.0).collect::<Vec<_>>(), [0x2000, 0x3000]);
        assert_eq!((parsed.lines, parsed.malformed), (3, 0));
    }

    #[test]
    fn malformed_lines_are_counted_and_skipped() {
        let bad = [
            "",
            "-",
            "2000-1000 r-xp 0 00:01 1 /a",
            "1000-1000 r-xp 0 00:01 1 /a",
            "1000-2000 rxp 0 00:01 1 /a",
            "10000000000000000-20000000000000000 r-xp 0 00:01 1 /a",
            "1000-2000 r-xp 0 00:01",
            "1000-2000 r-xp 0 0001 1 /a",
            "1000-2000 r-xp 0 00:01 1/a",
            "1000-2000 r-xp 0 fffffffff:01 1 /a",
            "1000-2000 r-xp 0 00:01 99999999999999999999999 /a",
        ];
        let text = bad.join("\n") + "\n1000-2000 r-xp 0 00:01 1 /good";
        let parsed = parse(text.as_bytes(), Keep::Executable).unwrap();
        assert_eq!(parsed.malformed, bad.len() as u64);
        assert_eq!(parsed.mappings.len(), 1);
    }

    #[test]
    fn lines_cut_by_the_buffer_and_lines_without_end_are_survived() {
        let mut text = Vec::new();
        for i in 0..50u64 {
            text.extend_from_slice(
                format!("{:x}-{:x} r-xp 0 00:01 {i} /file {i}\n", i << 12, (i + 1) << 12).as_bytes(),
            );
            if i == 20 {
                text.extend(std::iter::repeat_n(b'x', MAX_LINE_BYTES * 3));
                text.push(b'\n');
            }
        }
        let whole = parse(&text[..], Keep::Executable).unwrap();
        assert_eq!((whole.mappings.len(), whole.malformed), (50, 1));
        for capacity in [1, 3, 64, 4096, 20_000] {
            let parts = parse(io::BufReader::with_capacity(capacity, &text[..]), Keep::Executable).unwrap();
            assert_eq!(parts, whole, "capacity {capacity}");
        }
    }
}
