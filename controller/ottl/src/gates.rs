//! Feature gates: what is on trial in the language, or kept for old rules.

use std::str::FromStr;

/// What may be switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gates {
    /// Whether functions may take lambdas.
    pub lambda: bool,
    /// Whether `set` hands on nil; without, it leaves the target as it is.
    pub allow_nil: bool,
}

impl Gates {
    /// The gate of lambdas; closed unless opened.
    pub const LAMBDA: &'static str = "ottl.functions.enableLambda";
    /// The gate of nil in `set`; open unless closed.
    pub const ALLOW_NIL: &'static str = "ottl.set.allowNil";
}

impl Default for Gates {
    fn default() -> Self {
        Self { lambda: false, allow_nil: true }
    }
}

impl FromStr for Gates {
    type Err = String;

    /// As the Collector's `--feature-gates` has it: names with commas between them; `-` in front closes, `+` or nothing opens.
    fn from_str(list: &str) -> Result<Self, String> {
        let mut gates = Self::default();
        for gate in list.split(',').map(str::trim).filter(|gate| !gate.is_empty()) {
            let (open, name) = match gate.strip_prefix('-') {
                Some(name) => (false, name),
                None => (true, gate.strip_prefix('+').unwrap_or(gate)),
            };
            match name {
                Self::LAMBDA => gates.lambda = open,
                Self::ALLOW_NIL => gates.allow_nil = open,
                _ => {
                    return Err(format!(
                        "there is no feature gate {name:?}; there are {} and {}",
                        Self::LAMBDA,
                        Self::ALLOW_NIL
                    ));
                }
            }
        }
        Ok(gates)
    }
}
