//! HTTP endpoints for monitoring: `/metrics` in Prometheus' text format, `/health`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::metrics::Metrics;
use crate::operator::Operator;

/// Connections at a time: each takes a thread while it is answered.
const MAX_AT_A_TIME: usize = 8;
/// Time of a connection, with all that is asked on it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time for the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(3);
/// Time for which it is not looked again whether the relay is healthy: looking writes to its store.
const LOOKED: Duration = Duration::from_secs(5);
/// Pause when the system has no more sockets.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers for ever, a few at a time.
pub async fn serve(listener: TcpListener, operator: Operator) {
    let places = Arc::new(Semaphore::new(MAX_AT_A_TIME));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let operator = operator.clone();
                tokio::spawn(async move {
                    let answered = tokio::time::timeout(PATIENCE, converse(stream, operator));
                    if let Ok(Err(error)) = answered.await {
                        tracing::debug!(%error, "who watches was not answered");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection of who watches could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, operator: Operator) -> Result<(), hyper::Error> {
    let service = service_fn(move |request| answer(request, operator.clone()));
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).keep_alive(false);
    server.serve_connection(TokioIo::new(stream), service).await
}

async fn answer(
    request: Request<Incoming>,
    operator: Operator,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let work: fn(&Operator) -> (StatusCode, &'static str, String) = match request.uri().path() {
        _ if !is_read => |_| (StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET\n".to_owned()),
        "/metrics" => metrics,
        "/health" => health,
        _ => |_| (StatusCode::NOT_FOUND, PLAIN, "there are /metrics and /health\n".to_owned()),
    };
    let done = tokio::task::spawn_blocking(move || work(&operator)).await;
    let (status, kind, text) = done.unwrap_or_else(|_| {
        (StatusCode::INTERNAL_SERVER_ERROR, PLAIN, "the relay could not answer\n".to_owned())
    });
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

const PLAIN: &str = "text/plain; charset=utf-8";

fn metrics(operator: &Operator) -> (StatusCode, &'static str, String) {
    match operator.metrics() {
        Some(text) => (StatusCode::OK, Metrics::CONTENT_TYPE, text),
        None => (StatusCode::SERVICE_UNAVAILABLE, PLAIN, "the relay has stopped\n".to_owned()),
    }
}

fn health(operator: &Operator) -> (StatusCode, &'static str, String) {
    match operator.health(LOOKED) {
        Ok(said) => (StatusCode::OK, PLAIN, said + "\n"),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, PLAIN, why + "\n"),
    }
}
