//! Plots of the backtest's page as inline SVG: colours come from the page's style, so that they follow light and dark.

use std::fmt::Write as _;

use super::html::escape;
use super::replay::{Point, Track};
use super::report::ReliabilityRow;
use crate::cli::figures::{readable, short};
use crate::health::{Failure, Terms, Verdict};
use crate::model::{Millis, Timestamp};

/// The sides of the square plots.
const SQUARE: f64 = 300.0;
/// The room for labels around a plot.
const LEFT: f64 = 62.0;
const BOTTOM: f64 = 34.0;
const TOP: f64 = 10.0;
const RIGHT: f64 = 14.0;
/// The width and heights of a timeline: the signal above, the probability below.
const WIDTH: f64 = 960.0;
const SIGNAL_HEIGHT: f64 = 120.0;
const PROBABILITY_HEIGHT: f64 = 44.0;
const BETWEEN: f64 = 10.0;
/// How many times are written below a timeline.
const TIME_LABELS: i64 = 6;
/// A course is drawn with at most twice so many points: the lowest and the highest of each stretch.
const STRETCHES_MAX: usize = 480;
/// How many bars a histogram has.
const BARS: usize = 16;

/// What was said against what came, the size of a dot by its moments.
pub(super) fn reliability(rows: &[ReliabilityRow]) -> String {
    let (side_x, side_y) = (SQUARE - LEFT - RIGHT, SQUARE - TOP - BOTTOM);
    let x = |share: f64| LEFT + share * side_x;
    let y = |share: f64| TOP + (1.0 - share) * side_y;
    let mut out = open(SQUARE, SQUARE, "Reliability: what was said against what came true");
    frame(&mut out, (LEFT, TOP, side_x, side_y));
    line(&mut out, "diagonal", (x(0.0), y(0.0)), (x(1.0), y(1.0)));
    let most = rows.iter().map(|row| row.moments).max().unwrap_or(1).max(1);
    for row in rows {
        let (Some(said), Some(came)) = (row.said, row.came) else { continue };
        let radius = 3.0 + 7.0 * (row.moments as f64 / most as f64).sqrt();
        let _ = write!(
            out,
            "<circle class=\"dot\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius:.1}\"><title>said {said:.3}, came true {came:.3}, \
             {} moments</title></circle>",
            x(said),
            y(came),
            row.moments
        );
    }
    for share in [0.0, 0.5, 1.0] {
        text(&mut out, "middle", x(share), SQUARE - BOTTOM + 16.0, &short(share));
        text(&mut out, "end", LEFT - 6.0, y(share) + 4.0, &short(share));
    }
    text(&mut out, "middle", x(0.5), SQUARE - 4.0, "probability that was said");
    vertical(&mut out, 12.0, y(0.5), "share that came true");
    out + "</svg>"
}

/// How long before their failures warnings came, up to the horizon.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place among the bars")]
pub(super) fn leads(leads: &[Millis], longest: Millis) -> String {
    let (side_x, side_y) = (SQUARE * 1.4 - LEFT - RIGHT, SQUARE - TOP - BOTTOM);
    let mut bars = [0_u32; BARS];
    for lead in leads {
        let place = lead.0 as f64 / longest.0.max(1) as f64 * BARS as f64;
        bars[(place.max(0.0) as usize).min(BARS - 1)] += 1;
    }
    let most = f64::from(bars.iter().copied().max().unwrap_or(0).max(1));
    let mut out = open(SQUARE * 1.4, SQUARE, "Lead times: from the first warning to the failure");
    frame(&mut out, (LEFT, TOP, side_x, side_y));
    let width = side_x / BARS as f64;
    for (index, count) in bars.iter().enumerate().filter(|(_, count)| **count > 0) {
        let height = f64::from(*count) / most * side_y;
        let _ = write!(
            out,
            "<rect class=\"bar\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\"><title>{count}</title></rect>",
            LEFT + index as f64 * width + 1.0,
            TOP + side_y - height,
            width - 2.0,
        );
    }
    for part in [0, 1, 2] {
        let at = LEFT + side_x * f64::from(part) / 2.0;
        text(&mut out, "middle", at, SQUARE - BOTTOM + 16.0, &(longest * i64::from(part) / 2).to_string());
    }
    text(&mut out, "end", LEFT - 6.0, TOP + 8.0, &short(most));
    text(&mut out, "end", LEFT - 6.0, TOP + side_y, "0");
    text(&mut out, "middle", LEFT + side_x / 2.0, SQUARE - 4.0, "lead");
    vertical(&mut out, 12.0, TOP + side_y / 2.0, "failures");
    out + "</svg>"
}

