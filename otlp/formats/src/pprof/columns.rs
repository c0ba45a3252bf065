//! Which sample types of a pprof file hold what of the model.
//!
//! A file has one list of sample types, one period, and as many values on each sample as there are types. A measure that counts
//! samples has two columns: the count, and what it stands for (count x its own period), so that two periods of one measure add up
//! to the truth. Any other value has its own column. A comment says which columns are whose, for reading back; where samples of
//! two periods may share a row, that cannot be undone, and only what they stand for is read back.

use profiler_model::{Measured, Profile, Profiles, Sample, ValueType, Values, counts_samples};
use serde_json::{Value, json};

use crate::{
    error::Error,
    wire::{MAX_SAMPLES, check_count},
};

/// Begins the comment that says what the columns are.
pub(super) const MEASURE: &str = "profiler.measure: ";

/// A value of a profile and where it goes.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Of the sample's values.
    index: usize,
    column: usize,
    /// What one of it is worth there.
    worth: i64,
}

/// The layout of a file to be written.
#[derive(Debug)]
pub(super) struct Columns {
    pub types: Vec<ValueType>,
    pub period_type: ValueType,
    pub period: i64,
    pub default: Option<String>,
    /// By position of the profile.
    places: Vec<Vec<Place>>,
    /// Of each measure of which one profile is all: its position, and its columns.
    own: Vec<(usize, Vec<usize>)>,
}

/// The period, if values of `kind` in `part` are numbers of samples that are each worth one, and nothing else says what.
fn worth(part: &Profile, kind: &ValueType) -> Option<i64> {
    let known = part.period > 0 && !part.period_type.unit.is_empty() && part.sample_types.len() <= 1;
    (known && counts_samples(kind)).then_some(part.period)
}

impl Columns {
    pub fn of(profile: &Profiles) -> Self {
        let measured = profile.measured();
        let mut columns = Self {
            types: Vec::new(),
            period_type: ValueType::default(),
            period: 0,
            default: None,
            places: vec![Vec::new(); profile.profiles.len()],
            own: Vec::new(),
        };
        let shown = profile.shown_first();
        for (nth, measured) in measured.iter().enumerate() {
            let name = columns.add(profile, measured);
            if nth == shown {
                let scaled = measured.period() == 0;
                columns.period_type = measured.period_type().clone();
                columns.period = if scaled { 0 } else { measured.period() };
                columns.default = Some(name);
            }
        }
        let says = profile.profiles.iter().any(|part| part.default_sample_type.is_some());
        if measured.len() < 2 && !says {
            columns.default = None;
        }
        columns
    }

    /// Adds the columns of `measured`; the name of the one to be shown.
    fn add(&mut self, profile: &Profiles, measured: &Measured<'_>) -> String {
        let mut first = None;
        for (position, index) in measured.positions() {
            let nothing = Profile::default();
            let part = profile.profiles.get(position).unwrap_or(&nothing);
            let kind = part.sample_types.get(index).cloned().unwrap_or_else(|| ValueType::new("samples", "count"));
            let worth = worth(part, &kind);
            let columns = *first.get_or_insert_with(|| {
                // Two measures may both count samples; the second is told apart by what its samples stand for.
                let is_new = !self.types.contains(&kind) || worth.is_none();
                let count = is_new.then(|| self.push(kind.clone(), &part.source));
                (count, worth.map(|_| self.push(part.period_type.clone(), &part.source)))
            });
            let Some(places) = self.places.get_mut(position) else { continue };
            let of_count = columns.0.map(|column| Place { index, column, worth: 1 });
            let of_weight = columns.1.map(|column| Place { index, column, worth: worth.unwrap_or(0) });
            places.extend(of_count.into_iter().chain(of_weight));
        }
        let all: Vec<(usize, usize)> = measured.positions().collect();
        let (count, weight) = first.unwrap_or_default();
        if let ([(position, _)], true) = (all.as_slice(), profile.profiles.len() > 1 || !measured.source().is_empty())
            && profile.profiles.get(*position).is_some_and(|part| part.sample_types.len() == 1)
        {
            self.own.push((*position, count.into_iter().chain(weight).collect()));
        }
        weight.or(count).and_then(|column| self.types.get(column)).map_or_else(String::new, |kind| kind.kind.clone())
    }

    /// Adds a column. Readers choose columns by name: where the name is another's already, that of the source stands in, or a number
    /// tells them apart.
    fn push(&mut self, mut kind: ValueType, source: &str) -> usize {
        let is_free = |name: &str| self.types.iter().all(|known| known.kind != name);
        if !is_free(&kind.kind) {
            let mut numbered = (2_u32..).map(|number| format!("{}_{number}", kind.kind));
            let own = Some(source.to_owned()).filter(|source| !source.is_empty() && is_free(source));
            kind.kind = own.or_else(|| numbered.find(|name| is_free(name))).unwrap_or_default();
        }
        self.types.push(kind);
        self.types.len() - 1
    }

    /// The row of `sample` of the profile at `position`.
    pub fn values(&self, position: usize, sample: &Sample) -> Vec<i64> {
        let mut row = vec![0_i64; self.types.len()];
        for place in self.places.get(position).into_iter().flatten() {
            let value = sample.values.as_slice().get(place.index).copied().unwrap_or(0);
            if let Some(slot) = row.get_mut(place.column) {
                *slot = value.saturating_mul(place.worth);
            }
        }
        row
    }

