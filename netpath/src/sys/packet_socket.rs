//! A packet socket (packet(7)), each system call as a safe function.
//!
//! Rules for the unsafe code in this file:
//! 1. Every pointer handed to the kernel points to a live local of the type that the call is documented
//!    to take, or into a live slice, with its size; the kernel keeps none of them beyond the call.
//! 2. C structures used here are plain data for which all-zero bytes are valid.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::map::Mapping;
use super::signal::{self, SignalMask};
use super::timer::Timer;

/// What the kernel reports about a frame in addition to its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FrameInfo {
    /// Bytes that were delivered.
    pub(crate) length: usize,
    /// Bytes that the frame had on the wire.
    pub(crate) wire_length: usize,
    /// `PACKET_HOST`, `PACKET_OTHERHOST` and so on.
    pub(crate) packet_type: u8,
}

/// A socket for whole Ethernet frames.
pub(crate) struct PacketSocket(OwnedFd);

impl From<OwnedFd> for PacketSocket {
    fn from(socket: OwnedFd) -> PacketSocket {
        PacketSocket(socket)
    }
}

impl From<PacketSocket> for OwnedFd {
    fn from(socket: PacketSocket) -> OwnedFd {
        socket.0
    }
}

/// `setsockopt` and `getsockopt` take sizes as `socklen_t`.
fn size<T>() -> libc::socklen_t {
    mem::size_of::<T>() as libc::socklen_t
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl PacketSocket {
    /// Opens a socket that receives nothing before it is [bound](Self::bind), because its protocol is 0.
    /// With another protocol it would receive from every interface until then.
    pub(crate) fn open() -> io::Result<PacketSocket> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: takes no pointers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        check(fd)?;
        // SAFETY: the descriptor was made just now and nothing else owns it.
        Ok(PacketSocket(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn set<T>(&self, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
        let pointer = std::ptr::from_ref(value).cast();
        // SAFETY: `value` is live and of the size given (rule 1).
        let result =
            unsafe { libc::setsockopt(self.0.as_raw_fd(), level, option, pointer, size::<T>()) };
        check(result)
    }

    /// Reads a socket option.
    ///
    /// # Safety
    ///
    /// All-zero bytes, and any bytes that the option is documented to return, must be a valid `T`.
    unsafe fn get<T>(&self, level: libc::c_int, option: libc::c_int) -> io::Result<T> {
        let mut length = size::<T>();
        // SAFETY: by the caller's promise.
        let mut value: T = unsafe { mem::zeroed() };
        let pointer = (&raw mut value).cast();
        // SAFETY: `value` is live and of the size given (rule 1).
        check(unsafe {
            libc::getsockopt(self.0.as_raw_fd(), level, option, pointer, &raw mut length)
        })?;
        Ok(value)
    }

    /// Binds to an interface and an EtherType; frames arrive from now on.
    pub(crate) fn bind(&self, interface: u32, ethertype: u16) -> io::Result<()> {
        // SAFETY: all-zero is a valid address (rule 2).
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = ethertype.to_be();
        address.sll_ifindex = interface.cast_signed();
        let pointer = (&raw const address).cast();
        // SAFETY: `address` is live and of the size given (rule 1).
        check(unsafe { libc::bind(self.0.as_raw_fd(), pointer, size::<libc::sockaddr_ll>()) })
    }

    /// Returns the current MAC address of the interface that the socket is bound to; `None` if it has none, or an
    /// address of another kind.
    pub(crate) fn interface_mac(&self) -> io::Result<Option<[u8; 6]>> {
        let address = self.bound_to()?;
        let [a, b, c, d, e, f, ..] = address.sll_addr;
        Ok((address.sll_halen == 6).then_some([a, b, c, d, e, f]))
    }

    /// Returns the index of the interface that the socket is bound to; `None` if it is not bound any more.
    pub(crate) fn interface_index(&self) -> io::Result<Option<u32>> {
        let index = u32::try_from(self.bound_to()?.sll_ifindex);
        Ok(index.ok().filter(|&index| index > 0))
    }

    fn bound_to(&self) -> io::Result<libc::sockaddr_ll> {
        // SAFETY: all-zero is a valid address (rule 2).
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        let mut length = size::<libc::sockaddr_ll>();
        let pointer = (&raw mut address).cast();
        // SAFETY: address and length are live and of the sizes given (rule 1).
        check(unsafe { libc::getsockname(self.0.as_raw_fd(), pointer, &raw mut length) })?;
        Ok(address)
    }

    /// Attaches a program of classic BPF, which selects the frames that are received.
    pub(crate) fn attach_filter(&self, program: &[libc::sock_filter]) -> io::Result<()> {
        let length = program.len().try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
        // The kernel copies the program, and writes nothing to it (`__get_filter`).
        let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
        self.set(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
    }

    /// Creates a TPACKET_V2 receive ring, in blocks of one page each.
    pub(crate) fn make_ring(&self, slots: usize, slot_bytes: usize) -> io::Result<()> {
        const BLOCK_BYTES: usize = 4096;
        self.set(
            libc::SOL_PACKET,
            libc::PACKET_VERSION,
            &(libc::tpacket_versions::TPACKET_V2 as i32),
        )?;
        let request = libc::tpacket_req {
            tp_block_size: BLOCK_BYTES as u32,
            tp_block_nr: (slots * slot_bytes / BLOCK_BYTES) as u32,
            tp_frame_size: slot_bytes as u32,
            tp_frame_nr: slots as u32,
        };
        self.set(libc::SOL_PACKET, libc::PACKET_RX_RING, &request)
    }

    /// Maps the ring that [`make_ring`](Self::make_ring) created.
    pub(crate) fn map_ring(&self, length: usize) -> io::Result<Mapping> {
        Mapping::of_file(self.file(), length)
    }

    /// Requests a receive buffer of `buffer_bytes`, or as much as the system's limit allows.
    pub(crate) fn set_receive_buffer(&self, buffer_bytes: i32) -> io::Result<()> {
        // SO_RCVBUFFORCE exceeds the limit, but needs CAP_NET_ADMIN, which a user of packet sockets may lack.
        self.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &buffer_bytes)
            .or_else(|_| self.set(libc::SOL_SOCKET, libc::SO_RCVBUF, &buffer_bytes))
    }

    /// Sends a frame, with its Ethernet header, on the interface that the socket is bound to.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the frame is live and of the size given (rule 1).
        let result = unsafe {
            libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), libc::MSG_DONTWAIT)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Receives a frame into `buffer`, if one is waiting.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<FrameInfo>> {
        // SAFETY: all-zero is a valid address (rule 2).
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        let mut address_length = size::<libc::sockaddr_ll>();
        // With MSG_TRUNC the result is the frame's length even if the buffer is shorter.
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        // SAFETY: buffer and address are live and of the sizes given (rule 1).
        let result = unsafe {
            libc::recvfrom(
                self.0.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                flags,
                (&raw mut address).cast(),
                &raw mut address_length,
            )
        };
        let Ok(wire_length) = usize::try_from(result) else {
            let error = io::Error::last_os_error();
            let none = error.kind() == io::ErrorKind::WouldBlock;
            return if none { Ok(None) } else { Err(error) };
        };
        let length = wire_length.min(buffer.len());
        let packet_type = address.sll_pkttype;
        Ok(Some(FrameInfo { length, wire_length, packet_type }))
    }

    /// Frames that the kernel dropped since the last call. Reading resets the counter.
    pub(crate) fn take_drops(&self) -> io::Result<u32> {
        // SAFETY: two integers.
        let stats: libc::tpacket_stats =
            unsafe { self.get(libc::SOL_PACKET, libc::PACKET_STATISTICS)? };
        Ok(stats.tp_drops)
    }

    /// Bytes of sent frames that the driver has not released yet, as the kernel accounts for them.
    pub(crate) fn unsent_bytes(&self) -> io::Result<u32> {
        let mut bytes: libc::c_int = 0;
        // SAFETY: SIOCOUTQ (linux/sockios.h; the libc crate calls it TIOCOUTQ) takes a pointer to an
        // integer (rule 1).
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) })?;
        Ok(bytes.try_into().unwrap_or(0))
    }

    /// Returns the error that is pending on the socket, and clears it.
    pub(crate) fn take_error(&self) -> io::Result<Option<i32>> {
        // SAFETY: an integer.
        let error: i32 = unsafe { self.get(libc::SOL_SOCKET, libc::SO_ERROR)? };
        Ok((error != 0).then_some(error))
    }

    /// Whether a frame or an error is waiting now.
    pub(crate) fn is_readable(&self) -> io::Result<bool> {
        Ok(signal::poll_readable([self.file()], Some(Duration::ZERO), None)? != [0])
    }

    /// Blocks until a frame is waiting, the socket has an error or `timer` has expired. Returns whether
    /// the socket has an error.
    pub(crate) fn block(&self, timer: &Timer, mask: Option<&SignalMask>) -> io::Result<bool> {
        let [found, _over] = signal::poll_readable([self.file(), timer.file()], None, mask)?;
        Ok(found & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0)
    }
}
