//! ECDSA signatures that ring does not verify: those of P-521 keys, and those of P-256 and P-384 keys with SHA-512.

use std::fmt;

use rustls::pki_types::alg_id::{ECDSA_P256, ECDSA_P384, ECDSA_P521, ECDSA_SHA256, ECDSA_SHA384, ECDSA_SHA512};
use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};
use sha2::{Digest, Sha256, Sha384, Sha512};

type VerifyDigest = fn(public_key: &[u8], digest: &[u8], signature: &[u8]) -> Result<(), InvalidSignature>;

/// Expands to a function that verifies the signature of a digest. The digest must be at least half as long as the
/// scalars of the curve.
macro_rules! digest_verifier {
    ($curve:ident) => {
        |public_key, digest, signature| {
            use $curve::ecdsa::signature::hazmat::PrehashVerifier;
            let key = $curve::ecdsa::VerifyingKey::from_sec1_bytes(public_key).map_err(|_| InvalidSignature)?;
            let signature = $curve::ecdsa::DerSignature::from_bytes(signature).map_err(|_| InvalidSignature)?;
            key.verify_prehash(digest, &signature).map_err(|_| InvalidSignature)
        }
    };
}

const VERIFY_P256: VerifyDigest = digest_verifier!(p256);
const VERIFY_P384: VerifyDigest = digest_verifier!(p384);
const VERIFY_P521: VerifyDigest = |public_key, digest, signature| {
    /// The length of a scalar in bytes.
    const SIZE: usize = 66;
    let verify: VerifyDigest = digest_verifier!(p521);
    // p521 refuses short digests, so the digest is padded. Leading zeros do not change the integer that ECDSA derives
    // from it.
    let mut padded = vec![0; SIZE - digest.len()];
    padded.extend(digest);
    verify(public_key, &padded, signature)
};

pub static ECDSA_P256_SHA512: &dyn SignatureVerificationAlgorithm = &EcdsaAlgorithm {
    verify: VERIFY_P256,
    hash: sha512,
    public_key_algorithm: ECDSA_P256,
    signature_algorithm: ECDSA_SHA512,
};
pub static ECDSA_P384_SHA512: &dyn SignatureVerificationAlgorithm = &EcdsaAlgorithm {
    verify: VERIFY_P384,
    hash: sha512,
    public_key_algorithm: ECDSA_P384,
    signature_algorithm: ECDSA_SHA512,
};
pub static ECDSA_P521_SHA256: &dyn SignatureVerificationAlgorithm = &EcdsaAlgorithm {
    verify: VERIFY_P521,
    hash: sha256,
    public_key_algorithm: ECDSA_P521,
    signature_algorithm: ECDSA_SHA256,
};
pub static ECDSA_P521_SHA384: &dyn SignatureVerificationAlgorithm = &EcdsaAlgorithm {
    verify: VERIFY_P521,
    hash: sha384,
    public_key_algorithm: ECDSA_P521,
    signature_algorithm: ECDSA_SHA384,
};
pub static ECDSA_P521_SHA512: &dyn SignatureVerificationAlgorithm = &EcdsaAlgorithm {
    verify: VERIFY_P521,
    hash: sha512,
    public_key_algorithm: ECDSA_P521,
    signature_algorithm: ECDSA_SHA512,
};

fn sha256(message: &[u8]) -> Vec<u8> {
    Sha256::digest(message).to_vec()
}

fn sha384(message: &[u8]) -> Vec<u8> {
    Sha384::digest(message).to_vec()
}

fn sha512(message: &[u8]) -> Vec<u8> {
    Sha512::digest(message).to_vec()
}

struct EcdsaAlgorithm {
    verify: VerifyDigest,
    hash: fn(&[u8]) -> Vec<u8>,
    public_key_algorithm: AlgorithmIdentifier,
    signature_algorithm: AlgorithmIdentifier,
}

impl SignatureVerificationAlgorithm for EcdsaAlgorithm {
    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        (self.verify)(public_key, &(self.hash)(message), signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.public_key_algorithm
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.signature_algorithm
    }
}

impl fmt::Debug for EcdsaAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { public_key_algorithm, signature_algorithm, .. } = self;
        f.debug_struct("EcdsaAlgorithm")
            .field("public_key_algorithm", public_key_algorithm)
            .field("signature_algorithm", signature_algorithm)
            .finish_non_exhaustive()
    }
}
