//! The paths of each context.

use std::{fmt, str::FromStr};

use profiler_ottl::{PathError, Paths, Written};

/// What a rule is run on, once each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Each resource.
    Resource,
    /// Each scope of each resource.
    Scope,
    /// Each profile.
    Profile,
    /// Each sample of each profile.
    Sample,
    /// The stack of each sample.
    Stack,
    /// Each frame of the stack of each sample, from the leaf; those that are inlined have frames of their own.
    Frame,
}

impl Level {
    /// All, from the outermost.
    pub const ALL: [Self; 6] = [Self::Resource, Self::Scope, Self::Profile, Self::Sample, Self::Stack, Self::Frame];

    /// What rules call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Resource => "resource",
            Self::Scope => "scope",
            Self::Profile => "profile",
            Self::Sample => "profilesample",
            Self::Stack => "stack",
            Self::Frame => "frame",
        }
    }

    /// The level that `name` in front of a path means.
    fn of(name: &str) -> Option<Self> {
        if name == "instrumentation_scope" {
            Some(Self::Scope)
        } else {
            Self::ALL.into_iter().find(|level| level.name() == name)
        }
    }

    /// The innermost level that one of `names` means.
    #[must_use]
    pub fn inferred(names: &[&str]) -> Option<Self> {
        names.iter().filter_map(|name| Self::of(name)).max()
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|level| level.name() == name).ok_or_else(|| {
            format!("a context is resource, scope, profile, profilesample, stack or frame, not {name:?}")
        })
    }
}

/// A path that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Accessor {
    Cache,
    ResourceAttributes,
    ResourceDropped,
    ResourceSchema,
    ScopeName,
    ScopeVersion,
    ScopeAttributes,
    ScopeDropped,
    ScopeSchema,
    SampleType,
    SampleTypeType,
    SampleTypeUnit,
    PeriodType,
    PeriodTypeType,
    PeriodTypeUnit,
    Samples,
    TimeNanos,
    Time,
    Duration,
    Period,
    ProfileId,
    ProfileIdText,
    ProfileIndices,
    ProfileAttributes,
    ProfileDropped,
    PayloadFormat,
    Payload,
    Values,
    SampleIndices,
    SampleAttributes,
    Link,
    TimestampsNanos,
    Timestamps,
    Depth,
    DepthFromRoot,
    Functions,
    Leaf(Field),
    Root(Field),
    Frame(Field),
    FrameIndex,
    FrameDrop,
    FrameCollapse,
}

/// What is known of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Field {
    Function,
    File,
    Line,
    Module,
    BuildId,
    Type,
    Address,
}

impl Field {
    const ALL: [(&'static str, Self); 7] = [
        ("function", Self::Function),
        ("file", Self::File),
        ("line", Self::Line),
        ("module", Self::Module),
        ("build_id", Self::BuildId),
        ("type", Self::Type),
        ("address", Self::Address),
    ];

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, field)| field)
    }
}

impl Accessor {
    /// Why rules of `level` cannot change it.
    fn fixed(self, level: Level) -> Option<&'static str> {
        match self {
            Self::Depth | Self::DepthFromRoot if level != Level::Stack => {
                Some("is changed by rules of the context stack")
            }
            Self::Leaf(_) | Self::Root(_) | Self::Functions => {
                Some("cannot be changed here: its frames can, in the context frame")
            }
            Self::FrameIndex | Self::Frame(Field::Type) => Some("cannot be changed"),
            _ => None,
        }
    }
}

/// The paths behind the name of a level.
const PATHS: &[(Level, &[&str], Accessor)] = &[
    (Level::Resource, &["attributes"], Accessor::ResourceAttributes),
    (Level::Resource, &["dropped_attributes_count"], Accessor::ResourceDropped),
    (Level::Resource, &["schema_url"], Accessor::ResourceSchema),
    (Level::Scope, &["name"], Accessor::ScopeName),
    (Level::Scope, &["version"], Accessor::ScopeVersion),
    (Level::Scope, &["attributes"], Accessor::ScopeAttributes),
    (Level::Scope, &["dropped_attributes_count"], Accessor::ScopeDropped),
    (Level::Scope, &["schema_url"], Accessor::ScopeSchema),
    (Level::Profile, &["sample_type"], Accessor::SampleType),
    (Level::Profile, &["sample_type", "type"], Accessor::SampleTypeType),
    (Level::Profile, &["sample_type", "unit"], Accessor::SampleTypeUnit),
    (Level::Profile, &["period_type"], Accessor::PeriodType),
    (Level::Profile, &["period_type", "type"], Accessor::PeriodTypeType),
    (Level::Profile, &["period_type", "unit"], Accessor::PeriodTypeUnit),
    (Level::Profile, &["sample"], Accessor::Samples),
    (Level::Profile, &["time_unix_nano"], Accessor::TimeNanos),
    (Level::Profile, &["time"], Accessor::Time),
    (Level::Profile, &["duration_unix_nano"], Accessor::Duration),
    (Level::Profile, &["duration"], Accessor::Duration),
    (Level::Profile, &["period"], Accessor::Period),
    (Level::Profile, &["profile_id"], Accessor::ProfileId),
    (Level::Profile, &["profile_id", "string"], Accessor::ProfileIdText),
    (Level::Profile, &["attribute_indices"], Accessor::ProfileIndices),
    (Level::Profile, &["attributes"], Accessor::ProfileAttributes),
    (Level::Profile, &["dropped_attributes_count"], Accessor::ProfileDropped),
    (Level::Profile, &["original_payload_format"], Accessor::PayloadFormat),
    (Level::Profile, &["original_payload"], Accessor::Payload),
    (Level::Sample, &["values"], Accessor::Values),
    (Level::Sample, &["attribute_indices"], Accessor::SampleIndices),
    (Level::Sample, &["attributes"], Accessor::SampleAttributes),
    (Level::Sample, &["link_index"], Accessor::Link),
    (Level::Sample, &["timestamps_unix_nano"], Accessor::TimestampsNanos),
    (Level::Sample, &["timestamps"], Accessor::Timestamps),
    (Level::Stack, &["depth"], Accessor::Depth),
    (Level::Stack, &["depth_from_root"], Accessor::DepthFromRoot),
    (Level::Stack, &["functions"], Accessor::Functions),
    (Level::Frame, &["index"], Accessor::FrameIndex),
    (Level::Frame, &["drop"], Accessor::FrameDrop),
    (Level::Frame, &["collapse"], Accessor::FrameCollapse),
];

