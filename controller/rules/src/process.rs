//! Conditions that say the same of all that is sampled of a process.

use profiler_ottl::{CompileError, parse};

use crate::paths::{Accessor, Level};

/// Functions that say something else each time.
pub(crate) const VARYING: [&str; 3] = ["Now", "UUID", "UUIDv7"];

/// Why a condition may say something else of another sample.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Varies {
    /// It reads this path.
    #[error("it reads {0}, which is not the same in all samples of a process")]
    Reads(String),
    /// It calls this function.
    #[error("it calls {0}, which says something else each time")]
    Calls(String),
    /// It does not parse.
    #[error(transparent)]
    Wrong(#[from] CompileError),
}

/// Whether `condition`, on contexts of `level`, reads nothing but who a process is, its resource.
///
/// # Errors
///
/// The first of what it reads or calls beside.
pub fn is_of_process(level: Level, condition: &str) -> Result<(), Varies> {
    let parsed = parse::condition(condition)?;
    // It holds if there is a frame, for one.
    if level > Level::Sample {
        return Err(Varies::Reads(level.to_string()));
    }
    for path in parsed.paths() {
        let is_fixed = matches!(
            level.accessor(&path),
            Some((
                Level::Resource,
                Accessor::ResourceAttributes | Accessor::ResourceDropped | Accessor::ResourceSchema
            ))
        );
        if !is_fixed {
            return Err(Varies::Reads(path.join(".")));
        }
    }
    match parsed.functions().into_iter().find(|name| VARYING.contains(name)) {
        Some(name) => Err(Varies::Calls(name.to_owned())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_of_the_process_if_it_reads_the_resource_alone() {
        for (level, condition) in [
            (Level::Profile, r#"resource.attributes["service.name"] == "shop""#),
            (Level::Sample, r#"not IsMatch(resource.attributes["a"], Concat(["^", resource.attributes["b"]], ""))"#),
            (
                Level::Resource,
                r#"attributes["service.name"] == "shop" and schema_url == "" and resource.dropped_attributes_count == 0"#,
            ),
            (Level::Profile, "true"),
        ] {
            assert_eq!(is_of_process(level, condition), Ok(()), "{condition}");
        }
        let alone = is_of_process(Level::Frame, r#"resource.attributes["a"] == "b""#).expect_err("a frame");
        assert!(alone.to_string().starts_with("it reads frame,"), "{alone}");
        let resource = r#"resource.attributes["a"] == "b" or "#;
        for (level, condition, said) in [
            (Level::Profile, r#"attributes["a"] == "b""#, "it reads attributes,"),
            (Level::Profile, "profile.period == 1", "it reads profile.period,"),
            (Level::Sample, r#"attributes["thread.name"] == "x""#, "it reads attributes,"),
            (Level::Profile, r#"resource.attributes[scope.name] == "x""#, "it reads scope.name,"),
            (
                Level::Profile,
                r#"IsMatch(resource.attributes["a"], profilesample.attributes["b"])"#,
                "it reads profilesample.attributes,",
            ),
            (Level::Resource, r#"cache["a"] == 1"#, "it reads cache,"),
            (Level::Resource, r#"resource.cache["a"] == 1"#, "it reads resource.cache,"),
            (Level::Profile, "UnixSeconds(Now()) > 7", "it calls Now,"),
            (Level::Profile, r#"UUID() == "x""#, "it calls UUID,"),
            (Level::Profile, "=", ""),
        ] {
            for condition in [condition.to_owned(), format!("{resource}{condition}")] {
                let text = is_of_process(level, &condition).expect_err(&condition).to_string();
                assert!(text.starts_with(said), "{condition}: {text}");
            }
        }
    }
}
