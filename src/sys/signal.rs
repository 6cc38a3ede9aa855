//! What runs inside this process's signal handlers, with the old disposition back when nothing is left to run.
//!
//! A signal has one disposition per process. signal-hook-registry, which tokio and async-signal use too, installs one
//! handler per signal and runs any number of actions in it, but it never takes that handler away again and believes ever
//! after that it is there. So this file keeps beside it what each signal's disposition was before and what the registry
//! made of it, puts the former back with the last [`Registration`] and the latter with the next first one:
//!
//! ```text
//! previous --register (first)--> the registry's handler --drop (last)--> previous --register--> the registry's ...
//! ```
//!
//! What follows from the registry:
//!
//! - A C handler that it found at its very first installation for a signal is called before the actions, now and after
//!   every later installation; `SIG_DFL` and `SIG_IGN` are not carried out. A handler that the program installs later is
//!   replaced while a [`Registration`] lives, and comes back.
//! - Another library that registered its action for a signal before us keeps it: the previous disposition is then the
//!   registry's own. One that comes after our first registration loses the signal with our last one, and the registry
//!   does not install itself again for it; nothing in its interface tells us that it is there. A program that shares a
//!   signal in this way registers the other library's action first.

use std::{
    collections::BTreeMap,
    io, mem, ptr,
    sync::{Mutex, MutexGuard, PoisonError},
};

pub use async_signal::Signal;
use signal_hook_registry::{self as registry, SigId};

use crate::error::{Error, Result};

/// A signal, by number or by [`Signal`]: what `add_signal_handler` and `remove_signal_handler` take.
///
/// Numbers are the system's own and need not be known to [`Signal`]: realtime signals have nothing else. Whether a
/// number is valid is found out by the call that it is given to.
///
/// # Examples
///
/// ```
/// use asyncio::{Signal, ToSignal};
///
/// assert_eq!(Signal::Int.signal_number(), 2);
/// assert_eq!(2.signal_number(), 2);
///
/// let event_loop = asyncio::new_event_loop()?;
/// event_loop.add_signal_handler(Signal::Term, || println!("asked to end"))?;
/// assert!(event_loop.remove_signal_handler(Signal::Term)?);
/// # asyncio::ok(())
/// ```
///
/// asyncio: the `sig` argument of `loop.add_signal_handler`.
pub trait ToSignal {
    /// The system's number of the signal.
    fn signal_number(&self) -> i32;
}

impl ToSignal for i32 {
    fn signal_number(&self) -> i32 {
        *self
    }
}

impl ToSignal for Signal {
    fn signal_number(&self) -> i32 {
        *self as i32
    }
}

/// Whether `number` is a signal of this system; those that the C library keeps for itself (32 and 33 on Linux) are not.
pub(crate) fn check_number(number: i32) -> Result<()> {
    let mut all = mem::MaybeUninit::uninit();
    // SAFETY: sigfillset writes a whole set to the pointer, which is valid, before sigismember reads it; sigismember
    // answers -1 for a number that is out of range.
    let member = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::sigismember(all.as_ptr(), number)
    };
    if member == 1 { Ok(()) } else { Err(Error::Value(format!("invalid signal number {number}").into())) }
}

/// Whether a handler may stand for `number`: the system refuses SIGKILL and SIGSTOP, the registry SIGILL, SIGFPE and
/// SIGSEGV too, whose handlers must not return.
pub(crate) fn check_catchable(number: i32) -> Result<()> {
    if registry::FORBIDDEN.contains(&number) {
        return Err(Error::Runtime(format!("sig {number} cannot be caught").into()));
    }
    Ok(())
}

/// Whether this is the thread that signal handling belongs to: the one that the process began with.
pub(crate) fn on_main_thread() -> bool {
    main_thread::is_current()
}

/// Whether the disposition of `number` is the system's default; false for a number that is none.
pub(crate) fn is_default(number: i32) -> bool {
    disposition(number).is_ok_and(|current| current.sa_sigaction == libc::SIG_DFL)
}

