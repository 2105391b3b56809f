//! The frames of the service LAN: requests of clients, and answers and announcements of the VM.
//!
//! ```text
//!  Ethernet | IPv4 | kind u8, client u8, id u32, value u64, data ... | check u64      a client's
//!  Ethernet | IPv4 | kind u8, client u8, id u32, value u64, data ... | number u64, check u64  the VM's
//!  Ethernet | ARP                                                    | number u64, check u64  the VM's
//! ```
//!
//! The bytes after an IPv4 packet or an ARP message look like padding to everybody else. *Number* counts the
//! frames that the VM has sent since boot, so that no two of them are equal. *Check* is the xxh3-64 digest of
//! all bytes before it. Numbers are little-endian.

use std::net::Ipv4Addr;

use netpath::MacAddr;
use xxhash_rust::xxh3::xxh3_64;

const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const MESSAGE_BYTES: usize = 1 + 1 + 4 + 8;
const CHECK_BYTES: usize = 8;
const NUMBER_BYTES: usize = 8;

/// Maximum length of a message's data, with which the frame has the maximum length that a port carries.
pub(crate) const DATA_BYTES_MAX: usize =
    1514 - ETHERNET_BYTES - IPV4_BYTES - MESSAGE_BYTES - NUMBER_BYTES - CHECK_BYTES;

/// The VM's MAC address.
pub(crate) const VM_MAC: MacAddr = MacAddr(0x52, 0x54, 0, 0, 0, 1);
/// The VM's IPv4 address.
pub(crate) const VM_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// The MAC and IPv4 address of a client.
pub(crate) fn client_addresses(client: u8) -> (MacAddr, Ipv4Addr) {
    (MacAddr(0x02, 0, 0, 0, 1, client), Ipv4Addr::new(10, 0, 0, 100 + client))
}

/// The kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A request for the next number.
    Count,
    /// A request for an echo.
    Echo,
    /// The answer to `Count`.
    Counted,
    /// The answer to `Echo`.
    Echoed,
    /// An unsolicited broadcast of the VM.
    Beacon,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Count, Self::Echo, Self::Counted, Self::Echoed, Self::Beacon];
}

/// The payload of an IPv4 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// The kind of message.
    pub(crate) kind: Kind,
    /// The client that asks or is answered.
    pub(crate) client: u8,
    /// The id of the client's request.
    pub(crate) id: u32,
    /// The number given, in an answer.
    pub(crate) value: u64,
    /// Arbitrary data.
    pub(crate) data: &'a [u8],
}

/// Builds a client's frame to the VM.
pub(crate) fn request(message: &Message<'_>) -> Vec<u8> {
    let mut frame = Vec::with_capacity(1514);
    write_message(&mut frame, message, false);
    seal(&mut frame);
    frame
}

/// Builds the VM's frame number `number`, to a client.
pub(crate) fn answer(message: &Message<'_>, number: u64) -> Vec<u8> {
    let mut frame = Vec::with_capacity(1514);
    write_message(&mut frame, message, true);
    frame.extend(number.to_le_bytes());
    seal(&mut frame);
    frame
}

/// Builds the VM's frame number `number`: a gratuitous ARP request (RFC 5227 section 3).
pub(crate) fn arp_announcement(number: u64) -> Vec<u8> {
    let mut frame = Vec::with_capacity(64);
    ethernet(&mut frame, MacAddr::broadcast(), VM_MAC, 0x0806);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(VM_MAC.octets());
    frame.extend(VM_IP.octets());
    frame.extend([0; 6]);
    frame.extend(VM_IP.octets());
    frame.extend(number.to_le_bytes());
    seal(&mut frame);
    frame
}

fn ethernet(frame: &mut Vec<u8>, to: MacAddr, from: MacAddr, kind: u16) {
    frame.extend(to.octets());
    frame.extend(from.octets());
    frame.extend(kind.to_be_bytes());
}

fn write_message(frame: &mut Vec<u8>, message: &Message<'_>, is_answer: bool) {
    let &Message { kind, client, id, value, data } = message;
    let (client_mac, client_ip) = client_addresses(client);
    let (mut to, mut from) = ((VM_MAC, VM_IP), (client_mac, client_ip));
    if is_answer {
        (to, from) = (from, to);
    }
    if kind == Kind::Beacon {
        to = (MacAddr::broadcast(), Ipv4Addr::BROADCAST);
    }
    ethernet(frame, to.0, from.0, 0x0800);
    let total = (IPV4_BYTES + MESSAGE_BYTES + data.len()) as u16;
    // Protocol 253 is for experiments (RFC 3692). The header's checksum is not checked here.
    frame.extend([0x45, 0]);
    frame.extend(total.to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 253, 0, 0]);
    frame.extend(from.1.octets());
    frame.extend(to.1.octets());
    frame.extend([kind as u8, client]);
    frame.extend(id.to_le_bytes());
    frame.extend(value.to_le_bytes());
    frame.extend(data);
}

