//! Tells the time and waits: the machine's clock, or a simulated one that only moves when it is told to.
//!
//! Whoever needs the time is handed a [`Clock`] or, in the synchronous core, a plain `now`.

use std::sync::Arc;

use tokio::sync::watch;

use crate::model::{Millis, Timestamp};

/// A source of time. Clones share it.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    Wall,
    Simulated(Arc<watch::Sender<Timestamp>>),
}

impl Clock {
    /// The machine's clock.
    pub fn wall() -> Clock {
        Clock(Source::Wall)
    }

    /// A clock that stands at `start` until [`Clock::advance_to`] moves it.
    pub fn simulated(start: Timestamp) -> Clock {
        Clock(Source::Simulated(Arc::new(watch::Sender::new(start))))
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::Wall => wall_now(),
            Source::Simulated(now) => *now.borrow(),
        }
    }

    /// Time since some moment before the first call, by a clock that nobody sets: for how long something has lasted. A simulated
    /// clock has only one time.
    pub fn monotonic(&self) -> Millis {
        match &self.0 {
            Source::Wall => since_first_asked(),
            Source::Simulated(now) => Millis(now.borrow().0),
        }
    }

    /// Whether this clock only moves when told to.
    pub fn is_simulated(&self) -> bool {
        matches!(self.0, Source::Simulated(_))
    }

    /// Waits until `at`; returns at once where that has passed.
    pub async fn sleep_until(&self, at: Timestamp) {
        match &self.0 {
            Source::Wall => loop {
                // Short naps: a machine that was suspended or whose clock was set must not oversleep.
                let left = at - wall_now();
                if left <= Millis::ZERO {
                    return;
                }
                tokio::time::sleep(left.min(Millis::MINUTE).to_std()).await;
            },
            Source::Simulated(now) => {
                let mut now = now.subscribe();
                // The sender lives as long as `self`, so waiting can only end by time.
                let _ = now.wait_for(|now| *now >= at).await;
            }
        }
    }

    /// Waits for a length of time.
    pub async fn sleep(&self, span: Millis) {
        self.sleep_until(self.now() + span).await;
    }

    /// Moves a simulated clock forward and wakes those who wait for a time that has come.
    ///
    /// # Panics
    /// On the machine's clock, and on a step backwards: both are mistakes of the caller.
    pub fn advance_to(&self, at: Timestamp) {
        let Source::Simulated(now) = &self.0 else { panic!("the machine's clock cannot be moved") };
        now.send_modify(|now| {
            assert!(*now <= at, "a simulated clock moves forward only: {now} to {at}");
            *now = at;
        });
    }

    /// Sets a simulated clock, also back, as somebody does who sets a machine's.
    ///
    /// # Panics
    /// On the machine's clock: a mistake of the caller.
    pub fn set_to(&self, at: Timestamp) {
        let Source::Simulated(now) = &self.0 else { panic!("the machine's clock cannot be set") };
        now.send_replace(at);
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
fn wall_now() -> Timestamp {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's steady clock")]
fn since_first_asked() -> Millis {
    static FIRST: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    let first = FIRST.get_or_init(std::time::Instant::now);
    Millis(i64::try_from(first.elapsed().as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_simulated_sleep_ends_when_the_clock_gets_there() {
        let clock = Clock::simulated(Timestamp(0));
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep_until(Timestamp(100)).await }
        });
        clock.advance_to(Timestamp(99));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance_to(Timestamp(100));
        sleeper.await.expect("the sleeper does not panic");
    }
}
