//! TLS: who is trusted. The server's certificate is signed by an authority of the tests' own, good for a hundred years:
//! `openssl req -x509` made `authority.pem`, `openssl x509 -req -CA authority.pem` made `server.pem`.

use litestream::error::Kind;
use litestream::store;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;

/// Answers every request with an empty listing; returns its port.
fn server() -> u16 {
    let chain = vec![CertificateDer::from_pem_slice(include_bytes!("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let mut stream =
                BufReader::new(StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), socket));
            let mut line = String::new();
            while stream.read_line(&mut line).is_ok_and(|read| read > 2) {
                line.clear();
            }
            let body = "<ListBucketResult></ListBucketResult>";
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            // A client that does not trust us is gone by now.
            let _ = stream.get_mut().write_all(format!("{head}{body}").as_bytes());
            stream.get_mut().conn.send_close_notify();
            let _ = stream.get_mut().flush();
        }
    });
    port
}

/// What a process whose AWS_CA_BUNDLE is `bundle` gets from a listing: the variable is read once in a process.
fn list(port: u16, parameters: &str, bundle: Option<&str>) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "tls::child_lists", "--ignored", "--nocapture"]).env_remove("AWS_CA_BUNDLE");
    child.env("TLS_URL", format!("s3://b/p?endpoint=https://127.0.0.1:{port}{parameters}"));
    child.env("AWS_ACCESS_KEY_ID", "k").env("AWS_SECRET_ACCESS_KEY", "s").envs(bundle.map(|b| ("AWS_CA_BUNDLE", b)));
    let output = child.output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "the child of the test below"]
fn child_lists() {
    let listed = store::open(&std::env::var("TLS_URL").unwrap()).and_then(|store| store.list(""));
    println!("{}", listed.map_or_else(|e| format!("{:?}: {e}", e.kind()), |rows| format!("listed {}", rows.len())));
}

#[test]
fn only_the_systems_roots_and_the_bundle_are_trusted() {
    let port = server();
    let bundle = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stores/tls/authority.pem");
    let refused = list(port, "", None);
    assert!(refused.contains(&format!("{:?}: ", Kind::Unavailable)) && refused.contains("UnknownIssuer"), "{refused}");
    assert!(refused.contains("AWS_CA_BUNDLE"), "{refused}");
    let listed = list(port, "", Some(bundle));
    assert!(listed.contains("listed 0"), "{listed}");
    let unverified = list(port, "&skip-verify=true", None);
    assert!(unverified.contains("listed 0"), "{unverified}");
    let missing = list(port, "", Some("/nowhere"));
    assert!(missing.contains("Invalid: ") && missing.contains("AWS_CA_BUNDLE /nowhere"), "{missing}");
}
