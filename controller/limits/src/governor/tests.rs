use super::*;

use proptest::prelude::*;

const MIB: u64 = 1 << 20;

/// An agent whose costs are known.
#[derive(Clone, Copy, Debug)]
struct Agent {
    /// CPU seconds a second, whatever the rate.
    fixed_cpu: f64,
    /// CPU seconds a second that others have it spend, even when it pauses.
    foreign_cpu: f64,
    /// CPU seconds a sample and CPU.
    cpu_per_hz: f64,
    memory: u64,
    memory_per_hz: u64,
    names: u64,
    rows: u64,
    cpus: u32,
}

const MODEST: Agent = Agent {
    fixed_cpu: 0.001,
    foreign_cpu: 0.0,
    cpu_per_hz: 20e-6,
    memory: 20 * MIB,
    memory_per_hz: 0,
    names: 20 * MIB,
    rows: 20 * MIB,
    cpus: 4,
};

/// A life of the agent under a governor.
struct Life {
    agent: Agent,
    governor: Governor,
    now: Instant,
    cpu: f64,
    last: Decision,
    /// When each change was made, s since the start.
    changes: Vec<(u64, Decision)>,
    second: u64,
}

impl Life {
    fn new(agent: Agent, limits: Limits) -> Self {
        let last = Decision { cap: None, rate: 99, shed: None, reason: None, changed: false };
        Self {
            agent,
            governor: Governor::new(limits),
            now: Instant::now(),
            cpu: 0.0,
            last,
            changes: Vec::new(),
            second: 0,
        }
    }

    fn memory(&self) -> u64 {
        let rate = if self.last.shed == Some(Shed::Sampling) { 0 } else { self.last.rate };
        let names = if self.last.shed.is_none() { self.agent.names } else { 0 };
        let rows = if self.last.shed >= Some(Shed::RowCaches) { 0 } else { self.agent.rows };
        self.agent.memory + self.agent.memory_per_hz * rate + names + rows
    }

    fn cpu_a_second(&self) -> f64 {
        if self.last.shed == Some(Shed::Sampling) {
            return self.agent.foreign_cpu;
        }
        self.agent.foreign_cpu
            + self.agent.fixed_cpu
            + self.agent.cpu_per_hz * self.last.rate as f64 * f64::from(self.agent.cpus)
    }

    fn live(&mut self, seconds: u64, configured_rate: u64) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            self.second += 1;
            self.cpu += self.cpu_a_second();
            self.last = self.governor.observe(&Usage {
                memory_bytes: self.memory(),
                cpu_seconds: self.cpu,
                cpus: self.agent.cpus,
                now: self.now,
                asked_rate: configured_rate,
            });
            if self.last.changed {
                self.changes.push((self.second, self.last));
            }
        }
    }

    fn share(&self) -> f64 {
        self.cpu_a_second() / f64::from(self.agent.cpus)
    }
}

fn cpu(fraction: f64) -> Limits {
    Limits { cpu_fraction: Some(fraction), memory_bytes: None }
}

fn memory(mib: u64) -> Limits {
    Limits { cpu_fraction: None, memory_bytes: Some(mib * MIB) }
}

#[test]
fn without_limits_nothing_is_restricted() {
    let mut life = Life::new(Agent { fixed_cpu: 100.0, memory: u64::MAX / 8, ..MODEST }, Limits::default());
    life.live(1000, 99);
    assert_eq!((life.last.rate, life.last.shed, life.changes.len()), (99, None, 0));
}

#[test]
fn within_budget_nothing_is_restricted() {
    let mut life = Life::new(MODEST, Limits { memory_bytes: Some(128 * MIB), cpu_fraction: Some(0.02) });
    life.live(1000, 99);
    assert_eq!(life.changes, []);
}

#[test]
fn over_its_cpu_budget_it_lowers_the_rate_and_nothing_else() {
    // 99 Hz costs 0.2 %, and 0.1 % is allowed.
    let mut life = Life::new(MODEST, cpu(0.001));
    life.live(600, 99);
    assert!(life.last.rate < 50 && life.last.rate > 25, "{:?}", life.last);
    assert_eq!(life.last.shed, None);
    assert!(life.share() <= 0.001 && life.share() > 0.0005, "{}", life.share());
    assert!(life.changes.iter().all(|(_, decision)| decision.reason.is_some()));
    let said = life.changes[0].1.to_string();
    assert!(said.contains("0.10 % allowed") && said.contains("samples at"), "{said}");
}

#[test]
fn a_cpu_budget_that_the_floor_exceeds_pauses() {
    let mut life = Life::new(Agent { fixed_cpu: 0.1, ..MODEST }, cpu(0.001));
    life.live(40, 99);
    assert_eq!(life.last.shed, Some(Shed::Sampling));
    let before_pause = life.changes[life.changes.len() - 2].1;
    assert_eq!((before_pause.rate, before_pause.shed), (FLOOR_HZ, None));
}

