//! State machine of a [`SecureLink`].

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use super::identity::{Identity, IdentityCheck, Mismatch};
use super::message::{
    CHALLENGE_BYTES, Challenge, Frame, LinkKey, Request, decode_challenge, encode_challenge,
    payload, split_initiation,
};
use super::noise::{EPHEMERAL_BYTES, Entropy, Noise, Security};
use super::pending::{AnswerBudget, Pending, PendingList, PendingState, Session};
use super::report::{LinkEvent, LinkStats, NotEstablished, Peer, Proof, Received};
use super::requests::RequestList;
use super::{HANDSHAKE_FRAME_BYTES, MESSAGE_BYTES, PENDING_MAX_TIME, RETRY_FIRST, RETRY_MAX};
use crate::channel::{Mutant, Mutants};
use crate::ids::{Role, SessionId, Term};
use crate::seal::{
    DeathNotice, OpenError, REKEY_AFTER_FRAMES, SEAL_OVERHEAD_BYTES, SealHeader, SealKind,
};
use crate::time::{Duration, Time};

/// A handshake of our own, from its start to the response.
struct Attempt {
    /// The request that a challenge must name. One challenge is taken for each request.
    request: u64,
    request_due: bool,
    /// Index of the key with which the request is sent next: it is sent with each of them.
    request_key: usize,
    /// When the request became due last.
    asked_at: Time,
    retry_at: Time,
    interval: Duration,
    /// The peer is there and incompatible, so there is no hurry.
    is_patient: bool,
    initiation: Option<Initiation>,
}

/// An initiation of ours that has no response yet.
struct Initiation {
    noise: Noise,
    id: u32,
    frame: Frame,
    due: bool,
}

