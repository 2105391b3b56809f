//! The system calls that each kind of thread may make. Another one kills the process; its supervisor then tells the
//! peer, which goes on.
//!
//! The kernel remembers which calls a filter allows whatever their arguments are, and does not run the filter for those
//! (`seccomp_cache_check_allow`, Linux 5.11). It is run for `ioctl`, which has a low number and stands near the front of
//! the filter; among its commands, `KVM_RUN` comes first.

use super::SandboxError;
use libc::{
    SYS_accept4, SYS_brk, SYS_clock_gettime, SYS_clock_nanosleep, SYS_close, SYS_exit,
    SYS_exit_group, SYS_fallocate, SYS_fcntl, SYS_fdatasync, SYS_fsync, SYS_ftruncate, SYS_futex,
    SYS_getpid, SYS_getrandom, SYS_getsockname, SYS_getsockopt, SYS_gettid, SYS_io_uring_enter,
    SYS_io_uring_register, SYS_io_uring_setup, SYS_ioctl, SYS_lseek, SYS_madvise, SYS_mlock,
    SYS_mlock2, SYS_mmap, SYS_mprotect, SYS_mremap, SYS_munlock, SYS_munmap, SYS_nanosleep,
    SYS_poll, SYS_ppoll, SYS_prctl, SYS_pread64, SYS_preadv, SYS_pwrite64, SYS_pwritev, SYS_read,
    SYS_recvfrom, SYS_recvmsg, SYS_restart_syscall, SYS_rseq, SYS_rt_sigaction, SYS_rt_sigprocmask,
    SYS_rt_sigreturn, SYS_sched_getaffinity, SYS_sched_yield, SYS_sendto, SYS_set_robust_list,
    SYS_setsockopt, SYS_sigaltstack, SYS_tgkill, SYS_timer_create, SYS_timer_delete,
    SYS_timer_settime, SYS_timerfd_create, SYS_timerfd_settime, SYS_wait4, SYS_write, SYS_writev,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

/// When a call is allowed, by its number: one of the rules must apply, and without any, it is always.
pub(super) type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// What a thread does once it is in the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// `vcpu0`.
    Vcpu,
    /// `vcpu0` of `save` and `replay`: it also writes the snapshot, or reads the log and shows how far it is.
    VcpuWithFile,
    /// Main and `signals`: they wait.
    Main,
    /// Writes to a file that is open: `stdout`, `stderr`, `pcap`, `log`.
    Writer,
    /// Reads standard input: `stdin`.
    Reader,
    /// Reads and writes the image of a disk: `disk`.
    Disk,
    /// Asks the kernel for an interface, and makes a port of what the opener has opened: `tap`, `log-nic`, `health`.
    Opens,
    /// Answers the clients of the control socket: `control`.
    Control,
    /// Answers the clients of the metrics: `metrics`.
    Metrics,
    /// Waits for the end of another process, or for its answers: `opener`, `supervisor`, `witness`, `witness-check`.
    Waiter,
}

impl Task {
    /// All tasks.
    pub const ALL: [Self; 10] = [
        Self::Vcpu,
        Self::VcpuWithFile,
        Self::Main,
        Self::Writer,
        Self::Reader,
        Self::Disk,
        Self::Opens,
        Self::Control,
        Self::Metrics,
        Self::Waiter,
    ];

    fn calls(self) -> &'static [&'static [Call]] {
        match self {
            Self::Vcpu => &[EVERY_THREAD, VCPU, LINK],
            Self::VcpuWithFile => &[EVERY_THREAD, VCPU, LINK, FILE, TERMINAL],
            Self::Main => &[EVERY_THREAD, MAIN, TERMINAL],
            Self::Writer => &[EVERY_THREAD, WRITER],
            Self::Reader => &[EVERY_THREAD],
            Self::Disk => &[EVERY_THREAD, DISK],
            Self::Opens => &[EVERY_THREAD, OPENS, LINK],
            Self::Control => &[EVERY_THREAD, CONTROL],
            Self::Metrics => &[EVERY_THREAD, METRICS],
            Self::Waiter => &[EVERY_THREAD, WAITER],
        }
    }
}

