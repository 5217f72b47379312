//! The raw credentials from files and from a plugin's output.

use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::header::HeaderValue;

use super::super::connection::{BasicCredentials, ConfigError, ConnectionConfig, Source, TokenSource};
use super::super::tls;
use super::exec_credential::IssuedCredentials;
use super::files;

/// The configuration and the credentials that were in use before.
type Previous<'a> = Option<(&'a ConnectionConfig, &'a Material)>;

/// A client certificate and its key, as PEM.
pub type CertificateAndKey = (Vec<u8>, Vec<u8>);

/// The credentials from the files and from the plugin.
#[derive(PartialEq, Eq)]
pub struct Material {
    pub tls: TlsMaterial,
    pub authorization: Option<HeaderValue>,
}

/// The certificates that TLS connections need, as PEM.
#[derive(PartialEq, Eq)]
pub struct TlsMaterial {
    pub authority: Option<Vec<u8>>,
    pub certificate: Option<CertificateAndKey>,
}

impl Material {
    /// Reads the files that the configuration names. If a credential cannot be used, perhaps because its file is only
    /// half written, uses the previous one from the same source instead, and also returns the first such error. A
    /// certificate and its key count as one credential.
    ///
    /// # Errors
    /// Fails if a credential cannot be used and there is no previous one from the same source, or if a password or an
    /// issued token cannot be sent in a header.
    pub fn read(
        config: &ConnectionConfig,
        issued: Option<&IssuedCredentials>,
        previous: Previous<'_>,
    ) -> Result<(Self, Option<ConfigError>), ConfigError> {
        let mut failure = None;
        let certificate = read_certificate(config, issued, previous, &mut failure)?;
        let authority = read_authority(config, previous, &mut failure)?;
        let authorization = read_authorization(config, issued, previous, &mut failure)?;
        Ok((Self { tls: TlsMaterial { authority, certificate }, authorization }, failure))
    }
}

/// Returns the client certificate and its key, from the plugin or from files.
fn read_certificate(
    config: &ConnectionConfig,
    issued: Option<&IssuedCredentials>,
    previous: Previous<'_>,
    failure: &mut Option<ConfigError>,
) -> Result<Option<CertificateAndKey>, ConfigError> {
    if let Some(issued) = issued.and_then(|issued| issued.certificate.clone()) {
        return Ok(Some((issued.certificate.into_bytes(), issued.key.into_bytes())));
    }
    let Some(files) = &config.user.certificate else { return Ok(None) };
    let fields = [(tls::CLIENT_CERTIFICATE, &files.certificate), (tls::CLIENT_KEY, &files.key)];
    let [certificate, key] = fields.map(|(field, source)| read(field, source));
    let pair = certificate.and_then(|certificate| Ok((certificate, key?)));
    let pair = pair.and_then(|(certificate, key)| {
        if config.has_tls() {
            tls::check_certificate(&certificate, &key).map_err(|error| located(error, &fields))?;
        }
        Ok((certificate, key))
    });
    let earlier = previous.filter(|(previous_config, _)| previous_config.user.certificate == config.user.certificate);
    let earlier = earlier.and_then(|(_, material)| material.tls.certificate.clone());
    or_previous(pair, earlier, failure).map(Some)
}

/// Returns the trusted certificate authorities, if the configuration names them.
fn read_authority(
    config: &ConnectionConfig,
    previous: Previous<'_>,
    failure: &mut Option<ConfigError>,
) -> Result<Option<Vec<u8>>, ConfigError> {
    let Some(source) = &config.tls.authority else { return Ok(None) };
    let field = (tls::CERTIFICATE_AUTHORITY, source);
    let pem = read(tls::CERTIFICATE_AUTHORITY, source).and_then(|pem| {
        if config.has_tls() {
            tls::check_authority(&pem).map_err(|error| located(error, &[field]))?;
        }
        Ok(pem)
    });
    let earlier = previous.filter(|(previous_config, _)| previous_config.tls.authority == config.tls.authority);
    let earlier = earlier.and_then(|(_, material)| material.tls.authority.clone());
    or_previous(pem, earlier, failure).map(Some)
}

