//! Whose agents have room, and which are forgotten for new ones: nobody has all of it for good.

use std::collections::{BTreeMap, BTreeSet};

use profiler_opamp::InstanceUid;

use super::Core;
use crate::{
    fleet::Member,
    token::{Role, Token},
};

/// Who was gone for so long may be forgotten for any other agent, ms: 30 days.
const LONG_GONE: i64 = 30 * 86_400_000;

/// Where there is room for one more agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// There are fewer than may be.
    Free,
    /// In the place of this one.
    Of(InstanceUid),
    /// Nowhere.
    None,
}

impl Core {
    /// The name that an agent's token stands for, if that name has a good one. Tokens of one name are one holder's.
    pub(super) fn holder(&self, principal: u64) -> Option<&str> {
        let id = i64::try_from(principal).ok()?;
        let token = self.tokens.get(&id).filter(|token| token.role == Role::Agent)?;
        let is_good = |other: &&Token| other.role == Role::Agent && other.revoked.is_none() && other.name == token.name;
        self.tokens.values().find(is_good).map(|token| token.name.as_str())
    }

    /// Where an agent that nobody knew, and that comes by `principal`, has room.
    pub(super) fn room(&self, principal: u64, now: i64) -> Room {
        let (all, places) = (self.members.len(), self.places);
        // Most of the time there is enough, and nothing to count.
        if all < places - places / 4 {
            return Room::Free;
        }
        let holders = self.holders();
        let holder_of = |member: &Member| holders.get(&member.token).copied();
        let mut counts = BTreeMap::<Option<&str>, usize>::new();
        for member in self.members.values() {
            *counts.entry(holder_of(member)).or_default() += 1;
        }
        let mine = i64::try_from(principal).ok().and_then(|id| holders.get(&id).copied());
        let has_most = |holder: Option<&str>| counts.get(&holder).copied().unwrap_or_default() >= places.div_ceil(2);
        // Who has half of all places leaves the last quarter to the other names, if there are such.
        let are_others = holders.values().any(|&name| Some(name) != mine);
        if all < places && !(are_others && has_most(mine)) {
            return Room::Free;
        }
        let rank = |member: &Member| match holder_of(member) {
            _ if member.connected => None,
            // Nobody's any more: all tokens of its name are revoked.
            None => Some(0),
            holder if holder == mine => Some(1),
            holder if has_most(holder) || now - member.last_seen > LONG_GONE => Some(2),
            _ => None,
        };
        let ranked = self.members.iter().filter_map(|(uid, member)| Some(((rank(member)?, member.last_seen), *uid)));
        ranked.min().map_or(Room::None, |(_, uid)| Room::Of(uid))
    }

    /// The names that tokens of agents stand for, as far as they have a good one, by the numbers of all tokens with these names.
    fn holders(&self) -> BTreeMap<i64, &str> {
        let of_agents = || self.tokens.values().filter(|token| token.role == Role::Agent);
        let good: BTreeSet<&str> =
            of_agents().filter(|token| token.revoked.is_none()).map(|token| token.name.as_str()).collect();
        of_agents().filter_map(|token| Some((token.id, *good.get(token.name.as_str())?))).collect()
    }

    /// Makes room for an agent that nobody knew; whether there is some.
    pub(super) fn make_room(&mut self, principal: u64, now: i64) -> bool {
        match self.room(principal, now) {
            Room::Free => true,
            Room::Of(uid) => {
                self.forget_member(uid);
                true
            }
            Room::None => false,
        }
    }
}
