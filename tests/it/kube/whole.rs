//! The whole program against a real control plane with 20 nodes and 200 pods, judged by its audit log. Other predictors say
//! what is going to fail, so that the moment is ours to choose. Without `KUBEBUILDER_ASSETS` there is nothing here to test.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forestall::clock::Clock;
use forestall::model::Millis;
use serde_json::{Value, json};

use super::plane::{Audited, Plane};
use super::rules::text;
use super::world::{API, BATCH, HPA, deployment, node};
use crate::api::{Served, json_of};
use crate::real::{Folder, Forestall, SOON, eventually, get_json, http};

const TOKEN: &str = "the operator's token";
const NODES: usize = 20;
/// Besides `shop/api` and `shop/batch`, so that there are 200 pods.
const OTHERS: usize = 18;
const SCALE: &str = "patch deployments/scale";
const MIN: &str = "patch horizontalpodautoscalers";
const RESIZE: &str = "patch pods/resize";
const EVICT: &str = "create pods/eviction";
const CLOSE: &str = "patch nodes";

/// Kubelets at work until this is dropped.
struct Kubelets(Arc<AtomicBool>, Option<std::thread::JoinHandle<()>>);

impl Kubelets {
    fn start(plane: &'static Plane) -> Kubelets {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let work = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                plane.kubelets(true);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Kubelets(stop, Some(work))
    }
}

impl Drop for Kubelets {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        if let Some(work) = self.1.take() {
            let ended = work.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the kubelets failed");
        }
    }
}

/// A cluster and one forestall.
struct Whole {
    plane: &'static Plane,
    forestall: Forestall,
    audit_from: usize,
    _kubelets: Kubelets,
}

/// What the files of one forestall say.
struct Said {
    mode: &'static str,
    ladder: &'static str,
    more: &'static str,
    main: &'static str,
}

const SAID: Said = Said {
    mode: "act",
    ladder: "{ action: scale_out, actuator: cluster, max_replicas: 12, actuation_time: 1s }",
    more: "",
    main: "",
};

fn configuration(plane: &Plane, said: &Said) -> Folder {
    let folder = Folder::new("forestall");
    folder.write("token", TOKEN);
    let Said { mode, ladder, more, main } = said;
    folder.write(
        "policies.yml",
        &format!(
            "policies:\n- {{ name: services, match: {{ kind: deployment }}, mode: {mode}, \
             enter: {{ probability_above: 0.6, for: 2 }}, exit: {{ probability_below: 0.2, for: 2 }}, cooldown: 1m, \
             budget: {{ per: 1h, max_actions: 20 }}, expires_after: 20s, verify: {{ after: 5s }}, \
             ladder: [ {ladder} ]{more} }}\n\
             - {{ name: nodes, match: {{ kind: node }}, mode: {mode}, enter: {{ probability_above: 0.6, for: 2 }}, \
             budget: {{ per: 1h, max_actions: 1 }}, ladder: [ {{ action: migrate, actuator: cluster, actuation_time: 1s }} ] }}\n\
             pools: [ {{ name: general, kubernetes: {{ node_selector: 'pool=general' }} }} ]\n"
        ),
    );
    folder.write(
        "forestall.yml",
        &format!(
            "global: {{ evaluation_interval: 1s, mode: {mode}, start_hold: 0s }}\npolicy_files: [policies.yml]\n\
             web: {{ operator_token_file: token }}\n\
             actuators: {{ cluster: {{ kubernetes: {{ kubeconfig: '{}', timeout: 5s, confirm_within: 1m }} }} }}\n{main}",
            plane.kubeconfig().display()
        ),
    );
    folder
}

