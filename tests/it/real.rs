//! Starts real programs around forestall: Prometheus 2 and 3, Alertmanager, node_exporter, a leaking application, and a
//! server that records what it is sent.
//!
//! ```no_run
//! let Some(parts) = parts() else { return };           // says why it is skipped, or fails where skips are not allowed
//! let app = LeakingApp::start(Leak { start_bytes: 1e6, bytes_per_second: 1e5, limit_bytes: 1e7 }).await;
//! let recorder = Recorder::start().await;
//! let prometheus = Prometheus::start(&parts, Suite::Sid, &config).await;
//! eventually("the app is scraped", SOON, async || prometheus.value("up").await).await;
//! ```
//!
//! Everything listens on a free port of 127.0.0.1, is ready once `start` returns, and ends when it is dropped. The folder
//! of a program (its log among it) is kept when the test that started it fails.

use std::io::{Seek as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::IntoResponse;
use axum::routing::get;
use forestall::clock::Clock;
use forestall::model::Timestamp;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The longest that anything here may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const PROBE_EVERY: Duration = Duration::from_millis(50);
/// The largest body that the recorder takes, in bytes.
const RECORDED_BODY_BYTES_MAX: usize = 64 << 20;
/// The most requests that the recorder keeps.
const RECORDED_REQUESTS_MAX: usize = 100_000;

/// The suite of Debian that a program comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Suite {
    /// Prometheus 2.42: remote write 1.0 only.
    Bookworm,
    /// The newest: Prometheus 3, remote write 1.0 and 2.0.
    Sid,
}

/// The real programs, as `tests/setup/fetch.sh` has unpacked them.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    folder: PathBuf,
}

/// The real programs, or nothing where they could not be had: the test then says so and ends.
///
/// # Panics
/// Where they are missing and `FORESTALL_NO_SKIP=1` is set.
pub(crate) fn parts() -> Option<Parts> {
    let folder = std::env::var_os("FORESTALL_PARTS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/parts"), PathBuf::from);
    let parts = Parts { folder };
    if parts.program(Suite::Bookworm, "prometheus").exists() && parts.program(Suite::Sid, "prometheus").exists() {
        return Some(parts);
    }
    let why = std::fs::read_to_string(parts.folder.join("skipped"))
        .unwrap_or_else(|_| "run tests/setup/fetch.sh, as `make test` does".to_owned());
    let message = format!("no real programs in {}: {}", parts.folder.display(), why.trim());
    assert!(std::env::var_os("FORESTALL_NO_SKIP").is_none_or(|v| v != "1"), "{message}");
    // The test harness keeps this with the test's output; the log of a run shows it with --nocapture.
    let _ = writeln!(std::io::stderr(), "skipped: {message}");
    None
}

impl Parts {
    /// Where a program is; see `tests/setup/fetch.sh` for the names.
    pub(crate) fn program(&self, suite: Suite, name: &str) -> PathBuf {
        self.suite_folder(suite).join("bin").join(name)
    }

    /// Runs a program to its end, and gives back what it printed (standard output, then standard error).
    ///
    /// # Panics
    /// Where it fails, with what it printed.
    pub(crate) fn run(&self, suite: Suite, name: &str, args: &[&str]) -> String {
        self.run_with(suite, name, args, "")
    }

    /// The same, with something on its standard input.
    ///
    /// # Panics
    /// Where it fails, with what it printed.
    pub(crate) fn run_with(&self, suite: Suite, name: &str, args: &[&str], input: &str) -> String {
        let mut stdin = tempfile::tempfile().expect("the system's folder for such is writable");
        stdin.write_all(input.as_bytes()).and_then(|()| stdin.rewind()).expect("a new file is writable");
        let mut command = Command::new(self.program(suite, name));
        let output = command.args(args).stdin(stdin).output().expect("the program starts");
        let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{name} {}: {}\n{printed}", args.join(" "), output.status);
        printed
    }

    fn suite_folder(&self, suite: Suite) -> PathBuf {
        self.folder.join(match suite {
            Suite::Bookworm => "bookworm",
            Suite::Sid => "sid",
        })
    }
}

