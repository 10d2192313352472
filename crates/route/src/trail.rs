//! Why a decision fell as it did.

/// Takes the steps of a decision, in words. The proxy passes `&mut ()`, for which nothing is even formatted.
pub trait Trail {
    /// Adds a step; `step` is only called by trails that keep it.
    fn step(&mut self, step: impl FnOnce() -> String);
}

impl Trail for () {
    #[inline]
    fn step(&mut self, _: impl FnOnce() -> String) {}
}

impl Trail for Vec<String> {
    fn step(&mut self, step: impl FnOnce() -> String) {
        self.push(step());
    }
}
