//! Actions through the executor and the journal, judged by the API server's audit log and by the objects.

use std::collections::BTreeSet;

use forestall::act::KubernetesSettings;
use forestall::model::Millis;
use forestall::plan::{Action, ActionKind, Change, Outcome};
use serde_json::{Value, json};

use super::server::Trouble;
use super::world::{API, BATCH, HPA, PDB, World, action, drain, on_node, resize_cpu, scale_out, undo};

const SCALE: &str = "patch deployments/scale";
const MIN: &str = "patch horizontalpodautoscalers";
const RESIZE: &str = "patch pods/resize";
const EVICT: &str = "create pods/eviction";

/// The rights that were used for changes, in order.
fn writes(world: &World) -> Vec<String> {
    world.server.writes().into_iter().map(|entry| entry.right).collect()
}

fn check(done: &(Outcome, String), outcome: Outcome, words: &str) {
    assert_eq!(done.0, outcome, "{}", done.1);
    assert!(done.1.contains(words), "`{words}` is not in `{}`", done.1);
}

#[tokio::test]
async fn scales_out_by_one_write_and_gives_it_back_by_one() {
    let world = World::start().await;
    let out = scale_out("a", 3, 5);
    check(&world.carry_out(out.clone()).await, Outcome::Confirmed, "");
    let writes = world.server.writes();
    assert_eq!(writes.len(), 1, "{writes:?}");
    let one = &writes[0];
    assert_eq!(one.right, SCALE);
    assert_eq!(one.body["spec"], json!({ "replicas": 5 }));
    assert!(one.body["metadata"]["resourceVersion"].is_string(), "compare and swap: {}", one.body);
    assert_eq!(one.query["fieldManager"], "forestall");
    assert_eq!(one.query["fieldValidation"], "Strict");
    check(&world.carry_out(undo(&out, &world)).await, Outcome::Confirmed, "");
    assert_eq!(world.replicas(API), 3);
    assert_eq!(world.server.writes().len(), 2);
}

#[tokio::test]
async fn an_action_is_told_beside_the_object_and_fails_nothing() {
    let world = World::start().await;
    world.carry_out(scale_out("a", 3, 4)).await;
    let mut events = world.server.rules().paths("events");
    events.retain(|path| {
        path.contains("/namespaces/shop/") && world.server.get(path)["reportingController"] == "forestall"
    });
    assert_eq!(events.len(), 1);
    let event = world.server.get(&events[0]);
    assert_eq!(event["regarding"]["name"], "api");
    assert!(event["note"].as_str().is_some_and(|note| note.contains("0.9 × 0.8 × 10 > 1")), "{event}");
    let world = World::start().await;
    world.server.deny("create events");
    for (id, from, to) in [("a", 3, 4), ("b", 4, 5)] {
        check(&world.carry_out(scale_out(id, from, to)).await, Outcome::Confirmed, "");
    }
    assert_eq!(world.server.refused(), 1, "it is not tried again");
}

#[tokio::test]
async fn what_somebody_else_set_stays() {
    let world = World::start().await;
    world.server.rules().change(API, |api| api["spec"]["replicas"] = json!(4));
    check(&world.carry_out(scale_out("a", 3, 5)).await, Outcome::Failed, "somebody else changed it");
    assert_eq!((world.replicas(API), writes(&world).len()), (4, 0));
    // A person sets another number while ours stands.
    let world = World::start().await;
    let out = scale_out("a", 3, 5);
    world.carry_out(out.clone()).await;
    world.server.rules().change(API, |api| api["spec"]["replicas"] = json!(7));
    check(&world.carry_out(undo(&out, &world)).await, Outcome::Failed, "somebody else changed it");
    assert_eq!(world.replicas(API), 7);
}

