//! Notices: what is told, when, and how the sinks say it.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::journal_tests::{assessment, component, declined};
use super::*;
use crate::act::tests::{NOW, Reply, Server, action, verify};
use crate::act::{ActError, Done};
use crate::clock::Clock;
use crate::health::{Assessment, Standing};
use crate::model::{Millis, Timestamp};
use crate::plan::{Action, Outcome, Plan, Reason};

/// Cycles half a minute apart, each with the standing of component `a`, what is declined and what is done; each gives
/// its notices as `state key`.
#[derive(Default)]
struct Story {
    told: Told,
    cycles: i64,
}

impl Story {
    fn cycle(&mut self, standing: Standing, reasons: &[Reason], actions: Vec<Action>) -> Vec<Notice> {
        let at = NOW + Millis::from_secs(30) * self.cycles;
        self.cycles += 1;
        let declined = reasons.iter().map(|&reason| declined("a", reason)).collect();
        let plan = Plan { at, actions, declined, ..Plan::default() };
        let templates = vec![
            ("summary".to_owned(), "{{ $labels.component }} in {{ $eta }}".to_owned()),
            ("runbook_url".to_owned(), "https://example.org/{{ $labels.team }}".to_owned()),
        ];
        let annotations = RuleAnnotations::from([("saturation".to_owned(), templates)]);
        notices_of(&plan, &[assessment("a", standing)], &annotations, &mut self.told)
    }

    fn check(&mut self, standing: Standing, reasons: &[Reason], actions: Vec<Action>, wanted: &[&str]) {
        let notices = self.cycle(standing, reasons, actions);
        let found: Vec<String> = notices
            .iter()
            .map(|notice| format!("{} {}", format!("{:?}", notice.state).to_lowercase(), notice.key))
            .collect();
        assert_eq!(found, wanted, "cycle {}", self.cycles);
    }
}

#[test]
fn a_risk_is_told_once_renewed_each_minute_and_ended() {
    let mut story = Story::default();
    let key = "predicted_failure/deployment/a";
    story.check(Standing::Steady, &[], vec![], &[]);
    story.check(Standing::AtRisk, &[], vec![], &[&format!("new {key}")]);
    story.check(Standing::Failing, &[], vec![], &[]);
    story.check(Standing::Failing, &[], vec![], &[&format!("renewed {key}")]);
    story.check(Standing::Unknown, &[], vec![], &[]);
    story.check(Standing::Watch, &[], vec![], &[&format!("over {key}")]);
    story.check(Standing::Watch, &[], vec![], &[]);
    story.check(Standing::AtRisk, &[], vec![], &[&format!("new {key}")]);
    for _ in 0..20 {
        story.check(Standing::Unknown, &[], vec![], &[]);
    }
    story.check(Standing::AtRisk, &[], vec![], &[&format!("new {key}")]);
}

#[test]
fn what_forbids_help_is_told_and_what_is_usual_is_not() {
    let mut story = Story::default();
    let usual = [Reason::BelowEntry, Reason::NotWorthIt, Reason::Cooldown, Reason::Observe, Reason::Learning];
    story.check(Standing::Steady, &usual, vec![], &[]);
    let hindered = [Reason::InsufficientCapacity, Reason::Budget, Reason::Budget];
    story.check(
        Standing::Steady,
        &hindered,
        vec![],
        &["new declined/budget/deployment/a", "new insufficient/insufficient_capacity/deployment/a"],
    );
    story.check(Standing::Steady, &[Reason::Budget], vec![], &["over insufficient/insufficient_capacity/deployment/a"]);
    story.check(Standing::Steady, &[], vec![], &["over declined/budget/deployment/a"]);
}

#[test]
fn an_action_is_told_and_ends_when_it_is_given_back() {
    let mut story = Story::default();
    let undo = |id: &str, of: &str| Action { undoes: Some(of.to_owned()), expires_at: None, ..action(id) };
    story.check(Standing::Steady, &[], vec![action("a1")], &["new acted/a1"]);
    story.check(Standing::Steady, &[], vec![], &[]);
    story.check(Standing::Steady, &[], vec![undo("a2", "a1")], &["over acted/a1", "new acted/a2"]);
    story.check(Standing::Steady, &[], vec![undo("a3", "a1")], &["new acted/a3"]);
}

