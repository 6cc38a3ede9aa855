//! Functions as pointers.

use std::ptr::NonNull;

/// A pointer to a function that does what `function` does; one that captures something does not compile.
pub(crate) fn pointer<A, R, F: Fn(A) -> R + Copy>(function: F) -> fn(A) -> R {
    const { assert!(size_of::<F>() == 0, "a function for another process captures nothing: pass it as an argument") };
    let _given: F = function;
    |args| {
        // SAFETY: `F` has no bytes that could be wrong, and it has values: `pointer` was given one. It is `Copy`, so that
        // one more does no harm.
        let function = unsafe { NonNull::<F>::dangling().read() };
        function(args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn double(number: u32) -> u32 {
        2 * number
    }

    #[test]
    fn functions_and_closures_that_capture_nothing_have_a_pointer() {
        assert_eq!(pointer(double)(21), 42);
        let twice = move |number| double(double(number));
        assert_eq!(pointer(twice)(10), 40);
        assert_eq!(pointer(|(text, count): (&str, usize)| text.repeat(count))(("ab", 2)), "abab");
    }
}
