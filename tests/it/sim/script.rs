//! What is drawn for a seed: the fleet's size, what policies say, how bad the world is, and when.

use std::fmt::Write as _;

use forestall::config::{self, Settings};
use forestall::model::{Millis, Timestamp};
use forestall::plan::Mode;

use super::chance::Chance;
use super::sight::{Fault, Spell};
use super::target::{PORTS, Wire};
use super::whole;
use super::world::{Episode, Kind, START, Scale};

/// One rung of a ladder.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) action: &'static str,
    pub(crate) port: &'static str,
}

/// What one policy says: for one kind of components.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) kind: Kind,
    pub(crate) mode: Mode,
    pub(crate) enter: f64,
    pub(crate) enter_for: u32,
    pub(crate) exit: f64,
    pub(crate) exit_for: u32,
    pub(crate) ladder: Vec<Step>,
    /// Only from below this priority, only for at least this impact.
    pub(crate) evict: Option<(i64, f64)>,
    pub(crate) per: Millis,
    pub(crate) actions_max: u32,
    pub(crate) share_max: f64,
    pub(crate) cooldown: Millis,
    pub(crate) expires_after: Millis,
    pub(crate) verify_after: Millis,
    pub(crate) drop: f64,
    pub(crate) escalates: bool,
}

impl Rules {
    /// How many actions the budget allows for a group of so many.
    pub(crate) fn budget(&self, group: usize) -> usize {
        share(self.share_max, group).max(self.actions_max as usize)
    }

    fn yaml(&self) -> String {
        let mut text = format!(
            "  - name: {kind}s\n    match: {{ kind: {kind} }}\n    mode: {mode}\n    \
             enter: {{ probability_above: {enter}, for: {enter_for} }}\n    \
             exit: {{ probability_below: {exit}, for: {exit_for} }}\n    \
             budget: {{ per: {per}, max_actions: {actions_max}, max_share: {share_max} }}\n    \
             cooldown: {cooldown}\n    expires_after: {expires_after}\n    \
             verify: {{ after: {verify_after}, expect: {{ probability_drop: {drop} }}, else: {or} }}\n    ladder:\n",
            kind = self.kind.name(),
            mode = word(self.mode),
            enter = self.enter,
            enter_for = self.enter_for,
            exit = self.exit,
            exit_for = self.exit_for,
            per = self.per,
            actions_max = self.actions_max,
            share_max = self.share_max,
            cooldown = self.cooldown,
            expires_after = self.expires_after,
            verify_after = self.verify_after,
            drop = self.drop,
            or = if self.escalates { "escalate" } else { "latch" },
        );
        for Step { action, port } in &self.ladder {
            let _ = writeln!(text, "      - {{ action: {action}, actuator: {port}, actuation_time: 1m }}");
        }
        if let Some((below, impact)) = self.evict {
            let _ = writeln!(text, "    evict: {{ below_priority: {below}, min_impact: {impact} }}");
        }
        text
    }
}

/// The whole part of a share, as limits by share are counted.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "small counts"
)]
pub(crate) fn share(share: f64, of: usize) -> usize {
    (share * of as f64 + 1e-9).floor() as usize
}

fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Observe => "observe",
        Mode::Approve => "approve",
        Mode::Act => "act",
    }
}

/// Whose eyes see the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Eyes {
    /// Ours: `sight` says what is thought of each component.
    Ours,
    /// Those of forestall, which is sent samples.
    Forestalls,
}

