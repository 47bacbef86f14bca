//! `forestall forecast`: the future of series from a file or a server.
//!
//! ```text
//! CSV file ─┐
//!           ├─▶ series ─▶ forecast_series, on all cores ─▶ table · CSV · JSON · plot
//! a server ─┘
//! ```

mod plot;
mod write;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use rayon::prelude::*;

use super::progress::Progress;
use super::readers::prometheus::Server;
use super::readers::{self, Series, Table, TimeForm};
use super::{BAD_USAGE, complain, runtime};
use crate::clock::Clock;
use crate::forecast::{ModelChoice, Network, Refusal, SeriesForecast, SeriesSettings, forecast_series, train_network};
use crate::model::{Millis, Sample};

/// How many steps ahead a file's series are forecast where nobody says.
const STEPS_DEFAULT: i64 = 48;
/// How far ahead an expression is forecast where nobody says.
const HORIZON_DEFAULT: Millis = Millis::DAY;
/// The most steps ahead.
const STEPS_MAX: i64 = 100_000;
/// The most quantiles.
const QUANTILES_MAX: usize = 99;
/// The most points that an expression is asked for where nobody gives a step.
const POINTS_WANTED: i64 = 5000;
/// The steps that people use.
const NICE_STEPS: [i64; 11] = [15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21_600];
/// How many refusals are named one by one.
const REFUSALS_SHOWN: usize = 50;

/// How forecasts are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people: the times down, the quantiles across.
    Table,
    /// `series,timestamp,quantile,value`, times as in the input.
    Csv,
    /// For programs: an object for each series, with the models that made it.
    Json,
    /// For people: the newest history, the medians and the band between the outer quantiles.
    Plot,
}

/// Flags of `forecast`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("source").required(true).args(["expression", "input"]))]
pub(super) struct ForecastArguments {
    /// A PromQL expression; each of its series is forecast.
    #[arg(value_name = "EXPR")]
    expression: Option<String>,
    /// A CSV file instead, `-` for standard input: `series,timestamp,value`, or `timestamp` and a column for each series.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// The server that answers the expression: forestall, Prometheus, or what speaks its query API.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9797", conflicts_with = "input")]
    url: String,
    /// How much history an expression is asked for.
    #[arg(long, value_name = "DURATION", default_value = "14d", value_parser = Millis::parse, conflicts_with = "input")]
    lookback: Millis,
    /// The distance between values. Without it: the median distance in each series of a file; for an expression one
    /// that gives at most 5000 points.
    #[arg(long, value_name = "DURATION", value_parser = Millis::parse)]
    step: Option<Millis>,
    /// How far ahead. Without it: 48 steps of a file's series, a day for an expression.
    #[arg(long, value_name = "DURATION", value_parser = Millis::parse)]
    horizon: Option<Millis>,
    /// The quantiles, each between 0 and 1.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "0.05,0.5,0.95")]
    quantiles: Vec<f64>,
    /// The model.
    #[arg(long, default_value = "auto", value_parser = model_parser())]
    model: ModelChoice,
    /// Season lengths, such as 1d,7d; without it they are found.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = Millis::parse)]
    seasons: Vec<Millis>,
    /// Values are never below this.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    floor: Option<f64>,
    /// Values are never above this.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    ceiling: Option<f64>,
    /// Where to write, `-` for standard output.
    #[arg(long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// How to write; without it a table on a terminal, JSON into a file called `.json`, CSV everywhere else.
    #[arg(long, value_enum)]
    format: Option<Format>,
}

fn model_parser() -> impl clap::builder::TypedValueParser<Value = ModelChoice> {
    PossibleValuesParser::new(ModelChoice::ALL.map(ModelChoice::name))
        .map(|name| ModelChoice::ALL.into_iter().find(|model| model.name() == name).unwrap_or_default())
}

/// One series with what is foretold of it.
struct Foretold {
    series: Series,
    forecast: SeriesForecast,
}

