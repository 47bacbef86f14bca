//! A cluster with a few workloads, and what acts on it.

use std::sync::Arc;

use forestall::act::{Actuator, Executor, KubernetesActuator, KubernetesSettings};
use forestall::audit::Journal;
use forestall::clock::Clock;
use forestall::model::{ComponentId, Millis, Timestamp};
use forestall::plan::{Action, ActionKind, Change, Outcome, Plan, Resources, Target, Why};
use serde_json::{Value, json};

use super::server::Server;

/// When a test begins that asks no real control plane.
const NOW: Timestamp = Timestamp(1_790_000_000_000);

thread_local! {
    /// When the test of this thread began: objects of a real control plane are made by its own clock.
    static BEGAN: std::cell::Cell<Timestamp> = const { std::cell::Cell::new(NOW) };
}

/// When the test began: its cluster was there before, and what is made later is made later.
pub(super) fn began() -> Timestamp {
    BEGAN.get()
}

pub(super) const API: &str = "/apis/apps/v1/namespaces/shop/deployments/api";
pub(super) const BATCH: &str = "/apis/apps/v1/namespaces/shop/deployments/batch";
pub(super) const HPA: &str = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/api";
pub(super) const PDB: &str = "/apis/policy/v1/namespaces/shop/poddisruptionbudgets/api";

/// A cluster with three nodes of 4 cores, `shop/api` with three replicas and `shop/batch` with two.
pub(super) struct World {
    pub(super) server: Server,
    pub(super) executor: Executor,
    pub(super) journal: Arc<Journal>,
    pub(super) clock: Clock,
}

impl World {
    pub(super) async fn start() -> World {
        World::with(KubernetesSettings::default()).await
    }

    pub(super) async fn with(settings: KubernetesSettings) -> World {
        let server = Server::start().await;
        if let Some(plane) = server.plane().filter(|_| settings.template_patch) {
            plane.apply("template-patch.yaml", &[]);
            plane.until("the role is in force", || plane.may("patch", "deployments"));
        }
        {
            let mut rules = server.rules();
            for name in ["n1", "n2", "n3"] {
                rules.put(&format!("/api/v1/nodes/{name}"), node(name, "4", "8Gi"));
            }
            for (name, replicas) in [("api", 3), ("batch", 2)] {
                rules.put(&format!("/apis/apps/v1/namespaces/shop/deployments/{name}"), deployment(name, replicas));
            }
            rules.tick();
        }
        BEGAN.set(if server.plane().is_some() { next_second().await } else { NOW });
        let journal = Arc::new(Journal::in_memory());
        let clock = Clock::simulated(began());
        let executor = executor(&server, &journal, &clock, settings);
        World { server, executor, journal, clock }
    }

    /// As after a kill: what was in memory is gone, the journal and the cluster are as they were.
    pub(super) fn restart(&mut self) {
        self.executor = executor(&self.server, &self.journal, &self.clock, KubernetesSettings::default());
    }

    /// Carries one action out, lets the controllers work, and asks until there is an outcome.
    pub(super) async fn carry_out(&self, action: Action) -> (Outcome, String) {
        match self.begin(action.clone()).await {
            Some(done) => done,
            None => self.follow(&action).await,
        }
    }

    /// Carries one action out, and gives what came of it at once.
    pub(super) async fn begin(&self, action: Action) -> Option<(Outcome, String)> {
        let plan = Plan { at: self.clock.now(), actions: vec![action], ..Plan::default() };
        let carried = self.executor.carry_out(&plan).await;
        assert!(carried.stopped.is_none(), "the journal of a test can be written: {:?}", carried.stopped);
        carried.done.into_iter().next().map(|done| (done.outcome, done.detail))
    }

    /// Pass after pass until there is an outcome; an hour at most.
    pub(super) async fn follow(&self, action: &Action) -> (Outcome, String) {
        for _ in 0..120 {
            self.server.rules().tick();
            if let Some(done) = self.pass(action).await {
                return done;
            }
        }
        panic!("{} has no outcome after an hour", action.id);
    }

    /// One pass, half a minute later.
    pub(super) async fn pass(&self, action: &Action) -> Option<(Outcome, String)> {
        self.clock.advance_to(self.clock.now() + Millis::SECOND * 30);
        let carried = self.executor.follow_up(std::slice::from_ref(action)).await;
        carried.done.into_iter().next().map(|done| (done.outcome, done.detail))
    }

    pub(super) fn replicas(&self, path: &str) -> u64 {
        self.server.get(path)["spec"]["replicas"].as_u64().expect("a workload has replicas")
    }

    /// Paths of a workload's pods.
    pub(super) fn pods(&self, name: &str) -> Vec<String> {
        let rules = self.server.rules();
        let all = rules.paths("pods");
        all.into_iter().filter(|path| path.contains(&format!("/pods/{name}-"))).collect()
    }

