//! The ways to a real server: through a proxy, with the bucket in the host's name, through TLS. Proxies and certificates
//! are read once in a process, so each way has a process of its own.

use litestream::store::{self, Metadata, Put};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// What a process makes of that URL, with these variables.
fn used(url: &str, variables: &[(&str, &str)]) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "ways::child_uses", "--ignored", "--nocapture"]).env_remove("AWS_CA_BUNDLE");
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"] {
        child.env_remove(name);
    }
    let output = child.env("WAYS_URL", url).envs(variables.iter().copied()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "the child of the tests below"]
fn child_uses() {
    let store = store::open(&std::env::var("WAYS_URL").unwrap()).unwrap();
    let large: Vec<u8> = (0..9_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let outcome = (|| {
        let key = "odd key/ü+%";
        assert!(matches!(store.put_if_absent(key, b"x", &Metadata::default())?, Put::Done(_)));
        assert_eq!(store.put_if_absent(key, b"y", &Metadata::default())?, Put::Refused);
        assert_eq!(store.list("odd key/")?.len(), 1);
        let mut upload = store.upload("large", &Metadata::default(), large.len() as u64)?;
        upload.write(&large)?;
        assert!(matches!(upload.finish_if_absent()?, Put::Done(_)));
        assert!(matches!(store.copy("large", "copy", &Metadata::default())?, Put::Done(_)));
        assert!(store.get("copy", large.len() as u64)?.unwrap().0 == large);
        ["large", "copy", key].iter().try_for_each(|key| store.delete(key))
    })();
    println!("{}", outcome.map_or_else(|e: litestream::error::Error| e.to_string(), |()| "all went well".to_owned()));
}

/// The port in a server's URL.
fn port(url: &str) -> &str {
    url.split("127.0.0.1:").nth(1).unwrap().split('&').next().unwrap()
}

/// The server itself is the proxy: it is sent the whole URL, whose host nobody could resolve. SeaweedFS has been told
/// that s3.test is its domain; moto knows Amazon's.
#[test]
fn through_a_proxy_with_the_bucket_in_the_hosts_name() {
    for url in crate::s3::servers() {
        let domain = if crate::s3::is_moto(&url) { "s3.us-east-1.amazonaws.com" } else { "s3.test" };
        let path = url.split('?').next().unwrap();
        let proxy = format!("http://127.0.0.1:{}", port(&url));
        for style in ["", "&force-path-style=false"] {
            let said =
                used(&format!("{path}{}?endpoint=http://{domain}{style}", style.len()), &[("HTTP_PROXY", &proxy)]);
            assert!(said.contains("all went well"), "{path} {style}: {said}");
        }
    }
}

#[test]
fn through_tls_that_only_the_bundle_makes_trusted() {
    let at = |name: &str| format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
    for url in crate::s3::servers() {
        let mut front = Command::new("/usr/bin/env")
            .args(["python3", &at("sql-tests/stores/tlsfront.py"), port(&url)])
            .args([at("tests/stores/tls/server.pem"), at("tests/stores/tls/server.key")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(front.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let https =
            url.replacen(&format!("http://127.0.0.1:{}", port(&url)), &format!("https://127.0.0.1:{}", line.trim()), 1);
        let bundle = at("tests/stores/tls/authority.pem");
        let said = used(&https, &[("AWS_CA_BUNDLE", &bundle)]);
        assert!(said.contains("all went well"), "{https}: {said}");
        let said = used(&https.replacen("/run/", "/run/verified-not/", 1), &[]);
        assert!(said.contains("AWS_CA_BUNDLE"), "{https}: {said}");
        let said = used(
            &format!("{}&skip-verify=true&sign-payload=false", https.replacen("/run/", "/run/unverified/", 1)),
            &[],
        );
        assert!(said.contains("all went well"), "{https}: {said}");
        drop(front.stdin.take());
        front.wait().unwrap();
    }
}
