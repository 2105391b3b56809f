//! The vCPU: running it, reading the run page, saving and restoring its state.

use super::canonical;
use super::caps::SYNC_REGS_ALL;
use super::error::KvmError;
use super::exit::{Direction, ExitClass, VmExit};
use super::kick;
use super::state::{self, GUEST_MSRS, VcpuState};
use crate::boot::pvh::InitialState;
use kvm_bindings::{
    CpuId, KVM_EXIT_FAIL_ENTRY, KVM_EXIT_HLT, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_IO,
    KVM_EXIT_IO_OUT, KVM_EXIT_IRQ_WINDOW_OPEN, KVM_EXIT_MMIO, KVM_EXIT_SET_TPR, KVM_EXIT_SHUTDOWN,
    KVM_MAX_CPUID_ENTRIES, KVM_SYNC_X86_REGS, KVM_VCPUEVENT_VALID_PAYLOAD, Msrs, kvm_cpuid_entry2,
    kvm_interrupt, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xsave,
};
use kvm_ioctls::VcpuFd;
use std::os::fd::AsRawFd;

/// Vector of #BP (INT3), the only exception used here that KVM treats as a software exception.
const BREAKPOINT: u8 = 3;
/// Global pages enabled, XSAVE enabled (SDM vol. 3, 2.5).
const CR4_PGE: u64 = 1 << 7;
const CR4_OSXSAVE: u64 = 1 << 18;

/// `_IOC_TYPE` of all KVM ioctls.
const KVMIO: u8 = 0xAE;
nix::ioctl_write_ptr!(
    /// `KVM_INTERRUPT` (api.rst 4.16).
    kvm_interrupt_ioctl,
    KVMIO,
    0x86,
    kvm_interrupt
);

/// The registers that the run page contains at every exit without an ioctl (`KVM_CAP_SYNC_REGS`), in
/// canonical form.
#[derive(Clone, Copy, Debug)]
pub struct SyncRegs<'a> {
    /// General registers.
    pub regs: &'a kvm_regs,
    /// Segments and control registers.
    pub sregs: &'a kvm_sregs,
    /// Pending events.
    pub events: &'a kvm_vcpu_events,
}

/// A vCPU. While the run loop runs it, only that loop's thread may use it.
#[derive(Debug)]
pub struct Vcpu {
    fd: VcpuFd,
    /// Those of `GUEST_MSRS` that can be read on this host.
    msrs: Vec<u32>,
    /// See [`canonical::msrs`].
    pub(super) sysenter_mask: u64,
    /// RFLAGS.IF at the last exit or of the last restored state.
    if_flag: bool,
    /// Whether an interrupt can be injected if `if_flag` is set: see [`Vcpu::run`], or from the last restored state.
    ready: bool,
    /// RIP after a software exception that KVM may not have delivered yet.
    undelivered: Option<u64>,
}

impl Vcpu {
    pub(super) fn new(
        mut fd: VcpuFd,
        cpuid: &[kvm_cpuid_entry2],
        supported_msrs: &[u32],
    ) -> Result<Vcpu, KvmError> {
        let table = CpuId::from_entries(cpuid).map_err(|_| KvmError::State {
            what: format!("a CPU model of {} CPUID entries is too large", cpuid.len()),
        })?;
        fd.set_cpuid2(&table).map_err(KvmError::call("KVM_SET_CPUID2"))?;
        fd.get_kvm_run().kvm_valid_regs = SYNC_REGS_ALL as u64;
        let mut vcpu = Vcpu {
            fd,
            msrs: Vec::new(),
            sysenter_mask: u64::MAX,
            if_flag: false,
            ready: false,
            undelivered: None,
        };
        for &index in GUEST_MSRS.iter().filter(|index| supported_msrs.contains(index)) {
            // Some listed MSRs can't be read on some hosts; KVM_GET_MSRS then returns 0.
            if vcpu.read_msrs(&[index]).is_ok() {
                vcpu.msrs.push(index);
            }
        }
        vcpu.sysenter_mask = vcpu.settable_sysenter_bits()?;
        Ok(vcpu)
    }

