//! A forecast as a picture of letters: history and medians in braille dots, the band between the outer quantiles shaded.

use std::fmt::Write as _;

use super::Foretold;
use super::write::summary;
use crate::cli::figures::{readable, short};
use crate::model::{Millis, Timestamp};

/// How wide and high a picture is, in letters: at least, and where nobody says.
const WIDTH_MIN: usize = 40;
const WIDTH_DEFAULT: usize = 80;
const WIDTH_MAX: usize = 400;
const HEIGHT: usize = 14;
/// Dots of a braille letter.
const DOTS_ACROSS: usize = 2;
const DOTS_DOWN: usize = 4;
/// History is shown for this many horizons.
const HISTORY_HORIZONS: i64 = 2;
/// The bits of a braille letter's dots, by row and column (Unicode, "Braille Patterns", U+2800).
const BITS: [[u32; DOTS_ACROSS]; DOTS_DOWN] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];

/// How wide the terminal is.
#[expect(clippy::disallowed_methods, reason = "how wide a terminal is stands in its environment, in no flag or file")]
pub(super) fn width() -> usize {
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    columns.unwrap_or(WIDTH_DEFAULT).clamp(WIDTH_MIN, WIDTH_MAX)
}

/// A picture for each series.
pub(super) fn plot(foretold: &[Foretold], width: usize) -> String {
    foretold.iter().map(|one| picture(one, width)).collect::<Vec<_>>().join("\n")
}

/// Where times and values lie on the picture.
struct Frame {
    from: Timestamp,
    to: Timestamp,
    low: f64,
    high: f64,
    columns: usize,
}

impl Frame {
    /// The column of dots of a time.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of the columns, within them")]
    fn across(&self, at: Timestamp) -> usize {
        let share = (at - self.from).0 as f64 / (self.to - self.from).0.max(1) as f64;
        let last = (self.columns * DOTS_ACROSS - 1) as f64;
        (share * last).round().clamp(0.0, last) as usize
    }

    /// The row of dots of a value, from the top.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of the rows, within them")]
    fn down(&self, value: f64) -> usize {
        // Halves keep the difference of two huge values finite.
        let share = (self.high / 2.0 - value / 2.0) / (self.high / 2.0 - self.low / 2.0);
        let last = (HEIGHT * DOTS_DOWN - 1) as f64;
        (share * last).round().clamp(0.0, last) as usize
    }
}

/// Dots and shades, letter by letter.
struct Canvas {
    columns: usize,
    dots: Vec<u32>,
    shade: Vec<bool>,
}

impl Canvas {
    fn dot(&mut self, across: usize, down: usize) {
        let letter = down / DOTS_DOWN * self.columns + across / DOTS_ACROSS;
        self.dots[letter] |= BITS[down % DOTS_DOWN][across % DOTS_ACROSS];
    }

    fn shade(&mut self, across: usize, top: usize, bottom: usize) {
        for down in top..=bottom {
            self.shade[down / DOTS_DOWN * self.columns + across / DOTS_ACROSS] = true;
        }
    }

    /// A line from one point to the next.
    fn line(&mut self, from: (usize, usize), to: (usize, usize)) {
        let steps = from.0.abs_diff(to.0).max(from.1.abs_diff(to.1)).max(1);
        for step in 0..=steps {
            let at = |a: usize, b: usize| {
                if b >= a { a + (b - a) * step / steps } else { a - (a - b) * step / steps }
            };
            self.dot(at(from.0, to.0), at(from.1, to.1));
        }
    }

    fn row(&self, row: usize) -> String {
        let letters = row * self.columns..(row + 1) * self.columns;
        let text: String = letters
            .map(|letter| match (self.dots[letter], self.shade[letter]) {
                (0, false) => ' ',
                (0, true) => '░',
                (dots, _) => char::from_u32(0x2800 + dots).unwrap_or(' '),
            })
            .collect();
        text.trim_end().to_owned()
    }
}

