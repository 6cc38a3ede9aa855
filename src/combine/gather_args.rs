//! What can be gathered: tuples of different things, and vectors of one.

use std::{future::IntoFuture, panic::Location};

use crate::{
    combine::child::{Child, Waitable},
    error::Result,
    event_loop::EventLoop,
};

/// Arguments of [`gather`](crate::gather): a tuple of up to twelve futures, or a vector or an array of futures of one type.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be gathered",
    label = "no tuple, vector or array of futures whose output is `asyncio::Result`"
)]
pub trait GatherArgs {
    /// The results together.
    type Values;
    /// The outcomes together.
    type Results;
    /// What is under way.
    #[doc(hidden)]
    type Children: Children<Values = Self::Values, Results = Self::Results>;

    /// Makes tasks of what is none; notes for each whether it did.
    #[doc(hidden)]
    fn begin(self, event_loop: &EventLoop, created: &'static Location<'static>, made: &mut Vec<bool>)
    -> Self::Children;
}

/// What is gathered, under way.
pub trait Children: 'static {
    /// The values together.
    type Values;
    /// The outcomes together.
    type Results;

    /// The one at `index`.
    fn get(&self, index: usize) -> Option<&dyn Waitable>;

    /// Each, with its index.
    fn each(&self, look: &mut dyn FnMut(usize, &dyn Waitable));

    /// The values, when all are done.
    fn values(self) -> Result<Self::Values>;

    /// The outcomes, when all are done.
    fn results(self) -> Self::Results;
}

impl<T: 'static, F> GatherArgs for Vec<F>
where
    F: IntoFuture<Output = Result<T>>,
    F::IntoFuture: 'static,
{
    type Values = Vec<T>;
    type Results = Vec<Result<T>>;
    type Children = Vec<Child<T>>;

    fn begin(
        self,
        event_loop: &EventLoop,
        created: &'static Location<'static>,
        made: &mut Vec<bool>,
    ) -> Self::Children {
        made.reserve(self.len());
        let children = self.into_iter().map(|future| {
            let (child, is_made) = Child::new(event_loop, future, created);
            made.push(is_made);
            child
        });
        children.collect()
    }
}

impl<T: 'static> Children for Vec<Child<T>> {
    type Values = Vec<T>;
    type Results = Vec<Result<T>>;

    fn get(&self, index: usize) -> Option<&dyn Waitable> {
        <[_]>::get(self, index).map(Child::waitable)
    }

    fn each(&self, look: &mut dyn FnMut(usize, &dyn Waitable)) {
        for (index, child) in self.iter().enumerate() {
            look(index, child.waitable());
        }
    }

    fn values(self) -> Result<Vec<T>> {
        self.into_iter().map(|mut child| child.take()).collect()
    }

    fn results(self) -> Vec<Result<T>> {
        self.into_iter().map(|mut child| child.take()).collect()
    }
}

impl<T: 'static, F, const N: usize> GatherArgs for [F; N]
where
    F: IntoFuture<Output = Result<T>>,
    F::IntoFuture: 'static,
{
    type Values = [T; N];
    type Results = [Result<T>; N];
    type Children = [Child<T>; N];

    fn begin(
        self,
        event_loop: &EventLoop,
        created: &'static Location<'static>,
        made: &mut Vec<bool>,
    ) -> Self::Children {
        self.map(|future| {
            let (child, is_made) = Child::new(event_loop, future, created);
            made.push(is_made);
            child
        })
    }
}

impl<T: 'static, const N: usize> Children for [Child<T>; N] {
    type Values = [T; N];
    type Results = [Result<T>; N];

    fn get(&self, index: usize) -> Option<&dyn Waitable> {
        <[_]>::get(self, index).map(Child::waitable)
    }

    fn each(&self, look: &mut dyn FnMut(usize, &dyn Waitable)) {
        for (index, child) in self.iter().enumerate() {
            look(index, child.waitable());
        }
    }

    fn values(self) -> Result<[T; N]> {
        let mut failed = None;
        let values = self.map(|mut child| child.take().map_err(|error| failed.get_or_insert(error).clone()).ok());
        match failed {
            Some(error) => Err(error),
            None => Ok(values.map(|value| value.expect("none has failed"))),
        }
    }

    fn results(self) -> [Result<T>; N] {
        self.map(|mut child| child.take())
    }
}

