//! `understudy save`.

use super::blueprint::{self, Prepared};
use super::exit_code::CliError;
use super::options::VmOptions;
use super::record::shortened;
use super::run::result;
use super::sandbox::SandboxArgs;
use super::session::AnyPort;
use super::{output, session};
use crate::checkpoint::SnapshotIdentity;
use crate::checkpoint::snapshot::{self, DiskToSave, Saved};
use crate::disk::{Changes, DiskInfo, DiskOptions, Disks, Writes};
use crate::opener::{self, OpenerConfig, OutputPath};
use crate::replay::guest_clock::GuestClock;
use crate::replay::{Snapshotter, World};
use crate::sandbox::Task;
use crate::vm_tap::LanReports;
use clap::Args;
use replication::checkpoint::CheckpointImage;
use std::num::NonZeroU32;
use std::path::PathBuf;

/// Options of `save`.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: understudy save debian.snap --kernel vmlinuz --initrd guest.cpio --memory 256 --when READY
         understudy run --restore debian.snap --tap tap0

Runs the VM until it is idle (HLT) for the first time after printing TEXT, or, without --when, until the
time limit or a signal. Then writes the whole machine to the file and ends. A snapshot starts in
milliseconds, on hosts of the same kind with the same CPU model (see 'understudy doctor').

With --disk the file also has what the guest has written to its disks. The images stay as they are; the VMs
that start from the snapshot need them, unchanged.")]
pub struct SaveArgs {
    /// Snapshot to write; an existing file is replaced when the new one is complete
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    vm: VmOptions,
    /// Save when the guest is idle after printing this text on its console
    #[arg(long, value_name = "TEXT")]
    when: Option<String>,
    /// Run the guest's clock this many times slower than the host's, and skip the time in which the guest
    /// only waits; useful where KVM emulates kernel code, because timer interrupts would otherwise take most
    /// of the start-up
    #[arg(long, value_name = "N", default_value_t = NonZeroU32::MIN)]
    slow_clock: NonZeroU32,
    #[command(flatten)]
    sandbox: SandboxArgs,
}

/// Runs `understudy save`: runs a VM up to a point and saves it.
///
/// # Errors
///
/// If the VM can't be prepared or run, ends before it could be saved, or the file can't be written.
pub fn main(args: &SaveArgs) -> Result<(), CliError> {
    let options = &args.vm;
    let place = OutputPath { path: args.file.clone(), access: options.access() };
    let opener = OpenerConfig { draft: Some(place.clone()), ..session::opener_config(options) };
    args.sandbox.start_opener(&opener)?;
    args.sandbox.start()?;
    session::start_writer_threads()?;
    let Prepared { machine, blueprint, mut disks } = blueprint::prepare(options, Writes::Overlay)?;
    let about_disks = about_disks(options, &mut disks)?;
    let port = session::open_port(options, blueprint.mac(), LanReports::ByPort)?;
    let identity = SnapshotIdentity {
        guest_digest: blueprint.image_digest(),
        guest_name: shortened(blueprint.guest_name().to_owned()),
        cpu_digest: blueprint.cpu_model().digest(),
        host_profile: blueprint.host_profile(),
        cpu_name: blueprint.cpu_model().name(),
        nic_mac: blueprint.mac().octets(),
    };
    let failed = |source| CliError::Snapshot { path: args.file.clone(), source };
    let mut draft = opener::create_draft(&place).map_err(|source| failed(source.into()))?;
    let clock = GuestClock::slowed(blueprint.start_ns(), args.slow_clock);
    let (file, mut saved) = (draft.file(), None);
    let outcome = session::supervise(
        machine,
        options.running(Task::VcpuWithFile),
        |orders| {
            let world = World::new(session::world_config(options, (port, disks), clock, orders)?)?;
            let keep = Box::new(|world: &mut World<AnyPort>, image: &dyn CheckpointImage| {
                if saved.is_none() {
                    let disks = about_disks.iter().zip(world.freeze_disks());
                    let disks = disks.map(|(about, changes)| about.with(changes)).collect();
                    saved = Some(snapshot::save(file, &identity, image, disks));
                }
            });
            Ok(Snapshotter::new(world, args.when.clone(), keep))
        },
        |_| (),
    )?;
    let mut result = result(&outcome);
    outcome.end?;
    let Some(saved) = saved else {
        let text = args.when.as_ref();
        let never = text.map(|text| format!(", and was never idle after printing {text:?}"));
        let never = never.unwrap_or_default();
        return Err(CliError::NotSaved { path: args.file.clone(), never });
    };
    let Saved { pages, disk_blocks, disk_requests } = saved.map_err(failed)?;
    draft.finish().map_err(|source| failed(source.into()))?;
    result.insert("pages".into(), pages.into());
    result.insert("disk_blocks".into(), disk_blocks.into());
    result.insert("disk_requests".into(), disk_requests.into());
    output::print(&result, options.json)
}

/// What a snapshot says about a disk, besides what the guest has written to it.
struct AboutDisk {
    info: DiskInfo,
    image: String,
    digest: Option<u64>,
}

impl AboutDisk {
    fn with(&self, changes: Changes) -> DiskToSave {
        let AboutDisk { info, image, digest } = self;
        DiskToSave { info: *info, image: image.clone(), digest: *digest, changes }
    }
}

fn about_disks(options: &VmOptions, disks: &mut Disks) -> Result<Vec<AboutDisk>, CliError> {
    let about = |(index, disk): (usize, &DiskOptions)| {
        let digest = match options.no_disk_digest {
            true => None,
            false => Some(session::image_digest(disks, index, disk)?),
        };
        let image = shortened(disk.path.display().to_string());
        Ok(AboutDisk { info: disks.info()[index], image, digest })
    };
    options.disk.iter().enumerate().map(about).collect()
}
