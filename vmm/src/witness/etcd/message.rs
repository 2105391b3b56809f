//! Requests to etcd's JSON gateway and its answers: the messages of etcd's gRPC interface in the JSON of Protocol
//! Buffers, with keys and values in Base64 (etcd documentation, "gRPC gateway").

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// What a transaction found.
#[derive(Debug)]
pub(super) struct Outcome {
    /// All comparisons were true.
    pub(super) succeeded: bool,
    /// What each range found, in the order of the request.
    pub(super) ranges: Vec<Vec<Pair>>,
}

/// The bytes that come after every key that begins with `prefix`. Its last byte must not be 255.
pub(super) fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// Compares the value of `key`.
pub(super) fn has_value(key: &str, value: &[u8]) -> Value {
    json!({ "target": "VALUE", "result": "EQUAL", "key": encode(key), "value": encode(value) })
}

/// Requires that `key` does not exist.
pub(super) fn is_absent(key: &str) -> Value {
    json!({ "target": "CREATE", "result": "EQUAL", "key": encode(key), "create_revision": "0" })
}

/// Reads `key`.
pub(super) fn get(key: &str) -> Value {
    json!({ "request_range": { "key": encode(key) } })
}

/// Reads the last key from `first` on, before `end`.
pub(super) fn last(first: &str, end: &[u8]) -> Value {
    one(first, end, "DESCEND")
}

/// Reads the first key from `first` on, before `end`.
pub(super) fn first(first: &str, end: &[u8]) -> Value {
    one(first, end, "ASCEND")
}

fn one(first: &str, end: &[u8], order: &str) -> Value {
    json!({ "request_range": {
        "key": encode(first), "range_end": encode(end), "limit": "1", "sort_order": order, "sort_target": "KEY",
    } })
}

/// Writes `key`.
pub(super) fn put(key: &str, value: &str) -> Value {
    json!({ "request_put": { "key": encode(key), "value": encode(value) } })
}

/// A transaction: if all of `compare` are true, `success`, otherwise `failure`.
pub(super) fn transaction(compare: &[Value], success: &[Value], failure: &[Value]) -> Value {
    json!({ "compare": compare, "success": success, "failure": failure })
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// Fields that have their default are absent. Other fields are ignored.
#[derive(Deserialize)]
struct TxnResponse {
    #[serde(default)]
    succeeded: bool,
    #[serde(default)]
    responses: Vec<OpResponse>,
}

#[derive(Deserialize)]
struct OpResponse {
    response_range: Option<RangeResponse>,
}

#[derive(Deserialize)]
struct RangeResponse {
    #[serde(default)]
    kvs: Vec<KeyValue>,
}

#[derive(Deserialize)]
struct KeyValue {
    key: String,
    #[serde(default)]
    value: String,
}

/// Decodes the answer to a transaction; `None` if it is none. Any answer is possible.
pub(super) fn decode_transaction(answer: &[u8]) -> Option<Outcome> {
    let answer: TxnResponse = serde_json::from_slice(answer).ok()?;
    let ranges = answer.responses.into_iter().filter_map(|response| response.response_range);
    let ranges = ranges.map(|range| {
        let pairs = range.kvs.into_iter().map(|pair| {
            let key = BASE64_STANDARD.decode(pair.key).ok()?;
            let value = BASE64_STANDARD.decode(pair.value).ok()?;
            Some(Pair { key, value })
        });
        pairs.collect::<Option<Vec<_>>>()
    });
    Some(Outcome { succeeded: answer.succeeded, ranges: ranges.collect::<Option<_>>()? })
}

/// The error of a server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// What is wrong, in words.
    pub(super) error: String,
    /// The code of gRPC.
    pub(super) code: i64,
}

/// Decodes the error in an answer; `None` if it is none.
pub(super) fn decode_refusal(answer: &[u8]) -> Option<Refusal> {
    #[derive(Deserialize)]
    struct Wire {
        error: Option<String>,
        message: Option<String>,
        #[serde(default)]
        code: i64,
    }
    let wire: Wire = serde_json::from_slice(answer).ok()?;
    Some(Refusal { error: wire.error.or(wire.message)?, code: wire.code })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transaction_of_a_server_is_decoded() {
        // As etcd 3.4 answers.
        let answer = br#"{"header":{"cluster_id":"3","revision":"2"},"succeeded":true,"responses":[
            {"response_put":{"header":{"revision":"2"}}},
            {"response_range":{"header":{"revision":"2"},"kvs":[{"key":"YQ==","create_revision":"2",
             "mod_revision":"2","version":"1","value":"aGVsbG8="}],"count":"1"}},
            {"response_range":{"header":{"revision":"2"}}}]}"#;
        let outcome = decode_transaction(answer).unwrap();
        let pair = Pair { key: b"a".to_vec(), value: b"hello".to_vec() };
        assert!(outcome.succeeded);
        assert_eq!(outcome.ranges, [vec![pair], vec![]]);
        let failed = decode_transaction(br#"{"header":{}}"#).unwrap();
        assert!(!failed.succeeded && failed.ranges.is_empty());
    }

    #[test]
    fn any_other_answer_is_none() {
        let deep = "[".repeat(100_000);
        for answer in [
            "",
            "404 page not found",
            "5",
            "[]",
            r#"{"succeeded":1}"#,
            r#"{"responses":[{"response_range":{"kvs":[{"key":"*"}]}}]}"#,
            r#"{"responses":[{"response_range":{"kvs":[{"value":"YQ=="}]}}]}"#,
            &deep,
        ] {
            let outcome = decode_transaction(answer.as_bytes());
            assert!(outcome.is_none_or(|outcome| !outcome.succeeded && outcome.ranges.is_empty()));
        }
        assert!(decode_transaction(deep.as_bytes()).is_none());
    }

    #[test]
    fn error_of_a_server_is_decoded() {
        for answer in [
            r#"{"error":"etcdserver: no leader","message":"etcdserver: no leader","code":14}"#,
            r#"{"code":14,"message":"etcdserver: no leader","details":[]}"#,
        ] {
            let refusal = decode_refusal(answer.as_bytes()).unwrap();
            assert_eq!((refusal.error.as_str(), refusal.code), ("etcdserver: no leader", 14));
        }
        assert_eq!(decode_refusal(br#"{"header":{}}"#), None);
    }

    #[test]
    fn end_comes_after_every_key_with_the_prefix() {
        assert!(end_of("x/vm-").as_slice() > b"x/vm-~".as_slice());
        assert_eq!(end_of("a/"), b"a0");
    }
}
