//! The raw credentials: the contents of files, and the output of a plugin.

use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::header::HeaderValue;

use super::super::connection::{BasicCredentials, ConfigError, ConnectionConfig, Source, TokenSource};
use super::super::tls;
use super::exec_credential::IssuedCredentials;
use super::files;

/// Everything that was read. Two instances are equal if nothing has changed.
#[derive(PartialEq, Eq)]
pub struct Material {
    pub tls: TlsMaterial,
    pub authorization: Option<HeaderValue>,
}

/// The part that connections need, as PEM.
#[derive(PartialEq, Eq)]
pub struct TlsMaterial {
    pub authority: Option<Vec<u8>>,
    /// The client certificate and its key.
    pub certificate: Option<(Vec<u8>, Vec<u8>)>,
}

impl Material {
    /// Reads the files that the configuration names. What cannot be used, perhaps because it is only half written, and was
    /// read before, is taken from the previous contents; then the reason is returned as well.
    ///
    /// # Errors
    /// Fails if a file cannot be read or contains nothing that can be used.
    pub fn read(
        config: &ConnectionConfig,
        issued: Option<&IssuedCredentials>,
        previous: Option<(&ConnectionConfig, &Self)>,
    ) -> Result<(Self, Option<ConfigError>), ConfigError> {
        let (user, is_tls, mut unread) = (&config.user, config.has_tls(), None);
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
                Some(or_before(pair, before, &mut unread)?)
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
            or_before(pem, before, &mut unread)
        });
        let authority = authority.transpose()?;
        let authorization = match (&user.token, &user.basic, issued.and_then(|issued| issued.token.as_ref())) {
            (Some(source), ..) => {
                let before = previous.filter(|(before, _)| before.user.token == user.token);
                let before = before.and_then(|(_, before)| before.authorization.clone());
                let token = token(source).and_then(|token| bearer(&token, &source.to_string()));
                Some(or_before(token, before, &mut unread)?)
            }
            (None, Some(basic), _) => Some(basic_authorization(basic)?),
            (None, None, Some(issued)) => Some(bearer(issued, "the token")?),
            (None, None, None) => None,
        };
        Ok((Self { tls: TlsMaterial { authority, certificate }, authorization }, unread))
    }
}

/// Returns what was read, or else the contents from before, and notes the first error.
fn or_before<T>(
    read: Result<T, ConfigError>,
    before: Option<T>,
    unread: &mut Option<ConfigError>,
) -> Result<T, ConfigError> {
    match (read, before) {
        (Err(error), Some(before)) => {
            unread.get_or_insert(error);
            Ok(before)
        }
        (read, _) => read,
    }
}

/// Returns the files that the configuration consists of.
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
        (Ok(_), None) => Err(ConfigError::new(path.display(), "the file has no token in it")),
        (Err(failure), None) => Err(ConfigError::new(path.display(), failure)),
    }
}

fn bearer(token: &str, place: &str) -> Result<HeaderValue, ConfigError> {
    secret(&format!("Bearer {token}"))
        .ok_or_else(|| ConfigError::new(place, "it contains characters that no token has; remove them"))
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
