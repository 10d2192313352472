//! When to push: a change that comes alone goes out almost at once, a storm is collected.

use std::time::Instant;

use crate::settings::Debounce as Settings;

/// Decides when collected changes are pushed. Time is an argument.
#[derive(Debug)]
pub(crate) struct Debounce {
    settings: Settings,
    first: Option<Instant>,
    last: Option<Instant>,
    pushed: Option<Instant>,
}

impl Debounce {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings, first: None, last: None, pushed: None }
    }

    /// A change came.
    pub(crate) fn changed(&mut self, now: Instant) {
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    /// When to push; `None` while nothing is waiting.
    pub(crate) fn due(&self) -> Option<Instant> {
        let (first, last) = (self.first?, self.last?);
        let quiet_before = self.pushed.is_none_or(|pushed| first >= pushed + self.settings.after);
        let wanted = match quiet_before {
            true => first + self.settings.first,
            false => last + self.settings.after,
        };
        Some(wanted.min(first + self.settings.longest))
    }

    /// Everything that was waiting is pushed.
    pub(crate) fn pushed(&mut self, now: Instant) {
        self.first = None;
        self.last = None;
        self.pushed = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn alone_at_once_then_collected_never_longer_than_the_longest() {
        let ms = Duration::from_millis;
        let settings = Settings { first: ms(10), after: ms(100), longest: ms(1000) };
        let start = Instant::now();
        let mut debounce = Debounce::new(settings);
        assert_eq!(debounce.due(), None);
        debounce.changed(start);
        debounce.changed(start + ms(5));
        assert_eq!(debounce.due(), Some(start + ms(10)));
        debounce.pushed(start + ms(10));
        assert_eq!(debounce.due(), None);
        // A second change soon after the push waits for quiet.
        debounce.changed(start + ms(20));
        debounce.changed(start + ms(90));
        assert_eq!(debounce.due(), Some(start + ms(190)));
        for step in 1..20 {
            debounce.changed(start + ms(20 + 90 * step));
        }
        assert_eq!(debounce.due(), Some(start + ms(1020)));
        debounce.pushed(start + ms(1020));
        debounce.changed(start + ms(5000));
        assert_eq!(debounce.due(), Some(start + ms(5010)));
    }
}
