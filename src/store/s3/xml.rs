//! The XML of S3's answers, from a source that is not trusted: depth, number and length are bounded by the answer's
//! own length, which is bounded before.

use crate::error::{Error, Result};
use crate::store::{ETag, Entry};
use crate::time::Timestamp;
use quick_xml::Reader;
use quick_xml::events::Event;

const DEPTH_MAX: usize = 16;

/// A page of ListObjectsV2.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// Keys as S3 has them, with the store's prefix.
    pub(super) entries: Vec<Entry>,
    /// Where the next page begins, if there is one.
    pub(super) next: Option<String>,
}

/// A row of ListMultipartUploads.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unfinished {
    /// With the store's prefix.
    pub(super) key: String,
    pub(super) id: String,
    pub(super) initiated: Timestamp,
}

/// An error's body.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: String,
    pub(super) message: String,
    /// Of the bucket, when the request went to another one.
    pub(super) region: Option<String>,
}

/// Calls `leave` at each end of an element with the names from the root to it and the text directly in it.
fn walk(body: &[u8], mut leave: impl FnMut(&[&str], &str)) -> Result<()> {
    let broken = |why: &dyn std::fmt::Display| Error::corrupt(format!("XML of the answer: {why}"));
    let text = std::str::from_utf8(body).map_err(|e| broken(&e))?;
    let mut reader = Reader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    let mut names: Vec<String> = Vec::new();
    let mut content = String::new();
    loop {
        match reader.read_event().map_err(|e| broken(&e))? {
            Event::Start(start) => {
                if names.len() == DEPTH_MAX {
                    return Err(broken(&"nested too deeply"));
                }
                names.push(start.local_name().as_ref().to_owned());
                content.clear();
            }
            Event::Text(text) => content.push_str(&text.xml10_content()),
            Event::CData(data) => content.push_str(&data.xml10_content()),
            Event::GeneralRef(reference) => match reference.resolve_char_ref().map_err(|e| broken(&e))? {
                Some(character) => content.push(character),
                None => content.push(match &*reference.xml10_content() {
                    "amp" => '&',
                    "lt" => '<',
                    "gt" => '>',
                    "quot" => '"',
                    "apos" => '\'',
                    _ => return Err(broken(&"an unknown entity")),
                }),
            },
            Event::End(_) => {
                let path: Vec<&str> = names.iter().map(String::as_str).collect();
                leave(&path, &content);
                names.pop();
                content.clear();
            }
            Event::Eof if names.is_empty() => return Ok(()),
            Event::Eof => return Err(broken(&"cut off")),
            _ => {}
        }
    }
}

/// Reads a page of ListObjectsV2.
pub(super) fn page(body: &[u8]) -> Result<Page> {
    let (mut page, mut is_page, mut is_truncated) = (Page::default(), false, false);
    let mut bad: Option<String> = None;
    let (mut key, mut size, mut modified, mut etag) = (None, None, None, None);
    walk(body, |path, text| match path {
        ["ListBucketResult"] => is_page = true,
        ["ListBucketResult", "IsTruncated"] => is_truncated = text.trim() == "true",
        ["ListBucketResult", "NextContinuationToken"] => page.next = Some(text.to_owned()),
        ["ListBucketResult", "Contents", "Key"] => key = Some(text.to_owned()),
        ["ListBucketResult", "Contents", "Size"] => size = text.trim().parse().ok(),
        ["ListBucketResult", "Contents", "LastModified"] => modified = Timestamp::parse_rfc3339(text.trim()),
        ["ListBucketResult", "Contents", "ETag"] => etag = Some(ETag(text.to_owned())),
        ["ListBucketResult", "Contents"] => match (key.take(), size.take(), modified.take()) {
            (Some(key), Some(size), Some(modified)) => {
                page.entries.push(Entry { key, size, modified, etag: etag.take() });
            }
            (key, ..) => bad = Some(key.unwrap_or_default()),
        },
        _ => {}
    })?;
    if let Some(key) = bad {
        return Err(Error::corrupt(format!("the listing's row {key:?} has no key, size or time")));
    }
    if !is_page {
        return Err(Error::corrupt("the answer is no listing"));
    }
    if is_truncated && page.next.as_ref().is_none_or(String::is_empty) {
        return Err(Error::corrupt("the listing is cut and does not say where it goes on"));
    }
    if !is_truncated {
        page.next = None;
    }
    Ok(page)
}