/// A real Prometheus, scraping, evaluating rules and writing remotely as its configuration says.
#[derive(Debug)]
pub(crate) struct Prometheus(Program);

impl Prometheus {
    /// Starts one with this configuration (YAML). Paths in it must be absolute.
    pub(crate) async fn start(parts: &Parts, suite: Suite, config: &str) -> Prometheus {
        Prometheus::start_in(parts, suite, config, Folder::new("prometheus")).await
    }

    /// The same in a folder that may hold blocks under `data`, however old.
    pub(crate) async fn start_in(parts: &Parts, suite: Suite, config: &str, folder: Folder) -> Prometheus {
        Prometheus::start_with(parts, suite, config, folder, &[]).await
    }

    /// The same with more flags.
    pub(crate) async fn start_with(
        parts: &Parts,
        suite: Suite,
        config: &str,
        folder: Folder,
        flags: &[&str],
    ) -> Prometheus {
        let config_file = folder.write("prometheus.yml", config);
        let mut args = vec![
            format!("--config.file={config_file}"),
            format!("--storage.tsdb.path={}", folder.path("data")),
            "--storage.tsdb.retention.time=10y".to_owned(),
            "--web.listen-address=127.0.0.1:0".to_owned(),
            "--web.enable-lifecycle".to_owned(),
            "--web.enable-remote-write-receiver".to_owned(),
            // An alert that fires before the Alertmanager is discovered would else be sent only a minute later.
            "--rules.alert.resend-delay=5s".to_owned(),
        ];
        args.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let program = Program::start(parts, suite, "prometheus", &args, folder).await;
        program.answers("/-/ready").await;
        Prometheus(program)
    }

    /// The address of a path of its HTTP API.
    pub(crate) fn url(&self, path: &str) -> String {
        self.0.url(path)
    }

    /// What it answers to an instant query now: labels as JSON, and the value, of each series.
    pub(crate) async fn query(&self, promql: &str) -> Vec<(Value, f64)> {
        let url = reqwest::Url::parse_with_params(&self.url("/api/v1/query"), [("query", promql)]).expect("a URL");
        let answer = get_json(url.as_str()).await;
        let series = answer["data"]["result"].as_array().expect("an instant vector has a list of series");
        series.iter().map(|s| (s["metric"].clone(), value_of(&s["value"][1]))).collect()
    }

    /// The value of the only series that a query answers with, if there is just one.
    pub(crate) async fn value(&self, promql: &str) -> Option<f64> {
        match self.query(promql).await.as_slice() {
            [(_, value)] => Some(*value),
            _ => None,
        }
    }
}

/// A real Alertmanager.
#[derive(Debug)]
pub(crate) struct Alertmanager(Program);

impl Alertmanager {
    /// Starts one with this configuration (YAML). Paths in it must be absolute.
    pub(crate) async fn start(parts: &Parts, suite: Suite, config: &str) -> Alertmanager {
        let folder = Folder::new("alertmanager");
        let config_file = folder.write("alertmanager.yml", config);
        let args = [
            format!("--config.file={config_file}"),
            format!("--storage.path={}", folder.path("data")),
            "--web.listen-address=127.0.0.1:0".to_owned(),
            "--cluster.listen-address=".to_owned(),
        ];
        let program = Program::start(parts, suite, "prometheus-alertmanager", &args, folder).await;
        program.answers("/-/ready").await;
        Alertmanager(program)
    }

    /// Host and port, as Prometheus's `static_configs` wants them.
    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The alerts it has now, as its API v2 gives them.
    pub(crate) async fn alerts(&self) -> Vec<Value> {
        let answer = get_json(&self.0.url("/api/v2/alerts")).await;
        answer.as_array().expect("alerts are a list").clone()
    }
}

/// A real node_exporter.
#[derive(Debug)]
pub(crate) struct NodeExporter(Program);

impl NodeExporter {
    /// Starts one with its default collectors.
    pub(crate) async fn start(parts: &Parts) -> NodeExporter {
        let args = ["--web.listen-address=127.0.0.1:0".to_owned()];
        let folder = Folder::new("node_exporter");
        let program = Program::start(parts, Suite::Bookworm, "prometheus-node-exporter", &args, folder).await;
        program.answers("/metrics").await;
        NodeExporter(program)
    }

