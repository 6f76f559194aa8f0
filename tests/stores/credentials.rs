//! Where credentials come from, how they are renewed, and what a refusal of them leads to.
//!
//! The services that give temporary ones cannot be had: small servers stand in their place, found by the variables that
//! AWS documents for that. moto's token service and its S3 are used where `LITESTREAM_TEST_S3` names them.

use crate::faults::quick;
use crate::server::{Seen, Server, Step, answer, fault, ok};
use litestream::error::Kind;
use litestream::store::{self, Limits, Metadata, Options, Put, Store};
use litestream::time::Timestamp;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn missing() -> Step {
    answer("404 Not Found", "", "")
}

/// A store in the bucket of `server`, with these variables and no others.
fn open(endpoint: &str, variables: &[(&str, &str)]) -> Arc<dyn Store> {
    let env = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    store::open_with(&format!("s3://b/p?endpoint={endpoint}"), &Options { env: Some(env), ..quick() }).unwrap()
}

/// The key id and the token that a request was signed with.
fn signer(seen: &Seen) -> (String, Option<String>) {
    let key = seen.headers["authorization"].split(['=', '/']).nth(1).unwrap().to_owned();
    (key, seen.headers.get("x-amz-security-token").cloned())
}

fn authorization(variables: &[(&str, &str)]) -> (String, Option<String>) {
    let server = Server::run([missing()]);
    open(&server.endpoint, variables).head("k").unwrap();
    signer(&server.seen()[0])
}

fn owned(key: &str, token: &str) -> (String, Option<String>) {
    (key.to_owned(), Some(token.to_owned()))
}

fn in_seconds(seconds: i64) -> String {
    Timestamp(Timestamp::now().0 + seconds * 1000).to_string()
}

/// What a token service answers to `action`: the keys `<name>`, with the token `<name>-token`.
fn session(action: &str, name: &str, ends: &str) -> Step {
    ok(&format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials>\
         <AccessKeyId>{name}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>\
         <SessionToken>{name}-token</SessionToken><Expiration>{ends}</Expiration>\
         </Credentials></{action}Result></{action}Response>"
    ))
}

/// The same by a container's or a machine's service.
fn json(name: &str, ends: &str) -> Step {
    ok(&format!(
        "{{\"Code\": \"Success\", \"AccessKeyId\": \"{name}\", \"SecretAccessKey\": \"s\", \"Token\": \"{name}-token\", \
         \"Expiration\": \"{ends}\"}}"
    ))
}

fn form(seen: &Seen) -> String {
    String::from_utf8(seen.body.clone()).unwrap()
}

const WEB: &str = "AssumeRoleWithWebIdentity";

/// A file with the web identity's token.
fn token_file(dir: &Path) -> String {
    let file = dir.join("token");
    std::fs::write(&file, "the token\n").unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn credentials_come_from_variables_and_profiles_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("credentials");
    std::fs::write(
        &file,
        "[default]\naws_access_key_id = D\naws_secret_access_key = d\n\
         [other]\naws_access_key_id = O\naws_secret_access_key = o\naws_session_token = token\n",
    )
    .unwrap();
    let shared = ("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap());
    let own = [("LITESTREAM_ACCESS_KEY_ID", "L"), ("LITESTREAM_SECRET_ACCESS_KEY", "l")];
    let aws = [("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "a"), ("AWS_SESSION_TOKEN", "t")];
    assert_eq!(authorization(&[&own[..], &aws, &[shared]].concat()), ("L".to_owned(), None));
    assert_eq!(authorization(&[&aws[..], &[shared]].concat()), owned("A", "t"));
    assert_eq!(authorization(&[shared]), ("D".to_owned(), None));
    assert_eq!(authorization(&[shared, ("AWS_PROFILE", "other")]), owned("O", "token"));
}

#[test]
fn a_web_identity_is_exchanged_for_keys_once() {
    let dir = tempfile::tempdir().unwrap();
    let (sts, s3) =
        (Server::run([session(WEB, "W", &in_seconds(3600))]), Server::run([missing(), missing(), missing()]));
    let variables = [
        ("AWS_ENDPOINT_URL_STS", sts.endpoint.as_str()),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", &token_file(dir.path())),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r"),
    ];
    // Two databases of one process share what was found.
    let (one, two) = (open(&s3.endpoint, &variables), open(&s3.endpoint, &variables));
    for store in [&one, &two, &one] {
        store.head("k").unwrap();
    }
    assert!(s3.seen().iter().all(|seen| signer(seen) == owned("W", "W-token")));
    let [asked] = &sts.seen()[..] else { panic!("{:?}", sts.lines()) };
    assert!(!asked.headers.contains_key("authorization"), "the token is the proof");
    let form = form(asked);
    for field in [
        "Action=AssumeRoleWithWebIdentity&Version=2011-06-15",
        "RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr",
        "RoleSessionName=liblitestream",
        "WebIdentityToken=the%20token",
    ] {
        assert!(form.contains(field), "{form}");
    }
}

#[test]
fn a_containers_service_is_asked_with_its_token() {
    let dir = tempfile::tempdir().unwrap();
    for (variable, value) in [
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "the token"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token_file(dir.path())),
    ] {
        let service = Server::run([json("C", &in_seconds(3600))]);
        let uri = format!("{}/v2/credentials", service.endpoint);
        let variables = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri.as_str()), (variable, value), nowhere()];
        assert_eq!(authorization(&variables), owned("C", "C-token"));
        assert_eq!(
            (service.lines(), service.seen()[0].headers["authorization"].as_str()),
            (vec!["GET /v2/credentials".to_owned()], "the token")
        );
    }
}

