//! A small LSTM network, trained over all series of a kind, that corrects the seasonal naive forecast.
//!
//! ```text
//! the newest steps ── scaled ──▶ LSTM (one layer) ──▶ linear ──▶ correction for each step ahead
//!                                                                 + last season's values, moved to today's level
//! ```
//!
//! Long short-term memory after Hochreiter and Schmidhuber (1997) with the forget gate of Gers, Schmidhuber and Cummins
//! (2000); back-propagation through time; Adam (Kingma and Ba 2015) on the mean absolute error. Training is a number of
//! windows, not a span of time: the same windows make the same weights, bit for bit, on every machine of a kind.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Refusal;
use super::models::Model;

/// Cells of the layer.
const HIDDEN: usize = 24;
/// Values that the network sees of each step.
const INPUTS: usize = 3;
/// Steps that it sees, at most.
const WINDOW_MAX: usize = 48;
const WINDOW_MIN: usize = 8;
/// Windows whose gradients make one change of the weights.
const BATCH: usize = 16;
/// Windows after which more training no longer helped.
const WINDOWS_MAX: u64 = 40_000;
/// How far one change goes, and how it decays: halved each `RATE_HALF_LIFE` changes.
const RATE: f32 = 4e-3;
const RATE_HALF_LIFE: f32 = 1500.0;
const MOMENTUM: f32 = 0.9;
const SQUARES: f32 = 0.999;
/// A gradient longer than this is shortened.
const GRADIENT_MAX: f32 = 1.0;
/// Scaled values are kept within ± this.
const SCALED_MAX: f32 = 8.0;
const GATES: usize = 4 * HIDDEN;
const NAME: &str = "lstm";

/// What one series teaches: its history, regular and finite, oldest first; its seasons and the steps that are foretold.
#[derive(Debug, Clone)]
pub struct Lesson {
    pub(super) history: Vec<f64>,
    pub(super) seasons: Vec<usize>,
    pub(super) steps: usize,
}

/// A network: its weights, and what training needs to go on. Takes some 100 kB.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    steps: usize,
    weights: Vec<f32>,
    momenta: Vec<f32>,
    squares: Vec<f32>,
    changes: u32,
    random: u64,
    /// Windows learned from.
    learned: u64,
}

/// One window: what the network sees, what it corrects, and the truth where it is known.
struct Window {
    inputs: Vec<[f32; INPUTS]>,
    base: Vec<f64>,
    scale: f64,
}

/// What one step of the forward pass leaves for the backward pass.
struct Step {
    input: [f32; INPUTS],
    before: [f32; HIDDEN],
    cells_before: [f32; HIDDEN],
    gates: [f32; GATES],
    tanh_cells: [f32; HIDDEN],
}

/// Where the parts stand in the flat list of weights. Matrices are by column: one column for each value that comes in.
struct Layout {
    recurrent: usize,
    bias: usize,
    out: usize,
    out_bias: usize,
    all: usize,
}

impl Layout {
    fn of(steps: usize) -> Layout {
        let recurrent = INPUTS * GATES;
        let bias = recurrent + HIDDEN * GATES;
        let out = bias + GATES;
        let out_bias = out + HIDDEN * steps;
        Layout { recurrent, bias, out, out_bias, all: out_bias + steps }
    }
}

impl Lesson {
    /// From a regular history (NaN: missing), the oldest value first; absent where no value is a number. `steps`: those of
    /// the forecast; a bank asks its model for a quarter more, so that a path lasts until it asks again.
    pub(super) fn new(mut history: Vec<f64>, seasons: Vec<usize>, steps: usize) -> Option<Lesson> {
        let mut last = history.iter().copied().find(|value| value.is_finite())?;
        for value in &mut history {
            if value.is_finite() {
                last = *value;
            } else {
                *value = last;
            }
        }
        Some(Lesson { history, seasons, steps: steps + steps / 4 + 1 })
    }
}

