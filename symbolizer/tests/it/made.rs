//! ELF files of any content, made by hand.

use flate2::{Compression, write::ZlibEncoder};
use std::io::Write;

/// Where `.text` is.
pub const TEXT: u64 = 0x40_1000;
pub const TEXT_SIZE: u64 = 1 << 20;
const SHT_PROGBITS: u32 = 1;
const SHT_SYMTAB: u32 = 2;
const SHT_STRTAB: u32 = 3;
const SHT_NOBITS: u32 = 8;
const SHF_COMPRESSED: u64 = 0x800;

struct Section {
    name: &'static str,
    kind: u32,
    flags: u64,
    address: u64,
    size: u64,
    link: u32,
    content: Vec<u8>,
}

/// A program with a section of code, of which there are no bytes, and whatever else is added.
pub struct Made(Vec<Section>);

impl Made {
    pub fn new() -> Self {
        let text = Section {
            name: ".text",
            kind: SHT_NOBITS,
            flags: 6,
            address: TEXT,
            size: TEXT_SIZE,
            link: 0,
            content: Vec::new(),
        };
        Self(vec![text])
    }

    fn add(mut self, name: &'static str, kind: u32, flags: u64, link: u32, content: Vec<u8>) -> Self {
        let size = content.len() as u64;
        self.0.push(Section { name, kind, flags, address: 0, size, link, content });
        self
    }

    /// A section that is not loaded.
    pub fn section(self, name: &'static str, content: Vec<u8>) -> Self {
        self.add(name, SHT_PROGBITS, 0, 0, content)
    }

    /// Functions of 16 bytes, one after the other from the start of `.text` and then again, each with this offset of its name among `strings`.
    pub fn symbols(self, names: impl Iterator<Item = u32>, strings: Vec<u8>) -> Self {
        let link = self.0.len() as u32 + 2;
        let mut content = vec![0; 24];
        for (index, name) in names.enumerate() {
            content.extend(name.to_le_bytes());
            // A global function in .text.
            content.extend([0x12, 0, 1, 0]);
            content.extend((TEXT + index as u64 * 16 % TEXT_SIZE).to_le_bytes());
            content.extend(16u64.to_le_bytes());
        }
        self.add(".symtab", SHT_SYMTAB, 0, link, content).add(".strtab", SHT_STRTAB, 0, 0, strings)
    }

    /// A symbol table and its strings of so many zeros each, compressed.
    pub fn symbols_of_zeros(self, bytes: u64) -> Self {
        let link = self.0.len() as u32 + 2;
        let content = zeros(bytes);
        self.add(".symtab", SHT_SYMTAB, SHF_COMPRESSED, link, content.clone()).add(
            ".strtab",
            SHT_STRTAB,
            SHF_COMPRESSED,
            0,
            content,
        )
    }

    /// The file.
    pub fn bytes(self) -> Vec<u8> {
        let mut names = vec![0u8];
        let mut headers = vec![0u8; 64];
        let mut file = vec![0u8; 64];
        let mut header = |name: u32, s: &Section, offset: u64| {
            headers.extend(name.to_le_bytes());
            headers.extend(s.kind.to_le_bytes());
            for word in [s.flags, s.address, offset, s.size] {
                headers.extend(word.to_le_bytes());
            }
            headers.extend(s.link.to_le_bytes());
            headers.extend([0; 4]);
            headers.extend([8u64.to_le_bytes(), 0u64.to_le_bytes()].concat());
        };
        let count = self.0.len() as u16 + 2;
        for section in &self.0 {
            let name = names.len() as u32;
            names.extend(section.name.as_bytes());
            names.push(0);
            header(name, section, file.len() as u64);
            file.extend(&section.content);
        }
        let own = names.len() as u32;
        names.extend(b".shstrtab\0");
        let size = names.len() as u64;
        let strings = Section { name: "", kind: SHT_STRTAB, flags: 0, address: 0, size, link: 0, content: Vec::new() };
        header(own, &strings, file.len() as u64);
        file.extend(&names);
        let at = file.len() as u64;
        file.extend(headers);
        let mut start = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        start.extend([2, 0, 62, 0, 1, 0, 0, 0]);
        for word in [TEXT, 0, at] {
            start.extend(word.to_le_bytes());
        }
        start.extend([0; 4]);
        for half in [64u16, 0, 0, 64, count, count - 1] {
            start.extend(half.to_le_bytes());
        }
        file[..64].copy_from_slice(&start);
        file
    }
}

