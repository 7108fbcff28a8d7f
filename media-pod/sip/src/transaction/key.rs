//! What tells transactions apart (RFC 3261 sections 17.1.3 and 17.2.3).

use crate::message::{HeaderName, Headers, Method, Request};

/// The key of the client transaction with that branch. Branches are compared without case, as tokens are.
pub(super) fn client(branch: &str, method: &Method) -> String {
    format!("{}|{method}", branch.to_ascii_lowercase())
}

/// The key of the server transaction that a request belongs to: an ACK or CANCEL gives that of its INVITE.
/// `None` when the headers that make it can't be read.
pub(super) fn server(request: &Request, method: &Method) -> Option<String> {
    let via = request.headers.via().ok()?;
    let sent_by = format!("{}:{}", via.host, via.port.unwrap_or(5060)).to_ascii_lowercase();
    match via.branch() {
        Some(branch) if via.has_magic_branch() => Some(format!(
            "{}|{sent_by}|{method}",
            branch.to_ascii_lowercase()
        )),
        // An element older than RFC 3261: everything that an INVITE, its ACK and its CANCEL have in common.
        _ => {
            let from = request.headers.from_().ok()?;
            let (number, _) = request.headers.cseq().ok()?;
            Some(format!(
                "old|{}|{}|{}|{number}|{sent_by}|{}|{method}",
                request.uri,
                from.tag().unwrap_or_default(),
                request.headers.call_id().ok()?,
                via.branch().unwrap_or_default(),
            ))
        }
    }
}

/// What a request and its copies over other paths have in common (RFC 3261 section 8.2.2.2). `None` inside a dialog.
pub(super) fn merge(headers: &Headers, method: &Method) -> Option<String> {
    if headers.to().ok()?.tag().is_some() {
        return None;
    }
    let from = headers.from_().ok()?;
    let cseq = headers
        .get(&HeaderName::CSeq)?
        .split_ascii_whitespace()
        .next()?
        .to_owned();
    Some(format!(
        "{}|{}|{cseq}|{method}",
        headers.call_id().ok()?,
        from.tag()?
    ))
}
