//! [`PacketPort`]: raw Ethernet frames of one EtherType on one interface.
//!
//! - `receive`: a ring shared with the kernel, or system calls
//! - `filter`: which frames are for us
//! - `link`: what became of the interface
//! - `plain`: a packet socket and nothing else, to compare the port with

mod config;
mod filter;
mod link;
mod plain;
mod receive;

pub use config::{PacketConfig, PacketStats};
pub use link::LinkState;
pub use plain::plain_socket;
pub use receive::ReceivePath;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use pnet::packet::ethernet::{EtherType, MutableEthernetPacket};

use self::filter::Verdict;
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

/// The least MTU in bytes that a port accepts: what every IPv4 host must take in one piece (RFC 791,
/// section 3.1), and twice what the channel needs for a sealed frame of its least size.
pub const MTU_BYTES_MIN: u32 = 576;

/// Frames that wait in a port to be received, at most. The kernel drops and counts what comes beyond.
pub const RECEIVE_FRAMES: usize = SLOTS;

/// A moment in the arrival of a port's frames: [`PacketPort::arrived`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(u64);

/// A port for frames of [`CHANNEL_ETHERTYPE`] between this interface and others on its LAN (Linux 6.1
/// or newer, CAP_NET_RAW).
///
/// Frames come and go with their Ethernet header; [`header_to`](Self::header_to) makes one. Delivered
/// are frames to the interface's own address, of the EtherType, without a VLAN; all others are counted.
/// Short frames are delivered as they come, which may be padded to 60 bytes.
///
/// **Threads.** As with [`TapPort`](crate::TapPort): the thread that uses the port first owns it; another
/// one cannot send.
///
/// **Bounds.** [`RECEIVE_FRAMES`] wait to be received. Up to 128 frames are queued by `send` before it flushes by itself. Memory: 0.8 MiB.
///
/// **The link.** Sending never blocks and never fails for the link's sake: frames for a link that is down
/// are dropped and counted. What happened to the link is in [`link`](Self::link) and
/// [`next_link_event`](Self::next_link_event), as far as the port came across it: by sending, receiving
/// or blocking. [`check_link`](Self::check_link) asks. Only [`wait`](FramePort::wait) fails once
/// the interface is gone, because nothing can end it any more.
pub struct PacketPort {
    // Before `socket`: the ring lets go of the socket first.
    sender: SendRing,
    receiver: Receiver,
    socket: PacketSocket,
    /// Ends a wait.
    timer: Timer,
    /// See [`looked`](Self::looked).
    looked: Option<Duration>,
    link: Link,
    name: String,
    mac: MacAddr,
    mtu_bytes: u32,
    stats: PacketStats,
}

impl PacketPort {
    /// Opens a port in the calling thread's network namespace and begins to receive. An interface that
    /// is down is no error: see [`link`](Self::link) and [`down_hint`](Self::down_hint).
    pub fn open(config: &PacketConfig) -> Result<PacketPort, PortError> {
        let name = config.interface.clone();
        InterfaceName::new(&name)?;
        let socket = open_socket()?;
        let index = interface_index(&name)?;
        let control = ioctl::control_socket()
            .map_err(PortError::system("cannot open a socket for interface requests"))?;
        let link = Link::new(control, index);
        if !link.is_ethernet()? {
            return Err(PortError::NotEthernet { name });
        }
        let (mac, mtu_bytes) = (link.mac()?, link.mtu()?);
        if mtu_bytes < MTU_BYTES_MIN {
            return Err(PortError::MtuTooSmall { name, mtu_bytes, min_bytes: MTU_BYTES_MIN });
        }
        // The ring first: a frame must not come before there is a place for it.
        let receiver = Receiver::new(&socket, config.receive)
            .map_err(PortError::system("cannot prepare the packet socket for receiving"))?;
        socket
            .bind(index, CHANNEL_ETHERTYPE)
            .map_err(PortError::system("cannot bind the packet socket"))?;
        let sender = SendRing::new(socket.file(), &name, config.wait)?;
        let stats = PacketStats::default();
        let timer = Timer::new().map_err(PortError::system("cannot make a timer"))?;
        let port = PacketPort {
            sender,
            receiver,
            socket,
            timer,
            looked: None,
            link,
            name,
            mac,
            mtu_bytes,
            stats,
        };
        // Binding to an interface that is down leaves an error behind; the state says it already.
        port.take_error();
        Ok(port)
    }

    /// Makes the calling thread the port's owner. Optional: the first use does the same.
    pub fn start(&mut self) -> Result<(), PortError> {
        self.sender.start()
    }

    /// One line that says what was chosen, for a log.
    pub fn describe(&self) -> String {
        let PacketPort { name, mac, mtu_bytes, receiver, .. } = self;
        let WaitPolicy { spin, yield_after, wake_signal: _ } = self.sender.policy();
        format!(
            "{name} ({mac}, MTU {mtu_bytes}, {:?}): receive by {receiver}; send by io_uring, completions \
             for refusals only; wait {spin:?} looking (yielding after {yield_after:?}), then ppoll",
            self.link.state()
        )
    }

    /// The interface's name, as given at opening.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's own address, read at opening and each time its link comes up.
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    /// Bytes behind the Ethernet header, read at opening; a port uses 1500 of them at most.
    pub fn mtu_bytes(&self) -> u32 {
        self.mtu_bytes
    }

