//! Which of several replicas acts: the holder of a `Lease`, as far as its own clock is sure of it.
//!
//! A replica leads from the moment at which it asked for a renewal that was taken, for two thirds of the lease. Another one
//! takes the lease over only after it has seen it unchanged for all of its duration, by a clock of its own. Neither looks at
//! the time that the other wrote. So a process that was frozen finds, when it goes on, that its time is over before anybody
//! else could begin; what checks that right before each write is the [`Fence`].
//!
//! What stays open: a request that had left when the process was frozen. The versions that every write names close it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::super::cut;
use super::KubernetesSettings;
use super::cluster::{Call, Cluster, Fault, micro_time, text};
use crate::clock::Clock;
use crate::model::Millis;

/// The shortest time between two looks at the lease.
const LOOK_EVERY_MIN: Millis = Millis(500);

/// The lease, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseSettings {
    /// The cluster in which it is.
    pub cluster: KubernetesSettings,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How long it holds after a renewal.
    pub duration: Millis,
}

/// Whether this replica may write, asked right before each write. Clones share it.
#[derive(Debug, Clone)]
pub struct Fence(Arc<Until>);

#[derive(Debug)]
struct Until {
    clock: Clock,
    /// On the clock that nobody sets.
    at: AtomicI64,
}

impl Fence {
    fn new(clock: &Clock) -> Fence {
        Fence(Arc::new(Until { clock: clock.clone(), at: AtomicI64::new(i64::MIN) }))
    }

    /// Whether this replica leads at this moment.
    pub fn is_open(&self) -> bool {
        self.left() > Millis::ZERO
    }

    fn left(&self) -> Millis {
        Millis(self.0.at.load(Ordering::Acquire).saturating_sub(self.0.clock.monotonic().0))
    }

    fn open_until(&self, at: Millis) {
        self.0.at.store(at.0, Ordering::Release);
    }

    fn close(&self) {
        self.open_until(Millis(i64::MIN));
    }
}

/// One replica's part in the election.
#[derive(Debug)]
pub struct Leadership {
    settings: LeaseSettings,
    cluster: Cluster,
    identity: String,
    clock: Clock,
    fence: Fence,
    /// How another one's lease looked, and since when it has looked so.
    seen: Mutex<Option<(String, Millis)>>,
}

impl Leadership {
    /// `identity` must be another for each process.
    pub fn new(settings: &LeaseSettings, identity: &str, clock: &Clock) -> Leadership {
        let timeout = settings.cluster.timeout.min(Millis(settings.duration.0 / 3));
        let connection = KubernetesSettings { timeout, ..settings.cluster.clone() };
        Leadership {
            settings: settings.clone(),
            cluster: Cluster::new("leader_election", &connection),
            identity: cut(identity, 200),
            clock: clock.clone(),
            fence: Fence::new(clock),
            seen: Mutex::default(),
        }
    }