    /// Host and port, as Prometheus's `static_configs` wants them.
    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }
}

/// forestall itself, as a process.
#[derive(Debug)]
pub(crate) struct Forestall(Program);

impl Forestall {
    /// Starts one with `forestall.yml` in this folder; its journal is kept under `data` there.
    pub(crate) async fn start(folder: Folder) -> Forestall {
        Forestall::start_with(folder, &[]).await
    }

    /// The same with more flags.
    pub(crate) async fn start_with(folder: Folder, flags: &[&str]) -> Forestall {
        let mut command = Forestall::command(&folder, "127.0.0.1:0");
        command.args(flags);
        Forestall(Program::spawn("forestall", command, folder).await)
    }

    fn command(folder: &Folder, address: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forestall"));
        command.arg("serve").args([
            format!("--config.file={}", folder.path("forestall.yml")),
            format!("--storage.path={}", folder.path("data")),
            format!("--web.listen-address={address}"),
        ]);
        command
    }

    /// Host and port, as Prometheus's `static_configs` wants them.
    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The address of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        self.0.url(path)
    }

    /// The path of something in its folder.
    pub(crate) fn path(&self, name: &str) -> String {
        self.0.folder.path(name)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> String {
        self.0.child.id().to_string()
    }

    /// Ends it with SIGKILL, so that it can tidy nothing up.
    pub(crate) fn kill(&mut self) {
        self.0.child.kill().and_then(|()| self.0.child.wait()).expect("it was running");
        std::fs::rename(self.path("log"), self.path("log.killed")).expect("the folder is writable");
    }

    /// Starts it again where it was, after [`Forestall::kill`].
    pub(crate) async fn start_again(&mut self) {
        let command = Forestall::command(&self.0.folder, &self.0.address.to_string());
        let folder = std::mem::replace(&mut self.0.folder, Folder::new("unused"));
        self.0 = Program::spawn("forestall", command, folder).await;
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn stop(&mut self) -> std::process::ExitStatus {
        let pid = self.pid();
        let asked = Command::new("kill").args(["-TERM", &pid]).status().expect("the program kill is everywhere");
        assert!(asked.success(), "{asked}");
        eventually("forestall stops", SOON, async || self.0.child.try_wait().expect("a child can be asked")).await
    }
}

/// How an application leaks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leak {
    /// What it holds when it starts, in bytes.
    pub(crate) start_bytes: f64,
    /// How much more it holds each second, in bytes.
    pub(crate) bytes_per_second: f64,
    /// What it may hold, in bytes; here nothing happens at the limit.
    pub(crate) limit_bytes: f64,
}

/// An application whose `leak_bytes` grows in a straight line by its own clock, towards `leak_limit_bytes`.
#[derive(Debug)]
pub(crate) struct LeakingApp {
    server: Server,
    started_at: Arc<Mutex<Timestamp>>,
}

#[derive(Debug, Clone)]
struct LeakState {
    leak: Leak,
    started_at: Arc<Mutex<Timestamp>>,
}

impl LeakingApp {
    /// Starts one; it leaks from now on.
    pub(crate) async fn start(leak: Leak) -> LeakingApp {
        let started_at = Arc::new(Mutex::new(Clock::wall().now()));
        let state = LeakState { leak, started_at: Arc::clone(&started_at) };
        let router = Router::new().route("/metrics", get(leak_metrics)).with_state(state);
        LeakingApp { server: Server::start(router).await, started_at }
    }

    /// Host and port, as Prometheus's `static_configs` wants them.
    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Frees what has leaked: it holds `start_bytes` again and leaks on.
    pub(crate) fn restart(&self) {
        *self.started_at.lock().unwrap_or_else(PoisonError::into_inner) = Clock::wall().now();
    }
}