/// Reads a page of ListMultipartUploads; rows that say no key, id or time are left out.
pub(super) fn uploads(body: &[u8]) -> Result<Vec<Unfinished>> {
    let (mut rows, mut is_listing) = (Vec::new(), false);
    let (mut key, mut id, mut initiated) = (None, None, None);
    walk(body, |path, text| match path {
        ["ListMultipartUploadsResult"] => is_listing = true,
        ["ListMultipartUploadsResult", "Upload", "Key"] => key = Some(text.to_owned()),
        ["ListMultipartUploadsResult", "Upload", "UploadId"] => id = Some(text.to_owned()),
        ["ListMultipartUploadsResult", "Upload", "Initiated"] => initiated = Timestamp::parse_rfc3339(text.trim()),
        ["ListMultipartUploadsResult", "Upload"] => {
            if let (Some(key), Some(id), Some(initiated)) = (key.take(), id.take(), initiated.take()) {
                rows.push(Unfinished { key, id, initiated });
            }
        }
        _ => {}
    })?;
    if is_listing { Ok(rows) } else { Err(Error::corrupt("the answer is no listing of uploads")) }
}

/// Reads an error's body, S3's or that of the token service; `None` if it is none.
pub(super) fn fault(body: &[u8]) -> Option<Fault> {
    let (mut fault, mut is_fault) = (Fault::default(), false);
    let walked = walk(body, |path, text| match path {
        ["Error"] | ["ErrorResponse", "Error"] => is_fault = true,
        ["Error", "Code"] | ["ErrorResponse", "Error", "Code"] => text.trim().clone_into(&mut fault.code),
        ["Error", "Message"] | ["ErrorResponse", "Error", "Message"] => text.trim().clone_into(&mut fault.message),
        ["Error", "Region"] => fault.region = Some(text.trim().to_owned()),
        _ => {}
    });
    (walked.is_ok() && is_fault).then_some(fault)
}

/// The text of `<root><name>…</name></root>`: an upload's id.
pub(super) fn value(body: &[u8], root: &str, name: &str) -> Result<String> {
    text(body, &[root, name])
}

/// The ETag in such an answer. Its quotes are part of it; SeaweedFS leaves them out there, and not in its headers.
pub(super) fn etag(body: &[u8], root: &str) -> Result<ETag> {
    let etag = value(body, root, "ETag")?;
    Ok(ETag(if etag.ends_with('"') { etag } else { format!("\"{etag}\"") }))
}

/// The text of the element at that path, which is not empty.
pub(super) fn text(body: &[u8], wanted: &[&str]) -> Result<String> {
    let mut found = None;
    walk(body, |path, text| {
        if path == wanted {
            found = Some(text.trim().to_owned());
        }
    })?;
    let found = found.filter(|text| !text.is_empty());
    found.ok_or_else(|| Error::corrupt(format!("the answer has no {}", wanted.join("/"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read() {
        let body = br#"<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
            <IsTruncated>true</IsTruncated><NextContinuationToken>a/b==</NextContinuationToken><Prefix/>
            <Contents><Key>p/a &amp; b&#x2F;&lt;c&gt; d</Key><LastModified>2026-11-22T17:55:33.964Z</LastModified>
            <ETag>&quot;abc&quot;</ETag><Size>12</Size><Owner><ID>x</ID></Owner></Contents></ListBucketResult>"#;
        let read = page(body).unwrap();
        assert_eq!(read.next.as_deref(), Some("a/b=="));
        let expected = Entry {
            key: "p/a & b/<c> d".to_owned(),
            size: 12,
            modified: Timestamp(1_795_370_133_964),
            etag: Some(ETag("\"abc\"".to_owned())),
        };
        assert_eq!(read.entries, [expected]);
    }

    #[test]
    fn hostile_answers_are_errors() {
        let deep = "<a>".repeat(100_000);
        for body in [
            &b""[..],
            b"not xml",
            b"\xff\xfe",
            b"<Error><Code>x</Code></Error>",
            b"<ListBucketResult>",
            b"<ListBucketResult></Other>",
            b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
            b"<ListBucketResult><Contents><Key>k</Key><Size>-1</Size></Contents></ListBucketResult>",
            b"<ListBucketResult><Contents><Key>&bomb;</Key></Contents></ListBucketResult>",
            deep.as_bytes(),
        ] {
            assert!(page(body).is_err(), "{:?}", String::from_utf8_lossy(&body[..body.len().min(80)]));
        }
        assert_eq!(fault(b"<html><body>Bad gateway"), None);
    }
}