    /// An autoscaler for `shop/api`.
    pub(super) fn autoscale(&self, min: Value, max: u32) {
        let mut spec = json!({
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "api" },
            "minReplicas": min, "maxReplicas": max,
            // Without a word it would be the share of the requested cpu.
            "metrics": [{ "type": "Resource", "resource":
                { "name": "memory", "target": { "type": "AverageValue", "averageValue": "1Gi" } } }],
        });
        if spec["minReplicas"].is_null() {
            spec.as_object_mut().expect("an object").remove("minReplicas");
        }
        let hpa = json!({ "metadata": { "name": "api", "namespace": "shop" }, "spec": spec });
        let mut rules = self.server.rules();
        rules.put(HPA, hpa);
        if let Some(fake) = rules.fake() {
            fake.load.insert(HPA.to_owned(), 3);
        }
    }

    pub(super) fn budget(&self, name: &str, floor: u32) {
        let path = format!("/apis/policy/v1/namespaces/shop/poddisruptionbudgets/{name}");
        let mut rules = self.server.rules();
        rules.put(
            &path,
            json!({
                "metadata": { "name": name, "namespace": "shop" },
                "spec": { "minAvailable": floor, "selector": { "matchLabels": { "app": "api" } } },
                "status": { "observedGeneration": 1 },
            }),
        );
        if rules.real().is_some() {
            rules.tick();
        }
    }
}

fn executor(server: &Server, journal: &Arc<Journal>, clock: &Clock, settings: KubernetesSettings) -> Executor {
    let settings =
        KubernetesSettings { kubeconfig: Some(server.kubeconfig()), timeout: Millis::SECOND * 5, ..settings };
    let actuator: Arc<dyn Actuator> = Arc::new(KubernetesActuator::new("cluster", &settings));
    Executor {
        actuators: [("cluster".to_owned(), actuator)].into(),
        record: journal.clone(),
        clock: clock.clone(),
        fence: None,
    }
}

/// A node that is ready.
pub(super) fn node(name: &str, cpu: &str, memory: &str) -> Value {
    let amounts = json!({ "cpu": cpu, "memory": memory, "pods": "110" });
    json!({
        "metadata": { "name": name, "labels": { "pool": "general", "kubernetes.io/hostname": name } },
        "spec": {},
        "status": {
            "allocatable": amounts, "capacity": amounts, "conditions": [{ "type": "Ready", "status": "True" }],
        },
    })
}

/// The end of this second by the real clock: API servers write no finer times of creation.
async fn next_second() -> Timestamp {
    let clock = Clock::wall();
    let next = Timestamp((clock.now().0 / 1000 + 1) * 1000);
    while clock.now() < next {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    next
}

pub(super) fn deployment(name: &str, replicas: u32) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "shop", "generation": 1 },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "template": { "metadata": { "labels": { "app": name } }, "spec": { "containers": [{
                "name": "main", "image": "x",
                "resources": { "requests": { "cpu": "500m", "memory": "256Mi" }, "limits": { "cpu": "1" } },
            }] } },
        },
    })
}

pub(super) fn action(id: &str, kind: ActionKind, change: Change) -> Action {
    let labels = vec![("namespace".to_owned(), "shop".to_owned()), ("deployment".to_owned(), "api".to_owned())];
    let component = ComponentId { kind: "deployment".to_owned(), labels };
    Action {
        id: id.to_owned(),
        policy: "shop".to_owned(),
        rung: 0,
        kind,
        actuator: "cluster".to_owned(),
        target: Target { component, namespace: "shop".to_owned(), name: "api".to_owned() },
        change,
        why: Why {
            probability: 0.9,
            eta: Some(Millis::MINUTE * 20),
            expected_loss: 0.5,
            signal: "saturation/cpu".to_owned(),
            peak: None,
            sentence: "0.9 × 0.8 × 10 > 1".to_owned(),
            predictions: Vec::new(),
        },
        decided_at: began(),
        expires_at: None,
        undo: None,
        undoes: None,
        makes_room_for: None,
        dry_run: false,
    }
}

pub(super) fn scale_out(id: &str, from: u32, to: u32) -> Action {
    action(id, ActionKind::ScaleOut, Change::Replicas { from, to })
}

pub(super) fn resize_cpu(id: &str, from: f64, to: f64) -> Action {
    let cpu = |amount: f64| Resources::from([("cpu".to_owned(), amount)]);
    action(id, ActionKind::ScaleUp, Change::Resources { from: cpu(from), to: cpu(to) })
}

/// The action that gives another one back.
pub(super) fn undo(of: &Action, world: &World) -> Action {
    let change = match of.change.clone() {
        Change::Replicas { from, to } => Change::Replicas { from: to, to: from },
        Change::Resources { from, to } => Change::Resources { from: to, to: from },
        Change::Cordon => Change::Uncordon,
        Change::Shift { .. } => Change::Shift { share: 0.0 },
        other => other,
    };
    Action {
        id: format!("{}-undo", of.id),
        change,
        undoes: Some(of.id.clone()),
        decided_at: world.clock.now(),
        ..of.clone()
    }
}

pub(super) fn on_node(id: &str, kind: ActionKind, node: &str, change: Change) -> Action {
    let component = ComponentId { kind: "node".to_owned(), labels: vec![("node".to_owned(), node.to_owned())] };
    let target = Target { component, namespace: String::new(), name: node.to_owned() };
    Action { target, ..action(id, kind, change) }
}

pub(super) fn drain(id: &str, node: &str) -> Action {
    on_node(id, ActionKind::Migrate, node, Change::Move { from_nodes: vec![node.to_owned()] })
}