fn seal(frame: &mut Vec<u8>) {
    let check = xxh3_64(frame);
    frame.extend(check.to_le_bytes());
}

/// Returns a frame without its check, or `None` if the check is wrong.
fn unsealed(frame: &[u8]) -> Option<&[u8]> {
    let (rest, check) = frame.split_last_chunk()?;
    (xxh3_64(rest) == u64::from_le_bytes(*check)).then_some(rest)
}

/// The destination and source MAC address of a frame.
pub(crate) fn stations(frame: &[u8]) -> Option<(MacAddr, MacAddr)> {
    let to: [u8; 6] = frame.get(..6)?.try_into().ok()?;
    let from: [u8; 6] = frame.get(6..12)?.try_into().ok()?;
    Some((to.into(), from.into()))
}

/// The number of a frame of the VM; `None` if it is not one, or was changed.
pub(crate) fn number(frame: &[u8]) -> Option<u64> {
    let (_, from) = stations(frame)?;
    let (_, number) = unsealed(frame)?.split_last_chunk()?;
    (from == VM_MAC).then_some(u64::from_le_bytes(*number))
}

/// Decodes a client's request; `None` if it is not one, or was changed.
pub(crate) fn read_request(frame: &[u8]) -> Option<Message<'_>> {
    let (to, _) = stations(frame)?;
    let message = read_message(unsealed(frame)?)?;
    let is_request = match message.kind {
        Kind::Count | Kind::Echo => true,
        Kind::Counted | Kind::Echoed | Kind::Beacon => false,
    };
    (to == VM_MAC && is_request).then_some(message)
}

/// Decodes an answer of the VM; `None` if it is not one, or was changed.
pub(crate) fn read_answer(frame: &[u8]) -> Option<Message<'_>> {
    number(frame)?;
    let (rest, _) = unsealed(frame)?.split_last_chunk::<NUMBER_BYTES>()?;
    let message = read_message(rest)?;
    match message.kind {
        Kind::Counted | Kind::Echoed => Some(message),
        Kind::Count | Kind::Echo | Kind::Beacon => None,
    }
}

fn read_message(frame: &[u8]) -> Option<Message<'_>> {
    if frame.get(12..14)? != [8, 0] {
        return None;
    }
    let packet = frame.get(ETHERNET_BYTES + IPV4_BYTES..)?;
    let (&[kind, client], rest) = packet.split_first_chunk()?;
    let (&id, rest) = rest.split_first_chunk()?;
    let (&value, data) = rest.split_first_chunk()?;
    let kind = *Kind::ALL.get(usize::from(kind))?;
    let (id, value) = (u32::from_le_bytes(id), u64::from_le_bytes(value));
    Some(Message { kind, client, id, value, data })
}

#[cfg(test)]
mod tests {
    use super::*;
    use replication::announce::{Evidence, GuestAddresses};

    #[test]
    fn messages_round_trip_and_changed_ones_are_rejected() {
        let data = [7; DATA_BYTES_MAX];
        let message = Message { kind: Kind::Count, client: 3, id: 9, value: 0, data: &data };
        let mut frame = request(&message);
        assert_eq!(read_request(&frame), Some(message));
        assert_eq!((read_answer(&frame), number(&frame)), (None, None));
        frame[40] ^= 1;
        assert_eq!(read_request(&frame), None);
        let message = Message { kind: Kind::Counted, value: 77, ..message };
        let frame = answer(&message, 12);
        assert_eq!((read_answer(&frame), number(&frame)), (Some(message), Some(12)));
        assert_eq!((read_request(&frame), frame.len()), (None, 1514));
        assert_eq!(number(&arp_announcement(13)), Some(13));
    }

    #[test]
    fn hosts_learn_the_vm_s_addresses_from_its_frames() {
        let learned = |frame: &[u8]| {
            let mut addresses = GuestAddresses::new(VM_MAC);
            addresses.learn(frame);
            let known: Vec<_> = addresses.ipv4().collect();
            known.first().map(|entry| (entry.address, entry.evidence))
        };
        assert_eq!(learned(&arp_announcement(1)), Some((VM_IP, Evidence::Claimed)));
        let message = Message { kind: Kind::Echoed, client: 1, id: 1, value: 0, data: &[] };
        assert_eq!(learned(&answer(&message, 2)), Some((VM_IP, Evidence::Seen)));
    }
}
