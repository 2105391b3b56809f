//! Frames of some interfaces, with the kernel's timestamps.
//!
//! - [`Capture`]: whole frames in both directions
//! - [`sniffer`]: which host the VM's frames come from

pub mod sniffer;

use crate::TestbedError;
use nix::sys::socket::{ControlMessageOwned, LinkAddr, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Interval at which the socket is read. The kernel timestamps the frames, so a long interval costs no
/// accuracy and leaves more of the machine to the processes that are observed.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Size of the kernel's buffer for frames that were not read yet.
const BUFFER_BYTES: usize = 64 << 20;

/// Longest frame, bytes.
const FRAME_BYTES_MAX: usize = 1600;

/// A captured frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Index of the interface in the list of the captured ones.
    pub interface: usize,
    /// Whether this host sent the frame; otherwise it received it.
    pub is_outgoing: bool,
    /// Wall-clock time when the kernel was given the frame, in nanoseconds.
    pub t_ns: u64,
    /// The frame, or as much of it as the filter passes.
    pub bytes: Vec<u8>,
}

/// A socket that captures frames on two interfaces of one namespace.
#[derive(Debug)]
pub struct Capture {
    socket: Socket,
    indexes: [u32; 2],
    /// Frames that the kernel dropped because the buffer was full.
    missed: u64,
}

impl Capture {
    /// Starts capturing all frames on `interfaces` in the namespace of the calling thread. No frame is
    /// missed after it returns.
    ///
    /// # Errors
    ///
    /// If an interface does not exist, or the socket can't be opened.
    pub fn open(interfaces: [&str; 2]) -> Result<Capture, TestbedError> {
        Capture::filtered(interfaces, filter)
    }

    /// Like [`open`](Self::open), with a filter for the interfaces with the given indexes (classic BPF,
    /// linux/filter.h). Frames of other interfaces that it passes are skipped.
    fn filtered<const N: usize>(
        interfaces: [&str; 2],
        filter: impl FnOnce([u32; 2]) -> [SockFilter; N],
    ) -> Result<Capture, TestbedError> {
        let open = || -> io::Result<Capture> {
            let index = |name: &str| nix::net::if_::if_nametoindex(name).map_err(io::Error::from);
            let indexes = [index(interfaces[0])?, index(interfaces[1])?];
            let every = i32::from((libc::ETH_P_ALL as u16).to_be());
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(every)))?;
            socket.attach_filter(&filter(indexes))?;
            socket.set_nonblocking(true)?;
            setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES)?;
            setsockopt(&socket, sockopt::RxqOvfl, &1)?;
            setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
            Ok(Capture { socket, indexes, missed: 0 })
        };
        let doing = || format!("capturing on {} and {}", interfaces[0], interfaces[1]);
        open().map_err(|source| TestbedError::Client { doing: doing(), source })
    }

    /// Passes every frame to `take` until `stop` is set, including those that arrived before.
    ///
    /// # Errors
    ///
    /// If the socket can't be read.
    ///
    /// # Panics
    ///
    /// If the kernel dropped a frame: conclusions from a capture are valid only if it is complete.
    pub fn run(
        mut self,
        stop: &AtomicBool,
        mut take: impl FnMut(Captured),
    ) -> Result<(), TestbedError> {
        loop {
            let is_last = stop.load(Ordering::Relaxed);
            while let Some(frame) = self.receive()? {
                take(frame);
            }
            assert_eq!(self.missed, 0, "the kernel dropped frames");
            if is_last {
                return Ok(());
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Returns the next frame that has arrived, if there is one.
    fn receive(&mut self) -> Result<Option<Captured>, TestbedError> {
        self.next().map_err(TestbedError::client("reading captured frames"))
    }

    fn next(&mut self) -> io::Result<Option<Captured>> {
        let mut bytes = [0; FRAME_BYTES_MAX];
        loop {
            let mut pieces = [IoSliceMut::new(&mut bytes)];
            let mut control = nix::cmsg_space!(u32, TimeSpec);
            let (fd, flags) = (self.socket.as_raw_fd(), MsgFlags::empty());
            let message = match recvmsg::<LinkAddr>(fd, &mut pieces, Some(&mut control), flags) {
                Ok(message) => message,
                Err(nix::Error::EAGAIN | nix::Error::EINTR) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            };
            let mut t_ns = None;
            for part in message.cmsgs()? {
                match part {
                    ControlMessageOwned::RxqOvfl(count) => self.missed = u64::from(count),
                    ControlMessageOwned::ScmTimestampns(stamp) => {
                        t_ns = Some(Duration::from(stamp).as_nanos() as u64);
                    }
                    _ => {}
                }
            }
            let address = message.address.ok_or(io::ErrorKind::InvalidData)?;
            let length = message.bytes;
            let interface = address.ifindex();
            let interface = self.indexes.iter().position(|&index| index as usize == interface);
            if let Some(interface) = interface {
                return Ok(Some(Captured {
                    interface,
                    is_outgoing: address.pkttype() == libc::PACKET_OUTGOING,
                    t_ns: t_ns.ok_or(io::ErrorKind::InvalidData)?,
                    bytes: bytes[..length].to_vec(),
                }));
            }
        }
    }
}

/// Returns a filter that passes whole frames of two interfaces.
fn filter(indexes: [u32; 2]) -> [SockFilter; 5] {
    const INTERFACE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_IFINDEX).cast_unsigned();
    [
        load(libc::BPF_W, INTERFACE),
        equal(indexes[0], 1, 0),
        equal(indexes[1], 0, 1),
        answer(FRAME_BYTES_MAX as u32),
        answer(0),
    ]
}

/// Loads `size` bytes at offset `at` of the frame.
const fn load(size: u32, at: u32) -> SockFilter {
    SockFilter::new((libc::BPF_LD | size | libc::BPF_ABS) as u16, 0, 0, at)
}

/// Skips `yes` instructions if the loaded value is `value`, `no` otherwise.
const fn equal(value: u32, yes: u8, no: u8) -> SockFilter {
    SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, yes, no, value)
}

/// Ends the filter, which passes this many bytes of the frame.
const fn answer(bytes: u32) -> SockFilter {
    SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, bytes)
}
