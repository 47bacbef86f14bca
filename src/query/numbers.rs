//! Arithmetic that several parts of the evaluation share: compensated sums, means, quantiles, regression, dates.

use crate::model::{Millis, Sample, Timestamp};

/// A sum with Neumaier's compensation for what rounding loses; once it is infinite, it stays so.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sum {
    total: f64,
    lost: f64,
}

impl Sum {
    /// A sum that starts with a value.
    pub(super) fn of(value: f64) -> Sum {
        Sum { total: value, lost: 0.0 }
    }

    /// The sum with one more value.
    #[must_use]
    pub(super) fn plus(self, value: f64) -> Sum {
        let total = self.total + value;
        let lost = if total.is_infinite() {
            0.0
        } else if self.total.abs() >= value.abs() {
            self.lost + ((self.total - total) + value)
        } else {
            self.lost + ((value - total) + self.total)
        };
        Sum { total, lost }
    }

    /// Its value.
    pub(super) fn value(self) -> f64 {
        if self.total.is_infinite() { self.total } else { self.total + self.lost }
    }

    fn scaled(self, by: f64) -> Sum {
        Sum { total: self.total * by, lost: self.lost * by }
    }
}

/// A mean that does not overflow where the sum would: from there on it is kept up value by value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mean {
    sum: Sum,
    count: f64,
    incremental: bool,
}

impl Mean {
    /// The mean of one value.
    pub(super) fn of(value: f64) -> Mean {
        Mean { sum: Sum::of(value), count: 1.0, incremental: false }
    }

    /// Adds a value.
    pub(super) fn add(&mut self, value: f64) {
        self.count += 1.0;
        if !self.incremental {
            let sum = self.sum.plus(value);
            if !sum.total.is_infinite() {
                self.sum = sum;
                return;
            }
            self.incremental = true;
            let before = self.count - 1.0;
            self.sum = Sum { total: self.sum.total / before, lost: self.sum.lost / before };
        }
        self.sum = self.sum.scaled((self.count - 1.0) / self.count).plus(value / self.count);
    }

    /// Its value.
    pub(super) fn value(self) -> f64 {
        if self.incremental {
            self.sum.total + self.sum.lost
        } else {
            self.sum.total / self.count + self.sum.lost / self.count
        }
    }
}

/// The population variance of values, by Welford's method with compensated sums.
pub(super) fn variance(values: impl Iterator<Item = f64>) -> f64 {
    let (mut count, mut mean, mut squares) = (0.0, Sum::default(), Sum::default());
    for value in values {
        count += 1.0;
        let delta = value - (mean.total + mean.lost);
        mean = mean.plus(delta / count);
        squares = squares.plus(delta * (value - (mean.total + mean.lost)));
    }
    (squares.total + squares.lost) / count
}

/// The population variance of the values of several series, which Prometheus sums up without compensation; NaN where the
/// first value is not finite.
#[derive(Debug, Clone, Copy)]
pub(super) struct Variance {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Variance {
    /// Of one value.
    pub(super) fn of(value: f64) -> Variance {
        Variance { count: 1.0, mean: value, squares: if value.is_finite() { 0.0 } else { f64::NAN } }
    }

    /// Adds a value.
    pub(super) fn add(&mut self, value: f64) {
        self.count += 1.0;
        let delta = value - self.mean;
        self.mean += delta / self.count;
        self.squares += delta * (value - self.mean);
    }

    /// Its value.
    pub(super) fn value(self) -> f64 {
        self.squares / self.count
    }
}

/// The `q`-quantile of values with linear interpolation between ranks; NaN sorts lowest. Below 0 it is −∞, above 1 +∞.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank lies between 0 and the number of values"
)]
pub(super) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_unstable_by(|a, b| compare(*a, *b));
    let rank = q * (values.len() - 1) as f64;
    let lower = rank.floor() as usize;
    let upper = (lower + 1).min(values.len() - 1);
    let weight = rank - rank.floor();
    values[lower] * (1.0 - weight) + values[upper] * weight
}

/// An order of all numbers: NaN below everything else.
pub(super) fn compare(a: f64, b: f64) -> std::cmp::Ordering {
    b.is_nan().cmp(&a.is_nan()).then_with(|| a.partial_cmp(&b).unwrap_or(std::cmp::Ordering::Equal))
}

/// The greater of two numbers; NaN if one is NaN, unless the other is +∞.
pub(super) fn greater(a: f64, b: f64) -> f64 {
    if same(a, f64::INFINITY) || same(b, f64::INFINITY) {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if same(a, b) {
        // Of two zeros the one without a minus.
        if a.is_sign_negative() { b } else { a }
    } else {
        a.max(b)
    }
}

/// The lesser of two numbers; NaN if one is NaN, unless the other is −∞.
pub(super) fn lesser(a: f64, b: f64) -> f64 {
    -greater(-a, -b)
}

/// Slope (per second) and value at `origin` of the least-squares line through samples.
pub(super) fn regression(samples: &[Sample], origin: Timestamp, times: &mut Times) -> (f64, f64) {
    let first = samples[0].value;
    if samples.iter().all(|s| same(s.value, first)) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    times.be_of(samples, origin);
    let [mut y_sum, mut xy_sum] = [Sum::default(); 2];
    for (sample, x) in samples.iter().zip(&times.seconds) {
        y_sum = y_sum.plus(sample.value);
        xy_sum = xy_sum.plus(x * sample.value);
    }
    let n = samples.len() as f64;
    let [x, y, xy, xx] = [times.sum, y_sum, xy_sum, times.sum_of_squares].map(|sum| sum.total + sum.lost);
    let slope = (xy - x * y / n) / (xx - x * x / n);
    (slope, y / n - slope * x / n)
}

/// The times of a regression, which are mostly the same for one window after the other and one series after the other.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// From the origin, in milliseconds and in seconds.
    millis: Vec<Millis>,
    seconds: Vec<f64>,
    sum: Sum,
    sum_of_squares: Sum,
}