    /// The comment that says what the columns are, if that cannot be seen.
    pub fn comment(&self, profile: &Profiles) -> Vec<String> {
        let pair = |kind: &ValueType| json!([kind.kind, kind.unit]);
        let one = |(position, columns): &(usize, Vec<usize>)| {
            let part = profile.profiles.get(*position)?;
            let of = json!({
                "columns": columns, "source": part.source, "type": pair(part.sample_types.first()?),
                "period_type": pair(&part.period_type), "period": part.period,
                "start": part.start_unix_nanos.to_string(), "duration": part.duration_nanos.to_string(),
            });
            Some(format!("{MEASURE}{of}"))
        };
        self.own.iter().filter_map(one).collect()
    }
}

/// A measure that a comment describes.
#[derive(Debug)]
pub(super) struct Described {
    profile: Profile,
    columns: Vec<usize>,
}

/// What `comment` says, if it is one that [`Columns::comment`] writes.
pub(super) fn described(comment: &str) -> Option<Described> {
    let of: Value = serde_json::from_str(comment.strip_prefix(MEASURE)?).ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let pair = |value: &Value| Some(ValueType { kind: text(value.get(0)?)?, unit: text(value.get(1)?)? });
    let number = |name: &str| of.get(name)?.as_str()?.parse().ok();
    let columns: Option<Vec<usize>> =
        of.get("columns")?.as_array()?.iter().map(|column| usize::try_from(column.as_u64()?).ok()).collect();
    let profile = Profile {
        start_unix_nanos: number("start")?,
        duration_nanos: number("duration")?,
        source: text(of.get("source")?)?,
        sample_types: vec![pair(of.get("type")?)?],
        default_sample_type: None,
        period_type: pair(of.get("period_type")?)?,
        period: of.get("period")?.as_i64()?,
        samples: Vec::new(),
    };
    Some(Described { profile, columns: columns? })
}

/// Takes `profile`, which has all columns of a file, apart into the measures that its comments describe. What fits no description
/// stays as it is.
pub(super) fn apart(profile: &mut Profiles, described: Vec<Described>) -> Result<(), Error> {
    let [whole] = profile.profiles.as_mut_slice() else { return Ok(()) };
    let mut taken = vec![false; whole.sample_types.len()];
    let mut parts = Vec::new();
    for Described { profile: part, columns } in described {
        let is_free = |column: &usize| taken.get(*column) == Some(&false);
        let worth = part.sample_types.first().and_then(|kind| worth(&part, kind));
        // The first column is the count, but where there is only what that stands for.
        let divisor = worth.filter(|_| columns.len() == 1).unwrap_or(1);
        if columns.is_empty() || !columns.iter().all(is_free) {
            continue;
        }
        for &column in &columns {
            if let Some(taken) = taken.get_mut(column) {
                *taken = true;
            }
        }
        parts.push((part, columns, divisor));
    }
    if parts.is_empty() {
        return Ok(());
    }
    let (mut count, mut labels) = (0, 0);
    let rest: Vec<usize> = (0..taken.len()).filter(|&column| taken.get(column) == Some(&false)).collect();
    let is_only = parts.len() == 1 && rest.is_empty();
    let default = whole.default_sample_type;
    for sample in std::mem::take(&mut whole.samples) {
        let value = |column: usize| sample.values.as_slice().get(column).copied().unwrap_or(0);
        for (part, columns, divisor) in &mut parts {
            let value = columns.first().map_or(0, |&column| value(column));
            if value != 0 || is_only {
                // A sample of many columns becomes many samples.
                count += 1;
                labels += sample.labels.as_ref().map_or(0, |labels| labels.len());
                check_count(count, MAX_SAMPLES, "samples")?;
                check_count(labels, MAX_SAMPLES, "labels")?;
                part.samples.push(Sample { values: Values::One(value / *divisor), ..sample.clone() });
            }
        }
        if rest.iter().any(|&column| value(column) != 0) {
            let values: Vec<i64> = rest.iter().map(|&column| value(column)).collect();
            let values = if let [only] = values.as_slice() { Values::One(*only) } else { Values::Many(values.into()) };
            whole.samples.push(Sample { values, ..sample });
        }
    }
    let mut whole = std::mem::take(whole);
    let kinds = std::mem::take(&mut whole.sample_types);
    whole.sample_types = rest.iter().filter_map(|&column| kinds.get(column).cloned()).collect();
    whole.default_sample_type = default.and_then(|default| rest.iter().position(|&column| column == default));
    // A file has one period, that of what it shows: where a measure apart has it, it is not the rest's.
    if parts.iter().any(|(part, ..)| part.period_type == whole.period_type && part.period == whole.period) {
        (whole.period_type, whole.period) = (ValueType::default(), 0);
    }
    if parts.len() > 1 || !rest.is_empty() {
        for (part, columns, _) in &mut parts {
            part.default_sample_type = default.filter(|default| columns.contains(default)).map(|_| 0);
        }
    }
    profile.profiles = parts.into_iter().map(|(part, ..)| part).collect();
    if !rest.is_empty() {
        profile.profiles.push(whole);
    }
    Ok(())
}
