//! A question over HTTP and its answer: the tuple in the request's headers, the user in the answer's.
//!
//! Judges headers and makes answers; sockets and limits are its caller's.

use crate::ask::{AskError, parse_protocol, parse_tuple};
use crate::finder::{Answer, FindError, Finder};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, StatusCode};
use nufw_common::http::{self, Answer as Response};
use nufw_proto::Tuple;

/// Address of the far end, the client, as the asker sees it.
pub(crate) const SRC: HeaderName = HeaderName::from_static("x-nufw-src");
/// Port of the far end.
pub(crate) const SRC_PORT: HeaderName = HeaderName::from_static("x-nufw-src-port");
/// The asker's own address of that connection.
pub(crate) const DST: HeaderName = HeaderName::from_static("x-nufw-dst");
/// The asker's own port.
pub(crate) const DST_PORT: HeaderName = HeaderName::from_static("x-nufw-dst-port");
/// Protocol, tcp where it is absent.
pub(crate) const PROTOCOL: HeaderName = HeaderName::from_static("x-nufw-protocol");
/// In the answer: the user's number.
const USER_ID: HeaderName = HeaderName::from_static("x-nufw-user-id");
/// In the answer: the row of the connection.
const CONNECTION: HeaderName = HeaderName::from_static("x-nufw-connection");

/// What is wrong with a request.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRequest {
    #[error("the header {0} is missing")]
    Missing(HeaderName),
    #[error("the header {0} is there more than once")]
    Repeated(HeaderName),
    #[error("the header {0} is not text")]
    NotText(HeaderName),
    #[error(transparent)]
    Tuple(#[from] AskError),
}

fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, BadRequest> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    // Of two values one is somebody else's than the web server's.
    if values.next().is_some() {
        return Err(BadRequest::Repeated(name.clone()));
    }
    value
        .to_str()
        .map(|text| Some(text.trim()))
        .map_err(|_| BadRequest::NotText(name.clone()))
}

/// The tuple that a request asks about.
pub(crate) fn question(headers: &HeaderMap) -> Result<Tuple, BadRequest> {
    let need = |name: &HeaderName| one(headers, name)?.ok_or_else(|| BadRequest::Missing(name.clone()));
    let protocol = parse_protocol(one(headers, &PROTOCOL)?.unwrap_or("tcp"))?;
    Ok(parse_tuple(
        need(&SRC)?,
        need(&SRC_PORT)?,
        need(&DST)?,
        need(&DST_PORT)?,
        protocol,
    )?)
}

/// Answers one request: `/health`, or a question at `/lookup` and everything below it, whatever the method.
pub(crate) async fn respond<B>(finder: &Finder, user_header: &HeaderName, request: &Request<B>) -> Response {
    let path = request.uri().path();
    if path == "/health" {
        return match finder.check().await {
            Ok(()) => text(StatusCode::OK, "ok\n"),
            Err(error) => unavailable(&error),
        };
    }
    if path != "/lookup" && !path.starts_with("/lookup/") {
        return text(StatusCode::NOT_FOUND, "ask at /lookup or /health\n");
    }
    let tuple = match question(request.headers()) {
        Ok(tuple) => tuple,
        Err(error) => {
            tracing::debug!(%error, "a request that cannot be understood");
            return text(StatusCode::BAD_REQUEST, &format!("{error}\n"));
        }
    };
    match finder.find(&tuple).await {
        Ok(Some(answer)) => {
            tracing::trace!(%tuple, user = &*answer.user, row = %answer.row.id, "found");
            named(user_header, &answer)
        }
        Ok(None) => {
            tracing::trace!(%tuple, "nobody");
            text(StatusCode::UNAUTHORIZED, "no live connection of a known user\n")
        }
        Err(error) => unavailable(&error),
    }
}

fn named(user_header: &HeaderName, answer: &Answer) -> Response {
    // A name that a header cannot carry must not become another one.
    let Ok(user) = HeaderValue::from_bytes(answer.user.as_bytes()) else {
        tracing::warn!(row = %answer.row.id, "the name of this row's user cannot be an HTTP header; answered with 503");
        return text(
            StatusCode::SERVICE_UNAVAILABLE,
            "the user's name cannot be an HTTP header\n",
        );
    };
    let mut response = text(StatusCode::OK, "");
    let headers = response.headers_mut();
    headers.insert(user_header.clone(), user);
    if let Some(id) = answer.row.user_id {
        headers.insert(USER_ID, HeaderValue::from(id));
    }
    headers.insert(CONNECTION, HeaderValue::from(answer.row.id.get()));
    response
}

fn unavailable(error: &FindError) -> Response {
    tracing::debug!(%error, "the log cannot be asked");
    text(StatusCode::SERVICE_UNAVAILABLE, "the log cannot be asked\n")
}

/// A plain answer.
fn text(status: StatusCode, body: &str) -> Response {
    http::text(status, "text/plain; charset=utf-8", body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name.clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    const FULL: [(HeaderName, &str); 4] = [
        (SRC, "10.0.0.7"),
        (SRC_PORT, " 40312"),
        (DST, "10.1.1.1"),
        (DST_PORT, "443"),
    ];

    #[test]
    fn the_four_headers_are_a_tuple_of_tcp() {
        let tuple = question(&headers(&FULL)).unwrap();
        assert_eq!(
            tuple,
            parse_tuple("10.0.0.7", "40312", "10.1.1.1", "443", 6).unwrap()
        );
        let mut udp = headers(&FULL);
        udp.append(PROTOCOL, HeaderValue::from_static("udp"));
        assert_eq!(question(&udp).unwrap().protocol(), 17);
    }

    #[test]
    fn a_header_that_is_missing_doubled_or_no_text_is_named() {
        for (name, _) in FULL {
            let mut some = headers(&FULL);
            some.remove(&name);
            assert_eq!(question(&some), Err(BadRequest::Missing(name)));
        }
        let mut twice = headers(&FULL);
        twice.append(SRC, HeaderValue::from_static("10.0.0.8"));
        assert_eq!(question(&twice), Err(BadRequest::Repeated(SRC)));
        let mut odd = headers(&FULL);
        odd.insert(DST, HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(question(&odd), Err(BadRequest::NotText(DST)));
    }
}