#[test]
fn notices_say_it_in_words_with_labels_and_rendered_annotations() {
    let mut story = Story::default();
    let dry = Action { dry_run: true, ..action("a1") };
    let notices = story.cycle(Standing::AtRisk, &[Reason::InsufficientCapacity], vec![dry]);
    let [insufficient, predicted, acted] = notices.as_slice() else { panic!("{notices:?}") };
    assert_eq!(predicted.title, "deployment/a is likely to fail in 20m");
    assert_eq!(predicted.text, "Failure probability 87 %, expected loss 0.40. Loudest signal: saturation/cpu.");
    assert_eq!(
        predicted.labels.to_string(),
        r#"{component="deployment/a", deployment="a", kind="deployment", team="checkout"}"#
    );
    assert_eq!(predicted.annotations["summary"], "deployment/a in 20m");
    assert_eq!(predicted.annotations["runbook_url"], "https://example.org/checkout");
    assert_eq!((predicted.starts_at, predicted.ends_at), (NOW, Some(NOW + Millis::MINUTE * 5)));
    assert_eq!(insufficient.severity, Severity::Critical);
    assert_eq!(insufficient.text, "2 of 2 actions used. Released when: in 10m.");
    assert_eq!(insufficient.labels.get("reason"), Some("insufficient_capacity"));
    assert_eq!(acted.title, "would scale out deployment/shop/checkout: 3 → 5 replicas");
    assert_eq!((acted.ends_at, acted.labels.get("policy")), (Some(NOW + Millis::HOUR), Some("shop")));
    let ids: std::collections::BTreeSet<&str> = notices.iter().map(|notice| notice.id.as_str()).collect();
    assert_eq!(ids.len(), 3);
}

#[test]
fn outcomes_are_told_unless_they_were_only_written_down() {
    let plan = Plan { at: NOW, actions: vec![action("a1"), action("a2"), action("a3")], ..Plan::default() };
    let done =
        |id: &str, outcome, took| Done { action_id: id.to_owned(), outcome, detail: "so it is".to_owned(), took };
    let done = [
        done("a1", Outcome::Confirmed, Some(Millis(90_000))),
        done("a2", Outcome::Failed, None),
        done("a3", Outcome::DryRun, None),
        done("a4", Outcome::Failed, None),
    ];
    let notices = notices_of_outcomes(&plan.actions, &done, NOW);
    let found: Vec<_> =
        notices.iter().map(|notice| (notice.key.as_str(), notice.severity, notice.text.as_str())).collect();
    let wanted =
        [("outcome/a1", Severity::Info, "so it is. It took 1m30s."), ("outcome/a2", Severity::Warning, "so it is")];
    assert_eq!(found, wanted);
    assert_eq!(notices[0].title, "confirmed: scale out deployment/shop/checkout: 3 → 5 replicas");
}

/// A notice of component `a` at risk, in this state.
fn notice(state: NoticeState) -> Notice {
    let mut one = Story::default().cycle(Standing::AtRisk, &[], vec![]).remove(0);
    one.state = state;
    one
}

fn token_file(folder: &tempfile::TempDir) -> Option<std::path::PathBuf> {
    let file = folder.path().join("token");
    std::fs::write(&file, "t0k3n\n").expect("written");
    Some(file)
}

/// Tells notices through one sink and gives what the server got, as (method, path, body).
async fn tell(sink: &dyn Sink, server: &Server, states: &[NoticeState]) -> Vec<(String, String, serde_json::Value)> {
    for &state in states {
        let mut one = notice(state);
        if state == NoticeState::Over {
            one.ends_at = Some(NOW + Millis::MINUTE);
        }
        sink.send(&one, NOW).await.expect("the server takes it");
    }
    let body = |got: &crate::act::tests::Got| serde_json::from_slice(&got.body).expect("JSON");
    server.got().iter().map(|got| (got.method.to_string(), got.path.clone(), body(got))).collect()
}

const LIFE: [NoticeState; 3] = [NoticeState::New, NoticeState::Renewed, NoticeState::Over];

