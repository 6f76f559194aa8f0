//! Signature Version 4, in headers, at the store's time (Amazon S3 API Reference, "Authenticating Requests:
//! Using the Authorization Header"). Written here because the library's signer knows no time but ours.
//!
//! The variables are read once, when the store is opened: reading them later, on a thread of ours, would race with a
//! host that sets some.

use super::credentials::{Credentials, Held};
use crate::error::{Error, Result};
use crate::store::digest::hex_sha256;
use crate::time::Timestamp;
use http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use reqsign_aws_v4::Credential;
use reqsign_core::hash::{hex_hmac_sha256, hmac_sha256};
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// S3 takes signatures that are up to 15 minutes off. A clock that is off by less than that is not what is refused.
const SKEW_MS: i64 = 60_000;

/// The variables, those of the process if none are given, that are text and not empty, with Litestream's own in place of
/// AWS's.
pub(in crate::store) fn environment(given: Option<HashMap<String, String>>) -> HashMap<String, String> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok().filter(|value| !value.is_empty())?))
    };
    let mut env = given.unwrap_or_else(|| std::env::vars_os().filter_map(text).collect());
    let own = (env.get("LITESTREAM_ACCESS_KEY_ID").cloned(), env.get("LITESTREAM_SECRET_ACCESS_KEY").cloned());
    if let (Some(id), Some(secret)) = own {
        env.insert("AWS_ACCESS_KEY_ID".to_owned(), id);
        env.insert("AWS_SECRET_ACCESS_KEY".to_owned(), secret);
        env.remove("AWS_SESSION_TOKEN");
    }
    env
}

/// Signs for one region with the credentials of the process.
pub(super) struct S3Signer {
    region: String,
    credentials: Arc<Credentials>,
    /// The store refused our time: its own is signed.
    is_skewed: AtomicBool,
}

impl S3Signer {
    /// Nothing is looked for yet.
    pub(super) fn new(region: &str, env: HashMap<String, String>) -> Self {
        let credentials = Credentials::of(region, env);
        Self { region: region.to_owned(), credentials, is_skewed: AtomicBool::new(false) }
    }

    /// Adds the date, the token and the signature to the headers; `offset_ms` is the store's clock minus ours. Tells
    /// with which credentials.
    pub(super) fn sign(&self, parts: &mut Parts, offset_ms: i64) -> Result<Arc<Held>> {
        let now = self.now(offset_ms);
        let held = self.credentials.get(now)?;
        sign(parts, &held.credential, &self.region, now)?;
        Ok(held)
    }

    /// After a refusal that may be of the credentials or of the time: whether another attempt has others, or another.
    pub(super) fn mend(&self, used: &Held, status: u16, is_of_credentials: bool, offset_ms: i64) -> bool {
        if status == 403 && offset_ms.abs() >= SKEW_MS {
            // Or back, if the Date that we believed was not the store's.
            self.is_skewed.fetch_xor(true, Relaxed);
            return true;
        }
        is_of_credentials && self.credentials.replace(used, self.now(offset_ms))
    }

    fn now(&self, offset_ms: i64) -> Timestamp {
        let corrected = if self.is_skewed.load(Relaxed) { offset_ms } else { 0 };
        Timestamp(Timestamp::now().0.saturating_add(corrected))
    }
}

/// The names of a date that the signature wants: `20130524T000000Z`, whose first eight digits are the day.
fn basic_date(now: Timestamp) -> Result<String> {
    let text = now.to_string(); // 2013-05-24T00:00:00.000Z
    let digits: String = text.chars().take_while(|c| *c != '.').filter(|c| !matches!(c, '-' | ':')).collect();
    if digits.len() != "20130524T000000".len() {
        return Err(Error::bug(format!("the time {text} cannot be signed")));
    }
    Ok(digits + "Z")
}

/// Adds the headers. `x-amz-content-sha256` is there; path and query are encoded as they go over the wire.
fn sign(parts: &mut Parts, credential: &Credential, region: &str, now: Timestamp) -> Result<()> {
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| Error::invalid("AWS credentials are not text"));
    let date = basic_date(now)?;
    let day = date.get(..8).unwrap_or_default();
    let host = parts.uri.authority().map(ToString::to_string).unwrap_or_default();
    parts.headers.insert(HOST, value(&host)?);
    parts.headers.insert(HeaderName::from_static("x-amz-date"), value(&date)?);
    if let Some(token) = &credential.session_token {
        let mut token = value(token)?;
        token.set_sensitive(true);
        parts.headers.insert(HeaderName::from_static("x-amz-security-token"), token);
    }
    let (canonical, signed) = canonical_request(parts);
    let scope = format!("{day}/{region}/s3/aws4_request");
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex_sha256(canonical.as_bytes()));
    let secret = format!("AWS4{}", credential.secret_access_key);
    let key = [day, region, "s3", "aws4_request"]
        .iter()
        .fold(secret.into_bytes(), |key, part| hmac_sha256(&key, part.as_bytes()));
    let signature = hex_hmac_sha256(&key, to_sign.as_bytes());
    let id = &credential.access_key_id;
    let mut authorization =
        value(&format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={signed}, Signature={signature}"))?;
    authorization.set_sensitive(true);
    parts.headers.insert(AUTHORIZATION, authorization);
    Ok(())
}

/// What is signed, and the names of the headers in it.
fn canonical_request(parts: &Parts) -> (String, String) {
    let mut query: Vec<(&str, &str)> = parts
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    query.sort_unstable();
    let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let text = |headers: &HeaderMap, name: &str| {
        let values: Vec<&str> =
            headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(str::trim).collect();
        values.join(",")
    };
    let mut names: Vec<&str> = parts.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    let mut canonical = format!("{}\n{}\n{}\n", parts.method, parts.uri.path(), query.join("&"));
    for name in &names {
        // Writing to a string cannot fail.
        let _ = writeln!(canonical, "{name}:{}", text(&parts.headers, name));
    }
    let signed = names.join(";");
    let _ = write!(canonical, "\n{signed}\n{}", text(&parts.headers, "x-amz-content-sha256"));
    (canonical, signed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of Amazon's documentation, "Signature Calculations: Examples", with its example keys.
    #[test]
    fn amazons_examples_are_signed_as_documented() {
        let example = Credential {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: None,
            expires_in: None,
        };
        let now = Timestamp::parse_rfc3339("2013-05-24T00:00:00Z").unwrap();
        let empty = hex_sha256(b"");
        for (path, more, signed, signature) in [
            (
                "/test.txt",
                Some(("range", "bytes=0-9")),
                "host;range;x-amz-content-sha256;x-amz-date",
                "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            ),
            (
                "/?lifecycle",
                None,
                "host;x-amz-content-sha256;x-amz-date",
                "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
            ),
            (
                "/?max-keys=2&prefix=J",
                None,
                "host;x-amz-content-sha256;x-amz-date",
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
        ] {
            let mut request = http::Request::get(format!("https://examplebucket.s3.amazonaws.com{path}"));
            request = request.header("x-amz-content-sha256", &empty);
            if let Some((name, value)) = more {
                request = request.header(name, value);
            }
            let (mut parts, ()) = request.body(()).unwrap().into_parts();
            sign(&mut parts, &example, "us-east-1", now).unwrap();
            let scope = "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request";
            let expected =
                format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={signed}, Signature={signature}");
            assert_eq!(parts.headers[AUTHORIZATION], expected, "{path}");
        }
    }
}
