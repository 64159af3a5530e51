//! Obtaining one certificate: an order, its proof, the certificate (RFC 8555, section 7.4).

use std::time::Duration;

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Identifier, NewAccount,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use kiln_gateway::control::Proof;
use kiln_gateway::{Gateway, GatewayError};
use kiln_model::certificate::Acme;
use rcgen::{CertificateParams, CustomExtension, KeyPair};

use crate::http::Http;
use crate::store::Files;

/// How long the authority may take for its look, and for the certificate.
const PATIENCE: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(60));

/// How long all of it may take.
const WHOLE: Duration = Duration::from_secs(180);

/// What the authority says of an account that it does not know.
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// Why no certificate was obtained.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    #[error("{0}")]
    Trust(String),
    #[error("{}", told(.0))]
    Authority(#[from] instant_acme::Error),
    #[error("the authority does not offer tls-alpn-01 for {0}, by which Kiln proves its names")]
    NotOffered(String),
    #[error("the authority could not see that {name} leads here: {reason}")]
    Refused { name: String, reason: String },
    #[error("the gateway cannot show the proof")]
    Gateway(#[from] GatewayError),
    #[error("the proof cannot be made")]
    Proof(#[from] rcgen::Error),
    #[error("it was not issued within {} s", WHOLE.as_secs())]
    Late,
    #[error("what was issued cannot be kept")]
    Keep(#[from] std::io::Error),
    #[error("a thread of it has ended")]
    Thread(#[from] tokio::task::JoinError),
}

/// What an authority says, without the library's words around it.
fn told(error: &instant_acme::Error) -> String {
    match error {
        instant_acme::Error::Api(problem) => {
            let detail = problem.detail.as_deref().unwrap_or("no reason given");
            let kind = problem.r#type.as_deref().unwrap_or("no type given");
            format!("the authority refuses: {detail} ({kind})")
        }
        instant_acme::Error::Timeout(_) => "the authority takes too long".to_owned(),
        error => format!("the authority cannot be asked: {error}"),
    }
}

/// A certificate with those that vouch for it, and its key; both in PEM.
pub(crate) struct Issued {
    pub(crate) chain: String,
    pub(crate) key: String,
}

/// Obtains a certificate for a name.
pub(crate) async fn obtain(
    files: &Files,
    gateway: &Gateway,
    acme: &Acme,
    name: &str,
) -> Result<Issued, OrderError> {
    let obtained = tokio::time::timeout(WHOLE, order(files, gateway, acme, name)).await;
    // Whatever became of it, its proof is not asked for any more.
    let taken_back = show(gateway, Vec::new()).await;
    let obtained = obtained.unwrap_or(Err(OrderError::Late));
    if let Err(OrderError::Authority(instant_acme::Error::Api(problem))) = &obtained
        && problem.r#type.as_deref() == Some(NO_ACCOUNT)
    {
        files.forget_account(acme);
    }
    let issued = obtained?;
    taken_back?;
    Ok(issued)
}

async fn order(
    files: &Files,
    gateway: &Gateway,
    acme: &Acme,
    name: &str,
) -> Result<Issued, OrderError> {
    let account = account(files, acme).await?;
    let wanted = [Identifier::Dns(name.to_owned())];
    let mut order = account.new_order(&NewOrder::new(&wanted)).await?;
    prove(gateway, &mut order, name).await?;
    if order.poll_ready(&PATIENCE).await? != OrderStatus::Ready {
        let reason = reason(&mut order).await?;
        return Err(OrderError::Refused { name: name.to_owned(), reason });
    }
    let key = order.finalize().await?;
    let chain = order.poll_certificate(&PATIENCE).await?;
    Ok(Issued { chain, key })
}

/// The account with the authority, made where there is none.
async fn account(files: &Files, acme: &Acme) -> Result<Account, OrderError> {
    let roots = acme.roots.clone();
    let http = tokio::task::spawn_blocking(move || Http::new(roots.as_deref())).await?;
    let builder = Account::builder_with_http(Box::new(http.map_err(OrderError::Trust)?));
    if let Some(known) = files.account::<AccountCredentials>(acme) {
        return Ok(builder.from_credentials(known).await?);
    }
    let email = acme.email.as_ref().map(|email| format!("mailto:{email}"));
    let contact: Vec<&str> = email.as_deref().into_iter().collect();
    let wanted = NewAccount {
        contact: &contact,
        // The configuration says so: `agree = true`.
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let (account, credentials) = builder.create(&wanted, acme.directory.clone(), None).await?;
    files.keep_account(acme, &credentials)?;
    Ok(account)
}

/// Has the gateway show what the authority asks to see, and the authority look.
async fn prove(gateway: &Gateway, order: &mut Order, name: &str) -> Result<(), OrderError> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let challenge = authorization.challenge(ChallengeType::TlsAlpn01);
        let mut challenge = challenge.ok_or_else(|| OrderError::NotOffered(name.to_owned()))?;
        let answer = challenge.key_authorization().digest().as_ref().to_vec();
        show(gateway, vec![proof(name, &answer)?]).await?;
        challenge.set_ready().await?;
    }
    Ok(())
}

async fn show(gateway: &Gateway, proofs: Vec<Proof>) -> Result<(), OrderError> {
    let gateway = gateway.clone();
    Ok(tokio::task::spawn_blocking(move || gateway.set_proofs(proofs)).await??)
}

/// A certificate that holds the answer (RFC 8737, section 3).
fn proof(name: &str, answer: &[u8]) -> Result<Proof, rcgen::Error> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(answer)];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?.pem();
    Ok(Proof { name: name.to_owned(), certificate, key: key.serialize_pem() })
}

/// What the authority says it found.
async fn reason(order: &mut Order) -> Result<String, OrderError> {
    let mut found = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        let state = authorization.refresh().await?;
        let problems = state.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        found.extend(problems.filter_map(|problem| problem.detail.clone()));
    }
    Ok(if found.is_empty() { "no reason given".to_owned() } else { found.join("; ") })
}