    /// The Ethernet header of frames to `destination`.
    pub fn header_to(&self, destination: MacAddr) -> [u8; FRAME_MIN] {
        let mut header = [0; FRAME_MIN];
        let mut packet = MutableEthernetPacket::new(&mut header).expect("the size of a header");
        packet.set_destination(destination);
        packet.set_source(self.mac);
        packet.set_ethertype(EtherType(CHANNEL_ETHERTYPE));
        header
    }

    /// The link's state when the port last came across it: no system call.
    pub fn link(&self) -> LinkState {
        self.link.state()
    }

    /// Asks the kernel for the link's state. It learns of a lost carrier with a delay of up to a
    /// second (its link watch is rate-limited).
    pub fn check_link(&mut self) -> LinkState {
        let failure = self.take_error();
        self.refresh(failure);
        self.link.state()
    }

    /// The next change of the link's state that was not fetched yet; the last 16 are kept.
    pub fn next_link_event(&mut self) -> Option<LinkState> {
        self.link.next_event()
    }

    /// One line for a user whose interface is down.
    pub fn down_hint(&self) -> String {
        let name = &self.name;
        format!("interface {name} is down: 'ip link set {name} up'")
    }

    /// Bytes of frames that wait below this port: in the interface's queue, or in its driver's until that
    /// reports them sent. As the kernel accounts for them, which is some 2300 bytes for a full frame. A
    /// system call. Interfaces that let go of frames before they are sent (veth) say 0.
    pub fn unsent_bytes(&self) -> Result<u32, PortError> {
        self.socket
            .unsent_bytes()
            .map_err(PortError::system("cannot ask for the bytes not yet sent"))
    }

    /// What the port counted so far. A system call: the kernel counts its drops.
    pub fn stats(&mut self) -> PacketStats {
        // Reading resets the kernel's counter; on failure its count is there the next time.
        self.stats.rx_kernel_drops += self.socket.take_drops().map_or(0, u64::from);
        let (link_downs, enters) = (self.link.downs, self.sender.enters());
        PacketStats { link_downs, enters, ..self.stats }
    }

    /// Takes the next received frame and lends it in place, to be read or decrypted there; `None` when
    /// there is none. Never blocks.
    pub fn receive_with<R>(
        &mut self,
        with: impl FnOnce(&mut [u8]) -> R,
    ) -> Result<Option<R>, PortError> {
        self.receive_until(Mark(u64::MAX), with)
    }

    /// Notes which frames have arrived by now, `at_most` of them; `None` when there is none.
    pub fn arrived(&mut self, at_most: usize) -> Result<Option<Mark>, PortError> {
        if !self.look()? {
            return Ok(None);
        }
        Ok(Some(Mark(self.receiver.arrived(at_most))))
    }

    /// If the last wait saw a frame while it was looking: a time after its beginning and, by a microsecond
    /// or two if the thread is not held up, before it saw the frame. Nobody has to read the clock for it.
    pub fn looked(&self) -> Option<Duration> {
        self.looked
    }

    /// As [`receive_with`](Self::receive_with), but only a frame that had arrived when `mark` was taken:
    /// a clock that was read since shows a time after its arrival.
    pub fn receive_until<R>(
        &mut self,
        mark: Mark,
        with: impl FnOnce(&mut [u8]) -> R,
    ) -> Result<Option<R>, PortError> {
        // Both times: the frames on the way to the next of ours may go beyond the mark.
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

    /// Goes on to the next frame that is ours; whether there is one.
    fn fetch(&mut self) -> io::Result<bool> {
        let PacketPort { receiver, socket, stats, mac, .. } = self;
        receiver.fetch(socket, |front, info| {
            let front = &front[..info.length.min(FRAME_MIN)];
            let verdict = filter::judge(front, info, *mac, CHANNEL_ETHERTYPE);
            verdict.count(stats);
            verdict == Verdict::Ours
        })
    }

    /// Clears the socket's error; whether the link was down.
    fn take_error(&self) -> bool {
        matches!(self.socket.take_error(), Ok(Some(libc::ENETDOWN | libc::ENODEV)))
    }

    fn refresh(&mut self, failure: bool) {
        self.link.refresh(failure);
        if self.link.state() == LinkState::Up
            && let Ok(mac) = self.link.mac()
        {
            self.mac = mac;
        }
    }

    /// Sorts out an error that may be the link's.
    fn link_failed(&mut self, error: &io::Error) -> bool {
        let down =
            matches!(error.raw_os_error(), Some(libc::ENETDOWN | libc::ENODEV | libc::ENXIO));
        if down {
            self.take_error();
            self.refresh(true);
        }
        down
    }
}

fn open_socket() -> Result<PacketSocket, PortError> {
    PacketSocket::open().map_err(|e| match e.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => PortError::PacketPermission,
        _ => PortError::System { doing: "cannot open a packet socket", source: e },
    })
}

/// The index of an interface in the calling thread's network namespace.
fn interface_index(name: &str) -> Result<u32, PortError> {
    let interface = pnet::datalink::interfaces().into_iter().find(|i| i.name == name);
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
                // No room in a queue is the other reason, and says nothing of the link.
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

    fn attend(&mut self) -> Result<(), PortError> {
        let failure = self.take_error();
        self.refresh(failure);
        Ok(())
    }

    /// Returns [`Wake::Frame`] only when `receive` will give a frame.
    ///
    /// Fails with [`PortError::InterfaceGone`] once the interface is.
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
            // The error is spent, and does not hide the frames that came before it.
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
            Ok(true) => self.attend().map(|()| Blocked::Ended),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(Blocked::Interrupted),
            Err(source) => Err(PortError::System { doing: "cannot wait in ppoll", source }),
        }
    }
}
