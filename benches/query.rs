//! How much CPU time a query takes: forestall beside the real Prometheus, and VictoriaMetrics where there is one, with the same
//! data and the same questions over HTTP.
//!
//! ```text
//! cargo bench --bench query -- --targets 123 --samples 240 --rounds 20
//! ```
//!
//! A target has 813 series: 60 of requests, 240 buckets of latencies, 10 gauges, and others that no question is about. All samples are
//! written remotely first; then each question is asked `rounds` times of each server in turn. CPU time is the kernel's for the
//! process while its questions are answered; answers are read whole. The times are in the past, fixed by the samples.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a measurement for people: it prints")]

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Parser, ValueEnum};
use forestall::clock::Clock;
use forestall::ingest::encode_v1;
use forestall::model::{Labels, METRIC_NAME, Millis, Sample, Timestamp};
use reqwest::Client;

/// Time between the samples of a series.
const INTERVAL: Millis = Millis(15_000);
const BOUNDS: [&str; 12] = ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"];
const READY_WAIT: Duration = Duration::from_secs(60);
const PROBE_EVERY: Duration = Duration::from_millis(50);
/// How long what was written may take to be found: VictoriaMetrics flushes every second.
const SETTLE: Duration = Duration::from_secs(3);
/// The kernel's unit for CPU times in `/proc`, on every Linux that Rust and Prometheus run on.
const TICKS_PER_SECOND: f64 = 100.0;
/// Samples in a request.
const SAMPLES_PER_REQUEST: usize = 5000;

/// Measures queries of forestall, Prometheus and VictoriaMetrics.
#[derive(Debug, Parser)]
struct Arguments {
    /// Targets, of 813 series each.
    #[arg(long, default_value_t = 123)]
    targets: usize,
    /// Samples of each series.
    #[arg(long, default_value_t = 240)]
    samples: usize,
    /// How often each question is asked.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Measure only this server.
    #[arg(long, value_enum)]
    only: Option<Server>,
    /// Another forestall than the one built for this.
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_forestall"))]
    forestall: PathBuf,
    /// What `cargo bench` says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Server {
    Forestall,
    Prometheus,
    Victoria,
}

/// A question, and the share of Prometheus's CPU time that it should take at most.
struct Question {
    name: &'static str,
    query: &'static str,
    is_range: bool,
    goal: f64,
}

const QUESTIONS: [Question; 5] = [
    Question {
        name: "sum by (rate), instant",
        query: "sum by (job) (rate(http_requests_total[5m]))",
        is_range: false,
        goal: 0.25,
    },
    Question {
        name: "histogram_quantile, instant",
        query: "histogram_quantile(0.99, sum by (le, job) (rate(http_request_duration_seconds_bucket[5m])))",
        is_range: false,
        goal: 0.25,
    },
    Question {
        name: "predict_linear over 1 h, instant",
        query: "predict_linear(node_filesystem_avail_bytes[1h], 3600)",
        is_range: false,
        goal: 0.2,
    },
    Question {
        name: "sum by (rate), 1 h by 15 s",
        query: "sum by (job) (rate(http_requests_total[5m]))",
        is_range: true,
        goal: 0.12,
    },
    Question { name: "raw, 1 h by 15 s", query: "node_filesystem_avail_bytes", is_range: true, goal: 0.35 },
];

/// A server that runs until this is dropped, in a folder of its own.
struct Running {
    server: Server,
    child: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    ensure!(arguments.samples > 0 && arguments.rounds > 0 && arguments.targets > 0, "nothing to measure");
    // Another provider may be there already; any will do.
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = Client::builder().no_proxy().build()?;
    let mut servers = Vec::new();
    for (server, program) in programs(&arguments) {
        servers.push(Running::start(server, &program, &client).await.with_context(|| format!("{server:?}"))?);
    }
    let end = load(&servers, &arguments, &client).await?;
    tokio::time::sleep(SETTLE).await;
    print_table(&servers, &arguments, end, &client).await
}

