//! The text of a configuration file as a tree in which everything knows its line and column.
//!
//! The text is not trusted to be sane: its size, depth and number of values are bounded, aliases included, so that no
//! file can cost more than a few milliseconds and megabytes. Nothing is made of the values here: `1.10` stays `1.10`.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

/// The largest file that is read, bytes.
pub const MAX_BYTES: usize = 1024 * 1024;
/// The deepest nesting; the deepest key there is lies at eight.
const MAX_DEPTH: usize = 32;
/// The most values in one file, those that aliases repeat included.
const MAX_VALUES: usize = 50_000;
/// The most bytes of text in all values, those that aliases repeat included.
const MAX_TEXT: usize = 4 * MAX_BYTES;

/// A place in the text; both count from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl From<&Marker> for Place {
    fn from(marker: &Marker) -> Self {
        Self { line: marker.line().max(1), column: marker.col().saturating_add(1) }
    }
}

/// A value and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where the value begins.
    pub place: Place,
    /// The value.
    pub value: Value,
    /// Values in it, itself included.
    count: usize,
    /// Bytes of text in it.
    text: usize,
}

/// What YAML has: scalars, sequences and mappings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `key:` with nothing behind it, `~` or `null`.
    Nothing,
    /// One value, as its text.
    Scalar {
        /// The text, unquoted.
        text: String,
        /// Whether it was written in quotes.
        quoted: bool,
    },
    /// `[a, b]`, or lines that begin with `- `.
    List(Vec<Node>),
    /// `key: value`, in the order of the file; no key twice.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub text: String,
    /// Where it is.
    pub place: Place,
}

/// Why a text is no configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Where.
    pub place: Option<Place>,
    /// What is wrong, and the right way.
    pub message: String,
}

impl Refusal {
    fn at(place: Place, message: impl Into<String>) -> Self {
        Self { place: Some(place), message: message.into() }
    }
}

impl Node {
    fn new(place: Place, value: Value) -> Self {
        let (count, text) = match &value {
            Value::Nothing => (1, 0),
            Value::Scalar { text, .. } => (1, text.len()),
            Value::List(items) => sum(items.iter()),
            Value::Map(items) => sum(items.iter().map(|(_, node)| node)),
        };
        Self { place, value, count, text }
    }

    /// A group of keys whose only one, `key`, is a list of this.
    pub(super) fn alone(self, key: &str) -> Self {
        let place = self.place;
        let list = Self::new(place, Value::List(vec![self]));
        Self::new(place, Value::Map(vec![(Key { text: key.to_owned(), place }, list)]))
    }

    /// What the value is, for messages.
    #[must_use]
    pub fn what(&self) -> &'static str {
        match &self.value {
            Value::Nothing => "nothing",
            Value::Scalar { .. } => "one value",
            Value::List(_) => "a list",
            Value::Map(_) => "a group of keys",
        }
    }
}

fn sum<'a>(nodes: impl Iterator<Item = &'a Node>) -> (usize, usize) {
    nodes.fold((1, 0), |(count, text), node| (count.saturating_add(node.count), text.saturating_add(node.text)))
}

/// A sequence or mapping that is not at its end yet.
struct Open {
    place: Place,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { items: Vec<(Key, Node)>, seen: HashMap<String, Place>, key: Option<Key> },
}

/// Reads one document. An empty text is [`Value::Nothing`].
///
/// # Errors
///
/// If the text is no YAML, holds more than one document, repeats a key, or is beyond the bounds.
pub fn parse(text: &str) -> Result<Node, Refusal> {
    if text.len() > MAX_BYTES {
        return Err(Refusal { place: None, message: too_large() });
    }
    Builder::default().run(text)
}

/// The message for a text that is larger than [`MAX_BYTES`].
#[must_use]
pub fn too_large() -> String {
    format!("larger than {} MiB: this is no configuration", MAX_BYTES / 1024 / 1024)
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
    documents: usize,
    count: usize,
    text: usize,
}