/// `shop/api` with 6 replicas, `shop/batch` with 14 of low priority, and others: 200 in all on 20 nodes.
fn fill(plane: &Plane) {
    for at in 0..NODES {
        plane.put(&format!("/api/v1/nodes/n{at}"), node(&format!("n{at}"), "8", "32Gi"));
    }
    for (name, replicas) in [("api", 6), ("batch", 14)] {
        plane.put(&format!("/apis/apps/v1/namespaces/shop/deployments/{name}"), deployment(name, replicas));
    }
    for at in 0..OTHERS {
        let name = format!("other-{at}");
        let mut other = deployment(&name, 10);
        other["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": "100m" } });
        plane.put(&format!("/apis/apps/v1/namespaces/shop/deployments/{name}"), other);
    }
    plane.tick(true);
    assert_eq!(plane.paths("pods").len(), 200);
}

impl Whole {
    /// Nothing where there is no control plane.
    async fn start(said: Said) -> Option<Whole> {
        Whole::with(said, |_| {}).await
    }

    async fn with(said: Said, prepare: impl FnOnce(&Plane)) -> Option<Whole> {
        let plane = Plane::get()?;
        plane.empty().await;
        fill(plane);
        prepare(plane);
        Some(Whole::over(plane, said).await)
    }

    /// Over a cluster as it is.
    async fn over(plane: &'static Plane, said: Said) -> Whole {
        let kubelets = Kubelets::start(plane);
        let audit_from = plane.audit_len();
        let forestall = Forestall::start(configuration(plane, &said)).await;
        ready(&forestall).await;
        Whole { plane, forestall, audit_from, _kubelets: kubelets }
    }

    async fn predict(&self, id: &str, component: Value, wanted: Value) {
        let body = prediction(id, component, wanted);
        let url = self.forestall.url("/api/v1/forestall/predictions");
        let answer = http().post(url).bearer_auth(TOKEN).json(&body).send().await.expect("it answers");
        let (status, words) = (answer.status(), answer.text().await.unwrap_or_default());
        assert!(status.is_success(), "{status}: {words}");
    }

    /// The newest action of a kind with an outcome.
    async fn outcome(&self, kind: &str) -> (String, Value) {
        self.outcome_of(kind, |_| true).await
    }

    async fn outcome_of(&self, kind: &str, wanted: impl Fn(&Value) -> bool) -> (String, Value) {
        let mut last = Value::Null;
        let found = eventually(&format!("{kind} has an outcome"), SOON * 3, async || {
            last = get_json(&self.forestall.url("/api/v1/forestall/decisions")).await["data"]["decisions"].clone();
            let actions = last.as_array().expect("a list").iter().flat_map(|d| d["actions"].as_array()).flatten();
            let done = |action: &&Value| action["kind"] == kind && action["outcome"].is_string() && wanted(action);
            actions.clone().find(done).cloned()
        })
        .await;
        (found["outcome"].as_str().unwrap_or_default().to_owned(), found)
    }

    fn audited(&self) -> Vec<Audited> {
        self.plane.audited(self.audit_from)
    }

    fn effects(&self) -> Vec<String> {
        self.audited().into_iter().filter(Audited::is_effect).map(|entry| entry.right).collect()
    }

    fn replicas(&self, path: &str) -> u64 {
        self.plane.object(path).expect("it is there")["spec"]["replicas"].as_u64().unwrap_or(0)
    }

    /// Waits for passes: what was going to happen has.
    async fn passes(&self, count: u32) {
        for _ in 0..count {
            let at = async || get_json(&self.forestall.url("/api/v1/forestall/plan")).await["data"]["at"].clone();
            let now = at().await;
            eventually("another pass", SOON, async || (at().await != now).then_some(())).await;
        }
    }

    /// All decisions with attempts and outcomes.
    async fn whole_decisions(&self) -> String {
        let listed = get_json(&self.forestall.url("/api/v1/forestall/decisions")).await;
        let mut text = String::new();
        for decision in listed["data"]["decisions"].as_array().expect("a list") {
            let id = decision["id"].as_str().expect("an id");
            text += &get_json(&self.forestall.url(&format!("/api/v1/forestall/decisions/{id}"))).await.to_string();
        }
        text
    }

