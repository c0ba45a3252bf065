//! The keys of `processors`: rules in OTTL, under the names that the Collector's own processors have.

use std::cell::Cell;
use std::rc::Rc;

use profiler_ottl::{ErrorMode, HashKey};
use profiler_receiver::Secret;
use profiler_rules::{Aggregate, Level, Rules, WHOLE, innermost};

use super::errors::quoted;
use super::kind::{self, Items, Kind, OFF};
use super::model::{Percent, Processor, ProcessorKind, RuleGroup};
use super::reader::Reader;
use super::yaml::{Key, Node, Value};

const FILTER: &str = "filter";
const TRANSFORM: &str = "transform";
const AGGREGATE: &str = "aggregate";
/// The least share that rare stacks may have, %: a millionth.
const LEAST: f64 = 100.0 / WHOLE as f64;
/// The longest rule, bytes; what is longer OTTL refuses, too.
const MAX_RULE: usize = 64 * 1024;
/// Rules of all processors together.
const MAX_RULES: usize = 512;
/// Of these, rules of a remote configuration.
const MAX_REMOTE: usize = 64;
/// What the regular expressions of all rules may count as, bytes: they are compiled on the thread that samples, and kept.
const MAX_PATTERNS: usize = 64 << 20;
/// Of a remote configuration.
const MAX_REMOTE_PATTERNS: usize = 8 << 20;

/// What rules may follow; what is beyond is not even compiled.
#[derive(Clone)]
struct Room {
    most: usize,
    most_bytes: usize,
    /// One that is refused ends it: who made the others may want them to take long, too.
    all_or_none: bool,
    taken: Rc<Cell<usize>>,
    bytes: Rc<Cell<usize>>,
    has_refused: Rc<Cell<bool>>,
}

impl Room {
    fn own() -> Self {
        Self {
            most: MAX_RULES,
            most_bytes: MAX_PATTERNS,
            all_or_none: false,
            taken: Rc::default(),
            bytes: Rc::default(),
            has_refused: Rc::default(),
        }
    }

    fn remote() -> Self {
        Self { most: MAX_REMOTE, most_bytes: MAX_REMOTE_PATTERNS, all_or_none: true, ..Self::own() }
    }

    fn is_over(&self) -> bool {
        let is_full = self.taken.get() > self.most || self.bytes.get() > self.most_bytes;
        is_full || self.all_or_none && self.has_refused.get()
    }

    /// Has `check` say what is wrong with one more rule, or what its regular expressions count as; the first that is too many is told, the others are
    /// passed over.
    fn one_more(&self, check: impl FnOnce() -> Result<usize, String>) -> Result<(), String> {
        if self.is_over() {
            return Ok(());
        }
        self.taken.set(self.taken.get() + 1);
        if self.is_over() {
            return Err(format!("is one rule more than the {} that run", self.most));
        }
        let bytes = check().inspect_err(|_| self.has_refused.set(true))?;
        self.bytes.set(self.bytes.get().saturating_add(bytes));
        if self.is_over() {
            return Err(format!(
                "has one regular expression too many: those of all rules may take {} bytes",
                self.most_bytes
            ));
        }
        Ok(())
    }
}

/// Reads `processors`. All their rules compile unless a problem was reported.
pub(super) fn read(reader: &mut Reader<'_>) -> Vec<Processor> {
    let (own, remote) = (Room::own(), Room::remote());
    let processors = reader.sections(
        "processors",
        Items::Add,
        "What changes, filters and aggregates profiles before they go anywhere, in order, by rules in OTTL (docs/ottl.md). A remote \
         configuration adds filters, behind all others",
        name_of,
        |reader| processor(reader, if reader.is_remote() { &remote } else { &own }),
    );
    let twice = |processor: &&Processor| processors.iter().filter(|other| other.name == processor.name).count() > 1;
    if let Some(twice) = processors.iter().find(twice) {
        let message = format!("two processors are named {}: give each a name of its own", quoted(&twice.name));
        reader.problem(reader.origin(), "processors", message);
    }
    processors
}

