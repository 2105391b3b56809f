//! A replay in this process that keeps what the replaying machine does.

use logchan::entry::REGISTERS;
use logchan::limits::DISKS_MAX;
use replication::boundary::{
    Boundary, DeviceBoundary, DeviceCapacity, DiskRequest, EndState, Input, Memory, Position,
    Region, StopAction, VcpuDigest, Waited,
};
use replication::checkpoint::{CheckpointImage, Image};
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use testbed::TestbedError;
use vmm::boot::cpu_features::ModelName;
use vmm::cli::blueprint::host_profile;
use vmm::cli::exit_code::CliError;
use vmm::cli::session;
use vmm::devices::DeviceConfig;
use vmm::files::Access;
use vmm::kvm::System;
use vmm::kvm::system::DEV_KVM;
use vmm::replay::Replayer;
use vmm::replay::error::SourceError;
use vmm::replay::log_file::LogReader;
use vmm::vcpu::{self, Machine, MachineConfig};

/// Something that the machine did, or that happened to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It reached a position by running.
    Reached {
        /// The kind of position.
        position: Position,
        /// Its state.
        vcpu: VcpuDigest,
    },
    /// A checkpoint gave it the state of a position.
    Applied,
    /// The vector was injected.
    Interrupt(u8),
    /// It transmitted a frame.
    Output(Vec<u8>),
}

/// Replays `log` in this process. Returns what was seen, in order.
///
/// # Errors
///
/// If this host can't run the machine, or the replay diverges.
pub(super) fn replay(log: &Path) -> Result<Vec<Seen>, TestbedError> {
    watched(log).map_err(|error| TestbedError::Wrong(format!("the replay: {error}")))
}

fn watched(log: &Path) -> Result<Vec<Seen>, CliError> {
    let failed = |source| CliError::Log { path: log.to_path_buf(), source };
    let reader = LogReader::open(log, Access::Owner).map_err(failed)?;
    let header = reader.header().clone();
    let system = System::open(DEV_KVM)?;
    let cpu_model = system.cpu_model(ModelName::default())?;
    let config = MachineConfig {
        memory_bytes: header.memory_bytes,
        host_profile: host_profile(&system, &cpu_model)?,
        cpu_model,
        devices: DeviceConfig { mac: header.nic_mac, disks: [None; DISKS_MAX] },
    };
    let mut machine = Machine::new(&system, &config)?;
    session::on_vcpu_thread(None, None, &Arc::default(), move |orders| {
        let replayer = Replayer::new(reader, None, orders, Box::new(|_offset| ()));
        let mut watch = Watch { boundary: replayer, seen: Vec::new() };
        vcpu::run(&mut machine, &mut watch, || ())?;
        Ok(watch.seen)
    })
}

/// A boundary that keeps what passes another one.
struct Watch<B> {
    boundary: B,
    seen: Vec<Seen>,
}

impl<B: Boundary<Error = SourceError>> DeviceBoundary for Watch<B> {
    type Error = SourceError;

    fn clock_ns(&mut self) -> Result<u64, SourceError> {
        self.boundary.clock_ns()
    }

    fn wall_clock_ns(&mut self) -> Result<u64, SourceError> {
        self.boundary.wall_clock_ns()
    }

    fn entropy(&mut self, bytes: &mut [u8]) -> Result<usize, SourceError> {
        self.boundary.entropy(bytes)
    }

    fn output(&mut self, frame: &[u8]) -> Result<(), SourceError> {
        self.seen.push(Seen::Output(frame.to_vec()));
        self.boundary.output(frame)
    }

    fn console_output(&mut self, byte: u8) {
        self.boundary.console_output(byte);
    }

    fn disk_request(&mut self, request: &DiskRequest<'_>) -> Result<(), SourceError> {
        self.boundary.disk_request(request)
    }

    fn holds_disk_requests(&mut self) -> bool {
        self.boundary.holds_disk_requests()
    }

    fn interrupt_served(&mut self) {
        self.boundary.interrupt_served();
    }
}

impl<B: Boundary<Error = SourceError>> Boundary for Watch<B> {
    fn poll_memory(
        &mut self,
        memory: &mut dyn Memory<Error = SourceError>,
    ) -> Result<(), SourceError> {
        self.boundary.poll_memory(memory)
    }

    fn next_region(&mut self) -> Result<Region, SourceError> {
        self.boundary.next_region()
    }

    fn reached(
        &mut self,
        position: Position,
        vcpu: &VcpuDigest,
        exit: &dyn Display,
    ) -> Result<(), SourceError> {
        self.seen.push(Seen::Reached { position, vcpu: *vcpu });
        self.boundary.reached(position, vcpu, exit)
    }

    fn exit_handled(&mut self) -> Result<(), SourceError> {
        self.boundary.exit_handled()
    }

    fn next_input(&mut self, capacity: &DeviceCapacity) -> Result<Option<Input<'_>>, SourceError> {
        self.boundary.next_input(capacity)
    }

    fn wait(&mut self, capacity: &DeviceCapacity) -> Result<Waited, SourceError> {
        self.boundary.wait(capacity)
    }

    fn interrupt(&mut self, vector: u8) -> Result<(), SourceError> {
        self.seen.push(Seen::Interrupt(vector));
        self.boundary.interrupt(vector)
    }

    fn interrupted(
        &mut self,
        capacity: &DeviceCapacity,
        window: bool,
    ) -> Result<StopAction, SourceError> {
        self.boundary.interrupted(capacity, window)
    }

    fn window_at_cpl0(&mut self) -> Result<StopAction, SourceError> {
        self.boundary.window_at_cpl0()
    }

    fn fatal(
        &mut self,
        registers: &[u64; REGISTERS],
        exit: &dyn Display,
    ) -> Result<(), SourceError> {
        self.boundary.fatal(registers, exit)
    }

    fn keeps_checkpoints(&self) -> bool {
        self.boundary.keeps_checkpoints()
    }

    fn checkpoint(&mut self, image: &dyn CheckpointImage) -> Result<(), SourceError> {
        self.boundary.checkpoint(image)
    }

    fn take_checkpoint(&mut self) -> Result<Image, SourceError> {
        self.boundary.take_checkpoint()
    }

    fn keepalive(&mut self) -> Result<(), SourceError> {
        self.boundary.keepalive()
    }

    fn applied(&mut self) -> Result<(), SourceError> {
        self.seen.push(Seen::Applied);
        self.boundary.applied()
    }

    fn end(&mut self, end: &EndState) -> Result<(), SourceError> {
        self.boundary.end(end)
    }
}
