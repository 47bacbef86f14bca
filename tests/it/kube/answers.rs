//! The rules of the API server, each as it was measured on 1.36.2.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::plane::{ADMIN, Plane};
use super::rules::{Answer, Asked};
use super::server::{Server, Trouble};
use super::world::{API, HPA, PDB, World, deployment};

const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

fn ask(server: &Server, method: &str, path: &str, kind: &str, body: Value) -> Answer {
    ask_as(ADMIN, server, method, path, kind, body)
}

fn ask_as(token: &str, server: &Server, method: &str, path: &str, kind: &str, body: Value) -> Answer {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let query: BTreeMap<String, String> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let asked = Asked { method: method.to_owned(), path: path.to_owned(), query, content_type: kind.to_owned(), body };
    server.answer_now(&asked, token)
}

/// The status, and that the message holds some words.
fn check(answer: &Answer, code: u16, words: &str) {
    assert_eq!(answer.code, code, "{}", answer.body);
    assert!(answer.body.to_string().contains(words), "`{words}` is not in {}", answer.body);
}

fn version(server: &Server, path: &str) -> Value {
    server.get(path)["metadata"]["resourceVersion"].clone()
}

#[tokio::test]
async fn scale_is_compare_and_swap_and_keeps_neither_annotations_nor_unknown_fields() {
    let World { server, .. } = World::start().await;
    let scale = format!("{API}/scale");
    let shown = ask(&server, "GET", &scale, "", Value::Null);
    assert_eq!(
        shown.body["metadata"]["resourceVersion"],
        version(&server, API),
        "the version shown is the deployment's"
    );
    let patch = json!({ "metadata": { "resourceVersion": "1" }, "spec": { "replicas": 4 } });
    check(&ask(&server, "PATCH", &scale, MERGE, patch), 409, "has been modified");
    let generation = server.get(API)["metadata"]["generation"].clone();
    let same = json!({ "metadata": { "annotations": { "a": "b" } }, "spec": { "replicas": 3 } });
    check(&ask(&server, "PATCH", &scale, MERGE, same), 200, "Scale");
    assert_eq!(server.get(API)["metadata"]["generation"], generation, "the same value is no change");
    assert!(server.get(API).pointer("/metadata/annotations/a").is_none(), "annotations are dropped");
    let unknown = json!({ "spec": { "replicas": 3, "replica": 4 } });
    check(&ask(&server, "PATCH", &scale, MERGE, unknown.clone()), 200, "Scale");
    check(&ask(&server, "PATCH", &format!("{scale}?fieldValidation=Strict"), MERGE, unknown), 422, "unknown field");
    check(&ask(&server, "PATCH", &scale, MERGE, json!({ "spec": { "replicas": -1 } })), 422, "greater than or equal");
    server.rules().put("/apis/apps/v1/namespaces/shop/daemonsets/log", deployment("log", 1));
    check(
        &ask(&server, "GET", "/apis/apps/v1/namespaces/shop/daemonsets/log/scale", "", Value::Null),
        404,
        "could not find",
    );
}

#[tokio::test]
async fn an_autoscaler_undoes_a_direct_scale_and_is_switched_off_by_none() {
    let world = World::start().await;
    world.autoscale(json!(2), 6);
    let scale = format!("{API}/scale");
    if world.server.plane().is_none() {
        // It takes a metrics server to know a load.
        ask(&world.server, "PATCH", &scale, MERGE, json!({ "spec": { "replicas": 5 } }));
        world.server.rules().tick();
        assert_eq!(world.replicas(API), 3, "its load asks for 3");
    }
    for (set, kept) in [(1, 2), (9, 6)] {
        ask(&world.server, "PATCH", &scale, MERGE, json!({ "spec": { "replicas": set } }));
        if let Some(rules) = world.server.rules().fake() {
            rules.load.insert(HPA.to_owned(), set);
        }
        world.server.rules().tick();
        assert_eq!(world.replicas(API), kept, "its least and its most hold: {set}");
    }
    ask(&world.server, "PATCH", &scale, MERGE, json!({ "spec": { "replicas": 0 } }));
    world.server.rules().tick();
    assert_eq!(world.replicas(API), 0, "nothing scales what is switched off");
}

