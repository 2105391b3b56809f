//! [`PacketPort`]: raw Ethernet frames of one EtherType on one interface.
//!
//! - `receive`: receives through a ring shared with the kernel, or through system calls
//! - `filter`: selects the frames that are for this port
//! - `payload_filter`: lets the kernel select them, among several ports on one interface
//! - `link`: the state of the interface
//! - `nic_probe`: the interface that has a name now
//! - `sender`: sends frames without a port
//! - `plain`: a packet socket without a port, as a baseline for measurements

mod config;
mod filter;
mod link;
mod nic_probe;
mod payload_filter;
mod plain;
mod receive;
mod sender;

pub use config::{PacketConfig, PacketStats};
pub use link::LinkState;
pub use nic_probe::{Nic, NicProbe};
pub use payload_filter::{LABEL_BYTES, PayloadByte, PayloadFilter};
pub use plain::plain_socket;
pub use receive::ReceivePath;
pub use sender::FrameSender;

use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use pnet::packet::ethernet::{EtherType, MutableEthernetPacket};

use self::filter::{Verdict, Wanted};
use self::link::Link;
use self::receive::Receiver;
use crate::error::PortError;
use crate::mac::MacAddr;
use crate::port::{FRAME_MAX, FRAME_MIN, FramePort, Wake, assert_receive_buffer};
use crate::ring::packet_ring::SLOTS;
use crate::ring::send_ring::SendRing;
use crate::sys::ioctl::{self, InterfaceName};
use crate::sys::packet_socket::PacketSocket;
use crate::sys::timer::Timer;
use crate::wait::{self, Blocked, WaitPolicy, Waiter};

/// The EtherType of the logging channel: Local Experimental EtherType 1 (IEEE 802, clause 9.2.4).
pub const CHANNEL_ETHERTYPE: u16 = 0x88b5;

/// The smallest MTU in bytes that a port accepts: the datagram size that every IPv4 host must accept
/// (RFC 791, section 3.1), and twice what the channel needs for its smallest sealed frame.
pub const MTU_BYTES_MIN: u32 = 576;

/// Maximum number of received frames that wait in a port. The kernel drops and counts further frames.
pub const RECEIVE_FRAMES: usize = SLOTS;

/// A position in the sequence of a port's received frames, taken by [`PacketPort::arrived`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(u64);

/// A port for frames of [`CHANNEL_ETHERTYPE`] between this interface and others on its LAN (Linux 6.1
/// or newer, CAP_NET_RAW).
///
/// Frames include their Ethernet header; [`header_to`](Self::header_to) builds one. The port delivers
/// untagged frames of the EtherType to the interface's own address, and to all stations if
/// [`PacketConfig::accepts_broadcast`] says so, and counts all others. A short frame
/// may have been padded to 60 bytes on its way, and is delivered with the padding. Several ports can share an
/// interface: with [`PacketConfig::payload`], the frames that the filter does not let through are neither delivered nor
/// counted.
///
/// **Threads.** As with [`TapPort`](crate::TapPort), the thread that uses the port first owns it; another
/// thread cannot send.
///
/// **Bounds.** Up to [`RECEIVE_FRAMES`] received frames wait in the port. `send` queues up to 128 frames
/// before it flushes by itself. Memory: 0.8 MiB.
///
/// **The link.** Sending never blocks, and never fails because of the link: frames for a link that is down
/// are dropped and counted. [`link`](Self::link) and [`next_link_event`](Self::next_link_event) report
/// what the port noticed of the link while it sent, received or blocked.
/// [`check_link`](Self::check_link) asks the kernel. Only [`wait`](FramePort::wait) fails once the
/// interface is gone, because nothing could end the wait any more.
pub struct PacketPort {
    // Before `socket`, because fields drop in this order and the ring must release the socket first.
    sender: SendRing,
    receiver: Receiver,
    socket: PacketSocket,
    /// Limits the duration of a wait.
    timer: Timer,
    /// See [`looked`](Self::looked).
    looked: Option<Duration>,
    link: Link,
    name: String,
    mac: MacAddr,
    accepts_broadcast: bool,
    mtu_bytes: u32,
    stats: PacketStats,
}

