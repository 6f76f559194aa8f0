//! What an `s3://` URL says: bucket, prefix, and Litestream's parameters.
//!
//! Parameters, with the spellings of Litestream 0.5 (`s3/replica_client.go`, `NewReplicaClientFromURL`): see [`KNOWN`].
//! Further: `conditional-writes=false`, for a store that ignores conditions and a replica that nobody else writes.
//!
//! An endpoint without a scheme is `http://` for local addresses and `https://` else; with an endpoint, path style is
//! the default. Without one, the variables LITESTREAM_S3_ENDPOINT, AWS_ENDPOINT_URL_S3 and AWS_ENDPOINT_URL are asked.
//! The region comes from the URL, from the endpoint of a provider that is known ([`providers`]), from AWS_REGION or
//! AWS_DEFAULT_REGION, and is us-east-1 else.

use super::hosts::{self, Host};
use super::providers::{self, Provider};
use crate::error::Result;
use crate::store::location::Location;
use std::collections::HashMap;

/// A parameter: its two spellings and what it does.
const KNOWN: [(&str, &str); 13] = [
    ("endpoint", "endpoint"),
    ("region", "region"),
    ("force-path-style", "forcePathStyle"),
    ("skip-verify", "skipVerify"),
    ("sign-payload", "signPayload"),
    ("require-content-md5", "requireContentMD5"), // for DeleteObjects, which we do not use: ignored
    ("part-size", "partSize"),
    ("concurrency", "concurrency"),
    ("conditional-writes", "conditionalWrites"), // ours
    ("storage-class", "storageClass"),
    ("sse-kms-key-id", "sseKmsKeyId"),
    ("sse-customer-algorithm", "sseCustomerAlgorithm"),
    ("sse-customer-key", "sseCustomerKey"),
];

/// The settings of an S3 store.
#[derive(Clone, Debug)]
pub(in crate::store) struct Config {
    /// For messages: the URL with its telling parameters.
    pub(super) shown: String,
    pub(super) bucket: String,
    /// In front of every key: empty or the path, and a slash (FORMATS 9).
    pub(super) prefix: String,
    pub(super) region: String,
    /// Scheme, host and port, without a slash at the end; the bucket is in it where it is not in the path.
    pub(super) origin: String,
    /// In front of the key: empty, or a slash and the bucket, percent-encoded.
    pub(super) base_path: String,
    pub(super) skip_verify: bool,
    pub(super) sign_payload: bool,
    /// In bytes; `None`: P34 decides.
    pub(super) part_size: Option<u64>,
    /// Parts of an upload on their way at a time.
    pub(super) concurrency: Option<usize>,
    pub(super) storage_class: Option<String>,
    pub(super) kms_key_id: Option<String>,
    /// Creations and replacements are conditional. Else the object is looked at before, which leaves a race.
    pub(super) conditional_writes: bool,
    pub(super) provider: &'static Provider,
}

/// An object in the root of a bucket has a key that begins with a slash (FORMATS 9).
fn prefix_of(path: &[&str]) -> String {
    format!("{}/", path.join("/"))
}

impl Config {
    /// The same bucket, at another path, which a store said.
    pub(super) fn at_path(&self, path: &str) -> Self {
        let path: Vec<&str> = path.split('/').filter(|s| !matches!(*s, "" | ".")).collect();
        Self { shown: format!("s3://{}/{}", self.bucket, path.join("/")), prefix: prefix_of(&path), ..self.clone() }
    }

