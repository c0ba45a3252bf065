//! Hashes of text. What has few values can be found by trying, unless the hash is keyed.

use sha2::Digest;

use super::{Args, Function, Literals, Prepared, Takes, converter, needs};
use crate::{error::EvalError, text::hex, value::Value};

const TARGET: &[super::Parameter] = &[needs("target", Takes::Text)];

pub(super) const ALL: &[Function] = &[
    converter("FNV", TARGET, "int", "The 64-bit FNV-1a hash", |args| {
        let hash = args
            .text(0)?
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Ok(Value::Int(hash.cast_signed()))
    }),
    converter("MD5", TARGET, "string", "The MD5 hash, in hexadecimal", digest::<md5::Md5>),
    converter("Murmur3Hash", TARGET, "string", "The 32-bit MurmurHash3, in hexadecimal, lowest byte first", |args| {
        Ok(Value::text(hex(&murmur32(args.text(0)?.as_bytes()).to_le_bytes())))
    }),
    converter(
        "Murmur3Hash128",
        TARGET,
        "string",
        "The 128-bit MurmurHash3 (x64), in hexadecimal, lowest byte first",
        |args| {
            let (low, high) = murmur128(args.text(0)?.as_bytes());
            Ok(Value::text(hex(&[low.to_le_bytes(), high.to_le_bytes()].concat())))
        },
    ),
    converter("SHA1", TARGET, "string", "The SHA-1 hash, in hexadecimal", digest::<sha1::Sha1>),
    converter("SHA256", TARGET, "string", "The SHA-256 hash, in hexadecimal", digest::<sha2::Sha256>),
    converter("SHA512", TARGET, "string", "The SHA-512 hash, in hexadecimal", digest::<sha2::Sha512>),
    converter("XXH128", TARGET, "string", "The 128-bit XXH3 hash, in hexadecimal", |args| {
        Ok(Value::text(hex(&twox_hash::XxHash3_128::oneshot(args.text(0)?.as_bytes()).to_be_bytes())))
    }),
    converter("XXH3", TARGET, "string", "The 64-bit XXH3 hash, in hexadecimal", |args| {
        Ok(Value::text(hex(&twox_hash::XxHash3_64::oneshot(args.text(0)?.as_bytes()).to_be_bytes())))
    }),
];

/// What the Collector has no function for.
pub(super) const OWN: &[Function] = &[converter(
    "KeyedHash",
    TARGET,
    "string",
    "HMAC-SHA256 under the key that is configured, in hexadecimal: without the key nobody finds by trying what was hashed",
    |args| match args.prepared {
        Prepared::Key(key) => Ok(Value::text(hex(&hmac(key.bytes(), args.text(0)?.as_bytes())))),
        _ => Err(EvalError::new("there is no key")),
    },
)
.prepared(|literals: &Literals<'_>| match literals.key {
    Some(key) => Ok(Prepared::Key(key.clone())),
    None => Err((0, "there is no key: give one as `hash_key` beside the rules, or with --hash-key".to_owned())),
})];

/// RFC 2104.
fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut block = [0_u8; 64];
    match block.get_mut(..key.len()) {
        Some(begin) => begin.copy_from_slice(key),
        None => block[..32].copy_from_slice(&sha2::Sha256::digest(key)),
    }
    let hash = |pad: u8, text: &[u8]| {
        sha2::Sha256::new().chain_update(block.map(|byte| byte ^ pad)).chain_update(text).finalize()
    };
    hash(0x5c, &hash(0x36, text)).into()
}

fn digest<'a, D: Digest>(args: &Args<'_, 'a>) -> Result<Value<'a>, EvalError> {
    Ok(Value::text(hex(&D::digest(args.text(0)?.as_bytes()))))
}

fn murmur32(bytes: &[u8]) -> u32 {
    let scramble = |block: u32| block.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let mut hash = 0_u32;
    let blocks = bytes.chunks_exact(4);
    let tail = blocks.remainder().iter().rev().fold(0_u32, |tail, byte| tail << 8 | u32::from(*byte));
    for block in blocks {
        let block = block.iter().rev().fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        hash = (hash ^ scramble(block)).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    hash ^= scramble(tail);
    hash ^= u32::try_from(bytes.len() & 0xffff_ffff).unwrap_or_default();
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

fn murmur128(bytes: &[u8]) -> (u64, u64) {
    const FIRST: u64 = 0x87c3_7b91_1142_53d5;
    const SECOND: u64 = 0x4cf5_ad43_2745_937f;
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
    let one = |block: u64| block.wrapping_mul(FIRST).rotate_left(31).wrapping_mul(SECOND);
    let other = |block: u64| block.wrapping_mul(SECOND).rotate_left(33).wrapping_mul(FIRST);
    let (mut low, mut high) = (0_u64, 0_u64);
    let blocks = bytes.chunks_exact(16);
    let tail = blocks.remainder();
    for block in blocks {
        low =
            (low ^ one(word(&block[..8]))).rotate_left(27).wrapping_add(high).wrapping_mul(5).wrapping_add(0x52dc_e729);
        high = (high ^ other(word(&block[8..])))
            .rotate_left(31)
            .wrapping_add(low)
            .wrapping_mul(5)
            .wrapping_add(0x3849_5ab5);
    }
    high ^= other(word(tail.get(8..).unwrap_or_default()));
    low ^= one(word(&tail[..tail.len().min(8)]));
    let length = bytes.len() as u64;
    let finish = |mut hash: u64| {
        hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ hash >> 33
    };
    low ^= length;
    high ^= length;
    low = low.wrapping_add(high);
    high = high.wrapping_add(low);
    low = finish(low);
    high = finish(high);
    low = low.wrapping_add(high);
    (low, high.wrapping_add(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, cases 1, 2, 6 and 7.
    #[test]
    fn keyed_hashes_are_those_of_the_standard() {
        let long = [0xaa; 131];
        for (key, text, expected) in [
            (&[0x0b; 20][..], "Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (
                b"Jefe",
                "what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &long,
                "Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
            (
                &long,
                "This is a test using a larger than block-size key and a larger than block-size data. The key needs to be hashed before being used by the HMAC algorithm.",
                "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
            ),
        ] {
            assert_eq!(hex(&hmac(key, text.as_bytes())), expected, "{text}");
        }
    }
}
