//! Merges samples that are equal, and folds those of rare stacks into one.
//!
//! The values of what is merged stay its sum, and what comes out is the same in whatever order samples came.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value as Any},
    profiles::v1development::{
        Function, KeyValueAndUnit, Line, Location, Profile, ProfilesDictionary, ResourceProfiles, Sample,
        ScopeProfiles, Stack,
    },
    resource::v1::Resource,
};
use prost::Message;

use crate::{Request, equal::merge_rows};

/// The function of the one frame that rare stacks become.
pub const OTHER: &str = "[other]";
/// What `profile.frame.type` says of it: no code that ran, and no stack that could not be followed either.
const OTHER_TYPE: &str = "other";
const FRAME_TYPE: &str = "profile.frame.type";
/// All, as [`Aggregate::other_below`] counts.
pub const WHOLE: u32 = 1_000_000;
/// After so many samples it is asked whether the time is over.
const ASKED: usize = 512;

/// How samples are aggregated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Aggregate {
    /// Samples lose their times, and those that differ in time alone become one.
    pub drop_timestamps: bool,
    /// Stacks that have less than this share of their profile, in millionths, become one stack of the frame [`OTHER`]; 0: none does.
    pub other_below: u32,
}

/// What was aggregated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Aggregated {
    /// Samples that are part of another one now.
    pub merged: u64,
    /// Samples that had a stack of their own before it became [`OTHER`].
    pub folded: u64,
    /// Time that merging took.
    pub merging: Duration,
    /// Time that folding took.
    pub folding: Duration,
    /// The time was over before all was done; what there is then is of no use.
    pub is_late: bool,
}

/// What makes samples one: stack, attributes in order, link, whether they have times.
type Identity = (i32, Vec<i32>, i32, bool);

/// Samples of one identity.
#[derive(Default)]
struct Group {
    /// The sum, of those without times.
    sum: i128,
    /// Times and values, of those with times.
    times: Vec<(u64, i64)>,
}

impl Group {
    /// What it is worth to its profile.
    fn weight(&self) -> u128 {
        let timed = self.times.iter().map(|(_, value)| u128::from(value.unsigned_abs()));
        timed.fold(self.sum.unsigned_abs(), u128::saturating_add)
    }

    fn add(&mut self, other: Self) {
        self.sum = self.sum.saturating_add(other.sum);
        self.times.extend(other.times);
    }
}

/// Groups in the order that they appeared in.
#[derive(Default)]
struct Groups {
    places: HashMap<Identity, usize>,
    groups: Vec<(Identity, Group)>,
}

impl Groups {
    /// Whether there was one of that identity.
    fn add(&mut self, identity: Identity, group: Group) -> bool {
        if let Some((_, known)) = self.places.get(&identity).and_then(|at| self.groups.get_mut(*at)) {
            known.add(group);
            return true;
        }
        self.places.insert(identity.clone(), self.groups.len());
        self.groups.push((identity, group));
        false
    }
}

impl Aggregate {
    /// Aggregates all samples of `request`: resources, scopes and profiles that are equal become one, and then the samples of each. Rows of the dictionary that are
    /// equal become one, too; what nothing refers to stays. It ends soon after `is_late` says that the time is over.
    #[must_use]
    pub fn apply(&self, mut request: Request, is_late: &dyn Fn() -> bool) -> (Request, Aggregated) {
        let mut done = Aggregated::default();
        let begun = Instant::now();
        // Each may have much to do, whatever samples there are.
        for merge in [merge_rows, merge_resources] {
            done.is_late = done.is_late || is_late();
            if !done.is_late {
                merge(&mut request);
            }
        }
        done.merging += begun.elapsed();
        if done.is_late {
            return (request, done);
        }
        let Request { resource_profiles, dictionary } = &mut request;
        let mut other = None;
        let scopes = resource_profiles.iter_mut().flat_map(|resource| &mut resource.scope_profiles);
        for profile in scopes.flat_map(|scope| &mut scope.profiles) {
            let begun = Instant::now();
            let (mut groups, mut samples) = self.groups(profile, &mut done, is_late);
            done.merging += begun.elapsed();
            if done.is_late {
                break;
            }
            if self.other_below > 0 {
                let begun = Instant::now();
                groups = self.folded(groups, &mut done, &mut || {
                    *other.get_or_insert_with(|| other_stack(dictionary.get_or_insert_default()))
                });
                done.folding += begun.elapsed();
            }
            let begun = Instant::now();
            let ones = groups.groups.iter().all(|(_, group)| group.times.iter().all(|(_, value)| *value == 1));
            samples.extend(groups.groups.into_iter().map(|(identity, group)| sample(identity, group, ones)));
            profile.samples = samples;
            done.merging += begun.elapsed();
        }
        (request, done)
    }

