//! Logging in by a Kerberos ticket (`GS2-KRB5-PLUS`, RFC 5801): the system's GSS-API library makes the messages of the ticket that
//! it finds, as the user has it from `kinit` or from logging in.
//!
//! The library may ask a KDC, and waits for it: it has a thread of its own, for which nobody waits who does not want to.

use crate::error::LoginError;
use crate::sasl::Exported;

/// Whose server it is, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// The name of the server's host, which its principal has.
    pub(crate) host: String,
    /// Name of the user, if it shall be checked against the ticket's.
    pub(crate) user: Option<String>,
}

#[cfg(feature = "kerberos")]
pub(crate) use real::{Context, look};

#[cfg(not(feature = "kerberos"))]
/// A login that cannot begin.
pub(crate) enum Context {}

#[cfg(not(feature = "kerberos"))]
/// Finds none.
pub(crate) async fn look() -> Result<(), LoginError> {
    let why = "this program was built without Kerberos (feature \"kerberos\")".to_owned();
    let is_unreachable = false;
    std::future::ready(Err(LoginError::Kerberos { why, is_unreachable })).await
}

#[cfg(not(feature = "kerberos"))]
impl Context {
    pub(crate) async fn begin(_: Ticket, _: Exported) -> Result<(Self, Vec<u8>), LoginError> {
        Err(look().await.err().unwrap_or(LoginError::Closed))
    }

    pub(crate) fn answer(&mut self, _: &[u8]) -> Result<Vec<u8>, LoginError> {
        match *self {}
    }

    pub(crate) fn is_over(&self) -> bool {
        match *self {}
    }
}

#[cfg(feature = "kerberos")]
mod real {
    use super::{Exported, LoginError, Ticket};
    use libgssapi::context::{ClientCtx, CtxFlags, SecurityContext as _};
    use libgssapi::credential::{Cred, CredUsage};
    use libgssapi::error::Error;
    use libgssapi::name::Name;
    use libgssapi::oid::{GSS_MECH_KRB5, GSS_NT_HOSTBASED_SERVICE, OidSet};
    use nufw_common::gs2::{self, SERVICE};
    use std::thread;
    use tokio::sync::oneshot;

    /// `KRB5_KDC_UNREACH` of MIT krb5 (`krb5.h`): no KDC answers.
    const KDC_UNREACHABLE: u32 = (-1_765_328_228_i32).cast_unsigned();

    /// A login that has begun.
    pub(crate) struct Context {
        gss: ClientCtx,
        binding: Vec<u8>,
        is_over: bool,
    }

    impl Context {
        /// Makes the first message.
        pub(crate) async fn begin(ticket: Ticket, exported: Exported) -> Result<(Self, Vec<u8>), LoginError> {
            aside(move || Self::make(&ticket, exported)).await
        }

        fn make(ticket: &Ticket, exported: Exported) -> Result<(Self, Vec<u8>), LoginError> {
            let target = format!("{SERVICE}@{}", ticket.host);
            let target = Name::new(target.as_bytes(), Some(GSS_NT_HOSTBASED_SERVICE)).map_err(of_gss)?;
            let header = gs2::header(ticket.user.as_deref());
            let binding = gs2::binding(&header, &exported);
            let (wanted, kerberos) = (CtxFlags::GSS_C_MUTUAL_FLAG, GSS_MECH_KRB5);
            let mut context = ClientCtx::new(None, target, wanted, Some(kerberos));
            let token = context.step(None, Some(&binding)).map_err(of_gss)?;
            let token = token.ok_or_else(|| failed("it made no token".to_owned()))?;
            let first = gs2::first_message(&header, &token).map_err(|error| failed(error.to_string()))?;
            let begun = Self {
                gss: context,
                binding,
                is_over: false,
            };
            Ok((begun, first))
        }

        /// Answers the server; with nothing, when it has proven itself.
        pub(crate) fn answer(&mut self, challenge: &[u8]) -> Result<Vec<u8>, LoginError> {
            let wrong = |why: String| LoginError::Conversation(why);
            let further = self
                .gss
                .step(Some(challenge), Some(&self.binding))
                .map_err(|error| wrong(gs2::words(&error)))?;
            if further.is_some() || !self.gss.is_complete() {
                return Err(wrong("it did not prove itself in one message".to_owned()));
            }
            self.is_over = true;
            Ok(Vec::new())
        }

        /// Whether the server has proven itself.
        pub(crate) fn is_over(&self) -> bool {
            self.is_over
        }
    }

    /// Whether there is a ticket to begin with; asks nobody.
    pub(crate) async fn look() -> Result<(), LoginError> {
        aside(|| {
            let kerberos = OidSet::singleton(GSS_MECH_KRB5).map_err(of_gss)?;
            let ticket = Cred::acquire(None, None, CredUsage::Initiate, Some(&kerberos)).map_err(of_gss)?;
            let lasts = ticket.info().map_err(of_gss)?.lifetime;
            if lasts.is_zero() {
                return Err(failed("Ticket expired".to_owned()));
            }
            Ok(())
        })
        .await
    }

    /// Lets the library work in a thread of its own.
    async fn aside<T: Send + 'static>(
        work: impl FnOnce() -> Result<T, LoginError> + Send + 'static,
    ) -> Result<T, LoginError> {
        let (done, made) = oneshot::channel();
        let thread = thread::Builder::new().name("kerberos".to_owned());
        let started = thread.spawn(move || drop(done.send(work())));
        started.map_err(|error| failed(error.to_string()))?;
        made.await
            .unwrap_or_else(|_| Err(failed("the Kerberos library ended without an answer".to_owned())))
    }

    fn of_gss(error: Error) -> LoginError {
        LoginError::Kerberos {
            why: gs2::words(&error),
            is_unreachable: error.minor == KDC_UNREACHABLE,
        }
    }

    fn failed(why: String) -> LoginError {
        let is_unreachable = false;
        LoginError::Kerberos { why, is_unreachable }
    }
}