/// Where times and values lie on a timeline.
struct Scale {
    from: Timestamp,
    to: Timestamp,
    low: f64,
    high: f64,
}

impl Scale {
    fn x(&self, at: Timestamp) -> f64 {
        let share = (at - self.from).0 as f64 / (self.to - self.from).0.max(1) as f64;
        LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        // Halves keep the difference of two huge values finite.
        let share = (value / 2.0 - self.low / 2.0) / (self.high / 2.0 - self.low / 2.0);
        TOP + (1.0 - share.clamp(0.0, 1.0)) * SIGNAL_HEIGHT
    }
}

/// The course of a component: signal and threshold, failures shaded, the times of firing as bars by what they were, and the
/// probability below.
pub(super) fn timeline(name: &str, track: &Track, failures: &[Failure], terms: &Terms, from: Timestamp) -> String {
    let height = TOP + SIGNAL_HEIGHT + BETWEEN + PROBABILITY_HEIGHT + BOTTOM;
    let mut out = open(WIDTH, height, &format!("Course of {name}"));
    let scale = scale(&track.course, (from, terms.end));
    let below = TOP + SIGNAL_HEIGHT + BETWEEN;
    let warm = scale.x(terms.warm_until) - LEFT;
    let _ = write!(
        out,
        "<rect class=\"warm\" x=\"{LEFT}\" y=\"{TOP}\" width=\"{warm:.1}\" height=\"{:.1}\"><title>warm-up</title></rect>",
        SIGNAL_HEIGHT + BETWEEN + PROBABILITY_HEIGHT
    );
    for failure in failures {
        let until = failure.until.unwrap_or(terms.end);
        let title = format!("failure from {} to {}", readable(failure.at), readable(until));
        stretch(&mut out, &scale, "failure", (failure.at, until), (TOP, SIGNAL_HEIGHT), &title);
    }
    frame(&mut out, (LEFT, TOP, WIDTH - LEFT - RIGHT, SIGNAL_HEIGHT));
    frame(&mut out, (LEFT, below, WIDTH - LEFT - RIGHT, PROBABILITY_HEIGHT));
    curve(&mut out, "threshold", &course(&track.course, |point| point.threshold), |at, v| (scale.x(at), scale.y(v)));
    curve(&mut out, "signal", &course(&track.course, |point| point.value), |at, v| (scale.x(at), scale.y(v)));
    let probability_y = |share: f64| below + (1.0 - share.clamp(0.0, 1.0)) * PROBABILITY_HEIGHT;
    for episode in &track.episodes {
        let worth = terms.verdicts(episode, failures).into_iter().map(|(_, verdict)| verdict);
        let class = match worth.clone().find(|v| *v == Verdict::Hit).or(worth.max()) {
            Some(Verdict::Hit) => "hit",
            Some(Verdict::False) => "false",
            _ => "neutral",
        };
        let until = episode.end.unwrap_or(terms.end);
        let title = format!(
            "fired from {} to {}, probability up to {:.2}: {class}",
            readable(episode.start),
            readable(until),
            episode.probability
        );
        stretch(&mut out, &scale, class, (episode.start, until), (below, PROBABILITY_HEIGHT), &title);
    }
    let said = course(&track.course, |point| point.probability);
    curve(&mut out, "probability", &said, |at, share| (scale.x(at), probability_y(share)));
    text(&mut out, "end", LEFT - 6.0, TOP + 10.0, &short(scale.high));
    text(&mut out, "end", LEFT - 6.0, TOP + SIGNAL_HEIGHT, &short(scale.low));
    text(&mut out, "end", LEFT - 6.0, below + 10.0, "P 1");
    text(&mut out, "end", LEFT - 6.0, below + PROBABILITY_HEIGHT, "0");
    for index in 0..TIME_LABELS {
        let at = scale.from + (scale.to - scale.from) * index / (TIME_LABELS - 1);
        let anchor = if index == 0 {
            "start"
        } else if index == TIME_LABELS - 1 {
            "end"
        } else {
            "middle"
        };
        text(&mut out, anchor, scale.x(at), height - BOTTOM + 16.0, &readable(Timestamp(at.0 / 60_000 * 60_000)));
    }
    out + "</svg>"
}

