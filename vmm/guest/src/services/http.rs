//! HTTP/1.1 on port 80 (RFC 9112), as much as a browser, curl and a load generator need.
//!
//! | target | answer |
//! |---|---|
//! | `/` | a page for people |
//! | `/status` | the same as JSON |
//! | `/burn?ms=N&kib=M` | computes for N ms (1 to 10000) without an exit, then JSON |
//!
//! `kib` is the working set of the burn (0 to 4096 KiB), none if it is left out.
//!
//! Connections persist and requests may be pipelined. Request bodies are not read: a request that
//! announces one is answered and the connection closed.

use core::fmt::Write as _;

use smoltcp::socket::tcp::{Socket, State};
use smoltcp::time::{Duration, Instant};

use super::page::{self, Status, Text};
use super::request::{Head, Method, Request};
use super::{Service, send_room};
use crate::burn::{Burned, Task, WORKING_SET_KIB_MAX, burn};
use crate::clock::{WallClock, rdtsc, uptime_ms};
use crate::entropy::Entropy;
use crate::gate::ticks;

/// Request line and header fields.
pub(super) const HEAD_BYTES_MAX: usize = 4096;
/// A whole response.
pub(super) const RESPONSE_BYTES_MAX: usize = BODY_BYTES_MAX + HEADER_BYTES_MAX;
const BODY_BYTES_MAX: usize = 3840;
const HEADER_BYTES_MAX: usize = 256;
const BURN_MS_MAX: u64 = 10_000;
/// A connection without a complete request is closed after this long.
const IDLE_MAX: Duration = Duration::from_secs(10);

pub(super) struct Http {
    entropy: Entropy,
    /// Requests taken, counting the one under way.
    requests: u64,
    /// The counter service's last number.
    pub(super) count: u64,
    body: Text<BODY_BYTES_MAX>,
}

/// One client.
#[derive(Default)]
pub(super) struct Connection {
    idle_since: Option<Instant>,
    burn: Burn,
}

/// A burn is done by the main loop between two gates, not in the middle of serving others.
#[derive(Default)]
enum Burn {
    #[default]
    None,
    Due {
        task: Task,
        close: bool,
    },
    Done {
        task: Task,
        close: bool,
        burned: Burned,
    },
}

impl Connection {
    pub(super) fn has_burn(&self) -> bool {
        matches!(self.burn, Burn::Due { .. })
    }

    pub(super) fn burn(&mut self) {
        if let Burn::Due { task, close } = self.burn {
            self.burn = Burn::Done { task, close, burned: burn(task) };
        }
    }
}

/// How a response is framed.
struct Framing {
    status: &'static str,
    content_type: &'static str,
    without_body: bool,
    close: bool,
}

impl Service for Http {
    const PORT: u16 = 80;
    type Connection = Connection;

    fn serve(
        &mut self,
        socket: &mut Socket<'_>,
        connection: &mut Connection,
        now: Instant,
    ) -> bool {
        let mut progressed = false;
        let mut input = [0; HEAD_BYTES_MAX];
        // Room first: a request is taken only together with its response.
        while socket.may_send() && send_room(socket) >= RESPONSE_BYTES_MAX {
            match core::mem::take(&mut connection.burn) {
                Burn::None => {}
                due @ Burn::Due { .. } => {
                    connection.burn = due;
                    break;
                }
                Burn::Done { task, close, burned } => {
                    page::burned(self.body.start(), task, &burned);
                    let status = "200 OK";
                    let content_type = page::JSON;
                    self.respond(
                        socket,
                        &Framing { status, content_type, without_body: false, close },
                    );
                    progressed = true;
                    continue;
                }
            }
            let len = socket.peek_slice(&mut input).unwrap_or(0);
            match Head::parse(&input[..len]) {
                Head::Complete(request) => {
                    let taken = request.len;
                    self.handle(socket, connection, &request);
                    socket.recv_slice(&mut input[..taken]).expect("these bytes were just seen");
                    connection.idle_since = None;
                }
                Head::Incomplete if len < HEAD_BYTES_MAX => {
                    let idle_since = *connection.idle_since.get_or_insert(now);
                    if socket.state() == State::CloseWait || now - idle_since > IDLE_MAX {
                        socket.close();
                        progressed = true;
                    }
                    break;
                }
                Head::Incomplete | Head::Malformed => {
                    self.requests += 1;
                    self.body.start().push("400 bad request\n");
                    let status = "400 Bad Request";
                    let content_type = page::TEXT;
                    self.respond(
                        socket,
                        &Framing { status, content_type, without_body: false, close: true },
                    );
                }
            }
            progressed = true;
        }
        progressed
    }
}

