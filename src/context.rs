//! Context variables: values that follow a task or a callback instead of a thread.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    fmt,
    marker::PhantomData,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::error::{Error, Result};

type Value = Arc<dyn Any + Send + Sync>;

/// The variables of one context, sorted by id and copied on write; `None` while there are none, which costs nothing.
pub(crate) type Vars = Option<Arc<Vec<(u64, Value)>>>;

/// The context that code runs in: a bare one that nobody else can see, or one that users hold too.
#[derive(Clone)]
pub(crate) enum ContextRef {
    Bare(Vars),
    Shared(Context),
}

impl Default for ContextRef {
    fn default() -> Self {
        ContextRef::Bare(None)
    }
}

thread_local! {
    /// The context that the thread is in; only looked at while it is not plain.
    static CURRENT: RefCell<ContextRef> = const { RefCell::new(ContextRef::Bare(None)) };
    static PLACE: Place = const { Place { plain: Cell::new(true), identity: Cell::new(0) } };
}

/// What is known of the current context without a look at it. Has no destructor, so that it costs no check for one.
struct Place {
    /// Whether the current context is a bare one without variables: most are, and entering one is free.
    plain: Cell<bool>,
    /// Tells a bare context from others; zero until somebody asks.
    identity: Cell<u64>,
}

/// A mapping of context variables to values that code can be run in.
///
/// Every task and every scheduled callback runs in a context of its own, a copy of the one it was made in. Copies are
/// cheap: the values are shared until one side sets a variable.
///
/// `Threads:` a context may cross them; it is entered by one at a time.
///
/// # Examples
///
/// ```
/// use asyncio::{Context, ContextVar};
///
/// static REQUEST: ContextVar<u64> = ContextVar::new("request");
///
/// let context = Context::new();
/// context.run(|| REQUEST.set(7))?;
/// assert!(REQUEST.get().is_err());
/// assert_eq!(context.get(&REQUEST), Some(7));
/// # asyncio::ok(())
/// ```
///
/// asyncio: `contextvars.Context`.
#[derive(Clone, Default)]
pub struct Context {
    cell: Arc<ContextCell>,
}

#[derive(Default)]
struct ContextCell {
    state: Mutex<ContextState>,
}

#[derive(Default)]
struct ContextState {
    vars: Vars,
    /// Set while code runs in this context; a second entry is refused.
    entered: bool,
    /// What tokens made in this context are marked with; zero until there is one.
    identity: u64,
}

impl Context {
    /// A context without variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Turns a bare context into one that can be shared; tokens made in it stay valid.
    pub(crate) fn from_vars(vars: Vars, identity: u64) -> Self {
        let state = ContextState { vars, entered: false, identity };
        Context { cell: Arc::new(ContextCell { state: Mutex::new(state) }) }
    }

    /// Runs `callback` in this context: what it sets is seen here and nowhere else.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] if the context is entered already, by this thread or another; `callback` is dropped.
    ///
    /// # Panics
    ///
    /// Only if `callback` does; the context is left first.
    ///
    /// asyncio: `Context.run`.
    pub fn run<R>(&self, callback: impl FnOnce() -> R) -> Result<R> {
        let _entered = enter(ContextRef::Shared(self.clone()), 0)?;
        Ok(callback())
    }

    /// A context of its own with the same values.
    ///
    /// asyncio: `Context.copy`. (`clone` gives a second handle of the same context.)
    pub fn copy(&self) -> Context {
        Context::from_vars(self.vars(), 0)
    }

    /// The value that `variable` has here; a default is not an entry.
    ///
    /// asyncio: `Context.get`.
    pub fn get<T: Clone + Send + Sync + 'static>(&self, variable: &ContextVar<T>) -> Option<T> {
        find(&self.vars(), variable.id()).map(|value| unerase(&value))
    }

    /// Whether `variable` has a value here; a default is not an entry.
    ///
    /// asyncio: `variable in context`.
    pub fn contains<T: Send + Sync + 'static>(&self, variable: &ContextVar<T>) -> bool {
        find(&self.vars(), variable.id()).is_some()
    }

    /// How many variables have a value here.
    ///
    /// asyncio: `len(context)`.
    pub fn len(&self) -> usize {
        self.vars().map_or(0, |vars| vars.len())
    }

    /// Whether no variable has a value here.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, ContextState> {
        self.cell.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn vars(&self) -> Vars {
        self.lock().vars.clone()
    }

    fn identity(&self) -> u64 {
        let mut state = self.lock();
        if state.identity == 0 {
            state.identity = fresh_identity();
        }
        state.identity
    }
}