/// The content of a compressed section that unpacks to so many zeros.
fn zeros(bytes: u64) -> Vec<u8> {
    let mut content = [1u32.to_le_bytes(), [0; 4]].concat();
    content.extend(bytes.to_le_bytes());
    content.extend(8u64.to_le_bytes());
    let mut encoder = ZlibEncoder::new(content, Compression::best());
    let block = vec![0; 1 << 20];
    for _ in 0..bytes >> 20 {
        encoder.write_all(&block).unwrap();
    }
    encoder.finish().unwrap()
}

/// Debug info of version 4 or 5 with one unit, all of `.text`, and this line table.
pub fn with_lines(made: Made, version: u16, lines: Vec<u8>) -> Made {
    // A compilation unit: low and high address, and its lines.
    let abbreviations = vec![1, 0x11, 0, 0x11, 0x01, 0x12, 0x06, 0x10, 0x17, 0, 0, 0];
    let mut unit = version.to_le_bytes().to_vec();
    if version >= 5 {
        unit.extend([1, 8, 0, 0, 0, 0]);
    } else {
        unit.extend([0, 0, 0, 0, 8]);
    }
    unit.push(1);
    unit.extend(TEXT.to_le_bytes());
    unit.extend((TEXT_SIZE as u32).to_le_bytes());
    unit.extend(0u32.to_le_bytes());
    let info = [&(unit.len() as u32).to_le_bytes()[..], &unit].concat();
    made.section(".debug_abbrev", abbreviations).section(".debug_info", info).section(".debug_line", lines)
}

/// Debug info of version 4 with one unit, of `count` functions of 16 bytes that it has no names of.
pub fn with_nameless_functions(made: Made, count: u64) -> Made {
    // A compilation unit: low and high address; in it functions: the same.
    let range = [0x11, 0x01, 0x12, 0x06, 0, 0];
    let abbreviations = [&[1, 0x11, 1][..], &range, &[2, 0x2e, 0], &range, &[0]].concat();
    let mut unit = vec![4, 0, 0, 0, 0, 0, 8];
    let mut entry = |code: u8, start: u64, size: u32| {
        unit.push(code);
        unit.extend(start.to_le_bytes());
        unit.extend(size.to_le_bytes());
    };
    entry(1, TEXT, TEXT_SIZE as u32);
    (0..count).for_each(|function| entry(2, TEXT + function * 16, 16));
    unit.push(0);
    let info = [&(unit.len() as u32).to_le_bytes()[..], &unit].concat();
    made.section(".debug_abbrev", abbreviations).section(".debug_info", info)
}

/// A line table of this version with this many files, which then runs `program`.
pub fn lines(version: u16, files: u64, program: &[u8]) -> Vec<u8> {
    let mut header = vec![1];
    if version >= 4 {
        header.push(1);
    }
    // Statements, base and range of lines, one opcode more than there are.
    header.extend([1, 0xfb, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1]);
    let uleb = |out: &mut Vec<u8>, mut value: u64| {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    };
    if version >= 5 {
        // One directory, then the files: each a string.
        header.extend([1, 1, 8, 1, b'd', 0, 1, 1, 8]);
        uleb(&mut header, files);
        header.extend((0..files).flat_map(|_| [b'f', 0]));
    } else {
        header.push(0);
        header.extend((0..files).flat_map(|_| [b'f', 0, 0, 0, 0]));
        header.push(0);
    }
    let mut table = version.to_le_bytes().to_vec();
    if version >= 5 {
        table.extend([8, 0]);
    }
    table.extend((header.len() as u32).to_le_bytes());
    table.extend(header);
    table.extend(program);
    [&(table.len() as u32).to_le_bytes()[..], &table].concat()
}
