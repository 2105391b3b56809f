//! Why nobody was met, in words.

use super::LinkReport;
use logchan::seal;

/// One line for a user who waits for a peer that does not come: the likeliest reason, from what was
/// counted.
pub fn why_nobody(report: &LinkReport, peer: &str) -> String {
    let LinkReport { port, link, other_senders, .. } = report;
    let open = link.open;
    if report.is_down {
        "the interface is down or has no carrier".into()
    } else if link.forged_handshakes > 0 {
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
    } else if port.tx_dropped > 0 {
        "the kernel refused our frames".into()
    } else {
        format!(
            "no frame came from {peer}: is the other side started, on this network, and told our \
             address?"
        )
    }
}