    /// Returns the bits of SYSENTER_ESP that KVM keeps: sets all bits, reads the MSR, and restores it.
    fn settable_sysenter_bits(&self) -> Result<u64, KvmError> {
        let [index, _eip] = canonical::SYSENTER_ADDRESSES;
        if !self.msrs.contains(&index) {
            return Ok(u64::MAX);
        }
        let before = self.read_msrs(&[index])?;
        self.write_msrs(&[kvm_msr_entry { data: u64::MAX, ..before[0] }])?;
        let bits = self.read_msrs(&[index])?[0].data;
        self.write_msrs(&before)?;
        Ok(bits)
    }

    /// Makes kicks of the calling thread reach this vCPU, until the guard is dropped.
    ///
    /// # Errors
    ///
    /// If the run page cannot be mapped.
    pub(crate) fn adopt(&self) -> Result<kick::Aim, KvmError> {
        kick::Aim::new(&self.fd)
    }

    /// Runs the guest until the next exit. Requests an interrupt window exit if `window` is set.
    ///
    /// Whether an interrupt can be injected after a natural exit follows from the events that are compared there
    /// (`canonical::accepts_interrupt_at_exit`), after any other exit from the run page.
    ///
    /// # Errors
    ///
    /// If `KVM_RUN` fails with another error than EINTR.
    pub fn run(&mut self, window: bool) -> Result<VmExit, KvmError> {
        let run = self.fd.get_kvm_run();
        run.request_interrupt_window = u8::from(window);
        let result = self.fd.run().map(|_exit| ());
        let run = self.fd.get_kvm_run();
        self.if_flag = run.if_flag != 0;
        self.ready = run.ready_for_interrupt_injection != 0;
        // SAFETY: as in `sync_regs`. KVM reads back only the sets named in `kvm_dirty_regs`, which never
        // include these two.
        let sync = unsafe { &mut run.s.regs };
        canonical::sregs(&mut sync.sregs);
        canonical::events(&mut sync.events);
        let rip = sync.regs.rip;
        if self.undelivered != Some(rip) {
            self.undelivered = None;
        }
        match result {
            Ok(()) => {
                let exit = self.read_exit();
                if exit.class() == ExitClass::Natural {
                    self.undelivered = None;
                    self.ready = canonical::accepts_interrupt_at_exit(self.sync_regs().events);
                }
                Ok(exit)
            }
            Err(error) if error.errno() == libc::EINTR => {
                run.immediate_exit = 0;
                Ok(VmExit::Interrupted)
            }
            Err(source) => Err(KvmError::Call { call: "KVM_RUN", source }),
        }
    }

    /// Completes the instruction of the last exit (the result of an IN, an emulated instruction) without
    /// running guest code after it. Usually returns [`VmExit::Interrupted`]. Completing an instruction may
    /// cause another natural exit, which is returned and must be handled like any other.
    ///
    /// # Errors
    ///
    /// As [`Vcpu::run`].
    pub fn drain(&mut self) -> Result<VmExit, KvmError> {
        self.fd.set_kvm_immediate_exit(1);
        let exit = self.run(false);
        self.fd.set_kvm_immediate_exit(0);
        exit
    }

