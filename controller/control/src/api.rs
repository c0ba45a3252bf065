//! REST: the routes as a table, who may use each, and the way from a request to its answer.

mod handlers;

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use profiler_opamp::server::Registry;
use serde_json::{Value, json};

use crate::{
    core::Core,
    problem::Problem,
    token::{Role, Token},
};

/// Bytes of a request's body.
const MAX_BODY: usize = 2 << 20;
/// How long a body may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the API is, for programs.
pub const OPENAPI: &str = include_str!("../openapi.json");

/// A route.
pub struct Route {
    /// Its method.
    pub method: Method,
    /// Its path; `{...}` stands for one part.
    pub path: &'static str,
    /// Who may use it; `None` is everybody.
    pub role: Option<Role>,
    handler: Handler,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

type Handler = fn(&mut Core, &mut Registry, &Call) -> Result<Reply, Problem>;

/// A request, taken apart.
pub(crate) struct Call {
    /// Who, for the audit log.
    who: String,
    /// What the `{...}` of the path are.
    parts: Vec<String>,
    query: BTreeMap<String, String>,
    body: Bytes,
    now: i64,
}

/// An answer.
pub(crate) enum Reply {
    Json(StatusCode, Value),
    Text(&'static str, String),
}

impl Reply {
    fn json(value: impl serde::Serialize) -> Result<Self, Problem> {
        Self::with(StatusCode::OK, value)
    }

    fn made(value: impl serde::Serialize) -> Result<Self, Problem> {
        Self::with(StatusCode::CREATED, value)
    }

    fn with(status: StatusCode, value: impl serde::Serialize) -> Result<Self, Problem> {
        let value = serde_json::to_value(value).map_err(|error| Problem::Internal(error.to_string()))?;
        Ok(Self::Json(status, value))
    }
}

/// All routes.
#[must_use]
pub fn routes() -> Vec<Route> {
    use handlers as h;
    let route = |method: Method, path, role: Option<Role>, handler: Handler| Route { method, path, role, handler };
    let (viewer, operator, admin) = (Some(Role::Viewer), Some(Role::Operator), Some(Role::Admin));
    vec![
        route(Method::GET, "/healthz", None, h::healthz),
        route(Method::GET, "/openapi.json", None, h::openapi),
        route(Method::GET, "/metrics", viewer, h::metrics),
        route(Method::GET, "/api/v1/agents", viewer, h::agents),
        route(Method::GET, "/api/v1/agents/{uid}", viewer, h::agent),
        route(Method::DELETE, "/api/v1/agents/{uid}", operator, h::forget),
        route(Method::GET, "/api/v1/revisions", viewer, h::revisions),
        route(Method::POST, "/api/v1/revisions", operator, h::save),
        route(Method::GET, "/api/v1/revisions/{id}", viewer, h::revision),
        route(Method::POST, "/api/v1/revisions/{id}/retry", operator, h::retry),
        route(Method::GET, "/api/v1/rollouts", viewer, h::rollouts),
        route(Method::POST, "/api/v1/rollouts", operator, h::start),
        route(Method::GET, "/api/v1/rollouts/{id}", viewer, h::rollout),
        route(Method::POST, "/api/v1/rollouts/{id}/pause", operator, h::pause),
        route(Method::POST, "/api/v1/rollouts/{id}/resume", operator, h::resume),
        route(Method::POST, "/api/v1/rollouts/{id}/revert", operator, h::revert),
        route(Method::GET, "/api/v1/audit", viewer, h::audit),
        route(Method::GET, "/api/v1/tokens", admin, h::tokens),
        route(Method::POST, "/api/v1/tokens", admin, h::make_token),
        route(Method::DELETE, "/api/v1/tokens/{id}", admin, h::revoke),
    ]
}

/// A request whose body is here.
pub(crate) struct Ready {
    pub head: http::request::Parts,
    pub body: Bytes,
}

/// Reads the body of a request, within bounds, if it `is_known` who sends it: strangers have no memory here.
pub(crate) async fn read(request: Request<Incoming>, is_known: bool) -> Result<Ready, Problem> {
    let (head, body) = request.into_parts();
    if !is_known {
        return Ok(Ready { head, body: Bytes::new() });
    }
    match tokio::time::timeout(PATIENCE, Limited::new(body, MAX_BODY).collect()).await {
        Err(_) => Err(Problem::Invalid("the request did not end".to_owned())),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::TooLarge(MAX_BODY)),
        Ok(Err(_)) => Err(Problem::Invalid("the request broke off".to_owned())),
        Ok(Ok(body)) => Ok(Ready { head, body: body.to_bytes() }),
    }
}

/// Does what a request asks for.
pub(crate) fn answer(core: &mut Core, registry: &mut Registry, ready: Ready, now: i64) -> Result<Reply, Problem> {
    let Ready { head, body } = ready;
    let path = head.uri.path();
    let all = routes();
    let here: Vec<_> = all.iter().filter_map(|route| Some((route, parts(route.path, path)?))).collect();
    if here.is_empty() {
        return Err(Problem::Missing(format!("{:?}; see /openapi.json", profiler_opamp::shown(path))));
    }
    let Some((route, parts)) = here.iter().find(|(route, _)| route.method == head.method) else {
        let methods: Vec<_> = here.iter().map(|(route, _)| route.method.as_str()).collect();
        return Err(Problem::Method(methods.join(", ")));
    };
    let action = format!("{} {}", route.method, route.path);
    let (who, principal) = match route.role {
        None => ("anybody".to_owned(), 0),
        Some(role) => {
            let token = admitted(core, &head.headers, role, &action, now)?;
            (token.written_name(), token.principal())
        }
    };
    let call = Call { who, parts: parts.clone(), query: query(head.uri.query().unwrap_or_default()), body, now };
    let result = (route.handler)(core, registry, &call);
    if let Err(problem) = &result
        && route.method != Method::GET
    {
        core.refused(now, (&call.who, principal), &action, path, &problem.to_string());
    }
    result
}

/// Whose token it is, if it may do this.
fn admitted(core: &mut Core, headers: &http::HeaderMap, role: Role, action: &str, now: i64) -> Result<Token, Problem> {
    let token = crate::token::bearer(headers).and_then(|text| core.token(text)).cloned();
    let Some(token) = token else {
        core.unauthorized(now, action);
        return Err(Problem::Unauthorized);
    };
    if token.role.covers(role) {
        return Ok(token);
    }
    let (needed, who, has) = (role.name(), token.written_name(), token.role.name());
    let text = format!("this needs the role {needed}; the token {who} has {has}");
    core.forbidden(now, &token, action, &text);
    Err(Problem::Forbidden(text))
}

/// What stands for the `{...}` of `pattern` in `path`, if it is one of those.
fn parts(pattern: &str, path: &str) -> Option<Vec<String>> {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    let mut found = Vec::new();
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return Some(found),
            (Some(name), Some(part)) if name.starts_with('{') && !part.is_empty() => found.push(decoded(part)),
            (Some(name), Some(part)) if name == part => {}
            _ => return None,
        }
    }
}

