//! How much remote write a CPU-second takes in: forestall beside the real Prometheus, under the same load.
//!
//! ```text
//! cargo bench --bench ingest -- --series 10000 --samples 60 --rounds 3
//! ```
//!
//! Each round starts both servers anew on loopback, one after the other, and sends each the same bodies over one
//! connection. What counts is what a query finds afterwards, not what was acknowledged; CPU time is the kernel's for the
//! process while the load runs, without its start. Prometheus is the newest that `tests/setup/fetch.sh` has fetched;
//! where there is none, forestall is measured alone.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a measurement for people: it prints")]

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Parser, ValueEnum};
use forestall::clock::Clock;
use forestall::ingest::{encode_v1, encode_v2};
use forestall::model::{Labels, METRIC_NAME, Millis, Sample, Timestamp};

/// The most samples of a load: its bodies are made beforehand and held in memory.
const SAMPLES_MAX: usize = 10_000_000;
/// The longest that a load may reach back: forestall keeps raw samples for six hours.
const SPAN_MAX: Millis = Millis(5 * Millis::HOUR.0);
/// How long a server may take for its start, or for one answer.
const ANSWER_WAIT: Duration = Duration::from_secs(60);
const PROBE_EVERY: Duration = Duration::from_millis(50);
/// The kernel's unit for CPU times in `/proc`, on every Linux that Rust and Prometheus run on.
const TICKS_PER_SECOND: f64 = 100.0;
/// Series of one target: they share timestamps, as after a scrape.
const SERIES_PER_TARGET: usize = 500;

/// Measures remote-write ingestion of forestall and Prometheus.
#[derive(Debug, Parser)]
struct Arguments {
    /// Series of the load.
    #[arg(long, default_value_t = 10_000)]
    series: usize,
    /// Samples of each series.
    #[arg(long, default_value_t = 60)]
    samples: usize,
    /// Samples in a request, one of each series.
    #[arg(long, default_value_t = 2000)]
    samples_per_request: usize,
    /// Milliseconds between the samples of a series.
    #[arg(long, default_value_t = 15_000)]
    interval: i64,
    /// How often each is measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where the values come from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Measure only this protocol.
    #[arg(long, value_enum)]
    protocol: Option<Protocol>,
    /// Measure only this server.
    #[arg(long, value_enum)]
    only: Option<Server>,
    /// Another forestall than the one built for this.
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_forestall"))]
    forestall: PathBuf,
    /// Another Prometheus than the one fetched for the tests.
    #[arg(long, value_name = "FILE")]
    prometheus: Option<PathBuf>,
    /// What `cargo bench` says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Protocol {
    /// Remote write 1.0.
    V1,
    /// Remote write 2.0.
    V2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Server {
    Forestall,
    Prometheus,
}

/// What one server did with one load.
#[derive(Debug, Clone, Copy)]
struct Measured {
    stored: f64,
    cpu_seconds: f64,
    rss_mib: f64,
}

/// Bodies to send, in this order, and what to ask for afterwards.
struct Load {
    protocol: Protocol,
    bodies: Vec<Vec<u8>>,
    samples: usize,
    first_at: Timestamp,
    last_at: Timestamp,
}

/// A server that runs until this is dropped, in a folder of its own.
struct Running {
    child: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let samples = arguments.series.saturating_mul(arguments.samples);
    ensure!(0 < samples && samples <= SAMPLES_MAX, "{samples} samples: choose between 1 and {SAMPLES_MAX}");
    ensure!(arguments.rounds > 0 && arguments.samples_per_request > 0, "rounds and requests must not be empty");
    let span = Millis(arguments.interval) * i64::try_from(arguments.samples)?;
    ensure!(Millis::ZERO < span && span <= SPAN_MAX, "the load spans {span}: at most {SPAN_MAX} and not nothing");

    let programs = programs(&arguments)?;
    println!(
        "{} series x {} samples, {} samples a request, median (min to max) of {} rounds\n",
        arguments.series, arguments.samples, arguments.samples_per_request, arguments.rounds
    );
    println!("| remote write | server | samples stored | samples per CPU-second | RSS after, MiB |");
    println!("|---|---|---|---|---|");
    for protocol in [Protocol::V1, Protocol::V2] {
        if arguments.protocol.is_none_or(|only| only == protocol) {
            let load = make_load(protocol, &arguments, Clock::wall().now() - span)?;
            print_rows(protocol, &measure_rounds(&programs, &load, arguments.rounds)?);
        }
    }
    Ok(())
}

/// The servers to measure: those that are wanted and there.
fn programs(arguments: &Arguments) -> anyhow::Result<Vec<(Server, PathBuf)>> {
    let parts = std::env::var_os("FORESTALL_PARTS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/parts"), PathBuf::from);
    let prometheus = arguments.prometheus.clone().unwrap_or_else(|| parts.join("sid/bin/prometheus"));
    let mut programs = vec![(Server::Forestall, arguments.forestall.clone()), (Server::Prometheus, prometheus)];
    programs.retain(|(server, path)| {
        let wanted = arguments.only.is_none_or(|only| only == *server);
        if wanted && !path.exists() {
            eprintln!("left out: there is no {}; `make parts` fetches Prometheus", path.display());
        }
        wanted && path.exists()
    });
    ensure!(!programs.is_empty(), "there is no server to measure");
    Ok(programs)
}

