//! [`Verdict`]: what is answered to a request. Only `GET /metrics` gets the metrics.

use crate::limits::{METRICS_FIELDS_MAX, METRICS_REQUEST_BYTES_MAX};
use httparse::{EMPTY_HEADER, Error, Request, Status};
use prometheus_client::encoding::prometheus_text::CONTENT_TYPE;

/// The path of the metrics.
const PATH: &str = "/metrics";

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The metrics.
    Metrics,
    /// The request is not HTTP.
    BadRequest,
    /// There is nothing at this path.
    NotFound,
    /// The method is not GET.
    MethodNotAllowed,
    /// The request is too long.
    TooLong,
}

impl Verdict {
    /// Decides about a request of which `bytes` have arrived so far; `None` if it is not complete.
    pub(super) fn of(bytes: &[u8]) -> Option<Verdict> {
        let mut fields = [EMPTY_HEADER; METRICS_FIELDS_MAX];
        let mut request = Request::new(&mut fields);
        match request.parse(bytes) {
            Ok(Status::Complete(_)) => Some(match (request.method, request.path) {
                (Some("GET"), Some(path)) if path.split('?').next() == Some(PATH) => Self::Metrics,
                (Some("GET"), _other) => Self::NotFound,
                _other => Self::MethodNotAllowed,
            }),
            Ok(Status::Partial) if bytes.len() < METRICS_REQUEST_BYTES_MAX => None,
            Ok(Status::Partial) | Err(Error::TooManyHeaders) => Some(Self::TooLong),
            Err(
                Error::HeaderName
                | Error::HeaderValue
                | Error::NewLine
                | Error::Status
                | Error::Token
                | Error::Version,
            ) => Some(Self::BadRequest),
        }
    }

    /// Returns the answer. `metrics` makes the text of the metrics.
    pub(super) fn answer(self, metrics: impl FnOnce() -> String) -> Vec<u8> {
        let (status, more, text) = match self {
            Self::Metrics => ("200 OK", "", metrics()),
            Self::BadRequest => ("400 Bad Request", "", "not a request\n".into()),
            Self::NotFound => ("404 Not Found", "", "the metrics are at /metrics\n".into()),
            Self::MethodNotAllowed => {
                ("405 Method Not Allowed", "Allow: GET\r\n", "only GET is answered\n".into())
            }
            Self::TooLong => {
                ("431 Request Header Fields Too Large", "", "the request is too long\n".into())
            }
        };
        let length = text.len();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {length}\r\n{more}Connection: close\r\n\r\n"
        );
        (head + &text).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_get_of_the_metrics_gets_them() {
        for (request, verdict) in [
            ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", Verdict::Metrics),
            ("GET /metrics?name[]=up HTTP/1.0\r\n\r\n", Verdict::Metrics),
            ("GET / HTTP/1.1\r\n\r\n", Verdict::NotFound),
            ("GET /metrics/ HTTP/1.1\r\n\r\n", Verdict::NotFound),
            ("GET http://127.0.0.1/metrics HTTP/1.1\r\n\r\n", Verdict::NotFound),
            ("HEAD /metrics HTTP/1.1\r\n\r\n", Verdict::MethodNotAllowed),
            ("POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", Verdict::MethodNotAllowed),
            ("GET /metrics\r\n\r\n", Verdict::BadRequest),
            ("GET /metrics HTTP/3.0\r\n\r\n", Verdict::BadRequest),
            ("\0\r\n\r\n", Verdict::BadRequest),
            ("GET /metrics HTTP/1.1\r\nbad name: 1\r\n\r\n", Verdict::BadRequest),
        ] {
            assert_eq!(Verdict::of(request.as_bytes()), Some(verdict), "{request:?}");
        }
    }

    #[test]
    fn request_is_awaited_until_it_is_complete_or_too_long() {
        let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
        for length in 0..request.len() {
            assert_eq!(Verdict::of(&request[..length]), None, "{length} bytes");
        }
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(METRICS_REQUEST_BYTES_MAX));
        assert_eq!(
            Verdict::of(&long.as_bytes()[..METRICS_REQUEST_BYTES_MAX]),
            Some(Verdict::TooLong)
        );
        let fields = "a: b\r\n".repeat(METRICS_FIELDS_MAX + 1);
        let many = format!("GET /metrics HTTP/1.1\r\n{fields}\r\n");
        assert_eq!(Verdict::of(many.as_bytes()), Some(Verdict::TooLong));
    }

    #[test]
    fn answer_has_its_length_and_ends_the_connection() {
        let answer = String::from_utf8(Verdict::Metrics.answer(|| "up 1\n".into())).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("text/plain; version=0.0.4")
        );
        assert!(head.contains("Content-Length: 5\r\n") && head.ends_with("Connection: close"));
        assert_eq!(body, "up 1\n");
        let refused = Verdict::NotFound.answer(|| panic!("no metrics are made"));
        assert!(refused.starts_with(b"HTTP/1.1 404 "));
    }
}
