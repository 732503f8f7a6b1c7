//! Credential providers: programs that are asked for credentials of images that match what they are configured for.
//!
//! Owns what they answered, for as long as they said that it holds, and the service accounts' tokens that they are shown; both in
//! memory only. Concurrent questions about the same are one run of the program, which goes on when who asked goes away. Nothing
//! that a provider fails at fails the pull by itself: other credentials may do. What is said of a failure holds no secret.

mod account;
mod answer;
mod cache;
mod run;

use super::auth::{DockerConfig, Source};
use super::keyring::{Keyring, matches};
use super::reference::Reference;
use account::{Accounts, Shown};
use answer::{Answer, CacheKeyType};
use cache::{Cache, Key, Scope};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, join_all};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// No more runs of one provider at once.
const RUNS_MAX: usize = 16;

/// One of CredentialProviderConfig's `providers`.
#[derive(Clone, PartialEq, Eq)]
pub struct Provider {
    pub name: String,
    pub match_images: Vec<String>,
    pub default_cache: Duration,
    /// Of the question and of the answer.
    pub api_version: String,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub tokens: Option<TokenAttributes>,
}

impl fmt::Debug for Provider {
    /// Arguments and variables may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("name", &self.name).field("match_images", &self.match_images).finish_non_exhaustive()
    }
}

/// `tokenAttributes`: the provider is shown a token of the pod's service account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenAttributes {
    pub audience: String,
    /// `cacheType`: what it answers holds for one token only, not for its service account.
    pub for_one_token: bool,
    /// Pods without a service account are not asked for.
    pub require_account: bool,
    pub required_annotations: Vec<String>,
    pub optional_annotations: Vec<String>,
}

/// The pod that an image is for.
#[derive(Debug, Clone, Copy)]
pub struct For<'a> {
    pub namespace: &'a str,
    pub pod: &'a str,
    pub uid: &'a str,
    /// Empty: none.
    pub account: &'a str,
}

/// What all providers together have for an image.
#[derive(Default)]
pub struct Given {
    pub keyring: Keyring,
    /// Why some have nothing.
    pub problems: Vec<String>,
}

/// Why a provider has no credentials. Said to who reads the pod's events: nothing here is the program's own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("cannot be started: {0}")]
    Start(String),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("failed: {0}")]
    Failed(String),
    #[error("its answer is larger than {0} bytes")]
    Large(usize),
    #[error("its answer cannot be read as a CredentialProviderResponse")]
    Answer,
    #[error("its answer is of apiVersion {got:?}, not {wanted:?}")]
    Version { wanted: String, got: String },
    #[error("its answer has the cacheKeyType {0:?}, which is none of Image, Registry and Global")]
    CacheKeyType(String),
    #[error("it gave the service account's token for a password, which only the cacheType Token allows")]
    Echo,
    #[error("cannot read the service account {account:?}: {why}")]
    Account { account: String, why: String },
    #[error("no token for the service account {account:?}: {why}")]
    Token { account: String, why: String },
    #[error("the agent is stopping")]
    Stopping,
}

type Asked = Result<Arc<Answer>, Error>;
type Run = Shared<BoxFuture<'static, Asked>>;

struct One {
    spec: Provider,
    program: PathBuf,
    cache: Mutex<Cache<Arc<DockerConfig>>>,
    runs: Mutex<HashMap<Question, Run>>,
    slots: Semaphore,
}

/// What a run of a program depends on.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Question {
    image: String,
    token: String,
    annotations: BTreeMap<String, String>,
}

pub struct Providers {
    all: Vec<Arc<One>>,
    accounts: Accounts,
}

impl Providers {
    pub fn new(all: &[Provider], folder: &std::path::Path, kube: kube::Client) -> Providers {
        let one = |spec: &Provider| {
            Arc::new(One {
                program: folder.join(&spec.name),
                spec: spec.clone(),
                cache: Mutex::default(),
                runs: Mutex::default(),
                slots: Semaphore::new(RUNS_MAX),
            })
        };
        Providers { all: all.iter().map(one).collect(), accounts: Accounts::new(kube) }
    }