/// The results of each server, round by round. The servers take turns at going first.
fn measure_rounds(
    programs: &[(Server, PathBuf)],
    load: &Load,
    rounds: usize,
) -> anyhow::Result<Vec<(Server, Vec<Measured>)>> {
    let mut results: Vec<_> = programs.iter().map(|(server, _)| (*server, Vec::new())).collect();
    for round in 0..rounds {
        for turn in 0..programs.len() {
            let which = (round + turn) % programs.len();
            let (server, program) = &programs[which];
            let measured = measure(*server, program, load).with_context(|| format!("{server:?}"))?;
            eprintln!("round {} {:?} {server:?}: {measured:?}", round + 1, load.protocol);
            results[which].1.push(measured);
        }
    }
    Ok(results)
}

fn measure(server: Server, program: &Path, load: &Load) -> anyhow::Result<Measured> {
    let running = Running::start(server, program)?;
    let mut connection = BufReader::new(running.connect()?);
    let cpu_before = running.cpu_seconds()?;
    for body in &load.bodies {
        send(&mut connection, load.protocol, body)?;
    }
    let cpu_seconds = running.cpu_seconds()? - cpu_before;
    let rss_mib = running.rss_mib()?;
    let stored = running.count_stored(load)?;
    if (stored - load.samples as f64).abs() > 0.5 {
        eprintln!("{server:?} stored {stored} of {} samples", load.samples);
    }
    Ok(Measured { stored, cpu_seconds, rss_mib })
}

fn print_rows(protocol: Protocol, results: &[(Server, Vec<Measured>)]) {
    let version = if protocol == Protocol::V1 { "1.0" } else { "2.0" };
    let spread = |values: &[f64]| values.iter().fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
    let mut medians = Vec::new();
    for (server, rounds) in results {
        // A tick at least: what took less than the kernel counts must not look infinitely fast.
        let rate = |m: &Measured| m.stored / m.cpu_seconds.max(1.0 / TICKS_PER_SECOND);
        let rates: Vec<f64> = rounds.iter().map(rate).collect();
        let rss: Vec<f64> = rounds.iter().map(|m| m.rss_mib).collect();
        let stored = median(rounds.iter().map(|m| m.stored).collect());
        let (rate, rss_mib) = (median(rates.clone()), median(rss.clone()));
        let ((slowest, fastest), (smallest, largest)) = (spread(&rates), spread(&rss));
        println!(
            "| {version} | {server:?} | {stored:.0} | {:.0}k ({:.0}k to {:.0}k) | {rss_mib:.1} ({smallest:.1} to {largest:.1}) |",
            rate / 1e3,
            slowest / 1e3,
            fastest / 1e3
        );
        medians.push((rate, rss_mib));
    }
    if let [(own_rate, own_rss), (peer_rate, peer_rss)] = medians[..] {
        println!("| {version} | ratio | | **{:.1}x** | **{:.2}x** |", own_rate / peer_rate, own_rss / peer_rss);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// Labels as node and container exporters have them, values as counters, gauges and constants move.
fn make_load(protocol: Protocol, arguments: &Arguments, first_at: Timestamp) -> anyhow::Result<Load> {
    let mut random = arguments.seed;
    let labels: Vec<Labels> = (0..arguments.series).map(labels_of).collect();
    let mut values: Vec<f64> = labels.iter().map(|_| next_below(&mut random, 1_000_000)).collect();
    let mut bodies = Vec::new();
    let mut last_at = first_at;
    for step in 0..arguments.samples {
        let at = first_at + Millis(arguments.interval) * i64::try_from(step)?;
        for (index, value) in values.iter_mut().enumerate() {
            match index % 4 {
                0 => *value += next_below(&mut random, 1000),
                1 => *value += (next_below(&mut random, 2000) - 1000.0) / 8.0,
                2 => *value = next_below(&mut random, 100_000) / 1000.0,
                _ => {}
            }
        }
        let indexes: Vec<usize> = (0..labels.len()).collect();
        for request in indexes.chunks(arguments.samples_per_request) {
            let series: Vec<_> = request
                .iter()
                .map(|&index| {
                    // Targets are scraped one after the other, spread over the interval.
                    let offset =
                        Millis(i64::try_from(index / SERIES_PER_TARGET * 37).unwrap_or(0) % arguments.interval);
                    last_at = last_at.max(at + offset);
                    (labels[index].clone(), vec![Sample { at: at + offset, value: values[index] }])
                })
                .collect();
            bodies.push(if protocol == Protocol::V1 { encode_v1(&series) } else { encode_v2(&series) });
        }
    }
    Ok(Load { protocol, bodies, samples: arguments.series * arguments.samples, first_at, last_at })
}

fn labels_of(index: usize) -> Labels {
    let target = index / SERIES_PER_TARGET;
    let of_target = index % SERIES_PER_TARGET;
    Labels::new([
        (METRIC_NAME, format!("container_resource_{}_total", of_target / 10)),
        ("container", format!("worker-{}", of_target % 10)),
        ("instance", format!("10.0.{}.{}:9100", target / 250, target % 250)),
        ("job", "bench".to_owned()),
        ("namespace", format!("team-{}", target % 7)),
        ("node", format!("node-{target}.example.internal")),
        ("pod", format!("worker-{target}-{:08x}", of_target.wrapping_mul(0x9e37_79b9) & 0xffff_ffff)),
    ])
}

/// The next number of a sequence that the seed decides: splitmix64 (Steele et al., 2014), a whole number below `end`.
fn next_below(state: &mut u64, end: u32) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) % u64::from(end)) as f64
}

