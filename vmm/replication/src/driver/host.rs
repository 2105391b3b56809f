//! What a host provides to the driver. A real host implements these traits with KVM's clocks, io_uring,
//! threads and files; the driver's simulator with events.

use super::Notice;
use crate::boundary::{DeviceCapacity, StopAction};
use crate::replica::{DiskCopier, LiveInputs, Replica};
use crate::witness::{Answer, Question};
use alloc::string::String;
use logchan::handshake::Proof;
use logchan::seal::DeathNotice;
use logchan::time::{Duration, Time};

/// The parts of a host, as types.
pub trait Host: Sized {
    /// Why a part of this host failed.
    type Error: From<<Self::Link as LinkPort>::Error>;
    /// The clock of the logging channel.
    type Clock: Clock;
    /// The interface of the log link.
    type Link: LinkPort;
    /// The VM's network, console and guest clock.
    type World: LiveWorld<Error = Self::Error>;
    /// The threads that ask the witness.
    type Witness: WitnessPort;
    /// The supervisor of this process.
    type Supervisor: SupervisorPort;
    /// Receives notices and measurements.
    type Observer: Observer<Self>;

    /// Waits until a frame arrives from the LAN or on the log link, a kick arrives, or `timeout` has passed.
    /// May return early.
    ///
    /// # Errors
    ///
    /// One of the two can no longer be used.
    fn wait_any(
        world: &mut Self::World,
        link: &mut Self::Link,
        timeout: Duration,
    ) -> Result<(), Self::Error>;
}

/// The clock of the logging channel. It runs while the host is suspended: the lease must end during that
/// time, too.
pub trait Clock {
    /// Returns the time. It never goes back.
    fn now(&self) -> Time;
}

/// Bytes in front of each frame that a [`LinkPort`] sends, for the port's own header (Ethernet).
pub const LINK_HEADER_BYTES: usize = 22;

/// The interface of the log link, and the address of one peer.
///
/// # Errors
///
/// A method fails if the interface can no longer be used. A lost frame is no error.
pub trait LinkPort {
    /// Why the interface can no longer be used.
    type Error;
    /// A point in the sequence of frames that have arrived.
    type Mark: Copy;
    /// The time that a [`spin`](Self::spin) may still take.
    type Spin;

    /// Returns a mark behind the frames that have arrived, `frames_max` of them at most; `None` if none has.
    fn arrived(&mut self, frames_max: usize) -> Result<Option<Self::Mark>, Self::Error>;
    /// Passes the next frame up to `mark` to `handle`, without the port's header, if the peer may have sent it.
    /// `handle` returns what the frame proves about its sender, so that the port can follow a peer whose
    /// address changes. Returns false if there is no frame left.
    fn receive_until(
        &mut self,
        mark: Self::Mark,
        handle: impl FnOnce(&mut [u8]) -> Proof,
    ) -> Result<bool, Self::Error>;
    /// Returns whether this host itself knows of a reason why no frame can pass: its interface is down, has
    /// no carrier, or is gone. The silence of the peer says little about the peer then. Costs no system call.
    fn is_cut_off(&self) -> bool;
    /// Returns whether a frame has arrived. Costs no system call.
    fn has_frame(&self) -> bool;
    /// Returns the most frames that can have arrived and wait here.
    fn frames_waiting_max(&self) -> usize;
    /// Queues a frame to the peer. The first [`LINK_HEADER_BYTES`] bytes of `frame` are for the port.
    fn send(&mut self, frame: &mut [u8]) -> Result<(), Self::Error>;
    /// Says when the peer was heard: the port may try other ways to reach it, too.
    fn set_heard(&mut self, _heard: Heard) {}
    /// Gives the queued frames to the network.
    fn flush(&mut self) -> Result<(), Self::Error>;
    /// Returns how many bytes the network has not sent yet.
    fn unsent_bytes(&mut self) -> Result<u32, Self::Error>;
    /// Waits until a frame arrives, a kick arrives, or `timeout` has passed. May return early.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<(), Self::Error>;
    /// After a wait that saw a frame while it was spinning: how long after its beginning that was, as far as
    /// this is known without reading the clock.
    fn looked(&self) -> Option<Duration>;
    /// Begins to spin for at most `span` in all.
    fn begin_spin(&self, span: Duration) -> Self::Spin;
    /// Spins until a frame has arrived, and returns true, or until the time of `spin` is over.
    fn spin(&mut self, spin: &mut Self::Spin) -> bool;
}

/// When the peer was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// There is no session with a peer.
    Never,
    /// So long ago that heartbeats were lost.
    NotRecently,
    /// As recently as its heartbeats are due.
    Recently,
}

/// What an operator orders this host to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// End the VM on both hosts; on a backup, end only this host's part.
    Stop,
    /// End this host's part. A primary hands the VM over if its backup holds the whole VM, and ends the VM
    /// otherwise.
    Leave,
    /// Hand the VM over, and become the backup.
    HandOver,
}