fn picture(one: &Foretold, width: usize) -> String {
    let Foretold { series, forecast } = one;
    let mut out = format!("{}\n{}\n", series.name, summary(forecast));
    let steps = forecast.values.first().map_or(0, Vec::len);
    let at = |step: usize| forecast.start + forecast.step * i64::try_from(step).unwrap_or(i64::MAX);
    let horizon = forecast.step * i64::try_from(steps).unwrap_or(i64::MAX);
    let from = forecast.start - Millis(horizon.0.saturating_mul(HISTORY_HORIZONS));
    let history: Vec<(Timestamp, f64)> =
        series.samples.iter().filter(|s| s.at >= from && s.value.is_finite()).map(|s| (s.at, s.value)).collect();
    let from = history.first().map_or(forecast.start, |(at, _)| *at);
    let all = || history.iter().map(|(_, value)| *value).chain(forecast.values.iter().flatten().copied());
    let (low, high) = all().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if steps == 0 || !low.is_finite() || !high.is_finite() {
        return out;
    }
    // A flat line lies in the middle.
    let (low, high) = if high > low { (low, high) } else { (low - 1.0, high + 1.0) };
    let labels = [high, high / 2.0 + low / 2.0, low].map(short);
    let margin = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
    let columns = width.saturating_sub(margin + 2).max(10);
    let frame = Frame { from, to: at(steps - 1), low, high, columns };
    let canvas = drawn(one, &history, &frame);
    for row in 0..HEIGHT {
        let label = match row {
            0 => &labels[0],
            row if row == HEIGHT / 2 => &labels[1],
            row if row == HEIGHT - 1 => &labels[2],
            _ => "",
        };
        let _ = writeln!(out, "{}", format!("{label:>margin$} │{}", canvas.row(row)).trim_end());
    }
    out + &time_axis(&frame, forecast.start, margin)
}

fn drawn(one: &Foretold, history: &[(Timestamp, f64)], frame: &Frame) -> Canvas {
    let letters = frame.columns * HEIGHT;
    let mut canvas = Canvas { columns: frame.columns, dots: vec![0; letters], shade: vec![false; letters] };
    let forecast = &one.forecast;
    let point = |at: Timestamp, value: f64| (frame.across(at), frame.down(value));
    let future = |values: &[f64]| {
        let times = (0..).map(|step| forecast.start + forecast.step * step);
        times.zip(values.to_vec()).map(|(at, value)| point(at, value)).collect::<Vec<_>>()
    };
    if let ([lowest, .., highest], true) = (&forecast.values[..], forecast.values.len() > 1) {
        let (bottom, top) = (future(lowest), future(highest));
        for (two_top, two_bottom) in top.windows(2).zip(bottom.windows(2)) {
            for across in two_top[0].0..=two_top[1].0 {
                let (top, bottom) = (two_top[0].1.min(two_top[1].1), two_bottom[0].1.max(two_bottom[1].1));
                canvas.shade(across, top.min(bottom), bottom);
            }
        }
    }
    let past: Vec<(usize, usize)> = history.iter().map(|(at, value)| point(*at, *value)).collect();
    for two in past.windows(2) {
        canvas.line(two[0], two[1]);
    }
    // The level nearest to the middle; its dots stand apart from history's line.
    let middle = forecast.levels.iter().enumerate().min_by(|a, b| (a.1 - 0.5).abs().total_cmp(&(b.1 - 0.5).abs()));
    if let Some((level, _)) = middle {
        for (across, down) in future(&forecast.values[level]) {
            canvas.dot(across, down);
        }
    }
    if let [(across, down)] = past[..] {
        canvas.dot(across, down);
    }
    canvas
}

/// The first, the forecast's and the last time below the picture.
fn time_axis(frame: &Frame, start: Timestamp, margin: usize) -> String {
    let now = frame.across(start) / DOTS_ACROSS;
    let line: String = (0..frame.columns).map(|column| if column == now { '┴' } else { '─' }).collect();
    let (first, middle, last) = (readable(frame.from), readable(start), readable(frame.to));
    let mut labels = vec![' '; frame.columns + 1];
    let mut put = |text: &str, from: usize| {
        let free = labels.iter().skip(from.saturating_sub(1)).take(text.len() + 2).all(|c| *c == ' ');
        if free && from + text.len() <= labels.len() {
            labels.iter_mut().skip(from).zip(text.chars()).for_each(|(slot, c)| *slot = c);
        }
    };
    put(&middle, now.min(frame.columns.saturating_sub(middle.len())));
    put(&first, 0);
    put(&last, (frame.columns + 1).saturating_sub(last.len()));
    let labels: String = labels.into_iter().collect();
    format!("{:>margin$} └{line}\n{:>margin$}  {}\n", "", "", labels.trim_end())
}