/// The name of an item, before it is read.
fn name_of(node: &Node) -> Option<String> {
    let Value::Map(items) = &node.value else { return None };
    let has = |name: &str| items.iter().find(|(Key { text, .. }, _)| text == name).map(|(_, node)| node);
    match has("name").map(|node| &node.value) {
        Some(Value::Scalar { text, .. }) => Some(text.clone()),
        _ => [FILTER, TRANSFORM, AGGREGATE].into_iter().find(|name| has(name).is_some()).map(str::to_owned),
    }
}

fn processor(reader: &mut Reader<'_>, room: &Room) -> Processor {
    reader.exactly_one(&[FILTER, TRANSFORM, AGGREGATE]);
    for own in [TRANSFORM, AGGREGATE] {
        if reader.is_remote() && reader.is_present(own) {
            let message = "is the host's own: a remote configuration adds filters, and nothing else";
            reader.problem(reader.origin(), own, message);
        }
    }
    let present = [TRANSFORM, AGGREGATE].into_iter().find(|own| reader.is_present(own)).unwrap_or(FILTER);
    let default = if reader.is_remote() { "remote" } else { present };
    let name = kind::text("1 to 64 of A-Z a-z 0-9 _ - /; differs from the others").checked(|name: &String| {
        // As the Collector has them: `filter/by-team`.
        let right = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/');
        if name.len() <= 64 && name.chars().all(right) {
            Ok(())
        } else {
            Err(format!("{} is no name: use 1 to 64 of A-Z a-z 0-9 _ - /", quoted(name)))
        }
    });
    let name = reader.value(
        "name",
        name.local(),
        default.to_owned(),
        "Names the processor in logs and in metrics. By default `filter`, `transform` or `aggregate`, after what it is",
    );
    let filter = reader.optional_section(
        FILTER,
        "Drops what a condition holds for, as the Collector's filterprocessor; what is left without samples goes, too",
        |reader| filter(reader, room),
    );
    let transform = reader.optional_section(
        TRANSFORM,
        "Changes profiles by statements, as the Collector's transformprocessor",
        |reader| transform(reader, room),
    );
    let aggregate = reader.optional_section(
        AGGREGATE,
        "Makes one of resources, profiles and samples that are equal, as rules in front may have made them. The Collector has no such processor",
        aggregate,
    );
    let kind = match (filter, transform, aggregate) {
        (_, Some(groups), _) => ProcessorKind::Transform(groups),
        (_, _, Some(aggregate)) => ProcessorKind::Aggregate(aggregate),
        // Without any it was refused by `exactly_one`; what stands here is not used.
        (groups, None, None) => ProcessorKind::Filter(groups.unwrap_or_default()),
    };
    Processor { name, kind }
}

fn error_mode(reader: &mut Reader<'_>) -> ErrorMode {
    reader.value(
        "error_mode",
        kind::choice().local(),
        ErrorMode::Ignore,
        "What becomes of a rule that fails on something: `ignore` counts and logs it and goes on, `silent` counts it and goes on, \
         `propagate` drops the window, counted",
    )
}

/// What keyed hashes of a processor are made under.
fn hash_key(reader: &mut Reader<'_>) -> Option<HashKey> {
    let right = |key: &Secret| HashKey::new(key.expose()).map(|_| ());
    let key = reader.optional(
        "hash_key",
        kind::secret("text of 16 bytes or more").checked(right).local(),
        "What `KeyedHash` of its rules hashes under, such as `${file:/etc/profiler/hash.key}` or `${env:HASH_KEY}`. Never shown",
    );
    key.and_then(|(key, _)| HashKey::new(key.expose()).ok())
}

