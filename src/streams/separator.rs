//! What a read goes up to.

/// One or several separators: what [`StreamReader::readuntil`](crate::StreamReader::readuntil) takes.
///
/// Bytes and texts are one separator; arrays, slices and vectors of them are several, of which the one counts that ends
/// first. Sealed.
///
/// # Examples
///
/// ```
/// asyncio::run(async {
///     let (feeder, mut reader) = asyncio::StreamReader::new(1 << 16)?;
///     feeder.feed_data(b"one;two\r\nthree\n")?;
///     assert_eq!(reader.readuntil(b';').await?, b"one;");
///     assert_eq!(reader.readuntil("\r\n").await?, b"two\r\n");
///     assert_eq!(reader.readuntil(["\r", "\n"]).await?, b"three\n");
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: the `separator` argument, bytes or a tuple of them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a separator",
    label = "expected bytes or a text, or a list of them"
)]
pub trait Separator {
    #[doc(hidden)]
    fn each(&self, see: See<'_>);
}

/// Called with each separator. Other crates cannot name it, and so have no separators of their own: these are asked while
/// what was received is borrowed.
#[expect(missing_debug_implementations, reason = "nobody has one")]
pub struct See<'a>(pub(super) &'a mut dyn FnMut(&[u8]));

impl Separator for u8 {
    fn each(&self, see: See<'_>) {
        see.0(&[*self]);
    }
}

impl Separator for [u8] {
    fn each(&self, see: See<'_>) {
        see.0(self);
    }
}

impl<const N: usize> Separator for [u8; N] {
    fn each(&self, see: See<'_>) {
        see.0(self);
    }
}

impl Separator for Vec<u8> {
    fn each(&self, see: See<'_>) {
        see.0(self);
    }
}

impl Separator for str {
    fn each(&self, see: See<'_>) {
        see.0(self.as_bytes());
    }
}

impl Separator for String {
    fn each(&self, see: See<'_>) {
        see.0(self.as_bytes());
    }
}

impl<S: Separator + ?Sized> Separator for &S {
    fn each(&self, see: See<'_>) {
        (**self).each(see);
    }
}

/// Parts of lists, by their types: a list of bytes is one separator itself.
trait Part {
    fn part(&self) -> &[u8];
}

impl Part for &[u8] {
    fn part(&self) -> &[u8] {
        self
    }
}

impl<const N: usize> Part for &[u8; N] {
    fn part(&self) -> &[u8] {
        &self[..]
    }
}

impl<const N: usize> Part for [u8; N] {
    fn part(&self) -> &[u8] {
        self
    }
}

impl Part for &str {
    fn part(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Part for Vec<u8> {
    fn part(&self) -> &[u8] {
        self
    }
}

impl Part for String {
    fn part(&self) -> &[u8] {
        self.as_bytes()
    }
}

fn each_part<P: Part>(parts: &[P], see: See<'_>) {
    parts.iter().for_each(|part| see.0(part.part()));
}

impl Separator for [&[u8]] {
    fn each(&self, see: See<'_>) {
        each_part(self, see);
    }
}

impl<const N: usize> Separator for [&[u8]; N] {
    fn each(&self, see: See<'_>) {
        each_part(self, see);
    }
}

impl Separator for Vec<&[u8]> {
    fn each(&self, see: See<'_>) {
        each_part(self, see);
    }
}

impl Separator for [&str] {
    fn each(&self, see: See<'_>) {
        each_part(self, see);
    }
}

impl<const N: usize> Separator for [&str; N] {
    fn each(&self, see: See<'_>) {
        each_part(self, see);
    }
}

impl Separator for Vec<&str> {
    fn each(&self, see: See<'_>) {
        each_part(self, see);
    }
}

impl Separator for [Vec<u8>] {
    fn each(&self, see: See<'_>) {
        each_part(self, see);
    }
}

impl<const N: usize> Separator for [Vec<u8>; N] {
    fn each(&self, see: See<'_>) {
        each_part(self, see);
    }
}

impl Separator for Vec<Vec<u8>> {
    fn each(&self, see: See<'_>) {
        each_part(self, see);
    }
}

impl Separator for [String] {
    fn each(&self, see: See<'_>) {
        each_part(self, see);
    }
}

impl<const N: usize> Separator for [String; N] {
    fn each(&self, see: See<'_>) {
        each_part(self, see);
    }
}

impl Separator for Vec<String> {
    fn each(&self, see: See<'_>) {
        each_part(self, see);
    }
}

impl<const M: usize> Separator for [&[u8; M]] {
    fn each(&self, see: See<'_>) {
        each_part(self, see);
    }
}

impl<const N: usize, const M: usize> Separator for [&[u8; M]; N] {
    fn each(&self, see: See<'_>) {
        each_part(self, see);
    }
}

impl<const M: usize> Separator for [[u8; M]] {
    fn each(&self, see: See<'_>) {
        each_part(self, see);
    }
}

impl<const N: usize, const M: usize> Separator for [[u8; M]; N] {
    fn each(&self, see: See<'_>) {
        each_part(self, see);
    }
}