    /// What says whether this replica may write.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Looks at the lease again and again until `stop`, then lets go of it, so that another replica need not wait.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let every = Millis(self.settings.duration.0 / 10).max(LOOK_EVERY_MIN);
        loop {
            let led = self.fence.is_open();
            self.look().await;
            if led != self.fence.is_open() {
                tracing::info!(identity = %self.identity, leads = !led, "leadership changed");
            }
            tokio::select! {
                () = self.clock.sleep(every) => {}
                () = &mut stop => break,
            }
        }
        self.let_go().await;
    }

    /// Takes, renews or watches the lease, once.
    pub async fn look(&self) {
        // More than half of the time left: nothing to do.
        if self.fence.left() > Millis(self.settings.duration.0 / 3) {
            return;
        }
        match self.strive().await {
            Ok(()) => {}
            // Somebody else wrote it: what we hold of it is not sure any more.
            Err(Fault::Conflict(_)) => self.fence.close(),
            // The lease holds without a renewal for the rest of its time.
            Err(fault) => {
                tracing::warn!(reason = %self.cluster.error(fault), "the lease could not be looked at");
            }
        }
    }

    async fn strive(&self) -> Result<(), Fault> {
        let asked_at = self.clock.monotonic();
        let lease = match self.cluster.call(&Call::get(self.path(), "get leases")).await {
            Ok(lease) => lease,
            Err(fault) if fault.is_gone() => return self.create(asked_at).await,
            Err(fault) => return Err(fault),
        };
        let holder = text(&lease, "/spec/holderIdentity");
        if holder != self.identity && !self.is_over(&lease, asked_at) {
            return Ok(());
        }
        let mut renewed = lease.clone();
        if holder != self.identity {
            let transitions = lease.pointer("/spec/leaseTransitions").and_then(Value::as_i64).unwrap_or(0);
            renewed["spec"]["leaseTransitions"] = json!(transitions + 1);
            renewed["spec"]["acquireTime"] = json!(micro_time(self.clock.now()));
        }
        renewed["spec"]["holderIdentity"] = json!(self.identity);
        renewed["spec"]["leaseDurationSeconds"] = json!(self.seconds());
        renewed["spec"]["renewTime"] = json!(micro_time(self.clock.now()));
        self.cluster.call(&Call::put(self.path(), renewed, "update leases")).await?;
        self.lead_from(asked_at);
        Ok(())
    }

    async fn create(&self, asked_at: Millis) -> Result<(), Fault> {
        let now = micro_time(self.clock.now());
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": { "name": self.settings.name, "namespace": self.settings.namespace },
            "spec": {
                "holderIdentity": self.identity, "leaseDurationSeconds": self.seconds(),
                "acquireTime": now, "renewTime": now, "leaseTransitions": 0,
            },
        });
        self.cluster.call(&Call::post(self.folder(), lease, "create leases")).await?;
        self.lead_from(asked_at);
        Ok(())
    }

    /// Two thirds of the lease from when it was asked for: whoever waits for all of it begins later.
    fn lead_from(&self, asked_at: Millis) {
        self.fence.open_until(asked_at + Millis(self.settings.duration.0 / 3 * 2));
        *self.seen.lock() = None;
    }

    /// Whether nobody holds the lease: it was let go of, or has not changed for its whole duration before our eyes.
    fn is_over(&self, lease: &Value, now: Millis) -> bool {
        if text(lease, "/spec/holderIdentity").is_empty() {
            return true;
        }
        let version = text(lease, "/metadata/resourceVersion").to_owned();
        let said = lease.pointer("/spec/leaseDurationSeconds").and_then(Value::as_i64).unwrap_or(0);
        let duration = Millis::from_secs(said.clamp(0, 3600)).max(self.settings.duration);
        let mut seen = self.seen.lock();
        match &*seen {
            Some((known, since)) if *known == version => now - *since >= duration,
            _ => {
                *seen = Some((version, now));
                false
            }
        }
    }

    /// Lets go of the lease, if it is ours.
    async fn let_go(&self) {
        if !self.fence.is_open() {
            return;
        }
        self.fence.close();
        let read = self.cluster.call(&Call::get(self.path(), "get leases")).await;
        let Ok(mut lease) = read else { return };
        if text(&lease, "/spec/holderIdentity") == self.identity {
            lease["spec"]["holderIdentity"] = json!("");
            if let Err(fault) = self.cluster.call(&Call::put(self.path(), lease, "update leases")).await {
                tracing::debug!(reason = %self.cluster.error(fault), "the lease was not let go of; it runs out by itself");
            }
        }
    }

    fn seconds(&self) -> i64 {
        self.settings.duration.0.div_euclid(1000).max(1)
    }

    fn folder(&self) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.settings.namespace)
    }

    fn path(&self) -> String {
        format!("{}/{}", self.folder(), self.settings.name)
    }
}
