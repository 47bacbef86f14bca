//! The members of a bank: how each is updated and what path it makes.
//!
//! The full bank has six autoregressions, two analogues and two smoothers on each of the two scales, and eight simple members on the plain one;
//! the lite bank has the smoothers and the simple members only. No member is relied on: the weighted median of all is.

use serde::{Deserialize, Serialize};

use super::analogue::Analogue;
use super::history::History;
use super::ridge::{RIDGE_KINDS, Ridge};
use super::scale::{Scale, stored};
use super::smooth::{GAINS, Smoother, WEEKS_MIN};
use super::{BankSize, simple};

/// Neighbours of the analogue that looks at a week, and of the one that looks at two days.
const NEIGHBOURS: [usize; 2] = [3, 4];
/// The gain of simple smoothing.
const LEVEL_GAIN: f64 = 0.2;
/// A forecast may leave the range of the history by its width on the plain scale, and by this factor on the log scale: e.
const LOG_BEYOND: f64 = 1.0;

/// A member; the first field says on which scale, the second which of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Member {
    Ridge(OnScale, u8),
    Analogue(OnScale, u8),
    Smoother(OnScale, u8),
    SeasonalDay,
    SeasonalWeek,
    Last,
    Level,
    ProfileLine,
    Line,
    OffsetQuarter,
    OffsetTwelfth,
    /// The one model that the user named.
    Named,
}

/// On which scale a member works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum OnScale {
    Plain,
    Log,
}

impl OnScale {
    fn place(self) -> usize {
        match self {
            OnScale::Plain => 0,
            OnScale::Log => 1,
        }
    }
}

impl Member {
    /// What it is called where weights are shown; `named` is the name of the model that the user asked for.
    pub(super) fn name(self, named: &str) -> String {
        let (word, scale) = match self {
            Member::Ridge(scale, kind) => (RIDGE_KINDS[usize::from(kind)].name(), scale),
            Member::Analogue(scale, 0) => ("analogue-week", scale),
            Member::Analogue(scale, _) => ("analogue-two-days", scale),
            Member::Smoother(scale, 0) => ("smoothing-fast", scale),
            Member::Smoother(scale, _) => ("smoothing-slow", scale),
            Member::SeasonalDay => ("seasonal-naive", OnScale::Plain),
            Member::SeasonalWeek => ("seasonal-naive-long", OnScale::Plain),
            Member::Last => ("level", OnScale::Plain),
            Member::Level => ("smoothed-level", OnScale::Plain),
            Member::ProfileLine => ("profile-and-line", OnScale::Plain),
            Member::Line => ("line", OnScale::Plain),
            Member::OffsetQuarter => ("seasonal-naive-shifted", OnScale::Plain),
            Member::OffsetTwelfth => ("seasonal-naive-shifted-soon", OnScale::Plain),
            Member::Named => (named, OnScale::Plain),
        };
        if scale == OnScale::Log { format!("{word}-log") } else { word.to_owned() }
    }
}

/// The range of values seen so far on one scale.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Seen {
    low: f32,
    high: f32,
}

impl Seen {
    fn add(&mut self, value: f32) {
        self.low = self.low.min(value);
        self.high = self.high.max(value);
    }
}

/// The season lengths that members use, in steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seasons {
    pub(super) day: usize,
    pub(super) week: usize,
    /// Whether they are seasons, or only lags to look back at.
    pub(super) real: bool,
}

/// The state of all members.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Pool {
    pub(super) members: Vec<Member>,
    seasons: Seasons,
    /// Plain ones first, then those on the log scale; the same for the others.
    ridges: Vec<Ridge>,
    analogues: Vec<Analogue>,
    smoothers: Vec<Smoother>,
    seen: [Option<Seen>; 2],
    level: Option<f64>,
    /// The named model's path on the plain scale, and the index of its first step; empty where it refused.
    named: (i64, Vec<f32>),
}

/// What all paths of one moment are made from: the end of the history, centred, with room for the path.
pub(super) struct View<'a> {
    history: &'a History,
    scale: &'a Scale,
    tails: [Vec<f64>; 2],
    known: usize,
}