async fn leak_metrics(State(state): State<LeakState>) -> impl IntoResponse {
    let started_at = *state.started_at.lock().unwrap_or_else(PoisonError::into_inner);
    let seconds = (Clock::wall().now() - started_at).to_std().as_secs_f64();
    let held = state.leak.start_bytes + state.leak.bytes_per_second * seconds;
    let page = format!(
        "# HELP leak_bytes Bytes held.\n# TYPE leak_bytes gauge\nleak_bytes {held}\n\
         # HELP leak_limit_bytes Bytes that may be held.\n# TYPE leak_limit_bytes gauge\nleak_limit_bytes {}\n",
        state.leak.limit_bytes
    );
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page)
}

/// One request that a [`Recorder`] has got.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    /// The method.
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) uri: Uri,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body as it came.
    pub(crate) body: Bytes,
}

impl Recorded {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    /// A header's text, empty where it is absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().expect("the header is text"))
    }
}

/// A server that takes every request, keeps it, and answers 200 with `{"id": 1, "message": "ok"}`, which suits webhooks and
/// Grafana's annotation API, or with what it is told to.
#[derive(Debug)]
pub(crate) struct Recorder {
    server: Server,
    memory: Arc<Mutex<Memory>>,
}

#[derive(Debug)]
struct Memory {
    requests: Vec<Recorded>,
    answer: Value,
}

impl Recorder {
    /// Starts one.
    pub(crate) async fn start() -> Recorder {
        let answer = serde_json::json!({"id": 1, "message": "ok"});
        let memory = Arc::new(Mutex::new(Memory { requests: Vec::new(), answer }));
        let router = Router::new()
            .fallback(record)
            .layer(DefaultBodyLimit::max(RECORDED_BODY_BYTES_MAX))
            .with_state(Arc::clone(&memory));
        Recorder { server: Server::start(router).await, memory }
    }

    /// Answers so from now on.
    pub(crate) fn answer_with(&self, answer: Value) {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).answer = answer;
    }

    /// The address of one of its paths; they all do the same.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address)
    }

    /// What has come so far to paths that begin so, in order.
    pub(crate) fn requests(&self, path: &str) -> Vec<Recorded> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.requests.iter().filter(|r| r.uri.path().starts_with(path)).cloned().collect()
    }

    /// Waits for the first request to a path that begins so.
    pub(crate) async fn first(&self, path: &str) -> Recorded {
        eventually(&format!("a request to {path}"), SOON, async || self.requests(path).into_iter().next()).await
    }
}