/// No shared files: those of the user who runs the tests are not the tests'.
fn nowhere() -> (&'static str, &'static str) {
    ("HOME", "/nowhere")
}

#[test]
fn the_machines_service_is_asked_by_its_second_version() {
    let service = Server::run([ok("session"), ok("role"), json("E", &in_seconds(3600))]);
    let variables = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.endpoint.as_str()), nowhere()];
    assert_eq!(authorization(&variables), owned("E", "E-token"));
    let path = "/latest/meta-data/iam/security-credentials/";
    assert_eq!(service.lines(), ["PUT /latest/api/token".to_owned(), format!("GET {path}"), format!("GET {path}role")]);
    assert_eq!(service.seen()[2].headers["x-aws-ec2-metadata-token"], "session");
}

/// A role by another profile's keys, which sign the request; and by another role.
#[test]
fn a_profile_may_be_a_role() {
    let dir = tempfile::tempdir().unwrap();
    let (keys, config) = (dir.path().join("credentials"), dir.path().join("config"));
    std::fs::write(&keys, "[base]\naws_access_key_id = B\naws_secret_access_key = b\n").unwrap();
    std::fs::write(
        &config,
        "[profile app]\nrole_arn = app\nsource_profile = middle\nexternal_id = x y\n\
         [profile middle]\nrole_arn = middle\nsource_profile = base\nrole_session_name = me\nduration_seconds = 900\n\
         [profile circle]\nrole_arn = r\nsource_profile = ring\n[profile ring]\nrole_arn = r\nsource_profile = circle\n\
         [profile run]\ncredential_process = /bin/hush\n",
    )
    .unwrap();
    let ends = in_seconds(3600);
    let sts = Server::run([session("AssumeRole", "M", &ends), session("AssumeRole", "A", &ends)]);
    let variables = |profile| {
        [
            ("AWS_ENDPOINT_URL_STS", sts.endpoint.as_str()),
            ("AWS_SHARED_CREDENTIALS_FILE", keys.to_str().unwrap()),
            ("AWS_CONFIG_FILE", config.to_str().unwrap()),
            ("AWS_PROFILE", profile),
        ]
    };
    assert_eq!(authorization(&variables("app")), owned("A", "A-token"));
    let seen = sts.seen();
    assert_eq!((signer(&seen[0]).0.as_str(), signer(&seen[1])), ("B", owned("M", "M-token")));
    assert!(seen[0].headers["authorization"].contains("/us-east-1/sts/aws4_request"));
    let first = form(&seen[0]);
    assert!(first.contains("RoleArn=middle&RoleSessionName=me&DurationSeconds=900"), "{first}");
    let second = form(&seen[1]);
    assert!(second.contains("RoleArn=app&RoleSessionName=liblitestream&ExternalId=x%20y"), "{second}");
    for (profile, says) in [("circle", "circle"), ("run", "credential_process"), ("none", "is not there")] {
        let server = Server::run([]);
        let error = open(&server.endpoint, &variables(profile)).head("k").unwrap_err();
        assert!(error.kind() == Kind::Denied && error.to_string().contains(says), "{error}");
        assert!(!error.to_string().contains("hush") && server.lines().is_empty(), "{error}");
    }
}