impl Times {
    fn be_of(&mut self, samples: &[Sample], origin: Timestamp) {
        let millis = samples.iter().map(|sample| sample.at - origin);
        if self.millis.len() == samples.len() && self.millis.iter().copied().eq(millis.clone()) {
            return;
        }
        self.millis.clear();
        self.millis.extend(millis);
        self.seconds.clear();
        self.seconds.extend(self.millis.iter().map(|millis| millis.as_secs_f64()));
        self.sum = self.seconds.iter().fold(Sum::default(), |sum, x| sum.plus(*x));
        self.sum_of_squares = self.seconds.iter().fold(Sum::default(), |sum, x| sum.plus(x * x));
    }
}

/// Whether two numbers are equal, exactly; NaN is not equal to NaN.
#[expect(clippy::float_cmp, reason = "PromQL's equality is exact")]
pub(super) fn same(a: f64, b: f64) -> bool {
    a == b
}

/// The sign as −1 or 1; zero and NaN stay what they are.
pub(super) fn sign(value: f64) -> f64 {
    if value > 0.0 {
        1.0
    } else if value < 0.0 {
        -1.0
    } else {
        value
    }
}

/// A number as Go's `strconv.FormatFloat(value, 'f', -1, 64)` writes it.
pub(super) fn format(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() };
    }
    value.to_string()
}

/// A number as [`format`] has it, but with an exponent of at least two digits for the very small and the very large, as
/// Prometheus writes values into JSON.
pub(super) fn format_short(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() || same(value, 0.0) || (1e-6..1e21).contains(&size) {
        return format(value);
    }
    with_exponent(value)
}

/// A number as Go's `%g` writes it: with an exponent below 1e-4 and from a million on.
pub(super) fn format_general(value: f64) -> String {
    format_below(value, 1e6)
}

/// A number as Go's `%v` writes it: with an exponent below 1e-4 and from 1e21 on.
pub(super) fn format_plain(value: f64) -> String {
    format_below(value, 1e21)
}

fn format_below(value: f64, limit: f64) -> String {
    let size = value.abs();
    if !value.is_finite() || same(value, 0.0) || (1e-4..limit).contains(&size) {
        return format(value);
    }
    with_exponent(value)
}

fn with_exponent(value: f64) -> String {
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// The number in a text as Go's `strconv.ParseFloat` reads it; hexadecimal floats are not supported.
pub(super) fn parse(text: &str) -> Option<f64> {
    text.parse().ok()
}

/// A date of the proleptic Gregorian calendar, in UTC.
#[derive(Debug, Clone, Copy)]
struct Date {
    year: i64,
    month: u64,
    day: u64,
    /// From 0, beginning in January.
    day_of_year: u64,
    /// Sunday is 0.
    weekday: u64,
    second_of_day: u64,
}

/// The date of a time in seconds since 1970. As with Go on x86-64, what is no 64-bit number is the earliest of them all.
fn date(seconds: f64) -> Date {
    /// Years and seconds from the beginning of the calendar, which is a first of March, to 1970.
    const YEARS: u64 = 292_277_022_400;
    const SECONDS: u64 = (YEARS / 400 * 146_097 + 719_162 + 306) * 86_400;
    const IN_RANGE: std::ops::Range<f64> = -9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0;

    #[expect(clippy::cast_possible_truncation, reason = "in range")]
    let seconds = if IN_RANGE.contains(&seconds) { seconds as i64 } else { i64::MIN };
    let since = seconds.cast_unsigned().wrapping_add(SECONDS);
    let days = since / 86_400;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * from_march + 2) / 153;
    let day = from_march - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = (era * 400 + year_of_era + u64::from(month <= 2)).cast_signed() - YEARS.cast_signed();
    let before: u64 = (1..month).map(|month| month_days(year, month)).sum();
    // That first of March was a Wednesday.
    Date { year, month, day, day_of_year: before + day - 1, weekday: (days + 3) % 7, second_of_day: since % 86_400 }
}

fn month_days(year: i64, month: u64) -> u64 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + u64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The minute of the hour, 0 to 59.
pub(super) fn minute(seconds: f64) -> f64 {
    (date(seconds).second_of_day / 60 % 60) as f64
}

/// The hour of the day, 0 to 23.
pub(super) fn hour(seconds: f64) -> f64 {
    (date(seconds).second_of_day / 3600) as f64
}

/// The day of the week, Sunday is 0.
pub(super) fn day_of_week(seconds: f64) -> f64 {
    date(seconds).weekday as f64
}

/// The day of the month, from 1.
pub(super) fn day_of_month(seconds: f64) -> f64 {
    date(seconds).day as f64
}

/// The day of the year, from 1.
pub(super) fn day_of_year(seconds: f64) -> f64 {
    (date(seconds).day_of_year + 1) as f64
}

/// How many days the month has.
pub(super) fn days_in_month(seconds: f64) -> f64 {
    let Date { year, month, .. } = date(seconds);
    month_days(year, month) as f64
}

/// The month, from 1.
pub(super) fn month(seconds: f64) -> f64 {
    date(seconds).month as f64
}

/// The year.
pub(super) fn year(seconds: f64) -> f64 {
    date(seconds).year as f64
}
