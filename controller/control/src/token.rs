//! Tokens: who somebody is and what that allows. A token is shown once; what is kept is its hash.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What tokens begin with, so that a scanner for secrets finds those that were published by mistake.
const PREFIX: &str = "profctl";

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// An agent: it may report, and be managed. Nothing else.
    Agent,
    /// May look at everything but tokens.
    Viewer,
    /// May save configurations, and begin and end rollouts.
    Operator,
    /// May do everything.
    Admin,
}

impl Role {
    /// All, as they are written.
    pub const ALL: [(&'static str, Self); 4] =
        [("agent", Self::Agent), ("viewer", Self::Viewer), ("operator", Self::Operator), ("admin", Self::Admin)];

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, role)| *role == self).map_or("", |(name, _)| name)
    }

    /// Whether who has this role may do what needs `other`. Agents and people have nothing in common.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        if other == Self::Agent || self == Self::Agent { self == other } else { self >= other }
    }
}

/// A token that is known.
#[derive(Clone, Debug, Serialize)]
pub struct Token {
    /// Its number.
    pub id: i64,
    /// What it is for.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// When it was made, ms since 1970.
    pub created: i64,
    /// By whom.
    pub by: String,
    /// When it was revoked, ms since 1970.
    pub revoked: Option<i64>,
    /// SHA-256 of its secret.
    #[serde(skip)]
    pub hash: [u8; 32],
}

impl Token {
    /// Whether `secret` is its own, in a time that does not tell how much of it is.
    #[must_use]
    pub fn is_of(&self, secret: &str) -> bool {
        self.revoked.is_none() && bool::from(hash(secret).ct_eq(&self.hash))
    }

    /// How the audit log names who came by it.
    #[must_use]
    pub fn written_name(&self) -> String {
        format!("{}#{}", self.name, self.id)
    }

    /// Its number, as connections of agents have it; 0 is nobody's.
    #[must_use]
    pub fn principal(&self) -> u64 {
        u64::try_from(self.id).unwrap_or_default()
    }
}

/// The secret half of a new token: 256 bits of the system's randomness, in hexadecimal.
///
/// # Errors
/// The system has none.
pub fn secret() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(hex(&bytes))
}

/// Its SHA-256. A secret of 256 bits needs nothing slower.
#[must_use]
pub fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// The token as its holder has it.
#[must_use]
pub fn written(id: i64, secret: &str) -> String {
    format!("{PREFIX}_{id}_{secret}")
}

/// The number and the secret of a token.
#[must_use]
pub fn parse(text: &str) -> Option<(i64, &str)> {
    let (id, secret) = text.strip_prefix(PREFIX)?.strip_prefix('_')?.split_once('_')?;
    Some((id.parse().ok()?, secret))
}

/// The token of an `authorization` header.
#[must_use]
pub fn bearer(headers: &http::HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Bytes in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that [`hex`] wrote.
#[must_use]
pub fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap_or_default());
    pairs.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_as_it_was_made_until_it_is_revoked() {
        let secret = secret().unwrap();
        let text = written(7, &secret);
        let (id, parsed) = parse(&text).unwrap();
        assert_eq!((id, parsed), (7, &*secret));
        let mut token = Token {
            id,
            name: "a".into(),
            role: Role::Viewer,
            created: 0,
            by: "b".into(),
            revoked: None,
            hash: hash(parsed),
        };
        assert!(token.is_of(&secret) && !token.is_of(secret.get(1..).unwrap()) && !token.is_of(""));
        token.revoked = Some(1);
        assert!(!token.is_of(&secret));
        for wrong in ["", "profctl", "profctl_7", "profctl_x_y", "other_7_y"] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn roles_cover_those_below_and_agents_stand_apart() {
        assert!(Role::Admin.covers(Role::Operator) && Role::Operator.covers(Role::Viewer));
        assert!(!Role::Viewer.covers(Role::Operator) && !Role::Operator.covers(Role::Admin));
        assert!(Role::Agent.covers(Role::Agent));
        assert!(!Role::Admin.covers(Role::Agent) && !Role::Agent.covers(Role::Viewer));
    }
}
