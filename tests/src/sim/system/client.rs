//! Clients on the LAN. They compare every answer with all earlier answers.

use std::collections::BTreeMap;

use super::count::Count;
use super::options::ClientOptions;
use super::packet::{self, DATA_BYTES_MAX, Kind, Message};
use super::pair::{Event, Pair};
use crate::sim::rng::Rng;
use crate::sim::{Checked, MS, require};

/// The first port of the switch with a client.
pub(crate) const FIRST_PORT: usize = 2;

/// The numbers that the counter service has given.
#[derive(Debug, Default)]
struct CounterValues {
    /// The client and request that got a number, by that number.
    numbers: BTreeMap<u64, (usize, u32)>,
}

impl CounterValues {
    fn newest(&self) -> u64 {
        self.numbers.last_key_value().map_or(0, |(&number, _)| number)
    }
}

/// The current request of a client, answered or not.
#[derive(Clone, Debug)]
struct Request {
    id: u32,
    data: Vec<u8>,
    /// When it was sent first.
    asked_at: u64,
    /// The newest number that any client had received by then.
    floor: u64,
    answered: bool,
}

/// A client. It has one request at a time, and retries it until it is answered.
#[derive(Debug)]
pub(crate) struct Client {
    options: ClientOptions,
    rng: Rng,
    request: Option<Request>,
    /// The numbers that its requests got, by request id.
    values: Vec<u64>,
    retry_ns: u64,
    /// Ticket of the valid timer; older ones are ignored.
    ticket: u64,
    /// When its newest answered request was sent first.
    answered_since: Option<u64>,
}

impl Client {
    /// Creates a client without a request.
    pub(crate) fn new(options: ClientOptions, rng: Rng) -> Self {
        let retry_ns = options.retry_ns;
        let values = vec![0];
        let (request, answered_since) = (None, None);
        Self { options, rng, request, values, retry_ns, ticket: 0, answered_since }
    }

    /// Whether no request that it has made since `since` was answered yet.
    fn waits_since(&self, since: u64) -> bool {
        self.answered_since.is_none_or(|asked_at| asked_at < since)
    }

    fn is_waiting(&self) -> bool {
        self.request.as_ref().is_some_and(|request| !request.answered)
    }

    fn kind(&self) -> Kind {
        if self.options.uses_counter { Kind::Count } else { Kind::Echo }
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

/// All clients, and the numbers that they received.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    all: Vec<Client>,
    counter_values: CounterValues,
}

impl Clients {
    /// Creates the clients.
    pub(crate) fn new(all: Vec<Client>) -> Self {
        Self { all, counter_values: CounterValues::default() }
    }

    /// Number of clients.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Sets the timer of a client and returns its ticket. Replaces an earlier setting.
    pub(crate) fn set_timer(&mut self, client: usize) -> u64 {
        let own = &mut self.all[client];
        own.ticket += 1;
        own.ticket
    }

    /// Whether this is the ticket of the client's valid timer.
    pub(crate) fn is_due(&self, client: usize, ticket: u64) -> bool {
        self.all[client].ticket == ticket
    }

    /// The client's next request, or its current one again; `None` if it makes no new requests. Also returns
    /// when the client acts next.
    pub(crate) fn ask(
        &mut self,
        client: usize,
        now: u64,
        makes_requests: bool,
    ) -> (Option<Vec<u8>>, u64) {
        let floor = self.counter_values.newest();
        let own = &mut self.all[client];
        if !own.is_waiting() {
            if !makes_requests {
                return (None, now + MS);
            }
            own.new_request(now, floor);
        }
        let Some(request) = &own.request else { return (None, now + MS) };
        let (id, data) = (request.id, &request.data);
        let message = Message { kind: own.kind(), client: client as u8, id, value: 0, data };
        let frame = packet::request(&message);
        let wait_ns = own.retry_ns + own.rng.below(own.retry_ns / 4 + 1);
        own.retry_ns = (own.retry_ns * 2).min(own.options.retry_ns_max);
        (Some(frame), now + wait_ns)
    }

