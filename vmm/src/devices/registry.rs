//! Everything that follows from the list of devices in [`super`]: the structs that hold them, their state
//! and their counters; and the functions that select a device.
//!
//! A selection is a chain of comparisons with constants. It allocates nothing and calls through no
//! pointer.

use super::device::Line;
use super::pci::Identity;

/// Defines [`super::Devices`], [`super::DevicesState`] and [`super::DeviceCounters`].
///
/// The order of the devices is the order of their states as bytes, and the order in which they are asked.
macro_rules! devices {
    (
        ports {$(
            $port:ident::$Port:ident $(, counters $PortCounters:ident)?;
        )*}
        functions {$(
            $module:ident {$(
                $function:ident: $Function:ident $(, counters $FunctionCounters:ident)?;
            )*}
        )*}
    ) => {
        $(mod $port;)*
        $(mod $module;)*

        $(use $port::{$Port $(, $PortCounters)?};)*

        /// All devices. Owned by the vCPU thread.
        #[derive(Debug)]
        pub struct Devices {
            /// Guest time as read or received last, nanoseconds.
            now_ns: u64,
            $($port: $Port,)*
            $($($function: $module::$Function,)*)*
            /// Interrupt windows are enabled.
            irq_windows: bool,
            unclaimed: BusCounters,
        }

        /// The state outside the vCPU and guest memory that decides what the guest sees next.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub(crate) struct DevicesState {
            /// Guest time as read or received last, nanoseconds.
            pub(crate) now_ns: u64,
            $(pub(crate) $port: <$Port as Device>::State,)*
            $($(pub(crate) $function: <$module::$Function as Device>::State,)*)*
            /// Interrupt windows are enabled. This is not a device's state but the machine's. It is here
            /// because a replay and a backup must do the same as the recording.
            pub(crate) irq_windows: bool,
        }

        /// All counters since the devices were created or restored.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct DeviceCounters {
            /// Accesses that no device claims.
            pub bus: BusCounters,
            $($(
                #[doc = concat!("Counters of `", stringify!($port), "`.")]
                pub $port: $PortCounters,
            )?)*
            $($($(
                #[doc = concat!("Counters of `", stringify!($function), "`.")]
                pub $function: $module::$FunctionCounters,
            )?)*)*
        }

        /// The PCI functions.
        const FUNCTIONS: &[&Identity] = &[$($(<$module::$Function as PciDevice>::IDENTITY,)*)*];
        const _: () = registry::check(
            &[$(<$Port as Device>::LINE,)* $($(<$module::$Function as Device>::LINE,)*)*],
            FUNCTIONS,
        );

        impl Devices {
            fn power_on(config: &DeviceConfig) -> Self {
                Self {
                    now_ns: 0,
                    $($port: Device::power_on(config),)*
                    $($($function: Device::power_on(config),)*)*
                    irq_windows: true,
                    unclaimed: BusCounters::default(),
                }
            }

            /// Sets the state in which a PC's firmware leaves the devices before it starts a kernel.
            pub(crate) fn act_as_firmware(&mut self) {
                $(self.$port.act_as_firmware(self.now_ns);)*
                $($(self.$function.act_as_firmware(self.now_ns);)*)*
            }

            /// Advances the time of all devices; timers that are due fire. A value from the past, which no
            /// boundary returns, has no effect.
            fn advance_time(&mut self, now_ns: u64) {
                self.now_ns = self.now_ns.max(now_ns);
                $(
                    let signal = self.$port.advance(self.now_ns);
                    self.pic.drive(<$Port as Device>::LINE, signal);
                )*
                $($(
                    let signal = self.$function.advance(self.now_ns);
                    self.pic.drive(<$module::$Function as Device>::LINE, signal);
                )*)*
            }

            /// Passes an input other than the time to the device that takes it.
            fn accept(&mut self, input: Input<'_>, ram: &GuestRam) {
                $(if let Some(signal) = self.$port.accept(input, ram) {
                    return self.pic.drive(<$Port as Device>::LINE, signal);
                })*
                $($(if let Some(signal) = self.$function.accept(input, ram) {
                    return self.pic.drive(<$module::$Function as Device>::LINE, signal);
                })*)*
            }

            /// Returns which inputs the devices can accept now.
            pub fn capacity(&self, ram: &GuestRam) -> DeviceCapacity {
                let mut capacity = DeviceCapacity::default();
                $(
                    capacity.timer_ns = registry::earlier(capacity.timer_ns, self.$port.next_timer_ns());
                    self.$port.add_capacity(&mut capacity, ram);
                )*
                $($(
                    capacity.timer_ns = registry::earlier(capacity.timer_ns, self.$function.next_timer_ns());
                    self.$function.add_capacity(&mut capacity, ram);
                )*)*
                capacity
            }

            /// Reads the register to which `data` at `port` belongs. Returns how many bytes of `data` it
            /// takes, or `None` if no device claims the access.
            fn read_claimed(
                &mut self,
                port: u16,
                data: &mut [u8],
                exit: &mut Exit<'_>,
            ) -> Result<Option<usize>, SourceError> {
                $(if let Some(register) = <$Port as PortDevice>::decode(port, data.len()) {
                    let taken = <$Port as PortDevice>::WIDTH.bytes(data.len());
                    let data = &mut data[..taken];
                    self.read_register(|devices| &mut devices.$port, register, data, exit)?;
                    return Ok(Some(taken));
                })*
                Ok(None)
            }

            /// Writes the register to which `data` at `port` belongs. Returns how many bytes of `data` it
            /// takes, or `None` if no device claims the access.
            fn write_claimed(
                &mut self,
                port: u16,
                data: &[u8],
                exit: &mut Exit<'_>,
            ) -> Result<Option<usize>, SourceError> {
                $(if let Some(register) = <$Port as PortDevice>::decode(port, data.len()) {
                    let taken = <$Port as PortDevice>::WIDTH.bytes(data.len());
                    let data = &data[..taken];
                    self.write_register(|devices| &mut devices.$port, register, data, exit)?;
                    return Ok(Some(taken));
                })*
                Ok(None)
            }

            /// Reads configuration registers of the function in `slot`. Returns false if there is none.
            fn read_function(&mut self, slot: u8, register: u8, data: &mut [u8]) -> bool {
                $($(if slot == <$module::$Function as PciDevice>::IDENTITY.slot
                    && self.$function.is_present()
                {
                    self.$function.config_read(register, data);
                    return true;
                })*)*
                false
            }

            /// Writes configuration registers of the function in `slot`. Returns false if there is none.
            fn write_function(&mut self, slot: u8, register: u8, data: &[u8]) -> bool {
                $($(if slot == <$module::$Function as PciDevice>::IDENTITY.slot
                    && self.$function.is_present()
                {
                    self.$function.config_write(register, data);
                    let inta = Signal::Level(self.$function.inta());
                    self.pic.drive(<$module::$Function as Device>::LINE, inta);
                    return true;
                })*)*
                false
            }

            /// Performs one read of `data.len()` bytes (1, 2, 4 or 8) from memory that is not RAM. Where
            /// windows overlap, the first function wins.
            pub fn mmio_read(&mut self, address: u64, data: &mut [u8], access: &mut Access<'_>) {
                $($(if let Some(offset) =
                    self.$function.window().and_then(|w| w.offset_of(address, data.len()))
                {
                    self.$function.read_window(offset, data, access);
                    let inta = Signal::Level(self.$function.inta());
                    return self.pic.drive(<$module::$Function as Device>::LINE, inta);
                })*)*
                data.fill(0xFF);
                self.unclaimed.memory_reads += 1;
            }

            /// Performs one write of `data.len()` bytes (1, 2, 4 or 8) to memory that is not RAM.
            ///
            /// # Errors
            ///
            /// The boundary failed or found a divergence.
            pub fn mmio_write(
                &mut self,
                address: u64,
                data: &[u8],
                access: &mut Access<'_>,
            ) -> Result<(), SourceError> {
                $($(if let Some(offset) =
                    self.$function.window().and_then(|w| w.offset_of(address, data.len()))
                {
                    self.$function.write_window(offset, data, access)?;
                    let inta = Signal::Level(self.$function.inta());
                    self.pic.drive(<$module::$Function as Device>::LINE, inta);
                    return Ok(());
                })*)*
                self.unclaimed.memory_writes += 1;
                Ok(())
            }

            /// Returns the interrupt lines of the functions that exist.
            fn function_lines(&self) -> impl Iterator<Item = Line> {
                let lines = [$($(
                    <$module::$Function as Device>::LINE.filter(|_| self.$function.is_present()),
                )*)*];
                lines.into_iter().flatten()
            }

            /// Goes on with what devices had to leave when their own bounds were reached. Call it after an input of a
            /// disk, at the same position.
            ///
            /// # Errors
            ///
            /// The boundary failed or found a divergence.
            pub fn resume(&mut self, access: &mut Access<'_>) -> Result<(), SourceError> {
                $($(if self.$function.resume(access)? {
                    let inta = Signal::Level(self.$function.inta());
                    self.pic.drive(<$module::$Function as Device>::LINE, inta);
                })*)*
                Ok(())
            }

            /// Passes the requests in flight to a boundary that does not know them, because it has not run the machine
            /// that made them.
            ///
            /// # Errors
            ///
            /// The boundary failed, or guest memory does not have the requests any more.
            pub(crate) fn reissue(&mut self, access: &mut Access<'_>) -> Result<(), ReissueError> {
                $($(self.$function.reissue(access)?;)*)*
                Ok(())
            }

            /// Returns the complete state.
            pub(crate) fn save(&self) -> DevicesState {
                DevicesState {
                    now_ns: self.now_ns,
                    $($port: Device::save(&self.$port),)*
                    $($($function: Device::save(&self.$function),)*)*
                    irq_windows: self.irq_windows,
                }
            }

            /// Returns devices in a saved state, with all counters at zero.
            ///
            /// # Errors
            ///
            /// The state is not one that the devices can be in.
            pub(crate) fn restore(state: DevicesState) -> Result<Self, RestoreError> {
                let DevicesState { now_ns, $($port,)* $($($function,)*)* irq_windows } = state;
                Ok(Self {
                    now_ns,
                    $($port: Device::restore($port)?,)*
                    $($($function: Device::restore($function)?,)*)*
                    irq_windows,
                    unclaimed: BusCounters::default(),
                })
            }

            /// Returns the event counts since the devices were created or restored.
            pub fn counters(&self) -> DeviceCounters {
                DeviceCounters {
                    bus: self.unclaimed,
                    $($($port: identity::<$PortCounters>(self.$port.counters()),)?)*
                    $($($($function: identity::<$module::$FunctionCounters>(self.$function.counters()),)?)*)*
                }
            }

            /// Returns the names of the devices on the port bus that claim an access.
            #[cfg(test)]
            fn claimants(port: u16, bytes: usize) -> Vec<&'static str> {
                let claims = [$(
                    <$Port as PortDevice>::decode(port, bytes).map(|_| <$Port as Device>::NAME),
                )*];
                claims.into_iter().flatten().collect()
            }
        }
    };
}

pub(super) use devices;

/// Returns the earlier of two times.
#[inline]
pub(super) fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Checks that no two devices have the same interrupt line and no two functions the same device number.
pub(super) const fn check(lines: &[Option<Line>], functions: &[&Identity]) {
    let (mut used_lines, mut used_slots) = (0u16, 0u32);
    let mut index = 0;
    while index < lines.len() {
        if let Some(line) = lines[index] {
            let bit = 1 << line.number();
            assert!(used_lines & bit == 0, "two devices drive one interrupt line");
            used_lines |= bit;
        }
        index += 1;
    }
    let mut index = 0;
    while index < functions.len() {
        let bit = 1 << functions[index].slot;
        assert!(used_slots & bit == 0, "two functions have one device number");
        used_slots |= bit;
        index += 1;
    }
}
