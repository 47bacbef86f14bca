//! The roles that ship grant exactly what is used, and the room of a cluster is read as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use forestall::act::{KubernetesSettings, Leadership, LeaseSettings, Naming, Wanted};
use forestall::model::Millis;
use forestall::plan::{ActionKind, Change, Outcome};
use saphyr::{LoadableYamlNode, Yaml};
use serde_json::json;

use super::server::Trouble;
use super::world::{API, HPA, World, action, deployment, drain, on_node, resize_cpu, scale_out, undo};

/// What the roles of a file grant, as `verb resource`.
fn granted(file: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let documents = Yaml::load_from_str(&text).expect("the file is YAML");
    let words = |node: &Yaml<'_>, key: &str| -> Vec<String> {
        let list = node[key].as_vec().expect("a list");
        list.iter().map(|word| word.as_str().expect("a word").to_owned()).collect()
    };
    let is_role = |document: &&Yaml<'_>| document["kind"].as_str().is_some_and(|kind| kind.ends_with("Role"));
    let mut rights = BTreeSet::new();
    for document in documents.iter().filter(is_role) {
        for rule in document["rules"].as_vec().expect("rules") {
            for resource in words(rule, "resources") {
                rights.extend(words(rule, "verbs").iter().map(|verb| format!("{verb} {resource}")));
            }
        }
    }
    rights
}

/// What was asked for, but for what everybody may.
fn used(world: &World) -> BTreeSet<String> {
    let audit = world.server.audit();
    let rights = audit.iter().map(|entry| entry.right.clone());
    rights.filter(|right| right != "get " && right != "create selfsubjectaccessreviews").collect()
}

fn check(file: &str, used: &BTreeSet<String>) {
    let granted = granted(file);
    let missing: Vec<_> = used.difference(&granted).collect();
    let needless: Vec<_> = granted.difference(used).collect();
    assert!(missing.is_empty() && needless.is_empty(), "{file}: missing {missing:?}, needless {needless:?}");
}

#[tokio::test]
async fn the_roles_grant_exactly_what_acting_takes() {
    let world = World::start().await;
    let route = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/web";
    {
        let mut rules = world.server.rules();
        rules.know("autoscaling.k8s.io");
        rules.know("gateway.networking.k8s.io");
        rules.put("/apis/apps/v1/namespaces/shop/statefulsets/db", deployment("db", 2));
        let backends = json!([{ "name": "api" }, { "name": "api-b" }]);
        let spec = json!({ "rules": [{ "backendRefs": backends }] });
        rules.put(route, json!({ "metadata": { "name": "web", "namespace": "shop", "labels": {} }, "spec": spec }));
        rules.tick();
    }
    // Conflicts too: looking again takes rights of its own.
    world.server.trouble("patch pods/resize", Trouble::Overtaken);
    world.server.trouble("patch httproutes", Trouble::Overtaken);
    world.carry_out(resize_cpu("r", 0.5, 0.75)).await;
    world.carry_out(action("s", ActionKind::ShiftLoad, Change::Shift { share: 0.4 })).await;
    let mut database = scale_out("d", 2, 3);
    database.target.component.kind = "statefulset".to_owned();
    database.target.name = "db".to_owned();
    world.carry_out(database).await;
    world.carry_out(scale_out("o", 3, 4)).await;
    world.autoscale(json!(2), 6);
    world.carry_out(scale_out("a", 4, 5)).await;
    let nodes = vec!["n1".to_owned()];
    world.carry_out(action("m", ActionKind::Migrate, Change::Move { from_nodes: nodes })).await;
    check("actor.yaml", &used(&world));

    let world = World::start().await;
    let close = on_node("q", ActionKind::Quarantine, "n2", Change::Cordon);
    world.carry_out(close.clone()).await;
    world.carry_out(undo(&close, &world)).await;
    world.carry_out(drain("n", "n1")).await;
    check("nodes.yaml", &used(&world));

    let world = World::start().await;
    for name in ["a", "b"] {
        let lease = LeaseSettings {
            cluster: KubernetesSettings {
                kubeconfig: Some(world.server.kubeconfig()),
                ..KubernetesSettings::default()
            },
            namespace: "forestall".to_owned(),
            name: name.to_owned(),
            duration: Millis::SECOND * 15,
        };
        let leadership = Leadership::new(&lease, name, &world.clock);
        leadership.look().await;
        leadership.run(std::future::ready(())).await;
    }
    check("leader.yaml", &used(&world));

    let world = World::start().await;
    world.executor.actuators["cluster"].measure(&Wanted::default()).await.expect("the cluster can be read");
    check("capacity.yaml", &used(&world));
}

#[tokio::test]
async fn the_role_for_templates_grants_what_changing_them_takes_besides() {
    let world = World::with(KubernetesSettings { template_patch: true, ..KubernetesSettings::default() }).await;
    world.server.cannot_resize();
    {
        let mut rules = world.server.rules();
        rules.put("/apis/apps/v1/namespaces/shop/statefulsets/db", deployment("db", 2));
    }
    world.begin(resize_cpu("r", 0.5, 0.75)).await;
    let mut database = resize_cpu("d", 0.5, 0.75);
    database.target.component.kind = "statefulset".to_owned();
    database.target.name = "db".to_owned();
    world.begin(database).await;
    let actor = granted("actor.yaml");
    check("template-patch.yaml", &used(&world).difference(&actor).cloned().collect());
}

