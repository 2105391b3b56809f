//! [`ReachProbe`]: asks an address on the LAN by ARP whether frames get there and back. It finds what carriers
//! do not show: a switch that forwards nothing, a wrong VLAN, a filter.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, recv, send};
use pnet::packet::Packet;
use pnet::packet::arp::{ArpHardwareTypes, ArpOperations, ArpPacket, MutableArpPacket};
use pnet::packet::ethernet::{EtherTypes, EthernetPacket, MutableEthernetPacket};

use crate::error::PortError;
use crate::mac::MacAddr;
use crate::netlink::{InterfaceSocket, Question};
use crate::sys::ioctl::InterfaceName;
use crate::sys::packet_socket::PacketSocket;

/// Interval of the questions while the address answers.
const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// How long an answer may take. After it, the question is asked again.
const ANSWER_MAX: Duration = Duration::from_millis(250);
/// After this many consecutive questions without an answer the address counts as unreachable.
pub const UNANSWERED_MAX: u32 = 3;
/// The longest time from an answer until the address counts as unreachable. Whoever asks at intervals adds up to one
/// of them for each question.
pub const UNREACHABLE_AFTER: Duration =
    ASK_INTERVAL.saturating_add(ANSWER_MAX.saturating_mul(UNANSWERED_MAX));

/// Most frames read in one turn: ARP of the whole LAN arrives at the socket.
const FRAMES_MAX: usize = 256;

const ETHERNET_BYTES: usize = 14;
const ARP_BYTES: usize = 28;
const REQUEST_BYTES: usize = ETHERNET_BYTES + ARP_BYTES;

/// Asks one address, from a bridge of this host, and never waits.
pub(super) struct ReachProbe {
    target: Ipv4Addr,
    open: OpenBridge,
    path: Option<Path>,
    questions: Questions,
}

/// A socket for ARP on the bridge that a tap is a port of.
#[derive(Debug)]
pub struct BridgeSocket {
    /// The index of the bridge.
    pub bridge: u32,
    /// The packet socket, bound to the bridge.
    pub socket: OwnedFd,
}

/// Opens such a socket. Whoever may open one, which needs CAP_NET_RAW, has made the function.
pub type OpenBridge = Box<dyn Fn() -> Result<BridgeSocket, PortError> + Send>;

impl BridgeSocket {
    /// Opens a socket on the bridge of `tap`, in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// There is no such tap, it is not a port of a bridge, or the socket can't be opened.
    pub fn open(tap: &str) -> Result<BridgeSocket, PortError> {
        let missing = || PortError::InterfaceMissing { name: tap.into() };
        let name = InterfaceName::new(tap)?;
        let found = InterfaceSocket::open()?.ask_for_one(&Question::Name(&name))?;
        let port = found.and_then(|tap| tap.port_of).ok_or_else(missing)?;
        let socket = PacketSocket::open()
            .and_then(|socket| socket.bind(port.bridge, EtherTypes::Arp.0).map(|()| socket))
            .map_err(PortError::system("cannot open a socket on the tap's bridge"))?;
        Ok(BridgeSocket { bridge: port.bridge, socket: socket.into() })
    }
}

/// A socket on a bridge.
struct Path {
    bridge: u32,
    socket: PacketSocket,
}

/// When was asked, and what became of it.
#[derive(Clone, Copy, Debug, Default)]
struct Questions {
    asked_at: Option<Instant>,
    is_open: bool,
    /// Consecutive questions without an answer.
    unanswered: u32,
}

impl ReachProbe {
    /// Returns a probe of `target`, which counts as reachable until it has not answered.
    pub(super) fn new(target: Ipv4Addr, open: OpenBridge) -> ReachProbe {
        ReachProbe { target, open, path: None, questions: Questions::default() }
    }

    /// Reads answers, and asks if it is time to. `bridge` is the index of the bridge that the VM's tap is a port
    /// of: without one there is nowhere to ask from, and nothing is known. Returns whether the address answers.
    pub(super) fn step(&mut self, bridge: Option<u32>, now: Instant) -> bool {
        let Some(bridge) = bridge else {
            self.path = None;
            self.questions = Questions::default();
            return true;
        };
        if self.path.as_ref().is_none_or(|path| path.bridge != bridge) {
            let socket = (self.open)().ok().filter(|socket| socket.bridge == bridge);
            let socket = socket.map(|BridgeSocket { socket, .. }| PacketSocket::from(socket));
            self.path = socket.map(|socket| Path { bridge, socket });
            self.questions.is_open = false;
        }
        if self.path.as_ref().is_some_and(|path| path.has_answer_of(self.target)) {
            self.questions.answer();
        }
        if self.questions.is_due(now) {
            self.questions.ask(now);
            if let Some(path) = &self.path {
                // A question that can't be sent (the bridge is down) is one without an answer.
                let _ = path.ask(self.target);
            }
        }
        self.questions.unanswered < UNANSWERED_MAX
    }
}

impl Questions {
    fn is_due(&self, now: Instant) -> bool {
        let wait = if self.is_open || self.unanswered > 0 { ANSWER_MAX } else { ASK_INTERVAL };
        self.asked_at.is_none_or(|at| now.duration_since(at) >= wait)
    }

