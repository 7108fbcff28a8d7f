//! Several challenges to one request: the server and each proxy may ask, at once or one after the other (RFC 3261 section 22.3).

use super::Challenge;

/// Most times that one request is sent again with another answer.
const MAX_ANSWERS: u32 = 3;

/// What was asked of a request, and of those before it on the same way.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The latest challenge of each realm and algorithm.
    challenges: Vec<Challenge>,
    /// The realms that the present request has answers for; whether a proxy's.
    answered: Vec<(String, bool)>,
    answers: u32,
}

impl Asked {
    /// All that is to be answered.
    pub fn challenges(&self) -> &[Challenge] {
        &self.challenges
    }

    /// Another request begins. It answers what is known without being asked.
    pub fn begin(&mut self) {
        self.answered.clear();
        self.answers = 0;
    }

    /// Takes the challenges of a 401 or 407. Whether the request is to be sent again: when a realm asks for the first time, or when our
    /// answer was merely stale.
    pub fn take(&mut self, challenges: Vec<Challenge>) -> bool {
        let key = |challenge: &Challenge| (challenge.realm.clone(), challenge.proxy);
        let news = challenges
            .iter()
            .any(|challenge| challenge.stale || !self.answered.contains(&key(challenge)));
        if !news || self.answers >= MAX_ANSWERS {
            return false;
        }
        self.answers += 1;
        self.challenges
            .retain(|old| !challenges.iter().any(|new| key(new) == key(old)));
        self.answered.extend(challenges.iter().map(key));
        self.challenges.extend(challenges);
        true
    }
}
