//! Rules of the command line, on a profile before anybody sees it.

mod early;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use profiler_config::Flags;
use profiler_formats::otlp;
use profiler_model::builder::ProfileBuilder;
use profiler_model::{Loss, Origin, Profile, Profiles, Sample, counts_samples};
use profiler_ottl::{ErrorMode, HashKey, RuleError};
pub use profiler_rules::Request;
use profiler_rules::{RefusedRule, Rules, compact};
use prost::Message;

pub use self::early::Early;
use crate::agent::{Counts, Processors};
use crate::{exit, shown};

/// The largest file of rules, bytes.
pub const MAX_RULES: u64 = 4 << 20;
/// The largest file of a key, bytes.
const MAX_KEY: u64 = 64 << 10;
/// Errors of a rule that are told one by one; the others are counted.
const TOLD: u64 = 3;
const DROP: &str = "--drop";
const WHERE: &str = "--where";
/// The reason of what is dropped before its stack is walked.
pub const EARLY: &str = "before unwinding";
/// The loss of samples that rules dropped.
pub const FILTERED: &str = "filtered";

/// Rules as arguments.
#[derive(Debug, Args)]
pub struct RulesArgs {
    /// Change it by the OTTL statements of this file, one a line, before anything is written; or, of a file named *.yaml, by its `processors:`, as the agent does
    /// (docs/ottl.md).
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Keep only what this OTTL condition holds for: 'resource.attributes["service.name"] == "shop"'; may be repeated, and any counts.
    #[arg(long = "where", value_name = "CONDITION", allow_hyphen_values = true)]
    keep: Vec<String>,
    /// Drop what this OTTL condition holds for; may be repeated, and any counts. Before --where, and both before --rules.
    #[arg(long, value_name = "CONDITION", allow_hyphen_values = true)]
    drop: Vec<String>,
    #[command(flatten)]
    key: KeyArgs,
}

/// The key of keyed hashes as an argument.
#[derive(Debug, Default, Args)]
pub struct KeyArgs {
    /// What KeyedHash of rules hashes under: the text of this file, of 16 bytes or more, but for the end of its last line.
    #[arg(long, value_name = "FILE")]
    hash_key: Option<PathBuf>,
}

impl KeyArgs {
    /// The key, if one is given.
    ///
    /// # Errors
    /// The file cannot be read, or has no key.
    pub fn read(&self) -> anyhow::Result<Option<HashKey>> {
        let Some(path) = &self.hash_key else { return Ok(None) };
        let bytes = read_bounded(path, MAX_KEY)?;
        let key = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let wrong = |error| exit::usage(format!("--hash-key {}: {error}", shown::path(path)));
        Ok(Some(HashKey::new(key).map_err(wrong)?))
    }
}

/// Rules that compile, in the order that they run in.
#[derive(Debug, Default)]
pub struct Edits {
    stages: Vec<Rules>,
    /// Behind those.
    processors: Processors,
    early: Arc<Early>,
}