/// Settings as a user would write them.
pub(crate) fn settings(rules: &[Rules], interval: Millis, start_hold: Millis, eyes: Eyes) -> Settings {
    let mut main = format!(
        "global: {{ mode: act, evaluation_interval: {interval}, start_hold: {start_hold} }}\n\
         storage: {{ raw_retention: 1d }}\n\
         policy_files: [policies.yml]\nrule_files: [rules.yml]\nactuators:\n"
    );
    for port in PORTS {
        let _ = writeln!(main, "  {}: {{ dry_run: {{}} }}", port.name);
    }
    let policies: String = rules.iter().map(Rules::yaml).collect();
    let (rule_file, pools) = match eyes {
        Eyes::Ours => ("groups: []\n".to_owned(), String::new()),
        Eyes::Forestalls => (whole::rule_file(rules, interval), whole::pools(rules)),
    };
    let policies = format!("policies:\n{policies}{pools}");
    let files = [("forestall.yml", &*main), ("policies.yml", &policies), ("rules.yml", &rule_file)];
    let (settings, _) = config::load_str(&files).unwrap_or_else(|problems| panic!("{problems}"));
    settings
}

/// Everything that is drawn for a seed before its run begins.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) rules: Vec<Rules>,
    pub(crate) scale: Scale,
    /// Many components at once get this.
    pub(crate) mass: Option<(Kind, Episode)>,
    pub(crate) interval: Millis,
    pub(crate) start_hold: Millis,
    pub(crate) passes: u32,
    pub(crate) wire: Wire,
    pub(crate) spells: Vec<Spell>,
    pub(crate) false_alarms: f64,
    /// The share of passes in which somebody sets something by hand, and in which waiting actions are approved.
    pub(crate) people: f64,
    pub(crate) approves: f64,
    /// Shares of passes in which the process is killed, the clock set, the disk full.
    pub(crate) kills: f64,
    pub(crate) clock_steps: f64,
    pub(crate) disk_full: f64,
    pub(crate) eyes: Eyes,
}

impl Script {
    pub(crate) fn draw(seed: u64) -> Script {
        let mut chance = Chance::new(seed, "script");
        let interval = chance.of(&[Millis::SECOND * 30, Millis::MINUTE, Millis::MINUTE * 2, Millis::MINUTE * 3]);
        let passes = if chance.is(0.02) { chance.whole(60, 120) } else { chance.whole(8, 21) };
        let end = START + interval * i64::from(passes);
        let kinds: &[Kind] = match chance.whole(0, 10) {
            0..4 => &[Kind::Deployment],
            4..7 => &[Kind::Deployment, Kind::Queue],
            7..9 => &[Kind::Queue],
            _ => &Kind::ALL,
        };
        let rules = kinds.iter().map(|kind| draw_rules(&mut chance, *kind)).collect();
        let is = |kind| kinds.contains(&kind);
        let larger = if chance.is(0.05) { 3 } else { 1 };
        let scale = Scale {
            deployments: if is(Kind::Deployment) { chance.whole(2, 9) as usize * larger } else { 0 },
            queues: if is(Kind::Queue) { chance.whole(2, 7) as usize * larger } else { 0 },
            machines: chance.whole(1, 5) as usize,
            watches_machines: is(Kind::Node),
            spare: chance.of(&[(0.0, 0.05), (0.0, 0.05), (0.0, 0.3), (0.3, 1.5)]),
            troubled: chance.of(&[0.2, 0.4, 0.7]),
            begins: (Millis::ZERO, (end - START) / 2),
            sudden: 0.1,
            noise: (0.002, 0.02),
            others: chance.of(&[0.0, 0.2, 0.5]),
            stubborn: chance.of(&[0.0, 0.2, 0.6]),
            calm_from: end,
        };
        let mass = chance.is(0.1).then(|| {
            let start = START + (end - START) * i64::from(chance.whole(2, 6)) / 10;
            let episode = Episode {
                start,
                rise: Millis::MINUTE * i64::from(chance.whole(1, 20)),
                hold: Millis::MINUTE * 20,
                fall: Millis::MINUTE * 5,
                height: 1.5,
            };
            (chance.of(kinds), episode)
        });
        let wire = if chance.is(0.3) { Wire::default() } else { draw_wire(&mut chance) };
        let spells = (0..chance.whole(0, 3)).map(|_| draw_spell(&mut chance, kinds, end)).collect();
        let rare = |chance: &mut Chance, share: f64, rate: f64| if chance.is(share) { rate } else { 0.0 };
        Script {
            rules,
            scale,
            mass,
            interval,
            start_hold: chance.of(&[Millis::ZERO, Millis::MINUTE * 2, Millis::MINUTE * 5]),
            passes,
            wire,
            spells,
            false_alarms: chance.of(&[0.0, 0.005, 0.02]),
            people: rare(&mut chance, 0.4, 0.02),
            approves: chance.of(&[0.0, 0.3, 0.8]),
            kills: rare(&mut chance, 0.35, 0.1),
            clock_steps: rare(&mut chance, 0.15, 0.04),
            disk_full: rare(&mut chance, 0.1, 0.05),
            eyes: Eyes::Ours,
        }
    }