/// Forecasts and writes.
pub(super) fn run(arguments: &ForecastArguments) -> anyhow::Result<ExitCode> {
    if let Some(wrong) = wrong_usage(arguments) {
        complain(&wrong);
        return Ok(ExitCode::from(BAD_USAGE));
    }
    let (table, step) = match (&arguments.input, &arguments.expression) {
        (Some(file), _) => {
            let (name, text) = readers::open(file)?;
            (readers::csv::read(&name, text)?, arguments.step)
        }
        (None, expression) => {
            let step = arguments.step.unwrap_or_else(|| nice_step(arguments.lookback));
            let table = asked(arguments, expression.as_deref().unwrap_or_default(), step)?;
            (table, Some(step))
        }
    };
    if table.repeated > 0 {
        complain(&format!("{} values were left out: their series has one at that time already", table.repeated));
    }
    let (foretold, refused) = foretell(arguments, table.series, step);
    let text = match format_of(arguments) {
        Format::Table => write::table(&foretold, table.form),
        Format::Csv => write::csv(&foretold, table.form)?,
        Format::Json => write::json(&foretold, table.form)?,
        Format::Plot => plot::plot(&foretold, plot::width()),
    };
    write::out(&arguments.output, &text)?;
    for (name, why) in refused.iter().take(REFUSALS_SHOWN) {
        complain(&format!("series {} is left out: {why}", readers::shown(name)));
    }
    if refused.len() > REFUSALS_SHOWN {
        complain(&format!("and {} series more", refused.len() - REFUSALS_SHOWN));
    }
    Ok(if refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What no series could be forecast with.
fn wrong_usage(arguments: &ForecastArguments) -> Option<String> {
    let levels = &arguments.quantiles;
    if let Some(wrong) = levels.iter().find(|level| !(**level > 0.0 && **level < 1.0)) {
        return Some(format!(
            "--quantiles: {wrong} is no quantile; write numbers between 0 and 1, such as 0.05,0.5,0.95"
        ));
    }
    if levels.len() > QUANTILES_MAX {
        return Some(format!("--quantiles: {} are too many; at most {QUANTILES_MAX}", levels.len()));
    }
    let spans =
        [("--step", arguments.step), ("--horizon", arguments.horizon), ("--lookback", Some(arguments.lookback))];
    let seasons = arguments.seasons.iter().map(|season| ("--seasons", Some(*season)));
    if let Some((name, _)) = spans.into_iter().chain(seasons).find(|(_, span)| *span == Some(Millis::ZERO)) {
        return Some(format!("{name}: 0 is too short; write a duration such as 5m, 1h or 1d"));
    }
    if let (Some(step), Some(horizon)) = (arguments.step, arguments.horizon) {
        if horizon < step {
            return Some(format!("--horizon: {horizon} is shorter than a step of {step}"));
        }
        if horizon.0 / step.0 > STEPS_MAX {
            let most = step * STEPS_MAX;
            return Some(format!("--horizon: {horizon} is more than {STEPS_MAX} steps of {step}; at most {most}"));
        }
    }
    for (name, bound) in [("--floor", arguments.floor), ("--ceiling", arguments.ceiling)] {
        if bound.is_some_and(|bound| !bound.is_finite()) {
            return Some(format!("{name}: not a finite number"));
        }
    }
    match (arguments.floor, arguments.ceiling) {
        (Some(floor), Some(ceiling)) if floor >= ceiling => {
            Some(format!("--floor: {floor} is not below --ceiling {ceiling}"))
        }
        _ => None,
    }
}

fn format_of(arguments: &ForecastArguments) -> Format {
    let on_terminal = write::is_standard(&arguments.output) && std::io::IsTerminal::is_terminal(&std::io::stdout());
    let is_json = arguments.output.extension().is_some_and(|extension| extension == "json");
    arguments.format.unwrap_or(match (on_terminal, is_json) {
        (true, _) => Format::Table,
        (false, true) => Format::Json,
        (false, false) => Format::Csv,
    })
}

/// The shortest step that people use and that gives few enough points.
fn nice_step(lookback: Millis) -> Millis {
    let nice = NICE_STEPS.into_iter().map(Millis::from_secs).find(|step| lookback.0 / step.0 <= POINTS_WANTED);
    nice.unwrap_or(Millis(lookback.0 / POINTS_WANTED).max(Millis::DAY))
}

/// The series of an expression up to now.
fn asked(arguments: &ForecastArguments, expression: &str, step: Millis) -> anyhow::Result<Table> {
    let end = Clock::wall().now().align_down(step);
    let start = (end - arguments.lookback).align_down(step);
    let mut server = Server::new(&arguments.url)?;
    let found = runtime()?.block_on(server.range(expression, (start, end, step)))?;
    anyhow::ensure!(
        !found.is_empty(),
        "{} has nothing for {} in the last {}",
        arguments.url,
        readers::shown(expression),
        arguments.lookback
    );
    let series = found.into_iter().map(|(labels, samples)| Series { name: labels.to_string(), samples });
    Ok(Table { series: series.collect(), form: TimeForm::Rfc3339, repeated: 0 })
}

/// Forecasts on all cores; the series that cannot be forecast come back with the reason.
fn foretell(
    arguments: &ForecastArguments,
    series: Vec<Series>,
    step: Option<Millis>,
) -> (Vec<Foretold>, Vec<(String, String)>) {
    let networks = networks(arguments, &series, step);
    let progress = Progress::new(series.len(), "forecasting");
    let all: Vec<Result<Foretold, (String, String)>> = series
        .into_par_iter()
        .map(|series| {
            let forecast = settings_for(arguments, &series.samples, step)
                .map(|settings| SeriesSettings { network: networks.get(&settings.step).cloned(), ..settings })
                .and_then(|settings| forecast_series(&series.samples, &settings));
            progress.step();
            match forecast {
                Ok(forecast) => Ok(Foretold { series, forecast }),
                Err(refusal) => Err((series.name, refusal.to_string())),
            }
        })
        .collect();
    progress.end();
    let (mut foretold, mut refused) = (Vec::new(), Vec::new());
    for one in all {
        match one {
            Ok(one) => foretold.push(one),
            Err(one) => refused.push(one),
        }
    }
    (foretold, refused)
}

/// For the model that is trained: a network for each step that series have, trained on all of them.
fn networks(arguments: &ForecastArguments, series: &[Series], step: Option<Millis>) -> BTreeMap<Millis, Arc<Network>> {
    let mut by_step: BTreeMap<Millis, (SeriesSettings, Vec<&[Sample]>)> = BTreeMap::new();
    for series in series.iter().filter(|_| arguments.model == ModelChoice::Lstm) {
        let Ok(settings) = settings_for(arguments, &series.samples, step) else { continue };
        by_step.entry(settings.step).or_insert((settings, Vec::new())).1.push(&series.samples);
    }
    let trained = by_step.into_par_iter().map(|(step, (settings, all))| Some((step, train_network(&all, &settings)?)));
    trained.flatten().collect()
}

fn settings_for(
    arguments: &ForecastArguments,
    samples: &[Sample],
    step: Option<Millis>,
) -> Result<SeriesSettings, Refusal> {
    let given = |what: &str| Refusal::Settings(what.to_owned());
    let step =
        step.or_else(|| median_distance(samples)).ok_or_else(|| given("one value has no distance: give --step"))?;
    let horizon = match (arguments.horizon, &arguments.input) {
        (Some(horizon), _) => horizon,
        (None, Some(_)) => step * STEPS_DEFAULT,
        (None, None) => HORIZON_DEFAULT.max(step),
    };
    if horizon < step {
        return Err(Refusal::Settings(format!("the horizon of {horizon} is shorter than its step of {step}")));
    }
    if horizon.0 / step.0 > STEPS_MAX {
        return Err(Refusal::Settings(format!("the horizon of {horizon} is more than {STEPS_MAX} steps of {step}")));
    }
    let mut levels = arguments.quantiles.clone();
    levels.sort_by(f64::total_cmp);
    levels.dedup_by(|a, b| a.total_cmp(b).is_eq());
    Ok(SeriesSettings {
        step,
        horizon,
        seasons: arguments.seasons.clone(),
        model: arguments.model,
        levels,
        floor: arguments.floor,
        ceiling: arguments.ceiling,
        network: None,
    })
}

/// The median distance between samples in time order; none where there are fewer than two.
pub(super) fn median_distance(samples: &[Sample]) -> Option<Millis> {
    let mut distances: Vec<i64> = samples.windows(2).map(|two| (two[1].at - two[0].at).0).collect();
    if distances.is_empty() {
        return None;
    }
    let middle = (distances.len() - 1) / 2;
    let (_, median, _) = distances.select_nth_unstable(middle);
    Some(Millis((*median).max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn a_step_is_one_that_people_use() {
        for (lookback, step) in [("14d", "5m"), ("1h", "15s"), ("1d", "30s"), ("90d", "30m"), ("20y", "1d11h2m24s")] {
            let lookback = Millis::parse(lookback).expect("a duration");
            assert_eq!(nice_step(lookback).to_string(), step, "{lookback}");
        }
    }

    #[test]
    fn the_distance_of_most_values_is_their_step() {
        let at = |times: &[i64]| {
            times.iter().map(|at| Sample { at: Timestamp::from_secs(*at), value: 0.0 }).collect::<Vec<_>>()
        };
        assert_eq!(median_distance(&at(&[0, 60, 120, 600, 660])), Some(Millis::MINUTE));
        assert_eq!(median_distance(&at(&[0, 60, 180])), Some(Millis::MINUTE));
        assert_eq!(median_distance(&at(&[0])), None);
    }
}