impl Pool {
    pub(super) fn new(size: BankSize, seasons: Seasons, has_log: bool, named: bool) -> Pool {
        let scales = if has_log { &[OnScale::Plain, OnScale::Log][..] } else { &[OnScale::Plain][..] };
        let mut pool = Pool {
            members: Vec::new(),
            seasons,
            ridges: Vec::new(),
            analogues: Vec::new(),
            smoothers: Vec::new(),
            seen: [None; 2],
            level: None,
            named: (0, Vec::new()),
        };
        if named {
            pool.members = vec![Member::Named, Member::Last];
            return pool;
        }
        for &scale in scales {
            if size == BankSize::Full {
                pool.ridges.extend(RIDGE_KINDS.map(|kind| Ridge::new(kind, seasons.day, seasons.week)));
                pool.members.extend((0..6).map(|kind| Member::Ridge(scale, kind)));
                let windows = [seasons.week, 2 * seasons.day];
                pool.analogues.extend([0, 1].map(|i| Analogue::new(windows[i], NEIGHBOURS[i])));
                pool.members.extend((0..2).map(|kind| Member::Analogue(scale, kind)));
            }
            pool.smoothers.extend(GAINS.map(Smoother::new));
            pool.members.extend((0..2).map(|kind| Member::Smoother(scale, kind)));
        }
        pool.members.extend([Member::SeasonalDay, Member::SeasonalWeek, Member::Last, Member::Level]);
        pool.members.extend([Member::ProfileLine, Member::Line, Member::OffsetQuarter, Member::OffsetTwelfth]);
        pool.members.shrink_to_fit();
        pool.ridges.shrink_to_fit();
        pool.analogues.shrink_to_fit();
        pool.smoothers.shrink_to_fit();
        pool
    }

    fn scales(history: &History) -> impl Iterator<Item = (usize, &[f32])> {
        [&history.plain, &history.log]
            .into_iter()
            .map(Vec::as_slice)
            .enumerate()
            .filter(|(_, values)| !values.is_empty())
    }

    /// Learns the newest value of the history.
    pub(super) fn learn(&mut self, history: &History, scale: &Scale) {
        let Some(&newest) = history.plain.last() else { return };
        let index = history.next() - 1;
        let level = self.level.unwrap_or(f64::from(newest));
        self.level = Some(level + LEVEL_GAIN * (f64::from(newest) - level));
        for (place, values) in Pool::scales(history) {
            let centre = if place == 0 { scale.centre } else { 0.0 };
            let value = values[values.len() - 1];
            self.seen[place].get_or_insert(Seen { low: value, high: value }).add(value);
            for ridge in of_scale(&mut self.ridges, place, RIDGE_KINDS.len()) {
                ridge.learn(values, centre);
            }
            for smoother in of_scale(&mut self.smoothers, place, GAINS.len()) {
                if smoother.has_started() {
                    smoother.learn(f64::from(value) - centre, index);
                } else if values.len() == WEEKS_MIN * self.seasons.week {
                    smoother.start(values, centre, history.first(), (self.seasons.day, self.seasons.week));
                }
            }
        }
    }

    /// Does what is done at origins only: solves the autoregressions and looks for analogues.
    pub(super) fn refresh(&mut self, history: &History) {
        self.ridges.iter_mut().for_each(Ridge::solve);
        for (place, values) in Pool::scales(history) {
            for analogue in of_scale(&mut self.analogues, place, NEIGHBOURS.len()) {
                analogue.search(values, self.seasons.day);
            }
        }
    }

    /// Keeps the path of the named model, which begins at `index`; an empty one where it refused.
    pub(super) fn name_path(&mut self, index: i64, path: Vec<f32>) {
        self.named = (index, path);
    }

    /// The clamp of one scale: one range beyond what was seen, or a factor of e.
    fn within(&self, place: usize, scale: &Scale) -> (f64, f64) {
        let Some(seen) = self.seen[place] else { return (0.0, 0.0) };
        let (low, high) = (f64::from(seen.low), f64::from(seen.high));
        match (place, scale.log) {
            (1, Some(log)) => (low - LOG_BEYOND / log.unit, high + LOG_BEYOND / log.unit),
            _ => (low - (high - low), high + (high - low)),
        }
    }

    /// What paths are made from now.
    pub(super) fn view<'a>(&self, history: &'a History, scale: &'a Scale, steps: usize) -> View<'a> {
        let reach = self.ridges.iter().map(Ridge::reach).max().unwrap_or(0).min(history.len());
        let tail = |values: &[f32], centre: f64| {
            let mut tail = Vec::with_capacity(reach + steps);
            tail.extend(values[values.len().saturating_sub(reach)..].iter().map(|value| f64::from(*value) - centre));
            tail.resize(tail.len() + steps, 0.0);
            tail
        };
        let tails = if self.ridges.is_empty() {
            [vec![0.0; steps], vec![0.0; steps]]
        } else {
            let log = if history.log.is_empty() { Vec::new() } else { tail(&history.log, 0.0) };
            [tail(&history.plain, scale.centre), log]
        };
        View { history, scale, known: if self.ridges.is_empty() { 0 } else { reach }, tails }
    }