#[tokio::test]
async fn the_room_of_a_cluster_is_what_nodes_have_less_what_pods_request() {
    let world = World::start().await;
    {
        let mut rules = world.server.rules();
        for (node, ready) in [("n1", "True"), ("n2", "True"), ("n3", "Unknown")] {
            rules.change(&format!("/api/v1/nodes/{node}"), |object| {
                object["status"]["conditions"] = json!([{ "type": "Ready", "status": ready }]);
            });
        }
        for path in rules.paths("pods") {
            rules.change(&path, |pod| pod["spec"]["priority"] = json!(500));
        }
    }
    // A pod of a real cluster keeps the priority that it was made with.
    let priority = if world.server.plane().is_some() { 0 } else { 500 };
    world.autoscale(json!(2), 6);
    let labels = BTreeMap::from([("pool".to_owned(), "general".to_owned())]);
    let wanted = Wanted {
        pools: BTreeMap::from([
            ("general".to_owned(), labels),
            ("gpu".to_owned(), [("pool".to_owned(), "gpu".to_owned())].into()),
        ]),
        names: vec![Naming::plain("deployment")],
    };
    let actuator = &world.executor.actuators["cluster"];
    let capacity = actuator.measure(&wanted).await.expect("the cluster can be read");
    let nodes = &capacity.pools["general"];
    let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["n1", "n2", "n3"]);
    let free = |at: usize| nodes[at].allocatable["cpu"] - nodes[at].used["cpu"];
    // Five pods of half a core are spread over three nodes; n3 is not ready.
    let pods = world.pods("api").into_iter().chain(world.pods("batch"));
    let there = pods.filter(|pod| world.server.get(pod)["spec"]["nodeName"] != "n3").count();
    assert!((free(0) + free(1) - (8.0 - there as f64 / 2.0)).abs() < 1e-9, "{} {}", free(0), free(1));
    assert!(free(2).abs() < 1e-9, "nothing is free on a node that is not ready: {}", free(2));
    assert!(capacity.pools["gpu"].is_empty());
    let api = capacity.workloads.iter().find(|workload| workload.component.to_string() == "deployment/shop/api");
    let api = api.expect("the workload is found");
    assert_eq!((api.replicas, api.replicas_min, api.priority, api.pool.as_str()), (3, 3, priority, "general"));
    assert!((api.per_replica["cpu"] - 0.5).abs() < 1e-9);
    assert_eq!(api.on_nodes.values().sum::<u32>(), 3);
    assert_eq!(capacity.autoscaled, ["deployment/shop/api".to_owned()].into());
    let batch = capacity.workloads.iter().find(|workload| workload.component.to_string() == "deployment/shop/batch");
    assert_eq!(batch.map(|batch| batch.replicas_min), Some(1));
    assert!(world.server.writes().is_empty(), "measuring writes nothing");
    // What was resized in place is seen at the pods, not at the template.
    world.carry_out(resize_cpu("r", 0.5, 0.75)).await;
    let capacity = actuator.measure(&wanted).await.expect("the cluster can be read");
    let api = capacity.workloads.iter().find(|workload| workload.component.to_string() == "deployment/shop/api");
    assert!((api.expect("the workload is found").per_replica["cpu"] - 0.75).abs() < 1e-9);
    // A cluster that cannot be read in full is not read at all.
    world.server.deny("list pods");
    let error = actuator.measure(&wanted).await.expect_err("pods must be known");
    assert!(error.to_string().contains("list pods"), "{error}");
    assert_eq!(world.replicas(API), 3);
}

#[tokio::test]
async fn the_policy_that_ships_bounds_what_may_be_changed_of_a_node_and_an_autoscaler() {
    let world = World::start().await;
    // Only a real API server knows the language of the policy.
    let Some(plane) = world.server.plane() else { return };
    world.autoscale(json!(2), 6);
    plane.apply("admission-policy.yaml", &[]);
    let patch = |path: &str, body: &serde_json::Value| {
        plane.wait(plane.send("first", "PATCH", &format!("{path}?dryRun=All"), "application/merge-patch+json", body))
    };
    let node = "/api/v1/nodes/n1";
    let labels = json!({ "metadata": { "labels": { "role": "other" } } });
    plane.until("the policy is in force", || patch(node, &labels).code == 422);
    for (path, body, words) in [
        (node, labels, "changes no labels"),
        (node, json!({ "spec": { "taints": [{ "key": "x", "effect": "NoExecute" }] } }), "only whether it is open"),
        (HPA, json!({ "spec": { "maxReplicas": 100 } }), "only minReplicas"),
    ] {
        let answer = patch(path, &body);
        assert!(answer.code == 422 && answer.body.to_string().contains(words), "{}: {}", answer.code, answer.body);
    }
    // What forestall does is within its bounds.
    for (action, wanted) in [
        (drain("d", "n1"), Outcome::Confirmed),
        (on_node("q", ActionKind::Quarantine, "n2", Change::Cordon), Outcome::Confirmed),
        (scale_out("s", 3, 5), Outcome::Confirmed),
    ] {
        let done = world.carry_out(action).await;
        assert_eq!(done.0, wanted, "{}", done.1);
    }
}