impl Running {
    /// Starts a server with nothing to scrape, and waits until it is ready.
    fn start(server: Server, program: &Path) -> anyhow::Result<Running> {
        let folder = tempfile::tempdir()?;
        // The port is free now; should another program take it before the server does, the server says so and ends.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = folder.path().join("config.yml");
        let data = folder.path().join("data");
        let mut command = Command::new(program);
        match server {
            Server::Forestall => {
                std::fs::write(&config, "storage: { keep: all }\n")?;
                command.arg("serve").arg(format!("--storage.path={}", data.display()));
            }
            Server::Prometheus => {
                std::fs::write(&config, "global: {}\n")?;
                command.arg("--web.enable-remote-write-receiver");
                command.arg(format!("--storage.tsdb.path={}", data.display()));
            }
        }
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--web.listen-address={address}"));
        let log = std::fs::File::create(folder.path().join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("{} cannot be started", program.display()))?;
        let mut running = Running { child, address, folder };
        running.wait_until_ready()?;
        Ok(running)
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        for _ in 0..ANSWER_WAIT.as_millis() / PROBE_EVERY.as_millis() {
            if self.child.try_wait()?.is_some() {
                break;
            }
            if self.get("/-/ready").is_ok() {
                return Ok(());
            }
            std::thread::sleep(PROBE_EVERY);
        }
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        bail!("it did not become ready; its log:\n{log}")
    }

    fn connect(&self) -> anyhow::Result<TcpStream> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_WAIT))?;
        stream.set_write_timeout(Some(ANSWER_WAIT))?;
        Ok(stream)
    }

    /// The body of a 2xx answer. HTTP/1.0, so that it ends with the connection.
    fn get(&self, path: &str) -> anyhow::Result<String> {
        let mut stream = self.connect()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer without an end of its head")?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        ensure!(status.starts_with('2'), "{path} was answered with {status}: {body}");
        Ok(body.to_owned())
    }

    /// How many samples of the load a query finds.
    fn count_stored(&self, load: &Load) -> anyhow::Result<f64> {
        // Ranges are left-open: a second more, so that the first sample counts.
        let range = load.last_at - load.first_at + Millis::SECOND;
        let query = format!("sum(count_over_time({{job=\"bench\"}}[{}ms]))", range.0);
        let parameters = form_urlencoded::Serializer::new(String::new())
            .append_pair("query", &query)
            .append_pair("time", &format!("{:.3}", load.last_at.as_secs_f64()))
            .finish();
        let answer: serde_json::Value = serde_json::from_str(&self.get(&format!("/api/v1/query?{parameters}"))?)?;
        let value = answer.pointer("/data/result/0/value/1").and_then(serde_json::Value::as_str);
        value.with_context(|| format!("no count in {answer}"))?.parse().context("the count is no number")
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

    fn rss_mib(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; what it wrote goes with its folder.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a body and reads the answer, which must be 2xx.
fn send(connection: &mut BufReader<TcpStream>, protocol: Protocol, body: &[u8]) -> anyhow::Result<()> {
    let (message, version) = match protocol {
        Protocol::V1 => ("prometheus.WriteRequest", "0.1.0"),
        Protocol::V2 => ("io.prometheus.write.v2.Request", "2.0.0"),
    };
    let mut head = String::new();
    write!(
        head,
        "POST /api/v1/write HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: snappy\r\n\
         Content-Type: application/x-protobuf;proto={message}\r\nX-Prometheus-Remote-Write-Version: {version}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    )?;
    connection.get_mut().write_all(&[head.as_bytes(), body].concat())?;

    let mut status = String::new();
    connection.read_line(&mut status)?;
    let mut body_bytes = 0;
    loop {
        let mut line = String::new();
        ensure!(connection.read_line(&mut line)? > 0, "the connection was closed within an answer");
        let Some((name, value)) = line.trim().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            body_bytes = value.trim().parse()?;
        }
    }
    let mut answer = vec![0; body_bytes];
    connection.read_exact(&mut answer)?;
    ensure!(status.contains(" 20"), "answered with {}: {}", status.trim(), String::from_utf8_lossy(&answer));
    Ok(())
}