/// A system call that is allowed.
pub(super) struct Call {
    number: i64,
    when: When,
}

/// With which arguments.
enum When {
    Always,
    /// The argument is one of these in the bits of the mask.
    OneOf {
        argument: u8,
        mask: u64,
        values: &'static [u64],
    },
    /// A signal to a thread of this process.
    ToItself,
}

pub(super) const fn always(number: i64) -> Call {
    Call { number, when: When::Always }
}

const fn zero(number: i64, argument: u8, mask: u64) -> Call {
    Call { number, when: When::OneOf { argument, mask, values: &[0] } }
}

/// One of `values` is in the first 32 bits of an argument.
pub(super) const fn one_of(number: i64, argument: u8, values: &'static [u64]) -> Call {
    Call { number, when: When::OneOf { argument, mask: INT, values } }
}

const fn commands(values: &'static [u64]) -> Call {
    Call { number: SYS_ioctl, when: When::OneOf { argument: 1, mask: COMMAND, values } }
}

const PROT_EXEC: u64 = libc::PROT_EXEC as u64;
const PR_GET_TSC: u64 = libc::PR_GET_TSC as u64;
const PR_SET_VMA: u64 = libc::PR_SET_VMA as u64;
const SO_RCVTIMEO: u64 = libc::SO_RCVTIMEO as u64;
const SO_SNDTIMEO: u64 = libc::SO_SNDTIMEO as u64;
const F_DUPFD_CLOEXEC: u64 = libc::F_DUPFD_CLOEXEC as u64;
const F_OFD_SETLK: u64 = libc::F_OFD_SETLK as u64;

/// The kind and the number of an ioctl's command. The other bits are the size and the direction of its argument.
const COMMAND: u64 = 0xffff;

/// An argument that the kernel takes as an `int`: a caller may leave anything in the other bits.
const INT: u64 = 0xffff_ffff;

pub(super) const EVERY_THREAD: &[Call] = &[
    // Locks, channels, and the end of a thread.
    always(SYS_futex),
    // Pauses (nanosleep before glibc 2.31); waits that let others run; clocks, where reading them needs a call.
    always(SYS_clock_nanosleep),
    always(SYS_nanosleep),
    always(SYS_sched_yield),
    always(SYS_clock_gettime),
    // The allocator, stacks, and memory of rings and guests. No memory becomes code.
    zero(SYS_mmap, 2, PROT_EXEC),
    zero(SYS_mprotect, 2, PROT_EXEC),
    always(SYS_munmap),
    always(SYS_mremap),
    always(SYS_madvise),
    always(SYS_brk),
    // A thread asks once whether RDTSC is trapped, before it reads a clock (`clock`). Newer allocators name their
    // memory.
    Call {
        number: SYS_prctl,
        when: When::OneOf { argument: 0, mask: INT, values: &[PR_GET_TSC, PR_SET_VMA] },
    },
    // Pages with keys stay in memory.
    always(SYS_mlock),
    always(SYS_mlock2),
    always(SYS_munlock),
    // Messages go to pipes and sockets that are open, and the handler of a signal writes to one of them. Not to an
    // address, so that a packet socket does not send on another interface: for the same reason no thread has sendmsg,
    // whose address no filter sees.
    always(SYS_write),
    always(SYS_writev),
    zero(SYS_sendto, 4, u64::MAX),
    // A pipe, a socket, standard input.
    always(SYS_read),
    always(SYS_poll),
    always(SYS_ppoll),
    always(SYS_close),
    // Kicks; a thread that waits for one changes its mask. A panic that aborts sends a signal, too.
    Call { number: SYS_tgkill, when: When::ToItself },
    always(SYS_getpid),
    always(SYS_gettid),
    always(SYS_rt_sigprocmask),
    always(SYS_rt_sigaction),
    always(SYS_rt_sigreturn),
    always(SYS_restart_syscall),
    // Seeds of hash tables; nonces and keys.
    always(SYS_getrandom),
    // The allocator and crossbeam ask for the number of cores.
    always(SYS_sched_getaffinity),
    // The end of a thread, and of the process.
    always(SYS_sigaltstack),
    always(SYS_set_robust_list),
    always(SYS_rseq),
    always(SYS_exit),
    always(SYS_exit_group),
];

