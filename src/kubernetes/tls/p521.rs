//! ECDSA with P-521 keys, which ring does not have.

use std::fmt;
use std::sync::Arc;

use p521::SecretKey;
use p521::ecdsa::signature::Signer as _;
use p521::ecdsa::signature::hazmat::PrehashVerifier;
use p521::ecdsa::{DerSignature, SigningKey as EcdsaKey, VerifyingKey};
use p521::pkcs8::EncodePublicKey;
use rustls::pki_types::alg_id::{ECDSA_P521, ECDSA_SHA256, ECDSA_SHA384, ECDSA_SHA512};
use rustls::pki_types::{
    AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer,
};
use rustls::sign::{Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use sha2::{Digest, Sha256, Sha384, Sha512};

/// The bytes of a number of this curve.
const FIELD_SIZE: usize = 66;

pub static ECDSA_P521_SHA256: &dyn SignatureVerificationAlgorithm =
    &Verification { digest: |message| Sha256::digest(message).to_vec(), signature: ECDSA_SHA256 };
pub static ECDSA_P521_SHA384: &dyn SignatureVerificationAlgorithm =
    &Verification { digest: |message| Sha384::digest(message).to_vec(), signature: ECDSA_SHA384 };
pub static ECDSA_P521_SHA512: &dyn SignatureVerificationAlgorithm =
    &Verification { digest: |message| Sha512::digest(message).to_vec(), signature: ECDSA_SHA512 };

struct Verification {
    digest: fn(&[u8]) -> Vec<u8>,
    signature: AlgorithmIdentifier,
}

impl SignatureVerificationAlgorithm for Verification {
    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let key = VerifyingKey::from_sec1_bytes(public_key).map_err(|_| InvalidSignature)?;
        let signature = DerSignature::from_bytes(signature).map_err(|_| InvalidSignature)?;
        let digest = (self.digest)(message);
        // The number is the same with zeros in front, and a short one is refused.
        let mut padded = vec![0; FIELD_SIZE - digest.len()];
        padded.extend(digest);
        key.verify_prehash(&padded, &signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        ECDSA_P521
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.signature
    }
}

impl fmt::Debug for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verification").field("signature", &self.signature).finish_non_exhaustive()
    }
}

/// The key of a client certificate.
pub struct ClientKey {
    key: Arc<EcdsaKey>,
    public_key: Vec<u8>,
}

impl ClientKey {
    /// Parses a key as PKCS#8 or SEC 1, if it is one of this curve.
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
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let signature: DerSignature =
            self.0.try_sign(message).map_err(|failure| rustls::Error::General(failure.to_string()))?;
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
