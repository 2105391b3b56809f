//! [`Gateway`]: asks the servers of an etcd cluster, one after the other, over HTTP.
//!
//! A question has a limit for its time. Each server has its share: what is left of the time, divided by the number
//! of servers that were not asked yet. The server that answered last is asked first.

use super::address::EtcdAddress;
use super::credentials::{Credentials, User};
use super::message::decode_refusal;
use crate::limits::{ETCD_ANSWER_BYTES_MAX, ETCD_TOKEN_BYTES_MAX};
use crate::witness::one_line;
use serde::Deserialize;
use serde_json::{Value, json};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use ureq::Agent;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

/// Least time in which a server can answer. With less, it is not asked.
const SHARE_MIN: Duration = Duration::from_millis(5);

/// Least time for a password, which a server checks with bcrypt: on a small machine longer than a share, so that it
/// would never be accepted. A question that needs it may have no answer, and the next one finds the token.
const PASSWORD_TIME: Duration = Duration::from_secs(2);

/// gRPC's codes of errors after which a new token may help. A server that was started again does not know its
/// tokens, and a change of users makes all tokens old.
const INVALID_ARGUMENT: i64 = 3;
const UNAUTHENTICATED: i64 = 16;

/// Client of the servers of an etcd cluster, for any number of threads.
pub(super) struct Gateway {
    address: EtcdAddress,
    agent: Agent,
    user: Option<User>,
    /// The token of `user`.
    token: Mutex<Option<String>>,
    /// Index of the endpoint that answered last.
    preferred: AtomicUsize,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the password and the token.
        f.debug_struct("Gateway").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Resolves an address by itself. The library starts a thread for each host, and panics if the system has none left.
#[derive(Debug, Default)]
struct AddressResolver {
    names: DefaultResolver,
}

impl Resolver for AddressResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let address = uri.authority().and_then(|host| host.as_str().parse::<SocketAddr>().ok());
        let Some(address) = address else { return self.names.resolve(uri, config, timeout) };
        let mut all = self.empty();
        all.push(address);
        Ok(all)
    }
}

/// Why no server has answered: one reason for each, with its URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct NoServer(Vec<String>);

/// Why a server has no answer.
enum Fault {
    /// Any reason, in words.
    Other(String),
    /// A new token may help.
    Token(String),
}

impl Gateway {
    pub(super) fn new(address: EtcdAddress, credentials: Credentials) -> Gateway {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .https_only(address.is_tls)
            // A proxy of the environment, for other uses, would be one more machine that can fail.
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent("understudy");
        let config = match credentials.tls {
            Some(tls) => config.tls_config(tls),
            None => config,
        };
        Gateway {
            address,
            agent: Agent::with_parts(
                config.build(),
                DefaultConnector::default(),
                AddressResolver::default(),
            ),
            user: credentials.user,
            token: Mutex::new(None),
            preferred: AtomicUsize::new(0),
        }
    }

    pub(super) fn address(&self) -> &EtcdAddress {
        &self.address
    }

    /// Asks the servers for `path`, until `deadline`. `decode` returns `None` if the answer is invalid.
    ///
    /// # Errors
    ///
    /// No server has a valid answer.
    pub(super) fn ask<T>(
        &self,
        path: &str,
        body: &Value,
        deadline: Instant,
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<T, NoServer> {
        let endpoints = &self.address.endpoints;
        let first = self.preferred.load(Ordering::Relaxed);
        let mut reasons = Vec::new();
        for (asked, n) in (0..endpoints.len()).map(|n| (first + n) % endpoints.len()).enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / (endpoints.len() - asked) as u32;
            match self.ask_one(n, (path, body), share, &decode) {
                Ok(value) => {
                    self.preferred.store(n, Ordering::Relaxed);
                    return Ok(value);
                }
                Err(reason) => reasons.push((n, reason)),
            }
        }
        // In the order of the address: the same failure has the same text, whichever server was asked first.
        reasons.sort();
        Err(NoServer(reasons.into_iter().map(|(_, reason)| reason).collect()))
    }

