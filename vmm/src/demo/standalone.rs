//! The demonstration of one unprotected VM.

use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use testbed::clients::{self, Limit};
use testbed::pace::{HANG_MAX, Measured, Pace};
use testbed::standalone::Launch;
use testbed::{GUEST_ADDRESS, Guest, HOST_CIDR, Namespace, Standalone, TAP, TestbedError};

const PINGS: u32 = 20;
const ECHO_BYTES: usize = 64 << 10;

/// Number of counter requests: as many as the guest answers in this time, within these bounds.
const COUNTING: Duration = Duration::from_secs(5);
const REQUESTS: [u64; 2] = [20, 200];

/// Runs the demonstration with the executable `program`, and reports its progress to `message`. `interrupted`
/// ends it early. Removes everything that it created.
///
/// # Errors
///
/// If the VM or a client fails, or gives a wrong answer.
pub fn run(
    program: &Path,
    interrupted: &Arc<AtomicBool>,
    mut message: impl FnMut(&str) + Send,
) -> Result<Map<String, Value>, TestbedError> {
    let check = || clients::check_interrupted(interrupted);
    let namespace = Namespace::with_tap("demo")?;
    message(&format!("namespace {} with {TAP} ({HOST_CIDR})", namespace.name()));
    let launch = Launch { program, guest: &Guest::Reference, command: &["run"] };
    let limit = Limit { time: HANG_MAX, interrupted: Some(interrupted) };
    let Standalone { vm, namespace, first_answer } = Standalone::start(namespace, &launch, &limit)?;
    let boot_ms = first_answer.as_secs_f64() * 1e3;
    namespace.enter(|| {
        let mut result = Map::new();
        message(&format!("boot to first ping reply: {boot_ms:.1} ms (process start included)"));
        result.insert("boot_to_first_ping_reply_ms".into(), json!(boot_ms));

        let measured = Measured::of_answers(first_answer, &Guest::Reference, interrupted)?;
        let pace = Pace::new(&Guest::Reference, measured, None)?;
        message(&pace.describe());
        result.insert("pace".into(), pace.json());

        check()?;
        let interval = format!("{:.3}", pace.pause(Duration::from_millis(50), 2).as_secs_f64());
        let replies = clients::ping(GUEST_ADDRESS, PINGS, &interval)?;
        message(&format!("ping: {replies} of {PINGS} answered"));
        result.insert("ping".into(), json!({ "sent": PINGS, "received": replies }));

        check()?;
        let page = clients::fetch(GUEST_ADDRESS, "/")?;
        let status = clients::fetch(GUEST_ADDRESS, "/status")?;
        message(&format!("curl /: {} bytes; /status: {}", page.len(), status.trim()));
        result.insert("page_bytes".into(), page.len().into());

        check()?;
        let requests = COUNTING.div_duration_f64(measured.answer) as u64;
        let requests = requests.clamp(REQUESTS[0], REQUESTS[1]);
        let (first, last) = clients::count(GUEST_ADDRESS, requests)?;
        message(&format!(
            "counter: {requests} requests on one connection, {first} to {last} in order"
        ));
        result.insert("counter_requests".into(), requests.into());

        check()?;
        let bytes: Vec<u8> =
            (0..ECHO_BYTES).map(|index| (index * 31 + index / 251) as u8).collect();
        clients::echo(GUEST_ADDRESS, &bytes)?;
        message(&format!("echo: {ECHO_BYTES} bytes came back equal"));
        result.insert("echo_bytes".into(), ECHO_BYTES.into());

        vm.finish()?;
        if replies != PINGS {
            return Err(TestbedError::Wrong(format!("only {replies} of {PINGS} pings answered")));
        }
        Ok(result)
    })
}
