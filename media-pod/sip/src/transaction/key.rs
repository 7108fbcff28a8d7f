//! What tells transactions apart (RFC 3261 sections 17.1.3 and 17.2.3).

use std::fmt::Write as _;

use crate::message::{HeaderName, Headers, Method, Request, is_magic};

/// The key of the client transaction with that branch. Branches are compared without case, as tokens are.
pub(super) fn client(branch: &str, method: &Method) -> String {
    let method = method.as_str();
    let mut key = String::with_capacity(branch.len() + method.len() + 1);
    key.push_str(branch);
    key.make_ascii_lowercase();
    key.push('|');
    key.push_str(method);
    key
}

/// The key of the server transaction that a request belongs to: an ACK or CANCEL gives that of its INVITE.
/// `None` when the headers that make it can't be read.
pub(super) fn server(request: &Request, method: &Method) -> Option<String> {
    let via = request.headers.via_parts().ok()?;
    let branch = via.branch();
    let mut key = String::with_capacity(128);
    // Writing to a String can't fail.
    let _ = write!(key, "{}:{}", via.host, via.port.unwrap_or(5060));
    if let Some(branch) = branch.as_ref().filter(|branch| is_magic(branch)) {
        let _ = write!(key, "|{branch}");
        key.make_ascii_lowercase();
    } else {
        // An element older than RFC 3261: everything that an INVITE, its ACK and its CANCEL have in common.
        key.make_ascii_lowercase();
        let from = request.headers.caller_tag().ok()?;
        let (number, _) = request.headers.cseq().ok()?;
        let _ = write!(
            key,
            "|old|{}|{}|{}|{number}|{}",
            request.uri,
            from.unwrap_or_default(),
            request.headers.call_id().ok()?,
            branch.unwrap_or_default(),
        );
    }
    let _ = write!(key, "|{method}");
    Some(key)
}

/// What a request and its copies over other paths have in common (RFC 3261 section 8.2.2.2). `None` inside a dialog.
pub(super) fn merge(headers: &Headers, method: &Method) -> Option<String> {
    if headers.callee_tag().ok()?.is_some() {
        return None;
    }
    let tag = headers.caller_tag().ok()??;
    let call_id = headers.call_id().ok()?;
    let cseq = headers.get(&HeaderName::CSeq)?;
    let cseq = cseq.split_ascii_whitespace().next()?;
    let mut key = String::with_capacity(call_id.len() + tag.len() + cseq.len() + 16);
    // Writing to a String can't fail.
    let _ = write!(key, "{call_id}|{tag}|{cseq}|{method}");
    Some(key)
}
