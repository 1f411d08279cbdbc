//! The store behind a location.

use crate::{IoError, Location, credentials};
use object_store::ObjectStore;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

/// Options by name: those of fsspec (`key`, `secret`, `token`, `anon`, `endpoint_url`, `region`,
/// `profile`) and those of the clouds' own tools (`aws_access_key_id`, `azure_storage_…`).
pub type StoreOptions = BTreeMap<String, String>;

const S3_KNOWN: &str = "key, secret, token, anon, endpoint_url, region, profile and aws_…";

/// Opens the store of a location.
///
/// # Errors
///
/// [`IoError::Scheme`] for schemes that are not supported, [`IoError::Option`] for options that
/// are not known, [`IoError::Unreachable`] for settings that cannot work.
pub fn open(at: &Location, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>, IoError> {
    let unreachable = |error: object_store::Error| IoError::Unreachable {
        place: at.text.clone(),
        reason: error.to_string(),
    };
    match at.url.scheme() {
        "file" => Ok(Arc::new(LocalFileSystem::new())),
        "s3" | "s3a" => Ok(Arc::new(s3(at, options)?.build().map_err(unreachable)?)),
        "gs" | "gcs" => Ok(Arc::new(gcs(at, options)?.build().map_err(unreachable)?)),
        "az" | "abfs" | "abfss" | "adl" | "azure" => {
            Ok(Arc::new(azure(at, options)?.build().map_err(unreachable)?))
        }
        "http" | "https" => {
            let origin = at.url.origin().ascii_serialization();
            let client = object_store::ClientOptions::new().with_allow_http(true);
            let store = HttpBuilder::new().with_url(origin).with_client_options(client).build();
            Ok(Arc::new(store.map_err(unreachable)?))
        }
        "hdfs" => hdfs(at),
        other => Err(IoError::Scheme { scheme: other.to_owned(), hint: "" }),
    }
}

fn s3(at: &Location, options: &StoreOptions) -> Result<AmazonS3Builder, IoError> {
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(at.url.host_str().unwrap_or(""));
    let profile = options.get("profile").cloned();
    for (key, value) in credentials::of_profile(profile.as_deref()) {
        // What the environment says goes first, unless a profile was asked for.
        if profile.is_some() || builder.get_config_value(&key).is_none() {
            builder = builder.with_config(key, value);
        }
    }
    let mut endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
    for (name, value) in options {
        builder = match name.as_str() {
            "profile" => builder,
            "key" => builder.with_access_key_id(value),
            "secret" => builder.with_secret_access_key(value),
            "token" => builder.with_token(value),
            "anon" => builder.with_skip_signature(is_true(value)),
            "region" | "region_name" => builder.with_region(value),
            "endpoint_url" | "endpoint" => {
                endpoint = Some(value.clone());
                builder.with_endpoint(value)
            }
            other => match AmazonS3ConfigKey::from_str(other) {
                Ok(key) => builder.with_config(key, value),
                Err(_) => return Err(unknown("s3", other, S3_KNOWN)),
            },
        };
    }
    let is_plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    Ok(if is_plain { builder.with_allow_http(true) } else { builder })
}

fn gcs(at: &Location, options: &StoreOptions) -> Result<GoogleCloudStorageBuilder, IoError> {
    let bucket = at.url.host_str().unwrap_or("");
    let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket);
    for (name, value) in options {
        builder = match name.as_str() {
            "token" if value == "anon" => builder.with_skip_signature(true),
            "token" => builder.with_service_account_path(value),
            "anon" => builder.with_skip_signature(is_true(value)),
            other => match GoogleConfigKey::from_str(other) {
                Ok(key) => builder.with_config(key, value),
                Err(_) => return Err(unknown("gs", other, "token, anon and google_…")),
            },
        };
    }
    Ok(builder)
}

fn azure(at: &Location, options: &StoreOptions) -> Result<MicrosoftAzureBuilder, IoError> {
    let mut builder = MicrosoftAzureBuilder::from_env().with_url(at.url.as_str());
    for (name, value) in options {
        builder = match name.as_str() {
            "account_name" => builder.with_account(value),
            "account_key" => builder.with_access_key(value),
            "anon" => builder.with_skip_signature(is_true(value)),
            other => match AzureConfigKey::from_str(other) {
                Ok(key) => builder.with_config(key, value),
                Err(_) => {
                    return Err(unknown("az", other, "account_name, account_key, azure_…"));
                }
            },
        };
    }
    Ok(builder)
}

#[cfg(feature = "hdfs")]
fn hdfs(at: &Location) -> Result<Arc<dyn ObjectStore>, IoError> {
    let host = at.url.host_str().unwrap_or("");
    let url = match at.url.port() {
        Some(port) => format!("hdfs://{host}:{port}"),
        None => format!("hdfs://{host}"),
    };
    let store = hdfs_native_object_store::HdfsObjectStoreBuilder::new().with_url(&url).build();
    store.map(|store| Arc::new(store) as _).map_err(|error| IoError::of(&at.text, error))
}

#[cfg(not(feature = "hdfs"))]
fn hdfs(_: &Location) -> Result<Arc<dyn ObjectStore>, IoError> {
    let hint = " in this build, which was made without the feature `hdfs`";
    Err(IoError::Scheme { scheme: "hdfs".into(), hint })
}

fn unknown(scheme: &str, name: &str, known: &'static str) -> IoError {
    IoError::Option { scheme: scheme.to_owned(), name: name.to_owned(), known }
}

fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "true" | "1" | "yes")
}
