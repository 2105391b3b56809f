//! The head of an HTTP request (RFC 9112, sections 2 to 5).
//!
//! Parsing starts over with each byte that arrives; heads come in one segment, and then it is done once.

/// What the input holds so far.
pub(super) enum Head<'a> {
    Complete(Request<'a>),
    /// Fine so far; the empty line is missing.
    Incomplete,
    Malformed,
}

/// A parsed request head.
pub(super) struct Request<'a> {
    /// Bytes of the head, the empty line included.
    pub(super) len: usize,
    pub(super) method: Method,
    /// In origin form: it starts with a slash.
    pub(super) target: &'a str,
    /// The connection ends with the response.
    pub(super) close: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
    Other,
}

impl<'a> Head<'a> {
    pub(super) fn parse(input: &'a [u8]) -> Self {
        // Empty lines before a request are ignored (RFC 9112, 2.2).
        let start = input.iter().position(|b| !b"\r\n".contains(b)).unwrap_or(input.len());
        let Some(end) = end_of_head(&input[start..]) else { return Self::Incomplete };
        let len = start + end;
        let Ok(text) = core::str::from_utf8(&input[start..len]) else { return Self::Malformed };
        match Request::parse(text, len) {
            Some(request) => Self::Complete(request),
            None => Self::Malformed,
        }
    }
}

/// Length of the head if its empty line is there. A bare LF ends a line too (RFC 9112, 2.2).
fn end_of_head(input: &[u8]) -> Option<usize> {
    let mut line = 0;
    for (i, _) in input.iter().enumerate().filter(|(_, b)| **b == b'\n') {
        if matches!(&input[line..i], b"" | b"\r") {
            return Some(i + 1);
        }
        line = i + 1;
    }
    None
}

impl<'a> Request<'a> {
    fn parse(head: &'a str, len: usize) -> Option<Self> {
        let mut lines = head.lines();
        let mut words = lines.next()?.split(' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        if words.next().is_some() || method.is_empty() || !method.bytes().all(is_token) {
            return None;
        }
        // A server has no use for the other forms, and a target is visible ASCII.
        if !target.starts_with('/') || !target.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        let mut close = match version {
            "HTTP/1.1" => false,
            "HTTP/1.0" => true,
            _ => return None,
        };
        let mut has_body = false;
        for line in lines.take_while(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':')?;
            if name.is_empty() || !name.bytes().all(is_token) {
                return None;
            }
            let value = value.trim_matches([' ', '\t']);
            if name.eq_ignore_ascii_case("connection") {
                for option in value.split(',').map(str::trim) {
                    if option.eq_ignore_ascii_case("close") {
                        close = true;
                    } else if option.eq_ignore_ascii_case("keep-alive") {
                        close = false;
                    }
                }
            } else if name.eq_ignore_ascii_case("content-length") {
                has_body |= value != "0";
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                has_body = true;
            }
        }
        let method = match method {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            _ => Method::Other,
        };
        Some(Self { len, method, target, close: close || has_body })
    }
}

/// `tchar` of RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
