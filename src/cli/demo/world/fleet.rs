//! Who is in the fleet, and when who is in trouble.

use super::noise;

/// Minutes of a day.
pub(super) const DAY: i64 = 1440;

/// The hour after the start before which nothing fails: seasons are learned first.
const TROUBLE_FROM_HOUR: f64 = 108.0;

/// The hour after the start until which trouble is spread.
const TROUBLE_TO_HOUR: f64 = 186.0;

/// Growing seasons have their first peak that is too high between these hours: each fails once before the demo is
/// over, and whoever foresees the peak after that is not wrong about something that is never seen.
const SEASONAL_HOURS: (f64, f64) = (174.0, 189.0);

/// How a service behaves, and how it fails if it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A daily season whose peaks grow until they saturate the CPU.
    SeasonGrowth,
    /// A release leaks memory until the kernel kills it.
    MemoryLeak,
    /// A volume fills, half of it in bursts.
    DiskFill,
    /// Producers outgrow consumers.
    QueueBacklog,
    /// Each request costs more and more, so the slowest become too slow.
    LatencyCreep,
    /// All replicas spin from one minute to the next, without any sign before.
    SuddenCrash,
    /// Healthy: 86 % CPU every night, on purpose.
    NightlyBatch,
    /// Healthy: memory climbs and is collected.
    GcSawtooth,
    /// Healthy: a release doubles CPU and memory, and there they stay.
    LevelShift,
    /// Healthy: jumps about.
    Noisy,
    /// Healthy: each day's peak comes close to the limit.
    NearLimit,
    /// Healthy: after a restart the cache fills up, ever more slowly.
    CacheWarmup,
    /// Healthy: nothing to see.
    Steady,
}

impl Class {
    /// Its name, as the report prints it.
    pub fn name(self) -> &'static str {
        match self {
            Class::SeasonGrowth => "season growth",
            Class::MemoryLeak => "memory leak",
            Class::DiskFill => "disk fill",
            Class::QueueBacklog => "queue backlog",
            Class::LatencyCreep => "latency creep",
            Class::SuddenCrash => "sudden crash",
            Class::NightlyBatch => "nightly batch",
            Class::GcSawtooth => "gc sawtooth",
            Class::LevelShift => "level shift",
            Class::Noisy => "noisy",
            Class::NearLimit => "near limit",
            Class::CacheWarmup => "cache warm-up",
            Class::Steady => "steady",
        }
    }

    /// Whether a service of this class fails when nobody acts.
    pub fn fails(self) -> bool {
        self.has_precursor() || self == Class::SuddenCrash
    }

    /// Whether its failure can be seen coming.
    pub fn has_precursor(self) -> bool {
        use Class::{DiskFill, LatencyCreep, MemoryLeak, QueueBacklog, SeasonGrowth};
        matches!(self, SeasonGrowth | MemoryLeak | DiskFill | QueueBacklog | LatencyCreep)
    }
}

/// What is fixed about one service.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spec {
    /// Its namespace.
    pub namespace: &'static str,
    /// Its name.
    pub name: &'static str,
    /// How it behaves.
    pub class: Class,
    /// The pool it runs in.
    pub pool: &'static str,
    /// Higher matters more.
    pub priority: i64,
    /// How much its failure hurts, 0..1.
    pub impact: f64,
    /// Replicas at the start.
    pub replicas: u32,
    /// Requested cores for each replica.
    pub cpu: f64,
    /// Requested memory for each replica, GiB.
    pub memory_gib: f64,
    /// Size of each replica's volume, GiB; 0 where it has none.
    pub disk_gib: f64,
}

