//! What looks like many failures at once is one of something else: a bad rule, a scrape fault, a clock, Prometheus itself.

use forestall::model::Millis;
use forestall::plan::Mode;

use super::run::{Run, runtime};
use super::script::{Eyes, Rules, Script, Step};
use super::sight::{Fault, Spell};
use super::target::Wire;
use super::world::{Kind, START, Scale};

const INTERVAL: Millis = Millis::MINUTE;
/// The pass in which it happens.
const AT: u32 = 10;
/// Passes that are looked at from then on.
const FOR: u32 = 12;

/// What comes with the two components that are at risk from one pass on.
#[derive(Debug, Clone, Copy)]
enum Anomaly {
    Nothing,
    /// Half of the kind is at risk, not two.
    Half,
    /// Half of the kind falls silent.
    ScrapeFault,
    /// All of it falls silent.
    Outage,
    ClockStep(Millis),
}

fn script(anomaly: Anomaly) -> Script {
    let rules = Rules {
        kind: Kind::Deployment,
        mode: Mode::Act,
        enter: 0.6,
        enter_for: 1,
        exit: 0.2,
        exit_for: 3,
        ladder: vec![Step { action: "scale_out", port: "cluster" }],
        evict: None,
        per: Millis::HOUR,
        actions_max: 10,
        share_max: 1.0,
        cooldown: Millis::MINUTE * 3,
        expires_after: Millis::HOUR,
        verify_after: Millis::MINUTE,
        drop: 0.3,
        escalates: true,
    };
    let spell =
        |fault| Spell { from: START + INTERVAL * i64::from(AT), to: START + INTERVAL * i64::from(AT + FOR), fault };
    let at_risk = if matches!(anomaly, Anomaly::Half) { 5 } else { 2 };
    let mut spells = vec![spell(Fault::AtRisk(Kind::Deployment, at_risk))];
    match anomaly {
        Anomaly::ScrapeFault => spells.push(spell(Fault::HalfSilent(Kind::Deployment))),
        Anomaly::Outage => spells.push(spell(Fault::Outage)),
        Anomaly::Nothing | Anomaly::Half | Anomaly::ClockStep(_) => {}
    }
    Script {
        rules: vec![rules],
        scale: Scale {
            deployments: 10,
            queues: 0,
            machines: 3,
            watches_machines: false,
            spare: (3.0, 3.0),
            troubled: 0.0,
            begins: (Millis::ZERO, Millis::ZERO),
            sudden: 0.0,
            noise: (0.0, 0.0),
            others: 0.0,
            stubborn: 0.0,
            calm_from: START + Millis::DAY,
        },
        mass: None,
        interval: INTERVAL,
        start_hold: Millis::ZERO,
        passes: 0,
        wire: Wire::default(),
        spells,
        false_alarms: 0.0,
        people: 0.0,
        approves: 0.0,
        kills: 0.0,
        clock_steps: 0.0,
        disk_full: 0.0,
        eyes: Eyes::Ours,
    }
}

/// In how many of the passes from the anomaly on something is sent: in the first of them, and in all.
fn sends(anomaly: Anomaly) -> (usize, usize) {
    runtime().block_on(async {
        let mut run = Run::begin(7, script(anomaly));
        run.start();
        for _ in 1..AT {
            run.live(INTERVAL).await;
        }
        assert_eq!(run.sent(), 0, "{anomaly:?}: acts before anything is at risk");
        if let Anomaly::ClockStep(by) = anomaly {
            run.set_clock_ahead(by);
        }
        run.live(INTERVAL).await;
        let first = run.sent();
        for _ in 1..FOR {
            run.live(INTERVAL).await;
        }
        (first, run.sent())
    })
}

#[test]
fn a_mass_anomaly_is_acted_on_by_nobody() {
    let (first, all) = sends(Anomaly::Nothing);
    assert!(first >= 1 && all >= 2, "two components at risk are acted on: {first} at once, {all} in all");
    for anomaly in [Anomaly::Half, Anomaly::ScrapeFault, Anomaly::Outage] {
        assert_eq!(sends(anomaly), (0, 0), "{anomaly:?}");
    }
    for by in [Millis::HOUR * 3, Millis::ZERO - Millis::HOUR * 3] {
        let (first, all) = sends(Anomaly::ClockStep(by));
        assert_eq!(first, 0, "acts in the interval in which the clock was set by {by}");
        assert!(all >= 1, "never acts again after the clock was set by {by}");
    }
}
