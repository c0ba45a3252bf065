//! What is asked for and answered of names.

use std::path::PathBuf;
use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use profiler_symbolizer::{Frame, Generation, JitProcess, Language, MapRead, Options, Symbolized};
use profiler_unwinders::reading::{Lent, LentRoot};
use rustc_hash::FxHashMap;

/// Most bytes of names in one answer.
pub(crate) const MAX_NAMES: usize = 8 << 20;
/// Addresses that are asked for at once.
pub(crate) const MAX_ADDRESSES: usize = 4096;
/// Most bytes by which a perf map is known again.
const MAX_LAST: usize = 64;
/// Bytes of a frame, of an answer, of a text beside itself: as they are kept, which is more than as they go over the socket.
const FRAME: usize = size_of::<Frame>();
const ANSWER: usize = size_of::<Generation>();
const TEXT: usize = 2 * size_of::<usize>();
const _: () = assert!(FRAME >= 24 && ANSWER >= 16);

/// [`Options`] of a symbolizer.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct Symbols {
    source_lines: bool,
    debug_dirs: Vec<String>,
    budget_bytes: u64,
    dwarf_budget_bytes: u64,
}

impl Symbols {
    pub(crate) fn of(options: &Options) -> Self {
        Self {
            source_lines: options.source_lines,
            debug_dirs: options.debug_dirs.iter().map(|folder| folder.to_string_lossy().into_owned()).collect(),
            budget_bytes: options.budget_bytes,
            dwarf_budget_bytes: options.dwarf_budget_bytes,
        }
    }

    pub(crate) fn options(self) -> Options {
        Options {
            source_lines: self.source_lines,
            debug_dirs: self.debug_dirs.into_iter().map(PathBuf::from).collect(),
            budget_bytes: self.budget_bytes,
            dwarf_budget_bytes: self.dwarf_budget_bytes,
        }
    }
}

/// Where the bytes of a file are.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) enum Content {
    /// Another process has it open.
    Lent { pid: u32, descriptor: i32, device: u64, inode: u64 },
    /// Here.
    Bytes(Vec<u8>),
}

impl Content {
    pub(crate) fn of(lent: &Lent) -> Self {
        Self::Lent { pid: lent.pid, descriptor: lent.descriptor, device: lent.device, inode: lent.inode }
    }
}

/// [`profiler_symbolizer::Object`].
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct NamedFile {
    pub key: String,
    pub path: String,
    /// Whose root directory `path` is below; the host's if nobody's.
    pub root: Option<u32>,
    /// That directory as it was while the process lived.
    pub held: Option<HeldRoot>,
    pub content: Content,
}

/// A directory that another process has open.
#[derive(Clone, Copy, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct HeldRoot {
    pub pid: u32,
    pub descriptor: i32,
    pub device: u64,
    pub inode: u64,
}

impl HeldRoot {
    pub(crate) fn of(lent: &Lent) -> Option<Self> {
        lent.root.map(|LentRoot { descriptor, device, inode }| Self { pid: lent.pid, descriptor, device, inode })
    }
}

/// [`JitProcess`].
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct JitCode {
    pid: u32,
    start_time: u64,
    namespace_pid: u32,
    /// How far another had read its perf map.
    read: Option<ReadFields>,
}

impl JitCode {
    pub(crate) fn of(process: &JitProcess, read: Option<&MapRead>) -> Self {
        let JitProcess { pid, start_time, namespace_pid, .. } = *process;
        Self { pid, start_time, namespace_pid, read: read.map(ReadFields::of) }
    }

    pub(crate) fn read(&self) -> Option<MapRead> {
        self.read.clone().and_then(ReadFields::take)
    }

    pub(crate) fn process(&self) -> JitProcess {
        JitProcess {
            pid: self.pid,
            start_time: self.start_time,
            root: root_of(self.pid),
            namespace_pid: self.namespace_pid,
        }
    }
}

/// [`MapRead`].
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct ReadFields {
    file: (u64, u64),
    length: u64,
    last: Vec<u8>,
    seen: u64,
    lost: u64,
}

impl ReadFields {
    pub(crate) fn of(read: &MapRead) -> Self {
        let MapRead { file, length, last, seen, lost } = read.clone();
        Self { file, length, last, seen, lost }
    }

    /// None if it is too much.
    pub(crate) fn take(self) -> Option<MapRead> {
        let Self { file, length, last, seen, lost } = self;
        (last.len() <= MAX_LAST).then_some(MapRead { file, length, last, seen, lost })
    }
}

/// The root directory of a process.
pub(crate) fn root_of(pid: u32) -> PathBuf {
    format!("/proc/{pid}/root").into()
}

/// Answers, with each text once.
#[derive(Debug, Default, BorshSerialize, BorshDeserialize)]
pub(crate) struct Named {
    texts: Vec<String>,
    frames: Vec<FrameFields>,
    answers: Vec<AnswerFields>,
    /// Where an address has several meanings: how many of the answers are of each address.
    counts: Vec<u32>,
    /// Frames that had no room.
    pub left_out: u64,
}