impl Spec {
    /// `namespace/name`.
    pub fn service(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Whether its failure can be prevented: it announces itself, and there is room or room can be made.
    pub fn preventable(&self) -> bool {
        self.class.has_precursor() && (self.pool != TIGHT || self.impact >= 0.5)
    }

    /// Whether it serves requests whose duration is measured.
    pub fn has_latency(&self) -> bool {
        self.class == Class::LatencyCreep || self.name == "checkout" || self.name == "gateway"
    }
}

/// The pool with room.
pub(super) const GENERAL: &str = "general";
/// The pool that is full.
pub(super) const TIGHT: &str = "tight";

/// Name, pool, allocatable cores, memory GiB and disk GiB of each node.
pub(super) const NODES: [(&str, &str, [f64; 3]); 12] = [
    ("general-1", GENERAL, [16.0, 60.0, 900.0]),
    ("general-2", GENERAL, [16.0, 60.0, 900.0]),
    ("general-3", GENERAL, [16.0, 60.0, 900.0]),
    ("general-4", GENERAL, [16.0, 60.0, 900.0]),
    ("general-5", GENERAL, [16.0, 60.0, 900.0]),
    ("general-6", GENERAL, [16.0, 60.0, 900.0]),
    ("general-7", GENERAL, [16.0, 60.0, 900.0]),
    ("general-8", GENERAL, [16.0, 60.0, 900.0]),
    ("general-9", GENERAL, [16.0, 60.0, 900.0]),
    ("tight-1", TIGHT, [15.1, 60.0, 200.0]),
    ("tight-2", TIGHT, [15.1, 60.0, 200.0]),
    ("tight-3", TIGHT, [15.1, 60.0, 200.0]),
];

/// All services. The tight pool's requests fill its nodes but for a tenth of a core.
pub const FLEET: &[Spec] = {
    use Class::*;
    &[
        general("shop", "checkout", SeasonGrowth, 1500, 0.9, 4, [1.0, 2.0, 0.0]),
        general("shop", "catalog", SeasonGrowth, 1200, 0.7, 3, [1.0, 2.0, 0.0]),
        general("media", "player", SeasonGrowth, 1000, 0.6, 4, [1.5, 3.0, 0.0]),
        general("search", "frontend", SeasonGrowth, 1100, 0.6, 3, [1.0, 2.0, 0.0]),
        general("core", "sessions", MemoryLeak, 1600, 0.8, 2, [1.0, 4.0, 0.0]),
        general("core", "profiles", MemoryLeak, 1000, 0.5, 3, [0.5, 2.0, 0.0]),
        general("core", "mailer", MemoryLeak, 600, 0.3, 2, [0.5, 2.0, 0.0]),
        general("core", "inventory", MemoryLeak, 1200, 0.6, 2, [1.0, 3.0, 0.0]),
        general("data", "orders-db", DiskFill, 1800, 0.9, 1, [2.0, 8.0, 200.0]),
        general("data", "search-index", DiskFill, 1000, 0.5, 2, [2.0, 6.0, 120.0]),
        general("data", "audit-log", DiskFill, 700, 0.4, 1, [1.0, 4.0, 150.0]),
        general("stream", "invoices", QueueBacklog, 1100, 0.6, 3, [0.5, 1.0, 0.0]),
        general("stream", "notifications", QueueBacklog, 700, 0.3, 3, [0.5, 1.0, 0.0]),
        general("stream", "shipments", QueueBacklog, 1000, 0.6, 4, [0.5, 1.0, 0.0]),
        general("stream", "clicks", QueueBacklog, 500, 0.2, 4, [0.5, 1.0, 0.0]),
        general("web", "accounts", LatencyCreep, 1300, 0.7, 3, [1.0, 2.0, 0.0]),
        general("web", "reviews", LatencyCreep, 800, 0.4, 3, [1.0, 2.0, 0.0]),
        general("web", "recommend", LatencyCreep, 900, 0.4, 4, [1.0, 2.0, 0.0]),
        general("web", "basket", LatencyCreep, 1400, 0.8, 3, [1.0, 2.0, 0.0]),
        general("shop", "coupons", SuddenCrash, 700, 0.3, 2, [0.5, 1.0, 0.0]),
        general("search", "suggest", SuddenCrash, 800, 0.4, 2, [1.0, 2.0, 0.0]),
        general("data", "warehouse", NightlyBatch, 400, 0.2, 2, [2.0, 6.0, 0.0]),
        general("media", "transcode", NightlyBatch, 400, 0.2, 3, [2.0, 3.0, 0.0]),
        general("core", "pricing", GcSawtooth, 1100, 0.6, 2, [1.0, 4.0, 0.0]),
        general("stream", "enricher", GcSawtooth, 800, 0.4, 2, [1.0, 4.0, 0.0]),
        general("web", "blog", LevelShift, 500, 0.2, 2, [0.5, 1.0, 0.0]),
        general("shop", "tax", LevelShift, 1000, 0.5, 2, [0.5, 1.0, 0.0]),
        general("search", "crawler", Noisy, 400, 0.2, 3, [1.0, 2.0, 0.0]),
        general("stream", "metrics", Noisy, 600, 0.3, 2, [1.0, 2.0, 0.0]),
        general("media", "images", NearLimit, 900, 0.5, 3, [1.0, 2.0, 0.0]),
        general("web", "gateway", NearLimit, 1700, 0.8, 4, [1.0, 2.0, 0.0]),
        general("core", "cache", CacheWarmup, 1200, 0.6, 2, [0.5, 6.0, 0.0]),
        general("search", "ranker", CacheWarmup, 900, 0.5, 2, [1.0, 6.0, 0.0]),
        general("web", "docs", Steady, 500, 0.2, 2, [0.5, 1.0, 0.0]),
        general("core", "auth", Steady, 1900, 0.9, 3, [1.0, 2.0, 0.0]),
        general("data", "catalog-db", Steady, 1500, 0.8, 1, [2.0, 8.0, 100.0]),
        tight("payments", SeasonGrowth, 2000, 0.95, 4, [2.0, 6.0]),
        tight("wallboard", SeasonGrowth, 100, 0.1, 3, [1.0, 2.0]),
        tight("reports", Steady, 200, 0.15, 5, [2.0, 6.0]),
        tight("exports", Steady, 300, 0.2, 4, [2.0, 6.0]),
        tight("ledger", Steady, 1800, 0.8, 4, [2.0, 6.0]),
        tight("fraud", Steady, 1500, 0.7, 4, [2.0, 6.0]),
    ]
};

const fn general(
    namespace: &'static str,
    name: &'static str,
    class: Class,
    priority: i64,
    impact: f64,
    replicas: u32,
    [cpu, memory_gib, disk_gib]: [f64; 3],
) -> Spec {
    Spec { namespace, name, class, pool: GENERAL, priority, impact, replicas, cpu, memory_gib, disk_gib }
}

const fn tight(
    name: &'static str,
    class: Class,
    priority: i64,
    impact: f64,
    replicas: u32,
    [cpu, memory_gib]: [f64; 2],
) -> Spec {
    let (pool, namespace) = (TIGHT, "pay");
    Spec { namespace, name, class, pool, priority, impact, replicas, cpu, memory_gib, disk_gib: 0.0 }
}

/// When a service is in trouble, in minutes after the start; the same in the twin, whatever is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Episode {
    /// The cause begins: the release, the new producer.
    pub(super) onset: i64,
    /// When it crosses its threshold if nobody acts, to within the noise. For a season: the peak that is too high.
    pub(super) fails: i64,
    /// The cause is gone: rolled back, over, cleaned up.
    pub(super) ends: i64,
}