    /// The samples of `profile` by identity, and those that are none by the format, which stay what they are.
    fn groups(
        &self,
        profile: &mut Profile,
        done: &mut Aggregated,
        is_late: &dyn Fn() -> bool,
    ) -> (Groups, Vec<Sample>) {
        let (mut groups, mut odd) = (Groups::default(), Vec::new());
        for (at, sample) in std::mem::take(&mut profile.samples).into_iter().enumerate() {
            if at.is_multiple_of(ASKED) && is_late() {
                done.is_late = true;
                break;
            }
            let (values, times) = (&sample.values, &sample.timestamps_unix_nano);
            if values.is_empty() && times.is_empty()
                || !values.is_empty() && !times.is_empty() && values.len() != times.len()
            {
                odd.push(sample);
                continue;
            }
            let is_timed = !times.is_empty() && !self.drop_timestamps;
            let mut group = Group::default();
            if is_timed {
                let value = |at| values.get(at).copied().unwrap_or(1);
                group.times = times.iter().enumerate().map(|(at, time)| (*time, value(at))).collect();
            } else if values.is_empty() {
                group.sum = times.len() as i128;
            } else {
                group.sum = values.iter().map(|value| i128::from(*value)).sum();
            }
            let mut attributes = sample.attribute_indices;
            attributes.sort_unstable();
            if groups.add((sample.stack_index, attributes, sample.link_index, is_timed), group) {
                done.merged += 1;
            }
        }
        (groups, odd)
    }

    /// The same with one stack for those that have too little of it.
    fn folded(&self, groups: Groups, done: &mut Aggregated, other: &mut dyn FnMut() -> i32) -> Groups {
        let mut weights: HashMap<i32, u128> = HashMap::new();
        let mut total = 0_u128;
        for ((stack, ..), group) in &groups.groups {
            let weight = group.weight();
            total = total.saturating_add(weight);
            let sum = weights.entry(*stack).or_default();
            *sum = sum.saturating_add(weight);
        }
        // Of a profile of nothing but zeros no stack has less than others.
        let least = total.saturating_mul(u128::from(self.other_below));
        let is_rare = |stack: i32| {
            let weight = weights.get(&stack).copied().unwrap_or_default();
            stack != 0 && weight.saturating_mul(u128::from(WHOLE)) < least
        };
        if !weights.keys().any(|stack| is_rare(*stack)) {
            return groups;
        }
        let other = other();
        let mut folded = Groups::default();
        for ((stack, attributes, link, is_timed), group) in groups.groups {
            let is_folded = stack != other && is_rare(stack);
            done.folded += u64::from(is_folded);
            let stack = if is_folded { other } else { stack };
            if folded.add((stack, attributes, link, is_timed), group) {
                done.merged += 1;
            }
        }
        folded
    }
}

/// The sample of a group; without values if all of its profile are `ones` with times.
fn sample((stack_index, attribute_indices, link_index, is_timed): Identity, group: Group, ones: bool) -> Sample {
    let mut times = group.times;
    times.sort_unstable();
    let values = if !is_timed {
        // What 64 bits cannot hold no receiver could read.
        vec![i64::try_from(group.sum).unwrap_or(if group.sum < 0 { i64::MIN } else { i64::MAX })]
    } else if ones {
        Vec::new()
    } else {
        times.iter().map(|(_, value)| *value).collect()
    };
    let timestamps_unix_nano = times.iter().map(|(time, _)| *time).collect();
    Sample { stack_index, attribute_indices, link_index, values, timestamps_unix_nano }
}

