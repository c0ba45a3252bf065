//! Naming, over a heap that is made here as V8 11.3 would have it.

use std::io;

use profiler_address::UserAddr;
use profiler_bpf::abi::FrameKind;
use profiler_bpf::record::RuntimeFrame;

use super::layout::Layout;
use super::*;
use crate::runtime::{FrameName, Tier};

const HEAP: u64 = 0x1000_0000_0000;
const CODE: u64 = 0x7f00_0000_1000;
const SOURCE: &str = "function outer() {\n  inner();\n}\r\nfunction inner() {\r  work();\n}\n";

/// A heap that grows upwards, and room for machine code.
#[derive(Debug)]
struct Imitation {
    heap: Vec<u8>,
    code: Vec<u8>,
}

impl Memory for Imitation {
    fn read(&self, address: u64, bytes: &mut [u8]) -> io::Result<()> {
        for (base, content) in [(HEAP, &self.heap), (CODE, &self.code)] {
            // Pages are there as a whole.
            let end = base + content.len().next_multiple_of(4096) as u64;
            if (base..end).contains(&address) && address + bytes.len() as u64 <= end {
                let from = (address - base) as usize;
                for (at, byte) in bytes.iter_mut().enumerate() {
                    *byte = content.get(from + at).copied().unwrap_or(0);
                }
                return Ok(());
            }
        }
        Err(io::Error::other("nothing there"))
    }
}

const fn small(number: i32) -> u64 {
    (number as u32 as u64) << 32
}

impl Imitation {
    fn new() -> Self {
        Self { heap: vec![0; 64], code: vec![0; 8192] }
    }

    /// An object of bytes, whose tagged address it gives.
    fn object(&mut self, kind: u16, content: &[u8]) -> u64 {
        let mut map = vec![0; 16];
        map[12..14].copy_from_slice(&kind.to_le_bytes());
        let map = self.put(&map);
        self.put(&[&map.to_le_bytes(), content].concat())
    }

    fn put(&mut self, content: &[u8]) -> u64 {
        let at = self.heap.len().next_multiple_of(8);
        self.heap.resize(at, 0);
        self.heap.extend_from_slice(content);
        HEAP + at as u64 + 1
    }

    fn words(&mut self, kind: u16, words: &[u64]) -> u64 {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.object(kind, &bytes)
    }