/// One loop's interest in one signal; while it lives, its action runs at each arrival of the signal.
///
/// Dropping it ends that, and waits for an action that is running on another thread just now; the last one for its
/// signal also gives back the disposition that was found, unless another one has been installed meanwhile. It may be
/// dropped on any thread, but not inside a signal handler.
///
/// `Threads:` may cross them.
#[derive(Debug)]
pub(crate) struct Registration {
    number: i32,
    id: SigId,
}

/// Runs `action` at each arrival of signal `number` until the [`Registration`] is dropped.
///
/// The action runs inside the signal handler, on whatever thread the system picks, and in a forked child too. It must be
/// async-signal-safe: set atomics, write to a descriptor, and neither lock, allocate nor panic. What it owns must not
/// register or unregister signals when dropped. Actions for one signal run in the order of registration.
///
/// # Errors
///
/// What [`check_number`] and [`check_catchable`] say. Runtime if another user of the registry has taken its handler away.
pub(crate) fn register(number: i32, action: impl Fn() + Send + Sync + 'static) -> Result<Registration> {
    check_number(number)?;
    check_catchable(number)?;
    let mut table = lock_table();
    let found = disposition(number)?;
    // SAFETY: this crate's only action, in `signals.rs`, keeps to what is asked for above.
    let id = unsafe { registry::register(number, action) }?;
    match Installed::record(&mut table, number, found) {
        Ok(()) => Ok(Registration { number, id }),
        Err(error) => {
            registry::unregister(id);
            Err(error)
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut table = lock_table();
        // The disposition goes first, so that no signal finds the registry's handler with nothing left to run.
        if let Some(installed) = table.get_mut(&self.number) {
            installed.release(self.number);
        }
        registry::unregister(self.id);
    }
}

/// Every signal that has ever been registered. Not touched inside signal handlers.
static TABLE: Mutex<BTreeMap<i32, Installed>> = Mutex::new(BTreeMap::new());

fn lock_table() -> MutexGuard<'static, BTreeMap<i32, Installed>> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is known of one signal; it is never forgotten, as the registry never forgets.
struct Installed {
    /// How many [`Registration`]s of the signal live.
    count: usize,
    /// What the last of them gives back. Stale while there are none.
    previous: libc::sigaction,
    /// The registry's handler with its flags (`SA_RESTART`), as it was read back after the registry installed it.
    registry: libc::sigaction,
}

impl Installed {
    /// Counts a registration that the registry has just taken, and sees to it that the registry's handler stands.
    ///
    /// `found` is the disposition from before: the registry installs itself the first time only.
    fn record(table: &mut BTreeMap<i32, Self>, number: i32, found: libc::sigaction) -> Result<()> {
        let Some(installed) = table.get_mut(&number) else {
            let registry = disposition(number)?;
            if [libc::SIG_DFL, libc::SIG_IGN].contains(&registry.sa_sigaction) {
                let text = format!("sig {number}: the handler of signal-hook-registry was taken away");
                return Err(Error::Runtime(text.into()));
            }
            table.insert(number, Installed { count: 1, previous: found, registry });
            return Ok(());
        };
        if installed.count == 0 || !same_handler(&found, &installed.registry) {
            set_disposition(number, &installed.registry)?;
            installed.previous = found;
        }
        installed.count += 1;
        Ok(())
    }

    /// Takes one registration off the count; with the last one the previous disposition comes back.
    fn release(&mut self, number: i32) {
        self.count -= 1;
        let stands = || disposition(number).is_ok_and(|current| same_handler(&current, &self.registry));
        if self.count == 0 && stands() {
            // Cannot fail: the number is valid and the disposition came from the system.
            let _ = set_disposition(number, &self.previous);
        }
    }
}

/// Handlers are compared by address alone, because the system adds to the flags of what it is given.
fn same_handler(one: &libc::sigaction, other: &libc::sigaction) -> bool {
    one.sa_sigaction == other.sa_sigaction
}

/// What the system does now when signal `number` arrives.
fn disposition(number: i32) -> io::Result<libc::sigaction> {
    let mut current = mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action sigaction only writes the old one, to a pointer that is valid.
    let status = unsafe { libc::sigaction(number, ptr::null(), current.as_mut_ptr()) };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: sigaction succeeded and so filled it in; it began as zeros, which are valid for every field of it.
    Ok(unsafe { current.assume_init() })
}

/// Puts back a disposition that [`disposition`] gave.
fn set_disposition(number: i32, action: &libc::sigaction) -> io::Result<()> {
    // SAFETY: the action came from sigaction, so its handler was fit to be called for this signal, and handlers are
    // code, which stays; the old action is not asked for.
    let status = unsafe { libc::sigaction(number, action, ptr::null_mut()) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod main_thread {
    pub(super) fn is_current() -> bool {
        rustix::thread::gettid() == rustix::process::getpid()
    }
}

#[cfg(any(target_vendor = "apple", target_os = "freebsd", target_os = "dragonfly", target_os = "openbsd"))]
mod main_thread {
    pub(super) fn is_current() -> bool {
        // SAFETY: it takes nothing and only looks at the calling thread.
        unsafe { libc::pthread_main_np() == 1 }
    }
}

#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "dragonfly",
    target_os = "openbsd"
)))]
mod main_thread {
    /// Std names the first thread so; a thread that the program itself names "main" is taken for it.
    pub(super) fn is_current() -> bool {
        std::thread::current().name() == Some("main")
    }
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        process::Command,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        thread,
    };

    use super::*;
    use crate::error::ErrorKind;

    const USR1: i32 = Signal::Usr1 as i32;
    const USR2: i32 = Signal::Usr2 as i32;

    /// Set in the child process that a test runs in.
    const ALONE: &str = "ASYNCIO_TEST_ALONE";

    /// Runs `body` in a process of its own: this program again, with nothing but the test called `name`.
    fn alone(name: &str, body: fn()) {
        if env::var_os(ALONE).is_some() {
            // SAFETY: alarm takes a number of seconds; its signal ends a process that hangs.
            unsafe { libc::alarm(30) };
            return body();
        }
        let (_, module) = module_path!().split_once("::").unwrap();
        let output = Command::new(env::current_exe().unwrap())
            .args([&format!("{module}::{name}"), "--exact", "--nocapture", "--test-threads=1"])
            .env(ALONE, "1")
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert!(output.status.success() && text.contains("1 passed"), "{}: {text}", output.status);
    }

    /// Sends the signal to this very thread: its handlers have run when this returns.
    fn raise(number: i32) {
        // SAFETY: raise takes a number; what it runs are the handlers that the test has installed.
        assert_eq!(unsafe { libc::raise(number) }, 0);
    }

    /// Installs a disposition as C code would: `SIG_DFL`, `SIG_IGN` or the address of a handler.
    fn install(number: i32, handler: libc::sighandler_t) {
        // SAFETY: the tests give the two constants and the functions below, which set atomics only.
        assert_ne!(unsafe { libc::signal(number, handler) }, libc::SIG_ERR);
    }

    fn installed(number: i32) -> libc::sighandler_t {
        disposition(number).unwrap().sa_sigaction
    }

    static FOREIGN_CALLS: AtomicUsize = AtomicUsize::new(0);

    extern "C" fn foreign(_: libc::c_int) {
        FOREIGN_CALLS.fetch_add(1, Ordering::SeqCst);
    }

    fn foreign_handler() -> libc::sighandler_t {
        foreign as extern "C" fn(libc::c_int) as libc::sighandler_t
    }

    /// Counts the arrivals of a signal.
    #[derive(Clone, Default)]
    struct Counter(Arc<AtomicUsize>);

    impl Counter {
        fn action(&self) -> impl Fn() + Send + Sync + 'static {
            let count = self.0.clone();
            move || {
                count.fetch_add(1, Ordering::SeqCst);
            }
        }

        fn registered(number: i32) -> (Self, Registration) {
            let counter = Counter::default();
            let registration = register(number, counter.action()).unwrap();
            (counter, registration)
        }

        /// As another library would do it, directly with the registry.
        fn registered_by_another(number: i32) -> (Self, SigId) {
            let counter = Counter::default();
            // SAFETY: the action adds to an atomic.
            let id = unsafe { registry::register(number, counter.action()) }.unwrap();
            (counter, id)
        }

        fn get(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    /// SIG-001
    #[test]
    fn a_number_that_is_no_signal_is_a_value_error() {
        for number in [0, -1, 65, 1000, i32::MIN, i32::MAX] {
            let error = check_number(number).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Value);
            assert_eq!(error.to_string(), format!("invalid signal number {number}"));
            assert_eq!(register(number, || ()).unwrap_err().kind(), ErrorKind::Value);
            assert!(!is_default(number));
        }
        (1..=31).for_each(|number| check_number(number).unwrap());
    }

    /// SIG-001
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn realtime_signals_are_valid_but_not_those_of_the_c_library() {
        (libc::SIGRTMIN()..=64).for_each(|number| check_number(number).unwrap());
        (32..libc::SIGRTMIN()).for_each(|number| assert!(check_number(number).is_err()));
    }

    /// SIG-002
    #[test]
    fn some_signals_cannot_be_caught() {
        for signal in [Signal::Kill, Signal::Stop, Signal::Segv, Signal::Ill, Signal::Fpe] {
            let number = signal.signal_number();
            check_number(number).unwrap();
            let error = check_catchable(number).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Runtime);
            assert_eq!(error.to_string(), format!("sig {number} cannot be caught"));
            assert_eq!(register(number, || ()).unwrap_err().kind(), ErrorKind::Runtime);
        }
        check_catchable(Signal::Bus.signal_number()).unwrap();
    }

    #[test]
    fn a_signal_is_its_number() {
        assert_eq!(Signal::Int.signal_number(), libc::SIGINT);
        assert_eq!(Signal::Usr2.signal_number(), libc::SIGUSR2);
        assert_eq!(Signal::Child.signal_number(), libc::SIGCHLD);
        assert_eq!(64.signal_number(), 64);
    }

    #[test]
    fn a_registration_may_cross_threads() {
        fn send_and_sync<T: Send + Sync>() {}
        send_and_sync::<Registration>();
    }

    #[test]
    fn another_thread_is_not_the_main_thread() {
        assert!(!thread::spawn(on_main_thread).join().unwrap());
    }

    #[test]
    fn a_forked_child_goes_on_as_its_main_thread() {
        // SAFETY: the child calls gettid and getpid, then leaves without any clean-up.
        let child = unsafe {
            let child = libc::fork();
            if child == 0 {
                libc::_exit(on_main_thread().into());
            }
            child
        };
        let mut status = 0;
        // SAFETY: the child is ours and the pointer is valid.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(libc::WEXITSTATUS(status), 1);
    }

    /// SIG-003
    #[test]
    fn the_default_disposition_comes_back() {
        alone("the_default_disposition_comes_back", || {
            install(USR1, libc::SIG_DFL);
            assert!(is_default(USR1));
            let (counter, registration) = Counter::registered(USR1);
            assert!(!is_default(USR1));
            assert_ne!(disposition(USR1).unwrap().sa_flags & libc::SA_RESTART, 0);
            raise(USR1);
            raise(USR1);
            assert_eq!(counter.get(), 2);
            drop(registration);
            assert!(is_default(USR1));
        });
    }

    #[test]
    fn an_ignored_signal_is_ignored_again() {
        alone("an_ignored_signal_is_ignored_again", || {
            install(USR1, libc::SIG_IGN);
            let (counter, registration) = Counter::registered(USR1);
            raise(USR1);
            drop(registration);
            raise(USR1);
            assert_eq!(counter.get(), 1);
            assert_eq!(installed(USR1), libc::SIG_IGN);
        });
    }

    #[test]
    fn a_foreign_handler_comes_back_and_is_called_meanwhile() {
        alone("a_foreign_handler_comes_back_and_is_called_meanwhile", || {
            install(USR1, foreign_handler());
            let before = disposition(USR1).unwrap();
            for round in 1..=3 {
                let (counter, registration) = Counter::registered(USR1);
                raise(USR1);
                assert_eq!(counter.get(), 1);
                assert_eq!(FOREIGN_CALLS.load(Ordering::SeqCst), 2 * round - 1);
                drop(registration);
                let after = disposition(USR1).unwrap();
                assert_eq!((after.sa_sigaction, after.sa_flags), (before.sa_sigaction, before.sa_flags));
                raise(USR1);
                assert_eq!(counter.get(), 1);
                assert_eq!(FOREIGN_CALLS.load(Ordering::SeqCst), 2 * round);
            }
        });
    }

    #[test]
    fn a_foreign_handler_that_came_after_the_first_round_comes_back_uncalled() {
        alone("a_foreign_handler_that_came_after_the_first_round_comes_back_uncalled", || {
            install(USR1, libc::SIG_DFL);
            drop(Counter::registered(USR1));
            install(USR1, foreign_handler());
            let (counter, registration) = Counter::registered(USR1);
            raise(USR1);
            assert_eq!((counter.get(), FOREIGN_CALLS.load(Ordering::SeqCst)), (1, 0));
            drop(registration);
            assert_eq!(installed(USR1), foreign_handler());
        });
    }

    #[test]
    fn a_handler_that_was_installed_over_ours_stays() {
        alone("a_handler_that_was_installed_over_ours_stays", || {
            install(USR1, libc::SIG_DFL);
            let (_, registration) = Counter::registered(USR1);
            install(USR1, foreign_handler());
            drop(registration);
            assert_eq!(installed(USR1), foreign_handler());
        });
    }

    #[test]
    fn what_the_first_of_each_round_finds_is_what_comes_back() {
        alone("what_the_first_of_each_round_finds_is_what_comes_back", || {
            install(USR1, libc::SIG_DFL);
            let (_, registration) = Counter::registered(USR1);
            let ours = disposition(USR1).unwrap();
            install(USR1, foreign_handler());
            drop(registration);
            set_disposition(USR1, &ours).unwrap(); // the foreign handler's owner gives back what it found
            drop(Counter::registered(USR1));
            assert_eq!(installed(USR1), ours.sa_sigaction);
        });
    }

    #[test]
    fn a_further_registration_takes_a_replaced_signal_back() {
        alone("a_further_registration_takes_a_replaced_signal_back", || {
            install(USR1, libc::SIG_DFL);
            let (one, first) = Counter::registered(USR1);
            install(USR1, foreign_handler());
            let (two, second) = Counter::registered(USR1);
            raise(USR1);
            assert_eq!((one.get(), two.get(), FOREIGN_CALLS.load(Ordering::SeqCst)), (1, 1, 0));
            drop(second);
            drop(first);
            assert_eq!(installed(USR1), foreign_handler());
        });
    }

    #[test]
    fn two_registrations_of_one_signal_are_both_served() {
        alone("two_registrations_of_one_signal_are_both_served", || {
            install(USR1, libc::SIG_DFL);
            let (one, first) = Counter::registered(USR1);
            let (two, second) = Counter::registered(USR1);
            raise(USR1);
            assert_eq!((one.get(), two.get()), (1, 1));
            drop(first);
            raise(USR1);
            assert_eq!((one.get(), two.get()), (1, 2));
            drop(second);
            assert!(is_default(USR1));
        });
    }

    #[test]
    fn signals_do_not_mix() {
        alone("signals_do_not_mix", || {
            install(USR1, libc::SIG_DFL);
            install(USR2, libc::SIG_IGN);
            let (one, first) = Counter::registered(USR1);
            let (two, second) = Counter::registered(USR2);
            raise(USR2);
            assert_eq!((one.get(), two.get()), (0, 1));
            drop(first);
            assert!(is_default(USR1));
            raise(USR2);
            assert_eq!((one.get(), two.get()), (0, 2));
            drop(second);
            assert_eq!(installed(USR2), libc::SIG_IGN);
        });
    }

    /// The registry believes that its handler is still there.
    #[test]
    fn a_signal_is_served_again_after_its_disposition_was_given_back() {
        alone("a_signal_is_served_again_after_its_disposition_was_given_back", || {
            install(USR1, libc::SIG_DFL);
            for _ in 0..3 {
                let (counter, registration) = Counter::registered(USR1);
                raise(USR1);
                assert_eq!(counter.get(), 1);
                drop(registration);
                assert!(is_default(USR1));
            }
        });
    }

    #[test]
    fn a_signal_that_was_given_back_ends_the_process() {
        if env::var_os(ALONE).is_none() {
            let test = concat!(module_path!(), "::a_signal_that_was_given_back_ends_the_process");
            let output = Command::new(env::current_exe().unwrap())
                .args([test.split_once("::").unwrap().1, "--exact", "--test-threads=1"])
                .env(ALONE, "1")
                .output()
                .unwrap();
            let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
            return assert_eq!(signal, Some(USR1));
        }
        install(USR1, libc::SIG_DFL);
        drop(Counter::registered(USR1));
        raise(USR1);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn realtime_signals_are_served() {
        alone("realtime_signals_are_served", || {
            for number in [libc::SIGRTMIN(), libc::SIGRTMAX()] {
                let (counter, registration) = Counter::registered(number);
                raise(number);
                assert_eq!(counter.get(), 1);
                drop(registration);
                assert!(is_default(number));
            }
        });
    }

    #[test]
    fn another_user_of_the_registry_who_came_first_keeps_its_signal() {
        alone("another_user_of_the_registry_who_came_first_keeps_its_signal", || {
            let (other, id) = Counter::registered_by_another(USR1);
            for round in 1..=3 {
                let (counter, registration) = Counter::registered(USR1);
                raise(USR1);
                assert_eq!((counter.get(), other.get()), (1, 2 * round - 1));
                drop(registration);
                raise(USR1);
                assert_eq!((counter.get(), other.get()), (1, 2 * round));
            }
            assert!(registry::unregister(id));
        });
    }

    #[test]
    fn another_user_of_the_registry_who_came_later_is_served_as_long_as_we_are() {
        alone("another_user_of_the_registry_who_came_later_is_served_as_long_as_we_are", || {
            install(USR1, libc::SIG_DFL);
            let (counter, registration) = Counter::registered(USR1);
            let (other, id) = Counter::registered_by_another(USR1);
            raise(USR1);
            assert_eq!((counter.get(), other.get()), (1, 1));
            assert!(registry::unregister(id));
            raise(USR1);
            assert_eq!((counter.get(), other.get()), (2, 1));
            drop(registration);
            assert!(is_default(USR1));

            // After the restore it hears nothing by itself, but again with our next registration.
            let (late, _) = Counter::registered_by_another(USR1);
            assert!(is_default(USR1));
            let (counter, _registration) = Counter::registered(USR1);
            raise(USR1);
            assert_eq!((counter.get(), late.get()), (1, 1));
        });
    }

    #[test]
    fn a_registry_whose_handler_was_taken_away_is_an_error() {
        alone("a_registry_whose_handler_was_taken_away_is_an_error", || {
            let (other, _) = Counter::registered_by_another(USR1);
            install(USR1, libc::SIG_IGN);
            assert_eq!(register(USR1, || ()).unwrap_err().kind(), ErrorKind::Runtime);
            raise(USR1);
            assert_eq!((other.get(), installed(USR1)), (0, libc::SIG_IGN));
        });
    }

    #[test]
    fn threads_may_register_and_drop_at_once_under_fire() {
        alone("threads_may_register_and_drop_at_once_under_fire", || {
            install(USR1, libc::SIG_IGN);
            let threads: [_; 4] = std::array::from_fn(|_| {
                thread::spawn(|| {
                    for _ in 0..500 {
                        let (counter, registration) = Counter::registered(USR1);
                        raise(USR1);
                        assert!(counter.get() >= 1, "the other threads' signals are counted too");
                        drop(registration);
                    }
                })
            });
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(installed(USR1), libc::SIG_IGN);
        });
    }
}
