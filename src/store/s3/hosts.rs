//! The host of an `s3://` URL: a bucket, or one of the spellings that Litestream takes apart (`s3.ParseHost`).

/// What a host says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) bucket: String,
    pub(super) region: Option<String>,
    /// `None`: Amazon's own.
    pub(super) endpoint: Option<String>,
    pub(super) path_style: bool,
}

/// Takes a host apart; what is none of the known spellings is a bucket of Amazon's.
pub(super) fn parse(host: &str) -> Host {
    if host.starts_with("arn:") {
        let region = host.split(':').nth(3).filter(|r| !r.is_empty()).map(str::to_owned);
        return Host { bucket: host.to_owned(), region, ..Host::default() };
    }
    if host.contains(':') && !host.contains(".com") {
        // bucket.host:port, as MinIO is written.
        let (bucket, endpoint) = host.split_once('.').unwrap_or(("", host));
        let (bucket, endpoint) = (bucket.to_owned(), Some(format!("http://{endpoint}")));
        return Host { bucket, region: None, endpoint, path_style: true };
    }
    provider(host).unwrap_or_else(|| Host { bucket: host.to_owned(), ..Host::default() })
}

fn provider(host: &str) -> Option<Host> {
    if let Some((bucket, rest)) = host.strip_suffix(".amazonaws.com").and_then(|h| h.rsplit_once(".s3")) {
        let region = rest.strip_prefix('.').map(str::to_owned);
        let known = rest.is_empty() || region.is_some();
        return known.then(|| Host { bucket: bucket.to_owned(), region, ..Host::default() });
    }
    if let Some((bucket, region)) = host.strip_suffix(".digitaloceanspaces.com").and_then(|h| h.rsplit_once('.')) {
        return Some(at(bucket, region, format!("{region}.digitaloceanspaces.com"), false));
    }
    if let Some((bucket, region)) = host.strip_suffix(".backblazeb2.com").and_then(|h| h.rsplit_once(".s3.")) {
        return Some(at(bucket, region, format!("s3.{region}.backblazeb2.com"), true));
    }
    if let Some((bucket, region)) = host.strip_suffix(".scw.cloud").and_then(|h| h.rsplit_once(".s3.")) {
        return Some(at(bucket, region, format!("s3.{region}.scw.cloud"), false));
    }
    // Litestream's own default for Filebase is path style, which its certificate needs.
    let bucket = host.strip_suffix(".s3.filebase.com")?;
    Some(at(bucket, "us-east-1", "s3.filebase.com".to_owned(), true))
}

fn at(bucket: &str, region: &str, authority: String, path_style: bool) -> Host {
    let endpoint = Some(format!("https://{authority}"));
    Host { bucket: bucket.to_owned(), region: Some(region.to_owned()), endpoint, path_style }
}

/// The name and the account of an access point's ARN, `arn:aws:s3:<region>:<account>:accesspoint/<name>`.
pub(super) fn access_point(bucket: &str) -> Option<(&str, &str)> {
    let mut parts = bucket.strip_prefix("arn:")?.splitn(5, ':');
    let (account, resource) = (parts.nth(3)?, parts.next()?);
    Some((resource.strip_prefix("accesspoint/")?, account))
}

/// Whether an endpoint without a scheme means `http://` (Litestream's `IsLocalEndpoint`).
pub(super) fn is_local(endpoint: &str) -> bool {
    let host = endpoint.split(['/', ':']).next().unwrap_or_default();
    if let Ok(address) = host.parse::<std::net::Ipv4Addr>() {
        return address.is_loopback() || address.is_private();
    }
    host == "localhost" || host.ends_with(".localhost") || host.ends_with(".local")
}
