//! Refusals that say what is wrong: extensions, bodies and offers that are of no use here.

use super::body::BodyError;
use crate::message::{HeaderName, Request, Response};
use crate::sdp::{self, OfferError};

/// The extensions that a request may require of us.
const EXTENSIONS: [&str; 2] = ["100rel", "timer"];
/// The same as the `Supported` header.
pub(crate) const SUPPORTED: &str = "100rel, timer";
/// The same where the owner takes calls that replace others.
pub(crate) const SUPPORTED_WITH_REPLACES: &str = "100rel, timer, replaces";

/// 420 with what we don't know, if a request requires it (RFC 3261 section 8.2.2.3).
pub(crate) fn refuse_unknown_extensions(request: &Request) -> Option<Response> {
    let unknown: Vec<String> = request
        .headers
        .values(&HeaderName::Require)
        .filter(|tag| !EXTENSIONS.iter().any(|own| tag.eq_ignore_ascii_case(own)))
        .collect();
    (!unknown.is_empty()).then(|| {
        let mut response = Response::to_request(request, 420, None);
        response
            .headers
            .push(HeaderName::Unsupported, unknown.join(", "));
        response
    })
}

/// The refusal of a body that is no session description.
pub(crate) fn refuse_body(request: &Request, error: &BodyError) -> Response {
    match error {
        BodyError::Unsupported => {
            let mut response = Response::to_request(request, 415, None);
            response.headers.push(HeaderName::Accept, sdp::CONTENT_TYPE);
            response
                .headers
                .push(HeaderName::from("Accept-Encoding"), "identity");
            response
        }
        BodyError::Malformed(error) => refuse_offer(request, error),
    }
}

/// The refusal of an offer: 488 with a Warning, or 400 if it can't be read.
pub(crate) fn refuse_offer(request: &Request, error: &OfferError) -> Response {
    if let OfferError::Malformed(_) = error {
        return Response::to_request(request, 400, Some("Bad Session Description"));
    }
    let mut response = Response::to_request(request, 488, None);
    let text: String = error
        .to_string()
        .chars()
        .filter(|c| !matches!(c, '"' | '\\') && !c.is_control())
        .take(120)
        .collect();
    response.headers.push(
        HeaderName::Warning,
        format!("{} ringwire \"{text}\"", error.warn_code()),
    );
    response
}
