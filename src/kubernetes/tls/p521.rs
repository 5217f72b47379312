//! Client keys and the key exchange on the curve P-521, which ring does not support. The key exchange is also needed
//! for servers with a P-521 key: in TLS 1.2, a server may only use a key on a curve that the client offers for the key
//! exchange.

use std::fmt;
use std::sync::Arc;

use p521::PublicKey;
use p521::SecretKey;
use p521::ecdh::EphemeralSecret;
use p521::ecdsa::signature::Signer as _;
use p521::ecdsa::{DerSignature, SigningKey as EcdsaKey};
use p521::elliptic_curve::Generate;
use p521::elliptic_curve::sec1::ToSec1Point;
use p521::pkcs8::EncodePublicKey;
use rustls::crypto::{ActiveKeyExchange, SharedSecret, SupportedKxGroup};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::sign::{Signer, SigningKey};
use rustls::{Error, NamedGroup, PeerMisbehaved, SignatureAlgorithm, SignatureScheme};

/// The P-521 key of a client certificate.
pub struct ClientKey {
    key: Arc<EcdsaKey>,
    public_key: Vec<u8>,
}

impl ClientKey {
    /// Parses a private key in PKCS#8 or SEC 1 format. Returns `None` if it is not a P-521 key.
    pub fn parse(der: &[u8]) -> Option<Self> {
        let key = SecretKey::from_der(der).ok()?;
        let public_key = key.public_key().to_public_key_der().ok()?.into_vec();
        Some(Self { key: Arc::new(key.into()), public_key })
    }
}

impl SigningKey for ClientKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let is_offered = offered.contains(&SignatureScheme::ECDSA_NISTP521_SHA512);
        is_offered.then(|| Box::new(ClientSigner(Arc::clone(&self.key))) as _)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(&self.public_key[..]))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientKey").finish_non_exhaustive()
    }
}

struct ClientSigner(Arc<EcdsaKey>);

impl Signer for ClientSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signature: DerSignature =
            self.0.try_sign(message).map_err(|failure| Error::General(failure.to_string()))?;
        Ok(signature.as_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP521_SHA512
    }
}

impl fmt::Debug for ClientSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSigner").finish_non_exhaustive()
    }
}

/// The key exchange on P-521.
#[derive(Debug)]
pub struct KeyExchange;

impl SupportedKxGroup for KeyExchange {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let secret = EphemeralSecret::try_generate().map_err(|_| Error::FailedToGetRandomBytes)?;
        let public_key = secret.public_key().to_sec1_point(false).as_bytes().to_vec();
        Ok(Box::new(StartedKeyExchange { secret, public_key }))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::secp521r1
    }
}

struct StartedKeyExchange {
    secret: EphemeralSecret,
    public_key: Vec<u8>,
}

impl ActiveKeyExchange for StartedKeyExchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let peer = PublicKey::from_sec1_bytes(peer).map_err(|_| PeerMisbehaved::InvalidKeyShare)?;
        Ok(SharedSecret::from(self.secret.diffie_hellman(&peer).raw_secret_bytes().as_slice()))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn pub_key(&self) -> &[u8] {
        &self.public_key
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::secp521r1
    }
}
