//! AWS credentials and Signature Version 4, by reqsign, whose input and output are ours.
//!
//! Credentials are looked for in this order: LITESTREAM_ACCESS_KEY_ID with LITESTREAM_SECRET_ACCESS_KEY; then AWS's
//! chain: AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN; the profile AWS_PROFILE (`default`) of
//! AWS_SHARED_CREDENTIALS_FILE (`~/.aws/credentials`) and AWS_CONFIG_FILE (`~/.aws/config`); single sign-on; a web
//! identity; a container's; the machine's (EC2), unless AWS_EC2_METADATA_DISABLED=true.
//!
//! The variables are read once, when the store is opened: reading them later, on a thread of ours, would race with a
//! host that sets some. No program is run (`credential_process`): a library does not fork its host.

use crate::error::{Error, Kind, Result};
use bytes::Bytes;
use http::request::Parts;
use reqsign_aws_v4::{Credential, DefaultCredentialProvider, RequestSigner};
use reqsign_core::{Context, FileRead, HttpSend, Signer, StaticEnv};
use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

/// Each request to a credential service. They are near, or not there at all: off EC2, the address leads nowhere.
const CREDENTIAL_TIMEOUT: Duration = Duration::from_secs(1);

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
pub(super) struct S3Signer(Signer<Credential>);

impl S3Signer {
    /// Nothing is looked for yet.
    pub(super) fn new(region: &str, env: HashMap<String, String>) -> Self {
        let home_dir = std::env::home_dir();
        let context =
            Context::new().with_file_read(Files).with_http_send(Services).with_env(StaticEnv { home_dir, envs: env });
        let chain = DefaultCredentialProvider::builder().no_process().build();
        Self(Signer::new(context, chain, RequestSigner::new("s3", region)))
    }

    /// Adds the date, the token and the signature to the headers.
    pub(super) fn sign(&self, parts: &mut Parts) -> Result<()> {
        block_on(self.0.sign(parts, None)).map_err(|error| match error.kind() {
            reqsign_core::ErrorKind::CredentialInvalid => Error::new(
                Kind::Denied,
                format!(
                    "no usable AWS credentials ({error}): looked for LITESTREAM_ACCESS_KEY_ID and \
                     LITESTREAM_SECRET_ACCESS_KEY, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the profile AWS_PROFILE \
                     in ~/.aws/credentials and ~/.aws/config, single sign-on, a web identity, and the metadata of a \
                     container and of EC2"
                ),
            ),
            _ => Error::new(Kind::Denied, format!("AWS signature: {error}")),
        })
    }
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
        crate::store::http::send_once(request, CREDENTIAL_TIMEOUT)
            .map_err(|e| reqsign_core::Error::unexpected(e.to_string()))
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread. All that it does blocks; it waits only where another thread loads the credentials.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}