#[tokio::test]
async fn alertmanager_gets_an_alert_that_is_renewed_and_resolved() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = Server::start(&[Reply::Status(200, "")]).await;
    let url = format!("{}/", server.address);
    let settings = AlertmanagerSettings { url, token_file: token_file(&folder), timeout: Millis(5000) };
    let sink = AlertmanagerSink::new(&settings).expect("right settings");
    let got = tell(&sink, &server, &LIFE).await;
    assert_eq!(got.len(), 3);
    let wanted = serde_json::json!([{
        "labels": {
            "alertname": "ForestallPredictedFailure", "component": "deployment/a", "deployment": "a",
            "kind": "deployment", "severity": "warning", "team": "checkout",
        },
        "annotations": {
            "description": "Failure probability 87 %, expected loss 0.40. Loudest signal: saturation/cpu.",
            "runbook_url": "https://example.org/checkout", "summary": "deployment/a in 20m",
        },
        "startsAt": "2023-11-14T22:13:20.000Z",
        "endsAt": "2023-11-14T22:18:20.000Z",
    }]);
    assert_eq!(got[0], ("POST".to_owned(), "/api/v2/alerts".to_owned(), wanted.clone()));
    assert_eq!(got[2].2[0]["endsAt"], "2023-11-14T22:14:20.000Z");
    assert_eq!(got[2].2[0]["labels"], wanted[0]["labels"], "the labels are the alert's identity");
    assert_eq!(server.got()[0].headers["authorization"], "Bearer t0k3n");
}

