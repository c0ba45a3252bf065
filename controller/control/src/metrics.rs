//! The server's own metrics, as Prometheus reads them.

use std::fmt::Write;

use crate::{
    core::{Core, Counters},
    rollout::{Counts, Phase},
};

/// All of them.
pub(crate) fn page(core: &mut Core, now: i64) -> String {
    let under_way: Vec<_> = core.rollouts().filter(|rollout| rollout.is_under_way()).cloned().collect();
    // How those that somebody may have to look at get on. There are few of them.
    let counts: Vec<_> =
        under_way.iter().filter_map(|rollout| Some((rollout.id, core.counts(rollout, now).ok()?))).collect();
    let core = &*core;
    let mut page = String::new();
    let (mut connected, mut gone, mut unhealthy) = (0_u64, 0_u64, 0_u64);
    for (_, member) in core.members() {
        *(if member.connected { &mut connected } else { &mut gone }) += 1;
        unhealthy += u64::from(member.connected && member.healthy == Some(false));
    }
    let mut family = |name: &str, kind: &str, help: &str, values: &[(&str, u64)]| {
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(page, "{name}{labels} {value}");
        }
    };
    let agents = [(r#"{state="connected"}"#, connected), (r#"{state="gone"}"#, gone)];
    family("profiler_control_agents", "gauge", "Agents that are known.", &agents);
    let help = "Agents that are connected and say that they are not well.";
    family("profiler_control_agents_unhealthy", "gauge", help, &[("", unhealthy)]);
    let phase = |phase: Phase| core.rollouts().filter(|rollout| rollout.phase == phase).count() as u64;
    let rollouts = [
        (r#"{phase="running"}"#, phase(Phase::Running)),
        (r#"{phase="paused"}"#, phase(Phase::Paused)),
        (r#"{phase="done"}"#, phase(Phase::Done)),
        (r#"{phase="reverted"}"#, phase(Phase::Reverted)),
    ];
    family("profiler_control_rollouts", "gauge", "Rollouts.", &rollouts);
    let states = counts.iter().flat_map(|(id, counts)| {
        let Counts { eligible, assigned, waiting, well, unhealthy, failed, lost, left } = *counts;
        let all = [
            ("eligible", eligible),
            ("assigned", assigned),
            ("waiting", waiting),
            ("well", well),
            ("unhealthy", unhealthy),
            ("failed", failed),
            ("lost", lost),
            ("left", left),
        ];
        all.map(|(state, count)| (format!(r#"{{rollout="{id}",state="{state}"}}"#), count as u64))
    });
    let states: Vec<_> = states.collect();
    let states: Vec<_> = states.iter().map(|(labels, count)| (labels.as_str(), *count)).collect();
    let help = "Agents of rollouts that run or are paused. All that it is for are eligible; of those that are to have the revision each is in one of the other states.";
    family("profiler_control_rollout_agents", "gauge", help, &states);
    let Counters { reports, unauthorized, forbidden, stolen, too_many, failed, lost_writes } = core.counters;
    for (name, help, value) in [
        ("reports", "Messages of agents.", reports),
        ("unauthorized", "Requests without a good token.", unauthorized),
        ("forbidden", "Requests that a role did not allow.", forbidden),
        ("stolen_names", "Messages in the name of an agent that came by a token of another name.", stolen),
        ("too_many", "Messages of agents that were too many and not taken.", too_many),
        ("config_failures", "Configurations that agents reported FAILED.", failed),
        ("lost_writes", "Writes that the database did not take.", lost_writes),
    ] {
        family(&format!("profiler_control_{name}_total"), "counter", help, &[("", value)]);
    }
    page
}