/// The statements of a file, and the lines that they are in, from 1: one a line; empty lines and those that begin with # are none.
pub fn statements(path: &Path, text: &[u8]) -> anyhow::Result<Vec<(usize, String)>> {
    let text = std::str::from_utf8(text).with_context(|| format!("{} is no text", shown::path(path)))?;
    let lines = text.lines().map(str::trim_end).enumerate();
    let lines = lines.filter(|(_, line)| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
    Ok(lines.map(|(at, line)| (at + 1, line.to_owned())).collect())
}

/// At most `limit` bytes of a file; `-` is standard input.
pub fn read_bounded(path: &Path, limit: u64) -> anyhow::Result<Vec<u8>> {
    let cannot = || format!("cannot read {}", shown::path(path));
    let mut bytes = Vec::new();
    let mut take = |source: &mut dyn Read| source.take(limit + 1).read_to_end(&mut bytes);
    if path == Path::new("-") {
        take(&mut std::io::stdin().lock())
    } else {
        File::open(path).and_then(|mut file| take(&mut file))
    }
    .with_context(cannot)?;
    let most = crate::output::human_bytes(limit);
    anyhow::ensure!(bytes.len() as u64 <= limit, "{}: it has more than {most}", cannot());
    Ok(bytes)
}

/// Whether it is a configuration of the agent, and no list of statements.
fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

impl RulesArgs {
    /// The rules, compiled.
    ///
    /// # Errors
    /// The file cannot be read, or a rule does not parse: its place and what was expected.
    pub fn compile(&self) -> anyhow::Result<Edits> {
        let (mut stages, mut early) = (Vec::new(), Early::default());
        let key = self.key.read()?;
        early.hash_under(key.clone());
        for (conditions, drop, flag) in [(&self.drop, true, DROP), (&self.keep, false, WHERE)] {
            if !conditions.is_empty() {
                let wrong = |refused: RefusedRule| exit::usage(format!("{flag}: {}", refused.error));
                let filter = Rules::filter(None, conditions, drop, ErrorMode::Ignore, key.clone());
                let filter = filter.map_err(wrong)?;
                let level = filter.level();
                let why =
                    if drop { early.dropping(flag, level, conditions) } else { early.keeping(flag, level, conditions) };
                why.map_err(wrong)?;
                stages.push(filter);
            }
        }
        let mut processors = Processors::default();
        if let Some(path) = self.rules.as_ref().filter(|path| is_yaml(path)) {
            let mut flags = Flags::new(Some(path.clone()));
            // It need not be the agent's, where it is root's.
            flags.whosever = true;
            processors = Processors::compile(&profiler_config::load(&flags).map_err(exit::usage)?.config.processors)?;
            if processors.is_empty() {
                return Err(exit::usage(format!(
                    "{} has no `processors:`, and nothing else in it is of use here",
                    shown::path(path)
                ))
                .into());
            }
        } else if let Some(path) = &self.rules {
            let statements = statements(path, &read_bounded(path, MAX_RULES)?)?;
            // All that is wrong is told, as `profiler ottl check` tells it.
            let mut refused = Vec::new();
            for (line, statement) in &statements {
                match Rules::statements(None, &[statement], ErrorMode::Ignore, key.clone()) {
                    Ok(rules) => stages.push(rules),
                    Err(wrong) => refused.push(format!("{}:{line}: {}", shown::path(path), wrong.error)),
                }
            }
            if !refused.is_empty() {
                return Err(exit::usage(refused.join("\n")).into());
            }
        }
        Ok(Edits { stages, processors, early: Arc::new(early) })
    }
}

impl Edits {
    /// Those of the conditions that are decided once a process.
    #[must_use]
    pub fn early(&self) -> Arc<Early> {
        Arc::clone(&self.early)
    }

    /// What they make of `profiles`. Samples that are dropped are a loss; errors of a rule are told on standard error, and the next rule runs.
    ///
    /// # Errors
    /// A rule has made what cannot be written. Nothing is to be written then: nobody knows what the rules would have taken away.
    pub fn apply(&self, profiles: Profiles) -> anyhow::Result<Profiles> {
        if self.is_empty() {
            return Ok(profiles);
        }
        edited(&profiles, |request| {
            let (mut request, mut filtered) = (request, 0_u64);
            for stage in &self.stages {
                let mut errors = 0_u64;
                let told = |error: RuleError| {
                    errors += 1;
                    if errors <= TOLD {
                        eprintln!("profiler: a rule failed: {}", shown::lines(&error.to_string()));
                    }
                };
                let (changed, done) = stage.apply_only(request, told)?;
                request = changed;
                filtered = filtered.saturating_add(done.samples);
                if errors > TOLD {
                    eprintln!("profiler: it failed {errors} times.");
                }
            }
            let mut counts = Counts::default();
            let (request, more) = self.processors.edit(request, &mut counts)?;
            for (processor, rule, failed) in self.processors.failed(&counts) {
                let processor = shown::one_line(processor);
                eprintln!(
                    "profiler: {rule} of processor {processor} failed {failed} times, and was passed over; `profiler ottl run` on a profile says why."
                );
            }
            Ok((request, filtered.saturating_add(more)))
        })
    }

    fn is_empty(&self) -> bool {
        self.stages.is_empty() && self.processors.is_empty()
    }

    /// Says on standard error how many samples of `profiles` rules have dropped, if there are rules.
    pub fn tell_filtered(&self, profiles: &Profiles) {
        for loss in profiles.losses.iter().filter(|loss| loss.reason == FILTERED && !self.is_empty()) {
            eprintln!("{}", filtered(loss));
        }
    }
}

/// The loss of samples that rules dropped, for people.
pub fn filtered(loss: &Loss) -> String {
    format!("Filtered by rules: {} samples.", loss.count)
}

/// What `edit` makes of `profiles`, and says how many samples it has dropped, which are a loss then. What nothing refers to any more is gone.
///
/// # Errors
/// Those of `edit`, or it has made what cannot be written. Nothing is to be written then: nobody knows what would have been taken away.
pub fn edited(
    profiles: &Profiles,
    edit: impl FnOnce(Request) -> anyhow::Result<(Request, u64)>,
) -> anyhow::Result<Profiles> {
    let (mut request, filtered) = edit(otlp::request(profiles))?;
    let whole = compact(&mut request);
    anyhow::ensure!(
        whole,
        "A rule has written an index that leads nowhere, so that what it has taken away cannot be told apart; nothing is written"
    );
    let edited = otlp::decode(&request.encode_to_vec()).context("What rules have made cannot be read")?;
    Ok(completed(edited, profiles, filtered))
}

/// CPU time of this thread.
pub fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Samples of `profiles`, as they are counted where rules drop them.
pub fn samples(profiles: &Profiles) -> u64 {
    let of = |profile: &Profile| {
        let counts = profile.sample_types.first().is_none_or(counts_samples);
        let one = |sample: &Sample| if counts { sample.first_value() } else { 1 };
        profile.samples.iter().map(one).fold(0, u64::saturating_add)
    };
    profiles.profiles.iter().map(of).fold(0, u64::saturating_add)
}

/// `edited` with what is said even if nothing is left, and with what was dropped among its losses.
fn completed(mut edited: Profiles, original: &Profiles, filtered: u64) -> Profiles {
    if edited.profiles.is_empty() {
        // What it is nothing of. What else the original says, a rule may have taken away.
        let mut builder = ProfileBuilder::of(edited);
        for profile in &original.profiles {
            builder.begin(Profile {
                samples: Vec::new(),
                source: profile.source.clone(),
                sample_types: profile.sample_types.clone(),
                period_type: profile.period_type.clone(),
                ..*profile
            });
        }
        edited = builder.finish();
        let Origin { cpus, frequency, .. } = original.origin;
        edited.origin = Origin { producer: original.origin.producer.clone(), cpus, frequency, ..Origin::default() };
        edited.losses.clone_from(&original.losses);
    }
    if filtered > 0 {
        match edited.losses.iter_mut().find(|loss| loss.reason == FILTERED) {
            Some(loss) => loss.count = loss.count.saturating_add(filtered),
            None => edited.losses.push(Loss { reason: FILTERED.to_owned(), count: filtered }),
        }
    }
    edited
}

#[cfg(test)]
mod tests {
    use profiler_model::{AttributeValue, Measure, Process, Thread};

    use super::*;

    /// Services `shop` and `cart`; of each three samples on one CPU.
    fn profiles() -> Profiles {
        let mut builder = ProfileBuilder::new();
        let mut samples = Vec::new();
        for (cpu, service) in (0..).zip(["shop", "cart"]) {
            let (key, value) = (builder.string("service.name"), builder.string(service));
            let attributes = vec![(key, AttributeValue::Text(value))];
            let process = builder.process(Process { pid: Some(cpu + 1), attributes, ..Process::default() });
            let name = builder.string(&format!("thread of {service}"));
            let thread = Some(builder.thread(Thread { process, tid: cpu + 1, name }));
            let sample = |at| Sample { thread, cpu: Some(cpu), time_unix_nanos: Some(at), ..Sample::default() };
            samples.extend((10..13).map(sample));
        }
        builder.begin(Profile {
            samples,
            start_unix_nanos: 10,
            duration_nanos: 10,
            ..Profile::of(&Measure::cpu_clock(1))
        });
        let mut profiles = builder.finish();
        profiles.origin = Origin { producer: "profiler 1".to_owned(), cpus: 2, frequency: 99, ..Origin::default() };
        profiles.losses = vec![Loss { reason: "lost: ring full".to_owned(), count: 7 }];
        profiles
    }

    fn edits(keep: &[&str], drop: &[&str]) -> Edits {
        let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
        RulesArgs { rules: None, keep: owned(keep), drop: owned(drop), key: KeyArgs::default() }
            .compile()
            .expect("right")
    }

    fn bytes_have(profiles: &Profiles, text: &str) -> bool {
        otlp::encode(profiles).windows(text.len()).any(|bytes| bytes == text.as_bytes())
    }

    #[test]
    fn without_rules_nothing_is_touched() {
        assert_eq!(Edits::default().apply(profiles()).expect("right"), profiles());
    }

    #[test]
    fn what_is_filtered_is_counted_and_in_no_byte() {
        for (keep, drop) in [
            (&[r#"resource.attributes["service.name"] == "shop""#][..], &[][..]),
            (&[], &[r#"profilesample.attributes["thread.name"] == "thread of cart""#]),
            (
                &[r#"profilesample.attributes["cpu.logical_number"] == 0"#],
                &["resource.attributes[\"process.pid\"] == 2"],
            ),
        ] {
            let edited = edits(keep, drop).apply(profiles()).expect("right");
            assert_eq!(edited.samples().count(), 3, "{keep:?} {drop:?}");
            let losses: Vec<_> = edited.losses.iter().map(|loss| (loss.reason.as_str(), loss.count)).collect();
            assert_eq!(losses, [("lost: ring full", 7), (FILTERED, 3)]);
            assert!(bytes_have(&edited, "thread of shop") && !bytes_have(&edited, "cart"));
            assert_eq!(edited.origin, profiles().origin);
        }
    }

    #[test]
    fn where_nothing_is_left_it_is_said_of_what() {
        let edited = edits(&["false"], &[]).apply(profiles()).expect("right");
        assert_eq!(edited.samples().count(), 0);
        assert_eq!(edited.profiles[0].sample_types, profiles().profiles[0].sample_types);
        assert_eq!(edited.losses.last().map(|loss| loss.count), Some(6));
        assert_eq!((edited.origin.frequency, edited.origin.producer.as_str()), (99, "profiler 1"));
        assert!(!bytes_have(&edited, "shop"));
    }

    #[test]
    fn what_a_rule_of_a_file_removes_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rules");
        std::fs::write(&path, "# who\nset(resource.attributes[\"service.name\"], \"x\") where resource.attributes[\"service.name\"] == \"cart\"\n\ndelete_key(profilesample.attributes, \"thread.name\")\n").expect("written");
        let args = RulesArgs { rules: Some(path.clone()), keep: Vec::new(), drop: Vec::new(), key: KeyArgs::default() };
        let edited = args.compile().expect("right").apply(profiles()).expect("right");
        assert_eq!((edited.samples().count(), edited.losses.len()), (6, 1));
        assert!(bytes_have(&edited, "shop") && !bytes_have(&edited, "cart") && !bytes_have(&edited, "thread of"));

        // The steps of an agent, from its configuration.
        let steps = folder.path().join("agent.yaml");
        let keys = "processors:\n- filter:\n    profile_conditions: ['resource.attributes[\"service.name\"] == \"cart\"']\n- aggregate: {drop_timestamps: true}\n";
        std::fs::write(&steps, keys).expect("written");
        let of_agent =
            RulesArgs { rules: Some(steps.clone()), keep: Vec::new(), drop: Vec::new(), key: KeyArgs::default() };
        let edited = of_agent.compile().expect("right").apply(profiles()).expect("right");
        assert_eq!((edited.sample_entries(), edited.sample_count()), (1, 3));
        assert_eq!(edited.losses.last().map(|loss| (loss.reason.as_str(), loss.count)), Some((FILTERED, 3)));
        assert!(bytes_have(&edited, "shop") && !bytes_have(&edited, "cart"));
        for (text, said) in [("rate: 19\n", "no `processors:`"), ("processors:\n- agregate: {}\n", "agregate")] {
            std::fs::write(&steps, text).expect("written");
            let error = of_agent.compile().expect_err("wrong");
            assert!(error.to_string().contains(said), "{error}");
            assert_eq!(error.downcast_ref::<exit::ExitError>().map(|error| error.code), Some(exit::USAGE));
        }

        // A keyed hash, of whom the key does not tell.
        let hash = "set(resource.attributes[\"service.name\"], KeyedHash(resource.attributes[\"service.name\"]))\n";
        std::fs::write(&path, hash).expect("written");
        let error = args.compile().expect_err("no key");
        assert!(error.to_string().contains("--hash-key"), "{error}");
        let key = folder.path().join("key");
        let keyed = |text: &str| {
            std::fs::write(&key, text).expect("written");
            let key = KeyArgs { hash_key: Some(key.clone()) };
            RulesArgs { rules: Some(path.clone()), keep: Vec::new(), drop: Vec::new(), key }.compile()
        };
        let edited = keyed("0123456789abcdef\n").expect("right").apply(profiles()).expect("right");
        // printf shop | openssl dgst -sha256 -hmac 0123456789abcdef
        assert!(
            bytes_have(&edited, "525d025dd8a0eb578dae7758938d5a6d59090ed8246b1a9844eb8074b16f2e84")
                && !bytes_have(&edited, "0123456789abcdef")
        );
        let error = keyed("secretkey\n").expect_err("short").to_string();
        assert!(error.contains("at least 16 bytes") && !error.contains("secretkey"), "{error}");

        std::fs::write(&path, "set(profile.perod, 1)\n\nset(profile.period, Nw())\n").expect("written");
        let error = args.compile().expect_err("wrong");
        let text = error.to_string();
        assert!(text.contains("rules:1:") && text.contains("rules:3:") && text.contains("did you mean Now?"), "{text}");
        assert_eq!(error.downcast_ref::<exit::ExitError>().map(|error| error.code), Some(exit::USAGE));
    }
}