/// One implementation for each length.
macro_rules! tuple {
    ($(($F:ident $T:ident $child:ident $index:tt))*) => {
        impl<$($T: 'static, $F),*> GatherArgs for ($($F,)*)
        where
            $($F: IntoFuture<Output = Result<$T>>, $F::IntoFuture: 'static,)*
        {
            type Values = ($($T,)*);
            type Results = ($(Result<$T>,)*);
            type Children = ($(Child<$T>,)*);

            fn begin(
                self,
                event_loop: &EventLoop,
                created: &'static Location<'static>,
                made: &mut Vec<bool>,
            ) -> Self::Children {
                $(
                    let ($child, is_made) = Child::new(event_loop, self.$index, created);
                    made.push(is_made);
                )*
                ($($child,)*)
            }
        }

        impl<$($T: 'static),*> Children for ($(Child<$T>,)*) {
            type Values = ($($T,)*);
            type Results = ($(Result<$T>,)*);

            fn get(&self, index: usize) -> Option<&dyn Waitable> {
                match index {
                    $($index => Some(self.$index.waitable()),)*
                    _ => None,
                }
            }

            fn each(&self, look: &mut dyn FnMut(usize, &dyn Waitable)) {
                $(look($index, self.$index.waitable());)*
            }

            fn values(mut self) -> Result<Self::Values> {
                Ok(($(self.$index.take()?,)*))
            }

            fn results(mut self) -> Self::Results {
                ($(self.$index.take(),)*)
            }
        }
    };
}

// Rust has no way to say "a tuple of any length".
tuple! { (A TA a 0) }
tuple! { (A TA a 0) (B TB b 1) }
tuple! { (A TA a 0) (B TB b 1) (C TC c 2) }
tuple! { (A TA a 0) (B TB b 1) (C TC c 2) (D TD d 3) }
tuple! { (A TA a 0) (B TB b 1) (C TC c 2) (D TD d 3) (E TE e 4) }
tuple! { (A TA a 0) (B TB b 1) (C TC c 2) (D TD d 3) (E TE e 4) (F TF f 5) }
tuple! { (A TA a 0) (B TB b 1) (C TC c 2) (D TD d 3) (E TE e 4) (F TF f 5) (G TG g 6) }
tuple! { (A TA a 0) (B TB b 1) (C TC c 2) (D TD d 3) (E TE e 4) (F TF f 5) (G TG g 6) (H TH h 7) }
tuple! { (A TA a 0) (B TB b 1) (C TC c 2) (D TD d 3) (E TE e 4) (F TF f 5) (G TG g 6) (H TH h 7) (I TI i 8) }
tuple! {
    (A TA a 0) (B TB b 1) (C TC c 2) (D TD d 3) (E TE e 4) (F TF f 5) (G TG g 6) (H TH h 7) (I TI i 8) (J TJ j 9)
}
tuple! {
    (A TA a 0) (B TB b 1) (C TC c 2) (D TD d 3) (E TE e 4) (F TF f 5) (G TG g 6) (H TH h 7) (I TI i 8) (J TJ j 9)
    (K TK k 10)
}
tuple! {
    (A TA a 0) (B TB b 1) (C TC c 2) (D TD d 3) (E TE e 4) (F TF f 5) (G TG g 6) (H TH h 7) (I TI i 8) (J TJ j 9)
    (K TK k 10) (L TL l 11)
}

impl GatherArgs for () {
    type Values = ();
    type Results = ();
    type Children = ();

    fn begin(self, _: &EventLoop, _: &'static Location<'static>, _: &mut Vec<bool>) {}
}

impl Children for () {
    type Values = ();
    type Results = ();

    fn get(&self, _: usize) -> Option<&dyn Waitable> {
        None
    }

    fn each(&self, _: &mut dyn FnMut(usize, &dyn Waitable)) {}

    fn values(self) -> Result<()> {
        Ok(())
    }

    fn results(self) {}
}
