//! Why nobody was met, or why nobody is heard any more, in words.

use super::LinkReport;
use logchan::seal;
use netpath::{LinkState, MacAddr, PacketPort};

/// One line for a user who waits for a peer that does not come: the likeliest reason, from the state
/// of the interface and from what was counted.
pub fn why_nobody(report: &LinkReport, port: &PacketPort, peer: MacAddr) -> String {
    why_no_frame_passes(port).unwrap_or_else(|| from_counts(report, &peer.to_string()))
}

/// What is wrong with the interface, as far as this host can tell, and what to do.
pub fn why_no_frame_passes(port: &PacketPort) -> Option<String> {
    let name = port.name();
    match port.link() {
        LinkState::Up => None,
        LinkState::Down => Some(port.down_hint()),
        LinkState::NoCarrier => {
            Some(format!("interface {name} has no carrier: is the other end connected and up?"))
        }
        LinkState::Gone => Some(format!("interface {name} was deleted")),
    }
}

fn from_counts(report: &LinkReport, peer: &str) -> String {
    let LinkReport { port, link, other_senders, is_down: _ } = report;
    let open = link.open;
    if link.forged_handshakes > 0 {
        "somebody there has another key: compare the key files of the two hosts".into()
    } else if open.other_protection > 0 {
        "one side runs with --insecure and the other one without: use the key on both".into()
    } else if open.malformed > 0 {
        format!(
            "{} frames could not be read: does the other host run the same version (frame format {})?",
            open.malformed,
            seal::VERSION
        )
    } else if *other_senders > 0 {
        format!("frames came, but none from {peer}: is that the other host's address?")
    } else if port.rx_foreign_mac > 0 {
        "frames came to another address than ours: compare the peer address on the other host"
            .into()
    } else {
        let refused = match port.tx_dropped {
            0 => String::new(),
            dropped => format!(" (the kernel refused {dropped} of ours)"),
        };
        format!(
            "no frame came from {peer}{refused}: is the other side started, on this network, and \
             told our address?"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use logchan::handshake::LinkStats;
    use netpath::PacketStats;

    #[test]
    fn likeliest_reason_is_named_in_one_line() {
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
        says(|_| (), "no frame came from 02:00:00:00:00:0b: is the other side started");
        says(|report| report.port.tx_dropped = 7, "(the kernel refused 7 of ours)");
        says(|report| report.port.rx_foreign_mac = 1, "another address than ours");
        says(|report| report.other_senders = 1, "none from 02:00:00:00:00:0b");
        says(|report| report.link.open.malformed = 3, "3 frames could not be read");
        says(|report| report.link.open.other_protection = 1, "--insecure");
        says(|report| report.link.forged_handshakes = 1, "another key");
    }
}