/// The open files of a port: all of it that needs a permission, and nothing that belongs to one process. They can be
/// passed to another one.
#[derive(Debug)]
pub struct PacketFiles {
    /// The packet socket, bound to the interface.
    pub socket: OwnedFd,
    /// Socket for interface requests.
    pub control: OwnedFd,
}

impl PacketPort {
    /// Opens a port in the calling thread's network namespace and begins to receive. An interface that
    /// is down is not an error: see [`link`](Self::link).
    ///
    /// # Errors
    ///
    /// [`PortError`] if the interface does not exist, is not Ethernet or has an MTU below
    /// [`MTU_BYTES_MIN`], if the process lacks CAP_NET_RAW, or if io_uring or a system call fails.
    pub fn open(config: &PacketConfig) -> Result<PacketPort, PortError> {
        Self::with_files(config, Self::open_files(config)?)
    }

    /// Opens and binds the socket of a port, for [`with_files`](Self::with_files). Only this part of
    /// [`open`](Self::open) needs CAP_NET_RAW. Frames are received from now on.
    ///
    /// # Errors
    ///
    /// As those of `open`.
    pub fn open_files(config: &PacketConfig) -> Result<PacketFiles, PortError> {
        let name = &config.interface;
        InterfaceName::new(name)?;
        let socket = open_socket()?;
        let index = interface_index(name)?;
        let control = ioctl::control_socket()
            .map_err(PortError::system("cannot open a socket for interface requests"))?;
        if !Link::new(control.try_clone().map_err(cannot_duplicate)?, index).is_ethernet()? {
            return Err(PortError::NotEthernet { name: name.clone() });
        }
        // Before `bind`, because frames arrive from then on and must find the ring and the filter.
        Receiver::prepare(&socket, config.receive).map_err(cannot_receive)?;
        if let Some(filter) = &config.payload {
            socket.attach_filter(&filter.program()).map_err(cannot_receive)?;
        }
        socket
            .bind(index, CHANNEL_ETHERTYPE)
            .map_err(PortError::system("cannot bind the packet socket"))?;
        Ok(PacketFiles { socket: socket.into(), control })
    }

    /// Makes a port of the `files` of the interface of `config`.
    ///
    /// # Errors
    ///
    /// As those of [`open`](Self::open).
    pub fn with_files(config: &PacketConfig, files: PacketFiles) -> Result<PacketPort, PortError> {
        let name = config.interface.clone();
        let (socket, control) = (PacketSocket::from(files.socket), files.control);
        let index = socket.interface_index().map_err(cannot_receive)?;
        // It was deleted again.
        let Some(index) = index else { return Err(PortError::InterfaceMissing { name }) };
        let link = Link::new(control, index);
        let (mac, mtu_bytes) = (link.mac()?, link.mtu()?);
        if mtu_bytes < MTU_BYTES_MIN {
            return Err(PortError::MtuTooSmall { name, mtu_bytes, min_bytes: MTU_BYTES_MIN });
        }
        let receiver = Receiver::new(&socket, config.receive).map_err(cannot_receive)?;
        let sender = SendRing::new(socket.file(), &name, config.wait)?;
        let stats = PacketStats::default();
        let timer = Timer::new().map_err(PortError::system("cannot create a timer"))?;
        let port = PacketPort {
            sender,
            receiver,
            socket,
            timer,
            looked: None,
            link,
            name,
            mac,
            accepts_broadcast: config.accepts_broadcast,
            mtu_bytes,
            stats,
        };
        // Binding to an interface that is down leaves an error on the socket. The link state has it already.
        port.take_error();
        Ok(port)
    }

    /// Makes the calling thread the port's owner. Optional, because the first use does the same.
    ///
    /// # Errors
    ///
    /// [`PortError::WrongThread`] if another thread owns the port, or an error of io_uring.
    pub fn start(&mut self) -> Result<(), PortError> {
        self.sender.start()
    }

