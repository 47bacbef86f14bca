//! Which of several replicas acts.

use std::sync::Arc;

use forestall::act::{Actuator, KubernetesActuator, KubernetesSettings, Leadership, LeaseSettings};
use forestall::api::WebOptions;
use forestall::app::{App, Options};
use forestall::clock::Clock;
use forestall::model::Millis;
use serde_json::json;

use super::server::Trouble;
use super::world::{World, began, drain, scale_out};

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/forestall/leases/forestall";
const DURATION: Millis = Millis(15_000);
/// How often a replica looks.
const STEP: Millis = Millis(1500);

fn settings(world: &World) -> KubernetesSettings {
    KubernetesSettings { kubeconfig: Some(world.server.kubeconfig()), ..KubernetesSettings::default() }
}

fn replica(world: &World, name: &str) -> Leadership {
    let lease = LeaseSettings {
        cluster: settings(world),
        namespace: "forestall".to_owned(),
        name: "forestall".to_owned(),
        duration: DURATION,
    };
    Leadership::new(&lease, name, &world.clock)
}

fn holder(world: &World) -> String {
    world.server.get(LEASE)["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

fn step(world: &World) {
    world.clock.advance_to(world.clock.now() + STEP);
}

#[tokio::test]
async fn one_of_two_leads_and_stays() {
    let world = World::start().await;
    let (a, b) = (replica(&world, "a"), replica(&world, "b"));
    assert!(!a.fence().is_open(), "nobody leads before it has the lease");
    for _ in 0..40 {
        a.look().await;
        b.look().await;
        assert!(a.fence().is_open() && !b.fence().is_open());
        step(&world);
    }
    assert_eq!(holder(&world), "a");
    let renewals = world.server.writes().len();
    assert!(renewals < 20, "a minute takes a renewal each few seconds, not {renewals}");
}

#[tokio::test]
async fn a_frozen_leader_is_followed_in_time_and_writes_nothing_when_it_goes_on() {
    let world = World::start().await;
    let (a, b) = (replica(&world, "a"), replica(&world, "b"));
    a.look().await;
    b.look().await;
    let frozen_at = world.clock.now();
    // Only b goes on.
    while !b.fence().is_open() {
        step(&world);
        b.look().await;
        assert!(!(a.fence().is_open() && b.fence().is_open()), "both lead at {}", world.clock.now());
        let waited = world.clock.now() - frozen_at;
        assert!(waited <= DURATION + Millis(5000), "nobody leads after {waited}");
    }
    assert_eq!(holder(&world), "b");
    // a goes on where it was: in the middle of an action.
    let before = world.server.writes().len();
    let actuator = KubernetesActuator::new("cluster", &settings(&world));
    actuator.set_fence(a.fence());
    for action in [scale_out("s", 3, 5), drain("d", "n1")] {
        let error = actuator.apply(&action, 1, world.clock.now()).await.expect_err("it does not lead");
        assert!(error.to_string().contains("does not lead"), "{error}");
    }
    assert_eq!(world.server.writes().len(), before, "nothing is written");
    a.look().await;
    assert!(!a.fence().is_open(), "the lease is the other one's");
    // The one that leads may.
    let actuator = KubernetesActuator::new("cluster", &settings(&world));
    actuator.set_fence(b.fence());
    actuator.apply(&scale_out("s", 3, 5), 1, world.clock.now()).await.expect("it leads");
}

#[tokio::test]
async fn a_leader_that_cannot_renew_stops_before_another_one_may_begin() {
    let world = World::start().await;
    let a = replica(&world, "a");
    a.look().await;
    let from = world.clock.now();
    for _ in 0..100 {
        world.server.trouble("get leases", Trouble::Answers(503));
    }
    while a.fence().is_open() {
        step(&world);
        a.look().await;
    }
    let led = world.clock.now() - from;
    assert!(Millis(8000) < led && led < DURATION, "it led for {led}");
}

#[tokio::test]
async fn of_two_that_ask_at_once_one_gets_it() {
    let world = World::start().await;
    world.server.rules().put(
        LEASE,
        json!({ "metadata": { "name": "forestall", "namespace": "forestall" },
        "spec": { "holderIdentity": "", "leaseDurationSeconds": 15, "leaseTransitions": 3 } }),
    );
    let a = replica(&world, "a");
    world.server.trouble("update leases", Trouble::Overtaken);
    a.look().await;
    assert!(!a.fence().is_open(), "somebody else wrote first");
    a.look().await;
    assert!(a.fence().is_open());
    assert_eq!(world.server.get(LEASE)["spec"]["leaseTransitions"], json!(4));
}

#[tokio::test]
async fn a_leader_that_stops_lets_go() {
    let world = World::start().await;
    let (a, b) = (replica(&world, "a"), replica(&world, "b"));
    a.run(std::future::ready(())).await;
    assert!(!a.fence().is_open());
    b.look().await;
    assert!(b.fence().is_open(), "nobody need wait for a lease that was let go of");
}

#[tokio::test]
async fn two_replicas_evaluate_and_one_acts() {
    let world = World::start().await;
    let config = world.server.folder.path().join("forestall.yml");
    let text = format!(
        "actuators: {{ cluster: {{ kubernetes: {{ kubeconfig: '{}' }} }} }}\n\
         leader_election: {{ lease: {{ namespace: forestall, name: forestall }} }}\n",
        world.server.kubeconfig().display()
    );
    std::fs::write(&config, text).expect("the folder can be written");
    let app = |clock: &Clock| {
        let options = Options {
            config_file: Some(config.clone()),
            storage_path: None,
            web: WebOptions::default(),
            clock: clock.clone(),
        };
        Arc::new(App::build(options).expect("the configuration is sound"))
    };
    // Processes that start at the same moment on one host are two all the same.
    let (a, b) = (app(&world.clock), app(&Clock::simulated(began() + Millis(1))));
    for app in [&a, &b] {
        app.leadership().expect("there is an election").look().await;
    }
    let mut followers = Vec::new();
    for app in [&a, &b] {
        app.pass(began()).await;
        let report = app.shared().report.load_full().expect("both evaluate");
        followers.push(report.input.gates.follower);
    }
    assert_eq!(followers, [false, true]);
}
