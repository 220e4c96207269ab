//! Settings by module in the order they were written, because the first key that matches a module counts, as in PEFT.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A table from keys, which match modules' paths, to values; its order is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct ByModule<T>(Vec<(String, T)>);

impl<T> ByModule<T> {
    /// The entries in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, (String, T)> {
        self.0.iter()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T> Default for ByModule<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> FromIterator<(String, T)> for ByModule<T> {
    fn from_iter<I: IntoIterator<Item = (String, T)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl<T: Serialize> Serialize for ByModule<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for ByModule<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

struct Entries<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
    type Value = ByModule<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table from module names to numbers")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries: Vec<(String, T)> = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, T>()? {
            if entries.iter().any(|(known, _)| *known == key) {
                return Err(A::Error::custom(format!("{key:?} is given twice")));
            }
            entries.push((key, value));
        }
        Ok(ByModule(entries))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::adapters::PeftConfig;
    use crate::lora::LoraConfig;

    #[test]
    fn the_order_of_the_file_decides_and_survives() {
        let text =
            "[rank_pattern]\nq_proj = 2\n\".*proj\" = 4\n[alpha_pattern]\nz = 1.0\na = 2.0\n";
        let config: LoraConfig = toml::from_str(text).unwrap();
        let peft = PeftConfig::from_lora(&config, "CAUSAL_LM", "base", &[]);
        assert_eq!(peft.rank_and_alpha("l.0.q_proj").unwrap().0, 2);
        assert_eq!(peft.rank_and_alpha("l.0.v_proj").unwrap().0, 4);
        let again: LoraConfig = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
        let keys: Vec<&str> = again
            .alpha_pattern
            .iter()
            .map(|(k, _)| k.as_str())
            .collect();
        assert_eq!(keys, ["z", "a"]);
        assert!(serde_json::from_str::<ByModule<f64>>(r#"{"a":1,"a":2}"#).is_err());
    }
}