/// Keys that live for two seconds: every request is signed with keys that hold, and the store never refuses one.
#[test]
fn keys_are_renewed_before_they_end() {
    let mut count = 0;
    let service = Server::answering(move |_| {
        count += 1;
        json(&format!("C{count}"), &in_seconds(2))
    });
    let s3 = Server::answering(|_| missing());
    let uri = format!("{}/x", service.endpoint);
    let store = open(&s3.endpoint, &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri), nowhere()]);
    let start = Instant::now();
    while service.seen().len() < 3 {
        assert!(start.elapsed() < Duration::from_secs(60), "not renewed");
        store.head("k").unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    let signers: Vec<String> = s3.seen().iter().map(|seen| signer(seen).0).collect();
    assert!(
        signers.first().unwrap() == "C1" && signers.is_sorted() && signers.contains(&"C2".to_owned()),
        "{signers:?}"
    );
    assert!(signers.len() > service.seen().len(), "asked at each request");
}

/// The service goes away when it is time to renew: the old keys are used while they hold, then the call says who is away.
#[test]
fn a_renewal_that_fails_is_not_felt_while_the_keys_hold() {
    let ends = in_seconds(8);
    let mut first = Some(json("C", &ends));
    let service = Server::answering(move |_| first.take().unwrap_or_else(|| answer("500 X", "", "")));
    let s3 = Server::answering(|_| missing());
    let uri = format!("{}/x", service.endpoint);
    let store = open(&s3.endpoint, &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri), nowhere()]);
    let start = Instant::now();
    let error = loop {
        if let Err(error) = store.head("k") {
            break error;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "keys that ended are still used");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(Timestamp::now().0 >= Timestamp::parse_rfc3339(&ends).unwrap().0 - 1000, "too early: {error}");
    assert!(service.seen().len() > 1, "it was not tried in time");
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(error.to_string().contains("AWS credentials of the container"), "{error}");
}

/// Keys that were rotated in the shared file, and a session that the store has ended: one more attempt, with new ones.
#[test]
fn a_refusal_of_the_credentials_is_tried_once_more_with_others() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("credentials");
    let write = |key: &str| {
        std::fs::write(&file, format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = s\n")).unwrap();
    };
    let refused = || fault("403 Forbidden", "InvalidAccessKeyId");
    write("old");
    let s3 = Server::run([ok(""), refused(), ok(""), refused()]);
    let store = open(&s3.endpoint, &[("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap()), nowhere()]);
    store.put_if_absent("a", b"", &Metadata::default()).unwrap();
    write("new");
    assert!(matches!(store.put_if_absent("b", b"1", &Metadata::default()).unwrap(), Put::Done(_)));
    let signers: Vec<String> = s3.seen().iter().map(|seen| signer(seen).0).collect();
    assert_eq!(signers, ["old", "old", "new"]);
    // Nothing newer is there: the refusal is final.
    let error = store.put_if_absent("c", b"", &Metadata::default()).unwrap_err();
    assert_eq!((error.kind(), s3.seen().len()), (Kind::Denied, 4), "{error}");

    let (ends, mut count) = (in_seconds(3600), 0);
    let service = Server::answering(move |_| {
        count += 1;
        json(&format!("C{count}"), &ends)
    });
    let uri = format!("{}/x", service.endpoint);
    let s3 = Server::run([fault("400 Bad Request", "ExpiredToken"), ok("")]);
    open(&s3.endpoint, &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri), nowhere()]).get("k", 9).unwrap();
    let signers: Vec<String> = s3.seen().iter().map(|seen| signer(seen).0).collect();
    assert_eq!(signers, ["C1", "C2"]);
}

/// Our clock is off by years: the store's own time is signed after the first refusal, and from then on.
#[test]
fn a_store_that_refuses_our_time_is_told_its_own() {
    let date = "Date: Fri, 24 May 2013 00:00:10 GMT\r\n";
    let skewed = || {
        let body = "<Error><Code>RequestTimeTooSkewed</Code><Message>m</Message></Error>";
        answer("403 Forbidden", date, body)
    };
    let there = || answer("404 Not Found", date, "");
    let s3 = Server::run([skewed(), there(), there(), answer("403 Forbidden", date, ""), skewed()]);
    let store = open(&s3.endpoint, &[("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "a")]);
    store.get("k", 9).unwrap();
    store.head("k").unwrap();
    let dates = || s3.seen().iter().map(|seen| seen.headers["x-amz-date"].clone()).collect::<Vec<_>>();
    assert!(!dates()[0].starts_with("2013") && dates()[1..].iter().all(|date| date.starts_with("20130524T0000")));
    // A refusal that is no question of time ends after one more attempt.
    assert_eq!(store.head("k").unwrap_err().kind(), Kind::Denied);
    assert_eq!(s3.seen().len(), 5);
}

#[test]
fn without_credentials_it_says_what_was_looked_for() {
    let server = Server::run([]);
    let error = open(&server.endpoint, &[("AWS_EC2_METADATA_DISABLED", "true"), nowhere()]).list("").unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    for says in [
        "looked for LITESTREAM_ACCESS_KEY_ID",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "the profile default in /nowhere/.aws/credentials and /nowhere/.aws/config",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "of EC2 (AWS_EC2_METADATA_DISABLED is true)",
    ] {
        assert!(error.to_string().contains(says), "{error}");
    }
    assert_eq!(server.lines(), Vec::<String>::new());
}

/// Off EC2 the metadata service is an address that nobody answers: known after a second, not after minutes.
#[test]
fn a_machine_that_is_not_ec2s_is_known_soon() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let server = Server::run([]);
    let variables = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint.as_str()), nowhere()];
    let env = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let options = Options { env: Some(env), limits: Limits::default(), gate: None };
    let store = store::open_with(&format!("s3://b/p?endpoint={}", server.endpoint), &options).unwrap();
    let start = Instant::now();
    let error = store.list("").unwrap_err();
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(20), "{took:?}");
    assert!(error.kind() == Kind::Denied && error.to_string().contains("of EC2 (AWS credentials"), "{error}");
}

