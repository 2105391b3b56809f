//! State machine of a [`SecureLink`].

use alloc::boxed::Box;
use core::fmt;

use super::identity::{Identity, IdentityCheck, Mismatch};
use super::noise::{EPHEMERAL_BYTES, Entropy, Noise, Security};
use super::pending::{AnswerBudget, Pending, PendingList, PendingState, Session};
use super::report::{LinkEvent, LinkStats, NotEstablished, Peer, Proof, Received};
use super::{HANDSHAKE_FRAME_BYTES, MESSAGE_BYTES, PENDING_MAX_TIME, RETRY_FIRST, RETRY_MAX};
use crate::channel::{Mutant, Mutants};
use crate::ids::{Role, SessionId, Term};
use crate::seal::{
    DeathNotice, OpenError, REKEY_AFTER_FRAMES, SEAL_HEADER_BYTES, SEAL_OVERHEAD_BYTES, SealHeader,
    SealKind,
};
use crate::time::{Duration, Time};

/// A handshake of our own, from its start to the response.
struct Attempt {
    noise: Noise,
    frame: [u8; HANDSHAKE_FRAME_BYTES],
    id: u32,
    due: bool,
    retry_at: Time,
    interval: Duration,
}

/// One end of a sealed link, with its handshakes and sessions. Sans-I/O: frames in, frames out, the time
/// as an argument. The [module](super) has the protocol and the order of calls.
///
/// Nothing is allocated for a frame of a session, whether it is sealed or opened, valid or not.
pub struct SecureLink {
    security: Security,
    identity: Identity,
    incarnation: u64,
    entropy: Box<dyn Entropy + Send>,
    attempt: Option<Attempt>,
    pending: PendingList,
    current: Option<Session>,
    /// The previous sessions with the same incarnation, the newest first: frames sealed in them may
    /// still be in flight. Two are kept because the ends may disagree on which of two crossed handshakes
    /// was the later one. After a third handshake, the peer may then still seal with the session that we
    /// consider the older of the two.
    previous: [Option<Session>; 2],
    /// A response for a peer that is incompatible, so that it learns of the mismatch too.
    refusal: Option<[u8; HANDSHAKE_FRAME_BYTES]>,
    confirm_due: bool,
    /// The death notice with the current keys was not taken yet.
    notice_due: bool,
    budget: AnswerBudget,
    /// The only incarnation that is answered.
    bound: Option<u64>,
    established: bool,
    refused: Option<(Mismatch, bool)>,
    rekey_after_frames: u64,
    mutants: Mutants,
    stats: LinkStats,
}

impl SecureLink {
    /// Creates a link without a session. It answers, but starts no handshake before
    /// [`start`](Self::start).
    pub fn new(
        security: Security,
        identity: Identity,
        mut entropy: Box<dyn Entropy + Send>,
    ) -> SecureLink {
        let incarnation = random_u64(&mut *entropy);
        SecureLink {
            security,
            identity,
            incarnation,
            entropy,
            attempt: None,
            pending: PendingList::default(),
            current: None,
            previous: [None, None],
            refusal: None,
            confirm_due: false,
            notice_due: false,
            budget: AnswerBudget::new(),
            bound: None,
            established: false,
            refused: None,
            rekey_after_frames: REKEY_AFTER_FRAMES,
            mutants: Mutants::default(),
            stats: LinkStats::default(),
        }
    }

    /// Starts a handshake, which continues until there is a session. Does nothing while one is in
    /// progress. A live session stays in use until the new one is established.
    pub fn start(&mut self, now: Time) {
        if self.attempt.is_none() {
            self.attempt = Some(self.new_attempt(now));
        }
    }

    /// Gives up the handshake in progress, if any.
    pub fn stop(&mut self) {
        self.attempt = None;
    }

    /// Binds the link to the current session: from now on only its peer, in this incarnation, is
    /// answered. Later handshakes with it only replace the keys.
    ///
    /// # Panics
    ///
    /// When there is no session.
    pub fn bind(&mut self) {
        let session = self.current.as_ref().expect("a link is bound only when it has a session");
        self.bound = Some(session.peer.incarnation);
    }

