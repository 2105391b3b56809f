//! A protected VM on two hosts.
//!
//! | file | contents |
//! |---|---|
//! | `network` | namespaces: hosts A and B, a client, a switch, a log link |
//! | `scene` | what a pair needs before its first process starts |
//! | `event` | the event log of a process |
//! | `member`, `hosts` | one process of the pair; all of them over time |
//! | `leadership` | which host was live when: by the event logs, and by the frames on the LAN |

mod event;
mod hosts;
mod leadership;
mod member;
mod network;
mod scene;

pub use event::{PairEvent, PairRecord, Spread, Why};
pub use hosts::{Counts, Hosts, POLL_INTERVAL, Takeover};
pub use leadership::{LeadershipIntervals, SourceChange};
pub use member::{Member, MemberOutput, Message, Part, State};
pub use network::{Host, LOG_LINK, Network};
pub use scene::{Scene, Setup};