const VCPU: &[Call] = &[
    commands(&[
        // The guest runs.
        KVM_RUN,
        // The state of the vCPU: a checkpoint is made or applied, a register is compared or changed.
        KVM_GET_REGS,
        KVM_SET_REGS,
        KVM_GET_SREGS,
        KVM_SET_SREGS,
        KVM_GET_MSRS,
        KVM_SET_MSRS,
        KVM_GET_FPU,
        KVM_GET_XSAVE,
        KVM_SET_XSAVE,
        KVM_GET_XCRS,
        KVM_SET_XCRS,
        KVM_GET_VCPU_EVENTS,
        KVM_SET_VCPU_EVENTS,
        KVM_GET_DEBUGREGS,
        KVM_SET_DEBUGREGS,
        KVM_INTERRUPT,
        // Which pages the guest has changed.
        KVM_GET_DIRTY_LOG,
        // Another machine: this host becomes the backup again, or drops what it could not apply.
        KVM_CREATE_VM,
        KVM_CHECK_EXTENSION,
        KVM_GET_MSR_INDEX_LIST,
        KVM_GET_VCPU_MMAP_SIZE,
        KVM_GET_SUPPORTED_CPUID,
        KVM_CREATE_VCPU,
        KVM_SET_USER_MEMORY_REGION,
        KVM_SET_TSS_ADDR,
        KVM_SET_CPUID2,
        KVM_ENABLE_CAP,
        KVM_X86_SET_MSR_FILTER,
        // The log link: flags, name and address of its interface, bytes that it has not sent.
        SIOCGIFFLAGS,
        SIOCGIFNAME,
        SIOCGIFHWADDR,
        SIOCGIFMTU,
        SIOCOUTQ,
    ]),
    // The tap and the log link. A ring takes only the operations of its port.
    always(SYS_io_uring_enter),
    // A ring is started or released.
    always(SYS_io_uring_register),
    // How long to wait for frames.
    always(SYS_timerfd_settime),
    // The timer that ends the guest's run at a deadline.
    always(SYS_timer_settime),
    always(SYS_timer_create),
    always(SYS_timer_delete),
];

/// Calls on the log link's socket.
const LINK: &[Call] = &[
    // Frames, where there is no ring for them.
    always(SYS_recvfrom),
    // Its error, and what the kernel has dropped.
    always(SYS_getsockopt),
    always(SYS_getsockname),
];

/// Calls on a snapshot and on a log, which are open.
const FILE: &[Call] = &[
    // A snapshot: its length, its pages, and that they are on the disk.
    always(SYS_ftruncate),
    always(SYS_pwrite64),
    always(SYS_fsync),
    // What its guest has written to its disks.
    always(SYS_pread64),
    // A log is read in blocks, and files of overlays have holes.
    always(SYS_lseek),
];

/// Whether a stream is a terminal, and its width: for the progress bar of `replay`, which main removes at the end.
const TERMINAL: &[Call] = &[commands(&[TCGETS, TCGETS2, TIOCGWINSZ])];

