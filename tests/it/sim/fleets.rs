//! What it is worth: a hundred fleets with finite capacity, each lived through twice, with forestall and without.

use std::ops::ControlFlow;
use std::sync::Arc;

use forestall::api::WebOptions;
use forestall::app::{App, Options};
use forestall::clock::Clock;
use forestall::model::Millis;
use forestall::plan::Mode;
use parking_lot::Mutex;

use super::chance::Chance;
use super::run;
use super::script::{Eyes, Rules, Step, settings};
use super::sight::Sight;
use super::target::{Site, Wire};
use super::world::{Kind, START, Scale, World};

const FLEETS: u64 = 100;
const INTERVAL: Millis = Millis(2 * Millis::MINUTE.0);
const LASTS: Millis = Millis(8 * Millis::HOUR.0);

/// What a fleet lost.
#[derive(Debug, Clone, Copy, Default)]
struct Loss {
    /// Expected loss, summed over components and passes.
    expected: f64,
    /// Minutes in breach × impact, summed over components.
    realised: f64,
}

/// Whether forestall is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Forestall {
    With,
    Without,
}

fn scale(seed: u64) -> Scale {
    let mut chance = Chance::new(seed, "fleet");
    Scale {
        deployments: chance.whole(12, 24) as usize,
        queues: chance.whole(4, 9) as usize,
        machines: chance.whole(3, 7) as usize,
        watches_machines: false,
        spare: chance.of(&[(0.1, 0.4), (0.2, 0.8), (0.5, 1.2)]),
        troubled: chance.between(0.3, 0.7),
        begins: (Millis::MINUTE * 20, Millis::HOUR * 6),
        sudden: 0.1,
        noise: (0.005, 0.04),
        others: 0.1,
        stubborn: 0.05,
        calm_from: START + LASTS,
    }
}

fn rules(kind: Kind) -> Rules {
    let step = |action| Step { action, port: "cluster" };
    Rules {
        kind,
        mode: Mode::Act,
        enter: 0.6,
        enter_for: 2,
        exit: 0.2,
        exit_for: 5,
        ladder: vec![step("scale_out"), step("shift_load")],
        evict: Some((1000, 0.3)),
        per: Millis::HOUR,
        actions_max: 10,
        share_max: 0.5,
        cooldown: Millis::MINUTE * 10,
        expires_after: Millis::HOUR,
        verify_after: Millis::MINUTE * 4,
        drop: 0.3,
        escalates: true,
    }
}

/// Lives through a fleet's hours.
async fn live(seed: u64, who: Forestall) -> Loss {
    let clock = Clock::simulated(START);
    let site = Arc::new(Site::new(seed, World::new(seed, &scale(seed)), clock.clone()));
    *site.wire.lock() = Wire { dropped: 0.02, reply_lost: 0.02, ..Wire::default() };
    let rules = [rules(Kind::Deployment), rules(Kind::Queue)];
    let settings = settings(&rules, INTERVAL, Millis::MINUTE * 10, Eyes::Ours);
    let options = Options { config_file: None, storage_path: None, web: WebOptions::default(), clock: clock.clone() };
    let app = App::from_settings(settings, options).expect("an app can be built in memory");
    let app = app.with_executor(|executor| site.executor(executor));
    let mut sight = Sight::new(seed);
    sight.false_alarms = 0.001;
    let mut loss = Loss::default();
    let mut at = START;
    while at < START + LASTS {
        at = at + INTERVAL;
        let seen = {
            let mut world = site.world.lock();
            world.others_act(0.0);
            world.advance(at);
            let in_breach = world.things.iter().filter(|thing| thing.utilisation(at) >= 1.0);
            loss.realised += in_breach.map(|thing| thing.impact).sum::<f64>() * INTERVAL.as_secs_f64() / 60.0;
            sight.see(&world, at)
        };
        loss.expected += seen.assessments.iter().map(|assessment| assessment.expected_loss).sum::<f64>();
        clock.set_to(at);
        if who == Forestall::With {
            app.pass_seeing(at, Some(seen)).await;
        }
    }
    loss
}

/// Each fleet's losses without forestall and with it.
fn all() -> Vec<(u64, Loss, Loss)> {
    let fleets = Mutex::new(Vec::new());
    run::in_parallel(0..FLEETS, |runtime, seed| {
        let without = runtime.block_on(live(seed, Forestall::Without));
        let with = runtime.block_on(live(seed, Forestall::With));
        fleets.lock().push((seed, without, with));
        ControlFlow::Continue(())
    });
    let mut fleets = fleets.into_inner();
    fleets.sort_by_key(|(seed, ..)| *seed);
    fleets
}

#[test]
fn a_hundred_fleets_lose_less_than_half_of_what_they_would() {
    let fleets = all();
    let worse = fleets.iter().filter(|(_, without, with)| with.expected > without.expected);
    let worse: Vec<String> = worse
        .map(|(seed, without, with)| {
            format!("fleet {seed} expects {:.2} without and {:.2} with", without.expected, with.expected)
        })
        .collect();
    assert!(worse.is_empty(), "{worse:#?}");
    let mut saved: Vec<f64> = fleets
        .iter()
        .filter(|(_, without, _)| without.realised > 0.0)
        .map(|(_, without, with)| 1.0 - with.realised / without.realised)
        .collect();
    saved.sort_by(f64::total_cmp);
    assert!(saved.len() >= 90, "only {} fleets lose anything without forestall", saved.len());
    let (median, worst, tenth) = (saved[saved.len() / 2], saved[0], saved[saved.len() / 10]);
    println!(
        "realised loss is lower by {:.0} % in the median of {} fleets, {:.0} % in the worst tenth, {:.0} % in the worst",
        median * 100.0,
        saved.len(),
        tenth * 100.0,
        worst * 100.0
    );
    assert!(median >= 0.6, "realised loss is lower by {:.1} % only in the median", median * 100.0);
}