    fn read_exit(&mut self) -> VmExit {
        let run = self.fd.get_kvm_run();
        let reason = run.exit_reason;
        let union = &run.__bindgen_anon_1;
        match reason {
            KVM_EXIT_IO => {
                // SAFETY: rule 3.
                let io = unsafe { union.io };
                let out = u32::from(io.direction) == KVM_EXIT_IO_OUT;
                let direction = if out { Direction::Out } else { Direction::In };
                VmExit::Pio { direction, port: io.port, size: io.size, count: io.count }
            }
            KVM_EXIT_MMIO => {
                // SAFETY: rule 3.
                let mmio = unsafe { union.mmio };
                let direction = if mmio.is_write != 0 { Direction::Out } else { Direction::In };
                let length = mmio.len as u8;
                assert!((1..=8).contains(&length), "KVM reports an MMIO of {length} bytes");
                let mut data = [0; 8];
                if direction == Direction::Out {
                    let n = usize::from(length);
                    data[..n].copy_from_slice(&mmio.data[..n]);
                }
                VmExit::Mmio { direction, address: mmio.phys_addr, length, data }
            }
            KVM_EXIT_HLT => VmExit::Halt,
            KVM_EXIT_SET_TPR => VmExit::SetTpr,
            KVM_EXIT_IRQ_WINDOW_OPEN => VmExit::IrqWindow,
            KVM_EXIT_SHUTDOWN => VmExit::Shutdown,
            KVM_EXIT_INTERNAL_ERROR => {
                // SAFETY: rule 3.
                VmExit::InternalError { suberror: unsafe { union.internal.suberror } }
            }
            KVM_EXIT_FAIL_ENTRY => {
                // SAFETY: rule 3.
                let reason = unsafe { union.fail_entry.hardware_entry_failure_reason };
                VmExit::EntryFailed { reason }
            }
            reason => VmExit::Unknown { reason },
        }
    }

    /// Returns the data of the last exit, which must be a [`VmExit::Pio`]: `size * count` bytes, to read for
    /// OUT and to fill for IN.
    ///
    /// # Panics
    ///
    /// If the last exit was another one.
    pub fn pio_data(&mut self) -> &mut [u8] {
        let run = self.fd.get_kvm_run();
        assert_eq!(run.exit_reason, KVM_EXIT_IO, "port data exists at a port exit only");
        // SAFETY: rule 3, by the assertion.
        let io = unsafe { run.__bindgen_anon_1.io };
        let length = usize::from(io.size) * io.count as usize;
        let start = std::ptr::from_mut(run).cast::<u8>();
        // SAFETY: KVM places the data inside the mapping of the run page (api.rst 5, KVM_EXIT_IO),
        // which the borrow of `self` keeps alive and exclusive (rule 2).
        unsafe { std::slice::from_raw_parts_mut(start.add(io.data_offset as usize), length) }
    }

    /// Answers the read of the last exit, which must be a [`VmExit::Mmio`].
    ///
    /// # Panics
    ///
    /// If the last exit was another one.
    pub fn answer_mmio(&mut self, data: [u8; 8]) {
        let run = self.fd.get_kvm_run();
        assert_eq!(run.exit_reason, KVM_EXIT_MMIO, "an MMIO answer follows an MMIO exit only");
        run.__bindgen_anon_1.mmio.data = data;
    }

    /// Answers a 32-bit IN, the last exit, with the result of RDTSC: sets EDX:EAX to `value`.
    pub fn answer_time_stamp(&mut self, value: u64) {
        self.answer_in(value as u32, |regs| regs.rdx = value >> 32);
    }

    /// Answers a 32-bit IN, the last exit, with the result of CPUID: sets EAX, EBX, ECX and EDX.
    pub fn answer_identification(&mut self, [eax, ebx, ecx, edx]: [u32; 4]) {
        self.answer_in(eax, |regs| {
            (regs.rbx, regs.rcx, regs.rdx) = (ebx.into(), ecx.into(), edx.into());
        });
    }

    /// Answers an IN and changes more registers than EAX. Some KVMs discard the data of an IN if registers
    /// are set before it is completed, others use it. Therefore EAX is set both in the data and in the
    /// registers.
    fn answer_in(&mut self, eax: u32, others: impl FnOnce(&mut kvm_regs)) {
        self.pio_data().copy_from_slice(&eax.to_le_bytes());
        let run = self.fd.get_kvm_run();
        // SAFETY: as in `sync_regs`.
        let regs = unsafe { &mut run.s.regs.regs };
        regs.rax = eax.into();
        others(regs);
        run.kvm_dirty_regs |= u64::from(KVM_SYNC_X86_REGS);
    }

