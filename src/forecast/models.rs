//! The classical models a user may name: each makes a path of expected values from a history.
//!
//! They share one trait, [`Model`], so that one back-test and one way of making intervals serves all of them. Each is
//! tested against forecasts that statsforecast made once (`tests/forecast`).

mod arima;
mod ets;
mod mstl;
mod search;
mod seasonal;
mod simple;
mod stl;
#[cfg(test)]
mod tests;
mod theta;

use super::{ModelChoice, Refusal};

/// A model that turns a history into a path of expected values.
pub(crate) trait Model: std::fmt::Debug + Send + Sync {
    /// The name a user gives it, as in [`ModelChoice`].
    fn name(&self) -> &'static str;

    /// The expected values of the next `steps` steps.
    ///
    /// `history` is regular, finite and oldest first; `seasons` are season lengths in steps, ascending, and may be
    /// empty. A season that is longer than the history allows is left out. The path has `steps` finite values.
    ///
    /// # Errors
    /// [`Refusal::TooShort`] where the history has fewer values than the model needs, [`Refusal::NoFit`] where no
    /// finite path comes out.
    fn path(&self, history: &[f64], seasons: &[usize], steps: usize) -> Result<Vec<f64>, Refusal>;
}

/// The model of a name; none for those that are not classical: `auto` is the bank, `lstm` is trained beforehand.
pub(crate) fn model_of(choice: ModelChoice) -> Option<Box<dyn Model>> {
    Some(match choice {
        ModelChoice::Level => Box::new(simple::Level),
        ModelChoice::Drift => Box::new(simple::Drift),
        ModelChoice::SeasonalNaive => Box::new(simple::SeasonalNaive),
        ModelChoice::Damped => Box::new(ets::Damped),
        ModelChoice::Ets => Box::new(ets::Ets),
        ModelChoice::Mstl => Box::new(mstl::Mstl),
        ModelChoice::Arima => Box::new(arima::Arima),
        ModelChoice::Theta => Box::new(theta::Theta),
        ModelChoice::Auto | ModelChoice::Lstm => return None,
    })
}

/// The expected values of one classical model, without intervals: what benchmarks measure.
///
/// `history` and `seasons` are as in the models' trait: regular and oldest first, seasons in steps and ascending.
///
/// # Errors
/// [`Refusal::Settings`] where the choice is no classical model; else see [`Refusal`].
pub fn expected_path(
    choice: ModelChoice,
    history: &[f64],
    seasons: &[usize],
    steps: usize,
) -> Result<Vec<f64>, Refusal> {
    let model = model_of(choice).ok_or_else(|| Refusal::Settings(format!("{choice:?} is no single model")))?;
    model.path(history, seasons, steps)
}

/// The path if it is whole and finite.
fn finite(model: &'static str, path: Vec<f64>) -> Result<Vec<f64>, Refusal> {
    if path.iter().all(|value| value.is_finite()) { Ok(path) } else { Err(Refusal::NoFit(model)) }
}

/// What a history is divided by before squares are summed, so that the largest values stay finite: its largest
/// magnitude.
fn scale_of(history: &[f64]) -> f64 {
    let largest = history.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    if largest.is_normal() { largest } else { 1.0 }
}

/// Refuses a history that is too short or holds what is no number.
fn check_history(model: &'static str, history: &[f64], needed: usize) -> Result<(), Refusal> {
    if history.len() < needed {
        return Err(Refusal::TooShort { model, got: history.len(), needed });
    }
    if history.iter().all(|value| value.is_finite()) { Ok(()) } else { Err(Refusal::NoFit(model)) }
}
