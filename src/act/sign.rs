//! Signatures of what is posted: HMAC-SHA256 over `id.timestamp.body`, as Standard Webhooks has it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::model::Timestamp;

/// A secret file larger than this is surely not meant.
const SECRET_BYTES_MAX: usize = 16 * 1024;
/// No more signatures of one message are looked at: one for each key of a rotation.
const SIGNATURES_MAX: usize = 8;

/// Signs bodies with keys from files. The files are read for each signature, so that a changed key counts at once
/// and no key stays in memory; keys appear in no message.
#[derive(Debug, Clone, Default)]
pub struct Signer {
    files: Vec<PathBuf>,
}

impl Signer {
    /// A signer with these key files, one signature for each; none: nothing is signed.
    ///
    /// A file holds the key itself, or `whsec_` and the key in base64; white space at its end does not count.
    pub fn new(files: Vec<PathBuf>) -> Signer {
        Signer { files }
    }

    /// The headers `webhook-id`, `webhook-timestamp` (seconds) and, where there are keys, `webhook-signature`.
    ///
    /// # Errors
    /// Where a key file cannot be read or holds no key; names the file.
    pub async fn headers(
        &self,
        id: &str,
        now: Timestamp,
        body: &[u8],
    ) -> Result<Vec<(&'static str, String)>, SignError> {
        let seconds = now.0.div_euclid(1000).to_string();
        let mut signatures = String::new();
        for file in &self.files {
            let key = read_key(file).await?;
            if !signatures.is_empty() {
                signatures.push(' ');
            }
            let _ = write!(signatures, "v1,{}", BASE64.encode(signature(&key, id, &seconds, body)));
        }
        let mut headers = vec![("webhook-id", id.to_owned()), ("webhook-timestamp", seconds)];
        if !signatures.is_empty() {
            headers.push(("webhook-signature", signatures));
        }
        Ok(headers)
    }

    /// Whether one of the signatures (`v1,…`, separated by spaces) is of one of the keys; never where there is no key.
    ///
    /// # Errors
    /// Where a key file cannot be read or holds no key; names the file.
    pub async fn verifies(&self, id: &str, seconds: &str, signatures: &str, body: &[u8]) -> Result<bool, SignError> {
        let given: Vec<Vec<u8>> = signatures
            .split(' ')
            .filter_map(|one| BASE64.decode(one.strip_prefix("v1,")?).ok())
            .take(SIGNATURES_MAX)
            .collect();
        for file in &self.files {
            let key = read_key(file).await?;
            if given.iter().any(|one| mac_of(&key, id, seconds, body).verify_slice(one).is_ok()) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A key file that is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("secret file {}: {reason}", file.display())]
pub struct SignError {
    file: PathBuf,
    reason: String,
}

/// Reads a secret (an HMAC key, a bearer token) from its file, without the white space at its end.
pub(crate) async fn read_secret(file: &Path) -> Result<String, SignError> {
    let wrong = |reason: String| SignError { file: file.to_owned(), reason };
    let text = tokio::fs::read(file).await.map_err(|error| wrong(error.kind().to_string()))?;
    if text.len() > SECRET_BYTES_MAX {
        return Err(wrong(format!("{} bytes; at most {SECRET_BYTES_MAX} are expected", text.len())));
    }
    let text = String::from_utf8(text).map_err(|_| wrong("is not text".to_owned()))?;
    let text = text.trim_end();
    if text.is_empty() { Err(wrong("is empty".to_owned())) } else { Ok(text.to_owned()) }
}

async fn read_key(file: &Path) -> Result<Vec<u8>, SignError> {
    let secret = read_secret(file).await?;
    let Some(encoded) = secret.strip_prefix("whsec_") else { return Ok(secret.into_bytes()) };
    let wrong = |_| SignError { file: file.to_owned(), reason: "what follows `whsec_` is not base64".to_owned() };
    BASE64.decode(encoded).map_err(wrong)
}

fn signature(key: &[u8], id: &str, seconds: &str, body: &[u8]) -> Vec<u8> {
    mac_of(key, id, seconds, body).finalize().into_bytes().to_vec()
}

fn mac_of(key: &[u8], id: &str, seconds: &str, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in [id.as_bytes(), b".", seconds.as_bytes(), b".", body] {
        mac.update(part);
    }
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(secret: &[u8], wanted: Result<&str, &str>) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("key");
        std::fs::write(&file, secret).expect("the file can be written");
        let headers = Signer::new(vec![file]).headers("msg_1", Timestamp(1_700_000_000_999), b"{}").await;
        match (headers, wanted) {
            (Ok(headers), Ok(wanted)) => {
                assert_eq!(headers[1], ("webhook-timestamp", "1700000000".to_owned()));
                assert_eq!(headers[2], ("webhook-signature", wanted.to_owned()));
            }
            (Err(error), Err(wanted)) => assert!(error.to_string().contains(wanted), "{error}"),
            (headers, wanted) => panic!("{headers:?} instead of {wanted:?}"),
        }
    }

    #[tokio::test]
    async fn signs_id_time_and_body_with_the_key_in_the_file() {
        // printf 'msg_1.1700000000.{}' | openssl dgst -sha256 -hmac secret -binary | base64
        let by_openssl = "v1,A5oIrJxXPB/PkULSoVu0e4khvPiqpF9vljmhkSKg0FI=";
        check(b"secret", Ok(by_openssl)).await;
        check(b"secret\n", Ok(by_openssl)).await;
        check(b"whsec_c2VjcmV0\r\n", Ok(by_openssl)).await;
    }

    #[tokio::test]
    async fn signs_as_the_test_vector_of_standard_webhooks_has_it() {
        // github.com/standard-webhooks/standard-webhooks, the test of its reference libraries.
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("key");
        std::fs::write(&file, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("the file can be written");
        let at = Timestamp(1_614_265_330_000);
        let body = br#"{"test": 2432232314}"#;
        let headers = Signer::new(vec![file]).headers("msg_p5jXN8AQM9LWM0D4loKWxJek", at, body).await;
        let headers = headers.expect("the key can be read");
        assert_eq!(headers[2].1, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[tokio::test]
    async fn refuses_a_file_without_a_key() {
        check(b"\n", Err("is empty")).await;
        check(b"whsec_%%", Err("not base64")).await;
        check(&[0xff], Err("is not text")).await;
        check(&[b'a'; 20_000], Err("at most 16384")).await;
        let gone = Signer::new(vec!["/nowhere/key".into()]).headers("a", Timestamp(0), b"").await;
        assert!(gone.expect_err("the file is not there").to_string().contains("/nowhere/key"));
    }

    #[tokio::test]
    async fn signs_once_for_each_key_and_not_at_all_without_one() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let files: Vec<_> = ["new", "old"].iter().map(|name| folder.path().join(name)).collect();
        for file in &files {
            std::fs::write(file, file.to_string_lossy().as_bytes()).expect("the file can be written");
        }
        let headers = Signer::new(files).headers("a", Timestamp(0), b"").await.expect("both keys can be read");
        let signatures: Vec<_> = headers[2].1.split(' ').collect();
        assert!(signatures.len() == 2 && signatures[0] != signatures[1] && signatures[1].starts_with("v1,"));
        let headers = Signer::default().headers("a", Timestamp(0), b"").await.expect("nothing to read");
        assert_eq!(headers.len(), 2);
    }
}