const OPENS: &[Call] = &[
    // Answers of the opener, with descriptors.
    always(SYS_recvmsg),
    // A tap is watched through a descriptor of its own.
    Call {
        number: SYS_fcntl,
        when: When::OneOf { argument: 1, mask: INT, values: &[F_DUPFD_CLOEXEC] },
    },
    // The address and the MTU of an interface.
    commands(&[SIOCGIFFLAGS, SIOCGIFNAME, SIOCGIFHWADDR, SIOCGIFMTU, SIOCGIFINDEX]),
    // A port: its ring, its timer.
    always(SYS_io_uring_setup),
    always(SYS_io_uring_register),
    always(SYS_io_uring_enter),
    always(SYS_timerfd_create),
];

const CONTROL: &[Call] = &[
    // Answers of the opener, with descriptors.
    always(SYS_recvmsg),
    // Clients, and how long they may take.
    always(SYS_accept4),
    always(SYS_recvfrom),
    Call {
        number: SYS_setsockopt,
        when: When::OneOf { argument: 2, mask: INT, values: &[SO_RCVTIMEO, SO_SNDTIMEO] },
    },
];

/// The listening socket is open. An answer is sent with `sendto`, which every thread has if it gives no address.
const METRICS: &[Call] = &[
    // Clients.
    always(SYS_accept4),
    // Their requests.
    always(SYS_recvfrom),
];

const MAIN: &[Call] = &[
    // Answers of the opener: it removes the control socket.
    always(SYS_recvmsg),
    // The self-pipe of the signals.
    always(SYS_recvfrom),
];

const WRITER: &[Call] = &[
    // A recording is complete when it is on the disk.
    always(SYS_fsync),
    always(SYS_fdatasync),
    always(SYS_lseek),
];

/// The image and the file of an overlay are open.
const DISK: &[Call] = &[
    // Requests, of a raw image; the ring takes only reads, writes, syncs and fallocate(2) on this image.
    always(SYS_io_uring_enter),
    // The ring lets go of the image at the end, so that the image's lock ends.
    always(SYS_io_uring_register),
    // Requests, of anything else.
    always(SYS_pread64),
    always(SYS_pwrite64),
    // A range is given back to the host or filled with zeros.
    always(SYS_fallocate),
    // A flush.
    always(SYS_fsync),
    always(SYS_fdatasync),
    // Whether the image has become shorter.
    always(SYS_lseek),
    // The lock of an image that both hosts of a pair share.
    Call {
        number: SYS_fcntl,
        when: When::OneOf { argument: 1, mask: INT, values: &[F_OFD_SETLK] },
    },
    // Requests of a qcow2 image, which grows.
    always(SYS_preadv),
    always(SYS_pwritev),
    always(SYS_ftruncate),
];

const WAITER: &[Call] = &[
    // The end of a child.
    always(SYS_wait4),
    // Answers of the witness's process.
    always(SYS_recvmsg),
];

/// Calls that fail instead of killing the process. libc and the standard library make them in passing, can do without,
/// and would do so at moments that no test foresees: the allocator looks at `/proc` when it returns memory, and a panic
/// looks for the program's symbols.
const REFUSED: &[i64] = &[
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_stat,
    libc::SYS_fstat,
    libc::SYS_lstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_access,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
];

