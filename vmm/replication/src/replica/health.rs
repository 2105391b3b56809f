//! What a host lacks to run the VM, and what follows from that.
//!
//! The hosts tell each other in every frame. A primary whose VM can't reach the LAN hands the VM over to a fit
//! backup. When both hosts claim the next term, an unfit one waits, so that a fit one wins. And a VM whose backup
//! is unfit counts as not protected: the operator is told why.

use super::engine::Replica;
use super::event::ReplicaEvent;
use super::role::{AfterHandover, Primary, Protected, Role, RoleName};
use super::watch::WitnessState;
use logchan::channel::Channel;
use logchan::health::Unfit;
use logchan::time::{Duration, Time};

/// The health of both hosts, as this one knows it.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Since when frames can't pass between the VM and the LAN on this host.
    lan_down_since: Option<Time>,
    /// See [`Replica::set_cut_off`].
    is_cut_off: bool,
    /// What was reported last of this host and of its peer.
    reported: (Unfit, Unfit),
}

impl Replica {
    /// Tells the engine whether frames can pass between the VM's tap and the LAN on this host.
    pub fn set_lan(&mut self, now: Time, is_up: bool) {
        let was_down = self.health.lan_down_since;
        self.health.lan_down_since = (!is_up).then(|| was_down.unwrap_or(now));
        if is_up && was_down.is_some() {
            self.lan_came_up(now);
        }
        self.process(now);
    }

    /// Returns what this host lacks to run the VM.
    pub fn unfit(&self) -> Unfit {
        let lan = self.health.lan_down_since.map_or(Unfit::NONE, |_since| Unfit::LAN);
        let lan = lan.and(if self.disks.has_failed { Unfit::DISK } else { Unfit::NONE });
        match self.watch.state {
            WitnessState::Unreachable => lan.and(Unfit::WITNESS),
            WitnessState::Unknown | WitnessState::Reachable => lan,
        }
    }

    /// Returns what the other host lacks to run the VM, as far as is known.
    pub fn peer_unfit(&self) -> Unfit {
        self.channel().filter(|channel| channel.is_open()).map_or(Unfit::NONE, Channel::peer_unfit)
    }

    /// Sets whether this host knows by itself that no frame can pass on its log link. Then a healthy primary must
    /// not lose the VM to its backup:
    ///
    /// - A primary does not wait for the rest of the silence timeout, once half of it has passed.
    /// - A backup waits for one silence timeout more before its claim: its primary is probably alive, and has lost
    ///   the link at the same time.
    pub fn set_cut_off(&mut self, is_cut_off: bool) {
        self.health.is_cut_off = is_cut_off;
    }

    /// Returns when a protected primary that is cut off declares its backup lost, if it hears nothing before.
    pub(super) fn cut_off_at(&self) -> Option<Time> {
        let Role::Primary(Primary::Protected(Protected { is_confirmed: true, .. })) = self.role
        else {
            return None;
        };
        let channel = self.session.channel().filter(|channel| channel.is_open())?;
        let half = Duration::from_nanos(self.config.timing.silence.as_nanos() / 2);
        self.health.is_cut_off.then(|| channel.heard_at() + half)
    }

    /// Returns how long this host leaves the next term to the other one.
    pub(super) fn claim_delay(&self) -> Duration {
        let silence = self.config.timing.silence;
        // A primary may notice the silence one silence timeout later than its backup.
        let is_unfit = self.unfit().has(Unfit::LAN) || self.unfit().has(Unfit::DISK);
        let while_unfit = if is_unfit { silence * 2 } else { Duration::ZERO };
        match self.role {
            Role::Backup(_) if self.health.is_cut_off => while_unfit + silence,
            Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => while_unfit,
        }
    }

    /// Passes this host's health on, reports changes, and hands the VM over if the other host can serve it and
    /// this one can't.
    pub(super) fn update_health(&mut self, now: Time) {
        let (ours, theirs) = (self.unfit(), self.peer_unfit());
        if let Some(channel) = self.session.channel_mut() {
            channel.set_unfit(ours);
        }
        let reported = core::mem::replace(&mut self.health.reported, (ours, theirs));
        if reported.0.has(Unfit::LAN) != ours.has(Unfit::LAN) {
            self.emit(match ours.has(Unfit::LAN) {
                true => ReplicaEvent::LanLost,
                false => ReplicaEvent::LanBack,
            });
        }
        if reported.1 != theirs && self.role() == RoleName::Protected {
            self.emit(ReplicaEvent::BackupHealth { unfit: theirs });
        }
        let lost_lan =
            self.health.lan_down_since.map(|since| now.since(since) >= self.lan_patience());
        if !(lost_lan == Some(true) || ours.has(Unfit::DISK)) {
            return;
        }
        if let Role::Primary(Primary::Protected(Protected { is_confirmed: true, .. })) = self.role
            && theirs.is_fit()
            && self.handover.is_none()
        {
            self.handover = Some(AfterHandover::Follow);
            self.try_hand_over(now);
        }
    }

    /// Returns whether the VM would be without service after a handover, and is not now. A backup without the witness
    /// can't go live, and this host could not take the VM back either. A host that leaves has no choice.
    pub(super) fn would_lose_service(&self) -> bool {
        let theirs = self.peer_unfit();
        let ours = self.unfit();
        let is_worse = |reason| theirs.has(reason) && !ours.has(reason);
        theirs.has(Unfit::WITNESS) || is_worse(Unfit::LAN) || is_worse(Unfit::DISK)
    }

    /// How long the LAN must be down before the VM is handed over: a link that flaps comes back.
    fn lan_patience(&self) -> Duration {
        self.config.timing.heartbeat * 2
    }

    /// Returns when the health must be looked at again.
    pub(super) fn health_timeout(&self) -> Option<Time> {
        let since = self.health.lan_down_since?;
        match self.role {
            Role::Primary(Primary::Protected(Protected { is_confirmed: true, .. }))
                if self.handover.is_none() =>
            {
                Some(since + self.lan_patience()).filter(|_| self.peer_unfit().is_fit())
            }
            Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => None,
        }
    }
}