/// A source that is configured and fails is the error: nothing else is used in its place.
#[test]
fn a_web_identity_that_is_refused_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let refusal = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>no such role</Message>\
                   </Error></ErrorResponse>";
    let (sts, s3) = (Server::run([answer("403 Forbidden", "", refusal)]), Server::run([]));
    let file = token_file(dir.path());
    let variables = [
        ("AWS_ENDPOINT_URL_STS", sts.endpoint.as_str()),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", &file),
        ("AWS_ROLE_ARN", "role"),
        nowhere(),
    ];
    let error = open(&s3.endpoint, &variables).list("").unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(error.to_string().contains("403 AccessDenied: no such role") && !error.to_string().contains("the token"));
    let nowhere_to_ask = [("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1"), variables[1], variables[2], nowhere()];
    let error = open(&s3.endpoint, &nowhere_to_ask).list("").unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(s3.lines().is_empty());
}

/// moto's own token service, in front of its S3. (Its metadata service leaves out the `Code` that EC2's has.)
#[test]
fn a_real_token_service_gives_keys_that_a_real_store_takes() {
    let dir = tempfile::tempdir().unwrap();
    let (token, keys, config) = (token_file(dir.path()), dir.path().join("credentials"), dir.path().join("config"));
    std::fs::write(&keys, "[base]\naws_access_key_id = AKTEST\naws_secret_access_key = s\n").unwrap();
    std::fs::write(
        &config,
        "[profile role]\nrole_arn = arn:aws:iam::123456789012:role/r\nsource_profile = base\nduration_seconds = 900\n",
    )
    .unwrap();
    let files = [
        ("AWS_SHARED_CREDENTIALS_FILE", keys.to_str().unwrap()),
        ("AWS_CONFIG_FILE", config.to_str().unwrap()),
        ("AWS_PROFILE", "role"),
    ];
    let identity =
        [("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()), ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r")];
    for url in crate::s3::servers().into_iter().filter(|url| crate::s3::is_moto(url)) {
        let endpoint = url.split("endpoint=").nth(1).unwrap().split('&').next().unwrap();
        for (source, variables) in [
            ("identity", [&identity[..], &[("AWS_ENDPOINT_URL_STS", endpoint)]].concat()),
            ("role", [&files[..], &[("AWS_ENDPOINT_URL_STS", endpoint)]].concat()),
        ] {
            let env = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let store = store::open_with(&url, &Options { env: Some(env), ..quick() }).unwrap();
            assert!(
                matches!(store.put_if_absent(source, b"x", &Metadata::default()).unwrap(), Put::Done(_)),
                "{source}"
            );
            assert_eq!(store.list(source).unwrap().len(), 1);
        }
    }
}