    /// One line for a log: the interface and how the port receives, sends and waits.
    pub fn describe(&self) -> String {
        let PacketPort { name, mac, mtu_bytes, receiver, .. } = self;
        let WaitPolicy { spin, yield_after, wake_signal: _ } = self.sender.policy();
        format!(
            "{name} ({mac}, MTU {mtu_bytes}, {:?}): receive by {receiver}; send by io_uring, completions \
             for failed sends only; wait by polling for {spin:?} (yielding after {yield_after:?}), then ppoll",
            self.link.state()
        )
    }

    /// The interface's name, as given at opening.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's index, by which the port knows it. A new interface of the same name has another one.
    pub fn index(&self) -> u32 {
        self.link.index()
    }

    /// The interface's own MAC address, read at opening, each time its link comes up, and by
    /// [`check_link`](Self::check_link).
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    /// The MTU in bytes, read at opening. A port uses at most 1500 of them.
    pub fn mtu_bytes(&self) -> u32 {
        self.mtu_bytes
    }

    /// From now on, delivers frames to all stations, too.
    pub fn accept_broadcast(&mut self) {
        self.accepts_broadcast = true;
    }

    /// Returns the Ethernet header for frames to `destination`.
    pub fn header_to(&self, destination: MacAddr) -> [u8; FRAME_MIN] {
        channel_header(self.mac, destination)
    }

    /// The last known state of the link. Makes no system call.
    pub fn link(&self) -> LinkState {
        self.link.state()
    }

    /// Reads the link's state from the kernel. The kernel itself notices a lost carrier with a delay of
    /// up to a second, because its link watch is rate-limited.
    pub fn check_link(&mut self) -> LinkState {
        let failure = self.take_error();
        self.refresh(failure);
        self.link.state()
    }

    /// Fetches the oldest change of the link's state that was not fetched yet. The last 16 are kept.
    pub fn next_link_event(&mut self) -> Option<LinkState> {
        self.link.next_event()
    }

    /// Bytes of frames that wait below this port: in the interface's queue, or in its driver's until the
    /// driver reports them sent. The kernel's accounting applies: about 2300 bytes for a full frame. Makes
    /// a system call. Interfaces that release frames before they are sent (veth) report 0.
    ///
    /// # Errors
    ///
    /// [`PortError::System`] if the system call fails.
    pub fn unsent_bytes(&self) -> Result<u32, PortError> {
        self.socket
            .unsent_bytes()
            .map_err(PortError::system("cannot read the number of unsent bytes"))
    }

    /// The port's counters. Makes a system call to read the kernel's drop counter.
    pub fn stats(&mut self) -> PacketStats {
        // Reading resets the kernel's counter. If it fails, the next read includes the count.
        self.stats.rx_kernel_drops += self.socket.take_drops().map_or(0, u64::from);
        let (link_downs, enters) = (self.link.downs, self.sender.enters());
        PacketStats { link_downs, enters, ..self.stats }
    }

    /// Passes the next received frame to `with`, which may read or decrypt it in place, and then discards
    /// it. Returns `None` if no frame is waiting. Never blocks.
    ///
    /// # Errors
    ///
    /// As [`receive`](FramePort::receive).
    pub fn receive_with<R>(
        &mut self,
        with: impl FnOnce(&mut [u8]) -> R,
    ) -> Result<Option<R>, PortError> {
        self.receive_until(Mark(u64::MAX), with)
    }

    /// Marks the frames that have arrived by now, at most `at_most` of them. Returns `None` if there is
    /// none. The frames are then received with [`receive_until`](Self::receive_until).
    ///
    /// # Errors
    ///
    /// As [`receive`](FramePort::receive).
    pub fn arrived(&mut self, at_most: usize) -> Result<Option<Mark>, PortError> {
        if !self.look()? {
            return Ok(None);
        }
        Ok(Some(Mark(self.receiver.arrived(at_most))))
    }