// The low 16 bits of the commands (linux/kvm.h, linux/sockios.h).
const KVM_CREATE_VM: u64 = 0xae01;
const KVM_GET_MSR_INDEX_LIST: u64 = 0xae02;
const KVM_CHECK_EXTENSION: u64 = 0xae03;
const KVM_GET_VCPU_MMAP_SIZE: u64 = 0xae04;
const KVM_GET_SUPPORTED_CPUID: u64 = 0xae05;
const KVM_CREATE_VCPU: u64 = 0xae41;
const KVM_GET_DIRTY_LOG: u64 = 0xae42;
const KVM_SET_USER_MEMORY_REGION: u64 = 0xae46;
const KVM_SET_TSS_ADDR: u64 = 0xae47;
const KVM_RUN: u64 = 0xae80;
const KVM_GET_REGS: u64 = 0xae81;
const KVM_SET_REGS: u64 = 0xae82;
const KVM_GET_SREGS: u64 = 0xae83;
const KVM_SET_SREGS: u64 = 0xae84;
const KVM_INTERRUPT: u64 = 0xae86;
const KVM_GET_MSRS: u64 = 0xae88;
const KVM_SET_MSRS: u64 = 0xae89;
const KVM_GET_FPU: u64 = 0xae8c;
const KVM_SET_CPUID2: u64 = 0xae90;
const KVM_GET_VCPU_EVENTS: u64 = 0xae9f;
const KVM_SET_VCPU_EVENTS: u64 = 0xaea0;
const KVM_GET_DEBUGREGS: u64 = 0xaea1;
const KVM_SET_DEBUGREGS: u64 = 0xaea2;
const KVM_ENABLE_CAP: u64 = 0xaea3;
const KVM_GET_XSAVE: u64 = 0xaea4;
const KVM_SET_XSAVE: u64 = 0xaea5;
const KVM_GET_XCRS: u64 = 0xaea6;
const KVM_SET_XCRS: u64 = 0xaea7;
const KVM_X86_SET_MSR_FILTER: u64 = 0xaec6;
const SIOCGIFNAME: u64 = 0x8910;
const SIOCGIFFLAGS: u64 = 0x8913;
const SIOCGIFMTU: u64 = 0x8921;
const SIOCGIFHWADDR: u64 = 0x8927;
const SIOCGIFINDEX: u64 = 0x8933;
const SIOCOUTQ: u64 = 0x5411;
const TCGETS: u64 = 0x5401;
const TCGETS2: u64 = 0x542a;
const TIOCGWINSZ: u64 = 0x5413;

/// Returns the filter of `task`.
pub(super) fn of(task: Task) -> Result<BpfProgram, SandboxError> {
    let mut rules = rules_of(task.calls())?;
    // The other filter decides.
    for &number in REFUSED {
        rules.insert(number, Vec::new());
    }
    let (default, listed) = (SeccompAction::KillProcess, SeccompAction::Allow);
    Ok(SeccompFilter::new(rules, default, listed, TargetArch::x86_64)?.try_into()?)
}

/// Returns the rules of `lists`, by the number of the call.
pub(super) fn rules_of(lists: &[&[Call]]) -> Result<Rules, SandboxError> {
    let mut rules = Rules::new();
    for call in lists.iter().copied().flatten() {
        let new = call.when.rules()?;
        let is_first = !rules.contains_key(&call.number);
        let all = rules.entry(call.number).or_default();
        // Commands add up. No rule would mean: always.
        let add_up = !all.is_empty() && !new.is_empty();
        assert!(is_first || add_up, "call {} is in two lists", call.number);
        all.extend(new);
    }
    Ok(rules)
}

/// Returns the filter that makes the [`REFUSED`] calls fail.
pub(super) fn refusals() -> Result<BpfProgram, SandboxError> {
    let rules = REFUSED.iter().map(|&number| (number, Vec::new())).collect();
    let (default, listed) = (SeccompAction::Allow, SeccompAction::Errno(libc::EACCES as u32));
    Ok(SeccompFilter::new(rules, default, listed, TargetArch::x86_64)?.try_into()?)
}

impl When {
    /// Returns the rules of which one must apply; no rule applies always.
    fn rules(&self) -> Result<Vec<SeccompRule>, SandboxError> {
        let rule = |argument, mask, value| -> Result<SeccompRule, SandboxError> {
            let (width, is) = (SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(mask));
            Ok(SeccompRule::new(vec![SeccompCondition::new(argument, width, is, value)?])?)
        };
        match *self {
            When::Always => Ok(Vec::new()),
            When::OneOf { argument, mask, values } => {
                values.iter().map(|&value| rule(argument, mask, value)).collect()
            }
            When::ToItself => Ok(vec![rule(0, INT, std::process::id().into())?]),
        }
    }
}
