//! The short hashes in names that users know: `reviews-v1-569db879f5`.

/// Letters and digits that cannot make a word: Kubernetes' alphabet for generated names.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// 32-bit FNV-1a.
pub(super) fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// A hash as a piece of a name: the decimal digits, each replaced by a letter of the alphabet.
pub(super) fn name_part(hash: u32) -> String {
    hash.to_string().bytes().map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])).collect()
}

/// A hash as exactly five letters, for what belongs to one owner for good.
pub(super) fn five(hash: u32) -> String {
    let mut rest = hash;
    let mut out = String::new();
    for _ in 0..5 {
        out.push(char::from(ALPHABET[(rest % 27) as usize]));
        rest /= 27;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_fnv_and_letters() {
        assert_eq!(fnv(b"a"), 0xe40c_292c);
        let part = name_part(fnv(b"template"));
        assert!(part.len() <= 10 && part.bytes().all(|byte| ALPHABET.contains(&byte)), "{part}");
        assert_eq!(five(fnv(b"uid")).len(), 5);
    }
}