    /// What those have that the image is configured for.
    pub async fn credentials(&self, image: &str, who: For<'_>) -> Given {
        let Ok(reference) = Reference::parse(image) else { return Given::default() };
        let image = format!("{}/{}", reference.registry, reference.repository);
        let fitting = self.all.iter().filter(|one| one.spec.match_images.iter().any(|place| matches(place, &image)));
        let answers = join_all(fitting.map(|one| self.ask(one, &image, who))).await;
        let mut given = Given::default();
        for (name, answer) in answers {
            match answer {
                Ok((source, config)) => given.keyring.add(&source, DockerConfig::clone(&config)),
                Err(error) => {
                    tracing::warn!(provider = name, image, pod_uid = who.uid, %error, "no credentials from a credential provider");
                    given.problems.push(format!("credential provider {name:?}: {error}"));
                }
            }
        }
        given
    }

    async fn ask<'a>(
        &self,
        one: &'a Arc<One>,
        image: &str,
        who: For<'_>,
    ) -> (&'a str, Result<(Source, Arc<DockerConfig>), Error>) {
        let answer = async {
            let Some(attributes) = &one.spec.tokens else { return one.config(image, None).await.map(|c| (Source::Node, c)) };
            match self.accounts.shown(attributes, who).await? {
                None => Ok((Source::Node, Arc::default())),
                Some(None) => one.config(image, None).await.map(|c| (Source::Node, c)),
                Some(Some(shown)) => {
                    let source = Source::Account(shown.account.clone());
                    one.config(image, Some((shown, attributes.for_one_token))).await.map(|c| (source, c))
                }
            }
        };
        (&one.spec.name, answer.await)
    }
}

impl One {
    /// From what it answered before, if that still holds.
    async fn config(self: &Arc<One>, image: &str, shown: Option<(Shown, bool)>) -> Result<Arc<DockerConfig>, Error> {
        let whose = shown.as_ref().map(|(shown, for_one_token)| cache::Whose::of(shown, *for_one_token));
        let registry = image.split('/').next().unwrap_or_default();
        let scopes = || [Scope::Image(image.to_owned()), Scope::Registry(registry.to_owned()), Scope::Global];
        let key = |scope: Scope| Key { scope, whose: whose.clone() };
        let now = Instant::now();
        if let Some(found) = scopes().into_iter().find_map(|scope| locked(&self.cache).get(&key(scope), now)) {
            return Ok(found);
        }
        let token = shown.as_ref().map(|(s, _)| s.token.clone()).unwrap_or_default();
        let annotations = shown.as_ref().map(|(s, _)| s.annotations.clone()).unwrap_or_default();
        let answer = self.run(Question { image: image.to_owned(), token: token.clone(), annotations }).await?;
        if shown.is_some_and(|(_, for_one_token)| !for_one_token) && answer.config.0.values().any(|l| l.password == token) {
            return Err(Error::Echo);
        }
        let config = Arc::new(answer.config.clone());
        let scope = match answer.cache_key_type {
            CacheKeyType::Image => Scope::Image(image.to_owned()),
            CacheKeyType::Registry => Scope::Registry(registry.to_owned()),
            CacheKeyType::Global => Scope::Global,
        };
        let holds = answer.holds.unwrap_or(self.spec.default_cache);
        if !holds.is_zero() {
            let now = Instant::now();
            locked(&self.cache).put(key(scope), config.clone(), now, holds);
        }
        Ok(config)
    }

    /// One run for all who ask the same at the same time.
    fn run(self: &Arc<One>, question: Question) -> Run {
        let mut runs = locked(&self.runs);
        if let Some(run) = runs.get(&question) {
            return run.clone();
        }
        let (one, about) = (self.clone(), question.clone());
        let work = tokio::spawn(async move {
            let asked = one.carry_out(&about).await;
            locked(&one.runs).remove(&about);
            asked.map(Arc::new)
        });
        let run = async move { work.await.unwrap_or(Err(Error::Stopping)) }.boxed().shared();
        runs.insert(question, run.clone());
        run
    }

    async fn carry_out(&self, question: &Question) -> Result<Answer, Error> {
        let _slot = self.slots.acquire().await.map_err(|_| Error::Stopping)?;
        let request = answer::request(&self.spec.api_version, &question.image, &question.token, &question.annotations);
        let hidden = Some(question.token.as_str()).filter(|t| !t.is_empty());
        let said = run::program(&self.program, &self.spec, &request, hidden).await?;
        answer::read(&said, &self.spec.api_version)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
