//! The physics of one service: load and trouble come from outside, what they do depends on what the service has.

use super::fleet::{Class, DAY, Episode, Spec};
use super::noise;
use super::room::{Amounts, CPU, DISK, Effect, GIB, MEMORY};

/// Limits are this many times the requests.
pub(super) const HEADROOM: f64 = 1.25;

/// Upper bounds of the request duration histogram, seconds; the last bucket is +Inf. Threshold 0.5 is among them.
pub(super) const BUCKETS: [f64; 7] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0];

/// A service whose CPU is this busy answers no faster or slower than this: the queue in front of it is bounded.
const BUSY_MAX: f64 = 0.97;

/// The latency at which the creeping services breach, seconds; the rules say the same.
const LATENCY_THRESHOLD: f64 = 0.5;

/// Burst of a filling disk: so many minutes of each [`BURST_PERIOD`] carry as much as all of it does steadily.
const BURST: i64 = 5;
const BURST_PERIOD: i64 = 45;

/// Where each signal stands, in the unit of its rule; what a service does not have is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Levels {
    /// CPU use over its limit.
    pub(super) cpu: f64,
    /// Memory of the worst replica over its limit.
    pub(super) memory: f64,
    /// Used share of the volume.
    pub(super) disk: Option<f64>,
    /// Backlog over its limit.
    pub(super) queue: Option<f64>,
    /// The 99th percentile of request duration, seconds.
    pub(super) latency: Option<f64>,
}

/// One process.
#[derive(Debug, Clone, Copy)]
struct Replica {
    /// Minutes since it started.
    age: i64,
    /// Leaked bytes.
    leaked: f64,
}

/// What is drawn once for a service.
#[derive(Debug, Clone, Copy)]
struct Traits {
    /// Seeds its noise.
    stream: u64,
    /// Growth of daily peaks, as a share of the threshold.
    growth: f64,
    /// By how much producers exceed consumers.
    excess: f64,
    /// Phase of its day, minutes.
    phase: i64,
    /// Period of its collector, or length of its batch, minutes.
    period: i64,
    /// Its usual level, 0..1 of the class's range.
    level: f64,
}

/// One service of a world.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub(super) spec: &'static Spec,
    pub(super) levels: Levels,
    /// Counter: core seconds.
    pub(super) cpu_seconds: f64,
    /// Counters: requests up to each bound of [`BUCKETS`], then all.
    pub(super) requests: [f64; BUCKETS.len() + 1],
    /// Share of its traffic that goes elsewhere.
    pub(super) shifted: f64,
    /// Replicas that were taken from it.
    pub(super) evicted: usize,
    seed: u64,
    episode: Episode,
    traits: Traits,
    replicas: Vec<Replica>,
    cpu_noise: f64,
    memory_noise: f64,
    backlog: f64,
}

impl Service {
    pub(super) fn new(seed: u64, spec: &'static Spec, episode: Episode) -> Service {
        let stream = noise::stream(&spec.service());
        let draw = |index: u64, low: f64, high: f64| noise::between(seed, stream ^ 1, index, low, high);
        let whole = |index: u64, low: f64, high: f64| whole(draw(index, low, high));
        let period = if spec.class == Class::GcSawtooth { whole(3, 150.0, 260.0) } else { whole(3, 150.0, 210.0) };
        let traits = Traits {
            stream,
            growth: draw(0, 0.09, 0.11),
            excess: draw(1, 0.06, 0.1),
            phase: whole(2, 0.0, 1440.0),
            period,
            level: draw(4, 0.0, 1.0),
        };
        Service {
            spec,
            levels: Levels::default(),
            cpu_seconds: 0.0,
            requests: [0.0; BUCKETS.len() + 1],
            shifted: 0.0,
            evicted: 0,
            seed,
            episode,
            traits,
            replicas: vec![Replica { age: 30 * DAY, leaked: 0.0 }; spec.replicas as usize],
            cpu_noise: 0.0,
            memory_noise: 0.0,
            backlog: 0.0,
        }
    }