#[tokio::test]
async fn a_conflict_is_looked_into_and_ends_in_one_write() {
    let world = World::start().await;
    world.server.trouble(SCALE, Trouble::Overtaken);
    world.server.trouble(SCALE, Trouble::Overtaken);
    check(&world.carry_out(scale_out("a", 3, 5)).await, Outcome::Confirmed, "");
    assert_eq!((world.replicas(API), writes(&world).len()), (5, 1));
    // One that never ends is given up, and nothing is written.
    let world = World::start().await;
    for _ in 0..100 {
        world.server.trouble(SCALE, Trouble::Overtaken);
    }
    check(&world.carry_out(scale_out("a", 3, 5)).await, Outcome::Failed, "changed again and again");
    assert_eq!((world.replicas(API), writes(&world).len()), (3, 0));
    assert!(world.server.audit().len() <= 100, "bounded: {}", world.server.audit().len());
}

#[tokio::test]
async fn lost_answers_and_busy_servers_cost_no_second_effect() {
    for (name, troubles) in [
        ("a lost answer", vec![Trouble::CutAfter]),
        ("a lost request", vec![Trouble::CutBefore]),
        ("429", vec![Trouble::Answers(429), Trouble::Answers(429)]),
        ("500", vec![Trouble::Answers(500), Trouble::Answers(503)]),
        ("all of it", vec![Trouble::Answers(429), Trouble::CutBefore, Trouble::CutAfter]),
    ] {
        let world = World::start().await;
        for trouble in troubles {
            world.server.trouble(SCALE, trouble);
        }
        let done = world.carry_out(scale_out("a", 3, 5)).await;
        assert_eq!(done.0, Outcome::Confirmed, "{name}: {}", done.1);
        assert_eq!((world.replicas(API), writes(&world).len()), (5, 1), "{name}");
    }
}

#[tokio::test]
async fn a_crash_at_any_moment_leaves_one_effect_or_none() {
    // Killed after the write and before the journal: the new process asks and finds it done.
    let mut world = World::start().await;
    let out = scale_out("a", 3, 5);
    assert_eq!(world.begin(out.clone()).await, None, "the replicas are not ready yet");
    world.restart();
    check(&world.follow(&out).await, Outcome::Confirmed, "");
    assert_eq!((world.replicas(API), writes(&world).len()), (5, 1));
    // Killed before the write: nobody sends it later.
    let world = World::start().await;
    let out = scale_out("a", 3, 5);
    forestall::act::Record::intent(&*world.journal, &out, world.clock.now()).expect("the journal can be written");
    check(&world.follow(&out).await, Outcome::Failed, "never sent");
    assert_eq!((world.replicas(API), writes(&world).len()), (3, 0));
}

#[tokio::test]
async fn replicas_that_a_quota_forbids_are_insufficient() {
    let world = World::start().await;
    world.server.rules().quota("shop", 6);
    check(&world.carry_out(scale_out("a", 3, 5)).await, Outcome::Insufficient, "exceeded quota");
    assert_eq!(writes(&world).len(), 1);
}

#[tokio::test]
async fn none_is_never_written_and_what_is_switched_off_stays_off() {
    let world = World::start().await;
    check(&world.carry_out(scale_out("a", 3, 0)).await, Outcome::Failed, "no replica at all");
    world.server.rules().change(API, |api| api["spec"]["replicas"] = json!(0));
    check(&world.carry_out(scale_out("b", 0, 2)).await, Outcome::Failed, "switched it off");
    assert_eq!(writes(&world).len(), 0);
}

#[tokio::test]
async fn only_the_least_of_an_autoscaler_is_raised_and_given_back_exactly() {
    for (min, after) in [(json!(2), json!(2)), (json!(1), json!(1)), (Value::Null, json!(1))] {
        let world = World::start().await;
        world.autoscale(min.clone(), 6);
        let out = scale_out("a", 3, 5);
        check(&world.carry_out(out.clone()).await, Outcome::Confirmed, "");
        assert_eq!(writes(&world), [MIN], "{min}");
        assert_eq!(world.server.get(HPA)["spec"]["minReplicas"], json!(5));
        assert_eq!(world.replicas(API), 5);
        check(&world.carry_out(undo(&out, &world)).await, Outcome::Confirmed, "");
        assert_eq!(world.server.get(HPA)["spec"]["minReplicas"], after, "{min}");
        assert_eq!(world.server.get(HPA)["metadata"]["annotations"], Value::Null, "our mark goes with it");
        assert_eq!(world.server.get(HPA)["spec"]["maxReplicas"], json!(6));
    }
}