#[tokio::test]
async fn grafana_gets_a_region_whose_end_is_moved() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = Server::start(&[Reply::Status(200, r#"{"message":"Annotation added","id":42}"#)]).await;
    let settings = GrafanaSettings {
        url: server.address.clone(),
        token_file: token_file(&folder),
        tags: vec!["forestall".to_owned()],
        timeout: Millis(5000),
    };
    let sink = GrafanaSink::new(&settings).expect("right settings");
    let got = tell(&sink, &server, &LIFE).await;
    let (start, end) = (NOW.0, NOW.0 + 300_000);
    let text = "<b>deployment/a is likely to fail in 20m</b><br/>\
                Failure probability 87 %, expected loss 0.40. Loudest signal: saturation/cpu.";
    let tags = ["forestall", "predicted_failure", "deployment/a"];
    let new = serde_json::json!({ "time": start, "timeEnd": end, "tags": tags, "text": text });
    let over = serde_json::json!({ "timeEnd": start + 60_000 });
    let wanted = [("POST", "/api/annotations", new), ("PATCH", "/api/annotations/42", over)];
    let wanted = wanted.map(|(method, path, body)| (method.to_owned(), path.to_owned(), body));
    assert_eq!(got, wanted);
    assert_eq!(server.got()[0].headers["authorization"], "Bearer t0k3n");
    let mut hostile = notice(NoticeState::New);
    hostile.title = "<script>\"&".to_owned();
    sink.send(&hostile, NOW).await.expect("taken");
    let body = String::from_utf8(server.got()[2].body.to_vec()).expect("text");
    assert!(body.contains("&lt;script&gt;&quot;&amp;"), "{body}");
    let unknown = GrafanaSink::new(&settings).expect("right settings");
    unknown.send(&notice(NoticeState::Over), NOW).await.expect("nothing to move");
    assert_eq!(server.got().len(), 3);
}

#[tokio::test]
async fn a_webhook_gets_signed_json_without_renewals() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key = folder.path().join("key");
    std::fs::write(&key, "key").expect("written");
    let server = Server::start(&[Reply::Status(200, "")]).await;
    let settings = NotifyWebhookSettings {
        url: format!("{}/told", server.address),
        hmac_secret_files: vec![key],
        timeout: Millis(5000),
        allow_local: true,
    };
    let sink = WebhookSink::new(&settings).expect("right settings");
    let got = tell(&sink, &server, &LIFE).await;
    let states: Vec<_> = got.iter().map(|(_, _, body)| body["state"].as_str().expect("text")).collect();
    assert_eq!(states, ["new", "over"]);
    let body = &got[0].2;
    assert_eq!(
        (&body["type"], &body["version"], &body["notice"]),
        (&"forestall.notice".into(), &1.into(), &"predicted_failure".into())
    );
    assert_eq!(body["labels"]["team"], "checkout");
    assert!(
        server
            .got()
            .iter()
            .all(|got| verify(got, "key") && got.headers["idempotency-key"] == got.headers["webhook-id"])
    );
    let closed = NotifyWebhookSettings { allow_local: false, ..settings };
    assert!(build_sinks(&NotifySettings { webhooks: vec![closed], ..NotifySettings::default() }).is_err());
}

/// A sink that fails in a given way so many times, and then keeps what it is told.
#[derive(Debug, Default)]
struct Flaky {
    fails: Mutex<u32>,
    refuses: bool,
    told: Mutex<Vec<String>>,
}

impl Sink for Flaky {
    fn name(&self) -> &str {
        "flaky"
    }
    fn send<'a>(&'a self, notice: &'a Notice, _now: Timestamp) -> BoxFuture<'a, Result<(), ActError>> {
        async move {
            let target = "flaky".to_owned();
            let reason = "away".to_owned();
            if self.refuses {
                return Err(ActError::Refused { target, reason });
            }
            let mut fails = self.fails.lock();
            if *fails > 0 {
                *fails -= 1;
                return Err(ActError::Unavailable { target, reason, retry_after: None });
            }
            self.told.lock().push(notice.key.clone());
            Ok(())
        }
        .boxed()
    }
}

fn numbered(count: usize) -> Vec<Notice> {
    let one = notice(NoticeState::New);
    (0..count).map(|n| Notice { key: n.to_string(), id: format!("n{n}"), ..one.clone() }).collect()
}

#[tokio::test]
async fn retries_in_order_and_counts_what_is_lost() {
    let away = Arc::new(Flaky { fails: Mutex::new(5), ..Flaky::default() });
    let gone = Arc::new(Flaky { fails: Mutex::new(1000), ..Flaky::default() });
    let refusing = Arc::new(Flaky { refuses: true, ..Flaky::default() });
    let sinks: Vec<Arc<dyn Sink>> = vec![away.clone(), gone, refusing];
    let notifier = Notifier::new(sinks, Clock::simulated(NOW));
    notifier.push(&numbered(3));
    notifier.drain().await;
    assert_eq!(*away.told.lock(), ["0", "1", "2"]);
    let counts: Vec<_> = notifier.status().iter().map(|s| (s.sent, s.failed, s.dropped, s.waiting)).collect();
    assert_eq!(counts, [(3, 0, 0, 0), (0, 3, 0, 0), (0, 3, 0, 0)]);
}

#[tokio::test]
async fn a_full_queue_drops_the_oldest() {
    let sink = Arc::new(Flaky::default());
    let notifier = Notifier::new(vec![sink.clone()], Clock::simulated(NOW));
    notifier.push(&numbered(QUEUE_MAX + 2));
    notifier.drain().await;
    assert_eq!(sink.told.lock().first().map(String::as_str), Some("2"));
    assert_eq!((notifier.status()[0].dropped, sink.told.lock().len()), (2, QUEUE_MAX));
}

#[tokio::test]
async fn the_task_sends_what_comes_until_it_is_told_to_end() {
    let sink = Arc::new(Flaky::default());
    let notifier = Arc::new(Notifier::new(vec![sink.clone()], Clock::simulated(NOW)));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let task = tokio::spawn({
        let notifier = Arc::clone(&notifier);
        async move { notifier.run(stopped.map(|_| ())).await }
    });
    for n in 1..=3 {
        notifier.push(&numbered(1));
        let mut turns = 0;
        while sink.told.lock().len() < n {
            turns += 1;
            assert!(turns < 10_000, "notice {n} is not sent");
            tokio::task::yield_now().await;
        }
    }
    stop.send(()).expect("the task listens");
    task.await.expect("the task ends");
    notifier.push(&numbered(1));
    assert_eq!(notifier.status()[0].waiting, 1);
    notifier.drain().await;
    assert_eq!(sink.told.lock().len(), 4);
}

#[test]
fn an_unassessed_component_s_notice_lapses() {
    let mut told = Told::default();
    let none: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    let at = |minutes: i64| Plan { at: NOW + Millis::MINUTE * minutes, ..Plan::default() };
    let risky: [Assessment; 1] = [assessment("a", Standing::AtRisk)];
    assert_eq!(notices_of(&at(0), &risky, &none, &mut told).len(), 1);
    assert_eq!(risky[0].component, component("a"));
    assert!(notices_of(&at(1), &[], &none, &mut told).is_empty(), "no data is not good news");
    assert!(notices_of(&at(6), &[], &none, &mut told).is_empty());
    assert_eq!(notices_of(&at(7), &risky, &none, &mut told)[0].state, NoticeState::New);
}