/// Texts by number; of what may be missing 0 is that it is, and 1 the first.
#[derive(Clone, Copy, Debug, BorshSerialize, BorshDeserialize)]
struct FrameFields {
    name: u32,
    system_name: u32,
    file: u32,
    line: u32,
    column: u32,
    start_line: u32,
}

#[derive(Clone, Copy, Debug, BorshSerialize, BorshDeserialize)]
struct AnswerFields {
    frames: u32,
    language: u8,
    until: u64,
}

/// By number.
const LANGUAGES: [Language; 4] = [Language::Native, Language::Go, Language::Jit, Language::Kernel];
/// In its place: the answer had no room.
const LEFT_OUT: u8 = u8::MAX;

/// Fills a [`Named`].
struct Filler {
    named: Named,
    /// By address: the symbolizer shares its texts.
    known: FxHashMap<(*const u8, usize), u32>,
    bytes: usize,
    /// Most bytes.
    room: usize,
}

impl Filler {
    fn of(room: usize) -> Self {
        Self { named: Named::default(), known: FxHashMap::default(), bytes: 0, room: room.min(MAX_NAMES) }
    }

    fn text(&mut self, text: &Arc<str>) -> u32 {
        let key = (text.as_ptr(), text.len());
        if let Some(&known) = self.known.get(&key) {
            return known;
        }
        let number = self.named.texts.len() as u32;
        self.bytes += TEXT + text.len();
        self.named.texts.push(text.to_string());
        self.known.insert(key, number);
        number
    }

    /// Takes in an answer; without its frames once there is no room for more.
    fn add(&mut self, of: &Symbolized, until: u64) {
        self.bytes += ANSWER;
        let texts = |frame: &Frame| {
            let file = frame.file.as_ref().map_or(0, |file| file.len() + TEXT);
            FRAME + frame.name.len() + frame.system_name.len() + 2 * TEXT + file
        };
        let wanted: usize = of.frames.iter().map(texts).sum();
        if !of.frames.is_empty() && self.bytes + wanted > self.room {
            self.named.left_out += of.frames.len() as u64;
            self.named.answers.push(AnswerFields { frames: 0, language: LEFT_OUT, until });
            return;
        }
        let frames = &of.frames;
        for frame in frames {
            self.bytes += FRAME;
            let fields = FrameFields {
                name: self.text(&frame.name),
                system_name: self.text(&frame.system_name),
                file: frame.file.as_ref().map_or(0, |file| self.text(file) + 1),
                line: frame.line,
                column: frame.column,
                start_line: frame.start_line,
            };
            self.named.frames.push(fields);
        }
        let language = LANGUAGES.iter().position(|language| *language == of.language).unwrap_or_default() as u8;
        self.named.answers.push(AnswerFields { frames: frames.len() as u32, language, until });
    }
}

impl Named {
    /// The answers for a file's addresses, in `room` bytes.
    pub(crate) fn of(answers: &[Symbolized], room: usize) -> Self {
        let mut filler = Filler::of(room);
        answers.iter().for_each(|answer| filler.add(answer, u64::MAX));
        filler.named
    }

    /// The meanings of each address, in `room` bytes.
    pub(crate) fn of_generations(answers: &[Vec<Generation>], room: usize) -> Self {
        let mut filler = Filler::of(room);
        for generations in answers {
            generations.iter().for_each(|one| filler.add(&one.symbolized, one.until));
            filler.named.counts.push(generations.len() as u32);
            filler.bytes += TEXT;
        }
        filler.named
    }

    /// How many addresses it is of, by its own word.
    pub(crate) fn len(&self) -> usize {
        if self.counts.is_empty() { self.answers.len() } else { self.counts.len() }
    }

    /// How many bytes its texts and frames are when they are kept.
    pub(crate) fn bytes(&self) -> usize {
        let texts: usize = self.texts.iter().map(|text| TEXT + text.len()).sum();
        texts + FRAME * self.frames.len() + ANSWER * self.answers.len()
    }

    /// `count` answers, without those that had no room; `None` if it has more or fewer, or names what is not there.
    pub(crate) fn take(self, count: usize) -> Option<Vec<Option<Symbolized>>> {
        let has_room: Vec<bool> = self.answers.iter().map(|answer| answer.language != LEFT_OUT).collect();
        let found = self.meanings()?;
        let each = found.into_iter().zip(has_room).map(|(one, has_room)| has_room.then_some(one.symbolized));
        let each: Vec<_> = each.collect();
        (each.len() == count).then_some(each)
    }

    /// The meanings of `count` addresses, one or more of each, in the order of time.
    pub(crate) fn take_generations(mut self, count: usize) -> Option<Vec<Vec<Generation>>> {
        let counts = std::mem::take(&mut self.counts);
        let mut meanings = self.meanings()?.into_iter();
        let mut found = Vec::with_capacity(counts.len());
        for wanted in counts {
            let of: Vec<Generation> = meanings.by_ref().take(wanted as usize).collect();
            let is_in_order =
                of.windows(2).all(|pair| pair.first().map(|one| one.until) < pair.last().map(|one| one.until));
            if of.is_empty() || of.len() != wanted as usize || !is_in_order {
                return None;
            }
            found.push(of);
        }
        (found.len() == count && meanings.next().is_none()).then_some(found)
    }

