//! When the configuration has come to rest: then what decoding it left behind goes back to the system.

/// Ticks without an update after which the configuration rests.
const QUIET: u32 = 4;

/// Looks, tick by tick, whether updates still come.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    updates: u64,
    quiet: u32,
}

impl Rest {
    /// Whether the configuration comes to rest with this tick; `updates` is how many there were since the start.
    pub(crate) fn begins(&mut self, updates: u64) -> bool {
        if updates != self.updates {
            *self = Self { updates, quiet: 0 };
            return false;
        }
        self.quiet = self.quiet.saturating_add(1);
        self.quiet == QUIET && updates > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_begins_once_after_updates() {
        let mut rest = Rest::default();
        let mut told = |updates: &[u64]| updates.iter().map(|n| rest.begins(*n)).collect::<Vec<_>>();
        assert_eq!(told(&[0; 9]), [false; 9], "there was nothing yet");
        assert_eq!(told(&[1, 1, 1, 2, 3, 3, 3]), [false; 7], "they still come");
        assert_eq!(told(&[3, 3, 3]), [false, true, false]);
        assert_eq!(told(&[4, 4, 4, 4, 4, 4]), [false, false, false, false, true, false]);
    }
}
