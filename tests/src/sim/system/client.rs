//! Clients on the LAN. They believe nothing: every answer is compared with all that were given.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::count::Count;
use super::options::ClientOptions;
use super::packet::{self, DATA_BYTES_MAX, Kind, Message};
use super::pair::{Event, Pair};
use crate::sim::rng::Rng;
use crate::sim::{Checked, MS, require};

/// The first port of the switch that a client is at.
pub(crate) const FIRST_PORT: usize = 2;

/// What the counter has given to whom.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// Client and request, by number.
    numbers: BTreeMap<u64, (usize, u32)>,
}

impl Given {
    fn newest(&self) -> u64 {
        self.numbers.last_key_value().map_or(0, |(&number, _)| number)
    }
}

/// The request that a client waits for, or got an answer to last.
#[derive(Clone, Debug)]
struct Request {
    id: u32,
    data: Vec<u8>,
    /// When it was sent first.
    asked_at: u64,
    /// The newest number that anybody had been given by then.
    floor: u64,
    answered: bool,
}

/// One client. It has one request at a time, and repeats it until it is answered.
#[derive(Debug)]
pub(crate) struct Client {
    options: ClientOptions,
    rng: Rng,
    request: Option<Request>,
    /// Of its requests, by id: the number it was given.
    values: Vec<u64>,
    retry_ns: u64,
    /// The timer that counts.
    ticket: u64,
    /// When its newest answered request was asked.
    answered_since: Option<u64>,
}

impl Client {
    /// A client that has not asked for anything.
    pub(crate) fn new(options: ClientOptions, rng: Rng) -> Self {
        let retry_ns = options.retry_ns;
        let values = vec![0];
        let (request, answered_since) = (None, None);
        Self { options, rng, request, values, retry_ns, ticket: 0, answered_since }
    }

    /// Whether no request that it made since then was answered yet.
    pub(crate) fn waits_since(&self, since: u64) -> bool {
        self.answered_since.is_none_or(|asked_at| asked_at < since)
    }

    fn is_waiting(&self) -> bool {
        self.request.as_ref().is_some_and(|request| !request.answered)
    }

    fn kind(&self) -> Kind {
        if self.options.counts { Kind::Count } else { Kind::Echo }
    }

    fn new_request(&mut self, now: u64, floor: u64) {
        let length = self.rng.below(self.options.data_bytes_max + 1) as usize;
        let mut data = vec![0; length.min(DATA_BYTES_MAX)];
        self.rng.fill(&mut data);
        let id = self.request.as_ref().map_or(0, |request| request.id) + 1;
        self.request = Some(Request { id, data, asked_at: now, floor, answered: false });
        self.retry_ns = self.options.retry_ns;
    }
}

impl Pair<'_> {
    /// A client does something: it asks anew, or again.
    pub(crate) fn client_acts(&mut self, client: usize, ticket: u64) {
        let now = self.queue.now();
        let floor = self.given.newest();
        let own = &mut self.clients[client];
        if own.ticket != ticket {
            return;
        }
        if !own.is_waiting() {
            if self.quiet {
                return self.set_client_timer(client, now + MS);
            }
            own.new_request(now, floor);
        }
        let Some(request) = &own.request else { return };
        let (id, data) = (request.id, &request.data);
        let message = Message { kind: own.kind(), client: client as u8, id, value: 0, data };
        let frame: Rc<[u8]> = packet::request(&message).into();
        let wait_ns = own.retry_ns + own.rng.below(own.retry_ns / 4 + 1);
        own.retry_ns = (own.retry_ns * 2).min(own.options.retry_ns_max);
        self.counts.count(Count::RequestsSent);
        self.trace.line(now, None, "ask", format_args!("client {client} request {id}"));
        self.set_client_timer(client, now + wait_ns);
        self.send_to_switch(FIRST_PORT + client, &frame);
    }

    /// Sets the timer of a client, which has one.
    pub(crate) fn set_client_timer(&mut self, client: usize, at: u64) {
        let own = &mut self.clients[client];
        own.ticket += 1;
        let ticket = own.ticket;
        self.queue.push(at, Event::Client { client, ticket });
    }

    /// A client gets a frame.
    pub(crate) fn client_gets(&mut self, client: usize, frame: &[u8]) -> Checked {
        let Some(answer) = packet::read_answer(frame) else { return Ok(()) };
        if usize::from(answer.client) != client {
            return Ok(());
        }
        let now = self.queue.now();
        let own = &mut self.clients[client];
        let Message { id, value, .. } = answer;
        let Some(request) = own.request.as_mut().filter(|request| id <= request.id) else {
            require!(false, "client {client} is answered request {id}, which it never made");
            return Ok(());
        };
        if id == request.id {
            require!(
                answer.data == request.data,
                "client {client}: request {id} comes back changed"
            );
        }
        if own.options.counts {
            require!(answer.kind == Kind::Counted, "client {client} did not ask for an echo");
            if let Some(&before) = own.values.get(id as usize) {
                require!(
                    before == value,
                    "client {client}: request {id} is given {before}, and then {value}"
                );
            } else {
                require!(
                    value > request.floor,
                    "client {client}: request {id} is given {value} when {} was given before",
                    request.floor
                );
                let taken = self.given.numbers.insert(value, (client, id));
                require!(
                    taken.is_none(),
                    "client {client}: request {id} is given {value}, as {taken:?} was"
                );
                own.values.push(value);
            }
        } else {
            require!(answer.kind == Kind::Echoed, "client {client} did not ask for a number");
        }
        if id == request.id && !request.answered {
            request.answered = true;
            own.answered_since = Some(request.asked_at);
            let think_ns = own.rng.within(1..=own.options.think_ns_max);
            self.counts.count(Count::Answers);
            self.trace.line(
                now,
                None,
                "answered",
                format_args!("client {client} request {id} {value}"),
            );
            self.set_client_timer(client, now + think_ns);
        }
        Ok(())
    }

    /// In the end, no number may be missing but those whose answers are still on their way.
    pub(crate) fn check_given(&self) -> Checked {
        let given = self.given.numbers.len() as u64;
        let newest = self.given.newest();
        let waiting = self.clients.iter().filter(|c| c.is_waiting() && c.options.counts).count();
        require!(
            newest - given <= waiting as u64,
            "{given} numbers up to {newest} were given, and {waiting} clients wait for one"
        );
        Ok(())
    }
}
