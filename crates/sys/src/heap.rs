//! The heap of the process.

/// Gives the system back what the calling thread has freed. The allocator does so by itself only while the thread goes on
/// allocating: a thread that comes to rest after much work would keep all of it.
///
/// It is for binaries whose allocator is mimalloc, as `lateen`'s is; in others it finds nothing to give.
pub fn give_back() {
    // SAFETY: any thread may call `mi_collect` at any time: it takes no pointer, and leaves alone all that is in use.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_in_use_stays() {
        let kept = vec![7u8; 1 << 20];
        drop(vec![1u8; 1 << 22]);
        super::give_back();
        assert!(kept.iter().all(|byte| *byte == 7));
    }
}
