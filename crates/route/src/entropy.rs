//! Chance, as an argument: one random number per request, from which every decision draws its own.

use lateen_proto::envoy::config::core::v3::RuntimeFractionalPercent;
use lateen_proto::envoy::r#type::v3::FractionalPercent;
use lateen_proto::envoy::r#type::v3::fractional_percent::DenominatorType;

/// Sixty-four random bits, fixed for one request. Decisions draw independent numbers from it by their own salt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entropy(pub u64);

impl Entropy {
    /// A number that is a function of the entropy and `salt` only (splitmix64).
    #[inline]
    pub fn draw(self, salt: u64) -> u64 {
        let mut z = self.0.wrapping_add(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A share of requests, as Envoy's `FractionalPercent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fraction {
    /// How many...
    pub numerator: u32,
    /// ...of how many: 100, 10,000 or 1,000,000.
    pub denominator: u32,
}

impl Fraction {
    /// Every request.
    pub const ALL: Self = Self { numerator: 100, denominator: 100 };
    /// No request.
    pub const NONE: Self = Self { numerator: 0, denominator: 100 };

    /// Whether `draw` falls into the share.
    #[inline]
    pub fn hits(self, draw: u64) -> bool {
        draw % u64::from(self.denominator) < u64::from(self.numerator)
    }

    pub(crate) fn of(message: &FractionalPercent) -> Self {
        let denominator = match message.denominator() {
            DenominatorType::Hundred => 100,
            DenominatorType::TenThousand => 10_000,
            DenominatorType::Million => 1_000_000,
        };
        Self { numerator: message.numerator, denominator }
    }

    /// The default value of a runtime fraction; the runtime key has no effect (there is no runtime layer).
    pub(crate) fn of_runtime(message: &Option<RuntimeFractionalPercent>, unset: Self) -> Self {
        message.as_ref().and_then(|m| m.default_value.as_ref()).map_or(unset, Self::of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_hit_their_share() {
        let half = Fraction { numerator: 50, denominator: 100 };
        let hits = (0..10_000).filter(|n| half.hits(Entropy(*n).draw(7))).count();
        assert!((4_700..5_300).contains(&hits), "{hits}");
        assert!(Fraction::ALL.hits(u64::MAX) && !Fraction::NONE.hits(0));
    }

    #[test]
    fn salts_are_independent() {
        let half = Fraction { numerator: 1, denominator: 2 };
        let both =
            (0..10_000).filter(|n| half.hits(Entropy(*n).draw(1)) && half.hits(Entropy(*n).draw(2))).count();
        assert!((2_200..2_800).contains(&both), "{both}");
    }
}
