//! Forecasts as table, CSV and JSON, and where they are written.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::Foretold;
use crate::cli::figures::{number, readable, short};
use crate::cli::readers::TimeForm;
use crate::cli::say;
use crate::model::{Millis, Timestamp};

/// A table with more steps than twice this shows about so many of them.
const TABLE_ROWS: usize = 24;

/// Whether it is standard output.
pub(super) fn is_standard(output: &Path) -> bool {
    output == Path::new("-")
}

/// Writes to a file or to standard output.
///
/// # Errors
/// Where the file cannot be written.
pub(super) fn out(output: &Path, text: &str) -> anyhow::Result<()> {
    if is_standard(output) {
        if !text.is_empty() {
            say(text.trim_end_matches('\n'));
        }
        return Ok(());
    }
    std::fs::write(output, text).with_context(|| format!("{} cannot be written", output.display()))
}

/// `series,timestamp,quantile,value`: by series, time, quantile.
///
/// # Errors
/// None that memory does not give.
pub(super) fn csv(foretold: &[Foretold], form: TimeForm) -> anyhow::Result<String> {
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    writer.write_record(["series", "timestamp", "quantile", "value"])?;
    for Foretold { series, forecast } in foretold {
        for (step, at) in times(forecast.start, forecast.step, steps(forecast)) {
            let at = form.write(at);
            for (level, values) in forecast.levels.iter().zip(&forecast.values) {
                writer.write_record([&series.name, &at, &level.to_string(), &number(values[step])])?;
            }
        }
    }
    Ok(String::from_utf8(writer.into_inner().map_err(|error| error.into_error())?)?)
}

/// An array with an object for each series; `values` has an array for each quantile, by its name.
///
/// # Errors
/// None that memory does not give.
pub(super) fn json(foretold: &[Foretold], form: TimeForm) -> anyhow::Result<String> {
    let time = |at: Timestamp| match form {
        TimeForm::Rfc3339 => Value::String(form.write(at)),
        TimeForm::Seconds if at.0 % 1000 != 0 => json!(at.as_secs_f64()),
        TimeForm::Seconds => json!(at.0 / 1000),
        TimeForm::Millis => json!(at.0),
    };
    let objects = foretold.iter().map(|Foretold { series, forecast }| {
        let values = forecast.levels.iter().zip(&forecast.values);
        let values: Map<String, Value> = values.map(|(level, values)| (level.to_string(), json!(values))).collect();
        let timestamps = times(forecast.start, forecast.step, steps(forecast)).map(|(_, at)| time(at));
        json!({
            "series": series.name,
            "step_seconds": forecast.step.as_secs_f64(),
            "timestamps": timestamps.collect::<Vec<_>>(),
            "quantiles": values,
            "models": forecast.members.iter().map(|(name, weight)| json!({"name": name, "weight": weight})).collect::<Vec<_>>(),
            "seasons_seconds": forecast.seasons.iter().map(|season| season.as_secs_f64()).collect::<Vec<_>>(),
            "history": forecast.history,
            "missing": forecast.missing,
        })
    });
    Ok(serde_json::to_string_pretty(&Value::Array(objects.collect()))? + "\n")
}

/// For people: what was seen, which models spoke, and about two dozen of the steps.
pub(super) fn table(foretold: &[Foretold], form: TimeForm) -> String {
    let mut out = String::new();
    for Foretold { series, forecast } in foretold {
        let _ = writeln!(out, "{}", series.name);
        let _ = writeln!(out, "  {}", summary(forecast));
        let every = (steps(forecast) / TABLE_ROWS).max(1);
        let rows: Vec<Vec<String>> = times(forecast.start, forecast.step, steps(forecast))
            .filter(|(step, _)| (step + 1) % every == 0 || *step == 0)
            .map(|(step, at)| {
                let at = if form == TimeForm::Rfc3339 { form.write(at) } else { readable(at) };
                std::iter::once(at).chain(forecast.values.iter().map(|values| short(values[step]))).collect()
            })
            .collect();
        let header = std::iter::once("time (UTC)".to_owned()).chain(forecast.levels.iter().map(ToString::to_string));
        let header: Vec<String> = header.collect();
        let width = |column: usize| {
            let cells = std::iter::once(&header).chain(&rows).map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..header.len()).map(width).collect();
        for row in std::iter::once(&header).chain(&rows) {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
                if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            let _ = writeln!(out, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
        if every > 1 {
            let _ = writeln!(out, "  one step in {every} is shown; --format csv has all of them");
        }
        out.push('\n');
    }
    out
}

/// What a forecast was made from, in a line.
pub(super) fn summary(forecast: &crate::forecast::SeriesForecast) -> String {
    let models: Vec<String> = match &forecast.members[..] {
        [(name, _)] => vec![name.clone()],
        members => members.iter().take(3).map(|(name, weight)| format!("{name} {:.0} %", weight * 100.0)).collect(),
    };
    let seasons: Vec<String> = forecast.seasons.iter().map(Millis::to_string).collect();
    let seasons = if seasons.is_empty() { "no season".to_owned() } else { format!("season {}", seasons.join(", ")) };
    let missing = if forecast.missing > 0 { format!(", {} missing", forecast.missing) } else { String::new() };
    format!(
        "{} values{missing} every {}; {seasons}; model {}{}",
        forecast.history,
        forecast.step,
        models.join(", "),
        if forecast.members.len() > 3 { ", …" } else { "" }
    )
}

/// The steps with their times.
fn times(start: Timestamp, step: Millis, steps: usize) -> impl Iterator<Item = (usize, Timestamp)> {
    (0..steps).scan(start, move |at, index| {
        let now = *at;
        *at = *at + step;
        Some((index, now))
    })
}

fn steps(forecast: &crate::forecast::SeriesForecast) -> usize {
    forecast.values.first().map_or(0, Vec::len)
}
