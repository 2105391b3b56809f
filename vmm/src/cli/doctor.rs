//! `understudy doctor`.

use super::exit_code::{CliError, Code};
use super::output;
use crate::boot::cpu_model::CpuModel;
use crate::boot::host_checks::{Check, Host, Status};
use crate::kvm::System;
use crate::kvm::caps::NEEDED;
use clap::Args;
use netpath::ring::probe::probe;
use serde_json::json;

/// Options of `doctor`.
#[derive(Args, Debug)]
#[command(after_help = "Example: understudy doctor\n\nExits with code 3 if a check fails.")]
pub struct DoctorArgs {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// KVM device node
    #[arg(long, value_name = "PATH", default_value = crate::kvm::system::DEV_KVM, hide = true)]
    kvm: String,
}

/// Runs `understudy doctor`: checks the host and prints the result of each check.
///
/// # Errors
///
/// If a check fails, or standard output can't be written.
pub fn main(args: &DoctorArgs) -> Result<(), CliError> {
    let mut checks = Host::new("/").check_all();
    checks.extend(kvm_checks(&args.kvm));
    checks.push(ring_check());
    let healthy = checks.iter().all(|check| check.status != Status::Fail);
    let printed = output::write(&match args.json {
        true => format!("{}\n", json!({ "healthy": healthy, "checks": checks })),
        false => table(&checks),
    });
    output::after_print(printed, if healthy { Ok(()) } else { Err(CliError::Silent(Code::Host)) })
}

/// Formats the checks as a table.
pub(super) fn table(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let mark = match check.status {
            Status::Ok => "ok  ",
            Status::Warn => "warn",
            Status::Fail => "FAIL",
        };
        text.push_str(&format!("{mark}  {:<18} {}\n", check.name, check.found));
        if let Some(mend) = &check.mend {
            text.push_str(&format!("      {:<18} -> {mend}\n", ""));
        }
    }
    text
}

fn check(name: &'static str, status: Status, found: String, mend: Option<String>) -> Check {
    Check { name, status, found, mend }
}

fn kvm_checks(path: &str) -> Vec<Check> {
    let system = match System::open_unchecked(path) {
        Ok(system) => system,
        Err(error) => return vec![check("kvm", Status::Fail, error.to_string(), None)],
    };
    let lacking: Vec<_> = NEEDED.iter().filter(|needed| !system.has(needed)).collect();
    let mut checks = if lacking.is_empty() {
        let found = format!("API 12, all {} capabilities", NEEDED.len());
        vec![check("kvm", Status::Ok, found, None)]
    } else {
        let mend = Some(String::from("use a newer kernel"));
        lacking
            .iter()
            .map(|needed| {
                let found = format!("lacks {}: {}", needed.name, needed.why);
                check("kvm", Status::Fail, found, mend.clone())
            })
            .collect()
    };
    checks.push(match system.supported_cpuid() {
        Ok(cpuid) => {
            let model = CpuModel::from_supported(&cpuid);
            let found = format!("{} ({:016x})", model.name(), model.digest());
            check("cpu model", Status::Ok, found, None)
        }
        Err(error) => check("cpu model", Status::Fail, error.to_string(), None),
    });
    checks
}

fn ring_check() -> Check {
    let name = "io_uring";
    match probe() {
        Ok(report) => match (report.check(), report.slower_without().last()) {
            (Err(error), _) => {
                let mend = Some(String::from("use a newer kernel"));
                check(name, Status::Fail, error.to_string(), mend)
            }
            (Ok(()), Some((missing, cost))) => {
                let found = format!("lacks {}: {cost}", missing.name);
                let since = missing.since;
                let mend = format!("nothing for correctness; for speed use Linux {since} or newer");
                check(name, Status::Warn, found, Some(mend))
            }
            (Ok(()), None) => check(name, Status::Ok, String::from("every feature used"), None),
        },
        Err(error) => check(name, Status::Fail, error.to_string(), None),
    }
}