    /// Asks server number `n` for `path`, within `limit`.
    ///
    /// # Errors
    ///
    /// It has no valid answer. The reason begins with its URL.
    pub(super) fn ask_one<T>(
        &self,
        n: usize,
        (path, body): (&str, &Value),
        limit: Duration,
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<T, String> {
        let url = self.address.url(&self.address.endpoints[n]);
        let deadline = Instant::now() + limit;
        let decode = |answer: Vec<u8>| {
            let not_etcd = || Fault::Other("its answer is not one of etcd's JSON gateway".into());
            decode(&answer).ok_or_else(not_etcd)
        };
        let answer = match self.post_as_user(&url, path, body, deadline) {
            Err(Fault::Token(_)) if self.user.is_some() => {
                *self.token() = None;
                self.post_as_user(&url, path, body, deadline)
            }
            answer => answer,
        };
        answer.and_then(decode).map_err(|fault| match fault {
            Fault::Other(reason) | Fault::Token(reason) => format!("{url}: {reason}"),
        })
    }

    /// Posts `body` with a token, if there is a user.
    fn post_as_user(
        &self,
        url: &str,
        path: &str,
        body: &Value,
        deadline: Instant,
    ) -> Result<Vec<u8>, Fault> {
        let token = match &self.user {
            Some(user) => Some(self.token_of(user, url, deadline)?),
            None => None,
        };
        self.post(&format!("{url}{path}"), token.as_deref(), body, deadline)
    }

    /// Returns the token of `user`, a new one if there is none.
    fn token_of(&self, user: &User, url: &str, deadline: Instant) -> Result<String, Fault> {
        if let Some(token) = self.token().clone() {
            return Ok(token);
        }
        let deadline = deadline.max(Instant::now() + PASSWORD_TIME);
        let body = json!({ "name": user.name, "password": user.password.as_str() });
        let answer = self.post(&format!("{url}/v3/auth/authenticate"), None, &body, deadline);
        let answer = answer.map_err(|fault| match fault {
            Fault::Other(reason) | Fault::Token(reason) => Fault::Other(reason),
        })?;
        #[derive(Deserialize)]
        struct Answer {
            token: String,
        }
        let is_valid = |token: &String| {
            (1..=ETCD_TOKEN_BYTES_MAX).contains(&token.len())
                && token.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let answer: Option<Answer> = serde_json::from_slice(&answer).ok();
        let token = answer.map(|answer| answer.token).filter(is_valid);
        let token = token.ok_or_else(|| Fault::Other("it has sent no valid token".into()))?;
        *self.token() = Some(token.clone());
        Ok(token)
    }

    fn token(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.token.lock().expect("no thread panics while it holds the lock")
    }

    fn post(
        &self,
        url: &str,
        token: Option<&str>,
        body: &Value,
        deadline: Instant,
    ) -> Result<Vec<u8>, Fault> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left < SHARE_MIN {
            return Err(Fault::Other("no answer in time".into()));
        }
        let mut request = self.agent.post(url).content_type("application/json");
        if let Some(token) = token {
            request = request.header("Authorization", token);
        }
        let request = request.config().timeout_global(Some(left)).build();
        let mut response = request.send(body.to_string()).map_err(transport)?;
        let status = response.status();
        let limited = response.body_mut().with_config().limit(ETCD_ANSWER_BYTES_MAX);
        let answer = limited.read_to_vec().map_err(transport)?;
        if status.is_success() {
            return Ok(answer);
        }
        let Some(refusal) = decode_refusal(&answer) else {
            let text = one_line(&String::from_utf8_lossy(&answer));
            return Err(Fault::Other(format!("HTTP status {}: {text}", status.as_u16())));
        };
        let reason = one_line(&refusal.error);
        match refusal.code {
            INVALID_ARGUMENT | UNAUTHENTICATED => Err(Fault::Token(reason)),
            _ => Err(Fault::Other(reason)),
        }
    }
}

fn transport(error: ureq::Error) -> Fault {
    Fault::Other(match error {
        ureq::Error::Timeout(_) => "no answer in time".into(),
        ureq::Error::BodyExceedsLimit(_) => "its answer is too long".into(),
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => {
            "no answer in time".into()
        }
        ureq::Error::Io(error) => one_line(&error.to_string()),
        other => one_line(&other.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::witness::etcd::message::decode_transaction;
    use std::io::{self, Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};

    /// What a server does with a connection.
    type Serve = fn(TcpStream);

    /// A server on a port of its own that treats each connection with `serve`, as long as the process lives.
    fn server(serve: Serve) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || serve(stream));
            }
        });
        address
    }

    /// Reads the beginning of a request and answers with `answer`.
    fn begin(stream: &mut TcpStream, answer: &[u8]) {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(answer);
    }

    /// As [`begin`], and closes the connection.
    fn answer(mut stream: TcpStream, answer: &[u8]) {
        begin(&mut stream, answer);
        // Closing with a part of the request unread would reset the connection, and the answer would be lost.
        let _ = stream.shutdown(Shutdown::Write);
        let _ = io::copy(&mut stream, &mut io::sink());
    }

    fn good(stream: TcpStream) {
        // The client would ask again on this connection, which is about to be closed.
        let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 18\r\n\r\n";
        answer(stream, format!("{head}{{\"succeeded\":true}}").as_bytes());
    }

    fn gateway(endpoints: &[&str]) -> Gateway {
        let address = format!("etcd://{}/x", endpoints.join(","));
        let address = EtcdAddress::parse(&address).unwrap().unwrap();
        Gateway::new(address, Credentials { tls: None, user: None })
    }

    fn ask(gateway: &Gateway, limit: Duration) -> Result<bool, NoServer> {
        let answer =
            gateway.ask("/v3/kv/txn", &json!({}), Instant::now() + limit, decode_transaction)?;
        Ok(answer.succeeded)
    }

    const LIMIT: Duration = Duration::from_millis(900);
    /// For servers that answer.
    const PATIENT: Duration = Duration::from_secs(30);

    #[test]
    fn hostile_or_broken_server_has_no_answer_within_the_limit() {
        let cases: [(Serve, &str); 9] = [
            (|stream| drop(stream), ""),
            (|stream| answer(stream, b"\x1b[31m junk\r\n\r\n"), ""),
            (
                |stream| answer(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\njunk"),
                "not one of",
            ),
            (
                |stream| {
                    answer(
                        stream,
                        b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
                    );
                },
                "HTTP status 302",
            ),
            (
                |stream| answer(stream, b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\njunk"),
                "HTTP status 404",
            ),
            (
                |stream| {
                    let body = br#"{"error":"a\nb\u001bc","code":14}"#;
                    let head = format!("HTTP/1.1 503 X\r\nContent-Length: {}\r\n\r\n", body.len());
                    answer(stream, &[head.as_bytes(), body].concat());
                },
                "a b c",
            ),
            (
                |mut stream| {
                    begin(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n");
                    while stream.write_all(&[b'x'; 4096]).is_ok() {}
                },
                "its answer is too long",
            ),
            (
                |mut stream| loop {
                    std::thread::sleep(Duration::from_secs(60));
                    let _ = stream.write_all(b"x");
                },
                "no answer in time",
            ),
            (
                // One byte at a time.
                |mut stream| {
                    begin(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n");
                    while stream.write_all(b" ").is_ok() {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                },
                "no answer in time",
            ),
        ];
        for (serve, text) in cases {
            let address = server(serve);
            let begin = Instant::now();
            let limit = if text == "no answer in time" { LIMIT } else { PATIENT };
            let error = ask(&gateway(&[&address]), limit).expect_err(text).to_string();
            // The server would hang for longer, or send without end.
            assert!(begin.elapsed() < PATIENT, "{error}: {:?}", begin.elapsed());
            assert!(error.starts_with(&format!("http://{address}: ")), "{error}");
            assert!(error.contains(text) && !error.contains(char::is_control), "{text}: {error}");
        }
    }

    #[test]
    fn server_that_hangs_leaves_time_for_the_others_and_is_asked_last_from_then_on() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let hangs = server(|stream| {
            ASKED.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_secs(60));
            drop(stream);
        });
        let good = server(good);
        let gateway = gateway(&[&hangs, &good]);
        // On a busy host, the good server may need more than its share of a short limit.
        assert_eq!(ask(&gateway, 10 * LIMIT), Ok(true));
        assert_eq!(ask(&gateway, PATIENT), Ok(true));
        assert_eq!(ASKED.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn reasons_have_the_order_of_the_address() {
        let (first, second) = (server(drop), server(good));
        let gateway = gateway(&[&first, &second]);
        assert_eq!(ask(&gateway, PATIENT), Ok(true));
        let error = ask(&gateway, Duration::ZERO).unwrap_err().to_string();
        let reason = |address: &str| format!("http://{address}: no answer in time");
        assert_eq!(error, format!("{}; {}", reason(&first), reason(&second)));
    }
}