    /// Starts over under an identity that may be another one (a backup that went live is a primary):
    /// forgets all sessions, is no longer bound, and starts a new handshake at once.
    pub fn renew(&mut self, now: Time, identity: Identity) {
        self.identity = identity;
        self.incarnation = random_u64(&mut *self.entropy);
        self.pending = PendingList::default();
        (self.current, self.previous, self.bound) = (None, [None, None], None);
        (self.refusal, self.refused) = (None, None);
        (self.confirm_due, self.notice_due, self.established) = (false, false, false);
        self.attempt = Some(self.new_attempt(now));
    }

    /// Returns the peer of the current session.
    pub fn peer(&self) -> Option<Peer> {
        self.current.as_ref().map(|session| session.peer)
    }

    /// Replaces each session's keys after `frames` frames were sealed, instead of
    /// [`REKEY_AFTER_FRAMES`].
    #[must_use]
    pub fn with_rekey_after(mut self, frames: u64) -> SecureLink {
        self.rekey_after_frames = frames;
        self
    }

    /// Plants bugs, for tests of the simulator.
    pub(crate) fn plant(&mut self, mutants: Mutants) {
        self.mutants = mutants;
    }

    fn rekey_due(&self) -> bool {
        let frames = self.current.as_ref().map(|session| session.sealer.frames());
        frames.is_some_and(|frames| frames >= self.rekey_after_frames)
    }

    /// Returns the counters.
    pub fn stats(&self) -> LinkStats {
        self.stats
    }

    /// Seals a frame of the channel in place, as [`Sealer::seal`](crate::seal::Sealer::seal) does.
    ///
    /// # Errors
    ///
    /// When there is no session. `frame` is then unchanged.
    pub fn seal(&mut self, frame: &mut [u8]) -> Result<u64, NotEstablished> {
        let session = self.current.as_mut().ok_or(NotEstablished)?;
        Ok(session.sealer.seal(frame))
    }

    /// Returns the notice that this process is gone, once for the keys of each handshake. The peer accepts
    /// that of the current keys and those of earlier keys that it would still open frames of; it is bound
    /// to this incarnation, so it says nothing about a later one.
    pub fn poll_death_notice(&mut self) -> Option<DeathNotice> {
        if !core::mem::take(&mut self.notice_due) {
            return None;
        }
        self.current.as_ref().map(|session| session.sealer.death_notice())
    }

