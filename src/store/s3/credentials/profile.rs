//! Profiles: AWS_SHARED_CREDENTIALS_FILE (`~/.aws/credentials`) and AWS_CONFIG_FILE (`~/.aws/config`), read at each look,
//! so that keys rotated there are found.
//!
//! A profile has keys, or a role: `role_arn` with `source_profile`, `credential_source` or `web_identity_token_file`,
//! and `role_session_name`, `external_id`, `duration_seconds`.

use super::chain::Chain;
use super::sts::Role;
use crate::error::{Error, Kind, Result};
use reqsign_aws_v4::Credential;
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

/// A role's source may be a role; a longer chain is a circle.
const DEPTH_MAX: usize = 5;

type Section = HashMap<String, String>;

/// What the two files say.
pub(super) struct Profiles {
    /// AWS_PROFILE, or `default`.
    name: String,
    is_named: bool,
    files: [PathBuf; 2],
    /// By profile; the credentials file wins.
    sections: HashMap<String, Section>,
}

impl fmt::Display for Profiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [credentials, config] = &self.files;
        write!(f, "the profile {} in {} and {}", self.name, credentials.display(), config.display())
    }
}

impl Profiles {
    /// Reads both files; one that is not there is empty.
    pub(super) fn read(env: &HashMap<String, String>, home: Option<PathBuf>) -> Self {
        let named = |name: &str| env.get(name).filter(|value| !value.is_empty());
        let path = |variable: &str, name: &str| match (named(variable), &home) {
            (Some(path), Some(home)) if path.starts_with("~/") => home.join(path.trim_start_matches("~/")),
            (Some(path), _) => PathBuf::from(path),
            (None, home) => home.clone().unwrap_or_default().join(".aws").join(name),
        };
        let files = [path("AWS_SHARED_CREDENTIALS_FILE", "credentials"), path("AWS_CONFIG_FILE", "config")];
        let mut sections = HashMap::new();
        for (file, prefix) in files.iter().zip(["", "profile "]).rev() {
            parse(&std::fs::read_to_string(file).unwrap_or_default(), prefix, &mut sections);
        }
        let name = named("AWS_PROFILE").or(named("AWS_DEFAULT_PROFILE"));
        Self {
            name: name.map_or_else(|| "default".to_owned(), Clone::clone),
            is_named: name.is_some(),
            files,
            sections,
        }
    }

    /// The credentials of the profile that is asked for; `None` if it says nothing about any.
    pub(super) fn credential(&self, chain: &Chain) -> Result<Option<Credential>> {
        if self.is_named && !self.sections.contains_key(&self.name) {
            return Err(self.denied("is not there"));
        }
        self.of(&self.name, chain, 0)
    }

    fn of(&self, name: &str, chain: &Chain, depth: usize) -> Result<Option<Credential>> {
        let Some(section) = self.sections.get(name) else { return Ok(None) };
        let named = |key: &str| section.get(key).map(String::as_str);
        let Some(arn) = named("role_arn") else {
            return match (keys(section), named("credential_process")) {
                (None, Some(_)) => Err(self.denied(
                    "has a credential_process, which is not run from inside another program: let a role, or keys that \
                     something else renews in the file, take its place",
                )),
                (found, _) => Ok(found),
            };
        };
        if depth == DEPTH_MAX {
            return Err(self.denied("has roles that go round in a circle"));
        }
        if named("mfa_serial").is_some() {
            return Err(self.denied("asks for a second factor, which nobody can type here"));
        }
        let session_name = named("role_session_name");
        if let Some(file) = named("web_identity_token_file") {
            return chain.sts().assume_by_web_identity(arn, session_name, file).map(Some);
        }
        let by = match (named("source_profile"), named("credential_source")) {
            (Some(source), _) if source == name => keys(section),
            (Some(source), _) => self.of(source, chain, depth + 1)?,
            (None, Some("Environment")) => chain.variables(),
            (None, Some("EcsContainer")) => chain.container()?,
            (None, Some("Ec2InstanceMetadata")) => chain.machine()?,
            (None, _) => return Err(self.denied("has a role, and no source_profile or credential_source for it")),
        };
        let by = by.ok_or_else(|| self.denied("has a role whose source has no credentials"))?;
        let (external_id, duration_seconds) = (named("external_id"), named("duration_seconds"));
        chain.sts().assume(&Role { arn, session_name, external_id, duration_seconds }, &by).map(Some)
    }

    fn denied(&self, why: &str) -> Error {
        Error::new(Kind::Denied, format!("{self} {why}"))
    }
}

fn keys(section: &Section) -> Option<Credential> {
    Some(Credential {
        access_key_id: section.get("aws_access_key_id")?.clone(),
        secret_access_key: section.get("aws_secret_access_key")?.clone(),
        session_token: section.get("aws_session_token").cloned(),
        expires_in: None,
    })
}

/// Adds the sections of a file. In the config file a profile other than `default` is written `[profile name]`.
fn parse(text: &str, prefix: &str, sections: &mut HashMap<String, Section>) {
    let mut current: Option<String> = None;
    for line in text.lines() {
        let is_nested = line.starts_with([' ', '\t']);
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(head) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            let head = head.trim();
            let name = head.strip_prefix(prefix).map(str::trim).or((head == "default").then_some(head));
            current = name.map(str::to_owned);
            continue;
        }
        // Settings of a setting, which are indented, are other tools'.
        if let (Some(name), Some((key, value)), false) = (&current, line.split_once('='), is_nested) {
            let value = value.trim();
            if !value.is_empty() {
                let section = sections.entry(name.clone()).or_default();
                section.insert(key.trim().to_ascii_lowercase(), value.to_owned());
            }
        }
    }
    // A section that is empty is there all the same.
    for head in text.lines().filter_map(|line| line.trim().strip_prefix('[')?.split(']').next()) {
        if let Some(name) = head.trim().strip_prefix(prefix) {
            sections.entry(name.trim().to_owned()).or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_are_read_and_the_credentials_file_wins() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".aws")).unwrap();
        std::fs::write(
            dir.path().join(".aws/config"),
            "# a comment\n[default]\nregion = r\naws_access_key_id = config\n[profile a b]\nrole_arn=arn\n\
             s3 =\n  addressing_style = path\n[sso-session s]\nrole_arn = no\n[profile empty]\n",
        )
        .unwrap();
        std::fs::write(
            dir.path().join(".aws/credentials"),
            "[default]\r\naws_access_key_id = A\r\nAWS_SECRET_ACCESS_KEY = x=y\r\n\n[other]\naws_access_key_id=O\n",
        )
        .unwrap();
        let profiles = Profiles::read(&HashMap::new(), Some(dir.path().to_owned()));
        let found = keys(&profiles.sections["default"]).unwrap();
        assert_eq!((found.access_key_id.as_str(), found.secret_access_key.as_str()), ("A", "x=y"));
        assert_eq!(profiles.sections["a b"]["role_arn"], "arn");
        assert_eq!(profiles.sections["a b"].get("addressing_style"), None);
        assert!(profiles.sections["empty"].is_empty() && keys(&profiles.sections["other"]).is_none());
        assert!(!profiles.sections.contains_key("sso-session s") && !profiles.sections.contains_key("s"));
    }
}