/// The servers to measure: those that are wanted and there.
fn programs(arguments: &Arguments) -> Vec<(Server, PathBuf)> {
    let parts = std::env::var_os("FORESTALL_PARTS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/parts"), PathBuf::from);
    let mut programs = vec![
        (Server::Forestall, arguments.forestall.clone()),
        (Server::Prometheus, parts.join("sid/bin/prometheus")),
        (Server::Victoria, parts.join("sid/bin/victoria-metrics")),
    ];
    programs.retain(|(server, path)| {
        let wanted = arguments.only.is_none_or(|only| only == *server);
        if wanted && !path.exists() {
            eprintln!("left out: there is no {}; `make parts` fetches it", path.display());
        }
        wanted && path.exists()
    });
    programs
}

/// Writes the same samples to all, and gives the time of the last.
async fn load(servers: &[Running], arguments: &Arguments, client: &Client) -> anyhow::Result<Timestamp> {
    let start = Clock::wall().now() - INTERVAL * i64::try_from(arguments.samples)?;
    let labels: Vec<Labels> = (0..arguments.targets).flat_map(labels_of_target).collect();
    let mut values: Vec<f64> = labels.iter().enumerate().map(|(index, _)| index as f64).collect();
    let mut random = 1;
    let mut at = start;
    for step in 0..arguments.samples {
        at = start + INTERVAL * i64::try_from(step)?;
        for (index, value) in values.iter_mut().enumerate() {
            let more = next_below(&mut random, 100);
            *value += if index % 3 == 0 { more / 8.0 } else { more };
        }
        for (labels, values) in labels.chunks(SAMPLES_PER_REQUEST).zip(values.chunks(SAMPLES_PER_REQUEST)) {
            let sample = |(labels, value): (&Labels, &f64)| (labels.clone(), vec![Sample { at, value: *value }]);
            let body = encode_v1(&labels.iter().zip(values).map(sample).collect::<Vec<_>>());
            for running in servers {
                running.write(client, body.clone()).await?;
            }
        }
    }
    eprintln!("{} series with {} samples each are written", labels.len(), arguments.samples);
    Ok(at)
}

/// The series of a target, as an application and its node have them.
fn labels_of_target(target: usize) -> Vec<Labels> {
    let instance = format!("10.0.{}.{}:8080", target / 250, target % 250);
    let job = format!("service-{}", target % 11);
    let own = [("instance", instance.as_str()), ("job", job.as_str()), ("zone", "eu-1"), ("cluster", "production")];
    let with = |name: &str, more: &[(&str, &str)]| {
        Labels::new([(METRIC_NAME, name)].iter().chain(&own).chain(more).map(|(name, value)| (*name, *value)))
    };
    let mut all = Vec::new();
    for handler in 0..20 {
        let handler = format!("/api/v1/{handler}");
        for code in ["200", "404", "500"] {
            all.push(with("http_requests_total", &[("handler", &handler), ("code", code), ("method", "GET")]));
        }
        for bound in BOUNDS {
            all.push(with("http_request_duration_seconds_bucket", &[("handler", &handler), ("le", bound)]));
        }
    }
    for device in 0..10 {
        all.push(with("node_filesystem_avail_bytes", &[("device", &format!("/dev/sd{device}")), ("fstype", "ext4")]));
    }
    for other in 0..503 {
        all.push(with(&format!("other_metric_{}", other / 10), &[("part", &(other % 10).to_string())]));
    }
    all
}

/// The next number of a sequence that the seed decides: splitmix64 (Steele et al., 2014), a whole number below `end`.
fn next_below(state: &mut u64, end: u32) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) % u64::from(end)) as f64
}

async fn print_table(
    servers: &[Running],
    arguments: &Arguments,
    end: Timestamp,
    client: &Client,
) -> anyhow::Result<()> {
    println!(
        "CPU milliseconds a query, {} targets x 813 series x {} samples, mean of {}\n",
        arguments.targets, arguments.samples, arguments.rounds
    );
    let names: Vec<String> = servers.iter().map(|running| format!("{:?}", running.server)).collect();
    println!("| query | {} | share of Prometheus | goal |", names.join(" | "));
    println!("|---|{}---|---|", "---|".repeat(servers.len()));
    for question in QUESTIONS {
        let mut millis = Vec::new();
        for running in servers {
            millis.push(running.measure(client, &question, end, arguments.rounds).await?);
        }
        let of =
            |server: Server| servers.iter().position(|running| running.server == server).map(|index| millis[index]);
        let share =
            of(Server::Forestall).zip(of(Server::Prometheus)).map(|(own, peer)| format!("**{:.2}**", own / peer));
        let figures: Vec<String> = millis.iter().map(|millis| format!("{millis:.1}")).collect();
        println!("| {} | {} | {} | {} |", question.name, figures.join(" | "), share.unwrap_or_default(), question.goal);
    }
    Ok(())
}

