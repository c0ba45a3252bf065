//! Rules, compiled for a context, and run over a request.

mod reach;
mod stacks;

use std::fmt;
use std::time::{Duration, Instant};

use profiler_ottl::{
    CompileError, Condition, Conditions, ErrorMode, Gates, HashKey, Language, Logic, Outcome, RuleError, Statement,
    Statements, parse,
};

use self::{reach::Reach, stacks::Stacks};
use crate::{
    Request,
    compact::compact,
    cursor::{Cursor, Place},
    paths::Level,
};

/// A rule that does not compile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rule {}: {error}", index + 1)]
pub struct RefusedRule {
    /// Which rule, from 0.
    pub index: usize,
    /// Why, and where in it.
    pub error: CompileError,
}

/// What else rules may say, and what it means.
#[derive(Clone, Debug, Default)]
pub struct Dialect {
    /// What is on trial.
    pub gates: Gates,
    /// What `KeyedHash` hashes under.
    pub key: Option<HashKey>,
}

impl From<Gates> for Dialect {
    fn from(gates: Gates) -> Self {
        Self { gates, key: None }
    }
}

impl From<Option<HashKey>> for Dialect {
    fn from(key: Option<HashKey>) -> Self {
        Self { gates: Gates::default(), key }
    }
}

/// What rules did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Resources, scopes, profiles or samples that they ran on.
    pub contexts: usize,
    /// How many of these are gone.
    pub dropped: usize,
    /// The samples that went with them: what counts samples says how many, else each time or entry is one.
    pub samples: u64,
    /// The time was over before all had been run on; those that are not among `contexts` are as they were.
    pub is_late: bool,
}

/// What one rule did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Contexts that its condition held for; a statement without one ran on all.
    pub matched: u64,
    /// Samples that it dropped, as [`Done::samples`] counts them.
    pub dropped: u64,
    /// Contexts that it failed on.
    pub errors: u64,
    /// Time that it took, as estimated from the first context and one in [`TIMED`] behind it.
    pub time: Duration,
}

/// After so many rules it is asked whether the time is over: to ask costs as much as some short rules.
const ASKED: usize = 16;

/// Looking at the clock costs as much as a short rule: one context in so many is timed.
pub const TIMED: usize = 32;

impl Tally {
    fn note(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Matched => self.matched += 1,
            Outcome::Passed => {}
            Outcome::Failed => self.errors += 1,
        }
    }
}

/// The time that `contexts` took, of which `timed` took `took`.
fn estimated(took: Duration, contexts: usize, timed: usize) -> Duration {
    let nanos = took.as_nanos().saturating_mul(contexts as u128) / timed.max(1) as u128;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Statements or conditions of one context.
#[derive(Debug)]
pub struct Rules {
    level: Level,
    /// What they read and change, and what decides whether they change anything.
    reach: Reach,
    guards: Reach,
    kind: Kind,
    count: usize,
    pattern_bytes: usize,
}

enum Kind {
    /// With how many conditions are given.
    Statements {
        given: Option<(usize, Conditions<Cursor>)>,
        statements: Statements<Cursor>,
    },
    Filter {
        conditions: Conditions<Cursor>,
        drop: bool,
    },
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Statements { .. } => "Statements",
            Self::Filter { .. } => "Filter",
        })
    }
}

/// The innermost context that one of `names` means, or profiles.
fn inferred(level: Option<Level>, names: &[&str]) -> Level {
    level.or_else(|| Level::inferred(names)).unwrap_or(Level::Profile)
}

/// The innermost context that paths of `conditions` name in front. One that does not parse names none.
#[must_use]
pub fn innermost(conditions: &[impl AsRef<str>]) -> Option<Level> {
    let parsed = conditions.iter().filter_map(|condition| parse::condition(condition.as_ref()).ok());
    parsed.filter_map(|parsed| Level::inferred(&parsed.first_names())).max()
}

/// What becomes of each rule; the first that is refused ends it.
fn each<T>(
    rules: &[impl AsRef<str>],
    compile: impl Fn(&str) -> Result<T, CompileError>,
) -> Result<Vec<T>, RefusedRule> {
    let rules = rules.iter().map(AsRef::as_ref).enumerate();
    rules.map(|(index, rule)| compile(rule).map_err(|error| RefusedRule { index, error })).collect()
}