impl Network {
    /// An untrained network for a horizon of `steps`. It corrects nothing yet.
    pub(crate) fn new(steps: usize, seed: u64) -> Network {
        let layout = Layout::of(steps);
        let mut network = Network {
            steps,
            weights: vec![0.0; layout.all],
            momenta: vec![0.0; layout.all],
            squares: vec![0.0; layout.all],
            changes: 0,
            random: seed,
            learned: 0,
        };
        let width = 1.0 / (HIDDEN as f32).sqrt();
        for index in 0..layout.bias {
            network.weights[index] = width * (2.0 * network.uniform() - 1.0);
        }
        // Forget gates begin open (Jozefowicz, Zaremba and Sutskever 2015).
        network.weights[layout.bias + HIDDEN..layout.bias + 2 * HIDDEN].fill(1.0);
        network
    }

    /// 0..1, splitmix64.
    fn uniform(&mut self) -> f32 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32
    }

    /// An untrained network for such lessons.
    pub fn for_lessons(lesson: &Lesson, seed: u64) -> Network {
        Network::new(lesson.steps, seed)
    }

    /// Learns from so many windows, drawn at random places of the lessons; those for other steps are left out.
    /// Returns how many that were: none where all are too short.
    pub fn study(&mut self, lessons: &[Lesson], windows: usize) -> usize {
        let fitting = || lessons.iter().filter(|lesson| lesson.steps == self.steps);
        let Some(seasons) = fitting().next().map(|lesson| lesson.seasons.clone()) else { return 0 };
        let before = self.learned;
        let histories: Vec<&[f64]> = fitting().map(|lesson| lesson.history.as_slice()).collect();
        self.learn(&histories, &seasons, windows);
        usize::try_from(self.learned - before).unwrap_or(usize::MAX)
    }

    /// Learns from `windows` windows, drawn at random places of `histories` (regular, finite, oldest first). Each window
    /// ends a horizon before the newest value at the latest. Histories that are too short teach nothing.
    pub(crate) fn learn(&mut self, histories: &[&[f64]], seasons: &[usize], windows: usize) {
        let usable: Vec<(&[f64], usize)> = histories
            .iter()
            .map(|history| (*history, season_of(history.len().saturating_sub(self.steps), seasons)))
            .filter(|(history, season)| history.len() > least(*season) + self.steps)
            .collect();
        if usable.is_empty() {
            return;
        }
        let mut gradient = vec![0.0f32; self.weights.len()];
        for _ in 0..windows.div_ceil(BATCH) {
            gradient.fill(0.0);
            for _ in 0..BATCH {
                let (history, season) = usable[self.below(usable.len())];
                let first = least(season);
                let at = first + self.below(history.len() - self.steps - first + 1);
                if let Some(window) = Window::new(&history[..at], season, self.steps) {
                    self.add_gradient(&window, &history[at..at + self.steps], &mut gradient);
                    self.learned += 1;
                }
            }
            self.change(&mut gradient);
        }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the bound")]
    fn below(&mut self, bound: usize) -> usize {
        ((self.uniform() * bound as f32) as usize).min(bound - 1)
    }

    fn corrected(&self, history: &[f64], seasons: &[usize], steps: usize) -> Result<Vec<f64>, Refusal> {
        let season = season_of(history.len(), seasons);
        let needed = least(season);
        if history.len() < needed {
            return Err(Refusal::TooShort { model: NAME, got: history.len(), needed });
        }
        if steps > self.steps {
            return Err(Refusal::Settings(format!("the network was made for {} steps, not {steps}", self.steps)));
        }
        let window = Window::new(history, season, self.steps).ok_or(Refusal::NoFit(NAME))?;
        let (hidden, _) = self.forward(&window.inputs);
        let corrections = self.corrections(&hidden);
        let path = window.base.iter().zip(&corrections).map(|(base, c)| base + window.scale * f64::from(*c));
        let path: Vec<f64> = path.take(steps).collect();
        if path.iter().all(|value| value.is_finite()) { Ok(path) } else { Err(Refusal::NoFit(NAME)) }
    }

    /// Whether more training would no longer help.
    pub fn is_trained(&self) -> bool {
        self.learned >= WINDOWS_MAX
    }

    fn corrections(&self, hidden: &[f32; HIDDEN]) -> Vec<f32> {
        let layout = Layout::of(self.steps);
        let mut out = self.weights[layout.out_bias..].to_vec();
        for (column, h) in self.weights[layout.out..layout.out_bias].chunks_exact(self.steps).zip(hidden) {
            add_scaled(&mut out, column, *h);
        }
        out
    }

    fn forward(&self, inputs: &[[f32; INPUTS]]) -> ([f32; HIDDEN], Vec<Step>) {
        let layout = Layout::of(self.steps);
        let mut hidden = [0.0; HIDDEN];
        let mut cells = [0.0; HIDDEN];
        let mut steps = Vec::with_capacity(inputs.len());
        for input in inputs {
            let mut gates = [0.0; GATES];
            gates.copy_from_slice(&self.weights[layout.bias..layout.out]);
            for (column, x) in self.weights[..layout.recurrent].chunks_exact(GATES).zip(input) {
                add_scaled(&mut gates, column, *x);
            }
            for (column, h) in self.weights[layout.recurrent..layout.bias].chunks_exact(GATES).zip(&hidden) {
                add_scaled(&mut gates, column, *h);
            }
            let (before, cells_before) = (hidden, cells);
            let mut tanh_cells = [0.0; HIDDEN];
            for i in 0..HIDDEN {
                let (enter, keep) = (sigmoid(gates[i]), sigmoid(gates[HIDDEN + i]));
                let (leave, new) = (sigmoid(gates[2 * HIDDEN + i]), gates[3 * HIDDEN + i].tanh());
                cells[i] = keep * cells_before[i] + enter * new;
                tanh_cells[i] = cells[i].tanh();
                hidden[i] = leave * tanh_cells[i];
                (gates[i], gates[HIDDEN + i], gates[2 * HIDDEN + i], gates[3 * HIDDEN + i]) = (enter, keep, leave, new);
            }
            steps.push(Step { input: *input, before, cells_before, gates, tanh_cells });
        }
        (hidden, steps)
    }

    /// Adds the gradient of the mean absolute error of one window.
    #[expect(clippy::cast_possible_truncation, reason = "too large a value becomes an infinity, and is cut to ±1")]
    fn add_gradient(&self, window: &Window, truth: &[f64], gradient: &mut [f32]) {
        let layout = Layout::of(self.steps);
        let (hidden, steps) = self.forward(&window.inputs);
        let corrections = self.corrections(&hidden);
        let share = 1.0 / (self.steps * BATCH) as f32;
        let mut errors = vec![0.0f32; self.steps];
        for (k, error) in errors.iter_mut().enumerate() {
            let wanted = ((truth[k] - window.base[k]) / window.scale) as f32;
            // The absolute error, rounded off near 0 so that training settles.
            *error = share * ((corrections[k] - wanted) / 0.1).clamp(-1.0, 1.0);
        }
        add_scaled(&mut gradient[layout.out_bias..], &errors, 1.0);
        let mut d_hidden = [0.0; HIDDEN];
        for i in 0..HIDDEN {
            let at = layout.out + i * self.steps;
            d_hidden[i] = dot(&self.weights[at..at + self.steps], &errors);
            add_scaled(&mut gradient[at..at + self.steps], &errors, hidden[i]);
        }
        let mut d_cells = [0.0; HIDDEN];
        for step in steps.iter().rev() {
            let d_gates = step.back(&d_hidden, &mut d_cells);
            add_scaled(&mut gradient[layout.bias..layout.out], &d_gates, 1.0);
            for (column, x) in gradient[..layout.recurrent].chunks_exact_mut(GATES).zip(&step.input) {
                add_scaled(column, &d_gates, *x);
            }
            let recurrent = layout.recurrent..layout.bias;
            for (column, h) in gradient[recurrent.clone()].chunks_exact_mut(GATES).zip(&step.before) {
                add_scaled(column, &d_gates, *h);
            }
            for (d, column) in d_hidden.iter_mut().zip(self.weights[recurrent].chunks_exact(GATES)) {
                *d = dot(column, &d_gates);
            }
        }
    }

    fn change(&mut self, gradient: &mut [f32]) {
        let length = dot(gradient, gradient).sqrt();
        if !length.is_finite() {
            return;
        }
        let shorten = (GRADIENT_MAX / length.max(1e-12)).min(1.0);
        self.changes = self.changes.saturating_add(1);
        let count = self.changes.min(100_000) as f32;
        let rate = RATE * 0.5f32.powf(count / RATE_HALF_LIFE);
        let (first, second) = (1.0 - MOMENTUM.powf(count), 1.0 - SQUARES.powf(count));
        for (index, slope) in gradient.iter().enumerate() {
            let slope = slope * shorten;
            let momentum = &mut self.momenta[index];
            *momentum = MOMENTUM * *momentum + (1.0 - MOMENTUM) * slope;
            let square = &mut self.squares[index];
            *square = SQUARES * *square + (1.0 - SQUARES) * slope * slope;
            self.weights[index] -= rate * (*momentum / first) / ((*square / second).sqrt() + 1e-8);
        }
    }
}