    /// Lets the guest continue at `rip`, and injects `exception` (without error code) if there is one. The
    /// instruction of the last exit must be complete (see [`Vcpu::drain`]).
    ///
    /// # Errors
    ///
    /// If a KVM call fails.
    pub fn continue_at(&mut self, rip: u64, exception: Option<u8>) -> Result<(), KvmError> {
        let mut regs = *self.sync_regs().regs;
        regs.rip = rip;
        self.fd.set_regs(&regs).map_err(KvmError::call("KVM_SET_REGS"))?;
        if let Some(vector) = exception {
            let mut events =
                self.fd.get_vcpu_events().map_err(KvmError::call("KVM_GET_VCPU_EVENTS"))?;
            events.flags &= !KVM_VCPUEVENT_VALID_PAYLOAD;
            events.exception.injected = 1;
            events.exception.pending = 0;
            events.exception.nr = vector;
            events.exception.has_error_code = 0;
            self.fd.set_vcpu_events(&events).map_err(KvmError::call("KVM_SET_VCPU_EVENTS"))?;
        }
        self.undelivered = (exception == Some(BREAKPOINT)).then_some(rip);
        Ok(())
    }

    /// Returns whether the vCPU may hold a breakpoint exception that was not delivered yet. A saved state
    /// would lack it: KVM_GET_VCPU_EVENTS does not report software exceptions, and RIP is after the
    /// instruction already. Also returns true if the guest has come back to the same RIP since, where it is
    /// not necessary.
    pub fn holds_soft_exception(&self) -> bool {
        self.undelivered.is_some()
    }

    /// Returns the x87 status word.
    ///
    /// # Errors
    ///
    /// If `KVM_GET_FPU` fails.
    pub fn fpu_status(&self) -> Result<u32, KvmError> {
        let fpu = self.fd.get_fpu().map_err(KvmError::call("KVM_GET_FPU"))?;
        Ok(fpu.fsw.into())
    }

