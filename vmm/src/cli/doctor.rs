//! `understudy doctor`.

use super::exit_code::{CliError, Code};
use super::output;
use crate::boot::cpu_features::ModelName;
use crate::boot::host_checks::{Check, Host, Status};
use crate::kvm::caps::NEEDED;
use crate::kvm::offered_models::ModelError;
use crate::kvm::{System, profile};
use crate::sandbox::{self, Landlock};
use clap::Args;
use logchan::host_profile::{Compared, HostProfile, ProfileField};
use netpath::ring::probe::probe;
use serde_json::{Value, json};

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
    let (kvm, profile) = kvm_checks(&args.kvm);
    checks.extend(kvm);
    checks.push(ring_check());
    checks.push(landlock_check());
    let healthy = checks.iter().all(|check| check.status != Status::Fail);
    let printed = output::write(&match args.json {
        true => {
            let profile = json!(profile.map(profile_json));
            let fields =
                [("healthy", healthy.into()), ("checks", json!(checks)), ("host_profile", profile)];
            output::json_line(
                fields.map(|(name, value)| (name.into(), value)).into_iter().collect(),
            )
        }
        false => table(&checks) + &profile.map(profile_text).unwrap_or_default(),
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

/// Returns the profile as a JSON object with a string for each field.
pub(super) fn profile_json(profile: HostProfile) -> Value {
    let fields =
        profile.fields().map(|field| (field.key.to_owned(), field.value.to_string().into()));
    Value::Object(fields.into_iter().collect())
}

/// Formats the profile, which was probed with the default CPU model, as a table. Fields that need not be equal on the
/// hosts of a pair are marked.
fn profile_text(profile: HostProfile) -> String {
    let mut text = format!(
        "\nhost profile, with CPU model {} (must be equal on both hosts of a pair, except for fields with *)\n",
        ModelName::default()
    );
    for ProfileField { name, compared, value, .. } in profile.fields() {
        let mark = match compared {
            Compared::Yes => ' ',
            Compared::No => '*',
        };
        text.push_str(&format!("{mark}     {name:<56} {value}\n"));
    }
    text
}

/// Returns the checks, and the host's profile if it can run a guest.
fn kvm_checks(path: &str) -> (Vec<Check>, Option<HostProfile>) {
    let system = match System::open_unchecked(path) {
        Ok(system) => system,
        Err(error) => return (vec![check("kvm", Status::Fail, error.to_string(), None)], None),
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
    checks.extend(ModelName::ALL.map(|name| model_check(&system, name)));
    // If the default model is missing, the row above says so.
    let Ok(model) = system.cpu_model(ModelName::default()) else { return (checks, None) };
    match profile::probe(&system, &model) {
        Ok(profile) => (checks, Some(profile)),
        Err(error) => {
            checks.push(check("host profile", Status::Fail, error.to_string(), None));
            (checks, None)
        }
    }
}

/// Checks whether the host offers a CPU model. Only the default one is needed.
fn model_check(system: &System, name: ModelName) -> Check {
    let title = match name {
        ModelName::V1 => "cpu model v1",
        ModelName::V2 => "cpu model v2",
        ModelName::V3 => "cpu model v3",
    };
    match system.cpu_model(name) {
        Ok(model) => {
            let found = format!("{} ({:016x})", model.processor(), model.digest());
            check(title, Status::Ok, found, None)
        }
        Err(ModelError::NotOffered { obstacle, .. }) if name != ModelName::default() => {
            let found = format!("this host does not offer it: {obstacle}");
            check(
                title,
                Status::Warn,
                found,
                Some(String::from("nothing, unless a VM is to have it")),
            )
        }
        Err(error) => check(title, Status::Fail, error.to_string(), None),
    }
}

fn landlock_check() -> Check {
    let (name, less) = ("landlock", "; the VM's process is in a sandbox all the same");
    match sandbox::landlock() {
        Landlock::Full => check(name, Status::Ok, String::from("files, TCP, sockets"), None),
        Landlock::Partial => {
            let found = format!("an older version, without all restrictions{less}");
            check(name, Status::Ok, found, None)
        }
        Landlock::Missing => {
            let found = format!("not in this kernel{less}");
            let mend = "use a kernel with CONFIG_SECURITY_LANDLOCK, and landlock in lsm=";
            check(name, Status::Warn, found, Some(mend.to_owned()))
        }
    }
}

fn ring_check() -> Check {
    let name = "io_uring";
    match probe() {
        Ok(report) => match (report.check(), report.slower_without().last()) {
            (Err(error), _) => check(name, Status::Fail, error.to_string(), None),
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
