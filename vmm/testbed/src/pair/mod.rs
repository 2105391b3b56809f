//! A protected VM on two hosts.
//!
//! | file | contents |
//! |---|---|
//! | `network` | namespaces: hosts A and B, a client, a switch, a log link |
//! | `scene` | what a pair needs before its first process starts |
//! | `event` | the event log of a process |
//! | `log_switch` | a switch in the log link, where frames can be lost |
//! | `member`, `output` | one process of the pair; what it prints |
//! | `hosts`, `disturb` | all processes of a VM over time; what is done to them |
//! | `vm`, `host_loss` | several VMs on the two hosts; the loss of a host with all of them |
//! | `leadership` | which host was live when: by the event logs, and by the frames on the LAN |

mod disturb;
mod event;
mod host_loss;
mod hosts;
mod leadership;
mod log_switch;
mod member;
mod network;
mod output;
mod scene;
mod vm;

pub use event::{PairEvent, PairRecord, Spread, Why};
pub use host_loss::{Lost, LostPart, Survival, lose_host};
pub use hosts::{Counts, Death, Hosts, POLL_INTERVAL, Takeover};
pub use leadership::{LeadershipIntervals, SourceChange};
pub use log_switch::{Isolation, LogSwitch};
pub use member::{Member, MemberOutput, Message, NoticedBy, Part, State};
pub use network::{Host, LOG_LINK, Network};
pub use scene::{Scene, Setup};
pub use vm::{DEFAULT_MAC, PairVm};