/// The stack of the one frame [`OTHER`], which is added if it is not there.
fn other_stack(dictionary: &mut ProfilesDictionary) -> i32 {
    let name = row(&mut dictionary.string_table, OTHER.to_owned());
    let key_strindex = row(&mut dictionary.string_table, FRAME_TYPE.to_owned());
    let value = Some(AnyValue { value: Some(Any::StringValue(OTHER_TYPE.to_owned())) });
    let kind = row(&mut dictionary.attribute_table, KeyValueAndUnit { key_strindex, value, unit_strindex: 0 });
    let function_index = row(&mut dictionary.function_table, Function { name_strindex: name, ..Function::default() });
    let location = Location {
        lines: vec![Line { function_index, ..Line::default() }],
        attribute_indices: vec![kind],
        ..Location::default()
    };
    let location = row(&mut dictionary.location_table, location);
    row(&mut dictionary.stack_table, Stack { location_indices: vec![location] })
}

/// The index of `wanted`, which is added if it is not there; the first row stands for none.
fn row<T: PartialEq + Default>(table: &mut Vec<T>, wanted: T) -> i32 {
    if table.is_empty() {
        table.push(T::default());
    }
    let at = table.iter().position(|known| *known == wanted).unwrap_or_else(|| {
        table.push(wanted);
        table.len() - 1
    });
    // More rows than OTLP can count do not fit into memory.
    i32::try_from(at).unwrap_or(0)
}

/// Makes one of all of `items` that have the same key, where the first of them was.
fn merge<T, K: Eq + Hash>(items: &mut Vec<T>, key: impl Fn(&T) -> K, mut add: impl FnMut(&mut T, T)) {
    let mut places: HashMap<K, usize> = HashMap::new();
    let mut merged: Vec<T> = Vec::with_capacity(items.len());
    for item in items.drain(..) {
        let place = *places.entry(key(&item)).or_insert(merged.len());
        match merged.get_mut(place) {
            Some(known) => add(known, item),
            None => merged.push(item),
        }
    }
    *items = merged;
}

fn merge_resources(request: &mut Request) {
    let none = Vec::new();
    let strings = request.dictionary.as_ref().map_or(&none, |dictionary| &dictionary.string_table);
    let of_resource = |of: &ResourceProfiles| {
        let mut resource = of.resource.clone().unwrap_or_default();
        resource.attributes.clear();
        let attributes = of.resource.as_ref().map_or(&[][..], |resource: &Resource| &resource.attributes);
        (sorted(attributes, strings), resource.encode_to_vec(), of.schema_url.clone())
    };
    merge(&mut request.resource_profiles, of_resource, |known, other| {
        known.scope_profiles.extend(other.scope_profiles)
    });
    for resource in &mut request.resource_profiles {
        let of_scope = |of: &ScopeProfiles| {
            let mut scope = of.scope.clone().unwrap_or_default();
            scope.attributes.clear();
            let attributes = of.scope.as_ref().map_or(&[][..], |scope: &InstrumentationScope| &scope.attributes);
            (sorted(attributes, strings), scope.encode_to_vec(), of.schema_url.clone())
        };
        merge(&mut resource.scope_profiles, of_scope, |known, other| known.profiles.extend(other.profiles));
        for scope in &mut resource.scope_profiles {
            let of_profile = |of: &Profile| {
                let mut attribute_indices = of.attribute_indices.clone();
                attribute_indices.sort_unstable();
                let head = Profile {
                    samples: Vec::new(),
                    profile_id: Vec::new(),
                    attribute_indices,
                    original_payload_format: of.original_payload_format.clone(),
                    original_payload: of.original_payload.clone(),
                    ..*of
                };
                head.encode_to_vec()
            };
            merge(&mut scope.profiles, of_profile, |known, other| {
                // What is of two is none of them.
                if known.profile_id != other.profile_id {
                    known.profile_id.clear();
                }
                known.samples.extend(other.samples);
            });
        }
    }
}

/// Attributes as bytes, whatever order they come in and wherever their texts are.
fn sorted(attributes: &[KeyValue], strings: &[String]) -> Vec<Vec<u8>> {
    let spelled = |attribute: &KeyValue| {
        let mut spelled = attribute.clone();
        crate::equal::spell(&mut spelled, strings);
        spelled.encode_to_vec()
    };
    let mut all: Vec<Vec<u8>> = attributes.iter().map(spelled).collect();
    all.sort_unstable();
    all
}
