//! How much is read of a file to find Go's line table and module data in it.

use profiler_elf::go::Program;
use profiler_elf::{Headers, ReadError, Source};
use std::cell::Cell;

/// Eight million relocations, and what there is of headers.
const MOST: u64 = (24 << 23) + (1 << 20);
const SIZE: u64 = 2 << 30;
const PIECE: u64 = 512 << 20;
const TABLE: u64 = 0x1000;
const NAMES: u64 = 0x80;
const RELOCATIONS: u64 = 0x10_0000;
const DATA: u64 = 0x800_0000_0000;

/// A sparse file: pieces, and zeros between them. Reading more than `MOST` of it fails the test.
struct Sparse {
    pieces: Vec<(u64, Vec<u8>)>,
    read: Cell<u64>,
}

impl Source for Sparse {
    fn size(&self) -> u64 {
        SIZE
    }

    fn read_some(&self, at: u64, out: &mut [u8]) -> Result<usize, ReadError> {
        let len = out.len().min(usize::try_from(SIZE.saturating_sub(at)).unwrap());
        self.read.set(self.read.get() + len as u64);
        assert!(self.read.get() <= MOST, "{} bytes read", self.read.get());
        let out = &mut out[..len];
        out.fill(0);
        for (start, bytes) in &self.pieces {
            let (from, to) = (at.max(*start), (at + len as u64).min(start + bytes.len() as u64));
            if from < to {
                let part = &bytes[(from - start) as usize..(to - start) as usize];
                out[(from - at) as usize..(to - at) as usize].copy_from_slice(part);
            }
        }
        Ok(len)
    }
}

fn words(words: impl IntoIterator<Item = u64>) -> Vec<u8> {
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

/// A table of Go 1.20 whose header does not say where code starts.
fn table() -> Vec<u8> {
    [&[0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8][..], &words([2, 1, 0, NAMES, 0xc0, 0xe0, 0x100, 0x140]), &[0; 0x200]]
        .concat()
}

/// A file whose one segment, which is code, is all of it; with these sections: name, kind, offset, size.
fn file(sections: &[(&str, u32, u64, u64)], mut pieces: Vec<(u64, Vec<u8>)>) -> Sparse {
    let mut start = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    start.extend([3, 0, 62, 0, 1, 0, 0, 0]);
    let count = if sections.is_empty() { 0 } else { sections.len() as u16 + 1 };
    start.extend(words([0, 64, if count == 0 { 0 } else { 0x400 }]));
    start.extend([0; 4]);
    start.extend([64u16, 56, 1, 64, count, count.saturating_sub(1)].into_iter().flat_map(u16::to_le_bytes));
    start.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    start.extend(words([0, 0, 0, SIZE, SIZE, 0x1000]));
    pieces.push((0, start));
    let (mut names, mut headers) = (vec![0], Vec::new());
    let own = [(".shstrtab", 3, 0x200, 0x200)];
    for (name, kind, offset, size) in sections.iter().chain(&own).filter(|_| count > 0) {
        headers.extend((names.len() as u32).to_le_bytes());
        headers.extend(kind.to_le_bytes());
        // No flags: not allocated. Where it is, it is loaded.
        headers.extend(words([0, *offset, *offset, *size, 0, 8, 0]));
        names.extend(name.as_bytes());
        names.push(0);
    }
    pieces.extend([(0x200, names), (0x400, headers)]);
    Sparse { pieces, read: Cell::new(0) }
}

/// That a word of the address space is one that is known by its value when the file is loaded.
fn relocation(at: u64, value: u64) -> [u64; 3] {
    [at, 8, value]
}

#[test]
fn relocations_that_never_lead_to_module_data_are_walked_within_bounds() {
    // Sixty-four pointers to the table, none before a pointer to its names, in eight sections over the same bytes.
    let relocations = words((0..64).flat_map(|n| relocation(DATA + n * 0x1000, TABLE)));
    let mut sections = vec![(".gopclntab", 1, TABLE, 0x400)];
    sections.extend([(".rela", 4, RELOCATIONS, PIECE); 8]);
    let file = file(&sections, vec![(TABLE, table()), (RELOCATIONS, relocations)]);
    let headers = Headers::read(&file).unwrap();
    let program = Program::find(&headers, &file).unwrap();
    assert_eq!((program.text(), program.inline_trees()), (0, 0));
    assert!(file.read.get() > PIECE / 4, "there is more than is read: {}", file.read.get());
}

#[test]
fn module_data_is_found_among_candidates_and_in_any_order() {
    let (module, text) = (DATA + 0x5008, 0x12_3000);
    let relocations = words(
        [
            relocation(module + 176, text),
            relocation(DATA, TABLE),
            relocation(module + 8, TABLE + NAMES),
            relocation(DATA + 0x4e00, TABLE),
            relocation(module, TABLE),
        ]
        .concat(),
    );
    let size = relocations.len() as u64;
    let sections = [(".gopclntab", 1, TABLE, 0x400), (".rela.dyn", 4, RELOCATIONS, size)];
    let file = file(&sections, vec![(TABLE, table()), (RELOCATIONS, relocations)]);
    let headers = Headers::read(&file).unwrap();
    assert_eq!(Program::find(&headers, &file).unwrap().text(), text);
}

#[test]
fn a_file_without_sections_is_searched_within_bounds() {
    let nothing = file(&[], Vec::new());
    let headers = Headers::read(&nothing).unwrap();
    assert!(Program::find(&headers, &nothing).is_none());
    // Magic numbers all over, each of which could be a table.
    let magic = [0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8].repeat(1 << 20);
    let many = file(&[], vec![(TABLE, magic)]);
    assert!(Program::find(&headers, &many).is_none());
    assert!(many.read.get() < PIECE / 4, "a header that is none costs more than its bytes: {}", many.read.get());
    // What is early in a file is found.
    let early = file(&[], vec![(TABLE, table())]);
    assert!(Program::find(&headers, &early).is_some());
}