    /// Reads the URL; `env` are the process's variables.
    pub(in crate::store) fn new(location: &Location, env: &HashMap<String, String>) -> Result<Self> {
        let parameters = Parameters::new(location)?;
        if parameters.text("sse-customer-key").or(parameters.text("sse-customer-algorithm")).is_some() {
            return Err(location.invalid("asks for customer keys (SSE-C), which are not there yet; SSE-KMS is"));
        }
        let named = |name: &str| env.get(name).filter(|value| !value.is_empty()).map(String::as_str);
        let mut host = hosts::parse(&location.host);
        if host.bucket.is_empty() {
            return Err(location.invalid("has no bucket: expected s3://bucket/path"));
        }
        let endpoint = parameters.text("endpoint").or_else(|| {
            let names = ["LITESTREAM_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
            if host.endpoint.is_some() { None } else { names.into_iter().find_map(named) }
        });
        if let Some(endpoint) = endpoint {
            host.path_style = true;
            host.endpoint = Some(endpoint.to_owned());
        }
        if let Some(path_style) = parameters.flag("force-path-style")? {
            host.path_style = path_style;
        }
        let provider = host.endpoint.as_deref().map_or_else(|| providers::of("amazonaws.com"), providers::of);
        let told = host.endpoint.as_deref().and_then(|endpoint| provider.region(endpoint));
        let region = parameters.text("region").or(host.region.as_deref()).or(told.as_deref());
        let region = region.or_else(|| named("AWS_REGION")).or_else(|| named("AWS_DEFAULT_REGION"));
        let region = region.unwrap_or("us-east-1").to_owned();
        let (origin, base_path) = host.origin_and_base(&region).map_err(|why| location.invalid(why))?;
        if reqwest::Url::parse(&origin).is_err() {
            let advice = "with force-path-style=true the bucket goes into the path";
            return Err(location.invalid(format!("asks for the host {origin}, which is none; {advice}")));
        }
        let path: Vec<&str> = location.path.split('/').filter(|s| !matches!(*s, "" | ".")).collect();
        Ok(Self {
            shown: parameters.shown(location),
            bucket: host.bucket,
            prefix: prefix_of(&path),
            region,
            // Litestream signs payloads by default too: several providers know no unsigned ones. Without TLS the
            // signature is all that guards the bytes.
            sign_payload: parameters.flag("sign-payload")?.unwrap_or(true) || origin.starts_with("http://"),
            origin,
            base_path,
            skip_verify: parameters.flag("skip-verify")?.unwrap_or(false),
            part_size: parameters.number("part-size")?,
            concurrency: parameters.number("concurrency")?.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
            storage_class: parameters.text("storage-class").map(str::to_owned),
            kms_key_id: parameters.text("sse-kms-key-id").map(str::to_owned),
            conditional_writes: parameters.flag("conditional-writes")?.unwrap_or(true),
            provider,
        })
    }
}

struct Parameters<'a>(&'a Location);

impl<'a> Parameters<'a> {
    fn new(location: &'a Location) -> Result<Self> {
        for (name, _) in &location.query {
            // The digest of a customer key, which is refused with that key.
            let known = KNOWN.iter().any(|(a, b)| name == a || name == b) || name.starts_with("sse");
            if !known {
                let names: Vec<&str> = KNOWN.iter().map(|(name, _)| *name).collect();
                let names = names.join(", ");
                return Err(location.invalid(format!("has the unknown parameter {name:?}; known are {names}")));
            }
        }
        Ok(Self(location))
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        let (_, camel) = KNOWN.iter().find(|(hyphens, _)| *hyphens == name)?;
        let found = self.0.query.iter().find(|(given, value)| (given == name || given == camel) && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }

    fn flag(&self, name: &str) -> Result<Option<bool>> {
        match self.text(name).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(None),
            Some("true" | "1" | "t" | "yes") => Ok(Some(true)),
            Some("false" | "0" | "f" | "no") => Ok(Some(false)),
            Some(_) => Err(self.0.invalid(format!("has a {name} that is neither true nor false"))),
        }
    }

