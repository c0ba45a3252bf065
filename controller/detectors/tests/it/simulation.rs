//! A service that is sampled: functions with true shares, and the noise of sampling.

use profiler_detectors::{Config, Detector, Event, Kind, Observation, SECOND};

/// Numbers that are the same in every run: xoshiro256++, seeded by splitmix64.
pub struct Random([u64; 4]);

impl Random {
    pub fn new(mut seed: u64) -> Self {
        Self([0; 4].map(|_: u64| {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }))
    }

    pub fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// From 0 up to 1, without it.
    pub fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    #[allow(dead_code, reason = "the example needs no such noise")]
    /// Of a normal distribution (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.uniform()).ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// Draws functions by their shares, each in constant time (Walker's alias method, as Vose has it).
pub struct Service {
    shares: Vec<f64>,
    keep: Vec<f64>,
    alias: Vec<usize>,
}

impl Service {
    /// Functions with these shares.
    pub fn new(weights: &[f64]) -> Self {
        let sum: f64 = weights.iter().sum();
        let shares: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
        let mut keep: Vec<f64> = shares.iter().map(|share| share * shares.len() as f64).collect();
        let mut alias: Vec<usize> = (0..shares.len()).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = alias.iter().partition(|&&at| keep[at] < 1.0);
        while let (Some(less), Some(&more)) = (small.pop(), large.last()) {
            alias[less] = more;
            keep[more] -= 1.0 - keep[less];
            if keep[more] < 1.0 {
                large.pop();
                small.push(more);
            }
        }
        Self { shares, keep, alias }
    }

    /// `functions` functions, the n-th of which has 1/n of the share of the first.
    pub fn zipf(functions: usize) -> Self {
        let weights: Vec<f64> = (1..=functions).map(|rank| 1.0 / rank as f64).collect();
        Self::new(&weights)
    }

    pub fn shares(&self) -> &[f64] {
        &self.shares
    }

    /// Adds `total` samples to `counts`.
    pub fn sample(&self, total: u64, counts: &mut [u64], random: &mut Random) {
        for _ in 0..total {
            let draw = random.uniform() * self.keep.len() as f64;
            let at = draw as usize;
            counts[if draw - (at as f64) < self.keep[at] { at } else { self.alias[at] }] += 1;
        }
    }
}

/// False events of `config` on `seconds` of steady load, the first ten minutes (in which all is learned) included.
pub fn false_events(config: &Config, service: &Service, total: u64, seconds: u64, seed: u64) -> Vec<(usize, Event)> {
    let mut random = Random::new(seed);
    let detector = Detector::new(config).expect("a right configuration");
    let mut detectors = vec![detector; service.shares().len()];
    let mut counts = vec![0; detectors.len()];
    let mut events = Vec::new();
    for second in 0..seconds {
        counts.fill(0);
        service.sample(total, &mut counts, &mut random);
        for (function, (detector, count)) in detectors.iter_mut().zip(&counts).enumerate() {
            let share = Observation::share(second * SECOND, *count, total).expect("a share");
            let judgement = detector.observe(&share).expect("in order");
            events.extend(judgement.event.filter(|event| event.kind == Kind::Changed).map(|event| (function, event)));
        }
    }
    events
}

/// A change of one function's share.
#[derive(Clone, Copy)]
pub struct Change {
    pub before: f64,
    pub after: f64,
    /// Samples a second of the whole service.
    pub total: u64,
    /// Seconds of steady load before.
    pub steady: u64,
}

/// Seconds from the change to its event, in each of `trials`, sorted; what is not told within `patience` is infinite, and so is what is told
/// before it is there.
pub fn delays(config: &Config, change: Change, trials: u64, patience: u64, seed: u64) -> Vec<f64> {
    let mut delays: Vec<f64> = (0..trials)
        .map(|trial| {
            let mut random = Random::new(seed ^ (trial << 32));
            let mut detector = Detector::new(config).expect("a right configuration");
            for second in 0..change.steady + patience {
                let truth = if second < change.steady { change.before } else { change.after };
                let count = (0..change.total).filter(|_| random.uniform() < truth).count() as u64;
                // Each observation is of the second before its time.
                let time = (second + 1) * SECOND;
                let share = Observation::share(time, count, change.total).expect("a share");
                if detector.observe(&share).expect("in order").event.is_some() {
                    let is_true = second >= change.steady;
                    return if is_true { (second + 1 - change.steady) as f64 } else { f64::INFINITY };
                }
            }
            f64::INFINITY
        })
        .collect();
    delays.sort_by(f64::total_cmp);
    delays
}

/// The delay that `share` of all are not above.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = (share * sorted.len() as f64).ceil() as usize;
    sorted[at.clamp(1, sorted.len()) - 1]
}
