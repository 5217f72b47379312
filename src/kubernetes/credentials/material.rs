//! The raw credentials, from files and from the output of a plugin.

use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::header::HeaderValue;

use super::super::connection::{BasicCredentials, ConfigError, ConnectionConfig, Source, TokenSource};
use super::super::tls;
use super::exec_credential::IssuedCredentials;
use super::files;

/// All credentials that were read. Two values are equal if nothing has changed.
#[derive(PartialEq, Eq)]
pub struct Material {
    pub tls: TlsMaterial,
    pub authorization: Option<HeaderValue>,
}

/// The part of the credentials that connections need, as PEM.
#[derive(PartialEq, Eq)]
pub struct TlsMaterial {
    pub authority: Option<Vec<u8>>,
    /// The client certificate and its key.
    pub certificate: Option<(Vec<u8>, Vec<u8>)>,
}

impl Material {
    /// Reads the files that the configuration names. If a file cannot be used, perhaps because it is only half written,
    /// its previous contents are used, and the reason is returned too.
    ///
    /// # Errors
    /// Fails if a file cannot be used and has no previous contents.
    pub fn read(
        config: &ConnectionConfig,
        issued: Option<&IssuedCredentials>,
        previous: Option<(&ConnectionConfig, &Self)>,
    ) -> Result<(Self, Option<ConfigError>), ConfigError> {
        let (user, is_tls, mut failure) = (&config.user, config.has_tls(), None);
        let issued_certificate = issued.and_then(|issued| issued.certificate.clone());
        let certificate = match (issued_certificate, &user.certificate) {
            (Some(issued), _) => Some((issued.certificate.into_bytes(), issued.key.into_bytes())),
            (None, Some(files)) => {
                let before = previous.filter(|(before, _)| before.user.certificate == user.certificate);
                let before = before.and_then(|(_, before)| before.tls.certificate.clone());
                let pair = read(&files.certificate).and_then(|certificate| Ok((certificate, read(&files.key)?)));
                let pair = pair.and_then(|(certificate, key)| {
                    if is_tls {
                        let within = |error: ConfigError| error.within(&files.certificate);
                        tls::check_certificate(&certificate, &key).map_err(within)?;
                    }
                    Ok((certificate, key))
                });
                Some(or_previous(pair, before, &mut failure)?)
            }
            (None, None) => None,
        };
        let before = previous.filter(|(before, _)| before.tls.authority == config.tls.authority);
        let before = before.and_then(|(_, before)| before.tls.authority.clone());
        let authority = config.tls.authority.as_ref().map(|source| {
            let pem = read(source).and_then(|pem| {
                if is_tls {
                    tls::check_authority(&pem).map_err(|error| error.within(source))?;
                }
                Ok(pem)
            });
            or_previous(pem, before, &mut failure)
        });
        let authority = authority.transpose()?;
        let authorization = match (&user.token, &user.basic, issued.and_then(|issued| issued.token.as_ref())) {
            (Some(source), ..) => {
                let before = previous.filter(|(before, _)| before.user.token == user.token);
                let before = before.and_then(|(_, before)| before.authorization.clone());
                let token = token(source).and_then(|token| bearer(&token, &source.to_string()));
                Some(or_previous(token, before, &mut failure)?)
            }
            (None, Some(basic), _) => Some(basic_authorization(basic)?),
            (None, None, Some(issued)) => Some(bearer(issued, "the token")?),
            (None, None, None) => None,
        };
        Ok((Self { tls: TlsMaterial { authority, certificate }, authorization }, failure))
    }
}

/// Returns what was read. If reading failed, returns the previous contents and stores the first error in `failure`.
fn or_previous<T>(
    read: Result<T, ConfigError>,
    before: Option<T>,
    failure: &mut Option<ConfigError>,
) -> Result<T, ConfigError> {
    match (read, before) {
        (Err(error), Some(before)) => {
            failure.get_or_insert(error);
            Ok(before)
        }
        (read, _) => read,
    }
}

/// Returns all files that the configuration depends on.
pub fn files_of(config: &ConnectionConfig) -> Vec<PathBuf> {
    let certificate = config.user.certificate.as_ref();
    let sources = [
        config.tls.authority.as_ref(),
        certificate.map(|certificate| &certificate.certificate),
        certificate.map(|certificate| &certificate.key),
    ];
    let sources = sources.into_iter().flatten().filter_map(|source| match source {
        Source::File(path) => Some(path.clone()),
        Source::Data(_) => None,
    });
    let token = config.user.token.as_ref().and_then(|token| token.file.clone());
    config.origin.files().iter().cloned().chain(sources).chain(token).collect()
}

fn read(source: &Source) -> Result<Vec<u8>, ConfigError> {
    source.read().map_err(|failure| ConfigError::new(source, failure))
}

fn token(TokenSource { file, fixed }: &TokenSource) -> Result<String, ConfigError> {
    let Some(path) = file else { return Ok(fixed.clone().unwrap_or_default()) };
    let contents = files::read(path).map(|contents| String::from_utf8_lossy(&contents).trim().to_owned());
    match (contents, fixed) {
        (Ok(token), _) if !token.is_empty() => Ok(token),
        (_, Some(fixed)) => Ok(fixed.clone()),
        (Ok(_), None) => Err(ConfigError::new(path.display(), "the file contains no token")),
        (Err(failure), None) => Err(ConfigError::new(path.display(), failure)),
    }
}

fn bearer(token: &str, source: &str) -> Result<HeaderValue, ConfigError> {
    secret(&format!("Bearer {token}"))
        .ok_or_else(|| ConfigError::new(source, "it contains characters that a token cannot have; remove them"))
}

fn basic_authorization(BasicCredentials { username, password }: &BasicCredentials) -> Result<HeaderValue, ConfigError> {
    let encoded = BASE64_STANDARD.encode(format!("{username}:{password}"));
    secret(&format!("Basic {encoded}")).ok_or_else(|| ConfigError::new("the user name", "cannot be sent"))
}

/// Returns the value of a header, marked as secret.
fn secret(value: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(value).ok()?;
    header.set_sensitive(true);
    Some(header)
}