impl Builder {
    fn run(mut self, text: &str) -> Result<Node, Refusal> {
        let mut parser = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| {
                Refusal::at(Place::from(error.marker()), format!("this is no YAML: {}", error.info()))
            })?;
            self.take(event, Place::from(&span.start))?;
        }
        let nothing = Node::new(Place { line: 1, column: 1 }, Value::Nothing);
        Ok(self.root.unwrap_or(nothing))
    }

    fn take(&mut self, event: Event<'_>, place: Place) -> Result<(), Refusal> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(Refusal::at(place, "a second document begins here: one file is one configuration"));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                refuse_tag(tag.as_deref(), place)?;
                let quoted = style != ScalarStyle::Plain;
                let value = if !quoted && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") {
                    Value::Nothing
                } else {
                    Value::Scalar { text: text.into_owned(), quoted }
                };
                self.add(Node::new(place, value), anchor, true)
            }
            Event::Alias(anchor) => {
                let Some(mut node) = self.anchors.get(&anchor).cloned() else {
                    return Err(Refusal::at(place, "this alias stands inside what it repeats"));
                };
                node.place = place;
                self.add(node, 0, true)
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_tag(tag.as_deref(), place)?;
                self.begin(place, anchor, Content::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                refuse_tag(tag.as_deref(), place)?;
                self.begin(place, anchor, Content::Map { items: Vec::new(), seen: HashMap::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(()) };
                let value = match open.content {
                    Content::List(items) => Value::List(items),
                    Content::Map { items, .. } => Value::Map(items),
                };
                // Its parts were counted when they came.
                self.add(Node::new(open.place, value), open.anchor, false)
            }
        }
    }

    fn begin(&mut self, place: Place, anchor: usize, content: Content) -> Result<(), Refusal> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Refusal::at(place, format!("nested deeper than {MAX_DEPTH}: no key lies so deep")));
        }
        self.charge(1, 0, place)?;
        self.open.push(Open { place, anchor, content });
        Ok(())
    }

    fn charge(&mut self, count: usize, text: usize, place: Place) -> Result<(), Refusal> {
        self.count = self.count.saturating_add(count);
        self.text = self.text.saturating_add(text);
        if self.count > MAX_VALUES || self.text > MAX_TEXT {
            let message = format!("more than {MAX_VALUES} values, or {MAX_TEXT} bytes of text, aliases included");
            return Err(Refusal::at(place, message));
        }
        Ok(())
    }

    fn add(&mut self, node: Node, anchor: usize, charged: bool) -> Result<(), Refusal> {
        if charged {
            self.charge(node.count, node.text, node.place)?;
        }
        if anchor != 0 {
            self.charge(node.count, node.text, node.place)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut parent.content {
            Content::List(items) => items.push(node),
            Content::Map { items, seen, key } => match key.take() {
                Some(key) => items.push((key, node)),
                None => {
                    let text = match node.value {
                        Value::Scalar { text, .. } => text,
                        Value::Nothing => return Err(Refusal::at(node.place, "a key is missing before the `:`")),
                        _ => return Err(Refusal::at(node.place, "a key must be one word, not a list or mapping")),
                    };
                    if let Some(first) = seen.insert(text.clone(), node.place) {
                        let shown = super::errors::quoted(&text);
                        let message = format!("{shown} is given a second time; the first is in line {}", first.line);
                        return Err(Refusal::at(node.place, message));
                    }
                    *key = Some(Key { text, place: node.place });
                }
            },
        }
        Ok(())
    }
}

/// `!!str` and its like say what is known anyway; other tags would ask for something that does not exist here.
fn refuse_tag(tag: Option<&Tag>, place: Place) -> Result<(), Refusal> {
    let harmless = |tag: &&Tag| tag.is_yaml_core_schema() || (tag.handle == "!" && tag.suffix.is_empty());
    match tag {
        Some(tag) if !harmless(&tag) => {
            let shown = super::errors::quoted(&tag.to_string());
            Err(Refusal::at(place, format!("the tag {shown} means nothing here")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(node: &Node) -> &str {
        match &node.value {
            Value::Scalar { text, .. } => text,
            other => panic!("{other:?}"),
        }
    }

    fn map(node: &Node) -> &[(Key, Node)] {
        match &node.value {
            Value::Map(items) => items,
            other => panic!("{other:?}"),
        }
    }

    fn refusal(text: &str) -> Refusal {
        parse(text).expect_err("refused")
    }

    #[test]
    fn values_keep_their_text_and_place() {
        let root = parse("a: 1.10\nb:\n  - no\n  - \"x\"\nc:\n").expect("parses");
        let items = map(&root);
        assert_eq!((scalar(&items[0].1), items[0].1.place), ("1.10", Place { line: 1, column: 4 }));
        let Value::List(list) = &items[1].1.value else { panic!("{items:?}") };
        assert_eq!((scalar(&list[0]), list[0].place), ("no", Place { line: 3, column: 5 }));
        assert_eq!(list[1].value, Value::Scalar { text: "x".to_owned(), quoted: true });
        assert_eq!(items[2].1.value, Value::Nothing);
        assert_eq!(items[2].0.place, Place { line: 5, column: 1 });
    }

    #[test]
    fn nothing_at_all_is_nothing() {
        for text in ["", "\n\n", "# only a comment\n", "---\n", "\u{feff}# with a mark\n"] {
            assert_eq!(parse(text).map(|node| node.value), Ok(Value::Nothing), "{text:?}");
        }
    }

    #[test]
    fn aliases_repeat_and_are_bounded() {
        let root = parse("a: &x [1, 2]\nb: *x\n").expect("parses");
        let items = map(&root);
        assert_eq!(items[1].1.place.line, 2);
        assert!(matches!(&items[1].1.value, Value::List(list) if list.len() == 2));

        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let before = level - 1;
            let alias = format!("*a{before}");
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 10].join(", ")));
        }
        assert!(refusal(&bomb).message.contains("aliases included"));
        assert!(refusal("a: &x [*x]\n").place.is_some());
    }

    #[test]
    fn the_same_key_twice_is_refused_with_both_lines() {
        let refusal = refusal("rate: 1\nwindow: 1s\nrate: 2\n");
        assert_eq!(refusal.place, Some(Place { line: 3, column: 1 }));
        assert!(refusal.message.contains("\"rate\"") && refusal.message.contains("line 1"), "{refusal:?}");
    }

    #[test]
    fn what_is_too_much_is_refused() {
        assert!(refusal(&format!("{}{}", "[".repeat(40), "]".repeat(40))).message.contains("nested"));
        assert!(refusal(&"[".repeat(100_000)).message.contains("recursion limit"));
        assert!(refusal(&"- ".repeat(1000)).message.contains("nested"));
        assert!(refusal(&"- x\n".repeat(60_000)).message.contains("values"));
        assert!(refusal(&"#".repeat(MAX_BYTES + 1)).message.contains("MiB"));
        assert!(refusal("a: 1\n---\nb: 2\n").message.contains("second document"));
        assert!(refusal("a: !shell rm\n").message.contains("tag"));
        assert!(refusal("? [a, b]\n: c\n").message.contains("key"));
        assert!(refusal("a: \"unfinished\n").message.contains("no YAML"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[-\\[\\]{}:,&*!|>'\"%@`#?a-c0-1 \n\t]{0,200}") {
            let _ = parse(&text);
        }
    }
}