impl PartialEq for Context {
    /// Whether both are handles of one context.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.cell, &other.cell)
    }
}

impl Eq for Context {}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("variables", &self.len()).finish_non_exhaustive()
    }
}

/// A context of its own with the values of the current one.
///
/// # Examples
///
/// ```
/// static USER: asyncio::ContextVar<&str> = asyncio::ContextVar::new("user");
///
/// USER.set("guido");
/// let context = asyncio::copy_context();
/// USER.set("barry");
/// assert_eq!(context.get(&USER), Some("guido"));
/// ```
///
/// asyncio: `contextvars.copy_context`.
pub fn copy_context() -> Context {
    Context::from_vars(current_vars(), 0)
}

/// A variable whose value depends on the context: the task or callback that looks.
///
/// Usually a `static`. Without a value and without a default, [`get`](Self::get) is [`Error::Lookup`].
///
/// `Threads:` a variable may cross them.
///
/// # Examples
///
/// ```
/// static USER: asyncio::ContextVar<String> = asyncio::ContextVar::with_default("user", || "nobody".into());
///
/// asyncio::run(async {
///     let task = asyncio::create_task(async {
///         USER.set("somebody".into());
///         USER.get()
///     });
///     assert_eq!(task.await?, "somebody");
///     assert_eq!(USER.get()?, "nobody"); // the task had a copy
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `contextvars.ContextVar`.
pub struct ContextVar<T: 'static> {
    name: &'static str,
    default: Option<fn() -> T>,
    /// Zero until the variable is first used: a `const fn` cannot count.
    id: AtomicU64,
}

impl<T: Send + Sync + 'static> ContextVar<T> {
    /// A variable without a default.
    ///
    /// asyncio: `ContextVar(name)`.
    pub const fn new(name: &'static str) -> Self {
        ContextVar { name, default: None, id: AtomicU64::new(0) }
    }

    /// A variable that has the value of `default` where nothing was set.
    ///
    /// asyncio: `ContextVar(name, default=..)`. Differs: a function makes the default.
    pub const fn with_default(name: &'static str, default: fn() -> T) -> Self {
        ContextVar { name, default: Some(default), id: AtomicU64::new(0) }
    }

    /// The name that was given.
    ///
    /// asyncio: `ContextVar.name`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The value in the current context, else the default.
    ///
    /// # Errors
    ///
    /// [`Error::Lookup`] if there is neither.
    ///
    /// asyncio: `ContextVar.get`.
    pub fn get(&self) -> Result<T>
    where
        T: Clone,
    {
        if let Some(value) = find(&current_vars(), self.id()) {
            return Ok(unerase(&value));
        }
        match self.default {
            Some(default) => Ok(default()),
            None => Err(Error::Lookup(format!("the context variable {:?} has no value", self.name).into())),
        }
    }

    /// The value in the current context, else `fallback`.
    ///
    /// asyncio: `ContextVar.get(default)`.
    pub fn get_or(&self, fallback: T) -> T
    where
        T: Clone,
    {
        find(&current_vars(), self.id()).map_or(fallback, |value| unerase(&value))
    }

    /// Gives the variable a value in the current context; the token takes it back.
    ///
    /// asyncio: `ContextVar.set`.
    pub fn set(&self, value: T) -> Token<T> {
        let old = replace(self.id(), Some(Arc::new(value)));
        Token {
            variable: self.id(),
            identity: current_identity(),
            old,
            used: AtomicBool::new(false),
            marker: PhantomData,
        }
    }

    /// Gives the variable the value, or the lack of one, that it had before the `set` that made `token`.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] if the token has been used; [`Error::Value`] if it is another variable's or was made in
    /// another context. Then nothing changes.
    ///
    /// asyncio: `ContextVar.reset`.
    pub fn reset(&self, token: &Token<T>) -> Result<()> {
        if token.used.load(Ordering::Relaxed) {
            return Err(used(token));
        }
        if token.variable != self.id() {
            return Err(Error::Value(format!("{token:?} was created by a different ContextVar").into()));
        }
        if token.identity != current_identity() {
            return Err(Error::Value(format!("{token:?} was created in a different Context").into()));
        }
        if token.used.swap(true, Ordering::Relaxed) {
            return Err(used(token)); // by another thread, this instant
        }
        // The value may be the last of its kind, and its drop is other people's code.
        drop(replace(self.id(), token.old.clone()));
        Ok(())
    }

    /// What tells this variable from others; a [`Token`] names it.
    pub fn id(&self) -> u64 {
        static LAST: AtomicU64 = AtomicU64::new(0);
        match self.id.load(Ordering::Relaxed) {
            0 => {
                let fresh = LAST.fetch_add(1, Ordering::Relaxed) + 1;
                match self.id.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => fresh,
                    Err(other_thread) => other_thread,
                }
            }
            id => id,
        }
    }
}