    /// Checks a frame that a client receives. Returns when the client acts next, if the frame answers its
    /// current request.
    pub(crate) fn get(&mut self, client: usize, now: u64, frame: &[u8]) -> Checked<Option<u64>> {
        let Some(answer) = packet::read_answer(frame) else { return Ok(None) };
        if usize::from(answer.client) != client {
            return Ok(None);
        }
        let own = &mut self.all[client];
        let Message { id, value, .. } = answer;
        let Some(request) = own.request.as_mut().filter(|request| id <= request.id) else {
            require!(false, "client {client} gets an answer to request {id}, which it never made");
            return Ok(None);
        };
        if id == request.id {
            require!(
                answer.data == request.data,
                "client {client}: the answer to request {id} has different data"
            );
        }
        if own.options.uses_counter {
            require!(answer.kind == Kind::Counted, "client {client} gets an echo for a number");
            if let Some(&before) = own.values.get(id as usize) {
                require!(
                    before == value,
                    "client {client}: request {id} gets {before}, and then {value}"
                );
            } else {
                require!(
                    value > request.floor,
                    "client {client}: request {id} gets {value}, and {} was given before it was sent",
                    request.floor
                );
                let taken = self.counter_values.numbers.insert(value, (client, id));
                require!(
                    taken.is_none(),
                    "client {client}: request {id} gets {value}, which {taken:?} got before"
                );
                own.values.push(value);
            }
        } else {
            require!(answer.kind == Kind::Echoed, "client {client} gets a number for an echo");
        }
        if id != request.id || request.answered {
            return Ok(None);
        }
        request.answered = true;
        own.answered_since = Some(request.asked_at);
        Ok(Some(now + own.rng.within(1..=own.options.think_ns_max)))
    }

    /// Number of clients without an answer to a request that was made since `since`.
    pub(crate) fn waiting_since(&self, since: u64) -> usize {
        self.all.iter().filter(|client| client.waits_since(since)).count()
    }

    /// Checks at the end of a run that no number is missing, except those whose answers are still in transit.
    pub(crate) fn check_counter_values(&self) -> Checked {
        let given = self.counter_values.numbers.len() as u64;
        let newest = self.counter_values.newest();
        let waiting = self.all.iter().filter(|c| c.is_waiting() && c.options.uses_counter).count();
        require!(
            newest - given <= waiting as u64,
            "clients received {given} numbers up to {newest}, and {waiting} clients wait for one"
        );
        Ok(())
    }
}

impl Pair<'_> {
    /// Sends a client's next request, or retries its current one.
    pub(crate) fn client_acts(&mut self, client: usize, ticket: u64) {
        let now = self.queue.now();
        if !self.clients.is_due(client, ticket) {
            return;
        }
        let (frame, next_at) = self.clients.ask(client, now, !self.clients_paused);
        self.set_client_timer(client, next_at);
        let Some(frame) = frame else { return };
        self.counts.count(Count::RequestsSent);
        self.trace.line(now, None, "ask", format_args!("client {client}"));
        self.send_to_switch(FIRST_PORT + client, &frame.into());
    }

    /// Sets the timer of a client. Replaces an earlier setting.
    pub(crate) fn set_client_timer(&mut self, client: usize, at: u64) {
        let ticket = self.clients.set_timer(client);
        self.queue.push(at, Event::Client { client, ticket });
    }

    /// Checks a frame that a client receives.
    pub(crate) fn client_gets(&mut self, client: usize, frame: &[u8]) -> Checked {
        let now = self.queue.now();
        if let Some(next_at) = self.clients.get(client, now, frame)? {
            self.counts.count(Count::Answers);
            self.trace.line(now, None, "answered", format_args!("client {client}"));
            self.set_client_timer(client, next_at);
        }
        Ok(())
    }
}