    /// Whether the run needs a journal that outlives a process.
    pub(crate) fn needs_files(&self) -> bool {
        self.kills > 0.0 || self.disk_full > 0.0
    }
}

fn draw_rules(chance: &mut Chance, kind: Kind) -> Rules {
    let port = chance.of(&["cluster", "cluster", "hook", "plain"]);
    let step = |action| Step { action, port };
    let ladder = match kind {
        Kind::Deployment => chance.of(&[&["scale_out"][..], &["scale_out", "migrate"], &["scale_out", "shift_load"]]),
        Kind::Queue => chance.of(&[&["scale_out"][..], &["scale_out", "shift_load"]]),
        Kind::Node => &["quarantine"],
    };
    let minutes = |chance: &mut Chance, of: &[i64]| Millis::MINUTE * chance.of(of);
    Rules {
        kind,
        mode: chance.of(&[Mode::Act, Mode::Act, Mode::Act, Mode::Act, Mode::Approve, Mode::Observe]),
        enter: chance.of(&[0.5, 0.6, 0.7]),
        enter_for: chance.whole(1, 4),
        exit: chance.of(&[0.1, 0.2, 0.3]),
        exit_for: chance.whole(1, 6),
        ladder: ladder.iter().copied().map(step).collect(),
        evict: chance.is(0.8).then(|| (chance.of(&[200, 300, 1000, 1000]), chance.of(&[0.0, 0.0, 0.3, 0.5]))),
        per: minutes(chance, &[10, 20, 60]),
        actions_max: chance.whole(1, 6),
        share_max: chance.of(&[0.0, 0.1, 0.5]),
        cooldown: minutes(chance, &[3, 10, 15]),
        expires_after: minutes(chance, &[10, 20, 30]),
        verify_after: minutes(chance, &[1, 3, 5]),
        drop: chance.of(&[0.1, 0.3]),
        escalates: chance.is(0.7),
    }
}

fn draw_wire(chance: &mut Chance) -> Wire {
    let mut share = |most: f64| if chance.is(0.5) { 0.0 } else { chance.between(0.0, most) };
    Wire {
        dropped: share(0.3),
        reply_lost: share(0.3),
        late: share(0.3),
        twice: share(0.2),
        refused: share(0.2),
        hangs: share(0.2),
        panics: share(0.02),
        pauses: share(0.1),
    }
}

fn draw_spell(chance: &mut Chance, kinds: &[Kind], end: Timestamp) -> Spell {
    let length = end - START;
    let from = START + length * i64::from(chance.whole(0, 90)) / 100;
    let to = from + length * i64::from(chance.whole(2, 40)) / 100;
    let fault = match chance.whole(0, 7) {
        0 => Fault::Outage,
        1 => Fault::Frozen,
        2 => Fault::NotANumber,
        3 => Fault::HalfSilent(chance.of(kinds)),
        4 => Fault::Vanished,
        5 => Fault::NoCapacity,
        _ => Fault::PartialCapacity,
    };
    Spell { from, to: to.min(end), fault }
}
