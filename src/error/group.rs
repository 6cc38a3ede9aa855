//! Errors that belong together.

use std::{fmt, sync::Arc};

use crate::error::{Error, Result, Text};

/// The data of [`Error::Group`]: errors that belong together, some of which may be groups again. Never empty.
///
/// `Display` gives the message and the count, as Python does; `{:#}` each error as well.
///
/// # Examples
///
/// ```
/// use asyncio::{Error, ErrorKind, ExceptionGroup};
///
/// let error = ExceptionGroup::new("two of them", [Error::Timeout("late".into()), Error::Value("wrong".into())])?;
/// let (late, other) = error.split(|error| error.kind() == ErrorKind::Timeout);
/// assert_eq!(late.expect("one is").leaves().count(), 1);
/// assert_eq!(other.expect("one is not").exceptions()[0].to_string(), "wrong");
/// # asyncio::ok(())
/// ```
///
/// asyncio: `ExceptionGroup`.
#[derive(Debug)]
pub struct ExceptionGroup {
    message: Text,
    /// Invariant: not empty.
    exceptions: Vec<Error>,
}

impl ExceptionGroup {
    /// A group of these errors.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] if there are none.
    ///
    /// asyncio: `ExceptionGroup(msg, excs)`.
    pub fn new(message: impl Into<Text>, exceptions: impl IntoIterator<Item = Error>) -> Result<Arc<ExceptionGroup>> {
        let exceptions: Vec<Error> = exceptions.into_iter().collect();
        if exceptions.is_empty() {
            return Err(Error::Value("an exception group needs at least one error".into()));
        }
        Ok(Arc::new(ExceptionGroup { message: message.into(), exceptions }))
    }

    /// What the group was made with, without the count.
    ///
    /// asyncio: `ExceptionGroup.message`.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The errors of the group, groups among them as they are.
    ///
    /// asyncio: `ExceptionGroup.exceptions`.
    pub fn exceptions(&self) -> &[Error] {
        &self.exceptions
    }

    /// The errors that are no groups, of this one and those inside, in order.
    ///
    /// asyncio: has no counterpart.
    pub fn leaves(&self) -> impl Iterator<Item = &Error> {
        let mut levels = vec![self.exceptions.iter()];
        std::iter::from_fn(move || {
            loop {
                match levels.last_mut()?.next() {
                    Some(Error::Group(group)) => levels.push(group.exceptions.iter()),
                    Some(error) => return Some(error),
                    None => drop(levels.pop()),
                }
            }
        })
    }

    /// The part of the group for which `condition` holds, nested as it was; `None` if it holds for nothing.
    ///
    /// A group inside for which it holds is taken whole; else its errors are asked.
    ///
    /// asyncio: `ExceptionGroup.subgroup`.
    pub fn subgroup(&self, condition: impl FnMut(&Error) -> bool) -> Option<Arc<ExceptionGroup>> {
        self.split(condition).0
    }

    /// The part for which `condition` holds, and the rest, each nested as it was.
    ///
    /// A group inside for which it holds is taken whole; else its errors are asked.
    ///
    /// asyncio: `ExceptionGroup.split`.
    pub fn split(
        &self,
        mut condition: impl FnMut(&Error) -> bool,
    ) -> (Option<Arc<ExceptionGroup>>, Option<Arc<ExceptionGroup>>) {
        self.split_by(&mut condition)
    }

    fn split_by(
        &self,
        condition: &mut dyn FnMut(&Error) -> bool,
    ) -> (Option<Arc<ExceptionGroup>>, Option<Arc<ExceptionGroup>>) {
        let (mut matching, mut rest) = (Vec::new(), Vec::new());
        for error in &self.exceptions {
            match error {
                error if condition(error) => matching.push(error.clone()),
                Error::Group(group) => {
                    let (inside, outside) = group.split_by(condition);
                    matching.extend(inside.map(Error::Group));
                    rest.extend(outside.map(Error::Group));
                }
                error => rest.push(error.clone()),
            }
        }
        (self.derive(matching), self.derive(rest))
    }

    /// A group with the same message, unless there is nothing in it.
    fn derive(&self, exceptions: Vec<Error>) -> Option<Arc<ExceptionGroup>> {
        let message = self.message.clone();
        (!exceptions.is_empty()).then(|| Arc::new(ExceptionGroup { message, exceptions }))
    }
}

impl Drop for ExceptionGroup {
    /// One after the other, however deep they are nested.
    fn drop(&mut self) {
        let mut open = std::mem::take(&mut self.exceptions);
        while let Some(error) = open.pop() {
            if let Error::Group(group) = error {
                if let Ok(mut group) = Arc::try_unwrap(group) {
                    open.append(&mut group.exceptions);
                }
            }
        }
    }
}

impl fmt::Display for ExceptionGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.exceptions.len();
        write!(f, "{} ({count} sub-exception{})", self.message, if count == 1 { "" } else { "s" })?;
        if f.alternate() {
            for (index, error) in self.exceptions.iter().enumerate() {
                let between = if index == 0 { ": " } else { "; " };
                let panicked = if matches!(error, Error::Panicked(_)) { "panicked: " } else { "" };
                write!(f, "{between}{panicked}{error:#}")?;
            }
        }
        Ok(())
    }
}