    /// What a change of where it runs does to its processes.
    pub(super) fn take_effect(&mut self, effect: &Effect) {
        for &place in &effect.removed {
            self.replicas.remove(place);
        }
        for &place in &effect.restarted {
            self.replicas[place] = Replica { age: 0, leaked: 0.0 };
        }
        self.replicas.extend(std::iter::repeat_n(Replica { age: 0, leaked: 0.0 }, effect.added));
        if effect.restarted.len() == self.replicas.len() {
            self.cpu_seconds = 0.0;
        }
    }

    /// Lives through one minute with what its replicas request.
    pub(super) fn live(&mut self, minute: i64, requests: &Amounts) {
        self.draw_noise(minute);
        self.release(minute);
        let size = self.replicas.len() as f64 * requests[CPU] / (f64::from(self.spec.replicas) * self.spec.cpu);
        let kept = 1.0 - self.shifted;
        let cpu = match self.spec.class {
            Class::QueueBacklog => self.work_off_queue(minute, kept, size),
            Class::SuddenCrash if self.in_trouble(minute) => 0.985,
            Class::Noisy => self.demand(minute) * kept / size,
            _ => self.demand(minute) * kept * self.cost_of_request(minute) / size,
        };
        self.levels.cpu = cpu.clamp(0.005, 1.0);
        self.levels.memory = self.grow_memory(minute, requests[MEMORY] * HEADROOM);
        self.levels.disk = (requests[DISK] > 0.0).then(|| {
            let used = self.disk_share(minute) * self.spec.disk_gib * GIB;
            (used / requests[DISK]).min(1.0)
        });
        self.levels.queue = (self.spec.class == Class::QueueBacklog)
            .then(|| (self.backlog + 0.02 + 0.004 * self.memory_noise).clamp(0.0, 1.0));
        self.serve_requests(minute, kept);
        self.cpu_seconds += 60.0 * self.levels.cpu * HEADROOM * requests[CPU] * self.replicas.len() as f64;
    }

    /// The bytes that the worst replica has.
    pub(super) fn memory_bytes(&self, memory_request: f64) -> f64 {
        self.levels.memory * memory_request * HEADROOM
    }

    /// The bytes on each volume.
    pub(super) fn disk_bytes(&self, disk_request: f64) -> f64 {
        self.levels.disk.unwrap_or(0.0) * disk_request
    }

    fn in_trouble(&self, minute: i64) -> bool {
        self.episode.onset <= minute && minute < self.episode.ends
    }

    /// Autocorrelated noise of deviation 1, from the minute's own draws: the same whatever was done to the service.
    fn draw_noise(&mut self, minute: i64) {
        let index = minute.unsigned_abs();
        self.cpu_noise = 0.8 * self.cpu_noise + 0.6 * noise::normal(self.seed, self.traits.stream ^ 2, index);
        self.memory_noise = 0.8 * self.memory_noise + 0.6 * noise::normal(self.seed, self.traits.stream ^ 3, index);
    }

    /// A release, at the beginning and end of a leak and before a warm-up, restarts all processes.
    fn release(&mut self, minute: i64) {
        let restarts = match self.spec.class {
            Class::MemoryLeak => minute == self.episode.onset || minute == self.episode.ends,
            Class::CacheWarmup | Class::LevelShift => minute == self.episode.fails,
            _ => false,
        };
        if restarts {
            self.restart_all();
        }
    }

    fn restart_all(&mut self) {
        self.replicas.fill(Replica { age: 0, leaked: 0.0 });
        self.cpu_seconds = 0.0;
    }