fn filter(reader: &mut Reader<'_>, room: &Room) -> Vec<RuleGroup> {
    let mode = error_mode(reader);
    let key = hash_key(reader);
    let mut groups = reader.short_sections(
        "profile_conditions",
        "conditions",
        "A profile that one of these conditions holds for is dropped; or the whole resource or scope, if its paths name no profile",
        |reader| conditions(reader, (mode, &key), Level::Profile, room),
    );
    placed(&mut groups, "profile_conditions");
    // From the outermost, as the Collector goes.
    if !room.is_over() {
        groups.sort_by_cached_key(|group| group.compile(true).map_or(Level::Profile, |rules| rules.level()));
    }
    let mut of_samples = reader.short_sections(
        "sample_conditions",
        "conditions",
        "A sample that one of these conditions holds for is dropped, or, of one that names `frame`, one that has such a frame. The Collector has none of these",
        |reader| conditions(reader, (mode, &key), Level::Frame, room),
    );
    placed(&mut of_samples, "sample_conditions");
    groups.extend(of_samples);
    not_nothing(reader, &groups, "profile_conditions or sample_conditions");
    groups
}

fn transform(reader: &mut Reader<'_>, room: &Room) -> Vec<RuleGroup> {
    let mode = error_mode(reader);
    let key = hash_key(reader);
    let mut groups = reader.short_sections(
        "profile_statements",
        "statements",
        "What is run, in order, each on every context that its paths name",
        |reader| statements(reader, (mode, &key), room),
    );
    placed(&mut groups, "profile_statements");
    not_nothing(reader, &groups, "profile_statements");
    groups
}

fn aggregate(reader: &mut Reader<'_>) -> Aggregate {
    let drop_timestamps = reader.value(
        "drop_timestamps",
        kind::boolean().local(),
        false,
        "Samples lose their times, and those that differ in nothing else become one with the sum of their values",
    );
    let other_below = reader.value(
        "other_below",
        kind::or_off(kind::percent(LEAST, 100.0), |share| share.map_or_else(|| OFF.to_owned(), |share| share.to_string()))
            .local(),
        None,
        "Stacks that have less than this share of their profile (of one resource and one sample type) become one stack, `[other]`",
    );
    // A share of at least a millionth and at most the whole.
    let millionths = |share: Percent| (share.fraction() * f64::from(WHOLE)).round() as u32;
    Aggregate { drop_timestamps, other_below: other_below.map_or(0, millionths) }
}

fn placed(groups: &mut [RuleGroup], key: &str) {
    for (at, group) in groups.iter_mut().enumerate() {
        group.place = format!("{key}[{at}]");
    }
}

fn not_nothing(reader: &mut Reader<'_>, groups: &[RuleGroup], keys: &str) {
    if groups.is_empty() && !reader.is_schema() {
        reader.problem(reader.origin(), "", format!("has no rules and would do nothing: give {keys}"));
    }
}

/// The context of a group, and its own way with errors.
fn head(reader: &mut Reader<'_>, mode: ErrorMode) -> (Option<Level>, ErrorMode) {
    let context = reader.optional(
        "context",
        kind::choice::<Level>().local(),
        "What the rules run on, once each; without it the innermost that their paths name. With it, its own paths may be bare",
    );
    let own = reader.optional("error_mode", kind::choice().local(), "As above, for these rules");
    (context.map(|(context, _)| context), own.map_or(mode, |(mode, _)| mode))
}