    /// If the last wait found a frame while it was polling: the time from its beginning to the last clock
    /// reading before the frame was seen, which is a microsecond or two earlier unless the thread was
    /// preempted. It spares the caller a clock reading. `None` if the wait blocked or found no frame.
    pub fn looked(&self) -> Option<Duration> {
        self.looked
    }

    /// As [`receive_with`](Self::receive_with), but only for a frame that had arrived when `mark` was
    /// taken. A clock reading taken after the mark is therefore later than the frame's arrival.
    ///
    /// # Errors
    ///
    /// As [`receive`](FramePort::receive).
    pub fn receive_until<R>(
        &mut self,
        mark: Mark,
        with: impl FnOnce(&mut [u8]) -> R,
    ) -> Result<Option<R>, PortError> {
        // Check again after `look`, which skips frames that are not ours and may pass the mark.
        let is_beyond = |port: &Self| port.receiver.position() >= mark.0;
        if is_beyond(self) || !self.look()? || is_beyond(self) {
            return Ok(None);
        }
        self.stats.rx_frames += 1;
        let stats = &mut self.stats;
        Ok(Some(self.receiver.take(|frame| {
            stats.rx_bytes += frame.len() as u64;
            with(frame)
        })))
    }

    /// Returns the most frames that can have arrived and wait in this port.
    pub fn frames_waiting_max(&self) -> usize {
        self.receiver.frames_max()
    }

    /// Fetches the next frame that is for this port, and returns whether there is one.
    fn fetch(&mut self) -> io::Result<bool> {
        let PacketPort { receiver, socket, stats, mac, accepts_broadcast, .. } = self;
        let (mac, accepts_broadcast) = (*mac, *accepts_broadcast);
        let wanted = Wanted { mac, ethertype: CHANNEL_ETHERTYPE, accepts_broadcast };
        receiver.fetch(socket, |front, info| {
            let front = &front[..info.length.min(FRAME_MIN)];
            let verdict = filter::classify(front, info, &wanted);
            verdict.count(stats);
            verdict == Verdict::Ours
        })
    }

    /// Clears the socket's error, and returns whether it says that the link was down.
    fn take_error(&self) -> bool {
        matches!(self.socket.take_error(), Ok(Some(libc::ENETDOWN | libc::ENODEV)))
    }

    fn refresh(&mut self, failure: bool) {
        self.link.refresh(failure);
        if self.link.state() != LinkState::Gone
            && let Ok(mac) = self.link.mac()
        {
            self.mac = mac;
        }
    }

    /// Updates the link's state if `error` says that the link is down, and returns whether it does.
    fn link_failed(&mut self, error: &io::Error) -> bool {
        let down =
            matches!(error.raw_os_error(), Some(libc::ENETDOWN | libc::ENODEV | libc::ENXIO));
        if down {
            self.take_error();
            self.refresh(true);
        }
        // The kernel has unbound the socket (`packet_notifier`, NETDEV_UNREGISTER): the interface was deleted, or
        // moved to another network namespace from which it may have come back with its old index.
        if error.raw_os_error() == Some(libc::ENXIO) {
            self.link.lose();
        }
        down
    }
}

/// Returns the Ethernet header of a frame of the logging channel.
fn channel_header(source: MacAddr, destination: MacAddr) -> [u8; FRAME_MIN] {
    let mut header = [0; FRAME_MIN];
    let mut packet = MutableEthernetPacket::new(&mut header).expect("the size of a header");
    packet.set_destination(destination);
    packet.set_source(source);
    packet.set_ethertype(EtherType(CHANNEL_ETHERTYPE));
    header
}

fn cannot_receive(source: io::Error) -> PortError {
    PortError::System { doing: "cannot set up the packet socket for receiving", source }
}

fn cannot_duplicate(source: io::Error) -> PortError {
    PortError::System { doing: "cannot duplicate a descriptor", source }
}

fn open_socket() -> Result<PacketSocket, PortError> {
    PacketSocket::open().map_err(|e| match e.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => PortError::PacketPermission,
        _ => PortError::System { doing: "cannot open a packet socket", source: e },
    })
}

