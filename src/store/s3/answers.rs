//! What an S3 store says, and what it means (P29).
//!
//! | Answer | Meaning |
//! |---|---|
//! | 412 | the condition did not hold: exists, or lost |
//! | 404 to If-Match | lost |
//! | 409 ConditionalRequestConflict, OperationAborted | contended: retried; a multipart upload from its creation |
//! | 501 to a conditional write, or 200 to the second creation of one object | no conditional writes: such a store cannot keep two primaries apart |
//! | 408, 429, 5xx but 501, 400 RequestTimeout | later: retried, honouring Retry-After |
//! | 200 with an `<Error>`, to CompleteMultipartUpload and CopyObject | that error |
//! | 301, 307, 400 AuthorizationHeaderMalformed | another region |
//! | 401, 403, 400 with a token's code | denied; once more with credentials or a time that were renewed, if they were |

use super::conditions::ADVICE;
use super::xml::{self, Fault};
use crate::error::{Error, Kind};
use crate::store::http::{Answer, is_transient as is_transient_status};

/// The store's own words in an answer, if there are any.
pub(super) fn fault(answer: &Answer) -> Option<Fault> {
    xml::fault(&answer.body)
}

/// Whether a 404 speaks of the object: a bucket that is not there is an error, not an absent object.
pub(super) fn is_of_object(answer: &Answer) -> bool {
    fault(answer).is_none_or(|fault| fault.code != "NoSuchBucket")
}

/// Whether an answer's code says "later", beyond its status.
pub(super) fn is_transient_code(code: &str) -> bool {
    matches!(
        code,
        "InternalError"
            | "SlowDown"
            | "ServiceUnavailable"
            | "RequestTimeout"
            | "ConditionalRequestConflict"
            | "OperationAborted"
    )
}

/// Whether an answer's code speaks of the credentials themselves, which may have ended or been replaced.
pub(super) fn is_of_credentials(code: &str) -> bool {
    matches!(
        code,
        "ExpiredToken"
            | "ExpiredTokenException"
            | "InvalidToken"
            | "InvalidTokenId"
            | "TokenRefreshRequired"
            | "InvalidAccessKeyId"
            | "RequestExpired"
            | "Unauthorized"
    )
}

/// The error that an answer is. `what` is the request, for people.
pub(super) fn failure(what: &str, answer: &Answer) -> Error {
    let fault = fault(answer).unwrap_or_default();
    let status = answer.status.as_u16();
    let code = match (fault.code.as_str(), answer.status.is_success()) {
        ("", _) => answer.status.canonical_reason().unwrap_or("without a reason").to_owned(),
        (code, true) => format!("with {code}"),
        (code, false) => code.to_owned(),
    };
    let message = if fault.message.is_empty() { String::new() } else { format!(": {}", fault.message) };
    let mut text = format!("{what}: {status} {code}{message}");
    let region = fault.region.as_deref().or_else(|| answer.header("x-amz-bucket-region"));
    let elsewhere = matches!(status, 301 | 302 | 307 | 308) || fault.code == "AuthorizationHeaderMalformed";
    let kind = match (status, fault.code.as_str()) {
        _ if elsewhere => {
            let region = region.map_or_else(String::new, |region| format!(" {region}: write region={region}"));
            text = format!("{text}; the bucket is in another region{region}");
            Kind::Invalid
        }
        (_, code) if is_transient_status(answer.status) || is_transient_code(code) => {
            text = format!("{text} (attempts: {})", answer.attempts);
            Kind::Unavailable
        }
        _ if is_of_credentials(&fault.code) => Kind::Denied,
        (401 | 403, _) => Kind::Denied,
        (404, _) | (_, "NoSuchUpload") => Kind::NotFound,
        (412, _) => Kind::Conflict,
        _ => Kind::Invalid,
    };
    Error::new(kind, text)
}

/// The error of a conditional write, which tells stores that have no conditions.
pub(super) fn conditional_failure(what: &str, answer: &Answer) -> Error {
    let error = failure(what, answer);
    if answer.status.as_u16() != 501 {
        return error;
    }
    Error::invalid(format!("{error}; the store has no conditional writes (If-None-Match, If-Match), so {ADVICE}"))
}
