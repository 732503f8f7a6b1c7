//! A watch as a stream of JSON lines. Ends with its timeout, after an error line, or when the client goes away.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde::Serialize;
use serde_json::{Value, json};

use super::body::{Body, BoxError};
use super::negotiate::View;
use crate::kinds::Kind;
use crate::kinds::table::{self, IncludeObject};
use crate::registry::{WatchEvent, WatchKind, WatchStream};
use crate::status::ApiError;

pub const BOOKMARK_EVERY: Duration = Duration::from_secs(50);

/// How events are shown.
#[derive(Clone, Copy)]
pub struct Shape {
    pub kind: &'static Kind,
    pub view: View,
    pub include: IncludeObject,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    object: &'a Value,
}

fn line(kind: &str, object: &Value) -> Bytes {
    let mut bytes = serde_json::to_vec(&Line { kind, object }).unwrap_or_default();
    bytes.push(b'\n');
    bytes.into()
}

pub fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| json!({}))})
}

impl Shape {
    /// `first` is true until a table with its columns was sent.
    fn event(self, event: &WatchEvent, first: &mut bool) -> Bytes {
        let name = event.kind.as_str();
        let bookmark = event.kind == WatchKind::Bookmark;
        match self.view {
            View::Table => {
                let meta = json!({"resourceVersion": event.revision.to_string()});
                let rows = (!bookmark).then_some(&*event.object);
                let mut table = table::render(self.kind, rows, meta, self.include, jiff::Timestamp::now());
                if bookmark {
                    table["metadata"] = event.object.get("metadata").cloned().unwrap_or_default();
                }
                if !std::mem::take(first) {
                    table["columnDefinitions"] = json!([]);
                }
                line(name, &table)
            }
            View::Partial | View::PartialList => line(name, &partial(&event.object)),
            View::Plain | View::Discovery => match self.kind.view {
                Some(view) if !bookmark => line(name, &(view.from_stored)(&event.object)),
                Some(_) => {
                    let mut object = (*event.object).clone();
                    object["apiVersion"] = json!(self.kind.api_version());
                    line(name, &object)
                }
                None => line(name, &event.object),
            },
        }
    }
}

fn lines(events: WatchStream, shape: Shape, timeout: Duration) -> impl Stream<Item = Bytes> + Send {
    let mut first = true;
    let lines = events.map(move |event| match event {
        Ok(event) => shape.event(&event, &mut first),
        Err(error) => line("ERROR", &ApiError::to_status(&error)),
    });
    lines.take_until(tokio::time::sleep(timeout))
}

pub fn body(events: WatchStream, shape: Shape, timeout: Duration) -> Body {
    let frames = lines(events, shape, timeout).map(|bytes| Ok::<_, BoxError>(Frame::data(bytes)));
    StreamBody::new(frames).boxed_unsync()
}