/// One end of a sealed link, with its handshakes and sessions. Sans-I/O: frames in, frames out, the time
/// as an argument. The [module](super) has the protocol and the order of calls.
///
/// Nothing is allocated for a frame of a session, whether it is sealed or opened, valid or not.
pub struct SecureLink {
    /// The keys that the peer may have: one, or two while one replaces the other.
    keys: Vec<LinkKey>,
    identity: Identity,
    incarnation: u64,
    entropy: Box<dyn Entropy + Send>,
    attempt: Option<Attempt>,
    /// What the next initiation that is answered must carry.
    challenge: Challenge,
    /// For each key, the requests that were made with it.
    requests: Vec<RequestList>,
    /// A response of ours to be sent.
    response: Option<Frame>,
    pending: PendingList,
    current: Option<Session>,
    /// The previous sessions with the same incarnation, the newest first: frames sealed in them may
    /// still be in flight. Two are kept because the ends may disagree on which of two crossed handshakes
    /// was the later one. After a third handshake, the peer may then still seal with the session that we
    /// consider the older of the two.
    previous: [Option<Session>; 2],
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
        let keys = LinkKey::all(security);
        SecureLink {
            challenge: random_challenge(&mut *entropy),
            requests: request_lists(&keys, &mut *entropy),
            keys,
            response: None,
            identity,
            incarnation,
            entropy,
            attempt: None,
            pending: PendingList::default(),
            current: None,
            previous: [None, None],
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
        self.challenge = random_challenge(&mut *self.entropy);
        self.requests = request_lists(&self.keys, &mut *self.entropy);
        self.pending = PendingList::default();
        (self.current, self.previous, self.bound) = (None, [None, None], None);
        (self.response, self.refused) = (None, None);
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
            Ok(header) if header.protection == self.keys[0].protection() => header,
            Ok(_) => return self.count_dropped(OpenError::OtherProtection),
            Err(error) => return self.count_dropped(OpenError::Malformed(error)),
        };
        let whole = &frame[..header.frame_bytes()];
        match header.kind {
            SealKind::Request => Received::Handshake(self.handle_request(now, whole)),
            SealKind::Challenge => Received::Handshake(self.handle_challenge(now, whole)),
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
                | SealKind::Request
                | SealKind::Challenge
                | SealKind::Initiation
                | SealKind::Response,
                _,
            )) => Received::Handshake(Proof::Presence),
            Err(error) => Received::Dropped(error),
        }
    }

    /// Returns the index of the key in whose tag a handshake frame ends, and counts the frame if there is none. The
    /// handlers call it after everything that can refuse a frame at no cost, and before everything else.
    fn check_tag(&mut self, frame: &[u8]) -> Option<usize> {
        let key = self.keys.iter().position(|key| key.is_authentic(frame));
        self.stats.forged_handshakes += u64::from(key.is_none());
        key
    }

    fn handle_request(&mut self, now: Time, frame: &[u8]) -> Proof {
        let Ok(request) = Request::decode(payload(frame)) else {
            self.stats.forged_handshakes += 1;
            return Proof::Nothing;
        };
        if self.is_stranger(Some(request.incarnation)) {
            return Proof::Nothing;
        }
        let Some(key) = self.check_tag(frame) else { return Proof::Nothing };
        if request.incarnation == self.incarnation {
            self.stats.reflected += 1;
            return Proof::Nothing;
        }
        // Not while our attempt waits, because the peer is incompatible: then the peer may try.
        let has_attempt = self.attempt.as_ref().is_some_and(|attempt| !attempt.is_patient);
        if self.has_precedence(request.incarnation, has_attempt) {
            self.stats.crossed += 1;
            self.ask_soon(now);
        } else {
            self.requests[key].push(now, request.id);
        }
        Proof::Key
    }

    /// Returns whether an attempt of ours, if there is one, has precedence over the peer's.
    fn has_precedence(&self, incarnation: u64, has_attempt: bool) -> bool {
        has_attempt && self.incarnation > incarnation
    }

    /// Repeats our request soon: a peer may have come, or a recording of one was sent.
    fn ask_soon(&mut self, now: Time) {
        let Some(attempt) = self.attempt.as_mut() else { return };
        attempt.interval = RETRY_FIRST;
        if now >= attempt.asked_at + RETRY_FIRST {
            attempt.ask(now);
        } else {
            attempt.retry_at = attempt.retry_at.min(attempt.asked_at + RETRY_FIRST);
        }
    }

    fn handle_challenge(&mut self, now: Time, frame: &[u8]) -> Proof {
        let Some(request) = self.attempt.as_ref().map(|attempt| attempt.request) else {
            self.stats.stale_responses += 1;
            return Proof::Nothing;
        };
        let Ok((challenge, is_ours)) = decode_challenge(payload(frame), request) else {
            self.stats.forged_handshakes += 1;
            return Proof::Nothing;
        };
        if !is_ours && !self.mutants.has(Mutant::TrustChallenge) {
            self.stats.stale_responses += 1;
            return Proof::Nothing;
        }
        let Some(key) = self.check_tag(frame) else { return Proof::Nothing };
        // Pending sessions that we answered for are older than this initiation.
        self.pending.begin_attempt();
        let mut noise = Noise::initiator(&self.keys[key], &challenge, &mut *self.entropy);
        let mut initiation = [0; CHALLENGE_BYTES + MESSAGE_BYTES];
        let (head, message) = initiation.split_at_mut(CHALLENGE_BYTES);
        head.copy_from_slice(&challenge);
        self.write_message(&mut noise, message);
        let id = attempt_id(message).expect("a message begins with an ephemeral key");
        let frame = self.keys[key].frame(SealKind::Initiation, id, &initiation);
        let request = random_u64(&mut *self.entropy);
        let attempt = self.attempt.as_mut().expect("checked above");
        attempt.initiation = Some(Initiation { noise, id, frame, due: true });
        // Each request is good for one key exchange: a challenge that is sent again is for none of ours.
        attempt.request = request;
        attempt.request_due = false;
        attempt.asked_at = now;
        attempt.retry_at = attempt.retry_at.max(now + RETRY_FIRST);
        Proof::Key
    }

    fn handle_initiation(&mut self, now: Time, id: u32, frame: &[u8]) -> Proof {
        let Ok((challenge, message)) = split_initiation(payload(frame)) else {
            self.stats.forged_handshakes += 1;
            return Proof::Nothing;
        };
        if challenge != self.challenge && !self.mutants.has(Mutant::TakeStale) {
            self.stats.stale_initiations += 1;
            return Proof::Nothing;
        }
        let Some(key) = self.check_tag(frame) else { return Proof::Nothing };
        if attempt_id(message) != Some(id) {
            self.stats.forged_handshakes += 1;
            return Proof::Nothing;
        }
        if !self.budget.take(now) && !self.mutants.has(Mutant::TakeStale) {
            self.stats.over_budget += 1;
            return Proof::Nothing;
        }
        // The same bytes are never worked on again.
        if !self.mutants.has(Mutant::KeepChallenge) {
            self.challenge = random_challenge(&mut *self.entropy);
        }
        let mut noise = Noise::responder(&self.keys[key], &challenge, &mut *self.entropy);
        let Some(check) = self.read(&mut noise, message) else { return Proof::Nothing };
        if self.is_other(&check) {
            return Proof::Nothing;
        }
        let has_initiation = self.attempt.as_ref().is_some_and(|own| own.initiation.is_some());
        if let IdentityCheck::Compatible { incarnation, .. } = &check
            && self.has_precedence(*incarnation, has_initiation)
        {
            self.stats.crossed += 1;
            self.ask_soon(now);
            return Proof::Key;
        }
        let mut answer = [0; MESSAGE_BYTES];
        self.write_message(&mut noise, &mut answer);
        self.response = Some(self.keys[key].frame(SealKind::Response, id, &answer));
        match check {
            IdentityCheck::Compatible { peer, incarnation } => {
                let expires = now + PENDING_MAX_TIME;
                let session = self.session(noise, peer, incarnation);
                let key_id = session.key_id;
                self.pending.push(Pending { session, state: PendingState::Fresh, expires });
                if self.mutants.has(Mutant::TrustRecordings) {
                    self.activate(
                        self.pending.position(key_id).expect("the session was just added"),
                    );
                }
            }
            // The response lets the peer learn of the mismatch, too.
            IdentityCheck::Incompatible(mismatch) => self.refuse(mismatch, false),
            IdentityCheck::Reflected => unreachable!("`read` drops our own messages"),
        }
        Proof::Key
    }

    fn handle_response(&mut self, now: Time, id: u32, frame: &[u8]) -> Proof {
        let is_awaited =
            |attempt: &Attempt| attempt.initiation.as_ref().is_some_and(|i| i.id == id);
        if !self.attempt.as_ref().is_some_and(is_awaited) {
            self.stats.stale_responses += 1;
            return Proof::Nothing;
        }
        if self.check_tag(frame).is_none() {
            return Proof::Nothing;
        }
        let own = self.attempt.as_mut().and_then(|attempt| attempt.initiation.take());
        let mut own = own.expect("checked above");
        let Some(check) = self.read(&mut own.noise, payload(frame)) else {
            // Not from the peer: go on waiting for its response.
            self.attempt.as_mut().expect("checked above").initiation = Some(own);
            return Proof::Nothing;
        };
        match check {
            check if self.is_other(&check) => {
                self.retry_later(now);
                Proof::Nothing
            }
            IdentityCheck::Compatible { peer, incarnation } => {
                let session = self.session(own.noise, peer, incarnation);
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
        attempt.request_due = false;
        attempt.is_patient = true;
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
    fn is_other(&mut self, check: &IdentityCheck) -> bool {
        self.is_stranger(match check {
            IdentityCheck::Compatible { incarnation, .. } => Some(*incarnation),
            IdentityCheck::Incompatible(_) | IdentityCheck::Reflected => None,
        })
    }

    /// Returns whether `incarnation` is not the one that we are bound to, and counts it then.
    fn is_stranger(&mut self, incarnation: Option<u64>) -> bool {
        let is_stranger = self.bound.is_some()
            && incarnation != self.bound
            && !self.mutants.has(Mutant::AnswerStrangers);
        self.stats.strangers += u64::from(is_stranger);
        is_stranger
    }

    fn session(&self, noise: Noise, identity: Identity, incarnation: u64) -> Session {
        let keys = noise.keys();
        // Both incarnations are random, so their XOR is too, and it is the same at both ends.
        let session = SessionId(self.incarnation ^ incarnation);
        let peer = Peer { identity, incarnation, session };
        Session::new(self.keys[0].protection(), &keys, peer)
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
        Attempt {
            request: random_u64(&mut *self.entropy),
            request_due: true,
            request_key: 0,
            asked_at: now,
            retry_at: now + RETRY_FIRST,
            interval: RETRY_FIRST,
            is_patient: false,
            initiation: None,
        }
    }

    /// Writes our message of the key exchange.
    fn write_message(&self, noise: &mut Noise, message: &mut [u8]) {
        let length = noise.write(&self.identity.encode(self.incarnation), message);
        assert_eq!(length, MESSAGE_BYTES);
    }

    /// Does what is due by `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        self.pending.expire(now);
        self.requests.iter_mut().for_each(|requests| requests.handle_timeout(now));
        if let Some(attempt) = self.attempt.as_mut().filter(|attempt| now >= attempt.retry_at) {
            attempt.interval = (attempt.interval * 2).min(RETRY_MAX);
            attempt.ask(now);
            attempt.request_due &= !self.mutants.has(Mutant::AskOnce);
        }
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) must be called next.
    pub fn poll_timeout(&self) -> Option<Time> {
        let attempt = self.attempt.as_ref().map(|attempt| attempt.retry_at);
        let challenge = self.requests.iter().filter_map(RequestList::due_at).min();
        attempt.into_iter().chain(challenge).chain(self.pending.next_expiry()).min()
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
        self.attempt.as_ref().is_some_and(Attempt::wants_to_send)
            || self.confirm_due
            || self.response.is_some()
            || self.requests.iter().any(RequestList::is_due)
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
        let frame = self.take_due()?;
        let frame = frame.as_bytes();
        out[..frame.len()].copy_from_slice(frame);
        Some(frame.len())
    }

    /// Takes the next frame that is due, of those that are not sealed with a session's keys.
    fn take_due(&mut self) -> Option<Frame> {
        if let Some(response) = self.response.take() {
            return Some(response);
        }
        for (key, requests) in self.keys.iter().zip(&mut self.requests) {
            if let Some(requests) = requests.take_due() {
                self.stats.challenges += 1;
                return Some(encode_challenge(key, &self.challenge, requests));
            }
        }
        let attempt = self.attempt.as_mut()?;
        if let Some(initiation) = attempt.initiation.as_mut().filter(|initiation| initiation.due) {
            initiation.due = false;
            self.stats.initiations += 1;
            return Some(initiation.frame.clone());
        }
        if attempt.request_due {
            let key = &self.keys[attempt.request_key];
            attempt.request_key = (attempt.request_key + 1) % self.keys.len();
            attempt.request_due = attempt.request_key != 0;
            self.stats.requests += 1;
            let request = Request { incarnation: self.incarnation, id: attempt.request };
            return Some(request.encode(key));
        }
        None
    }
}

impl Attempt {
    /// Makes the request due.
    fn ask(&mut self, now: Time) {
        (self.request_due, self.request_key) = (true, 0);
        self.is_patient = false;
        self.asked_at = now;
        self.retry_at = now + self.interval;
    }

    fn wants_to_send(&self) -> bool {
        self.request_due || self.initiation.as_ref().is_some_and(|initiation| initiation.due)
    }
}

fn request_lists(keys: &[LinkKey], entropy: &mut dyn Entropy) -> Vec<RequestList> {
    keys.iter().map(|_| RequestList::new(random_u64(entropy))).collect()
}

fn random_u64(entropy: &mut dyn Entropy) -> u64 {
    let mut bytes = [0; 8];
    entropy.fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

fn random_challenge(entropy: &mut dyn Entropy) -> Challenge {
    let mut challenge = Challenge::default();
    entropy.fill(&mut challenge);
    challenge
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
