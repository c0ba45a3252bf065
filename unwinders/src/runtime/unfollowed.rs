//! Runtimes that are known, and not followed: their code has no names, and who asks should be told why.

use profiler_elf::Elf;

use super::Symbols;

/// A runtime of which only native frames are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unfollowed {
    /// Before `_PyRuntime`: 2.7, and 3.0 to 3.6.
    OldPython,
    /// Python with a JIT compiler.
    PyPy,
    /// The JVM of Semeru and IBM's JDKs.
    OpenJ9,
    /// Java compiled ahead of time.
    NativeImage,
    /// A JavaScript engine other than V8.
    Bun,
    /// An engine of JavaScript for Node's addons that does not export where its objects' fields are: Electron, Deno.
    BareV8,
}

/// One of them: how it is known by its file, and what is told of it.
struct Row {
    runtime: Unfollowed,
    name: &'static str,
    /// Any of these sections, or of these exported symbols, which no other has.
    sections: &'static [&'static str],
    symbols: &'static [&'static str],
    why: &'static str,
}

const ROWS: [Row; 6] = [
    Row {
        runtime: Unfollowed::PyPy,
        name: "PyPy",
        sections: &[],
        symbols: &["pypy_main_startup", "rpython_startup_code"],
        why: "what its JIT compiler makes has no tables that can be read from outside",
    },
    Row {
        runtime: Unfollowed::OldPython,
        name: "CPython before 3.7",
        sections: &[],
        symbols: &["PyEval_EvalFrameEx"],
        why: "CPython before 3.8 is not followed",
    },
    Row {
        runtime: Unfollowed::OpenJ9,
        name: "OpenJ9",
        sections: &[],
        symbols: &["J9_CreateJavaVM", "J9VMDllMain"],
        why: "it does not export where its structures' fields are, as HotSpot does (gHotSpotVMStructs)",
    },
    Row {
        runtime: Unfollowed::NativeImage,
        name: "GraalVM native image",
        sections: &[".svm_heap"],
        symbols: &["__svm_version_info"],
        why: "it is machine code, whose methods have names if it was built with `-g`",
    },
    Row {
        runtime: Unfollowed::Bun,
        name: "Bun",
        sections: &[".bun", ".bun_builtins"],
        symbols: &[],
        why: "its engine, JavaScriptCore, is not followed",
    },
    Row {
        runtime: Unfollowed::BareV8,
        name: "V8 without v8dbg symbols",
        sections: &[],
        symbols: &["_ZN2v87Isolate10GetCurrentEv", "napi_create_function"],
        why: "the program (as Electron and Deno) does not export where V8's fields are (v8dbg_*)",
    },
];

impl Unfollowed {
    /// The one that `elf` is, if it is none that is followed.
    pub(crate) fn of(elf: &Elf) -> Option<Self> {
        let symbols: Vec<&str> = ROWS.iter().flat_map(|row| row.symbols).copied().collect();
        let symbols = Symbols::exported(elf, &symbols);
        let is = |row: &&Row| {
            row.sections.iter().any(|name| elf.section(name).is_some())
                || row.symbols.iter().any(|name| symbols.get(name).is_some())
        };
        ROWS.iter().find(is).map(|row| row.runtime)
    }

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().map_or("", |row| row.name)
    }

    /// Why it is not followed.
    #[must_use]
    pub fn why(self) -> &'static str {
        self.row().map_or("", |row| row.why)
    }

    /// Its number between processes; never 0.
    pub(crate) fn number(self) -> u8 {
        ROWS.iter().zip(1..).find(|(row, _)| row.runtime == self).map_or(0, |(_, number)| number)
    }

    /// The one of this number.
    pub(crate) fn of_number(number: u8) -> Option<Self> {
        ROWS.get(usize::from(number).checked_sub(1)?).map(|row| row.runtime)
    }

    fn row(self) -> Option<&'static Row> {
        ROWS.iter().find(|row| row.runtime == self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_number_and_says_what_and_why() {
        for row in &ROWS {
            assert_eq!(Unfollowed::of_number(row.runtime.number()), Some(row.runtime));
            assert!(!row.runtime.name().is_empty() && !row.runtime.why().is_empty());
            assert!(!row.sections.is_empty() || !row.symbols.is_empty(), "{}: nothing tells it", row.name);
        }
        assert_eq!((Unfollowed::of_number(0), Unfollowed::of_number(99)), (None, None));
    }
}