impl Model for Arc<Network> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn path(&self, history: &[f64], seasons: &[usize], steps: usize) -> Result<Vec<f64>, Refusal> {
        self.corrected(history, seasons, steps)
    }
}

impl Step {
    /// From the gradients of the step's output and cells to those of its gates; leaves those of the cells before.
    fn back(&self, d_hidden: &[f32; HIDDEN], d_cells: &mut [f32; HIDDEN]) -> [f32; GATES] {
        let mut d_gates = [0.0; GATES];
        for i in 0..HIDDEN {
            let (enter, keep) = (self.gates[i], self.gates[HIDDEN + i]);
            let (leave, new) = (self.gates[2 * HIDDEN + i], self.gates[3 * HIDDEN + i]);
            let tanh = self.tanh_cells[i];
            let d_cell = d_cells[i] + d_hidden[i] * leave * (1.0 - tanh * tanh);
            d_gates[i] = d_cell * new * enter * (1.0 - enter);
            d_gates[HIDDEN + i] = d_cell * self.cells_before[i] * keep * (1.0 - keep);
            d_gates[2 * HIDDEN + i] = d_hidden[i] * tanh * leave * (1.0 - leave);
            d_gates[3 * HIDDEN + i] = d_cell * enter * (1.0 - new * new);
            d_cells[i] = d_cell * keep;
        }
        d_gates
    }
}