impl Rules {
    /// Statements, run in order on each context of `level`; without one, of the innermost that their paths name.
    ///
    /// # Errors
    ///
    /// The first that does not compile.
    pub fn statements(
        level: Option<Level>,
        rules: &[impl AsRef<str>],
        mode: ErrorMode,
        dialect: impl Into<Dialect>,
    ) -> Result<Self, RefusedRule> {
        Self::statements_given(level, &[] as &[&str], rules, mode, dialect)
    }

    /// The same, on contexts that one of `conditions` holds for, if there are any. Conditions are counted before statements, of what is refused, fails,
    /// or is tallied.
    ///
    /// # Errors
    ///
    /// The first that does not compile.
    pub fn statements_given(
        level: Option<Level>,
        conditions: &[impl AsRef<str>],
        rules: &[impl AsRef<str>],
        mode: ErrorMode,
        dialect: impl Into<Dialect>,
    ) -> Result<Self, RefusedRule> {
        let behind = |refused: RefusedRule| RefusedRule { index: refused.index + conditions.len(), ..refused };
        let asked = each(conditions, parse::condition)?;
        let parsed = each(rules, parse::statement).map_err(behind)?;
        let names = asked.iter().flat_map(|one| one.first_names());
        let names: Vec<&str> = names.chain(parsed.iter().flat_map(|one| one.first_names())).collect();
        let level = inferred(level, &names);
        let mut guards = Reach::of_conditions(level, &asked);
        let mut reach = guards;
        for statement in &parsed {
            reach.add_statement(level, statement);
            match statement.condition() {
                Some(condition) => guards.add_condition(level, condition),
                None => guards.always = true,
            }
        }
        let Dialect { gates, key } = dialect.into();
        let language = Language::new(&level).with_gates(gates).with_key(key);
        let given = each(conditions, |rule| language.condition(rule))?;
        let statements = each(rules, |rule| language.statement(rule)).map_err(behind)?;
        let count = given.len() + statements.len();
        let of_given = given.iter().map(Condition::pattern_bytes);
        let pattern_bytes = of_given.chain(statements.iter().map(Statement::pattern_bytes)).sum();
        let given = (!given.is_empty()).then(|| (given.len(), Conditions::new(given, mode, Logic::Any)));
        let kind = Kind::Statements { given, statements: Statements::new(statements, mode) };
        Ok(Self { level, reach, guards, kind, count, pattern_bytes })
    }

    /// Conditions of which one must hold for a context to be dropped, or, unless `drop`, kept; of stacks and frames their sample. What has nothing in it around those contexts goes, too:
    /// profiles without samples, scopes without profiles, resources without scopes.
    ///
    /// # Errors
    ///
    /// The first that does not compile.
    pub fn filter(
        level: Option<Level>,
        rules: &[impl AsRef<str>],
        drop: bool,
        mode: ErrorMode,
        dialect: impl Into<Dialect>,
    ) -> Result<Self, RefusedRule> {
        let parsed = each(rules, parse::condition)?;
        let names: Vec<&str> = parsed.iter().flat_map(|one| one.first_names()).collect();
        let level = inferred(level, &names);
        let reach = Reach::of_conditions(level, &parsed);
        let Dialect { gates, key } = dialect.into();
        let language = Language::new(&level).with_gates(gates).with_key(key);
        let conditions = each(rules, |rule| language.condition(rule))?;
        let count = conditions.len();
        let pattern_bytes = conditions.iter().map(Condition::pattern_bytes).sum();
        let conditions = Conditions::new(conditions, mode, Logic::Any);
        let kind = Kind::Filter { conditions, drop };
        Ok(Self { level, reach, guards: reach, kind, count, pattern_bytes })
    }

    /// What they run on.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// How many rules there are: conditions, and then statements.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes that their regular expressions count as; [`profiler_ottl::MAX_PATTERNS`] at most of each rule.
    #[must_use]
    pub fn pattern_bytes(&self) -> usize {
        self.pattern_bytes
    }