async fn record(
    State(memory): State<Arc<Mutex<Memory>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse {
    let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(memory.requests.len() < RECORDED_REQUESTS_MAX, "the recorder is full");
    memory.requests.push(Recorded { method, uri, headers, body });
    (StatusCode::OK, axum::Json(memory.answer.clone()))
}

/// Held by tests that watch the clock or keep both cores busy for minutes: they run one after the other.
pub(crate) static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Asks again and again until there is an answer, and gives it back.
///
/// # Panics
/// Where none comes within the bound.
pub(crate) async fn eventually<T>(what: &str, bound: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let answer = tokio::time::timeout(bound, async {
        loop {
            if let Some(answer) = probe().await {
                return answer;
            }
            tokio::time::sleep(PROBE_EVERY).await;
        }
    });
    answer.await.unwrap_or_else(|_| panic!("{what}: not within {bound:?}"))
}

/// An HTTP client for tests: no proxy, bounded in time.
pub(crate) fn http() -> reqwest::Client {
    client_builder().build().expect("a client without files can be built")
}

/// The same, before it is built.
pub(crate) fn client_builder() -> reqwest::ClientBuilder {
    static PROVIDER: Once = Once::new();
    // A second provider is refused, and any that is there will do.
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    reqwest::Client::builder().no_proxy().timeout(SOON)
}

/// What a GET answers, as JSON.
///
/// # Panics
/// On any answer but 2xx with JSON, with the answer.
pub(crate) async fn get_json(url: &str) -> Value {
    let answer = http().get(url).send().await.unwrap_or_else(|e| panic!("{url}: {e}"));
    let status = answer.status();
    let body = answer.text().await.unwrap_or_else(|e| panic!("{url}: {e}"));
    assert!(status.is_success(), "{url}: {status}: {body}");
    serde_json::from_str(&body).unwrap_or_else(|e| panic!("{url}: {e}: {body}"))
}

/// A sample's value: Prometheus writes it as text, so that NaN and Inf have a place.
fn value_of(value: &Value) -> f64 {
    value.as_str().and_then(|text| text.parse().ok()).expect("a sample's value is a number in text")
}

/// A program that runs until it is dropped.
#[derive(Debug)]
struct Program {
    name: String,
    child: Child,
    address: SocketAddr,
    folder: Folder,
}

impl Program {
    /// Starts it and reads from its log which port the system has given it.
    async fn start(parts: &Parts, suite: Suite, name: &str, args: &[String], folder: Folder) -> Program {
        let mut command = Command::new(parts.program(suite, name));
        command.args(args).current_dir(parts.suite_folder(suite).join("root"));
        Program::spawn(name, command, folder).await
    }

    /// Starts a program that logs where it listens, as all of Prometheus's and forestall do.
    async fn spawn(name: &str, mut command: Command, folder: Folder) -> Program {
        let log = std::fs::File::create(folder.path("log")).expect("the folder is writable");
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut program = Program { name: name.to_owned(), child, address: nowhere, folder };
        let what = format!("{name} listens");
        program.address = eventually(&what, SOON, async || {
            let ended = program.child.try_wait().expect("a child can be asked");
            assert!(ended.is_none(), "{} ended: {ended:?}", program.name);
            listening_address(&program.folder.read("log"))
        })
        .await;
        program
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn answers(&self, path: &str) {
        let client = http();
        eventually(&format!("{} answers {path}", self.name), SOON, async || {
            let answer = client.get(self.url(path)).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            self.folder.keep(&self.name);
        }
    }
}

/// The address in the line `… "Listening on" … address=127.0.0.1:39981 …` that all of Prometheus's programs log; forestall
/// says `listening`.
fn listening_address(log: &str) -> Option<SocketAddr> {
    let says_so = |line: &&str| line.contains("msg=\"Listening on\"") || line.contains(" listening address=");
    let line = log.lines().find(says_so)?;
    let (_, rest) = line.split_once("address=")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// A folder of a program's own, removed with it unless the test fails.
#[derive(Debug)]
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    /// An empty one, with this in its name.
    pub(crate) fn new(name: &str) -> Folder {
        let prefix = format!("forestall-{name}-");
        Folder(tempfile::Builder::new().prefix(&prefix).tempdir().expect("the system's folder for such is writable"))
    }

    /// The path of something in it.
    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Writes a file, and gives back its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).expect("the folder is writable");
        self.path(name)
    }

    /// What a file in it says.
    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("the file was written before")
    }

    /// Keeps the folder after a failure, and shows the end of the log.
    fn keep(&mut self, program: &str) {
        self.0.disable_cleanup(true);
        // This runs while a test panics already, so nothing here may.
        let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(20)..].join("\n");
        let _ = writeln!(std::io::stderr(), "--- {program}: all of it in {}\n{end}", self.path("log"));
    }
}

/// An HTTP server in this process that runs until it is dropped.
#[derive(Debug)]
struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(router: Router) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let task = tokio::spawn(async move {
            // Ends only by being aborted.
            let _ = axum::serve(listener, router).await;
        });
        Server { address, task }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A Prometheus configuration that scrapes each `job: address` every second, with more sections after it.