#[tokio::test]
async fn an_autoscaler_is_never_raised_beyond_its_most() {
    let world = World::start().await;
    world.autoscale(json!(2), 4);
    check(&world.carry_out(scale_out("a", 3, 9)).await, Outcome::Confirmed, "");
    assert_eq!(world.server.get(HPA)["spec"]["minReplicas"], json!(4));
    check(&world.carry_out(scale_out("b", 4, 9)).await, Outcome::Insufficient, "allows no more");
    assert_eq!(writes(&world), [MIN]);
}

#[tokio::test]
async fn a_persons_value_of_an_autoscaler_stays() {
    let world = World::start().await;
    world.autoscale(json!(2), 8);
    let out = scale_out("a", 3, 5);
    world.carry_out(out.clone()).await;
    world.server.rules().change(HPA, |hpa| hpa["spec"]["minReplicas"] = json!(6));
    check(&world.carry_out(undo(&out, &world)).await, Outcome::Unchanged, "");
    assert_eq!(world.server.get(HPA)["spec"]["minReplicas"], json!(6));
    assert_eq!(writes(&world), [MIN], "nothing is written over a person's value");
}

#[tokio::test]
async fn a_lost_answer_of_an_autoscaler_keeps_what_was_there_before() {
    let world = World::start().await;
    world.autoscale(json!(2), 8);
    world.server.trouble(MIN, Trouble::CutAfter);
    let out = scale_out("a", 3, 5);
    check(&world.carry_out(out.clone()).await, Outcome::Confirmed, "");
    assert_eq!(writes(&world), [MIN]);
    world.carry_out(undo(&out, &world)).await;
    assert_eq!(world.server.get(HPA)["spec"]["minReplicas"], json!(2));
}

#[tokio::test]
async fn an_autoscaler_that_keda_owns_is_left_to_it() {
    let world = World::start().await;
    world.autoscale(json!(2), 8);
    world.server.rules().change(HPA, |hpa| hpa["metadata"]["labels"] = json!({ "scaledobject.keda.sh/name": "api" }));
    check(&world.carry_out(scale_out("a", 3, 5)).await, Outcome::Failed, "KEDA");
    assert_eq!(writes(&world).len(), 0);
}

#[tokio::test]
async fn what_a_gitops_tool_sets_back_is_told_and_not_fought() {
    let world = World::start().await;
    let out = scale_out("a", 3, 5);
    assert_eq!(world.begin(out.clone()).await, None);
    world.server.rules().change(API, |api| api["spec"]["replicas"] = json!(3));
    check(&world.follow(&out).await, Outcome::Failed, "ignoreDifferences");
    assert_eq!((world.replicas(API), writes(&world).len()), (3, 1));
}

#[tokio::test]
async fn pods_are_resized_in_place_and_back() {
    let world = World::start().await;
    let before: BTreeSet<String> = uids(&world);
    let up = resize_cpu("a", 0.5, 0.75);
    check(&world.carry_out(up.clone()).await, Outcome::Confirmed, "");
    assert_eq!(writes(&world), [RESIZE; 3]);
    assert_eq!(uids(&world), before, "the same pods");
    for pod in world.pods("api") {
        let resources = world.server.get(&pod)["spec"]["containers"][0]["resources"].clone();
        assert_eq!(resources["requests"]["cpu"], "750m");
        assert_eq!(resources["limits"]["cpu"], "1500m", "the limit grows with it");
    }
    for entry in world.server.writes() {
        assert!(entry.body["metadata"]["uid"].is_string(), "the pod that was meant: {}", entry.body);
        assert!(entry.content_type.contains("strategic"), "{}", entry.content_type);
    }
    check(&world.carry_out(undo(&up, &world)).await, Outcome::Confirmed, "");
    let cpu = |pod: &String| world.server.get(pod)["spec"]["containers"][0]["resources"]["requests"]["cpu"].clone();
    assert!(world.pods("api").iter().all(|pod| cpu(pod) == "500m"));
}

