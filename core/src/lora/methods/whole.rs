//! The baselines that train weights of the base itself: all of them (`full`), or the head and the norm
//! before it (`head`).

/// Modules that `method = "head"` trains, given the names of a model's tensors: a classification head with
/// its projection where there is one, else the language-model head and the final norm. They are trained and
/// saved as `modules_to_save` are; a tied head becomes a matrix of its own.
pub fn head_modules<'a>(tensors: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let classifiers = ["pre_classifier", "classifier", "score"];
    let mut causal = vec!["lm_head".to_owned()];
    let mut found = vec![false; classifiers.len()];
    for name in tensors {
        for (seen, module) in found.iter_mut().zip(classifiers) {
            *seen |= name == format!("{module}.weight");
        }
        if name == "model.norm.weight" {
            causal.push("model.norm".to_owned());
        }
    }
    if found.contains(&true) {
        let present = classifiers.iter().zip(found).filter(|(_, seen)| *seen);
        return present.map(|(module, _)| (*module).to_owned()).collect();
    }
    causal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_found_by_their_names() {
        let llama = ["model.embed_tokens.weight", "model.norm.weight"];
        assert_eq!(head_modules(llama), ["lm_head", "model.norm"]);
        let bert = [
            "bert.pooler.dense.weight",
            "classifier.weight",
            "classifier.bias",
        ];
        assert_eq!(head_modules(bert), ["classifier"]);
        let distilbert = ["classifier.weight", "pre_classifier.weight"];
        assert_eq!(head_modules(distilbert), ["pre_classifier", "classifier"]);
    }
}