/// `last` is the innermost context that they may be for: profiles, or what is in samples.
fn conditions(
    reader: &mut Reader<'_>,
    (mode, key): (ErrorMode, &Option<HashKey>),
    last: Level,
    room: &Room,
) -> RuleGroup {
    let key = key.clone();
    let (context, error_mode) = head(reader, mode);
    let of_samples = last > Level::Profile;
    if let Some(context) = context.filter(|context| (*context > Level::Profile) != of_samples) {
        let right = if of_samples { "profile_conditions" } else { "sample_conditions" };
        reader.problem(reader.origin(), "context", format!("{context} has no place here: {right} is for it"));
    }
    let before = reader.problems();
    // Conditions on samples may name what is around them alone.
    let within = move |rules: &[&str]| {
        let named = || innermost(rules).unwrap_or(Level::Sample).max(Level::Sample);
        context.or_else(|| of_samples.then(named))
    };
    let of = key.clone();
    let check = move |text: &str| one(Rules::filter(within(&[text]), &[text], true, error_mode, of.clone()), last);
    let conditions =
        reader.list("conditions", rule(check, room).local(), Vec::new(), "Conditions in OTTL; one that holds suffices");
    let context = within(&conditions.iter().map(String::as_str).collect::<Vec<_>>());
    let group = RuleGroup { place: String::new(), context, error_mode, conditions, statements: Vec::new(), key };
    together(reader, &group, true, (before, room));
    group
}

fn statements(reader: &mut Reader<'_>, (mode, key): (ErrorMode, &Option<HashKey>), room: &Room) -> RuleGroup {
    let key = key.clone();
    let (context, error_mode) = head(reader, mode);
    let before = reader.problems();
    let of = key.clone();
    let check = move |text: &str| one(Rules::filter(context, &[text], true, error_mode, of.clone()), Level::Frame);
    let conditions = reader.list(
        "conditions",
        rule(check, room).local(),
        Vec::new(),
        "Conditions in OTTL; without one that holds, the statements do not run. None: they always do",
    );
    let of = key.clone();
    let check = move |text: &str| one(Rules::statements(context, &[text], error_mode, of.clone()), Level::Frame);
    let statements =
        reader.list("statements", rule(check, room).local(), Vec::new(), "Statements in OTTL, run in order");
    let group = RuleGroup { place: String::new(), context, error_mode, conditions, statements, key };
    together(reader, &group, false, (before, room));
    group
}

/// What is said of one rule, of which the place in the file is known, or what its regular expressions count as.
fn one(compiled: Result<Rules, profiler_rules::RefusedRule>, last: Level) -> Result<usize, String> {
    match compiled {
        Ok(rules) if rules.level() > last => {
            Err(format!("names a {}, and drops whole profiles here: sample_conditions is for it", rules.level()))
        }
        Ok(rules) => Ok(rules.pattern_bytes()),
        Err(refused) => {
            let error = refused.error;
            let line = if error.line() > 1 { format!("line {}, ", error.line()) } else { String::new() };
            Err(format!("{} ({line}column {} of the rule)", error.message(), error.column()))
        }
    }
}

/// What is said of rules of one group that are right one by one.
fn together(reader: &mut Reader<'_>, group: &RuleGroup, drops: bool, (before, room): (usize, &Room)) {
    if reader.problems() != before || reader.is_schema() || room.is_over() {
        return;
    }
    let rules = if drops { &group.conditions } else { &group.statements };
    if rules.is_empty() {
        let key = if drops { "conditions" } else { "statements" };
        reader.problem(reader.origin(), key, "is empty: without rules a group does nothing");
    } else if let Err(refused) = group.compile(drops) {
        let error = refused.error;
        let message = format!("in the context of all of them: {} (column {})", error.message(), error.column());
        reader.problem(reader.origin(), "", message);
    }
}

/// The text of a rule, which may have several lines.
fn rule(check: impl Fn(&str) -> Result<usize, String> + 'static, room: &Room) -> Kind<String> {
    let room = room.clone();
    let parse = move |text: &str| {
        let text = text.trim_end();
        if text.is_empty() {
            return Err("is empty".to_owned());
        }
        if text.len() > MAX_RULE {
            return Err(format!("is longer than {MAX_RULE} bytes"));
        }
        room.one_more(|| check(text)).map(|()| text.to_owned())
    };
    Kind {
        parse: Box::new(parse),
        show: String::clone,
        schema: serde_json::json!({ "type": ["string", "boolean"] }),
        what: "rule in OTTL".to_owned(),
        secret: false,
    }
}