    fn set(&mut self, object: u64, offset: u64, word: u64) {
        let at = (object - 1 + offset - HEAP) as usize;
        self.heap[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }

    fn string(&mut self, kind: u16, length: u32, rest: &[u8]) -> u64 {
        self.object(kind, &[&[0; 4], &length.to_le_bytes()[..], rest].concat())
    }

    fn latin(&mut self, text: &str) -> u64 {
        self.string(40, text.len() as u32, text.as_bytes())
    }

    fn of_strings(&mut self, kind: u16, length: u32, words: &[u64]) -> u64 {
        let rest: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.string(kind, length, &rest)
    }

    fn bytes(&mut self, content: &[u8]) -> u64 {
        self.object(190, &[&small(content.len() as i32).to_le_bytes(), content].concat())
    }

    fn array(&mut self, elements: &[u64]) -> u64 {
        self.words(175, &[&[small(elements.len() as i32)], elements].concat())
    }

    fn script(&mut self, name: &str, source: &str) -> u64 {
        let (source, name) = (self.latin(source), self.latin(name));
        self.words(167, &[source, name, small(0), small(0), 0, small(2), 0, small(9)])
    }

    /// A function that begins at `start` of its script, and has `variables` in its scope.
    fn function(&mut self, name: &str, script: u64, start: i32, data: u64, variables: i32) -> u64 {
        let name = self.latin(name);
        let other = self.latin("a variable");
        let mut scope = vec![small(0), small(1), small(variables)];
        scope.extend((0..variables).flat_map(|_| [other]));
        scope.extend((0..variables).flat_map(|_| [small(7)]));
        scope.extend([name, small(-1), HEAP + 1, small(start), small(start + 10)]);
        let scope = self.words(261, &scope);
        let number = start as u64;
        self.words(262, &[data, scope, 0, script, 0x5_0000 | 3 << 56, 0x11140 | number << 32])
    }
}

/// Two functions: `outer`, whose optimized code at [`CODE`] has `inner` inlined, which has bytecode too.
fn program() -> (Imitation, u64, u64) {
    let mut heap = Imitation::new();
    let script = heap.script("/app/main.js", SOURCE);
    // Bytecode: 40 bytes whose place, from byte 4 on, is that of `work()`.
    let work = SOURCE.find("work").unwrap() as i64;
    let positions = heap.bytes(&[table(&[(0, 42), (4, work)])].concat());
    let bytecode = heap.words(191, &[small(40), 0, 0, positions, 0, 0, 0, 0, 0, 0, 0, 0]);
    let inner = heap.function("inner", script, SOURCE.find("inner() {").unwrap() as i32 + 5, bytecode, 2);
    let outer = heap.function("outer", script, 14, 0, 0);
    let call = SOURCE.find("inner();").unwrap() as u64;
    // Machine code: up to 0x20 it is of outer, from there on of inner.
    let inlined = (work as u64 + 1) << 1 | 1 << 31;
    let positions = heap.bytes(&raw_table(&[(0, (14 + 1) << 1), (0x20, inlined as i64)]));
    let call = (call + 1) << 1;
    let calls = heap.bytes(&[call.to_le_bytes(), 0_u64.to_le_bytes()].concat());
    let literals = heap.array(&[inner]);
    let origin = heap.array(&[0, small(1), literals, 0, 0, 0, outer, calls]);
    let start = CODE + 0x400;
    let code = heap.words(245, &[0, origin, positions, 0, start, 13, 0x100, 0, 0]);
    let map = heap.words(252, &[0, 0]);
    heap.code[0x400 - 16..0x400 - 8].copy_from_slice(&map.to_le_bytes());
    heap.code[0x400 - 8..0x400].copy_from_slice(&code.to_le_bytes());
    (heap, outer, inner)
}

fn table(entries: &[(i64, i64)]) -> Vec<u8> {
    let packed: Vec<(i64, i64)> = entries.iter().map(|(at, place)| (*at, (place + 1) << 1)).collect();
    raw_table(&packed)
}

fn raw_table(entries: &[(i64, i64)]) -> Vec<u8> {
    let (mut at, mut place) = (-1, 0);
    let mut bytes = Vec::new();
    for entry in entries {
        positions::encode(entry.0 - at, &mut bytes);
        positions::encode(entry.1 - place, &mut bytes);
        (at, place) = *entry;
    }
    bytes
}

fn frame(function: u64, position: u32, kind: u32) -> RuntimeFrame {
    RuntimeFrame { kind: FrameKind::V8, object: UserAddr(function & !1), position, cookie: kind << 30 }
}

fn names(heap: &Imitation, frames: &[RuntimeFrame]) -> Vec<Named> {
    let naming = Naming { layout: Layout::of_node_20(), high: vec![0x7e00, (CODE >> 32) as u32] };
    V8.names(&borsh::to_vec(&naming).unwrap(), heap, frames)
}

fn name(function: &str, line: u32, start_line: u32) -> FrameName {
    FrameName { function: function.into(), file: "/app/main.js".into(), line, start_line, tier: None }
}

/// The same, run in a way that is known.
fn run(tier: Tier, function: &str, line: u32, start_line: u32) -> FrameName {
    FrameName { tier: Some(tier), ..name(function, line, start_line) }
}

#[test]
fn bytecode_has_its_function_and_line() {
    let (heap, _, inner) = program();
    // The first byte is 53 after the tagged address.
    let at = |byte: u32| frame(inner, byte + 53, 1);
    assert_eq!(
        names(&heap, &[at(0), at(3), at(4), at(39)]),
        [
            Ok(vec![run(Tier::Interpreted, "inner", 4, 4)]),
            Ok(vec![run(Tier::Interpreted, "inner", 4, 4)]),
            Ok(vec![run(Tier::Interpreted, "inner", 5, 4)]),
            Ok(vec![run(Tier::Interpreted, "inner", 5, 4)])
        ]
    );
}

#[test]
fn machine_code_has_those_that_are_inlined_innermost_first() {
    let (heap, outer, _) = program();
    let start = (CODE + 0x400) as u32;
    let own = Ok(vec![run(Tier::Turbofan, "outer", 1, 1)]);
    let both = Ok(vec![run(Tier::Turbofan, "inner", 5, 4), run(Tier::Turbofan, "outer", 2, 1)]);
    assert_eq!(names(&heap, &[frame(outer, start + 0x1f, 2), frame(outer, start + 0x20, 2)]), [own, both.clone()]);
    let at_end = RuntimeFrame { object: UserAddr(0), ..frame(outer, start + 0xff, 2) };
    assert_eq!(names(&heap, &[at_end]), [both]);
}

#[test]
fn which_compiler_made_machine_code_is_told() {
    let of = |kind: u64| {
        let (mut heap, outer, _) = program();
        let code = u64::from_le_bytes(heap.code[0x400 - 8..0x400].try_into().unwrap());
        heap.set(code, 48, kind);
        names(&heap, &[frame(outer, (CODE + 0x400) as u32 + 0x20, 2)]).remove(0).unwrap()[0].tier
    };
    assert_eq!([11, 12, 13].map(of), [Tier::Sparkplug, Tier::Maglev, Tier::Turbofan].map(Some));
    assert_eq!([9, 14].map(of), [None; 2], "made by none of them");
}

#[test]
fn code_that_is_not_the_functions_says_nothing_of_its_place() {
    let (heap, outer, inner) = program();
    let start = (CODE + 0x400) as u32;
    assert_eq!(names(&heap, &[frame(inner, start + 0x20, 2)]), [Ok(vec![name("inner", 4, 4)])], "code of another");
    assert_eq!(names(&heap, &[frame(outer, start + 0x100, 2)]), [Ok(vec![name("outer", 1, 1)])], "behind the code");
    let gone = RuntimeFrame { object: UserAddr(0), ..frame(outer, start + 0x100, 2) };
    assert_eq!(names(&heap, &[gone]), [Err("v8: function at its end".into())]);
}

#[test]
fn another_function_at_the_same_address_is_refused() {
    let (mut heap, outer, _) = program();
    let cookie = function::cookie(0x5_0000, 0x11140 | 14 << 32);
    let known = RuntimeFrame { cookie, ..frame(outer, 0, 0) };
    assert_eq!(names(&heap, &[known]), [Ok(vec![name("outer", 1, 1)])]);
    heap.set(outer, 48, 0x11140 | 15 << 32);
    assert_eq!(names(&heap, &[known]), [Err("v8: function gone".into())]);
    // And what is no function, or not there.
    let text = heap.latin("no function");
    let gone = [frame(text, 0, 0), frame(HEAP + (1 << 30) + 1, 0, 0), frame(u64::MAX, 0, 0)];
    assert!(names(&heap, &gone).iter().all(|named| *named == Err("v8: function gone".into())));
}

#[test]
fn strings_of_all_kinds_are_names() {
    let (mut heap, outer, _) = program();
    let mut as_name = |make: &dyn Fn(&mut Imitation) -> u64| {
        let string = make(&mut heap);
        heap.set(outer, 16, string);
        names(&heap, &[frame(outer, 0, 0)]).remove(0).unwrap().remove(0).function.to_string()
    };
    let wide: Vec<u8> = "größe".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(as_name(&|heap| heap.string(32, 5, &wide)), "größe");
    assert_eq!(as_name(&|heap| heap.string(8, 2, b"ab")), "ab", "internalized");
    assert_eq!(as_name(&|heap| heap.string(40, 1, b"\xe9")), "é", "Latin-1");
    let cons = |heap: &mut Imitation| {
        let (first, second) = (heap.latin("node:"), heap.latin("internal"));
        heap.of_strings(41, 13, &[first, second])
    };
    assert_eq!(as_name(&cons), "node:internal");
    let sliced = |heap: &mut Imitation| {
        let parent = cons(heap);
        heap.of_strings(43, 5, &[parent, small(3)])
    };
    assert_eq!(as_name(&sliced), "e:int", "across two pieces");
    let thin = |heap: &mut Imitation| {
        let actual = sliced(heap);
        heap.of_strings(45, 5, &[actual])
    };
    assert_eq!(as_name(&thin), "e:int");
    let external = |heap: &mut Imitation| {
        let characters = heap.put(b"outside") - 1;
        heap.of_strings(42, 7, &[0, characters])
    };
    assert_eq!(as_name(&external), "outside");
    assert_eq!(as_name(&|heap| heap.of_strings(58, 7, &[0, 0])), "<anonymous>", "characters that are not at hand");
    assert_eq!(as_name(&|heap| heap.latin("")), "<anonymous>");
}

#[test]
fn a_scope_with_variables_still_names_its_function() {
    let mut heap = Imitation::new();
    let script = heap.script("/app/main.js", SOURCE);
    for variables in [0, 1, 74] {
        let function = heap.function("here", script, 20, 0, variables);
        assert_eq!(names(&heap, &[frame(function, 0, 0)]), [Ok(vec![name("here", 2, 2)])], "{variables}");
    }
}

#[test]
fn counted_lines_are_used_and_an_offset_is_added() {
    let (mut heap, outer, _) = program();
    let script = u64::from_le_bytes(heap.heap[(outer - 1 + 32 - HEAP) as usize..][..8].try_into().unwrap());
    let ends = heap.array(&[small(5), small(9), small(13), small(20)]);
    heap.set(script, 56, ends);
    heap.set(script, 24, small(100));
    // It begins at 14, in the fourth line.
    assert_eq!(names(&heap, &[frame(outer, 0, 0)]), [Ok(vec![name("outer", 104, 104)])]);
    heap.set(script, 24, small(-1000));
    assert_eq!(names(&heap, &[frame(outer, 0, 0)]), [Ok(vec![name("outer", 0, 0)])], "before the first line");
}

#[test]
fn what_leads_in_circles_or_claims_too_much_ends() {
    let (mut heap, outer, inner) = program();
    let start = (CODE + 0x400) as u32;
    // A string that is made of itself, twice.
    let knot = heap.of_strings(41, 1 << 28, &[0, 0]);
    heap.set(knot, 16, knot);
    heap.set(knot, 24, knot);
    heap.set(outer, 16, knot);
    let thin = heap.of_strings(45, 7, &[0]);
    heap.set(thin, 16, thin);
    heap.set(inner, 16, thin);
    let frames = [frame(outer, 0, 0), frame(inner, 54, 1), frame(outer, start, 2)];
    assert!(names(&heap, &frames).iter().all(Result::is_ok));
    // Every word of all objects, one after the other, as large, as negative and as crooked as can be.
    let (whole, outer, inner) = program();
    let frames = [frame(outer, start + 0x21, 2), frame(inner, 57, 1), frame(0, start + 0x21, 2)];
    for at in (0..whole.heap.len()).step_by(8) {
        for word in [u64::MAX, u64::MAX - 1, 0x7fff_ffff_0000_0000, HEAP + 1, outer, 1] {
            let mut heap = Imitation { heap: whole.heap.clone(), code: whole.code.clone() };
            let end = (at + 8).min(heap.heap.len());
            heap.heap[at..end].copy_from_slice(&word.to_le_bytes()[..end - at]);
            for named in names(&heap, &frames) {
                assert!(named.is_err() || named.is_ok_and(|names| (1..=64).contains(&names.len())));
            }
        }
    }
}