fn uids(world: &World) -> BTreeSet<String> {
    world.pods("api").iter().map(|pod| world.server.get(pod)["metadata"]["uid"].to_string()).collect()
}

#[tokio::test]
async fn what_no_node_can_hold_is_insufficient_and_nothing_is_written() {
    let world = World::start().await;
    check(&world.carry_out(resize_cpu("a", 0.5, 8.0)).await, Outcome::Insufficient, "allocatable");
    assert_eq!(writes(&world).len(), 0);
    world.server.rules().cpu_max(2.0);
    check(&world.carry_out(resize_cpu("b", 0.5, 3.0)).await, Outcome::Insufficient, "maximum cpu usage");
    assert_eq!(writes(&world).len(), 0);
}

#[tokio::test]
async fn a_resize_that_the_node_puts_off_for_ever_is_insufficient() {
    let world = World::start().await;
    world.server.rules().stop_resizing();
    let up = resize_cpu("a", 0.5, 0.75);
    assert_eq!(world.begin(up.clone()).await, None);
    let pod = world.pods("api").remove(0);
    world.server.rules().change(&pod, |pod| {
        pod["status"]["conditions"] =
            json!([{ "type": "PodResizePending", "status": "True", "reason": "Deferred", "message": "node n1 is full" }]);
    });
    check(&world.follow(&up).await, Outcome::Insufficient, "node n1 is full");
}

#[tokio::test]
async fn a_resize_that_somebody_would_undo_is_refused() {
    let vpa = |mode: Value| {
        json!({ "metadata": { "name": "api" }, "spec": {
            "targetRef": { "kind": "Deployment", "name": "api" }, "updatePolicy": { "updateMode": mode } } })
    };
    let path = "/apis/autoscaling.k8s.io/v1/namespaces/shop/verticalpodautoscalers/api";
    for (mode, refused) in
        [(json!("Recreate"), true), (Value::Null, true), (json!("Off"), false), (json!("Initial"), false)]
    {
        let world = World::start().await;
        {
            let mut rules = world.server.rules();
            rules.know("autoscaling.k8s.io");
            rules.put(path, vpa(mode.clone()));
        }
        let done = world.carry_out(resize_cpu("a", 0.5, 0.75)).await;
        match refused {
            true => check(&done, Outcome::Failed, "VerticalPodAutoscaler"),
            false => check(&done, Outcome::Confirmed, ""),
        }
        assert_eq!(writes(&world).is_empty(), refused, "{mode}");
    }
    let world = World::start().await;
    world.autoscale(json!(2), 6);
    world.server.rules().change(HPA, |hpa| {
        hpa["spec"]["metrics"] = json!([{ "type": "Resource", "resource":
                { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 80 } } }]);
    });
    check(&world.carry_out(resize_cpu("a", 0.5, 0.75)).await, Outcome::Failed, "scale it out instead");
    assert_eq!(writes(&world).len(), 0);
}

#[tokio::test]
async fn pods_that_hold_something_else_are_not_resized() {
    let world = World::start().await;
    let pod = world.pods("api").remove(0);
    world.server.rules().change(&pod, |pod| {
        pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("800m");
    });
    check(&world.carry_out(resize_cpu("a", 0.5, 0.75)).await, Outcome::Failed, "somebody else changed it");
    assert_eq!(writes(&world).len(), 0);
}

#[tokio::test]
async fn the_template_is_changed_only_by_leave() {
    let world = World::start().await;
    world.server.cannot_resize();
    check(&world.carry_out(resize_cpu("a", 0.5, 0.75)).await, Outcome::Failed, "template_patch");
    assert_eq!(writes(&world).len(), 0);
    let world = World::with(KubernetesSettings { template_patch: true, ..KubernetesSettings::default() }).await;
    world.server.cannot_resize();
    assert_eq!(world.begin(resize_cpu("a", 0.5, 0.75)).await, None);
    assert_eq!(writes(&world), ["patch deployments"]);
    let container = world.server.get(API)["spec"]["template"]["spec"]["containers"][0].clone();
    assert_eq!((&container["resources"]["requests"]["cpu"], &container["image"]), (&json!("750m"), &json!("x")));
}