    /// The load, in shares of the CPU limit that the service has at the start.
    fn demand(&self, minute: i64) -> f64 {
        let Traits { phase, period, level, .. } = self.traits;
        let noise = self.cpu_noise;
        match self.spec.class {
            Class::SeasonGrowth => self.growing_season(minute) * (1.0 + 0.006 * noise),
            Class::NearLimit => (0.835 + 0.015 * level) * (0.35 + 0.65 * peak(minute - phase)) * (1.0 + 0.006 * noise),
            Class::LatencyCreep => self.creeping_load(minute) * (1.0 + 0.01 * noise),
            Class::NightlyBatch => {
                let into = (minute - phase / 8).rem_euclid(DAY);
                let ramp = (into as f64 / 20.0).min((period - into) as f64 / 10.0).clamp(0.0, 1.0);
                0.12 + (0.725 + 0.015 * level) * ramp + 0.006 * noise
            }
            Class::LevelShift => {
                let base = if minute < self.episode.fails { 0.34 } else { 0.68 + 0.04 * level };
                base + 0.02 * daily(minute - phase) + 0.012 * noise
            }
            Class::Noisy => (0.45 + 0.05 * level + 0.08 * noise).clamp(0.1, 0.8),
            _ if self.spec.pool == super::fleet::TIGHT => 0.22 + 0.03 * daily(minute - phase) + 0.008 * noise,
            _ => 0.3 + 0.1 * level + 0.08 * daily(minute - phase) + 0.01 * noise,
        }
    }

    /// Daily peaks that grow from day to day; the one when it fails is a little too high.
    fn growing_season(&self, minute: i64) -> f64 {
        let days_before = (minute - self.episode.fails) as f64 / DAY as f64;
        let amplitude = 0.9 * (1.05 + self.traits.growth * days_before).max(0.3);
        amplitude * (0.35 + 0.65 * peak(minute - self.episode.fails))
    }

    fn creeping_load(&self, minute: i64) -> f64 {
        0.4 + 0.04 * self.traits.level + 0.02 * daily(minute - self.traits.phase)
    }

    /// How much more CPU one request takes than it used to: creeps from 1 up to what breaches the latency threshold.
    fn cost_of_request(&self, minute: i64) -> f64 {
        if self.spec.class != Class::LatencyCreep || !self.in_trouble(minute) {
            return 1.0;
        }
        // p99 = best · cost / (1 − load · cost) = threshold, solved for cost.
        let load = 0.4 + 0.04 * self.traits.level;
        let cost = LATENCY_THRESHOLD / (self.best_latency() + LATENCY_THRESHOLD * load);
        1.0 + (cost - 1.0) * self.progress(minute)
    }

    /// How far the trouble has come: 0 at its onset, 1 when it fails, more after that.
    fn progress(&self, minute: i64) -> f64 {
        (minute - self.episode.onset) as f64 / (self.episode.fails - self.episode.onset) as f64
    }

    /// The 99th percentile of request duration on an idle machine, seconds.
    fn best_latency(&self) -> f64 {
        if self.spec.class == Class::LatencyCreep { 0.12 } else { 0.045 }
    }

    /// Requests wait for the CPU as in a queue with one server: time = service time / (1 − utilisation).
    fn serve_requests(&mut self, minute: i64, kept: f64) {
        if !self.spec.has_latency() {
            return;
        }
        let idle_share = 1.0 - self.levels.cpu.min(BUSY_MAX);
        let cost = self.cost_of_request(minute);
        let p99 = self.best_latency() * cost / idle_share * (1.0 + 0.015 * self.memory_noise);
        self.levels.latency = Some(p99);
        let count = 6000.0 * kept * self.demand(minute).max(0.01);
        for (counter, bound) in self.requests.iter_mut().zip(BUCKETS) {
            // An exponential tail through its 99th percentile.
            *counter += count * (1.0 - 0.01_f64.powf(bound / p99));
        }
        self.requests[BUCKETS.len()] += count;
    }

    /// Takes in what producers send, works off what consumers can; the CPU use that this costs.
    fn work_off_queue(&mut self, minute: i64, kept: f64, size: f64) -> f64 {
        let usual = 0.58 + 0.12 * daily(minute - self.traits.phase);
        let arriving = if self.in_trouble(minute) {
            let begun = ((minute - self.episode.onset) as f64 / 3.0).min(1.0);
            let excess = self.traits.excess * (1.0 + 0.25 * daily(minute - self.traits.phase));
            usual + (1.0 + excess - usual) * begun
        } else {
            usual
        };
        let arriving = arriving * kept * (1.0 + 0.01 * self.cpu_noise);
        // The limit is so many minutes of work that the excess alone would fill nine tenths of it by the time it fails.
        let limit = self.traits.excess * (self.episode.fails - self.episode.onset) as f64 / 0.9;
        let waiting = self.backlog * limit + arriving;
        let done = waiting.min(size);
        self.backlog = ((waiting - done) / limit).min(1.0);
        0.66 * done / size
    }

