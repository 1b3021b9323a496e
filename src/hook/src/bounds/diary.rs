//! The record of a handoff that is passed to the next kernel.

use core::cell::Cell;
use core::time::Duration;

use nextkernel_plan::{Course, Marks, Trouble};

use crate::sys::{calls, clock};

/// The times at which the steps were done, and the trouble on the way.
#[derive(Debug)]
pub struct Diary {
    /// The uptime at which the handoff began.
    pub begun: Duration,
    course: Cell<Course>,
    told: Cell<bool>,
}

impl Diary {
    /// Begins the diary when the handoff begins.
    #[must_use]
    pub fn begin() -> Diary {
        let begun = clock::uptime();
        let course = Course {
            begun_at: clock::time().as_secs(),
            counter: calls::counter(),
            marks: Marks::default(),
            trouble: Trouble::default(),
        };
        Diary { begun, course: Cell::new(course), told: Cell::new(false) }
    }

    /// Marks that a step is done now. Does nothing once the diary was passed on.
    pub fn mark(&self, place: fn(&mut Marks) -> &mut Option<u32>) {
        if self.told.get() {
            return;
        }
        let now = clock::uptime().saturating_sub(self.begun).as_millis();
        let mut course = self.course.get();
        *place(&mut course.marks) = Some(u32::try_from(now).unwrap_or(u32::MAX));
        self.course.set(course);
    }

    /// Notes that something went wrong.
    pub fn note(&self, trouble: Trouble) {
        let mut course = self.course.get();
        course.trouble = course.trouble.and(trouble);
        self.course.set(course);
    }

    /// Returns the entries so far, to pass them to the next kernel. Nothing is marked after that.
    #[must_use]
    pub fn tell(&self) -> Course {
        self.told.set(true);
        self.course.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_marked_and_noted_stands_there() {
        let diary = Diary::begin();
        diary.mark(|marks| &mut marks.synced);
        diary.note(Trouble::GPU);
        diary.note(Trouble::HOOK);
        let course = diary.tell();
        assert!(course.marks.synced.is_some_and(|at| at < 60_000) && course.marks.torn_down.is_none());
        assert!(course.trouble.has(Trouble::GPU) && course.trouble.has(Trouble::HOOK));
        assert!(!course.trouble.has(Trouble::MODULE));
        diary.mark(|marks| &mut marks.torn_down);
        assert_eq!(diary.tell(), course);
        assert!(course.begun_at > 1_700_000_000);
    }
}