    /// Runs them over `request`, and leaves in its dictionary what is still referred to. Errors that end nothing are told to `ignored`.
    ///
    /// # Errors
    ///
    /// The first error, if they propagate it.
    pub fn apply(&self, request: Request, ignored: impl FnMut(RuleError)) -> Result<(Request, Done), RuleError> {
        let (mut request, done) = self.apply_only(request, ignored)?;
        compact(&mut request);
        Ok((request, done))
    }

    /// As [`Rules::apply`], with the dictionary as it has become.
    ///
    /// # Errors
    ///
    /// As [`Rules::apply`].
    pub fn apply_only(&self, request: Request, ignored: impl FnMut(RuleError)) -> Result<(Request, Done), RuleError> {
        self.apply_counted(request, &mut [], &|| false, ignored)
    }

    /// As [`Rules::apply_only`], and adds what each did to its place in `tallies`; what has no place there is not counted. It ends soon after `is_late`
    /// says that the time is over, and says so in what it has done.
    ///
    /// # Errors
    ///
    /// As [`Rules::apply`]; until then it is counted.
    pub fn apply_counted(
        &self,
        request: Request,
        tallies: &mut [Tally],
        is_late: &dyn Fn() -> bool,
        mut ignored: impl FnMut(RuleError),
    ) -> Result<(Request, Done), RuleError> {
        let mut cursor = Cursor::new(request);
        let mut gone: Vec<Place> = Vec::new();
        let mut place = Place::default();
        let took = vec![Duration::ZERO; tallies.len()];
        let done = Done::default();
        let mut run =
            Run { rules: self, tallies, is_late, ignored: &mut ignored, took, timed: 0, unasked: ASKED, done };
        let mut stacks = Stacks::new(self);
        let visited = self.visit(&mut cursor, Level::Resource, &mut place, &mut |cursor, place| {
            cursor.go(place);
            let verdict =
                if self.level > Level::Sample { stacks.run(&mut run, cursor, place)? } else { run.once(cursor)? };
            if let (Kind::Filter { drop, .. }, Some(verdict)) = (&self.kind, verdict)
                && verdict.holds == *drop
            {
                gone.push(place);
                let samples = cursor.samples(self.level);
                run.done.samples = run.done.samples.saturating_add(samples);
                if let Some(tally) = verdict.matched.and_then(|index| run.tallies.get_mut(index)) {
                    tally.dropped = tally.dropped.saturating_add(samples);
                }
            }
            Ok(())
        });
        let Run { tallies, took, timed, mut done, .. } = run;
        for (tally, took) in tallies.iter_mut().zip(took) {
            tally.time = tally.time.saturating_add(estimated(took, done.contexts, timed));
        }
        visited?;
        done.dropped = gone.len();
        let mut request = cursor.into_request();
        if matches!(self.kind, Kind::Filter { .. }) {
            remove(&mut request, self.level, &gone);
        }
        Ok((request, done))
    }

    /// Goes to each context within `place`, which is one of the level around `level`.
    fn visit(
        &self,
        cursor: &mut Cursor,
        level: Level,
        place: &mut Place,
        run: &mut dyn FnMut(&mut Cursor, Place) -> Result<(), RuleError>,
    ) -> Result<(), RuleError> {
        for at in 0..cursor.count(level, *place) {
            let next = match level {
                Level::Resource => {
                    place.resource = at;
                    Level::Scope
                }
                Level::Scope => {
                    place.scope = at;
                    Level::Profile
                }
                Level::Profile => {
                    place.profile = at;
                    Level::Sample
                }
                // Whoever is there goes to its stack.
                Level::Sample | Level::Stack | Level::Frame => {
                    place.sample = at;
                    Level::Sample
                }
            };
            if level == self.level.min(Level::Sample) {
                run(cursor, *place)?;
            } else {
                self.visit(cursor, next, place, run)?;
            }
        }
        Ok(())
    }
}

