//! What benchmarks measure of a bank: fit, update, forecast and size, without what surrounds it in a series' forecast.

use super::Refusal;
use super::bank::{Bank, BankSettings, BankSize};

/// A bank of one series, for measurements.
#[derive(Debug)]
pub struct BankMeter {
    bank: Bank,
}

impl BankMeter {
    /// Fits all members to a regular history, with intervals; seasons in steps, ascending.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn full(history: &[f64], seasons: &[usize], steps: usize) -> Result<BankMeter, Refusal> {
        BankMeter::fit(BankSize::Full, history, seasons, steps)
    }

    /// Fits the cheap members only: what series without a rule get.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn lite(history: &[f64], seasons: &[usize], steps: usize) -> Result<BankMeter, Refusal> {
        BankMeter::fit(BankSize::Lite, history, seasons, steps)
    }

    fn fit(size: BankSize, history: &[f64], seasons: &[usize], steps: usize) -> Result<BankMeter, Refusal> {
        let settings = BankSettings { steps, seasons: seasons.to_vec(), size, model: None, floor: None, ceiling: None };
        Ok(BankMeter { bank: Bank::fit(settings, 0, history)? })
    }

    /// Takes the next value, and does not refit: [`BankMeter::needs_refit`].
    pub fn push(&mut self, value: f64) {
        self.bank.push(Some(value));
    }

    /// Whether a refit is due.
    pub fn needs_refit(&self) -> bool {
        self.bank.needs_refit()
    }

    /// Fits anew to the history it has.
    pub fn refit(&mut self) {
        self.bank.refit();
    }

    /// The quantiles of the next steps, `[level][step]`.
    pub fn forecast(&self, levels: &[f64]) -> Vec<Vec<f64>> {
        let forecast = self.bank.forecast();
        levels.iter().map(|level| forecast.quantile(*level)).collect()
    }

    /// What it holds, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.bank.memory_bytes()
    }
}
