//! The web page, driven by a real browser through `tests/page/page.mjs` against a server with a small fleet on a simulated
//! clock: one component on its way to its threshold, one beyond it, one silent, one new, one with an odd name.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use forestall::api::{self, WebOptions};
use forestall::app::{App, Options};
use forestall::clock::Clock;
use forestall::config;
use forestall::model::{Labels, Millis, Sample, Timestamp};
use tokio::net::TcpListener;

/// Monday, 5 January 2026, 06:00 UTC.
const START: Timestamp = Timestamp::from_secs(1_767_592_800);
/// So much is there before the page is looked at.
const HISTORY_MINUTES: i64 = 480;
/// While it is looked at, a minute passes in this time: slow enough that what is at risk stays so.
const PACE: Duration = Duration::from_millis(1500);

const MAIN: &str = "
global: { evaluation_interval: 1m, mode: act, start_hold: 1m }
rule_files: [rules.yml]
policy_files: [policies.yml]
actuators: { paper: { dry_run: {} } }
";
const RULES: &str = "
groups:
  - name: fleet
    rules:
      - predict: saturation
        component: { kind: deployment, by: [namespace, deployment], impact: 0.8 }
        horizon: 1h
        signals:
          - name: cpu
            expr: app_cpu_ratio
            breach: { above: 0.9, warn: 0.75 }
            scales_with: replicas
          - name: memory
            expr: app_memory_ratio
            breach: { above: 0.95 }
";
const POLICIES: &str = "
policies:
  - name: shop
    match: { kind: deployment, namespace: shop }
    mode: approve
    enter: { probability_above: 0.5, for: 2 }
    ladder: [{ action: shift_load, actuator: paper }]
  - name: data
    match: { kind: deployment, namespace: data }
    mode: act
    enter: { probability_above: 0.5, for: 2 }
    ladder: [{ action: shift_load, actuator: paper }]
  - name: media
    match: { kind: deployment, namespace: media }
    mode: act
    enter: { probability_above: 0.5, for: 2 }
    ladder: [{ action: scale_out, actuator: paper, size: auto, max_replicas: 9 }]
";

/// What the page's test needs, as `tests/setup/browser.sh` has put it together; nothing where it could not be had.
fn browser() -> Option<PathBuf> {
    let folder = std::env::var_os("FORESTALL_BROWSER")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/browser"), PathBuf::from);
    if folder.join("chromium").exists() && folder.join("node_modules").exists() && !folder.join("skipped").exists() {
        return Some(folder);
    }
    let why = std::fs::read_to_string(folder.join("skipped"))
        .unwrap_or_else(|_| "run tests/setup/browser.sh, as `make test` does".to_owned());
    let message = format!("no browser in {}: {}", folder.display(), why.trim());
    assert!(std::env::var_os("FORESTALL_NO_SKIP").is_none_or(|v| v != "1"), "{message}");
    let _ = writeln!(std::io::stderr(), "skipped: {message}");
    None
}

/// CPU and memory of the fleet after so many minutes; nothing from one that is silent.
fn fleet(minute: i64) -> Vec<(&'static str, &'static str, f64, f64)> {
    let noise = |phase: i64| 0.008 * ((minute * 7 + phase * 13) as f64 * 0.9).sin();
    // It has risen for two hours and crosses 0.9 three quarters of an hour after the page is first looked at.
    let ramp = |top: f64| top + 0.0025 * ((minute - HISTORY_MINUTES).max(-120) as f64);
    let mut all = vec![
        ("shop", "checkout", ramp(0.79) + noise(1) * 0.3, 0.4 + noise(2)),
        ("shop", "cart", 0.35 + noise(3), 0.5 + noise(4)),
        ("shop", "<img src=x onerror=alert(1)>/100% b", 0.3 + noise(5), 0.3 + noise(6)),
        ("data", "orders", ramp(0.8) + noise(7) * 0.3, 0.6 + noise(8)),
        ("data", "ledger", 0.2 + noise(9), 0.6 + noise(10)),
        ("media", "thumbs", if minute < HISTORY_MINUTES - 30 { 0.6 } else { 0.96 } + noise(11), 0.5 + noise(12)),
        ("media", "encode", ramp(0.78) + noise(13) * 0.3, 0.5 + noise(14)),
        ("web", "a-very-long-name-that-must-break-somewhere-on-a-narrow-screen", 0.4 + noise(15), 0.2 + noise(16)),
    ];
    if minute < HISTORY_MINUTES - 25 {
        all.push(("media", "silent", 0.4 + noise(17), 0.2 + noise(18)));
    }
    if minute > HISTORY_MINUTES - 4 {
        all.push(("web", "new", 0.4 + noise(19), 0.2 + noise(20)));
    }
    all
}

/// One minute of the fleet, and the pass that follows.
async fn live(app: &App, clock: &Clock, minute: i64) {
    let at = START + Millis::MINUTE * minute;
    clock.advance_to(at);
    for (namespace, deployment, cpu, memory) in fleet(minute) {
        for (metric, value) in [("app_cpu_ratio", cpu), ("app_memory_ratio", memory)] {
            let labels = Labels::new([("__name__", metric), ("namespace", namespace), ("deployment", deployment)]);
            app.shared().store.append(&labels, Sample { at, value });
        }
    }
    app.pass(at).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_the_fleet_to_everyone_and_stays_where_the_reader_is() {
    let Some(folder) = browser() else { return };
    let files = [("forestall.yml", MAIN), ("rules.yml", RULES), ("policies.yml", POLICIES)];
    let (settings, _) = config::load_str(&files).expect("the configuration of this test is right");
    let clock = Clock::simulated(START);
    let options = Options { config_file: None, storage_path: None, web: WebOptions::default(), clock: clock.clone() };
    let app = Arc::new(App::from_settings(settings, options).expect("an app without files can be built"));
    for minute in 1..=HISTORY_MINUTES {
        live(&app, &clock, minute).await;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("it listens"));
    let routes = api::router(app.shared().clone());
    let server = tokio::spawn(async move { axum::serve(listener, routes).await });
    let time = tokio::spawn(async move {
        for minute in HISTORY_MINUTES + 1.. {
            tokio::time::sleep(PACE).await;
            live(&app, &clock, minute).await;
        }
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page/page.mjs");
    let run = move || Command::new("node").arg(script).arg(url).env("FORESTALL_BROWSER", folder).output();
    let output = tokio::task::spawn_blocking(run).await.expect("it does not panic").expect("node starts");
    time.abort();
    server.abort();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.lines().last().is_some_and(|line| line.ends_with(" passed, 0 failed")), "{said}");
}
