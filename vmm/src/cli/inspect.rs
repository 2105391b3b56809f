//! `understudy inspect`.

use super::blueprint::{host_profile, read_image_file};
use super::exit_code::CliError;
use super::output;
use crate::boot::cpu_features::ModelName;
use crate::boot::image::GuestImage;
use crate::boot::linux::{LinuxKernel, PassOptions, PassReport, is_bzimage};
use crate::boot::rules::Verdict;
use crate::boot::sweep::{self, Finding, SweepReport};
use crate::kvm::System;
use clap::Args;
use logchan::host_profile::Answer;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::path::PathBuf;

/// Options of `inspect`.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: understudy inspect /boot/vmlinuz

For a Linux kernel (bzImage), lists what this program rewrites and hooks in it on this host. For any other
guest image or ELF64 program, lists the instructions that a replay can't reproduce. Runs nothing except a
probe of KVM.")]
pub struct InspectArgs {
    /// Kernel, guest image or program to inspect
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// CPU model of the guest, whose instructions are not listed
    #[arg(long, value_name = "NAME", default_value_t)]
    cpu_model: ModelName,
    /// Also list what --kernel-shortcuts leaves out
    #[arg(long)]
    kernel_shortcuts: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// KVM device node
    #[arg(long, value_name = "PATH", default_value = crate::kvm::system::DEV_KVM, hide = true)]
    kvm: String,
}

/// Runs `understudy inspect`.
///
/// # Errors
///
/// If the file can't be read or is not an image, or if KVM can't be opened for a kernel.
pub fn main(args: &InspectArgs) -> Result<(), CliError> {
    let file = read_image_file(&args.file)?;
    let name = args.file.display().to_string();
    if !is_bzimage(&file) {
        let report = sweep::sweep(&GuestImage::for_inspection(&name, file)?, args.cpu_model);
        return output::write(&match args.json {
            true => json_result(&name, ("sweep", json!(report))),
            false => findings(&report),
        });
    }
    let system = System::open(&args.kvm)?;
    let model = system.cpu_model(args.cpu_model)?;
    let profile = host_profile(&system, &model)?;
    let options = PassOptions {
        syscall_stays_at_cpl3: profile.syscall_stays_at_cpl3 == Answer::Yes,
        shortcuts: args.kernel_shortcuts,
        tolerate: true,
    };
    let kernel = LinuxKernel::from_bytes(&name, &file, &options)?;
    output::write(&match args.json {
        true => json_result(&name, ("kernel", json!(kernel.report()))),
        false => kernel_text(kernel.report()),
    })
}

/// Formats the result about the image `file`.
fn json_result(file: &str, (name, report): (&str, Value)) -> String {
    output::json_line(Map::from_iter([("file".into(), file.into()), (name.into(), report)]))
}

fn kernel_text(report: &PassReport) -> String {
    let PassReport { symbols, rewritten, hooks, lacking, shortcuts, sweep } = report;
    let mut text = format!("{symbols} symbols\n");
    for one in rewritten {
        let symbol = one.symbol.as_deref().unwrap_or("?");
        let _ = writeln!(text, "rewritten  {:#x}  {:<8} {symbol}", one.address, one.mnemonic);
    }
    for hook in hooks {
        let _ = writeln!(text, "hooked     {:#x}  {} ({})", hook.address, hook.symbol, hook.what);
    }
    for what in lacking {
        let _ = writeln!(text, "refused    {what}");
    }
    for shortcut in shortcuts {
        let _ = writeln!(text, "left out   {} ({} places)", shortcut.what, shortcut.places);
    }
    text + &findings(sweep)
}

fn findings(report: &SweepReport) -> String {
    let mut text = String::new();
    let mut sorted: Vec<&Finding> = report.findings.iter().collect();
    sorted.sort_by_key(|finding| (finding.verdict, finding.address));
    for finding in sorted {
        let verdict = match finding.verdict {
            Verdict::Forbidden => "forbidden",
            Verdict::Warned => "doubtful",
            Verdict::AllowedNote => "note",
        };
        let Finding { address, mnemonic, symbol, why, .. } = finding;
        let symbol = symbol.as_deref().unwrap_or("?");
        let _ = writeln!(text, "{verdict:<10} {address:#x}  {mnemonic:<8} {symbol}: {why}");
    }
    let SweepReport { forbidden, warned, noted, bytes_swept, undecodable, .. } = report;
    let _ = writeln!(
        text,
        "{bytes_swept} bytes of code, {undecodable} of them undecodable: {forbidden} forbidden, \
         {warned} doubtful, {noted} notes"
    );
    text
}
