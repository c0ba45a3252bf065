//! Rows of files made to hurt: none may panic, hang or take much memory, and what is sound in them still counts.
//!
//! The files are kept in `tests/hostile/`, for fuzzers and other readers of ELF; `every_kept_file_is_what_this_makes` rewrites them
//! with `UPDATE_HOSTILE=1`.

use std::path::Path;
use std::time::{Duration, Instant};

use profiler_address::ElfVaddr;
use profiler_elf::ElfParts;
use profiler_unwinders::rows::{RuleDictionary, UnwindRows, compile};

const CODE: u64 = 0x10000;
const CODE_SIZE: u64 = 0x10_0000;
/// A function whose frame grows by 8 after one byte.
const PUSH: &[u8] = &[0x41, 0x0e, 16];

/// An ELF file with these frames, found through `PT_GNU_EH_FRAME`, and these executable segments without bytes.
fn file(frames: &[u8], code: &[(u64, u64)]) -> Vec<u8> {
    let count = code.len() as u16 + 2;
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0".to_vec();
    bytes.extend([CODE, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
    bytes.extend([0, 0, 0, 0, 64, 0, 56, 0]);
    bytes.extend(count.to_le_bytes());
    bytes.extend([0; 6]);
    let header_at = 64 + 56 * u64::from(count);
    let total = header_at + 8 + frames.len() as u64;
    let mut program = |kind: u32, flags: u32, words: [u64; 6]| {
        bytes.extend([kind, flags].iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    };
    program(1, 4, [0, 0, 0, total, total, 4096]);
    program(0x6474_e550, 4, [header_at, header_at, 0, 8, 8, 4]);
    for &(start, size) in code {
        program(1, 5, [0, start, 0, 0, size, 4096]);
    }
    // Version 1, pointer pc-relative in four bytes, no table; the pointer leads to right behind itself.
    bytes.extend([1, 0x1b, 0xff, 0xff, 4, 0, 0, 0]);
    bytes.extend(frames);
    bytes
}

/// Entries of `.eh_frame` with absolute 8-byte pointers.
#[derive(Default)]
struct Frames(Vec<u8>);

impl Frames {
    fn entry(mut self, body: &[u8]) -> Self {
        self.0.extend((body.len() as u32).to_le_bytes());
        self.0.extend(body);
        self
    }

    fn cie_with(self, augmentation: &[u8], alignment: &[u8], rest: &[u8]) -> Self {
        let body = [&[0, 0, 0, 0, 1], augmentation, &[0], alignment, &[16], rest, &[0x0c, 7, 8, 0x90, 1]].concat();
        self.entry(&body)
    }

    fn cie(self) -> Self {
        self.cie_with(b"", &[1, 0x78], &[])
    }

    /// A function under the CIE at offset 0.
    fn fde(self, start: u64, size: u64, program: &[u8]) -> Self {
        let cie = self.0.len() as u32 + 4;
        self.fde_of(cie, start, size, program)
    }

    fn fde_of(self, cie: u32, start: u64, size: u64, program: &[u8]) -> Self {
        let body = [&cie.to_le_bytes()[..], &start.to_le_bytes(), &size.to_le_bytes(), program].concat();
        self.entry(&body)
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
}

fn one(frames: Frames) -> Vec<u8> {
    file(&frames.0, &[(CODE, CODE_SIZE)])
}

/// All files by name. Each has a sound function at `CODE` first where that is possible.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let sound = || Frames::default().cie().fde(CODE, 16, PUSH);
    let mut all = vec![
        ("sound", one(sound())),
        ("overlapping", one(sound().fde(CODE + 8, 64, PUSH).fde(CODE + 16, 8, PUSH).fde(CODE + 8, 32, PUSH))),
        ("unsorted", one(Frames::default().cie().fde(CODE + 64, 16, PUSH).fde(CODE, 16, PUSH))),
        ("terminator", one(sound().raw(&[0; 4]).fde(CODE + 64, 16, PUSH))),
        ("cie_of_4_gb", one(sound().raw(&[0xf0, 0xff, 0xff, 0xff, 0, 0, 0, 0, 1, 0]))),
        ("length_of_64_bits", one(sound().raw(&[0xff; 12]).raw(&[0; 64]))),
        ("fde_is_its_own_cie", one(sound().fde_of(4, CODE + 64, 16, PUSH))),
        ("fde_of_an_fde", one(sound().fde_of(32, CODE + 64, 16, PUSH))),
        ("cie_before_the_section", one(sound().fde_of(0xffff_fff0, CODE + 64, 16, PUSH))),
        ("all_of_memory", one(Frames::default().cie().fde(CODE, u64::MAX, PUSH).fde(0, u64::MAX, PUSH))),
        (
            "end_of_memory",
            file(&Frames::default().cie().fde(u64::MAX - 1, 1, PUSH).0, &[(CODE, CODE_SIZE), (u64::MAX - 15, 15)]),
        ),
        (
            "endless_leb",
            one(sound().fde(CODE + 64, 16, &[0x0e, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80])),
        ),
        ("remembers_forever", one(sound().fde(CODE + 64, 16, &[0x0a; 4096]))),
        ("restores_nothing", one(sound().fde(CODE + 64, 16, &[0x0b]))),
        ("expression_too_long", one(sound().fde(CODE + 64, 16, &[0x0f, 0xff, 0xff, 0x03]))),
        ("unknown_instruction", one(sound().fde(CODE + 64, 16, &[0x41, 0x3f]))),
        ("goes_back", one(sound().fde(CODE + 64, 16, &[&[0x41, 0x01][..], &CODE.to_le_bytes(), PUSH].concat()))),
        (
            "huge_offsets",
            one(sound().fde(
                CODE + 64,
                16,
                &[0x41, 0x0e, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x86, 0xff, 0xff, 0xff, 0x7f],
            )),
        ),
        ("advances_by_nothing", one(sound().fde(CODE + 64, 16, &[0x40; 4096]))),
        (
            "data_alignment_of_63_bits",
            one(Frames::default()
                .cie_with(b"", &[1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f], &[])
                .fde(CODE, 16, PUSH)),
        ),
        (
            "code_alignment_of_64_bits",
            one(Frames::default()
                .cie_with(b"", &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0x78], &[])
                .fde(CODE, 16, PUSH)),
        ),
        ("unknown_augmentation", one(Frames::default().cie_with(b"q", &[1, 0x78], &[]).fde(CODE, 16, PUSH))),
        ("long_augmentation", one(Frames::default().cie_with(&[b'z'; 300], &[1, 0x78], &[0]).fde(CODE, 16, PUSH))),
        ("indirect_nowhere", one(Frames::default().cie_with(b"zR", &[1, 0x78], &[1, 0x80]).fde(u64::MAX, 16, PUSH))),
        ("pointer_omitted", one(Frames::default().cie_with(b"zR", &[1, 0x78], &[1, 0xff]).fde(CODE, 16, PUSH))),
    ];
    let scattered: Vec<_> = (0..1000).map(|n| (CODE + (n << 37), CODE_SIZE)).collect();
    let frames =
        scattered.iter().fold(Frames::default().cie(), |frames, &(start, _)| frames.fde(start, CODE_SIZE, PUSH));
    all.push(("scattered_segments", file(&frames.0, &scattered)));
    let same = (0..2000).fold(Frames::default().cie(), |frames, _| frames.fde(CODE, 16, PUSH));
    all.push(("one_start_for_all", one(same)));
    let whole = one(sound().fde(CODE + 64, 16, PUSH));
    for (name, length) in [("cut_in_header", 40), ("cut_in_segments", 130), ("cut_in_frames", whole.len() - 9)] {
        all.push((name, whole[..length].to_vec()));
    }
    all
}

fn rows(bytes: &[u8]) -> Option<UnwindRows> {
    let start = Instant::now();
    let image = ElfParts::parse(bytes).ok()?;
    let mut rules = RuleDictionary::new();
    let rows = compile(&image, &mut rules).unwrap();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(rows.byte_size() < 2 << 20, "{}", rows.byte_size());
    assert!(rows.rows.iter().all(|row| usize::from(row.rule()) < rules.len()));
    Some(rows)
}

fn named(name: &str) -> UnwindRows {
    let all = files();
    rows(&all.iter().find(|(known, _)| *known == name).unwrap().1).unwrap()
}

/// The rules just after the first instruction of functions at these distances from the start of the code.
fn rules_at<const N: usize>(rows: &UnwindRows, at: [u64; N]) -> [u16; N] {
    at.map(|distance| rows.rule_at(ElfVaddr(CODE + distance)))
}

#[test]
fn every_kept_file_is_what_this_makes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile");
    for (name, bytes) in files() {
        let path = folder.join(format!("{name}.elf"));
        if std::env::var_os("UPDATE_HOSTILE").is_some() {
            std::fs::write(&path, &bytes).unwrap();
        }
        assert!(std::fs::read(&path).unwrap() == bytes, "{}: run with UPDATE_HOSTILE=1", path.display());
    }
}

#[test]
fn none_hurts() {
    for (name, bytes) in files() {
        let found = rows(&bytes);
        println!("{name}: {:?}", found.map(|rows| (rows.rows.len(), rows.stats)));
    }
}

#[test]
fn a_sound_function_before_a_bad_one_keeps_its_rows() {
    for (name, bytes) in files() {
        let bad = ["cie_of_4_gb", "fde_of_an_fde", "endless_leb", "remembers_forever", "restores_nothing", "goes_back"];
        if bad.contains(&name) {
            let found = rows(&bytes).unwrap();
            assert_eq!(rules_at(&found, [0, 1, 15, 16]), [1, 2, 2, 0], "{name}");
            assert!(found.stats.malformed > 0, "{name}");
        }
    }
}

#[test]
fn of_overlapping_functions_the_inner_one_wins_and_of_equal_starts_the_first() {
    let found = named("overlapping");
    assert_eq!(rules_at(&found, [0, 1, 8, 9, 16, 17, 24, 48]), [1, 2, 1, 2, 1, 2, 0, 0]);
    assert_eq!(found.stats.overlapping, 3);
    assert_eq!(named("one_start_for_all").rows.len(), 3);
}

#[test]
fn order_does_not_matter() {
    assert_eq!(rules_at(&named("unsorted"), [0, 1, 16, 64, 65, 80]), [1, 2, 0, 1, 2, 0]);
}

#[test]
fn without_section_headers_a_terminator_ends_the_frames() {
    assert_eq!(rules_at(&named("terminator"), [1, 65]), [2, 0]);
}

#[test]
fn segments_beyond_reach_are_counted() {
    let found = named("scattered_segments");
    assert_eq!(found.stats.over_limit, 999);
    assert_eq!(rules_at(&found, [0, 1, CODE_SIZE - 1, CODE_SIZE]), [1, 2, 2, 0]);
    assert_eq!(rules_at(&named("all_of_memory"), [0, 1, CODE_SIZE - 1, CODE_SIZE]), [1, 2, 2, 0]);
}

#[test]
fn truncations_and_changes_of_a_real_program_are_survived() {
    let bytes = std::fs::read("/lib64/ld-linux-x86-64.so.2").or_else(|_| std::fs::read("/proc/self/exe")).unwrap();
    for part in 1..64 {
        let _ = rows(&bytes[..bytes.len() * part / 64]);
    }
    let image = ElfParts::parse(&bytes).unwrap();
    let section = image.section(".eh_frame").unwrap();
    let (start, size) = (section.offset.0 as usize, section.size as usize);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..500 {
        let mut changed = bytes.clone();
        for _ in 0..8 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at =
                if random >> 63 == 0 { start + (random >> 16) as usize % size } else { (random >> 16) as usize % 1024 };
            changed[at] = (random >> 8) as u8;
        }
        if let Ok(image) = ElfParts::parse(&changed) {
            let _ = compile(&image, &mut RuleDictionary::new());
        }
    }
}