impl Window {
    /// Absent where the newest values do not differ at all.
    #[expect(clippy::cast_possible_truncation, reason = "scaled values are cut to what f32 holds well")]
    fn new(history: &[f64], season: usize, steps: usize) -> Option<Window> {
        let n = history.len();
        let length = WINDOW_MAX.min(n - season);
        let newest = &history[n - length..];
        let mean = newest.iter().sum::<f64>() / length as f64;
        let deviation = (newest.iter().map(|y| (y - mean).powi(2)).sum::<f64>() / length as f64).sqrt();
        let change = |t: usize| history[t] - history[t - season];
        let level = length.min(24);
        let offset = (n - level..n).map(change).sum::<f64>() / level as f64;
        let spread = (n - length..n).map(|t| change(t).abs()).sum::<f64>() / length as f64;
        let scale = (spread + 0.1 * deviation).max(1e-9 * mean.abs());
        if !(scale.is_finite() && scale > 0.0) {
            return None;
        }
        let scaled = |value: f64| ((value / scale) as f32).clamp(-SCALED_MAX, SCALED_MAX);
        let inputs = (n - length..n).map(|t| {
            [
                scaled(change(t)),
                scaled(history[t] - history[t - 1]),
                (((history[t] - mean) / deviation.max(scale * 1e-3)) as f32).clamp(-SCALED_MAX, SCALED_MAX),
            ]
        });
        let inputs = inputs.collect();
        let base = (0..steps).map(|k| history[n - season + k % season] + offset).collect();
        Some(Window { inputs, base, scale })
    }
}

/// The longest season of which `length` values hold two, else one value.
fn season_of(length: usize, seasons: &[usize]) -> usize {
    seasons.iter().copied().filter(|season| *season >= 1 && 2 * season + WINDOW_MIN <= length).max().unwrap_or(1)
}

