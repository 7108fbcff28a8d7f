//! Whether the machine stood still: then what was heard meanwhile says nothing about the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often it looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Whoever sleeps longer than he asked for by this, has not slept: a voice that waits so long is broken.
const STALL: Duration = Duration::from_millis(40);

/// Sleeps and looks how long that took.
struct Watch {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Watch {
    fn start() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !told.load(Ordering::Relaxed) {
                let before = Instant::now();
                std::thread::sleep(PAUSE);
                longest = longest.max(before.elapsed().saturating_sub(PAUSE));
            }
            longest
        });
        Self { over, thread }
    }

    fn end(self) -> Duration {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// Does something, and once more (twice at most) if it was bad and the machine stood still meanwhile.
pub fn unless_stalled<T>(good: impl Fn(&T) -> bool, mut act: impl FnMut() -> T) -> T {
    for _ in 0..2 {
        let watch = Watch::start();
        let done = act();
        let longest = watch.end();
        if good(&done) || longest < STALL {
            return done;
        }
        println!(
            "the machine stood still for {} ms: once more",
            longest.as_millis()
        );
    }
    act()
}