#[tokio::test]
async fn a_node_is_closed_before_anything_leaves_it_and_the_floor_holds() {
    let world = World::start().await;
    world.budget("api", 2);
    world.server.rules().start_heartbeats();
    let leave = drain("d", "n1");
    let mut done = world.begin(leave.clone()).await;
    for _ in 0..20 {
        let healthy = world.server.rules().healthy("shop", &json!({ "app": "api" }));
        assert!(healthy >= 2, "the floor of the budget is 2, and {healthy} are up");
        if done.is_some() {
            break;
        }
        world.server.rules().tick();
        done = world.pass(&leave).await;
    }
    check(&done.expect("it is empty at some time"), Outcome::Confirmed, "");
    let writes = writes(&world);
    assert_eq!(writes[0], "patch nodes", "{writes:?}");
    assert!(writes[1..].iter().all(|right| right == EVICT), "{writes:?}");
    let rules = world.server.rules();
    assert!(rules.paths("pods").iter().all(|pod| rules.get(pod).is_some_and(|pod| pod["spec"]["nodeName"] != "n1")));
    drop(rules);
    assert_eq!(world.server.get("/api/v1/nodes/n1")["spec"]["unschedulable"], json!(true));
}

#[tokio::test]
async fn daemon_mirror_and_bare_pods_stay_on_a_node_that_is_emptied() {
    let world = World::start().await;
    let pod = |name: &str, owner: Value, annotations: Value| {
        let path = format!("/api/v1/namespaces/kube-system/pods/{name}");
        let metadata =
            json!({ "name": name, "namespace": "kube-system", "ownerReferences": owner, "annotations": annotations });
        world.server.rules().put(
            &path,
            json!({
            "metadata": metadata, "spec": { "nodeName": "n1" }, "status": { "phase": "Running" } }),
        );
        path
    };
    let daemon = match world.server.plane() {
        Some(plane) => plane.daemon("log", "n1"),
        None => pod("log-1", json!([{ "kind": "DaemonSet", "name": "log", "controller": true }]), json!({})),
    };
    let stay = [
        daemon,
        pod("etcd-n1", json!([]), json!({ "kubernetes.io/config.mirror": "x" })),
        pod("bare", json!([]), json!({})),
    ];
    check(&world.carry_out(drain("d", "n1")).await, Outcome::Confirmed, "");
    let evicted: Vec<String> = world.server.writes().into_iter().map(|entry| entry.path).collect();
    for path in stay {
        assert!(world.server.rules().get(&path).is_some(), "{path}");
        assert!(!evicted.iter().any(|done| done.starts_with(&path)), "{path}");
    }
}

#[tokio::test]
async fn a_drain_goes_on_after_a_kill_and_only_one_that_had_begun() {
    let mut world = World::start().await;
    world.budget("api", 3);
    let leave = drain("d", "n1");
    assert_eq!(world.begin(leave.clone()).await, None, "the budget is closed");
    world.restart();
    world.server.rules().remove(PDB);
    check(&world.follow(&leave).await, Outcome::Confirmed, "");
    assert_eq!(writes(&world).iter().filter(|right| *right == "patch nodes").count(), 1, "closed once");
    // One that never began does not begin now.
    let world = World::start().await;
    let leave = drain("d", "n1");
    forestall::act::Record::intent(&*world.journal, &leave, world.clock.now()).expect("the journal can be written");
    check(&world.follow(&leave).await, Outcome::Failed, "never sent");
    assert_eq!(writes(&world).len(), 0);
}

#[tokio::test]
async fn a_drain_stops_when_a_person_opens_the_node_again() {
    let world = World::start().await;
    world.budget("api", 3);
    let leave = drain("d", "n1");
    assert_eq!(world.begin(leave.clone()).await, None);
    world.server.rules().remove(PDB);
    world.server.rules().change("/api/v1/nodes/n1", |node| node["spec"] = json!({}));
    let before = writes(&world).len();
    check(&world.follow(&leave).await, Outcome::Failed, "opened node n1 again");
    assert_eq!(writes(&world).len(), before);
}

