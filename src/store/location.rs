//! The URL of a replica, taken apart: `scheme://host/path?name=value&…`.

use crate::error::{Error, Result};
use percent_encoding::percent_decode_str;

/// The parts of a URL, percent-decoded.
#[derive(Debug)]
pub(super) struct Location {
    pub(super) scheme: String,
    /// The authority as written: a bucket may be an access point's ARN, with colons and a slash.
    pub(super) host: String,
    /// Starts with a slash, or is empty.
    pub(super) path: String,
    /// In the order of the URL.
    pub(super) query: Vec<(String, String)>,
    /// The URL without parameters and user information, for messages.
    pub(super) shown: String,
}

const EXPECTED: &str = "expected file:///absolute/path or s3://bucket/path";

impl Location {
    /// Takes `url` apart. Messages never hold what may be a secret: user information, or a parameter's value.
    pub(super) fn parse(url: &str) -> Result<Self> {
        let (before, query) = url.split_once('?').map_or((url, ""), |(b, q)| (b, q));
        let shown = without_user(before);
        let invalid = |why: String| Error::invalid(format!("replica URL {shown:?} {why}"));
        let Some((scheme, rest)) = before.split_once("://") else {
            return Err(invalid(format!("has no scheme: {EXPECTED}")));
        };
        if before.chars().any(char::is_control) || before.contains('#') {
            return Err(invalid("has a control character or a #: write it as %23".to_owned()));
        }
        let split = match rest.find(":accesspoint/") {
            Some(at) if rest.starts_with("arn:") => {
                let name = at + ":accesspoint/".len();
                rest.get(name..).and_then(|after| after.find('/')).map(|slash| name + slash)
            }
            _ => rest.find('/'),
        };
        let (host, path) = rest.split_at_checked(split.unwrap_or(rest.len())).unwrap_or((rest, ""));
        if host.contains('@') {
            return Err(invalid("holds credentials: give them by environment or profile, see the manual".to_owned()));
        }
        let decode = |text: &str| match percent_decode_str(text).decode_utf8() {
            Ok(decoded) if !decoded.chars().any(char::is_control) => Ok(decoded.into_owned()),
            _ => Err(invalid("has percent-encoded bytes that are not text".to_owned())),
        };
        let path = decode(path)?;
        if path.split('/').any(|segment| segment == "..") {
            return Err(invalid("has a .. segment: write the path that it means".to_owned()));
        }
        let mut pairs = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // As Litestream reads it (Go's url.ParseQuery): a plus is a space.
            pairs.push((decode(&name.replace('+', " "))?, decode(&value.replace('+', " "))?));
        }
        Ok(Self { scheme: scheme.to_ascii_lowercase(), host: decode(host)?, path, query: pairs, shown })
    }

    /// An error about this URL.
    pub(super) fn invalid(&self, why: impl std::fmt::Display) -> Error {
        Error::invalid(format!("replica URL {:?} {why}", self.shown))
    }

    /// The directory of a `file://` URL.
    pub(super) fn directory(&self) -> Result<std::path::PathBuf> {
        if !matches!(self.host.as_str(), "" | "localhost") || self.path.is_empty() {
            return Err(self.invalid("is not absolute: expected file:///absolute/path, with three slashes"));
        }
        if let Some((name, _)) = self.query.first() {
            return Err(self.invalid(format!("has the parameter {name:?}: file:// takes none (a ? in a path is %3F)")));
        }
        let mut directory = std::path::PathBuf::from("/");
        directory.extend(self.path.split('/').filter(|s| !matches!(*s, "" | ".")));
        if directory.parent().is_none() {
            return Err(self.invalid("is the root directory: expected file:///absolute/path"));
        }
        Ok(directory)
    }

    /// A scheme that no store has.
    pub(super) fn unknown_scheme(&self) -> Error {
        match self.scheme.as_str() {
            "gs" | "abs" | "sftp" | "oss" | "nats" | "webdav" | "webdavs" => {
                self.invalid(format!("is of a store that is not there yet: {EXPECTED}"))
            }
            other => self.invalid(format!("has the unknown scheme {other:?}: {EXPECTED}")),
        }
    }
}

/// Everything between the scheme and the last @ of the authority is taken for a secret.
fn without_user(before: &str) -> String {
    let (scheme, rest) = before.split_once("://").map_or(("", before), |(s, r)| (s, r));
    let end = rest.find('/').unwrap_or(rest.len());
    let (host, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
    let host = host.rsplit_once('@').map_or_else(|| host.to_owned(), |(_, host)| format!("***@{host}"));
    let separator = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{separator}{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn malformed_urls_say_what_is_expected_and_never_show_secrets() {
        for (url, says) in [
            ("", "has no scheme"),
            ("/var/replica", "has no scheme"),
            ("file:/var/replica", "has no scheme"),
            ("file://var/replica", "is not absolute"),
            ("file://", "is not absolute"),
            ("file:///", "is the root"),
            ("file:///a?secret=hush", "file:// takes none"),
            ("file:///a/../b", "a .. segment"),
            ("file:///a%00b", "not text"),
            ("file:///a%ff", "not text"),
            ("s3://key:hush@bucket/path", "holds credentials"),
            ("gs://bucket/path", "is not there yet"),
            ("sftp://u:hush@host/path", "holds credentials"),
            ("ftp://host/path", "unknown scheme \"ftp\""),
        ] {
            let error = super::super::open(url).err().unwrap_or_else(|| panic!("{url} was taken"));
            assert_eq!(error.kind(), Kind::Invalid, "{url}");
            assert!(error.to_string().contains(says), "{url}: {error}");
            assert!(!error.to_string().contains("hush"), "{url}: {error}");
        }
    }

    #[test]
    fn file_urls_are_percent_decoded_and_cleaned() {
        for (url, directory) in [("file:///a//b/./c%20d/", "/a/b/c d"), ("file://localhost/x", "/x")] {
            assert_eq!(Location::parse(url).unwrap().directory().unwrap(), std::path::Path::new(directory));
        }
    }

    #[test]
    fn an_access_point_is_one_host() {
        let at = Location::parse("s3://arn:aws:s3:eu-west-1:1:accesspoint/name/a/b?region=x").unwrap();
        assert_eq!((at.host.as_str(), at.path.as_str()), ("arn:aws:s3:eu-west-1:1:accesspoint/name", "/a/b"));
    }
}
