//! What differs between those who speak S3, told by the endpoint's host. What is not in the table is the same for all:
//! payloads are signed, in one piece and without the checksum trailers that many do not take; parts of an upload are
//! equal, as R2 wants them; with an endpoint the bucket is in the path, which B2, Filebase, MinIO and Supabase need.
//!
//! Sources: Litestream's guide "Replicating to S3-Compatible Services" and its `NewReplicaClientFromURL`, and the
//! providers' own pages where a row names them.

/// A row of the table.
#[derive(Debug)]
pub(super) struct Provider {
    pub(super) name: &'static str,
    /// What the host ends in, or is.
    ends: &'static [&'static str],
    region: Region,
    /// Goes with every request, signed.
    pub(super) header: Option<(&'static str, &'static str)>,
    /// Parts of an upload that may be on their way.
    pub(super) concurrency: Option<usize>,
    /// Parts that an upload may have.
    pub(super) parts_max: u64,
    /// Its documentation says that creations heed If-None-Match; else it is tried (P29).
    pub(super) is_conditional: bool,
}

#[derive(Debug)]
enum Region {
    /// The provider has one name for all, or takes any.
    Is(&'static str),
    /// The label before the ending, without this prefix: `s3.fr-par.scw.cloud`, `sos-ch-gva-2.exo.io`.
    Before(&'static str),
    /// The host does not tell.
    Unknown,
}

const OTHER: Provider = Provider {
    name: "the store",
    ends: &[],
    region: Region::Unknown,
    header: None,
    concurrency: None,
    parts_max: 10_000,
    is_conditional: false,
};

const PROVIDERS: &[Provider] = &[
    // User Guide, "How to prevent object overwrites with conditional writes".
    Provider { name: "Amazon S3", ends: &["amazonaws.com", "amazonaws.com.cn"], is_conditional: true, ..OTHER },
    // "S3 API compatibility": the region is auto; PutObject takes If-None-Match. Litestream: two parts at a time.
    Provider {
        name: "Cloudflare R2",
        ends: &["r2.cloudflarestorage.com"],
        region: Region::Is("auto"),
        concurrency: Some(2),
        is_conditional: true,
        ..OTHER
    },
    // Without the header an answer may be that of a region that has not heard of the last write; conditional writes need
    // it too. The second name is the public one ("Quick Start": AWS_ENDPOINT_URL, AWS_REGION=auto).
    Provider {
        name: "Tigris",
        ends: &["tigris.dev", "t3.storage.dev"],
        region: Region::Is("auto"),
        header: Some(("x-tigris-consistent", "true")),
        is_conditional: true,
        ..OTHER
    },
    Provider { name: "Backblaze B2", ends: &["backblazeb2.com"], region: Region::Before(""), ..OTHER },
    Provider { name: "DigitalOcean Spaces", ends: &["digitaloceanspaces.com"], region: Region::Before(""), ..OTHER },
    // "Managing multipart uploads": 1 to 1000 parts per object.
    Provider { name: "Scaleway", ends: &["scw.cloud"], region: Region::Before(""), parts_max: 1_000, ..OTHER },
    Provider { name: "Filebase", ends: &["filebase.com"], region: Region::Is("us-east-1"), ..OTHER },
    // Endpoint with a path: https://<project>.supabase.co/storage/v1/s3; the region is the project's own.
    Provider { name: "Supabase", ends: &["supabase.co"], ..OTHER },
    Provider { name: "Hetzner", ends: &["your-objectstorage.com"], region: Region::Before(""), ..OTHER },
    // "Service URLs for Wasabi's Storage Regions"; s3.wasabisys.com is us-east-1.
    Provider { name: "Wasabi", ends: &["wasabisys.com"], region: Region::Before(""), ..OTHER },
    Provider {
        name: "OVHcloud",
        ends: &["io.cloud.ovh.net", "perf.cloud.ovh.net", "io.cloud.ovh.us"],
        region: Region::Before(""),
        ..OTHER
    },
    Provider { name: "Linode", ends: &["linodeobjects.com"], region: Region::Before(""), ..OTHER },
    Provider { name: "Exoscale", ends: &["exo.io"], region: Region::Before("sos-"), ..OTHER },
    // HMAC keys and the XML API; it signs no Accept-Encoding, nor do we.
    Provider { name: "Google Cloud Storage", ends: &["storage.googleapis.com"], region: Region::Is("auto"), ..OTHER },
];

/// Whose endpoint that is; `origin` with scheme and port.
pub(super) fn of(origin: &str) -> &'static Provider {
    let host = host(origin);
    PROVIDERS.iter().find(|provider| provider.before(host).is_some()).unwrap_or(&OTHER)
}

impl Provider {
    /// The region that the endpoint says.
    pub(super) fn region(&self, origin: &str) -> Option<String> {
        match self.region {
            Region::Is(name) => Some(name.to_owned()),
            Region::Before(prefix) => {
                let label = self.before(host(origin))?.rsplit('.').next()?;
                let name = label.strip_prefix(prefix)?;
                (!matches!(name, "" | "s3")).then(|| name.to_owned())
            }
            Region::Unknown => None,
        }
    }

    /// What is in front of the ending; empty if the host is the ending.
    fn before<'a>(&self, host: &'a str) -> Option<&'a str> {
        self.ends.iter().find_map(|end| match host.strip_suffix(end)? {
            "" => Some(""),
            before => before.strip_suffix('.'),
        })
    }
}

fn host(origin: &str) -> &str {
    let authority = origin.split_once("://").map_or(origin, |(_, rest)| rest);
    authority.split([':', '/']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_tell_the_provider_and_the_region() {
        for (origin, name, region) in [
            ("https://account.eu.r2.cloudflarestorage.com", "Cloudflare R2", Some("auto")),
            ("https://fly.storage.tigris.dev", "Tigris", Some("auto")),
            ("https://t3.storage.dev:443", "Tigris", Some("auto")),
            ("https://s3.us-west-004.backblazeb2.com", "Backblaze B2", Some("us-west-004")),
            ("https://fra1.digitaloceanspaces.com", "DigitalOcean Spaces", Some("fra1")),
            ("https://s3.fr-par.scw.cloud", "Scaleway", Some("fr-par")),
            ("https://s3.filebase.com", "Filebase", Some("us-east-1")),
            ("https://project.supabase.co", "Supabase", None),
            ("https://fsn1.your-objectstorage.com", "Hetzner", Some("fsn1")),
            ("https://s3.eu-central-2.wasabisys.com", "Wasabi", Some("eu-central-2")),
            ("https://s3.wasabisys.com", "Wasabi", None),
            ("https://s3.gra.io.cloud.ovh.net", "OVHcloud", Some("gra")),
            ("https://us-east-1.linodeobjects.com", "Linode", Some("us-east-1")),
            ("https://sos-ch-gva-2.exo.io", "Exoscale", Some("ch-gva-2")),
            ("https://storage.googleapis.com", "Google Cloud Storage", Some("auto")),
            ("https://b.s3.eu-west-1.amazonaws.com", "Amazon S3", None),
            ("http://127.0.0.1:9000", "the store", None),
            ("https://nottigris.dev", "the store", None),
            ("https://tigris.dev.example", "the store", None),
        ] {
            let provider = of(origin);
            assert_eq!((provider.name, provider.region(origin).as_deref()), (name, region), "{origin}");
        }
    }
}
