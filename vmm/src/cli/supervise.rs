//! `understudy supervise`: the supervisor of a VM's process. Not for users: `understudy primary` and `backup`
//! start it.

use super::exit_code::CliError;
use crate::supervisor::{WatchError, watch};
use clap::Args;
use logchan::ids::VmId;
use netpath::MacAddr;

/// Options of `supervise`.
#[derive(Args, Debug)]
pub struct SuperviseArgs {
    /// Network interface of the logging channel
    #[arg(long, value_name = "NAME")]
    interface: String,
    /// MAC address of the other host's interface
    #[arg(long, value_name = "MAC", value_parser = netpath::mac::parse_station)]
    peer: MacAddr,
    /// Number of the VM
    #[arg(long, value_name = "N")]
    vm_id: u64,
}

/// Runs `understudy supervise`.
///
/// # Errors
///
/// See [`watch`].
pub fn main(args: &SuperviseArgs) -> Result<(), CliError> {
    watch(&args.interface, (args.peer, VmId(args.vm_id))).map_err(|error| match error {
        WatchError::NotStartedByVm => CliError::Usage(error.to_string()),
        WatchError::Port(error) => error.into(),
        WatchError::Os { doing, source } => CliError::Os { doing, source },
    })
}