/// Rules under way.
struct Run<'r> {
    rules: &'r Rules,
    tallies: &'r mut [Tally],
    is_late: &'r dyn Fn() -> bool,
    ignored: &'r mut dyn FnMut(RuleError),
    /// Of the contexts that are timed, by rule.
    took: Vec<Duration>,
    timed: usize,
    /// Rules that ran since it was asked whether the time is over.
    unasked: usize,
    done: Done,
}

/// What became of a context.
#[derive(Clone, Copy, Debug, Default)]
struct Verdict {
    /// One of the conditions of a filter holds.
    holds: bool,
    /// Which rule matched last.
    matched: Option<usize>,
    /// A statement ran, or a rule failed.
    is_active: bool,
}

impl Run<'_> {
    /// Runs the rules where the cursor is; nothing if the time is over.
    fn once(&mut self, cursor: &mut Cursor) -> Result<Option<Verdict>, RuleError> {
        let Self { rules, tallies, took, done, ignored, .. } = self;
        if self.unasked >= ASKED {
            self.unasked = 0;
            done.is_late = done.is_late || (self.is_late)();
        }
        if done.is_late {
            return Ok(None);
        }
        self.unasked += rules.count.max(1);
        let mut last = (!tallies.is_empty() && done.contexts.is_multiple_of(TIMED)).then(Instant::now);
        self.timed += usize::from(last.is_some());
        done.contexts += 1;
        let mut verdict = Verdict::default();
        let given = match &rules.kind {
            Kind::Statements { given: Some((conditions, _)), .. } => *conditions,
            _ => 0,
        };
        let mut observe = |index: usize, outcome| {
            match outcome {
                Outcome::Matched => {
                    verdict.matched = Some(index);
                    verdict.is_active |= index >= given;
                }
                Outcome::Passed => {}
                Outcome::Failed => verdict.is_active = true,
            }
            let Some(tally) = tallies.get_mut(index) else { return };
            tally.note(outcome);
            if let Some(last) = &mut last
                && let Some(took) = took.get_mut(index)
            {
                *took += last.elapsed();
                *last = Instant::now();
            }
        };
        let holds = match &rules.kind {
            Kind::Statements { given: conditions, statements } => {
                let runs = match conditions {
                    Some((_, conditions)) => conditions.hold_observed(cursor, &mut observe, &mut *ignored)?,
                    None => true,
                };
                if runs {
                    let behind = |error: RuleError| RuleError { index: error.index + given, ..error };
                    let observe = |index, outcome| observe(index + given, outcome);
                    statements.execute_observed(cursor, observe, |error| ignored(behind(error))).map_err(behind)?;
                }
                false
            }
            Kind::Filter { conditions, .. } => conditions.hold_observed(cursor, &mut observe, &mut *ignored)?,
        };
        verdict.holds = holds;
        Ok(Some(verdict))
    }
}

/// Takes the contexts at `gone`, which are in order, out, and what is empty then, or was before, around them.
fn remove(request: &mut Request, level: Level, gone: &[Place]) {
    let mut gone = gone.iter().copied().peekable();
    let mut place = Place::default();
    // In the order of a visit, so that what is gone is always the next.
    request.resource_profiles.retain_mut(|resource| {
        let kept = if level == Level::Resource {
            gone.next_if_eq(&place).is_none()
        } else {
            place.scope = 0;
            resource.scope_profiles.retain_mut(|scope| {
                let kept = if level == Level::Scope {
                    gone.next_if_eq(&place).is_none()
                } else {
                    place.profile = 0;
                    scope.profiles.retain_mut(|profile| {
                        let kept = if level == Level::Profile {
                            gone.next_if_eq(&place).is_none()
                        } else {
                            place.sample = 0;
                            profile.samples.retain(|_| {
                                let kept = gone.next_if_eq(&place).is_none();
                                place.sample += 1;
                                kept
                            });
                            place.sample = 0;
                            !profile.samples.is_empty()
                        };
                        place.profile += 1;
                        kept
                    });
                    place.profile = 0;
                    !scope.profiles.is_empty()
                };
                place.scope += 1;
                kept
            });
            place.scope = 0;
            !resource.scope_profiles.is_empty()
        };
        place.resource += 1;
        kept
    });
}