impl Level {
    /// Whose path `names` are, of the context itself where they are bare, and what they are behind that one's name.
    fn split<'n, 's>(self, names: &'n [&'s str]) -> Result<(Self, &'n [&'s str]), PathError> {
        match names {
            [first, rest @ ..] if !rest.is_empty() => match Self::of(first) {
                Some(level) if level <= self => Ok((level, rest)),
                Some(level) => Err(PathError::because(format!("in the context {self} there is no {level}"))),
                None if *first == "otelcol" => Err(PathError::because("there is no request to a Collector here")),
                None => Ok((self, names)),
            },
            names => Ok((self, names)),
        }
    }

    /// What the path of these `names` is, in a rule of this level; none if it is not known, or the context's own cache.
    pub(crate) fn accessor(self, names: &[&str]) -> Option<(Self, Accessor)> {
        let (level, names) = self.split(names).ok()?;
        self.found(level, names)
    }

    /// What is called `names` among the paths of `level`, or, bare in a rule on the stack of a sample, among those of the sample.
    fn found(self, level: Self, names: &[&str]) -> Option<(Self, Accessor)> {
        let field = match (level, names) {
            (Self::Frame, [field]) => Field::named(field).map(Accessor::Frame),
            (Self::Stack, ["leaf", field]) => Field::named(field).map(Accessor::Leaf),
            (Self::Stack, ["root", field]) => Field::named(field).map(Accessor::Root),
            _ => None,
        };
        let of_level = || PATHS.iter().find(|(known, known_names, _)| *known == level && *known_names == names);
        match field.or_else(|| of_level().map(|found| found.2)) {
            Some(accessor) => Some((level, accessor)),
            None if level == self && level > Self::Sample => self.found(Self::Sample, names),
            None => None,
        }
    }
}

impl Paths for Level {
    type Accessor = Accessor;

    /// Paths are taken bare, of the context itself, or behind the name of it or of one around it.
    fn resolve(&self, path: &Written<'_>) -> Result<Accessor, PathError> {
        let (level, names) = self.split(path.names())?;
        let accessor = if names == ["cache"] {
            if level != *self {
                return Err(PathError::because(format!(
                    "there is one cache, of the context itself: write {self}.cache"
                )));
            }
            Accessor::Cache
        } else {
            self.found(level, names).ok_or_else(PathError::unknown)?.1
        };
        if let Some(why) = accessor.fixed(*self).filter(|_| path.is_target()) {
            return Err(PathError::because(format!("`{}` {why}", names.join("."))));
        }
        let has_keys = matches!(
            accessor,
            Accessor::Cache
                | Accessor::ResourceAttributes
                | Accessor::ScopeAttributes
                | Accessor::ProfileAttributes
                | Accessor::SampleAttributes
        );
        if path.indexed() && !has_keys {
            return Err(PathError::because(format!("`{}` has no keys", names.join("."))));
        }
        Ok(accessor)
    }

    fn known(&self) -> Vec<String> {
        let mut known = vec!["cache".to_owned(), format!("{self}.cache")];
        let mut push = |level: Self, name: String| {
            known.push(format!("{level}.{name}"));
            if level == *self || level == Self::Sample && *self > level {
                known.push(name);
            }
        };
        for (level, names, _) in PATHS.iter().filter(|(level, ..)| level <= self) {
            push(*level, names.join("."));
        }
        for (field, _) in Field::ALL {
            if *self >= Self::Stack {
                ["leaf", "root"].into_iter().for_each(|end| push(Self::Stack, format!("{end}.{field}")));
            }
            if *self == Self::Frame {
                push(Self::Frame, field.to_owned());
            }
        }
        known
    }
}
