//! The HTTP client of the process: one, made at the first request.
//!
//! Making it starts a thread, so nothing is made before it is needed. A forked child has no such thread: it makes its
//! own client, and the parent's is leaked there, because dropping it would wait for a thread that is not there.
//!
//! TLS trusts the system's roots (SSL_CERT_FILE and SSL_CERT_DIR are honoured) and, in addition, the file that
//! AWS_CA_BUNDLE names. Proxies are those of HTTPS_PROXY, HTTP_PROXY and NO_PROXY, in upper or lower case; unlike
//! libcurl and like Go, which Litestream is written in, this machine itself is never asked for through a proxy, nor is its metadata service (169.254.0.0/16).

use super::limits::CONNECT_TIMEOUT;
use crate::error::{Context, Error, Kind, Result};
use crate::lock::{Mutex, PerProcess};
use reqwest::blocking::Client;
use reqwest::{NoProxy, Proxy};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use std::time::Duration;

struct Made {
    skip_verify: bool,
    client: Client,
}

static CLIENTS: PerProcess<Mutex<Vec<Made>>> = PerProcess::new();

/// The client that checks certificates, or the one that does not: the two never share connections.
pub(super) fn get(skip_verify: bool) -> Result<Client> {
    let mut clients = CLIENTS.get().lock();
    if let Some(made) = clients.iter().find(|made| made.skip_verify == skip_verify) {
        return Ok(made.client.clone());
    }
    // The client's own thread inherits the signal mask of the thread that makes it (P33).
    let made = crate::thread::start("connect", move || make(skip_verify))?.join();
    let client = made.map_err(|_| Error::bug("making the HTTP client panicked"))??;
    clients.push(Made { skip_verify, client: client.clone() });
    Ok(client)
}

fn make(skip_verify: bool) -> Result<Client> {
    let mut builder = Client::builder()
        .tls_backend_preconfigured(tls(skip_verify)?)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never()) // retries are ours (P24)
        .timeout(None) // each request has its own
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(Duration::from_secs(30))
        .user_agent(concat!("liblitestream/", env!("CARGO_PKG_VERSION")))
        .referer(false)
        .no_proxy();
    for proxy in proxies()? {
        builder = builder.proxy(proxy);
    }
    builder.build().map_err(|e| Error::new(Kind::Io, format!("HTTP client: {}", super::error_text(&e))))
}

fn tls(skip_verify: bool) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(Error::bug)?;
    if skip_verify {
        let verifier = Arc::new(super::skip_verify::SkipVerify(provider));
        return Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth());
    }
    let mut roots = RootCertStore::empty();
    // Without roots, or with some that are damaged, http:// still works, and https:// says which issuer is unknown.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty()) {
        let path = std::path::PathBuf::from(path);
        let bundle = CertificateDer::pem_file_iter(&path)
            .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
            .map_err(|e| Error::invalid(format!("AWS_CA_BUNDLE {}: {e}", path.display())))?;
        roots.add_parsable_certificates(bundle);
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn proxies() -> Result<Vec<Proxy>> {
    let variable = |name: &str| {
        let value = std::env::var(name).or_else(|_| std::env::var(name.to_ascii_lowercase()));
        value.ok().filter(|value| !value.is_empty())
    };
    let except = variable("NO_PROXY").unwrap_or_default();
    let except = NoProxy::from_string(&format!("{except},localhost,127.0.0.0/8,::1,169.254.0.0/16"));
    let mut proxies = Vec::new();
    for (name, make) in [("HTTPS_PROXY", Proxy::https as fn(String) -> _), ("HTTP_PROXY", Proxy::http)] {
        if let Some(url) = variable(name) {
            // The message must not show the value: it may hold a password.
            let proxy = make(url).map_err(|_| Error::invalid("is no URL")).context(name)?;
            proxies.push(proxy.no_proxy(except.clone()));
        }
    }
    Ok(proxies)
}
