//! Room for bytes that are only passing through: one piece per thread, instead of one per connection.

use std::cell::Cell;

/// How much there is.
pub(crate) const SIZE: usize = 64 * 1024;

thread_local! {
    static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends the thread's room, which holds nothing of use before and after.
pub(crate) fn with<R>(work: impl FnOnce(&mut [u8]) -> R) -> R {
    // Who asks while it is lent gets room of its own.
    let mut room = ROOM.take();
    room.resize(SIZE, 0);
    let result = work(&mut room);
    ROOM.set(room);
    result
}
