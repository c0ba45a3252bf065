//! How code runs that its runtime can run in several ways: one table, which every encoder, decoder and viewer asks.

macro_rules! table {
    ($($tier:ident, $value:literal, $name:literal, $about:literal;)*) => {
        /// How a runtime runs a frame's code (`profiler.frame.tier`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Tier {
            $(#[doc = $about] $tier,)*
        }

        impl Tier {
            /// All of them. A tier's place is its number in pprof files: new ones come last.
            pub const TABLE: &'static [Self] = &[$(Self::$tier,)*];

            /// The value of `profiler.frame.tier`.
            #[must_use]
            pub const fn value(self) -> &'static str {
                match self { $(Self::$tier => $value,)* }
            }

            /// For people.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$tier => $name,)* }
            }
        }
    };
}

// Tier, value, name, meaning.
table! {
    Interpreted, "interpreted", "interpreted", "Bytecode, run by an interpreter.";
    C1, "c1", "C1", "Compiled by HotSpot's client compiler: levels 1 to 3.";
    C2, "c2", "C2", "Compiled by HotSpot's server compiler, or by what stands in its place: level 4.";
    Sparkplug, "sparkplug", "Sparkplug", "Compiled by V8's baseline compiler, bytecode by bytecode.";
    Maglev, "maglev", "Maglev", "Compiled by V8's compiler that optimizes quickly.";
    Turbofan, "turbofan", "TurboFan", "Compiled by V8's compiler that optimizes most.";
}

impl Tier {
    /// The tier that OTLP calls `value`, if the table has it.
    #[must_use]
    pub fn of_value(value: &str) -> Option<Self> {
        Self::TABLE.iter().copied().find(|tier| tier.value() == value)
    }

    /// Its number in files: its place in the table.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The tier with this number.
    #[must_use]
    pub fn of_number(number: u32) -> Option<Self> {
        Self::TABLE.get(number as usize).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_values_lead_back_to_their_tiers_and_stay_what_they_were() {
        for (number, &tier) in Tier::TABLE.iter().enumerate() {
            assert_eq!((tier.number(), Tier::of_number(number as u32)), (number as u32, Some(tier)));
            assert_eq!(Tier::of_value(tier.value()), Some(tier));
        }
        let values: Vec<_> = Tier::TABLE.iter().map(|tier| tier.value()).collect();
        assert_eq!(values, ["interpreted", "c1", "c2", "sparkplug", "maglev", "turbofan"]);
        assert_eq!((Tier::of_value("c3"), Tier::of_number(values.len() as u32)), (None, None));
    }
}
