//! What these tests show: to come.