    fn number(&self, name: &str) -> Result<Option<u64>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) if number > 0 => Ok(Some(number)),
            _ => Err(self.0.invalid(format!("has a {name} that is no positive number"))),
        }
    }

    /// Where it is, and nothing that may be a secret.
    fn shown(&self, location: &Location) -> String {
        let telling = ["endpoint", "region"].into_iter().filter_map(|name| {
            let value = self.text(name)?;
            (!value.contains('@')).then(|| format!("{name}={value}"))
        });
        let telling: Vec<String> = telling.collect();
        let separator = if telling.is_empty() { "" } else { "?" };
        format!("{}{separator}{}", location.shown, telling.join("&"))
    }
}

impl Host {
    /// Where requests go: the origin, and the path in front of the key.
    fn origin_and_base(&self, region: &str) -> std::result::Result<(String, String), String> {
        let encoded = super::keys::encode_path(&self.bucket);
        let in_path = |origin: String| (origin, format!("/{encoded}"));
        let Some(endpoint) = &self.endpoint else {
            let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
            if let Some((name, account)) = hosts::access_point(&self.bucket) {
                return Ok((format!("https://{name}-{account}.s3-accesspoint.{region}.{domain}"), String::new()));
            }
            // A wildcard certificate covers one label: a bucket with dots must be in the path.
            if self.path_style || self.bucket.contains('.') {
                return Ok(in_path(format!("https://s3.{region}.{domain}")));
            }
            return Ok((format!("https://{}.s3.{region}.{domain}", self.bucket), String::new()));
        };
        let (scheme, authority) = match endpoint.split_once("://") {
            Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
            Some(_) => return Err("has an endpoint that is neither http:// nor https://".to_owned()),
            None if hosts::is_local(endpoint) => ("http", endpoint.as_str()),
            None => ("https", endpoint.as_str()),
        };
        // Supabase's has a path.
        let (authority, path) = match authority.trim_end_matches('/').split_once('/') {
            Some((authority, path)) => (authority, format!("/{path}")),
            None => (authority.trim_end_matches('/'), String::new()),
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
        let is_plain_path = path.chars().all(|c| c.is_ascii_alphanumeric() || "-._~/".contains(c));
        if authority.is_empty() || !authority.chars().all(is_plain) || !is_plain_path {
            return Err("has an endpoint that is no host[:port]: expected http://host:port".to_owned());
        }
        if self.path_style {
            Ok((format!("{scheme}://{authority}"), format!("{path}/{encoded}")))
        } else {
            Ok((format!("{scheme}://{}.{authority}", self.bucket), path))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str, env: &[(&str, &str)]) -> Result<Config> {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::new(&Location::parse(url)?, &env)
    }

    #[test]
    fn where_requests_go() {
        for (url, origin, base, region) in [
            ("s3://b/p", "https://b.s3.us-east-1.amazonaws.com", "", "us-east-1"),
            ("s3://b/p?region=eu-west-1", "https://b.s3.eu-west-1.amazonaws.com", "", "eu-west-1"),
            ("s3://b.c/p", "https://s3.us-east-1.amazonaws.com", "/b.c", "us-east-1"),
            ("s3://b/p?forcePathStyle=1", "https://s3.us-east-1.amazonaws.com", "/b", "us-east-1"),
            ("s3://b/p?region=cn-north-1", "https://b.s3.cn-north-1.amazonaws.com.cn", "", "cn-north-1"),
            ("s3://b/p?endpoint=http://127.0.0.1:9000/", "http://127.0.0.1:9000", "/b", "us-east-1"),
            ("s3://b/p?endpoint=localhost:9000", "http://localhost:9000", "/b", "us-east-1"),
            ("s3://b/p?endpoint=fly.storage.tigris.dev", "https://fly.storage.tigris.dev", "/b", "auto"),
            (
                "s3://b/p?endpoint=https://a.r2.cloudflarestorage.com",
                "https://a.r2.cloudflarestorage.com",
                "/b",
                "auto",
            ),
            ("s3://b/p?endpoint=s3.nl-ams.scw.cloud&region=x", "https://s3.nl-ams.scw.cloud", "/b", "x"),
            (
                "s3://b/p?endpoint=https://x.supabase.co/storage/v1/s3/",
                "https://x.supabase.co",
                "/storage/v1/s3/b",
                "us-east-1",
            ),
            ("s3://b/p?endpoint=s.example&force-path-style=false", "https://b.s.example", "", "us-east-1"),
            ("s3://b.s3.eu-west-3.amazonaws.com/p", "https://b.s3.eu-west-3.amazonaws.com", "", "eu-west-3"),
            ("s3://b.s3.amazonaws.com/p", "https://b.s3.us-east-1.amazonaws.com", "", "us-east-1"),
            ("s3://b.fra1.digitaloceanspaces.com/p", "https://b.fra1.digitaloceanspaces.com", "", "fra1"),
            ("s3://b.s3.eu-1.backblazeb2.com/p", "https://s3.eu-1.backblazeb2.com", "/b", "eu-1"),
            ("s3://b.s3.fr-par.scw.cloud/p", "https://b.s3.fr-par.scw.cloud", "", "fr-par"),
            ("s3://b.localhost:9000/p", "http://localhost:9000", "/b", "us-east-1"),
            (
                "s3://arn:aws:s3:eu-west-1:123:accesspoint/ap/p",
                "https://ap-123.s3-accesspoint.eu-west-1.amazonaws.com",
                "",
                "eu-west-1",
            ),
        ] {
            let made = config(url, &[]).unwrap();
            assert_eq!((made.origin.as_str(), made.base_path.as_str()), (origin, base), "{url}");
            assert_eq!((made.region.as_str(), made.prefix.as_str()), (region, "p/"), "{url}");
        }
    }

    #[test]
    fn variables_fill_what_the_url_leaves_open() {
        let env = [("AWS_REGION", "r1"), ("AWS_DEFAULT_REGION", "r2"), ("AWS_ENDPOINT_URL", "http://h:1")];
        let made = config("s3://b", &env).unwrap();
        assert_eq!((made.region.as_str(), made.origin.as_str(), made.prefix.as_str()), ("r1", "http://h:1", "/"));
        let made = config("s3://b?region=r3&endpoint=http://i:2", &env).unwrap();
        assert_eq!((made.region.as_str(), made.origin.as_str()), ("r3", "http://i:2"));
        // A variable for Amazon's region is not that of a provider whose endpoint tells its own.
        let made = config("s3://b?endpoint=s3.eu-central-003.backblazeb2.com", &env).unwrap();
        assert_eq!(made.region, "eu-central-003");
    }

    #[test]
    fn parameters_that_are_wrong_are_named_without_their_values() {
        for (url, says) in [
            ("s3://", "has no bucket"),
            ("s3:///path", "has no bucket"),
            ("s3://b?secret-access-key=hush", "unknown parameter \"secret-access-key\"; known are endpoint, region"),
            ("s3://b?force-path-style=hush", "neither true nor false"),
            ("s3://b?part-size=-1", "no positive number"),
            ("s3://b?endpoint=ftp://x", "neither http:// nor https://"),
            ("s3://b?endpoint=http://u:hush@x", "no host[:port]"),
            ("s3://b?endpoint=http://x/%25hush", "no host[:port]"),
            ("s3://b?sse-customer-key=hush", "SSE-C"),
            ("s3://b?endpoint=127.0.0.1:9000&force-path-style=false", "which is none; with force-path-style=true"),
            ("s3://a%20b/p", "which is none"),
        ] {
            let error = config(url, &[]).unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains("hush"), "{url}: {error}");
        }
    }

    #[test]
    fn payloads_are_signed_unless_tls_guards_them_and_the_url_says_so() {
        assert!(config("s3://b", &[]).unwrap().sign_payload);
        assert!(!config("s3://b?sign-payload=false", &[]).unwrap().sign_payload);
        assert!(config("s3://b?sign-payload=false&endpoint=http://h", &[]).unwrap().sign_payload);
    }
}