    /// Why nothing is done, as the plan has it.
    async fn plan(&self) -> Value {
        get_json(&self.forestall.url("/api/v1/forestall/plan")).await["data"].clone()
    }
}

/// It has made a pass.
async fn ready(forestall: &Forestall) {
    let url = forestall.url("/-/ready");
    eventually("it is ready", SOON, async || {
        let answer = http().get(&url).send().await.ok()?;
        answer.status().is_success().then_some(())
    })
    .await;
}

fn prediction(id: &str, component: Value, wanted: Value) -> Value {
    json!({
        "id": id, "source": "test", "component": component, "probability": 0.95, "severity": 0.9, "impact": 0.9,
        "eta_seconds": { "q10": 600, "q50": 900 }, "wanted": wanted, "reason": "a test", "expires_in": "25s",
    })
}

fn service(name: &str) -> Value {
    json!({ "kind": "deployment", "labels": { "namespace": "shop", "deployment": name } })
}

fn machine(name: &str) -> Value {
    json!({ "kind": "node", "labels": { "node": name } })
}

/// An app of this process, whose clock is in our hands: giving back waits for half an hour.
struct Patient {
    plane: &'static Plane,
    served: Served,
    audit_from: usize,
    _kubelets: Kubelets,
}

impl Patient {
    async fn start(prepare: impl FnOnce(&Plane)) -> Option<Patient> {
        let plane = Plane::get()?;
        plane.empty().await;
        fill(plane);
        prepare(plane);
        let kubelets = Kubelets::start(plane);
        let audit_from = plane.audit_len();
        let folder = configuration(plane, &SAID);
        let main = folder.read("forestall.yml");
        let served = Served::start_in(folder, &[("forestall.yml", &main)]).await;
        served.advance(Millis::SECOND).await;
        Some(Patient { plane, served, audit_from, _kubelets: kubelets })
    }

    async fn scale_out(&self, replicas: u32) -> Value {
        let body = prediction("p", service("api"), json!({ "replicas": replicas }));
        let url = self.served.url("/api/v1/forestall/predictions");
        let (status, answer) = json_of(http().post(url).bearer_auth(TOKEN).json(&body)).await;
        assert!(status.is_success(), "{answer}");
        eventually("it is confirmed", SOON * 2, async || {
            self.served.advance(Millis::SECOND).await;
            let found = self.served.data("/api/v1/forestall/decisions?outcome=confirmed").await;
            found["decisions"][0]["actions"].get(0).cloned()
        })
        .await
    }

    /// Lets the time pass after which things are given back, and more.
    async fn wait_for_giving_back(&self) {
        for _ in 0..40 {
            self.served.advance(Millis::MINUTE).await;
        }
        // A clock that jumps stops acting for a pass.
        for _ in 0..8 {
            self.served.advance(Millis::SECOND).await;
        }
    }

    fn effects(&self) -> Vec<String> {
        self.plane.audited(self.audit_from).into_iter().filter(Audited::is_effect).map(|entry| entry.right).collect()
    }

    async fn plan(&self) -> Value {
        self.served.data("/api/v1/forestall/plan").await
    }

