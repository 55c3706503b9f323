//! The envelope of JSON-RPC 2.0 (jsonrpc.org/specification): requests, answers, failures, and lines of them.

use chatcore::net::ClientError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

use crate::error::CommandError;
use crate::output::json::to_line;

/// Codes that the specification gives; all others are exit codes of docs/CLI.md.
pub(super) const PARSE_ERROR: i64 = -32700;
pub(super) const INVALID_REQUEST: i64 = -32600;
pub(super) const METHOD_NOT_FOUND: i64 = -32601;
pub(super) const INVALID_PARAMS: i64 = -32602;

/// Why a request failed.
#[derive(Debug, Serialize)]
pub(super) struct Failure {
    code: i64,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
}

impl Failure {
    pub(super) fn new(code: i64, message: impl std::fmt::Display) -> Self {
        Self { code, message: message.to_string(), data: None }
    }

    /// Says what was told last before it failed.
    pub(super) fn after(mut self, told: Option<Value>) -> Self {
        if let Some(told) = told {
            let data = self.data.get_or_insert_with(|| json!({}));
            if let Some(data) = data.as_object_mut() {
                data.insert("line".to_owned(), told);
            }
        }
        self
    }
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        let data = error.advice().map(|hint| json!({ "hint": hint }));
        Self { code: i64::from(error.code() as u8), message: error.to_string(), data }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        CommandError::from(error).into()
    }
}

/// A request as it came; its id goes back byte for byte.
#[derive(Debug, Deserialize)]
pub(super) struct Request<'r> {
    #[serde(default)]
    pub(super) jsonrpc: Value,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) id: Option<&'r RawValue>,
    #[serde(default)]
    pub(super) method: Value,
    #[serde(default)]
    pub(super) params: Value,
}

/// An id that is null is there all the same.
fn present<'r, D: Deserializer<'r>>(deserializer: D) -> Result<Option<&'r RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

#[derive(Debug, Serialize)]
struct Answer<'r> {
    jsonrpc: &'static str,
    id: &'r RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
}

/// Returns the line that answers a request.
pub(super) fn answer_line(id: &RawValue, result: Result<Value, Failure>) -> String {
    let (result, error) = match result {
        Ok(result) => (Some(result), None),
        Err(failure) => (None, Some(failure)),
    };
    // It always has JSON: maps with names, and numbers that came as JSON.
    to_line(&Answer { jsonrpc: "2.0", id, result, error }).unwrap_or_default()
}

pub(super) fn failed(id: &RawValue, code: i64, what: impl std::fmt::Display) -> String {
    answer_line(id, Err(Failure::new(code, what)))
}

pub(super) fn notification(method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "method": method, "params": params})
}

pub(super) fn params<T: DeserializeOwned>(params: Value) -> Result<T, Failure> {
    let params = if params.is_null() { json!({}) } else { params };
    serde_json::from_value(params).map_err(|error| Failure::new(INVALID_PARAMS, error))
}

/// Reads to the end of a line and keeps nothing of it.
pub(super) async fn skip_line(reader: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<()> {
    loop {
        let bytes = reader.fill_buf().await?;
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let read = end.map_or(bytes.len(), |at| at + 1);
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        reader.consume(read);
        if end.is_some() {
            return Ok(());
        }
    }
}
