//! Finds the likeliest reason why no peer was met, or why it is no longer heard.

use super::LinkReport;
use logchan::ids::VmId;
use logchan::seal;
use netpath::{LinkState, MacAddr};

/// Returns the likeliest reason why `vm` has met no peer, in one line, from the state of the interface and from
/// the counters.
pub fn why_nobody(report: &LinkReport, interface: &str, (peer, vm): (MacAddr, VmId)) -> String {
    why_state_stops_frames(report.state, interface)
        .unwrap_or_else(|| from_counts(report, interface, (peer, vm)))
}

/// Returns what is wrong with an interface in `state` and what to do; `None` if it is up.
pub fn why_state_stops_frames(state: LinkState, interface: &str) -> Option<String> {
    let name = interface;
    match state {
        LinkState::Up => None,
        LinkState::Down => Some(format!("interface {name} is down: 'ip link set {name} up'")),
        LinkState::NoCarrier => {
            Some(format!("interface {name} has no carrier: is the other end connected and up?"))
        }
        LinkState::BridgePort => Some(format!(
            "interface {name} is a port of a bridge, which takes its frames: 'ip link set {name} nomaster', \
             or use the bridge as the log interface"
        )),
        LinkState::Gone => Some(format!(
            "the log interface {name} is gone: it was deleted or moved to another network namespace"
        )),
    }
}

fn from_counts(report: &LinkReport, interface: &str, (peer, vm): (MacAddr, VmId)) -> String {
    let LinkReport { port, link, other_senders: _, last_other, other_vm, state: _ } = report;
    let open = link.open;
    if link.forged_handshakes > 0 {
        "the peer uses another key: compare the key files of the two hosts".into()
    } else if open.other_protection > 0 {
        "one side runs with --insecure and the other one without: use the key on both".into()
    } else if open.malformed > 0 {
        format!(
            "{} malformed frames came: does the other host run the same version (frame format {})?",
            open.malformed,
            seal::VERSION
        )
    } else if let Some(other) = last_other {
        format!(
            "frames came from {other}, but none from {peer}: is that the other host's MAC address?"
        )
    } else if let Some(VmId(other)) = other_vm {
        format!(
            "{peer} asks for a peer of VM {other}, and no frame came for VM {}: is the other host of this VM started, \
             with the same --vm-id?",
            vm.0
        )
    } else if port.rx_own > 0 {
        format!(
            "interface {interface} hears only this host's own frames: is there a loop, or do both hosts have \
             the same MAC address?"
        )
    } else if port.rx_foreign_mac > 0 {
        "frames came for another MAC address than this host's: check --peer on the other host"
            .into()
    } else {
        let dropped_note = match port.tx_dropped {
            0 => String::new(),
            dropped => format!(" (the kernel dropped {dropped} frames that this host sent)"),
        };
        format!(
            "no frame came from {peer}{dropped_note}: is the other host started, on this network, \
             and given this host's MAC address with --peer?"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use logchan::handshake::LinkStats;
    use netpath::PacketStats;

    #[test]
    fn reason_from_counts_is_one_line() {
        let none = LinkReport {
            port: PacketStats::default(),
            link: LinkStats::default(),
            other_senders: 0,
            last_other: None,
            other_vm: None,
            state: LinkState::Up,
        };
        let says = |edit: fn(&mut LinkReport), part: &str| {
            let mut report = none;
            edit(&mut report);
            let text = from_counts(&report, "log0", (MacAddr(2, 0, 0, 0, 0, 0xb), VmId(1)));
            assert!(text.contains(part) && !text.contains('\n'), "{text}");
        };
        says(|_| (), "no frame came from 02:00:00:00:00:0b: is the other host started");
        says(|report| report.port.tx_dropped = 7, "(the kernel dropped 7 frames that this host");
        says(|report| report.port.rx_foreign_mac = 1, "another MAC address than this host's");
        let other = |report: &mut LinkReport| {
            report.other_senders = 1;
            report.last_other = Some(MacAddr(2, 0, 0, 0, 0, 0xc));
        };
        says(other, "frames came from 02:00:00:00:00:0c, but none from 02:00:00:00:00:0b");
        says(
            |report| report.other_vm = Some(VmId(2)),
            "02:00:00:00:00:0b asks for a peer of VM 2, and no frame came for VM 1:",
        );
        says(|report| report.port.rx_own = 1, "interface log0 hears only this host's own frames");
        says(|report| report.link.open.malformed = 3, "3 malformed frames came");
        says(|report| report.link.open.other_protection = 1, "--insecure");
        says(|report| report.link.forged_handshakes = 1, "another key");
    }

    #[test]
    fn reason_from_state_comes_before_counts_and_names_interface() {
        let mut report = LinkReport {
            port: PacketStats::default(),
            link: LinkStats::default(),
            other_senders: 1,
            last_other: Some(MacAddr(2, 0, 0, 0, 0, 0xc)),
            other_vm: None,
            state: LinkState::Up,
        };
        let peer = MacAddr(2, 0, 0, 0, 0, 0xb);
        for (state, part) in [
            (LinkState::Up, "none from"),
            (LinkState::Down, "'ip link set log0 up'"),
            (LinkState::NoCarrier, "interface log0 has no carrier"),
            (LinkState::BridgePort, "log0 is a port of a bridge"),
            (LinkState::Gone, "the log interface log0 is gone"),
        ] {
            report.state = state;
            let text = why_nobody(&report, "log0", (peer, VmId(1)));
            assert!(text.contains(part) && !text.contains('\n'), "{text}");
        }
    }
}
