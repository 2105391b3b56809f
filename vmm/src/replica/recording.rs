//! The answers on a primary: each comes from the world. While there is a backup, it is appended to the log
//! before the guest or the LAN sees it.

use super::checkpoint_send::CLOCK_ENTRY_BYTES_MAX;
use super::engine::Replica;
use super::mutant::Mutant;
use super::role::{Primary, Role};
use super::step::{Step, World};
use crate::replay::boundary::{DeviceCapacity, Input, Position};
use logchan::entry::Entry;
use logchan::ids::Lane;
use logchan::limits::{CONSOLE_BYTES_MAX, FRAME_BYTES_MAX};
use logchan::time::Time;
use xxhash_rust::xxh3::xxh3_64;

/// Upper bound for an entry without a body of variable length, bytes.
const SMALL_ENTRY_BYTES_MAX: usize = 32;

/// Largest entry of an input, bytes.
const INPUT_ENTRY_BYTES_MAX: usize =
    1 + 3 + if FRAME_BYTES_MAX > CONSOLE_BYTES_MAX { FRAME_BYTES_MAX } else { CONSOLE_BYTES_MAX };

impl Replica {
    /// Returns whether entries are logged: there is a backup.
    fn is_logging(&self) -> bool {
        match &self.role {
            Role::Primary(Primary::Protected(_)) => true,
            Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => false,
        }
    }

    /// Returns whether an entry of `bytes` bytes can be logged now; true if nothing is logged.
    fn can_log(&self, bytes: usize) -> bool {
        !self.is_logging() || self.has_room(Lane::Latency, bytes)
    }

    /// Logs `entry` if there is a backup.
    fn log(&mut self, now: Time, entry: &Entry<'_>) {
        if self.is_logging() {
            self.append(now, Lane::Latency, entry);
        }
    }

    /// Returns the entry that advances the log's clock to `now_ns`.
    fn clock_entry(&mut self, now_ns: u64) -> Entry<'static> {
        let advance_ns = match self.is_logging() {
            true => now_ns.checked_sub(self.clock_ns).expect("guest time never goes back"),
            false => 0,
        };
        self.clock_ns = now_ns;
        Entry::Clock { advance_ns }
    }

    pub(super) fn record_position(
        &mut self,
        now: Time,
        position: Position,
        digest: u64,
    ) -> Step<()> {
        if !self.can_log(SMALL_ENTRY_BYTES_MAX) {
            return Step::Pending;
        }
        let entry = match position {
            Position::Exit => Entry::Exit { digest, registers: None },
            Position::UserWindow => Entry::UserWindow { digest },
        };
        self.log(now, &entry);
        Step::Ready(())
    }

    pub(super) fn record_clock<W: World>(
        &mut self,
        now: Time,
        world: &mut W,
    ) -> Result<Step<u64>, W::Error> {
        if !self.can_log(CLOCK_ENTRY_BYTES_MAX) {
            return Ok(Step::Pending);
        }
        let now_ns = world.clock_ns()?;
        let entry = self.clock_entry(now_ns);
        self.log(now, &entry);
        Ok(Step::Ready(now_ns))
    }

    pub(super) fn record_wall_clock<W: World>(
        &mut self,
        now: Time,
        world: &mut W,
    ) -> Result<Step<u64>, W::Error> {
        if !self.can_log(SMALL_ENTRY_BYTES_MAX) {
            return Ok(Step::Pending);
        }
        let unix_ns = world.wall_clock_ns()?;
        self.log(now, &Entry::WallClock { unix_ns });
        Ok(Step::Ready(unix_ns))
    }

    pub(super) fn record_entropy<W: World>(
        &mut self,
        now: Time,
        world: &mut W,
        bytes: &mut [u8],
    ) -> Result<Step<()>, W::Error> {
        if !self.can_log(SMALL_ENTRY_BYTES_MAX + bytes.len()) {
            return Ok(Step::Pending);
        }
        world.entropy(bytes)?;
        self.log(now, &Entry::Entropy(bytes));
        Ok(Step::Ready(()))
    }

    pub(super) fn record_output(&mut self, now: Time, frame: &[u8]) -> Step<()> {
        if !self.hold.room_for(frame.len()) {
            if self.is_blocked() && !self.planted(Mutant::WaitWhileBlocked) {
                // The held outputs leave when a backup holds the VM, and its sync is completed at a position.
                // An exit that waited here for room would never reach that position, so the frame is dropped.
                // To the LAN, it is a lost frame.
                self.stats.outputs_dropped += 1;
                self.addresses.learn(frame);
                return Step::Ready(());
            }
            self.stats.hold_waits += 1;
            return Step::Pending;
        }
        if !self.can_log(SMALL_ENTRY_BYTES_MAX) {
            return Step::Pending;
        }
        let length = u32::try_from(frame.len()).expect("a frame is short");
        self.log(now, &Entry::Output { length, digest: xxh3_64(frame) });
        if self.is_logging()
            && let Some(channel) = self.channel()
        {
            self.watermark = self.log_base + channel.appended(Lane::Latency).0;
        }
        let release_at = if self.is_logging() { self.release_at(now) } else { self.watermark };
        self.hold_output(now, release_at, frame);
        Step::Ready(())
    }

    /// Puts `frame` into the hold queue, which must have room for it.
    pub(super) fn hold_output(&mut self, now: Time, release_at: u64, frame: &[u8]) {
        self.addresses.learn(frame);
        self.hold.push(release_at, self.watermark, now.as_nanos(), frame).expect("there was room");
    }

    pub(super) fn can_record_input(&self) -> Step<()> {
        if self.can_log(INPUT_ENTRY_BYTES_MAX) { Step::Ready(()) } else { Step::Pending }
    }

    pub(super) fn record_input<W: World>(
        &mut self,
        now: Time,
        world: &mut W,
        capacity: &DeviceCapacity,
    ) -> Result<Step<Option<Input<'_>>>, W::Error> {
        if !self.can_log(INPUT_ENTRY_BYTES_MAX) {
            return Ok(Step::Pending);
        }
        let (is_frame, length) = match world.next_input(capacity)? {
            None => return Ok(Step::Ready(None)),
            Some(Input::Clock { now_ns }) => {
                let entry = self.clock_entry(now_ns);
                self.log(now, &entry);
                return Ok(Step::Ready(Some(Input::Clock { now_ns })));
            }
            Some(Input::Frame(frame)) => {
                self.log(now, &Entry::Frame(frame));
                self.input[..frame.len()].copy_from_slice(frame);
                (true, frame.len())
            }
            Some(Input::Console(bytes)) => {
                self.log(now, &Entry::Console(bytes));
                self.input[..bytes.len()].copy_from_slice(bytes);
                (false, bytes.len())
            }
        };
        let bytes = &self.input[..length];
        Ok(Step::Ready(Some(if is_frame { Input::Frame(bytes) } else { Input::Console(bytes) })))
    }

    pub(super) fn record_interrupt(&mut self, now: Time, vector: u8) -> Step<()> {
        if !self.can_log(SMALL_ENTRY_BYTES_MAX) {
            return Step::Pending;
        }
        self.log(now, &Entry::Interrupt { vector });
        Step::Ready(())
    }
}
