//! The VM's console output, which is an output of the VM: of the two hosts, only the one that speaks for the VM
//! shows it.
//!
//! | this host | what the guest writes |
//! |---|---|
//! | speaks for the VM: alone, or protected and holding the lease | is shown |
//! | a primary that may not speak now: the lease is over, the VM is handed over, a claim is not answered | waits, and is shown if the host may speak again |
//! | a backup | is dropped: the primary shows it |
//! | halted | is dropped |
//!
//! Unlike a frame, it does not wait for an acknowledgement. So the last bytes that a primary showed before it died
//! may be missing from the console of the host that takes over, or be there twice.

use super::drive::Driver;
use super::host::{Host, LiveWorld};
use crate::limits::CONSOLE_WAITING_BYTES_MAX;
use crate::mutant::DriverMutant;
use crate::replica::RoleName;

impl<H: Host> Driver<H> {
    /// The guest writes a byte to its console.
    pub(super) fn console_byte(&mut self, byte: u8) {
        if self.is_backup() {
            return;
        }
        self.show_console();
        if self.console_waiting.is_empty() && self.may_show_console() {
            self.parts.world.console_output(byte);
        } else if self.console_waiting.len() < CONSOLE_WAITING_BYTES_MAX {
            self.console_waiting.push(byte);
        }
    }

    /// Shows what waits, if this host may speak again, or drops it, if it never will.
    pub(super) fn show_console(&mut self) {
        if self.console_waiting.is_empty() {
            return;
        }
        if self.may_show_console() {
            for byte in self.console_waiting.drain(..) {
                self.parts.world.console_output(byte);
            }
        } else if self.is_backup() || self.parts.replica.role() == RoleName::Halted {
            self.console_waiting.clear();
        }
    }

    fn may_show_console(&self) -> bool {
        self.parts.replica.speaks(self.now()) || self.has(DriverMutant::ShowConsoleWithoutRight)
    }
}