/// The live side of a machine: its network, its console and its clock; and the disks.
pub trait LiveWorld: LiveInputs + DiskCopier {
    /// Returns whether an [order](Order) of the operator waits.
    fn has_order(&self) -> bool;
    /// Takes the order that waits.
    fn take_order(&mut self) -> Option<Order>;
    /// The order that was taken last can't be carried out: this host continues the VM.
    fn order_failed(&mut self);
    /// A region is about to be entered: a guest that makes no exit from here on is kicked in time.
    ///
    /// # Errors
    ///
    /// The timer failed.
    fn entering(&mut self) -> Result<(), Self::Error>;
    /// The guest does not run until the next [`entering`](Self::entering).
    ///
    /// # Errors
    ///
    /// The timer failed.
    fn idle(&mut self) -> Result<(), Self::Error>;
    /// A position was reached.
    fn reached(&mut self);
    /// Returns whether frames can pass between the VM's tap and the LAN, as far as is known. Costs no system
    /// call.
    fn lan_is_up(&self) -> bool;
    /// Returns the next frame that has arrived from the LAN, if there is one.
    ///
    /// # Errors
    ///
    /// The VM's network can no longer be used.
    fn next_frame(&mut self) -> Result<Option<&[u8]>, Self::Error>;
    /// Decides whether a guest that was kicked in mid-region must stop there for an input. `window` says
    /// whether an interrupt window is armed.
    ///
    /// # Errors
    ///
    /// The timer failed.
    fn interrupted(
        &mut self,
        capacity: &DeviceCapacity,
        window: bool,
    ) -> Result<StopAction, Self::Error>;
    /// Returns how long a halted guest may wait, so that its next timer and a stop request are noticed in
    /// time.
    fn wait_max(&mut self, capacity: &DeviceCapacity) -> Duration;
    /// Outputs a byte that the guest wrote to its console. Must not block.
    fn console_output(&mut self, byte: u8);
    /// Queues a frame to the LAN.
    ///
    /// # Errors
    ///
    /// The VM's network can no longer be used.
    fn send(&mut self, frame: &[u8]) -> Result<(), Self::Error>;
    /// Gives the queued frames to the LAN.
    ///
    /// # Errors
    ///
    /// The VM's network can no longer be used.
    fn flush(&mut self) -> Result<(), Self::Error>;
}

/// The threads that ask the witness, whose storage may hang.
pub trait WitnessPort {
    /// Passes `question` on. Returns false if an earlier one is still worked on; a confirmation never delays
    /// another question. Must not block.
    fn try_ask(&mut self, question: Question) -> bool;
    /// Returns the answer to the question that was passed on, and for [`Answer::Unreachable`] the reason.
    fn try_answer(&mut self) -> Option<(Question, Answer, Option<String>)>;
    /// Returns why an answer takes long, if there is another reason than the storage.
    fn delay(&self) -> Option<String> {
        None
    }
}

/// The supervisor: a process that sees this one end, and then sends the death notice that it holds. Nothing
/// here may block: it runs on the vCPU thread.
pub trait SupervisorPort {
    /// Passes on the notice that it is to hold instead of the one before. Returns false if it cannot be passed
    /// on now.
    fn try_hold(&mut self, notice: &DeathNotice) -> bool;
    /// This host's part ends in an orderly way: nothing is to be sent when this process is gone.
    fn stand_down(&mut self);
    /// Returns why the supervisor is gone, once.
    fn poll_lost(&mut self) -> Option<String>;
}

/// A moment in a frame's way through the VM, for the measurement of latencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// An interrupt was injected.
    Injected,
    /// The guest's interrupt handler has acknowledged the NIC's interrupt.
    Served,
    /// The guest has sent a frame.
    Made,
    /// All of the log that an output may wait for was sent.
    LogSent,
    /// The output that was made at this time may leave.
    MayLeave {
        /// When the guest sent it.
        made_at: Time,
    },
    /// The frames that were allowed to leave are on the LAN.
    Left {
        /// No frame waits for an acknowledgement, because the VM has no backup.
        all: bool,
    },
}

/// A measurement of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointMoment {
    /// A checkpoint was sent.
    Sent {
        /// From the vCPU's stop until the state was read.
        capture: Duration,
        /// From the vCPU's stop until all of it was in the channel.
        pause: Duration,
        /// Its pages.
        pages: u64,
    },
    /// The closing checkpoint of a sync was sent.
    SyncClosed {
        /// How long the guest was paused.
        pause: Duration,
    },
    /// The machine has fetched a received checkpoint.
    Fetched,
    /// The machine has applied it.
    Applied,
}

/// Receives what a host's operator and its measurements need. Nothing here may block: it runs on the vCPU
/// thread.
pub trait Observer<H: Host> {
    /// Something has happened that the operator should know of.
    fn notice(&mut self, replica: &Replica, notice: Notice);
    /// A sampled frame passes `moment`. `now` reads the clock, and is called only if it is needed.
    fn frame(&mut self, world: &mut H::World, moment: Moment, now: impl FnOnce() -> Time);
    /// An output was held for `span`.
    fn held(&mut self, span: Duration);
    /// A checkpoint passes `moment`.
    fn checkpoint(&mut self, now: Time, moment: CheckpointMoment);
    /// The driver has done a round of its work: an opportunity to publish the status.
    fn driven(&mut self, now: Time, driver: DriverView<'_, H>);
    /// Returns the likeliest reason why no peer is met, in one line.
    fn why_nobody(&self, link: &mut H::Link, replica: &Replica) -> String;
}

/// What an [`Observer`] may look at.
pub struct DriverView<'a, H: Host> {
    /// The engine.
    pub replica: &'a Replica,
    /// The log link.
    pub link: &'a mut H::Link,
    /// The live side of the machine.
    pub world: &'a H::World,
}