#[test]
fn over_its_memory_budget_it_lowers_the_rate_then_sheds_in_order() {
    let steps = |mib| {
        let mut life = Life::new(MODEST, memory(mib));
        life.live(120, 99);
        let mut steps: Vec<_> = life.changes.iter().map(|(_, decision)| decision.shed).collect();
        steps.dedup();
        (steps, life.memory() <= mib * MIB)
    };
    // The agent has 60 MiB: 20 of names, 20 of rows.
    assert_eq!(steps(50), (vec![None, Some(Shed::SymbolCaches)], true));
    assert_eq!(steps(25), (vec![None, Some(Shed::SymbolCaches), Some(Shed::RowCaches)], true));
    let (all, within) = steps(10);
    assert_eq!(all, [None, Some(Shed::SymbolCaches), Some(Shed::RowCaches), Some(Shed::Sampling)]);
    assert!(!within);
}

#[test]
fn it_comes_back_when_there_is_room() {
    let mut life = Life::new(Agent { fixed_cpu: 0.1, ..MODEST }, cpu(0.001));
    life.live(60, 99);
    assert_eq!(life.last.shed, Some(Shed::Sampling));
    life.agent.fixed_cpu = 0.0;
    life.agent.cpu_per_hz = 1e-6;
    life.live(3 * 3600, 99);
    assert_eq!((life.last.rate, life.last.shed, life.last.reason), (99, None, None));
}

/// Pressure of several kinds and strengths: CPU time that no rate brings down, CPU time that a lower rate brings down, memory.
#[test]
fn the_rate_is_back_within_ten_seconds_of_the_end_of_the_pressure_and_stays() {
    let limits = Limits { memory_bytes: Some(100 * MIB), cpu_fraction: Some(0.01) };
    let pressures = [
        ("far over, whatever the rate", Agent { foreign_cpu: 1.0, ..MODEST }),
        ("a little over, whatever the rate", Agent { foreign_cpu: 0.06, ..MODEST }),
        ("over by the rate", Agent { cpu_per_hz: 200e-6, ..MODEST }),
        ("far over its memory", Agent { memory: 300 * MIB, ..MODEST }),
        ("over its memory", Agent { memory: 70 * MIB, ..MODEST }),
    ];
    for (name, pressure) in pressures {
        for seconds in (20..30).chain([60, 300, 3600]) {
            let mut life = Life::new(MODEST, limits);
            life.live(60, 99);
            assert_eq!(life.changes, [], "{name}");
            life.agent = pressure;
            life.live(seconds, 99);
            let before = life.changes.len();
            assert!(life.last.rate < 99, "{name}, {seconds} s: {:?}", life.last);
            life.agent = MODEST;
            life.live(10, 99);
            assert_eq!((life.last.rate, life.last.shed), (99, None), "{name}, {seconds} s: {:?}", life.changes);
            let back = life.changes.len();
            assert!(back - before <= 4, "{name}, {seconds} s: {:?}", life.changes);
            life.live(3600, 99);
            assert_eq!(life.changes.len(), back, "{name}, {seconds} s: {:?}", life.changes);
        }
    }
}

#[test]
fn what_was_over_and_is_no_more_costs_no_samples() {
    let mut life = Life::new(MODEST, cpu(0.01));
    life.live(60, 99);
    // Enough to be over by the last ten seconds for ten seconds, and of the last two only for two.
    life.agent.foreign_cpu = 0.9;
    life.live(1, 99);
    life.agent.foreign_cpu = 0.0;
    life.live(60, 99);
    let restricted: Vec<u64> =
        life.changes.iter().filter(|(_, d)| d.reason.is_some()).map(|(second, _)| *second).collect();
    assert!(restricted.iter().all(|second| *second <= 63), "{:?}", life.changes);
    assert_eq!(life.last.rate, 99);
}

#[test]
fn attempts_that_fail_become_rare() {
    // Names alone are over the budget: shedding them brings calm, giving them back does not.
    let mut life = Life::new(Agent { memory: 10 * MIB, rows: 0, names: 100 * MIB, ..MODEST }, memory(64));
    life.live(6 * 3600, 99);
    let attempts: Vec<u64> =
        life.changes.iter().filter(|(_, decision)| decision.shed.is_none()).map(|(second, _)| *second).collect();
    let late = attempts.iter().filter(|&&second| second > 3 * 3600).count();
    assert!((1..=3 * 3600 / (16 * 60) + 1).contains(&late), "{attempts:?}");
}

#[test]
fn a_lower_configured_rate_counts_at_once() {
    let mut life = Life::new(MODEST, Limits::default());
    life.live(5, 99);
    life.live(1, 19);
    assert_eq!((life.last.rate, life.last.changed), (19, true));
    life.live(1, 19);
    assert!(!life.last.changed);
}

