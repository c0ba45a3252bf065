//! Mangled names to readable ones: C++ (Itanium ABI) and Rust (legacy and v0).
//!
//! A symbol table is hostile: a short mangled name may stand for an endless one. Output is cut off at [`MAX_OUTPUT`], and
//! such a name stays mangled.

use std::fmt::{self, Write};

/// Longest mangled name that is tried, bytes.
const MAX_INPUT: usize = 16 << 10;
/// Longest demangled name, bytes.
const MAX_OUTPUT: usize = 32 << 10;

/// A string that refuses to grow past [`MAX_OUTPUT`].
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        if self.0.len().saturating_add(s.len()) > MAX_OUTPUT {
            return Err(fmt::Error);
        }
        self.0.push_str(s);
        Ok(())
    }
}

/// The readable form of `name`, or none if it is not mangled (or not by a scheme that we know).
///
/// Rust names lose their hash: two functions of one name differ by it only when generic parameters of the legacy scheme do.
pub(crate) fn demangle(name: &str) -> Option<String> {
    if name.len() > MAX_INPUT {
        return None;
    }
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        let mut out = Bounded(String::with_capacity(name.len()));
        return write!(out, "{rust:#}").is_ok().then_some(out.0);
    }
    // Only what the ABI says is mangled: the parser also takes bare type encodings, and "main" is not one.
    if !(name.starts_with("_Z") || name.starts_with("___Z") || name.starts_with("_GLOBAL_")) {
        return None;
    }
    let symbol = cpp_demangle::Symbol::new(name.as_bytes()).ok()?;
    let mut out = Bounded(String::with_capacity(name.len() * 2));
    symbol.structured_demangle(&mut out, &cpp_demangle::DemangleOptions::default()).is_ok().then_some(out.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_each_scheme() {
        for (mangled, readable) in [
            ("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE", "core::fmt::Write::write_fmt"),
            ("_RNvNtCs1234_7mycrate3foo3bar", "mycrate::foo::bar"),
            ("_ZNSt6vectorIiSaIiEE9push_backEOi", "std::vector<int, std::allocator<int> >::push_back(int&&)"),
            ("_ZN3foo3barEv.cold", "foo::bar() [clone .cold]"),
        ] {
            assert_eq!(demangle(mangled).as_deref(), Some(readable), "{mangled}");
        }
        for plain in ["main", "malloc", "", "_Z", "i", "runtime.mallocgc"] {
            assert_eq!(demangle(plain), None, "{plain}");
        }
    }

    /// A name whose template argument is doubled `steps` times: `a<int, int>`, `a<a<int, int>, a<int, int> >`, ...
    fn doubling(steps: usize) -> String {
        let mut name = String::from("_Z1fI1aIiiE");
        for step in 1..=steps {
            // What can be referred to: f, a, a<int, int>, a, the next a<...>, ...; `S_` is the first, `S0_` the second, and on in base 36.
            let reference = 2 * step - 1;
            let digit = |n: usize| char::from_digit(n as u32, 36).unwrap_or('0').to_ascii_uppercase();
            let high = if reference < 36 { String::new() } else { digit(reference / 36).to_string() };
            let reference = format!("S{high}{}_", digit(reference % 36));
            name.push_str(&format!("1aI{reference}{reference}E"));
        }
        name + "Evv"
    }

    #[test]
    fn a_name_that_grows_without_end_stays_mangled() {
        let length = |steps| demangle(&doubling(steps)).map_or(0, |name| name.len());
        assert!(length(6) > length(5) * 19 / 10 && length(5) > 300, "{} after {}", length(6), length(5));
        // 2^60 characters if let go.
        let started = std::time::Instant::now();
        assert_eq!(demangle(&doubling(60)), None);
        assert!(started.elapsed().as_secs() < 2);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(name in "_(Z|R|ZN)[ -~]{0,60}") {
            proptest::prop_assert!(demangle(&name).is_none_or(|readable| readable.len() <= MAX_OUTPUT));
        }
    }
}