#[tokio::test]
async fn a_server_that_is_away_in_the_middle_of_a_drain_costs_nothing() {
    let world = World::start().await;
    world.budget("api", 3);
    let leave = drain("d", "n1");
    world.server.trouble(EVICT, Trouble::CutAfter);
    assert_eq!(world.begin(leave.clone()).await, None);
    world.server.rules().remove(PDB);
    for trouble in
        [Trouble::CutAfter, Trouble::CutBefore, Trouble::Answers(503), Trouble::Answers(429), Trouble::Answers(500)]
    {
        world.server.trouble(EVICT, trouble);
        world.server.trouble("list pods", trouble);
        world.server.trouble("get nodes", trouble);
    }
    check(&world.follow(&leave).await, Outcome::Confirmed, "");
    assert_eq!(writes(&world).iter().filter(|right| *right == "patch nodes").count(), 1);
}

#[tokio::test]
async fn pods_with_two_budgets_or_a_closed_one_are_named_when_time_is_up() {
    for (name, floors, words) in [("two", vec![0, 0], "more than one"), ("closed", vec![3], "disruption budget")] {
        let world = World::start().await;
        for (index, floor) in floors.into_iter().enumerate() {
            world.budget(&format!("b{index}"), floor);
        }
        let done = world.carry_out(drain("d", "n1")).await;
        check(&done, Outcome::Failed, words);
        assert_eq!(world.server.rules().healthy("shop", &json!({ "app": "api" })), 3, "{name}");
    }
}

#[tokio::test]
async fn only_a_node_that_was_closed_by_us_is_opened_again() {
    let node = "/api/v1/nodes/n1";
    let world = World::start().await;
    let close = on_node("q", ActionKind::Quarantine, "n1", Change::Cordon);
    world.server.rules().start_heartbeats();
    check(&world.carry_out(close.clone()).await, Outcome::Confirmed, "");
    assert_eq!(world.server.get(node)["spec"]["unschedulable"], json!(true));
    check(&world.carry_out(undo(&close, &world)).await, Outcome::Confirmed, "");
    assert_eq!(world.server.get(node)["spec"].get("unschedulable"), None);
    assert_eq!(world.server.get(node)["metadata"]["annotations"].get("forestall.io/cordoned-by"), None);
    // One that a person had closed is theirs.
    let world = World::start().await;
    let close = on_node("q", ActionKind::Quarantine, "n1", Change::Cordon);
    world.server.rules().change(node, |node| node["spec"]["unschedulable"] = json!(true));
    check(&world.carry_out(close.clone()).await, Outcome::Unchanged, "");
    check(&world.carry_out(undo(&close, &world)).await, Outcome::Unchanged, "");
    assert_eq!(writes(&world).len(), 0);
}

#[tokio::test]
async fn a_workloads_pods_leave_the_named_nodes_and_nobody_elses() {
    let world = World::start().await;
    let nodes: BTreeSet<String> = world
        .pods("api")
        .iter()
        .map(|pod| world.server.get(pod)["spec"]["nodeName"].as_str().unwrap_or("").to_owned())
        .collect();
    let from: Vec<String> = nodes.into_iter().take(1).collect();
    let others = world.pods("batch");
    let leave = action("m", ActionKind::Migrate, Change::Move { from_nodes: from.clone() });
    if let Some(rules) = world.server.rules().fake() {
        rules.created_at = "2027-01-01T00:00:00Z".to_owned();
    }
    check(&world.carry_out(leave).await, Outcome::Confirmed, "");
    assert!(writes(&world).iter().all(|right| right == EVICT), "no node is closed for one workload");
    assert_eq!(world.pods("batch"), others);
    assert_eq!(writes(&world).len(), 1, "the pods of one node");
}