/// Room for all values and thresholds, with a twentieth to spare.
fn scale(course: &[Point], (from, to): (Timestamp, Timestamp)) -> Scale {
    let values = course.iter().flat_map(|point| [point.value, point.threshold]).flatten().filter(|v| v.is_finite());
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if low > high {
        return Scale { from, to, low: 0.0, high: 1.0 };
    }
    let room = ((high / 20.0) - (low / 20.0)).max(low.abs().max(high.abs()) * 1e-9).max(1e-300);
    Scale { from, to, low: (low - room).max(f64::MIN), high: (high + room).min(f64::MAX) }
}

/// Points of a line, with gaps: of each stretch the lowest and the highest, in their order.
fn course(points: &[Point], of: impl Fn(&Point) -> Option<f64>) -> Vec<Option<(Timestamp, f64)>> {
    let each = points.len().div_ceil(STRETCHES_MAX).max(1);
    let mut line = Vec::new();
    for stretch in points.chunks(each) {
        let known: Vec<(Timestamp, f64)> =
            stretch.iter().filter_map(|point| Some((point.at, of(point).filter(|v| v.is_finite())?))).collect();
        let lowest = known.iter().min_by(|a, b| a.1.total_cmp(&b.1));
        let highest = known.iter().max_by(|a, b| a.1.total_cmp(&b.1));
        match (lowest, highest) {
            (Some(low), Some(high)) if low.0 == high.0 => line.push(Some(*low)),
            (Some(low), Some(high)) if low.0 < high.0 => line.extend([Some(*low), Some(*high)]),
            (Some(low), Some(high)) => line.extend([Some(*high), Some(*low)]),
            _ => line.push(None),
        }
    }
    line
}

fn curve(
    out: &mut String,
    class: &str,
    line: &[Option<(Timestamp, f64)>],
    place: impl Fn(Timestamp, f64) -> (f64, f64),
) {
    let mut path = String::new();
    let mut pen = "M";
    for point in line {
        match point {
            Some((at, value)) => {
                let (x, y) = place(*at, *value);
                let _ = write!(path, "{pen}{x:.1} {y:.1}");
                pen = "L";
            }
            None => pen = "M",
        }
    }
    if !path.is_empty() {
        let _ = write!(out, "<path class=\"{class}\" d=\"{path}\"/>");
    }
}

/// A stretch of time as a bar that can be seen however short it is.
fn stretch(
    out: &mut String,
    scale: &Scale,
    class: &str,
    (from, to): (Timestamp, Timestamp),
    (top, height): (f64, f64),
    title: &str,
) {
    let (left, right) = (scale.x(from), scale.x(to));
    let _ = write!(
        out,
        "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{height}\"><title>{}</title></rect>",
        (right - left).max(1.5),
        escape(title)
    );
}

fn open(width: f64, height: f64, label: &str) -> String {
    let label = escape(label);
    format!(
        "<svg role=\"img\" aria-label=\"{label}\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\">"
    )
}

fn frame(out: &mut String, (x, y, width, height): (f64, f64, f64, f64)) {
    let _ = write!(out, "<rect class=\"frame\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/>");
}

fn line(out: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let _ = write!(
        out,
        "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(out: &mut String, anchor: &str, x: f64, y: f64, words: &str) {
    let _ = write!(out, "<text text-anchor=\"{anchor}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escape(words));
}

fn vertical(out: &mut String, x: f64, y: f64, words: &str) {
    let words = escape(words);
    let _ = write!(
        out,
        "<text text-anchor=\"middle\" transform=\"rotate(-90 {x:.1} {y:.1})\" x=\"{x:.1}\" y=\"{y:.1}\">{words}</text>"
    );
}
