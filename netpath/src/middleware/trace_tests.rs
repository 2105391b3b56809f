use super::*;
use crate::port::FRAME_MAX;
use crate::testing;

const SOURCE: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];

fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(SOURCE);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

fn ipv4_packet(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((20 + payload.len() as u16).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet.extend(payload);
    packet
}

#[test]
fn arp_lines() {
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1];
    arp.extend(SOURCE);
    arp.extend([10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2]);
    assert_eq!(
        describe(&ethernet(0x0806, &arp)).to_string(),
        "52:54:00:00:00:01 > ff:ff:ff:ff:ff:ff 42 bytes ARP who-has 10.0.0.2 tell 10.0.0.1"
    );
    arp[7] = 2;
    let reply = describe(&ethernet(0x0806, &arp)).to_string();
    assert!(reply.ends_with("ARP 10.0.0.1 is-at 52:54:00:00:00:01"), "{reply}");
    arp[7] = 1;
    arp[27] = 1;
    let gratuitous = describe(&ethernet(0x0806, &arp)).to_string();
    assert!(gratuitous.ends_with("ARP announces 10.0.0.1"), "{gratuitous}");
}

#[test]
fn ip_lines() {
    let echo = ipv4_packet(1, &[8, 0, 0, 0, 0x12, 0x34, 0, 7]);
    let line = describe(&ethernet(0x0800, &echo)).to_string();
    assert!(line.ends_with("Icmp 10.0.0.1 > 10.0.0.2 echo request id 4660 seq 7"), "{line}");

    let udp = ipv4_packet(17, &[0, 7, 0x1b, 0x58, 0, 12, 0, 0, 1, 2, 3, 4]);
    let line = describe(&ethernet(0x0800, &udp)).to_string();
    assert!(line.ends_with("Udp 10.0.0.1:7 > 10.0.0.2:7000 length 12"), "{line}");

    let mut segment = vec![0, 7, 0x1b, 0x58, 0, 0, 0, 5, 0, 0, 0, 9, 0x50, 0x12, 0, 0, 0, 0, 0, 0];
    segment.extend(b"abc");
    let line = describe(&ethernet(0x0800, &ipv4_packet(6, &segment))).to_string();
    let end = "Tcp 10.0.0.1:7 > 10.0.0.2:7000 [S.] seq 5 ack 9 length 3";
    assert!(line.ends_with(end), "{line}");
}

#[test]
fn describe_of_any_bytes_is_one_line_without_panic() {
    let udp = ethernet(0x0800, &ipv4_packet(17, &[0; 12]));
    for length in 0..udp.len() {
        assert!(!describe(&udp[..length]).to_string().contains('\n'));
    }
    // Every value of every header byte, on all three parsed types.
    for ethertype in [0x0800, 0x0806, 0x86dd, 0x88b5] {
        for at in 14..54 {
            for value in 0..=255 {
                let mut frame = ethernet(ethertype, &ipv4_packet(6, &[0x55; 60]));
                frame[at] = value;
                assert!(!describe(&frame).to_string().is_empty());
            }
        }
    }
    assert_eq!(describe(&[0; 5]).to_string(), "5 bytes, too short for Ethernet");
}

#[test]
fn traced_port_passes_frames_through() {
    let (a, mut b) = testing::pair();
    let mut port = Trace::new(a, "tap0");
    port.send(&ethernet(0x88b5, &[1])).unwrap();
    port.flush().unwrap();
    assert_eq!(b.receive(&mut [0; FRAME_MAX]).unwrap(), Some(15));
}