/// Values that a window needs.
fn least(season: usize) -> usize {
    season + WINDOW_MIN + 1
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn add_scaled(to: &mut [f32], column: &[f32], by: f32) {
    for (value, weight) in to.iter_mut().zip(column) {
        *value += weight * by;
    }
}

/// In eight lanes, so that it is fast.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (eights_a, eights_b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = eights_a.remainder().iter().zip(eights_b.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in eights_a.zip(eights_b) {
        for lane in 0..8 {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(length: usize, season: usize, growth: f64) -> Vec<f64> {
        (0..length)
            .map(|t| 10.0 + (t as f64 * std::f64::consts::TAU / season as f64).sin() + growth * t as f64)
            .collect()
    }

    fn loss(network: &Network, window: &Window, truth: &[f64]) -> f64 {
        let (hidden, _) = network.forward(&window.inputs);
        let errors = network.corrections(&hidden).into_iter().zip(truth.iter().zip(&window.base));
        errors.map(|(c, (y, base))| rounded_error(f64::from(c) - (y - base) / window.scale)).sum::<f64>()
            / network.steps as f64
    }

    /// The loss whose slope [`Network::add_gradient`] takes: absolute, but a parabola within a tenth of 0.
    fn rounded_error(error: f64) -> f64 {
        if error.abs() < 0.1 { error * error / 0.2 } else { error.abs() - 0.05 }
    }

    #[test]
    fn gradients_are_those_of_small_differences() {
        let mut network = Network::new(6, 3);
        for index in 0..network.weights.len() {
            network.weights[index] += 0.3 * (2.0 * network.uniform() - 1.0);
        }
        let history: Vec<f64> = (0..40).map(|t| f64::from(t % 7) + 0.3 * f64::from(t % 3)).collect();
        let window = Window::new(&history, 7, 6).expect("the values differ");
        let truth = [1.0, 4.0, 2.0, 0.0, 7.0, 3.0];
        let mut gradient = vec![0.0; network.weights.len()];
        network.add_gradient(&window, &truth, &mut gradient);
        for index in (0..network.weights.len()).step_by(7) {
            let mut moved = network.clone();
            let small = 1e-2f32;
            moved.weights[index] += small;
            let above = loss(&moved, &window, &truth);
            moved.weights[index] -= 2.0 * small;
            let below = loss(&moved, &window, &truth);
            let slope = (above - below) / (2.0 * f64::from(small)) / BATCH as f64;
            let got = f64::from(gradient[index]);
            assert!((got - slope).abs() < 2e-4 + 0.02 * slope.abs(), "weight {index}: {got}, by differences {slope}");
        }
    }

    #[test]
    fn learns_what_the_seasonal_naive_forecast_misses() {
        // Each season is a half higher than the one before it.
        let growing: Vec<f64> =
            (0..400).map(|t| 1.5f64.powf((t / 24) as f64 / 4.0) * (2.0 + f64::from(t % 24) / 24.0)).collect();
        let mut network = Network::new(12, 1);
        let error = |network: &Network| {
            let path = network.corrected(&growing[..388], &[24], 12).expect("long enough");
            path.iter().zip(&growing[388..]).map(|(f, y)| (f - y).abs()).sum::<f64>()
        };
        let before = error(&network);
        network.learn(&[&growing[..388]], &[24], 1600);
        assert!(error(&network) < 0.5 * before, "{} is not half of {before}", error(&network));
    }

    #[test]
    fn the_same_windows_make_the_same_weights() {
        let history = wave(200, 24, 0.01);
        let trained = || {
            let mut network = Network::new(8, 5);
            network.learn(&[&history], &[24], 64);
            network
        };
        assert_eq!(trained(), trained());
    }

    #[test]
    fn refuses_what_is_too_short_and_is_never_not_a_number() {
        let mut network = Network::new(8, 5);
        let flat = [7.0; 100];
        let huge = wave(100, 24, 1e300);
        network.learn(&[&flat, &[], &[1.0, 2.0], &huge], &[24], 64);
        assert!(matches!(network.corrected(&[1.0, 2.0], &[24], 8), Err(Refusal::TooShort { .. })));
        assert!(matches!(network.corrected(&wave(100, 24, 0.0), &[24], 9), Err(Refusal::Settings(_))));
        for history in [&flat[..], &huge, &wave(100, 24, 1e-300), &[0.0; 30]] {
            if let Ok(path) = network.corrected(history, &[24], 8) {
                assert!(path.iter().all(|value| value.is_finite()), "{path:?}");
            }
        }
    }
}
