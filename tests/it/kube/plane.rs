//! A real control plane, where `KUBEBUILDER_ASSETS` names a folder with `kube-apiserver`, `etcd`, `kube-controller-manager`
//! and `kube-scheduler`: the suite then runs against it as well as its rules allow.
//!
//! One serves the whole run; a test has it for itself and finds it empty. Nodes are objects only: what a kubelet does is
//! done by [`Plane::tick`] (`kubelet.rs`). forestall's user has a token and the roles that ship. What it asks for is in the
//! audit log, which is what counts.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use forestall::clock::Clock;
use forestall::model::{Millis, Timestamp};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::Value;

use crate::real::SOON;

/// The user that the tests act as.
pub(super) const USER: &str = "system:serviceaccount:forestall:forestall";
/// The token of who may do everything.
pub(super) const ADMIN: &str = "admin";
/// Tokens of [`USER`].
const TOKENS: [&str; 3] = ["first", "second", "third"];
const PROGRAMS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
const MERGE: &str = "application/merge-patch+json";

/// What stands before the point of a P-256 key in a `SubjectPublicKeyInfo` (RFC 5480).
const P256_PUBLIC_KEY_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

static PLANE: LazyLock<Option<Plane>> = LazyLock::new(|| {
    let folder = PathBuf::from(std::env::var_os("KUBEBUILDER_ASSETS")?);
    if let Some(missing) = PROGRAMS.iter().find(|name| !folder.join(name).exists()) {
        // The API server's own answers need no controllers, but what comes of an action does.
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("skipped: the real control plane: {} has no {missing}\n", folder.display()),
        );
        return None;
    }
    Some(Plane::start(&folder))
});

static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

thread_local! {
    /// A test runs on one thread, and may have several worlds one after the other.
    static HELD: std::cell::RefCell<Option<tokio::sync::MutexGuard<'static, ()>>> = const { std::cell::RefCell::new(None) };
}

/// What runs.
#[derive(Debug)]
pub(super) struct Plane {
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
    base: String,
    folder: PathBuf,
    /// Each ends when its standard input does: with this process.
    _programs: Vec<Child>,
}

/// An answer as it came.
#[derive(Debug, Clone)]
pub(super) struct Answered {
    pub(super) code: u16,
    pub(super) retry_after: Option<u32>,
    pub(super) body: Value,
}

/// A request that reached the API server as [`USER`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Audited {
    /// `patch deployments/scale`
    pub(super) right: String,
    pub(super) uri: String,
    pub(super) code: u64,
    pub(super) at: Timestamp,
}

impl Audited {
    /// A change that was made; neither an event nor a question about rights.
    pub(super) fn is_effect(&self) -> bool {
        let verb = self.right.split(' ').next().unwrap_or_default();
        self.code < 300
            && matches!(verb, "create" | "update" | "patch" | "delete" | "deletecollection")
            && !matches!(self.right.as_str(), "create events" | "create selfsubjectaccessreviews")
            && !self.uri.contains("dryRun=All")
    }
}

