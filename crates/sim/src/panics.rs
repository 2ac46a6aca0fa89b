//! What a panic said, where the code under test catches it.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// From here on a panic of this process is noted instead of printed: it is a failure like others,
/// reported once, with its seed.
pub fn note() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            LAST.with_borrow_mut(|last| *last = panic.to_string());
            // An assertion of a test is for people.
            if panic
                .location()
                .is_none_or(|location| location.file().contains("tests"))
            {
                before(panic);
            }
        }));
    });
}

/// The last panic of this thread, with its place.
pub fn last() -> String {
    LAST.with_borrow(String::clone)
}