#[tokio::test]
async fn the_move_of_a_workload_goes_on_after_a_kill_where_the_journal_has_it() {
    let mut world = World::start().await;
    world.budget("api", 3);
    let nodes = vec!["n1".to_owned(), "n2".to_owned(), "n3".to_owned()];
    let leave = action("m", ActionKind::Migrate, Change::Move { from_nodes: nodes });
    if let Some(rules) = world.server.rules().fake() {
        rules.created_at = "2027-01-01T00:00:00Z".to_owned();
    }
    assert_eq!(world.begin(leave.clone()).await, None, "the budget is closed");
    world.restart();
    world.server.rules().remove(PDB);
    check(&world.follow(&leave).await, Outcome::Confirmed, "");
    assert_eq!(writes(&world), [EVICT; 3], "each of its pods once");
    // Of one whose attempt the journal does not have nobody can tell, and it does not begin now.
    let world = World::start().await;
    let leave = at(&world, leave, "n");
    forestall::act::Record::intent(&*world.journal, &leave, world.clock.now()).expect("the journal can be written");
    check(&world.follow(&leave).await, Outcome::Unknown, "nobody knows");
    assert_eq!(writes(&world).len(), 0);
}

/// The same action under another id, decided now.
fn at(world: &World, action: Action, id: &str) -> Action {
    Action { id: id.to_owned(), decided_at: world.clock.now(), ..action }
}

#[tokio::test]
async fn load_shifts_to_the_other_backends_and_back() {
    let route = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/web";
    let backends = json!([{ "name": "api", "port": 80 }, { "name": "api-b", "port": 80, "weight": 1 }]);
    let world = World::start().await;
    {
        let mut rules = world.server.rules();
        rules.know("gateway.networking.k8s.io");
        let spec = json!({ "rules": [{ "matches": [{ "path": { "value": "/" } }], "backendRefs": backends }] });
        rules.put(route, json!({ "metadata": { "name": "web", "namespace": "shop" }, "spec": spec }));
    }
    let before = world.server.get(route)["spec"].clone();
    let shift = action("s", ActionKind::ShiftLoad, Change::Shift { share: 0.4 });
    check(&world.carry_out(shift.clone()).await, Outcome::Confirmed, "");
    let weights = |world: &World| {
        let backends = world.server.get(route)["spec"]["rules"][0]["backendRefs"].clone();
        (backends[0]["weight"].clone(), backends[1]["weight"].clone())
    };
    assert_eq!(weights(&world), (json!(3000), json!(7000)));
    check(&world.carry_out(undo(&shift, &world)).await, Outcome::Confirmed, "");
    assert_eq!(world.server.get(route)["spec"], before, "as it was, to the letter");
    // A second shift counts from what was there before the first; each is given back to where the undo says.
    check(&world.carry_out(at(&world, shift.clone(), "s1")).await, Outcome::Confirmed, "");
    let mut second = at(&world, shift.clone(), "s2");
    second.change = Change::Shift { share: 0.6 };
    check(&world.carry_out(second.clone()).await, Outcome::Confirmed, "");
    assert_eq!(weights(&world), (json!(2000), json!(8000)));
    let back = Action { change: Change::Shift { share: 0.4 }, ..undo(&second, &world) };
    check(&world.carry_out(back).await, Outcome::Confirmed, "");
    assert_eq!(weights(&world), (json!(3000), json!(7000)));
    let first = at(&world, shift.clone(), "s1");
    check(&world.carry_out(undo(&first, &world)).await, Outcome::Confirmed, "");
    assert_eq!(world.server.get(route)["spec"], before);
    let world = World::start().await;
    check(&world.carry_out(at(&world, shift, "s")).await, Outcome::Failed, "no Gateway API");
}

#[tokio::test]
async fn room_is_made_by_exactly_what_the_plan_says() {
    let world = World::start().await;
    let mut less = action("e", ActionKind::Evict, Change::Replicas { from: 2, to: 1 });
    less.target.name = "batch".to_owned();
    less.makes_room_for = Some("a".to_owned());
    check(&world.carry_out(less.clone()).await, Outcome::Confirmed, "");
    assert_eq!((world.replicas(BATCH), world.pods("batch").len()), (1, 1));
    check(&world.carry_out(undo(&less, &world)).await, Outcome::Confirmed, "");
    assert_eq!(world.replicas(BATCH), 2);
    // What an autoscaler keeps would be back at once.
    let world = World::start().await;
    world.autoscale(json!(2), 6);
    let less = action("e", ActionKind::Evict, Change::Replicas { from: 3, to: 2 });
    check(&world.carry_out(less).await, Outcome::Failed, "keeps its replicas");
    assert_eq!(writes(&world).len(), 0);
}