fn query(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (decoded(key), decoded(value)))
        .collect()
}

/// Without percent signs and pluses.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, others)) = rest.split_first() {
        let code = others.get(..2).filter(|_| first == b'%').and_then(|pair| std::str::from_utf8(pair).ok());
        match code.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = others.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(if first == b'+' { b' ' } else { first });
                rest = others;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An answer as HTTP has it.
pub(crate) fn response(result: Result<Reply, Problem>) -> Response<Full<Bytes>> {
    let (status, kind, body) = match result {
        Ok(Reply::Json(status, value)) => (status, "application/json", format!("{value}\n")),
        Ok(Reply::Text(kind, text)) => (StatusCode::OK, kind, text),
        Err(problem) => {
            let value = json!({"error": problem.to_string()});
            (problem.status(), "application/json", format!("{value}\n"))
        }
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_in_the_shipped_description_and_the_other_way_round() {
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        let mut described = Vec::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                assert!(operation["responses"].is_object(), "{method} {path}");
                described.push(format!("{} {path}", method.to_uppercase()));
            }
        }
        let mut routes: Vec<_> = routes().iter().map(|route| format!("{route:?}")).collect();
        routes.sort();
        described.sort();
        assert_eq!(routes, described);
    }

    #[test]
    fn every_described_operation_says_the_role_that_its_route_needs() {
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        for Route { method, path, role, .. } in routes() {
            let operation = &document["paths"][path][method.as_str().to_lowercase()];
            assert_eq!(operation["x-role"].as_str(), role.map(Role::name), "{method} {path}");
            assert_eq!(operation["security"] == json!([]), role.is_none(), "{method} {path}");
        }
    }

    #[test]
    fn paths_and_queries_are_taken_apart() {
        assert_eq!(parts("/a/{x}/b", "/a/1%2F2/b"), Some(vec!["1/2".to_owned()]));
        assert_eq!(parts("/a/{x}", "/a/"), None);
        assert_eq!(parts("/a", "/a/b"), None);
        let query = query("selector=env%3Dprod%2Ca+in+(b)&x&%zz=%");
        assert_eq!(query["selector"], "env=prod,a in (b)");
        assert_eq!((&*query["x"], &*query["%zz"]), ("", "%"));
    }
}
