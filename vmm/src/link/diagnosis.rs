//! Finds the likeliest reason why no peer was met, or why it is no longer heard.

use super::LinkReport;
use logchan::seal;
use netpath::{LinkState, MacAddr, PacketPort};

/// Returns the likeliest reason why no peer was met, in one line, from the state of the interface and from
/// the counters.
pub fn why_nobody(report: &LinkReport, port: &PacketPort, peer: MacAddr) -> String {
    why_no_frame_passes(port).unwrap_or_else(|| from_counts(report, &peer.to_string()))
}

/// Returns what is wrong with the interface and what to do; `None` if it is up.
pub fn why_no_frame_passes(port: &PacketPort) -> Option<String> {
    let name = port.name();
    match port.link() {
        LinkState::Up => None,
        LinkState::Down => Some(port.down_hint()),
        LinkState::NoCarrier => {
            Some(format!("interface {name} has no carrier: is the other end connected and up?"))
        }
        LinkState::BridgePort => Some(format!(
            "interface {name} is a port of a bridge, which takes its frames: 'ip link set {name} nomaster', \
             or use the bridge as the log interface"
        )),
        LinkState::Gone => Some(format!("interface {name} was deleted")),
    }
}

fn from_counts(report: &LinkReport, peer: &str) -> String {
    let LinkReport { port, link, other_senders, is_down: _ } = report;
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
    } else if *other_senders > 0 {
        format!("frames came, but none from {peer}: is that the other host's MAC address?")
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
            is_down: false,
        };
        let says = |edit: fn(&mut LinkReport), part: &str| {
            let mut report = none;
            edit(&mut report);
            let text = from_counts(&report, "02:00:00:00:00:0b");
            assert!(text.contains(part) && !text.contains('\n'), "{text}");
        };
        says(|_| (), "no frame came from 02:00:00:00:00:0b: is the other host started");
        says(|report| report.port.tx_dropped = 7, "(the kernel dropped 7 frames that this host");
        says(|report| report.port.rx_foreign_mac = 1, "another MAC address than this host's");
        says(|report| report.other_senders = 1, "none from 02:00:00:00:00:0b");
        says(|report| report.link.open.malformed = 3, "3 malformed frames came");
        says(|report| report.link.open.other_protection = 1, "--insecure");
        says(|report| report.link.forged_handshakes = 1, "another key");
    }
}