/// The index of an interface in the calling thread's network namespace.
fn interface_index(name: &str) -> Result<u32, PortError> {
    let interface = pnet_datalink::interfaces().into_iter().find(|i| i.name == name);
    interface.map(|i| i.index).ok_or_else(|| PortError::InterfaceMissing { name: name.into() })
}

impl fmt::Debug for PacketPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("PacketPort");
        debug.field("name", &self.name).field("link", &self.link.state());
        debug.field("stats", &self.stats).finish_non_exhaustive()
    }
}

impl FramePort for PacketPort {
    /// Always true if the port has no ring.
    #[inline]
    fn has_frame(&self) -> bool {
        self.receiver.may_have_frame()
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, PortError> {
        assert_receive_buffer(buffer);
        self.receive_with(|frame| {
            buffer[..frame.len()].copy_from_slice(frame);
            frame.len()
        })
    }

    fn send(&mut self, frame: &[u8]) -> Result<(), PortError> {
        let longest = FRAME_MAX.min(FRAME_MIN + self.mtu_bytes as usize);
        if !(FRAME_MIN..=longest).contains(&frame.len()) {
            self.stats.tx_bad_length += 1;
            return Ok(());
        }
        if !self.sender.push(frame) {
            self.flush()?;
            let pushed = self.sender.push(frame);
            assert!(pushed, "a flush frees every slot");
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), PortError> {
        if self.sender.queued() == 0 {
            return self.sender.start();
        }
        let sent = self.sender.flush()?;
        self.stats.tx_frames += sent.frames;
        self.stats.tx_bytes += sent.bytes;
        self.stats.tx_dropped += sent.refused;
        match sent.error {
            Some(error) => {
                // The other reason is a full queue, which says nothing about the link.
                self.link_failed(&io::Error::from_raw_os_error(error));
            }
            None if self.link.state() == LinkState::Down => self.refresh(false),
            None => {}
        }
        Ok(())
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        (self.link.state() != LinkState::Gone).then(|| self.socket.file())
    }

    fn handle_poll_event(&mut self) -> Result<(), PortError> {
        let failure = self.take_error();
        self.refresh(failure);
        Ok(())
    }

    /// Returns [`Wake::Frame`] only if the next `receive` will return a frame.
    ///
    /// # Errors
    ///
    /// [`PortError::InterfaceGone`] once the interface is gone.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<Wake, PortError> {
        self.flush()?;
        let policy = self.sender.policy();
        let (wake, looked) = wait::wait_on(self, &policy, timeout)?;
        self.looked = looked;
        Ok(wake)
    }
}

impl Waiter for PacketPort {
    fn look(&mut self) -> Result<bool, PortError> {
        self.sender.start()?;
        let found = match self.fetch() {
            // The failed call cleared the error, and frames that arrived before it are still there.
            Err(error) if self.link_failed(&error) => self.fetch(),
            result => result,
        };
        match found {
            Ok(found) => {
                if found && self.link.state() != LinkState::Up {
                    self.refresh(false);
                }
                Ok(found)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(source) => {
                Err(PortError::System { doing: "cannot receive from the packet socket", source })
            }
        }
    }

    fn announced(&self) -> bool {
        self.receiver.announced(&self.socket)
    }

    fn block(&mut self, left: Option<Duration>) -> Result<Blocked, PortError> {
        if self.link.state() == LinkState::Gone {
            return Err(PortError::InterfaceGone { name: self.name.clone() });
        }
        let timer = &mut self.timer;
        let ended = timer.set(left).and_then(|()| self.socket.block(timer, self.sender.mask()));
        match ended {
            Ok(false) => Ok(Blocked::Ended),
            Ok(true) => self.handle_poll_event().map(|()| Blocked::Ended),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(Blocked::Interrupted),
            Err(source) => Err(PortError::System { doing: "cannot wait in ppoll", source }),
        }
    }
}
