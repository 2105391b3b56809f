//! RTM_GETLINK requests and RTM_NEWLINK messages (rtnetlink(7), linux/if_link.h).

use std::io;

use crate::mac::MacAddr;
use crate::sys::ioctl::InterfaceName;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
/// NLM_F_ROOT | NLM_F_MATCH
const NLM_F_DUMP: u16 = 0x300;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_STATE: u16 = 1;
/// Bits of an attribute's type that are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
const TYPE_FLAGS: u16 = 0xc000;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
const BR_STATE_FORWARDING: u8 = 3;

/// `struct nlmsghdr` and `struct ifinfomsg`.
const HEADER_BYTES: usize = 16;
const IFINFO_BYTES: usize = 16;

/// What to ask for.
pub(crate) enum Question<'a> {
    /// The interface of a name.
    Name(&'a InterfaceName),
    /// The interface of an index.
    Index(u32),
    /// All ports of the bridge with this index.
    Ports(u32),
}

/// An interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) index: u32,
    pub(crate) is_up: bool,
    pub(crate) has_carrier: bool,
    /// Its address, if it is an Ethernet address.
    pub(crate) mac: Option<MacAddr>,
    /// Its MTU.
    pub(crate) mtu_bytes: u32,
    /// It is a tap (or a tun device).
    pub(crate) is_tap: bool,
    /// The bridge that it is a port of.
    pub(crate) port_of: Option<BridgePort>,
}

/// An interface as a port of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BridgePort {
    /// Index of the bridge.
    pub(crate) bridge: u32,
    /// The bridge forwards frames from and to this port.
    pub(crate) forwards: bool,
}

