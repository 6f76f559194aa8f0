//! Where credentials are looked for, in order. The first source that is configured decides: if it fails, that is the
//! error, and no other one is asked in its place.
//!
//! 1. LITESTREAM_ACCESS_KEY_ID and LITESTREAM_SECRET_ACCESS_KEY, then AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
//!    AWS_SESSION_TOKEN ([`super::super::sign::environment`] makes them one);
//! 2. a web identity: AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN;
//! 3. the profile AWS_PROFILE, keys or a role ([`Profiles`]);
//! 4. single sign-on: the profile's `sso_…` settings, and the token that `aws sso login` left;
//! 5. a container's: AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI, with AWS_CONTAINER_AUTHORIZATION_TOKEN or
//!    _TOKEN_FILE;
//! 6. the machine's: EC2's metadata service, version 2, unless AWS_EC2_METADATA_DISABLED=true. A machine that is not
//!    EC2's is known after a second.
//!
//! No program is run (`credential_process`): the host may wait for any child (`waitpid(-1)`) or count its SIGCHLD, and a
//! library's child would be in its way.

use super::block_on;
use super::profile::Profiles;
use super::sts::Sts;
use crate::error::{Context, Error, Kind, Result};
use bytes::Bytes;
use reqsign_aws_v4::{Credential, ECSCredentialProvider, IMDSv2CredentialProvider, SSOCredentialProvider};
use reqsign_core::{FileRead, HttpSend, ProvideCredential, StaticEnv};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Each request to a service of the machine or the container, which is near or not there at all.
const NEAR_TIMEOUT: Duration = Duration::from_secs(1);
/// Each request to a token service.
pub(super) const FAR_TIMEOUT: Duration = Duration::from_secs(10);

/// The sources, with the variables that configure them.
pub(super) struct Chain {
    env: HashMap<String, String>,
    region: String,
    context: reqsign_core::Context,
    machine: IMDSv2CredentialProvider,
    /// The machine has given some: then it is EC2's, and its service is away when it does not answer.
    machine_is_there: AtomicBool,
}

impl Chain {
    pub(super) fn new(region: &str, env: HashMap<String, String>) -> Self {
        let home_dir = env.get("HOME").map(PathBuf::from).or_else(std::env::home_dir);
        let context = reqsign_core::Context::new()
            .with_file_read(Files)
            .with_http_send(Services)
            .with_env(StaticEnv { home_dir, envs: env.clone() });
        let machine = IMDSv2CredentialProvider::new();
        Self { env, region: region.to_owned(), context, machine, machine_is_there: AtomicBool::new(false) }
    }

    /// Asks the sources.
    pub(super) fn look(&self) -> Result<Credential> {
        if let Some(found) = self.variables() {
            return Ok(found);
        }
        if let Some(found) = self.web_identity().context("AWS credentials of the web identity")? {
            return Ok(found);
        }
        let profiles = Profiles::read(&self.env, self.context.home_dir());
        if let Some(found) = profiles.credential(self).context("AWS credentials of the profile")? {
            return Ok(found);
        }
        let login = block_on(SSOCredentialProvider::new().provide_credential(&self.context));
        if let Some(found) = login.map_err(|e| failed(&e)).context("AWS credentials of the single sign-on")? {
            return Ok(found);
        }
        if let Some(found) = self.container()? {
            return Ok(found);
        }
        let machine = match self.machine() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => "EC2 (AWS_EC2_METADATA_DISABLED is true)".to_owned(),
            Err(error) if self.machine_is_there.load(Relaxed) => return Err(error),
            Err(error) => format!("EC2 ({error})"),
        };
        Err(Error::new(
            Kind::Denied,
            format!(
                "no AWS credentials: looked for LITESTREAM_ACCESS_KEY_ID and LITESTREAM_SECRET_ACCESS_KEY, \
                 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a web identity (AWS_WEB_IDENTITY_TOKEN_FILE and \
                 AWS_ROLE_ARN), {profiles}, single sign-on, a container's \
                 (AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI), and the machine's, of {machine}"
            ),
        ))
    }

    /// The token service, with the variables' region.
    pub(super) fn sts(&self) -> Sts<'_> {
        Sts {
            env: &self.env,
            region: self.named("AWS_REGION").or(self.named("AWS_DEFAULT_REGION")).unwrap_or(&self.region),
        }
    }

    pub(super) fn variables(&self) -> Option<Credential> {
        Some(Credential {
            access_key_id: self.named("AWS_ACCESS_KEY_ID")?.to_owned(),
            secret_access_key: self.named("AWS_SECRET_ACCESS_KEY")?.to_owned(),
            session_token: self.named("AWS_SESSION_TOKEN").map(str::to_owned),
            expires_in: None,
        })
    }

    fn web_identity(&self) -> Result<Option<Credential>> {
        let (file, role) = (self.named("AWS_WEB_IDENTITY_TOKEN_FILE"), self.named("AWS_ROLE_ARN"));
        let (Some(file), Some(role)) = (file, role) else { return Ok(None) };
        let session = self.named("AWS_ROLE_SESSION_NAME");
        self.sts().assume_by_web_identity(role, session, file).map(Some)
    }

    pub(super) fn container(&self) -> Result<Option<Credential>> {
        let found = block_on(ECSCredentialProvider::new().provide_credential(&self.context));
        found.map_err(|e| failed(&e)).context("AWS credentials of the container")
    }

    pub(super) fn machine(&self) -> Result<Option<Credential>> {
        let found = block_on(self.machine.provide_credential(&self.context));
        self.machine_is_there.fetch_or(matches!(found, Ok(Some(_))), Relaxed);
        found.map_err(|e| failed(&e)).context("AWS credentials of the machine")
    }

    /// A variable that is not empty.
    pub(super) fn named(&self, name: &str) -> Option<&str> {
        self.env.get(name).filter(|value| !value.is_empty()).map(String::as_str)
    }
}

/// An error of the signing library, whose own words leave out what is behind them.
fn failed(error: &reqsign_core::Error) -> Error {
    let kind = if error.is_retryable() { Kind::Unavailable } else { Kind::Denied };
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    Error::new(kind, text)
}

#[derive(Debug)]
struct Files;

impl FileRead for Files {
    async fn file_read(&self, path: &str) -> reqsign_core::Result<Vec<u8>> {
        std::fs::read(path).map_err(|e| reqsign_core::Error::unexpected(format!("{path}: {e}")))
    }
}

#[derive(Debug)]
struct Services;

impl HttpSend for Services {
    async fn http_send(&self, request: http::Request<Bytes>) -> reqsign_core::Result<http::Response<Bytes>> {
        // Single sign-on is asked far away; container and machine answer by http:// or on loopback.
        let is_far = request.uri().host().is_some_and(|host| host.ends_with(".amazonaws.com"));
        crate::store::http::send_once(request, if is_far { FAR_TIMEOUT } else { NEAR_TIMEOUT })
            .map_err(|e| reqsign_core::Error::unexpected(e.to_string()))
    }
}
