//! State of the UART: that of vm-superio's model, in a serializable form.

use serde::{Deserialize, Serialize};
use vm_superio::SerialState;

/// Registers and receive FIFO of the 16550.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UartState {
    /// DLL.
    pub(crate) divisor_low: u8,
    /// DLM.
    pub(crate) divisor_high: u8,
    /// IER.
    pub(crate) interrupt_enable: u8,
    /// IIR.
    pub(crate) interrupt_identification: u8,
    /// LCR.
    pub(crate) line_control: u8,
    /// LSR.
    pub(crate) line_status: u8,
    /// MCR.
    pub(crate) modem_control: u8,
    /// MSR.
    pub(crate) modem_status: u8,
    /// SCR.
    pub(crate) scratch: u8,
    /// Bytes that were received but not read, oldest first.
    pub(crate) received: Vec<u8>,
}

impl From<SerialState> for UartState {
    fn from(s: SerialState) -> Self {
        Self {
            divisor_low: s.baud_divisor_low,
            divisor_high: s.baud_divisor_high,
            interrupt_enable: s.interrupt_enable,
            interrupt_identification: s.interrupt_identification,
            line_control: s.line_control,
            line_status: s.line_status,
            modem_control: s.modem_control,
            modem_status: s.modem_status,
            scratch: s.scratch,
            received: s.in_buffer,
        }
    }
}

impl From<UartState> for SerialState {
    fn from(s: UartState) -> Self {
        Self {
            baud_divisor_low: s.divisor_low,
            baud_divisor_high: s.divisor_high,
            interrupt_enable: s.interrupt_enable,
            interrupt_identification: s.interrupt_identification,
            line_control: s.line_control,
            line_status: s.line_status,
            modem_control: s.modem_control,
            modem_status: s.modem_status,
            scratch: s.scratch,
            in_buffer: s.received,
        }
    }
}