#[test]
fn clocks_and_counters_that_go_back_are_no_reason() {
    let mut governor = Governor::new(cpu(0.01));
    let start = Instant::now() + Duration::from_secs(1000);
    for step in 0..300u64 {
        let back = Duration::from_secs(step % 7);
        let decision = governor.observe(&Usage {
            memory_bytes: 0,
            cpu_seconds: if step % 11 == 0 { 0.0 } else { 0.001 * step as f64 },
            cpus: 0,
            now: start + Duration::from_secs(step) - back,
            asked_rate: 99,
        });
        assert_eq!((decision.rate, decision.shed), (99, None));
    }
}

fn agents() -> impl Strategy<Value = Agent> {
    (0.0..0.05f64, 0.0..1e-3f64, 0..100u64, 0..MIB, 0..100u64, 0..100u64, 1..64u32).prop_map(
        |(fixed_cpu, cpu_per_hz, memory, memory_per_hz, names, rows, cpus)| Agent {
            fixed_cpu,
            foreign_cpu: 0.0,
            cpu_per_hz,
            memory: memory * MIB,
            memory_per_hz,
            names: names * MIB,
            rows: rows * MIB,
            cpus,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is measured: never above the configured rate, never below the floor, no restriction within the dwell and nothing given
    /// back within the recovery of the last change, each change one step.
    #[test]
    fn decisions_are_bounded_and_slow(
        limit_memory in proptest::option::of(0..200 * MIB),
        limit_cpu in proptest::option::of(0.0..0.1f64),
        looks in proptest::collection::vec((0..300 * MIB, 0.0..2.0f64, 1..500u64), 1..600),
        configured in 1..1000u64,
    ) {
        let mut governor = Governor::new(Limits { memory_bytes: limit_memory, cpu_fraction: limit_cpu });
        let mut now = Instant::now();
        let mut used = 0.0;
        let mut last_change: Option<Instant> = None;
        let mut last_level = 0;
        let mut last_rate = configured;
        for (memory_bytes, cpu, step_ms) in looks {
            now += Duration::from_millis(step_ms * 10);
            used += cpu;
            let usage = Usage { memory_bytes, cpu_seconds: used, cpus: 2, now, asked_rate: configured };
            let decision = governor.observe(&usage);
            prop_assert!(decision.rate <= configured);
            prop_assert_eq!(decision.rate, decision.cap.map_or(configured, |cap| cap.min(configured)));
            prop_assert!(decision.rate >= configured.min(FLOOR_HZ));
            let level = decision.shed.map_or(0, Shed::level);
            if decision.changed {
                if let Some(last) = last_change {
                    let restricts = level > last_level || decision.rate < last_rate;
                    let least = if restricts { MIN_DWELL } else { RECOVERY };
                    prop_assert!(now.duration_since(last) >= least);
                }
                last_change = Some(now);
            } else {
                prop_assert_eq!(level, last_level);
            }
            // Nothing is shed before the rate is at its floor.
            if level > last_level {
                prop_assert_eq!(decision.rate, configured.min(FLOOR_HZ));
            }
            last_level = level;
            last_rate = decision.rate;
        }
    }

    /// With steady costs it comes to rest within the budget, unless even the floor is over it.
    #[test]
    fn steady_costs_come_to_rest(agent in agents(), fraction in 0.0001..0.05f64, configured in 1..400u64) {
        let mut life = Life::new(agent, cpu(fraction));
        life.live(3600, configured);
        let changes = life.changes.len();
        let floor = agent.fixed_cpu / f64::from(agent.cpus) + agent.cpu_per_hz * configured.min(FLOOR_HZ) as f64;
        if floor <= fraction * 0.999 {
            prop_assert!(life.share() <= fraction * 1.001, "{:?}: {} of {fraction}", life.last, life.share());
            prop_assert_eq!(life.last.shed, None);
            life.live(3600, configured);
            prop_assert_eq!(life.changes.len(), changes, "{:?}", life.changes.last());
        }
    }

    /// When nothing is used any more, everything comes back.
    #[test]
    fn everything_comes_back(agent in agents(), mib in 1..150u64, fraction in 0.0001..0.05f64, configured in 1..400u64) {
        let mut life = Life::new(agent, Limits { memory_bytes: Some(mib * MIB), cpu_fraction: Some(fraction) });
        life.live(1800, configured);
        life.agent = Agent { fixed_cpu: 0.0, cpu_per_hz: 0.0, memory: 0, memory_per_hz: 0, names: 0, rows: 0, ..agent };
        life.live(8 * 3600, configured);
        prop_assert_eq!((life.last.rate, life.last.shed, life.last.reason), (configured, None, None));
    }
}
