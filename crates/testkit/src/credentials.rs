//! Credentials that a test issues to a user and can revoke, as a cluster does when it rotates credentials. The
//! in-process API server refuses revoked credentials with 401.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard};

use hyper::header::{HeaderMap, HeaderValue};
use rcgen::{Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose};
use uuid::Uuid;

use crate::tls;
use crate::users::User;

/// The header in which the fault proxy passes the fingerprint of the client's certificate to the API server. If a
/// client connects directly, the API server sets the header itself.
const FINGERPRINT_HEADER: &str = "x-forwarded-client-certificate";

/// The user of each valid token.
static TOKENS: Mutex<BTreeMap<String, User>> = Mutex::new(BTreeMap::new());

/// The user of each valid client certificate, by the certificate's fingerprint.
static CERTIFICATES: Mutex<BTreeMap<String, User>> = Mutex::new(BTreeMap::new());

/// A client certificate with its key, both as PEM.
pub struct ClientCertificate {
    pub certificate: String,
    pub key: String,
    fingerprint: String,
}

/// Issues a token to a user.
pub fn issue_token(user: User) -> String {
    let token = Uuid::new_v4().to_string();
    lock(&TOKENS).insert(token.clone(), user);
    token
}

/// Revokes a token.
pub fn revoke_token(token: &str) {
    lock(&TOKENS).remove(token);
}

/// Issues a client certificate to a user.
pub fn issue_certificate(user: User) -> ClientCertificate {
    let (certificate, key) = tls::sign(certificate_for(user));
    register(user, &certificate, certificate.pem(), key)
}

/// Issues a client certificate that is signed by an intermediate authority. The PEM text contains the certificates of
/// both.
pub fn issue_certificate_chain(user: User) -> ClientCertificate {
    let (certificate, key, authority) = tls::sign_by_intermediate(certificate_for(user));
    register(user, &certificate, certificate.pem() + &authority, key)
}

fn certificate_for(user: User) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, user.name);
    user.groups.iter().for_each(|group| params.distinguished_name.push(DnType::OrganizationName, *group));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn register(user: User, issued: &Certificate, certificate: String, key: String) -> ClientCertificate {
    let fingerprint = fingerprint(issued.der());
    lock(&CERTIFICATES).insert(fingerprint.clone(), user);
    ClientCertificate { certificate, key, fingerprint }
}

/// Revokes a client certificate.
pub fn revoke_certificate(certificate: &ClientCertificate) {
    lock(&CERTIFICATES).remove(&certificate.fingerprint);
}

/// Returns the user of a token.
pub(crate) fn user_of_token(token: &str) -> Option<User> {
    lock(&TOKENS).get(token).copied()
}

/// Returns the user of the certificate that came with a request.
pub(crate) fn user_of_certificate(headers: &HeaderMap) -> Option<User> {
    lock(&CERTIFICATES).get(headers.get(FINGERPRINT_HEADER)?.to_str().ok()?).copied()
}

/// Adds the fingerprint of the client's certificate, given as DER, to the headers of a request.
pub(crate) fn add_fingerprint(headers: &mut HeaderMap, certificate: Option<&[u8]>) {
    if let Some(certificate) = certificate {
        let fingerprint =
            HeaderValue::try_from(fingerprint(certificate)).expect("hexadecimal digits are a valid header value");
        headers.insert(FINGERPRINT_HEADER, fingerprint);
    }
}

fn fingerprint(der: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    der.hash(&mut hasher);
    format!("{:x}", hasher.finish())
}

fn lock<T>(map: &'static Mutex<T>) -> MutexGuard<'static, T> {
    map.lock().expect("no thread panics while it holds this lock")
}
