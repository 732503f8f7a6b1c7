//! `/healthz` and its single checks. A failing check is told by name; what keeps the node from being Ready is not one:
//! a node that waits for its runtime is working.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::sync::Arc;

type Check = dyn Fn() -> Result<(), String> + Send + Sync;

/// Named checks, in the order they are shown.
#[derive(Clone, Default)]
pub struct Checks(Arc<Vec<(&'static str, Box<Check>)>>);

impl Checks {
    pub fn new(checks: Vec<(&'static str, Box<Check>)>) -> Self {
        Checks(Arc::new(checks))
    }

    fn report(&self) -> Response {
        let mut text = String::new();
        let mut failed = false;
        for (name, check) in self.0.iter() {
            match check() {
                Ok(()) => text.push_str(&format!("[+]{name} ok\n")),
                Err(why) => {
                    failed = true;
                    text.push_str(&format!("[-]{name} failed: {why}\n"));
                }
            }
        }
        match failed {
            false => "ok".into_response(),
            true => (StatusCode::INTERNAL_SERVER_ERROR, text + "healthz check failed\n").into_response(),
        }
    }

    fn one(&self, name: &str) -> Response {
        match self.0.iter().find(|(known, _)| *known == name).map(|(_, check)| check()) {
            Some(Ok(())) => "ok".into_response(),
            Some(Err(why)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{name} failed: {why}\n")).into_response(),
            None => (StatusCode::NOT_FOUND, format!("there is no check {name}\n")).into_response(),
        }
    }
}

pub fn app(checks: Checks) -> Router {
    Router::new()
        .route("/healthz", get(|State(checks): State<Checks>| async move { checks.report() }))
        .route("/healthz/{check}", get(|State(checks): State<Checks>, Path(name): Path<String>| async move { checks.one(&name) }))
        .with_state(checks)
}
