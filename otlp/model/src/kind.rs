//! What runs in a frame: one table, which every encoder, decoder and viewer asks.

use crate::StringId;

/// What frames of a kind have in common for those who look at them: colours and marks are by family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// Compiled ahead of time, to the machine's code.
    Native,
    /// The kernel's.
    Kernel,
    /// Go's.
    Go,
    /// Made at run time, by a compiler inside the process.
    Generated,
    /// Read by an interpreter.
    Interpreted,
    /// No code.
    Marker,
    /// Not known.
    Other,
}

/// What a kind of frame is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindNames {
    /// The kind.
    pub kind: FrameKind,
    /// The value of OpenTelemetry's `profile.frame.type`, where the conventions have one for it.
    pub otlp: Option<&'static str>,
    /// For people.
    pub name: &'static str,
    /// In a few words.
    pub about: &'static str,
    /// What it looks like.
    pub family: Family,
}

macro_rules! table {
    ($($(#[$attribute:meta])* $kind:ident, $otlp:expr, $family:ident, $name:literal, $about:literal;)*) => {
        /// What runs in a frame (semantic conventions `profile.frame.type`).
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum FrameKind {
            $(#[doc = $about] $(#[$attribute])* $kind,)*
            /// What another profiler calls so, and this one does not know: a string of the profile.
            Other(StringId),
        }

        impl FrameKind {
            /// All kinds but [`Self::Other`]. A kind's place is its number in pprof files: new ones come last.
            pub const TABLE: &'static [KindNames] = &[$(
                KindNames { kind: Self::$kind, otlp: $otlp, family: Family::$family, name: $name, about: $about },
            )*];
        }
    };
}

// Kind, `profile.frame.type` (conventions 1.44, and what OpenTelemetry's profiler sends besides), family, name, meaning.
table! {
    #[default]
    Native, Some("native"), Native, "Native", "compiled code of an executable or library";
    Kernel, Some("kernel"), Kernel, "Kernel", "the kernel, its modules and BPF programs";
    Go, Some("go"), Go, "Go", "Go code";
    Jit, None, Generated, "JIT", "code made at run time";
    Marker, Some("abort-marker"), Marker, "Incomplete", "the stack could not be followed further; the frame says why";
    Beam, Some("beam"), Generated, "BEAM", "code of Erlang or Elixir";
    Cpython, Some("cpython"), Interpreted, "Python", "code of Python";
    Dotnet, Some("dotnet"), Generated, ".NET", "code of .NET";
    Jvm, Some("jvm"), Generated, "JVM", "code of Java and other languages of its virtual machine";
    Luajit, Some("luajit"), Generated, "LuaJIT", "code of Lua";
    Perl, Some("perl"), Interpreted, "Perl", "code of Perl";
    Php, Some("php"), Interpreted, "PHP", "code of PHP";
    PhpJit, Some("phpjit"), Generated, "PHP JIT", "code of PHP, compiled at run time";
    Ruby, Some("ruby"), Interpreted, "Ruby", "code of Ruby";
    Rust, Some("rust"), Native, "Rust", "compiled code of Rust";
    V8js, Some("v8js"), Generated, "V8", "code of JavaScript";
}

impl FrameKind {
    /// The row of the table; none for [`Self::Other`].
    #[must_use]
    pub fn names(self) -> Option<&'static KindNames> {
        Self::TABLE.iter().find(|row| row.kind == self)
    }

    /// What it looks like.
    #[must_use]
    pub fn family(self) -> Family {
        self.names().map_or(Family::Other, |row| row.family)
    }

    /// The kind that OpenTelemetry calls `value`, if the table has it.
    #[must_use]
    pub fn of_otlp(value: &str) -> Option<Self> {
        Self::TABLE.iter().find(|row| row.otlp == Some(value)).map(|row| row.kind)
    }

    /// Its number in files: its place in the table, or one past the table's end.
    #[must_use]
    pub fn number(self) -> u32 {
        Self::TABLE.iter().position(|row| row.kind == self).unwrap_or(Self::TABLE.len()) as u32
    }

    /// The kind with this number.
    #[must_use]
    pub fn of_number(number: u32) -> Option<Self> {
        Self::TABLE.get(number as usize).map(|row| row.kind)
    }

    /// Whether folded stacks and their palettes call it JIT.
    #[must_use]
    pub fn is_generated(self) -> bool {
        self.family() == Family::Generated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_values_lead_back_to_their_kinds() {
        for (number, row) in FrameKind::TABLE.iter().enumerate() {
            assert_eq!(row.kind.number(), number as u32);
            assert_eq!(FrameKind::of_number(number as u32), Some(row.kind));
            assert_eq!(row.kind.family(), row.family);
            if let Some(value) = row.otlp {
                assert_eq!(FrameKind::of_otlp(value), Some(row.kind), "{value} is in the table twice");
            }
        }
        let other = FrameKind::Other(3);
        assert_eq!((other.names(), other.family()), (None, Family::Other));
        assert_eq!(FrameKind::of_number(other.number()), None);
    }

    #[test]
    fn numbers_in_files_stay_what_they_were() {
        use FrameKind::{Go, Jit, Kernel, Marker, Native};
        let first: Vec<_> = FrameKind::TABLE.iter().take(5).map(|row| row.kind).collect();
        assert_eq!(first, [Native, Kernel, Go, Jit, Marker]);
        assert_eq!(FrameKind::default(), Native);
    }

    /// <https://opentelemetry.io/docs/specs/semconv/registry/attributes/profile/>, 1.44.
    #[test]
    fn every_value_of_the_conventions_has_a_row() {
        for value in [
            "beam", "cpython", "dotnet", "go", "jvm", "kernel", "luajit", "native", "perl", "php", "ruby", "rust",
            "v8js",
        ] {
            assert!(FrameKind::of_otlp(value).is_some(), "{value}");
        }
    }
}