#[tokio::test]
async fn an_autoscalers_least_is_held_between_one_and_its_most_and_nothing_is_one() {
    let world = World::start().await;
    world.autoscale(json!(2), 6);
    let set = |min: Value| ask(&world.server, "PATCH", HPA, MERGE, json!({ "spec": { "minReplicas": min } }));
    check(&set(json!(7)), 422, "spec.maxReplicas");
    check(&set(json!(0)), 422, "spec.minReplicas");
    check(&set(json!(6)), 200, "");
    check(&set(Value::Null), 200, "");
    assert_eq!(world.server.get(HPA)["spec"]["minReplicas"], json!(1));
}

#[tokio::test]
async fn a_resize_is_refused_for_each_of_its_reasons() {
    let world = World::start().await;
    let pod = world.pods("api").remove(0);
    let path = format!("{pod}/resize");
    let set = |resources: Value| json!({ "spec": { "containers": [{ "name": "main", "resources": resources }] } });
    let resize = |body: Value| ask(&world.server, "PATCH", &path, STRATEGIC, body);
    check(&resize(set(json!({ "requests": { "cpu": "2" } }))), 422, "less than or equal to cpu limit of 1");
    check(&resize(set(json!({ "limits": { "cpu": Value::Null } }))), 422, "cannot be removed");
    check(&resize(set(json!({ "requests": { "cpu": "8" }, "limits": { "cpu": "8" } }))), 403, "NodeCapacity");
    let guaranteed = json!({ "requests": { "cpu": "1" }, "limits": { "cpu": "1", "memory": "256Mi" } });
    check(&resize(set(guaranteed)), 422, "QOS");
    let mut foreign = set(json!({ "requests": { "cpu": "600m" } }));
    foreign["metadata"] = json!({ "uid": "another" });
    check(&resize(foreign), 422, "immutable");
    let mut old = set(json!({ "requests": { "cpu": "600m" } }));
    old["metadata"] = json!({ "resourceVersion": "1" });
    check(&resize(old), 409, "modified");
    world.server.rules().cpu_max(2.0);
    check(&resize(set(json!({ "requests": { "cpu": "3" }, "limits": { "cpu": "3" } }))), 403, "maximum cpu usage");
    let direct = set(json!({ "requests": { "cpu": "600m" } }));
    check(&ask(&world.server, "PATCH", &pod, STRATEGIC, direct), 422, "pod updates");
    let mut with_image = set(json!({ "requests": { "cpu": "600m" } }));
    with_image["spec"]["containers"][0]["image"] = json!("evil");
    check(&resize(with_image), 200, "600m");
    assert_eq!(world.server.get(&pod)["spec"]["containers"][0]["image"], json!("x"), "all but resources is dropped");
}

#[tokio::test]
async fn resize_is_there_or_not_by_discovery() {
    let World { server, .. } = World::start().await;
    check(&ask(&server, "GET", "/api/v1", "", Value::Null), 200, "pods/resize");
    server.cannot_resize();
    let without = ask(&server, "GET", "/api/v1", "", Value::Null);
    assert!(!without.body.to_string().contains("pods/resize"), "{}", without.body);
}