    fn spec(&self, path: &str, field: &str) -> Value {
        self.plane.object(path).expect("it is there")["spec"][field].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_scaled_out_by_one_write_and_given_back_by_one() {
    let Some(patient) = Patient::start(|_| {}).await else { return };
    patient.scale_out(30).await;
    assert_eq!(patient.spec(API, "replicas"), json!(12), "never past the most of its rung");
    assert_eq!(patient.effects(), [SCALE]);
    patient.wait_for_giving_back().await;
    assert_eq!(
        (patient.spec(API, "replicas"), patient.effects()),
        (json!(6), vec![SCALE.to_owned(); 2]),
        "{}",
        patient.plan().await
    );
    // What somebody else has set since stays.
    let Some(patient) = Patient::start(|_| {}).await else { return };
    patient.scale_out(9).await;
    patient.plane.change(API, |api| api["spec"]["replicas"] = json!(10));
    patient.wait_for_giving_back().await;
    assert_eq!((patient.spec(API, "replicas"), patient.effects()), (json!(10), vec![SCALE.to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_autoscaler_only_the_least_is_raised_and_given_back_but_for_a_persons_change() {
    let put = |plane: &Plane| {
        let target = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": "api" });
        let spec = json!({ "scaleTargetRef": target, "minReplicas": 3, "maxReplicas": 9 });
        plane.put(HPA, json!({ "metadata": { "name": "api", "namespace": "shop" }, "spec": spec }));
    };
    let Some(patient) = Patient::start(put).await else { return };
    patient.scale_out(12).await;
    assert_eq!((patient.spec(HPA, "minReplicas"), patient.spec(HPA, "maxReplicas")), (json!(9), json!(9)));
    assert_eq!(patient.effects(), [MIN]);
    patient.wait_for_giving_back().await;
    assert_eq!(
        (patient.spec(HPA, "minReplicas"), patient.effects()),
        (json!(3), vec![MIN.to_owned(); 2]),
        "{}",
        patient.plan().await
    );
    let Some(patient) = Patient::start(put).await else { return };
    patient.scale_out(8).await;
    patient.plane.change(HPA, |hpa| hpa["spec"]["minReplicas"] = json!(5));
    patient.wait_for_giving_back().await;
    assert_eq!((patient.spec(HPA, "minReplicas"), patient.effects()), (json!(5), vec![MIN.to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_grow_in_place_and_none_starts_again() {
    const UP: &str = "{ action: scale_up, actuator: cluster, resources: [cpu], factor_max: 20, actuation_time: 1s }";
    let Some(whole) = Whole::start(Said { ladder: UP, ..SAID }).await else { return };
    let pods = || -> Vec<(String, Value)> {
        let all = whole.plane.all("pods");
        let own = all.iter().filter(|pod| text(pod, "/metadata/labels/app") == "api");
        let mut own: Vec<_> = own
            .map(|pod| {
                (text(pod, "/metadata/uid").to_owned(), pod["status"]["containerStatuses"][0]["restartCount"].clone())
            })
            .collect();
        own.sort_by(|a, b| a.0.cmp(&b.0));
        own
    };
    let before = pods();
    whole.predict("p", service("api"), json!({ "cpu": 0.75 })).await;
    let (outcome, action) = whole.outcome("scale_up").await;
    assert_eq!(outcome, "confirmed", "{action}");
    assert_eq!((pods(), whole.effects()), (before, vec![RESIZE.to_owned(); 6]));
    // What no node holds is not asked for.
    let so_far = whole.effects().len();
    whole.predict("q", service("batch"), json!({ "cpu": 9.0 })).await;
    whole.passes(6).await;
    assert_eq!(whole.effects().len(), so_far, "{}", whole.plan().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_closed_then_emptied_within_the_budget_also_over_a_kill() {
    let budget = json!({ "metadata": { "name": "api", "namespace": "shop" },
        "spec": { "minAvailable": 5, "selector": { "matchLabels": { "app": "api" } } } });
    let prepare = |plane: &Plane| {
        plane.put("/apis/policy/v1/namespaces/shop/poddisruptionbudgets/api", budget);
        plane.tick(true);
    };
    let Some(mut whole) = Whole::with(SAID, prepare).await else { return };
    let pod = whole.plane.all("pods").into_iter().find(|pod| text(pod, "/metadata/labels/app") == "api");
    let name = text(&pod.expect("it has pods"), "/spec/nodeName").to_owned();
    whole.predict("p", machine(&name), json!({})).await;
    eventually("the first pod is evicted", SOON, async || whole.effects().contains(&EVICT.to_owned()).then_some(()))
        .await;
    whole.forestall.kill();
    whole.forestall.start_again().await;
    ready(&whole.forestall).await;
    let (outcome, action) = whole.outcome("migrate").await;
    assert_eq!(outcome, "confirmed", "{action}");
    let left = whole.plane.all("pods").into_iter().filter(|pod| text(pod, "/spec/nodeName") == name).count();
    let effects = whole.effects();
    assert_eq!((left, effects[0].as_str()), (0, CLOSE), "{effects:?}");
    assert!(effects[1..].iter().all(|right| right == EVICT), "{effects:?}");
    // Each pod once: the log names it.
    let mut evicted: Vec<String> =
        whole.audited().into_iter().filter(|a| a.is_effect() && a.right == EVICT).map(|a| a.uri).collect();
    let all = evicted.len();
    evicted.sort();
    evicted.dedup();
    assert_eq!(evicted.len(), all, "{evicted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_nodes_at_once_are_held_to_the_budget_over_restarts() {
    let Some(mut whole) = Whole::start(SAID).await else { return };
    for name in ["n1", "n2", "n3"] {
        whole.predict(name, machine(name), json!({})).await;
    }
    whole.outcome("migrate").await;
    whole.forestall.kill();
    whole.forestall.start_again().await;
    ready(&whole.forestall).await;
    for name in ["n4", "n5"] {
        whole.predict(name, machine(name), json!({})).await;
    }
    whole.passes(8).await;
    assert_eq!(whole.effects().iter().filter(|right| *right == CLOSE).count(), 1, "one node an hour");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_only_observed_changes_nothing() {
    let Some(whole) = Whole::start(Said { mode: "observe", ..SAID }).await else { return };
    whole.predict("p", service("api"), json!({ "replicas": 9 })).await;
    whole.predict("q", machine("n1"), json!({})).await;
    let (outcome, action) = whole.outcome("scale_out").await;
    assert_eq!(outcome, "dry_run", "{action}");
    whole.outcome("migrate").await;
    let asked: Vec<String> = whole.audited().into_iter().map(|entry| entry.right).collect();
    assert!(!asked.is_empty() && asked.iter().all(|right| right.starts_with("list ")), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_room_nothing_is_written_or_lower_priority_gives_way() {
    const LARGE: &str = "{ action: scale_out, actuator: cluster, max_replicas: 500, actuation_time: 1s }";
    let Some(whole) = Whole::start(Said { ladder: LARGE, ..SAID }).await else { return };
    whole.predict("p", service("api"), json!({ "replicas": 400 })).await;
    whole.passes(8).await;
    assert_eq!(whole.effects(), Vec::<String>::new(), "{}", whole.plan().await);
    let plan = whole.plan().await.to_string();
    assert!(plan.contains("insufficient"), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lower_priority_gives_way_and_no_more_of_it_than_is_needed() {
    const GIVES_WAY: Said = Said { more: ", evict: { below_priority: 500, min_impact: 0.1 }", ..SAID };
    let Some(plane) = Plane::get() else { return };
    plane.empty().await;
    for (name, value) in [("low", 100), ("high", 1000)] {
        let class = json!({ "metadata": { "name": name }, "value": value, "preemptionPolicy": "Never" });
        plane.ask("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", "application/json", &class);
    }
    for at in 0..NODES {
        plane.put(&format!("/api/v1/nodes/n{at}"), node(&format!("n{at}"), "8", "32Gi"));
    }
    // 19 nodes are all but full of low priority, and one has room for two more of `api`.
    for (name, replicas, cpu, class) in [("batch", 19, "7500m", "low"), ("api", 6, "1", "high")] {
        let mut workload = deployment(name, replicas);
        workload["spec"]["template"]["spec"]["priorityClassName"] = json!(class);
        workload["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": cpu } });
        plane.put(&format!("/apis/apps/v1/namespaces/shop/deployments/{name}"), workload);
        plane.tick(true);
    }
    let whole = Whole::over(plane, GIVES_WAY).await;
    whole.predict("p", service("api"), json!({ "replicas": 10 })).await;
    let (outcome, action) = whole.outcome("scale_out").await;
    assert_eq!(outcome, "confirmed", "{action} {}", whole.plan().await);
    assert_eq!((whole.replicas(API), whole.replicas(BATCH)), (10, 18));
    assert_eq!(whole.effects(), [SCALE, SCALE]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_right_that_is_taken_away_is_named_and_not_asked_for_again_and_again() {
    for (right, predicted, kind) in [
        (SCALE, service("api"), "scale_out"),
        ("get deployments", service("api"), "scale_out"),
        ("list horizontalpodautoscalers", service("api"), "scale_out"),
        (CLOSE, machine("n1"), "migrate"),
        (EVICT, machine("n1"), "migrate"),
    ] {
        // What measuring takes is granted apart.
        let deny = |plane: &Plane| plane.deny_in(&["actor.yaml", "nodes.yaml"], right);
        let Some(whole) = Whole::with(SAID, deny).await else { return };
        whole.predict("p", predicted, json!({ "replicas": 9 })).await;
        if right == "list horizontalpodautoscalers" {
            // Measuring may list them, and so may acting.
            whole.outcome(kind).await;
            continue;
        }
        let (outcome, action) = whole.outcome(kind).await;
        let (verb, resource) = right.split_once(' ').expect("two words");
        let words = whole.whole_decisions().await;
        assert_eq!(outcome, "failed", "{right}: {action}");
        assert!(words.contains(&format!("cannot {verb} resource \\\"{resource}\\\"")), "{right}: {words}");
        whole.passes(10).await;
        let refused = whole.audited().iter().filter(|entry| entry.code == 403).count();
        assert!((0..=10).contains(&refused), "{right}: {refused} refused");
        assert_eq!(whole.effects().len(), 0, "{right}: {:?}", whole.effects());
        get_json(&whole.forestall.url("/api/v1/forestall/gates")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_leader_is_followed_in_time_and_writes_nothing_after_it_thaws() {
    const ELECTION: &str = "leader_election: { lease: { namespace: forestall, name: forestall }, duration: 5s }\n";
    let Some(first) = Whole::start(Said { main: ELECTION, ..SAID }).await else { return };
    let leads = async |forestall: &Forestall| {
        let gates = get_json(&forestall.url("/api/v1/forestall/gates")).await;
        (gates["data"]["leader"] == true).then_some(())
    };
    eventually("the first leads", SOON, async || leads(&first.forestall).await).await;
    let second = Forestall::start(configuration(first.plane, &Said { main: ELECTION, ..SAID })).await;
    ready(&second).await;
    let signal = |name: &str| {
        let sent = Command::new("kill").args([name, &first.forestall.pid()]).status().expect("the program kill");
        assert!(sent.success());
    };
    signal("-STOP");
    let frozen_at = Clock::wall().now();
    eventually("the second leads", SOON, async || leads(&second).await).await;
    let took = Clock::wall().now() - frozen_at;
    assert!(took.0 <= 10_000, "the lease of 5 s and 5 s more, not {took}");
    let lease = "/apis/coordination.k8s.io/v1/namespaces/forestall/leases/forestall";
    let holder = || first.plane.object(lease).expect("there is one")["spec"]["holderIdentity"].clone();
    let (before, held) = (first.effects(), holder());
    signal("-CONT");
    first.predict("p", service("api"), json!({ "replicas": 9 })).await;
    first.passes(8).await;
    let fresh: Vec<String> = first.effects()[before.len()..].to_vec();
    assert!(fresh.iter().all(|right| right == "update leases"), "the thawed one does not act: {fresh:?}");
    assert_eq!(holder(), held);
}