/// Returns the value of the `Authorization` header, if the user has a token or a password.
fn read_authorization(
    config: &ConnectionConfig,
    issued: Option<&IssuedCredentials>,
    previous: Previous<'_>,
    failure: &mut Option<ConfigError>,
) -> Result<Option<HeaderValue>, ConfigError> {
    let user = &config.user;
    match (&user.token, &user.basic, issued.and_then(|issued| issued.token.as_ref())) {
        (Some(source), ..) => {
            let header = token(source).and_then(|token| bearer(&token, &source.to_string()));
            let earlier = previous.filter(|(previous_config, _)| previous_config.user.token == user.token);
            let earlier = earlier.and_then(|(_, material)| material.authorization.clone());
            or_previous(header, earlier, failure).map(Some)
        }
        (None, Some(basic), _) => basic_authorization(basic).map(Some),
        (None, None, Some(issued_token)) => bearer(issued_token, "the token").map(Some),
        (None, None, None) => Ok(None),
    }
}

/// Returns what was read. If it cannot be used, returns `earlier`, if there is one, and stores the error in `failure`,
/// unless `failure` already contains one.
fn or_previous<T>(
    read: Result<T, ConfigError>,
    earlier: Option<T>,
    failure: &mut Option<ConfigError>,
) -> Result<T, ConfigError> {
    match (read, earlier) {
        (Err(error), Some(earlier)) => {
            failure.get_or_insert(error);
            Ok(earlier)
        }
        (read, _) => read,
    }
}

/// Returns the files that contain the configuration and its credentials.
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

fn read(field: &str, source: &Source) -> Result<Vec<u8>, ConfigError> {
    source.read().map_err(|failure| ConfigError::new(named(field, source), failure))
}

/// Returns the name of a field in the kubeconfig, followed by its file, or with `-data` appended.
fn named(field: &str, source: &Source) -> String {
    match source {
        Source::File(path) => format!("{field} {}", path.display()),
        Source::Data(_) => format!("{field}-data"),
    }
}

/// Names the file, or the `-data` field, in an error about one of these fields.
fn located(error: ConfigError, fields: &[(&str, &Source)]) -> ConfigError {
    match fields.iter().find(|(field, _)| *field == error.subject) {
        Some((field, source)) => ConfigError::new(named(field, source), error.reason),
        None => error,
    }
}

fn token(TokenSource { file, fixed }: &TokenSource) -> Result<String, ConfigError> {
    let Some(path) = file else { return Ok(fixed.clone().unwrap_or_default()) };
    let contents = files::read(path).map(|contents| String::from_utf8_lossy(&contents).trim().to_owned());
    match (contents, fixed) {
        (Ok(token), _) if !token.is_empty() => Ok(token),
        (_, Some(fixed)) => Ok(fixed.clone()),
        (Ok(_), None) => Err(ConfigError::new(format_args!("the token file {}", path.display()), "it is empty")),
        (Err(failure), None) => Err(ConfigError::new(format_args!("the token file {}", path.display()), failure)),
    }
}

fn bearer(token: &str, source: &str) -> Result<HeaderValue, ConfigError> {
    sensitive_header(&format!("Bearer {token}"))
        .ok_or_else(|| ConfigError::new(source, "it contains characters that a token cannot contain; remove them"))
}

fn basic_authorization(BasicCredentials { username, password }: &BasicCredentials) -> Result<HeaderValue, ConfigError> {
    let encoded = BASE64_STANDARD.encode(format!("{username}:{password}"));
    sensitive_header(&format!("Basic {encoded}"))
        .ok_or_else(|| ConfigError::new("the user name and the password", "they cannot be sent in a header"))
}

/// Returns the value of a header, marked as sensitive; `None` if it contains a character that a header cannot contain.
fn sensitive_header(value: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(value).ok()?;
    header.set_sensitive(true);
    Some(header)
}