    fn meanings(self) -> Option<Vec<Generation>> {
        let texts: Vec<Arc<str>> = self.texts.into_iter().map(Arc::from).collect();
        let text = |number: u32| texts.get(number as usize).map(Arc::clone);
        let mut frames = self.frames.into_iter();
        let mut found = Vec::with_capacity(self.answers.len());
        for answer in self.answers {
            let fields: Vec<FrameFields> = frames.by_ref().take(answer.frames as usize).collect();
            if fields.len() != answer.frames as usize {
                return None;
            }
            let frame = |fields: FrameFields| {
                Some(Frame {
                    name: text(fields.name)?,
                    system_name: text(fields.system_name)?,
                    file: match fields.file.checked_sub(1) {
                        Some(number) => Some(text(number)?),
                        None => None,
                    },
                    line: fields.line,
                    column: fields.column,
                    start_line: fields.start_line,
                })
            };
            let frames = fields.into_iter().map(frame).collect::<Option<Vec<Frame>>>()?;
            let language = match answer.language {
                LEFT_OUT if frames.is_empty() => Language::Native,
                number => *LANGUAGES.get(usize::from(number))?,
            };
            found.push(Generation { until: answer.until, symbolized: Symbolized { frames, language, module: None } });
        }
        frames.next().is_none().then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbolized(names: &[&str], file: Option<&str>) -> Symbolized {
        let frame = |name: &&str| {
            let name: Arc<str> = (*name).into();
            let system_name = Arc::clone(&name);
            Frame { name, system_name, file: file.map(Arc::from), line: 3, column: 4, start_line: 1 }
        };
        Symbolized { frames: names.iter().map(frame).collect(), language: Language::Go, module: None }
    }

    fn sent(named: &Named) -> Named {
        borsh::from_slice(&borsh::to_vec(named).unwrap()).unwrap()
    }

    #[test]
    fn names_come_as_they_went_and_of_no_other_number() {
        let answers =
            vec![symbolized(&["inlined", "caller"], Some("a.rs")), Symbolized::default(), symbolized(&["x"], None)];
        let named = Named::of(&answers, MAX_NAMES);
        assert_eq!((named.left_out, named.texts.len()), (0, 5), "what is the same in both is there once");
        assert_eq!(sent(&named).take(3), Some(answers.into_iter().map(Some).collect()));
        assert_eq!(sent(&named).take(2), None);
        assert_eq!(sent(&named).take(4), None);
        for spoil in [
            |named: &mut Named| named.frames[0].name = 5,
            |named: &mut Named| named.frames[1].file = 6,
            |named: &mut Named| named.answers[2].frames = 2,
            |named: &mut Named| named.answers[0].frames = 1,
            |named: &mut Named| named.answers[1].language = 4,
            |named: &mut Named| named.answers[2].language = LEFT_OUT,
        ] {
            let mut spoilt = sent(&named);
            spoil(&mut spoilt);
            assert!(spoilt.take(3).is_none());
        }
    }

    #[test]
    fn meanings_come_as_they_went_in_order_of_time() {
        let one = |name, until| Generation { until, symbolized: symbolized(&[name], None) };
        let all = vec![vec![one("a", 5), one("b", u64::MAX)], vec![one("c", u64::MAX)]];
        let named = Named::of_generations(&all, MAX_NAMES);
        assert_eq!(sent(&named).take_generations(2), Some(all.clone()));
        assert_eq!(sent(&named).take_generations(3), None);
        for counts in [vec![1, 1], vec![3, 0], vec![2, 1, 1], vec![1, 2]] {
            assert!(Named { counts, ..sent(&named) }.take_generations(2).is_none());
        }
        let backwards = Named::of_generations(&[vec![one("a", 5), one("b", 4)]], MAX_NAMES);
        assert_eq!(sent(&backwards).take_generations(1), None);
    }

    #[test]
    fn an_answer_is_bounded_and_what_has_no_room_is_counted() {
        let long = "n".repeat(1 << 20);
        let names: Vec<String> = (0..12).map(|number| format!("{long}{number}")).collect();
        let answers: Vec<_> = names.iter().map(|name| symbolized(&[name.as_str()], None)).collect();
        let named = Named::of(&answers, usize::MAX);
        let left_out = named.left_out;
        assert!(left_out > 0 && left_out < 12, "{left_out}");
        let bytes = borsh::to_vec(&named).unwrap();
        assert!(bytes.len() <= MAX_NAMES && bytes.len() > MAX_NAMES / 4, "{}", bytes.len());
        let taken = named.take(12).unwrap();
        assert_eq!(taken.iter().filter(|one| one.is_none()).count() as u64, left_out);
        let small = Named::of(&answers, 3 << 20);
        assert!(small.bytes() <= 3 << 20 && (10..12).contains(&small.left_out), "{}", small.left_out);
    }
}