/// Returns the request message for `question`.
pub(super) fn request(question: &Question<'_>) -> Vec<u8> {
    let (index, flags) = match question {
        Question::Name(_) => (0, NLM_F_REQUEST),
        Question::Index(index) => (*index, NLM_F_REQUEST),
        Question::Ports(_) => (0, NLM_F_REQUEST | NLM_F_DUMP),
    };
    let mut message = vec![0; HEADER_BYTES + IFINFO_BYTES];
    message[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
    message[6..8].copy_from_slice(&flags.to_ne_bytes());
    message[HEADER_BYTES + 4..HEADER_BYTES + 8].copy_from_slice(&index.to_ne_bytes());
    match question {
        Question::Name(name) => push_attribute(&mut message, IFLA_IFNAME, name.with_nul()),
        Question::Index(_) => {}
        Question::Ports(bridge) => {
            push_attribute(&mut message, IFLA_MASTER, &bridge.to_ne_bytes());
        }
    }
    push_attribute(&mut message, IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
    let length = message.len() as u32;
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message
}

fn push_attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = 4 + value.len() as u16;
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// Whether more messages of an answer follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum More {
    Yes,
    No,
}

/// Appends the interfaces that the messages in `datagram` describe to `found`. Returns whether the answer to
/// `question` goes on in another datagram.
///
/// # Errors
///
/// The kernel's error, or `InvalidData` if the bytes are not messages.
pub(super) fn read_answer(
    question: &Question<'_>,
    datagram: &[u8],
    found: &mut Vec<Interface>,
) -> io::Result<More> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let length = word(rest, 0).ok_or_else(malformed)? as usize;
        let kind = half_word(rest, 4).ok_or_else(malformed)?;
        if length < HEADER_BYTES {
            return Err(malformed());
        }
        let body = rest.get(HEADER_BYTES..length).ok_or_else(malformed)?;
        match kind {
            RTM_NEWLINK => found.push(interface(body).ok_or_else(malformed)?),
            // A dump that ended because of an error has a number below zero here, an older kernel nothing.
            NLMSG_DONE | NLMSG_ERROR => {
                let error = word(body, 0).map_or(0, u32::cast_signed);
                return match error {
                    0 => Ok(More::No),
                    _ => Err(io::Error::from_raw_os_error(error.saturating_neg())),
                };
            }
            // NLMSG_NOOP and what a later kernel may add.
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(match question {
        Question::Name(_) | Question::Index(_) if !found.is_empty() => More::No,
        Question::Name(_) | Question::Index(_) | Question::Ports(_) => More::Yes,
    })
}

/// Reads the body of an RTM_NEWLINK message.
fn interface(body: &[u8]) -> Option<Interface> {
    let index = word(body, 4)?;
    let flags = word(body, 8)?.cast_signed();
    let (mut is_tap, mut master, mut is_port, mut forwards) = (false, None, false, false);
    let (mut mac, mut mtu_bytes) = (None, 0);
    for (kind, value) in attributes(body.get(IFINFO_BYTES..)?) {
        match kind {
            IFLA_ADDRESS => mac = <[u8; 6]>::try_from(value).ok().map(MacAddr::from),
            IFLA_MTU => mtu_bytes = word(value, 0)?,
            IFLA_MASTER => master = word(value, 0),
            IFLA_LINKINFO => {
                for (kind, value) in attributes(value) {
                    match kind {
                        IFLA_INFO_KIND => is_tap = value.starts_with(b"tun"),
                        IFLA_INFO_SLAVE_KIND => is_port = value.starts_with(b"bridge"),
                        IFLA_INFO_SLAVE_DATA => forwards = is_forwarding(value),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let port_of = master.filter(|_| is_port).map(|bridge| BridgePort { bridge, forwards });
    let is = |flag: libc::c_int| flags & flag != 0;
    let (is_up, has_carrier) = (is(libc::IFF_UP), is(libc::IFF_LOWER_UP));
    Some(Interface { index, is_up, has_carrier, mac, mtu_bytes, is_tap, port_of })
}

fn is_forwarding(bridge_port: &[u8]) -> bool {
    attributes(bridge_port)
        .any(|(kind, value)| kind == IFLA_BRPORT_STATE && value == [BR_STATE_FORWARDING])
}

/// Returns the attributes in `bytes`: type and value. Ends at the first one that is not complete.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(half_word(rest, 0)?);
        let kind = half_word(rest, 2)? & !TYPE_FLAGS;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half_word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed netlink message")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns an RTM_NEWLINK message of a bridge's port.
    fn port_message(index: u32, flags: u32, state: u8) -> Vec<u8> {
        let mut data = Vec::new();
        push_attribute(&mut data, IFLA_BRPORT_STATE, &[state]);
        let mut info = Vec::new();
        push_attribute(&mut info, IFLA_INFO_KIND, b"tun\0");
        push_attribute(&mut info, IFLA_INFO_SLAVE_KIND, b"bridge\0");
        push_attribute(&mut info, IFLA_INFO_SLAVE_DATA, &data);
        let mut message = vec![0; HEADER_BYTES + IFINFO_BYTES];
        message[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
        message[20..24].copy_from_slice(&index.to_ne_bytes());
        message[24..28].copy_from_slice(&flags.to_ne_bytes());
        push_attribute(&mut message, IFLA_IFNAME, b"tap0\0");
        push_attribute(&mut message, IFLA_ADDRESS, &[2, 0, 0, 0, 0, 1]);
        push_attribute(&mut message, IFLA_MTU, &1400_u32.to_ne_bytes());
        push_attribute(&mut message, IFLA_MASTER, &9_u32.to_ne_bytes());
        push_attribute(&mut message, IFLA_LINKINFO, &info);
        let length = message.len() as u32;
        message[..4].copy_from_slice(&length.to_ne_bytes());
        message
    }

    fn end_message(kind: u16, error: i32) -> Vec<u8> {
        let mut message = vec![0; HEADER_BYTES];
        message[..4].copy_from_slice(&20_u32.to_ne_bytes());
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message.extend(error.to_ne_bytes());
        message
    }

    #[test]
    fn port_of_bridge_is_read_from_its_message() {
        let up = (libc::IFF_UP | libc::IFF_LOWER_UP).cast_unsigned();
        let datagram = [port_message(4, up, 3), port_message(5, 0, 1)].concat();
        let mut found = Vec::new();
        let more = read_answer(&Question::Ports(9), &datagram, &mut found).unwrap();
        let port = |forwards| Some(BridgePort { bridge: 9, forwards });
        let (index, is_tap, port_of) = (4, true, port(true));
        let mac = Some(MacAddr(2, 0, 0, 0, 0, 1));
        let (is_up, has_carrier, mtu_bytes) = (true, true, 1400);
        let first = Interface { index, is_up, has_carrier, mac, mtu_bytes, is_tap, port_of };
        let (index, port_of) = (5, port(false));
        let second = Interface { index, is_up: false, has_carrier: false, port_of, ..first };
        assert_eq!((more, &found[..]), (More::Yes, &[first, second][..]));
        let end = end_message(NLMSG_DONE, 0);
        assert_eq!(read_answer(&Question::Ports(9), &end, &mut found).unwrap(), More::No);
        let one = port_message(4, up, 3);
        assert_eq!(read_answer(&Question::Index(4), &one, &mut Vec::new()).unwrap(), More::No);
    }

    #[test]
    fn kernels_error_is_returned() {
        let error = end_message(NLMSG_ERROR, -libc::ENODEV);
        let error = read_answer(&Question::Index(4), &error, &mut Vec::new()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn damaged_messages_are_errors_or_fewer_facts_but_no_panics() {
        let mut rng = fastrand::Rng::with_seed(1);
        let good = [port_message(4, 1, 3), end_message(NLMSG_DONE, -1)].concat();
        for _ in 0..50_000 {
            let mut bytes = good.clone();
            bytes.truncate(rng.usize(..=good.len()));
            for _ in 0..rng.usize(..4) {
                if !bytes.is_empty() {
                    let at = rng.usize(..bytes.len());
                    bytes[at] = *rng.choice([0, 1, 3, 0x7f, 0x80, 0xff].iter()).unwrap();
                }
            }
            let _ = read_answer(&Question::Ports(9), &bytes, &mut Vec::new());
        }
    }
}
