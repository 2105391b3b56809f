//! [`Capture`]: whole frames of some interfaces, with kernel timestamps.

use nix::sys::socket::{ControlMessageOwned, LinkAddr, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Size of the kernel's buffer for frames that were not read yet.
const BUFFER_BYTES: usize = 64 << 20;

/// Polling interval; long enough to leave the machine to the processes under test.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Longest frame, bytes.
const FRAME_BYTES_MAX: usize = 1600;

/// A captured frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Index of the interface in the list passed to [`Capture::open`].
    pub interface: usize,
    /// Whether this host sent the frame; otherwise it received it.
    pub is_outgoing: bool,
    /// Wall-clock time when the kernel was given the frame.
    pub t_ns: u64,
    /// The frame.
    pub bytes: Vec<u8>,
}

/// A socket that captures all frames on some interfaces of one namespace.
pub struct Capture {
    socket: Socket,
    indexes: Vec<u32>,
    missed: u64,
}

impl Capture {
    /// Starts capturing on `interfaces` in the namespace of the calling thread. No frame is missed
    /// after it returns.
    pub fn open(interfaces: [&str; 2]) -> io::Result<Capture> {
        let index = |name: &str| nix::net::if_::if_nametoindex(name).map_err(io::Error::from);
        let indexes = [index(interfaces[0])?, index(interfaces[1])?];
        let every = i32::from((libc::ETH_P_ALL as u16).to_be());
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(every)))?;
        socket.attach_filter(&filter(indexes))?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES)?;
        setsockopt(&socket, sockopt::RxqOvfl, &1)?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        Ok(Capture { socket, indexes: indexes.to_vec(), missed: 0 })
    }

    /// Passes every frame to `take` until `stop` is set, including those that arrived before.
    ///
    /// # Panics
    ///
    /// If the kernel dropped a frame: conclusions from a capture are valid only if it is complete.
    pub fn run(mut self, stop: &AtomicBool, mut take: impl FnMut(Captured)) -> io::Result<()> {
        loop {
            let is_last = stop.load(Ordering::Relaxed);
            while let Some(frame) = self.receive()? {
                take(frame);
            }
            assert_eq!(self.missed, 0, "the kernel dropped frames");
            if is_last {
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn receive(&mut self) -> io::Result<Option<Captured>> {
        let mut bytes = [0; FRAME_BYTES_MAX];
        let mut pieces = [IoSliceMut::new(&mut bytes)];
        let mut control = nix::cmsg_space!(u32, TimeSpec);
        let fd = self.socket.as_raw_fd();
        let flags = MsgFlags::empty();
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
        let interface = self.indexes.iter().position(|&index| index as usize == address.ifindex());
        Ok(Some(Captured {
            interface: interface.expect("the filter passes nothing else"),
            is_outgoing: address.pkttype() == libc::PACKET_OUTGOING,
            t_ns: t_ns.expect("the kernel was asked for it"),
            bytes: bytes[..length].to_vec(),
        }))
    }
}

/// Returns a filter that passes whole frames of two interfaces (classic BPF, linux/filter.h).
fn filter(indexes: [u32; 2]) -> [SockFilter; 5] {
    const INTERFACE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_IFINDEX).cast_unsigned();
    let equal = |value: u32, yes: u8, no: u8| {
        SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, yes, no, value)
    };
    let answer = |bytes: u32| SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, bytes);
    [
        SockFilter::new((libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, 0, 0, INTERFACE),
        equal(indexes[0], 1, 0),
        equal(indexes[1], 0, 1),
        answer(FRAME_BYTES_MAX as u32),
        answer(0),
    ]
}
