//! Which host the VM's frames come from, as the switch sees it.

use super::network::Host;
use super::reigns::Turn;
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

/// From one look at what has come to the next. The kernel stamps the frames, and the fewer looks, the
/// more is left of the machine for those who are watched.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Frames that wait for us are in the kernel meanwhile: room for seconds of them.
const BUFFER_BYTES: usize = 4 << 20;

/// Bytes of a frame that we want: its Ethernet header.
const SNAP_BYTES: u32 = 14;

/// What the sniffer saw.
#[derive(Debug, Default)]
pub struct Sniffer(Mutex<Seen>);

/// Frames of the VM.
#[derive(Debug, Default)]
pub struct Seen {
    /// Frames of the VM.
    pub frames: u64,
    /// Frames of whoever that the kernel had no room for.
    pub missed: u64,
    /// From where they came, in turns.
    pub turns: Vec<Turn>,
}

/// A frame of the VM.
struct Frame {
    /// Where it came in.
    port: usize,
    seen_ns: u64,
    /// Frames that the kernel had no room for since the beginning.
    missed: Option<u32>,
}

impl Seen {
    fn note(&mut self, host: Host, frame: &Frame) {
        self.frames += 1;
        self.missed = frame.missed.map_or(self.missed, u64::from);
        if self.turns.last().is_none_or(|turn| turn.host != host) {
            self.turns.push(Turn { host, seen_ns: frame.seen_ns });
        }
    }
}

impl Sniffer {
    /// Listens until `stop` to everything that enters the switch whose namespace the calling thread is
    /// in, with `vm` as its source. Calls `ready` when nothing can be missed any more.
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
            std::thread::sleep(LOOK_EVERY);
            while let Some(frame) = receive(&socket).map_err(doing())? {
                let port = ports.iter().position(|&port| port as usize == frame.port);
                let Some(host) = port.map(|index| Host::ALL[index]) else { continue };
                self.seen().note(host, &frame);
            }
        }
        Ok(())
    }

    /// What was seen so far.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().expect("nobody panics with it")
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

/// Frames that come in, from `vm` (classic BPF, linux/filter.h).
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

/// The next frame, if there is one.
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
                // The stamp is of the wall clock: how long ago is what counts.
                let stamp_ns = Duration::from(stamp).as_nanos() as u64;
                seen_ns -= realtime_ns().saturating_sub(stamp_ns).min(seen_ns);
            }
            _ => {}
        }
    }
    Ok(message.address.map(|from| Frame { port: from.ifindex(), seen_ns, missed }))
}