/// The episode of each service, by its place in [`FLEET`]. Healthy services have one too: their shift or restart.
pub(super) fn episodes(seed: u64) -> Vec<Episode> {
    let mut hours: Vec<f64> = (0..FLEET.len()).map(|index| healthy_hour(seed, index)).collect();
    let failing = (0..FLEET.len()).filter(|&index| FLEET[index].class.fails());
    let (seasonal, others): (Vec<usize>, Vec<usize>) =
        failing.partition(|&index| FLEET[index].class == Class::SeasonGrowth);
    spread(seed, seasonal, SEASONAL_HOURS, &mut hours);
    spread(seed, others, (TROUBLE_FROM_HOUR, TROUBLE_TO_HOUR), &mut hours);
    hours.iter().enumerate().map(|(index, &hour)| episode(seed, index, minutes(hour * 60.0))).collect()
}

/// Gives each service an hour of its own, in an order drawn from the seed: trouble does not come all at once, because
/// a mass failure is another demo.
fn spread(seed: u64, mut services: Vec<usize>, (from, to): (f64, f64), hours: &mut [f64]) {
    let draw = |purpose: &str, index: usize| noise::unit(seed, noise::stream(purpose), index as u64);
    services.sort_by(|&a, &b| draw("order", a).total_cmp(&draw("order", b)));
    let slot = (to - from) / services.len() as f64;
    for (place, index) in services.into_iter().enumerate() {
        hours[index] = from + slot * (place as f64 + 0.4 * draw("jitter", index));
    }
}

/// When a healthy service is shifted or restarted: after the warm-up, before the last day.
fn healthy_hour(seed: u64, index: usize) -> f64 {
    noise::between(seed, noise::stream("healthy"), index as u64, TROUBLE_FROM_HOUR, 160.0)
}

fn episode(seed: u64, index: usize, fails: i64) -> Episode {
    let (ramp_low, ramp_high, rest_hours) = match FLEET[index].class {
        Class::MemoryLeak => (10.0, 18.0, 3),
        Class::DiskFill => (12.0, 20.0, 4),
        Class::QueueBacklog => (8.0, 14.0, 3),
        Class::LatencyCreep => (10.0, 16.0, 3),
        Class::SeasonGrowth => (0.0, 0.0, 24),
        Class::SuddenCrash => return Episode { onset: fails, fails, ends: fails + 45 },
        _ => (0.0, 0.0, 0),
    };
    let ramp = noise::between(seed, noise::stream("ramp"), index as u64, ramp_low, ramp_high);
    Episode { onset: fails - minutes(ramp * 60.0), fails, ends: fails + rest_hours * 60 }
}

/// Whole minutes of a small number of them.
#[expect(clippy::cast_possible_truncation, reason = "hours of a simulated week are small")]
fn minutes(minutes: f64) -> i64 {
    minutes.round() as i64
}