impl Running {
    /// Starts a server with nothing to scrape, and waits until it is ready.
    async fn start(server: Server, program: &Path, client: &Client) -> anyhow::Result<Running> {
        let folder = tempfile::tempdir()?;
        // The port is free now; should another program take it before the server does, the server says so and ends.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let path = |name: &str| folder.path().join(name).display().to_string();
        let mut command = Command::new(program);
        match server {
            Server::Forestall => {
                std::fs::write(path("config.yml"), "storage: { keep: all, memory_limit: 4GiB }\n")?;
                command.arg("serve").arg(format!("--storage.path={}", path("data")));
            }
            Server::Prometheus => {
                std::fs::write(path("config.yml"), "global: {}\n")?;
                command.arg("--web.enable-remote-write-receiver").arg(format!("--storage.tsdb.path={}", path("data")));
            }
            Server::Victoria => {
                command.arg(format!("-storageDataPath={}", path("data"))).arg(format!("-httpListenAddr={address}"));
                // Its answers are kept and given again otherwise.
                command.arg("-search.disableCache");
            }
        }
        if server != Server::Victoria {
            command.arg(format!("--config.file={}", path("config.yml"))).arg(format!("--web.listen-address={address}"));
        }
        let log = std::fs::File::create(path("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("{} cannot be started", program.display()))?;
        let mut running = Running { server, child, address, folder };
        for _ in 0..READY_WAIT.as_millis() / PROBE_EVERY.as_millis() {
            if running.child.try_wait()?.is_some() {
                break;
            }
            let answer = client.get(format!("http://{address}/-/ready")).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(running);
            }
            tokio::time::sleep(PROBE_EVERY).await;
        }
        bail!("it did not become ready; its log:\n{}", std::fs::read_to_string(path_of(&running)).unwrap_or_default())
    }

    async fn write(&self, client: &Client, body: Vec<u8>) -> anyhow::Result<()> {
        let request = client.post(format!("http://{}/api/v1/write", self.address)).body(body);
        let request = request.header("content-type", "application/x-protobuf").header("content-encoding", "snappy");
        let status = request.send().await?.status();
        ensure!(status.is_success(), "{:?} answered a write with {status}", self.server);
        Ok(())
    }

    /// CPU milliseconds that a question takes, in the mean.
    async fn measure(
        &self,
        client: &Client,
        question: &Question,
        end: Timestamp,
        rounds: usize,
    ) -> anyhow::Result<f64> {
        let seconds = |at: Timestamp| format!("{:.3}", at.as_secs_f64());
        let mut form = vec![("query", question.query.to_owned()), ("nocache", "1".to_owned())];
        let path = if question.is_range {
            form.extend([("start", seconds(end - Millis::HOUR)), ("end", seconds(end)), ("step", "15".to_owned())]);
            "query_range"
        } else {
            form.push(("time", seconds(end)));
            "query"
        };
        let url = format!("http://{}/api/v1/{path}", self.address);
        let ask = async || {
            let answer = client.post(&url).form(&form).send().await?.error_for_status()?;
            anyhow::Ok(answer.bytes().await?.len())
        };
        // The first answer may have to wait for what was written.
        ensure!(ask().await? > 100, "{:?} answers {} with nothing", self.server, question.query);
        let before = self.cpu_seconds()?;
        for _ in 0..rounds {
            ask().await?;
        }
        Ok((self.cpu_seconds()? - before) * 1000.0 / rounds as f64)
    }

    /// User and system time of the process and its threads so far, in seconds.
    fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The second field is the program's name in brackets and may hold anything; the third follows the last bracket.
        let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat has no program name")?;
        let ticks: Vec<f64> = fields.split_whitespace().skip(11).take(2).filter_map(|f| f.parse().ok()).collect();
        ensure!(ticks.len() == 2, "/proc/PID/stat has no CPU times: {stat}");
        Ok(ticks.iter().sum::<f64>() / TICKS_PER_SECOND)
    }
}

fn path_of(running: &Running) -> PathBuf {
    running.folder.path().join("log")
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; what it wrote goes with its folder.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
