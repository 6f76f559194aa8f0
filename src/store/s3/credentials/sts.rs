//! AWS's token service: a role's temporary credentials, for a web identity's token or for other credentials.
//!
//! It is asked where AWS_ENDPOINT_URL_STS or AWS_ENDPOINT_URL say, else at Amazon's endpoint of the region.

use super::block_on;
use super::chain::FAR_TIMEOUT;
use crate::error::{Context, Error, Kind, Result};
use crate::store::digest::hex_sha256;
use crate::store::s3::{keys, xml};
use bytes::Bytes;
use http::header::HeaderValue;
use reqsign_aws_v4::{Credential, RequestSigner};
use reqsign_core::SignRequest;
use std::collections::HashMap;

/// The name of our sessions in the account's logs, where none is configured.
const SESSION_NAME: &str = "liblitestream";

/// The token service of a region.
pub(super) struct Sts<'a> {
    pub(super) env: &'a HashMap<String, String>,
    pub(super) region: &'a str,
}

/// What a profile says about a role.
#[derive(Default)]
pub(super) struct Role<'a> {
    pub(super) arn: &'a str,
    pub(super) session_name: Option<&'a str>,
    pub(super) external_id: Option<&'a str>,
    pub(super) duration_seconds: Option<&'a str>,
}

impl Sts<'_> {
    /// AssumeRoleWithWebIdentity. The token is read anew each time: who gave it replaces it before it ends.
    pub(super) fn assume_by_web_identity(&self, arn: &str, session: Option<&str>, file: &str) -> Result<Credential> {
        let token = std::fs::read_to_string(file)
            .map_err(|e| Error::new(Kind::Denied, format!("the token file {file}: {e}")))?;
        let role = Role { arn, session_name: session, ..Role::default() };
        self.ask("AssumeRoleWithWebIdentity", &role, &[("WebIdentityToken", token.trim())], None)
    }

    /// AssumeRole, signed with `by`.
    pub(super) fn assume(&self, role: &Role<'_>, by: &Credential) -> Result<Credential> {
        self.ask("AssumeRole", role, &[], Some(by))
    }

    fn endpoint(&self) -> String {
        let named = ["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"].into_iter().find_map(|name| self.env.get(name));
        if let Some(endpoint) = named.filter(|endpoint| !endpoint.is_empty()) {
            return format!("{}/", endpoint.trim_end_matches('/'));
        }
        let domain = if self.region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        // A region of another provider's is none of the token service's.
        let is_amazons = self.region.split('-').count() >= 3;
        let region = if is_amazons { format!("{}.", self.region) } else { String::new() };
        format!("https://sts.{region}{domain}/")
    }

    fn ask(&self, action: &str, role: &Role<'_>, more: &[(&str, &str)], by: Option<&Credential>) -> Result<Credential> {
        let session = role.session_name.unwrap_or(SESSION_NAME);
        let mut fields = vec![("Action", action), ("Version", "2011-06-15"), ("RoleArn", role.arn)];
        fields.extend([("RoleSessionName", session)].iter().chain(more));
        fields.extend(role.external_id.map(|id| ("ExternalId", id)));
        fields.extend(role.duration_seconds.map(|seconds| ("DurationSeconds", seconds)));
        let pairs: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", keys::encode(value))).collect();
        let body = Bytes::from(pairs.join("&"));
        let endpoint = self.endpoint();
        let what = format!("{action} of {} at {endpoint}", role.arn);
        let request = http::Request::post(&endpoint)
            .header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded; charset=utf-8")
            .header("x-amz-content-sha256", HeaderValue::from_str(&hex_sha256(&body)).map_err(Error::bug)?)
            .body(body)
            .map_err(|e| Error::invalid(format!("{what}: {e}")))?;
        let request = match by {
            None => request,
            Some(credential) => {
                let (mut parts, body) = request.into_parts();
                let signer = RequestSigner::new("sts", self.region);
                block_on(signer.sign_request(&reqsign_core::Context::new(), &mut parts, Some(credential), None))
                    .map_err(|e| Error::new(Kind::Denied, format!("{what}: {e}")))?;
                http::Request::from_parts(parts, body)
            }
        };
        let answer = crate::store::http::send_once(request, FAR_TIMEOUT).context(&what)?;
        let (status, body) = (answer.status(), answer.into_body());
        if !status.is_success() {
            let fault = xml::fault(&body).unwrap_or_default();
            let is_later = status.as_u16() == 429 || status.is_server_error() || fault.code.starts_with("Throttl");
            let kind = if is_later { Kind::Unavailable } else { Kind::Denied };
            return Err(Error::new(kind, format!("{what}: {} {}: {}", status.as_u16(), fault.code, fault.message)));
        }
        credential(&body, action).context(what)
    }
}

fn credential(body: &[u8], action: &str) -> Result<Credential> {
    let (root, result) = (format!("{action}Response"), format!("{action}Result"));
    let text = |name: &str| xml::text(body, &[&root, &result, "Credentials", name]);
    let ends = text("Expiration")?;
    let ends = ends.parse().map_err(|_| Error::corrupt(format!("the answer's Expiration {ends:?} is no time")))?;
    Ok(Credential {
        access_key_id: text("AccessKeyId")?,
        secret_access_key: text("SecretAccessKey")?,
        session_token: Some(text("SessionToken")?),
        expires_in: Some(ends),
    })
}
