//! Carries notices to the sinks: a bounded queue for each, so that one that is away holds nobody else up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::notice::Notice;
use super::sinks::Sink;
use crate::act::wait_before_retry;
use crate::clock::Clock;

/// So many notices wait for a sink; above it the oldest are dropped and counted.
pub const QUEUE_MAX: usize = 1000;

/// A notice is tried so often before it is given up and counted.
const ATTEMPTS_MAX: u32 = 6;

/// Carries notices to all sinks.
#[derive(Debug)]
pub struct Notifier {
    lanes: Vec<Lane>,
    clock: Clock,
}

/// How one sink is doing, counted since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkStatus {
    /// The sink.
    pub name: String,
    /// Told.
    pub sent: u64,
    /// Given up, or refused.
    pub failed: u64,
    /// Pushed out of a full queue.
    pub dropped: u64,
    /// Waiting now.
    pub waiting: usize,
}

#[derive(Debug)]
struct Lane {
    sink: Arc<dyn Sink>,
    queue: Mutex<VecDeque<Notice>>,
    filled: Notify,
    /// One notice at a time: a drain waits for the one that is on its way.
    sending: tokio::sync::Mutex<()>,
    sent: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

impl Notifier {
    /// A notifier for these sinks.
    pub fn new(sinks: Vec<Arc<dyn Sink>>, clock: Clock) -> Notifier {
        let lane = |sink| Lane {
            sink,
            queue: Mutex::default(),
            filled: Notify::new(),
            sending: tokio::sync::Mutex::default(),
            sent: AtomicU64::default(),
            failed: AtomicU64::default(),
            dropped: AtomicU64::default(),
        };
        Notifier { lanes: sinks.into_iter().map(lane).collect(), clock }
    }

    /// Queues notices; never waits.
    pub fn push(&self, notices: &[Notice]) {
        for lane in &self.lanes {
            let mut queue = lane.queue.lock();
            for notice in notices {
                if queue.len() >= QUEUE_MAX {
                    queue.pop_front();
                    lane.dropped.fetch_add(1, Ordering::Relaxed);
                }
                queue.push_back(notice.clone());
            }
            lane.filled.notify_one();
        }
    }

    /// Sends what is queued, and what comes, until `shutdown` is there. What is queued then stays: [`Notifier::drain`]
    /// sends it, under whatever limit its caller sets.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) {
        let all = join_all(self.lanes.iter().map(|lane| async {
            loop {
                lane.send_queued(&self.clock).await;
                lane.filled.notified().await;
            }
        }));
        tokio::select! {
            _ = all => {},
            () = shutdown => {},
        }
    }

    /// Sends everything that is queued now, with the usual attempts.
    pub async fn drain(&self) {
        join_all(self.lanes.iter().map(|lane| lane.send_queued(&self.clock))).await;
    }

    /// How the sinks are doing.
    pub fn status(&self) -> Vec<SinkStatus> {
        let of = |lane: &Lane| SinkStatus {
            name: lane.sink.name().to_owned(),
            sent: lane.sent.load(Ordering::Relaxed),
            failed: lane.failed.load(Ordering::Relaxed),
            dropped: lane.dropped.load(Ordering::Relaxed),
            waiting: lane.queue.lock().len(),
        };
        self.lanes.iter().map(of).collect()
    }
}

impl Lane {
    async fn send_queued(&self, clock: &Clock) {
        let _one_at_a_time = self.sending.lock().await;
        loop {
            // Taken only once it is told: what is on its way when the task ends is still queued.
            let Some(notice) = self.queue.lock().front().cloned() else { return };
            self.send(&notice, clock).await;
            let mut queue = self.queue.lock();
            // A full queue may have pushed it out meanwhile.
            if queue.front().is_some_and(|first| first.id == notice.id) {
                queue.pop_front();
            }
        }
    }

    async fn send(&self, notice: &Notice, clock: &Clock) {
        let mut number = 1;
        loop {
            match self.sink.send(notice, clock.now()).await {
                Ok(()) => {
                    self.sent.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Err(error) if error.is_transient() && number < ATTEMPTS_MAX => {
                    let wait = wait_before_retry(number, error.retry_after());
                    // Nobody moves a simulated clock while we wait.
                    if clock.is_simulated() {
                        tokio::task::yield_now().await
                    } else {
                        clock.sleep(wait).await
                    }
                    number += 1;
                }
                Err(error) => {
                    self.failed.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(sink = self.sink.name(), notice = %notice.key, %error, "a notice was not delivered");
                    return;
                }
            }
        }
    }
}
