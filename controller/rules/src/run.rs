//! Rules, compiled for a context, and run over a request.

use std::fmt;

use opentelemetry_proto::tonic::profiles::v1development::{Profile, Sample};
use profiler_ottl::{CompileError, Conditions, ErrorMode, Gates, Language, Logic, RuleError, Statements, parse};

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

/// What rules did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Resources, scopes, profiles or samples that they ran on.
    pub contexts: usize,
    /// How many of these are gone.
    pub dropped: usize,
    /// The samples that went with them: what counts samples says how many, else each time or entry is one.
    pub samples: u64,
}

/// Statements or conditions of one context.
#[derive(Debug)]
pub struct Rules {
    level: Level,
    kind: Kind,
}

enum Kind {
    Statements(Statements<Cursor>),
    Filter { conditions: Conditions<Cursor>, drop: bool },
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Statements(_) => "Statements",
            Self::Filter { .. } => "Filter",
        })
    }
}

/// The innermost context that paths of `rules` name in front, or profiles.
fn inferred(level: Option<Level>, names: &[Vec<String>]) -> Level {
    let names: Vec<&str> = names.iter().flatten().map(String::as_str).collect();
    level.or_else(|| Level::inferred(&names)).unwrap_or(Level::Profile)
}

/// What becomes of each rule; the first that is refused ends it.
fn each<T>(
    rules: &[impl AsRef<str>],
    compile: impl Fn(&str) -> Result<T, CompileError>,
) -> Result<Vec<T>, RefusedRule> {
    let rules = rules.iter().map(AsRef::as_ref).enumerate();
    rules.map(|(index, rule)| compile(rule).map_err(|error| RefusedRule { index, error })).collect()
}

fn owned(names: Vec<&str>) -> Vec<String> {
    names.into_iter().map(str::to_owned).collect()
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
        gates: Gates,
    ) -> Result<Self, RefusedRule> {
        let names = each(rules, |rule| parse::statement(rule).map(|parsed| owned(parsed.first_names())))?;
        let level = inferred(level, &names);
        let language = Language::new(&level).with_gates(gates);
        let statements = each(rules, |rule| language.statement(rule))?;
        Ok(Self { level, kind: Kind::Statements(Statements::new(statements, mode)) })
    }

    /// Conditions of which one must hold for a context to be dropped, or, unless `drop`, kept. What has nothing in it around those contexts goes, too:
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
        gates: Gates,
    ) -> Result<Self, RefusedRule> {
        let names = each(rules, |rule| parse::condition(rule).map(|parsed| owned(parsed.first_names())))?;
        let level = inferred(level, &names);
        let language = Language::new(&level).with_gates(gates);
        let conditions = each(rules, |rule| language.condition(rule))?;
        Ok(Self { level, kind: Kind::Filter { conditions: Conditions::new(conditions, mode, Logic::Any), drop } })
    }

    /// What they run on.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
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
    pub fn apply_only(
        &self,
        request: Request,
        mut ignored: impl FnMut(RuleError),
    ) -> Result<(Request, Done), RuleError> {
        let mut cursor = Cursor::new(request);
        let mut done = Done::default();
        let mut gone: Vec<Place> = Vec::new();
        let mut place = Place::default();
        self.visit(&mut cursor, Level::Resource, &mut place, &mut |cursor, place| {
            done.contexts += 1;
            cursor.go(place);
            match &self.kind {
                Kind::Statements(statements) => statements.execute(cursor, &mut ignored),
                Kind::Filter { conditions, drop } => {
                    if conditions.hold(cursor, &mut ignored)? == *drop {
                        gone.push(place);
                    }
                    Ok(())
                }
            }
        })?;
        done.dropped = gone.len();
        let mut request = cursor.into_request();
        if matches!(self.kind, Kind::Filter { .. }) {
            let before = samples(&request);
            remove(&mut request, self.level, &gone);
            done.samples = before.saturating_sub(samples(&request));
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
                Level::Profile | Level::Sample => {
                    *if level == Level::Profile { &mut place.profile } else { &mut place.sample } = at;
                    Level::Sample
                }
            };
            if level == self.level {
                run(cursor, *place)?;
            } else {
                self.visit(cursor, next, place, run)?;
            }
        }
        Ok(())
    }
}

/// The samples of `request`, as [`Done::samples`] counts them.
fn samples(request: &Request) -> u64 {
    let strings = request.dictionary.as_ref().map_or(&[][..], |dictionary| &dictionary.string_table);
    let string =
        |index: i32| usize::try_from(index).ok().and_then(|index| strings.get(index)).map_or("", String::as_str);
    let profiles = request.resource_profiles.iter().flat_map(|all| &all.scope_profiles).flat_map(|all| &all.profiles);
    let of_profile = |profile: &Profile| {
        let of = profile.sample_type.unwrap_or_default();
        let counts = string(of.type_strindex) == "samples" && string(of.unit_strindex) == "count";
        let of_sample = |sample: &Sample| match sample.values.as_slice() {
            values @ [_, ..] if counts => {
                values.iter().map(|value| (*value).max(0).unsigned_abs()).fold(0, u64::saturating_add)
            }
            _ => sample.timestamps_unix_nano.len().max(1) as u64,
        };
        profile.samples.iter().map(of_sample).fold(0, u64::saturating_add)
    };
    profiles.map(of_profile).fold(0, u64::saturating_add)
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
