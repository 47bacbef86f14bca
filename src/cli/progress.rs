//! A bar on standard error for what takes longer than a second; nothing where nobody looks.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What takes less than this needs no bar.
const SHOWN_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

/// How far something is.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    shown: AtomicBool,
}

impl Progress {
    /// Of so many steps; `what` is being done.
    pub(super) fn new(steps: usize, what: &'static str) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(steps as u64), ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template("{msg} {bar:40} {percent:>3} % {eta}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(what);
        let watched = std::io::stderr().is_terminal();
        Progress { bar, shown: AtomicBool::new(!watched) }
    }

    /// One step more.
    pub(super) fn step(&self) {
        self.bar.inc(1);
        if !self.shown.load(Ordering::Relaxed) && self.bar.elapsed() >= SHOWN_AFTER {
            self.shown.store(true, Ordering::Relaxed);
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