    fn ask(&mut self, now: Instant) {
        if self.is_open {
            self.unanswered = self.unanswered.saturating_add(1);
        }
        self.is_open = true;
        self.asked_at = Some(now);
    }

    fn answer(&mut self) {
        self.is_open = false;
        self.unanswered = 0;
    }
}

impl Path {
    /// Sends a question. The address of a bridge may change with its ports, so it is asked for each time.
    fn ask(&self, target: Ipv4Addr) -> io::Result<()> {
        let fd = self.socket.file().as_raw_fd();
        let Some(octets) = self.socket.interface_mac()? else { return Ok(()) };
        send(fd, &request(MacAddr::from(octets), target), MsgFlags::MSG_DONTWAIT)?;
        Ok(())
    }

    /// Reads what has arrived. Returns whether an answer of `target` is among it.
    fn has_answer_of(&self, target: Ipv4Addr) -> bool {
        let fd = self.socket.file().as_raw_fd();
        let mut frame = [0; REQUEST_BYTES];
        let mut found = false;
        for _ in 0..FRAMES_MAX {
            // An error is of one frame (the bridge went down), or there is no frame.
            let Ok(length) = recv(fd, &mut frame, MsgFlags::MSG_DONTWAIT) else { break };
            found |= is_answer_of(target, &frame[..length]);
        }
        found
    }
}

/// Returns an ARP probe (RFC 5227, section 1.1): a request without a sender's protocol address, so that nobody
/// learns an address from it. The host need not have an address on the LAN.
fn request(source: MacAddr, target: Ipv4Addr) -> [u8; REQUEST_BYTES] {
    let mut bytes = [0; REQUEST_BYTES];
    let mut frame = MutableEthernetPacket::new(&mut bytes).expect("a header fits");
    frame.set_destination(MacAddr::broadcast());
    frame.set_source(source);
    frame.set_ethertype(EtherTypes::Arp);
    let mut arp = MutableArpPacket::new(&mut bytes[ETHERNET_BYTES..]).expect("ARP fits");
    arp.set_hardware_type(ArpHardwareTypes::Ethernet);
    arp.set_protocol_type(EtherTypes::Ipv4);
    arp.set_hw_addr_len(6);
    arp.set_proto_addr_len(4);
    arp.set_operation(ArpOperations::Request);
    arp.set_sender_hw_addr(source);
    arp.set_target_proto_addr(target);
    bytes
}

fn is_answer_of(target: Ipv4Addr, bytes: &[u8]) -> bool {
    let Some(frame) = EthernetPacket::new(bytes) else { return false };
    let Some(arp) = ArpPacket::new(frame.payload()) else { return false };
    frame.get_ethertype() == EtherTypes::Arp
        && arp.get_operation() == ArpOperations::Reply
        && arp.get_protocol_type() == EtherTypes::Ipv4
        && arp.get_sender_proto_addr() == target
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

    #[test]
    fn address_is_lost_after_three_questions_and_found_by_one_answer() {
        let start = Instant::now();
        let mut questions = Questions::default();
        let ask_at = |questions: &mut Questions, ms: u64| {
            let now = start + Duration::from_millis(ms);
            let due = questions.is_due(now);
            if due {
                questions.ask(now);
            }
            (due, questions.unanswered)
        };
        assert_eq!(ask_at(&mut questions, 0), (true, 0));
        questions.answer();
        assert_eq!(ask_at(&mut questions, 999), (false, 0), "it has just answered");
        assert_eq!(ask_at(&mut questions, 1000), (true, 0));
        assert_eq!(ask_at(&mut questions, 1249), (false, 0));
        for unanswered in 1..=4 {
            let ms = 1000 + 250 * u64::from(unanswered);
            assert_eq!(ask_at(&mut questions, ms), (true, unanswered));
        }
        questions.answer();
        assert_eq!(ask_at(&mut questions, 2999), (false, 0));
        assert_eq!(ask_at(&mut questions, 3000), (true, 0));
    }

    #[test]
    fn question_is_no_answer_and_only_a_reply_of_the_target_is_one() {
        let mut frame = request(MacAddr(2, 0, 0, 0, 0, 1), TARGET);
        assert!(!is_answer_of(TARGET, &frame), "a request");
        let mut arp = MutableArpPacket::new(&mut frame[ETHERNET_BYTES..]).unwrap();
        arp.set_operation(ArpOperations::Reply);
        arp.set_sender_proto_addr(TARGET);
        assert!(is_answer_of(TARGET, &frame));
        assert!(!is_answer_of(Ipv4Addr::new(10, 77, 0, 2), &frame));
        for length in 0..frame.len() {
            assert!(!is_answer_of(TARGET, &frame[..length]), "cut to {length} bytes");
        }
    }

    #[test]
    fn without_a_bridge_nothing_is_known() {
        let open = || panic!("there is no bridge");
        let mut probe = ReachProbe::new(TARGET, Box::new(open));
        let start = Instant::now();
        assert!((0..100).all(|s| probe.step(None, start + Duration::from_secs(s))));
    }
}