impl Plane {
    /// The one that there is; nothing where none was asked for.
    pub(super) fn get() -> Option<&'static Plane> {
        // It starts on a thread of its own: a test's runtime must not be waited in.
        std::thread::scope(|scope| scope.spawn(|| PLANE.as_ref()).join()).expect("the control plane starts")
    }

    /// Waits until this test has it for itself, and makes it empty.
    pub(super) async fn empty(&'static self) {
        if HELD.with_borrow(Option::is_none) {
            let held = ALONE.lock().await;
            HELD.with_borrow_mut(|slot| *slot = Some(held));
        }
        self.reset();
    }

    fn start(assets: &Path) -> Plane {
        let folder = tempfile::tempdir().expect("a folder").keep();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime starts");
        let client = client();
        let (etcd, api) = (free_port(), free_port());
        write_files(&folder, api);
        let path = |name: &str| folder.join(name).display().to_string();
        let kubeconfig = format!("--kubeconfig={}", path("kubeconfig"));
        let etcd = format!("http://127.0.0.1:{etcd}");
        let store = vec![
            format!("--data-dir={}", path("etcd")),
            format!("--listen-client-urls={etcd}"),
            format!("--advertise-client-urls={etcd}"),
            "--listen-peer-urls=http://127.0.0.1:0".to_owned(),
            "--unsafe-no-fsync".to_owned(),
        ];
        let server = vec![
            format!("--etcd-servers={etcd}"),
            format!("--secure-port={api}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--cert-dir={}", path("certs")),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            "--service-account-issuer=https://localhost".to_owned(),
            format!("--service-account-key-file={}", path("accounts.pub.pem")),
            format!("--service-account-signing-key-file={}", path("accounts.pem")),
            format!("--token-auth-file={}", path("tokens.csv")),
            "--authorization-mode=RBAC".to_owned(),
            format!("--audit-policy-file={}", path("audit.yaml")),
            format!("--audit-log-path={}", path("audit.log")),
            "--audit-log-mode=blocking".to_owned(),
            "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition".to_owned(),
        ];
        let controllers = vec![
            kubeconfig.clone(),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
            "--horizontal-pod-autoscaler-sync-period=1s".to_owned(),
            "--horizontal-pod-autoscaler-downscale-stabilization=1s".to_owned(),
            "--node-monitor-grace-period=24h".to_owned(),
            "--kube-api-qps=500".to_owned(),
            "--kube-api-burst=500".to_owned(),
        ];
        let scheduler = vec![
            kubeconfig,
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
            "--kube-api-qps=500".to_owned(),
            "--kube-api-burst=500".to_owned(),
        ];
        let start = |name: &str, args: &[String]| spawn(assets, &folder, name, args);
        let mut programs = vec![start("etcd", &store), start("kube-apiserver", &server)];
        let mut plane = Plane {
            runtime,
            client,
            base: format!("https://127.0.0.1:{api}"),
            folder: folder.clone(),
            _programs: vec![],
        };
        plane.until("the API server is ready", || plane.ask("GET", "/readyz", "", &Value::Null).code == 200);
        programs.push(start("kube-controller-manager", &controllers));
        programs.push(start("kube-scheduler", &scheduler));
        plane._programs = programs;
        plane.prepare();
        plane
    }

    /// Asks as an administrator, and waits: also inside a runtime, since the answer comes on another one.
    pub(super) fn ask(&self, method: &str, path: &str, kind: &str, body: &Value) -> Answered {
        self.wait(self.send(ADMIN, method, path, kind, body))
    }

    /// Waits for something that runs on the control plane's own runtime.
    pub(super) fn wait<T: Send>(&self, work: impl Future<Output = T> + Send) -> T {
        let handle = self.runtime.handle();
        std::thread::scope(|scope| scope.spawn(|| handle.block_on(work)).join()).expect("no panic there")
    }

    /// Asks with a token, on the runtime of whoever asks.
    pub(super) async fn send(&self, token: &str, method: &str, path: &str, kind: &str, body: &Value) -> Answered {
        let request = request(&self.client, &self.base, token, method, path, kind, body);
        answered(request).await
    }

    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// How forestall gets there: with the certificate that the API server made itself, and a token file.
    pub(super) fn kubeconfig(&self) -> PathBuf {
        let path = |name: &str| self.folder.join(name).display().to_string();
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
             clusters: [{{ name: a, cluster: {{ server: '{}', certificate-authority: '{}' }} }}]\n\
             users: [{{ name: a, user: {{ tokenFile: '{}' }} }}]\n\
             contexts: [{{ name: a, context: {{ cluster: a, user: a }} }}]\n",
            self.base,
            path("certs/apiserver.crt"),
            path("token")
        );
        std::fs::write(self.folder.join("token"), TOKENS[0]).expect("the folder can be written");
        std::fs::write(self.folder.join("forestall.kubeconfig"), text).expect("the folder can be written");
        self.folder.join("forestall.kubeconfig")
    }

    /// A change by an administrator that must be taken.
    pub(super) fn must(&self, method: &str, path: &str, body: &Value) -> Value {
        let kind = if method == "PATCH" { MERGE } else { "application/json" };
        let answer = self.ask(method, path, kind, body);
        assert!(answer.code < 300, "{method} {path}: {} {}", answer.code, answer.body);
        answer.body
    }

    /// Waits for a condition.
    pub(super) fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let since = Clock::wall().monotonic();
        while !holds() {
            let waited = Clock::wall().monotonic() - since;
            assert!(waited < Millis::from_secs(SOON.as_secs().cast_signed()), "not within {SOON:?}: {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// How much of the audit log there is.
    pub(super) fn audit_len(&self) -> usize {
        std::fs::metadata(self.folder.join("audit.log")).map_or(0, |file| usize::try_from(file.len()).unwrap_or(0))
    }

    /// What [`USER`] has asked for since the log was so long.
    pub(super) fn audited(&self, from: usize) -> Vec<Audited> {
        // A question of our own is in the log after all that was answered before it.
        let mark = format!("/version?mark={}", Clock::wall().monotonic().0);
        self.wait(self.send(TOKENS[0], "GET", &mark, "", &Value::Null));
        let mut found = Vec::new();
        self.until("the audit log has all of it", || {
            let log = std::fs::read(self.folder.join("audit.log")).expect("there is a log");
            let text = String::from_utf8_lossy(&log[from.min(log.len())..]).into_owned();
            found = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect();
            found.iter().any(|entry| entry["requestURI"] == mark.as_str())
        });
        found
            .iter()
            .filter(|entry| !entry["requestURI"].as_str().unwrap_or("").contains("mark="))
            .map(audited_of)
            .collect()
    }
}

fn audited_of(entry: &Value) -> Audited {
    let of = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let resource = match of("/objectRef/subresource") {
        "" => of("/objectRef/resource").to_owned(),
        sub => format!("{}/{sub}", of("/objectRef/resource")),
    };
    let at = of("/requestReceivedTimestamp").parse::<jiff::Timestamp>().map_or(0, |at| at.as_millisecond());
    Audited {
        right: format!("{} {resource}", of("/verb")),
        uri: of("/requestURI").to_owned(),
        code: entry.pointer("/responseStatus/code").and_then(Value::as_u64).unwrap_or(0),
        at: Timestamp(at),
    }
}

/// A client of the API server, which has a certificate of its own making.
pub(super) fn client() -> reqwest::Client {
    let builder = crate::real::client_builder().danger_accept_invalid_certs(true).timeout(SOON);
    builder.build().expect("a client can be made")
}

pub(super) fn request(
    client: &reqwest::Client,
    base: &str,
    token: &str,
    method: &str,
    path: &str,
    kind: &str,
    body: &Value,
) -> reqwest::RequestBuilder {
    let method = method.parse().expect("a method");
    let request = client.request(method, format!("{base}{path}")).bearer_auth(token);
    if body.is_null() { request } else { request.header("content-type", kind).body(body.to_string()) }
}

/// 0 where nobody answers.
pub(super) async fn answered(request: reqwest::RequestBuilder) -> Answered {
    let Ok(response) = request.send().await else { return Answered { code: 0, retry_after: None, body: Value::Null } };
    let code = response.status().as_u16();
    let header = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    let text = response.text().await.unwrap_or_default();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answered { code, retry_after: header, body }
}

fn write_files(folder: &Path, port: u16) {
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("the folder can be written");
    let mut tokens = format!("{ADMIN},admin,1,\"system:masters\"\n");
    for token in TOKENS {
        tokens += &format!("{token},{USER},2,\"system:serviceaccounts,system:authenticated\"\n");
    }
    write("tokens.csv", &tokens);
    write(
        "audit.yaml",
        &format!(
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived, ResponseStarted]\n\
             rules:\n- {{ level: Request, users: ['{USER}'] }}\n- {{ level: None }}\n"
        ),
    );
    write(
        "kubeconfig",
        &format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
             clusters: [{{ name: a, cluster: {{ server: 'https://127.0.0.1:{port}', insecure-skip-tls-verify: true }} }}]\n\
             users: [{{ name: a, user: {{ token: {ADMIN} }} }}]\n\
             contexts: [{{ name: a, context: {{ cluster: a, user: a }} }}]\n"
        ),
    );
    let random = ring::rand::SystemRandom::new();
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).expect("a key can be made");
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.as_ref(), &random).expect("our own key");
    let public = [&P256_PUBLIC_KEY_HEAD[..], pair.public_key().as_ref()].concat();
    let pem =
        |kind: &str, der: &[u8]| format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", BASE64.encode(der));
    write("accounts.pem", &pem("PRIVATE KEY", key.as_ref()));
    write("accounts.pub.pem", &pem("PUBLIC KEY", &public));
}

/// Starts a program that ends when this process does, whatever ends it; the store takes the folder with it.
fn spawn(assets: &Path, folder: &Path, name: &str, args: &[String]) -> Child {
    let last = if name == "etcd" { "; rm -rf \"$folder\"" } else { "" };
    let script = format!("folder=$1; shift; \"$@\" & child=$!; cat > /dev/null; kill -9 $child; wait $child{last}");
    let log = std::fs::File::create(folder.join(format!("{name}.log"))).expect("the folder can be written");
    let errors = log.try_clone().expect("a file can be opened twice");
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg("sh").arg(folder).arg(assets.join(name)).args(args);
    command.stdin(Stdio::piped()).stdout(log).stderr(errors).spawn().expect("sh starts")
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}