    /// Returns the registers at the last exit.
    pub fn sync_regs(&mut self) -> SyncRegs<'_> {
        // SAFETY: the sync area is plain data that KVM filled at the exit (kvm_valid_regs is set
        // from the start), and it is ours until the next run (rule 2).
        let sync = unsafe { &self.fd.get_kvm_run().s.regs };
        SyncRegs { regs: &sync.regs, sregs: &sync.sregs, events: &sync.events }
    }

    /// Returns whether an interrupt can be injected here, at the last exit or in the last restored state.
    pub fn injectable(&self) -> bool {
        self.if_flag && self.ready
    }

    /// Returns RFLAGS.IF at the last exit.
    pub fn interrupts_enabled(&self) -> bool {
        self.if_flag
    }

    /// Returns the privilege level at the last exit: SS.DPL (SDM vol. 3, 5.5).
    pub fn privilege_level(&mut self) -> u8 {
        self.sync_regs().sregs.ss.dpl
    }

    /// Injects an external interrupt at the next entry.
    ///
    /// # Errors
    ///
    /// If `KVM_INTERRUPT` fails.
    ///
    /// # Panics
    ///
    /// If the vCPU is not [injectable](Vcpu::injectable).
    pub fn inject(&mut self, vector: u8) -> Result<(), KvmError> {
        assert!(self.injectable(), "injection outside an injection position");
        let interrupt = kvm_interrupt { irq: u32::from(vector) };
        // SAFETY: KVM_INTERRUPT reads one kvm_interrupt from a valid reference (api.rst 4.16).
        unsafe { kvm_interrupt_ioctl(self.fd.as_raw_fd(), &raw const interrupt) }.map_err(
            |errno| KvmError::Call {
                call: "KVM_INTERRUPT",
                source: kvm_ioctls::Error::new(errno as i32),
            },
        )?;
        self.ready = false;
        Ok(())
    }

    /// Sets the registers with which a guest starts. Everything else keeps its reset value.
    ///
    /// # Errors
    ///
    /// If a KVM call fails.
    pub fn start_at(&mut self, initial: &InitialState) -> Result<(), KvmError> {
        let mut sregs = self.fd.get_sregs().map_err(KvmError::call("KVM_GET_SREGS"))?;
        initial.apply(&mut sregs);
        self.fd.set_sregs(&sregs).map_err(KvmError::call("KVM_SET_SREGS"))?;
        self.fd.set_regs(&initial.regs).map_err(KvmError::call("KVM_SET_REGS"))
    }

    /// Returns the events as KVM reports them, not in canonical form, for probes.
    pub(super) fn raw_events(&self) -> Result<kvm_vcpu_events, KvmError> {
        self.fd.get_vcpu_events().map_err(KvmError::call("KVM_GET_VCPU_EVENTS"))
    }

    /// Returns the system registers as KVM reports them, not in canonical form, for probes.
    pub(super) fn raw_sregs(&self) -> Result<kvm_sregs, KvmError> {
        self.fd.get_sregs().map_err(KvmError::call("KVM_GET_SREGS"))
    }

    /// Sets the system registers and nothing else, for probes.
    pub(super) fn set_raw_sregs(&self, sregs: &kvm_sregs) -> Result<(), KvmError> {
        self.fd.set_sregs(sregs).map_err(KvmError::call("KVM_SET_SREGS"))
    }

    /// Returns the guest's XCR0.
    ///
    /// # Errors
    ///
    /// If `KVM_GET_XCRS` fails.
    pub fn xcr0(&self) -> Result<u64, KvmError> {
        let xcrs = self.fd.get_xcrs().map_err(KvmError::call("KVM_GET_XCRS"))?;
        Ok(state::xcr0(&xcrs))
    }

    /// Returns the CPUID table of the vCPU as KVM keeps it, which may differ from what it was given.
    ///
    /// # Errors
    ///
    /// If `KVM_GET_CPUID2` fails.
    pub fn shown_cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>, KvmError> {
        let table = self.fd.get_cpuid2(KVM_MAX_CPUID_ENTRIES);
        Ok(table.map_err(KvmError::call("KVM_GET_CPUID2"))?.as_slice().to_vec())
    }

    fn read_msrs(&self, indices: &[u32]) -> Result<Vec<kvm_msr_entry>, KvmError> {
        let wanted: Vec<_> =
            indices.iter().map(|&index| kvm_msr_entry { index, ..Default::default() }).collect();
        let mut msrs = Msrs::from_entries(&wanted).expect("the MSR list is short");
        let read = self.fd.get_msrs(&mut msrs).map_err(KvmError::call("KVM_GET_MSRS"))?;
        if read != indices.len() {
            return Err(KvmError::State { what: format!("MSR {:#x} unreadable", indices[read]) });
        }
        Ok(msrs.as_slice().to_vec())
    }

    fn write_msrs(&self, entries: &[kvm_msr_entry]) -> Result<(), KvmError> {
        let msrs = Msrs::from_entries(entries).map_err(|_| KvmError::State {
            what: format!("{} MSRs are too many", entries.len()),
        })?;
        let set = self.fd.set_msrs(&msrs).map_err(KvmError::call("KVM_SET_MSRS"))?;
        match entries.get(set) {
            Some(msr) => {
                Err(KvmError::State { what: format!("MSR {:#x} can't be set", msr.index) })
            }
            None => Ok(()),
        }
    }

    /// Returns the whole state in canonical form. The state is complete only if no instruction is left to
    /// complete: before the first run, or after [`Vcpu::run`] or [`Vcpu::drain`] returned
    /// [`VmExit::Interrupted`]; and only if [`Vcpu::holds_soft_exception`] is false.
    ///
    /// Two parts of the canonical form, which the guest can read, are also set in this vCPU, so that it continues
    /// as a vCPU with the returned state does: where KVM sets only a part of the SYSENTER addresses, the rest is
    /// cleared (see `canonical::msrs`), and where XSAVE is enabled, components with initial values become unused
    /// (see `canonical::xsave`).
    ///
    /// # Errors
    ///
    /// If a KVM call fails.
    pub fn save(&mut self) -> Result<VcpuState, KvmError> {
        let fd = &self.fd;
        let mut state = VcpuState {
            regs: fd.get_regs().map_err(KvmError::call("KVM_GET_REGS"))?,
            sregs: fd.get_sregs().map_err(KvmError::call("KVM_GET_SREGS"))?,
            events: fd.get_vcpu_events().map_err(KvmError::call("KVM_GET_VCPU_EVENTS"))?,
            xcrs: fd.get_xcrs().map_err(KvmError::call("KVM_GET_XCRS"))?,
            xsave: fd.get_xsave().map_err(KvmError::call("KVM_GET_XSAVE"))?,
            debugregs: fd.get_debug_regs().map_err(KvmError::call("KVM_GET_DEBUGREGS"))?,
            msrs: self.read_msrs(&self.msrs)?,
            if_flag: self.if_flag,
            ready_for_injection: self.ready,
        };
        canonical::sregs(&mut state.sregs);
        canonical::events(&mut state.events);
        let in_use = state.xsave.region[canonical::XSTATE_BV];
        canonical::xsave(&mut state.xsave, state::xcr0(&state.xcrs));
        let can_read_in_use = state.sregs.cr4 & CR4_OSXSAVE != 0;
        if can_read_in_use && state.xsave.region[canonical::XSTATE_BV] != in_use {
            self.set_xsave(&state.xsave)?;
        }
        canonical::msrs(&mut state.msrs, self.sysenter_mask);
        if self.sysenter_mask != u64::MAX {
            let is_address =
                |msr: &&kvm_msr_entry| canonical::SYSENTER_ADDRESSES.contains(&msr.index);
            let addresses: Vec<_> = state.msrs.iter().filter(is_address).copied().collect();
            self.write_msrs(&addresses)?;
        }
        Ok(state)
    }

    /// Returns the XSAVE area as KVM reports it.
    #[cfg(test)]
    pub(super) fn raw_xsave(&self) -> kvm_xsave {
        self.fd.get_xsave().expect("KVM_GET_XSAVE works")
    }

    fn set_xsave(&self, xsave: &kvm_xsave) -> Result<(), KvmError> {
        // SAFETY: no dynamically enabled XSAVE feature is used (no ARCH_REQ_XCOMP_GUEST_PERM), so
        // the area is the 4096 bytes of kvm_xsave (api.rst 4.43).
        unsafe { self.fd.set_xsave(xsave) }.map_err(KvmError::call("KVM_SET_XSAVE"))
    }

    /// Flushes the TLB and sets the system registers. Setting CR3 to the value that it already has flushes nothing, but a
    /// change of CR4.PGE does (SDM vol. 3, 4.10.4.1).
    ///
    /// # Errors
    ///
    /// If a KVM call fails.
    pub fn flush_tlb(&self, sregs: &kvm_sregs) -> Result<(), KvmError> {
        let flushing = kvm_sregs { cr4: sregs.cr4 ^ CR4_PGE, ..*sregs };
        self.fd.set_sregs(&flushing).map_err(KvmError::call("KVM_SET_SREGS"))?;
        self.fd.set_sregs(sregs).map_err(KvmError::call("KVM_SET_SREGS"))
    }

    /// Sets the state of the vCPU, and flushes the TLB. No instruction may be left to complete (see [`Vcpu::save`]). Events are
    /// set last, because some of the other calls clear them.
    ///
    /// # Errors
    ///
    /// If a KVM call fails, or an MSR can't be set on this host.
    pub fn restore(&mut self, state: &VcpuState) -> Result<(), KvmError> {
        self.flush_tlb(&state.sregs)?;
        let fd = &self.fd;
        fd.set_regs(&state.regs).map_err(KvmError::call("KVM_SET_REGS"))?;
        fd.set_xcrs(&state.xcrs).map_err(KvmError::call("KVM_SET_XCRS"))?;
        self.set_xsave(&state.xsave)?;
        fd.set_debug_regs(&state.debugregs).map_err(KvmError::call("KVM_SET_DEBUGREGS"))?;
        self.write_msrs(&state.msrs)?;
        fd.set_vcpu_events(&state.events).map_err(KvmError::call("KVM_SET_VCPU_EVENTS"))?;
        // Without a local APIC in the kernel, KVM_RUN loads CR8 from the run page (api.rst 5, `cr8`).
        self.fd.get_kvm_run().cr8 = state.sregs.cr8;
        self.if_flag = state.if_flag;
        self.ready = state.ready_for_injection;
        self.undelivered = None;
        Ok(())
    }
}