#[tokio::test]
async fn evictions_keep_to_budgets_and_count_a_pod_once() {
    let world = World::start().await;
    let pods = world.pods("api");
    let evict = |pod: &str, options: Value| {
        let name = pod.rsplit('/').next();
        let body = json!({
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": name }, "deleteOptions": options });
        ask(&world.server, "POST", &format!("{pod}/eviction"), "application/json", body)
    };
    check(&evict(&pods[0], json!({ "preconditions": { "uid": "another" } })), 409, "UID");
    world.budget("api", 2);
    check(&evict(&pods[0], json!({})), 201, "Success");
    check(&evict(&pods[0], json!({})), 201, "Success");
    let closed = evict(&pods[1], json!({}));
    check(&closed, 429, "DisruptionBudget");
    assert_eq!(closed.retry_after, None, "a closed budget says nothing of when");
    let dry = json!({ "dryRun": ["All"] });
    check(&evict(&pods[1], dry), 429, "DisruptionBudget");
    let nameless = json!({ "apiVersion": "policy/v1", "kind": "Eviction" });
    let path = format!("{}/eviction", pods[1]);
    check(&ask(&world.server, "POST", &path, "application/json", nameless), 400, "does not match");
    world.server.rules().tick();
    check(&evict(&pods[0], json!({})), 404, "not found");
    world.budget("second", 0);
    check(&evict(&pods[1], json!({})), 500, "more than one");
    world.server.rules().remove("/apis/policy/v1/namespaces/shop/poddisruptionbudgets/second");
    if world.server.plane().is_some() {
        // The controller sees a budget before we could ask.
        return;
    }
    world.server.rules().change(PDB, |budget| budget["status"] = json!({}));
    let unseen = evict(&pods[1], json!({}));
    check(&unseen, 429, "DisruptionBudget");
    assert_eq!(unseen.retry_after, Some(10), "a budget that nobody has looked at yet says when");
}

#[tokio::test]
async fn a_nodes_version_moves_while_nobody_changes_it() {
    let World { server, .. } = World::start().await;
    server.rules().start_heartbeats();
    let read = |count: u64| {
        if let Some(plane) = server.plane() {
            // A kubelet writes the node's status.
            let (path, body) = Plane::heartbeat("/api/v1/nodes/n1", count);
            plane.ask("PATCH", &path, STRATEGIC, &body);
        }
        ask(&server, "GET", "/api/v1/nodes/n1", "", Value::Null).body["metadata"]["resourceVersion"].clone()
    };
    let seen: std::collections::BTreeSet<String> = (0..6).map(|count| read(count).to_string()).collect();
    assert!(seen.len() > 1, "{seen:?}");
}

#[tokio::test]
async fn times_need_six_digits() {
    let World { server, .. } = World::start().await;
    let path = "/apis/coordination.k8s.io/v1/namespaces/forestall/leases";
    let lease = |time: &str| json!({ "metadata": { "name": "forestall" }, "spec": { "renewTime": time } });
    let create = |time: &str| ask(&server, "POST", path, "application/json", lease(time));
    check(&create("2026-01-01T00:00:00Z"), 400, "parsing time");
    check(&create("2026-01-01T00:00:00.123Z"), 400, "parsing time");
    check(&create("2026-01-01T00:00:00.000000Z"), 201, "forestall");
    check(&create("2026-01-01T00:00:00.000000Z"), 409, "exists");
    let mut stale = lease("2026-01-01T00:00:01.000000Z");
    stale["metadata"]["resourceVersion"] = json!("1");
    check(&ask(&server, "PUT", &format!("{path}/forestall"), "application/json", stale), 409, "modified");
}

#[tokio::test]
async fn lists_come_in_pages_and_by_selectors() {
    let World { server, .. } = World::start().await;
    let first = ask(&server, "GET", "/api/v1/namespaces/shop/pods?limit=2&labelSelector=app%3Dapi", "", Value::Null);
    assert_eq!(first.body["items"].as_array().map(Vec::len), Some(2));
    let next = first.body["metadata"]["continue"].as_str().expect("there is more").to_owned();
    let path = format!("/api/v1/namespaces/shop/pods?limit=2&labelSelector=app%3Dapi&continue={next}");
    let rest = ask(&server, "GET", &path, "", Value::Null);
    assert_eq!(rest.body["items"].as_array().map(Vec::len), Some(1));
    assert!(rest.body.pointer("/metadata/continue").is_none());
    let on = ask(&server, "GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1", "", Value::Null);
    let items = on.body["items"].as_array().expect("a list");
    assert!(!items.is_empty() && items.iter().all(|pod| pod["spec"]["nodeName"] == json!("n1")));
}

#[tokio::test]
async fn a_template_that_is_merged_loses_what_it_does_not_name() {
    let World { server, .. } = World::start().await;
    let patch = json!({ "spec": { "template": { "spec": { "containers": [{ "name": "main" }] } } } });
    check(&ask(&server, "PATCH", API, MERGE, patch.clone()), 422, "image: Required");
    check(&ask(&server, "PATCH", API, STRATEGIC, patch), 200, "image");
}

#[tokio::test]
async fn rights_that_are_missing_are_named() {
    let World { server, .. } = World::start().await;
    server.deny("patch deployments/scale");
    let refused = ask_as("first", &server, "PATCH", &format!("{API}/scale"), MERGE, json!({}));
    check(&refused, 403, "cannot patch resource \\\"deployments/scale\\\"");
    server.trouble("get deployments", Trouble::Answers(500));
    check(&ask_as("first", &server, "GET", API, "", Value::Null), 500, "injected");
    check(&ask_as("first", &server, "GET", API, "", Value::Null), 200, "");
}