    /// Memory of the worst replica over the limit; a replica that reaches the limit is killed and starts anew.
    fn grow_memory(&mut self, minute: i64, limit: f64) -> f64 {
        let limit_at_start = self.spec.memory_gib * GIB * HEADROOM;
        let usual = self.usual_memory(minute);
        let leaking = self.spec.class == Class::MemoryLeak && self.in_trouble(minute);
        let rate = (0.95 - usual) * limit_at_start / (self.episode.fails - self.episode.onset).max(1) as f64;
        let mut worst: f64 = 0.0;
        let mut killed = 0;
        for (place, replica) in self.replicas.iter_mut().enumerate() {
            replica.age += 1;
            if leaking {
                // Not all replicas get the same share of the requests that leak.
                replica.leaked += rate * (1.0 - 0.02 * place as f64);
            }
            let warm = if self.spec.class == Class::CacheWarmup {
                0.57 * (1.0 - (-(replica.age as f64) / (1.2 * self.traits.period as f64)).exp())
            } else {
                0.0
            };
            let bytes = (usual + warm + 0.004 * self.memory_noise) * limit_at_start + replica.leaked;
            worst = worst.max(bytes);
            if bytes >= limit {
                *replica = Replica { age: 0, leaked: 0.0 };
                killed += 1;
            }
        }
        if killed == self.replicas.len() {
            self.cpu_seconds = 0.0;
        }
        (worst / limit).min(1.0)
    }

    /// Memory without leaks and caches, in shares of the limit at the start.
    fn usual_memory(&self, minute: i64) -> f64 {
        let Traits { phase, period, level, .. } = self.traits;
        match self.spec.class {
            Class::MemoryLeak => 0.36 + 0.06 * level,
            Class::GcSawtooth => {
                let into = (minute + phase).rem_euclid(period) as f64 / period as f64;
                0.44 + (0.34 + 0.03 * level) * into.powf(0.9)
            }
            Class::LevelShift if minute >= self.episode.fails => 0.66 + 0.04 * level,
            Class::LevelShift => 0.35,
            Class::CacheWarmup => 0.24,
            _ => 0.45 + 0.12 * level,
        }
    }

    /// The used share of the volume's size at the start: retention makes a small tooth each day, trouble fills it up.
    fn disk_share(&self, minute: i64) -> f64 {
        let tooth = 0.05 * (minute + self.traits.phase).rem_euclid(DAY) as f64 / DAY as f64;
        let usual = 0.4 + 0.06 * self.traits.level + tooth + 0.0005 * self.memory_noise;
        if self.spec.class != Class::DiskFill || !self.in_trouble(minute) {
            return usual;
        }
        let (into, fails) = (minute - self.episode.onset, self.episode.fails - self.episode.onset);
        usual + (0.95 - 0.43 - 0.06 * self.traits.level) * written(into) / written(fails)
    }
}

/// What a filling disk has taken after so many minutes: one each minute, and as much again in bursts.
fn written(minutes: i64) -> f64 {
    let per_burst_minute = BURST_PERIOD / BURST;
    let bursts = minutes / BURST_PERIOD * BURST_PERIOD + (minutes % BURST_PERIOD).min(BURST) * per_burst_minute;
    (minutes + bursts) as f64
}

/// A day as a cosine, 1 at its peak and −1 at night.
fn daily(minutes_from_peak: i64) -> f64 {
    (std::f64::consts::TAU * minutes_from_peak as f64 / DAY as f64).cos()
}

/// A day with a peak narrower than a cosine's, 0..1.
fn peak(minutes_from_peak: i64) -> f64 {
    ((1.0 + daily(minutes_from_peak)) / 2.0).powf(1.3)
}

/// Whole minutes.
#[expect(clippy::cast_possible_truncation, reason = "drawn between bounds of a few days")]
fn whole(minutes: f64) -> i64 {
    minutes.round() as i64
}