pub(crate) fn scrape_every_second(jobs: &[(&str, SocketAddr)], more: &str) -> String {
    let mut config = "global: { scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }\n".to_owned();
    config.push_str("scrape_configs:\n");
    for (job, address) in jobs {
        config.push_str(&format!("  - {{ job_name: {job}, static_configs: [ {{ targets: ['{address}'] }} ] }}\n"));
    }
    config + more
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_3_scrapes_node_exporter_and_a_leaking_app_every_second() {
    let Some(parts) = parts() else { return };
    let node = NodeExporter::start(&parts).await;
    let app = LeakingApp::start(Leak { start_bytes: 1e6, bytes_per_second: 1e5, limit_bytes: 1e7 }).await;
    let config = scrape_every_second(&[("node", node.address()), ("app", app.address())], "");
    let prometheus = Prometheus::start(&parts, Suite::Sid, &config).await;

    for job in ["node", "app"] {
        let query = format!("sum_over_time(up{{job=\"{job}\"}}[20s]) >= 3");
        eventually(&query, SOON, async || prometheus.value(&query).await).await;
    }
    let build = get_json(&prometheus.url("/api/v1/status/buildinfo")).await;
    assert!(build["data"]["version"].as_str().is_some_and(|v| v.starts_with("3.")), "{build}");

    let grows = "deriv(leak_bytes[10s]) > 0.9e5 < 1.1e5";
    eventually(grows, SOON, async || prometheus.value(grows).await).await;
    let limit = prometheus.value("leak_limit_bytes").await.expect("the app is scraped");
    assert!((limit - 1e7).abs() < 1.0, "{limit}");
    let before = prometheus.value("leak_bytes").await.expect("the app is scraped");
    app.restart();
    eventually("the leak is freed", SOON, async || prometheus.value("leak_bytes").await.filter(|now| *now < before))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_firing_rule_of_prometheus_reaches_a_webhook_through_alertmanager() {
    let Some(parts) = parts() else { return };
    for suite in [Suite::Bookworm, Suite::Sid] {
        let recorder = Recorder::start().await;
        let alertmanager = Alertmanager::start(
            &parts,
            suite,
            &format!(
                "route: {{ receiver: hook, group_wait: 0s }}\n\
                 receivers: [ {{ name: hook, webhook_configs: [ {{ url: '{}' }} ] }} ]\n",
                recorder.url("/hook")
            ),
        )
        .await;
        let rules = Folder::new("rules");
        let rule_file =
            rules.write("rules.yml", "groups: [ { name: g, rules: [ { alert: Always, expr: vector(1) } ] } ]\n");
        let more = format!(
            "rule_files: ['{rule_file}']\nalerting: {{ alertmanagers: [ {{ static_configs: [ {{ targets: ['{}'] }} ] }} ] }}\n",
            alertmanager.address()
        );
        let _prometheus = Prometheus::start(&parts, suite, &scrape_every_second(&[], &more)).await;

        let hook = recorder.first("/hook").await;
        assert_eq!(hook.method, Method::POST);
        assert_eq!(hook.json()["alerts"][0]["labels"]["alertname"], "Always", "{suite:?}");
        let alerts = alertmanager.alerts().await;
        assert_eq!(alerts.len(), 1, "{suite:?}: {alerts:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_prometheus_sends_the_remote_write_message_it_is_told_to() {
    let Some(parts) = parts() else { return };
    check_remote_write(&parts, Suite::Bookworm, "", "0.1.0", "application/x-protobuf").await;
    check_remote_write(&parts, Suite::Sid, "", "0.1.0", "application/x-protobuf").await;
    let v2 = ", protobuf_message: io.prometheus.write.v2.Request";
    check_remote_write(&parts, Suite::Sid, v2, "2.0.0", "application/x-protobuf;proto=io.prometheus.write.v2.Request")
        .await;
}

async fn check_remote_write(parts: &Parts, suite: Suite, options: &str, version: &str, content_type: &str) {
    let recorder = Recorder::start().await;
    let app = LeakingApp::start(Leak { start_bytes: 0.0, bytes_per_second: 1.0, limit_bytes: 10.0 }).await;
    let more = format!("remote_write: [ {{ url: '{}'{options} }} ]\n", recorder.url("/api/v1/write"));
    let config = scrape_every_second(&[("app", app.address())], &more);
    let _prometheus = Prometheus::start(parts, suite, &config).await;

    let request = recorder.first("/api/v1/write").await;
    assert_eq!(request.header("x-prometheus-remote-write-version"), version, "{suite:?}");
    assert_eq!(request.header("content-type"), content_type, "{suite:?}");
    assert_eq!(request.header("content-encoding"), "snappy", "{suite:?}");
    assert!(!request.body.is_empty());
}
