//! What the kernel half counts, a source: one table, from which all else follows.

/// Makes an enum of counters, and a table type with a place for each.
///
/// A counter that is added here is summed, kept over sessions and iterated over by itself; what it means to users is a `match`
/// without a rest (`losses.rs` in the pipeline), which does not compile until it has an answer.
#[macro_export]
macro_rules! counters {
    (
        $(#[$enum_doc:meta])* $vis:vis enum $name:ident, $(#[$table_doc:meta])* struct $table:ident:
        $($(#[$doc:meta])* $variant:ident),* $(,)?
    ) => {
        $(#[$enum_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis enum $name { $($(#[$doc])* $variant),* }

        impl $name {
            /// All, in the order of their places.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
        }

        $(#[$table_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis struct $table([u64; $name::ALL.len()]);

        impl Default for $table {
            fn default() -> Self {
                Self([0; $name::ALL.len()])
            }
        }

        impl std::ops::Index<$name> for $table {
            type Output = u64;
            fn index(&self, counter: $name) -> &u64 {
                // SANITY: the table has a place for each variant.
                &self.0[counter as usize]
            }
        }

        impl std::ops::IndexMut<$name> for $table {
            fn index_mut(&mut self, counter: $name) -> &mut u64 {
                // SANITY: the table has a place for each variant.
                &mut self.0[counter as usize]
            }
        }

        impl std::ops::AddAssign for $table {
            fn add_assign(&mut self, more: Self) {
                for (sum, more) in self.0.iter_mut().zip(more.0) {
                    *sum = sum.wrapping_add(more);
                }
            }
        }
    };
}

counters! {
    /// What the kernel half counts of a source. The twin of `enum counter` in `abi.h`, place by place.
    pub enum Counter,
    /// The counts of one source, or a sum of several.
    struct Counters:
    /// Samples that reached the ring.
    Samples,
    /// Samples lost since the ring was full.
    RingFull,
    /// Samples whose kernel stack could not be taken.
    KernelStackFailed,
    /// Events that met a process which is not to be sampled.
    Filtered,
    /// Samples lost since their record had no room.
    Oversize,
    /// Samples lost since their source was at work on this CPU already.
    Busy,
    /// Ticks of a clock lost since the kernel runs no program while another one runs; counted only beside other sources.
    Refused,
    /// Ticks of a clock that met another program of ours, which took their samples: they are among the samples.
    MadeGood,
    /// User frames unwound in the kernel.
    Frames,
    /// Those of them whose rule was searched, since it was not in the cache.
    RuleSearches,
    /// Events that their program counted and did not sample; they are in what the next sample is worth.
    Passed,
    /// Events that met a process of which a rule drops all samples.
    RuledOut,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_have_the_same_places() {
        let text = include_str!("bpf/abi.h");
        let list = text.split_once("enum counter {").and_then(|(_, rest)| rest.split_once('}')).unwrap().0;
        let mut places = list.lines().filter_map(|line| line.trim().strip_prefix("COUNT_")?.split_once(" = "));
        for (place, counter) in Counter::ALL.iter().enumerate() {
            let (name, number) = places.next().unwrap();
            let number: usize = number.split_once(',').unwrap().0.parse().unwrap();
            let camel: String =
                name.split('_').map(|word| format!("{}{}", &word[..1], word[1..].to_lowercase())).collect();
            assert_eq!((number, camel), (place, format!("{counter:?}")));
        }
        assert_eq!(places.next().unwrap(), ("MAX", format!("{},", Counter::ALL.len()).as_str()));
        assert!(places.next().is_none());
    }

    #[test]
    fn tables_add_up_place_by_place() {
        let mut sum = Counters::default();
        sum[Counter::RingFull] = 2;
        let mut more = Counters::default();
        (more[Counter::RingFull], more[Counter::Busy]) = (3, 1);
        sum += more;
        let [full, busy, samples] = [Counter::RingFull, Counter::Busy, Counter::Samples].map(|counter| sum[counter]);
        assert_eq!([full, busy, samples], [5, 1, 0]);
    }
}
