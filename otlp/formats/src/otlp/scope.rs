//! What scopes say, read into a profile: who recorded, how, and what was lost.

use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use profiler_model::{Loss, StringId, attribute, builder::ProfileBuilder};
use rustc_hash::FxHashMap;

use super::decode::Decoder;
use crate::error::Error;

/// Losses by the key of their attribute.
#[derive(Default)]
pub(super) struct Losses {
    known: FxHashMap<StringId, Lost>,
}

/// What requests say of one loss.
struct Lost {
    /// Among the profile's.
    position: usize,
    /// In the requests before this one.
    before: u64,
    /// In this one.
    here: u64,
}

impl Losses {
    /// What follows is of another request.
    pub(super) fn next(&mut self) {
        for lost in self.known.values_mut() {
            lost.before = lost.before.saturating_add(std::mem::take(&mut lost.here));
        }
    }

    /// Takes note of a loss; whether it is known. Each resource of a request says the same: nothing is added up within one.
    fn note(&mut self, key: StringId, count: u64, builder: &mut ProfileBuilder) -> bool {
        let Some(lost) = self.known.get_mut(&key) else { return false };
        lost.here = lost.here.max(count);
        if let Some(loss) = builder.set_mut().losses.get_mut(lost.position) {
            loss.count = lost.before.saturating_add(lost.here);
        }
        true
    }
}

impl Decoder {
    /// Each process's scope says the same.
    pub(super) fn scope(&mut self, scope: &InstrumentationScope) -> Result<(), Error> {
        let producer = match (scope.name.as_str(), scope.version.as_str()) {
            (name, "") => name.to_owned(),
            (name, version) => format!("{name} {version}"),
        };
        let origin = &mut self.builder.set_mut().origin;
        if origin.producer.is_empty() {
            origin.producer = producer;
        }
        for pair in &scope.attributes {
            let (key, text, integer) = self.pair(pair)?;
            let number = integer.and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
            let profile = self.builder.set_mut();
            match profile.string(key) {
                attribute::CPUS => profile.origin.cpus = number,
                attribute::FREQUENCY => profile.origin.frequency = number,
                attribute::TARGET => {
                    self.host(|origin| &mut origin.target, text)?;
                }
                attribute::DEFAULT_SAMPLE_TYPE if self.default_sample_type.is_none() => {
                    self.default_sample_type = Some(self.dictionary.copy(text, &mut self.builder)?);
                }
                name if name.starts_with(attribute::LOSS) => {
                    let count = integer.and_then(|count| u64::try_from(count).ok());
                    self.loss(key, count.unwrap_or(0))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn loss(&mut self, key: StringId, count: u64) -> Result<(), Error> {
        if !self.losses.note(key, count, &mut self.builder) {
            let name = self.dictionary.copy(key, &mut self.builder)?;
            let reason = name.strip_prefix(attribute::LOSS).unwrap_or(&name).to_owned();
            let losses = &mut self.builder.set_mut().losses;
            self.losses.known.insert(key, Lost { position: losses.len(), before: 0, here: count });
            losses.push(Loss { reason, count });
        }
        Ok(())
    }
}