impl<T> fmt::Debug for ContextVar<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextVar").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What [`ContextVar::set`] gives: remembers what the variable was before.
///
/// asyncio: `contextvars.Token`.
pub struct Token<T: 'static> {
    variable: u64,
    identity: u64,
    old: Option<Value>,
    /// Set by `reset`; never cleared.
    used: AtomicBool,
    marker: PhantomData<fn() -> T>,
}

impl<T: Clone + Send + Sync + 'static> Token<T> {
    /// The value before the `set`, `None` if there was none (a default is not a value).
    ///
    /// asyncio: `Token.old_value`.
    pub fn old_value(&self) -> Option<T> {
        self.old.as_ref().map(unerase)
    }

    /// The [`id`](ContextVar::id) of the variable that made this token.
    ///
    /// asyncio: `Token.var`. Differs: the id, not the variable.
    pub fn var(&self) -> u64 {
        self.variable
    }
}

impl<T> fmt::Debug for Token<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = if self.used.load(Ordering::Relaxed) { " used" } else { "" };
        write!(f, "<Token{used} var={}>", self.variable)
    }
}

fn used<T>(token: &Token<T>) -> Error {
    Error::Runtime(format!("{token:?} has already been used once").into())
}

/// The context that the thread is in now, to run something in later.
#[inline]
pub(crate) fn capture() -> ContextRef {
    ContextRef::Bare(current_vars())
}

/// Whether the thread still keeps a context; not in its last moments.
pub(crate) fn is_available() -> bool {
    CURRENT.try_with(|_| ()).is_ok()
}

/// The variables that the thread sees now; none in its last moments.
#[inline]
pub(crate) fn current_vars() -> Vars {
    if PLACE.with(|place| place.plain.get()) {
        return None;
    }
    let vars = CURRENT.try_with(|current| match &*current.borrow() {
        ContextRef::Bare(vars) => vars.clone(),
        ContextRef::Shared(context) => context.vars(),
    });
    vars.ok().flatten()
}

fn current_identity() -> u64 {
    let shared = CURRENT.try_with(|current| match &*current.borrow() {
        ContextRef::Bare(_) => None,
        ContextRef::Shared(context) => Some(context.identity()),
    });
    shared.ok().flatten().unwrap_or_else(|| {
        PLACE.with(|place| {
            if place.identity.get() == 0 {
                place.identity.set(fresh_identity());
            }
            place.identity.get()
        })
    })
}

/// An identity that no context has had: odd, as those of tasks are even.
pub(crate) fn fresh_identity() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(1);
    LAST.fetch_add(2, Ordering::Relaxed)
}

/// Exchanges the current context. In the thread's last moments there is none, and `next` is given back.
fn exchange(next: ContextRef) -> ContextRef {
    let (plain, mut next) = (matches!(next, ContextRef::Bare(None)), Some(next));
    let before = CURRENT.try_with(|current| current.replace(next.take().unwrap_or_default()));
    PLACE.with(|place| place.plain.set(plain || before.is_err()));
    before.unwrap_or_else(|_| next.unwrap_or_default())
}

