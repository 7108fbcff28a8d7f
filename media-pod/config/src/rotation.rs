//! How a gateway's token keys are replaced without a call noticing.
//!
//! Three keys at most: the one that signs, first in the list; then the one that signed before, which the Contacts of older calls carry;
//! and for a while the next one, so that every registrar knows it before a media pod signs with it.

use std::time::Duration;

use crate::token::TokenKey;

/// How long a key signs. As long it is still accepted after that, which is more than a call may last.
pub const LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long a key is known before it signs.
pub const LEAD: Duration = Duration::from_secs(3600);

/// The next step: the keys from now on, and the time until the step after. Without any key the fresh one signs at once.
pub fn step(keys: &[TokenKey], fresh: [u8; 32]) -> (Vec<TokenKey>, Duration) {
    let Some(signing) = keys.first() else {
        return (vec![TokenKey::from_bytes(1, fresh)], LIFE);
    };
    let next_id = signing.id.wrapping_add(1);
    match keys.iter().find(|key| key.id == next_id) {
        None => {
            let next = TokenKey::from_bytes(next_id, fresh);
            (keys.iter().cloned().chain([next]).collect(), LEAD)
        }
        Some(next) => (vec![next.clone(), signing.clone()], LIFE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{self, Incarnation};

    fn ids(keys: &[TokenKey]) -> Vec<u8> {
        keys.iter().map(|key| key.id).collect()
    }

    #[test]
    fn a_key_is_known_before_it_signs_and_accepted_for_as_long_after() {
        let (mut keys, mut after) = step(&[], [1; 32]);
        let mut seen = Vec::new();
        for number in 2..=6 {
            seen.push((ids(&keys), after));
            (keys, after) = step(&keys, [number; 32]);
        }
        let expected: [(&[u8], Duration); 5] = [
            (&[1], LIFE),
            (&[1, 2], LEAD),
            (&[2, 1], LIFE),
            (&[2, 1, 3], LEAD),
            (&[3, 2], LIFE),
        ];
        assert_eq!(seen, expected.map(|(ids, after)| (ids.to_vec(), after)));
    }

    /// A pod is told of each step some time before or after another pod: neither may sign what the other does not know.
    #[test]
    fn what_one_step_signs_the_steps_around_it_accept() {
        let mut steps = vec![step(&[], [0; 32]).0];
        for number in 1..=254_u8 {
            let (keys, _) = step(steps.last().unwrap(), [number; 32]);
            assert!(keys.len() <= 3);
            steps.push(keys);
        }
        for (signer, reader) in steps.iter().zip(&steps[1..]) {
            let read = |keys: &[TokenKey], token: &str| token::verify(keys, token);
            let tokens = [signer, reader].map(|keys| keys[0].sign(Incarnation(5)));
            assert_eq!(read(reader, &tokens[0]), Some(Incarnation(5)));
            assert_eq!(read(signer, &tokens[1]), Some(Incarnation(5)));
        }
        // A call that begins right before a key stops signing lives through all of the next key's time.
        for steps in steps.windows(3) {
            let token = steps[0][0].sign(Incarnation(5));
            assert_eq!(token::verify(&steps[2], &token), Some(Incarnation(5)));
        }
    }
}