    /// Writes a member's path on the plain scale, as 32-bit values `stride` apart. False where it has none: then it is that of seasonal naive
    /// or the last value.
    pub(super) fn path(&self, member: Member, view: &mut View<'_>, out: &mut [f32], stride: usize) -> bool {
        let (place, made) = match member {
            Member::Ridge(scale, kind) => {
                let place = scale.place();
                let centre = self.centre(place, view.scale);
                let (low, high) = self.within(place, view.scale);
                let ridge = &self.ridges[place * RIDGE_KINDS.len() + usize::from(kind)];
                (place, ridge.extend(&mut view.tails[place], view.known, (low - centre, high - centre)))
            }
            Member::Analogue(scale, kind) => {
                let place = scale.place();
                let centre = self.centre(place, view.scale);
                let analogue = &self.analogues[place * NEIGHBOURS.len() + usize::from(kind)];
                let values = if place == 0 { &view.history.plain } else { &view.history.log };
                (place, analogue.extend(values, centre, self.seasons.day, &mut view.tails[place][view.known..]))
            }
            Member::Smoother(scale, kind) => {
                let place = scale.place();
                let smoother = &self.smoothers[place * GAINS.len() + usize::from(kind)];
                (place, smoother.extend(view.history.next(), &mut view.tails[place][view.known..]))
            }
            _ => (0, self.simple_path(member, view)),
        };
        if !made {
            let fall_back = simple::seasonal(&view.history.plain, self.seasons.day, &mut view.tails[0][view.known..])
                || simple::last(&view.history.plain, &mut view.tails[0][view.known..]);
            assert!(fall_back, "a bank has a value from its first push on");
            view.tails[0][view.known..].iter_mut().for_each(|value| *value -= view.scale.centre);
        }
        self.write(if made { place } else { 0 }, view, out, stride);
        made
    }

    fn centre(&self, place: usize, scale: &Scale) -> f64 {
        if place == 0 { scale.centre } else { 0.0 }
    }

    /// Clamps, puts on the plain scale and writes.
    fn write(&self, place: usize, view: &View<'_>, out: &mut [f32], stride: usize) {
        let (low, high) = self.within(place, view.scale);
        let centre = self.centre(place, view.scale);
        let path = &view.tails[place][view.known..];
        for (cell, value) in out.iter_mut().step_by(stride).zip(path) {
            let value = (value + centre).clamp(low, high);
            *cell = stored(if place == 0 { value } else { view.scale.plain_of_log(value) });
        }
    }

    /// The members that need no more than the history, on the plain scale, centred.
    fn simple_path(&self, member: Member, view: &mut View<'_>) -> bool {
        let (values, day) = (&view.history.plain[..], self.seasons.day);
        let out = &mut view.tails[0][view.known..];
        let made = match member {
            Member::SeasonalDay => simple::seasonal(values, day, out),
            Member::SeasonalWeek => simple::seasonal(values, self.seasons.week, out),
            Member::Last => simple::last(values, out),
            Member::Level => {
                out.fill(self.level.unwrap_or(0.0));
                self.level.is_some()
            }
            Member::ProfileLine => simple::profile_line(values, day, out),
            Member::Line => simple::line(values, 2 * day, out),
            Member::OffsetQuarter => simple::offset(values, day, day / 4, out),
            Member::OffsetTwelfth => simple::offset(values, day, day / 12, out),
            Member::Named => {
                let age = usize::try_from(view.history.next() - self.named.0).unwrap_or(usize::MAX);
                let path = self.named.1.get(age..).unwrap_or(&[]);
                let last = path.last().copied().unwrap_or(0.0);
                for (step, value) in out.iter_mut().enumerate() {
                    *value = f64::from(path.get(step).copied().unwrap_or(last));
                }
                !path.is_empty()
            }
            Member::Ridge(..) | Member::Analogue(..) | Member::Smoother(..) => false,
        };
        out.iter_mut().for_each(|value| *value -= view.scale.centre);
        made
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let ridges: usize = self.ridges.iter().map(Ridge::memory_bytes).sum();
        let analogues: usize = self.analogues.iter().map(Analogue::memory_bytes).sum();
        let smoothers: usize = self.smoothers.iter().map(Smoother::memory_bytes).sum();
        ridges
            + analogues
            + smoothers
            + self.ridges.capacity() * size_of::<Ridge>()
            + self.analogues.capacity() * size_of::<Analogue>()
            + self.smoothers.capacity() * size_of::<Smoother>()
            + self.members.capacity() * size_of::<Member>()
            + self.named.1.capacity() * size_of::<f32>()
    }
}

/// Those of one scale.
fn of_scale<T>(all: &mut [T], place: usize, each: usize) -> &mut [T] {
    if all.len() < (place + 1) * each { &mut [] } else { &mut all[place * each..(place + 1) * each] }
}