impl Http {
    pub(super) fn new(entropy: Entropy) -> Self {
        Self { entropy, requests: 0, count: 0, body: Text::new() }
    }

    /// Answers a request, or notes its burn.
    fn handle(
        &mut self,
        socket: &mut Socket<'_>,
        connection: &mut Connection,
        request: &Request<'_>,
    ) {
        self.requests += 1;
        let (path, query) = request.target.split_once('?').unwrap_or((request.target, ""));
        let (status, content_type) = match (request.method, path) {
            (Method::Get | Method::Head, "/") => {
                let status = self.status();
                page::html(self.body.start(), &status);
                ("200 OK", page::HTML)
            }
            (Method::Get | Method::Head, "/status") => {
                let status = self.status();
                page::json(self.body.start(), &status);
                ("200 OK", page::JSON)
            }
            (Method::Get, "/burn") => {
                if let Some(task) = burn_task(query) {
                    connection.burn = Burn::Due { task, close: request.close };
                    return;
                }
                self.body.start().push(
                    "400 bad request: burn needs ms=1 to ms=10000, and takes kib=0 to kib=4096\n",
                );
                ("400 Bad Request", page::TEXT)
            }
            (Method::Get | Method::Head, _) => {
                self.body.start().push("404 not found\n");
                ("404 Not Found", page::TEXT)
            }
            (Method::Other, _) => {
                self.body.start().push("405 method not allowed\n");
                ("405 Method Not Allowed\r\nAllow: GET, HEAD", page::TEXT)
            }
        };
        let without_body = request.method == Method::Head;
        self.respond(socket, &Framing { status, content_type, without_body, close: request.close });
    }

    /// Sends the response whose body is `self.body`.
    fn respond(&self, socket: &mut Socket<'_>, framing: &Framing) {
        let body = self.body.bytes();
        let mut header = Text::<HEADER_BYTES_MAX>::new();
        write!(
            header,
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             Connection: {}\r\n\r\n",
            framing.status,
            framing.content_type,
            body.len(),
            if framing.close { "close" } else { "keep-alive" }
        )
        .expect("a header of bounded parts fits");
        let body = if framing.without_body { &[] } else { body };
        for part in [header.bytes(), body] {
            let sent = socket.send_slice(part).expect("the caller saw that sending is possible");
            assert_eq!(sent, part.len(), "the caller saw room for a response");
        }
        if framing.close {
            socket.close();
        }
    }

    fn status(&mut self) -> Status {
        Status {
            uptime_ms: uptime_ms(),
            requests: self.requests,
            wall_clock: WallClock::read(),
            random: self.entropy.next(),
            tsc: rdtsc(),
            ticks: ticks(),
            counter: self.count,
        }
    }
}

/// What a burn's query asks for, if it is within bounds.
fn burn_task(query: &str) -> Option<Task> {
    let value = |name| query.split('&').find_map(|pair| pair.strip_prefix(name));
    let ms = value("ms=")?.parse().ok()?;
    let kib = value("kib=").map_or(Some(0), |kib| kib.parse().ok())?;
    let is_bounded = (1..=BURN_MS_MAX).contains(&ms) && kib <= WORKING_SET_KIB_MAX;
    is_bounded.then_some(Task { ms, kib })
}