#[tokio::test]
async fn a_dry_run_asks_nothing_of_the_cluster() {
    let world = World::start().await;
    for change in [
        Change::Replicas { from: 3, to: 5 },
        Change::Move { from_nodes: vec!["n1".to_owned()] },
        Change::Shift { share: 0.5 },
    ] {
        let dry = Action { dry_run: true, ..action("a", ActionKind::ScaleOut, change) };
        assert_eq!(world.carry_out(dry).await.0, Outcome::DryRun);
    }
    assert!(world.server.audit().is_empty());
}

/// Each kind of action with the rights that it takes.
fn each_kind() -> Vec<(Action, Vec<&'static str>)> {
    let scale = vec!["get deployments", "list horizontalpodautoscalers", SCALE];
    let resize = vec!["get deployments", "list pods", RESIZE];
    let close = vec!["get nodes", "patch nodes"];
    let leave = vec!["get nodes", "patch nodes", "list pods", EVICT];
    vec![
        (scale_out("a", 3, 5), scale),
        (resize_cpu("a", 0.5, 0.75), resize),
        (on_node("a", ActionKind::Quarantine, "n1", Change::Cordon), close),
        (drain("a", "n1"), leave),
    ]
}

#[tokio::test]
async fn each_missing_right_is_named_and_not_asked_for_again_and_again() {
    for (action, rights) in each_kind() {
        for right in rights {
            let world = World::start().await;
            world.server.deny(right);
            let action = at(&world, action.clone(), "a");
            let done = world.carry_out(action).await;
            let (verb, resource) = right.split_once(' ').expect("two words");
            assert_eq!(done.0, Outcome::Failed, "{right}: {}", done.1);
            assert_eq!(writes(&world).len(), 0, "{right}: nothing is half done");
            let named = format!("cannot {verb} resource \"{resource}\"");
            assert!(done.1.contains(&named), "{right}: {}", done.1);
            assert!(world.server.refused() <= 10, "{right}: {} refused requests", world.server.refused());
        }
    }
}

#[tokio::test]
async fn a_token_that_was_replaced_is_read_again_once() {
    let world = World::start().await;
    check(&world.carry_out(scale_out("a", 3, 4)).await, Outcome::Confirmed, "");
    world.server.rotate_token("second");
    check(&world.carry_out(scale_out("b", 4, 5)).await, Outcome::Confirmed, "");
    let refused = |world: &World| world.server.audit().iter().filter(|entry| entry.code == 401).count();
    assert_eq!(refused(&world), 1);
    world.server.expect_token("third");
    let mut last = scale_out("c", 5, 6);
    last.decided_at = world.clock.now();
    check(&world.carry_out(last).await, Outcome::Failed, "401");
    assert_eq!(refused(&world), 3, "the token that was known, and the one that was read again");
}

#[tokio::test]
async fn a_target_that_is_gone_fails_with_its_name() {
    let world = World::start().await;
    let mut out = scale_out("a", 3, 5);
    out.target.name = "gone".to_owned();
    check(&world.carry_out(out).await, Outcome::Failed, "gone");
    let mut out = scale_out("b", 3, 5);
    out.target.component.kind = "daemonset".to_owned();
    check(&world.carry_out(out).await, Outcome::Failed, "no deployment");
    assert_eq!(writes(&world).len(), 0);
}

#[tokio::test]
async fn an_action_that_waits_beyond_its_patience_says_so() {
    let world =
        World::with(KubernetesSettings { confirm_within: Millis::MINUTE, ..KubernetesSettings::default() }).await;
    {
        let mut rules = world.server.rules();
        for node in ["n1", "n2", "n3"] {
            rules.change(&format!("/api/v1/nodes/{node}"), |node| node["spec"]["unschedulable"] = json!(true));
        }
    }
    check(&world.carry_out(scale_out("a", 3, 5)).await, Outcome::Insufficient, "3 of 5 replicas are ready");
}
