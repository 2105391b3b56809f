//! The sniffer: records on the switch which host the VM's frames come from.

use super::leadership::SourceChange;
use super::network::Host;
use crate::demo::DemoError;
use crate::kvm::clock::{boottime_ns, realtime_ns};
use netpath::MacAddr;
use nix::sys::socket::{ControlMessageOwned, LinkAddr, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// Interval at which the socket is read. The kernel timestamps the frames, so a long interval costs no
/// accuracy and leaves more of the machine to the processes that are observed.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Size of the socket's receive buffer, enough for seconds of frames.
const BUFFER_BYTES: usize = 4 << 20;

/// Bytes captured of each frame: its Ethernet header.
const SNAP_BYTES: u32 = 14;

/// The sniffer and its results.
#[derive(Debug, Default)]
pub struct Sniffer(Mutex<Seen>);

/// What the sniffer saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Frames of the VM.
    pub frames: u64,
    /// Frames that the kernel dropped because the receive buffer was full.
    pub missed: u64,
    /// Changes of the host that the frames came from.
    pub source_changes: Vec<SourceChange>,
}

/// A frame of the VM.
struct Frame {
    /// Index of the interface that received it.
    port: usize,
    seen_ns: u64,
    /// Frames that the kernel has dropped so far.
    missed: Option<u32>,
}

impl Seen {
    fn record_frame(&mut self, host: Host, frame: &Frame) {
        self.frames += 1;
        self.missed = frame.missed.map_or(self.missed, u64::from);
        if self.source_changes.last().is_none_or(|change| change.host != host) {
            self.source_changes.push(SourceChange { host, seen_ns: frame.seen_ns });
        }
    }
}

impl Sniffer {
    /// Records until `stop` every frame with source `vm` that enters the switch, in whose namespace the
    /// calling thread must be. Calls `ready` when no frame can be missed any more.
    ///
    /// # Errors
    ///
    /// If the socket can't be opened or read.
    pub fn run(
        &self,
        vm: MacAddr,
        stop: &AtomicBool,
        ready: impl FnOnce(),
    ) -> Result<(), DemoError> {
        let doing = || DemoError::client("listening on the switch");
        let ports = Host::ALL.map(|host| nix::net::if_::if_nametoindex(host.port()));
        let [a, b] = ports;
        let ports = [a, b].into_iter().collect::<nix::Result<Vec<u32>>>();
        let ports = ports.map_err(io::Error::from).map_err(doing())?;
        let socket = open(vm).map_err(doing())?;
        ready();
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(POLL_INTERVAL);
            while let Some(frame) = receive(&socket).map_err(doing())? {
                let port = ports.iter().position(|&port| port as usize == frame.port);
                let Some(host) = port.map(|index| Host::ALL[index]) else { continue };
                self.seen().record_frame(host, &frame);
            }
        }
        Ok(())
    }

    /// Returns what was seen so far.
    ///
    /// # Panics
    ///
    /// If a thread panicked while it held the lock.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().expect("no thread panics while it holds the lock")
    }
}

fn open(vm: MacAddr) -> io::Result<Socket> {
    let every = i32::from((libc::ETH_P_ALL as u16).to_be());
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(every)))?;
    socket.attach_filter(&filter(vm))?;
    socket.set_nonblocking(true)?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES)?;
    setsockopt(&socket, sockopt::RxqOvfl, &1)?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    Ok(socket)
}

/// Returns a filter for incoming frames from `vm` (classic BPF, linux/filter.h).
fn filter(vm: MacAddr) -> [SockFilter; 8] {
    const PACKET_TYPE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE).cast_unsigned();
    let [m0, m1, m2, m3, m4, m5] = vm.octets();
    let (high, low) = (u32::from_be_bytes([m0, m1, m2, m3]), u32::from_be_bytes([0, 0, m4, m5]));
    let load = |size: u32, at: u32| {
        SockFilter::new((libc::BPF_LD | size | libc::BPF_ABS) as u16, 0, 0, at)
    };
    let equal = |value: u32, yes: u8, no: u8| {
        SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, yes, no, value)
    };
    let answer = |bytes: u32| SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, bytes);
    [
        load(libc::BPF_B, PACKET_TYPE),
        equal(u32::from(libc::PACKET_OUTGOING), 5, 0),
        load(libc::BPF_W, 6),
        equal(high, 0, 3),
        load(libc::BPF_H, 10),
        equal(low, 0, 1),
        answer(SNAP_BYTES),
        answer(0),
    ]
}

/// Receives the next frame, if there is one.
fn receive(socket: &Socket) -> io::Result<Option<Frame>> {
    let mut bytes = [0; SNAP_BYTES as usize];
    let mut pieces = [IoSliceMut::new(&mut bytes)];
    let mut control = nix::cmsg_space!(u32, TimeSpec);
    let fd = socket.as_raw_fd();
    let message = match recvmsg::<LinkAddr>(fd, &mut pieces, Some(&mut control), MsgFlags::empty())
    {
        Ok(message) => message,
        Err(nix::Error::EAGAIN | nix::Error::EINTR) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let (mut missed, mut seen_ns) = (None, boottime_ns());
    for part in message.cmsgs()? {
        match part {
            ControlMessageOwned::RxqOvfl(count) => missed = Some(count),
            ControlMessageOwned::ScmTimestampns(stamp) => {
                // The timestamp is of the wall clock: convert its age to CLOCK_BOOTTIME.
                let stamp_ns = Duration::from(stamp).as_nanos() as u64;
                seen_ns -= realtime_ns().saturating_sub(stamp_ns).min(seen_ns);
            }
            _ => {}
        }
    }
    Ok(message.address.map(|from| Frame { port: from.ifindex(), seen_ns, missed }))
}