/// Turns the bare context with this identity into one that can be shared, if the thread is in it, and stays in it.
pub(crate) fn share_current(identity: u64) -> Option<Context> {
    if PLACE.with(|place| place.identity.get()) != identity {
        return None;
    }
    CURRENT.with_borrow_mut(|current| match current {
        ContextRef::Shared(_) => None,
        ContextRef::Bare(vars) => {
            let context = Context::from_vars(vars.take(), identity);
            context.lock().entered = true;
            *current = ContextRef::Shared(context.clone());
            PLACE.with(|place| place.plain.set(false));
            Some(context)
        }
    })
}

/// Puts the thread into `context` until the guard is dropped or [`left`](Entered::leave).
#[inline]
pub(crate) fn enter(context: ContextRef, identity: u64) -> Result<Entered> {
    let (plain, before) = PLACE.with(|place| (place.plain.get(), place.identity.replace(identity)));
    if plain && matches!(context, ContextRef::Bare(None)) {
        return Ok(Entered { before: ContextRef::Bare(None), identity: before, active: true });
    }
    enter_other(context, before)
}

fn enter_other(context: ContextRef, identity: u64) -> Result<Entered> {
    if let ContextRef::Shared(context) = &context {
        let mut state = context.lock();
        if state.entered {
            drop(state);
            PLACE.with(|place| place.identity.set(identity));
            return Err(Error::Runtime(format!("cannot enter context: {context:?} is already entered").into()));
        }
        state.entered = true;
    }
    Ok(Entered { before: exchange(context), identity, active: true })
}

/// Invariant: the thread is in the context that was entered, and returns to `before`.
pub(crate) struct Entered {
    before: ContextRef,
    identity: u64,
    /// Cleared by `leave`.
    active: bool,
}

impl Entered {
    /// Goes back to the context before and gives the one that was left, with what was set in it.
    #[inline]
    pub(crate) fn leave(mut self) -> ContextRef {
        self.restore()
    }

    #[inline]
    fn restore(&mut self) -> ContextRef {
        self.active = false;
        let plain = PLACE.with(|place| {
            place.identity.set(self.identity);
            place.plain.get()
        });
        if plain && matches!(self.before, ContextRef::Bare(None)) {
            return ContextRef::Bare(None);
        }
        self.restore_other()
    }

    fn restore_other(&mut self) -> ContextRef {
        let left = exchange(std::mem::take(&mut self.before));
        if let ContextRef::Shared(context) = &left {
            context.lock().entered = false;
        }
        left
    }
}

impl Drop for Entered {
    #[inline]
    fn drop(&mut self) {
        if self.active {
            drop(self.restore());
        }
    }
}

fn find(vars: &Vars, id: u64) -> Option<Value> {
    let vars = vars.as_ref()?;
    let place = vars.binary_search_by_key(&id, |entry| entry.0).ok()?;
    Some(vars[place].1.clone())
}

/// Sets or removes a variable of the current context and gives its value before. In the thread's last moments there is
/// no context any more, and the value is dropped.
fn replace(id: u64, value: Option<Value>) -> Option<Value> {
    let old = CURRENT.try_with(|current| match &mut *current.borrow_mut() {
        ContextRef::Bare(vars) => {
            let old = replace_in(vars, id, value);
            PLACE.with(|place| place.plain.set(vars.is_none()));
            old
        }
        ContextRef::Shared(context) => replace_in(&mut context.lock().vars, id, value),
    });
    old.ok().flatten()
}

fn replace_in(vars: &mut Vars, id: u64, value: Option<Value>) -> Option<Value> {
    let entries = Arc::make_mut(vars.get_or_insert_default());
    let old = match (entries.binary_search_by_key(&id, |entry| entry.0), value) {
        (Ok(place), Some(value)) => Some(std::mem::replace(&mut entries[place].1, value)),
        (Ok(place), None) => Some(entries.remove(place).1),
        (Err(place), Some(value)) => {
            entries.insert(place, (id, value));
            None
        }
        (Err(_), None) => None,
    };
    if entries.is_empty() {
        *vars = None;
    }
    old
}

fn unerase<T: Clone + 'static>(value: &Value) -> T {
    value.downcast_ref::<T>().expect("an id belongs to one variable, and a variable has one type").clone()
}
