//! The user's AWS files, as other tools read them.

use object_store::aws::AmazonS3ConfigKey;
use std::path::PathBuf;

/// What `~/.aws/credentials` and `~/.aws/config` say of a profile: the one named, else that of
/// the environment, else `default`. Nothing where there are no such files.
pub fn of_profile(named: Option<&str>) -> Vec<(AmazonS3ConfigKey, String)> {
    let var = |name: &str| std::env::var(name).ok();
    let home = || var("HOME").map(|home| PathBuf::from(home).join(".aws"));
    let file = |name: &str, base: &str| {
        var(name).map(PathBuf::from).or_else(|| home().map(|home| home.join(base)))
    };
    let profile = named.map(str::to_owned).or_else(|| var("AWS_PROFILE"));
    let profile = profile.unwrap_or_else(|| "default".into());
    let mut found = Vec::new();
    let files = [
        (file("AWS_CONFIG_FILE", "config"), format!("profile {profile}")),
        (file("AWS_SHARED_CREDENTIALS_FILE", "credentials"), profile.clone()),
    ];
    for (path, section) in files {
        let Some(text) = path.and_then(|path| std::fs::read_to_string(path).ok()) else { continue };
        found.extend(read(&text, &section, &profile));
    }
    found
}

fn read(text: &str, section: &str, profile: &str) -> Vec<(AmazonS3ConfigKey, String)> {
    let mut within = false;
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            within = name == section || name == profile;
            continue;
        }
        let Some((name, value)) = line.split_once('=').filter(|_| within) else { continue };
        let key = match name.trim() {
            "aws_access_key_id" => AmazonS3ConfigKey::AccessKeyId,
            "aws_secret_access_key" => AmazonS3ConfigKey::SecretAccessKey,
            "aws_session_token" => AmazonS3ConfigKey::Token,
            "region" => AmazonS3ConfigKey::Region,
            "endpoint_url" => AmazonS3ConfigKey::Endpoint,
            _ => continue,
        };
        found.push((key, value.trim().to_owned()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read_by_its_section() {
        let text = "[default]\naws_access_key_id = A\n[work]\naws_access_key_id=B\nregion = eu\n";
        let found = read(text, "work", "work");
        assert_eq!(
            found,
            [
                (AmazonS3ConfigKey::AccessKeyId, "B".into()),
                (AmazonS3ConfigKey::Region, "eu".into())
            ]
        );
    }
}
