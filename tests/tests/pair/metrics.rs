//! `--metrics`, read by the Prometheus of the package `prometheus`; the dashboard and the alerts of `docs/monitoring`.

use nix::sys::signal::Signal;
use nix::sys::socket::{Shutdown, shutdown};
use serde_json::Value;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use testbed::TestbedError;
use testbed::pair::{Host, PairEvent, Part};
use tests::pair::{Clients, Process, Rig};
use tests::patience::wait_until;
use tests::threads::wait_until_sandboxed;
use tests::wait_for;

/// Where the primary serves its metrics.
const PRIMARY: &str = "127.0.0.1:9464";

/// Where the backup's metrics can be read on the primary's host.
const BACKUP: &str = "127.0.0.1:9465";

/// Where Prometheus answers queries.
const PROMETHEUS: &str = "127.0.0.1:9090";

/// How long a connection may stall before a look is repeated.
const STALL_MAX: Duration = Duration::from_secs(2);

/// Returns the folder of the dashboard and the alerts.
fn monitoring() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/monitoring");
    folder.canonicalize().expect("the folder exists")
}

/// Runs `promtool` with `args` and `input`, and requires that it finds nothing.
fn promtool(args: &[&str], input: &str) {
    let mut tool = Command::new("promtool");
    let tool = tool.args(args).current_dir(monitoring()).stdin(Stdio::piped());
    let mut tool = tool.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("promtool");
    tool.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("it reads");
    let output = tool.wait_with_output().expect("promtool ends");
    assert!(output.status.success(), "{args:?}: {output:?}");
}

#[test]
fn alerts_fire_when_they_should_and_only_then() {
    promtool(&["check", "rules", "understudy.rules.yml"], "");
    promtool(&["test", "rules", "understudy.rules.test.yml"], "");
}

/// Asks for `path` by HTTP, in the namespace of the calling thread. Returns the body of an answer without an error.
fn get(address: &str, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(STALL_MAX))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    match text.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains(" 200 OK") => Ok(body.to_owned()),
        _other => Err(io::Error::other(text)),
    }
}

/// Returns what Prometheus answers to a request of its API; `None` while it has no answer.
fn ask(path: &str) -> Option<Value> {
    let answer: Value = serde_json::from_str(&get(PROMETHEUS, path).ok()?).ok()?;
    (answer["status"] == "success").then(|| answer["data"].clone())
}

/// Returns the samples that a query has as its result now.
fn query(query: &str) -> Vec<Value> {
    let coded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let data = ask(&format!("/api/v1/query?query={coded}"));
    data.and_then(|data| data["result"].as_array().cloned()).unwrap_or_default()
}

/// Returns the value of a query with one sample.
fn value(text: &str) -> Option<f64> {
    let samples = query(text);
    let [sample] = &samples[..] else { return None };
    sample["value"][1].as_str()?.parse().ok()
}

/// Serves at [`BACKUP`] what the socket at `path` serves, as a proxy on its host would: Prometheus itself does not read
/// sockets with paths. Ends when `listener` is shut down.
fn forward(listener: &TcpListener, path: &Path) {
    for mut client in listener.incoming().map_while(Result::ok) {
        let _ = client.set_read_timeout(Some(STALL_MAX));
        // A client that leaves, or a backup that is gone, is what the next one finds, too.
        let _ = forward_one(&mut client, path);
    }
}

fn forward_one(client: &mut TcpStream, path: &Path) -> io::Result<()> {
    let (mut request, mut piece) = (Vec::new(), [0; 1024]);
    while !request.ends_with(b"\r\n\r\n") {
        let count = client.read(&mut piece)?;
        if count == 0 {
            return Ok(());
        }
        request.extend(&piece[..count]);
    }
    let mut server = UnixStream::connect(path)?;
    server.write_all(&request)?;
    io::copy(&mut server, client).map(drop)
}

/// Ends a [`forward`] on drop: no client is accepted any more.
struct EndForward<'l>(&'l TcpListener);

impl Drop for EndForward<'_> {
    fn drop(&mut self) {
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Both);
    }
}

/// A Prometheus that reads the metrics of both hosts every second; killed on drop.
struct Prometheus(Child);

