//! ECDSA signatures that ring does not verify: those of P-521 keys, and those of P-256 and P-384 keys with SHA-512.

use std::fmt;

use rustls::pki_types::alg_id::{ECDSA_P256, ECDSA_P384, ECDSA_P521, ECDSA_SHA256, ECDSA_SHA384, ECDSA_SHA512};
use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};
use sha2::{Digest, Sha256, Sha384, Sha512};

type Verify = fn(public_key: &[u8], digest: &[u8], signature: &[u8]) -> Result<(), InvalidSignature>;

/// Expands to a function that verifies the signature of a digest. The digest must be at least half as long as the
/// scalars of the curve.
macro_rules! verify {
    ($curve:ident) => {
        |public_key, digest, signature| {
            use $curve::ecdsa::signature::hazmat::PrehashVerifier;
            let key = $curve::ecdsa::VerifyingKey::from_sec1_bytes(public_key).map_err(|_| InvalidSignature)?;
            let signature = $curve::ecdsa::DerSignature::from_bytes(signature).map_err(|_| InvalidSignature)?;
            key.verify_prehash(digest, &signature).map_err(|_| InvalidSignature)
        }
    };
}

const P256: Verify = verify!(p256);
const P384: Verify = verify!(p384);
const P521: Verify = |public_key, digest, signature| {
    /// The length of a scalar in bytes.
    const SIZE: usize = 66;
    let verify: Verify = verify!(p521);
    // p521 refuses digests that are too short. Leading zeros do not change the number that is verified.
    let mut padded = vec![0; SIZE - digest.len()];
    padded.extend(digest);
    verify(public_key, &padded, signature)
};

pub static ECDSA_P256_SHA512: &dyn SignatureVerificationAlgorithm =
    &Verification { verify: P256, digest: sha512, public_key: ECDSA_P256, signature: ECDSA_SHA512 };
pub static ECDSA_P384_SHA512: &dyn SignatureVerificationAlgorithm =
    &Verification { verify: P384, digest: sha512, public_key: ECDSA_P384, signature: ECDSA_SHA512 };
pub static ECDSA_P521_SHA256: &dyn SignatureVerificationAlgorithm =
    &Verification { verify: P521, digest: sha256, public_key: ECDSA_P521, signature: ECDSA_SHA256 };
pub static ECDSA_P521_SHA384: &dyn SignatureVerificationAlgorithm =
    &Verification { verify: P521, digest: sha384, public_key: ECDSA_P521, signature: ECDSA_SHA384 };
pub static ECDSA_P521_SHA512: &dyn SignatureVerificationAlgorithm =
    &Verification { verify: P521, digest: sha512, public_key: ECDSA_P521, signature: ECDSA_SHA512 };

fn sha256(message: &[u8]) -> Vec<u8> {
    Sha256::digest(message).to_vec()
}

fn sha384(message: &[u8]) -> Vec<u8> {
    Sha384::digest(message).to_vec()
}

fn sha512(message: &[u8]) -> Vec<u8> {
    Sha512::digest(message).to_vec()
}

struct Verification {
    verify: Verify,
    digest: fn(&[u8]) -> Vec<u8>,
    public_key: AlgorithmIdentifier,
    signature: AlgorithmIdentifier,
}

impl SignatureVerificationAlgorithm for Verification {
    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        (self.verify)(public_key, &(self.digest)(message), signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.public_key
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.signature
    }
}

impl fmt::Debug for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { public_key, signature, .. } = self;
        f.debug_struct("Verification")
            .field("public_key", public_key)
            .field("signature", signature)
            .finish_non_exhaustive()
    }
}