    /// Handles a frame from the wire and opens it in place.
    pub fn handle_frame<'f>(&mut self, now: Time, frame: &'f mut [u8]) -> Received<'f> {
        let header = match SealHeader::decode(frame) {
            Ok(header) if header.protection == self.security.protection() => header,
            Ok(_) => return self.count_dropped(OpenError::OtherProtection),
            Err(error) => return self.count_dropped(OpenError::Malformed(error)),
        };
        let whole = &frame[..header.frame_bytes()];
        match header.kind {
            SealKind::Initiation => {
                Received::Handshake(self.handle_initiation(now, header.key_id, whole))
            }
            SealKind::Response => {
                Received::Handshake(self.handle_response(now, header.key_id, whole))
            }
            SealKind::Confirm | SealKind::Data => {
                if self.rekey_due() {
                    self.start(now);
                }
                self.open(header.key_id, frame)
            }
            SealKind::DeathNotice => self.open_notice(header.key_id, frame),
        }
    }

    /// Opens the death notice of the peer of the current session. The notice may have overtaken the frame that
    /// makes a pending session current, so it may be sealed with the keys of one; it makes none current itself,
    /// because nobody is there to go on in it. A notice of any other incarnation is left as it is: it may come
    /// again when its session is the current one.
    fn open_notice<'f>(&mut self, key_id: u32, frame: &'f mut [u8]) -> Received<'f> {
        let current = self.peer().map(|peer| peer.incarnation);
        if self.mutants.has(Mutant::TakeOldNotice) && current.is_some() {
            return Received::PeerGone;
        }
        let session = self.find_session(key_id);
        let session = session.filter(|session| Some(session.peer.incarnation) == current);
        let Some(session) = session else {
            return self.count_dropped(OpenError::StaleSession { key_id });
        };
        let result = session.opener.open(frame);
        self.stats.open.record(&result);
        match result {
            Ok(_) => Received::PeerGone,
            Err(error) => Received::Dropped(error),
        }
    }

    /// Returns the session with these keys: in use, or pending.
    fn find_session(&mut self, key_id: u32) -> Option<&mut Session> {
        let in_use = self.current.iter_mut().chain(self.previous.iter_mut().flatten());
        let pending = self.pending.sessions_mut();
        in_use.chain(pending).find(|session| session.key_id == key_id)
    }

    fn count_dropped<'f>(&mut self, error: OpenError) -> Received<'f> {
        self.stats.open.record::<()>(&Err(error));
        Received::Dropped(error)
    }

    fn open<'f>(&mut self, key_id: u32, frame: &'f mut [u8]) -> Received<'f> {
        let is = |session: &&mut Session| session.key_id == key_id;
        if self.mutants.has(Mutant::TakeRepeated)
            && let Some(session) = self.current.as_mut()
        {
            session.opener.forget_seen();
        }
        let known = self.current.iter_mut().chain(self.previous.iter_mut().flatten());
        let result = if let Some(session) = known.into_iter().find(is) {
            session.opener.open(frame)
        } else if let Some(position) = self.pending.position(key_id) {
            let result = self.pending.session_mut(position).opener.open(frame);
            if result.is_ok() {
                self.activate(position);
            }
            result
        } else {
            Err(OpenError::StaleSession { key_id })
        };
        self.stats.open.record(&result);
        match result {
            Ok((SealKind::Data, payload)) => Received::Data(payload),
            Ok((
                SealKind::Confirm
                | SealKind::DeathNotice
                | SealKind::Initiation
                | SealKind::Response,
                _,
            )) => Received::Handshake(Proof::Presence),
            Err(error) => Received::Dropped(error),
        }
    }

    fn handle_initiation(&mut self, now: Time, id: u32, frame: &[u8]) -> Proof {
        if let Some(pending) = self.pending.find(frame) {
            pending.due = true;
            return Proof::Key;
        }
        let message = &frame[SEAL_HEADER_BYTES..];
        if attempt_id(message) != Some(id) {
            self.stats.forged_handshakes += 1;
            return Proof::Nothing;
        }
        let mut noise = Noise::responder(&self.security, &mut *self.entropy);
        let Some(check) = self.read(&mut noise, message) else { return Proof::Nothing };
        if self.is_stranger(&check) {
            return Proof::Nothing;
        }
        if !self.budget.take(now) && !self.mutants.has(Mutant::AnswerAll) {
            self.stats.over_budget += 1;
            return Proof::Nothing;
        }
        if let (IdentityCheck::Compatible { incarnation, .. }, Some(attempt)) =
            (&check, &mut self.attempt)
            && self.incarnation > *incarnation
        {
            self.stats.crossed += 1;
            attempt.due = true;
            return Proof::Key;
        }
        let response = self.message(&mut noise, SealKind::Response, Some(id));
        match check {
            IdentityCheck::Compatible { peer, incarnation } => {
                let initiation =
                    frame.try_into().expect("an identity of our version has a fixed size");
                let expires = now + PENDING_MAX_TIME;
                let session = self.session(noise, peer, incarnation);
                let (due, key_id) = (true, session.key_id);
                let state = PendingState::Fresh;
                let pending = Pending { session, initiation, response, due, state, expires };
                self.pending.push(pending);
                if self.mutants.has(Mutant::TrustRecordings) {
                    self.refusal = self.pending.take_due().copied();
                    self.activate(
                        self.pending.position(key_id).expect("the session was just added"),
                    );
                }
            }
            IdentityCheck::Incompatible(mismatch) => {
                self.refusal = Some(response);
                self.refuse(mismatch, false);
            }
            IdentityCheck::Reflected => unreachable!("`read` drops our own messages"),
        }
        Proof::Key
    }

    fn handle_response(&mut self, now: Time, id: u32, frame: &[u8]) -> Proof {
        let Some(mut attempt) = self.attempt.take_if(|attempt| attempt.id == id) else {
            self.stats.stale_responses += 1;
            return Proof::Nothing;
        };
        let message = &frame[SEAL_HEADER_BYTES..];
        let Some(check) = self.read(&mut attempt.noise, message) else {
            // Not from the peer: go on waiting for its response.
            self.attempt = Some(attempt);
            return Proof::Nothing;
        };
        match check {
            check if self.is_stranger(&check) => {
                self.retry_later(now);
                Proof::Nothing
            }
            IdentityCheck::Compatible { peer, incarnation } => {
                let session = self.session(attempt.noise, peer, incarnation);
                self.pending.end_attempt(self.incarnation > incarnation);
                self.establish(session);
                self.confirm_due = true;
                // The response answers the ephemeral key of our attempt.
                Proof::Presence
            }
            IdentityCheck::Incompatible(mismatch) => {
                self.refuse(mismatch, true);
                // The peer may come back with another configuration.
                self.retry_later(now);
                // It has the key, but it is not the peer of this host.
                Proof::Key
            }
            IdentityCheck::Reflected => unreachable!("`read` drops our own messages"),
        }
    }

    fn retry_later(&mut self, now: Time) {
        let mut attempt = self.new_attempt(now);
        attempt.due = false;
        attempt.interval = RETRY_MAX;
        attempt.retry_at = now + RETRY_MAX;
        self.attempt = Some(attempt);
    }

    /// Reads a handshake message. Returns `None` if it is not from a peer with our key.
    fn read(&mut self, noise: &mut Noise, message: &[u8]) -> Option<IdentityCheck> {
        // The identity of another build may be longer than ours, but not longer than this.
        let mut payload = [0; 256];
        let check = match noise.read(message, &mut payload) {
            Ok(length) => {
                self.local_identity().check_peer(self.incarnation, &payload[..length]).ok()
            }
            Err(_) => None,
        };
        match check {
            Some(IdentityCheck::Reflected) => {
                self.stats.reflected += 1;
                None
            }
            Some(check @ (IdentityCheck::Compatible { .. } | IdentityCheck::Incompatible(_))) => {
                Some(check)
            }
            None => {
                self.stats.forged_handshakes += 1;
                None
            }
        }
    }

    /// Returns our identity, to compare the peer's with.
    fn local_identity(&self) -> Identity {
        if !self.mutants.has(Mutant::FollowOldTerm) {
            return self.identity;
        }
        match self.identity.role {
            Role::Primary => Identity { term: Term(u64::MAX), ..self.identity },
            Role::Backup => Identity { term: Term(0), ..self.identity },
        }
    }

    /// Returns whether the message is from another peer than the one that we are bound to.
    fn is_stranger(&mut self, check: &IdentityCheck) -> bool {
        let is_stranger = match (self.bound, check) {
            _ if self.mutants.has(Mutant::AnswerStrangers) => false,
            (Some(bound), IdentityCheck::Compatible { incarnation, .. }) => *incarnation != bound,
            (Some(_), IdentityCheck::Incompatible(_) | IdentityCheck::Reflected) => true,
            (None, _) => false,
        };
        self.stats.strangers += u64::from(is_stranger);
        is_stranger
    }

    fn session(&self, noise: Noise, identity: Identity, incarnation: u64) -> Session {
        let keys = noise.keys();
        // Both incarnations are random, so their XOR is too, and it is the same at both ends.
        let session = SessionId(self.incarnation ^ incarnation);
        let peer = Peer { identity, incarnation, session };
        Session::new(self.security.protection(), &keys, peer)
    }

    /// Makes a pending session the current one: the peer has shown that it has the keys. A frame that
    /// was held back must not bring back keys that the peer may have forgotten since.
    fn activate(&mut self, position: usize) {
        if self.mutants.has(Mutant::ReviveSessions) {
            self.pending.revive();
        }
        if let Some(session) = self.pending.activate(position) {
            self.establish(session);
        }
    }

    fn establish(&mut self, session: Session) {
        let incarnation = session.peer.incarnation;
        // A peer with a new incarnation has forgotten all earlier sessions. Pending ones of the old
        // incarnation could only be confirmed by frames that were long in flight or held back.
        if !self.mutants.has(Mutant::ReviveSessions) {
            self.pending.retain_incarnation(incarnation);
        }
        let drop_old_keys = self.mutants.has(Mutant::DropOldKeys);
        let is_kept = |before: &Session| before.peer.incarnation == incarnation && !drop_old_keys;
        let [newer, _] = core::mem::take(&mut self.previous);
        self.previous = [self.current.replace(session), newer].map(|before| before.filter(is_kept));
        self.attempt = None;
        self.confirm_due = false;
        self.notice_due = true;
        self.established = true;
        self.stats.sessions += 1;
    }

    fn refuse(&mut self, mismatch: Mismatch, proven: bool) {
        self.stats.refused += 1;
        if !proven && self.current.is_some() {
            // A recording that is replayed to a live session must have no effect.
            return;
        }
        // An unproven mismatch does not replace a proven one.
        if proven || !matches!(self.refused, Some((_, true))) {
            self.refused = Some((mismatch, proven));
        }
    }

    fn new_attempt(&mut self, now: Time) -> Attempt {
        self.pending.begin_attempt();
        let mut noise = Noise::initiator(&self.security, &mut *self.entropy);
        let frame = self.message(&mut noise, SealKind::Initiation, None);
        let id = attempt_id(&frame[SEAL_HEADER_BYTES..])
            .expect("a message begins with an ephemeral key");
        let retry_at = now + RETRY_FIRST;
        Attempt { noise, frame, id, due: true, retry_at, interval: RETRY_FIRST }
    }

    /// Returns our handshake message as a frame. Without an `id`, which an initiation does not have yet,
    /// the ID is taken from the message.
    fn message(
        &self,
        noise: &mut Noise,
        kind: SealKind,
        id: Option<u32>,
    ) -> [u8; HANDSHAKE_FRAME_BYTES] {
        let mut frame = [0; HANDSHAKE_FRAME_BYTES];
        let (head, message) = frame.split_at_mut(SEAL_HEADER_BYTES);
        let length = noise.write(&self.identity.encode(self.incarnation), message);
        assert_eq!(length, MESSAGE_BYTES);
        let id = id.or(attempt_id(message)).expect("a message begins with an ephemeral key");
        let protection = self.security.protection();
        let length = length as u16;
        let header = SealHeader { kind, protection, length, key_id: id, sequence: 0 };
        head.copy_from_slice(&header.encode());
        frame
    }

    /// Does what is due by `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        self.pending.expire(now);
        if let Some(attempt) = self.attempt.as_mut().filter(|attempt| now >= attempt.retry_at) {
            attempt.due = !self.mutants.has(Mutant::AskOnce);
            attempt.interval = (attempt.interval * 2).min(RETRY_MAX);
            attempt.retry_at = now + attempt.interval;
        }
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) must be called next.
    pub fn poll_timeout(&self) -> Option<Time> {
        let attempt = self.attempt.as_ref().map(|attempt| attempt.retry_at);
        attempt.into_iter().chain(self.pending.next_expiry()).min()
    }

    /// Returns the next event. A newer event replaces one of the same kind that was not polled yet.
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        if core::mem::take(&mut self.established)
            && let Some(session) = &self.current
        {
            return Some(LinkEvent::Established(session.peer));
        }
        let (mismatch, proven) = self.refused.take()?;
        Some(LinkEvent::Refused { mismatch, proven })
    }

    fn wants_to_send(&self) -> bool {
        let asks = self.attempt.as_ref().is_some_and(|attempt| attempt.due);
        asks || self.confirm_due || self.refusal.is_some() || self.pending.is_due()
    }

    /// Writes the next handshake frame to the front of `out` and returns its length.
    ///
    /// # Panics
    ///
    /// When `out` is shorter than [`HANDSHAKE_FRAME_BYTES`].
    pub fn poll_transmit(&mut self, out: &mut [u8]) -> Option<usize> {
        assert!(out.len() >= HANDSHAKE_FRAME_BYTES, "the buffer has no room for a handshake frame");
        // This is called for every frame of the channel, and moving handshakes takes time.
        if !self.wants_to_send() {
            return None;
        }
        if core::mem::take(&mut self.confirm_due)
            && let Some(session) = &mut self.current
        {
            let frame = &mut out[..SEAL_OVERHEAD_BYTES];
            session.sealer.seal_kind(SealKind::Confirm, frame);
            return Some(frame.len());
        }
        let response = self.pending.take_due().copied().or_else(|| self.refusal.take());
        let frame = response.or_else(|| {
            let attempt = self.attempt.as_mut().filter(|attempt| attempt.due)?;
            attempt.due = false;
            self.stats.initiations += 1;
            Some(attempt.frame)
        })?;
        out[..frame.len()].copy_from_slice(&frame);
        Some(frame.len())
    }
}

fn random_u64(entropy: &mut dyn Entropy) -> u64 {
    let mut bytes = [0; 8];
    entropy.fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Returns the ID of an attempt: the first bytes of its ephemeral key.
fn attempt_id(message: &[u8]) -> Option<u32> {
    let ephemeral = message.get(..EPHEMERAL_BYTES)?;
    ephemeral.first_chunk().map(|id| u32::from_le_bytes(*id))
}

impl fmt::Debug for SecureLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("SecureLink");
        debug.field("peer", &self.peer()).field("stats", &self.stats).finish_non_exhaustive()
    }
}