impl Prometheus {
    /// Starts it in the namespace of the calling thread.
    fn start(rig: &Rig) -> Prometheus {
        let rules = monitoring().join("understudy.rules.yml");
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: ['{}']\n\
             scrape_configs:\n\
             - {{job_name: understudy, static_configs: [{{targets: ['{PRIMARY}', '{BACKUP}']}}]}}\n",
            rules.display()
        );
        let file = rig.path("prometheus.yml");
        fs::write(&file, config).expect("a file can be written");
        let log = fs::File::create(rig.path("prometheus.log")).expect("a file can be made");
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", rig.path("prometheus").display()));
        command.arg(format!("--web.listen-address={PROMETHEUS}")).arg("--log.level=warn");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        Prometheus(child.expect("prometheus starts"))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the queries of the dashboard, for VM 0 and short intervals.
fn dashboard() -> Vec<String> {
    let text = fs::read_to_string(monitoring().join("understudy.dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    let expressions = targets.map(|target| target["expr"].as_str().unwrap());
    let filled =
        expressions.map(|text| text.replace("$vm", "0").replace("$__rate_interval", "20s"));
    let filled: Vec<_> = filled.map(|text| text.replace("$__range", "1m")).collect();
    assert!(filled.len() > 20 && filled.iter().all(|text| !text.contains('$')), "{filled:?}");
    filled
}

/// Returns the state of each alert, by its name: `inactive`, `pending` or `firing`.
fn alerts() -> Vec<(String, String)> {
    let groups = ask("/api/v1/rules").map(|data| data["groups"].clone()).unwrap_or_default();
    let rules =
        groups.as_array().into_iter().flatten().filter_map(|group| group["rules"].as_array());
    let rules = rules.flatten().filter(|rule| rule["health"] != "unknown");
    rules
        .map(|rule| {
            assert_eq!(rule["health"], "ok", "{rule}");
            let text = |name: &str| rule[name].as_str().expect("a text").to_owned();
            (text("name"), text("state"))
        })
        .collect()
}

fn state_of(alert: &str) -> Option<String> {
    alerts().into_iter().find(|(name, _)| name == alert).map(|(_, state)| state)
}

/// Starts a backup that serves its metrics at the socket `path`.
fn backup(rig: &Rig, path: &Path) -> Process {
    let path = path.to_str().expect("paths of tests are UTF-8");
    rig.start(Part::Backup, Host::B, &["--metrics", path])
}

/// What Prometheus finds while the VM is protected.
fn check_protected(primary: &Process) {
    // Each query needs some scrapes.
    for text in dashboard() {
        wait_until(&format!("data for {text}"), || !query(&text).is_empty());
    }
    wait_until("all alerts", || alerts().len() == 7);
    wait_until("quiet alerts", || alerts().iter().all(|(_, state)| state == "inactive"));
    wait_until("both roles", || {
        let roles = query("understudy_role == 1");
        let mut roles: Vec<_> =
            roles.iter().filter_map(|role| role["metric"]["role"].as_str()).collect();
        roles.sort_unstable();
        roles == ["following", "protected"]
    });
    wait_until("the same figures as those of the status", || {
        let of = |name: &str| value(&format!("understudy_{name}{{instance='{PRIMARY}'}}"));
        let before = of("hold_seconds_count");
        let status = primary.figure("hold.released");
        wait_until("a newer scrape", || of("hold_seconds_count") > before);
        let is_between = before <= Some(status) && of("hold_seconds_count") >= Some(status);
        is_between && of("outputs_released_total") > Some(0.0) && of("term") == Some(1.0)
    });
    let text = get(PRIMARY, "/metrics").expect("the primary answers");
    promtool(&["check", "metrics"], &text);
    assert!(get(PRIMARY, "/").unwrap_err().to_string().starts_with("HTTP/1.1 404 "));
}

#[test]
fn prometheus_reads_both_hosts_and_every_query_of_the_dashboard_has_data() {
    let rig = Rig::patient();
    let socket = rig.path("run/metrics.sock");
    let mut primary = rig.start(Part::Primary, Host::A, &["--metrics", PRIMARY]);
    wait_for!(primary, PairEvent::TermWon);
    let mut first = backup(&rig, &socket);
    wait_for!(primary, PairEvent::Protected);
    wait_for!(first, PairEvent::Following);
    for process in [&primary, &first] {
        wait_until_sandboxed(process.pid(), &["metrics"]);
    }
    let inside = rig.scene.network.host(Host::A).enter(|| {
        let listener = TcpListener::bind(BACKUP).expect("the port is free");
        let _prometheus = Prometheus::start(&rig);
        std::thread::scope(|scope| {
            let _end = EndForward(&listener);
            scope.spawn(|| forward(&listener, &socket));
            let ((), _) = Clients::during(&rig, |_| check_protected(&primary));
            first.signal(Signal::SIGKILL);
            first.end();
            wait_until("the alert", || {
                let state = state_of("UnderstudyUnprotected");
                state.is_some_and(|state| state == "pending" || state == "firing")
            });
            assert!(socket.exists(), "as a process that was killed leaves it");
            let mut second = backup(&rig, &socket);
            wait_for!(second, PairEvent::Following);
            wait_until("the end of the alert", || {
                state_of("UnderstudyUnprotected").is_some_and(|state| state == "inactive")
            });
            second.signal(Signal::SIGTERM);
            second.end();
            assert!(!socket.exists(), "as one that ends leaves nothing");
        });
        Ok::<_, TestbedError>(())
    });
    inside.unwrap();
}
